"""Plain functions: attentions that few models have, in code that names little."""

import math

import jax
import jax.numpy as jnp

from zoo.layers import affine, linear, scales
from zoo.truths import (
    ANY,
    Model,
    Use,
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
    scale,
    token,
    unknown,
)
from zoo.truths import layer_norm as ln
from zoo.truths import rms_norm as rms

B, T, D, H, S, F, V = 2, 6, 10, 3, 4, 18, 23
I = H * S  # noqa: E741


def heads(x, n=H):
    return x.reshape(*x.shape[:-1], n, -1)


def no_future(s):
    return jnp.where(jnp.tril(jnp.ones(s.shape[-2:], bool)), s, -1e9)


@model
def capped_slopes() -> Model:
    """Grouped queries with ALiBi and a cap; one kernel makes gate and up."""
    q_heads, kv_heads = 4, 2

    def apply(p, t):
        x = p["tok"][t]
        far = jnp.arange(T)[None, :] - jnp.arange(T)[:, None]
        slope = 2.0 ** -jnp.arange(1, q_heads + 1)
        for b in p["blk"]:
            h = rms(x, b["n1"])
            q = heads(h @ b["q"], q_heads)
            k, v = (
                jnp.repeat(heads(h @ b[n], kv_heads), q_heads // kv_heads, axis=2)
                for n in "kv"
            )
            s = jnp.einsum("bqhd,bkhd->bhqk", q, k) / math.sqrt(S)
            s = 30 * jnp.tanh(s / 30) + slope[:, None, None] * far
            a = jax.nn.softmax(no_future(s), axis=-1)
            x = x + jnp.einsum("bhqk,bkhd->bqhd", a, v).reshape(B, T, -1) @ b["o"]
            g, u = jnp.split(rms(x, b["n2"]) @ b["gu"], 2, axis=-1)
            x = x + (jax.nn.silu(g) * u) @ b["d"]
        return rms(x, p["n"]) @ p["out"]

    blk = {
        "n1": floats(D),
        "q": floats(D, q_heads * S),
        "k": floats(D, kv_heads * S),
        "v": floats(D, kv_heads * S),
        "o": floats(q_heads * S, D),
        "n2": floats(D),
        "gu": floats(D, 2 * F),
        "d": floats(F, D),
    }
    params = {"tok": floats(V, D), "blk": [blk] * 2, "n": floats(D)}
    params["out"] = floats(D, V)
    own = {
        "n1": scale(),
        "q": kernel(D, q_heads * S, part="query"),
        "k": kernel(D, kv_heads * S, part="key"),
        "v": kernel(D, kv_heads * S, part="value"),
        "o": kernel(q_heads * S, D, part="attention output", residual=(0, 4)),
        "n2": scale(),
        "gu": kernel(
            D, 2 * F, function=ANY,
            sections=cut(1, F, ("gate", "up"), gate="silu", up="identity"),
        ),
        "d": kernel(F, D, residual=(1, 4)),
    }  # fmt: skip
    truth = {
        "tok": embedding(D),
        **every("blk/{}/", 2, own),
        "n": scale(),
        "out": kernel(D, V, head=True),
    }
    return Model(apply, params, (integers(B, T),), truth)


@model
def compressed_keys() -> Model:
    """DeepSeek 2024 (MLA): low ranks with norms; one turned key for all heads."""
    rank_q, rank_kv, turned = 7, 5, 2

    def turn(x):
        a, b = x[..., ::2], x[..., 1::2]
        t = jnp.arange(T).reshape(T, *[1] * (x.ndim - 3), 1) * 0.3
        y = jnp.stack(
            [a * jnp.cos(t) - b * jnp.sin(t), a * jnp.sin(t) + b * jnp.cos(t)], -1
        )
        return y.reshape(x.shape)

    def apply(p, x):
        x = x @ p["inp"]
        h = rms(x, p["n"])
        q = heads(rms(h @ p["dq"], p["nq"]) @ p["uq"])
        c, kr = jnp.split(h @ p["dkv"], [rank_kv], axis=-1)
        k, v = jnp.split(heads(rms(c, p["nkv"]) @ p["ukv"]), [S], axis=-1)
        q = jnp.concatenate([q[..., :S], turn(q[..., S:])], -1)
        kr = jnp.broadcast_to(turn(kr)[:, :, None], (B, T, H, turned))
        k = jnp.concatenate([k, kr], -1)
        s = jnp.einsum("bqhd,bkhd->bhqk", q, k) * (S + turned) ** -0.5
        o = jnp.einsum("bhqk,bkhd->bqhd", jax.nn.softmax(no_future(s)), v)
        return (x + o.reshape(B, T, -1) @ p["o"]) @ p["out"]

    vs = 3
    params = {
        "inp": floats(8, D),
        "n": floats(D),
        "dq": floats(D, rank_q),
        "nq": floats(rank_q),
        "uq": floats(rank_q, H * (S + turned)),
        "dkv": floats(D, rank_kv + turned),
        "nkv": floats(rank_kv),
        "ukv": floats(rank_kv, H * (S + vs)),
        "o": floats(H * vs, D),
        "out": floats(D, 3),
    }
    step = S + vs
    keys = tuple((i * step, i * step + S) for i in range(H))
    values = tuple((i * step + S, (i + 1) * step) for i in range(H))
    truth = {
        "inp": kernel(8, D),
        "n": scale(),
        "dq": kernel(D, rank_q),
        "nq": scale(),
        "uq": kernel(rank_q, H * (S + turned), part="query"),
        # Debatable: its last columns are a key, the others lead to keys and values.
        "dkv": kernel(D, rank_kv + turned, part=ANY, sections=ANY, function=ANY),
        "nkv": scale(),
        "ukv": kernel(
            rank_kv, H * step,
            sections=[(1, keys, "key", "identity"), (1, values, "value", "identity")],
        ),
        "o": kernel(H * vs, D, part="attention output", residual=(0, 1)),
        "out": kernel(D, 3, head=True),
    }  # fmt: skip
    return Model(apply, params, (floats(B, T, 8),), truth)


@model
def cross_covariance() -> Model:
    """El-Nouby et al. 2021 (XCiT): features attend to features, with temperatures."""

    def unit(x):
        return x / jnp.sqrt((x * x).sum(-1, keepdims=True) + 1e-6)

    def apply(p, x):
        x = linear(p["stem"], x)
        qkv = (ln(x, p["n1"]) @ p["qkv"]).reshape(B, T, 3, H, S)
        q, k, v = jnp.transpose(qkv, (2, 0, 3, 4, 1))
        a = jax.nn.softmax(unit(q) @ jnp.swapaxes(unit(k), -1, -2) * p["temp"], -1)
        y = jnp.transpose(a @ v, (0, 3, 1, 2)).reshape(B, T, I)
        x = x + p["g1"] * linear(p["proj"], y)
        y = linear(p["fc2"], jax.nn.gelu(linear(p["fc1"], ln(x, p["n2"]))))
        x = x + p["g2"] * y
        return linear(p["cls"], x.mean(1))

    params = {
        "stem": affine(7, D),
        "n1": scales(D),
        "qkv": floats(D, 3 * I),
        "temp": floats(H, 1, 1),
        "g1": floats(D),
        "proj": affine(I, D),
        "n2": scales(D),
        "fc1": affine(D, F),
        "fc2": affine(F, D),
        "g2": floats(D),
        "cls": affine(D, 5),
    }
    truth = {
        **dense("stem", 7, D),
        **norm("n1"),
        # Debatable: normalized along tokens, whose products compare features.
        "qkv": kernel(D, 3 * I, part=ANY, sections=ANY, function=ANY),
        "temp": scale(ANY, batch_axis=ANY, part=ANY),
        "g1": gate(0),
        **dense("proj", I, D, residual=(0, 2), part="attention output"),
        **norm("n2"),
        **dense("fc1", D, F, function="gelu"),
        **dense("fc2", F, D, residual=(1, 2)),
        "g2": gate(0),
        **dense("cls", D, 5, head=True),
    }
    return Model(apply, params, (floats(B, T, 7),), truth)


@model
def differential() -> Model:
    """Ye et al. 2024: the difference of two softmaxes, by a lambda of four vectors."""
    start = 0.8

    def apply(p, t):
        x = p["tok"][t]
        h = ln(x, p["n"])
        q = (h @ p["q"]).reshape(B, T, 2, H, S) * S**-0.5
        k = (h @ p["k"]).reshape(B, T, 2, H, S)
        v = (h @ p["v"]).reshape(B, T, H, 2 * S)
        a = jax.nn.softmax(no_future(jnp.einsum("btnhd,bsnhd->nbhts", q, k)), -1)
        lam = jnp.exp(p["lq1"] @ p["lk1"]) - jnp.exp(p["lq2"] @ p["lk2"]) + start
        o = jnp.einsum("bhts,bshd->bthd", a[0] - lam * a[1], v)
        o = rms(o, p["sub"]) * (1 - start)
        x = x + o.reshape(B, T, -1) @ p["o"]
        return x @ p["out"]

    small = {n: floats(S) for n in ("lq1", "lk1", "lq2", "lk2")}
    params = small | {
        "tok": floats(V, D),
        "n": scales(D),
        "q": floats(D, 2 * I),
        "k": floats(D, 2 * I),
        "v": floats(D, 2 * I),
        "sub": floats(2 * S),
        "o": floats(2 * I, D),
        "out": floats(D, V),
    }
    truth = dict.fromkeys(small, unknown()) | {
        "tok": embedding(D),
        **norm("n"),
        "q": kernel(D, 2 * I, part="query", multiplier=S**-0.5),
        "k": kernel(D, 2 * I, part="key"),
        "v": kernel(D, 2 * I, part="value"),
        "sub": scale(multiplier=ANY, part=ANY),
        "o": kernel(2 * I, D, part="attention output", residual=(0, 1), multiplier=ANY),
        "out": kernel(D, V, head=True),
    }
    return Model(apply, params, (integers(B, T),), truth)


@model
def talking_heads() -> Model:
    """Touvron et al. 2021 (CaiT): heads mixed around the softmax; a late token."""

    def apply(p, x):
        x = linear(p["patch"], x) + p["pos"]
        h = ln(x, p["n1"])
        q, k, v = (heads(h @ p[c]).transpose(0, 2, 1, 3) for c in "qkv")
        s = (q * S**-0.5) @ k.swapaxes(2, 3)
        s = linear(p["pre"], s.transpose(0, 2, 3, 1))
        a = linear(p["post"], jax.nn.softmax(s, axis=2)).transpose(0, 3, 1, 2)
        x = x + p["ls"] * linear(p["o"], (a @ v).transpose(0, 2, 1, 3).reshape(B, T, I))
        c = jnp.broadcast_to(p["cls"], (B, 1, D))
        u = ln(jnp.concatenate([c, x], 1), p["n2"])
        q = heads(linear(p["cq"], u[:, 0]))
        k, v = heads(linear(p["ck"], u)), heads(linear(p["cv"], u))
        a = jax.nn.softmax(jnp.einsum("bhd,bkhd->bhk", q, k) * S**-0.5)
        y = jnp.einsum("bhk,bkhd->bhd", a, v).reshape(B, I)
        c = c[:, 0] + linear(p["co"], y)
        return linear(p["fc"], c)

    params = {
        "patch": affine(7, D),
        "pos": floats(1, T, D),
        "n1": scales(D),
        "q": floats(D, I),
        "k": floats(D, I),
        "v": floats(D, I),
        "pre": affine(H, H),
        "post": affine(H, H),
        "o": affine(I, D),
        "ls": floats(D),
        "cls": floats(1, 1, D),
        "n2": scales(D),
        "cq": affine(D, I),
        "ck": affine(D, I),
        "cv": affine(D, I),
        "co": affine(I, D),
        "fc": affine(D, 5),
    }
    truth = {
        **dense("patch", 7, D),
        "pos": Use("position", 1, 2),
        **norm("n1"),
        "q": kernel(D, I, part=one_of("query", None), multiplier=ANY),
        "k": kernel(D, I, part=one_of("key", None), multiplier=ANY),
        "v": kernel(D, I, part="value"),
        # Between scores and their softmax, and behind it.
        **dense("pre", H, H, part=ANY),
        **dense("post", H, H, part=ANY),
        **dense("o", I, D, part="attention output", residual=ANY),
        "ls": gate(0),
        # A stream of its own begins with it.
        "cls": token(D, ANY, 2),
        **norm("n2"),
        # Debatable: queries' factor, or that of scores.
        **dense("cq", D, I, part="query"),
        **dense("ck", D, I, part="key"),
        **dense("cv", D, I, part="value"),
        **dense("co", I, D, part="attention output", residual=(0, 1)),
        **dense("fc", D, 5, head=True),
    }
    return Model(apply, params, (floats(B, T, 7),), truth)
