"""Walks along a graph: whatever some step leads to, each item once.

The problem: almost every question about a leaf is a walk, forward or back, that ends at
operations which depend on the question. Take two numbers, and the half of each that
is even:

>>> list(reached([9, 6], lambda n: [n // 2] if n % 2 == 0 else []))
[6, 3, 9]
"""

from collections.abc import Callable, Collection, Hashable, Iterable, Iterator
from typing import TypeVar

import jax.numpy as jnp

from jaxinit._roles.reading.graph import Node, Value

Item = TypeVar("Item", bound=Hashable)


def reached(
    start: Iterable[Item], after: Callable[[Item], Iterable[Item]]
) -> Iterator[Item]:
    """What a step leads to from some items, these included, depth first."""
    pending, seen = list(start), set[Item]()
    while pending:
        item = pending.pop()
        if item not in seen:
            seen.add(item)
            yield item
            pending += after(item)


def ancestor(early: Value, late: Value, chosen: bool = True) -> bool:
    """Whether `late` is computed from `early`, by no back edge.

    Args:
        early: the value before.
        late: the value behind.
        chosen: whether integers count too, which only choose places.
    """
    first = -1 if early.node is None else early.node.index

    def before(value: Value) -> Iterable[Value]:
        node = value.node
        if node is None or node.index <= first:
            return ()
        return node.inputs if chosen else filter(is_inexact, node.inputs)

    return any(value is early for value in reached([late], before))


def nodes_behind(node: Node) -> Iterator[Node]:
    """A node, and what is computed from it."""
    return reached([node], lambda node: (u for v in node.outputs for u in v.users))


def is_returned(value: Value, stops: Collection[str]) -> bool:
    """Whether a value, or what is made of it by none of some operations, is given."""

    def after(value: Value) -> Iterable[Value]:
        kept = (node for node in value.users if node.op not in stops)
        return (output for node in kept for output in node.outputs)

    return any(found.is_output for found in reached([value], after))


def is_inexact(value: Value) -> bool:
    """Whether a value has floats, real or complex."""
    return jnp.issubdtype(value.dtype, jnp.inexact)


def nodes_of(values: Iterable[Value]) -> list[Node]:
    """The nodes that make some values."""
    return [value.node for value in values if value.node is not None]
