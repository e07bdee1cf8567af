"""Rules that cannot be pickled are named, where pickle names a function alone."""

import pickle
import sys
from collections.abc import Iterable
from typing import Any

_BY_VALUE = {"cloudpickle", "dill"}  # which take the functions that pickle does not


def refuse_unpicklable(pairs: Iterable[tuple[Any, Any]]) -> None:
    """Raises if pickle cannot take a pattern or a value, naming the rule.

    Args:
        pairs: of a pattern and a value.

    Raises:
        TypeError: naming the first rule that cannot be pickled, and why.
    """
    if _is_by_value():
        return
    for pattern, value in pairs:
        for what, item in (("pattern", pattern), ("value", value)):
            try:
                pickle.dumps(item)
            except Exception as error:  # whatever a class of the user's raises
                raise TypeError(
                    f"the rule for {pattern!r} cannot be pickled, because of its "
                    f"{what} {item!r}: {error}. Use a glob or an initializer, or "
                    "define the function by name at the top of a module."
                ) from error


def _is_by_value() -> bool:
    """Whether a pickler is at work that takes functions by their code."""
    frame = sys._getframe()
    while frame is not None:
        if frame.f_globals.get("__name__", "").partition(".")[0] in _BY_VALUE:
            return True
        frame = frame.f_back
    return False
