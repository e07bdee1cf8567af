"""Plain functions: large decoders' attention and experts, by einsum in all orders."""

import jax
import jax.numpy as jnp

from zoo.layers import causal, rotary
from zoo.truths import (
    ANY,
    Model,
    below,
    embedding,
    floats,
    integers,
    kernel,
    model,
    scale,
    stacked,
)
from zoo.truths import rms_norm as rms

BATCH, LENGTH, WIDTH, HEADS, SIZE, HIDDEN, VOCABULARY = 2, 6, 12, 4, 4, 10, 17
INNER = HEADS * SIZE


@model
def latent_attention() -> Model:
    """DeepSeek-AI 2024 (MLA): low-rank queries, keys and values; one rotary key."""
    rank_q, rank, nope, turned = 7, 5, 4, 2

    def attend(p, x):
        q = rms(x @ p["wq_a"], p["q_norm"]) @ p["wq_b"]
        q = q.reshape(BATCH, LENGTH, HEADS, nope + turned)
        q_nope, q_pe = q[..., :nope], rotary(q[..., nope:])
        c, k_pe = jnp.split(x @ p["wkv_a"], [rank], axis=-1)
        k_pe = rotary(k_pe[:, :, None])
        kv = (rms(c, p["kv_norm"]) @ p["wkv_b"]).reshape(
            BATCH, LENGTH, HEADS, nope + SIZE
        )
        k_nope, v = jnp.split(kv, [nope], axis=-1)
        k = jnp.concatenate(
            [k_nope, jnp.broadcast_to(k_pe, (*k_nope.shape[:3], turned))], -1
        )
        q = jnp.concatenate([q_nope, q_pe], -1)
        scores = jnp.einsum("bshd,bthd->bhst", q, k) * (nope + turned) ** -0.5
        y = jnp.einsum("bhst,bthd->bshd", causal(scores), v)
        return y.reshape(BATCH, LENGTH, -1) @ p["wo"]

    def experts(p, x):
        weights, chosen = jax.lax.top_k(jax.nn.softmax(x @ p["router"]), 2)
        picked = jax.nn.one_hot(chosen, 3) * weights[..., None]
        combine = picked.sum(-2)
        h = jnp.einsum("bsd,edf->besf", x, p["w1"])
        h = jax.nn.silu(h) * jnp.einsum("bsd,edf->besf", x, p["w3"])
        y = jnp.einsum("besf,efd->besd", h, p["w2"])
        s = p["shared"]
        shared = (jax.nn.silu(x @ s["w1"]) * (x @ s["w3"])) @ s["w2"]
        return jnp.einsum("besd,bse->bsd", y, combine) + shared

    def apply(p, tokens):
        x = p["embed"][tokens]
        x = x + attend(p["attn"], rms(x, p["attn_norm"]))
        x = x + experts(p["ffn"], rms(x, p["ffn_norm"]))
        return rms(x, p["norm"]) @ p["head"]

    gated = {
        "w1": floats(WIDTH, HIDDEN),
        "w2": floats(HIDDEN, WIDTH),
        "w3": floats(WIDTH, HIDDEN),
    }
    both = HEADS * (nope + SIZE)
    params = {
        "embed": floats(VOCABULARY, WIDTH),
        "attn_norm": floats(WIDTH),
        "attn": {
            "wq_a": floats(WIDTH, rank_q),
            "q_norm": floats(rank_q),
            "wq_b": floats(rank_q, HEADS * (nope + turned)),
            "wkv_a": floats(WIDTH, rank + turned),
            "kv_norm": floats(rank),
            "wkv_b": floats(rank, both),
            "wo": floats(INNER, WIDTH),
        },
        "ffn_norm": floats(WIDTH),
        "ffn": {
            "router": floats(WIDTH, 3),
            **{name: floats(3, *leaf.shape) for name, leaf in gated.items()},
            "shared": gated,
        },
        "norm": floats(WIDTH),
        "head": floats(WIDTH, VOCABULARY),
    }

    def heads(start, size):
        step = nope + SIZE
        return tuple((h * step + start, h * step + start + size) for h in range(HEADS))

    axes = {"batch_axis": 0, "in_axis": 1, "out_axis": 2}
    attn = {
        "wq_a": kernel(WIDTH, rank_q),
        "q_norm": scale(),
        "wq_b": kernel(rank_q, HEADS * (nope + turned), part="query"),
        "wkv_a": kernel(
            WIDTH,
            rank + turned,
            sections=[
                (1, ((0, rank),), None, "identity"),
                (1, ((rank, rank + turned),), "key", "identity"),
            ],
        ),
        "kv_norm": scale(),
        "wkv_b": kernel(
            rank,
            both,
            sections=[
                (1, heads(0, nope), "key", "identity"),
                (1, heads(nope, SIZE), "value", "identity"),
            ],
        ),
        "wo": kernel(INNER, WIDTH, part="attention output", residual=(0, 3)),
    }
    # Debatable: experts that are summed, and one beside them, write twice or once.
    ffn = {
        "router": kernel(WIDTH, 3, part="router"),
        "w1": kernel(WIDTH, HIDDEN, part="gate", function="silu", **axes),
        "w3": kernel(WIDTH, HIDDEN, part="up", **axes),
        "w2": kernel(HIDDEN, WIDTH, residual=(1, 3), **axes),
        "shared/w1": kernel(WIDTH, HIDDEN, part="gate", function="silu"),
        "shared/w3": kernel(WIDTH, HIDDEN, part="up"),
        "shared/w2": kernel(HIDDEN, WIDTH, residual=(2, 3)),
    }
    truth = {
        "embed": embedding(WIDTH),
        "attn_norm": scale(),
        **below("attn/", attn),
        "ffn_norm": scale(),
        **below("ffn/", ffn),
        "norm": scale(),
        "head": kernel(WIDTH, VOCABULARY, head=True),
    }
    return Model(apply, params, (integers(BATCH, LENGTH),), truth)


