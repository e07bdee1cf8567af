"""Models of tables and of what is recommended: interactions of looked-up features."""

import jax
import jax.numpy as jnp

from zoo.flax_layers import of_linen
from zoo.language import affine_truth
from zoo.nnx_models import of_nnx
from zoo.truths import (
    ANY,
    Model,
    bias,
    dense,
    embedding,
    every,
    floats,
    integers,
    kernel,
    model,
    norm,
    scale,
    unknown,
)

BATCH, FIELDS, SIZE, HIDDEN = 4, 5, 6, 11


def affine(inputs, outputs):
    return {"w": floats(inputs, outputs), "b": floats(outputs)}


def linear(x, p):
    return x @ p["w"] + p["b"]


def single_output(path, fan_in, **rest):
    """A kernel with one output, whose bias has no axis that varies."""
    return {
        f"{path}/w": kernel(fan_in, 1, head=True, **rest),
        f"{path}/b": bias(f"{path}/w", ()),
    }


@model
def auto_int() -> Model:
    """Song et al. 2019: fields attend to fields; the shortcut has a kernel too."""
    heads, size = 2, 4
    inner = heads * size

    def interact(p, x):
        q, k, v = (jnp.einsum("bfd,dhk->bhfk", x, p[name]) for name in "qkv")
        weights = jax.nn.softmax(jnp.einsum("bhfk,bhgk->bhfg", q, k), axis=-1)
        h = jnp.einsum("bhfg,bhgk->bfhk", weights, v).reshape(BATCH, FIELDS, inner)
        return jax.nn.relu(h + x @ p["shortcut"])

    def apply(p, tokens):
        x = p["table"][tokens]
        for layer in p["layers"]:
            x = interact(layer, x)
        return jax.nn.sigmoid(linear(x.reshape(BATCH, -1), p["logit"]))

    def layer(inputs):
        each = {name: floats(inputs, heads, size) for name in "qkv"}
        return {**each, "shortcut": floats(inputs, inner)}

    def layer_truth(inputs):
        fans = inputs, inner, 0, (1, 2)
        return {
            "q": kernel(*fans, part="query"),
            "k": kernel(*fans, part="key"),
            # Debatable: without a kernel behind them, values write to the stream.
            "v": kernel(*fans, function=ANY, part="value", residual=ANY),
            # Debatable: where its function ends, at the sum or behind it; the second
            # layer's is behind a weighted sum.
            "shortcut": kernel(inputs, inner, function=ANY, part=ANY),
        }

    params = {
        "table": floats(17, SIZE),
        "layers": [layer(SIZE), layer(inner)],
        "logit": affine(FIELDS * inner, 1),
    }
    truth = {
        "table": embedding(SIZE),
        **every("layers/0/", 1, layer_truth(SIZE)),
        **every("layers/1/", 1, layer_truth(inner)),
        # Debatable: the first kernel behind the sums, but a classifier's.
        "logit/w": kernel(FIELDS * inner, 1, function="sigmoid", head=True, part=ANY),
        "logit/b": bias("logit/w", (), part=ANY),
    }
    return Model(apply, params, (integers(BATCH, FIELDS),), truth)


@model
def extreme_deep_fm() -> Model:
    """Lian et al. 2018: outer products of fields, compressed by (H, F, H') kernels."""
    maps = (7, 8)

    def apply(p, tokens):
        x0 = x = p["table"][tokens]
        pooled = []
        for w in p["compressed"]:
            outer = jnp.einsum("bhd,bfd->bhfd", x, x0)
            x = jax.nn.relu(jnp.einsum("bhfd,hfn->bnd", outer, w))
            pooled.append(x.sum(axis=-1))
        h = jax.nn.relu(linear(x0.reshape(BATCH, -1), p["deep"]))
        joint = jnp.concatenate([*pooled, h], axis=1)
        return p["first_order"][tokens].sum(axis=1) + linear(joint, p["logit"])[:, 0]

    params = {
        "table": floats(17, SIZE),
        "first_order": floats(17),
        "compressed": [floats(FIELDS, FIELDS, maps[0]), floats(*maps[:1], FIELDS, 8)],
        "deep": affine(FIELDS * SIZE, HIDDEN),
        "logit": affine(sum(maps) + HIDDEN, 1),
    }
    truth = {
        "table": embedding(SIZE),
        # A number for each token: no axis of features, and no kernel behind it.
        "first_order": embedding(1, 0, (), head=ANY),
        "compressed/0": kernel(FIELDS * FIELDS, 7, (0, 1), 2, "relu"),
        "compressed/1": kernel(7 * FIELDS, 8, (0, 1), 2, "relu"),
        **affine_truth("deep", FIELDS * SIZE, HIDDEN, function="relu"),
        **single_output("logit", sum(maps) + HIDDEN),
    }
    return Model(apply, params, (integers(BATCH, FIELDS),), truth)


