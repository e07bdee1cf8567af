"""What follows a contraction: elementwise functions, up to what is not one.

Take the gated unit `(silu(z[:, :6]) * z[:, 6:]) @ w`. Followed from `z`, the slices are
two roots. From the first, `logistic` and `mul` make one function, and the product with
what comes from the other root is an end: `silu`, taken by a product. From the second,
the product is an end at once: the identity.

On the way biases are zero, scales one, and the other terms of a sum are left out, as
they are added to the same input of the function.
"""

import heapq
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from jaxinit._roles.flow import ROOTS, Flow
from jaxinit._roles.functions import FUNCTIONS, Function, plain_params, replayed
from jaxinit._roles.graph import Node, Value, ancestor
from jaxinit._roles.primitives import (
    CONTRACTIONS,
    COPIES,
    ELEMENTWISE,
    LISTED,
    PRODUCTS,
    SUMS,
)

# All numbers of a value, in other places.
_WHOLE = frozenset(
    "transpose reshape squeeze expand_dims broadcast_in_dim pad rev tile stacked branches".split()
)
SCATTERED = ("scatter-add", "scatter_add")  # sums of rows, as of the edges of a graph
_PARTS = frozenset("slice split unstack dynamic_slice gather".split())


@dataclass(frozen=True, eq=False)
class End:
    """A value made of one root by a function, and taken by something else.

    Attributes:
        root: the output of the contraction, or a part of it.
        value: the last value.
        function: the function from the root to it; None if it is not known.
        takers: what takes it.
        hidden: the primitive that is not followed, behind which nothing is known.
    """

    root: Value
    value: Value
    function: Function | None
    takers: tuple[Node, ...]
    hidden: str = ""


def follow(flow: Flow, start: Value, is_residual: Callable[[Node], bool]) -> list[End]:
    """All ends of what follows a value."""
    return list(_follow(flow, start, is_residual, {start.index: 0}, []))


def _follow(flow, start, is_residual, region, steps) -> Iterator[End]:
    """The ends of one root.

    Args:
        flow: what is known.
        start: the root.
        is_residual: whether a node adds a branch to a residual stream.
        region: position in the results of `steps` of each value, by its index.
        steps: what was done on the way to the root.
    """
    queue: list[int] = []
    nodes: dict[int, Node] = {}
    taken: dict[int, tuple[Value, list[Node]]] = {}
    hidden: dict[int, str] = {}

    def push(value: Value) -> None:
        for node in value.users:
            if node.index not in nodes:
                nodes[node.index] = node
                heapq.heappush(queue, node.index)
        if value.is_output:
            taken.setdefault(value.index, (value, []))

    for index in list(region):
        push(flow.graph.values[index])
    while queue:
        node = nodes[heapq.heappop(queue)]
        inside = [v for v in node.inputs if v.index in region]
        if not inside:  # a loop's next value
            inside = [v for v in node.sources() if v.index in region]
        if node.op in _PARTS and node.inputs[0].index in region:
            position = region[node.inputs[0].index]
            for part in node.outputs:
                if part.users or part.is_output:
                    inner = {scaled(flow, part)[0].index: position}
                    yield from _follow(flow, part, is_residual, inner, [*steps])
            continue
        position = _position(flow, node, region, steps, is_residual, start)
        if position is None:
            for value in inside:
                taken.setdefault(value.index, (value, []))[1].append(node)
                if node.op not in LISTED:
                    hidden[value.index] = node.op
            continue
        for value in node.outputs[:1]:
            region[value.index] = position
            push(value)
    for index, (value, takers) in taken.items():
        function = _function(steps, region[index])
        yield End(start, value, function, tuple(takers), hidden.get(index, ""))


def _position(flow, node, region, steps, is_residual, start) -> int | None:
    """Where the result of a node is, if it is one of functions of the root."""
    if node.op in COPIES or node.op in _WHOLE:
        if node.op == "optimization_barrier" and len(node.inputs) > 1:
            return None
        inside = {region[v.index] for v in node.inputs if v.index in region}
        return inside.pop() if len(inside) == 1 else None
    if node.op in SCATTERED and not flow.data(node.inputs[0]):
        return region.get(node.inputs[2].index)
    if node.op not in ELEMENTWISE or node.op not in FUNCTIONS:
        return None
    if is_residual(node):
        return None
    if node.op == "select_n":
        masked = _masked(flow, node, region)
        if masked is not None:
            return masked
    operands: list[int | float] = []
    for value in node.inputs:
        if value.index in region:
            operands.append(region[value.index])
            continue
        number = flow.number(value)
        if number is None:
            number = _neutral(flow, node, value, steps, start)
        if number is None:
            return None
        operands.append(float(number))
    inside = [x for x in operands if isinstance(x, int)]
    if node.op == "sub" and operands[0] == 0.0 and flow.data(node.inputs[0]):
        return inside[0]  # the other term of a difference: as good as that of a sum
    if len(inside) == 1 and len(operands) == 2 and _keeps(node.op, operands):
        return inside[0]
    steps.append((node.op, plain_params(node.params), tuple(operands)))
    return len(steps)


