"""BERT in Flax NNX, trained on masked bytes of the sources of Python's own library.

    python examples/bert.py --picture bert.png
    python -m jaxinit init examples.bert:base

Kernels and tables are N(0, 0.02), cut at two sigmas, by `jaxinit.schemes.bert`.

Devlin et al., "BERT: pre-training of deep bidirectional transformers for language
understanding" (2018); sizes below base: Turc et al., "Well-read students learn better"
(2019).
"""

import functools
import math
import sys
import time
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from examples import running, training
from jaxinit import schemes
from jaxinit.nnx import collections

norm = functools.partial(nnx.LayerNorm, epsilon=1e-12)


class Attention(nnx.Module):
    """Self-attention to both sides; `mask` (batch, length) is true where tokens are."""

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs):
        self.heads = heads
        self.query = nnx.Linear(width, width, rngs=rngs)
        self.key = nnx.Linear(width, width, rngs=rngs)
        self.value = nnx.Linear(width, width, rngs=rngs)
        self.out = nnx.Linear(width, width, rngs=rngs)

    def __call__(self, x, mask):
        by_head = (*x.shape[:-1], self.heads, x.shape[-1] // self.heads)
        query, key, value = (
            layer(x).reshape(by_head) for layer in (self.query, self.key, self.value)
        )
        mixed = jax.nn.dot_product_attention(
            query, key, value, mask=mask[:, None, None, :]
        )
        return self.out(mixed.reshape(x.shape))


class Block(nnx.Module):
    """Attention and a feed-forward, each normalised after it is added."""

    def __init__(self, width: int, heads: int, dropout: float, *, rngs: nnx.Rngs):
        self.attention = Attention(width, heads, rngs=rngs)
        self.norm1 = norm(width, rngs=rngs)
        self.up = nnx.Linear(width, 4 * width, rngs=rngs)
        self.down = nnx.Linear(4 * width, width, rngs=rngs)
        self.norm2 = norm(width, rngs=rngs)
        self.drop = nnx.Dropout(dropout, rngs=rngs)

    def __call__(self, x, mask):
        x = self.norm1(x + self.drop(self.attention(x, mask)))
        hidden = nnx.gelu(self.up(x), approximate=False)
        return self.norm2(x + self.drop(self.down(hidden)))


class Bert(nnx.Module):
    """Token ids (batch, length) to vectors (batch, length, width), and one for a row.

    Args:
        depth: number of blocks.
        width: of the residual stream.
        heads: of each attention.
        vocabulary: number of tokens.
        context: the longest sequence.
        dropout: share of the entries that is dropped in training.
        rngs: of the parameters, and of the dropout.
    """

    def __init__(
        self,
        depth: int = 12,
        width: int = 768,
        heads: int = 12,
        vocabulary: int = 30522,
        context: int = 512,
        dropout: float = 0.1,
        *,
        rngs: nnx.Rngs,
    ):
        self.tokens = nnx.Embed(vocabulary, width, rngs=rngs)
        self.positions = nnx.Embed(context, width, rngs=rngs)
        self.segments = nnx.Embed(2, width, rngs=rngs)
        self.norm = norm(width, rngs=rngs)
        self.drop = nnx.Dropout(dropout, rngs=rngs)
        self.blocks = nnx.List(
            [Block(width, heads, dropout, rngs=rngs) for _ in range(depth)]
        )
        self.pooler = nnx.Linear(width, width, rngs=rngs)

    def __call__(self, tokens, segments, mask):
        places = self.positions(jnp.arange(tokens.shape[1]))
        x = self.tokens(tokens) + places + self.segments(segments)
        x = self.drop(self.norm(x))
        for block in self.blocks:
            x = block(x, mask)
        return x, jnp.tanh(self.pooler(x[:, 0]))


class Pretraining(nnx.Module):
    """BERT with its two heads: logits of every token, and of whether B follows A."""

    def __init__(self, bert: Bert, *, rngs: nnx.Rngs):
        vocabulary, width = bert.tokens.embedding.shape
        self.bert = bert
        self.transform = nnx.Linear(width, width, rngs=rngs)
        self.norm = norm(width, rngs=rngs)
        self.bias = nnx.Param(jnp.zeros(vocabulary))
        self.follows = nnx.Linear(width, 2, rngs=rngs)

    def __call__(self, tokens, segments, mask):
        x, pooled = self.bert(tokens, segments, mask)
        x = self.norm(nnx.gelu(self.transform(x), approximate=False))
        return self.bert.tokens.attend(x) + self.bias[...], self.follows(pooled)


def tiny(rngs: nnx.Rngs) -> Bert:
    """BERT tiny, uncased: 4,385,920 parameters."""
    return Bert(2, 128, 2, rngs=rngs)


def base(rngs: nnx.Rngs) -> Bert:
    """BERT base, uncased, with its pooler: 109,482,240 parameters."""
    return Bert(rngs=rngs)


def large(rngs: nnx.Rngs) -> Bert:
    """BERT large, uncased, with its pooler: 335,141,888 parameters."""
    return Bert(24, 1024, 16, rngs=rngs)


def pretraining(rngs: nnx.Rngs) -> Pretraining:
    """BERT base with the heads of its pre-training: 110,106,428 parameters."""
    return Pretraining(base(rngs), rngs=rngs)


SIZES = {
    "tiny": (tiny, 4_385_920),
    "base": (base, 109_482_240),
    "large": (large, 335_141_888),
    "pretraining": (pretraining, 110_106_428),
}


def counted(name: str) -> str:
    """A line with the number of parameters of a published size, none of them drawn."""
    init, expected = SIZES[name]
    shapes = jax.eval_shape(collections(init), jax.random.key(0))["params"]
    return training.published(f"BERT {name}", shapes, expected)


# Tokens are bytes, and one that hides them. A deviation of 0.02 is for a width of 768.
LENGTH, WIDTH, MASK = 32, 64, 256
SCHEME = schemes.bert(round(0.02 * math.sqrt(768 / WIDTH), 3))


def small(rngs: nnx.Rngs) -> Pretraining:
    """A model of bytes that trains within seconds."""
    bert = Bert(2, WIDTH, 4, MASK + 1, context=LENGTH, dropout=0.0, rngs=rngs)
    return Pretraining(bert, rngs=rngs)


def spans(text: np.ndarray, size: int = 32):
    """Batches of masked text: tokens, which of them are to be told, the originals.

    Of all tokens 15 % are to be told. Of these 80 % are hidden, 10 % are random, and
    10 % are as they were.
    """
    text = jnp.asarray(text, jnp.int32)

    def batches(key):
        starts, chosen, how, other = jax.random.split(key, 4)
        first = jax.random.randint(starts, (size, 1), 0, len(text) - LENGTH)
        original = text[first + jnp.arange(LENGTH)]
        asked = jax.random.bernoulli(chosen, 0.15, original.shape)
        draw = jax.random.uniform(how, original.shape)
        random = jax.random.randint(other, original.shape, 0, MASK)
        shown = jnp.where(draw < 0.8, MASK, jnp.where(draw < 0.9, random, original))
        return jnp.where(asked, shown, original), asked, original

    return batches


def masked_loss(logits, asked, original):
    """The mean loss over those tokens that are to be told."""
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, original)
    return jnp.sum(losses * asked) / jnp.sum(asked)


