"""What enters kernels: followed where it can be, and said where it cannot."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxinit
from jaxinit import schemes
from jaxinit._roles.statistics.combined import let_through, shared
from jaxinit._roles.statistics.critical import critical
from jaxinit._roles.statistics.spreads import Spread
from jaxinit._tree.plan import model_plan

pytestmark = pytest.mark.unoptimized

LENGTH, WIDTH, HEADS, SIZE = 32, 64, 4, 16


def array(*shape, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(shape, dtype)


def kernels(**shapes):
    return {name: array(*shape) for name, shape in shapes.items()}


def outputs(apply, shapes, x, key, **others):
    """What a model gives with the parameters of `auto`, and some that it leaves out."""
    roles = jaxinit.roles(apply, shapes, x)
    own = {path: jaxinit.constant(value) for path, value in others.items()}
    params = jaxinit.plan(
        shapes, jaxinit.Rules(own) | schemes.auto(), roles=roles
    ).init(key)
    return jax.jit(apply)(params, x)


X = np.random.default_rng(0).normal(size=(8, LENGTH, WIDTH)).astype(np.float32)


# Averages.


def in_blocks(p, x):
    """Attention over blocks of keys, with a running maximum and sum."""
    q, k, v = (x @ p[name] for name in "qkv")
    blocks = [y.reshape(8, 4, -1, WIDTH).swapaxes(0, 1) for y in (k, v)]

    def step(carry, block):
        most, total, acc = carry
        k, v = block
        scores = q @ k.mT / 8
        new = jnp.maximum(most, scores.max(-1))
        weights, keep = jnp.exp(scores - new[..., None]), jnp.exp(most - new)
        total = keep * total + weights.sum(-1)
        acc = keep[..., None] * acc + weights @ v
        return (new, total, acc), None

    start = jnp.full(x.shape[:2], -jnp.inf), jnp.zeros(x.shape[:2]), jnp.zeros_like(q)
    (_, total, acc), _ = jax.lax.scan(step, start, tuple(blocks))
    return acc / total[..., None] @ p["o"]


def at_once(p, x):
    q, k, v = (x @ p[name] for name in "qkv")
    return jax.nn.softmax(q @ k.mT / 8) @ v @ p["o"]


def divided_at_last(p, x):
    q, k, v = (x @ p[name] for name in "qkv")
    weights = jnp.exp(q @ k.mT / 8)
    return weights @ v * (1 / weights.sum(-1, keepdims=True)) @ p["o"]


def linear(p, x):
    q, k = (jax.nn.elu(x @ p[name]) + 1 for name in "qk")
    total = jnp.einsum("btd,bd->bt", q, k.sum(1))
    return q @ (k.mT @ (x @ p["v"])) / (total[..., None] + 1e-6) @ p["o"]


@pytest.mark.parametrize("apply", [in_blocks, divided_at_last, linear])
def test_an_average_has_the_moments_of_what_it_averages(apply):
    shapes = dict.fromkeys("qkvo", array(WIDTH, WIDTH))
    found = jaxinit.roles(apply, shapes, X)
    expected = jaxinit.roles(at_once, shapes, X)
    parts = {name: expected[name].part for name in "qkvo"}
    if apply is not linear:
        assert {name: found[name].part for name in "qkvo"} == parts
    for name in "vo":
        assert found[name].variance == pytest.approx(expected[name].variance)
        assert found[name].doubt == ""


def test_no_average_is_one_of_other_weights():
    def apply(p, x):
        a, b = jnp.exp(x @ p["a"]), jnp.exp(x @ p["b"])
        return (a @ (x @ p["v"])) / b.sum(-1, keepdims=True) @ p["o"]

    shapes = {**kernels(a=(WIDTH, LENGTH), b=(WIDTH, LENGTH))}
    shapes |= dict.fromkeys("vo", array(WIDTH, WIDTH))
    assert jaxinit.roles(apply, shapes, X)["o"].entering != pytest.approx(1)


# Heads that are summed.


def mapped(p, x):
    return jax.vmap(jnp.matmul, (1, 0))(x, p["o"]).sum(0)


def by_einsum(p, x):
    return jnp.einsum("bhd,hdm->bhm", x, p["o"]).sum(1)


def one_by_one(p, x):
    return sum(x[:, i] @ p["o"][i] for i in range(HEADS))


def in_a_loop(p, x):
    def step(y, head):
        x, w = head
        return y + x @ w, None

    zero = jnp.zeros((x.shape[0], WIDTH))
    return jax.lax.scan(step, zero, (x.swapaxes(0, 1), p["o"]))[0]


def at_once_of_heads(p, x):
    return jnp.einsum("bhd,hdm->bm", x, p["o"])


@pytest.mark.parametrize("apply", [mapped, by_einsum, one_by_one, in_a_loop])
def test_heads_that_are_summed_are_inputs_of_one_kernel(apply):
    shapes, x = kernels(o=(HEADS, SIZE, WIDTH)), array(5, HEADS, SIZE)
    expected = jaxinit.roles(at_once_of_heads, shapes, x)["o"]
    for use in jaxinit.roles(apply, shapes, x)["o"].uses:
        assert (use.in_axis, use.out_axis, use.fan_in) == ((0, 1), (2,), HEADS * SIZE)
        assert use.batch_axis == use.stack_axis == ()
        assert use.variance == pytest.approx(expected.variance)


def added_one_by_one(p, x):
    for w in (p["a"], p["b"]):
        x = x + sum(jnp.tanh(x) @ w[i] for i in range(HEADS))
    return x


def test_heads_of_a_residual_stream_share_the_part_of_one_writer():
    shapes = dict.fromkeys("ab", array(HEADS, WIDTH, WIDTH))
    role = jaxinit.roles(added_one_by_one, shapes, array(5, WIDTH))["a"]
    second = HEADS * WIDTH * role.uses[0].entering
    assert role.uses[0].variance == pytest.approx(1 / (2 * second))


def test_networks_that_are_summed_remain_batches_that_share_the_sum():
    def apply(p, x):
        def net(q, x):
            return jnp.tanh(x @ q["a"]) @ q["b"]

        return jax.vmap(net, (0, None))(p, x).sum(0)

    shapes = kernels(a=(HEADS, SIZE, WIDTH), b=(HEADS, WIDTH, SIZE))
    use = jaxinit.roles(apply, shapes, array(5, SIZE))["b"].uses[0]
    assert (use.batch_axis, use.fan_in) == ((0,), WIDTH)
    assert HEADS * WIDTH * use.variance == pytest.approx(1 / 0.3943, rel=1e-3)


def test_members_of_an_ensemble_have_fans_of_their_own():
    def mean(p, x):
        return jax.vmap(jnp.matmul, (None, 0))(x, p["o"]).mean(0)

    def mean_one_by_one(p, x):
        return sum(x @ p["o"][i] for i in range(HEADS)) / HEADS

    def scaled_one_by_one(p, x):
        return sum(x @ p["o"][i] for i in range(HEADS)) * (1 / HEADS)

    for apply in (mean, mean_one_by_one, scaled_one_by_one):
        role = jaxinit.roles(apply, kernels(o=(HEADS, SIZE, WIDTH)), array(5, SIZE))
        assert {use.fan_in for use in role["o"].uses} == {SIZE}


def test_a_sum_to_which_a_number_is_added_is_no_mean():
    def apply(p, x):
        return jax.vmap(jnp.matmul, (None, 0))(x, p["o"]).sum(0) + HEADS

    role = jaxinit.roles(apply, kernels(o=(HEADS, SIZE, WIDTH)), array(5, SIZE))
    assert {use.fan_in for use in role["o"].uses} == {HEADS * SIZE}


@pytest.mark.parametrize("apply", [mapped, one_by_one, in_a_loop])
def test_summed_heads_give_outputs_of_variance_one(apply, key):
    x = X[0].reshape(LENGTH, HEADS, SIZE)
    made = outputs(apply, kernels(o=(HEADS, SIZE, WIDTH)), x, key)
    assert np.std(made) == pytest.approx(1, abs=0.15)


def counts_of(t):
    return jax.ops.segment_sum(jnp.ones(t.shape), t, LENGTH)


@pytest.mark.parametrize(
    "counted",
    [
        lambda t: jnp.maximum(counts_of(t), 1),
        lambda t: counts_of(t) + 1e-6,
        lambda t: jnp.maximum(jnp.bincount(t, length=LENGTH), 1),
    ],
)
def test_messages_over_how_many_there_are_make_a_mean(counted):
    def apply(p, x, source, target):
        messages = jax.nn.relu(x @ p["w"])[source]
        total = jax.ops.segment_sum(messages, target, LENGTH)
        return total / counted(target)[:, None] @ p["o"]

    def dense(p, x, adjacent):
        ones = jnp.ones((LENGTH, 1))
        return adjacent @ jax.nn.relu(x @ p["w"]) / (adjacent @ ones) @ p["o"]

    shapes, edges = (
        dict.fromkeys("wo", array(WIDTH, WIDTH)),
        array(256, dtype=jnp.int32),
    )
    x = array(LENGTH, WIDTH)
    sparse = jaxinit.roles(apply, shapes, x, edges, edges)["o"].uses[0]
    known = jaxinit.roles(dense, shapes, x, array(LENGTH, LENGTH))["o"].uses[0]
    for use in (sparse, known):
        assert (use.entering, use.doubt) == (pytest.approx(0.5, rel=1e-3), "")


def of_members(p, x):
    return jax.vmap(lambda w: jnp.tanh(x @ w))(p["w"]).mean(0)


def of_a_stack(p, x):
    return jnp.mean(jnp.stack([jnp.tanh(x @ w) for w in p["w"]], 1), 1)


def of_tokens(p, x):
    return jnp.tanh(x @ p["w"][0]).mean(1)


def of_tokens_and_members(p, x):
    return jax.vmap(lambda w: jnp.tanh(x @ w))(p["w"]).mean((0, 2))


@pytest.mark.parametrize(
    ("mean", "members"),
    [(of_members, 4), (of_a_stack, 4), (of_tokens, 1), (of_tokens_and_members, 4)],
)
def test_members_of_a_mean_are_independent_and_tokens_alike(mean, members):
    def apply(p, x):
        return mean(p, x) @ p["o"]

    shapes = kernels(w=(4, WIDTH, WIDTH), o=(WIDTH, 8))
    use = jaxinit.roles(apply, shapes, X)["o"].uses[0]
    expected = 0.3943 / members
    assert (use.entering, use.doubt) == (pytest.approx(expected, rel=1e-3), "")


def test_a_mean_of_a_stream_and_its_branches_is_of_independent_values():
    def apply(p, x):
        h = x @ p["a"]
        return jnp.mean(jnp.stack([h, jnp.tanh(x) @ p["b"]]), 0) @ p["o"]

    def twice(p, x):
        h = x @ p["a"]
        return jnp.mean(jnp.stack([h, h]), 0) @ p["o"]

    shapes = dict.fromkeys("abo", array(WIDTH, WIDTH))
    for model, expected in ((apply, 0.5), (twice, 1.0)):
        use = jaxinit.roles(model, shapes, X)["o"].uses[0]
        assert use.entering == pytest.approx(expected)


def by_features_of_keys(p, x):
    q, k = jax.nn.softmax(x @ p["q"], -1), jax.nn.softmax(x @ p["k"], 1)
    return q @ (k.mT @ jax.nn.relu(x @ p["v"]))


def by_features_of_keys_without_softmax(p, x):
    q, k = jax.nn.softmax(x @ p["q"], -1), x @ p["k"]
    return q @ (k.mT @ jax.nn.relu(x @ p["v"]))


@pytest.mark.parametrize(
    ("pool", "is_mean"),
    [
        (by_features_of_keys, True),
        (by_features_of_keys_without_softmax, False),
    ],
)
def test_a_softmax_over_features_of_keys_makes_a_mean(pool, is_mean):
    def apply(p, x):
        return pool(p, x) @ p["o"]

    shapes = dict.fromkeys("qkvo", array(WIDTH, WIDTH))
    use = jaxinit.roles(apply, shapes, X)["o"].uses[0]
    assert (abs(use.entering - 0.5) < 1e-3) == is_mean
    assert use.doubt == ""


def test_sums_over_large_sets_are_believed():
    def apply(p, x):
        return jax.nn.relu(x @ p["w"]).sum(1) @ p["o"]

    shapes = dict.fromkeys("wo", array(WIDTH, WIDTH))
    use = jaxinit.roles(apply, shapes, array(8, 256, WIDTH))["o"].uses[0]
    mean = 1 / math.sqrt(2 * math.pi)
    expected = (256 * mean) ** 2 + 256 * (0.5 - mean**2)
    assert (use.entering, use.doubt) == (pytest.approx(expected, rel=1e-3), "")


def test_counts_are_as_large_as_they_are():
    def apply(p, x, source, target):
        scale = jax.lax.rsqrt(jnp.maximum(counts_of(target), 1))
        messages = (x @ p["w"])[source] * scale[target][:, None]
        return jax.ops.segment_sum(messages, target, LENGTH) @ p["o"]

    shapes, edges = (
        dict.fromkeys("wo", array(WIDTH, WIDTH)),
        array(256, dtype=jnp.int32),
    )
    use = jaxinit.roles(apply, shapes, array(LENGTH, WIDTH), edges, edges)["o"].uses[0]
    assert use.entering == pytest.approx(1.0, rel=1e-3)


# Loops.


@pytest.mark.parametrize("rounds", [3, 200])
@pytest.mark.parametrize("keep", [0.9, 1.0])
def test_moments_of_a_loop_over_time(keep, rounds):
    """A geometric series of variances, or as many as there are rounds."""

    def apply(p, x):
        def step(s, x):
            return keep * s + x @ p["a"], None

        zero = jnp.zeros((x.shape[1], WIDTH))
        return jax.lax.scan(step, zero, x)[0] @ p["b"]

    shapes = dict.fromkeys("ab", array(WIDTH, WIDTH))
    use = jaxinit.roles(apply, shapes, array(rounds, 2, WIDTH))["b"].uses[0]
    expected = sum(keep ** (2 * i) for i in range(rounds))
    assert use.entering == pytest.approx(expected, rel=0.02)
    assert use.doubt == ""


@pytest.mark.parametrize("layers", [False, True])
def test_loops_that_do_not_settle_are_doubted(layers):
    def apply(p, x, steps):
        def step(s, w):
            return 1.5 * s * s + x @ w, None

        def again(_, s):
            return step(s, p["a"][0])[0]

        if layers:
            return jax.lax.scan(step, x, p["a"])[0] @ p["b"]
        return jax.lax.fori_loop(0, steps, again, x) @ p["b"]

    shapes = kernels(a=(9, WIDTH, WIDTH), b=(WIDTH, WIDTH))
    use = jaxinit.roles(apply, shapes, array(4, WIDTH), array(dtype=jnp.int32))["b"]
    assert (use.entering, use.variance) == (1.0, 1 / WIDTH)
    assert use.doubt


# Doubts.


def behind_a_leaf(p, x):
    return jnp.exp(3 * x * jnp.exp(p["rate"])) @ p["o"]


def behind_a_callback(p, x):
    return jax.pure_callback(np.sin, array(*x.shape), x) @ p["o"]


def behind_a_division(p, x):
    return x / (x @ p["a"]) @ p["o"]


def behind_an_overflow(p, x):
    return (x @ p["a"]) ** 8 @ p["o"]


def behind_infinity(p, x):
    return jnp.exp(jnp.exp(x @ p["a"])) @ p["o"]


def behind_an_underflow(p, x):
    return 1e-6 * (x @ p["a"]) @ p["o"]


def behind_a_product_of_places(p, x):
    return jnp.cumprod(x @ p["a"], axis=1) @ p["o"]


def behind_weights_of_a_leaf(p, x):
    return jnp.tanh(x @ (p["a"] * jnp.exp(p["rate"]))) @ p["o"]


@pytest.mark.parametrize(
    ("apply", "why"),
    [
        (behind_a_leaf, "behind `rate`"),
        (behind_a_callback, "`pure_callback` is not followed"),
        (behind_a_division, "`div` is of unknown moments"),
        (behind_an_overflow, "is not believed"),
        (behind_infinity, "are not finite"),
        (behind_an_underflow, "is not believed"),
        (behind_a_product_of_places, "`cumprod` is of unknown moments"),
        (behind_weights_of_a_leaf, "behind `"),
    ],
)
def test_a_kernel_says_that_what_enters_is_not_known(apply, why):
    shapes = {"rate": array(WIDTH), **kernels(a=(WIDTH, WIDTH), o=(WIDTH, 8))}
    roles = jaxinit.roles(apply, shapes, X)
    use = roles["o"].uses[0]
    assert (use.entering, use.variance) == (1.0, 1 / WIDTH)
    assert why in use.doubt
    assert "what enters is not known" in use.reason
    assert "taken as variance one" in str(model_plan(shapes, schemes.auto(), roles))


def test_norms_kernels_and_averages_end_a_doubt():
    def apply(p, x):
        x = x * jnp.exp(p["rate"])
        normed = x * jax.lax.rsqrt(jnp.mean(x**2, -1, keepdims=True) + 1e-6) @ p["a"]
        weights = jax.nn.softmax(x @ x.mT)
        return (normed @ p["b"] + weights @ (normed @ p["c"])) @ p["o"]

    shapes = {"rate": array(WIDTH), **dict.fromkeys("abco", array(WIDTH, WIDTH))}
    roles = jaxinit.roles(apply, shapes, X)
    assert {roles[name].doubt for name in "abco"} == {""}


def test_positions_say_so_too():
    def apply(p, x):
        return (x * jnp.exp(p["rate"]) + p["place"]) @ p["o"]

    shapes = {"rate": array(WIDTH), "place": array(LENGTH, WIDTH)}
    role = jaxinit.roles(apply, {**shapes, **kernels(o=(WIDTH, 8))}, X)["place"]
    assert (role.kind, role.variance) == ("position", 0.25)
    assert "what it is added to is not known (behind `rate`)" in role.reason


def selective(p, x):
    """The scan of Mamba: decays that a leaf and the input decide on."""
    u, gate = jnp.split(x @ p["in"], 2, -1)
    dt = jax.nn.softplus(u @ p["dt"])
    b, c = jnp.split(u @ p["bc"], 2, -1)
    decay = jnp.exp(jnp.einsum("btd,dn->btdn", dt, -jnp.exp(p["A_log"])))
    driven = jnp.einsum("btd,btn,btd->btdn", dt, b, u)

    def step(h, now):
        decay, driven, c = now
        h = decay * h + driven
        return h, jnp.einsum("bdn,bn->bd", h, c)

    now = jax.tree.map(lambda x: x.swapaxes(0, 1), (decay, driven, c))
    y = jax.lax.scan(step, jnp.zeros((8, WIDTH, 4)), now)[1].swapaxes(0, 1)
    return (y + u * p["D"]) * jax.nn.silu(gate) @ p["o"]


def test_behind_a_selective_scan_a_kernel_is_of_plain_size():
    shapes = kernels(dt=(WIDTH, WIDTH), bc=(WIDTH, 8), A_log=(WIDTH, 4), D=(WIDTH,))
    shapes |= {"in": array(WIDTH, 2 * WIDTH), "o": array(WIDTH, WIDTH)}
    role = jaxinit.roles(selective, shapes, X)["o"]
    assert role.variance == 1 / WIDTH
    assert "behind `A_log`" in role.doubt


# Leaves that mix, and gates of trees.


def shifted(p, x):
    before = jnp.pad(x, ((0, 0), (1, 0), (0, 0)))[:, :-1]
    return (x * p["mu"] + before * (1 - p["mu"])) @ p["o"]


def by_difference(p, x):
    before = jnp.pad(x, ((0, 0), (1, 0), (0, 0)))[:, :-1]
    return (x + p["mu"] * (before - x)) @ p["o"]


def with_slope(p, x):
    h = x @ p["a"]
    return jnp.where(h >= 0, h, p["mu"] * h) @ p["o"]


def with_slope_by_sum(p, x):
    h = x @ p["a"]
    return (jax.nn.relu(h) + p["mu"] * jnp.minimum(h, 0)) @ p["o"]


@pytest.mark.parametrize(
    ("apply", "why"),
    [
        (shifted, "mixes two activations"),
        (by_difference, "mixes two activations"),
        (with_slope, "slope"),
        (with_slope_by_sum, "slope"),
    ],
)
def test_a_leaf_that_interpolates_is_no_scale(apply, why):
    shapes = {"mu": array(WIDTH), **dict.fromkeys("ao", array(WIDTH, WIDTH))}
    roles = jaxinit.roles(apply, shapes, X)
    assert roles["mu"].kind == "unknown"
    assert why in roles["mu"].reason
    assert roles["o"].doubt == "behind `mu`"


def test_two_scales_of_a_sum_are_scales():
    def apply(p, x):
        return (x * p["a"] + jnp.tanh(x) * p["b"]) @ p["o"]

    shapes = {"a": array(WIDTH), "b": array(WIDTH), "o": array(WIDTH, 4)}
    roles = jaxinit.roles(apply, shapes, X)
    assert (roles["a"].kind, roles["b"].kind) == ("scale", "scale")


GATES = {"i": "input gate", "f": "forget gate", "u": "cell", "o": "output gate"}


def node_of_tree(p, x, children):
    """A child-sum tree LSTM."""
    h = sum(h for h, _ in children) if children else jnp.zeros((2, WIDTH))
    i, o, u = (x @ p[f"w{name}"] + h @ p[f"u{name}"] for name in "iou")
    c = jax.nn.sigmoid(i) * jnp.tanh(u)
    for h, old in children:
        c = c + jax.nn.sigmoid(x @ p["wf"] + h @ p["uf"]) * old
    return jax.nn.sigmoid(o) * jnp.tanh(c), c


def stacked_children(p, x, children):
    if not children:
        return node_of_tree(p, x, children)
    hs, cs = (jnp.stack(values) for values in zip(*children, strict=True))
    h = hs.sum(0)
    i, o, u = (x @ p[f"w{name}"] + h @ p[f"u{name}"] for name in "iou")
    f = jax.nn.sigmoid((x @ p["wf"])[None] + hs @ p["uf"])
    c = jax.nn.sigmoid(i) * jnp.tanh(u) + (f * cs).sum(0)
    return jax.nn.sigmoid(o) * jnp.tanh(c), c


@pytest.mark.parametrize("node", [node_of_tree, stacked_children])
def test_gates_of_a_tree(node):
    def apply(p, x):
        leaves = [node(p, x[i], []) for i in range(3)]
        inner = node(p, x[3], leaves[:2])
        return node(p, x[4], [inner, leaves[2]])[0] @ p["head"]

    names = [f"{side}{gate}" for side in "wu" for gate in GATES]
    shapes = dict.fromkeys([*names, "head"], array(WIDTH, WIDTH))
    roles = jaxinit.roles(apply, shapes, array(5, 2, WIDTH))
    parts = {name: {use.part for use in roles[name].uses} for name in names}
    assert parts == {name: {GATES[name[1]]} for name in names}


# Moments of more operations.


def test_weights_of_a_softmax_are_shares_of_one():
    """Outputs of experts that a router mixes, and of a chosen few of them."""

    def mixed(p, x):
        weights = jax.nn.softmax(x @ p["router"])
        return jnp.einsum("bte,btef->btf", weights, experts(p, x)) @ p["o"]

    def chosen(p, x):
        weights, which = jax.lax.top_k(jax.nn.softmax(x @ p["router"]), 2)
        weights = weights / weights.sum(-1, keepdims=True)
        out = jnp.take_along_axis(experts(p, x), which[..., None], -2)
        return jnp.einsum("bte,btef->btf", weights, out) @ p["o"]

    def experts(p, x):
        return jnp.einsum("btd,edf->btef", x, p["experts"])

    shapes = kernels(router=(WIDTH, 8), experts=(8, WIDTH, SIZE), o=(SIZE, SIZE))
    for apply, low, high in ((mixed, 1 / 8, 0.5), (chosen, 0.5, 1.0)):
        use = jaxinit.roles(apply, shapes, X)["o"].uses[0]
        assert low < use.entering < high
        assert use.doubt == ""


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (jnp.maximum, 1.0),  # E[max(a, b)**2]
        (lambda a, b: jnp.fft.fft(a, axis=-1, norm="ortho").real, 0.5),
        (lambda a, b: jnp.fft.irfft(jnp.fft.rfft(a), WIDTH), 1.0),
        (lambda a, b: jnp.sort(a, -1), 1.0),
        (lambda a, b: jnp.minimum(a, 0.0) * b, 0.5),
        (lambda a, b: a @ jnp.eye(WIDTH), 1.0),
        (lambda a, b: a @ jnp.asarray(np.full((WIDTH, WIDTH), 0.5)), WIDTH / 4),
        (lambda a, b: a + jnp.sin(jnp.arange(float(WIDTH))), 1.5),
    ],
)
def test_second_moments(function, expected):
    def apply(p, x):
        return function(x @ p["a"], x @ p["b"]) @ p["o"]

    shapes = dict.fromkeys("abo", array(WIDTH, WIDTH))
    use = jaxinit.roles(apply, shapes, X)["o"].uses[0]
    assert use.entering == pytest.approx(expected, rel=0.01)
    assert use.doubt == ""
    assert math.isfinite(use.variance)


# Legs of sums that numbers make smaller.


def main_path(p, x):
    """APPNP: a little of the first features is added to what each kernel gives."""
    h = first = jax.nn.relu(x @ p["i"])
    for name in "ab":
        h = jax.nn.relu(h @ p[name] + 0.1 * first)
    return h @ p["o"]


def main_path_shared(p, x):
    h = jax.nn.relu(x @ p["i"])
    little = h / 10
    for name in "ab":
        h = jax.nn.relu(h @ p[name] + little)
    return h @ p["o"]


def weighed_stream(p, x):
    """GCNII without its graph: the stream itself is a weighed sum."""
    h = first = x @ p["i"]
    for name in "ab":
        s = 0.9 * h + 0.1 * first
        h = 0.6 * s + 0.4 * jnp.tanh(s @ p[name])
    return h @ p["o"]


def small_stream(p, x):
    h = 0.1 * (x @ p["i"])
    for name in "ab":
        h = h + jnp.tanh(h) @ p[name]
    return h @ p["o"]


def large_branch(p, x):
    h = x @ p["i"]
    for name in "ab":
        h = h + 3 * (jnp.tanh(h) @ p[name])
    return h @ p["o"]


@pytest.mark.parametrize(
    ("apply", "residual", "wanted"),
    [
        (main_path, None, 1),
        (main_path_shared, None, 1),
        (weighed_stream, (0, 2), 1),
        (small_stream, (0, 2), 0.01 / 2),
        (large_branch, (0, 2), 1 / 2 / 9),
    ],
)
def test_a_stream_is_as_large_as_the_sum_that_it_begins_with(apply, residual, wanted):
    shapes = dict.fromkeys("iabo", array(WIDTH, WIDTH))
    role = jaxinit.roles(apply, shapes, array(5, WIDTH))["a"]
    assert role.residual == residual
    (use,) = role.uses
    assert use.variance * use.entering * WIDTH == pytest.approx(wanted, rel=0.05)
    assert use.doubt == ""


# Steps.


def held(value):
    return jax.lax.stop_gradient(value)


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (lambda a, b: (a > 0).astype(jnp.float32), 0.5),
        (lambda a, b: (a > 1).astype(int).astype(jnp.float32), 0.1587),
        (lambda a, b: ((a > 0) & ~(b > 0)).astype(jnp.float32), 0.25),
        (lambda a, b: a * (a > 0), 0.5),
        (lambda a, b: a * (b[:, :1] > 0), 0.5),
        (lambda a, b: ((a > 0) * a) * b, 0.5),
        (lambda a, b: jnp.where(b > 0, a, 3.0), (1 + 9) / 2),
        (lambda a, b: a + held((a > 0) - a), 0.5),
        (lambda a, b: jax.nn.sigmoid(a) + held((a > 0) - jax.nn.sigmoid(a)), 0.5),
        (lambda a, b: jnp.where(np.tri(LENGTH, WIDTH) > 0, jax.nn.relu(a), 0.0), 0.5),
    ],
)
def test_second_moments_of_steps(function, expected):
    test_second_moments(function, expected)


def test_masks_of_inputs_leave_moments_as_they_are_and_noise_its_share():
    def apply(p, x, length, key):
        h = jax.nn.relu(x @ p["a"])
        h = h * (jnp.arange(LENGTH) < length)[:, None]
        return jnp.where(jax.random.bernoulli(key, 0.9, h.shape), h, 0.0) @ p["o"]

    shapes = dict.fromkeys("ao", array(WIDTH, WIDTH))
    key = jax.eval_shape(lambda: jax.random.key(0))
    role = jaxinit.roles(apply, shapes, X, array(dtype=jnp.int32), key)["o"]
    assert (role.entering, role.doubt) == (pytest.approx(0.45), "")


def test_a_mask_of_the_chosen_expert_leaves_its_share_as_it_is():
    def apply(p, x):
        shares = jax.nn.softmax(x @ p["router"])
        chosen = jax.nn.one_hot(jnp.argmax(shares, -1), 4)
        return (shares * chosen) @ p["o"], shares @ p["q"]

    shapes = kernels(router=(WIDTH, 4), o=(4, WIDTH), q=(4, WIDTH))
    roles = jaxinit.roles(apply, shapes, X)
    assert roles["o"].entering == pytest.approx(roles["q"].entering)


def test_a_condition_that_all_but_never_holds_is_not_believed():
    half, never = (Spread(1, ("gt", (), "z", above), 1) for above in (0.0, 5.0))
    assert let_through(half, [1.0, 2.0]) == pytest.approx((1.5, 0.25), rel=0.01)
    assert let_through(never, [1.0, 2.0]) is None


def test_steps_of_what_is_not_known_are_doubted():
    def apply(p, x):
        return (x * jnp.exp(p["rate"]) > 1).astype(jnp.float32) @ p["o"]

    shapes = {"rate": array(WIDTH), "o": array(WIDTH, WIDTH)}
    assert jaxinit.roles(apply, shapes, X)["o"].doubt == "behind `rate`"


KEY = jax.eval_shape(jax.random.key, 0)


def selected(x, key):
    return jnp.where(jax.random.bernoulli(key, 0.8, x.shape), x / 0.8, 0)


def multiplied(x, key):
    return x * (jax.random.uniform(key, x.shape) > 0.2) / 0.8


@pytest.mark.parametrize("drop", [selected, multiplied])
def test_a_dropout_keeps_a_share_of_the_second_moment(drop):
    def apply(params, x, key):
        h = drop(jax.nn.relu(drop(x @ params["a"], key)), key)
        return x + drop(h @ params["b"], key)

    shapes = dict.fromkeys("ab", jax.ShapeDtypeStruct((WIDTH, WIDTH), jnp.float32))
    roles = jaxinit.roles(apply, shapes, X, KEY)
    a, b = (roles[name].uses[0] for name in "ab")
    assert a.variance * WIDTH == pytest.approx(0.8)
    assert b.entering == pytest.approx(0.5 / 0.8)
    assert b.variance * WIDTH * b.entering == pytest.approx(0.8)


def test_what_data_chooses_is_no_dropout():
    def apply(params, x):
        h = x @ params["a"]
        return jnp.where(h > 0.5, 0, x / 0.8) @ params["b"]

    shapes = dict.fromkeys("ab", jax.ShapeDtypeStruct((WIDTH, WIDTH), jnp.float32))
    use = jaxinit.roles(apply, shapes, X)["b"].uses[0]
    assert use.entering == pytest.approx(0.6915, rel=0.01)  # P(z < 0.5)


@pytest.mark.parametrize("choices", [1, 2])
def test_each_slot_of_an_expert_gets_one_token(choices):
    tokens, experts = 16, 4
    capacity = tokens * choices // experts

    def apply(p, x):
        _, chosen = jax.lax.top_k(x @ p["router"], choices)
        expert = jax.nn.one_hot(chosen, experts)
        place = (jnp.cumsum(expert, 0) * expert).sum(-1).astype(int) - 1
        slots = jax.nn.one_hot(place, capacity)[:, :, None] * expert[..., None]
        inputs = jnp.einsum("td,tkec->ecd", x, slots)
        return jnp.einsum("ecd,edf->ecf", inputs, p["w"])

    shapes = {"router": array(WIDTH, experts), "w": array(experts, WIDTH, WIDTH)}
    use = jaxinit.roles(apply, shapes, array(tokens, WIDTH))["w"].uses[0]
    assert (use.entering, use.doubt) == (pytest.approx(1.0), "")


def test_a_bag_of_tokens_is_as_large_as_it_has_tokens():
    def apply(p, x, bags):
        return jax.nn.one_hot(bags, 4).T @ x @ p["w"]

    shapes, bags = {"w": array(WIDTH, WIDTH)}, array(32, dtype=jnp.int32)
    use = jaxinit.roles(apply, shapes, array(32, WIDTH), bags)["w"].uses[0]
    assert use.entering == pytest.approx(32 / 4)


HALVES = {
    "slices": lambda h: h[..., :WIDTH] * jax.nn.gelu(h[..., WIDTH:]),
    "split": lambda h: math.prod(jnp.split(jax.nn.gelu(h), [WIDTH], -1)),
    "every other": lambda h: h[..., ::2] * jax.nn.gelu(h[..., 1::2]),
    "rows": lambda h: math.prod(h.reshape(8, -1, 2, WIDTH)[:, :, i] for i in (0, 1)),
}


@pytest.mark.sample(1)
@pytest.mark.parametrize("name", HALVES)
def test_halves_of_one_output_are_independent(name, key):
    """The kernel behind them gives outputs of variance one, by drawing it."""

    def apply(p, x):
        return HALVES[name](x @ p["a"]) @ p["o"]

    shapes = kernels(a=(WIDTH, 2 * WIDTH), o=(WIDTH, WIDTH))
    assert 0.7 < float(jnp.var(outputs(apply, shapes, X, key))) < 1.4


def test_one_slice_twice_is_the_same():
    def apply(p, x):
        h = x @ p["a"]
        return h[..., :WIDTH] * h[..., :WIDTH] @ p["o"]

    shapes = kernels(a=(WIDTH, 2 * WIDTH), o=(WIDTH, WIDTH))
    use = jaxinit.roles(apply, shapes, array(4, WIDTH))["o"].uses[0]
    assert use.entering == pytest.approx(3.0, rel=0.01)  # E[z**4]


def test_what_data_chooses_from_is_either_as_often():
    def apply(p, x):
        return jnp.where(x > 0, x @ p["a"], 3 * jnp.tanh(x @ p["b"])) @ p["o"]

    shapes = dict.fromkeys("abo", array(WIDTH, WIDTH))
    use = jaxinit.roles(apply, shapes, X)["o"].uses[0]
    assert use.entering == pytest.approx((1 + 9 * 0.394) / 2, rel=0.01)


# Values that are no independent copies of others, and no averages.


def centered(h):
    return h - h.mean(1, keepdims=True)


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (lambda a, b: a + jnp.flip(a, 1), 2.0),
        (lambda a, b: a + jnp.flip(jnp.flip(a, 1), 1), 4.0),
        (lambda a, b: a[:, :, None] + a[:, None], 2.0),
        (lambda a, b: a + a.reshape(8, -1, 8, 8).mT.reshape(a.shape), 2.0),
        (lambda a, b: a * jax.nn.relu(a.reshape(8, -1)).reshape(a.shape), 1.5),
        (lambda a, b: a + jax.lax.map(lambda row: 2 * row, a), 9.0),
        (lambda a, b: a.mean(1, keepdims=True), 1.0),
        (lambda a, b: centered(jax.nn.relu(a)), 0.3408),
        (lambda a, b: a + jax.nn.sigmoid(jnp.flip(b, 1)) * (b - a), None),
        (lambda a, b: a + held(3 * b - a), 9.0),
        (lambda a, b: a * (jnp.arange(float(WIDTH)) // 32 + 1), 2.5),
        (lambda a, b: jax.lax.pad(a, 0.0, [(0, 0, 0), (0, 0, 1), (0, 0, 0)]), 0.5),
    ],
)
def test_second_moments_of_parts_of_one_value(function, expected):
    """Compared with draws where no number is given."""
    if expected is None:
        a, b = np.random.default_rng(1).normal(size=(2, 8, 64, WIDTH))
        expected = float(np.mean(np.square(function(jnp.asarray(a), jnp.asarray(b)))))

    def apply(p, x):
        return function(x @ p["a"], x @ p["b"]) @ p["o"]

    shapes = dict.fromkeys("abo", array(WIDTH, WIDTH))
    use = jaxinit.roles(apply, shapes, X)["o"].uses[0]
    assert use.entering == pytest.approx(expected, rel=0.03)


def test_a_mean_by_difference_does_not_grow_over_time():
    def apply(p, x):
        def step(s, x):
            return s + 0.1 * (x @ p["a"] - s), None

        return jax.lax.scan(step, jnp.zeros((2, WIDTH)), x)[0] @ p["b"]

    shapes = dict.fromkeys("ab", array(WIDTH, WIDTH))
    use = jaxinit.roles(apply, shapes, array(99, 2, WIDTH))["b"].uses[0]
    assert use.entering == pytest.approx(0.01 / 0.19, rel=0.01)  # 0.1**2 / (1 - 0.9**2)
    assert use.doubt == ""


def test_only_shares_average():
    """Scores that no sum divides, or that a kernel mixes, add up."""

    def apply(p, x):
        q, k, v = (x @ p[name] for name in "qkv")
        scores = q @ k.mT / math.sqrt(WIDTH)
        mixed = jnp.einsum("bqk,kl->bql", jax.nn.softmax(scores), p["m"])
        return (
            scores @ v @ p["a"],
            mixed @ v @ p["b"],
            jax.nn.softmax(scores) @ v @ p["c"],
        )

    shapes = dict.fromkeys("qkvabc", array(WIDTH, WIDTH))
    roles = jaxinit.roles(apply, {**shapes, "m": array(LENGTH, LENGTH)}, X)
    found = [roles[name].entering for name in "abc"]
    assert found == pytest.approx([LENGTH, LENGTH, 1.0])


def test_an_average_by_one_product_of_three():
    def apply(p, x):
        q, k = (jax.nn.elu(x @ p[name]) + 1 for name in "qk")
        sums = k.mT @ (x @ p["v"])
        total = 1 / (jnp.einsum("btd,bd->bt", q, k.sum(1)) + 1e-6)
        return jnp.einsum("btd,bdv,bt->btv", q, sums, total) @ p["o"]

    shapes = dict.fromkeys("qkvo", array(WIDTH, WIDTH))
    assert jaxinit.roles(apply, shapes, X)["o"].entering == pytest.approx(1.0)


def test_a_token_is_as_large_among_rows_as_it_is_drawn():
    def apply(p, ids):
        rows = p["rows"][ids]
        first = jnp.broadcast_to(p["first"], (5, 1, WIDTH))
        return jnp.concatenate([first, rows], 1) @ p["o"]

    shapes = kernels(rows=(9, WIDTH), first=(1, 1, WIDTH), o=(WIDTH, WIDTH))
    use = jaxinit.roles(apply, shapes, array(5, 3, dtype=jnp.int32))["o"].uses[0]
    assert use.entering == pytest.approx((1 + 3 / WIDTH) / 4)


def test_pools_of_pools_are_of_one_larger_window():
    def apply(p, x):
        def pool(x, size):
            window = (1, size, 1)
            return jax.lax.reduce_window(
                x, -jnp.inf, jax.lax.max, window, (1, 1, 1), "SAME"
            )

        x = x @ p["a"]
        return pool(pool(x, 3), 3) @ p["b"], pool(x, 5) @ p["c"]

    roles = jaxinit.roles(apply, dict.fromkeys("abc", array(WIDTH, WIDTH)), X)
    assert roles["b"].entering == pytest.approx(roles["c"].entering)


def test_a_mean_over_places_with_positions_is_one():
    def apply(p, x):
        return (x @ p["a"] + p["place"]).mean(1) @ p["o"]

    shapes = {"place": array(LENGTH, WIDTH), **kernels(a=(WIDTH, WIDTH), o=(WIDTH, 8))}
    assert jaxinit.roles(apply, shapes, X)["o"].entering == pytest.approx(1.0)


def test_sums_of_sorted_entries_are_doubted():
    def apply(p, x):
        h = x @ p["a"]
        return jax.nn.relu(h - jnp.cumsum(jnp.sort(h))[..., -1:]) @ p["o"]

    shapes = dict.fromkeys("ao", array(WIDTH, WIDTH))
    assert "sorted" in jaxinit.roles(apply, shapes, X)["o"].doubt


def test_a_dispatch_may_be_a_product_of_one_hots():
    def apply(p, x):
        _, chosen = jax.lax.top_k(x @ p["router"], 2)
        expert = jax.nn.one_hot(chosen, 4)
        place = (jnp.cumsum(expert.sum(1), 0)[:, None] * expert).sum(-1).astype(int)
        slots = jnp.einsum("tke,tkc->tec", expert, jax.nn.one_hot(place, 8))
        return jnp.einsum("tec,td->ecd", slots, x) @ p["w"]

    shapes = {"router": array(WIDTH, 4), "w": array(WIDTH, WIDTH)}
    use = jaxinit.roles(apply, shapes, array(16, WIDTH))["w"].uses[0]
    assert (use.entering, use.doubt) == (pytest.approx(1.0), "")


def test_places_below_zero_are_no_slots():
    """Of four experts, each token has a place in one, and -1 in all others."""

    def apply(p, x):
        hot = jax.nn.one_hot(jnp.argmax(x @ p["router"], -1), 4)
        place = jnp.cumsum(hot, 0) * hot - 1
        slots = jax.nn.one_hot(place.astype(int), 8)
        return jnp.einsum("tec,td->ecd", slots, x) @ p["w"]

    shapes = {"router": array(WIDTH, 4), "w": array(WIDTH, WIDTH)}
    roles = jaxinit.roles(apply, shapes, array(32, WIDTH))
    assert roles["w"].entering == pytest.approx(1.0)


def in_one(weights, experts, places):
    return jnp.einsum("tk,tke,tkc->tec", weights, experts, places)


def one_by_one(weights, experts, places):
    each = weights[..., None, None] * experts[..., None] * places[:, :, None]
    return each[:, 0] + each[:, 1]


@pytest.mark.parametrize("combined", [in_one, one_by_one])
@pytest.mark.parametrize("is_sent", [lambda x: x > 0, lambda x: x != 0])
def test_a_dispatch_may_be_where_tokens_are_combined(combined, is_sent):
    """Eight slots of each of four experts for 16 tokens, each of which takes two."""

    def apply(p, x):
        weights, chosen = jax.lax.top_k(jax.nn.softmax(x @ p["router"]), 2)
        expert = jax.nn.one_hot(chosen, 4)
        place = ((jnp.cumsum(expert.sum(1), 0)[:, None] - 1) * expert).sum(-1)
        places = jax.nn.one_hot(place.astype(int), 8) * (place < 8)[..., None]
        combine = combined(weights, expert, places)
        sent = jnp.einsum("tec,td->ecd", is_sent(combine).astype(x.dtype), x)
        h = jax.nn.relu(jnp.einsum("ecd,edf->ecf", sent, p["up"]))
        return jnp.einsum("tec,ecd->td", combine, jnp.einsum("ecf,efd->ecd", h, p["w"]))

    shapes = {"router": array(WIDTH, 4), "up": array(4, WIDTH, 8)}
    roles = jaxinit.roles(apply, {**shapes, "w": array(4, 8, WIDTH)}, array(16, WIDTH))
    use = roles["up"].uses[0]
    assert (use.entering, use.doubt) == (pytest.approx(1.0), "")
    assert roles["w"].entering == pytest.approx(0.5)


def test_a_product_with_what_was_normed_ends_no_doubt():
    def apply(p, x):
        h = x @ p["a"]
        normed = h * jax.lax.rsqrt(jnp.mean(h**2, -1, keepdims=True) + 1e-6) + p["b"]
        return (normed * (x * jnp.exp(p["rate"]))) @ p["o"]

    shapes = {**kernels(a=(WIDTH, WIDTH), o=(WIDTH, WIDTH)), "b": array(WIDTH)}
    shapes["rate"] = array(WIDTH)
    assert jaxinit.roles(apply, shapes, X)["o"].doubt == "behind `rate`"


def test_shares_of_a_sum_are_of_values_that_are_not_negative():
    assert shared(Spread(0, "z", 0), 4.0) is None


@pytest.mark.parametrize("count", [2, 4, 30])
@pytest.mark.parametrize(
    ("expression", "function"),
    [(("exp", (), "z"), np.exp), (("max", (), "z", 0.0), lambda z: np.maximum(z, 0))],
)
def test_squares_of_shares_are_those_of_draws(expression, function, count):
    y = function(np.random.default_rng(0).normal(size=(10_000, count)))
    shares = y / np.maximum(y.sum(1, keepdims=True), 1e-30)
    mean, variance = shared(Spread(0, expression, 0), float(count))
    assert mean == pytest.approx(1 / count)
    drawn = np.square(shares).sum(1).mean()
    assert count * (variance + mean**2) == pytest.approx(drawn, rel=0.02)


def by_sum(weights, values):
    return (weights[..., None] * values).sum(-2)


def by_einsum_of_experts(weights, values):
    return jnp.einsum("...e,...ef->...f", weights, values)


def one_expert_after_another(weights, values):
    return sum(weights[..., i, None] * values[..., i, :] for i in range(4))


@pytest.mark.parametrize(
    ("mix", "near"),
    [(by_sum, 0.02), (by_einsum_of_experts, 0.02), (one_expert_after_another, 0.15)],
)
@pytest.mark.parametrize("function", [jax.nn.relu, jax.nn.sigmoid, jnp.tanh])
def test_an_average_of_experts_is_smaller_than_each(mix, near, function):
    """Compared with draws: the squares of four shares of a softmax sum to 0.39."""

    def apply(p, x):
        values = function(jnp.einsum("btd,edf->btef", x, p["experts"]))
        return mix(jax.nn.softmax(x @ p["router"]), values) @ p["o"]

    draw = np.random.default_rng(0).normal
    weights = np.exp(draw(size=(10_000, 4)))
    weights /= weights.sum(1, keepdims=True)
    values = np.asarray(function(draw(size=(10_000, 4))))
    expected = np.square((weights * values).sum(1)).mean()
    shapes = kernels(router=(WIDTH, 4), experts=(4, WIDTH, SIZE), o=(SIZE, 4))
    use = jaxinit.roles(apply, shapes, X)["o"].uses[0]
    assert (use.entering, use.doubt) == (pytest.approx(expected, rel=near), "")


# The edge of chaos: by integrals of the function and of its slope.

SILU = ("mul", (), "z", ("logistic", (), "z"))
EDGES = {
    "relu keeps both": (("max", (), "z", 0.0), True, None),
    "tanh": (("tanh", (), "z"), True, (0.4644, 0.1510, False)),
    "silu drifts": (SILU, True, (0.3795, 0.1750, True)),
    "silu of an odd number": (SILU, False, (0.3795, 0.0625, False)),
    "sigmoid has a mean": (("logistic", (), "z"), True, (0.0448, 0.0325, True)),
    "biases would outweigh": (("sin", (), ("mul", (), "z", 3.0)), True, None),
}


@pytest.mark.parametrize("name", EDGES)
def test_what_a_kernel_needs_at_the_edge_of_chaos(name):
    expression, can_center, expected = EDGES[name]
    found = critical(Spread(0, expression, 0), True, can_center)
    if expected is None:
        assert found is None
        return
    second, bias, centered = expected
    assert (found.second, found.bias) == pytest.approx((second, bias), abs=1e-4)
    assert found.centered == centered


@pytest.mark.parametrize("method", ["nearest", "bilinear", "bicubic"])
def test_images_are_resized_by_known_matrices(method):
    def resized(x):
        return jax.image.resize(x, (4, 17, 24, 6), method)

    def apply(p, x):
        return resized(x @ p["a"]) @ p["o"]

    shapes = kernels(a=(WIDTH, 6), o=(6, WIDTH))
    use = jaxinit.roles(apply, shapes, array(4, 9, 8, WIDTH))["o"].uses[0]
    x = np.random.default_rng(0).normal(size=(4, 9, 8, 6))
    measured = np.mean(np.square(resized(jnp.asarray(x))))
    assert use.entering == pytest.approx(measured, rel=0.1)
    assert use.doubt == ""


# Norms of few entries.


def of_length(function, size):
    """The kernel behind a function of parts of `size` entries, and of their length."""

    def apply(p, x):
        h, other = ((x @ p[name]).reshape(8, -1, size) for name in "ab")
        return function(h, other).reshape(x.shape) @ p["o"]

    return jaxinit.roles(apply, dict.fromkeys("abo", array(WIDTH, WIDTH)), X)["o"]


def length(h):
    return jnp.linalg.norm(h, axis=-1, keepdims=True)


@pytest.mark.parametrize(
    "function",
    [
        lambda h, y: jnp.sin(length(h) * jnp.arange(h.shape[-1])) / length(h),
        lambda h, y: y * jax.lax.rsqrt(jnp.sum(h**2, -1, keepdims=True)),
        lambda h, y: jnp.tanh(y) * (1 / (length(h) + 1e-6)),
    ],
)
def test_what_is_divided_by_a_norm_of_few_other_entries_is_doubted(function):
    assert "norm of few entries" in of_length(function, 2).doubt
    assert of_length(function, 16).doubt == ""


@pytest.mark.parametrize("size", [2, 16])
def test_entries_over_their_own_norm_are_known(size):
    role = of_length(lambda h, y: h / length(h), size)
    assert (role.entering, role.doubt) == (pytest.approx(1 / size), "")


def test_a_squashed_vector_is_divided_by_its_own_norm():
    def squashed(h, y):
        return length(h) ** 2 / (1 + length(h) ** 2) * h / length(h)

    assert of_length(squashed, 4).doubt == ""


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (jax.nn.silu, 0.3558),
        (lambda x: jax.nn.relu(1 - 2 * jnp.abs(x)) ** 3, 0.0565),  # 2 phi(0) / (2 * 7)
        (lambda x: (x - 127.5) / 255, 1.0),
        (lambda x: jnp.abs(x / 255), 1.0),
    ],
)
def test_functions_of_inputs_are_followed_and_numbers_that_scale_them_are_not(
    function, expected
):
    def apply(p, x):
        return function(x) @ p["o"]

    use = jaxinit.roles(apply, kernels(o=(WIDTH, WIDTH)), X)["o"]
    assert (use.entering, use.doubt) == (pytest.approx(expected, rel=0.02), "")


def b_splines(x, degree):
    """The recursion of Cox and de Boor."""
    knots, x = np.linspace(-2.5, 2.5, 9, dtype=np.float32), x[..., None]
    made = ((x >= knots[:-1]) & (x < knots[1:])).astype(x.dtype)
    for d in range(1, degree + 1):
        width = d * (knots[1] - knots[0])
        up, down = (x - knots[: -d - 1]) / width, (knots[d + 1 :] - x) / width
        made = up * made[..., :-1] + down * made[..., 1:]
    return made


@pytest.mark.parametrize("is_input", [True, False])
def test_splines_are_doubted(is_input):
    def apply(p, x):
        made = b_splines(x if is_input else jnp.tanh(x @ p["a"]), 2)
        return made.reshape(8, LENGTH, -1) @ p["o"]

    shapes = kernels(a=(WIDTH, WIDTH), o=(WIDTH * 6, 4))
    assert "step of itself" in jaxinit.roles(apply, shapes, X)["o"].doubt


@pytest.mark.parametrize(
    ("function", "low", "high"),
    [
        (lambda h, y: h @ h.mT, 0.9, 1.1),
        (lambda h, y: jnp.einsum("btd,btd->bt", h, h)[..., None] * y, 0.9, 1.1),
        (lambda h, y: jax.nn.relu(h @ h.mT / 8) ** 2, 0.7, 1.4),
        (lambda h, y: h @ y.mT, 0.9, 1.1),
        (lambda h, y: h @ h, 0.9, 1.1),
    ],
)
def test_products_of_a_value_with_itself(function, low, high):
    """Compared with draws of few entries."""
    h, y = np.random.default_rng(1).normal(size=(2, 999, 8, 8)).astype(np.float32)
    expected = np.mean(np.square(function(jax.nn.silu(h), y)))

    def apply(p, x):
        return function(jax.nn.silu(x @ p["a"]), x @ p["b"]) @ p["o"]

    shapes = dict.fromkeys("abo", array(8, 8))
    use = jaxinit.roles(apply, shapes, array(5, 8, 8))["o"]
    assert low < use.entering / expected < high
    assert use.doubt == ""


def test_of_the_outputs_of_experts_only_the_chosen_is_summed():
    def apply(p, x):
        out = jnp.einsum("btd,edf->btef", x, p["experts"])
        shares = jax.nn.softmax(x @ p["router"])
        chosen = jax.nn.one_hot(jnp.argmax(shares, -1), 8)
        weight = jax.nn.sigmoid(x @ p["gate"])
        mixed = jnp.einsum("bte,btef->btf", chosen * weight, out)
        return mixed @ p["o"], jnp.einsum("bte,btef->btf", shares, out) @ p["q"]

    shapes = kernels(router=(WIDTH, 8), gate=(WIDTH, 1), experts=(8, WIDTH, SIZE))
    roles = jaxinit.roles(apply, {**shapes, **kernels(o=(SIZE, 4), q=(SIZE, 4))}, X)
    assert roles["o"].entering == pytest.approx(0.293, rel=0.01)  # of the sigmoid
    assert roles["q"].entering == pytest.approx(0.232, rel=0.01)  # squares of shares


def test_what_the_least_of_the_largest_lets_through_is_doubted():
    def apply(p, x):
        h = x @ p["a"]
        least = jax.lax.top_k(h, 4)[0][..., -1:]
        kept = jnp.where(h >= least, jax.nn.relu(h), 0.0)
        shares = jax.nn.softmax(jnp.where(h >= least, h, -jnp.inf))
        return kept @ p["o"], shares @ (h.mT @ h) @ p["q"]

    roles = jaxinit.roles(apply, dict.fromkeys("aoq", array(WIDTH, WIDTH)), X)
    assert "largest entries" in roles["o"].doubt
    assert roles["q"].doubt == ""


def test_matrices_made_of_constants_are_computed():
    i = jnp.arange(16.0)

    def apply(p, x):
        near = jax.nn.softmax(-((i[:, None] - i) ** 2) / 2, -1)
        sums = jnp.cumsum(jnp.ones((16, 16)), 1, dtype=jnp.float32) / 16
        h = x @ p["a"]
        mixed = [jnp.einsum("st,btd->bsd", weights, h) for weights in (near, sums)]
        return [y @ p[name] for y, name in zip(mixed, "bc", strict=True)]

    roles = jaxinit.roles(apply, dict.fromkeys("abc", array(8, 8)), array(2, 16, 8))
    assert roles["b"].entering == pytest.approx(0.308, rel=0.01)
    assert roles["c"].entering == pytest.approx(5.84, rel=0.01)
