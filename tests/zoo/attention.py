"""Plain functions: attention with separate weights, in the layouts of real code."""

import math

import jax
import jax.numpy as jnp

from zoo.truths import (
    ANY,
    Model,
    bias,
    embedding,
    every,
    floats,
    gate,
    integers,
    kernel,
    model,
    norm,
    position,
    rms_norm,
    scale,
    token,
)
from zoo.truths import layer_norm as normed

BATCH, LENGTH, WIDTH, HEADS, SIZE, HIDDEN, VOCABULARY = 2, 5, 12, 3, 7, 20, 17
INNER = HEADS * SIZE


def attend(q, k, v, factor=1.0, causal=False):
    """Weighted sum of values; all (batch, length, heads, size)."""
    scores = jnp.einsum("bqhd,bkhd->bhqk", q, k) * factor
    if causal:
        seen = jnp.tril(jnp.ones(scores.shape[-2:], bool))
        scores = jnp.where(seen, scores, -1e9)
    return jnp.einsum("bhqk,bkhd->bqhd", jax.nn.softmax(scores), v)


def split_heads(x, size=SIZE):
    return x.reshape(*x.shape[:2], -1, size)


def merge_heads(x):
    return x.reshape(*x.shape[:2], -1)


def vector(width=WIDTH):
    return {"scale": floats(width), "bias": floats(width)}


@model
def einsum_kernels() -> Model:
    """Kernels (D, H, K) and (H, K, D) with biases; queries scaled by 1 / sqrt(K)."""

    def block(p, x):
        h, a = normed(x, p["norm_1"]), p["attention"]
        q, k, v = (
            jnp.einsum("btd,dhk->bthk", h, a[name]) + a[f"{name}_bias"]
            for name in ("query", "key", "value")
        )
        h = attend(q / math.sqrt(SIZE), k, v)
        x = x + jnp.einsum("bthk,hkd->btd", h, a["out"]) + a["out_bias"]
        h = jax.nn.gelu(normed(x, p["norm_2"]) @ p["up"] + p["up_bias"])
        return x + (h @ p["down"] + p["down_bias"])

    def apply(p, tokens):
        x = p["embed"][tokens] + p["positions"][: tokens.shape[1]]
        for block_params in p["blocks"]:
            x = block(block_params, x)
        x = normed(x, p["norm"]).mean(1)
        return x @ p["classify"]

    separate = {name: floats(WIDTH, HEADS, SIZE) for name in ("query", "key", "value")}
    biases = {f"{name}_bias": floats(HEADS, SIZE) for name in separate}
    attention = {
        **separate,
        **biases,
        "out": floats(HEADS, SIZE, WIDTH),
        "out_bias": floats(WIDTH),
    }
    layer = {
        "norm_1": vector(),
        "attention": attention,
        "norm_2": vector(),
        "up": floats(WIDTH, HIDDEN),
        "up_bias": floats(HIDDEN),
        "down": floats(HIDDEN, WIDTH),
        "down_bias": floats(WIDTH),
    }
    params = {
        "embed": floats(VOCABULARY, WIDTH),
        "positions": floats(9, WIDTH),
        "blocks": [layer] * 2,
        "norm": vector(),
        "classify": floats(WIDTH, 4),
    }
    return Model(apply, params, (integers(BATCH, LENGTH),), _einsum_truth())


def _einsum_truth() -> dict:
    def into(part, **rest):
        return {
            f"attention/{part}": kernel(WIDTH, INNER, 0, (1, 2), part=part, **rest),
            f"attention/{part}_bias": bias(
                f"attention/{part}", (0, 1), part=part, multiplier=ANY
            ),
        }

    block = {
        **norm("norm_1"),
        **into("query", multiplier=SIZE**-0.5),
        **into("key"),
        **into("value"),
        "attention/out": kernel(
            INNER, WIDTH, (0, 1), 2, residual=(0, 4), part="attention output"
        ),
        # Debatable: the sum is (x + out) + bias, in that order.
        "attention/out_bias": bias("attention/out", part="attention output"),
        **norm("norm_2"),
        "up": kernel(WIDTH, HIDDEN, function="gelu"),
        "up_bias": bias("up"),
        "down": kernel(HIDDEN, WIDTH, residual=(1, 4)),
        "down_bias": bias("down"),
    }
    return {
        "embed": embedding(WIDTH),
        "positions": position(),
        **every("blocks/{}/", 2, block),
        **norm("norm"),
        "classify": kernel(WIDTH, 4, head=True),
    }