def _keeps(op: str, operands) -> bool:
    """Whether an operation with one number leaves its other operand as it is."""
    first, second = operands
    if isinstance(first, float):
        return (op in ("add", "add_any") and first == 0) or (op == "mul" and first == 1)
    if op in SUMS:
        return second == 0
    return op in PRODUCTS and second == 1


def _masked(flow: Flow, node: Node, region) -> int | None:
    """The position of what a mask lets through."""
    which, *cases = node.inputs
    if which.index in region:
        return None
    inside = {region[v.index] for v in cases if v.index in region}
    others = [v for v in cases if v.index not in region]
    if len(inside) == 1 and all(_is_filler(flow, v) for v in others):
        return inside.pop()
    return None


def _is_filler(flow: Flow, value: Value) -> bool:
    """Whether a value has one number everywhere."""
    return flow.number(value) is not None


def _neutral(flow, node, value, steps, start) -> float | None:
    """What stands for an operand that is not of this root; None if nothing may."""
    if flow.from_leaves(value):
        if any(c.opaque in ROOTS for c in flow.fact(value).carried.values()):
            return None  # a normalization with running statistics
        if node.op in SUMS:
            return 0.0
        if node.op == "mul" or (node.op == "div" and value is node.inputs[1]):
            return 1.0
        return None
    if node.op in PRODUCTS and is_mask(value):
        return 1.0
    if not flow.data(value):
        return 0.0 if node.op in SUMS and is_mask(value) else None
    if node.op in SUMS and not steps and not ancestor(start, value):
        return 0.0
    return None


def is_mask(value: Value) -> bool:
    """Whether a value is true and false, or was before it became numbers."""
    while True:
        if value.dtype == bool:
            return True
        node = value.node
        if node is None:
            return False
        if node.op == "select_n" and value.node is not None:
            return all(v.constant is not None or _is_full(v) for v in node.inputs[1:])
        if node.op not in COPIES and node.op not in _WHOLE and node.op not in PRODUCTS:
            return False
        value = node.inputs[0]


def _is_full(value: Value) -> bool:
    while value.node is not None and value.node.op in ("broadcast_in_dim", *COPIES):
        value = value.node.inputs[0]
    return value.constant is not None


def _function(steps, position: int) -> Function | None:
    """The function at a position, from the steps that it needs alone."""
    needed: dict[int, None] = {}
    pending = [position]
    while pending:
        step = pending.pop()
        if step and step not in needed:
            needed[step] = None
            pending += [x for x in steps[step - 1][2] if isinstance(x, int)]
    order = sorted(needed)
    renamed = {0: 0, **{step: i + 1 for i, step in enumerate(order)}}
    kept = tuple(
        (op, params, tuple(renamed[x] if isinstance(x, int) else x for x in inputs))
        for op, params, inputs in (steps[step - 1] for step in order)
    )
    return replayed(kept)


def scaled(flow: Flow, value: Value) -> tuple[Value, float]:
    """A value behind the numbers that multiply it, biases included, and their product."""
    factor = 1.0
    while len(value.users) == 1 and not value.is_output:
        (node,) = value.users
        if node.op in COPIES or node.op in _WHOLE - {"branches", "stacked"}:
            value = node.outputs[0]
            continue
        other = [v for v in node.inputs if v is not value]
        if len(other) != 1 or node.op not in SUMS | PRODUCTS:
            break
        number = flow.number(other[0])
        if node.op in SUMS and flow.from_leaves(other[0]):
            value = node.output
        elif number and node.op == "mul":
            value, factor = node.output, factor * number
        elif number and node.op == "div" and value is node.inputs[0]:
            value, factor = node.output, factor / number
        else:
            break
    return value, factor


def stripped(value: Value) -> Value:
    """The value that this one is a copy of, in other places at most."""
    while value.node is not None and (
        value.node.op in COPIES or value.node.op in _WHOLE - {"branches", "stacked"}
    ):
        value = value.node.inputs[0]
    return value


def nearest_contractions(
    flow: Flow, value: Value, stop=lambda node: False
) -> list[Node]:
    """The contractions that a value is made of, with no other between."""
    seen: set[int] = set()
    found: dict[int, Node] = {}
    pending = [value.node] if value.node else []
    while pending:
        node = pending.pop()
        if node.index in seen or stop(node):
            continue
        seen.add(node.index)
        if node.op in CONTRACTIONS:
            found[node.index] = node
            continue
        pending += [v.node for v in node.inputs if v.node and flow.data(v)]
    return [found[i] for i in sorted(found)]
