"""Plain functions: experts, mixers, and models of tables with dense features."""

import jax
import jax.numpy as jnp

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
    norm,
)
from zoo.truths import layer_norm as normed

BATCH, WIDTH, HIDDEN = 4, 10, 14


def affine(inputs, outputs):
    return {"w": floats(inputs, outputs), "b": floats(outputs)}


def affine_truth(path, inputs, outputs, **rest):
    return {
        f"{path}/w": kernel(inputs, outputs, **rest),
        f"{path}/b": bias(f"{path}/w", 0 if outputs > 1 else (), part=rest.get("part")),
    }


def linear(x, p):
    return x @ p["w"] + p["b"]


def vector(width=WIDTH):
    return {"scale": floats(width), "bias": floats(width)}


@model
def experts() -> Model:
    """Switch Transformer: a router sends each token to one of the experts."""
    count, capacity, tokens = 3, 5, 8

    def layer(p, x):
        h = normed(x, p["norm"])
        probabilities = jax.nn.softmax(linear(h, p["router"]), axis=-1)
        mask = jax.nn.one_hot(jnp.argmax(probabilities, -1), count)
        place = jnp.cumsum(mask, axis=0) * mask - 1
        dispatch = mask[..., None] * jax.nn.one_hot(place.astype(int), capacity)
        h = jnp.einsum("tec,td->ecd", dispatch, h)
        h = jax.nn.gelu(jnp.einsum("ecd,edf->ecf", h, p["wi"]) + p["bi"][:, None])
        h = jnp.einsum("ecf,efd->ecd", h, p["wo"])
        weight = (probabilities * mask).sum(-1)
        return x + jnp.einsum("tec,ecd->td", dispatch * weight[:, None, None], h)

    def apply(p, x):
        x = linear(x, p["embed"])
        for layer_params in p["layers"]:
            x = layer(layer_params, x)
        return linear(x, p["head"])

    layer_params = {
        "norm": vector(),
        "router": affine(WIDTH, count),
        "wi": floats(count, WIDTH, HIDDEN),
        "bi": floats(count, HIDDEN),
        "wo": floats(count, HIDDEN, WIDTH),
    }
    params = {
        "embed": affine(6, WIDTH),
        "layers": [layer_params] * 2,
        "head": affine(WIDTH, 7),
    }
    first = {
        **norm("norm"),
        **affine_truth("router", WIDTH, count, part="router"),
        "wi": kernel(WIDTH, HIDDEN, 1, 2, "gelu", batch_axis=0),
        "bi": bias("wi", 1, batch_axis=0),
        "wo": kernel(HIDDEN, WIDTH, 1, 2, batch_axis=0, residual=(0, 2)),
    }
    truth = {
        **affine_truth("embed", 6, WIDTH),
        **every("layers/{}/", 2, first),
        **affine_truth("head", WIDTH, 7, head=True),
    }
    return Model(apply, params, (floats(tokens, 6),), truth)


@model
def mixture_of_gated_units() -> Model:
    """Mixtral without dispatch: all SwiGLU experts run, the router weighs them all.

    Gate and value lie in one fused kernel of each expert, cut by slices.
    """
    count, fused = 3, 2 * HIDDEN

    def expert(p, x):
        h = x @ p["fused"]
        return (jax.nn.silu(h[:, :HIDDEN]) * h[:, HIDDEN:]) @ p["down"]

    def apply(p, x):
        weights = jax.nn.softmax(x @ p["router"])
        outputs = jax.vmap(expert, in_axes=(0, None), out_axes=1)(p["experts"], x)
        x = x + (weights[..., None] * outputs).sum(1)
        return x @ p["logits"]

    params = {
        "router": floats(WIDTH, count),
        "experts": {
            "fused": floats(count, WIDTH, fused),
            "down": floats(count, HIDDEN, WIDTH),
        },
        "logits": floats(WIDTH, 5),
    }
    sections = [
        (2, ((0, HIDDEN),), "gate", "silu"),
        (2, ((HIDDEN, fused),), "up", "identity"),
    ]
    truth = {
        "router": kernel(WIDTH, count, part="router"),
        "experts/fused": kernel(
            WIDTH, fused, 1, 2, ANY, batch_axis=0, sections=sections
        ),
        "experts/down": kernel(HIDDEN, WIDTH, 1, 2, batch_axis=0, residual=(0, 1)),
        "logits": kernel(WIDTH, 5, head=True),
    }
    return Model(apply, params, (floats(BATCH, WIDTH),), truth)


