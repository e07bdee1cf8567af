"""Values of rules: initializers, and functions of a leaf that return one."""

import inspect
from collections.abc import Callable
from typing import Any

import jax

from jaxinit._tree.leaf import Leaf
from jaxinit.initializers.base import Initializer


def maker(name: str, value: Any) -> Callable[[Leaf], Callable[..., jax.Array]]:
    """A function of a leaf that returns its initializer.

    Args:
        name: what errors call the value.
        value: an initializer, or a function of the leaf.

    Raises:
        TypeError: if it is neither.
    """
    if is_initializer(value):
        return lambda leaf: value
    if is_factory(value):
        raise TypeError(
            f"{name} is {value!r}, which makes initializers: {call_it(value)}."
        )
    if isinstance(value, type):
        raise TypeError(
            f"{name} is the class {value.__name__}, which makes no initializers: it "
            "must be an initializer, such as jaxinit.he_normal(), or a function of the "
            "leaf."
        )
    if not callable(value):
        raise TypeError(
            f"{name} must be an initializer, such as jaxinit.he_normal(), or a "
            f"function of the leaf, got {value!r}."
        )
    return lambda leaf: _returned(value, leaf)


def _returned(function: Callable[[Leaf], Any], leaf: Leaf) -> Callable[..., jax.Array]:
    initializer = function(leaf)
    if not is_initializer(initializer):
        text = f"its rule, a function of the leaf, returned {initializer!r}"
        raise TypeError(text)
    return initializer


def call_it(value: Any) -> str:
    """What to write instead of a function that makes what is wanted."""
    name = getattr(value, "__name__", repr(value))
    return f"it is to be called, so write {name}()"


_BY_POSITION = (
    inspect.Parameter.POSITIONAL_ONLY,
    inspect.Parameter.POSITIONAL_OR_KEYWORD,
)


def is_initializer(value: Any) -> bool:
    """Whether `value` is called with a key and a shape, as jax's initializers are.

    Neither may have a default: `lambda leaf, depth=12: ...` is a function of a leaf.
    """
    if isinstance(value, Initializer):
        return True
    given = [p for p in _parameters(value) or () if p.kind in _BY_POSITION]
    required = [p for p in given if p.default is p.empty]
    return len(required) >= 2 and not isinstance(value, type)


def is_factory(value: Any) -> bool:
    """Whether `value` makes initializers, as `he_normal` and jax's factories do."""
    if isinstance(value, type):
        return issubclass(value, Initializer)
    parameters = _parameters(value)
    return parameters is not None and all(
        p.default is not p.empty for p in parameters[:1]
    )


def _parameters(value: Any) -> list[inspect.Parameter] | None:
    """The parameters of a function; None where they are not known."""
    try:
        return list(inspect.signature(value).parameters.values())
    except (TypeError, ValueError):
        return None
