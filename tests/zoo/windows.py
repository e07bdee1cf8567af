"""Plain functions: windows over images and time, linear recurrences."""

import jax
import jax.numpy as jnp

from zoo.mixing import affine, affine_truth, linear, vector
from zoo.truths import (
    ANY,
    Model,
    bias,
    convolution,
    embedding,
    every,
    floats,
    gate,
    integers,
    kernel,
    model,
    norm,
    scale,
    unknown,
    unused,
)
from zoo.truths import layer_norm as normed

BATCH, WIDTH, HIDDEN, OUTPUTS = 3, 10, 14, 5


@model
def channels_first() -> Model:
    """ConvNeXt (Liu et al. 2022) with images as Torch has them; LayerScale."""

    def convolve(x, p, strides=(1, 1), padding="SAME", groups=1):
        y = jax.lax.conv_general_dilated(
            x,
            p["w"],
            strides,
            padding,
            dimension_numbers=("NCHW", "OIHW", "NCHW"),
            feature_group_count=groups,
        )
        return y + p["b"][None, :, None, None]

    def block(p, x):
        h = convolve(x, p["depthwise"], groups=WIDTH).transpose(0, 2, 3, 1)
        h = jax.nn.gelu(linear(normed(h, p["norm"]), p["up"]))
        h = p["gamma"] * linear(h, p["down"])
        return x + h.transpose(0, 3, 1, 2)

    def apply(p, x):
        x = convolve(x, p["stem"], (4, 2), "VALID")
        for i in range(2):
            x = block(p["blocks"][i], x)
        return linear(normed(x.mean((2, 3)), p["norm"]), p["head"])

    def window(*shape):
        return {"w": floats(*shape), "b": floats(shape[0])}

    block_params = {
        "depthwise": window(WIDTH, 1, 5, 3),
        "norm": vector(),
        "up": affine(WIDTH, 16),
        "down": affine(16, WIDTH),
        "gamma": floats(WIDTH),
    }
    params = {
        "stem": window(WIDTH, 3, 4, 2),
        "blocks": [block_params] * 2,
        "norm": vector(),
        "head": affine(WIDTH, OUTPUTS),
    }
    axes = {"spatial_axis": (2, 3), "in_axis": 1, "out_axis": 0}
    first = {
        "depthwise/w": convolution(15, 15, groups=WIDTH, **axes),
        "depthwise/b": bias("depthwise/w"),
        **norm("norm"),
        **affine_truth("up", WIDTH, 16, function="gelu"),
        **affine_truth("down", 16, WIDTH, residual=(0, 2)),
        "gamma": gate(0),
    }
    truth = {
        "stem/w": convolution(3 * 8, WIDTH * 8, **axes),
        "stem/b": bias("stem/w"),
        **every("blocks/{}/", 2, first),
        **norm("norm"),
        **affine_truth("head", WIDTH, OUTPUTS, head=True),
    }
    return Model(apply, params, (floats(BATCH, 3, 16, 12),), truth)


