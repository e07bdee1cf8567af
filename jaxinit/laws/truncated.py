"""Normal laws between two bounds, exact wherever these are."""

import functools
import math
from dataclasses import dataclass

import numpy as np

from jaxinit.laws._quadrature import normal_integral
from jaxinit.laws._tail import tail_cdf
from jaxinit.laws.base import (
    Law,
    Moments,
    affine,
    moments_of,
    point_if_flat,
    standardised,
)
from jaxinit.laws.simple import Uniform


@dataclass(frozen=True, repr=False)
class TruncatedNormal(Law):
    """Normal law of standard deviation `stddev`, cut to `lower` and `upper` sigmas.

    The numbers are the settings: truncation makes the standard deviation smaller than
    `stddev`, as `moments()` tells.
    """

    stddev: float
    lower: float
    upper: float

    @property
    def _standard(self) -> "NormalBetween":
        return NormalBetween(1.0, 0.0, self.lower, self.upper)

    def moments(self) -> Moments:
        """Moments after truncation."""
        return affine(self._standard.moments(), self.stddev)

    def third(self) -> float:
        """By quadrature."""
        return self.stddev**3 * self._standard.third()

    def cdf(self, x):
        return self._standard.cdf(standardised(x, self.stddev))

    def __str__(self):
        return (
            f"normal, standard deviation {self.stddev:.6g}, "
            f"truncated at {self.lower:g} and {self.upper:g} of them"
        )


@dataclass(frozen=True, repr=False)
class NormalBetween(Law):
    """Normal law of deviation `stddev` about `mean`, cut to `low <= x <= high`.

    Where both bounds are on one side of the mean, all is reckoned from the nearer one:
    differences of what is far from the mean would lose their digits.
    """

    stddev: float
    mean: float
    low: float
    high: float

    @property
    def side(self) -> int:
        """1 if the law lies above its mean, -1 if below, 0 if around it."""
        return int(self.low >= self.mean) - int(self.high <= self.mean)

    @property
    def origin(self) -> float:
        """What distances are reckoned from: the bound nearer to the mean, or that."""
        return (self.high, self.mean, self.low)[self.side + 1]

    @property
    def tail(self) -> tuple[float, float]:
        """Where it starts, 0 around its mean, and its width, in deviations."""
        start = abs(self.origin - self.mean) / self.stddev
        return min(start, _FAR), (self.high - self.low) / self.stddev

    @property
    def slope(self) -> float:
        """About how much the density changes between its bounds, relative to itself."""
        start, width = self.tail
        return width * (start + width)

    @property
    def _flat(self) -> Uniform | None:
        """What it is to rounding error where its bounds are near to each other."""
        return Uniform(self.low, self.high) if self.slope < _FLAT else None

    def moments(self) -> Moments:
        """Moments after truncation."""
        if flat := self._flat:
            return flat.moments()
        standard = _truncated(*self._distances())
        moments = affine(standard, self.stddev * (self.side or 1), self.origin)
        return point_if_flat(moments._replace(low=self.low, high=self.high))

    def third(self) -> float:
        """By quadrature."""
        if self._flat:
            return 0.0
        return (self.side or 1) * self.stddev**3 * _truncated_third(*self._distances())

    def _distances(self) -> tuple[float, float, float]:
        """Where distances start from, and their bounds, in deviations."""
        if self.side:
            start, width = self.tail
            return start, 0.0, width
        ends = standardised([self.low, self.high], self.stddev, self.mean)
        return 0.0, *ends.tolist()

    def cdf(self, x):
        if flat := self._flat:
            return flat.cdf(x)
        x = np.clip(np.asarray(x, np.float64), self.low, self.high)
        if not self.side:
            below, above = _around([self.low, self.high], self.stddev, self.mean)
            return (_around(x, self.stddev, self.mean) - below) / (above - below)
        below = tail_cdf(*self.tail, self.side * (x - self.origin) / self.stddev)
        return below if self.side > 0 else 1 - below

    def __str__(self):
        return (
            f"normal, mean {self.mean:.6g}, standard deviation {self.stddev:.6g}, "
            f"truncated to {self.low:.6g} and {self.high:.6g}"
        )


_FLAT = 1e-14  # relative change of the density between its bounds
_FAR = 1e150  # its square is finite; a tail that starts there has no width to be seen


def _around(x, stddev: float, mean: float) -> np.ndarray:
    """Twice the probability between the mean and `x`, signed, to all digits."""
    from scipy.special import erf  # slow to import

    return erf(standardised(x, stddev, mean) / math.sqrt(2))


@functools.lru_cache(4096)
def _truncated(start: float, low: float, high: float) -> Moments:
    """Moments of `z - start`, `z` standard normal, cut to `low` and `high`.

    The closed form cancels in the tails and on narrow intervals; quadrature of the
    central moments does not.

    Args:
        start: zero, or where a tail begins; then `low` is zero.
        low: lower bound of `z - start`.
        high: upper bound of `z - start`.
    """

    def average(fun):
        return normal_integral(fun, low, high, start)

    mass = average(np.ones_like)
    mean = 0.0 if low == -high else average(lambda y: y) / mass
    second = average(lambda y: (y - mean) ** 2) / mass
    fourth = average(lambda y: (y - mean) ** 4) / mass
    return moments_of(mean, second, fourth, low, high)


@functools.lru_cache(4096)
def _truncated_third(start: float, low: float, high: float) -> float:
    """`E[(y - mean)**3]` of the same `y`."""
    if low == -high:
        return 0.0
    mean = _truncated(start, low, high).mean
    mass = normal_integral(np.ones_like, low, high, start)
    return normal_integral(lambda y: (y - mean) ** 3, low, high, start) / mass
