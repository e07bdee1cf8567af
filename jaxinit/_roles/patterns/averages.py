"""Averages: sums of weighted values over the sums of their weights.

Take `acc / total`, where a loop over blocks of keys hands on both:

    weights = exp(scores - new_most);  keep = exp(most - new_most)
    total = keep * total + weights.sum(-1)
    acc = keep * acc + weights @ values

as in Rabe and Staats, "Self-attention does not need O(n^2) memory" (2021). Both are
zero at first, and what is added to both in a round is an average of `values` times the
same sum of weights; so is what they were, times `keep`. The quotient is an average of
`values`, as of a softmax. So is `(q @ (k.T @ v)) / (q @ k.sum(0))`, a mean with a mask,
and a sum of messages over how many there are, all of weight one.
"""

import itertools
from collections.abc import Iterator, Sequence

from jaxinit._roles.patterns.attention import Attention
from jaxinit._roles.patterns.means_of_means import mean_of_means
from jaxinit._roles.reading.axes import is_factor
from jaxinit._roles.reading.flow import Flow
from jaxinit._roles.reading.graph import Node, Value
from jaxinit._roles.reading.primitives import (
    ADDITIONS,
    COPIES,
    PARTS,
    PRODUCTS,
    RELOCATIONS,
    SCATTERS,
    SUMS,
)
from jaxinit._roles.reading.values import behind, is_filling, maker, stripped
from jaxinit._roles.reading.walks import reached

_MOST_STEPS = 24  # from a quotient to what is averaged; a loop of blocks has five
_LINEAR = COPIES | RELOCATIONS | SCATTERS | {"reduce_sum", "cumsum", "stacked", "each"}

_OF_TOTALS = COPIES | RELOCATIONS | ADDITIONS | {"max", "select_n"}
_KEEP_SHARES = (
    COPIES | RELOCATIONS | PARTS | SUMS | PRODUCTS | {"select_n", "concatenate", "each"}
)

Pair = tuple[Value, Value]  # a sum of weighted values, and that of their weights
Term = tuple[Node | None, Value]  # what weighs a value, if anything does, and the value


class Averages:
    """What is an average, and of what."""

    def __init__(self, flow: Flow, attentions: Sequence[Attention]):
        self._flow = flow
        self._averaged: dict[int, tuple[Value, ...]] = {}
        self._makers: dict[int, tuple[Node, ...]] = {}
        for node in flow.graph.nodes:
            pair = _quotient(flow, node)
            found = self._of_factor(node) if pair is None else self._terms(*pair, ())
            if found:
                self._averaged[node.index] = tuple(value for _, value in found)
                makers = (maker for maker, _ in found)
                self._makers[node.index] = tuple(x for x in makers if x is not None)
                continue
            pooled = mean_of_means(flow, node)
            if pooled is not None:
                self._averaged[node.index] = (pooled,)
        for attention in attentions:
            if _are_shares(flow, attention):
                self._averaged[attention.output.index] = (attention.value,)

    def of(self, node: Node) -> Sequence[Value]:
        """What a node gives averages of; nothing if it gives none."""
        return self._averaged.get(node.index, ())

    def makers(self, node: Node) -> Sequence[Node]:
        """The nodes that weigh what a quotient is an average of."""
        return self._makers.get(node.index, ())

    def _of_factor(self, node: Node) -> list[Term] | None:
        """The same of `((q / total) @ sums)`, where `q @ weights` is the total."""
        for i, divided in enumerate(
            node.inputs[:2] if node.op == "dot_general" else ()
        ):
            made = maker(divided)
            pair = None if made is None else _quotient(self._flow, made)
            total = None if pair is None else maker(_unguarded(self._flow, pair[1]))
            if pair is None or total is None or total.op not in ("mul", "dot_general"):
                continue
            for j in (0, 1):
                if stripped(total.inputs[j]) is stripped(pair[0]):
                    others = node.inputs[1 - i], total.inputs[1 - j]
                    if found := self._terms(*others, ()):
                        return found
        return None

    def _terms(
        self, top: Value, below: Value, path: tuple[tuple[int, int], ...]
    ) -> list[Term] | None:
        """What a sum is made of that has the weights of another; None if it is not.

        Args:
            top: the sum of weighted values.
            below: the sum of weights.
            path: pairs of indices that led here: around a loop, they hold by induction.
        """
        top, below = stripped(top), _unguarded(self._flow, below)
        place = top.index, below.index
        if place in path or self._are_zero(top, below):
            return []
        if path and self._flow.number(below) == 1:  # it is counted
            return [(None, top)]
        if len(path) > _MOST_STEPS or top.node is None:
            return None
        weighted = next(_weighted(top.node, below), None)
        if weighted is not None:
            return [(top.node, weighted)]
        if below.node is None:
            return None
        for pairs in _inner(top.node, below.node):
            found = [self._terms(*pair, (*path, place)) for pair in pairs]
            if all(terms is not None for terms in found):
                return [term for terms in found for term in terms or ()]
        return None

    def _are_zero(self, top: Value, below: Value) -> bool:
        return self._flow.number(top) == 0 and self._flow.number(below) == 0


