"""Moments of what is made of several values, which are taken to be independent.

Take `a` of mean 1 and second moment 2, and `b` of mean 0 and second moment 3. Their
product has the mean 0 and the variance 6, their sum the mean 1 and the variance 4, and
what is one or the other, as often, the mean 0.5 and the variance 2.25.
"""

import math
from collections.abc import Iterable, Sequence
from statistics import NormalDist

from jaxinit._roles.statistics.spreads import Expression, Spread

Moments = tuple[float, float]  # mean and variance
_RARE = 1e-3


def shared(part: Spread, count: float | None) -> Moments | None:
    """Of positive values over the sum of a number of them, as of a softmax."""
    if count is None or not (part.is_positive and part.mean):
        return None
    second = part.squares_of_shares(count) / count
    return 1 / count, max(second - 1 / count**2, 0.0)


def let_through(which: Spread, cases: Sequence[float | Spread]) -> Moments | None:
    """Of what an independent condition chooses from two cases.

    None if it all but always chooses the same, as then it is misunderstood.
    """
    chosen = which.mean
    if not _RARE < chosen < 1 - _RARE:
        return None
    return one_of(cases, (1 - chosen, chosen))


def one_of(values: Sequence[float | Spread], shares: Sequence[float]) -> Moments:
    """Of one of several values, each in some share of all cases."""
    return mixture(map(_first_two, values), shares)


def mixture(moments: Iterable[tuple[float, float]], shares: Iterable[float]) -> Moments:
    """The same, given the mean and the second moment of each."""
    found = list(zip(shares, moments, strict=True))
    mean = sum(share * m for share, (m, _) in found)
    second = sum(share * s for share, (_, s) in found)
    return mean, max(second - mean * mean, 0.0)


def rare_and_often(rare: Moments, often: Moments, share: float) -> Expression:
    """Of what is one of two, the first in a small share of all cases.

    The tail of a normal variable is the first, and the rest of it the second. So powers
    of it are as large as those of the rare values, where these are large.
    """
    if share >= 1:
        return _scaled("z", *rare)
    normal = NormalDist()
    limit = normal.inv_cdf(1 - share)
    tail = normal.pdf(limit) / share
    rest = -normal.pdf(limit) / (1 - share)
    parts = (
        _scaled(("sub", (), "z", rest), *often, 1 + limit * rest - rest**2),
        _scaled(("sub", (), "z", tail), *rare, 1 + limit * tail - tail**2),
    )
    return ("select_n", (), ("gt", (), "z", limit), *parts)


def _scaled(
    variable: Expression, mean: float, variance: float, before: float = 1.0
) -> Expression:
    """A variable of mean zero and some variance, with another mean and variance."""
    scaled = ("mul", (), variable, math.sqrt(variance / before))
    return ("add", (), scaled, float(mean))


def of_independent(op: str, operands: Sequence[float | Spread]) -> Moments | None:
    """Of a sum or product of two values."""
    (a, aa), (b, bb) = map(_first_two, operands[:2])
    if op in ("add", "add_any", "sub") and len(operands) == 2:
        sign = -1 if op == "sub" else 1
        return a + sign * b, max(aa - a * a, 0) + max(bb - b * b, 0)
    if op == "mul":
        return a * b, max(aa * bb - (a * b) ** 2, 0.0)
    if op == "div" and b * b > bb / 2:  # far enough from zero
        return a / b, max(aa / (b * b) - (a / b) ** 2, 0.0)
    return None


def interpolated(
    share: float | Spread, first: float | Spread, second: float | Spread
) -> Moments:
    """Of `first + share * (second - first)`, three independent values.

    Each is as large as its own share of the sum, so a share from 0 to 1 makes a mean.
    """
    (w, ww), (a, aa), (b, bb) = map(_first_two, (share, first, second))
    mean = a + w * (b - a)
    square = (1 - 2 * w + ww) * aa + ww * bb + 2 * (w - ww) * a * b
    return mean, max(square - mean * mean, 0.0)


def _first_two(value: float | Spread) -> tuple[float, float]:
    """Mean and second moment."""
    if isinstance(value, Spread):
        return value.mean, value.second
    return value, value * value
