"""The command `jaxinit signal module:name`."""

import argparse
import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from jaxinit._cli import arguments
from jaxinit._cli.errors import CommandError, failing, fitted, needed, writing
from jaxinit._cli.target import load, model, one_line
from jaxinit.signal import propagate

_EXAMPLES = """examples:
  jaxinit signal examples.gpt2:GPT2 --input 2x64:int32 --out pictures
  jaxinit signal examples.resnet:RESNET18 --input 8x64x64x3:float32
"""


def add(commands: Any) -> None:
    """Adds the command to a parser."""
    parser = arguments.add_command(
        commands,
        "signal",
        "send a random batch through a model, and say what is wrong, and the cure",
        "Initialises a Flax model and sends a random batch through it, forward and "
        "backward. Prints a table of its layers, and a verdict: healthy, or what is "
        "wrong, from which layer on, and the cure.",
        _EXAMPLES,
    )
    arguments.add_model(parser)
    what = (
        "shape and dtype of what the model is called on, such as 32x784:float32, the "
        "batch first; it is filled with standard normal numbers or random integers"
    )
    arguments.add_draw(parser, what, required=True)
    parser.add_argument(
        "--below",
        type=arguments.positive,
        default=10,
        metavar="N",
        help="draw random integers from 0 to N - 1 (default: 10)",
    )
    parser.add_argument(
        "--out",
        type=arguments.folder,
        metavar="DIR",
        help="draw the signal by depth, and a histogram for each layer: write depth "
        "and activations, each as .png and .svg, into this folder",
    )
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> None:
    plots = needed("jaxinit.plots", "plots") if options.out else None
    key, data = jax.random.split(jax.random.key(options.seed))
    doing = f"running {options.target}"
    # The target may print, and standard output is for the table.
    with contextlib.redirect_stdout(sys.stderr), failing(doing):
        target = load(options.target)
        inputs = _batch(data, options.inputs, options.below)
        keywords = options.keywords
        module, variables, keywords = model(target, options.inputs, key, keywords)
        signal = propagate(module, variables, inputs, **keywords)
    with writing():
        print(fitted(signal))
    if plots is None:
        return
    figures = {"depth": plots.depth(signal), "activations": plots.activations(signal)}
    for name, figure in figures.items():
        print("wrote", *_saved(plots, figure, options.out / name))


def _saved(plots: Any, figure: Any, path: Path) -> Sequence[Path]:
    try:
        path.parent.mkdir(exist_ok=True)
        return plots.save(figure, path)
    except OSError as error:
        reason = error.strerror or one_line(error)
        raise CommandError(f"could not write {path}: {reason}") from error


def _batch(
    key: jax.Array, inputs: Sequence[jax.ShapeDtypeStruct], below: int
) -> tuple[jax.Array, ...]:
    keys = jax.random.split(key, len(inputs))
    return tuple(_drawn(key, x, below) for key, x in zip(keys, inputs, strict=True))


def _drawn(key: jax.Array, x: jax.ShapeDtypeStruct, below: int) -> jax.Array:
    if jnp.issubdtype(x.dtype, jnp.inexact):
        return jax.random.normal(key, x.shape, x.dtype)
    if jnp.issubdtype(x.dtype, jnp.integer):
        return jax.random.randint(key, x.shape, 0, below, x.dtype)
    return jax.random.bernoulli(key, shape=x.shape)
