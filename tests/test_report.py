"""Reports: what folds, what was expected of it, and how it is shown."""

import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

import jaxinit
from jaxinit.report import Report, Row, report
from jaxinit.report import _count as count

pytestmark = pytest.mark.unoptimized

ZEROS = np.zeros(3, np.float32)
ONES = np.ones(3, np.float32)
WIDE = np.zeros(5, np.float32)


def nested(**leaves):
    """A tree from paths in which "_" stands between segments."""
    tree: dict = {}
    for path, leaf in leaves.items():
        *above, last = path.split("__")
        inner = tree
        for segment in above:
            inner = inner.setdefault(segment, {})
        inner[last] = jnp.asarray(leaf)
    return tree


FOLDS = {
    "a run": (
        nested(b_0__w=ZEROS, b_1__w=ZEROS, b_2__w=ZEROS),
        [("b_{0..2}/w", 3)],
    ),
    "past ten": (
        {f"b_{i}": jnp.zeros(3) for i in range(12)},
        [("b_{0..11}", 12)],
    ),
    "a gap": (
        nested(b_0=ZEROS, b_1=ZEROS, b_3=ZEROS),
        [("b_{0..1}", 2), ("b_3", 1)],
    ),
    "shapes differ": (
        nested(b_0=ZEROS, b_1=WIDE, b_2=ZEROS),
        [("b_0", 1), ("b_1", 1), ("b_2", 1)],
    ),
    "dtypes differ": (
        nested(b_0=ZEROS, b_1=np.zeros(3, np.float16)),
        [("b_0", 1), ("b_1", 1)],
    ),
    "constants differ": (
        nested(n_1=ONES, n_2=ZEROS, n_3=ZEROS),
        [("n_1", 1), ("n_{2..3}", 2)],
    ),
    "a box": (
        {f"s{i}": {f"b{j}": jnp.zeros(3) for j in range(2)} for i in range(3)},
        [("s{0..2}/b{0..1}", 6)],
    ),
    "two boxes": (
        nested(s0_b0=ZEROS, s0_b1=ZEROS, s1_b0=ZEROS, s1_b1=ZEROS, s1_b2=ZEROS),
        [("s{0..1}_b{0..1}", 4), ("s1_b2", 1)],
    ),
    "lists": ([{"w": jnp.zeros(3)}, {"w": jnp.zeros(3)}], [("{0..1}/w", 2)]),
    "leading zeros": (nested(b_00=ZEROS, b_01=ZEROS), [("b_00", 1), ("b_01", 1)]),
    "other names": (nested(a_0=ZEROS, b_1=ZEROS), [("a_0", 1), ("b_1", 1)]),
    "empty": ({}, []),
}


@pytest.mark.parametrize("name", FOLDS)
def test_folds(name):
    tree, expected = FOLDS[name]
    assert [(row.path, row.leaves) for row in report(tree).rows] == expected


def draws(shape):
    return np.random.default_rng(1729).normal(3, 1, shape).astype(np.float32)


def test_folded_statistics_are_those_of_all_leaves():
    leaves = list(jnp.asarray(draws((4, 20, 30)) + np.arange(4.0).reshape(4, 1, 1)))
    (row,) = report(leaves).rows
    wide = np.asarray(leaves, np.float64)
    assert row.mean == pytest.approx(wide.mean(), rel=1e-6)
    assert row.std == pytest.approx(wide.std(), rel=1e-6)
    assert row.scale == pytest.approx(wide.var() * 20, rel=1e-6)


def test_keys_integers_and_empty_leaves_have_no_statistics(key):
    tree = {"empty": jnp.zeros((0, 4)), "key": key, "step": jnp.arange(4)}
    empty, random_key, step = report(tree).rows
    assert {row.mean for row in (empty, random_key, step)} == {None}
    assert {row.scale for row in (empty, random_key, step)} == {None}
    assert (empty.size, empty.bytes) == (0, 0)
    assert (random_key.parameters, random_key.bytes) == (0, 8)
    assert (step.parameters, step.bytes) == (4, 16)


def test_only_params_are_parameters():
    tree = {"params": {"w": jnp.ones((2, 3))}, "batch_stats": {"mean": jnp.ones(5)}}
    counts = {row.collection: row.parameters for row in report(tree).rows}
    assert counts == {"params": 6, "batch_stats": 0}
    (row,) = report({"w": jnp.ones((2, 3))}).rows
    assert (row.collection, row.parameters) == ("", 6)


def test_implied_scale_of_a_convolution():
    (row,) = report({"w": jnp.asarray(draws((3, 3, 16, 64)))}).rows
    assert row.scale == pytest.approx(row.std**2 * 3 * 3 * 16)
    assert report({"b": jnp.arange(4.0)}).rows[0].scale is None


# Given a plan


SHAPES = {
    f"block_{i}": {
        "kernel": jax.ShapeDtypeStruct((64, 64), "bfloat16"),
        "rotation": jax.ShapeDtypeStruct((32, 32), "float32"),
        "bias": jax.ShapeDtypeStruct((64,), "float32"),
    }
    for i in range(3)
}
RULES = {
    "**/kernel": jaxinit.he_normal(),
    "**/rotation": jaxinit.orthogonal(),
    "**/bias": jaxinit.zeros,
}


