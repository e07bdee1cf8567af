"""The signal through a model at initialization, layer by layer, forward and backward.

`print(propagate(model, params, x))` shows it.
"""

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, fields
from typing import Any

import jax
import numpy as np

from jaxinit._basics.table import Table, Tabular
from jaxinit._signal.layer import LayerSignal as LayerSignal
from jaxinit._signal.measure import measure, scaled
from jaxinit._signal.opened import opened
from jaxinit._signal.recorder import LayerError as LayerError
from jaxinit._signal.recorder import Tap
from jaxinit._signal.theory import PredictedLayer as PredictedLayer
from jaxinit._signal.theory import predict as predict
from jaxinit._signal.verdict import Verdict as Verdict
from jaxinit._signal.verdict import judge


@dataclass(frozen=True, repr=False)
class Signal(Tabular):
    """The layers of a model in the order in which they ran, and a verdict.

    Attributes:
        layers: one for each output of a layer.
        verdict: what is wrong, where it begins, and what helps.
    """

    layers: tuple[LayerSignal, ...]
    verdict: Verdict

    def __repr__(self):
        return f"<Signal of {len(self.layers)} layers: {self.verdict.short}>"

    def _table(self):
        rows = [_cells(layer) for layer in self.layers]
        marks = {
            i: self.verdict.name
            for i, layer in enumerate(self.layers)
            if layer.name == self.verdict.layer
        }
        return Table(list(_COLUMNS), rows, (0, 1), [f"verdict: {self.verdict}"], marks)


_COLUMNS: dict[str, Callable[[LayerSignal], str]] = {
    "layer": lambda layer: layer.name,
    "kind": lambda layer: layer.kind,
    "shape": lambda layer: "x".join(map(str, layer.shape)),
    "mean": lambda layer: _rounded(layer.mean),
    "std": lambda layer: _rounded(layer.std),
    "ratio": lambda layer: _rounded(layer.ratio),
    "dead": lambda layer: _share(layer.dead),
    "saturated": lambda layer: _share(layer.saturated),
    "rank": lambda layer: _rounded(layer.rank),
    "correlation": lambda layer: _rounded(layer.correlation),
    "gradient": lambda layer: _rounded(layer.gradient_std),
    "of parameters": lambda layer: _rounded(layer.parameter_gradient_std),
    "not finite": lambda layer: str(layer.nonfinite or ""),
}


def _cells(layer: LayerSignal) -> list[str]:
    return [cell(layer) for cell in _COLUMNS.values()]


def _rounded(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.2g}"


def _share(value: float) -> str:
    return f"{value:.0%}" if value else ""


def propagate(
    model: Any,
    params: Any,
    x: Any,
    loss: Callable[[Any], jax.Array] | None = None,
    **options: Any,
) -> Signal:
    """Sends a batch through a model, forward and backward, and measures every layer.

    One forward and one backward pass, compiled once for a model, and again only if
    shapes change: other parameters of the same shapes cost no compilation. If the
    signal vanishes or explodes, a second pass tries whether scaled weights help.

    A Flax module gives one row for each call of a module in it, and one for each input
    of a module that no module returned, such as the output of an activation function.
    Modules inside `scan`, `vmap`, `remat` or `jit` are not seen; their output is seen
    if it goes into another module.

    Args:
        model: a Flax Linen module or its `apply`, a Flax NNX module, or a list of
            functions `layer(params_i, x) -> x`.
        params: for a Linen module, what its init returned; for an NNX module, None or a
            state to use instead of its own; for a list, one pytree for each function.
        x: a batch, with the samples along its first axis, or a tuple of the arguments
            that the model is called on.
        loss: function of the model's output that returns one real number. None takes
            the sum of the output times standard normal numbers, so that the gradient
            with respect to the output has standard deviation one.
        **options: keyword arguments of the model's call, such as `train=True`.

    Returns:
        The signal; printed, it is a table with one row for each layer.

    Raises:
        TypeError: if the model, the parameters or the result of `loss` is of a wrong
            type.
        ValueError: if `x` has no rows, no layer returns an array, or `x` and the
            parameters are on different devices.
        LayerError: if a layer cannot take its input; a `ValueError` that names it.

    >>> import jax.numpy as jnp
    >>> import jaxinit
    >>> keys = jax.random.split(jax.random.key(0), 10)
    >>> weights = [jaxinit.glorot_normal()(key, (64, 64)) for key in keys]
    >>> relu = lambda weight, x: jax.nn.relu(x @ weight)
    >>> x = jax.random.normal(jax.random.key(1), (32, 64))
    >>> signal = propagate([relu] * 10, weights, x)
    >>> signal.verdict.name
    'vanishing'
    >>> signal.verdict.cure
    'The variance halves in every layer, as by Glorot under ReLU: use he_normal'
    """
    parts, inputs = opened(model, params, x, options)
    taps, origin = measure(parts, loss, inputs)

    def again(names: Collection[str], factor: float) -> Sequence[LayerSignal]:
        other = scaled(parts, taps, names, factor)
        return _layers(measure(other, loss, inputs)[0])

    if not taps:
        raise ValueError(
            "no layer returns a floating-point array of one axis or more: nothing is "
            "seen of the signal."
        )
    layers = _layers(taps)
    return Signal(tuple(layers), judge(layers, again, origin))


def _layers(taps: Sequence[Tap]) -> list[LayerSignal]:
    layers: list[LayerSignal] = []
    for tap in taps:
        layers.append(_layer(tap, layers[-1].std if layers else math.nan))
    return layers


_MEASURED = {field.name for field in fields(LayerSignal)}


def _layer(tap: Tap, previous_std: float) -> LayerSignal:
    measured = {
        name: _as_python(tap.value[name]) for name in _MEASURED & set(tap.value)
    }
    ratio = measured["std"] / previous_std if previous_std else math.nan
    return LayerSignal(tap.name, tap.kind, tap.shape, ratio=ratio, **measured)


def _as_python(value: Any) -> Any:
    array = np.asarray(value)
    return tuple(array.tolist()) if array.ndim else array.item()
