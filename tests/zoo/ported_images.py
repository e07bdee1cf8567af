"""Ports of repositories of images: salient parts, objects as points, decoders."""

import jax
import jax.numpy as jnp

from zoo.flax_layers import of_linen, window
from zoo.layers import conv, norm_truth, plain_batch_norm
from zoo.nnx_models import of_nnx
from zoo.truths import (
    ANY,
    WRITES,
    Model,
    below,
    bias,
    convolution,
    either,
    floats,
    model,
    norm,
)

B = 2


@model
def salient_parts() -> Model:
    """Qin et al. 2020 (U^2-Net), Linen: a U within a block, outputs at two scales."""
    from flax import linen as nn

    mid, out = 6, 8

    class Rebn(nn.Module):
        features: int
        dilation: int = 1

        @nn.compact
        def __call__(self, x):
            d = (self.dilation, self.dilation)
            x = nn.Conv(self.features, (3, 3), kernel_dilation=d, name="conv_s1")(x)
            x = nn.BatchNorm(use_running_average=False, name="bn_s1")(x)
            return nn.relu(x)

    def pool(x):
        return nn.max_pool(x, (2, 2), (2, 2))

    def like(x, other):
        shape = (*other.shape[:3], x.shape[-1])
        return jax.image.resize(x, shape, "bilinear")

    def cat(*xs):
        return jnp.concatenate(xs, axis=-1)

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            start = Rebn(out, name="rebnconvin")(x)
            x1 = Rebn(mid, name="rebnconv1")(start)
            x2 = Rebn(mid, name="rebnconv2")(pool(x1))
            x3 = Rebn(mid, name="rebnconv3")(pool(x2))
            x4 = Rebn(mid, 2, name="rebnconv4")(x3)
            y3 = Rebn(mid, name="rebnconv3d")(cat(x4, x3))
            y2 = Rebn(mid, name="rebnconv2d")(cat(like(y3, x2), x2))
            y1 = Rebn(out, name="rebnconv1d")(cat(like(y2, x1), x1)) + start
            d1 = nn.Conv(1, (3, 3), name="side1")(y1)
            d2 = like(nn.Conv(1, (3, 3), name="side2")(y2), d1)
            d0 = nn.Conv(1, (1, 1), name="outconv")(cat(d1, d2))
            return nn.sigmoid(d0), nn.sigmoid(d1), nn.sigmoid(d2)

    sizes = {
        "rebnconvin": (3, out), "rebnconv1": (out, mid), "rebnconv2": (mid, mid),
        "rebnconv3": (mid, mid), "rebnconv4": (mid, mid),
        "rebnconv3d": (2 * mid, mid), "rebnconv2d": (2 * mid, mid),
        "rebnconv1d": (2 * mid, out),
    }  # fmt: skip
    truth = {}
    for name, (a, b) in sizes.items():
        # Debatable: norm and function end the only branch, and begin its stream.
        open_ = {"residual": ANY} if name in ("rebnconvin", "rebnconv1d") else {}
        truth |= {
            **window(f"{name}/conv_s1", 9 * a, 9 * b, **open_),
            **norm(f"{name}/bn_s1"),
        }
    for name, a in (("side1", out), ("side2", mid)):
        # Debatable: a sigmoid reads it, and the last window, too.
        truth |= {
            f"{name}/kernel": convolution(9 * a, 9, function=ANY, head=ANY),
            f"{name}/bias": bias(f"{name}/kernel", ()),
        }
    truth |= {
        "outconv/kernel": convolution(2, 1, function="sigmoid", head=True),
        "outconv/bias": bias("outconv/kernel", ()),
    }
    return of_linen(Net(), [floats(B, 8, 8, 3)], truth)