@pytest.fixture
def planned(key):
    made = jaxinit.plan(SHAPES, RULES)
    return made, made.init(key)


def by_path(rows):
    return {row.path: row for row in rows}


def test_what_was_expected(planned):
    made, params = planned
    found = by_path(report(params, made).rows)
    assert list(found) == [
        f"block_{{0..2}}/{n}" for n in ("bias", "kernel", "rotation")
    ]
    bias, kernel, rotation = found.values()
    assert [row.law for row in found.values()] == [
        "zeros",
        "he_normal()",
        "orthogonal()",
    ]
    assert kernel.expected_std == pytest.approx((2 / 64) ** 0.5, rel=1e-5)
    assert kernel.expected_mean == 0
    assert kernel.score < 6.5
    assert (bias.score, bias.p, bias.zeros) == (0, 1, 1)
    assert (rotation.score, rotation.p) == (0, 1)
    assert rotation.expected_std == pytest.approx(32**-0.5)
    assert not any(row.is_wrong for row in found.values())


WRONG = {
    "std": ("block_1", "kernel", lambda x: 1.3 * x),
    "mean": ("block_0", "kernel", lambda x: x + 0.05),
    "constant": ("block_2", "bias", lambda x: x + 1),
    "orthogonal": ("block_1", "rotation", lambda x: 1.01 * x),
    "NaN": ("block_1", "kernel", lambda x: x.at[3].set(jnp.nan)),
}


@pytest.mark.parametrize("name", WRONG)
def test_the_worst_leaf_comes_first(name, planned):
    made, params = planned
    block, leaf, change = WRONG[name]
    params[block][leaf] = change(params[block][leaf]).astype(params[block][leaf].dtype)
    shown = report(params, made)
    worst = shown.worst_first().rows[0]
    assert worst.path.endswith(leaf)
    assert [row for row in shown.rows if row.is_wrong] == [worst]


def test_a_plan_of_some_leaves(planned):
    _, params = planned
    only = {"block_0": {"kernel": SHAPES["block_0"]["kernel"]}}
    made = jaxinit.plan(only, {"**": jaxinit.he_normal()})
    found = by_path(report(params, made).rows)
    assert found["block_0/kernel"].score < 6.5
    assert found["block_{1..2}/kernel"].law is None
    del params["block_0"]["kernel"]
    with pytest.raises(jaxinit.PlanError, match="block_0/kernel: missing"):
        report(params, made)


def test_initializers_of_others_expect_nothing(key):
    tree = {"w": jnp.ones((3, 3))}
    made = jaxinit.plan(tree, {"w": jax.nn.initializers.normal()})
    (row,) = report(tree, made).rows
    assert "init" in row.law
    assert (row.expected_std, row.score) == (None, None)


def test_small_leaves(planned):
    tree = {"one": jnp.ones(()), "none": jnp.ones((0,)), "two": jnp.ones(2)}
    made = jaxinit.plan(tree, {"**": jaxinit.normal(1.0)})
    one, two = (by_path(report(tree, made).rows)[name] for name in ("one", "two"))
    assert one.score == pytest.approx(1)
    assert two.score == pytest.approx(2**0.5)


@pytest.mark.sample(1)
@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float8_e4m3fn"])
def test_distinct_values(dtype):
    x = jnp.asarray([[0.0, -0.0, 1.0], [2.0, 2.0, jnp.nan]], jnp.dtype(dtype))
    (row,) = report([x, 0.5 * x]).rows[:1]
    assert row.distinct == len({0.0, 1.0, 2.0, 0.5, "nan"})
    assert report(x.astype(jnp.float32)).rows[0].distinct is None


def test_spectral_norms():
    x = np.diag([1.0, -3.0, 2.0]).astype(np.float32)
    found = {
        name: row.spectral_norm
        for name, row in by_path(
            report(
                {
                    "real": x,
                    "complex": np.complex64(1j) * x,
                    "large": np.ones((257, 256), np.float32),
                    "no matrix": np.ones((2, 3, 3), np.float32),
                    "not finite": np.full((2, 2), np.nan, np.float32),
                }
            ).rows
        ).items()
    }
    nothing = dict.fromkeys(["large", "no matrix", "not finite"])
    assert found == {"real": pytest.approx(3), "complex": pytest.approx(3), **nothing}


def test_python_numbers():
    step, rate = report({"step": 3, "the_rate": 0.5}).rows
    assert (step.dtype, step.mean, rate.mean) == ("int32", None, 0.5)


def test_arrays_of_numpy():
    (row,) = report({"w": np.full((4, 4), 2.0, np.float16)}).rows
    assert (row.mean, row.std, row.distinct, row.spectral_norm) == (2, 0, 1, 8)


# As text and HTML


