"""How fast laws are drawn, next to jitted jax: calls that take turns, and medians."""

import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.nn import initializers as of_jax

import jaxinit.initializers as own
from jaxinit._check.result import Timing

LAWS = ("normal", "uniform", "truncated_normal")
Call = Callable[[], Any]


def timings(key: Any, size: int, rounds: int) -> Iterator[Timing]:
    """A float32 (size, size) of each law, and one that is filled with a number.

    Args:
        key: a key on the device that is timed.
        size: side of the arrays.
        rounds: how often each is drawn.
    """
    shape = (size, size)
    for law in LAWS:
        init, reference = (getattr(each, law)(1.0) for each in (own, of_jax))
        jitted = jax.jit(reference, static_argnums=1)
        ours, theirs = (partial(each, key, shape) for each in (init, jitted))
        mine, others = _in_turns(ours, theirs, rounds)
        ratio = statistics.median(b / a for a, b in zip(mine, others, strict=True))
        median, of_jitted = map(statistics.median, (mine, others))
        yield Timing(law, shape, median, of_jitted, ratio)
    fill = jax.jit(lambda x: jnp.full(shape, x))
    value = jax.device_put(np.float32(1), next(iter(key.devices())))
    taken, _ = _in_turns(partial(fill, value), lambda: None, rounds)
    yield Timing("fill", shape, None, statistics.median(taken), None)


def _in_turns(one: Call, other: Call, rounds: int) -> tuple[list[float], list[float]]:
    """Seconds of two calls, the order reversed every round; both are warm."""
    calls, taken = (one, other), ([], [])
    for round_ in range(rounds + 1):
        for i in (0, 1)[:: -1 if round_ % 2 else 1]:
            seconds = _seconds(calls[i])
            if round_:  # the first compiles
                taken[i].append(seconds)
    return taken


def _seconds(call: Call) -> float:
    start = time.perf_counter()
    value = jax.block_until_ready(call())
    elapsed = time.perf_counter() - start
    del value  # the next call finds no memory of this one
    return elapsed
