"""A small model of Haiku."""

from collections.abc import Callable
from functools import partial
from typing import Any

import haiku
import jax
import numpy as np

from jaxinit._compile.jit import jit


def _net(tokens):
    x = haiku.Embed(11, 16)(tokens)
    for _ in range(2):
        x += haiku.Linear(16)(haiku.LayerNorm(-1, True, True)(x))
    return haiku.Conv1D(6, 3)(x)


def starts(key: Any) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """Functions that start it: by `jaxinit.jit`, and by `jax.jit`."""
    init, tokens = haiku.transform(_net).init, np.zeros((1, 4), np.int32)
    return partial(jit(init), key, tokens), partial(jax.jit(init), key, tokens)