def as_text(rows: list[Row], width: int) -> list[str]:
    console = Console(file=io.StringIO(), width=width)
    console.print(Report(tuple(rows)))
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def row_of(path, shape, dtype="float32", leaves=1, **values):
    return Row(path, "", shape, dtype, leaves, 42, **values)


def test_table():
    w = row_of("b_{0..11}/w", (768, 2304), "bfloat16", 12, mean=-1.38e-6, std=0.02)
    bias = row_of("b_{0..11}/b", (2304,), leaves=12, mean=0.0, std=0.0, zeros=1.0)
    key = row_of("key", (), "key<fry>")
    assert as_text([w, bias, key], 80) == [
        "leaf               shape    dtype  size    mean    std scale zeros",
        "b_{0..11}/w x12 768x2304     bf16 21.2M -1.4e-6 0.0200 0.307     -",
        "b_{0..11}/b x12     2304      f32 27.6k       0      0     - 100 %",
        "key                   () key<fry>     1       -      -     -     -",
    ]


FULL = {
    "law": "he_normal()",
    "expected_mean": 0.0,
    "expected_std": 0.00408,
    "mean": -1.35e-6,
    "std": 0.00408,
    "score": 1.23,
    "p": 0.4,
    "low": -0.01,
    "high": 0.01,
    "zeros": 0.001,
    "distinct": 1234,
}


def test_rows_of_gpt2_fit_into_80_columns():
    path = "blocks_{0..11}/attn/proj/kernel"
    row = row_of(path, (768, 3072), "bfloat16", 12, **FULL)
    lines = as_text([row], 80)
    assert all(len(line) <= 80 for line in lines)
    assert path in lines[2]
    assert lines[2].split()[-3:] == ["4.08e-3", "4.08e-3", "1.2"]
    assert lines[3].startswith("too narrow to show ")
    wide = as_text([row], 200)
    assert "he_normal()" in wide[2]
    assert not any("too narrow" in line for line in wide)


def test_text_and_html(planned):
    made, params = planned
    shown = report(params, made)
    assert str(shown) == repr(shown)
    assert all(len(line) <= 200 for line in str(shown).splitlines())
    html = shown._repr_html_()
    assert html.startswith("<table style=")
    assert "<caption" in html
    assert "9 leaves, 15,552 parameters" in html
    assert html.count("<tr>") == 4
    for text in ("block_{0..2}/kernel", "he_normal()", "expected std", "norm"):
        assert f">{text}<" in html


def test_html_is_escaped():
    html = Report((row_of("a<b>", (4,), law="f<T>"),))._repr_html_()
    assert "a&lt;b&gt;" in html
    assert "f&lt;T&gt;" in html


def test_leaves_have_the_paths_that_the_plan_has(key):
    shapes = {"batch_stats": {"mean": ZEROS}, "params": {"kernel": ONES}}
    made = jaxinit.plan(shapes, {"**": jaxinit.ones})
    shown = report(made.init(key), made)
    paths = ["batch_stats/mean", "params/kernel"]
    assert [line.split()[0] for line in as_text(list(shown.rows), 200)[-2:]] == paths
    assert [line.split()[0] for line in str(made).splitlines()[1:3]] == paths
    for html in (shown._repr_html_(), made._repr_html_()):
        assert [path for path in paths if f">{path}<" not in html] == []


def test_rows_beyond_the_threshold_are_marked_by_more_than_colour():
    right = row_of("a", (4,), mean=0.0, std=1.0, score=1.0, p=0.4)
    wrong = row_of("b", (4,), mean=0.0, std=9.0, score=40.0, p=1e-300)
    edge = row_of("c", (4,), mean=0.0, std=2.0, score=6.0, p=2e-9)
    shown = Report((right, wrong, edge))
    assert [row.is_wrong for row in shown.rows] == [False, True, False]
    for lines in (str(shown).splitlines(), as_text(list(shown.rows), 80)):
        assert ["wrong" in line for line in lines] == [False, False, True, False]
    first, second, third = shown._repr_html_().split("<tr")[2:]
    assert ["wrong" in row for row in (first, second, third)] == [False, True, False]
    assert [row.startswith(' style="background') for row in (first, second, third)] == [
        False,
        True,
        False,
    ]
    assert "wrong" not in str(Report((right,)))


def test_path_with_brackets_is_no_markup():
    row = row_of("a[bold]b", (4,))
    assert "a[bold]b" in as_text([row], 80)[1]


COUNTS = {7: "7", 999: "999", 1000: "1.00k", 124_439_808: "124M", 999_999: "1.00M"}


@pytest.mark.parametrize("size", COUNTS)
def test_sizes(size):
    assert count(size) == COUNTS[size]


def test_rules_are_no_plan():
    with pytest.raises(TypeError, match=r"plan must be a jaxinit\.Plan"):
        report({}, {"**": jaxinit.he_normal()})


@pytest.mark.parametrize(("p", "wrong"), [(1e-8, False), (1e-10, True)])
def test_a_row_is_red_below_one_chance_in_a_billion(p, wrong):
    row = Row("w", "", (3,), "float32", leaves=1, bytes=12, p=p)
    assert row.is_wrong is wrong
