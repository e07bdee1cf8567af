"""Where the time of one large draw goes: memory, rounds of threefry, transforms.

Each array is (4096, 4096), in fresh memory. A constant is written in the time that
memory takes; random bits take the rounds in addition; every law its transform on top.
On Linux the system hands out memory in pages of 4 KB, and clearing each takes longer
than writing to it. `GLIBC_TUNABLES=glibc.malloc.hugetlb=1` asks for pages of 2 MB.
"""

import statistics
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

import jaxinit
from benchmarks.arrays import timed
from benchmarks.harness import Table, fresh, interleaved

PAGES = {"4 KB": "0", "2 MB": "1"}  # and the value of glibc.malloc.hugetlb
LAWS = ("constant", "bits", "uniform", "normal", "truncated_normal")
_CALLS = 9


def run(rounds: int = 3, size: int = 4096) -> list[dict]:
    """All laws with small and large pages, in fresh processes that take turns."""
    calls = {
        pages: partial(
            fresh, measure, size, GLIBC_TUNABLES=f"glibc.malloc.hugetlb={value}"
        )
        for pages, value in PAGES.items()
    }
    return [
        {"pages": pages, "law": law, "seconds": [x for one in taken for x in one[law]]}
        for pages, taken in interleaved(calls, rounds).items()
        for law in LAWS
    ]


def measure(size: int) -> dict[str, list[float]]:
    """Seconds of each call, in this process."""
    key, shape = jax.random.key(0), (size, size)
    draws: dict[str, Callable[[jax.Array], Any]] = {
        "constant": lambda _: jnp.full(shape, 1, jnp.float32),
        "bits": lambda key: jax.random.bits(key, shape),
        "uniform": lambda key: jaxinit.uniform(1.0)(key, shape),
        "normal": lambda key: jaxinit.normal(1.0)(key, shape),
        "truncated_normal": lambda key: jaxinit.truncated_normal(1.0)(key, shape),
    }
    calls = {law: partial(jaxinit.jit(draw), key) for law, draw in draws.items()}
    timers = {law: partial(timed, call) for law, call in calls.items()}
    interleaved(timers, 1)  # compiles
    return interleaved(timers, _CALLS)


def tables(rows: list[dict]) -> list[Table]:
    """Medians, and how much of them a constant takes."""
    median = {
        (row["pages"], row["law"]): 1e3 * statistics.median(row["seconds"])
        for row in rows
    }
    lines = [
        (
            law,
            *(f"{median[pages, law]:.1f}" for pages in PAGES),
            *(f"{_memory(median, pages, law):.0f} %" for pages in PAGES),
        )
        for law in LAWS
    ]
    head = ("law", *(f"ms, pages of {pages}" for pages in PAGES))
    head += tuple(f"memory, pages of {pages}" for pages in PAGES)
    calls = len(rows[0]["seconds"])
    return [Table(f"One draw: median of {calls} calls", head, lines)]


def _memory(median: dict, pages: str, law: str) -> float:
    """How much of the time of a law a constant takes, in percent."""
    return 100 * median[pages, "constant"] / median[pages, law]
