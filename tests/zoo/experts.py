"""Plain functions: experts that choose tokens, or are chosen, softly or by capacity."""

import jax
import jax.numpy as jnp

from zoo.layers import causal
from zoo.truths import (
    ANY,
    Model,
    bias,
    cut,
    embedding,
    every,
    floats,
    gate,
    integers,
    kernel,
    model,
    position,
    scale,
)
from zoo.truths import rms_norm as rms

BATCH, LENGTH, WIDTH, HEADS, SIZE, HIDDEN, VOCABULARY = 2, 6, 12, 4, 4, 10, 17
INNER = HEADS * SIZE


@model
def expert_choice() -> Model:
    """Zhou et al. 2022: each expert takes its best tokens, and adds them back."""
    experts, capacity = 3, 4

    def choose(p, x):
        tokens = x.reshape(-1, WIDTH)
        scores = jax.nn.softmax(tokens @ p["router"]["w"] + p["router"]["b"], axis=-1)
        weights, chosen = jax.lax.top_k(scores.T, capacity)
        given = jnp.take(tokens, chosen, axis=0)
        h = jnp.einsum("ecd,efd->ecf", given, p["wi"]) + p["bi"][:, None]
        y = jnp.einsum("ecf,edf->ecd", jax.nn.relu(h), p["wo"]) + p["bo"][:, None]
        y = jnp.zeros_like(tokens).at[chosen].add(y * weights[..., None])
        return y.reshape(x.shape)

    def apply(p, x):
        x = x @ p["embed"]
        x = x + choose(p["moe"], rms(x, p["norm"]))
        return jnp.mean(x, axis=1) @ p["head"]

    params = {
        "embed": floats(5, WIDTH),
        "norm": floats(WIDTH),
        "moe": {
            "router": {"w": floats(WIDTH, experts), "b": floats(experts)},
            "wi": floats(experts, HIDDEN, WIDTH),
            "bi": floats(experts, HIDDEN),
            "wo": floats(experts, WIDTH, HIDDEN),
            "bo": floats(experts, WIDTH),
        },
        "head": floats(WIDTH, 3),
    }
    axes = {"batch_axis": 0, "in_axis": 2, "out_axis": 1}
    truth = {
        "embed": kernel(5, WIDTH),
        "norm": scale(),
        "moe/router/w": kernel(WIDTH, experts, part="router"),
        "moe/router/b": bias("moe/router/w", part="router"),
        "moe/wi": kernel(WIDTH, HIDDEN, function="relu", **axes),
        "moe/bi": bias("moe/wi", 1, batch_axis=0),
        "moe/wo": kernel(HIDDEN, WIDTH, residual=(0, 1), **axes),
        "moe/bo": bias("moe/wo", 1, batch_axis=0),
        "head": kernel(WIDTH, 3, head=True),
    }
    return Model(apply, params, (floats(BATCH, LENGTH, 5),), truth)


@model
def soft_experts() -> Model:
    """Puigcerver et al. 2023 (Soft MoE): slots are means of tokens, by one kernel."""
    experts, slots = 3, 2

    def soft(p, x):
        logits = jnp.einsum("bmd,dnp->bmnp", x, p["phi"])
        dispatch = jax.nn.softmax(logits, axis=1)
        combine = jax.nn.softmax(logits.reshape(BATCH, LENGTH, -1), axis=-1)
        given = jnp.einsum("bmd,bmnp->bnpd", x, dispatch)

        def expert(p, x):
            return jax.nn.gelu(x @ p["w1"] + p["b1"]) @ p["w2"]

        y = jax.vmap(expert, in_axes=(0, 1), out_axes=1)(p["experts"], given)
        y = y.reshape(BATCH, experts * slots, WIDTH)
        return jnp.einsum("bsd,bms->bmd", y, combine)

    def apply(p, x):
        x = x @ p["embed"] + p["places"]
        x = x + p["gamma"] * soft(p["moe"], rms(x, p["norm"]))
        return x.mean(-2) @ p["head"]

    params = {
        "embed": floats(5, WIDTH),
        "places": floats(LENGTH, WIDTH),
        "gamma": floats(),
        "norm": floats(WIDTH),
        "moe": {
            "phi": floats(WIDTH, experts, slots),
            "experts": {
                "w1": floats(experts, WIDTH, HIDDEN),
                "b1": floats(experts, HIDDEN),
                "w2": floats(experts, HIDDEN, WIDTH),
            },
        },
        "head": floats(WIDTH, 3),
    }
    axes = {"batch_axis": 0, "in_axis": 1, "out_axis": 2}
    truth = {
        "embed": kernel(5, WIDTH),
        "places": position(),
        "gamma": gate(),
        "norm": scale(),
        # Debatable: a router, whose two softmaxes weigh tokens, and experts' slots.
        "moe/phi": kernel(WIDTH, experts * slots, 0, (1, 2), part=ANY),
        # Debatable: the tokens' means are weighted sums, as of an attention.
        "moe/experts/w1": kernel(WIDTH, HIDDEN, function="gelu", part=ANY, **axes),
        "moe/experts/b1": bias("moe/experts/w1", 1, batch_axis=0, part=ANY),
        "moe/experts/w2": kernel(HIDDEN, WIDTH, residual=(0, 1), part=ANY, **axes),
        "head": kernel(WIDTH, 3, head=True),
    }
    return Model(apply, params, (floats(BATCH, LENGTH, 5),), truth)


