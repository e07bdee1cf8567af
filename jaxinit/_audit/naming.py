"""Names for laws: which initializer may have drawn a class of leaves.

What holds exactly is told first, by `fixed`; what was drawn, by `likelihood`. Leaves
whose paths differ only in numbers are one class, unless their deviations differ.

What holds: a law is named surely only if every law that differs from it, in this shape,
is 10,000 times less likely, with the weights that candidates have beforehand and with
those learned from the tree; and if the entries do not contradict it.
"""

import math
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist

import jax.numpy as jnp
import numpy as np

from jaxinit._arrays.distance import distance
from jaxinit._arrays.measured import Measured, measure, pool
from jaxinit._arrays.spread import host_parts, on_host
from jaxinit._audit.fixed import fixed_law, mirror_axis
from jaxinit._audit.independence import dependence
from jaxinit._audit.leaves import Group, Leaf
from jaxinit._audit.likelihood import NO_VOTES, Field, Surroundings, Votes
from jaxinit._audit.result import AuditRow
from jaxinit._tree.folding import fold
from jaxinit.initializers import mirrored
from jaxinit.initializers.base import Initializer

_ENOUGH = 24  # entries of a class below which no law is sure
_SURE = math.log(1e4)
_UNFIT = 1e-9  # p-value below which a law is given up, for a whole tree
_SAMPLE = 2**15  # most entries whose distance from a law is computed
_LOOKED_AT = 8  # leaves of a class that are searched for dependence
_LEAVES = 64  # leaves that they are taken from, if there are more
_APART = 1e-3  # chance at which leaves of one law are looked at one by one
_PRIOR = 0.05  # groups that the weights count for, in the last round of votes
_ROUNDS = 12


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
            str(self.leaves[0].array.dtype),
            None if self.law is None else written(self.law),
            self.sure,
            self.odds,
            self.p,
            self.note,
        )


def written(init: Initializer) -> str:
    """The expression of an initializer, its deviation or scale told if it is a default.

    >>> from jaxinit import normal, orthogonal
    >>> written(normal()), written(orthogonal(2.0))
    ('normal(stddev=0.01)', 'orthogonal(scale=2.0)')
    """
    text = re.sub(r"\buniform\(\)", "uniform(scale=0.01)", repr(init))
    text = re.sub(r"\b(normal|truncated_normal)\((?!stddev)", r"\1(stddev=0.01, ", text)
    return text.replace("(stddev=0.01, )", "(stddev=0.01)")


def named(groups: Sequence[Group]) -> list[Named]:
    """The groups with their laws; those are divided whose leaves have several."""
    parts = [part for group in groups for part in _of_one_law(group)]
    found = [_known(part, law) for part, law in parts]
    drawn = [
        part for (part, _), known in zip(parts, found, strict=True) if known is None
    ]
    around = Surroundings.of([part for part, _ in parts])
    whole = Surroundings.of(groups)  # which have all blocks, if one of them is odd
    laws = iter(_drawn(drawn, around._replace(factors=whole.factors)))
    return _folded([known or next(laws) for known in found])


Part = tuple[Group, Initializer | None]


def _of_one_law(group: Group) -> list[Part]:
    """The group with its exact law, if any; or in parts if its leaves have several."""
    measured = [leaf.measured for leaf in group.leaves if leaf.measured is not None]
    if not measured or measured[0].nonfinite or _is_beyond(measured, group.dtype):
        return [(group, None)]
    laws = [fixed_law(leaf) for leaf in group.leaves]
    if all(law == laws[0] for law in laws[1:]) and _is_alike(measured):
        return [(group, laws[0])]
    classes = range(len(laws)) if any(laws) else _classes(measured)
    return [
        (Group(path, tuple(group.leaves[i] for i in run)), laws[run[0]])
        for path, run in fold([leaf.path for leaf in group.leaves], classes)
    ]


def _is_alike(measured: Sequence[Measured]) -> bool:
    """Whether arrays of one size differ in their deviations by chance at most."""
    whole = pool(measured)
    if not _square(whole):
        return True
    logs = np.array([_log_std(x) - _log_std(whole) for x in measured])
    return bool(np.abs(logs).max() < _by_chance(measured))


