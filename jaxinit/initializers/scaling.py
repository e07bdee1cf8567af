"""Variance scaling: a variance that follows from the fans of the array.

Everywhere in this file "normal" means truncated at two standard deviations and widened
to keep the variance, as in jax and Keras; `variance_scaling(..., "normal")` does not
truncate.
"""

# An initializer is a class that is used, and therefore spelled, as a function.
# ruff: noqa: N801

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np
from jax.nn import initializers as reference

import jaxinit.laws as laws
from jaxinit.initializers import fans as _fans
from jaxinit.initializers._makers import maker
from jaxinit.initializers.base import Initializer
from jaxinit.initializers.settings import (
    Axes,
    Distribution,
    DType,
    Mode,
    NonNegative,
    finite,
)

# Standard deviations of truncated laws that jax divides by. The complex one is not that
# of its law, which is 0.96196: complex draws come out 0.9 % wider than asked for.
_REAL_CORRECTION = 0.87962566103423978
_COMPLEX_CORRECTION = 0.95311164380491208

_DENOMINATORS = {
    "fan_in": lambda fan_in, fan_out: fan_in,
    "fan_out": lambda fan_in, fan_out: fan_out,
    "fan_avg": lambda fan_in, fan_out: (fan_in + fan_out) / 2,
    "fan_geo_avg": lambda fan_in, fan_out: (fan_in * fan_out) ** 0.5,
}


def denominator(mode: Mode, fans: _fans.Fans) -> float:
    """What the scale of a mode is divided by."""
    return _DENOMINATORS[mode](*fans)


@dataclass(frozen=True, repr=False)
class variance_scaling(Initializer):
    """Entries of variance `scale / n`, where `n` is a fan or an average of both.

    Args:
        scale: zero or greater.
        mode: what `n` is: "fan_in", "fan_out", their arithmetic mean "fan_avg", or
            their geometric mean "fan_geo_avg".
        distribution: "truncated_normal" (at two standard deviations, widened to keep
            the variance), "normal", or "uniform" (on a disk if complex).
        in_axis: axis or axes over which inputs are summed.
        out_axis: axis or axes that the outputs have.
        batch_axis: axis or axes of independent copies.
        dtype: default dtype, float or complex.

    Raises:
        ValueError: if `scale` is negative or not finite, `mode` or `distribution` is
            unknown, an axis is named twice or, in a call, out of range.

    >>> variance_scaling(2.0, "fan_out", "normal").moments((32, 50)).std
    0.2
    """

    dtype_kinds: ClassVar[tuple[type, ...]] = (np.floating, np.complexfloating)

    scale: NonNegative
    mode: Mode
    distribution: Distribution
    in_axis: Axes = -2
    out_axis: Axes = -1
    batch_axis: Axes = ()
    dtype: DType = None

    def __repr__(self):
        name = _NAMES.get((self.scale, self.mode, self.distribution))
        if name is None:
            return super().__repr__()
        return f"{name}({', '.join(list(self._arguments())[3:])})"

    def fans(self, shape: tuple[int, ...]) -> _fans.Fans:
        """Fans of an array of that shape."""
        return _fans.fans(shape, self.in_axis, self.out_axis, self.batch_axis)

    def check_settings(self):
        _fans.refuse_overlap(
            {
                name: _fans.as_tuple(getattr(self, name))
                for name in ("in_axis", "out_axis", "batch_axis")
            }
        )

    def check_shape(self, shape):
        self.fans(shape)

    def entry_law(self, shape, dtype):
        n = denominator(self.mode, self.fans(shape))
        std = math.sqrt(self.scale / n) if n else 0.0
        if jnp.issubdtype(dtype, np.complexfloating):
            return {
                "normal": laws.ComplexNormal(std),
                "truncated_normal": laws.ComplexTruncatedNormal(
                    std / _COMPLEX_CORRECTION, 2.0
                ),
                "uniform": laws.Disk(std),
            }[self.distribution]
        return {
            "normal": laws.Normal(std),
            "truncated_normal": laws.TruncatedNormal(std / _REAL_CORRECTION, -2, 2),
            "uniform": laws.Uniform(-math.sqrt(3) * std, math.sqrt(3) * std),
        }[self.distribution]

    def sample(self, key, shape, dtype):
        draw = reference.variance_scaling(
            self.scale,
            self.mode,
            self.distribution,
            self.in_axis,
            self.out_axis,
            self.batch_axis,
        )
        return draw(key, shape, dtype)

    def notes(self, shape):
        fan_in, fan_out = self.fans(shape)
        yield "fan_in", f"{fan_in:.15g}, inputs summed into one output"
        yield "fan_out", f"{fan_out:.15g}, outputs reached by one input"
        yield "variance", f"{self.scale:g} / {self.mode}"


@maker
def glorot_uniform(
    in_axis: _fans.Axes = -2,
    out_axis: _fans.Axes = -1,
    batch_axis: _fans.Axes = (),
    dtype: Any = None,
) -> Initializer:
    """Uniform on `+-sqrt(6 / (fan_in + fan_out))`: variance `2 / (fan_in + fan_out)`.

    Glorot and Bengio, "Understanding the difficulty of training deep feedforward neural
    networks" (2010). Also called `xavier_uniform`.

    Args:
        in_axis: axis or axes over which inputs are summed.
        out_axis: axis or axes that the outputs have.
        batch_axis: axis or axes of independent copies.
        dtype: default dtype, float or complex.

    Returns:
        The initializer.

    >>> glorot_uniform().moments((250, 350)).high
    0.1
    """
    return variance_scaling(
        1.0, "fan_avg", "uniform", in_axis, out_axis, batch_axis, dtype
    )


