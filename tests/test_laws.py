"""Moments: closed forms, and samples against them in standard errors.

A sample moment may be off by 6.2 standard errors: a false alarm for one key in 2e9 in a
single comparison, of about 50. The key is fixed, so that a failure is one of the code.
"""

import functools
import math
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from references import assert_refuses
from sampling import sampled
from scipy import special, stats

import jaxinit
import jaxinit.stats
from jaxinit import Moments, laws
from jaxinit.initializers import _between as between_bounds
from jaxinit.laws import _tail

pytestmark = pytest.mark.unoptimized

SIGMAS = 6.2
SHAPE = (512, 512)

INITIALIZERS = {
    "normal": jaxinit.normal(0.3, mean=-1.0),
    "uniform": jaxinit.uniform(0.7),
    "uniform_low_high": jaxinit.uniform(low=-1.0, high=3.0),
    "truncated_normal": jaxinit.truncated_normal(0.5),
    "truncated_asymmetric": jaxinit.truncated_normal(0.5, lower=-0.5, upper=3.0),
    "truncated_half": jaxinit.truncated_normal(2.0, lower=0.0, upper=math.inf),
    "truncated_corrected": jaxinit.truncated_normal(0.5, corrected=True),
    "he_normal": jaxinit.he_normal(),
    "he_uniform": jaxinit.he_uniform(),
    "scaling_normal": jaxinit.variance_scaling(1.5, "fan_geo_avg", "normal"),
}
COMPLEX = {
    "normal": jaxinit.normal(0.3, mean=-1.0),
    "scaling_truncated": jaxinit.glorot_normal(),
    "scaling_uniform": jaxinit.glorot_uniform(),
    "scaling_normal": jaxinit.variance_scaling(1.5, "fan_in", "normal"),
}
CASES = {
    **{name: (init, jnp.float32) for name, init in INITIALIZERS.items()},
    **{f"{name}_complex": (init, jnp.complex64) for name, init in COMPLEX.items()},
}
# Those of the law of another.
LIKE_OTHERS = [
    *("uniform", "truncated_half", "he_uniform", "scaling_normal"),
    *("normal_complex", "scaling_uniform_complex", "scaling_normal_complex"),
    *("truncated_corrected", "truncated_normal"),
]


@functools.cache
def sample(case):
    init, dtype = CASES[case]
    return np.asarray(init(jax.random.key(1729), SHAPE, dtype))


def errors(x: np.ndarray, expected: Moments) -> list[float]:
    """Mean, variance and fourth moment of `x`, off by so many standard errors."""
    x = np.asarray(x).astype(complex).ravel()
    squares = np.abs(x - expected.mean) ** 2
    fourth = expected.kurtosis * expected.variance**2
    return [
        abs(x.mean() - expected.mean) / math.sqrt(expected.variance / x.size),
        abs(squares.mean() - expected.variance)
        / math.sqrt((fourth - expected.variance**2) / x.size),
        abs((squares**2).mean() - fourth) / ((squares**2).std() / math.sqrt(x.size)),
    ]


@pytest.mark.sample(2)
@pytest.mark.parametrize("case", sampled(CASES, LIKE_OTHERS))
def test_samples_have_the_moments(case):
    x, (init, dtype) = sample(case), CASES[case]
    expected = init.moments(SHAPE, dtype)
    assert max(errors(x, expected)) < SIGMAS
    wrong = expected._replace(variance=expected.variance * 1.04)
    assert max(errors(x, wrong)) > SIGMAS
    assert max(errors(x + 0.05 * expected.std, expected)) > SIGMAS


@pytest.mark.parametrize("case", sampled(CASES, LIKE_OTHERS))
def test_samples_reach_the_bounds_and_keep_them(case):
    x, (init, dtype) = sample(case), CASES[case]
    expected = init.moments(SHAPE, dtype)
    parts = np.stack([x.real, x.imag]) if np.iscomplexobj(x) else x
    rounding = 1e-6 * expected.std
    assert parts.min() >= expected.low - rounding
    assert parts.max() <= expected.high + rounding
    if expected.high < math.inf:  # 2**18 draws come this near to the end of any law
        assert parts.max() > expected.high - 0.1 * expected.std
    else:
        assert parts.max() > expected.mean + 3 * expected.std


