"""Haiku, Equinox, NNX and plain functions: networks of convolutions."""

import itertools

import jax
import jax.numpy as jnp

from zoo.equinox_models import image, of_equinox
from zoo.equinox_models import linear as eqx_linear
from zoo.flax_layers import window
from zoo.haiku_models import linear, of_haiku
from zoo.nnx_models import of_nnx
from zoo.truths import (
    ANY,
    Model,
    bias,
    convolution,
    dense,
    floats,
    kernel,
    model,
    norm,
    scale,
    shift,
    token,
)

BATCH, OUTPUTS = 2, 5


@model
def efficient_net() -> Model:
    """Tan and Le 2019, Haiku: MBConv blocks; squeeze and excitation by 1x1 windows."""
    import haiku as hk

    widths, strides, narrow = (7, 7, 9, 9), (1, 1, 2, 1), 3

    def normed(x, name):
        return hk.BatchNorm(True, True, 0.99, name=name)(x, is_training=True)

    def conv(x, channels, size, name, stride=1, with_bias=False):
        return hk.Conv2D(channels, size, stride, with_bias=with_bias, name=name)(x)

    def block(x, width, stride, name):
        wide = 4 * x.shape[-1]
        h = conv(x, wide, 1, f"{name}_expand")
        h = jax.nn.swish(normed(h, f"{name}_expand_bn"))
        h = hk.DepthwiseConv2D(
            1, (3, 5), stride, with_bias=False, name=f"{name}_depthwise"
        )(h)
        h = jax.nn.swish(normed(h, f"{name}_depthwise_bn"))
        s = jnp.mean(h, axis=(1, 2), keepdims=True)
        s = jax.nn.swish(conv(s, narrow, 1, f"{name}_reduce", with_bias=True))
        s = jax.nn.sigmoid(conv(s, wide, 1, f"{name}_widen", with_bias=True))
        h = normed(conv(h * s, width, 1, f"{name}_project"), f"{name}_project_bn")
        return x + h if stride == 1 and x.shape[-1] == width else h

    def fun(x):
        x = jax.nn.swish(normed(conv(x, 6, 3, "stem", 2), "stem_bn"))
        for i, (width, stride) in enumerate(zip(widths, strides, strict=True)):
            x = block(x, width, stride, f"b{i}")
        x = jax.nn.swish(normed(conv(x, 13, 1, "top"), "top_bn"))
        return hk.Linear(OUTPUTS, name="head")(x.mean((1, 2)))

    def batch_norm(name):
        return {f"{name}/scale": scale(3), f"{name}/offset": shift(3)}

    def block_truth(name, inputs, width, residual):
        wide = 4 * inputs
        return {
            f"{name}_expand/w": convolution(inputs, wide),
            **batch_norm(f"{name}_expand_bn"),
            f"{name}_depthwise/w": convolution(15, 15, groups=wide),
            **batch_norm(f"{name}_depthwise_bn"),
            f"{name}_reduce/w": convolution(wide, narrow, function="silu"),
            f"{name}_reduce/b": bias(f"{name}_reduce/w"),
            f"{name}_widen/w": convolution(
                narrow, wide, function="sigmoid", part="gate"
            ),
            f"{name}_widen/b": bias(f"{name}_widen/w", part="gate"),
            f"{name}_project/w": convolution(wide, width, residual=residual),
            **batch_norm(f"{name}_project_bn"),
        }

    truth = {
        "stem/w": convolution(3 * 9, 6 * 9),
        **batch_norm("stem_bn"),
        # Every second block has a shortcut; the one before begins the stream.
        **block_truth("b0", 6, 7, None),
        **block_truth("b1", 7, 7, (0, 1)),
        **block_truth("b2", 7, 9, None),
        **block_truth("b3", 9, 9, (0, 1)),
        "top/w": convolution(9, 13),
        **batch_norm("top_bn"),
        **linear("head", 13, OUTPUTS, head=True),
    }
    return of_haiku(fun, [floats(BATCH, 12, 16, 3)], truth)


