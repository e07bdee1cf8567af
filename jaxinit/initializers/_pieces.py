"""An array taken apart into what can be checked: each piece has one initializer.

What a wrapper adds is exact, such as the zeros around the centre of a kernel, and is a
piece of its own; so are the arrays that it is made of.
"""

import dataclasses
import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp

from jaxinit.initializers.base import Initializer
from jaxinit.initializers.basic import zeros
from jaxinit.initializers.orthogonal_matrices import orthogonal
from jaxinit.initializers.sections import split, stacked
from jaxinit.initializers.sequence import chrono
from jaxinit.initializers.wrappers import center_tap, mirrored, scaled, unit_scaled

Piece = tuple[Initializer, jax.Array]


def pieces(init: Initializer, x: jax.Array) -> Iterator[Piece]:
    """The pieces of an array that an initializer makes, each with its own.

    Those of entries that depend on each other are either exact, `is_exact`, or such of
    which nothing is known.

    Args:
        init: the initializer.
        x: array of a shape that fits it, floating-point or complex; may be traced.

    Returns:
        Pairs of an initializer and the entries that it makes.

    >>> halves = pieces(mirrored(orthogonal()), jnp.ones((2, 4)))
    >>> [(init, x.shape) for init, x in halves]
    [(zeros, (2, 2)), (orthogonal(), (2, 2))]
    """
    return _pieces(init, x, 1.0)


def is_exact(init: Initializer) -> bool:
    """Whether a piece is orthogonal or fixed, so that chance has no part in it."""
    return isinstance(init, orthogonal) or not init.draws


@functools.singledispatch
def _pieces(init: Any, x: jax.Array, factor: float) -> Iterator[Piece]:
    yield (init if factor == 1.0 else scaled(init, factor)), x


@_pieces.register
def _(init: orthogonal, x, factor) -> Iterator[Piece]:
    yield dataclasses.replace(init, scale=init.scale * abs(factor)), x


@_pieces.register
def _(init: scaled, x, factor) -> Iterator[Piece]:
    yield from _pieces(init.init, x, factor * init.factor)


@_pieces.register
def _(init: unit_scaled, x, factor) -> Iterator[Piece]:
    yield from _pieces(init.init, x, factor * init._factor(x.shape))


@_pieces.register
def _(init: center_tap, x, factor) -> Iterator[Piece]:
    centre = tuple((size - 1) // 2 for size in x.shape[:-2])
    yield _none(x.at[centre].set(0), factor)
    yield from _pieces(init.init, x[centre], factor)


@_pieces.register
def _(init: mirrored, x, factor) -> Iterator[Piece]:
    half, other = jnp.split(x, 2, init.axis)
    yield _none(half + other, factor)
    yield from _pieces(init.init, half, factor)


@_pieces.register
def _(init: stacked, x, factor) -> Iterator[Piece]:
    for index in range(x.shape[init.axis]):
        part = jax.lax.index_in_dim(x, index, init.axis % x.ndim, keepdims=False)
        yield from _pieces(init._at(index), part, factor)


@_pieces.register
def _(init: split, x, factor) -> Iterator[Piece]:
    made = (each for each, _ in init._parts(x.shape))
    for each, part in zip(made, init._cut(x), strict=True):
        yield from _pieces(each, part, factor)


@_pieces.register
def _(init: chrono, x, factor) -> Iterator[Piece]:
    gates = dict(zip(init.gates, jnp.split(x, len(init.gates)), strict=True))
    forget = gates.pop("f")
    if "i" in gates:
        gates["i"] = gates["i"] + forget
    yield from (_none(gate, factor) for gate in gates.values())
    yield from _pieces(init._forget(), forget, factor)


def _none(x: jax.Array, factor: float) -> Piece:
    """Entries that must be zero, where others are of the size of a factor."""
    wide = x if x.dtype.itemsize >= 4 else x.astype(jnp.float32)
    return zeros, wide / (abs(factor) or 1.0)