def entries(init, shape, dtype, key, count=20_000):
    draw = jax.jit(jax.vmap(lambda key: init(key, shape, dtype).ravel()[-1]))
    return np.asarray(draw(jax.random.split(key, count)))


MATRICES = [(s, d) for d in ("float32", "complex64") for s in ((3, 3), (5, 2))]


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    "case", sampled(MATRICES, {*MATRICES} - {MATRICES[2]}), ids=str
)
def test_one_entry_of_many_orthogonal_matrices_has_the_moments(key, case):
    init, (shape, dtype) = jaxinit.orthogonal(1.5), case
    x, expected = entries(init, shape, dtype, key), init.moments(shape, dtype)
    assert max(errors(x, expected)) < SIGMAS
    assert max(errors(1.1 * x, expected)) > SIGMAS
    assert not init.entries_independent


def test_moments_of_delta_orthogonal_are_those_of_the_whole_array(key):
    init, shape = jaxinit.delta_orthogonal(2.0), (3, 2, 4, 6)
    x = np.asarray(init(key, shape), np.float64)
    # the squares of a semi-orthogonal matrix add up exactly: no standard error
    assert (x**2).mean() == pytest.approx(4.0 * 4 / (6 * 4 * 6), rel=1e-5)
    assert init.moments(shape).variance == pytest.approx((x**2).mean(), rel=1e-5)


@pytest.mark.parametrize("value", [3.0, [1.0, 2.0, 4.0], [1.0 + 2.0j, 3.0]])
def test_moments_of_constants_are_exact(value):
    expected = jaxinit.constant(value).moments((4, np.size(value)), jnp.complex64)
    values = np.atleast_1d(np.asarray(value))
    assert expected.mean == values.mean().real
    assert expected.variance == pytest.approx(values.var())
    parts = np.stack([values.real, values.imag]) if np.iscomplexobj(values) else values
    assert (expected.low, expected.high) == (parts.min(), parts.max())
    assert math.isnan(expected.kurtosis) == (np.size(value) == 1)


BOUNDS = [(-2, 2), (-1, 3), (-0.1, 0.2), (-6, 6), (-math.inf, 1), (0.5, math.inf)]


@pytest.mark.parametrize(("lower", "upper"), BOUNDS)
def test_truncated_moments_are_those_of_scipy(lower, upper):
    moments = laws.TruncatedNormal(1.0, lower, upper).moments()
    mean, variance, excess = stats.truncnorm(lower, upper).stats("mvk")
    assert moments[:3] == pytest.approx((mean, variance, excess + 3), abs=1e-9)


def test_truncated_moments_where_closed_forms_cancel():
    narrow = laws.TruncatedNormal(1.0, 1.0, 1.001).moments()  # nearly uniform
    assert narrow.variance == pytest.approx(1e-6 / 12, rel=1e-6)
    assert narrow.kurtosis == pytest.approx(1.8, rel=1e-6)
    far = laws.TruncatedNormal(1.0, 30.0, math.inf).moments()  # nearly exponential
    assert far.mean == pytest.approx(30 + 1 / 30, rel=1e-4)
    assert far.kurtosis == pytest.approx(9, rel=0.02)


# standard deviation, mean, low, high
INTERVALS = {
    "torch's default": (0.02, 0.0, -2.0, 2.0),
    "around a mean": (0.5, 0.3, -1.0, 1.0),
    "skew": (1.0, 0.0, -0.25, math.inf),
    "not cut": (2.0, 1.0, -math.inf, math.inf),
    "half": (1.0, 0.0, 0.0, math.inf),
    "beside the mean": (1.0, 0.0, 0.1, 0.2),
    "lower half": (2.0, -1.0, -9.0, -1.5),
    "tail": (1.0, 0.0, 6.0, 7.0),
    "narrow tail": (1.0, 0.0, 5.1, 5.3),
    "lower tail": (1.0, 0.0, -math.inf, -6.0),
    "mean far below": (1.0, -8.0, -2.0, 2.0),
    "mean far above": (1.0, 8.0, -2.0, 2.0),
    "30 sigmas": (1.0, 0.0, 30.0, math.inf),
    "30 sigmas below": (1.0, 30.0, -math.inf, 0.0),
    "thin, at 500 sigmas": (2.0, 1000.0, 0.001, 0.002),
    "thin, around the mean": (1e6, 0.5, 0.0, 3.0),
    "of a law too wide": (1e38, 0.0, 1.0, 2.0),
    "one step": (1.0, 0.0, 1.0, 1 + 2.0**-23),
    "three numbers": (1e-8, 0.1, 0.1 - 1.3e-8, 0.1 + 1e-8),
}
DRAWS = 2**16
TAILS = ("beside the mean", "narrow tail", "mean far above", "30 sigmas below")
WIDE = ("skew", "one step", *TAILS)


