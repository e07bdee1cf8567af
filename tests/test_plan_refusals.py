"""What a plan, and what is given to one, may not be: one message, with every path."""

import collections
import re
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

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
from jaxinit._tree.plan import checked_plan
from jaxinit.report import report

KEY = jax.random.key(0)


def leaf(*shape, dtype="float32"):
    return jax.ShapeDtypeStruct(shape, dtype)


S = {"a": {"kernel": leaf(2, 2), "bias": leaf(2)}}
ZEROS = {"**": jaxinit.zeros}
PLAN = plan(S, ZEROS)
FULL = PLAN.init(KEY)


def missing_parts(call, error, parts):
    with pytest.raises(error) as caught:
        call()
    return [part for part in parts if part not in str(caught.value)]


SAME_TEXT = {"a": {"b": jnp.ones(2)}, "a/b": jnp.ones(2)}
AMBIGUOUS = {
    "plan": lambda: plan(SAME_TEXT, ZEROS),
    "init_tree": lambda: init_tree(KEY, SAME_TEXT, ZEROS),
    "init_missing": lambda: init_missing(KEY, SAME_TEXT, PLAN),
    "reinit": lambda: reinit(KEY, SAME_TEXT, PLAN, "**/bias"),
    "report": lambda: report(SAME_TEXT),
    "fingerprint": lambda: fingerprint(SAME_TEXT),
}


@pytest.mark.parametrize("name", AMBIGUOUS)
def test_leaves_that_no_path_tells_apart(name):
    both = ["'a/b' is the path of 2 leaves, ['a']['b'] and ['a/b']"]
    assert missing_parts(AMBIGUOUS[name], PlanError, both) == []


class WithDropout(nnx.Module):
    def __init__(self, rngs):
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.linear = nnx.Linear(2, 2, rngs=rngs)


def state_with_keys():
    return nnx.state(nnx.eval_shape(lambda: WithDropout(nnx.Rngs(0))))


LEAVES = {
    "Python number": ({"a": {"b": 3}}, ["a/b: not an array but 3"]),
    "text": ([leaf(2), "w"], ["1: not an array but 'w'"]),
    "function": ({"act": jnp.tanh}, ["act: not an array but", "equinox.filter"]),
    "the whole": (object(), ["the whole: not an array but <object"]),
    "random keys": (
        state_with_keys,
        [
            "1 problem",
            "dropout/rngs/key: not an array of numbers but of key<fry>",
            "nnx.state(model, nnx.Param)",
        ],
    ),
    "characters": ({"x": np.array(["a"])}, ["x: not an array of numbers but of <U1"]),
    "float0": (
        {"x": np.zeros(2, jax.dtypes.float0)},
        ["x: not an array of numbers but of [('float0'"],
    ),
    "another library's": (
        {"x": collections.namedtuple("T", "shape dtype")},
        ["x: not an array"],
    ),
    "sizes": (
        {"half": leaf(2.5, 3), "negative": leaf(-3, 4), "text": leaf("ab")},
        [
            "3 problems",
            "half: shape must be a sequence of ints, such as (3, 4), got (2.5, 3)",
            "negative: shape must have no negative size, got (-3, 4)",
            "text: shape must be a sequence of ints",
        ],
    ),
}


@pytest.mark.parametrize("name", LEAVES)
def test_leaves_that_cannot_be_drawn(name):
    tree, parts = LEAVES[name]
    tree = tree() if callable(tree) else tree
    assert missing_parts(lambda: plan(tree, ZEROS), PlanError, parts) == []


RULES = {
    "None": (None, ["rules must be a mapping", "got None"]),
    "number": (3, ["rules must be a mapping", "got 3"]),
    "text": ("**/kernel", ["rules must be a mapping", "got '**/kernel'"]),
    "globs alone": (["**/kernel"], ["rules must be", "got ['**/kernel']"]),
    "initializer": (
        jaxinit.he_normal(),
        ["got he_normal()", "for every leaf write {'**': he_normal()}"],
    ),
    "scheme": (schemes.flax, ["got <function flax", "write flax()"]),
    "a plan": (PLAN, ["rules must be", "got <Plan of 2 leaves"]),
    "class": (
        {"**": jaxinit.orthogonal},
        ["rule for '**' is <class", "makes initializers", "write orthogonal()"],
    ),
    "function": ({"**": jaxinit.he_normal}, ["makes initializers", "he_normal()"]),
    "of no arguments": ({"**": jaxinit.zeros_init}, ["write zeros_init()"]),
    "of jax": ({"**": jax.nn.initializers.he_normal}, ["write he_normal()"]),
    "name": ({"**": "he_normal"}, ["must be an initializer", "got 'he_normal'"]),
}


