"""Models of every kind, taken apart."""

import math
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import Tracer

from jaxinit._signal import layers
from jaxinit._signal.recorder import Model


def opened(
    model: Any, params: Any, x: Any, options: Mapping[str, Any]
) -> tuple[Model, tuple]:
    """A model taken apart, and the arguments of its call.

    Args:
        model: a Flax module, the `apply` of a Linen one, or a list of functions.
        params: its parameters.
        x: a batch, or a tuple of what the model is called on.
        options: keyword arguments of the call.

    Raises:
        TypeError: if the model or the parameters are of a wrong kind.
        ValueError: if the batch has no rows, a list of functions is called on more than
            one array or given another number of parameters, or devices differ.
    """
    inputs = x if isinstance(x, tuple) else (x,)
    _refuse_empty(inputs)
    parts = _model(model, params, inputs, options)
    _refuse_other_devices(parts.params, inputs)
    return parts, inputs


def _model(model: Any, params: Any, inputs: tuple, options: Mapping[str, Any]) -> Model:
    settings = tuple(sorted(options.items()))
    if getattr(model, "__name__", "") == "apply":
        model = getattr(model, "__self__", model)
    if _is_module(model, "flax.linen"):
        from jaxinit._signal import linen

        return linen.opened(model, params, settings)
    if _is_module(model, "flax.nnx"):
        from jaxinit._signal import nnx

        return nnx.opened(model, params, settings)
    is_list = isinstance(model, Sequence) and not isinstance(model, str)
    if not is_list or not model or not all(map(callable, model)):
        raise TypeError(
            "model must be a Flax Linen or NNX module, or a list of functions "
            f"layer(params_i, x) -> x, got {model!r}."
        )
    if options:
        raise TypeError(f"a list of layers takes no options, got {sorted(options)}.")
    return layers.opened(model, params, inputs)


def _is_module(model: Any, package: str) -> bool:
    """Whether it is a module of a package: one that has been imported, in that case."""
    loaded = sys.modules.get(package)
    return loaded is not None and isinstance(model, loaded.Module)


def _refuse_empty(inputs: tuple) -> None:
    """Refuses inputs without samples; of several, one may be empty, such as a cache."""
    shapes = [jnp.shape(leaf) for leaf in jax.tree.leaves(inputs)]
    if not shapes:
        raise ValueError("the batch holds no array: give at least one sample.")
    if all(map(math.prod, shapes)) or not _has_nothing(shapes):
        return
    shown = ", ".join(str(list(shape)) for shape in shapes)
    raise ValueError(
        f"the batch is empty, of shape {shown}: give at least one sample, along the "
        "first axis."
    )


def _has_nothing(shapes: Sequence[tuple[int, ...]]) -> bool:
    return any(shape[:1] == (0,) for shape in shapes) or not any(map(math.prod, shapes))


def _refuse_other_devices(params: Any, inputs: tuple) -> None:
    here, there = _devices(params), _devices(inputs)
    if here and there and here != there:
        raise ValueError(
            f"x is on {_shown(there)} and params on {_shown(here)}: bring them "
            "together, as by jax.device_put(x, device)."
        )


def _devices(tree: Any) -> set[Any]:
    """The devices to which the arrays of a tree are committed."""
    return {
        device
        for leaf in jax.tree.leaves(tree)
        if isinstance(leaf, jax.Array) and not isinstance(leaf, Tracer)
        if leaf.committed
        for device in leaf.devices()
    }


def _shown(devices: set[Any]) -> str:
    return ", ".join(sorted(map(str, devices)))
