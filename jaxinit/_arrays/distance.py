"""The Kolmogorov-Smirnov distance of entries from a law, also of spread ones."""

from collections.abc import Callable, Sequence

import jax.numpy as jnp
import numpy as np

from jaxinit._arrays.spread import summed
from jaxinit.laws.rounded import all_numbers, cell

Cdf = Callable[[np.ndarray], np.ndarray]

QUANTILES = 2**14  # where the shares of entries that span processes are compared


def distance(
    parts: Sequence[np.ndarray], cdf: Cdf, size: int, spread: np.dtype | None = None
) -> tuple[float, float]:
    """The greatest difference of the shares of entries and their probabilities.

    Each number stands for all that round to it.

    Args:
        parts: the finite entries, in flat arrays.
        cdf: the law.
        size: number of entries.
        spread: None if the parts are all entries; then the shares are compared at every
            entry. Else the dtype of entries of which other processes have parts; then
            they are compared at every number of a dtype of 16 bits or fewer, at
            quantiles of the law for wider ones, and only counts travel.

    Returns:
        The distance, at quantiles up to `1 / QUANTILES` too small, and its p-value.
    """
    from scipy.stats import kstwo  # slow to import

    parts = [np.sort(part) for part in parts]
    if spread is None:
        numbers = np.unique(np.concatenate(parts))
        counts = _counts(parts, numbers)
    else:
        numbers = quantiles(cdf, spread)
        counts = summed(_counts(parts, numbers))
    before, after = counts / size
    low, high = cell(numbers)
    distance = max(
        np.max(np.abs(after - cdf(high))),
        np.max(np.abs(before - cdf(np.nextafter(low, -np.inf)))),
    )
    return float(distance), float(kstwo.sf(distance, size))


def _counts(parts: Sequence[np.ndarray], numbers: np.ndarray) -> np.ndarray:
    """How many entries of sorted parts are below each number, and up to it."""
    counts = np.zeros((2, numbers.size), np.int64)
    wide = numbers.astype(_wide(numbers.dtype))
    for part in parts:
        entries = part.astype(wide.dtype)
        for row, side in zip(counts, ("left", "right"), strict=True):
            row += np.searchsorted(entries, wide, side)
    return counts


def quantiles(cdf: Cdf, dtype: np.dtype) -> np.ndarray:
    """Numbers of a dtype that a law has at most `1 / QUANTILES` between.

    All of a dtype of 16 bits or fewer; else for each share the least number that so
    large a share of entries is rounded to or below.
    """
    if dtype.itemsize < 4:
        return all_numbers(dtype)
    shares = np.arange(1, QUANTILES + 1) / QUANTILES
    limits = jnp.finfo(dtype)
    low, high = (
        np.full(shares.shape, _places(np.array(end, dtype)))
        for end in (limits.min, limits.max)
    )
    while (low < high).any():
        middle = (low >> 1) + (high >> 1) + (low & high & 1)  # sums may not fit
        reached = cdf(cell(_numbers(middle, dtype))[1]) >= shares
        low, high = np.where(reached, low, middle + 1), np.where(reached, middle, high)
    return np.unique(_numbers(high, dtype))


def _places(numbers: np.ndarray) -> np.ndarray:
    """Integers in the order of the numbers, one for each of a dtype."""
    bits = numbers.view(f"i{numbers.dtype.itemsize}")
    return np.where(bits < 0, bits ^ np.iinfo(bits.dtype).max, bits).astype(np.int64)


def _numbers(places: np.ndarray, dtype: np.dtype) -> np.ndarray:
    bits = places.astype(f"i{dtype.itemsize}")
    return np.where(bits < 0, bits ^ np.iinfo(bits.dtype).max, bits).view(dtype)


def _wide(dtype: np.dtype) -> np.dtype:
    return dtype if dtype.itemsize >= 4 else np.dtype(np.float32)
