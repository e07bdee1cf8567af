"""Every leaf followed forward to where it meets activations.

A value that is computed from leaves alone carries them, with what was done to each on
its way: moved about (`atoms`), multiplied by a number, or more than that, and then it
is `opaque`. Where such a value meets one that is computed from inputs, the leaf is used.
Take

    z = x @ (0.5 * w).T + b

of w: f32[3,6], b: f32[3]. The values on the way of `w` have the atoms of its axes in
their order, the transposed one in reverse, both with multiplier 0.5. `dot_general` is a
use of `w`, contracted along its axis 1, and its output has the atoms of the axis 0 of `w`
on its last axis. `add` is a use of `b`, and its output has the atoms of both.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from jaxinit._roles import atoms
from jaxinit._roles.atoms import Atom, Axes
from jaxinit._roles.functions import FUNCTIONS
from jaxinit._roles.graph import Graph, Node, Value
from jaxinit._roles.primitives import (
    CONTRACTIONS,
    COPIES,
    ELEMENTWISE,
    LISTED,
    PRODUCTS,
    REDUCTIONS,
    SUMS,
)


ROOTS = ("`rsqrt`", "`sqrt`")  # what hides a running variance
PRODUCT = "a product of weights"
CONSTANT = "a product with a constant array"  # what hides a masked kernel


@dataclass(frozen=True, slots=True)
class Carried:
    """A leaf inside a value that is computed from leaves alone.

    Attributes:
        multiplier: the number that it was multiplied by.
        offset: the number that was added.
        stack: axes of the leaf of which a loop or an index took one place.
        looked_up: axes of the leaf that were looked up at fixed positions.
        lookup: number of the node that did so; -1 if none did.
        opaque: what else was done to it; "" if nothing.
    """

    multiplier: float = 1.0
    offset: float = 0.0
    stack: frozenset[int] = frozenset()
    looked_up: frozenset[int] = frozenset()
    lookup: int = -1
    opaque: str = ""


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
    carried: dict[int, Carried] = field(default_factory=dict)
    number: float | None = None


@dataclass(frozen=True, slots=True)
class Meeting:
    """Where a leaf meets activations, or an operation that hides it.

    Attributes:
        leaf: number of the leaf.
        node: where.
        position: which input of the node carries the leaf.
        carried: what was done to the leaf before.
        axes: atoms of the leaf on each axis of that input.
        fixed: atoms of the leaf whose axes are gone.
    """

    leaf: int
    node: Node
    position: int
    carried: Carried
    axes: Axes
    fixed: tuple[Atom, ...]


class Flow:
    """What is known of every value of a graph, and every meeting.

    Attributes:
        graph: the graph.
        is_data: for each value, whether it is computed from inputs.
        has_leaves: for each value, whether it is computed from leaves.
        facts: for each value, what is known.
        meetings: where leaves are used, in the order of the nodes.
        products: contractions of two values that are computed from leaves alone.
    """

    def __init__(self, graph: Graph, signals: Iterable[int] = ()):
        """Args:
        graph: the graph.
        signals: indices of values that are activations though no input is in them:
            learned tokens, and constants such as sinusoids of the position.
        """
        self.graph = graph
        self.signals = frozenset(signals)
        self.tokens = [x.leaf for x in graph.leaves if x.index in self.signals]
        self._find_dependencies()
        self.facts = [self._first(value) for value in graph.values]
        self.meetings: list[Meeting] = []
        self.products: list[Node] = []
        for node in graph.nodes:
            self._visit(node)

    def fact(self, value: Value) -> Fact:
        """What is known of a value."""
        return self.facts[value.index]

    def data(self, value: Value) -> bool:
        """Whether a value is computed from inputs."""
        return self.is_data[value.index]

    def from_leaves(self, value: Value) -> bool:
        """Whether a value is computed from leaves alone."""
        return self.has_leaves[value.index] and not self.is_data[value.index]

    def number(self, value: Value) -> float | None:
        """A value that is one known number."""
        return self.facts[value.index].number

    def _find_dependencies(self) -> None:
        graph = self.graph
        self.is_data = [False] * len(graph.values)
        self.has_leaves = [False] * len(graph.values)
        for value in graph.inputs:
            self.is_data[value.index] = True
        for value in graph.leaves:
            self.has_leaves[value.index] = value.index not in self.signals
        for index in self.signals:
            self.is_data[index] = True
        carries = [node for node in graph.nodes if node.op == "carry"]
        changed = True
        while changed:
            for node in graph.nodes:
                for known in (self.is_data, self.has_leaves):
                    if any(known[value.index] for value in node.sources()):
                        for value in node.outputs:
                            known[value.index] = True
            changed = any(
                known[node.back.index] > known[node.output.index]
                for node in carries
                for known in (self.is_data, self.has_leaves)
                if node.back is not None
            )

    def _first(self, value: Value) -> Fact:
        if value.leaf is not None and value.index not in self.signals:
            axes = atoms.whole(value.leaf, value.shape)
            return Fact(axes, (), {value.leaf: Carried()})
        number = None
        if value.constant is not None and np.size(value.constant) == 1:
            number = _number(value.constant)
        return Fact(_none(value), number=number)

    def _visit(self, node: Node) -> None:
        if node.op == "carry" and node.back is node.output:
            outputs = [self.fact(node.inputs[0])]
        elif any(map(self.data, node.sources())):
            outputs = self._meet(node)
        elif any(self.has_leaves[value.index] for value in node.sources()):
            outputs = self._carry(node)
        else:
            outputs = [
                Fact(_none(value), number=_folded(self, node)) for value in node.outputs
            ]
        for value, fact in zip(node.outputs, outputs, strict=True):
            self.facts[value.index] = fact

    def _meet(self, node: Node) -> Sequence[Fact]:
        """An equation on activations."""
        for position, value in enumerate(node.inputs):
            if self.from_leaves(value):
                self._record(node, position)
        if node.op in CONTRACTIONS:
            return [self._contracted(node)]
        if node.op in ELEMENTWISE:
            return [_merged(self, node)]
        return self._moved(node, {})

    def _record(self, node: Node, position: int) -> None:
        fact = self.fact(node.inputs[position])
        for leaf, carried in fact.carried.items():
            own = tuple(
                tuple(atom for atom in axis if atom.leaf == leaf) for axis in fact.axes
            )
            fixed = tuple(atom for atom in fact.fixed if atom.leaf == leaf)
            self.meetings.append(Meeting(leaf, node, position, carried, own, fixed))

    def _contracted(self, node: Node) -> Fact:
        kernels = [self.from_leaves(value) for value in node.inputs[:2]]
        axes: list[atoms.Axis] = [()] * len(node.output.shape)
        fixed: tuple[Atom, ...] = ()
        for side, kernel in enumerate(kernels):
            if kernel:
                fact = self.fact(node.inputs[side])
                for i, j in output_axes(node, side).items():
                    axes[j] = fact.axes[i]
                fixed += fact.fixed
        return Fact(tuple(axes), fixed)

    def _carry(self, node: Node) -> Sequence[Fact]:
        """An equation on leaves alone."""
        carried: dict[int, list[Carried]] = {}
        for value in node.inputs:
            for leaf, item in self.fact(value).carried.items():
                carried.setdefault(leaf, []).append(item)
        several = len(carried) > 1 or any(len(items) > 1 for items in carried.values())
        first = {leaf: items[0] for leaf, items in carried.items()}
        if node.op == "dot_general" and any(map(is_one_hot, node.inputs)):
            return [self._rows(node, first)]
        if node.op in CONTRACTIONS:
            self.products.append(node)
            hidden = {k: hide(c, PRODUCT) for k, c in first.items()}
            return [replace(self._contracted(node), carried=hidden)]
        if node.op in ELEMENTWISE:
            fact = _merged(self, node)
            change = self._change(node, several)
            return [replace(fact, carried={k: change(c) for k, c in first.items()})]
        if node.op == "carry":
            hidden = {k: hide(c, "a loop") for k, c in first.items()}
            return [Fact(_none(node.output), carried=hidden)]
        return self._moved(node, first)

    def _rows(self, node: Node, carried: dict[int, Carried]) -> Fact:
        """Rows of leaves chosen by a constant one-hot: those of fixed positions."""
        side = next(i for i, v in enumerate(node.inputs) if self.has_leaves[v.index])
        axes = self.fact(node.inputs[side]).axes
        taken = {(a.leaf, a.axis) for i in contracted_axes(node, side) for a in axes[i]}
        return replace(
            self._contracted(node), carried=_with_lookup(node, carried, taken)
        )

    def _change(self, node: Node, several: bool) -> Callable[[Carried], Carried]:
        """What an elementwise operation on leaves alone does to each of them."""
        numbers = [self.number(v) for v in node.inputs if not self.has_leaves[v.index]]
        number = numbers[0] if len(numbers) == 1 else None
        if node.op == "neg":
            return lambda c: replace(c, multiplier=-c.multiplier, offset=-c.offset)
        if node.op in SUMS and several:
            return lambda c: c
        if number is not None and node.op in SUMS:
            if node.op == "sub" and self.has_leaves[node.inputs[1].index]:
                return lambda c: replace(
                    c, multiplier=-c.multiplier, offset=number - c.offset
                )
            shift = -number if node.op == "sub" else number
            return lambda c: replace(c, offset=c.offset + shift)
        inverse = node.op == "div" and self.has_leaves[node.inputs[-1].index]
        if number is not None and node.op in PRODUCTS and not inverse:
            factor = 1 / number if node.op == "div" and number else number
            return lambda c: replace(
                c, multiplier=c.multiplier * factor, offset=c.offset * factor
            )
        if several and node.op in PRODUCTS:
            return self._product(node)
        if numbers and number is None and node.op in PRODUCTS and not inverse:
            return lambda c: hide(c, CONSTANT)
        return lambda c: hide(c, f"`{node.op}`")

    def _product(self, node: Node) -> Callable[[Carried], Carried]:
        """A product of leaves: one that divides by a deviation leaves the others be."""
        deviations = [
            leaf
            for value in node.inputs
            for leaf, item in self.fact(value).carried.items()
            if _is_deviation(item)
        ]
        found = [k for value in node.inputs for k in self.fact(value).carried]
        leaves = set(found)
        if len(leaves) < len(found):  # a leaf times a function of itself
            return lambda c: hide(c, "a product with another function of it")
        others = leaves - set(deviations)
        if len(others) == 1 and len(leaves) == len(deviations) + 1:
            return lambda c: c
        return lambda c: hide(c, "a product with another leaf")

    def _moved(self, node: Node, carried: dict[int, Carried]) -> Sequence[Fact]:
        """An equation that moves numbers, or one that hides what it takes."""
        rule = _MOVES.get(node.op) or (_copied if node.op in COPIES else None)
        if rule is not None:
            return rule(self, node, carried)
        if carried:
            name = f"`{node.op}`"
            if node.op not in LISTED:
                name = f"`{node.op}`, which is not followed"
            carried = {k: hide(c, name) for k, c in carried.items()}
        if node.op in REDUCTIONS and len(node.outputs) == 1:
            gone = {
                int(i)
                for i in node.params.get("axes", node.params.get("dimensions", ()))
            }
            axes = self.fact(node.inputs[0]).axes
            kept = tuple(a for i, a in enumerate(axes) if i not in gone)
            if len(kept) == len(node.output.shape):
                return [Fact(kept, (), carried)]
        return [Fact(_none(value), (), carried) for value in node.outputs]


def hide(carried: Carried, by: str) -> Carried:
    """The same leaf, hidden by an operation."""
    return replace(carried, opaque=carried.opaque or by)


def _is_deviation(carried: Carried) -> bool:
    """Whether a leaf is under a root, as a running variance is."""
    return carried.opaque in ROOTS


def _none(value: Value) -> Axes:
    return ((),) * len(value.shape)


def _number(constant: Any) -> float | None:
    try:
        return float(np.asarray(constant).reshape(()))
    except (TypeError, ValueError):
        return None


def _folded(flow: Flow, node: Node) -> float | None:
    """The number that an equation on known numbers gives."""
    output = node.output if len(node.outputs) == 1 else None
    if output is None or np.prod(output.shape) != 1:
        if output is None or node.op != "broadcast_in_dim":
            return None
    numbers = [flow.number(value) for value in node.inputs]
    if not numbers or any(number is None for number in numbers):
        return None
    if node.op in COPIES or node.op in ("broadcast_in_dim", "reshape", "squeeze"):
        return numbers[0]
    function = FUNCTIONS.get(node.op)
    if function is None:
        return None
    with np.errstate(all="ignore"):
        return float(function(node.params, *map(np.float64, numbers)))


def _merged(flow: Flow, node: Node) -> Fact:
    """The atoms of all inputs that lie in the same places of the output."""
    shape = node.output.shape
    inputs = [v for v in node.inputs if len(v.shape) == len(shape)]
    axes = tuple(
        atoms.merged(flow.fact(v).axes[i] for v in inputs if v.shape[i] == size)
        for i, size in enumerate(shape)
    )
    return Fact(axes, atoms.merged(flow.fact(v).fixed for v in inputs))


def output_axes(node: Node, side: int) -> dict[int, int]:
    """Axes of an operand of a contraction that its output has, and where."""
    if node.op == "conv_general_dilated":
        numbers = node.params["dimension_numbers"]
        spec = numbers.rhs_spec if side else numbers.lhs_spec
        return {spec[0]: numbers.out_spec[1 if side else 0]}
    batch, free = batch_and_free(node, side)
    if node.op == "ragged_dot_general":
        if side:
            last = len(node.output.shape) - len(free)
            return {i: last + k for k, i in enumerate(free)}
        return {i: k for k, i in enumerate((*batch, *free))}
    begin = len(batch)
    if side:
        begin += len(batch_and_free(node, 0)[1])
    return {
        **{i: k for k, i in enumerate(batch)},
        **{i: begin + k for k, i in enumerate(free)},
    }


def contracted_axes(node: Node, side: int) -> tuple[int, ...]:
    """Axes of an operand of `dot_general` that are summed over."""
    return tuple(map(int, _dot_numbers(node)[0][side]))


def batch_and_free(node: Node, side: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Batch axes of an operand of `dot_general`, and those that only it has."""
    contracted, batch = _dot_numbers(node)
    groups: tuple[int, ...] = ()
    if node.op == "ragged_dot_general" and side:
        ragged = node.params["ragged_dot_dimension_numbers"]
        groups = tuple(ragged.rhs_group_dimensions)
    taken = {*contracted[side], *batch[side], *groups}
    free = (i for i in range(len(node.inputs[side].shape)) if i not in taken)
    return (*map(int, batch[side]), *groups), tuple(free)


