"""Axes and fans of a kernel, read off the contraction that it is in.

Take `einsum("btd,dhk->bthk", x, w)` of w: f32[6,2,4]. `dot_general` sums over axis 0 of
`w`, and its output has the axes 1 and 2: in (0,), out (1, 2), fans 6 and 8. Of a
transposed or reshaped kernel, atoms say which of its axes is where.
"""

import math
from collections.abc import Iterable, Iterator

from jaxinit._roles.reading.atoms import Atom
from jaxinit._roles.reading.axes import batch_and_free, contracted_axes
from jaxinit._roles.reading.facts import Meeting
from jaxinit._roles.reading.flow import Flow
from jaxinit._roles.reading.graph import Node
from jaxinit._roles.reading.primitives import CONTRACTIONS, PRODUCTS
from jaxinit._roles.reading.walks import nodes_of, reached
from jaxinit._roles.role import Use


def kernel_nodes(flow: Flow) -> set[int]:
    """Indices of the contractions of activations with leaves."""
    return {
        node.index
        for node in flow.graph.nodes
        if node.op in CONTRACTIONS
        and node.index not in flow.choices.kernels
        and any(map(flow.from_leaves, node.inputs[:2]))
        and any(map(flow.data, node.inputs[:2]))
    }


def dot_use(meeting: Meeting) -> Use:
    """The use of a kernel in `dot_general`."""
    node, side = meeting.node, meeting.position
    contracted = contracted_axes(node, side)
    batch, free = batch_and_free(node, side)
    inside, outside = meeting.leaf_axes(contracted), meeting.leaf_axes(free)
    # An axis of size one beside others is no output, but one that broadcasts.
    outside = tuple(a for a in outside if meeting.shape[a] > 1) or outside[-1:]
    if set(inside) & set(outside):
        return Use("unknown", reason="one of its axes has both inputs and outputs")
    grouped = meeting.leaf_axes(batch)
    return Use(
        "kernel",
        in_axis=inside,
        out_axis=outside,
        batch_axis=_with_chosen(
            meeting, (a for a in grouped if a not in inside + outside)
        ),
        stack_axis=meeting.stack_axes,
        fan_in=math.prod(meeting.weights.shape[i] for i in contracted),
        fan_out=math.prod(_extent(meeting.axes[i]) for i in free),
        multiplier=meeting.carried.multiplier,
    )


def _with_chosen(meeting: Meeting, batches: Iterable[int]) -> tuple[int, ...]:
    """Axes of batches, and those of kernels that are chosen."""
    return tuple(sorted({*batches, *meeting.chosen_axes}))


def terms(meeting: Meeting) -> float:
    """The fan_in of a kernel, whichever contraction it is in."""
    is_window = meeting.node.op == "conv_general_dilated"
    return (convolution_use if is_window else dot_use)(meeting).fan_in


def _extent(axis: tuple[Atom, ...]) -> int:
    """How much of an axis is the leaf's."""
    return max((atom.span for atom in axis), default=1)


def convolution_use(meeting: Meeting) -> Use:
    """The use of a kernel in `conv_general_dilated`."""
    params, value = meeting.node.params, meeting.weights
    out, inside, *window = params["dimension_numbers"].rhs_spec
    groups = params["feature_group_count"]
    strides = math.prod(params["lhs_dilation"])
    ensemble = _groups_of_their_own(meeting, out, value.shape[out], groups)
    ensembles = math.prod(meeting.shape[axis] for axis in ensemble)
    groups //= ensembles
    features = ensembles * groups
    field = math.prod(value.shape[i] for i in window)
    return Use(
        "convolution",
        in_axis=meeting.leaf_axes([inside]),
        out_axis=tuple(a for a in meeting.leaf_axes([out]) if a not in ensemble),
        batch_axis=_with_chosen(meeting, ensemble),
        stack_axis=meeting.stack_axes,
        spatial_axis=meeting.leaf_axes(window),
        fan_in=_whole(value.shape[inside] * field / strides),
        fan_out=_whole(value.shape[out] / features * field),
        groups=groups,
        transposed=strides > 1,
        multiplier=meeting.carried.multiplier,
    )


def _whole(number: float) -> float:
    return int(number) if number == int(number) else number


def _groups_of_their_own(
    meeting: Meeting, out: int, size: int, groups: int
) -> tuple[int, ...]:
    """Axes of the leaf that only say which group it is: those of an ensemble."""
    if groups == 1:
        return ()
    atoms = meeting.axes[out]
    return tuple(
        atom.axis
        for atom in atoms
        if atom.inner * groups >= size
        and atom.size > 1
        and groups % atom.size == 0
        and any(other.axis != atom.axis for other in atoms)
    )


def modulated(flow: Flow) -> Iterator[int]:
    """Leaves that activations scale, one axis of which is then summed over.

    Another axis of the leaf is left free: the product is a kernel made of both.
    """
    for node in flow.graph.nodes:
        if node.op in _SUMMING and all(map(flow.data, node.inputs[:2])):
            for side in (0, 1):
                yield from _summed_and_free(flow, node, side)


def whole_windows(flow: Flow) -> set[int]:
    """Indices of contractions whose outputs are windows that convolutions move.

    One that a leaf is multiplied by is none: it modulates a window.
    """

    def before(node: Node) -> list[Node]:
        modulates = node.op in PRODUCTS and any(map(flow.from_leaves, node.inputs))
        if modulates or node.op in CONTRACTIONS or node.op == "carry":
            return []
        return nodes_of(flow.data_of(node))

    nodes = (node for node in flow.graph.nodes if node.op == "conv_general_dilated")
    windows = [node.inputs[1] for node in nodes if flow.data(node.inputs[1])]
    found = reached(nodes_of(windows), before)
    return {node.index for node in found if node.op in CONTRACTIONS}


_SUMMING = ("dot_general", "conv_general_dilated")


def _summed_and_free(flow: Flow, node: Node, side: int) -> Iterator[int]:
    """Leaves with an axis that a contraction sums over, and one that it leaves free."""
    if node.op == "dot_general":
        summed, free = contracted_axes(node, side), batch_and_free(node, side)[1]
    else:
        numbers = node.params["dimension_numbers"]
        spec = numbers.rhs_spec if side else numbers.lhs_spec
        summed, free = spec[1:2], spec[:1] if side else ()
    axes = flow.fact(node.inputs[side]).axes
    inside = {(a.leaf, a.axis) for i in summed for a in axes[i] if a.size > 1}
    outside = {(a.leaf, a.axis) for i in free for a in axes[i] if a.size > 1}
    for leaf, axis in inside:
        if any(of == leaf and other != axis for of, other in outside):
            yield leaf
