"""Texts: states on a sphere, tied heads, constants, words as features, images."""

import jax
import jax.numpy as jnp

from zoo.flax_layers import attention, of_linen
from zoo.layers import causal, rotary
from zoo.truths import (
    ANY,
    Model,
    Use,
    below,
    bias,
    cut,
    dense,
    either,
    embedding,
    every,
    floats,
    integers,
    kernel,
    model,
    norm,
    one_of,
    scale,
    stacked,
)

B, T, D, F, HEADS, SIZE, V = 2, 6, 12, 15, 3, 4, 19
INNER = HEADS * SIZE
ORDER = ("query", "key", "value")


@model
def on_a_sphere() -> Model:
    """Loshchilov et al. 2024 (nGPT), plain: states of length one step by leaves."""
    layers = 2

    def unit(x):
        return x / jnp.linalg.norm(x, axis=-1, keepdims=True)

    def apply(p, ids):
        x = p["wte"][ids]
        for q_ in p["h"]:
            q, k, v = (
                (x @ q_[name].T).reshape(B, T, HEADS, SIZE) for name in ("q", "k", "v")
            )
            s = q_["sqk"].reshape(1, 1, HEADS, SIZE) * (1.0 / D**-0.5)
            q, k = s * unit(rotary(q)), s * unit(rotary(k))
            a = causal(jnp.einsum("bqhd,bkhd->bhqk", q, k) * SIZE**0.5)
            y = jnp.einsum("bhqk,bkhd->bqhd", a, v).reshape(B, T, INNER) @ q_["o"].T
            lr = jnp.abs(q_["attn_alpha"] * (0.05 / D**-0.5))
            x = unit(x + lr * (unit(y) - x))
            uv = q_["suv"] * D**0.5 * (x @ q_["fc"].T)
            u, v = jnp.split(uv, 2, axis=-1)
            y = (u * jax.nn.silu(v)) @ q_["proj"].T
            lr = jnp.abs(q_["mlp_alpha"] * (0.05 / D**-0.5))
            x = unit(x + lr * (unit(y) - x))
        return (x @ p["lm_head"].T) * (p["sz"] / D**-0.5)

    one = {
        **{name: floats(INNER, D) for name in ("q", "k", "v")}, "o": floats(D, INNER),
        "sqk": floats(INNER), "attn_alpha": floats(D), "fc": floats(2 * F, D),
        "suv": floats(2 * F), "proj": floats(D, F), "mlp_alpha": floats(D),
    }  # fmt: skip
    params = {"wte": floats(V, D), "h": [one] * layers}
    params |= {"lm_head": floats(V, D), "sz": floats(V)}
    # Debatable: it weighs a branch less the stream, by its absolute value.
    step = Use(one_of("gate", "scale", "unknown"), ANY, ANY, multiplier=ANY, part=ANY)
    # Debatable: a step from one point of a sphere to another is a residual stream.
    block = {
        "q": kernel(D, INNER, 1, 0, part="query"),
        "k": kernel(D, INNER, 1, 0, part="key"),
        "v": kernel(D, INNER, 1, 0, part="value"),
        "o": kernel(INNER, D, 1, 0, part="attention output", residual=ANY),
        "sqk": [scale(multiplier=ANY)] * 2,
        "attn_alpha": step,
        # Debatable: numbers stand between a kernel and its function.
        "fc": kernel(D, 2 * F, 1, 0, ANY, part=ANY, sections=ANY, multiplier=ANY),
        "suv": scale(multiplier=ANY, part=ANY, sections=ANY),
        "proj": kernel(F, D, 1, 0, residual=ANY),
        "mlp_alpha": step,
    }
    truth = {
        "wte": embedding(D),
        **{f"h/{i}/{path}": use for i in range(layers) for path, use in block.items()},
        "lm_head": kernel(D, V, 1, 0, head=True, multiplier=ANY),
        "sz": scale(multiplier=ANY),
    }
    return Model(apply, params, (integers(B, T),), truth)


