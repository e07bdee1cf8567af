"""Draws of a normal law between two bounds, wherever these are."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.nn import initializers

from jaxinit.laws import NormalBetween
from jaxinit.laws._tail import cumulative_hazard, hazard, stretch_of

# In sigmas, by bytes of the dtype. Further out the error function rounds to one, whose
# inverse is infinite: jax clips that to the bound, once in 2**23 entries.
_REACH = {4: 5.2, 8: 8.0}
_VISIBLE = 1e-7  # what a law may be moved by, in deviations or widths


def draw_between(
    key: Any, shape: tuple[int, ...], dtype: np.dtype, law: NormalBetween
) -> jax.Array:
    """Draws from a normal law between bounds, which are numbers of the dtype.

    Args:
        key: a key.
        shape: shape of the result.
        dtype: float32 or float64.
        law: the law.

    Returns:
        Array of that shape and dtype, none of its entries outside the bounds.
    """
    if law.low == law.high:
        return jnp.full(shape, law.low, dtype)
    if law.slope < float(jnp.finfo(dtype).eps):  # the density is flat
        drawn = _draw_flat(key, shape, dtype, law)
    elif law.side:
        distance = _draw_tail(key, shape, dtype, *law.tail, law.stddev)
        # Clipped first: XLA adds with one rounding less where it sees a product, but
        # not in loops of 8 and less, and a device's part may be such a loop.
        distance = jnp.clip(distance, 0, law.high - law.low)
        drawn = law.origin + law.side * distance
    else:
        drawn = _draw_around(key, shape, dtype, law)
    limits = jnp.finfo(dtype)
    low, high = max(law.low, float(limits.min)), min(law.high, float(limits.max))
    return jnp.clip(drawn, low, high)


def _draw_flat(key, shape, dtype, law: NormalBetween) -> jax.Array:
    """Draws between bounds so near to each other that the density is flat."""
    u, width = _uniform(key, shape, dtype), law.high - law.low
    if width > float(jnp.finfo(dtype).max):
        return (law.low / 2 + width / 2 * u) * 2
    return law.low + width * u


def _draw_around(key, shape, dtype, law: NormalBetween) -> jax.Array:
    """Draws of a law around its mean: those of jax, plus the mean."""
    far = _REACH[dtype.itemsize]
    lower, upper = (
        min(max((x - law.mean) / law.stddev, -far), far) for x in (law.low, law.high)
    )
    draw = initializers.truncated_normal(law.stddev, None, lower, upper)
    centred = draw(key, shape, dtype)
    mean = float(np.asarray(law.mean, dtype))
    rest = law.mean - mean
    if abs(rest) > _VISIBLE * min(law.stddev, law.high - law.low):
        # clipped, so that XLA does not add the two constants first
        centred = jnp.clip(centred + rest, law.low - mean, law.high - mean)
    return centred + mean if mean else centred


def _draw_tail(
    key: Any,
    shape: tuple[int, ...],
    dtype: np.dtype,
    start: float,
    width: float,
    stddev: float,
) -> jax.Array:
    """Distances from the start of a tail, each from one random word.

    The cumulative hazard `t` of a distance has an exponential law, of which a word
    makes a draw; the distance is `g = 2 t / (slope + sqrt(slope**2 + 2 t))` times a
    factor near one, a polynomial to rounding error.
    """
    bits, end = 8 * dtype.itemsize, float(cumulative_hazard(start, np.asarray(width)))
    t, slope = _exponential(key, shape, dtype, end), float(hazard(start))
    g = t * 2 / (1 + jnp.sqrt(1 + t * (2 / slope / slope)))  # times slope
    tolerance = max(float(jnp.finfo(dtype).eps) / 2, 1e-15)
    far = min(end, (bits + 1) * math.log(2))
    bend, top, factors = stretch_of(start, far, tolerance)
    x = g / (g + slope * bend) * (2 / top) - 1 if len(factors) > 1 else g
    stretch = functools.reduce(lambda total, factor: total * x + factor, factors)
    return g * (stddev / slope) * stretch


def _exponential(key, shape, dtype, end: float) -> jax.Array:
    """Draws of an exponential law of rate one, cut to `0 <= t <= end`."""
    u = _uniform(key, shape, dtype)  # has most digits near zero
    mass = -math.expm1(-end)
    # which must be the start of what is short, and the end of what is long
    t = -jnp.log1p(-mass * u) if end < 0.5 else -jnp.log((1 - mass) + mass * u)
    return jnp.maximum(t, 0)


def _uniform(key, shape, dtype) -> jax.Array:
    """Draws between 0 and 1, greater than 0, from all bits of a word."""
    bits = 8 * dtype.itemsize
    word = jax.random.bits(key, shape, f"uint{bits}")
    return word.astype(dtype) * 0.5**bits + 0.5 ** (bits + 1)
