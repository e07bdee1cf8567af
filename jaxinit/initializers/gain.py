"""How much an activation shrinks a signal, for weights to make up for it.

The signal before an activation is taken to be standard normal.
"""

import math
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from jaxinit.initializers.settings import choice, finite
from jaxinit.laws._quadrature import BATCH, NODES, normal_integral

Activation = Callable[[jax.Array], jax.Array]

_TABLE = {
    **dict.fromkeys(["linear", "conv1d", "conv2d", "conv3d", "sigmoid"], 1.0),
    **dict.fromkeys([f"conv_transpose{n}d" for n in (1, 2, 3)], 1.0),
    "tanh": 5 / 3,
    "relu": math.sqrt(2),
    "leaky_relu": None,
    "selu": 3 / 4,
}
_DEFAULT_SLOPE = 0.01
_SLOPE = "param, the negative slope of leaky_relu,"
_check_mode = choice("forward", "backward")


def calculate_gain(name: str, param: float | None = None) -> float:
    """The gain that torch recommends for an activation, by its name.

    1 for linear, conv and sigmoid, 5/3 for tanh, `sqrt(2)` for relu, 3/4 for selu and
    `sqrt(2 / (1 + param**2))` for leaky_relu. These are rules of thumb, save the two
    last but selu: `gain` computes the value for any function.

    Args:
        name: "linear", "conv1d" to "conv3d", "conv_transpose1d" to "conv_transpose3d",
            "sigmoid", "tanh", "relu", "leaky_relu" or "selu".
        param: negative slope of leaky_relu, 0.01 if None; not looked at by the others.

    Returns:
        The gain.

    Raises:
        ValueError: if the name is not in the table, or the slope is not a number.

    >>> calculate_gain("leaky_relu", 1.0)
    1.0
    """
    choice(*_TABLE)("name", name)
    value = _TABLE[name]
    if value is not None:
        return value
    slope = _DEFAULT_SLOPE if param is None else finite(_SLOPE, param)
    return math.sqrt(2 / (1 + slope * slope))


def gain(fn: Activation, mode: Literal["forward", "backward"] = "forward") -> float:
    """The factor of the weights that keeps the size of a signal through `fn`.

    `1 / sqrt(E[fn(z)**2])` forward and `1 / sqrt(E[fn'(z)**2])` backward, `z` standard
    normal, by quadrature in float64. Weights of variance `gain**2 / fan_in` after the
    activation keep activations (forward) at second moment one; weights of variance
    `gain**2 / fan_out` keep gradients (backward).

    Args:
        fn: elementwise JAX function of one real array. Kinks and jumps are found; at a
            kink the derivative may be anything.
        mode: "forward" or "backward".

    Returns:
        The gain, to about 1e-9.

    Raises:
        TypeError: if `fn` is not callable, or not elementwise and real.
        ValueError: if the mean square is zero or not finite.

    >>> import jax
    >>> round(gain(jax.nn.relu), 6)
    1.414214
    >>> round(gain(jax.numpy.tanh), 3), round(gain(jax.numpy.tanh, "backward"), 3)
    (1.593, 1.467)
    """
    _check_mode("mode", mode)
    return 1 / math.sqrt(_mean_square(fn, derivative=mode == "backward"))