@model
def inception() -> Model:
    """Szegedy et al. 2015, Equinox: four branches concatenated, an auxiliary head."""
    import equinox as eqx

    shapes = {
        "one": (6, 4, 1, 0),
        "three_in": (6, 5, 1, 0),
        "three": (5, 7, 3, 1),
        "five_in": (6, 2, 1, 0),
        "five": (2, 3, 5, 2),
        "pooled": (6, 8, 1, 0),
    }

    class Net(eqx.Module):
        stem: eqx.nn.Conv2d
        branches: dict
        auxiliary: eqx.nn.Linear
        out: eqx.nn.Linear

        def __init__(self, key):
            self.stem = eqx.nn.Conv2d(3, 6, (3, 5), 2, key=key)
            self.branches = {
                name: eqx.nn.Conv2d(*shape[:3], padding=shape[3], key=key)
                for name, shape in shapes.items()
            }
            self.auxiliary = eqx.nn.Linear(6, OUTPUTS, key=key)
            self.out = eqx.nn.Linear(22, OUTPUTS, key=key)

        def __call__(self, x):
            x = jax.nn.relu(self.stem(x))
            run = {
                name: lambda x, layer=layer: jax.nn.relu(layer(x))
                for name, layer in self.branches.items()
            }
            parts = [
                run["one"](x),
                run["three"](run["three_in"](x)),
                run["five"](run["five_in"](x)),
                run["pooled"](eqx.nn.MaxPool2d(3, 1, 1)(x)),
            ]
            y = jnp.concatenate(parts, axis=0).mean((1, 2))
            return self.out(y), self.auxiliary(x.max((1, 2)))

    branches = {}
    for name, (fan_in, fan_out, size, _) in shapes.items():
        area = size * size
        branches |= image(
            f"branches/{name}", fan_in * area, fan_out * area, function="relu"
        )
    truth = {
        **image("stem", 3 * 15, 6 * 15, function="relu"),
        **branches,
        **eqx_linear("auxiliary", 6, OUTPUTS, head=True),
        **eqx_linear("out", 22, OUTPUTS, head=True),
    }
    return of_equinox(Net, [floats(BATCH, 3, 9, 13)], truth)


@model
def u_net() -> Model:
    """Ronneberger et al. 2015, NNX: skips are concatenated; batch norms in training."""
    from flax import nnx

    class Double(nnx.Module):
        def __init__(self, inputs, middle, outputs, rngs):
            self.conv1 = nnx.Conv(inputs, middle, (3, 3), use_bias=False, rngs=rngs)
            self.norm1 = nnx.BatchNorm(middle, rngs=rngs)
            self.conv2 = nnx.Conv(middle, outputs, (3, 3), use_bias=False, rngs=rngs)
            self.norm2 = nnx.BatchNorm(outputs, rngs=rngs)

        def __call__(self, x):
            x = nnx.relu(self.norm1(self.conv1(x), use_running_average=False))
            return nnx.relu(self.norm2(self.conv2(x), use_running_average=False))

    class Net(nnx.Module):
        def __init__(self, rngs):
            self.down1 = Double(3, 5, 6, rngs)
            self.down2 = Double(6, 7, 8, rngs)
            self.middle = Double(8, 9, 10, rngs)
            self.up2 = nnx.ConvTranspose(10, 8, (2, 2), strides=(2, 2), rngs=rngs)
            self.back2 = Double(16, 7, 11, rngs)
            self.up1 = nnx.ConvTranspose(11, 4, (2, 2), strides=(2, 2), rngs=rngs)
            self.back1 = Double(10, 5, 9, rngs)
            self.out = nnx.Conv(9, OUTPUTS, (1, 1), rngs=rngs)

        def __call__(self, x):
            skip1 = self.down1(x)
            skip2 = self.down2(nnx.max_pool(skip1, (2, 2), (2, 2)))
            x = self.middle(nnx.max_pool(skip2, (2, 2), (2, 2)))
            x = self.back2(jnp.concatenate([skip2, self.up2(x)], axis=-1))
            x = self.back1(jnp.concatenate([skip1, self.up1(x)], axis=-1))
            return self.out(x)

    def double(path, inputs, middle, outputs):
        return {
            f"{path}/conv1/kernel": convolution(inputs * 9, middle * 9),
            **norm(f"{path}/norm1"),
            f"{path}/conv2/kernel": convolution(middle * 9, outputs * 9),
            **norm(f"{path}/norm2"),
        }

    truth = {
        **double("down1", 3, 5, 6),
        **double("down2", 6, 7, 8),
        **double("middle", 8, 9, 10),
        **window("up2", 10 * 4 / 4, 8 * 4, transposed=True),
        **double("back2", 16, 7, 11),
        **window("up1", 11 * 4 / 4, 4 * 4, transposed=True),
        **double("back1", 10, 5, 9),
        **window("out", 9, OUTPUTS, head=True),
    }
    return of_nnx(Net, [floats(BATCH, 8, 12, 3)], truth)


