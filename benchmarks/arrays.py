"""One float32 array, fresh memory for every call: ours, jax, numpy, torch."""

import importlib
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.nn import initializers as reference

import jaxinit
from benchmarks.harness import Table, fresh, interleaved, is_installed, ratio

OURS, OURS_JITTED = "jaxinit", "jax.jit(jaxinit)"
JAX, NUMPY, TORCH = "jax.jit(jax.nn.initializers)", "numpy, SFC64", "torch"
_COMPILE_ROUNDS = 3
Call = Callable[[], Any]

_PAIRS = {
    "normal": (jaxinit.normal(1.0), reference.normal(1.0)),
    "uniform": (jaxinit.uniform(1.0), reference.uniform(1.0)),
    "truncated_normal": (
        jaxinit.truncated_normal(1.0),
        reference.truncated_normal(1.0),
    ),
    "he_normal": (jaxinit.he_normal(), reference.he_normal()),
}


def run(rounds: int = 15, size: int = 4096) -> list[dict]:
    """Times every method on an array of shape (size, size)."""
    return fresh(measure, rounds, size)


def measure(rounds: int, size: int) -> list[dict]:
    """The same, in this process."""
    shape = (size, size)
    compiled = dict(_jax_calls(jax.random.key(0), shape))
    firsts = interleaved(
        {name: partial(_first_seconds, call) for name, call in compiled.items()},
        min(rounds, _COMPILE_ROUNDS),
    )
    calls = compiled | dict(_numpy_calls(shape))
    if is_installed("torch"):
        calls |= dict(_torch_calls(shape))
    timers = {name: partial(timed, call) for name, call in calls.items()}
    interleaved(timers, 1)  # warms up
    return [
        {
            "law": law,
            "method": method,
            "size": size,
            "seconds": seconds,
            "first": firsts.get((law, method)),
        }
        for (law, method), seconds in interleaved(timers, rounds).items()
    ]


def timed(call: Call) -> float:
    """Seconds of one call, its array in fresh memory."""
    start = time.perf_counter()
    value = jax.block_until_ready(call())
    elapsed = time.perf_counter() - start
    del value  # the next call finds no memory of this one
    return elapsed


def _first_seconds(call: Call) -> float:
    jax.clear_caches()
    return timed(call)


def _jax_calls(key, shape) -> Iterator[tuple[tuple[str, str], Call]]:
    for law, (ours, theirs) in _PAIRS.items():
        yield (law, OURS), partial(ours, key, shape)
        for method, init in ((OURS_JITTED, ours), (JAX, theirs)):
            yield (law, method), partial(jax.jit(init, static_argnums=1), key, shape)
    yield ("constant", JAX), partial(jax.jit(partial(jnp.full, shape)), np.float32(1))


def _numpy_calls(shape) -> Iterator[tuple[tuple[str, str], Call]]:
    rng, dtype = np.random.Generator(np.random.SFC64(0)), np.float32
    yield ("normal", NUMPY), lambda: rng.standard_normal(shape, dtype)
    yield ("uniform", NUMPY), lambda: rng.random(shape, dtype)
    yield ("constant", NUMPY), lambda: np.full(shape, 1, dtype)


def _torch_calls(shape) -> Iterator[tuple[tuple[str, str], Call]]:
    torch = importlib.import_module("torch")
    truncated = importlib.import_module("torch.nn.init").trunc_normal_
    yield ("normal", TORCH), lambda: torch.empty(shape).normal_()
    yield ("uniform", TORCH), lambda: torch.empty(shape).uniform_()
    yield ("truncated_normal", TORCH), lambda: truncated(torch.empty(shape))
    yield ("constant", TORCH), lambda: torch.empty(shape).fill_(1)


def tables(rows: list[dict]) -> list[Table]:
    """Medians, and ratios to jitted jax."""
    seconds = {(row["law"], row["method"]): row["seconds"] for row in rows}
    lines = []
    for row in sorted(rows, key=lambda row: row["law"]):
        median = statistics.median(row["seconds"])
        lines.append(
            (
                row["law"],
                row["method"],
                f"{1e3 * median:.1f}",
                f"{1e3 * min(row['seconds']):.1f}",
                f"{row['size'] ** 2 / median / 1e6:.0f}",
                f"{ratio(seconds[row['law'], JAX], row['seconds']):.2f}",
                f"{statistics.median(row['first']) - median:.2f}"
                if row["first"]
                else "",
            )
        )
    size, rounds = rows[0]["size"], len(rows[0]["seconds"])
    head = ("law", "method", "ms", "least ms", "M/s", "jax / this", "compile s")
    title = f"One array: float32 ({size}, {size}), median of {rounds} calls"
    return [Table(title, head, lines)]
