"""Plans: rules decide, keys follow paths, one pass draws all."""

import re

import equinox as eqx
import flax.linen as nn
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

import jaxinit
from jaxinit import (
    PlanError,
    Rules,
    fingerprint,
    init_missing,
    init_tree,
    plan,
    reinit,
    schemes,
)

KEY = jax.random.key(0)
RULES = {
    "**/embedding": jaxinit.normal(0.02),
    "**/kernel": jaxinit.he_normal(),
    "**/bias": jaxinit.zeros,
    "**/scale": jaxinit.ones,
}


def leaf(*shape, dtype="float32"):
    return jax.ShapeDtypeStruct(shape, dtype)


def dense(n, m):
    return {"kernel": leaf(n, m), "bias": leaf(m)}


def blocks(count):
    tree = {f"block_{i}": {"a": dense(4, 8), "b": dense(8, 4)} for i in range(count)}
    return {**tree, "embed": {"embedding": leaf(10, 4)}, "norm": {"scale": leaf(4)}}


def values(tree):
    """Leaves by path, as bytes."""
    flat = jax.tree.leaves_with_path(tree)
    return {jax.tree_util.keystr(p): np.asarray(x).tobytes() for p, x in flat}


def test_first_match_wins():
    rules = {"a/kernel": jaxinit.ones, "**": jaxinit.zeros}
    made = plan({"a": dense(2, 2), "b": dense(2, 2)}, rules)
    by_path = {x.path: x.initializer for x in made}
    assert by_path["a/kernel"] == jaxinit.ones
    assert by_path["b/kernel"] == jaxinit.zeros
    assert by_path["a/bias"] == jaxinit.zeros


def test_rules_see_the_leaf():
    def by_depth(x):
        return jaxinit.normal(0.1 / (x.index + 1))

    def bounded(x):
        limit = x.siblings["kernel"].shape[0] ** -0.5
        return jaxinit.uniform(low=-limit, high=limit)

    rules = {
        re.compile(r"block_\d+/b/kernel"): lambda x: jaxinit.normal(
            0.1 / (x.index + 1)
        ),
        (lambda x: len(x.shape) == 2): jaxinit.lecun_normal(),
        "**/bias": bounded,
        "**": jaxinit.ones,
    }
    by_path = {x.path: x for x in plan(blocks(3), rules)}
    assert by_path["block_2/b/kernel"].initializer == jaxinit.normal(0.1 / 3)
    assert by_path["block_2/b/bias"].initializer == jaxinit.uniform(
        low=-(8**-0.5), high=8**-0.5
    )
    assert by_path["embed/embedding"].initializer == jaxinit.lecun_normal()
    assert by_path["block_0/b/kernel"].std == 0.1


def test_the_one_liner():
    params = init_tree(KEY, blocks(1), RULES)
    assert values(params) == values(plan(blocks(1), RULES).init(KEY))


def test_initializers_of_jax_are_welcome():
    made = plan(
        dense(4, 4),
        {**RULES, "**/kernel": jax.nn.initializers.he_normal()},
        allow_unused=list(RULES),
    )
    ours = plan(dense(4, 4), RULES, allow_unused=list(RULES))
    assert values(made.init(KEY)) == values(ours.init(KEY))
    assert next(iter(made)).path == "bias"
    assert [x.std for x in made] == [0.0, None]


def test_values_are_those_of_the_initializer_and_the_key_of_the_path():
    made = plan(blocks(1), RULES)
    params = made.init(KEY)
    for x in made:
        key = KEY
        for word in x.words:
            key = jax.random.fold_in(key, word)
        block, *rest = x.path.split("/")
        found = params[block]
        for segment in rest:
            found = found[segment]
        np.testing.assert_array_equal(found, x.initializer(key, x.shape, x.dtype))


def test_leaves_may_share_a_key():
    shapes = {"online": dense(4, 4), "target": dense(4, 4)}
    init = jaxinit.he_normal()

    def as_online(leaf):
        return jaxinit.keyed(init, leaf.path.replace("target", "online"))

    rules = {"online/**/kernel": init, "target/**/kernel": as_online}
    made = plan(shapes, {**rules, **RULES}, allow_unused=list(RULES))
    params = made.init(KEY)
    assert values(params["online"]) == values(params["target"])
    again = jaxinit.reinit(jax.random.key(1), params, made, "target/**")
    other = made.init(jax.random.key(1))
    assert values(again["target"]) == values(other["online"])
    assert {x.initializer for x in made if "kernel" in x.path} == {init}
    with pytest.raises(TypeError, match="an initializer and a path"):
        jaxinit.keyed("online", init)


names = st.sampled_from(["a", "b", "block_0", "block_1", "norm"])
trees = st.recursive(
    st.just(None),
    lambda inner: st.dictionaries(names, inner, min_size=1, max_size=3),
    max_leaves=6,
).filter(lambda tree: isinstance(tree, dict))


