"""Measures, scores and fits: against NumPy and scipy, calibrated, and with controls."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.nn import initializers as reference
from jax.sharding import NamedSharding, PartitionSpec
from scipy import stats as scipy_stats

import jaxinit
from benchmarks import calibration
from jaxinit import Moments
from jaxinit._array import laws, measured
from jaxinit._array.rounded import cell, rounded_moments
from jaxinit.stats import fit, measure, score

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


@pytest.mark.parametrize(("dtype", "shape"), MEASURED, ids=str)
def test_measures_are_those_of_numpy(dtype, shape):
    x = jnp.asarray(draws(shape), dtype)
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
    found = measure(jnp.full(10_000, value))
    assert (found.mean, found.variance) == (float(np.float32(value)), 0)
    assert found.is_constant


SPECS = [(), ("x",), (None, "x"), (("x", "y"),), ("x", "y")]


@pytest.mark.parametrize("spec", SPECS, ids=str)
@pytest.mark.parametrize("kind", ["Auto", "Explicit"])
def test_sharded_arrays_are_measured_where_they_are(spec, kind):
    types = (jax.sharding.AxisType[kind],) * 2
    mesh = jax.make_mesh((4, 2), ("x", "y"), axis_types=types)
    x = jnp.asarray(draws((64, 32)))
    placed = jax.device_put(x, NamedSharding(mesh, PartitionSpec(*spec)))
    found, whole = measure(placed), measure(x)
    assert found.size == whole.size
    assert found.mean == pytest.approx(whole.mean, rel=1e-6)
    assert found.variance == pytest.approx(whole.variance, rel=1e-6)
    assert (found.low, found.high) == (whole.low, whole.high)


def test_long_sums_keep_their_digits():
    x = jnp.asarray(draws(2**22 + 15, mean=30.0))  # 4194319 is a prime number
    wide = np.asarray(x, np.float64)
    assert measure(x).mean == pytest.approx(wide.mean(), rel=1e-6)
    assert measure(x).variance == pytest.approx(wide.var(), rel=1e-5)


def test_one_program_for_equal_leaves():
    before = measured._sums._cache_size()
    measured.measure_all([jnp.ones((17, 3)) for _ in range(10)] + [jnp.ones((19, 3))])
    assert measured._sums._cache_size() == before + 2


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float8_e4m3fn"])
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
    "scaled": (laws.Scaled(laws.Uniform(0.0, 1.0), -2.0), scipy_stats.uniform(-2, 2)),
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


# Scores


def test_the_methods_are_exact_for_a_normal_law():
    x = jnp.asarray([1.5, -0.5, 2.0, 0.25])
    squares = float((x**2).sum())
    found = score(x, jaxinit.normal(1.0))
    tails = scipy_stats.chi2(4).cdf(squares), scipy_stats.chi2(4).sf(squares)
    assert found.variance_p == pytest.approx(2 * min(tails), rel=1e-5)
    z = float(x.sum()) / 2
    assert found.mean == pytest.approx(z)
    assert found.mean_p == pytest.approx(2 * scipy_stats.norm.sf(z), rel=1e-5)
    assert (found.mean_method, found.variance_method) == ("normal", "chi-square")


def test_a_number_is_compared_without_a_mean():
    x = jnp.asarray([11.5, 9.5, 12.0, 10.25])
    found = score(x, 1.0)
    squares = 4 * float(x.var())
    tails = scipy_stats.chi2(3).cdf(squares), scipy_stats.chi2(3).sf(squares)
    assert found.variance_p == pytest.approx(2 * min(tails), rel=1e-4)
    assert (found.mean, found.mean_p) == (None, 1.0)


METHODS = {
    "normal": (jaxinit.normal(1.0), (3,), "normal", "chi-square"),
    "few": (jaxinit.uniform(1.0), (31,), "Bernstein", "Bernstein"),
    "enough": (jaxinit.uniform(1.0), (32,), "Pearson III", "Pearson III"),
    "constant": (jaxinit.constant([1.0, 2.0]), (40, 2), "exact", "exact"),
    "one entry": (jaxinit.normal(1.0), (), "normal", "chi-square"),
}


@pytest.mark.parametrize("name", METHODS)
def test_methods(name, key):
    init, shape, *methods = METHODS[name]
    found = score(init(key, shape), init)
    assert [found.mean_method, found.variance_method] == methods
    assert found.p > 1e-6


def test_a_law_of_two_points_has_a_certain_variance(key):
    x = jnp.sign(jaxinit.normal(1.0)(key, (1000,)))
    found = score(x, Moments(0.0, 1.0, 1.0, -1.0, 1.0))
    assert (found.mean_method, found.variance_method) == ("Bernstein", "exact")
    assert found.p > 1e-6
    assert score(1.001 * x, Moments(0.0, 1.0, 1.0, -1.0, 1.0)).variance_p == 0


@pytest.mark.parametrize("dtype", NARROW)
def test_narrow_draws_score_well_and_those_of_jax_do_not(key, dtype):
    shape = (1024, 1024)
    init = jaxinit.normal(1.0)
    right = score(init(key, shape, jnp.dtype(dtype)), init)
    assert right.worst < 6
    wrong = score(reference.normal(1.0)(key, shape, jnp.dtype(dtype)), init)
    assert (wrong.mean_p < 1e-9) == (dtype != "float16")


def test_what_is_not_finite_scores_worst():
    found = score(jnp.array([1.0, jnp.nan]), 1.0)
    assert (found.p, found.worst, found.mean_method) == (0, math.inf, "not finite")


REFUSED = {
    "zero": (lambda: score(jnp.ones(3), 0.0), ["greater than zero", "0.0", "zeros"]),
    "negative": (lambda: score(jnp.ones(3), -1), ["greater than zero", "-1"]),
    "NaN": (lambda: score(jnp.ones(3), math.nan), ["greater than zero", "nan"]),
    "text": (lambda: score(jnp.ones(3), "he"), ["an initializer", "'he'"]),
    "moments": (
        lambda: score(jnp.ones(3), Moments(0.0, -1.0, 3.0, -1.0, 1.0)),
        ["expected.variance", "not negative", "-1.0"],
    ),
    "bounds": (
        lambda: score(jnp.ones(3), Moments(0.0, 2.0, 3.0, -1.0, 1.0)),
        ["no law", "variance=2.0"],
    ),
    "one entry": (lambda: score(jnp.ones(1), 1.0), ["at least 2", "array of 1"]),
    "no entry": (lambda: score(jnp.ones((0, 2)), 1.0), ["(0, 2)", "no entries"]),
    "integers": (lambda: score(jnp.arange(3), 1.0), ["floating-point", "int32"]),
    "traced": (
        lambda: jax.jit(lambda x: score(x, 1.0).p)(jnp.ones(3)),
        ["traced", "no values yet"],
    ),
    "orthogonal": (
        lambda: score(jnp.eye(3), jaxinit.orthogonal()),
        ["orthogonal()", "depend on each other", "assert_orthogonal"],
    ),
    "fit of orthogonal": (
        lambda: fit(jnp.eye(3), jaxinit.scaled(jaxinit.orthogonal(), 2.0)),
        ["depend on each other", "assert_orthogonal"],
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name):
    fails, parts = REFUSED[name]
    with pytest.raises((TypeError, ValueError)) as caught:
        fails()
    assert [part for part in parts if part not in str(caught.value)] == []


# Fits

FITS = {
    "normal": jaxinit.normal(0.3, mean=-1.0),
    "truncated": jaxinit.truncated_normal(0.5, lower=-0.5, upper=3.0),
    "uniform": jaxinit.uniform(0.7),
    "he_normal": jaxinit.he_normal(),
    "split": jaxinit.split(jaxinit.glorot_uniform(), 4),
    "stacked": jaxinit.stacked(lambda i: jaxinit.normal(0.1 * (i + 1))),
    "atoms": jaxinit.stacked(lambda i: [jaxinit.zeros, jaxinit.normal(1.0)][i % 2]),
}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float8_e4m3fn"])
@pytest.mark.parametrize("name", FITS)
def test_fits(name, dtype, key):
    init = FITS[name]
    x = init(key, (4, 6400), jnp.dtype(dtype))
    assert fit(x, init).p > 1e-6
    assert fit(1.3 * x, init).p < 1e-9


COMPLEX = {
    "normal": jaxinit.normal(0.3, mean=-1.0),
    "truncated": jaxinit.glorot_normal(),
    "uniform": jaxinit.glorot_uniform(),
}


@pytest.mark.parametrize("name", COMPLEX)
def test_complex_fits(name, key):
    init = COMPLEX[name]
    x = init(key, (4, 6400), jnp.complex64)
    assert fit(x, init).p > 1e-6
    assert fit(1.3 * x, init).p < 1e-9
    assert fit(abs(x.real) + 1j * x.imag, init).p < 1e-9


def test_a_fit_sees_what_moments_do_not(key):
    x = jaxinit.uniform(low=-(3**0.5), high=3**0.5)(key, (4, 6400))
    assert score(x, Moments(0.0, 1.0, 3.0, -math.inf, math.inf)).p > 1e-6
    assert fit(x, jaxinit.normal(1.0)).p < 1e-9


def test_fits_are_calibrated(key):
    init, draws = jaxinit.normal(1.0), 1000
    found = [fit(x, init).p for x in np.asarray(init(key, (draws, 50)))]
    # of 100 expected, at most 6.1 standard errors more or fewer: once in 1e9 keys
    assert abs(np.sum(np.array(found) < 0.1) - 100) < 6.1 * math.sqrt(90)


# Calibration: a small version of `python -m benchmarks calibration`


@pytest.mark.parametrize("law", calibration.LAWS)
def test_scores_are_calibrated(law):
    rows = list(calibration.rates(law, draws=20_000, sizes=(8, 64)))
    for row in rows:
        # 6.5 standard errors, Poisson tails included: once in 1e9 keys
        allowed = row["expected"] + 6.5 * math.sqrt(row["expected"]) + 8
        assert row["alarms"] <= allowed, row
    assert any(row["alarms"] for row in rows)


def test_power():
    assert all(row["caught"] == row["draws"] for row in calibration.power(draws=3))
