"""Plain functions: MLPs over patches and over features, and gates of places."""

import jax
import jax.numpy as jnp

from zoo.layers import (
    affine,
    conv,
    linear,
)
from zoo.truths import (
    ANY,
    Model,
    below,
    bias,
    convolution,
    dense,
    every,
    floats,
    gate,
    kernel,
    model,
    norm,
    scale,
    stacked,
)
from zoo.truths import layer_norm as normed

BATCH, SIDE, OUTPUTS = 2, 8, 5


@model
def spatial_gating() -> Model:
    """Liu et al. 2021 (gMLP): half of the channels, mixed over places, gate."""
    places, width, hidden = 16, 8, 12

    def block(p, x):
        h = jax.nn.gelu(linear(p["in"], normed(x, p["norm"])))
        u, v = jnp.split(h, 2, axis=-1)
        v = jnp.einsum("bnd,mn->bmd", normed(v, p["gate_norm"]), p["spatial"])
        return x + linear(p["out"], u * (v + p["spatial_bias"][:, None]))

    def apply(p, image):
        b, h, w, c = image.shape
        x = image.reshape(b, h // 2, 2, w // 2, 2, c).transpose(0, 1, 3, 2, 4, 5)
        x = linear(p["patch"], x.reshape(b, places, 4 * c))
        x = jax.lax.fori_loop(
            0, 2, lambda i, x: block(jax.tree.map(lambda a: a[i], p["blocks"]), x), x
        )
        return linear(p["head"], x.mean(axis=1))

    def vector(size):
        return {"scale": floats(size), "bias": floats(size)}

    one = {
        "norm": vector(width),
        "in": affine(width, hidden),
        "gate_norm": vector(hidden // 2),
        "spatial": floats(places, places),
        "spatial_bias": floats(places),
        "out": affine(hidden // 2, width),
    }
    params = {
        "patch": affine(12, width),
        "blocks": jax.tree.map(lambda leaf: floats(2, *leaf.shape), one),
        "head": affine(width, OUTPUTS),
    }
    # The first half is a factor, but behind a function; the second is normed.
    own = {
        **norm("norm"),
        "in/kernel": kernel(width, hidden, function="gelu", part=ANY, sections=ANY),
        "in/bias": bias("in/kernel", part=ANY, sections=ANY),
        **norm("gate_norm"),
        "spatial": kernel(places, places, 1, 0, part=ANY),
        "spatial_bias": bias("spatial", part=ANY),
        **dense("out", hidden // 2, width, residual=(0, 2)),
    }
    truth = {
        **dense("patch", 12, width),
        **below("blocks/", stacked(own)),
        **dense("head", width, OUTPUTS, head=True),
    }
    return Model(apply, params, (floats(BATCH, SIDE, SIDE, 3),), truth)


@model
def residual_mlp() -> Model:
    """Touvron et al. 2021 (ResMLP): affine layers for norms, LayerScale behind each."""
    places, width, hidden = 16, 8, 12

    def aff(p, x):
        return p["alpha"] * x + p["beta"]

    def block(p, x):
        h = jnp.swapaxes(aff(p["aff1"], x), 1, 2)
        h = jnp.swapaxes(linear(p["cross_patch"], h), 1, 2)
        x = x + p["gamma1"] * h
        h = linear(p["fc1"], aff(p["aff2"], x))
        h = linear(p["fc2"], jax.nn.gelu(h, approximate=False))
        return x + h * p["gamma2"]

    def apply(p, image):
        x = conv(image, p["patch"]["kernel"], 2, padding="VALID") + p["patch"]["bias"]
        x = x.reshape(x.shape[0], -1, width)
        for layer in p["blocks"]:
            x = block(layer, x)
        return linear(p["head"], aff(p["aff"], x).mean(1))

    vector = {"alpha": floats(width), "beta": floats(width)}
    one = {
        "aff1": vector,
        "cross_patch": affine(places, places),
        "gamma1": floats(width),
        "aff2": vector,
        "fc1": affine(width, hidden),
        "fc2": affine(hidden, width),
        "gamma2": floats(width),
    }
    params = {
        "patch": {"kernel": floats(2, 2, 3, width), "bias": floats(width)},
        "blocks": [one, one, one],
        "aff": vector,
        "head": affine(width, OUTPUTS),
    }

    def affine_layer(path):
        # Debatable: what it is added to is the stream, all of whose kernels count.
        return {f"{path}/alpha": scale(), f"{path}/beta": bias(ANY)}

    own = {
        **affine_layer("aff1"),
        **dense("cross_patch", places, places, residual=(0, 6)),
        "gamma1": gate(0),
        **affine_layer("aff2"),
        **dense("fc1", width, hidden, function="gelu"),
        **dense("fc2", hidden, width, residual=(1, 6)),
        "gamma2": gate(0),
    }
    truth = {
        "patch/kernel": convolution(12, 4 * width),
        "patch/bias": bias("patch/kernel"),
        **every("blocks/{}/", 3, own),
        **affine_layer("aff"),
        **dense("head", width, OUTPUTS, head=True),
    }
    return Model(apply, params, (floats(BATCH, SIDE, SIDE, 3),), truth)
