"""Sounds, series of time, spikes."""

import jax
import jax.numpy as jnp

from zoo.equinox_models import linear as eqx_linear
from zoo.equinox_models import of_equinox
from zoo.flax_layers import attention, of_linen
from zoo.haiku_models import linear as hk_linear
from zoo.haiku_models import of_haiku
from zoo.layers import affine, linear, over_time
from zoo.truths import (
    ANY,
    Model,
    bias,
    bias_cut,
    convolution,
    cut,
    dense,
    either,
    every,
    floats,
    kernel,
    model,
    norm,
    scale,
    shift,
    unknown,
)

B, T, D, F, H, HEADS, SIZE, O = 2, 8, 12, 15, 9, 3, 4, 5  # noqa: E741
LSTM = ("input gate", "forget gate", "cell", "output gate")


@model
def stems_of_songs() -> Model:
    """Défossez et al. 2019 (Demucs), plain: GLUs of windows around an LSTM, a skip.

    Arrays are laid out as Torch has them; the decoder grows by transposed windows.
    """
    c, sources = 6, 2
    layout = ("NCH", "OIH", "NCH")

    def conv(p, x, stride=1, padding="SAME"):
        y = jax.lax.conv_general_dilated(
            x, p["weight"], (stride,), padding, dimension_numbers=layout
        )
        return y + p["bias"][:, None]

    def glu(x):
        a, b = jnp.split(x, 2, axis=1)
        return a * jax.nn.sigmoid(b)

    def lstm(p, x):
        def step(carry, x):
            h, s = carry
            z = x @ p["w_ih"].T + p["b_ih"] + h @ p["w_hh"].T + p["b_hh"]
            i, f, g, o = jnp.split(z, 4, axis=-1)
            s = jax.nn.sigmoid(f) * s + jax.nn.sigmoid(i) * jnp.tanh(g)
            h = jax.nn.sigmoid(o) * jnp.tanh(s)
            return (h, s), h

        zero = jnp.zeros((B, H))
        return over_time(step, (zero, zero), x)[1]

    def apply(p, x):
        x = jax.nn.relu(conv(p["enc"]["conv"], x, 4))
        x = skip = glu(conv(p["enc"]["rewrite"], x))
        x = linear(p["linear"], lstm(p["lstm"], x.transpose(0, 2, 1)))
        x = x.transpose(0, 2, 1) + skip
        x = glu(conv(p["dec"]["rewrite"], x))
        y = jax.lax.conv_transpose(
            x, p["dec"]["conv"]["weight"], (4,), "SAME", dimension_numbers=layout
        )
        return (y + p["dec"]["conv"]["bias"][:, None]).reshape(B, sources, 1, -1)

    def window(a, b, k):
        return {"weight": floats(b, a, k), "bias": floats(b)}

    params = {
        "enc": {"conv": window(1, c, 8), "rewrite": window(c, 2 * c, 1)},
        "lstm": {
            "w_ih": floats(4 * H, c), "b_ih": floats(4 * H),
            "w_hh": floats(4 * H, H), "b_hh": floats(4 * H),
        },
        "linear": affine(H, c),
        "dec": {"rewrite": window(c, 2 * c, 3), "conv": window(c, sources, 8)},
    }  # fmt: skip
    axes = {"spatial_axis": 2, "in_axis": 1, "out_axis": 0}
    halves = [(0, ((0, c),), "up", "identity"), (0, ((c, 2 * c),), "gate", "sigmoid")]
    offsets = [(*x[:3], None) for x in halves]
    both = ["lstm/w_ih", "lstm/w_hh"]
    gates = {"function": ANY, "sections": cut(0, H, LSTM)}
    truth = {
        "enc/conv/weight": convolution(8, 8 * c, function="relu", **axes),
        "enc/conv/bias": bias("enc/conv/weight"),
        "enc/rewrite/weight": convolution(
            c, 2 * c, function=ANY, sections=halves, **axes
        ),
        "enc/rewrite/bias": bias("enc/rewrite/weight", sections=offsets),
        "lstm/w_ih": kernel(c, 4 * H, 1, 0, **gates),
        "lstm/w_hh": kernel(H, 4 * H, 1, 0, recurrent=True, **gates),
        # It is added before the recurrent product is.
        "lstm/b_ih": bias("lstm/w_ih", sections=bias_cut(H, LSTM)),
        "lstm/b_hh": bias(both, sections=bias_cut(H, LSTM)),
        # Debatable: a skip is a stream.
        **dense("linear", H, c, residual=ANY),
        "dec/rewrite/weight": convolution(
            3 * c, 6 * c, function=ANY, sections=halves, **axes
        ),
        "dec/rewrite/bias": bias("dec/rewrite/weight", sections=offsets),
        "dec/conv/weight": convolution(
            2 * c, 8 * sources, transposed=True, head=True, **axes
        ),
        "dec/conv/bias": bias("dec/conv/weight"),
    }
    return Model(apply, params, (floats(B, 1, 32),), truth)


