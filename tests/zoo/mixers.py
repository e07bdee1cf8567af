"""Blocks that mix tokens or features by products, and streams of other kinds."""

import jax
import jax.numpy as jnp

from zoo.fused import affine, linear
from zoo.language import affine_truth
from zoo.truths import (
    ANY,
    UNNAMED,
    WRITES,
    Model,
    bias,
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
    shift,
    stacked,
    token,
    unknown,
)
from zoo.truths import layer_norm as normed

BATCH, LENGTH, WIDTH, HIDDEN, OUTPUTS = 4, 7, 10, 13, 3


def vector(width=WIDTH):
    return {"scale": floats(width), "bias": floats(width)}


@model
def gated_mlp() -> Model:
    """Liu et al. 2021 (gMLP): one half is multiplied with a map of the other's tokens.

    The kernel of tokens is (outputs, inputs).
    """

    def block(p, x):
        h = jax.nn.gelu(linear(normed(x, p["norm"]), p["proj_in"]))
        u, v = jnp.split(h, 2, axis=-1)
        v = jnp.einsum("bnd,mn->bmd", normed(v, p["norm_v"]), p["spatial"]["w"])
        v = v + p["spatial"]["b"][:, None]
        return x + linear(u * v, p["proj_out"])

    def apply(p, x):
        x = linear(x, p["embed"])
        for layer in p["layers"]:
            x = block(layer, x)
        return linear(x.mean(1), p["head"])

    layer = {
        "norm": vector(),
        "proj_in": affine(WIDTH, 2 * HIDDEN),
        "norm_v": vector(HIDDEN),
        "spatial": {"w": floats(LENGTH, LENGTH), "b": floats(LENGTH)},
        "proj_out": affine(HIDDEN, WIDTH),
    }
    params = {
        "embed": affine(6, WIDTH),
        "layers": [layer] * 2,
        "head": affine(WIDTH, OUTPUTS),
    }
    # Debatable: which of both is the gate, as the map of tokens has no function.
    either = {"part": ANY, "sections": ANY}
    single = {
        **norm("norm"),
        "proj_in/w": kernel(WIDTH, 2 * HIDDEN, function="gelu", **either),
        "proj_in/b": bias("proj_in/w", **either),
        **norm("norm_v"),
        "spatial/w": kernel(LENGTH, LENGTH, 1, 0, part=ANY),
        # The tokens are what its kernel puts out: a bias, as in a mixer.
        "spatial/b": bias("spatial/w", part=ANY),
        **affine_truth("proj_out", HIDDEN, WIDTH, residual=(0, 2)),
    }
    truth = {
        **affine_truth("embed", 6, WIDTH),
        **every("layers/{}/", 2, single),
        **affine_truth("head", WIDTH, OUTPUTS, head=True),
    }
    return Model(apply, params, (floats(BATCH, LENGTH, 6),), truth)


@model
def highway() -> Model:
    """Srivastava et al. 2015: a gate carries the input on; layers are scanned."""
    layers = 3

    def apply(p, x):
        def step(x, layer):
            carried = jax.nn.sigmoid(linear(x, layer["transform"]))
            h = jax.nn.relu(linear(x, layer["plain"]))
            return carried * h + (1 - carried) * x, None

        x = jnp.tanh(linear(x, p["embed"]))
        x, _ = jax.lax.scan(step, x, p["layers"], length=layers)
        return linear(x, p["head"])

    def pair():
        return {"w": floats(layers, WIDTH, WIDTH), "b": floats(layers, WIDTH)}

    params = {
        "embed": affine(6, WIDTH),
        "layers": {"transform": pair(), "plain": pair()},
        "head": affine(WIDTH, OUTPUTS),
    }
    # Debatable: what is carried on is multiplied, which may end the stream.
    single = {
        **affine_truth(
            "transform", WIDTH, WIDTH, function="sigmoid", part="gate", residual=ANY
        ),
        # Debatable: the gate's other factor, but no linear one.
        "plain/w": kernel(WIDTH, WIDTH, function="relu", part=ANY, residual=ANY),
        "plain/b": bias("plain/w", part=ANY),
    }
    truth = {
        **affine_truth("embed", 6, WIDTH, function="tanh"),
        **every("layers/", 1, stacked(single)),
        **affine_truth("head", WIDTH, OUTPUTS, head=True),
    }
    return Model(apply, params, (floats(BATCH, 6),), truth)


