"""Plain functions: slots, latents, memories, capsules and splines."""

import functools
import itertools

import jax
import jax.numpy as jnp

from zoo.layers import affine, linear
from zoo.truths import (
    ANY,
    Model,
    Use,
    below,
    bias,
    convolution,
    dense,
    embedding,
    every,
    floats,
    integers,
    kernel,
    model,
    norm,
    one_of,
    position,
    token,
)
from zoo.truths import layer_norm as normed

BATCH, LENGTH, WIDTH, HIDDEN, VOCABULARY = 2, 6, 8, 12, 15


def vector(size=WIDTH):
    return {"scale": floats(size), "bias": floats(size)}


@model
def slot_attention() -> Model:
    """Locatello et al. 2020: slots compete by a softmax; a GRU, three times."""
    slots, size = 3, 10

    def gru(p, x, h):
        z = jax.nn.sigmoid(x @ p["xz"] + h @ p["hz"] + p["bz"])
        r = jax.nn.sigmoid(x @ p["xr"] + h @ p["hr"] + p["br"])
        n = jnp.tanh(x @ p["xn"] + (r * h) @ p["hn"] + p["bn"])
        return (1 - z) * h + z * n

    def apply(p, x):
        x = normed(linear(p["embed"], x), p["norm_inputs"])
        k, v = x @ p["project_k"], x @ p["project_v"]
        state = jnp.broadcast_to(p["slots"], (BATCH, slots, size))

        def step(_, state):
            q = (normed(state, p["norm_slots"]) @ p["project_q"]) * HIDDEN**-0.5
            weights = jax.nn.softmax(jnp.einsum("bnd,bsd->bns", k, q), axis=-1) + 1e-8
            weights /= weights.sum(axis=1, keepdims=True)
            updates = jnp.einsum("bns,bnd->bsd", weights, v)
            return gru(p["gru"], updates, state)

        state = jax.lax.fori_loop(0, 3, step, state)
        return linear(p["out"], jax.nn.relu(linear(p["mlp"], state)))

    params = {
        "embed": affine(5, WIDTH),
        "norm_inputs": vector(),
        "project_k": floats(WIDTH, HIDDEN),
        "project_v": floats(WIDTH, HIDDEN),
        "slots": floats(slots, size),
        "norm_slots": vector(size),
        "project_q": floats(size, HIDDEN),
        "gru": {
            **{f"x{g}": floats(HIDDEN, size) for g in "zrn"},
            **{f"h{g}": floats(size, size) for g in "zrn"},
            **{f"b{g}": floats(size) for g in "zrn"},
        },
        "mlp": affine(size, 20),
        "out": affine(20, 4),
    }
    parts = {"z": "update gate", "r": "reset gate", "n": "candidate"}
    truth = {
        **dense("embed", 5, WIDTH),
        **norm("norm_inputs"),
        "project_k": kernel(WIDTH, HIDDEN, part="key"),
        "project_v": kernel(WIDTH, HIDDEN, part="value"),
        "slots": token(size, 0, 1),
        **norm("norm_slots"),
        # Debatable: whether rounds of one module are time; the queries see the state.
        "project_q": kernel(
            size, HIDDEN, part="query", multiplier=HIDDEN**-0.5, recurrent=ANY
        ),
        **dense("mlp", size, 20, function="relu"),
        **dense("out", 20, 4, head=True),
    }
    for g, part in parts.items():
        own = {"part": part, "function": "tanh" if g == "n" else "sigmoid"}
        # Debatable: it is the first kernel after the weighted sum, and sees the state.
        own_x = own | {"part": one_of(part, "attention output"), "recurrent": ANY}
        truth[f"gru/x{g}"] = kernel(HIDDEN, size, **own_x)
        truth[f"gru/h{g}"] = kernel(size, size, recurrent=True, **own)
        truth[f"gru/b{g}"] = bias([f"gru/x{g}", f"gru/h{g}"], part=part)
    return Model(apply, params, (floats(BATCH, LENGTH, 5),), truth)


