"""Constants that loops begin with: the states of cells before their first round.

Take `h = jnp.ones((5, 6))`, `h = tanh(h @ w + x @ u)`, and once more, unrolled in
Python. The first `h @ w` is computed from a leaf and a constant alone, as a mask of a
kernel is, `x @ (mask @ w)`. But it leads to the second `h`, an activation that `w` is
contracted with, so the first one is an activation too.
"""

from collections.abc import Collection, Iterable, Iterator

import numpy as np

from jaxinit._roles.reading.axes import (
    Place,
    axis_before,
    contracted_axes,
    is_repeated,
    output_axes,
)
from jaxinit._roles.reading.facts import Meeting
from jaxinit._roles.reading.flow import Flow
from jaxinit._roles.reading.graph import Node, Value
from jaxinit._roles.reading.primitives import COPIES, PARTS, RELOCATIONS
from jaxinit._roles.reading.values import stripped
from jaxinit._roles.reading.walks import ancestor, reached

_JOINED = frozenset({"concatenate", "stack"})
_MOVED = COPIES | RELOCATIONS | PARTS | {"each"}


def starts(flow: Flow) -> Iterator[Value]:
    """Constants, and leaves without places, that are what a loop begins with.

    Zeros that are contracted with leaves, whatever these are. Others, if what they give
    leads to activations that are contracted with the same axes of the same leaves. And
    constants that a leaf is repeated to multiply, as the scale of a normalization, if
    they lead to activations that it multiplies. Zeros that activations multiply too.
    """
    of_kernels = set(_of_kernels(flow))
    for node in flow.products:
        for side in (0, 1) if node.op == "dot_general" else (0,):
            if _is_start(flow, node, side, of_kernels):
                yield _vector(node.inputs[side]) or node.inputs[side]
    yield from _multiplied(flow)
    yield from _normalized(flow)


def _is_start(flow: Flow, node: Node, side: int, of_kernels: Collection[Value]) -> bool:
    """Whether an operand of a product takes the place of activations."""
    value, kernel = node.inputs[side], node.inputs[1 - side]
    if not flow.has_leaves[kernel.index]:
        return False
    if not flow.has_leaves[value.index]:
        if _is_zero(flow, value):
            return True
    elif _vector(value) is None:
        return False
    if node.op != "dot_general" or value in of_kernels:
        return False
    axes = flow.fact(kernel).axes
    pairs = {(a.leaf, a.axis) for i in contracted_axes(node, 1 - side) for a in axes[i]}
    again = (m for m in flow.meetings if pairs & set(_summed(m)))
    return any(ancestor(node.output, meeting.activations) for meeting in again)


def _of_kernels(flow: Flow) -> Iterator[Value]:
    """What axes come from that are summed over, as of `x @ (w - mean @ w)`."""
    for meeting in flow.meetings:
        node, side = meeting.node, meeting.position
        if node.op == "dot_general" and meeting.carried.opaque:
            yield from sources(flow, meeting.weights, contracted_axes(node, side))


def _is_zero(flow: Flow, value: Value) -> bool:
    """Whether all entries of a value are known to be zero."""

    def before(value: Value) -> Iterable[Value]:
        node = value.node
        if node is None or flow.number(value) is not None:
            return ()
        if node.op in _JOINED:
            return node.inputs
        return node.inputs[:1] if node.op in _MOVED else ()

    def is_zero(value: Value) -> bool:
        known = value.constant is not None and not np.any(value.constant)
        return known or flow.number(value) == 0

    return all(is_zero(v) for v in reached([value], before) if not before(v))


def _multiplied(flow: Flow) -> Iterator[Value]:
    """Zeros that activations of their shape multiply, as the first state of a cell."""
    for node in flow.graph.nodes:
        if node.op == "mul" and flow.data(node.output):
            for value in node.inputs:
                is_wide = value.shape == node.output.shape != ()
                if is_wide and not flow.data(value) and flow.number(value) == 0:
                    yield value


def _vector(value: Value) -> Value | None:
    """The leaf of one axis that a value is, repeated at most; None if it is none."""
    leaf = stripped(value)
    is_long = sum(size > 1 for size in leaf.shape) > 1
    return None if leaf.leaf is None or is_long else leaf


def _summed(meeting: Meeting) -> Iterator[tuple[int, int]]:
    """The number of a leaf that is a kernel, and its axes that are summed over."""
    node, side = meeting.node, meeting.position
    if node.op == "dot_general" and not meeting.carried.opaque:
        axes = meeting.leaf_axes(contracted_axes(node, side))
        yield from ((meeting.leaf, axis) for axis in axes)


def _normalized(flow: Flow) -> Iterator[Value]:
    """Constants that scales are repeated for, if these go on to scale activations."""
    for node in flow.graph.nodes:
        if node.op != "mul" or not flow.from_leaves(node.output):
            continue
        for value, scale in (node.inputs, node.inputs[::-1]):
            is_wide = value.shape == node.output.shape and flow.number(value) is None
            is_constant = is_wide and not flow.has_leaves[value.index]
            if is_constant and _is_repeated(scale) and _goes_on(flow, node, scale):
                yield value


def _goes_on(flow: Flow, node: Node, scale: Value) -> bool:
    """Whether activations that leaves multiply are computed from a product of them."""
    leaves = flow.fact(scale).carried
    products = (m for m in flow.meetings if m.leaf in leaves and m.node.op == "mul")
    again = (m.activations for m in products if not m.carried.opaque)
    return any(ancestor(node.output, value) for value in again)


def _is_repeated(value: Value) -> bool:
    """Whether a value is the same for all places of an axis."""
    return any(n == 1 or is_repeated(value, i) for i, n in enumerate(value.shape))


def sources(flow: Flow, value: Value, axes: Iterable[int]) -> set[Value]:
    """The leaves and constants that axes of a value come from."""

    def is_source(value: Value) -> bool:
        return value.node is None or not flow.has_leaves[value.index]

    def before(place: Place) -> Iterator[Place]:
        value, axis = place
        node = value.node
        if node is None or is_source(value):
            return
        if node.op == "dot_general":
            for side in (0, 1):
                places = output_axes(node, side).items()
                yield from ((node.inputs[side], i) for i, j in places if j == axis)
        else:
            yield from axis_before(node, value, axis)

    places = reached([(value, axis) for axis in axes], before)
    return {value for value, _ in places if is_source(value)}
