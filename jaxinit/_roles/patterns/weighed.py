"""Values before the numbers that multiply them.

Take `0.9 * h + x.T / 10`. Its legs are `h`, times 0.9, and `x`, times 0.1.
"""

from jaxinit._roles.reading.flow import Flow
from jaxinit._roles.reading.graph import Value
from jaxinit._roles.reading.primitives import (
    ADDITIONS,
    COPIES,
    PARTS,
    PRODUCTS,
    RELOCATIONS,
)
from jaxinit._roles.reading.values import behind, stripped
from jaxinit._roles.reading.walks import reached

_MOVED = COPIES | RELOCATIONS | PARTS | {"each"}
_MINOR = 0.5  # a leg that is smaller, against the other, is no stream


def unscaled(flow: Flow, value: Value) -> tuple[Value, float]:
    """The value before numbers that multiply it, in other places at most.

    Returns:
        The value, and the product of the numbers.
    """
    factor = 1.0
    while True:
        value = stripped(value)
        inner, number = _before_number(flow, value)
        if inner is None:
            return value, factor
        value, factor = inner, factor * number


def before_leaf(flow: Flow, value: Value) -> Value | None:
    """What a leaf multiplies, as `h` of `scale * h`; None if there is none."""
    node = unscaled(flow, value)[0].node
    if node is None or node.op != "mul":
        return None
    for factor, other in (node.inputs, node.inputs[::-1]):
        if behind(factor, _MOVED).leaf is not None and flow.data(other):
            return unscaled(flow, other)[0]
    return None


def apart(flow: Flow, leg: Value, other: Value) -> tuple[Value, float]:
    """One leg of a sum before the numbers that the other leg does not go through.

    Of `x + f(x)` there are none, though `x` be `0.1 * y`: the sum is as small.

    Returns:
        The value, and the product of the numbers.
    """
    factor = 1.0
    while True:
        inner, number = _before_number(flow, leg)
        if inner is None or _is_used(leg, other):  # the walk comes last, as it is long
            return leg, factor
        leg, factor = inner, factor * number


def is_minor(flow: Flow, leg: Value, other: Value) -> bool:
    """Whether numbers make one leg of a sum less than half as large as the other.

    As of the first features in `h @ w + 0.1 * h0`, where the kernel is the main path.
    """
    size = abs(apart(flow, leg, other)[1])
    if size >= _MINOR:
        return False
    beside = min(1.0, abs(apart(flow, other, leg)[1]))
    return size < _MINOR * beside * (1 - 1e-6)


def _before_number(flow: Flow, value: Value) -> tuple[Value | None, float]:
    """The value before one number, and the number; None if none multiplies it.

    Of zeros and a value, the sum is that value.
    """
    node = stripped(value).node
    if node is not None and node.op in ADDITIONS:
        others = [v for v in node.inputs if flow.number(v) != 0]
        return (others[0], 1.0) if len(others) == 1 else (None, 1.0)
    if node is None or node.op not in PRODUCTS:
        return None, 1.0
    numbers = [(i, flow.number(v)) for i, v in enumerate(node.inputs)]
    known = [(i, number) for i, number in numbers if number]
    if len(known) != 1 or (node.op == "div" and known[0][0] == 0):
        return None, 1.0
    i, number = known[0]
    return node.inputs[1 - i], number if node.op == "mul" else 1 / number


def _is_used(leg: Value, other: Value) -> bool:
    """Whether a value is made from another one, and not by adding that to it."""

    def before(value: Value) -> list[Value]:
        node = value.node
        if node is None or (leg.node is not None and node.index <= leg.node.index):
            return []
        added = node.op in ADDITIONS
        return [v for v in node.inputs if not (added and stripped(v) is stripped(leg))]

    return any(value is leg for value in reached([other], before))
