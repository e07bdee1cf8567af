"""The command line: `python -m jaxinit init module:name` and other commands."""

import argparse
import contextlib
import os
import platform
import sys
from collections.abc import Sequence
from typing import NoReturn

import jax

from jaxinit._cli import audit, check, compare, completion, init, roles, signal
from jaxinit._cli.errors import CommandError, UsageError, discard_output, writing
from jaxinit._cli.target import TargetError
from jaxinit._version import __version__

_EPILOG = """\
A model is named as module:name, as in Python's imports: examples.gpt2:small is
`small` in the file examples/gpt2.py. Run jaxinit from the folder where that
import works. `jaxinit COMMAND --help` has examples.
"""
_INTERRUPTED, _NOBODY_READS = 130, 141  # 128 and the numbers of SIGINT and SIGPIPE


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} (see {self.prog} --help)")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="jaxinit",
        description="Initialises JAX models, and says what they start from.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--version",
        action="version",
        version=_version(),
        help="print the versions of jaxinit, jax and Python, and exit",
    )
    commands = parser.add_subparsers(
        title="commands", dest="command", metavar="command", required=True
    )
    init.add(commands)
    roles.add(commands)
    signal.add(commands)
    audit.add(commands)
    compare.add(commands)
    check.add(commands)
    return parser


def _version() -> str:
    python = platform.python_version()
    return f"jaxinit {__version__}, jax {jax.__version__}, Python {python}"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line.

    Args:
        argv: the arguments, those of the process if None.

    Returns:
        The exit status: 0; 1 after one line on standard error for what failed, or 2 for
        what was wrong with the arguments; 130 if interrupted; 141 if nobody reads on.
    """
    try:
        return _status(argv)
    except BrokenPipeError:
        discard_output()
        return _NOBODY_READS


def _status(argv: Sequence[str] | None) -> int:
    try:
        _run(argv)
    except (CommandError, TargetError) as error:
        print(f"jaxinit: {error}", file=sys.stderr)
        return error.status
    except KeyboardInterrupt:
        print("jaxinit: interrupted", file=sys.stderr)
        return _INTERRUPTED
    return 0


def _run(argv: Sequence[str] | None) -> None:
    try:
        parser = _parser()
        completion.offer(parser)
        options = parser.parse_args(argv)
        with contextlib.suppress(OSError):  # in a folder that was removed
            if os.getcwd() not in sys.path:
                sys.path.insert(0, os.getcwd())
        options.run(options)
    finally:
        with writing():
            pass  # what was printed elsewhere, such as by --help
