"""What follows a contraction: elementwise functions, up to what is not one.

Take the gated unit `(silu(z[:, :6]) * z[:, 6:]) @ w`. Followed from `z`, the slices are
two roots. From the first, `logistic` and `mul` make one function, and the product with
what comes from the other root is an end: `silu`, taken by a product. From the second,
the product is an end at once: the identity.

On the way biases and constants that are added are zero, scales one, and the other terms
of a sum are left out, as they are added to the same input of the function. A function
goes on behind `concatenate`, where it takes other values too, and behind the sum of a
stack. It ends, by its name, where a leaf that is no scale multiplies it, and where a
loss compares it with a target.
"""

import heapq
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from jaxinit._roles.patterns.dropouts import dropped
from jaxinit._roles.patterns.losses import is_in_loss
from jaxinit._roles.patterns.sums import (
    is_cut,
    only_taker,
    subtracts_centers,
    sums_stacked,
)
from jaxinit._roles.reading.facts import CONSTANT
from jaxinit._roles.reading.flow import Flow
from jaxinit._roles.reading.functions import FUNCTIONS, Function, plain_params, replayed
from jaxinit._roles.reading.graph import Node, Value
from jaxinit._roles.reading.primitives import (
    ADDITIONS,
    COPIES,
    ELEMENTWISE,
    LISTED,
    PARTS,
    PRODUCTS,
    RELOCATIONS,
    SCATTERS,
    SUMS,
)
from jaxinit._roles.reading.values import is_mask
from jaxinit._roles.reading.walks import ancestor, reached

_WHOLE = COPIES | RELOCATIONS | {"branches", "concatenate", "each", "stacked"}

# An operation, its parameters, and its operands: numbers, or positions of results, of
# which 0 is the root and `n` what step `n - 1` gives.
Step = tuple[str, tuple, tuple[int | float, ...]]


@dataclass(frozen=True, eq=False)
class End:
    """A value made of one root by a function, and taken by something else.

    Attributes:
        root: the output of the contraction, or a part of it.
        value: the last value.
        function: the function from the root to it; None if it is not known.
        takers: what takes it.
        hidden: the primitive that is not followed, behind which nothing is known.
        compared: whether it is of a loss, behind a difference to a target.
    """

    root: Value
    value: Value
    function: Function | None
    takers: tuple[Node, ...]
    hidden: str = ""
    compared: bool = False

    @property
    def is_gate(self) -> bool:
        """Whether its function goes from 0 to 1, as a sigmoid does."""
        return self.function is not None and self.function.is_gate

    @property
    def known_function(self) -> Function | None:
        """Its function, if nothing hides what follows."""
        return None if self.hidden else self.function

    @property
    def function_name(self) -> str | None:
        """The name of its function, if there is one that nothing hides."""
        return self.known_function.name if self.known_function is not None else None


def follow(flow: Flow, start: Value, is_residual: Callable[[Node], bool]) -> list[End]:
    """All ends of what follows a value.

    Args:
        flow: what is known.
        start: the value.
        is_residual: whether a node adds a branch to a residual stream.
    """
    return list(_Region(flow, start, is_residual, {start.index: 0}, []).ends())


