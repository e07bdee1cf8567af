"""Plans on eight devices: one device's values, nothing sent, nothing held twice."""

import contextlib
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from sampling import sampled

import jaxinit
from jaxinit.stats import measure

KEY = jax.random.key(1729)
AUTO, EXPLICIT = AxisType.Auto, AxisType.Explicit
LEAVES = {
    "he": (jaxinit.he_normal(), (16, 8), "float32"),
    "half": (jaxinit.normal(), (16, 8), "bfloat16"),
    "complex": (jaxinit.normal(), (16, 8), "complex64"),
    "bias": (jaxinit.uniform(), (16,), "float32"),
    "zeros": (jaxinit.zeros, (16, 8), "float32"),
    "square": (jaxinit.orthogonal(), (16, 8), "float32"),
    "unitary": (jaxinit.orthogonal(), (16, 8), "complex64"),
    "conv": (jaxinit.delta_orthogonal(), (3, 3, 8, 8), "float32"),
    "layers": (jaxinit.stacked(jaxinit.he_normal()), (8, 4, 8), "float32"),
}
SHAPES = {
    name: jax.ShapeDtypeStruct(shape, dtype)
    for name, (_, shape, dtype) in LEAVES.items()
}
RULES = {name: init for name, (init, _, _) in LEAVES.items()}
# Smaller trees for what compiles everything anew.
SOME = ("half", "complex", "square")
FEW = ("he", "half")
ONE = ("half",)
BATCHED = ("half", "square")  # a draw, and a factorisation


def mesh_of(shape, kind=AUTO):
    return jax.make_mesh(
        shape, ("x", "y")[: len(shape)], axis_types=(kind,) * len(shape)
    )


def specs(mesh) -> jaxinit.ShardingRules:
    """Every kind of cut: first axis, all axes, the last two of four, none."""
    both = P(*mesh.axis_names)
    rules = {"bias": P("x"), "zeros": P(), "conv": P(None, None, *both), "**": both}
    return jaxinit.ShardingRules(
        {pattern: NamedSharding(mesh, spec) for pattern, spec in rules.items()}
    )


def part(tree, names=SOME):
    return {name: tree[name] for name in names}


def plan_of(shardings=None, names=tuple(LEAVES), **options):
    rules = part(RULES, names)
    options.setdefault("allow_unused", ("bias", "zeros", "conv"))
    return jaxinit.plan(part(SHAPES, names), rules, shardings=shardings, **options)


@functools.cache
def expected(seed: int | None = None, names=tuple(LEAVES)):
    """What one device draws."""
    key = KEY if seed is None else jax.random.split(KEY, 8)[seed]
    return plan_of(None, names).init(key)


def assert_same(got, want):
    assert jax.tree.structure(got) == jax.tree.structure(want)
    for (path, a), b in zip(
        jax.tree.leaves_with_path(got), jax.tree.leaves(want), strict=True
    ):
        where = jax.tree_util.keystr(path)
        assert a.dtype == b.dtype, where
        a, b = np.asarray(a), np.asarray(b)
        np.testing.assert_array_equal(a.view(np.uint8), b.view(np.uint8), where)


def assert_placed(params, plan):
    for leaf, array in zip(plan, jax.tree.leaves(params), strict=True):
        assert array.sharding.is_equivalent_to(leaf.sharding, array.ndim), leaf.path
        shapes = {shard.data.shape for shard in array.addressable_shards}
        assert shapes == {leaf.sharding.shard_shape(leaf.shape)}, leaf.path


# ---- values

MESHES = {
    "1": ((1,), AUTO, FEW),
    "2x4 explicit": ((2, 4), EXPLICIT, ("he", "complex", "square", "layers", "zeros")),
    "2x4 explicit, every kind of leaf": ((2, 4), EXPLICIT, tuple(LEAVES)),
    "4x2": ((4, 2), AUTO, ("he", "conv", "bias")),
    "8": ((8,), AUTO, ("half", "unitary", "bias")),
    "8, every kind of leaf": ((8,), AUTO, tuple(LEAVES)),
}


@pytest.mark.sample(1)
@pytest.mark.parametrize("name", sampled(MESHES, {*MESHES} - {"2x4 explicit", "4x2"}))
def test_every_mesh_has_the_values_of_one_device(name):
    shape, kind, names = MESHES[name]
    plan = plan_of(specs(mesh_of(shape, kind)), names)
    params, wanted = plan.init(KEY), expected(names=names)
    assert_same(params, wanted)
    assert_placed(params, plan)
    if name not in ("1", "2x4 explicit"):  # test_multihost.py has Explicit axes
        assert jaxinit.fingerprint(params) == jaxinit.fingerprint(wanted)


