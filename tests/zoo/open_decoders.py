"""Decoders as open code bases of 2024 to 2026 write them."""

import jax
import jax.numpy as jnp

from zoo.layers import rotary, seen_before
from zoo.truths import (
    ANY,
    WRITES,
    Model,
    Use,
    below,
    either,
    embedding,
    every,
    floats,
    integers,
    kernel,
    model,
    one_of,
    rms_norm,
    scale,
    stacked,
)

B, T, D, F, HEADS, SIZE, V = 2, 6, 12, 15, 3, 4, 19
INNER = HEADS * SIZE


@model
def values_behind_small_gates() -> Model:
    """Karpathy 2025 (nanochat): weighed streams, values of ids that few channels gate.

    The vocabulary is padded; the loss is in it.
    """
    layers, padded, few = 3, 24, 5

    def unit(x):
        return x * jax.lax.rsqrt(jnp.mean(jnp.square(x), -1, keepdims=True) + 1e-6)

    def block(p, x, ve):
        h = unit(x)
        q, k, v = (
            (h @ p["attn"][n]).reshape(B, T, HEADS, SIZE) for n in ("q", "k", "v")
        )
        if ve is not None:
            gate = 2 * jax.nn.sigmoid(h[..., :few] @ p["attn"]["ve_gate"])
            v = v + gate[..., None] * ve.reshape(B, T, HEADS, SIZE)
        q, k = unit(rotary(q)), unit(rotary(k))
        y = jax.nn.dot_product_attention(q, k, v, is_causal=True)
        x = x + y.reshape(B, T, -1) @ p["attn"]["proj"]
        h = jnp.square(jax.nn.relu(unit(x) @ p["mlp"]["fc"]))
        return x + h @ p["mlp"]["proj"]

    def apply(p, ids, targets):
        x = x0 = unit(p["wte"][ids])
        for i in range(layers):
            x = p["resid_lambdas"][i] * x + p["x0_lambdas"][i] * x0
            table = p["value_embeds"].get(str(i))
            x = block(p["h"][i], x, None if table is None else table[ids])
        logits = (unit(x) @ p["lm_head"])[..., :V].astype(jnp.float32)
        logits = 15 * jnp.tanh(logits / 15)
        log_probs = jax.nn.log_softmax(logits, axis=-1)
        one = jnp.take_along_axis(log_probs, targets[..., None], axis=-1)
        return -one.mean()

    attn = {n: floats(D, INNER) for n in "qkv"} | {"proj": floats(INNER, D)}
    mlp = {"fc": floats(D, 4 * D), "proj": floats(4 * D, D)}
    gated = {"attn": attn | {"ve_gate": floats(few, HEADS)}, "mlp": mlp}
    params = {
        "wte": floats(padded, D),
        "resid_lambdas": floats(layers), "x0_lambdas": floats(layers),
        "value_embeds": {"0": floats(padded, INNER), "2": floats(padded, INNER)},
        "h": [gated, {"attn": attn, "mlp": mlp}, gated],
        "lm_head": floats(D, padded),
    }  # fmt: skip
    # Debatable: a number that weighs the stream, or what is mixed with it.
    number = Use(
        one_of("scale", "gate"), ANY, ANY, stack_axis=0, part=ANY, residual=ANY
    )
    own = {
        "attn/q": kernel(D, INNER, part="query"),
        "attn/k": kernel(D, INNER, part="key"),
        "attn/v": kernel(D, INNER, part="value"),
        "attn/proj": kernel(INNER, D, part="attention output", residual=WRITES),
        "mlp/fc": kernel(D, 4 * D, function=ANY),
        "mlp/proj": kernel(4 * D, D, residual=WRITES),
    }
    truth = {
        "wte": embedding(D),
        "resid_lambdas": [number] * layers,
        "x0_lambdas": [number] * layers,
        **every("h/{}/", layers, own),
        "lm_head": kernel(
            D, one_of(padded, V), head=True, function=ANY, multiplier=ANY
        ),
    }
    for i in (0, 2):
        truth[f"value_embeds/{i}"] = embedding(INNER, multiplier=ANY, part=ANY)
        truth[f"h/{i}/attn/ve_gate"] = kernel(
            few, HEADS, function="sigmoid", part=one_of("gate", None)
        )
    return Model(apply, params, (integers(B, T), integers(B, T)), truth)


