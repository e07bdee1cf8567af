"""Rules for operations that move numbers: what is on which axis of their outputs.

Take `transpose(w, (1, 0))`. Its fact has the axes of the fact of `w` in the other
order, and carries the same leaf. Of `w[:, 2]`, traced as a slice and a squeeze, the
axes are the first of `w` alone, and index 2 of the other is `fixed`.
"""

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

from jaxinit._roles.reading import atoms
from jaxinit._roles.reading.atoms import Atom, Axes, Axis
from jaxinit._roles.reading.axes import (
    gathered_axes,
    looked_up_axes,
    scattered_axes,
    unreduced_axes,
    unsqueezed_axes,
)
from jaxinit._roles.reading.facts import (
    Fact,
    LeafAxes,
    Leaves,
    hidden,
    overlaid,
    unplaced,
    with_lookup,
    with_stack,
)
from jaxinit._roles.reading.graph import Node
from jaxinit._roles.reading.primitives import COPIES, LISTED, REDUCTIONS, SCATTERS
from jaxinit._roles.reading.values import behind

# Reductions of one number give that number.
_OF_ALL = ("reduce_sum", "reduce_max", "reduce_min", "reduce_prod")

# From a node, the facts of its inputs and the leaves it carries, its outputs' facts.
Rule = Callable[[Node, Sequence[Fact], Leaves], list[Fact]]
# From a node and the fact of its first input, the output's axes, and atoms that go.
Relocation = Callable[[Node, Fact], tuple[Axes, Sequence[Atom]]]


def moved(node: Node, facts: Sequence[Fact], carried: Leaves) -> list[Fact]:
    """The facts of the outputs of an operation that moves numbers, or hides them.

    Args:
        node: the operation.
        facts: those of its inputs.
        carried: the leaves in its inputs, if all are computed from leaves alone.
    """
    if node.op in RULES:
        return RULES[node.op](node, facts, carried)
    if node.op in _OF_ALL and math.prod(node.inputs[0].shape) == math.prod(
        node.output.shape
    ):
        return _relocation(_reduced)(node, facts, carried)
    by = f"`{node.op}`" if node.op in LISTED else f"`{node.op}`, which is not followed"
    carried = hidden(carried, by)
    if node.op in REDUCTIONS and len(node.outputs) == 1:
        axes = tuple(facts[0].axes[i] for i in unreduced_axes(node))
        if len(axes) == len(node.output.shape):
            return [Fact(axes, (), carried)]
    return [Fact(unplaced(value), (), carried) for value in node.outputs]


def _copy(node: Node, facts: Sequence[Fact], carried: Leaves) -> list[Fact]:
    # `condition` has the value first, `optimization_barrier` one output for each input
    pairs = zip(node.outputs, facts, strict=False)
    return [
        Fact(f.axes, f.fixed, carried and {k: carried[k] for k in f.carried})
        for _, f in pairs
    ]


# Operations that only move all numbers of their input.


def _relocation(place: Relocation) -> Rule:
    def rule(node: Node, facts: Sequence[Fact], carried: Leaves) -> list[Fact]:
        axes, gone = place(node, facts[0])
        return [Fact(axes, (*facts[0].fixed, *gone), carried)]

    return rule


def _transpose(node: Node, fact: Fact) -> tuple[Axes, Sequence[Atom]]:
    return tuple(fact.axes[i] for i in node.params["permutation"]), ()


def _reshape(node: Node, fact: Fact) -> tuple[Axes, Sequence[Atom]]:
    return atoms.reshaped(fact.axes, node.inputs[0].shape, node.output.shape)


def _squeeze(node: Node, fact: Fact) -> tuple[Axes, Sequence[Atom]]:
    return _kept(fact, unsqueezed_axes(node))


def _reduced(node: Node, fact: Fact) -> tuple[Axes, Sequence[Atom]]:
    """Of a reduction over axes of size one, which are gone as in `squeeze`."""
    return _kept(fact, unreduced_axes(node))