@model
def sparse_upcycled_switch() -> Model:
    """Fedus et al. 2021 (Switch): one-hot dispatch with a capacity, after ALiBi."""
    experts, capacity, layers = 3, 4, 2

    def attend(p, x):
        q, k, v = jnp.einsum("btd,cdnh->cbtnh", x, p["qkv"])
        scores = jnp.einsum("btnh,bsnh->bnts", q, k) / jnp.sqrt(SIZE)
        apart = jnp.arange(LENGTH)[None] - jnp.arange(LENGTH)[:, None]
        slopes = 2.0 ** -jnp.arange(1.0, HEADS + 1)
        weights = causal(scores + slopes[:, None, None] * apart)
        return jnp.einsum("bnts,bsnh,nhd->btd", weights, v, p["out"])

    def switch(p, x):
        probs = jax.nn.softmax(jnp.einsum("btd,de->bte", x, p["router"]))
        best = jax.nn.one_hot(jnp.argmax(probs, -1), experts, dtype=jnp.int32)
        place = jnp.cumsum(best, axis=1) * best - 1
        mask = jax.nn.one_hot(place, capacity) * (place < capacity)[..., None]
        h = jnp.einsum("btd,btec->becd", x, mask)
        h = jax.nn.relu(jnp.einsum("becd,edf->becf", h, p["wi"]))
        h = jnp.einsum("becf,efd->becd", h, p["wo"])
        return jnp.einsum("becd,btec,bte->btd", h, mask, probs)

    def apply(p, tokens):
        x = p["embed"][tokens]
        for layer in p["layers"]:
            x = x + attend(layer["attn"], rms(x, layer["norm"]))
            x = x + switch(layer["moe"], rms(x, layer["moe_norm"]))
        return jnp.dot(x[:, -1], p["embed"].T)

    layer = {
        "norm": floats(WIDTH),
        "attn": {
            "qkv": floats(3, WIDTH, HEADS, SIZE),
            "out": floats(HEADS, SIZE, WIDTH),
        },
        "moe_norm": floats(WIDTH),
        "moe": {
            "router": floats(WIDTH, experts),
            "wi": floats(experts, WIDTH, HIDDEN),
            "wo": floats(experts, HIDDEN, WIDTH),
        },
    }
    params = {"embed": floats(VOCABULARY, WIDTH), "layers": [layer] * layers}
    axes = {"batch_axis": 0, "in_axis": 1, "out_axis": 2}
    own = {
        "norm": scale(),
        "attn/qkv": kernel(
            WIDTH,
            3 * INNER,
            1,
            (0, 2, 3),
            sections=cut(0, 1, ("query", "key", "value")),
        ),
        "attn/out": kernel(
            INNER, WIDTH, (0, 1), 2, part="attention output", residual=(0, 4)
        ),
        "moe_norm": scale(),
        "moe/router": kernel(WIDTH, experts, part="router"),
        "moe/wi": kernel(WIDTH, HIDDEN, function="relu", **axes),
        "moe/wo": kernel(HIDDEN, WIDTH, residual=(1, 4), **axes),
    }
    truth = {
        "embed": [embedding(WIDTH), kernel(WIDTH, VOCABULARY, 1, 0, head=True)],
        **every("layers/{}/", layers, own),
    }
    return Model(apply, params, (integers(BATCH, LENGTH),), truth)
