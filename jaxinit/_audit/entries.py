"""Entries that are not finite, have a bias, or have too few different values."""

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxinit._arrays.measured import Measured, pool
from jaxinit._arrays.spread import on_host
from jaxinit._audit.distinct import (
    counted,
    expected_by_law,
    expected_by_values,
    is_short,
    levels,
    random_bits,
)
from jaxinit._audit.drawn import is_drawn, some_nonzero
from jaxinit._audit.leaves import Leaf, folded
from jaxinit._audit.naming import Named
from jaxinit._audit.result import Finding
from jaxinit.initializers.base import Initializer
from jaxinit.stats import expected_moments, score_measured

_RATE = 1e-9  # of false findings in a tree, by each of both statistics
_CENTRED = 0.04  # deviations: a law of its own may have a mean farther from zero
_MANY = 1000  # entries of draws whose law is not known
_FEWEST = 64  # entries whose values are counted
_DRAWN = 4  # fewest different values of draws whose law is not known


def findings_of_entries(groups: Sequence[Named]) -> Iterator[Finding]:
    """What is wrong with the entries themselves.

    A right draw is said to have a bias in less than one tree in 1e9, and to have few
    values as seldom.

    Args:
        groups: the leaves of a tree, with their laws.
    """
    groups = [group for group in groups if group.leaves[0].measured is not None]
    for group in groups:
        if broken := [x for x in group.leaves if x.measured and x.measured.nonfinite]:
            yield _not_finite(broken)
    whole = [group for group in groups if _is_varied(group)]
    for group in whole:
        yield from _bias(group, _RATE / len(whole))
    leaves = sum(len(group.leaves) for group in whole)
    for group in whole:
        yield from _few_values(group, _RATE / leaves)


def _is_varied(group: Named) -> bool:
    measured = group.leaves[0].measured
    if measured is None or measured.nonfinite or measured.is_constant:
        return False
    return 0 < measured.std < math.inf


def _pooled(leaves: Sequence[Leaf]) -> Measured:
    return pool(leaf.measured for leaf in leaves if leaf.measured is not None)


def _pooled_once(leaves: Sequence[Leaf]) -> Measured:
    """As `_pooled`; equal leaves, which say nothing more of their law, count once."""
    once = {leaf.measured: leaf for leaf in leaves}
    return _pooled(list(once.values()))


def _not_finite(leaves: Sequence[Leaf]) -> Finding:
    measured = _pooled(leaves)
    return Finding(
        "not-finite",
        folded(leaves),
        "error",
        f"{measured.nonfinite:,} of {measured.size:,} entries "
        f"{'is' if measured.nonfinite == 1 else 'are'} NaN or infinite: so is what is "
        "computed of them. Look for a division by zero, a logarithm of zero or an "
        "overflow where they are made.",
    )


# ---- the mean


class _Offset(NamedTuple):
    """How far a mean is from that of a law, or from zero."""

    measured: Measured
    expected: Any
    errors: float  # standard errors
    p: float


def _bias(group: Named, rate: float) -> Iterator[Finding]:
    leaves = group.leaves
    found = _offset(group, leaves)
    if not found.p < rate or not (_independent(group) or _seems_centred(group, found)):
        return
    # A few leaves may be all there is to it.
    each = {leaf.path: _offset(group, [leaf]).p < rate / len(leaves) for leaf in leaves}
    rest = [leaf for leaf in leaves if not each[leaf.path]]
    if 0 < len(rest) < len(leaves) and _offset(group, rest).p >= rate:
        leaves = [leaf for leaf in leaves if each[leaf.path]]
        found = _offset(group, leaves)
    measured = found.measured
    offset = abs(measured.mean - found.expected) / measured.std
    yield Finding(
        "biased",
        folded(leaves),
        "warning",
        f"the mean of {measured.size:,} entries is {offset:.2g} standard deviations"
        f" from {found.expected:.3g}, {abs(found.errors):.3g} standard errors. "
        f"{_cause(leaves[0])}",
    )


