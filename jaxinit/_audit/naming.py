"""Names for laws: which initializer may have drawn a class of leaves.

What holds exactly is told first, by `fixed`. Of what was drawn, each candidate has a
likelihood: the density of all entries of all leaves of the class under its law. Size,
mean, second moment and extremes are enough for it, since a normal law, truncated or
not, has the density `exp(-(x - m)**2 / (2 s**2)) / (s sqrt(2 pi) mass)` between its
bounds, and a uniform law a constant. Take 1,000 entries of second moment 1.02e-3 and
extremes of 0.104 in `f32[2000,512]`:

    normal(stddev=0.0316)            3.6 nats below the best: extremes of 3.3 s are rare
    lecun_normal()                   impossible: nothing lies beyond 2.27 s = 0.0509

A law with a free number has the likelihood averaged over all sizes of that number, so
that it wins only where no candidate fits. Each likelihood counts times the weight of
its candidate, and the weights learn from the whole tree: where twenty leaves are clearly
`lecun_normal()`, a small leaf that cannot tell it from a plain normal law is one too.

What holds: a law is named surely only if every law that differs from it, in this shape,
is 10,000 times less likely with the weights that candidates have beforehand or with
those learned, whichever is less; and if the entries do not contradict it.
"""

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxinit._arrays.distance import distance
from jaxinit._arrays.measured import Measured, pool
from jaxinit._audit.candidates import (
    Candidate,
    Layout,
    as_row,
    density,
    of_fans,
    of_numbers,
)
from jaxinit._audit.fixed import fixed_law, neat
from jaxinit._audit.leaves import Group, Leaf
from jaxinit._audit.result import AuditRow
from jaxinit._tree.folding import fold
from jaxinit.initializers import normal, truncated_normal, uniform
from jaxinit.initializers.base import Initializer
from jaxinit.laws import Law

_FEW = 4  # entries of a class below which no law is told
_ENOUGH = 24  # entries below which none is sure
_SURE = math.log(1e4)
_UNFIT = 1e-9  # p-value below which a law is given up, for a whole tree
_SAMPLE = 2**15  # most entries whose distance from a law is computed
_APART = 7.0  # standard errors by which leaves of one class have other laws
_FREE = {"normal": 0.02, "truncated_normal": 0.01, "uniform": 0.01}
_RANGE = 20.0  # nats over which the deviation of a free law is spread
_FAR = 7.0  # deviations from the mean beyond which a bound bounds nothing
_PRIOR = 0.5  # votes that the weights have beforehand
_ROUNDS = 12  # in which leaves vote
_SAME = 1e-5  # relative difference of laws that are one


@dataclass(frozen=True)
class Named(Group):
    """A group with its law.

    Attributes:
        law: the initializer that seems to have drawn the leaves; None if none is known.
        sure: see `AuditRow`.
        odds: see `AuditRow`.
        p: see `AuditRow`.
        note: see `AuditRow`.
        std: standard deviation of all entries about zero; NaN if it is not known.
        is_fitted: whether a number of the law was fitted to the entries.
    """

    law: Initializer | None = None
    sure: bool = False
    odds: float | None = None
    p: float | None = None
    note: str = ""
    std: float = math.nan
    is_fitted: bool = False

    @property
    def row(self) -> AuditRow:
        """What the audit says of it."""
        return AuditRow(
            self.path,
            len(self.leaves),
            self.shape,
            str(self.dtype),
            None if self.law is None else repr(self.law),
            self.sure,
            self.odds,
            self.p,
            self.note,
        )


class _Entries(NamedTuple):
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


def named(groups: Sequence[Group]) -> list[Named]:
    """The groups with their laws; those are divided whose leaves have several."""
    parts = [part for group in groups for part in _of_one_law(group)]
    found = [_fixed(part) for part in parts]
    drawn = [part for part, known in zip(parts, found, strict=True) if known is None]
    laws = iter(_drawn(drawn, Surroundings.of(parts)))
    return _folded([known or next(laws) for known in found])