@model
def modern_bert() -> Model:
    """Warner et al. 2024 (ModernBERT), Linen: a GeGLU, windows, a tied head, masks."""
    from flax import linen as nn

    layers = 2

    class Layer(nn.Module):
        index: int

        @nn.compact
        def __call__(self, x, mask):
            def bare(size, name):
                return nn.Dense(size, use_bias=False, name=name)

            def normed(name):
                return nn.LayerNorm(use_bias=False, name=name)

            h = normed("attn_norm")(x) if self.index else x
            qkv = bare(3 * INNER, "Wqkv")(h).reshape(B, T, 3, HEADS, SIZE)
            q, k, v = qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2]
            if self.index % 2:
                near = jnp.abs(jnp.arange(T)[:, None] - jnp.arange(T)) <= 2
                mask = mask & near
            y = nn.dot_product_attention(rotary(q), rotary(k), v, mask=mask)
            x = x + bare(D, "Wo")(y.reshape(B, T, INNER))
            h = bare(2 * F, "Wi")(normed("mlp_norm")(x))
            h, g = jnp.split(h, 2, axis=-1)
            return x + bare(D, "Wo_mlp")(nn.gelu(h) * g)

    class Net(nn.Module):
        @nn.compact
        def __call__(self, ids):
            table = nn.Embed(V, D, name="tok")
            x = nn.LayerNorm(use_bias=False, name="norm")(table(ids))
            mask = (ids != 0)[:, None, None, :]
            for i in range(layers):
                x = Layer(i, name=f"layer_{i}")(x, mask)
            x = nn.LayerNorm(use_bias=False, name="final_norm")(x)
            h = nn.gelu(nn.Dense(D, use_bias=False, name="head")(x))
            h = nn.LayerNorm(use_bias=False, name="head_norm")(h)
            zeros = nn.initializers.zeros
            return table.attend(h) + self.param("decoder_bias", zeros, (V,))

    halves = [(1, ((0, F),), "gate", "gelu"), (1, ((F, 2 * F),), "up", "identity")]
    thirds = cut(1, INNER, ORDER)
    block = {
        # nn.dot_product_attention divides the queries.
        "Wqkv/kernel": kernel(D, 3 * INNER, sections=thirds, multiplier=ANY),
        "Wo/kernel": kernel(
            INNER, D, part="attention output", residual=(0, 2 * layers)
        ),
        "mlp_norm/scale": scale(),
        "Wi/kernel": kernel(D, 2 * F, function=ANY, sections=halves),
        "Wo_mlp/kernel": kernel(F, D, residual=(1, 2 * layers)),
    }  # fmt: skip
    truth = {
        "tok/embedding": [embedding(D), kernel(D, V, 1, 0, head=True)],
        "norm/scale": scale(),
        **every("layer_{}/", layers, block),
        "layer_1/attn_norm/scale": scale(),
        "final_norm/scale": scale(),
        "head/kernel": kernel(D, D, function="gelu"),
        "head_norm/scale": scale(),
        "decoder_bias": bias("tok/embedding"),
    }
    return of_linen(Net(), [integers(B, T)], truth)


@model
def scaled_by_numbers() -> Model:
    """IBM 2024 (Granite 3), Linen: four constants; nn.scan over rematerialized blocks.

    The output has the embedding's table, divided by 8.
    """
    from flax import linen as nn

    layers = 3

    class Block(nn.Module):
        @nn.compact
        def __call__(self, x, _):
            def bare(size, name, axis=-1):
                return nn.DenseGeneral(size, axis=axis, use_bias=False, name=name)

            h = nn.RMSNorm(name="n1")(x)
            q = rotary(bare((HEADS, SIZE), "q")(h))
            k, v = rotary(bare((1, SIZE), "k")(h)), bare((1, SIZE), "v")(h)
            a = causal(jnp.einsum("bqhd,bkgd->bhqk", q, k) * 0.0625)
            y = jnp.einsum("bhqk,bkgd->bqhd", a, v)
            x = x + bare(D, "o", (-2, -1))(y) * 0.22
            h = nn.RMSNorm(name="n2")(x)
            h = nn.silu(bare(F, "gate")(h)) * bare(F, "up")(h)
            return x + bare(D, "down")(h) * 0.22, None

    class Net(nn.Module):
        @nn.compact
        def __call__(self, ids):
            table = nn.Embed(V, D, name="embed")
            x = table(ids) * 12.0
            many = nn.scan(
                nn.remat(Block, prevent_cse=False),
                variable_axes={"params": 0},
                split_rngs={"params": True},
                length=layers,
            )
            x, _ = many(name="layers")(x, None)
            return table.attend(nn.RMSNorm(name="norm")(x)) / 8.0

    small = {"multiplier": 0.22}
    block = {
        "n1/scale": scale(),
        "q/kernel": kernel(D, INNER, 0, (1, 2), part="query", multiplier=ANY),
        # An axis of one head of keys may be named, or not.
        "k/kernel": kernel(D, SIZE, 0, (1, 2), part="key"),
        "v/kernel": kernel(D, SIZE, 0, (1, 2), part="value"),
        "o/kernel": kernel(
            INNER, D, (0, 1), 2, part="attention output", residual=(0, 6), **small
        ),
        "n2/scale": scale(),
        "gate/kernel": kernel(D, F, function="silu", part="gate"),
        "up/kernel": kernel(D, F, part="up"),
        "down/kernel": kernel(F, D, residual=(1, 6), **small),
    }
    block = stacked(block)
    for name in "kv":
        use = block[f"{name}/kernel"]
        block[f"{name}/kernel"] = Use(**{**vars(use), "out_axis": ANY})
    truth = {
        "embed/embedding": [
            embedding(D, multiplier=12.0),
            kernel(D, V, 1, 0, head=True, multiplier=0.125),
        ],
        **below("layers/", block),
        "norm/scale": scale(),
    }
    return of_linen(Net(), [integers(B, T)], truth)


