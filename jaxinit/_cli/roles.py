"""The command `jaxinit roles module:name`."""

import argparse
import contextlib
import json
import sys
from typing import Any

from jaxinit._cli import arguments
from jaxinit._cli.errors import failing, fitted, writing
from jaxinit._cli.target import load, roles_of

_EXAMPLES = """examples:
  jaxinit roles examples.gpt2:GPT2 --input 2x64:int32
  jaxinit roles examples.resnet:RESNET18 --input 8x64x64x3:float32 --json
"""


def add(commands: Any) -> None:
    """Adds the command to a parser."""
    parser = arguments.add_command(
        commands,
        "roles",
        "print what each parameter is for, as read from the computation",
        "Traces a Flax model without running it, and prints what each of its "
        "parameters is for: kernel, bias, embedding, scale, query and so on.",
        _EXAMPLES,
    )
    arguments.add_model(parser)
    what = (
        "shape and dtype of what the model is called on, such as 2x64:int32, with "
        "every axis longer than 1"
    )
    arguments.add_call(parser, what, required=True)
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object instead of a table"
    )
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> None:
    # The target may print, and standard output is for the table.
    with (
        contextlib.redirect_stdout(sys.stderr),
        failing(f"tracing {options.target}"),
    ):
        target = load(options.target)
        found = roles_of(target, options.inputs, options.keywords)
    with writing():
        print(json.dumps(found.as_json()) if options.json else fitted(found))
