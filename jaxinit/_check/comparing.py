"""Arrays compared with those of jax, bit for bit, on the host."""

import os
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from typing import Any

import jax
import numpy as np

from jaxinit._check.result import CheckRow, Difference

_WORKERS = min(16, os.cpu_count() or 1)  # XLA compiles while others trace


@dataclass(frozen=True)
class Outcome:
    """What came of one case.

    Attributes:
        difference: the first difference.
        refusal: the error of jax, of which there is then nothing to compare.
    """

    difference: Difference | None = None
    refusal: str = ""


Outcomes = Iterable[Outcome]


def compared(case: str, ours: Callable[[], Any], theirs: Callable[[], Any]) -> Outcome:
    """Compares what two functions draw.

    Args:
        case: what a difference calls it.
        ours: a function that returns a tree of arrays.
        theirs: another, by jax alone. What it refuses is not compared.
    """
    try:
        wanted = _on_host(theirs())
    except Exception as error:
        return Outcome(refusal=in_a_line(error))
    try:
        drawn = _on_host(ours())
    except Exception as error:
        return Outcome(Difference(case, "", None, in_a_line(error), "arrays"))
    return Outcome(first_difference(case, drawn, wanted))


def in_a_line(error: Exception) -> str:
    """The kind of an error, and the first line of what it says."""
    return f"{type(error).__name__}: {error}".splitlines()[0]


def first_difference(case: str, ours: Any, theirs: Any) -> Difference | None:
    """The first entry in which two trees of NumPy arrays differ; None if none does.

    >>> import numpy as np
    >>> print(first_difference("a case", np.zeros(3), np.array([0, 0, -0.0])))
    a case: 1 of 3 entries differ, the first at (2,): got 0.0, jax has -0.0
    """
    (mine, tree), (wanted, other) = map(_flat, (ours, theirs))
    if tree != other:
        return Difference(case, "", None, f"the tree {tree}", str(other))
    pairs = zip(mine, wanted, strict=True)
    found = (_difference(case, path, x, y) for (path, x), (_, y) in pairs)
    return next(filter(None, found), None)


def _difference(case: str, path: str, x: Any, y: Any) -> Difference | None:
    if (x.dtype, x.shape) != (y.dtype, y.shape):
        return Difference(case, path, None, _kind(x), _kind(y))
    differs = (_bytes(x) != _bytes(y)).any(1)
    if not differs.any():
        return None
    first = int(differs.argmax())
    index = tuple(map(int, np.unravel_index(first, x.shape)))
    ours, theirs = (str(each.ravel()[first]) for each in (x, y))
    return Difference(case, path, index, ours, theirs, int(differs.sum()), x.size)


def _bytes(x: np.ndarray) -> np.ndarray:
    """The bytes of each entry, in a row."""
    return np.frombuffer(x.tobytes(), np.uint8).reshape(x.size, x.dtype.itemsize)


def _kind(x: Any) -> str:
    return f"{x.dtype} {x.shape}"


def _flat(tree: Any) -> tuple[list[tuple[str, Any]], Any]:
    flat, treedef = jax.tree.flatten_with_path(tree)
    name = jax.tree_util.keystr
    return [(name(path, simple=True, separator="/"), x) for path, x in flat], treedef


def _on_host(tree: Any) -> Any:
    return jax.tree.map(_as_numpy, jax.block_until_ready(tree))


def _as_numpy(x: Any) -> np.ndarray:
    if jax.numpy.issubdtype(x.dtype, jax.dtypes.prng_key):
        x = jax.random.key_data(x)
    return np.asarray(x)


def row(part: str, what: str, groups: Iterable[Callable[[], Outcomes]]) -> CheckRow:
    """Compares groups of cases, in parallel.

    Args:
        part: part of the check.
        what: what is drawn.
        groups: functions that compare some cases, each called in a thread.
    """
    start = time.perf_counter()
    with ThreadPoolExecutor(_WORKERS) as pool:
        done = pool.map(lambda group: list(group()), list(groups))
        outcomes = list(chain.from_iterable(done))
    seconds = time.perf_counter() - start
    refused = [each.refusal for each in outcomes if each.refusal]
    found = [each.difference for each in outcomes if each.difference is not None]
    cases, first = len(outcomes) - len(refused), next(iter(found), None)
    note = "" if cases else f"jax refuses: {next(iter(refused), 'all')}"
    return CheckRow(part, what, cases, len(found), seconds, first, note)


def absent(part: str, what: str, note: str) -> CheckRow:
    """The row of what cannot be compared; the note says why."""
    return CheckRow(part, what, 0, 0, 0.0, note=note)