@model
def sparse_words() -> Model:
    """Formal et al. 2021 (SPLADE), Linen: log(1 + relu) of words' scores, the greatest.

    One encoder reads question and text.
    """
    from flax import linen as nn

    class Net(nn.Module):
        def setup(self):
            self.word = nn.Embed(V, D)
            self.up, self.down = nn.Dense(F), nn.Dense(D)
            self.ln, self.mix = nn.LayerNorm(), nn.Dense(D)
            self.transform, self.ln_h = nn.Dense(D), nn.LayerNorm()
            self.bias = self.param("bias", nn.initializers.zeros, (V,))

        def encode(self, ids):
            x = self.word(ids)
            x = x + self.mix(x.mean(1, keepdims=True))
            x = self.ln(x + self.down(nn.gelu(self.up(x))))
            h = self.ln_h(nn.gelu(self.transform(x)))
            logits = self.word.attend(h) + self.bias
            seen = (ids != 0)[..., None]
            return jnp.max(jnp.log1p(nn.relu(logits)) * seen, axis=1)

        def __call__(self, question, text):
            return self.encode(question) @ self.encode(text).T

    one = {
        **dense("up", D, F, function="gelu"),
        **dense("down", F, D, residual=(1, 2)),
        **norm("ln"),
        **dense("mix", D, D, residual=(0, 2)),
        **dense("transform", D, D, function="gelu"),
        **norm("ln_h"),
        "bias": bias("word/embedding"),
    }
    # Debatable: two towers' products are contractions; log(1 + relu), or the relu.
    score = kernel(D, V, 1, 0, function=ANY, head=ANY)
    truth = {
        "word/embedding": [embedding(D), score, embedding(D), score],
        **{path: [use] * 2 for path, use in one.items()},
    }
    return of_linen(Net(), [integers(B, T), integers(3, 5)], truth)


@model
def queries_between() -> Model:
    """Li et al. 2023 (BLIP-2), Linen: queries read an image, and begin a text."""
    from flax import linen as nn

    queries, seen, width = 3, 10, 8

    class Layer(nn.Module):
        @nn.compact
        def __call__(self, x, image):
            def att(name):
                return nn.MultiHeadDotProductAttention(HEADS, name=name)

            x = nn.LayerNorm(name="n1")(x + att("self")(x, x))
            y = nn.MultiHeadDotProductAttention(
                HEADS, qkv_features=D, out_features=D, name="cross"
            )(x, image)
            x = nn.LayerNorm(name="n2")(x + y)
            h = nn.gelu(nn.Dense(F, name="up")(x), approximate=False)
            return nn.LayerNorm(name="n3")(x + nn.Dense(D, name="down")(h))

    class Net(nn.Module):
        @nn.compact
        def __call__(self, image, ids):
            zeros = nn.initializers.zeros
            q = self.param("query_tokens", zeros, (1, queries, D))
            x = nn.LayerNorm(name="ln_q")(jnp.broadcast_to(q, (B, queries, D)))
            image = nn.LayerNorm(name="ln_vision")(image)
            for i in range(2):
                x = Layer(name=f"layer_{i}")(x, image)
            x = nn.Dense(width, name="language_proj")(x)
            words = nn.Embed(V, width, name="embed")
            x = jnp.concatenate([x, words(ids)], axis=1)
            mask = nn.make_causal_mask(jnp.ones(x.shape[:2]))
            h = nn.LayerNorm(name="lm_n1")(x)
            x = x + nn.MultiHeadDotProductAttention(2, name="lm_att")(h, h, mask=mask)
            h = nn.relu(nn.Dense(F, name="fc1")(nn.LayerNorm(name="lm_n2")(x)))
            x = nn.LayerNorm(name="lm_norm")(x + nn.Dense(width, name="fc2")(h))
            return words.attend(x[:, queries:])

    layer = {
        **attention("self", D, HEADS, SIZE, (0, 6), scaled=True),
        **norm("n1"),
        **attention("cross", D, HEADS, SIZE, (1, 6), scaled=True, memory=seen),
        **norm("n2"),
        **dense("up", D, F, function="gelu"),
        **dense("down", F, D, residual=(2, 6)),
        **norm("n3"),
    }
    truth = {
        # Debatable: a function of leaves alone, until they are broadcast.
        "query_tokens": either("embedding", "unknown"),
        "ln_q/scale": either("scale", "unknown"),
        "ln_q/bias": either("bias", "unknown"),
        **norm("ln_vision"),
        **every("layer_{}/", 2, layer),
        **dense("language_proj", D, width),
        "embed/embedding": [embedding(width), kernel(width, V, 1, 0, head=True)],
        **norm("lm_n1"),
        **attention("lm_att", width, 2, 4, (0, 2), scaled=True),
        **norm("lm_n2"),
        **dense("fc1", width, F, function="relu"),
        **dense("fc2", F, width, residual=(1, 2)),
        **norm("lm_norm"),
    }
    return of_linen(Net(), [floats(B, 6, seen), integers(B, 5)], truth)
