"""Scores and fits: against scipy, calibrated, and with negative controls."""

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.nn import initializers as reference
from references import assert_refuses
from sampling import sampled
from scipy import stats as scipy_stats

import jaxinit
from benchmarks import calibration
from jaxinit import Moments, laws
from jaxinit.stats import Score, fit, score

pytestmark = pytest.mark.unoptimized

NARROWER = ["float16", "float8_e4m3fn"]


def times(factor, x):
    """In NumPy, where arithmetic compiles nothing; rounded to the dtype of `x`."""
    return (np.float32(factor) * np.asarray(x, np.float32)).astype(x.dtype)


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
    assert found.p == pytest.approx(2 * min(found.mean_p, found.variance_p))


def test_the_mean_of_a_complex_law_by_hand():
    x = jnp.asarray([1 + 1j, 2 - 0.5j, 0.25j])
    found = score(x, jaxinit.normal(1.0))
    assert found.mean_method == "chi-square"
    assert found.mean_p == pytest.approx(math.exp(-(abs(3 + 0.75j) ** 2) / 3), rel=1e-5)


def test_a_bound_at_any_size_by_hand():
    """Bernstein's, of terms that are at most three to the half deviations off."""
    x = jnp.asarray([1.0, 1.0, 1.0, 0.8])
    found = score(x, jaxinit.uniform(low=-1.0, high=1.0))
    errors, reach = 3.8 * math.sqrt(3) / 2, math.sqrt(3) / 6
    expected = 2 * math.exp(-(errors**2) / (2 * (1 + reach * errors)))
    assert found.mean_p == pytest.approx(expected, rel=1e-5)
    assert found.mean == pytest.approx(errors)


def test_a_law_that_is_bounded_above_by_hand():
    """One minus an exponential law: its sums are gamma."""
    x = jnp.asarray([0.9, 0.7, -0.3, 0.95])
    found = score(x, Moments(0.0, 1.0, 9.0, -math.inf, 1.0))
    law, total = scipy_stats.gamma(4), 4 - float(x.sum())
    tails = law.cdf(total), law.sf(total)
    assert found.mean_p == pytest.approx(2 * min(tails), rel=1e-5)
    assert found.mean_method == "Pearson III"


def test_a_law_between_bounds_by_hand():
    """The skewness of a beta law, over the root of the number of terms."""
    law, size = scipy_stats.beta(2, 5), 200
    mean, variance, skew, excess = map(float, law.stats("mvsk"))
    x = jnp.full(size, mean + 2 * math.sqrt(variance / size))
    found = score(x, Moments(mean, variance, 3 + excess, 0.0, 1.0))
    expected = 2 * scipy_stats.pearson3(skew / math.sqrt(size)).sf(2)
    assert found.mean_p == pytest.approx(expected, rel=1e-4)
    assert found.mean_method == "Pearson III"


EXACT = {
    "rounded": ([1 + 4e-6] * 4, jaxinit.constant(1.0), 1.0),
    "off": ([1 + 1e-4] * 4, jaxinit.constant(1.0), 0.0),
    "spread, right": ([0.01, 0.02] * 40, jaxinit.constant([0.01, 0.02] * 40), 1.0),
    "spread too far": (
        [0.01 - 5e-6, 0.02 + 5e-6] * 40,
        jaxinit.constant([0.01, 0.02] * 40),
        0.0,
    ),
    "two points": ([1.0, -1.0], Moments(0.0, 1.0, 1.0, -1.0, 1.0), 1.0),
    "two points, off": ([1.0001, -1.0001], Moments(0.0, 1.0, 1.0, -1.0, 1.0), 0.0),
}


@pytest.mark.parametrize("name", EXACT)
def test_what_leaves_nothing_to_chance(name):
    values, expected, p = EXACT[name]
    found = score(jnp.asarray(values), expected)
    assert (found.p, found.variance_method) == (p, "exact")


def test_a_number_is_compared_without_a_mean():
    x = jnp.asarray([11.5, 9.5, 12.0, 10.25])
    found = score(x, 1.0)
    squares = 4 * float(x.var())
    tails = scipy_stats.chi2(3).cdf(squares), scipy_stats.chi2(3).sf(squares)
    assert found.variance_p == pytest.approx(2 * min(tails), rel=1e-4)
    assert (found.mean, found.mean_p) == (None, 1.0)


