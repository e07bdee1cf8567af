"""Flax Linen modules."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
from flax import linen
from flax.core import DenyList

from jaxinit._signal.recorder import Capture, Recorder


@dataclass(frozen=True)
class LinenModule:
    """A module and the keyword arguments of its call."""

    module: linen.Module
    options: tuple[tuple[str, Any], ...]

    def __call__(self, params, state, inputs, offsets):
        recorder = Recorder(inputs, offsets)

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


def capture(
    module: linen.Module, variables: Any, options: tuple[tuple[str, Any], ...]
) -> tuple[Capture, Any, Any]:
    """The capture of a module, its parameters, and its other collections."""
    if not isinstance(variables, Mapping):
        raise TypeError(
            "params must be what the module's init returns, a mapping, got "
            f"{type(variables).__name__}."
        )
    known = dict(variables) if "params" in variables else {"params": dict(variables)}
    return LinenModule(module, options), known.pop("params"), known
