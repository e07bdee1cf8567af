"""Types of an initializer's settings, each with its check.

A setting is declared as a dataclass field of one of these types. The check runs when
the initializer is built: it returns the value in the form that is stored (hashable,
picklable, printable) or raises with the name of the argument, the value, what is
allowed and the fix.
"""

import functools
import inspect
import math
import typing
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jaxinit._basics.integers import axes, integer, is_boolean, shown

Check = Callable[[str, Any], Any]
_PYTHON_DTYPES = {kind.__name__: kind for kind in (bool, int, float, complex)}


def refuse_tracer(name: str, value: Any) -> None:
    """Raises if `value` is traced: settings decide what is compiled."""
    if any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(value)):
        raise TypeError(
            f"{name} must be a concrete value, got the tracer {value}. Build the "
            "initializer outside the transformed function and close over it, or "
            "multiply what it returns by the traced value."
        )


def number(name: str, value: Any) -> float:
    """A real number, infinities included, as a Python float."""
    refuse_tracer(name, value)
    scalar = _scalar(value)
    is_real = isinstance(scalar, int | float) and not is_boolean(scalar)
    if not is_real or scalar != scalar:
        raise ValueError(f"{name} must be a real number, got {shown(value)}.")
    try:
        return float(scalar) + 0.0  # no negative zero: it equals zero yet acts apart
    except OverflowError:
        raise ValueError(
            f"{name} must be a number that a float can hold, got {shown(value)}."
        ) from None


def _scalar(value: Any) -> Any:
    """A Python number of an array of one, where it is of numbers; else as it is."""
    is_number = isinstance(value, np.generic | np.ndarray | jax.Array) and (
        jnp.issubdtype(value.dtype, np.number)
    )
    is_other = hasattr(value, "item") and not hasattr(value, "dtype")
    single = getattr(value, "shape", None) == ()
    return value.item() if single and (is_number or is_other) else value


def finite(name: str, value: Any) -> float:
    """A finite real number, as a Python float."""
    checked = number(name, value)
    if math.isinf(checked):
        raise ValueError(f"{name} must be finite, got {shown(value)}.")
    return checked


def nonnegative(name: str, value: Any) -> float:
    """A finite number that is zero or greater, as a Python float."""
    checked = finite(name, value)
    if checked < 0:
        raise ValueError(f"{name} must be zero or greater, got {shown(value)}.")
    return checked


def positive(name: str, value: Any) -> float:
    """A finite number greater than zero, as a Python float."""
    checked = finite(name, value)
    if checked <= 0:
        raise ValueError(f"{name} must be greater than zero, got {shown(value)}.")
    return checked


def fraction(name: str, value: Any) -> float:
    """A number from zero to one, as a Python float."""
    checked = number(name, value)
    if not 0 <= checked <= 1:
        raise ValueError(f"{name} must be between 0 and 1, got {shown(value)}.")
    return checked


def count(name: str, value: Any, least: int = 1) -> int:
    """A whole number of at least `least`, as a Python int."""
    refuse_tracer(name, value)
    try:
        if (checked := integer(name, value)) >= least:
            return checked
    except TypeError:
        pass
    raise ValueError(f"{name} must be an int of at least {least}, got {shown(value)}.")


def _optional_number(name: str, value: Any) -> float | None:
    return None if value is None else finite(name, value)


def _axis(name: str, value: Any) -> int:
    refuse_tracer(name, value)
    return integer(name, value)


def _axes(name: str, value: Any) -> int | tuple[int, ...]:
    refuse_tracer(name, value)
    return axes(name, value)


def _flag(name: str, value: Any) -> bool:
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} must be True or False, got {shown(value)}.")
    return bool(value)


def dtype_of(name: str, value: Any) -> Any:
    """None, one of Python's number types (jax's default of its kind), or a dtype.

    The types may be given by name, as they are printed.
    """
    if isinstance(value, str):
        value = _PYTHON_DTYPES.get(value, value)
    if value is None or any(value is kind for kind in _PYTHON_DTYPES.values()):
        return value
    try:
        checked = np.dtype(value)
    except (TypeError, ValueError):
        checked = None
    if checked is None or checked.shape or checked.fields:
        raise TypeError(
            f"{name} must be a dtype such as jax.numpy.float32, got {shown(value)}."
        )
    if checked.name in _UNABLE:
        raise TypeError(
            f"{name} {checked.name} {_UNABLE[checked.name]}. Narrow dtypes that arrays "
            "can be made in are bfloat16, float16, the other float8 dtypes, "
            "float4_e2m1fn and, for constants, integers of 2 bits or more."
        )
    return checked


# Dtypes that NumPy knows, and why no array of them can be made.
_UNABLE = {
    "float6_e2m3fn": "ends the process: XLA cannot compile it",
    "float6_e3m2fn": "ends the process: XLA cannot compile it",
    "float8_e8m0fnu": "has neither a zero nor a sign, being made for scale factors",
    "int1": "holds 0 and -1 alone, and XLA cannot compile it everywhere",
    "uint1": "is one that XLA cannot compile",
    "complex32": "does not exist in jax",
}


def choice(*allowed: str) -> Check:
    """The check that a setting is one of `allowed`."""

    def check(name, value):
        if not isinstance(value, str) or value not in allowed:
            options = ", ".join(map(repr, allowed))
            raise ValueError(f"{name} must be one of {options}, got {shown(value)}.")
        return value

    return check


Number = Annotated[float, number]
Finite = Annotated[float, finite]
NonNegative = Annotated[float, nonnegative]
Positive = Annotated[float, positive]
Fraction = Annotated[float, fraction]
OptionalFinite = Annotated[float | None, _optional_number]
Axis = Annotated[int, _axis]
Axes = Annotated[int | Sequence[int], _axes]
Flag = Annotated[bool, _flag]
DType = Annotated[Any, dtype_of]
Mode = Annotated[
    Literal["fan_in", "fan_out", "fan_avg", "fan_geo_avg"],
    choice("fan_in", "fan_out", "fan_avg", "fan_geo_avg"),
]
Distribution = Annotated[
    Literal["truncated_normal", "normal", "uniform"],
    choice("truncated_normal", "normal", "uniform"),
]


def take_checks(cls: type) -> None:
    """Takes the checks out of a new class's annotations, which are printed by `help`.

    Annotations that are strings are left as they are, as names in them may come later.
    """
    plain = inspect.get_annotations(cls)
    taken = {
        name: hint.__metadata__[0]
        for name, hint in plain.items()
        if typing.get_origin(hint) is Annotated
    }
    if taken:
        plain.update({name: plain[name].__origin__ for name in taken})
        cls.__annotations__ = plain
        inherited = getattr(cls, "_taken", {})
        cls._taken = {**inherited, **taken}  # pyright: ignore[reportAttributeAccessIssue]


@functools.cache
def checks(cls: type) -> dict[str, Check]:
    """The check of every field of `cls` that is declared with one."""
    taken = getattr(cls, "_taken", {})
    hints = typing.get_type_hints(cls, include_extras=True)
    return {
        name: taken[name] if name in taken else hint.__metadata__[0]
        for name, hint in hints.items()
        if name in taken or typing.get_origin(hint) is Annotated
    }
