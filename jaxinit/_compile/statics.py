"""Static arguments."""

import inspect
from collections.abc import Iterable
from typing import Any

import jax


class Statics:
    """Which arguments are static, by the rules of `jax.jit`."""

    def __init__(self, fun, static_argnums, static_argnames):
        numbers, names = _as_tuple(static_argnums), _as_tuple(static_argnames)
        try:
            parameters = list(inspect.signature(fun).parameters.values())
        except (TypeError, ValueError):
            parameters = []
        either = inspect.Parameter.POSITIONAL_OR_KEYWORD
        name_of = {i: p.name for i, p in enumerate(parameters) if p.kind is either}
        # jax infers whichever of the two is not given from the other.
        if static_argnames is None:
            size = len(parameters)
            names = tuple(
                name_of[n % size] for n in numbers if size and n % size in name_of
            )
        elif static_argnums is None:
            numbers = tuple(i for i, name in name_of.items() if name in names)
        self._numbers, self._names = numbers, frozenset(names)

    def dynamic_leaves(self, args: tuple, kwargs: dict) -> list[Any]:
        """The flat arguments of a call that are not static."""
        count = len(args)
        static = {n % count for n in self._numbers if -count <= n < count}
        positional = tuple(arg for i, arg in enumerate(args) if i not in static)
        named = {k: v for k, v in kwargs.items() if k not in self._names}
        return jax.tree.leaves((positional, named))


def _as_tuple(value: Any) -> tuple:
    if value is None:
        return ()
    is_one = isinstance(value, str) or not isinstance(value, Iterable)
    return (value,) if is_one else tuple(value)
