"""Activations without inputs: learned queries, and constants such as sinusoids.

Take `softmax((queries @ wq) @ (x @ wk).T)` of leaves `queries`, f32[4,6], and `wq`,
f32[6,6]. `queries @ wq` is a product of leaves. The axis of its output that is summed
over with the keys comes from `wq`, which is the kernel; the axis of the queries comes
from `queries`, which are activations, learned.
"""

import math
from collections.abc import Iterator, Sequence

from jaxinit._roles.patterns.attention import Attention
from jaxinit._roles.patterns.starts import sources, starts
from jaxinit._roles.reading.axes import batch_and_free, contracted_axes
from jaxinit._roles.reading.facts import PRODUCT, Meeting
from jaxinit._roles.reading.flow import Flow
from jaxinit._roles.reading.graph import Node, Value
from jaxinit._roles.reading.primitives import ADDITIONS, ELEMENTWISE
from jaxinit._roles.reading.walks import ancestor, nodes_of, reached


def signals(flow: Flow, attentions: Sequence[Attention]) -> set[int]:
    """Values that are activations though they are computed from leaves, or constant.

    These are what a convolution moves over, and what the axis of the queries comes
    from where a query is computed from leaves alone; the same of keys and constants.
    Whatever the axis that is summed over comes from is a kernel.
    What an unrolled loop begins with comes first: what is behind it depends on it.
    A token that what has read it is added to begins a residual stream.
    """
    begun = {value.index for value in starts(flow)}
    if begun:
        return begun
    nodes = [*flow.products, *(meeting.node for meeting in flow.meetings)]
    found = [_moved_over(flow, node) for node in nodes]
    scores = {attention.scores.index for attention in attentions}
    found += [_of_product(flow, meeting, scores) for meeting in flow.meetings]
    found += [
        set(_repeated(flow, meeting.weights))
        for meeting in flow.meetings
        if meeting.carried.opaque.strip("`") in ELEMENTWISE
    ]
    found.append(set(_read_before(flow)))
    return {value.index for values in found for value in values}


def _moved_over(flow: Flow, node: Node) -> set[Value]:
    """What a convolution moves over, if it is computed from leaves."""
    if node.op != "conv_general_dilated" or not flow.from_leaves(node.inputs[0]):
        return set()
    window = node.params["dimension_numbers"].lhs_spec[2:]
    return sources(flow, node.inputs[0], window)


def _of_product(flow: Flow, meeting: Meeting, scores: set[int]) -> set[Value]:
    """What takes the place of activations in a product of leaves."""
    node, side = meeting.node, meeting.position
    if node.op != "dot_general" or meeting.carried.opaque != PRODUCT:
        return set()
    kernels = sources(flow, meeting.weights, contracted_axes(node, side))
    free = sources(flow, meeting.weights, batch_and_free(node, side)[1]) - kernels
    is_constant = all(value.leaf is None for value in free)
    return free if len(free) == 1 and (node.index in scores or is_constant) else set()


def _repeated(flow: Flow, value: Value) -> Iterator[Value]:
    """Leaves of several axes that are repeated for a batch before anything else."""

    def before(node: Node) -> list[Node]:
        return nodes_of(v for v in node.inputs if flow.has_leaves[v.index])

    for node in reached(nodes_of([value]), before):
        if node.op in ("tile", "broadcast_in_dim") and node.inputs[0].leaf is not None:
            leaf = node.inputs[0]
            wide = [size for size in leaf.shape if size > 1]
            grows = math.prod(node.output.shape) > math.prod(leaf.shape)
            if grows and len(wide) > 1:
                yield leaf


def _read_before(flow: Flow) -> Iterator[Value]:
    """Leaves put among activations, to what is computed from which they are added."""
    joining = ("concatenate", "stack")
    put = {
        m.leaf: m.node.output
        for m in flow.meetings
        if m.node.op in joining and not m.carried.opaque
    }
    for meeting in flow.meetings:
        among = put.get(meeting.leaf)
        if among is None or meeting.node.op not in ADDITIONS:
            continue
        if ancestor(among, meeting.activations):
            yield flow.graph.leaves[meeting.leaf]