@model
def objects_as_points() -> Model:
    """Zhou et al. 2019 (CenterNet), plain: up by windows of four; three heads.

    Running statistics are leaves; a heat map's peaks are kept.
    """
    c, up, head, classes = 6, 5, 7, 4

    def bn_relu(x, p):
        return jax.nn.relu(plain_batch_norm(x, p))

    def basic(p, x):
        y = bn_relu(conv(x, p["conv1"]), p["bn1"])
        return jax.nn.relu(plain_batch_norm(conv(y, p["conv2"]), p["bn2"]) + x)

    def apply(p, image):
        x = bn_relu(conv(image, p["stem"]["conv"], 2), p["stem"]["bn"])
        x = basic(p["layer1"], x)
        for q in p["deconv"]:
            x = jax.lax.conv_transpose(x, q["w"], (2, 2), "SAME")
            x = bn_relu(x, q["bn"])
        outs = {}
        for name, q in p["heads"].items():
            h = jax.nn.relu(conv(x, q["w1"]) + q["b1"])
            outs[name] = conv(h, q["w2"]) + q["b2"]
        heat = jnp.clip(jax.nn.sigmoid(outs["hm"]), 1e-4, 1 - 1e-4)
        peak = jax.lax.reduce_window(
            heat, -jnp.inf, jax.lax.max, (1, 3, 3, 1), (1, 1, 1, 1), "SAME"
        )
        return jnp.where(peak == heat, heat, 0.0), outs["wh"], outs["reg"]

    def bn(size):
        return {name: floats(size) for name in ("gamma", "beta", "mean", "var")}

    outputs = {"hm": classes, "wh": 2, "reg": 2}
    layer = {f"conv{i}": floats(3, 3, c, c) for i in (1, 2)}
    layer |= {f"bn{i}": bn(c) for i in (1, 2)}
    params = {
        "stem": {"conv": floats(7, 7, 3, c), "bn": bn(c)},
        "layer1": layer,
        "deconv": [
            {"w": floats(4, 4, c, up), "bn": bn(up)},
            {"w": floats(4, 4, up, up), "bn": bn(up)},
        ],
        "heads": {
            name: {"w1": floats(3, 3, up, head), "b1": floats(head),
                   "w2": floats(1, 1, head, n), "b2": floats(n)}
            for name, n in outputs.items()
        },
    }  # fmt: skip
    truth = {
        "stem/conv": convolution(49 * 3, 49 * c),
        **norm_truth("stem/bn"),
        "layer1/conv1": convolution(9 * c, 9 * c),
        **norm_truth("layer1/bn1"),
        "layer1/conv2": convolution(9 * c, 9 * c, residual=(0, 1)),
        **norm_truth("layer1/bn2"),
        "deconv/0/w": convolution(4 * c, 16 * up, transposed=True),
        **norm_truth("deconv/0/bn"),
        "deconv/1/w": convolution(4 * up, 16 * up, transposed=True),
        **norm_truth("deconv/1/bn"),
    }
    for name, n in outputs.items():
        end = {"function": "sigmoid"} if name == "hm" else {}
        names1, names2 = ("w1", "b1"), ("w2", "b2")
        truth |= {
            **window(f"heads/{name}", 9 * up, 9 * head, names1, function="relu"),
            **window(f"heads/{name}", head, n, names2, head=True, **end),
        }
    return Model(apply, params, (floats(B, 8, 8, 3),), truth)


