"""Elementwise functions by their values: their name, and their gain.

Nodes between two values are replayed with NumPy in float64, so nothing is compiled.
Take the two nodes of `silu`, `logistic` and `mul`: replayed on numbers `z`, they give
those of `z / (1 + exp(-z))`, whatever the function is called, and their second moment
under a standard normal `z` is 0.3558, so the gain is 1.6766.
"""

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from jaxinit.laws._quadrature import normal_integral

Array = np.ndarray


def _erf(x: Any) -> Any:
    from scipy.special import erf  # loaded where it is used

    return erf(x)


def _select(_: Any, which: Any, *cases: Any) -> Any:
    return np.choose(np.asarray(which, np.int64), np.broadcast_arrays(*cases))


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "add": lambda _, x, y: x + y,
    "add_any": lambda _, x, y: x + y,
    "sub": lambda _, x, y: x - y,
    "mul": lambda _, x, y: x * y,
    "div": lambda _, x, y: x / y,
    "max": lambda _, x, y: np.maximum(x, y),
    "min": lambda _, x, y: np.minimum(x, y),
    "pow": lambda _, x, y: np.power(x, y),
    "rem": lambda _, x, y: np.fmod(x, y),
    "atan2": lambda _, x, y: np.arctan2(x, y),
    "neg": lambda _, x: -x,
    "abs": lambda _, x: np.abs(x),
    "sign": lambda _, x: np.sign(x),
    "floor": lambda _, x: np.floor(x),
    "ceil": lambda _, x: np.ceil(x),
    "round": lambda _, x: np.round(x),
    "exp": lambda _, x: np.exp(x),
    "exp2": lambda _, x: np.exp2(x),
    "expm1": lambda _, x: np.expm1(x),
    "log": lambda _, x: np.log(x),
    "log1p": lambda _, x: np.log1p(x),
    "logistic": lambda _, x: 1 / (1 + np.exp(-x)),
    "tanh": lambda _, x: np.tanh(x),
    "sinh": lambda _, x: np.sinh(x),
    "cosh": lambda _, x: np.cosh(x),
    "asinh": lambda _, x: np.arcsinh(x),
    "tan": lambda _, x: np.tan(x),
    "sin": lambda _, x: np.sin(x),
    "cos": lambda _, x: np.cos(x),
    "atan": lambda _, x: np.arctan(x),
    "sqrt": lambda _, x: np.sqrt(x),
    "rsqrt": lambda _, x: 1 / np.sqrt(x),
    "cbrt": lambda _, x: np.cbrt(x),
    "square": lambda _, x: np.square(x),
    "one_minus_square": lambda _, x: 1 - np.square(x),
    "integer_pow": lambda p, x: np.power(x, float(p["y"])),
    "erf": lambda _, x: _erf(x),
    "erfc": lambda _, x: 1 - _erf(x),
    "clamp": lambda _, low, x, high: np.clip(x, low, high),
    "is_finite": lambda _, x: np.isfinite(x),
    "eq": lambda _, x, y: x == y,
    "ne": lambda _, x, y: x != y,
    "lt": lambda _, x, y: x < y,
    "le": lambda _, x, y: x <= y,
    "gt": lambda _, x, y: x > y,
    "ge": lambda _, x, y: x >= y,
    "not": lambda _, x: np.logical_not(x),
    "and": lambda _, x, y: np.logical_and(x, y),
    "or": lambda _, x, y: np.logical_or(x, y),
    "select_n": _select,
}


def _sigmoid(z: Array) -> Array:
    return 1 / (1 + np.exp(-z))


# SELU's constants: Klambauer et al., "Self-normalizing neural networks" (2017).
_ALPHA, _LAMBDA = 1.6732632423543772, 1.0507009873554805

NAMED: dict[str, Callable[[Array], Array]] = {
    "identity": lambda z: z,
    "relu": lambda z: np.maximum(z, 0),
    "gelu": lambda z: z * (1 + _erf(z / math.sqrt(2))) / 2,
    "gelu (tanh)": lambda z: (
        z * (1 + np.tanh(math.sqrt(2 / math.pi) * (z + 0.044715 * z**3))) / 2
    ),
    "silu": lambda z: z * _sigmoid(z),
    "tanh": np.tanh,
    "sigmoid": _sigmoid,
    "softplus": lambda z: np.logaddexp(z, 0),
    "elu": lambda z: np.where(z > 0, z, np.expm1(z)),
    "selu": lambda z: _LAMBDA * np.where(z > 0, z, _ALPHA * np.expm1(z)),
    "celu": lambda z: np.where(z > 0, z, np.expm1(z)),
    "leaky_relu": lambda z: np.where(z > 0, z, 0.01 * z),
    "relu6": lambda z: np.clip(z, 0, 6),
    "hard_sigmoid": lambda z: np.clip(z + 3, 0, 6) / 6,
    "hard_swish": lambda z: z * np.clip(z + 3, 0, 6) / 6,
    "hard_tanh": lambda z: np.clip(z, -1, 1),
    "soft_sign": lambda z: z / (1 + np.abs(z)),
    "log_sigmoid": lambda z: -np.logaddexp(-z, 0),
    "mish": lambda z: z * np.tanh(np.logaddexp(z, 0)),
    "quick_gelu": lambda z: z * _sigmoid(1.702 * z),
    "squared_relu": lambda z: np.square(np.maximum(z, 0)),
    "square": np.square,
    "exp": np.exp,
    "abs": np.abs,
    "sin": np.sin,
    "cos": np.cos,
}
_PROBES = np.array([-7.3, -4.1, -2.9, -1.3, -0.7, -0.2, 0.1, 0.4, 1.1, 2.2, 3.7, 6.9])


