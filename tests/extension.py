"""An initializer, a law and a scheme as somebody writes them outside the package."""

# An initializer is a class that is used, and therefore spelled, as a function.
# ruff: noqa: N801

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

import jaxinit
from jaxinit import laws
from jaxinit.initializers import FromShape, FromUniform
from jaxinit.initializers.settings import Axis, DType, NonNegative, Positive
from jaxinit.schemes.building import by_depth, complete, of_layers, scheme, times
from jaxinit.schemes.parts import EMBEDDING, KERNEL, MLP_OUT


@dataclass(frozen=True, repr=False)
class Logistic(laws.Law):
    """Logistic law about zero."""

    spread: float

    def moments(self):
        """Variance `(pi * spread)**2 / 3`, kurtosis 21/5."""
        deviation = math.pi * self.spread / math.sqrt(3)
        standard = laws.Moments(0.0, 1.0, 4.2, -math.inf, math.inf)
        return laws.affine(standard, deviation)

    def cdf(self, x):
        """The logistic function."""
        return 1 / (1 + np.exp(-np.asarray(x) / self.spread))

    def __str__(self):
        return f"logistic, spread {self.spread:.6g}"


@dataclass(frozen=True, repr=False)
class logistic(jaxinit.Initializer):
    """Logistic draws whose spread goes with the root of the inputs."""

    gain: Positive = 1.0
    in_axis: Axis = -2
    dtype: DType = None

    def check_shape(self, shape):
        """Raises below two axes, where there are no inputs."""
        if len(shape) < 2:
            raise ValueError(f"{self!r} needs two axes, got shape {shape}.")

    def entry_law(self, shape, dtype):
        """The law above."""
        return Logistic(self._spread(shape))

    def sample(self, key, shape, dtype):
        """What jax draws, times the spread."""
        return self._spread(shape) * jax.random.logistic(key, shape, dtype)

    def _spread(self, shape):
        return self.gain / math.sqrt(shape[self.in_axis])


@dataclass(frozen=True, repr=False)
class ramp(FromShape):
    """From 0 towards `top` along the last axis."""

    top: NonNegative = 1.0

    def table(self, shape):
        """The ramp, as often as the shape asks for."""
        return np.broadcast_to(self.top * np.arange(shape[-1]) / shape[-1], shape)


@dataclass(frozen=True, repr=False)
class power(FromUniform):
    """A power of a uniform number."""

    exponent: Positive = 2.0

    def quantile(self, xp, u):
        """`u**exponent`."""
        return u**self.exponent

    def formula(self):
        """The same, in words."""
        return f"u**{self.exponent:g}"


@scheme
def logistic_transformer(layers: int) -> jaxinit.Rules:
    """Logistic kernels, those at the end of block `l` divided by `sqrt(2 (l + 1))`."""
    ends = of_layers(layers, times(logistic(), by_depth(layers)))
    rules = {MLP_OUT: ends, EMBEDDING: power(), KERNEL: logistic()}
    return complete(rules, required=[MLP_OUT])


def ramp_like(leaf: jaxinit.Leaf) -> jaxinit.Initializer:
    """A rule that looks at the leaf."""
    return ramp(top=len(leaf.shape))


def doubled(key, shape, dtype=jnp.float32):
    """A plain function is an initializer too."""
    return 2 * jax.random.normal(key, shape, dtype)
