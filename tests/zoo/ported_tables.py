"""Ports for tables and agents: soft trees, columns as words, contexts, teams."""

import itertools

import jax
import jax.numpy as jnp

from zoo.flax_layers import GATES, of_linen
from zoo.haiku_models import linear as hk_linear
from zoo.haiku_models import normalized, of_haiku
from zoo.nnx_models import of_nnx
from zoo.truths import (
    ANY,
    Model,
    below,
    bias,
    dense,
    either,
    embedding,
    floats,
    integers,
    kernel,
    model,
    norm,
    one_of,
    unknown,
)

B, D, F, HEADS, SIZE = 4, 12, 15, 3, 4
INNER = HEADS * SIZE


@model
def trees_that_are_soft() -> Model:
    """Popov et al. 2020 (NODE), plain: all splits at once; layers see all before.

    A split's column is a softmax of leaves; values of ends are weighed by paths.
    """
    n, trees, depth, units = 7, 5, 3, 2

    def layer(p, x):
        choice = jax.nn.softmax(p["feature_selection_logits"], axis=0)
        chosen = jnp.einsum("bi,itd->btd", x, choice)
        logits = (chosen - p["feature_thresholds"]) * jnp.exp(-p["log_temperatures"])
        right = jax.nn.sigmoid(logits)
        bins = jnp.stack([1 - right, right], axis=-1)
        paths = jnp.ones((B, trees, 1))
        for j in range(depth):
            paths = paths[..., None] * bins[:, :, j][:, :, None]
            paths = paths.reshape(B, trees, -1)
        return jnp.einsum("btc,tuc->btu", paths, p["response"])

    def apply(p, x):
        outs = []
        for q in p["layers"]:
            y = layer(q, x)
            x = jnp.concatenate([x, y.reshape(B, -1)], axis=-1)
            outs.append(y)
        return jnp.concatenate(outs, axis=1)[..., 0].mean(axis=1)

    def shapes(inputs):
        return {
            "feature_selection_logits": floats(inputs, trees, depth),
            "feature_thresholds": floats(trees, depth),
            "log_temperatures": floats(trees, depth),
            "response": floats(trees, units, 2**depth),
        }

    truth = {}
    for i in range(2):
        truth |= {
            f"layers/{i}/feature_selection_logits": unknown(),
            # Debatable: it is subtracted, behind a kernel that is made of leaves.
            f"layers/{i}/feature_thresholds": either("bias", "unknown"),
            f"layers/{i}/log_temperatures": unknown(),
            # Debatable: trees have kernels of their own, or, as their mean is taken,
            # inputs of one.
            f"layers/{i}/response": kernel(
                one_of(2**depth, trees * 2**depth),
                units,
                ANY,
                1,
                batch_axis=ANY,
                multiplier=ANY,
                head=ANY,
            ),
        }
    params = {"layers": [shapes(n), shapes(n + trees * units)]}
    return Model(apply, params, (floats(B, n),), truth)


@model
def columns_as_words() -> Model:
    """Huang et al. 2020 (TabTransformer), Haiku: columns attend, numbers do not.

    Some features of a word are its column's own.
    """
    import haiku as hk

    sizes, conts, layers, own = (5, 7, 4), 2, 2, 3

    def fun(cats, numbers):
        rows = [
            hk.Embed(n, D - own, name=f"column_{i}")(cats[:, i])
            for i, n in enumerate(sizes)
        ]
        init = hk.initializers.RandomNormal(0.02)
        columns = hk.get_parameter("columns", [len(sizes), own], init=init)
        columns = jnp.broadcast_to(columns, (B, *columns.shape))
        x = jnp.concatenate([columns, jnp.stack(rows, axis=1)], axis=-1)
        for i in range(layers):
            h = hk.LayerNorm(-1, True, True, name=f"attn_norm_{i}")(x)
            attend = hk.MultiHeadAttention(
                HEADS, SIZE, model_size=D, name=f"attn_{i}",
                w_init=hk.initializers.VarianceScaling(),
            )  # fmt: skip
            x = x + attend(h, h, h)
            h = hk.LayerNorm(-1, True, True, name=f"ff_norm_{i}")(x)
            h, g = jnp.split(hk.Linear(2 * F, name=f"ff_in_{i}")(h), 2, axis=-1)
            x = x + hk.Linear(D, name=f"ff_out_{i}")(h * jax.nn.gelu(g))
        numbers = hk.LayerNorm(-1, True, True, name="cont_norm")(numbers)
        y = jnp.concatenate([x.reshape(B, -1), numbers], axis=-1)
        y = jax.nn.relu(hk.Linear(13, name="mlp_0")(y))
        return hk.Linear(1, name="mlp_1")(y)

    truth = {
        **{f"column_{i}/embeddings": embedding(D - own) for i in range(len(sizes))},
        # Debatable: features that say which column it is, beside those of its row.
        "~/columns": either("position", "embedding"),
        **normalized("cont_norm"),
        **hk_linear("mlp_0", len(sizes) * D + conts, 13, function="relu"),
        **hk_linear("mlp_1", 13, 1, head=True),
    }
    halves = [
        (1, ((0, F),), "up", "identity"),
        (1, ((F, 2 * F),), "gate", "gelu"),
    ]
    for i in range(layers):
        out = {"part": "attention output", "residual": (2 * i, 2 * layers)}
        truth |= {
            **normalized(f"attn_norm_{i}"),
            **{
                path: use
                for part in ("query", "key", "value")
                for path, use in hk_linear(
                    f"attn_{i}/{part}", D, INNER, part=part
                ).items()
            },
            **hk_linear(f"attn_{i}/linear", INNER, D, **out),
            **normalized(f"ff_norm_{i}"),
            f"ff_in_{i}/w": kernel(D, 2 * F, function=ANY, sections=halves),
            f"ff_in_{i}/b": bias(
                f"ff_in_{i}/w", sections=[(0, *half[1:3], None) for half in halves]
            ),
            **hk_linear(f"ff_out_{i}", F, D, residual=(2 * i + 1, 2 * layers)),
        }
    return of_haiku(fun, [integers(B, len(sizes)), floats(B, conts)], truth)


