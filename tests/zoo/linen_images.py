"""Flax Linen: convolutions."""

import jax
import jax.numpy as jnp

from zoo.flax_layers import of_linen, window
from zoo.truths import (
    ANY,
    WRITES,
    Model,
    bias,
    convolution,
    dense,
    every,
    floats,
    kernel,
    model,
    norm,
    scale,
    statistic,
)

BATCH, OUTPUTS = 2, 5


@model
def frozen_batch_norm() -> Model:
    """Running averages are constants here, so that the norm is a scale and a shift."""
    from flax import linen as nn

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.Conv(6, (3, 2))(x)
            x = nn.relu(nn.BatchNorm(use_running_average=True)(x))
            x = nn.avg_pool(x, (2, 2), (2, 2))
            x = nn.leaky_relu(nn.Conv(10, (3, 3), strides=(2, 1))(x))
            x = nn.max_pool(x, (2, 2))
            x = nn.softplus(nn.Dense(14)(x.reshape(x.shape[0], -1)))
            return nn.log_softmax(nn.Dense(OUTPUTS)(x))

    truth = {
        # A norm whose factors are constants may be taken for no norm.
        **window("Conv_0", 3 * 6, 6 * 6, function=ANY),
        "BatchNorm_0/scale": scale(multiplier=ANY),
        "BatchNorm_0/bias": bias(ANY),
        **window("Conv_1", 6 * 9, 10 * 9, function="leaky_relu"),
        # 8 x 10 pixels; pooled, 4 x 5; strided, 2 x 5; pooled at every place, 1 x 4.
        **dense("Dense_0", 1 * 4 * 10, 14, function="softplus"),
        **dense("Dense_1", 14, OUTPUTS, head=True),
    }
    return of_linen(Net(), [floats(BATCH, 8, 10, 3)], truth)


@model
def statistics_as_leaves() -> Model:
    """All collections are parameters, so that the running averages are leaves."""
    from flax import linen as nn

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            for features in (6, 10):
                x = nn.Conv(features, (3, 2), use_bias=False)(x)
                x = nn.relu(nn.BatchNorm(use_running_average=True)(x))
            return nn.Dense(OUTPUTS)(x.mean((1, 2)))

    module, x = Net(), floats(BATCH, 5, 7, 3)
    variables = jax.eval_shape(module.init, jax.random.key(0), x)
    truth = {
        "params/Conv_0/kernel": convolution(3 * 6, 6 * 6),
        **norm("params/BatchNorm_0"),
        "params/Conv_1/kernel": convolution(6 * 6, 10 * 6),
        **norm("params/BatchNorm_1"),
        **dense("params/Dense_0", 10, OUTPUTS, head=True),
        **{
            f"batch_stats/BatchNorm_{i}/{name}": statistic()
            for i in range(2)
            for name in ("mean", "var")
        },
    }
    return Model(module.apply, variables, (x,), truth)


@model
def bottleneck_resnet() -> Model:
    """ResNet v1.5 in training, with projections where shapes change."""
    from flax import linen as nn

    def norm_layer(name=None):
        return nn.BatchNorm(use_running_average=False, name=name)

    class Block(nn.Module):
        filters: int
        strides: tuple = (1, 1)

        @nn.compact
        def __call__(self, x):
            shortcut, outputs = x, 4 * self.filters
            y = nn.relu(norm_layer()(conv(self.filters, (1, 1))(x)))
            y = nn.relu(norm_layer()(conv(self.filters, (3, 3), self.strides)(y)))
            y = norm_layer()(conv(outputs, (1, 1))(y))
            if shortcut.shape != y.shape:
                shortcut = conv(outputs, (1, 1), self.strides, name="conv_proj")(x)
                shortcut = norm_layer(name="norm_proj")(shortcut)
            return nn.relu(shortcut + y)

    def conv(features, kernel_size, strides=(1, 1), name=None):
        return nn.Conv(features, kernel_size, strides, use_bias=False, name=name)

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = conv(8, (5, 5), (2, 2), name="conv_init")(x)
            x = nn.relu(norm_layer(name="bn_init")(x))
            x = nn.max_pool(x, (2, 2), (2, 2))
            for filters, strides in ((5, (1, 1)), (5, (1, 1)), (6, (2, 2))):
                x = Block(filters, strides)(x)
            return nn.Dense(OUTPUTS)(jnp.mean(x, axis=(1, 2)))

    def block(index, inputs, filters, projected):
        path, outputs = f"Block_{index}", 4 * filters
        truth = {
            f"{path}/Conv_0/kernel": convolution(inputs, filters),
            **norm(f"{path}/BatchNorm_0"),
            f"{path}/Conv_1/kernel": convolution(filters * 9, filters * 9),
            **norm(f"{path}/BatchNorm_1"),
            f"{path}/Conv_2/kernel": convolution(filters, outputs, residual=(index, 3)),
            **norm(f"{path}/BatchNorm_2"),
        }
        if projected:
            truth[f"{path}/conv_proj/kernel"] = convolution(inputs, outputs)
            truth.update(norm(f"{path}/norm_proj"))
        return truth

    truth = {
        "conv_init/kernel": convolution(3 * 25, 8 * 25),
        **norm("bn_init"),
        **block(0, 8, 5, projected=True),
        **block(1, 20, 5, projected=False),
        **block(2, 20, 6, projected=True),
        **dense("Dense_0", 24, OUTPUTS, head=True),
    }
    return of_linen(Net(), [floats(BATCH, 16, 16, 3)], truth)


