"""What a loop carries, and how the next of it is put together.

Take `c = f * where(reset, 0, c) + i * g`. The next `c` is handed on by the addition;
the first of its products has the carried `c` as a factor, behind a mask.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from jaxinit._roles.patterns.loops import Loops
from jaxinit._roles.patterns.regions import End
from jaxinit._roles.reading.graph import Node, Value
from jaxinit._roles.reading.primitives import (
    ADDITIONS,
    CONTRACTIONS,
    COPIES,
    RELOCATIONS,
)
from jaxinit._roles.reading.values import is_filling, is_flag, maker, stripped
from jaxinit._roles.reading.walks import reached

Pair = Sequence[Value]  # the two factors of a product
# By the index of a value, the contractions that it is a function of, and the ends.
Owners = Mapping[int, Sequence[tuple[Node, End]]]

_KEPT = COPIES | RELOCATIONS | {"concatenate", "select_n", "stack"}


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


def owners_of(
    owners: Owners, values: Iterable[Value], gate: bool
) -> list[tuple[Node, End]]:
    """Contractions that values are functions of, and the ends that these are.

    Args:
        owners: by the index of a value, both.
        values: the values.
        gate: whether the ends must go from 0 to 1, or must not.
    """
    return [
        (node, end)
        for value in values
        for node, end in owners.get(value.index, ())
        if end.function is not None and end.is_gate == gate
    ]


def old_states(carry: Node, addition: Node, loops: Loops) -> set[Value]:
    """What a loop carries, and what it is once scaled, where all of a cell takes that.

    As in `h = decay * h`, before a GRU takes `h`. `decay` is not computed from `h`, and
    kernels take the product as well as the addition that makes the next state.
    """
    kept = {stripped(v) for value in addition.inputs for v in (value, *_factors(value))}
    old = {carry.output}
    for node in _takers(carry.output):
        if node.op != "mul" or node.output not in kept:
            continue
        others = [v for v in node.inputs if unmasked(v) is not carry.output]
        is_apart = len(others) == 1 and not loops.carries_into(carry, others[0])
        if is_apart and any(x.op in CONTRACTIONS for x in _takers(node.output)):
            old.add(node.output)
    return old


def _factors(value: Value) -> Pair:
    return factors(value) or ()


def _takers(value: Value) -> Iterator[Node]:
    """What takes a value, masked, copied or beside others at most."""

    def after(value: Value) -> list[Value]:
        kept = (x for x in value.users if x.op in _KEPT)
        return [output for node in kept for output in node.outputs]

    for each in reached([value], after):
        yield from (node for node in each.users if node.op not in _KEPT)


def has_state(values: Sequence[Value], old: Collection[Value]) -> bool:
    """Whether one of some values is an old state, masked at most."""
    return any(stripped(value) in old or unmasked(value) in old for value in values)


def is_difference_with(value: Value, old: Collection[Value]) -> bool:
    """Whether an old state is one side of a difference."""
    node = maker(value)
    return node is not None and node.op == "sub" and has_state(node.inputs, old)


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
