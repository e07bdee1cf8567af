"""Haiku, Equinox and NNX: examples and models of papers as their authors have them."""

import jax
import jax.numpy as jnp

from zoo.equinox_models import image, of_equinox
from zoo.equinox_models import linear as equinox_linear
from zoo.flax_layers import window
from zoo.haiku_models import linear, of_haiku
from zoo.nnx_models import of_nnx
from zoo.truths import (
    ANY,
    Model,
    bias,
    dense,
    every,
    floats,
    gate,
    model,
    norm,
    position,
    scale,
    shift,
    token,
)

B, T, N, D, F, O, V = 2, 6, 7, 12, 15, 4, 19  # noqa: E741


@model
def implicit_quantiles() -> Model:
    """Dabney et al. 2018 (IQN): cosines of a quantile multiply the state's features."""
    import haiku as hk

    def fun(x, taus):
        x = jax.nn.relu(hk.Conv2D(6, 4, 2, padding="VALID", name="conv")(x))
        x = hk.Flatten()(x)
        angles = jnp.pi * jnp.arange(1, 9) * taus[..., None]
        h = jax.nn.relu(hk.Linear(54, name="quantile")(jnp.cos(angles)))
        h = jax.nn.relu(hk.Linear(F, name="hidden")(x[:, None] * h))
        q = hk.Linear(O, name="values")(h)
        return q, q.mean(1)

    truth = {
        # Debatable: two factors with a ReLU each.
        **window("conv", 48, 96, ("w", "b"), function="relu", part=ANY),
        **linear("quantile", 8, 54, function="relu", part=ANY),
        **linear("hidden", 54, F, function="relu"),
        **linear("values", F, O, head=True),
    }
    truth["conv/b"] = bias("conv/w", part=ANY)
    truth["quantile/b"] = bias("quantile/w", part=ANY)
    return of_haiku(fun, [floats(B, 8, 8, 3), floats(B, 5)], truth)


@model
def mixer_of_scores() -> Model:
    """Equinox's score-based diffusion: Mixer2d, whose image has time as a channel."""
    import equinox as eqx

    channels, hidden, patch, inside, blocks = 3, 8, 2, (11, 13), 2
    places = 12

    class Block(eqx.Module):
        patch_mixer: eqx.nn.MLP
        hidden_mixer: eqx.nn.MLP
        norm1: eqx.nn.LayerNorm
        norm2: eqx.nn.LayerNorm

        def __init__(self, key):
            self.patch_mixer = eqx.nn.MLP(places, places, inside[0], 1, key=key)
            self.hidden_mixer = eqx.nn.MLP(hidden, hidden, inside[1], 1, key=key)
            self.norm1 = eqx.nn.LayerNorm((hidden, places))
            self.norm2 = eqx.nn.LayerNorm((places, hidden))

        def __call__(self, y):
            y = y + jax.vmap(self.patch_mixer)(self.norm1(y))
            y = y.T
            y = y + jax.vmap(self.hidden_mixer)(self.norm2(y))
            return y.T

    class Net(eqx.Module):
        conv_in: eqx.nn.Conv2d
        conv_out: eqx.nn.ConvTranspose2d
        blocks: list
        norm: eqx.nn.LayerNorm

        def __init__(self, key):
            self.conv_in = eqx.nn.Conv2d(
                channels + 1, hidden, patch, stride=patch, key=key
            )
            self.conv_out = eqx.nn.ConvTranspose2d(
                hidden, channels, patch, stride=patch, key=key
            )
            self.blocks = [Block(key) for _ in range(blocks)]
            self.norm = eqx.nn.LayerNorm((hidden, places))

        def __call__(self, y, t):
            t = jnp.broadcast_to(t / 10.0, (1, *y.shape[1:]))
            y = self.conv_in(jnp.concatenate([y, t]))
            _, rows, columns = y.shape
            y = y.reshape(hidden, -1)
            for block in self.blocks:
                y = block(y)
            return self.conv_out(self.norm(y).reshape(hidden, rows, columns))

    both = {"out_axis": (0, 1)}
    block = {
        "norm1/weight": scale(**both),
        "norm1/bias": shift(**both),
        **equinox_linear("patch_mixer/layers/0", places, inside[0], function="relu"),
        **equinox_linear("patch_mixer/layers/1", inside[0], places, residual=(0, 4)),
        "norm2/weight": scale(**both),
        "norm2/bias": shift(**both),
        **equinox_linear("hidden_mixer/layers/0", hidden, inside[1], function="relu"),
        **equinox_linear("hidden_mixer/layers/1", inside[1], hidden, residual=(1, 4)),
    }
    truth = {
        **image("conv_in", (channels + 1) * 4, hidden * 4),
        **every("blocks/{}/", blocks, block),
        "norm/weight": scale(**both),
        "norm/bias": shift(**both),
        **image("conv_out", hidden, channels * 4, transposed=True, head=True),
    }
    return of_equinox(Net, [floats(B, channels, 6, 8), floats(B)], truth)


