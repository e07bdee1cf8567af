"""Loops over time by hand: counters, buffers, parallel scans, pointers, solvers."""

import jax
import jax.numpy as jnp

from zoo.equinox_models import of_equinox
from zoo.haiku_models import linear as hk_linear
from zoo.haiku_models import of_haiku
from zoo.truths import (
    ANY,
    Model,
    bias,
    bias_cut,
    cut,
    dense,
    either,
    embedding,
    floats,
    integers,
    kernel,
    model,
    norm,
    scale,
    unknown,
)

B, T, N, H, O = 3, 6, 7, 10, 4  # noqa: E741
LSTM = ("input gate", "forget gate", "cell", "output gate")


@model
def lstm_with_a_buffer() -> Model:
    """An LSTM by fori_loop, which writes into a buffer; one weight for each gate.

    Weights are in nested tuples; what enters is taken by the counter.
    """

    def apply(p, x):
        (wi, ui, bi), (wf, uf, bf), (wc, uc, bc), (wo, uo, bo) = p["cell"]
        sigmoid = jax.nn.sigmoid

        def body(t, carry):
            h, c, out = carry
            x_t = jax.lax.dynamic_index_in_dim(x, t, axis=1, keepdims=False)
            i = sigmoid(x_t @ wi + h @ ui + bi)
            f = sigmoid(x_t @ wf + h @ uf + bf + 1.0)
            g = jnp.tanh(x_t @ wc + h @ uc + bc)
            o = sigmoid(x_t @ wo + h @ uo + bo)
            c = f * c + i * g
            h = o * jnp.tanh(c)
            return h, c, out.at[:, t].set(h)

        zeros = jnp.zeros((B, H))
        start = (zeros, zeros, jnp.zeros((B, T, H)))
        _, c, out = jax.lax.fori_loop(0, T, body, start)
        pooled = jnp.concatenate([out.mean(1), out.max(1), c], axis=-1)
        return jax.nn.softmax(pooled @ p["fc"][0] + p["fc"][1])

    gate = (floats(N, H), floats(H, H), floats(H))
    params = {"cell": (gate,) * 4, "fc": (floats(3 * H, O), floats(O))}
    truth = dense("fc", 3 * H, O, weight="0", offset="1", head=True)
    for i, part in enumerate(LSTM):
        own = {"part": part, "function": "tanh" if part == "cell" else "sigmoid"}
        w, u, b = (f"cell/{i}/{j}" for j in range(3))
        truth[w] = kernel(N, H, **own)
        truth[u] = kernel(H, H, recurrent=True, **own)
        truth[b] = bias([w, u], part=part)
    return Model(apply, params, (floats(B, T, N),), truth)


@model
def linear_recurrent_units() -> Model:
    """Orvieto et al. 2023 (LRU), with real states, by associative_scan, in blocks.

    Decays are made of leaves; a GLU of one kernel follows in each block.
    """
    d, states = 8, 11

    def combine(a, b):
        return a[0] * b[0], b[0] * a[1] + b[1]

    def apply(p, x):
        x = x @ p["encoder"]
        for q in p["blocks"]:
            h = (x - x.mean(-1, keepdims=True)) / jnp.sqrt(
                x.var(-1, keepdims=True) + 1e-5
            )
            h = h * q["norm"]
            lam = jnp.exp(-jnp.exp(q["nu"]))
            u = (h @ q["B"]) * jnp.exp(q["gamma_log"])
            decay = jnp.broadcast_to(lam, u.shape)
            _, s = jax.lax.associative_scan(combine, (decay, u), axis=1)
            y = s @ q["C"] + q["D"] * h
            a, b = jnp.split(jax.nn.gelu(y) @ q["glu"], 2, axis=-1)
            x = x + a * jax.nn.sigmoid(b)
        return x.mean(1) @ p["decoder"]

    block = {
        "norm": floats(d), "nu": floats(states), "gamma_log": floats(states),
        "B": floats(d, states),
        "C": floats(states, d), "D": floats(d), "glu": floats(d, 2 * d),
    }  # fmt: skip
    params = {"encoder": floats(N, d), "blocks": [block] * 2, "decoder": floats(d, O)}
    # Debatable: halves that write to the stream together, or the first alone.
    halves = [(1, ((0, d),), "up", "identity"), (1, ((d, 2 * d),), "gate", "sigmoid")]
    truth = {"encoder": kernel(N, d), "decoder": kernel(d, O, head=True)}
    for i in range(2):
        path = f"blocks/{i}"
        truth |= {
            f"{path}/norm": scale(),
            f"{path}/nu": unknown(),
            f"{path}/gamma_log": unknown(),
            # Debatable: what enters a state may have a name or not.
            f"{path}/B": kernel(d, states, part=ANY),
            f"{path}/C": kernel(states, d, function="gelu"),
            # Debatable: it multiplies what is added to the kernel's output.
            f"{path}/D": either("scale", "gate"),
            f"{path}/glu": kernel(
                d, 2 * d, function=ANY, residual=ANY, sections=halves
            ),
        }
    return Model(apply, params, (floats(B, T, N),), truth)