@model
def grouped_query_scan() -> Model:
    """MaxText's manner: a scan, kernels (D, H, K), normed queries, a window."""
    groups, layers, window = 2, 3, 3

    def layer(x, p):
        h = rms(x, p["pre"])
        q = jnp.einsum("bld,dnh->blnh", h, p["query"])
        k = jnp.einsum("dkh,bld->blkh", p["key"], h)
        v = jnp.einsum("bld,khd->blkh", h, p["value"])
        q, k = rotary(rms(q, p["q_norm"])), rotary(rms(k, p["k_norm"]))
        q = q.reshape(BATCH, LENGTH, groups, HEADS // groups, SIZE)
        scores = jnp.einsum("btkgh,bskh->bkgts", q, k)
        scores = 50.0 * jnp.tanh(scores / 50.0)
        apart = jnp.arange(LENGTH)[:, None] - jnp.arange(LENGTH)
        scores = jnp.where((apart >= 0) & (apart < window), scores, -1e30)
        y = jnp.einsum("bkgts,bskh->btkgh", jax.nn.softmax(scores), v)
        y = y.reshape(BATCH, LENGTH, HEADS, SIZE)
        x = x + rms(jnp.einsum("nhd,blnh->bld", p["out"], y), p["post"])
        h = rms(x, p["mlp_norm"])
        wi = jnp.einsum("blm,mcf->blcf", h, p["wi"])
        h = jax.nn.gelu(wi[:, :, 0]) * wi[:, :, 1]
        return x + jnp.einsum("blf,fm->blm", h, p["wo"]), None

    def apply(p, tokens):
        x = jnp.take(p["embedding"], tokens, axis=0) * WIDTH**0.5
        x, _ = jax.lax.scan(jax.checkpoint(layer), x, p["layers"], unroll=2)
        x = rms(x, p["decoder_norm"])
        logits = jnp.einsum("...d,vd->...v", x, p["embedding"])
        return 30.0 * jnp.tanh(logits / 30.0)

    one = {
        "pre": floats(WIDTH),
        "query": floats(WIDTH, HEADS, SIZE),
        "key": floats(WIDTH, groups, SIZE),
        "value": floats(groups, SIZE, WIDTH),
        "q_norm": floats(SIZE),
        "k_norm": floats(SIZE),
        "out": floats(HEADS, SIZE, WIDTH),
        "post": floats(WIDTH),
        "mlp_norm": floats(WIDTH),
        "wi": floats(WIDTH, 2, HIDDEN),
        "wo": floats(HIDDEN, WIDTH),
    }
    stack = jax.tree.map(lambda leaf: floats(layers, *leaf.shape), one)
    params = {
        "embedding": floats(VOCABULARY, WIDTH),
        "layers": stack,
        "decoder_norm": floats(WIDTH),
    }
    shared = groups * SIZE
    own = {
        "pre": scale(),
        "query": kernel(WIDTH, INNER, 0, (1, 2), part="query"),
        "key": kernel(WIDTH, shared, 0, (1, 2), part="key"),
        "value": kernel(WIDTH, shared, 2, (0, 1), part="value"),
        "q_norm": scale(),
        "k_norm": scale(),
        "out": kernel(
            INNER, WIDTH, (0, 1), 2, part="attention output", residual=(0, 6)
        ),
        "post": scale(),
        "mlp_norm": scale(),
        "wi": kernel(
            WIDTH,
            2 * HIDDEN,
            0,
            (1, 2),
            function=ANY,
            sections=[
                (1, ((0, 1),), "gate", "gelu"),
                (1, ((1, 2),), "up", "identity"),
            ],
        ),
        "wo": kernel(HIDDEN, WIDTH, residual=(1, 6)),
    }
    truth = {
        "embedding": [
            embedding(WIDTH, multiplier=WIDTH**0.5),
            # The cap is a constant, tanh and a constant.
            kernel(WIDTH, VOCABULARY, 1, 0, head=True, function=ANY, multiplier=1 / 30),
        ],
        **below("layers/", stacked(own)),
        "decoder_norm": scale(),
    }
    return Model(apply, params, (integers(BATCH, LENGTH),), truth)
