"""Images: responses normed, gates without functions, words and classes that draw."""

import jax
import jax.numpy as jnp

from zoo.flax_layers import of_linen, window
from zoo.haiku_models import linear as hk_linear
from zoo.haiku_models import of_haiku
from zoo.nnx_models import of_nnx
from zoo.truths import (
    ANY,
    WRITES,
    Model,
    bias,
    convolution,
    dense,
    either,
    embedding,
    floats,
    gate,
    integers,
    kernel,
    model,
    norm,
    scale,
    shift,
)

B, D, F, HEADS, SIZE, O = 2, 12, 15, 3, 4, 5  # noqa: E741


@model
def responses_normed() -> Model:
    """Woo et al. 2023 (ConvNeXt V2), Linen: features compete by their lengths."""
    from flax import linen as nn

    class Block(nn.Module):
        @nn.compact
        def __call__(self, x):
            c = x.shape[-1]
            h = nn.Conv(c, (7, 7), feature_group_count=c, name="dwconv")(x)
            h = nn.LayerNorm(epsilon=1e-6, name="norm")(h)
            h = nn.gelu(nn.Dense(2 * c, name="pwconv1")(h), approximate=False)
            zeros = nn.initializers.zeros
            gamma = self.param("gamma", zeros, (1, 1, 1, 2 * c))
            beta = self.param("beta", zeros, (1, 1, 1, 2 * c))
            length = jnp.sqrt(jnp.sum(jnp.square(h), axis=(1, 2), keepdims=True) + 1e-6)
            share = length / (length.mean(-1, keepdims=True) + 1e-6)
            h = gamma * (h * share) + beta + h
            return x + nn.Dense(c, name="pwconv2")(h)

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.Conv(6, (4, 4), (4, 4), padding="VALID", name="stem")(x)
            x = Block(name="block_0")(nn.LayerNorm(name="stem_norm")(x))
            x = nn.LayerNorm(name="down_norm")(x)
            x = nn.Conv(8, (2, 2), (2, 2), padding="VALID", name="down")(x)
            for i in (1, 2):
                x = Block(name=f"block_{i}")(x)
            x = nn.LayerNorm(name="norm")(x.mean((1, 2)))
            return nn.Dense(O, name="head")(x)

    def block(path, c, residual):
        return {
            **window(f"{path}/dwconv", 49, 49, groups=c),
            **norm(f"{path}/norm"),
            **dense(f"{path}/pwconv1", c, 2 * c, function="gelu"),
            # Debatable: it scales what is added to what it was.
            f"{path}/gamma": either("scale", "gate"),
            f"{path}/beta": shift(3),
            **dense(f"{path}/pwconv2", 2 * c, c, residual=residual),
        }

    truth = {
        **window("stem", 48, 16 * 6),
        **norm("stem_norm"),
        **block("block_0", 6, (0, 1)),
        **norm("down_norm"),
        **window("down", 24, 32),
        **block("block_1", 8, (0, 2)),
        **block("block_2", 8, (1, 2)),
        **norm("norm"),
        **dense("head", 8, O, head=True),
    }
    return of_linen(Net(), [floats(B, 16, 16, 3)], truth)