@maker
def glorot_normal(
    in_axis: _fans.Axes = -2,
    out_axis: _fans.Axes = -1,
    batch_axis: _fans.Axes = (),
    dtype: Any = None,
) -> Initializer:
    """Variance `2 / (fan_in + fan_out)`, normal, truncated at two sigmas.

    Glorot and Bengio, "Understanding the difficulty of training deep feedforward neural
    networks" (2010). Also called `xavier_normal`.

    Args:
        in_axis: axis or axes over which inputs are summed.
        out_axis: axis or axes that the outputs have.
        batch_axis: axis or axes of independent copies.
        dtype: default dtype, float or complex.

    Returns:
        The initializer.

    >>> round(glorot_normal().moments((80, 120)).std, 6)
    0.1
    """
    return variance_scaling(
        1.0, "fan_avg", "truncated_normal", in_axis, out_axis, batch_axis, dtype
    )


@maker
def lecun_uniform(
    in_axis: _fans.Axes = -2,
    out_axis: _fans.Axes = -1,
    batch_axis: _fans.Axes = (),
    dtype: Any = None,
) -> Initializer:
    """Uniform on `+-sqrt(3 / fan_in)`: variance `1 / fan_in`.

    LeCun et al., "Efficient BackProp" (1998).

    Args:
        in_axis: axis or axes over which inputs are summed.
        out_axis: axis or axes that the outputs have.
        batch_axis: axis or axes of independent copies.
        dtype: default dtype, float or complex.

    Returns:
        The initializer.

    >>> lecun_uniform().moments((300, 10)).high
    0.1
    """
    return variance_scaling(
        1.0, "fan_in", "uniform", in_axis, out_axis, batch_axis, dtype
    )


@maker
def lecun_normal(
    in_axis: _fans.Axes = -2,
    out_axis: _fans.Axes = -1,
    batch_axis: _fans.Axes = (),
    dtype: Any = None,
) -> Initializer:
    """Variance `1 / fan_in`, normal, truncated at two sigmas.

    LeCun et al., "Efficient BackProp" (1998); Klambauer et al., "Self-normalizing
    neural networks" (2017).

    Args:
        in_axis: axis or axes over which inputs are summed.
        out_axis: axis or axes that the outputs have.
        batch_axis: axis or axes of independent copies.
        dtype: default dtype, float or complex.

    Returns:
        The initializer.

    >>> round(lecun_normal().moments((100, 10)).std, 6)
    0.1
    """
    return variance_scaling(
        1.0, "fan_in", "truncated_normal", in_axis, out_axis, batch_axis, dtype
    )


@maker
def he_uniform(
    in_axis: _fans.Axes = -2,
    out_axis: _fans.Axes = -1,
    batch_axis: _fans.Axes = (),
    dtype: Any = None,
    *,
    negative_slope: float = 0.0,
) -> Initializer:
    """Uniform on `+-sqrt(6 / fan_in)`: variance `2 / fan_in`.

    He et al., "Delving deep into rectifiers" (2015). Also called `kaiming_uniform`.

    Args:
        in_axis: axis or axes over which inputs are summed.
        out_axis: axis or axes that the outputs have.
        batch_axis: axis or axes of independent copies.
        dtype: default dtype, float or complex.
        negative_slope: `a` of a leaky rectifier, which divides the variance by
            `1 + a**2`. With `sqrt(5)` it is the default of torch's layers.

    Returns:
        The initializer.

    >>> he_uniform().moments((600, 10)).high
    0.1
    >>> round(he_uniform(negative_slope=5**0.5).moments((100, 10)).high, 6)
    0.1
    """
    slope = finite("negative_slope", negative_slope)
    scale = 2 / (1 + slope * slope)
    return variance_scaling(
        scale, "fan_in", "uniform", in_axis, out_axis, batch_axis, dtype
    )


@maker
def he_normal(
    in_axis: _fans.Axes = -2,
    out_axis: _fans.Axes = -1,
    batch_axis: _fans.Axes = (),
    dtype: Any = None,
    *,
    negative_slope: float = 0.0,
) -> Initializer:
    """Variance `2 / fan_in`, normal, truncated at two sigmas.

    He et al., "Delving deep into rectifiers" (2015). Also called `kaiming_normal`.

    Args:
        in_axis: axis or axes over which inputs are summed.
        out_axis: axis or axes that the outputs have.
        batch_axis: axis or axes of independent copies.
        dtype: default dtype, float or complex.
        negative_slope: `a` of a leaky rectifier, which divides the variance by
            `1 + a**2`. With `sqrt(5)` it is the default of torch's layers.

    Returns:
        The initializer.

    >>> round(he_normal().moments((200, 10)).std, 6)
    0.1
    """
    slope = finite("negative_slope", negative_slope)
    scale = 2 / (1 + slope * slope)
    return variance_scaling(
        scale, "fan_in", "truncated_normal", in_axis, out_axis, batch_axis, dtype
    )


xavier_uniform = glorot_uniform
xavier_normal = glorot_normal
kaiming_uniform = he_uniform
kaiming_normal = he_normal

_NAMES = {
    (1.0, "fan_avg", "uniform"): "glorot_uniform",
    (1.0, "fan_avg", "truncated_normal"): "glorot_normal",
    (1.0, "fan_in", "uniform"): "lecun_uniform",
    (1.0, "fan_in", "truncated_normal"): "lecun_normal",
    (2.0, "fan_in", "uniform"): "he_uniform",
    (2.0, "fan_in", "truncated_normal"): "he_normal",
}
