"""How the output of each operation is distributed, given its inputs.

Take `silu(z) * y`, `z` and `y` outputs of kernels. `silu(z)` is a function of `z`
alone; its product with the independent `y` has the mean 0 and the second moment
`E[silu(z)**2]`, here 0.356. `x * exp(p)` of a leaf `p` has the moments of `x`, and a
doubt: nobody knows what `p` is.
"""

import math
from collections.abc import Callable, Collection, Mapping, Sequence

from jaxinit._roles.arrangements import Arrangements
from jaxinit._roles.averages import Averages
from jaxinit._roles.axes import contracted_axes
from jaxinit._roles.combined import (
    interpolated,
    let_through,
    of_independent,
    one_of,
    shared,
)
from jaxinit._roles.constants import constant_moments
from jaxinit._roles.dispatches import tokens_for_one
from jaxinit._roles.dropouts import dropped
from jaxinit._roles.extents import (
    inputs_of_one,
    is_mean_of_places,
    leads_to_root,
    number_of_shares,
    pooled,
    rows_for_one,
    share_inside,
    size_for_one,
    width,
)
from jaxinit._roles.flow import Flow
from jaxinit._roles.functions import FUNCTIONS, plain_params
from jaxinit._roles.graph import Node, Value
from jaxinit._roles.interpolations import Mix, by_difference
from jaxinit._roles.normalization import is_centering, is_deviation
from jaxinit._roles.pieces import Pieces
from jaxinit._roles.primitives import (
    CONTRACTIONS,
    COPIES,
    ELEMENTWISE,
    LISTED,
    MOVES,
    PARTS,
    PRODUCTS,
    REDUCTIONS,
    SCATTERS,
    SUMS,
)
from jaxinit._roles.spreads import Expression, Spread, of_two
from jaxinit._roles.steps import counts, is_count, is_masks, is_number, is_step
from jaxinit._roles.values import is_one_hot
from jaxinit._roles.walks import is_inexact

_LARGEST = 40  # operations in one expression
_SAME = COPIES | MOVES | {"dynamic_update_slice", "scatter", "sort"}
_CONVERSIONS = ("bitcast_convert_type", "convert_element_type")
_NOISE = ("erf_inv", "random", "rng", "threefry")  # how names of random numbers begin


