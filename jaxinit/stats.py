"""What is in an array, and how far it is from what was expected, in standard errors.

Arrays are measured in one pass on the device that holds them. A score compares the
sample mean and variance with those of a law, whose own kurtosis and bounds say how much
they may vary by chance.
"""

import contextlib
import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxinit._arrays.distance import distance
from jaxinit._arrays.measured import Measured as Measured
from jaxinit._arrays.measured import measure as measure
from jaxinit._arrays.spread import local_shards, spans
from jaxinit.initializers.base import Initializer, checked_initializer
from jaxinit.laws import Moments
from jaxinit.laws.rounded import rounded_moments

_FEW = 128  # entries below which sums of bounded laws are bounded, not approximated
_ROUNDING = 1e-5  # relative error of a measured moment, by float32 alone


@dataclass(frozen=True)
class Score:
    """How far the mean and variance of an array are from those expected.

    A p-value is the probability that chance alone takes a right array as far. It comes
    from one of these methods:

    - "normal": the sum of the entries is taken to be normal. Exact for normal laws.
    - "chi-square": of the sum of squares of a law without bounds, with
      `2 size / (kurtosis - 1)` degrees of freedom. Exact for normal laws, real and
      complex; the right first two moments for every law. Also of complex means.
    - "Pearson III": a chi-square, shifted and scaled to three moments. For laws with
      bounds, whose third moments are taken to be those of a beta law on these bounds,
      which is exact for uniform laws.
    - "Bernstein": an upper bound that holds at any size, for laws with bounds: for
      fewer than 128 entries, and for the mean of a law of two equally far values.
    - "exact": there is no chance in it: a constant must be itself, up to rounding.
    - "not finite": some entries are NaN or infinite.

    Attributes:
        mean: difference of the means in standard errors, signed; infinite where an
            exact value is missed; None if no mean was expected.
        variance: difference of the variances in standard errors, signed.
        mean_p: p-value of the mean, two-sided; 1 if no mean was expected.
        variance_p: p-value of the variance, two-sided.
        mean_method: the method of `mean_p`.
        variance_method: the method of `variance_p`.
    """

    mean: float | None
    variance: float
    mean_p: float
    variance_p: float
    mean_method: str
    variance_method: str

    @property
    def p(self) -> float:
        """P-value of both together, corrected for being two."""
        return min(1.0, 2 * min(self.mean_p, self.variance_p))

    @property
    def worst(self) -> float:
        """The greater of both differences, in standard errors; infinite for NaN."""
        both = abs(self.mean or 0.0), abs(self.variance)
        return max(math.inf if math.isnan(error) else error for error in both)


def expected_moments(
    expected: Any, shape: tuple[int, ...], dtype: Any = None
) -> Moments:
    """The moments that entries of an array are expected to have.

    Args:
        expected: an initializer, whose law is rounded to dtypes of 16 bits or fewer
            if it has a `cdf`;
            `Moments`, taken as those of the entries as they are stored; or a variance
            alone, a positive number, of a law whose kurtosis is at most the normal one.
        shape: shape of the array.
        dtype: its dtype.

    Returns:
        The moments. A NaN kurtosis says that the values are fixed, a NaN mean that the
        mean is not known.

    Raises:
        TypeError: if `expected` is none of these.
        ValueError: if the variance is negative or not finite, zero as a number, or the
            entries of the initializer depend on each other.
    """
    if isinstance(expected, Initializer):
        return _of_initializer(expected, shape, dtype)
    if not isinstance(expected, Moments):
        variance = _number(expected)
        if not (0 < variance < math.inf):
            raise ValueError(
                f"expected must be a variance greater than zero, got {expected!r}; for "
                "constants give the initializer, such as jaxinit.zeros."
            )
        return Moments(math.nan, variance, 3.0, -math.inf, math.inf)
    if not (0 <= expected.variance < math.inf):
        raise ValueError(
            f"expected.variance must be finite and not negative, got {expected}."
        )
    _refuse_impossible(expected)
    return expected


def _refuse_impossible(expected: Moments) -> None:
    mean, variance, kurtosis, low, high = expected
    inside = math.isnan(mean) or low <= mean <= high
    widest = (high - mean) * (mean - low) if low < mean < high else math.inf
    if kurtosis < 1 or not inside or variance > 1.001 * widest:
        raise ValueError(
            f"there is no law with the expected {expected}: its mean must lie between "
            "its bounds, its variance be at most (high - mean) * (mean - low), and its "
            "kurtosis at least 1."
        )


def _number(expected: Any) -> float:
    try:
        return float(expected)
    except (TypeError, ValueError):
        raise TypeError(
            "expected must be an initializer, jaxinit.Moments or a variance, got "
            f"{expected!r}."
        ) from None


def refuse_dependent(init: Initializer, shape: tuple[int, ...]) -> None:
    """Raises if entries depend on each other: sample moments say little of them."""
    if not init.is_independent(shape):
        raise ValueError(
            f"the entries of {init!r} depend on each other, so that their moments and "
            "ranks do not vary as those of independent draws: check the matrices with "
            "jaxinit.testing.assert_orthogonal."
        )


