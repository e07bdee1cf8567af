"""A tree by rules, in one XLA pass and by leaf programs, against a jitted loop."""

import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jax

import jaxinit
from benchmarks.harness import Table, fresh, interleaved, ratio

NAIVE = "jax.jit of a loop over jax.nn.initializers"
ONE_PASS = "jax.jit(plan.init)"
PROGRAMS = "plan.init"


def run(rounds: int = 3, blocks: int = 48) -> list[dict]:
    """Each method in fresh processes: six kernels of width 768 a block."""
    methods = (NAIVE, ONE_PASS, PROGRAMS)
    calls = {name: partial(fresh, measure, name, blocks) for name in methods}
    taken = interleaved(calls, rounds)
    return [{"method": name, "taken": results} for name, results in taken.items()]


def shapes(blocks: int, width: int = 768) -> dict:
    """A transformer's kernels, an embedding and a scale."""
    sizes = dict.fromkeys(("query", "key", "value", "out"), (width, width))
    sizes |= {"up": (width, 4 * width), "down": (4 * width, width)}
    tree = {f"block_{i}": dict(sizes) for i in range(blocks)}
    tree |= {"embed": {"table": (1000, width)}, "norm": {"scale": (width,)}}
    return jax.tree.map(
        lambda shape: jax.ShapeDtypeStruct(shape, "float32"),
        tree,
        is_leaf=lambda node: isinstance(node, tuple),
    )


def initializers(module) -> dict:
    """Initializers by pattern, from `jaxinit` or `jax.nn.initializers`."""
    return {
        "**/table": module.normal(0.02),
        "**/scale": module.ones,
        "**": module.he_normal(),
    }


def loop(tree):
    """What users write today: a jitted loop over leaves."""
    rules = initializers(jax.nn.initializers)
    flat, structure = jax.tree.flatten_with_path(tree)

    @jax.jit
    def init(key):
        keys = jax.random.split(key, len(flat))
        leaves = [
            rules.get(f"**/{path[-1].key}", rules["**"])(k, x.shape, x.dtype)
            for k, (path, x) in zip(keys, flat, strict=True)
        ]
        return jax.tree.unflatten(structure, leaves)

    return init


def measure(method: str, blocks: int) -> dict:
    """Seconds and temporary memory, in this process, which must be a fresh one."""
    tree, key = shapes(blocks), jax.random.key(0)
    jax.block_until_ready(jax.random.normal(key, (4,)))
    start = time.perf_counter()
    run, temporary = _compiled(method, tree, key)
    compiled = time.perf_counter() - start
    jax.block_until_ready(run())
    total = time.perf_counter() - start
    return {"compile": compiled, "total": total, "temporary": temporary}


def _compiled(method: str, tree, key) -> tuple[Callable, float]:
    """What runs the method, and its temporary bytes per byte of parameters."""
    if method == NAIVE:
        init = loop(tree)
    else:
        plan = jaxinit.plan(tree, initializers(jaxinit))
        if method == PROGRAMS:
            return plan.programs(key).run, 0.0
        init = jax.jit(plan.init)
    compiled = init.lower(key).compile()
    memory: Any = compiled.memory_analysis()
    share = memory.temp_size_in_bytes / memory.output_size_in_bytes
    return partial(compiled, key), share


def tables(rows: list[dict]) -> list[Table]:
    """Medians, and ratios to the loop within a round."""

    def seconds(row, name):
        return [one[name] for one in row["taken"]]

    naive = rows[0]
    lines = [
        (
            row["method"],
            f"{statistics.median(seconds(row, 'compile')):.2f}",
            f"{ratio(seconds(naive, 'compile'), seconds(row, 'compile')):.1f}",
            f"{statistics.median(seconds(row, 'total')):.2f}",
            f"{ratio(seconds(naive, 'total'), seconds(row, 'total')):.1f}",
            f"{row['taken'][0]['temporary']:.2f}",
        )
        for row in rows
    ]
    head = ("method", "trace and compile s", "x faster", "total s", "x faster")
    title = "One pass: 48 blocks of 6 kernels, width 768, cold process"
    return [Table(title, (*head, "temporary / parameters"), lines)]
