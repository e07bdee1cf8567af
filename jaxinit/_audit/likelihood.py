"""How likely each initializer is to have drawn a class of leaves.

Each candidate has a likelihood: the density of all entries of all leaves of the class
under its law. Size, mean, second moment and extremes are enough for it, since a normal
law, truncated or not, has the density `exp(-(x - m)**2 / (2 s**2)) / (s sqrt(2 pi)
mass)` between its bounds, and a uniform law a constant. Take 1,000 entries of second
moment 1.02e-3 and extremes of 0.104 in `f32[2000,512]`:

    normal(stddev=0.0316)    the best: 0.104 is 3.3 deviations
    lecun_normal()           impossible: nothing lies beyond 2.27 deviations, 0.0509

A law with a free number has the likelihood averaged over all sizes of that number, so
that it wins only where no candidate fits. Each likelihood counts times the weight of
its candidate, and the weights learn from the whole tree: where twenty leaves are
clearly `lecun_normal()`, a small leaf that cannot tell it from a plain normal law is
one too. The votes of a family are the groups that it has; they are counted in rounds,
in which the weights that candidates have beforehand count less and less.
"""

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

from jaxinit._arrays.measured import Measured, pool
from jaxinit._audit.candidates import Candidate, Layout, by_depth, of_fans, of_numbers
from jaxinit._audit.fixed import neat
from jaxinit._audit.leaves import Group, parent
from jaxinit.initializers import normal, truncated_normal, uniform
from jaxinit.initializers.base import Initializer

_FEW = 4  # entries of a class below which no law is told
_FREE = (0.02, 0.01, 0.01)  # weights of normal, truncated and uniform laws of any size
_RANGE = 20.0  # nats over which the deviation of a free law is spread
_FAR = 7.0  # deviations from the mean beyond which a bound bounds nothing
_ROUNDING = 1e-6  # of bounds, by draws in float32
_CUT = 0.8796257  # deviation of a normal law cut at two sigmas
_SAME = 1e-5  # relative difference of laws that are one


class Entries(NamedTuple):
    """What likelihoods need of the entries of a class; complex ones count as pairs."""

    size: int
    mean: float
    square: float  # mean of squares, about zero
    low: float
    high: float

    @property
    def error(self) -> float:
        """Standard error of the mean."""
        return math.sqrt(max(self.square - self.mean**2, 0.0) / self.size)


class Surroundings(NamedTuple):
    """What the rest of the tree says about a leaf.

    Attributes:
        sizes: sizes that may be a fan, of axes and products with windows, with the
            share of kernels that have them.
        beside: of kernels, these sizes, by the path that they are in.
        factors: what depth may scale by, of `L` blocks, and how common that is.
    """

    sizes: tuple[tuple[int, float], ...]
    beside: dict[str, tuple[int, ...]]
    factors: tuple[tuple[float, float], ...]

    @classmethod
    def of(cls, groups: Iterable[Group]) -> "Surroundings":
        """The surroundings of groups of one tree."""
        kernels = [group for group in groups if len(group.shape) >= 2]
        beside: dict[str, set[int]] = defaultdict(set)
        for group in kernels:
            beside[parent(group.path)] |= _fans_of(group)
        counts = Counter(size for group in kernels for size in _fans_of(group))
        total = counts.total()
        blocks = {len(group.leaves) for group in kernels} - {1}
        return cls(
            tuple((size, n / total) for size, n in sorted(counts.items())),
            {path: tuple(sorted(each)) for path, each in beside.items()},
            tuple(sorted({x for n in blocks for x in _powers(n)})),
        )


def _fans_of(group: Group) -> set[int]:
    shape = group.shape
    sizes = {*shape[-2:], math.prod(shape[:-1]), math.prod(shape[1:])}
    return {size for size in sizes if size > 1}


def _powers(n: int) -> Iterator[tuple[float, float]]:
    """What schemes scale by in a stack of `n` blocks, and how common that is."""
    yield from ((n**-0.5, 0.3), ((2 * n) ** -0.5, 1.0))  # GPT-2
    yield from (((8 * n) ** -0.25, 0.2), ((12 * n) ** -0.25, 0.05))  # DeepNorm
    yield 0.87 * n ** (-5 / 16), 0.1  # DeepNorm, of two stacks
    yield math.sqrt(math.log(2 * n)), 0.1  # Sub-LN
    yield from ((0.67 * n**-0.25, 0.1), ((9 * n) ** -0.25, 0.05))  # T-Fixup