def _of_one_law(group: Group) -> list[Group]:
    """The group, or its leaves alone if their deviations differ."""
    measured = [leaf.measured for leaf in group.leaves if leaf.measured is not None]
    if len(measured) < 2 or measured[0].nonfinite or measured[0].is_constant:
        return [group]
    whole = pool(measured)
    error = math.sqrt(1 / (2 * measured[0].size))
    spreads = [x.variance + abs(x.mean) ** 2 for x in measured]
    square = whole.variance + abs(whole.mean) ** 2
    off = max(abs(math.log(max(s, 1e-300) / square)) / 2 for s in spreads)
    if off < _APART * error and measured[0].size >= 2:
        return [group]
    return [Group(leaf.path, (leaf,)) for leaf in group.leaves]


def _folded(found: Sequence[Named]) -> list[Named]:
    """Leaves that were looked at alone, together again where they have one law."""
    kinds = [
        (x.shape, str(x.dtype), repr(x.law), x.sure, x.note)
        if len(x.leaves) == 1 and x.law is not None and not x.is_fitted
        else i
        for i, x in enumerate(found)
    ]
    result = []
    for path, run in fold([x.path for x in found], kinds):
        some = [found[i] for i in run]
        first = min(some, key=lambda x: -1.0 if x.p is None else x.p)
        leaves = tuple(leaf for x in some for leaf in x.leaves)
        result.append(replace(first, path=path, leaves=leaves))
    return result


def _fixed(group: Group) -> Named | None:
    """The group, if its law is one that holds exactly, or if it has none."""
    first = group.leaves[0]
    bare = Named(group.path, group.leaves)
    if first.measured is None:
        return replace(bare, note=_no_numbers(first))
    measured = pool([leaf.measured for leaf in group.leaves if leaf.measured])
    if measured.nonfinite:
        return replace(bare, note="entries are not finite")
    std = math.sqrt(measured.variance + abs(measured.mean) ** 2)
    law = fixed_law(first)
    if law is not None and all(fixed_law(leaf) == law for leaf in group.leaves[1:]):
        is_one = measured.size == 1 and law.draws is False and first.measured.low != 0
        note = "one entry: it may have been drawn" if is_one else ""
        return replace(
            bare, law=law, sure=not is_one, odds=math.inf, p=1.0, std=std, note=note
        )
    return None


def _no_numbers(leaf: Leaf) -> str:
    if not math.prod(leaf.shape):
        return "no entries"
    return "no floating-point numbers"


class Surroundings(NamedTuple):
    """What the rest of the tree says about a leaf.

    Attributes:
        sizes: sizes that may be a fan: of axes, and products with windows.
        beside: of kernels, these sizes, by the path that they are in.
        factors: what depth may scale by, of `L` blocks: powers of `L` of schemes.
    """

    sizes: tuple[int, ...]
    beside: dict[str, tuple[int, ...]]
    factors: tuple[float, ...]

    @classmethod
    def of(cls, groups: Iterable[Group]) -> "Surroundings":
        """The surroundings of groups of one tree."""
        kernels = [group for group in groups if len(group.shape) >= 2]
        beside: dict[str, set[int]] = defaultdict(set)
        for group in kernels:
            beside[_parent(group)] |= _fans_of(group)
        sizes = {size for each in beside.values() for size in each}
        blocks = {len(group.leaves) for group in kernels} - {1}
        return cls(
            tuple(sorted(sizes)),
            {path: tuple(sorted(each)) for path, each in beside.items()},
            tuple(sorted({x for n in blocks for x in _powers(n)})),
        )


def _parent(group: Group) -> str:
    return group.path.rpartition("/")[0]


def _fans_of(group: Group) -> set[int]:
    shape = group.shape
    sizes = {*shape[-2:], math.prod(shape[:-1]), math.prod(shape[1:])}
    return {size for size in sizes if size > 1}


