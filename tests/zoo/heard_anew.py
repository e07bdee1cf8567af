"""Sounds and events: banks of windows, codes of remainders, spectra, periods."""

import jax
import jax.numpy as jnp

from zoo.flax_layers import of_linen, window
from zoo.haiku_models import linear as hk_linear
from zoo.haiku_models import of_haiku
from zoo.layers import affine, linear, scales
from zoo.truths import (
    ANY,
    WRITES,
    Model,
    bias,
    bias_cut,
    convolution,
    cut,
    dense,
    embedding,
    every,
    floats,
    gate,
    integers,
    kernel,
    layer_norm,
    model,
    norm,
    one_of,
    scale,
    shift,
    unknown,
)

B, T, D, F, H, HEADS, SIZE, V, O = 2, 8, 12, 15, 9, 3, 4, 19, 5  # noqa: E741
LINE = {"spatial_axis": 0, "in_axis": 1, "out_axis": 2}


@model
def banks_of_windows() -> Model:
    """Wang et al. 2017 (Tacotron's CBHG), Haiku: a bank, a highway, GRUs both ways.

    What the prenet drops is given as an argument.
    """
    import haiku as hk

    def highway(x, name):
        h = jax.nn.relu(hk.Linear(D, name=f"{name}_h")(x))
        t = jax.nn.sigmoid(hk.Linear(D, name=f"{name}_t")(x))
        return h * t + x * (1.0 - t)

    def fun(ids, keep_1, keep_2):
        x = hk.Embed(V, 7, name="embed")(ids)
        x = jax.nn.relu(hk.Linear(F, name="prenet_1")(x)) * keep_1 * 2.0
        x = jax.nn.relu(hk.Linear(D, name="prenet_2")(x)) * keep_2 * 2.0
        y = jnp.concatenate(
            [
                jax.nn.relu(hk.Conv1D(5, k, name=f"bank_{k}")(x))  # (B, T, 5)
                for k in (1, 2, 3)
            ],
            axis=-1,
        )
        y = hk.BatchNorm(True, True, 0.99, name="bn")(y, is_training=True)
        y = hk.max_pool(y, (1, 2, 1), (1, 1, 1), "SAME")
        y = jax.nn.relu(hk.Conv1D(10, 3, name="proj_1")(y))
        x = hk.Conv1D(D, 3, name="proj_2")(y) + x
        for i in range(2):
            x = highway(x, f"highway_{i}")
        x = jnp.transpose(x, (1, 0, 2))
        there, back = hk.GRU(H, name="there"), hk.GRU(H, name="back")
        a, _ = hk.dynamic_unroll(there, x, there.initial_state(B))
        b, _ = hk.dynamic_unroll(back, x[::-1], back.initial_state(B))
        x = jnp.concatenate([a, b[::-1]], axis=-1).transpose(1, 0, 2)
        return hk.Linear(O, name="spectrum")(x)

    parts = ("update gate", "reset gate", "candidate")
    names = ("w", "b")

    def gru(path):
        both, columns = [f"{path}/w_h", f"{path}/w_i"], cut(1, H, parts)
        return {
            f"{path}/w_i": kernel(D, 3 * H, function=ANY, sections=columns),
            f"{path}/w_h": [
                kernel(H, 2 * H, function="sigmoid", recurrent=True,
                       sections=columns[:2]),
                kernel(H, H, function="tanh", recurrent=True, part="candidate",
                       sections=columns[2:]),
            ],
            f"{path}/b": [
                bias(both, sections=bias_cut(H, parts)[:2]),
                bias(both, part="candidate", sections=bias_cut(H, parts)[2:]),
            ],
        }  # fmt: skip

    truth = {
        "embed/embeddings": embedding(7),
        **hk_linear("prenet_1", 7, F, function="relu"),
        **hk_linear("prenet_2", F, D, function="relu"),
        "bn/scale": scale(2),
        "bn/offset": shift(2),
        **window("proj_1", 45, 30, names, function="relu", **LINE),
        # Debatable: highways may write to its stream, or end it.
        **window("proj_2", 30, 3 * D, names, residual=WRITES, **LINE),
        **gru("there"),
        **gru("back"),
        **hk_linear("spectrum", 2 * H, O, head=True),
    }
    for k in (1, 2, 3):
        truth |= window(f"bank_{k}", k * D, k * 5, names, function="relu", **LINE)
    for i in range(2):
        path = f"highway_{i}"
        truth |= {
            **hk_linear(
                f"{path}_t", D, D, function="sigmoid", part="gate", residual=ANY
            ),
            # Debatable: the gate's other factor, but no linear one.
            f"{path}_h/w": kernel(D, D, function="relu", part=ANY, residual=ANY),
            f"{path}_h/b": bias(f"{path}_h/w", part=ANY),
        }
    return of_haiku(fun, [integers(B, T), floats(B, T, F), floats(B, T, D)], truth)


