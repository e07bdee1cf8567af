"""What the commands have in common when something goes wrong."""

import importlib
from collections.abc import Callable
from typing import Any


class CommandError(Exception):
    """What went wrong, in one line for the user."""


def needed(module: str, extra: str = "cli") -> Any:
    """A module that needs packages which an extra of jaxinit brings."""
    return installed(lambda: importlib.import_module(module), extra)


def installed(load: Callable[[], Any], extra: str = "cli") -> Any:
    """What `load` returns, where the packages that it imports are there."""
    try:
        return load()
    except ModuleNotFoundError as error:
        raise CommandError(
            f"{error.name} is not installed: pip install 'jaxinit[{extra}]'"
        ) from error
