"""Images: squeezed, separable, made and bent windows; parts that are foretold."""

import jax
import jax.numpy as jnp

from zoo.flax_layers import of_linen, window
from zoo.layers import conv
from zoo.nnx_models import of_nnx
from zoo.truths import (
    ANY,
    WRITES,
    Model,
    Use,
    below,
    bias,
    convolution,
    cut,
    dense,
    either,
    floats,
    integers,
    kernel,
    model,
    norm,
    one_of,
    position,
)

B, D, F, HEADS, SIZE, O = 2, 12, 15, 3, 4, 5  # noqa: E741


@model
def squeezed_fires() -> Model:
    """Iandola et al. 2016 (SqueezeNet), Linen: 1x1 windows feed two that are joined.

    A bypass around the second; the scores are means of a last map behind a relu.
    """
    from flax import linen as nn

    class Fire(nn.Module):
        squeeze: int
        expand: int

        @nn.compact
        def __call__(self, x):
            x = nn.relu(nn.Conv(self.squeeze, (1, 1), name="squeeze1x1")(x))
            a = nn.Conv(self.expand, (1, 1), name="expand1x1")(x)
            b = nn.Conv(self.expand, (3, 3), padding=1, name="expand3x3")(x)
            return nn.relu(jnp.concatenate([a, b], axis=-1))

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.relu(nn.Conv(6, (3, 3), (2, 2), padding="VALID", name="conv1")(x))
            x = nn.max_pool(x, (3, 3), (2, 2))
            x = Fire(4, 5, name="fire2")(x)
            x = x + Fire(3, 5, name="fire3")(x)
            x = nn.max_pool(x, (3, 3), (2, 2), padding="SAME")
            x = Fire(4, 7, name="fire4")(x)
            x = nn.Dropout(0.5, deterministic=True)(x)
            return nn.relu(nn.Conv(O, (1, 1), name="conv10")(x)).mean((1, 2))

    def fire(path, inputs, squeeze, expand, **rest):
        own = {"function": "relu", **rest}
        return {
            **window(f"{path}/squeeze1x1", inputs, squeeze, function="relu"),
            **window(f"{path}/expand1x1", squeeze, expand, **own),
            **window(f"{path}/expand3x3", 9 * squeeze, 9 * expand, **own),
        }

    truth = {
        **window("conv1", 27, 54, function="relu"),
        **fire("fire2", 6, 4, 5),
        # Debatable: a function ends its branch, which is joined of two.
        **fire("fire3", 10, 3, 5, residual=ANY),
        **fire("fire4", 10, 4, 7),
        **window("conv10", 14, O, function="relu", head=True),
    }
    return of_linen(Net(), [floats(B, 16, 16, 3)], truth)


