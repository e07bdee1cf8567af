"""Mean and second moment of every activation at the start, from the computation.

Inputs are taken to be standard normal, and every kernel to give outputs of mean zero
and variance one, or its share of that where it writes to a residual stream. Take

    h = relu(x @ w1);  y = h @ w2

The output of `w1` is a standard normal `z`. `relu(z)` is an expression in `z`, and its
mean 0.399 and second moment 0.5 are integrals. So 0.5 enters `w2`, whose entries need
the variance `1 / (0.5 fan_in)`: He's rule, without asking for ReLU.

What holds:
- Expressions in one `z` are exact, whatever they are called: `silu(z)` knows that both
  factors are of the same `z`.
- What is made of several values takes them to be independent. Sums of `n` values have
  the mean `n m` and the variance `n v`; a mean over many is close to constant, and so a
  norm gives one.
- What an attention, or a mean over positions, averages keeps its second moment, as if
  all positions were alike: an upper bound, which tokens reach that do not differ.
- Rows of embeddings have the second moment `1 / width`, with which `auto` draws them.
- What cannot be known counts as standard normal, as a norm would make it.
- Where gradients would grow or vanish with depth, `critical` says what to do instead.
"""

import math
from collections.abc import Collection, Mapping, Sequence

import jax.numpy as jnp
import numpy as np

from jaxinit._roles.axes import contracted_axes
from jaxinit._roles.critical import Critical, critical
from jaxinit._roles.functions import FUNCTIONS, plain_params
from jaxinit._roles.graph import Node, Value
from jaxinit._roles.primitives import (
    CONTRACTIONS,
    COPIES,
    ELEMENTWISE,
    MOVES,
    PRODUCTS,
    REDUCTIONS,
    RELOCATIONS,
    SUMS,
)
from jaxinit._roles.residual import Residuals
from jaxinit._roles.role import Use
from jaxinit._roles.spreads import Expression, Spread
from jaxinit._roles.structure import Structure
from jaxinit._roles.values import is_mask, is_one_hot

_MOST = 1e3  # a second moment beyond this comes of what was not understood
_LARGEST = 40  # operations in one expression


