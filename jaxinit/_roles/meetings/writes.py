"""When each kernel writes to its residual stream, and in which layer.

Take a scan over three layers `x + tanh(x @ up) @ down`, whose kernels lie in one array
each, and the last layer first. The kernel `down` writes three times: its layer 2 is
number 0 among the writes of the stream, layer 1 number 1, layer 0 number 2. So the
order of `down` is 2, 1, 0, and so are the layers of both, as each write is a layer.
"""

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from jaxinit._roles.meetings.layers import Kind, layers_of
from jaxinit._roles.patterns.attention import Attention
from jaxinit._roles.patterns.branches import Branch, innermost_of
from jaxinit._roles.patterns.shares import Write, branches_held
from jaxinit._roles.patterns.streams import Addition
from jaxinit._roles.patterns.structure import Structure
from jaxinit._roles.reading.facts import Meeting
from jaxinit._roles.reading.graph import Loop, Node, Value
from jaxinit._roles.reading.primitives import ADDITIONS, COPIES, PRODUCTS, RELOCATIONS
from jaxinit._roles.reading.taken import Taken
from jaxinit._roles.reading.walks import nodes_of, reached

_MOST = 1 << 14  # writes to one stream that are told apart
_PLAIN = ADDITIONS | COPIES | RELOCATIONS - {"transpose"}

Numbers = tuple[int | None, ...]


@dataclass(frozen=True)
class Written:
    """Where a kernel writes, or the branch that it is in ends.

    Attributes:
        stream: number of the residual stream; None outside of all.
        order: for each layer in the leaf, the number of its first write, or None if it
            is not in this kernel; empty for what does not write, or if not known.
        layers: for each layer in the leaf, its number in the model, or None if it is
            not in this kernel, or in several layers; empty if not known.
        depth: number of layers of the stream; None if that is not told.
        memory: number of the stream that the keys of its cross-attentions come from;
            None if there is no such one.
    """

    stream: int | None = None
    order: Numbers = ()
    layers: Numbers = ()
    depth: int | None = None
    memory: int | None = None


@dataclass(frozen=True, eq=False)
class _Stream:
    """A residual stream.

    Attributes:
        number: its number.
        places: for the index of each writer, the number of its first write, and the
            total of all writes; None where the length of a loop is not known.
        held: how many branches of full size it holds at its end.
        rounds: for the index of each writer, the number of each of its writes, and the
            round of the loops around; empty if that is not known.
        layers: the layer of each write; None if layers are not told.
        memory: number of the stream that keys from elsewhere come from, if of one.
    """

    number: int
    places: Mapping[int, tuple[int, int | None]]
    held: float
    rounds: Mapping[int, Sequence[tuple[int, Mapping[Loop, int]]]]
    layers: Sequence[int] | None
    memory: int | None

    @property
    def depth(self) -> int | None:
        """Number of layers."""
        return None if self.layers is None else max(self.layers) + 1


