"""What is inside the branches of residual streams.

Take `x + norm(relu(norm(x @ a) * s) @ b) * t`. From the addition back to `x`, its
branch has the kernels `a` and `b`, numbers 0 and 1 of 2, and the scales `s` and `t`, of
which `t` is the one that closes it. Of branches within branches, the innermost counts.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from jaxinit._roles.graph import Node, Value
from jaxinit._roles.primitives import COPIES, PRODUCTS
from jaxinit._roles.residual import Addition, Residuals
from jaxinit._roles.walks import nodes_of, reached


@dataclass(frozen=True, eq=False)
class Branch:
    """One branch of a residual stream.

    Attributes:
        nodes: indices of its nodes, in order.
        kernels: those that are contractions of activations with leaves.
    """

    nodes: tuple[int, ...]
    kernels: tuple[int, ...]

    def place(self, index: int) -> tuple[int, int]:
        """The number of a kernel among those of the branch, and their total."""
        return self.kernels.index(index), len(self.kernels)


def branches_of(residuals: Residuals, kernels: set[int]) -> Mapping[int, Branch]:
    """For the index of a node, the innermost branch that it is in."""
    found = []
    for addition in residuals.additions.values():
        nodes = _nodes(residuals, addition)
        own = tuple(index for index in nodes if index in kernels)
        found.append(Branch(nodes, own))
    found.sort(key=lambda branch: len(branch.nodes))
    innermost: dict[int, Branch] = {}
    for branch in found:
        for index in branch.nodes:
            innermost.setdefault(index, branch)
    return innermost


def closing(branches: Mapping[int, Branch], scales: Iterable[Node]) -> set[int]:
    """Indices of the last scales of normalizations in branches, behind a kernel.

    Args:
        branches: for the index of a node, its branch.
        scales: products with the scales of normalizations.
    """
    last: dict[Branch, tuple[int, int]] = {}
    for node in scales:
        for place in filter(branches.__contains__, _places(node)):
            branch = branches[place]
            if branch.kernels and place > branch.kernels[0]:
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


def _nodes(residuals: Residuals, addition: Addition) -> tuple[int, ...]:
    """What is computed from the root of an addition, and makes its branch."""

    def before(value: Value) -> list[Value]:
        if value.node is None or value is addition.root:
            return []
        return [v for v in value.node.inputs if residuals.is_behind(addition.root, v)]

    values = reached([addition.branch], before)
    nodes = nodes_of(value for value in values if value is not addition.root)
    return tuple(sorted({node.index for node in nodes}))
