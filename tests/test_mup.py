"""muP: multipliers by the paper's table, and activations that keep their size."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sampling import sampled

import jaxinit
from jaxinit import schemes
from jaxinit.schemes import mup

pytestmark = pytest.mark.unoptimized

BASE = 64


def leaf(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def transformer(d, heads=4):
    """Names and shapes of Flax, one block of width `d`."""
    size = d // heads
    return {
        "embed": {"embedding": leaf(100, d)},
        "norm": {"scale": leaf(d), "bias": leaf(d)},
        "attn": {
            "query": {"kernel": leaf(d, heads, size), "bias": leaf(heads, size)},
            "out": {"kernel": leaf(heads, size, d)},
        },
        "mlp": {"fc1": {"kernel": leaf(d, 4 * d)}, "fc2": {"weight": leaf(d, 4 * d)}},
        "conv": {"kernel": leaf(3, 3, 3, d)},
        "head": {"kernel": leaf(d, 10), "bias": leaf(10)},
    }


GROWN = mup.widths(transformer(BASE), transformer(4 * BASE))
# kind, learning rates of Adam and SGD, deviation over that of N(0, 0.02**2)
TABLE = {
    "embed/embedding": ("input", 1, 4, 1),
    "norm/scale": ("input", 1, 4, 1),
    "norm/bias": ("input", 1, 4, 1),
    "attn/query/kernel": ("hidden", 0.25, 1, 0.5),
    "attn/query/bias": ("input", 1, 4, 1),
    "attn/out/kernel": ("hidden", 0.25, 1, 0.5),
    "mlp/fc1/kernel": ("hidden", 0.25, 1, 0.5),
    "mlp/fc2/weight": ("hidden", 0.25, 1, 0.5),
    "conv/kernel": ("input", 1, 4, 1),
    "head/kernel": ("output", 1, 4, 1),
    "head/bias": ("fixed", 1, 1, 1),
}


@pytest.mark.parametrize("path", TABLE)
def test_table_of_the_paper(path):
    kind, adam, sgd, std = TABLE[path]
    assert (GROWN[path].kind, *GROWN[path].multipliers) == (kind, adam, sgd)
    rules = mup.rules({"**": jaxinit.normal(0.02)}, GROWN)
    planned = {x.path: x for x in jaxinit.plan(transformer(4 * BASE), rules)}
    assert planned[path].std == pytest.approx(0.02 * std)
    assert set(planned) == set(TABLE)


def test_laws_by_fan_in_need_no_change_but_at_the_output():
    """`1 / fan_in` is muP's own law of hidden layers; the output keeps the base's."""
    target = transformer(4 * BASE)
    plan = jaxinit.plan(target, mup.rules(schemes.flax(), GROWN))
    standard = jaxinit.plan(target, schemes.flax())
    changed = {
        mine.path: mine.std / own.std
        for mine, own in zip(plan, standard, strict=True)
        if mine.initializer != own.initializer
    }
    assert changed == pytest.approx({"head/kernel": 2.0, "embed/embedding": 2.0})


def test_an_output_of_zeros_stays_so():
    standard = jaxinit.Rules({"head/kernel": jaxinit.zeros}) | schemes.flax()
    plan = jaxinit.plan(transformer(4 * BASE), mup.rules(standard, GROWN))
    assert {x.path: x.initializer for x in plan}["head/kernel"] == jaxinit.zeros


OPTIMIZERS = {
    "adam": (mup.adam, optax.adam, {}),
    "adamw": (mup.adamw, optax.adamw, {"weight_decay": 0.1}),
    "sgd": (mup.sgd, optax.sgd, {}),
    "momentum": (mup.sgd, optax.sgd, {"momentum": 0.9, "nesterov": True}),
}


def steps(optimizer, params, grads, count=3):
    state = optimizer.init(params)
    for _ in range(count):
        updates, state = optimizer.update(grads, state, params)
        params = optax.apply_updates(params, updates)
    return params


@functools.cache
def small():
    shapes = {"hidden": {"kernel": leaf(6, 6), "bias": leaf(6)}}
    rules = {"**": jaxinit.normal(1.0)}
    return shapes, *(
        jaxinit.init_tree(jax.random.key(i), shapes, rules) for i in range(2)
    )


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", sampled(OPTIMIZERS, ["adam", "sgd"]))
def test_at_the_base_width_it_is_the_standard_parametrization(name):
    """Bit for bit: the laws, and the parameters after three steps."""
    ours, theirs, options = OPTIMIZERS[name]
    shapes, params, grads = small()
    grown = mup.widths(shapes, shapes)
    standard = {"**/kernel": jaxinit.he_normal(), "**": jaxinit.normal(0.02)}
    pairs = zip(
        jaxinit.plan(shapes, standard),
        jaxinit.plan(shapes, mup.rules(standard, grown)),
        strict=True,
    )
    assert all(a.initializer == b.initializer for a, b in pairs)
    mine = steps(ours(0.1, grown, **options), params, grads)
    other = steps(theirs(0.1, **options), params, grads)
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), mine, other))


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_weight_decay_is_the_same_at_every_width(name):
    """Without gradients, a step takes `learning_rate * weight_decay` of every leaf."""
    shapes, params, grads = small()
    narrow = {"hidden": {"kernel": leaf(2, 2), "bias": leaf(2)}}
    make = OPTIMIZERS[name][0]
    optimizer = make(0.1, mup.widths(narrow, shapes), weight_decay=0.5)
    after = steps(optimizer, params, jax.tree.map(jnp.zeros_like, grads), count=1)
    for new, old in zip(jax.tree.leaves(after), jax.tree.leaves(params), strict=True):
        assert jnp.allclose(new, old * 0.95, rtol=1e-6)


DEPTH, INPUTS, BATCH, SEEDS = 3, 8, 16, 2


def perceptron(d):
    sizes = [INPUTS, *[d] * DEPTH, 1]
    return {f"dense_{i}": {"kernel": leaf(*sizes[i : i + 2])} for i in range(DEPTH + 1)}


def forward(params, x, multiplier):
    """Mean size of what every layer gives, and the output."""
    coordinates = []
    for i in range(DEPTH + 1):
        x = x @ params[f"dense_{i}"]["kernel"] * (multiplier if i == DEPTH else 1.0)
        coordinates.append(jnp.abs(x).mean())
        x = jnp.tanh(x) if i < DEPTH else x
    return x, jnp.stack(coordinates)


@functools.cache
def coordinates(width, optimizer, is_mup):
    """Mean absolute activation of every layer after four steps, over some seeds."""
    shapes = perceptron(width)
    grown = mup.widths(perceptron(BASE if is_mup else width), shapes)
    multiplier = mup.output_multiplier(BASE, width) if is_mup else 1.0
    rate, make = {"adam": (0.01, mup.adam), "sgd": (0.1, mup.sgd)}[optimizer]
    standard = {f"dense_{DEPTH}/*": jaxinit.zeros, "**": jaxinit.lecun_normal()}
    rules = mup.rules(standard, grown)
    plan, chosen = jaxinit.plan(shapes, rules), make(rate, grown)

    def loss(params, x, y):
        return ((forward(params, x, multiplier)[0] - y) ** 2).mean()

    @jax.jit
    def run(params, x, y):
        state = chosen.init(params)

        def step(carry, _):
            params, state = carry
            updates, state = chosen.update(jax.grad(loss)(params, x, y), state, params)
            return (optax.apply_updates(params, updates), state), None

        (params, _), _ = jax.lax.scan(step, (params, state), length=4)
        return forward(params, x, multiplier)[1]

    def of_seed(seed):
        keys = jax.random.split(jax.random.key(seed), 3)
        x = np.random.default_rng(seed).normal(size=(BATCH, INPUTS)).astype(np.float32)
        y = np.sin(x[:, :1] * 2) + 1
        return np.asarray(run(plan.init(keys[1]), x, y))

    return sum(of_seed(seed) for seed in range(SEEDS)) / SEEDS


@pytest.mark.parametrize(
    ("optimizer", "widths"),
    [
        ("adam", (64, 1024)),
        pytest.param("adam", (64, 256, 1024), marks=pytest.mark.exhaustive),
        pytest.param("sgd", (64, 256, 1024), marks=pytest.mark.exhaustive),
    ],
)
def test_activations_keep_their_size_under_mup_alone(optimizer, widths):
    """The paper's coordinate check, at widths 64 to 1024 after 4 steps."""
    sizes = {
        is_mup: np.stack(
            [coordinates(d, optimizer, is_mup and d > BASE) for d in widths]
        )
        for is_mup in (True, False)
    }
    spread = sizes[True].max(0) / sizes[True].min(0)
    assert spread.max() < 1.3, sizes[True]
    growth = sizes[False][-1] / sizes[False][0]
    assert growth.max() > 2, sizes[False]


