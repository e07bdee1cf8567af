"""Views that are compared, points that are turned, images that are enlarged."""

import jax
import jax.numpy as jnp

from zoo.equinox_models import linear as eqx_linear
from zoo.equinox_models import of_equinox
from zoo.flax_layers import of_linen, window
from zoo.haiku_models import linear as hk_linear
from zoo.haiku_models import of_haiku
from zoo.layers import conv
from zoo.truths import (
    ANY,
    WRITES,
    Model,
    bias,
    convolution,
    dense,
    floats,
    kernel,
    model,
    norm,
    scale,
    shift,
)

B = 3


@model
def agreement_of_views() -> Model:
    """Chen et al. 2020 (SimCLR), plain, with its loss: both views in one batch.

    Pairs are found by a rolled identity, a view itself is masked.
    """
    c1, c2, hidden, out = 5, 8, 9, 7

    def bn(x, p, axes):
        m, v = x.mean(axes, keepdims=True), x.var(axes, keepdims=True)
        return (x - m) / jnp.sqrt(v + 1e-5) * p["gamma"] + p["beta"]

    def encoder(p, x):
        for q, stride in zip(p, (1, 2), strict=True):
            x = jax.nn.relu(bn(conv(x, q["w"], stride), q["bn"], (0, 1, 2)))
        return x.mean((1, 2))

    def head(p, h):
        h = jax.nn.relu(bn(h @ p["w1"], p["bn1"], 0))
        return h @ p["w2"]

    def apply(p, x_i, x_j):
        z = head(p["g"], encoder(p["f"], jnp.concatenate([x_i, x_j])))
        z = z / (jnp.linalg.norm(z, axis=1, keepdims=True) + 1e-8)
        sim = z @ z.T / 0.5 - 1e9 * jnp.eye(2 * B)
        pairs = jnp.roll(jnp.eye(2 * B), B, axis=1)
        return -(jax.nn.log_softmax(sim) * pairs).sum(1).mean()

    def pair(n):
        return {"gamma": floats(n), "beta": floats(n)}

    params = {
        "f": [
            {"w": floats(3, 3, 3, c1), "bn": pair(c1)},
            {"w": floats(3, 3, c1, c2), "bn": pair(c2)},
        ],
        "g": {"w1": floats(c2, hidden), "bn1": pair(hidden), "w2": floats(hidden, out)},
    }
    truth = {
        "f/0/w": convolution(27, 9 * c1),
        **norm("f/0/bn", "gamma", "beta"),
        "f/1/w": convolution(9 * c1, 9 * c2),
        **norm("f/1/bn", "gamma", "beta"),
        "g/w1": kernel(c2, hidden),
        **norm("g/bn1", "gamma", "beta"),
        # Debatable: products of all pairs are a contraction, but without a leaf.
        "g/w2": kernel(hidden, out, head=ANY, part=ANY),
    }
    image = floats(B, 6, 8, 3)
    return Model(apply, params, (image, image), truth)


@model
def codes_of_clusters() -> Model:
    """Caron et al. 2020 (SwAV), Linen, with its loss: crops foretell others' codes.

    Codes are by Sinkhorn's rounds, through which no gradient goes.
    """
    from flax import linen as nn

    width, prototypes = 9, 6

    def sinkhorn(scores):
        q = jnp.exp(scores / 0.05).T
        q = q / q.sum()
        for _ in range(3):
            q = q / q.sum(axis=1, keepdims=True) / prototypes
            q = q / q.sum(axis=0, keepdims=True) / B
        return jax.lax.stop_gradient((q * B).T)

    class Net(nn.Module):
        @nn.compact
        def __call__(self, crop_a, crop_b):
            x = jnp.concatenate([crop_a, crop_b], axis=0)
            x = nn.relu(nn.Conv(5, (3, 3), (2, 2), name="conv")(x)).mean((1, 2))
            x = nn.Dense(11, name="projection_0")(x)
            x = nn.BatchNorm(use_running_average=False, name="projection_1")(x)
            x = nn.Dense(width, name="projection_3")(nn.relu(x))
            x = x / jnp.linalg.norm(x, axis=-1, keepdims=True)
            s = nn.Dense(prototypes, use_bias=False, name="prototypes")(x)
            a, b = s[:B], s[B:]
            loss = -(sinkhorn(a) * nn.log_softmax(b / 0.1)).sum(-1).mean()
            return loss - (sinkhorn(b) * nn.log_softmax(a / 0.1)).sum(-1).mean()

    truth = {
        **window("conv", 27, 45, function="relu"),
        **dense("projection_0", 5, 11),
        **norm("projection_1"),
        **dense("projection_3", 11, width),
        # Debatable: temperatures of the loss and of the codes.
        "prototypes/kernel": kernel(
            width, prototypes, head=True, function=ANY, multiplier=ANY
        ),
    }
    image = floats(B, 8, 6, 3)
    return of_linen(Net(), [image, image], truth)


