"""GPT in Equinox."""

import equinox as eqx
import jax

import jaxinit
from benchmarks.gpt import HEADS, POSITIONS, VOCABULARY, WIDTH


class Block(eqx.Module):
    norm_1: eqx.nn.LayerNorm
    attention: eqx.nn.MultiheadAttention
    norm_2: eqx.nn.LayerNorm
    wide: eqx.nn.Linear
    narrow: eqx.nn.Linear

    def __init__(self, key):
        attention, wide, narrow = jax.random.split(key, 3)
        biases = ("query", "key", "value", "output")
        self.norm_1 = eqx.nn.LayerNorm(WIDTH)
        self.attention = eqx.nn.MultiheadAttention(
            HEADS, WIDTH, **{f"use_{b}_bias": True for b in biases}, key=attention
        )
        self.norm_2 = eqx.nn.LayerNorm(WIDTH)
        self.wide = eqx.nn.Linear(WIDTH, 4 * WIDTH, key=wide)
        self.narrow = eqx.nn.Linear(4 * WIDTH, WIDTH, key=narrow)

    def __call__(self, x):
        h = jax.vmap(self.norm_1)(x)
        x = x + self.attention(h, h, h)
        h = jax.vmap(self.wide)(jax.vmap(self.norm_2)(x))
        return x + jax.vmap(self.narrow)(jax.nn.gelu(h))


class GPT(eqx.Module):
    embed: eqx.nn.Embedding
    positions: jax.Array
    blocks: list[Block]
    norm: eqx.nn.LayerNorm

    def __init__(self, blocks, key):
        embed, positions, *keys = jax.random.split(key, blocks + 2)
        self.embed = eqx.nn.Embedding(VOCABULARY, WIDTH, key=embed)
        self.positions = 0.02 * jax.random.normal(positions, (POSITIONS, WIDTH))
        self.blocks = [Block(key) for key in keys]
        self.norm = eqx.nn.LayerNorm(WIDTH)

    def __call__(self, tokens):
        x = jax.vmap(self.embed)(tokens) + self.positions[: tokens.shape[0]]
        for block in self.blocks:
            x = block(x)
        return jax.vmap(self.norm)(x)


def methods(blocks):
    def init(key):
        return eqx.filter(GPT(blocks, key), eqx.is_array)

    key = jax.random.key(0)
    return {
        "eager": lambda: init(key),
        "jax.jit": lambda: jax.jit(init)(key),
        "jaxinit.jit": lambda: jaxinit.jit(init)(key),
    }
