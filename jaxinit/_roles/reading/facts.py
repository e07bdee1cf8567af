"""What is known of a value: the leaves in it, where they are, what was done to them.

Take `0.5 * w.T` of w: f32[3,6], leaf 7. Its fact has the atoms of axis 1 of `w` on its
first axis and those of axis 0 on its second, and carries leaf 7 with multiplier 0.5.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from jaxinit._roles.reading import atoms
from jaxinit._roles.reading.atoms import Atom, Axes
from jaxinit._roles.reading.graph import Node, Value

ROOTS = ("`rsqrt`", "`sqrt`")  # what hides a running variance
PRODUCT = "a product of weights"
CONSTANT = "a product with a constant array"  # what hides a masked kernel


@dataclass(frozen=True, slots=True)
class Carried:
    """A leaf inside a value that is computed from leaves alone.

    Attributes:
        multiplier: the number that it was multiplied by.
        offset: the number that was added.
        terms: number of leaves, or parts of leaves, in the sum that it is a term of.
        stack: axes of the leaf of which a loop or an index took one place.
        looked_up: axes of the leaf that were looked up at fixed positions.
        lookup: number of the node that did so; -1 if none did.
        chosen: axes of the leaf of which activations or inputs chose places.
        opaque: what else was done to it; "" if nothing.
    """

    multiplier: float = 1.0
    offset: float = 0.0
    terms: int = 1
    stack: frozenset[int] = frozenset()
    looked_up: frozenset[int] = frozenset()
    lookup: int = -1
    chosen: frozenset[int] = frozenset()
    opaque: str = ""

    @property
    def is_deviation(self) -> bool:
        """Whether it is under a root, as a running variance is."""
        return self.opaque in ROOTS

    def hidden(self, by: str) -> "Carried":
        """The same leaf, behind an operation that hides it.

        What a masked leaf is behind hides it more than the mask does.
        """
        is_open = self.opaque in ("", CONSTANT)
        return replace(self, opaque=by if is_open else self.opaque)


Leaves = dict[int, Carried]  # by the number of the leaf


@dataclass(slots=True)
class Fact:
    """What is known of a value.

    Attributes:
        axes: the atoms on each of its axes.
        fixed: atoms of axes that are gone, at one index.
        carried: the leaves in it, if it is computed from leaves alone.
        number: its value, if it is one known number.
    """

    axes: Axes
    fixed: tuple[Atom, ...] = ()
    carried: Leaves = field(default_factory=dict)
    number: float | None = None

    def atoms_of(self, leaf: int) -> list[Atom]:
        """The atoms of one leaf, on whatever axis, or fixed."""
        return [a for axis in (*self.axes, self.fixed) for a in axis if a.leaf == leaf]


@dataclass(frozen=True, slots=True)
class Meeting:
    """Where a leaf meets activations, or an operation that hides it.

    Attributes:
        leaf: number of the leaf.
        shape: its shape.
        node: where.
        position: which input of the node carries the leaf.
        carried: what was done to the leaf before.
        axes: atoms of the leaf on each axis of that input.
        fixed: atoms of the leaf whose axes are gone.
    """

    leaf: int
    shape: tuple[int, ...]
    node: Node
    position: int
    carried: Carried
    axes: Axes
    fixed: tuple[Atom, ...]

    @property
    def weights(self) -> Value:
        """The input that carries the leaf."""
        return self.node.inputs[self.position]

    @property
    def activations(self) -> Value:
        """The other of the first two inputs."""
        return self.node.inputs[1 - self.position]

    def leaf_axes(self, places: Iterable[int]) -> tuple[int, ...]:
        """Axes of the leaf that lie on these axes of the input."""
        return tuple(sorted({a.axis for i in places for a in self.axes[i]}))

    def places(self, leaf_axis: int) -> list[int]:
        """Axes of the input that an axis of the leaf lies on."""
        found = (any(a.axis == leaf_axis for a in axis) for axis in self.axes)
        return [i for i, lies in enumerate(found) if lies]

    @property
    def wide_axes(self) -> tuple[int, ...]:
        """Axes of the leaf that vary where it is used."""
        axes = self.leaf_axes(range(len(self.axes)))
        return tuple(axis for axis in axes if self.shape[axis] > 1)

    @property
    def chosen_axes(self) -> tuple[int, ...]:
        """Axes of the leaf of which activations or inputs chose places."""
        return tuple(sorted(self.carried.chosen))

    @property
    def stack_axes(self) -> tuple[int, ...]:
        """Axes of the leaf of which one place was taken."""
        standing = {atom.axis for axis in self.axes for atom in axis}
        fixed = {a.axis for a in self.fixed if self.shape[a.axis] > 1} - standing
        return tuple(sorted(self.carried.stack | fixed))


def hidden(carried: Leaves, by: str) -> Leaves:
    """The same leaves, behind an operation that hides them."""
    return {leaf: item.hidden(by) for leaf, item in carried.items()}


def unplaced(value: Value) -> Axes:
    """The axes of a value on which nothing is known to be."""
    return ((),) * len(value.shape)


def overlaid(node: Node, facts: Sequence[Fact]) -> Fact:
    """The atoms of all inputs that lie in the same places of the output."""
    shape = node.output.shape
    pairs = [
        (value.shape, fact)
        for value, fact in zip(node.inputs, facts, strict=True)
        if len(value.shape) == len(shape)
    ]
    axes = tuple(
        atoms.merged(fact.axes[i] for own, fact in pairs if own[i] == size)
        for i, size in enumerate(shape)
    )
    return Fact(axes, atoms.merged(fact.fixed for _, fact in pairs))


@dataclass(frozen=True, slots=True)
class Choices:
    """Lookups that give no embeddings, by the index of their nodes.

    Attributes:
        kernels: those of kernels, and of what belongs to them.
        unknown: those that may be of kernels, and why that is not known.
    """

    kernels: frozenset[int] = frozenset()
    unknown: Mapping[int, str] = field(default_factory=dict)


LeafAxes = set[tuple[int, int]]  # number of a leaf, and one of its axes


def with_stack(carried: Leaves, taken: LeafAxes) -> Leaves:
    """The same leaves, after one place of some of their axes was taken."""
    return {
        leaf: replace(item, stack=item.stack | {i for of, i in taken if of == leaf})
        for leaf, item in carried.items()
    }


def with_choice(carried: Leaves, taken: LeafAxes) -> Leaves:
    """The same leaves, after activations chose places of some of their axes."""
    return {
        leaf: replace(item, chosen=item.chosen | {i for of, i in taken if of == leaf})
        for leaf, item in carried.items()
    }


def with_lookup(carried: Leaves, taken: LeafAxes, node: Node) -> Leaves:
    """The same leaves, after fixed positions of some of their axes were looked up."""
    return {
        leaf: replace(
            item,
            looked_up=item.looked_up | {i for of, i in taken if of == leaf},
            lookup=node.index,
        )
        for leaf, item in carried.items()
    }
