"""Flax Linen: models as ports of PyTorch's have them, with such names and habits."""

import functools

import jax
import jax.numpy as jnp

from zoo.flax_layers import of_linen
from zoo.truths import (
    ANY,
    Model,
    Use,
    below,
    bias,
    convolution,
    cut,
    dense,
    embedding,
    every,
    floats,
    gate,
    integers,
    kernel,
    model,
    norm,
    one_of,
    position,
)

BATCH, LENGTH, WIDTH, HEADS, SIZE, HIDDEN, VOCABULARY = 2, 6, 12, 3, 4, 20, 19
INNER = HEADS * SIZE


@model
def gpt_j() -> Model:
    """Wang & Komatsuzaki 2021: one norm, parallel branches, rotary by sincos tables."""
    from flax import linen as nn

    rotary, layers = 2, 2

    def rotate_every_two(x):
        pairs = jnp.stack((-x[:, :, :, 1::2], x[:, :, :, ::2]), axis=-1)
        return pairs.reshape(x.shape)

    def turned(x, sincos):
        sin, cos = (jnp.repeat(t, 2, 2) for t in jnp.split(sincos, 2, axis=-1))
        return x * cos[:, :, None] + rotate_every_two(x) * sin[:, :, None]

    class Attention(nn.Module):
        @nn.compact
        def __call__(self, x, ids):
            make = functools.partial(nn.Dense, use_bias=False)
            q, k, v = (
                make(INNER, name=name)(x).reshape(*x.shape[:2], HEADS, SIZE)
                for name in ("q_proj", "k_proj", "v_proj")
            )
            angles = ids[..., None] * 0.1 ** jnp.arange(rotary // 2)
            sincos = jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], -1)
            q, k = (
                jnp.concatenate(
                    [turned(t[..., :rotary], sincos), t[..., rotary:]], axis=-1
                )
                for t in (q, k)
            )
            mask = nn.make_causal_mask(ids, dtype="bool")
            pad = jax.lax.select(
                mask, jnp.zeros(mask.shape), jnp.full(mask.shape, -1e9)
            )
            weights = nn.dot_product_attention_weights(q, k, bias=pad)
            y = jnp.einsum("...hqk,...khd->...qhd", weights, v)
            return make(WIDTH, name="out_proj")(y.reshape(*x.shape[:2], INNER))

    class Block(nn.Module):
        @nn.compact
        def __call__(self, x, ids):
            residual = x
            x = nn.LayerNorm(name="ln_1")(x)
            attended = Attention(name="attn")(x, ids)
            x = nn.Dense(HIDDEN, name="mlp_fc_in")(x)
            x = nn.Dense(WIDTH, name="mlp_fc_out")(nn.gelu(x, approximate=True))
            return attended + x + residual

    class Net(nn.Module):
        @nn.compact
        def __call__(self, tokens):
            ids = jnp.broadcast_to(jnp.arange(LENGTH), tokens.shape)
            x = nn.Embed(VOCABULARY, WIDTH, name="wte")(tokens)
            for i in range(layers):
                x = Block(name=str(i))(x, ids)
            return nn.Dense(VOCABULARY, name="lm_head")(nn.LayerNorm(name="ln_f")(x))

    total = 2 * layers
    block = {
        **norm("ln_1"),
        "attn/q_proj/kernel": kernel(WIDTH, INNER, part="query", multiplier=SIZE**-0.5),
        "attn/k_proj/kernel": kernel(WIDTH, INNER, part="key"),
        "attn/v_proj/kernel": kernel(WIDTH, INNER, part="value"),
        "attn/out_proj/kernel": kernel(
            INNER, WIDTH, part="attention output", residual=(0, total)
        ),
        **dense("mlp_fc_in", WIDTH, HIDDEN, function="gelu"),
        **dense("mlp_fc_out", HIDDEN, WIDTH, residual=(1, total)),
    }
    truth = {
        "wte/embedding": embedding(WIDTH),
        **every("{}/", layers, block),
        **norm("ln_f"),
        **dense("lm_head", WIDTH, VOCABULARY, head=True),
    }
    return of_linen(Net(), [integers(BATCH, LENGTH)], truth)


