"""Plain functions: scores that no query and key make, or not alone."""

import math

import jax
import jax.numpy as jnp

from zoo.layers import affine, linear, scales
from zoo.truths import (
    ANY,
    Model,
    Use,
    bias,
    dense,
    embedding,
    floats,
    integers,
    kernel,
    model,
    norm,
    one_of,
    unknown,
)
from zoo.truths import layer_norm as ln

B, T, D, H, S, F, V = 2, 6, 10, 3, 4, 18, 23
I = H * S  # noqa: E741


def heads(x, n=H):
    return x.reshape(*x.shape[:-1], n, -1)


@model
def external_memory_units() -> Model:
    """Guo et al. 2021: two small linear maps around a double normalization."""
    m = 9

    def apply(p, x):
        x = linear(p["a"], x)
        s = jax.nn.softmax(linear(p["q"], x) @ p["mk"], axis=1)
        s = s / (1e-6 + s.sum(2, keepdims=True))
        return linear(p["z"], jax.nn.relu(x + s @ p["mv"]))

    params = {
        "a": affine(7, D),
        "q": affine(D, D),
        "mk": floats(D, m),
        "mv": floats(m, D),
    }
    params["z"] = affine(D, 4)
    truth = {
        **dense("a", 7, D),
        # Debatable: an attention whose keys and values are leaves.
        "q/kernel": kernel(D, D, part=ANY, multiplier=ANY),
        "q/bias": bias("q/kernel", part=ANY, multiplier=ANY),
        "mk": kernel(D, m, part=ANY),
        "mv": kernel(m, D, part=ANY, residual=ANY, function=ANY),
        **dense("z", D, 4, head=True),
    }
    return Model(apply, params, (floats(B, T, 7),), truth)


@model
def synthesized_scores() -> Model:
    """Tay et al. 2020 (Synthesizer): scores of a token, and scores that are leaves."""

    def apply(p, x):
        x = x @ p["w"]
        s = jax.nn.relu(x @ p["s1"]) @ p["s2"]
        x = x + (jax.nn.softmax(s, -1) @ (x @ p["v1"])) @ p["o1"]
        x = x + (jax.nn.softmax(p["r"], -1) @ (x @ p["v2"])) @ p["o2"]
        return x @ p["z"]

    params = {
        "w": floats(7, D), "s1": floats(D, F), "s2": floats(F, T), "v1": floats(D, I),
        "o1": floats(I, D), "r": floats(T, T), "v2": floats(D, I), "o2": floats(I, D),
        "z": floats(D, 4),
    }  # fmt: skip
    truth = {
        "w": kernel(7, D),
        "s1": kernel(D, F, function="relu"),
        "s2": kernel(F, T, part=ANY),
        # Debatable: values, though no query meets a key.
        "v1": kernel(D, I, part=ANY),
        "o1": kernel(I, D, part=ANY, residual=(0, 2)),
        "r": unknown(),
        "v2": kernel(D, I, part=ANY),
        "o2": kernel(I, D, part=ANY, residual=(1, 2)),
        "z": kernel(D, 4, head=True),
    }
    return Model(apply, params, (floats(B, T, 7),), truth)


