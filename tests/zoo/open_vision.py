"""Vision of 2021 to 2023: own targets, fused bottlenecks, times that scale."""

import jax
import jax.numpy as jnp

from zoo.flax_layers import of_linen, window
from zoo.haiku_models import of_haiku
from zoo.truths import (
    ANY,
    Model,
    below,
    bias,
    bias_cut,
    convolution,
    cut,
    dense,
    either,
    embedding,
    floats,
    gate,
    integers,
    kernel,
    layer_norm,
    model,
    norm,
    position,
    scale,
    stacked,
    token,
)

B, D, F, HEADS, SIZE, O = 2, 12, 15, 3, 4, 5  # noqa: E741
INNER = HEADS * SIZE
ORDER = ("query", "key", "value")


def affine(a, b):
    return {"kernel": floats(a, b), "bias": floats(b)}


def linear(p, x):
    return x @ p["kernel"] + p["bias"]


@model
def patches_with_prototypes() -> Model:
    """Oquab et al. 2023 (DINOv2): registers, LayerScale, SwiGLU, hidden patches.

    The head's last kernel has columns of length one; a scan of blocks.
    """
    layers, places, registers, bottle, prototypes = 3, 6, 2, 7, 16

    def block(x, p):
        h = layer_norm(x, p["norm1"])
        qkv = linear(p["qkv"], h).reshape(B, -1, 3, HEADS, SIZE)
        q, k, v = qkv.transpose(2, 0, 3, 1, 4)
        a = jax.nn.softmax((q * SIZE**-0.5) @ k.swapaxes(-2, -1), axis=-1)
        y = (a @ v).swapaxes(1, 2).reshape(B, -1, INNER)
        x = x + p["ls1"] * linear(p["proj"], y)
        h = linear(p["w12"], layer_norm(x, p["norm2"]))
        a, b = jnp.split(h, 2, axis=-1)
        return x + p["ls2"] * linear(p["w3"], jax.nn.silu(a) * b), None

    def head(p, x):
        x = jax.nn.gelu(linear(p["mlp_0"], x))
        x = jax.nn.gelu(linear(p["mlp_1"], x))
        x = linear(p["mlp_2"], x)
        x = x / jnp.maximum(jnp.linalg.norm(x, axis=-1, keepdims=True), 1e-6)
        v = p["last_v"]
        return x @ (v / jnp.linalg.norm(v, axis=0, keepdims=True))

    def apply(p, image, hidden, center):
        x = image.reshape(B, 2, 4, 3, 4, 3).transpose(0, 1, 3, 2, 4, 5)
        x = linear(p["patch_embed"], x.reshape(B, places, 48))
        x = jnp.where(hidden[..., None], p["mask_token"], x)
        x = jnp.concatenate([jnp.tile(p["cls_token"], (B, 1, 1)), x], axis=1)
        x = x + p["pos_embed"]
        registers_ = jnp.broadcast_to(p["register_tokens"], (B, registers, D))
        x = jnp.concatenate([x[:, :1], registers_, x[:, 1:]], axis=1)
        x, _ = jax.lax.scan(jax.checkpoint(block), x, p["blocks"])
        x = layer_norm(x, p["norm"])
        own = head(p["dino_head"], x[:, 0]) / 0.1
        patches = head(p["ibot_head"], x[:, 1 + registers :]) / 0.1
        teacher = jax.nn.softmax((jax.lax.stop_gradient(own) - center) / 0.4)
        loss = -(teacher[::-1] * jax.nn.log_softmax(own)).sum(-1)
        return loss.mean(), jax.nn.log_softmax(patches)

    ln = {"scale": floats(D), "bias": floats(D)}
    one = {
        "norm1": ln, "qkv": affine(D, 3 * INNER), "proj": affine(INNER, D),
        "ls1": floats(D), "norm2": ln, "w12": affine(D, 2 * F), "w3": affine(F, D),
        "ls2": floats(D),
    }  # fmt: skip
    top = {
        "mlp_0": affine(D, F), "mlp_1": affine(F, F), "mlp_2": affine(F, bottle),
        "last_v": floats(bottle, prototypes),
    }  # fmt: skip
    params = {
        "patch_embed": affine(48, D), "mask_token": floats(D),
        "cls_token": floats(1, 1, D), "register_tokens": floats(registers, D),
        "pos_embed": floats(1, 1 + places, D),
        "blocks": jax.tree.map(lambda leaf: floats(layers, *leaf.shape), one),
        "norm": ln, "dino_head": top, "ibot_head": top,
    }  # fmt: skip
    glu = ("gate", "up")
    free = {"multiplier": ANY}
    block_truth = {
        **norm("norm1"), **norm("norm2"), "ls1": gate(0), "ls2": gate(0),
        # Only the queries are scaled, which a single multiplier cannot say.
        "qkv/kernel": kernel(D, 3 * INNER, sections=cut(1, INNER, ORDER), **free),
        "qkv/bias": bias("qkv/kernel", sections=bias_cut(INNER, ORDER), **free),
        **dense("proj", INNER, D, part="attention output", residual=(0, 2 * layers)),
        "w12/kernel": kernel(
            D, 2 * F, function=ANY,
            sections=cut(1, F, glu, gate="silu", up="identity"),
        ),
        "w12/bias": bias(
            "w12/kernel", sections=[(0, ((i * F, i * F + F),), glu[i], None)
                                    for i in (0, 1)]
        ),
        **dense("w3", F, D, residual=(1, 2 * layers)),
    }  # fmt: skip
    truth = {
        **dense("patch_embed", 48, D),
        # Debatable: it takes the place of patches.
        "mask_token": token(D, ANY, 0),
        "cls_token": token(D, ANY, 2),
        "register_tokens": token(D, 0, 1),
        "pos_embed": position(1, 2),
        **below("blocks/", stacked(block_truth)),
        **norm("norm"),
    }
    for name in ("dino_head", "ibot_head"):
        truth |= {
            **dense(f"{name}/mlp_0", D, F, function="gelu"),
            **dense(f"{name}/mlp_1", F, F, function="gelu"),
            **dense(f"{name}/mlp_2", F, bottle),
            # Divided by its own length: either what it is, or what hides it.
            f"{name}/last_v": either("kernel", "unknown"),
        }
    inputs = (
        jax.ShapeDtypeStruct((B, 8, 12, 3), jnp.float32),
        jax.ShapeDtypeStruct((B, places), bool),
        floats(prototypes),
    )
    return Model(apply, params, inputs, truth)


