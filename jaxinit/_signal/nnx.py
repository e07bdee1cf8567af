"""Flax NNX modules."""

import functools
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from flax import nnx

from jaxinit._signal.recorder import Model, Recorder

_RUNNING: ContextVar[tuple[Recorder, dict[int, tuple]]] = ContextVar("_RUNNING")


@functools.lru_cache(256)
def _watched(cls: Any) -> Any:
    """A subclass whose calls are recorded; only for copies of a model in a trace."""

    def __call__(self, *args, **kwargs):  # noqa: N807
        recorder, paths = _RUNNING.get()
        call = functools.partial(cls.__call__, self)
        if id(self) not in paths:  # a copy that a transformation made
            return call(*args, **kwargs)
        return recorder.layer(paths[id(self)], cls.__name__, call, args, kwargs)

    return type(cls)(cls.__name__, (cls,), {"__call__": __call__})


@dataclass(frozen=True)
class NNXModule:
    """The static part of a module, and the keyword arguments of its call."""

    graphdef: Any
    options: tuple[tuple[str, Any], ...]

    def __call__(self, params, state, inputs, change=None):
        recorder = Recorder(inputs, change)
        model: Any = nnx.merge(self.graphdef, params, state, copy=True)
        paths = {}
        for path, node in list(nnx.iter_graph(model)):
            if isinstance(node, nnx.Module) and callable(node):
                paths[id(node)] = path
                object.__setattr__(node, "__class__", _watched(type(node)))
        token = _RUNNING.set((recorder, paths))
        try:
            output = model(*inputs, **dict(self.options))
        finally:
            _RUNNING.reset(token)
        return output, recorder.taps()


def opened(
    model: nnx.Module, params: Any, options: tuple[tuple[str, Any], ...]
) -> Model:
    """A module taken apart."""
    if isinstance(params, nnx.Module):
        raise TypeError(
            f"params must be None or a state, got the module {type(params).__name__}: "
            "a Flax NNX module holds its parameters, so give None."
        )
    if params is not None:
        model = nnx.clone(model)
        nnx.update(model, params)
    graphdef, own, state = nnx.split(model, nnx.Param, ...)
    return Model(NNXModule(graphdef, options), own, state, lambda new: new)
