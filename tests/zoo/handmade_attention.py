"""Transformers by hand: heads in lists, caches, maps over heads, flat vectors."""

import dataclasses

import jax
import jax.numpy as jnp

from zoo.truths import (
    ANY,
    Model,
    bias,
    dense,
    embedding,
    every,
    floats,
    integers,
    kernel,
    model,
    norm,
    position,
    scale,
    stacked,
)

B, T, D, F, HEADS, SIZE, V = 2, 6, 12, 15, 3, 4, 19
INNER = HEADS * SIZE
ORDER = ("query", "key", "value")


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Block:
    """Of `letters_from_scratch`: kernels in lists, one for each head."""

    key: list
    query: list
    value: list
    proj: tuple
    ln1: tuple
    ln2: tuple
    up: tuple
    down: tuple


@model
def letters_from_scratch() -> Model:
    """A GPT of a video course: heads in lists, tril, dropout by keys.

    Parameters are dataclasses that are registered as pytrees.
    """
    n_layer = 2

    def ln(x, p):
        gamma, beta = p
        mean, var = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
        return gamma * (x - mean) / jnp.sqrt(var + 1e-5) + beta

    def dropped(x, key):
        return x * jax.random.bernoulli(key, 0.8, x.shape) / 0.8

    def head(b, i, x, key):
        t = x.shape[1]
        k, q = x @ b.key[i], x @ b.query[i]
        wei = q @ k.swapaxes(-2, -1) * k.shape[-1] ** -0.5
        wei = jnp.where(jnp.tril(jnp.ones((t, t))) == 0, -jnp.inf, wei)
        return dropped(jax.nn.softmax(wei, axis=-1), key) @ (x @ b.value[i])

    def apply(p, idx, key):
        x = p["tok"][idx] + p["pos"][jnp.arange(idx.shape[1])]
        for b in p["blocks"]:
            key, *keys = jax.random.split(key, HEADS + 3)
            h = ln(x, b.ln1)
            y = jnp.concatenate([head(b, i, h, keys[i]) for i in range(HEADS)], -1)
            x = x + dropped(y @ b.proj[0] + b.proj[1], keys[-2])
            h = jnp.maximum(ln(x, b.ln2) @ b.up[0] + b.up[1], 0.0)
            x = x + dropped(h @ b.down[0] + b.down[1], keys[-1])
        x = ln(x, p["ln_f"])
        return x @ p["lm_head"][0] + p["lm_head"][1]

    many, pair = [floats(D, SIZE)] * HEADS, (floats(D), floats(D))
    one = Block(
        key=many, query=many, value=many, proj=(floats(INNER, D), floats(D)),
        ln1=pair, ln2=pair, up=(floats(D, F), floats(F)),
        down=(floats(F, D), floats(D)),
    )  # fmt: skip
    params = {
        "tok": floats(V, D), "pos": floats(T, D), "blocks": [one] * n_layer,
        "ln_f": pair, "lm_head": (floats(D, V), floats(V)),
    }  # fmt: skip

    def affine(path, a, b, **rest):
        return dense(path, a, b, weight="0", offset="1", **rest)

    def writes(path, a, i, **rest):
        # Debatable: dropout's factor.
        truth = affine(path, a, D, residual=(i, 2 * n_layer), multiplier=ANY, **rest)
        part = rest.get("part")
        return truth | {f"{path}/1": bias(f"{path}/0", part=part, multiplier=ANY)}

    block = {
        **{f"{part}/{i}": kernel(D, SIZE, part=part) for part in ORDER
           for i in range(HEADS)},
        **writes("proj", INNER, 0, part="attention output"),
        **norm("ln1", "0", "1"),
        **norm("ln2", "0", "1"),
        **affine("up", D, F, function="relu"),
        **writes("down", F, 1),
    }  # fmt: skip
    # Debatable: dropout of the weights, or of the values that they weigh.
    for i in range(HEADS):
        block[f"value/{i}"] = kernel(D, SIZE, part="value", multiplier=ANY)
    truth = {
        "tok": embedding(D),
        "pos": position(),
        **every("blocks/{}/", n_layer, block),
        **norm("ln_f", "0", "1"),
        **affine("lm_head", D, V, head=True),
    }
    raw = jax.ShapeDtypeStruct((2,), jnp.uint32)
    return Model(apply, params, (integers(B, T), raw), truth)