def _kept(fact: Fact, kept: Collection[int]) -> tuple[Axes, Sequence[Atom]]:
    """Some axes of a value, and the atoms of the others that stay at one index."""
    gone = [axis for i, axis in enumerate(fact.axes) if i not in kept]
    fixed = [atom for axis in gone for atom in axis if atom.size == 1]
    return tuple(fact.axes[i] for i in kept), fixed


def _broadcast(node: Node, fact: Fact) -> tuple[Axes, Sequence[Atom]]:
    axes: list[Axis] = [()] * len(node.output.shape)
    gone: list[Atom] = []
    for i, j in enumerate(node.params["broadcast_dimensions"]):
        if node.inputs[0].shape[i] == node.output.shape[j]:
            axes[j] = fact.axes[i]
        else:
            gone += [atom for atom in fact.axes[i] if atom.size == 1]
    return tuple(axes), gone


def _tile(node: Node, fact: Fact) -> tuple[Axes, Sequence[Atom]]:
    axes: list[Axis] = []
    gone: list[Atom] = []
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


def _rev(node: Node, fact: Fact) -> tuple[Axes, Sequence[Atom]]:
    # the order along an axis is turned, which no atom can say: its length is kept
    return fact.axes, ()


def _slice(node: Node, fact: Fact) -> tuple[Axes, Sequence[Atom]]:
    starts, stops = node.params["start_indices"], node.params["limit_indices"]
    steps = node.params["strides"] or [1] * len(fact.axes)
    sizes = node.inputs[0].shape
    bounds = zip(fact.axes, sizes, zip(starts, stops, steps, strict=True), strict=True)
    axes = (
        axis if bound == (0, size, 1) else atoms.sliced(axis, *bound)
        for axis, size, bound in bounds
    )
    return tuple(axes), ()


def _pad(node: Node, fact: Fact) -> tuple[Axes, Sequence[Atom]]:
    padding = zip(fact.axes, node.params["padding_config"], strict=True)
    return tuple(axis if tuple(by) == (0, 0, 0) else () for axis, by in padding), ()


# Operations that take parts, or put parts together.


def _split(node: Node, facts: Sequence[Fact], carried: Leaves) -> list[Fact]:
    axes, along = facts[0].axes, node.params["axis"]
    found, start = [], 0
    for size in map(int, node.params["sizes"]):
        part = atoms.sliced(axes[along], start, start + size)
        parted = (*axes[:along], part, *axes[along + 1 :])
        found.append(Fact(parted, facts[0].fixed, carried))
        start += size
    return found


def _unstack(node: Node, facts: Sequence[Fact], carried: Leaves) -> list[Fact]:
    axes, along = facts[0].axes, node.params["axis"]
    kept = (*axes[:along], *axes[along + 1 :])
    gone = (atoms.sliced(axes[along], i, i + 1) for i in range(len(node.outputs)))
    return [Fact(kept, (*facts[0].fixed, *fixed), carried) for fixed in gone]


def _concatenate(node: Node, facts: Sequence[Fact], carried: Leaves) -> list[Fact]:
    along = node.params["dimension"]
    axes: list[list[Axis]] = [[] for _ in node.output.shape]
    offset = 0
    for fact, value in zip(facts, node.inputs, strict=True):
        for i, axis in enumerate(fact.axes):
            axes[i].append(atoms.shifted(axis, offset) if i == along else axis)
        offset += value.shape[along]
    merged = tuple(atoms.merged(parts) for parts in axes)
    return [Fact(merged, atoms.merged(fact.fixed for fact in facts), carried)]


def _stack(node: Node, facts: Sequence[Fact], carried: Leaves) -> list[Fact]:
    along = node.params["axis"]
    columns = zip(*(fact.axes for fact in facts), strict=True)
    axes = [atoms.merged(parts) for parts in columns]
    fixed = atoms.merged(fact.fixed for fact in facts)
    return [Fact((*axes[:along], (), *axes[along:]), fixed, carried)]


