"""Plain functions: cells and machines over time that are no plain LSTM or GRU."""

import jax
import jax.numpy as jnp

from zoo.layers import affine, linear, over_time
from zoo.truths import (
    ANY,
    Model,
    bias,
    bias_cut,
    cut,
    dense,
    embedding,
    floats,
    integers,
    kernel,
    model,
    norm,
    one_of,
    scale,
    unknown,
)
from zoo.truths import layer_norm as ln

B, T, N, H, O = 2, 5, 7, 9, 4  # noqa: E741
LSTM = ("input gate", "forget gate", "cell", "output gate")
sig = jax.nn.sigmoid


def lstm_update(z, c):
    i, f, g, o = jnp.split(z, 4, -1)
    c = sig(f) * c + sig(i) * jnp.tanh(g)
    return c, sig(o) * jnp.tanh(c)


@model
def simple_recurrent_unit() -> Model:
    """Lei et al. 2018 (SRU): one kernel outside the loop, vectors within."""

    def apply(p, x):
        u = x @ p["w"]

        def step(c, args):
            u, x = args
            z, f, r = jnp.split(u, 3, -1)
            f = sig(f + p["vf"] * c + p["bf"])
            r = sig(r + p["vr"] * c + p["br"])
            c = f * c + (1 - f) * z
            return c, r * c + (1 - r) * x

        args = jnp.moveaxis(u, 1, 0), jnp.moveaxis(x, 1, 0)
        _, h = jax.lax.scan(step, jnp.zeros((B, N)), args)
        return linear(p["out"], h[-1])

    params = {"w": floats(N, 3 * N), "out": affine(N, O)}
    params |= {n: floats(N) for n in ("vf", "vr", "bf", "br")}
    truth = {
        # Debatable: names of the gates of a cell that is none of the known.
        "w": kernel(N, 3 * N, function=ANY, part=ANY, sections=ANY),
        "vf": scale(part=ANY, recurrent=ANY),
        "vr": scale(part=ANY, recurrent=ANY),
        "bf": bias("w", part=ANY),
        "br": bias("w", part=ANY),
        **dense("out", N, O, head=True),
    }
    return Model(apply, params, (floats(B, T, N),), truth)


@model
def legendre_memory() -> Model:
    """Voelker et al. 2019 (LMU): a fixed linear memory, written by one number."""
    order = 6

    def apply(p, x):
        i = jnp.arange(order)
        a = jnp.where(i[:, None] < i, -1.0, (-1.0) ** (i[:, None] - i + 1)) * 0.1
        b = (2 * i + 1.0) * (-1.0) ** i

        def step(carry, x):
            h, m = carry
            u = x @ p["ex"] + h @ p["eh"] + m @ p["em"]
            m = m + m @ a.T + u[:, None] * b
            h = jnp.tanh(x @ p["wx"] + h @ p["wh"] + m @ p["wm"])
            return (h, m), h

        (h, _), _ = over_time(step, (jnp.zeros((B, H)), jnp.zeros((B, order))), x)
        return linear(p["out"], h)

    params = {
        "ex": floats(N), "eh": floats(H), "em": floats(order), "wx": floats(N, H),
        "wh": floats(H, H), "wm": floats(order, H), "out": affine(H, O),
    }  # fmt: skip
    truth = {
        "ex": kernel(N, 1, 0, ()),
        "eh": kernel(H, 1, 0, (), recurrent=True),
        "em": kernel(order, 1, 0, (), recurrent=True),
        "wx": kernel(N, H, function="tanh"),
        "wh": kernel(H, H, function="tanh", recurrent=True),
        "wm": kernel(order, H, function="tanh", recurrent=True),
        **dense("out", H, O, head=True),
    }
    return Model(apply, params, (floats(B, T, N),), truth)


@model
def mogrifier() -> Model:
    """Melis et al. 2020: input and state gate each other before an LSTM."""

    def apply(p, x):
        def step(carry, x):
            c, h = carry
            x = 2 * sig(h @ p["q"]) * x
            h = 2 * sig(x @ p["r"]) * h
            c, h = lstm_update(x @ p["w"] + h @ p["u"] + p["b"], c)
            return (c, h), h

        _, h = over_time(step, (jnp.zeros((B, H)), jnp.zeros((B, H))), x)
        return h @ p["out"]

    params = {
        "q": floats(H, N), "r": floats(N, H), "w": floats(N, 4 * H),
        "u": floats(H, 4 * H), "b": floats(4 * H), "out": floats(H, O),
    }  # fmt: skip
    gates = {"function": "sigmoid", "part": "gate", "multiplier": ANY}
    truth = {
        "q": kernel(H, N, recurrent=True, **gates),
        # Debatable: by way of the state that gates the input, it sees itself.
        "r": kernel(N, H, recurrent=ANY, **gates),
        "w": kernel(N, 4 * H, function=ANY, recurrent=ANY, sections=cut(1, H, LSTM)),
        "u": kernel(H, 4 * H, function=ANY, recurrent=True, sections=cut(1, H, LSTM)),
        "b": bias(["w", "u"], sections=bias_cut(H, LSTM)),
        "out": kernel(H, O, head=True),
    }
    return Model(apply, params, (floats(B, T, N),), truth)


