"""Gates of recurrent cells, told by what they do to what a loop carries.

Of `c = f * c + i * g; h = o * tanh(c)` the forget gate is what multiplies the carried
`c`, the output gate what multiplies a function of the new one. A carried value that the
gates themselves are computed from is the state of a GRU: `h = (1 - z) * n + z * h`,
with update gate `z` and candidate `n`.
"""

import itertools
from collections.abc import Iterable, Iterator, Sequence, Set

from jaxinit._roles.meetings.carried import (
    Owners,
    Pair,
    factors,
    handed_on,
    has_state,
    is_difference_with,
    old_states,
    owners_of,
)
from jaxinit._roles.patterns.loops import Loops
from jaxinit._roles.patterns.normalization import normalized_from
from jaxinit._roles.patterns.regions import End
from jaxinit._roles.reading.flow import Flow
from jaxinit._roles.reading.graph import Loop, Node, Value
from jaxinit._roles.reading.primitives import (
    ADDITIONS,
    CONTRACTIONS,
    COPIES,
    ELEMENTWISE,
    MOVES,
)
from jaxinit._roles.reading.values import is_filling, maker, stripped
from jaxinit._roles.reading.walks import reached

_WHOLE_CELLS = (
    {"update gate", "reset gate", "candidate"},
    {"input gate", "forget gate", "cell", "output gate"},
)


class Cells:
    """The gates of all recurrent cells of a graph."""

    def __init__(self, flow: Flow, loops: Loops, owners: Owners):
        self._flow, self._loops, self._owners = flow, loops, owners
        self._by_loop: dict[Loop, list[tuple[Node, End]]] = {}
        for found in owners.values():
            for node, end in found:
                for loop in _around(end):
                    self._by_loop.setdefault(loop, []).append((node, end))

    def gates(self) -> Iterator[tuple[End, str]]:
        """The ends of kernels that are gates, and their names."""
        for carry in self._loops.carries:
            if self._loops.is_state(carry.output):
                yield from self._of_carry(carry)

    def whole(self) -> set[Loop]:
        """Loops not known to be over time, with all gates of a cell, used every round.

        Rounds of a cell are time, though nothing but its own past comes in: messages
        of a graph, or slots that compete.
        """
        names: dict[Loop, set[str]] = {}
        for carry in self._loops.carries:
            loop = carry.loops[-1]
            if not (self._loops.is_state(carry.output) or self._loops.slices(loop)):
                found = {name for _, name in self._of_carry(carry)}
                names.setdefault(loop, set()).update(found)
        return {
            loop
            for loop, found in names.items()
            if any(whole <= found for whole in _WHOLE_CELLS)
        }

    def _of_carry(self, carry: Node) -> Iterator[tuple[End, str]]:
        addition = handed_on(carry)
        if addition is not None and addition.op in ADDITIONS:
            yield from self._of_state(carry, addition)

    def _of_state(self, carry: Node, addition: Node) -> Iterator[tuple[End, str]]:
        """The gates that make the next of what is carried by an addition."""
        old = old_states(carry, addition, self._loops)
        terms = [value for value in addition.inputs if stripped(value) not in old]
        pairs = [pair for value in terms if (pair := factors(value))]
        kept = [pair for pair in pairs if has_state(pair, old)]
        gates = [found for pair in kept for found in self._owned(pair, gate=True)]
        fed_back = any(
            self._loops.carries_into(carry, data)
            for node, _ in gates
            for data in node.inputs[:2]
        )
        if fed_back or (not kept and self._is_update(pairs, old)):
            yield from self._of_gru(carry, addition, pairs, old)
        elif gates:
            yield from ((end, "forget gate") for _, end in gates)
            others = [pair for pair in pairs if pair not in kept]
            yield from self._of_lstm(addition.output, others)
        elif _is_mixed(addition, pairs, old):
            found = list(self._of_gru(carry, addition, pairs, old))
            resets = [end for end, name in found if name == "reset gate"]
            new = _terms(addition, pairs, old)
            if resets and all(self._resets(end, carry, new) for end in resets):
                yield from found

    def _resets(self, end: End, carry: Node, new: set[int]) -> bool:
        """Whether an end scales something of the past before a new state is made."""
        return any(
            taker.op == "mul"
            and taker.output.index not in new
            and any(
                self._loops.carries_into(carry, value)
                for value in taker.inputs
                if value is not end.value
            )
            for taker in end.takers
        )

    def _of_lstm(
        self, state: Value, added: Sequence[Pair]
    ) -> Iterator[tuple[End, str]]:
        """The other gates of `c = f * c + i * g; h = o * tanh(c)`."""
        for pair in added:
            yield from ((end, "input gate") for _, end in self._owned(pair, gate=True))
            yield from ((end, "cell") for _, end in self._owned(pair, gate=False))
        normed = normalized_from(self._flow, state)
        starts = dict.fromkeys((state, *normed))
        takers = (node for value in _functions_of(starts) for node in value.users)
        for node in takers:
            if node.op == "mul":
                for _, end in self._owned(node.inputs, gate=True):
                    yield end, "output gate"

    def _is_update(self, pairs: Sequence[Pair], old: Set[Value]) -> bool:
        """Whether it is `n + z * (h - n)`."""
        return any(
            self._owned(pair, gate=True)
            and any(is_difference_with(value, old) for value in _multiplied(pair, old))
            for pair in pairs
        )

    def _of_gru(
        self,
        carry: Node,
        addition: Node,
        pairs: Sequence[Pair],
        old: Set[Value],
    ) -> Iterator[tuple[End, str]]:
        """The gates of `h = (1 - z) * n + z * h`, or of `n + z * (h - n)`."""
        update = [end for pair in pairs for _, end in self._owned(pair, gate=True)]
        yield from ((end, "update gate") for end in update)
        updated = {end.root.index for end in update}
        others = [
            (node, end)
            for node, end in self._by_loop.get(carry.loops[-1], ())
            if self._loops.flows_into(node, addition.output)
            and end.root.index not in updated
            and old.isdisjoint(v for taker in end.takers for v in taker.outputs)
        ]
        new = _terms(addition, pairs, old)
        made = set(new)
        for node, end in others:
            if not end.is_gate and _leads(end.value, new):
                yield end, "candidate"
                made |= {end.root.index, node.output.index}
        for _, end in others:
            on_state = any(
                taker.op == "mul" and has_state(taker.inputs, old)
                for taker in end.takers
            )
            if end.is_gate and _leads(end.value, made, across=on_state):
                yield end, "reset gate"

    def _owned(self, pair: Pair, gate: bool) -> list[tuple[Node, End]]:
        """Owners of factors, those that go from 0 to 1 or the others."""
        found = owners_of(self._owners, pair, gate)
        if gate and not found:
            inside = (x for value in pair for x in _scaled(value))
            return owners_of(self._owners, inside, True)
        return found