@model
def mixer() -> Model:
    """Tolstikhin et al. 2021: a layer over the patches, then one over the channels."""
    patches, tokens = 6, 9

    def block(p, x):
        h = normed(x, p["norm_1"]).swapaxes(1, 2)
        h = linear(jax.nn.gelu(linear(h, p["token_up"])), p["token_down"])
        x = x + h.swapaxes(1, 2)
        h = jax.nn.gelu(linear(normed(x, p["norm_2"]), p["channel_up"]))
        return x + linear(h, p["channel_down"])

    def apply(p, x):
        x = linear(x, p["stem"])
        for block_params in p["blocks"]:
            x = block(block_params, x)
        return linear(normed(x, p["norm"]).mean(1), p["head"])

    block_params = {
        "norm_1": vector(),
        "token_up": affine(patches, tokens),
        "token_down": affine(tokens, patches),
        "norm_2": vector(),
        "channel_up": affine(WIDTH, HIDDEN),
        "channel_down": affine(HIDDEN, WIDTH),
    }
    params = {
        "stem": affine(12, WIDTH),
        "blocks": [block_params] * 3,
        "norm": vector(),
        "head": affine(WIDTH, 5),
    }
    first = {
        **norm("norm_1"),
        **affine_truth("token_up", patches, tokens, function="gelu"),
        **affine_truth("token_down", tokens, patches, residual=(0, 6)),
        **norm("norm_2"),
        **affine_truth("channel_up", WIDTH, HIDDEN, function="gelu"),
        **affine_truth("channel_down", HIDDEN, WIDTH, residual=(1, 6)),
    }
    truth = {
        **affine_truth("stem", 12, WIDTH),
        **every("blocks/{}/", 3, first),
        **norm("norm"),
        **affine_truth("head", WIDTH, 5, head=True),
    }
    return Model(apply, params, (floats(BATCH, patches, 12),), truth)


@model
def deep_and_cross() -> Model:
    """DCN v2 (Wang et al. 2021): x0 * (W x + b) + x, beside a deep network."""
    dense, dims = 6, (3, 4)
    width = dense + sum(dims)

    def apply(p, features, tokens):
        found = [table[tokens[:, i]] for i, table in enumerate(p["tables"])]
        x0 = x = jnp.concatenate([features, *found], axis=-1)
        for cross in p["cross"]:
            x = x0 * linear(x, cross) + x
        h = jax.nn.relu(linear(x0, p["deep_0"]))
        h = jax.nn.relu(linear(h, p["deep_1"]))
        return jax.nn.sigmoid(linear(jnp.concatenate([x, h], -1), p["logit"]))

    params = {
        "tables": [floats(17, dims[0]), floats(19, dims[1])],
        "cross": [affine(width, width)] * 2,
        "deep_0": affine(width, HIDDEN),
        "deep_1": affine(HIDDEN, 9),
        "logit": affine(width + 9, 1),
    }
    truth = {
        "tables/0": embedding(dims[0]),
        "tables/1": embedding(dims[1]),
        # The factor x0 is no nonlinear function of the sum: no gated unit.
        **every("cross/{}/", 2, below_w(kernel(width, width, residual=(0, 2)))),
        **affine_truth("deep_0", width, HIDDEN, function="relu"),
        **affine_truth("deep_1", HIDDEN, 9, function="relu"),
        **affine_truth("logit", width + 9, 1, function="sigmoid", head=True),
    }
    return Model(apply, params, (floats(BATCH, dense), integers(BATCH, 2)), truth)


def below_w(use):
    return {"w": use, "b": bias("w")}