class _Region:
    """What functions of one root give."""

    def __init__(
        self,
        flow: Flow,
        root: Value,
        is_residual: Callable[[Node], bool],
        positions: dict[int, int],
        steps: list[Step],
    ):
        """A region with its first values.

        Args:
            flow: what is known.
            root: the root.
            is_residual: whether a node adds a branch to a residual stream.
            positions: that of each value in the results of `steps`, by its index.
            steps: what was done on the way to the root.
        """
        self._flow, self._root, self._is_residual = flow, root, is_residual
        self._positions, self._steps = positions, steps
        self._nodes: dict[int, Node] = {}
        self._queue: list[int] = []  # a heap: nodes are visited in their order
        self._taken: dict[int, tuple[Value, list[Node]]] = {}
        self._hidden: dict[int, str] = {}
        self._past_leaf: set[int] = set()  # values behind a leaf that is no scale
        self._compared: set[int] = set()  # and behind a difference to a target
        for index in list(positions):
            self._push(flow.graph.values[index])

    def ends(self) -> Iterator[End]:
        while self._queue:
            node = self._nodes[heapq.heappop(self._queue)]
            if node.op in PARTS and node.inputs[0].index in self._positions:
                yield from self._parts(node)
            else:
                self._visit(node)
        for index, (value, takers) in self._taken.items():
            function = _function(self._steps, self._positions[index])
            hidden = self._hidden.get(index, "")
            compared = index in self._compared
            yield End(self._root, value, function, tuple(takers), hidden, compared)

    def _push(self, value: Value) -> None:
        for node in value.users:
            if node.index not in self._nodes:
                self._nodes[node.index] = node
                heapq.heappush(self._queue, node.index)
        if value.is_output:
            self._taken.setdefault(value.index, (value, []))

    def _parts(self, node: Node) -> Iterator[End]:
        """The ends of each part that is taken of a value: each is a root."""
        position = self._positions[node.inputs[0].index]
        for part in node.outputs:
            if part.users or part.is_output:
                inner = {scaled(self._flow, part)[0].index: position}
                region = _Region(
                    self._flow, part, self._is_residual, inner, [*self._steps]
                )
                yield from region.ends()

    def _visit(self, node: Node) -> None:
        position = self._position(node)
        if position is not None:
            is_past_leaf, is_compared = self._is_past_leaf(node), self._compares(node)
            for value in node.outputs[:1]:
                self._positions[value.index] = position
                if is_past_leaf:
                    self._past_leaf.add(value.index)
                if is_compared:
                    self._compared.add(value.index)
                self._push(value)
            return
        # of a loop's next value, no input is in the region
        for value in self._inside(node.inputs) or self._inside(node.sources()):
            self._taken.setdefault(value.index, (value, []))[1].append(node)
            if node.op not in LISTED:
                self._hidden[value.index] = node.op

    def _inside(self, values: Sequence[Value]) -> list[Value]:
        return [value for value in values if value.index in self._positions]

    def _position(self, node: Node) -> int | None:
        """Where the result of a node is, if it is one of functions of the root."""
        if node.op in _WHOLE:
            several = node.op == "optimization_barrier" and len(node.inputs) > 1
            return None if several else self._only_position(node.inputs)
        if node.op == "stack" and not is_cut(node.output):
            return self._only_position(node.inputs)
        if sums_stacked(node) and self._is_of_root(node):
            return 0
        if node.op in SCATTERS and not self._flow.data(node.inputs[0]):
            return self._positions.get(node.inputs[2].index)
        is_function = node.op in ELEMENTWISE and node.op in FUNCTIONS
        if not is_function or self._is_residual(node):
            return None
        if subtracts_centers(self._flow, node):
            return None
        masked = self._masked(node) if node.op == "select_n" else None
        return self._computed(node) if masked is None else masked

    def _only_position(self, values: Sequence[Value]) -> int | None:
        found = {self._positions[value.index] for value in self._inside(values)}
        return found.pop() if len(found) == 1 else None

    def _masked(self, node: Node) -> int | None:
        """The position of what a mask lets through."""
        which, *cases = node.inputs
        others = [value for value in cases if value.index not in self._positions]
        filled = all(self._flow.number(value) is not None for value in others)
        if which.index in self._positions or not filled:
            return None
        return self._only_position(cases)

    def _computed(self, node: Node) -> int | None:
        """The position of what an elementwise operation gives, in a step of its own."""
        found = [self._operand(node, value) for value in node.inputs]
        operands = tuple(x for x in found if x is not None)
        if len(operands) < len(found):
            return None
        inside = [x for x in operands if isinstance(x, int)]
        if self._is_past_leaf(node) or self._compares(node):
            return self._positions[self._inside(node.inputs)[0].index]
        if node.op == "sub" and operands[0] == 0.0 and self._flow.data(node.inputs[0]):
            return inside[0]  # the other term of a difference: as good as that of a sum
        if len(inside) == 1 and len(operands) == 2 and _keeps(node.op, *operands):
            return inside[0]
        if self._is_of_root(node) and self._scales_all(node):
            return 0
        self._steps.append((node.op, plain_params(node.params), operands))
        return len(self._steps)

    def _is_of_root(self, node: Node) -> bool:
        """Whether what a node takes of the region is the root, before any function."""
        inside = self._inside(node.inputs)
        return bool(inside) and not any(self._positions[v.index] for v in inside)

    def _compares(self, node: Node) -> bool:
        """Whether a function ends here, or before, as its value is one of a loss.

        As of `z` in `((z - y) ** 2).mean()`, where the square is no function of it.
        """
        inside = self._inside(node.inputs)
        if any(value.index in self._compared for value in inside):
            return True
        if node.op != "sub" or len(inside) != 1:
            return False
        others = all(map(self._flow.data, node.inputs))
        return others and is_in_loss(self._flow, node.output)

    def _is_past_leaf(self, node: Node) -> bool:
        """Whether a function ends here, or before: a leaf that is no scale follows it.

        As `-exp(rate)` in `exp(-exp(rate) * softplus(z))`, whose sign and size nobody
        knows. The function is softplus, whatever else is made of it.
        """
        inside = self._inside(node.inputs)
        if any(value.index in self._past_leaf for value in inside):
            return True
        if node.op not in PRODUCTS or self._is_of_root(node):
            return False
        return any(
            item.opaque not in ("", CONSTANT)
            for value in node.inputs
            if self._flow.from_leaves(value)
            for item in self._flow.fact(value).carried.values()
        )

    def _scales_all(self, node: Node) -> bool:
        """Whether a node multiplies all that there is of a sum by a positive number."""
        numbers = [self._flow.number(value) or 0 for value in node.inputs]
        inside = self._inside(node.inputs)
        alone = len(inside) == 1 and only_taker(inside[0]) is node
        inverse = node.op == "div" and inside[0] is not node.inputs[0]
        return node.op in PRODUCTS and alone and max(numbers) > 0 and not inverse

    def _operand(self, node: Node, value: Value) -> int | float | None:
        """The position of a value in the region, or the number that stands for it."""
        if value.index in self._positions:
            return self._positions[value.index]
        number = self._flow.number(value)
        if number is None:
            number = self._neutral(node, value)
        return None if number is None else float(number)

    def _neutral(self, node: Node, value: Value) -> float | None:
        """What stands for an operand that is not of this root; None if nothing may."""
        if self._flow.from_leaves(value):
            return self._neutral_leaves(node, value)
        if node.op in PRODUCTS and is_mask(value):
            return 1.0
        if node.op not in SUMS:
            return None
        if not self._flow.data(value):
            is_shift = not self._steps  # before the function
            return 0.0 if is_mask(value) or is_shift else None
        apart = not self._steps and not ancestor(self._root, value)
        return 0.0 if apart else None

    def _neutral_leaves(self, node: Node, value: Value) -> float | None:
        """0 for a bias, 1 for a scale."""
        if any(c.is_deviation for c in self._flow.fact(value).carried.values()):
            return None  # a normalization with running statistics
        if node.op in SUMS:
            return 0.0
        factor = node.op == "mul" or (node.op == "div" and value is node.inputs[1])
        return 1.0 if factor else None


