"""The law of entries as they are stored: clipped and rounded to a dtype."""

import functools
import math

import jax.numpy as jnp
import numpy as np

from jaxinit._array.laws import Law, Moments


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
