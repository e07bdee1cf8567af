"""Whether entries look drawn, and how improbable it is that draws agree by chance.

Constants, identities and tables are equal in every block of a right model; draws are
not. `is_drawn` tells them apart by what draws do not do: take few values, or follow
their neighbours. Of `[2, 1, 0.5, 0.25, ...]` every entry follows from the one before.

How much is known of draws that agree is counted in bits: if two of them are equal with
probability 2**-7, `n` of them all are with 2**-7n. What a tree may show by chance is at
most `RATE_BITS` bits, 2**-41 or 5e-13, over all pairs of its arrays.
"""

import math

import jax.numpy as jnp
import numpy as np

RATE_BITS = 41.0
_SAMPLE = 4096
_SIDE = 64  # of the corner of an array in which neighbours are compared
_LINE = 8  # shortest line whose neighbours are compared


def reals(values: np.ndarray) -> np.ndarray:
    """Real parts in float32 or wider, that NumPy can sort."""
    values = np.real(values)
    return values if values.dtype.itemsize >= 4 else values.astype(np.float32)


def is_drawn(values: np.ndarray, fewest: int | None = None) -> bool:
    """Whether finite entries look like draws, and not like a constant or a table.

    Args:
        values: the entries, on the host.
        fewest: least number of different values other than zero; by default 10, or 17
            in dtypes below 32 bits.
    """
    if fewest is None:
        fewest = 10 if values.dtype.itemsize >= 4 else 17
    corner = values[tuple(slice(_SIDE) for _ in values.shape)]
    sample = reals(corner).ravel()[:_SAMPLE]
    if (distinct := np.unique(sample[sample != 0]).size) < fewest:
        sample = some_nonzero(values, _SAMPLE)
        distinct = np.unique(sample).size
    return distinct >= fewest and not _is_smooth(reals(corner))


def some_nonzero(values: np.ndarray, count: int) -> np.ndarray:
    """The first entries of an array that are not zero; their real parts."""
    flat, end = values.reshape(-1), 8 * count
    while True:
        found = flat[:end]
        found = found[found != 0]
        if found.size >= count or end >= flat.size:
            return reals(found[:count])
        end *= 8


def _is_smooth(corner: np.ndarray) -> bool:
    """Whether lines along some axis follow their neighbours.

    The squared correlation of neighbours is about `1 / length` in a line of draws, near
    1 in smooth ones, and 1/2 on average over the waves of a Fourier transform.
    """
    return any(
        _neighbours(np.moveaxis(corner, axis, -1)) > max(0.2, min(0.6, 10 / length))
        for axis, length in enumerate(corner.shape)
        if length >= _LINE
    )


def _neighbours(lines: np.ndarray) -> float:
    """Mean over lines, along the last axis, of the squared correlation of neighbours.

    Of lines that are constant nothing is known; they are left out.
    """
    lines = lines.reshape(-1, lines.shape[-1]).astype(np.float64)
    lines = lines[np.ptp(lines, axis=1) > 0]
    if not lines.size:
        return 0.0
    left, right = (
        part - part.mean(axis=1, keepdims=True)
        for part in (lines[:, :-1], lines[:, 1:])
    )
    scale = np.sum(left**2, axis=1) * np.sum(right**2, axis=1)
    squares = np.sum(left * right, axis=1) ** 2
    known = scale > 0
    return float(np.mean(squares[known] / scale[known])) if known.any() else 0.0


def bits_of(values: np.ndarray) -> float:
    """At least so many bits does an entry tell, of draws like these.

    If values repeat, the bits of the probability that two of them are equal. Else those
    of the mantissa, less three, as far as the number of entries bears it out.
    """
    _, counts = np.unique(reals(values).ravel()[:_SAMPLE], return_counts=True)
    size = counts.sum()
    if counts.max() == 1:
        wide = float(jnp.finfo(values.dtype).nmant - 3)
        return max(math.log2(size), wide if values.dtype.itemsize >= 4 else 0.0)
    return -math.log2(float(np.sum((counts / size) ** 2)))