@model
def gates_without_functions() -> Model:
    """Chen et al. 2022 (NAFNet), NNX: halves multiply; pixels are shuffled up."""
    from flax import nnx

    c = 6

    def simple(x):
        a, b = jnp.split(x, 2, axis=-1)
        return a * b

    class Block(nnx.Module):
        def __init__(self, c, rngs):
            self.n1, self.n2 = (nnx.LayerNorm(c, rngs=rngs) for _ in range(2))
            self.conv1 = nnx.Conv(c, 2 * c, (1, 1), rngs=rngs)
            self.conv2 = nnx.Conv(
                2 * c, 2 * c, (3, 3), feature_group_count=2 * c, rngs=rngs
            )
            self.sca = nnx.Conv(c, c, (1, 1), rngs=rngs)
            self.conv3 = nnx.Conv(c, c, (1, 1), rngs=rngs)
            self.conv4 = nnx.Conv(c, 2 * c, (1, 1), rngs=rngs)
            self.conv5 = nnx.Conv(c, c, (1, 1), rngs=rngs)
            self.beta = nnx.Param(jnp.zeros((1, 1, 1, c)))
            self.gamma = nnx.Param(jnp.zeros((1, 1, 1, c)))

        def __call__(self, x):
            h = simple(self.conv2(self.conv1(self.n1(x))))
            h = h * self.sca(h.mean((1, 2), keepdims=True))
            x = x + self.conv3(h) * self.beta[...]
            return x + self.conv5(simple(self.conv4(self.n2(x)))) * self.gamma[...]

    class Net(nnx.Module):
        def __init__(self, rngs):
            self.intro = nnx.Conv(3, c, (3, 3), rngs=rngs)
            self.encoder = Block(c, rngs)
            self.down = nnx.Conv(c, 2 * c, (2, 2), (2, 2), rngs=rngs)
            self.middle = Block(2 * c, rngs)
            self.up = nnx.Conv(2 * c, 4 * c, (1, 1), use_bias=False, rngs=rngs)
            self.decoder = Block(c, rngs)
            self.ending = nnx.Conv(c, 3, (3, 3), rngs=rngs)

        def __call__(self, image):
            x = skip = self.encoder(self.intro(image))
            x = self.up(self.middle(self.down(x)))
            n = x.shape[1]
            x = x.reshape(B, n, n, 2, 2, c).transpose(0, 1, 3, 2, 4, 5)
            x = self.decoder(x.reshape(B, 2 * n, 2 * n, c) + skip)
            return image + self.ending(x)

    def block(path, c, first):
        # Debatable: halves that multiply each other, without functions.
        open_ = {"part": ANY, "sections": ANY}
        writes = [WRITES] * 2 if first is None else [(first, 2), (first + 1, 2)]
        return {
            **norm(f"{path}/n1"),
            f"{path}/conv1/kernel": convolution(c, 2 * c),
            f"{path}/conv1/bias": bias(f"{path}/conv1/kernel"),
            f"{path}/conv2/kernel": convolution(9, 9, groups=2 * c, **open_),
            f"{path}/conv2/bias": bias(f"{path}/conv2/kernel", **open_),
            # Debatable: the mean of what it multiplies enters.
            f"{path}/sca/kernel": convolution(c, c, part=ANY),
            f"{path}/sca/bias": bias(f"{path}/sca/kernel", part=ANY),
            **window(f"{path}/conv3", c, c, residual=writes[0]),
            **norm(f"{path}/n2"),
            f"{path}/conv4/kernel": convolution(c, 2 * c, **open_),
            f"{path}/conv4/bias": bias(f"{path}/conv4/kernel", **open_),
            **window(f"{path}/conv5", c, c, residual=writes[1]),
            f"{path}/beta": gate(3),
            f"{path}/gamma": gate(3),
        }

    truth = {
        **window("intro", 27, 9 * c),
        # Debatable: the skip is a stream that the lower level writes to.
        **block("encoder", c, None),
        **window("down", 4 * c, 8 * c),
        **block("middle", 2 * c, 0),
        "up/kernel": convolution(2 * c, 4 * c, residual=ANY),
        **block("decoder", c, None),
        # Debatable: the image itself is the stream.
        **window("ending", 9 * c, 27, head=True, residual=ANY),
    }
    return of_nnx(Net, [floats(B, 8, 8, 3)], truth)


