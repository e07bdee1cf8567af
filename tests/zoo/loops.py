"""Plain functions: loops over time."""

import jax
import jax.numpy as jnp

from zoo.truths import (
    ANY,
    Model,
    bias,
    bias_cut,
    cut,
    embedding,
    floats,
    integers,
    kernel,
    model,
)

BATCH, LENGTH, INPUTS, STATE, OUTPUTS = 3, 5, 7, 10, 4
GATES = 4 * STATE


def over_time(step, carry, x):
    """The final carry of `step(carry, x_t)`, for x of (batch, length, features)."""
    return jax.lax.scan(lambda c, x_t: (step(c, x_t), None), carry, x.swapaxes(0, 1))[0]


def zeros(width=STATE):
    return jnp.zeros((BATCH, width))


@model
def plain_rnn() -> Model:
    """Tokens, tanh(x W + h U + b), the last state is read out."""

    def apply(p, tokens):
        def step(h, x):
            return jnp.tanh(x @ p["w_in"] + h @ p["w_rec"] + p["b"])

        return over_time(step, zeros(), p["embed"][tokens]) @ p["w_out"]

    params = {
        "embed": floats(17, INPUTS),
        "w_in": floats(INPUTS, STATE),
        "w_rec": floats(STATE, STATE),
        "b": floats(STATE),
        "w_out": floats(STATE, OUTPUTS),
    }
    truth = {
        "embed": embedding(INPUTS),
        "w_in": kernel(INPUTS, STATE, function="tanh"),
        "w_rec": kernel(STATE, STATE, function="tanh", recurrent=True),
        "b": bias(["w_in", "w_rec"]),
        "w_out": kernel(STATE, OUTPUTS, head=True),
    }
    return Model(apply, params, (integers(BATCH, LENGTH),), truth)


@model
def fused_lstm() -> Model:
    """One kernel for [x, h] and the gates i, j, f, o; 1 is added to the forget gate."""
    rows = INPUTS + STATE

    def apply(p, x):
        def step(carry, x):
            c, h = carry
            z = jnp.concatenate([x, h], axis=-1) @ p["kernel"] + p["bias"]
            i, j, f, o = jnp.split(z, 4, axis=-1)
            c = jax.nn.sigmoid(f + 1.0) * c + jax.nn.sigmoid(i) * jnp.tanh(j)
            return c, jax.nn.sigmoid(o) * jnp.tanh(c)

        _, h = over_time(step, (zeros(), zeros()), x)
        return h @ p["out"]["kernel"] + p["out"]["bias"]

    params = {
        "kernel": floats(rows, GATES),
        "bias": floats(GATES),
        "out": {"kernel": floats(STATE, OUTPUTS), "bias": floats(OUTPUTS)},
    }
    order = ("input gate", "cell", "forget gate", "output gate")
    # Which function the rows have, of which each meets every gate, is open.
    rows_cut = [
        (0, ((0, INPUTS),), "input", ANY),
        (0, ((INPUTS, rows),), "recurrent", ANY),
    ]
    truth = {
        "kernel": kernel(
            rows,
            GATES,
            function=ANY,
            recurrent=True,
            sections=rows_cut + cut(1, STATE, order),
        ),
        "bias": bias("kernel", sections=bias_cut(STATE, order)),
        "out/kernel": kernel(STATE, OUTPUTS, head=True),
        "out/bias": bias("out/kernel"),
    }
    return Model(apply, params, (floats(BATCH, LENGTH, INPUTS),), truth)


