"""The part of a normal law beyond a point, seen from that point, to all digits.

What is `y` beyond the point `start` has the density `exp(-start y - y**2 / 2)`, up to
a factor, for `0 < y < width`. Nothing here subtracts two numbers that are nearly equal,
so that tails at any distance and intervals of any width keep their digits.
"""

import functools
import math
from typing import Any

import numpy as np

from jaxinit.laws._quadrature import gauss_legendre

_DEGREE = 24  # of the fit before it is cut; float64 needs 22
_STEPS = 6  # of Newton's iteration, from a start of one digit


def hazard(x: Any) -> Any:
    """Density of the standard normal law at `x` over its probability beyond `x`."""
    from scipy.special import erfcx  # slow to import; jax needs scipy anyway

    return math.sqrt(2 / math.pi) / erfcx(np.asarray(x) / math.sqrt(2))


def cumulative_hazard(start: float, y: np.ndarray) -> np.ndarray:
    """`-log(P(z > start + y) / P(z > start))`, `z` standard normal.

    The integral of the hazard, whose terms are all positive.

    Args:
        start: a number, not far below zero.
        y: float64 distances, zero or greater; may be infinite.
    """
    points, weights = gauss_legendre()
    y = np.minimum(y, reach(start, 800.0))  # exp(-800) is zero
    mean = sum(
        w / 2 * hazard(start + (1 + x) / 2 * y)
        for x, w in zip(points, weights, strict=True)
    )
    return y * mean


def reach(start: float, exponent: float) -> float:
    """A distance at which `hazard(start) y + y**2 / 2` is `exponent`.

    The cumulative hazard is less than that expression.
    """
    slope = float(hazard(start))
    return 2 * exponent / (slope + math.hypot(slope, math.sqrt(2 * exponent)))


def tail_cdf(start: float, width: float, y: np.ndarray) -> np.ndarray:
    """Probability of a distance at or below `y`."""
    inside = np.clip(y, 0.0, width)
    whole = math.expm1(-float(cumulative_hazard(start, np.asarray(width))))
    return np.expm1(-cumulative_hazard(start, inside)) / whole


@functools.lru_cache(256)
def stretch_of(
    start: float, far: float, tolerance: float
) -> tuple[float, float, tuple[float, ...]]:
    """`y / g`, where `t = slope g + g**2 / 2` is the cumulative hazard at `y`.

    It is between 1 and 1.1, and a polynomial of `x = 2 / top * g / (g + bend) - 1`,
    which is between -1 and 1.

    Args:
        start: where the tail begins.
        far: the greatest cumulative hazard, greater than zero.
        tolerance: what the polynomial may be off by.

    Returns:
        `bend`, `top` and the coefficients, highest first.
    """
    slope, end, bend = float(hazard(start)), reach(start, far), start + 2.5
    top = end / (end + bend)

    def stretch(x):
        ratio = top / 2 * (x + 1)
        g = bend * ratio / (1 - ratio)
        return _inverse(start, slope * g + g * g / 2, g) / g

    series = np.polynomial.chebyshev.chebinterpolate(stretch, _DEGREE)
    series = np.polynomial.chebyshev.chebtrim(series, tolerance)
    powers = np.polynomial.chebyshev.cheb2poly(series)[::-1]
    return bend, top, tuple(map(float, powers))


def _inverse(start: float, t: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Where the cumulative hazard is `t`, by Newton's iteration from `y`."""
    for _ in range(_STEPS):
        y = y - (cumulative_hazard(start, y) - t) / hazard(start + y)
    return y
