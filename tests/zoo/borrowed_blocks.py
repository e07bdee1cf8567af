"""Plain functions: blocks of larger models, as their code bases write them."""

import jax
import jax.numpy as jnp

from zoo.layers import affine, linear, scales
from zoo.truths import (
    ANY,
    Model,
    Use,
    bias,
    convolution,
    dense,
    embedding,
    floats,
    integers,
    kernel,
    model,
    norm,
    one_of,
    position,
    scale,
    unknown,
)
from zoo.truths import layer_norm as ln
from zoo.truths import rms_norm as rms

B, T, D, H, S, F, V = 2, 6, 10, 3, 4, 18, 23
INNER = H * S


@model
def interleaved_heads() -> Model:
    """GPT-NeoX: query, key and value of each head stand together; parallel branches."""

    def apply(p, t):
        x = p["wte"][t]
        for q in p["h"]:
            z = linear(q["qkv"], ln(x, q["n1"])).reshape(B, T, H, 3 * S)
            z = z.transpose(0, 2, 1, 3)
            a, b, c = z[..., :S], z[..., S : 2 * S], z[..., 2 * S :]
            s = jnp.einsum("bhqd,bhkd->bhqk", a, b) * S**-0.5
            s = jnp.where(jnp.tril(jnp.ones((T, T))) > 0, s, jnp.finfo(s.dtype).min)
            y = jax.nn.softmax(s, axis=-1) @ c
            y = linear(q["o"], y.transpose(0, 2, 1, 3).reshape(B, T, INNER))
            x = x + y + linear(q["w2"], jax.nn.gelu(linear(q["w1"], ln(x, q["n2"]))))
        return ln(x, p["nf"]) @ p["out"]

    h = {
        "n1": scales(D),
        "qkv": affine(D, 3 * INNER),
        "o": affine(INNER, D),
        "n2": scales(D),
        "w1": affine(D, F),
        "w2": affine(F, D),
    }
    params = {
        "wte": floats(V, D),
        "h": [h] * 2,
        "nf": scales(D),
        "out": floats(D, V),
    }

    def runs(part):
        starts = [3 * S * i + S * part for i in range(H)]
        return tuple((start, start + S) for start in starts)

    names = ("query", "key", "value")
    columns = [(1, runs(i), name, "identity") for i, name in enumerate(names)]
    offsets = [(0, runs(i), name, None) for i, name in enumerate(names)]
    truth = {"wte": embedding(D), **norm("nf"), "out": kernel(D, V, head=True)}
    for i in range(2):
        truth |= {
            **norm(f"h/{i}/n1"),
            f"h/{i}/qkv/kernel": kernel(D, 3 * INNER, sections=columns),
            f"h/{i}/qkv/bias": bias(f"h/{i}/qkv/kernel", sections=offsets),
            **dense(f"h/{i}/o", INNER, D, part="attention output", residual=(2 * i, 4)),
            **norm(f"h/{i}/n2"),
            **dense(f"h/{i}/w1", D, F, function="gelu"),
            **dense(f"h/{i}/w2", F, D, residual=(2 * i + 1, 4)),
        }
    return Model(apply, params, (integers(B, T),), truth)


