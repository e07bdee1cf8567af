"""A model that ends in a loss has the roles of the model without it."""

import functools

import jax
import jax.numpy as jnp
import optax
import pytest

import jaxinit

pytestmark = pytest.mark.unoptimized

BATCH, CLASSES = 4, 5


def array(*shape, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(shape, dtype)


PARAMS = {
    "body": {"w": array(CLASSES, 7), "b": array(7)},
    "head": {"w": array(7, CLASSES), "b": array(CLASSES)},
    "second": {"w": array(7, CLASSES), "b": array(CLASSES)},
}
FLOATS, INTEGERS = array(BATCH, CLASSES), array(BATCH, dtype=jnp.int32)
EACH = array(BATCH)
TRIPLE = array(3 * BATCH, CLASSES)


def log_prob(z, action):
    return jnp.take_along_axis(jax.nn.log_softmax(z), action[:, None], axis=1)[:, 0]


def one_hot(y):
    return jax.nn.one_hot(y, CLASSES)


def entropy(z):
    return -(jax.nn.softmax(z) * jax.nn.log_softmax(z)).sum(-1)


def focal(z, v, y):
    p = jax.nn.sigmoid(z)
    error = optax.sigmoid_binary_cross_entropy(z, y)
    true = p * y + (1 - p) * (1 - y)
    return ((0.25 * y + 0.75 * (1 - y)) * (1 - true) ** 2 * error).mean()


def focal_of_classes(z, v, y):
    logs = log_prob(z, y)
    return -((1 - jnp.exp(logs)) ** 2 * logs).mean()


def weighted(z, v, y, weights):
    each = (one_hot(y) * jax.nn.log_softmax(z)).sum(-1)
    chosen = weights[y]
    return -(each * chosen).sum() / chosen.sum()


def smoothed(z, v, y):
    soft = 0.9 * one_hot(y) + 0.1 / CLASSES
    return -(soft * jax.nn.log_softmax(z)).sum(-1).mean()


def masked(z, v, y):
    loss = -log_prob(z, y)
    mask = (y > 0).astype(loss.dtype)
    return (loss * mask).sum() / mask.sum()


def divergence(z, v, _):
    p, log_p = jax.nn.softmax(z), jax.nn.log_softmax(z)
    return (p * (log_p - jax.nn.log_softmax(v))).sum(-1).mean()


def clipped(z, v, action, old, gain):
    ratio = jnp.exp(log_prob(z, action) - old)
    bounded = jnp.clip(ratio, 0.8, 1.2)
    loss = -jnp.minimum(ratio * gain, bounded * gain)
    return loss.mean() - 0.01 * entropy(z).mean()


def actor_critic(z, v, action, returns):
    value = v[:, 0]
    gain = jax.lax.stop_gradient(returns - value)
    loss = -(log_prob(z, action) * gain).mean() + 0.5 * (gain**2).mean()
    return loss - 0.01 * entropy(z).mean()


def soft_actor_critic(z, v, _):
    p = jax.nn.softmax(z)
    return (p * (0.2 * jax.nn.log_softmax(z) - jax.lax.stop_gradient(v))).sum(-1).mean()


def variational(z, v, x, noise):
    sample = z + jnp.exp(0.5 * v) * noise
    kl = -0.5 * (1 + v - z**2 - jnp.exp(v)).sum(-1)
    return ((sample - x) ** 2).mean() + kl.mean()


def contrasted(z, v, _):
    a = z / jnp.linalg.norm(z, axis=-1, keepdims=True)
    b = v / jnp.linalg.norm(v, axis=-1, keepdims=True)
    logits = a @ b.T / 0.07
    return -jnp.diag(jax.nn.log_softmax(logits)).mean()


def focal_of_softmax(z, v, y):
    p = (jax.nn.softmax(z) * one_hot(y)).sum(-1)
    return -((1 - p) ** 2 * jnp.log(p)).mean()


def gaussian(z, v, y):
    return (0.5 * jnp.exp(-v) * (y - z) ** 2 + 0.5 * v).mean()


def dice(z, v, y):
    p = jax.nn.sigmoid(z)
    return 1 - 2 * (p * y).sum() / (p.sum() + y.sum())


def dice_of_classes(z, v, y):
    p = jax.nn.softmax(z)
    return 1 - 2 * (p * one_hot(y)).sum() / (p.sum() + one_hot(y).sum())


def by_hand(z, v, y):
    p = jnp.exp(z) / jnp.exp(z).sum(-1, keepdims=True)
    return -(one_hot(y) * jnp.log(p + 1e-9)).sum(-1).mean()


def expected(z, v, support, y):
    """The expected value of a distribution over given numbers, as in C51."""
    return (((jax.nn.softmax(z) * support).sum(-1) - y) ** 2).mean()


def distributional(z, v, target):
    return -(target * jax.nn.log_softmax(z)).sum(-1).mean()


def evidence(z, v, y):
    alpha = jax.nn.softplus(z) + 1
    total = alpha.sum(-1, keepdims=True)
    return (one_hot(y) * (jnp.log(total) - jnp.log(alpha))).sum(-1).mean()


def reinforced(z, v, action, returns):
    p = jax.nn.softmax(z)
    chosen = jnp.take_along_axis(p, action[:, None], axis=1)[:, 0]
    return -(jnp.log(chosen) * returns).mean()


def reinforced_by_products(z, v, reward):
    return -(jax.nn.softmax(z) * reward).sum(-1).mean()


def quantiles(z, v, y):
    tau = (jnp.arange(CLASSES) + 0.5) / CLASSES
    u = y[:, None] - z
    return (jnp.abs(tau - (u < 0)) * optax.huber_loss(z, y[:, None])).mean()


def preferred(z, v, y):
    a, b = (log_prob(q, y) for q in (z, v))
    return -jax.nn.log_sigmoid(0.1 * (a - b)).mean()


def poisson(z, v, y):
    return (jnp.exp(z) - y * z).mean()


def distilled(z, v, teacher):
    t = jax.nn.softmax(teacher / 2)
    return (t * (jnp.log(t) - jax.nn.log_softmax(z / 2))).sum(-1).mean() * 4


def balanced(z, v, y, weight):
    each = weight * y * jax.nn.log_sigmoid(z) + (1 - y) * jax.nn.log_sigmoid(-z)
    return -each.mean()


def confident(z, v, y):
    p = jax.nn.sigmoid(z)
    return -(y * jnp.log(p) + (1 - y) * jnp.log(1 - p)).mean()


def deep_q(z, v, action, reward):
    chosen = (one_hot(action) * z).sum(-1)
    target = reward + 0.9 * jax.lax.stop_gradient(v.max(-1))
    return optax.huber_loss(chosen, target).mean()


def double_q(z, v, action, reward):
    best = one_hot(jnp.argmax(z, -1))
    target = reward + 0.9 * jax.lax.stop_gradient((best * v).sum(-1))
    return (
        (log_prob(z, action) * 0 + (one_hot(action) * z).sum(-1) - target) ** 2
    ).mean()


def crossed(z, v, _):
    return -(jax.nn.softmax(z) * jax.nn.log_softmax(v)).sum(-1).mean()


def crossed_of_two(z, v, _):
    p, q = jax.nn.sigmoid(z), jax.nn.log_sigmoid
    return -(p * q(v) + (1 - p) * q(-v)).mean()


def clipped_by_a_critic(z, v, action, old, returns):
    return clipped(z, None, action, old, returns - v[:, 0])


def picked_by_a_critic(z, v, action, returns):
    p = jax.nn.softmax(z)
    chosen = jnp.take_along_axis(p, action[:, None], axis=1)[:, 0]
    return -(chosen * (returns - v[:, 0])).mean()


def chosen_by_a_critic(z, v, action, returns):
    chosen = (jax.nn.softmax(z) * one_hot(action)).sum(-1)
    return -(chosen * (returns - v[:, 0])).mean()


def pressed(z, v, action, returns):
    """Policy of independent buttons, each pressed or not."""
    log_p = jnp.where(action > 0, jax.nn.log_sigmoid(z), jax.nn.log_sigmoid(-z))
    return -(log_p * (returns - v[:, 0])[:, None]).mean()


def weighed_buttons(z, v, gain):
    return -(jax.nn.sigmoid(z) * gain).mean()


LOSSES = {
    "sigmoid cross-entropy": (
        lambda z, v, y: optax.sigmoid_binary_cross_entropy(z, y).mean(),
        FLOATS,
    ),
    "of softplus": (lambda z, v, y: (jax.nn.softplus(z) - y * z).mean(), FLOATS),
    "stable": (
        lambda z, v, y: (
            jnp.maximum(z, 0) - z * y + jnp.log1p(jnp.exp(-jnp.abs(z)))
        ).mean(),
        FLOATS,
    ),
    "confident": (confident, FLOATS),
    "balanced": (balanced, FLOATS, array(CLASSES)),
    "focal": (focal, FLOATS),
    "focal of classes": (focal_of_classes, INTEGERS),
    "focal of softmax": (focal_of_softmax, INTEGERS),
    "one hot": (
        lambda z, v, y: optax.softmax_cross_entropy(z, one_hot(y)).mean(),
        INTEGERS,
    ),
    "integers": (
        lambda z, v, y: optax.softmax_cross_entropy_with_integer_labels(z, y).mean(),
        INTEGERS,
    ),
    "gathered": (lambda z, v, y: -log_prob(z, y).mean(), INTEGERS),
    "by hand": (by_hand, INTEGERS),
    "smoothed": (smoothed, INTEGERS),
    "weighted": (weighted, INTEGERS, array(CLASSES)),
    "masked": (masked, INTEGERS),
    "distributional": (distributional, FLOATS),
    "divergence": (divergence,),
    "distilled": (distilled, FLOATS),
    "squared": (lambda z, v, y: ((z - y) ** 2).mean(), FLOATS),
    "squared, weighted": (
        lambda z, v, y, w: (w[:, None] * (z - y) ** 2).mean(),
        FLOATS,
        EACH,
    ),
    "squared, masked": (
        lambda z, v, y, w: (w * (z - y) ** 2).sum() / w.sum(),
        FLOATS,
        FLOATS,
    ),
    "absolute": (lambda z, v, y: jnp.abs(z - y).mean(), FLOATS),
    "huber": (lambda z, v, y: optax.huber_loss(z, y).mean(), FLOATS),
    "quantiles": (quantiles, EACH),
    "gaussian": (gaussian, FLOATS),
    "poisson": (poisson, FLOATS),
    "evidence": (evidence, INTEGERS),
    "dice": (dice, FLOATS),
    "dice of classes": (dice_of_classes, INTEGERS),
    "variational": (variational, FLOATS, FLOATS),
    "contrasted": (contrasted,),
    "preferred": (preferred, INTEGERS),
    "clipped": (clipped, INTEGERS, EACH, EACH),
    "actor critic": (actor_critic, INTEGERS, EACH),
    "soft actor critic": (soft_actor_critic,),
    "reinforced": (reinforced, INTEGERS, EACH),
    "reinforced by products": (reinforced_by_products, FLOATS),
    "deep q": (deep_q, INTEGERS, EACH),
    "double q": (double_q, INTEGERS, EACH),
    "expected": (expected, array(CLASSES), EACH),
    "crossed": (crossed,),
    "crossed of two": (crossed_of_two,),
    "optax kl": (
        lambda z, v, _: optax.kl_divergence(
            jax.nn.log_softmax(z), jax.nn.softmax(v)
        ).mean(),
    ),
    "clipped by a critic": (clipped_by_a_critic, INTEGERS, EACH, EACH),
    "picked by a critic": (picked_by_a_critic, INTEGERS, EACH),
    "chosen by a critic": (chosen_by_a_critic, INTEGERS, EACH),
    "pressed": (pressed, FLOATS, EACH),
    "log of a button": (lambda z, v, _: -(jax.nn.log_sigmoid(z) * v).mean(),),
    "weighed buttons": (weighed_buttons, FLOATS),
    "one-hot critic": (
        lambda z, v, a, g: (
            -((one_hot(a) * jax.nn.log_softmax(z)).sum(-1) * (g - v[:, 0])).mean()
        ),
        INTEGERS,
        EACH,
    ),
    "hinge": (lambda z, v, y: jax.nn.relu(1 - y * z).mean(), FLOATS),
}


COMPARED = (
    *("squared", "squared, weighted", "squared, masked", "absolute", "huber"),
    *("quantiles", "gaussian", "variational", "actor critic", "deep q", "double q"),
)

# Its probabilities times the inputs may be a mask of them.
OF_INPUTS = [
    name
    for name, (_, *inputs) in LOSSES.items()
    if inputs == [FLOATS] and name != "focal"
]


def told(loss, *inputs):
    """What each leaf that a loss reads is for."""

    def apply(p, x, *rest):
        h = jnp.tanh(x @ p["body"]["w"] + p["body"]["b"])
        z, v = (h @ p[name]["w"] + p[name]["b"] for name in ("head", "second"))
        return loss(z, v, *rest) if inputs else loss(z, v, x)

    found = jaxinit.roles(apply, PARAMS, FLOATS, *inputs)
    return {
        path: {
            (
                use.kind,
                use.fan_in,
                use.part,
                use.residual,
                use.variance,
                use.function if path == "body/w" else None,
            )
            for use in role.uses
        }
        for path, role in found.items()
        if role.uses
    }


@functools.cache
def without_loss():
    return told(lambda z, v, *_: (z, v))


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_changes_no_role(name):
    loss, *inputs = LOSSES[name]
    found = told(loss, *(inputs or [FLOATS]))
    assert found == {path: without_loss()[path] for path in found}
    assert "head/w" in found


@pytest.mark.parametrize("name", OF_INPUTS)
def test_a_loss_of_what_the_model_reads_changes_no_role(name):
    found = told(LOSSES[name][0])
    assert found == {path: without_loss()[path] for path in found}


@pytest.mark.parametrize("name", COMPARED)
def test_errors_are_no_functions_of_what_is_compared(name):
    loss, *inputs = LOSSES[name]

    def apply(p, x, *rest):
        z, v = (jnp.tanh(x @ p["body"]) @ p[name] for name in ("head", "second"))
        return loss(z, v, *rest)

    params = {"body": PARAMS["body"]["w"]}
    params |= {name: PARAMS[name]["w"] for name in ("head", "second")}
    found = jaxinit.roles(apply, params, FLOATS, *inputs)
    assert (found["body"].function, found["head"].function) == ("tanh", "identity")


def expectile(v, q):
    apart = q - v
    return (jnp.where(apart > 0, 0.7, 0.3) * jnp.square(apart)).mean()


def weighed_by_advantages(v, q, z, y):
    log_p = -jnp.square(y - z).sum(-1)
    return -(jnp.exp(3.0 * jax.lax.stop_gradient(q - v)) * log_p).mean()


VALUES = {
    "squared": lambda v, q, z, y: 0.5 * jnp.square(v - q).mean(),
    "expectile": lambda v, q, z, y: expectile(v, q),
    "weighed by advantages": weighed_by_advantages,
    "clipped": lambda v, q, z, y: jnp.maximum(
        jnp.square(v - q), jnp.square(q + jnp.clip(v - q, -1, 1))
    ).mean(),
}


@pytest.mark.parametrize("name", VALUES)
def test_a_value_of_one_feature_has_no_function_and_no_part(name):
    def apply(p, x, q, y):
        h = jnp.tanh(x @ p["body"])
        return VALUES[name]((h @ p["value"])[:, 0], q, h @ p["policy"], y)

    shapes = {"body": (CLASSES, 7), "value": (7, 1), "policy": (7, CLASSES)}
    params = {name: array(*shape) for name, shape in shapes.items()}
    found = jaxinit.roles(apply, params, FLOATS, EACH, FLOATS)
    for role in (found["value"], found["policy"]):
        if role.uses:
            assert (role.function, role.part, role.head) == ("identity", None, True)


def test_what_is_given_has_its_function_though_others_are_subtracted():
    def apply(p, x, y, t):
        ranked = jax.nn.sigmoid(x @ p["rank"] - y @ p["rank"])
        u = x @ p["squashed"]
        loss = jnp.square(u - t).mean()
        return ranked[:, 0], jnp.square(x @ p["error"] - t), loss, jnp.tanh(u)

    shapes = {"rank": (CLASSES, 1), "error": (CLASSES, 7), "squashed": (CLASSES, 7)}
    params = {name: array(*shape) for name, shape in shapes.items()}
    found = jaxinit.roles(apply, params, FLOATS, FLOATS, array(BATCH, 7))
    functions = {name: role.uses[0].function for name, role in found.items()}
    expected = {"rank": "sigmoid", "error": "square", "squashed": "tanh"}
    assert functions == expected


@pytest.mark.parametrize("function", [jax.nn.sigmoid, jax.nn.silu, jnp.tanh])
def test_what_is_gated_has_a_gate_though_a_loss_follows(function):
    def apply(p, x, y):
        h = function(x @ p["gate"]) * (x @ p["up"])
        return ((h @ p["down"] - y) ** 2).mean()

    params = dict.fromkeys(("gate", "up", "down"), array(CLASSES, CLASSES))
    found = jaxinit.roles(apply, params, FLOATS, FLOATS)
    assert (found["gate"].part, found["up"].part) == ("gate", "up")


def test_experts_have_a_router_though_a_loss_follows():
    def apply(p, x, y):
        weights = jax.nn.softmax(x @ p["router"])
        h = jnp.einsum("be,bef->bf", weights, jnp.einsum("bi,eif->bef", x, p["up"]))
        return optax.softmax_cross_entropy_with_integer_labels(h, y).mean()

    params = {"router": array(CLASSES, 3), "up": array(3, CLASSES, CLASSES)}
    assert jaxinit.roles(apply, params, FLOATS, INTEGERS)["router"].part == "router"


PENALTIES = {
    "decay of weights": lambda w: 1e-4 * jnp.sum(w**2),
    "lasso": lambda w: jnp.abs(w).sum(),
    "norm": lambda w: jnp.linalg.norm(w),
}


@pytest.mark.parametrize("name", PENALTIES)
def test_penalties_are_no_uses(name):
    def apply(p, x, y):
        loss = jnp.mean((jnp.tanh(x @ p["w"] + p["b"]) @ p["v"] - y) ** 2)
        return loss + sum(map(PENALTIES[name], p.values()))

    def inside(p, x, y):  # what is added to activations that go on
        return (jnp.tanh(x @ p["w"]) + PENALTIES[name](p["w"]) + p["b"]) @ p["v"] - y

    shapes = {"w": (5, 8), "b": (8,), "v": (8, 3)}
    params = {k: jax.ShapeDtypeStruct(v, jnp.float32) for k, v in shapes.items()}
    x, y = (jax.ShapeDtypeStruct((4, n), jnp.float32) for n in (5, 3))
    found = jaxinit.roles(apply, params, x, y)
    assert [found[k].kind for k in "wbv"] == ["kernel", "bias", "kernel"]
    assert jaxinit.roles(inside, params, x, y)["w"].kind == "unknown"
