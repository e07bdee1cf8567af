"""Ports for series: delays by spectra, distilled lengths, skips of seasons, latents."""

import jax
import jax.numpy as jnp

from zoo.flax_layers import attention, of_linen
from zoo.haiku_models import linear as hk_linear
from zoo.haiku_models import of_haiku
from zoo.truths import (
    ANY,
    WRITES,
    Model,
    bias,
    bias_cut,
    convolution,
    cut,
    dense,
    every,
    floats,
    kernel,
    model,
    norm,
)

B, T, D, F, HEADS, SIZE = 2, 8, 12, 15, 3, 4
INNER = HEADS * SIZE


@model
def delays_by_spectra() -> Model:
    """Wu et al. 2021 (Autoformer), plain: the best delays weigh rolled values.

    Moving averages are taken away behind every sum; the trend goes on by itself.
    """
    layers, channels, times, ahead = 2, 3, 4, 5

    def average(x):
        pad = jnp.pad(x, ((0, 0), (1, 1), (0, 0)), mode="edge")
        return (pad[:, :-2] + pad[:, 1:-1] + pad[:, 2:]) / 3.0

    def seasonal(x):
        return x - average(x)

    def affine_of(p, x):
        return x @ p["w"] + p["b"]

    def correlate(p, x):
        q, k, v = (affine_of(p[n], x).reshape(B, T, HEADS, SIZE) for n in "qkv")
        f = jnp.fft.rfft(q, axis=1) * jnp.conj(jnp.fft.rfft(k, axis=1))
        corr = jnp.fft.irfft(f, n=T, axis=1).mean((2, 3))
        best, delay = jax.lax.top_k(corr, 2)
        weight = jax.nn.softmax(best, axis=-1)
        out = jnp.zeros_like(v)
        for i in range(2):
            index = (jnp.arange(T)[None] + delay[:, i : i + 1]) % T
            rolled = jnp.take_along_axis(v, index[:, :, None, None], axis=1)
            out = out + rolled * weight[:, i, None, None, None]
        return affine_of(p["o"], out.reshape(B, T, INNER))

    def apply(p, x, marks):
        trend = average(x)
        wrapped = jnp.concatenate([x[:, -1:], x, x[:, :1]], axis=1)
        h = jax.lax.conv_general_dilated(
            wrapped, p["value"], (1,), "VALID",
            dimension_numbers=("NHC", "HIO", "NHC"),
        )  # fmt: skip
        h = h + marks @ p["time"]
        for q in p["layers"]:
            h = seasonal(h + correlate(q["att"], h))
            y = jax.nn.gelu(h @ q["conv1"]) @ q["conv2"]
            h = seasonal(h + y)
        season = affine_of(p["projection"], h)
        last = jnp.swapaxes(trend + season, 1, 2)
        return jnp.swapaxes(affine_of(p["ahead"], last), 1, 2)

    def pair(a, b):
        return {"w": floats(a, b), "b": floats(b)}

    layer = {
        "att": {n: pair(D, INNER) for n in "qkv"} | {"o": pair(INNER, D)},
        "conv1": floats(D, F), "conv2": floats(F, D),
    }  # fmt: skip
    params = {
        "value": floats(3, channels, D), "time": floats(times, D),
        "layers": [layer] * layers, "projection": pair(D, channels),
        "ahead": pair(T, ahead),
    }  # fmt: skip
    # Debatable: a stream goes on without its averages, or ends there.
    stream = {"residual": ANY}
    own = {
        **{
            path: use
            for n in "qk"
            # Debatable: their product of spectra is a score for each delay.
            for path, use in dense(
                f"att/{n}", D, INNER, "w", "b", part=ANY, function=ANY
            ).items()
        },
        **dense("att/v", D, INNER, "w", "b", part=ANY),
        **dense("att/o", INNER, D, "w", "b", part=ANY, **stream),
        "conv1": kernel(D, F, function="gelu"),
        "conv2": kernel(F, D, **stream),
    }
    truth = {
        "value": convolution(3 * channels, 3 * D, 0, 1, 2, **stream),
        "time": kernel(times, D, **stream),
        **every("layers/{}/", layers, own),
        **dense("projection", D, channels, "w", "b", **stream),
        **dense("ahead", T, ahead, "w", "b", head=True),
    }
    return Model(apply, params, (floats(B, T, channels), floats(B, T, times)), truth)