def filled(tree):
    """A parameter in every inner node of a tree of names."""
    if tree is None:
        return {"w": leaf(2, 3)}
    return {"w": leaf(2, 3), **{k: filled(v) for k, v in tree.items()}}


@settings(max_examples=15, deadline=None, derandomize=True)
@given(trees, trees)
def test_a_leaf_does_not_depend_on_other_leaves(first, second):
    rules = {"**/w": jaxinit.normal(1.0)}
    one, two = (values(plan(filled(t), rules).init(KEY)) for t in (first, second))
    shared = one.keys() & two.keys()
    assert "['w']" in shared
    assert {path: one[path] for path in shared} == {path: two[path] for path in shared}
    assert len(set(one.values())) == len(one), "all leaves differ"


def test_order_containers_and_seed():
    forward, backward = dense(4, 4), dict(reversed(dense(4, 4).items()))
    assert values(plan(forward, RULES, allow_unused=list(RULES)).init(KEY)) == values(
        plan(backward, RULES, allow_unused=list(RULES)).init(KEY)
    )
    in_list = plan([leaf(3)], {"**": jaxinit.normal()}).init(KEY)
    in_dict = plan({"0": leaf(3)}, {"**": jaxinit.normal()}).init(KEY)
    np.testing.assert_array_equal(in_list[0], in_dict["0"])
    other = plan([leaf(3)], {"**": jaxinit.normal()}).init(jax.random.key(1))
    assert not np.array_equal(in_list[0], other[0])


def test_golden_values():
    """Fixed for ever under path-v1, on every machine: no law, only bits."""
    words = [x.words for x in plan(dense(2, 2), RULES, allow_unused=list(RULES))]
    drawn = [
        jax.random.bits(x.key(KEY), (2,)).tolist()
        for x in plan(dense(2, 2), RULES, allow_unused=list(RULES))
    ]
    assert (words, drawn) == GOLDEN


GOLDEN = (
    [(2919835104, 1024117368), (382969167, 2978842489)],
    [[593797335, 191037446], [546532562, 1451945761]],
)


