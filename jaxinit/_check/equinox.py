"""A small model of Equinox."""

from collections.abc import Callable
from functools import partial
from typing import Any

import equinox
import jax

from jaxinit._compile.jit import jit


def _arrays(key):
    keys = jax.random.split(key, 3)
    layers = [
        equinox.nn.Embedding(11, 16, key=keys[0]),
        equinox.nn.MLP(16, 16, width_size=16, depth=1, key=keys[1]),
        equinox.nn.Conv1d(16, 6, 3, key=keys[2]),
        equinox.nn.LayerNorm(16),
    ]
    return equinox.filter(layers, equinox.is_array)


def starts(key: Any) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """Functions that start it: by `jaxinit.jit`, and by `jax.jit`."""
    return partial(jit(_arrays), key), partial(jax.jit(_arrays), key)