def _dynamic_slice(node: Node, facts: Sequence[Fact], carried: Leaves) -> list[Fact]:
    fact, *starts = facts
    axes = list(fact.axes)
    stack: set[tuple[int, int]] = set()
    for i in looked_up_axes(node):
        before, after = node.inputs[0].shape[i], node.output.shape[i]
        start = starts[i].number
        if start is not None:
            first = int(min(max(start, 0), before - after))
            axes[i] = atoms.sliced(fact.axes[i], first, first + after)
        else:
            axes[i] = ()
            if after == 1:
                stack |= {(atom.leaf, atom.axis) for atom in fact.axes[i]}
    return [Fact(tuple(axes), fact.fixed, with_stack(carried, stack))]


def _gather(node: Node, facts: Sequence[Fact], carried: Leaves) -> list[Fact]:
    """Rows at known places: those of a stack if it is one, else by position."""
    fact, shape = facts[0], node.inputs[0].shape
    axes: list[Axis] = [()] * len(node.output.shape)
    for i, j in gathered_axes(node).items():
        if node.params["slice_sizes"][i] == shape[i]:
            axes[j] = fact.axes[i]
    taken = {(a.leaf, a.axis) for i in looked_up_axes(node) for a in fact.axes[i]}
    if math.prod(node.inputs[1].shape[:-1]) == 1:
        return [Fact(tuple(axes), fact.fixed, with_stack(carried, taken))]
    return [Fact(tuple(axes), fact.fixed, with_lookup(carried, taken, node))]


def _scatter(node: Node, facts: Sequence[Fact], carried: Leaves) -> list[Fact]:
    """What is added, at its places in the output."""
    updates = facts[2]
    axes: list[Axis] = [()] * len(node.output.shape)
    for i, j in scattered_axes(node).items():
        if node.output.shape[i] == node.inputs[2].shape[j]:
            axes[i] = updates.axes[j]
    return [Fact(tuple(axes), updates.fixed, hidden(carried, f"`{node.op}`"))]


# Loops and branches.


def _each(node: Node, facts: Sequence[Fact], carried: Leaves) -> list[Fact]:
    first, *axes = facts[0].axes
    stack = {(atom.leaf, atom.axis) for atom in first} | _rows(node, carried)
    return [Fact(tuple(axes), facts[0].fixed, with_stack(carried, stack))]


def _rows(node: Node, carried: Leaves) -> LeafAxes:
    """Axes of leaves whose rows, in another order, a loop takes one by one."""
    source = behind(node.inputs[0], COPIES).node
    if source is None or source.op != "gather":
        return set()
    if 0 in source.params["dimension_numbers"].offset_dims:
        return set()
    pairs = carried.items()
    own = ((leaf, item) for leaf, item in pairs if item.lookup == source.index)
    return {(leaf, axis) for leaf, item in own for axis in item.looked_up}


def _stacked(node: Node, facts: Sequence[Fact], carried: Leaves) -> list[Fact]:
    return [Fact(((), *facts[0].axes), facts[0].fixed, carried)]


def _branches(node: Node, facts: Sequence[Fact], carried: Leaves) -> list[Fact]:
    return [replace(overlaid(node, facts), carried=carried)]


def _carry(node: Node, facts: Sequence[Fact], carried: Leaves) -> list[Fact]:
    return [Fact(unplaced(node.output), (), hidden(carried, "a loop"))]


RULES: dict[str, Rule] = {
    **dict.fromkeys(COPIES, _copy),
    "transpose": _relocation(_transpose),
    "reshape": _relocation(_reshape),
    "squeeze": _relocation(_squeeze),
    "broadcast_in_dim": _relocation(_broadcast),
    "tile": _relocation(_tile),
    "rev": _relocation(_rev),
    "slice": _relocation(_slice),
    "pad": _relocation(_pad),
    "split": _split,
    "unstack": _unstack,
    "concatenate": _concatenate,
    "stack": _stack,
    "dynamic_slice": _dynamic_slice,
    "gather": _gather,
    "each": _each,
    "stacked": _stacked,
    "branches": _branches,
    "carry": _carry,
    **dict.fromkeys(SCATTERS, _scatter),
}
