"""Plain functions: recurrent cells of many kinds, each written as its authors do."""

import jax
import jax.numpy as jnp

from zoo.truths import (
    ANY,
    Model,
    below,
    bias,
    bias_cut,
    convolution,
    cut,
    dense,
    floats,
    kernel,
    model,
    scale,
)

BATCH, LENGTH, INPUTS, STATE, OUTPUTS = 2, 7, 6, 10, 3
LSTM = ("input gate", "forget gate", "cell", "output gate")


def time_first(step, carry, x):
    """The last carry and all outputs of a loop over axis 1."""
    last, y = jax.lax.scan(step, carry, jnp.swapaxes(x, 0, 1))
    return last, jnp.swapaxes(y, 0, 1)


def nothing(*shape):
    return jnp.zeros((BATCH, *shape))


def readout(inputs=STATE):
    return {"kernel": floats(inputs, OUTPUTS), "bias": floats(OUTPUTS)}


def read(p, h):
    return jnp.einsum("...h,ho->...o", h, p["kernel"]) + p["bias"]


@model
def peephole_lstm() -> Model:
    """Gers & Schmidhuber 2000: gates see the cell through diagonal weights."""
    functions = {"i": jax.nn.sigmoid, "f": jax.nn.sigmoid, "z": jnp.tanh}

    def gate(p, name, x, h, c):
        total = jnp.dot(x, p[name]["w"]) + jnp.dot(h, p[name]["r"])
        if "p" in p[name]:
            total += p[name]["p"] * c
        return functions.get(name, jax.nn.sigmoid)(total + p[name]["b"])

    def apply(p, x):
        def step(carry, x):
            h, c = carry
            i, f, z = (gate(p, name, x, h, c) for name in "ifz")
            c = f * c + i * z
            h = gate(p, "o", x, h, c) * jnp.tanh(c)
            return (h, c), h

        (h, _), _ = time_first(step, (nothing(STATE), nothing(STATE)), x)
        return read(p["read"], h)

    def weights(peeps):
        own = {"w": floats(INPUTS, STATE), "r": floats(STATE, STATE)}
        own |= {"b": floats(STATE)}
        return own | ({"p": floats(STATE)} if peeps else {})

    params = {name: weights(name != "z") for name in "ifzo"} | {"read": readout()}
    truth = dense("read", STATE, OUTPUTS, head=True)
    for name, part in zip("ifzo", LSTM, strict=True):
        own = {"part": part, "function": "tanh" if name == "z" else "sigmoid"}
        truth[f"{name}/w"] = kernel(INPUTS, STATE, **own)
        truth[f"{name}/r"] = kernel(STATE, STATE, recurrent=True, **own)
        truth[f"{name}/b"] = bias([f"{name}/w", f"{name}/r"], part=part)
        if name != "z":
            truth[f"{name}/p"] = scale(part=ANY)
    return Model(apply, params, (floats(BATCH, LENGTH, INPUTS),), truth)


@model
def projected_lstm() -> Model:
    """Sak et al. 2014: the recurrent state is a projection; gates are a middle axis."""
    size = 4
    order = ("input gate", "cell", "forget gate", "output gate")

    def apply(p, x):
        seen = x @ p["wx"] + p["b"]

        def step(carry, now):
            c, r = carry
            z = (now + r @ p["wr"]).reshape(-1, 4, STATE)
            i, f, o = (jax.nn.sigmoid(z[:, k]) for k in (0, 2, 3))
            c = f * c + i * jnp.tanh(z[:, 1])
            r = (o * jnp.tanh(c)) @ p["proj"]
            return (c, r), r

        _, r = time_first(step, (nothing(STATE), nothing(size)), seen)
        return r @ p["top"]

    params = {
        "wx": floats(INPUTS, 4 * STATE),
        "wr": floats(size, 4 * STATE),
        "b": floats(4 * STATE),
        "proj": floats(STATE, size),
        "top": floats(size, OUTPUTS),
    }
    gates = {"function": ANY, "sections": cut(1, STATE, order)}
    truth = {
        "wx": kernel(INPUTS, 4 * STATE, **gates),
        "wr": kernel(size, 4 * STATE, recurrent=True, **gates),
        "b": bias("wx", sections=bias_cut(STATE, order)),
        "proj": kernel(STATE, size, recurrent=True),
        "top": kernel(size, OUTPUTS, head=True),
    }
    return Model(apply, params, (floats(BATCH, LENGTH, INPUTS),), truth)