class Writes:
    """The writes to all residual streams of a graph.

    Attributes:
        to_several: indices of the kernels that write to several streams; the last one
            counts.
    """

    def __init__(
        self,
        structure: Structure,
        branches: Mapping[int, Branch],
        streams: Sequence[Mapping[int, Addition]],
        of_attention: set[int],
        stack_axes: Mapping[tuple[int, int], Sequence[int]],
    ):
        """Finds the order and the layers of all writes.

        Args:
            structure: what is found in the graph.
            branches: for the index of each residual addition, its branch.
            streams: for each stream, the index of each writer and its addition.
            of_attention: indices of the kernels that take what an attention gives.
            stack_axes: the axes along which layers lie, by the index of a kernel and
                the number of the leaf.
        """
        self._structure, self._branches = structure, branches
        self._of_attention = of_attention
        self._innermost = innermost_of(branches.values())
        for attention in structure.attentions:
            self._put_operands_in_branch(attention)
        self._shapes: dict[int, list[tuple[str, tuple[int, ...]]]] = {}
        self._stack_axes, self._meetings = stack_axes, dict[int, list[Meeting]]()
        for meeting in structure.flow.meetings:
            node, shape = meeting.node, meeting.weights.shape
            self._shapes.setdefault(node.index, []).append((node.op, shape))
            if (node.index, meeting.leaf) in stack_axes:
                self._meetings.setdefault(node.index, []).append(meeting)
        self._writers: dict[int, tuple[int, _Stream]] = {}
        self._ends: dict[int, tuple[int, _Stream]] = {}
        self.to_several: set[int] = set()
        for writers in filter(None, streams):
            self.to_several |= self._writers.keys() & writers.keys()
            stream = self._stream(writers)
            for index, addition in writers.items():
                self._writers[index] = index, stream
                self._ends.setdefault(addition.node.index, (index, stream))

    def places(self) -> dict[int, tuple[int, int | None]]:
        """For the index of each writer, the number of its first write, and their total.

        The total is None where the length of a loop is not known. In loops that begin
        the stream anew in each round, as those of a sampler around a model, a writer
        counts once.
        """
        return {
            index: stream.places[index] for index, (_, stream) in self._writers.items()
        }

    def held(self) -> dict[int, float]:
        """For the index of each writer, how many branches its stream holds."""
        return {index: stream.held for index, (_, stream) in self._writers.items()}

    def _put_operands_in_branch(self, attention: Attention) -> None:
        """Counts the kernels of keys and values from elsewhere to their branch."""
        structure, branch = self._structure, self._innermost.get(attention.output.index)
        if branch is None:
            return
        operands = attention.key, attention.value
        for index in set[int]().union(*map(structure.made_of, operands)):
            node = structure.flow.graph.values[index].node
            if node is not None and node.index in structure.kernels:
                self._innermost.setdefault(node.index, branch)

    def of(self, meeting: Meeting) -> Written:
        """Where a kernel writes, or the branch that it is in ends."""
        index = meeting.node.index
        found = self._writers.get(index)
        if found is None and index in self._innermost:
            found = self._ends.get(self._innermost[index].addition.node.index)
        if found is None:
            return Written()
        writer, stream = found
        numbers = self._numbers(meeting, stream.rounds.get(writer, ()))
        order = tuple(min(x, default=None) for x in numbers)
        layers = () if stream.layers is None else _only(numbers, stream.layers)
        return Written(
            stream.number,
            order if index in self._writers else (),
            layers if any(x is not None for x in layers) else (),
            stream.depth,
            stream.memory,
        )

    def _numbers(
        self, meeting: Meeting, rounds: Sequence[tuple[int, Mapping[Loop, int]]]
    ) -> list[list[int]]:
        """For each layer in a leaf, the numbers of its writes; empty if not known."""
        flow, around = self._structure.flow, dict.fromkeys(meeting.node.loops)
        stack_axes = self._stack_axes[meeting.node.index, meeting.leaf]
        taken = Taken(
            flow.graph, flow.is_data, flow.has_leaves, meeting.leaf, stack_axes
        )
        size = math.prod(meeting.shape[axis] for axis in stack_axes)
        numbers: list[list[int]] = [[] for _ in range(size)]
        for number, here in rounds:
            found = taken.layers(meeting.weights, {**around, **here})
            if found is None or len(found) > 1:
                return []
            for layer in found:
                numbers[layer].append(number)
        return numbers if any(numbers) else []

    def _stream(self, writers: Mapping[int, Addition]) -> _Stream:
        additions = list(dict.fromkeys(writers.values()))
        number, memory = additions[0].stream, self._memory(additions)
        loops = {x: self._loops(x, additions) for x in additions}
        lengths = [[loop.length or 0 for loop in loops[x]] for x in writers.values()]
        total = sum(map(math.prod, lengths)) if all(map(all, lengths)) else None
        if total is None or total > _MOST:
            firsts = _first_writes(list(writers.items()), loops)
            places = {index: (first, total) for index, first in firsts.items()}
            return _Stream(number, places, total or 1, {}, None, memory)
        writes = list(_writes(list(writers.items()), loops, {}))
        rounds: dict[int, list[tuple[int, Mapping[Loop, int]]]] = {}
        for i, (index, _, here) in enumerate(writes):
            rounds.setdefault(index, []).append((i, here))
        places = {index: (found[0][0], total) for index, found in rounds.items()}
        kernels = self._kernels(writes, rounds)
        held = branches_held(self._structure.flow, writes, kernels)
        return _Stream(number, places, held, rounds, self._layers(writes), memory)

    def _kernels(
        self,
        writes: Sequence[Write],
        rounds: Mapping[int, Sequence[tuple[int, Mapping[Loop, int]]]],
    ) -> list[frozenset[tuple[int, int]]]:
        """The leaves that make each write, and which of their layers do."""
        found: list[set[tuple[int, int]]] = [{(-1, i)} for i in range(len(writes))]
        for index, of_kernel in rounds.items():
            for meeting in self._meetings.get(index, ()):
                numbers = self._numbers(meeting, of_kernel)
                for layer, written in enumerate(numbers):
                    for i in written:
                        found[i] = (found[i] - {(-1, i)}) | {(meeting.leaf, layer)}
        return list(map(frozenset, found))

    def _layers(self, writes: Sequence[Write]) -> list[int] | None:
        """The layer of each write to a stream; None if that is not told."""
        ends = {index: addition for index, addition, _ in writes}
        kinds = {index: self._kind(index, addition) for index, addition in ends.items()}
        steps = [list(step) for _, step in itertools.groupby(writes, _side_by_side)]
        found = layers_of([tuple(kinds[i] for i, _, _ in step) for step in steps])
        if found is None:
            return None
        pairs = zip(found, steps, strict=True)
        return [layer for layer, step in pairs for _ in step]

    def _kind(self, index: int, addition: Addition) -> Kind:
        """What a writer writes, as far as it tells layers apart."""
        structure = self._structure
        branch = self._branches[addition.node.index]
        nodes = structure.flow.graph.nodes
        place = [writer.index for writer in addition.writers].index(index)
        computed = (nodes[i].op for i in branch.before if not self._is_plain(nodes[i]))
        attention = None
        if index in self._of_attention:
            attention = "cross" if any(self._from_elsewhere(addition)) else "self"
        return Kind(
            attention,
            (place, *computed),
            (place, *(x for i in branch.before for x in self._shapes.get(i, ()))),
        )

    def _is_plain(self, node: Node) -> bool:
        """Whether a first layer may lack a node that others have."""
        is_product = node.op in PRODUCTS and self._structure.flow.numbers_of(node)
        return node.op in _PLAIN or bool(is_product)

    def _from_elsewhere(self, addition: Addition) -> Iterator[Value]:
        """The keys of attentions in a branch that are not computed from its stream."""
        before = self._branches[addition.node.index].before
        residuals = self._structure.residuals
        for attention in self._structure.attentions:
            if attention.output.index not in before:
                continue
            if residuals.is_behind(addition.root, attention.key):
                continue
            values = self._back_to_streams(attention.key)
            begun = {*self._behind(addition.root)}  # what a normed query is made of
            if addition.stream not in self._ended(values) and not begun & values:
                yield attention.key

    def _memory(self, additions: Sequence[Addition]) -> int | None:
        """The stream that keys from elsewhere come from, if all do from one."""
        keys = (key for x in additions for key in self._from_elsewhere(x))
        found = {x for key in keys for x in self._ended(self._back_to_streams(key))}
        return found.pop() if len(found) == 1 else None

    def _back_to_streams(self, value: Value) -> set[Value]:
        """What a value is made of, back to residual additions."""
        structure = self._structure

        def before(value: Value) -> Sequence[Value]:
            node = value.node
            if node is None or structure.residuals.contains(node):
                return ()
            return structure.flow.data_of(node)

        return {*reached([value], before)}

    def _ended(self, values: Iterable[Value]) -> set[int]:
        """The streams whose additions make some of these values."""
        known = self._structure.residuals.additions
        return {known[x.index].stream for x in nodes_of(values) if x.index in known}

    def _loops(
        self, addition: Addition, additions: Sequence[Addition]
    ) -> tuple[Loop, ...]:
        """The loops around an addition that carry its stream from round to round."""
        loops = self._structure.loops.loops_of_depth(addition.node)
        return tuple(loop for loop in loops if self._is_carried(loop, additions))

    def _is_carried(self, loop: Loop, additions: Sequence[Addition]) -> bool:
        first = next(x for x in additions if loop in x.node.loops)
        return any(
            any(value is carry.output for value in self._behind(first.skip))
            and any(
                self._structure.residuals.is_of_stream(node, first)
                for node in nodes_of(self._behind(carry.back))
            )
            for carry in self._structure.loops.carries
            if carry.loops[-1] is loop and carry.back is not None
        )

    def _behind(self, value: Value) -> Iterator[Value]:
        """What a value is made of without any kernel between."""
        structure = self._structure

        def before(value: Value) -> Sequence[Value]:
            node = value.node
            if node is None or node.index in structure.kernels:
                return ()
            if structure.residuals.contains(node):
                return [structure.residuals.additions[node.index].skip]
            return structure.flow.data_of(node)

        return reached([value], before)