@model
def grouped_queries() -> Model:
    """Llama and Qwen 3: RMSNorm, norms of queries and keys, rotary positions, SwiGLU.

    Two key heads serve four query heads; the norms are 1 + w, as in Gemma. All that is
    computed is in bfloat16, but for the logits.
    """
    groups, repeats, size = 2, 2, 6
    heads = groups * repeats

    def block(p, x):
        h = rms_norm(x, 1 + p["input_norm"])
        q = rms_norm(split_heads(h @ p["q_proj"], size), p["q_norm"])
        k = rms_norm(split_heads(h @ p["k_proj"], size), p["k_norm"])
        v = split_heads(h @ p["v_proj"], size)
        k, v = (jnp.repeat(a, repeats, axis=2) for a in (rotated(k), v))
        h = attend(rotated(q), k, v, size**-0.5, causal=True)
        x = x + merge_heads(h) @ p["o_proj"]
        h = rms_norm(x, 1 + p["post_norm"])
        h = jax.nn.silu(h @ p["gate_proj"]) * (h @ p["up_proj"])
        return x + h @ p["down_proj"]

    def rotated(x):
        half = x.shape[-1] // 2
        rates = 10000.0 ** (-jnp.arange(half) / half)
        angles = jnp.arange(x.shape[1])[:, None] * rates
        angles = jnp.concatenate([angles, angles], -1)[None, :, None, :]
        turned = jnp.concatenate([-x[..., half:], x[..., :half]], -1)
        rotation = jnp.cos(angles), jnp.sin(angles)
        cosines, sines = (wave.astype(x.dtype) for wave in rotation)
        return x * cosines + turned * sines

    def apply(p, tokens):
        p = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), p)
        x = jnp.take(p["embed_tokens"], tokens, axis=0)
        for index in range(2):
            x = block(p[f"layers_{index}"], x)
        logits = rms_norm(x, 1 + p["norm"]) @ p["lm_head"].T
        return logits.astype(jnp.float32)

    layer = {
        "input_norm": floats(WIDTH),
        "q_norm": floats(size),
        "k_norm": floats(size),
        "q_proj": floats(WIDTH, heads * size),
        "k_proj": floats(WIDTH, groups * size),
        "v_proj": floats(WIDTH, groups * size),
        "o_proj": floats(heads * size, WIDTH),
        "post_norm": floats(WIDTH),
        "gate_proj": floats(WIDTH, HIDDEN),
        "up_proj": floats(WIDTH, HIDDEN),
        "down_proj": floats(HIDDEN, WIDTH),
    }
    params = {
        "embed_tokens": floats(VOCABULARY, WIDTH),
        "layers_0": layer,
        "layers_1": layer,
        "norm": floats(WIDTH),
        "lm_head": floats(VOCABULARY, WIDTH),
    }
    block_truth = {
        "input_norm": scale(offset=1.0),
        "q_norm": scale(),
        "k_norm": scale(),
        "q_proj": kernel(WIDTH, heads * size, part="query"),
        "k_proj": kernel(WIDTH, groups * size, part="key"),
        "v_proj": kernel(WIDTH, groups * size, part="value"),
        "o_proj": kernel(heads * size, WIDTH, residual=(0, 4), part="attention output"),
        "post_norm": scale(offset=1.0),
        "gate_proj": kernel(WIDTH, HIDDEN, function="silu", part="gate"),
        "up_proj": kernel(WIDTH, HIDDEN, part="up"),
        "down_proj": kernel(HIDDEN, WIDTH, residual=(1, 4)),
    }
    truth = {
        "embed_tokens": embedding(WIDTH),
        **every("layers_{}/", 2, block_truth),
        "norm": scale(offset=1.0),
        "lm_head": kernel(WIDTH, VOCABULARY, 1, 0, head=True),
    }
    return Model(apply, params, (integers(BATCH, LENGTH),), truth)