def _is_beyond(measured: Sequence[Measured], dtype: np.dtype) -> bool:
    """Whether entries or their squares are too near to zero or infinity."""
    least = max(1e-140, 16 * float(jnp.finfo(dtype).smallest_normal))
    return any(
        x.low != x.high and not least < max(abs(x.low), abs(x.high)) < 1e140
        for x in measured
    )


def _classes(measured: Sequence[Measured]) -> list[int]:
    """A number for each array of one size, equal if deviations are as good as equal.

    Classes lie far apart; arrays whose deviations shade into each other are alone.
    """
    logs = np.array([_log_std(x) for x in measured])
    order = np.argsort(logs, kind="stable")
    cuts = np.flatnonzero(np.diff(logs[order]) > 2 * _by_chance(measured)) + 1
    numbers = np.arange(len(measured))
    for some in np.split(order, cuts):
        if _is_alike([measured[i] for i in some]):
            numbers[some] = some.min()
    return numbers.tolist()


def _by_chance(measured: Sequence[Measured]) -> float:
    """By how much the logarithms of deviations of one law differ at most."""
    errors = NormalDist().inv_cdf(1 - _APART / (2 * len(measured)))
    whole = pool(measured)
    reach = max(abs(whole.low), abs(whole.high))
    is_flat = reach**2 < 3.1 * _square(whole)  # whose deviation varies less
    return errors * math.sqrt((0.4 if is_flat else 1) / (2 * measured[0].size))


def _square(measured: Measured) -> float:
    return measured.variance + abs(measured.mean) ** 2


def _log_std(measured: Measured) -> float:
    return math.log(max(_square(measured), 1e-300)) / 2


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


def _known(group: Group, law: Initializer | None) -> Named | None:
    """The group, if its law is one that holds exactly, or if it has none."""
    first = group.leaves[0]
    bare = Named(group.path, group.leaves)
    if first.measured is None:
        return replace(bare, note=_no_numbers(first))
    measured = pool([leaf.measured for leaf in group.leaves if leaf.measured])
    if measured.nonfinite:
        return replace(bare, note="entries are not finite")
    if _is_beyond([measured], group.dtype):
        return replace(bare, note="entries too large or small for their squares")
    if law is None:
        return None
    std = math.sqrt(measured.variance + abs(measured.mean) ** 2)
    is_one = measured.size == 1 and measured.low not in (0, 1)
    note = "one entry: it may have been drawn" if is_one else ""
    exact = replace(bare, law=law, odds=math.inf, p=1.0, std=std)
    return replace(exact, sure=not is_one, note=note)


def _no_numbers(leaf: Leaf) -> str:
    if not math.prod(leaf.shape):
        return "no entries"
    return "no floating-point numbers"


def _drawn(groups: Sequence[Group], around: Surroundings) -> list[Named]:
    """The groups with the likeliest laws, by weights that they learn together."""
    halves = [_half(group) for group in groups]
    fields = [
        Field(half or group, around) for group, half in zip(groups, halves, strict=True)
    ]
    votes = NO_VOTES
    telling = [field for field in fields if not field.is_few]
    for prior in np.geomspace(1.0, _PRIOR, _ROUNDS):
        shares = [field.vote(votes) for field in telling]
        counted: dict[str, float] = defaultdict(float)
        for field, own in zip(telling, shares, strict=True):
            field.own = own
            for family, share in own.items():
                counted[family] += share
        votes = Votes(counted, float(prior))
    found = [_named(field, votes, len(fields)) for field in fields]
    return [
        x if half is None else _whole(x, group)
        for x, half, group in zip(found, halves, groups, strict=True)
    ]


