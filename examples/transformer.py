"""The Transformer, encoder and decoder, in Flax Linen, trained to reverse sequences.

    python examples/transformer.py --picture transformer.png
    python -m jaxinit init examples.transformer:base

Norms come after the sums, projections of attention have no biases, and one table, times
the root of its width, embeds both sides and makes the logits. Kernels are Glorot
uniform, narrower by the root of their number where they write to a stream; the table is
N(0, 1 / width), so that embeddings have variance one and logits, too.

Vaswani et al., "Attention is all you need" (2017).
"""

import functools
import math
import sys
import time
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

import jaxinit
import jaxinit.linen
from examples import running, training
from jaxinit import schemes


def dense(features: int, name: str) -> nn.Dense:
    return nn.Dense(features, use_bias=False, name=name)


class Attention(nn.Module):
    """Attention of `x` to `memory`, which is (batch, length, width) too."""

    heads: int
    causal: bool = False

    @nn.compact
    def __call__(self, x, memory):
        width = x.shape[-1]
        query, key, value = (
            self.by_head(dense(width, name)(y))
            for name, y in (("query", x), ("key", memory), ("value", memory))
        )
        mixed = jax.nn.dot_product_attention(query, key, value, is_causal=self.causal)
        return dense(width, "out")(mixed.reshape(x.shape))

    def by_head(self, x):
        return x.reshape(*x.shape[:-1], self.heads, -1)


class FeedForward(nn.Module):
    """Two dense layers around a rectifier."""

    hidden: int

    @nn.compact
    def __call__(self, x):
        hidden = nn.relu(nn.Dense(self.hidden, name="up")(x))
        return nn.Dense(x.shape[-1], name="down")(hidden)


class Layer(nn.Module):
    """Self-attention, attention to `memory` in a decoder, feed-forward."""

    heads: int
    hidden: int
    dropout: float
    causal: bool = False

    @nn.compact
    def __call__(self, x, memory=None, train: bool = False):
        drop = nn.Dropout(self.dropout, deterministic=not train)

        def added(x, y, name):
            return nn.LayerNorm(epsilon=1e-6, name=name)(x + drop(y))

        attention = Attention(self.heads, self.causal, name="self_attention")
        x = added(x, attention(x, x), "norm1")
        if memory is not None:
            y = Attention(self.heads, name="cross_attention")(x, memory)
            x = added(x, y, "norm2")
        return added(x, FeedForward(self.hidden, name="mlp")(x), "norm3")


class Transformer(nn.Module):
    """Token ids (batch, length) of two languages to logits (batch, length, vocabulary).

    The logits at a position are for the target token there, given those before it: the
    target is shifted by one, and a zero put first.
    """

    layers: int = 6
    width: int = 512
    hidden: int = 2048
    heads: int = 8
    vocabulary: int = 37000
    dropout: float = 0.1

    @nn.compact
    def __call__(self, source, target, train: bool = False):
        table = nn.Embed(self.vocabulary, self.width, name="embedding")
        drop = nn.Dropout(self.dropout, deterministic=not train)
        layer = functools.partial(Layer, self.heads, self.hidden, self.dropout)
        target = jnp.pad(target, ((0, 0), (1, 0)))[:, :-1]

        x = drop(self.embedded(table, source))
        for i in range(self.layers):
            x = layer(name=f"encoder_{i}")(x, None, train)
        y = drop(self.embedded(table, target))
        for i in range(self.layers):
            y = layer(causal=True, name=f"decoder_{i}")(y, x, train)
        return table.attend(y)

    def embedded(self, table, tokens):
        shape = (tokens.shape[1], self.width)
        positions = jaxinit.sinusoidal()(jax.random.key(0), shape)
        return math.sqrt(self.width) * table(tokens) + positions


BASE = Transformer()
BIG = Transformer(width=1024, hidden=4096, heads=16, dropout=0.3)
SMALL = Transformer(2, 64, 256, 4, vocabulary=16, dropout=0.0)
LENGTH = 10
TOKENS = jax.ShapeDtypeStruct((2, LENGTH), jnp.int32)


def scheme(model: Transformer) -> jaxinit.Rules:
    """Glorot, and a table whose rows have length one."""
    return schemes.language(embedding=jaxinit.normal(model.width**-0.5))


def init(model: Transformer, key: jax.Array):
    """The parameters of `model`, drawn from `key`."""
    rules = scheme(model)
    return jaxinit.linen.init(model, key, TOKENS, TOKENS, scheme=rules)["params"]


def base(key):
    """Parameters of the base model: 63,045,632; the paper says 65 million."""
    return init(BASE, key)


def big(key):
    """Parameters of the big model: 214,171,648; the paper says 213 million."""
    return init(BIG, key)


SIZES = {"base": base, "big": big}


def counted(name: str) -> str:
    """A line with the number of parameters of a published size, none of them drawn."""
    shapes = jax.eval_shape(SIZES[name], jax.random.key(0))
    return f"Transformer {name}: {training.count(shapes):,} parameters"


def reversals(key, size: int = 64):
    """Random sequences of the tokens 1 to 15, and the same backwards."""
    source = jax.random.randint(key, (size, LENGTH), 1, SMALL.vocabulary)
    return source, source[:, ::-1]


def loss(params, batch, key):
    logits = SMALL.apply({"params": params}, *batch, True, rngs={"dropout": key})
    return training.cross_entropy(logits, batch[1])


@jax.jit
def translate(params, source):
    """The likeliest token at each position, each after those before it."""

    def step(i, target):
        logits = SMALL.apply({"params": params}, source, target)
        return target.at[:, i].set(jnp.argmax(logits[:, i], -1))

    return jax.lax.fori_loop(0, LENGTH, step, jnp.zeros_like(source))


def main(arguments: Sequence[str] = ()) -> None:
    """Trains, and prints what came out."""
    given = training.options(arguments, __doc__, steps=400, sizes=tuple(SIZES))
    if given.count:
        print(counted(given.count))
        return
    started = time.perf_counter()
    variables = running.linen_start(
        SMALL, TOKENS, TOKENS, scheme=scheme(SMALL), seed=given.seed
    )
    rate = optax.warmup_cosine_decay_schedule(0.0, 3e-3, 50, given.steps)
    trained = training.train(
        loss,
        variables["params"],
        reversals,
        steps=given.steps,
        optimizer=optax.adamw(rate),
    )
    source, target = reversals(jax.random.key(2), 256)
    right = translate(trained.params, source) == target
    running.table(
        {
            "model": f"{SMALL.layers} + {SMALL.layers} layers, width {SMALL.width}",
            "parameters": f"{training.count(trained.params):,}",
            "scheme": scheme(SMALL).name,
            "loss at the start": f"{trained.losses[0]:.2f} nats",
            "loss of a guess": f"{math.log(SMALL.vocabulary - 1):.2f} nats",
            "loss at the end": f"{trained.losses[-20:].mean():.4f} nats",
            "held-out tokens right": f"{right.mean():.1%}",
            "held-out sequences right": f"{right.all(-1).mean():.1%}",
            "seconds": f"{time.perf_counter() - started:.0f}",
        }
    )
    if given.picture:
        training.curves(given.picture, {"reversing": trained.losses})


if __name__ == "__main__":
    main(sys.argv[1:])