@model
def masked_language_model() -> Model:
    """RoBERTa: positions count from 2; the head's output is tied, with a bias."""
    from flax import linen as nn

    class Layer(nn.Module):
        @nn.compact
        def __call__(self, x, mask):
            split = functools.partial(nn.DenseGeneral, (HEADS, SIZE))
            q, k, v = (split(name=n)(x) for n in ("query", "key", "value"))
            y = nn.dot_product_attention(q, k, v, mask=mask)
            y = nn.DenseGeneral(WIDTH, axis=(-2, -1), name="dense")(y)
            x = nn.LayerNorm(name="attention_norm")(x + y)
            y = nn.Dense(WIDTH, name="down")(
                nn.gelu(nn.Dense(HIDDEN, name="up")(x), approximate=False)
            )
            return nn.LayerNorm(name="norm")(y + x)

    class Net(nn.Module):
        @nn.compact
        def __call__(self, ids):
            mask = (ids != 1).astype("i4")
            places = jnp.cumsum(mask, axis=1) * mask + 1
            words = nn.Embed(VOCABULARY, WIDTH, name="word_embeddings")
            x = words(ids) + nn.Embed(12, WIDTH, name="position_embeddings")(places)
            x = x + nn.Embed(1, WIDTH, name="token_type")(jnp.zeros_like(ids))
            x = nn.Dropout(0.1, deterministic=True)(nn.LayerNorm(name="norm")(x))
            x = Layer(name="layer")(x, mask[:, None, None, :] > 0)
            x = nn.gelu(nn.Dense(WIDTH, name="lm_dense")(x))
            x = nn.LayerNorm(name="lm_norm")(x)
            b = self.param("bias", nn.initializers.zeros, (VOCABULARY,))
            return words.attend(x) + b

    heads = {"out_axis": (1, 2)}
    layer = {}
    for part in ("query", "key", "value"):
        scaled = SIZE**-0.5 if part == "query" else 1.0
        layer[f"{part}/kernel"] = kernel(
            WIDTH, INNER, part=part, multiplier=scaled, **heads
        )
        layer[f"{part}/bias"] = bias(
            f"{part}/kernel",
            (0, 1),
            part=part,
            multiplier=ANY if part == "query" else 1.0,
        )
    layer |= {
        "dense/kernel": kernel(
            INNER, WIDTH, (0, 1), 2, part="attention output", residual=(0, 2)
        ),
        "dense/bias": bias("dense/kernel", part="attention output"),
        **norm("attention_norm"),
        **dense("up", WIDTH, HIDDEN, function="gelu"),
        **dense("down", HIDDEN, WIDTH, residual=(1, 2)),
        **norm("norm"),
    }
    words = "word_embeddings/embedding"
    truth = {
        words: [embedding(WIDTH), kernel(WIDTH, VOCABULARY, 1, 0, head=True)],
        # Debatable: a position that counts the tokens that are no padding.
        "position_embeddings/embedding": Use(
            one_of("position", "embedding"), 0, 1, fan_in=ANY, fan_out=ANY
        ),
        # Debatable: one row, always the same, which is added.
        "token_type/embedding": Use(
            one_of("embedding", "bias", "position"), ANY, 1, fan_in=ANY, fan_out=ANY
        ),
        **norm("norm"),
        **below("layer/", layer),
        **dense("lm_dense", WIDTH, WIDTH, function="gelu"),
        **norm("lm_norm"),
        "bias": bias(words),
    }
    return of_linen(Net(), [integers(BATCH, LENGTH)], truth)


