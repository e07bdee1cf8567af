"""What is added to activations: biases, positions, shifts and running means.

Take `x @ w + b` and `x @ w + p` of x: f32[2,5,6], b: f32[4], p: f32[5,4]. Both are
added to the output of `w`, whose features are on the last axis. All that `b` has is
features, so it is a bias of `w`; `p` has a value for each position besides.
"""

from collections.abc import Sequence
from dataclasses import replace

from jaxinit._roles.meetings.simple_uses import elementwise_use, unknown
from jaxinit._roles.patterns.normalization import is_divided_by_statistic, is_normalized
from jaxinit._roles.patterns.structure import Structure
from jaxinit._roles.patterns.sums import subtracts_centers
from jaxinit._roles.reading.atoms import Atom
from jaxinit._roles.reading.axes import Place, batch_and_free, place_before
from jaxinit._roles.reading.facts import Meeting
from jaxinit._roles.reading.graph import Node
from jaxinit._roles.reading.primitives import COPIES
from jaxinit._roles.reading.values import behind
from jaxinit._roles.reading.walks import reached
from jaxinit._roles.role import Use


def added_use(structure: Structure, meeting: Meeting) -> Use:
    """The use of a leaf that is added to activations."""
    flow, node = structure.flow, meeting.node
    if node.op == "sub" and is_divided_by_statistic(flow, node.output):
        return elementwise_use(meeting, "statistic", "a mean that is subtracted")
    use = elementwise_use(meeting, "bias", "added to activations")
    if node.op == "sub" and meeting.position == 1:
        use = replace(use, multiplier=-use.multiplier)
    if meeting.carried.looked_up:
        inside = tuple(sorted(meeting.carried.looked_up))
        return _position(use, inside, "looked up by position and added")
    if subtracts_centers(flow, node):
        return unknown("each of its rows is subtracted, as centers are")
    kernels = structure.kernels_behind(meeting.activations)
    if kernels:
        return _behind_kernels(structure, meeting, use, kernels)
    if structure.is_score(meeting.activations):
        heads = _heads(structure, meeting)
        inside = tuple(axis for axis in use.out_axis if axis not in heads)
        use = _position(use, inside, "added to the scores of an attention")
        return replace(use, out_axis=heads)
    if not _brings_an_axis(meeting) and is_normalized(flow, meeting.activations):
        return replace(use, reason="the shift of a normalization")
    if _is_running_average(meeting):
        reason = "a running average that is handed out"
        return replace(use, kind="statistic", multiplier=1.0, reason=reason)
    return _of_places(use, _features(structure, meeting, None))


def _brings_an_axis(meeting: Meeting) -> bool:
    """Whether activations are repeated along an axis of a leaf with several."""
    value = behind(meeting.activations, COPIES)
    sizes = dict(enumerate(value.shape))
    if value.node is not None and value.node.op == "broadcast_in_dim":
        places = value.node.params["broadcast_dimensions"]
        sizes = dict(zip(places, value.node.inputs[0].shape, strict=True))
    wide = enumerate(meeting.node.output.shape)
    repeated = [i for i, size in wide if sizes.get(i, 1) < size]
    return len(meeting.wide_axes) > 1 and any(meeting.axes[i] for i in repeated)


def _position(use: Use, inside: tuple[int, ...], reason: str) -> Use:
    """A use with a value for each index along some axes."""
    outside = tuple(axis for axis in use.out_axis if axis not in inside)
    return replace(
        use, kind="position", in_axis=inside, out_axis=outside, reason=reason
    )


def _of_places(use: Use, features: tuple[int, ...]) -> Use:
    """A bias, if all of its axes are features, else a position."""
    if len(use.out_axis) <= 1 or set(use.out_axis) == set(features):
        return use
    features = features or use.out_axis[-1:]
    inside = tuple(axis for axis in use.out_axis if axis not in features)
    use = _position(use, inside, "added, with a value for each position")
    return replace(use, out_axis=features)


def _behind_kernels(
    structure: Structure, meeting: Meeting, use: Use, kernels: Sequence[Node]
) -> Use:
    """The use of what is added to the output of kernels."""
    leaves = {leaf for node in kernels for leaf in structure.flow.leaves_of(node)}
    features = _features(structure, meeting, leaves)
    fact = structure.flow.fact(meeting.activations)
    if not any(fact.atoms_of(leaf) for leaf in leaves):  # a reshape tore them apart
        features = use.out_axis[-1:]
    places = tuple(axis for axis in use.out_axis if axis not in features)
    if places:
        use = _position(use, places, "added, with a value for each position")
        return replace(use, out_axis=features)
    beside = _beside(structure, meeting, leaves)
    of = tuple(sorted(structure.names[leaf] for leaf in beside))
    folders = {path.rpartition("/")[0] for path in (structure.names[meeting.leaf], *of)}
    named = "its kernel" if len(of) == len(folders) == 1 else " and ".join(of)
    return replace(use, of=of, reason=f"added to the output of {named}")


def _features(
    structure: Structure, meeting: Meeting, leaves: set[int] | None
) -> tuple[int, ...]:
    """Axes of the leaf along which the activations have features of some leaves.

    Args:
        structure: what is found.
        meeting: where the leaf is added.
        leaves: numbers of the leaves; None for all.
    """
    axes = structure.flow.fact(meeting.activations).axes
    if len(axes) != len(meeting.axes):
        return ()

    def counts(atom: Atom) -> bool:
        theirs = leaves is None or atom.leaf in leaves
        return theirs and atom.leaf != meeting.leaf and atom.size > 1

    return meeting.leaf_axes(i for i, axis in enumerate(axes) if any(map(counts, axis)))


def _beside(structure: Structure, meeting: Meeting, leaves: set[int]) -> set[int]:
    """Those of some kernels whose outputs a bias is added to."""
    axes = structure.flow.fact(meeting.activations).axes
    found = {
        theirs.leaf
        for axis, other in zip(meeting.axes, axes, strict=False)
        for ours in axis
        for theirs in other
        if theirs.leaf in leaves and _overlap(ours, theirs)
    }
    return found or leaves


def _overlap(a: Atom, b: Atom) -> bool:
    return a.offset < b.offset + b.span and b.offset < a.offset + a.span


def _heads(structure: Structure, meeting: Meeting) -> tuple[int, ...]:
    """Axes of a leaf along which the scores that it is added to are batches."""
    places = (
        i
        for i in range(len(meeting.axes))
        if _is_batch_of_scores(structure, (meeting.activations, i))
    )
    return meeting.leaf_axes(places)


def _is_batch_of_scores(structure: Structure, place: Place) -> bool:
    for value, axis in reached([place], place_before):
        if value.node is not None and value.node.index in structure.scores:
            return axis < len(batch_and_free(value.node, 0)[0])
    return False


def _is_running_average(meeting: Meeting) -> bool:
    """Whether a leaf is multiplied, added to, handed out, and nothing else."""
    output = meeting.node.output
    handed_out = output.is_output and not output.users
    return handed_out and meeting.carried.multiplier != 1
