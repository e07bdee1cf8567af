"""Entries of one value in different places, which are independent of each other.

Take `h[:, :4] * gelu(h[:, 4:])`. Both factors have the law of `h`, but none of its
entries meets itself. Two slices from the same place are the same entries.
"""

from collections.abc import Hashable

from jaxinit._roles.reading.flow import Flow
from jaxinit._roles.reading.graph import Node
from jaxinit._roles.statistics.arrangements import Arrangements
from jaxinit._roles.statistics.spreads import Spread

# Parameters that say which entries are taken of a value.
_WHERE = (
    *("start_indices", "limit_indices", "strides", "sizes", "axis", "slice_sizes"),
    "dimension_numbers",
)


class Pieces:
    """The variables that parts of values are made of, by their numbers."""

    def __init__(self, flow: Flow, arranged: Arrangements, *kinds: set[int]):
        """Knows no pieces yet.

        Args:
            flow: what is known of the graph.
            arranged: which entries of the variables of values are where.
            kinds: numbers of variables of some kind, which their pieces are of too.
        """
        self._wholes: dict[int, int] = {}
        self._flow, self._arranged, self._kinds = flow, arranged, kinds
        self._roots: dict[Hashable, int] = {}

    def whole(self, root: int) -> int:
        """The variable that one is made of parts of; itself if it is none such."""
        return self._wholes.get(root, root)

    def of(self, node: Node, known: Spread, last: int) -> tuple[list[Spread], int]:
        """The spreads of the parts of a value that a node takes.

        Args:
            node: the node.
            known: the spread of the value.
            last: the largest number of a variable.

        Returns:
            A spread for each output, and the largest number then.
        """
        made = []
        for i in range(len(node.outputs)):
            place = self._place(known.root, node, i)
            root = self._roots.setdefault(place, last + 1)
            last = max(last, root)
            self._wholes[root] = self.whole(known.root)
            for kind in self._kinds:
                kind.update({root} if known.root in kind else ())
            made.append(Spread(root, known.expression, known.size, known.doubt))
        return made, last

    def _place(self, whole: int, node: Node, output: int) -> Hashable:
        """What two nodes share that take the same entries of a variable."""
        numbers = [(self._flow.number(v), v.index) for v in node.inputs[1:]]
        starts = tuple(i if number is None else number for number, i in numbers)
        where = tuple(str(node.params.get(name)) for name in _WHERE)
        axes = self._arranged.of(node.inputs[0])
        return whole, node.inputs[0].shape, axes, starts, where, output
