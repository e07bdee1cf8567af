"""Plain functions: branches, maps, unrolled models, shared towers and odd orders."""

import jax
import jax.numpy as jnp

from zoo.layers import affine, linear
from zoo.truths import (
    ANY,
    Model,
    below,
    bias,
    convolution,
    dense,
    embedding,
    every,
    floats,
    integers,
    kernel,
    model,
    norm,
    position,
    unused,
)
from zoo.truths import layer_norm as normed

BATCH, LENGTH, WIDTH, HIDDEN, VOCABULARY = 2, 6, 8, 12, 20


def vector(size=WIDTH):
    return {"scale": floats(size), "bias": floats(size)}


@model
def unrolled_dynamics() -> Model:
    """Schrittwieser et al. 2020 (MuZero): a state is unrolled over given actions."""
    actions, rows = 3, WIDTH + 3

    def apply(p, observation, chosen):
        s = jnp.tanh(linear(p["represent"], observation))

        def step(s, action):
            sa = jnp.concatenate([s, jax.nn.one_hot(action, actions)], axis=-1)
            h = jax.nn.relu(linear(p["dynamics"][0], sa))
            s = jnp.tanh(linear(p["dynamics"][1], h))
            h = jax.nn.relu(linear(p["predict"], s))
            heads = [linear(p[name], h) for name in ("policy", "value")]
            return s, (*heads, linear(p["reward"], s))

        return jax.lax.scan(step, s, chosen.T)[1]

    params = {
        "represent": affine(5, WIDTH),
        "dynamics": [affine(rows, HIDDEN), affine(HIDDEN, WIDTH)],
        "predict": affine(WIDTH, HIDDEN),
        "policy": affine(HIDDEN, actions),
        "value": affine(HIDDEN, 1),
        "reward": affine(WIDTH, 1),
    }
    truth = {
        **dense("represent", 5, WIDTH, function="tanh"),
        "dynamics/0/kernel": kernel(
            rows,
            HIDDEN,
            function="relu",
            recurrent=True,
            sections=[
                (0, ((0, WIDTH),), "recurrent", ANY),
                (0, ((WIDTH, rows),), "input", ANY),
            ],
        ),
        "dynamics/0/bias": bias("dynamics/0/kernel"),
        **dense("dynamics/1", HIDDEN, WIDTH, function="tanh", recurrent=True),
        **dense("predict", WIDTH, HIDDEN, function="relu"),
        **dense("policy", HIDDEN, actions, head=True),
        **dense("value", HIDDEN, 1, head=True),
        **dense("reward", WIDTH, 1, head=True),
    }
    inputs = (floats(BATCH, 5), integers(BATCH, 4))
    return Model(apply, params, inputs, truth)


@model
def siamese_towers() -> Model:
    """Koch et al. 2015: one encoder for both sides, and a kernel on their distance."""

    def encode(p, x):
        def conv(x, p, **options):
            y = jax.lax.conv(x, p["w"], (1, 1), "VALID", **options)
            return jax.nn.relu(y + p["b"][None, :, None, None])

        x = jax.lax.reduce_window(
            conv(x, p["conv1"]),
            -jnp.inf,
            jax.lax.max,
            (1, 1, 2, 2),
            (1, 1, 2, 2),
            "VALID",
        )
        x = conv(x, p["conv2"]).reshape(BATCH, -1)
        return jax.nn.sigmoid(linear(p["fc"], x))

    def apply(p, a, b):
        apart = jnp.abs(encode(p["tower"], a) - encode(p["tower"], b))
        return jax.nn.sigmoid(linear(p["same"], apart))

    params = {
        "tower": {
            "conv1": {"w": floats(4, 1, 3, 3), "b": floats(4)},
            "conv2": {"w": floats(6, 4, 2, 2), "b": floats(6)},
            "fc": affine(24, HIDDEN),
        },
        "same": affine(HIDDEN, 1),
    }
    axes = {"spatial_axis": (2, 3), "in_axis": 1, "out_axis": 0, "function": "relu"}
    own = {
        "conv1/w": convolution(9, 36, **axes),
        "conv1/b": bias("conv1/w"),
        "conv2/w": convolution(16, 24, **axes),
        "conv2/b": bias("conv2/w"),
        **dense("fc", 24, HIDDEN, function="sigmoid"),
    }
    truth = {
        **{path: [use] * 2 for path, use in below("tower/", own).items()},
        **dense("same", HIDDEN, 1, function="sigmoid", head=True),
    }
    image = floats(BATCH, 1, 8, 8)
    return Model(apply, params, (image, image), truth)


@model
def trained_or_not() -> Model:
    """A flag chooses noise by cond; lax.map over samples; a switch of functions."""

    def apply(p, x, train, kind):
        def one(x):
            h = jax.nn.leaky_relu(p["first"]["kernel"] @ x + p["first"]["bias"], 0.1)
            h = jax.lax.cond(train, lambda h: h * 0.5, lambda h: h, h)
            h = p["second"]["kernel"] @ h + p["second"]["bias"]
            h = jax.lax.switch(kind, [jnp.tanh, jnp.tanh], h)
            return jnp.matmul(h, p["third"])

        return jax.lax.map(one, x)

    params = {
        "first": {"kernel": floats(HIDDEN, 5), "bias": floats(HIDDEN)},
        "second": {"kernel": floats(WIDTH, HIDDEN), "bias": floats(WIDTH)},
        "third": floats(WIDTH, 3),
        "teacher": floats(WIDTH, 3),
    }
    rows = {"in_axis": 1, "out_axis": 0}
    truth = {
        **dense("first", 5, HIDDEN, function="leaky_relu", **rows),
        **dense("second", HIDDEN, WIDTH, function="tanh", **rows),
        "third": kernel(WIDTH, 3, head=True),
        "teacher": unused(),
    }
    scalar = integers()
    boolean = jax.ShapeDtypeStruct((), jnp.bool_)
    return Model(apply, params, (floats(BATCH, 5), boolean, scalar), truth)