@model
def windows_now_and_then() -> Model:
    """Gemma 3 (2025) as its JAX library has it: einsums, a scan over kinds of layers.

    Half precision; scales begin at zero; norms before and behind; a flag says how far
    a layer sees.
    """
    layers, heads, groups = 3, 4, 2
    dtype = jnp.bfloat16

    def rms(x, w):
        x = x.astype(jnp.float32)
        y = x * jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + 1e-6)
        return (y * (1 + w)).astype(dtype)

    def rope(x, base):
        half = SIZE // 2
        angle = jnp.arange(T)[:, None] / base ** (jnp.arange(half) / half)
        sin, cos = jnp.sin(angle)[:, None], jnp.cos(angle)[:, None]
        a, b = jnp.split(x.astype(jnp.float32), 2, axis=-1)
        y = jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)
        return y.astype(dtype)

    def einsum(text, x, w):
        return jnp.einsum(text, x, w.astype(dtype))

    @jax.checkpoint
    def block(x, layer):
        p, is_global = layer
        h = rms(x, p["pre_attention_norm"])
        q = einsum("BTD,NDH->BTNH", h, p["q_einsum"])
        k, v = einsum("BSD,CKDH->CBSKH", h, p["kv_einsum"])
        base = jnp.where(is_global, 1e6, 1e4)
        q = rope(rms(q, p["query_norm"]), base) * SIZE**-0.5
        k = rope(rms(k, p["key_norm"]), base)
        q = q.reshape(B, T, groups, heads // groups, SIZE)
        s = jnp.einsum("BTKGH,BSKH->BTKGS", q, k).reshape(B, T, heads, T)
        apart = jnp.arange(T)[:, None] - jnp.arange(T)
        seen = (apart >= 0) & (is_global | (apart < 3))
        s = jnp.where(seen[:, None], s, -2.4e38)
        s = jax.nn.softmax(s, axis=-1).astype(dtype)
        y = jnp.einsum("BTKGS,BSKH->BTKGH", s.reshape(B, T, groups, -1, T), v)
        y = einsum("BTNH,NHD->BTD", y.reshape(B, T, heads, SIZE), p["attn_vec_einsum"])
        x = x + rms(y, p["post_attention_norm"])
        h = rms(x, p["pre_ffw_norm"])
        gate = einsum("BTF,NHF->BTNH", h, p["gating_einsum"])
        h = jax.nn.gelu(gate[..., 0, :]) * gate[..., 1, :]
        y = einsum("BTH,HF->BTF", h, p["linear"])
        return x + rms(y, p["post_ffw_norm"]), None

    def apply(p, ids):
        x = (p["input_embedding"][ids] * D**0.5).astype(dtype)
        flags = jnp.arange(layers) % 2 == 1
        x, _ = jax.lax.scan(block, x, (p["layers"], flags))
        return einsum("btd,vd->btv", rms(x, p["final_norm"]), p["input_embedding"])

    def many(*shape):
        return floats(layers, *shape)

    params = {
        "input_embedding": floats(V, D),
        "layers": {
            "pre_attention_norm": many(D), "q_einsum": many(heads, D, SIZE),
            "kv_einsum": many(2, groups, D, SIZE), "query_norm": many(SIZE),
            "key_norm": many(SIZE), "attn_vec_einsum": many(heads, SIZE, D),
            "post_attention_norm": many(D), "pre_ffw_norm": many(D),
            "gating_einsum": many(2, F, D), "linear": many(F, D),
            "post_ffw_norm": many(D),
        },
        "final_norm": floats(D),
    }  # fmt: skip
    norms = ("pre_attention", "post_attention", "pre_ffw", "post_ffw", "key")
    block_truth = {
        **{f"{name}_norm": scale(offset=1.0) for name in norms},
        # Debatable: the factor of the scores is behind the norm's scale, 1 + w.
        "query_norm": scale(offset=ANY, multiplier=ANY),
        "q_einsum": kernel(
            D, heads * SIZE, 1, (0, 2), part="query", multiplier=ANY
        ),
        "kv_einsum": kernel(
            D, 2 * groups * SIZE, 2, (0, 1, 3),
            sections=[
                (0, ((0, 1),), "key", "identity"), (0, ((1, 2),), "value", "identity"),
            ],
        ),
        "attn_vec_einsum": kernel(
            heads * SIZE, D, (0, 1), 2, part="attention output",
            residual=(0, 2 * layers),
        ),
        "gating_einsum": kernel(
            D, 2 * F, 2, (0, 1), function=ANY,
            sections=[
                (0, ((0, 1),), "gate", "gelu"), (0, ((1, 2),), "up", "identity"),
            ],
        ),
        "linear": kernel(F, D, residual=(1, 2 * layers)),
    }  # fmt: skip
    truth = {
        "input_embedding": [
            embedding(D, multiplier=D**0.5), kernel(D, V, 1, 0, head=True)
        ],
        **below("layers/", stacked(block_truth)),
        "final_norm": scale(offset=1.0),
    }  # fmt: skip
    return Model(apply, params, (integers(B, T),), truth)


@model
def absorbed_latents() -> Model:
    """DeepSeek-V3 (2024) as its inference has it: scores in the space of latents.

    Turned and unturned parts of queries; experts by sigmoids with corrections.
    """
    layers, q_rank, rank, nope, rope, v_size, experts = 2, 9, 7, 4, 2, 5, 4

    def attend(p, x):
        q = jnp.einsum("btr,rhd->bthd", rms_norm(x @ p["wq_a"], p["q_norm"]), p["wq_b"])
        q_nope, q_pe = q[..., :nope], rotary(q[..., nope:])
        kv, k_pe = jnp.split(x @ p["wkv_a"], [rank], axis=-1)
        k_pe = rotary(k_pe)
        kv = rms_norm(kv, p["kv_norm"])
        q_nope = jnp.einsum("bthd,hdc->bthc", q_nope, p["wkv_b"][:, :nope])
        s = jnp.einsum("bthc,bsc->bhts", q_nope, kv)
        s = (s + jnp.einsum("bthr,bsr->bhts", q_pe, k_pe)) * (nope + rope) ** -0.5
        y = jnp.einsum("bhts,bsc->bthc", seen_before(s), kv)
        y = jnp.einsum("bthc,hdc->bthd", y, p["wkv_b"][:, nope:])
        return y.reshape(B, T, HEADS * v_size) @ p["wo"]

    def mix(p, x):
        scores = jax.nn.sigmoid(x @ p["gate"].T)
        _, chosen = jax.lax.top_k(scores + p["correction"], 2)
        weights = jnp.take_along_axis(scores, chosen, axis=-1)
        weights = weights / weights.sum(-1, keepdims=True) * 2.5
        weights = (jax.nn.one_hot(chosen, experts) * weights[..., None]).sum(-2)
        h = jax.nn.silu(jnp.einsum("btd,edf->btef", x, p["w1"]))
        h = h * jnp.einsum("btd,edf->btef", x, p["w3"])
        y = jnp.einsum("btef,efd->bted", h, p["w2"])
        y = jnp.einsum("bted,bte->btd", y, weights)
        s = p["shared"]
        return y + (jax.nn.silu(x @ s["w1"]) * (x @ s["w3"])) @ s["w2"]

    def apply(p, ids):
        x = p["embed"][ids]
        for q in p["layers"]:
            x = x + attend(q["attn"], rms_norm(x, q["attn_norm"]))
            x = x + mix(q["ffn"], rms_norm(x, q["ffn_norm"]))
        return (rms_norm(x, p["norm"])[:, -1] @ p["head"]).astype(jnp.float32)

    layer = {
        "attn_norm": floats(D), "ffn_norm": floats(D),
        "attn": {
            "wq_a": floats(D, q_rank), "q_norm": floats(q_rank),
            "wq_b": floats(q_rank, HEADS, nope + rope),
            "wkv_a": floats(D, rank + rope), "kv_norm": floats(rank),
            "wkv_b": floats(HEADS, nope + v_size, rank),
            "wo": floats(HEADS * v_size, D),
        },
        "ffn": {
            "gate": floats(experts, D), "correction": floats(experts),
            "w1": floats(experts, D, F), "w3": floats(experts, D, F),
            "w2": floats(experts, F, D),
            "shared": {"w1": floats(D, F), "w3": floats(D, F), "w2": floats(F, D)},
        },
    }  # fmt: skip
    params = {
        "embed": floats(V, D), "layers": [layer] * layers, "norm": floats(D),
        "head": floats(D, V),
    }  # fmt: skip
    each = {"batch_axis": 0}
    # Debatable: which kernel makes queries, keys and values, where two follow another.
    free = {"part": ANY, "sections": ANY}
    writes = {"residual": one_of((1, 6), (2, 6), (4, 6), (5, 6))}
    truth = {
        "attn_norm": scale(), "ffn_norm": scale(),
        "attn/wq_a": kernel(D, q_rank, part=ANY), "attn/q_norm": scale(),
        "attn/wq_b": kernel(q_rank, HEADS * (nope + rope), 0, (1, 2), **free),
        "attn/wkv_a": kernel(D, rank + rope, **free), "attn/kv_norm": scale(),
        "attn/wo": kernel(
            HEADS * v_size, D, residual=(0, 3 * layers),
            part=one_of("attention output", None),
        ),
        "ffn/gate": kernel(D, experts, 1, 0, function="sigmoid", part="router"),
        # Debatable: it reaches nothing but indices.
        "ffn/correction": either("bias", "unknown", "unused"),
        "ffn/w1": kernel(D, F, 1, 2, function="silu", part="gate", **each),
        "ffn/w3": kernel(D, F, 1, 2, part="up", **each),
        "ffn/w2": kernel(F, D, 1, 2, multiplier=ANY, **each, **writes),
        "ffn/shared/w1": kernel(D, F, function="silu", part="gate"),
        "ffn/shared/w3": kernel(D, F, part="up"),
        "ffn/shared/w2": kernel(F, D, **writes),
    }  # fmt: skip
    truth = {
        "embed": embedding(D),
        **every("layers/{}/", layers, truth),
        # Of the whole leaf, each use has its slice.
        **{
            f"layers/{i}/attn/wkv_b": [
                kernel(nope, rank, 1, 2, batch_axis=0, **free),
                kernel(rank, v_size, 2, 1, batch_axis=0, **free),
            ]
            for i in range(layers)
        },
        "norm": scale(),
        "head": kernel(D, V, head=True),
    }
    return Model(apply, params, (integers(B, T),), truth)
