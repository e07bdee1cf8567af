"""Which part of which axis of a leaf lies in an axis of a value.

Take a kernel of shape (6, 24) whose output axis is query, key and value for two heads
of four features, and what happens to that axis in the computation:

    (5, 24)         Atom(leaf, 1, start=0, size=24, stride=1)
    (5, 3, 2, 4)    digits: size 3 stride 8; size 2 stride 4; size 4 stride 1
    [:, 1]          the first is fixed at start 8: the keys are in columns 8 to 15

Position `p` of an axis holds index `start + stride * ((p - offset) // inner % size)` of
the leaf's axis, added up over all atoms of that axis of the leaf, if `p` is between
`offset` and `offset + span`. Atoms that a reshape or a slice tears apart are dropped:
what is not known is never guessed.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

MAX_ATOMS = 32  # on one axis of an activation; a residual stream needs none


@dataclass(frozen=True, slots=True)
class Atom:
    """A digit of the index of an axis of a leaf."""

    leaf: int
    axis: int
    start: int
    size: int
    stride: int
    inner: int
    offset: int
    span: int


Axis = tuple[Atom, ...]
Axes = tuple[Axis, ...]


def has_features(axes: Iterable[Axis]) -> bool:
    """Whether one of some axes is of several entries of a leaf."""
    return any(atom.size > 1 for axis in axes for atom in axis)


def whole(leaf: int, shape: Sequence[int]) -> Axes:
    """The atoms of a leaf itself."""
    return tuple(
        (Atom(leaf, axis, 0, size, 1, 1, 0, size),) for axis, size in enumerate(shape)
    )


def sliced(axis: Axis, start: int, stop: int, step: int = 1) -> Axis:
    """The atoms of a slice of an axis."""
    return tuple(
        atom for old in axis if (atom := _sliced(old, start, stop, step)) is not None
    )


def _sliced(atom: Atom, start: int, stop: int, step: int) -> Atom | None:
    low = max(start, atom.offset)
    high = min(stop, atom.offset + atom.span)
    if low >= high:
        return None
    first, length = low - atom.offset, high - low
    if step != 1:
        is_whole = (low, high) == (start, stop) and atom.size >= length
        return _strided(atom, first, length, step) if is_whole else None
    moved = replace(atom, offset=low - start, span=length)
    period = atom.inner * atom.size
    if first % period == 0 and length % period == 0:
        return moved
    if first // period != (first + length - 1) // period:
        return None
    return _within_period(moved, first % period, length)


def _strided(atom: Atom, first: int, length: int, step: int) -> Atom | None:
    """The atom of every few places of a slice."""
    if atom.inner != 1:
        return None
    size = -(-length // step)
    start, stride = atom.start + atom.stride * first, atom.stride * step
    return replace(atom, start=start, size=size, stride=stride, offset=0, span=size)


def _within_period(atom: Atom, first: int, length: int) -> Atom | None:
    """The atom of a slice in which no digit comes twice."""
    inner = atom.inner
    begin = atom.start + atom.stride * (first // inner)
    if first // inner == (first + length - 1) // inner:
        return replace(atom, start=begin, size=1, inner=length)
    if first % inner or length % inner:
        return None
    return replace(atom, start=begin, size=length // inner)


def shifted(axis: Axis, by: int) -> Axis:
    """The atoms of an axis behind others in a concatenation."""
    return tuple(replace(atom, offset=atom.offset + by) for atom in axis)


def reshaped(
    axes: Axes, shape: Sequence[int], new: Sequence[int]
) -> tuple[Axes, list[Atom]]:
    """The atoms of a reshaped value, and those whose axis is gone."""
    result: list[list[Atom]] = [[] for _ in new]
    gone: list[Atom] = []
    for old_group, new_group in groups(shape, new):
        sizes = [new[j] for j in new_group]
        for position, i in enumerate(old_group):
            later = math.prod(shape[k] for k in old_group[position + 1 :])
            for atom in axes[i]:
                placed = _placed(atom, shape[i], later, sizes)
                if not placed:
                    gone += [atom] if atom.size == 1 else []
                for j, part in placed:
                    result[new_group[j]].append(part)
    return tuple(map(tuple, result)), gone


Placed = list[tuple[int, Atom]]  # which of some new axes, and the atom on it


def _placed(atom: Atom, size: int, later: int, sizes: Sequence[int]) -> Placed:
    """Where the digits of an atom go.

    Args:
        atom: the atom.
        size: size of its axis.
        later: size of what follows its axis among those that are reshaped.
        sizes: sizes of the new axes.
    """
    if atom.size == 1:
        return _single_placed(atom, sizes) if atom.span == size else []
    weights = [math.prod(sizes[j + 1 :]) for j in range(len(sizes))]
    if atom.span != size:
        return _part_placed(atom, later, sizes, weights)
    return _digits_placed(atom, later, sizes, weights)


def _single_placed(atom: Atom, sizes: Sequence[int]) -> Placed:
    """An atom at one index goes to an axis of size one, or to all there is."""
    ones = [0] if len(sizes) == 1 else [j for j, n in enumerate(sizes) if n == 1]
    return [
        (j, replace(atom, inner=sizes[j], offset=0, span=sizes[j])) for j in ones[:1]
    ]


def _part_placed(
    atom: Atom, later: int, sizes: Sequence[int], weights: Sequence[int]
) -> Placed:
    """A part of a concatenation, which must keep its place."""
    for j, (n, weight) in enumerate(zip(sizes, weights, strict=True)):
        ends = [x * later for x in (atom.offset, atom.span, atom.inner)]
        fits = not any(x % weight for x in ends)
        offset, span, inner = (x // weight for x in ends)
        if math.prod(sizes[:j]) == 1 and fits and offset + span <= n:
            return [(j, replace(atom, inner=inner, offset=offset, span=span))]
    return []


def _digits_placed(
    atom: Atom, later: int, sizes: Sequence[int], weights: Sequence[int]
) -> Placed:
    """An atom of a whole axis: a digit of its own on each new axis that it reaches."""
    low, high = atom.inner * later, atom.inner * atom.size * later
    found: Placed = []
    for j, (n, weight) in enumerate(zip(sizes, weights, strict=True)):
        bottom, top = max(low, weight), min(high, weight * n)
        if bottom >= top or n == 1:
            continue
        if top % bottom or bottom % weight or bottom % low:
            return []
        size, inner, stride = top // bottom, bottom // weight, bottom // low
        digit = Atom(
            atom.leaf, atom.axis, 0, size, atom.stride * stride, inner, 0, span=n
        )
        found.append((j, digit))
    if math.prod(digit.size for _, digit in found) != atom.size:
        return []
    j, first = found[0]
    return [(j, replace(first, start=atom.start)), *found[1:]]


def groups(
    shape: Sequence[int], new: Sequence[int]
) -> Iterator[tuple[list[int], list[int]]]:
    """The fewest consecutive axes of both shapes that have equal sizes."""
    i = j = 0
    while i < len(shape) or j < len(new):
        old_group, new_group = [], []
        left = right = 1
        while True:
            if i < len(shape) and (left <= right or j >= len(new)):
                left *= shape[i]
                old_group.append(i)
                i += 1
            elif j < len(new):
                right *= new[j]
                new_group.append(j)
                j += 1
            if left == right and (old_group and new_group):
                break
            if i >= len(shape) and j >= len(new):
                break
        # axes of size one at the end belong to what is before them
        if i == len(shape):
            new_group += range(j, len(new))
            j = len(new)
        if j == len(new):
            old_group += range(i, len(shape))
            i = len(shape)
        yield old_group, new_group


def merged(parts: Iterable[Axis]) -> Axis:
    """The atoms of all of these axes, which lie on one another."""
    atoms = tuple(dict.fromkeys(atom for axis in parts for atom in axis))
    return atoms if len(atoms) <= MAX_ATOMS else ()


def indices(atoms: Iterable[Atom], size: int) -> np.ndarray:
    """Which indices of an axis of a leaf these atoms of it hold, in order.

    Args:
        atoms: atoms of one axis of one leaf, on different axes of one value.
        size: size of that axis of the leaf.
    """
    found = np.zeros(1, np.int64)
    for atom in atoms:
        digits = atom.start + atom.stride * np.arange(atom.size)
        found = (found[:, None] + digits).reshape(-1)
    return np.unique(found[found < size])


def blocks(found: np.ndarray) -> tuple[tuple[int, int], ...]:
    """Sorted indices as runs from a start to before a stop."""
    if not found.size:
        return ()
    breaks = np.flatnonzero(np.diff(found) != 1)
    starts = found[[0, *(breaks + 1)]]
    stops = found[[*breaks, -1]] + 1
    return tuple(zip(starts.tolist(), stops.tolist(), strict=True))
