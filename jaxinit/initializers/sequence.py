"""Recurrent networks and state space models: biases of gates, and time steps."""

# An initializer is a class that is used, and therefore spelled, as a function.
# ruff: noqa: N801

import math
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import jax.numpy as jnp

import jaxinit.laws as laws
from jaxinit.initializers._joined import side_by_side
from jaxinit.initializers._makers import maker
from jaxinit.initializers.base import Initializer
from jaxinit.initializers.bases import FromUniform
from jaxinit.initializers.basic import constant, uniform
from jaxinit.initializers.sections import split
from jaxinit.initializers.settings import DType, Positive, finite, positive


def _gates(name: str, value: Any) -> str:
    letters = value if isinstance(value, str) else ""
    if "f" not in letters or len(set(letters)) < len(letters):
        raise ValueError(
            f"{name} must name the gates in the order of the bias, one letter each, f "
            f"for the forget gate, such as 'ifgo', got {value!r}."
        )
    return value


@maker
def forget_gate_bias(
    bias: float = 1.0, gates: str = "ifgo", dtype: Any = None
) -> Initializer:
    """The bias of fused gates: `bias` for the forget gate, zero for the others.

    Jozefowicz et al., "An empirical exploration of recurrent network architectures"
    (2015); Gers et al., "Learning to forget" (2000).

    Args:
        bias: finite number.
        gates: one letter for each gate, in the order of the array, f the forget gate:
            "ifgo" in torch and Keras, "igfo" in Haiku.
        dtype: default dtype.

    Returns:
        The initializer, for an array of the gates one after the other.

    Raises:
        ValueError: if `bias` is not finite, or `gates` has no f, or a letter twice.

    >>> import jax
    >>> forget_gate_bias()(jax.random.key(0), (8,))
    Array([0., 0., 1., 1., 0., 0., 0., 0.], dtype=float32)
    """
    forget = constant(finite("bias", bias), dtype)
    others = constant(0.0, dtype)
    order = tuple(forget if gate == "f" else others for gate in _gates("gates", gates))
    return split(order, len(order))


@dataclass(frozen=True, repr=False)
class chrono(Initializer):
    """Gate biases for memories of up to `max_steps` steps.

    `log(U(1, max_steps - 1))` for the forget gate, the same numbers, negative, for the
    input gate, zero for the others: each unit forgets at a time scale of its own.
    Tallec and Ollivier, "Can recurrent neural networks warp time?" (2018). Of a GRU, f
    is the gate that keeps the state, and there is no i: "rfn" in torch's order.

    Args:
        max_steps: the longest dependency that is expected, in steps, greater than 2.
        gates: one letter for each gate, in the order of the array, f the forget gate
            and i the input gate.
        dtype: default dtype, float.

    Raises:
        ValueError: if `max_steps` is not greater than 2, `gates` has no f or a letter
            twice or, in a call, the gates do not divide the shape's one axis.

    >>> import jax
    >>> i, f, g, o = chrono(100)(jax.random.key(0), (12,)).reshape(4, 3)
    >>> bool((i == -f).all()), float(abs(g + o).max())
    (True, 0.0)
    """

    max_steps: Positive
    gates: Annotated[str, _gates] = "ifgo"
    dtype: DType = None

    entries_independent: ClassVar[bool] = False

    def check_settings(self):
        if self.max_steps <= 2:
            raise ValueError(
                f"max_steps must be greater than 2, got {self.max_steps:g}: the forget "
                "bias is log(U(1, max_steps - 1))."
            )

    def check_shape(self, shape):
        if len(shape) != 1 or shape[0] % len(self.gates):
            raise ValueError(
                f"shape must be (units * {len(self.gates)},), for the gates "
                f"{self.gates!r}, got {shape}."
            )

    def check_values(self, shape, dtype):
        self._forget().check_values(shape, dtype)

    def _forget(self) -> "log_uniform":
        return log_uniform(1.0, self.max_steps - 1)

    def entry_law(self, shape, dtype):
        forget, units = laws.Quantile(self._forget()), shape[0] // len(self.gates)
        signs = {"f": forget, "i": laws.Scaled(forget, -1.0)}
        zero = laws.Values((0.0,))
        parts = [(signs.get(gate, zero), units) for gate in self.gates]
        return laws.Mixture(tuple(parts))

    def sample(self, key, shape, dtype):
        units = shape[0] // len(self.gates)
        forget = self._forget().sample(key, (units,), dtype)
        signs = {"f": forget, "i": -forget}
        zero = jnp.zeros_like(forget)
        return side_by_side([signs.get(gate, zero) for gate in self.gates], 0)


