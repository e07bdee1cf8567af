"""What a loop carries, and how the next of it is put together.

Take `c = f * where(reset, 0, c) + i * g`. The next `c` is handed on by the addition;
the first of its products has the carried `c` as a factor, behind a mask.
"""

from collections.abc import Sequence

from jaxinit._roles.graph import Node, Value
from jaxinit._roles.values import is_filling, is_flag, maker, stripped

Pair = Sequence[Value]  # the two factors of a product


def handed_on(carry: Node) -> Node | None:
    """The node whose output a loop hands on, behind masks and copies."""
    value = carry.back
    while value is not None:
        node = maker(value)
        if node is None or node.op != "select_n":
            return node
        new = [v for v in node.inputs[1:] if stripped(v) is not carry.output]
        value = new[0] if len(new) == 1 else None
    return None


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