class Activations:
    """The spread of every activation of a graph.

    Attributes:
        inputs: roots of what is known only to be as a norm would make it.
        rows: roots of rows of embeddings.
        pieces: which roots are parts of others.
    """

    def __init__(
        self,
        flow: Flow,
        kernels: Collection[int],
        averages: Averages,
        unknown: Mapping[int, str],
    ):
        """Begins with the inputs.

        Args:
            flow: what is known.
            kernels: indices of contractions with leaves.
            averages: what is averaged, by attentions and otherwise.
            unknown: for the index of a node, what it takes that is not known.
        """
        self._flow, self._kernels = flow, kernels
        self._averages, self._unknown = averages, unknown
        self._roots = 0
        self.inputs, self.rows = set[int](), set[int]()
        self._arranged = Arrangements()
        self.pieces = Pieces(flow, self._arranged, self.inputs, self.rows)
        self._spreads: list[Spread | None] = [None] * len(flow.graph.values)
        for value in flow.graph.values:
            if value.node is None and flow.data(value):
                self._spreads[value.index] = self._unit()

    def known(self, value: Value) -> Spread | None:
        """The spread of a value; None for one that is not followed yet."""
        return self._spreads[value.index]

    def spread(self, value: Value) -> Spread:
        """The spread of a value, standard normal if there is none."""
        return self._spreads[value.index] or self.normal()

    def follow(self, node: Node, of_kernel: Callable[[Node], Spread]) -> None:
        """Finds the spreads of the outputs of a node.

        Args:
            node: the node.
            of_kernel: gives the output of a contraction with leaves.
        """
        if not any(self._flow.data(value) for value in node.sources()):
            self._constant(node)
            return
        if node.index in self._flow.choices.kernels:
            return
        is_kernel = node.index in self._kernels
        made = [of_kernel(node)] if is_kernel else self._of(node)
        doubt = self._unknown.get(node.index, "")
        if not (doubt or is_kernel):
            inherited = self._inherited(node)
            doubt = "" if inherited and self._is_sure(node) else inherited
        for output, spread in zip(node.outputs, made, strict=False):
            if doubt and not spread.doubt:
                spread = Spread(spread.root, spread.expression, spread.size, doubt)
            self._spreads[output.index] = spread
        if made:
            self._arranged.follow(node, self._of_root(node, made[0].root))

    def _constant(self, node: Node) -> None:
        """What is known of constants that are activations, as sinusoids are."""
        for value in filter(self._flow.data, node.outputs):
            number = self._flow.number(value)
            moments = constant_moments(value) if number is None else (number, 0.0)
            if moments and any(moments):  # zeros are what something begins with
                self.set(value, *moments)

    def _of_root(self, node: Node, root: int) -> list[Value]:
        """The inputs of a node that are made of one variable."""
        data = self._flow.data_of(node)
        return [v for v in data if v.shape and self.spread(v).root == root]

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

    def _inherited(self, node: Node) -> str:
        """The doubt of what a node takes, of an average that of what it averages."""
        taken = self._averages.of(node) or node.sources()
        doubts = (x.doubt for v in taken if (x := self._spreads[v.index]) is not None)
        return next(filter(None, doubts), "")

    def _is_sure(self, node: Node) -> bool:
        """Whether what a node takes hardly matters: to a norm, a softmax, a mask."""
        if node.op == "div" and number_of_shares(node) is not None:
            return True
        if node.op in PRODUCTS:
            return any(is_deviation(self._flow, value) for value in node.inputs)
        output = node.outputs[0]
        return not is_inexact(output) and not is_step(self._flow, output)

    def _of(self, node: Node) -> Sequence[Spread]:
        """The spreads of the outputs of a node that is no kernel."""
        averaged = self._averages.of(node)
        if averaged:
            return [self._mixed(averaged)]
        if node.op in CONTRACTIONS:
            return [self._contracted(node)]
        is_lookup = node.op in ("gather", "dynamic_slice")
        if is_lookup and self._flow.from_leaves(node.inputs[0]):
            row = self.normal(0.0, 1 / width(node))
            self.rows.add(row.root)
            return [row]
        if is_lookup and not self._flow.data(node.inputs[0]):
            moments = constant_moments(node.inputs[0])
            return [self.normal() if moments is None else self.normal(*moments)]
        if node.op in ELEMENTWISE and node.op in FUNCTIONS:
            return [self._elementwise(node)]
        if node.op == "carry":
            return [self._carried(node)]
        if node.op in ("concatenate", "stack", "branches"):
            tokens = [v for v in node.inputs if self._flow.from_leaves(v)]
            return [self._mixed([*self._flow.data_of(node), *tokens])]
        if node.op in _CONVERSIONS and is_count(self._flow, node.inputs[0]):
            return [self._unit()]
        if node.op == "pad" and (share := share_inside(node)) < 1:
            return [self._among(self.spread(node.inputs[0]), node.inputs[1], share)]
        if node.op in _SAME:
            data = [v for v in self._flow.data_of(node) if is_number(self._flow, v)]
            written = node.op in ("dynamic_update_slice", "scatter")
            known = self.spread(data[-1 if written else 0]) if data else self.normal()
            if node.op not in PARTS:
                return [known] * len(node.outputs)
            made, self._roots = self.pieces.of(node, known, self._roots)
            return made
        if node.op == "top_k":
            share = node.outputs[0].shape[-1] / node.inputs[0].shape[-1]
            chosen = self.normal(*self.spread(node.inputs[0]).top(share))
            return [chosen, self._unit()]
        if node.op in REDUCTIONS or node.op.startswith("reduce_window"):
            return self._reduced(node)
        if node.op in _OF_COMPLEX:
            total = sum(self.spread(v).second for v in self._flow.data_of(node))
            return [self.normal(0.0, _OF_COMPLEX[node.op] * total)]
        if node.op == "cumsum" or node.op in SCATTERS:
            return [self._accumulated(node)]
        return self._doubtful(node)

    def _contracted(self, node: Node) -> Spread:
        """A contraction of activations, or with a constant array."""
        for one_hot, other in (node.inputs[:2], node.inputs[1::-1]):
            if not self._flow.data(one_hot) and is_one_hot(one_hot):
                return self.spread(other)
        dispatched = self._dispatched(node)
        if dispatched is not None:
            return dispatched
        left, right = map(self._known, node.inputs[:2])
        if node.op == "conv_general_dilated":
            terms = inputs_of_one(node)
        else:
            shape = node.inputs[0].shape
            terms = math.prod(shape[i] for i in contracted_axes(node, 0))
        mean = left.mean * right.mean
        variance = left.second * right.second - mean * mean
        return self.normal(terms * mean, terms * max(variance, 0.0))

    def _dispatched(self, node: Node) -> Spread | None:
        """Tokens in the slots that they are handed to; None if it is nothing such."""
        for i, other in enumerate(node.inputs[1::-1]):
            count, spread = tokens_for_one(node, i), self.spread(other)
            if count is not None and self._flow.data(other):
                together = (count * spread.mean, count * spread.variance)
                return spread if count == 1 else self.normal(*together)
        return None

    def _known(self, value: Value) -> Spread:
        """The spread of a value, or of the entries of a constant array."""
        if self._flow.data(value):
            return self.spread(value)
        moments = constant_moments(value)
        if moments is None:
            return self.normal(0, 1, "a constant array is not followed")
        return self.normal(*moments)

    def _carried(self, node: Node) -> Spread:
        back = None if node.back is None else self._spreads[node.back.index]
        if back is not None:
            return self.normal(back.mean, back.variance, back.doubt)
        first = node.inputs[0]
        number = self._flow.number(first)
        if number is not None and math.isfinite(number):
            return self.normal(number, 0.0)
        return self.spread(first)

    def _mixed(self, values: Sequence[Value]) -> Spread:
        """One of several values, each as often as it has entries."""
        spreads = list(map(self.spread, values))
        if len(spreads) == 1:
            return spreads[0]
        sizes = [math.prod(v.shape) or 1 for v in values]
        return self.normal(*one_of(spreads, [size / sum(sizes) for size in sizes]))

    def _among(self, spread: Spread, other: Value, share: float) -> Spread:
        """A value that is a share of all entries, among those of a number."""
        number = self._flow.number(other) or 0.0
        return self.normal(*one_of([spread, float(number)], [share, 1 - share]))

    def _accumulated(self, node: Node) -> Spread:
        """Sums of as many values as there are for one place, on average."""
        if node.op == "cumsum":
            terms = (node.output.shape[node.params["axis"]] + 1) / 2
            spread = self.spread(node.inputs[0])
            return self.normal(terms * spread.mean, terms * spread.variance)
        base, updates = node.inputs[0], self.spread(node.inputs[2])
        terms = rows_for_one(node)
        mean, variance = terms * updates.mean, terms * updates.variance
        if self._flow.data(base):
            mean += self.spread(base).mean
            variance += self.spread(base).variance
        return self.normal(mean, variance)

    def _reduced(self, node: Node) -> Sequence[Spread]:
        spread = self.spread(node.inputs[0])
        count = size_for_one(node)
        if node.op in ("reduce_sum", "reduce_window_sum"):
            varies = 0.0 if leads_to_root(node.output) else count * spread.variance
            if varies and is_mean_of_places(self._flow, node, count):
                varies *= count
            return [self.normal(count * spread.mean, varies)]
        if node.op == "reduce_window_max":
            value, count = pooled(node)
            return [self.normal(*self.spread(value).largest(count))]
        if node.op == "reduce_max":
            return [self.normal(*spread.largest(count))]
        if node.op in ("reduce_min", "reduce_window_min"):
            negative = Spread(spread.root, ("neg", (), spread.expression), spread.size)
            mean, variance = negative.largest(count)
            return [self.normal(-mean, variance)]
        if node.op == "reduce_prod":
            mean, second = spread.mean**count, spread.second**count
            return [self.normal(mean, max(second - mean * mean, 0.0))]
        return self._doubtful(node)

    def _thinned(self, value: Value, share: float) -> Spread:
        """What a dropout keeps of a value: a share of its second moment."""
        spread = self.spread(value)
        if spread.root in self.inputs:
            return spread
        made = ("mul", (), spread.expression, math.sqrt(share))
        return Spread(spread.root, made, spread.size + 1)

    def _centered(self, spread: Spread) -> Spread:
        """A value less its mean over some axis."""
        if spread.root in self.inputs or not spread.mean:
            return spread
        made = ("sub", (), spread.expression, spread.mean)
        return Spread(spread.root, made, spread.size + 1)

    def _elementwise(self, node: Node) -> Spread:
        if (found := dropped(self._flow, node)) is not None:
            return self._thinned(*found)
        mix = by_difference(self._flow, node)
        if mix is not None and (mixed := self._interpolated(mix)) is not None:
            return mixed
        if is_centering(node):
            return self._centered(self.spread(node.inputs[0]))
        data = self._flow.data_of(node)
        is_linear = node.op in SUMS | PRODUCTS and len(data) == 1
        if is_linear and self.spread(data[0]).root in self.inputs:
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
        if roots <= self.inputs and node.op in SUMS | PRODUCTS:
            return self._unit()
        if not spreads:
            return self.normal()
        if self._arranged.are_apart(self._of_root(node, spreads[0].root)):
            return self._of_several(node, operands)
        size = 1 + sum(spread.size for spread in spreads)
        parts = [x.expression if isinstance(x, Spread) else x for x in operands]
        made = (node.op, plain_params(node.params), *parts)
        spread = Spread(spreads[0].root, made, size)
        if size > _LARGEST:
            return self.normal(spread.mean, spread.variance)
        return spread

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

    def _counts(self, node: Node, mask: Value) -> bool:
        """Whether a mask is a step of what it multiplies, or of other activations."""
        others = [self.spread(v) for v in self._flow.data_of(node) if v is not mask]
        step = self.spread(mask)
        return is_step(self._flow, mask) and counts(step, others, self.inputs)

    def _selected(self, node: Node, operands: Sequence[float | Spread]) -> Spread:
        """What a condition lets through."""
        which, *cases = operands
        roots = {x.root for x in operands if isinstance(x, Spread)}
        is_one = len(roots) == 1 and isinstance(which, Spread)
        if is_one and not self._arranged.are_apart(self._of_root(node, which.root)):
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


# What second moments are multiplied by, where parts of complex numbers are alike, and
# transforms orthonormal.
_OF_COMPLEX = {"complex": 1.0, "conj": 1.0, "real": 0.5, "imag": 0.5, "fft": 1.0}
