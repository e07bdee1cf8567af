"""Plain functions: cheap convolutional and all-MLP nets, batch norm with statistics."""

import jax
import jax.numpy as jnp

from zoo.layers import (
    affine,
    batch_norm,
    batch_normed,
    conv,
    linear,
    norm_truth,
    plain_batch_norm,
)
from zoo.truths import (
    ANY,
    UNNAMED,
    Model,
    below,
    bias,
    convolution,
    dense,
    every,
    floats,
    kernel,
    model,
)

BATCH, SIDE, OUTPUTS = 2, 8, 5


@model
def inverted_bottleneck() -> Model:
    """Howard et al. 2019 (MobileNetV3): hard swish, squeezes with a hard sigmoid."""
    width, hidden, squeezed = 6, 12, 4

    def block(p, x):
        h = jax.nn.hard_swish(plain_batch_norm(conv(x, p["expand"]), p["bn1"]))
        h = conv(h, p["depthwise"], groups=hidden)
        h = jax.nn.hard_swish(plain_batch_norm(h, p["bn2"]))
        s = jnp.mean(h, axis=(1, 2), keepdims=True)
        s = jax.nn.relu(conv(s, p["reduce"]["kernel"]) + p["reduce"]["bias"])
        s = conv(s, p["excite"]["kernel"]) + p["excite"]["bias"]
        h = h * jax.nn.hard_sigmoid(s)
        return x + plain_batch_norm(conv(h, p["project"]), p["bn3"])

    def apply(p, x):
        x = jax.nn.hard_swish(plain_batch_norm(conv(x, p["stem"], 2), p["bn"]))
        for layer in p["blocks"]:
            x = block(layer, x)
        x = jax.nn.hard_swish(linear(p["dense"], x.mean((1, 2))))
        return linear(p["head"], x)

    one = {
        "expand": floats(1, 1, width, hidden),
        "bn1": batch_normed(hidden),
        "depthwise": floats(5, 5, 1, hidden),
        "bn2": batch_normed(hidden),
        "reduce": {"kernel": floats(1, 1, hidden, squeezed), "bias": floats(squeezed)},
        "excite": {"kernel": floats(1, 1, squeezed, hidden), "bias": floats(hidden)},
        "project": floats(1, 1, hidden, width),
        "bn3": batch_normed(width),
    }
    params = {
        "stem": floats(3, 3, 3, width),
        "bn": batch_normed(width),
        "blocks": [one, one],
        "dense": affine(width, 16),
        "head": affine(16, OUTPUTS),
    }
    own = {
        "expand": convolution(width, hidden),
        **norm_truth("bn1"),
        "depthwise": convolution(25, 25, groups=hidden),
        **norm_truth("bn2"),
        "reduce/kernel": convolution(hidden, squeezed, function="relu"),
        "reduce/bias": bias("reduce/kernel"),
        "excite/kernel": convolution(squeezed, hidden, function=UNNAMED, part="gate"),
        "excite/bias": bias("excite/kernel", part="gate"),
        "project": convolution(hidden, width, residual=(0, 2)),
        **norm_truth("bn3"),
    }
    truth = {
        "stem": convolution(27, 9 * width),
        **norm_truth("bn"),
        **every("blocks/{}/", 2, own),
        **dense("dense", width, 16, function="hard_swish"),
        **dense("head", 16, OUTPUTS, head=True),
    }
    return Model(apply, params, (floats(BATCH, SIDE, SIDE, 3),), truth)


