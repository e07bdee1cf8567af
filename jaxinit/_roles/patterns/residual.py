"""Residual streams: which additions are theirs, and which kernels write to them.

Take `x1 = x + f(x); x2 = x1 + g(x1)`, with a kernel at the end of `f` and of `g`. An
addition is one of a residual stream if one side, `x`, is an ancestor of the other
through a contraction, or through what mixes places by itself. Its kernel writes to the
stream: number 0 of 2, and that of `g` number 1 of 2, as the first addition is found
behind the second.

What holds:
- In a loop, an addition counts once a round.
- Rows that are added at some places of `x`, by a scatter, are a branch too, and so is
  what is the same for all places.
- A leg that a number makes small, `h @ w + 0.1 * h0`, is no stream: the kernel is the
  main path.
- A leaf may multiply the stream, `g * x + f(x)`, if the sum is added to in turn.
- A sum of branches, `x + (f(x) + g(x))` or `(x + f(x)) + g(x)`, has two writers.
- What is added to a stream in each layer anew, `h = h + f(h + x)` with `h` zero at
  first, begins no stream each time.
- A sum that only branches read, as `h + places` of a query, is none: see `only_read`.
- A contraction on the shortcut itself, beside a longer branch, is no writer, and its
  addition counts only in a stream that has a plain addition too.
"""

import functools
from collections.abc import Iterable, Iterator, Sequence

from jaxinit._roles.patterns.loops import Loops
from jaxinit._roles.patterns.only_read import gathered, only_read
from jaxinit._roles.patterns.streams import (
    Addition,
    is_handed_on,
    is_larger,
    is_read_by,
    join_streams,
    read_last,
    takes_turns,
)
from jaxinit._roles.patterns.weighed import before_leaf, is_minor, unscaled
from jaxinit._roles.reading.axes import Place, is_repeated, of_batches
from jaxinit._roles.reading.depths import Depths
from jaxinit._roles.reading.flow import Flow
from jaxinit._roles.reading.graph import Node, Value
from jaxinit._roles.reading.primitives import (
    ADDITIONS,
    CONTRACTIONS,
    PRODUCTS,
    SCATTERS,
    SPREADS,
)
from jaxinit._roles.reading.values import is_softmax, stripped
from jaxinit._roles.reading.walks import (
    ancestor,
    is_inexact,
    nodes_behind,
    nodes_of,
    reached,
)

_ROOTS = 8  # branches of one stream that are summed before they are added
_POOLS = ("reduce_max", "reduce_sum", "reduce_window_max", "reduce_window_sum")


