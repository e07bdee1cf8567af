"""Flax Linen: DiT, ConvNeXt, DenseNet, Swin and a variational autoencoder."""

import jax
import jax.numpy as jnp

from zoo.flax_layers import attention, of_linen, window
from zoo.truths import (
    ANY,
    Model,
    bias,
    bias_cut,
    convolution,
    cut,
    dense,
    embedding,
    every,
    floats,
    gate,
    integers,
    kernel,
    model,
    norm,
    position,
)

BATCH, WIDTH, HIDDEN, OUTPUTS = 2, 12, 20, 5


@model
def diffusion_transformer() -> Model:
    """Peebles and Xie 2023, adaLN-Zero: one layer makes shifts, scales and gates."""
    from flax import linen as nn

    heads, size, layers, times = 3, 5, 2, 14

    def modulate(x, shift, factor):
        return x * (1 + factor[:, None]) + shift[:, None]

    def plain_norm():
        return nn.LayerNorm(use_bias=False, use_scale=False)

    class Block(nn.Module):
        @nn.compact
        def __call__(self, x, c):
            c = nn.Dense(6 * WIDTH, name="modulation")(nn.silu(c))
            shift_1, scale_1, gate_1, shift_2, scale_2, gate_2 = jnp.split(c, 6, -1)
            h = modulate(plain_norm()(x), shift_1, scale_1)
            attend = nn.MultiHeadDotProductAttention(
                heads, qkv_features=heads * size, name="attn"
            )
            x = x + gate_1[:, None] * attend(h, h)
            h = modulate(plain_norm()(x), shift_2, scale_2)
            h = nn.gelu(nn.Dense(HIDDEN, name="fc1")(h))
            return x + gate_2[:, None] * nn.Dense(WIDTH, name="fc2")(h)

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x, t, labels):
            x = nn.Conv(WIDTH, (2, 3), (2, 3), padding="VALID", name="patch")(x)
            x = x.reshape(BATCH, -1, WIDTH)
            x = x + jnp.sin(jnp.arange(x.shape[1] * WIDTH).reshape(1, -1, WIDTH))
            angles = t[:, None] * jnp.exp(-jnp.arange(4) / 2)
            t = jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1)
            t = nn.Dense(times, name="t_1")(nn.silu(nn.Dense(9, name="t_0")(t)))
            c = t + nn.Embed(11, times, name="y")(labels)
            for i in range(layers):
                x = Block(name=f"block_{i}")(x, c)
            c = nn.Dense(2 * WIDTH, name="final_modulation")(nn.silu(c))
            x = modulate(plain_norm()(x), *jnp.split(c, 2, axis=-1))
            return nn.Dense(2 * 3 * 3, name="final")(x)

    block = {
        # Debatable: a third of it multiplies the ends of branches.
        **dense("modulation", times, 6 * WIDTH, residual=ANY),
        **attention("attn", WIDTH, heads, size, (0, 4), scaled=True),
        **dense("fc1", WIDTH, HIDDEN, function="gelu"),
        **dense("fc2", HIDDEN, WIDTH, residual=(1, 4)),
    }
    truth = {
        **window("patch", 3 * 6, WIDTH * 6),
        **dense("t_0", 8, 9, function="silu"),
        # Debatable: the label's row is added before the function.
        **dense("t_1", 9, times, function="silu"),
        "y/embedding": embedding(times),
        **every("block_{}/", layers, block),
        **dense("final_modulation", times, 2 * WIDTH),
        **dense("final", WIDTH, 18, head=True),
    }
    inputs = [floats(BATCH, 4, 9, 3), floats(BATCH), integers(BATCH)]
    return of_linen(Net(), inputs, truth)