@model
def fused_bottlenecks() -> Model:
    """Tan and Le 2021 (EfficientNetV2), Linen in training: fused blocks come first.

    Stochastic depth drops branches; squeezes are windows of one place.
    """
    from flax import linen as nn

    def normed(name):
        return nn.BatchNorm(use_running_average=False, momentum=0.9, name=name)

    def conv(n, k, name, stride=1, **rest):
        return nn.Conv(n, (k, k), (stride, stride), use_bias=False, name=name, **rest)

    def dropped(x, y, rng):
        kept = jax.random.bernoulli(rng, 0.8, (x.shape[0], 1, 1, 1))
        return x + y * kept / 0.8

    class Fused(nn.Module):
        features: int
        stride: int

        @nn.compact
        def __call__(self, x):
            y = conv(4 * x.shape[-1], 3, "expand", self.stride)(x)
            y = nn.swish(normed("bn_0")(y))
            y = normed("bn_1")(conv(self.features, 1, "project")(y))
            if self.stride == 1 and x.shape[-1] == self.features:
                y = dropped(x, y, self.make_rng("dropout"))
            return y

    class Inverted(nn.Module):
        features: int
        stride: int

        @nn.compact
        def __call__(self, x):
            wide = 4 * x.shape[-1]
            y = nn.swish(normed("bn_0")(conv(wide, 1, "expand")(x)))
            y = conv(wide, 3, "depthwise", self.stride, feature_group_count=wide)(y)
            y = nn.swish(normed("bn_1")(y))
            s = y.mean(axis=(1, 2), keepdims=True)
            s = nn.swish(nn.Conv(x.shape[-1] // 4, (1, 1), name="se_reduce")(s))
            s = nn.sigmoid(nn.Conv(wide, (1, 1), name="se_expand")(s))
            y = normed("bn_2")(conv(self.features, 1, "project")(s * y))
            if self.stride == 1 and x.shape[-1] == self.features:
                y = dropped(x, y, self.make_rng("dropout"))
            return y

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.swish(normed("stem_bn")(conv(6, 3, "stem", 2)(x)))
            x = Fused(6, 1, name="fused_0")(x)
            x = Fused(8, 2, name="fused_1")(x)
            x = Fused(8, 1, name="fused_2")(x)
            x = Inverted(12, 2, name="mb_0")(x)
            x = Inverted(12, 1, name="mb_1")(x)
            x = nn.swish(normed("top_bn")(conv(20, 1, "top")(x))).mean(axis=(1, 2))
            x = nn.Dropout(0.2, deterministic=False)(x)
            return nn.Dense(O, name="classifier")(x)

    def bn(path):
        return norm(path)

    # Debatable: the factor of stochastic depth, before the sum, is behind a norm.
    def end(residual):
        return {} if residual is None else {"multiplier": ANY}

    def behind(path, residual):
        if residual is None:
            return norm(path)
        return {
            f"{path}/scale": scale(multiplier=ANY),
            f"{path}/bias": bias(None, multiplier=ANY),
        }

    def fused(path, a, b, residual):
        return below(f"{path}/", {
            "expand/kernel": convolution(9 * a, 9 * 4 * a), **bn("bn_0"),
            "project/kernel": convolution(4 * a, b, residual=residual),
            **behind("bn_1", residual),
        })  # fmt: skip

    def inverted(path, a, b, residual):
        wide = 4 * a
        return below(f"{path}/", {
            "expand/kernel": convolution(a, wide), **bn("bn_0"),
            "depthwise/kernel": convolution(9, 9, groups=wide), **bn("bn_1"),
            **window("se_reduce", wide, a // 4, function="silu"),
            "se_expand/kernel": convolution(
                a // 4, wide, function="sigmoid", part="gate"
            ),
            "se_expand/bias": bias("se_expand/kernel", part="gate"),
            "project/kernel": convolution(wide, b, residual=residual),
            **behind("bn_2", residual),
        })  # fmt: skip

    truth = {
        "stem/kernel": convolution(27, 9 * 6), **bn("stem_bn"),
        **fused("fused_0", 6, 6, (0, 1)),
        **fused("fused_1", 6, 8, None),
        **fused("fused_2", 8, 8, (0, 1)),
        **inverted("mb_0", 8, 12, None),
        **inverted("mb_1", 12, 12, (0, 1)),
        "top/kernel": convolution(12, 20), **bn("top_bn"),
        **dense("classifier", 20, O, head=True),
    }  # fmt: skip
    return of_linen(Net(), [floats(B, 16, 16, 3)], truth, keys=("dropout",))


@model
def times_that_scale() -> Model:
    """Dhariwal and Nichol 2021 (ADM), Haiku: a step's vector scales and shifts norms.

    Attention over places by windows of one; skips are concatenated.
    """
    import haiku as hk

    c, wide, steps = 8, 16, 10

    def group_norm(x, name):
        return hk.GroupNorm(4, name=name)(x)

    def conv(x, n, k, name, stride=1):
        return hk.Conv2D(n, k, stride, name=name)(x)

    def res(x, e, n, name):
        h = conv(jax.nn.silu(group_norm(x, f"{name}_norm_in")), n, 3, f"{name}_in")
        e = hk.Linear(2 * n, name=f"{name}_emb")(jax.nn.silu(e))[:, None, None]
        factor, shift = jnp.split(e, 2, axis=-1)
        h = group_norm(h, f"{name}_norm_out") * (1 + factor) + shift
        h = conv(jax.nn.silu(h), n, 3, f"{name}_out")
        if x.shape[-1] != n:
            x = conv(x, n, 1, f"{name}_skip")
        return x + h

    def attend(x, name):
        b, rows, columns, n = x.shape
        h = group_norm(x, f"{name}_norm").reshape(b, rows * columns, n)
        qkv = hk.Conv1D(3 * n, 1, name=f"{name}_qkv")(h)
        q, k, v = jnp.split(qkv.reshape(b, -1, 2, 3 * n // 2), 3, axis=-1)
        near = (n // 2) ** -0.25
        a = jax.nn.softmax(jnp.einsum("bthc,bshc->bhts", q * near, k * near), axis=-1)
        h = jnp.einsum("bhts,bshc->bthc", a, v).reshape(b, -1, n)
        h = hk.Conv1D(n, 1, name=f"{name}_proj")(h)
        return x + h.reshape(x.shape)

    def fun(x, t, label):
        angles = t[:, None] * jnp.exp(-jnp.arange(steps // 2) / 3.0)
        e = jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1)
        e = hk.Linear(wide, name="time_0")(e)
        e = hk.Linear(wide, name="time_1")(jax.nn.silu(e))
        e = e + hk.Embed(O, wide, name="label")(label)
        h = conv(x, c, 3, "input")
        kept = [h]
        h = res(h, e, c, "down_0")
        kept.append(h)
        h = conv(h, c, 3, "shrink", 2)
        h = attend(res(h, e, wide, "middle_0"), "attention")
        h = res(h, e, wide, "middle_1")
        h = jnp.repeat(jnp.repeat(h, 2, axis=1), 2, axis=2)
        h = conv(h, wide, 3, "enlarge")
        h = res(jnp.concatenate([h, kept.pop()], axis=-1), e, c, "up_0")
        h = res(jnp.concatenate([h, kept.pop()], axis=-1), e, c, "up_1")
        return conv(jax.nn.silu(group_norm(h, "out_norm")), 3, 3, "out")

    names = {"weight": "w", "offset": "b"}

    def image(path, a, b, **rest):
        return window(path, a, b, ("w", "b"), **rest)

    def gn(path):
        return norm(path, offset="offset")

    def res_truth(name, a, n, writes):
        truth = {
            **gn(f"{name}_norm_in"), **image(f"{name}_in", 9 * a, 9 * n),
            **dense(f"{name}_emb", wide, 2 * n, function=ANY, sections=ANY, **names),
            **gn(f"{name}_norm_out"),
            **image(f"{name}_out", 9 * n, 9 * n, residual=writes),
        }  # fmt: skip
        return truth | (image(f"{name}_skip", a, n) if a != n else {})

    place = {"spatial_axis": 0, "in_axis": 1, "out_axis": 2}
    # One head after the other, each with its queries, keys and values.
    half = wide // 2
    cuts = [
        (
            tuple(
                (3 * half * h + half * i, 3 * half * h + half * (i + 1)) for h in (0, 1)
            )
        )
        for i in range(3)
    ]
    truth = {
        **dense("time_0", steps, wide, function="silu", **names),
        # Debatable: the label's row is added before the function.
        **dense("time_1", wide, wide, function="silu", **names),
        "label/embeddings": embedding(wide),
        **image("input", 27, 9 * c),
        **res_truth("down_0", c, c, (0, 3)),
        **image("shrink", 9 * c, 9 * c),
        **res_truth("middle_0", c, wide, (0, 3)),
        **gn("attention_norm"),
        "attention_qkv/w": convolution(
            wide, 3 * wide, **place, multiplier=ANY,
            sections=[(2, b, n, "identity") for b, n in zip(cuts, ORDER, strict=True)],
        ),
        "attention_qkv/b": bias(
            "attention_qkv/w", multiplier=ANY,
            sections=[(0, b, n, None) for b, n in zip(cuts, ORDER, strict=True)],
        ),
        "attention_proj/w": convolution(
            wide, wide, **place, residual=(1, 3), part="attention output"
        ),
        "attention_proj/b": bias("attention_proj/w", part="attention output"),
        **res_truth("middle_1", wide, wide, (2, 3)),
        **image("enlarge", 9 * wide, 9 * wide),
        # Their shortcuts are kernels.
        **res_truth("up_0", wide + c, c, (1, 3)),
        **res_truth("up_1", 2 * c, c, (2, 3)),
        **gn("out_norm"),
        **image("out", 9 * c, 27, head=True),
    }  # fmt: skip
    return of_haiku(fun, [floats(B, 6, 6, 3), floats(B), integers(B)], truth)