@model
def larger_by_shuffling() -> Model:
    """Lim et al. 2017 (EDSR), NNX: branches times 0.1, pixels made of channels."""
    from flax import nnx

    size = 8

    class Net(nnx.Module):
        def __init__(self, rngs):
            def conv(a, b):
                return nnx.Conv(a, b, (3, 3), rngs=rngs)

            self.head = conv(3, size)
            self.blocks = nnx.List(
                [nnx.List([conv(size, size), conv(size, size)]) for _ in range(2)]
            )
            self.body = conv(size, size)
            self.up = conv(size, 4 * size)
            self.tail = conv(size, 3)

        def __call__(self, x):
            h = x = self.head(x - 0.5)
            for first, second in self.blocks:
                h = h + 0.1 * second(nnx.relu(first(h)))
            h = self.up(x + self.body(h))
            b, rows, columns, _ = h.shape
            h = h.reshape(b, rows, columns, 2, 2, size).transpose(0, 1, 3, 2, 4, 5)
            return self.tail(h.reshape(b, 2 * rows, 2 * columns, size)) + 0.5

    fan = 9 * size
    truth = {
        **window("head", 27, fan),
        # Debatable: a stream within a branch of another.
        **window("body", fan, fan, residual=ANY),
        **window("up", fan, 4 * fan),
        **window("tail", fan, 27, head=True),
    }
    for i in range(2):
        truth |= window(f"blocks/{i}/0", fan, fan, function="relu")
        truth |= window(f"blocks/{i}/1", fan, fan, multiplier=0.1, residual=ANY)
        truth[f"blocks/{i}/1/bias"] = bias(f"blocks/{i}/1/kernel", multiplier=ANY)
    return of_nnx(Net, [floats(B, 6, 5, 3)], truth)


@model
def class_attention() -> Model:
    """Touvron et al. 2021 (CaiT), NNX: only a token asks, in blocks behind the rest."""
    from flax import nnx

    heads, size = 3, 4

    class Attend(nnx.Module):
        def __init__(self, rngs):
            self.norm = nnx.LayerNorm(D, rngs=rngs)
            self.q, self.k, self.v, self.proj = (
                nnx.Linear(D, D, rngs=rngs) for _ in range(4)
            )
            self.gamma_1, self.gamma_2 = (nnx.Param(jnp.ones(D)) for _ in range(2))
            self.norm2 = nnx.LayerNorm(D, rngs=rngs)
            self.fc1 = nnx.Linear(D, F, rngs=rngs)
            self.fc2 = nnx.Linear(F, D, rngs=rngs)

        def __call__(self, cls, x):
            u = self.norm(jnp.concatenate([cls, x], axis=1))
            q = self.q(u[:, 0]).reshape(B, 1, heads, size).transpose(0, 2, 1, 3)
            k, v = (
                y.reshape(B, -1, heads, size).transpose(0, 2, 1, 3)
                for y in (self.k(u), self.v(u))
            )
            a = nnx.softmax(q * size**-0.5 @ jnp.swapaxes(k, -2, -1), axis=-1)
            y = (a @ v).transpose(0, 2, 1, 3).reshape(B, 1, D)
            cls = cls + self.gamma_1[...] * self.proj(y)
            h = self.fc2(nnx.gelu(self.fc1(self.norm2(cls))))
            return cls + self.gamma_2[...] * h

    class Net(nnx.Module):
        def __init__(self, rngs):
            self.patch = nnx.Linear(N, D, rngs=rngs)
            self.pos = nnx.Param(jnp.zeros((1, T, D)))
            self.cls = nnx.Param(jnp.zeros((1, 1, D)))
            self.blocks = nnx.List([Attend(rngs) for _ in range(2)])
            self.norm = nnx.LayerNorm(D, rngs=rngs)
            self.head = nnx.Linear(D, O, rngs=rngs)

        def __call__(self, x):
            x = self.patch(x) + self.pos[...]
            cls = jnp.broadcast_to(self.cls[...], (B, 1, D))
            for block in self.blocks:
                cls = block(cls, x)
            return self.head(self.norm(cls)[:, 0])

    block = {
        **norm("norm"),
        **dense("q", D, D, part="query", multiplier=size**-0.5),
        **dense("k", D, D, part="key"),
        **dense("v", D, D, part="value"),
        **dense("proj", D, D, part="attention output", residual=(0, 4)),
        "gamma_1": gate(0),
        **norm("norm2"),
        **dense("fc1", D, F, function="gelu"),
        **dense("fc2", F, D, residual=(1, 4)),
        "gamma_2": gate(0),
    }
    block["q/bias"] = bias("q/kernel", part="query", multiplier=ANY)
    truth = {
        **dense("patch", N, D),
        "pos": position(1, 2),
        "cls": token(D, ANY, 2),
        **every("blocks/{}/", 2, block),
        **norm("norm"),
        **dense("head", D, O, head=True),
    }
    return of_nnx(Net, [floats(B, T, N)], truth)
