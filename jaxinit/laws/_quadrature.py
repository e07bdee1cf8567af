"""Averages over a standard normal variable, and over a uniform one."""

import functools
import math
from collections.abc import Callable

import numpy as np

Function = Callable[[np.ndarray], np.ndarray]

BATCH = 64  # panels evaluated at once: every call has BATCH * NODES points
NODES = 20
_TOLERANCE = 1e-11
_MAX_LEVELS = 48
_MAX_PANELS = 20_000  # fewer than 1000 were seen


def normal_integral(fun: Function, low: float, high: float, centre=0.0) -> float:
    """Integral of `fun(y) exp(-centre * y - y**2 / 2)` over `low < y < high`.

    That is a standard normal density at `centre + y`, over that at `centre`: digits of
    a distance from the centre are kept, however far out that is.

    Composite Gauss-Legendre quadrature. A panel whose two halves give another value
    than it gives is cut in two, so that kinks and jumps are enclosed wherever they are.

    Args:
        fun: elementwise function of float64 arrays of shape (BATCH * NODES,).
        low: lower limit, may be infinite.
        high: upper limit, may be infinite.
        centre: what the variable is the distance from, zero or greater.

    Returns:
        The integral, to about 1e-10 of that of `abs(fun)`.
    """
    reach = centre + math.hypot(centre, math.sqrt(200.0))
    edges = _edges(max(low, -reach), min(high, 200.0 / reach))  # beyond: exp(-100)
    panels = np.stack([edges[:-1], edges[1:]], 1)
    values, sizes = _integrals(fun, panels, centre)
    total, size = 0.0, sizes.sum()
    for _ in range(_MAX_LEVELS):
        middle = panels.mean(1)
        halves = np.stack([panels[:, 0], middle, middle, panels[:, 1]], 1)
        halves = halves.reshape(-1, 2)
        parts, _ = _integrals(fun, halves, centre)
        parts = parts.reshape(-1, 2)
        with np.errstate(invalid="ignore"):  # what is not finite shows in the total
            rough = np.abs(parts.sum(1) - values) > _TOLERANCE * size
        total += parts[~rough].sum()
        panels, values = halves.reshape(-1, 4)[rough].reshape(-1, 2), parts[rough]
        values = values.reshape(-1)
        if not len(panels):
            break
        if len(panels) > _MAX_PANELS:
            raise ValueError(
                "the function cannot be integrated: it jumps nearly everywhere, as one "
                "of random or of mixed entries does."
            )
    return float(total + values.sum())


def _edges(low: float, high: float) -> np.ndarray:
    """Panels of at most 1/2 that end at the half integers, where most kinks are."""
    inner = np.arange(np.floor(low * 2) + 1, np.ceil(high * 2)) / 2
    return np.concatenate([[low], inner, [high]])


def _integrals(fun, panels, centre):
    points, weights = gauss_legendre()
    values, sizes = [], []
    for start in range(0, len(panels), BATCH):
        some = panels[start : start + BATCH]
        padded = np.zeros((BATCH, 2))
        padded[: len(some)] = some
        half = (padded[:, 1:] - padded[:, :1]) / 2
        y = padded[:, :1] + half * (points + 1)
        density = weights * np.exp(-y * (centre + y / 2))
        terms = fun(y.reshape(-1)).reshape(y.shape) * half * density
        terms = terms[: len(some)]
        values.append(terms.sum(1))
        sizes.append(np.abs(terms).sum(1))
    return np.concatenate(values), np.concatenate(sizes)


@functools.cache
def gauss_legendre() -> tuple[np.ndarray, np.ndarray]:
    """Points and weights of the rule of NODES points on (-1, 1)."""
    return np.polynomial.legendre.leggauss(NODES)


def uniform_mean(fun: Function) -> float:
    """Mean of `fun(u)`, `u` uniform between 0 and 1.

    Takahasi and Mori's double exponential rule, "Double exponential formulas for
    numerical integration" (1974), whose points crowd at both ends.

    Args:
        fun: elementwise function of a float64 array, smooth inside the interval; at
            its ends it may have a logarithmic singularity.

    Returns:
        The mean, to about 1e-9 of that of `abs(fun)`, and to rounding error where
        there is no singularity at 1, near which `u` has few digits.
    """
    u, weights = _double_exponential()
    return float(fun(u) @ weights)


@functools.cache
def _double_exponential():
    t, step = np.linspace(-3.15, 3.15, 400, retstep=True)
    inner = np.pi / 2 * np.sinh(t)
    weights = step * np.pi / 4 * np.cosh(t) / np.cosh(inner) ** 2
    return 1 / (1 + np.exp(-2 * inner)), weights / weights.sum()