def _scaled(value: Value) -> Sequence[Value]:
    """The factors of a gate that something else scales, as attention does; `1 - it`."""
    node = maker(value)
    if node is not None and node.op == "sub" and is_filling(node.inputs[0]):
        return factors(node.inputs[1]) or ()
    return factors(value) or ()


def _multiplied(pair: Pair, old: Set[Value]) -> Iterator[Value]:
    """The factors of a product, and theirs, without an old state."""
    for value in pair:
        if stripped(value) not in old:
            yield from (value, *(factors(value) or ()))


def _is_mixed(addition: Node, pairs: Sequence[Pair], old: Set[Value]) -> bool:
    """Whether it is `(1 - a) * h + a * n`, or `h + a * (n - h)`, of any weight `a`."""
    if has_state(addition.inputs, old):
        factors_of = (value for pair in pairs for value in _multiplied(pair, old))
        return any(is_difference_with(value, old) for value in factors_of)
    if len(pairs) != 2 or not any(has_state(pair, old) for pair in pairs):
        return False
    return any(_are_complements(a, b) for a, b in itertools.product(*pairs))


def _are_complements(a: Value, b: Value) -> bool:
    """Whether one of two weights is one less the other."""
    return any(
        (node := maker(first)) is not None
        and node.op == "sub"
        and is_filling(node.inputs[0])
        and stripped(node.inputs[1]) is stripped(second)
        for first, second in ((a, b), (b, a))
    )


def _around(end: End) -> Iterator[Loop]:
    """The innermost loop in which an end is taken."""
    loops = max((node.loops for node in end.takers), key=len, default=())
    yield from loops[-1:]


def _terms(addition: Node, pairs: Sequence[Pair], old: Set[Value]) -> set[int]:
    """Indices of what a new state is made of, without the old one."""
    multiplied = [value for pair in pairs for value in _multiplied(pair, old)]
    found = {stripped(value).index for value in (*addition.inputs, *multiplied)}
    for value in multiplied:
        node = maker(value)
        if node is not None and is_difference_with(value, old):
            found |= {stripped(v).index for v in node.inputs}
    return found - {value.index for value in old}


def _leads(value: Value, targets: set[int], across: bool = False) -> bool:
    """Whether elementwise operations lead to one of some values.

    Args:
        value: where to begin.
        targets: indices of the values.
        across: whether one contraction may be on the way.
    """
    simple = (ELEMENTWISE | COPIES | MOVES) - {"carry"}

    def after(item: tuple[Value, bool]) -> Iterator[tuple[Value, bool]]:
        value, across = item
        for node in value.users:
            if node.op in simple:
                yield from ((output, across) for output in node.outputs)
            elif node.op in CONTRACTIONS and across:
                yield node.output, False

    return any(item.index in targets for item, _ in reached([(value, across)], after))


def _functions_of(values: Iterable[Value]) -> Iterator[Value]:
    """Values that elementwise functions of one value give, these included."""

    def after(value: Value) -> Iterator[Value]:
        for node in value.users:
            alone = node.op in ELEMENTWISE and len(node.inputs) == 1
            if alone or node.op in COPIES:
                yield from node.outputs

    return reached(values, after)
