"""Attention over time, series, recurrences without a loop, rounds without an end."""

import jax
import jax.numpy as jnp

from zoo.flax_layers import of_linen
from zoo.layers import affine, linear, over_time
from zoo.truths import (
    ANY,
    Model,
    bias,
    convolution,
    dense,
    embedding,
    floats,
    integers,
    kernel,
    model,
    scale,
    unknown,
)

B, T, N, S, D, F, O, V = 2, 6, 7, 9, 12, 15, 4, 19  # noqa: E741


@model
def gated_linear_recurrences() -> Model:
    """De et al. 2024 (Griffin), Linen: gates of blocks, a window as shifted sums."""
    from flax import linen as nn

    heads, size, window = 3, 4, 4

    class Blocks(nn.Module):
        @nn.compact
        def __call__(self, x):
            w = self.param("w", nn.initializers.zeros, (heads, size, size))
            b = self.param("b", nn.initializers.zeros, (heads, size))
            x = x.reshape(*x.shape[:-1], heads, size)
            y = jnp.einsum("...hi,hij->...hj", x, w) + b
            return y.reshape(*y.shape[:-2], heads * size)

    class Net(nn.Module):
        @nn.compact
        def __call__(self, ids):
            x = nn.Embed(V, D, name="embed")(ids) * D**0.5
            h = nn.RMSNorm(name="norm")(x)
            y = nn.gelu(nn.Dense(D, name="linear_y")(h))
            h = nn.Dense(D, name="linear_x")(h)
            w = self.param("conv_w", nn.initializers.zeros, (window, D))
            b = self.param("conv_b", nn.initializers.zeros, (D,))
            shifted = (
                jnp.pad(h, ((0, 0), (i, 0), (0, 0)))[:, :T] * w[window - 1 - i]
                for i in range(window)
            )
            h = sum(shifted) + b
            enter = nn.sigmoid(Blocks(name="input_gate")(h))
            forget = nn.sigmoid(Blocks(name="a_gate")(h))
            leaf = self.param("a_param", nn.initializers.zeros, (D,))
            log_a = -8.0 * forget * nn.softplus(leaf)
            h = jnp.sqrt(1 - jnp.exp(2 * log_a)) * (h * enter)

            def combine(a, b):
                return a[0] * b[0], a[1] * b[0] + b[1]

            _, h = jax.lax.associative_scan(combine, (jnp.exp(log_a), h), axis=1)
            x = x + nn.Dense(D, name="linear_out")(h * y)
            return nn.Dense(V, name="head")(x)

    gates = {"batch_axis": 0, "part": ANY, "recurrent": ANY}
    truth = {
        "embed/embedding": embedding(D, multiplier=D**0.5),
        "norm/scale": scale(),
        **dense("linear_y", D, D, function="gelu", part="gate"),
        # Debatable: the other factor of two gates, and of itself.
        **dense("linear_x", D, D, part=ANY),
        # Products that are summed.
        "conv_w": unknown(),
        "conv_b": bias(ANY, part=ANY),
        "a_param": unknown(),
        **dense("linear_out", D, D, residual=(0, 1), part=ANY),
        **dense("head", D, V, head=True),
    }
    truth["linear_x/bias"] = bias("linear_x/kernel", part=ANY)
    truth["linear_out/bias"] = bias("linear_out/kernel", part=ANY)
    for name in ("input_gate", "a_gate"):
        # Debatable: one of them goes on to an exponent, with a leaf.
        function = ANY if name == "a_gate" else "sigmoid"
        truth[f"{name}/w"] = kernel(size, size, 1, 2, function, **gates)
        # Debatable: a bias of each block, or of all features.
        truth[f"{name}/b"] = bias(f"{name}/w", ANY, batch_axis=ANY, part=ANY)
    return of_linen(Net(), [integers(B, T)], truth)