@model
def mobile_net() -> Model:
    """MobileNet v3: expansion, depthwise window, squeeze and excitation, projection.

    Without norms, but for one on the branches' ends.
    """
    from flax import linen as nn

    width, wide, narrow, blocks = 7, 18, 4, 2

    class Block(nn.Module):
        @nn.compact
        def __call__(self, x):
            h = nn.hard_swish(nn.Conv(wide, (1, 1))(x))
            h = nn.Conv(wide, (3, 5), feature_group_count=wide, name="depthwise")(h)
            h = nn.relu6(h)
            s = nn.relu(nn.Dense(narrow, name="squeeze")(h.mean((1, 2))))
            s = nn.sigmoid(nn.Dense(wide, name="excite")(s))
            h = nn.Conv(width, (1, 1), use_bias=False)(h * s[:, None, None])
            return x + nn.GroupNorm(num_groups=1)(h)

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.hard_swish(nn.Conv(width, (3, 3), (2, 2), name="stem")(x))
            for i in range(blocks):
                x = Block(name=f"block_{i}")(x)
            x = nn.relu(nn.Conv(14, (1, 3), feature_group_count=width)(x))
            return nn.Dense(OUTPUTS)(x.mean((1, 2)))

    block = {
        **window("Conv_0", width, wide, function="hard_swish"),
        **window("depthwise", 15, 15, function="relu6", groups=wide),
        **dense("squeeze", wide, narrow, function="relu"),
        **dense("excite", narrow, wide, function="sigmoid", part="gate"),
        "Conv_1/kernel": convolution(wide, width, residual=(0, blocks)),
        **norm("GroupNorm_0"),
    }
    truth = {
        **window("stem", 3 * 9, width * 9, function="hard_swish"),
        **every("block_{}/", blocks, block),
        # Each channel has two outputs of its own.
        **window("Conv_0", 3, 2 * 3, function="relu", groups=width),
        **dense("Dense_0", 14, OUTPUTS, head=True),
    }
    return of_linen(Net(), [floats(BATCH, 8, 10, 3)], truth)


@model
def generator() -> Model:
    """DCGAN: latents become an image by transposed convolutions."""
    from flax import linen as nn

    class Net(nn.Module):
        @nn.compact
        def __call__(self, z):
            x = nn.Dense(2 * 3 * 8, use_bias=False)(z).reshape(-1, 2, 3, 8)
            x = nn.relu(nn.BatchNorm(use_running_average=False)(x))
            x = nn.ConvTranspose(6, (4, 4), strides=(2, 2), use_bias=False)(x)
            x = nn.relu(nn.BatchNorm(use_running_average=False)(x))
            x = nn.ConvTranspose(
                5, (3, 5), strides=(1, 2), transpose_kernel=True, use_bias=False
            )(x)
            x = nn.ConvTranspose(3, (3, 3), strides=(2, 2))(nn.elu(x))
            return jnp.tanh(x)

    truth = {
        "Dense_0/kernel": kernel(9, 48),
        **norm("BatchNorm_0"),
        "ConvTranspose_0/kernel": convolution(8 * 16 / 4, 6 * 16, transposed=True),
        **norm("BatchNorm_1"),
        "ConvTranspose_1/kernel": convolution(
            6 * 15 / 2, 5 * 15, in_axis=3, out_axis=2, function="elu", transposed=True
        ),
        **window(
            "ConvTranspose_2",
            5 * 9 / 4,
            3 * 9,
            function="tanh",
            transposed=True,
            head=True,
        ),
    }
    return of_linen(Net(), [floats(BATCH, 9)], truth)


