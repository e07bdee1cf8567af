"""Models of competitions: clicks, sales, drugs, searches, as entrants write them."""

import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from zoo.flax_layers import of_linen
from zoo.nnx_models import of_nnx
from zoo.truths import (
    ANY,
    Model,
    Use,
    bias,
    bias_cut,
    cut,
    dense,
    embedding,
    every,
    floats,
    integers,
    kernel,
    model,
    norm,
    one_of,
    unknown,
    unused,
)


class Clicks(NamedTuple):
    """Parameters of `wide_and_deep`."""

    wide: object
    crossed: object
    tables: tuple
    w1: object
    b1: object
    w2: object
    b2: object
    deep_logit: object
    bias: object
    old_slope: object


@model
def wide_and_deep() -> Model:
    """Cheng et al. 2016: numbers of columns and of crossed columns, and a deep net.

    A NamedTuple of leaves, one of which nobody uses; the loss is returned too.
    """
    rows, size, numbers, crossed = (7, 11, 5), 4, 3, 23

    def apply(p, cats, nums, y):
        starts = jnp.array([0, 7, 18])
        flat = cats + starts
        pair = (cats[:, 0] * 11 + cats[:, 1]) % crossed
        wide = p.wide[flat].sum(axis=1) + p.crossed[pair]
        deep = [table[cats[:, i]] for i, table in enumerate(p.tables)]
        h = jnp.concatenate([*deep, jnp.log1p(jnp.abs(nums))], axis=1)
        h = jax.nn.relu(h @ p.w1 + p.b1)
        h = jax.nn.relu(h @ p.w2 + p.b2)
        logit = wide + h @ p.deep_logit + p.bias
        loss = jnp.mean(
            jnp.maximum(logit, 0) - logit * y + jnp.log1p(jnp.exp(-abs(logit)))
        )
        return loss, jax.nn.sigmoid(logit)

    inputs = len(rows) * size + numbers
    params = Clicks(
        wide=floats(sum(rows)), crossed=floats(crossed),
        tables=tuple(floats(n, size) for n in rows),
        w1=floats(inputs, 13), b1=floats(13), w2=floats(13, 9), b2=floats(9),
        deep_logit=floats(9), bias=floats(), old_slope=floats(),
    )  # fmt: skip
    # Debatable: what follows a logit that a loss and a sigmoid read.
    last = {"head": ANY, "function": ANY, "part": ANY}
    truth = {
        "wide": embedding(1, 0, (), **last),
        "crossed": embedding(1, 0, (), **last),
        **{f"tables/{i}": embedding(size) for i in range(len(rows))},
        "w1": kernel(inputs, 13, function="relu"),
        "b1": bias("w1"),
        "w2": kernel(13, 9, function="relu"),
        "b2": bias("w2"),
        "deep_logit": Use(
            "kernel", 0, (), fan_in=9, fan_out=1, **{**last, "head": True}
        ),
        # Debatable: looked up numbers are in the sum too.
        "bias": bias(ANY, (), part=ANY),
        "old_slope": unused(),
    }
    return Model(apply, params, (integers(6, 3), floats(6, 3), floats(6)), truth)


