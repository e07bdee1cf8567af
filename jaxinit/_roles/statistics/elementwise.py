"""How the output of each elementwise operation is distributed, given its inputs.

Take `silu(z) * y`, `z` and `y` outputs of kernels. `silu(z)` is a function of `z`
alone; its product with the independent `y` has the mean 0 and the second moment
`E[silu(z)**2]`, here 0.356.
"""

import math
from collections.abc import Sequence

from jaxinit._roles.patterns.dropouts import dropped
from jaxinit._roles.patterns.extents import number_of_shares
from jaxinit._roles.patterns.interpolations import Mix, by_difference
from jaxinit._roles.patterns.normalization import is_below_largest, is_centering
from jaxinit._roles.reading.flow import Flow
from jaxinit._roles.reading.functions import plain_params
from jaxinit._roles.reading.graph import Node, Value
from jaxinit._roles.reading.primitives import LISTED, PRODUCTS, SUMS
from jaxinit._roles.reading.walks import is_inexact
from jaxinit._roles.statistics.arrangements import Arrangements
from jaxinit._roles.statistics.combined import (
    Moments,
    interpolated,
    let_through,
    of_independent,
    one_of,
    shared,
)
from jaxinit._roles.statistics.constants import constant_moments
from jaxinit._roles.statistics.spreads import Expression, Spread, of_two
from jaxinit._roles.statistics.steps import counts, is_masks, is_step

_LARGEST = 40  # operations in one expression
_NOISE = ("erf_inv", "random", "rng", "threefry")  # how names of random numbers begin


