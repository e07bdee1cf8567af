"""The initializer that practice recommends for an activation, and why."""

from typing import NamedTuple

import jax

from jaxinit._basics.names import unknown
from jaxinit.initializers.base import Initializer
from jaxinit.initializers.gain import Activation, gain
from jaxinit.initializers.scaling import (
    glorot_uniform,
    he_normal,
    lecun_normal,
    variance_scaling,
)

_HE = "rectifiers pass half of the variance: He et al., 2015"
_LEAKY = "half of the variance, and slope**2 of the other half: He et al., 2015"
_GLOROT = "near linear around zero, saturates: Glorot and Bengio, 2010"
_LECUN = "normalises itself at variance 1 / fan_in: Klambauer et al., 2017"
_LINEAR = "keeps the variance at 1 / fan_in: LeCun et al., 1998"


class Recommendation(NamedTuple):
    """An initializer for the weights that feed an activation.

    Attributes:
        initializer: of the kernel; biases are zero.
        gain: the factor that keeps a signal its size, by `jaxinit.gain`.
        reason: why this one, in words.
    """

    initializer: Initializer
    gain: float
    reason: str


_NAMES = (
    "identity relu relu6 leaky_relu selu tanh sigmoid hard_tanh hard_sigmoid soft_sign "
    "elu celu gelu silu swish mish softplus hard_silu hard_swish log_sigmoid squareplus"
)
_FUNCTIONS: dict[str, Activation] = {
    **{name: getattr(jax.nn, name) for name in _NAMES.split()},
    "linear": jax.nn.identity,
    "gelu_exact": lambda x: jax.nn.gelu(x, approximate=False),
}
_KNOWN: dict[Activation, tuple[Initializer, str]] = {
    jax.nn.relu: (he_normal(), _HE),
    jax.nn.relu6: (he_normal(), _HE),
    jax.nn.leaky_relu: (he_normal(negative_slope=0.01), _LEAKY),
    jax.nn.tanh: (glorot_uniform(), _GLOROT),
    jax.nn.sigmoid: (glorot_uniform(), _GLOROT),
    jax.nn.hard_tanh: (glorot_uniform(), _GLOROT),
    jax.nn.hard_sigmoid: (glorot_uniform(), _GLOROT),
    jax.nn.soft_sign: (glorot_uniform(), _GLOROT),
    jax.nn.selu: (lecun_normal(), _LECUN),
    jax.nn.identity: (lecun_normal(), _LINEAR),
}


def for_activation(fn_or_name: Activation | str) -> Recommendation:
    """The initializer for weights that feed an activation, and the reason.

    The ReLU family gets He's, sigmoids Glorot's, SELU and the identity LeCun's. Any
    other function gets variance `gain**2 / fan_in`, truncated normal, by `gain`.

    Args:
        fn_or_name: an activation such as `jax.nn.gelu`, any elementwise function, or
            the name of one in `jax.nn`, such as "gelu" (by tanh; "gelu_exact" by erf).

    Returns:
        `Recommendation(initializer, gain, reason)`.

    Raises:
        ValueError: if the name is unknown (the nearest are listed), or the function's
            mean square is zero or not finite.
        TypeError: if `fn_or_name` is no function, or not elementwise and real.

    >>> for_activation("relu").initializer
    he_normal()
    >>> import jax
    >>> init, gain, reason = for_activation(jax.nn.silu)
    >>> round(gain, 4), reason
    (1.6765, 'by its gain: variance gain**2 / fan_in keeps the second moment')
    """
    fn = _function(fn_or_name) if isinstance(fn_or_name, str) else fn_or_name
    factor = gain(fn)
    by_gain = (
        variance_scaling(factor**2, "fan_in", "truncated_normal"),
        "by its gain: variance gain**2 / fan_in keeps the second moment",
    )
    initializer, reason = _KNOWN.get(fn, by_gain)
    return Recommendation(initializer, factor, reason)


def _function(name: str) -> Activation:
    if name not in _FUNCTIONS:
        raise ValueError(unknown("activation", name, _FUNCTIONS))
    return _FUNCTIONS[name]