@model
def multiplicative_lstm() -> Model:
    """Krause et al. 2016: the state is first multiplied by what the input says."""

    def apply(p, tokens):
        x = p["embed"][tokens]

        def step(carry, x):
            c, h = carry
            m = (x @ p["wmx"]) * (h @ p["wmh"])
            c, h = lstm_update(x @ p["wx"] + m @ p["wm"] + p["b"], c)
            return (c, h), h

        _, h = over_time(step, (jnp.zeros((B, H)), jnp.zeros((B, H))), x)
        return jax.nn.log_softmax(linear(p["out"], h))

    params = {
        "embed": floats(17, N), "wmx": floats(N, 8), "wmh": floats(H, 8),
        "wx": floats(N, 4 * H), "wm": floats(8, 4 * H), "b": floats(4 * H),
        "out": affine(H, 17),
    }  # fmt: skip
    truth = {
        "embed": embedding(N),
        # Debatable: two linear factors, of which neither is a gate.
        "wmx": kernel(N, 8, part=ANY),
        "wmh": kernel(H, 8, part=ANY, recurrent=True),
        "wx": kernel(N, 4 * H, function=ANY, sections=cut(1, H, LSTM)),
        "wm": kernel(8, 4 * H, function=ANY, recurrent=True, sections=cut(1, H, LSTM)),
        "b": bias(["wx", "wm"], sections=bias_cut(H, LSTM)),
        **dense("out", H, 17, head=True),
    }
    return Model(apply, params, (integers(B, T),), truth)


@model
def only_forgetting() -> Model:
    """Van der Westhuizen & Lasenby 2018 (JANET), written with lists of arrays."""

    def apply(p, x):
        (wf, uf, bf), (wc, uc, bc), (wo, bo) = p

        def step(c, x):
            s = x @ wf + c @ uf + bf
            c = sig(s) * c + (1 - sig(s - 1)) * jnp.tanh(x @ wc + c @ uc + bc)
            return c, None

        c, _ = over_time(step, jnp.zeros((B, H)), x)
        return c @ wo + bo

    params = [
        [floats(N, H), floats(H, H), floats(H)],
        [floats(N, H), floats(H, H), floats(H)],
        [floats(H, O), floats(O)],
    ]
    truth = {}
    for i in range(2):
        # Debatable: a forget gate, an update gate; two sigmoids of one sum.
        own = {"part": ANY, "function": "tanh" if i else ANY}
        truth[f"{i}/0"] = kernel(N, H, **own)
        truth[f"{i}/1"] = kernel(H, H, recurrent=True, **own)
        truth[f"{i}/2"] = bias([f"{i}/0", f"{i}/1"], part=ANY)
    truth["2/0"] = kernel(H, O, head=True)
    truth["2/1"] = bias("2/0")
    return Model(apply, params, (floats(B, T, N),), truth)


@model
def complex_diagonal() -> Model:
    """Orvieto et al. 2023 (LRU): complex decays; both parts of kernels are leaves."""
    n = 6

    def apply(p, x):
        x = linear(p["enc"], x)
        lam = jnp.exp(-jnp.exp(p["nu"]) + 1j * jnp.exp(p["theta"]))
        h = ln(x, p["norm"])
        u = (h @ p["b_re"] + 1j * (h @ p["b_im"])) * jnp.exp(p["gamma"])

        def step(s, u):
            s = lam * s + u
            return s, s

        _, s = over_time(step, jnp.zeros((B, n), jnp.complex64), u)
        y = s.real @ p["c_re"] - s.imag @ p["c_im"] + h * p["d"]
        x = x + jax.nn.gelu(y) @ p["mix"]
        return linear(p["dec"], x.mean(1))

    params = {
        "enc": affine(N, H), "norm": {"scale": floats(H), "bias": floats(H)},
        "nu": floats(n), "theta": floats(n), "gamma": floats(n), "b_re": floats(H, n),
        "b_im": floats(H, n), "c_re": floats(n, H), "c_im": floats(n, H),
        "d": floats(H), "mix": floats(H, H), "dec": affine(H, O),
    }  # fmt: skip
    real = {"function": ANY, "multiplier": ANY, "part": ANY}
    truth = {
        **dense("enc", N, H),
        **norm("norm"),
        "nu": unknown(),
        "theta": unknown(),
        "gamma": unknown(),
        "b_re": kernel(H, n, **real),
        "b_im": kernel(H, n, **real),
        "c_re": kernel(n, H, function=one_of("gelu", "identity"), part=ANY),
        "c_im": kernel(
            n, H, function=one_of("gelu", "identity"), part=ANY, multiplier=ANY
        ),
        "d": scale(part=ANY),
        "mix": kernel(H, H, residual=(0, 1)),
        **dense("dec", H, O, head=True),
    }
    return Model(apply, params, (floats(B, T, N),), truth)
