"""Which layer of a leaf is taken in each round of the loops around a value.

Take `scan(step, x, flip(w, 0))` of w: f32[3,6,6], which holds a layer at each index of
its first axis. Its entries are replaced by the number of their layer, those of other
leaves by -1, and what is done to them is replayed with NumPy. So the weights of the
step are 2 in round 0, 1 in round 1, and 0 in round 2. Along axes on which all numbers
are equal, arrays have the size 1, whatever the size of the value.
"""

import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from jaxinit._roles.reading.atoms import groups
from jaxinit._roles.reading.axes import unreduced_axes
from jaxinit._roles.reading.functions import FUNCTIONS
from jaxinit._roles.reading.graph import Graph, Loop, Node, Value
from jaxinit._roles.reading.primitives import COPIES, ELEMENTWISE, REDUCTIONS

Array = np.ndarray
Rounds = Mapping[Loop, int | None]  # None where the round is not known

_OTHER = -1  # an entry of another leaf
_CHOOSING = ("gather", "dynamic_slice", "dot_general")
_MOST = 1 << 16  # entries of a constant, or rounds of a loop that is replayed


class _NotKnownError(Exception):
    """What a value is cannot be told without inputs, or is not followed."""


class Taken:
    """The layers of one leaf, wherever they are in a graph."""

    def __init__(
        self,
        graph: Graph,
        is_data: Sequence[bool],
        has_leaves: Sequence[bool],
        leaf: int,
        stack_axes: Iterable[int] = (),
    ):
        """Numbers the layers.

        Args:
            graph: the graph.
            is_data: for each value, whether it is computed from inputs.
            has_leaves: for each value, whether it is computed from leaves.
            leaf: number of the leaf.
            stack_axes: its axes of layers, which are numbered in C order.
        """
        self._is_data, self._has_leaves, self._leaf = is_data, has_leaves, leaf
        axes, shape = set(stack_axes), graph.leaves[leaf].shape
        sizes = [n if i in axes else 1 for i, n in enumerate(shape)]
        self._numbers = np.arange(math.prod(sizes)).reshape(sizes)
        self._replayed: dict[tuple[int, tuple[int | None, ...]], Array] = {}

    def layers(self, value: Value, rounds: Rounds) -> frozenset[int] | None:
        """The layers of the leaf that a value holds; None if that is not known.

        Args:
            value: a value that is computed from leaves alone.
            rounds: the round of each loop that the value is taken in.
        """
        try:
            found = np.unique(self._at(value, rounds))
        except _NotKnownError:
            return None
        return frozenset(found[found != _OTHER].tolist())

    def _at(self, value: Value, rounds: Rounds) -> Array:
        if self._is_data[value.index]:
            raise _NotKnownError
        if value.leaf is not None:
            ones = np.full((1,) * len(value.shape), _OTHER)
            return self._numbers if value.leaf == self._leaf else ones
        if value.constant is not None:
            return _constant(value)
        if value.node is None:
            raise _NotKnownError
        here = {loop: rounds.get(loop, _last(loop)) for loop in value.node.loops}
        place = value.index, tuple(here.values())
        if place not in self._replayed:
            self._replayed[place] = self._made(value, value.node, here)
        return self._replayed[place]

    def _made(self, value: Value, node: Node, here: Rounds) -> Array:
        """A value, by the node that makes it."""
        if node.op == "carry":
            return self._carried(value, node, here)
        if node.op == "stacked":
            return self._stacked(node, here)
        if node.op == "each":
            return self._piece(node, here)
        if node.op in ELEMENTWISE:
            return self._elementwise(node, here)
        if node.op in COPIES:
            source = node.inputs[node.outputs.index(value)]
            found = self._at(source, here)
            return found if self._has_leaves[source.index] else _as(value, found)
        if node.op in REDUCTIONS:
            return self._reduced(node, here)
        if node.op in _CHOOSING and any(self._is_data[v.index] for v in node.inputs):
            return self._chosen(value, node, here)
        if node.op not in _MOVES:
            raise _NotKnownError
        found = _MOVES[node.op](node, [self._at(v, here) for v in node.inputs])
        return found[node.outputs.index(value)] if isinstance(found, list) else found

    def _chosen(self, value: Value, node: Node, here: Rounds) -> Array:
        """What activations choose of a layer, such as experts."""
        others = [v for v in node.inputs if not self._is_data[v.index]]
        found = self._at(others[0], here)
        if len(others) > 1 or found.size > 1:
            raise _NotKnownError
        return found.reshape((1,) * len(value.shape))

    def _carried(self, value: Value, node: Node, here: Rounds) -> Array:
        """What a loop hands on: what it began with, or made in the round before."""
        loop, back = node.loops[-1], node.back
        number = here[loop]
        if number == 0 or back is value:
            return self._at(node.inputs[0], here)
        if number is None or number > _MOST or back is None:
            raise _NotKnownError
        before = {**here, loop: number - 1}
        if (value.index, tuple(before.values())) not in self._replayed:
            for i in range(number - 1):  # in order, as the stack of Python is short
                self._at(value, {**here, loop: i})
        return self._at(back, before)

    def _stacked(self, node: Node, here: Rounds) -> Array:
        loop, value = node.loops[-1], node.inputs[0]
        if loop.length is None or loop.length > _MOST:
            raise _NotKnownError
        rounds = range(loop.length)[:: -1 if node.params["reverse"] else 1]
        pieces = [self._at(value, {**here, loop: i}) for i in rounds]
        return np.stack(np.broadcast_arrays(*pieces))

    def _piece(self, node: Node, here: Rounds) -> Array:
        number, size = here[node.loops[-1]], node.inputs[0].shape[0]
        if number is None:
            raise _NotKnownError
        i = size - 1 - number if node.params["reverse"] else number
        found = self._at(node.inputs[0], here)
        return found[0 if len(found) == 1 else i]

    def _elementwise(self, node: Node, here: Rounds) -> Array:
        """Layers stay what they are; numbers are computed."""
        leaves = [v for v in node.inputs if self._has_leaves[v.index]]
        if leaves:
            return _merged([self._at(v, here) for v in leaves])
        function = _OF_BITS.get(node.op) or FUNCTIONS.get(node.op)
        if function is None:
            raise _NotKnownError
        arguments = [self._at(v, here) for v in node.inputs]
        with np.errstate(all="ignore"):
            return _as(node.output, np.asarray(function(node.params, *arguments)))

    def _reduced(self, node: Node, here: Rounds) -> Array:
        """A reduction within every layer."""
        value = node.inputs[0]
        gone = set(range(len(value.shape))) - set(unreduced_axes(node))
        found = self._at(value, here)
        if not self._has_leaves[value.index] or any(found.shape[i] > 1 for i in gone):
            raise _NotKnownError
        return np.squeeze(found, tuple(gone))


