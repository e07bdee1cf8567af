"""Loops over time beyond the plain cells, and loops of other kinds."""

import jax
import jax.numpy as jnp

from zoo.flax_layers import of_linen
from zoo.language import affine_truth
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
    integers,
    kernel,
    model,
)

BATCH, LENGTH, INPUTS, STATE, OUTPUTS = 3, 5, 7, 10, 4


def affine(inputs, outputs):
    return {"w": floats(inputs, outputs), "b": floats(outputs)}


def linear(x, p):
    return x @ p["w"] + p["b"]


def rows_cut(start):
    """Sections of a kernel on [x, h], of which x has `start` rows.

    Which function the rows have, of which each meets every gate, is open.
    """
    return [
        (0, ((0, start),), "input", ANY),
        (0, ((start, start + STATE),), "recurrent", ANY),
    ]


@model
def additive_attention() -> Model:
    """Bahdanau et al. 2015: v . tanh(W q + U k) before each step of an LSTM decoder."""
    units, words = 6, 9

    def encode(p, x):
        def step(h, x):
            h = jnp.tanh(x @ p["w"] + h @ p["u"] + p["b"])
            return h, h

        zeros = jnp.zeros((BATCH, STATE))
        return jax.lax.scan(step, zeros, x.swapaxes(0, 1))[1].swapaxes(0, 1)

    def apply(p, sources, targets):
        memory = encode(p["encoder"], sources)
        keys = jnp.einsum("bsd,da->bsa", memory, p["u_a"])

        def step(carry, word):
            h, c = carry
            energy = jnp.tanh((h @ p["w_a"])[:, None] + keys) @ p["v_a"]
            context = jnp.einsum("bs,bsd->bd", jax.nn.softmax(energy), memory)
            x = jnp.concatenate([word, context], axis=-1)
            gates = x @ p["lstm"]["w"] + h @ p["lstm"]["u"] + p["lstm"]["b"]
            i, f, g, o = jnp.split(gates, 4, axis=-1)
            c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
            h = jax.nn.sigmoid(o) * jnp.tanh(c)
            return (h, c), linear(jnp.concatenate([h, context], axis=-1), p["out"])

        start = jnp.tanh(linear(memory[:, -1], p["bridge"]))
        embedded = p["embed"][targets].swapaxes(0, 1)
        return jax.lax.scan(step, (start, jnp.zeros_like(start)), embedded)[1]

    params = {
        "encoder": {
            "w": floats(INPUTS, STATE),
            "u": floats(STATE, STATE),
            "b": floats(STATE),
        },
        "u_a": floats(STATE, units),
        "w_a": floats(8, units),
        "v_a": floats(units),
        "bridge": affine(STATE, 8),
        "embed": floats(17, words),
        "lstm": {"w": floats(words + STATE, 32), "u": floats(8, 32), "b": floats(32)},
        "out": affine(8 + STATE, 17),
    }
    order = ("input gate", "forget gate", "cell", "output gate")
    own = {"function": ANY, "sections": cut(1, 8, order)}
    # Debatable: by way of the context, what is not hidden-to-hidden comes back too.
    around = {"recurrent": ANY, "part": ANY}
    truth = {
        "encoder/w": kernel(INPUTS, STATE, function="tanh"),
        "encoder/u": kernel(STATE, STATE, function="tanh", recurrent=True),
        "encoder/b": bias(["encoder/u", "encoder/w"]),
        "u_a": kernel(STATE, units, function="tanh", part=ANY),
        "w_a": kernel(8, units, function="tanh", **around),
        "v_a": kernel(units, 1, 0, (), **around),
        **affine_truth("bridge", STATE, 8, function="tanh"),
        "embed": embedding(words),
        "lstm/w": kernel(
            words + STATE,
            32,
            function=ANY,
            recurrent=ANY,
            part=ANY,
            # As the kernel's rows of words and context, if it is recurrent.
            sections=ANY,
        ),
        "lstm/u": kernel(8, 32, recurrent=True, **own),
        "lstm/b": bias(["lstm/u", "lstm/w"], sections=bias_cut(8, order)),
        **affine_truth("out", 8 + STATE, 17, head=True, part=ANY),
    }
    inputs = (floats(BATCH, LENGTH, INPUTS), integers(BATCH, 6))
    return Model(apply, params, inputs, truth)


