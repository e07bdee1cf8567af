"""Attention: one contraction of activations, most often behind a softmax, in another.

Take `softmax(q @ k.T) @ v`. The last contraction sums over one axis of the weights;
traced back through the softmax, it is an axis of the output of the first contraction,
and the operand that has it is the key. The other is the query.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

from jaxinit._roles.reading.axes import (
    Place,
    axis_before,
    batch_and_free,
    contracted_axes,
    output_axes,
)
from jaxinit._roles.reading.facts import PRODUCT
from jaxinit._roles.reading.flow import Flow
from jaxinit._roles.reading.graph import Node, Value
from jaxinit._roles.reading.walks import reached

_NORMALIZERS = ("exp", "exp2", "logistic")
_MOST_STEPS = 64  # between scores and what mixes their heads; a softmax has a dozen


@dataclass(frozen=True, eq=False)
class Attention:
    """One attention.

    Attributes:
        scores: the contraction of query and key.
        output: the contraction of the weights and the value.
        query: operand of `scores`.
        key: operand of `scores`.
        value: operand of `output`.
        query_axis: axis of the query that is not summed over, nor one of batches.
    """

    scores: Node
    output: Node
    query: Value
    key: Value
    value: Value
    query_axis: int | None


def find_attention(flow: Flow, kernels: set[int]) -> list[Attention]:
    """Every attention in a graph, in order.

    Args:
        flow: what is known.
        kernels: indices of contractions with leaves. One with a product of leaves may
            be that of learned queries, which are not yet known to be activations.
    """
    if flow.products:
        kernels = {i for i in kernels if not _is_of_products(flow, i)}
    nodes = (node for node in flow.graph.nodes if node.op == "dot_general")
    found = (
        next(_of_output(flow, node, kernels), None)
        for node in nodes
        if node.index not in kernels
    )
    return [attention for attention in found if attention is not None]


def _is_of_products(flow: Flow, index: int) -> bool:
    operands = filter(flow.from_leaves, flow.graph.nodes[index].inputs[:2])
    return any(
        item.opaque == PRODUCT
        for value in operands
        for item in flow.fact(value).carried.values()
    )


def _of_output(flow: Flow, node: Node, kernels: set[int]) -> Iterator[Attention]:
    """Attentions that a contraction is the output of."""
    for side in (0, 1):
        weights, value = node.inputs[side], node.inputs[1 - side]
        axes = contracted_axes(node, side) if flow.data(weights) else ()
        for axis in axes:
            origin = _traced(flow, (weights, axis), kernels)
            if origin is not None and (origin[2] or _of_places(flow, *origin[:2])):
                yield from _of_scores(flow, *origin[:2], node, value)


def _of_scores(flow, scores: Node, axis: int, output: Node, value: Value):
    """The attention whose keys lie along an axis of its scores."""
    for key in (0, 1):
        places = output_axes(scores, key)
        is_key = axis in [places[i] for i in batch_and_free(scores, key)[1]]
        if is_key and not flow.from_leaves(scores.inputs[key]):
            queries = batch_and_free(scores, 1 - key)[1]
            yield Attention(
                scores,
                output,
                query=scores.inputs[1 - key],
                key=scores.inputs[key],
                value=value,
                query_axis=queries[0] if len(queries) == 1 else None,
            )


def _of_places(flow: Flow, scores: Node, axis: int) -> bool:
    """Whether scores sum over features, and an axis of them is one of places.

    Without a softmax this tells `(q @ k.T) @ v` from `q @ (k.T @ v)`.
    """
    summed = [
        flow.fact(scores.inputs[side]).axes[i]
        for side in (0, 1)
        for i in contracted_axes(scores, side)
    ]
    return bool(summed and all(summed)) and not any(
        flow.fact(scores.inputs[side]).axes[i]
        for side in (0, 1)
        for i, j in output_axes(scores, side).items()
        if j == axis
    )


def _mixes_heads(flow: Flow, node: Node, kernels: set[int]) -> bool:
    """Whether a kernel sums over the batches of a contraction of activations alone.

    As that of talking heads does, before a softmax or behind it.
    """
    if node.op != "dot_general" or node.index not in kernels:
        return False
    side = 0 if flow.data(node.inputs[0]) else 1
    summed = contracted_axes(node, side)
    places = ((node.inputs[side], axis) for axis in summed)
    return all(_is_of_heads(flow, place, kernels) for place in places)


def _is_of_heads(flow: Flow, place: Place, kernels: set[int]) -> bool:
    """Whether an axis comes from the batches of a contraction of activations."""

    def before(place: Place) -> list[Place]:
        value, axis = place
        node = value.node
        if node is None or node.op == "dot_general":
            return []
        return axis_before(node, value, axis)

    for value, axis in itertools.islice(reached([place], before), _MOST_STEPS):
        made = value.node
        if made is None or made.op != "dot_general":
            continue
        if made.index not in kernels:
            return axis < len(batch_and_free(made, 0)[0])
        is_own = axis not in [i for _, i in _kept(flow, made)]
        return is_own and _mixes_heads(flow, made, kernels)
    return False


def _kept(flow: Flow, kernel: Node) -> Iterator[tuple[int, int]]:
    """Axes of the activations that a kernel leaves as they are, and where they go."""
    side = 0 if flow.data(kernel.inputs[0]) else 1
    yield from output_axes(kernel, side).items()


def _before_mixing(flow: Flow, kernel: Node, axis: int) -> list[Place]:
    """Where an axis of the output of a kernel comes from, if it is not the kernel's."""
    side = 0 if flow.data(kernel.inputs[0]) else 1
    return [(kernel.inputs[side], i) for i, j in _kept(flow, kernel) if j == axis]


def _traced(
    flow: Flow, start: Place, kernels: set[int]
) -> tuple[Node, int, bool] | None:
    """The contraction that has an axis, the axis, and whether a softmax is between."""

    def before(item: tuple[Value, int, bool]) -> list[tuple[Value, int, bool]]:
        value, axis, normalized = item
        node = value.node
        if node is not None and _mixes_heads(flow, node, kernels):
            places = _before_mixing(flow, node, axis)
            return [(v, i, normalized) for v, i in places]
        if node is None or node.op == "dot_general":
            return []
        normalized |= node.op in _NORMALIZERS
        return [(v, i, normalized) for v, i in axis_before(node, value, axis)]

    for value, axis, normalized in reached([(*start, False)], before):
        node = value.node
        if node is None or node.op != "dot_general":
            continue
        if flow.data_of(node) and node.index not in kernels:
            return node, axis, normalized
    return None
