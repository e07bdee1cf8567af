"""Parts of one axis of a leaf that have purposes of their own.

Take a kernel w: f32[6,24] whose output is split into query, key and value. Its ends
have three roots, and the atoms of each root say which columns of `w` it has: 0 to 7 are
the query, 8 to 15 the key and 16 to 23 the value.
"""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from jaxinit._roles.patterns.loops import Loops
from jaxinit._roles.patterns.regions import End
from jaxinit._roles.reading import atoms
from jaxinit._roles.reading.atoms import Atom
from jaxinit._roles.reading.axes import output_axes
from jaxinit._roles.reading.facts import Meeting
from jaxinit._roles.reading.flow import Flow
from jaxinit._roles.reading.functions import Function
from jaxinit._roles.reading.values import maker
from jaxinit._roles.role import Section

Purpose = tuple[str | None, str | None]  # the part, and the name of the function


@dataclass(frozen=True)
class Division:
    """What follows the output of a leaf.

    Attributes:
        part: what all of it is; None if that is not known, or differs.
        function: the function behind all of it; None if there is none, or it differs.
        sections: what differs along an axis.
    """

    part: str | None
    function: Function | None
    sections: tuple[Section, ...]


def divided(
    flow: Flow, meeting: Meeting, ends: Sequence[End], parts: dict[End, str]
) -> Division:
    """What follows the output of a leaf, by its ends.

    Args:
        flow: what is known.
        meeting: where the leaf is used.
        ends: those of its output.
        parts: what ends are in their model.
    """
    first = _first_of_roots(ends)
    purposes = {(parts.get(end), end.function_name) for end in first}
    if len(purposes) > 1:
        sections = _by_purpose(flow, meeting, first, parts)
        if len(sections) > 1:
            return _differing(sections, first[0].function)
    part = ", ".join(sorted({part for part, _ in purposes if part})) or None
    sections = tuple(_cut(meeting, part, _first_function(first)))
    function = first[0].function if sections and first else _first_function(ends)
    return Division(part, function, sections)


def _differing(sections: tuple[Section, ...], first: Function | None) -> Division:
    """Several sections, which may still agree on their part or on their function."""
    parts = {section.part for section in sections}
    functions = {section.function for section in sections}
    return Division(
        parts.pop() if len(parts) == 1 else None,
        first if len(functions) == 1 else None,
        sections,
    )


def _first_of_roots(ends: Sequence[End]) -> list[End]:
    """Of the ends of each root the first: what follows is made of it."""
    first: dict[int, End] = {}
    for end in sorted(ends, key=_order):
        first.setdefault(end.root.index, end)
    return list(first.values())


def _first_function(ends: Sequence[End]) -> Function | None:
    """The function up to the first value that is taken."""
    known = [end for end in ends if end.known_function is not None]
    first = min(known, key=_order, default=None)
    return first.function if first is not None else None


def _order(end: End) -> tuple[bool, int]:
    """Where an end is among others; what a loss is of comes last, and summed squares.

    Those are of the deviation by which a normalization divides the root itself.
    """
    is_summed = all(node.op == "reduce_sum" for node in end.takers)
    is_of_deviation = bool(end.takers) and is_summed and end.function_name == "square"
    return is_of_deviation or end.compared, end.value.index


def _cut(
    meeting: Meeting, part: str | None, function: Function | None
) -> Iterator[Section]:
    """Of axes of which only some places are used here, a section of those."""
    standing = {atom.axis for axis in meeting.axes for atom in axis}
    everywhere = [atom for axis in (*meeting.axes, meeting.fixed) for atom in axis]
    name, gain = (function.name, function.gain) if function else (None, None)
    for axis in sorted(standing - set(meeting.stack_axes)):
        places = _places(everywhere, axis, meeting.shape)
        if len(places) < meeting.shape[axis]:
            yield Section(axis, atoms.blocks(places), part, name, gain)


def _places(own: Sequence[Atom], axis: int, shape: Sequence[int]) -> np.ndarray:
    """The indices of an axis that some atoms of a leaf hold."""
    return atoms.indices([atom for atom in own if atom.axis == axis], shape[axis])


