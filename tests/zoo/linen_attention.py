"""Flax Linen: encoders and decoders."""

import jax.numpy as jnp

from zoo.flax_layers import attention, of_linen, window
from zoo.truths import (
    ANY,
    Model,
    dense,
    embedding,
    every,
    floats,
    integers,
    kernel,
    model,
    norm,
    position,
    token,
)

BATCH, WIDTH, HEADS, SIZE, HIDDEN, OUTPUTS = 2, 12, 3, 4, 20, 5
LAYERS = 2


def feed_forward_truth(first, second, residual):
    return {
        **dense(first, WIDTH, HIDDEN, function="gelu"),
        **dense(second, HIDDEN, WIDTH, residual=residual),
    }


@model
def vision_transformer() -> Model:
    """A class token before the patches, positions for both, pre-norm blocks."""
    from flax import linen as nn

    class Block(nn.Module):
        @nn.compact
        def __call__(self, x):
            h = nn.LayerNorm()(x)
            x = nn.MultiHeadDotProductAttention(HEADS)(h, h) + x
            h = nn.gelu(nn.Dense(HIDDEN)(nn.LayerNorm()(x)))
            return nn.Dense(WIDTH)(h) + x

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.Conv(WIDTH, (2, 3), (2, 3), padding="VALID", name="patches")(x)
            x = x.reshape(x.shape[0], -1, WIDTH)
            cls = self.param("cls", nn.initializers.zeros, (1, 1, WIDTH))
            x = jnp.concatenate([jnp.tile(cls, (x.shape[0], 1, 1)), x], axis=1)
            noise = nn.initializers.normal(0.02)
            x = x + self.param("pos_embedding", noise, (1, x.shape[1], WIDTH))
            for i in range(LAYERS):
                x = Block(name=f"block_{i}")(x)
            return nn.Dense(OUTPUTS, name="head")(nn.LayerNorm(name="norm")(x)[:, 0])

    block = {
        **norm("LayerNorm_0"),
        **attention(
            "MultiHeadDotProductAttention_0", WIDTH, HEADS, SIZE, (0, 4), scaled=True
        ),
        **norm("LayerNorm_1"),
        **feed_forward_truth("Dense_0", "Dense_1", (1, 4)),
    }
    truth = {
        **window("patches", 3 * 6, WIDTH * 6),
        # A single token has no axis that varies but its features.
        "cls": token(WIDTH, ANY, 2),
        "pos_embedding": position(1, 2),
        **every("block_{}/", LAYERS, block),
        **norm("norm"),
        **dense("head", WIDTH, OUTPUTS, head=True),
    }
    return of_linen(Net(), [floats(BATCH, 4, 9, 3)], truth)


@model
def map_head() -> Model:
    """SigLIP's pooling: a learned probe attends to the patches, then an MLP.

    No layer of what is named a head is the model's last.
    """
    from flax import linen as nn

    class MAPHead(nn.Module):
        @nn.compact
        def __call__(self, x):
            noise = nn.initializers.xavier_uniform()
            probe = self.param("probe", noise, (1, 1, WIDTH))
            probe = jnp.tile(probe, [x.shape[0], 1, 1])
            x = nn.MultiHeadDotProductAttention(HEADS)(probe, x)
            y = nn.LayerNorm()(x)
            x = x + nn.Dense(WIDTH)(nn.gelu(nn.Dense(HIDDEN)(y)))
            return x[:, 0]

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.tanh(nn.Dense(WIDTH, name="embedding")(x))
            x = MAPHead()(x)
            return nn.Dense(OUTPUTS, name="query")(x)

    truth = {
        **dense("embedding", 7, WIDTH, function="tanh"),
        # Debatable: nothing lies between the probe and the queries' kernel.
        "MAPHead_0/probe": token(WIDTH, ANY, 2),
        # What the probe gathers begins the stream.
        **attention(
            "MAPHead_0/MultiHeadDotProductAttention_0",
            WIDTH,
            HEADS,
            SIZE,
            residual=None,
            scaled=True,
        ),
        **norm("MAPHead_0/LayerNorm_0"),
        # The outer layer is made before the inner one, and so is the first by name.
        **feed_forward_truth("MAPHead_0/Dense_1", "MAPHead_0/Dense_0", (0, 1)),
        **dense("query", WIDTH, OUTPUTS, head=True),
    }
    return of_linen(Net(), [floats(BATCH, 6, 7)], truth)


@model
def translator() -> Model:
    """Vaswani et al. 2017: norms after the sums, masks, cross attention.

    One embedding for sources, targets and the output; sines for positions.
    """
    from flax import linen as nn

    def attend(*args, **kwargs):
        return nn.MultiHeadDotProductAttention(HEADS, name=kwargs.pop("name"))(
            *args, **kwargs
        )

    class Encoder(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.LayerNorm(name="ln_1")(x + attend(x, x, name="self"))
            h = nn.Dense(WIDTH, name="out")(nn.relu(nn.Dense(HIDDEN, name="in")(x)))
            return nn.LayerNorm(name="ln_2")(x + h)

    class Decoder(nn.Module):
        @nn.compact
        def __call__(self, x, memory, mask):
            x = nn.LayerNorm(name="ln_1")(x + attend(x, x, name="self", mask=mask))
            x = nn.LayerNorm(name="ln_2")(x + attend(x, memory, name="cross"))
            h = nn.Dense(WIDTH, name="out")(nn.relu(nn.Dense(HIDDEN, name="in")(x)))
            return nn.LayerNorm(name="ln_3")(x + h)

    class Net(nn.Module):
        @nn.compact
        def __call__(self, sources, targets):
            embed = nn.Embed(17, WIDTH, name="embed")
            memory = embed(sources) * WIDTH**0.5 + sines(sources.shape[1])
            for i in range(LAYERS):
                memory = Encoder(name=f"encoder_{i}")(memory)
            x = embed(targets) * WIDTH**0.5 + sines(targets.shape[1])
            for i in range(LAYERS):
                mask = nn.make_causal_mask(targets)
                x = Decoder(name=f"decoder_{i}")(x, memory, mask)
            return embed.attend(x)

    def sines(length):
        rates = 1 / 10000 ** (jnp.arange(0, WIDTH, 2) / WIDTH)
        angles = jnp.arange(length)[:, None] * rates
        return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)

    def wide(residual):
        return {
            **dense("in", WIDTH, HIDDEN, function="relu"),
            **dense("out", HIDDEN, WIDTH, residual=residual),
        }

    encoder = {
        **attention("self", WIDTH, HEADS, SIZE, (0, 4), scaled=True),
        **norm("ln_1"),
        **wide((1, 4)),
        **norm("ln_2"),
    }
    decoder = {
        **attention("self", WIDTH, HEADS, SIZE, (0, 6), scaled=True),
        **norm("ln_1"),
        **attention("cross", WIDTH, HEADS, SIZE, (1, 6), scaled=True),
        **norm("ln_2"),
        **wide((2, 6)),
        **norm("ln_3"),
    }
    scaled = embedding(WIDTH, multiplier=WIDTH**0.5)
    truth = {
        "embed/embedding": [scaled, scaled, kernel(WIDTH, 17, 1, 0, head=True)],
        **every("encoder_{}/", LAYERS, encoder),
        **every("decoder_{}/", LAYERS, decoder),
    }
    return of_linen(Net(), [integers(BATCH, 6), integers(BATCH, 4)], truth)