@model
def asked_objects() -> Model:
    """Carion et al. 2020 (DETR): queries are added to what is asked with, each time."""
    objects = 4

    def attend(q, a, b, c):
        a, b, c = linear(q["q"], a), linear(q["k"], b), linear(q["v"], c)
        s = jnp.einsum("bqd,bkd->bqk", a, b) / S**0.5
        return linear(q["o"], jnp.einsum("bqk,bkd->bqd", jax.nn.softmax(s), c))

    def apply(p, image):
        m = linear(p["input"], image)
        y = jnp.zeros((B, objects, D))
        for q in p["layers"]:
            e = y + p["query"]
            y = ln(y + attend(q["own"], e, e, y), q["n1"])
            y = ln(y + attend(q["cross"], y + p["query"], m + p["pos"], m), q["n2"])
            y = ln(y + linear(q["w2"], jax.nn.relu(linear(q["w1"], y))), q["n3"])
        return linear(p["class"], y), jax.nn.sigmoid(linear(p["box"], y))

    att = {"q": affine(D, S), "k": affine(D, S), "v": affine(D, S), "o": affine(S, D)}
    one = {"own": att, "cross": att, "w1": affine(D, F), "w2": affine(F, D)}
    one |= {f"n{i}": scales(D) for i in (1, 2, 3)}
    params = {
        "input": affine(7, D),
        "query": floats(objects, D),
        "pos": floats(T, D),
        "layers": [one] * 2,
        "class": affine(D, 5),
        "box": affine(D, 4),
    }
    # Debatable: with nothing before, the first layer's objects are the queries alone.
    slot = Use(_LEARNED, ANY, ANY, fan_in=ANY, fan_out=ANY, of=ANY, part=ANY)
    truth = {
        **dense("input", 7, D),
        "query": [slot] * 4,
        "pos": [position()] * 2,
        **dense("class", D, 5, head=True),
        **dense("box", D, 4, function="sigmoid", head=True),
    }
    for i in range(2):
        path = f"layers/{i}"
        for name in ("own", "cross"):
            # Debatable: a normed stream continues, or each norm begins another.
            truth |= {
                **dense(f"{path}/{name}/q", D, S, part="query"),
                **dense(f"{path}/{name}/k", D, S, part="key"),
                **dense(f"{path}/{name}/v", D, S, part="value"),
                **dense(
                    f"{path}/{name}/o", S, D, part="attention output", residual=ANY
                ),
            }
        truth |= {
            **dense(f"{path}/w1", D, F, function="relu"),
            **dense(f"{path}/w2", F, D, residual=ANY),
            **{k: v for n in (1, 2, 3) for k, v in norm(f"{path}/n{n}").items()},
        }
    return Model(apply, params, (floats(B, T, 7),), truth)


_LEARNED = one_of("embedding", "position", "bias")


@model
def cosine_scores() -> Model:
    """Liu et al. 2022 (Swin v2): cosines over a bounded heat; norms at the end."""

    def unit(x):
        return x / jnp.linalg.norm(x, axis=-1, keepdims=True)

    def apply(p, x):
        x = linear(p["in"], x)
        q, k, v = ((x @ p[n]).reshape(B, T, H, S).transpose(0, 2, 1, 3) for n in "qkv")
        heat = jnp.exp(jnp.minimum(p["heat"], 4.6))[:, None, None]
        s = jnp.einsum("bhqd,bhkd->bhqk", unit(q), unit(k)) * heat
        y = jax.nn.softmax(s + p["table"][p_index()], -1) @ v
        y = linear(p["o"], y.transpose(0, 2, 1, 3).reshape(B, T, INNER))
        x = x + ln(y, p["n1"])
        x = x + ln(linear(p["w2"], jax.nn.gelu(linear(p["w1"], x))), p["n2"])
        return linear(p["out"], x.mean(1))

    def p_index():
        far = jnp.arange(T)[:, None] - jnp.arange(T)[None] + T - 1
        return jnp.arange(H)[:, None, None], far[None]

    params = {n: floats(D, INNER) for n in "qkv"} | {
        "in": affine(7, D),
        "heat": floats(H),
        "table": floats(H, 2 * T - 1),
        "o": affine(INNER, D),
        "n1": scales(D),
        "w1": affine(D, F),
        "w2": affine(F, D),
        "n2": scales(D),
        "out": affine(D, 3),
    }
    truth = {
        **dense("in", 7, D),
        # A norm of each vector lies between.
        "q": kernel(D, INNER, part="query"),
        "k": kernel(D, INNER, part="key"),
        "v": kernel(D, INNER, part="value"),
        "heat": unknown(),
        # Debatable: heads are looked up too.
        "table": position(ANY, ANY),
        **dense("o", INNER, D, part="attention output", residual=(0, 2)),
        **norm("n1"),
        **dense("w1", D, F, function="gelu"),
        **dense("w2", F, D, residual=(1, 2)),
        **norm("n2"),
        **dense("out", D, 3, head=True),
    }
    return Model(apply, params, (floats(B, T, 7),), truth)