class Votes(NamedTuple):
    """How many groups of a tree each family has, and what the weights count beside."""

    families: dict[str, float]
    prior: float


NO_VOTES = Votes({}, 1.0)


class Best(NamedTuple):
    """The likeliest law of a group.

    Attributes:
        init: the initializer.
        next: the likeliest one of another law; None if a number of `init` is fitted.
        odds: logarithm of the odds of the law against all others; 0 if it is fitted.
    """

    init: Initializer
    next: str | None
    odds: float


class Field:
    """The candidates of one group, with the likelihood of each."""

    def __init__(self, group: Group, around: Surroundings):
        measured = [leaf.measured for leaf in group.leaves if leaf.measured]
        self.group = group
        self.entries = _entries(pool(measured), group.dtype)
        self.is_few = self.entries.size < _FEW
        self.candidates: list[Candidate] = []
        self.own: dict[str, float] = {}
        if self.is_few:
            return
        known, factors = _known_layout(group), (*around.factors, *_by_layer(group))
        is_bias = math.prod(group.shape) == max(group.shape, default=0)
        near = around.beside.get(parent(group.path), ()) if is_bias else ()
        plain = [
            *of_fans(group.shape, group.dtype, known),
            *of_numbers(str(group.dtype), around.sizes, near),
        ]
        given = [*plain, *by_depth(plain, factors)]
        rows = np.array([candidate.row for candidate in given])
        likelihood = _log_likelihood(self.entries, rows, group.dtype)
        best = likelihood.max()
        free = _free(self.entries, group.dtype)
        best = max([best, *(x for _, x in free)])
        kept = np.flatnonzero(likelihood > best - 60.0)
        self.candidates = [given[i] for i in kept]
        self.shapes = _shapes(rows[kept])
        self.log = likelihood[kept] - best
        self.free = [(init, x - best) for init, x in free]

    def vote(self, votes: Votes) -> dict[str, float]:
        """How much of this group each family has, as the other groups tell."""
        logs = np.concatenate(
            [self._posterior(votes), [x for _, x in self._fitted(votes)]]
        )
        total = np.logaddexp.reduce(logs)
        own: dict[str, float] = defaultdict(float)
        for candidate, x in zip(self.candidates, logs, strict=False):
            if x > total - 20:
                own[candidate.family] += math.exp(x - total)
        return own

    def _posterior(self, votes: Votes) -> np.ndarray:
        """Log-likelihoods with the weights, those learned added."""
        weights = [
            votes.prior * x.weight + _heard(x) * self._others(votes, x.family)
            for x in self.candidates
        ]
        return self.log + np.log(np.array(weights, np.float64))

    def _others(self, votes: Votes, family: str) -> float:
        """The votes that a family has from other groups."""
        return max(0.0, votes.families.get(family, 0.0) - self.own.get(family, 0.0))

    def _fitted(self, votes: Votes) -> list[tuple[Initializer, float]]:
        """The laws of a fitted number, with their weights."""
        return [
            (init, x + math.log(votes.prior * weight))
            for (init, x), weight in zip(self.free, _FREE, strict=True)
        ]

    def best(self, votes: Votes) -> "Best":
        """The likeliest law."""
        logs, free = self._posterior(votes), self._fitted(votes)
        fitted, fitted_log = max(free, key=lambda x: x[1])
        best = int(np.argmax(logs)) if len(logs) else -1
        if best < 0 or fitted_log > logs[best]:
            return Best(fitted, None, 0.0)
        # Of names for one law, the most common, unless many leaves have another.
        same = np.flatnonzero(~self._differs(best))
        best = int(same[np.argmax(self._posterior(votes._replace(prior=3.0))[same])])
        odds = min(self._margin(best, votes), self._margin(best, NO_VOTES))
        return Best(self.candidates[best].make(), self._next(best, votes), odds)

    def _differs(self, best: int) -> np.ndarray:
        """Which candidates have another law than the best one."""
        return ~np.all(np.abs(self.shapes - self.shapes[best]) < _SAME, axis=1)

    def _margin(self, best: int, votes: Votes) -> float:
        """Logarithm of the odds of the law against all that differ from it."""
        differs, logs = self._differs(best), self._posterior(votes)
        others = [*logs[differs], *(x for _, x in self._fitted(votes))]
        same = np.logaddexp.reduce(logs[~differs])
        return float(same - np.logaddexp.reduce(others))

    def _next(self, best: int, votes: Votes) -> str:
        """The likeliest other law."""
        differs = np.flatnonzero(self._differs(best))
        logs = self._posterior(votes)
        fitted, fitted_log = max(self._fitted(votes), key=lambda x: x[1])
        if not len(differs):
            return repr(fitted)
        other = differs[np.argmax(logs[differs])]
        is_free = fitted_log > logs[other]
        return repr(fitted if is_free else self.candidates[other].make())


