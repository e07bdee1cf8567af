"""What an elementwise operation on leaves alone does to each of them.

Take `1 + 0.5 * s` of a leaf `s`. The product makes its multiplier 0.5, the sum its
offset 1. A product with a constant array, `w * mask`, hides `w` behind it, and so does
`exp(w)`. Of `scale * rsqrt(variance)`, the scale is as it was.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

from jaxinit._roles.facts import CONSTANT, Carried, Fact
from jaxinit._roles.graph import Node
from jaxinit._roles.primitives import PRODUCTS, SUMS

Change = Callable[[Carried], Carried]


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
    if _are_several(facts):
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