@model
def projected_length() -> Model:
    """Wang et al. 2020 (Linformer): one kernel shortens keys and values alike."""
    n = 4

    def apply(p, t):
        x = p["tok"][t] + p["pos"]
        h = ln(x, p["n"])
        q, k, v = (heads(h @ p[c]) for c in "qkv")
        k = jnp.einsum("bthd,tn->bnhd", k, p["e"])
        v = jnp.einsum("bthd,tn->bnhd", v, p["e"])
        a = jax.nn.softmax(jnp.einsum("bthd,bnhd->bhtn", q, k) / math.sqrt(S), -1)
        x = x + jnp.einsum("bhtn,bnhd->bthd", a, v).reshape(B, T, I) @ p["o"]
        return jnp.einsum("btd,vd->btv", x, p["tok"])

    params = {
        "tok": floats(V, D),
        "pos": floats(T, D),
        "n": scales(D),
        "e": floats(T, n),
    }
    params |= {c: floats(D, I) for c in "qkv"} | {"o": floats(I, D)}
    truth = {
        "tok": [embedding(D), kernel(D, V, 1, 0, head=True)],
        "pos": Use("position", 0, 1),
        **norm("n"),
        "q": kernel(D, I, part="query"),
        # Debatable: the last kernel before the scores, or that of the tokens.
        "k": kernel(D, I, part=one_of("key", None)),
        "v": kernel(D, I, part=one_of("value", None)),
        "e": [
            kernel(T, n, part=one_of("key", None)),
            kernel(T, n, part=one_of("value", None)),
        ],
        "o": kernel(I, D, part="attention output", residual=(0, 1)),
    }
    return Model(apply, params, (integers(B, T),), truth)


@model
def attention_free() -> Model:
    """Zhai et al. 2021 (AFT): exponentials of keys and of places, and a gate."""

    def apply(p, t):
        x = p["tok"][t]
        q, k, v = x @ p["q"], x @ p["k"], x @ p["v"]
        w = jnp.exp(k[:, None] + p["places"][None, :, :, None])
        y = jax.nn.sigmoid(q) * (w * v[:, None]).sum(2) / w.sum(2)
        return (x + y @ p["o"]) @ p["z"]

    params = {"tok": floats(V, D), "places": floats(T, T), "z": floats(D, 4)}
    params |= {c: floats(D, F) for c in "qkv"} | {"o": floats(F, D)}
    truth = {
        "tok": embedding(D),
        "places": Use(
            one_of("position", "bias"), ANY, ANY, of=ANY, part=ANY, multiplier=ANY
        ),
        "q": kernel(D, F, function="sigmoid", part="gate"),
        # Debatable: a weighted mean, but no query meets a key.
        "k": kernel(D, F, function=ANY, part=ANY),
        "v": kernel(D, F, part=ANY),
        "o": kernel(F, D, part=ANY, residual=(0, 1)),
        "z": kernel(D, 4, head=True),
    }
    return Model(apply, params, (integers(B, T),), truth)


@model
def persistent_memory() -> Model:
    """Sukhbaatar et al. 2019: learned keys and values stand beside those of tokens."""
    m = 5

    def apply(p, t):
        x = p["tok"][t]
        q, k, v = (heads(x @ p[c]) for c in "qkv")
        mk, mv = (jnp.broadcast_to(p[c], (B, m, H, S)) for c in ("mk", "mv"))
        k, v = jnp.concatenate([k, mk], 1), jnp.concatenate([v, mv], 1)
        a = jax.nn.softmax(jnp.einsum("bqhd,bkhd->bhqk", q, k) / 2.0)
        y = jnp.einsum("bhqk,bkhd->bqhd", a, v).reshape(B, T, I)
        x = ln(x + y @ p["o"], p["n"])
        return linear(p["z"], x)

    params = {"tok": floats(V, D), "mk": floats(m, H, S), "mv": floats(m, H, S)}
    params |= {c: floats(D, I) for c in "qkv"} | {
        "o": floats(I, D),
        "n": scales(D),
    }
    params["z"] = affine(D, 4)
    memory = Use("embedding", ANY, ANY, batch_axis=ANY, fan_in=1, fan_out=ANY, part=ANY)
    truth = {
        "tok": embedding(D),
        "mk": memory,
        "mv": memory,
        "q": kernel(D, I, part="query"),
        "k": kernel(D, I, part="key"),
        "v": kernel(D, I, part="value"),
        "o": kernel(I, D, part="attention output", residual=(0, 1)),
        **norm("n"),
        **dense("z", D, 4, head=True),
    }
    return Model(apply, params, (integers(B, T),), truth)
