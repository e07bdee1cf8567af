"""How far arrays are from the orthogonal matrices that an initializer makes of them."""

import functools
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxinit._array.combine import center_tap, mirrored, scaled
from jaxinit._array.initializer import Initializer
from jaxinit._array.parts import split, stacked
from jaxinit._array.spread import reduced
from jaxinit.initializers.orthogonal import orthogonal


class Defect(NamedTuple):
    """How far from orthogonal the matrices of an array are.

    Attributes:
        error: greatest entry of `abs(x.T @ x / scale**2 - I)`, or of `x @ x.T` where
            `x` is wide; of entries that must be zero, their greatest.
        allowed: what rounding to the dtype, and making the matrices in float32, can do.
    """

    error: float | jax.Array
    allowed: float | jax.Array


def defect(x: jax.Array, init: Initializer) -> Defect:
    """How far from orthogonal an array is, where an initializer makes it so.

    Args:
        x: concrete array, of a floating-point or complex dtype.
        init: `orthogonal`, or that at the centre of a window (`delta_orthogonal`),
            mirrored, scaled, stacked or split.

    Returns:
        The defect of the worst matrix of the array.

    Raises:
        TypeError: if `init` makes no orthogonal matrices.

    >>> init = orthogonal(2.0)
    >>> x = init(jax.random.key(0), (5, 3))
    >>> error, allowed = defect(x, init)
    >>> error < allowed < defect(1.001 * x, init).error
    True
    """
    init._check_shape(x.shape)
    errors = jax.device_get(reduced(_all(init), x))
    found = [Defect(float(a), float(b)) for a, b in errors]
    return max(found, key=lambda d: d.error / d.allowed, default=Defect(0.0, 1.0))


@functools.lru_cache(256)
def _all(init: Initializer) -> Callable[[jax.Array], list[Defect]]:
    return lambda x: list(_defects(init, x, 1.0))


def is_orthogonal(init: Any) -> bool:
    """Whether an initializer makes orthogonal matrices, of which `defect` tells."""
    if isinstance(init, scaled | center_tap | mirrored):
        return is_orthogonal(init.init)
    if isinstance(init, split):
        return all(map(is_orthogonal, init._inits))
    if isinstance(init, stacked):
        return is_orthogonal(init._at(0))
    return isinstance(init, orthogonal)


@functools.singledispatch
def _defects(init: Any, x: jax.Array, factor: float) -> Iterator[Defect]:
    raise TypeError(
        f"{init!r} makes no orthogonal matrices: expect jaxinit.orthogonal(), "
        "jaxinit.delta_orthogonal(), or one of these mirrored, scaled, stacked or "
        "split."
    )


@_defects.register
def _(init: orthogonal, x, factor) -> Iterator[Defect]:
    batch, rows, column = init._places(x.shape)
    x = jnp.transpose(x, (*batch, *rows, column))
    count = math.prod(x.shape[: len(batch)])
    matrices = x.reshape(count, -1, x.shape[-1]) if x.size else x.reshape(0, 1, 1)
    yield from _of_matrices(matrices, init.scale * factor)


@_defects.register
def _(init: center_tap, x, factor) -> Iterator[Defect]:
    centre = tuple((size - 1) // 2 for size in x.shape[:-2])
    yield _of_zeros(x.at[centre].set(0), factor)
    yield from _defects(init.init, x[centre], factor)


@_defects.register
def _(init: mirrored, x, factor) -> Iterator[Defect]:
    half, other = jnp.split(x, 2, init.axis)
    yield _of_zeros(half + other, factor)
    yield from _defects(init.init, half, factor)


@_defects.register
def _(init: scaled, x, factor) -> Iterator[Defect]:
    yield from _defects(init.init, x, factor * init.factor)


@_defects.register
def _(init: stacked, x, factor) -> Iterator[Defect]:
    for index in range(x.shape[init.axis]):
        part = jnp.take(x, index, init.axis)
        yield from _defects(init._at(index), part, factor)


@_defects.register
def _(init: split, x, factor) -> Iterator[Defect]:
    start = 0
    for each, shape in init._parts(x.shape):
        stop = start + shape[init.axis]
        part = jax.lax.slice_in_dim(x, start, stop, axis=init.axis)
        yield from _defects(each, part, factor)
        start = stop


def _of_zeros(x: jax.Array, factor: float) -> Defect:
    return Defect(abs(x).max(initial=0) / (abs(factor) or 1.0), 1e-30)


def _of_matrices(x: jax.Array, scale: float) -> Iterator[Defect]:
    """The defect of matrices stacked along the first axis."""
    if not x.size:
        return
    if not scale:
        yield Defect(abs(x).max(), 1e-30)
        return
    size = max(x.shape[1:])
    limits = jnp.finfo(x.dtype)
    # Each entry of the product has two roundings of unit vectors, by Cauchy-Schwarz.
    tiny = float(limits.smallest_subnormal) / abs(scale)
    rounding = float(limits.eps) + math.sqrt(size) * tiny
    making = 8 * math.sqrt(size) * float(jnp.finfo(_wide(x.dtype)).eps)
    yield Defect(_gram_error(x, abs(scale)), rounding + making)


def _wide(dtype: Any) -> Any:
    return dtype if dtype.itemsize >= 4 else jnp.float32


def _gram_error(x: jax.Array, scale: float) -> jax.Array:
    x = x.astype(_wide(x.dtype)) / scale
    if x.shape[1] < x.shape[2]:
        x = jnp.swapaxes(x, 1, 2)
    gram = jnp.einsum("bij,bik->bjk", x.conj(), x, precision="highest")
    return jnp.abs(gram - jnp.eye(x.shape[2], dtype=gram.dtype)).max()