@model
def denoiser() -> Model:
    """A U-Net that is told the time: residual blocks, attention, a skip."""
    from flax import linen as nn

    width, wide, times = 6, 10, 13

    class Block(nn.Module):
        features: int

        @nn.compact
        def __call__(self, x, time):
            h = nn.silu(nn.GroupNorm(2, name="norm_1")(x))
            h = nn.Conv(self.features, (3, 3), name="conv_1")(h)
            time = nn.Dense(self.features, name="time")(nn.silu(time))
            h = nn.GroupNorm(2, name="norm_2")(h + time[:, None, None, :])
            h = nn.Conv(self.features, (3, 3), name="conv_2")(nn.silu(h))
            if x.shape != h.shape:
                x = nn.Conv(self.features, (1, 1), name="shortcut")(x)
            return x + h

    class Attention(nn.Module):
        @nn.compact
        def __call__(self, x):
            h = nn.GroupNorm(2, name="norm")(x).reshape(x.shape[0], -1, x.shape[-1])
            q, k = (nn.Dense(7, name=name)(h) for name in "qk")
            v = nn.Dense(9, name="v")(h)
            weights = nn.softmax(q @ k.swapaxes(1, 2) * 7**-0.5)
            return x + nn.Dense(wide, name="out")(weights @ v).reshape(x.shape)

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x, t):
            angles = t[:, None] * jnp.exp(-jnp.arange(4) / 2)
            time = jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)
            time = nn.silu(nn.Dense(14, name="time_1")(time))
            time = nn.Dense(times, name="time_2")(time)
            x = skip = Block(width, name="down")(nn.Conv(width, (3, 3))(x), time)
            x = nn.Conv(width, (3, 3), (2, 2), name="downsample")(x)
            x = Attention(name="attention")(Block(wide, name="middle")(x, time))
            x = jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)
            x = nn.Conv(width, (3, 3), name="upsample")(x)
            x = Block(width, name="up")(jnp.concatenate([x, skip], -1), time)
            x = nn.silu(nn.GroupNorm(2, name="norm_out")(x))
            return nn.Conv(3, (3, 3), name="conv_out")(x)

    def block(path, inputs, features, residual, shortcut=True):
        first = window(f"{path}/conv_1", inputs * 9, features * 9)
        return {
            **norm(f"{path}/norm_1"),
            **first,
            **dense(f"{path}/time", times, features),
            **norm(f"{path}/norm_2"),
            **window(f"{path}/conv_2", features * 9, features * 9, residual=residual),
            **(window(f"{path}/shortcut", inputs, features) if shortcut else {}),
        }

    truth = {
        **dense("time_1", 8, 14, function="silu"),
        **dense("time_2", 14, times, function="silu"),
        **window("Conv_0", 3 * 9, width * 9),
        # Debatable: the skip may carry the first stream on to the last block.
        **block("down", width, width, WRITES, shortcut=False),
        **window("downsample", width * 9, width * 9),
        **block("middle", width, wide, (0, 2)),
        **norm("attention/norm"),
        **dense("attention/q", wide, 7, part="query"),
        **dense("attention/k", wide, 7, part="key"),
        **dense("attention/v", wide, 9, part="value"),
        **dense("attention/out", 9, wide, residual=(1, 2), part="attention output"),
        **window("upsample", wide * 9, width * 9),
        **block("up", 2 * width, width, WRITES),
        **norm("norm_out"),
        **window("conv_out", width * 9, 3 * 9, head=True),
    }
    return of_linen(Net(), [floats(BATCH, 8, 8, 3), floats(BATCH)], truth)