@model
def layer_norm_lstm() -> Model:
    """Ba et al. 2016: both sums and the cell are normed."""

    def normed(x, gain):
        mean, var = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
        return gain * (x - mean) / jnp.sqrt(var + 1e-5)

    def apply(p, x):
        def step(carry, x):
            h, c = carry
            z = normed(x @ p["W"], p["gain_x"]) + normed(h @ p["R"], p["gain_h"])
            i, f, g, o = jnp.split(z + p["b"], 4, -1)
            c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
            h = jax.nn.sigmoid(o) * jnp.tanh(normed(c, p["gain_c"]))
            return (h, c), None

        carry = (nothing(STATE), nothing(STATE))
        (h, _), _ = jax.lax.scan(step, carry, x.transpose(1, 0, 2))
        return read(p["read"], h)

    params = {
        "W": floats(INPUTS, 4 * STATE),
        "R": floats(STATE, 4 * STATE),
        "b": floats(4 * STATE),
        "gain_x": floats(4 * STATE),
        "gain_h": floats(4 * STATE),
        "gain_c": floats(STATE),
        "read": readout(),
    }
    plain = dict.fromkeys(LSTM, "identity")
    gates = cut(1, STATE, LSTM, **plain)
    truth = {
        "W": kernel(INPUTS, 4 * STATE, sections=gates),
        "R": kernel(STATE, 4 * STATE, recurrent=True, sections=gates),
        # Debatable: added after two norms, and cut into gates.
        "b": bias(ANY, part=ANY, sections=ANY),
        "gain_x": scale(part=ANY, sections=ANY),
        "gain_h": scale(part=ANY, sections=ANY),
        "gain_c": scale(),
        **dense("read", STATE, OUTPUTS, head=True),
    }
    return Model(apply, params, (floats(BATCH, LENGTH, INPUTS),), truth)


@model
def reset_before_candidate() -> Model:
    """Cho et al. 2014, as TensorFlow 1 has it: kernels on [x, h] and on [x, r h]."""
    rows = INPUTS + STATE

    def apply(p, x):
        def step(h, x):
            z = jnp.hstack([x, h]) @ p["gates"]["kernel"] + p["gates"]["bias"]
            r, u = jnp.split(jax.nn.sigmoid(z), 2, axis=1)
            both = jnp.hstack([x, r * h])
            c = jnp.tanh(both @ p["candidate"]["kernel"] + p["candidate"]["bias"])
            h = u * h + (1.0 - u) * c
            return h, h

        return read(p["read"], time_first(step, nothing(STATE), x)[1])

    params = {
        "gates": {"kernel": floats(rows, 2 * STATE), "bias": floats(2 * STATE)},
        "candidate": {"kernel": floats(rows, STATE), "bias": floats(STATE)},
        "read": readout(),
    }
    rows_cut = [
        (0, ((0, INPUTS),), "input", ANY),
        (0, ((INPUTS, rows),), "recurrent", ANY),
    ]
    order = ("reset gate", "update gate")
    truth = {
        "gates/kernel": kernel(
            rows,
            2 * STATE,
            function="sigmoid",
            recurrent=True,
            sections=rows_cut + cut(1, STATE, order),
        ),
        "gates/bias": bias("gates/kernel", sections=bias_cut(STATE, order)),
        # Debatable: its own part, or None for the rows' parts.
        "candidate/kernel": kernel(
            rows, STATE, function="tanh", recurrent=True, part=ANY, sections=rows_cut
        ),
        "candidate/bias": bias("candidate/kernel", part=ANY),
        **dense("read", STATE, OUTPUTS, head=True),
    }
    return Model(apply, params, (floats(BATCH, LENGTH, INPUTS),), truth)


@model
def gru_both_ways() -> Model:
    """PyTorch's names and order r, z, n: two biases, weights (3 H, I), both ways."""
    order = ("reset gate", "update gate", "candidate")

    def one_way(p, x, reverse):
        def step(h, x):
            gi = x @ p["weight_ih"].T + p["bias_ih"]
            gh = h @ p["weight_hh"].T + p["bias_hh"]
            (ir, iz, inn), (hr, hz, hn) = jnp.split(gi, 3, -1), jnp.split(gh, 3, -1)
            r, z = jax.nn.sigmoid(ir + hr), jax.nn.sigmoid(iz + hz)
            n = jnp.tanh(inn + r * hn)
            h = n + z * (h - n)
            return h, h

        return jax.lax.scan(step, nothing(STATE), x, reverse=reverse)[1]

    def apply(p, x):
        x = jnp.moveaxis(x, 1, 0)
        h = [one_way(p[way], x, way == "reverse") for way in ("forward", "reverse")]
        return jnp.concatenate(h, axis=2).max(0) @ p["fc"].T

    def way():
        return {
            "weight_ih": floats(3 * STATE, INPUTS),
            "weight_hh": floats(3 * STATE, STATE),
            "bias_ih": floats(3 * STATE),
            "bias_hh": floats(3 * STATE),
        }

    params = {"forward": way(), "reverse": way(), "fc": floats(OUTPUTS, 2 * STATE)}
    offsets = {"sections": bias_cut(STATE, order)}
    own = {
        "weight_ih": kernel(
            INPUTS, 3 * STATE, 1, 0, function=ANY, sections=cut(0, STATE, order)
        ),
        # The product with the reset gate follows the candidate's rows.
        "weight_hh": kernel(
            STATE,
            3 * STATE,
            1,
            0,
            function=ANY,
            recurrent=True,
            sections=cut(0, STATE, order, candidate="identity"),
        ),
        "bias_ih": bias("weight_ih", **offsets),
        "bias_hh": bias("weight_hh", **offsets),
    }
    truth = {
        **below("forward/", own),
        **below("reverse/", own),
        "fc": kernel(2 * STATE, OUTPUTS, 1, 0, head=True),
    }
    return Model(apply, params, (floats(BATCH, LENGTH, INPUTS),), truth)