@model
def windows_by_softmax() -> Model:
    """Wu et al. 2019 (dynamic convolutions): a softmax over a window."""
    near = 3

    def apply(p, x):
        x = linear(p["in"], x)
        h = linear(p["up"], x)
        a, g = jnp.split(h, 2, axis=-1)
        h = a * jax.nn.sigmoid(g)
        w = jax.nn.softmax((h @ p["w"]).reshape(B, T, H, near), axis=-1)
        padded = jnp.pad(h, ((0, 0), (near - 1, 0), (0, 0)))
        seen = jnp.stack([padded[:, i : i + T] for i in range(near)], 2)
        seen = seen.reshape(B, T, near, H, S)
        y = jnp.einsum("bthk,btkhd->bthd", w, seen).reshape(B, T, INNER)
        return linear(p["out"], x + linear(p["down"], y))

    params = {
        "in": affine(7, D),
        "up": affine(D, 2 * INNER),
        "w": floats(INNER, H * near),
        "down": affine(INNER, D),
        "out": affine(D, 3),
    }
    halves = [
        (1, ((0, INNER),), "up", "identity"),
        (1, ((INNER, 2 * INNER),), "gate", "sigmoid"),
    ]
    offsets = [(0, *half[1:3], None) for half in halves]
    truth = {
        **dense("in", 7, D),
        "up/kernel": kernel(D, 2 * INNER, function=ANY, sections=halves),
        "up/bias": bias("up/kernel", sections=offsets),
        # Debatable: its softmax weighs neighbours, as an attention's does.
        "w": kernel(INNER, H * near, part=ANY),
        **dense("down", INNER, D, residual=(0, 1), part=ANY),
        **dense("out", D, 3, head=True),
    }
    truth["down/bias"] = bias("down/kernel", part=ANY)
    return Model(apply, params, (floats(B, T, 7),), truth)


@model
def matrix_memory() -> Model:
    """Beck et al. 2024 (mLSTM, without its stabilizer): a memory that is a matrix."""

    def apply(p, x):
        x = linear(p["in"], x)
        u = rms(x, p["n"])
        q, k, v = u @ p["q"], (u @ p["k"]) * S**-0.5, u @ p["v"]
        i, f = jax.nn.sigmoid(linear(p["i"], u)), jax.nn.sigmoid(linear(p["f"], u))
        o = jax.nn.sigmoid(linear(p["o"], u))

        def step(c, args):
            q, k, v, i, f = args
            c = f[..., None] * c + i[..., None] * v[:, :, None] * k[:, None]
            return c, jnp.einsum("bvk,bk->bv", c, q)

        args = [jnp.moveaxis(a, 1, 0) for a in (q, k, v, i, f)]
        _, h = jax.lax.scan(step, jnp.zeros((B, S, S)), tuple(args))
        x = x + (o * jnp.moveaxis(h, 0, 1)) @ p["down"]
        return linear(p["out"], x)

    params = {n: floats(D, S) for n in "qkv"} | {
        "in": affine(7, D),
        "n": floats(D),
        "i": affine(D, 1),
        "f": affine(D, 1),
        "o": affine(D, S),
        "down": floats(S, D),
        "out": affine(D, 3),
    }
    # Debatable: names of the gates, and of the parts of a memory without a softmax.
    gates = {"function": "sigmoid", "part": ANY}
    truth = {
        **dense("in", 7, D),
        "n": scale(),
        **{n: kernel(D, S, part=ANY, multiplier=ANY) for n in "qkv"},
        **dense("i", D, 1, **gates),
        **dense("f", D, 1, **gates),
        **dense("o", D, S, **gates),
        "down": kernel(S, D, residual=(0, 1), part=ANY),
        **dense("out", D, 3, head=True),
    }
    return Model(apply, params, (floats(B, T, 7),), truth)


@model
def keys_by_products() -> Model:
    """Lample et al. 2019: the best of two halves' keys choose rows of a large table."""
    n = 5

    def apply(p, x):
        x = linear(p["in"], x)
        q = linear(p["q"], x).reshape(B, 2, S)
        s = jnp.einsum("bhd,hnd->bhn", q, p["keys"])
        best, at = jax.lax.top_k(s, 2)
        total = best[:, 0, :, None] + best[:, 1, None]
        where = at[:, 0, :, None] * n + at[:, 1, None]
        w = jax.nn.softmax(total.reshape(B, 4), -1)
        y = jnp.einsum("bk,bkd->bd", w, p["values"][where.reshape(B, 4)])
        return linear(p["out"], x + y)

    params = {
        "in": affine(7, D),
        "q": affine(D, 2 * S),
        "keys": floats(2, n, S),
        "values": floats(n * n, D),
        "out": affine(D, 3),
    }
    truth = {
        **dense("in", 7, D),
        # Debatable: a query, of keys that are a leaf.
        **dense("q", D, 2 * S, part=ANY),
        "keys": kernel(S, n, 2, 1, batch_axis=0, part=ANY),
        "values": embedding(D, part=ANY, residual=ANY),
        **dense("out", D, 3, head=True),
    }
    return Model(apply, params, (floats(B, 7),), truth)