@model
def codes_of_remainders() -> Model:
    """Défossez et al. 2022 (EnCodec), plain: each book has what the last one left."""
    c, wide, z, codes = 4, 6, 7, 11
    layout = ("NWC", "WIO", "NWC")

    def conv(p, x, stride=1):
        w, b = p
        pad = [(w.shape[0] - stride, 0)]
        return b + jax.lax.conv_general_dilated(
            x, w, (stride,), pad, dimension_numbers=layout
        )

    def unit(p, x):
        return x + conv(p["point"], jax.nn.elu(conv(p["wide"], jax.nn.elu(x))))

    def apply(p, x):
        e, d = p["encoder"], p["decoder"]
        x = unit(e["unit"], conv(e["first"], x))
        z = conv(e["last"], jax.nn.elu(conv(e["down"], jax.nn.elu(x), 2)))
        left, total = z, 0.0
        for book in p["books"]:
            apart = jnp.sum((left[:, :, None] - book) ** 2, axis=-1)
            row = book[jnp.argmin(apart, axis=-1)]
            left, total = left - row, total + row
        x = conv(d["first"], z + jax.lax.stop_gradient(total - z))
        w, b = d["up"]
        x = b + jax.lax.conv_transpose(
            jax.nn.elu(x), w, (2,), "SAME", dimension_numbers=layout
        )
        return conv(d["last"], jax.nn.elu(unit(d["unit"], x)))

    def pair(k, a, b):
        return (floats(k, a, b), floats(b))

    one = {"wide": pair(3, c, 5), "point": pair(1, 5, c)}
    params = {
        "encoder": {
            "first": pair(7, 1, c), "unit": one, "down": pair(4, c, wide),
            "last": pair(3, wide, z),
        },
        "books": [floats(codes, z)] * 2,
        "decoder": {
            "first": pair(3, z, wide), "up": pair(4, wide, c), "unit": one,
            "last": pair(7, c, 1),
        },
    }  # fmt: skip

    def pair_truth(path, k, a, b, **rest):
        axis = 0 if b > 1 else ()
        return {
            f"{path}/0": convolution(k * a, k * b, **LINE, **rest),
            f"{path}/1": bias(f"{path}/0", axis),
        }

    # Debatable: a stream's beginning, which a function reads.
    begins = {"function": one_of("identity", "elu")}
    # Debatable: what codes are taken of, and what stands for them.
    coded = {"function": ANY, "head": ANY, "residual": ANY, "part": ANY}
    truth = {
        **pair_truth("encoder/first", 7, 1, c, **begins),
        **pair_truth("encoder/down", 4, c, wide, function="elu"),
        **pair_truth("encoder/last", 3, wide, z, **coded),
        **pair_truth("decoder/first", 3, z, wide, function="elu"),
        "decoder/up/0": convolution(2 * wide, 4 * c, transposed=True, **LINE, **begins),
        "decoder/up/1": bias("decoder/up/0"),
        **pair_truth("decoder/last", 7, c, 1, head=True),
    }
    for i in range(2):
        row = embedding(z, multiplier=ANY, residual=ANY, part=ANY)
        # It is compared, as centers are, and looked up by what is nearest.
        truth[f"books/{i}"] = [unknown(), row]
    for name in ("encoder", "decoder"):
        truth |= pair_truth(f"{name}/unit/wide", 3, c, 5, function="elu")
        truth |= pair_truth(f"{name}/unit/point", 1, 5, c, residual=(0, 1))
    return Model(apply, params, (floats(B, 16, 1),), truth)