@model
def receptance() -> Model:
    """Peng et al. 2023 (RWKV-4): mixes with the token before, decays, squared relu."""
    inner, layers = 12, 2

    def mixed(x, mu):
        before = jnp.pad(x, ((0, 0), (1, 0), (0, 0)))[:, :-1]
        return x * mu + before * (1 - mu)

    def over_time(p, k, v):
        decay = jnp.exp(-jnp.exp(p["decay"]))

        def step(carry, now):
            (a, b), (first, k, v) = carry, now
            y = (a + first * v) / (b + first)
            return (decay * a + k * v, decay * b + k), y

        first = jnp.exp(p["first"] + k)
        moved = (x.swapaxes(0, 1) for x in (first, jnp.exp(k), v))
        zeros = jnp.zeros((BATCH, inner))
        return jax.lax.scan(step, (zeros, zeros), tuple(moved))[1].swapaxes(0, 1)

    def block(p, x):
        h, t = normed(x, p["norm_1"]), p["time"]
        k, v = mixed(h, t["mu_k"]) @ t["k"], mixed(h, t["mu_v"]) @ t["v"]
        r = jax.nn.sigmoid(mixed(h, t["mu_r"]) @ t["r"])
        x = x + (r * over_time(t, k, v)) @ t["o"]
        h, c = normed(x, p["norm_2"]), p["channel"]
        k = jnp.square(jax.nn.relu(mixed(h, c["mu_k"]) @ c["k"]))
        return x + jax.nn.sigmoid(mixed(h, c["mu_r"]) @ c["r"]) * (k @ c["v"])

    def apply(p, tokens):
        x = normed(p["embed"][tokens], p["norm_0"])
        for layer in p["layers"]:
            x = block(layer, x)
        return normed(x, p["norm"]) @ p["head"]

    layer = {
        "norm_1": vector(),
        "time": {
            **{f"mu_{name}": floats(WIDTH) for name in "kvr"},
            **{name: floats(WIDTH, inner) for name in "kvr"},
            "decay": floats(inner),
            "first": floats(inner),
            "o": floats(inner, WIDTH),
        },
        "norm_2": vector(),
        "channel": {
            "mu_k": floats(WIDTH),
            "mu_r": floats(WIDTH),
            "k": floats(WIDTH, HIDDEN),
            "r": floats(WIDTH, WIDTH),
            "v": floats(HIDDEN, WIDTH),
        },
    }
    params = {
        "embed": floats(17, WIDTH),
        "norm_0": vector(),
        "layers": [layer] * layers,
        "norm": vector(),
        "head": floats(WIDTH, 17),
    }
    # No scale: one is not its neutral value.
    mu = unknown()
    single = {
        **norm("norm_1"),
        # Debatable: keys and values, but without a softmax.
        "time/k": kernel(WIDTH, inner, function=ANY, part=ANY),
        "time/v": kernel(WIDTH, inner, function=ANY, part=ANY),
        "time/r": kernel(WIDTH, inner, function="sigmoid", part="gate"),
        "time/decay": unknown(),
        "time/first": bias("time/k", part=ANY),
        "time/o": kernel(inner, WIDTH, residual=(0, 2 * layers), part=ANY),
        **norm("norm_2"),
        # Debatable: squared, it multiplies nothing but is contracted.
        "channel/k": kernel(WIDTH, HIDDEN, function=UNNAMED),
        # Debatable: without a kernel behind it, it reaches the stream as a factor.
        "channel/r": kernel(
            WIDTH, WIDTH, function="sigmoid", part="gate", residual=ANY
        ),
        "channel/v": kernel(HIDDEN, WIDTH, residual=WRITES, part=ANY),
    }
    truth = {
        "embed": embedding(WIDTH),
        **norm("norm_0"),
        **every("layers/{}/", layers, single),
        **norm("norm"),
        "head": kernel(WIDTH, 17, head=True),
    }
    for i in range(layers):
        truth |= {f"layers/{i}/time/mu_{name}": mu for name in "kvr"}
        truth |= {f"layers/{i}/channel/mu_{name}": mu for name in "kr"}
    return Model(apply, params, (integers(BATCH, LENGTH),), truth)


