"""Makers: the classes and functions that, when called, give an initializer.

`he_normal` is one and `he_normal()` is what it makes. The two are easily taken for each
other, as a maker too is called with parentheses: what is said then is said here.
"""

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any, ParamSpec, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

_P = ParamSpec("_P")
_R = TypeVar("_R")


def maker(fn: Callable[_P, _R]) -> Callable[_P, _R]:
    """Marks a function that makes initializers, and says so where it is to draw."""

    @functools.wraps(fn)
    def make(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        refuse_drawing(fn, args)
        try:
            return fn(*args, **kwargs)
        except (TypeError, ValueError) as error:
            if args and _is_shape(args[0]):
                raise type(error)(f"{error} {_remedy(fn)}") from None
            raise

    vars(make)["_makes_initializers"] = True
    return make


def is_maker(value: Any) -> bool:
    """Whether `value` is a class of initializers, or a function marked as a `maker`."""
    is_kind = isinstance(value, type) or inspect.isfunction(value)
    return is_kind and getattr(value, "_makes_initializers", False)


def forgotten_call(value: Any) -> str:
    """What to say after an error if `value` is a maker; empty if it is none.

    >>> import jaxinit
    >>> forgotten_call(jaxinit.he_normal)
    ' The parentheses are missing: write he_normal(), which makes one.'
    """
    if not is_maker(value):
        return ""
    return f" The parentheses are missing: write {_call(value)}, which makes one."


def refuse_drawing(made: Callable[..., Any], args: Sequence[Any]) -> None:
    """Raises if a maker is called with a key, as if it were what it makes."""
    if args and _is_key(*args):
        raise TypeError(
            f"{made.__name__} was called with a key, and draws nothing. {_remedy(made)}"
        )


def refuse_shape(made: type, check: Callable[[str, Any], Any], value: Any) -> None:
    """Raises if a class is given a shape where its first setting takes none."""
    if not _is_shape(value):
        return
    try:
        check("", value)
    except (TypeError, ValueError):
        raise TypeError(
            f"{made.__name__} was called with {value!r}. {_remedy(made)}"
        ) from None


def _remedy(made: Callable[..., Any]) -> str:
    call = _call(made)
    return (
        f"{made.__name__} makes initializers: write {call}(key, shape, dtype) to draw, "
        f"and {call} where an initializer is asked for."
    )


def _call(made: Callable[..., Any]) -> str:
    parameters = inspect.signature(made).parameters.values()
    needed = any(parameter.default is parameter.empty for parameter in parameters)
    return f"{made.__name__}({'...' if needed else ''})"


def _is_key(first: Any, *others: Any) -> bool:
    """Whether a call begins with a typed key, or with a raw one and a shape."""
    if not isinstance(first, jax.Array | np.ndarray):
        return False
    if jnp.issubdtype(first.dtype, jax.dtypes.prng_key):
        return True
    is_raw = first.dtype == np.uint32 and first.ndim == 1
    return is_raw and bool(others) and _is_shape(others[0])


def _is_shape(value: Any) -> bool:
    return isinstance(value, tuple) and all(hasattr(n, "__index__") for n in value)
