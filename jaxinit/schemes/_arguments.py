"""Types of the arguments of schemes, each with a check."""

import functools
import inspect
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, ParamSpec, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxinit._tree.rules import Rules
from jaxinit.initializers import settings
from jaxinit.initializers.base import Initializer, checked_initializer
from jaxinit.initializers.gain import Activation
from jaxinit.initializers.settings import Check, finite, nonnegative, positive

_P = ParamSpec("_P")
_R = TypeVar("_R")
_MOST = 10**6  # layers, heads, or units


def _no_bool(check: Check) -> Check:
    """The check, refusing bools too, which Python takes for numbers."""

    @functools.wraps(check)
    def checked(name: str, value: Any) -> Any:
        if isinstance(value, bool | np.bool_):
            raise ValueError(f"{name} must be a number, got {value!r}.")
        return check(name, value)

    return checked


def _count(least: int) -> Check:
    @_no_bool
    def check(name: str, value: Any) -> int:
        checked = settings.count(name, value, least)
        if checked > _MOST:
            shown = "a greater one" if checked > 10**30 else checked
            raise ValueError(f"{name} must be an int of at most {_MOST}, got {shown}.")
        return checked

    return check


def _pair(name: str, value: Any) -> tuple[float, float]:
    if not isinstance(value, Sequence | np.ndarray) or len(value) != 2:
        raise ValueError(
            f"{name} must be two numbers, the factors of Z and of I, got {value!r}."
        )
    first, second = (_no_bool(finite)(name, x) for x in value)
    return first, second


def _rest(name: str, value: Any) -> Rules | None:
    if value is None:
        return None
    if not isinstance(value, Rules | Mapping):
        raise TypeError(
            f"{name} must be rules, such as jaxinit.schemes.flax(), or None, got "
            f"{value!r}."
        )
    return Rules(value)


def _activation(name: str, value: Any) -> Any:
    if isinstance(value, str) or callable(value):
        return value
    raise TypeError(
        f"{name} must be a function such as jax.nn.relu, or its name, got {value!r}."
    )


def amount(name: str, value: Any) -> Any:
    """A number of at least zero; or a scalar array, which may be traced."""
    is_array = isinstance(value, jax.Array) and value.shape == ()
    if is_array and jnp.issubdtype(value.dtype, np.number):
        return value
    return _no_bool(nonnegative)(name, value)


def rate(name: str, value: Any) -> Any:
    """An amount; or a schedule, a function."""
    return value if callable(value) else amount(name, value)


def _or_none(check: Check) -> Check:
    @functools.wraps(check)
    def checked(name: str, value: Any) -> Any:
        return None if value is None else check(name, value)

    return checked


Count = Annotated[int, _count(1)]
Given = Annotated[Initializer | None, _or_none(checked_initializer)]
Found = Annotated[int | None, _or_none(_count(1))]  # None: read from the computation
CountOrNone = Annotated[int, _count(0)]


FanMode = Annotated[str, settings.choice("fan_in", "fan_out")]
DenseKernel = Annotated[str, settings.choice("glorot", "orthogonal")]
GanKernel = Annotated[str, settings.choice("he", "glorot")]
Deviation = Annotated[float, _no_bool(nonnegative)]
Share = Annotated[float, _no_bool(positive)]
Pair = Annotated[Sequence[float], _pair]
Nonlinearity = Annotated[Activation | str, _activation]
Rest = Annotated[Rules | None, _rest]


def checked(function: Callable, *args: Any, **kwargs: Any) -> inspect.BoundArguments:
    """The arguments of a call; those whose parameters have such types are checked.

    Args:
        function: the function.
        *args: its positional arguments.
        **kwargs: its keyword arguments.

    Returns:
        The arguments that were given, as the checks return them.

    Raises:
        TypeError: if they do not fit the function.
        ValueError: if one is out of range; the errors of the checks.
    """
    bound = inspect.signature(function).bind(*args, **kwargs)
    checks = settings.checks(function)
    for name, value in bound.arguments.items():
        if name in checks:
            bound.arguments[name] = checks[name](name, value)
    return bound


def with_checks(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """The function, with its arguments checked."""

    @functools.wraps(function)
    def call(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        given = checked(function, *args, **kwargs)
        return function(*given.args, **given.kwargs)

    call.__signature__ = plain_signature(function)  # pyright: ignore - inspect's own
    return call


def plain_signature(function: Callable) -> inspect.Signature:
    """The signature of a function with plain types, without checks, for help."""
    hints = typing.get_type_hints(function)
    signature = inspect.signature(function)
    return signature.replace(
        parameters=[
            parameter.replace(annotation=hints.get(name, parameter.annotation))
            for name, parameter in signature.parameters.items()
        ],
        return_annotation=hints.get("return", signature.return_annotation),
    )
