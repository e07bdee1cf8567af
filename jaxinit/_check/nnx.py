"""A small model of Flax NNX."""

from collections.abc import Callable
from typing import Any

from flax import nnx

from jaxinit.nnx import create


class _Net(nnx.Module):
    def __init__(self, rngs: nnx.Rngs):
        self.embed = nnx.Embed(11, 16, rngs=rngs)
        self.layers = nnx.List([nnx.Linear(16, 16, rngs=rngs) for _ in range(2)])
        self.norm = nnx.BatchNorm(16, rngs=rngs)
        self.conv = nnx.Conv(16, 6, (3,), rngs=rngs)
        self.dropout = nnx.Dropout(0.1, rngs=rngs)


def starts(key: Any) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """Functions that start it: by `jaxinit.nnx.create`, and by `nnx.jit`."""

    def build(rngs):
        return _Net(rngs)

    def ours():
        return nnx.to_pure_dict(nnx.state(create(build, key)))

    def theirs():
        model = nnx.jit(lambda key: build(nnx.Rngs(key)))(key)
        return nnx.to_pure_dict(nnx.state(model))

    return ours, theirs