def _heard(candidate: Candidate) -> float:
    """What a vote counts for a candidate: less for what is rare.

    Else two leaves that fit a rare law by chance would vote for each other.
    """
    return candidate.share * math.sqrt(min(1.0, candidate.weight / candidate.share))


def _entries(measured: Measured, dtype: np.dtype) -> Entries:
    square = measured.variance + abs(measured.mean) ** 2
    if dtype.kind == "c":
        mean = (measured.mean.real + measured.mean.imag) / 2
        return Entries(2 * measured.size, mean, square / 2, measured.low, measured.high)
    mean = float(np.real(measured.mean))
    return Entries(measured.size, mean, square, measured.low, measured.high)


def _by_layer(group: Group) -> Iterator[tuple[float, float]]:
    """What schemes scale by in one block, by its number."""
    if len(group.leaves) == 1:
        for number in map(
            int, re.findall(r"(?<![0-9])[0-9]{1,3}(?![0-9])", group.path)
        ):
            yield from (((number + 1) ** -0.5, 0.3), ((2 * (number + 1)) ** -0.5, 1.0))


def _known_layout(group: Group) -> Layout | None:
    """The axes of the computation, where a role tells them."""
    role = group.role
    if role is None or not role.kernels:
        return None
    use = role.kernels[0]
    if not use.in_axis and not use.out_axis:
        return None
    batch = tuple(sorted({*use.batch_axis, *use.stack_axis}))
    last = len(group.shape) - 1
    if not batch and (use.in_axis, use.out_axis) == ((last - 1,), (last,)):
        return Layout("role", ())  # as initializers take them, if not told otherwise
    axes = (("in_axis", use.in_axis), ("out_axis", use.out_axis), ("batch_axis", batch))
    return Layout("role", tuple((name, _plain(each)) for name, each in axes if each))


def _plain(axes: tuple[int, ...]) -> int | tuple[int, ...]:
    return axes[0] if len(axes) == 1 else axes


