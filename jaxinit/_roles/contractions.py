"""Axes and fans of a kernel, read off the contraction that it is in.

Take `einsum("btd,dhk->bthk", x, w)` of w: f32[6,2,4]. `dot_general` sums over axis 0 of
`w`, and its output has the axes 1 and 2: in (0,), out (1, 2), fans 6 and 8. Of a
transposed or reshaped kernel, atoms say which of its axes is where.
"""

import math
from collections.abc import Iterable, Sequence

from jaxinit._roles.atoms import Atom
from jaxinit._roles.flow import Meeting, batch_and_free, contracted_axes
from jaxinit._roles.role import Use


def axes_of(meeting: Meeting, places: Iterable[int]) -> tuple[int, ...]:
    """Axes of the leaf that lie on these axes of the input."""
    return tuple(sorted({a.axis for i in places for a in meeting.axes[i]}))


def stack_axes(meeting: Meeting, shape: Sequence[int]) -> tuple[int, ...]:
    """Axes of the leaf of which one place was taken."""
    standing = {atom.axis for axis in meeting.axes for atom in axis}
    fixed = {a.axis for a in meeting.fixed if shape[a.axis] > 1} - standing
    return tuple(sorted(meeting.carried.stack | fixed))


def dot_use(meeting: Meeting, shape: Sequence[int]) -> Use:
    """The use of a kernel in `dot_general`."""
    node, side = meeting.node, meeting.position
    value = node.inputs[side]
    contracted = contracted_axes(node, side)
    batch, free = batch_and_free(node, side)
    inside, outside = axes_of(meeting, contracted), axes_of(meeting, free)
    if set(inside) & set(outside):
        return Use("unknown", reason="one of its axes has both inputs and outputs")
    grouped = axes_of(meeting, batch)
    return Use(
        "kernel",
        in_axis=inside,
        out_axis=outside,
        batch_axis=tuple(a for a in grouped if a not in inside + outside),
        stack_axis=stack_axes(meeting, shape),
        fan_in=math.prod(value.shape[i] for i in contracted),
        fan_out=math.prod(_extent(meeting.axes[i]) for i in free),
        multiplier=meeting.carried.multiplier,
    )


def _extent(axis: tuple[Atom, ...]) -> int:
    """How much of an axis is the leaf's."""
    return max((atom.span for atom in axis), default=1)


def convolution_use(meeting: Meeting, shape: Sequence[int]) -> Use:
    """The use of a kernel in `conv_general_dilated`."""
    params = meeting.node.params
    value = meeting.node.inputs[1]
    out, inside, *window = params["dimension_numbers"].rhs_spec
    groups = params["feature_group_count"]
    strides = math.prod(params["lhs_dilation"])
    ensemble = _groups_of_their_own(meeting, out, value.shape[out], groups)
    for axis in ensemble:
        groups //= shape[axis]
    field = math.prod(value.shape[i] for i in window)
    spatial = axes_of(meeting, window)
    features = math.prod(shape[a] for a in ensemble) * groups
    return Use(
        "convolution",
        in_axis=axes_of(meeting, [inside]),
        out_axis=tuple(a for a in axes_of(meeting, [out]) if a not in ensemble),
        batch_axis=ensemble,
        stack_axis=stack_axes(meeting, shape),
        spatial_axis=spatial,
        fan_in=_whole(value.shape[inside] * field / strides),
        fan_out=_whole(value.shape[out] / features * field),
        groups=groups,
        transposed=strides > 1,
        multiplier=meeting.carried.multiplier,
    )


def _whole(number: float) -> float:
    return int(number) if number == int(number) else number


def _groups_of_their_own(meeting, out, size, groups) -> tuple[int, ...]:
    """Axes of the leaf that only say which group it is: those of an ensemble."""
    if groups == 1:
        return ()
    atoms = meeting.axes[out]
    return tuple(
        atom.axis
        for atom in atoms
        if atom.inner * groups >= size
        and atom.size > 1
        and groups % atom.size == 0
        and any(other.axis != atom.axis for other in atoms)
    )
