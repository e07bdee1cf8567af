"""What is written outside the package needs nothing that begins with an underscore."""

import ast
import dataclasses
import math
import pickle
import re
from pathlib import Path

import chex
import extension
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from written import PAGES, ROOT, blocks

import jaxinit
import jaxinit.initializers
from jaxinit import laws, report, stats
from jaxinit.initializers.settings import Positive
from jaxinit.testing import assert_moments

pytestmark = pytest.mark.unoptimized

OWN = {
    "initializer": extension.logistic(0.5),
    "table": extension.ramp(3.0),
    "function of a uniform number": extension.power(3.0),
}
KEY = jax.random.key(1729)
SHAPE = (64, 128)


def private_imports(source: str) -> list[str]:
    """Names that begin with an underscore and are imported from `jaxinit`."""
    names = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return [x for x in names if x.startswith("jaxinit") and "._" in x]


def test_nothing_private_is_imported():
    outside = [Path(extension.__file__).read_text()]
    for text in (*PAGES.values(), (ROOT / "README.md").read_text()):
        outside += blocks("python", text)
    outside += [path.read_text() for path in (ROOT / "examples").glob("*.py")]
    assert [name for source in outside for name in private_imports(source)] == []
    assert private_imports("from jaxinit._tree import leaf\nimport jaxinit._rows") == [
        "jaxinit._tree.leaf",
        "jaxinit._rows",
    ]


def test_nothing_private_is_called():
    hidden = re.findall(r"\w\._[a-z]\w*", Path(extension.__file__).read_text())
    assert set(hidden) == {"f._spread"}  # its own


@pytest.mark.sample(1)
@pytest.mark.parametrize("name", OWN)
def test_an_initializer_is_one_of_ours(name):
    init = OWN[name]
    assert init == pickle.loads(pickle.dumps(init))
    assert eval(repr(init), vars(extension)) == init
    drawn = init(KEY, SHAPE)
    chex.assert_trees_all_equal(drawn, jax.jit(init, static_argnums=1)(KEY, SHAPE))
    assert init(KEY, SHAPE, jnp.bfloat16).dtype == jnp.bfloat16
    assert init(KEY, (0, 3)).shape == (0, 3)


@pytest.mark.sample(1)
@pytest.mark.parametrize("name", OWN)
def test_an_initializer_is_drawn_by_a_plan(name):
    shapes = {"a": jax.ShapeDtypeStruct(SHAPE, jnp.float32)}
    made = jaxinit.plan(shapes, {"**": OWN[name]})
    (leaf,) = made
    drawn = made.init(KEY)
    chex.assert_trees_all_equal(drawn["a"], OWN[name](leaf.key(KEY), SHAPE))
    assert_moments(drawn, made)
    with pytest.raises(AssertionError):
        assert_moments({"a": 1.3 * drawn["a"]}, made)
    assert repr(OWN[name]) in str(made)
    assert jaxinit.explain(OWN[name], SHAPE).startswith(repr(OWN[name]))


def test_a_law_is_one_of_ours():
    law = extension.Logistic(0.25)
    assert law == pickle.loads(pickle.dumps(law))
    points = np.linspace(-9, 9, 200_001)
    density = np.gradient(law.cdf(points), points)
    for power in (2, 4):
        moment = np.trapezoid(points**power * density, points)
        moments = law.moments()
        expected = {2: moments.variance, 4: moments.kurtosis * moments.variance**2}
        assert math.isclose(moment, expected[power], rel_tol=1e-5)
    scaled = laws.Scaled(law, 2.0)
    assert scaled.moments().std == 2 * law.moments().std


def test_laws_are_found_by_the_statistics():
    init = OWN["initializer"]
    x = init(KEY, SHAPE)
    assert stats.fit(x, init).p > 1e-6 > stats.fit(x, jaxinit.normal(0.2)).p


BLOCKS = {
    "embed": {"embedding": (50, 8)},
    "block_0": {"mlp": {"fc1": {"kernel": (8, 16)}, "fc2": {"kernel": (16, 8)}}},
    "block_1": {"mlp": {"fc1": {"kernel": (8, 16)}, "fc2": {"kernel": (16, 8)}}},
    "norm": {"scale": (8,), "bias": (8,)},
}


def shapes(tree):
    return jax.tree.map(
        lambda shape: jax.ShapeDtypeStruct(shape, jnp.float32),
        tree,
        is_leaf=lambda x: isinstance(x, tuple),
    )