@model
def distilled_lengths() -> Model:
    """Zhou et al. 2021 (Informer), Linen: each layer halves the length by a window."""
    from flax import linen as nn

    channels, ahead = 5, 4

    class Layer(nn.Module):
        @nn.compact
        def __call__(self, x):
            att = nn.MultiHeadDotProductAttention(
                HEADS, qkv_features=INNER, out_features=D, name="attention"
            )
            x = nn.LayerNorm(name="norm1")(x + att(x, x))
            y = nn.gelu(nn.Conv(F, (1,), name="conv1")(x))
            return nn.LayerNorm(name="norm2")(x + nn.Conv(D, (1,), name="conv2")(y))

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            embed = nn.Conv(
                D, (3,), padding="CIRCULAR", use_bias=False, name="token_conv"
            )
            x = embed(x)
            for i in range(2):
                x = Layer(name=f"layer{i}")(x)
                if i == 0:
                    x = nn.Conv(D, (3,), padding="CIRCULAR", name="down_conv")(x)
                    x = nn.BatchNorm(use_running_average=False, name="down_norm")(x)
                    x = nn.max_pool(nn.elu(x), (3,), (2,), padding=((1, 1),))
            x = nn.LayerNorm(name="norm")(x)
            return nn.Dense(ahead, name="projection")(x.reshape(B, -1))

    line = {"spatial_axis": 0, "in_axis": 1, "out_axis": 2}
    truth = {
        "token_conv/kernel": convolution(3 * channels, 3 * D, **line),
        "down_conv/kernel": convolution(3 * D, 3 * D, **line),
        "down_conv/bias": bias("down_conv/kernel"),
        **norm("down_norm"),
        **norm("norm"),
        **dense("projection", T // 2 * D, ahead, head=True),
    }
    for i in range(2):
        path = f"layer{i}"
        truth |= {
            **attention(f"{path}/attention", D, HEADS, SIZE, WRITES, scaled=True),
            **norm(f"{path}/norm1"),
            f"{path}/conv1/kernel": convolution(D, F, function="gelu", **line),
            f"{path}/conv1/bias": bias(f"{path}/conv1/kernel"),
            f"{path}/conv2/kernel": convolution(F, D, residual=WRITES, **line),
            f"{path}/conv2/bias": bias(f"{path}/conv2/kernel"),
            **norm(f"{path}/norm2"),
        }
    return of_linen(Net(), [floats(B, T, channels)], truth)


@model
def skips_of_seasons() -> Model:
    """Lai et al. 2018 (LSTNet), Haiku: a window, two GRUs, a line through last days.

    The second GRU sees every fourth step; each series has the same line.
    """
    import haiku as hk

    channels, c, h, g, skip, days = 5, 6, 7, 3, 4, 3

    def fun(x):
        y = hk.Conv2D(c, (3, channels), padding="VALID")(x[..., None])
        y = jnp.pad(jax.nn.relu(y[:, :, 0]), ((0, 0), (2, 0), (0, 0)))
        core = hk.GRU(h, name="gru")
        _, r = hk.dynamic_unroll(core, y.swapaxes(0, 1), core.initial_state(B))
        s = y.reshape(B, T // skip, skip, c).transpose(1, 0, 2, 3)
        s = s.reshape(T // skip, B * skip, c)
        small = hk.GRU(g, name="skip_gru")
        _, s = hk.dynamic_unroll(small, s, small.initial_state(B * skip))
        r = jnp.concatenate([r, s.reshape(B, skip * g)], axis=-1)
        out = hk.Linear(channels, name="output")(r)
        z = x[:, -days:].swapaxes(1, 2)
        return out + hk.Linear(1, name="highway")(z)[..., 0]

    def gru(path, n, state):
        parts = ("update gate", "reset gate", "candidate")
        sections, offsets = cut(1, state, parts), bias_cut(state, parts)
        both = [f"{path}/w_h", f"{path}/w_i"]
        own = {"recurrent": True}
        return {
            f"{path}/w_i": kernel(n, 3 * state, function=ANY, sections=sections),
            f"{path}/w_h": [
                kernel(
                    state, 2 * state, function="sigmoid", sections=sections[:2], **own
                ),
                kernel(
                    state, state, function="tanh", part="candidate",
                    sections=sections[2:], **own,
                ),
            ],
            f"{path}/b": [
                bias(both, sections=offsets[:2]),
                bias(both, part="candidate", sections=offsets[2:]),
            ],
        }  # fmt: skip

    truth = {
        # Debatable: the window is as wide as the series, with one place along it.
        "conv2_d/w": convolution(3 * channels, ANY, function="relu"),
        "conv2_d/b": bias("conv2_d/w"),
        **gru("gru", c, h),
        **gru("skip_gru", c, g),
        # Debatable: what the first window leads to, and what is added to it.
        **hk_linear("output", h + skip * g, channels, head=ANY, residual=ANY),
        **hk_linear("highway", days, 1, head=ANY, residual=ANY),
    }
    return of_haiku(fun, [floats(B, T, channels)], truth)


@model
def latents_over_time() -> Model:
    """Chung et al. 2015 (VRNN), plain: priors and posteriors by the state; a GRU.

    Noise is given; what is returned is the divergence and the likelihood.
    """
    n, x_size, z_size, h = 5, 7, 4, 9

    def layer(p, x):
        return x @ p["w"] + p["b"]

    def gru(p, x, s):
        r = jax.nn.sigmoid(x @ p["wr"] + s @ p["ur"] + p["br"])
        u = jax.nn.sigmoid(x @ p["wu"] + s @ p["uu"] + p["bu"])
        c = jnp.tanh(x @ p["wc"] + (r * s) @ p["uc"] + p["bc"])
        return u * s + (1 - u) * c

    def apply(p, x, noise):
        def step(s, now):
            x, e = now
            fx = jax.nn.relu(layer(p["phi_x"], x))
            q = jax.nn.relu(layer(p["enc"], jnp.concatenate([fx, s], -1)))
            qm, qs = layer(p["enc_mean"], q), jax.nn.softplus(layer(p["enc_std"], q))
            o = jax.nn.relu(layer(p["prior"], s))
            pm = layer(p["prior_mean"], o)
            ps = jax.nn.softplus(layer(p["prior_std"], o))
            z = qm + qs * e
            fz = jax.nn.relu(layer(p["phi_z"], z))
            d = jax.nn.relu(layer(p["dec"], jnp.concatenate([fz, s], -1)))
            logits = layer(p["dec_mean"], d)
            s = gru(p["rnn"], jnp.concatenate([fx, fz], -1), s)
            kld = 2 * jnp.log(ps) - 2 * jnp.log(qs) - 1
            kld = kld + (qs**2 + (qm - pm) ** 2) / ps**2
            nll = jax.nn.softplus(logits) - logits * x
            return s, (0.5 * kld.sum(-1), nll.sum(-1))

        now = (x.swapaxes(0, 1), noise.swapaxes(0, 1))
        _, (kld, nll) = jax.lax.scan(step, jnp.zeros((B, h)), now)
        return kld.sum(0), nll.sum(0)

    sizes = {
        "phi_x": (n, x_size), "enc": (x_size + h, 8), "enc_mean": (8, z_size),
        "enc_std": (8, z_size), "prior": (h, 6), "prior_mean": (6, z_size),
        "prior_std": (6, z_size), "phi_z": (z_size, 11), "dec": (11 + h, 10),
        "dec_mean": (10, n),
    }  # fmt: skip
    params = {k: {"w": floats(*ab), "b": floats(ab[1])} for k, ab in sizes.items()}
    parts = {
        "r": ("reset gate", "sigmoid"),
        "u": ("update gate", "sigmoid"),
        "c": ("candidate", "tanh"),
    }
    params["rnn"] = {}
    # Debatable: by way of what is drawn, what is not hidden-to-hidden comes back too.
    back = {"recurrent": ANY, "part": ANY, "sections": ANY}
    ends = {"function": ANY, "multiplier": ANY, "head": ANY}
    rest = {
        "phi_x": {"function": "relu"},
        "enc": {"function": "relu", **back},
        # Debatable: they lead to others and to a loss; the noise is multiplied.
        "enc_mean": {**ends, **back},
        "enc_std": {**ends, "function": "softplus", **back},
        "prior": {"function": "relu", "sections": ANY},
        "prior_mean": ends,
        "prior_std": {**ends, "function": ANY},
        "phi_z": {"function": "relu", **back},
        "dec": {"function": "relu", "sections": ANY},
        "dec_mean": {**ends, "head": True},
    }
    truth = {}
    for name, (a, b) in sizes.items():
        own = {"multiplier": ANY} if name.endswith("_mean") else {}
        truth |= {
            f"{name}/w": kernel(a, b, **rest[name]),
            f"{name}/b": bias(f"{name}/w", part=rest[name].get("part"), **own),
        }
    for name, (part, function) in parts.items():
        own = {"part": part, "function": function}
        w, u, b = (f"rnn/{letter}{name}" for letter in "wub")
        params["rnn"] |= {
            w[4:]: floats(x_size + 11, h), u[4:]: floats(h, h), b[4:]: floats(h),
        }  # fmt: skip
        truth |= {
            w: kernel(x_size + 11, h, recurrent=ANY, sections=ANY, **own),
            u: kernel(h, h, recurrent=True, **own),
            b: bias([w, u], part=part),
        }
    return Model(apply, params, (floats(B, T, n), floats(B, T, z_size)), truth)


@model
def speeds_of_roads() -> Model:
    """Li et al. 2018 (DCRNN), plain: the gates of a GRU diffuse along a given graph."""
    n, hops, inputs, h, ahead = 5, 2, 3, 7, 4

    def diffused(x, walk):
        steps = [x]
        for _ in range(hops):
            steps.append(jnp.einsum("nm,bmf->bnf", walk, steps[-1]))
        return jnp.concatenate(steps, axis=-1)

    def apply(p, x, walk):
        def step(s, x):
            g = diffused(jnp.concatenate([x, s], -1), walk) @ p["gates"]["w"]
            r, u = jnp.split(jax.nn.sigmoid(g + p["gates"]["b"]), 2, axis=-1)
            c = diffused(jnp.concatenate([x, r * s], -1), walk) @ p["cand"]["w"]
            s = u * s + (1 - u) * jnp.tanh(c + p["cand"]["b"])
            return s, None

        s, _ = jax.lax.scan(step, jnp.zeros((B, n, h)), x.swapaxes(0, 1))
        return s @ p["out"]["w"] + p["out"]["b"]

    rows = (hops + 1) * (inputs + h)
    params = {
        "gates": {"w": floats(rows, 2 * h), "b": floats(2 * h)},
        "cand": {"w": floats(rows, h), "b": floats(h)},
        "out": {"w": floats(h, ahead), "b": floats(ahead)},
    }
    gates = ("reset gate", "update gate")
    truth = {
        # Debatable: rows for inputs and for states take turns.
        "gates/w": kernel(
            rows, 2 * h, function="sigmoid", recurrent=True, sections=ANY
        ),
        "gates/b": bias("gates/w", sections=bias_cut(h, gates)),
        "cand/w": kernel(
            rows, h, function="tanh", recurrent=True, part="candidate", sections=ANY
        ),
        "cand/b": bias("cand/w", part="candidate"),
        **dense("out", h, ahead, "w", "b", head=True),
    }
    return Model(apply, params, (floats(B, T, n, inputs), floats(n, n)), truth)