@model
def variables_as_tokens() -> Model:
    """Liu et al. 2024 (iTransformer), Linen: a series is a token, and is normed."""
    from flax import linen as nn

    layers, horizon = 2, 4

    class Layer(nn.Module):
        @nn.compact
        def __call__(self, x):
            att = nn.MultiHeadDotProductAttention(HEADS, name="attention")
            x = nn.LayerNorm(name="norm1")(x + att(x, x))
            y = nn.gelu(nn.Conv(F, (1,), name="conv1")(x))
            return nn.LayerNorm(name="norm2")(x + nn.Conv(D, (1,), name="conv2")(y))

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            mean = jax.lax.stop_gradient(x.mean(1, keepdims=True))
            width = jnp.sqrt(jnp.var(x, axis=1, keepdims=True) + 1e-5)
            x = ((x - mean) / width).transpose(0, 2, 1)
            x = nn.Dense(D, name="value_embedding")(x)
            for i in range(layers):
                x = Layer(name=f"layer_{i}")(x)
            x = nn.Dense(horizon, name="projector")(nn.LayerNorm(name="norm")(x))
            return x.transpose(0, 2, 1) * width + mean

    axes = {"spatial_axis": 0, "in_axis": 1, "out_axis": 2}
    layer = {
        **attention("attention", D, HEADS, SIZE, (0, 2 * layers), scaled=True),
        **norm("norm1"),
        "conv1/kernel": convolution(D, F, function="gelu", **axes),
        "conv1/bias": bias("conv1/kernel"),
        "conv2/kernel": convolution(F, D, residual=(1, 2 * layers), **axes),
        "conv2/bias": bias("conv2/kernel"),
        **norm("norm2"),
    }
    truth = {
        **dense("value_embedding", T, D),
        **every("layer_{}/", layers, layer),
        **norm("norm"),
        # Debatable: the series' mean, a stream that it is added to.
        **dense("projector", D, horizon, head=True, residual=ANY),
    }
    return of_linen(Net(), [floats(B, T, 7)], truth)


@model
def missing_values() -> Model:
    """Che et al. 2018 (GRU-D), plain: what is missing and the state decay with time."""
    n = 5

    def apply(p, x, mask, delta):
        def step(carry, now):
            h, last = carry
            x, m, d = now
            last = jnp.where(m > 0, x, last)
            keep = jnp.exp(-jax.nn.relu(p["w_dx"] * d + p["b_dx"]))
            x = m * x + (1 - m) * keep * last
            h = h * jnp.exp(-jax.nn.relu(linear(p["decay"], d)))
            z = jax.nn.sigmoid(x @ p["wz"] + h @ p["uz"] + m @ p["vz"] + p["bz"])
            r = jax.nn.sigmoid(x @ p["wr"] + h @ p["ur"] + m @ p["vr"] + p["br"])
            c = jnp.tanh(x @ p["wh"] + (r * h) @ p["uh"] + m @ p["vh"] + p["bh"])
            h = (1 - z) * h + z * c
            return (h, last), h

        start = (jnp.zeros((B, H)), jnp.zeros((B, n)))
        parts = tuple(jnp.moveaxis(y, 1, 0) for y in (x, mask, delta))
        (h, _), _ = jax.lax.scan(step, start, parts)
        return jax.nn.sigmoid(linear(p["out"], h))

    params = {"w_dx": floats(n), "b_dx": floats(n), "decay": affine(n, H)}
    gates = {"z": "update gate", "r": "reset gate", "h": "candidate"}
    truth = {
        # Times multiply it, one by one.
        "w_dx": scale(),
        "b_dx": shift(),
        # Debatable: exp(-relu), or the relu.
        **dense("decay", n, H, function=ANY),
        **dense("out", H, 1, function="sigmoid", head=True),
    }
    truth["decay/kernel"] = kernel(n, H, function=ANY, part=ANY, residual=ANY)
    truth["decay/bias"] = bias("decay/kernel", part=ANY)
    for name, part in gates.items():
        own = {"part": part, "function": "tanh" if name == "h" else "sigmoid"}
        params |= {
            f"w{name}": floats(n, H), f"u{name}": floats(H, H),
            f"v{name}": floats(n, H), f"b{name}": floats(H),
        }  # fmt: skip
        truth |= {
            f"w{name}": kernel(n, H, **own),
            f"u{name}": kernel(H, H, recurrent=True, **own),
            f"v{name}": kernel(n, H, **own),
            f"b{name}": bias([f"{kind}{name}" for kind in "wuv"], part=part),
        }
    params["out"] = affine(H, 1)
    return Model(apply, params, (floats(B, T, n),) * 3, truth)


