"""How two arrays of draws may come from one key: equal, beginnings, multiples, ranks.

With one key, `normal(key, (8,))` begins with `normal(key, (4,))`, and `uniform` has the
same order as `normal`, as both are increasing functions of the same random bits. So
every array leaves marks, such as the order of its first 16 entries that are not zero,
and arrays that share a mark are compared in whole:

    marks of [0.3, -1.2, 0.8, ...]     order 1, 0, 2, ...
    marks of [0.6, -2.4, 1.6, ...]     order 1, 0, 2, ...: compared, a multiple by 2
"""

import math
from collections import defaultdict
from collections.abc import Hashable, Iterator, Sequence
from hashlib import blake2b
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxinit._arrays.spread import on_host
from jaxinit._audit.drawn import (
    RATE_BITS,
    bits_of,
    is_drawn,
    reals,
    some_nonzero,
)

WINDOW = 16
_WINDOWS = 4
_SHORT = 10  # entries that are compared as they are
_CHUNK = 1 << 20
_RANKED = 4096  # entries whose order is compared
_FEWEST_RANKED = 32  # 1 / 32! is 2**-117


class Relation(NamedTuple):
    """How an array follows from another that is as long or longer.

    Attributes:
        kind: "equal" entry by entry, a "multiple", or in the same "order".
        size: number of entries.
        factor: of a multiple; else 1.
        digest: of the entries and their dtype: equal for equal arrays.
    """

    kind: str
    size: int
    factor: Any
    digest: bytes


class SameKey:
    """Classes of arrays that come from one key each.

    Time is linear in the number of arrays, and in the entries of those that share a
    mark: each of these is compared with the longest of its class alone.
    """

    def __init__(self, arrays: Sequence[Any]):
        self._arrays = arrays
        self._bits = RATE_BITS + 2 * math.log2(len(arrays) + 1)
        self._drawn: dict[int, bool] = {}
        self._found: dict[int, tuple[int, Relation]] = {}
        self._roots: set[int] = set()

    def classes(self) -> list[list[tuple[int, Relation]]]:
        """Positions of arrays, the longest of a class first, each with its relation."""
        marked: dict[Hashable, list[int]] = defaultdict(list)
        for i, array in enumerate(self._arrays):
            if array.size >= _SHORT:
                for mark in marks(on_host(array)):
                    marked[mark].append(i)
        shared = (sorted(x, key=self._rank) for x in marked.values() if len(x) > 1)
        for alike in sorted(shared, key=lambda alike: self._rank(alike[0])):
            self._compare([i for i in alike if self._is_drawn(i)])
        classes: dict[int, list[tuple[int, Relation]]] = {}
        for i, (root, how) in sorted(self._found.items()):
            if root not in classes:
                longest = on_host(self._arrays[root])
                own = Relation("equal", longest.size, 1.0, _digest(longest))
                classes[root] = [(root, own)]
            classes[root].append((i, how))
        return list(classes.values())

    def _rank(self, i: int) -> tuple[int, int]:
        return -self._arrays[i].size, i

    def _is_drawn(self, i: int) -> bool:
        if i not in self._drawn:
            self._drawn[i] = is_drawn(on_host(self._arrays[i]))
        return self._drawn[i]

    def _compare(self, alike: Sequence[int]) -> None:
        """Compares arrays that share a mark with the longest, the rest in turn."""
        while len(alike) > 1:
            root, _ = self._found.get(alike[0], (alike[0], None))
            open_ones = [i for i in alike[1:] if not self._is_settled(i)]
            if not open_ones:
                return
            longest, rest = on_host(self._arrays[root]), []
            for i in open_ones:
                how = relation(longest, on_host(self._arrays[i]), self._bits)
                if how is None:
                    rest.append(i)
                else:
                    self._found[i] = root, how
                    self._roots.add(root)
            alike = rest

    def _is_settled(self, i: int) -> bool:
        return i in self._found or i in self._roots


