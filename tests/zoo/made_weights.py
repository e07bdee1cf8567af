"""Weights that are made before they are used, and branches without norms."""

import jax
import jax.numpy as jnp

from zoo.equinox_models import linear as eqx_linear
from zoo.equinox_models import of_equinox
from zoo.language import affine_truth
from zoo.truths import (
    ANY,
    WRITES,
    Model,
    bias,
    convolution,
    embedding,
    every,
    floats,
    gate,
    integers,
    kernel,
    model,
    scale,
    unknown,
)

BATCH, WIDTH, HIDDEN, OUTPUTS = 2, 6, 9, 5
NUMBERS = ("NHWC", "HWIO", "NHWC")


def convolved(x, w, **options):
    return jax.lax.conv_general_dilated(
        x, w, (1, 1), "SAME", dimension_numbers=NUMBERS, **options
    )


def affine(inputs, outputs):
    return {"w": floats(inputs, outputs), "b": floats(outputs)}


def linear(x, p):
    return x @ p["w"] + p["b"]


@model
def free_of_norms() -> Model:
    """Brock et al. 2021 (NF-ResNet): standardized weights, a scalar on each branch."""
    alpha, blocks = 0.2, 2

    def standardized(p, x):
        w = p["w"]
        mean = w.mean((0, 1, 2), keepdims=True)
        spread = w.var((0, 1, 2), keepdims=True) * (w.size // w.shape[-1])
        w = (w - mean) * jax.lax.rsqrt(jnp.maximum(spread, 1e-4)) * p["gain"]
        return convolved(x, w) + p["b"]

    def block(p, x, beta):
        h = standardized(p["conv_0"], jax.nn.gelu(x) * 1.7015 * beta)
        h = standardized(p["conv_1"], jax.nn.gelu(h) * 1.7015)
        return x + h * p["skip_gain"] * alpha

    def apply(p, x):
        x = standardized(p["stem"], x)
        for i, layer in enumerate(p["blocks"]):
            x = block(layer, x, (1 + i * alpha**2) ** -0.5)
        return linear(jax.nn.gelu(x).mean((1, 2)), p["head"])

    def conv(inputs, outputs):
        shape = (3, 5, inputs, outputs)
        return {"w": floats(*shape), "gain": floats(outputs), "b": floats(outputs)}

    def conv_truth(path, **rest):
        # Debatable: the kernel is a function of two leaves.
        added = {f"{path}/b": bias(ANY, **rest)}
        return {f"{path}/w": unknown(), f"{path}/gain": unknown(), **added}

    layer = {
        "conv_0": conv(WIDTH, HIDDEN),
        "conv_1": conv(HIDDEN, WIDTH),
        "skip_gain": floats(),
    }
    params = {
        "stem": conv(3, WIDTH),
        "blocks": [layer] * blocks,
        "head": affine(WIDTH, OUTPUTS),
    }
    single = {
        **conv_truth("conv_0"),
        **conv_truth("conv_1", multiplier=ANY),
        "skip_gain": gate(multiplier=alpha),
    }
    truth = {
        **conv_truth("stem"),
        **every("blocks/{}/", blocks, single),
        **affine_truth("head", WIDTH, OUTPUTS, head=True),
    }
    return Model(apply, params, (floats(BATCH, 7, 8, 3),), truth)


@model
def fixup() -> Model:
    """Zhang et al. 2019: scalars for biases around each window, one factor a branch."""
    blocks = 3

    def block(p, x):
        h = convolved(x + p["bias1a"], p["conv1"])
        h = jax.nn.relu(h + p["bias1b"])
        h = convolved(h + p["bias2a"], p["conv2"])
        return jax.nn.relu(x + (h * p["scale"] + p["bias2b"]))

    def apply(p, x):
        x = jax.nn.relu(convolved(x, p["stem"]) + p["bias1"])
        for layer in p["blocks"]:
            x = block(layer, x)
        return linear(x.mean((1, 2)), p["fc"])

    scalars = ("bias1a", "bias1b", "bias2a", "bias2b", "scale")
    layer = {
        **{name: floats() for name in scalars},
        "conv1": floats(3, 5, WIDTH, HIDDEN),
        "conv2": floats(3, 1, HIDDEN, WIDTH),
    }
    params = {
        "stem": floats(3, 3, 4, WIDTH),
        "bias1": floats(),
        "blocks": [layer] * blocks,
        "fc": affine(WIDTH, OUTPUTS),
    }
    single = {
        # Debatable: what it is added to is activated, or a sum.
        "bias1a": bias(ANY, ()),
        "conv1": convolution(15 * WIDTH, 15 * HIDDEN, function="relu"),
        "bias1b": bias("conv1", ()),
        "bias2a": bias(ANY, ()),
        "conv2": convolution(3 * HIDDEN, 3 * WIDTH, residual=(0, blocks)),
        "scale": gate(),
        # Debatable: the factor lies between it and the kernel.
        "bias2b": bias(ANY, ()),
    }
    truth = {
        "stem": convolution(9 * 4, 9 * WIDTH, function="relu"),
        "bias1": bias("stem", ()),
        **every("blocks/{}/", blocks, single),
        **affine_truth("fc", WIDTH, OUTPUTS, head=True),
    }
    return Model(apply, params, (floats(BATCH, 7, 8, 4),), truth)


@model
def masked_pixels() -> Model:
    """Van den Oord et al. 2016 (PixelCNN): windows see only what came before."""
    blocks = 2

    def masked(w, inclusive):
        rows, columns = w.shape[:2]
        mask = jnp.zeros((rows, columns)).at[: rows // 2].set(1)
        mask = mask.at[rows // 2, : columns // 2 + inclusive].set(1)
        return w * mask[:, :, None, None]

    def apply(p, x):
        x = convolved(x, masked(p["stem"]["w"], 0)) + p["stem"]["b"]
        for layer in p["blocks"]:
            h = jax.nn.relu(convolved(jax.nn.relu(x), layer["down"]))
            h = jax.nn.relu(convolved(h, masked(layer["window"], 1)))
            x = x + convolved(h, layer["up"])
        return convolved(jax.nn.relu(x), p["logits"]["w"]) + p["logits"]["b"]

    layer = {
        "down": floats(1, 1, HIDDEN, 4),
        "window": floats(3, 5, 4, 7),
        "up": floats(1, 1, 7, HIDDEN),
    }
    params = {
        "stem": {"w": floats(5, 7, 1, HIDDEN), "b": floats(HIDDEN)},
        "blocks": [layer] * blocks,
        "logits": {"w": floats(1, 1, HIDDEN, 16), "b": floats(16)},
    }
    single = {
        "down": convolution(HIDDEN, 4, function="relu"),
        "window": unknown(),
        "up": convolution(7, HIDDEN, residual=(0, blocks)),
    }
    truth = {
        "stem/w": unknown(),
        # Debatable: its kernel is masked.
        "stem/b": bias(ANY),
        **every("blocks/{}/", blocks, single),
        "logits/w": convolution(HIDDEN, 16, head=True),
        "logits/b": bias("logits/w"),
    }
    return Model(apply, params, (floats(BATCH, 8, 9, 1),), truth)


@model
def bounded_critic() -> Model:
    """Miyato et al. 2018: weights over their norm, and a class told by a product."""
    import equinox as eqx

    class Net(eqx.Module):
        bounded: list[jax.Array]
        biases: list[jax.Array]
        classes: eqx.nn.Embedding
        score: eqx.nn.Linear

        def __init__(self, key):
            self.bounded = [jnp.zeros((HIDDEN, WIDTH)), jnp.zeros((8, HIDDEN))]
            self.biases = [jnp.zeros(HIDDEN), jnp.zeros(8)]
            self.classes = eqx.nn.Embedding(7, 8, key=key)
            self.score = eqx.nn.Linear(8, 1, key=key)

        def __call__(self, x, label):
            for w, b in zip(self.bounded, self.biases, strict=True):
                u = jnp.ones(w.shape[0])
                v = w.T @ u
                v = v / (jnp.linalg.norm(v) + 1e-12)
                u = w @ v
                u = u / (jnp.linalg.norm(u) + 1e-12)
                x = jax.nn.leaky_relu(w / (u @ w @ v) @ x + b)
            return self.score(x)[0] + self.classes(label) @ x

    truth = {
        **{f"bounded/{i}": unknown() for i in range(2)},
        # Debatable: the kernel is a function of its leaf.
        **{f"biases/{i}": bias(ANY) for i in range(2)},
        # Debatable: whether a row that is a class's readout is a head.
        "classes/weight": embedding(8, head=ANY),
        **eqx_linear("score", 8, 1, head=True),
        "score/bias": bias("score/weight", ()),
    }
    return of_equinox(Net, [floats(BATCH, WIDTH), integers(BATCH)], truth)


@model
def modulated_kernels() -> Model:
    """Karras et al. 2020 (StyleGAN 2): each image has windows of its own."""

    def modulated(p, x, style):
        s = linear(style, p["style"])
        w = p["w"][None] * s[:, None, None, :, None]
        w = w * jax.lax.rsqrt(jnp.square(w).sum((1, 2, 3), keepdims=True) + 1e-8)
        one = lambda x, w: convolved(x[None], w)[0]  # noqa: E731
        return jax.nn.leaky_relu(jax.vmap(one)(x, w) + p["b"], 0.2)

    def apply(p, x, style):
        style = jax.nn.leaky_relu(linear(style, p["mapping"]), 0.2)
        for layer in p["layers"]:
            x = modulated(layer, x, style)
        return convolved(x, p["rgb"])

    def layer(inputs, outputs):
        return {
            "w": floats(3, 5, inputs, outputs),
            "style": affine(10, inputs),
            "b": floats(outputs),
        }

    def layer_truth(inputs):
        return {
            "w": unknown(),
            # Debatable: what it becomes multiplies a leaf, not activations.
            "style/w": kernel(10, inputs, function=ANY, part=ANY, head=ANY),
            "style/b": bias("style/w", part=ANY),
            "b": bias(ANY),
        }

    params = {
        "mapping": affine(4, 10),
        "layers": [layer(WIDTH, HIDDEN), layer(HIDDEN, 8)],
        "rgb": floats(1, 1, 8, 3),
    }
    truth = {
        **affine_truth("mapping", 4, 10, function="leaky_relu"),
        **every("layers/0/", 1, layer_truth(WIDTH)),
        **every("layers/1/", 1, layer_truth(HIDDEN)),
        "rgb": convolution(8, 3, head=True),
    }
    inputs = (floats(BATCH, 7, 8, WIDTH), floats(BATCH, 4))
    return Model(apply, params, inputs, truth)


@model
def adapted_attention() -> Model:
    """Hu et al. 2022 (LoRA) on queries and values, and Houlsby et al. 2019's adapter.

    The adapter is a narrow residual branch within the branch.
    """
    heads, size, rank, alpha, layers = 3, 4, 2, 6, 2
    inner = heads * size

    def adapted(p, x, name):
        low = p[f"{name}_lora"]
        return x @ p[name] + (x @ low["a"]) @ low["b"] * (alpha / rank)

    def block(p, x):
        q, v = adapted(p, x, "q"), adapted(p, x, "v")
        q, k, v = (h.reshape(BATCH, -1, heads, size) for h in (q, x @ p["k"], v))
        scores = jnp.einsum("bqhd,bkhd->bhqk", q, k) * size**-0.5
        h = jnp.einsum("bhqk,bkhd->bqhd", jax.nn.softmax(scores), v)
        x = x + h.reshape(BATCH, -1, inner) @ p["o"]
        h = jax.nn.relu(x @ p["up"]) @ p["down"]
        h = h + jax.nn.gelu(h @ p["adapter"]["in"]) @ p["adapter"]["out"]
        return x + h

    def apply(p, tokens):
        x = p["embed"][tokens] * p["gain"]
        for layer in p["layers"]:
            x = block(layer, x)
        return x[:, -1] @ p["head"]

    low_rank = {"a": floats(WIDTH, rank), "b": floats(rank, inner)}
    layer = {
        **{name: floats(WIDTH, inner) for name in "qkv"},
        "q_lora": low_rank,
        "v_lora": low_rank,
        "o": floats(inner, WIDTH),
        "up": floats(WIDTH, HIDDEN),
        "down": floats(HIDDEN, WIDTH),
        "adapter": {"in": floats(WIDTH, 3), "out": floats(3, WIDTH)},
    }
    params = {
        "embed": floats(17, WIDTH),
        "gain": floats(WIDTH),
        "layers": [layer] * layers,
        "head": floats(WIDTH, OUTPUTS),
    }

    def low_rank_truth(name, part):
        factor = alpha / rank
        return {
            f"{name}_lora/a": kernel(WIDTH, rank),
            f"{name}_lora/b": kernel(rank, inner, multiplier=factor, part=part),
        }

    # Debatable: a stream within a branch, and how many writes there are.
    open_write = {"residual": WRITES}
    single = {
        "q": kernel(WIDTH, inner, part="query"),
        **low_rank_truth("q", "query"),
        "k": kernel(WIDTH, inner, part="key"),
        "v": kernel(WIDTH, inner, part="value"),
        **low_rank_truth("v", "value"),
        "o": kernel(inner, WIDTH, part="attention output", **open_write),
        "up": kernel(WIDTH, HIDDEN, function="relu"),
        "down": kernel(HIDDEN, WIDTH, **open_write),
        "adapter/in": kernel(WIDTH, 3, function="gelu"),
        "adapter/out": kernel(3, WIDTH, **open_write),
    }
    truth = {
        "embed": embedding(WIDTH),
        "gain": scale(),
        **every("layers/{}/", layers, single),
        "head": kernel(WIDTH, OUTPUTS, head=True),
    }
    return Model(apply, params, (integers(BATCH, 8),), truth)