@model
def dilated() -> Model:
    """WaveNet (van den Oord et al. 2016): gated dilated windows, residuals and skips.

    The last layer's residual kernel reaches nothing, as in many implementations.
    """
    layers, filters, skips = 3, 8, 11

    def causal(x, w, dilation):
        return jax.lax.conv_general_dilated(
            x,
            w,
            (1,),
            [(dilation, 0)],
            rhs_dilation=(dilation,),
            dimension_numbers=("NTC", "TIO", "NTC"),
        )

    def apply(p, tokens):
        x, total = p["embed"][tokens], 0.0
        for i, layer in enumerate(p["layers"]):
            h = causal(x, layer["w"], 2**i) + layer["b"]
            h = jnp.tanh(h[..., :filters]) * jax.nn.sigmoid(h[..., filters:])
            total = total + h @ layer["skip"]
            x = x + h @ layer["residual"]
        x = jax.nn.relu(jax.nn.relu(total) @ p["out_1"])
        return x @ p["out_2"]

    layer_params = {
        "w": floats(2, WIDTH, 2 * filters),
        "b": floats(2 * filters),
        "skip": floats(filters, skips),
        "residual": floats(filters, WIDTH),
    }
    params = {
        "embed": floats(17, WIDTH),
        "layers": [layer_params] * layers,
        "out_1": floats(skips, HIDDEN),
        "out_2": floats(HIDDEN, 17),
    }
    # The factor that is a tanh is no linear factor, and so has no part.
    cuts = [
        (((0, filters),), None, "tanh"),
        (((filters, 2 * filters),), "gate", "sigmoid"),
    ]
    layer = {
        "w": convolution(
            2 * WIDTH, 2 * 2 * filters, 0, 1, 2, ANY, sections=[(2, *c) for c in cuts]
        ),
        "b": bias("w", sections=[(0, *c[:2], None) for c in cuts]),
        # Debatable: no layer reads the sum of the skips before it is whole.
        "skip": kernel(filters, skips, function=ANY, residual=ANY),
        "residual": kernel(filters, WIDTH, residual=(0, layers - 1)),
    }
    last = f"layers/{layers - 1}"
    truth = {
        "embed": embedding(WIDTH),
        **every("layers/{}/", layers - 1, layer),
        **every(f"{last}/", 1, {name: layer[name] for name in ("w", "b", "skip")}),
        f"{last}/residual": unused(),
        "out_1": kernel(skips, HIDDEN, function="relu"),
        "out_2": kernel(HIDDEN, 17, head=True),
    }
    return Model(apply, params, (integers(BATCH, 9),), truth)


@model
def state_space() -> Model:
    """A diagonal linear recurrence with learned decay between gated projections."""
    state, layers = 8, 2

    def block(p, x):
        h = normed(x, p["norm"])
        u, z = linear(h, p["in"]), jax.nn.silu(linear(h, p["gate"]))
        decay = jnp.exp(-jnp.exp(p["log_rate"]))

        def step(s, u):
            s = decay * s + u @ p["b"]
            return s, s @ p["c"]

        _, y = jax.lax.scan(step, jnp.zeros((BATCH, state)), u.swapaxes(0, 1))
        y = (y.swapaxes(0, 1) + p["d"] * u) * z
        return x + linear(y, p["out"])

    def apply(p, x):
        x = linear(x, p["embed"])
        for block_params in p["blocks"]:
            x = block(block_params, x)
        return linear(x, p["head"])

    block_params = {
        "norm": vector(),
        "in": affine(WIDTH, HIDDEN),
        "gate": affine(WIDTH, HIDDEN),
        "log_rate": floats(state),
        "b": floats(HIDDEN, state),
        "c": floats(state, HIDDEN),
        "d": floats(HIDDEN),
        "out": affine(HIDDEN, WIDTH),
    }
    params = {
        "embed": affine(7, WIDTH),
        "blocks": [block_params] * layers,
        "head": affine(WIDTH, OUTPUTS),
    }
    first = {
        **norm("norm"),
        # Debatable: what the gate multiplies is linear in this, after a recurrence.
        "in/w": kernel(WIDTH, HIDDEN, part=ANY),
        "in/b": bias("in/w", part=ANY),
        **affine_truth("gate", WIDTH, HIDDEN, function="silu", part="gate"),
        "log_rate": unknown(),
        # The loop is over time, but no kernel lies between a state and the next.
        "b": kernel(HIDDEN, state),
        # Debatable: it is the linear factor of the gated unit, and `d * u` a skip.
        "c": kernel(state, HIDDEN, part=ANY, residual=ANY),
        "d": scale(),
        **affine_truth("out", HIDDEN, WIDTH, residual=(0, layers)),
    }
    truth = {
        **affine_truth("embed", 7, WIDTH),
        **every("blocks/{}/", layers, first),
        **affine_truth("head", WIDTH, OUTPUTS, head=True),
    }
    return Model(apply, params, (floats(BATCH, 6, 7),), truth)
