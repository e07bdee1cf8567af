"""Grids that grow, and kernels that are products, as open code bases have them."""

import jax
import jax.numpy as jnp

from zoo.flax_layers import of_linen
from zoo.truths import ANY, Model, bias, convolution, either, floats, kernel, model

B, F = 2, 15


@model
def cells_that_grow() -> Model:
    """Mordvintsev et al. 2020 (neural cellular automata): many equal steps of a grid.

    Windows that see are constant; random cells stay, and those without life die.
    """
    channels, rounds = 8, 6

    def alive(x):
        most = jax.lax.reduce_window(
            x[..., 3:4], -jnp.inf, jax.lax.max, (1, 3, 3, 1), (1, 1, 1, 1), "SAME"
        )
        return most > 0.1

    def seen(x):
        dx = jnp.outer(jnp.array([1.0, 2.0, 1.0]), jnp.array([-1.0, 0.0, 1.0])) / 8
        identity = jnp.zeros((3, 3)).at[1, 1].set(1.0)
        windows = jnp.stack([identity, dx, dx.T], axis=-1)
        windows = jnp.tile(windows, (1, 1, channels))[:, :, None]
        return jax.lax.conv_general_dilated(
            x, windows, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=channels,
        )  # fmt: skip

    def conv(x, p):
        names = ("NHWC", "HWIO", "NHWC")
        y = jax.lax.conv_general_dilated(
            x, p["kernel"], (1, 1), "SAME", dimension_numbers=names
        )
        return y + p["bias"]

    def apply(p, x, key):
        def step(x, key):
            before = alive(x)
            h = jax.nn.relu(conv(seen(x), p["conv_0"]))
            kept = jax.random.bernoulli(key, 0.5, (*x.shape[:3], 1))
            x = x + conv(h, p["conv_1"]) * kept.astype(x.dtype)
            return x * (before & alive(x)).astype(x.dtype), None

        x, _ = jax.lax.scan(step, x, jax.random.split(key, rounds))
        return x[..., :4]

    params = {
        "conv_0": {"kernel": floats(1, 1, 3 * channels, F), "bias": floats(F)},
        "conv_1": {"kernel": floats(1, 1, F, channels), "bias": floats(channels)},
    }
    # Debatable: a state that is added to, in a loop over equal steps.
    free = {"residual": ANY, "recurrent": ANY, "multiplier": ANY}
    truth = {
        "conv_0/kernel": convolution(3 * channels, F, function="relu", recurrent=ANY),
        "conv_0/bias": bias("conv_0/kernel", recurrent=ANY),
        "conv_1/kernel": convolution(F, channels, head=ANY, **free),
        "conv_1/bias": bias("conv_1/kernel", recurrent=ANY, multiplier=ANY),
    }
    raw_key = jax.ShapeDtypeStruct((2,), jnp.uint32)
    return Model(apply, params, (floats(B, 8, 8, channels), raw_key), truth)


@model
def weights_in_factors() -> Model:
    """Wang et al. 2024 (PirateNets), Linen: kernels are scales times directions.

    Two encodings gate every layer; branches begin closed; the residual of a heat
    equation is what is asked for.
    """
    from flax import linen as nn

    width, blocks = 10, 2

    class Dense(nn.Module):
        n: int

        @nn.compact
        def __call__(self, x):
            start = nn.initializers.zeros
            g = self.param("g", start, (self.n,))
            v = self.param("v", start, (x.shape[-1], self.n))
            return x @ (g * v) + self.param("bias", start, (self.n,))

    class Net(nn.Module):
        @nn.compact
        def __call__(self, t, x):
            z = jnp.stack([t, jnp.cos(jnp.pi * x), jnp.sin(jnp.pi * x)])
            w = self.param("fourier", nn.initializers.zeros, (3, width // 2))
            z = jnp.concatenate([jnp.cos(z @ w), jnp.sin(z @ w)])
            u = nn.tanh(Dense(width, name="u")(z))
            v = nn.tanh(Dense(width, name="v")(z))
            for i in range(blocks):
                h = nn.tanh(Dense(width, name=f"b{i}_0")(z))
                h = h * u + (1 - h) * v
                h = nn.tanh(Dense(width, name=f"b{i}_1")(h))
                h = h * u + (1 - h) * v
                h = nn.tanh(Dense(width, name=f"b{i}_2")(h))
                alpha = self.param(f"alpha_{i}", nn.initializers.zeros, ())
                z = alpha * h + (1 - alpha) * z
            return nn.Dense(1, use_bias=False, name="out")(z)[0]

    # Each kernel is a product of two leaves.
    factor = either("scale", "gate", "unknown")
    # Debatable: tanh inside a mixture of two others.
    truth = {
        # A dense layer of its own, whose outputs are turned to waves.
        "fourier": [kernel(3, width // 2, function=ANY)] * 2,
        "out/kernel": kernel(width, 1, head=True),
    }
    for name in ("u", "v", *(f"b{i}_{j}" for i in range(blocks) for j in range(3))):
        truth |= {
            f"{name}/g": factor,
            f"{name}/v": either("kernel", "unknown"),
            f"{name}/bias": either("bias", "unknown"),
        }
    for i in range(blocks):
        # Of what it mixes, two uses.
        truth[f"alpha_{i}"] = [either("gate", "scale", "unknown")] * 2
    built = of_linen(Net(), [floats(), floats()], truth)

    def apply(params, t, x):
        return jax.vmap(lambda t, x: built.apply(params, t, x))(t, x)

    return Model(apply, built.params, (floats(7), floats(7)), truth)