METHODS = {
    "normal": (jaxinit.normal(1.0), (3,), "normal", "chi-square"),
    "few": (jaxinit.uniform(1.0), (127,), "Bernstein", "Bernstein"),
    "enough": (jaxinit.uniform(1.0), (128,), "Pearson III", "Pearson III"),
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
    x = np.sign(np.asarray(jaxinit.normal(1.0)(key, (1000,))))
    found = score(x, Moments(0.0, 1.0, 1.0, -1.0, 1.0))
    assert (found.mean_method, found.variance_method) == ("Bernstein", "exact")
    assert found.p > 1e-6
    wrong = np.float32(1.001) * x
    assert score(wrong, Moments(0.0, 1.0, 1.0, -1.0, 1.0)).variance_p == 0


@pytest.mark.parametrize(
    "dtype", sampled(["bfloat16", "float16", "float8_e4m3fn"], NARROWER)
)
def test_narrow_draws_score_well_and_those_of_jax_do_not(key, dtype):
    shape = (1024, 1024)
    init = jaxinit.normal(1.0)
    right = score(init(key, shape, jnp.dtype(dtype)), init)
    assert right.worst < 6
    wrong = score(reference.normal(1.0)(key, shape, jnp.dtype(dtype)), init)
    assert (wrong.mean_p < 1e-9) == (dtype != "float16")


class NoCdf(laws.Uniform):
    cdf = laws.Law.cdf


@dataclass(frozen=True, repr=False)
class foreign(jaxinit.Initializer):  # noqa: N801
    def entry_law(self, shape, dtype):
        return NoCdf(0.0, 1.0)

    def sample(self, key, shape, dtype):
        return jax.random.uniform(key, shape, dtype)


def test_laws_without_a_distribution_function(key):
    x = foreign()(key, (64, 64), jnp.bfloat16)
    assert score(x, foreign()).p > 1e-9
    assert score(times(1.3, x), foreign()).p < 1e-9
    with pytest.raises(NotImplementedError, match="NoCdf has no cdf"):
        fit(x, foreign())


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
    "bounds, a little": (
        lambda: score(jnp.ones(3), Moments(0.0, 1.05, 3.0, -1.0, 1.0)),
        ["no law", "variance=1.05"],
    ),
    "kurtosis": (
        lambda: score(jnp.ones(3), Moments(0.0, 1.0, 0.9, -2.0, 2.0)),
        ["no law", "kurtosis=0.9", "at least 1"],
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
    assert_refuses(*REFUSED[name])


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


FITTED = [(name, dtype) for name in FITS for dtype in ("float32", "float8_e4m3fn")]
# Every law once; after rounding, one without steps, and one of two parts.
BEYOND = [
    *((name, "float32") for name in ("normal", "he_normal", "stacked")),
    *((name, "float8_e4m3fn") for name in ("truncated", "uniform", "split", "atoms")),
    ("he_normal", "float8_e4m3fn"),
    ("stacked", "float8_e4m3fn"),
    ("split", "float32"),
]


@pytest.mark.parametrize("case", sampled(FITTED, BEYOND), ids=", ".join)
def test_fits(case, key):
    name, dtype = case
    init = FITS[name]
    x = init(key, (4, 6400), jnp.dtype(dtype))
    assert fit(x, init).p > 1e-6
    assert fit(times(1.3, x), init).p < 1e-9


COMPLEX = {
    "normal": jaxinit.normal(0.3, mean=-1.0),
    "truncated": jaxinit.glorot_normal(),
    "uniform": jaxinit.glorot_uniform(),
}


@pytest.mark.parametrize("name", sampled(COMPLEX, ["normal", "uniform"]))
def test_complex_fits(name, key):
    init = COMPLEX[name]
    x = np.asarray(init(key, (4, 6400), jnp.complex64))
    assert fit(x, init).p > 1e-6
    assert fit(np.float32(1.3) * x, init).p < 1e-9
    assert fit(abs(x.real) + np.complex64(1j) * x.imag, init).p < 1e-9


def test_a_complex_fit_is_of_two():
    x = np.array([0.3 + 0.2j, -1j, 0.9 + 0.9j, 1.2, 0.4 + 1j], np.complex64)
    found = fit(x, jaxinit.normal(1.0))
    both = [
        scipy_stats.kstest(np.abs(x), scipy_stats.rayleigh(0, 0.5**0.5).cdf),
        scipy_stats.kstest(np.angle(x), scipy_stats.uniform(-np.pi, 2 * np.pi).cdf),
    ]
    assert found.distance == pytest.approx(max(x.statistic for x in both), abs=1e-6)
    assert found.p == pytest.approx(2 * min(x.pvalue for x in both), rel=1e-4)


ONE_SIDED = {"high": 0.9, "low": 0.1}


@pytest.mark.parametrize("side", ONE_SIDED)
def test_a_distance_to_either_side(side):
    x = jnp.full(3, ONE_SIDED[side])
    found = fit(x, jaxinit.uniform(low=0.0, high=1.0))
    assert found.distance == pytest.approx(0.9, abs=1e-6)
    expected = scipy_stats.kstest(np.asarray(x), scipy_stats.uniform.cdf).pvalue
    assert found.p == pytest.approx(expected, rel=1e-4)


def test_a_fit_sees_what_moments_do_not(key):
    x = jaxinit.uniform(low=-(3**0.5), high=3**0.5)(key, (4, 6400))
    assert score(x, Moments(0.0, 1.0, 3.0, -math.inf, math.inf)).p > 1e-6
    assert fit(x, jaxinit.normal(1.0)).p < 1e-9


@pytest.mark.exhaustive
def test_fits_are_calibrated(key):
    init, draws = jaxinit.normal(1.0), 500
    found = [fit(x, init).p for x in np.asarray(init(key, (draws, 50)))]
    # of 100 expected, at most 6.1 standard errors more or fewer: once in 1e9 keys
    assert abs(np.sum(np.array(found) < 0.2) - 100) < 6.1 * math.sqrt(80)


# Calibration: a small version of `python -m benchmarks calibration`


def miscalibrated(rows):
    """Rates that are off: 6.5 standard errors, and 8 for Poisson tails, once in 1e9."""
    for row in rows:
        allowed = 6.5 * math.sqrt(row["expected"])
        is_low = row["alarms"] < row["expected"] - allowed
        is_bound = row["method"] == "Bernstein"
        if row["alarms"] > row["expected"] + allowed + 8 or (is_low and not is_bound):
            yield row


SAMPLE = ("truncated at -0.5, 3", "uniform, float8")


@pytest.mark.parametrize(
    "law", sampled(calibration.LAWS, [x for x in calibration.LAWS if x not in SAMPLE])
)
def test_scores_are_calibrated(law):
    rows = list(calibration.rates(law, draws=20_000, sizes=(8, 128)))
    assert list(miscalibrated(rows)) == []
    assert {row["size"]: row["alarms"] for row in rows if row["rate"] == 0.01}[
        128
    ] > 100


@pytest.mark.parametrize("kurtosis", [2.4, 3.6])
def test_a_wrong_kurtosis_is_not_calibrated(kurtosis, monkeypatch):
    wrong = jaxinit.normal(1.0).moments(())._replace(kurtosis=kurtosis)
    monkeypatch.setattr(calibration, "expected_moments", lambda *_: wrong)
    rows = list(calibration.rates("normal", draws=20_000, sizes=(128,)))
    assert {row["of"] for row in miscalibrated(rows)} == {"variance"}


def test_power():
    assert all(row["caught"] == row["draws"] for row in calibration.power(draws=3))


def test_a_score_is_corrected_for_its_two_tests():
    one = Score(0.0, 0.0, 0.25, 0.75, "normal", "normal")
    assert one.p == 0.5


def test_bernsteins_bound_is_of_both_sides():
    x = np.full(16, 0.5, np.float32)  # the farthest mean that U[-1, 1) allows is 1
    law = Moments(0.0, 1 / 3, 9 / 5, -1.0, 1.0)
    found = score(x, law)
    errors = 0.5 * 4 * 3**0.5
    reach = 3**0.5 / (3 * 4)
    assert found.mean_method == "Bernstein"
    assert found.mean_p == pytest.approx(
        2 * np.exp(-(errors**2) / (2 * (1 + reach * errors))), rel=1e-6
    )


def test_the_distance_sees_the_side_below_an_entry():
    x = np.full(4, 0.75, np.float32)  # 3/4 of the law lie below, and no entry does
    assert fit(x, jaxinit.uniform(1.0)).distance == pytest.approx(0.75, rel=1e-6)


@pytest.mark.parametrize(("error", "p"), [(5e-6, 1.0), (4e-5, 0.0)])
def test_a_constant_may_be_off_by_rounding_alone(error, p):
    x = np.full(4, 1.0 + error, np.float32)
    assert score(x, jaxinit.ones).mean_p == p


def test_what_is_no_initializer_has_no_fit():
    with pytest.raises(
        TypeError, match=r"init must be a jaxinit initializer, .* got 3"
    ):
        fit(np.ones(3, np.float32), 3)
