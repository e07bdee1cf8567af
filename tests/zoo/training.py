"""Training as it is done, experts, two towers, and windows over time."""

import jax
import jax.numpy as jnp

from zoo.equinox_models import of_equinox
from zoo.flax_layers import attention, of_linen
from zoo.truths import (
    ANY,
    Model,
    bias,
    convolution,
    dense,
    embedding,
    every,
    floats,
    integers,
    kernel,
    model,
    norm,
    position,
    scale,
    statistic,
    token,
    unknown,
)

BATCH, LENGTH, WIDTH, HIDDEN, OUTPUTS = 2, 9, 10, 14, 5


@model
def clip() -> Model:
    """Radford et al. 2021, Linen: an encoder of images, one of texts, a temperature."""
    from flax import linen as nn

    texts, images, joint = 12, 14, 9

    class Layer(nn.Module):
        heads: int
        size: int

        @nn.compact
        def __call__(self, x, mask=None):
            width = x.shape[-1]
            h = nn.LayerNorm(name="layer_norm1")(x)
            attend = nn.MultiHeadDotProductAttention(
                self.heads, qkv_features=self.heads * self.size, name="self_attn"
            )
            x = x + attend(h, mask=mask)
            h = nn.Dense(HIDDEN + 6, name="fc1")(nn.LayerNorm(name="layer_norm2")(x))
            return x + nn.Dense(width, name="fc2")(h * nn.sigmoid(1.702 * h))

    class Vision(nn.Module):
        @nn.compact
        def __call__(self, x):
            patches = nn.Conv(images, (2, 3), (2, 3), use_bias=False, name="patch")(x)
            patches = patches.reshape(BATCH, -1, images)
            cls = self.param("class_embedding", nn.initializers.normal(), (images,))
            cls = jnp.tile(cls, (BATCH, 1, 1))
            x = jnp.concatenate([cls, patches], axis=1)
            places = jnp.arange(x.shape[1])[None]
            x = x + nn.Embed(x.shape[1], images, name="position")(places)
            x = nn.LayerNorm(name="pre_layrnorm")(x)
            x = Layer(2, 5, name="layer_0")(x)
            return nn.LayerNorm(name="post_layernorm")(x[:, 0])

    class Text(nn.Module):
        @nn.compact
        def __call__(self, tokens):
            x = nn.Embed(17, texts, name="token")(tokens)
            places = jnp.arange(tokens.shape[-1])[None]
            x = x + nn.Embed(8, texts, name="position")(places)
            for i in range(2):
                x = Layer(3, 5, name=f"layer_{i}")(x, nn.make_causal_mask(tokens))
            x = nn.LayerNorm(name="final_layer_norm")(x)
            return x[jnp.arange(BATCH), tokens.argmax(axis=-1)]

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x, tokens):
            x, y = Vision(name="vision")(x), Text(name="text")(tokens)
            x = nn.Dense(joint, use_bias=False, name="visual_projection")(x)
            y = nn.Dense(joint, use_bias=False, name="text_projection")(y)
            x = x / jnp.linalg.norm(x, axis=-1, keepdims=True)
            y = y / jnp.linalg.norm(y, axis=-1, keepdims=True)
            start = nn.initializers.constant(2.6592)
            factor = jnp.exp(self.param("logit_scale", start, ()))
            logits = jnp.matmul(y, x.T) * factor
            return logits.T, logits

    def layer(width, heads, total):
        return {
            **norm("layer_norm1"),
            **attention("self_attn", width, heads, 5, (0, total), scaled=True),
            **norm("layer_norm2"),
            # Debatable: x sigmoid(1.702 x) is meant for a GELU.
            **dense("fc1", width, HIDDEN + 6, function=ANY),
            **dense("fc2", HIDDEN + 6, width, residual=(1, total)),
        }

    truth = {
        "vision/patch/kernel": convolution(3 * 6, images * 6),
        # A single token has no axis that varies but its features.
        "vision/class_embedding": token(images, ANY, 0),
        "vision/position/embedding": position(),
        **norm("vision/pre_layrnorm"),
        **every("vision/layer_{}/", 1, layer(images, 2, 2)),
        **norm("vision/post_layernorm"),
        "text/token/embedding": embedding(texts),
        "text/position/embedding": position(),
        **every("text/layer_{}/", 2, layer(texts, 3, 4)),
        **norm("text/final_layer_norm"),
        # Debatable: the product of both is a contraction, but without a leaf.
        "visual_projection/kernel": kernel(images, joint, head=ANY),
        "text_projection/kernel": kernel(texts, joint, head=ANY),
        "logit_scale": unknown(),
    }
    return of_linen(Net(), [floats(BATCH, 4, 9, 3), integers(BATCH, 6)], truth)


