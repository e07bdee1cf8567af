"""How the output of each operation is distributed, given its inputs.

Take `relu(z).sum(1) * exp(p)` of the output `z` of a kernel, f32[5,8], and a leaf `p`.
The sum has eight times the mean and the variance of `relu(z)`. The product has the
moments of the sum, and a doubt: nobody knows what `p` is.
"""

import math
from collections.abc import Callable, Collection, Mapping, Sequence

from jaxinit._roles.patterns.averages import Averages
from jaxinit._roles.patterns.dispatches import terms_for_one, tokens_for_one
from jaxinit._roles.patterns.extents import (
    are_shares_along,
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
from jaxinit._roles.patterns.normalization import is_deviation, is_scaled_root
from jaxinit._roles.reading.axes import batch_and_free, contracted_axes
from jaxinit._roles.reading.flow import Flow
from jaxinit._roles.reading.functions import FUNCTIONS
from jaxinit._roles.reading.graph import Node, Value
from jaxinit._roles.reading.primitives import (
    CONTRACTIONS,
    COPIES,
    ELEMENTWISE,
    MOVES,
    PARTS,
    PRODUCTS,
    REDUCTIONS,
    RELOCATIONS,
    SCATTERS,
)
from jaxinit._roles.reading.values import behind, is_one_hot
from jaxinit._roles.reading.walks import is_inexact
from jaxinit._roles.statistics.combined import Moments, one_of, rare_and_often
from jaxinit._roles.statistics.constants import constant_moments
from jaxinit._roles.statistics.elementwise import Elementwise
from jaxinit._roles.statistics.lengths import factors, short_norms
from jaxinit._roles.statistics.members import members_for_one
from jaxinit._roles.statistics.pieces import Pieces
from jaxinit._roles.statistics.spreads import Spread
from jaxinit._roles.statistics.steps import is_count, is_number, is_step, picks_its_own

_SAME = COPIES | MOVES | {"dynamic_update_slice", "scatter", "sort"}
_SIZE_OF_TWO = 11  # operations in the expression of what is one of two
_CONVERSIONS = ("bitcast_convert_type", "convert_element_type")


class Activations(Elementwise):
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
        super().__init__(flow)
        self._kernels = kernels
        self._averages, self._unknown = averages, unknown
        self.rows = set[int]()
        self.pieces = Pieces(flow, self._arranged, self.inputs, self.rows)

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
            doubt = doubt or self._of_pair(node)
        for output, spread in zip(node.outputs, made, strict=False):
            if doubt and not spread.doubt:
                spread = Spread(spread.root, spread.expression, spread.size, doubt)
            self._spreads[output.index] = spread
        if made:
            self._arranged.follow(node, self._of_root(node, made[0].root))

    def _constant(self, node: Node) -> None:
        """What is known of constants that are activations, as sinusoids are."""
        for value in filter(self._flow.data, node.outputs):
            moments = self._of_constant(value)
            if moments and any(moments):  # zeros are what something begins with
                self.set(value, *moments)

    def _of_constant(self, value: Value) -> Moments | None:
        """Mean and variance of a number, or of the entries of a constant array."""
        number = self._flow.number(value)
        return constant_moments(value) if number is None else (number, 0.0)

    def _inherited(self, node: Node) -> str:
        """The doubt of what a node takes, of an average that of what it averages."""
        taken = self._averages.of(node) or node.sources()
        doubts = (x.doubt for v in taken if (x := self._spreads[v.index]) is not None)
        return next(filter(None, doubts), "")

    def _of_pair(self, node: Node) -> str:
        """The doubt of a product, a comparison, or a division by a norm of few entries.

        A norm that is of the same variable makes it as large as any norm does.
        """
        if picks_its_own(self._flow, node):
            return "a product with a step of itself at several places is not followed"
        if node.op in ("ge", "gt", "le", "lt") and any(map(_is_sorted, node.inputs)):
            return "a comparison with some of the largest entries is not followed"
        for divided, total in short_norms(self._flow, node):
            roots = {self.spread(v).root for v in factors(self._flow, divided)}
            if roots.isdisjoint(self.spread(v).root for v in total.inputs):
                return f"`{node.op}` by a norm of few entries is not followed"
        return ""

    def _is_sure(self, node: Node) -> bool:
        """Whether what a node takes hardly matters: to a norm, a softmax, a mask."""
        if node.op == "div" and number_of_shares(node) is not None:
            return True
        if node.op in PRODUCTS:
            deviations = [v for v in node.inputs if is_deviation(self._flow, v)]
            return any(
                not self._flow.data(v) or is_scaled_root(self._flow, v)
                for v in deviations
            )
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
        if node.op == "dot_general":
            along = [contracted_axes(node, side) for side in (0, 1)]
            weighed = self._weighed(node, node.inputs[:2], along)
            if weighed is not None:
                return weighed
        left, right = map(self._known, node.inputs[:2])
        if node.op == "conv_general_dilated":
            terms = inputs_of_one(node)
        else:
            terms = terms_for_one(node)
        mean = left.mean * right.mean
        variance = left.second * right.second - mean * mean
        mean, variance = terms * mean, terms * max(variance, 0.0)
        share = self._share_of_squares(node)
        if not share:
            return self.normal(mean, variance)
        made = ("mul", (), left.expression, right.expression)
        own = Spread(left.root, made, left.size + right.size + 1)
        varies = 0.0 if leads_to_root(node.output) else terms * own.variance
        parts = (terms * own.mean, varies), (mean, variance)
        return self._new(rare_and_often(*parts, share), _SIZE_OF_TWO)

    def _weighed(
        self, node: Node, pair: Sequence[Value], axes: Sequence[Sequence[int]]
    ) -> Spread | None:
        """A mean of independent values, weighed by shares; None if it is none.

        Args:
            node: what sums products.
            pair: the factors.
            axes: of each, those that are summed over.
        """
        for i, (shares, value) in enumerate((pair, pair[::-1])):
            is_known = self._flow.data(shares) and self._flow.data(value)
            if not (is_known and are_shares_along(shares, axes[i])):
                continue
            weight, spread = self.spread(shares), self.spread(value)
            if not weight.mean:  # it is not known
                continue
            varies = spread.variance * weight.second / weight.mean
            return self.normal(spread.mean, 0 if leads_to_root(node.output) else varies)
        return None

    def _share_of_squares(self, node: Node) -> float:
        """Which share of products is of the same entries, as the diagonal of `x @ x.T`.

        Zero if the operands are different values, or have other entries there.
        """
        left, right = node.inputs[:2]
        if node.op != "dot_general" or not all(map(self._flow.data, (left, right))):
            return 0.0
        if self.spread(left).root != self.spread(right).root:
            return 0.0
        names = []
        for i, value in enumerate((left, right)):
            batch, free = batch_and_free(node, i)
            own = self._arranged.of(value)
            names.append([own[k] for k in (*contracted_axes(node, i), *batch, *free)])
        if names[0] != names[1]:
            return 0.0
        return 1 / math.prod(left.shape[i] for i in batch_and_free(node, 0)[1])

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
        moments = self._of_constant(value)
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

    def _among(self, spread: Spread, other: Value, share: float) -> Spread:
        """A value that is a share of all entries, among those of a number."""
        number = self._flow.number(other) or 0.0
        return self.normal(*one_of([spread, float(number)], [share, 1 - share]))

    def _accumulated(self, node: Node) -> Spread:
        """Sums of as many values as there are for one place, on average."""
        if node.op == "cumsum":
            terms = (node.output.shape[node.params["axis"]] + 1) / 2
            spread = self.spread(node.inputs[0])
            if _is_sorted(node.inputs[0]):
                return self.normal(0, 1, "`cumsum` of sorted entries is not followed")
            return self.normal(terms * spread.mean, terms * spread.variance)
        base, updates = node.inputs[0], self._known(node.inputs[2])
        terms = rows_for_one(node)
        mean, variance = terms * updates.mean, terms * updates.variance
        if self._flow.data(base):
            mean += self.spread(base).mean
            variance += self.spread(base).variance
        return self.normal(mean, variance)

    def _root(self, value: Value) -> int:
        """The variable that a value is made of."""
        return self.spread(value).root

    def _reduced(self, node: Node) -> Sequence[Spread]:
        spread = self.spread(node.inputs[0])
        count = size_for_one(node)
        if node.op == "reduce_sum":
            product = behind(node.inputs[0], COPIES).node
            if product is not None and product.op == "mul":
                along = [node.params["axes"]] * 2
                weighed = self._weighed(node, product.inputs, along)
                if weighed is not None:
                    return [weighed]
        if node.op in ("reduce_sum", "reduce_window_sum"):
            varies = 0.0 if leads_to_root(node.output) else count * spread.variance
            if varies and is_mean_of_places(self._flow, node, count):
                varies *= count / members_for_one(self._flow, node, self._root)
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


def _is_sorted(value: Value) -> bool:
    """Whether entries are in the order of their size."""
    node = behind(value, COPIES | RELOCATIONS | PARTS).node
    return node is not None and node.op in ("sort", "top_k")


# What second moments are multiplied by, where parts of complex numbers are alike, and
# transforms orthonormal.
_OF_COMPLEX = {"complex": 1.0, "conj": 1.0, "real": 0.5, "imag": 0.5, "fft": 1.0}
