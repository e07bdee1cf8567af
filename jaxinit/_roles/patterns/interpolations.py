"""Products with leaves that mix two values, or two functions of one.

Take `x * mu + before * (1 - mu)`, as RWKV mixes each token with the one before (Peng et
al., "RWKV: reinventing RNNs for the transformer era", 2023), or `x + mu * (before -
x)`. `mu` multiplies activations, as the scale of a norm does, but one is not its
neutral value: it would leave out `before`. And `where(x > 0, x, slope * x)` is the
identity where the slope is one (He et al., "Delving deep into rectifiers", 2015).
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from jaxinit._roles.reading.facts import Carried
from jaxinit._roles.reading.flow import Flow
from jaxinit._roles.reading.graph import Node, Value
from jaxinit._roles.reading.primitives import ADDITIONS, SUMS
from jaxinit._roles.reading.values import maker, stripped

MIXES = "it mixes two activations, as `w` and `1 - w` do"
SLOPE = "the slope of a function on one side: with one, it would be the identity"


def interpolations(flow: Flow) -> dict[int, str]:
    """By the index of a product with a leaf that interpolates, what it does."""
    found: dict[int, str] = {}
    for node in flow.graph.nodes:
        if node.op in SUMS and len(flow.data_of(node)) == 2:
            found |= dict.fromkeys(_mixed(flow, node), MIXES)
        if node.op == "select_n" or node.op in ADDITIONS:
            found |= dict.fromkeys(_slopes(flow, node), SLOPE)
    return found


@dataclass(frozen=True)
class Mix:
    """`first + share * (second - first)`, of activations.

    Attributes:
        first: what is left where the share is zero.
        second: what is left where it is one.
        share: activations, or a number; None if it is one and not written.
        product: the node that multiplies by it.
    """

    first: Value
    second: Value
    share: Value | None = None
    product: Node | None = None


def by_difference(flow: Flow, node: Node) -> Mix | None:
    """What a sum mixes as `a + w * (b - a)`, `a - w * (a - b)`, or `a + (b - a)`."""
    if node.op not in SUMS or not all(map(flow.data, node.inputs)):
        return None
    pairs = [node.inputs, node.inputs[::-1]] if node.op in ADDITIONS else [node.inputs]
    for first, added in pairs:
        end, is_minus = stripped(first), node.op == "sub"
        other = _other_end(flow, added, end, is_minus)
        if other is not None:
            return Mix(first, other)
        made = maker(added)
        if made is None or made.op != "mul":
            continue
        for share, value in (made.inputs, made.inputs[::-1]):
            other = _other_end(flow, value, end, is_minus)
            if other is not None and not flow.from_leaves(share):
                return Mix(first, other, share, made)
    return None


def _other_end(flow: Flow, value: Value, end: Value, is_first: bool) -> Value | None:
    """What a value is a difference of, but for one end, which is first or second."""
    node = maker(value)
    if node is None or node.op != "sub" or not all(map(flow.data, node.inputs)):
        return None
    own, other = node.inputs if is_first else node.inputs[::-1]
    return other if stripped(own) is end else None


def _mixed(flow: Flow, node: Node) -> Iterator[int]:
    """Products of `x * w + y * (1 - w)`, or of `x + w * (y - x)`."""
    products = [(v, maker(v)) for v in node.inputs]
    scaled = [made for _, made in products if made and _leaf(flow, made)]
    if len(scaled) == 2 and _are_complements(flow, node, scaled):
        yield from (made.index for made in scaled)
    for value, made in products:
        if made is not None and _leaf(flow, made):
            others = [v for v in node.inputs if v is not value]
            if others and _is_difference_with(flow, made, stripped(others[0])):
                yield made.index


def _leaf(flow: Flow, node: Node) -> tuple[int, Carried] | None:
    """The only leaf that a product multiplies activations by, if nothing hides it."""
    if node.op != "mul" or len(flow.data_of(node)) != 1:
        return None
    found = [
        pair
        for value in node.inputs
        if flow.from_leaves(value)
        for pair in flow.fact(value).carried.items()
    ]
    return found[0] if len(found) == 1 and not found[0][1].opaque else None


def _are_complements(flow: Flow, node: Node, products: list[Node]) -> bool:
    """Whether the factors of two products are those of one leaf, and sum to one."""
    found = [pair for made in products if (pair := _leaf(flow, made))]
    if len(found) != 2 or found[0][0] != found[1][0]:
        return False
    first, second = (carried for _, carried in found)
    sign = -1 if node.op == "sub" else 1
    varies = first.multiplier + sign * second.multiplier
    return math.isclose(varies, 0, abs_tol=1e-6) and math.isclose(
        abs(first.offset + sign * second.offset), 1, rel_tol=1e-6
    )


def _is_difference_with(flow: Flow, product: Node, value: Value) -> bool:
    """Whether a product scales a difference with a value, which it is then added to."""
    (data,) = flow.data_of(product)
    made = maker(data)
    return (
        made is not None
        and made.op == "sub"
        and len(flow.data_of(made)) == 2
        and any(stripped(v) is value for v in made.inputs)
    )


def _slopes(flow: Flow, node: Node) -> Iterator[int]:
    """Products of `where(x > 0, x, w * x)`, or of `max(x, 0) + w * min(x, 0)`."""
    cases = node.inputs[1:] if node.op == "select_n" else node.inputs
    for value in cases:
        made = maker(value)
        if made is None or not _leaf(flow, made):
            continue
        own = _before_bend(flow, flow.data_of(made)[0])
        others = [v for v in cases if v is not value]
        bends = node.op == "select_n" or own is not stripped(flow.data_of(made)[0])
        if bends and any(_before_bend(flow, v) is own for v in others):
            yield made.index


def _before_bend(flow: Flow, value: Value) -> Value:
    """A value before a maximum or minimum with a number."""
    value = stripped(value)
    node = value.node
    if node is not None and node.op in ("max", "min") and flow.numbers_of(node):
        return stripped(flow.data_of(node)[0])
    return value