def looked_up_axes(node: Node) -> list[int]:
    """Axes of the operand of `gather` of which indices choose places."""
    shape, sizes = node.inputs[0].shape, node.params["slice_sizes"]
    places = map(int, node.params["dimension_numbers"].start_index_map)
    return [i for i in places if sizes[i] != shape[i]]


def _dot_numbers(node: Node):
    if node.op == "ragged_dot_general":
        return node.params["ragged_dot_dimension_numbers"].dot_dimension_numbers
    return node.params["dimension_numbers"]


def is_one_hot(value: Value) -> bool:
    """Whether a value says of each index whether it is that of another value."""
    while value.node is not None and value.node.op in (*COPIES, *_SAME):
        value = value.node.inputs[0]
    if value.node is None or value.node.op != "eq":
        return False
    return any(map(_is_count, value.node.inputs))


_SAME = ("broadcast_in_dim", "reshape", "transpose", "squeeze")


def _is_count(value: Value) -> bool:
    """Whether a value counts from 0 along an axis."""
    while value.node is not None and value.node.op in (*COPIES, *_SAME):
        value = value.node.inputs[0]
    if value.node is not None:
        return value.node.op == "iota"
    if value.constant is None or np.size(value.constant) < 2:
        return False
    found = np.asarray(value.constant).reshape(-1)
    return bool(np.array_equal(found, np.arange(found.size)))


