"""The ends of all kernels, and whose ends a value is.

Take `silu(x @ w1) * (x @ w3)`. The end of `w1` is the value behind `silu`, the end of
`w3` its output itself; both are owned values, which the product takes.
"""

from collections.abc import Iterator, Sequence

from jaxinit._roles.graph import Node, Value
from jaxinit._roles.regions import End, follow, scaled
from jaxinit._roles.structure import Structure
from jaxinit._roles.values import stripped

Owned = tuple[Node, End]  # a kernel, and one of its ends


class Endings:
    """The ends of all kernels.

    Attributes:
        by_kernel: for the index of each kernel, its ends.
        factors: for the index of each kernel, the number that its output is
            multiplied by.
        owners: for the index of a value that is an end, of whom.
    """

    def __init__(self, structure: Structure):
        self._structure = structure
        self.by_kernel: dict[int, list[End]] = {}
        self.factors: dict[int, float] = {}
        self.owners: dict[int, list[Owned]] = {}
        for index in sorted(structure.kernels):
            node = structure.flow.graph.nodes[index]
            start, self.factors[index] = scaled(structure.flow, node.output)
            self.by_kernel[index] = self.behind(start)
            for end in self.by_kernel[index]:
                self.owners.setdefault(end.value.index, []).append((node, end))

    def behind(self, start: Value) -> list[End]:
        """The ends of what follows a value."""
        return follow(self._structure.flow, start, self._structure.residuals.contains)

    def all(self) -> Iterator[Owned]:
        """Every kernel with each of its ends."""
        for index, ends in self.by_kernel.items():
            for end in ends:
                yield self._structure.flow.graph.nodes[index], end

    def owned(self, value: Value) -> Sequence[Owned]:
        """The ends that a value is, or is a copy of."""
        found = self.owners.get(value.index, ())
        return found or self.owners.get(stripped(value).index, ())
