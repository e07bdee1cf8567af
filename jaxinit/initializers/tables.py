"""Tables of waves: Fourier kernels and positions."""

# An initializer is a class that is used, and therefore spelled, as a function.
# ruff: noqa: N801

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np

from jaxinit.initializers.bases import FromShape
from jaxinit.initializers.settings import DType, Flag, Positive, choice

_WINDOWS = {"none": (1.0, 0.0), "hann": (0.5, 0.5), "hamming": (0.54, 0.46)}

Side = Annotated[Literal["real", "imag"], choice("real", "imag")]
Window = Annotated[Literal["hann", "hamming", "none"], choice(*_WINDOWS)]
Scaling = Annotated[
    Literal["density", "spectrum", "none"], choice("density", "spectrum", "none")
]


@dataclass(frozen=True, repr=False)
class stft(FromShape):
    """A convolution kernel that is a short-time Fourier transform, or half of it.

    `w(t) cos(2 pi t f / n)`, or `-sin` for the imaginary side, at time `t` of the
    window and frequency `f`, where `n = 2 (frequencies - 1)`. The window `w` is divided
    by its length in the sense of the scaling. The kernel of Keras's `STFT`, without
    scipy. Allen and Rabiner, "A unified approach to short-time Fourier analysis and
    synthesis" (1977).

    Args:
        side: "real" or "imag".
        window: "hann", "hamming" or "none".
        scaling: "density" divides by the square root of the window's sum of squares,
            "spectrum" by its sum, "none" by one. As in Keras, nothing is divided where
            there is no window.
        periodic: whether the window is periodic, as for spectra, or symmetric.
        dtype: default dtype, float.

    Raises:
        ValueError: if a setting is unknown or, in a call, the shape is not
            (time, 1, frequencies).

    >>> import jax
    >>> kernel = stft(window="none")(jax.random.key(0), (4, 1, 3))
    >>> kernel[:, 0, 2]  # the highest frequency
    Array([ 1., -1.,  1., -1.], dtype=float32)
    """

    side: Side = "real"
    window: Window = "hann"
    scaling: Scaling = "density"
    periodic: Flag = False
    dtype: DType = None

    def table(self, shape):
        time, _, frequencies = shape
        step = 2 * np.pi / max(2 * (frequencies - 1), 1)
        angle = step * np.arange(time)[:, None, None] * np.arange(frequencies)
        wave = np.cos(angle) if self.side == "real" else 0.0 - np.sin(angle)
        return wave * self._weights(time)[:, None, None]

    def _weights(self, time: int) -> np.ndarray:
        level, swing = _WINDOWS[self.window]
        period = max(time if self.periodic else time - 1, 1)
        weights = level - swing * np.cos(2 * np.pi * np.arange(time) / period)
        if time == 1:
            weights = np.ones(1)
        if self.window == "none" or self.scaling == "none":
            return weights
        is_density = self.scaling == "density"
        return weights / (np.sqrt(weights @ weights) if is_density else weights.sum())

    def check_shape(self, shape):
        if len(shape) != 3 or shape[1] != 1:
            raise ValueError(
                f"shape must be (time, 1, frequencies), as of a convolution over one "
                f"channel, got {shape}."
            )


@dataclass(frozen=True, repr=False)
class sinusoidal(FromShape):
    """Position tables: `sin(p / period^(2i/d))` in column `2i`, cosines in `2i + 1`.

    Vaswani et al., "Attention is all you need" (2017).

    Args:
        max_period: the period of the slowest wave over 2 pi, greater than zero.
        dtype: default dtype, float.

    Raises:
        ValueError: if `max_period` is not positive or, in a call, the shape is not
            (positions, width) of even width.

    >>> import jax
    >>> table = sinusoidal()(jax.random.key(0), (3, 2))  # of sin(p) and cos(p)
    >>> (table**2).sum(axis=1).round(4), table[0]
    (Array([1., 1., 1.], dtype=float32), Array([0., 1.], dtype=float32))
    """

    max_period: Positive = 10_000.0
    dtype: DType = None

    def table(self, shape):
        positions, width = shape
        rates = self.max_period ** (-np.arange(0, width, 2) / width)
        angle = np.arange(positions)[:, None] * rates
        return np.stack([np.sin(angle), np.cos(angle)], -1).reshape(shape)

    def check_shape(self, shape):
        if len(shape) != 2 or shape[1] % 2:
            raise ValueError(
                f"shape must be (positions, width) of even width, got {shape}."
            )