class Residuals:
    """The residual additions of a graph.

    Attributes:
        additions: all of them, by the index of the node.
    """

    def __init__(
        self,
        flow: Flow,
        kernels: set[int],
        values: dict[int, Value],
        scores: Iterable[int],
        loops: Loops,
    ):
        """Finds the additions of all streams, and what writes to them.

        Args:
            flow: what is known.
            kernels: indices of contractions with leaves.
            values: for the index of an attention's output, the operand to look behind.
            scores: indices of contractions of query and key, to which masks are added.
            loops: what loops carry: a state carried over time is no residual stream.
        """
        self._flow, self._kernels, self._values = flow, kernels, values
        self._loops, self._scores = loops, frozenset(scores)
        self.additions: dict[int, Addition] = {}
        candidates = [node for node in flow.graph.nodes if self._may_add(node)]
        spreads = {node.index for node in flow.graph.nodes if node.op in SPREADS}
        roots = self._possible_roots(candidates)
        self._depths = Depths(flow.graph, kernels | spreads, roots)
        for node in candidates:
            found = self._addition(node)
            if found:
                self.additions[node.index] = found
        others = [x for x in candidates if not (x.op in SCATTERS or self.contains(x))]
        turns = self._first_turns(others)
        found = self.additions | self._rescaled(others) | turns
        self.additions = dict(sorted(found.items()))
        for addition in gathered(flow, self.additions.values()):
            del self.additions[addition.node.index]
        for addition in only_read(flow, self.additions, self._made_of):
            del self.additions[addition.node.index]
        self._find_streams()
        for first in turns.values():
            read_last(first, self.additions.values(), self._depths)
        for addition in self.additions.values():
            addition.writers = self._writers(addition)
        join_streams(flow, self.additions.values())

    def contains(self, node: Node) -> bool:
        """Whether a node adds a branch to a stream."""
        return node.index in self.additions

    def is_behind(self, root: Value, value: Value) -> bool:
        """Whether a value is computed from what a branch is computed from."""
        return self._depths.at_least(0, root, value)

    def _may_add(self, node: Node) -> bool:
        if node.op not in ADDITIONS | SCATTERS:
            return False
        a, b = node.inputs[0], node.inputs[-1]
        if self._flow.data(a) and self._flow.data(b):
            if node.op in SCATTERS:
                return True
        elif node.op in SCATTERS or not (self._begins(a) or self._begins(b)):
            return False
        makers = nodes_of(unscaled(self._flow, value)[0] for value in node.inputs)
        of_scores = any(maker.index in self._scores for maker in makers)
        return a is not b and node.output.shape in (a.shape, b.shape) and not of_scores

    def _begins(self, value: Value) -> bool:
        """Whether a value is an array of zeros, with which a stream may begin."""
        return bool(value.shape) and self._flow.number(value) == 0

    def _possible_roots(self, candidates: Sequence[Node]) -> Iterator[Value]:
        """What a branch may be computed from."""
        flow = self._flow
        skips = (value for node in candidates for value in node.inputs)
        kernels = (flow.graph.nodes[index] for index in self._kernels)
        before = (value for node in kernels for value in node.inputs[:2])
        for skip in skips:
            yield unscaled(flow, skip)[0]
            if root := before_leaf(flow, skip):
                yield root
        yield from filter(flow.data, map(stripped, before))
        yield from (node.output for node in candidates)

    def _addition(self, node: Node) -> Addition | None:
        a, b = node.inputs[0], node.inputs[-1]
        if node.op in SCATTERS:  # rows of a branch, added at some places of a stream
            return self._plain(node, a, b)
        sides = self._sides(node)
        for skip, branch in sides:
            found = self._plain(node, skip, branch)
            if found:
                return found
        for skip, branch in sides:
            for root in self._behind_shortcut(skip, branch):
                if self._depths.at_least(2, root, branch):
                    return Addition(node, skip, branch, root, True)
        return None

    def _sides(self, node: Node) -> list[tuple[Value, Value]]:
        """What a sum may be added to, and what is added."""
        a, b = node.inputs[0], node.inputs[-1]
        return [
            (skip, branch)
            for skip, branch in ((a, b), (b, a))
            if self._flow.data(branch)
            and (skip.shape == node.output.shape or self._is_of_ensemble(skip, branch))
            and not is_minor(self._flow, skip, branch)
        ]

    def _rescaled(self, candidates: Iterable[Node]) -> dict[int, Addition]:
        """Additions to what a leaf multiplies, where the sum is added to in turn."""
        found = {x.node.output: x for x in map(self._to_rescaled, candidates) if x}
        added_to = {unscaled(self._flow, x.skip)[0] for x in self.additions.values()}
        added_to |= {addition.root for addition in found.values()}
        kept = {
            value: x
            for value, x in found.items()
            if value in added_to or is_handed_on(x, x.root)
        }
        last = {value: x for value, x in found.items() if x.root in kept}
        return {x.node.index: x for x in (kept | last).values()}

    def _to_rescaled(self, node: Node) -> Addition | None:
        for skip, branch in self._sides(node):
            root = before_leaf(self._flow, skip)
            if root is None or self._loops.is_state(root):
                continue
            if any(map(self.contains, self._made_of(branch))):  # it is a stream itself
                continue
            if self._depths.at_least(1, root, branch):
                return Addition(node, skip, branch, root, False)
        return None

    def _first_turns(self, candidates: Iterable[Node]) -> dict[int, Addition]:
        """The first additions to streams that are written in turns."""
        later: dict[Value, list[Addition]] = {}
        for addition in self.additions.values():
            skip, _ = unscaled(self._flow, addition.skip)
            later.setdefault(skip, []).append(addition)
        found = (self._first_turn(x, later.get(x.output, ())) for x in candidates)
        return {first.node.index: first for first in found if first}

    def _first_turn(self, node: Node, later: Sequence[Addition]) -> Addition | None:
        """An addition that begins a stream which another one takes turns with."""
        for skip, branch in self._sides(node):
            made = Addition(node, skip, branch, branch, False)
            root, _ = unscaled(self._flow, skip)
            is_of_loop = is_handed_on(made, root) and not self._loops.is_state(root)
            if not (later or is_of_loop):
                continue
            for other in takes_turns(made, [*self.additions.values()], self._depths):
                if is_of_loop or any(is_read_by(other, x) for x in later):
                    return Addition(node, skip, branch, other.root, False)
        return None

    def _plain(self, node: Node, skip: Value, branch: Value) -> Addition | None:
        """An addition to what its branch is computed from."""
        for root in self._roots(skip):
            if self._loops.is_state(root):
                continue
            if is_larger(skip, root) and not self._is_of_ensemble(skip, branch):
                continue
            if _is_of_outside(root, node):
                continue
            if self._depths.at_least(1, root, branch):
                return Addition(node, skip, branch, root, False)
        return None

    def _is_of_ensemble(self, skip: Value, branch: Value) -> bool:
        """Whether a skip is only repeated for kernels side by side, as of `vmap`."""
        if len(skip.shape) != len(branch.shape):
            return False
        sizes = enumerate(zip(skip.shape, branch.shape, strict=True))
        repeated = (i for i, (n, m) in sizes if n < m or is_repeated(skip, i))
        return all((branch, i) in self._ensembles for i in repeated)

    @functools.cached_property
    def _ensembles(self) -> set[Place]:
        """Axes of activations that kernels take as batches, and all they come from."""
        nodes = [self._flow.graph.nodes[index] for index in self._kernels]
        sides = [(node, side) for node in nodes for side in (0, 1)]
        return of_batches(x for x in sides if self._flow.data(x[0].inputs[x[1]]))

    def _roots(self, skip: Value) -> Iterator[Value]:
        """What a skip is a copy of, and what that was before branches were added."""
        for _ in range(_ROOTS):
            skip, _ = unscaled(self._flow, skip)
            yield skip
            above = skip.node and self.additions.get(skip.node.index)
            if not above:
                return
            skip = above.skip

    def _behind_shortcut(self, skip: Value, branch: Value) -> Iterator[Value]:
        """What a contraction beside a branch, and not in it, takes: pools of it too."""
        found = self._nearest_contractions(skip)
        if len(found) != 1 or found[0].index not in self._kernels:
            return
        if ancestor(found[0].output, branch):
            return
        data = [v for v in found[0].inputs[:2] if self._flow.data(v)]
        if len(data) != 1:
            return
        root, _ = unscaled(self._flow, data[0])
        yield stripped(data[0])
        while root.node is not None and root.node.op in _POOLS:
            root, _ = unscaled(self._flow, root.node.inputs[0])
            yield root

    def _nearest_contractions(self, value: Value) -> list[Node]:
        """The contractions that a value is made of, with no other between."""
        return [x for x in self._made_of(value) if x.op in CONTRACTIONS]

    def _made_of(self, value: Value) -> Iterator[Node]:
        """What makes a value, back to contractions and additions to streams."""

        def before(node: Node) -> list[Node]:
            stops = node.op in CONTRACTIONS or self.contains(node)
            return [] if stops else nodes_of(self._flow.data_of(node))

        return reached(nodes_of([value]), before)

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
            is_plain = any(not addition.projected for addition in stream)
            for addition in stream:
                goes_on = is_plain and _goes_on(addition, stream)
                if addition.projected and not goes_on:
                    del self.additions[addition.node.index]

    def _above(self, addition: Addition) -> Addition | None:
        """The addition before this one in its stream."""
        pending = [(addition.skip, not addition.projected)]
        seen: set[int] = set()
        found: list[Addition] = []
        while pending:
            value, crossed = pending.pop()
            node = value.node
            if node is None or node.index in seen:
                continue
            seen.add(node.index)
            if self.contains(node) and node is not addition.node:
                found.append(self.additions[node.index])
            elif not (crossed and node.op in CONTRACTIONS):
                crossed |= node.op in CONTRACTIONS
                pending += [(v, crossed) for v in self._flow.data_of(node)]
        return max(found, key=lambda x: x.node.index, default=None)

    def _writers(self, addition: Addition) -> list[Node]:
        """The contractions whose output a branch is, with no other between."""

        def before(value: Value) -> list[Value]:
            node = value.node
            if value is addition.root or node is None or node.index in self._kernels:
                return []
            if node.index in self._values:
                return [self._values[node.index]]
            if node.op == "carry" or self.is_of_stream(node, addition):
                return []
            if not is_inexact(value):  # it only chooses places
                return []
            return self._written_by(node, addition.root)

        values = reached([addition.branch], before)
        nodes = nodes_of(value for value in values if value is not addition.root)
        found = {node.index: node for node in nodes if node.index in self._kernels}
        return [found[i] for i in sorted(found)]

    def is_of_stream(self, node: Node, addition: Addition) -> bool:
        """Whether a node adds to the same stream, and not to one inside the branch."""
        found = self.additions.get(node.index)
        return found is not None and found.stream == addition.stream

    def _written_by(self, node: Node, root: Value) -> list[Value]:
        """The inputs of a node in a branch, without those that only modulate it."""
        data = self._flow.data_of(node)
        if node.op in PRODUCTS | CONTRACTIONS:
            data = [value for value in data if not is_softmax(value)] or data
        if node.op in PRODUCTS and len(data) > 1:
            return [value for value in data if ancestor(root, value)] or data
        return data

    def streams(self, excluded: set[int]) -> list[dict[int, Addition]]:
        """For each stream, the index of each writer, in order, and its addition.

        Args:
            excluded: contractions that steer a branch and do not write it.
        """
        streams: dict[int, dict[int, Addition]] = {}
        for addition in sorted(self.additions.values(), key=lambda x: x.node.index):
            kept = [w for w in addition.writers if w.index not in excluded]
            writers = streams.setdefault(addition.stream, {})
            for writer in kept or addition.writers:
                writers.setdefault(writer.index, addition)
        return list(streams.values())


def _is_of_outside(root: Value, node: Node) -> bool:
    """Whether a root enters every round of a loop as it is, and is not carried on."""
    loops = root.node.loops if root.node is not None else ()
    return len(loops) < len(node.loops)


def _goes_on(addition: Addition, stream: Sequence[Addition]) -> bool:
    """Whether a stream goes on behind an addition with a projected shortcut.

    A sum of two maps of the same input is no such addition if another one adds to that
    input itself, as around an attention whose queries have an adapter; nor is a sum of
    two heads.
    """
    if any(other.above is addition for other in stream):
        return True
    if not any(node.op in CONTRACTIONS for node in nodes_behind(addition.node)):
        return False
    beside = (other for other in stream if other is not addition)
    alone = all(other.above is not addition.above for other in beside)
    return addition.above is not None and alone