def _keeps(op: str, first: int | float, second: int | float) -> bool:
    """Whether an operation with one number leaves its other operand as it is."""
    if isinstance(first, float):
        return (op in ADDITIONS and first == 0) or (op == "mul" and first == 1)
    return second == 0 if op in SUMS else op in PRODUCTS and second == 1


def _function(steps: Sequence[Step], position: int) -> Function:
    """The function at a position, from the steps that it needs alone."""

    def before(position: int) -> list[int]:
        operands = steps[position - 1][2] if position else ()
        return [x for x in operands if isinstance(x, int)]

    needed = sorted({0, *reached([position], before)})
    renamed = {position: i for i, position in enumerate(needed)}
    kept = (steps[position - 1] for position in needed[1:])
    return replayed(
        tuple(
            (op, params, tuple(renamed[x] if isinstance(x, int) else x for x in inputs))
            for op, params, inputs in kept
        )
    )


def scaled(flow: Flow, value: Value) -> tuple[Value, float]:
    """A value behind the numbers that multiply it and the biases, and their product."""
    factor = 1.0
    while len(value.users) == 1 and not value.is_output:
        after = _after_scale(flow, value, value.users[0], factor)
        if after is None:
            break
        value, factor = after
    return value, factor


def _after_scale(
    flow: Flow, value: Value, node: Node, factor: float
) -> tuple[Value, float] | None:
    """The value behind one number, and the product; None if it is something else."""
    if node.op in COPIES or node.op in RELOCATIONS:
        return node.outputs[0], factor
    kept = dropped(flow, node)
    if kept and kept[0] is value:  # by what its second moment is multiplied
        return node.output, factor * math.sqrt(kept[1])
    others = [v for v in node.inputs if v is not value]
    if len(others) != 1:
        return None
    number = flow.number(others[0])
    if node.op in SUMS and flow.from_leaves(others[0]):
        return None if subtracts_centers(flow, node) else (node.output, factor)
    if number and node.op == "mul":
        return node.output, factor * number
    if number and node.op == "div" and value is node.inputs[0]:
        return node.output, factor / number
    return None
