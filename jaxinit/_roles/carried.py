"""What a loop carries, and how the next of it is put together.

Take `c = f * where(reset, 0, c) + i * g`. The next `c` is handed on by the addition;
the first of its products has the carried `c` as a factor, behind a mask.
"""

from collections.abc import Sequence

from jaxinit._roles.graph import Node, Value
from jaxinit._roles.primitives import ADDITIONS
from jaxinit._roles.values import is_filling, is_flag, maker, stripped

Pair = Sequence[Value]  # the two factors of a product


def handed_on(carry: Node) -> Node | None:
    """The node whose output a loop hands on, behind masks and copies."""
    value = carry.back
    while value is not None:
        node = maker(value)
        if node is None or node.op not in ADDITIONS | {"select_n"}:
            return node
        if node.op == "select_n":
            new = [v for v in node.inputs[1:] if stripped(v) is not carry.output]
        else:
            new = _let_through(node, carry)
            if not new:
                return node
        value = new[0] if len(new) == 1 else None
    return None


def _let_through(node: Node, carry: Node) -> list[Value]:
    """What `mask * new + (1 - mask) * old` takes of a value that is not the old one."""
    pairs = [pair for value in node.inputs if (pair := factors(value))]
    kept = [[v for v in pair if not is_flag(v)] for pair in pairs]
    if len(kept) < 2 or any(len(values) != 1 for values in kept):
        return []
    (first,), (second,) = kept
    new = [v for v in (first, second) if stripped(v) is not carry.output]
    return new if len(new) == 1 else []


def factors(value: Value) -> Pair | None:
    """The two factors of a product."""
    node = maker(value)
    return node.inputs if node is not None and node.op == "mul" else None


def has_carry(values: Sequence[Value], carry: Node) -> bool:
    """Whether one of some values is what a loop carries, masked at most."""
    return any(unmasked(value) is carry.output for value in values)


def is_difference_with(value: Value, carry: Node) -> bool:
    """Whether what a loop carries is one side of a difference."""
    node = maker(value)
    return node is not None and node.op == "sub" and has_carry(node.inputs, carry)


def unmasked(value: Value) -> Value:
    """The value that this one is, where masks let it through."""
    while True:
        value = stripped(value)
        node = value.node
        if node is None:
            return value
        if node.op == "select_n":
            kept = [v for v in node.inputs[1:] if not is_filling(v)]
        elif node.op == "mul":
            kept = [v for v in node.inputs if not is_flag(v)]
        else:
            return value
        if len(kept) != 1:
            return value
        value = kept[0]
