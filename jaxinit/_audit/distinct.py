"""How many different values are in an array, and how many a right draw would have.

A dtype of 16 bits has up to 65,536 numbers, and draws that are rounded to it hit nearly
all of those in reach. jax's own draws in bfloat16 have 7 random bits, so that a million
normal entries have 128 values, where rounded ones have about 3600.

With a law the expected number of values is the sum of `1 - (1 - p)**n` over all numbers
of the dtype, each of probability `p`. Without one the numbers between two powers of two
are taken to be equally likely, between the least and the greatest that occur. Numbers
that are hit are negatively associated, so that `t` too few of `m` expected ones have a
probability of at most `exp(-t**2 / (2 m))`.
"""

import functools
import math

import jax.numpy as jnp
import numpy as np

from jaxinit._arrays.spread import host_parts
from jaxinit._audit.leaves import Leaf
from jaxinit.laws import Law
from jaxinit.laws.rounded import all_numbers, cell

_CHUNK = 1 << 20
_HEAD = 4096
_LEVELS = 256  # a dtype of 32 bits with so few values is one that was quantised


def counted(leaf: Leaf) -> tuple[np.ndarray, np.ndarray]:
    """The values of a real leaf of 16 bits or fewer, ascending, and their counts."""
    unsigned = np.uint8 if leaf.dtype.itemsize == 1 else np.uint16
    if leaf.array.size < 4096:
        parts = [part.ravel() for part in host_parts(leaf.array)]
        values, counts = np.unique(_wide(np.concatenate(parts)), return_counts=True)
        return values, counts
    total = np.zeros(2 ** (8 * leaf.dtype.itemsize), np.int64)
    for part in host_parts(leaf.array):
        codes = part.reshape(-1).view(unsigned)
        for start in range(0, codes.size, _CHUNK):
            total += np.bincount(codes[start : start + _CHUNK], minlength=total.size)
    codes = np.flatnonzero(total)
    values = _wide(codes.astype(unsigned).view(leaf.dtype))
    values, places = np.unique(values, return_inverse=True)  # -0 is 0
    return values, np.bincount(places, total[codes]).astype(np.int64)


def _wide(values: np.ndarray) -> np.ndarray:
    return values.astype(np.float32)


def expected_by_law(law: Law, size: int, dtype: np.dtype) -> float:
    """How many different values so many draws of a law have, rounded to a dtype."""
    return _expected(_probabilities(law, dtype), size)


def _expected(p: np.ndarray, size: int) -> float:
    with np.errstate(divide="ignore"):
        return float(-np.sum(np.expm1(size * np.log1p(-np.minimum(p, 1.0)))))


@functools.lru_cache(64)
def _probabilities(law: Law, dtype: np.dtype) -> np.ndarray:
    low, high = cell(all_numbers(dtype))
    with np.errstate(over="ignore"):  # at the infinite ends
        p = law.cdf(high) - law.cdf(np.nextafter(low, -math.inf))
    return np.maximum(p[p > 0], 0.0)


def expected_by_values(
    values: np.ndarray, counts: np.ndarray, dtype: np.dtype
) -> float:
    """How many different values a smooth law with these counts would have.

    Args:
        values: the values that occur, ascending, in float32.
        counts: how often each does.
        dtype: the dtype, of 16 bits or fewer.
    """
    places = np.searchsorted(_wide(all_numbers(dtype)), values)
    binades = np.sign(values) * (np.frexp(values)[1] + 1000.0)
    starts = np.flatnonzero(np.diff(binades, prepend=np.nan))
    ends = np.append(starts[1:], values.size) - 1
    sizes = np.add.reduceat(counts, starts)
    numbers = places[ends] - places[starts] + 1
    with np.errstate(divide="ignore"):
        hit = -np.expm1(sizes * np.log1p(-1 / numbers))
    return float(np.sum(numbers * hit))


def is_short(distinct: int, expected: float, share: float, rate: float) -> bool:
    """Whether so few values are less than a share of those expected, and no chance."""
    short = expected - distinct
    return distinct < share * expected and short**2 > -2 * expected * math.log(rate)


def levels(leaf: Leaf) -> int | None:
    """Number of different values of a real leaf of 32 bits or more, if it is small."""
    parts = host_parts(leaf.array)
    if np.unique(parts[0].reshape(-1)[:_HEAD]).size > _LEVELS:
        return None
    seen = np.zeros(0, leaf.dtype)
    for part in parts:
        flat = part.reshape(-1)
        for start in range(0, flat.size, _CHUNK):
            seen = np.union1d(seen, flat[start : start + _CHUNK])
            if seen.size > _LEVELS:
                return None
    return seen.size


def random_bits(dtype: np.dtype) -> int:
    """Of how many random bits `jax.random.uniform` makes a number of a dtype."""
    return jnp.finfo(dtype).nmant
