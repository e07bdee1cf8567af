"""Arguments of a call that say whether a model is trained."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

# What they say while a model is trained.
_SWITCHES = {
    "train": True,
    "training": True,
    "is_training": True,
    "deterministic": False,
    "use_running_average": False,
}


def switched(
    call: Callable[..., Any], options: Mapping[str, Any], train: bool
) -> dict[str, Any]:
    """Keyword arguments of a call that say whether the model is trained.

    Args:
        call: what is called.
        options: the arguments that are given; they go first.
        train: whether the model is trained.
    """
    try:
        known = inspect.signature(call).parameters
    except (TypeError, ValueError):  # of a function that Python cannot look into
        known = {}
    switches = {k: v == train for k, v in _SWITCHES.items() if k in known}
    return {**switches, **options}
