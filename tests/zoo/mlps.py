"""Plain functions: layers one after another, and what is done to their weights."""

import jax
import jax.numpy as jnp

from zoo.truths import (
    UNNAMED,
    Model,
    bias,
    floats,
    gate,
    integers,
    kernel,
    model,
    norm,
    scale,
)
from zoo.truths import layer_norm as normed

BATCH, INPUTS, HIDDEN, OUTPUTS = 4, 7, 11, 5


@model
def list_of_pairs() -> Model:
    sizes = [(INPUTS, HIDDEN), (HIDDEN, 13), (13, OUTPUTS)]

    def apply(params, x):
        for w, b in params[:-1]:
            x = jax.nn.relu(x @ w + b)
        w, b = params[-1]
        return x @ w + b

    truth = {
        "0/0": kernel(INPUTS, HIDDEN, function="relu"),
        "0/1": bias("0/0"),
        "1/0": kernel(HIDDEN, 13, function="relu"),
        "1/1": bias("1/0"),
        "2/0": kernel(13, OUTPUTS, head=True),
        "2/1": bias("2/0"),
    }
    params = [(floats(*size), floats(size[1])) for size in sizes]
    return Model(apply, params, (floats(BATCH, INPUTS),), truth)


@model
def outputs_first() -> Model:
    """Weights as Torch stores them; the image is flattened; the output is a softmax."""

    def apply(p, x):
        x = x.reshape(BATCH, -1)
        x = jnp.tanh(x @ p["W1"].T + p["b1"])
        x = jax.nn.gelu(jnp.einsum("bi,oi->bo", x, p["W2"]) + p["b2"])
        return jax.nn.softmax(p["W3"] @ x.T, axis=0)

    params = {
        "W1": floats(HIDDEN, 2 * 3),
        "b1": floats(HIDDEN),
        "W2": floats(13, HIDDEN),
        "b2": floats(13),
        "W3": floats(OUTPUTS, 13),
    }
    truth = {
        "W1": kernel(2 * 3, HIDDEN, 1, 0, "tanh"),
        "b1": bias("W1"),
        "W2": kernel(HIDDEN, 13, 1, 0, "gelu"),
        "b2": bias("W2"),
        "W3": kernel(13, OUTPUTS, 1, 0, head=True),
    }
    return Model(apply, params, (floats(BATCH, 2, 3),), truth)


@model
def stacked_in_python() -> Model:
    """Blocks that a Python loop takes out of stacked weights; LayerScale."""
    layers, width, hidden = 3, 10, 14

    def apply(p, x):
        x = x @ p["inputs"]
        for i in range(layers):
            h = normed(x, {"scale": p["scale"][i], "bias": p["shift"][i]})
            h = jax.nn.silu(h @ p["up"][i] + p["up_bias"][i])
            x = x + p["gamma"][i] * (h @ p["down"][i])
        return x @ p["outputs"] + p["constant"]

    params = {
        "inputs": floats(INPUTS, width),
        "scale": floats(layers, width),
        "shift": floats(layers, width),
        "up": floats(layers, width, hidden),
        "up_bias": floats(layers, hidden),
        "down": floats(layers, hidden, width),
        "gamma": floats(layers, width),
        "outputs": floats(width, OUTPUTS),
        "constant": floats(),
    }
    row = {"out_axis": 1, "stack_axis": 0}
    truth = {
        "inputs": kernel(INPUTS, width),
        "scale": [scale(**row)] * layers,
        "shift": [bias(None, **row)] * layers,
        "up": [kernel(width, hidden, 1, 2, "silu", stack_axis=0)] * layers,
        "up_bias": [bias("up", **row)] * layers,
        "down": [
            kernel(hidden, width, 1, 2, stack_axis=0, residual=(i, layers))
            for i in range(layers)
        ],
        "gamma": [gate(**row)] * layers,
        "outputs": kernel(width, OUTPUTS, head=True),
        "constant": bias("outputs", ()),
    }
    return Model(apply, params, (floats(BATCH, INPUTS),), truth)


@model
def rezero_in_a_counted_loop() -> Model:
    """The loop's counter takes each layer out of the stack; ReZero."""
    layers, width, hidden = 3, 10, 14

    def apply(p, x):
        def body(i, x):
            h = jax.nn.relu(x @ p["up"][i] + p["up_bias"][i])
            return x + p["alpha"][i] * (h @ p["down"][i] + p["down_bias"][i])

        return jax.lax.fori_loop(0, layers, body, x) @ p["outputs"]

    params = {
        "up": floats(layers, width, hidden),
        "up_bias": floats(layers, hidden),
        "down": floats(layers, hidden, width),
        "down_bias": floats(layers, width),
        "alpha": floats(layers),
        "outputs": floats(width, OUTPUTS),
    }
    truth = {
        "up": kernel(width, hidden, 1, 2, "relu", stack_axis=0),
        "up_bias": bias("up", 1, stack_axis=0),
        "down": kernel(hidden, width, 1, 2, stack_axis=0, residual=(0, layers)),
        "down_bias": bias("down", 1, stack_axis=0),
        "alpha": gate(stack_axis=0),
        "outputs": kernel(width, OUTPUTS, head=True),
    }
    return Model(apply, params, (floats(BATCH, width),), truth)


