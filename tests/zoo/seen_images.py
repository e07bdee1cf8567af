"""Networks that see images: classes, segments, masks by tokens."""

import jax
import jax.numpy as jnp

from zoo.flax_layers import attention, of_linen, window
from zoo.haiku_models import of_haiku
from zoo.layers import affine, linear, scales
from zoo.nnx_models import of_nnx
from zoo.truths import (
    ANY,
    WRITES,
    Model,
    bias,
    bias_cut,
    convolution,
    cut,
    dense,
    every,
    floats,
    kernel,
    layer_norm,
    model,
    norm,
    one_of,
    position,
    scale,
    shift,
    token,
)

B, D, F, HEADS, O = 2, 12, 15, 3, 4  # noqa: E741


@model
def distilled_patches() -> Model:
    """Touvron et al. 2021 (DeiT), Linen: a second token learns from a teacher."""
    from flax import linen as nn

    class Block(nn.Module):
        @nn.compact
        def __call__(self, x):
            h = nn.LayerNorm(name="norm1")(x)
            x = x + nn.MultiHeadDotProductAttention(HEADS, name="attn")(h)
            h = nn.Dense(F, name="fc1")(nn.LayerNorm(name="norm2")(x))
            return x + nn.Dense(D, name="fc2")(nn.gelu(h, approximate=False))

    class Net(nn.Module):
        @nn.compact
        def __call__(self, image):
            x = nn.Conv(D, (4, 4), (4, 4), padding="VALID", name="patch_embed")(image)
            x = x.reshape(x.shape[0], -1, D)
            zeros = nn.initializers.zeros
            heads = [
                jnp.broadcast_to(self.param(name, zeros, (1, 1, D)), (B, 1, D))
                for name in ("cls_token", "dist_token")
            ]
            x = jnp.concatenate([*heads, x], axis=1)
            x = x + self.param("pos_embed", zeros, (1, x.shape[1], D))
            for i in range(2):
                x = nn.remat(Block)(name=f"block_{i}")(x)
            x = nn.LayerNorm(name="norm")(x)
            a = nn.Dense(O, name="head")(x[:, 0])
            b = nn.Dense(O, name="head_dist")(x[:, 1])
            return (a + b) / 2

    block = {
        **norm("norm1"),
        **attention("attn", D, HEADS, 4, residual=(0, 4), scaled=True),
        **norm("norm2"),
        **dense("fc1", D, F, function="gelu"),
        **dense("fc2", F, D, residual=(1, 4)),
    }
    # Debatable: the half is that of each, or of their sum.
    half = {"head": True, "multiplier": one_of(0.5, 1.0)}
    truth = {
        **window("patch_embed", 48, D * 16),
        "cls_token": token(D, ANY, 2),
        "dist_token": token(D, ANY, 2),
        "pos_embed": position(1, 2),
        **every("block_{}/", 2, block),
        **norm("norm"),
        "head/kernel": kernel(D, O, **half),
        "head/bias": bias("head/kernel", multiplier=ANY),
        "head_dist/kernel": kernel(D, O, **half),
        "head_dist/bias": bias("head_dist/kernel", multiplier=ANY),
    }
    return of_linen(Net(), [floats(B, 8, 8, 3)], truth)


