"""Errors for rules that cannot be pickled: pickle names the function, not the rule."""

import pickle
import sys
from collections.abc import Iterable
from typing import Any

_BY_VALUE = {"cloudpickle", "dill"}  # they pickle lambdas and local functions too


def refuse_unpicklable(pairs: Iterable[tuple[Any, Any]]) -> None:
    """Raises if a pattern or a value cannot be pickled, naming the rule.

    Args:
        pairs: pairs of a pattern and a value.

    Raises:
        TypeError: naming the first rule that cannot be pickled, and why.
    """
    if _is_by_value():
        return
    for pattern, value in pairs:
        for what, item in (("pattern", pattern), ("value", value)):
            try:
                pickle.dumps(item)
            except Exception as error:  # of any kind: a class may be the user's
                raise TypeError(
                    f"the rule for {pattern!r} cannot be pickled, because of its "
                    f"{what} {item!r}: {error}. Use a glob or an initializer, or "
                    "define the function by name at the top of a module."
                ) from error


def _is_by_value() -> bool:
    """Whether a pickler is at work that saves functions by their code."""
    frame = sys._getframe()
    while frame is not None:
        if frame.f_globals.get("__name__", "").partition(".")[0] in _BY_VALUE:
            return True
        frame = frame.f_back
    return False
