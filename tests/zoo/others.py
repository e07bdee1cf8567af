"""Plain functions: modulation, fields, graphs, pairs."""

import jax
import jax.numpy as jnp

from zoo.mixing import affine, affine_truth, linear
from zoo.truths import (
    ANY,
    Model,
    bias,
    embedding,
    every,
    floats,
    integers,
    kernel,
    model,
    rms_norm,
    unknown,
)

BATCH, WIDTH, HIDDEN, OUTPUTS = 3, 10, 14, 5


@model
def modulated_diffusion() -> Model:
    """DiT (Peebles and Xie 2023): a condition shifts, scales and gates every branch."""
    heads, size, condition = 2, 6, 9
    inner = heads * size

    def plain_norm(x):
        return rms_norm(x - x.mean(-1, keepdims=True), 1.0)

    def modulated(x, shift, factor):
        return plain_norm(x) * (1 + factor[:, None]) + shift[:, None]

    def block(p, x, c):
        s_1, f_1, g_1, s_2, f_2, g_2 = jnp.split(linear(c, p["modulate"]), 6, axis=-1)
        h = modulated(x, s_1, f_1)
        q, k, v = (jnp.einsum("btd,dhk->bthk", h, p[name]) for name in "qkv")
        h = jax.nn.dot_product_attention(q, k, v)
        x = x + g_1[:, None] * jnp.einsum("bthk,hkd->btd", h, p["o"])
        h = jax.nn.gelu(linear(modulated(x, s_2, f_2), p["up"]))
        return x + g_2[:, None] * linear(h, p["down"])

    def apply(p, x, features):
        c = jax.nn.silu(linear(features, p["condition"]))
        x = linear(x, p["patch"])
        for block_params in p["blocks"]:
            x = block(block_params, x, c)
        shift, factor = jnp.split(linear(c, p["modulate"]), 2, axis=-1)
        return linear(modulated(x, shift, factor), p["out"])

    block_params = {
        "modulate": affine(condition, 6 * WIDTH),
        **{name: floats(WIDTH, heads, size) for name in "qkv"},
        "o": floats(heads, size, WIDTH),
        "up": affine(WIDTH, HIDDEN),
        "down": affine(HIDDEN, WIDTH),
    }
    params = {
        "condition": affine(4, condition),
        "patch": affine(7, WIDTH),
        "blocks": [block_params] * 2,
        "modulate": affine(condition, 2 * WIDTH),
        "out": affine(WIDTH, 7),
    }
    parts = {"q": "query", "k": "key", "v": "value"}
    first = {
        # Its shares multiply and are added as they are: no nonlinear gate. Debatable:
        # the shares that multiply a branch meet the stream without another kernel.
        **affine_truth("modulate", condition, 6 * WIDTH, residual=ANY),
        **{
            name: kernel(WIDTH, inner, 0, (1, 2), part=part)
            for name, part in parts.items()
        },
        "o": kernel(inner, WIDTH, (0, 1), 2, residual=(0, 4), part="attention output"),
        **affine_truth("up", WIDTH, HIDDEN, function="gelu"),
        **affine_truth("down", HIDDEN, WIDTH, residual=(1, 4)),
    }
    truth = {
        **affine_truth("condition", 4, condition, function="silu"),
        **affine_truth("patch", 7, WIDTH),
        **every("blocks/{}/", 2, first),
        **affine_truth("modulate", condition, 2 * WIDTH),
        **affine_truth("out", WIDTH, 7, head=True),
    }
    return Model(apply, params, (floats(BATCH, 6, 7), floats(BATCH, 4)), truth)