def _last(loop: Loop) -> int | None:
    """The round after which a value is taken outside a loop."""
    return None if loop.length is None else loop.length - 1


def _constant(value: Value) -> Array:
    if math.prod(value.shape) > _MOST:
        raise _NotKnownError
    return _as(value, np.asarray(value.constant))


def _as(value: Value, found: Array) -> Array:
    """Numbers in the dtype of a value: a quotient of integers is one."""
    try:
        return found.astype(np.dtype(value.dtype))
    except TypeError:  # a key
        raise _NotKnownError from None


def _merged(found: Sequence[Array]) -> Array:
    """Arrays that lie on one another, where none has another layer than the rest."""
    first, *others = np.broadcast_arrays(*found)
    for other in others:
        if np.any((first != other) & (first != _OTHER) & (other != _OTHER)):
            raise _NotKnownError
        first = np.maximum(first, other)
    return first


def _widened(found: Array, shape: Sequence[int], axes: Iterable[int]) -> Array:
    """An array with all entries along some axes of a value."""
    wide = set(axes)
    sizes = [
        n if i in wide else m
        for i, (n, m) in enumerate(zip(shape, found.shape, strict=True))
    ]
    return np.broadcast_to(found, sizes)


def _cut(found: Array, axis: int, part: slice) -> Array:
    """A slice along an axis, if the array has more than one place on it."""
    if found.shape[axis] == 1:
        return found
    return found[(slice(None),) * axis + (part,)]


# Operations that move numbers: the arrays of outputs, by those of inputs.


def _transpose(node: Node, found: Sequence[Array]) -> Array:
    return found[0].transpose(node.params["permutation"])


def _reshape(node: Node, found: Sequence[Array]) -> Array:
    (array,), old, new = found, node.inputs[0].shape, node.output.shape
    sizes = [1] * len(new)
    for before, after in groups(old, new):
        if any(array.shape[i] > 1 for i in before):
            array = _widened(array, old, before)
            sizes = [new[i] if i in after else n for i, n in enumerate(sizes)]
    return array.reshape(sizes)


def _squeeze(node: Node, found: Sequence[Array]) -> Array:
    return np.squeeze(found[0], tuple(node.params["dimensions"]))


def _broadcast(node: Node, found: Sequence[Array]) -> Array:
    sizes = [1] * len(node.output.shape)
    for i, n in zip(node.params["broadcast_dimensions"], found[0].shape, strict=True):
        sizes[i] = n
    return found[0].reshape(sizes)


def _rev(node: Node, found: Sequence[Array]) -> Array:
    return np.flip(found[0], tuple(node.params["dimensions"]))