@jax.custom_jvp
def _own_tanh(x):
    return jnp.tanh(x)


@_own_tanh.defjvp
def _(primals, tangents):
    y = _own_tanh(*primals)
    return y, tangents[0] * (1 - y * y)


@jax.custom_vjp
def _squared_relu(x):
    return jnp.square(jnp.maximum(x, 0))


_squared_relu.defvjp(
    lambda x: (_squared_relu(x), x), lambda x, g: (2 * g * jnp.maximum(x, 0),)
)


@model
def own_derivatives() -> Model:
    """Activations that bring their derivatives along."""

    def apply(p, x):
        x = _own_tanh(x @ p["a"] + p["b"])
        x = _squared_relu(x @ p["c"])
        return jax.nn.relu6(x @ p["d"]) @ p["e"]

    params = {
        "a": floats(INPUTS, HIDDEN),
        "b": floats(HIDDEN),
        "c": floats(HIDDEN, 13),
        "d": floats(13, 9),
        "e": floats(9, OUTPUTS),
    }
    truth = {
        "a": kernel(INPUTS, HIDDEN, function="tanh"),
        "b": bias("a"),
        "c": kernel(HIDDEN, 13, function=UNNAMED),
        "d": kernel(13, 9, function="relu6"),
        "e": kernel(9, OUTPUTS, head=True),
    }
    return Model(apply, params, (floats(BATCH, INPUTS),), truth)


@model
def one_of_two_heads() -> Model:
    """lax.cond chooses the head; a branch that is multiplied with 0.1."""

    def apply(p, x, choice):
        x = jax.nn.relu(x @ p["stem"]["w"] + p["stem"]["b"])
        x = x + 0.1 * (jnp.tanh(x @ p["block"]["a"]) @ p["block"]["b"])
        x = normed(x, p["norm"])
        return jax.lax.cond(
            choice > 0,
            lambda x: x @ p["left"]["w"] + p["left"]["b"],
            lambda x: jax.nn.sigmoid(x @ p["right"]["w"] + p["right"]["b"]),
            x,
        )

    params = {
        "stem": {"w": floats(INPUTS, HIDDEN), "b": floats(HIDDEN)},
        "block": {"a": floats(HIDDEN, 13), "b": floats(13, HIDDEN)},
        "norm": {"scale": floats(HIDDEN), "bias": floats(HIDDEN)},
        "left": {"w": floats(HIDDEN, OUTPUTS), "b": floats(OUTPUTS)},
        "right": {"w": floats(HIDDEN, OUTPUTS), "b": floats(OUTPUTS)},
    }
    truth = {
        "stem/w": kernel(INPUTS, HIDDEN, function="relu"),
        "stem/b": bias("stem/w"),
        "block/a": kernel(HIDDEN, 13, function="tanh"),
        "block/b": kernel(13, HIDDEN, multiplier=0.1, residual=(0, 1)),
        **norm("norm"),
        "left/w": kernel(HIDDEN, OUTPUTS, head=True),
        "left/b": bias("left/w"),
        "right/w": kernel(HIDDEN, OUTPUTS, function="sigmoid", head=True),
        "right/b": bias("right/w"),
    }
    return Model(apply, params, (floats(BATCH, INPUTS), integers()), truth)


@model
def policy_and_value() -> Model:
    """Two outputs of one trunk, of which only the second is squashed."""

    def dense(p, x):
        return jax.lax.dot(x, p["kernel"]) + p["bias"][None, :]

    def apply(p, x):
        x = jnp.tanh(dense(p["trunk_0"], x))
        x = jnp.tanh(dense(p["trunk_1"], x))
        return dense(p["policy"], x), jnp.tanh(dense(p["value"], x))[:, 0]

    sizes = {
        "trunk_0": (INPUTS, HIDDEN),
        "trunk_1": (HIDDEN, 13),
        "policy": (13, OUTPUTS),
        "value": (13, 1),
    }
    params = {
        name: {"kernel": floats(*size), "bias": floats(size[1])}
        for name, size in sizes.items()
    }
    truth = {
        "trunk_0/kernel": kernel(INPUTS, HIDDEN, function="tanh"),
        "trunk_0/bias": bias("trunk_0/kernel"),
        "trunk_1/kernel": kernel(HIDDEN, 13, function="tanh"),
        "trunk_1/bias": bias("trunk_1/kernel"),
        "policy/kernel": kernel(13, OUTPUTS, head=True),
        "policy/bias": bias("policy/kernel"),
        "value/kernel": kernel(13, 1, function="tanh", head=True),
        # A vector of one element: features that do not vary have no axis.
        "value/bias": bias("value/kernel", ()),
    }
    return Model(apply, params, (floats(BATCH, INPUTS),), truth)
