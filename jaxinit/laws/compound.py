"""Laws made of others, of a table, or of a quantile function."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from jaxinit.laws._quadrature import uniform_mean
from jaxinit.laws.base import Law, Moments, affine, moments_of
from jaxinit.laws.simple import Values


@dataclass(frozen=True, repr=False)
class Scaled(Law):
    """Another law, times a number."""

    law: Law
    factor: float

    def moments(self) -> Moments:
        """Moments of the law, scaled."""
        moments = affine(self.law.moments(), self.factor)
        low, high = sorted([moments.low, moments.high])
        return moments._replace(low=low, high=high)

    def third(self) -> float:
        """That of the law, scaled."""
        return self.factor**3 * self.law.third()

    def cdf(self, x):
        x = np.asarray(x, np.float64)
        if not self.factor:
            return np.where(x >= 0, 1.0, 0.0)
        if self.factor > 0:
            return self.law.cdf(x / self.factor)
        below = np.nextafter(x / self.factor, -np.inf)  # an atom at `x` counts
        return 1 - self.law.cdf(below)

    def __str__(self):
        return f"{self.factor:g} times ({self.law})"


@dataclass(frozen=True, repr=False)
class Shifted(Law):
    """Another law, plus a number."""

    law: Law
    shift: float

    def moments(self) -> Moments:
        """Moments of the law, shifted."""
        return affine(self.law.moments(), 1.0, self.shift)

    def third(self) -> float:
        """That of the law."""
        return self.law.third()

    def cdf(self, x):
        return self.law.cdf(np.asarray(x, np.float64) - self.shift)

    def __str__(self):
        return f"{self.shift:g} plus ({self.law})"


@dataclass(frozen=True, repr=False)
class Mixture(Law):
    """The law of an entry picked at random from parts of given sizes."""

    parts: tuple[tuple[Law, int], ...]

    def moments(self) -> Moments:
        """Moments about the common mean."""
        known = self._known()
        if not known:
            return Moments(0.0, 0.0, math.nan, 0.0, 0.0)
        mean = _average(known, lambda law, m: m.mean)
        second = _average(known, lambda law, m: m.variance + (m.mean - mean) ** 2)
        fourth = _average(known, lambda law, m: _fourth_about(law, m, mean))
        low, high = min(m.low for _, m, _ in known), max(m.high for _, m, _ in known)
        return moments_of(mean, second, fourth, low, high)

    def third(self) -> float:
        """About the common mean."""
        known = self._known()
        mean = _average(known, lambda law, m: m.mean)
        return _average(known, lambda law, m: _third_about(law, m, mean))

    def _known(self) -> list[tuple[Law, Moments, int]]:
        """Each law that has entries, once, with its moments and their number."""
        sizes: dict[Law, int] = {}
        for law, size in self.parts:
            sizes[law] = sizes.get(law, 0) + size
        return [(law, law.moments(), size) for law, size in sizes.items() if size]

    def cdf(self, x):
        total = sum(size for _, size in self.parts)
        shares = [law.cdf(x) * (size / total) for law, size in self.parts if size]
        return np.sum(shares, axis=0)

    def __str__(self):
        laws = list(dict.fromkeys(str(law) for law, n in self.parts if n))
        shown = "; ".join(laws[:3]) + ("; ..." if len(laws) > 3 else "")
        return f"{len(self.parts)} parts: {shown}"


def _average(
    known: list[tuple[Law, Moments, int]], fun: Callable[[Law, Moments], float]
) -> float:
    total = sum(size for _, _, size in known)
    return sum(fun(law, m) * size for law, m, size in known) / max(total, 1)


def points(*values: tuple[float, int]) -> Mixture:
    """The law of arrays of few values, each given with the number of its entries."""
    return Mixture(tuple((Values((value,)), count) for value, count in values))


def _third_about(law: Law, moments: Moments, centre: float) -> float:
    """`E[(x - centre)**3]`."""
    shift = moments.mean - centre
    return law.third() + 3 * shift * moments.variance + shift**3


def _fourth_about(law: Law, moments: Moments, centre: float) -> float:
    """`E[(x - centre)**4]`."""
    shift, variance = moments.mean - centre, moments.variance
    own = moments.kurtosis * variance**2 if variance else 0.0
    return own + 4 * shift * law.third() + 6 * shift**2 * variance + shift**4


class HasTable(Protocol):
    """What makes an array that follows from its shape alone."""

    def table(self, shape: tuple[int, ...]) -> np.ndarray: ...


@dataclass(frozen=True, repr=False)
class Table(Law):
    """The law of an entry picked at random from a table that `maker` makes."""

    maker: HasTable
    shape: tuple[int, ...]

    def moments(self) -> Moments:
        """Moments of the table itself."""
        table = self.maker.table(self.shape)
        if not table.size:
            return Moments(0.0, 0.0, math.nan, 0.0, 0.0)
        squares = (table - table.mean()) ** 2
        low, high = table.min(), table.max()
        fourth = (squares**2).mean()
        return moments_of(table.mean(), squares.mean(), fourth, low, high)

    def third(self) -> float:
        """That of the table."""
        table = self.maker.table(self.shape)
        return float(((table - table.mean()) ** 3).mean()) if table.size else 0.0

    def cdf(self, x):
        table = np.sort(self.maker.table(self.shape), axis=None)
        return np.searchsorted(table, x, "right") / table.size

    def __str__(self):
        return "fixed values, a table that follows from the shape"


class HasQuantile(Protocol):
    """What draws `quantile(u)` from a uniform `u`."""

    def quantile(self, xp: Any, u: Any) -> Any: ...

    def formula(self) -> str: ...


@dataclass(frozen=True, repr=False)
class Quantile(Law):
    """The law whose quantile function is that of `maker`.

    The function is increasing, and smooth between 0 and 1; at the ends it may have a
    logarithmic singularity.
    """

    maker: HasQuantile

    def moments(self) -> Moments:
        """By quadrature to rounding error."""
        mean = uniform_mean(self._values)
        second = uniform_mean(lambda u: (self._values(u) - mean) ** 2)
        fourth = uniform_mean(lambda u: (self._values(u) - mean) ** 4)
        with np.errstate(divide="ignore"):
            low, high = self._values(np.array([0.0, 1.0]))
        return moments_of(mean, second, fourth, low, high)

    def third(self) -> float:
        """By quadrature."""
        mean = uniform_mean(self._values)
        return uniform_mean(lambda u: (self._values(u) - mean) ** 3)

    def cdf(self, x):
        """By bisection of the quantile function."""
        low, high = np.zeros(np.shape(x)), np.ones(np.shape(x))
        for _ in range(53):
            middle = (low + high) / 2
            is_below = self._values(middle) <= x
            low, high = (
                np.where(is_below, middle, low),
                np.where(is_below, high, middle),
            )
        return np.where(high < 1, low, 1.0)

    def _values(self, u: np.ndarray) -> np.ndarray:
        return self.maker.quantile(np, u)

    def __str__(self):
        return f"{self.maker.formula()}, u uniform between 0 and 1"
