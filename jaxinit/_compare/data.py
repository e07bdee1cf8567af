"""Data to train on, and data that is held out: arrays, or a function that makes them.

Both become a `Data`: `batch(arrays, key)` is a batch, traced inside the program that
trains, and `held` are batches that no run trains on.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxinit._compare.losses import described

_HELD_OUT = 0.2  # share of the rows, if no others are given
_MADE = 8  # batches that are held out, of a function
_WHOLE = 1024  # rows that are evaluated at once, or one batch if that is more


@dataclass(frozen=True)
class Data:
    """What runs are trained on and judged by.

    Attributes:
        batch: function of `arrays` and a key that returns a batch `(x, y)`.
        arrays: the rows to train on, None if a function makes batches.
        held: `(x, y)` that are held out, with an axis of pieces before the rows.
        example: `y` to learn from in the host's memory: labels, their frequencies.
    """

    batch: Callable[[Any, jax.Array], tuple[Any, Any]]
    arrays: Any
    held: tuple[Any, Any]
    example: Any

    @property
    def held_y(self) -> Any:
        """The targets that are held out, in the host's memory."""
        return _rows(self.held[1])


def opened(data: Any, batch_size: int, key: jax.Array) -> Data:
    """Data of any kind.

    Args:
        data: `(x, y)`; `((x, y), (x, y))` for training and held out; or a function of
            a key that returns a batch `(x, y)`.
        batch_size: rows of a batch, for arrays.
        key: decides which rows are held out, or makes the batches that are.

    Raises:
        TypeError: if it is none of these.
        ValueError: if arrays have different numbers of rows, too few, or NaN.
    """
    if callable(data):
        return _made(data, key)
    if not isinstance(data, Sequence) or len(data) != 2:
        raise TypeError(
            "data must be arrays (x, y), ((x, y), (x, y)) with a second pair to hold "
            f"out, or a function of a key that makes a batch, got {_kind(data)}."
        )
    if all(isinstance(part, tuple | list) and len(part) == 2 for part in data):
        train, held = (_pair(*part) for part in data)
        _check_alike(train, held)
    else:
        train, held = _parted(_pair(*data), key)
    return Data(
        lambda arrays, key: _picked(arrays, batch_size, key),
        train,
        jax.tree.map(jnp.asarray, _in_pieces(held, batch_size)),
        train[1],
    )


def _kind(data: Any) -> str:
    length = f" of length {len(data)}" if isinstance(data, Sequence) else ""
    return f"{type(data).__name__}{length}"


def _pair(x: Any, y: Any) -> tuple[Any, Any]:
    """Arrays with the dtypes that jax has for them; checked."""
    pair = tuple(x) if isinstance(x, list) and _are_arrays(x) else x, y
    pair = jax.tree.map(_array, pair)
    rows = {leaf.shape[:1] for leaf in jax.tree.leaves(pair)}
    if len(rows) != 1 or rows == {()}:
        raise ValueError(
            "x and y must have the same number of rows, along their first axes, got "
            f"x of {described(pair[0])} and y of {described(pair[1])}."
        )
    if rows == {(0,)}:
        raise ValueError("x and y have no rows: give two or more.")
    for name, part in zip("xy", pair, strict=True):
        if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(part)):
            raise ValueError(f"{name} holds NaN or infinite numbers: remove them.")
    return pair


def _are_arrays(x: Any) -> bool:
    return all(hasattr(leaf, "shape") for leaf in x)


def _array(x: Any) -> np.ndarray:
    array = np.asarray(x)
    if array.dtype.kind not in "biufV" and not jnp.issubdtype(array.dtype, jnp.number):
        raise TypeError(f"x and y must be arrays of numbers, got {array.dtype}.")
    if array.dtype.kind == "b":
        array = array.astype(np.int32)
    return array.astype(jax.dtypes.canonicalize_dtype(array.dtype))


def _check_alike(train: Any, held: Any) -> None:
    def kinds(pair):
        return [(x.shape[1:], x.dtype) for x in jax.tree.leaves(pair)]

    if kinds(train) != kinds(held):
        raise ValueError(
            f"held-out rows must be like the others: they are {described(held)}, the "
            f"others {described(train)}."
        )


def _parted(pair: Any, key: jax.Array) -> tuple[Any, Any]:
    """Rows to train on, and rows to hold out."""
    rows = len(jax.tree.leaves(pair)[0])
    if rows < 2:
        raise ValueError(f"data must have two rows or more, got {rows}.")
    order = np.asarray(jax.random.permutation(key, rows))
    count = max(1, round(_HELD_OUT * rows))
    held, train = np.sort(order[:count]), np.sort(order[count:])
    return tuple(jax.tree.map(lambda x, i=i: x[i], pair) for i in (train, held))


def _picked(arrays: Any, batch_size: int, key: jax.Array) -> Any:
    """Rows at random, with replacement."""
    rows = len(jax.tree.leaves(arrays)[0])
    places = jax.random.randint(key, (batch_size,), 0, rows)
    return jax.tree.map(lambda x: jnp.asarray(x)[places], arrays)


def _in_pieces(pair: Any, batch_size: int) -> Any:
    """Rows in pieces of equal size; those that are left over are not used."""
    rows = len(jax.tree.leaves(pair)[0])
    pieces = -(-rows // max(_WHOLE, batch_size))
    size = rows // pieces
    return jax.tree.map(
        lambda x: x[: pieces * size].reshape(pieces, size, *x.shape[1:]), pair
    )


def _made(make: Callable[[jax.Array], Any], key: jax.Array) -> Data:
    """Batches that a function makes."""
    if not _is_pair(jax.eval_shape(make, key)):
        raise TypeError(
            "data, a function of a key, must return a batch (x, y), got "
            f"{described(jax.eval_shape(make, key))}."
        )
    held = jax.jit(jax.vmap(make))(jax.random.split(key, _MADE))
    return Data(lambda _, key: make(key), None, tuple(held), _rows(held[1]))


def _rows(pieces: Any) -> Any:
    """Pieces one after the other, in the host's memory."""
    return jax.tree.map(lambda x: np.concatenate(np.asarray(x)), pieces)


def _is_pair(value: Any) -> bool:
    return isinstance(value, tuple | list) and len(value) == 2