@model
def sounds_of_spectra() -> Model:
    """Siuzdak 2023 (Vocos), Linen: blocks at one rate; lengths and angles last."""
    from flax import linen as nn

    mels, n_fft, hop, layers = 7, 8, 4, 2

    class Block(nn.Module):
        @nn.compact
        def __call__(self, x):
            h = nn.Conv(D, (7,), feature_group_count=D, name="dwconv")(x)
            h = nn.LayerNorm(epsilon=1e-6, name="norm")(h)
            h = nn.gelu(nn.Dense(3 * D, name="pwconv1")(h))
            gamma = self.param("gamma", nn.initializers.constant(0.5), (D,))
            return x + gamma * nn.Dense(D, name="pwconv2")(h)

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.LayerNorm(name="norm")(nn.Conv(D, (7,), name="embed")(x))
            for i in range(layers):
                x = Block(name=f"convnext_{i}")(x)
            x = nn.LayerNorm(name="final_layer_norm")(x)
            mag, angle = jnp.split(nn.Dense(n_fft + 2, name="out")(x), 2, axis=-1)
            mag = jnp.clip(jnp.exp(mag), max=1e2)
            spectrum = mag * (jnp.cos(angle) + 1j * jnp.sin(angle))
            frames = jnp.fft.irfft(spectrum, n_fft, axis=-1) * jnp.hanning(n_fft)
            y = jnp.zeros((B, (T - 1) * hop + n_fft))
            for i in range(T):
                y = y.at[:, i * hop : i * hop + n_fft].add(frames[:, i])
            return y

    block = {
        **window("dwconv", 7, 7, groups=D, **LINE),
        **norm("norm"),
        **dense("pwconv1", D, 3 * D, function="gelu"),
        "gamma": gate(0),
        **dense("pwconv2", 3 * D, D, residual=(0, layers)),
    }
    # Debatable: a transform follows, of an exponential times waves.
    last = {"sections": ANY, "part": ANY}
    truth = {
        **window("embed", 7 * mels, 7 * D, **LINE),
        **norm("norm"),
        **every("convnext_{}/", layers, block),
        **norm("final_layer_norm"),
        "out/kernel": kernel(D, n_fft + 2, function=ANY, head=ANY, **last),
        "out/bias": bias("out/kernel", **last),
    }
    return of_linen(Net(), [floats(B, T, mels)], truth)


