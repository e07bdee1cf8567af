"""Meetings turned into uses: what each leaf is for where it meets activations.

Take `gelu(layer_norm(x) * scale @ up)`. `scale` and `up` meet activations once each, in
`mul` and in `dot_general`, which gives drafts of a scale and of a kernel. What is
around them finishes the drafts: it is the scale of a normalization, and gelu follows
`up`.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace

from jaxinit._roles.meetings.batches import with_batches
from jaxinit._roles.meetings.cells import Cells
from jaxinit._roles.meetings.drafts import KERNELS, drafted
from jaxinit._roles.meetings.endings import Endings
from jaxinit._roles.meetings.kernel_uses import KernelUses
from jaxinit._roles.meetings.simple_uses import learned_use, statistic_use, unknown
from jaxinit._roles.patterns.attention import Attention
from jaxinit._roles.patterns.branches import closing, innermost_of
from jaxinit._roles.patterns.contractions import modulated, whole_windows
from jaxinit._roles.patterns.interpolations import interpolations
from jaxinit._roles.patterns.normalization import (
    folded_shifts,
    scales_normalized,
    scales_scaled,
)
from jaxinit._roles.patterns.regions import scaled
from jaxinit._roles.patterns.streams import branch_scales
from jaxinit._roles.patterns.structure import Structure, structure_of
from jaxinit._roles.patterns.sums import reaching_leaves, summed_products
from jaxinit._roles.reading.facts import Meeting
from jaxinit._roles.reading.flow import Flow
from jaxinit._roles.reading.graph import Loop, Node
from jaxinit._roles.reading.primitives import CONTRACTIONS, PRODUCTS, SUMS
from jaxinit._roles.reading.walks import nodes_behind
from jaxinit._roles.role import Use


def uses_of(
    flow: Flow, attentions: Sequence[Attention], names: Sequence[str]
) -> dict[int, list[Use]]:
    """The uses of all leaves of a graph.

    Args:
        flow: where every leaf goes.
        attentions: all attentions.
        names: the path of each leaf.

    Returns:
        For the number of each leaf that is used, its uses in the order of the
        computation.
    """
    structure = structure_of(flow, attentions, names)
    cells = _loops_of_cells(structure)
    if cells:
        structure = structure_of(flow, attentions, names, cells)
    drafts = [
        (meeting, _side_by_side(structure, meeting, draft))
        for meeting, draft in with_batches(structure, list(_drafts(structure)))
    ]
    finisher = _Finisher(structure, drafts)
    found: dict[int, list[Use]] = {
        leaf: [learned_use(flow.graph.leaves[leaf].shape)] for leaf in flow.tokens
    }
    for meeting, draft in _one_of_each_lookup(drafts):
        use = finisher.finished(meeting, draft)
        found.setdefault(meeting.leaf, []).append(use)
    for leaf in reaching_leaves(flow):
        found.setdefault(leaf, [unknown(_NO_INPUT)])
    return found


def _drafts(structure: Structure) -> Iterator[tuple[Meeting, Use]]:
    """The drafts of all meetings, but of repetitions and penalties."""
    means: set[tuple[int, int]] = set()
    repeated: set[tuple[int, int]] = set()
    for node, averages, inverse in folded_shifts(structure.flow):
        means |= {(node.index, leaf) for leaf in averages}
        repeated |= {(node.index, leaf) for leaf in inverse}
    repeated |= _penalties(structure.flow)
    for meeting in structure.flow.meetings:
        place = meeting.node.index, meeting.leaf
        if place in means:
            yield meeting, statistic_use(meeting, "a mean that is subtracted")
        elif place not in repeated:
            yield meeting, drafted(structure, meeting)


def _penalties(flow: Flow) -> set[tuple[int, int]]:
    """Nodes and leaves of whose entries one number is made, which a loss is added to.

    It says how a leaf is trained, as a decay of weights does, and not what it is for:
    it is no use of a leaf that has others.
    """
    found = {
        (meeting.node.index, meeting.leaf)
        for meeting in flow.meetings
        if meeting.node.op in SUMS
        and meeting.carried.opaque
        and meeting.weights.shape == () != meeting.shape
        and not any(node.op in CONTRACTIONS for node in nodes_behind(meeting.node))
    }
    others = {m.leaf for m in flow.meetings if (m.node.index, m.leaf) not in found}
    return {(node, leaf) for node, leaf in found if leaf in others}


def _side_by_side(structure: Structure, meeting: Meeting, use: Use) -> Use:
    """A use, with axes of batches in place of those of loops that hand nothing on."""
    apart = [i for i in use.stack_axis if (meeting.leaf, i) in structure.loops.batches]
    if not apart:
        return use
    return replace(
        use,
        batch_axis=tuple(sorted((*use.batch_axis, *apart))),
        stack_axis=tuple(i for i in use.stack_axis if i not in apart),
    )


def _loops_of_cells(structure: Structure) -> set[Loop]:
    """Loops that are over time, as whole recurrent cells are in them."""
    loops = structure.loops
    if all(loops.is_state(carry.output) for carry in loops.carries):
        return set()
    return Cells(structure.flow, loops, Endings(structure).owners).whole()


_NO_INPUT = (
    "it reaches the output and meets no input: is an input closed over, or given as a "
    "list in place of an array?"
)


def _one_of_each_lookup(
    drafts: Sequence[tuple[Meeting, Use]],
) -> Iterator[tuple[Meeting, Use]]:
    """The drafts, but one for all meetings of rows that were looked up once."""
    seen: set[tuple[int, int]] = set()
    for meeting, use in drafts:
        lookup = meeting.leaf, meeting.carried.lookup
        if meeting.carried.lookup < 0 or lookup not in seen:
            seen.add(lookup)
            yield meeting, use


class _Finisher:
    """What is around meetings, added to their drafts."""

    def __init__(self, structure: Structure, drafts: Sequence[tuple[Meeting, Use]]):
        flow = self._flow = structure.flow
        self._preceded = structure.preceded()
        self._gates = set(_branch_gates(structure))
        self._modulated = set(modulated(flow))
        self._mixed = interpolations(flow)
        self._contracted = _contracted(structure)
        self._windows = whole_windows(flow)
        self._summed = summed_products(flow)
        hidden = {
            meeting.node.index: f"behind `{_in_layer(structure.names[meeting.leaf])}`"
            for meeting, use in drafts
            if self._hides(meeting, use)
        }
        self._kernels = KernelUses(structure, drafts, self._preceded, hidden)
        self._branches = innermost_of(self._kernels.branches.values())
        self._closing = closing(self._branches, _scales(structure.flow))

    def finished(self, meeting: Meeting, use: Use) -> Use:
        """The use that a draft becomes."""
        hides = self._hides(meeting, use)
        if hides:
            return use if use.kind == "unknown" else unknown(hides)
        if use.kind in KERNELS:
            return self._in_branch(meeting, self._kernels.kernel(meeting, use))
        if use.kind == "bias" and use.of:
            return self._kernels.bias(meeting, use)
        if use.kind == "position":
            return self._kernels.position(meeting, use)
        if use.kind == "scale":
            return self._scale(meeting, use)
        return use

    def _hides(self, meeting: Meeting, use: Use) -> str:
        """Why nothing is known of a leaf, and so of what it meets; "" if much is."""
        if use.kind == "unknown":
            return use.reason
        if use.kind in KERNELS:
            is_window = meeting.node.index in self._windows
            return "what it gives is the window of a convolution" if is_window else ""
        if use.kind in ("bias", "position"):
            is_noisy = self._is_noisy(meeting)
            return "a kernel that activations are added to" if is_noisy else ""
        return self._hides_as_scale(meeting) if use.kind == "scale" else ""

    def _hides_as_scale(self, meeting: Meeting) -> str:
        if meeting.leaf in self._modulated:
            return "a kernel that activations modulate"
        if meeting.leaf in self._summed:
            return "its products with activations are summed, as of a kernel"
        return self._mixed.get(meeting.node.index, "")

    def _is_noisy(self, meeting: Meeting) -> bool:
        """Whether a leaf is a kernel, and activations are added to it.

        These are noise, an input, or a step of a gradient within the model.
        """
        if meeting.leaf in self._contracted:
            return True
        precedes = self._preceded[meeting.activations.index]
        return meeting.leaf in self._modulated and not precedes

    def _in_branch(self, meeting: Meeting, use: Use) -> Use:
        branch = self._branches.get(meeting.node.index)
        return replace(use, branch=branch and branch.place(meeting.node.index))

    def _scale(self, meeting: Meeting, use: Use) -> Use:
        if meeting.node.index in self._gates:
            factor = use.multiplier * scaled(self._flow, meeting.node.output)[1]
            reason = "scales a branch of a residual stream"
            return replace(use, kind="gate", multiplier=factor, reason=reason)
        if scales_normalized(self._flow, meeting.node):
            is_last = meeting.node.index in self._closing
            where = ", the last of a residual branch" if is_last else ""
            reason = f"the scale of a normalization{where}"
            return replace(use, closing=is_last, reason=reason)
        return use


def _in_layer(path: str) -> str:
    """A path without its layer, so that the layers of a plan have the same words."""
    return re.sub(r".*\d/", "", path)


def _contracted(structure: Structure) -> set[int]:
    """Leaves that are kernels somewhere."""
    meetings = structure.flow.meetings
    return {m.leaf for m in meetings if m.node.index in structure.kernels}


def _scales(flow: Flow) -> Iterator[Node]:
    """Products of leaves with what comes out of a normalization."""
    for meeting in flow.meetings:
        node = meeting.node
        if node.op in PRODUCTS and scales_normalized(flow, node):
            yield node


def _branch_gates(structure: Structure) -> Iterator[int]:
    """Products with leaves that scale a whole branch, and not a normalization first."""
    flow = structure.flow
    for addition in structure.residuals.additions.values():
        for node in branch_scales(flow, addition):
            if not scales_normalized(flow, node) or scales_scaled(flow, node):
                yield node.index