@model
def deep_interest() -> Model:
    """Zhou et al. 2018: what was bought is weighed by the candidate; PReLU and Dice."""
    length = 7

    def prelu(x, alpha):
        return jnp.where(x >= 0, x, alpha * x)

    def dice(x, alpha):
        centered = x - x.mean(0)
        p = jax.nn.sigmoid(
            centered * jax.lax.rsqrt(jnp.square(centered).mean(0) + 1e-8)
        )
        return p * x + (1 - p) * (alpha * x)

    def apply(p, item, history, mask):
        q, k = p["items"][item], p["items"][history]
        wide = jnp.broadcast_to(q[:, None], k.shape)
        pairs = jnp.concatenate([wide, k, wide - k, wide * k], axis=-1)
        h = prelu(linear(pairs, p["attention_0"]), p["slope"])
        weights = linear(h, p["attention_1"])[..., 0] * mask
        user = jnp.einsum("bt,btd->bd", weights, k)
        x = jnp.concatenate([user, q, user * q], axis=-1)
        x = dice(linear(x, p["deep_0"]), p["dice_0"])
        x = dice(linear(x, p["deep_1"]), p["dice_1"])
        return jax.nn.sigmoid(linear(x, p["deep_2"]))

    params = {
        "items": floats(17, SIZE),
        "attention_0": affine(4 * SIZE, 8),
        "slope": floats(8),
        "attention_1": affine(8, 1),
        "deep_0": affine(3 * SIZE, HIDDEN),
        "dice_0": floats(HIDDEN),
        "deep_1": affine(HIDDEN, 9),
        "dice_1": floats(9),
        "deep_2": affine(9, 1),
    }
    truth = {
        "items": [embedding(SIZE), embedding(SIZE)],
        # What text an activation has, part of which is learned, is open.
        **affine_truth("attention_0", 4 * SIZE, 8, function=ANY),
        "slope": unknown(),
        "attention_1/w": kernel(8, 1),
        "attention_1/b": bias("attention_1/w", ()),
        **affine_truth("deep_0", 3 * SIZE, HIDDEN, function=ANY),
        # Debatable: it multiplies one of two terms, but no residual branch.
        "dice_0": scale(),
        **affine_truth("deep_1", HIDDEN, 9, function=ANY),
        "dice_1": scale(),
        **single_output("deep_2", 9, function="sigmoid"),
    }
    inputs = (integers(BATCH), integers(BATCH, length), floats(BATCH, length))
    return Model(apply, params, inputs, truth)