def _slice(node: Node, found: Sequence[Array]) -> Array:
    (array,) = found
    starts, stops = node.params["start_indices"], node.params["limit_indices"]
    steps = node.params["strides"] or [1] * len(starts)
    for axis, bounds in enumerate(zip(starts, stops, steps, strict=True)):
        array = _cut(array, axis, slice(*bounds))
    return array


def _split(node: Node, found: Sequence[Array]) -> list[Array]:
    axis, ends = node.params["axis"], np.cumsum([0, *node.params["sizes"]]).tolist()
    pairs = itertools.pairwise(ends)
    return [_cut(found[0], axis, slice(*bounds)) for bounds in pairs]


def _unstack(node: Node, found: Sequence[Array]) -> list[Array]:
    axis = node.params["axis"]
    pieces = (_cut(found[0], axis, slice(i, i + 1)) for i in range(len(node.outputs)))
    return [np.squeeze(piece, axis) for piece in pieces]


def _concatenate(node: Node, found: Sequence[Array]) -> Array:
    axis = node.params["dimension"]
    pairs = zip(found, node.inputs, strict=True)
    pieces = [_widened(array, value.shape, [axis]) for array, value in pairs]
    return np.concatenate(_of_one_size(pieces, axis), axis)


def _stack(node: Node, found: Sequence[Array]) -> Array:
    return np.stack(np.broadcast_arrays(*found), node.params["axis"])


def _of_one_size(pieces: Sequence[Array], axis: int) -> list[Array]:
    """Arrays of equal sizes along all axes but one."""
    sizes = np.max([piece.shape for piece in pieces], 0).tolist()
    return [
        np.broadcast_to(x, [*sizes[:axis], x.shape[axis], *sizes[axis + 1 :]])
        for x in pieces
    ]


def _dynamic_slice(node: Node, found: Sequence[Array]) -> Array:
    array, *starts = found
    return _taken_at(array, node.inputs[0].shape, node.output.shape, enumerate(starts))


def _taken_at(
    array: Array,
    shape: Sequence[int],
    sizes: Sequence[int],
    starts: Iterable[tuple[int, Any]],
) -> Array:
    """A slice of some sizes that begins at some indices, moved to lie within."""
    for axis, start in starts:
        first = min(max(int(start), 0), shape[axis] - sizes[axis])
        array = _cut(array, axis, slice(first, first + sizes[axis]))
    return array


def _gather(node: Node, found: Sequence[Array]) -> Array:
    """Slices at known places, which take the place of what they are numbered by."""
    array, places = found
    numbers, sizes = node.params["dimension_numbers"], node.params["slice_sizes"]
    shape, rank = node.inputs[0].shape, len(node.output.shape)
    if numbers.operand_batching_dims:
        raise _NotKnownError
    places = np.broadcast_to(places, node.inputs[1].shape)
    rows = places.reshape(-1, places.shape[-1])
    axes, gone = numbers.start_index_map, tuple(numbers.collapsed_slice_dims)
    if len(rows) > _MOST or any(
        n != sizes[i] and i not in axes for i, n in enumerate(shape)
    ):
        raise _NotKnownError
    pieces = [
        np.squeeze(_taken_at(array, shape, sizes, zip(axes, row, strict=True)), gone)
        for row in rows
    ]
    outside = [i for i in range(rank) if i not in numbers.offset_dims]
    whole = np.stack(pieces).reshape(*places.shape[:-1], *pieces[0].shape)
    return np.moveaxis(whole, list(range(rank)), [*outside, *numbers.offset_dims])


def _iota(node: Node, found: Sequence[Array]) -> Array:
    axis, shape = node.params["dimension"], node.output.shape
    sizes = [n if i == axis else 1 for i, n in enumerate(shape)]
    return np.arange(shape[axis]).reshape(sizes)


def _branches(node: Node, found: Sequence[Array]) -> Array:
    if all(np.array_equal(found[0], other) for other in found[1:]):
        return found[0]
    raise _NotKnownError


_MOVES: dict[str, Callable[[Node, Sequence[Array]], Array | list[Array]]] = {
    "transpose": _transpose,
    "reshape": _reshape,
    "squeeze": _squeeze,
    "broadcast_in_dim": _broadcast,
    "rev": _rev,
    "slice": _slice,
    "split": _split,
    "unstack": _unstack,
    "concatenate": _concatenate,
    "stack": _stack,
    "dynamic_slice": _dynamic_slice,
    "gather": _gather,
    "iota": _iota,
    "branches": _branches,
}
_OF_BITS: dict[str, Callable[..., Any]] = {
    "and": lambda _, x, y: np.bitwise_and(x, y),
    "or": lambda _, x, y: np.bitwise_or(x, y),
    "not": lambda _, x: np.invert(x),
}