def test_numbers_of_the_forward_pass():
    assert mup.output_multiplier(BASE, 4 * BASE) == 0.25
    assert mup.attention_scale(64, 64) == 64**-0.5
    assert mup.attention_scale(16, 64) == math.sqrt(16) / 64


MISMATCHES = {
    "names": ({"a": {"kernel": leaf(2, 2)}}, {}, "a/kernel: only the base model"),
    "axes": (
        {"a": {"kernel": leaf(2, 2)}},
        {"a": {"kernel": leaf(1, 2, 2)}},
        r"a/kernel: its shape is \(2, 2\) and \(1, 2, 2\)",
    ),
    "window": (
        {"a": {"kernel": leaf(3, 3, 2, 2)}},
        {"a": {"kernel": leaf(5, 3, 2, 2)}},
        "a/kernel: its window has grown",
    ),
    "vocabulary": (
        {"a": {"embedding": leaf(10, 4)}},
        {"a": {"embedding": leaf(11, 4)}},
        "the number of rows must be the same",
    ),
}


@pytest.mark.parametrize("case", MISMATCHES)
def test_models_that_are_no_pair_are_refused(case):
    base, target, message = MISMATCHES[case]
    with pytest.raises(jaxinit.PlanError, match=message):
        mup.widths(base, target)


