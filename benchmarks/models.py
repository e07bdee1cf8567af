"""A whole model, cold: from nothing compiled to parameters in memory.

Every figure is of a fresh process. Imports and the start of jax's backend are not in
it; tracing, compiling and running are.
"""

import hashlib
import importlib
import statistics
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import jax
import numpy as np

from benchmarks.harness import (
    Table,
    fresh,
    interleaved,
    is_installed,
    memory,
    ratio,
    reset_peak,
)

# Frameworks and the packages they need.
FRAMEWORKS = {"linen": "flax", "nnx": "flax", "haiku": "haiku", "equinox": "equinox"}
EAGER, JITTED, OURS = "eager", "jax.jit", "jaxinit.jit"
METHODS = (EAGER, JITTED, OURS)


def run(rounds: int = 3, blocks: int = 48) -> list[dict]:
    """Initialises a GPT of so many blocks by every method in every framework."""
    calls = {
        (framework, method): partial(fresh, measure, framework, method, blocks)
        for framework, package in FRAMEWORKS.items()
        if is_installed(package)
        for method in METHODS
    }
    return [
        {"framework": framework, "method": method, "blocks": blocks, **_joined(taken)}
        for (framework, method), taken in interleaved(calls, rounds).items()
    ]


def _joined(taken: list[dict]) -> dict:
    return {name: [one[name] for one in taken] for name in taken[0]}


def measure(framework: str, method: str, blocks: int) -> dict:
    """One method, in this process, which must be a fresh one."""
    model = importlib.import_module(f"benchmarks.gpt.with_{framework}")
    call = model.methods(blocks)[method]
    jax.block_until_ready(jax.random.normal(jax.random.key(0), (4,)))
    reset_peak()
    before = memory("VmRSS")
    start = time.perf_counter()
    params = jax.block_until_ready(call())
    seconds = time.perf_counter() - start
    peak = memory("VmHWM")
    leaves = jax.tree.leaves(params)
    return {
        "seconds": seconds,
        "extra_bytes": None if peak is None or before is None else peak - before,
        "leaves": len(leaves),
        "parameters": sum(leaf.size for leaf in leaves),
        "bytes": sum(leaf.nbytes for leaf in leaves),
        "fingerprint": fingerprint(params),
    }


def fingerprint(tree: Any) -> str:
    """A hash of all leaves: their paths, dtypes, shapes and bits."""
    digest = hashlib.blake2b(digest_size=16)
    for path, leaf in jax.tree.leaves_with_path(tree):
        array = np.ascontiguousarray(leaf)
        head = (jax.tree_util.keystr(path), array.dtype.name, array.shape)
        digest.update(repr(head).encode())
        digest.update(array.view(np.uint8).data)
    return digest.hexdigest()


def tables(rows: list[dict]) -> list[Table]:
    """Medians, ratios to `jax.jit` and to eager, memory, and whether bits are equal."""
    head = ("framework", "method", "s", "jax.jit / this", "eager / this")
    head += ("this / Linen's jaxinit.jit", "peak GB", "peak / parameters")
    head += ("bits of jax.jit",)
    first = rows[0]
    title = (
        f"GPT of {first['blocks']} blocks, {first['parameters'][0]:,} parameters in "
        f"{first['leaves'][0]} leaves, {first['bytes'][0] / 1e9:.2f} GB: cold, fresh "
        f"processes, median of {len(first['seconds'])}"
    )
    return [Table(title, head, list(_lines(rows)))]


def _lines(rows: list[dict]) -> Iterator[tuple[str, ...]]:
    by_name = {(row["framework"], row["method"]): row for row in rows}
    for (framework, method), row in by_name.items():
        jitted = by_name[framework, JITTED]
        eager = by_name[framework, EAGER]
        seconds = row["seconds"]
        peaks = [value for value in row["extra_bytes"] if value is not None]
        peak = statistics.median(peaks) if peaks else None
        yield (
            framework,
            method,
            f"{statistics.median(seconds):.2f}",
            f"{ratio(jitted['seconds'], seconds):.2f}",
            f"{ratio(eager['seconds'], seconds):.2f}",
            f"{ratio(seconds, by_name['linen', OURS]['seconds']):.2f}",
            "" if peak is None else f"{peak / 1e9:.2f}",
            "" if peak is None else f"{peak / row['bytes'][0]:.3f}",
            "yes" if _same_bits(row, jitted) else "no",
        )


def _same_bits(row: dict, other: dict) -> bool:
    return len({*row["fingerprint"], *other["fingerprint"]}) == 1
