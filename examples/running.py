"""What the examples share besides training: a checked start, options, a table."""

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jaxinit.linen
import jaxinit.nnx
from flax import linen as nn
from flax import nnx

import jaxinit
from jaxinit.testing import assert_moments

KEY = 0  # the seed of every example


def linen_start(model: nn.Module, *inputs: Any, scheme: Any, seed: int = KEY) -> Any:
    """The variables of a Linen module by a scheme, with the moments that it states."""
    key = jax.random.key(seed)
    variables = jaxinit.linen.init(model, key, *inputs, scheme=scheme)
    roles = jaxinit.linen.roles(model, *inputs)
    params = variables["params"]
    assert_moments(params, jaxinit.plan(params, scheme, roles=roles))
    return variables


def nnx_start(
    fun: Callable[[nnx.Rngs], Any], *inputs: Any, scheme: Any, seed: int = KEY
) -> Any:
    """An NNX model by a scheme, with the moments that it states."""
    model = jaxinit.nnx.create(fun, seed, scheme=scheme, inputs=inputs)
    roles = jaxinit.nnx.roles(fun, *inputs)
    params = nnx.state(model, nnx.Param)
    assert_moments(params, jaxinit.plan(params, scheme, roles=roles))
    return model


def options(doc: str | None, arguments: Sequence[str], steps: int):
    """The command line of an example: `steps`, and the file of its `picture`."""
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=steps, help="of the training")
    parser.add_argument("--picture", type=Path, help="a .png or .svg file to draw")
    return parser.parse_args(arguments)


def table(rows: Mapping[str, Any]) -> None:
    """Prints one line for each name and value."""
    width = max(map(len, rows))
    for name, value in rows.items():
        print(f"{name:<{width}}  {value}")