def _of_initializer(init: Initializer, shape: tuple[int, ...], dtype: Any) -> Moments:
    refuse_dependent(init, shape)
    dtype = init._resolve(dtype)
    moments = init.moments(shape, dtype)
    if dtype.itemsize < 4 and jnp.issubdtype(dtype, np.floating):
        with contextlib.suppress(NotImplementedError):  # a law without a cdf
            moments = rounded_moments(init.entry_law(shape, dtype), dtype)
    return moments if init.draws else moments._replace(kurtosis=math.nan)


def score(x: Any, expected: Any) -> Score:
    """How far an array is from what was expected.

    The variance is that about the expected mean where there is one.

    Args:
        x: concrete array of a floating-point or complex dtype.
        expected: an initializer, `jaxinit.Moments`, or a variance; see
            `expected_moments`.

    Returns:
        The score.

    Raises:
        TypeError: if `x` is traced or not floating-point, or `expected` of a wrong
            type.
        ValueError: if `x` is too small to have a variance (at least one entry if the
            expected mean is known, else two), the expected variance is not possible, or
            entries depend on each other.

    >>> import jax, jaxinit
    >>> x = jaxinit.he_normal()(jax.random.key(0), (400, 300))
    >>> round(score(x, jaxinit.he_normal()).variance, 1)
    0.4
    >>> round(score(x, jaxinit.glorot_normal()).variance)
    223
    """
    dtype = jnp.result_type(x)
    return score_measured(
        measure(x), expected_moments(expected, jnp.shape(x), dtype), dtype
    )


def score_measured(measured: Measured, expected: Moments, dtype: Any) -> Score:
    """`score` of what was measured already, given the moments expected and the dtype.

    What rounding alone can do is taken off the differences: to a law that is narrow
    beside its mean, such as `normal(1.0, mean=1e8)` in float32, that is all there is.
    """
    size, unknown = measured.size, math.isnan(expected.mean)
    if size < 1 + unknown:
        raise ValueError(
            "a variance needs at least 2 entries, got an array of 1; or expect Moments "
            "or an initializer, which know the mean."
        )
    if np.any(measured.nonfinite):
        return Score(math.nan, math.nan, 0.0, 0.0, "not finite", "not finite")
    step = _step(expected, dtype)
    if unknown:
        squares, size = measured.variance * size / (size - 1), size - 1
        mean = _Test(None, 1.0, "")
    else:
        offset = measured.mean - expected.mean
        squares = measured.variance + np.abs(offset) ** 2
        mean = _mean_test(_less(offset, step), size, expected)
    difference = _less(squares - expected.variance, step * (2 * expected.std + step))
    spread = _variance_test(difference, size, expected)
    return Score(
        mean=_plain(mean.errors),
        variance=_plain(spread.errors),
        mean_p=_plain(mean.p),
        variance_p=_plain(spread.p),
        mean_method=mean.method,
        variance_method=spread.method,
    )


def _step(expected: Moments, dtype: Any) -> float:
    """The distance between numbers of a dtype at the expected mean.

    Zero below 32 bits, where the moments are those of the rounded law.
    """
    limits = jnp.finfo(dtype)
    is_rounded = limits.bits < 32 or math.isnan(expected.mean)
    return 0.0 if is_rounded else abs(expected.mean) * float(limits.eps)


def _less(difference: Any, allowed: float) -> Any:
    """A difference, nearer to zero by what is allowed."""
    size = np.abs(difference)
    return difference * (np.maximum(size - allowed, 0) / np.maximum(size, 5e-324))


def _plain(value: Any) -> Any:
    """A NumPy scalar as a Python one; many values as they are."""
    return value.item() if isinstance(value, np.generic) else value


class _Test(NamedTuple):
    """A difference in standard errors, its p-value and where that comes from."""

    errors: Any
    p: Any
    method: str


def _mean_test(offset: Any, size: int, expected: Moments) -> _Test:
    mean, variance, kurtosis, low, high = expected
    if math.isnan(kurtosis):
        return _exact_test(offset, max(abs(low), abs(high)))
    std = math.sqrt(variance)
    errors = offset * math.sqrt(size) / std
    if np.iscomplexobj(offset):
        errors = np.abs(errors)
        return _Test(errors, np.exp(-(errors**2)), "chi-square")
    bounds = (mean - low) / std, (high - mean) / std
    few = size < _FEW or _is_two_point(kurtosis)
    unbounded = "normal" if bounds == (math.inf, math.inf) else "Pearson III"
    return _sum_test(errors, size, bounds, few, unbounded)


def _variance_test(difference: Any, size: int, expected: Moments) -> _Test:
    """The test of a mean of squares, which lie between zero and the longest reach."""
    mean, variance, kurtosis, low, high = expected
    if math.isnan(kurtosis):
        return _exact_test(difference, max(abs(low), abs(high)) ** 2)
    if _is_two_point(kurtosis):
        return _exact_test(difference, variance)
    reach = math.inf if math.isnan(mean) else max(mean - low, high - mean)
    spread = math.sqrt(kurtosis - 1)
    errors = difference / variance * math.sqrt(size) / spread
    bounds = 1 / spread, (reach**2 / variance - 1) / spread
    return _sum_test(errors, size, bounds, size < _FEW, "chi-square")


