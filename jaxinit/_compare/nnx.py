"""Flax NNX modules that are trained."""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
from flax import nnx

from jaxinit._compare.switches import switched
from jaxinit.nnx import create, roles
from jaxinit.signal import propagate


@dataclass(frozen=True)
class NNXModel:
    """What makes a module of rngs, the shapes it is called on, and arguments."""

    make: Callable[[nnx.Rngs], Any]
    inputs: tuple
    options: Mapping[str, Any]
    keeps = True

    def own(self, key):
        _, params, state = nnx.split(create(self.make, key), nnx.Param, ...)
        return params, state

    @functools.cached_property
    def _graph(self) -> Any:
        return nnx.graphdef(self._shapes())

    def _shapes(self) -> Any:
        """A module with shapes in place of arrays."""
        made = nnx.eval_shape(lambda: self.make(nnx.Rngs(jax.random.key(0))))
        if not callable(made):
            raise TypeError(f"{self.make!r} makes no module that can be called.")
        return made

    def roles(self):
        made = self._shapes()
        made.train()
        options = switched(type(made).__call__, self.options, True)
        return roles(made, *self.inputs, **options)

    def call(self, params, state, x, key, train):
        module, options = self._whole(params, state, train)
        outputs = module(*x, **options)
        return outputs, nnx.state(module, nnx.Not(nnx.Param))

    def signal(self, params, state, x):
        module, options = self._whole(params, state, True)
        return propagate(module, None, x, **options)

    def _whole(self, params: Any, state: Any, train: bool) -> tuple[Any, dict]:
        """The module, as it is trained or evaluated, and arguments of its call."""
        module: Any = nnx.merge(self._graph, params, state, copy=True)
        module.train() if train else module.eval()
        return module, switched(type(module).__call__, self.options, train)