def _half(group: Group) -> Group | None:
    """The drawn halves of leaves that are mirrored; None if they are not."""
    axis = mirror_axis(on_host(group.leaves[0].array))
    if axis is None:
        return None
    arrays = [on_host(leaf.array) for leaf in group.leaves]
    if any(mirror_axis(x) != axis for x in arrays[1:]):
        return None
    halves = [np.split(x, 2, axis)[0] for x in arrays]
    leaves = [
        replace(leaf, array=half, measured=measure(half))
        for leaf, half in zip(group.leaves, halves, strict=True)
    ]
    return Group(group.path, tuple(leaves))


def _whole(found: Named, group: Group) -> Named:
    """What was said of halves, of the whole."""
    axis = mirror_axis(on_host(group.leaves[0].array))
    law = None if found.law is None or axis is None else mirrored(found.law, axis)
    return replace(found, leaves=group.leaves, law=law)


def _named(field: Field, votes: Votes, tests: int) -> Named:
    """The group of a field with its likeliest law."""
    group, entries = field.group, field.entries
    std = math.sqrt(entries.square * (2 if group.dtype.kind == "c" else 1))
    bare = Named(group.path, group.leaves, std=std)
    if field.is_few:
        return replace(bare, note=f"{entries.size} entries: too few to tell")
    best = field.best(votes)
    p = _p_value(group, best.init)
    if best.next is not None:  # a fitted law is as wide as the entries are
        p = min(p, _p_of_ends(field, best.init))
    if p * tests < _UNFIT:
        note = f"no known law; the nearest is {written(best.init)}"
        return replace(bare, p=p, note=note)
    bare = replace(bare, law=best.init, p=p, odds=math.exp(min(best.odds, 700.0)))
    if best.next is None:
        error = 100 * math.sqrt(1 / (2 * entries.size))
        return replace(bare, note=f"fitted, to {error:.1g} %", is_fitted=True)
    odd = _dependence(group, best.init)
    if odd is not None:
        return replace(bare, note=odd)
    is_enough = entries.size >= _ENOUGH and group.dtype.kind != "c"
    is_sure = best.odds >= _SURE and is_enough
    return replace(bare, sure=is_sure, note="" if is_sure else f"or {best.next}")


def _dependence(group: Group, init: Initializer) -> str | None:
    """What says that the entries of a leaf are no independent draws of a law."""
    moments = init.moments(group.shape, group.dtype)
    some = group.leaves[:: max(1, len(group.leaves) // _LOOKED_AT)]
    found = (dependence(leaf, moments) for leaf in some)
    return next((f"entries are no independent draws: {x}" for x in found if x), None)


def _p_value(group: Group, init: Initializer) -> float:
    """How far entries lie from a law: of the distance of a sample of them."""
    law = init.entry_law(group.shape, group.dtype)
    if group.dtype.kind == "c":
        return 1.0
    count = -(-_SAMPLE // max(1, math.prod(group.shape)))
    leaves = group.leaves[:: max(1, len(group.leaves) // max(count, _LEAVES))]
    parts = [_some(leaf, max(1, _SAMPLE // len(leaves))) for leaf in leaves]
    size = sum(part.size for part in parts)
    return distance(parts, law.cdf, size)[1]


def _p_of_ends(field: Field, init: Initializer) -> float:
    """How rarely a law has no entry beyond the greatest and the least that there are.

    A normal law that is cut on one side is near to a whole one, but for its end.
    """
    group, entries = field.group, field.entries
    if group.dtype.kind == "c":
        return 1.0
    once = {leaf.measured for leaf in group.leaves}
    size = math.prod(group.shape) * len(once)
    cdf = init.entry_law(group.shape, group.dtype).cdf
    eps = float(jnp.finfo(group.dtype).eps)  # by which ends may have been rounded
    ends = np.array([entries.low, entries.high])
    low, high = cdf(ends + eps * np.abs(ends) * [-1, 1])
    return min(1.0, 2 * min(float(1 - low) ** size, float(high) ** size))


def _some(leaf: Leaf, most: int) -> np.ndarray:
    """Entries of a leaf, spread over it."""
    found = []
    for part in host_parts(leaf.array):
        step = max(1, part.size // most)
        found.append(part.reshape(-1)[::step])
    return np.concatenate(found)