def anonymous(d, heads=4, rows=100, window=3, experts=2, layers=2):
    """The leaves of `transformer`, and more, by names that say nothing."""
    size = d // heads
    return {
        "p0": leaf(rows, d),
        "p1": leaf(d),
        "p2": leaf(d),
        "p3": leaf(size, d, heads),
        "p4": leaf(d, d),
        "p5": leaf(d, heads * size),
        "p6": leaf(d, heads, size),
        "p7": leaf(4 * d, d),
        "p8": leaf(experts, d, 4 * d),
        "p9": leaf(layers, d, d),
        "p10": leaf(window, 1, d),
        "p11": leaf(10, d),
        "p12": leaf(10),
        "p13": leaf(d, heads, size),
    }


def compute(w, ids):
    x = w["p0"][ids]
    mean, deviation = x.mean(-1, keepdims=True), x.std(-1, keepdims=True)
    h = (x - mean) / (deviation + 1e-6) * w["p1"] + w["p2"]
    q = jnp.einsum("btd,kdh->bthk", h, w["p3"])
    k = (h @ w["p4"]).reshape(q.shape)
    v = jnp.einsum("btd,dhk->bthk", h, w["p13"])
    scores = jnp.einsum("bthk,bshk->bhts", q, k) / math.sqrt(q.shape[-1])
    mixed = jnp.einsum("bhts,bshk->bthk", jax.nn.softmax(scores), v)
    x = x + jnp.einsum("bthk,dhk->btd", mixed, w["p6"])
    x = x + mixed.reshape(x.shape) @ w["p5"]
    x = x + jax.nn.relu(x @ w["p7"].T) @ jnp.ones((4 * x.shape[-1], x.shape[-1]))
    shared = x.reshape(w["p8"].shape[0], -1, *x.shape[1:])  # rows for each expert
    of_experts = jax.nn.relu(jnp.einsum("ebtd,edf->ebtf", shared, w["p8"]))
    x = x + of_experts.mean(-1, keepdims=True).reshape(*x.shape[:2], 1)
    x, _ = jax.lax.scan(lambda x, a: (x + jnp.tanh(x @ a), None), x, w["p9"])
    x = jax.lax.conv_general_dilated(
        x,
        w["p10"],
        (1,),
        "SAME",
        dimension_numbers=("NHC", "HIO", "NHC"),
        feature_group_count=x.shape[-1],
    )
    return x @ w["p11"].T + w["p12"]


@functools.cache
def roles_of(**sizes):
    ids = jax.ShapeDtypeStruct((6, 7), jnp.int32)
    return jaxinit.roles(compute, anonymous(**sizes), ids)