@model
def torch_lstm() -> Model:
    """Two layers stored as Torch does, (4 H, inputs), with gates i, f, g, o."""

    def layer(p, x):
        def step(carry, x):
            h, c = carry
            z = (x @ p["weight_ih"].T + p["bias_ih"]) + (
                h @ p["weight_hh"].T + p["bias_hh"]
            )
            i, f, g, o = (z[:, n * STATE : (n + 1) * STATE] for n in range(4))
            c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
            h = jax.nn.sigmoid(o) * jnp.tanh(c)
            return (h, c), h

        _, h = jax.lax.scan(step, (zeros(), zeros()), x)
        return h

    def apply(p, x):
        x = layer(p["l1"], layer(p["l0"], x.swapaxes(0, 1)))
        return x[-1] @ p["fc"].T

    def layer_params(inputs):
        return {
            "weight_ih": floats(GATES, inputs),
            "weight_hh": floats(GATES, STATE),
            "bias_ih": floats(GATES),
            "bias_hh": floats(GATES),
        }

    order = ("input gate", "forget gate", "cell", "output gate")

    def layer_truth(name, inputs):
        own = {"sections": cut(0, STATE, order), "function": ANY}
        return {
            f"{name}/weight_ih": kernel(inputs, GATES, 1, 0, **own),
            f"{name}/weight_hh": kernel(STATE, GATES, 1, 0, recurrent=True, **own),
            f"{name}/bias_ih": bias(
                f"{name}/weight_ih", sections=bias_cut(STATE, order)
            ),
            f"{name}/bias_hh": bias(
                f"{name}/weight_hh", sections=bias_cut(STATE, order)
            ),
        }

    params = {
        "l0": layer_params(INPUTS),
        "l1": layer_params(STATE),
        "fc": floats(OUTPUTS, STATE),
    }
    truth = {
        **layer_truth("l0", INPUTS),
        **layer_truth("l1", STATE),
        "fc": kernel(STATE, OUTPUTS, 1, 0, head=True),
    }
    return Model(apply, params, (floats(BATCH, LENGTH, INPUTS),), truth)


@model
def separate_gru() -> Model:
    """Cho et al. 2014: the state is reset before it is contracted."""

    def apply(p, x):
        def step(h, x):
            def gate(name, h):
                return x @ p["w"][name] + h @ p["u"][name] + p["b"][name]

            z = jax.nn.sigmoid(gate("z", h))
            r = jax.nn.sigmoid(gate("r", h))
            n = jnp.tanh(gate("n", r * h))
            return z * h + (1 - z) * n

        return over_time(step, zeros(), x) @ p["out"]

    params = {
        "w": {name: floats(INPUTS, STATE) for name in "zrn"},
        "u": {name: floats(STATE, STATE) for name in "zrn"},
        "b": {name: floats(STATE) for name in "zrn"},
        "out": floats(STATE, OUTPUTS),
    }
    parts = {
        "z": ("update gate", "sigmoid"),
        "r": ("reset gate", "sigmoid"),
        "n": ("candidate", "tanh"),
    }
    truth = {"out": kernel(STATE, OUTPUTS, head=True)}
    for name, (part, function) in parts.items():
        own = {"part": part, "function": function}
        truth[f"w/{name}"] = kernel(INPUTS, STATE, **own)
        truth[f"u/{name}"] = kernel(STATE, STATE, recurrent=True, **own)
        truth[f"b/{name}"] = bias([f"u/{name}", f"w/{name}"], part=part)
    return Model(apply, params, (floats(BATCH, LENGTH, INPUTS),), truth)


@model
def leaky_echo_state() -> Model:
    """One kernel on [h, x], and a leaky state.

    The readout is contracted with the state of every step.
    """
    rows = STATE + INPUTS

    def apply(p, x):
        def step(h, x):
            new = jax.nn.relu(jnp.concatenate([h, x], -1) @ p["kernel"] + p["bias"])
            h = 0.7 * h + 0.3 * new
            return h, h @ p["readout"]

        return jax.lax.scan(step, zeros(), x.swapaxes(0, 1))[1]

    params = {
        "kernel": floats(rows, STATE),
        "bias": floats(STATE),
        "readout": floats(STATE, OUTPUTS),
    }
    sections = [
        (0, ((0, STATE),), "recurrent", ANY),
        (0, ((STATE, rows),), "input", ANY),
    ]
    truth = {
        "kernel": kernel(
            rows, STATE, function="relu", recurrent=True, sections=sections
        ),
        "bias": bias("kernel"),
        # Inside the loop, but nothing that it computes returns to the loop.
        "readout": kernel(STATE, OUTPUTS, head=True),
    }
    return Model(apply, params, (floats(BATCH, LENGTH, INPUTS),), truth)