class LinenModel(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.LayerNorm()(nn.Dense(4)(x))


class NnxModel(nnx.Module):
    def __init__(self, rngs):
        self.layers = nnx.List([nnx.Linear(4, 4, rngs=rngs) for _ in range(2)])
        self.dropout = nnx.Dropout(0.5, rngs=rngs)


def haiku_model(x):
    return hk.nets.MLP([4, 4])(x)


def equinox_shapes():
    return jax.eval_shape(
        lambda key: eqx.filter(eqx.nn.MLP(4, 4, 4, 2, key=key), eqx.is_array), KEY
    )


X = jnp.zeros((1, 4))
TREES = {
    "linen": lambda: jax.eval_shape(LinenModel().init, KEY, X),
    "nnx state": lambda: nnx.state(
        nnx.eval_shape(lambda: NnxModel(nnx.Rngs(0))), nnx.Param
    ),
    "haiku": lambda: jax.eval_shape(hk.transform(haiku_model).init, KEY, X),
    "equinox": equinox_shapes,
    "optax": lambda: jax.eval_shape(optax.adam(1e-3).init, dense(4, 4)),
    "arrays": lambda: [jnp.zeros((2, 2)), (None, np.ones(3, np.float32))],
    "single leaf": lambda: leaf(3),
    "empty": dict,
}
WEIGHTS = ("**/kernel", "**/weight", "**/w")


@pytest.mark.parametrize("name", TREES)
def test_trees_of_every_library(name):
    shapes = TREES[name]()
    rules = {
        **dict.fromkeys(WEIGHTS, lambda x: jaxinit.normal(1.0)),
        "**": jaxinit.zeros,
    }
    made = plan(shapes, rules, allow_unused=list(rules))
    params = made.init(KEY)
    assert jax.tree.structure(params) == jax.tree.structure(shapes)
    same = jax.tree.map(
        lambda a, b: (a.shape, a.dtype) == (b.shape, b.dtype), params, shapes
    )
    assert all(jax.tree.leaves(same))
    assert not any(x.path.endswith("value") for x in made)


def test_boxes_are_kept():
    kernel_init = nn.with_partitioning(nn.initializers.lecun_normal(), ("a", "b"))
    shapes = jax.eval_shape(nn.Dense(4, kernel_init=kernel_init).init, KEY, X)
    params = plan(shapes, RULES, allow_unused=list(RULES)).init(KEY)
    assert params["params"]["kernel"].names == ("a", "b")


def test_all_problems_in_one_message():
    shapes = {
        "lonely": leaf(3),
        "vector": {"kernel": leaf(3)},
        "count": {"scale": leaf(2, dtype="int32"), "kernel": leaf(2, 2, dtype="int32")},
        "odd": {"bias": leaf(3), "gain": leaf(4)},
    }
    rules = {
        **RULES,
        "**/gain": lambda x: x.siblings["kernel"],
        "nothing/here": jaxinit.zeros,
    }
    with pytest.raises(PlanError) as error:
        plan(shapes, rules)
    for expected in (
        "the plan has 6 problems:",
        "lonely: no rule matches it",
        "rule '**/embedding': matches no leaf",
        "rule 'nothing/here': matches no leaf",
        "vector/kernel: he_normal() cannot make it: in_axis=-2 is out of range",
        "count/kernel: he_normal() cannot make it: dtype int32",
        "odd/gain: KeyError: 'kernel'",
    ):
        assert expected in str(error.value)
    with pytest.raises(PlanError, match=r"a/b: not an array but 3"):
        plan({"a": {"b": 3}, "c": leaf(2)}, RULES)


def test_a_constructed_collision_is_refused(monkeypatch):
    monkeypatch.setattr("jaxinit._tree.plan.path_words", lambda path: (0, len(path)))
    with pytest.raises(PlanError, match=r"bias and kernel: .* same key"):
        plan(dense(2, 2), RULES, allow_unused=list(RULES))


def test_rules_of_ones_own_take_over_a_part_of_a_scheme():
    head = schemes.parts.HEAD
    own = jaxinit.Rules({head: jaxinit.ones}) | schemes.zero_gamma()
    assert dict(own.items())[head] == jaxinit.ones
    assert len(own) == len(schemes.zero_gamma())


@pytest.mark.parametrize(
    ("rules", "error", "message"),
    [
        ({3: jaxinit.zeros}, TypeError, "a pattern must be a glob"),
        ({"a//b": jaxinit.zeros}, ValueError, "has the segment ''"),
        ({"**": 3}, TypeError, r"the rule for '\*\*' must be an initializer"),
        ({"**": "he_normal"}, TypeError, "must be an initializer"),
        ([("a", jaxinit.zeros), ("a", jaxinit.ones)], ValueError, "given twice"),
        ({"**": lambda x: 3}, PlanError, "a function of the leaf, returned 3"),
        (
            {"**": lambda key, shape, dtype: jnp.zeros(3)},
            PlanError,
            r"makes float32\[3\] instead of float32\[2, 2\]",
        ),
    ],
)
def test_bad_rules(rules, error, message):
    with pytest.raises(error, match=message):
        plan({"a": leaf(2, 2)}, rules)


def test_rules_combine():
    both = Rules({"a": jaxinit.zeros}) | {"**": jaxinit.ones}
    assert {"a": jaxinit.zeros} | Rules({"**": jaxinit.ones}) == both
    assert len(both) == 2
    params = plan({"a": leaf(2), "b": leaf(2)}, both).init(KEY)
    assert (params["a"] == 0).all()
    assert (params["b"] == 1).all()
    assert repr(both) == "Rules({'a': zeros, '**': ones})"


def test_init_missing():
    made = plan(blocks(2), RULES)
    full = made.init(KEY)
    partial = {"block_1": {"a": {"kernel": jnp.ones((4, 8))}}, "norm": None}
    params = init_missing(KEY, partial, made)
    assert params["block_1"]["a"]["kernel"] is partial["block_1"]["a"]["kernel"]
    changed = {p for p, v in values(params).items() if v != values(full)[p]}
    assert changed == {"['block_1']['a']['kernel']"}
    assert values(init_missing(KEY, {}, made)) == values(full)
    assert values(jax.jit(lambda k: init_missing(k, {}, made))(KEY)) == values(full)
    wrong = {"norm": {"scale": jnp.ones(3)}, "extra": jnp.ones(2)}
    with pytest.raises(PlanError) as error:
        init_missing(KEY, wrong, made)
    assert "extra: not in the plan" in str(error.value)
    assert "norm/scale: is float32[3], planned is float32[4]" in str(error.value)


def test_reinit():
    made = plan(blocks(2), RULES)
    old, new = made.init(KEY), made.init(jax.random.key(9))
    params = reinit(jax.random.key(9), old, made, where="block_1/**/kernel")
    for path, value in values(params).items():
        chosen = "block_1" in path and "kernel" in path
        assert value == values(new if chosen else old)[path]
    assert params["norm"]["scale"] is old["norm"]["scale"]
    with pytest.raises(ValueError, match="matches no leaf of the plan"):
        reinit(KEY, old, made, where="nowhere")
    with pytest.raises(PlanError, match="block_0/a/bias: missing"):
        reinit(KEY, {"norm": old["norm"]}, made, where="block_0/a/kernel")


def test_fingerprint():
    params = plan(blocks(1), RULES).init(KEY)
    known = fingerprint(params)
    assert known == fingerprint(jax.tree.map(np.asarray, params))
    assert len(known) == 16
    kernel = np.asarray(params["block_0"]["a"]["kernel"])
    next_to_it = kernel.copy()
    next_to_it[0, 0] = np.nextafter(kernel[0, 0], np.float32(1))
    for other in (
        next_to_it,
        kernel[::-1],
        kernel.T.reshape(4, 8),
        kernel.astype(jnp.bfloat16),
        kernel.reshape(2, 16),
        -kernel,
    ):
        params["block_0"]["a"]["kernel"] = jnp.asarray(other)
        assert fingerprint(params) != known
    renamed = {"x": jnp.ones(3)}, {"y": jnp.ones(3)}
    assert fingerprint(renamed[0]) != fingerprint(renamed[1])


@pytest.mark.sample(4)
@pytest.mark.parametrize(
    "dtype",
    ["bool", "int8", "uint16", "int32", "float8_e5m2", "bfloat16", "complex64", "key"],
)
def test_fingerprint_of_every_dtype(dtype):
    zero, one = np.zeros(3, np.int8), np.array([0, 1, 0], np.int8)
    if dtype == "key":
        made = [jax.vmap(jax.random.key)(x) for x in (zero, one)]
    else:
        made = [jnp.asarray(x.astype(jnp.dtype(dtype))) for x in (zero, one)]
    assert fingerprint(made[0]) != fingerprint(made[1])


def test_fingerprint_is_stable():
    """Golden tests of users compare with stored fingerprints."""
    tree = {"a": jnp.arange(6.0).reshape(2, 3), "b": [jnp.ones(2, jnp.bfloat16)]}
    assert fingerprint(tree) == STABLE


STABLE = "74a283aa36aae6bd"


def test_printing():
    made = plan(blocks(3), RULES)
    text = str(made)
    assert re.search(
        r"block_\{0\.\.2\}/a/kernel +x3 +4x8 +float32 +he_normal\(\) +4 +8 +0\.7071",
        text,
    )
    assert text.endswith("14 leaves, 272 parameters, 1,088 bytes")
    assert "sharding" not in text
    assert "<td" in made._repr_html_()
    assert made._repr_html_().count("<tr>") == 1 + 6
    assert repr(made) == "<Plan of 14 leaves, 1,088 bytes>"


def lowered_of_equal_leaves(count):
    shapes = {f"b_{i}": {"kernel": leaf(64, 64)} for i in range(count)}
    made = plan(shapes, {"**": jaxinit.he_normal()})
    return made, jax.jit(made.init).lower(KEY)


def test_one_pass():
    """One program whose size and memory do not grow with the number of equal leaves."""
    made, lowered = lowered_of_equal_leaves(16)
    program = lowered.compile()
    memory = program.memory_analysis()
    assert memory.temp_size_in_bytes < memory.output_size_in_bytes / 2
    assert values(program(KEY)) == values(made.init(KEY))
    _, more = lowered_of_equal_leaves(32)
    assert more.as_text().count("stablehlo.while") == lowered.as_text().count(
        "stablehlo.while"
    )
    assert len(made.programs(KEY)) == 1
    # XLA's CPU backend compiles equal kernels once: there are few different ones.
    assert different_kernels(program) < 32


@pytest.mark.exhaustive
def test_different_kernels_do_not_grow_with_the_number_of_equal_leaves():
    few, more = (lowered_of_equal_leaves(count)[1].compile() for count in (16, 32))
    assert different_kernels(more) == different_kernels(few)


@pytest.mark.exhaustive
def test_one_pass_of_a_number_that_does_not_divide():
    made, lowered = lowered_of_equal_leaves(17)
    assert values(lowered.compile()(KEY)) == values(made.init(KEY))


def different_kernels(compiled) -> int:
    text = re.sub(r", metadata=\{.*?\}|(?<=[a-z_])[.\d]+", "", compiled.as_text())
    found = re.findall(r"^%\S+ \(.*?^\}", text, re.S | re.M)
    return len(set(found))


def test_different_kernels_are_counted():
    def draws(count):
        return lambda key: [key[0] * i + jnp.arange(8) for i in range(count)]

    key = jnp.zeros(2, jnp.uint32)
    few, many = (jax.jit(draws(n)).lower(key).compile() for n in (2, 9))
    assert different_kernels(many) > different_kernels(few)


@pytest.mark.exhaustive
def test_ensembles():
    made = plan(blocks(1), RULES)
    keys = jax.random.split(KEY, 3)
    ensemble = jax.device_get(jax.jit(jax.vmap(made.init))(keys))
    for i, key in enumerate(keys):
        member = jax.tree.map(lambda x, i=i: x[i], ensemble)
        assert values(member) == values(made.init(key))