@model
def functions_from_contexts() -> Model:
    """Garnelo et al. 2018 (conditional neural processes), NNX, with its likelihood."""
    from flax import nnx

    c, t, r = 5, 7, 9

    class Net(nnx.Module):
        def __init__(self, rngs):
            def mlp(*sizes):
                pairs = itertools.pairwise(sizes)
                return nnx.List([nnx.Linear(a, b, rngs=rngs) for a, b in pairs])

            self.encoder, self.decoder = mlp(3, 11, 10, r), mlp(r + 2, 13, 8, 2)

        def __call__(self, xc, yc, seen, xt, yt):
            h = jnp.concatenate([xc, yc], axis=-1)
            for i, layer in enumerate(self.encoder):
                h = layer(h)
                h = nnx.relu(h) if i < 2 else h
            weight = seen[..., None].astype(h.dtype)
            h = (h * weight).sum(1) / jnp.maximum(weight.sum(1), 1.0)
            h = jnp.broadcast_to(h[:, None], (B, t, r))
            h = jnp.concatenate([h, xt], axis=-1)
            for layer in self.decoder[:-1]:
                h = nnx.relu(layer(h))
            mu, log_sigma = jnp.split(self.decoder[-1](h), 2, axis=-1)
            sigma = 0.1 + 0.9 * nnx.softplus(log_sigma)
            nll = 0.5 * jnp.square((yt - mu) / sigma) + jnp.log(sigma)
            return mu, sigma, nll.mean()

    end = {"function": ANY, "multiplier": ANY, "sections": ANY, "head": True}
    truth = {
        **dense("encoder/0", 3, 11, function="relu"),
        **dense("encoder/1", 11, 10, function="relu"),
        # Debatable: a mean over what is seen.
        **dense("encoder/2", 10, r, multiplier=ANY),
        "encoder/2/bias": bias("encoder/2/kernel", multiplier=ANY),
        **dense("decoder/0", r + 2, 13, function="relu"),
        **dense("decoder/1", 13, 8, function="relu"),
        "decoder/2/kernel": kernel(8, 2, **end),
        "decoder/2/bias": bias("decoder/2/kernel", sections=ANY, multiplier=ANY),
    }
    seen = jax.ShapeDtypeStruct((B, c), bool)
    inputs = [floats(B, c, 2), floats(B, c, 1), seen, floats(B, t, 2), floats(B, t, 1)]
    return of_nnx(Net, inputs, truth)