class Elementwise:
    """The spreads that are known, and functions of them.

    Attributes:
        inputs: roots of what is known only to be as a norm would make it.
    """

    def __init__(self, flow: Flow):
        """Begins with the inputs.

        Args:
            flow: what is known.
        """
        self._flow, self._roots = flow, 0
        self.inputs = set[int]()
        self._arranged = Arrangements()
        self._spreads: list[Spread | None] = [None] * len(flow.graph.values)
        for value in flow.graph.values:
            if value.node is None and flow.data(value):
                self._spreads[value.index] = self._first(value)

    def _first(self, value: Value) -> Spread:
        """The spread of an input, or of a constant that is an activation."""
        moments = None if value.constant is None else constant_moments(value)
        if moments is None or not any(moments):  # zeros are what something begins with
            return self._unit()
        return self.normal(*moments)

    def known(self, value: Value) -> Spread | None:
        """The spread of a value; None for one that is not followed yet."""
        return self._spreads[value.index]

    def spread(self, value: Value) -> Spread:
        """The spread of a value, standard normal if there is none."""
        return self._spreads[value.index] or self.normal()

    def set(self, value: Value, mean: float, variance: float, doubt: str = "") -> None:
        """Gives a value moments that were found otherwise."""
        self._spreads[value.index] = self.normal(mean, variance, doubt)

    def normal(
        self, mean: float = 0.0, variance: float = 1.0, doubt: str = ""
    ) -> Spread:
        """A new variable."""
        self._roots += 1
        expression: Expression = "z"
        if variance != 1:
            expression = ("mul", (), expression, math.sqrt(variance))
        if mean:
            expression = ("add", (), expression, float(mean))
        return Spread(self._roots, expression, 0, doubt)

    def _new(self, expression: Expression, size: int) -> Spread:
        """A function of a new variable."""
        self._roots += 1
        return Spread(self._roots, expression, size)

    def _unit(self) -> Spread:
        """An input: of the size that a norm would give it.

        Numbers that multiply it are as unknown as what they are for, such as the
        division of pixels by 255.
        """
        spread = self.normal()
        self.inputs.add(spread.root)
        return spread

    def _doubtful(self, node: Node) -> list[Spread]:
        """What is behind an operation for which there is no rule."""
        is_noise = node.op.startswith(_NOISE)
        why = "not followed" if node.op not in LISTED else "of unknown moments"
        return [
            self.normal(0, 1, f"`{node.op}` is {why}")
            if is_inexact(value) and not is_noise
            else self._unit()
            for value in node.outputs
        ]

    def _mixed(self, values: Sequence[Value]) -> Spread:
        """One of several values, each as often as it has entries."""
        spreads = list(map(self.spread, values))
        if len(spreads) == 1:
            return spreads[0]
        sizes = [math.prod(v.shape) or 1 for v in values]
        return self.normal(*one_of(spreads, [size / sum(sizes) for size in sizes]))

    def _of_root(self, node: Node, root: int) -> list[Value]:
        """The inputs of a node that are made of one variable."""
        data = self._flow.data_of(node)
        return [v for v in data if v.shape and self.spread(v).root == root]

    def _elementwise(self, node: Node) -> Spread:
        if (found := dropped(self._flow, node)) is not None:
            return self._thinned(*found)
        mix = by_difference(self._flow, node)
        if mix is not None and (mixed := self._interpolated(mix)) is not None:
            return mixed
        if is_centering(node):
            return self._centered(self.spread(node.inputs[0]))
        if is_below_largest(node) and self.spread(node.inputs[0]).is_finite:
            known, largest = map(self.spread, node.inputs)
            return self._less(known, largest.mean)
        data = self._flow.data_of(node)
        is_linear = node.op in SUMS | PRODUCTS and len(data) == 1
        if is_linear and self._is_input(self.spread(data[0])):
            return self._unit()
        if node.op == "select_n" and not self._flow.data(node.inputs[0]):
            return self._mixed(data)
        operands: list[float | Spread] = []
        for value in node.inputs:
            operand = self._operand(node, value)
            if operand is None:
                return self.normal()
            operands.append(operand)
        spreads = [x for x in operands if isinstance(x, Spread)]
        if node.op == "select_n":
            return self._selected(node, operands)
        roots = {spread.root for spread in spreads}
        if len(roots) > 1:
            return self._of_several(node, operands)
        if not spreads:
            return self.normal()
        if all(map(self._is_input, spreads)) and node.op in SUMS | PRODUCTS:
            return self._unit()
        if self._arranged.are_apart(self._of_root(node, spreads[0].root)):
            return self._of_several(node, operands)
        size = 1 + sum(spread.size for spread in spreads)
        parts = [x.expression if isinstance(x, Spread) else x for x in operands]
        made = (node.op, plain_params(node.params), *parts)
        spread = Spread(spreads[0].root, made, size)
        if size > _LARGEST:
            return self.normal(spread.mean, spread.variance)
        return spread

    def _is_input(self, spread: Spread) -> bool:
        """Whether a value is one of inputs, and no function of it."""
        return spread.root in self.inputs and spread.expression == "z"

    def _centered(self, spread: Spread) -> Spread:
        """A value less its mean over some axis."""
        return self._less(spread, spread.mean)

    def _less(self, spread: Spread, number: float) -> Spread:
        """A value less a number, unless it is an input."""
        if spread.root in self.inputs or not number:
            return spread
        made = ("sub", (), spread.expression, float(number))
        return Spread(spread.root, made, spread.size + 1)

    def _thinned(self, value: Value, share: float) -> Spread:
        """What a dropout keeps of a value: a share of its second moment."""
        spread = self.spread(value)
        if spread.root in self.inputs:
            return spread
        made = ("mul", (), spread.expression, math.sqrt(share))
        return Spread(spread.root, made, spread.size + 1)

    def _interpolated(self, mix: Mix) -> Spread | None:
        """A weighed mean of two values; None if their entries are those of one."""
        first, second = ends = self.spread(mix.first), self.spread(mix.second)
        if mix.share is None or mix.product is None:
            return second
        is_one = first.root == second.root
        if is_one and not self._arranged.are_apart([mix.first, mix.second]):
            return None
        weight = self._operand(mix.product, mix.share)
        if weight is None or {first.root, second.root} <= self.inputs:
            return None
        return self.normal(*interpolated(weight, *ends))

    def _operand(self, node: Node, value: Value) -> float | Spread | None:
        number = self._flow.number(value)
        if number is not None:
            return float(number)
        if self._flow.data(value):
            begun = self._begun(value)
            if begun is not None and len(self._flow.data_of(node)) > 1:
                return self.normal(*begun)
            is_neutral = node.op in PRODUCTS and is_masks(self._flow, value)
            if is_neutral and not self._counts(node, value):
                return 1.0
            return self.spread(value)
        if self._flow.from_leaves(value):
            return 0.0 if node.op in SUMS else 1.0
        moments = constant_moments(value)
        if moments is not None and node.op != "select_n":
            return self.normal(*moments)
        return 0.0 if node.op in SUMS else 1.0 if node.op in PRODUCTS else None

    def _begun(self, value: Value) -> Moments | None:
        """The moments of a constant that a loop begins with, zeros included."""
        sources = () if value.node is None else value.node.sources()
        is_input = value.node is None and value.constant is None
        if is_input or any(map(self._flow.data, sources)):
            return None
        return constant_moments(value)

    def _counts(self, node: Node, mask: Value) -> bool:
        """Whether a mask is a step of what it multiplies, or of other activations."""
        others = [self.spread(v) for v in self._flow.data_of(node) if v is not mask]
        step = self.spread(mask)
        return is_step(self._flow, mask) and counts(step, others, self.inputs)

    def _selected(self, node: Node, operands: Sequence[float | Spread]) -> Spread:
        """What a condition lets through."""
        which, *cases = operands
        roots = {x.root for x in operands if isinstance(x, Spread)}
        own = self._of_root(node, which.root) if isinstance(which, Spread) else []
        is_one = isinstance(which, Spread) and len(roots) == 1
        if is_one and not self._arranged.are_apart(own):
            parts = [x.expression if isinstance(x, Spread) else x for x in operands]
            size = 1 + sum(x.size for x in operands if isinstance(x, Spread))
            return Spread(roots.pop(), ("select_n", (), *parts), size)
        spreads = [x for x in cases if isinstance(x, Spread)]
        if isinstance(which, Spread) and len(cases) == 2:
            is_known = is_step(self._flow, node.inputs[0])
            is_known = is_known and counts(which, spreads, self.inputs)
            found = let_through(which, cases) if is_known else None
            if found is not None:
                return self.normal(*found)
        if len({x.root for x in spreads}) > 1:  # either, as often as the other
            return self.normal(*one_of(spreads, [1 / len(spreads)] * len(spreads)))
        return spreads[-1] if spreads else self.normal()

    def _of_several(self, node: Node, operands: Sequence[float | Spread]) -> Spread:
        """A function of independent values."""
        found = None
        if node.op == "div":
            found = shared(self.spread(node.inputs[0]), number_of_shares(node))
        found = found or of_independent(node.op, operands)
        if found is None and node.op != "div":
            found = of_two(node.op, operands)
        return self._doubtful(node)[0] if found is None else self.normal(*found)
