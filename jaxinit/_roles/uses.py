"""Meetings turned into uses: what each leaf is for where it meets activations."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from jaxinit._roles import atoms
from jaxinit._roles.attention import Attention
from jaxinit._roles.axes import (
    axis_before,
    batch_and_free,
    contracted_axes,
    looked_up_axes,
    output_axes,
)
from jaxinit._roles.cells import Cells
from jaxinit._roles.contractions import convolution_use, dot_use, kernel_nodes
from jaxinit._roles.facts import CONSTANT, PRODUCT, ROOTS, Meeting
from jaxinit._roles.flow import Flow
from jaxinit._roles.graph import Node, Value
from jaxinit._roles.loops import Loops
from jaxinit._roles.primitives import (
    CONTRACTIONS,
    COPIES,
    ELEMENTWISE,
    LISTED,
    PRODUCTS,
    REDUCTIONS,
    SCATTERS,
    SUMS,
)
from jaxinit._roles.regions import End, follow, scaled
from jaxinit._roles.residual import Residuals, branch_scales
from jaxinit._roles.role import Section, Use
from jaxinit._roles.values import is_mask, is_one_hot, stripped
from jaxinit._roles.walks import ancestor


def axes_of(meeting, places):
    return meeting.leaf_axes(places)


def stack_axes(meeting, shape):
    return meeting.stack_axes


def unknown(reason: str) -> Use:
    """A use of which nothing is said."""
    return Use("unknown", reason=reason)


class Uses:
    """The uses of all leaves of a graph, by leaf.

    Attributes:
        by_leaf: for the number of each leaf, its uses in the order of the computation.
    """

    def __init__(
        self, flow: Flow, attentions: Sequence[Attention], names: Sequence[str]
    ):
        self._flow, self._names = flow, names
        self._attentions = attentions
        self._kernels = kernel_nodes(flow)
        self._loops = Loops(flow, self._kernels)
        values = {a.output.index: a.value for a in attentions}
        self._residuals = Residuals(flow, self._kernels, values, self._loops)
        self._members = list(self._find_members())
        self._drafts: list[tuple[Meeting, Use]] = [
            (meeting, self._drafted(meeting)) for meeting in flow.meetings
        ]
        self._find_batches()
        self._ends: dict[int, list[End]] = {}
        self._starts: dict[int, tuple[Value, float]] = {}
        for node in flow.graph.nodes:
            if node.index in self._kernels:
                start = scaled(flow, node.output)
                self._starts[node.index] = start
                self._ends[node.index] = follow(
                    flow, start[0], self._residuals.contains
                )
        self._parts = self._find_parts()
        self._followed = self._find_followed()
        self._places = self._residuals.number(self._steering())
        self._gates = self._branch_gates()
        self.by_leaf: dict[int, list[Use]] = {}
        looked_up: set[tuple[int, int]] = set()
        for meeting, use in self._drafts:
            uses = self.by_leaf.setdefault(meeting.leaf, [])
            lookup = meeting.leaf, meeting.carried.lookup
            if meeting.carried.lookup < 0 or lookup not in looked_up:
                uses.append(self._finished(meeting, use))
                looked_up.add(lookup)
        for leaf in sorted(flow.tokens):
            self.by_leaf.setdefault(leaf, []).insert(0, self._token(leaf))

    def _token(self, leaf: int) -> Use:
        shape = self._flow.graph.leaves[leaf].shape
        wide = [i for i, size in enumerate(shape) if size > 1]
        return Use(
            "embedding",
            in_axis=tuple(wide[:-1]),
            out_axis=tuple(wide[-1:]),
            fan_in=1,
            fan_out=shape[wide[-1]] if wide else 1,
            part="token",
            reason="a learned array that enters as activations do",
        )

    # What a meeting is by itself.

    def _drafted(self, meeting: Meeting) -> Use:
        node, carried = meeting.node, meeting.carried
        shape = self._flow.graph.leaves[meeting.leaf].shape
        if node.op not in LISTED:
            return unknown(f"behind `{node.op}`, which is not followed")
        if carried.opaque and self._is_statistic(meeting):
            use = self._elementwise(meeting, "statistic", "its root divides")
            return replace(use, multiplier=1.0, offset=0.0)
        if carried.opaque == CONSTANT and node.op == "mul":
            return self._multiplied(meeting)
        if carried.opaque:
            return unknown(f"what meets the activations is behind {carried.opaque}")
        if node.op == "conv_general_dilated":
            if meeting.position != 1 or node.params["batch_group_count"] != 1:
                return unknown("it is what a convolution moves over, not its window")
            return convolution_use(meeting)
        if node.op in CONTRACTIONS:
            return self._contracted(meeting, shape)
        if node.op in ("gather", "dynamic_slice") and meeting.position == 0:
            return self._looked_up(meeting, shape)
        if node.op in ("concatenate", "scatter", "dynamic_update_slice", "select_n"):
            if node.op == "select_n" and meeting.position == 0:
                return unknown("it decides between values")
            return self._as_token(meeting, "token", "put among the activations")
        if node.op == "carry":
            return self._as_token(meeting, "initial state", "what a loop begins with")
        if node.op in SUMS:
            return self._added(meeting)
        if node.op == "mul" or (node.op == "div" and meeting.position == 1):
            return self._multiplied(meeting)
        return unknown(f"it meets activations in `{node.op}`")

    def _other(self, meeting: Meeting) -> Value:
        """The activations that a leaf meets in an operation of two inputs."""
        inputs = meeting.node.inputs
        return inputs[1 - meeting.position] if len(inputs) == 2 else inputs[0]

    def _contracted(self, meeting: Meeting, shape) -> Use:
        use = dot_use(meeting)
        if is_one_hot(self._other_operand(meeting)):
            return replace(
                use,
                kind="embedding",
                fan_in=1,
                reason="contracted with a one-hot of inputs",
            )
        return use

    def _other_operand(self, meeting: Meeting) -> Value:
        return meeting.node.inputs[1 - meeting.position]

    def _looked_up(self, meeting: Meeting, shape) -> Use:
        node = meeting.node
        places = self._looked_up_places(node)
        inside = axes_of(meeting, places)
        others = axes_of(meeting, set(range(len(meeting.axes))) - set(places))
        outside = tuple(axis for axis in others if axis not in inside)
        return Use(
            "embedding",
            in_axis=inside,
            out_axis=outside,
            stack_axis=stack_axes(meeting, shape),
            fan_in=1,
            fan_out=int(np.prod([shape[i] for i in outside])),
            multiplier=meeting.carried.multiplier * scaled(self._flow, node.output)[1],
            reason="looked up by inputs",
        )

    def _looked_up_places(self, node: Node) -> list[int]:
        if node.op == "gather":
            return looked_up_axes(node)
        sizes = zip(node.inputs[0].shape, node.output.shape, strict=True)
        return [i for i, (before, after) in enumerate(sizes) if before != after]

    def _as_token(self, meeting: Meeting, part: str, reason: str) -> Use:
        shape = self._flow.graph.leaves[meeting.leaf].shape
        wide = [a for a in self._wide(meeting) if shape[a] > 1]
        return Use(
            "embedding",
            in_axis=tuple(wide[:-1]),
            out_axis=tuple(wide[-1:]),
            stack_axis=stack_axes(meeting, shape),
            fan_in=1,
            fan_out=shape[wide[-1]] if wide else 1,
            part=part,
            reason=reason,
        )

    def _wide(self, meeting: Meeting) -> tuple[int, ...]:
        """Axes of the leaf that vary where it is added or multiplied."""
        shape = self._flow.graph.leaves[meeting.leaf].shape
        places = axes_of(meeting, range(len(meeting.axes)))
        return tuple(axis for axis in places if shape[axis] > 1)

    def _elementwise(self, meeting: Meeting, kind: str, reason: str) -> Use:
        shape = self._flow.graph.leaves[meeting.leaf].shape
        return Use(
            kind,
            out_axis=self._wide(meeting),
            stack_axis=stack_axes(meeting, shape),
            multiplier=meeting.carried.multiplier,
            offset=meeting.carried.offset,
            reason=reason,
        )

    def _is_statistic(self, meeting: Meeting) -> bool:
        hidden = meeting.carried.opaque in ROOTS
        return hidden and meeting.node.op in PRODUCTS

    def _multiplied(self, meeting: Meeting) -> Use:
        if meeting.node.op == "div":
            return unknown("activations are divided by it")
        return self._elementwise(meeting, "scale", "multiplies activations")

    def _added(self, meeting: Meeting) -> Use:
        node, other = meeting.node, self._other(meeting)
        if node.op == "sub" and self._is_normalized_by_leaves(node):
            return self._elementwise(meeting, "statistic", "a mean that is subtracted")
        use = self._elementwise(meeting, "bias", "added to activations")
        if meeting.carried.looked_up:
            inside = tuple(sorted(meeting.carried.looked_up))
            outside = tuple(a for a in use.out_axis if a not in inside)
            return replace(
                use,
                kind="position",
                in_axis=inside,
                out_axis=outside,
                reason="looked up by position and added",
            )
        kernels = self._behind(other)
        features = self._features(meeting, kernels)
        if kernels:
            leaves = {k for node in kernels for k in self._leaves_of(node)}
            of = sorted(self._names[k] for k in self._beside(meeting, leaves))
            places = tuple(a for a in use.out_axis if a not in features)
            if not places:
                return replace(
                    use,
                    of=tuple(of),
                    reason=f"added to the output of {' and '.join(of)}",
                )
            return replace(
                use,
                kind="position",
                in_axis=places,
                out_axis=features,
                reason="added, with a value for each position",
            )
        if self._is_score(other):
            heads = self._heads(meeting)
            return replace(
                use,
                kind="position",
                in_axis=tuple(a for a in use.out_axis if a not in heads),
                out_axis=heads,
                reason="added to the scores of an attention",
            )
        if self._is_normalized(other):
            return replace(use, reason="the shift of a normalization")
        if node.output.is_output and not node.output.users and use.multiplier != 1:
            reason = "a running average that is handed out"
            return replace(use, kind="statistic", multiplier=1.0, reason=reason)
        if len(use.out_axis) > 1 and set(use.out_axis) != set(features):
            outside = features or use.out_axis[-1:]
            return replace(
                use,
                kind="position",
                in_axis=tuple(a for a in use.out_axis if a not in outside),
                out_axis=outside,
                reason="added, with a value for each position",
            )
        return use

    def _features(self, meeting: Meeting, kernels: Sequence[Node]) -> tuple[int, ...]:
        """Axes of the leaf along which the activations have features of kernels."""
        other = self._flow.fact(self._other(meeting))
        leaves = {leaf for node in kernels for leaf in self._leaves_of(node)}
        if not kernels:
            leaves = set(range(len(self._names)))
        leaves -= {meeting.leaf}
        if len(other.axes) != len(meeting.axes):
            return ()
        return axes_of(
            meeting,
            [
                i
                for i, axis in enumerate(other.axes)
                if any(atom.leaf in leaves and atom.size > 1 for atom in axis)
            ],
        )

    def _beside(self, meeting: Meeting, leaves: set[int]) -> set[int]:
        """Those of some kernels whose outputs a bias is added to."""
        found = {
            theirs.leaf
            for axis, other in zip(
                meeting.axes, self._flow.fact(self._other(meeting)).axes, strict=False
            )
            for ours in axis
            for theirs in other
            if theirs.leaf in leaves
            and ours.offset < theirs.offset + theirs.span
            and theirs.offset < ours.offset + ours.span
        }
        return found or leaves

    def _leaves_of(self, node: Node) -> Iterator[int]:
        for value in node.inputs[:2]:
            if self._flow.from_leaves(value):
                yield from self._flow.fact(value).carried

    def _behind(self, value: Value) -> list[Node]:
        """The contractions with leaves whose sum a value is."""
        found: dict[int, Node] = {}
        pending, seen = [value], set()
        while pending:
            node = stripped(pending.pop()).node
            if node is None or node.index in seen:
                continue
            seen.add(node.index)
            if node.index in self._kernels:
                found[node.index] = node
            elif self._residuals.contains(node):
                pending.append(self._residuals.additions[node.index].branch)
            elif node.op in SUMS or node.op in (
                *SCATTERS,
                "gather",
                "slice",
                "split",
                "stacked",
                "branches",
            ):
                pending += [v for v in node.inputs if self._flow.data(v)]
            elif node.op in PRODUCTS:
                numbers = [v for v in node.inputs if self._flow.number(v) is not None]
                pending += (
                    [v for v in node.inputs if v not in numbers] if numbers else []
                )
        return [found[i] for i in sorted(found)]

    def _is_score(self, value: Value) -> bool:
        """Whether a value is a contraction of query and key, scaled at most."""
        scores = {attention.scores.index for attention in self._attentions}
        pending, seen = [value], set()
        while pending:
            node = stripped(pending.pop()).node
            if node is None or node.index in seen:
                continue
            seen.add(node.index)
            if node.index in scores:
                return True
            if self._residuals.contains(node):
                continue
            if node.op in (*SUMS, *PRODUCTS, "select_n", "tanh"):
                pending += [v for v in node.inputs if self._flow.data(v)]
        return False

    def _heads(self, meeting: Meeting) -> tuple[int, ...]:
        """Axes of a leaf along which the scores that it is added to are batches."""
        scores = {attention.scores.index for attention in self._attentions}
        places = []
        for place in range(len(meeting.axes)):
            pending = [(self._other(meeting), place)]
            while pending:
                value, axis = pending.pop()
                node = value.node
                if node is None:
                    continue
                if node.index in scores:
                    if axis < len(batch_and_free(node, 0)[0]):
                        places.append(place)
                    break
                pending += axis_before(node, value, axis)
        return axes_of(meeting, places)

    def _is_normalized(self, value: Value) -> bool:
        """Whether a value comes out of a normalization, scaled by leaves at most."""
        value = stripped(value)
        node = value.node
        while node is not None and node.op in (*PRODUCTS, *SUMS):
            if node.op in PRODUCTS and any(map(self._is_deviation, node.inputs)):
                return True
            data = [v for v in node.inputs if self._flow.data(v)]
            if len(data) != 1:
                return False
            node = stripped(data[0]).node
        return node is not None and self._is_deviation(node.output)

    def _is_deviation(self, value: Value) -> bool:
        """Whether a value is a root of a mean over activations, or of a statistic."""
        rooted = False
        for _ in range(16):
            value = stripped(value)
            node = value.node
            if node is None:
                return rooted and value.leaf is not None
            if node.op in REDUCTIONS:
                return rooted
            if node.op in ("rsqrt", "sqrt") or _is_root(self._flow, node):
                rooted = True
            elif node.op not in (
                "add",
                "max",
                "mul",
                "sub",
                "div",
                "select_n",
                "clamp",
            ):
                return False
            made = [v for v in node.inputs if self._flow.number(v) is None]
            reduced = [v for v in made if self._flow.data(v)] or made
            if not reduced or node.op not in ELEMENTWISE:
                return False
            if node.op == "mul" and len(reduced) == 2 and not rooted:
                return any(map(self._is_deviation, reduced))
            value = reduced[0]
        return False

    def _is_normalized_by_leaves(self, node: Node) -> bool:
        """Whether what a leaf is subtracted from is divided by a running deviation."""
        for user in _users_behind_copies(node.output):
            if user.op in PRODUCTS and any(
                self._flow.from_leaves(v) and self._is_deviation_of_leaves(v)
                for v in user.inputs
            ):
                return True
        return False

    def _is_deviation_of_leaves(self, value: Value) -> bool:
        carried = self._flow.fact(value).carried.values()
        return any(item.opaque in ROOTS for item in carried)

    # What a meeting is among the others.

    def _find_batches(self) -> None:
        """Turns outputs that are batches of later kernels into batches themselves.

        In an ensemble, the first kernels share their input, so that the axis of the
        ensemble looks like one of features until a later kernel takes it as a batch.
        """
        marked: set[tuple[int, int]] = set()  # a value and its axis
        for meeting, use in self._drafts:
            node = meeting.node
            if use.kind == "kernel" and use.batch_axis:
                ours = batch_and_free(node, meeting.position)[0]
                theirs = batch_and_free(node, 1 - meeting.position)[0]
                places = output_axes(node, meeting.position)
                marked |= {(node.output.index, places[i]) for i in ours if i in places}
                data = self._other_operand(meeting)
                for axis in theirs:
                    marked |= {
                        (value.index, i)
                        for value, i in self._axis_origins(data, axis)
                        if self._is_always_batch(value, i)
                    }
        for i, (meeting, use) in enumerate(self._drafts if marked else ()):
            shape = self._flow.graph.leaves[meeting.leaf].shape
            for axis in use.out_axis:
                if use.kind != "embedding" and self._is_batch(meeting, axis, marked):
                    use = replace(
                        use,
                        out_axis=tuple(a for a in use.out_axis if a != axis),
                        batch_axis=tuple(sorted((*use.batch_axis, axis))),
                        fan_out=use.fan_out // shape[axis],
                    )
            self._drafts[i] = meeting, use

    def _axis_origins(self, value: Value, axis: int) -> Iterator[tuple[Value, int]]:
        """Outputs of contractions with leaves that an axis comes from, and the axes."""
        pending, seen = [(value, axis)], set()
        while pending:
            value, axis = pending.pop()
            node = value.node
            if node is None or (value.index, axis) in seen:
                continue
            seen.add((value.index, axis))
            if node.index in self._kernels:
                yield value, axis
            else:
                pending += axis_before(node, value, axis)

    def _is_always_batch(self, value: Value, axis: int) -> bool:
        """Whether every kernel that follows takes an axis as a batch.

        Heads of an attention over a graph are batches of its scores, and features of
        what comes after.
        """
        pending, seen = [(value, axis)], set()
        while pending:
            value, axis = pending.pop()
            if (value.index, axis) in seen:
                continue
            seen.add((value.index, axis))
            for node in value.users:
                if node.index in self._kernels:
                    side = node.inputs.index(value)
                    if axis not in batch_and_free(node, side)[0]:
                        return False
                    continue
                after = [
                    (output, i)
                    for output in node.outputs
                    for i in range(len(output.shape))
                    if (value, axis) in axis_before(node, output, i)
                ]
                if not after and node.op == "reshape":
                    return False
                pending += after
        return True

    def _is_batch(self, meeting: Meeting, axis: int, marked) -> bool:
        """Whether an axis of a leaf lies on one of batches."""
        node = meeting.node
        places = [
            i
            for i, found in enumerate(meeting.axes)
            if any(atom.axis == axis for atom in found)
        ]
        if node.index in self._kernels:
            outputs = output_axes(node, meeting.position)
            return any(
                (node.output.index, outputs.get(i, -1)) in marked for i in places
            )
        if len(node.inputs) != 2:
            return False
        origins = [
            (value.index, j)
            for i in places
            for value, j in self._axis_origins(self._other(meeting), i)
        ]
        return bool(origins) and set(origins) <= marked

    def _find_members(self) -> Iterator[tuple[str, set[int]]]:
        """For each operand of an attention, the values that it is made of."""
        for attention in self._attentions:
            yield "query", self._made_of(attention.query)
            yield "key", self._made_of(attention.key)
            yield "value", self._made_of(attention.value)

    def _made_of(self, value: Value) -> set[int]:
        """Values that a value is made of, back to the nearest contractions."""
        members = {value.index}
        pending = [value]
        while pending:
            node = pending.pop().node
            if node is None or node.op in CONTRACTIONS or node.op == "carry":
                continue
            if self._residuals.contains(node):
                continue
            for before in node.inputs:
                if before.index not in members and self._flow.data(before):
                    members.add(before.index)
                    pending.append(before)
        return members

    def _find_parts(self) -> dict[int, str]:
        """For the identity of an end, what it is in its model."""
        parts: dict[int, str] = {}
        self._owners = owners = dict[int, list[tuple[Node, End]]]()
        for index, ends in self._ends.items():
            node = self._flow.graph.nodes[index]
            for end in ends:
                owners.setdefault(end.value.index, []).append((node, end))
        for ends in self._ends.values():
            for end in ends:
                names = [
                    name for name, members in self._members if end.root.index in members
                ]
                if names:
                    parts[id(end)] = ", ".join(dict.fromkeys(names))
        for end, name in Cells(self._loops, owners).gates():
            parts.setdefault(id(end), name)
        for found in owners.values():
            for _, end in found:
                if id(end) not in parts:
                    part = self._product_part(end, owners)
                    if part:
                        parts[id(end)] = part
        for index, ends in self._ends.items():
            node = self._flow.graph.nodes[index]
            data = [v for v in node.inputs[:2] if self._flow.data(v)]
            after = any(map(self._is_after_attention, data))
            for end in ends:
                if id(end) not in parts and after:
                    parts[id(end)] = "attention output"
                elif id(end) not in parts and self._is_router(end):
                    parts[id(end)] = "router"
        return parts

    def _product_part(self, end: End, owners) -> str | None:
        """ "gate" for a factor behind a nonlinear function, "up" for the other."""
        for node in end.takers:
            if node.op != "mul" or end.function is None:
                continue
            other = [v for v in node.inputs if v is not end.value]
            if len(other) != 1 or not self._flow.data(other[0]) or is_mask(other[0]):
                continue
            theirs = [
                e.function
                for _, e in _owners_of(other[0], owners)
                if e.function is not None and not e.function.is_linear
            ]
            if not end.function.is_linear:
                wins = end.function.is_gate and not any(f.is_gate for f in theirs)
                return "gate" if wins or not theirs else None
            if theirs:
                return "up"
        return None

    def _is_router(self, end: End) -> bool:
        """Whether a softmax of the output weighs other activations."""
        graph_kernels = self._kernels
        pending, seen, own = [], set(), {end.value.index}
        if not any(node.op in ("exp", "reduce_max", "sub") for node in end.takers):
            return False
        pending = [(node, False) for node in end.takers]
        heads = {a.output.index for a in self._attentions}
        while pending:
            node, normalized = pending.pop()
            if (node.index, normalized) in seen or node.index in heads:
                continue
            seen.add((node.index, normalized))
            if node.index in graph_kernels or node.op == "carry":
                continue
            normalized |= node.op in ("exp", "exp2")
            others = [
                v for v in node.inputs if self._flow.data(v) and v.index not in own
            ]
            weighs = node.op == "mul" or node.op in CONTRACTIONS
            if (
                weighs
                and normalized
                and any(
                    not self._is_from(v, end.root) and not is_mask(v) for v in others
                )
            ):
                return True
            for value in node.outputs:
                own.add(value.index)
                pending += [(user, normalized) for user in value.users]
        return False

    def _is_from(self, value: Value, root: Value) -> bool:
        return ancestor(root, value)

    def _find_followed(self) -> list[bool]:
        """For each value, whether a contraction follows."""
        graph = self._flow.graph
        followed = [False] * len(graph.values)
        changed = True
        while changed:
            changed = False
            for node in reversed(graph.nodes):
                after = node.op in CONTRACTIONS or any(
                    followed[value.index] for value in node.outputs
                )
                if after:
                    for value in node.sources():
                        changed |= value is node.back and not followed[value.index]
                        followed[value.index] = True
        return followed

    def _steering(self) -> set[int]:
        """Contractions that steer a branch and do not write it."""
        steering = set()
        for index, ends in self._ends.items():
            parts = {self._parts.get(id(end)) for end in ends}
            if parts and parts <= {"gate", "router", "query", "key"}:
                steering.add(index)
        return steering

    def _branch_gates(self) -> set[int]:
        """Products with leaves that scale a whole branch and are of no normalization."""
        return {
            node.index
            for addition in self._residuals.additions.values()
            for node in branch_scales(self._flow, addition)
            if not any(
                self._flow.data(v) and self._is_normalized(v) for v in node.inputs
            )
        }

    def _finished(self, meeting: Meeting, use: Use) -> Use:
        if use.kind == "scale" and meeting.node.index in self._gates:
            return replace(
                use, kind="gate", reason="scales a branch of a residual stream"
            )
        if use.kind == "scale" and any(
            self._flow.data(v) and self._is_normalized(v) for v in meeting.node.inputs
        ):
            return replace(use, reason="the scale of a normalization")
        if use.kind == "bias" and use.of:
            return self._bias_of_kernel(meeting, use)
        if use.kind in ("kernel", "convolution"):
            return self._kernel(meeting, use)
        return use

    def _bias_of_kernel(self, meeting: Meeting, use: Use) -> Use:
        start = scaled(self._flow, meeting.node.output)[0]
        kernels = {node.index for node in self._behind(self._other(meeting))}
        ends = [
            end
            for after in follow(self._flow, start, self._residuals.contains)
            for node, end in self._owners.get(after.value.index, ())
            if node.index in kernels
        ]
        nearest = [end for index in sorted(kernels) for end in self._ends[index]]
        ends = self._own_ends(meeting, ends or nearest)
        part, sections = self._divided(meeting, ends)
        if len({section.part for section in sections}) < 2 and part is None:
            sections = ()
        plain = (replace(section, function=None, gain=None) for section in sections)
        return replace(use, part=part, sections=tuple(plain))

    def _divided(
        self, meeting: Meeting, ends: Sequence[End]
    ) -> tuple[str | None, tuple[Section, ...]]:
        """The part that a leaf is, and its sections if it has several."""
        ends = _first_ends(ends)
        parts = {self._parts.get(id(end)) for end in ends}
        names = {_function_name(end) for end in ends}
        sections: tuple[Section, ...] = ()
        if len(parts) > 1 or len(names) > 1:
            sections = self._sections(meeting, ends)
        if len(sections) > 1:
            shared = {section.part for section in sections}
            return shared.pop() if len(shared) == 1 else None, sections
        part = ", ".join(sorted(part for part in parts if part)) or None
        function = self._first_function(ends)
        return part, tuple(
            Section(
                axis,
                blocks,
                part,
                function and function.name,
                function and function.gain,
            )
            for axis, blocks in self._cut(meeting)
        )

    def _cut(
        self, meeting: Meeting
    ) -> Iterator[tuple[int, tuple[tuple[int, int], ...]]]:
        """Axes of a leaf of which only some places are used here, and those places."""
        shape = self._flow.graph.leaves[meeting.leaf].shape
        standing = {atom.axis for axis in meeting.axes for atom in axis}
        for axis in sorted(standing - set(stack_axes(meeting, shape))):
            own = [
                atom
                for found in (*meeting.axes, meeting.fixed)
                for atom in found
                if atom.axis == axis
            ]
            places = atoms.indices(own, shape[axis])
            if len(places) < shape[axis]:
                yield axis, atoms.blocks(places)

    def _kernel(self, meeting: Meeting, use: Use) -> Use:
        node = meeting.node
        ends = self._own_ends(meeting, self._ends[node.index])
        data = self._other_operand(meeting)
        weights = node.inputs[meeting.position]
        recurrent = self._loops.is_recurrent(node, data, weights)
        residual = self._places.get(node.index)
        part, sections = self._divided(meeting, ends)
        one = None if sections else self._first_function(ends)
        if len({section.function for section in sections}) == 1:
            one = _first_ends(ends)[0].function
        inputs = self._input_sections(meeting, data) if recurrent else ()
        use = replace(
            use,
            multiplier=use.multiplier * self._starts[node.index][1],
            function=one.name if one else None,
            gain=one.gain if one else None,
            residual=residual,
            recurrent=recurrent,
            head=self._is_head(node, residual, recurrent),
            part=part,
            sections=(*inputs, *sections),
        )
        return replace(use, reason=self._why(meeting, use, ends, data))

    def _own_ends(self, meeting: Meeting, ends: Sequence[End]) -> Sequence[End]:
        """The ends of the part of an output that one of several kernels makes."""
        own = [
            end
            for end in ends
            for fact in [self._flow.fact(end.root)]
            if any(a.leaf == meeting.leaf for x in (*fact.axes, fact.fixed) for a in x)
        ]
        return own or ends

    def _first_function(self, ends: Sequence[End]):
        """The function up to the first value that is taken."""
        whole = [end for end in ends if end.function is not None and not end.hidden]
        return min(whole, key=lambda end: end.value.index).function if whole else None

    def _is_after_attention(self, data: Value) -> bool:
        """Whether a value is the output of an attention, moved and scaled at most."""
        outputs = {attention.output.index for attention in self._attentions}
        pending, seen = [data], set()
        while pending:
            node = stripped(pending.pop()).node
            if node is None or node.index in seen:
                continue
            seen.add(node.index)
            if node.index in outputs:
                return True
            data = [v for v in node.inputs if self._flow.data(v)]
            plain = node.op in ELEMENTWISE and not (node.op in SUMS and len(data) > 1)
            moved = node.op in ("slice", "squeeze", "concatenate", "reduce_sum")
            if plain or moved:
                pending += data
        return False

    def _is_head(self, node: Node, residual, recurrent: bool) -> bool:
        return not (residual or recurrent or self._followed[node.output.index])

    def _sections(self, meeting: Meeting, ends: Sequence[End]) -> tuple[Section, ...]:
        """Parts of one axis of a leaf, by what follows them."""
        shape = self._flow.graph.leaves[meeting.leaf].shape
        groups: dict[tuple, dict[int, np.ndarray]] = {}
        gains: dict[tuple, float | None] = {}
        for end in ends:
            part = self._parts.get(id(end))
            function = end.function if not end.hidden else None
            key = part, function.name if function else None
            gains[key] = function.gain if function else None
            fact = self._flow.fact(end.root)
            own = [
                a
                for axis in (*fact.axes, fact.fixed)
                for a in axis
                if a.leaf == meeting.leaf
            ]
            for axis in {atom.axis for atom in own}:
                size = shape[axis]
                found = atoms.indices([a for a in own if a.axis == axis], size)
                before = groups.setdefault(key, {}).get(axis, np.zeros(0, np.int64))
                groups[key][axis] = np.union1d(before, found)
        axes = {
            axis
            for found in groups.values()
            for axis, places in found.items()
            if len(places) < shape[axis]
        }
        if len(axes) != 1:
            return ()
        (axis,) = axes
        sections = [
            Section(axis, atoms.blocks(found[axis]), *key, gains[key])
            for key, found in groups.items()
            if axis in found and len(found[axis])
        ]
        sections.sort(key=lambda section: section.blocks)
        covered = sum(section.size for section in sections)
        distinct = (
            np.unique(
                np.concatenate([np.arange(*b) for s in sections for b in s.blocks])
            )
            if sections
            else []
        )
        return tuple(sections) if covered == len(distinct) else ()

    def _input_sections(self, meeting: Meeting, data: Value) -> tuple[Section, ...]:
        """Which inputs of a recurrent kernel come from its own past."""
        node = stripped(data).node
        if node is None or node.op != "concatenate":
            return ()
        along = node.params["dimension"]
        sizes = [value.shape[along] for value in node.inputs]
        inside = self._contracted_leaf_axis(meeting, sum(sizes))
        if inside is None:
            return ()
        sections, start = [], 0
        for value, size in zip(node.inputs, sizes, strict=True):
            past = self._loops.comes_from_its_past(value, meeting.node)
            name = "recurrent" if past else "input"
            sections.append(Section(inside, ((start, start + size),), name))
            start += size
        return tuple(sections) if len({s.part for s in sections}) > 1 else ()

    def _contracted_leaf_axis(self, meeting: Meeting, size: int) -> int | None:
        shape = self._flow.graph.leaves[meeting.leaf].shape
        kept = output_axes(meeting.node, meeting.position)
        inside = [
            atom.axis
            for i, axis in enumerate(meeting.axes)
            if i not in kept
            for atom in axis
        ]
        return inside[0] if len(inside) == 1 and shape[inside[0]] == size else None

    def _why(self, meeting: Meeting, use: Use, ends, data: Value) -> str:
        words = [f"contracted with activations in `{meeting.node.op}`"]
        if use.part:
            words.append(f"its output is the {use.part}")
            if use.part == "attention output":
                words[-1] = "it takes what an attention gives"
        elif use.sections:
            names = dict.fromkeys(s.part or s.function or "other" for s in use.sections)
            words.append(f"with parts for {', '.join(names)}")
        if use.recurrent:
            words.append("its own ancestor through a loop")
        elif self._loops.is_shared(
            meeting.node, data, meeting.node.inputs[meeting.position]
        ):
            words.append("shared over the depth of a loop")
        if use.residual:
            words.append("added to a residual stream")
        if use.function and use.function != "identity":
            words.append(f"followed by {use.function}")
        hidden = {end.hidden for end in ends if end.hidden}
        if hidden:
            words.append(f"what follows is behind `{', '.join(sorted(hidden))}`")
        if use.head:
            words.append("no contraction follows")
        return ", ".join(words)


def _owners_of(value: Value, owners) -> list[tuple[Node, End]]:
    """The ends that a value is, or is a copy of."""
    found = owners.get(value.index, ())
    return list(found or owners.get(stripped(value).index, ()))


def _is_root(flow: Flow, node: Node) -> bool:
    """Whether a node is a power of one half."""
    return node.op == "pow" and flow.number(node.inputs[1]) in (-0.5, 0.5)


def _first_ends(ends: Sequence[End]) -> list[End]:
    """Of the ends of each root the first: what follows is made of it."""
    first: dict[int, End] = {}
    for end in sorted(ends, key=lambda end: end.value.index):
        first.setdefault(end.root.index, end)
    return list(first.values())


def _function_name(end: End) -> str | None:
    return end.function.name if end.function is not None and not end.hidden else None


def _users_behind_copies(value: Value) -> Iterator[Node]:
    pending = [value]
    while pending:
        for node in pending.pop().users:
            if node.op in COPIES:
                pending += node.outputs
            else:
                yield node


def signals(flow: Flow, attentions: Sequence[Attention]) -> set[int]:
    """Values that are activations though they are computed from leaves, or constant.

    These are what a convolution moves over, and what the axis of the queries comes
    from where a query is computed from leaves alone; the same of keys and constants.
    Whatever the axis that is summed over comes from is a kernel.
    """
    found: set[int] = set()
    for node in [*flow.products, *(meeting.node for meeting in flow.meetings)]:
        if node.op == "conv_general_dilated" and flow.from_leaves(node.inputs[0]):
            places = node.params["dimension_numbers"].lhs_spec[2:]
            found |= {v.index for v in _owners(flow, node.inputs[0], places)}
    scores = {a.scores.index: a.scores for a in attentions}
    for meeting in flow.meetings:
        node = meeting.node
        learned = node.index in scores
        if node.op != "dot_general" or meeting.carried.opaque != PRODUCT:
            continue
        value = node.inputs[meeting.position]
        features = _owners(flow, value, contracted_axes(node, meeting.position))
        free = batch_and_free(node, meeting.position)[1]
        others = _owners(flow, value, free) - features
        if len(others) == 1 and (learned or others.copy().pop().leaf is None):
            found |= {value.index for value in others}
    return found


def _owners(flow: Flow, value: Value, axes: Iterable[int]) -> set[Value]:
    """The leaves and constants that axes of a value come from."""
    found: set[Value] = set()
    pending, seen = [(value, axis) for axis in axes], set()
    while pending:
        value, axis = pending.pop()
        if (value.index, axis) in seen:
            continue
        seen.add((value.index, axis))
        node = value.node
        if node is None or not flow.has_leaves[value.index]:
            found.add(value)
        elif node.op == "dot_general":
            for side in (0, 1):
                for i, j in output_axes(node, side).items():
                    if j == axis:
                        pending.append((node.inputs[side], i))
        else:
            pending += axis_before(node, value, axis)
    return found
