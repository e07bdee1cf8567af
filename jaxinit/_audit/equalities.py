"""Arrays drawn with one key: equal, the beginning or a multiple of another."""

import re
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterator, Sequence
from typing import Any

import jax
import numpy as np

from jaxinit._arrays.spread import on_host
from jaxinit._audit.copies import copies, finding
from jaxinit._audit.drawn import is_drawn
from jaxinit._audit.leaves import Leaf, folded
from jaxinit._audit.result import Finding
from jaxinit._audit.same_key import Relation, SameKey
from jaxinit._audit.symmetry import findings_of_constants, findings_of_symmetry

_ROUNDED = 1 / 64  # a factor so near to 1 is one of rounding

Related = list[tuple[Leaf, Relation]]


def findings_of_equalities(leaves: Sequence[Leaf]) -> Iterator[Finding]:
    """Draws of one key, and draws with equal rows or columns.

    Constants and tables may be equal. Draws of different keys are found here in less
    than one tree in 1e12. Only the first entries are read of arrays that have nothing
    in common; others are compared in whole, two at a time, on the host.

    Args:
        leaves: the leaves of a tree.
    """
    owned: dict[Hashable, list[Leaf]] = defaultdict(list)
    for leaf in leaves:
        if _is_varied(leaf):
            owned[_place(leaf.array)].append(leaf)
    alone = [tied[0] for tied in owned.values()]
    classes = _classes(alone)
    if copied := copies(leaves, [*_pairs(classes)]):
        within = {leaf.path for copy in copied for leaf in copy.leaves}
        alone = [leaf for leaf in alone if leaf.path not in within]
        classes = _classes(alone)
    yield from map(finding, copied)
    yield from _of_equal(classes)
    yield from _of_multiples([x for x in classes if len(_alike(x)) > 1])
    yield from _of_tied([x for x in owned.values() if len(x) > 1])
    yield from findings_of_symmetry(alone)
    yield from findings_of_constants(leaves)


def _classes(leaves: Sequence[Leaf]) -> list[Related]:
    found = SameKey([leaf.array for leaf in leaves]).classes()
    return [[(leaves[i], how) for i, how in each] for each in found]


def _pairs(classes: Sequence[Related]) -> Iterator[tuple[Leaf, Leaf]]:
    """The longest leaf of each class, with those that are equal to it or rounded."""
    for (longest, first), *others in classes:
        for leaf, how in others:
            if how.size == first.size and how.kind != "order" and _is_one(how):
                yield longest, leaf


def _is_one(how: Relation) -> bool:
    return bool(abs(how.factor - 1) < _ROUNDED)


def _is_varied(leaf: Leaf) -> bool:
    """Whether a leaf has finite entries that differ."""
    measured = leaf.measured
    return measured is not None and not (measured.nonfinite or measured.is_constant)


def _place(array: Any) -> Hashable:
    """Where the entries are: equal for an array under two paths."""
    if not isinstance(array, jax.Array):
        host = np.asarray(array)
        return host.__array_interface__["data"][0], host.shape, host.strides
    shards = array.addressable_shards
    return tuple(x.data.unsafe_buffer_pointer() for x in shards), array.shape


def _alike(related: Related) -> list[list[Leaf]]:
    """The leaves of a class, those together that are equal."""
    alike: dict[bytes, list[Leaf]] = defaultdict(list)
    for leaf, how in related:
        alike[how.digest].append(leaf)
    return list(alike.values())


def _of_equal(classes: Sequence[Related]) -> Iterator[Finding]:
    sets = [x for each in classes for x in _alike(each) if len(x) > 1]
    for merged in _merged(sets):
        paths = folded([leaf for each in merged for leaf in each])
        count = _in_sets(merged, f"{len(merged[0])} arrays have equal entries")
        yield Finding(
            "equal",
            paths,
            "warning",
            f"{count}: one key drew them, so that they start alike and learn alike. "
            "Give each a key of its own, by jax.random.split or fold_in; leave it if "
            "one is meant as a copy of the other.",
        )


def _of_multiples(classes: Sequence[Related]) -> Iterator[Finding]:
    related = {id(each[0][0]): each for each in classes}
    for merged in _merged([[leaf for leaf, _ in each] for each in classes]):
        seen = _description(related[id(merged[0][0])])
        if len(merged) > 1:
            seen += f", and so in {len(merged) - 1} more sets"
        yield Finding(
            "multiple",
            folded([leaf for each in merged for leaf in each]),
            "warning",
            f"{seen}: one key drew them, so that they are not independent. "
            "Give each a key of its own, by jax.random.split or fold_in.",
        )


def _description(related: Related) -> str:
    """How the others follow from the longest of a class, which is the first."""
    (longest, first), *others = related
    kinds = Counter(_in_words(leaf, how, longest, first) for leaf, how in others)
    if len(kinds) == 1 and len(others) == 1:
        return f"{others[0][0].path} is {next(iter(kinds))}"
    words = [f"{n} {'is' if n == 1 else 'are'} {x}" for x, n in kinds.items()]
    shown = [*words[:3], *(["..."] if len(words) > 3 else [])]
    return f"{len(related)} arrays belong together: {', '.join(shown)}"


def _in_words(leaf: Leaf, how: Relation, longest: Leaf, first: Relation) -> str:
    part = "" if how.size == first.size else "the beginning of "
    whole = f"{part}{longest.path}"
    if how.kind == "equal":
        return f"equal to {whole}"
    if how.kind == "order":
        return f"in the order of {whole}, by another law"
    if _is_one(how) and leaf.dtype != longest.dtype:
        return f"{whole} in {leaf.dtype}"
    return f"{1 / how.factor:.3g} times {whole}"


def _of_tied(tied: Sequence[list[Leaf]]) -> Iterator[Finding]:
    drawn = [x for x in tied if is_drawn(on_host(x[0].array))]
    for merged in _merged(drawn):
        paths = folded([leaf for each in merged for leaf in each])
        count = f"one array is under {len(merged[0])} paths"
        yield Finding("equal", paths, "note", f"{_in_sets(merged, count)}: it is tied.")


def _merged(sets: Sequence[list[Leaf]]) -> list[list[list[Leaf]]]:
    """Sets of leaves, those together whose paths differ only in numbers."""
    merged: dict[Hashable, list[list[Leaf]]] = defaultdict(list)
    for each in sets:
        names = {re.sub(r"\d+", "#", leaf.path) for leaf in each}
        merged[len(each), *sorted(names)].append(each)
    return list(merged.values())


def _in_sets(sets: Sequence[list[Leaf]], seen: str) -> str:
    return f"in each of {len(sets)} sets, {seen}" if len(sets) > 1 else seen