def between(name):
    stddev, mean, low, high = INTERVALS[name]
    return jaxinit.truncated_normal(stddev, mean=mean, low=low, high=high)


@functools.cache
def drawn_between(name, dtype):
    with jax.enable_x64(dtype == "float64"):
        return jax.device_get(between(name)(jax.random.key(8), (DRAWS,), dtype))


def probabilities(name, points=20_001):
    """Where an interval is densest, distances from there, and their probabilities.

    By Simpson's rule, on as far as 45 lengths of decay.
    """
    stddev, mean, low, high = INTERVALS[name]
    peak = min(max(mean, low), high)
    slope = (peak - mean) / stddev
    scale = stddev / max(1.0, abs(slope) / 5)
    y = np.linspace(max(low - peak, -9 * scale), min(high - peak, 9 * scale), points)
    weights = np.exp(-(y / stddev) * (slope + y / stddev / 2))
    weights[1:-1:2] *= 4
    weights[2:-1:2] *= 2
    return peak, y, weights / weights.sum()


@pytest.mark.parametrize("name", INTERVALS)
def test_moments_between_bounds_by_another_rule(name):
    with jax.enable_x64(True):
        init = between(name)
        moments, third = (
            init.moments((1,)),
            init.entry_law((1,), np.dtype(float)).third(),
        )
    peak, y, weights = probabilities(name)
    mean = weights @ y
    second, cubes, fourth = (weights @ (y - mean) ** n for n in (2, 3, 4))
    assert moments.mean == pytest.approx(peak + mean, rel=1e-6, abs=1e-12)
    assert moments.variance == pytest.approx(second, rel=1e-6)
    assert moments.kurtosis == pytest.approx(fourth / second**2, rel=1e-6)
    assert moments[3:] == INTERVALS[name][2:]
    assert third == pytest.approx(cubes, rel=1e-6, abs=1e-6 * second**1.5)


DRAWN = [
    *((name, "float32") for name in INTERVALS),
    *((name, "float64") for name in WIDE),
]
# Intervals that lie to their law as another does.
MIRRORED = ("half", "lower half", "narrow tail", "mean far below", "30 sigmas below")
LIKE_ANOTHER = ("not cut", "thin, around the mean", "around a mean", "lower tail")
LIKE_ANOTHER += ("beside the mean", "mean far above", "30 sigmas")
BEYOND = [
    *((name, "float32") for name in (*MIRRORED, *LIKE_ANOTHER)),
    *((name, "float64") for name in ("skew", "narrow tail", "mean far above")),
    *((name, "float64") for name in ("one step", "beside the mean")),
    *((name, "float32") for name in ("three numbers", "tail")),
]


