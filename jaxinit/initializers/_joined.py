"""Arrays made of others along an axis, every device making its own part.

XLA has devices send each other pieces of a concatenation, and of what is sorted, that
is cut along the axis. What is looked up along the axis it makes on every device as far
as that device needs it.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

_FEW = 4  # parts of which each entry is looked up in all


def whole_along(x: jax.Array, axis: int) -> jax.Array:
    """The same array, made whole along `axis` wherever a part of it is needed."""
    return _looked_up(x, lax.iota(np.int32, x.shape[axis]), axis)


def mirrored_along(x: jax.Array, axis: int) -> jax.Array:
    """`[x, -x]`, side by side along `axis`."""
    size = x.shape[axis]
    place = lax.iota(np.int32, 2 * size)
    both = _looked_up(x, place % size, axis)
    return jnp.where(_along(place < size, axis, x.ndim), both, -both)


def side_by_side(parts: Sequence[jax.Array], axis: int) -> jax.Array:
    """Arrays one after the other along `axis`, as by `jnp.concatenate`.

    Args:
        parts: arrays of one dtype, none of them empty.
        axis: an axis of theirs, from the front.
    """
    if len(parts) > _FEW:
        return whole_along(jnp.concatenate(parts, axis), axis)
    sizes = [part.shape[axis] for part in parts]
    place = lax.iota(np.int32, sum(sizes))
    joined, start = parts[0], 0
    for part, size in zip(parts, sizes, strict=True):
        index = jnp.clip(place - start, 0, size - 1)
        own = _looked_up(part, index, axis)
        inside = _along(place >= start, axis, part.ndim)
        joined = jnp.where(inside, own, joined) if start else own
        start += size
    return joined


def _looked_up(x: jax.Array, index: jax.Array, axis: int) -> jax.Array:
    return jnp.take(x, index, axis, mode="clip", indices_are_sorted=False)


def _along(x: jax.Array, axis: int, ndim: int) -> jax.Array:
    """A vector as an array whose only long axis is `axis`."""
    return lax.expand_dims(x, [i for i in range(ndim) if i != axis % ndim])