@model
def periods_as_images() -> Model:
    """Wu et al. 2023 (TimesNet), Linen: a series is folded by periods, and seen."""
    from flax import linen as nn

    layers, series, ahead, periods = 2, 7, 4, (3, 4)
    long = T + ahead

    class Inception(nn.Module):
        out: int

        @nn.compact
        def __call__(self, x):
            ys = [nn.Conv(self.out, (k, k), name=f"k{k}")(x) for k in (1, 3)]
            return jnp.stack(ys, axis=-1).mean(-1)

    class Block(nn.Module):
        def setup(self):
            self.first, self.second = Inception(F), Inception(D)

        def __call__(self, x):
            amplitude = jnp.abs(jnp.fft.rfft(x, axis=1)).mean(-1)
            ys, weights = [], []
            for period in periods:
                y = x.reshape(B, long // period, period, D)
                y = self.second(nn.gelu(self.first(y)))
                ys.append(y.reshape(B, long, D))
                weights.append(amplitude[:, long // period])
            weights = nn.softmax(jnp.stack(weights, axis=-1), axis=-1)
            return (jnp.stack(ys, -1) * weights[:, None, None]).sum(-1) + x

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            mean = jax.lax.stop_gradient(x.mean(1, keepdims=True))
            x = x - mean
            std = jnp.sqrt(jnp.var(x, axis=1, keepdims=True) + 1e-5)
            x = x / std
            conv = nn.Conv(D, (3,), padding="CIRCULAR", use_bias=False, name="token")
            angles = jnp.arange(T)[:, None] * 0.1 ** jnp.arange(D // 2)
            x = conv(x) + jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], -1)
            x = nn.Dense(long, name="predict")(x.transpose(0, 2, 1))
            x, ln = x.transpose(0, 2, 1), nn.LayerNorm(name="layer_norm")
            for i in range(layers):
                x = ln(Block(name=f"model_{i}")(x))
            return nn.Dense(series, name="projection")(x) * std + mean

    truth = {
        "token/kernel": convolution(3 * series, 3 * D, **LINE),
        **dense("predict", T, long),
        **{path: [use] * layers for path, use in norm("layer_norm").items()},
        # Debatable: the series' mean, a stream that it is added to.
        **dense("projection", D, series, head=True, residual=ANY),
    }
    for i in range(layers):
        for name, a, b in (("first", D, F), ("second", F, D)):
            for k in (1, 3):
                path = f"model_{i}/{name}/k{k}"
                # A mean of two windows; debatable: a weighted sum of both foldings.
                own = {"multiplier": ANY}
                if name == "first":
                    own |= {"function": "gelu"}
                else:
                    own |= {"residual": ANY, "part": ANY}
                truth[f"{path}/kernel"] = [convolution(k * k * a, k * k * b, **own)] * 2
                truth[f"{path}/bias"] = [
                    bias(f"{path}/kernel", multiplier=ANY, part=ANY)
                ] * 2
    return of_linen(Net(), [floats(B, T, series)], truth)


@model
def events_excite() -> Model:
    """Zuo et al. 2020 (transformer Hawkes), plain: times, added in each layer."""
    layers, kinds = 2, 6

    def apply(p, kind, time):
        real = (kind > 0)[..., None].astype(jnp.float32)
        waves = time[..., None] / 100.0 ** (jnp.arange(D) // 2 * 2 / D)
        waves = jnp.where(jnp.arange(D) % 2 == 0, jnp.sin(waves), jnp.cos(waves)) * real
        x = p["event_emb"][kind]
        later = jnp.triu(jnp.ones((T, T)), k=1)[None] + (kind == 0)[:, None, :]
        for q_ in p["stack"]:
            x = x + waves
            q, k, v = (
                (x @ q_[f"w_{c}s"]).reshape(B, T, HEADS, SIZE).transpose(0, 2, 1, 3)
                for c in "qkv"
            )
            s = jnp.matmul(q / SIZE**0.5, k.transpose(0, 1, 3, 2))
            s = jnp.where(later[:, None] > 0, -1e9, s)
            y = jnp.matmul(jax.nn.softmax(s, axis=-1), v).transpose(0, 2, 1, 3)
            y = linear(q_["fc"], y.reshape(B, T, -1))
            x = layer_norm(y + x, q_["n1"]) * real
            y = linear(q_["w_2"], jax.nn.gelu(linear(q_["w_1"], x)))
            x = layer_norm(y + x, q_["n2"]) * real
        since = (time[:, 1:] - time[:, :-1])[..., None] / (time[:, :-1, None] + 1)
        rate = jax.nn.softplus(p["alpha"] * since + linear(p["linear"], x[:, :-1]))
        return rate, x @ p["next_type"], (x @ p["next_time"])[..., 0]

    one = {
        **{f"w_{c}s": floats(D, HEADS * SIZE) for c in "qkv"},
        "fc": affine(HEADS * SIZE, D), "n1": scales(D), "w_1": affine(D, F),
        "w_2": affine(F, D), "n2": scales(D),
    }  # fmt: skip
    params = {
        "event_emb": floats(kinds + 1, D), "stack": [one] * layers,
        "alpha": floats(kinds), "linear": affine(D, kinds),
        "next_type": floats(D, kinds), "next_time": floats(D, 1),
    }  # fmt: skip
    layer = {
        "w_qs": kernel(D, HEADS * SIZE, part="query", multiplier=SIZE**-0.5),
        "w_ks": kernel(D, HEADS * SIZE, part="key"),
        "w_vs": kernel(D, HEADS * SIZE, part="value"),
        **dense(
            "fc", HEADS * SIZE, D, part="attention output", residual=(0, 2 * layers)
        ),
        **norm("n1"),
        **dense("w_1", D, F, function="gelu"),
        **dense("w_2", F, D, residual=(1, 2 * layers)),
        **norm("n2"),
    }
    truth = {
        "event_emb": embedding(D),
        **every("stack/{}/", layers, layer),
        # Times multiply it, one by one.
        "alpha": scale(),
        **dense("linear", D, kinds, function="softplus", head=True),
        "next_type": kernel(D, kinds, head=True),
        "next_time": kernel(D, 1, head=True),
    }
    return Model(apply, params, (integers(B, T), floats(B, T)), truth)
