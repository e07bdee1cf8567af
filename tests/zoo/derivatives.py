"""Plain functions: models whose outputs are derivatives, or that solve equations."""

import jax
import jax.numpy as jnp

from zoo.layers import affine, linear
from zoo.truths import (
    ANY,
    Model,
    bias,
    dense,
    floats,
    kernel,
    model,
    unknown,
    unused,
)

B, N, F, O = 2, 6, 15, 4  # noqa: E741

# Debatable: what follows, where values and slopes go different ways.
OPEN = {"function": ANY, "head": ANY, "part": ANY, "multiplier": ANY, "residual": ANY}


@model
def hamiltonian() -> Model:
    """Greydanus et al. 2019: places and momenta move by the gradient of an energy."""

    def apply(p, x):
        def energy(x):
            return linear(p["out"], jnp.tanh(linear(p["in"], x))).sum()

        slopes = jax.grad(energy)(x)
        return jnp.concatenate([slopes[:, N // 2 :], -slopes[:, : N // 2]], axis=-1)

    params = {"in": affine(N, F), "out": affine(F, 1)}
    truth = {
        # Forward, and backward with what the tanh leaves of the output's kernel.
        "in/kernel": [kernel(N, F, **OPEN), kernel(F, N, 1, 0, **OPEN)],
        "in/bias": bias("in/kernel", part=ANY),
        # A kernel, but a gradient contracts it with ones, not with activations.
        "out/kernel": unknown(),
        "out/bias": unused(),
    }
    return Model(apply, params, (floats(B, N),), truth)


@model
def energy_and_forces() -> Model:
    """An energy of distances, with forces as its gradient beside."""

    def apply(p, places):
        def energy(places):
            apart = places[:, :, None] - places[:, None]
            basis = jnp.exp(
                -(((apart**2).sum(-1, keepdims=True) - jnp.arange(5.0)) ** 2)
            )
            h = jax.nn.silu(linear(p["in"], basis))
            h = jax.nn.silu(linear(p["mid"], h.sum(2)))
            return linear(p["out"], h).sum()

        value, slopes = jax.value_and_grad(energy)(places)
        return value, -slopes

    params = {"in": affine(5, F), "mid": affine(F, 9), "out": affine(9, 1)}
    truth = {
        "in/kernel": [kernel(5, F, **OPEN), kernel(F, 5, 1, 0, **OPEN)],
        "in/bias": bias("in/kernel", part=ANY),
        "mid/kernel": [kernel(F, 9, **OPEN), kernel(9, F, 1, 0, **OPEN)],
        "mid/bias": bias("mid/kernel", part=ANY),
        # The others are what multiplies the slopes of the last function, a sum.
        "out/kernel": [kernel(9, 1, **OPEN), unknown(), unknown()],
        "out/bias": bias("out/kernel", (), part=ANY),
    }
    return Model(apply, params, (floats(B, 3, 3),), truth)


@model
def flow_with_divergence() -> Model:
    """Grathwohl et al. 2019 (FFJORD): an Euler step, its divergence by a jvp."""

    def apply(p, x, noise):
        def field(x):
            return linear(p["out"], jnp.tanh(linear(p["in"], x)))

        y, moved = jax.jvp(field, (x,), (noise,))
        return x + 0.1 * y, -0.1 * (noise * moved).sum(-1)

    params = {"in": affine(N, F), "out": affine(F, N)}
    truth = {
        "in/kernel": [kernel(N, F, **OPEN)] * 2,
        "in/bias": bias("in/kernel", part=ANY),
        "out/kernel": [kernel(F, N, **OPEN)] * 2,
        "out/bias": bias("out/kernel", multiplier=ANY, part=ANY),
    }
    return Model(apply, params, (floats(B, N), floats(B, N)), truth)


@model
def slopes_of_outputs() -> Model:
    """A network with the jacobian of its outputs, forward, mapped over the batch."""

    def apply(p, x):
        def net(x):
            return linear(p["out"], jnp.sin(linear(p["in"], x)))

        return jax.vmap(net)(x), jax.vmap(jax.jacfwd(net))(x)

    params = {"in": affine(N, F), "out": affine(F, O)}
    truth = {
        # The output, what its slopes are found at, and directions that are one-hot.
        "in/kernel": [kernel(N, F, **OPEN)] * 2 + [unknown()],
        "in/bias": [bias("in/kernel", part=ANY)] * 2,
        "out/kernel": [kernel(F, O, **OPEN)] * 2,
        "out/bias": bias("out/kernel", part=ANY),
    }
    return Model(apply, params, (floats(B, N),), truth)


@model
def solved_by_odeint() -> Model:
    """Chen et al. 2018: jax's adaptive solver, between a kernel in and one out."""

    def apply(p, x):
        from jax.experimental.ode import odeint

        def field(x, t, q):
            return linear(q["out"], jnp.tanh(linear(q["in"], x)))

        x = linear(p["enc"], x)
        x = odeint(field, x, jnp.array([0.0, 1.0]), p["field"])[-1]
        return linear(p["dec"], x)

    field = {"in": affine(9, F), "out": affine(F, 9)}
    params = {"enc": affine(N, 9), "field": field, "dec": affine(9, O)}
    # Debatable: a loop over time, or depth. The solver asks for a slope at its start,
    # for one to choose a step by, and for those of all steps in one loop.
    loop = OPEN | {"recurrent": ANY}
    truth = {
        **dense("enc", N, 9),
        "field/in/kernel": [kernel(9, F, **loop)] * 3,
        "field/in/bias": [bias("field/in/kernel", part=ANY)] * 3,
        "field/out/kernel": [kernel(F, 9, **loop)] * 3,
        "field/out/bias": [bias("field/out/kernel", part=ANY, multiplier=ANY)] * 3,
        **dense("dec", 9, O, head=True),
    }
    return Model(apply, params, (floats(B, N),), truth)


@model
def fast_weights_of_a_task() -> Model:
    """Finn et al. 2017 (MAML): a step of gradient descent within the model."""

    def apply(p, x, y, asked):
        def net(p, x):
            return linear(p["out"], jax.nn.relu(linear(p["in"], x)))

        def loss(p):
            return ((net(p, x) - y) ** 2).mean()

        slopes = jax.grad(loss)(p)
        fast = jax.tree.map(lambda w, slope: w - 0.1 * slope, p, slopes)
        return net(fast, asked)

    params = {"in": affine(N, F), "out": affine(F, O)}
    # Where the loss is, and as what a step of its gradient is added to.
    truth = {
        "in/kernel": [kernel(N, F, function="relu"), unknown()],
        "in/bias": [bias("in/kernel"), bias(None)],
        "out/kernel": [kernel(F, O), kernel(O, F, 1, 0, **OPEN), unknown()],
        "out/bias": [bias("out/kernel"), bias(None)],
    }
    inputs = (floats(B, N), floats(B, O), floats(3, N))
    return Model(apply, params, inputs, truth)
