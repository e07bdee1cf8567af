"""What the commands have in common when something goes wrong."""

import contextlib
import importlib
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

from jaxinit._cli.target import TargetError, one_line


class CommandError(Exception):
    """What went wrong, in one line for the user."""

    status = 1


class UsageError(CommandError):
    """What was wrong with the arguments, in one line for the user."""

    status = 2


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


@contextlib.contextmanager
def failing(what: str) -> Iterator[None]:
    """Says in one line why something failed, such as "running netfile:Net"."""
    try:
        yield
    except (CommandError, TargetError):
        raise
    except (Exception, SystemExit) as error:
        raise CommandError(f"{what} failed: {one_line(error)}") from error


@contextlib.contextmanager
def writing() -> Iterator[None]:
    """Writes what was printed, so that what goes wrong with that is seen here."""
    try:
        yield
        if sys.stdout is not None:  # closed, as by `>&-`
            sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        discard_output()
        raise CommandError(
            f"could not write to standard output: {error.strerror}"
        ) from error


def discard_output() -> None:
    """Points standard output to nowhere, lest Python fail again as it closes it."""
    with contextlib.suppress(OSError, ValueError):  # of a stream that is no file
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