def _powers(n: int) -> Iterator[float]:
    """What schemes scale by in a stack of `n` blocks."""
    yield from (n**-0.5, (2 * n) ** -0.5)  # GPT-2
    yield from ((8 * n) ** -0.25, (12 * n) ** -0.25)  # DeepNorm, of one stack
    yield 0.87 * n ** (-5 / 16)  # DeepNorm, of two
    yield from (math.sqrt(math.log(2 * n)), math.sqrt(math.log(3 * n)))  # Sub-LN
    yield from (0.67 * n**-0.25, (9 * n) ** -0.25)  # T-Fixup


def _drawn(groups: Sequence[Group], around: Surroundings) -> list[Named]:
    """The groups with the likeliest laws, by weights that they learn together."""
    fields = [_Field(group, around) for group in groups]
    votes: dict[str, float] = defaultdict(float)
    for _ in range(_ROUNDS):
        counted: dict[str, float] = defaultdict(float)
        for field in fields:
            for family, share in field.shares(votes):
                counted[family] += share
        votes = counted
    return [field.named(votes, len(fields)) for field in fields]


class _Field:
    """The candidates of one group, with the likelihood of each."""

    def __init__(self, group: Group, around: Surroundings):
        measured = [leaf.measured for leaf in group.leaves if leaf.measured]
        self.group = group
        self.entries = _entries(pool(measured), group.dtype)
        self.is_few = self.entries.size < _FEW
        self.candidates: list[Candidate] = []
        if self.is_few:
            return
        known, factors = _known_layout(group), (*around.factors, *_by_layer(group))
        near = around.beside.get(_parent(group), ()) if len(group.shape) == 1 else ()
        given = [
            *of_fans(group.shape, group.dtype, known, factors),
            *of_numbers(str(group.dtype), factors, around.sizes, near),
        ]
        columns = density(given)
        eps = float(jnp.finfo(group.dtype).eps)
        likelihood = _log_likelihood(self.entries, columns, eps)
        best = likelihood.max()
        free = _free(self.entries, group.dtype)
        best = max([best, *(x for _, x in free)])
        kept = np.flatnonzero(likelihood > best - 60.0)
        self.candidates = [given[i] for i in kept]
        self.stds = _stds(columns)[kept]
        self.means = columns["mean"][kept]
        self.log = likelihood[kept] - best
        self.free = [(init, x - best) for init, x in free]

    def shares(self, votes: dict[str, float]) -> list[tuple[str, float]]:
        """How much of this group each family gets."""
        if self.is_few:
            return []
        logs = np.concatenate([self._posterior(votes), [x for _, x in self._free()]])
        total = np.logaddexp.reduce(logs)
        return [
            (candidate.family, math.exp(x - total))
            for candidate, x in zip(self.candidates, logs, strict=False)
            if x > total - 20
        ]

    def _posterior(self, votes: dict[str, float]) -> np.ndarray:
        """Log-likelihoods with the weights, those learned added."""
        weights = [
            _PRIOR * x.weight + x.share * votes.get(x.family, 0.0)
            for x in self.candidates
        ]
        return self.log + np.log(np.array(weights, np.float64))

    def _free(self) -> list[tuple[Initializer, float]]:
        weights = list(_FREE.values())
        return [
            (init, x + math.log(_PRIOR * weight))
            for (init, x), weight in zip(self.free, weights, strict=True)
        ]

    def named(self, votes: dict[str, float], tests: int) -> Named:
        """The group with its likeliest law."""
        group, entries = self.group, self.entries
        std = math.sqrt(entries.square * (2 if group.dtype.kind == "c" else 1))
        bare = Named(group.path, group.leaves, std=std)
        if self.is_few:
            return replace(bare, note=f"{entries.size} entries: too few to tell")
        logs, free = self._posterior(votes), self._free()
        fitted, fitted_log = max(free, key=lambda x: x[1])
        best = int(np.argmax(logs)) if len(logs) else -1
        if best < 0 or fitted_log > logs[best]:
            return self._fitted(bare, fitted, tests)
        odds = min(self._margin(best, logs), self._margin(best, self._posterior({})))
        is_sure = odds >= _SURE and entries.size >= _ENOUGH
        law = self.candidates[best].init
        p = _p_value(group, entries, law)
        if p * tests < _UNFIT:
            note = f"no known law; the nearest is {law!r}"
            return replace(bare, p=p, note=note)
        note = "" if is_sure else f"or {self._next(best, logs)}"
        ratio = math.exp(min(odds, 700.0))
        return replace(bare, law=law, sure=is_sure, odds=ratio, p=p, note=note)

    def _fitted(self, bare: Named, init: Initializer, tests: int) -> Named:
        """The group with a law whose deviation is that of its entries."""
        p = _p_value(bare, self.entries, init)
        if p * tests < _UNFIT:
            return replace(bare, p=p, note=f"no known law; the nearest is {init!r}")
        error = 100 * math.sqrt(1 / (2 * self.entries.size))
        note = f"fitted, to {error:.1g} %"
        return replace(bare, law=init, p=p, odds=1.0, note=note, is_fitted=True)

    def _differs(self, best: int) -> np.ndarray:
        """Which candidates have another law than the best one."""
        law = self.candidates[best].law
        near = np.abs(self.stds / self.stds[best] - 1) < _SAME
        near &= np.abs(self.means - self.means[best]) < _SAME * self.stds[best]
        kinds = [_shape_of(x.law) == _shape_of(law) for x in self.candidates]
        return ~(near & np.array(kinds))

    def _margin(self, best: int, logs: np.ndarray) -> float:
        """Logarithm of the odds of the law against all that differ from it."""
        differs = self._differs(best)
        others = [*logs[differs], *(x for _, x in self._free())]
        same = np.logaddexp.reduce(logs[~differs])
        return float(same - np.logaddexp.reduce(others))

    def _next(self, best: int, logs: np.ndarray) -> str:
        """The likeliest other law."""
        differs = np.flatnonzero(self._differs(best))
        fitted, fitted_log = max(self._free(), key=lambda x: x[1])
        if not len(differs):
            return repr(fitted)
        other = differs[np.argmax(logs[differs])]
        is_free = fitted_log > logs[other]
        return repr(fitted if is_free else self.candidates[other].init)