def main(arguments: Sequence[str] = ()) -> None:
    """Trains, and prints what came out."""
    given = training.options(arguments, __doc__, steps=300, sizes=tuple(SIZES))
    if given.count:
        print(counted(given.count))
        return
    started = time.perf_counter()
    tokens = jax.ShapeDtypeStruct((2, LENGTH), jnp.int32)
    mask = jax.ShapeDtypeStruct((2, LENGTH), jnp.bool)
    model = running.nnx_start(
        small, tokens, tokens, mask, scheme=SCHEME, seed=given.seed
    )
    graph, params, rest = nnx.split(model, nnx.Param, ...)

    def loss(params, batch, key=None):
        shown, asked, original = batch
        model = nnx.merge(graph, params, rest)
        logits, _ = model(shown, jnp.zeros_like(shown), jnp.ones_like(asked))
        return masked_loss(logits, asked, original)

    text = training.text()
    held_out, seen = np.split(text, [len(text) // 10])
    rate = optax.warmup_cosine_decay_schedule(0.0, 3e-3, 50, given.steps)
    trained = training.train(
        loss, params, spans(seen), steps=given.steps, optimizer=optax.adamw(rate)
    )
    final = jax.jit(loss)(trained.params, spans(held_out, 512)(jax.random.key(2)))
    running.table(
        {
            "model": f"2 blocks, width {WIDTH}, on bytes",
            "parameters": f"{training.count(params):,}",
            "scheme": repr(SCHEME),
            "loss at the start": f"{trained.losses[0]:.2f} nats",
            "loss by shares of bytes": f"{running.entropy(held_out):.2f} nats",
            "held-out loss at the end": f"{final:.2f} nats",
            "seconds": f"{time.perf_counter() - started:.0f}",
        }
    )
    if given.picture:
        training.curves(given.picture, {"masked bytes": trained.losses})


if __name__ == "__main__":
    main(sys.argv[1:])