@dataclass(frozen=True, repr=False)
class log_uniform(FromUniform):
    """`log(U(low, high))`, such as Mamba-2's `A_log` with its `A ~ U(1, 16)`.

    Dao and Gu, "Transformers are SSMs" (2024).

    Args:
        low: lower bound before the logarithm, greater than zero.
        high: upper bound, greater than `low`.
        dtype: default dtype, float.

    Raises:
        ValueError: if a bound is not positive, or `low >= high`.

    >>> round(log_uniform(1.0, 16.0).moments((64,)).high, 4)
    2.7726
    """

    low: Positive
    high: Positive
    dtype: DType = None

    def check_settings(self):
        if self.low >= self.high:
            raise ValueError(
                f"low must be less than high, got {self.low} and {self.high}."
            )

    def quantile(self, xp, u):
        return xp.log(self.low + (self.high - self.low) * u)

    def formula(self):
        return f"log({self.low:g} + {self.high - self.low:g} u)"


@dataclass(frozen=True, repr=False)
class softplus_inverse(FromUniform):
    """Biases whose softplus is a time step, log-uniform from `dt_min` to `dt_max`.

    `dt + log(1 - exp(-dt))`, `dt = exp(U(log dt_min, log dt_max))`: the bias of Mamba's
    and Mamba-2's `dt_proj`, whose kernel is `variance_scaling(1/3, "fan_in",
    "uniform")`. Gu and Dao, "Mamba: linear-time sequence modeling with selective state
    spaces" (2023). Their program's floor of 1e-4 does nothing at these bounds, and is
    left out.

    Args:
        dt_min: shortest step, greater than zero.
        dt_max: longest step, greater than `dt_min`.
        dtype: default dtype, float.

    Raises:
        ValueError: if a step is not positive, or `dt_min >= dt_max`.

    >>> import jax
    >>> dt = jax.nn.softplus(softplus_inverse()(jax.random.key(0), (64,)))
    >>> bool((dt > 0.00099).all() and (dt < 0.101).all())
    True
    """

    dt_min: Positive = 0.001
    dt_max: Positive = 0.1
    dtype: DType = None

    def check_settings(self):
        _check_steps(self.dt_min, self.dt_max)

    def quantile(self, xp, u):
        dt = self.dt_min * xp.exp(math.log(self.dt_max / self.dt_min) * u)
        return dt + xp.log(-xp.expm1(-dt))

    def formula(self):
        steps = f"{self.dt_min:g} ({self.dt_max / self.dt_min:g})^u"
        return f"dt + log(1 - exp(-dt)), dt = {steps}"


def _check_steps(dt_min: float, dt_max: float) -> None:
    if dt_min >= dt_max:
        raise ValueError(f"dt_min must be less than dt_max, got {dt_min} and {dt_max}.")


@maker
def log_steps(
    dt_min: float = 0.001, dt_max: float = 0.1, dtype: Any = None
) -> Initializer:
    """S4D's `log dt`: uniform between `log(dt_min)` and `log(dt_max)`.

    Gu et al., "On the parameterization and initialization of diagonal state space
    models" (2022).

    Args:
        dt_min: shortest step, greater than zero.
        dt_max: longest step, greater than `dt_min`.
        dtype: default dtype, float.

    Returns:
        The initializer.

    Raises:
        ValueError: if a step is not positive, or `dt_min >= dt_max`.

    >>> round(log_steps().moments((64,)).low, 4)
    -6.9078
    """
    low, high = positive("dt_min", dt_min), positive("dt_max", dt_max)
    _check_steps(low, high)
    return uniform(dtype=dtype, low=math.log(low), high=math.log(high))
