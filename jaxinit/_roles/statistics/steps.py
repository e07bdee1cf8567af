"""Comparisons of activations, as conditions and as numbers.

Take `y * (y > 0)`, a ReLU. The condition is a step function of the same `y`, of mean
and second moment 0.5, so the product is exact. `y * (n > jnp.arange(5))` has a mask of
an input, which says what counts: what it lets through is as large as `y`.
"""

from collections.abc import Collection, Sequence

from jaxinit._roles.patterns.extents import is_integer
from jaxinit._roles.reading.flow import Flow
from jaxinit._roles.reading.graph import Node, Value
from jaxinit._roles.reading.primitives import COPIES, MOVES, POINTWISE, PRODUCTS
from jaxinit._roles.reading.values import is_filling, is_mask, maker, stripped
from jaxinit._roles.reading.walks import is_inexact, reached
from jaxinit._roles.statistics.spreads import Spread

_COMPARISONS = frozenset({"eq", "ge", "gt", "is_finite", "le", "lt", "ne"})
_FLAGS = COPIES | MOVES - {"carry"} | PRODUCTS | {"and", "not", "or", "xor"}


def is_step(flow: Flow, value: Value) -> bool:
    """Whether a value tells where activations are large: `y > 0`, or numbers of it."""
    found: list[bool] = []

    def before(value: Value) -> Sequence[Value]:
        node = value.node
        if node is None or not flow.data(value):
            found.append(value.constant is not None or flow.number(value) is not None)
            return ()
        if node.op in _COMPARISONS:
            found.append(all(map(is_inexact, node.inputs)))
            return ()
        if node.op == "select_n" and all(map(is_filling, node.inputs[1:])):
            return node.inputs[:1]
        if node.op in _FLAGS:
            return node.inputs
        found.append(False)
        return ()

    for _ in reached([value], before):
        if not all(found):
            return False
    return flow.data(value) and all(found)


def is_number(flow: Flow, value: Value) -> bool:
    """Whether a value has floats, or is a step, whose moments are followed."""
    return is_inexact(value) or is_step(flow, value)


def is_count(flow: Flow, value: Value) -> bool:
    """Whether a value has integers of which nothing is known."""
    return is_integer(value) and not is_step(flow, value)


def is_masks(flow: Flow, value: Value) -> bool:
    """Whether a value is a mask, or a product of masks, and not what one lets through.

    `(y > 0) * y` is none.
    """
    node = maker(value)
    factors = flow.data_of(node) if node is not None and node.op == "mul" else ()
    return is_mask(value) and all(map(is_mask, factors))


def picks_its_own(flow: Flow, node: Node) -> bool:
    """Whether a node multiplies a function by a step of the same activations.

    Where the step is at one number, as in `y * (y > 0)`, the product is exact. Here it
    is at each of an array of numbers, as the knots of splines are.
    """
    if node.op != "mul":
        return False
    for step, other in (node.inputs, node.inputs[::-1]):
        stepped = _stepped_at_several(flow, step)
        if stepped and any(v.index in stepped for v in reached([other], _taken)):
            return True
    return False


def _stepped_at_several(flow: Flow, step: Value) -> set[int]:
    """Indices of the values that a step compares with an array of numbers."""
    if not (flow.data(step) and is_step(flow, step)):
        return set()

    def before(value: Value) -> Sequence[Value]:
        node = value.node
        return node.inputs if node is not None and node.op in _FLAGS else ()

    nodes = (value.node for value in reached([step], before))
    found = [x for x in nodes if x is not None and x.op in _COMPARISONS]
    return {
        stripped(value).index
        for comparison in found
        if any(flow.number(v) is None and not flow.data(v) for v in comparison.inputs)
        for value in flow.data_of(comparison)
    }


def _taken(value: Value) -> Sequence[Value]:
    """What an elementwise function takes, in other places at most."""
    node = value.node
    return node.inputs if node is not None and node.op in POINTWISE else ()


def counts(spread: Spread, others: Sequence[Spread], inputs: Collection[int]) -> bool:
    """Whether a step makes what it multiplies smaller, and is no mask of inputs.

    Args:
        spread: how the step is distributed.
        others: how what it multiplies is.
        inputs: roots of what is an input, or noise.
    """
    return spread.root not in inputs or any(spread.root == x.root for x in others)
