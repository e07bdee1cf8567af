"""Networks that draw: diffusion by two streams, adversaries, codes, flows, ladders."""

import jax
import jax.numpy as jnp

from zoo.equinox_models import image, of_equinox
from zoo.flax_layers import of_linen, window
from zoo.layers import affine, linear, scales
from zoo.truths import (
    ANY,
    WRITES,
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
    layer_norm,
    model,
    norm,
    one_of,
    position,
    rms_norm,
    scale,
)

B, T, N, D, F, HEADS, SIZE = 2, 6, 7, 12, 15, 3, 4
ORDER = ("query", "key", "value")


@model
def two_streams_of_tokens() -> Model:
    """Esser et al. 2024 (SD 3's MMDiT): words and patches attend as one, scanned."""
    layers, c = 2, 9

    def plain(x):
        return rms_norm(x - x.mean(-1, keepdims=True), 1.0)

    def apply(p, x, words, t):
        c = linear(p["t1"], jax.nn.silu(linear(p["t0"], t)))
        streams = (linear(p["patch"], x) + p["pos"], linear(p["words"], words))

        def block(streams, layer):
            parts, heads = [], []
            for x, name in zip(streams, ("image", "text"), strict=True):
                q = layer[name]
                m = linear(q["mod"], jax.nn.silu(c))[:, None]
                m = jnp.split(m, 6, axis=-1)
                qkv = linear(q["qkv"], plain(x) * (1 + m[1]) + m[0])
                qkv = qkv.reshape(*x.shape[:2], 3, HEADS, SIZE)
                a, b, v = qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2]
                heads.append((rms_norm(a, q["q_norm"]), rms_norm(b, q["k_norm"]), v))
                parts.append(m)
            joint = [jnp.concatenate(both, axis=1) for both in zip(*heads, strict=True)]
            y = jax.nn.dot_product_attention(*joint).reshape(B, -1, D)
            ys = jnp.split(y, [streams[0].shape[1]], axis=1)
            new = []
            for x, y, m, name in zip(
                streams, ys, parts, ("image", "text"), strict=True
            ):
                q = layer[name]
                x = x + m[2] * linear(q["o"], y)
                h = jax.nn.gelu(linear(q["up"], plain(x) * (1 + m[4]) + m[3]))
                new.append(x + m[5] * linear(q["down"], h))
            return tuple(new), None

        (x, _), _ = jax.lax.scan(jax.checkpoint(block), streams, p["blocks"])
        shift, factor = jnp.split(linear(p["mod"], jax.nn.silu(c))[:, None], 2, axis=-1)
        return linear(p["out"], plain(x) * (1 + factor) + shift)

    one = {
        "mod": affine(c, 6 * D),
        "qkv": affine(D, 3 * D),
        "q_norm": floats(SIZE),
        "k_norm": floats(SIZE),
        "o": affine(D, D),
        "up": affine(D, F),
        "down": affine(F, D),
    }
    blocks = {"image": one, "text": one}
    params = {
        "t0": affine(5, c),
        "t1": affine(c, c),
        "patch": affine(N, D),
        "pos": floats(T, D),
        "words": affine(8, D),
        "blocks": jax.tree.map(lambda leaf: floats(layers, *leaf.shape), blocks),
        "mod": affine(c, 2 * D),
        "out": affine(D, N),
    }
    own = {"stack_axis": 0}
    axes = {"in_axis": 1, "out_axis": 2, **own}
    truth = {
        **dense("t0", 5, c, function="silu"),
        # Each layer's silu, and the last one's.
        **dense("t1", c, c, function="silu"),
        **dense("patch", N, D),
        "pos": position(),
        **dense("words", 8, D),
        # Debatable: what multiplies and what is added.
        "mod/kernel": kernel(c, 2 * D, part=ANY, sections=ANY, function=ANY),
        "mod/bias": bias("mod/kernel", part=ANY, sections=ANY),
        **dense("out", D, N, head=True),
    }
    for name in ("image", "text"):
        path = f"blocks/{name}"
        thirds = [(axis + 1, *rest) for axis, *rest in cut(1, D, ORDER)]
        offsets = [(1, *section[1:]) for section in bias_cut(D, ORDER)]
        truth |= {
            f"{path}/mod/kernel": kernel(
                c, 6 * D, residual=ANY, part=ANY, sections=ANY, function=ANY, **axes
            ),
            f"{path}/mod/bias": bias(
                f"{path}/mod/kernel", 1, part=ANY, sections=ANY, **own
            ),
            f"{path}/qkv/kernel": kernel(D, 3 * D, sections=thirds, **axes),
            f"{path}/qkv/bias": bias(f"{path}/qkv/kernel", 1, sections=offsets, **own),
            f"{path}/q_norm": scale(1, part=one_of(None, "query"), **own),
            f"{path}/k_norm": scale(1, part=one_of(None, "key"), **own),
            # Debatable: two streams in one attention, each with two writers a layer.
            f"{path}/o/kernel": kernel(
                D, D, part="attention output", residual=WRITES, **axes
            ),
            f"{path}/o/bias": bias(
                f"{path}/o/kernel", 1, part="attention output", **own
            ),
            f"{path}/up/kernel": kernel(D, F, function="gelu", **axes),
            f"{path}/up/bias": bias(f"{path}/up/kernel", 1, **own),
            f"{path}/down/kernel": kernel(F, D, residual=WRITES, **axes),
            f"{path}/down/bias": bias(f"{path}/down/kernel", 1, **own),
        }
    return Model(apply, params, (floats(B, T, N), floats(B, 5, 8), floats(B, 5)), truth)


