"""How activations are distributed: functions of one standard normal number.

Take `relu(z)`. On a grid of 3601 numbers `z` with weights of a standard normal law,
its mean is 0.399, its second moment 0.5, and the second moment of its slope 0.5.
"""

import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxinit._roles.reading.functions import FUNCTIONS

_GRID = np.linspace(-9.0, 9.0, 3601)
_WEIGHTS = np.exp(-(_GRID**2) / 2) * (_GRID[1] - _GRID[0]) / math.sqrt(2 * math.pi)
_EVERY = 30  # of the grid, for two variables
_COARSE = _WEIGHTS[_EVERY // 2 :: _EVERY]  # none is zero, where steps are
_TIMES = np.geomspace(1e-9, 1e5, 320)
_CLOSE = 0.01  # how far apart slopes of two grids may be, unless there is a jump

Expression = Any  # "z", a number, or an operation, its parameters and its operands


class Spread:
    """How the entries of a value are distributed.

    Attributes:
        root: number of the standard normal variable that they are made of.
        expression: the function of it.
        size: number of operations in that.
    """

    __slots__ = ("_doubt", "_found", "expression", "root", "size")

    def __init__(self, root: int, expression: Expression, size: int, doubt: str = ""):
        self.root, self.expression, self.size = root, expression, size
        self._doubt = doubt
        self._found: tuple[float, float] | None = None

    @property
    def doubt(self) -> str:
        """Why the moments are not known, or not finite; "" if nothing is found yet."""
        is_known = self._found is None or math.isfinite(self._found[1])
        return self._doubt or ("" if is_known else "its moments are not finite")

    @property
    def is_finite(self) -> bool:
        """Whether its moments are finite."""
        return self._moments() == self._found

    @property
    def mean(self) -> float:
        """Expected entry; zero if it is not finite."""
        return self._moments()[0]

    @property
    def second(self) -> float:
        """Expected square of an entry; one if it is not finite."""
        return self._moments()[1]

    @property
    def variance(self) -> float:
        """Expected square of the distance from the mean."""
        mean, second = self._moments()
        return max(second - mean * mean, 0.0)

    def slopes(self) -> tuple[float, float, float] | None:
        """What a change of the variable does, `y` the value, `'` its derivative.

        Returns:
            `E[y'**2]`, how much larger the square of a small difference is behind it;
            `E[z y y']`, how fast the second moment grows with the variance of `z`; and
            the same of the variance of `y`. None if `y` jumps, or grows too fast.
        """
        return _slopes(self.expression)

    @property
    def is_positive(self) -> bool:
        """Whether no entry is negative."""
        return bool(np.all(_on_grid(self.expression) >= 0))

    def top(self, share: float) -> tuple[float, float]:
        """Mean and variance of the largest of many entries, a share of all of them."""
        values = _on_grid(self.expression)
        if not np.all(np.isfinite(values)):
            return 0.0, 1.0
        order = np.argsort(-values)
        shares = np.cumsum(_WEIGHTS[order]) / _WEIGHTS.sum()
        weights = np.diff(np.minimum(shares, share), prepend=0.0) / share
        mean = float(values[order] @ weights)
        return mean, float(np.square(values[order] - mean) @ weights)

    def largest(self, count: int) -> tuple[float, float]:
        """Mean and variance of the largest of several independent entries."""
        values = _on_grid(self.expression)
        if not np.all(np.isfinite(values)):
            return 0.0, 1.0
        order = np.argsort(values)
        shares = np.cumsum(_WEIGHTS[order]) / _WEIGHTS.sum()
        weights = np.diff(shares**count, prepend=0.0)
        mean = float(values[order] @ weights)
        return mean, float(np.square(values[order] - mean) @ weights)

    def squares_of_shares(self, count: float) -> float:
        """Expected sum of the squares of positive values over the sum of `count`.

        It is `n E[(y1 / (y1 + ... + yn))**2]`, which with `1 / s**2`, written as the
        integral of `t exp(-s t)`, is one of powers of `E[exp(-t y)]`.
        """
        return _squares_of_shares(self.expression, count)

    def _moments(self) -> tuple[float, float]:
        if self._found is None:
            self._found = _integrated(self.expression)
        return self._found if math.isfinite(self._found[1]) else (0.0, 1.0)


def of_two(op: str, operands: Sequence["float | Spread"]) -> tuple[float, float] | None:
    """Mean and variance of a function of two independent values.

    Args:
        op: name of the function, one of `FUNCTIONS`.
        operands: the values, each a function of a variable of its own, or a number.

    Returns:
        Both; None if they are not finite, or there are other than two operands.
    """
    if len(operands) != 2:
        return None
    first, second = (_coarse(x) for x in operands)
    weights = _COARSE / _COARSE.sum()
    with np.errstate(all="ignore"):
        values = FUNCTIONS[op]({}, first[:, None], second[None, :]).astype(float)
        mean = float(weights @ values @ weights)
        variance = float(weights @ np.square(values - mean) @ weights)
    return (mean, variance) if math.isfinite(variance) else None


def _coarse(operand: "float | Spread") -> np.ndarray:
    expression = operand.expression if isinstance(operand, Spread) else operand
    return _on_grid(expression)[_EVERY // 2 :: _EVERY]


@functools.lru_cache(maxsize=2048)
def _integrated(expression: Expression) -> tuple[float, float]:
    """Mean and second moment, which is infinite if either is not finite."""
    with np.errstate(all="ignore"):
        values = _on_grid(expression)
        mean, second = float(values @ _WEIGHTS), float((values * values) @ _WEIGHTS)
    return (mean, second) if math.isfinite(second) else (0.0, math.inf)


@functools.lru_cache(maxsize=512)
def _squares_of_shares(expression: Expression, count: float) -> float:
    y, weights = _coarse(expression), _COARSE / _COARSE.sum()
    powers = np.exp(-np.outer(_TIMES, y / (weights @ y)))
    squares = powers @ (weights * (y / (weights @ y)) ** 2)
    total = (_TIMES**2 * squares) @ (powers @ weights) ** (count - 1)
    found = float(count * total * math.log(_TIMES[1] / _TIMES[0]))
    return min(max(found, 1 / count), 1.0)


@functools.lru_cache(maxsize=2048)
def _slopes(expression: Expression) -> tuple[float, float, float] | None:
    with np.errstate(all="ignore"):
        y = _on_grid(expression)
        slope = np.gradient(y, _GRID)
        fine = float(slope**2 @ _WEIGHTS)
        coarse = float(np.gradient(y[::2], _GRID[::2]) ** 2 @ (2 * _WEIGHTS[::2]))
        growth = float((_GRID * y * slope) @ _WEIGHTS)
        of_mean = float(y @ _WEIGHTS) * float((_GRID * slope) @ _WEIGHTS)
    if not math.isfinite(growth) or not math.isclose(fine, coarse, rel_tol=_CLOSE):
        return None
    return fine, growth, growth - of_mean


def _on_grid(expression: Expression) -> np.ndarray:
    with np.errstate(all="ignore"):
        return np.asarray(_evaluated(expression, {}), float) + 0 * _GRID


def _evaluated(expression: Expression, known: dict[int, Any]) -> Any:
    if isinstance(expression, float):
        return expression
    if expression == "z":
        return _GRID
    if id(expression) not in known:
        op, params, *operands = expression
        values = [_evaluated(x, known) for x in operands]
        known[id(expression)] = FUNCTIONS[op](dict(params), *values)
    return known[id(expression)]
