"""How far arrays are from what an initializer fixes, such as orthogonal matrices."""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxinit._arrays.spread import reduced
from jaxinit.initializers._pieces import Piece, is_exact, pieces
from jaxinit.initializers.base import Initializer, Shape
from jaxinit.initializers.orthogonal_matrices import orthogonal


class Defect(NamedTuple):
    """How far from what is exact an array is, in its worst piece.

    Attributes:
        error: greatest entry of `abs(x.T @ x / scale**2 - I)`, or of `x @ x.T` where
            `x` is wide; of fixed entries, the greatest difference over the greatest of
            them, or over the scale of the others if all are zero.
        allowed: what rounding to the dtype, and making the matrices in float32, can do.
        what: what is off, in words.
    """

    error: float
    allowed: float
    what: str


_PRODUCTS = "products off the identity"
_FIXED = "entries off their fixed values"
_NONE = Defect(0.0, 1.0, "")


def defect(x: jax.Array, init: Initializer) -> Defect:
    """How far an array is from what an initializer fixes of it.

    That is: orthogonal matrices, tables, zeros, one half of a mirrored array given the
    other, in whatever these are wrapped. Entries that are drawn independently, and
    those of an initializer that is not known here, have no part in it.

    Args:
        x: concrete array, of a floating-point or complex dtype.
        init: the initializer.

    Returns:
        The defect of the worst piece of the array.

    Raises:
        ValueError: if the shape of `x` does not fit `init`.

    >>> init = orthogonal(2.0)
    >>> x = init(jax.random.key(0), (5, 3))
    >>> found = defect(x, init)
    >>> found.error < found.allowed < defect(1.001 * x, init).error
    True
    """
    init.check_shape(x.shape)
    errors = jax.device_get(reduced(_all(init), x))
    found = [
        Defect(float(error), float(allowed), what)
        for what in errors
        for error, allowed in errors[what]
    ]
    return max(found, key=_badness, default=_NONE)


def _badness(found: Defect) -> tuple[bool, bool, float]:
    """What is told first: of all that is off, the matrices."""
    is_off = not found.error <= found.allowed
    return is_off, found.what == _PRODUCTS, found.error / found.allowed


@functools.lru_cache(256)
def _all(init: Initializer) -> Callable[[jax.Array], dict[str, list[Any]]]:
    """Error and allowance of every exact piece of an array, by what is off in it."""

    def errors(x):
        found = {_PRODUCTS: [], _FIXED: []}
        for made, part in pieces(init, x):
            if part.size and isinstance(made, orthogonal):
                found[_PRODUCTS].append(_of_matrices(made, part))
            elif part.size and is_exact(made):
                found[_FIXED].append(_of_fixed(made, part))
        return found

    return errors


def has_matrices(init: Initializer, shape: Shape) -> bool:
    """Whether orthogonal matrices are among what makes an array of that shape."""
    return any(isinstance(made, orthogonal) for made in _made(init, shape))


def drawn_pieces(init: Initializer, x: jax.Array) -> list[Piece]:
    """The pieces of an array whose entries are drawn independently of each other."""
    parts = zip(_made(init, x.shape), _parts(init, x), strict=True)
    return [(made, part) for made, part in parts if _is_drawn(made, part)]


@functools.partial(jax.jit, static_argnums=0)
def _parts(init: Initializer, x: jax.Array) -> list[jax.Array]:
    return [part for _, part in pieces(init, x)]


@functools.lru_cache(256)
def _made(init: Initializer, shape: Shape) -> tuple[Initializer, ...]:
    """What makes each piece of an array of that shape."""
    init.check_shape(shape)
    found: list[Initializer] = []
    jax.eval_shape(
        lambda x: found.extend(made for made, _ in pieces(init, x)),
        jax.ShapeDtypeStruct(shape, np.float32),
    )
    return tuple(found)


def _is_drawn(made: Initializer, part: jax.Array) -> bool:
    return bool(part.size) and not is_exact(made) and made.is_independent(part.shape)


def _of_fixed(init: Initializer, x: jax.Array) -> tuple[Any, Any]:
    """The defect of entries that follow from the shape alone."""
    wanted = init(None, x.shape, x.dtype).astype(_wide(x.dtype))
    error, size = abs(x.astype(wanted.dtype) - wanted).max(), abs(wanted).max()
    rounding = 4 * float(jnp.finfo(x.dtype).eps)
    return error / jnp.where(size, size, 1), jnp.where(size, rounding, 1e-30)


def _of_matrices(init: orthogonal, x: jax.Array) -> tuple[Any, Any]:
    """The defect of all matrices of an array."""
    batch, rows, column = init._places(x.shape)
    x = jnp.transpose(x, (*batch, *rows, column))
    x = x.reshape(math.prod(x.shape[: len(batch)]), -1, x.shape[-1])
    if not init.scale:
        return abs(x).max(), 1e-30
    size = max(x.shape[1:])
    limits = jnp.finfo(x.dtype)
    # Each entry of the product has two roundings of unit vectors, by Cauchy-Schwarz.
    tiny = float(limits.smallest_subnormal) / init.scale
    rounding = float(limits.eps) + math.sqrt(size) * tiny
    making = 8 * math.sqrt(size) * float(jnp.finfo(_wide(x.dtype)).eps)
    return _gram_error(x, init.scale), rounding + making


def _wide(dtype: Any) -> Any:
    return dtype if dtype.itemsize >= 4 else jnp.float32


def _gram_error(x: jax.Array, scale: float) -> jax.Array:
    x = x.astype(_wide(x.dtype)) / scale
    if x.shape[1] < x.shape[2]:
        x = jnp.swapaxes(x, 1, 2)
    gram = jnp.einsum("bij,bik->bjk", x.conj(), x, precision="highest")
    return jnp.abs(gram - jnp.eye(x.shape[2], dtype=gram.dtype)[None]).max()
