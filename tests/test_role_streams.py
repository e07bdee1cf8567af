"""Residual streams: how they begin, what writes to them, and how large they stay."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxinit
from jaxinit import schemes

pytestmark = pytest.mark.unoptimized

LAYERS, WIDTH, HIDDEN = 3, 6, 8


def leaf(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.float32)


X = leaf(2, 5, WIDTH)
LAYER = {"up": leaf(WIDTH, HIDDEN), "down": leaf(HIDDEN, WIDTH)}
PARAMS = [LAYER] * LAYERS


def fed(x, p):
    return jax.nn.gelu(x @ p["up"]) @ p["down"]


def layers_of(roles):
    return [
        [roles[f"{i}/{name}"].layers for name in LAYER] + [roles[f"{i}/down"].residual]
        for i in range(LAYERS)
    ]


IN_ORDER = [[(i,), (i,), (i, LAYERS)] for i in range(LAYERS)]


def told_within(h, x, p):
    return h + fed(h + x, p)


def told_outside(h, x, p):
    return h + x + fed(h + x, p)


def told_before(h, x, p):
    h = h + x
    return h + fed(h, p)


def told_beside(h, x, p):
    both = jnp.concatenate([h, x], -1)
    return h + fed(both[..., ::2], p)


@pytest.mark.parametrize("step", [told_within, told_outside, told_before, told_beside])
def test_zeros_to_which_each_layer_adds_are_one_stream(step):
    """The input, of which each layer is told anew, begins none of its own."""

    def unrolled(params, x):
        h = jnp.zeros_like(x)
        for p in params:
            h = step(h, x, p)
        return h

    roles = jaxinit.roles(unrolled, PARAMS, X)
    assert layers_of(roles) == IN_ORDER
    plan = jaxinit.plan(
        PARAMS, jaxinit.Rules(schemes.mitchell(), required=[]), roles=roles
    )
    found = {leaf.path: leaf.std for leaf in plan}
    stds = [found[f"{i}/down"] for i in range(LAYERS)]
    np.testing.assert_allclose(stds, stds[0] / np.sqrt([1, 2, 3]), rtol=1e-6)


def test_a_stream_that_begins_with_its_first_branch_is_one():
    def apply(params, x):
        h = fed(x, params[0])
        for p in params[1:]:
            h = told_within(h, x, p)
        return h

    roles = jaxinit.roles(apply, PARAMS, X)
    assert layers_of(roles) == IN_ORDER
    shares = [u.variance * u.fan_in * u.entering for u in _writers(roles)]
    np.testing.assert_allclose(shares, 1 / LAYERS)


def _writers(roles):
    return [u for role in roles.values() for u in role.kernels if u.residual]


def test_stages_of_a_solver_are_no_layers():
    """Each adds to the state a part of what the step adds in the end."""

    def apply(p, x):
        first = fed(x, p)
        second = fed(x + 0.5 * first, p)
        third = fed(x + 0.5 * second, p)
        fourth = fed(x + third, p)
        return x + (first + 2 * second + 2 * third + fourth) / 6

    roles = jaxinit.roles(apply, LAYER, X)
    uses = [use for role in roles.values() for use in role.uses]
    assert {(use.layers, use.depth) for use in uses} == {((0,), 1)}


def test_sums_written_twice_are_one():
    """Each layer takes the sum of all outputs before, as Python adds them up."""

    def apply(params, x):
        found = [x]
        for p in params:
            found.append(fed(sum(found), p))
        return sum(found)

    roles = jaxinit.roles(apply, PARAMS, X)
    assert layers_of(roles) == IN_ORDER


@pytest.mark.parametrize("axis", [0, 1])
def test_an_ensemble_begins_at_what_all_its_models_take(axis):
    def one(params, x):
        for p in params:
            x = x + fed(x, p)
        return x

    shapes = jax.tree.map(lambda x: leaf(4, *x.shape), PARAMS)
    many = jax.vmap(one, (0, None), axis)
    roles = jaxinit.roles(many, shapes, X)
    assert layers_of(roles) == IN_ORDER
    assert roles["0/down"].batch_axis == (0,)


def halved(x, p):
    return (x + fed(x, p)) / 2**0.5


def forgetting(x, p):
    return 0.9 * x + fed(x, p)


def mixed(x, p):
    return 0.6 * x + 0.8 * fed(x, p)


def smaller(x, p):
    return 0.9 * x + 0.1 * fed(x, p)


def plain(x, p):
    return x + 0.1 * fed(x, p)


# A layer, and how many branches as large as they are drawn the stream may hold.
WEIGHED = {
    halved: 1,
    forgetting: 1 + 0.9**2 + 0.9**4,
    mixed: 1,
    smaller: 1,
    plain: LAYERS,
}


@pytest.mark.parametrize("looped", [False, True])
@pytest.mark.parametrize("step", WEIGHED)
def test_what_decays_leaves_room_for_what_is_written(step, looped):
    """By a geometric sum: numbers that keep the size of a stream do so at any depth."""

    def apply(params, x):
        if looped:
            return jax.lax.scan(lambda x, p: (step(x, p), None), x, params)[0]
        for p in params:
            x = step(x, p)
        return 0.1 * x  # which is read of the stream, and no part of it

    def stacked(x):
        return leaf(LAYERS, *x.shape)

    shapes = jax.tree.map(stacked, LAYER) if looped else PARAMS
    roles = jaxinit.roles(apply, shapes, X)
    writers = _writers(roles)
    shares = [use.variance * use.fan_in * use.entering for use in writers]
    np.testing.assert_allclose(shares, 1 / WEIGHED[step], rtol=1e-6)
    assert [x for use in writers for x in use.layers] == [*range(LAYERS)]


def in_steps(x, p):
    return x + fed(x, p) / LAYERS


# A round, and how many branches as large as they are drawn the stream may hold.
AGAIN = {
    lambda x, p: x + fed(x, p): LAYERS**2,
    forgetting: (1 + 0.9 + 0.9**2) ** 2,
    mixed: 0.8**2 * (1 + 0.6 + 0.6**2) ** 2,
    in_steps: 1,
    plain: 1,
    lambda x, p: in_steps(in_steps(x, p), p): 2**2,
}


@pytest.mark.parametrize("looped", [False, True])
@pytest.mark.parametrize(("step", "held"), AGAIN.items())
def test_what_one_kernel_adds_again_adds_up(step, held, looped):
    """The stream changes little from one round to the next, and so does the branch."""

    def apply(p, x):
        if looped:
            return jax.lax.fori_loop(0, LAYERS, lambda _, x: step(x, p), x)
        for _ in range(LAYERS):
            x = step(x, p)
        return x

    uses = jaxinit.roles(apply, LAYER, X)["down"].uses
    shares = [use.variance * use.fan_in * use.entering for use in uses]
    np.testing.assert_allclose(shares, 1 / held, rtol=1e-6)


@pytest.mark.parametrize("beside", [1, 2])
def test_what_one_kernel_adds_of_different_inputs_does_not_add_up(beside):
    def apply(p, x, *others):
        return x + sum(fed(x * other, p) for other in others)

    roles = jaxinit.roles(apply, LAYER, X, *[X] * beside)
    for use in roles["down"].uses:
        assert use.variance * use.fan_in * use.entering == pytest.approx(1 / beside)


@pytest.mark.parametrize("rounds", [4, 40])
def test_a_stream_keeps_its_size_however_often_kernels_write(rounds):
    """Its variance doubles; it would grow to 41 times without what is shared."""

    def step(x, p, lib):
        normed = x / lib.sqrt((x * x).mean(-1, keepdims=True) + 1e-6)
        return x + lib.tanh(normed @ p["up"]) @ p["down"]

    def apply(p, x):
        return jax.lax.fori_loop(0, rounds, lambda _, x: step(x, p, jnp), x)

    shapes = {"up": leaf(48, 96), "down": leaf(96, 48)}
    roles, draws = jaxinit.roles(apply, shapes, leaf(64, 48)), np.random.default_rng(0)
    params = {
        name: draws.normal(size=role.shape) * role.uses[0].variance ** 0.5
        for name, role in roles.items()
    }
    x = draws.normal(size=(64, 48))
    for _ in range(rounds):
        x = step(x, params, np)
    assert 1.5 < x.var() < 3


STACKED = {
    "stacked": lambda h, y: jnp.stack([h, y]).sum(0),
    "at the end": lambda h, y: jnp.sum(jnp.stack([h, y], -1), -1),
    "concatenated": lambda h, y: jnp.sum(jnp.concatenate([h[None], y[None]]), 0),
    "half precision": lambda h, y: jnp.sum(jnp.stack([h, y]).astype(jnp.bfloat16), 0),
}


def over_features(h, y):
    return h * jnp.sum(jnp.stack([h, y]), -1, keepdims=True)[0]


@pytest.mark.parametrize("name", STACKED)
def test_a_stack_that_is_summed_is_a_sum(name):
    def apply(params, x, add):
        for p in params:
            x = add(x, fed(x, p))
        return x

    found = jaxinit.roles(lambda p, x: apply(p, x, STACKED[name]), PARAMS, X)
    assert layers_of(found) == IN_ORDER
    other = jaxinit.roles(lambda p, x: apply(p, x, over_features), PARAMS, X)
    assert layers_of(other) != IN_ORDER


GATHERED = {
    "by Python": lambda each: sum(each),
    "by Python, as a mean": lambda each: sum(each) / len(each),
    "of a stack": lambda each: jnp.stack(each).sum(0),
    "mean of a stack": lambda each: jnp.stack(each, -1).mean(-1),
}


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("name", GATHERED)
def test_a_sum_of_what_all_layers_give_is_no_stream(name, shared):
    """As of the states of a cell in all steps, or jumping knowledge in a graph net."""

    def apply(params, x):
        found = []
        for i in range(4):
            x = jnp.tanh(x @ params["w" if shared else f"w{i}"])
            found.append(x)
        return GATHERED[name](found) @ params["out"]

    shapes = dict.fromkeys(["out", "w", "w0", "w1", "w2", "w3"], leaf(WIDTH, WIDTH))
    roles = jaxinit.roles(apply, shapes, X)
    assert {use.residual for role in roles.values() for use in role.uses} == {None}


SCALED = {**LAYER, "scale": leaf(WIDTH)}


def rescaled(h, p):
    return p["scale"] * h + fed(h, p)


@pytest.mark.parametrize("factor", [leaf(WIDTH), leaf()])
@pytest.mark.parametrize("looped", [False, True])
def test_a_stream_goes_on_behind_what_a_leaf_multiplies(looped, factor):
    layer = {**SCALED, "scale": factor}

    def apply(params, x):
        h = x @ params["first"]
        if looped:
            return jax.lax.scan(lambda h, p: (rescaled(h, p), None), h, params["p"])[0]
        for p in params["p"]:
            h = rescaled(h, p)
        return h

    stacked = jax.tree.map(lambda x: leaf(LAYERS, *x.shape), layer)
    params = {"first": leaf(WIDTH, WIDTH), "p": stacked if looped else [layer] * LAYERS}
    roles = jaxinit.roles(apply, params, X)
    if looped:
        assert roles["p/down"].residual == (0, LAYERS)
        assert roles["p/down"].layers == roles["p/up"].layers == (0, 1, 2)
    else:
        inner = {k.removeprefix("p/"): role for k, role in roles.items()}
        assert layers_of(inner) == IN_ORDER


def test_one_sum_with_what_a_leaf_multiplies_is_no_stream():
    """As of a state-space model, `C h + D u`, where no sum is added to in turn."""

    def apply(params, x):
        h = x @ params["first"]
        for p in params["layers"]:
            h = h + jax.nn.gelu(rescaled(h, p)) @ p["mix"]
        return h

    layer = {**SCALED, "mix": leaf(WIDTH, WIDTH)}
    params = {"first": leaf(WIDTH, WIDTH), "layers": [layer] * LAYERS}
    roles = jaxinit.roles(apply, params, X)
    for i in range(LAYERS):
        assert roles[f"layers/{i}/down"].residual is None
        assert roles[f"layers/{i}/mix"].residual == (i, LAYERS)


def test_a_kernel_that_writes_to_two_streams_says_so():
    def apply(params, x, y):
        for p in params:
            shared = jnp.tanh((x + y) @ p["a"]) @ p["b"]
            x, y = x + shared, y + jnp.tanh(y @ p["c"]) @ p["d"] + shared
        return x, y

    shapes = [dict.fromkeys("abcd", leaf(WIDTH, WIDTH))] * 2
    roles = jaxinit.roles(apply, shapes, X, X)
    reasons = {name: roles[f"1/{name}"].reason for name in "bd"}
    assert "several residual streams" in reasons["b"]
    assert "added to a residual stream" in reasons["d"]


def test_experts_that_are_chosen_are_of_the_layer_that_chooses():
    def apply(params, x):
        for p in params:
            chosen = jnp.argmax(x @ p["router"], -1)
            up, down = p["up"][chosen], p["down"][chosen]
            hidden = jax.nn.gelu(jnp.einsum("btd,btdh->bth", x, up))
            x = x + jnp.einsum("bth,bthd->btd", hidden, down)
        return x

    experts = {name: leaf(4, *x.shape) for name, x in LAYER.items()}
    shapes = [experts | {"router": leaf(WIDTH, 4)}] * LAYERS
    assert layers_of(jaxinit.roles(apply, shapes, X)) == IN_ORDER


def test_gates_by_depth_ask_for_the_depth_of_the_model():
    def apply(params, x):
        for p in params:
            x = x + p["gate"] * fed(x, p)
        return x

    shapes = [LAYER | {"gate": leaf(WIDTH)}] * LAYERS
    roles = jaxinit.roles(apply, shapes, X)
    plan = jaxinit.plan(shapes, schemes.layer_scale(LAYERS), roles=roles)
    gates = {leaf.initializer for leaf in plan if "gate" in leaf.path}
    assert gates == {jaxinit.constant(0.1)}
    with pytest.raises(jaxinit.PlanError, match=r"layers=30 was given, .* 3 layers"):
        jaxinit.plan(shapes, schemes.layer_scale(30), roles=roles)


def residual(rows, params):
    for p in params:
        rows = rows + fed(rows, p)
    return rows


def feedforward(rows, params):
    for p in params:
        rows = jax.nn.gelu(fed(rows, p))
    return rows


# A net behind an embedding, and the variance that its first kernel gives.
BEHIND_ROWS = {residual: 1.0, feedforward: 1 / WIDTH}


@pytest.mark.parametrize("net", BEHIND_ROWS)
def test_only_a_plain_net_leaves_rows_small(net):
    """Else the first branch is smaller than all others, and than the rows."""

    def apply(params, ids):
        return net(params["rows"][ids], params["layers"])

    shapes = {"rows": leaf(9, WIDTH), "layers": PARAMS}
    ids = jax.ShapeDtypeStruct((2, 5), jnp.int32)
    (first,) = jaxinit.roles(apply, shapes, ids)["layers/0/up"].kernels
    given = first.variance * first.fan_in * first.entering
    np.testing.assert_allclose(given, BEHIND_ROWS[net], rtol=1e-6)


def in_turns(params, a, b):
    for p in params:
        a = a + fed(b, p["f"])
        b = b + fed(a, p["g"])
    return a, b


def scanned_in_turns(params, a, b):
    def step(pair, p):
        return in_turns([p], *pair), None

    return jax.lax.scan(step, (a, b), params)[0]


def halves(x):
    return x[..., :WIDTH], x[..., WIDTH:]


@pytest.mark.parametrize("looped", [False, True])
def test_streams_that_take_turns_have_all_their_writes(looped):
    """The first branch, too, that is not computed from what it is added to."""
    net = scanned_in_turns if looped else in_turns
    shapes = [{"f": LAYER, "g": LAYER}] * LAYERS
    if looped:
        shapes = jax.tree.map(lambda x: leaf(LAYERS, *x.shape), shapes[0])
    roles = jaxinit.roles(lambda p, x: net(p, *halves(x)), shapes, leaf(5, 2 * WIDTH))
    for name in "fg":
        uses = [u for path in roles if f"{name}/down" in path for u in roles[path].uses]
        assert [x for use in uses for x in use.order] == [*range(LAYERS)]
        assert [x for use in uses for x in use.layers] == [*range(LAYERS)]
        assert {use.residual and use.residual[1] for use in uses} == {LAYERS}
        shares = [use.variance * use.fan_in * use.entering for use in uses]
        np.testing.assert_allclose(shares, 1 / LAYERS)


def told_first(params, x, t):
    x = x + fed(t, params["first"])
    for p in params["layers"]:
        x = x + fed(x, p)
    return x


def told_in_branch(params, x, t):
    for p in params["layers"]:
        x = x + (x @ p["up"] + fed(t, params["first"]) @ p["up"]) @ p["down"]
    return x


@pytest.mark.parametrize("net", [told_first, told_in_branch])
def test_what_is_told_once_takes_no_turns(net):
    """What is added to a stream, or in its branch, of a value that is not written."""
    shapes = {"layers": PARAMS, "first": LAYER}
    roles = jaxinit.roles(net, shapes, X, X)
    assert roles["first/down"].kernels[0].residual is None
    assert roles["layers/0/down"].kernels[0].residual == (0, LAYERS)


def own_gelu(z):
    return z * (1 + jax.scipy.special.erf(z / 2**0.5)) / 2


def before(number, f):
    return lambda h, a, b: (number * f(h @ a)) @ b


def behind(number, f):
    return lambda h, a, b: number * (f(h @ a) @ b)


# A branch, and how large it is beside its share of the stream.
SMALL = {
    "before": (before(0.05, jnp.tanh), 0.05),
    "behind": (behind(0.05, jnp.tanh), 0.05),
    "tiny": (before(1e-3, jax.nn.relu), 1e-3),
    "of a function": (before(1, own_gelu), 1),
    "of a multiple": (before(0.1, own_gelu), 0.1),
    "root of fan_in": (before(WIDTH**-0.5, jax.nn.relu), 1),
    "large": (before(3, jnp.tanh), 1),
}


@pytest.mark.parametrize("name", SMALL)
def test_a_number_that_makes_a_branch_small_does_so_on_both_sides(name):
    branch, size = SMALL[name]

    def apply(p, x):
        return x + branch(x, p["a"], p["b"])

    shapes = dict.fromkeys("ab", leaf(WIDTH, WIDTH))
    (use,) = jaxinit.roles(apply, shapes, X)["b"].kernels
    assert (use.residual, use.doubt) == ((0, 1), "")
    given = use.variance * use.fan_in * use.entering
    given *= size**2 if name == "behind" else 1
    np.testing.assert_allclose(given, size**2, rtol=1e-4)


def message(p, *parts):
    return jnp.tanh(jnp.concatenate(parts, -1) @ p["in"]) @ p["out"]


def plainly(p, n, e, near):
    own = jnp.broadcast_to(n[:, None], e.shape)
    n = n + message(p["n"], own, e, n[near]).sum(1)
    return n, e + message(p["e"], own, e, n[near])


def in_sums(p, n, e, near):
    both = jnp.concatenate([e + n[near]] * 3, -1)
    n = n + message(p["n"], both).sum(1)
    return n, e + message(p["e"], e, n[near], n[near] + n[:, None])


OF_MESSAGES = {"in": leaf(3 * WIDTH, HIDDEN), "out": leaf(HIDDEN, WIDTH)}


@pytest.mark.parametrize("step", [plainly, in_sums])
@pytest.mark.parametrize("scanned", [False, True])
def test_nodes_and_edges_that_read_each_other_are_two_streams(step, scanned):
    def apply(params, n, e, near):
        if scanned:
            return jax.lax.scan(lambda c, p: (step(p, *c, near), None), (n, e), params)
        for p in params:
            n, e = step(p, n, e, near)
        return n, e

    layers = [{"n": OF_MESSAGES, "e": OF_MESSAGES}] * LAYERS
    if scanned:
        layers = jax.tree.map(lambda x: leaf(LAYERS, *x.shape), layers[0])
    near = jax.ShapeDtypeStruct((7, 4), jnp.int32)
    found = jaxinit.roles(apply, layers, leaf(7, WIDTH), leaf(7, 4, WIDTH), near)
    numbers = {"n": [], "e": []}
    for path, role in found.items():
        if path.endswith("out"):
            (use,) = role.uses
            numbers[path.split("/")[-2]] += use.order
            assert use.residual == (use.order[0], LAYERS)
    assert numbers == {"n": [*range(LAYERS)], "e": [*range(LAYERS)]}


def test_what_is_told_beside_what_it_was_is_no_write():
    """As to a decoder that sees what came before it as it was, and the rest as it is.

    The sum holds two streams, nodes and edges, and is of neither.
    """

    def apply(p, e, h):
        h = h + message(p[0], e, h)
        e = e + message(p[1], e, h)
        old = jnp.concatenate([e, h], -1)
        for q in p[2:]:
            h = h + message(q, 0.5 * jnp.concatenate([e, h], -1) + old)
        return h

    layer = {"in": leaf(2 * WIDTH, HIDDEN), "out": leaf(HIDDEN, WIDTH)}
    found = jaxinit.roles(apply, [layer] * 4, leaf(7, WIDTH), leaf(7, WIDTH))
    places = [found[f"{i}/out"].residual for i in range(4)]
    assert places == [(0, 3), (0, 1), (1, 3), (2, 3)]


def test_places_that_only_queries_are_told_begin_no_stream():
    """The first layer is of the places themselves, and has no skip connection."""

    def normed(x):
        return (x - x.mean(-1, keepdims=True)) / jnp.sqrt(x.var(-1)[..., None] + 1e-6)

    def attend(p, x, keys):
        q, k, v = x @ p["q"], keys @ p["k"], keys @ p["v"]
        return jax.nn.softmax(q @ k.mT) @ v @ p["o"]

    def apply(params, x, places):
        h = normed(attend(params[0], places, places))
        for p in params[1:]:
            h = normed(h + attend(p, h + places, x))
        return h

    layer = dict.fromkeys("qkvo", leaf(WIDTH, WIDTH))
    found = jaxinit.roles(apply, [layer] * 3, X, leaf(2, 4, WIDTH))
    writes = [found[f"{i}/o"].residual for i in range(3)]
    assert writes == [None, (0, 2), (1, 2)]
