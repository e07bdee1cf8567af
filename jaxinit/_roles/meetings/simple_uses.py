"""Uses of leaves that no contraction takes: scales and biases, tokens and tables.

Take `table[ids]` of table: f32[10,6]. Axis 0 is looked up and axis 1 is one of
features, so this is an embedding with in (0,), out (1,), fans 1 and 6.
"""

import math
from collections.abc import Sequence

from jaxinit._roles.patterns.regions import scaled
from jaxinit._roles.reading.axes import looked_up_axes
from jaxinit._roles.reading.facts import Meeting
from jaxinit._roles.reading.flow import Flow
from jaxinit._roles.role import Use


def unknown(reason: str) -> Use:
    """A use of which nothing is said."""
    return Use("unknown", reason=reason)


def elementwise_use(meeting: Meeting, kind: str, reason: str) -> Use:
    """The use of a leaf that is added to activations, or multiplies them."""
    return Use(
        kind,
        out_axis=meeting.wide_axes,
        batch_axis=meeting.chosen_axes,
        stack_axis=meeting.stack_axes,
        multiplier=meeting.carried.multiplier,
        offset=meeting.carried.offset,
        reason=reason,
    )


def statistic_use(meeting: Meeting, reason: str) -> Use:
    """The use of a running mean or variance."""
    return Use(
        "statistic",
        out_axis=meeting.wide_axes,
        stack_axis=meeting.stack_axes,
        reason=reason,
    )


def lookup_use(flow: Flow, meeting: Meeting) -> Use:
    """The use of a table of which inputs choose places."""
    places = looked_up_axes(meeting.node)
    inside = meeting.leaf_axes(places)
    others = meeting.leaf_axes(set(range(len(meeting.axes))) - set(places))
    outside = tuple(axis for axis in others if axis not in inside)
    return Use(
        "embedding",
        in_axis=inside,
        out_axis=outside,
        stack_axis=meeting.stack_axes,
        fan_in=1,
        fan_out=math.prod(meeting.shape[axis] for axis in outside),
        multiplier=meeting.carried.multiplier * scaled(flow, meeting.node.output)[1],
        reason="looked up by inputs",
    )


def learned_use(shape: Sequence[int]) -> Use:
    """The use of a leaf that is followed as an activation."""
    wide = tuple(axis for axis, size in enumerate(shape) if size > 1)
    reason = "a learned array that enters as activations do"
    return _token(shape, wide, (), "token", reason)


def token_use(meeting: Meeting, part: str, reason: str) -> Use:
    """The use of a leaf that becomes an activation."""
    return _token(meeting.shape, meeting.wide_axes, meeting.stack_axes, part, reason)


def _token(shape, wide, stack, part: str, reason: str) -> Use:
    """A token with features along the last of its axes that are longer than one."""
    return Use(
        "embedding",
        in_axis=wide[:-1],
        out_axis=wide[-1:],
        stack_axis=stack,
        fan_in=1,
        fan_out=shape[wide[-1]] if wide else 1,
        part=part,
        reason=reason,
    )