@model
def independent_rnn() -> Model:
    """Li et al. 2018 (IndRNN): each unit has one recurrent weight; two layers."""

    def layer(p, x):
        def step(h, now):
            h = jax.nn.relu(now + h * p["u"])
            return h, h

        return time_first(step, nothing(STATE), x @ p["w"] + p["b"])[1]

    def apply(p, x):
        return layer(p["layers"][1], layer(p["layers"][0], x))[:, -1] @ p["head"]

    def layer_params(inputs):
        return {"w": floats(inputs, STATE), "u": floats(STATE), "b": floats(STATE)}

    def layer_truth(inputs):
        return {
            "w": kernel(inputs, STATE, function="relu"),
            "u": scale(),
            "b": bias("w"),
        }

    params = {
        "layers": [layer_params(INPUTS), layer_params(STATE)],
        "head": floats(STATE, OUTPUTS),
    }
    truth = {
        **below("layers/0/", layer_truth(INPUTS)),
        **below("layers/1/", layer_truth(STATE)),
        "head": kernel(STATE, OUTPUTS, head=True),
    }
    return Model(apply, params, (floats(BATCH, LENGTH, INPUTS),), truth)


@model
def quasi_recurrent() -> Model:
    """Bradbury et al. 2016 (QRNN): causal windows of 2, then a pool with gates f, o."""

    def causal(x, p):
        x = jnp.pad(x, [(0, 0), (1, 0), (0, 0)])
        numbers = ("NWC", "WIO", "NWC")
        y = jax.lax.conv_general_dilated(x, p["w"], (1,), "VALID", None, None, numbers)
        return y + p["b"]

    def apply(p, x):
        z, f = jnp.tanh(causal(x, p["z"])), jax.nn.sigmoid(causal(x, p["f"]))
        o = jax.nn.sigmoid(causal(x, p["o"]))

        def step(c, now):
            f, z, o = now
            c = f * c + (1 - f) * z
            return c, o * c

        now = jax.tree.map(lambda a: a.swapaxes(0, 1), (f, z, o))
        h = jax.lax.scan(step, nothing(STATE), now)[1]
        return read(p["read"], h[-1])

    params = {
        name: {"w": floats(2, INPUTS, STATE), "b": floats(STATE)} for name in "zfo"
    }
    # Debatable: gates of an LSTM or a GRU, or only gates.
    truth = dense("read", STATE, OUTPUTS, head=True)
    for name in "zfo":
        truth[f"{name}/w"] = convolution(
            2 * INPUTS,
            2 * STATE,
            0,
            1,
            2,
            function="tanh" if name == "z" else "sigmoid",
            part=ANY,
        )
        truth[f"{name}/b"] = bias(f"{name}/w", part=ANY)
    params["read"] = readout()
    return Model(apply, params, (floats(BATCH, LENGTH, INPUTS),), truth)


@model
def convolutional_gru() -> Model:
    """Ballas et al. 2016, as RAFT has it: windows on [h, x], over the frames."""
    size, inputs, state = 5, 4, 6

    def window(p, x):
        y = jax.lax.conv_general_dilated(
            x, p["w"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        return y + p["b"]

    def apply(p, frames):
        def step(h, x):
            hx = jnp.concatenate([h, x], axis=-1)
            z = jax.nn.sigmoid(window(p["convz"], hx))
            r = jax.nn.sigmoid(window(p["convr"], hx))
            q = jnp.tanh(window(p["convq"], jnp.concatenate([r * h, x], axis=-1)))
            h = (1 - z) * h + z * q
            return h, None

        zeros = jnp.zeros((BATCH, size, size, state))
        h, _ = jax.lax.scan(step, zeros, frames.transpose(1, 0, 2, 3, 4))
        return window(p["flow"], jax.nn.relu(window(p["hidden"], h)))

    def image(fan_in, fan_out):
        return {"w": floats(3, 3, fan_in, fan_out), "b": floats(fan_out)}

    names = ("convz", "convr", "convq")
    params = {name: image(state + inputs, state) for name in names}
    params |= {"hidden": image(state, 8), "flow": image(8, 2)}
    rows = [
        (2, ((0, state),), "recurrent", ANY),
        (2, ((state, state + inputs),), "input", ANY),
    ]
    truth = {
        "hidden/w": convolution(9 * state, 72, function="relu"),
        "hidden/b": bias("hidden/w"),
        "flow/w": convolution(72, 18, head=True),
        "flow/b": bias("flow/w"),
    }
    for name in names:
        function = "tanh" if name == "convq" else "sigmoid"
        own = {"function": function, "recurrent": True, "part": ANY, "sections": rows}
        truth[f"{name}/w"] = convolution(9 * (state + inputs), 9 * state, **own)
        truth[f"{name}/b"] = bias(f"{name}/w", part=ANY)
    shape = (BATCH, 3, size, size, inputs)
    return Model(apply, params, (floats(*shape),), truth)
