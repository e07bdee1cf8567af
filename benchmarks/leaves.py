"""What one leaf costs where leaves are small and many: second calls, plans, reports."""

import itertools
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax

import jaxinit
from benchmarks.harness import Table, interleaved
from jaxinit import report, stats

WARM = (48, 768)
FLOOR = "executables alone"
SHAPES = {"kernel": (8, 4), "bias": (4,), "out": (4, 8), "scale": (16,)}


def run(rounds: int = 9) -> list[dict]:
    """Second calls in turns, and what takes seconds in turns three times."""
    warm = {
        (name, count): partial(timed, call, count)
        for count in WARM
        for name, call in calls(count).items()
    }
    others = {
        (name, count): partial(prepared, name, count) for name, count in COUNTS.items()
    }
    # Many rounds, as a machine with other work leaves some of them alone.
    taken = {**interleaved(warm, 5 * rounds), **interleaved(others, min(rounds, 3))}
    return [{"what": x, "leaves": n, "taken": found} for (x, n), found in taken.items()]


def timed(call: Callable[[], Any], count: int) -> dict:
    """Seconds of a call until it returns and until all is done, and of processors."""
    cpu, start = time.process_time(), time.perf_counter()
    made = call()
    returned = time.perf_counter() - start
    jax.block_until_ready(made)
    done, cpu = time.perf_counter() - start, time.process_time() - cpu
    return {"returned": returned / count, "done": done / count, "cpu": cpu / count}


def prepared(name: str, count: int) -> dict:
    """The same of a call that is prepared first."""
    return timed(OTHERS[name](count), count)


def shapes(count: int) -> dict:
    """Layers of four small leaves."""
    layer = {x: jax.ShapeDtypeStruct(s, "float32") for x, s in SHAPES.items()}
    return {f"layer_{i}": layer for i in range(count // len(SHAPES))}


def plan(count: int, scale: float = 1.0) -> jaxinit.Plan:
    """All leaves drawn from normal distributions."""
    return jaxinit.plan(shapes(count), {"**": jaxinit.normal(scale)})


def init_of(tree: Any) -> Callable[[jax.Array], Any]:
    """What users write by hand."""
    leaves, structure = jax.tree.flatten(tree)

    def init(key):
        keys = jax.random.split(key, len(leaves))
        drawn = [
            jax.random.normal(k, x.shape) for k, x in zip(keys, leaves, strict=True)
        ]
        return jax.tree.unflatten(structure, drawn)

    return init


def calls(count: int) -> dict[str, Callable[[], Any]]:
    """Functions of which each call is a second call."""
    key, made = jax.random.key(0), plan(count)
    init, programs = jaxinit.jit(init_of(shapes(count))), made.programs(key)
    found = {
        "jaxinit.jit(init)(key)": partial(init, key),
        "plan.init(key)": partial(made.init, key),
        "Programs.run()": programs.run,
        FLOOR: _floor(count),
    }
    for call in (*found.values(), *found.values()):
        jax.block_until_ready(call())
    return found


def _floor(count: int) -> Callable[[], Any]:
    """As many executables of the same draws, called with words that are ready."""
    keys = jax.random.split(jax.random.key(1), count)
    words = list(jax.device_get(jax.random.key_data(keys)))
    layers = count // len(SHAPES)
    compiled = list(map(_executable, SHAPES.values())) * layers
    return lambda: [call(w) for call, w in zip(compiled, words, strict=True)]


def _executable(shape: tuple[int, ...]) -> jax.stages.Compiled:
    def draw(words):
        return jaxinit.normal()(jax.random.wrap_key_data(words), shape)

    return jax.jit(draw).lower(jax.ShapeDtypeStruct((2,), "uint32")).compile()


_SCALES = itertools.count(2.0)  # one for each trace: what equal plans have is kept


def _plan(count: int) -> Callable[[], Any]:
    return lambda: plan(count) and None


def _text(count: int) -> Callable[[], Any]:
    made = plan(count)
    return lambda: str(made) and None


def _trace(count: int) -> Callable[[], Any]:
    made = plan(count, next(_SCALES))
    return lambda: jax.jit(made.init).trace(jax.random.key(0)) and None


def _of_tree(fun: Callable[[Any, jaxinit.Plan], Any]) -> Callable[[int], Callable]:
    def prepare(count):
        made = plan(count)
        tree = jax.block_until_ready(made.init(jax.random.key(0)))
        fun(tree, made)
        return lambda: fun(tree, made) and None

    return prepare


# Functions of a number of leaves that prepare a call; and the number.
OTHERS: dict[str, Callable[[int], Callable[[], Any]]] = {
    "jaxinit.plan": _plan,
    "str(plan)": _text,
    "jax.jit(plan.init).trace(key)": _trace,
    "jaxinit.fingerprint": _of_tree(lambda tree, made: jaxinit.fingerprint(tree)),
    "report.report": _of_tree(report.report),
    "stats.measure": _of_tree(
        lambda tree, made: [stats.measure(x) for x in jax.tree.leaves(tree)]
    ),
}
COUNTS = dict.fromkeys(OTHERS, 2_000) | {"jaxinit.plan": 100_000, "str(plan)": 100_000}


def tables(rows: list[dict]) -> list[Table]:
    """Medians of microseconds for each leaf, and the fastest."""
    lines = [
        (
            row["what"],
            f"{row['leaves']:,}",
            *(
                _microseconds(row["taken"], name)
                for name in ("returned", "done", "cpu")
            ),
        )
        for row in rows
    ]
    head = ("what", "leaves", "until it returns", "until done", "of processors")
    title = "Leaves: microseconds for each, median (least)"
    return [Table(title, head, lines)]


def _microseconds(taken: Sequence[dict], name: str) -> str:
    found = [1e6 * one[name] for one in taken]
    return f"{statistics.median(found):.1f} ({min(found):.1f})"