def _log_likelihood(entries: Entries, rows: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Of all entries under each law; minus infinity beyond its bounds."""
    n, (mean, std, low, high, log_mass) = entries.size, rows.T
    is_flat = np.isinf(std)
    about = entries.square - 2 * mean * entries.mean + mean**2
    if dtype.itemsize < 4:
        result = _of_rounded(entries, rows, about)
        low, high = (_rounded(x, dtype) for x in (low, high))
    else:
        result = np.where(is_flat, -n * log_mass, _bell(n, std, log_mass, about))
    slack = _ROUNDING * np.maximum(np.abs(low), np.abs(high))
    slack = np.where(np.isfinite(slack), slack, 0.0)
    inside = (entries.low >= low - slack) & (entries.high <= high + slack)
    return np.where(inside, result, -np.inf)


def _rounded(bounds: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """The bounds in a dtype; infinite ones, which some dtypes lack, as they are."""
    is_finite = np.isfinite(bounds)
    near = np.where(is_finite, bounds, 0.0).astype(dtype).astype(np.float64)
    return np.where(is_finite, near, bounds)


def _bell(n: int, std: Any, log_mass: Any, about: Any) -> Any:
    """Log-likelihood of normal laws, of entries with these squares about their mean."""
    with np.errstate(divide="ignore", invalid="ignore"):
        each = np.log(std * math.sqrt(2 * math.pi)) + log_mass + about / (2 * std**2)
    return -n * each


def _of_rounded(entries: Entries, rows: np.ndarray, about: np.ndarray) -> np.ndarray:
    """Log-likelihoods of entries that are rounded too far to tell bounds apart.

    A bound that is a little nearer would have every entry a little likelier, and only
    the few that are rounded to it less so. So a bounded law has the likelihood of the
    law of its shape that has the entries' second moment, less what the difference from
    its own costs.
    """
    n, (mean, std, low, high, log_mass) = entries.size, rows.T
    with np.errstate(invalid="ignore"):
        a, b = (np.clip((x - mean) / std, -_FAR, _FAR) for x in (low, high))
        flat_square = (high**2 + high * low + low**2) / 3
    is_flat = np.isinf(std)
    is_bounded = is_flat | (np.abs(a) < _FAR) | (np.abs(b) < _FAR)
    bells = [np.exp(-(x**2) / 2) / math.sqrt(2 * math.pi) for x in (a, b)]
    mass = np.where(is_flat, 1.0, np.exp(log_mass))
    inner = 1 + (a * bells[0] - b * bells[1]) / mass
    own = np.where(is_flat, flat_square, inner * std**2)
    ratio = np.maximum(about, 1e-300) / np.maximum(own, 1e-300)
    kurtosis = np.where(is_flat, 1.8, 2.4)
    cost = n * np.log(ratio) ** 2 / (2 * (kurtosis - 1))
    flat = -n * math.log(max(entries.high - entries.low, 1e-300)) - cost
    fitted = np.where(is_flat, 1.0, std * np.sqrt(ratio))
    cut = _bell(n, fitted, log_mass, about) - cost
    plain = _bell(n, std, log_mass, about)
    return np.where(is_flat, flat, np.where(is_bounded, cut, plain))


def _free(entries: Entries, dtype: np.dtype) -> list[tuple[Initializer, float]]:
    """Laws of a fitted deviation, and their likelihoods averaged over it.

    The average is the greatest likelihood times the width of its peak over `_RANGE`:
    `sqrt(pi / n)` for a normal law, whose peak is round, `1 / n` and `1 / (0.226 n)`
    for a uniform and a truncated law, which fall off from the greatest entry.
    """
    n, reach = entries.size, max(abs(entries.low), abs(entries.high))
    std, square = math.sqrt(entries.square), entries.square
    cut, end, widths = (
        reach / 2,
        reach,
        [math.sqrt(math.pi / n), 1 / (0.226 * n), 1 / n],
    )
    if dtype.itemsize < 4:  # the greatest entry is rounded: see `_of_rounded`
        cut, end = max(cut, std / _CUT), max(end, math.sqrt(3) * std)
        widths = widths[:1] * 3
    inits: list[Initializer] = [
        normal(neat(std * (2**0.5 if dtype.kind == "c" else 1.0), 4)),
        truncated_normal(neat(cut, 4)),
        uniform(low=-neat(end, 4), high=neat(end, 4)),
    ]
    logs = [
        float(_bell(n, std, 0.0, square)),
        float(_bell(n, cut, math.log(0.9544997), square)),
        -n * math.log(2 * reach),
    ]
    if dtype.kind == "c":
        logs[1:] = [-math.inf, -math.inf]
    if abs(entries.mean) > 6 * entries.error and abs(entries.mean) > 0.3 * std:
        inits[0], logs[0] = _off_centre(entries)
        widths[0] **= 2
    averaged = (
        x + math.log(width / _RANGE) for x, width in zip(logs, widths, strict=True)
    )
    return list(zip(inits, averaged, strict=True))


def _off_centre(entries: Entries) -> tuple[Initializer, float]:
    """The normal law of the entries' own mean and deviation."""
    variance = max(entries.square - entries.mean**2, 1e-300)
    std = math.sqrt(variance)
    init = normal(neat(std, 4), mean=neat(entries.mean, 4))
    return init, -entries.size * (math.log(std * math.sqrt(2 * math.pi)) + 0.5)


def _shapes(rows: np.ndarray) -> np.ndarray:
    """Numbers of laws that are equal if the laws are.

    They are relative, so that one tolerance fits them all: the logarithm of the
    deviation or of the width, the mean and the bounds in deviations.
    """
    mean, std, low, high, log_mass = rows.T
    is_flat = np.isinf(std)
    with np.errstate(invalid="ignore", divide="ignore"):
        size = np.where(is_flat, log_mass, np.log(std))
        width = np.where(is_flat, high - low, std)
        ends = [np.clip((x - mean) / width, -_FAR, _FAR) for x in (low, high)]
    return np.stack([size, is_flat, mean / width, *ends], axis=1)
