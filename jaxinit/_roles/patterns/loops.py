"""Loops over time: which kernels are their own ancestors.

Take `h = tanh(x @ wx + h @ wh)` in a scan over `x`. The input of `wh` is computed from
what the loop carries, and its output flows into that: `wh` is recurrent. `wx` is not,
as its input is not. In a scan over the weights of layers, what is carried is a residual
stream, and nothing is recurrent. A scan over the weights of experts that all take the
same input carries nothing that a kernel takes: its rounds are no layers, but a batch.
"""

from collections.abc import Iterable, Iterator, Mapping

import jax.numpy as jnp

from jaxinit._roles.reading.flow import Flow
from jaxinit._roles.reading.graph import Loop, Node, Value
from jaxinit._roles.reading.values import picks_rows
from jaxinit._roles.reading.walks import nodes_of, reached

_INDEXED = ("dynamic_slice", "gather")


class Loops:
    """What loops carry.

    Attributes:
        carries: what each loop hands on, in the order of the nodes.
        batches: axes of leaves, as numbers of both, of which each round of a loop takes
            one place, and nothing from the rounds before.
    """

    def __init__(self, flow: Flow, kernels: set[int], over_time: Iterable[Loop] = ()):
        """Finds what each value is computed from, in one round of every loop.

        Args:
            flow: what is known.
            kernels: indices of contractions with leaves.
            over_time: loops that are known to be over time.
        """
        self._flow = flow
        self.carries = [node for node in flow.graph.nodes if node.op == "carry"]
        self._by_loop: dict[Loop, list[int]] = {}
        for i, carry in enumerate(self.carries):
            self._by_loop.setdefault(carry.loops[-1], []).append(i)
        self._own = _bits(sorted(kernels))
        self._carry_bits = _bits(node.index for node in self.carries)
        self._from_carries = self._gathered(self._carry_bits)
        self._from_kernels = self._gathered(self._own)
        own = (
            x for x in self._loops_over_time() if not self._is_over_layers(x, kernels)
        )
        self._over_time = {*over_time, *own}
        self._sliced = set(self._loops_that_slice())
        self._reaches: dict[Loop, dict[int, int]] = {}
        self._apart = set(self._loops_apart(kernels))
        self.batches = set(self._axes_apart())

    def _gathered(self, bits: Mapping[int, int]) -> list[int]:
        """For each value, the bits of all nodes that it is computed from."""
        found = [0] * len(self._flow.graph.values)
        for node in self._flow.graph.nodes:
            mine = bits.get(node.index, 0)
            for value in node.inputs if node.op != "carry" else ():
                mine |= found[value.index]
            for value in node.outputs:
                found[value.index] = mine
        return found

    def _loops_over_time(self) -> Iterator[Loop]:
        """Loops whose rounds take data of their own, or what the one before chose."""
        for node in self._flow.graph.nodes:
            if node.loops and self._is_of_choice(node):
                yield node.loops[-1]
            if not node.inputs or not self._flow.data(node.inputs[0]):
                continue
            if node.op == "each" and _is_signal(node.output):
                yield node.loops[-1]
            elif node.op in _INDEXED and self._is_counted(node):
                yield from node.loops

    def _is_over_layers(self, loop: Loop, kernels: set[int]) -> bool:
        """Whether each round takes kernels of its own, and data such as a cache."""
        nodes = (self._flow.graph.nodes[index] for index in kernels)
        weights = (
            list(filter(self._flow.from_leaves, node.inputs[:2]))
            for node in nodes
            if loop in node.loops
        )
        sliced = [any(self._is_sliced(v, loop) for v in values) for values in weights]
        return bool(sliced) and all(sliced)

    def _loops_that_slice(self) -> Iterator[Loop]:
        for node in self._flow.graph.nodes:
            takes = node.op == "each" or node.op in _INDEXED
            if takes and self._flow.from_leaves(node.inputs[0]):
                yield from node.loops[-1:]

    def _loops_apart(self, kernels: set[int]) -> Iterator[Loop]:
        """Loops that take leaves, none of whose kernels takes what they hand on."""
        nodes = [self._flow.graph.nodes[index] for index in kernels]
        for loop in self._sliced:
            bits = self._handed_on(loop)
            takers = [node for node in nodes if loop in node.loops]
            taken = (v for node in takers for v in filter(self._flow.data, node.inputs))
            if takers and not any(self._from_carries[v.index] & bits for v in taken):
                yield loop

    def _handed_on(self, loop: Loop) -> int:
        """The bits of what a loop carries, and of loops inside that begin with it."""
        found = sum(
            self._carry_bits[self.carries[i].index] for i in self._by_loop.get(loop, ())
        )
        for carry in self.carries:  # outer loops come first
            begun = any(self._from_carries[v.index] & found for v in carry.inputs)
            if begun and loop in carry.loops:
                found |= self._carry_bits[carry.index]
        return found

    def _axes_apart(self) -> Iterator[tuple[int, int]]:
        for node in self._flow.graph.nodes:
            if node.op == "each" and node.loops[-1] in self._apart:
                first = self._flow.fact(node.inputs[0]).axes[0]
                yield from ((atom.leaf, atom.axis) for atom in first)

    def _is_counted(self, node: Node) -> bool:
        """Whether it takes signals at an index that a loop counts, and not data."""
        return _is_signal(node.output) and any(
            self._from_carries[value.index] and not self._flow.data(value)
            for value in node.inputs[1:]
        )

    def _is_of_choice(self, node: Node) -> bool:
        """Whether it takes what the round before chose, as a generated token is.

        The choice is among rows that stay the same in all rounds. What a loop carries
        is none of them, nor are kernels that are chosen in a round of depth.
        """
        if node.op in _INDEXED:
            rows, *which = node.inputs
        elif node.op == "dot_general" and any(map(picks_rows, node.inputs)):
            rows, *which = sorted(node.inputs, key=picks_rows)
        else:
            return False
        if node.index in self._flow.choices.kernels:
            return False
        carries = (self.carries[i] for i in self._by_loop.get(node.loops[-1], ()))
        bits = sum(self._carry_bits[x.index] for x in carries if x.back is not x.output)
        chosen = (v for v in which if self._flow.data(v))
        return not self._from_carries[rows.index] & bits and any(
            self._from_carries[value.index] & bits for value in chosen
        )

    def is_recurrent(self, node: Node, data: Value, weights: Value) -> bool:
        """Whether a contraction is its own ancestor through a loop over time.

        Args:
            node: the contraction.
            data: its operand that is computed from inputs.
            weights: the other.
        """
        return any(
            loop in self._over_time and not self._is_sliced(weights, loop)
            for loop in self._own_loops(node, data)
        )

    def is_shared(self, node: Node, data: Value, weights: Value) -> bool:
        """Whether it is one that a loop over depth uses again."""
        return any(
            loop not in self._over_time and not self._is_sliced(weights, loop)
            for loop in self._own_loops(node, data)
        )

    def is_state(self, value: Value) -> bool:
        """Whether a loop over time carries a value."""
        node = value.node
        if node is None or node.op != "carry":
            return False
        return node.loops[-1] in self._over_time

    def is_by_rounds(self, loop: Loop) -> bool:
        """Whether a loop is over time, over kernels side by side, or of any length."""
        return loop in self._over_time | self._apart or loop.length is None

    def slices(self, loop: Loop) -> bool:
        """Whether each round of a loop takes leaves of its own."""
        return loop in self._sliced

    def loops_of_depth(self, node: Node) -> list[Loop]:
        """The loops over layers around a node, the outermost first."""
        others = self._over_time | self._apart
        return [loop for loop in node.loops if loop not in others]

    def comes_from_its_past(self, value: Value, node: Node) -> bool:
        """Whether a value is computed from what a contraction made a round before."""
        return any(True for _ in self._own_loops(node, value))

    def carries_into(self, carry: Node, value: Value) -> bool:
        """Whether a value is computed from what a loop carries, in the same round."""
        return bool(self._from_carries[value.index] & self._carry_bits[carry.index])

    def flows_into(self, kernel: Node, value: Value) -> bool:
        """Whether a value is computed from a contraction, in the same round."""
        return bool(self._from_kernels[value.index] & self._own[kernel.index])

    def _own_loops(self, node: Node, data: Value) -> Iterator[Loop]:
        """Loops that carry a contraction's output, and lead on to some data."""
        before = self._from_carries[data.index]
        for loop in node.loops:
            for i in self._by_loop.get(loop, ()):
                written = self.flows_into(node, _back(self.carries[i]))
                if written and self._reaches_within(loop)[i] & before:
                    yield loop

    def _reaches_within(self, loop: Loop) -> dict[int, int]:
        """For each carry of a loop, the bits of those that it flows into in the loop.

        What flows on around a loop outside it, such as one over layers, is left out.
        """
        if loop not in self._reaches:
            inside = [i for i, node in enumerate(self.carries) if loop in node.loops]
            backs = {
                i: self._from_carries[_back(self.carries[i]).index] for i in inside
            }
            bits = {i: self._carry_bits[self.carries[i].index] for i in inside}
            self._reaches[loop] = _closure(backs, bits)
        return self._reaches[loop]

    def _is_sliced(self, weights: Value, loop: Loop) -> bool:
        """Whether each round of a loop takes weights of its own."""
        nodes = reached(nodes_of([weights]), lambda node: nodes_of(node.inputs))
        return any(
            (node.op == "each" and node.loops[-1] is loop)
            or (
                node.op in _INDEXED
                and any(self._from_carries[v.index] for v in node.inputs[1:])
            )
            for node in nodes
        )


def _bits(indices: Iterable[int]) -> dict[int, int]:
    """A bit for each of some numbers."""
    return {index: 1 << i for i, index in enumerate(indices)}


def _back(carry: Node) -> Value:
    """What a loop hands on; in no round anything if that is not known."""
    return carry.output if carry.back is None else carry.back


def _closure(backs: Mapping[int, int], bits: Mapping[int, int]) -> dict[int, int]:
    """For each carry, the bits of those that it flows into, itself included.

    Args:
        backs: by number of a carry, the bits of those that its next value is made of.
        bits: by number of a carry, its own bit.
    """
    reaches = dict(bits)
    changed = True
    while changed:
        changed = False
        for i in reaches:
            new = reaches[i]
            for j, before in backs.items():
                if before & reaches[i]:
                    new |= bits[j]
            changed |= new != reaches[i]
            reaches[i] = new
    return reaches


def _is_signal(value: Value) -> bool:
    kinds = (jnp.floating, jnp.signedinteger, jnp.complexfloating)
    return any(jnp.issubdtype(value.dtype, kind) for kind in kinds)
