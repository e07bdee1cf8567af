"""What is an int, an axis, a shape: integers of Python or NumPy, and no booleans."""

import math
import operator
from collections.abc import Iterable
from typing import Any

import numpy as np

_MOST = 2**63 - 1  # entries of an array, by XLA's int64


def is_boolean(value: Any) -> bool:
    """Whether a value is True or False, which Python takes for 1 and 0."""
    kind = getattr(getattr(value, "dtype", None), "kind", "")
    return isinstance(value, bool | np.bool_) or kind == "b"


def integer(name: str, value: Any) -> int:
    """An int, as a Python int."""
    if type(value) is int:  # of each size of each leaf of a tree
        return value
    try:
        if is_boolean(value):
            raise TypeError
        return operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an int, got {shown(value)}.") from None


def axes(name: str, value: Any) -> int | tuple[int, ...]:
    """An axis, or a tuple of axes."""
    several = isinstance(value, Iterable) and getattr(value, "shape", None) != ()
    try:
        if several:
            return tuple(integer(name, axis) for axis in value)
        return integer(name, value)
    except TypeError:
        raise TypeError(
            f"{name} must be an int or a sequence of ints, got {shown(value)}."
        ) from None


def checked_shape(shape: Any) -> tuple[int, ...]:
    """The shape as a tuple of non-negative Python ints, of not too many entries."""
    try:
        checked = tuple(integer("shape", size) for size in shape)
    except TypeError:
        raise TypeError(
            f"shape must be a sequence of ints, such as (3, 4), got {shown(shape)}."
        ) from None
    if any(size < 0 for size in checked):
        raise ValueError(f"shape must have no negative size, got {shown(checked)}.")
    if max((math.prod(checked), *checked)) > _MOST:
        raise ValueError(
            f"shape must have at most 2**63 - 1 entries, got {shown(checked)}."
        )
    return checked


def shown(value: Any) -> str:
    """The value for an error: its `repr`, cut where it is long."""
    try:
        text = repr(value)
    except ValueError:  # Python prints no integers of more than 4300 digits
        return f"a {type(value).__name__} too large to print"
    return text if len(text) <= 200 else f"{text[:160]}... ({len(text)} characters)"