def _entries(measured: Measured, dtype: np.dtype) -> _Entries:
    square = measured.variance + abs(measured.mean) ** 2
    if dtype.kind == "c":
        mean = (measured.mean.real + measured.mean.imag) / 2
        return _Entries(
            2 * measured.size, mean, square / 2, measured.low, measured.high
        )
    mean = float(np.real(measured.mean))
    return _Entries(measured.size, mean, square, measured.low, measured.high)


def _by_layer(group: Group) -> Iterator[float]:
    """What schemes scale by in one block, by its number."""
    if len(group.leaves) == 1:
        for number in map(
            int, re.findall(r"(?<![0-9])[0-9]{1,3}(?![0-9])", group.path)
        ):
            yield from ((number + 1) ** -0.5, (2 * (number + 1)) ** -0.5)


def _known_layout(group: Group) -> Layout | None:
    """The axes of the computation, where a role tells them."""
    role = group.role
    if role is None or not role.kernels:
        return None
    use = role.kernels[0]
    if not use.in_axis and not use.out_axis:
        return None
    batch = tuple(sorted({*use.batch_axis, *use.stack_axis}))
    axes = (("in_axis", use.in_axis), ("out_axis", use.out_axis), ("batch_axis", batch))
    return Layout("role", tuple((name, _plain(each)) for name, each in axes if each))


def _plain(axes: tuple[int, ...]) -> int | tuple[int, ...]:
    return axes[0] if len(axes) == 1 else axes