@model
def two_towers() -> Model:
    """Yi et al. 2019, NNX: users and items meet in one product of unit vectors."""
    from flax import nnx

    class Tower(nnx.Module):
        def __init__(self, inputs, rngs):
            self.hidden = nnx.Linear(inputs, HIDDEN, rngs=rngs)
            self.out = nnx.Linear(HIDDEN, 8, rngs=rngs)

        def __call__(self, x):
            x = self.out(nnx.relu(self.hidden(x)))
            return x / jnp.maximum(jnp.linalg.norm(x, axis=-1, keepdims=True), 1e-6)

    class Net(nnx.Module):
        def __init__(self, rngs):
            self.users = nnx.Embed(19, SIZE, rngs=rngs)
            self.items = nnx.Embed(17, 7, rngs=rngs)
            self.left = Tower(SIZE + 7, rngs)
            self.right = Tower(7 + 3, rngs)

        def __call__(self, users, history, items, features):
            past = self.items(history).mean(axis=1)
            left = self.left(jnp.concatenate([self.users(users), past], axis=-1))
            right = jnp.concatenate([self.items(items), features], axis=-1)
            return left @ self.right(right).T / 0.05

    def tower(inputs):
        return {
            **dense("hidden", inputs, HIDDEN, function="relu"),
            # Debatable: the product of both is a contraction, but without a leaf.
            **dense("out", HIDDEN, 8, head=ANY),
        }

    truth = {
        "users/embedding": embedding(SIZE),
        "items/embedding": [embedding(7), embedding(7)],
        **every("left/", 1, tower(SIZE + 7)),
        **every("right/", 1, tower(7 + 3)),
    }
    inputs = [
        integers(BATCH),
        integers(BATCH, 9),
        integers(BATCH),
        floats(BATCH, 3),
    ]
    return of_nnx(Net, inputs, truth)


@model
def neural_factorization() -> Model:
    """He and Chua 2017, Linen: half of the squared sum less the sum of squares."""
    from flax import linen as nn

    class Net(nn.Module):
        @nn.compact
        def __call__(self, tokens, values):
            e = nn.Embed(17, SIZE, name="factors")(tokens) * values[..., None]
            pairs = 0.5 * (jnp.square(e.sum(axis=1)) - jnp.square(e).sum(axis=1))
            x = nn.BatchNorm(use_running_average=False, name="norm")(pairs)
            x = nn.relu(nn.Dense(HIDDEN, name="deep")(x))
            x = nn.Dense(1, use_bias=False, name="h")(x)
            wide = nn.Embed(17, 1, name="weights")(tokens) * values[..., None]
            offset = self.param("offset", nn.initializers.zeros, (1,))
            return x + wide.sum(axis=1) + offset

    truth = {
        "factors/embedding": embedding(SIZE),
        **norm("norm"),
        **dense("deep", SIZE, HIDDEN, function="relu"),
        "h/kernel": kernel(HIDDEN, 1, head=True),
        # Nothing contracts what is looked up: whether it is a head is open.
        "weights/embedding": embedding(1, head=ANY),
        # Debatable: a table is among what it is added to.
        "offset": bias(ANY, ()),
    }
    return of_linen(Net(), [integers(BATCH, FIELDS), floats(BATCH, FIELDS)], truth)


@model
def gates_for_each_task() -> Model:
    """Ma et al. 2018 (MMoE): all experts run, and each task weighs them by a router."""
    experts, tasks = 3, 2

    def apply(p, x):
        h = jnp.einsum("bd,edh->beh", x, p["experts"]["w"]) + p["experts"]["b"]
        h, outputs = jax.nn.relu(h), []
        for gate, tower in zip(p["gates"], p["towers"], strict=True):
            weights = jax.nn.softmax(x @ gate, axis=-1)
            mixed = jnp.einsum("be,beh->bh", weights, h)
            y = jax.nn.relu(linear(mixed, tower["0"]))
            outputs.append(jax.nn.sigmoid(linear(y, tower["1"])))
        return outputs

    params = {
        "experts": {"w": floats(experts, 9, HIDDEN), "b": floats(experts, HIDDEN)},
        "gates": [floats(9, experts)] * tasks,
        "towers": [{"0": affine(HIDDEN, 8), "1": affine(8, 1)}] * tasks,
    }
    # Debatable: one kernel for each expert, but all of them read the same.
    shared = {"out_axis": ANY, "batch_axis": ANY}
    tower = {
        **affine_truth("0", HIDDEN, 8, function="relu"),
        **single_output("1", 8, function="sigmoid"),
    }
    truth = {
        "experts/w": kernel(9, ANY, 1, function="relu", **shared),
        "experts/b": bias("experts/w", **shared),
        "gates/0": kernel(9, experts, part="router"),
        "gates/1": kernel(9, experts, part="router"),
        **every("towers/{}/", tasks, tower),
    }
    return Model(apply, params, (floats(BATCH, 9),), truth)
