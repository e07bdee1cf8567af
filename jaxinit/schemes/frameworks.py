"""What the layers of other libraries start from, by themselves."""

import math

from jaxinit._array.initializer import Initializer
from jaxinit._tree.rules import Leaf, Rules
from jaxinit.initializers.basic import normal, ones, truncated_normal, uniform, zeros
from jaxinit.initializers.orthogonal import orthogonal
from jaxinit.initializers.sequence import forget_gate_bias
from jaxinit.initializers.variance_scaling import lecun_normal, variance_scaling
from jaxinit.schemes._parts import (
    ATTENTION_OUT,
    BIAS,
    EMBEDDING,
    FUSED,
    GATE_INPUT,
    KERNEL,
    QUERY_KEY,
    RECURRENT,
    VALUE,
    Part,
    cell,
    described,
    kernel_beside,
)
from jaxinit.schemes._pieces import by_fan, complete, fan_in, scheme

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
    - recurrent kernel: orthogonal, the gates of NNX's fused one together
    - embedding: `N(0, 1 / width)`
    - norm scale 1, bias 0

    A kernel of three axes that is no attention's counts as a convolution's.

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
            RECURRENT: orthogonal(),
            EMBEDDING: embedding,
            KERNEL: by_fan(1.0, "fan_in", "truncated_normal"),
        },
    )


@scheme
def torch() -> Rules:
    """The layers of torch.

    - kernel and bias: `U(+-1 / sqrt(fan_in))`
    - recurrent layers, all four arrays: `U(+-1 / sqrt(units))`
    - query, key and value: Glorot uniform of the three together,
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
    parts = dict.fromkeys((QUERY_KEY, VALUE, FUSED), attention)
    return complete({**parts, _ATTENTION_BIAS: zeros, **_bounded_by_fan()})


@scheme
def equinox() -> Rules:
    """The layers of Equinox.

    - kernel and bias: `U(+-1 / sqrt(fan_in))`
    - recurrent layers, all arrays: `U(+-1 / sqrt(units))`
    - embedding: `N(0, 1)`
    - norm scale 1, bias 0

    Returns:
        The rules.

    >>> import jax, jaxinit
    >>> shapes = {"mlp": {"weight": jax.ShapeDtypeStruct((4, 300), "float32")}}
    >>> round(next(iter(jaxinit.plan(shapes, equinox()))).std * 30, 6)
    1.0
    """
    return complete(_bounded_by_fan())


def _bounded_by_fan() -> dict:
    kernel = by_fan(1 / 3, "fan_in", "uniform")
    return {
        RECURRENT: kernel,
        GATE_INPUT: _gate_input,
        EMBEDDING: normal(1.0),
        KERNEL: kernel,
        BIAS: _bounded_bias,
    }


def _gate_input(leaf: Leaf) -> Initializer:
    found = cell(leaf)
    return _bounded(found.units if found else fan_in(leaf))


def _bounded_bias(leaf: Leaf) -> Initializer:
    found, kernel = cell(leaf), kernel_beside(leaf)
    if found:
        return _bounded(found.units)
    return _bounded(fan_in(kernel)) if kernel else zeros


def _bounded(n: float) -> Initializer:
    return uniform(low=-1 / math.sqrt(n), high=1 / math.sqrt(n))


@scheme
def keras() -> Rules:
    """The layers of Keras.

    - kernel: Glorot uniform, `U(+-sqrt(6 / (fan_in + fan_out)))`
    - recurrent kernel: orthogonal, fused gates together
    - bias of an LSTM: 1 for the forget gate, 0 for the others
    - embedding: `U(+-0.05)`
    - norm scale 1, bias 0

    Returns:
        The rules.

    >>> import jax, jaxinit
    >>> shapes = {"dense": {"kernel": jax.ShapeDtypeStruct((20, 30), "float32")}}
    >>> round(next(iter(jaxinit.plan(shapes, keras()))).std, 6)
    0.2
    """
    return complete(
        {
            RECURRENT: orthogonal(),
            EMBEDDING: uniform(low=-0.05, high=0.05),
            KERNEL: by_fan(1.0, "fan_avg", "uniform"),
            BIAS: remembering,
        },
    )


def remembering(leaf: Leaf) -> Initializer:
    """1 for the forget gate of an LSTM, its bias fused or apart; 0 for other biases."""
    found = cell(leaf)
    if found is None:
        return zeros
    if described(leaf)[1] == "hf":
        return ones
    return forget_gate_bias() if found.gates == 4 else zeros


@scheme
def haiku() -> Rules:
    """The layers of Haiku.

    - kernel: `N(0, 1 / fan_in)` cut at two sigmas and not widened, so that the
      deviation is `0.8796 / sqrt(fan_in)`
    - kernels of GRUs: LeCun normal, deviation `1 / sqrt(fan_in)`
    - embedding: `N(0, 1)` cut at two sigmas, not widened
    - norm scale 1, bias 0

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
            KERNEL: lambda leaf: truncated_normal(1 / math.sqrt(fan_in(leaf))),
        },
    )
