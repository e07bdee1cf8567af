"""Output axes that are batches of later kernels, as those of an ensemble are.

Take an ensemble of three models, `relu(einsum("bi,eih->ebh", x, w)) @ v` with v:
f32[3,8,2]. Alone, `w` has two axes of features. But the product with `v` takes the axis
of the ensemble as a batch, so it is one of `w` too: batch (0,), out (2,).
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from jaxinit._roles.patterns.structure import Structure
from jaxinit._roles.reading.axes import (
    Place,
    axis_before,
    batch_and_free,
    before_contraction,
    output_axes,
    place_before_any,
    unreduced_axes,
)
from jaxinit._roles.reading.facts import Meeting
from jaxinit._roles.reading.graph import Node
from jaxinit._roles.reading.primitives import REDUCTIONS
from jaxinit._roles.reading.walks import reached
from jaxinit._roles.role import Use

Draft = tuple[Meeting, Use]


def with_batches(structure: Structure, drafts: Sequence[Draft]) -> list[Draft]:
    """The same uses, with axes of batches where they had some of features."""
    kernels = [m for m, use in drafts if use.kind == "kernel" and use.batch_axis]
    if not kernels:
        return list(drafts)
    batches = _Batches(structure, kernels)
    return [(meeting, batches.marked(meeting, use)) for meeting, use in drafts]


class _Batches:
    """Axes of values that are batches of kernels."""

    def __init__(self, structure: Structure, kernels: Sequence[Meeting]):
        self._structure = structure
        self._followed = structure.followed()
        self._places = {place for m in kernels for place in _output_batches(m)}
        taken = [(m.activations, i) for m in kernels for i in _batches(m)[1]]
        others = self._others()
        self._places |= set(self._origins(taken)) - others
        self._led = set(reached(taken, self._before)) - others

    def marked(self, meeting: Meeting, use: Use) -> Use:
        """A use, with each output axis that is one of batches among those."""
        if use.kind == "embedding":
            return use
        if use.kind == "position":
            return self._marked_position(meeting, use)
        for axis in use.out_axis:
            if self._contains(meeting, axis):
                use = replace(
                    use,
                    out_axis=tuple(a for a in use.out_axis if a != axis),
                    batch_axis=tuple(sorted((*use.batch_axis, axis))),
                    fan_out=use.fan_out // meeting.shape[axis],
                )
        return use

    def _marked_position(self, meeting: Meeting, use: Use) -> Use:
        """A position, with the axes that only say of which kernel it is."""
        apart = [i for i in use.in_axis if self._contains(meeting, i)]
        if not apart or len(apart) == len(use.in_axis):
            return use
        return replace(
            use,
            in_axis=tuple(i for i in use.in_axis if i not in apart),
            batch_axis=tuple(sorted((*use.batch_axis, *apart))),
        )

    def _contains(self, meeting: Meeting, axis: int) -> bool:
        """Whether an axis of a leaf lies on one of batches."""
        node, places = meeting.node, meeting.places(axis)
        if node.index in self._structure.kernels:
            outputs = output_axes(node, meeting.position)
            found = {(node.output, outputs[i]) for i in places if i in outputs}
            return not found.isdisjoint(self._places)
        if len(node.inputs) != 2:
            return False
        origins = set(self._origins([(meeting.activations, i) for i in places]))
        if not origins:  # the leaf itself brings the axis
            return any((node.output, i) in self._led for i in places)
        return origins <= self._places

    def _before(self, place: Place) -> list[Place]:
        """Where an axis comes from; nothing behind kernels."""
        node = place[0].node
        if node is None or node.index in self._structure.kernels:
            return []
        return place_before_any(place)

    def _origins(self, places: Sequence[Place]) -> Iterator[Place]:
        """Outputs of contractions with leaves that axes come from, and the axes."""
        for value, axis in reached(places, self._before):
            if value.node is not None and value.node.index in self._structure.kernels:
                yield value, axis

    def _others(self) -> set[Place]:
        """Axes that some kernel that follows does not take as a batch.

        Heads of an attention over a graph are batches of its scores, and features of
        what comes after. A reshape that tears an axis apart counts as such a kernel,
        and so does what takes single places of an axis, or sums over it, before one.
        """
        nodes = self._structure.flow.graph.nodes
        features = [place for node in nodes for place in self._features(node)]
        taken = [place for node in nodes for place in self._taken(node)]
        behind = reached(features, self._before_all)
        return {*behind, *reached(taken, self._before)}

    def _before_all(self, place: Place) -> list[Place]:
        """Where an axis comes from, through kernels that take it as a batch."""
        node = place[0].node
        if node is None or node.index not in self._structure.kernels:
            return self._before(place)
        return [
            (value, i)
            for value, i in before_contraction(node, place[1])
            for side in (0, 1)
            if value is node.inputs[side] and i in _operand_batches(node, side)
        ]

    def _taken(self, node: Node) -> Iterator[Place]:
        if node.op in _TAKING and self._followed[node.outputs[0].index]:
            yield from ((node.inputs[0], axis) for axis in _taken_axes(node))

    def _features(self, node: Node) -> Iterator[Place]:
        if node.index in self._structure.kernels:
            for side, value in enumerate(node.inputs[:2]):
                if self._structure.flow.data(value):
                    kept = _operand_batches(node, side)
                    others = (i for i, _ in enumerate(value.shape) if i not in kept)
                    yield from ((value, i) for i in others)
        elif node.op == "reshape":
            rank = len(node.output.shape)
            before = [axis_before(node, node.output, i) for i in range(rank)]
            kept = {axis for places in before for _, axis in places}
            value = node.inputs[0]
            yield from ((value, i) for i in range(len(value.shape)) if i not in kept)


_TAKING = REDUCTIONS | {"slice", "split", "unstack"}


def _taken_axes(node: Node) -> Iterator[int]:
    """Axes of which a node takes single places, or that it sums over."""
    before = node.inputs[0].shape
    if node.op in REDUCTIONS:
        kept = unreduced_axes(node)
        yield from (axis for axis, _ in enumerate(before) if axis not in kept)
    elif node.op == "unstack":
        yield node.params["axis"]
    else:
        sizes = zip(before, node.outputs[0].shape, strict=True)
        yield from (i for i, (old, new) in enumerate(sizes) if old > new == 1)


def _operand_batches(node: Node, side: int) -> tuple[int, ...]:
    if node.op == "conv_general_dilated":  # an ensemble is among its groups of features
        return ()
    return batch_and_free(node, side)[0]


def _batches(meeting: Meeting) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Batch axes of the weights of a kernel, and of the activations."""
    node, side = meeting.node, meeting.position
    own, theirs = _operand_batches(node, side), _operand_batches(node, 1 - side)
    if not meeting.chosen_axes:
        return own, theirs
    pairs = list(zip(own, theirs, strict=False))  # others are those of the index
    kept = [(i, j) for i, j in pairs if meeting.axes[i]]
    return tuple(i for i, _ in kept), tuple(j for _, j in kept)


def _output_batches(meeting: Meeting) -> Iterator[Place]:
    """Batch axes of a kernel, as axes of its output."""
    node = meeting.node
    places = output_axes(node, meeting.position)
    yield from ((node.output, places[i]) for i in _batches(meeting)[0] if i in places)