@model
def experts_with_shared_one() -> Model:
    """DeepSeek's and Qwen's experts, Linen: the best two of four, and one for all.

    Tokens are dispatched and combined by products with one-hot vectors.
    """
    from flax import linen as nn

    count, best, capacity, layers = 4, 2, 6, 2

    class SwiGLU(nn.Module):
        @nn.compact
        def __call__(self, x):
            gate, up = (
                nn.Dense(HIDDEN, use_bias=False, name=f"{name}_proj")(x)
                for name in ("gate", "up")
            )
            h = nn.silu(gate) * up
            return nn.Dense(WIDTH, use_bias=False, name="down_proj")(h)

    class Experts(nn.Module):
        @nn.compact
        def __call__(self, x):
            logits = nn.Dense(count, use_bias=False, name="router")(x)
            weights, chosen = jax.lax.top_k(nn.softmax(logits, axis=-1), best)
            weights = weights / weights.sum(axis=-1, keepdims=True)
            hot = jax.nn.one_hot(chosen, count)
            place = jnp.cumsum(hot.reshape(-1, count), axis=0).reshape(hot.shape)
            slot = jax.nn.one_hot((place * hot - 1).astype(jnp.int32), capacity)
            combine = jnp.einsum("tk,tkec->tec", weights, slot)
            dispatch = (combine > 0).astype(x.dtype)
            h = jnp.einsum("tec,td->ecd", dispatch, x)
            start = nn.initializers.lecun_normal(batch_axis=0)
            gate = self.param("wi_0", start, (count, WIDTH, HIDDEN))
            up = self.param("wi_1", start, (count, WIDTH, HIDDEN))
            down = self.param("wo", start, (count, HIDDEN, WIDTH))
            gate = nn.silu(jnp.einsum("ecd,edf->ecf", h, gate))
            h = gate * jnp.einsum("ecd,edf->ecf", h, up)
            h = jnp.einsum("ecf,efd->ecd", h, down)
            return jnp.einsum("tec,ecd->td", combine, h)

    class Layer(nn.Module):
        @nn.compact
        def __call__(self, x):
            h = nn.RMSNorm(name="norm")(x)
            share = nn.sigmoid(nn.Dense(1, use_bias=False, name="share")(h))
            routed = Experts(name="experts")(h)
            return x + routed + share * SwiGLU(name="shared")(h)

    class Net(nn.Module):
        @nn.compact
        def __call__(self, tokens):
            x = nn.Embed(17, WIDTH, name="embed")(tokens)
            for i in range(layers):
                x = Layer(name=f"layer_{i}")(x)
            return nn.Dense(17, use_bias=False, name="logits")(x)

    own = {"batch_axis": 0}
    layer = {
        "norm/scale": scale(),
        # Debatable: without a kernel behind it, it reaches the stream as a factor.
        "share/kernel": kernel(WIDTH, 1, function="sigmoid", part="gate", residual=ANY),
        "experts/router/kernel": kernel(WIDTH, count, part="router"),
        "experts/wi_0": kernel(WIDTH, HIDDEN, 1, 2, "silu", part="gate", **own),
        "experts/wi_1": kernel(WIDTH, HIDDEN, 1, 2, part="up", **own),
        # Which of two branches of one layer is the first is read from the sum.
        "experts/wo": kernel(HIDDEN, WIDTH, 1, 2, residual=(0, 2 * layers), **own),
        "shared/gate_proj/kernel": kernel(WIDTH, HIDDEN, function="silu", part="gate"),
        "shared/up_proj/kernel": kernel(WIDTH, HIDDEN, part="up"),
        # Debatable: it is the linear factor of what "share" gates.
        "shared/down_proj/kernel": kernel(
            HIDDEN, WIDTH, residual=(1, 2 * layers), part=ANY
        ),
    }
    truth = {
        "embed/embedding": embedding(WIDTH),
        **every("layer_{}/", layers, layer),
        "logits/kernel": kernel(WIDTH, 17, head=True),
    }
    return of_linen(Net(), [integers(LENGTH)], truth)


@model
def training_with_dropout() -> Model:
    """Dropout before the output and at the end of a branch; the key is a constant."""
    from flax import linen as nn

    class Block(nn.Module):
        @nn.compact
        def __call__(self, x):
            h = nn.relu(nn.Dense(HIDDEN, name="in")(nn.LayerNorm(name="norm")(x)))
            h = nn.Dropout(0.2, deterministic=False)(h)
            h = nn.Dense(WIDTH, name="out")(h)
            return x + nn.Dropout(0.2, deterministic=False)(h)

    class Net(nn.Module):
        @nn.compact
        def __call__(self, tokens):
            x = nn.Embed(17, WIDTH, name="embed")(tokens)
            x = nn.Dropout(0.1, broadcast_dims=(1,), deterministic=False)(x)
            for i in range(2):
                x = Block(name=f"block_{i}")(x)
            x = nn.Dropout(0.5, deterministic=False)(x.mean(1))
            return nn.Dense(OUTPUTS, name="classify")(x)

    block = {
        **norm("norm"),
        **dense("in", WIDTH, HIDDEN, function="relu"),
        # Debatable: what is kept is divided by the probability to be kept.
        "out/kernel": kernel(HIDDEN, WIDTH, residual=(0, 2), multiplier=ANY),
        "out/bias": bias("out/kernel", multiplier=ANY),
    }
    truth = {
        "embed/embedding": embedding(WIDTH, multiplier=ANY),
        **every("block_{}/", 2, block),
        **dense("classify", WIDTH, OUTPUTS, head=True),
    }
    return of_linen(Net(), [integers(BATCH, LENGTH)], truth, keys=("dropout",))


