"""What the commands print, and their errors, each as one line for the user."""

import contextlib
import importlib
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TextIO

from jaxinit._basics.table import Tabular
from jaxinit._cli.target import TargetError, one_line


class CommandError(Exception):
    """An error, in one line for the user."""

    status = 1


class UsageError(CommandError):
    """An error in the arguments, in one line for the user."""

    status = 2


def needed(module: str, extra: str = "cli") -> Any:
    """A module that needs the packages of an extra of jaxinit."""
    return installed(lambda: importlib.import_module(module), extra)


def installed(load: Callable[[], Any], extra: str = "cli") -> Any:
    """What `load` returns; an error names a package that is not installed."""
    try:
        return load()
    except ModuleNotFoundError as error:
        raise CommandError(
            f"{error.name} is not installed: pip install 'jaxinit[{extra}]'"
        ) from error


@contextlib.contextmanager
def failing(what: str) -> Iterator[None]:
    """Turns an exception into one line; `what` is such as "running netfile:Net"."""
    try:
        yield
    except (CommandError, TargetError):
        raise
    except (Exception, SystemExit) as error:
        raise CommandError(f"{what} failed: {one_line(error)}") from error


@contextlib.contextmanager
def writing() -> Iterator[None]:
    """Flushes standard output, so that errors of writing are raised here."""
    try:
        yield
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        discard_output()
        raise CommandError(
            f"could not write to standard output: {error.strerror}"
        ) from error


def is_terminal(stream: TextIO | None) -> bool:
    """Whether somebody reads along; a stream that was closed, as by `>&-`, is None."""
    return stream is not None and stream.isatty()


def fitted(table: Tabular) -> str:
    """A table as text; with one line for each cell if rows would wrap."""
    if not is_terminal(sys.stdout):
        return str(table)
    return table.text(shutil.get_terminal_size().columns)


def show(table: Tabular, styles: Mapping[str, str]) -> None:
    """Prints a table, fitted; in a terminal, what matches a pattern in its style."""
    text = fitted(table)
    if is_terminal(sys.stdout):
        with contextlib.suppress(CommandError):  # without rich there are no colours
            coloured = needed("rich.text").Text(text)
            for pattern, style in styles.items():
                coloured.highlight_regex(re.compile(pattern), style)
            needed("rich.console").Console().print(coloured, soft_wrap=True)
            return
    print(text)


def discard_output() -> None:
    """Points standard output to nowhere, or Python would fail again on closing it."""
    with contextlib.suppress(OSError, ValueError):  # if the stream is no file
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