def test_comparison_sees_one_bit():
    other = dict(expected(names=FEW))
    other["he"] = np.nextafter(other["he"], np.float32(np.inf))
    with pytest.raises(AssertionError, match="he"):
        assert_same(other, expected(names=FEW))


@pytest.mark.parametrize("kind", sampled([AUTO, EXPLICIT], [AUTO]))
def test_under_an_outer_jit(kind):
    names = BATCHED if kind == EXPLICIT else SOME
    plan = plan_of(specs(mesh_of((2, 4), kind)), names)
    params = jax.jit(plan.init)(KEY)
    assert_same(params, expected(names=names))
    assert_placed(params, plan)


@pytest.mark.parametrize("kind", sampled([AUTO, EXPLICIT], [AUTO]))
def test_specs_mean_the_mesh_in_use(kind):
    mesh = mesh_of((4, 2), kind)
    shardings = jaxinit.ShardingRules({"**": P("x", "y")})
    with jax.set_mesh(mesh):
        plan = plan_of(shardings, ONE)
        inside = plan.init(KEY)
        traced = jax.jit(lambda key: plan_of(shardings, ONE).init(key))(KEY)
    for params in (inside, traced, plan.init(KEY)):
        assert_same(params, expected(names=ONE))
        assert_placed(params, plan)
    assert all(leaf.sharding == NamedSharding(mesh, P("x", "y")) for leaf in plan)


@pytest.mark.parametrize("kind", sampled([AUTO, EXPLICIT], [EXPLICIT]))
def test_key_may_be_on_the_mesh(kind):
    mesh = mesh_of((8,), kind)
    plan = plan_of(specs(mesh), ONE)
    with jax.set_mesh(mesh):
        made = jax.random.key(1729)  # on the mesh, and of its type
    assert made.sharding.device_set == set(jax.devices())
    raw = jax.device_put(jax.random.key_data(KEY), NamedSharding(mesh, P()))
    for key in (made, raw):
        params = plan.init(key)
        assert_same(params, expected(names=ONE))
        assert_placed(params, plan)
    assert_placed(jax.jit(plan.init)(made), plan)


# ---- ways to say where

TREE = {
    "a": {"w": jax.ShapeDtypeStruct((8, 4), "float32"), "none": None},
    "b": [jax.ShapeDtypeStruct((8,), "float32")] * 2,
}
MESH = mesh_of((2, 4))
ROWS, WHOLE = NamedSharding(MESH, P("x")), NamedSharding(MESH, P())
WAYS = {
    "one sharding": (ROWS, [ROWS] * 3),
    "none": (None, [None] * 3),
    "prefix": ({"a": ROWS, "b": WHOLE}, [ROWS, WHOLE, WHOLE]),
    "prefix with none": ({"a": None, "b": [WHOLE, ROWS]}, [None, WHOLE, ROWS]),
    "full": ({"a": {"w": ROWS, "none": None}, "b": [WHOLE, None]}, [ROWS, WHOLE, None]),
    "spec": (P("x"), [ROWS] * 3),
    "prefix of specs": ({"a": P("x"), "b": P()}, [ROWS, WHOLE, WHOLE]),
    "rules": (
        jaxinit.ShardingRules({"**/w": P("x"), re.compile(r"b/\d"): WHOLE}),
        [ROWS, WHOLE, WHOLE],
    ),
    "rules that leave one out": (
        jaxinit.ShardingRules([("b/0", ROWS)]),
        [None, ROWS, None],
    ),
    "rules with none first": (
        jaxinit.ShardingRules({"b/1": None, lambda leaf: len(leaf.shape) == 1: ROWS}),
        [None, ROWS, None],
    ),
}


@pytest.mark.parametrize("way", WAYS)
def test_ways_to_say_where(way):
    shardings, places = WAYS[way]
    with jax.set_mesh(MESH):
        plan = jaxinit.plan(TREE, {"**": jaxinit.ones}, shardings=shardings)
    assert [leaf.sharding for leaf in plan] == places
    params = plan.init(KEY)
    assert jax.tree.structure(params) == jax.tree.structure(TREE)
    for array, place in zip(jax.tree.leaves(params), places, strict=True):
        assert place is None or array.sharding == place