@model
def advantages_by_forms() -> Model:
    """Gu et al. 2016 (NAF), plain, with its loss: a triangle makes a form."""
    obs, act, h = 7, 3, 11
    entries = act * (act + 1) // 2
    rows, columns = jnp.tril_indices(act)

    def layer(p, x):
        return x @ p["weight"] + p["bias"]

    def net(p, s):
        x = jax.nn.tanh(layer(p["l1"], (s - p["bn"]["mean"]) / p["bn"]["std"]))
        return jax.nn.tanh(layer(p["l2"], x))

    def apply(both, s, a, r, s_):
        p, target = both["net"], both["target"]
        x = net(p, s)
        v, mu = layer(p["V"], x), jnp.tanh(layer(p["mu"], x))
        low = jnp.zeros((B, act, act)).at[:, rows, columns].set(layer(p["L"], x))
        diagonal = jnp.eye(act)
        low = low * (1 - diagonal) + jnp.exp(low) * diagonal
        form = jnp.einsum("bij,bkj->bik", low, low)
        apart = a - mu
        q = v[:, 0] - 0.5 * jnp.einsum("bi,bij,bj->b", apart, form, apart)
        ahead = layer(target["V"], net(target, s_))[:, 0]
        return jnp.square(q - jax.lax.stop_gradient(r + 0.99 * ahead)).mean()

    def pair(a, b):
        return {"weight": floats(a, b), "bias": floats(b)}

    old = {
        "bn": {"mean": floats(obs), "std": floats(obs)},
        "l1": pair(obs, h), "l2": pair(h, 9), "V": pair(9, 1),
    }  # fmt: skip
    params = {"net": old | {"mu": pair(9, act), "L": pair(9, entries)}, "target": old}
    # Debatable: ends of the model, whose products and squares are taken.
    open_ = {"function": ANY, "multiplier": ANY, "head": ANY, "residual": ANY}
    shared = {
        # Debatable: given averages, which nothing moves.
        "bn/mean": either("statistic", "bias", "unknown"),
        "bn/std": either("statistic", "scale", "unknown"),
        **dense("l1", obs, h, "weight", function="tanh"),
        **dense("l2", h, 9, "weight", function="tanh"),
        "V/weight": kernel(9, 1, **open_),
        "V/bias": bias("V/weight", (), multiplier=ANY),
    }
    own = {
        **dense("mu", 9, act, "weight", **{**open_, "function": "tanh"}),
        "L/weight": kernel(9, entries, sections=ANY, **open_),
        "L/bias": bias("L/weight", multiplier=ANY, sections=ANY),
    }
    truth = {**below("net/", shared | own), **below("target/", shared)}
    inputs = (floats(B, obs), floats(B, act), floats(B), floats(B, obs))
    return Model(apply, params, inputs, truth)


@model
def options_that_end() -> Model:
    """Bacon et al. 2017 (option-critic), plain: each option has a kernel."""
    obs, h, options, actions = 7, 11, 5, 3

    def apply(p, s, option):
        x = jax.nn.relu(s @ p["features"]["w1"] + p["features"]["b1"])
        x = jax.nn.relu(x @ p["features"]["w2"] + p["features"]["b2"])
        q = x @ p["Q"]["w"] + p["Q"]["b"]
        ends = jax.nn.sigmoid(x @ p["terminations"]["w"] + p["terminations"]["b"])
        ends = jnp.take_along_axis(ends, option[:, None], axis=1)[:, 0]
        w, b = p["options_W"][option], p["options_b"][option]
        logits = jnp.einsum("bh,bha->ba", x, w) + b
        return q, ends, jax.nn.softmax(logits / 0.7, axis=-1)

    params = {
        "features": {
            "w1": floats(obs, h), "b1": floats(h), "w2": floats(h, 9), "b2": floats(9),
        },
        "Q": {"w": floats(9, options), "b": floats(options)},
        "terminations": {"w": floats(9, options), "b": floats(options)},
        "options_W": floats(options, 9, actions), "options_b": floats(options, actions),
    }  # fmt: skip
    truth = {
        **dense("features", obs, h, "w1", "b1", function="relu"),
        **dense("features", h, 9, "w2", "b2", function="relu"),
        **dense("Q", 9, options, "w", "b", head=True),
        **dense("terminations", 9, options, "w", "b", function="sigmoid", head=True),
        # Debatable: the temperature.
        "options_W": kernel(9, actions, 1, 2, batch_axis=0, head=True, multiplier=ANY),
        "options_b": bias("options_W", 1, batch_axis=0, multiplier=ANY),
    }
    return Model(apply, params, (floats(B, obs), integers(B)), truth)


@model
def teams_that_share() -> Model:
    """Sunehag et al. 2018 (VDN), Linen: agents share a cell; a sum of all."""
    from flax import linen as nn

    agents, obs, actions, t, h = 3, 5, 4, 6, 7

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x, taken):
            who = jnp.broadcast_to(jnp.eye(agents), (B, t, agents, agents))
            x = jnp.concatenate([x, who], axis=-1).swapaxes(1, 2)
            x = x.reshape(B * agents, t, obs + agents)
            x = nn.relu(nn.LayerNorm(name="norm")(nn.Dense(10, name="fc1")(x)))
            x = nn.RNN(nn.OptimizedLSTMCell(h, name="lstm"), name="rnn")(x)
            q = nn.Dense(actions, name="fc2")(x).reshape(B, agents, t, actions)
            q = jnp.take_along_axis(q, taken[..., None], axis=-1)[..., 0]
            return q.sum(axis=1)

    truth = {
        **dense("fc1", obs + agents, 10),
        **norm("norm"),
        **dense("fc2", h, actions, head=True),
    }
    for gate, own in GATES.items():
        truth |= {
            f"lstm/i{gate}/kernel": kernel(10, h, **own),
            f"lstm/h{gate}/kernel": kernel(h, h, recurrent=True, **own),
            f"lstm/h{gate}/bias": bias(f"lstm/h{gate}/kernel", part=own["part"]),
        }
    inputs = [floats(B, t, agents, obs), integers(B, agents, t)]
    return of_linen(Net(), inputs, truth)
