"""Plain functions: operators, series, and small additions to frozen models."""

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
    position,
    scale,
)
from zoo.truths import layer_norm as ln

B, FIELDS, K, H, O, ROWS = 4, 3, 5, 9, 6, 21  # noqa: E741


@model
def operator_of_branch_and_trunk() -> Model:
    """Lu et al. 2019 (DeepONet): the product of what a function and a place say."""

    def apply(p, u, y):
        b = linear(p["b1"], jnp.tanh(linear(p["b0"], u)))
        t = jnp.tanh(linear(p["t1"], jnp.tanh(linear(p["t0"], y))))
        return jnp.einsum("bk,mk->bm", b, t) + p["b"]

    params = {"b0": affine(7, 12), "b1": affine(12, H), "t0": affine(2, 10)}
    params |= {"t1": affine(10, H), "b": floats()}
    truth = {
        **dense("b0", 7, 12, function="tanh"),
        # Debatable: their product is a contraction, but of activations.
        **dense("b1", 12, H, head=ANY),
        **dense("t0", 2, 10, function="tanh"),
        **dense("t1", 10, H, function="tanh", head=ANY),
        "b": bias(ANY, ()),
    }
    return Model(apply, params, (floats(B, 7), floats(5, 2)), truth)


@model
def kernels_of_frequencies() -> Model:
    """Li et al. 2021 (FNO): complex kernels for low modes, points beside them."""
    modes, points = 3, 8

    def apply(p, a):
        x = linear(p["lift"], a)
        for i, q in enumerate(p["layers"]):
            f = jnp.fft.rfft(x, axis=1)[:, :modes]
            f = jnp.einsum("bki,kio->bko", f, q["r"])
            f = jnp.pad(f, ((0, 0), (0, points // 2 + 1 - modes), (0, 0)))
            x = jnp.fft.irfft(f, n=points, axis=1) + x @ q["w"] + q["b"]
            x = jax.nn.gelu(x) if i == 0 else x
        return linear(p["out"], jax.nn.gelu(linear(p["mid"], x)))

    spectral = jax.ShapeDtypeStruct((modes, H, H), jnp.complex64)
    q = {"r": spectral, "w": floats(H, H), "b": floats(H)}
    params = {"lift": affine(3, H), "layers": [q] * 2, "mid": affine(H, 12)}
    params["out"] = affine(12, 1)
    truth = {
        **dense("lift", 3, H),
        **dense("mid", H, 12, function="gelu"),
        **dense("out", 12, 1, head=True),
    }
    for i in range(2):
        function = "identity" if i else "gelu"
        # Debatable: a transform lies between it and the function.
        truth |= {
            f"layers/{i}/r": kernel(H, H, 1, 2, ANY, batch_axis=0, multiplier=ANY),
            f"layers/{i}/w": kernel(H, H, function=function),
            f"layers/{i}/b": bias(f"layers/{i}/w"),
        }
    return Model(apply, params, (floats(B, points, 3),), truth)


@model
def double_residuals() -> Model:
    """Oreshkin et al. 2020 (N-BEATS): blocks take away what they explain."""
    past, future, basis = 10, 4, 3

    def apply(p, x):
        told = 0.0
        times = jnp.arange(future) / future
        waves = jnp.stack([times**0, times, times**2])
        for q in p["blocks"]:
            h = jax.nn.relu(linear(q["fc2"], jax.nn.relu(linear(q["fc1"], x))))
            x = x - h @ q["back"]
            told = told + (h @ q["fore"]) @ waves
        return told

    q = {"fc1": affine(past, H), "fc2": affine(H, H), "back": floats(H, past)}
    q["fore"] = floats(H, basis)
    params = {"blocks": [q] * 2}
    truth = {}
    for i in range(2):
        path = f"blocks/{i}"
        truth |= {
            **dense(f"{path}/fc1", past, H, function="relu"),
            **dense(f"{path}/fc2", H, H, function="relu"),
            # Debatable: x - f(x) is a stream, but for its sign; the last is unread.
            f"{path}/back": []
            if i
            else kernel(H, past, residual=ANY, multiplier=one_of(1.0, -1.0)),
            # Debatable: the forecasts are a sum, which begins at nothing, and what
            # follows is contracted with constants.
            f"{path}/fore": kernel(H, basis, head=ANY, residual=ANY),
        }
    return Model(apply, params, (floats(B, past),), truth)


@model
def gated_variables() -> Model:
    """Lim et al. 2021 (TFT): gated residual units choose among variables."""

    def grn(q, x, context=None):
        h = linear(q["a"], x)
        if context is not None:
            h = h + context @ q["c"]
        h = linear(q["b"], jax.nn.elu(h))
        g, v = jnp.split(linear(q["glu"], h), 2, axis=-1)
        return ln(x + jax.nn.sigmoid(g) * v, q["n"])

    def apply(p, x, c):
        each = jnp.stack([x[:, i : i + 1] @ p["in"][i] for i in range(FIELDS)], 1)
        flat = each.reshape(B, FIELDS * K)
        w = jax.nn.softmax(linear(p["choose"], grn(p["select"], flat, c)))
        y = jnp.stack([grn(q, each[:, i]) for i, q in enumerate(p["each"])], 1)
        return linear(p["out"], jnp.einsum("bf,bfk->bk", w, y))

    def shapes(n):
        return {
            "a": affine(n, H),
            "b": affine(H, n),
            "glu": affine(n, 2 * n),
            "n": scales(n),
        }

    n = FIELDS * K
    params = {
        "in": [floats(1, K)] * FIELDS, "select": {**shapes(n), "c": floats(6, H)},
        "choose": affine(n, FIELDS), "each": [shapes(K)] * FIELDS, "out": affine(K, 1),
    }  # fmt: skip

    def unit(path, n):
        halves = [
            (1, ((0, n),), "gate", "sigmoid"),
            (1, ((n, 2 * n),), "up", "identity"),
        ]
        offsets = [(0, *half[1:3], None) for half in halves]
        return {
            **dense(f"{path}/a", n, H, function="elu"),
            **dense(f"{path}/b", H, n),
            # Its branch ends in a product: it writes, without another kernel.
            f"{path}/glu/kernel": kernel(
                n, 2 * n, function=ANY, residual=ANY, sections=halves
            ),
            f"{path}/glu/bias": bias(f"{path}/glu/kernel", sections=offsets),
            **norm(f"{path}/n"),
        }

    truth = {
        **{f"in/{i}": kernel(1, K) for i in range(FIELDS)},
        **unit("select", n),
        "select/c": kernel(6, H, function="elu"),
        # Debatable: a softmax weighs values.
        **dense("choose", n, FIELDS, part=ANY),
        **dense("out", K, 1, head=True, part=ANY),
    }
    truth["out/bias"] = bias("out/kernel", (), part=ANY)
    truth["choose/bias"] = bias("choose/kernel", part=ANY)
    for i in range(FIELDS):
        truth |= unit(f"each/{i}", K)
    return Model(apply, params, (floats(B, FIELDS), floats(B, 6)), truth)


@model
def reversible_instances() -> Model:
    """Kim et al. 2022 (RevIN) around Zeng et al. 2023 (DLinear): trend and rest."""
    past, future, channels = 9, 4, 3

    def apply(p, x):
        m, s = x.mean(1, keepdims=True), x.std(1, keepdims=True) + 1e-5
        x = (x - m) / s * p["w"] + p["b"]
        trend = (
            jax.lax.reduce_window(x, 0.0, jax.lax.add, (1, 3, 1), (1, 1, 1), "SAME") / 3
        )
        y = jnp.einsum("btc,tf->bfc", trend, p["trend"])
        y = y + jnp.einsum("btc,tf->bfc", x - trend, p["rest"])
        return (y - p["b"]) * s + m

    params = {"w": floats(channels), "b": floats(channels)}
    params |= {"trend": floats(past, future), "rest": floats(past, future)}
    truth = {
        "w": scale(),
        # It is used again, to undo what it did.
        # Debatable: a kernel along time leaves channels as places.
        "b": [
            bias(None),
            Use(one_of("bias", "position"), ANY, ANY, of=ANY, multiplier=ANY),
        ],
        "trend": kernel(past, future, head=True, multiplier=ANY),
        "rest": kernel(past, future, head=True, multiplier=ANY),
    }
    return Model(apply, params, (floats(B, past, channels),), truth)


@model
def mixed_series() -> Model:
    """Chen et al. 2023 (TSMixer): kernels along time and along features, in turn."""
    length, channels = 8, 5

    def apply(p, x):
        for q in p["blocks"]:
            h = jnp.swapaxes(ln(x, q["n1"]), 1, 2)
            x = x + jnp.swapaxes(jax.nn.relu(linear(q["time"], h)), 1, 2)
            h = jax.nn.relu(linear(q["f1"], ln(x, q["n2"])))
            x = x + linear(q["f2"], h)
        return jnp.swapaxes(linear(p["out"], jnp.swapaxes(x, 1, 2)), 1, 2)

    q = {
        "n1": scales(channels),
        "time": affine(length, length),
        "n2": scales(channels),
    }
    q |= {"f1": affine(channels, 11), "f2": affine(11, channels)}
    params = {"blocks": [q] * 2, "out": affine(length, 4)}
    truth = dense("out", length, 4, head=True)
    for i in range(2):
        path = f"blocks/{i}"
        truth |= {
            **norm(f"{path}/n1"),
            **dense(
                f"{path}/time", length, length, function="relu", residual=(2 * i, 4)
            ),
            **norm(f"{path}/n2"),
            **dense(f"{path}/f1", channels, 11, function="relu"),
            **dense(f"{path}/f2", 11, channels, residual=(2 * i + 1, 4)),
        }
    return Model(apply, params, (floats(B, length, channels),), truth)


@model
def tuned_by_vectors() -> Model:
    """Liu et al. 2022 (IA3) and Li & Liang 2021: factors in a block, a prefix."""
    heads, size, prefix = 2, 4, 3

    def apply(p, t):
        x = p["tok"][t] + p["pos"]
        x = jnp.concatenate([jnp.broadcast_to(p["prompt"], (B, prefix, K)), x], 1)
        q, k, v = (x @ p[n] for n in "qkv")
        k, v = k * p["lk"], v * p["lv"]
        q, k, v = (y.reshape(B, -1, heads, size) for y in (q, k, v))
        s = jax.nn.softmax(jnp.einsum("bqhd,bkhd->bhqk", q, k) / 2)
        y = jnp.einsum("bhqk,bkhd->bqhd", s, v).reshape(B, -1, heads * size)
        x = ln(x + y @ p["o"], p["n"])
        x = x + (jax.nn.relu(x @ p["up"]) * p["lf"]) @ p["down"]
        return x[:, prefix:] @ p["out"]

    inner = heads * size
    params = {
        "tok": floats(ROWS, K),
        "pos": floats(6, K),
        "prompt": floats(prefix, K),
        "lk": floats(inner),
        "lv": floats(inner),
        "o": floats(inner, K),
        "n": scales(K),
        "up": floats(K, H),
        "lf": floats(H),
        "down": floats(H, K),
        "out": floats(K, ROWS),
    } | {n: floats(K, inner) for n in "qkv"}
    truth = {
        "tok": embedding(K),
        "pos": position(),
        "prompt": Use("embedding", 0, 1, fan_in=1, fan_out=K, part="token"),
        "q": kernel(K, inner, part="query"),
        "k": kernel(K, inner, part="key"),
        "v": kernel(K, inner, part="value"),
        "lk": scale(part=ANY),
        "lv": scale(part=ANY),
        # Debatable: one stream through the norm, or two.
        "o": kernel(inner, K, part="attention output", residual=ANY),
        **norm("n"),
        "up": kernel(K, H, function="relu"),
        "lf": scale(),
        "down": kernel(H, K, residual=ANY),
        "out": kernel(K, ROWS, head=True),
    }
    return Model(apply, params, (integers(B, 6),), truth)
