"""Plain functions: attention with fused weights."""

import jax
import jax.numpy as jnp

from zoo.attention import (
    BATCH,
    HEADS,
    HIDDEN,
    INNER,
    LENGTH,
    SIZE,
    VOCABULARY,
    WIDTH,
    attend,
    merge_heads,
    split_heads,
    vector,
)
from zoo.truths import (
    ANY,
    Model,
    bias,
    bias_cut,
    cut,
    embedding,
    every,
    floats,
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

PARTS = ("query", "key", "value")


def feed_forward(total, index=1):
    return {
        "up/w": kernel(WIDTH, HIDDEN, function="gelu"),
        "up/b": bias("up/w"),
        "down/w": kernel(HIDDEN, WIDTH, residual=(index, total)),
        "down/b": bias("down/w"),
    }


def affine(inputs, outputs):
    return {"w": floats(inputs, outputs), "b": floats(outputs)}


def linear(x, p):
    return x @ p["w"] + p["b"]


def block_params():
    return {
        "ln_1": vector(),
        "qkv": affine(WIDTH, 3 * INNER),
        "proj": affine(INNER, WIDTH),
        "ln_2": vector(),
        "up": affine(WIDTH, HIDDEN),
        "down": affine(HIDDEN, WIDTH),
    }


def block(p, x):
    q, k, v = jnp.split(linear(normed(x, p["ln_1"]), p["qkv"]), 3, axis=-1)
    h = attend(*map(split_heads, (q, k, v)), factor=SIZE**-0.5, causal=True)
    x = x + linear(merge_heads(h), p["proj"])
    h = jax.nn.gelu(linear(normed(x, p["ln_2"]), p["up"]))
    return x + linear(h, p["down"])


def block_truth(total):
    return {
        **norm("ln_1"),
        "qkv/w": kernel(WIDTH, 3 * INNER, sections=cut(1, INNER, PARTS)),
        "qkv/b": bias("qkv/w", sections=bias_cut(INNER, PARTS)),
        "proj/w": kernel(INNER, WIDTH, residual=(0, total), part="attention output"),
        "proj/b": bias("proj/w", part="attention output"),
        **norm("ln_2"),
        **feed_forward(total),
    }


@model
def gpt2() -> Model:
    """Queries, keys and values cut by split; the output is tied to the embedding."""

    def apply(p, tokens):
        x = p["wte"][tokens] + p["wpe"][: tokens.shape[-1]]
        for i in range(3):
            x = block(p[f"h_{i}"], x)
        return normed(x, p["ln_f"]) @ p["wte"].T

    params = {
        "wte": floats(VOCABULARY, WIDTH),
        "wpe": floats(8, WIDTH),
        "ln_f": vector(),
        **{f"h_{i}": block_params() for i in range(3)},
    }
    truth = {
        "wte": [embedding(WIDTH), kernel(WIDTH, VOCABULARY, 1, 0, head=True)],
        "wpe": position(),
        **every("h_{}/", 3, block_truth(6)),
        **norm("ln_f"),
    }
    return Model(apply, params, (integers(BATCH, LENGTH),), truth)


@model
def vision_registers() -> Model:
    """A fused kernel (3, H, K) as timm has it, stored (outputs, inputs).

    Register tokens are put before the patches; scores have a learned bias (H, T, T).
    """
    registers, patches, pixels = 2, 4, 9
    length = registers + patches

    def layer(p, x):
        qkv = normed(x, p["norm"]) @ p["qkv"].T
        qkv = qkv.reshape(BATCH, length, 3, HEADS, SIZE).transpose(2, 0, 3, 1, 4)
        q, k, v = qkv[0] * SIZE**-0.5, qkv[1], qkv[2]
        scores = q @ jnp.swapaxes(k, -1, -2) + p["score_bias"]
        h = jax.nn.softmax(scores, axis=-1) @ v
        return x + h.swapaxes(1, 2).reshape(BATCH, length, INNER) @ p["proj"].T

    def apply(p, x):
        x = x @ p["patch"].T + p["pos_embed"]
        tokens = jnp.broadcast_to(p["registers"], (BATCH, registers, WIDTH))
        x = jnp.concatenate([tokens, x], axis=1)
        for layer_params in p["blocks"]:
            x = layer(layer_params, x)
        return x[:, registers:].mean(1) @ p["head"].T

    layer_params = {
        "norm": vector(),
        "qkv": floats(3 * INNER, WIDTH),
        "score_bias": floats(HEADS, length, length),
        "proj": floats(WIDTH, INNER),
    }
    params = {
        "patch": floats(WIDTH, pixels),
        "pos_embed": floats(1, patches, WIDTH),
        "registers": floats(registers, WIDTH),
        "blocks": [layer_params] * 2,
        "head": floats(5, WIDTH),
    }
    first = {
        **norm("norm"),
        # Only the queries are scaled, which a single multiplier cannot say.
        "qkv": kernel(
            WIDTH, 3 * INNER, 1, 0, sections=cut(0, INNER, PARTS), multiplier=ANY
        ),
        "score_bias": position((1, 2), 0),
        "proj": kernel(INNER, WIDTH, 1, 0, residual=(0, 2), part="attention output"),
    }
    truth = {
        "patch": kernel(pixels, WIDTH, 1, 0),
        "pos_embed": position(1, 2),
        "registers": token(WIDTH, 0, 1),
        **every("blocks/{}/", 2, first),
        "head": kernel(WIDTH, 5, 1, 0, head=True),
    }
    return Model(apply, params, (floats(BATCH, patches, pixels),), truth)


@model
def parallel_branches() -> Model:
    """GPT-NeoX: a fused kernel (H, 3, K), and attention beside the feed-forward."""

    def layer(p, x):
        qkv = linear(normed(x, p["ln"]), p["qkv"])
        qkv = qkv.reshape(*x.shape[:2], HEADS, 3, SIZE)
        h = attend(qkv[..., 0, :], qkv[..., 1, :], qkv[..., 2, :], SIZE**-0.5)
        attention = linear(merge_heads(h), p["dense"])
        h = jax.nn.gelu(linear(normed(x, p["ln_mlp"]), p["up"]))
        return x + attention + linear(h, p["down"])

    def apply(p, tokens):
        x = p["embed_in"][tokens]
        for i in range(2):
            x = layer(p["layers"][i], x)
        return normed(x, p["final"]) @ p["embed_out"]

    layer_params = {
        "ln": vector(),
        "ln_mlp": vector(),
        "qkv": affine(WIDTH, 3 * INNER),
        "dense": affine(INNER, WIDTH),
        "up": affine(WIDTH, HIDDEN),
        "down": affine(HIDDEN, WIDTH),
    }
    params = {
        "embed_in": floats(VOCABULARY, WIDTH),
        "layers": [layer_params] * 2,
        "final": vector(),
        "embed_out": floats(WIDTH, VOCABULARY),
    }
    # Of every head's 3 K columns, the first K are its queries.
    starts = [range(3 * SIZE * h, 3 * SIZE * (h + 1), SIZE) for h in range(HEADS)]
    runs = [tuple((head[i], head[i] + SIZE) for head in starts) for i in range(3)]

    def sections(axis, function):
        return [
            (axis, run, part, function) for run, part in zip(runs, PARTS, strict=True)
        ]

    first = {
        **norm("ln"),
        **norm("ln_mlp"),
        "qkv/w": kernel(WIDTH, 3 * INNER, sections=sections(1, "identity")),
        "qkv/b": bias("qkv/w", sections=sections(0, None)),
        "dense/w": kernel(INNER, WIDTH, residual=(0, 4), part="attention output"),
        "dense/b": bias("dense/w", part="attention output"),
        **feed_forward(4),
    }
    truth = {
        "embed_in": embedding(WIDTH),
        **every("layers/{}/", 2, first),
        **norm("final"),
        "embed_out": kernel(WIDTH, VOCABULARY, head=True),
    }
    return Model(apply, params, (integers(BATCH, LENGTH),), truth)


@model
def everything_in_one_kernel() -> Model:
    """PaLM: one kernel for queries, one key and value head, and both halves of SwiGLU.

    The embedding is scaled by sqrt(D) and tied to the output.
    """
    ends = [INNER, INNER + SIZE, INNER + 2 * SIZE, INNER + 2 * SIZE + HIDDEN]
    total = INNER + 2 * SIZE + 2 * HIDDEN

    def layer(p, x):
        parts = jnp.split(rms_norm(x, p["gamma"]) @ p["wi"], ends, axis=-1)
        q, k, v, up, gated = parts
        scores = jnp.einsum("bqhd,bkd->bhqk", split_heads(q), k) * SIZE**-0.5
        h = jnp.einsum("bhqk,bkd->bqhd", jax.nn.softmax(scores), v)
        return (
            x + merge_heads(h) @ p["attn_out"] + (up * jax.nn.silu(gated)) @ p["ff_out"]
        )

    def apply(p, tokens):
        x = p["embed"][tokens] * jnp.sqrt(float(WIDTH))
        for i in range(2):
            x = layer(p["blocks"][i], x)
        return jnp.einsum("btd,vd->btv", rms_norm(x, p["gamma"]), p["embed"])

    layer_params = {
        "gamma": floats(WIDTH),
        "wi": floats(WIDTH, total),
        "attn_out": floats(INNER, WIDTH),
        "ff_out": floats(HIDDEN, WIDTH),
    }
    params = {
        "embed": floats(VOCABULARY, WIDTH),
        "blocks": [layer_params] * 2,
        "gamma": floats(WIDTH),
    }
    parts = ("query", "key", "value", "up", "gate")
    runs = zip([0, *ends], [*ends, total], parts, strict=True)
    sections = [
        (1, ((start, stop),), part, "silu" if part == "gate" else "identity")
        for start, stop, part in runs
    ]
    first = {
        "gamma": scale(),
        # The sections have each their function; what the whole has is open.
        "wi": kernel(WIDTH, total, function=ANY, sections=sections),
        "attn_out": kernel(INNER, WIDTH, residual=(0, 4), part="attention output"),
        "ff_out": kernel(HIDDEN, WIDTH, residual=(1, 4)),
    }
    truth = {
        "embed": [
            embedding(WIDTH, multiplier=WIDTH**0.5),
            kernel(WIDTH, VOCABULARY, 1, 0, head=True),
        ],
        **every("blocks/{}/", 2, first),
        "gamma": scale(),
    }
    return Model(apply, params, (integers(BATCH, LENGTH),), truth)