@model
def conv_next() -> Model:
    """Liu et al. 2022: depthwise windows, LayerScale, stochastic depth in training."""
    from flax import linen as nn

    widths, depths = (6, 10), (2, 1)

    class Block(nn.Module):
        width: int
        drop: float

        @nn.compact
        def __call__(self, x):
            h = nn.Conv(
                self.width, (7, 7), feature_group_count=self.width, name="dwconv"
            )(x)
            h = nn.LayerNorm(epsilon=1e-6, name="norm")(h)
            h = nn.gelu(nn.Dense(4 * self.width, name="pwconv1")(h))
            h = nn.Dense(self.width, name="pwconv2")(h)
            start = nn.initializers.constant(1e-6)
            h = h * self.param("gamma", start, (self.width,))
            if self.drop:
                key, keep = self.make_rng("drop_path"), 1 - self.drop
                kept = jax.random.bernoulli(key, keep, (x.shape[0], 1, 1, 1))
                h = jnp.where(kept, h / keep, 0.0)
            return x + h

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            for i, (width, depth) in enumerate(zip(widths, depths, strict=True)):
                if i:
                    x = nn.LayerNorm(name=f"down_norm_{i}")(x)
                size = 2 if i else 4
                x = nn.Conv(width, (size, 3), (size, 3), name=f"down_{i}")(x)
                x = x if i else nn.LayerNorm(name="stem_norm")(x)
                for j in range(depth):
                    x = Block(width, 0.1 * (i + j), name=f"stage_{i}_block_{j}")(x)
            x = nn.LayerNorm(name="norm")(x.mean(axis=(1, 2)))
            return nn.Dense(OUTPUTS, name="head")(x)

    def block(width, residual, dropped):
        factor = ANY if dropped else 1.0
        return {
            **window("dwconv", 49, 49, groups=width),
            **norm("norm"),
            **dense("pwconv1", width, 4 * width, function="gelu"),
            "pwconv2/kernel": kernel(
                4 * width, width, residual=residual, multiplier=factor
            ),
            "pwconv2/bias": bias("pwconv2/kernel", multiplier=factor),
            # Divided by the probability to keep the branch, which is random.
            "gamma": gate(0, multiplier=factor),
        }

    truth = {
        **window("down_0", 3 * 12, 6 * 12),
        **norm("stem_norm"),
        **every("stage_0_block_0/", 1, block(6, (0, 2), False)),
        **every("stage_0_block_1/", 1, block(6, (1, 2), True)),
        **norm("down_norm_1"),
        **window("down_1", 6 * 6, 10 * 6),
        **every("stage_1_block_0/", 1, block(10, (0, 1), True)),
        **norm("norm"),
        **dense("head", 10, OUTPUTS, head=True),
    }
    made = of_linen(Net(), [floats(BATCH, 16, 18, 3)], truth, keys=("drop_path",))
    return made


@model
def dense_net() -> Model:
    """Huang et al. 2017: every layer reads all that came before it, concatenated."""
    from flax import linen as nn

    growth, start, wide = 4, 7, 16

    def activated(x):
        return nn.relu(nn.BatchNorm(use_running_average=False)(x))

    def conv(features, size, name):
        return nn.Conv(features, size, use_bias=False, name=name)

    class Layer(nn.Module):
        @nn.compact
        def __call__(self, x):
            h = conv(wide, (1, 1), "bottleneck")(activated(x))
            h = conv(growth, (3, 3), "grow")(activated(h))
            return jnp.concatenate([x, h], axis=-1)

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = conv(start, (3, 5), "stem")(x)
            for i in range(2):
                x = Layer(name=f"layer_{i}")(x)
            x = conv(9, (1, 1), "transition")(activated(x))
            x = Layer(name="layer_2")(nn.avg_pool(x, (2, 2), (2, 2)))
            return nn.Dense(OUTPUTS, name="head")(activated(x).mean((1, 2)))

    def layer(path, inputs):
        return {
            **norm(f"{path}/BatchNorm_0"),
            f"{path}/bottleneck/kernel": convolution(inputs, wide),
            **norm(f"{path}/BatchNorm_1"),
            f"{path}/grow/kernel": convolution(wide * 9, growth * 9),
        }

    truth = {
        "stem/kernel": convolution(3 * 15, start * 15),
        **layer("layer_0", 7),
        **layer("layer_1", 11),
        **norm("BatchNorm_0"),
        "transition/kernel": convolution(15, 9),
        **layer("layer_2", 9),
        **norm("BatchNorm_1"),
        **dense("head", 13, OUTPUTS, head=True),
    }
    return of_linen(Net(), [floats(BATCH, 8, 6, 3)], truth)


