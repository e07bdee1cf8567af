"""Laws made of others: scaled, and mixed."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from jaxinit._array.laws import Law, Moments, Values, affine, moments_of


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