# Rules for operations that move numbers: what their outputs carry, and where.


def _copied(flow: Flow, node: Node, carried) -> list[Fact]:
    # `condition` has the value first, `optimization_barrier` one output for each input
    pairs = zip(node.outputs, node.inputs, strict=False)
    facts = [flow.fact(value) for _, value in pairs]
    return [
        Fact(f.axes, f.fixed, carried and {k: carried[k] for k in f.carried})
        for f in facts
    ]


def _simple(axes: Callable[[Node, Fact], tuple[Axes, Sequence[Atom]]]):
    """A rule for one input, from a function to the axes and to atoms that go."""

    def rule(flow: Flow, node: Node, carried) -> list[Fact]:
        fact = flow.fact(node.inputs[0])
        moved, gone = axes(node, fact)
        return [Fact(moved, (*fact.fixed, *gone), carried)]

    return rule


def _transpose(node, fact):
    return tuple(fact.axes[i] for i in node.params["permutation"]), ()


def _reshape(node, fact):
    return atoms.reshaped(fact.axes, node.inputs[0].shape, node.output.shape)


def _squeeze(node, fact):
    rank = len(fact.axes)
    dimensions = {int(i) % rank for i in node.params["dimensions"]}
    kept = tuple(axis for i, axis in enumerate(fact.axes) if i not in dimensions)
    return kept, [a for i in dimensions for a in fact.axes[i] if a.size == 1]