@model
def times_as_vectors() -> Model:
    """Kazemi et al. 2019 (Time2Vec): one line and sines; then a window with strides."""

    def apply(p, t):
        a = t @ p["w"] + p["b"]
        h = jnp.concatenate([a[..., :1], jnp.sin(a[..., 1:])], axis=-1)
        y = jax.lax.conv_general_dilated(
            h, p["c"], (2,), "VALID", dimension_numbers=("NHC", "HIO", "NHC")
        )
        return jax.nn.relu(y + p["cb"]).reshape(B, -1) @ p["out"]

    params = {
        "w": floats(1, 5),
        "b": floats(5),
        "c": floats(2, 5, 4),
        "cb": floats(4),
        "out": floats(12, 3),
    }
    columns = [(1, ((0, 1),), None, "identity"), (1, ((1, 5),), None, "sin")]
    truth = {
        "w": kernel(1, 5, function=ANY, sections=columns),
        "b": bias("w", sections=ANY),
        "c": convolution(10, 8, 0, 1, 2, function="relu"),
        "cb": bias("c"),
        "out": kernel(12, 3, head=True),
    }
    return Model(apply, params, (floats(B, T, 1),), truth)


@model
def weights_with_noise() -> Model:
    """Blundell et al. 2015: a mean and a width that noise multiplies; a plain head."""

    def apply(p, x, e):
        w = p["mu"] + jax.nn.softplus(p["rho"]) * e
        return jnp.tanh(x @ w + p["b"]) @ p["out"]

    params = {"mu": floats(7, F), "rho": floats(7, F), "b": floats(F)}
    params["out"] = floats(F, 3)
    truth = {
        # What meets activations is a sum with noise: no kernel that is known.
        "mu": unknown(),
        "rho": unknown(),
        "b": bias(ANY),
        "out": kernel(F, 3, head=True),
    }
    return Model(apply, params, (floats(B, 7), floats(7, F)), truth)


@model
def words_by_letters() -> Model:
    """Kim et al. 2016: windows over letters, a highway, and a cell over words."""
    letters, widths = 5, (2, 3)

    def apply(p, c):
        e = p["chars"][c].reshape(B * T, letters, 4)
        y = [
            jnp.tanh(
                jax.lax.conv_general_dilated(
                    e, w, (1,), "VALID", dimension_numbers=("NHC", "HIO", "NHC")
                )
                + b
            ).max(1)
            for w, b in zip(p["w"], p["b"], strict=True)
        ]
        y = jnp.concatenate(y, -1)
        g = jax.nn.sigmoid(linear(p["t"], y))
        y = g * jax.nn.relu(linear(p["h"], y)) + (1 - g) * y
        x = y.reshape(B, T, -1)

        def step(h, x):
            h = jnp.tanh(x @ p["wx"] + h @ p["wh"] + p["bh"])
            return h, h

        _, hs = jax.lax.scan(step, jnp.zeros((B, D)), jnp.moveaxis(x, 1, 0))
        return jax.nn.log_softmax(hs @ p["vocab"].T + p["vb"])

    params = {
        "chars": floats(9, 4),
        "w": [floats(n, 4, 3) for n in widths],
        "b": [floats(3) for _ in widths],
        "t": affine(6, 6),
        "h": affine(6, 6),
        "wx": floats(6, D),
        "wh": floats(D, D),
        "bh": floats(D),
        "vocab": floats(V, D),
        "vb": floats(V),
    }
    truth = {
        "chars": embedding(4),
        **dense("t", 6, 6, function="sigmoid", part="gate", residual=ANY),
        # Debatable: the gate's other factor, but no linear one.
        **dense("h", 6, 6, function="relu", part=ANY, residual=ANY),
        "wx": kernel(6, D, function="tanh"),
        "wh": kernel(D, D, function="tanh", recurrent=True),
        "bh": bias(["wx", "wh"]),
        "vocab": kernel(D, V, 1, 0, head=True),
        "vb": bias("vocab"),
    }
    for i, n in enumerate(widths):
        truth[f"w/{i}"] = convolution(4 * n, 3 * n, 0, 1, 2, function="tanh")
        truth[f"b/{i}"] = bias(f"w/{i}")
    return Model(apply, params, (integers(B, T, letters),), truth)
