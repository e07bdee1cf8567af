"""Gates of LSTM cells whose past is no state of a loop: trees, and unrolled loops.

Take the node of a tree with children `k`, of Tai et al., "Improved semantic
representations from tree-structured long short-term memory networks" (2015):

    c = i * u + sum(f_k * c_k);  h = o * tanh(c)

The forget gates are those that multiply what no kernel of the cell gives, the input
gate multiplies the cell, and the output gate a function of the sum. A leaf of the tree
has no children: its `c = i * u` is one of a cell if its kernels are those of another.
"""

import itertools
from collections.abc import Iterator, Sequence

from jaxinit._roles.meetings.carried import Owners, Pair, factors, owners_of
from jaxinit._roles.patterns.regions import End
from jaxinit._roles.reading.flow import Flow
from jaxinit._roles.reading.graph import Node, Value
from jaxinit._roles.reading.primitives import (
    ADDITIONS,
    COPIES,
    ELEMENTWISE,
    RELOCATIONS,
)
from jaxinit._roles.reading.values import maker
from jaxinit._roles.reading.walks import reached

_MOST_CHILDREN = 64

Gates = list[tuple[Node, End, str]]  # kernels, their ends, and what these are


def tree_gates(flow: Flow, owners: Owners) -> Iterator[tuple[End, str]]:
    """The ends of kernels that are gates of cells, and their names.

    Args:
        flow: what is known.
        owners: by the index of a value, the contractions that it is a function of, and
            their ends.
    """
    cells = _Trees(owners)
    sums = [node for node in flow.graph.nodes if node.op in ADDITIONS]
    found = [gate for node in sums for gate in cells.of_sum(node)]
    yield from ((end, name) for _, end, name in found)
    if not found:
        return
    names = {(leaf, name) for node, _, name in found for leaf in flow.leaves_of(node)}
    products = [node for node in flow.graph.nodes if node.op == "mul"]
    for node in products:
        gates = cells.of_product(node)
        known = [(leaf, x) for made, _, x in gates for leaf in flow.leaves_of(made)]
        if names.issuperset(known):
            yield from ((end, name) for _, end, name in gates)


class _Trees:
    def __init__(self, owners: Owners):
        self._owners = owners

    def of_sum(self, node: Node) -> Gates:
        """The gates of a cell whose state a sum is."""
        out = self._out(node.output)
        forget: Gates = []
        written: Gates = []
        terms = itertools.islice(_terms(node), _MOST_CHILDREN if out else 0)
        for pair in filter(None, map(_weighted, terms)):
            gates, others = self._owned(pair, True), self._owned(pair, False)
            if gates and others:
                written += [(*found, "input gate") for found in gates]
                written += [(*found, "cell") for found in others]
            elif gates and not self._is_of_two_gates(pair):
                forget += [(*found, "forget gate") for found in gates]
        return [*forget, *written, *out] if forget and written else []

    def of_product(self, node: Node) -> Gates:
        """The gates of a cell without a past, whose state a product is."""
        gates, others = (self._owned(node.inputs, is_gate) for is_gate in (True, False))
        out = self._out(node.output) if gates and others else []
        if not out:
            return []
        written = [(*found, "input gate") for found in gates]
        return [*written, *((*found, "cell") for found in others), *out]

    def _out(self, state: Value) -> Gates:
        """The gate that multiplies a function of a state, that is not the identity."""
        found = (
            gate
            for value in _functions_of(state)
            for node in value.users
            if node.op == "mul"
            for gate in self._owned(node.inputs, True)
        )
        return [(*gate, "output gate") for gate in found]

    def _owned(self, pair: Pair, is_gate: bool) -> list[tuple[Node, End]]:
        """Owners of factors: those that go from 0 to 1, or others behind a function."""
        found = owners_of(self._owners, pair, is_gate)
        return [(x, end) for x, end in found if _is_bent(end)]

    def _is_of_two_gates(self, pair: Pair) -> bool:
        return all(self._owned([value], True) for value in pair)


def _is_bent(end: End) -> bool:
    return end.function is not None and not end.function.is_linear


def _terms(node: Node) -> Iterator[Value]:
    """What additions in a row add up."""

    def before(value: Value) -> Sequence[Value]:
        made = maker(value)
        return made.inputs if made is not None and made.op in ADDITIONS else ()

    for value in reached(node.inputs, before):
        if not before(value):
            yield value


def _weighted(value: Value) -> Pair | None:
    """The factors of a product, or of one that is summed over children."""
    node = maker(value)
    if node is not None and node.op == "dot_general":
        return node.inputs[:2]
    if node is not None and node.op == "reduce_sum":
        return factors(node.inputs[0])
    return factors(value)


def _functions_of(state: Value) -> Iterator[Value]:
    """What functions of a state alone give, behind one at least."""

    def after(item: tuple[Value, bool]) -> Iterator[tuple[Value, bool]]:
        value, is_bent = item
        for node in value.users:
            if node.op in COPIES | RELOCATIONS:
                yield from ((output, is_bent) for output in node.outputs)
            elif node.op in ELEMENTWISE and len(node.inputs) == 1:
                yield from ((output, True) for output in node.outputs)

    return (value for value, is_bent in reached([(state, False)], after) if is_bent)