class Moments:
    """The spread of every activation of a graph.

    Attributes:
        entering: for the index of each contraction with leaves, the second moment of
            what enters it.
        wanted: for the index of each, the variance that its output should have: one, or
            its share of the residual stream that it writes to, as large as that begins;
            divided by the square of a number that multiplies it before a function.
        added: for the index of each sum with leaves, the second moment of the other
            side, such as what positions are added to.
        critical: for the index of each contraction behind a function of what another
            gives, what keeps differences, where that is not what keeps variances.
        of_rows: indices of the contractions of rows of embeddings, behind which are a
            function and another contraction.
    """

    def __init__(
        self,
        structure: Structure,
        places: Mapping[int, tuple[int, int | None]],
        factors: Mapping[int, float],
        inner: Collection[int],
    ):
        """Follows a graph, given what is found in it.

        Args:
            structure: what is found in the graph.
            places: for the index of each writer, its number and the total.
            factors: numbers that multiply outputs before a function, or before they are
                added to a stream, by the index of the contraction.
            inner: indices of the contractions that a function follows, and then
                another contraction.
        """
        flow = self._flow = structure.flow
        self._kernels = structure.kernels
        self._attended = {x.output.index: x.value for x in structure.attentions}
        self._places, self._factors, self._inner = places, factors, inner
        self._roots = 0
        self._unknown, self._outputs, self._rows = (set[int]() for _ in range(3))
        self._spreads: list[Spread | None] = [None] * len(flow.graph.values)
        self.entering: dict[int, float] = {}
        self.wanted: dict[int, float] = {}
        self.added: dict[int, float] = {}
        self.critical: dict[int, Critical] = {}
        self.of_rows: set[int] = set()
        self._begins = _begins(structure.residuals)
        for value in flow.graph.values:
            if value.node is None and flow.data(value):
                self._spreads[value.index] = self._unit()
        for _ in range(2):  # once more with what loops hand on
            for node in flow.graph.nodes:
                for output, spread in zip(node.outputs, self._of(node), strict=False):
                    self._spreads[output.index] = spread

    def variance(self, node: Node, use: Use) -> float:
        """The variance that the entries of a kernel need."""
        known = self.critical.get(node.index)
        second = known.second if known else self.entering[node.index]
        terms = use.fan_in * second * use.multiplier**2
        return self.wanted[node.index] / terms if terms else 0.0

    def of_bias(self, kernels: Collection[Node], multiplier: float) -> float:
        """The variance that a bias behind some kernels needs."""
        if len(kernels) != 1 or not multiplier:
            return 0.0
        (index,) = (node.index for node in kernels)
        known = self.critical.get(index)
        return known.bias * self.wanted[index] / multiplier**2 if known else 0.0

    def _normal(self, mean: float = 0.0, variance: float = 1.0) -> Spread:
        """A new variable."""
        self._roots += 1
        expression: Expression = "z"
        if variance != 1:
            expression = ("mul", (), expression, math.sqrt(variance))
        if mean:
            expression = ("add", (), expression, float(mean))
        return Spread(self._roots, expression, 0)

    def _unit(self) -> Spread:
        """What cannot be known: of the size that a norm would give it.

        Numbers that multiply it are as unknown as what they are for, such as the
        division of pixels by 255.
        """
        spread = self._normal()
        self._unknown.add(spread.root)
        return spread

    def _spread(self, value: Value) -> Spread:
        return self._spreads[value.index] or self._normal()

    def _of(self, node: Node) -> Sequence[Spread | None]:
        """The spreads of the outputs of a node."""
        if not any(self._flow.data(value) for value in node.sources()):
            return [None] * len(node.outputs)
        if node.index in self._kernels:
            return [self._contracted_with_leaves(node)]
        if node.op in CONTRACTIONS:
            return [self._contracted(node)]
        is_lookup = node.op in ("gather", "dynamic_slice")
        if is_lookup and self._flow.from_leaves(node.inputs[0]):
            row = self._normal(0.0, 1 / _width(node))
            self._rows.add(row.root)
            return [row]
        if node.op in ELEMENTWISE and node.op in FUNCTIONS:
            return [self._elementwise(node)]
        if node.op == "carry":
            return [self._carried(node)]
        if node.op in ("concatenate", "stack", "branches"):
            return [self._mixed(node)]
        if node.op == "convert_element_type" and _is_integer(node.inputs[0]):
            return [self._unit()]
        if node.op in COPIES or node.op in MOVES or node.op == "dynamic_update_slice":
            first = node.inputs[0]
            known = self._spread(first) if self._flow.data(first) else self._normal()
            return [known] * len(node.outputs)
        if node.op == "cumsum":
            terms = (node.output.shape[node.params["axis"]] + 1) / 2
            spread = self._spread(node.inputs[0])
            return [self._normal(terms * spread.mean, terms * spread.variance)]
        if node.op in REDUCTIONS or node.op.startswith("reduce_window"):
            return [self._reduced(node)]
        return [self._unit() for _ in node.outputs]

    def _contracted_with_leaves(self, node: Node) -> Spread:
        data = next(v for v in node.inputs[:2] if self._flow.data(v))
        if is_one_hot(data):
            self.entering[node.index] = self.wanted[node.index] = 1.0
            return self._normal(0.0, 1 / node.output.shape[-1])
        spread = self._spread(data)
        second = spread.second
        self.entering[node.index] = second if second < _MOST else 1.0
        if spread.root in self._rows and node.index in self._inner:
            self.of_rows.add(node.index)
        _, total = self._places.get(node.index, (0, 1))
        begin = self._begins.get(node.index)
        stream = 1.0 if begin is None else self._spread(begin).second or 1.0
        wanted = stream / (total or 1) / self._factors.get(node.index, 1.0) ** 2
        self.wanted[node.index] = wanted
        made = self._normal(0.0, wanted)
        if node.index not in self._places:
            self._outputs.add(made.root)
        if spread.root in self._outputs and node.index not in self._places:
            has_bias = node.index in self._inner and self._has_bias(node.output)
            known = critical(spread, has_bias, _has_even_inputs(node, data))
            if known:
                self.critical[node.index] = known
        return made

    def _has_bias(self, value: Value) -> bool:
        """Whether a leaf is added to an output before anything else."""
        while len(value.users) == 1:
            (node,) = value.users
            if node.op in SUMS:
                return any(map(self._flow.from_leaves, node.inputs))
            if node.op not in COPIES | RELOCATIONS:
                return False
            value = node.output
        return False

    def _contracted(self, node: Node) -> Spread:
        if node.index in self._attended:
            return self._spread(self._attended[node.index])
        left, right = map(self._spread, node.inputs[:2])
        if node.op != "dot_general":
            return self._normal()
        shape = node.inputs[0].shape
        terms = math.prod(shape[i] for i in contracted_axes(node, 0))
        mean = left.mean * right.mean
        variance = left.second * right.second - mean * mean
        return self._normal(terms * mean, terms * max(variance, 0.0))

    def _carried(self, node: Node) -> Spread:
        back = None if node.back is None else self._spreads[node.back.index]
        first = node.inputs[0]
        if back is None:
            return self._spread(first) if self._flow.data(first) else self._normal()
        return self._normal(back.mean, back.variance)

    def _mixed(self, node: Node) -> Spread:
        """One of several values, each as often as it has entries."""
        data = [v for v in node.inputs if self._flow.data(v)]
        sizes = [math.prod(v.shape) or 1 for v in data]
        shares = [size / sum(sizes) for size in sizes]
        spreads = list(map(self._spread, data))
        if len({spread.root for spread in spreads}) == 1 and len(spreads) == 1:
            return spreads[0]
        pairs = list(zip(shares, spreads, strict=True))
        mean = sum(share * x.mean for share, x in pairs)
        second = sum(share * x.second for share, x in pairs)
        return self._normal(mean, max(second - mean * mean, 0.0))

    def _reduced(self, node: Node) -> Spread:
        spread = self._spread(node.inputs[0])
        count = _count(node)
        if node.op in ("reduce_sum", "reduce_window_sum"):
            varies = 0.0 if _leads_to_root(node.output) else count * spread.variance
            if varies and self._is_mean_of_places(node, count):
                varies *= count
            return self._normal(count * spread.mean, varies)
        if node.op in ("reduce_max", "reduce_window_max"):
            return self._normal(*spread.largest(count))
        return self._normal()

    def _is_mean_of_places(self, node: Node, count: int) -> bool:
        """Whether it is an average over positions, which are taken to be alike."""
        numbers = [
            self._flow.number(v) for user in node.output.users for v in user.inputs
        ]
        axes = self._flow.fact(node.inputs[0]).axes
        gone = node.params.get("axes", ())
        of_features = any(atom.size > 1 for i in gone for atom in axes[i])
        return not of_features and any(
            number is not None and math.isclose(number, wanted, rel_tol=1e-5)
            for number in numbers
            for wanted in (count, 1 / count)
        )

    def _elementwise(self, node: Node) -> Spread:
        if node.op in SUMS and any(map(self._flow.from_leaves, node.inputs)):
            (data,) = (v for v in node.inputs if not self._flow.from_leaves(v))
            self.added[node.index] = self._spread(data).second
        operands: list[float | Spread] = []
        for value in node.inputs:
            operand = self._operand(node, value)
            if operand is None:
                return self._normal()
            operands.append(operand)
        spreads = [x for x in operands if isinstance(x, Spread)]
        if node.op == "select_n":
            return self._selected(node, operands)
        roots = {spread.root for spread in spreads}
        if len(roots) > 1:
            return self._of_several(node, operands)
        if roots <= self._unknown and node.op in SUMS | PRODUCTS:
            return self._unit()
        size = 1 + sum(spread.size for spread in spreads)
        parts = [x.expression if isinstance(x, Spread) else x for x in operands]
        made = (node.op, plain_params(node.params), *parts)
        if not spreads:
            return self._normal()
        spread = Spread(spreads[0].root, made, size)
        if size > _LARGEST:
            return self._normal(spread.mean, spread.variance)
        return spread

    def _operand(self, node: Node, value: Value) -> float | Spread | None:
        number = self._flow.number(value)
        if number is not None:
            return float(number)
        if self._flow.data(value):
            if node.op in PRODUCTS and is_mask(value):
                return 1.0
            return self._spread(value)
        if self._flow.from_leaves(value):
            return 0.0 if node.op in SUMS else 1.0
        return 0.0 if node.op in SUMS else 1.0 if node.op in PRODUCTS else None

    def _selected(self, node: Node, operands) -> Spread:
        """What a condition lets through."""
        which, *cases = operands
        roots = {x.root for x in operands if isinstance(x, Spread)}
        if len(roots) == 1 and isinstance(which, Spread):
            parts = [x.expression if isinstance(x, Spread) else x for x in operands]
            size = 1 + sum(x.size for x in operands if isinstance(x, Spread))
            return Spread(roots.pop(), ("select_n", (), *parts), size)
        spreads = [x for x in cases if isinstance(x, Spread)]
        return spreads[-1] if spreads else self._normal()

    def _of_several(self, node: Node, operands) -> Spread:
        """A sum or product of independent values."""
        moments = [
            (x.mean, x.second) if isinstance(x, Spread) else (x, x * x)
            for x in operands
        ]
        (a, aa), (b, bb) = moments[:2]
        if node.op in SUMS and len(moments) == 2:
            sign = -1 if node.op == "sub" else 1
            return self._normal(a + sign * b, max(aa - a * a, 0) + max(bb - b * b, 0))
        if node.op == "mul":
            return self._normal(a * b, max(aa * bb - (a * b) ** 2, 0.0))
        if node.op == "div" and b * b > bb / 2:  # far enough from zero
            return self._normal(a / b, max(aa / (b * b) - (a / b) ** 2, 0.0))
        return self._unit()


