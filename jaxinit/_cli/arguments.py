"""Arguments of the command line, from text to checked values."""

import argparse
import ast
import os
import re
import tempfile
import textwrap
import warnings
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from jaxinit._cli import completion
from jaxinit.initializers.settings import dtype_of

# Dtypes to which XLA rounds and that have NaN. Others hide NaN, lack zero or the sign,
# or end the process.
ROUNDED_TO = (
    *("float16", "bfloat16", "float8_e3m4", "float8_e4m3", "float8_e4m3fn"),
    *("float8_e4m3fnuz", "float8_e4m3b11fnuz", "float8_e5m2", "float8_e5m2fnuz"),
    *("float32", "float64"),
)


def add_command(
    commands: Any, name: str, summary: str, description: str, examples: str
) -> argparse.ArgumentParser:
    """Adds a command, and returns its parser; the examples are printed as they are."""
    return commands.add_parser(
        name,
        help=summary,
        description=textwrap.fill(description, 78),
        epilog=examples,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def add_model(parser: argparse.ArgumentParser) -> None:
    """Adds the target of commands that run a model."""
    target = parser.add_argument(
        "target",
        metavar="module:name",
        help="a Flax Linen module (class or instance), or a class or function that "
        "takes rngs and makes a Flax NNX module",
    )
    completion.complete(target, completion.targets)


def add_draw(parser: argparse.ArgumentParser, what: str, **options: Any) -> None:
    """Adds `--input`, `--arg` and `--seed`; the arguments are those of `add_call`."""
    add_call(parser, what, **options)
    add_seed(parser)


def add_seed(parser: argparse.ArgumentParser) -> None:
    """Adds `--seed`."""
    parser.add_argument(
        "--seed",
        type=seed,
        default=0,
        metavar="N",
        help="seed of the random key (default: 0)",
    )


def add_dtype(parser: argparse.ArgumentParser) -> None:
    """Adds `--dtype`."""
    dtype = parser.add_argument(
        "--dtype",
        type=floating_dtype,
        help="draw in float32 and round the parameters once, such as to bfloat16",
    )
    completion.complete(dtype, completion.choices(ROUNDED_TO))


def add_call(parser: argparse.ArgumentParser, what: str, **options: Any) -> None:
    """Adds `--input` and `--arg`.

    Args:
        parser: the parser of a command.
        what: help for `--input`.
        **options: further options of `--input`.
    """
    parser.add_argument(
        "--input",
        dest="inputs",
        type=shape_and_dtype,
        action="append",
        metavar="SHAPE:DTYPE",
        help=f"{what}; repeat it for each argument",
        **options,
    )
    add_keywords(parser)


def add_keywords(parser: argparse.ArgumentParser) -> None:
    """Adds `--arg`."""
    parser.add_argument(
        "--arg",
        dest="keywords",
        type=keyword,
        action=_Keywords,
        default={},
        metavar="NAME=VALUE",
        help="a keyword argument, such as width=64 or train=true, of the class or "
        "function that makes the model or, if that does not take it, of the model's "
        "call; VALUE is a Python literal, or else text; repeat it for each argument",
    )


class _Keywords(argparse.Action):
    """Gathers keyword arguments; the same one twice is an error."""

    def __call__(self, parser, namespace, values: Any, option_string=None):
        name, value = values
        earlier = getattr(namespace, self.dest)
        if name in earlier:
            raise argparse.ArgumentError(self, f"{name} was given twice")
        setattr(namespace, self.dest, {**earlier, name: value})


def keyword(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier():
        raise argparse.ArgumentTypeError(
            f"{text!r} is not of the form NAME=VALUE, such as train=true"
        )
    return name, _value(value)


def _value(text: str) -> Any:
    words = {"true": True, "false": False, "none": None}
    if text.lower() in words:
        return words[text.lower()]
    try:
        with warnings.catch_warnings(action="ignore"):  # about invalid escapes
            return ast.literal_eval(text)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return text


def seed(text: str) -> int:
    if not re.fullmatch(r"\d{1,10}", text) or int(text) >= 2**32:
        raise argparse.ArgumentTypeError(f"{text!r} is not an integer in [0, 2**32)")
    return int(text)


def _any_dtype(text: str) -> Any:
    try:
        dtype = jnp.dtype(text)
    except TypeError:
        dtype = object
    if not any(jnp.issubdtype(dtype, kind) for kind in (jnp.number, jnp.bool_)):
        raise argparse.ArgumentTypeError(f"{text!r} is not a dtype of JAX")
    return dtype


def _dtype(text: str) -> Any:
    dtype = _any_dtype(text)
    try:
        dtype_of("dtype", dtype)
    except TypeError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    if (narrow := jax.dtypes.canonicalize_dtype(dtype)) != dtype:
        wide = text if text == str(dtype) else f"{text} is {dtype}, which"
        raise argparse.ArgumentTypeError(
            f"{wide} needs JAX_ENABLE_X64=1: set it, or write {narrow}"
        )
    return dtype


def floating_dtype(text: str) -> Any:
    if _any_dtype(text).name not in ROUNDED_TO:
        raise argparse.ArgumentTypeError(
            f"{text} is none of the dtypes to round to: {', '.join(ROUNDED_TO)}"
        )
    return _dtype(text)


def shape_and_dtype(text: str) -> jax.ShapeDtypeStruct:
    match = re.fullmatch(r"(\d+(?:x\d+)*):(\w+)", text)
    if not match:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not of the form SHAPE:DTYPE, such as 1x8:int32"
        )
    shape = tuple(int(size) for size in match[1].split("x"))
    return jax.ShapeDtypeStruct(shape, _dtype(match[2]))


def new_path(text: str) -> Path:
    path = Path(text).absolute()
    if os.path.lexists(path):
        raise argparse.ArgumentTypeError(f"{text} exists already: choose another name")
    _check_folder(path.parent, path.name)
    return path


def folder(text: str) -> Path:
    path = Path(text).absolute()
    if path.exists() and not path.is_dir():
        raise argparse.ArgumentTypeError(f"{text} exists already and is no folder")
    _check_folder(path if path.exists() else path.parent, path.name)
    return path


def positive(text: str) -> int:
    if not re.fullmatch(r"\d{1,10}", text) or not 0 < int(text) < 2**31:
        raise argparse.ArgumentTypeError(f"{text!r} is not an integer in [1, 2**31)")
    return int(text)


def _check_folder(path: Path, name: str) -> None:
    """Raises unless the folder takes a file of this name; only trying can tell."""
    if not path.is_dir():
        raise argparse.ArgumentTypeError(f"there is no folder {path}")
    try:
        with tempfile.TemporaryDirectory(".partial", f".{name}.", path):
            pass
    except OSError as error:
        raise argparse.ArgumentTypeError(
            f"nothing can be written to the folder {path}: {error.strerror}"
        ) from None
