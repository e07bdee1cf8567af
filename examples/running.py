"""A start by a scheme that was checked, and a table: what the larger examples share."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from flax import linen as nn
from flax import nnx

import jaxinit.linen
import jaxinit.nnx
from examples import training


def linen_start(model: nn.Module, *inputs: Any, scheme: Any, seed: int = 0) -> Any:
    """The variables of a Linen module, with the moments that the scheme states."""
    key = jax.random.key(seed)
    variables = jaxinit.linen.init(model, key, *inputs, scheme=scheme)
    roles = jaxinit.linen.roles(model, *inputs)
    training.checked(variables["params"], scheme, roles)
    return variables


def nnx_start(
    fun: Callable[[nnx.Rngs], Any], *inputs: Any, scheme: Any, seed: int = 0
) -> Any:
    """An NNX model, with the moments that the scheme states."""
    model = jaxinit.nnx.create(fun, seed, scheme=scheme, inputs=inputs)
    roles = jaxinit.nnx.roles(fun, *inputs)
    training.checked(nnx.state(model, nnx.Param), scheme, roles)
    return model


def entropy(text: np.ndarray) -> float:
    """Loss of the best guess that does not look at the other bytes, in nats."""
    shares = np.bincount(text) / len(text)
    shares = shares[shares > 0]
    return float(-np.sum(shares * np.log(shares)))


def table(rows: Mapping[str, Any]) -> None:
    """Prints one line for each name and value."""
    width = max(map(len, rows))
    for name, value in rows.items():
        print(f"{name:<{width}}  {value}")