@model
def one_more_word() -> Model:
    """Decoding with caches: one token, scanned layers, keys that are written in place.

    Pairs are turned by the place, which is an input; two heads share a key.
    """
    layers, past, groups = 2, 7, 2
    heads = 4
    inner, small = heads * SIZE, groups * SIZE

    def rms(x, w):
        y = x.astype(jnp.float32)
        y = y / jnp.sqrt(jnp.mean(y * y, axis=-1, keepdims=True) + 1e-6)
        return y.astype(x.dtype) * w

    def turned(x, at):
        angle = at * 10.0 ** -jnp.arange(SIZE // 2)
        even, odd = x[..., ::2], x[..., 1::2]
        y = jnp.stack(
            [even * jnp.cos(angle) - odd * jnp.sin(angle),
             even * jnp.sin(angle) + odd * jnp.cos(angle)], axis=-1,
        )  # fmt: skip
        return y.reshape(x.shape)

    def apply(p, token, at, keys, values):
        def layer(x, inputs):
            w, ks, vs = inputs
            h = rms(x, w["attn_norm"])
            q = turned((h @ w["wq"]).reshape(B, heads, SIZE), at)
            k = turned((h @ w["wk"]).reshape(B, groups, SIZE), at)
            v = (h @ w["wv"]).reshape(B, groups, SIZE)
            ks = jax.lax.dynamic_update_slice(ks, k[:, None], (0, at, 0, 0))
            vs = jax.lax.dynamic_update_slice(vs, v[:, None], (0, at, 0, 0))
            q = q.reshape(B, groups, heads // groups, SIZE)
            s = jnp.einsum("bgrd,btgd->bgrt", q, ks) / jnp.sqrt(SIZE)
            s = jnp.where(jnp.arange(past) <= at, s, jnp.finfo(s.dtype).min)
            y = jnp.einsum("bgrt,btgd->bgrd", jax.nn.softmax(s, axis=-1), vs)
            x = x + y.reshape(B, inner) @ w["wo"]
            h = rms(x, w["ffn_norm"])
            x = x + (jax.nn.silu(h @ w["w1"]) * (h @ w["w3"])) @ w["w2"]
            return x, (ks, vs)

        x, caches = jax.lax.scan(layer, p["tok"][token], (p["layers"], keys, values))
        return rms(x, p["norm"]) @ p["output"], caches

    def many(*shape):
        return floats(layers, *shape)

    params = {
        "tok": floats(V, D),
        "layers": {
            "attn_norm": many(D), "wq": many(D, inner), "wk": many(D, small),
            "wv": many(D, small), "wo": many(inner, D), "ffn_norm": many(D),
            "w1": many(D, F), "w2": many(F, D), "w3": many(D, F),
        },
        "norm": floats(D), "output": floats(D, V),
    }  # fmt: skip
    own = {
        "attn_norm": scale(),
        "wq": kernel(D, inner, part="query"),
        "wk": kernel(D, small, part="key"),
        "wv": kernel(D, small, part="value"),
        "wo": kernel(inner, D, part="attention output", residual=(0, 2 * layers)),
        "ffn_norm": scale(),
        "w1": kernel(D, F, function="silu", part="gate"),
        "w2": kernel(F, D, residual=(1, 2 * layers)),
        "w3": kernel(D, F, part="up"),
    }
    truth = {
        "tok": embedding(D),
        **{f"layers/{path}": use for path, use in stacked(own).items()},
        "norm": scale(),
        "output": kernel(D, V, head=True),
    }
    cache = floats(layers, B, past, groups, SIZE)
    return Model(apply, params, (integers(B), integers(), cache, cache), truth)


@model
def heads_mapped_with_slopes() -> Model:
    """ALiBi by vmap over heads, whose kernels lie along the first axis; a tied head.

    Masks are added; heads are joined again before the output.
    """
    layers = 2

    def ln(x, g):
        x = x - x.mean(-1)[..., None]
        return x / (x.std(-1)[..., None] + 1e-6) * (1 + g)

    def head(q_w, k_w, v_w, slope, x):
        q, k, v = x @ q_w, x @ k_w, x @ v_w
        apart = jnp.arange(T)[None, :] - jnp.arange(T)[:, None]
        s = jnp.inner(q, k) / SIZE**0.5 + slope * apart
        s += jnp.where(apart > 0, -1e9, 0.0)
        e = jnp.exp(s - s.max(-1, keepdims=True))
        return (e / e.sum(-1, keepdims=True)) @ v

    def one(p, ids):
        x = p["wte"][ids]
        slopes = 2.0 ** -jnp.arange(1, HEADS + 1)
        for i in range(layers):
            w = {name: leaf[i] for name, leaf in p["layers"].items()}
            h = ln(x, w["g1"])
            maps = jax.vmap(head, in_axes=(0, 0, 0, 0, None), out_axes=1)
            y = maps(w["q"], w["k"], w["v"], slopes, h)
            x = x + y.reshape(T, INNER) @ w["o"] + w["o_b"]
            x = x + jax.nn.gelu(ln(x, w["g2"]) @ w["up"] + w["up_b"]) @ w["down"]
        return ln(x, p["g"]) @ p["wte"].T

    def apply(p, ids):
        return jax.vmap(one, (None, 0))(p, ids)

    def many(*shape):
        return floats(layers, *shape)

    params = {
        "wte": floats(V, D),
        "layers": {
            "g1": many(D), "g2": many(D), **{c: many(HEADS, D, SIZE) for c in "qkv"},
            "o": many(INNER, D), "o_b": many(D), "up": many(D, F), "up_b": many(F),
            "down": many(F, D),
        },
        "g": floats(D),
    }  # fmt: skip
    row = {"out_axis": 1, "stack_axis": 0}
    # Debatable: heads of one kernel, or one kernel for each head.
    heads = {"out_axis": ANY, "batch_axis": ANY, "stack_axis": 0}
    total = 2 * layers
    layer = {
        **{name: [scale(**row, offset=1.0)] * layers for name in ("g1", "g2")},
        **{
            name: [kernel(D, ANY, 2, part=part, **heads)] * layers
            for name, part in zip("qkv", ORDER, strict=True)
        },
        "o": [
            kernel(INNER, D, 1, 2, part="attention output", residual=(2 * i, total),
                   stack_axis=0)
            for i in range(layers)
        ],
        "up": [kernel(D, F, 1, 2, "gelu", stack_axis=0)] * layers,
        "down": [
            kernel(F, D, 1, 2, residual=(2 * i + 1, total), stack_axis=0)
            for i in range(layers)
        ],
    }  # fmt: skip
    layer["o_b"] = [bias("layers/o", part="attention output", **row)] * layers
    layer["up_b"] = [bias("layers/up", **row)] * layers
    truth = {
        "wte": [embedding(D), kernel(D, V, 1, 0, head=True)],
        **{f"layers/{path}": uses for path, uses in layer.items()},
        "g": scale(offset=1.0),
    }
    return Model(apply, params, (integers(B, T),), truth)


@model
def branches_at_once() -> Model:
    """GPT-J: attention and feed-forward read one norm; half of each head is turned."""
    layers, part = 2, 2

    def rotate_every_two(x):
        x1, x2 = x[:, :, :, ::2], x[:, :, :, 1::2]
        return jnp.stack((-x2, x1), axis=-1).reshape(x.shape)

    def turned(x):
        angles = jnp.arange(T)[:, None] * 0.3 ** jnp.arange(part // 2)
        sin, cos = (jnp.repeat(f(angles), 2, axis=-1)[:, None] for f in
                    (jnp.sin, jnp.cos))  # fmt: skip
        first, rest = x[..., :part], x[..., part:]
        first = first * cos + rotate_every_two(first) * sin
        return jnp.concatenate([first, rest], axis=-1)

    def norm_(x, p):
        mean = jnp.mean(x, -1, keepdims=True)
        second = jnp.mean(x**2, -1, keepdims=True)
        return (x - mean) * jax.lax.rsqrt(second - mean**2 + 1e-5) * p["w"] + p["b"]

    def apply(p, ids):
        mask = jnp.tril(jnp.ones((T, T), bool))
        x = p["wte"].at[ids].get()
        for q_ in p["h"]:
            h = norm_(x, q_["ln"])
            q, k, v = (jnp.dot(h, q_[n]).reshape(B, T, HEADS, SIZE) for n in "qkv")
            q, k = (turned(y).transpose(0, 2, 1, 3) for y in (q, k))
            s = jnp.matmul(q, k.swapaxes(-1, -2)) / SIZE**0.5
            a = jax.nn.softmax(s, axis=-1, where=mask)
            y = jnp.matmul(a, v.transpose(0, 2, 1, 3)).transpose(0, 2, 1, 3)
            y = y.reshape(B, T, INNER) @ q_["o"]
            m = jax.nn.gelu(h @ q_["fc_in"]["w"] + q_["fc_in"]["b"])
            x = y + (m @ q_["fc_out"]["w"] + q_["fc_out"]["b"]) + x
        return norm_(x, p["ln_f"]) @ p["lm_head"]["w"] + p["lm_head"]["b"]

    def pair(a, b):
        return {"w": floats(a, b), "b": floats(b)}

    ln = {"w": floats(D), "b": floats(D)}
    block = {n: floats(D, INNER) for n in "qkv"} | {"ln": ln, "o": floats(INNER, D)}
    block |= {"fc_in": pair(D, F), "fc_out": pair(F, D)}
    params = {"wte": floats(V, D), "h": [block] * layers, "ln_f": ln}
    params["lm_head"] = pair(D, V)
    total = 2 * layers
    own = {
        **norm("ln", "w", "b"),
        "q": kernel(D, INNER, part="query"),
        "k": kernel(D, INNER, part="key"),
        "v": kernel(D, INNER, part="value"),
        "o": kernel(INNER, D, part="attention output", residual=(0, total)),
        **dense("fc_in", D, F, "w", "b", function="gelu"),
        **dense("fc_out", F, D, "w", "b", residual=(1, total)),
    }
    truth = {
        "wte": embedding(D),
        **every("h/{}/", layers, own),
        **norm("ln_f", "w", "b"),
        **dense("lm_head", D, V, "w", "b", head=True),
    }
    return Model(apply, params, (integers(B, T),), truth)
