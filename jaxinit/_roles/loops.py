"""Loops over time: which kernels are their own ancestors, and what gates are for.

Take `h = tanh(x @ wx + h @ wh)` in a scan over `x`. The input of `wh` is computed from
what the loop carries, and its output flows into that: `wh` is recurrent. `wx` is not, as
its input is not.

Gates are told by what they do to what is carried. Of `c = f * c + i * g; h = o * tanh(c)`
the forget gate is what multiplies the carried `c`, the output gate what multiplies a
function of the new one. A carried value that the gates themselves are computed from is
the state of a GRU: `h = (1 - z) * n + z * h`, with update gate `z` and candidate `n`.
"""

import math
from collections.abc import Iterator, Mapping, Sequence

import jax.numpy as jnp

from jaxinit._roles.flow import Flow
from jaxinit._roles.graph import Loop, Node, Value
from jaxinit._roles.primitives import CONTRACTIONS, COPIES, ELEMENTWISE, MOVES
from jaxinit._roles.regions import End, stripped

# Values that a function of what precedes gives, with the contractions that it follows.
Owners = Mapping[int, Sequence[tuple[Node, End]]]


class Loops:
    """What loops carry."""

    def __init__(self, flow: Flow, kernels: set[int]):
        self._flow = flow
        self.carries = [node for node in flow.graph.nodes if node.op == "carry"]
        bits = {node.index: 1 << i for i, node in enumerate(self.carries)}
        own = {
            node.index: 1 << i
            for i, node in enumerate(n for n in flow.graph.nodes if n.index in kernels)
        }
        self._from_carries = self._gathered(bits)
        self._from_kernels = self._gathered(own)
        self._own = own
        self._over_time: dict[Loop, bool] = {}
        backs = [self._from_carries[node.back.index] for node in self.carries]
        self._reaches = _closure(backs)

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

    def is_recurrent(self, node: Node, data: Value, weights: Value) -> bool:
        """Whether a contraction is its own ancestor through a loop over time."""
        return any(
            loop is _own_loop(self.carries[j])
            and self._is_over_time(loop)
            and not self._is_sliced(weights, loop)
            for j, loop in self._paths(node, data)
        )

    def is_shared(self, node: Node, data: Value, weights: Value) -> bool:
        """Whether it is one that a loop over depth uses again."""
        return any(
            not self._is_over_time(loop) and not self._is_sliced(weights, loop)
            for _, loop in self._paths(node, data)
        )

    def is_state(self, value: Value) -> bool:
        """Whether a loop over time carries a value."""
        node = value.node
        return node is not None and node.op == "carry" and self._is_state_of_time(node)

    def _is_state_of_time(self, carry: Node) -> bool:
        return self._is_over_time(_own_loop(carry))

    def rounds_of_depth(self, node: Node) -> int:
        """How often a node runs in loops that are not over time; 0 if not known."""
        depth = (loop for loop in node.loops if not self._is_over_time(loop))
        return math.prod(loop.length or 0 for loop in depth)

    def comes_from_its_past(self, value: Value, node: Node) -> bool:
        """Whether a value is computed from what a contraction made a round before."""
        before = self._from_carries[value.index]
        return any(self._reaches[j] & before for j, _ in self._written(node))

    def _written(self, node: Node) -> Iterator[tuple[int, Loop]]:
        """What loops around a contraction carry of its output."""
        for j, carry in enumerate(self.carries):
            inside = _own_loop(carry) in node.loops
            if inside and self._from_kernels[carry.back.index] & self._own[node.index]:
                yield j, _own_loop(carry)

    def carries_into(self, value: Value, carry: Node) -> bool:
        """Whether a value is computed from what a loop carries, in the same round."""
        return bool(self._from_carries[value.index] >> self.carries.index(carry) & 1)

    def _paths(self, node: Node, data: Value) -> Iterator[tuple[int, Loop]]:
        """Loop values that a contraction's output flows into, and on to its input."""
        before = self._from_carries[data.index]
        for j, loop in self._written(node):
            if self._reaches[j] & before:
                yield j, loop

    def _is_over_time(self, loop: Loop) -> bool:
        """Whether each round of a loop takes data of its own."""
        if loop not in self._over_time:
            self._over_time[loop] = self._takes_data(loop)
        return self._over_time[loop]

    def _takes_data(self, loop: Loop) -> bool:
        for node in self._flow.graph.nodes:
            if loop not in node.loops or not self._flow.data(
                node.inputs[0] if node.inputs else node.output
            ):
                continue
            if node.op == "each" and node.loops[-1] is loop and _is_signal(node.output):
                return True
            if node.op in ("dynamic_slice", "gather") and _is_signal(node.output):
                where = node.inputs[1:]
                counted = any(
                    not self._flow.data(v) and self._from_carries[v.index]
                    for v in where
                )
                if counted:
                    return True
        return False

    def _is_sliced(self, weights: Value, loop: Loop) -> bool:
        """Whether each round of a loop takes weights of its own."""
        pending, seen = [weights], set()
        while pending:
            node = pending.pop().node
            if node is None or node.index in seen:
                continue
            seen.add(node.index)
            if node.op == "each" and node.loops[-1] is loop:
                return True
            if node.op in ("dynamic_slice", "gather") and any(
                self._from_carries[v.index] for v in node.inputs[1:]
            ):
                return True
            pending += node.inputs
        return False

    def gates(self, owners: Owners) -> Iterator[tuple[End, str]]:
        """The ends of kernels that are gates of recurrent cells, and their names."""
        for carry in filter(self._is_state_of_time, self.carries):
            addition = _handed_on(carry)
            if addition is None or addition.op not in ("add", "add_any"):
                continue
            factors = [_factors(value) for value in addition.inputs]
            kept = [pair for pair in factors if pair and _has_carry(pair, carry)]
            first = [end for pair in kept for end in _owned(pair, owners, gate=True)]
            if any(
                self.carries_into(data, carry)
                for node, _ in first
                for data in node.inputs[:2]
            ) or (not kept and self._is_update(addition, carry, owners)):
                yield from self._of_gru(carry, addition, owners)
            elif first:
                yield from ((end, "forget gate") for _, end in first)
                others = [pair for pair in factors if pair and pair not in kept]
                for pair in others:
                    for _, end in _owned(pair, owners, gate=True):
                        yield end, "input gate"
                    for _, end in _owned(pair, owners, gate=False):
                        yield end, "cell"
                for value in _functions_of(addition.output):
                    for node in value.users:
                        if node.op == "mul":
                            pair = node.inputs
                            for _, end in _owned(pair, owners, gate=True):
                                yield end, "output gate"

    def _is_update(self, addition: Node, carry: Node, owners: Owners) -> bool:
        """Whether it is `n + z * (h - n)`."""
        pairs = [pair for value in addition.inputs if (pair := _factors(value))]
        return any(
            _owned(pair, owners, gate=True)
            and any(_is_difference_with(value, carry) for value in pair)
            for pair in pairs
        )

    def _of_gru(self, carry, addition, owners) -> Iterator[tuple[End, str]]:
        """The gates of `h = (1 - z) * n + z * h`, or of `n + z * (h - n)`."""
        ends = [
            (node, end)
            for found in owners.values()
            for node, end in found
            if self._is_of_cell(node, carry, addition)
        ]
        pairs = [pair for value in addition.inputs if (pair := _factors(value))]
        update = [end for pair in pairs for _, end in _owned(pair, owners, gate=True)]
        yield from ((end, "update gate") for end in update)
        updated = {end.root.index for end in update}
        new = {stripped(value).index for value in addition.inputs}
        for pair in pairs:
            for value in pair:
                new.add(stripped(value).index)
                if _is_difference_with(value, carry):
                    new |= {stripped(v).index for v in stripped(value).node.inputs}
        new.discard(carry.output.index)
        others = [(n, end) for n, end in ends if end.root.index not in updated]
        candidates = [end for _, end in others if not _is_gate(end)]
        candidates = [end for end in candidates if _leads(end.value, new)]
        yield from ((end, "candidate") for end in candidates)
        made = {end.root.index for end in candidates} | {
            node.output.index
            for node, end in others
            if any(end is candidate for candidate in candidates)
        }
        for _, end in others:
            if _is_gate(end) and _leads(end.value, new | made, across=True):
                yield end, "reset gate"

    def _is_of_cell(self, node: Node, carry: Node, addition: Node) -> bool:
        """Whether a contraction's output flows into the state in the same round."""
        return (
            bool(self._from_kernels[addition.output.index] & self._own[node.index])
            and node.loops[-1:] == carry.loops[-1:]
        )