@model
def stacked_gru() -> Model:
    """Two layers in one loop, each with a kernel on [x, h] and one on [x, r h]."""

    def cell(p, x, h):
        both = jnp.concatenate([x, h], axis=-1)
        r, z = jnp.split(jax.nn.sigmoid(linear(both, p["gates"])), 2, axis=-1)
        both = jnp.concatenate([x, r * h], axis=-1)
        return z * h + (1 - z) * jnp.tanh(linear(both, p["candidate"]))

    def apply(p, x):
        def step(states, x):
            new = []
            for layer, h in zip(p["layers"], states, strict=True):
                x = cell(layer, x, h)
                new.append(x)
            return tuple(new), x

        zeros = jnp.zeros((BATCH, STATE))
        _, x = jax.lax.scan(step, (zeros, zeros), jnp.moveaxis(x, 1, 0))
        return linear(x.mean(0), p["out"])

    def layer(inputs):
        rows = inputs + STATE
        return {"gates": affine(rows, 2 * STATE), "candidate": affine(rows, STATE)}

    def layer_truth(path, inputs):
        rows, gates = inputs + STATE, ("reset gate", "update gate")
        return {
            f"{path}/gates/w": kernel(
                rows,
                2 * STATE,
                function="sigmoid",
                recurrent=True,
                sections=rows_cut(inputs) + cut(1, STATE, gates),
            ),
            f"{path}/gates/b": bias(f"{path}/gates/w", sections=bias_cut(STATE, gates)),
            # Debatable: cut along its rows, but all of it makes the candidate.
            f"{path}/candidate/w": kernel(
                rows,
                STATE,
                function="tanh",
                recurrent=True,
                part=ANY,
                sections=ANY,
            ),
            f"{path}/candidate/b": bias(f"{path}/candidate/w", part=ANY),
        }

    params = {"layers": [layer(INPUTS), layer(STATE)], "out": affine(STATE, OUTPUTS)}
    truth = {
        **layer_truth("layers/0", INPUTS),
        **layer_truth("layers/1", STATE),
        **affine_truth("out", STATE, OUTPUTS, head=True),
    }
    return Model(apply, params, (floats(BATCH, LENGTH, INPUTS),), truth)


@model
def minimal_gated_unit() -> Model:
    """Zhou et al. 2016: one gate both forgets and resets; in a counted loop."""

    def apply(p, x):
        h = jnp.zeros((BATCH, STATE))

        def step(t, h):
            x_t = jax.lax.dynamic_index_in_dim(x, t, axis=1, keepdims=False)
            f = jax.nn.sigmoid(x_t @ p["w_f"] + h @ p["u_f"] + p["b_f"])
            new = jnp.tanh(x_t @ p["w_h"] + (f * h) @ p["u_h"] + p["b_h"])
            return (1 - f) * h + f * new

        return jax.lax.fori_loop(0, LENGTH, step, h) @ p["out"]

    params = {
        "w_f": floats(INPUTS, STATE),
        "u_f": floats(STATE, STATE),
        "b_f": floats(STATE),
        "w_h": floats(INPUTS, STATE),
        "u_h": floats(STATE, STATE),
        "b_h": floats(STATE),
        "out": floats(STATE, OUTPUTS),
    }
    truth = {"out": kernel(STATE, OUTPUTS, head=True)}
    for gate, function in {"f": "sigmoid", "h": "tanh"}.items():
        # Debatable: the terms have no name for the one gate of this cell.
        own = {"function": function, "part": ANY}
        truth[f"w_{gate}"] = kernel(INPUTS, STATE, **own)
        truth[f"u_{gate}"] = kernel(STATE, STATE, recurrent=True, **own)
        truth[f"b_{gate}"] = bias([f"u_{gate}", f"w_{gate}"], part=ANY)
    return Model(apply, params, (floats(BATCH, LENGTH, INPUTS),), truth)


@model
def convolutional_lstm() -> Model:
    """Shi et al. 2015, Linen: frames in, the last state's image out."""
    from flax import linen as nn

    state = 6

    class Net(nn.Module):
        @nn.compact
        def __call__(self, frames):
            x = nn.RNN(nn.ConvLSTMCell(state, (3, 5), name="cell"))(frames)
            return nn.Conv(1, (1, 1), name="out")(x[:, -1])

    parts = ("input gate", "cell", "forget gate", "output gate")
    own = {"function": ANY, "sections": cut(3, state, parts)}
    gates = 4 * state * 15
    truth = {
        "cell/ih/kernel": convolution(3 * 15, gates, **own),
        "cell/ih/bias": bias("cell/ih/kernel", sections=bias_cut(state, parts)),
        "cell/hh/kernel": convolution(state * 15, gates, recurrent=True, **own),
        "cell/hh/bias": bias("cell/hh/kernel", sections=bias_cut(state, parts)),
        "out/kernel": convolution(state, 1, head=True),
        "out/bias": bias("out/kernel", ()),
    }
    return of_linen(Net(), [floats(BATCH, LENGTH, 8, 9, 3)], truth)