@model
def reversible() -> Model:
    """Kitaev et al. 2020 (Reformer): queries that are keys, and two streams."""
    heads, size, layers = 3, 4, 2
    inner = heads * size

    def attend(p, x):
        x = rms_norm(x, p["norm"])
        both = (x @ p["qk"]).reshape(BATCH, LENGTH, heads, size)
        v = (x @ p["v"]).reshape(BATCH, LENGTH, heads, size)
        k = both * jax.lax.rsqrt(jnp.square(both).sum(-1, keepdims=True) + 1e-6)
        scores = jnp.einsum("bqhd,bkhd->bhqk", both, k) / jnp.sqrt(size)
        scores = jnp.where(jnp.eye(LENGTH, dtype=bool), -1e5, scores)
        h = jnp.einsum("bhqk,bkhd->bqhd", jax.nn.softmax(scores), v)
        return h.reshape(BATCH, LENGTH, inner) @ p["o"]

    def feed(p, x):
        return jax.nn.gelu(rms_norm(x, p["norm"]) @ p["up"]) @ p["down"]

    def apply(p, tokens):
        x = y = p["embed"][tokens]
        for layer in p["layers"]:
            x = x + attend(layer["attention"], y)
            y = y + feed(layer["feed"], x)
        return jnp.concatenate([x, y], axis=-1) @ p["head"]

    layer = {
        "attention": {
            "norm": floats(WIDTH),
            "qk": floats(WIDTH, inner),
            "v": floats(WIDTH, inner),
            "o": floats(inner, WIDTH),
        },
        "feed": {
            "norm": floats(WIDTH),
            "up": floats(WIDTH, HIDDEN),
            "down": floats(HIDDEN, WIDTH),
        },
    }
    params = {
        "embed": floats(17, WIDTH),
        "layers": [layer] * layers,
        "head": floats(2 * WIDTH, 17),
    }
    # Debatable: two streams of two writes each, or one of four.
    single = {
        "attention/norm": scale(),
        "attention/qk": kernel(WIDTH, inner, part="query, key"),
        "attention/v": kernel(WIDTH, inner, part="value"),
        "attention/o": kernel(inner, WIDTH, part="attention output", residual=WRITES),
        "feed/norm": scale(),
        "feed/up": kernel(WIDTH, HIDDEN, function="gelu"),
        "feed/down": kernel(HIDDEN, WIDTH, residual=WRITES),
    }
    truth = {
        "embed": embedding(WIDTH),
        **every("layers/{}/", layers, single),
        "head": kernel(2 * WIDTH, 17, head=True),
    }
    return Model(apply, params, (integers(BATCH, LENGTH),), truth)


@model
def feature_tokenizer() -> Model:
    """Gorishniy et al. 2021: a token of each category, a class token, and ReGLU.

    All tables are one, told apart by offsets; the first layer has no first norm.
    """
    width, inner, layers = 12, 15, 2
    offsets = jnp.array([0, 4, 9, 11, 20])

    def block(p, x):
        h = normed(x, p["norm_0"]) if "norm_0" in p else x
        q, k, v = (linear(h, p[name]) for name in ("q", "k", "v"))
        q, k, v = (h.reshape(*h.shape[:2], 3, 5).swapaxes(1, 2) for h in (q, k, v))
        weights = jax.nn.softmax(q @ k.swapaxes(-1, -2) / jnp.sqrt(5), axis=-1)
        h = (weights @ v).swapaxes(1, 2).reshape(*x.shape[:2], inner)
        x = x + linear(h, p["out"])
        a, b = jnp.split(linear(normed(x, p["norm_1"]), p["first"]), 2, axis=-1)
        return x + linear(a * jax.nn.relu(b), p["second"])

    def apply(p, tokens):
        x = p["table"][tokens + offsets] + p["feature_bias"]
        cls = jnp.broadcast_to(p["cls"], (BATCH, 1, width))
        x = jnp.concatenate([x, cls], axis=1)
        for layer in p["layers"]:
            x = block(layer, x)
        return linear(jax.nn.relu(normed(x[:, -1], p["norm"])), p["head"])

    def vector():
        return {"scale": floats(width), "bias": floats(width)}

    layer = {
        **{name: affine(width, inner) for name in ("q", "k", "v")},
        "out": affine(inner, width),
        "norm_1": vector(),
        "first": affine(width, 2 * HIDDEN),
        "second": affine(HIDDEN, width),
    }
    params = {
        "table": floats(23, width),
        "feature_bias": floats(5, width),
        "cls": floats(width),
        "layers": [layer, layer | {"norm_0": vector()}],
        "norm": vector(),
        "head": affine(width, 3),
    }
    halves = [
        (((0, HIDDEN),), "up", "identity"),
        (((HIDDEN, 2 * HIDDEN),), "gate", "relu"),
    ]
    single = {
        **affine_truth("q", width, inner, part="query"),
        **affine_truth("k", width, inner, part="key"),
        **affine_truth("v", width, inner, part="value"),
        **affine_truth(
            "out", inner, width, residual=(0, 2 * layers), part="attention output"
        ),
        **norm("norm_1"),
        "first/w": kernel(
            width,
            2 * HIDDEN,
            function=ANY,
            sections=[(1, *half) for half in halves],
        ),
        "first/b": bias("first/w", sections=[(0, *h[:2], None) for h in halves]),
        **affine_truth("second", HIDDEN, width, residual=(1, 2 * layers)),
    }
    truth = {
        "table": embedding(width),
        # Added by the place of a feature in the table.
        "feature_bias": position(),
        "cls": token(width, ANY, 0),
        **every("layers/{}/", layers, single),
        "layers/1/norm_0/scale": scale(),
        "layers/1/norm_0/bias": shift(),
        **norm("norm"),
        **affine_truth("head", width, 3, head=True),
    }
    return Model(apply, params, (integers(BATCH, 5),), truth)
