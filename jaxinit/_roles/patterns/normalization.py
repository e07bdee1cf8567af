"""Normalizations: what is divided by a root of a mean, or of a running variance.

Take `(x - mean) * rsqrt(variance + 1e-6) * scale + shift`. The root over a mean of
activations is a deviation, so the product with it is normalized, and so is what `scale`
multiplies and `shift` is added to.
"""

import math
from collections.abc import Iterator

from jaxinit._roles.reading.flow import Flow
from jaxinit._roles.reading.graph import Node, Value
from jaxinit._roles.reading.primitives import (
    COPIES,
    ELEMENTWISE,
    PRODUCTS,
    REDUCTIONS,
    SUMS,
)
from jaxinit._roles.reading.values import is_filling, maker, stripped
from jaxinit._roles.reading.walks import is_inexact, reached

_MOST_STEPS = 16  # between a root and its mean
_GUARDS = ("add", "max", "select_n", "clamp")
_UNDER_ROOTS = frozenset({"add", "max", "mul", "sub", "div", "select_n", "clamp"})


def is_normalized(flow: Flow, value: Value) -> bool:
    """Whether a value comes out of a normalization, scaled by leaves at most."""
    node = maker(value)
    while node is not None and node.op in PRODUCTS | SUMS:
        if node.op in PRODUCTS and any(is_deviation(flow, v) for v in node.inputs):
            return True
        data = flow.data_of(node)
        if len(data) != 1:
            return False
        node = maker(data[0])
    return node is not None and is_deviation(flow, node.output)


def normalized_from(flow: Flow, value: Value) -> Iterator[Value]:
    """What comes out of a normalization of a value, scaled and shifted by leaves."""

    def after(found: Value) -> Iterator[Value]:
        for node in found.users:
            others = [v for v in node.inputs if v is not found]
            keeps = node.op in SUMS | PRODUCTS and len(others) == 1
            if node.op in COPIES or (keeps and _is_of_norm(flow, others[0])):
                yield node.outputs[0]

    return (x for x in reached([value], after) if is_normalized(flow, x))


def _is_of_norm(flow: Flow, value: Value) -> bool:
    """Whether a value is a leaf, a number, a mean, or a deviation."""
    if flow.from_leaves(value) or flow.number(value) is not None:
        return True
    node = maker(value)
    if node is not None and node.op in PRODUCTS and flow.numbers_of(node):
        node = next(filter(None, map(maker, flow.data_of(node))), None)
    is_mean = node is not None and node.op == "reduce_sum"
    return is_mean or is_deviation(flow, value)


def scales_normalized(flow: Flow, node: Node) -> bool:
    """Whether a product has an operand that comes out of a normalization."""
    return any(is_normalized(flow, value) for value in flow.data_of(node))


def scales_scaled(flow: Flow, node: Node) -> bool:
    """Whether a product has an operand that a normalization's own leaf has scaled."""
    return any(_is_scaled(flow, value) for value in flow.data_of(node))


def _is_scaled(flow: Flow, value: Value) -> bool:
    """Whether a leaf multiplies what comes out of a normalization, or its deviation."""
    scaled_by_leaf = False
    node = maker(value)
    while node is not None and node.op in PRODUCTS | SUMS:
        leaves = any(map(flow.from_leaves, node.inputs))
        scaled_by_leaf |= leaves and node.op in PRODUCTS
        deviations = [v for v in flow.data_of(node) if is_deviation(flow, v)]
        if node.op in PRODUCTS and deviations:
            inverse = maker(deviations[0])
            inside = inverse.inputs if inverse and inverse.op in PRODUCTS else ()
            return scaled_by_leaf or any(map(flow.from_leaves, inside))
        data = flow.data_of(node)
        if len(data) != 1:
            return False
        node = maker(data[0])
    return False


def is_deviation(flow: Flow, value: Value) -> bool:
    """Whether a value is a root of a mean over activations, or of a statistic."""
    rooted = False
    for _ in range(_MOST_STEPS):
        value = stripped(value)
        node = value.node
        if node is None:
            return rooted and (value.leaf is not None or _is_vector(value))
        if node.op in REDUCTIONS:
            return rooted
        if _is_root(flow, node):
            rooted = True
        elif node.op not in _UNDER_ROOTS:
            return False
        made = _made_of(flow, node)
        if not made:
            return False
        if node.op == "mul" and len(made) == 2 and not rooted:
            return any(is_deviation(flow, factor) for factor in made)
        value = made[0]
    return False


