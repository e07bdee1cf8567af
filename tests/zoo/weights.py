"""Plain functions: what is done to weights before they are used."""

import math

import jax
import jax.numpy as jnp

from zoo.truths import (
    ANY,
    Model,
    bias,
    floats,
    integers,
    kernel,
    model,
    unknown,
    unused,
)

BATCH, INPUTS, HIDDEN, OUTPUTS = 4, 7, 11, 5


@model
def ensemble() -> Model:
    """Members by vmap over the parameters; the mean of what they say."""
    members = 3

    def member(p, x):
        x = jax.nn.elu(x @ p["w1"] + p["b1"])
        x = jax.nn.softplus(x @ p["w2"] + p["b2"])
        return x @ p["w3"] + p["b3"]

    def apply(p, x):
        return jax.vmap(member, in_axes=(0, None))(p, x).mean(0)

    params = {
        "w1": floats(members, INPUTS, HIDDEN),
        "b1": floats(members, HIDDEN),
        "w2": floats(members, HIDDEN, 13),
        "b2": floats(members, 13),
        "w3": floats(members, 13, OUTPUTS),
        "b3": floats(members, OUTPUTS),
    }
    own = {"batch_axis": 0}
    truth = {
        # Debatable: the members share this layer's inputs, but each is a kernel.
        "w1": kernel(INPUTS, HIDDEN, 1, 2, "elu", **own),
        "b1": bias("w1", 1, **own),
        "w2": kernel(HIDDEN, 13, 1, 2, "softplus", **own),
        "b2": bias("w2", 1, **own),
        "w3": kernel(13, OUTPUTS, 1, 2, head=True, **own),
        "b3": bias("w3", 1, **own),
    }
    return Model(apply, params, (floats(BATCH, INPUTS),), truth)


@model
def siren() -> Model:
    """Sitzmann et al. 2020: sin(30 (x W + b)), and a linear output."""

    def apply(p, x):
        for w, b in zip(p["w"][:-1], p["b"][:-1], strict=True):
            x = jnp.sin(30.0 * (x @ w + b))
        return x @ p["w"][-1] + p["b"][-1]

    sizes = [(2, HIDDEN), (HIDDEN, 13), (13, 3)]
    params = {
        "w": [floats(*size) for size in sizes],
        "b": [floats(size[1]) for size in sizes],
    }
    # The biases are multiplied too, but not as a leaf.
    truth = {
        "w/0": kernel(2, HIDDEN, function="sin", multiplier=30.0),
        "w/1": kernel(HIDDEN, 13, function="sin", multiplier=30.0),
        "w/2": kernel(13, 3, head=True),
        "b/0": bias("w/0", multiplier=ANY),
        "b/1": bias("w/1", multiplier=ANY),
        "b/2": bias("w/2"),
    }
    return Model(apply, params, (floats(BATCH, 2),), truth)


@model
def equalized_learning_rate() -> Model:
    """Karras et al. 2018: weights of N(0, 1) are scaled in the layer."""

    def apply(p, z):
        for layer in (p["mapping_0"], p["mapping_1"]):
            w = layer["weight"] * math.sqrt(2 / layer["weight"].shape[1])
            z = jax.nn.leaky_relu(z @ w.T + layer["bias"], 0.2)
        w = p["output"]["weight"]
        return jnp.dot(z, w.T) / math.sqrt(w.shape[1]) + p["output"]["bias"]

    def layer(inputs, outputs):
        return {"weight": floats(outputs, inputs), "bias": floats(outputs)}

    params = {
        "mapping_0": layer(INPUTS, HIDDEN),
        "mapping_1": layer(HIDDEN, 13),
        "output": layer(13, OUTPUTS),
    }
    first = kernel(INPUTS, HIDDEN, 1, 0, "leaky_relu", multiplier=math.sqrt(2 / INPUTS))
    second = kernel(HIDDEN, 13, 1, 0, "leaky_relu", multiplier=math.sqrt(2 / HIDDEN))
    truth = {
        "mapping_0/weight": first,
        "mapping_0/bias": bias("mapping_0/weight"),
        "mapping_1/weight": second,
        "mapping_1/bias": bias("mapping_1/weight"),
        "output/weight": kernel(13, OUTPUTS, 1, 0, multiplier=13**-0.5, head=True),
        "output/bias": bias("output/weight"),
    }
    return Model(apply, params, (floats(BATCH, INPUTS),), truth)


@model
def made_of_weights() -> Model:
    """Weight norm, a mask, low rank in both orders, and leaves that reach nothing."""
    rank = 3
    mask = (jnp.arange(13)[:, None] % 4 >= jnp.arange(12) % 3).astype(jnp.float32)

    def apply(p, x):
        v = p["normed"]["v"]
        w = p["normed"]["g"] * v / jnp.linalg.norm(v, axis=0)
        x = jax.nn.relu(x @ w + p["normed"]["bias"])
        x = jax.nn.relu(x @ (p["product"]["a"] @ p["product"]["b"]))
        x = jax.nn.relu(x @ (p["masked"] * mask))
        _ = x @ p["probe"]  # what is not returned is not used
        return x @ p["low_rank"]["a"] @ p["low_rank"]["b"] * 0.5

    params = {
        "normed": {
            "v": floats(INPUTS, HIDDEN),
            "g": floats(HIDDEN),
            "bias": floats(HIDDEN),
        },
        "product": {"a": floats(HIDDEN, rank), "b": floats(rank, 13)},
        "masked": floats(13, 12),
        "low_rank": {"a": floats(12, rank), "b": floats(rank, OUTPUTS)},
        "probe": floats(12, 6),
        "step": integers(),
    }
    truth = {
        "normed/v": unknown(),
        "normed/g": unknown(),
        # Debatable: its kernel is a function of two leaves.
        "normed/bias": bias(ANY),
        "product/a": unknown(),
        "product/b": unknown(),
        "masked": unknown(),
        "low_rank/a": kernel(12, rank),
        "low_rank/b": kernel(rank, OUTPUTS, multiplier=0.5, head=True),
        "probe": unused(),
        "step": unused(),
    }
    return Model(apply, params, (floats(BATCH, INPUTS),), truth)
