"""Fans of a weight array: how many inputs and outputs meet in one of its entries."""

import math
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from jaxinit._basics import integers
from jaxinit._basics.integers import checked_shape, shown

Axes = int | Sequence[int]
_FAN_AXES = ("in_axis", "out_axis")
_FANS = (
    " A weight needs at least two axes for the default in_axis=-2 and out_axis=-1: "
    "name the axes of this one, such as in_axis=0, out_axis=(), or use an initializer "
    "without fans, such as normal or zeros."
)
_OPERAND = re.compile(r"[A-Za-z]*(\.\.\.)?[A-Za-z]*")


class Fans(NamedTuple):
    """Effective sizes of a linear or convolutional layer.

    Attributes:
        fan_in: number of inputs summed into one output.
        fan_out: number of outputs that one input reaches.
    """

    fan_in: float
    fan_out: float


def fans(
    shape: Sequence[int],
    in_axis: Axes = -2,
    out_axis: Axes = -1,
    batch_axis: Axes = (),
) -> Fans:
    """Fans of a weight array, with the conventions of `jax.nn.initializers`.

    `fan_in = in * field` and `fan_out = out * field`, where `in` and `out` are the
    sizes along the named axes and `field`, the receptive field of a convolution, is the
    size along the axes that are not named.

    Args:
        shape: shape of the array.
        in_axis: axis or axes over which inputs are summed.
        out_axis: axis or axes that the outputs have.
        batch_axis: axis or axes along which the weights are independent copies, as of
            stacked layers or experts; they count in neither fan.

    Returns:
        The fans, as floats.

    Raises:
        TypeError: if the shape or an axis is not of ints.
        ValueError: if an axis is out of range or named twice, or a size negative.

    >>> fans((3, 3, 64, 128))
    Fans(fan_in=576.0, fan_out=1152.0)
    >>> fans((8, 512, 64), batch_axis=0)
    Fans(fan_in=512.0, fan_out=64.0)
    """
    shape = checked_shape(shape)
    named = {"in_axis": in_axis, "out_axis": out_axis, "batch_axis": batch_axis}
    places = {
        name: positions(name, integers.axes(name, own), shape)
        for name, own in named.items()
    }
    refuse_overlap(places, f" of shape {shape}")
    taken = {axis for group in places.values() for axis in group}
    field = math.prod(size for axis, size in enumerate(shape) if axis not in taken)
    fan_in = math.prod(shape[axis] for axis in places["in_axis"])
    fan_out = math.prod(shape[axis] for axis in places["out_axis"])
    return Fans(float(fan_in * field), float(fan_out * field))


def positions(name: str, axes: Axes, shape: Sequence[int]) -> tuple[int, ...]:
    """The axes as indices from the front, each checked to be in range."""
    ndim = len(shape)
    for axis in as_tuple(axes):
        if not -ndim <= axis < ndim:
            raise ValueError(
                f"{name}={shown(axes)} is out of range for shape {tuple(shape)}, "
                f"which has {ndim} axes.{_FANS if name in _FAN_AXES else ''}"
            )
    return tuple(axis % ndim for axis in as_tuple(axes))


def refuse_overlap(groups: dict[str, tuple[int, ...]], where: str = "") -> None:
    """Raises if an axis is in two groups, or twice in one."""
    owner: dict[int, str] = {}
    for name, group in groups.items():
        for axis in group:
            if axis in owner:
                twice = f"{owner[axis]} and by {name}"
                raise ValueError(
                    f"axis {axis}{where} is named "
                    f"{f'twice by {name}' if owner[axis] == name else f'by {twice}'}. "
                    "Name every axis once: the axis arguments must not overlap."
                )
            owner[axis] = name


def as_tuple(axes: Axes) -> tuple[int, ...]:
    """One axis or several, as a tuple."""
    return tuple(axes) if isinstance(axes, Sequence) else (axes,)


def einsum_axes(equation: str) -> dict[str, tuple[int, ...]]:
    """Axis arguments for the kernel, the second operand, of an einsum layer.

    An index of the kernel that the output lacks is summed over: `in_axis`. One that the
    output has is a batch axis if the input has it too, else an output axis.

    Args:
        equation: einsum string "input,kernel->output". The input and the output may
            have an ellipsis; the kernel may not, since its axes could not be numbered.

    Returns:
        `in_axis`, `out_axis` and `batch_axis`, to be passed on with `**`.

    Raises:
        ValueError: if the equation is not of that form.

    >>> einsum_axes("btd,dhk->bthk")
    {'in_axis': (0,), 'out_axis': (1, 2), 'batch_axis': ()}
    >>> einsum_axes("...ed,edf->...ef")
    {'in_axis': (1,), 'out_axis': (2,), 'batch_axis': (0,)}
    """
    inputs, kernel, output = _operands(equation)
    place = {
        index: "in_axis"
        if index not in output
        else "batch_axis"
        if index in inputs
        else "out_axis"
        for index in kernel
    }
    return {
        name: tuple(axis for axis, index in enumerate(kernel) if place[index] == name)
        for name in ("in_axis", "out_axis", "batch_axis")
    }


def _operands(equation: Any) -> tuple[str, str, str]:
    if not isinstance(equation, str):
        raise TypeError(
            f"equation must be a string such as 'btd,dhk->bthk', got {shown(equation)}."
        )
    operands, arrow, output = equation.replace(" ", "").partition("->")
    inputs, comma, kernel = operands.partition(",")
    problem = None
    if not arrow or not comma or "," in kernel:
        problem = "it does not have two operands and an output"
    elif not all(_OPERAND.fullmatch(part) for part in (inputs, kernel, output)):
        problem = "an operand has other signs than letters and one ellipsis"
    elif "..." in kernel:
        problem = "an ellipsis in the kernel leaves its axes without numbers"
    elif len(set(kernel)) < len(kernel):
        problem = "an index is twice in the kernel"
    elif unknown := set(output) - set(operands):
        problem = f"the output has indices that no operand has, {sorted(unknown)}"
    if problem:
        raise ValueError(
            f"equation {equation!r} does not describe a kernel: {problem}. Write "
            "'input,kernel->output', such as 'btd,dhk->bthk' or '...d,df->...f'."
        )
    return inputs, kernel, output
