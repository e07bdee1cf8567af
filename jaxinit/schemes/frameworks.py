"""The default initializations of layers of other libraries."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from jaxinit._tree.leaf import Leaf
from jaxinit._tree.rules import Rules, keyed
from jaxinit.initializers.base import Initializer
from jaxinit.initializers.basic import (
    constant,
    normal,
    ones,
    truncated_normal,
    uniform,
    zeros,
)
from jaxinit.initializers.orthogonal_matrices import orthogonal
from jaxinit.initializers.scaling import (
    he_uniform,
    lecun_normal,
    variance_scaling,
)
from jaxinit.schemes._cells import (
    FORGET_INPUT,
    GATE_INPUT,
    RECURRENT,
    cell,
    kernels,
    remembering,
)
from jaxinit.schemes.building import Rule, by_fan, complete, drawn, fan_in, scheme
from jaxinit.schemes.parts import (
    ATTENTION_OUT,
    BIAS,
    EMBEDDING,
    FUSED,
    KERNEL,
    QUERY_KEY,
    SLOPE,
    VALUE,
    Part,
    at,
    axes,
    described,
    kernel_beside,
)

_ATTENTION_BIAS = Part(
    "bias of an attention",
    "bias",
    " ".join(part.names for part in (QUERY_KEY, VALUE, FUSED, ATTENTION_OUT)),
    inside="att",
)


@scheme
def flax() -> Rules:
    """The layers of Flax, Linen and NNX.

    - kernel: LeCun normal, variance `1 / fan_in`; of attention, over all heads
    - recurrent kernel: orthogonal, with the fused gates of NNX as one matrix; of
      `ConvLSTMCell`, LeCun normal
    - embedding: `N(0, 1 / width)`
    - LoRA: `lora_a` He uniform, `lora_b` 0
    - norm scale 1, slope of a PReLU 0.01
    - bias: 1 for the forget gate of an `MGUCell`, else 0, also in LSTMs

    Linen's `WeightNorm` and `SpectralNorm` normalise a kernel before `init` returns it;
    here it is LeCun normal, not yet normalised.

    A kernel of three axes or more has the outputs that the bias of its layer has.
    Without a bias, outside an attention, it is taken for a convolution, and so is the
    kernel of an `Einsum`, known by its name.

    Returns:
        The rules.

    >>> import jax, jaxinit
    >>> shapes = {"Dense_0": {"kernel": jax.ShapeDtypeStruct((25, 4), "float32")}}
    >>> round(next(iter(jaxinit.plan(shapes, flax()))).std, 6)
    0.2
    """
    embedding = variance_scaling(1.0, "fan_in", "normal", in_axis=-1, out_axis=-2)
    return complete(
        {
            **kernels(_FLAX_KERNEL, _flax_state),
            FORGET_INPUT: ones,
            _NORMED: ones,
            SLOPE: constant(0.01),
            _LORA_IN: he_uniform(),
            _LORA_OUT: zeros,
            EMBEDDING: embedding,
            KERNEL: _FLAX_KERNEL,
        },
    )


_NORMED = Part("scale of a weight norm", "array", inside="scales")
_LORA_IN = Part("first matrix of LoRA", "array", "lora_a")
_LORA_OUT = Part("second matrix of LoRA", "array", "lora_b")


def _flax_axes(leaf: Leaf) -> dict:
    """The axes that Flax assumes, also for its einsums and for transposed kernels."""
    true = axes(leaf)
    is_plain = true["in_axis"] == -1 or "einsum" in described(leaf)[1]
    return {"in_axis": -2, "out_axis": -1} if is_plain else true


_FLAX_KERNEL = by_fan(1.0, "fan_in", "truncated_normal", _flax_axes)


def _flax_state(leaf: Leaf) -> Initializer:
    return orthogonal() if len(leaf.shape) == 2 else _FLAX_KERNEL(leaf)


@scheme
def torch() -> Rules:
    """The layers of torch.

    - kernel and bias: `U(+-1 / sqrt(fan_in))`
    - recurrent layers, all four arrays: `U(+-1 / sqrt(units))`
    - query, key and value: Glorot uniform of the three as one matrix,
      `U(+-sqrt(6 / (4 width)))`; biases of attention 0
    - embedding: `N(0, 1)`
    - norm scale 1, bias 0

    Returns:
        The rules.

    >>> import jax, jaxinit
    >>> shapes = {"fc": {"weight": jax.ShapeDtypeStruct((4, 300), "float32")}}
    >>> round(next(iter(jaxinit.plan(shapes, torch()))).std * 30, 6)
    1.0
    """
    attention = by_fan(0.5, "fan_in", "uniform")
    projections = dict.fromkeys((QUERY_KEY, VALUE, FUSED), attention)
    return complete({**projections, _ATTENTION_BIAS: zeros, **_bounded_by_fan()})


@scheme
def equinox() -> Rules:
    """The layers of Equinox.

    - kernel and bias: `U(+-1 / sqrt(fan_in))`
    - recurrent layers, all arrays: `U(+-1 / sqrt(units))`
    - embedding: `N(0, 1)`
    - norm scale 1, norm bias 0, slope of a PReLU 0.25
    - `g` of a weight norm: the norms of the weight that these rules draw for it

    Returns:
        The rules.

    >>> import jax, jaxinit
    >>> shapes = {"mlp": {"weight": jax.ShapeDtypeStruct((4, 300), "float32")}}
    >>> round(next(iter(jaxinit.plan(shapes, equinox()))).std * 30, 6)
    1.0
    """
    normed = {_NORM_OF_WEIGHT: _norm_of_weight, SLOPE: constant(0.25)}
    return complete({**normed, **_bounded_by_fan()})


class _BesideLayer(Part):
    """An array of a module that wraps a `layer` with a weight."""

    def __call__(self, leaf: Leaf) -> bool:
        return super().__call__(leaf) and _weight_of(leaf) in leaf.leaves


_NORM_OF_WEIGHT = _BesideLayer("norm of a weight", "array", "g")


def _weight_of(leaf: Leaf) -> str:
    return f"{leaf.path.rpartition('/')[0]}/layer/weight".removeprefix("/")


def _norm_of_weight(leaf: Leaf) -> keyed:
    weight = at(leaf, _weight_of(leaf))
    init = drawn(_BY_FAN, weight)
    return keyed(_Norms(init, weight.shape), weight.path)


@dataclass(frozen=True)
class _Norms:
    """Norms of a weight that `init` draws, over the axes that have size 1 here."""

    init: Initializer
    shape: tuple[int, ...]

    def __call__(self, key: Any, shape: Sequence[int], dtype: Any = None) -> jax.Array:
        weight = self.init(key, self.shape, dtype)
        over = tuple(i for i, size in enumerate(shape) if size != self.shape[i])
        return jnp.linalg.norm(weight.reshape(self.shape), axis=over, keepdims=True)


_BY_FAN = by_fan(1 / 3, "fan_in", "uniform")


def _bounded_by_fan() -> dict[Part, Rule]:
    return {
        RECURRENT: _by_units,
        GATE_INPUT: _by_units,
        EMBEDDING: normal(1.0),
        KERNEL: _BY_FAN,
        BIAS: _bounded_bias,
    }


def _by_units(leaf: Leaf) -> Initializer:
    own = cell(leaf)
    return _bounded(own.units if own else fan_in(leaf))


def _bounded_bias(leaf: Leaf) -> Initializer:
    own, kernel = cell(leaf), kernel_beside(leaf)
    if own:
        return _bounded(own.units)
    return _bounded(fan_in(kernel)) if kernel else zeros


def _bounded(n: float) -> Initializer:
    return uniform(low=-1 / math.sqrt(n), high=1 / math.sqrt(n))


@scheme
def keras() -> Rules:
    """The layers of Keras.

    - kernel: Glorot uniform, `U(+-sqrt(6 / (fan_in + fan_out)))`
    - recurrent kernel: orthogonal, with fused gates as one matrix
    - bias of an LSTM: 1 for the forget gate, 0 for the others; 0 for all if the layer
      itself adds 1, as in Haiku; other biases 0
    - embedding: `U(+-0.05)`
    - norm scale 1

    Returns:
        The rules.

    >>> import jax, jaxinit
    >>> shapes = {"dense": {"kernel": jax.ShapeDtypeStruct((20, 30), "float32")}}
    >>> round(next(iter(jaxinit.plan(shapes, keras()))).std, 6)
    0.2
    """
    return complete(
        {
            **kernels(_GLOROT, orthogonal()),
            EMBEDDING: uniform(low=-0.05, high=0.05),
            KERNEL: _GLOROT,
            BIAS: remembering,
        },
    )


_GLOROT = by_fan(1.0, "fan_avg", "uniform")


@scheme
def haiku() -> Rules:
    """The layers of Haiku.

    - kernel: `N(0, 1 / fan_in)` cut at two sigmas and not widened, so that the standard
      deviation is `0.8796 / sqrt(fan_in)`
    - kernels of GRUs: LeCun normal, standard deviation `1 / sqrt(fan_in)`
    - embedding: `N(0, 1)` cut at two sigmas, not widened
    - norm scale 1, bias 0

    Haiku's attention has no default; here it has the rule of other kernels.

    Returns:
        The rules.

    >>> import jax, jaxinit
    >>> shapes = {"linear": {"w": jax.ShapeDtypeStruct((25, 4), "float32")}}
    >>> round(next(iter(jaxinit.plan(shapes, haiku()))).std * 5, 4)
    0.8796
    """
    return complete(
        {
            Part("kernel of a GRU", "kernel", "w_i w_h"): lecun_normal(),
            EMBEDDING: truncated_normal(1.0),
            KERNEL: _cut_by_fan,
        },
    )


def _cut_by_fan(leaf: Leaf) -> Initializer:
    return truncated_normal(1 / math.sqrt(fan_in(leaf)))
