"""GPT in Flax Linen."""

import jax
import jax.numpy as jnp
from flax import linen as nn

import jaxinit
from benchmarks.gpt import HEADS, POSITIONS, VOCABULARY, WIDTH


class Block(nn.Module):
    @nn.compact
    def __call__(self, x):
        h = nn.LayerNorm()(x)
        x = x + nn.MultiHeadDotProductAttention(num_heads=HEADS)(h, h)
        h = nn.Dense(4 * WIDTH)(nn.LayerNorm()(x))
        return x + nn.Dense(WIDTH)(nn.gelu(h))


class GPT(nn.Module):
    blocks: int

    @nn.compact
    def __call__(self, tokens):
        initializer = nn.initializers.normal(0.02)
        positions = self.param("positions", initializer, (POSITIONS, WIDTH))
        x = nn.Embed(VOCABULARY, WIDTH)(tokens) + positions[: tokens.shape[1]]
        for _ in range(self.blocks):
            x = Block()(x)
        return nn.LayerNorm()(x)


def init_and_arguments(blocks):
    """The init function and what it is called on."""
    return GPT(blocks).init, jax.random.key(0), jnp.zeros((1, 8), jnp.int32)


def methods(blocks):
    init, *args = init_and_arguments(blocks)
    return {
        "eager": lambda: init(*args),
        "jax.jit": lambda: jax.jit(init)(*args),
        "jaxinit.jit": lambda: jaxinit.jit(init)(*args),
    }