@model
def swin() -> Model:
    """Liu et al. 2021: attention in windows, shifted in the second block.

    A table of relative positions for each block; patches are merged at the end.
    """
    from flax import linen as nn

    high, wide, rows, columns, heads, size = 2, 3, 4, 6, 3, 5
    area, inner = high * wide, heads * size

    def index():
        axes = jnp.meshgrid(jnp.arange(high), jnp.arange(wide), indexing="ij")
        flat = jnp.stack(axes).reshape(2, -1)
        apart = flat[:, :, None] - flat[:, None, :]
        return (apart[0] + high - 1) * (2 * wide - 1) + apart[1] + wide - 1

    class Attention(nn.Module):
        @nn.compact
        def __call__(self, x):
            qkv = nn.Dense(3 * inner, name="qkv")(x)
            qkv = qkv.reshape(-1, area, 3, heads, size).transpose(2, 0, 3, 1, 4)
            q, k, v = qkv[0] * size**-0.5, qkv[1], qkv[2]
            shape = ((2 * high - 1) * (2 * wide - 1), heads)
            noise = nn.initializers.truncated_normal(0.02)
            table = self.param("relative_position_bias_table", noise, shape)
            bias = table[index().reshape(-1)].reshape(area, area, heads)
            scores = q @ k.swapaxes(-2, -1) + bias.transpose(2, 0, 1)[None]
            h = (nn.softmax(scores) @ v).swapaxes(1, 2).reshape(-1, area, inner)
            return nn.Dense(WIDTH, name="proj")(h)

    class Block(nn.Module):
        shift: bool

        @nn.compact
        def __call__(self, x):
            h = nn.LayerNorm(name="norm1")(x)
            if self.shift:
                h = jnp.roll(h, (-(high // 2), -(wide // 2)), axis=(1, 2))
            h = h.reshape(BATCH, rows // high, high, columns // wide, wide, WIDTH)
            h = h.transpose(0, 1, 3, 2, 4, 5).reshape(-1, area, WIDTH)
            h = Attention(name="attn")(h)
            h = h.reshape(BATCH, rows // high, columns // wide, high, wide, WIDTH)
            h = h.transpose(0, 1, 3, 2, 4, 5).reshape(x.shape)
            if self.shift:
                h = jnp.roll(h, (high // 2, wide // 2), axis=(1, 2))
            x = x + h
            h = nn.Dense(HIDDEN, name="fc1")(nn.LayerNorm(name="norm2")(x))
            return x + nn.Dense(WIDTH, name="fc2")(nn.gelu(h))

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.Conv(WIDTH, (2, 2), strides=(2, 2), name="patch_embed")(x)
            x = nn.LayerNorm(name="patch_norm")(x)
            for i in range(2):
                x = Block(bool(i), name=f"block_{i}")(x)
            parts = [x[:, i::2, j::2] for j in range(2) for i in range(2)]
            x = nn.LayerNorm(name="merge_norm")(jnp.concatenate(parts, axis=-1))
            x = nn.Dense(2 * WIDTH, use_bias=False, name="reduction")(x)
            return nn.Dense(OUTPUTS, name="head")(nn.LayerNorm()(x).mean((1, 2)))

    parts = ("query", "key", "value")
    block = {
        **norm("norm1"),
        # Only the queries are scaled, which a single multiplier cannot say.
        "attn/qkv/kernel": kernel(
            WIDTH, 3 * inner, sections=cut(1, inner, parts), multiplier=ANY
        ),
        "attn/qkv/bias": bias(
            "attn/qkv/kernel", sections=bias_cut(inner, parts), multiplier=ANY
        ),
        "attn/relative_position_bias_table": position(),
        **dense("attn/proj", inner, WIDTH, residual=(0, 4), part="attention output"),
        **norm("norm2"),
        **dense("fc1", WIDTH, HIDDEN, function="gelu"),
        **dense("fc2", HIDDEN, WIDTH, residual=(1, 4)),
    }
    truth = {
        **window("patch_embed", 3 * 4, WIDTH * 4),
        **norm("patch_norm"),
        **every("block_{}/", 2, block),
        **norm("merge_norm"),
        "reduction/kernel": kernel(4 * WIDTH, 2 * WIDTH),
        **norm("LayerNorm_0"),
        **dense("head", 2 * WIDTH, OUTPUTS, head=True),
    }
    return of_linen(Net(), [floats(BATCH, 2 * rows, 2 * columns, 3)], truth)


@model
def variational_autoencoder() -> Model:
    """Kingma and Welling 2014, with all that its loss needs among the outputs."""
    from flax import linen as nn

    latents, pixels = 6, 21

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            h = nn.relu(nn.Dense(HIDDEN, name="fc1")(x))
            mean = nn.Dense(latents, name="fc2_mean")(h)
            log_variance = nn.Dense(latents, name="fc2_logvar")(h)
            noise = jax.random.normal(self.make_rng("noise"), mean.shape)
            z = mean + noise * jnp.exp(0.5 * log_variance)
            z = nn.relu(nn.Dense(14, name="fc3")(z))
            return nn.Dense(pixels, name="fc4")(z), mean, log_variance

    # Debatable: both are outputs and lead to others; the noise is multiplied.
    spread = {"function": ANY, "multiplier": ANY, "head": ANY, "part": ANY}
    truth = {
        **dense("fc1", pixels, HIDDEN, function="relu"),
        **dense("fc2_mean", HIDDEN, latents, head=ANY),
        "fc2_logvar/kernel": kernel(HIDDEN, latents, **spread),
        "fc2_logvar/bias": bias("fc2_logvar/kernel", multiplier=ANY, part=ANY),
        **dense("fc3", latents, 14, function="relu"),
        **dense("fc4", 14, pixels, head=True),
    }
    return of_linen(Net(), [floats(BATCH, pixels)], truth, keys=("noise",))