@model
def tours_by_pointing() -> Model:
    """Vinyals et al. 2015 with decoding: what was pointed at enters the next step."""

    def cell(p, x, h):
        z = jax.nn.sigmoid(x @ p["wz"] + h @ p["uz"])
        n = jnp.tanh(x @ p["wn"] + z * (h @ p["un"]) + p["bn"])
        return 0.5 * h + 0.5 * n

    def apply(p, points):
        e = jax.nn.relu(points @ p["embed"]["w"] + p["embed"]["b"])

        def read(h, x):
            h = cell(p["enc"], x, h)
            return h, h

        h, memory = jax.lax.scan(read, jnp.zeros((B, H)), e.swapaxes(0, 1))
        memory = memory.swapaxes(0, 1)
        first = jnp.broadcast_to(p["go"], (B, N))

        def point(carry, _):
            h, x, seen = carry
            h = cell(p["dec"], x, h)
            u = jnp.tanh(memory @ p["W1"] + (h @ p["W2"])[:, None]) @ p["v"]
            a = jax.nn.softmax(jnp.where(seen > 0, -1e9, u), axis=-1)
            hard = jax.nn.one_hot(jnp.argmax(a, axis=-1), T)
            x = jnp.einsum("bt,btn->bn", hard, e)
            return (h, x, seen + hard), jnp.log(a + 1e-9)

        start = (h, first, jnp.zeros((B, T)))
        return jax.lax.scan(point, start, None, length=T)[1]

    one = {"wz": floats(N, H), "uz": floats(H, H), "wn": floats(N, H)}
    one |= {"un": floats(H, H), "bn": floats(H)}
    params = {
        "embed": {"w": floats(2, N), "b": floats(N)}, "enc": one, "dec": one,
        "go": floats(N), "W1": floats(H, 8), "W2": floats(H, 8), "v": floats(8),
    }  # fmt: skip

    def told(path, **rest):
        # Debatable: names of gates in a cell whose state is halved by a number.
        own = {"part": ANY}
        return {
            f"{path}/wz": kernel(N, H, function="sigmoid", **own, **rest),
            f"{path}/uz": kernel(H, H, function="sigmoid", recurrent=True, **own),
            f"{path}/wn": kernel(N, H, function="tanh", **own, **rest),
            f"{path}/un": kernel(H, H, recurrent=True, **own),
            f"{path}/bn": bias(ANY, part=ANY),
        }

    # Debatable: by way of what was pointed at, which is chosen, others come back too;
    # whether the query and key of a point have names.
    around = {"recurrent": ANY, "head": ANY, "part": ANY}
    truth = {
        **dense("embed", 2, N, weight="w", offset="b", function="relu", part=ANY),
        **told("enc"),
        **told("dec", recurrent=ANY),
        "go": either("embedding", "unknown", "bias"),
        "W1": kernel(H, 8, function="tanh", **around),
        "W2": kernel(H, 8, function="tanh", **around),
        "v": kernel(8, 1, 0, (), **around),
    }
    return Model(apply, params, (floats(B, T, 2),), truth)


