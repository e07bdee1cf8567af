"""How many kernels are on the way from one value to another.

Take `x + f(x)` with one kernel in `f`: the depth from `x` to `f(x)` is 1, so this is a
residual addition. For every value, one set of bits says from which of some roots it is
reached at all, another through one kernel or more, a third through two or more; one
walk over the graph finds all of them. Integers lead nowhere: they only choose places.
"""

from collections.abc import Iterable

from jaxinit._roles.reading.graph import Graph, Value
from jaxinit._roles.reading.walks import is_inexact

MOST = 2


class Depths:
    """The depths of all values behind some roots, back edges left out."""

    def __init__(self, graph: Graph, kernels: set[int], roots: Iterable[Value]):
        """Finds them.

        Args:
            graph: the graph.
            kernels: indices of the nodes that count.
            roots: values that `at_least` may be asked about.
        """
        self._bits: dict[int, int] = {}
        for root in roots:
            self._bits.setdefault(root.index, 1 << len(self._bits))
        own = [self._bits.get(value.index, 0) for value in graph.values]
        self._levels = [own, *([0] * len(own) for _ in range(MOST))]
        for node in graph.nodes:
            found = [self._gathered(level, node.inputs) for level in self._levels]
            if node.index in kernels:
                found = [found[0], *found[:-1]]
            for value in node.outputs:
                for level, bits in zip(self._levels, found, strict=True):
                    level[value.index] |= bits

    def _gathered(self, level: list[int], inputs: Iterable[Value]) -> int:
        found = 0
        for value in inputs:
            if value.index in self._bits or is_inexact(value):
                found |= level[value.index]
        return found

    def at_least(self, depth: int, root: Value, value: Value) -> bool:
        """Whether a path from a root to a value has so many kernels, 0 to 2."""
        own = self._bits.get(root.index, 0)
        return bool(self._levels[depth][value.index] & own)