def _is_two_point(kurtosis: float) -> bool:
    return kurtosis < 1 + 1e-6


def _exact_test(difference: Any, scale: float) -> _Test:
    missed = ~(np.abs(difference) <= _ROUNDING * scale)
    return _Test(
        np.where(missed, np.inf, 0.0)[()], np.where(missed, 0.0, 1.0)[()], "exact"
    )


def _sum_test(
    errors: Any, size: int, bounds: tuple[float, float], few: bool, unbounded: str
) -> _Test:
    """The test of a sum of `size` independent terms of one law.

    Args:
        errors: its difference from the expected sum, in standard errors.
        size: number of terms.
        bounds: how far each may fall below and rise above its mean, in deviations.
        few: whether a sum of bounded terms is not near enough to its limit.
        unbounded: name of the method for terms without an upper bound.
    """
    from scipy.stats import pearson3  # slow to import

    if few and max(bounds) < math.inf:
        reach = max(bounds) / (3 * math.sqrt(size))
        exponent = errors**2 / (2 * (1 + reach * np.abs(errors)))
        return _Test(errors, np.minimum(1.0, 2 * np.exp(-exponent)), "Bernstein")
    skew = _skew(*bounds) / math.sqrt(size)
    # The law ends at -2 / skew. A sum may lie there with a probability of its own, as
    # where nearly all entries round to zero, so that just above it is as good.
    above = np.maximum(errors, -1.999 / skew) if skew > 0 else errors
    tails = pearson3.cdf(above, skew), pearson3.sf(errors, skew)
    method = unbounded if math.isinf(bounds[1]) else "Pearson III"
    return _Test(errors, np.minimum(1.0, 2 * np.minimum(*tails)), method)


def _skew(below: float, above: float) -> float:
    """Skewness of a law of mean 0 and variance 1 on `[-below, above]`.

    That of the beta law with these moments; of the gamma law if one bound is infinite.
    """
    if math.isinf(above):
        return 0.0 if math.isinf(below) else 2 / below
    if math.isinf(below):
        return -2 / above
    share = below / (below + above)
    shapes = max(below * above - 1, 0.0)
    asymmetry = 2 * (1 - 2 * share) / math.sqrt(share * (1 - share))
    return asymmetry * math.sqrt(shapes + 1) / (shapes + 2)


class Fit(NamedTuple):
    """How far the entries of an array are from a law.

    Attributes:
        distance: greatest difference between the share of entries up to a number and
            the probability of that (Kolmogorov-Smirnov).
        p: its p-value. Exact for laws without ties, an upper bound for others.
    """

    distance: float
    p: float


def fit(x: Any, init: Initializer) -> Fit:
    """How far the entries of an array are from the law of an initializer.

    Each number stands for all that round to it, so that ties of low precision, clipped
    tails and laws that give a number a probability of its own are compared rightly. Of
    complex entries the distance from the mean and the direction are compared. The array
    is brought to the host and sorted. Of one that spans processes each sorts its own
    part and only counts travel: every process gets the distance at 16,384 quantiles,
    which is at most 1/16,384 too small and so never a false alarm more; of dtypes of 16
    bits or fewer the whole.

    Args:
        x: concrete array of a floating-point or complex dtype.
        init: the initializer.

    Returns:
        The distance and its p-value.

    Raises:
        TypeError: if `x` is traced, or of another dtype than a floating-point one.
        ValueError: if `x` has no entries, or they depend on each other.
        NotImplementedError: if the law of the initializer has no `cdf`.

    >>> import jax, jaxinit
    >>> x = jaxinit.normal(1.0)(jax.random.key(0), (1000,))
    >>> fit(x, jaxinit.normal(1.0)).p > 1e-3, fit(x, jaxinit.normal(1.2)).p < 1e-3
    (True, True)
    """
    refuse_dependent(checked_initializer("init", init), jnp.shape(x))
    if measure(x).nonfinite:
        return Fit(1.0, 0.0)
    law = init.entry_law(jnp.shape(x), init._resolve(jnp.result_type(x)))
    values = [np.asarray(part).ravel() for part in local_shards(x)]
    real = jnp.finfo(jnp.result_type(x)).dtype
    size, spread = jnp.size(x), real if spans(x) else None
    if not jnp.iscomplexobj(x):
        return Fit(*distance(values, law.cdf, size, spread))
    offsets = [part - part.dtype.type(law.moments().mean) for part in values]
    turns = [np.angle(part) / (2 * np.pi) + 0.5 for part in offsets]
    both = (
        distance([np.abs(part) for part in offsets], law.cdf, size, spread),
        distance(turns, lambda x: np.clip(x, 0.0, 1.0), size, spread),
    )
    distances, ps = zip(*both, strict=True)
    return Fit(max(distances), min(1.0, 2 * min(ps)))