def _broadcast(node, fact):
    axes: list[atoms.Axis] = [()] * len(node.output.shape)
    gone: list[Atom] = []
    for i, j in enumerate(node.params["broadcast_dimensions"]):
        if node.inputs[0].shape[i] == node.output.shape[j]:
            axes[j] = fact.axes[i]
        else:
            gone += [atom for atom in fact.axes[i] if atom.size == 1]
    return tuple(axes), gone


def _tile(node, fact):
    axes, gone = [], []
    sizes = zip(fact.axes, node.inputs[0].shape, node.params["reps"], strict=True)
    for axis, size, times in sizes:
        if times == 1:
            axes.append(axis)
        elif size == 1:
            axes.append(())
            gone += axis
        else:
            whole = (atom for atom in axis if atom.span == size)
            axes.append(tuple(replace(atom, span=size * times) for atom in whole))
    return tuple(axes), gone


def _rev(node, fact):
    # the order along an axis is turned, which no atom can say: its length is kept
    return fact.axes, ()


def _slice(node, fact):
    steps = node.params["strides"] or [1] * len(fact.axes)
    bounds = zip(
        node.params["start_indices"], node.params["limit_indices"], steps, strict=True
    )
    axes = tuple(
        axis
        if (start, stop, step) == (0, size, 1)
        else atoms.sliced(axis, start, stop, step)
        for axis, size, (start, stop, step) in zip(
            fact.axes, node.inputs[0].shape, bounds, strict=True
        )
    )
    return axes, ()


