"""Divisions by a norm of few entries, whose inverse has no moments of note.

Take `sin(r) / r`, where `r` is the length of a vector of three. A length of many
entries is all but constant, but one of three may be close to zero, and then the
quotient is large. The vector itself over its length is bounded, as in any norm.
"""

from collections.abc import Iterator

from jaxinit._roles.patterns.extents import size_for_one
from jaxinit._roles.reading.flow import Flow
from jaxinit._roles.reading.graph import Node, Value
from jaxinit._roles.reading.primitives import PRODUCTS
from jaxinit._roles.reading.values import maker
from jaxinit._roles.reading.walks import is_inexact, reached

_MANY = 8  # entries, of whose length the inverse square is within a third of its mean
_MOST_STEPS = 12  # from a quotient to the sum under a root
_GUARDS = frozenset({"add", "max", "sub", "select_n", "clamp"})
_ROOTS = {"sqrt": 0.5, "rsqrt": -0.5}


def short_norms(flow: Flow, node: Node) -> Iterator[tuple[Value, Node]]:
    """What a node divides by norms of few entries, and the sums under their roots."""
    data = [v for v in flow.data_of(node) if is_inexact(v)]
    if node.op not in PRODUCTS or len(data) != 2:
        return
    for i in (0, 1):
        power = -1.0 if node.op == "div" and data[i] is node.inputs[1] else 1.0
        total = _inverse(flow, data[i], power)
        if total is not None and size_for_one(total) < _MANY:
            yield data[1 - i], total


def factors(flow: Flow, value: Value) -> Iterator[Value]:
    """A value, and if it is a product, all that it is a product of."""

    def before(value: Value) -> list[Value]:
        node = maker(value)
        return flow.data_of(node) if node is not None and node.op == "mul" else []

    return reached([value], before)


def _inverse(flow: Flow, value: Value, power: float) -> Node | None:
    """The sum that a factor is an inverse root of; None if it is nothing such."""
    is_root = False
    for _ in range(_MOST_STEPS):
        node = maker(value)
        if node is None:
            return None
        if node.op == "reduce_sum":
            return node if is_root and power < 0 else None
        data = [v for v in flow.data_of(node) if is_inexact(v)]
        if not data:
            return None
        exponent = _exponent(flow, node)
        if exponent is not None:
            is_root = is_root or abs(exponent) == 0.5
            power *= exponent
        elif node.op == "div" and data[0] is node.inputs[1]:
            power = -power
        elif node.op not in _GUARDS | PRODUCTS or len(data) > 1:
            return None
        value = data[0]
    return None


def _exponent(flow: Flow, node: Node) -> float | None:
    """The power that a node takes; None if it takes none."""
    if node.op == "pow":
        return flow.number(node.inputs[1])
    if node.op == "integer_pow":
        return float(node.params["y"])
    return _ROOTS.get(node.op)