@model
def features_that_differ() -> Model:
    """Zbontar et al. 2021 (Barlow twins), Haiku, with its loss: correlations."""
    import haiku as hk

    sizes = (11, 9, 8)

    def fun(y1, y2):
        layers = [hk.Linear(n, with_bias=False, name=f"proj_{n}") for n in sizes]
        bns = [hk.BatchNorm(True, True, 0.9, name=f"bn_{n}") for n in sizes[:-1]]
        backbone = hk.Sequential(
            [hk.Linear(13, name="stem"), jax.nn.relu, hk.Linear(10, name="features")]
        )

        def embed(x):
            x = backbone(x)
            for layer, bn in zip(layers[:-1], bns, strict=True):
                x = jax.nn.relu(bn(layer(x), is_training=True))
            z = layers[-1](x)
            return (z - z.mean(0)) / z.std(0)

        c = embed(y1).T @ embed(y2) / B
        on = jnp.square(jnp.diagonal(c) - 1).sum()
        off = jnp.square(c * (1 - jnp.eye(sizes[-1]))).sum()
        return on + 0.005 * off

    once = {
        **hk_linear("stem", 7, 13, function="relu"),
        **hk_linear("features", 13, 10),
        "proj_11/w": kernel(10, 11),
        **norm("bn_11", offset="offset"),
        "proj_9/w": kernel(11, 9),
        **norm("bn_9", offset="offset"),
        # Debatable: what is correlated is contracted, but without a leaf.
        "proj_8/w": kernel(9, 8, head=ANY),
    }
    # Leaves of hk.BatchNorm have an axis for the batch.
    for n in sizes[:-1]:
        once |= {f"bn_{n}/scale": scale(1), f"bn_{n}/offset": shift(1)}
    truth = {path: [use] * 2 for path, use in once.items()}
    return of_haiku(fun, [floats(B, 7), floats(B, 7)], truth)


@model
def points_that_are_turned() -> Model:
    """Qi et al. 2017 (PointNet with T-Nets), Equinox: networks make matrices.

    An identity is added to what the last layer says; a mask of points is given.
    """
    import equinox as eqx

    n = 7

    class TNet(eqx.Module):
        k: int = eqx.field(static=True)
        conv1: eqx.nn.Linear
        conv2: eqx.nn.Linear
        fc1: eqx.nn.Linear
        fc2: eqx.nn.Linear

        def __init__(self, k, key):
            keys = jax.random.split(key, 4)
            self.k = k
            self.conv1 = eqx.nn.Linear(k, 6, key=keys[0])
            self.conv2 = eqx.nn.Linear(6, 11, key=keys[1])
            self.fc1 = eqx.nn.Linear(11, 8, key=keys[2])
            self.fc2 = eqx.nn.Linear(8, k * k, key=keys[3])

        def __call__(self, x, mask):
            x = jax.nn.relu(jax.vmap(self.conv1)(x))
            x = jax.nn.relu(jax.vmap(self.conv2)(x))
            x = jnp.where(mask[:, None], x, -jnp.inf).max(axis=0)
            x = self.fc2(jax.nn.relu(self.fc1(x)))
            return x.reshape(self.k, self.k) + jnp.eye(self.k)

    class PointNet(eqx.Module):
        input_transform: TNet
        conv1: eqx.nn.Linear
        feature_transform: TNet
        conv2: eqx.nn.Linear
        norm: eqx.nn.LayerNorm
        fc: eqx.nn.Linear

        def __init__(self, key):
            keys = jax.random.split(key, 5)
            self.input_transform = TNet(3, keys[0])
            self.conv1 = eqx.nn.Linear(3, 5, key=keys[1])
            self.feature_transform = TNet(5, keys[2])
            self.conv2 = eqx.nn.Linear(5, 13, key=keys[3])
            self.norm = eqx.nn.LayerNorm(13)
            self.fc = eqx.nn.Linear(13, 4, key=keys[4])

        def __call__(self, x, mask):
            x = x @ self.input_transform(x, mask)
            x = jax.nn.relu(jax.vmap(self.conv1)(x))
            turn = self.feature_transform(x, mask)
            x = x @ turn
            x = jax.nn.relu(jax.vmap(self.norm)(jax.vmap(self.conv2)(x)))
            x = jnp.where(mask[:, None], x, -jnp.inf).max(axis=0)
            off = jnp.eye(5) - turn @ turn.T
            return jax.nn.log_softmax(self.fc(x)), jnp.square(off).sum()

    def tnet(path, k):
        return {
            **eqx_linear(f"{path}/conv1", k, 6, function="relu"),
            **eqx_linear(f"{path}/conv2", 6, 11, function="relu"),
            **eqx_linear(f"{path}/fc1", 11, 8, function="relu"),
            # Debatable: an identity is added, and it is contracted with what it turns.
            **eqx_linear(f"{path}/fc2", 8, k * k, function=ANY, residual=ANY),
        }

    truth = {
        **tnet("input_transform", 3),
        **eqx_linear("conv1", 3, 5, function="relu"),
        **tnet("feature_transform", 5),
        **eqx_linear("conv2", 5, 13),
        **norm("norm", "weight"),
        **eqx_linear("fc", 13, 4, head=True),
    }
    mask = jax.ShapeDtypeStruct((B, n), bool)
    return of_equinox(PointNet, [floats(B, n, 3), mask], truth)