@model
def discriminator() -> Model:
    """Radford et al. 2016, NNX: strided windows, and a last one as big as the image."""
    from flax import nnx

    widths = (3, 6, 10, 14)

    class Net(nnx.Module):
        def __init__(self, rngs):
            self.convs = nnx.List(
                [
                    nnx.Conv(a, b, (4, 4), strides=2, use_bias=i == 0, rngs=rngs)
                    for i, (a, b) in enumerate(itertools.pairwise(widths))
                ]
            )
            self.norms = nnx.List([nnx.BatchNorm(n, rngs=rngs) for n in widths[2:]])
            self.score = nnx.Conv(14, 1, (2, 3), padding="VALID", rngs=rngs)

        def __call__(self, x):
            x = nnx.leaky_relu(self.convs[0](x), 0.2)
            for conv, normalize in zip(self.convs[1:], self.norms, strict=True):
                x = normalize(conv(x), use_running_average=False)
                x = nnx.leaky_relu(x, 0.2)
            return self.score(x).reshape(-1)

    truth = {
        **window("convs/0", 3 * 16, 6 * 16, function="leaky_relu"),
        "convs/1/kernel": convolution(6 * 16, 10 * 16),
        "convs/2/kernel": convolution(10 * 16, 14 * 16),
        **norm("norms/0"),
        **norm("norms/1"),
        # One output, whose axis has size 1.
        "score/kernel": convolution(14 * 6, 1 * 6, head=True),
        "score/bias": bias("score/kernel", ()),
    }
    return of_nnx(Net, [floats(BATCH, 16, 24, 3)], truth)


@model
def style_generator() -> Model:
    """Karras et al. 2019: weights and biases of the mapping learn 100 times slower.

    The image begins as a learned constant; styles are scales and shifts after norms.
    """
    slow, latents, styles, first, second = 0.01, 7, 9, 8, 6

    def mapping(p, z):
        z = z * jax.lax.rsqrt(jnp.mean(z**2, axis=1, keepdims=True) + 1e-8)
        for layer in p:
            w = layer["w"] * (2**0.5 / layer["w"].shape[0] ** 0.5 * slow)
            z = jax.nn.leaky_relu(z @ w + layer["b"] * slow, 0.2)
        return z

    def styled(p, x, w):
        x = jax.nn.leaky_relu(x + p["bias"], 0.2)
        x = x - x.mean((1, 2), keepdims=True)
        x = x * jax.lax.rsqrt(jnp.square(x).mean((1, 2), keepdims=True) + 1e-8)
        s = w @ (p["style"]["w"] * styles**-0.5) + p["style"]["b"]
        s = s.reshape(-1, 2, 1, 1, x.shape[-1])
        return x * (s[:, 0] + 1) + s[:, 1]

    def conv(w, x, gain):
        w = w * (gain / (w.shape[0] * w.shape[1] * w.shape[2]) ** 0.5)
        numbers = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(
            x, w, (1, 1), "SAME", dimension_numbers=numbers
        )

    def apply(p, z):
        w = mapping(p["mapping"], z)
        x = jnp.tile(p["const"], (BATCH, 1, 1, 1))
        x = styled(p["start"], x, w)
        x = x.repeat(2, axis=1).repeat(2, axis=2)
        x = styled(p["block"], conv(p["block"]["conv"], x, 2**0.5), w)
        return conv(p["to_rgb"]["conv"], x, 1.0) + p["to_rgb"]["bias"]

    def style(width):
        affine = {"w": floats(styles, 2 * width), "b": floats(2 * width)}
        return {"bias": floats(width), "style": affine}

    def style_truth(path, width):
        return dense(
            path, styles, 2 * width, weight="w", offset="b", multiplier=styles**-0.5
        )

    params = {
        "mapping": [
            {"w": floats(latents, 11), "b": floats(11)},
            {"w": floats(11, styles), "b": floats(styles)},
        ],
        "const": floats(1, 4, 5, first),
        "start": style(first),
        "block": {"conv": floats(3, 3, first, second), **style(second)},
        "to_rgb": {"conv": floats(1, 1, second, 3), "bias": floats(3)},
    }

    def mapped(fan_in, fan_out):
        factor = (2 / fan_in) ** 0.5 * slow
        return kernel(fan_in, fan_out, function="leaky_relu", multiplier=factor)

    rgb = convolution(second, 3, multiplier=second**-0.5, head=True)
    truth = {
        "mapping/0/w": mapped(latents, 11),
        "mapping/0/b": bias("mapping/0/w", multiplier=slow),
        "mapping/1/w": mapped(11, styles),
        "mapping/1/b": bias("mapping/1/w", multiplier=slow),
        # Debatable: learned, and where the activations begin, but nobody's token.
        "const": token(ANY, ANY, ANY),
        "start/bias": bias(ANY),
        **style_truth("start/style", first),
        "block/conv": convolution(
            first * 9,
            second * 9,
            function="leaky_relu",
            multiplier=(2 / (9 * first)) ** 0.5,
        ),
        "block/bias": bias("block/conv"),
        **style_truth("block/style", second),
        "to_rgb/conv": rgb,
        "to_rgb/bias": bias("to_rgb/conv"),
    }
    return Model(apply, params, (floats(BATCH, latents),), truth)