@model
def factors_and_a_net() -> Model:
    """Guo et al. 2017 (DeepFM): one table for pairs and for the net, a sigmoid."""
    fields, size, rows = 4, 5, 29

    def apply(p, x):
        v = p["fm"]["v"][x]
        linear_part = p["fm"]["w0"] + jnp.sum(p["fm"]["w"][x][..., 0], axis=-1)
        summed = v.sum(axis=1)
        pairs = 0.5 * (summed * summed - (v * v).sum(axis=1)).sum(axis=-1)
        h = v.reshape(v.shape[0], -1)
        for layer in p["dnn"]["hidden"]:
            h = h @ layer["kernel"] + layer["bias"]
            h = jnp.where(h > 0, h, 0)
        deep = jnp.squeeze(h @ p["dnn"]["out"], axis=-1)
        return 1 / (1 + jnp.exp(-(linear_part + pairs + deep)))

    dims = (fields * size, 14, 9)
    hidden = [
        {"kernel": floats(a, b), "bias": floats(b)} for a, b in itertools.pairwise(dims)
    ]
    params = {
        "fm": {"v": floats(rows, size), "w": floats(rows, 1), "w0": floats()},
        "dnn": {"hidden": hidden, "out": floats(9, 1)},
    }
    truth = {
        "fm/v": embedding(size),
        # Debatable: a looked up number that is added to the output.
        "fm/w": embedding(1, head=ANY),
        "fm/w0": bias(ANY, ()),
        **dense("dnn/hidden/0", dims[0], 14, function="relu"),
        **dense("dnn/hidden/1", 14, 9, function="relu"),
        # Debatable: where other terms come between.
        "dnn/out": kernel(9, 1, function=one_of("sigmoid", "identity"), head=True),
    }
    return Model(apply, params, (integers(6, fields),), truth)


@model
def sales_of_stores() -> Model:
    """A GRU reads the past; another foretells, fed with what it said before."""
    batch, past, future, feats, state = 4, 7, 3, 3, 10
    order = ("reset gate", "update gate")

    def gru(p, x, h):
        ru = jax.nn.sigmoid(x @ p["Wx"] + h @ p["Wh"] + p["b"])
        r, u = jnp.split(ru, 2, axis=-1)
        c = jnp.tanh(x @ p["Cx"] + (r * h) @ p["Ch"] + p["cb"])
        return u * h + (1 - u) * c

    def apply(p, store, weekday, sales, known):
        s = jnp.concatenate([p["store"][store], sales.mean(1, keepdims=True)], axis=1)
        x = jnp.concatenate([sales[..., None], p["weekday"][weekday]], axis=-1)
        start = jnp.tanh(s @ p["init"]["w"] + p["init"]["b"])

        def read(h, x_t):
            return gru(p["encoder"], x_t, h), None

        h, _ = jax.lax.scan(read, start, x.transpose(1, 0, 2))

        def tell(carry, known_t):
            h, last = carry
            h = gru(p["decoder"], jnp.concatenate([last[:, None], known_t], -1), h)
            y = last + (h @ p["out"]["w"] + p["out"]["b"])[:, 0]
            return (h, y), y

        _, ys = jax.lax.scan(tell, (h, sales[:, -1]), known.transpose(1, 0, 2))
        return ys.T

    def cell(inputs):
        return {
            "Wx": floats(inputs, 2 * state), "Wh": floats(state, 2 * state),
            "b": floats(2 * state), "Cx": floats(inputs, state),
            "Ch": floats(state, state), "cb": floats(state),
        }  # fmt: skip

    params = {
        "store": floats(11, 5), "weekday": floats(8, 4),
        "init": {"w": floats(6, state), "b": floats(state)},
        "encoder": cell(5), "decoder": cell(1 + feats),
        "out": {"w": floats(state, 1), "b": floats(1)},
    }  # fmt: skip

    def told(path, inputs, **rest):
        both = [f"{path}/Wx", f"{path}/Wh"]
        gates = {"function": "sigmoid", "sections": cut(1, state, order)}
        new = {"function": "tanh", "part": "candidate"}
        return {
            f"{path}/Wx": kernel(inputs, 2 * state, **{**gates, **rest}),
            f"{path}/Wh": kernel(state, 2 * state, recurrent=True, **gates),
            f"{path}/b": bias(both, sections=bias_cut(state, order)),
            f"{path}/Cx": kernel(inputs, state, **new, **rest),
            f"{path}/Ch": kernel(state, state, recurrent=True, **new),
            f"{path}/cb": bias([f"{path}/Cx", f"{path}/Ch"], part="candidate"),
        }

    # Debatable: by way of what was foretold, what is not hidden-to-hidden comes back.
    around = {"recurrent": ANY, "sections": ANY}
    truth = {
        "store": embedding(5),
        "weekday": embedding(4),
        **dense("init", 6, state, weight="w", offset="b", function="tanh"),
        **told("encoder", 5),
        **told("decoder", 1 + feats, **around),
        # Debatable: steps that are added up over time.
        "out/w": kernel(state, 1, recurrent=ANY, head=ANY, residual=ANY),
        "out/b": bias("out/w", ()),
    }
    inputs = (integers(batch), integers(batch, past), floats(batch, past),
              floats(batch, future, feats))  # fmt: skip
    return Model(apply, params, inputs, truth)