@model
def training_with_statistics() -> Model:
    """Batch norms whose new averages are an output, and old ones leaves."""
    from flax import linen as nn

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            for features in (6, 11):
                x = nn.Conv(features, (3, 2), use_bias=False)(x)
                x = nn.BatchNorm(use_running_average=False, momentum=0.9)(x)
                x = nn.gelu(x)
            return nn.Dense(OUTPUTS)(x.mean((1, 2)))

    module, x = Net(), floats(BATCH, 5, 7, 3)
    variables = jax.eval_shape(module.init, jax.random.key(0), x)

    def apply(variables, x):
        return module.apply(variables, x, mutable=["batch_stats"])

    # Debatable: the averages are outputs, to which no kernel leads on.
    averaged = {"head": ANY, "function": ANY}
    truth = {
        "params/Conv_0/kernel": convolution(3 * 6, 6 * 6, **averaged),
        **norm("params/BatchNorm_0"),
        "params/Conv_1/kernel": convolution(6 * 6, 11 * 6, **averaged),
        **norm("params/BatchNorm_1"),
        **dense("params/Dense_0", 11, OUTPUTS, head=True),
        **{
            f"batch_stats/BatchNorm_{i}/{name}": statistic()
            for i in range(2)
            for name in ("mean", "var")
        },
    }
    return Model(apply, variables, (x,), truth)


@model
def temporal_convolutions() -> Model:
    """Bai et al. 2018, Equinox: two causal windows in each block, a 1x1 shortcut."""
    import equinox as eqx

    class Block(eqx.Module):
        conv1: eqx.nn.Conv1d
        conv2: eqx.nn.Conv1d
        shortcut: eqx.nn.Conv1d | None

        def __init__(self, inputs, outputs, rate, key):
            pads, own = ((2 * rate, 0),), {"dilation": rate, "key": key}
            self.conv1 = eqx.nn.Conv1d(inputs, outputs, 3, padding=pads, **own)
            self.conv2 = eqx.nn.Conv1d(outputs, outputs, 3, padding=pads, **own)
            same = inputs == outputs
            self.shortcut = None if same else eqx.nn.Conv1d(inputs, outputs, 1, key=key)

        def __call__(self, x):
            h = jax.nn.relu(self.conv2(jax.nn.relu(self.conv1(x))))
            return jax.nn.relu(h + (x if self.shortcut is None else self.shortcut(x)))

    class Net(eqx.Module):
        blocks: list[Block]
        out: eqx.nn.Linear

        def __init__(self, key):
            sizes = [(WIDTH, HIDDEN, 1), (HIDDEN, HIDDEN, 2), (HIDDEN, 11, 4)]
            self.blocks = [Block(*size, key) for size in sizes]
            self.out = eqx.nn.Linear(11, OUTPUTS, key=key)

        def __call__(self, x):
            for block in self.blocks:
                x = block(x)
            return self.out(x[:, -1])

    def line(path, fan_in, fan_out, **rest):
        axes = {"spatial_axis": 2, "in_axis": 1, "out_axis": 0}
        return {
            f"{path}/weight": convolution(fan_in, fan_out, **axes, **rest),
            f"{path}/bias": bias(f"{path}/weight"),
        }

    def block(index, inputs, outputs):
        path, last = f"blocks/{index}", {"function": "relu", "residual": (index, 3)}
        return {
            **line(f"{path}/conv1", 3 * inputs, 3 * outputs, function="relu"),
            **line(f"{path}/conv2", 3 * outputs, 3 * outputs, **last),
        }

    truth = {
        **block(0, WIDTH, HIDDEN),
        # The shortcut's sum is a residual addition, where its function ends.
        **line("blocks/0/shortcut", WIDTH, HIDDEN),
        **block(1, HIDDEN, HIDDEN),
        **block(2, HIDDEN, 11),
        **line("blocks/2/shortcut", HIDDEN, 11),
        **dense("out", 11, OUTPUTS, weight="weight", in_axis=1, out_axis=0, head=True),
    }
    return of_equinox(Net, [floats(BATCH, WIDTH, LENGTH)], truth)
