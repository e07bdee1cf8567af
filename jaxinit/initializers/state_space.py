"""State space models and linear recurrent units: their matrices and eigenvalues."""

# An initializer is a class that is used, and therefore spelled, as a function.
# ruff: noqa: N801

import math
from dataclasses import dataclass
from typing import Annotated, Literal

import jax
import jax.numpy as jnp
import numpy as np

from jaxinit.initializers.bases import FromShape, FromUniform
from jaxinit.initializers.settings import DType, Fraction, Positive, choice


@dataclass(frozen=True, repr=False)
class log_arange(FromShape):
    """`log(n + 1)` along the last axis: the `A_log` of Mamba, and of S4D-Real.

    The eigenvalues are `-exp(A_log) = -(n + 1)`. Gu et al., "On the parameterization
    and initialization of diagonal state space models" (2022); Gu and Dao, "Mamba:
    linear-time sequence modeling with selective state spaces" (2023).

    Args:
        dtype: default dtype, float.

    >>> import jax, jax.numpy as jnp
    >>> jnp.exp(log_arange()(jax.random.key(0), (2, 3))).round(4)
    Array([[1., 2., 3.],
           [1., 2., 3.]], dtype=float32)
    """

    dtype: DType = None

    def table(self, shape):
        return np.broadcast_to(np.log1p(np.arange(shape[-1])), shape)

    def check_shape(self, shape):
        _check_states(shape)


@dataclass(frozen=True, repr=False)
class s4d_frequencies(FromShape):
    """Imaginary parts of S4D's eigenvalues along the last axis; the real are -1/2.

    "lin": `pi n`; "inv": `(N / pi) (N / (2 n + 1) - 1)`, where `N` is twice the size
    of the axis, since of each conjugate pair one is kept. The real part is stored as
    `constant(log(1/2))`. Gu et al., "On the parameterization and initialization of
    diagonal state space models" (2022).

    Args:
        law: "lin" or "inv".
        dtype: default dtype, float.

    Raises:
        ValueError: if `law` is unknown or, in a call, the shape has no axis.

    >>> import jax
    >>> s4d_frequencies()(jax.random.key(0), (3,)) / np.pi
    Array([0., 1., 2.], dtype=float32)
    """

    law: Annotated[Literal["lin", "inv"], choice("lin", "inv")] = "lin"
    dtype: DType = None

    def table(self, shape):
        n, size = np.arange(shape[-1]), 2 * shape[-1]
        inverse = size / np.pi * (size / (2 * n + 1) - 1)
        return np.broadcast_to(np.pi * n if self.law == "lin" else inverse, shape)

    def check_shape(self, shape):
        _check_states(shape)


@dataclass(frozen=True, repr=False)
class hippo(FromShape):
    """The HiPPO-LegS matrix, a memory of all of the past in Legendre polynomials.

    `A[n, k] = -sqrt(2 n + 1) sqrt(2 k + 1)` below the diagonal, `-(n + 1)` on it, zero
    above; `x' = A x + B u` with `B[n] = sqrt(2 n + 1)`. Gu et al., "HiPPO: recurrent
    memory with optimal polynomial projections" (2020), where `A` has the other sign;
    this is that of S4 (2022).

    Args:
        dtype: default dtype, float.

    Raises:
        ValueError: in a call, if the shape is not (states, states).

    >>> import jax
    >>> hippo()(jax.random.key(0), (3, 3)).diagonal()
    Array([-1., -2., -3.], dtype=float32)
    """

    dtype: DType = None

    def table(self, shape):
        n = np.arange(shape[0])
        roots = np.sqrt(2 * n + 1)
        below = np.tril(np.multiply.outer(roots, roots), -1)
        return 0.0 - below - np.diag(n + 1.0)

    def check_shape(self, shape):
        if len(shape) != 2 or shape[0] != shape[1]:
            raise ValueError(f"shape must be (states, states), got {shape}.")


def _check_states(shape: tuple[int, ...]) -> None:
    if not shape:
        raise ValueError("shape must end in the number of states, got ().")


@dataclass(frozen=True, repr=False)
class lru_nu(FromUniform):
    """Log decay of a linear recurrent unit, eigenvalues uniform on a ring.

    `nu = log(-log(r_min² + u (r_max² - r_min²)) / 2)`, so that `exp(-exp(nu))` is the
    modulus of a uniform point between radius `r_min` and `r_max`. Orvieto et al.,
    "Resurrecting recurrent neural networks for long sequences" (2023).

    Args:
        r_min: inner radius, 0 to 1.
        r_max: outer radius, greater than `r_min`, to 1.
        dtype: default dtype, float.

    Raises:
        ValueError: if a radius is not between 0 and 1, or `r_min >= r_max`.

    >>> import jax, jax.numpy as jnp
    >>> modulus = jnp.exp(-jnp.exp(lru_nu(0.9, 0.999)(jax.random.key(0), (64,))))
    >>> bool((modulus > 0.8999).all() and (modulus < 0.9991).all())
    True
    """

    r_min: Fraction = 0.0
    r_max: Fraction = 1.0
    dtype: DType = None

    def check_settings(self):
        if self.r_min >= self.r_max:
            raise ValueError(
                f"r_min must be less than r_max, got {self.r_min} and {self.r_max}."
            )

    def quantile(self, xp, u):
        # 1 - u for u, the same law, makes it increase
        squares = self.r_max**2 - (self.r_max**2 - self.r_min**2) * u
        return xp.log(-xp.log(squares) / 2)

    def formula(self):
        low, high = self.r_min**2, self.r_max**2
        return f"log(-log({high:.6g} - {high - low:.6g} u) / 2)"


@dataclass(frozen=True, repr=False)
class lru_theta(FromUniform):
    """Log phase of a linear recurrent unit: `log(max_phase u)`.

    Orvieto et al., "Resurrecting recurrent neural networks for long sequences" (2023).

    Args:
        max_phase: largest phase, in radians, greater than zero.
        dtype: default dtype, float.

    Raises:
        ValueError: if `max_phase` is not positive.

    >>> round(lru_theta().moments((64,)).std, 4)
    1.0
    """

    max_phase: Positive = 2 * math.pi
    dtype: DType = None

    def quantile(self, xp, u):
        return xp.log(self.max_phase * u)

    def formula(self):
        return f"log({self.max_phase:g} u)"


def lru_gamma(nu: jax.Array) -> jax.Array:
    """Log input scale of a linear recurrent unit: `log(sqrt(1 - |lambda|²))`.

    It makes up for how long each state remembers, and follows from what `lru_nu` drew:
    `|lambda| = exp(-exp(nu))`. Orvieto et al., "Resurrecting recurrent neural networks
    for long sequences" (2023).

    Args:
        nu: array that `lru_nu` drew.

    Returns:
        Array of its shape and dtype.

    >>> round(float(lru_gamma(jnp.log(jnp.log(2.0)))), 4)  # lambda = 1/2
    -0.1438
    """
    return jnp.log(-jnp.expm1(-2 * jnp.exp(nu))) / 2
