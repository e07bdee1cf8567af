"""What the shell completes when Tab is pressed, by the package argcomplete.

Nothing is imported to complete a target: names are read from the source.
"""

import argparse
import ast
import contextlib
import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

_Completer = Callable[..., Iterable[str]]


def offer(parser: argparse.ArgumentParser) -> None:
    """Answers the shell and exits, if this process was started to complete a line."""
    if "_ARGCOMPLETE" in os.environ:
        with contextlib.suppress(ModuleNotFoundError):
            import argcomplete

            argcomplete.autocomplete(parser, exit_method=sys.exit)


def complete(action: argparse.Action, completer: _Completer) -> None:
    """Lets a function of the typed `prefix` complete the values of an argument."""
    action.completer = completer  # pyright: ignore - argcomplete looks for it


def choices(names: Iterable[str]) -> _Completer:
    """Completes one of some names."""
    return lambda **_: names


def targets(prefix: str, **_: Any) -> list[str]:
    """Modules below this folder, or after a colon the public names of one.

    >>> targets("examples.gpt2_")
    ['examples.gpt2_nnx:']
    >>> targets("examples.gpt2_nnx:s")
    ['examples.gpt2_nnx:small']
    """
    module, colon, _name = prefix.partition(":")
    found = _names(module) if colon else _modules(module.rpartition(".")[0])
    return [name for name in found if name.startswith(prefix)]


def targets_or_files(prefix: str, **_: Any) -> list[str]:
    """What `targets` gives, and files and folders."""
    from argcomplete.completers import FilesCompleter

    return [*targets(prefix), *FilesCompleter()(prefix)]


def _modules(package: str) -> list[str]:
    """The modules in a folder, and in the folders in it."""
    folder = Path(*package.split("."))
    paths = sorted([*folder.glob("*.py"), *folder.glob("*/*.py")])
    found = [path.relative_to(folder).with_suffix("").parts for path in paths]
    return [
        ".".join((*filter(None, [package]), *names)) + ":"
        for names in found
        if all(name.isidentifier() and name[0] != "_" for name in names)
    ]


def _names(module: str) -> list[str]:
    path = Path(*module.split("."))
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    try:
        body = ast.parse(path.read_bytes()).body
    except (OSError, SyntaxError, ValueError):
        return []
    names = [name for statement in body for name in _defined(statement)]
    return [f"{module}:{name}" for name in names if not name.startswith("_")]


def _defined(statement: ast.stmt) -> list[str]:
    match statement:
        case ast.FunctionDef(name) | ast.ClassDef(name):
            return [name]
        case ast.Assign(targets=bound):
            parts = [part for target in bound for part in ast.walk(target)]
            return [part.id for part in parts if isinstance(part, ast.Name)]
        case ast.AnnAssign(target=ast.Name(name)):
            return [name]
    return []
