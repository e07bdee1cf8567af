"""Laws of a few parameters, with their moments in closed form."""

import math
from dataclasses import dataclass

import numpy as np

from jaxinit.laws.base import (
    Law,
    Moments,
    affine,
    moments_of,
    point_if_flat,
    standardised,
)


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
        return normal_cdf(standardised(x, self.stddev, self.mean))

    def __str__(self):
        return f"normal, mean {self.mean:.6g}, standard deviation {self.stddev:.6g}"


@dataclass(frozen=True, repr=False)
class Uniform(Law):
    """Uniform law on `[low, high)`."""

    low: float
    high: float

    def moments(self) -> Moments:
        """Variance `(high - low)**2 / 12`, kurtosis 9/5."""
        mean, width = self.low + (self.high - self.low) / 2, self.high - self.low
        return point_if_flat(Moments(mean, width**2 / 12, 1.8, self.low, self.high))

    def cdf(self, x):
        x = np.asarray(x, np.float64)
        if self.low == self.high:
            return np.where(x >= self.low, 1.0, 0.0)
        inside = np.clip(x, self.low, self.high)  # a narrow law far away overflows
        return (inside - self.low) / (self.high - self.low)

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
        return -np.expm1(-(standardised(np.maximum(x, 0), self.stddev) ** 2))

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
        z = np.clip(standardised(x, self.stddev), 0, self.radius)
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
        return (np.clip(standardised(x, self.stddev), 0, radius) / radius) ** 2

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


def normal_cdf(z):
    from scipy.special import ndtr  # slow to import; jax needs scipy anyway

    return ndtr(z)