@model
def actions_of_drugs() -> Model:
    """A net of Kaggle's MoA, Linen: batch norms first, two heads, smoothed labels."""
    from flax import linen as nn

    inputs, hidden, targets, others = 9, 14, 5, 7

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x, y, y_other):
            def normed(name):
                return nn.BatchNorm(use_running_average=False, name=name)

            x = normed("bn1")(x)
            x = nn.leaky_relu(nn.Dense(hidden, name="dense1")(x), 0.01)
            x = normed("bn2")(x)
            x = nn.silu(nn.Dense(11, name="dense2")(x))
            x = normed("bn3")(x)
            scored = nn.Dense(targets, name="scored")(x)
            other = nn.Dense(others, use_bias=False, name="nonscored")(x)

            def bce(z, y):
                y = y * 0.998 + 0.001
                return -(y * nn.log_sigmoid(z) + (1 - y) * nn.log_sigmoid(-z)).mean()

            return bce(scored, y) + 0.3 * bce(other, y_other), nn.sigmoid(scored)

    # Debatable: functions of what a loss reads on both sides.
    last = {"function": ANY, "head": True, "multiplier": ANY}
    truth = {
        **norm("bn1"),
        **dense("dense1", inputs, hidden, function="leaky_relu"),
        **norm("bn2"),
        **dense("dense2", hidden, 11, function="silu"),
        **norm("bn3"),
        "scored/kernel": kernel(11, targets, **last),
        "scored/bias": bias("scored/kernel", multiplier=ANY),
        "nonscored/kernel": kernel(11, others, **last),
    }
    inputs_ = [floats(6, inputs), floats(6, targets), floats(6, others)]
    return of_linen(Net(), inputs_, truth)