class Function:
    """A function of one number.

    Attributes:
        name: its usual name, or the operations that it is made of.
        gain: `1 / sqrt(E[f(z)**2])`, `z` standard normal; NaN if that is not finite.
        mean: `E[f(z)]`.
        is_linear: whether it is the identity, multiplied or shifted at most.
        second_moment: `E[f(z)**2]`.
        multiple: the number that the function of that name is multiplied by; one if
            that is not known.
    """

    def __init__(self, call: Callable[[Array], Array], text: str):
        self._call = call
        with np.errstate(all="ignore"):
            values = np.asarray(call(_PROBES), float)
            name, self.multiple = _named(values)
            self.name = name or text
        self.is_linear = self.name == "identity"

    @functools.cached_property
    def gain(self) -> float:
        square = self.second_moment
        return 1 / math.sqrt(square) if 0 < square < math.inf else math.nan

    @functools.cached_property
    def second_moment(self) -> float:
        return self._mean(np.square)

    @functools.cached_property
    def mean(self) -> float:
        return self._mean(lambda x: x)

    @functools.cached_property
    def is_gate(self) -> bool:
        """Whether it goes from 0 to 1, as a sigmoid does, or from 1 to 0."""
        with np.errstate(all="ignore"):
            low, high = np.asarray(self._call(np.array([-60.0, 60.0])), float)
        return np.allclose(sorted([low, high]), [0, 1], atol=1e-6)

    def _mean(self, transform) -> float:
        with np.errstate(all="ignore"):
            try:
                total = normal_integral(
                    lambda z: transform(np.asarray(self._call(z), float) + 0 * z),
                    -math.inf,
                    math.inf,
                )
            except ValueError:  # it jumps nearly everywhere
                return math.nan
        return total / math.sqrt(2 * math.pi)


def _named(values: Array) -> tuple[str | None, float]:
    """The name of a function, of its multiples, and of shifts of the identity."""
    slopes = np.diff(values) / np.diff(_PROBES)
    if np.allclose(slopes, slopes[0], rtol=1e-5) and slopes[0] != 0:
        return "identity", 1.0
    for near in (_NEAR, _NEAR_IN_HALF):
        for name, function in NAMED.items():
            with np.errstate(all="ignore"):
                multiple = _multiple(values, function(_PROBES), near)
            if multiple is not None:
                return name.partition(" (")[0], multiple
    negative, positive = values[_PROBES < 0], values[_PROBES > 0]
    slope = negative / _PROBES[_PROBES < 0]
    linear = np.allclose(positive, _PROBES[_PROBES > 0], rtol=1e-5)
    if linear and np.allclose(slope, slope[0]) and 0 < slope[0] < 1:
        return "leaky_relu", 1.0
    if np.all((values > 0) & (values < 1)):  # of an argument that is scaled or shifted
        logits = np.log(values) - np.log1p(-values)
        slopes = np.diff(logits) / np.diff(_PROBES)
        if slopes[0] > 0 and np.allclose(slopes, slopes[0], rtol=1e-3, atol=1e-3):
            return "sigmoid", 1.0
    return None, 1.0


def _multiple(values: Array, wanted: Array, near: float) -> float | None:
    """What others are multiplied by for values, but for a small number that is added.

    As of `softplus(z) + 1e-3`, which is to stay above zero.
    """
    low, high = np.argmin(wanted), np.argmax(wanted)
    factor = (values[high] - values[low]) / (wanted[high] - wanted[low])
    if not (np.isfinite(factor) and factor > 0):
        return None
    shares = values / factor - wanted
    small = abs(shares[low]) <= _SMALL_SHIFT
    is_multiple = small and np.allclose(shares - shares[low], 0, atol=near)
    return float(factor) if is_multiple else None


_SMALL_SHIFT, _NEAR = 1e-2, 1e-5
_NEAR_IN_HALF = 3e-3  # constants in bfloat16 have eight bits


@functools.lru_cache(maxsize=256)
def replayed(steps: tuple) -> Function:
    """The function that some operations make.

    Args:
        steps: for each operation its name, its parameters, and its inputs: numbers, or
            positions of earlier results in a list whose first is the argument.
    """

    def call(z: Array) -> Array:
        results: list[Any] = [z]
        for op, params, inputs in steps:
            values = [results[x] if isinstance(x, int) else x for x in inputs]
            results.append(FUNCTIONS[op](dict(params), *values))
        return results[-1]

    return Function(call, _text(steps) or "identity")


def _text(steps: tuple) -> str:
    """What operations are in words: `softplus, log`, if a function begins them."""
    ops = [op for op, _, _ in steps]
    for i in range(len(steps) - 1, 1, -1):
        rest = [x for _, _, inputs in steps[i:] for x in inputs if isinstance(x, int)]
        begins = replayed(steps[:i])
        is_named = begins.name in NAMED and not begins.is_linear
        if is_named and min(rest) == i:  # what follows takes its value only
            ops = [begins.name, *ops[i:]]
            break
    return ", ".join(dict.fromkeys(ops))


def plain_params(params: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
    """The parameters that `FUNCTIONS` look at."""
    return tuple((k, params[k]) for k in ("y",) if k in params)