@model
def skips_as_in_a_u() -> Model:
    """Bao et al. 2023 (U-ViT): time and label are tokens; kernels on [x, skip]."""

    def block(p, x, skip=None):
        if skip is not None:
            x = linear(p["skip"], jnp.concatenate([x, skip], axis=-1))
        h = layer_norm(x, p["n1"]) @ p["qkv"]
        q, k, v = h.reshape(B, -1, 3, HEADS, SIZE).transpose(2, 0, 3, 1, 4)
        a = jax.nn.softmax(q @ k.swapaxes(-2, -1) * SIZE**-0.5, axis=-1)
        y = (a @ v).transpose(0, 2, 1, 3).reshape(B, -1, D)
        x = x + linear(p["o"], y)
        h = jax.nn.gelu(linear(p["up"], layer_norm(x, p["n2"])))
        return x + linear(p["down"], h)

    def apply(p, x, t, label):
        angles = t[:, None] * jnp.exp(-jnp.arange(D // 2) / 2.0)
        t = jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1)
        t = linear(p["t1"], jax.nn.silu(linear(p["t0"], t)))
        tokens = [t[:, None], p["label"][label][:, None], linear(p["patch"], x)]
        x = jnp.concatenate(tokens, axis=1) + p["pos"]
        x = skip = block(p["in"], x)
        x = block(p["out"], block(p["mid"], x), skip)
        y = linear(p["pred"], layer_norm(x, p["norm"]))[:, 2:].reshape(B, 2, 3, N)
        numbers = ("NHWC", "HWIO", "NHWC")
        y = jax.lax.conv_general_dilated(
            y, p["final"], (1, 1), "SAME", dimension_numbers=numbers
        )
        return y + p["final_b"]

    one = {
        "n1": scales(D),
        "qkv": floats(D, 3 * D),
        "o": affine(D, D),
        "n2": scales(D),
        "up": affine(D, F),
        "down": affine(F, D),
    }
    params = {
        "t0": affine(D, F),
        "t1": affine(F, D),
        "label": floats(10, D),
        "patch": affine(N, D),
        "pos": floats(1, T + 2, D),
        "in": one,
        "mid": one,
        "out": one | {"skip": affine(2 * D, D)},
        "norm": scales(D),
        "pred": affine(D, N),
        "final": floats(3, 3, N, N),
        "final_b": floats(N),
    }
    truth = {
        **dense("t0", D, F, function="silu"),
        **dense("t1", F, D),
        "label": embedding(D),
        **dense("patch", N, D),
        "pos": position(1, 2),
        **dense("out/skip", 2 * D, D),
        **norm("norm"),
        **dense("pred", D, N),
        "final": convolution(9 * N, 9 * N, head=True),
        "final_b": bias("final"),
    }
    # The kernel on the skip ends one stream, and begins another.
    for path, first, total in (("in", 0, 4), ("mid", 2, 4), ("out", 0, 2)):
        out = {"part": "attention output", "residual": (first, total)}
        truth |= {
            **norm(f"{path}/n1"),
            f"{path}/qkv": kernel(D, 3 * D, sections=cut(1, D, ORDER)),
            **dense(f"{path}/o", D, D, **out),
            **norm(f"{path}/n2"),
            **dense(f"{path}/up", D, F, function="gelu"),
            **dense(f"{path}/down", F, D, residual=(first + 1, total)),
        }
    return Model(apply, params, (floats(B, T, N), floats(B), integers(B)), truth)


@model
def rounded_codes() -> Model:
    """Mentzer et al. 2023 (FSQ), Linen: bounded numbers, rounded straight through."""
    from flax import linen as nn

    levels = jnp.array([8.0, 5.0, 5.0])
    c = 6

    def rounded(z):
        half = (levels - 1) * (1 - 1e-3) / 2
        offset = jnp.where(levels % 2 == 1, 0.0, 0.5)
        shift = jnp.tan(offset / half)
        z = jnp.tanh(z + shift) * half - offset
        return (z + jax.lax.stop_gradient(jnp.round(z) - z)) / (levels // 2)

    class Block(nn.Module):
        @nn.compact
        def __call__(self, x):
            h = nn.Conv(c, (3, 3), use_bias=False, name="conv1")(nn.swish(x))
            h = nn.Conv(c, (1, 1), use_bias=False, name="conv2")(nn.swish(h))
            return x + h

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.Conv(c, (4, 4), (2, 2), name="down")(x)
            x = Block(name="enc")(x)
            z = rounded(nn.Conv(3, (1, 1), name="to_code")(x))
            x = Block(name="dec")(nn.Conv(c, (3, 3), name="from_code")(z))
            return nn.ConvTranspose(3, (4, 4), (2, 2), name="up")(x)

    truth = {
        # Debatable: a stream that is read behind a function.
        **window("down", 48, 16 * c, function=ANY),
        **window("to_code", c, 3, function="tanh"),
        **window("from_code", 27, 9 * c, function=ANY),
        **window("up", 4 * c, 48, transposed=True, head=True),
    }
    for name in ("enc", "dec"):
        truth[f"{name}/conv1/kernel"] = convolution(9 * c, 9 * c, function="silu")
        truth[f"{name}/conv2/kernel"] = convolution(c, c, residual=(0, 1))
    return of_linen(Net(), [floats(B, 8, 8, 3)], truth)


@model
def generator_that_attends() -> Model:
    """Zhang et al. 2019 (SAGAN), Linen: norms of a class, an attention of windows."""
    from flax import linen as nn

    c, classes = 8, 5

    class Norm(nn.Module):
        @nn.compact
        def __call__(self, x, label):
            y = nn.BatchNorm(False, use_bias=False, use_scale=False, name="bn")(x)
            gamma = nn.Embed(classes, x.shape[-1], name="gamma")(label)
            beta = nn.Embed(classes, x.shape[-1], name="beta")(label)
            return gamma[:, None, None] * y + beta[:, None, None]

    class Block(nn.Module):
        @nn.compact
        def __call__(self, x, label):
            def grown(x):
                b, h, w, d = x.shape
                return jax.image.resize(x, (b, 2 * h, 2 * w, d), "nearest")

            h = grown(nn.relu(Norm(name="norm1")(x, label)))
            h = nn.Conv(c, (3, 3), name="conv1")(h)
            h = nn.relu(Norm(name="norm2")(h, label))
            h = nn.Conv(c, (3, 3), name="conv2")(h)
            return h + nn.Conv(c, (1, 1), name="shortcut")(grown(x))

    class Attention(nn.Module):
        @nn.compact
        def __call__(self, x):
            def conv(features, name):
                return nn.Conv(features, (1, 1), use_bias=False, name=name)

            q = conv(2, "theta")(x).reshape(B, -1, 2)
            k = nn.max_pool(conv(2, "phi")(x), (2, 2), (2, 2)).reshape(B, -1, 2)
            v = nn.max_pool(conv(4, "g")(x), (2, 2), (2, 2)).reshape(B, -1, 4)
            y = nn.softmax(q @ k.transpose(0, 2, 1)) @ v
            y = conv(c, "o")(y.reshape(*x.shape[:3], 4))
            return x + self.param("sigma", nn.initializers.zeros, ()) * y

    class Net(nn.Module):
        @nn.compact
        def __call__(self, z, label):
            x = nn.Dense(2 * 2 * c, name="fc")(z).reshape(B, 2, 2, c)
            x = Attention(name="attention")(Block(name="block")(x, label))
            x = nn.relu(nn.BatchNorm(False, name="bn")(x))
            return nn.tanh(nn.Conv(3, (3, 3), name="last")(x))

    # A label's row scales a norm, or shifts it.
    rows = {"multiplier": ANY, "part": ANY, "residual": ANY}
    truth = {
        **dense("fc", N, 4 * c),
        # Debatable: which of two sums begins the stream; it grows on the way.
        **window("block/conv1", 9 * c, 9 * c),
        **window("block/conv2", 9 * c, 9 * c, residual=ANY),
        **window("block/shortcut", c, c, residual=ANY),
        # The greatest of neighbours are the keys and values.
        "attention/theta/kernel": convolution(c, 2, part="query"),
        "attention/phi/kernel": convolution(c, 2, part="key", function=ANY),
        "attention/g/kernel": convolution(c, 4, part="value", function=ANY),
        "attention/o/kernel": convolution(
            4, c, part="attention output", residual=WRITES
        ),
        "attention/sigma": gate(),
        **norm("bn"),
        **window("last", 9 * c, 27, function="tanh", head=True),
    }
    for i in (1, 2):
        truth[f"block/norm{i}/gamma/embedding"] = embedding(c, **rows)
        truth[f"block/norm{i}/beta/embedding"] = embedding(c, **rows)
    return of_linen(Net(), [floats(B, N), integers(B)], truth)


@model
def translated_photos() -> Model:
    """Zhu et al. 2017 (CycleGAN), Equinox: mirrored borders, norms of each image."""
    import equinox as eqx

    c = 4

    def normed(x):
        m = x.mean((1, 2), keepdims=True)
        return (x - m) * jax.lax.rsqrt(x.var((1, 2), keepdims=True) + 1e-5)

    def padded(x, size):
        return jnp.pad(x, ((0, 0), (size, size), (size, size)), mode="reflect")

    class Block(eqx.Module):
        a: eqx.nn.Conv2d
        b: eqx.nn.Conv2d

        def __init__(self, key):
            self.a = eqx.nn.Conv2d(2 * c, 2 * c, 3, key=key)
            self.b = eqx.nn.Conv2d(2 * c, 2 * c, 3, key=key)

        def __call__(self, x):
            h = jax.nn.relu(normed(self.a(padded(x, 1))))
            return x + normed(self.b(padded(h, 1)))

    class Net(eqx.Module):
        first: eqx.nn.Conv2d
        down: eqx.nn.Conv2d
        blocks: list
        up: eqx.nn.ConvTranspose2d
        last: eqx.nn.Conv2d

        def __init__(self, key):
            self.first = eqx.nn.Conv2d(3, c, 5, key=key)
            self.down = eqx.nn.Conv2d(c, 2 * c, 3, 2, 1, key=key)
            self.blocks = [Block(key) for _ in range(2)]
            self.up = eqx.nn.ConvTranspose2d(2 * c, c, 3, 2, 1, 1, key=key)
            self.last = eqx.nn.Conv2d(c, 3, 5, key=key)

        def __call__(self, x):
            x = jax.nn.relu(normed(self.first(padded(x, 2))))
            x = jax.nn.relu(normed(self.down(x)))
            for block in self.blocks:
                x = block(x)
            x = jax.nn.relu(normed(self.up(x)))
            return jnp.tanh(self.last(padded(x, 2)))

    full = 18 * c
    block = {**image("a", full, full), **image("b", full, full, residual=(0, 2))}
    truth = {
        **image("first", 75, 25 * c),
        **image("down", 9 * c, full),
        **every("blocks/{}/", 2, block),
        **image("up", full / 4, 9 * c, transposed=True),
        **image("last", 25 * c, 75, function="tanh", head=True),
    }
    return of_equinox(Net, [floats(B, 3, 8, 8)], truth)
