"""GPT in Haiku."""

import haiku as hk
import jax
import jax.numpy as jnp

import jaxinit
from benchmarks.gpt import HEADS, POSITIONS, VOCABULARY, WIDTH


def _norm(x):
    return hk.LayerNorm(axis=-1, create_scale=True, create_offset=True)(x)


def _block(x):
    h = _norm(x)
    w_init = hk.initializers.VarianceScaling()
    x = x + hk.MultiHeadAttention(HEADS, WIDTH // HEADS, w_init=w_init)(h, h, h)
    h = hk.Linear(4 * WIDTH)(_norm(x))
    return x + hk.Linear(WIDTH)(jax.nn.gelu(h))


def _gpt(blocks, tokens):
    initializer = hk.initializers.RandomNormal(0.02)
    positions = hk.get_parameter("positions", (POSITIONS, WIDTH), init=initializer)
    x = hk.Embed(VOCABULARY, WIDTH)(tokens) + positions[: tokens.shape[1]]
    for _ in range(blocks):
        x = _block(x)
    return _norm(x)


def methods(blocks):
    init = hk.transform(lambda tokens: _gpt(blocks, tokens)).init
    args = jax.random.key(0), jnp.zeros((1, 8), jnp.int32)
    return {
        "eager": lambda: init(*args),
        "jax.jit": lambda: jax.jit(init)(*args),
        "jaxinit.jit": lambda: jaxinit.jit(init)(*args),
    }
