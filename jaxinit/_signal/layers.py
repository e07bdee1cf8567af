"""Models that are a plain list of functions."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from jaxinit._signal.recorder import Model, Recorder


@dataclass(frozen=True)
class Layers:
    """Functions `layer(params_i, x) -> x`, one after the other."""

    functions: tuple[Callable[[Any, Any], Any], ...]

    def __call__(self, params, state, inputs, change=None):
        recorder = Recorder(inputs, change)
        (x,) = inputs
        for i, (function, own) in enumerate(zip(self.functions, params, strict=True)):
            kind = getattr(function, "__name__", type(function).__name__)
            call = functools.partial(function, own)
            x = recorder.layer((i,), kind.strip("<>"), call, (x,))
        return x, recorder.taps()


def opened(functions: Sequence[Callable], params: Any, inputs: tuple) -> Model:
    """A list of functions, taken apart."""
    if len(inputs) != 1:
        raise ValueError(
            f"x must be one array for a list of layers, got {len(inputs)}: a layer is "
            "a function layer(params_i, x)."
        )
    if not isinstance(params, Sequence) or len(params) != len(functions):
        got = len(params) if isinstance(params, Sequence) else type(params).__name__
        raise ValueError(
            f"params must be a list with one entry for each of the {len(functions)} "
            f"layers, got {got}. The entry of a layer without parameters may be None."
        )
    return Model(Layers(tuple(functions)), list(params), None, lambda new: new)
