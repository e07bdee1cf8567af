"""Models of every framework and kind, cold: eager, `jax.jit` and `jaxinit.jit`.

Every figure is of a fresh process. Imports and the start of jax's backend are not in
it; tracing, compiling and running are. CPU seconds are those of all threads.
"""

import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jax

from benchmarks.harness import Table, fresh, interleaved, ratio

EAGER, JITTED, OURS = "eager", "jax.jit", "jaxinit"
METHODS = (EAGER, JITTED, OURS)


def names() -> list[str]:
    """All models."""
    from benchmarks.cold_models import MODELS, NNX, PLANS

    return [*MODELS, *PLANS, *NNX]


def run(rounds: int = 2) -> list[dict]:
    """Every model by every method."""
    calls = {
        (model, method): partial(fresh, measure, model, method)
        for model in fresh(names)
        for method in METHODS
    }
    return [
        {"model": model, "method": method, "taken": taken}
        for (model, method), taken in interleaved(calls, rounds).items()
    ]


def measure(model: str, method: str) -> dict:
    """One method, in this process, which must be a fresh one."""
    from benchmarks.models import fingerprint

    call = _call(model, method)
    jax.block_until_ready(jax.random.normal(jax.random.key(0), (4,)))
    before = time.process_time()
    start = time.perf_counter()
    params = jax.block_until_ready(call())
    seconds = time.perf_counter() - start
    return {
        "seconds": seconds,
        "cpu_seconds": time.process_time() - before,
        "leaves": len(jax.tree.leaves(params)),
        "fingerprint": fingerprint(params),
    }


def _call(model: str, method: str) -> Callable[[], Any]:
    import jaxinit
    from benchmarks.cold_models import MODELS, NNX, PLANS

    key = jax.random.key(0)
    if model in NNX:
        return _nnx_call(NNX[model], method, key)
    if model in PLANS:
        return _plan_call(PLANS[model](), method, key)
    init = MODELS[model]()
    if method == EAGER:
        return partial(init, key)
    return partial((jax.jit if method == JITTED else jaxinit.jit)(init), key)


def _plan_call(plan: Any, method: str, key: jax.Array) -> Callable[[], Any]:
    def draw(key):
        return [leaf.draw(key) for leaf in plan]

    if method == OURS:
        return lambda: jax.tree.leaves(plan.init(key))
    return partial(draw if method == EAGER else jax.jit(draw), key)


def _nnx_call(construct: Callable, method: str, key: jax.Array) -> Callable[[], Any]:
    from flax import nnx

    import jaxinit.nnx

    def from_key(key):
        return construct(nnx.Rngs(key))

    makers = {
        EAGER: lambda: from_key(key),
        JITTED: lambda: nnx.jit(from_key)(key),
        OURS: lambda: jaxinit.nnx.create(construct, key),
    }
    make = makers[method]

    def drawn():
        """Without the counters of random streams, as pure dictionaries."""
        model = make()
        kinds = (nnx.Param, nnx.BatchStat)
        return [nnx.to_pure_dict(nnx.state(model, kind)) for kind in kinds]

    return drawn


def ratios(rows: list[dict]) -> dict[str, list[float]]:
    """How many times as fast as each other method, for every model in order."""
    seconds = _seconds(rows)
    return {
        other: [ratio(each[other], each[OURS]) for each in seconds.values()]
        for other in (JITTED, EAGER)
    }


def _seconds(rows: list[dict]) -> dict[str, dict[str, list[float]]]:
    """Seconds in every round, by model and method."""
    found: dict[str, dict[str, list[float]]] = {}
    for row in rows:
        of_model = found.setdefault(row["model"], {})
        of_model[row["method"]] = [one["seconds"] for one in row["taken"]]
    return found


def tables(rows: list[dict]) -> list[Table]:
    """Medians and ratios, and how they are over all models."""
    taken = {(row["model"], row["method"]): row["taken"] for row in rows}
    gains = ratios(rows)
    lines = []
    for i, (model, seconds) in enumerate(_seconds(rows).items()):
        both = (taken[model, method] for method in (JITTED, OURS))
        same = {one["fingerprint"] for each in both for one in each}
        lines.append(
            (
                model,
                str(taken[model, OURS][0]["leaves"]),
                *(f"{statistics.median(seconds[method]):.2f}" for method in METHODS),
                *(f"{each[i]:.2f}" for each in gains.values()),
                "yes" if len(same) == 1 else "no",
            )
        )
    for word, over in (
        ("geometric mean", statistics.geometric_mean),
        ("least", min),
    ):
        both = (f"{over(each):.2f}" for each in gains.values())
        lines.append((word, "", "", "", "", *both, ""))
    head = ("model", "leaves", "eager s", "jax.jit s", "jaxinit s")
    head += ("jax.jit / jaxinit", "eager / jaxinit", "bits of jax.jit")
    rounds = len(rows[0]["taken"])
    models = len(lines) - 2
    title = f"{models} models, cold, fresh processes, median of {rounds}"
    return [Table(title, head, lines)]
