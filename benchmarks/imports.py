"""What `import jaxinit` adds to `import jax`, in fresh processes."""

import importlib
import statistics
import time
from functools import partial

from benchmarks.harness import Table, fresh, interleaved


def run(rounds: int = 9) -> list[dict]:
    """Imports both in fresh processes, after one that fills the caches."""
    interleaved({"import": partial(fresh, measure)}, 1)
    return interleaved({"import": partial(fresh, measure)}, rounds)["import"]


def measure() -> dict:
    """Seconds of each import, in this process, which has made none yet."""
    return {name: _import_seconds(name) for name in ("jax", "jaxinit")}


def _import_seconds(name: str) -> float:
    start = time.perf_counter()
    importlib.import_module(name)
    return time.perf_counter() - start


def tables(rows: list[dict]) -> list[Table]:
    """Medians in milliseconds."""
    jax, ours = (sorted(row[name] for row in rows) for name in ("jax", "jaxinit"))
    lines = [
        (name, f"{1e3 * statistics.median(times):.0f}", f"{1e3 * times[0]:.0f}")
        for name, times in (("import jax", jax), ("import jaxinit after it", ours))
    ]
    return [Table(f"Import: median of {len(rows)}", ("", "ms", "least ms"), lines)]
