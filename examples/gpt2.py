"""GPT-2 in Flax Linen, with its own initialisation, in the four published sizes.

    python examples/gpt2.py --picture gpt2.png
    python -m jaxinit init examples.gpt2:small

Every weight matrix and the token embedding are N(0, 0.02); biases are zero and
LayerNorms start as the identity. The position table is N(0, 0.01), as in OpenAI's
released code (the paper does not say; later copies use 0.02). The two projections of a
block that end on the residual stream are N(0, 0.02 / sqrt(2 L)) for L blocks, as the
paper asks ("we scale the weights of residual layers at initialization by a factor of
1/sqrt(N), where N is the number of residual layers"); the released code leaves it out.

A small one is then started by `jaxinit.schemes.gpt2`, which are the same rules, and
trained on the bytes of the sources of Python's own library.

Radford et al., "Language Models are Unsupervised Multitask Learners" (2019).
"""

import math
import sys
import time
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn

import jaxinit
from examples import running, training
from jaxinit import normal, ones, schemes, zeros

STDDEV = 0.02
POSITION_STDDEV = 0.01


def dense(features: int, name: str, stddev: float = STDDEV) -> nn.Dense:
    return nn.Dense(features, kernel_init=normal(stddev), bias_init=zeros, name=name)


def layer_norm(name: str) -> nn.LayerNorm:
    return nn.LayerNorm(epsilon=1e-5, scale_init=ones, bias_init=zeros, name=name)


class Attention(nn.Module):
    """Causal self-attention, queries, keys and values in one projection."""

    heads: int
    residual_stddev: float

    @nn.compact
    def __call__(self, x):
        batch, length, width = x.shape
        qkv = dense(3 * width, "qkv")(x)
        qkv = qkv.reshape(batch, length, 3, self.heads, width // self.heads)
        query, key, value = jnp.moveaxis(qkv, 2, 0)
        mixed = jax.nn.dot_product_attention(query, key, value, is_causal=True)
        return dense(width, "proj", self.residual_stddev)(mixed.reshape(x.shape))


class MLP(nn.Module):
    """Two projections around a tanh-approximated GELU, four times as wide inside."""

    residual_stddev: float

    @nn.compact
    def __call__(self, x):
        hidden = nn.gelu(dense(4 * x.shape[-1], "fc")(x), approximate=True)
        return dense(x.shape[-1], "proj", self.residual_stddev)(hidden)


class Block(nn.Module):
    """Attention and MLP, each normalised before and added to the residual stream."""

    heads: int
    residual_stddev: float

    @nn.compact
    def __call__(self, x):
        x = x + Attention(self.heads, self.residual_stddev, name="attn")(
            layer_norm("ln_1")(x)
        )
        return x + MLP(self.residual_stddev, name="mlp")(layer_norm("ln_2")(x))


class GPT2(nn.Module):
    """Token ids (batch, length) to logits (batch, length, vocabulary)."""

    depth: int = 12
    width: int = 768
    heads: int = 12
    vocabulary: int = 50257
    context: int = 1024

    @nn.compact
    def __call__(self, tokens):
        embed = nn.Embed(
            self.vocabulary, self.width, embedding_init=normal(STDDEV), name="wte"
        )
        positions = nn.Embed(
            self.context,
            self.width,
            embedding_init=normal(POSITION_STDDEV),
            name="wpe",
        )
        x = embed(tokens) + positions(jnp.arange(tokens.shape[1]))
        residual_stddev = STDDEV / math.sqrt(2 * self.depth)
        for i in range(self.depth):
            x = Block(self.heads, residual_stddev, name=f"blocks_{i}")(x)
        return embed.attend(layer_norm("ln_f")(x))


SMALL = GPT2(depth=12, width=768, heads=12)
MEDIUM = GPT2(depth=24, width=1024, heads=16)
LARGE = GPT2(depth=36, width=1280, heads=20)
XL = GPT2(depth=48, width=1600, heads=25)


def init(model: GPT2, key: jax.Array):
    """The parameters of `model`, drawn from `key`."""
    return model.init(key, jnp.zeros((1, 8), jnp.int32))["params"]


def small(key):
    """Parameters of GPT-2 small: 124,439,808."""
    return init(SMALL, key)


def medium(key):
    """Parameters of GPT-2 medium: 354,823,168."""
    return init(MEDIUM, key)


def large(key):
    """Parameters of GPT-2 large: 774,030,080."""
    return init(LARGE, key)


def xl(key):
    """Parameters of GPT-2 XL: 1,557,611,200."""
    return init(XL, key)


TEXT = GPT2(depth=2, width=64, heads=4, vocabulary=256, context=64)


def spans(text: np.ndarray, size: int = 32):
    """Batches of text, each row one byte longer than the context."""
    text = jnp.asarray(text, jnp.int32)

    def batches(key):
        first = jax.random.randint(key, (size, 1), 0, len(text) - TEXT.context - 1)
        return text[first + jnp.arange(TEXT.context + 1)]

    return batches


def loss(params, batch, key=None):
    logits = TEXT.apply({"params": params}, batch[:, :-1])
    return training.cross_entropy(logits, batch[:, 1:])


def learn(arguments: Sequence[str] = ()) -> None:
    """Trains a small one on text, and prints what came out."""
    given = training.options(arguments, __doc__, steps=300)
    began = time.perf_counter()
    scheme, tokens = schemes.gpt2(), jax.ShapeDtypeStruct((2, 64), jnp.int32)
    start = running.linen_start(TEXT, tokens, scheme=scheme, seed=given.seed)["params"]
    held_out, seen = np.split(text := training.text(), [len(text) // 10])
    rate = optax.warmup_cosine_decay_schedule(0.0, 5e-3, 20, given.steps)
    optimizer, batches = optax.adamw(rate), spans(seen)
    trained = training.train(
        loss, start, batches, steps=given.steps, optimizer=optimizer
    )
    final = jax.jit(loss)(trained.params, spans(held_out, 256)(jax.random.key(2)))
    running.table(
        {
            "model": f"{TEXT.depth} blocks, width {TEXT.width}, on bytes",
            "parameters": f"{training.count(start):,}",
            "scheme": scheme.name,
            "loss at the start": f"{trained.losses[0]:.2f} nats",
            "loss of a guess": f"{math.log(TEXT.vocabulary):.2f} nats",
            "loss by shares of bytes": f"{running.entropy(held_out):.2f} nats",
            "held-out loss at the end": f"{final:.2f} nats",
            "seconds": f"{time.perf_counter() - began:.0f}",
        }
    )
    if given.picture:
        training.curves(given.picture, {"next byte": trained.losses})


def main():
    params = jaxinit.jit(small)(jax.random.key(0))
    count = sum(leaf.size for leaf in jax.tree.leaves(params))
    logits = jax.jit(SMALL.apply)({"params": params}, jnp.arange(8)[None])
    loss = -jnp.mean(
        jax.nn.log_softmax(logits)[0, :-1][jnp.arange(7), jnp.arange(1, 8)]
    )
    print(f"GPT-2 small: {count:,} parameters, logits {logits.shape}")
    print(f"loss {loss:.2f}; a uniform guess costs {math.log(SMALL.vocabulary):.2f}")


if __name__ == "__main__":
    main()
    learn(sys.argv[1:])
