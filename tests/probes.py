"""A loss as the default of `jaxinit.signal.propagate` and keys, that compile sooner."""

import functools

import jax
import jax.numpy as jnp
import numpy as np


@functools.cache
def _normal_numbers(shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(5).normal(size=shape).astype(np.float32)


@functools.cache
def _words() -> np.ndarray:
    return np.asarray(jax.random.key_data(jax.random.split(jax.random.key(1), 100)))


def keys(count: int) -> list[jax.Array]:
    """What a key is split into; asking for more or fewer of them compiles nothing."""
    return [jax.random.wrap_key_data(words) for words in _words()[:count]]


def probe(output: jax.Array) -> jax.Array:
    """Its product with normal numbers, for gradients of size one."""
    return jnp.sum(output * _normal_numbers(output.shape))