@pytest.mark.parametrize("name", RULES)
def test_what_is_no_rules(name):
    rules, parts = RULES[name]
    assert missing_parts(lambda: plan(S, rules), TypeError, parts) == []
    assert missing_parts(lambda: Rules(rules), TypeError, parts) == []


def test_functions_of_a_leaf_may_have_defaults():
    made = plan(S, {"**": lambda x, scale=2.0: jaxinit.normal(scale / len(x.shape))})
    assert [x.std for x in made] == [2.0, 1.0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"allow_unused": "**/bias"}, r"allow_unused must be .* got '\*\*/bias'"),
        ({"allow_unused": None}, "allow_unused must be a sequence of patterns"),
        ({"shardings": jaxinit.zeros}, "its sharding must be a jax.sharding.Sharding"),
    ],
)
def test_other_arguments(arguments, message):
    with pytest.raises((TypeError, PlanError), match=message):
        plan(S, ZEROS, **arguments)
    with pytest.raises(TypeError, match=r"required must be a sequence.* got 'a'"):
        Rules({"a": jaxinit.zeros}, required="a")


def overflowing(name):
    made = {
        "NaN": (jaxinit.constant(np.nan), "float32"),
        "infinite": (jaxinit.constant(-np.inf), "float32"),
        "one entry": (jaxinit.constant([0.0, np.inf]), "float32"),
        "deviation": (jaxinit.normal(1e30), "float16"),
        "mean": (jaxinit.normal(1.0, mean=1e6), "float16"),
        "integer": (jaxinit.constant(300.0), "int8"),
        "one integer": (jaxinit.constant([100.0, 300.0]), "uint8"),
    }
    return made[name]


@pytest.mark.parametrize(
    "name",
    ["NaN", "infinite", "one entry", "deviation", "mean", "integer", "one integer"],
)
def test_draws_that_are_not_finite(name):
    init, dtype = overflowing(name)
    shapes = {"a": {"x": leaf(2, dtype=dtype)}, "b": leaf(2)}
    rules = {"a/**": init, "b": jaxinit.ones}
    parts = ["the plan has 1 problem", "a/x: ", repr(init)]
    assert missing_parts(lambda: plan(shapes, rules), PlanError, parts) == []


def test_draws_that_are_finite():
    shapes = [leaf(2, dtype=d) for d in ("float16", "bfloat16", "complex64")]
    assert [x.std for x in plan(shapes, {"**": jaxinit.normal(6e4)})] == [6e4] * 3
    assert len(plan(leaf(0, dtype="float16"), {"**": jaxinit.normal(1e30)})) == 1


INITIALIZERS = {
    "a factory": (
        lambda key, shape, dtype: jax.nn.initializers.he_normal(),
        "it returns a function, so it is to be called before",
    ),
    "boxes": (
        nn.with_partitioning(jax.nn.initializers.ones, ("x", None)),
        "instead of an array",
    ),
    "several": (lambda key, shape, dtype: [jnp.ones(shape)], "instead of an array"),
}


@pytest.mark.parametrize("name", INITIALIZERS)
def test_initializers_that_make_no_array(name):
    init, part = INITIALIZERS[name]
    call = {"a/kernel": init, "**": jaxinit.zeros}
    assert missing_parts(lambda: plan(S, call), PlanError, ["a/kernel: ", part]) == []


def bad_predicate(x):
    return x.siblings["kernel"].shape == (2,)


def test_unused_rules_say_why():
    rules = {
        "**": jaxinit.zeros,
        "**/bias": jaxinit.ones,
        "kernel": jaxinit.ones,
        ".*kernel": jaxinit.ones,
        re.compile("kernel"): jaxinit.ones,
        "gone": jaxinit.ones,
    }
    with pytest.raises(PlanError) as error:
        plan(S, rules)
    assert str(error.value).splitlines() == [
        "the plan has 5 problems:",
        "  rule '**/bias': matches no leaf that '**', which stands before it, leaves "
        "over",
        "  rule 'kernel': matches no leaf; '**/kernel' matches 1, such as 'a/kernel'",
        "  rule '.*kernel': matches no leaf; text is a glob, such as '**/kernel', and "
        "a regular expression is re.compile('.*kernel')",
        "  rule re.compile('kernel'): matches no leaf; it must match in full, and is "
        "only found within 'a/kernel'",
        "  rule 'gone': matches no leaf",
    ]
    with pytest.raises(ValueError, match=r"where='bias' .*'\*\*/bias' matches 1"):
        reinit(KEY, FULL, PLAN, where="bias")


