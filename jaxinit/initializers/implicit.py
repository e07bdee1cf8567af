"""Networks that represent a signal: sine layers and random Fourier features."""

# An initializer is a class that is used, and therefore spelled, as a function.
# ruff: noqa: N801

from dataclasses import dataclass
from typing import Any

import jax

import jaxinit.laws as laws
from jaxinit.initializers import fans as _fans
from jaxinit.initializers._makers import maker
from jaxinit.initializers.base import Initializer
from jaxinit.initializers.basic import normal
from jaxinit.initializers.scaling import variance_scaling
from jaxinit.initializers.settings import Axes, DType, nonnegative, positive


@dataclass(frozen=True, repr=False)
class siren_first(Initializer):
    """Uniform on `+-1 / fan_in`, for the first sine layer, `sin(omega (w x + b))`.

    Sitzmann et al., "Implicit neural representations with periodic activation
    functions" (2020).

    Args:
        in_axis: axis or axes over which inputs are summed.
        out_axis: axis or axes that the outputs have.
        dtype: default dtype, float.

    Raises:
        ValueError: in a call, if an axis is out of range, or both in and out.

    >>> siren_first().moments((2, 256)).high
    0.5
    """

    in_axis: Axes = -2
    out_axis: Axes = -1
    dtype: DType = None

    def fans(self, shape: tuple[int, ...]) -> _fans.Fans:
        """Fans of an array of that shape."""
        return _fans.fans(shape, self.in_axis, self.out_axis)

    def check_shape(self, shape):
        self.fans(shape)

    def entry_law(self, shape, dtype):
        bound = 1 / max(self.fans(shape).fan_in, 1)
        return laws.Uniform(-bound, bound)

    def sample(self, key, shape, dtype):
        law = self.entry_law(shape, dtype)
        return jax.random.uniform(key, shape, dtype, law.low, law.high)


@maker
def siren_hidden(omega: float = 30.0, dtype: Any = None) -> Initializer:
    """Uniform on `+-sqrt(6 / fan_in) / omega`, for layers `sin(omega (w x + b))`.

    Sitzmann et al., "Implicit neural representations with periodic activation
    functions" (2020).

    Args:
        omega: frequency of the layer, greater than zero.
        dtype: default dtype, float.

    Returns:
        The initializer.

    Raises:
        ValueError: if `omega` is not positive.

    >>> round(siren_hidden().moments((600, 256)).high * 30, 6)
    0.1
    """
    omega = positive("omega", omega)
    scale = 2 / max(omega * omega, 5e-324)  # infinite rather than undefined
    return variance_scaling(scale, "fan_in", "uniform", dtype=dtype)


@maker
def fourier_features(bandwidth: float, dtype: Any = None) -> Initializer:
    """N(0, bandwidth²): the frequencies `b` of `[cos(2 pi b x), sin(2 pi b x)]`.

    Tancik et al., "Fourier features let networks learn high frequency functions in low
    dimensional domains" (2020); Rahimi and Recht, "Random features for large-scale
    kernel machines" (2007), where `2 pi bandwidth` is the inverse width of the kernel.

    Args:
        bandwidth: standard deviation of the frequencies, zero or greater.
        dtype: default dtype, float.

    Returns:
        `normal(bandwidth)`.

    Raises:
        ValueError: if `bandwidth` is negative or not finite.

    >>> fourier_features(10.0)
    normal(stddev=10.0)
    """
    return normal(nonnegative("bandwidth", bandwidth), dtype)
