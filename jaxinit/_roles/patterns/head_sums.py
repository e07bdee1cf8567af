"""Contractions whose outputs are summed at once: the heads of one that is written out.

Take `einsum("hbd,hdm->hbm", x, w).sum(0)` of w: f32[3,4,8]. `w` is a kernel of its own
for each of three heads, but their outputs are summed, so that 12 products are in one
output: in (0, 1), fan_in 12. The same holds for `sum(x[h] @ w[h] for h in range(3))`.
A mean over an ensemble is no such sum: each of its members is to have a variance of
one. Nor are layers with a bias each. Networks that are summed, with a function between
their kernels, remain batches; but they share the variance of the sum.
"""

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from jaxinit._roles.patterns.extents import is_mean, size_for_one
from jaxinit._roles.patterns.regions import scaled
from jaxinit._roles.patterns.sums import end_of_sum, only_taker
from jaxinit._roles.reading.axes import batch_and_free
from jaxinit._roles.reading.facts import Meeting
from jaxinit._roles.reading.flow import Flow
from jaxinit._roles.reading.graph import Value
from jaxinit._roles.reading.primitives import (
    ADDITIONS,
    COPIES,
    ELEMENTWISE,
    PRODUCTS,
    RELOCATIONS,
)
from jaxinit._roles.reading.values import maker
from jaxinit._roles.reading.walks import ancestor
from jaxinit._roles.role import Use

_SUMMED = ADDITIONS | COPIES | RELOCATIONS


@dataclass(frozen=True)
class HeadSum:
    """A sum right behind contractions with one leaf.

    Attributes:
        axes: axes of the leaf that are summed over by it.
        terms: their size.
        nodes: number of the contractions.
        is_one: whether they are one kernel, whose fan_in has them all.
    """

    axes: tuple[int, ...]
    terms: int
    nodes: int
    is_one: bool

    def added_to(self, use: Use) -> Use:
        """A use with the axes of a sum among its inputs, if it is one kernel."""
        if not self.is_one:
            return use

        def others(axes: tuple[int, ...]) -> tuple[int, ...]:
            return tuple(axis for axis in axes if axis not in self.axes)

        return replace(
            use,
            in_axis=tuple(sorted({*use.in_axis, *self.axes})),
            out_axis=others(use.out_axis),
            batch_axis=others(use.batch_axis),
            stack_axis=others(use.stack_axis),
            fan_in=use.fan_in * self.terms,
        )


def head_sums(flow: Flow) -> Mapping[int, HeadSum]:
    """By the index of a contraction with one leaf, the sum that follows it at once."""
    meetings: dict[int, list[Meeting]] = {}
    for meeting in flow.meetings:
        if meeting.node.op == "dot_general":
            meetings.setdefault(meeting.node.index, []).append(meeting)
    alone = [found[0] for found in meetings.values() if len(found) == 1]
    sums = {m.node.index: x for m in alone if (x := _over_axes(flow, m))}
    slices = dict(_over_slices(flow, alone))
    rounds = {m.node.index: x for m in alone if (x := _over_rounds(flow, m))}
    return {**sums, **slices, **rounds}


def _over_axes(flow: Flow, meeting: Meeting) -> HeadSum | None:
    """A sum over an axis of the output that is one of the leaf."""
    value, factor = scaled(flow, meeting.node.output)
    taker = only_taker(value)
    if _has_bias(flow, meeting.node.output):
        return None
    if taker is None or taker.op != "reduce_sum":
        return None
    count = size_for_one(taker)
    is_scaled = math.isclose(factor * count, 1, rel_tol=1e-5)
    if is_scaled or is_mean(flow, taker.output, count):
        return None
    atoms = flow.fact(value).axes
    summed = {
        atom.axis
        for axis in taker.params["axes"]
        for atom in atoms[axis]
        if atom.leaf == meeting.leaf and atom.size == meeting.shape[atom.axis] > 1
    }
    batch, free = batch_and_free(meeting.node, meeting.position)
    features = set(meeting.leaf_axes(free)) - set(meeting.leaf_axes(batch))
    if features and features <= summed:  # no features are left: a sum of outputs
        return None
    axes = tuple(sorted(summed))
    terms = math.prod(meeting.shape[axis] for axis in axes)
    is_one = not _is_behind_function(flow, meeting.activations)
    return HeadSum(axes, terms, 1, is_one) if axes else None


def _is_behind_function(flow: Flow, value: Value) -> bool:
    """Whether a function that is not linear gives a value, behind moves at most."""
    node = maker(value)
    while node is not None and node.op in PRODUCTS and flow.numbers_of(node):
        node = maker(flow.data_of(node)[0])
    return node is not None and node.op in ELEMENTWISE


def _has_bias(flow: Flow, value: Value) -> bool:
    """Whether a leaf is the next that is added to a value."""
    node = only_taker(value)
    while node is not None and node.op in COPIES | RELOCATIONS | PRODUCTS:
        node = only_taker(node.outputs[0])
    return node is not None and any(map(flow.from_leaves, node.inputs))


def _over_slices(flow: Flow, meetings: list[Meeting]) -> Iterator[tuple[int, HeadSum]]:
    """Sums of contractions with all slices of one leaf."""
    groups: dict[tuple[int, Value], list[Meeting]] = {}
    uses = Counter((meeting.leaf, meeting.fixed) for meeting in meetings)
    for meeting in meetings:
        if meeting.stack_axes and not meeting.node.loops:
            end = end_of_sum(meeting.node.output, _SUMMED)
            groups.setdefault((meeting.leaf, end), []).append(meeting)
    for (_, end), group in groups.items():
        axes = group[0].stack_axes
        terms = math.prod(group[0].shape[axis] for axis in axes)
        slices = {meeting.fixed for meeting in group}
        is_whole = len(slices) == len(group) == terms > 1
        is_whole &= all(uses[meeting.leaf, meeting.fixed] == 1 for meeting in group)
        if is_whole and not is_mean(flow, end, terms):
            for meeting in group:
                yield meeting.node.index, HeadSum(axes, terms, terms, True)


def _over_rounds(flow: Flow, meeting: Meeting) -> HeadSum | None:
    """A sum over the rounds of a loop that each take a slice, and nothing before."""
    end = end_of_sum(meeting.node.output, _SUMMED)
    axes, node = meeting.stack_axes, end.node
    if not axes or node is None or node.op not in ADDITIONS:
        return None
    makers = [value.node for value in node.inputs]
    carry = next((x for x in makers if x and x.op == "carry" and x.back is end), None)
    if carry is None or carry.loops != meeting.node.loops:
        return None
    terms = math.prod(meeting.shape[axis] for axis in axes)
    own = flow.graph.nodes[: meeting.node.index]
    handed = [x.output for x in own if x.op == "carry" and x.loops == carry.loops]
    if not terms or carry.loops[-1].length != terms or is_mean(flow, end, terms):
        return None
    if any(ancestor(value, meeting.activations) for value in handed):
        return None
    return HeadSum(axes, terms, 1, True)