@pytest.mark.parametrize("case", sampled(DRAWN, BEYOND), ids=", ".join)
def test_draws_between_bounds_have_the_law(case):
    """One false alarm in 1e9; the independent law counts no rounding to few numbers."""
    name, dtype = case
    init, x = between(name), drawn_between(name, dtype)
    assert INTERVALS[name][2] <= x.min() <= x.max() <= INTERVALS[name][3]
    with jax.enable_x64(dtype == "float64"):
        assert jaxinit.stats.fit(x, init).p > 1e-9
        assert jaxinit.stats.fit(np.sort(x)[: DRAWS * 9 // 10], init).p < 1e-9
    if dtype == "float32" and name in ("one step", "three numbers"):
        return
    peak, y, weights = probabilities(name)
    below = np.cumsum(weights) - weights / 2
    levels = np.interp(x.astype(np.float64) - peak, y, below)
    assert stats.kstest(levels, "uniform").pvalue > 1e-9


@pytest.mark.parametrize("name", sampled(TAILS, ["narrow tail", "mean far above"]))
def test_draws_of_a_tail_are_the_quantiles_of_their_words(name):
    """Long tails from their end, short ones from their start, of all bits of a word."""
    stddev, mean, low, high = INTERVALS[name]
    is_lower = high <= mean
    near, far = (mean - high, mean - low) if is_lower else (low - mean, high - mean)
    x = drawn_between(name, "float64")
    with jax.enable_x64(True):
        words = np.asarray(jax.random.bits(jax.random.key(8), (DRAWS,), "uint64"))
    u = words.astype(np.float64) * 0.5**64 + 0.5**65

    def beyond(y):  # the log probability beyond it, over that beyond the near end
        return special.log_ndtr(-y / stddev) - special.log_ndtr(-near / stddev)

    below = np.expm1(beyond(mean - x if is_lower else x - mean)) / np.expm1(beyond(far))
    is_short = -beyond(far) < 0.5
    np.testing.assert_allclose(below, u if is_short else 1 - u, rtol=0, atol=1e-12)
    assert abs(below - 1.0001 * u).max() > 1e-6, "negative control"


def test_the_least_word_is_drawn_half_a_step_from_the_end(monkeypatch):
    """Else it would be infinite: once in 2**32 entries of float32."""
    monkeypatch.setattr(jax.random, "bits", lambda _, *like: jnp.zeros(*like))
    law = laws.NormalBetween(1.0, 0.0, 6.0, math.inf)
    x = between_bounds.draw_between(None, (1,), np.dtype("float32"), law)
    assert float(x[0]) == pytest.approx(stats.norm.isf(stats.norm.sf(6) / 2**33))


@pytest.mark.parametrize(
    ("start", "exponent"), [(0.0, 800.0), (5.0, 30.0), (90.0, 1.0)]
)
def test_reach_solves_its_equation(start, exponent):
    y = _tail.reach(start, exponent)
    assert float(_tail.hazard(start)) * y + y * y / 2 == pytest.approx(exponent, 1e-12)
    assert _tail.cumulative_hazard(start, np.array(y)) < exponent


def test_draws_of_few_numbers():
    one_step, three = (
        drawn_between(name, "float32") for name in ("one step", "three numbers")
    )
    numbers, counts = np.unique(one_step, return_counts=True)
    assert numbers.tolist() == list(INTERVALS["one step"][2:])
    assert abs(counts[0] - DRAWS / 2) < SIGMAS * math.sqrt(DRAWS) / 2
    assert len(np.unique(three)) == 3


def test_a_tail_without_end_has_no_heap_at_its_end(key):
    """23 bits would tie in 6 of the 100 pairs: 1 in 400 here, of float32's numbers."""
    x = np.sort(jaxinit.truncated_normal(1.0, low=6.0, high=math.inf)(key, (2**20,)))
    assert len(np.unique(x[-100:])) == 100


EMPTY = {
    "between two numbers": (1 + 1e-9, 1 + 2e-9, "float32"),
    "between two of a narrow dtype": (1.001, 1.002, "bfloat16"),
    "beyond the greatest": (1e39, math.inf, "float32"),
    "below the least": (-math.inf, -1e39, "float32"),
    "of numbers that XLA takes for zero": (1e-40, 1e-39, "float32"),
}


@pytest.mark.parametrize("name", EMPTY)
def test_bounds_with_no_number_between_are_refused(key, name):
    low, high, dtype = EMPTY[name]
    init = jaxinit.truncated_normal(1.0, low=low, high=high)
    parts = [f"no number of dtype {dtype}", f"low={low}", f"high={high}", "wider"]
    assert_refuses(lambda: init(key, (3,), dtype), parts)
    assert_refuses(lambda: init.moments((3,), dtype), parts)


@pytest.mark.parametrize("bounds", [(6.0, 7.0), (-7.0, -6.0), (8.0, math.inf)])
def test_cdf_of_a_tail_is_exact(bounds):
    x = np.linspace(6.0, 9.0, 31) * math.copysign(1, bounds[0])
    wanted = stats.truncnorm.cdf(x, *bounds)
    law = laws.TruncatedNormal(1.0, *bounds)
    np.testing.assert_allclose(law.cdf(x), wanted, rtol=1e-9, atol=1e-12)
    assert law.cdf(np.array([-math.inf, math.inf])).tolist() == [0, 1]


def test_two_sigma_truncation_is_the_documented_number():
    assert jaxinit.truncated_normal(1.0).moments((1,)).std == 0.87962566103423978
    corrected = jaxinit.truncated_normal(2.0, corrected=True).moments((1,))
    assert corrected.std == pytest.approx(2.0, rel=1e-14)


def test_complex_truncation_is_wider_than_asked_for():
    # the constant that jax divides by is not the deviation of its law
    std = jaxinit.lecun_normal().moments((100, 1), jnp.complex64).std
    assert std == pytest.approx(0.1 * 1.00929, rel=1e-4)


def test_zero_spread_and_narrow_bounds():
    flat = jaxinit.normal(0.0, mean=2.0).moments((3,))
    assert flat[:2] == (2.0, 0.0)
    assert flat[3:] == (2.0, 2.0)
    assert math.isnan(flat.kurtosis)
    assert jaxinit.normal(1.0).moments((3,), jnp.float16).high == 65504
    assert jaxinit.normal(1.0).moments((3,), jnp.float32).high == math.inf
    assert jaxinit.he_normal().moments((0, 3)).std == 0


def test_moments_of_a_mixture_of_skew_laws_are_exact():
    left, right = (0.0, 0.0, 3.0), (1.0, 5.0, 5.0, 6.0)
    parts = [(laws.Values(values), len(values)) for values in (left, right)]
    mixed = laws.Mixture(tuple(parts))
    whole = laws.Values((*left, *right))
    assert mixed.moments() == pytest.approx(whole.moments(), rel=1e-12)
    assert mixed.third() == pytest.approx(whole.third(), rel=1e-12)
    flipped = laws.Shifted(laws.Scaled(mixed, -2.0), 1.0)
    other = laws.Values(tuple(1 - 2 * x for x in (*left, *right)))
    assert flipped.moments() == pytest.approx(other.moments(), rel=1e-12)
    assert flipped.third() == pytest.approx(other.third(), rel=1e-12)


@pytest.mark.parametrize("factor", [2.0, -2.0, -1.0])
def test_cdf_of_a_scaled_law_steps_at_its_values(factor):
    values = (-1.0, 2.0, 2.0, 3.0)
    scaled = laws.Scaled(laws.Values(values), factor)
    whole = laws.Values(tuple(factor * x for x in values))
    at = np.array(whole.values)
    for x in (np.nextafter(at, -np.inf), at, np.nextafter(at, np.inf)):
        np.testing.assert_array_equal(scaled.cdf(x), whole.cdf(x))


def test_third_moments_by_quadrature():
    law = laws.TruncatedNormal(2.0, -0.5, 3.0)
    skewness = stats.truncnorm(-0.5, 3.0).stats("s")
    assert law.third() == pytest.approx(skewness * law.moments().variance ** 1.5)
    exponential = laws.Quantile(jaxinit.lru_theta(1.0))  # log(u)
    assert exponential.third() == pytest.approx(-2, rel=1e-9)


def test_moments_of_a_quantile_function():
    exponential = jaxinit.lru_theta(1.0).moments((1,))
    assert exponential[:3] == pytest.approx((-1, 1, 9), rel=1e-9)
    assert exponential[3:] == (-math.inf, 0)
    a, b = 1.0, 16.0
    mean = (b * math.log(b) - a * math.log(a)) / (b - a) - 1
    found = jaxinit.log_uniform(a, b).moments((1,))
    assert found.mean == pytest.approx(mean, rel=1e-12)
    assert found[3:] == pytest.approx((0, math.log(16)), abs=1e-12)
    ends = jaxinit.lru_nu().moments((1,))  # of log(-log(u) / 2): Gumbel's law
    assert ends.variance == pytest.approx(math.pi**2 / 6, rel=1e-8)


def test_laws_are_values():
    law = laws.TruncatedNormal(1.0, -2.0, 2.0)
    assert law == pickle.loads(pickle.dumps(law))
    assert "truncated at -2 and 2" in str(law)
    init = jaxinit.log_uniform(1.0, 3.0)
    law = init.entry_law((2,), np.dtype(np.float32))
    assert law == pickle.loads(pickle.dumps(law))
    assert "log(1 + 2 u)" in str(law)