def _by_purpose(
    flow: Flow, meeting: Meeting, ends: Sequence[End], parts: dict[End, str]
) -> tuple[Section, ...]:
    """Parts of one axis of a leaf, by what follows them; none if they overlap."""
    held: dict[Purpose, dict[int, np.ndarray]] = {}
    gains: dict[Purpose, float | None] = {}
    for end in ends:
        purpose = parts.get(end), end.function_name
        function = end.known_function
        gains[purpose] = function.gain if function is not None else None
        own = flow.fact(end.root).atoms_of(meeting.leaf)
        places = held.setdefault(purpose, {})
        for axis in {atom.axis for atom in own} - set(meeting.stack_axes):
            found = _places(own, axis, meeting.shape)
            places[axis] = np.union1d(places.get(axis, found), found)
    axis = _only_divided_axis(held.values(), meeting.shape)
    kept = {
        purpose: places[axis]
        for purpose, places in held.items()
        if axis is not None and places.get(axis, _NOWHERE).size
    }
    if axis is None or _overlap(list(kept.values())):
        return ()
    sections = [
        Section(axis, atoms.blocks(places), *purpose, gains[purpose])
        for purpose, places in kept.items()
    ]
    return tuple(sorted(sections, key=lambda section: section.blocks))


_NOWHERE = np.zeros(0, np.int64)


def _only_divided_axis(
    held: Iterable[dict[int, np.ndarray]], shape: Sequence[int]
) -> int | None:
    """The axis that some purpose has only a part of, if there is one such axis."""
    axes = {
        axis
        for places in held
        for axis, found in places.items()
        if len(found) < shape[axis]
    }
    return axes.pop() if len(axes) == 1 else None


def _overlap(places: Sequence[np.ndarray]) -> bool:
    total = np.concatenate([_NOWHERE, *places])
    return len(np.unique(total)) < len(total)


def beside(flow: Flow, meeting: Meeting, ends: Sequence[End]) -> Sequence[End]:
    """Of the ends of kernels, those of the features that a bias is added to.

    A bias that lies on a part of an axis, as in `concatenate([bq, zeros, bv])`, has
    the ends whose columns of the kernel lie in that part; all, if that is not known.
    """
    columns = _columns_beside(flow, meeting)
    own = [end for end in ends if _holds_any(flow, end, columns)]
    return own or ends


LeafAxis = tuple[int, int]  # number of a leaf, and one of its axes


def _columns_beside(flow: Flow, meeting: Meeting) -> dict[LeafAxis, np.ndarray]:
    """Indices of axes of kernels that lie where a leaf is added."""
    held: dict[LeafAxis, np.ndarray] = {}
    theirs = flow.fact(meeting.activations).axes
    for ours, axis in zip(meeting.axes, theirs, strict=False):
        for atom in ours:
            for other in atoms.sliced(axis, atom.offset, atom.offset + atom.span):
                key = other.leaf, other.axis
                found = _columns(flow, [other], key)
                held[key] = np.union1d(held.get(key, _NOWHERE), found)
    return held


def _holds_any(flow: Flow, end: End, columns: dict[LeafAxis, np.ndarray]) -> bool:
    fact = flow.fact(end.root)
    for key, wanted in columns.items():
        own = [a for a in fact.atoms_of(key[0]) if a.axis == key[1]]
        if own and np.intersect1d(wanted, _columns(flow, own, key)).size:
            return True
    return False


def _columns(flow: Flow, own: Sequence[Atom], key: LeafAxis) -> np.ndarray:
    leaf, axis = key
    return atoms.indices(own, flow.graph.leaves[leaf].shape[axis])


def input_sections(loops: Loops, meeting: Meeting) -> tuple[Section, ...]:
    """Which inputs of a recurrent kernel come from its own past."""
    node = maker(meeting.activations)
    if node is None or node.op != "concatenate":
        return ()
    along = node.params["dimension"]
    bounds = np.cumsum([0, *(value.shape[along] for value in node.inputs)]).tolist()
    axis = _contracted_leaf_axis(meeting, along, bounds[-1])
    if axis is None:
        return ()
    past = (loops.comes_from_its_past(value, meeting.node) for value in node.inputs)
    sections = tuple(
        Section(axis, (block,), "recurrent" if is_past else "input")
        for block, is_past in zip(itertools.pairwise(bounds), past, strict=True)
    )
    return sections if len({section.part for section in sections}) > 1 else ()


def _contracted_leaf_axis(meeting: Meeting, along: int, size: int) -> int | None:
    """The only axis of a leaf that is summed over, if it has a size.

    Of a window, the one that is summed over with an axis of what it moves over.
    """
    node = meeting.node
    if node.op == "conv_general_dilated":
        numbers = node.params["dimension_numbers"]
        if numbers.lhs_spec[1] != along:
            return None
        contracted = [meeting.axes[numbers.rhs_spec[1]]]
    else:
        kept = output_axes(node, meeting.position)
        contracted = [axis for i, axis in enumerate(meeting.axes) if i not in kept]
    inside = [atom.axis for axis in contracted for atom in axis]
    return inside[0] if len(inside) == 1 and meeting.shape[inside[0]] == size else None
