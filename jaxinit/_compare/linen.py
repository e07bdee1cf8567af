"""Flax Linen modules that are trained."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flax import linen as nn

from jaxinit._compare.switches import switched
from jaxinit.linen import init, roles
from jaxinit.signal import propagate


@dataclass(frozen=True)
class LinenModel:
    """A module, the shapes it is called on, and keyword arguments of its call."""

    module: nn.Module
    inputs: tuple
    options: Mapping[str, Any]
    keeps = True

    def own(self, key):
        variables = init(self.module, key, *self.inputs, **self._options(True))
        state = {name: tree for name, tree in variables.items() if name != "params"}
        return variables.get("params", {}), state

    def roles(self):
        return roles(self.module, *self.inputs, **self._options(True))

    def call(self, params, state, x, key, train):
        outputs, changed = self.module.apply(
            {"params": params, **state},
            *x,
            rngs={"params": key},  # stands in for every stream
            mutable=list(state),
            **self._options(train),
        )
        return outputs, {**state, **changed}

    def signal(self, params, state, x):
        variables = {"params": params, **state}
        return propagate(self.module, variables, x, **self._options(True))

    def _options(self, train: bool) -> dict[str, Any]:
        return switched(self.module.__call__, self.options, train)