@model
def separable_windows() -> Model:
    """Chollet 2017 (Xception), NNX: channels alone, then points; norms before relus."""
    from flax import nnx

    class Separable(nnx.Module):
        def __init__(self, a, b, rngs):
            own = {"use_bias": False, "rngs": rngs}
            self.depth = nnx.Conv(a, a, (3, 3), feature_group_count=a, **own)
            self.point = nnx.Conv(a, b, (1, 1), **own)
            self.bn = nnx.BatchNorm(b, rngs=rngs)

        def __call__(self, x):
            return self.bn(self.point(self.depth(x)), use_running_average=False)

    class Net(nnx.Module):
        def __init__(self, rngs):
            own = {"use_bias": False, "rngs": rngs}
            self.conv1 = nnx.Conv(3, 6, (3, 3), 2, **own)
            self.bn1 = nnx.BatchNorm(6, rngs=rngs)
            self.entry = nnx.List([Separable(6, 8, rngs), Separable(8, 8, rngs)])
            self.skip = nnx.Conv(6, 8, (1, 1), 2, **own)
            self.skip_bn = nnx.BatchNorm(8, rngs=rngs)
            self.middle = nnx.List([Separable(8, 8, rngs) for _ in range(3)])
            self.last = Separable(8, 10, rngs)
            self.fc = nnx.Linear(10, O, rngs=rngs)

        def __call__(self, x):
            x = nnx.relu(self.bn1(self.conv1(x), use_running_average=False))
            h = self.entry[1](nnx.relu(self.entry[0](x)))
            h = nnx.max_pool(h, (3, 3), (2, 2), "SAME")
            x = h + self.skip_bn(self.skip(x), use_running_average=False)
            h = x
            for layer in self.middle:
                h = layer(nnx.relu(h))
            x = nnx.relu(self.last(x + h))
            return self.fc(jnp.mean(x, axis=(1, 2)))

    def separable(path, a, b, **rest):
        return {
            f"{path}/depth/kernel": convolution(9, 9, groups=a),
            f"{path}/point/kernel": convolution(a, b, **rest),
            **norm(f"{path}/bn"),
        }

    truth = {
        "conv1/kernel": convolution(27, 54),
        **norm("bn1"),
        **separable("entry/0", 6, 8),
        # Debatable: a shortcut with a kernel is a stream, or begins one.
        **separable("entry/1", 8, 8, residual=ANY),
        "skip/kernel": convolution(6, 8, residual=ANY),
        **norm("skip_bn"),
        **separable("middle/0", 8, 8),
        **separable("middle/1", 8, 8),
        **separable("middle/2", 8, 8, residual=WRITES),
        **separable("last", 8, 10),
        **dense("fc", 10, O, head=True),
    }
    return of_nnx(Net, [floats(B, 16, 16, 3)], truth)


