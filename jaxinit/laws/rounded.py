"""The law of entries as they are stored: clipped and rounded to a dtype."""

import functools
import math

import jax.numpy as jnp
import numpy as np

from jaxinit.laws.base import Law, Moments


def cell(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The intervals of numbers that rounding to nearest takes to these values.

    Args:
        values: finite numbers of a floating-point dtype.

    Returns:
        Lower and upper ends, float64, of the shape of `values`; those of the least and
        the greatest number of the dtype are infinite, as draws are clipped to these.
    """
    limits, wide = jnp.finfo(values.dtype), values.astype(np.float64)
    with np.errstate(all="ignore"):  # beyond the greatest number
        neighbours = [
            np.nextafter(values, np.asarray(limit, values.dtype)).astype(np.float64)
            for limit in (limits.min, limits.max)
        ]
    below, above = ((wide + other) / 2 for other in neighbours)
    return (
        np.where(wide <= float(limits.min), -math.inf, below),
        np.where(wide >= float(limits.max), math.inf, above),
    )


def numbers_between(
    low: float, high: float, dtype: np.dtype
) -> tuple[float, float] | None:
    """The least and the greatest number of a dtype from `low` to `high`.

    Infinite bounds stay so. None if there is no finite number in between. What is too
    small for a normal number, in the float32 or float64 it is drawn in, is none: XLA
    takes it for zero.

    Args:
        low: lower bound.
        high: upper bound.
        dtype: a floating-point one.
    """
    limits = jnp.finfo(dtype)
    if low > float(limits.max) or high < float(limits.min):
        return None
    least = _nearest_number(low, np.inf, dtype)
    greatest = _nearest_number(high, -np.inf, dtype)
    return (least, greatest) if least <= greatest else None


def _nearest_number(bound: float, inwards: float, dtype: np.dtype) -> float:
    """The number of a dtype nearest to a bound, on the side of it that is `inwards`."""
    if math.isinf(bound):
        return bound
    limits, drawn = jnp.finfo(dtype), np.float64 if dtype.itemsize == 8 else np.float32
    tiny = float(np.finfo(drawn).tiny)
    if 0 < abs(bound) < tiny:
        bound = 0.0 if bound * inwards < 0 else math.copysign(tiny, bound)
    clipped = min(max(bound, float(limits.min)), float(limits.max))
    nearest = np.asarray(clipped).astype(dtype)
    if (float(nearest) - clipped) * inwards < 0:
        nearest = np.nextafter(nearest, np.asarray(inwards).astype(dtype))
    return float(nearest)


@functools.lru_cache(256)
def rounded_moments(law: Law, dtype: np.dtype) -> Moments:
    """Moments of a law, clipped and rounded to a dtype of 16 bits or fewer.

    Exact: a sum over all numbers of the dtype. Rounding adds to the variance what is
    nothing in bfloat16 and can be seen in float8; clipping takes from it.
    """
    values = all_numbers(dtype)
    low, high = cell(values)
    weights = law.cdf(high) - law.cdf(np.nextafter(low, -math.inf))
    weights, values = weights / weights.sum(), values.astype(np.float64)
    mean = float(weights @ values)
    squares = (values - mean) ** 2
    variance = float(weights @ squares)
    mean = mean if abs(mean) > 1e-12 * math.sqrt(variance) else 0.0  # is symmetric
    kurtosis = float(weights @ squares**2) / variance**2 if variance else math.nan
    ends = (_rounded(end, dtype) for end in law.moments()[3:])
    return Moments(mean, variance, kurtosis, *ends)


def _rounded(bound: float, dtype: np.dtype) -> float:
    """A bound of the law as one of its rounded entries; infinite ones stay so."""
    if math.isinf(bound):
        return bound
    limits = jnp.finfo(dtype)
    clipped = min(max(bound, float(limits.min)), float(limits.max))
    return float(np.asarray(clipped, dtype))


@functools.cache
def all_numbers(dtype: np.dtype) -> np.ndarray:
    """The finite numbers of a dtype, ascending."""
    bits = jnp.finfo(dtype).bits
    codes = np.arange(2**bits, dtype=np.uint8 if dtype.itemsize == 1 else np.uint16)
    with np.errstate(invalid="ignore"):  # codes of NaN
        values = codes.view(dtype).astype(np.float64)
    return np.unique(values[np.isfinite(values)]).astype(dtype)