def test_a_scheme_is_one_of_ours():
    rules = extension.logistic_transformer(layers=2)
    assert repr(rules) == "logistic_transformer(layers=2)"
    assert rules.name == "scheme logistic_transformer"
    plan = jaxinit.plan(shapes(BLOCKS), rules)
    stds = {leaf.path: leaf.std for leaf in plan}
    for index in range(2):
        end = stds[f"block_{index}/mlp/fc2/kernel"]
        full = extension.logistic().moments((16, 8)).std
        assert math.isclose(end, full / math.sqrt(2 * (index + 1)))
    assert_moments(plan.init(KEY), plan)
    without = {"embed": BLOCKS["embed"], "norm": BLOCKS["norm"]}
    with pytest.raises(jaxinit.PlanError, match="feed-forward output"):
        jaxinit.plan(shapes(without), rules)


def test_a_scheme_from_elsewhere_is_no_configuration():
    with pytest.raises(TypeError, match="scheme that is not of this package"):
        jaxinit.to_config(extension.logistic_transformer(layers=2))


def test_rules_look_at_the_leaf():
    tree = shapes({"a": (2, 3), "b": (4,)})
    plan = jaxinit.plan(tree, {"a": extension.ramp_like, "b": extension.doubled})
    assert repr(next(iter(plan)).initializer) == "ramp(top=2.0)"


def test_fields_do_not_hide_members():
    with pytest.raises(TypeError, match="field named moments, which is a member"):

        @dataclasses.dataclass(frozen=True, repr=False)
        class hides(jaxinit.Initializer):  # noqa: N801
            moments: Positive = 1.0


@dataclasses.dataclass(frozen=True, repr=False)
class lawless(jaxinit.Initializer):  # noqa: N801
    """One that draws and states no law."""

    scale: Positive = 1.0

    def sample(self, key, shape, dtype):
        return self.scale * jax.random.normal(key, shape, dtype)


def test_an_initializer_without_a_law_draws_and_is_shown():
    plan = jaxinit.plan(shapes({"a": (2, 3)}), {"**": lawless(2.0)})
    params = plan.init(KEY)
    assert params["a"].shape == (2, 3)
    (line,) = [line for line in str(plan).splitlines() if line.startswith("a")]
    assert line.endswith("-")
    assert "lawless(scale=2.0)" in str(report.report(params, plan))
    assert "not stated" in jaxinit.explain(lawless(), (2, 3))
    with pytest.raises(TypeError, match="does not know its moments"):
        assert_moments(params, plan)


class undecorated(lawless):  # noqa: N801
    other: Positive = 1.0


@dataclasses.dataclass(frozen=True, repr=False)
class of_wrong_shape(lawless):  # noqa: N801
    def sample(self, key, shape, dtype):
        return jnp.ones((3,), dtype)


@dataclasses.dataclass(frozen=True, repr=False)
class of_wrong_law(lawless):  # noqa: N801
    def entry_law(self, shape, dtype):
        return 3


@dataclasses.dataclass(frozen=True, repr=False)
class with_a_list(lawless):  # noqa: N801
    values: tuple = ()


@dataclasses.dataclass(frozen=True, repr=False)
class without_a_draw(jaxinit.Initializer):  # noqa: N801
    scale: Positive = 1.0


WRONG = {
    "no law": (lambda: lawless().moments((2,)), "states no law"),
    "no draw": (lambda: without_a_draw()(KEY, (2,)), "must override sample"),
    "no dataclass": (undecorated, "put @dataclass.* above it"),
    "wrong shape": (
        lambda: of_wrong_shape()(KEY, (2, 2)),
        r"must return shape \(2, 2\) and dtype float32, got shape \(3,\)",
    ),
    "wrong law": (lambda: of_wrong_law()(KEY, (2,)), "must return a jaxinit.laws.Law"),
    "a list": (lambda: with_a_list(values=[1]), "must be hashable .* use tuples"),
    "a law of no moments": (lambda: laws.Law().moments(), "Law states no moments"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_said(name):
    call, message = WRONG[name]
    with pytest.raises((TypeError, NotImplementedError), match=message):
        call()


def test_every_initializer_is_in_its_room():
    makers = {
        name
        for name, value in vars(jaxinit).items()
        if getattr(value, "_makes_initializers", False)
    }
    assert makers - set(vars(jaxinit.initializers)) == set()
    assert {"he_normal", "Initializer", "stacked"} <= makers
