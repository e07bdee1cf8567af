"""What a law is: the distribution of one entry of an array, and its moments."""

import math
from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np


class Moments(NamedTuple):
    """What is expected of the entries of an array, as Python floats.

    Attributes:
        mean: `E[x]`; of complex entries its real part (all complex laws here have a
            real mean, except constants).
        variance: `E[|x - mean|**2]`.
        kurtosis: `E[|x - mean|**4] / variance**2`, 3 for a real normal law and 2 for a
            complex one; NaN where the variance is zero.
        low: greatest lower bound of the entries, or of their real and imaginary parts.
        high: least upper bound of the same. Rounding to the dtype may step past a bound
            by its last digit.
    """

    mean: float
    variance: float
    kurtosis: float
    low: float
    high: float

    @property
    def std(self) -> float:
        """Standard deviation."""
        return math.sqrt(self.variance)

    def clipped(self, low: float, high: float) -> "Moments":
        """The same, with bounds no wider than `low` and `high`."""
        return self._replace(
            low=min(max(self.low, low), high), high=max(min(self.high, high), low)
        )


@dataclass(frozen=True, repr=False)
class Law:
    """The distribution of one entry of an array, as a value.

    A law of your own is a frozen dataclass with `moments`, `cdf`, by which
    `testing.assert_law` and `stats.fit` compare arrays with it, and `__str__`, its
    words in `explain`. One that is not symmetric also has `third`.

    >>> @dataclass(frozen=True, repr=False)
    ... class Coin(Law):
    ...     share: float
    ...
    ...     def moments(self):
    ...         variance = self.share * (1 - self.share)
    ...         return Moments(self.share, variance, 1 / variance - 3, 0.0, 1.0)
    ...
    ...     def cdf(self, x):
    ...         return np.where(x < 0, 0.0, np.where(x < 1, 1 - self.share, 1.0))
    ...
    ...     def __str__(self):
    ...         return f"1 with probability {self.share:g}, else 0"
    >>> print(Coin(0.5), Coin(0.5).moments().kurtosis)
    1 with probability 0.5, else 0 1.0
    """

    # One `repr` for all: one for each would slow down importing jaxinit.

    def moments(self) -> Moments:
        """Its moments."""
        raise NotImplementedError(f"{type(self).__name__} states no moments")

    def third(self) -> float:
        """`E[(x - mean)**3]`, which a mixture needs; zero of symmetric laws."""
        return 0.0

    def cdf(self, x: np.ndarray) -> np.ndarray:
        """Probability of an entry at or below `x`; of complex laws, of its modulus.

        Args:
            x: float64 values, may be infinite.

        Returns:
            Probabilities, of the shape of `x`.
        """
        raise NotImplementedError(f"{type(self).__name__} has no cdf")

    def __repr__(self):
        settings = (f"{f.name}={getattr(self, f.name)!r}" for f in fields(self))
        return f"{type(self).__name__}({', '.join(settings)})"


def moments_of(mean, second, fourth, low, high) -> Moments:
    """Moments, given the central ones, as Python floats."""
    kurtosis = fourth / second**2 if second else math.nan
    return Moments(float(mean), float(second), float(kurtosis), float(low), float(high))


def affine(standard: Moments, stddev: float, mean: float = 0.0) -> Moments:
    """Moments of `mean + stddev * x`, given those of `x`."""
    if not stddev:
        return Moments(mean, 0.0, math.nan, mean, mean)
    return Moments(
        mean + stddev * standard.mean,
        stddev**2 * standard.variance,
        standard.kurtosis,
        mean + stddev * standard.low,
        mean + stddev * standard.high,
    )


def point_if_flat(moments: Moments) -> Moments:
    return moments if moments.variance else moments._replace(kurtosis=math.nan)


def standardised(x, stddev: float, mean: float = 0.0) -> np.ndarray:
    """`(x - mean) / stddev`; infinite where the deviation is zero."""
    offset = np.asarray(x, np.float64) - mean
    if stddev:
        return offset / stddev
    return np.where(offset >= 0, np.inf, -np.inf)
