"""Kernels that are chosen by index, as those of experts, and what is chosen with them.

Take `einsum("bio,bi->bo", w[chosen], x) + b[chosen]` of w: f32[4,6,3], b: f32[4,3],
where `chosen` is the best of a router, or an input. `w[chosen]` looks like rows of a
table, but each row is contracted with activations along an axis of its own, and has
another one that the product keeps: it is a kernel, and axis 0 says which. What the same
index takes and adds to the product is its bias. Such lookups are followed as the
leaves themselves are.

What holds:
- Rows with one axis of their own are embeddings, of which inner products are taken.
- Keys and values of an attention that are looked up are embeddings too.
- Rows that are weighed by activations, or summed, before they are contracted are
  `mixed`: nothing is known of their leaf.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from jaxinit._roles.patterns.attention import Attention
from jaxinit._roles.reading.axes import (
    Place,
    axis_before,
    batch_and_free,
    contracted_axes,
    output_axes,
)
from jaxinit._roles.reading.facts import Choices
from jaxinit._roles.reading.flow import Flow
from jaxinit._roles.reading.graph import Node, Value
from jaxinit._roles.reading.primitives import (
    CONTRACTIONS,
    COPIES,
    ELEMENTWISE,
    PARTS,
    RELOCATIONS,
    SUMS,
)
from jaxinit._roles.reading.values import maker, picks_rows
from jaxinit._roles.reading.walks import is_inexact, nodes_of, reached

_MOVED = COPIES | RELOCATIONS | PARTS | {"each", "stacked"}
_INDEXED = COPIES | RELOCATIONS | {"select_n", "lt", "add", "clamp", "concatenate"}

_MIXED = "kernels that are chosen, and mixed before they are used"
_OF_VECTORS = "rows that are chosen, and may be kernels of their own or embeddings"


def chosen(flow: Flow, attentions: Sequence[Attention]) -> Choices:
    """The lookups that choose kernels, and what belongs to them.

    Args:
        flow: where every leaf goes, if all lookups are of embeddings.
        attentions: all attentions.
    """
    lookups = {x.index for x in flow.graph.nodes if _is_of_rows(flow, x)}
    return _Chosen(flow, attentions, lookups).found() if lookups else Choices()


def is_lookup(flow: Flow, node: Node) -> bool:
    """Whether inputs or activations choose places of leaves."""
    if node.op in ("gather", "dynamic_slice"):
        return flow.from_leaves(node.inputs[0]) and flow.data(node.outputs[0])
    return node.op == "dot_general" and any(
        flow.from_leaves(a) and flow.data(b) and picks_rows(b)
        for a, b in (node.inputs[:2], node.inputs[1::-1])
    )


def deciding_nodes(flow: Flow) -> set[int]:
    """Indices of the nodes that rank activations, and so choose kernels."""
    lookups = (flow.graph.nodes[index] for index in flow.choices.kernels)
    return {node.index for lookup in lookups for node in _ranking(flow, lookup)}


def _ranking(flow: Flow, lookup: Node) -> list[Node]:
    """The nodes that rank activations, and so make the index of a lookup."""
    makers = nodes_of(_integers(flow, flow.data_of(lookup)))
    return [node for node in makers if node.op in ("top_k", "argmax", "argmin")]


def _is_of_rows(flow: Flow, node: Node) -> bool:
    """Whether a node looks up rows, as they are in their leaf."""
    if not is_lookup(flow, node):
        return False
    (table,) = (value for value in node.inputs if flow.from_leaves(value))
    return any(not item.opaque for item in flow.fact(table).carried.values())


@dataclass(frozen=True)
class _Row:
    """An axis of the rows that a lookup gives."""

    lookup: int
    leaf: int
    axis: int


class _Chosen:
    """The search for kernels that are chosen."""

    def __init__(self, flow: Flow, attentions: Sequence[Attention], lookups: set[int]):
        self._flow = flow
        self._attentions = {
            node.index for each in attentions for node in (each.scores, each.output)
        }
        self._lookups = lookups
        self._takers: dict[int, int] = {}  # of a contraction, the lookup

    def found(self) -> Choices:
        """All of them."""
        unknown: dict[int, str] = {}
        for node in self._flow.graph.nodes:
            for side, lookup in self._kernels(node):
                if self._looked_up(node.inputs[side]) == lookup:
                    self._takers[node.index] = lookup
                else:
                    unknown[lookup] = _MIXED
            unknown |= self._doubtful(node)
        kernels = set(self._takers.values()) - set(unknown)
        kernels |= self._beside(kernels)
        vectors = [i for i, why in unknown.items() if why == _OF_VECTORS]
        for lookup in self._lookups - kernels:
            if any(self._same_index(lookup, other) for other in vectors):
                unknown.setdefault(lookup, _OF_VECTORS)
        left = {i: why for i, why in unknown.items() if i not in kernels}
        return Choices(frozenset(kernels), left)

    def _kernels(self, node: Node) -> Iterator[tuple[int, int]]:
        """Sides of a product of activations on which rows are kernels, and lookups."""
        if node.op == "reduce_sum":
            yield from self._summed(node)
        for side in self._sides(node):
            inside, outside = _inside_and_outside(node, side)
            for lookup in self._read(node.inputs[side], inside, outside):
                yield side, lookup

    def _doubtful(self, node: Node) -> dict[int, str]:
        """Lookups of windows in another form, and of vectors that activations choose.

        Of these, inner products with activations are taken.
        """
        found: dict[int, str] = {}
        for side in self._sides(node):
            lookup = self._looked_up(node.inputs[side])
            if lookup is None or self._takers.get(node.index) == lookup:
                continue
            if node.op == "conv_general_dilated":
                found[lookup] = _MIXED
            inside, _ = _inside_and_outside(node, side)
            summed = any(True for _ in self._rows(node.inputs[side], inside))
            if summed and self._is_ranked(lookup):
                found[lookup] = _OF_VECTORS
        return found

    def _sides(self, node: Node) -> Sequence[int]:
        """The operands of a contraction of activations that may be kernels."""
        if node.op not in CONTRACTIONS or node.index in self._attentions:
            return ()
        if not all(map(self._flow.data, node.inputs[:2])):
            return ()
        return (1,) if node.op == "conv_general_dilated" else (0, 1)

    def _is_ranked(self, lookup: int) -> bool:
        """Whether an index is that of the largest or the smallest activations."""
        return bool(_ranking(self._flow, self._flow.graph.nodes[lookup]))

    def _summed(self, node: Node) -> Iterator[tuple[int, int]]:
        """The same of a product that is summed over an axis."""
        product = maker(node.inputs[0])
        if product is None or product.op != "mul":
            return
        if len(set(self._flow.data_of(product))) < 2:
            return
        gone = node.params["axes"]
        kept = [i for i in range(len(node.inputs[0].shape)) if i not in gone]
        for lookup in self._read(node.inputs[0], gone, kept):
            yield 0, lookup

    def _read(
        self, value: Value, inside: Iterable[int], outside: Iterable[int]
    ) -> Iterator[int]:
        """Lookups of which one axis is summed over, and another is kept."""
        kept = set(self._rows(value, outside))
        for row in self._rows(value, inside):
            if any(
                x.lookup == row.lookup and x.leaf == row.leaf and x.axis != row.axis
                for x in kept
            ):
                yield row.lookup

    def _rows(self, value: Value, axes: Iterable[int]) -> Iterator[_Row]:
        """Axes of rows that axes of a value come from."""
        for place, axis in reached([(value, i) for i in axes], self._before):
            node = place.node
            if node is not None and node.index in self._lookups:
                atoms = self._flow.fact(place).axes[axis]
                yield from (_Row(node.index, a.leaf, a.axis) for a in atoms)

    def _before(self, place: Place) -> list[Place]:
        """Where an axis comes from, through all but kernels and lookups."""
        value, axis = place
        node = value.node
        if node is None or node.index in self._lookups or node.op == "carry":
            return []
        if node.op not in CONTRACTIONS:
            found = axis_before(node, value, axis)
        elif any(map(self._flow.from_leaves, node.inputs[:2])):
            return []
        else:
            found = [
                (node.inputs[side], i)
                for side in (0, 1)
                for i, j in output_axes(node, side).items()
                if j == axis
            ]
        return [(v, i) for v, i in found if self._flow.data(v)]

    def _looked_up(self, value: Value) -> int | None:
        """The lookup whose rows a value is, moved and scaled by leaves at most."""
        while value.node is not None:
            node = value.node
            if is_lookup(self._flow, node):
                return node.index
            if node.op == "optimization_barrier":
                value = node.inputs[node.outputs.index(value)]
            elif node.op in _MOVED:
                value = node.inputs[0]
            elif node.op in ELEMENTWISE:
                found = self._flow.data_of(node)
                if len(found) != 1:
                    return self._of_one_index(found)
                (value,) = found
            else:
                return None
        return None

    def _of_one_index(self, values: Sequence[Value]) -> int | None:
        """The first of several lookups that have the same index."""
        found = [self._looked_up(value) for value in values]
        known = [lookup for lookup in found if lookup is not None]
        same = len(known) == len(values) > 0
        same &= all(self._same_index(known[0], other) for other in known[1:])
        return known[0] if same else None

    def _beside(self, kernels: set[int]) -> set[int]:
        """Lookups by the same index, of what only scales or shifts the products."""
        found: set[int] = set()
        for node in self._flow.graph.nodes:
            if node.op not in SUMS | {"mul"} or len(self._flow.data_of(node)) < 2:
                continue
            for value, other in (node.inputs, node.inputs[::-1]):
                lookup = self._looked_up(value)
                if lookup is None or lookup in kernels or not self._is_alone(value):
                    continue
                if self._is_of_product(other, lookup, kernels | found):
                    found.add(lookup)
        return found

    def _is_alone(self, value: Value) -> bool:
        """Whether nothing else takes rows than what their value is for."""
        while True:
            node = value.node
            if len(value.users) != 1 or value.is_output or node is None:
                return False
            if is_lookup(self._flow, node):
                return True
            (value, *_) = self._flow.data_of(node)

    def _is_of_product(self, value: Value, lookup: int, known: set[int]) -> bool:
        """Whether a value is, or comes of, kernels that the same index chose."""
        own = self._looked_up(value)
        if own in known and self._same_index(lookup, own):
            return True
        node = value.node
        while node is not None and node.index not in self._takers:
            data = [
                v for v in self._flow.data_of(node) if self._looked_up(v) not in known
            ]
            is_simple = node.op in COPIES | RELOCATIONS | SUMS | {"mul"}
            if not is_simple or len(data) != 1:
                return self._is_of_groups(node, lookup)
            node = data[0].node
        if node is None or self._takers[node.index] not in known:
            return False
        return self._same_index(lookup, self._takers[node.index])

    def _same_index(self, lookup: int, other: int) -> bool:
        return self._origins(lookup) == self._origins(other)

    def _is_of_groups(self, node: Node, lookup: int) -> bool:
        """Whether a node is a product of groups whose sizes go by the same index."""
        if node.op != "ragged_dot_general":
            return False
        sizes = {v.index for v in _integers(self._flow, [node.inputs[2]])}
        taken = self._flow.data_of(self._flow.graph.nodes[lookup])
        return any(v.index in sizes for v in _integers(self._flow, taken))

    def _origins(self, lookup: int) -> set[int]:
        """What an index was before it was wrapped and shaped for a lookup."""

        def before(value: Value) -> list[Value]:
            node = value.node
            simple = node is not None and node.op in _INDEXED
            return self._flow.data_of(node) if simple and node is not None else []

        index = self._flow.data_of(self._flow.graph.nodes[lookup])
        values = reached(index, before)
        return {value.index for value in values if not before(value)}


def _integers(flow: Flow, values: Iterable[Value]) -> Iterator[Value]:
    """The integers of activations and inputs that others are made of."""

    def before(value: Value) -> list[Value]:
        sources = value.node.sources() if value.node is not None else ()
        return [v for v in sources if flow.data(v) and not is_inexact(v)]

    return reached(values, before)


def _inside_and_outside(node: Node, side: int) -> tuple[Sequence[int], Sequence[int]]:
    """Axes of an operand that are summed over, and those that only it has."""
    if node.op == "conv_general_dilated":
        numbers = node.params["dimension_numbers"]  # the window is the second
        return numbers.rhs_spec[1:2], numbers.rhs_spec[:1]
    return contracted_axes(node, side), batch_and_free(node, side)[1]
