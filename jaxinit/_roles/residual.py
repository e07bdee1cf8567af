"""Residual streams: which additions are theirs, and which kernels write to them.

Take `x1 = x + f(x); x2 = x1 + g(x1)`, with a kernel at the end of `f` and of `g`. An
addition is one of a residual stream if one side, `x`, is an ancestor of the other
through a contraction. Its kernel writes to the stream: number 0 of 2, and that of `g`
number 1 of 2, as the first addition is found behind the second.

What holds:
- In a loop, an addition counts once a round.
- A sum of branches, `x + (f(x) + g(x))` or `(x + f(x)) + g(x)`, has two writers.
- A contraction on the shortcut itself, beside a longer branch, is no writer, and its
  addition counts only in a stream that has a plain addition too.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from jaxinit._roles.flow import Flow
from jaxinit._roles.graph import Node, Value, ancestor
from jaxinit._roles.loops import Loops
from jaxinit._roles.primitives import COPIES, CONTRACTIONS, PRODUCTS
from jaxinit._roles.regions import nearest_contractions, stripped

_ADDITIONS = ("add", "add_any")


@dataclass(eq=False)
class Addition:
    """A branch added to a residual stream.

    Attributes:
        node: the addition.
        skip: what it is added to.
        branch: what is added.
        root: what the branch is computed from.
        projected: whether a contraction is on the shortcut.
        stream: number of its stream.
        above: the addition before it in its stream.
        writers: the contractions whose output the branch is.
    """

    node: Node
    skip: Value
    branch: Value
    root: Value
    projected: bool
    stream: int = -1
    above: "Addition | None" = None
    writers: list[Node] = field(default_factory=list)


class Residuals:
    """The residual additions of a graph.

    Attributes:
        additions: all of them, by the index of the node.
        places: for the index of each writing contraction, its number and the total.
    """

    def __init__(
        self, flow: Flow, kernels: set[int], values: dict[int, Value], loops: Loops
    ):
        """Args:
        flow: what is known.
        kernels: indices of contractions with leaves.
        values: for the index of an attention's output, the operand to look behind.
        loops: what loops carry: a state carried over time is no residual stream.
        """
        self._flow, self._kernels, self._values = flow, kernels, values
        self._loops = loops
        self.additions: dict[int, Addition] = {}
        for node in flow.graph.nodes:
            if node.op in _ADDITIONS and all(map(flow.data, node.inputs)):
                found = self._addition(node)
                if found:
                    self.additions[node.index] = found
        self._find_streams()
        for addition in self.additions.values():
            addition.writers = self._writers(addition)

    def contains(self, node: Node) -> bool:
        """Whether a node adds a branch to a stream."""
        return node.index in self.additions

    def _addition(self, node: Node) -> Addition | None:
        a, b = node.inputs
        if a is b or a.shape != b.shape:
            return None
        for skip, branch in ((a, b), (b, a)):
            for root in self._roots(skip):
                if self._loops.is_state(root):
                    continue
                if self._depth(root, branch) >= 1:
                    return Addition(node, skip, branch, root, False)
        for skip, branch in ((a, b), (b, a)):
            root = self._behind_shortcut(skip, branch)
            if root is not None and self._depth(root, branch) >= 2:
                return Addition(node, skip, branch, root, True)
        return None

    def _roots(self, skip: Value) -> Iterator[Value]:
        """What a skip is a copy of, and what that was before branches were added."""
        for _ in range(8):
            skip = _unscaled(self._flow, skip)
            yield skip
            above = skip.node and self.additions.get(skip.node.index)
            if not above:
                return
            skip = above.skip

    def _behind_shortcut(self, skip: Value, branch: Value) -> Value | None:
        """What a contraction beside a branch, and not in it, takes."""
        found = nearest_contractions(self._flow, skip, self.contains)
        if len(found) != 1 or found[0].index not in self._kernels:
            return None
        if ancestor(found[0].output, branch):
            return None
        data = [v for v in found[0].inputs[:2] if self._flow.data(v)]
        return stripped(data[0]) if len(data) == 1 else None

    def _depth(self, root: Value, branch: Value) -> int:
        """Most kernels on a path from one value to another; -1 if there is none."""
        if not self._flow.data(root):
            return -1
        first = -1 if root.node is None else root.node.index
        between = _between(branch, first)
        depths = {root.index: 0}
        for node in sorted(between, key=lambda node: node.index):
            before = [depths[v.index] for v in node.inputs if v.index in depths]
            if before:
                depth = max(before) + (node.index in self._kernels)
                depths.update((v.index, depth) for v in node.outputs)
        return depths.get(branch.index, -1) if branch is not root else -1

    def _find_streams(self) -> None:
        """Numbers the streams; additions of none that is plain are left out."""
        streams: list[list[Addition]] = []
        for addition in self.additions.values():
            above = addition.above = self._above(addition)
            if above is None:
                addition.stream = len(streams)
                streams.append([])
            else:
                addition.stream = above.stream
            streams[addition.stream].append(addition)
        for stream in streams:
            plain = [addition for addition in stream if not addition.projected]
            for addition in stream:
                if addition.projected and not (
                    plain and self._goes_on(addition, stream)
                ):
                    del self.additions[addition.node.index]

    def _goes_on(self, addition: Addition, stream: Sequence[Addition]) -> bool:
        """Whether a stream goes on behind an addition with a projected shortcut.

        A sum of two maps of the same input is no such addition if another one adds to
        that input itself, as around an attention whose queries have an adapter.
        """
        if any(other.above is addition for other in stream):
            return True
        beside = [x for x in stream if x.above is addition.above and x is not addition]
        return addition.above is not None and not beside

    def _above(self, addition: Addition) -> Addition | None:
        """The addition before this one in its stream."""
        pending = [(addition.skip, not addition.projected)]
        seen: set[int] = set()
        best: Addition | None = None
        while pending:
            value, crossed = pending.pop()
            node = value.node
            if node is None or node.index in seen:
                continue
            seen.add(node.index)
            found = self.additions.get(node.index)
            if found and found is not addition:
                if best is None or found.node.index > best.node.index:
                    best = found
                continue
            if node.op in CONTRACTIONS:
                if crossed:
                    continue
                crossed = True
            pending += [(v, crossed) for v in node.inputs if self._flow.data(v)]
        return best

    def _writers(self, addition: Addition) -> list[Node]:
        """The contractions whose output a branch is, with no other between."""
        found: dict[int, Node] = {}
        seen: set[int] = set()
        pending = [addition.branch]
        while pending:
            value = pending.pop()
            node = value.node
            if value is addition.root or node is None or node.index in seen:
                continue
            seen.add(node.index)
            if node.index in self._kernels:
                found[node.index] = node
            elif node.index in self._values:
                pending.append(self._values[node.index])
            elif self._is_inside(node, addition) and node.op != "carry":
                data = [v for v in node.inputs if self._flow.data(v)]
                if node.op in PRODUCTS and len(data) > 1:  # what modulates a branch
                    own = [v for v in data if ancestor(addition.root, v)]
                    data = own or data
                pending += data
        return [found[i] for i in sorted(found)]

    def _is_inside(self, node: Node, addition: Addition) -> bool:
        """Whether a node is no addition, or one of a stream inside the branch."""
        own = self.additions.get(node.index)
        return own is None or own.stream != addition.stream

    def number(self, excluded: set[int]) -> dict[int, tuple[int, int | None]]:
        """For the index of each writer, its number in the stream, and their total.

        Args:
            excluded: contractions that steer a branch and do not write it.
        """
        streams: dict[int, list[Node]] = {}
        for addition in sorted(self.additions.values(), key=lambda x: x.node.index):
            kept = [w for w in addition.writers if w.index not in excluded]
            writers = streams.setdefault(addition.stream, [])
            writers += [w for w in kept or addition.writers if w not in writers]
        places: dict[int, tuple[int, int | None]] = {}
        for writers in streams.values():
            rounds = {w.index: self._loops.rounds_of_depth(w) for w in writers}
            total = sum(rounds.values()) if all(rounds.values()) else None
            before = 0  # rounds of what precedes the loop that a writer is in
            for _, together in itertools.groupby(writers, lambda w: w.loops[:1]):
                together = list(together)
                for i, writer in enumerate(together):
                    places[writer.index] = (before + i, total)
                before += sum(rounds[w.index] for w in together)
        return places


def _unscaled(flow: Flow, value: Value) -> Value:
    """The value that this one is, but for its places and a number that multiplies it."""
    while True:
        value = stripped(value)
        node = value.node
        if node is None or node.op not in PRODUCTS:
            return value
        data = [v for v in node.inputs if flow.data(v)]
        numbers = [v for v in node.inputs if flow.number(v) is not None]
        if len(data) != 1 or len(numbers) != 1:
            return value
        value = data[0]


def _between(value: Value, first: int) -> list[Node]:
    """Nodes after number `first` from which a value is made, by no back edge."""
    seen: dict[int, Node] = {}
    pending = [value.node] if value.node else []
    while pending:
        node = pending.pop()
        if node.index > first and node.index not in seen:
            seen[node.index] = node
            pending += [v.node for v in node.inputs if v.node]
    return list(seen.values())


def branch_scales(flow: Flow, addition: Addition) -> Iterator[Node]:
    """Products with leaves between a branch and its addition, with nothing else."""
    value = addition.branch
    while value.node is not None:
        node = value.node
        data = [v for v in node.inputs if flow.data(v)]
        leaves = [v for v in node.inputs if flow.from_leaves(v)]
        if node.op in PRODUCTS and leaves and len(data) == 1:
            yield node
        elif node.op == "select_n":
            data = [v for v in data if v.dtype != bool]
        elif node.op not in COPIES and not _moves(node) and len(data) != 1:
            return
        elif node.op in CONTRACTIONS or not data:
            return
        elif (
            node.op not in COPIES
            and not _moves(node)
            and node.op not in (*_ADDITIONS, *PRODUCTS)
        ):
            return
        if not data:
            return
        value = data[0]


def _moves(node: Node) -> bool:
    return node.op in ("reshape", "transpose", "broadcast_in_dim", "squeeze")