@model
def words_that_draw() -> Model:
    """Rombach et al. 2022 as diffusers has it, Linen: a block that attends to words."""
    from flax import linen as nn

    c, words = 8, 7

    class Attention(nn.Module):
        @nn.compact
        def __call__(self, x, context=None):
            context = x if context is None else context

            def split(y):
                y = y.reshape(B, -1, HEADS, SIZE).transpose(0, 2, 1, 3)
                return y.reshape(B * HEADS, -1, SIZE)

            n = HEADS * SIZE
            q = split(nn.Dense(n, use_bias=False, name="to_q")(x))
            k = split(nn.Dense(n, use_bias=False, name="to_k")(context))
            v = split(nn.Dense(n, use_bias=False, name="to_v")(context))
            a = jnp.einsum("bid,bjd->bij", q, k) * SIZE**-0.5
            y = jnp.einsum("bij,bjd->bid", nn.softmax(a, axis=-1), v)
            y = y.reshape(B, HEADS, -1, SIZE).transpose(0, 2, 1, 3)
            return nn.Dense(x.shape[-1], name="to_out_0")(y.reshape(B, -1, n))

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x, t, context):
            t = nn.silu(nn.Dense(F, name="time_1")(t))
            t = nn.Dense(F, name="time_2")(t)
            x = nn.Conv(c, (3, 3), name="conv_in")(x)
            h = nn.silu(nn.GroupNorm(2, name="norm1")(x))
            h = nn.Conv(c, (3, 3), name="conv1")(h)
            h = h + nn.Dense(c, name="time_emb_proj")(nn.silu(t))[:, None, None]
            h = nn.silu(nn.GroupNorm(2, name="norm2")(h))
            x = x + nn.Conv(c, (3, 3), name="conv2")(h)
            y = nn.GroupNorm(2, name="norm")(x).reshape(B, -1, c)
            y = nn.Dense(D, name="proj_in")(y)
            y = y + Attention(name="attn1")(nn.LayerNorm(name="ln1")(y))
            y = y + Attention(name="attn2")(nn.LayerNorm(name="ln2")(y), context)
            h = nn.Dense(2 * F, name="ff_proj")(nn.LayerNorm(name="ln3")(y))
            h, g = jnp.split(h, 2, axis=2)
            y = y + nn.Dense(D, name="ff_out")(h * nn.gelu(g))
            x = x + nn.Dense(c, name="proj_out")(y).reshape(x.shape)
            h = nn.silu(nn.GroupNorm(2, name="norm_out")(x))
            return nn.Conv(3, (3, 3), name="conv_out")(h)

    def attend(path, source, residual):
        n = HEADS * SIZE
        return {
            f"{path}/to_q/kernel": kernel(D, n, part="query"),
            f"{path}/to_k/kernel": kernel(source, n, part="key"),
            f"{path}/to_v/kernel": kernel(source, n, part="value"),
            **dense(
                f"{path}/to_out_0", n, D, part="attention output", residual=residual
            ),
        }

    halves = [(1, ((0, F),), "up", "identity"), (1, ((F, 2 * F),), "gate", "gelu")]
    truth = {
        **dense("time_1", F, F, function="silu"),
        **dense("time_2", F, F, function="silu"),
        **window("conv_in", 27, 9 * c),
        **norm("norm1"),
        **window("conv1", 9 * c, 9 * c),
        # Debatable: what is added within a branch.
        **dense("time_emb_proj", F, c, residual=ANY),
        **norm("norm2"),
        **window("conv2", 9 * c, 9 * c, residual=(0, 2)),
        **norm("norm"),
        **dense("proj_in", c, D),
        **norm("ln1"),
        **attend("attn1", D, (0, 3)),
        **norm("ln2"),
        **attend("attn2", words, (1, 3)),
        **norm("ln3"),
        "ff_proj/kernel": kernel(D, 2 * F, function=ANY, sections=halves),
        "ff_proj/bias": bias(
            "ff_proj/kernel", sections=[(0, *x[1:3], None) for x in halves]
        ),
        **dense("ff_out", F, D, residual=(2, 3)),
        **dense("proj_out", D, c, residual=(1, 2)),
        **norm("norm_out"),
        **window("conv_out", 9 * c, 27, head=True),
    }
    inputs = [floats(B, 4, 4, 3), floats(B, F), floats(B, 6, words)]
    return of_linen(Net(), inputs, truth)


