"""A small model of Flax Linen."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import numpy as np
from flax import linen

from jaxinit._compile.jit import jit


class _Net(linen.Module):
    @linen.compact
    def __call__(self, tokens):
        x = linen.Embed(11, 16)(tokens)
        for _ in range(2):
            x += linen.Dense(16)(linen.LayerNorm()(x))
        x = linen.BatchNorm(use_running_average=False)(linen.Conv(6, (3,))(x))
        return linen.Dense(5, kernel_init=linen.initializers.orthogonal())(x)


def starts(key: Any) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """Functions that start it: by `jaxinit.jit`, and by `jax.jit`."""
    init, tokens = _Net().init, np.zeros((1, 4), np.int32)
    return partial(jit(init), key, tokens), partial(jax.jit(init), key, tokens)
