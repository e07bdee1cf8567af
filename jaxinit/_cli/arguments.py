"""Arguments of the command line: text to checked values."""

import argparse
import os
import re
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from jaxinit._array.settings import dtype_of


def add_draw(parser: argparse.ArgumentParser, what: str, **options: Any) -> None:
    """Adds `--input`, of which `what` tells, and `--seed`."""
    parser.add_argument(
        "--input",
        dest="inputs",
        type=shape_and_dtype,
        action="append",
        metavar="SHAPE:DTYPE",
        help=f"{what}; once per argument",
        **options,
    )
    parser.add_argument("--seed", type=seed, default=0, help="an integer (default: 0)")


def seed(text: str) -> int:
    if not re.fullmatch(r"\d+", text) or int(text) >= 2**32:
        raise argparse.ArgumentTypeError(f"{text!r} is not an integer in [0, 2**32)")
    return int(text)


def _dtype(text: str) -> Any:
    try:
        dtype = jnp.dtype(text)
    except TypeError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a dtype of JAX") from None
    try:
        dtype_of("dtype", dtype)
    except TypeError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    if jax.dtypes.canonicalize_dtype(dtype) != dtype:
        raise argparse.ArgumentTypeError(f"{text} needs JAX_ENABLE_X64=1")
    return dtype


def floating_dtype(text: str) -> Any:
    dtype = _dtype(text)
    if not jnp.issubdtype(dtype, jnp.floating):
        raise argparse.ArgumentTypeError(
            f"{text} is not floating-point: choose bfloat16, float16, float8_e4m3fn ..."
        )
    return dtype


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
    _check_folder(path.parent)
    return path


def folder(text: str) -> Path:
    path = Path(text).absolute()
    if path.exists() and not path.is_dir():
        raise argparse.ArgumentTypeError(f"{text} exists already and is no folder")
    _check_folder(path if path.exists() else path.parent)
    return path


def positive(text: str) -> int:
    if not re.fullmatch(r"\d+", text) or not 0 < int(text) < 2**31:
        raise argparse.ArgumentTypeError(f"{text!r} is not an integer in [1, 2**31)")
    return int(text)


def _check_folder(path: Path) -> None:
    if not path.is_dir():
        raise argparse.ArgumentTypeError(f"there is no folder {path}")
    if not os.access(path, os.W_OK):
        raise argparse.ArgumentTypeError(f"the folder {path} is not writable")
