"""How compile time grows with the number of blocks, in fresh processes."""

import statistics
import time
from functools import partial

import jax

import jaxinit
from benchmarks.gpt import with_linen
from benchmarks.harness import Table, fresh, interleaved

JAX, OURS = "jax.jit", "jaxinit.jit"


def run(rounds: int = 3, blocks: int = 48) -> list[dict]:
    """Compiles GPTs of a quarter, all and twice as many blocks; jax the smallest only.

    Nothing is run.
    """
    shallow = max(1, blocks // 4)
    cases = [(JAX, shallow), (OURS, shallow), (OURS, blocks), (OURS, 2 * blocks)]
    calls = {case: partial(fresh, measure, *case) for case in cases}
    return [
        {"method": method, "blocks": size, "taken": taken}
        for (method, size), taken in interleaved(calls, rounds).items()
    ]


def measure(method: str, blocks: int) -> dict:
    """Seconds to trace and to compile, in this process, which must be a fresh one."""
    init, *args = with_linen.init_and_arguments(blocks)
    jax.block_until_ready(jax.random.normal(jax.random.key(0), (4,)))
    if method == OURS:
        programs = jaxinit.jit(init).programs(*args)
        return {
            "trace": programs.trace_seconds,
            "compile": programs.compile_seconds,
            "programs": len(programs),
        }
    start = time.perf_counter()
    lowered = jax.jit(init).lower(*args)
    middle = time.perf_counter()
    lowered.compile()
    return {
        "trace": middle - start,
        "compile": time.perf_counter() - middle,
        "programs": 1,
    }


def tables(rows: list[dict]) -> list[Table]:
    """Medians, and compile time against that of the shallowest model."""
    shallowest = next(row for row in rows if row["method"] == OURS)
    lines = [
        (
            row["method"],
            str(row["blocks"]),
            str(row["taken"][0]["programs"]),
            f"{median(row, 'trace'):.2f}",
            f"{median(row, 'compile'):.2f}",
            f"{median(row, 'trace') + median(row, 'compile'):.2f}",
            f"{median(row, 'compile') / median(shallowest, 'compile'):.2f}",
        )
        for row in rows
    ]
    head = ("method", "blocks", "programs", "trace s", "compile s", "total s")
    head += (f"compile / {shallowest['blocks']} blocks",)
    return [
        Table("Depth: GPT in Flax Linen, traced and compiled, not run", head, lines)
    ]


def median(row: dict, name: str) -> float:
    """Median over rounds of one figure."""
    return statistics.median(one[name] for one in row["taken"])
