"""What a kernel or its bias is for, by what is before and behind it, and why.

Take `gelu(x @ up + b) @ down`, added to `x`. A draft of `up` has axes and fans; here it
gets that gelu follows, and `b` gets the same parts as `up`. `down` writes to the
residual stream as number 0 of 1. Without that stream it would be the head, as no
contraction follows.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from jaxinit._roles.meetings.drafts import KERNELS
from jaxinit._roles.meetings.endings import Endings
from jaxinit._roles.meetings.parts import find_parts, steering
from jaxinit._roles.meetings.sections import Division, beside, divided, input_sections
from jaxinit._roles.meetings.writes import Writes, Written
from jaxinit._roles.patterns.branches import branches_of
from jaxinit._roles.patterns.contractions import terms
from jaxinit._roles.patterns.regions import End, scaled
from jaxinit._roles.patterns.structure import Structure
from jaxinit._roles.reading.facts import Meeting
from jaxinit._roles.reading.graph import Node
from jaxinit._roles.role import Use
from jaxinit._roles.statistics.moments import Moments

_SEVERAL = "several residual streams, with a place in the last of them"
_LESS = 0.99  # as small as a number is that is no rounding of constants
_OF_POSITIONS = 1 / 4  # their variance, over that of what they are added to


class KernelUses:
    """The uses of kernels and biases of a graph.

    Attributes:
        branches: for the index of each residual addition, its branch.
    """

    def __init__(
        self,
        structure: Structure,
        drafts: Iterable[tuple[Meeting, Use]],
        preceded: Sequence[bool],
        unknown: Mapping[int, str],
    ):
        """Finds what is around kernels and biases.

        Args:
            structure: what is found in the graph.
            drafts: what each meeting is by itself.
            preceded: for each value, whether a contraction or a lookup precedes.
            unknown: for the index of a node, what it takes that is not known.
        """
        self._structure = structure
        self._endings = Endings(structure)
        self._parts = find_parts(structure, self._endings)
        self._followed = structure.followed()
        excluded = steering(self._endings, self._parts)
        streams = structure.residuals.streams(excluded)
        self.branches = branches_of(structure.residuals, structure.kernels)
        kernels = ((m, use) for m, use in drafts if use.kind in KERNELS)
        stacks = {(m.node.index, m.leaf): use.stack_axis for m, use in kernels}
        attended = self._of_attention()
        self._writes = Writes(structure, self.branches, streams, attended, stacks)
        self._places = self._writes.places()
        self._preceded = preceded
        self._moments = Moments(
            structure,
            self._writes.held(),
            self._factors(),
            dict(self._meant()),
            self._inner(),
            unknown,
        )

    def kernel(self, meeting: Meeting, draft: Use) -> Use:
        """The use of a kernel or a window."""
        node, loops = meeting.node, self._structure.loops
        ends = self._own_ends(meeting, self._endings.by_kernel[node.index])
        division = self._divided(meeting, ends)
        division = self._behind_norm(meeting, division)
        recurrent = loops.is_recurrent(node, meeting.activations, meeting.weights)
        written = self._writes.of(meeting)
        residual = self._place(node, written)
        followed = self._followed[node.output.index]
        inputs = input_sections(loops, meeting) if recurrent else ()
        critical = self._moments.critical
        use = replace(
            draft,
            multiplier=draft.multiplier * self._endings.factors[node.index],
            entering=self._moments.entering[node.index],
            variance=self._variance(node, draft, division),
            centered=node.index in critical and critical[node.index].centered,
            function=division.function.name if division.function else None,
            gain=division.function.gain if division.function else None,
            residual=residual,
            stream=written.stream,
            order=written.order,
            layers=written.layers,
            depth=written.depth,
            memory=written.memory,
            recurrent=recurrent,
            first=not self._preceded[meeting.activations.index],
            head=not (residual or recurrent or followed),
            part=division.part,
            sections=(*inputs, *division.sections),
            doubt=self._moments.doubts.get(node.index, ""),
        )
        return replace(use, reason=", ".join(self._reasons(meeting, use, ends)))

    def _place(self, node: Node, written: Written) -> tuple[int, int | None] | None:
        """The number of the first write of a leaf, and the total of its stream."""
        place = self._places.get(node.index)
        known = [number for number in written.order if number is not None]
        return (min(known), place[1]) if place and known else place

    def _of_attention(self) -> set[int]:
        """Contractions that take what an attention gives."""
        return {
            index
            for index, ends in self._endings.by_kernel.items()
            if any(self._parts.get(end) == "attention output" for end in ends)
        }

    def _variance(self, node: Node, draft: Use, division: Division) -> float:
        """The variance of the entries; the first of a plain net does not amplify rows.

        Adam moves the small rows of an embedding far, and a kernel that makes up for
        their size moves what comes out of it farther.
        """
        variance = self._moments.variance(node, draft)
        is_plain = not (division.part or division.sections or node.loops)
        if node.index in self._moments.of_rows and is_plain:
            return variance * min(1.0, self._moments.entering[node.index])
        return variance

    def _factors(self) -> dict[int, float]:
        """Numbers that multiply outputs before a function or a residual addition.

        Others, such as the one of a query, are left as they are meant, and so are those
        below one, which make a branch or the argument of a cap small. The root of a
        kernel's own fan_in, that its output is divided by, is counted.
        """
        rooted = set(self._rooted())
        return {
            index: factor
            for index, factor in self._endings.factors.items()
            if index in rooted
            or (abs(factor) > 1 and (index in self._places or self._is_followed(index)))
        }

    def _rooted(self) -> Iterator[int]:
        """Kernels, but of queries, whose outputs are divided by the root of fan_in."""
        for meeting in self._structure.flow.meetings:
            index = meeting.node.index
            factor = self._endings.factors.get(index, 1.0)
            if abs(factor) >= 1:
                continue
            parts = (self._parts.get(end, "") for end in self._endings.by_kernel[index])
            is_root = math.isclose(factor**2 * terms(meeting), 1, rel_tol=1e-4)
            if is_root and not any("query" in part for part in parts):
                yield index

    def _meant(self) -> Iterator[tuple[int, float]]:
        """Numbers below one behind the function before a writer to a stream.

        They make the branch small, as those behind the kernel do. The root of its
        fan_in does not.
        """
        for meeting in self._structure.flow.meetings:
            index = meeting.node.index
            if index not in self._places:
                continue
            owned = self._endings.owned(meeting.activations)
            found = {end.function.multiple for _, end in owned if end.function}
            number = found.pop() if len(found) == 1 else 1.0
            is_root = math.isclose(number**2 * terms(meeting), 1, rel_tol=1e-4)
            if number < _LESS and not is_root:
                yield index, number

    def _inner(self) -> set[int]:
        """Contractions that a function follows, and then another contraction."""
        return {
            meeting.node.index
            for meeting in self._structure.flow.meetings
            if meeting.node.index in self._endings.by_kernel
            and meeting.node.index not in self._places
            and self._followed[meeting.node.output.index]
            and self._is_followed(meeting.node.index)
        }

    def _is_followed(self, index: int) -> bool:
        """Whether a function that is not linear follows a contraction."""
        known = [
            (end.value.index, end.function)
            for end in self._endings.by_kernel[index]
            if end.function is not None and not end.hidden
        ]
        if not known:
            return False
        _, first = min(known, key=lambda pair: pair[0])
        return not first.is_linear

    def position(self, meeting: Meeting, draft: Use) -> Use:
        """The use of a position: a quarter of what it is added to."""
        beside = self._moments.added.get(meeting.node.index, 1.0)
        factor = draft.multiplier**2 or 1.0
        doubt = self._moments.doubts.get(meeting.node.index, "")
        use = replace(draft, variance=_OF_POSITIONS * beside / factor, doubt=doubt)
        if not doubt:
            return use
        why = f"what it is added to is not known ({doubt}), taken as variance one"
        return replace(use, reason=f"{use.reason}, {why}")

    def bias(self, meeting: Meeting, draft: Use) -> Use:
        """The use of a bias: it has the parts of the kernel, and no functions."""
        division = self._divided(meeting, self._ends_of_bias(meeting))
        sections = division.sections
        if division.part is None and len({section.part for section in sections}) < 2:
            sections = ()
        plain = (replace(section, function=None, gain=None) for section in sections)
        behind = self._structure.kernels_behind(meeting.activations)
        variance = self._moments.of_bias(behind, draft.multiplier)
        parts = {"part": division.part, "sections": tuple(plain)}
        return replace(draft, variance=variance, **parts)

    def _ends_of_bias(self, meeting: Meeting) -> Sequence[End]:
        """The ends of the kernels that a bias is behind, those after it if any are."""
        start = scaled(self._structure.flow, meeting.node.output)[0]
        nodes = self._structure.kernels_behind(meeting.activations)
        kernels = [node.index for node in nodes]
        after = [
            end
            for found in self._endings.behind(start)
            for node, end in self._endings.owners.get(found.value.index, ())
            if node.index in kernels
        ]
        nearest = [end for index in kernels for end in self._endings.by_kernel[index]]
        return self._own_ends(meeting, after or nearest)

    def _behind_norm(self, meeting: Meeting, division: Division) -> Division:
        """The same, with gates of a cell that come out of a normalization."""
        ends = self._endings.normed.get(meeting.node.index, [])
        if not any(end in self._parts for end in ends):
            return division
        behind, own = self._divided(meeting, self._own_ends(meeting, ends)), division
        if not (behind.part or behind.sections):
            return division
        name = own.function.name if own.function else None
        gain = own.function.gain if own.function else None
        sections = (replace(s, function=name, gain=gain) for s in behind.sections)
        return Division(behind.part, own.function, tuple(sections))

    def _divided(self, meeting: Meeting, ends: Sequence[End]) -> Division:
        return divided(self._structure.flow, meeting, ends, self._parts)

    def _own_ends(self, meeting: Meeting, ends: Sequence[End]) -> Sequence[End]:
        """The ends of the part of an output that one of several kernels makes."""
        fact = self._structure.flow.fact
        own = [end for end in ends if fact(end.root).atoms_of(meeting.leaf)]
        return own or beside(self._structure.flow, meeting, ends)

    def _reasons(
        self, meeting: Meeting, use: Use, ends: Sequence[End]
    ) -> Iterator[str]:
        """Why a kernel is what it is."""
        yield f"contracted with activations in `{meeting.node.op}`"
        if meeting.carried.terms > 1:
            yield f"as one of {meeting.carried.terms} terms of a sum of weights"
        yield from _of_parts(use)
        if use.recurrent:
            yield "its own ancestor through a loop"
        elif self._structure.loops.is_shared(
            meeting.node, meeting.activations, meeting.weights
        ):
            yield "shared over the depth of a loop"
        if use.residual:
            several = meeting.node.index in self._writes.to_several
            yield f"added to {_SEVERAL if several else 'a residual stream'}"
        if use.function and use.function != "identity":
            yield f"followed by {use.function}"
        hidden = {end.hidden for end in ends if end.hidden}
        if hidden:
            yield f"what follows is behind `{', '.join(sorted(hidden))}`"
        if use.head:
            yield "no contraction follows"
        if use.doubt:
            yield f"what enters is not known ({use.doubt}), taken as variance one"


def _of_parts(use: Use) -> Iterator[str]:
    if use.part == "attention output":
        yield "it takes what an attention gives"
    elif use.part:
        yield f"its output is the {use.part}"
    elif use.sections:
        names = dict.fromkeys(s.part or s.function or "other" for s in use.sections)
        yield f"with parts for {', '.join(names)}"
