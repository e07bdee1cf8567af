"""Agents, as their packages publish them: planners, pixels, diffusion, goals."""

import math

import jax
import jax.numpy as jnp

from zoo.flax_layers import of_linen, window
from zoo.haiku_models import linear as hk_linear
from zoo.haiku_models import of_haiku
from zoo.layers import affine, linear, scales
from zoo.nnx_models import of_nnx
from zoo.truths import (
    ANY,
    UNNAMED,
    Model,
    bias,
    convolution,
    dense,
    every,
    floats,
    kernel,
    layer_norm,
    model,
    norm,
    scale,
    shift,
    statistic,
)

B, T, S, A, H = 2, 8, 5, 3, 12


@model
def planned_by_search() -> Model:
    """AlphaZero as pgx trains it, Haiku: residual blocks before which norms stand."""
    import haiku as hk

    channels, blocks = 6, 2

    def batch_norm(x, name):
        return hk.BatchNorm(True, True, 0.9, name=name)(x, is_training=True)

    def fun(board):
        x = hk.Conv2D(channels, 3, name="stem")(board)
        for i in range(blocks):
            y = jax.nn.relu(batch_norm(x, f"bn_{i}a"))
            y = hk.Conv2D(channels, 3, name=f"conv_{i}a")(y)
            y = jax.nn.relu(batch_norm(y, f"bn_{i}b"))
            x = x + hk.Conv2D(channels, 3, name=f"conv_{i}b")(y)
        x = jax.nn.relu(batch_norm(x, "bn"))
        p = hk.Conv2D(2, 1, name="policy_conv")(x)
        p = hk.Flatten()(jax.nn.relu(batch_norm(p, "policy_bn")))
        logits = hk.Linear(9, name="policy")(p)
        v = hk.Conv2D(1, 1, name="value_conv")(x)
        v = hk.Flatten()(jax.nn.relu(batch_norm(v, "value_bn")))
        v = jax.nn.relu(hk.Linear(channels, name="value_0")(v))
        return logits, jnp.tanh(hk.Linear(1, name="value_1")(v)).reshape((-1,))

    def normed(path, size):
        axis = 3 if size > 1 else ()
        return {f"{path}/scale": scale(axis), f"{path}/offset": shift(axis)}

    names, full = ("w", "b"), 9 * channels
    truth = {
        **window("stem", 18, full, names),
        **normed("bn", channels),
        **window("policy_conv", channels, 2, names),
        **normed("policy_bn", 2),
        **hk_linear("policy", 18, 9, head=True),
        "value_conv/w": convolution(channels, 1),
        "value_conv/b": bias("value_conv/w", ()),
        **normed("value_bn", 1),
        **hk_linear("value_0", 9, channels, function="relu"),
        **hk_linear("value_1", channels, 1, function="tanh", head=True),
    }
    for i in range(blocks):
        truth |= {
            **normed(f"bn_{i}a", channels),
            **window(f"conv_{i}a", full, full, names),
            **normed(f"bn_{i}b", channels),
            **window(f"conv_{i}b", full, full, names, residual=(i, blocks)),
        }
    return of_haiku(fun, [floats(B, 3, 3, 2)], truth)


