"""Attention: a softmax of one contraction of activations, in another.

Take `softmax(q @ k.T) @ v`. The last contraction sums over one axis of the weights;
traced back through the softmax, it is an axis of the output of the first contraction,
and the operand that has it is the key. The other is the query.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from jaxinit._roles.atoms import _groups
from jaxinit._roles.flow import (
    PRODUCT,
    Flow,
    batch_and_free,
    contracted_axes,
    output_axes,
)
from jaxinit._roles.graph import Node, Value
from jaxinit._roles.primitives import COPIES, ELEMENTWISE, REDUCTIONS

_NORMALIZERS = ("exp", "exp2", "logistic")


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
    found = []
    if flow.products:
        kernels = {i for i in kernels if not _is_of_products(flow, i)}
    for node in flow.graph.nodes:
        if node.op == "dot_general" and node.index not in kernels:
            found += list(_of_output(flow, node, kernels))[:1]
    return found


def _is_of_products(flow: Flow, index: int) -> bool:
    carried = [
        item
        for value in flow.graph.nodes[index].inputs[:2]
        if flow.from_leaves(value)
        for item in flow.fact(value).carried.values()
    ]
    return any(item.opaque == PRODUCT for item in carried)


def _of_output(flow: Flow, node: Node, kernels: set[int]) -> Iterator[Attention]:
    for side in (0, 1):
        weights, value = node.inputs[side], node.inputs[1 - side]
        if not flow.data(weights):
            continue
        for axis in contracted_axes(node, side):
            origin = _traced(flow, weights, axis, kernels)
            if origin is None:
                continue
            scores, axis = origin
            for key in (0, 1):
                free = batch_and_free(scores, key)[1]
                if axis in [output_axes(scores, key)[i] for i in free]:
                    query = 1 - key
                    if flow.from_leaves(scores.inputs[key]):
                        continue
                    others = batch_and_free(scores, query)[1]
                    yield Attention(
                        scores,
                        node,
                        scores.inputs[query],
                        scores.inputs[key],
                        value,
                        others[0] if len(others) == 1 else None,
                    )


def _traced(
    flow: Flow, weights: Value, axis: int, kernels: set[int]
) -> tuple[Node, int] | None:
    """The contraction that has an axis, if a softmax is between, and the axis there."""
    seen: set[tuple[int, int, bool]] = set()
    pending = [(weights, axis, False)]
    while pending:
        value, axis, normalized = pending.pop()
        node = value.node
        if node is None or (value.index, axis, normalized) in seen:
            continue
        seen.add((value.index, axis, normalized))
        if node.op == "dot_general":
            data = any(map(flow.data, node.inputs))
            if normalized and data and node.index not in kernels:
                return node, axis
            continue
        normalized |= node.op in _NORMALIZERS
        pending += [(v, i, normalized) for v, i in axis_before(node, value, axis)]
    return None


def axis_before(node: Node, value: Value, axis: int) -> list[tuple[Value, int]]:
    """Where an axis of a node's output comes from: inputs, and the axis in each."""
    if node.op in COPIES or node.op in ELEMENTWISE:
        rank, size = len(value.shape), value.shape[axis]
        like = [v for v in node.inputs if len(v.shape) == rank]
        return [(v, axis) for v in like if v.shape[axis] == size]
    if node.op == "transpose":
        return [(node.inputs[0], int(node.params["permutation"][axis]))]
    if node.op == "broadcast_in_dim":
        dimensions = [int(i) for i in node.params["broadcast_dimensions"]]
        if axis not in dimensions:
            return []
        before = dimensions.index(axis)
        same = node.inputs[0].shape[before] == value.shape[axis]
        return [(node.inputs[0], before)] if same else []
    if node.op == "reshape":
        for old, new in _groups(node.inputs[0].shape, value.shape):
            large = [i for i in old if node.inputs[0].shape[i] > 1]
            if axis in new:
                wide = [j for j in new if value.shape[j] > 1]
                if len(large) == 1 and wide == [axis]:
                    return [(node.inputs[0], large[0])]
                if not large and len(old) == len(new):
                    return [(node.inputs[0], old[new.index(axis)])]
        return []
    if node.op == "squeeze":
        rank = len(node.inputs[0].shape)
        gone = {int(i) % rank for i in node.params["dimensions"]}
        return [(node.inputs[0], [i for i in range(rank) if i not in gone][axis])]
    if node.op in ("concatenate", "pad", "slice", "dynamic_update_slice"):
        return [(v, axis) for v in node.inputs if len(v.shape) == len(value.shape)]
    if node.op == "tile":
        same = node.params["reps"][axis] == 1
        return [(node.inputs[0], axis)] if same else []
    if node.op == "gather":
        numbers = node.params["dimension_numbers"]
        gone = (*numbers.collapsed_slice_dims, *numbers.operand_batching_dims)
        kept = [i for i in range(len(node.inputs[0].shape)) if i not in gone]
        pairs = dict(zip(numbers.offset_dims, kept, strict=True))
        return [(node.inputs[0], pairs[axis])] if axis in pairs else []
    if node.op in ("scatter-add", "scatter_add"):
        numbers = node.params["dimension_numbers"]
        gone = (*numbers.inserted_window_dims, *numbers.operand_batching_dims)
        kept = [i for i in range(len(value.shape)) if i not in gone]
        pairs = dict(zip(kept, numbers.update_window_dims, strict=True))
        return [(node.inputs[2], pairs[axis])] if axis in pairs else []
    if node.op == "branches":
        return [(v, axis) for v in node.inputs]
    if node.op == "split" and axis != node.params["axis"]:
        return [(node.inputs[0], axis)]
    if node.op in REDUCTIONS and "axes" in node.params:
        rank = len(node.inputs[0].shape)
        gone = {int(i) % rank for i in node.params["axes"]}
        kept = [i for i in range(rank) if i not in gone]
        return [(node.inputs[0], kept[axis])] if len(kept) > axis else []
    return []