@model
def pyramid_of_holes() -> Model:
    """Chen et al. 2017 (DeepLab v3), Haiku: dilated windows beside a mean."""
    import haiku as hk

    c, n = 6, 5

    def normed(x, name):
        return jax.nn.relu(hk.BatchNorm(True, True, 0.9, name=name)(x, True))

    def fun(x):
        x = normed(hk.Conv2D(c, 3, stride=2, with_bias=False, name="stem")(x), "bn")
        y = hk.Conv2D(c, 3, rate=2, with_bias=False, name="body")(x)
        x = jax.nn.relu(x + hk.BatchNorm(True, True, 0.9, name="body_bn")(y, True))
        found = [normed(hk.Conv2D(n, 1, with_bias=False, name="point")(x), "point_bn")]
        for rate in (1, 2):
            y = hk.Conv2D(n, 3, rate=rate, with_bias=False, name=f"rate_{rate}")(x)
            found.append(normed(y, f"rate_{rate}_bn"))
        y = hk.Conv2D(n, 1, with_bias=False, name="pool")(x.mean((1, 2), keepdims=True))
        y = normed(y, "pool_bn")
        found.append(jax.image.resize(y, (B, *x.shape[1:3], n), "bilinear"))
        y = hk.Conv2D(c, 1, with_bias=False, name="project")(jnp.concatenate(found, -1))
        y = hk.Conv2D(O, 1, name="classifier")(normed(y, "project_bn"))
        return jax.image.resize(y, (B, 12, 12, O), "bilinear")

    truth = {
        "stem/w": convolution(27, 9 * c),
        # A norm, then a sum, then a relu.
        "body/w": convolution(9 * c, 9 * c, residual=(0, 1)),
        "point/w": convolution(c, n),
        "rate_1/w": convolution(9 * c, 9 * n),
        "rate_2/w": convolution(9 * c, 9 * n),
        "pool/w": convolution(c, n),
        "project/w": convolution(4 * n, c),
        # Debatable: what grows an image is a product with constants.
        "classifier/w": convolution(c, O, head=ANY),
        "classifier/b": bias("classifier/w"),
    }
    for name in ("", "body_", "point_", "rate_1_", "rate_2_", "pool_", "project_"):
        truth |= {f"{name}bn/scale": scale(3), f"{name}bn/offset": shift(3)}
    return of_haiku(fun, [floats(B, 12, 12, 3)], truth)


@model
def reduced_keys() -> Model:
    """Xie et al. 2021 (SegFormer), Linen: keys of fewer places, windows in the MLP."""
    from flax import linen as nn

    def places(x, side):
        return x.reshape(x.shape[0], side, side, x.shape[-1])

    class Attention(nn.Module):
        side: int

        @nn.compact
        def __call__(self, x):
            q = nn.Dense(D, name="q")(x).reshape(B, -1, HEADS, 4)
            y = nn.Conv(D, (2, 2), (2, 2), name="sr")(places(x, self.side))
            y = nn.LayerNorm(name="sr_norm")(y.reshape(B, -1, D))
            kv = nn.Dense(2 * D, name="kv")(y).reshape(B, -1, 2, HEADS, 4)
            k, v = jnp.moveaxis(kv, 2, 0)
            a = nn.softmax(jnp.einsum("bqhd,bkhd->bhqk", q, k) * 4**-0.5)
            y = jnp.einsum("bhqk,bkhd->bqhd", a, v).reshape(x.shape)
            return nn.Dense(D, name="proj")(y)

    class MixFFN(nn.Module):
        side: int

        @nn.compact
        def __call__(self, x):
            h = places(nn.Dense(F, name="fc1")(x), self.side)
            h = nn.Conv(F, (3, 3), feature_group_count=F, name="dwconv")(h)
            h = nn.gelu(h, approximate=False).reshape(B, -1, F)
            return nn.Dense(D, name="fc2")(h)

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.Conv(D, (7, 7), (4, 4), name="patch")(x)
            side = x.shape[1]
            x = nn.LayerNorm(name="patch_norm")(x.reshape(B, -1, D))
            x = x + Attention(side, name="attn")(nn.LayerNorm(name="norm1")(x))
            x = x + MixFFN(side, name="mlp")(nn.LayerNorm(name="norm2")(x))
            low = places(nn.LayerNorm(name="norm")(x), side)
            low = nn.Conv(D, (3, 3), (2, 2), name="patch2")(low)
            high = nn.Dense(F, name="linear_c1")(places(x, side))
            low = nn.Dense(F, name="linear_c2")(low)
            low = jnp.repeat(jnp.repeat(low, 2, axis=1), 2, axis=2)
            y = jnp.concatenate([low, high], axis=-1)
            y = nn.Conv(F, (1, 1), use_bias=False, name="fuse")(y)
            y = nn.relu(nn.BatchNorm(use_running_average=False, name="bn")(y))
            return nn.Conv(O, (1, 1), name="pred")(y)

    halves = ("key", "value")
    truth = {
        **window("patch", 3 * 49, D * 49),
        **norm("patch_norm"),
        **norm("norm1"),
        **dense("attn/q", D, D, part="query"),
        **window("attn/sr", 4 * D, 4 * D),
        **norm("attn/sr_norm"),
        "attn/kv/kernel": kernel(D, 2 * D, sections=cut(1, D, halves)),
        "attn/kv/bias": bias("attn/kv/kernel", sections=bias_cut(D, halves)),
        **dense("attn/proj", D, D, part="attention output", residual=(0, 2)),
        **norm("norm2"),
        **dense("mlp/fc1", D, F),
        **window("mlp/dwconv", 9, 9, groups=F, function="gelu"),
        **dense("mlp/fc2", F, D, residual=(1, 2)),
        **norm("norm"),
        **window("patch2", 9 * D, 9 * D),
        **dense("linear_c1", D, F),
        **dense("linear_c2", D, F),
        "fuse/kernel": convolution(2 * F, F),
        **norm("bn"),
        **window("pred", F, O, head=True),
    }
    return of_linen(Net(), [floats(B, 16, 16, 3)], truth)