@model
def perceiver() -> Model:
    """Jaegle et al. 2021 (Perceiver IO): latents read, and queries read them."""
    latents, size, queries, heads = 3, 10, 4, 2

    def attend(p, x, memory, residual=True):
        q = linear(p["q"], normed(x, p["norm"]))
        kv = normed(memory, p["norm_kv"])
        k, v = linear(p["k"], kv), linear(p["v"], kv)
        q, k, v = (t.reshape(BATCH, -1, heads, HIDDEN // heads) for t in (q, k, v))
        y = jax.nn.dot_product_attention(q, k, v).reshape(BATCH, -1, HIDDEN)
        y = linear(p["o"], y)
        return x + y if residual else y

    def mlp(p, x):
        return x + linear(p["fc2"], jax.nn.gelu(linear(p["fc1"], normed(x, p["norm"]))))

    def apply(p, tokens):
        x = p["embed"][tokens]
        x = jnp.concatenate(
            [x, jnp.broadcast_to(p["places"], (BATCH, *p["places"].shape))], axis=-1
        )
        z = jnp.tile(p["latents"][None], (BATCH, 1, 1))
        z = mlp(p["encode_mlp"], attend(p["encode"], z, x))
        z = mlp(p["self_mlp"], attend(p["self"], z, z))
        o = jnp.tile(p["queries"][None], (BATCH, 1, 1))
        return attend(p["decode"], o, z, residual=False) @ p["head"]

    features = WIDTH + 3

    def attention(x, memory, out):
        return {
            "norm": vector(x),
            "norm_kv": vector(memory),
            "q": affine(x, HIDDEN),
            "k": affine(memory, HIDDEN),
            "v": affine(memory, HIDDEN),
            "o": affine(HIDDEN, out),
        }

    two = {"norm": vector(size), "fc1": affine(size, 14), "fc2": affine(14, size)}
    params = {
        "embed": floats(VOCABULARY, WIDTH),
        "places": floats(LENGTH, 3),
        "latents": floats(latents, size),
        "encode": attention(size, features, size),
        "encode_mlp": two,
        "self": attention(size, size, size),
        "self_mlp": two,
        "queries": floats(queries, 7),
        "decode": attention(7, size, 9),
        "head": floats(9, 2),
    }

    def attention_truth(x, memory, out, residual):
        return {
            **norm("norm"),
            **norm("norm_kv"),
            # Its scaling is inside of the function that attends.
            "q/kernel": kernel(x, HIDDEN, part="query", multiplier=ANY),
            "q/bias": bias("q/kernel", part="query", multiplier=ANY),
            **dense("k", memory, HIDDEN, part="key"),
            **dense("v", memory, HIDDEN, part="value"),
            **dense("o", HIDDEN, out, part="attention output", residual=residual),
        }

    def mlp_truth(index):
        return {
            **norm("norm"),
            **dense("fc1", size, 14, function="gelu"),
            **dense("fc2", 14, size, residual=(index, 4)),
        }

    truth = {
        "embed": embedding(WIDTH),
        # Concatenated, but by position: it varies with the place of each token.
        "places": Use(
            one_of("position", "embedding"), 0, 1, fan_in=ANY, fan_out=ANY, part=ANY
        ),
        "latents": token(size, 0, 1),
        **below("encode/", attention_truth(size, features, size, (0, 4))),
        **below("encode_mlp/", mlp_truth(1)),
        **below("self/", attention_truth(size, size, size, (2, 4))),
        **below("self_mlp/", mlp_truth(3)),
        "queries": token(7, 0, 1),
        **below("decode/", attention_truth(7, size, 9, None)),
        "head": kernel(9, 2, head=True),
    }
    return Model(apply, params, (integers(BATCH, LENGTH),), truth)


@model
def end_to_end_memory() -> Model:
    """Sukhbaatar et al. 2015: bags of words as memories, with tables of times."""
    sentences, words, hops = 5, 4, 2

    def apply(p, story, question):
        u = p["B"][question].sum(1)
        for hop in p["hops"]:
            m = p["A"][story].sum(2) + hop["T_A"]
            c = p["C"][story].sum(2) + hop["T_C"]
            weights = jax.nn.softmax(jnp.einsum("bd,bsd->bs", u, m), axis=-1)
            o = jnp.einsum("bs,bsd->bd", weights, c)
            u = jnp.einsum("bd,de->be", u, hop["H"]) + o
        return jnp.einsum("bd,vd->bv", u, p["W"])

    hop = {
        "T_A": floats(sentences, WIDTH),
        "T_C": floats(sentences, WIDTH),
        "H": floats(WIDTH, WIDTH),
    }
    params = {
        "A": floats(VOCABULARY, WIDTH),
        "B": floats(VOCABULARY, WIDTH),
        "C": floats(VOCABULARY, WIDTH),
        "hops": [hop] * hops,
        "W": floats(VOCABULARY, WIDTH),
    }
    # Debatable: embeddings that are themselves keys and values.
    table = embedding(WIDTH, part=ANY)
    truth = {
        "A": [table] * hops,
        "B": table,
        "C": [table] * hops,
        **every(
            "hops/{}/",
            hops,
            {
                "T_A": position(part=ANY),
                "T_C": position(part=ANY),
                "H": kernel(WIDTH, WIDTH, residual=ANY, part=ANY),
            },
        ),
        "W": kernel(WIDTH, VOCABULARY, 1, 0, head=True, part=ANY),
    }
    inputs = (integers(BATCH, sentences, words), integers(BATCH, words))
    return Model(apply, params, inputs, truth)


@model
def capsules() -> Model:
    """Sabour et al. 2017: votes by a kernel for each pair, and routing by agreement."""
    size, inputs, outputs, out_size = 4, 18, 3, 5

    def squash(s):
        squared = jnp.sum(s**2, axis=-1, keepdims=True)
        return squared / (1 + squared) * s / jnp.sqrt(squared + 1e-8)

    def conv(x, p, stride):
        y = jax.lax.conv_general_dilated(
            x,
            p["w"],
            (stride, stride),
            "VALID",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        return y + p["b"]

    def apply(p, x):
        x = jax.nn.relu(conv(x, p["conv"], 1))
        u = squash(conv(x, p["primary"], 2).reshape(BATCH, inputs, size))
        votes = jnp.einsum("jiod,bij->biod", p["votes"], u)
        agreed = jnp.zeros((BATCH, inputs, outputs))
        for _ in range(2):
            c = jax.nn.softmax(agreed, axis=-1)
            v = squash(jnp.einsum("bio,biod->bod", c, votes))
            agreed = agreed + jnp.einsum("bod,biod->bio", v, votes)
        h = jax.nn.relu(linear(p["decode1"], v.reshape(BATCH, -1)))
        return jnp.linalg.norm(v, axis=-1), jax.nn.sigmoid(linear(p["decode2"], h))

    params = {
        "conv": {"w": floats(3, 3, 1, 6), "b": floats(6)},
        "primary": {"w": floats(3, 3, 6, 8), "b": floats(8)},
        "votes": floats(size, inputs, outputs, out_size),
        "decode1": affine(outputs * out_size, 12),
        "decode2": affine(12, 81),
    }
    truth = {
        "conv/w": convolution(9, 54, function="relu"),
        "conv/b": bias("conv/w"),
        # Debatable: a squash is a norm, or a function.
        "primary/w": convolution(54, 72, function=ANY),
        "primary/b": bias("primary/w"),
        "votes": kernel(
            size, outputs * out_size, 0, (2, 3), batch_axis=1, function=ANY, part=ANY
        ),
        **dense("decode1", outputs * out_size, 12, function="relu", part=ANY),
        **dense("decode2", 12, 81, function="sigmoid", head=True),
    }
    return Model(apply, params, (floats(BATCH, 9, 9, 1),), truth)


@model
def splines() -> Model:
    """Liu et al. 2024 (KAN): a kernel on bases of each input, beside a plain one."""
    bases = 5

    def basis(x):
        centers = jnp.linspace(-1, 1, bases)
        return jnp.maximum(1 - jnp.abs(x[..., None] - centers) * 2, 0) ** 3

    def layer(p, x):
        plain = jnp.einsum("oi,...i->...o", p["base"], jax.nn.silu(x))
        return plain + jnp.einsum("...ik,iok->...o", basis(x), p["spline"])

    def apply(p, x):
        return functools.reduce(lambda x, layer_p: layer(layer_p, x), p["layers"], x)

    sizes = [4, 7, 3]
    params = {"layers": []}
    truth = {}
    for i, (a, b) in enumerate(itertools.pairwise(sizes)):
        params["layers"].append({"base": floats(b, a), "spline": floats(a, b, bases)})
        last = i == len(sizes) - 2
        # Debatable: their sum is read by a silu, and by the bases.
        rest = {"head": last, "function": "identity" if last else ANY}
        truth[f"layers/{i}/base"] = kernel(a, b, 1, 0, **rest)
        truth[f"layers/{i}/spline"] = kernel(a * bases, b, (0, 2), 1, **rest)
    return Model(apply, params, (floats(BATCH, 4),), truth)


@model
def multiplicative_filters() -> Model:
    """Fathony et al. 2021 (MFN): sines of the input gate a linear stack."""
    layers = 3

    def apply(p, x):
        g = [jnp.sin(linear(f, x)) for f in p["filters"]]
        z = g[0]
        for f, layer in zip(g[1:], p["linear"], strict=True):
            z = f * linear(layer, z)
        return linear(p["out"], z)

    params = {
        "filters": [affine(2, WIDTH)] * layers,
        "linear": [affine(WIDTH, WIDTH)] * (layers - 1),
        "out": affine(WIDTH, 3),
    }
    truth = {
        **dense("filters/0", 2, WIDTH, function="sin"),
        **dense("out", WIDTH, 3, head=True),
    }
    for i in range(1, layers):
        truth |= dense(f"filters/{i}", 2, WIDTH, function="sin", part="gate")
        truth |= dense(f"linear/{i - 1}", WIDTH, WIDTH, part="up")
    return Model(apply, params, (floats(BATCH, 2),), truth)


@model
def hash_grid() -> Model:
    """Muller et al. 2022 (Instant NGP): corners of grids, hashed into small tables."""
    rows, features, levels = 16, 2, 3

    def looked_up(table, x, resolution):
        scaled = x * resolution
        low = jnp.floor(scaled).astype(jnp.uint32)
        part = scaled - jnp.floor(scaled)
        total = 0.0
        for corner in ((0, 0), (0, 1), (1, 0), (1, 1)):
            at = low + jnp.array(corner, jnp.uint32)
            index = (at[..., 0] ^ (at[..., 1] * jnp.uint32(2654435761))) % rows
            near = jnp.where(jnp.array(corner) == 1, part, 1 - part)
            total += table[index] * near.prod(-1, keepdims=True)
        return total

    def apply(p, x):
        h = [looked_up(t, x, 4 * 2**i) for i, t in enumerate(p["tables"])]
        h = jax.nn.relu(jnp.concatenate(h, -1) @ p["w0"])
        return jax.nn.sigmoid(h @ p["w1"])

    params = {
        "tables": [floats(rows, features)] * levels,
        "w0": floats(levels * features, HIDDEN),
        "w1": floats(HIDDEN, 3),
    }
    truth = {
        # Four corners: a use for each.
        **{f"tables/{i}": [embedding(features)] * 4 for i in range(levels)},
        "w0": kernel(levels * features, HIDDEN, function="relu"),
        "w1": kernel(HIDDEN, 3, function="sigmoid", head=True),
    }
    return Model(apply, params, (floats(BATCH, 2),), truth)
