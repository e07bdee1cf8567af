"""What an elementwise operation on leaves alone does to each of them.

Take `1 + 0.5 * s` of a leaf `s`. The product makes its multiplier 0.5, the sum its
offset 1. A product with a constant array, `w * mask`, hides `w` behind it, and so does
`exp(w)`. Of `scale * rsqrt(variance)`, the scale is as it was. `w + w` has the
multiplier 2, and `w + exp(w)` hides `w`, but `w - mean(w)` does not. `a + b` leaves
both as they are, and says that each is one of two terms.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

from jaxinit._roles.reading.facts import CONSTANT, Carried, Fact, Leaves
from jaxinit._roles.reading.graph import Node, Value
from jaxinit._roles.reading.primitives import (
    ADDITIONS,
    COPIES,
    POINTWISE,
    PRODUCTS,
    REDUCTIONS,
    SUMS,
)
from jaxinit._roles.reading.values import behind, maker, stripped
from jaxinit._roles.reading.walks import reached

_ROUNDING = {"ceil", "floor", "round"}

Change = Callable[[Carried], Carried]


def gathered(node: Node, facts: Sequence[Fact]) -> Leaves:
    """The leaves in the inputs of a node; one in several inputs of a sum is summed."""
    carried: Leaves = {}
    for fact in facts:
        for leaf, item in fact.carried.items():
            is_again = leaf in carried and node.op in SUMS
            carried.setdefault(leaf, item)
            if is_again:
                carried[leaf] = _of_both(node, facts, leaf)
    if node.op not in SUMS:
        return carried
    terms = _terms(node, facts)
    return {leaf: replace(item, terms=terms) for leaf, item in carried.items()}


def _terms(node: Node, facts: Sequence[Fact]) -> int:
    """How many leaves, or parts of one, a sum has, but those that are hidden.

    Nor do those count that are padded: others fill most of their zeros.
    """
    pair = [{k: x for k, x in f.carried.items() if not x.opaque} for f in facts]
    for value, own in zip(node.inputs, pair, strict=True):
        source = behind(value, COPIES).node
        if source is not None and source.op == "pad":
            own.clear()
    again = [leaf for leaf in pair[0] if leaf in pair[1] and _is_same(facts, leaf)]
    counts = (max((x.terms for x in each.values()), default=0) for each in pair)
    return max(sum(counts) - len(again), 1)


def _of_both(node: Node, facts: Sequence[Fact], leaf: int) -> Carried:
    """A leaf that is in both inputs of a sum."""
    a, b = (fact.carried[leaf] for fact in facts)
    if _is_straight_through(node):
        return b if a.opaque else a
    if not a.opaque and not b.opaque:
        if not _is_same(facts, leaf):
            return a
        sign = -1 if node.op == "sub" else 1
        factor, shift = a.multiplier + sign * b.multiplier, a.offset + sign * b.offset
        return replace(a, multiplier=factor, offset=shift)
    if not a.opaque and b.opaque.strip("`") in REDUCTIONS:  # as its mean, subtracted
        return a
    return a.hidden("a sum with another function of it")


def _is_same(facts: Sequence[Fact], leaf: int) -> bool:
    """Whether a leaf lies alike in both: not two parts, or it and its transpose."""
    first, second = (
        [[atom for atom in axis if atom.leaf == leaf] for axis in (*f.axes, f.fixed)]
        for f in facts
    )
    return first == second


def _is_straight_through(node: Node) -> bool:
    """Whether a sum is `w + (f(w) - w)`, where `f(w)` stands for `w`, as rounded."""
    first, second = node.inputs
    return node.op in ADDITIONS and any(
        difference is not None
        and difference.op == "sub"
        and stripped(difference.inputs[1]) is stripped(value)
        and _stands_for(difference.inputs[0], value)
        for value, difference in ((first, maker(second)), (second, maker(first)))
    )


def _stands_for(made: Value, value: Value) -> bool:
    """Whether a value is a copy of another, or that one rounded and scaled back.

    A sign, or a number that is rounded and no more, has another size.
    """
    start, end = stripped(made), stripped(value)

    def before(value: Value) -> list[Value]:
        node = value.node
        is_followed = node is not None and node.op in POINTWISE
        return list(node.inputs) if node and is_followed and value is not end else []

    if start is end:
        return True
    is_scaled = start.node is not None and start.node.op in PRODUCTS
    ops = {x.node.op for x in reached([start], before) if x.node is not None}
    return is_scaled and bool(ops & _ROUNDING)


def change(node: Node, facts: Sequence[Fact], has_leaves: Sequence[bool]) -> Change:
    """What a node does to each leaf in its inputs.

    Args:
        node: an elementwise operation.
        facts: those of its inputs.
        has_leaves: for each input, whether it is computed from leaves.
    """
    if node.op == "neg":
        return _affine(-1, 0)
    if node.op in SUMS:
        found = _of_sum(node, facts, has_leaves)
    elif node.op in PRODUCTS:
        found = _of_product(node, facts, has_leaves)
    else:
        found = None
    return found or _hiding(f"`{node.op}`")


def _affine(factor: float, shift: float) -> Change:
    return lambda c: replace(
        c, multiplier=c.multiplier * factor, offset=c.offset * factor + shift
    )


def _as_it_is(carried: Carried) -> Carried:
    return carried


def _hiding(by: str) -> Change:
    return lambda c: c.hidden(by)


def _of_sum(node, facts, has_leaves) -> Change | None:
    if all(has_leaves):
        return _as_it_is
    number = _only_number(facts, has_leaves)
    if number is None:
        return None
    if node.op == "sub" and has_leaves[1]:
        return _affine(-1, number)
    return _affine(1, -number if node.op == "sub" else number)


def _of_product(node, facts, has_leaves) -> Change | None:
    number = _only_number(facts, has_leaves)
    inverse = node.op == "div" and has_leaves[1]
    if number is not None and not inverse:
        return _affine(1 / number if node.op == "div" and number else number, 0)
    if _are_several(facts):
        return _of_leaves(facts)
    return None if inverse or all(has_leaves) else _hiding(CONSTANT)


def _of_leaves(facts: Sequence[Fact]) -> Change:
    """A product of leaves: one that divides by a deviation leaves the other be."""
    items = [pair for fact in facts for pair in fact.carried.items()]
    leaves = {leaf for leaf, _ in items}
    if len(leaves) < len(items):
        return _hiding("a product with another function of it")
    deviations = [leaf for leaf, item in items if item.is_deviation]
    others = leaves - set(deviations)
    if len(others) == 1 and len(leaves) == len(deviations) + 1:
        return _as_it_is
    return _hiding("a product with another leaf")


def _only_number(facts, has_leaves) -> float | None:
    """The known number that is not of leaves, if there is one such input."""
    pairs = zip(facts, has_leaves, strict=True)
    numbers = [fact.number for fact, is_leaf in pairs if not is_leaf]
    return numbers[0] if len(numbers) == 1 else None


def _are_several(facts: Sequence[Fact]) -> bool:
    """Whether several leaves, or one in several inputs, come together."""
    return sum(len(fact.carried) for fact in facts) > 1