def test_a_predicate_that_raises():
    shapes = {**S, "b": {"w": leaf(3)}, "c": leaf(3)}
    with pytest.raises(PlanError) as error:
        plan(shapes, {bad_predicate: jaxinit.ones, "a/**": jaxinit.zeros})
    lines = str(error.value).splitlines()[1:]
    assert lines[:2] == ["  b/w: KeyError: 'kernel'", "  c: KeyError: 'kernel'"]
    assert len(lines) == 3
    assert "matches no leaf" in lines[2]
    rules = {"**": jaxinit.zeros, bad_predicate: jaxinit.ones}  # which is never asked
    with pytest.raises(PlanError, match="matches no leaf"):
        plan(shapes, rules)


class WithStatistics(nn.Module):
    @nn.compact
    def __call__(self, x):
        for _ in range(3):
            x = nn.BatchNorm(use_running_average=True)(nn.Dense(2)(x))
        return x


def test_collections_are_one_problem():
    variables = jax.eval_shape(WithStatistics().init, KEY, jnp.ones((1, 2)))
    rules = schemes.flax()
    with pytest.raises(PlanError) as error:
        plan(variables, {"params/**/kernel": jaxinit.ones, "**/scale": jaxinit.ones})
    assert str(error.value).splitlines()[1:] == [
        *(f"  params/BatchNorm_{i}/bias: no rule matches it" for i in range(3)),
        *(f"  params/Dense_{i}/bias: no rule matches it" for i in range(3)),
        "  batch_stats/BatchNorm_{0..2}/mean, batch_stats/BatchNorm_{0..2}/var: no "
        "rule matches them; plan variables['params'] alone and take "
        "variables['batch_stats'] from model.init, or add rules for them",
    ]
    assert len(plan(variables["params"], rules)) == 12


KEYS = {
    "None": (None, TypeError, ["key must be a typed key", "None"]),
    "seed": (0, TypeError, ["key must be a typed key", "jax.random.key(", "0"]),
    "several": (jax.random.split(KEY, 3), ValueError, ["single key", "(3,)"]),
    "not raw": (np.zeros(3, np.uint32), TypeError, ["key must be", "shape (3,)"]),
}
DRAWING = {
    "init": PLAN.init,
    "programs": PLAN.programs,
    "complete": lambda key: PLAN.complete(key, {}),
    "init_tree": lambda key: init_tree(key, S, ZEROS),
    "init_missing": lambda key: init_missing(key, FULL, PLAN),
    "reinit": lambda key: reinit(key, FULL, PLAN, "**/bias"),
}


@pytest.mark.parametrize("name", KEYS)
@pytest.mark.parametrize("drawing", DRAWING)
def test_what_is_no_key(name, drawing):
    key, error, parts = KEYS[name]
    assert missing_parts(lambda: DRAWING[drawing](key), error, parts) == []


@pytest.mark.parametrize("value", [None, ZEROS, Rules(ZEROS), S], ids=type)
def test_what_is_no_plan(value):
    parts = ["plan must be a jaxinit.Plan", "jaxinit.plan(shapes, rules)"]
    for call in (
        lambda: init_missing(KEY, FULL, value),
        lambda: reinit(KEY, FULL, value, "**"),
    ):
        assert missing_parts(call, TypeError, parts) == []
    assert checked_plan("plan", PLAN) is PLAN


def test_leaves_that_do_not_fit():
    tree: dict[str, Any] = {
        "a": {
            "kernel": np.ones((2, 2), np.float64),
            "bias": [1.0, jnp.ones(2, jnp.int32)],
        }
    }
    planned = {"a": {"kernel": leaf(2, 2), "bias": [leaf(), leaf(2)]}, "b": leaf(2)}
    made = plan(planned, ZEROS)
    parts = [
        "the tree has 3 problems",
        "a/kernel: is float64[2, 2], planned is float32[2, 2]",
        "a/bias/0: not an array but 1.0",
        "a/bias/1: is int32[2], planned is float32[2]",
    ]
    assert missing_parts(lambda: init_missing(KEY, tree, made), PlanError, parts) == []
    tree["b"] = jnp.zeros(2)
    assert missing_parts(lambda: reinit(KEY, tree, made, "b"), PlanError, parts) == []
    shapes = missing_parts(
        lambda: init_missing(KEY, S, PLAN),
        PlanError,
        ["a/kernel: not an array but ShapeDtypeStruct", "a/bias: not an array"],
    )
    assert shapes == []


def test_a_spec_with_more_axes_than_its_leaf():
    mesh = jax.make_mesh((2,), ("x",))
    places = NamedSharding(mesh, P(None, "x"))
    call = lambda: plan(S, ZEROS, shardings=places)  # noqa: E731
    parts = ["1 problem", "a/bias: ", "'x') has more axes than its shape (2,)"]
    assert missing_parts(call, PlanError, parts) == []
    assert len(plan(S["a"]["kernel"], ZEROS, shardings=places)) == 1