@model
def images_enlarged_densely() -> Model:
    """Wang et al. 2018 (ESRGAN), plain: dense blocks in blocks, each times 0.2."""
    c, growth, blocks, inner = 6, 4, 2, 2

    def lrelu(x):
        return jnp.where(x >= 0, x, 0.2 * x)

    def window_of(p, x):
        return conv(x, p["weight"]) + p["bias"]

    def rdb(p, x):
        x1 = lrelu(window_of(p["conv1"], x))
        x2 = lrelu(window_of(p["conv2"], jnp.concatenate([x, x1], -1)))
        x3 = window_of(p["conv3"], jnp.concatenate([x, x1, x2], -1))
        return x3 * 0.2 + x

    def rrdb(p, x):
        out = x
        for i in range(inner):
            out = rdb(p[f"rdb{i + 1}"], out)
        return out * 0.2 + x

    def apply(p, x):
        feat = window_of(p["conv_first"], x)
        body = feat
        for q in p["body"]:
            body = rrdb(q, body)
        feat = feat + window_of(p["conv_body"], body)
        feat = jnp.repeat(jnp.repeat(feat, 2, axis=1), 2, axis=2)
        feat = lrelu(window_of(p["conv_up1"], feat))
        return window_of(p["conv_last"], lrelu(window_of(p["conv_hr"], feat)))

    def layer(a, b):
        return {"weight": floats(3, 3, a, b), "bias": floats(b)}

    one = {
        "conv1": layer(c, growth),
        "conv2": layer(c + growth, growth),
        "conv3": layer(c + 2 * growth, c),
    }
    params = {
        "conv_first": layer(3, c),
        "body": [{f"rdb{i + 1}": one for i in range(inner)} for _ in range(blocks)],
        "conv_body": layer(c, c), "conv_up1": layer(c, c), "conv_hr": layer(c, 5),
        "conv_last": layer(5, 3),
    }  # fmt: skip
    names = ("weight", "bias")

    def truth_of(path, a, b, **rest):
        return window(path, 9 * a, 9 * b, names, **rest)

    truth = {
        **truth_of("conv_first", 3, c),
        # Debatable: a stream within a branch of another.
        **truth_of("conv_body", c, c, residual=WRITES),
        **truth_of("conv_up1", c, c, function="leaky_relu"),
        **truth_of("conv_hr", c, 5, function="leaky_relu"),
        **truth_of("conv_last", 5, 3, head=True),
    }
    for i in range(blocks):
        for j in range(inner):
            path = f"body/{i}/rdb{j + 1}"
            act = {"function": "leaky_relu"}
            truth |= {
                **truth_of(f"{path}/conv1", c, growth, **act),
                **truth_of(f"{path}/conv2", c + growth, growth, **act),
                # Debatable: each 0.2, of the block and of the block of blocks.
                **truth_of(
                    f"{path}/conv3", c + 2 * growth, c, residual=WRITES, multiplier=ANY
                ),
                f"{path}/conv3/bias": bias(f"{path}/conv3/weight", multiplier=ANY),
            }
    return Model(apply, params, (floats(B, 4, 5, 3),), truth)


@model
def words_in_images() -> Model:
    """Shi et al. 2016 (CRNN), Linen: columns of an image are steps of simple cells.

    Rows are flattened into features; letters are by log-softmax, with a blank.
    """
    from flax import linen as nn

    state, letters = 7, 11

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.relu(nn.Conv(5, (3, 3), name="conv0")(x))
            x = nn.max_pool(x, (2, 2), (2, 2))
            x = nn.Conv(6, (3, 3), use_bias=False, name="conv1")(x)
            x = nn.relu(nn.BatchNorm(use_running_average=False, name="bn1")(x))
            x = nn.max_pool(x, (2, 1), (2, 1)).transpose(0, 2, 1, 3)
            x = x.reshape(*x.shape[:2], -1)
            cell = nn.SimpleCell(state, name="cell")
            x = nn.RNN(cell, name="rnn")(x)
            return nn.log_softmax(nn.Dense(letters + 1, name="letters")(x))

    flat = 2 * 6
    truth = {
        **window("conv0", 9, 45, function="relu"),
        "conv1/kernel": convolution(45, 54),
        **norm("bn1"),
        "cell/i/kernel": kernel(flat, state, function="tanh"),
        "cell/i/bias": bias("cell/i/kernel"),
        "cell/h/kernel": kernel(state, state, function="tanh", recurrent=True),
        **dense("letters", state, letters + 1, head=True),
    }
    return of_linen(Net(), [floats(B, 8, 10, 1)], truth)