@model
def sequential_recommender() -> Model:
    """Kang & McAuley 2018 (SASRec): candidates are scored by the items' own table."""
    heads, layers = 2, 2
    size = WIDTH // heads

    def attend(p, q, kv):
        def split(t):
            return jnp.stack(jnp.split(t, heads, axis=-1), axis=1)

        q, k, v = split(q @ p["q"]), split(kv @ p["k"]), split(kv @ p["v"])
        scores = jnp.matmul(q, jnp.matrix_transpose(k)) / size**0.5
        scores = scores + jnp.triu(jnp.full((LENGTH, LENGTH), -1e9), 1)
        y = jnp.matmul(jax.nn.softmax(scores), v)
        return jnp.concatenate([y[:, i] for i in range(heads)], axis=-1)

    def apply(p, items, positive, negative):
        x = p["items"][items] * WIDTH**0.5 + p["places"]
        x = x * (items != 0)[..., None]
        for b in p["blocks"]:
            q = normed(x, b["norm1"])
            x = q + attend(b["attention"], q, x)
            h = normed(x, b["norm2"])
            x = h + linear(b["conv2"], jax.nn.relu(linear(b["conv1"], h)))
        x = normed(x, p["norm"])
        return [(x * p["items"][i]).sum(-1) for i in (positive, negative)]

    one = {
        "norm1": vector(),
        "attention": {name: floats(WIDTH, WIDTH) for name in "qkv"},
        "norm2": vector(),
        "conv1": affine(WIDTH, WIDTH),
        "conv2": affine(WIDTH, WIDTH),
    }
    params = {
        "items": floats(VOCABULARY, WIDTH),
        "places": floats(LENGTH, WIDTH),
        "blocks": [one] * layers,
        "norm": vector(),
    }
    # Debatable: a normed stream continues, or each norm begins another.
    own = {
        **norm("norm1"),
        "attention/q": kernel(WIDTH, WIDTH, part="query"),
        "attention/k": kernel(WIDTH, WIDTH, part="key"),
        "attention/v": kernel(WIDTH, WIDTH, part="value", residual=ANY),
        **norm("norm2"),
        **dense("conv1", WIDTH, WIDTH, function="relu", part=ANY),
        **dense("conv2", WIDTH, WIDTH, residual=ANY, head=ANY),
    }
    table = embedding(WIDTH)
    truth = {
        "items": [embedding(WIDTH, multiplier=WIDTH**0.5), table, table],
        "places": position(),
        **every("blocks/{}/", layers, own),
        **norm("norm"),
    }
    inputs = (integers(BATCH, LENGTH),) * 3
    return Model(apply, params, inputs, truth)


@model
def feature_importance() -> Model:
    """Huang et al. 2019 (FiBiNET): squeezed fields, and a kernel between each pair."""
    fields, size, rows = 4, 5, 9
    pairs = [(i, j) for i in range(fields) for j in range(i + 1, fields)]

    def apply(p, ids, dense_x):
        e = jnp.stack([p["tables"][i][ids[:, i]] for i in range(fields)], axis=1)
        s = jax.nn.relu(e.mean(-1) @ p["squeeze"])
        v = e * jax.nn.relu(s @ p["excite"])[..., None]
        left = jnp.einsum("bfd,fde->bfe", v[:, :-1], p["bilinear"])
        crossed = [left[:, i] * v[:, j] for i, j in pairs]
        deep = jnp.concatenate([*crossed, dense_x], axis=-1)
        deep = jax.nn.relu(linear(p["deep1"], deep))
        wide = sum(p["wide"][i][ids[:, i]] for i in range(fields))
        return jax.nn.sigmoid(linear(p["deep2"], deep)[:, 0] + wide + p["bias"])

    inner = len(pairs) * size + 3
    params = {
        "tables": [floats(rows, size)] * fields,
        "squeeze": floats(fields, 2),
        "excite": floats(2, fields),
        "bilinear": floats(fields - 1, size, size),
        "deep1": affine(inner, HIDDEN),
        "deep2": affine(HIDDEN, 1),
        "wide": [floats(rows)] * fields,
        "bias": floats(),
    }
    truth = {
        **{f"tables/{i}": embedding(size) for i in range(fields)},
        "squeeze": kernel(fields, 2, function="relu"),
        "excite": kernel(2, fields, function="relu", part="gate"),
        # Debatable: the products are with other fields, and have no function.
        "bilinear": kernel(size, size, 1, 2, batch_axis=0, part=ANY),
        **dense("deep1", inner, HIDDEN, function="relu"),
        **dense("deep2", HIDDEN, 1, function="sigmoid", head=True),
        # A number for each row: no features.
        **{f"wide/{i}": embedding(1, 0, ()) for i in range(fields)},
        # Debatable: the sum has looked up numbers too.
        "bias": bias(ANY, ()),
    }
    inputs = (integers(BATCH, fields), floats(BATCH, 3))
    return Model(apply, params, inputs, truth)
