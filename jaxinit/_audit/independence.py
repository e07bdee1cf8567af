"""Whether entries depend on each other, though each has a known law.

A matrix may be symmetric, have columns of one length or few dimensions, and still have
the moments and the distances of independent draws. Take columns of `f32[256,128]` that
are each divided by their length: the mean squares of the columns of a draw would differ
by `sqrt(2 / 256)`, nine percent of them, and these do not at all.

What holds: of independent draws that are normal, truncated or uniform, each test
says that they depend on each other in less than one array in 1e12.
"""

import math

import numpy as np

from jaxinit._arrays.spread import on_host
from jaxinit._audit.drawn import is_drawn
from jaxinit._audit.leaves import Leaf
from jaxinit.laws import Moments

_SIDE = 1024  # most rows and columns that are looked at
_LINES = 64  # most lines whose products are looked at
_FEWEST = 8  # lines, and entries of each
_ERRORS = 7.5  # standard errors; the tails of sums of squares are heavier than normal


def dependence(leaf: Leaf, moments: Moments) -> str | None:
    """How entries depend on each other, in words; None if nothing is seen of it.

    Args:
        leaf: a leaf with finite entries.
        moments: those of the law.
    """
    x = on_host(leaf.array)
    if x.ndim < 2 or x.dtype.kind == "c":
        return None
    matrix = x.reshape(-1, x.shape[-1])[:_SIDE, :_SIDE].astype(np.float64)
    matrix = matrix - moments.mean
    if not is_drawn(x, 4):
        return "neighbours follow each other"
    if min(matrix.shape) < _FEWEST:
        return None
    is_square = x.ndim == 2 and x.shape[0] == x.shape[1]
    if is_square and (matrix == matrix.T).all():
        return "it is symmetric"
    if is_square and (matrix == -matrix.T).all():
        return "it is antisymmetric"
    for name, lines in (("columns", matrix.T), ("rows", matrix)):
        found = _of_lines(lines, moments.kurtosis)
        if found:
            return f"{name} {found}"
    return None


def _of_lines(lines: np.ndarray, kurtosis: float) -> str | None:
    """What is odd about the rows of a matrix, if they were independent draws."""
    count, size = lines.shape
    squares = np.mean(lines**2, axis=1)
    spread = np.mean((squares / squares.mean() - 1) ** 2) * size / (kurtosis - 1)
    low, high = _range(count, size)
    if not low < spread < high:
        return "are of equal length" if spread < 1 else "are of unlike lengths"
    some = lines[np.linspace(0, count - 1, min(count, _LINES)).astype(int)]
    some = some / np.sqrt(np.mean(some**2, axis=1, keepdims=True))
    products = (some @ some.T) / math.sqrt(size)
    off = products[np.triu_indices(len(some), 1)]
    error = math.sqrt((2 + 12 / size) / off.size)
    if abs(np.mean(off**2) - 1) > _ERRORS * error:
        return "depend on each other"
    return None


def _range(count: int, size: int) -> tuple[float, float]:
    """Between what the mean square of so many deviations lies, by chance.

    Of normal ones it is a chi-square over its degrees of freedom, whose cube root is
    nearly normal (Wilson and Hilferty, 1931); sums of few squares have longer tails.
    """
    error = math.sqrt(2 / (9 * count) * (1 + 6 / size))
    middle = 1 - 2 / (9 * count)
    return (max(0.0, middle - _ERRORS * error)) ** 3, (middle + _ERRORS * error) ** 3