# ---- structure of the programs

COLLECTIVES = re.compile(
    r"all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter"
    r"|collective-broadcast"
)
LARGE = {
    "truncated": (jaxinit.he_normal(), "float32"),
    "uniform": (jaxinit.uniform(), "bfloat16"),
    "complex": (jaxinit.normal(), "complex64"),
    "ones": (jaxinit.ones, "float32"),
}
CUTS = {"rows": P("x"), "columns": P(None, "y"), "both": P("y", "x")}


def structure(compiled) -> tuple[bool, float]:
    """Whether devices talk, and temporary memory of one as a share of its output."""
    memory = compiled.memory_analysis()
    talks = COLLECTIVES.search(compiled.as_text()) is not None
    return talks, memory.temp_size_in_bytes / memory.output_size_in_bytes


def large_plan(sharding, names=tuple(LARGE)):
    shapes = {n: jax.ShapeDtypeStruct((256, 512), LARGE[n][1]) for n in names}
    rules = {name: LARGE[name][0] for name in names}
    return jaxinit.plan(shapes, rules, shardings=sharding)


def programs(plan, key=KEY):
    return [program.call for program in plan.programs(key)._runner.compiled]


@pytest.mark.parametrize("cut", sampled(CUTS, ["rows", "columns"]))
def test_nothing_is_sent_and_nothing_held_twice(cut):
    sharding = NamedSharding(mesh_of((2, 4)), CUTS[cut])
    compiled = programs(large_plan(sharding))
    assert len(compiled) == len(LARGE)
    for program in compiled:
        talks, share = structure(program)
        assert not talks
        assert share < 0.05


def test_explicit_axes_in_use_change_nothing():
    mesh = mesh_of((2, 4), EXPLICIT)
    with jax.set_mesh(mesh):
        plan = large_plan(P("x", "y"), ("truncated",))
        key = jax.random.key(1729)
        compiled = [*programs(plan, key), jax.jit(plan.init).lower(key).compile()]
        plain = jax.jit(
            lambda key: jaxinit.normal()(key, (256, 512)), out_shardings=P("x", "y")
        )
        assert structure(plain.lower(key).compile())[1] > 1  # it is drawn whole
    for program in compiled:
        talks, share = structure(program)
        assert not talks
        assert share < 0.05


@pytest.mark.exhaustive
def test_a_plan_without_shardings_has_its_numbers_on_every_mesh():
    shapes = {"w": jax.ShapeDtypeStruct((33, 12), "float32")}
    plan = jaxinit.plan(shapes, {"w": jaxinit.normal(0.02)})
    want = plan.init(KEY)
    mesh = mesh_of((2, 4), EXPLICIT)
    with jax.set_mesh(mesh):
        for got in (
            plan.init(KEY),
            jax.jit(plan.init)(KEY),
            plan.programs(KEY).run(),
            plan.complete(KEY, {}),
        ):
            assert_same(got, want)
            assert got["w"].sharding.is_equivalent_to(NamedSharding(mesh, P()), 2)


@pytest.mark.exhaustive
def test_ensembles_without_shardings_have_their_numbers_on_every_mesh():
    shapes = {"w": jax.ShapeDtypeStruct((33, 12), "float32")}
    plan = jaxinit.plan(shapes, {"w": jaxinit.normal(0.02)})
    keys = jax.random.split(KEY, 2)
    many = jax.jit(jax.vmap(plan.init))(keys)
    with jax.set_mesh(mesh_of((2, 4), EXPLICIT)):
        assert_same(jax.jit(jax.vmap(plan.init))(keys), many)
        assert_same(jax.vmap(plan.init)(keys), many)


@pytest.mark.parametrize("kind", sampled([AUTO, EXPLICIT], [EXPLICIT]))
def test_one_pass_sends_nothing(kind):
    shapes = {f"w_{i}": jax.ShapeDtypeStruct((64, 64), "float32") for i in range(4)}
    sharding = NamedSharding(mesh_of((2, 4), kind), P("x", "y"))
    plan = jaxinit.plan(shapes, {"**": jaxinit.he_normal()}, shardings=sharding)
    program = jax.jit(plan.init).lower(KEY).compile()
    talks, share = structure(program)
    assert not talks
    assert share < 0.5
    assert_placed(program(KEY), plan)
    assert_same(
        program(KEY), jaxinit.init_tree(KEY, shapes, {"**": jaxinit.he_normal()})
    )


