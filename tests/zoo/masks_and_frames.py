"""Levels of time, kernels less their means, frames, two batches, masked orders."""

import jax
import jax.numpy as jnp

from zoo.flax_layers import of_linen
from zoo.nnx_models import of_nnx
from zoo.truths import (
    ANY,
    Model,
    Use,
    bias,
    convolution,
    dense,
    either,
    floats,
    kernel,
    model,
    norm,
    scale,
    shift,
)

B, T, F, O = 2, 8, 15, 5  # noqa: E741


@model
def standardized_windows() -> Model:
    """Kolesnikov et al. 2020 (BiT), Linen: kernels less their means, group norms."""
    from flax import linen as nn

    class StdConv(nn.Conv):
        def param(self, name, *rest, **options):
            value = super().param(name, *rest, **options)
            if name == "kernel":
                value = value - value.mean((0, 1, 2))
                value = value / jnp.sqrt(jnp.var(value, axis=(0, 1, 2)) + 1e-5)
            return value

    class Unit(nn.Module):
        out: int

        @nn.compact
        def __call__(self, x):
            def conv(size, k, name):
                return StdConv(size, (k, k), use_bias=False, name=name)

            h = nn.relu(nn.GroupNorm(2, name="gn1")(x))
            if x.shape[-1] != self.out:
                x = conv(self.out, 1, "conv_proj")(h)
            h = conv(self.out // 4, 1, "conv1")(h)
            h = nn.relu(nn.GroupNorm(2, name="gn2")(h))
            h = conv(self.out // 4, 3, "conv2")(h)
            h = nn.relu(nn.GroupNorm(2, name="gn3")(h))
            return x + conv(self.out, 1, "conv3")(h)

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = StdConv(8, (7, 7), (2, 2), use_bias=False, name="conv_root")(x)
            x = nn.max_pool(x, (3, 3), (2, 2), "SAME")
            x = Unit(16, name="unit1")(x)
            x = Unit(16, name="unit2")(x)
            x = nn.relu(nn.GroupNorm(2, name="norm-pre-head")(x)).mean((1, 2))
            zeros = nn.initializers.zeros
            return nn.Dense(O, kernel_init=zeros, name="conv_head")(x)

    # Its mean and its width are functions of the leaf: either is a fair answer.
    made = either("convolution", "unknown")
    truth = {"conv_root/kernel": made, "unit1/conv_proj/kernel": made}
    for i in (1, 2):
        for j in (1, 2, 3):
            truth |= norm(f"unit{i}/gn{j}")
            truth[f"unit{i}/conv{j}/kernel"] = made
    truth |= {
        **norm("norm-pre-head"),
        **dense("conv_head", 16, O, head=True),
    }
    return of_linen(Net(), [floats(B, 16, 16, 3)], truth)


@model
def space_then_time() -> Model:
    """Tran et al. 2018 (R(2+1)D), NNX: windows over space, then over frames."""
    from flax import nnx

    c = 6

    class Net(nnx.Module):
        def __init__(self, rngs):
            def conv(a, b, window, **rest):
                return nnx.Conv(a, b, window, use_bias=False, rngs=rngs, **rest)

            self.stem_s = conv(3, 5, (1, 7, 7), strides=(1, 2, 2))
            self.stem_t = conv(5, c, (3, 1, 1))
            self.s1, self.t1 = conv(c, 7, (1, 3, 3)), conv(7, c, (3, 1, 1))
            self.s2, self.t2 = conv(c, 7, (1, 3, 3)), conv(7, c, (3, 1, 1))
            self.norms = nnx.List(
                [nnx.BatchNorm(n, rngs=rngs) for n in (5, c, 7, c, 7, c)]
            )
            self.fc = nnx.Linear(c, O, rngs=rngs)

        def __call__(self, x):
            norms = [lambda x, n=n: n(x, use_running_average=False) for n in self.norms]
            x = nnx.relu(norms[0](self.stem_s(x)))
            x = nnx.relu(norms[1](self.stem_t(x)))
            h = nnx.relu(norms[2](self.s1(x)))
            h = nnx.relu(norms[3](self.t1(h)))
            h = nnx.relu(norms[4](self.s2(h)))
            x = nnx.relu(x + norms[5](self.t2(h)))
            return self.fc(x.mean((1, 2, 3)))

    axes = {"spatial_axis": (0, 1, 2), "in_axis": 3, "out_axis": 4}
    truth = {
        "stem_s/kernel": convolution(3 * 49, 5 * 49, **axes),
        "stem_t/kernel": convolution(15, 3 * c, **axes),
        "s1/kernel": convolution(9 * c, 63, **axes),
        "t1/kernel": convolution(21, 3 * c, **axes),
        "s2/kernel": convolution(9 * c, 63, **axes),
        "t2/kernel": convolution(21, 3 * c, residual=(0, 1), **axes),
        **dense("fc", c, O, head=True),
    }
    for i in range(6):
        truth |= norm(f"norms/{i}")
    return of_nnx(Net, [floats(B, 4, 8, 8, 3)], truth)


@model
def critics_without_targets() -> Model:
    """Bhatt et al. 2024 (CrossQ), Linen: two batches in one, batch norms by nn.vmap."""
    from flax import linen as nn

    states, actions = 5, 3

    class Critic(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.BatchNorm(use_running_average=False, momentum=0.99, name="bn_0")(x)
            for i in (1, 2):
                x = nn.relu(nn.Dense(F, name=f"fc_{i}")(x))
                x = nn.BatchNorm(use_running_average=False, name=f"bn_{i}")(x)
            return nn.Dense(1, name="q")(x)

    class Net(nn.Module):
        @nn.compact
        def __call__(self, s, a, s_next, a_next):
            x = jnp.concatenate(
                [
                    jnp.concatenate([s, s_next], axis=0),
                    jnp.concatenate([a, a_next], axis=0),
                ],
                axis=-1,
            )
            critics = nn.vmap(
                Critic,
                variable_axes={"params": 0, "batch_stats": 0},
                split_rngs={"params": True},
                in_axes=None,
                out_axes=0,
                axis_size=2,
            )
            now, after = jnp.split(critics(name="critics")(x), 2, axis=1)
            after = jax.lax.stop_gradient(after.min(axis=0))
            return now, after

    own = {"batch_axis": 0}
    path = "critics"
    truth = {}
    for i, inputs in ((0, None), (1, states + actions), (2, F)):
        truth |= {
            f"{path}/bn_{i}/scale": scale(1, **own),
            f"{path}/bn_{i}/bias": shift(1, **own),
        }
        if i:
            fc = f"{path}/fc_{i}"
            truth[f"{fc}/kernel"] = kernel(inputs, F, 1, 2, "relu", **own)
            truth[f"{fc}/bias"] = bias(f"{fc}/kernel", 1, **own)
    truth |= {
        f"{path}/q/kernel": kernel(F, 1, 1, 2, head=True, **own),
        f"{path}/q/bias": bias(f"{path}/q/kernel", (), **own),
    }
    # All members read the same.
    truth[f"{path}/bn_0/scale"] = scale(ANY, batch_axis=ANY)
    inputs = [floats(B, states), floats(B, actions)] * 2
    return of_linen(Net(), inputs, truth)


@model
def masked_orders() -> Model:
    """Papamakarios et al. 2017 (MAF), Linen: constant masks order the inputs."""
    from flax import linen as nn

    n, hidden = 5, 8

    class Masked(nn.Module):
        size: int
        mask: tuple

        @nn.compact
        def __call__(self, x):
            shape = (x.shape[-1], self.size)
            w = self.param("kernel", nn.initializers.lecun_normal(), shape)
            b = self.param("bias", nn.initializers.zeros, (self.size,))
            return x @ (w * jnp.array(self.mask, jnp.float32)) + b

    inputs = [i + 1 for i in range(n)]
    units = [i % (n - 1) + 1 for i in range(hidden)]
    into = tuple(tuple(float(u >= i) for u in units) for i in inputs)
    between = tuple(tuple(float(v >= u) for v in units) for u in units)
    out = tuple(tuple(float(i > u) for i in inputs * 2) for u in units)

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            volume = 0.0
            for i in range(2):
                h = nn.tanh(Masked(hidden, into, name=f"in_{i}")(x))
                h = nn.tanh(Masked(hidden, between, name=f"mid_{i}")(h))
                mu, log = jnp.split(Masked(2 * n, out, name=f"out_{i}")(h), 2, axis=-1)
                log = jnp.tanh(log)
                x = ((x - mu) * jnp.exp(-log))[:, ::-1]
                volume = volume - log.sum(-1)
            return -0.5 * jnp.square(x).sum(-1) + volume

    # A kernel times a constant: either it is told, or what hides it.
    masked = either("kernel", "unknown")
    open_ = Use("bias", ANY, ANY, of=ANY, multiplier=ANY, part=ANY, sections=ANY)
    truth = {}
    for i in range(2):
        for name in ("in", "mid", "out"):
            truth |= {f"{name}_{i}/kernel": masked, f"{name}_{i}/bias": open_}
    return of_linen(Net(), [floats(B, n)], truth)


@model
def levels_of_time() -> Model:
    """Challu et al. 2023 (N-HiTS), NNX: pooled inputs, outputs interpolated in time."""
    from flax import nnx

    horizon = 4

    class Block(nnx.Module):
        def __init__(self, pool, few, rngs):
            self.pool, self.few = pool, few
            self.fc1 = nnx.Linear(T // pool, F, rngs=rngs)
            self.fc2 = nnx.Linear(F, F, rngs=rngs)
            self.theta = nnx.Linear(F, T + few, rngs=rngs)

        def __call__(self, x):
            h = nnx.max_pool(x[..., None], (self.pool,), (self.pool,))[..., 0]
            h = nnx.relu(self.fc2(nnx.relu(self.fc1(h))))
            theta = self.theta(h)
            knots = theta[:, T:]
            return theta[:, :T], jax.image.resize(knots, (B, horizon), "linear")

    class Net(nnx.Module):
        def __init__(self, rngs):
            self.blocks = nnx.List([Block(4, 2, rngs), Block(2, 3, rngs)])

        def __call__(self, x):
            forecast = jnp.broadcast_to(x[:, -1:], (B, horizon))
            for block in self.blocks:
                back, ahead = block(x)
                x, forecast = x - back, forecast + ahead
            return forecast

    truth = {}
    for i, (pool, few) in enumerate(((4, 2), (2, 3))):
        # Debatable: one half is taken from the input, the other is resized and added.
        open_ = {
            "residual": ANY,
            "multiplier": ANY,
            "head": ANY,
            "sections": ANY,
            "function": ANY,
        }
        truth |= {
            **dense(f"blocks/{i}/fc1", T // pool, F, function="relu"),
            **dense(f"blocks/{i}/fc2", F, F, function="relu"),
            f"blocks/{i}/theta/kernel": kernel(F, T + few, **open_),
            f"blocks/{i}/theta/bias": bias(
                f"blocks/{i}/theta/kernel", sections=ANY, multiplier=ANY
            ),
        }
    # The last block's first half reaches nothing.
    last = "blocks/1/theta"
    truth[f"{last}/kernel"] = kernel(F, ANY, **open_)
    return of_nnx(Net, [floats(B, T)], truth)
