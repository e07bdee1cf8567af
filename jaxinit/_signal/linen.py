"""Flax Linen modules."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
from flax import linen
from flax.core import DenyList

from jaxinit._signal.recorder import Model, Recorder


@dataclass(frozen=True)
class LinenModule:
    """A module and the keyword arguments of its call."""

    module: linen.Module
    options: tuple[tuple[str, Any], ...]

    def __call__(self, params, state, inputs, change=None):
        recorder = Recorder(inputs, change)

        def intercept(call, args, kwargs, context):
            if context.method_name != "__call__":
                return call(*args, **kwargs)
            module = context.module
            return recorder.layer(
                module.path, type(module).__name__, call, args, kwargs
            )

        with linen.intercept_methods(intercept):
            output, _ = self.module.apply(
                {"params": params, **state},
                *inputs,
                rngs={"params": jax.random.key(0)},  # stands in for every stream
                mutable=DenyList("params"),
                **dict(self.options),
            )
        return output, recorder.taps()


def opened(
    module: linen.Module, variables: Any, options: tuple[tuple[str, Any], ...]
) -> Model:
    """A module taken apart."""
    if not isinstance(variables, Mapping):
        raise TypeError(
            "params must be what the module's init returns, a mapping, got "
            f"{type(variables).__name__}."
        )
    capture = LinenModule(module, options)
    if "params" not in variables:
        return Model(capture, dict(variables), {}, lambda new: new)
    others = {name: value for name, value in variables.items() if name != "params"}
    return Model(
        capture,
        variables["params"],
        others,
        lambda new: {**variables, "params": new},
    )