@model
def pixels_to_actions() -> Model:
    """Yarats et al. 2022 (DrQ-v2), Linen: a trunk behind windows, critics by vmap."""
    from flax import linen as nn

    feature = 7

    class Encoder(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = x / 255.0 - 0.5
            for i, stride in enumerate((2, 1)):
                x = nn.Conv(4, (3, 3), stride, padding="VALID", name=f"conv_{i}")(x)
                x = nn.relu(x)
            return x.reshape((*x.shape[:-3], -1))

    def trunk(x):
        x = nn.Dense(feature, name="trunk")(x)
        return nn.tanh(nn.LayerNorm(name="trunk_ln")(x))

    class Actor(nn.Module):
        @nn.compact
        def __call__(self, h):
            h = nn.relu(nn.Dense(H, name="fc1")(trunk(h)))
            return nn.tanh(nn.Dense(A, name="mu")(h))

    class Critic(nn.Module):
        @nn.compact
        def __call__(self, h, action):
            x = jnp.concatenate([h, action], axis=-1)
            x = nn.relu(nn.Dense(H, name="fc1")(x))
            return jnp.squeeze(nn.Dense(1, name="q")(x), -1)

    class Critics(nn.Module):
        @nn.compact
        def __call__(self, h, action):
            ensemble = nn.vmap(
                Critic,
                variable_axes={"params": 0},
                split_rngs={"params": True},
                in_axes=None,
                out_axes=0,
                axis_size=2,
            )
            return ensemble(name="ensemble")(trunk(h), action)

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x, action):
            h = Encoder(name="encoder")(x)
            mu = Actor(name="actor")(jax.lax.stop_gradient(h))
            return mu, Critics(name="critic")(h, action).min(axis=0)

    flat = 3 * 3 * 4
    truth = {
        **window("encoder/conv_0", 27, 36, function="relu"),
        **window("encoder/conv_1", 36, 36, function="relu"),
        **dense("actor/trunk", flat, feature),
        **norm("actor/trunk_ln"),
        **dense("actor/fc1", feature, H, function="relu"),
        **dense("actor/mu", H, A, function="tanh", head=True),
        **dense("critic/trunk", flat, feature),
        **norm("critic/trunk_ln"),
        # One kernel for each member, but all of them read the same.
        "critic/ensemble/fc1/kernel": kernel(
            feature + A, ANY, 1, ANY, "relu", batch_axis=ANY
        ),
        "critic/ensemble/fc1/bias": bias(
            "critic/ensemble/fc1/kernel", ANY, batch_axis=ANY
        ),
        "critic/ensemble/q/kernel": kernel(H, 1, 1, 2, batch_axis=0, head=True),
        "critic/ensemble/q/bias": bias("critic/ensemble/q/kernel", (), batch_axis=0),
    }
    return of_linen(Net(), [floats(B, 11, 11, 3), floats(B, A)], truth)


@model
def groups_on_simplices() -> Model:
    """Hansen et al. 2024 (TD-MPC2), NNX: softmaxes of groups, mish, five critics."""
    from flax import nnx

    z, groups, bins, members = 8, 4, 7, 5

    class Normed(nnx.Module):
        def __init__(self, a, b, act, rngs):
            self.linear = nnx.Linear(a, b, rngs=rngs)
            self.ln = nnx.LayerNorm(b, rngs=rngs)
            self.act = act

        def __call__(self, x):
            return self.act(self.ln(self.linear(x)))

    def simplex(x):
        y = x.reshape(*x.shape[:-1], -1, groups)
        return nnx.softmax(y, axis=-1).reshape(x.shape)

    class Critic(nnx.Module):
        def __init__(self, rngs):
            self.hidden = Normed(z + A, H, jax.nn.mish, rngs)
            self.out = nnx.Linear(H, bins, rngs=rngs)

        def __call__(self, x):
            return self.out(self.hidden(x))

    class Net(nnx.Module):
        def __init__(self, rngs):
            self.encoder = nnx.List(
                [Normed(S, H, jax.nn.mish, rngs), Normed(H, z, simplex, rngs)]
            )
            self.dynamics = nnx.List(
                [Normed(z + A, H, jax.nn.mish, rngs), Normed(H, z, simplex, rngs)]
            )

            @nnx.split_rngs(splits=members)
            @nnx.vmap
            def make(rngs):
                return Critic(rngs)

            self.critics = make(rngs)

        def __call__(self, x, actions):
            for layer in self.encoder:
                x = layer(x)

            def step(x, a):
                h = jnp.concatenate([x, a], axis=-1)
                for layer in self.dynamics:
                    h = layer(h)
                return h, h

            x, _ = jax.lax.scan(step, x, actions)
            last = jnp.concatenate([x, actions[-1]], axis=-1)
            run = nnx.vmap(lambda critic, x: critic(x), in_axes=(0, None))
            return run(self.critics, last)

    def normed(path, a, b, **rest):
        return {**dense(f"{path}/linear", a, b, **rest), **norm(f"{path}/ln")}

    # One kernel for each member, but all of them read the same.
    shared = {"batch_axis": ANY}
    path = "critics/hidden"
    rows = [(0, ((0, z),), "recurrent", ANY), (0, ((z, z + A),), "input", ANY)]
    truth = {
        **normed("encoder/0", S, H),
        **normed("encoder/1", H, z),
        **normed("dynamics/0", z + A, H, recurrent=True, sections=rows),
        **normed("dynamics/1", H, z, recurrent=True),
        f"{path}/linear/kernel": kernel(z + A, ANY, 1, ANY, **shared),
        f"{path}/linear/bias": bias(f"{path}/linear/kernel", ANY, **shared),
        f"{path}/ln/scale": scale(1, batch_axis=0),
        f"{path}/ln/bias": shift(1, batch_axis=0),
        "critics/out/kernel": kernel(H, bins, 1, 2, batch_axis=0, head=True),
        "critics/out/bias": bias("critics/out/kernel", 1, batch_axis=0),
    }
    return of_nnx(Net, [floats(B, S), floats(3, B, A)], truth)


