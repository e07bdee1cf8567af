"""Rows and tables: what folds, and the statistics of what is folded."""

import io
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from jaxinit import report
from jaxinit.report import Row, rows, table

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
    assert [(row.path, row.leaves) for row in rows(tree)] == expected


CASES = [
    *(
        ("float32", shape)
        for shape in [(), (1,), (7,), (3000,), (3, 3, 4, 8), (1, 5000)]
    ),
    *((dtype, (64, 33)) for dtype in ["bfloat16", "float16", "float8_e4m3fn"]),
    ("complex64", (64, 33)),
    ("complex64", (7,)),
]


@pytest.mark.parametrize(("dtype", "shape"), CASES, ids=str)
def test_statistics_equal_those_of_numpy(dtype, shape):
    x = jnp.asarray(draws(shape), dtype)
    (row,) = rows({"w": x})
    wide = np.asarray(x).astype(np.complex128 if "complex" in dtype else np.float64)
    assert (row.shape, row.dtype, row.size) == (shape, dtype, x.size)
    assert row.bytes == x.nbytes
    assert row.mean == pytest.approx(wide.mean(), rel=1e-5)
    assert row.std == pytest.approx(wide.std(), rel=1e-5, abs=1e-6)


def draws(shape):
    return np.random.default_rng(1729).normal(3, 1, shape).astype(np.float32)


def test_folded_statistics_are_those_of_all_leaves():
    leaves = list(jnp.asarray(draws((4, 20, 30)) + np.arange(4.0).reshape(4, 1, 1)))
    (row,) = rows(leaves)
    wide = np.asarray(leaves, np.float64)
    assert row.mean == pytest.approx(wide.mean(), rel=1e-6)
    assert row.std == pytest.approx(wide.std(), rel=1e-6)
    assert row.scale == pytest.approx(wide.var() * 20, rel=1e-6)


def test_constants_are_exact():
    values = [0.1, 0.0, -7.25, 1e-20]
    measured = rows(
        {f"c{'abcd'[i]}": jnp.full(10_000, v) for i, v in enumerate(values)}
    )
    assert [row.mean for row in measured] == [float(np.float32(v)) for v in values]
    assert [row.std for row in measured] == [0, 0, 0, 0]


def test_nan_and_infinity_are_shown():
    measured = rows({"a": jnp.array([1.0, jnp.nan]), "b": jnp.array([1.0, jnp.inf])})
    assert all(math.isnan(row.std) for row in measured)


def test_keys_integers_and_empty_leaves_have_no_statistics(key):
    tree = {"empty": jnp.zeros((0, 4)), "key": key, "step": jnp.arange(4)}
    empty, random_key, step = rows(tree)
    assert {row.mean for row in (empty, random_key, step)} == {None}
    assert {row.scale for row in (empty, random_key, step)} == {None}
    assert (empty.size, empty.bytes) == (0, 0)
    assert (random_key.parameters, random_key.bytes) == (0, 8)
    assert (step.parameters, step.bytes) == (4, 16)


def test_only_params_are_parameters():
    tree = {"params": {"w": jnp.ones((2, 3))}, "batch_stats": {"mean": jnp.ones(5)}}
    counts = {row.collection: row.parameters for row in rows(tree)}
    assert counts == {"params": 6, "batch_stats": 0}
    (row,) = rows({"w": jnp.ones((2, 3))})
    assert (row.collection, row.parameters) == ("", 6)


def test_implied_scale_of_a_convolution():
    (row,) = rows({"w": jnp.asarray(draws((3, 3, 16, 64)))})
    assert row.scale == pytest.approx(row.std**2 * 3 * 3 * 16)
    assert rows({"b": jnp.arange(4.0)})[0].scale is None


def test_one_program_for_equal_leaves():
    before = report._sums._cache_size()
    rows([jnp.ones((17, 3)) for _ in range(10)] + [jnp.ones((19, 3))])
    assert report._sums._cache_size() == before + 2


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float8_e4m3fn"])
def test_statistics_take_no_second_array(dtype):
    leaf = jax.ShapeDtypeStruct((1024, 1024), dtype)
    memory = report._sums.lower(leaf).compile().memory_analysis()
    assert memory.temp_size_in_bytes < 0.05 * leaf.size


def as_text(rows: list[Row], width: int) -> list[str]:
    console = Console(file=io.StringIO(), width=width)
    console.print(table(rows))
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def test_table():
    w = Row("b_{0..11}/w", "", (768, 2304), "bfloat16", 12, 42, -1.38e-6, 0.02)
    bias = Row("b_{0..11}/b", "", (2304,), "float32", 12, 42, 0.0, 0.0)
    key = Row("key", "", (), "key<fry>", 1, 8, None, None)
    assert as_text([w, bias, key], 80) == [
        "leaf               shape    dtype  size    mean    std scale",
        "b_{0..11}/w x12 768x2304     bf16 21.2M -1.4e-6 0.0200 0.307",
        "b_{0..11}/b x12     2304      f32 27.6k       0      0     -",
        "key                   () key<fry>     1       -      -     -",
    ]


def test_rows_of_gpt2_fit_into_80_columns():
    path = "blocks_{0..11}/attn/proj/kernel"
    row = Row(path, "", (768, 3072), "bfloat16", 12, 42, -1.35e-6, 0.00408)
    lines = as_text([row], 80)
    assert len(lines) == 2
    assert path in lines[1]


def test_table_has_a_section_for_each_collection():
    kinds = {"batch_stats": "mean", "params": "kernel"}
    lines = as_text(
        [
            Row(f"{c}/{n}", c, (4,), "float32", 1, 16, 0.0, 0.0)
            for c, n in kinds.items()
        ],
        80,
    )
    assert [line.split()[0] if line else "" for line in lines] == [
        "leaf",
        "kernel",
        "",
        "batch_stats",
        "mean",
    ]


def test_path_with_brackets_is_no_markup():
    row = Row("a[bold]b", "", (4,), "float32", 1, 16, 0.0, 0.0)
    assert "a[bold]b" in as_text([row], 80)[1]


COUNTS = {7: "7", 999: "999", 1000: "1.00k", 124_439_808: "124M", 999_999: "1.00M"}


@pytest.mark.parametrize("size", COUNTS)
def test_sizes(size):
    assert report._count(size) == COUNTS[size]