@model
def spikes() -> Model:
    """Neftci et al. 2019, Haiku: leaky neurons that fire; a slope by custom_vjp.

    Two layers of hk.RNNCore in one loop; a last one that only leaks is read.
    """
    import haiku as hk

    @jax.custom_vjp
    def fire(x):
        return (x > 0).astype(jnp.float32)

    def forth(x):
        return fire(x), x

    def back(x, g):
        return (g / (1 + 10 * jnp.abs(x)) ** 2,)

    fire.defvjp(forth, back)

    class Leaky(hk.RNNCore):
        def __init__(self, size, fires, name):
            super().__init__(name)
            self.size, self.fires = size, fires

        def initial_state(self, batch_size):
            return jnp.zeros((batch_size, self.size))

        def __call__(self, x, v):
            beta = hk.get_parameter("beta", [self.size], init=jnp.ones)
            v = jax.nn.sigmoid(beta) * v + x
            s = fire(v - 1.0)
            return (s, v - s) if self.fires else (v, v)

    def fun(x):
        core = hk.DeepRNN(
            [
                hk.Linear(H, name="fc1"),
                Leaky(H, True, "lif1"),
                hk.Linear(H, False, name="fc2"),
                Leaky(H, True, "lif2"),
                hk.Linear(O, name="fc3"),
                Leaky(O, False, "li"),
            ]
        )
        ys, _ = hk.dynamic_unroll(core, jnp.moveaxis(x, 1, 0), core.initial_state(B))
        return ys.max(axis=0)

    # Debatable: a state stands between a kernel and the step that follows.
    step = {"function": ANY, "residual": ANY, "part": ANY}
    # A sigmoid of the leaf multiplies the state.
    decay = either("scale", "gate", "kernel", "unknown")
    truth = {
        **hk_linear("fc1", 7, H),
        "lif1/beta": decay,
        "fc2/w": kernel(H, H, **step),
        "lif2/beta": decay,
        **hk_linear("fc3", H, O),
        "li/beta": decay,
    }
    truth["fc1/w"] = kernel(7, H, **step)
    truth["fc3/w"] = kernel(H, O, head=True, **step)
    for name in ("fc1", "fc3"):
        truth[f"{name}/b"] = bias(f"{name}/w", part=ANY)
    return of_haiku(fun, [floats(B, T, 7)], truth)


@model
def diagonal_kernels() -> Model:
    """Gu et al. 2022 (S4D), Equinox: a Vandermonde product makes long kernels.

    They meet the sequence in Fourier's domain; a GLU and a norm end each layer.
    """
    import equinox as eqx

    layers, n = 2, 4

    class Layer(eqx.Module):
        log_dt: jax.Array
        log_real: jax.Array
        imag: jax.Array
        c: jax.Array
        d: jax.Array
        out: eqx.nn.Linear
        norm: eqx.nn.LayerNorm

        def __init__(self, key):
            self.log_dt = jnp.zeros(D)
            self.log_real, self.imag = jnp.zeros((D, n)), jnp.ones((D, n))
            self.c, self.d = jnp.ones((D, n, 2)), jnp.ones(D)
            self.out = eqx.nn.Linear(D, 2 * D, key=key)
            self.norm = eqx.nn.LayerNorm(D)

        def __call__(self, x):
            dt, c = jnp.exp(self.log_dt), self.c[..., 0] + 1j * self.c[..., 1]
            a = -jnp.exp(self.log_real) + 1j * self.imag
            dta = a * dt[:, None]
            powers = jnp.exp(dta[..., None] * jnp.arange(T))
            c = c * (jnp.exp(dta) - 1.0) / a
            k = 2 * jnp.einsum("hn,hnl->hl", c, powers).real
            u = x.T
            k_f, u_f = jnp.fft.rfft(k, n=2 * T), jnp.fft.rfft(u, n=2 * T)
            y = jnp.fft.irfft(u_f * k_f, n=2 * T)[..., :T] + u * self.d[:, None]
            a, b = jnp.split(jax.vmap(self.out)(jax.nn.gelu(y).T), 2, axis=-1)
            return jax.vmap(self.norm)(x + a * jax.nn.sigmoid(b))

    class Net(eqx.Module):
        encoder: eqx.nn.Linear
        layers: list
        decoder: eqx.nn.Linear

        def __init__(self, key):
            self.encoder = eqx.nn.Linear(7, D, key=key)
            self.layers = [Layer(key) for _ in range(layers)]
            self.decoder = eqx.nn.Linear(D, O, key=key)

        def __call__(self, x):
            x = jax.vmap(self.encoder)(x)
            for layer in self.layers:
                x = layer(x)
            return self.decoder(x.mean(0))

    halves = [(0, ((0, D),), "up", "identity"), (0, ((D, 2 * D),), "gate", "sigmoid")]
    layer = {
        # Functions of leaves, before they meet the sequence.
        **dict.fromkeys(("log_dt", "log_real", "imag"), unknown()),
        "c": either("unknown", "kernel", "convolution"),
        "d": scale(),
        # Debatable: both halves write to the stream, or neither does.
        "out/weight": kernel(
            D, 2 * D, 1, 0, function=ANY, residual=ANY, sections=halves
        ),
        "out/bias": bias("out/weight", sections=[(*x[:3], None) for x in halves]),
        **norm("norm", "weight"),
    }
    truth = {
        **eqx_linear("encoder", 7, D),
        **every("layers/{}/", layers, layer),
        **eqx_linear("decoder", D, O, head=True),
    }
    return of_equinox(Net, [floats(B, T, 7)], truth)