def marks(values: np.ndarray) -> Iterator[Hashable]:
    """What arrays that may come from one key have in common, at least in part.

    Nothing of arrays of few entries or few values.

    Args:
        values: finite entries, on the host.
    """
    head = some_nonzero(values, WINDOW * _WINDOWS)
    if head.size >= _SHORT:
        yield values.dtype, head[:_SHORT].tobytes()
    windows = head[: head.size // WINDOW * WINDOW].reshape(-1, WINDOW)
    orders = windows.argsort(axis=1, kind="stable").astype(np.uint8)
    for i, (window, order) in enumerate(zip(windows, orders, strict=True)):
        ordered = window[order]
        if np.count_nonzero(ordered[1:] != ordered[:-1]) >= WINDOW // 2 - 1:
            yield i, (order if order[0] < order[-1] else order[::-1]).tobytes()


def relation(longer: np.ndarray, shorter: np.ndarray, bits: float) -> Relation | None:
    """How the shorter of two arrays follows from the beginning of the longer one.

    Args:
        longer: finite entries, on the host.
        shorter: as many or fewer.
        bits: how improbable chance must be, as a power of 1/2.

    Returns:
        The relation; None if there is none, or chance could make it.
    """
    a, b = shorter.reshape(-1), longer.reshape(-1)[: shorter.size]
    told = np.count_nonzero(a) * _bits_of_each(a, b)
    if told >= bits:
        if a.dtype == b.dtype and np.array_equal(a, b):
            return Relation("equal", a.size, 1.0, _digest(a))
        if (factor := _factor(a, b)) is not None:
            return Relation("multiple", a.size, factor, _digest(a))
    if _is_in_order(a, b) and not (_is_lru_gamma(a, b) or _is_lru_gamma(b, a)):
        return Relation("order", a.size, 1.0, _digest(a))
    return None


def _digest(values: np.ndarray) -> bytes:
    flat = np.ascontiguousarray(values).reshape(-1)
    own = blake2b(flat.view(np.uint8).data, digest_size=16)
    own.update(str(values.dtype).encode())
    return own.digest()


def _bits_of_each(a: np.ndarray, b: np.ndarray) -> float:
    """What an entry tells; of a multiple, whose last digits may differ, less."""
    own = bits_of(some_nonzero(a, _RANKED).astype(np.real(a).dtype))
    if a.dtype == b.dtype and a[:WINDOW].tobytes() == b[:WINDOW].tobytes():
        return own
    return min(own, max(min(jnp.finfo(x.dtype).nmant for x in (a, b)) - 3.0, 1.0))


def _factor(a: np.ndarray, b: np.ndarray) -> Any:
    """The number that makes `b` of `a`, up to rounding of both; None if none does."""
    limits = [jnp.finfo(x.dtype) for x in (a, b)]
    # Of 8 bits only powers of two give multiples that are known as such.
    is_wide = min(x.bits for x in limits) >= 16
    near = max(float(x.eps) for x in limits) * (4 if is_wide else 0.1)
    least = [float(x.smallest_subnormal) for x in limits]
    wide = np.result_type(np.float64, a.dtype if a.dtype.kind == "c" else np.float64)
    factor = None
    for start in range(0, a.size, _CHUNK):
        x, y = (part[start : start + _CHUNK].astype(wide) for part in (a, b))
        if factor is None:
            if not np.any(x):
                if np.any(y):
                    return None
                continue
            largest = np.argmax(np.abs(x))
            factor = y[largest] / x[largest]
        tiny = 2 * (abs(factor) * least[0] + least[1])
        if np.any(np.abs(y - factor * x) > near * np.abs(y) + tiny):
            return None
    return factor if factor else None


def _is_in_order(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether the first entries of `b` rise where those of `a` do, or all fall.

    Ties, as of rounding, tell nothing; one step in 64 may go the wrong way, as the
    functions in which draws end are only increasing up to rounding.
    """
    a, b = (reals(x[:_RANKED]) for x in (a, b))
    fewest = min(np.unique(x[x != 0]).size for x in (a, b))
    if fewest < _FEWEST_RANKED:
        return False
    if np.sum((a - a.mean()) * (b - b.mean())) < 0:
        b = -b
    order = np.lexsort((b, a))
    steps = np.diff(b[order])
    return int(np.count_nonzero(steps < 0)) <= fewest // 64


def _is_lru_gamma(nu: np.ndarray, gamma: np.ndarray) -> bool:
    """Whether `gamma` is what `lru_gamma` makes of `nu`, as it should."""
    nu, gamma = (reals(x[:_RANKED]).astype(np.float64) for x in (nu, gamma))
    with np.errstate(all="ignore"):
        made = np.log(-np.expm1(-2 * np.exp(nu))) / 2
    return np.allclose(gamma, made, 0.05, 0.05)