def dynamics(p, t, x):
    t = jnp.broadcast_to(t, (*x.shape[:-1], 1))
    h = jnp.tanh(linear(jnp.concatenate([x, t], axis=-1), p["0"]))
    return linear(h, p["1"])


def dynamics_params():
    return {"0": affine(STATE + 1, 13), "1": affine(13, STATE)}


@model
def neural_ode_by_euler() -> Model:
    """Chen et al. 2018 with fixed steps of a counted loop, each a residual layer."""
    steps, dt = 8, 0.125

    def apply(p, x):
        def body(i, x):
            return x + dt * dynamics(p["f"], i * dt, x)

        x = jax.lax.fori_loop(0, steps, body, linear(x, p["encode"]))
        return linear(x, p["decode"])

    params = {
        "encode": affine(INPUTS, STATE),
        "f": dynamics_params(),
        "decode": affine(STATE, OUTPUTS),
    }
    truth = {
        **affine_truth("encode", INPUTS, STATE),
        **affine_truth("f/0", STATE + 1, 13, function="tanh"),
        "f/1/w": kernel(13, STATE, multiplier=dt, residual=(0, steps)),
        # The sum is multiplied, so that the bias is too, but not as a leaf.
        "f/1/b": bias("f/1/w", multiplier=ANY),
        **affine_truth("decode", STATE, OUTPUTS, head=True),
    }
    return Model(apply, params, (floats(BATCH, INPUTS),), truth)


@model
def neural_ode_by_midpoints() -> Model:
    """The midpoint rule in a while loop until the end, two calls for each step."""
    dt = 0.25

    def apply(p, x, end):
        def body(carry):
            t, x = carry
            middle = x + 0.5 * dt * dynamics(p["f"], t, x)
            return t + dt, x + dt * dynamics(p["f"], t + 0.5 * dt, middle)

        start = jnp.float32(0), linear(x, p["encode"])
        _, x = jax.lax.while_loop(lambda carry: carry[0] < end, body, start)
        return linear(x, p["decode"])

    params = {
        "encode": affine(INPUTS, STATE),
        "f": dynamics_params(),
        "decode": affine(STATE, OUTPUTS),
    }
    # Debatable: a loop over the ODE's time, but one that reads no inputs. How often
    # it runs is unknown, and the middle's step is not kept in the stream.
    open_loop = {"recurrent": ANY}
    first = kernel(STATE + 1, 13, function="tanh", sections=ANY, **open_loop)
    second = {"fan_in": 13, "fan_out": STATE, **open_loop}
    truth = {
        **affine_truth("encode", INPUTS, STATE),
        "f/0/w": [first, first],
        "f/0/b": [bias("f/0/w")] * 2,
        "f/1/w": [
            kernel(**second, multiplier=dt / 2, residual=ANY),
            kernel(**second, multiplier=dt, residual=WRITES),
        ],
        "f/1/b": [bias("f/1/w", multiplier=ANY)] * 2,
        **affine_truth("decode", STATE, OUTPUTS, head=True),
    }
    return Model(apply, params, (floats(BATCH, INPUTS), floats()), truth)


@model
def bidirectional_tagger() -> Model:
    """Schuster and Paliwal 1997, Linen: two layers, each the sum of both directions."""
    from flax import linen as nn

    class Net(nn.Module):
        @nn.compact
        def __call__(self, tokens):
            x = nn.Embed(17, INPUTS)(tokens)
            for i in range(2):
                cells = (
                    nn.SimpleCell(STATE, name=f"{way}_{i}") for way in ("left", "right")
                )
                both = nn.Bidirectional(*map(nn.RNN, cells), merge_fn=jnp.add)
                x = both(x)
            return nn.Dense(OUTPUTS)(x)

    def cell(inputs):
        return {
            **dense("i", inputs, STATE, function="tanh"),
            "h/kernel": kernel(STATE, STATE, function="tanh", recurrent=True),
        }

    truth = {
        "Embed_0/embedding": embedding(INPUTS),
        **every("left_0/", 1, cell(INPUTS)),
        **every("right_0/", 1, cell(INPUTS)),
        **every("left_1/", 1, cell(STATE)),
        **every("right_1/", 1, cell(STATE)),
        **dense("Dense_0", STATE, OUTPUTS, head=True),
    }
    return of_linen(Net(), [integers(BATCH, LENGTH)], truth)