def _pad(node, fact):
    config = node.params["padding_config"]
    axes = (
        axis if (low, high, inner) == (0, 0, 0) else ()
        for axis, (low, high, inner) in zip(fact.axes, config, strict=True)
    )
    return tuple(axes), ()


def _split(flow: Flow, node: Node, carried) -> list[Fact]:
    fact, axis = flow.fact(node.inputs[0]), node.params["axis"]
    facts, start = [], 0
    for size in map(int, node.params["sizes"]):
        part = atoms.sliced(fact.axes[axis], start, start + size)
        axes = (*fact.axes[:axis], part, *fact.axes[axis + 1 :])
        facts.append(Fact(axes, fact.fixed, carried))
        start += size
    return facts


def _unstack(flow: Flow, node: Node, carried) -> list[Fact]:
    fact, axis = flow.fact(node.inputs[0]), node.params["axis"]
    facts = []
    for i in range(len(node.outputs)):
        gone = atoms.sliced(fact.axes[axis], i, i + 1)
        axes = (*fact.axes[:axis], *fact.axes[axis + 1 :])
        facts.append(Fact(axes, (*fact.fixed, *gone), carried))
    return facts


def _concatenate(flow: Flow, node: Node, carried) -> list[Fact]:
    along = node.params["dimension"]
    facts = [flow.fact(value) for value in node.inputs]
    axes, offset = [[] for _ in node.output.shape], 0
    for fact, value in zip(facts, node.inputs, strict=True):
        for i, axis in enumerate(fact.axes):
            axes[i].append(atoms.shifted(axis, offset) if i == along else axis)
        offset += value.shape[along]
    merged = tuple(atoms.merged(parts) for parts in axes)
    return [Fact(merged, atoms.merged(fact.fixed for fact in facts), carried)]


def _dynamic_slice(flow: Flow, node: Node, carried) -> list[Fact]:
    fact = flow.fact(node.inputs[0])
    axes, fixed, stack = [], list(fact.fixed), set()
    sizes = zip(fact.axes, node.inputs[0].shape, node.output.shape, strict=True)
    for i, (axis, before, after) in enumerate(sizes):
        start = flow.number(node.inputs[1 + i])
        if before == after:
            axes.append(axis)
        elif start is not None:
            first = int(min(max(start, 0), before - after))
            axes.append(atoms.sliced(axis, first, first + after))
        else:
            axes.append(())
            if after == 1:
                stack |= {(atom.leaf, atom.axis) for atom in axis}
    return [Fact(tuple(axes), tuple(fixed), _with_stack(carried, stack))]