@model
def attention_that_remembers() -> Model:
    """Chorowski et al. 2015: windows over all weights so far enter the scores."""
    units, channels = 8, 5

    def apply(p, memory, words):
        keys = memory @ p["keys"]

        def step(carry, word):
            h, seen = carry
            near = jax.lax.conv_general_dilated(
                seen[..., None], p["window"], (1,), "SAME",
                dimension_numbers=("NHC", "HIO", "NHC"),
            )  # fmt: skip
            z = (h @ p["query"])[:, None] + keys + near @ p["places"] + p["b"]
            weights = jax.nn.softmax(jnp.tanh(z) @ p["energy"])
            context = jnp.einsum("bs,bsd->bd", weights, memory)
            x = jnp.concatenate([word, context], axis=-1)
            h = jnp.tanh(x @ p["w"] + h @ p["u"])
            return (h, seen + weights), linear(p["out"], h)

        start = jnp.zeros((B, S)), jnp.zeros(memory.shape[:2])
        return over_time(step, start, p["embed"][words])[1]

    params = {
        "embed": floats(V, N),
        "keys": floats(D, units),
        "query": floats(S, units),
        "window": floats(3, 1, channels),
        "places": floats(channels, units),
        "b": floats(units),
        "energy": floats(units),
        "w": floats(N + D, S),
        "u": floats(S, S),
        "out": affine(S, O),
    }
    # Debatable: by way of the weights, what is not hidden-to-hidden comes back too.
    around = {"recurrent": ANY, "part": ANY}
    truth = {
        "embed": embedding(N),
        "keys": kernel(D, units, function="tanh", part=ANY),
        "query": kernel(S, units, function="tanh", **around),
        "window": convolution(3, 3 * channels, 0, 1, 2, **around),
        "places": kernel(channels, units, function="tanh", **around),
        "b": bias(ANY, part=ANY),
        "energy": kernel(units, 1, 0, (), **around),
        "w": kernel(N + D, S, function="tanh", sections=ANY, **around),
        "u": kernel(S, S, function="tanh", part=ANY, recurrent=True),
        **dense("out", S, O, head=True),
    }
    return Model(apply, params, (floats(B, 5, D), integers(B, T)), truth)


@model
def seasons_and_trends() -> Model:
    """Zeng et al. 2023 (DLinear): a mean over a window, kernels of each channel."""
    ahead = 5

    def apply(p, x):
        padded = jnp.pad(x, ((0, 0), (1, 1), (0, 0)), mode="edge")
        trend = jax.lax.reduce_window(
            padded, 0.0, jax.lax.add, (1, 3, 1), (1, 1, 1), "VALID"
        ) / 3  # fmt: skip
        season = jnp.einsum("btc,cto->boc", x - trend, p["season"]) + p["season_bias"]
        slow = jnp.einsum("btc,cto->boc", trend, p["trend"]) + p["trend_bias"]
        return season + slow

    params = {
        "season": floats(N, T, ahead),
        "season_bias": floats(ahead, N),
        "trend": floats(N, T, ahead),
        "trend_bias": floats(ahead, N),
    }
    # One kernel for each channel.
    own = {"batch_axis": 0, "head": True}
    # Debatable: whether a channel is a batch of a bias, or a feature.
    offset = {"out_axis": ANY, "batch_axis": ANY}
    truth = {
        "season": kernel(T, ahead, 1, 2, **own),
        "season_bias": bias("season", **offset),
        "trend": kernel(T, ahead, 1, 2, **own),
        "trend_bias": bias("trend", **offset),
    }
    return Model(apply, params, (floats(B, T, N),), truth)


@model
def time_to_think() -> Model:
    """Graves 2016 (ACT): rounds until all have halted, or five, in a while loop."""

    def apply(p, x):
        x = linear(p["enc"], x)

        def going(carry):
            count, total, _, _ = carry
            return (count < 5) & jnp.any(total < 0.99)

        def think(carry):
            count, total, h, said = carry
            h = jnp.tanh(linear(p["think"], h) + x @ p["again"])
            halt = jax.nn.sigmoid(linear(p["halt"], h))[:, 0]
            halt = jnp.minimum(halt, 1 - total)
            return count + 1, total + halt, h, said + halt[:, None] * h

        start = (0, jnp.zeros(B), x, jnp.zeros_like(x))
        return linear(p["dec"], jax.lax.while_loop(going, think, start)[3])

    params = {
        "enc": affine(N, D),
        "think": affine(D, D),
        "again": floats(D, D),
        "halt": affine(D, 1),
        "dec": affine(D, O),
    }
    # Debatable: whether rounds are time; a number that weighs a state is a gate; the
    # sum of all rounds is a stream that begins at nothing.
    loop = {"residual": ANY, "part": ANY, "recurrent": ANY}
    truth = {
        **dense("enc", N, D, part=ANY),
        "think/kernel": kernel(D, D, function="tanh", **loop),
        "think/bias": bias(ANY, part=ANY),
        "again": kernel(D, D, function="tanh", **loop),
        "halt/kernel": kernel(D, 1, function=ANY, **loop),
        "halt/bias": bias("halt/kernel", (), part=ANY),
        **dense("dec", D, O, head=True),
    }
    return Model(apply, params, (floats(B, N),), truth)
