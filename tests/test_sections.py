"""Sections of leaves as leaves of their own: fused projections, gates, both at once."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sampling import sampled

import jaxinit
import jaxinit.testing
from jaxinit import role, schemes

pytestmark = pytest.mark.unoptimized

WIDTH = 16


def leaf(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.float32)


SHAPES = {
    "in": leaf(8, WIDTH),
    "a": leaf(WIDTH, 24),  # key, value, and a query four times as wide
    "b": leaf(WIDTH, WIDTH),
    "c": leaf(WIDTH, 64),  # gate and up
    "d": leaf(32, WIDTH),
    "e": leaf(WIDTH, 3),
}


def block(w, x):
    """One block of multi-query attention and a gated unit, with fused projections."""
    x = x @ w["in"]
    fused = x @ w["a"]
    key, value, query = fused[..., :4], fused[..., 4:8], fused[..., 8:]
    query = query.reshape(*query.shape[:2], 4, 4)
    scores = jnp.einsum("bthk,bsk->bhts", query, key) / 2
    mixed = jnp.einsum("bhts,bsk->bthk", jax.nn.softmax(scores), value)
    x = x + mixed.reshape(x.shape) @ w["b"]
    gate, up = jnp.split(x @ w["c"], 2, -1)
    return (x + (jax.nn.silu(gate) * up) @ w["d"]) @ w["e"]


@pytest.fixture(scope="module")
def roles():
    return jaxinit.roles(block, SHAPES, leaf(2, 7, 8))


def planned(rules, roles, shapes=SHAPES):
    plan = jaxinit.plan(shapes, rules, roles=roles)
    return {x.path: x.initializer for x in plan}


def test_a_pattern_may_match_a_section(roles, key):
    rules = {
        role(part="query"): jaxinit.zeros,
        role(part="value"): jaxinit.ones,
        role(part="up"): jaxinit.orthogonal(),
        "**": jaxinit.normal(),
    }
    plan = jaxinit.plan(SHAPES, rules, roles=roles)
    found = {x.path: x.initializer for x in plan}
    normal, orthogonal = jaxinit.normal(), jaxinit.orthogonal()
    parts = (normal, jaxinit.ones, jaxinit.zeros)
    assert found["a"] == jaxinit.split(parts, (4, 4, 16), axis=1)
    assert found["c"] == jaxinit.split((normal, orthogonal), (32, 32), axis=1)
    assert {found[path] for path in ("in", "b", "d", "e")} == {normal}
    drawn = np.asarray(plan.init(key)["a"])
    assert drawn[:, :4].std() > 0.005
    assert np.all(drawn[:, 4:8] == 1)
    assert np.all(drawn[:, 8:] == 0)


def test_an_earlier_rule_for_the_whole_leaf_decides(roles):
    rules = {"a": jaxinit.normal(), role(part="query"): jaxinit.zeros}
    plan = planned(jaxinit.Rules({**rules, "**": jaxinit.ones}, required=[]), roles)
    assert plan["a"] == jaxinit.normal()


def test_independent_entries_with_one_law_are_drawn_whole(roles):
    rules = {role(part="query"): jaxinit.normal(), "**": jaxinit.normal()}
    assert planned(rules, roles)["a"] == jaxinit.normal()
    by_fan = jaxinit.glorot_normal()  # of other fans in each section
    own = planned({role(part="query"): by_fan, "**": by_fan}, roles)["a"]
    assert own == jaxinit.split((by_fan,) * 3, (4, 4, 16), axis=1)


def test_a_rule_for_a_section_is_asked_of_no_other_leaf(roles):
    seen = []

    def narrow(leaf):
        seen.append(leaf.shape)
        return jaxinit.orthogonal()

    planned({role(part="query"): narrow, "**": jaxinit.normal()}, roles)
    assert seen == [(16, 16)]  # once, and not with the shape of the whole leaf


def test_every_section_needs_a_rule(roles):
    rules = {role(part="query"): jaxinit.zeros, "[!a]*": jaxinit.normal()}
    with pytest.raises(jaxinit.PlanError) as error:
        jaxinit.plan(SHAPES, rules, roles=roles)
    assert "a: no rule matches its section for kernel, key" in str(error.value)
    assert "a: no rule matches its section for kernel, value" in str(error.value)
    foreign = {role(part="query"): jax.nn.initializers.zeros, "**": jaxinit.normal()}
    with pytest.raises(jaxinit.PlanError, match=r"query has the rule"):
        jaxinit.plan(SHAPES, foreign, roles=roles)


def test_sections_have_fans_of_their_own(roles):
    seen = {}

    def look(leaf):
        use = leaf.role.kernels[0]
        seen[leaf.path, use.part] = (leaf.shape, use.fan_in, use.fan_out, use.sections)
        return jaxinit.zeros

    planned({"**": jaxinit.by_section(look)}, roles)
    assert seen["a", "query"] == ((16, 16), 16, 16, ())
    assert seen["a", "value"] == ((16, 4), 16, 4, ())
    assert seen["c", "gate"] == ((16, 32), 16, 32, ())
    assert seen["in", None] == ((8, 16), 8, 16, ())


def test_by_section_refuses_what_draws_nothing():
    with pytest.raises(TypeError, match=r"makes initializers: .* write he_normal"):
        jaxinit.by_section(jaxinit.he_normal)  # pyright: ignore
    with pytest.raises(TypeError, match="must be an initializer"):
        jaxinit.by_section(3)  # pyright: ignore
    with pytest.raises(ValueError, match=r"unknown part 'querry'; the nearest .*query"):
        role(part="querry")


def test_schemes_draw_fused_projections_each_for_itself(roles):
    """A query that is wider than key and value, and not in the first place."""
    found = planned(schemes.deepnorm(decoder_layers=1), roles)
    beta = 8**-0.25
    wanted = [(4, 1), (4, beta), (16, 1)]
    parts = zip(found["a"].init, wanted, strict=True)
    stds = [
        (init.moments((16, size), jnp.float32).std, factor / (8 + size / 2) ** 0.5)
        for init, (size, factor) in parts
    ]
    assert all(std == pytest.approx(expected) for std, expected in stds)
    gated = found["c"].init.moments((16, 32), jnp.float32).std
    assert gated == pytest.approx(beta / 24**0.5)
    language = planned(schemes.language(kernel="orthogonal"), roles)
    assert [x.column_axis for x in language["a"].init] == [1, 1, 1]


HEADS = {
    "heads, three": lambda z: jnp.moveaxis(z.reshape(2, 5, 2, 3, 4), 3, 0),
    "heads, size, three": lambda z: jnp.moveaxis(z.reshape(2, 5, 2, 4, 3), 4, 0),
}


@pytest.mark.exhaustive
@pytest.mark.parametrize("layout", sampled(HEADS, [*HEADS][1:]))
def test_sections_that_lie_in_turns_are_whole_arrays(layout, key):
    """Query, key and value of each head side by side: each is one orthogonal matrix."""

    def apply(w, x):
        q, k, v = HEADS[layout](x @ w["qkv"])
        scores = jnp.einsum("bthk,bshk->bhts", q, k) / 2
        return jnp.einsum("bhts,bshk->bthk", jax.nn.softmax(scores), v)

    shapes = {"qkv": leaf(8, 24)}
    roles = jaxinit.roles(apply, shapes, leaf(2, 5, 8))
    rules = {"**": jaxinit.by_section(jaxinit.orthogonal())}
    drawn = jaxinit.init_tree(key, shapes, rules, roles=roles)["qkv"]
    numbers = HEADS[layout](jnp.broadcast_to(jnp.arange(24), (2, 5, 24)))
    for columns in np.asarray(numbers)[:, 0, 0]:
        part = np.asarray(drawn)[:, columns.ravel()]
        np.testing.assert_allclose(part.T @ part, np.eye(8), atol=1e-5)
    plan = jaxinit.plan(shapes, rules, roles=roles)
    jaxinit.testing.assert_moments({"qkv": drawn}, plan)
    beside = jaxinit.split(jaxinit.orthogonal(), 3)(key, (8, 24))  # not in turns
    with pytest.raises(AssertionError, match="qkv"):
        jaxinit.testing.assert_moments({"qkv": beside}, plan)
    glorot = planned({"**": jaxinit.by_section(jaxinit.glorot_normal())}, roles, shapes)
    std = glorot["qkv"].moments((8, 24), jnp.float32).std
    assert std == pytest.approx((2 / (8 + 8)) ** 0.5)


def test_a_plan_transfers_nothing(roles):
    with jax.transfer_guard("disallow"):
        assert jaxinit.plan(SHAPES, {"**": jaxinit.normal()}, roles=roles)


def test_layers_of_cells_in_one_array(key):
    """Each layer's recurrent kernel is orthogonal, and its inputs are Glorot's."""

    def apply(w, x):
        def layer(x, w):
            def step(h, t):
                h = jnp.tanh(t @ w["i"] + h @ w["h"])
                return h, h

            return jax.lax.scan(step, jnp.zeros((x.shape[1], 6)), x)[1], None

        return jax.lax.scan(layer, x, w)[0]

    shapes = {"i": leaf(2, 6, 6), "h": leaf(2, 6, 6)}
    roles = jaxinit.roles(apply, shapes, leaf(5, 2, 6))
    assert [roles[path].recurrent for path in "ih"] == [False, True]
    drawn = jaxinit.init_tree(key, shapes, schemes.recurrent(), roles=roles)
    for h, i in zip(drawn["h"], drawn["i"], strict=True):
        np.testing.assert_allclose(h @ h.T, np.eye(6), atol=1e-5)
        assert not np.allclose(i @ i.T, np.eye(6), atol=0.1)


def test_recurrent_kernels_that_are_no_matrices(key):
    """A vector of scores, and a kernel to heads, have no orthogonal matrix."""

    def apply(w, x):
        def step(h, t):
            heads = jnp.tanh(t @ w["i"] + jnp.einsum("bd,dhk->bhk", h, w["h"]))
            score = jnp.tanh(h) @ w["v"]
            return heads.reshape(h.shape) * score[:, None], None

        return jax.lax.scan(step, jnp.ones((2, 6)), jnp.swapaxes(x, 0, 1))[0]

    shapes = {"i": leaf(5, 3), "h": leaf(6, 2, 3), "v": leaf(6)}
    roles = jaxinit.roles(apply, shapes, leaf(2, 7, 5))
    assert [roles[path].recurrent for path in "hv"] == [True, True]
    for rules in (schemes.auto(), jaxinit.Rules(schemes.recurrent(), required=[])):
        plan = {x.path: x for x in jaxinit.plan(shapes, rules, roles=roles)}
        own = repr((plan["h"].initializer, plan["v"].initializer))
        assert "orthogonal" not in own
    assert plan["h"].std == pytest.approx((2 / (6 + 6)) ** 0.5, rel=1e-3)


GATES = {"i": slice(0, 6), "f": slice(6, 12), "g": slice(12, 18), "o": slice(18, 24)}


def lstm(gates, adds_one=0.0):
    def apply(w, x):
        def step(carry, x):
            h, c = carry
            z = gates(w, x, h)
            i, f, g, o = (z[:, GATES[name]] for name in "ifgo")
            c = jax.nn.sigmoid(f + adds_one) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
            return (jax.nn.sigmoid(o) * jnp.tanh(c), c), None

        start = jnp.zeros((2, 6))
        return jax.lax.scan(step, (start, start), jnp.swapaxes(x, 0, 1))[0][0]

    return apply


def joint(w, x, h):
    return jnp.concatenate([x, h], -1) @ w["w"] + w["b"]


def two(w, x, h):
    return (x @ w["x"].T + w["bx"]) + (h @ w["h"].T + w["bh"])


def after_the_sum(w, x, h):
    return x @ w["x"] + h @ w["h"] + w["b1"] + w["b2"]


def one_bias(w, x, h):
    return (x @ w["x"] + w["bx"]) + h @ w["h"]


OPEN = jaxinit.split((jaxinit.zeros, jaxinit.ones, jaxinit.zeros, jaxinit.zeros), 4, 0)
GLOROT = jaxinit.variance_scaling(1.0, "fan_avg", "uniform", in_axis=0, out_axis=1)
# The cell, its shapes, and what `schemes.recurrent` makes of them; None is Glorot.
CELLS = {
    "two biases": (
        lstm(two),
        {"x": leaf(24, 5), "h": leaf(24, 6), "bx": leaf(24), "bh": leaf(24)},
        {"bh": "open", "bx": "zeros", "h": 0, "x": None},
    ),
    "two biases of the sum": (
        lstm(after_the_sum),
        {"x": leaf(5, 24), "h": leaf(6, 24), "b1": leaf(24), "b2": leaf(24)},
        {"b1": "open", "b2": "zeros", "h": 1, "x": None},
    ),
    "bias of inputs only": (
        lstm(one_bias),
        {"x": leaf(5, 24), "h": leaf(6, 24), "bx": leaf(24)},
        {"bx": "open", "h": 1, "x": None},
    ),
    "adds one": (
        lstm(one_bias, 1.0),
        {"x": leaf(5, 24), "h": leaf(6, 24), "bx": leaf(24)},
        {"bx": "zeros", "h": 1, "x": None},
    ),
    "joint": (
        lstm(joint),
        {"w": leaf(11, 24), "b": leaf(24)},
        {"b": "open", "w": "joint"},
    ),
}


@pytest.mark.sample(2)
@pytest.mark.parametrize("name", sampled(CELLS, [*CELLS][2:-1]))
def test_recurrent_by_roles(name, key):
    """Names say nothing; each gate is orthogonal, and the forget gate is open."""
    apply, shapes, wanted = CELLS[name]
    roles = jaxinit.roles(apply, shapes, leaf(2, 7, 5))
    params = jaxinit.init_tree(key, shapes, schemes.recurrent(), roles=roles)
    for path, expected in wanted.items():
        array = np.asarray(params[path])
        if expected == "joint":
            assert_gates_are_orthogonal(array[5:], 1)
            assert np.abs(array[:5]).max() <= (6 / (5 + 6)) ** 0.5
        elif isinstance(expected, str):
            ones = expected == "open"
            assert np.array_equal(array, np.repeat([0, ones, 0, 0], 6))
        elif expected is None:
            assert np.abs(array).max() <= (6 / (5 + 6)) ** 0.5
        else:
            assert_gates_are_orthogonal(array, expected)


def assert_gates_are_orthogonal(array, axis):
    gates = np.split(array, 4, axis)
    for gate in gates:
        np.testing.assert_allclose(gate @ gate.T, np.eye(6), atol=1e-5)
    whole = array if axis == 1 else array.T
    assert not np.allclose(whole @ whole.T, np.eye(6))  # all gates together are not