def _offset(group: Named, leaves: Sequence[Leaf]) -> _Offset:
    measured, law = _pooled_once(leaves), _independent(group)
    if law is not None:
        expected = expected_moments(law, group.shape, group.dtype)
        score = score_measured(measured, expected, group.dtype)
        return _Offset(measured, expected.mean, score.mean or 0.0, score.mean_p)
    errors = abs(measured.mean) * math.sqrt(measured.size) / measured.std
    return _Offset(measured, 0.0, errors, math.erfc(errors / math.sqrt(2)))


def _independent(group: Named) -> Initializer | None:
    """The law of the group, if it is one of independent draws."""
    law = group.law
    return law if law and law.draws and law.is_independent(group.shape) else None


def _seems_centred(group: Named, found: _Offset) -> bool:
    """Whether the entries look like draws about zero of a law that is not known."""
    measured = found.measured
    if group.law is not None or measured.size < _MANY:
        return False
    is_near = abs(measured.mean) < _CENTRED * measured.std
    return is_near and is_drawn(on_host(group.leaves[0].array), _DRAWN)


def _cause(leaf: Leaf) -> str:
    narrow = leaf.dtype if leaf.dtype.itemsize < 4 else _narrower(leaf)
    if narrow is None:
        return "Layers add this up over their inputs: look where a number is added."
    drawn = "" if narrow == leaf.dtype else f"the entries are all numbers of {narrow}: "
    return (
        f"{drawn}jax.random draws so in {narrow}, from {random_bits(narrow)} random "
        "bits that miss the upper end: draw in float32 and round once, as the "
        "initializers of jaxinit do."
    )


def _narrower(leaf: Leaf) -> np.dtype | None:
    """The dtype of 16 bits that has the first entries of a wider leaf, if one has."""
    seen = some_nonzero(on_host(leaf.array), _MANY)
    for narrow in (jnp.bfloat16, np.float16):
        with np.errstate(over="ignore"):
            if seen.size and np.array_equal(
                seen, seen.astype(narrow).astype(seen.dtype)
            ):
                return np.dtype(narrow)
    return None


# ---- different values


def _few_values(group: Named, rate: float) -> Iterator[Finding]:
    if np.prod(group.shape) < _FEWEST or not jnp.issubdtype(group.dtype, np.floating):
        return
    if group.dtype.itemsize >= 4:
        yield from _quantised(group)
        return
    if group.law is not None and not group.law.draws:
        return
    law = _independent(group)
    share = 0.5 if law else 0.25  # without a law more is guessed
    numbers = [(leaf, *_distinct(leaf, law)) for leaf in group.leaves]
    short = [x for x in numbers if is_short(*x[1:], share, rate)]
    short = [x for x in short if law or is_drawn(on_host(x[0].array), _DRAWN)]
    if short:
        _, distinct, expected = short[0]
        size, bound = math.prod(group.shape), "about" if law else "at least"
        yield Finding(
            "few-values",
            folded([leaf for leaf, *_ in short]),
            "warning",
            f"{size:,} entries have {distinct:,} different values, where draws rounded "
            f"to {group.dtype} have {bound} {expected:,.0f}. "
            f"{_cause(short[0][0])}",
        )


def _distinct(leaf: Leaf, law: Initializer | None) -> tuple[int, float]:
    """How many different values a leaf has, and how many are expected."""
    values, counts = counted(leaf)
    expected = None
    if law is not None:
        try:
            entry = law.entry_law(leaf.shape, leaf.dtype)
            expected = expected_by_law(entry, leaf.array.size, leaf.dtype)
        except NotImplementedError:  # a law without a cdf
            pass
    if expected is None:
        expected = expected_by_values(values, counts, leaf.dtype)
    return values.size, expected


def _quantised(group: Named) -> Iterator[Finding]:
    few = [
        (leaf, count)
        for leaf in group.leaves
        if leaf.array.size > 64 * _DRAWN
        and (count := levels(leaf)) is not None
        and 64 * count < leaf.array.size
        and is_drawn(on_host(leaf.array))
    ]
    if few:
        narrow = _narrower(few[0][0])
        drawn = f"drawn in {narrow} and widened, or " if narrow else ""
        yield Finding(
            "few-values",
            folded([leaf for leaf, _ in few]),
            "note",
            f"{math.prod(group.shape):,} entries of {group.dtype} have {few[0][1]:,} "
            f"different values: they seem to be {drawn}quantised.",
        )