def critical(fn: Activation) -> tuple[float, float]:
    """The edge of chaos: standard deviations of weights and biases that keep a signal.

    With weights of variance `sigma_w**2 / fan_in` and biases of variance `sigma_b**2`,
    the second moment of a wide layer's input to `fn` goes from `q` to
    `sigma_w**2 E[fn(sqrt(q) z)**2] + sigma_b**2`, and small differences grow by
    `sigma_w**2 E[fn'(sqrt(q) z)**2]`. The pair returned makes `q = 1` a fixed point
    with growth one: `sigma_w = 1 / sqrt(E[fn'(z)**2])`,
    `sigma_b**2 = 1 - sigma_w**2 E[fn(z)**2]`. Of the edge's many points it is the one
    for signals of unit variance. Poole et al., "Exponential expressivity in deep neural
    networks through transient chaos" (2016); Schoenholz et al., "Deep information
    propagation" (2017).

    Args:
        fn: elementwise JAX function of one real array.

    Returns:
        `sigma_w` and `sigma_b`.

    Raises:
        TypeError: if `fn` is not callable, or not elementwise and real.
        ValueError: if a mean square is zero or not finite, or if no bias makes `q = 1`
            a fixed point on the edge.

    >>> import jax
    >>> sigma_w, sigma_b = critical(jax.nn.relu)
    >>> round(sigma_w, 6), round(sigma_b, 4)
    (1.414214, 0.0)
    """
    weight = 1 / _mean_square(fn, derivative=True)
    bias = 1 - weight * _mean_square(fn, derivative=False)
    if bias < -_ROUNDING:
        raise ValueError(
            f"fn={_name(fn)} has no edge of chaos at unit variance: weights of gain "
            f"{math.sqrt(weight):.6g} keep differences but already make the second "
            f"moment {1 - bias:.6g}, which no bias can lower. Subtract the mean of fn, "
            "or scale its input down."
        )
    return math.sqrt(weight), math.sqrt(bias) if bias > _ROUNDING else 0.0


_ROUNDING = 1e-9


def mean_over_normal(
    fn: Activation,
    transform: Callable[[np.ndarray], np.ndarray],
    derivative: bool = False,
) -> Callable[[float], float]:
    """`E[transform(fn(scale * z))]`, `z` standard normal, as a function of the scale.

    Args:
        fn: elementwise JAX function of one real array.
        transform: elementwise function of its values.
        derivative: whether to put the derivative of `fn` in its place.

    Raises:
        TypeError: if `fn` is not callable, or not elementwise and real.
    """
    if not callable(fn):
        raise TypeError(
            f"fn must be a function of an array, such as jax.nn.relu, got {fn!r}. "
            "calculate_gain takes names."
        )
    evaluate = jax.jit(_derivative_of(fn) if derivative else fn)

    def average(scale: float) -> float:
        with (
            jax.ensure_compile_time_eval(),
            jax.enable_x64(True),
            jax.numpy_dtype_promotion("standard"),
        ):
            _refuse_mixing(fn, jax.jit(fn))
            # what overflows shows in the integral
            with np.errstate(over="ignore", invalid="ignore"):
                integral = normal_integral(
                    lambda z: transform(_values(fn, evaluate(scale * z), z)),
                    -math.inf,
                    math.inf,
                )
        return integral / math.sqrt(2 * math.pi)

    return average


def _mean_square(fn: Activation, derivative: bool) -> float:
    square = mean_over_normal(fn, np.square, derivative)(1.0)
    if not 0 < square < math.inf:
        what = "derivative" if derivative else "value"
        raise ValueError(
            f"fn={_name(fn)} has no gain: its {what} has mean square {square} under a "
            "standard normal, and it must be positive and finite."
        )
    return square


def _derivative_of(fn: Activation) -> Activation:
    return lambda z: jax.jvp(fn, (z,), (jnp.ones_like(z),))[1]


def _values(fn: Activation, values: Any, z: np.ndarray) -> np.ndarray:
    if jnp.shape(values) != z.shape or jnp.iscomplexobj(values):
        raise TypeError(
            f"fn={_name(fn)} must be elementwise and real: on an array of shape "
            f"{z.shape} it returned shape {jnp.shape(values)}, dtype "
            f"{jnp.result_type(values)}."
        )
    return np.asarray(values, np.float64)


def _refuse_mixing(fn: Activation, evaluate: Callable[..., Any]) -> None:
    """Raises if a value depends on other entries, as those of a softmax do."""
    z = np.linspace(-3.0, 3.0, BATCH * NODES)
    half = z.size // 2
    wanted = _values(fn, evaluate(z), z)
    for own, other in (
        (slice(half), slice(half, None)),
        (slice(half, None), slice(half)),
    ):
        changed = z.copy()
        changed[other] += 1.0
        found = _values(fn, evaluate(changed), z)
        if not np.allclose(found[own], wanted[own], rtol=1e-6, equal_nan=True):
            raise TypeError(
                f"fn={_name(fn)} must be elementwise: its value at one entry depends "
                "on others, as that of a softmax or a normalization does. These have "
                "no gain."
            )


def _name(fn: Activation) -> str:
    return getattr(fn, "__name__", None) or repr(fn)