@model
def relative_positions() -> Model:
    """T5's encoder: a table of relative positions that all layers share; no biases."""
    buckets = 6

    def block(p, x, relative):
        h = rms_norm(x, p["norm_1"])
        q, k, v = (split_heads(h @ p[name]) for name in "qkv")
        scores = jnp.einsum("bqhd,bkhd->bhqk", q, k) + relative
        h = jnp.einsum("bhqk,bkhd->bqhd", jax.nn.softmax(scores, axis=-1), v)
        x = x + merge_heads(h) @ p["o"]
        return x + jax.nn.relu(rms_norm(x, p["norm_2"]) @ p["wi"]) @ p["wo"]

    def apply(p, tokens):
        x = p["shared"][tokens]
        distance = jnp.arange(LENGTH)[None, :] - jnp.arange(LENGTH)[:, None]
        bucket = jnp.clip(distance + buckets // 2, 0, buckets - 1)
        relative = p["relative_attention_bias"][bucket].transpose(2, 0, 1)[None]
        for layer in p["layers"]:
            x = block(layer, x, relative)
        return rms_norm(x, p["final_norm"]) @ p["lm_head"]

    layer = {
        "norm_1": floats(WIDTH),
        "q": floats(WIDTH, INNER),
        "k": floats(WIDTH, INNER),
        "v": floats(WIDTH, INNER),
        "o": floats(INNER, WIDTH),
        "norm_2": floats(WIDTH),
        "wi": floats(WIDTH, HIDDEN),
        "wo": floats(HIDDEN, WIDTH),
    }
    params = {
        "shared": floats(VOCABULARY, WIDTH),
        "relative_attention_bias": floats(buckets, HEADS),
        "layers": [layer] * 3,
        "final_norm": floats(WIDTH),
        "lm_head": floats(WIDTH, VOCABULARY),
    }
    block_truth = {
        "norm_1": scale(),
        "q": kernel(WIDTH, INNER, part="query"),
        "k": kernel(WIDTH, INNER, part="key"),
        "v": kernel(WIDTH, INNER, part="value"),
        "o": kernel(INNER, WIDTH, residual=(0, 6), part="attention output"),
        "norm_2": scale(),
        "wi": kernel(WIDTH, HIDDEN, function="relu"),
        "wo": kernel(HIDDEN, WIDTH, residual=(1, 6)),
    }
    truth = {
        "shared": embedding(WIDTH),
        # Looked up at one place, although three layers add what was found.
        "relative_attention_bias": position(),
        **every("layers/{}/", 3, block_truth),
        "final_norm": scale(),
        "lm_head": kernel(WIDTH, VOCABULARY, head=True),
    }
    return Model(apply, params, (integers(BATCH, LENGTH),), truth)


@model
def multi_query_cross_attention() -> Model:
    """Perceiver: latents attend to the input by one shared key head, then an MLP.

    Queries are (D, H, K); keys and values have no heads. LayerScale on both branches.
    """
    latents, inputs = 4, 8

    def layer(p, x, data):
        q = jnp.einsum("btd,dhk->bhtk", normed(x, p["norm_q"]), p["query"])
        data = normed(data, p["norm_kv"])
        scores = jnp.einsum("bhtk,bsk->bhts", q, data @ p["key"]) / jnp.sqrt(SIZE)
        h = jnp.einsum("bhts,bsk->bthk", jax.nn.softmax(scores, -1), data @ p["value"])
        x = x + p["gamma_1"] * jnp.einsum("bthk,hkd->btd", h, p["out"])
        h = jax.nn.gelu(normed(x, p["norm_2"]) @ p["up"], approximate=False)
        return x + p["gamma_2"] * (h @ p["down"])

    def apply(p, data):
        x = jnp.broadcast_to(p["latents"], (BATCH, latents, WIDTH))
        for layer_params in p["layers"]:
            x = layer(layer_params, x, data)
        return x.mean(axis=1) @ p["logits"]

    layer_params = {
        "norm_q": vector(),
        "norm_kv": vector(inputs),
        "query": floats(WIDTH, HEADS, SIZE),
        "key": floats(inputs, SIZE),
        "value": floats(inputs, SIZE),
        "out": floats(HEADS, SIZE, WIDTH),
        "gamma_1": floats(WIDTH),
        "norm_2": vector(),
        "up": floats(WIDTH, HIDDEN),
        "down": floats(HIDDEN, WIDTH),
        "gamma_2": floats(WIDTH),
    }
    params = {
        "latents": floats(latents, WIDTH),
        "layers": [layer_params] * 2,
        "logits": floats(WIDTH, 3),
    }
    first = {
        **norm("norm_q"),
        **norm("norm_kv"),
        "query": kernel(WIDTH, INNER, 0, (1, 2), part="query"),
        "key": kernel(inputs, SIZE, part="key"),
        "value": kernel(inputs, SIZE, part="value"),
        "out": kernel(
            INNER, WIDTH, (0, 1), 2, residual=(0, 4), part="attention output"
        ),
        "gamma_1": gate(0),
        **norm("norm_2"),
        "up": kernel(WIDTH, HIDDEN, function="gelu"),
        "down": kernel(HIDDEN, WIDTH, residual=(1, 4)),
        "gamma_2": gate(0),
    }
    truth = {
        "latents": token(WIDTH, 0, 1),
        **every("layers/{}/", 2, first),
        "logits": kernel(WIDTH, 3, head=True),
    }
    return Model(apply, params, (floats(BATCH, 9, inputs),), truth)
