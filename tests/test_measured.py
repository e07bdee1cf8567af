"""Measures of arrays against NumPy; laws after rounding and their distributions."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec
from sampling import sampled
from scipy import stats as scipy_stats

from jaxinit import laws
from jaxinit._arrays import measured
from jaxinit.laws.rounded import cell, rounded_moments
from jaxinit.stats import measure

pytestmark = pytest.mark.unoptimized

NARROW = ["bfloat16", "float16", "float8_e4m3fn", "float8_e5m2"]


def draws(shape, mean=3.0):
    return np.random.default_rng(1729).normal(mean, 1, shape).astype(np.float32)


# Measures


SHAPES = [(), (1,), (7,), (3000,), (3, 3, 4, 8), (1, 5000), (5003,), (2, 5003)]
MEASURED = [
    *(("float32", shape) for shape in SHAPES),
    *((dtype, (64, 33)) for dtype in NARROW),
    ("complex64", (64, 33)),
    ("complex64", (7,)),
]


BEYOND = [
    *(("float32", shape) for shape in [(7,), (3000,), (1, 5000), (5003,)]),
    ("float16", (64, 33)),
    ("float8_e5m2", (64, 33)),
    ("complex64", (7,)),
]


@pytest.mark.parametrize("case", sampled(MEASURED, BEYOND), ids=str)
def test_measures_are_those_of_numpy(case):
    dtype, shape = case
    x = draws(shape).astype(jnp.dtype(dtype))
    found = measure(x)
    wide = np.asarray(x).astype(np.complex128 if "complex" in dtype else np.float64)
    parts = np.stack([wide.real, wide.imag]) if "complex" in dtype else wide
    assert found.size == wide.size
    assert found.mean == pytest.approx(wide.mean(), rel=1e-6)
    assert found.variance == pytest.approx(wide.var(), rel=1e-5, abs=1e-9)
    assert (found.low, found.high) == (parts.min(), parts.max())
    assert (found.zeros, found.nonfinite) == (np.sum(wide == 0), 0)


def test_counts_and_what_is_not_finite():
    x = jnp.array([[0.0, 1.0, jnp.nan], [jnp.inf, -0.0, -jnp.inf]])
    found = measure(x)
    assert (found.zeros, found.nonfinite) == (2, 3)
    assert math.isnan(found.mean)
    assert math.isnan(found.std)
    assert not found.is_constant


@pytest.mark.parametrize("value", [0.1, 0.0, -7.25, 1e-20])
def test_constants_are_exact(value):
    found = measure(np.full(10_000, value, np.float32))
    assert (found.mean, found.variance) == (float(np.float32(value)), 0)
    assert found.is_constant


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_not_finite_is_no_constant(value):
    assert not measure(jnp.full(3, value)).is_constant


def test_rounding_leaves_no_negative_variance():
    x = np.full(2**20, 0.1, np.float32)
    x[0] = 0  # by the sums alone it were -1e-6
    assert measure(x).variance == 0
    assert measure(x).std == 0


PLACES = [("Auto", ("x",)), ("Auto", (None, ("x", "y"))), ("Explicit", ("x", "y"))]


@pytest.mark.parametrize("place", sampled(PLACES, PLACES[:1]), ids=str)
def test_sharded_arrays_are_measured_where_they_are(place):
    kind, spec = place
    types, devices = (jax.sharding.AxisType[kind],) * 2, jax.devices()[:4]
    mesh = jax.make_mesh((2, 2), ("x", "y"), axis_types=types, devices=devices)
    x = draws((64, 32))
    placed = jax.device_put(x, NamedSharding(mesh, PartitionSpec(*spec)))
    found, whole = measure(placed), measure(x)
    assert found.size == whole.size
    assert found.mean == pytest.approx(whole.mean, rel=1e-6)
    assert found.variance == pytest.approx(whole.variance, rel=1e-6)
    assert (found.low, found.high) == (whole.low, whole.high)
    x[63, 31] = np.nan
    broken = measure(jax.device_put(x, placed.sharding))
    assert all(map(math.isnan, (broken.mean, broken.std, broken.low, broken.high)))


def test_long_sums_keep_their_digits():
    x = draws(2**22 + 15, mean=30.0)  # 4194319 is a prime number
    wide = np.asarray(x, np.float64)
    assert measure(x).mean == pytest.approx(wide.mean(), rel=1e-6)
    assert measure(x).variance == pytest.approx(wide.var(), rel=1e-5)


def test_one_program_for_equal_leaves():
    before = measured._sums._cache_size()
    measured.measure_all([jnp.ones((17, 3)) for _ in range(10)] + [jnp.ones((19, 3))])
    assert measured._sums._cache_size() == before + 2


@pytest.mark.parametrize(
    "dtype", sampled(["float32", "bfloat16", "float8_e4m3fn"], ["bfloat16"])
)
def test_measuring_takes_no_second_array(dtype):
    leaf = jax.ShapeDtypeStruct((1024, 1024), dtype)
    memory = measured._sums.lower(leaf).compile().memory_analysis()
    assert memory.temp_size_in_bytes < 0.05 * leaf.size


# What is expected


@pytest.mark.parametrize("dtype", NARROW)
@pytest.mark.parametrize("law", [laws.Normal(0.02), laws.Uniform(-0.1, 0.3)], ids=str)
def test_moments_after_rounding_are_those_of_rounded_quantiles(law, dtype):
    share = (np.arange(2**20) + 0.5) / 2**20
    exact = (
        scipy_stats.norm(0, 0.02)
        if isinstance(law, laws.Normal)
        else scipy_stats.uniform(-0.1, 0.4)
    ).ppf(share)
    x = exact.astype(np.float32).astype(jnp.dtype(dtype)).astype(np.float64)
    found = rounded_moments(law, np.dtype(jnp.dtype(dtype)))
    assert found.mean == pytest.approx(x.mean(), abs=1e-4 * x.std())
    assert found.variance == pytest.approx(x.var(), rel=3e-5)


def test_moments_after_clipping():
    clipped = rounded_moments(laws.Normal(1000.0), np.dtype(jnp.float8_e4m3fn))
    assert clipped.variance < 0.9 * 448**2
    assert clipped.mean == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("dtype", [*NARROW, "float32"])
def test_a_cell_is_what_rounds_to_its_value(dtype):
    values = np.array([-3.0, -0.1, 0.0, 1.0, 2.0]).astype(jnp.dtype(dtype))
    for end, inwards in zip(cell(values), (1, -1), strict=True):
        wide = values.astype(np.float64)
        margin = inwards * 1e-3 * abs(end - wide)
        inside, outside = end + margin, end - margin
        assert np.array_equal(inside.astype(values.dtype).astype(np.float64), wide)
        assert not np.any(outside.astype(values.dtype).astype(np.float64) == wide)


CDFS = {
    "normal": (laws.Normal(2.0, -1.0), scipy_stats.norm(-1, 2)),
    "truncated": (laws.TruncatedNormal(1.0, -2, 2), scipy_stats.truncnorm(-2, 2)),
    "tail": (laws.TruncatedNormal(1.0, 9, 10), scipy_stats.truncnorm(9, 10)),
    "uniform": (laws.Uniform(-1.0, 3.0), scipy_stats.uniform(-1, 4)),
    "scaled": (
        laws.Scaled(laws.Uniform(0.0, 1.0), -2.0),
        scipy_stats.uniform(-2, 2),
    ),
}


@pytest.mark.parametrize("name", CDFS)
def test_distribution_functions_are_those_of_scipy(name):
    law, other = CDFS[name]
    x = np.concatenate([np.linspace(-5, 12, 500), [-math.inf, math.inf]])
    assert law.cdf(x) == pytest.approx(other.cdf(x), abs=1e-12)


def test_distribution_functions_with_steps():
    mixture = laws.Mixture(((laws.Values((0.0,)), 3), (laws.Uniform(0.0, 1.0), 1)))
    assert mixture.cdf(np.array([-0.1, 0.0, 0.5])) == pytest.approx([0, 0.75, 0.875])
    flipped = laws.Scaled(laws.Values((0.0, 1.0)), -1.0)
    assert flipped.cdf(np.array([-1.1, -1.0, 0.0])) == pytest.approx([0, 0.5, 1])
    flat = laws.Normal(0.0, 2.0)
    assert flat.cdf(np.array([1.9, 2.0])) == pytest.approx([0, 1])


def of_numpy(x):
    return x.size, x.mean(), x.var(), x.min(), x.max(), np.sum(x == 0), 0


def test_several_arrays_have_the_statistics_of_one():
    x = draws((60,)).astype(np.float64)
    x[15:22], x[30:50:2] = 0, -x[30:50:2]
    pieces = [measured.Measured(*of_numpy(part)) for part in (x[:20], x[20:])]
    found = measured.pool(pieces)
    for got, wanted in zip(vars(found).values(), of_numpy(x), strict=True):
        assert got == pytest.approx(wanted, rel=1e-12)
    assert (pieces[0].zeros, found.zeros) == (5, 7)
