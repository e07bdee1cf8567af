"""What is inside the branches of residual streams.

Take `x + norm(relu(norm(x @ a) * s) @ b) * t`. From the addition back to `x`, its
branch has the kernels `a` and `b`, numbers 0 and 1 of 2, and the scales `s` and `t`, of
which `t` is the one that closes it: it is behind a kernel, and all that is added leads
through it, so that zeros there make the branch zero. The scale of a normalized key is
no such one. Of branches within branches, the innermost counts.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from jaxinit._roles.patterns.residual import Residuals
from jaxinit._roles.patterns.streams import Addition
from jaxinit._roles.reading.graph import Node, Value
from jaxinit._roles.reading.primitives import COPIES, PRODUCTS
from jaxinit._roles.reading.walks import reached

_ROOT = -1


@dataclass(frozen=True, eq=False)
class Branch:
    """One branch of a residual stream.

    Attributes:
        addition: where it ends.
        before: for the index of each of its nodes, in order, those of the nodes that it
            takes values of; `_ROOT` stands for the root.
        kernels: those that are contractions of activations with leaves.
        end: the node whose output is added.
    """

    addition: Addition
    before: Mapping[int, Collection[int]]
    kernels: tuple[int, ...]
    end: int

    def place(self, index: int) -> tuple[int, int]:
        """The number of a kernel among those of the branch, and their total."""
        return self.kernels.index(index), len(self.kernels)

    def closes(self, index: int) -> bool:
        """Whether a node is behind a kernel, and every way through the branch in it."""
        behind = reached([index], self._inside)
        around = reached([self.end], lambda i: () if i == index else self.before[i])
        return any(i in self.kernels for i in behind) and _ROOT not in around

    def _inside(self, index: int) -> Iterable[int]:
        return (i for i in self.before[index] if i != _ROOT)


def branches_of(residuals: Residuals, kernels: set[int]) -> dict[int, Branch]:
    """For the index of each residual addition, its branch."""
    found = {}
    for index, addition in residuals.additions.items():
        before = _before(residuals, addition)
        own = tuple(i for i in before if i in kernels)
        assert addition.branch.node is not None
        found[index] = Branch(addition, before, own, addition.branch.node.index)
    return found


def innermost_of(branches: Iterable[Branch]) -> dict[int, Branch]:
    """For the index of a node, the innermost branch that it is in."""
    innermost: dict[int, Branch] = {}
    for branch in sorted(branches, key=lambda branch: len(branch.before)):
        for index in branch.before:
            innermost.setdefault(index, branch)
    return innermost


def closing(branches: Mapping[int, Branch], scales: Iterable[Node]) -> set[int]:
    """Indices of the last scales of normalizations that close branches.

    Args:
        branches: for the index of a node, its branch.
        scales: products with the scales of normalizations.
    """
    last: dict[Branch, tuple[int, int]] = {}
    for node in scales:
        for place in filter(branches.__contains__, _places(node)):
            branch = branches[place]
            if branch.closes(place):
                last[branch] = max(last.get(branch, (-1, -1)), (place, node.index))
    return {index for _, index in last.values()}


def _places(node: Node) -> list[int]:
    """Where a scale multiplies activations.

    If it is multiplied by a running deviation first, these are the products with that.
    """

    def after(value: Value) -> list[Value]:
        return [v for user in value.users if user.op in COPIES for v in user.outputs]

    values = reached(node.outputs, after)
    users = (user for value in values for user in value.users)
    return [node.index, *(user.index for user in users if user.op in PRODUCTS)]


def _before(residuals: Residuals, addition: Addition) -> dict[int, set[int]]:
    """What is computed from the root of an addition, and makes its branch."""

    def before(value: Value) -> list[Value]:
        if value.node is None or value is addition.root:
            return []
        return [v for v in value.node.inputs if residuals.is_behind(addition.root, v)]

    found: dict[int, set[int]] = {}
    for value in reached([addition.branch], before):
        if value.node is None or value is addition.root:
            continue
        taken = found.setdefault(value.node.index, set())
        for each in before(value):
            node = None if each is addition.root else each.node
            taken.add(_ROOT if node is None else node.index)
    return dict(sorted(found.items()))