@model
def unfolded_places() -> Model:
    """Mehta and Rastegari 2022 (MobileViT), NNX: like places of patches attend."""
    from flax import nnx

    c, patch = 6, 2

    def unfold(x):
        b, h, w, d = x.shape
        x = x.reshape(b, h // patch, patch, w // patch, patch, d)
        return x.transpose(0, 2, 4, 1, 3, 5).reshape(b * patch**2, -1, d)

    def fold(x, side):
        x = x.reshape(-1, patch, patch, side // patch, side // patch, x.shape[-1])
        return x.transpose(0, 3, 1, 4, 2, 5).reshape(-1, side, side, x.shape[-1])

    class Net(nnx.Module):
        def __init__(self, rngs):
            def conv(a, b, size, **rest):
                return nnx.Conv(a, b, (size, size), use_bias=False, rngs=rngs, **rest)

            self.stem = nnx.Conv(3, c, (3, 3), strides=2, rngs=rngs)
            self.expand, self.reduce = conv(c, 2 * c, 1), conv(2 * c, c, 1)
            self.depth = conv(2 * c, 2 * c, 3, feature_group_count=2 * c)
            self.local, self.wide = conv(c, c, 3), conv(c, D, 1)
            self.ln1, self.ln2 = (nnx.LayerNorm(D, rngs=rngs) for _ in range(2))
            self.attn = nnx.MultiHeadAttention(
                HEADS, D, decode=False, use_bias=False, rngs=rngs
            )
            self.up = nnx.Linear(D, F, rngs=rngs)
            self.down = nnx.Linear(F, D, rngs=rngs)
            self.narrow, self.fuse = conv(D, c, 1), conv(2 * c, c, 3)
            self.fc = nnx.Linear(c, O, rngs=rngs)

        def __call__(self, x):
            x = nnx.silu(self.stem(x))
            x = x + self.reduce(nnx.silu(self.depth(nnx.silu(self.expand(x)))))
            y = unfold(self.wide(self.local(x)))
            y = y + self.attn(self.ln1(y))
            y = y + self.down(nnx.silu(self.up(self.ln2(y))))
            y = nnx.silu(self.narrow(fold(y, x.shape[1])))
            y = nnx.silu(self.fuse(jnp.concatenate([x, y], axis=-1)))
            return self.fc(y.mean((1, 2)))

    def bare(path, a, b, **rest):
        return {f"{path}/kernel": convolution(a, b, **rest)}

    whole = attention("attn", D, HEADS, 4, residual=(0, 2), scaled=False)
    truth = {
        **window("stem", 27, 9 * c, function="silu"),
        **bare("expand", c, 2 * c, function="silu"),
        **bare("depth", 9, 9, groups=2 * c, function="silu"),
        **bare("reduce", 2 * c, c, residual=(0, 1)),
        **bare("local", 9 * c, 9 * c),
        **bare("wide", c, D),
        **norm("ln1"),
        **{path: use for path, use in whole.items() if not path.endswith("bias")},
        **norm("ln2"),
        **dense("up", D, F, function="silu"),
        **dense("down", F, D, residual=(1, 2)),
        **bare("narrow", D, c, function="silu"),
        **bare("fuse", 18 * c, 9 * c, function="silu"),
        **dense("fc", c, O, head=True),
    }
    return of_nnx(Net, [floats(B, 16, 16, 3)], truth)


@model
def masks_by_tokens() -> Model:
    """Kirillov et al. 2023 (SAM's decoder): tokens attend, and make kernels."""
    masks, side, low = 2, 4, 5

    def attend(p, q, k, v):
        q, k, v = (
            linear(p[n], x).reshape(B, -1, HEADS, 4).transpose(0, 2, 1, 3)
            for n, x in zip("qkv", (q, k, v), strict=True)
        )
        a = jax.nn.softmax(q @ k.transpose(0, 1, 3, 2) / jnp.sqrt(4.0), axis=-1)
        return linear(p["o"], (a @ v).transpose(0, 2, 1, 3).reshape(B, -1, D))

    def grow(x, w):
        numbers = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_transpose(x, w, (2, 2), "VALID", dimension_numbers=numbers)

    def apply(p, image, points):
        t = jnp.concatenate([p["iou_token"], p["mask_tokens"]], axis=0)
        t = jnp.broadcast_to(t[None], (B, *t.shape))
        asked = t = jnp.concatenate([t, linear(p["prompt"], points)], axis=1)
        x = image.reshape(B, side * side, D) + p["no_mask"]
        t = layer_norm(t + attend(p["self"], t, t, t), p["n1"])
        t = layer_norm(t + attend(p["to_image"], t + asked, x, x), p["n2"])
        t = layer_norm(t + linear(p["w2"], jax.nn.relu(linear(p["w1"], t))), p["n3"])
        x = layer_norm(x + attend(p["to_token"], x, t + asked, t), p["n4"])
        x = grow(x.reshape(B, side, side, D), p["up"]["w"]) + p["up"]["b"]
        x = jax.nn.gelu(x).reshape(B, -1, low)
        h = t[:, 1 : 1 + masks]
        kernels = [
            linear(q[1], jax.nn.relu(linear(q[0], h[:, i])))
            for i, q in enumerate(p["hyper"])
        ]
        found = jnp.stack(kernels, axis=1) @ x.transpose(0, 2, 1)
        return found.reshape(B, masks, 2 * side, 2 * side), linear(p["iou"], t[:, 0])

    att = {name: affine(D, D) for name in "qkvo"}
    params = {
        "iou_token": floats(1, D), "mask_tokens": floats(masks, D),
        "prompt": affine(2, D), "no_mask": floats(D), "self": att, "to_image": att,
        "to_token": att, **{f"n{i}": scales(D) for i in (1, 2, 3, 4)},
        "w1": affine(D, F), "w2": affine(F, D),
        "up": {"w": floats(2, 2, D, low), "b": floats(low)},
        "hyper": [[affine(D, F), affine(F, low)]] * masks, "iou": affine(D, masks),
    }  # fmt: skip
    truth = {
        # Debatable: tokens are added again to what asks, and begin the stream.
        "iou_token": token(D, ANY, 1),
        "mask_tokens": token(D, 0, 1),
        **dense("prompt", 2, D),
        # It is added to an input.
        "no_mask": bias(None),
        **{path: use for i in (1, 2, 3, 4) for path, use in norm(f"n{i}").items()},
        **dense("w1", D, F, function="relu"),
        # Debatable: streams that feed each other.
        **dense("w2", F, D, residual=WRITES),
        "up/w": convolution(D, 4 * low, function="gelu", transposed=True),
        "up/b": bias("up/w"),
        **dense("iou", D, masks, head=True),
    }
    for name in ("self", "to_image", "to_token"):
        out = {"part": "attention output", "residual": WRITES}
        truth |= {
            **dense(f"{name}/q", D, D, part="query"),
            **dense(f"{name}/k", D, D, part="key"),
            **dense(f"{name}/v", D, D, part="value"),
            **dense(f"{name}/o", D, D, **out),
        }
    for i in range(masks):
        truth |= {
            **dense(f"hyper/{i}/0", D, F, function="relu"),
            # Contracted with the image.
            **dense(f"hyper/{i}/1", F, low),
        }
    return Model(apply, params, (floats(B, side, side, D), floats(B, 3, 2)), truth)
