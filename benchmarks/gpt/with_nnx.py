"""GPT in Flax NNX."""

import jax
from flax import nnx

import jaxinit.nnx
from benchmarks.gpt import HEADS, POSITIONS, VOCABULARY, WIDTH


class Block(nnx.Module):
    def __init__(self, rngs):
        self.norm_1 = nnx.LayerNorm(WIDTH, rngs=rngs)
        self.attention = nnx.MultiHeadAttention(HEADS, WIDTH, decode=False, rngs=rngs)
        self.norm_2 = nnx.LayerNorm(WIDTH, rngs=rngs)
        self.wide = nnx.Linear(WIDTH, 4 * WIDTH, rngs=rngs)
        self.narrow = nnx.Linear(4 * WIDTH, WIDTH, rngs=rngs)

    def __call__(self, x):
        x = x + self.attention(self.norm_1(x))
        return x + self.narrow(nnx.gelu(self.wide(self.norm_2(x))))


class GPT(nnx.Module):
    def __init__(self, blocks, rngs):
        self.embed = nnx.Embed(VOCABULARY, WIDTH, rngs=rngs)
        initializer = nnx.initializers.normal(0.02)
        self.positions = nnx.Param(initializer(rngs.params(), (POSITIONS, WIDTH)))
        self.blocks = nnx.List([Block(rngs) for _ in range(blocks)])
        self.norm = nnx.LayerNorm(WIDTH, rngs=rngs)

    def __call__(self, tokens):
        x = self.embed(tokens) + self.positions[: tokens.shape[1]]
        for block in self.blocks:
            x = block(x)
        return self.norm(x)


def methods(blocks):
    def construct(rngs):
        return GPT(blocks, rngs)

    def from_key(key):
        return construct(nnx.Rngs(key))

    key = jax.random.key(0)
    makers = {
        "eager": lambda: from_key(key),
        "jax.jit": lambda: nnx.jit(from_key)(key),
        "jaxinit.jit": lambda: jaxinit.nnx.create(construct, key),
    }
    return {name: lambda make=make: _arrays(make()) for name, make in makers.items()}


def _arrays(model):
    return nnx.to_pure_dict(nnx.state(model, nnx.Param))
