"""The command `jaxinit check`."""

import argparse
import contextlib
import json
import sys
from collections.abc import Callable, Iterator
from typing import Any

from jaxinit._audit.printing import counted
from jaxinit._cli import arguments
from jaxinit._cli.errors import (
    CommandError,
    failing,
    is_terminal,
    needed,
    show,
    writing,
)
from jaxinit.check import PARTS, check

_EXAMPLES = """examples:
  jaxinit check --quick
  jaxinit check --parts initializers,laws --seed 3 --json
  jaxinit check --parts speed --size 1024
"""
_DIFFERS = r"(?m)\b[\d,]+ (different|differ)\b"


def add(commands: Any) -> None:
    """Adds the command to a parser."""
    parser = arguments.add_command(
        commands,
        "check",
        "compare what is promised with jax, on this device",
        "Compares initializers, jaxinit.jit and models with jax, bit for bit, on the "
        "default device and the installed jax, and times what is drawn. Exits with "
        "status 1 if anything differs.",
        _EXAMPLES,
    )
    parser.add_argument(
        "--quick", action="store_true", help="a sample of the cases, in half a minute"
    )
    parser.add_argument(
        "--parts",
        type=_parts,
        default=PARTS,
        help=f"some of {','.join(PARTS)}, separated by commas (default: all)",
    )
    arguments.add_seed(parser)
    parser.add_argument(
        "--size",
        type=arguments.positive,
        help="side of the square arrays that are timed (default: 4096, or 2048 of a "
        "sample)",
    )
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object instead of a table"
    )
    parser.set_defaults(run=_run)


def _parts(text: str) -> tuple[str, ...]:
    parts = tuple(text.split(","))
    for part in parts:
        if part not in PARTS:
            raise argparse.ArgumentTypeError(f"{part!r} is none of {', '.join(PARTS)}")
    return parts


def _run(options: argparse.Namespace) -> None:
    with (
        contextlib.redirect_stdout(sys.stderr),
        failing("checking"),
        _telling() as tell,
    ):
        names = ("quick", "size", "parts")
        settings = {name: getattr(options, name) for name in names}
        found = check(options.seed, progress=tell, **settings)
    with writing():
        if options.json:
            print(json.dumps(found.as_json(), allow_nan=False))
        else:
            show(found, {_DIFFERS: "bold red"})
    if found.different:
        raise CommandError(
            f"{found.different:,} of {counted(found.cases, 'case')} "
            f"{'differs' if found.different == 1 else 'differ'} from jax"
        )


@contextlib.contextmanager
def _telling() -> Iterator[Callable[[str], Any] | None]:
    """A function that shows what was done last, in a terminal."""
    if not is_terminal(sys.stderr):
        yield None
        return
    try:
        console = needed("rich.console").Console(stderr=True)
    except CommandError:  # without rich there is nothing to show it with
        yield None
        return
    with console.status("checking") as status:
        yield lambda line: status.update(f"checked {line}")