def _log_likelihood(
    entries: _Entries, columns: dict[str, np.ndarray], eps: float
) -> np.ndarray:
    """Of all entries under each law; minus infinity beyond its bounds."""
    n, mean, std = entries.size, columns["mean"], columns["std"]
    low, high, log_mass = columns["low"], columns["high"], columns["log_mass"]
    is_flat = np.isinf(std)
    about = entries.square - 2 * mean * entries.mean + mean**2
    with np.errstate(divide="ignore", invalid="ignore"):
        bell = -n * (np.log(std * math.sqrt(2 * math.pi)) + log_mass)
        bell = bell - n * about / (2 * std**2)
    result = np.where(is_flat, -n * log_mass, bell)
    with np.errstate(invalid="ignore"):
        slack = eps * np.maximum(np.abs(low), np.abs(high))
        slack = np.where(np.isfinite(slack), slack, 0.0)
    inside = (entries.low >= low - slack) & (entries.high <= high + slack)
    return np.where(inside, result, -np.inf)


def _free(entries: _Entries, dtype: np.dtype) -> list[tuple[Initializer, float]]:
    """Laws of a fitted deviation, and their likelihoods averaged over it.

    The average is the greatest likelihood times the width of its peak over `_RANGE`:
    `sqrt(pi / n)` for a normal law, whose peak is round, `1 / n` and `1 / (0.226 n)`
    for a uniform and a truncated law, which fall off from the greatest entry.
    """
    n, reach = entries.size, max(abs(entries.low), abs(entries.high))
    std = math.sqrt(entries.square)
    inits: list[Initializer] = [
        normal(neat(std, 4)),
        truncated_normal(neat(reach / 2, 4)),
        uniform(low=-neat(reach, 4), high=neat(reach, 4)),
    ]
    logs = [
        -n * (math.log(std * math.sqrt(2 * math.pi)) + 0.5),
        -n * (math.log(reach / 2 * math.sqrt(2 * math.pi)) + math.log(0.9544997))
        - n * entries.square / (2 * (reach / 2) ** 2),
        -n * math.log(2 * reach),
    ]
    widths = [math.sqrt(math.pi / n), 1 / (0.226 * n), 1 / n]
    if dtype.kind == "c":
        logs[1:] = [-math.inf, -math.inf]
    if abs(entries.mean) > 6 * entries.error and abs(entries.mean) > 0.3 * std:
        inits[0], logs[0] = _off_centre(entries)
        widths[0] **= 2
    averaged = (
        x + math.log(width / _RANGE) for x, width in zip(logs, widths, strict=True)
    )
    return list(zip(inits, averaged, strict=True))


def _off_centre(entries: _Entries) -> tuple[Initializer, float]:
    """The normal law of the entries' own mean and deviation."""
    variance = max(entries.square - entries.mean**2, 1e-300)
    std = math.sqrt(variance)
    init = normal(neat(std, 4), mean=neat(entries.mean, 4))
    return init, -entries.size * (math.log(std * math.sqrt(2 * math.pi)) + 0.5)


def _stds(columns: dict[str, np.ndarray]) -> np.ndarray:
    """A number of each law that tells its width: of uniform ones, that of its range."""
    std = columns["std"]
    with np.errstate(invalid="ignore"):
        width = columns["high"] - columns["low"]
    return np.where(np.isinf(std), width, std)


def _shape_of(law: Law) -> tuple:
    """Of laws that differ only in their width, the same."""
    mean, std, low, high, _ = as_row(law)
    if math.isinf(std):
        return ("uniform", low == -high)
    ends = [(end - mean) / std for end in (low, high)]
    return ("normal", *(round(x, 4) if abs(x) < _FAR else None for x in ends))


def _p_value(group: Group, entries: _Entries, init: Initializer) -> float:
    """How far entries lie from a law: of the distance of a sample of them."""
    law = init.entry_law(group.shape, group.dtype)
    if group.dtype.kind == "c":
        return 1.0
    each = max(1, _SAMPLE // len(group.leaves))
    parts = [_some(leaf, each) for leaf in group.leaves[:_SAMPLE]]
    size = sum(part.size for part in parts)
    return distance(parts, law.cdf, size)[1]


def _some(leaf: Leaf, most: int) -> np.ndarray:
    """Entries of a leaf, spread over it."""
    found = []
    for part in leaf.parts():
        step = max(1, part.size // most)
        found.append(part.reshape(-1)[::step])
    return np.concatenate(found)
