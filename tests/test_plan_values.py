"""Plans and rules are values: they pickle, copy and compare; names with slashes."""

import copy
import pickle
import re
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

import jaxinit
from jaxinit import Rules, plan, to_config

KEY = jax.random.key(0)


def leaf(*shape, dtype="float32"):
    return jax.ShapeDtypeStruct(shape, dtype)


def is_matrix(x):
    return len(x.shape) == 2


def by_size(x):
    return jaxinit.normal(len(x.path))


class Pair(NamedTuple):
    kernel: object
    bias: object


class Layer(eqx.Module):
    kernel: object
    width: int = eqx.field(static=True)


SHAPES = {
    "tuple": Pair(leaf(2, 2), (leaf(2), None)),
    "module": Layer(leaf(3, 2), 3),
    "state": nnx.state(nnx.eval_shape(lambda: nnx.Linear(2, 3, rngs=nnx.Rngs(0)))),
}
RULES = {
    "**/kernel": jaxinit.he_normal(),
    re.compile(".*/bias"): jaxinit.zeros,
    is_matrix: jaxinit.orthogonal(),
    "**": by_size,
}
COPIES = {
    "pickle": lambda x: pickle.loads(pickle.dumps(x)),
    "deepcopy": copy.deepcopy,
    "copy": copy.copy,
}


def planned(**changes):
    return plan({**SHAPES, **changes}, RULES, allow_unused=list(RULES))


@pytest.mark.parametrize("name", COPIES)
def test_copies_of_plans(name):
    made = planned()
    again = COPIES[name](made)
    assert again == made
    assert hash(again) == hash(made)
    assert str(again) == str(made)
    values, expected = again.init(KEY), made.init(KEY)
    assert jax.tree.structure(values) == jax.tree.structure(expected)
    jax.tree.map(np.testing.assert_array_equal, values, expected)
    assert COPIES[name](made) == made, "after drawing, which compiles"


def test_plans_compare_by_all_they_say():
    made = planned()
    assert made == planned()
    others = (
        planned(tuple=Pair(leaf(2, 3), (leaf(2), None))),
        planned(tuple=Pair(leaf(2, 2), [leaf(2), None])),
        planned(module=Layer(leaf(3, 2), 4)),
        planned(more=leaf(2)),
        plan(SHAPES, {"**": jaxinit.ones}),
        list(made),
    )
    assert [made == other for other in others] == [False] * len(others)
    assert len({made, planned(), *others[:-1]}) == 6


def test_plans_with_devices_copy_but_do_not_pickle():
    place = NamedSharding(jax.make_mesh((2,), ("x",)), P())
    made = plan(SHAPES, {"**": jaxinit.ones}, shardings=place)
    assert copy.deepcopy(made) == made
    with pytest.raises(TypeError, match="Pickle shapes and rules, and plan again"):
        pickle.dumps(made)


def rules_of_every_kind():
    named = Rules(RULES, required=["**/kernel"], name="mine")
    return {
        "plain": Rules(RULES),
        "named": named,
        "joined": named | {"head": jaxinit.ones},
        "again": Rules(named),
        "keyed": Rules({"a": jaxinit.keyed(jaxinit.ones, "b")}),
        "empty": Rules({}),
    }


@pytest.mark.parametrize("name", COPIES)
@pytest.mark.parametrize("kind", rules_of_every_kind())
def test_copies_of_rules(name, kind):
    rules = rules_of_every_kind()[kind]
    again = COPIES[name](rules)
    assert again == rules == rules_of_every_kind()[kind]
    assert hash(again) == hash(rules)
    for attribute in ("name", "required", "call"):
        assert getattr(again, attribute) == getattr(rules, attribute)
    assert list(again.items()) == list(rules.items())
    assert len(again.parts) == len(rules.parts)
    assert (again.parts[0] is again) == (rules.parts[0] is rules)


def test_configurations_of_copies():
    rules = Rules({"a": jaxinit.ones}) | Rules({"**": jaxinit.he_normal()})
    for kind in COPIES.values():
        assert to_config(kind(rules)) == to_config(rules)


def test_rules_compare_by_all_they_say():
    rules = Rules({"a": jaxinit.ones, "b": jaxinit.zeros})
    others = (
        Rules({"b": jaxinit.zeros, "a": jaxinit.ones}),
        Rules({"a": jaxinit.ones, "b": jaxinit.ones}),
        Rules({"a": jaxinit.ones, "b": jaxinit.zeros}, required=["a"]),
        jaxinit.ShardingRules({"a": None, "b": None}),
        {"a": jaxinit.ones, "b": jaxinit.zeros},
    )
    assert [rules == other for other in others] == [False] * len(others)
    assert jaxinit.ShardingRules({"a": P()}) == jaxinit.ShardingRules({"a": P()})


def test_a_key_of_a_path_whose_names_have_slashes():
    """As Haiku's: the text of a leaf's path means that leaf."""
    shapes = {"net/~/linear_0": {"w": leaf(3)}, "net/~/linear_1": {"w": leaf(3)}}
    draw = jaxinit.normal()
    same = jaxinit.keyed(draw, "net/~/linear_0/w")
    params = plan(shapes, {"*/*/linear_0/w": draw, "**": same}).init(KEY)
    first, second = (layer["w"] for layer in params.values())
    np.testing.assert_array_equal(first, second)
    other = plan(shapes, {"**": jaxinit.keyed(draw, "free/w")})
    nested = plan({"free": {"w": leaf(3)}}, {"**": draw})
    assert {x.words for x in other} == {x.words for x in nested}


def test_names_of_all_kinds():
    shapes = {
        "a b": [leaf(2)],
        "größe[0]": {"*": leaf(2), "?": leaf(2)},
        "empty": {"": leaf(2)},
        "line\nbreak": leaf(2),
        "long": {"x" * 10_000: leaf(2)},
    }
    rules = {
        "größe[[]0]/[*]": jaxinit.ones,
        "größe[[]0]/[?]": jaxinit.normal(),
        "empty/*": jaxinit.ones,
        "**": jaxinit.zeros,
    }
    made = plan(shapes, rules)
    assert [x.path for x in made if x.initializer == jaxinit.ones] == [
        "empty/",
        "größe[0]/*",
    ]
    assert jax.tree.structure(made.init(KEY)) == jax.tree.structure(shapes)
    array = jnp.ones(2)
    twice = jaxinit.init_missing(KEY, {"a": array, "b": array}, plan_of_three())
    assert twice["a"] is twice["b"] is array


def plan_of_three():
    return plan({"a": leaf(2), "b": leaf(2), "c": leaf(2)}, {"**": jaxinit.zeros})