def _with_stack(carried, stack):
    return {
        leaf: replace(
            item, stack=item.stack | {axis for of, axis in stack if of == leaf}
        )
        for leaf, item in carried.items()
    }


def _gather(flow: Flow, node: Node, carried) -> list[Fact]:
    """Rows at known places: those of a stack if it is one, else by position."""
    fact, numbers = flow.fact(node.inputs[0]), node.params["dimension_numbers"]
    gone = (*numbers.collapsed_slice_dims, *numbers.operand_batching_dims)
    axes: list[atoms.Axis] = [()] * len(node.output.shape)
    kept = [i for i in range(len(fact.axes)) if i not in gone]
    for i, j in zip(kept, numbers.offset_dims, strict=True):
        if node.params["slice_sizes"][i] == node.inputs[0].shape[i]:
            axes[j] = fact.axes[i]
    taken = {(a.leaf, a.axis) for i in looked_up_axes(node) for a in fact.axes[i]}
    single = np.prod(node.inputs[1].shape[:-1]) == 1
    if single:
        return [Fact(tuple(axes), fact.fixed, _with_stack(carried, taken))]
    return [Fact(tuple(axes), fact.fixed, _with_lookup(node, carried, taken))]


def _with_lookup(node, carried, taken):
    return {
        leaf: replace(
            item,
            looked_up=item.looked_up | {axis for of, axis in taken if of == leaf},
            lookup=node.index,
        )
        for leaf, item in carried.items()
    }


def _each(flow: Flow, node: Node, carried) -> list[Fact]:
    fact = flow.fact(node.inputs[0])
    stack = {(atom.leaf, atom.axis) for atom in fact.axes[0]}
    return [Fact(fact.axes[1:], fact.fixed, _with_stack(carried, stack))]


def _stacked(flow: Flow, node: Node, carried) -> list[Fact]:
    fact = flow.fact(node.inputs[0])
    return [Fact(((), *fact.axes), fact.fixed, carried)]


def _stack(flow: Flow, node: Node, carried) -> list[Fact]:
    axis = node.params["axis"]
    first = flow.fact(node.inputs[0])
    axes = [
        atoms.merged(flow.fact(value).axes[i] for value in node.inputs)
        for i in range(len(first.axes))
    ]
    fixed = atoms.merged(flow.fact(value).fixed for value in node.inputs)
    return [Fact((*axes[:axis], (), *axes[axis:]), fixed, carried)]


def _branches(flow: Flow, node: Node, carried) -> list[Fact]:
    return [replace(_merged(flow, node), carried=carried)]


def _scattered(flow: Flow, node: Node, carried) -> list[Fact]:
    numbers, updates = node.params["dimension_numbers"], flow.fact(node.inputs[2])
    gone = (*numbers.inserted_window_dims, *numbers.operand_batching_dims)
    kept = [i for i in range(len(node.output.shape)) if i not in gone]
    axes: list[atoms.Axis] = [()] * len(node.output.shape)
    for i, j in zip(kept, numbers.update_window_dims, strict=True):
        if node.output.shape[i] == node.inputs[2].shape[j]:
            axes[i] = updates.axes[j]
    hidden = {k: hide(c, f"`{node.op}`") for k, c in carried.items()}
    return [Fact(tuple(axes), updates.fixed, hidden)]


def _data_carry(flow: Flow, node: Node, carried) -> list[Fact]:
    return [Fact(_none(node.output))]


_MOVES: dict[str, Callable[[Flow, Node, dict[int, Carried]], list[Fact]]] = {
    "transpose": _simple(_transpose),
    "reshape": _simple(_reshape),
    "squeeze": _simple(_squeeze),
    "broadcast_in_dim": _simple(_broadcast),
    "tile": _simple(_tile),
    "rev": _simple(_rev),
    "slice": _simple(_slice),
    "pad": _simple(_pad),
    "split": _split,
    "unstack": _unstack,
    "concatenate": _concatenate,
    "dynamic_slice": _dynamic_slice,
    "gather": _gather,
    "each": _each,
    "stacked": _stacked,
    "stack": _stack,
    "branches": _branches,
    "carry": _data_carry,
    "scatter-add": _scattered,
    "scatter_add": _scattered,
}