@model
def waves_for_series() -> Model:
    """A WaveNet for web traffic: dilated windows, skips summed, stacked leaves.

    Windows are sums of products of shifted series, by kernels of each tap.
    """
    layers, channels, skips, batch, length = 3, 8, 11, 2, 13
    taps = 2

    def shifted(x, n):
        return jnp.pad(x, ((0, 0), (n, 0), (0, 0)))[:, : x.shape[1]]

    def apply(p, x, page):
        h = jnp.concatenate([x, jnp.repeat(p["page"][page][:, None], length, 1)], -1)
        h = jnp.tanh(h @ p["front"]["w"] + p["front"]["b"])
        total = jnp.zeros((batch, length, skips))
        for i in range(layers):
            z = p["conv_b"][i]
            for k in range(taps):
                z = z + shifted(h, k * 2**i) @ p["conv_w"][i, k]
            filtered, gated = z[..., :channels], z[..., channels:]
            z = jnp.tanh(filtered) * jax.nn.sigmoid(gated)
            total = total + z @ p["skip_w"][i]
            h = h + z @ p["res_w"][i]
        y = jax.nn.relu(jax.nn.relu(total) @ p["post"]["w"] + p["post"]["b"])
        return y @ p["last"]

    params = {
        "page": floats(17, 5),
        "front": {"w": floats(2 + 5, channels), "b": floats(channels)},
        "conv_w": floats(layers, taps, channels, 2 * channels),
        "conv_b": floats(layers, 2 * channels),
        "skip_w": floats(layers, channels, skips),
        "res_w": floats(layers, channels, channels),
        "post": {"w": floats(skips, 9), "b": floats(9)},
        "last": floats(9, 1),
    }
    halves = [
        (3, ((0, channels),), ANY, "tanh"),
        (3, ((channels, 2 * channels),), "gate", "sigmoid"),
    ]
    # Debatable: taps as kernels that are indexed.
    tap = Use("kernel", 2, 3, stack_axis=(0, 1), fan_in=channels, fan_out=2 * channels,
              function=ANY, part=ANY, sections=halves)  # fmt: skip
    # Debatable: a sum of skips that begins at nothing; the last sum is not read again.
    # All skips are one contraction, with the layers among its inputs, or one of each.
    # This was opened after the first run, which found the former.
    added = {"in_axis": ANY, "stack_axis": ANY, "fan_in": ANY, "function": ANY}
    truth = {
        "page": embedding(5),
        **dense("front", 7, channels, weight="w", offset="b", function="tanh"),
        "conv_w": [tap] * (layers * taps),
        "conv_b": [bias("conv_w", 1, stack_axis=0, part=ANY, sections=ANY)] * layers,
        "skip_w": [
            Use("kernel", out_axis=2, fan_out=skips, residual=ANY, **added)
        ] * layers,
        # What the last layer would add is not read.
        "res_w": [
            kernel(channels, channels, 1, 2, stack_axis=0, residual=(i, layers - 1))
            for i in range(layers - 1)
        ],
        **dense("post", skips, 9, weight="w", offset="b", function="relu"),
        "last": kernel(9, 1, head=True),
    }  # fmt: skip
    return Model(apply, params, (floats(batch, length, 2), integers(batch)), truth)


@model
def searched_in_batches() -> Model:
    """Two towers, NNX: masked means of histories; losses of all pairs in the batch."""
    from flax import nnx

    users, items, d, out, batch = 19, 23, 6, 8, 5

    class Tower(nnx.Module):
        def __init__(self, a, rngs):
            self.fc1 = nnx.Linear(a, 13, rngs=rngs)
            self.ln = nnx.LayerNorm(13, rngs=rngs)
            self.fc2 = nnx.Linear(13, out, use_bias=False, rngs=rngs)

        def __call__(self, x):
            x = self.fc2(nnx.gelu(self.ln(self.fc1(x))))
            return x * jax.lax.rsqrt((x * x).sum(-1, keepdims=True) + 1e-6)

    class Net(nnx.Module):
        def __init__(self, rngs):
            self.user = nnx.Embed(users, d, rngs=rngs)
            self.item = nnx.Embed(items, d, rngs=rngs)
            self.query, self.candidate = Tower(2 * d, rngs), Tower(d + 2, rngs)
            self.log_temperature = nnx.Param(jnp.zeros(()))

        def __call__(self, user, history, item, numbers):
            seen = history != 0
            rows = jnp.where(seen[..., None], self.item(history), 0.0)
            past = rows.sum(1) / jnp.clip(seen.sum(1)[:, None], 1)
            q = self.query(jnp.concatenate([self.user(user), past], -1))
            c = self.candidate(jnp.concatenate([self.item(item), numbers], -1))
            logits = q @ c.T * jnp.exp(self.log_temperature[...])
            return -jnp.diagonal(jax.nn.log_softmax(logits, axis=1)).mean()

    def tower(inputs):
        return {
            **dense("fc1", inputs, 13),
            **norm("ln"),
            # Debatable: the product of both is a contraction, but without a leaf.
            "fc2/kernel": kernel(13, out, head=ANY),
        }

    truth = {
        "user/embedding": embedding(d),
        "item/embedding": [embedding(d)] * 2,
        **every("query/", 1, tower(2 * d)),
        **every("candidate/", 1, tower(d + 2)),
        "log_temperature": unknown(),
    }
    inputs = [integers(batch), integers(batch, 7), integers(batch), floats(batch, 2)]
    return of_nnx(Net, inputs, truth)