FACTORS = [("square", "conv"), ("unitary",)]


@pytest.mark.parametrize("names", sampled(FACTORS, [("unitary",)]))
def test_factorisations_send_nothing(names):
    for program in programs(plan_of(specs(mesh_of((2, 4))), names)):
        assert not structure(program)[0]


def test_structure_sees_what_is_sent_and_held():
    sharding = NamedSharding(mesh_of((8,)), P("x"))
    init = jaxinit.normal()

    def squared(key):
        x = init(key, (64, 64))
        return x @ x

    draw = jax.jit(squared, out_shardings=sharding).lower(KEY).compile()
    talks, share = structure(draw)
    assert talks
    assert share > 0.05


# ---- transformations


def slices(stacked):
    stacked = jax.device_get(stacked)
    return [jax.tree.map(lambda x, i=i: x[i], stacked) for i in range(8)]


def over_shards(init):
    def one(keys):
        return jax.tree.map(lambda x: x[None], init(keys[0]))

    mesh = mesh_of((8,))
    return jax.shard_map(one, mesh=mesh, in_specs=P("x"), out_specs=P("x"))


TRANSFORMS = {
    "vmap": (jax.vmap, BATCHED),
    "vmap of complex draws too": (jax.vmap, SOME),
    "jit of vmap": (lambda init: jax.jit(jax.vmap(init)), BATCHED),
    "pmap": (jax.pmap, BATCHED),
    "shard_map": (over_shards, ONE),
    "shard_map of a factorisation": (over_shards, BATCHED),
}
BEYOND = ["vmap of complex draws too", "jit of vmap", "pmap"]
BEYOND += ["shard_map of a factorisation"]


@pytest.mark.sample(1)
@pytest.mark.parametrize("name", sampled(TRANSFORMS, BEYOND))
def test_ensembles_are_the_single_draws(name):
    transform, names = TRANSFORMS[name]
    init = transform(plan_of(None, names).init)
    for i, params in enumerate(slices(init(jax.random.split(KEY, 8)))):
        if i in (0, 5):
            assert_same(params, part(expected(i, names), names))


@pytest.mark.exhaustive
def test_second_vmap_compiles_nothing(caplog):
    init = jax.vmap(plan_of(None, ("bias",)).init)
    init(jax.random.split(KEY, 3))
    other = jax.random.split(jax.random.key(2), 3)
    with jax.log_compiles():
        init(other)
        assert "Compiling" not in caplog.text
        init(jax.random.split(KEY, 5))
        assert "Compiling" in caplog.text


@pytest.mark.exhaustive
def test_replicated_pmap():
    plan = plan_of(None, BATCHED)
    init = jax.pmap(lambda key, _: plan.init(key), in_axes=(None, 0))
    copies = slices(init(KEY, jnp.arange(8)))
    assert_same(copies[0], expected(names=BATCHED))
    assert_same(copies[7], copies[0])


@pytest.mark.exhaustive
def test_replicated_shard_map():
    plan = plan_of(None, BATCHED)
    init = jax.shard_map(plan.init, mesh=mesh_of((8,)), in_specs=P(), out_specs=P())
    assert_same(init(KEY), expected(names=BATCHED))


def test_ensembles_of_sharded_plans():
    plan = plan_of(specs(mesh_of((4, 2))), ONE)
    params = slices(jax.vmap(plan.init)(jax.random.split(KEY, 8)))
    assert_same(params[5], expected(5, ONE))


# ---- bad input

