"""GPT-2 in Flax NNX: the architecture and initialisation of `gpt2.py`.

    python examples/gpt2_nnx.py
    python -m jaxinit init examples.gpt2_nnx:small

Radford et al., "Language Models are Unsupervised Multitask Learners" (2019).
"""

import functools
import math

import jax
import jax.numpy as jnp
from flax import nnx

from jaxinit import normal, ones, zeros
from jaxinit.nnx import create

STDDEV = 0.02
POSITION_STDDEV = 0.01

linear = functools.partial(nnx.Linear, bias_init=zeros)
layer_norm = functools.partial(
    nnx.LayerNorm, epsilon=1e-5, scale_init=ones, bias_init=zeros
)


class Attention(nnx.Module):
    """Causal self-attention, queries, keys and values in one projection."""

    def __init__(self, width: int, heads: int, stddev: float, *, rngs: nnx.Rngs):
        self.heads = heads
        self.qkv = linear(width, 3 * width, kernel_init=normal(STDDEV), rngs=rngs)
        self.proj = linear(width, width, kernel_init=normal(stddev), rngs=rngs)

    def __call__(self, x):
        batch, length, width = x.shape
        qkv = self.qkv(x).reshape(batch, length, 3, self.heads, width // self.heads)
        query, key, value = jnp.moveaxis(qkv, 2, 0)
        mixed = jax.nn.dot_product_attention(query, key, value, is_causal=True)
        return self.proj(mixed.reshape(x.shape))


class MLP(nnx.Module):
    """Two projections around a tanh-approximated GELU, four times as wide inside."""

    def __init__(self, width: int, stddev: float, *, rngs: nnx.Rngs):
        self.fc = linear(width, 4 * width, kernel_init=normal(STDDEV), rngs=rngs)
        self.proj = linear(4 * width, width, kernel_init=normal(stddev), rngs=rngs)

    def __call__(self, x):
        return self.proj(nnx.gelu(self.fc(x), approximate=True))


class Block(nnx.Module):
    """Attention and MLP, each normalised before and added to the residual stream."""

    def __init__(self, width: int, heads: int, stddev: float, *, rngs: nnx.Rngs):
        self.ln_1 = layer_norm(width, rngs=rngs)
        self.attn = Attention(width, heads, stddev, rngs=rngs)
        self.ln_2 = layer_norm(width, rngs=rngs)
        self.mlp = MLP(width, stddev, rngs=rngs)

    def __call__(self, x):
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


class GPT2(nnx.Module):
    """Token ids (batch, length) to logits (batch, length, vocabulary)."""

    def __init__(
        self,
        depth: int = 12,
        width: int = 768,
        heads: int = 12,
        vocabulary: int = 50257,
        context: int = 1024,
        *,
        rngs: nnx.Rngs,
    ):
        stddev = STDDEV / math.sqrt(2 * depth)
        self.wte = nnx.Embed(
            vocabulary, width, embedding_init=normal(STDDEV), rngs=rngs
        )
        self.wpe = nnx.Embed(
            context, width, embedding_init=normal(POSITION_STDDEV), rngs=rngs
        )
        self.blocks = nnx.List(
            [Block(width, heads, stddev, rngs=rngs) for _ in range(depth)]
        )
        self.ln_f = layer_norm(width, rngs=rngs)

    def __call__(self, tokens):
        x = self.wte(tokens) + self.wpe(jnp.arange(tokens.shape[1]))
        for block in self.blocks:
            x = block(x)
        return self.wte.attend(self.ln_f(x))


def small(rngs: nnx.Rngs) -> GPT2:
    """GPT-2 small: 124,439,808 parameters."""
    return GPT2(depth=12, width=768, heads=12, rngs=rngs)


def medium(rngs: nnx.Rngs) -> GPT2:
    """GPT-2 medium: 354,823,168 parameters."""
    return GPT2(depth=24, width=1024, heads=16, rngs=rngs)


def large(rngs: nnx.Rngs) -> GPT2:
    """GPT-2 large: 774,030,080 parameters."""
    return GPT2(depth=36, width=1280, heads=20, rngs=rngs)


def xl(rngs: nnx.Rngs) -> GPT2:
    """GPT-2 XL: 1,557,611,200 parameters."""
    return GPT2(depth=48, width=1600, heads=25, rngs=rngs)


def main():
    model = create(small, 0)
    count = sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))
    logits = nnx.jit(lambda model, tokens: model(tokens))(model, jnp.arange(8)[None])
    print(f"GPT-2 small: {count:,} parameters, logits {logits.shape}")


if __name__ == "__main__":
    main()