def _own_loop(carry: Node) -> Loop:
    return carry.loops[-1]


def _closure(backs: Sequence[int]) -> list[int]:
    """For each carry, the bits of those that it flows into, itself included."""
    reaches = [1 << i for i in range(len(backs))]
    changed = True
    while changed:
        changed = False
        for i, _ in enumerate(backs):
            new = reaches[i]
            for j, before in enumerate(backs):
                if before & reaches[i]:
                    new |= 1 << j
            changed |= new != reaches[i]
            reaches[i] = new
    return reaches


def _is_signal(value: Value) -> bool:
    kinds = (jnp.floating, jnp.signedinteger, jnp.complexfloating)
    return any(jnp.issubdtype(value.dtype, kind) for kind in kinds)


def _handed_on(carry: Node) -> Node | None:
    """The node whose output a loop hands on, behind masks and copies."""
    value = carry.back
    while value is not None:
        value = stripped(value)
        node = value.node
        if node is None or node.op != "select_n":
            return node
        new = [v for v in node.inputs[1:] if stripped(v) is not carry.output]
        value = new[0] if len(new) == 1 else None
    return None


def _factors(value: Value) -> tuple[Value, ...] | None:
    """The two factors of a product."""
    node = stripped(value).node
    return node.inputs if node is not None and node.op == "mul" else None