def _are_shares(flow: Flow, attention: Attention) -> bool:
    """Whether the weights of an attention are those that a softmax gives.

    Some may be left out, as of a mask or a dropout, or subtracted from others. Scores
    that no sum divides are no shares, nor is what a kernel makes of shares.
    """

    def before(value: Value) -> Sequence[Value]:
        node = value.node
        if node is None or node.op not in _KEEP_SHARES or _is_share(node):
            return ()
        return flow.data_of(node)

    weights = [v for v in attention.output.inputs[:2] if v is not attention.value]
    makers = (value.node for value in reached(weights, before))
    return any(node is not None and _is_share(node) for node in makers)


def _is_share(node: Node) -> bool:
    """Whether a node divides by a sum, or takes the logarithm of one from a score."""
    if node.op == "div":
        total = behind(node.inputs[1], _OF_TOTALS).node
        return total is not None and total.op in ("reduce_sum", "dot_general")
    if node.op not in ("exp", "exp2"):
        return False
    shifted = maker(node.inputs[0])
    if shifted is None or shifted.op != "sub":
        return False
    sums = reached([shifted.inputs[1]], lambda v: v.node.inputs if v.node else ())
    few = itertools.islice(sums, _MOST_STEPS)
    return any(v.node is not None and v.node.op == "log" for v in few)


def _quotient(flow: Flow, node: Node) -> Pair | None:
    """What a node divides, and by what, if both are activations."""
    if node.op == "div" and len(flow.data_of(node)) == 2:
        return node.inputs[0], node.inputs[1]
    if len(flow.data_of(node)) == 2:
        for i in (0, 1):
            if not is_factor(node, node.inputs[i]):
                continue
            inverse = maker(node.inputs[i])
            if inverse is None:
                continue
            if inverse.op == "div" and flow.number(inverse.inputs[0]) == 1:
                return node.inputs[1 - i], inverse.inputs[1]
            if inverse.op == "integer_pow" and inverse.params["y"] == -1:
                return node.inputs[1 - i], inverse.inputs[0]
    return None


def _unguarded(flow: Flow, value: Value) -> Value:
    """A value before a small number was added, or put in place of zero."""
    while True:
        value = stripped(value)
        node = value.node
        if node is None or node.op not in (*ADDITIONS, "max", "select_n"):
            return value
        known = node.inputs[:1] if node.op == "select_n" else ()
        others = [
            v
            for v in node.inputs
            if v not in known and flow.number(v) is None and not is_filling(v)
        ]
        if len(others) != 1:
            return value
        value = others[0]


def _weighted(top: Node, below: Value) -> Iterator[Value]:
    """What a node multiplies by weights, of which another value is the sum."""
    if top.op == "mul":
        weights: Value | None = below
    elif top.op == "dot_general":
        total = below.node
        is_sum = total is not None and total.op == "reduce_sum"
        weights = stripped(total.inputs[0]) if total is not None and is_sum else None
    else:
        return
    for i in (0, 1):
        if stripped(top.inputs[i]) is weights:
            yield top.inputs[1 - i]


def _inner(top: Node, below: Node) -> Iterator[list[Pair]]:
    """The pairs that two sums are made of, in every way that may fit."""
    if top.op == below.op == "carry":
        if top.loops == below.loops and top.back and below.back:
            yield [(top.inputs[0], below.inputs[0]), (top.back, below.back)]
    elif top.op in ADDITIONS and below.op in ADDITIONS:
        (a, b), (c, d) = top.inputs, below.inputs
        yield [(a, c), (b, d)]
        yield [(a, d), (b, c)]
    elif top.op == below.op and top.op in _LINEAR:
        i = 2 if top.op in SCATTERS else 0
        yield [(top.inputs[i], below.inputs[i])]
    elif top.op == below.op == "select_n" and top.inputs[0] is below.inputs[0]:
        yield list(zip(top.inputs[1:], below.inputs[1:], strict=True))
    elif top.op in ("mul", "dot_general"):
        yield from _behind_factor(top, _product(below))


def _product(node: Node) -> Node:
    """A product, or the one whose entries are summed: the same contraction."""
    inner = maker(node.inputs[0]) if node.op == "reduce_sum" else None
    return inner if inner is not None and inner.op == "mul" else node


def _behind_factor(top: Node, below: Node) -> Iterator[list[Pair]]:
    """What is left of two products without a factor that they share."""
    if below.op in ("mul", "dot_general"):
        for i in (0, 1):
            for j in (0, 1):
                if stripped(top.inputs[i]) is stripped(below.inputs[j]):
                    yield [(top.inputs[1 - i], below.inputs[1 - j])]