@model
def speech_both_ways() -> Model:
    """Graves et al. 2006 with Haiku: two layers, each both ways, and a blank more.

    Pairs of frames are joined between the layers.
    """
    import haiku as hk

    sizes, letters = (10, 9), 8

    def both_ways(x, size, name):
        fw, bw = hk.LSTM(size, name=f"{name}_fw"), hk.LSTM(size, name=f"{name}_bw")
        a, _ = hk.dynamic_unroll(fw, x, fw.initial_state(B))
        b, _ = hk.dynamic_unroll(bw, x[::-1], bw.initial_state(B))
        return jnp.concatenate([a, b[::-1]], axis=-1)

    def fun(x):
        x = hk.LayerNorm(-1, True, True, name="norm")(x)
        x = both_ways(x, sizes[0], "one")
        x = x.reshape(T // 2, 2, B, -1).transpose(0, 2, 1, 3).reshape(T // 2, B, -1)
        x = jax.nn.relu(hk.Linear(13, name="between")(x))
        x = both_ways(x, sizes[1], "two")
        return jax.nn.log_softmax(hk.Linear(letters + 1, name="ctc")(x))

    parts = ("input gate", "cell", "forget gate", "output gate")

    def lstm(path, inputs, size):
        rows = inputs + size
        rows_cut = [
            (0, ((0, inputs),), "input", ANY),
            (0, ((inputs, rows),), "recurrent", ANY),
        ]
        gates = rows_cut + cut(1, size, parts)
        w = f"{path}/linear/w"
        return {
            w: kernel(rows, 4 * size, function=ANY, recurrent=True, sections=gates),
            f"{path}/linear/b": bias(w, sections=bias_cut(size, parts)),
        }

    truth = {
        **norm("norm", offset="offset"),
        **lstm("one_fw", N, 10),
        **lstm("one_bw", N, 10),
        **hk_linear("between", 40, 13, function="relu"),
        **lstm("two_fw", 13, 9),
        **lstm("two_bw", 13, 9),
        **hk_linear("ctc", 18, letters + 1, head=True),
    }
    return of_haiku(fun, [floats(T, B, N)], truth)


@model
def names_by_letters() -> Model:
    """An Equinox LM: a GRU cell from a learned start, a norm, a tied output."""
    import equinox as eqx

    vocab, size = 17, 9

    class Names(eqx.Module):
        embed: eqx.nn.Embedding
        start: jax.Array
        cell: eqx.nn.GRUCell
        norm: eqx.nn.LayerNorm
        back: eqx.nn.Linear
        out_bias: jax.Array

        def __init__(self, key):
            k1, k2, k3 = jax.random.split(key, 3)
            self.embed = eqx.nn.Embedding(vocab, size, key=k1)
            self.start = jnp.zeros(H)
            self.cell = eqx.nn.GRUCell(size, H, key=k2)
            self.norm = eqx.nn.LayerNorm(H)
            self.back = eqx.nn.Linear(H, size, use_bias=False, key=k3)
            self.out_bias = jnp.zeros(vocab)

        def __call__(self, ids):
            def step(h, x):
                h = self.cell(x, h)
                return h, self.back(self.norm(h))

            _, y = jax.lax.scan(step, jnp.tanh(self.start), jax.vmap(self.embed)(ids))
            return y @ self.embed.weight.T + self.out_bias

    parts = ("reset gate", "update gate", "candidate")
    truth = {
        "embed/weight": [embedding(size), kernel(size, vocab, 1, 0, head=True)],
        "start": unknown(),
        "cell/weight_ih": kernel(size, 3 * H, 1, 0, ANY, sections=cut(0, H, parts)),
        "cell/weight_hh": kernel(
            H, 3 * H, 1, 0, ANY, recurrent=True,
            sections=cut(0, H, parts, candidate="identity"),
        ),
        "cell/bias": bias("cell/weight_ih", sections=bias_cut(H, parts)),
        "cell/bias_n": bias("cell/weight_hh", part="candidate"),
        **norm("norm", "weight"),
        "back/weight": kernel(H, size, 1, 0),
        "out_bias": bias("embed/weight"),
    }  # fmt: skip
    return of_equinox(Names, [integers(B, T)], truth)


@model
def rungs_of_runge_kutta() -> Model:
    """A neural ODE by hand: RK4 in a loop, whose field sees the time as a column."""

    def field(p, t, y):
        t = jnp.broadcast_to(t, (B, 1))
        h = jnp.tanh(jnp.concatenate([y, t], axis=1) @ p["w1"] + p["b1"])
        return h @ p["w2"] + p["b2"]

    def apply(p, x):
        y, dt = x @ p["lift"], 0.25

        def step(i, y):
            t = i * dt
            k1 = field(p["f"], t, y)
            k2 = field(p["f"], t + dt / 2, y + dt / 2 * k1)
            k3 = field(p["f"], t + dt / 2, y + dt / 2 * k2)
            k4 = field(p["f"], t + dt, y + dt * k3)
            return y + dt / 6 * (k1 + 2 * k2 + 2 * k3 + k4)

        y = jax.lax.fori_loop(0, 4, step, y)
        return jax.nn.sigmoid(y @ p["out"] + p["out_b"])

    f = {"w1": floats(9, 14), "b1": floats(14), "w2": floats(14, 8), "b2": floats(8)}
    params = {"lift": floats(N, 8), "f": f, "out": floats(8, 1), "out_b": floats(1)}
    # Debatable: a loop over time, or depth; a sum of four that each writes to.
    loop = {"recurrent": ANY, "residual": ANY, "multiplier": ANY, "sections": ANY}
    truth = {
        "lift": kernel(N, 8),
        "f/w1": [kernel(9, 14, function="tanh", **loop)] * 4,
        "f/b1": [bias("f/w1")] * 4,
        "f/w2": [kernel(14, 8, **loop)] * 4,
        "f/b2": [bias("f/w2", multiplier=ANY)] * 4,
        "out": kernel(8, 1, function="sigmoid", head=True),
        "out_b": bias("out", ()),
    }
    return Model(apply, params, (floats(B, N),), truth)


@model
def three_deep_rnn() -> Model:
    """A scan over stacked layers, and in each a scan over time; states are inputs.

    Each layer adds to what enters it; the recurrent kernel is an orthogonal's.
    """
    layers, d = 3, 9

    def apply(p, x, states):
        x = jnp.einsum("btn,nd->tbd", x, p["in"])

        def layer(x, inputs):
            w, h0 = inputs

            def step(h, x_t):
                h = jnp.maximum(x_t @ w["W"] + h @ w["R"].T + w["b"], 0)
                return h, h

            last, hs = jax.lax.scan(step, h0, x)
            return x + hs @ w["V"], last

        x, last = jax.lax.scan(layer, x, (p["layers"], states))
        return x[-1] @ p["out"], last

    params = {
        "in": floats(N, d),
        "layers": {
            "W": floats(layers, d, H), "R": floats(layers, H, H),
            "b": floats(layers, H), "V": floats(layers, H, d),
        },
        "out": floats(d, O),
    }  # fmt: skip
    own = {"stack_axis": 0, "function": "relu"}
    truth = {
        "in": kernel(N, d),
        "layers/W": kernel(d, H, 1, 2, **own),
        "layers/R": kernel(H, H, 2, 1, recurrent=True, **own),
        "layers/b": bias(["layers/W", "layers/R"], 1, stack_axis=0),
        "layers/V": kernel(H, d, 1, 2, stack_axis=0, residual=(0, layers)),
        "out": kernel(d, O, head=True),
    }
    return Model(apply, params, (floats(B, T, N), floats(layers, B, H)), truth)