@model
def towers_on_all_levels() -> Model:
    """Tian et al. 2019 (FCOS), NNX: towers that three levels share, a scale of each."""
    from flax import nnx

    c, classes = 6, 5

    class Tower(nnx.Module):
        def __init__(self, rngs):
            def make():
                return nnx.Conv(c, c, (3, 3), rngs=rngs)

            self.convs = nnx.List([make(), make()])
            self.norms = nnx.List(
                [nnx.GroupNorm(c, num_groups=2, rngs=rngs) for _ in range(2)]
            )

        def __call__(self, x):
            for layer, normed in zip(self.convs, self.norms, strict=True):
                x = nnx.relu(normed(layer(x)))
            return x

    class Head(nnx.Module):
        def __init__(self, rngs):
            self.cls_tower, self.bbox_tower = Tower(rngs), Tower(rngs)
            self.cls_logits = nnx.Conv(c, classes, (3, 3), rngs=rngs)
            self.bbox_pred = nnx.Conv(c, 4, (3, 3), rngs=rngs)
            self.centerness = nnx.Conv(c, 1, (3, 3), rngs=rngs)
            self.scales = nnx.List([nnx.Param(jnp.ones(())) for _ in range(3)])

        def __call__(self, *levels):
            outs = []
            for factor, x in zip(self.scales, levels, strict=True):
                logits = self.cls_logits(self.cls_tower(x))
                box = self.bbox_tower(x)
                center = self.centerness(box)
                box = jnp.exp(factor[...] * self.bbox_pred(box))
                outs.append((logits, box, center))
            return outs

    tower = {
        **window("convs/0", 9 * c, 9 * c),
        **norm("norms/0"),
        **window("convs/1", 9 * c, 9 * c),
        **norm("norms/1"),
    }
    once = {
        **below("cls_tower/", tower),
        **below("bbox_tower/", tower),
        **window("cls_logits", 9 * c, 9 * classes, head=True),
        # Debatable: a leaf stands between it and an exponential.
        **window("bbox_pred", 9 * c, 36, head=True, function=ANY, multiplier=ANY),
        "bbox_pred/bias": bias("bbox_pred/kernel", multiplier=ANY),
        "centerness/kernel": convolution(9 * c, 9, head=True),
        "centerness/bias": bias("centerness/kernel", ()),
    }
    truth = {path: [use] * 3 for path, use in once.items()}
    # Debatable: a number that multiplies, behind no norm, and in no stream.
    truth |= {f"scales/{i}": either("scale", "gate", "unknown") for i in range(3)}
    levels = [floats(B, n, n + 1, c) for n in (8, 4, 2)]
    return of_nnx(Head, levels, truth)


@model
def images_of_latents() -> Model:
    """Rombach et al. 2022 (decoder), Linen: residual blocks, one attention, a step up.

    Channels are 32 in no layer, so that norms have two groups.
    """
    from flax import linen as nn

    wide, narrow, z = 8, 6, 4

    def norm_silu(x, name):
        return nn.silu(nn.GroupNorm(2, epsilon=1e-6, name=name)(x))

    class Res(nn.Module):
        features: int

        @nn.compact
        def __call__(self, x):
            h = nn.Conv(self.features, (3, 3), name="conv1")(norm_silu(x, "norm1"))
            h = nn.Conv(self.features, (3, 3), name="conv2")(norm_silu(h, "norm2"))
            if x.shape[-1] != self.features:
                x = nn.Conv(self.features, (1, 1), name="nin_shortcut")(x)
            return x + h

    class Attn(nn.Module):
        @nn.compact
        def __call__(self, x):
            b, h, w, c = x.shape
            y = nn.GroupNorm(2, epsilon=1e-6, name="norm")(x)
            q, k, v = (
                nn.Conv(c, (1, 1), name=n)(y).reshape(b, h * w, c) for n in "qkv"
            )
            s = jnp.einsum("bic,bjc->bij", q, k) * c**-0.5
            y = jnp.einsum("bij,bjc->bic", nn.softmax(s, axis=-1), v)
            return x + nn.Conv(c, (1, 1), name="proj_out")(y.reshape(b, h, w, c))

    class Decoder(nn.Module):
        @nn.compact
        def __call__(self, latent):
            x = nn.Conv(z, (1, 1), name="post_quant_conv")(latent / 0.18215)
            x = nn.Conv(wide, (3, 3), name="conv_in")(x)
            x = Res(wide, name="mid_block_1")(x)
            x = Attn(name="mid_attn_1")(x)
            x = Res(wide, name="mid_block_2")(x)
            x = Res(narrow, name="up_block_0")(x)
            b, h, w, c = x.shape
            x = jax.image.resize(x, (b, 2 * h, 2 * w, c), "nearest")
            x = nn.Conv(narrow, (3, 3), name="upsample")(x)
            x = Res(narrow, name="up_block_1")(x)
            x = nn.Conv(3, (3, 3), name="conv_out")(norm_silu(x, "norm_out"))
            return jnp.clip((x + 1) / 2, 0.0, 1.0)

    def res(path, a, b, residual):
        truth = {
            **norm(f"{path}/norm1"),
            **window(f"{path}/conv1", 9 * a, 9 * b),
            **norm(f"{path}/norm2"),
            **window(f"{path}/conv2", 9 * b, 9 * b, residual=residual),
        }
        if a != b:
            truth |= window(f"{path}/nin_shortcut", a, b, residual=ANY)
        return truth

    truth = {
        **window("post_quant_conv", z, z),
        **window("conv_in", 9 * z, 9 * wide),
        **res("mid_block_1", wide, wide, WRITES),
        **norm("mid_attn_1/norm"),
        **res("mid_block_2", wide, wide, WRITES),
        # Debatable: a shortcut with a kernel is a stream, or begins one.
        **res("up_block_0", wide, narrow, WRITES),
        # Debatable: it goes on with what the stream held, in more places.
        **window("upsample", 9 * narrow, 9 * narrow, residual=ANY),
        **res("up_block_1", narrow, narrow, WRITES),
        **norm("norm_out"),
        # Debatable: the half is that of each, and a clip ends the model.
        "conv_out/kernel": convolution(
            9 * narrow, 27, head=True, function=ANY, multiplier=ANY
        ),
        "conv_out/bias": bias("conv_out/kernel", multiplier=ANY),
    }
    for name, part in (("q", "query"), ("k", "key"), ("v", "value")):
        path = f"mid_attn_1/{name}"
        truth[f"{path}/kernel"] = convolution(wide, wide, part=part)
        truth[f"{path}/bias"] = bias(f"{path}/kernel", part=part)
    path, part = "mid_attn_1/proj_out", "attention output"
    truth[f"{path}/kernel"] = convolution(wide, wide, residual=WRITES, part=part)
    truth[f"{path}/bias"] = bias(f"{path}/kernel", part=part)
    return of_linen(Decoder(), [floats(B, 4, 3, z)], truth)