def _has_carry(pair: Sequence[Value], carry: Node) -> bool:
    return any(stripped(value) is carry.output for value in pair)


def _owned(pair, owners: Owners, gate: bool) -> list[tuple[Node, End]]:
    """Owners of factors, those that go from 0 to 1 or the others."""
    return [
        (node, end)
        for value in pair
        for node, end in owners.get(value.index, ())
        if end.function is not None and _is_gate(end) == gate
    ]


def _is_gate(end: End) -> bool:
    return end.function is not None and end.function.is_gate


def _is_difference_with(value: Value, carry: Node) -> bool:
    node = stripped(value).node
    return (
        node is not None
        and node.op == "sub"
        and any(stripped(v) is carry.output for v in node.inputs)
    )


def _leads(value: Value, targets: set[int], across: bool = False) -> bool:
    """Whether elementwise operations lead to one of some values.

    Args:
        value: where to begin.
        targets: indices of the values.
        across: whether one contraction may be on the way.
    """
    pending, seen = [(value, across)], set()
    while pending:
        value, across = pending.pop()
        if value.index in targets:
            return True
        if (value.index, across) in seen:
            continue
        seen.add((value.index, across))
        for node in value.users:
            contracted = node.op in CONTRACTIONS
            if (
                node.op in ELEMENTWISE
                or node.op in COPIES
                or node.op in MOVES - {"carry"}
            ):
                pending += [(output, across) for output in node.outputs]
            elif contracted and across:
                pending.append((node.output, False))
    return False


def _functions_of(value: Value) -> Iterator[Value]:
    """Values that elementwise functions of one value give, itself included."""
    pending, seen = [value], set()
    while pending:
        value = pending.pop()
        if value.index in seen:
            continue
        seen.add(value.index)
        yield value
        for node in value.users:
            alone = node.op in COPIES or len(node.inputs) == 1
            if alone and (node.op in ELEMENTWISE or node.op in COPIES):
                pending += node.outputs