NAMED = functools.partial(NamedSharding, MESH)
BAD = {
    "does not divide": (
        NAMED(P("y", "x")),
        ["a/w: P('y', 'x') does not fit its shape (6, 3)", "axis 0 of size 6", "y: 4"],
        ["axis 1"],
    ),
    "second axis does not divide": (
        NAMED(P("x", "y")),
        ["a/w", "axis 1 of size 3 does not divide into 4 parts (y: 4)"],
        [],
    ),
    "product does not divide": (
        NAMED(P(("x", "y"))),
        ["a/w", "b/0", "axis 0 of size 6 does not divide into 8 parts (x: 2, y: 4)"],
        ["b/1"],
    ),
    "too many axes": (
        NAMED(P("x", None, None)),
        ["a/w", "b/0", "b/1", "P('x', None, None) has more axes than its shape (6,)"],
        [],
    ),
    "unknown axis": (
        {"a": P("x"), "b": P("rows")},
        ["b/0", "b/1", "'rows'", "its axes are 'x', 'y'"],
        ["a/w"],
    ),
    "missing leaves": (
        {"a": WHOLE},
        ["b/0: shardings has nothing for it", "b/1"],
        ["a/w"],
    ),
    "leaves too many": (
        {"a": WHOLE, "b": WHOLE, "c": {"d": WHOLE}},
        ["c/d: is in shardings, but not in the tree"],
        ["a/w", "b/"],
    ),
    "another container": (
        {"a": WHOLE, "b": (WHOLE, WHOLE)},
        ["shardings: ", "tuple"],
        [],
    ),
    "not shardings": (
        {"a": "x", "b": [3, None]},
        ["a/w: its sharding must be a jax.sharding.Sharding", "'x'", "b/0", "got 3"],
        ["b/1"],
    ),
    "rule that matches nothing": (
        jaxinit.ShardingRules({"**/kernel": WHOLE, "a/w": ROWS, "**/w": WHOLE}),
        ["sharding rule '**/kernel': matches no leaf", "'**/w': matches no leaf"],
        ["a/w:"],
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_shardings_are_one_error(name):
    shardings, inside, outside = BAD[name]
    tree = {"a": {"w": jnp.ones((6, 3))}, "b": [jnp.ones(6), jnp.ones(8)]}
    before = [np.array(leaf) for leaf in jax.tree.leaves(tree)]
    with jax.set_mesh(MESH), pytest.raises(jaxinit.PlanError) as raised:
        jaxinit.plan(tree, {"**": jaxinit.normal()}, shardings=shardings)
    message = str(raised.value)
    assert all(text in message for text in inside), message
    assert not any(text in message for text in outside), message
    for leaf, value in zip(jax.tree.leaves(tree), before, strict=True):
        np.testing.assert_array_equal(leaf, value)


def test_rules_that_need_not_match():
    rules = jaxinit.ShardingRules({"**/kernel": WHOLE})
    plan = plan_of(rules, ("he",), allow_unused=["**/kernel"])
    assert [leaf.sharding for leaf in plan] == [None]


def test_spec_without_a_mesh_is_an_error():
    with pytest.raises(jaxinit.PlanError, match=r"he: P\('x',\) needs a mesh"):
        plan_of(P("x"), ("he",))


BAD_RULES = {
    "value": ({"**": "x"}, TypeError, r"rule for '\*\*' must be .* got 'x'"),
    "pattern": ({3: WHOLE}, TypeError, "a pattern must be a glob"),
    "glob": ({"a//b": WHOLE}, ValueError, "has the segment ''"),
    "twice": ([("a", ROWS), ("a", WHOLE)], ValueError, "'a' is given twice"),
}


@pytest.mark.parametrize("name", BAD_RULES)
def test_bad_sharding_rules(name):
    rules, error, text = BAD_RULES[name]
    with pytest.raises(error, match=text):
        jaxinit.ShardingRules(rules)


def test_partial_trees_stay_where_they_are():
    plan = plan_of(specs(mesh_of((2, 4))), ("he", "bias"))
    mine = jax.device_put(jnp.ones(16), jax.devices()[2])
    params = jaxinit.init_missing(KEY, {"bias": mine}, plan)
    assert params["bias"] is mine
    assert_same(params["he"], expected(names=FEW)["he"])
    assert params["he"].sharding.spec == P("x", "y")
    wrong = {"bias": jnp.ones(15), "he": mine}
    with pytest.raises(jaxinit.PlanError, match=r"bias: is float32\[15\][^$]*he: is"):
        jaxinit.init_missing(KEY, wrong, plan)
    np.testing.assert_array_equal(mine, np.ones(16))


@pytest.mark.exhaustive  # test_bits.py draws on such meshes, test_multihost.py measures
@pytest.mark.parametrize("in_use", [False, True])
def test_out_sharding_and_measures_on_a_mesh_with_explicit_axes(in_use, key):
    mesh = jax.make_mesh((2, 4), ("data", "model"))
    place = jax.NamedSharding(mesh, jax.P("data", "model"))
    init = jaxinit.he_normal()
    whole = np.asarray(init(key, (16, 8)))
    with jax.set_mesh(mesh) if in_use else contextlib.nullcontext():
        x = init(key, (16, 8), out_sharding=place)
        assert x.sharding == place
        assert measure(x).mean == pytest.approx(float(whole.mean()))
    np.testing.assert_array_equal(x, whole)