@model
def styles_by_statistics() -> Model:
    """Huang & Belongie 2017 (AdaIN), plain: features take another image's deviations.

    The encoder is not trained; mirrored borders; the loss is over statistics.
    """
    a, b = 5, 8

    def window_of(x, layer):
        w, offset = layer
        x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect")
        return conv(x, w, padding="VALID") + offset

    def encode(p, x):
        p = jax.lax.stop_gradient(p)
        x = jax.nn.relu(window_of(x, p[0]))
        n, h, w, c = x.shape
        x = x.reshape(n, h // 2, 2, w // 2, 2, c).max((2, 4))
        return jax.nn.relu(window_of(x, p[1]))

    def statistics(x):
        m = x.mean((1, 2), keepdims=True)
        return m, jnp.sqrt(x.var((1, 2), keepdims=True) + 1e-5)

    def apply(p, content, style):
        f, s = encode(p["encoder"], content), encode(p["encoder"], style)
        (fm, fd), (sm, sd) = statistics(f), statistics(s)
        t = (f - fm) / fd * sd + sm
        h = jax.nn.relu(window_of(t, p["decoder"][0]))
        h = jnp.repeat(jnp.repeat(h, 2, 1), 2, 2)
        image = window_of(h, p["decoder"][1])
        g = encode(p["encoder"], image)
        gm, gd = statistics(g)
        loss = jnp.square(g - t).mean()
        return image, loss + jnp.square(gm - sm).mean() + jnp.square(gd - sd).mean()

    def layer(m, n):
        return (floats(3, 3, m, n), floats(n))

    params = {
        "encoder": [layer(3, a), layer(a, b)],
        "decoder": [layer(b, a), layer(a, 3)],
    }
    once = {
        "encoder/0/0": convolution(27, 9 * a, function="relu"),
        "encoder/0/1": bias("encoder/0/0"),
    }
    # Of content and style a decoder reads; what is drawn is only compared.
    last = convolution(9 * a, 9 * b, function="relu")
    truth = {path: [use] * 3 for path, use in once.items()} | {
        "encoder/1/0": [
            last,
            last,
            convolution(9 * a, 9 * b, function="relu", head=True),
        ],
        "encoder/1/1": [bias("encoder/1/0")] * 3,
        "decoder/0/0": convolution(9 * b, 9 * a, function="relu"),
        "decoder/0/1": bias("decoder/0/0"),
        # An output, too, but the encoder reads it.
        "decoder/1/0": convolution(9 * a, 27, head=ANY),
        "decoder/1/1": bias("decoder/1/0"),
    }
    image = floats(B, 8, 6, 3)
    return Model(apply, params, (image, image), truth)