@model
def windows_of_places() -> Model:
    """Li et al. 2021 (involution), plain: each place makes the window it is seen by."""
    groups, k, r, layers = 2, 3, 3, 2

    def normed(x, p):
        m, v = x.mean((0, 1, 2)), x.var((0, 1, 2))
        return p["gamma"] * (x - m) * jax.lax.rsqrt(v + 1e-5) + p["beta"]

    def involve(p, x):
        n, h, w, c = x.shape
        y = jax.nn.relu(normed(conv(x, p["reduce"]), p["bn"]))
        y = conv(y, p["span_w"]) + p["span_b"]
        kernels = y.reshape(n, h, w, groups, k * k)
        patches = jax.lax.conv_general_dilated_patches(
            x, (k, k), (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        ).reshape(n, h, w, groups, c // groups, k * k)
        return jnp.einsum("nhwgk,nhwgck->nhwgc", kernels, patches).reshape(x.shape)

    def apply(p, x):
        x = conv(x, p["stem"], 2)
        for q in p["blocks"]:
            h = jax.nn.relu(normed(conv(x, q["conv1"]), q["bn1"]))
            h = jax.nn.relu(normed(involve(q["inv"], h), q["bn2"]))
            x = x + conv(h, q["conv3"])
        return jax.nn.relu(x).mean((1, 2)) @ p["fc"]

    def bn(size):
        return {"gamma": floats(size), "beta": floats(size)}

    own = {
        "reduce": floats(1, 1, 8, r), "bn": bn(r),
        "span_w": floats(1, 1, r, groups * k * k), "span_b": floats(groups * k * k),
    }  # fmt: skip
    block = {
        "conv1": floats(1, 1, 6, 8), "bn1": bn(8), "inv": own, "bn2": bn(8),
        "conv3": floats(1, 1, 8, 6),
    }  # fmt: skip
    params = {"stem": floats(3, 3, 3, 6), "blocks": [block] * layers}
    params["fc"] = floats(6, O)
    truth = {"stem": convolution(27, 54), "fc": kernel(6, O, head=True)}
    for i in range(layers):
        path = f"blocks/{i}"
        truth |= {
            f"{path}/conv1": convolution(6, 8),
            **norm(f"{path}/bn1", "gamma", "beta"),
            f"{path}/inv/reduce": convolution(8, r),
            **norm(f"{path}/inv/bn", "gamma", "beta"),
            # Debatable: what it makes are weights of a sum.
            f"{path}/inv/span_w": convolution(r, groups * k * k, part=ANY),
            f"{path}/inv/span_b": bias(f"{path}/inv/span_w", part=ANY),
            **norm(f"{path}/bn2", "gamma", "beta"),
            f"{path}/conv3": convolution(8, 6, residual=(i, layers)),
        }
    return Model(apply, params, (floats(B, 8, 8, 3),), truth)


@model
def windows_that_bend() -> Model:
    """Zhu et al. 2019 (deformable windows), plain: places are moved, then gathered."""
    k, c, out = 3, 6, 8

    def sampled(image, at):
        h, w = image.shape[:2]
        low = jnp.floor(at)
        total = 0.0
        for dy in (0, 1):
            for dx in (0, 1):
                corner = low + jnp.array([dy, dx], jnp.float32)
                weight = jnp.prod(1 - jnp.abs(at - corner), axis=-1)
                y = jnp.clip(corner[..., 0].astype(int), 0, h - 1)
                x = jnp.clip(corner[..., 1].astype(int), 0, w - 1)
                total = total + weight[..., None] * image[y, x]
        return total

    def apply(p, x):
        x = jax.nn.relu(conv(x, p["stem"]["w"]) + p["stem"]["b"])
        n, h, w, _ = x.shape
        moved = conv(x, p["offset"]["w"]) + p["offset"]["b"]
        moved = moved.reshape(n, h, w, k * k, 2)
        m = jax.nn.sigmoid(conv(x, p["mask"]["w"]) + p["mask"]["b"])
        taps = jnp.stack(jnp.meshgrid(*[jnp.arange(k) - 1] * 2, indexing="ij"), -1)
        grid = jnp.stack(jnp.meshgrid(jnp.arange(h), jnp.arange(w), indexing="ij"), -1)
        at = grid[:, :, None] + taps.reshape(-1, 2) + moved
        seen = jax.vmap(sampled)(x, at) * m[..., None]
        y = jnp.einsum("nhwkc,kco->nhwo", seen, p["deform"]["w"]) + p["deform"]["b"]
        return jax.nn.relu(y).max((1, 2)) @ p["fc"]["w"] + p["fc"]["b"]

    def pair(*shape):
        return {"w": floats(*shape), "b": floats(shape[-1])}

    params = {
        "stem": pair(3, 3, 3, c), "offset": pair(3, 3, c, 2 * k * k),
        "mask": pair(3, 3, c, k * k), "deform": pair(k * k, c, out),
        "fc": pair(out, O),
    }  # fmt: skip
    names = ("w", "b")
    # Debatable: numbers that are places, and shares of what is around them.
    open_ = {"function": ANY, "part": ANY, "head": ANY, "multiplier": ANY}
    gates = {"function": "sigmoid", "part": one_of("gate", None)}
    truth = {
        **window("stem", 27, 9 * c, names, function="relu", part=ANY),
        "offset/w": convolution(9 * c, 18 * k * k, sections=ANY, **open_),
        "offset/b": bias("offset/w", part=ANY, multiplier=ANY, sections=ANY),
        "mask/w": convolution(9 * c, 9 * k * k, **gates),
        "mask/b": bias("mask/w", part=ANY),
        # Windows are gathered: its axis of taps is summed as channels are.
        "deform/w": kernel(k * k * c, out, (0, 1), 2, "relu"),
        "deform/b": bias("deform/w"),
        **dense("fc", out, O, "w", "b", head=True),
    }
    truth["stem/b"] = bias("stem/w", part=ANY)
    return Model(apply, params, (floats(B, 5, 6, 3),), truth)


@model
def parts_foretold() -> Model:
    """Assran et al. 2023 (I-JEPA), Linen: features of hidden patches, from seen ones.

    The teacher has leaves of its own, and no gradient.
    """
    from flax import linen as nn

    patches, narrow = 16, 8

    class Block(nn.Module):
        heads: int

        @nn.compact
        def __call__(self, x):
            d = x.shape[-1]
            h = nn.LayerNorm(name="norm1")(x)
            q, k, v = jnp.split(nn.Dense(3 * d, name="qkv")(h), 3, axis=-1)
            q, k, v = (y.reshape(*y.shape[:2], self.heads, -1) for y in (q, k, v))
            s = jnp.einsum("bqhd,bkhd->bhqk", q, k) * q.shape[-1] ** -0.5
            y = jnp.einsum("bhqk,bkhd->bqhd", nn.softmax(s), v)
            x = x + nn.Dense(d, name="proj")(y.reshape(x.shape))
            h = nn.gelu(nn.Dense(F, name="fc1")(nn.LayerNorm(name="norm2")(x)))
            return x + nn.Dense(d, name="fc2")(h)

    def gathered(x, at):
        return jnp.take_along_axis(x, at[..., None], axis=1)

    class Encoder(nn.Module):
        @nn.compact
        def __call__(self, x, at=None):
            x = nn.Conv(D, (2, 2), (2, 2), padding="VALID", name="patch_embed")(x)
            x = x.reshape(B, patches, D)
            x = x + self.param("pos_embed", nn.initializers.zeros, (1, patches, D))
            x = x if at is None else gathered(x, at)
            return nn.LayerNorm(name="norm")(Block(HEADS, name="block")(x))

    class Predictor(nn.Module):
        @nn.compact
        def __call__(self, x, seen, hidden):
            zeros = nn.initializers.zeros
            places = self.param("pos_embed", zeros, (patches, narrow))
            token = self.param("mask_token", zeros, (1, 1, narrow))
            x = nn.Dense(narrow, name="embed")(x) + places[seen]
            x = jnp.concatenate([x, token + places[hidden]], axis=1)
            x = nn.LayerNorm(name="norm")(Block(2, name="block")(x))
            return nn.Dense(D, name="proj")(x[:, seen.shape[1] :])

    class Net(nn.Module):
        @nn.compact
        def __call__(self, image, seen, hidden):
            x = Encoder(name="context")(image, seen)
            y = gathered(Encoder(name="target")(image), hidden)
            guess = Predictor(name="predictor")(x, seen, hidden)
            return guess, jax.lax.stop_gradient(y)

    def block(d, first=(0, 2), second=(1, 2)):
        thirds = cut(1, d, ("query", "key", "value"))
        return {
            **norm("norm1"),
            "qkv/kernel": kernel(d, 3 * d, sections=thirds),
            "qkv/bias": bias(
                "qkv/kernel", sections=[(0, *x[1:3], None) for x in thirds]
            ),
            **dense("proj", d, d, part="attention output", residual=first),
            **norm("norm2"),
            **dense("fc1", d, F, function="gelu"),
            **dense("fc2", F, d, residual=second),
        }

    encoder = {
        **window("patch_embed", 12, 4 * D),
        "pos_embed": position(1, 2),
        **below("block/", block(D)),
        **norm("norm"),
    }
    # Places that inputs choose: by position, or by inputs.
    row = Use(one_of("position", "embedding"), 0, 1, fan_in=ANY, fan_out=ANY, part=ANY)
    truth = {
        **below("context/", encoder),
        **below("target/", encoder),
        # Debatable: the sum of a kernel's output and rows begins a stream, or is in it.
        **dense("predictor/embed", D, narrow, residual=ANY),
        "predictor/pos_embed": [row, row],
        # Debatable: one token for all hidden places, which is added to theirs.
        "predictor/mask_token": either("embedding", "bias"),
        **below(
            "predictor/block/",
            block(narrow, one_of((0, 2), (1, 3)), one_of((1, 2), (2, 3))),
        ),
        **norm("predictor/norm"),
        **dense("predictor/proj", narrow, D, head=True),
    }
    inputs = [floats(B, 8, 8, 3), integers(B, 7), integers(B, 5)]
    return of_linen(Net(), inputs, truth)