@model
def partial_stages() -> Model:
    """Jocher et al. 2023 (YOLOv8), NNX: C2f, SPPF, and boxes as means over bins."""
    from flax import nnx

    c, bins = 8, 4
    half = c // 2

    class Conv(nnx.Module):
        def __init__(self, a, b, k, rngs, s=1):
            self.conv = nnx.Conv(a, b, (k, k), s, use_bias=False, rngs=rngs)
            self.bn = nnx.BatchNorm(b, rngs=rngs)

        def __call__(self, x):
            return nnx.silu(self.bn(self.conv(x), use_running_average=False))

    class Net(nnx.Module):
        def __init__(self, rngs):
            self.stem = Conv(3, c, 3, rngs, 2)
            self.cv1 = Conv(c, c, 1, rngs)
            self.m1, self.m2 = Conv(half, half, 3, rngs), Conv(half, half, 3, rngs)
            self.cv2 = Conv(3 * half, c, 1, rngs)
            self.sppf1 = Conv(c, half, 1, rngs)
            self.sppf2 = Conv(4 * half, c, 1, rngs)
            self.box1 = Conv(c, c, 3, rngs)
            self.box2 = nnx.Conv(c, 4 * bins, (1, 1), rngs=rngs)
            self.cls1 = Conv(c, c, 3, rngs)
            self.cls2 = nnx.Conv(c, O, (1, 1), rngs=rngs)

        def __call__(self, x):
            x = self.stem(x)
            y = jnp.split(self.cv1(x), 2, axis=-1)
            y.append(y[-1] + self.m2(self.m1(y[-1])))
            x = self.cv2(jnp.concatenate(y, axis=-1))
            x = [self.sppf1(x)]
            for _ in range(3):
                x.append(nnx.max_pool(x[-1], (5, 5), (1, 1), "SAME"))
            x = self.sppf2(jnp.concatenate(x, axis=-1))
            box = self.box2(self.box1(x)).reshape(B, -1, 4, bins)
            box = nnx.softmax(box, axis=-1) @ jnp.arange(bins, dtype=jnp.float32)
            return box, nnx.sigmoid(self.cls2(self.cls1(x)))

    def normed(path, a, b, **rest):
        return {
            f"{path}/conv/kernel": convolution(a, b, **rest),
            **norm(f"{path}/bn"),
        }

    truth = {
        **normed("stem", 27, 9 * c),
        **normed("cv1", c, c),
        **normed("m1", 9 * half, 9 * half),
        # Debatable: norm and function end its branch.
        **normed("m2", 9 * half, 9 * half, residual=ANY),
        **normed("cv2", 3 * half, c),
        **normed("sppf1", c, half),
        **normed("sppf2", 4 * half, c),
        **normed("box1", 9 * c, 9 * c),
        # Debatable: a product with constants follows.
        **window("box2", c, 4 * bins, head=ANY),
        **normed("cls1", 9 * c, 9 * c),
        **window("cls2", c, O, function="sigmoid", head=True),
    }
    return of_nnx(Net, [floats(B, 8, 8, 3)], truth)


@model
def classes_that_draw() -> Model:
    """Brock et al. 2019 (BigGAN), Haiku: a class and pieces of noise set the norms."""
    import haiku as hk

    c, e, piece = 6, 5, 3
    cond = e + piece

    def grow(x):
        return jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)

    def fun(z, label):
        y = hk.Embed(11, e, name="shared")(label)
        first, second = z[:, :piece], z[:, piece:]
        y = jnp.concatenate([y, second], axis=-1)

        def normed(x, name):
            x = hk.BatchNorm(False, False, 0.9, name=f"{name}_bn")(x, True)
            g = 1.0 + hk.Linear(x.shape[-1], False, name=f"{name}_gain")(y)
            b = hk.Linear(x.shape[-1], False, name=f"{name}_bias")(y)
            return x * g[:, None, None] + b[:, None, None]

        x = hk.Linear(4 * 4 * c, name="linear")(first).reshape(B, 4, 4, c)
        h = grow(jax.nn.relu(normed(x, "a")))
        h = hk.Conv2D(c, 3, name="conv_1")(h)
        h = hk.Conv2D(c, 3, name="conv_2")(jax.nn.relu(normed(h, "b")))
        x = h + hk.Conv2D(c, 1, name="conv_sc")(grow(x))
        x = hk.BatchNorm(True, True, 0.9, name="out_bn")(x, True)
        return jnp.tanh(hk.Conv2D(3, 3, name="conv_out")(jax.nn.relu(x)))

    def conditioned(path):
        # Debatable: what multiplies, and what is added.
        open_ = {"function": ANY, "part": ANY, "residual": ANY}
        return {
            f"{path}_gain/w": kernel(cond, c, **open_),
            f"{path}_bias/w": kernel(cond, c, **open_),
        }

    names = ("w", "b")
    truth = {
        "shared/embeddings": embedding(e),
        **hk_linear("linear", piece, 16 * c),
        **conditioned("a"),
        **window("conv_1", 9 * c, 9 * c, names),
        **conditioned("b"),
        # Debatable: a shortcut with a kernel is a stream, or begins one.
        **window("conv_2", 9 * c, 9 * c, names, residual=ANY),
        **window("conv_sc", c, c, names, residual=ANY),
        "out_bn/scale": scale(3),
        "out_bn/offset": shift(3),
        **window("conv_out", 9 * c, 27, names, function="tanh", head=True),
    }
    return of_haiku(fun, [floats(B, 2 * piece), integers(B)], truth)
