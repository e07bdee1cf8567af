"""Plain functions: layers stacked for loops, and layers used again."""

import jax
import jax.numpy as jnp

from zoo.attention import (
    BATCH,
    HIDDEN,
    LENGTH,
    VOCABULARY,
    WIDTH,
    vector,
)
from zoo.fused import affine, block, block_params, block_truth, linear
from zoo.truths import (
    Model,
    below,
    bias,
    embedding,
    every,
    floats,
    integers,
    kernel,
    model,
    norm,
    position,
    scale,
    shift,
    stacked,
)
from zoo.truths import layer_norm as normed


@model
def scan_over_layers() -> Model:
    """Layers stacked at axis 0, by lax.scan with checkpoints."""
    layers = 4

    def apply(p, tokens):
        x = p["embed"][tokens] + p["position"]

        @jax.checkpoint
        def step(x, layer):
            return block(layer, x), None

        x, _ = jax.lax.scan(step, x, p["layers"])
        return normed(x, p["norm"]) @ p["head"]

    def outer(leaf):
        return floats(layers, *leaf.shape)

    params = {
        "embed": floats(VOCABULARY, WIDTH),
        "position": floats(LENGTH, WIDTH),
        "layers": jax.tree.map(outer, block_params()),
        "norm": vector(),
        "head": floats(WIDTH, VOCABULARY),
    }
    truth = {
        "embed": embedding(WIDTH),
        "position": position(),
        **every("layers/", 1, stacked(block_truth(2 * layers))),
        **norm("norm"),
        "head": kernel(WIDTH, VOCABULARY, head=True),
    }
    return Model(apply, params, (integers(BATCH, LENGTH),), truth)


@model
def scan_over_inner_axis() -> Model:
    """Layers stacked at axis 1, as MaxText stores them; one block is not stacked."""
    layers = 4

    def apply(p, x):
        x = linear(x, p["embed"])
        x = block(p["first"], x)
        moved = jax.tree.map(lambda leaf: jnp.moveaxis(leaf, 1, 0), p["layers"])
        x, _ = jax.lax.scan(lambda x, layer: (block(layer, x), None), x, moved)
        return linear(x, p["head"])

    def inner(leaf):
        return floats(leaf.shape[0], layers, *leaf.shape[1:])

    params = {
        "embed": affine(9, WIDTH),
        "first": block_params(),
        "layers": jax.tree.map(inner, block_params()),
        "head": affine(WIDTH, 5),
    }
    total = 2 * (layers + 1)
    later = {
        path: use
        if use.residual is None
        else use.__class__(**{**vars(use), "residual": (use.residual[0] + 2, total)})
        for path, use in stacked(block_truth(total), 1).items()
    }
    truth = {
        "embed/w": kernel(9, WIDTH),
        "embed/b": bias("embed/w"),
        **every("first/", 1, block_truth(total)),
        **every("layers/", 1, later),
        "head/w": kernel(WIDTH, 5, head=True),
        "head/b": bias("head/w"),
    }
    return Model(apply, params, (floats(BATCH, LENGTH, 9),), truth)


@model
def shared_over_depth() -> Model:
    """ALBERT in Python, then a Universal Transformer's loop: one block used often.

    The embedding is factorized; norms come after the sums.
    """
    size, steps = 6, 3

    def post_norm(p, x):
        x = normed(x + linear(jnp.tanh(linear(x, p["up"])), p["down"]), p["norm"])
        return x

    def apply(p, tokens):
        x = p["embed"][tokens] @ p["project"]
        for _ in range(2):
            x = post_norm(p["albert"], x)
        x = jax.lax.fori_loop(0, steps, lambda _, x: post_norm(p["universal"], x), x)
        return linear(x[:, 0], p["pooler"])

    def layer():
        return {
            "up": affine(WIDTH, HIDDEN),
            "down": affine(HIDDEN, WIDTH),
            "norm": vector(),
        }

    params = {
        "embed": floats(VOCABULARY, size),
        "project": floats(size, WIDTH),
        "albert": layer(),
        "universal": layer(),
        "pooler": affine(WIDTH, 5),
    }

    def uses(writes):
        return {
            "up/w": [kernel(WIDTH, HIDDEN, function="tanh") for _ in writes],
            "up/b": [bias("up/w") for _ in writes],
            "down/w": [kernel(HIDDEN, WIDTH, residual=write) for write in writes],
            "down/b": [bias("down/w") for _ in writes],
            "norm/scale": [scale() for _ in writes],
            "norm/bias": [shift() for _ in writes],
        }

    truth = {
        "embed": embedding(size),
        "project": kernel(size, WIDTH),
        **below("albert/", uses([(0, 2 + steps), (1, 2 + steps)])),
        **below("universal/", uses([(2, 2 + steps)])),
        "pooler/w": kernel(WIDTH, 5, head=True),
        "pooler/b": bias("pooler/w"),
    }
    return Model(apply, params, (integers(BATCH, LENGTH),), truth)