# Kind, learning rates of Adam and SGD at four times the width, whatever the names.
BY_ROLES = {
    **dict.fromkeys(("p0", "p1", "p2"), ("input", 1, 4)),
    **dict.fromkeys(("p3", "p4", "p5", "p6", "p7", "p8", "p9"), ("hidden", 0.25, 1)),
    "p13": ("hidden", 0.25, 1),
    "p10": ("input", 1, 4),  # depthwise: as a vector
    "p11": ("output", 1, 4),
    "p12": ("fixed", 1, 1),
}


def test_roles_tell_how_leaves_grow():
    grown = mup.widths(roles_of(d=16), roles_of(d=64))
    found = {path: (x.kind, *x.multipliers) for path, x in grown.items()}
    assert found == BY_ROLES
    rules = mup.rules({jaxinit.role(kind="scale"): jaxinit.ones, "**": NORMAL}, grown)
    plan = jaxinit.plan(anonymous(64), rules, roles=roles_of(d=64))
    stds = {x.path: x.std for x in plan if x.path != "p1"}
    hidden = {path: 0.01 for path, row in BY_ROLES.items() if row[0] == "hidden"}
    assert stds == pytest.approx(dict.fromkeys(stds, 0.02) | hidden)


NORMAL = jaxinit.normal(0.02)
NO_PAIR = {
    "rows": ({"rows": 90}, r"p0: its rows changed, from \(100, 16\) to \(90, 16\)"),
    "window": ({"window": 5}, "p10: its window changed"),
    "experts": ({"experts": 3}, "p8: its number of kernels changed"),
    "layers": ({"layers": 3}, "p9: its number of layers changed"),
}


@pytest.mark.parametrize("case", NO_PAIR)
def test_roles_of_no_pair_are_refused(case):
    other, message = NO_PAIR[case]
    with pytest.raises(jaxinit.PlanError, match=message):
        mup.widths(roles_of(d=16), roles_of(d=16, **other))


def test_an_order_that_follows_sizes_is_refused():
    """An einsum of three operands is contracted otherwise in a wide model."""

    def apply(w, x):
        hidden = jnp.tanh(jnp.einsum("bi,eih->beh", x, w["u"]))
        gate = jax.nn.softmax(x @ w["g"])
        return jnp.einsum("be,beh,eho->bo", gate, hidden, w["d"])

    def roles(width):
        params = {"u": leaf(4, 4, width), "d": leaf(4, width, 3), "g": leaf(4, 4)}
        return jaxinit.roles(apply, params, leaf(5, 4))

    with pytest.raises(jaxinit.PlanError, match="d: its axes are contracted otherwise"):
        mup.widths(roles(2), roles(8))
    with pytest.raises(jaxinit.PlanError, match="without entries, nothing grows"):
        mup.widths({"kernel": leaf(0, 4)}, {"kernel": leaf(4, 4)})


def test_an_unknown_leaf_may_not_grow():
    def apply(w, x):
        return x @ jnp.fft.fft(w["a"]).real

    def roles(width, function=apply):
        params = {"a": leaf(4, width)}
        return jaxinit.roles(function, params, leaf(3, 4))

    assert mup.widths(roles(4), roles(4))["a"].kind == "fixed"
    with pytest.raises(jaxinit.PlanError, match=r"a: it grows, and .* unknown: .*fft"):
        mup.widths(roles(4), roles(8))
    other = roles(4, lambda w, x: x @ w["a"])
    with pytest.raises(jaxinit.PlanError, match="in 1 places of the base model"):
        mup.widths(roles(4), other)
    with pytest.raises(TypeError, match="both be pytrees of shapes, or both"):
        mup.widths(roles(4), {"a": leaf(4, 8)})


def test_what_is_not_in_the_pair_is_refused():
    extra = {**transformer(4 * BASE), "extra": {"kernel": leaf(2, 2)}}
    with pytest.raises(jaxinit.PlanError, match="extra/kernel is not in the models"):
        jaxinit.plan(extra, mup.rules({"**": jaxinit.ones}, GROWN))
    with pytest.raises(ValueError, match="extra is not in the models"):
        mup.scale_by_width(GROWN, "sgd").update({"extra": jnp.ones(2)}, None)
    with pytest.raises(ValueError, match="rule must be 'adam' or 'sgd'"):
        mup.scale_by_width(GROWN, "lion")


def test_an_initializer_without_moments_is_refused():
    rules = mup.rules({"**": jax.nn.initializers.he_normal()}, GROWN)
    with pytest.raises(jaxinit.PlanError, match="does not know its deviation"):
        jaxinit.plan(transformer(4 * BASE), rules)
