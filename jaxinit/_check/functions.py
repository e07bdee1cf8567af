"""`jaxinit.jit` against `jax.jit`, of a small function of each kind."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from jaxinit._check.comparing import Outcome, compared, row
from jaxinit._check.result import CheckRow
from jaxinit._compile.jit import jit


def _split(key):
    return [jax.random.normal(k, (5, 7)) for k in jax.random.split(key, 3)]


def _fold_in(key):
    return [jax.random.uniform(jax.random.fold_in(key, i), (9,)) for i in range(3)]


def _scan(key):
    def step(key, _):
        key, own = jax.random.split(key)
        return key, jax.random.normal(own, (4, 6))

    return jax.lax.scan(step, key, length=3)


def _cond(key):
    def draw(key):
        return jax.random.normal(key, (11,))

    is_even = jax.random.bits(key) % 2 == 0
    return jax.lax.cond(is_even, draw, lambda key: -draw(key), key)


def _vmap(key):
    keys = jax.random.split(key, 3)
    return jax.vmap(lambda k: jax.random.truncated_normal(k, -2, 2, (5, 7)))(keys)


def _parts(key):
    return jnp.split(jax.random.normal(key, (16, 24)), 3, axis=1)


def _shared(key):
    drawn = jax.random.normal(key, (6, 9))
    return drawn, drawn * 0.3 + 1


def _keys(key):
    one, other = jax.random.split(key)
    return jax.random.bits(one, (3,)), other, jax.random.key_data(key)


KINDS = {
    "split keys": _split,
    "fold_in": _fold_in,
    "scan": _scan,
    "cond": _cond,
    "vmap": _vmap,
    "parts of one draw": _parts,
    "a draw used twice": _shared,
    "bits and keys": _keys,
}


def functions(
    key: Any, device: Any, kinds: Mapping[str, Callable[..., Any]] = KINDS
) -> CheckRow:
    """Compares `jaxinit.jit` of each function with `jax.jit` of it."""
    groups = [partial(_function, name, fun, key, device) for name, fun in kinds.items()]
    return row("functions", "jaxinit.jit", groups)


def _function(
    name: str, fun: Callable[..., Any], key: Any, device: Any
) -> Iterator[Outcome]:
    with jax.default_device(device):
        yield compared(name, partial(jit(fun), key), partial(jax.jit(fun), key))