@model
def radiance_field() -> Model:
    """NeRF: the encoded point is concatenated again; two outputs at two depths."""
    encoded = 3 * 4

    def encode(x):
        angles = x[..., None] * jnp.array([1.0, 2.0])
        waves = jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)
        return waves.reshape(x.shape[0], encoded)

    def apply(p, points, directions):
        x = h = encode(points)
        h = jax.nn.relu(linear(h, p["in_0"]))
        h = jax.nn.relu(linear(h, p["in_1"]))
        h = jax.nn.relu(linear(jnp.concatenate([x, h], -1), p["skip"]))
        density = jax.nn.softplus(linear(h, p["density"]))
        h = jnp.concatenate([linear(h, p["feature"]), directions], -1)
        color = jax.nn.sigmoid(linear(jax.nn.relu(linear(h, p["view"])), p["color"]))
        return jnp.concatenate([color, density], -1)

    params = {
        "in_0": affine(encoded, HIDDEN),
        "in_1": affine(HIDDEN, 11),
        "skip": affine(encoded + 11, 13),
        "density": affine(13, 2),
        "feature": affine(13, 9),
        "view": affine(9 + 3, 8),
        "color": affine(8, 3),
    }
    truth = {
        **affine_truth("in_0", encoded, HIDDEN, function="relu"),
        **affine_truth("in_1", HIDDEN, 11, function="relu"),
        # Concatenated inputs without a loop over time: no sections.
        **affine_truth("skip", encoded + 11, 13, function="relu"),
        **affine_truth("density", 13, 2, function="softplus", head=True),
        **affine_truth("feature", 13, 9),
        **affine_truth("view", 9 + 3, 8, function="relu"),
        **affine_truth("color", 8, 3, function="sigmoid", head=True),
    }
    return Model(apply, params, (floats(6, 3), floats(6, 3)), truth)


@model
def graph() -> Model:
    """A layer of GCN, one of GraphSAGE, and the mean over the nodes."""
    nodes, edges = 6, 9

    def gather(x, senders, receivers):
        return jax.ops.segment_sum(x[senders], receivers, num_segments=nodes)

    def apply(p, x, senders, receivers):
        x = gather(x @ p["gcn"]["w"], senders, receivers) + p["gcn"]["b"]
        x = jax.nn.relu(x)
        sage = p["sage"]
        near = gather(x, senders, receivers) @ sage["near"]
        x = jnp.tanh(x @ sage["self"] + near + sage["b"])
        return linear(x.mean(0), p["out"])

    params = {
        "gcn": affine(7, WIDTH),
        "sage": {
            "self": floats(WIDTH, HIDDEN),
            "near": floats(WIDTH, HIDDEN),
            "b": floats(HIDDEN),
        },
        "out": affine(HIDDEN, OUTPUTS),
    }
    truth = {
        # The sum over neighbours lies between the kernel and its bias.
        **affine_truth("gcn", 7, WIDTH, function="relu"),
        "sage/self": kernel(WIDTH, HIDDEN, function="tanh"),
        "sage/near": kernel(WIDTH, HIDDEN, function="tanh"),
        "sage/b": bias(["sage/near", "sage/self"]),
        **affine_truth("out", HIDDEN, OUTPUTS, head=True),
    }
    return Model(
        apply, params, (floats(nodes, 7), integers(edges), integers(edges)), truth
    )


@model
def two_towers() -> Model:
    """CLIP (Radford et al. 2021): unit vectors, a temperature, one shared layer."""

    def unit(x):
        return x / jnp.linalg.norm(x, axis=-1, keepdims=True)

    def apply(p, image, tokens):
        a = jax.nn.relu(linear(image, p["image"]))
        b = p["table"][tokens].mean(1)
        a, b = unit(a @ p["shared"]), unit(b @ p["shared"])
        return jnp.exp(p["temperature"]) * (a @ b.T)

    params = {
        "image": affine(9, WIDTH),
        "table": floats(17, WIDTH),
        "shared": floats(WIDTH, HIDDEN),
        "temperature": floats(),
    }
    truth = {
        **affine_truth("image", 9, WIDTH, function="relu"),
        "table": embedding(WIDTH),
        # The towers are contracted with each other, so that neither use is a head.
        "shared": [kernel(WIDTH, HIDDEN), kernel(WIDTH, HIDDEN)],
        "temperature": unknown(),
    }
    return Model(apply, params, (floats(BATCH, 9), integers(BATCH, 6)), truth)