@model
def speech_recognizer() -> Model:
    """Whisper: two windows, fixed positions, keys without bias, a tied head."""
    from flax import linen as nn

    mels, frames = 8, 10

    class Attention(nn.Module):
        @nn.compact
        def __call__(self, x, memory=None, causal=False):
            memory = x if memory is None else memory

            def heads(name, x, use_bias=True):
                x = nn.Dense(INNER, use_bias=use_bias, name=name)(x)
                return x.reshape(*x.shape[:-1], HEADS, SIZE)

            scale = SIZE**-0.25
            q = heads("query", x).transpose(0, 2, 1, 3) * scale
            k = heads("key", memory, False).transpose(0, 2, 3, 1) * scale
            v = heads("value", memory).transpose(0, 2, 1, 3)
            qk = q @ k
            if causal:
                qk += jnp.triu(jnp.full(qk.shape[-2:], -1e9), 1)
            y = (nn.softmax(qk.astype(jnp.float32)) @ v).transpose(0, 2, 1, 3)
            return nn.Dense(WIDTH, name="out")(y.reshape(*x.shape[:-1], INNER))

    class Block(nn.Module):
        cross: bool = False

        @nn.compact
        def __call__(self, x, memory=None):
            h = nn.LayerNorm(name="attn_ln")(x)
            x = x + Attention(name="attn")(h, causal=self.cross)
            if self.cross:
                h = nn.LayerNorm(name="cross_attn_ln")(x)
                x = x + Attention(name="cross_attn")(h, memory)
            h = nn.Dense(HIDDEN, name="mlp_0")(nn.LayerNorm(name="mlp_ln")(x))
            return x + nn.Dense(WIDTH, name="mlp_2")(nn.gelu(h, approximate=False))

    class Net(nn.Module):
        @nn.compact
        def __call__(self, mel, tokens):
            x = nn.gelu(nn.Conv(WIDTH, (3,), padding=1, name="conv1")(mel))
            x = nn.gelu(nn.Conv(WIDTH, (3,), strides=2, padding=1, name="conv2")(x))
            t = jnp.arange(x.shape[1])[:, None] * 0.5 ** jnp.arange(WIDTH // 2)
            x = x + jnp.concatenate([jnp.sin(t), jnp.cos(t)], axis=1)
            x = nn.LayerNorm(name="ln_post")(Block(name="encoder")(x))
            embed = nn.Embed(VOCABULARY, WIDTH, name="token_embedding")
            places = self.param("positional", nn.initializers.zeros, (9, WIDTH))
            y = embed(tokens) + places[: tokens.shape[1]]
            y = nn.LayerNorm(name="ln")(Block(True, name="decoder")(y, x))
            return (y @ jnp.transpose(embed.embedding)).astype(jnp.float32)

    def attention(path, residual):
        parts = {"query": SIZE**-0.25, "key": SIZE**-0.25, "value": 1.0}
        truth = {}
        for part, factor in parts.items():
            truth[f"{path}/{part}/kernel"] = kernel(
                WIDTH, INNER, part=part, multiplier=factor
            )
            if part != "key":
                truth[f"{path}/{part}/bias"] = bias(
                    f"{path}/{part}/kernel",
                    part=part,
                    multiplier=ANY if part == "query" else 1.0,
                )
        out = {"part": "attention output", "residual": residual}
        return {**truth, **dense(f"{path}/out", INNER, WIDTH, **out)}

    def feed_forward(residual):
        return {
            **norm("mlp_ln"),
            **dense("mlp_0", WIDTH, HIDDEN, function="gelu"),
            **dense("mlp_2", HIDDEN, WIDTH, residual=residual),
        }

    words, first = "token_embedding/embedding", {"spatial_axis": 0, "in_axis": 1}
    first |= {"out_axis": 2, "function": "gelu"}
    truth = {
        "conv1/kernel": convolution(3 * mels, 3 * WIDTH, **first),
        "conv1/bias": bias("conv1/kernel"),
        "conv2/kernel": convolution(3 * WIDTH, 3 * WIDTH, **first),
        "conv2/bias": bias("conv2/kernel"),
        **below(
            "encoder/",
            norm("attn_ln") | attention("attn", (0, 2)) | feed_forward((1, 2)),
        ),
        **norm("ln_post"),
        words: [embedding(WIDTH), kernel(WIDTH, VOCABULARY, 1, 0, head=True)],
        "positional": position(),
        **below(
            "decoder/",
            norm("attn_ln")
            | attention("attn", (0, 3))
            | norm("cross_attn_ln")
            | attention("cross_attn", (1, 3))
            | feed_forward((2, 3)),
        ),
        **norm("ln"),
    }
    inputs = [floats(BATCH, frames, mels), integers(BATCH, LENGTH)]
    return of_linen(Net(), inputs, truth)


@model
def image_beit() -> Model:
    """Bao et al. 2021 (BEiT): no bias of keys, a relative table, LayerScale, a mean."""
    from flax import linen as nn

    grid = 2
    places = grid * grid

    def index():
        y, x = jnp.divmod(jnp.arange(places), grid)
        rows = y[:, None] - y[None] + grid - 1
        return (rows * (2 * grid - 1) + x[:, None] - x[None] + grid - 1).ravel()

    class Attention(nn.Module):
        @nn.compact
        def __call__(self, x):
            q_bias = self.param("q_bias", nn.initializers.zeros, (INNER,))
            v_bias = self.param("v_bias", nn.initializers.zeros, (INNER,))
            qkv = nn.Dense(3 * INNER, use_bias=False, name="qkv")(x)
            qkv = qkv + jnp.concatenate([q_bias, jnp.zeros_like(v_bias), v_bias])
            qkv = qkv.reshape(BATCH, places, 3, HEADS, SIZE)
            q, k, v = qkv.transpose(2, 0, 3, 1, 4)
            rows = (2 * grid - 1) ** 2
            table = self.param("table", nn.initializers.zeros, (rows, HEADS))
            relative = table[index()].reshape(places, places, HEADS)
            scores = (q * SIZE**-0.5) @ k.swapaxes(-2, -1)
            weights = nn.softmax(scores + relative.transpose(2, 0, 1)[None])
            y = (weights @ v).swapaxes(1, 2).reshape(BATCH, places, INNER)
            return nn.Dense(WIDTH, name="proj")(y)

    class Net(nn.Module):
        @nn.compact
        def __call__(self, image):
            x = nn.Conv(WIDTH, (4, 4), (4, 4), "VALID", name="patch_embed")(image)
            x = x.reshape(BATCH, -1, WIDTH)
            scales = [
                self.param(f"gamma_{i}", nn.initializers.constant(0.1), (WIDTH,))
                for i in (1, 2)
            ]
            h = Attention(name="attn")(nn.LayerNorm(name="norm1")(x))
            x = x + scales[0] * h
            h = nn.Dense(HIDDEN, name="fc1")(nn.LayerNorm(name="norm2")(x))
            x = x + scales[1] * nn.Dense(WIDTH, name="fc2")(nn.gelu(h))
            x = nn.LayerNorm(name="fc_norm")(x.mean(1))
            return nn.Dense(7, name="head")(x)

    sections = cut(1, INNER, ("query", "key", "value"))
    truth = {
        "patch_embed/kernel": convolution(16 * 3, 16 * WIDTH),
        "patch_embed/bias": bias("patch_embed/kernel"),
        "gamma_1": gate(0),
        "gamma_2": gate(0),
        **norm("norm1"),
        # Debatable: queries' factor, where the kernel is cut.
        "attn/qkv/kernel": kernel(WIDTH, 3 * INNER, sections=sections, multiplier=ANY),
        "attn/q_bias": bias("attn/qkv/kernel", part="query", multiplier=ANY),
        "attn/v_bias": bias("attn/qkv/kernel", part="value"),
        "attn/table": position(),
        **dense("attn/proj", INNER, WIDTH, residual=(0, 2), part="attention output"),
        **norm("norm2"),
        **dense("fc1", WIDTH, HIDDEN, function="gelu"),
        **dense("fc2", HIDDEN, WIDTH, residual=(1, 2)),
        **norm("fc_norm"),
        **dense("head", WIDTH, 7, head=True),
    }
    return of_linen(Net(), [floats(BATCH, 8, 8, 3)], truth)