@model
def deep_fm() -> Model:
    """Guo et al. 2017: a factorization machine and a deep network share a table."""
    fields, size = 3, 6

    def apply(p, tokens):
        e = p["table"][tokens]
        pairs = 0.5 * (jnp.square(e.sum(1)) - jnp.square(e).sum(1)).sum(-1)
        h = jax.nn.relu(linear(e.reshape(BATCH, fields * size), p["deep_0"]))
        h = jax.nn.relu(linear(h, p["deep_1"]))
        deep = linear(h, p["deep_2"])[:, 0]
        return pairs + deep + p["first_order"][tokens].sum((1, 2))

    params = {
        "table": floats(23, size),
        "first_order": floats(23, 1),
        "deep_0": affine(fields * size, HIDDEN),
        "deep_1": affine(HIDDEN, 9),
        "deep_2": affine(9, 1),
    }
    truth = {
        "table": embedding(size),
        # Nothing contracts what is looked up: whether it is a head is open.
        "first_order": embedding(1, head=ANY),
        **affine_truth("deep_0", fields * size, HIDDEN, function="relu"),
        **affine_truth("deep_1", HIDDEN, 9, function="relu"),
        # The sum of the model's terms is no residual stream.
        **affine_truth("deep_2", 9, 1, head=True),
    }
    return Model(apply, params, (integers(BATCH, fields),), truth)


@model
def wide_and_deep() -> Model:
    """Cheng et al. 2016: crossed features go straight to the logit."""
    crossed, fields, size, dense = 13, 3, 4, 5
    joint = fields * size + dense

    def apply(p, crosses, tokens, features):
        e = jax.nn.one_hot(tokens, 17) @ p["table"]
        h = jnp.concatenate([e.reshape(BATCH, fields * size), features], axis=1)
        h = jax.nn.relu(linear(h, p["deep_0"]))
        h = jax.nn.relu(linear(h, p["deep_1"]))
        logit = crosses @ p["wide"] + h @ p["deep_2"] + p["constant"]
        return jax.nn.sigmoid(logit)

    params = {
        "table": floats(17, size),
        "wide": floats(crossed, 1),
        "deep_0": affine(joint, HIDDEN),
        "deep_1": affine(HIDDEN, 9),
        "deep_2": floats(9, 1),
        "constant": floats(1),
    }
    truth = {
        # By a one-hot of the tokens: an embedding all the same.
        "table": embedding(size),
        "wide": kernel(crossed, 1, function="sigmoid", head=True),
        **affine_truth("deep_0", joint, HIDDEN, function="relu"),
        **affine_truth("deep_1", HIDDEN, 9, function="relu"),
        "deep_2": kernel(9, 1, function="sigmoid", head=True),
        "constant": bias(["deep_2", "wide"], ()),
    }
    inputs = (floats(BATCH, crossed), integers(BATCH, fields), floats(BATCH, dense))
    return Model(apply, params, inputs, truth)


@model
def dot_interactions() -> Model:
    """DLRM (Naumov et al. 2019): dot products of all pairs of embeddings."""
    dense, size = 6, 5
    pairs = 6  # of the dense features' vector and three embeddings

    def apply(p, features, tokens):
        x = jax.nn.relu(linear(features, p["bottom_0"]))
        x = jax.nn.relu(linear(x, p["bottom_1"]))
        found = [table[tokens[:, i]] for i, table in enumerate(p["tables"])]
        z = jnp.stack([x, *found], axis=1)
        rows, columns = jnp.tril_indices(4, -1)
        dots = jnp.einsum("bik,bjk->bij", z, z)[:, rows, columns]
        x = jnp.concatenate([x, dots], axis=1)
        x = jax.nn.relu(linear(x, p["top_0"]))
        return linear(x, p["top_1"])

    params = {
        "tables": [floats(rows, size) for rows in (11, 13, 17)],
        "bottom_0": affine(dense, HIDDEN),
        "bottom_1": affine(HIDDEN, size),
        "top_0": affine(size + pairs, 9),
        "top_1": affine(9, 1),
    }
    truth = {
        **{f"tables/{i}": embedding(size) for i in range(3)},
        **affine_truth("bottom_0", dense, HIDDEN, function="relu"),
        **affine_truth("bottom_1", HIDDEN, size, function="relu"),
        **affine_truth("top_0", size + pairs, 9, function="relu"),
        **affine_truth("top_1", 9, 1, head=True),
    }
    return Model(apply, params, (floats(BATCH, dense), integers(BATCH, 3)), truth)
