"""The ends of all kernels, and whose ends a value is.

Take `silu(x @ w1) * (x @ w3)`. The end of `w1` is the value behind `silu`, the end of
`w3` its output itself; both are owned values, which the product takes.
"""

from collections.abc import Iterator, Sequence

from jaxinit._roles.patterns.attention import Attention
from jaxinit._roles.patterns.normalization import normalized_from
from jaxinit._roles.patterns.regions import End, follow, scaled
from jaxinit._roles.patterns.structure import Structure
from jaxinit._roles.patterns.weighed import unscaled
from jaxinit._roles.reading.graph import Node, Value
from jaxinit._roles.reading.primitives import ADDITIONS, CONTRACTIONS, COPIES, MOVES
from jaxinit._roles.reading.values import stripped
from jaxinit._roles.reading.walks import nodes_of, reached

Owned = tuple[Node, End]  # a kernel, and one of its ends


class Endings:
    """The ends of all kernels.

    Attributes:
        by_kernel: for the index of each kernel, its ends.
        factors: for the index of each kernel, the number that its output is
            multiplied by.
        owners: for the index of a value that is an end, of whom.
        normed: for the index of a kernel before a normalization, the ends behind it.
    """

    def __init__(self, structure: Structure):
        self._structure = structure
        self.by_kernel: dict[int, list[End]] = {}
        self.factors: dict[int, float] = {}
        self.owners: dict[int, list[Owned]] = {}
        self.normed: dict[int, list[End]] = {}
        for index in sorted(structure.kernels):
            node = structure.flow.graph.nodes[index]
            start, self.factors[index] = scaled(structure.flow, node.output)
            self.by_kernel[index] = self.behind(start)
            for end in self.by_kernel[index]:
                self.owners.setdefault(end.value.index, []).append((node, end))
            for value in self._normed(self.by_kernel[index]):
                self.normed.setdefault(index, []).extend(self.behind(value))
        for attention in structure.attentions:
            self._scale_queries(attention)

    def behind(self, start: Value) -> list[End]:
        """The ends of what follows a value."""
        return follow(self._structure.flow, start, self._structure.residuals.contains)

    def all(self) -> Iterator[Owned]:
        """Every kernel with each of its ends."""
        for index, ends in self.by_kernel.items():
            for end in ends:
                yield self._structure.flow.graph.nodes[index], end

    def _normed(self, ends: Sequence[End]) -> Iterator[Value]:
        """What comes out of normalizations that take ends."""
        flow = self._structure.flow
        for end in ends:
            found = [v for v in normalized_from(flow, end.value) if v is not end.value]
            if found:
                yield max(found, key=lambda value: value.index)

    def owners_behind_norms(self) -> dict[int, list[Owned]]:
        """As `owners`, with ends behind normalizations too."""
        owners = {index: list(found) for index, found in self.owners.items()}
        for index, ends in self.normed.items():
            for end in ends:
                node = self._structure.flow.graph.nodes[index]
                owners.setdefault(end.value.index, []).append((node, end))
        return owners

    def _scale_queries(self, attention: Attention) -> None:
        """Counts the number that queries are multiplied by after they were turned."""
        flow = self._structure.flow
        turned, factor = unscaled(flow, attention.query)
        if factor == 1:
            return
        others = (attention.key, attention.value)
        shared = set[int]().union(*map(self._structure.made_of, others))
        for index in _kernels_turned(self._structure, turned):
            node = flow.graph.nodes[index]
            counted = scaled(flow, node.output)[0].index > turned.index
            if not counted and node.output.index not in shared:
                self.factors[index] *= factor

    def owned(self, value: Value) -> Sequence[Owned]:
        """The ends that a value is, or is a copy of."""
        found = self.owners.get(value.index, ())
        return found or self.owners.get(stripped(value).index, ())


# What a rotary embedding does to queries, and to the angles.
_TURNING = COPIES | MOVES | ADDITIONS | {"sub", "neg", "mul"}
_ANGLES = frozenset({"sin", "cos"})


def _kernels_turned(structure: Structure, value: Value) -> list[int]:
    """Kernels whose outputs a value is, turned by angles at most; none if not sure."""

    def before(node: Node) -> list[Node]:
        followed = node.op in _TURNING - {"carry"}
        return nodes_of(structure.flow.data_of(node)) if followed else []

    nodes = list(reached(nodes_of([value]), before))
    known = _TURNING | _ANGLES | CONTRACTIONS
    if any(node.op not in known for node in nodes):
        return []
    return [node.index for node in nodes if node.index in structure.kernels]
