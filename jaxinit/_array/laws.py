"""Laws: the distribution of one entry of an array, and its moments.

A law is a value. It knows its moments in closed form, or by quadrature to rounding
error where the closed form cancels, and prints itself in words. Laws draw nothing.
"""

import functools
import math
from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np

from jaxinit._array.quadrature import normal_integral
from jaxinit._array.tail import tail_cdf


class Moments(NamedTuple):
    """What is expected of the entries of an array, as Python floats.

    Attributes:
        mean: `E[x]`; of complex entries its real part (all complex laws here have a
            real mean, save constants).
        variance: `E[|x - mean|**2]`.
        kurtosis: `E[|x - mean|**4] / variance**2`, 3 for a real normal law and 2 for a
            complex one; NaN where the variance is zero.
        low: greatest lower bound of the entries, or of their real and imaginary parts.
        high: least upper bound, likewise. Rounding to the dtype may step past a bound
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
    """A distribution: prints itself in words, and knows its moments.

    One `repr` for all: one for each would slow down importing jaxinit.
    """

    def moments(self) -> Moments:
        """Its moments."""
        raise NotImplementedError

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


@dataclass(frozen=True, repr=False)
class Normal(Law):
    """Normal law, `mean + stddev * z`."""

    stddev: float
    mean: float = 0.0

    def moments(self) -> Moments:
        """Kurtosis 3, no bounds."""
        return affine(
            Moments(0.0, 1.0, 3.0, -math.inf, math.inf), self.stddev, self.mean
        )

    def cdf(self, x):
        return _normal_cdf(_standardised(x, self.stddev, self.mean))

    def __str__(self):
        return f"normal, mean {self.mean:.6g}, standard deviation {self.stddev:.6g}"


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
        return self._standard.cdf(_standardised(x, self.stddev))

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
        """Where a law beside its mean starts, and its width, in deviations."""
        start = abs(self.origin - self.mean) / self.stddev
        return min(start, _FAR), (self.high - self.low) / self.stddev

    def moments(self) -> Moments:
        """Moments after truncation."""
        if self.low == self.high:
            return Moments(self.low, 0.0, math.nan, self.low, self.low)
        standard = _truncated(*self._distances())
        moments = affine(standard, self.stddev * (self.side or 1), self.origin)
        return _point_if_flat(moments._replace(low=self.low, high=self.high))

    def third(self) -> float:
        """By quadrature."""
        third = _truncated_third(*self._distances()) if self.low < self.high else 0.0
        return (self.side or 1) * self.stddev**3 * third

    def _distances(self) -> tuple[float, float, float]:
        """Where distances start from, and their bounds, in deviations."""
        if self.side:
            start, width = self.tail
            return start, 0.0, width
        ends = _standardised([self.low, self.high], self.stddev, self.mean)
        return 0.0, *ends.tolist()

    def cdf(self, x):
        if self.low == self.high:
            return np.where(np.asarray(x) >= self.low, 1.0, 0.0)
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


@dataclass(frozen=True, repr=False)
class Uniform(Law):
    """Uniform law on `[low, high)`."""

    low: float
    high: float

    def moments(self) -> Moments:
        """Variance `(high - low)**2 / 12`, kurtosis 9/5."""
        mean, width = self.low + (self.high - self.low) / 2, self.high - self.low
        return _point_if_flat(Moments(mean, width**2 / 12, 1.8, self.low, self.high))

    def cdf(self, x):
        x = np.asarray(x, np.float64)
        if self.low == self.high:
            return np.where(x >= self.low, 1.0, 0.0)
        return np.clip((x - self.low) / (self.high - self.low), 0.0, 1.0)

    def __str__(self):
        return f"uniform between {self.low:.6g} and {self.high:.6g}"


@dataclass(frozen=True, repr=False)
class ComplexNormal(Law):
    """Complex normal law: real and imaginary parts independent, `E|x|^2 = stddev^2`."""

    stddev: float
    mean: float = 0.0

    def moments(self) -> Moments:
        """Kurtosis 2, no bounds."""
        return affine(
            Moments(0.0, 1.0, 2.0, -math.inf, math.inf), self.stddev, self.mean
        )

    def cdf(self, x):
        """Of the distance from the mean: its square is exponential."""
        return -np.expm1(-(_standardised(np.maximum(x, 0), self.stddev) ** 2))

    def __str__(self):
        return f"complex {Normal(self.stddev, self.mean)}"


@dataclass(frozen=True, repr=False)
class ComplexTruncatedNormal(Law):
    """Complex normal law of deviation `stddev`, its modulus cut at `radius` of them.

    The square of the standardised modulus is exponential, truncated at `radius**2`.
    """

    stddev: float
    radius: float

    def moments(self) -> Moments:
        """Moments after truncation."""
        cut = self.radius**2
        tail = cut / math.expm1(cut)
        second, fourth = 1 - tail, 2 - (cut + 2) * tail
        standard = Moments(0.0, second, fourth / second**2, -self.radius, self.radius)
        return affine(standard, self.stddev)

    def cdf(self, x):
        z = np.clip(_standardised(x, self.stddev), 0, self.radius)
        return np.expm1(-(z**2)) / math.expm1(-(self.radius**2))

    def __str__(self):
        return (
            f"complex normal, standard deviation {self.stddev:.6g}, "
            f"modulus truncated at {self.radius:g} of them"
        )


@dataclass(frozen=True, repr=False)
class Disk(Law):
    """Uniform law on the complex disk of radius `sqrt(2) * stddev`."""

    stddev: float

    def moments(self) -> Moments:
        """`E|x|^2 = stddev^2`, kurtosis 4/3."""
        radius = math.sqrt(2)
        return affine(Moments(0.0, 1.0, 4 / 3, -radius, radius), self.stddev)

    def cdf(self, x):
        radius = math.sqrt(2)
        return (np.clip(_standardised(x, self.stddev), 0, radius) / radius) ** 2

    def __str__(self):
        return f"uniform on the complex disk of radius {math.sqrt(2) * self.stddev:.6g}"


@dataclass(frozen=True, repr=False)
class Values(Law):
    """The law of an entry picked at random from fixed values."""

    values: tuple[complex, ...]

    def moments(self) -> Moments:
        """Moments of the values themselves."""
        values = np.asarray(self.values)
        parts = values.view(np.float64) if np.iscomplexobj(values) else values
        mean = values.mean()
        with np.errstate(invalid="ignore"):  # infinite constants have no variance
            squares = np.abs(values - mean) ** 2
        second, fourth = squares.mean(), (squares**2).mean()
        return moments_of(np.real(mean), second, fourth, parts.min(), parts.max())

    def third(self) -> float:
        """That of the values, of their real parts if complex."""
        values = np.real(np.asarray(self.values))
        return float(((values - values.mean()) ** 3).mean())

    def cdf(self, x):
        values = np.asarray(self.values)
        values = np.abs(values) if np.iscomplexobj(values) else values
        counts = np.searchsorted(np.sort(values), x, "right")
        return counts / len(self.values)

    def __str__(self):
        if len(self.values) == 1:
            return f"every entry is {self.values[0]}"
        return f"{len(self.values)} fixed values"


@dataclass(frozen=True, repr=False)
class HaarEntry(Law):
    """An entry of a Haar orthogonal (or unitary) matrix of `size` rows, times `scale`.

    It is a coordinate of a uniform unit vector of that size. The moments are exact for
    every entry, but entries depend on each other: sample moments vary less than those
    of independent draws, and the sum of squares not at all.
    """

    size: int
    scale: float
    is_complex: bool = False

    def moments(self) -> Moments:
        """`E|x|^2 = scale^2 / size`; `E[x^4] = 3 scale^4 / (n (n + 2))`."""
        n, bound = self.size, self.scale
        fourth = 2 / (n * (n + 1)) if self.is_complex else 3 / (n * (n + 2))
        return moments_of(0.0, bound**2 / n, fourth * bound**4, -bound, bound)

    def __str__(self):
        kind = "unitary" if self.is_complex else "orthogonal"
        return f"{kind} matrices of {self.size} rows, times {self.scale:.6g}"


_FAR = 1e150  # its square is finite; a tail that starts there has no width to be seen


def _normal_cdf(z):
    from scipy.special import ndtr  # slow to import; jax needs scipy anyway

    return ndtr(z)


def _standardised(x, stddev: float, mean: float = 0.0) -> np.ndarray:
    """`(x - mean) / stddev`; infinite where the deviation is zero."""
    offset = np.asarray(x, np.float64) - mean
    if stddev:
        return offset / stddev
    return np.where(offset >= 0, np.inf, -np.inf)


def moments_of(mean, second, fourth, low, high) -> Moments:
    """Moments, given the central ones, as Python floats."""
    kurtosis = fourth / second**2 if second else math.nan
    return Moments(float(mean), float(second), float(kurtosis), float(low), float(high))


def _point_if_flat(moments: Moments) -> Moments:
    return moments if moments.variance else moments._replace(kurtosis=math.nan)


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


def _around(x, stddev: float, mean: float) -> np.ndarray:
    """Twice the probability between the mean and `x`, signed, to all digits."""
    from scipy.special import erf  # slow to import

    return erf(_standardised(x, stddev, mean) / math.sqrt(2))


@functools.cache
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


@functools.cache
def _truncated_third(start: float, low: float, high: float) -> float:
    """`E[(y - mean)**3]` of the same `y`."""
    if low == -high:
        return 0.0
    mean = _truncated(start, low, high).mean
    mass = normal_integral(np.ones_like, low, high, start)
    return normal_integral(lambda y: (y - mean) ** 3, low, high, start) / mass
