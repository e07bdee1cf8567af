"""The Kolmogorov-Smirnov distance of entries from a distribution.

Also for arrays that span processes: instead of entries, only counts travel.
"""

from collections.abc import Callable, Sequence

import jax.numpy as jnp
import numpy as np

from jaxinit._arrays.spread import summed
from jaxinit.laws.rounded import all_numbers, cell

Cdf = Callable[[np.ndarray], np.ndarray]

QUANTILES = 2**14  # numbers at which counts of several processes are compared


def distance(
    parts: Sequence[np.ndarray], cdf: Cdf, size: int, spread: np.dtype | None = None
) -> tuple[float, float]:
    """The greatest difference between the empirical and the expected cdf.

    Entries are rounded: each stands for all numbers that round to it.

    Args:
        parts: the finite entries of this process, in flat arrays.
        cdf: the expected cdf.
        size: number of entries in all processes.
        spread: None if `parts` has all entries; then the cdfs are compared at every
            entry. Else the dtype of the entries; then they are compared at every number
            of a dtype of 16 bits or fewer, and at quantiles for wider ones.

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
    """For each number, how many entries of sorted arrays are below it, and up to it."""
    counts = np.zeros((2, numbers.size), np.int64)
    wide = numbers.astype(_wide(numbers.dtype))
    for part in parts:
        entries = part.astype(wide.dtype)
        for row, side in zip(counts, ("left", "right"), strict=True):
            row += np.searchsorted(entries, wide, side)
    return counts


def quantiles(cdf: Cdf, dtype: np.dtype) -> np.ndarray:
    """Numbers of a dtype with a probability of at most `1 / QUANTILES` between them.

    For a dtype of 16 bits or fewer, all its numbers. Else for each multiple of
    `1 / QUANTILES`, the least number whose cdf, after rounding, is as large; found by
    bisection over all numbers of the dtype, in order.
    """
    if dtype.itemsize < 4:
        return all_numbers(dtype)
    shares = np.arange(1, QUANTILES + 1) / QUANTILES
    limits = jnp.finfo(dtype)
    low, high = (
        np.full(shares.shape, _ranks(np.array(end, dtype)))
        for end in (limits.min, limits.max)
    )
    while (low < high).any():
        # Halved before they are added, because the sum may not fit.
        middle = (low >> 1) + (high >> 1) + (low & high & 1)
        reached = cdf(cell(_of_rank(middle, dtype))[1]) >= shares
        low, high = np.where(reached, low, middle + 1), np.where(reached, middle, high)
    return np.unique(_of_rank(high, dtype))


def _ranks(numbers: np.ndarray) -> np.ndarray:
    """Integers in the order of the numbers: next numbers have next integers.

    Positive floats have the order of their bits, negative ones the reverse.
    """
    bits = numbers.view(f"i{numbers.dtype.itemsize}")
    return np.where(bits < 0, bits ^ np.iinfo(bits.dtype).max, bits).astype(np.int64)


def _of_rank(ranks: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """The numbers of these ranks; see `_ranks`."""
    bits = ranks.astype(f"i{dtype.itemsize}")
    return np.where(bits < 0, bits ^ np.iinfo(bits.dtype).max, bits).view(dtype)


def _wide(dtype: np.dtype) -> np.dtype:
    return dtype if dtype.itemsize >= 4 else np.dtype(np.float32)
