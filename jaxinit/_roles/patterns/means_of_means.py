"""Means that a softmax over features takes of what keys sum up.

Take `q @ (k.T @ v)` with `q = softmax(x @ a, -1)` and `k = softmax(x @ b, 1)`, as in
Shen et al., "Efficient attention" (2021). The inner product has for each feature of `k`
a mean of `v` over tokens, and the outer one is a mean of these means. So it is one of
`v`, with weights that sum to one.
"""

from collections.abc import Iterator, Sequence

from jaxinit._roles.reading.axes import (
    Place,
    before_contraction,
    contracted_axes,
    place_before,
)
from jaxinit._roles.reading.flow import Flow
from jaxinit._roles.reading.graph import Node, Value
from jaxinit._roles.reading.primitives import COPIES, RELOCATIONS
from jaxinit._roles.reading.values import is_softmax, stripped
from jaxinit._roles.reading.walks import reached


def mean_of_means(flow: Flow, node: Node) -> Value | None:
    """What a contraction is a mean of means of; None if it is nothing such.

    Args:
        flow: what is known.
        node: the contraction.
    """
    for side, _ in _shares(flow, node):
        places = [(node.inputs[1 - side], i) for i in contracted_axes(node, 1 - side)]
        if len(places) == 1:
            return _summed_by_keys(flow, places[0])
    return None


def _shares(flow: Flow, node: Node) -> Iterator[tuple[int, Value]]:
    """Operands of a contraction of activations that sum to one along its axes."""
    if node.op == "dot_general" and len(flow.data_of(node)) == 2:
        for side in (0, 1):
            if _sum_to_one(node.inputs[side], contracted_axes(node, side)):
                yield side, node.inputs[side]


def _sum_to_one(shares: Value, axes: Sequence[int]) -> bool:
    """Whether values are those of a softmax over these axes and no others."""
    found = {axis for i in axes for axis in _softmax_axes(shares, i)}
    return bool(axes) and is_softmax(shares) and len(found) == len(axes)


def _softmax_axes(shares: Value, axis: int) -> Iterator[int]:
    """The axis of a softmax that an axis of its values is, if all of it is summed."""

    def before(place: Place) -> list[Place]:
        node = place[0].node
        is_moved = node is not None and node.op in COPIES | RELOCATIONS
        return place_before(place) if is_moved else []

    for value, i in reached([(shares, axis)], before):
        node = value.node
        if node is None or node.op != "div":
            continue
        total = stripped(node.inputs[1]).node
        if total is not None and total.op == "reduce_sum" and i in total.params["axes"]:
            yield i


def _summed_by_keys(flow: Flow, place: Place) -> Value | None:
    """What shares weigh of which the axis is one of features; None if none do."""
    for value, axis in reached([place], place_before):
        node = value.node
        if node is None or node.op != "dot_general":
            continue
        operands = [operand for operand, _ in before_contraction(node, axis)]
        for side, shares in _shares(flow, node):
            if operands == [shares]:
                return node.inputs[1 - side]
    return None
