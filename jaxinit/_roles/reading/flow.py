"""Every leaf followed forward to where it meets activations.

A value that is computed from leaves alone carries them, with what was done to each on
its way: moved about (`atoms`), multiplied by a number, or more than that, and then it
is `opaque`. Where such a value meets one that is computed from inputs, the leaf is
used. Take

    z = x @ (0.5 * w).T + b

of w: f32[3,6], b: f32[3]. The values on the way of `w` have the atoms of its axes in
their order, the transposed one in reverse, both with multiplier 0.5. `dot_general` is a
use of `w`, contracted along its axis 1, and its output has the atoms of the axis 0 of
`w` on its last axis. `add` is a use of `b`, and its output has the atoms of both.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from jaxinit._roles.reading import atoms
from jaxinit._roles.reading.atoms import Atom
from jaxinit._roles.reading.axes import contracted_axes, looked_up_axes, output_axes
from jaxinit._roles.reading.changes import change, gathered
from jaxinit._roles.reading.facts import (
    PRODUCT,
    Carried,
    Choices,
    Fact,
    Leaves,
    Meeting,
    hidden,
    overlaid,
    unplaced,
    with_choice,
    with_lookup,
)
from jaxinit._roles.reading.functions import FUNCTIONS
from jaxinit._roles.reading.graph import Graph, Node, Value
from jaxinit._roles.reading.moves import moved
from jaxinit._roles.reading.primitives import CONTRACTIONS, COPIES, ELEMENTWISE
from jaxinit._roles.reading.taken import Taken
from jaxinit._roles.reading.values import is_one_hot


class Flow:
    """What is known of every value of a graph, and every meeting.

    Attributes:
        graph: the graph.
        is_data: for each value, whether it is computed from inputs.
        has_leaves: for each value, whether it is computed from leaves.
        facts: for each value, what is known.
        meetings: where leaves are used, in the order of the nodes.
        products: contractions of two values that are computed from leaves alone.
        tokens: leaves that are activations.
        choices: lookups that give kernels, which are followed as their leaves are.
    """

    def __init__(
        self,
        graph: Graph,
        signals: Iterable[int] = (),
        choices: Choices | None = None,
    ):
        """Follows all leaves through a graph.

        Args:
            graph: the graph.
            signals: indices of values that are activations though no input is in them:
                learned tokens, and constants such as sinusoids of the position.
            choices: lookups that give kernels.
        """
        self.graph, self.choices = graph, choices or Choices()
        self._signals = frozenset(signals)
        numbered = list(enumerate(graph.leaves))
        self.tokens = [i for i, x in numbered if x.index in self._signals]
        weights = [x.index for _, x in numbered if x.index not in self._signals]
        inputs = [value.index for value in graph.inputs]
        kernels = self.choices.kernels
        self.is_data = _computed_from(graph, [*inputs, *self._signals], kernels)
        self.has_leaves = _computed_from(graph, weights)
        self.facts = [self._first(value) for value in graph.values]
        self.meetings: list[Meeting] = []
        self.products: list[Node] = []
        self._taken: dict[int, Taken] = {}
        for node in graph.nodes:
            self._visit(node)

    def fact(self, value: Value) -> Fact:
        """What is known of a value."""
        return self.facts[value.index]

    def data(self, value: Value) -> bool:
        """Whether a value is computed from inputs."""
        return self.is_data[value.index]

    def from_leaves(self, value: Value) -> bool:
        """Whether a value is computed from leaves alone."""
        return self.has_leaves[value.index] and not self.is_data[value.index]

    def number(self, value: Value) -> float | None:
        """A value that is one known number, and no activation."""
        return self.facts[value.index].number

    def data_of(self, node: Node) -> list[Value]:
        """The inputs of a node that are computed from inputs of the graph."""
        return [value for value in node.inputs if self.data(value)]

    def numbers_of(self, node: Node) -> list[Value]:
        """The inputs of a node that are one known number."""
        return [value for value in node.inputs if self.number(value) is not None]

    def leaves_of(self, node: Node) -> set[int]:
        """The leaves in the operands of a contraction."""
        operands = filter(self.from_leaves, node.inputs[:2])
        return {leaf for value in operands for leaf in self.fact(value).carried}

    def _facts_of(self, node: Node) -> list[Fact]:
        return [self.fact(value) for value in node.inputs]

    def _first(self, value: Value) -> Fact:
        """What is known of a value before any node is looked at."""
        if value.leaf is not None and value.index not in self._signals:
            axes = atoms.whole(value.leaf, value.shape)
            return Fact(axes, (), {value.leaf: Carried()})
        number = None
        is_signal = value.index in self._signals
        if value.constant is not None and np.size(value.constant) == 1:
            number = None if is_signal else _number(value.constant)
        return Fact(unplaced(value), number=number)

    def _visit(self, node: Node) -> None:
        for value, fact in zip(node.outputs, self._outputs(node), strict=True):
            self.facts[value.index] = fact

    def _outputs(self, node: Node) -> Sequence[Fact]:
        if node.index in self.choices.kernels:
            return [self._chosen(node)]
        sources = node.sources()
        if node.op == "carry" and node.back is node.output:  # a constant of the loop
            return self._facts_of(node)
        if any(map(self.data, sources)):
            return self._meet(node)
        if any(self.has_leaves[value.index] for value in sources):
            return self._carry(node)
        is_signal = any(value.index in self._signals for value in node.outputs)
        number = None if is_signal else _folded(node, self._facts_of(node))
        return [Fact(unplaced(value), number=number) for value in node.outputs]

    def _meet(self, node: Node) -> Sequence[Fact]:
        """An equation on activations."""
        for position, value in enumerate(node.inputs):
            if self.from_leaves(value):
                self._record(node, position)
        if node.op in CONTRACTIONS:
            return [self._contracted(node)]
        if node.op in ELEMENTWISE:
            return [overlaid(node, self._facts_of(node))]
        return moved(node, self._facts_of(node), {})

    def _record(self, node: Node, position: int) -> None:
        fact = self.fact(node.inputs[position])
        for leaf, carried in fact.carried.items():
            if len(fact.carried) > 1 and self._is_elsewhere(leaf, node, position):
                continue
            shape = self.graph.leaves[leaf].shape
            axes = tuple(tuple(a for a in x if a.leaf == leaf) for x in fact.axes)
            fixed = tuple(atom for atom in fact.fixed if atom.leaf == leaf)
            self.meetings.append(
                Meeting(leaf, shape, node, position, carried, axes, fixed)
            )

    def _is_elsewhere(self, leaf: int, node: Node, position: int) -> bool:
        """Whether a value is a part of several leaves that has not this one."""
        if leaf not in self._taken:
            known = self.graph, self.is_data, self.has_leaves
            self._taken[leaf] = Taken(*known, leaf)
        rounds = dict.fromkeys(node.loops)
        return self._taken[leaf].layers(node.inputs[position], rounds) == frozenset()

    def _contracted(self, node: Node) -> Fact:
        axes: list[atoms.Axis] = [()] * len(node.output.shape)
        fixed: tuple[Atom, ...] = ()
        for side, value in enumerate(node.inputs[:2]):
            if self.from_leaves(value):
                fact = self.fact(value)
                for i, j in output_axes(node, side).items():
                    axes[j] = fact.axes[i]
                fixed += fact.fixed
        return Fact(tuple(axes), fixed)

    def _carry(self, node: Node) -> Sequence[Fact]:
        """An equation on leaves alone."""
        facts = self._facts_of(node)
        carried = gathered(node, facts)
        if node.op == "dot_general" and any(map(is_one_hot, node.inputs)):
            return [self._rows(node, carried)]
        if node.op in CONTRACTIONS:
            self.products.append(node)
            return [replace(self._contracted(node), carried=hidden(carried, PRODUCT))]
        if node.op in ELEMENTWISE:
            has_leaves = [self.has_leaves[value.index] for value in node.inputs]
            changed = change(node, facts, has_leaves)
            carried = {leaf: changed(item) for leaf, item in carried.items()}
            return [replace(overlaid(node, facts), carried=carried)]
        return moved(node, facts, carried)

    def _chosen(self, node: Node) -> Fact:
        """Kernels of which activations or inputs choose some."""
        side = next(i for i, v in enumerate(node.inputs) if self.from_leaves(v))
        fact = self.fact(node.inputs[side])
        if node.op == "dot_general":
            made, places = self._contracted(node), contracted_axes(node, side)
        else:
            (made,), places = (
                moved(node, self._facts_of(node), {}),
                looked_up_axes(node),
            )
        taken = {(a.leaf, a.axis) for i in places for a in fact.axes[i]}
        return replace(made, carried=with_choice(fact.carried, taken))

    def _rows(self, node: Node, carried: Leaves) -> Fact:
        """Rows of leaves chosen by a constant one-hot: those of fixed positions."""
        side = next(i for i, v in enumerate(node.inputs) if self.has_leaves[v.index])
        axes = self.fact(node.inputs[side]).axes
        taken = {(a.leaf, a.axis) for i in contracted_axes(node, side) for a in axes[i]}
        return replace(
            self._contracted(node), carried=with_lookup(carried, taken, node)
        )


def _computed_from(
    graph: Graph, sources: Iterable[int], apart: Collection[int] = ()
) -> list[bool]:
    """For each value, whether it is computed from one of some, back edges included.

    What nodes `apart` make counts as not computed from any.
    """
    found = [False] * len(graph.values)
    for index in sources:
        found[index] = True
    back_edges = [(x.back, x.output) for x in graph.nodes if x.back is not None]
    while True:
        for node in graph.nodes:
            taken = () if node.index in apart else node.sources()
            if any(found[value.index] for value in taken):
                for value in node.outputs:
                    found[value.index] = True
        if not any(found[x.index] > found[y.index] for x, y in back_edges):
            return found


def _number(constant: Any) -> float | None:
    try:
        return float(np.asarray(constant).reshape(()))
    except (TypeError, ValueError):
        return None


def _folded(node: Node, facts: Sequence[Fact]) -> float | None:
    """The number that an equation on known numbers gives."""
    numbers = [fact.number for fact in facts if fact.number is not None]
    if len(node.outputs) != 1 or not facts or len(numbers) < len(facts):
        return None
    if node.op == "broadcast_in_dim":
        return numbers[0]
    if np.prod(node.output.shape) != 1:
        return None
    if node.op in COPIES or node.op in ("reshape", "squeeze"):
        return numbers[0]
    function = FUNCTIONS.get(node.op)
    if function is None:
        return None
    with np.errstate(all="ignore"):
        return float(function(node.params, *map(np.float64, numbers)))
