"""The command `jaxinit audit module:name`, or of a file."""

import argparse
import contextlib
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from jaxinit._audit.printing import counted
from jaxinit._audit.result import SEVERITIES
from jaxinit._cli import arguments, completion
from jaxinit._cli.errors import (
    CommandError,
    UsageError,
    failing,
    show,
    writing,
)
from jaxinit._cli.files import read
from jaxinit._cli.target import (
    TargetError,
    init_function,
    is_model,
    load,
    one_line,
    roles_of,
    rounded,
    uncalled,
)
from jaxinit._compile.jit import jit
from jaxinit.audit import Audit, audit

_EXAMPLES = """examples:
  jaxinit audit examples.gpt2:GPT2 --input 2x64:int32
  jaxinit audit examples.gpt2_nnx:small --seed 3
  jaxinit audit gpt2.safetensors --fail-on warning
  jaxinit audit checkpoints/1000 --json
"""
_STYLES = {
    r"(?m)^error, .*?:": "bold red",
    r"(?m)^warning, .*?:": "bold yellow",
    r"(?m)^note, .*?:": "bold",
}


def add(commands: Any) -> None:
    """Adds the command to a parser."""
    parser = arguments.add_command(
        commands,
        "audit",
        "name the initializer of each parameter, and say what is wrong",
        "Names the initializer that seems to have drawn each parameter of a model or "
        "a file, and says what is wrong or worth knowing.",
        _EXAMPLES,
    )
    target = parser.add_argument(
        "target",
        help="module:name, as `jaxinit init` takes, whose parameters are drawn first; "
        "or a .safetensors or .npz file, or the folder of an Orbax checkpoint",
    )
    completion.complete(target, completion.targets_or_files)
    what = (
        "shape and dtype of what the model is called on, such as 2x64:int32, with "
        "every axis longer than 1, so that the audit knows what each parameter is for"
    )
    arguments.add_draw(parser, what, default=[])
    arguments.add_dtype(parser)
    parser.add_argument(
        "--fail-on",
        choices=SEVERITIES,
        help="exit with status 1 if something this severe, or worse, is found",
    )
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object instead of text"
    )
    parser.set_defaults(run=_run, seed=None)


def _run(options: argparse.Namespace) -> None:
    # The target may print, and standard output is for the audit.
    with (
        contextlib.redirect_stdout(sys.stderr),
        failing(f"auditing {options.target}"),
    ):
        params, roles = _from_file(options) if _is_file(options) else _drawn(options)
        found = audit(params, roles)
    with writing():
        if options.json:
            values = {"target": options.target, **found.as_json()}
            print(json.dumps(values, allow_nan=False))
        else:
            show(found, _STYLES)
    if options.fail_on is not None:
        _fail(found, options.fail_on)


def _is_file(options: argparse.Namespace) -> bool:
    if not options.target:
        raise UsageError("the target is empty: name a model, a file or a folder")
    return os.path.lexists(options.target) or ":" not in options.target


def _from_file(options: argparse.Namespace) -> tuple[Any, None]:
    given = {
        "--input": options.inputs,
        "--arg": options.keywords,
        "--seed": options.seed is not None,
        "--dtype": options.dtype is not None,
    }
    if wrong := [name for name, is_given in given.items() if is_given]:
        raise UsageError(
            f"{options.target} is a file or folder, not of the form module:name, and "
            f"takes no {' and no '.join(wrong)}"
        )
    return read(Path(options.target)), None


def _drawn(options: argparse.Namespace) -> tuple[Any, Any]:
    """The parameters that a target draws, and their roles if they can be found."""
    target, inputs, keywords = load(options.target), options.inputs, options.keywords
    roles = None
    if inputs and is_model(target):
        model, calls = uncalled(target, keywords)
        if hasattr(model, "apply"):
            roles = _roles_or_why_none(target, options)
            target, keywords = model, calls
        else:  # Flax NNX, where inputs and keywords of the call are for roles alone
            roles = roles_of(target, inputs, keywords)
            target, inputs, keywords = model, [], {}
    init = init_function(target, inputs, keywords)
    if options.dtype is not None:
        init = rounded(init, options.dtype)
    tree = jit(init)(jax.random.key(options.seed or 0))
    is_flax = isinstance(tree, Mapping) and "params" in tree
    return tree["params"] if is_flax else tree, roles


def _roles_or_why_none(target: Any, options: argparse.Namespace) -> Any:
    """The roles; None, and a line that says why, if they cannot be read."""
    try:
        return roles_of(target, options.inputs, options.keywords)
    except TargetError:
        raise
    except Exception as error:
        print(f"jaxinit: no roles were found: {one_line(error)}", file=sys.stderr)
        return None


def _fail(found: Audit, severity: str) -> None:
    if number := len(found.at_least(severity)):
        worse = "" if severity == SEVERITIES[-1] else " or worse"
        raise CommandError(
            f"{counted(number, 'finding')} of severity {severity}{worse}"
        )
