"""Sums: contractions that are written as products and sums, stacks, and distances.

Take `(x[:, :, None] * w).sum(1)`, or `x[:, :1] * w[0] + x[:, 1:] * w[1]`. `w`
multiplies activations, as a scale does, and yet it is a kernel: its products are summed
over its own axis, or those of its slices with one another. Its fans are not read, so
that its role is not known.
"""

import math
from collections.abc import Collection, Iterator

from jaxinit._roles.reading.atoms import has_features
from jaxinit._roles.reading.axes import Place, is_repeated, place_before
from jaxinit._roles.reading.facts import Meeting
from jaxinit._roles.reading.flow import Flow
from jaxinit._roles.reading.graph import Node, Value
from jaxinit._roles.reading.primitives import (
    ADDITIONS,
    COPIES,
    PARTS,
    POINTWISE,
    RELOCATIONS,
)
from jaxinit._roles.reading.values import behind
from jaxinit._roles.reading.walks import reached


def summed_products(flow: Flow) -> set[int]:
    """Leaves whose products with activations are summed over an axis or one another."""
    products = [meeting for meeting in flow.meetings if meeting.node.op == "mul"]
    found = {meeting.leaf for meeting in products if _is_summed(flow, meeting)}
    slices: dict[tuple[int, int], set] = {}  # of a leaf, by the end of a sum
    for meeting in products:
        end = end_of_sum(meeting.node.output)
        slices.setdefault((meeting.leaf, end.index), set()).add(meeting.fixed)
    return found | {
        leaf for (leaf, _), different in slices.items() if len(different) > 1
    }


def _is_summed(flow: Flow, meeting: Meeting) -> bool:
    """Whether nothing but a sum over an axis of the leaf takes a product, or its copy.

    A sum over the codes of each of several codebooks has a reshape before it.
    """
    value = meeting.node.output
    taker = only_taker(value)
    while taker is not None and taker.op in COPIES | RELOCATIONS:
        value = taker.outputs[0]
        taker = only_taker(value)
    if taker is None or taker.op != "reduce_sum":
        return False
    axes = flow.fact(value).axes
    summed = [atom for axis in taker.params["axes"] for atom in axes[axis]]
    return any(atom.leaf == meeting.leaf and atom.size > 1 for atom in summed)


def is_inner_product(flow: Flow, node: Node) -> bool:
    """Whether all features of a product of activations are summed, and it is no more.

    Means over places do not sum features, nor do sums of one half of them.
    """
    taker = only_taker(node.output)
    if node.op != "mul" or taker is None or taker.op != "reduce_sum":
        return False
    summed = [flow.fact(node.output).axes[axis] for axis in taker.params["axes"]]
    return has_features(summed)


def sums_stacked(node: Node) -> bool:
    """Whether a node adds values that were stacked up: `stack([a, b]).sum(0)`."""
    axes = node.params["axes"] if node.op == "reduce_sum" else ()
    return len(axes) == 1 and any(
        _counts_parts(*place)
        for place in reached([(node.inputs[0], axes[0])], _axis_before_parts)
    )


def is_cut(value: Value) -> bool:
    """Whether parts are taken of a value, or of functions of it, right behind it."""

    def after(value: Value) -> Iterator[Value]:
        return (node.outputs[0] for node in value.users if node.op in POINTWISE)

    found = reached([value], after)
    return any(node.op in PARTS for each in found for node in each.users)


def _axis_before_parts(place: Place) -> list[Place]:
    return [] if _counts_parts(*place) else place_before(place)


def _counts_parts(value: Value, axis: int) -> bool:
    """Whether values of equal shapes follow one another along an axis, one at each."""
    node, count = value.node, value.shape[axis]
    if node is None or node.op not in ("stack", "concatenate", "reshape"):
        return False
    if node.op == "stack":
        return node.params["axis"] == axis
    if node.op == "concatenate":
        return node.params["dimension"] == axis and len(node.inputs) == count
    joined = behind(node.inputs[0], COPIES).node
    if joined is None or joined.op != "concatenate" or len(joined.inputs) != count:
        return False
    along = joined.params["dimension"]
    sizes = {part.shape[along] for part in joined.inputs}
    shape = joined.output.shape
    return (
        len(sizes) == 1
        and math.prod(shape[:along]) == math.prod(value.shape[:axis])
        and count < shape[along]
    )


def subtracts_centers(flow: Flow, node: Node) -> bool:
    """Whether activations have each of several rows of leaves subtracted from them.

    As in `(x[:, None] - centers) ** 2`: they are repeated along an axis of a leaf.
    """
    if node.op != "sub":
        return False
    return any(
        flow.from_leaves(rows) and flow.data(value) and is_repeated(value, i)
        for rows, value in (node.inputs, node.inputs[::-1])
        for i, axis in enumerate(flow.fact(rows).axes)
        if any(atom.size > 1 for atom in axis)
    )


def end_of_sum(value: Value, through: Collection[str] = ADDITIONS) -> Value:
    """What a value becomes by additions, or other operations, that alone take it."""
    node = only_taker(value)
    while node is not None and node.op in through:
        value = node.outputs[0]
        node = only_taker(value)
    return value


def only_taker(value: Value) -> Node | None:
    """The node that takes a value, if only one does and it is no output."""
    return value.users[0] if len(value.users) == 1 and not value.is_output else None


def reaching_leaves(flow: Flow) -> Iterator[int]:
    """Leaves that reach the output and meet no input on the way."""
    for value in flow.graph.outputs:
        if flow.from_leaves(value):
            yield from flow.fact(value).carried
