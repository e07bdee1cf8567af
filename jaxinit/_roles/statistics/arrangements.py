"""Which entries of one variable lie beside one another.

Take `h[:, :, None] + h[:, None]`, or `h + jnp.flip(h, 1)`. Both terms have the law of
`h`, but nearly everywhere they are different entries, which are independent. Every axis
has the name of the axis that its entries come from, so that the axes of the first term
are 0, nothing and 2, and those of the second nothing, 1 and 2. In `h + h` and in
`h * gelu(h.T).T` the names are the same.
"""

from collections.abc import Hashable, Sequence

from jaxinit._roles.reading.atoms import groups
from jaxinit._roles.reading.axes import axis_before
from jaxinit._roles.reading.graph import Loop, Node, Value

Axes = tuple[Hashable, ...]  # the name of each axis; None where entries are repeated


class Arrangements:
    """The axes of values, named by those of the values that they are moved from."""

    def __init__(self):
        self._axes: dict[int, Axes] = {}
        self._rounds: dict[tuple[Loop, bool], Hashable] = {}

    def of(self, value: Value) -> Axes:
        """The names of the axes of a value; their own numbers, if they have none."""
        return self._axes.get(value.index, tuple(range(len(value.shape))))

    def follow(self, node: Node, sources: Sequence[Value]) -> None:
        """Names the axes of what a node makes of one variable.

        Args:
            node: the node.
            sources: those of its inputs that are made of the variable; none if it is
                a new one.
        """
        if node.op == "each":
            self._rounds[_order(node)] = self.of(node.inputs[0])[0]
        for output in node.outputs:
            self._axes.pop(output.index, None)
            if not sources:
                continue
            if node.op == "reshape":
                self._axes[output.index] = self._reshaped(node)
                continue
            self._axes[output.index] = tuple(
                self._before(node, output, axis, sources)
                for axis in range(len(output.shape))
            )

    def are_apart(self, values: Sequence[Value]) -> bool:
        """Whether values of one shape have different entries in the same places."""
        found = {
            tuple(
                name if size > 1 else None
                for name, size in zip(self.of(value), value.shape, strict=True)
            )
            for value in values
            if value.shape
        }
        return len(found) > 1

    def _before(
        self, node: Node, output: Value, axis: int, sources: Sequence[Value]
    ) -> Hashable:
        """The name of an axis of what a node makes."""
        if node.op == "rev":
            name = self.of(node.inputs[0])[axis]
            return _turned(name) if axis in node.params["dimensions"] else name
        if node.op == "stacked" and axis == 0:
            return self._rounds.get(_order(node), (node.index, axis))
        places = [p for p in axis_before(node, output, axis) if p[0] in sources]
        names = [self.of(value)[i] for value, i in places]
        known = [name for name in names if name is not None]
        if known or names:
            return known[0] if known else None
        return None if node.op == "broadcast_in_dim" else (node.index, axis)

    def _reshaped(self, node: Node) -> Axes:
        """The names of axes that are cut, or put together, and maybe were before."""
        (value,), shape = node.inputs, node.output.shape
        names = self.of(value)
        made: list[Hashable] = [None] * len(shape)
        for old, new in groups(value.shape, shape):
            old = [i for i in old if value.shape[i] > 1]
            new = [i for i in new if shape[i] > 1]
            whole = _whole([(names[i], value.shape[i]) for i in old])
            for i, name in zip(
                new, _parts(whole, [shape[i] for i in new]), strict=True
            ):
                made[i] = name
        return tuple(made)


def _order(node: Node) -> tuple[Loop, bool]:
    """The loop whose rounds take or make rows, and whether it begins with the last."""
    return node.loops[-1], node.params["reverse"]


def _turned(name: Hashable) -> Hashable:
    """The name of an axis in reverse."""
    if isinstance(name, tuple) and name[0] == "reversed":
        return name[1]
    return None if name is None else ("reversed", name)


def _whole(axes: Sequence[tuple[Hashable, int]]) -> Hashable:
    """The name of axes that are put together, given their names and sizes."""
    names = [name for name, _ in axes]
    if len(names) == 1:
        return names[0]
    match names:
        case [("part", whole, sizes, 0), *_] if len(sizes) == len(names):
            if names == [("part", whole, sizes, k) for k in range(len(sizes))]:
                return whole
    return "whole", tuple(axes)


def _parts(whole: Hashable, sizes: Sequence[int]) -> Sequence[Hashable]:
    """The names of the parts that an axis is cut into."""
    if len(sizes) == 1:
        return [whole]
    match whole:
        case ("whole", axes) if [size for _, size in axes] == list(sizes):
            return [name for name, _ in axes]
    return [("part", whole, tuple(sizes), k) for k in range(len(sizes))]
