"""Subtrees that are copies of others: averages, targets, master weights.

Two prefixes of paths are a pair if the same leaves are below both, and are equal or
the rounded ones of the other:

    params/a/kernel    params/a/bias    params/b/kernel
    ema/a/kernel       ema/a/bias       ema/b/kernel         a copy

Blocks that differ in their number, and what is within one of them, are no copies: one
key drew them.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxinit._arrays.spread import on_host
from jaxinit._audit.leaves import Leaf, folded
from jaxinit._audit.result import Finding
from jaxinit._tree.paths import layer_index

_FEWEST = 3  # leaves of a subtree


class Copy(NamedTuple):
    """A subtree that is a copy of another.

    Attributes:
        path: the prefix of its leaves.
        original: that of the other; "" for all of the tree besides.
        leaves: its leaves.
        dtype: what it was rounded to; None if it was not.
    """

    path: str
    original: str
    leaves: tuple[Leaf, ...]
    dtype: np.dtype | None


def copies(leaves: Sequence[Leaf], pairs: Sequence[tuple[Leaf, Leaf]]) -> list[Copy]:
    """Subtrees that are copies, the largest alone.

    Args:
        leaves: all leaves of a tree.
        pairs: leaves that are copies of each other, by which subtrees are found.
    """
    suspects = {_prefixes(a.path, b.path) for a, b in pairs if a.shape == b.shape}
    found: list[Copy] = []
    for one, other in sorted(filter(None, suspects), key=_depth):
        if not any(_is_below(x, copy.path) for x in (one, other) for copy in found):
            found.extend(_copy(leaves, one, other))
    return found


def _depth(prefixes: tuple[str, str]) -> tuple[int, tuple[str, str]]:
    return "/".join(prefixes).count("/"), prefixes


def finding(copy: Copy) -> Finding:
    """What is said of a copy."""
    original, count = copy.original or "the rest of the tree", len(copy.leaves)
    rounded = f", rounded to {copy.dtype}" if copy.dtype else ""
    return Finding(
        "equal",
        folded(copy.leaves),
        "note",
        f"{copy.path} is a copy of {original}{rounded}: {count} arrays. So it should be"
        " for an average, a target or master weights at the start; models that are "
        "trained beside each other need keys of their own.",
    )


def _prefixes(a: str, b: str) -> tuple[str, str] | None:
    """What two paths have before the segments in which they end alike.

    >>> _prefixes("params/a/kernel", "ema/a/kernel")
    ('params', 'ema')
    """
    one, other = a.split("/"), b.split("/")
    shared = 0
    while shared < min(len(one), len(other)) and one[~shared] == other[~shared]:
        shared += 1
    if not shared:
        return None
    one, other = one[: len(one) - shared], other[: len(other) - shared]
    start = [x for x, y in zip(one, other, strict=False) if x == y]
    prefixes = "/".join(one), "/".join(other)
    is_block = len({re.sub(r"\d+", "#", prefix) for prefix in prefixes}) == 1
    is_within = layer_index(tuple(start)) is not None
    return None if is_block or is_within else prefixes


def _is_below(path: str, prefix: str) -> bool:
    return not prefix or path == prefix or path.startswith(f"{prefix}/")


def _copy(leaves: Sequence[Leaf], one: str, other: str) -> Iterator[Copy]:
    """The copy that one of two subtrees is of the other, if it is one."""
    first, second = _subtree(leaves, one, other), _subtree(leaves, other, one)
    if len(first) < _FEWEST or first.keys() != second.keys():
        return
    if not all(_is_copy(first[path], second[path]) for path in first):
        return
    if not other or (one and _width(first) < _width(second)):
        one, other, first, second = other, one, second, first
    dtypes = [(x.dtype, second[path].dtype) for path, x in first.items()]
    rounded = [narrow for wide, narrow in dtypes if wide != narrow]
    yield Copy(other, one, tuple(second.values()), rounded[0] if rounded else None)


def _subtree(leaves: Sequence[Leaf], prefix: str, besides: str) -> dict[str, Leaf]:
    """The leaves below a prefix, by the rest of their path."""
    below = [leaf for leaf in leaves if _is_below(leaf.path, prefix)]
    if not prefix:
        below = [leaf for leaf in below if not _is_below(leaf.path, besides)]
    return {leaf.path[len(prefix) :].removeprefix("/"): leaf for leaf in below}


def _width(subtree: Mapping[str, Leaf]) -> int:
    return sum(leaf.dtype.itemsize for leaf in subtree.values())


def _is_copy(a: Leaf, b: Leaf) -> bool:
    """Whether two leaves are equal, the wider one rounded to the dtype of the other."""
    if a.shape != b.shape:
        return False
    if any(jnp.issubdtype(x.dtype, jax.dtypes.extended) for x in (a, b)):
        return a.dtype == b.dtype
    wide, narrow = sorted(map(on_host, (a.array, b.array)), key=lambda x: -x.itemsize)
    with np.errstate(over="ignore"):
        return np.array_equal(wide.astype(narrow.dtype), narrow)