def is_scaled_root(flow: Flow, value: Value) -> bool:
    """Whether a value is a root of activations, scaled or guarded at most.

    What such a root divides is no root, though `is_deviation` finds one in it.
    """
    node = maker(value)
    while node is not None and not _is_root(flow, node):
        data = [v for v in flow.data_of(node) if is_inexact(v)]
        is_guard = node.op in _GUARDS and len(flow.numbers_of(node)) > 0
        if len(data) != 1 or not (is_guard or node.op in PRODUCTS):
            return False
        node = maker(data[0])
    return node is not None


def _is_vector(value: Value) -> bool:
    """Whether an input has one axis, as the statistics that a state hands in have."""
    return math.prod(value.shape) == max(value.shape, default=0) > 1


def is_centering(node: Node) -> bool:
    """Whether a node subtracts a mean from what it is the mean of."""
    if node.op != "sub":
        return False
    mean = maker(node.inputs[1])
    if mean is None or mean.op not in PRODUCTS:
        return False
    totals = filter(None, map(maker, mean.inputs))
    whole = stripped(node.inputs[0])
    return any(
        total.op == "reduce_sum" and stripped(total.inputs[0]) is whole
        for total in totals
    )


def is_below_largest(node: Node) -> bool:
    """Whether a node subtracts the largest entry from all, as a softmax begins with."""
    if node.op != "sub":
        return False
    largest = maker(node.inputs[1])
    while largest is not None and largest.op == "max":  # of minus infinity, at least
        known = [v for v in largest.inputs if not is_filling(v)]
        largest = maker(known[0]) if len(known) == 1 else None
    if largest is None or largest.op != "reduce_max":
        return False
    return stripped(largest.inputs[0]) is stripped(node.inputs[0])


def _made_of(flow: Flow, node: Node) -> list[Value]:
    """The inputs that are no known numbers: those that are data, if there are any."""
    if node.op not in ELEMENTWISE:
        return []
    made = [value for value in node.inputs if flow.number(value) is None]
    return [value for value in made if flow.data(value)] or made


def _is_root(flow: Flow, node: Node) -> bool:
    """Whether a node is a power of one half."""
    if node.op == "pow":
        return flow.number(node.inputs[1]) in (-0.5, 0.5)
    return node.op in ("rsqrt", "sqrt")


def is_divided_by_statistic(flow: Flow, value: Value) -> bool:
    """Whether a value is divided by a running deviation, right behind copies."""
    return any(
        user.op in PRODUCTS and any(_is_statistic(flow, v) for v in user.inputs)
        for user in _users_behind_copies(value)
    )


def _is_statistic(flow: Flow, value: Value) -> bool:
    carried = flow.fact(value).carried.values()
    return flow.from_leaves(value) and any(item.is_deviation for item in carried)


def folded_shifts(flow: Flow) -> Iterator[tuple[Node, set[int], set[int]]]:
    """Sums that shift by a running mean: `x * inverse + (shift - mean * inverse)`.

    Yields:
        The sum, the numbers of the leaves that are the mean, and of those that are in
        `inverse`, which met `x` before.
    """
    for node in flow.graph.nodes:
        weights = [v for v in node.inputs if flow.from_leaves(v)]
        if node.op in SUMS and len(weights) == 1 and flow.data_of(node):
            inverse = _inverse(flow, maker(flow.data_of(node)[0]))
            product = _subtracted(node, weights[0])
            if inverse is None or product is None or product.op != "mul":
                continue
            means = [v for v in product.inputs if stripped(v) is not inverse]
            if len(means) == 1:
                own = set(flow.fact(inverse).carried)
                yield node, set(flow.fact(means[0]).carried) - own, own


def _inverse(flow: Flow, node: Node | None) -> Value | None:
    """What multiplies activations, if it is one over a running deviation."""
    if node is None or node.op != "mul":
        return None
    found = [value for value in node.inputs if _is_statistic(flow, value)]
    return stripped(found[0]) if len(found) == 1 else None


def _subtracted(node: Node, weights: Value) -> Node | None:
    """What makes the value that a sum subtracts, at once or from a shift."""
    inner = maker(weights)
    if inner is None:
        return None
    if node.op == "sub":
        return inner
    if inner.op == "neg":
        return maker(inner.inputs[0])
    return maker(inner.inputs[1]) if inner.op == "sub" else None


def _users_behind_copies(value: Value) -> Iterator[Node]:
    pending = [value]
    while pending:
        for node in pending.pop().users:
            if node.op in COPIES:
                pending += node.outputs
            else:
                yield node