@model
def shuffled_groups() -> Model:
    """Ma et al. 2018 (ShuffleNetV2): half the channels pass, then all are shuffled."""
    width = 8
    half = width // 2

    def shuffle(x):
        b, h, w, c = x.shape
        return x.reshape(b, h, w, 2, c // 2).swapaxes(3, 4).reshape(b, h, w, c)

    def branch(p, x):
        x = jax.nn.relu(batch_norm(conv(x, p["pw1"]), p["bn1"]))
        x = batch_norm(conv(x, p["dw"], groups=half), p["bn2"])
        return jax.nn.relu(batch_norm(conv(x, p["pw2"]), p["bn3"]))

    def apply(p, x):
        x = jax.nn.relu(batch_norm(conv(x, p["stem"], 2), p["bn"]))
        x = jax.lax.reduce_window(
            x, -jnp.inf, jax.lax.max, (1, 3, 3, 1), (1, 2, 2, 1), "SAME"
        )
        for layer in p["stages"]:
            passed, changed = x[..., :half], x[..., half:]
            x = shuffle(jnp.concatenate([passed, branch(layer, changed)], -1))
        return jnp.mean(x, (1, 2)) @ p["fc"]

    one = {
        "pw1": floats(1, 1, half, half),
        "bn1": batch_normed(half),
        "dw": floats(3, 3, 1, half),
        "bn2": batch_normed(half),
        "pw2": floats(1, 1, half, half),
        "bn3": batch_normed(half),
    }
    params = {
        "stem": floats(3, 3, 3, width),
        "bn": batch_normed(width),
        "stages": [one, one],
        "fc": floats(width, OUTPUTS),
    }
    own = {
        "pw1": convolution(half, half),
        **norm_truth("bn1"),
        "dw": convolution(9, 9, groups=half),
        **norm_truth("bn2"),
        "pw2": convolution(half, half),
        **norm_truth("bn3"),
    }
    truth = {
        "stem": convolution(27, 9 * width),
        **norm_truth("bn"),
        **every("stages/{}/", 2, own),
        "fc": kernel(width, OUTPUTS, head=True),
    }
    return Model(apply, params, (floats(BATCH, 2 * SIDE, 2 * SIDE, 3),), truth)


@model
def three_branches() -> Model:
    """Ding et al. 2021 (RepVGG): 3x3, 1x1 and identity are normed and summed."""
    width = 6

    def apply(p, x):
        x = jax.nn.relu(conv(x, p["stem"]["kernel"], 2) + p["stem"]["bias"])
        dense, pointwise = p["block"]["dense"], p["block"]["pointwise"]
        y = batch_norm(conv(x, dense["kernel"]), dense["bn"])
        z = batch_norm(conv(x, pointwise["kernel"]), pointwise["bn"])
        x = jax.nn.relu(y + z + batch_norm(x, p["block"]["identity"]))
        x = x[:, ::2, ::2]
        x = jnp.einsum("bhwc,hwco->bo", x, p["linear"])
        return x

    params = {
        "stem": {"kernel": floats(3, 3, 3, width), "bias": floats(width)},
        "block": {
            "dense": {
                "kernel": floats(3, 3, width, width),
                "bn": batch_normed(width),
            },
            "pointwise": {
                "kernel": floats(1, 1, width, width),
                "bn": batch_normed(width),
            },
            "identity": batch_normed(width),
        },
        "linear": floats(2, 2, width, OUTPUTS),
    }
    # Debatable: an identity that is normed is hardly a stream.
    truth = {
        "stem/kernel": convolution(27, 9 * width, function="relu"),
        "stem/bias": bias("stem/kernel"),
        "block/dense/kernel": convolution(9 * width, 9 * width, residual=ANY),
        **norm_truth("block/dense/bn"),
        "block/pointwise/kernel": convolution(width, width, residual=ANY),
        **norm_truth("block/pointwise/bn"),
        **norm_truth("block/identity"),
        "linear": kernel(4 * width, OUTPUTS, (0, 1, 2), 3, head=True),
    }
    return Model(apply, params, (floats(BATCH, SIDE, SIDE, 3),), truth)


@model
def aggregated_transformations() -> Model:
    """Xie et al. 2017 (ResNeXt): grouped windows, a projected shortcut, then none."""
    width, groups = 8, 4

    def block(p, x, stride):
        h = jax.nn.relu(plain_batch_norm(conv(x, p["conv1"]), p["bn1"]))
        h = conv(h, p["conv2"], stride, groups)
        h = jax.nn.relu(plain_batch_norm(h, p["bn2"]))
        h = plain_batch_norm(conv(h, p["conv3"]), p["bn3"])
        if "down" in p:
            x = plain_batch_norm(conv(x, p["down"], stride), p["down_bn"])
        return jax.nn.relu(h + x)

    def apply(p, x):
        x = conv(x, p["stem"])
        x = block(p["layer1"], x, 2)
        x = block(p["layer2"], x, 1)
        return jnp.max(x, axis=(1, 2)) @ p["fc"].T

    def one(fan_in, down):
        own = {
            "conv1": floats(1, 1, fan_in, width),
            "bn1": batch_normed(width),
            "conv2": floats(3, 3, width // groups, width),
            "bn2": batch_normed(width),
            "conv3": floats(1, 1, width, 10),
            "bn3": batch_normed(10),
        }
        if down:
            own |= {"down": floats(1, 1, fan_in, 10), "down_bn": batch_normed(10)}
        return own

    params = {
        "stem": floats(3, 3, 3, 4),
        "layer1": one(4, True),
        "layer2": one(10, False),
        "fc": floats(OUTPUTS, 10),
    }
    fans = 9 * width // groups

    def own(fan_in, index):
        return {
            "conv1": convolution(fan_in, width),
            **norm_truth("bn1"),
            "conv2": convolution(fans, fans, groups=groups),
            **norm_truth("bn2"),
            "conv3": convolution(width, 10, residual=(index, 2)),
            **norm_truth("bn3"),
        }

    truth = {
        "stem": convolution(27, 36),
        **below("layer1/", own(4, 0)),
        "layer1/down": convolution(4, 10),
        **norm_truth("layer1/down_bn"),
        **below("layer2/", own(10, 1)),
        "fc": kernel(10, OUTPUTS, 1, 0, head=True),
    }
    return Model(apply, params, (floats(BATCH, SIDE, SIDE, 3),), truth)
