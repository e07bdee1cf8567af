"""Draws by NumPy, which compile nothing: of the law that an initializer says it has."""

import math

import numpy as np

import jaxinit


def drawn(
    init: jaxinit.Initializer, shape: tuple[int, ...], seed: int, dtype="float64"
) -> np.ndarray:
    """Independent entries of the law of an initializer, rounded once.

    Of float64 by default, of which an audit takes the sums on the host too.
    The cdf is inverted on 4001 points between the ends of the law, or eight standard
    deviations from its mean where it has none.
    """
    law = init.entry_law(shape, np.dtype("float32"))
    moments = init.moments(shape)
    low, high = (moments.mean + sign * 8 * moments.std for sign in (-1, 1))
    points = np.linspace(
        _end(law, low, moments.mean, 0.0), _end(law, high, moments.mean, 1.0), 4001
    )
    uniform = np.random.default_rng(seed).random(shape)
    wide = np.interp(uniform, law.cdf(points), points)
    return wide.astype(dtype)


def _end(law, outside: float, inside: float, value: float) -> float:
    """Where the cdf leaves a value, or the point outside if it has left it there."""
    if law.cdf(np.array([outside]))[0] != value:
        return outside
    while not math.isclose(outside, inside, rel_tol=1e-12):
        middle = (outside + inside) / 2
        if middle in (outside, inside):
            break
        if law.cdf(np.array([middle]))[0] == value:
            outside = middle
        else:
            inside = middle
    return outside