@model
def denoised_actions() -> Model:
    """Chi et al. 2023 (diffusion policy), Linen: a U-Net over time, FiLM in blocks."""
    from flax import linen as nn

    step, widths = 6, (4, 8)
    cond = step + S

    class Block(nn.Module):
        out: int

        @nn.compact
        def __call__(self, x, c):
            h = nn.Conv(self.out, (3,), name="conv_0")(x)
            h = jax.nn.mish(nn.GroupNorm(2, name="gn_0")(h))
            e = nn.Dense(2 * self.out, name="film")(jax.nn.mish(c))
            e = e.reshape(x.shape[0], 1, 2, self.out)
            h = e[:, :, 0] * h + e[:, :, 1]
            h = nn.Conv(self.out, (3,), name="conv_1")(h)
            h = jax.nn.mish(nn.GroupNorm(2, name="gn_1")(h))
            if x.shape[-1] != self.out:
                x = nn.Conv(self.out, (1,), name="residual")(x)
            return h + x

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x, t, state):
            freqs = jnp.exp(-math.log(10000) * jnp.arange(step // 2) / (step // 2 - 1))
            e = t[:, None] * freqs[None]
            e = jnp.concatenate([jnp.sin(e), jnp.cos(e)], axis=-1)
            e = jax.nn.mish(nn.Dense(4 * step, name="time_0")(e))
            e = nn.Dense(step, name="time_1")(e)
            c = jnp.concatenate([e, state], axis=-1)
            h = skip = Block(widths[0], name="down")(x, c)
            h = nn.Conv(widths[0], (3,), strides=2, name="shrink")(h)
            h = Block(widths[1], name="mid")(h, c)
            h = nn.ConvTranspose(widths[0], (4,), strides=(2,), name="grow")(h)
            h = Block(widths[0], name="up")(jnp.concatenate([h, skip], axis=-1), c)
            h = nn.Conv(widths[0], (3,), name="last_conv")(h)
            h = jax.nn.mish(nn.GroupNorm(2, name="last_gn")(h))
            return nn.Conv(A, (1,), name="last")(h)

    line = {"spatial_axis": 0, "in_axis": 1, "out_axis": 2}

    def block(path, a, b):
        truth = {
            **window(f"{path}/conv_0", 3 * a, 3 * b, **line),
            **norm(f"{path}/gn_0"),
            # Debatable: halves that multiply and are added.
            f"{path}/film/kernel": kernel(
                cond, 2 * b, part=ANY, sections=ANY, function=ANY
            ),
            f"{path}/film/bias": bias(f"{path}/film/kernel", part=ANY, sections=ANY),
            # Debatable: streams of one block; norm and function end the branch.
            **window(f"{path}/conv_1", 3 * b, 3 * b, residual=ANY, **line),
            **norm(f"{path}/gn_1"),
        }
        if a != b:
            path = f"{path}/residual"
            truth |= window(path, a, b, residual=ANY, **line)
        return truth

    small, large = widths
    truth = {
        # All blocks read it.
        **dense("time_0", step, 4 * step, function=UNNAMED),
        **dense("time_1", 4 * step, step, function=UNNAMED),
        **block("down", A, small),
        **window("shrink", 3 * small, 3 * small, **line),
        **block("mid", small, large),
        **window("grow", 2 * large, 4 * small, transposed=True, **line),
        **block("up", 2 * small, small),
        **window("last_conv", 3 * small, 3 * small, **line),
        **norm("last_gn"),
        **window("last", small, A, head=True, **line),
    }
    return of_linen(Net(), [floats(B, T, A), floats(B), floats(B, S)], truth)


@model
def simple_and_scaled() -> Model:
    """Lee et al. 2025 (SimBa): running statistics, inverted bottlenecks, two-hot."""
    blocks, bins = 2, 11

    def apply(p, x, a):
        x = (x - p["rsnorm"]["mean"]) / jnp.sqrt(p["rsnorm"]["var"] + 1e-5)
        x = linear(p["in"], jnp.concatenate([jnp.clip(x, -5, 5), a], axis=-1))
        for q in p["blocks"]:
            h = jax.nn.relu(linear(q["up"], layer_norm(x, q["ln"])))
            x = x + linear(q["down"], h)
        logits = linear(p["out"], layer_norm(x, p["ln"]))
        return jax.nn.softmax(logits) @ jnp.linspace(-5.0, 5.0, bins)

    block = {"ln": scales(H), "up": affine(H, 4 * H), "down": affine(4 * H, H)}
    params = {
        "rsnorm": {"mean": floats(S), "var": floats(S)},
        "in": affine(S + A, H),
        "blocks": [block] * blocks,
        "ln": scales(H),
        "out": affine(H, bins),
    }
    own = {
        **norm("ln"),
        **dense("up", H, 4 * H, function="relu"),
        **dense("down", 4 * H, H, residual=(0, blocks)),
    }
    truth = {
        "rsnorm/mean": statistic(),
        "rsnorm/var": statistic(),
        **dense("in", S + A, H),
        **every("blocks/{}/", blocks, own),
        **norm("ln"),
        # The places of a distribution are constants.
        **dense("out", H, bins, head=ANY, part=ANY),
    }
    return Model(apply, params, (floats(B, S), floats(B, A)), truth)


@model
def goals_by_contrast() -> Model:
    """Eysenbach et al. 2022, as JaxGCRL has it, Linen: what was done against goals."""
    from flax import linen as nn

    size = 4

    class Encoder(nn.Module):
        @nn.compact
        def __call__(self, x):
            for i in range(2):
                x = nn.swish(
                    nn.LayerNorm(name=f"ln_{i}")(nn.Dense(H, name=f"fc_{i}")(x))
                )
            return nn.Dense(size, name="out")(x)

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x, a, g):
            sa = Encoder(name="sa")(jnp.concatenate([x, a], axis=-1))
            g = Encoder(name="g")(g)
            apart = jnp.sum((sa[:, None, :] - g[None, :, :]) ** 2, axis=-1)
            return -jnp.sqrt(apart + 1e-6)

    truth = {}
    for name, inputs in (("sa", S + A), ("g", 2)):
        truth |= {
            **dense(f"{name}/fc_0", inputs, H),
            **norm(f"{name}/ln_0"),
            **dense(f"{name}/fc_1", H, H),
            **norm(f"{name}/ln_1"),
            # Debatable: a difference, which distances square.
            **dense(f"{name}/out", H, size, head=True, function=ANY, multiplier=ANY),
        }
        truth[f"{name}/out/bias"] = bias(f"{name}/out/kernel", multiplier=ANY)
    return of_linen(Net(), [floats(B, S), floats(B, A), floats(B, 2)], truth)