def _side_by_side(write: Write) -> tuple[int, tuple[int, ...]]:
    """What branches have in common that are computed side by side."""
    _, addition, here = write
    return addition.root.index, tuple(here.values())


def _writes(
    pairs: Sequence[tuple[int, Addition]],
    loops: Mapping[Addition, Sequence[Loop]],
    here: Mapping[Loop, int],
) -> Iterator[Write]:
    """All writes in their order."""

    def next_loop(pair: tuple[int, Addition]) -> Loop | None:
        return next((loop for loop in loops[pair[1]] if loop not in here), None)

    for loop, together in itertools.groupby(pairs, next_loop):
        inside = list(together)
        if loop is None:
            yield from ((index, addition, here) for index, addition in inside)
            continue
        for i in range(loop.length or 0):
            yield from _writes(inside, loops, {**here, loop: i})


def _first_writes(
    pairs: Sequence[tuple[int, Addition]], loops: Mapping[Addition, Sequence[Loop]]
) -> dict[int, int]:
    """The number of the first write of each, behind all rounds of loops before."""
    firsts, before = {}, 0
    for _, together in itertools.groupby(pairs, lambda pair: loops[pair[1]][:1]):
        inside = list(together)
        firsts |= {index: before + i for i, (index, _) in enumerate(inside)}
        rounds = ([loop.length or 0 for loop in loops[x]] for _, x in inside)
        before += sum(map(math.prod, rounds))  # none, of a length that is not known
    return firsts


def _only(numbers: Sequence[Sequence[int]], layers: Sequence[int]) -> Numbers:
    """The layer that all of some writes are of, each time; None if there is none."""
    found = [{layers[i] for i in writes} for writes in numbers]
    return tuple(x.pop() if len(x) == 1 else None for x in found)