def _has_even_inputs(node: Node, data: Value) -> bool:
    """Whether the inputs of each output can be two halves of equal size."""
    if node.op == "conv_general_dilated":
        place = node.params["dimension_numbers"].rhs_spec[1]
        return node.inputs[1].shape[place] % 2 == 0
    if node.op != "dot_general":
        return False
    axes = contracted_axes(node, node.inputs.index(data))
    return math.prod(data.shape[i] for i in axes) % 2 == 0


def _is_integer(value: Value) -> bool:
    return jnp.issubdtype(value.dtype, np.integer)


def _width(node: Node) -> int:
    """Number of features of one row that is looked up."""
    if node.op == "dynamic_slice":
        return max(1, math.prod(node.output.shape))
    places = node.params["dimension_numbers"].offset_dims
    return max(1, math.prod(node.output.shape[i] for i in places))


def _begins(residuals: Residuals) -> dict[int, Value]:
    """For the index of each writer, what its stream is before anything is added."""
    first: dict[int, Value] = {}
    for addition in residuals.additions.values():
        first.setdefault(addition.stream, addition.skip)
    return {
        writer.index: first[addition.stream]
        for addition in residuals.additions.values()
        for writer in addition.writers
    }


def _count(node: Node) -> int:
    """How many entries a reduction takes for each that it gives."""
    if "window_dimensions" in node.params:
        return math.prod(node.params["window_dimensions"])
    before, after = math.prod(node.inputs[0].shape), math.prod(node.output.shape)
    return max(1, before // max(after, 1))


def _leads_to_root(value: Value) -> bool:
    """Whether a sum ends under a root, as in a norm, where it is all but constant."""
    pending = [(value, 0)]
    while pending:
        value, depth = pending.pop()
        for node in value.users:
            if node.op in ("rsqrt", "sqrt"):
                return True
            if node.op in ELEMENTWISE and depth < 6:
                pending += [(output, depth + 1) for output in node.outputs]
            elif node.op in COPIES or node.op in MOVES - {"carry"}:
                pending += [(output, depth) for output in node.outputs]
    return False
