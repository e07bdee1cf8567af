"""Plain functions: what is hidden, or folded, is built again."""

import functools

import jax
import jax.numpy as jnp

from zoo.layers import affine, linear
from zoo.truths import (
    ANY,
    Model,
    below,
    bias,
    convolution,
    dense,
    embedding,
    floats,
    integers,
    kernel,
    model,
    position,
    scale,
    stacked,
)
from zoo.truths import rms_norm as rms

BATCH, LENGTH, WIDTH, HIDDEN, VOCABULARY = 2, 6, 8, 12, 20


def vector(size=WIDTH):
    return {"scale": floats(size), "bias": floats(size)}


@model
def masked_autoencoder() -> Model:
    """He et al. 2022 (MAE): kept patches are gathered, a mask token fills in."""
    kept, places, size = 3, LENGTH, 5

    def mlp_block(x, p):
        h = jnp.swapaxes(rms(x, p["norm1"]), -1, -2)
        x = x + jnp.swapaxes(jax.nn.gelu(h @ p["a"]) @ p["b"], -1, -2)
        h = rms(x, p["norm2"])
        return x + jax.nn.gelu(h @ p["up"]) @ p["down"], None

    def apply(p, x, order):
        x = x @ p["patch"] + p["places"][None]
        keep, restore = order[:, :kept], jnp.argsort(order, axis=1)
        x = jnp.take_along_axis(x, keep[..., None], axis=1)
        h = rms(x, p["encoder"]["norm"])
        x = x + jax.nn.gelu(h @ p["encoder"]["up"]) @ p["encoder"]["down"]
        x = x @ p["bridge"]
        fill = jnp.broadcast_to(p["mask"], (BATCH, places - kept, size))
        x = jnp.concatenate([x, fill], axis=1)
        x = jnp.take_along_axis(x, restore[..., None], axis=1) + p["decoder_places"]
        x, _ = jax.lax.scan(jax.remat(mlp_block), x, p["decoder"])
        return x @ p["out"]

    decoder = {
        "norm1": floats(size),
        "a": floats(places, 7),
        "b": floats(7, places),
        "norm2": floats(size),
        "up": floats(size, HIDDEN),
        "down": floats(HIDDEN, size),
    }
    params = {
        "patch": floats(4, WIDTH),
        "places": floats(places, WIDTH),
        "encoder": {
            "norm": floats(WIDTH),
            "up": floats(WIDTH, HIDDEN),
            "down": floats(HIDDEN, WIDTH),
        },
        "bridge": floats(WIDTH, size),
        "mask": floats(1, 1, size),
        "decoder_places": floats(1, places, size),
        "decoder": jax.tree.map(lambda leaf: floats(2, *leaf.shape), decoder),
        "out": floats(size, 4),
    }
    own = {
        "norm1": scale(),
        "a": kernel(places, 7, function="gelu"),
        "b": kernel(7, places, residual=(0, 4)),
        "norm2": scale(),
        "up": kernel(size, HIDDEN, function="gelu"),
        "down": kernel(HIDDEN, size, residual=(1, 4)),
    }
    truth = {
        "patch": kernel(4, WIDTH),
        "places": position(),
        "encoder/norm": scale(),
        "encoder/up": kernel(WIDTH, HIDDEN, function="gelu"),
        "encoder/down": kernel(HIDDEN, WIDTH, residual=(0, 1)),
        "bridge": kernel(WIDTH, size),
        "mask": embedding(size, ANY, 2, part="token"),
        "decoder_places": position(1, 2),
        **below("decoder/", stacked(own)),
        "out": kernel(size, 4, head=True),
    }
    return Model(
        apply, params, (floats(BATCH, places, 4), integers(BATCH, places)), truth
    )


@model
def temporal_hourglass() -> Model:
    """A 1-D U-Net in channels-last: strided, dilated and transposed windows, folded."""
    numbers = ("NWC", "WIO", "NWC")

    def conv(p, x, stride=1, dilation=1):
        y = jax.lax.conv_general_dilated(
            x, p["kernel"], (stride,), "SAME", None, (dilation,), numbers
        )
        return y + p["bias"]

    def apply(p, x):
        x = conv(p["stem"], x)
        skips = []
        for down in p["down"]:
            skips.append(x)
            x = jax.nn.relu(conv(down, x, stride=2))
        x = x + jnp.tanh(conv(p["middle"], x, dilation=3))
        for up in p["up"]:
            x = jax.lax.conv_transpose(x, up["kernel"], (2,), "SAME")
            x = jax.nn.relu(x + up["bias"])
            x = jnp.concatenate([x, skips.pop()], axis=-1)
        fold = functools.partial(jnp.reshape, shape=(BATCH, 4, -1))
        return linear(p["out"], fold(x))

    def window(size, fan_in, fan_out):
        return {"kernel": floats(size, fan_in, fan_out), "bias": floats(fan_out)}

    params = {
        "stem": window(5, 2, 4),
        "down": [window(4, 4, 6), window(4, 6, 8)],
        "middle": window(3, 8, 8),
        "up": [window(4, 8, 6), window(4, 12, 4)],
        "out": affine(4 * 8, 3),
    }
    axes = {"spatial_axis": 0, "in_axis": 1, "out_axis": 2}

    def own(path, fan_in, fan_out, **rest):
        return {
            f"{path}/kernel": convolution(fan_in, fan_out, **axes, **rest),
            f"{path}/bias": bias(f"{path}/kernel"),
        }

    relu = {"function": "relu"}
    truth = {
        **own("stem", 10, 20),
        **own("down/0", 16, 24, **relu),
        **own("down/1", 24, 32, **relu),
        **own("middle", 24, 24, function="tanh", residual=(0, 1)),
        **own("up/0", 16, 24, transposed=True, **relu),
        **own("up/1", 24, 16, transposed=True, **relu),
        **dense("out", 32, 3, head=True),
    }
    return Model(apply, params, (floats(BATCH, 16, 2),), truth)
