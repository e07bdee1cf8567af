"""Haiku, NNX and Equinox: agents, their worlds, and encoders used twice."""

import jax
import jax.numpy as jnp

from zoo.equinox_models import linear as eqx_linear
from zoo.equinox_models import of_equinox
from zoo.haiku_models import linear, of_haiku
from zoo.nnx_models import of_nnx
from zoo.truths import (
    ANY,
    Model,
    bias,
    bias_cut,
    convolution,
    cut,
    dense,
    embedding,
    floats,
    integers,
    kernel,
    model,
    norm,
    position,
    unknown,
)

BATCH, LENGTH, WIDTH, HIDDEN, ACTIONS = 2, 6, 7, 13, 4


@model
def dueling_network() -> Model:
    """Wang et al. 2016, Haiku: a value, and advantages less their mean."""
    import haiku as hk

    def fun(frames):
        x = frames / 255.0
        x = jax.nn.relu(hk.Conv2D(6, (4, 5), 2, padding="VALID", name="conv_0")(x))
        x = jax.nn.relu(hk.Conv2D(8, 3, name="conv_1")(x))
        x = hk.Flatten()(x)
        value = hk.nets.MLP([HIDDEN, 1], name="value")(x)
        advantages = hk.nets.MLP([11, ACTIONS], name="advantage")(x)
        return value + advantages - jnp.mean(advantages, axis=-1, keepdims=True)

    flat = 4 * 3 * 8
    truth = {
        "conv_0/w": convolution(3 * 20, 6 * 20, function="relu"),
        "conv_0/b": bias("conv_0/w"),
        "conv_1/w": convolution(6 * 9, 8 * 9, function="relu"),
        "conv_1/b": bias("conv_1/w"),
        **linear("value/~/linear_0", flat, HIDDEN, function="relu"),
        # The sum of the model's terms is no residual stream.
        "value/~/linear_1/w": kernel(HIDDEN, 1, head=True),
        "value/~/linear_1/b": bias("value/~/linear_1/w", ()),
        **linear("advantage/~/linear_0", flat, 11, function="relu"),
        **linear("advantage/~/linear_1", 11, ACTIONS, head=True),
    }
    return of_haiku(fun, [floats(BATCH, 10, 9, 3)], truth)


@model
def proximal_policy() -> Model:
    """Schulman et al. 2017, NNX: a shared torso, a Gaussian's mean, and a value."""
    from flax import nnx

    class Net(nnx.Module):
        def __init__(self, rngs):
            self.torso = nnx.Sequential(
                nnx.Linear(WIDTH, HIDDEN, rngs=rngs),
                nnx.tanh,
                nnx.Linear(HIDDEN, 9, rngs=rngs),
                nnx.tanh,
            )
            self.mean = nnx.Linear(9, ACTIONS, rngs=rngs)
            self.log_std = nnx.Param(jnp.zeros(ACTIONS))
            self.value = nnx.Linear(9, 1, rngs=rngs)

        def __call__(self, x):
            h = self.torso(x)
            mean, std = self.mean(h), jnp.exp(self.log_std[...])
            noise = jax.random.normal(jax.random.key(1), mean.shape)
            return mean + std * noise, self.value(h).squeeze(-1)

    truth = {
        **dense("torso/layers/0", WIDTH, HIDDEN, function="tanh"),
        **dense("torso/layers/2", HIDDEN, 9, function="tanh"),
        **dense("mean", 9, ACTIONS, head=True),
        "log_std": unknown(),
        "value/kernel": kernel(9, 1, head=True),
        "value/bias": bias("value/kernel", ()),
    }
    return of_nnx(Net, [floats(BATCH, WIDTH)], truth)


@model
def soft_actor_critic() -> Model:
    """Haarnoja et al. 2018, Equinox: a squashed Gaussian, and two critics at once."""
    import equinox as eqx

    class Net(eqx.Module):
        trunk: eqx.nn.Linear
        law: eqx.nn.Linear
        critics: eqx.nn.MLP

        def __init__(self, key):
            self.trunk = eqx.nn.Linear(WIDTH, HIDDEN, key=key)
            self.law = eqx.nn.Linear(HIDDEN, 2 * ACTIONS, key=key)
            self.critics = eqx.filter_vmap(
                lambda key: eqx.nn.MLP(WIDTH + ACTIONS, 1, 9, 2, key=key)
            )(jax.random.split(key, 3))

        def __call__(self, x, noise):
            h = self.law(jax.nn.relu(self.trunk(x)))
            mean, log_std = jnp.split(h, 2)
            log_std = -5 + 3.5 * (jnp.tanh(log_std) + 1)
            action = jnp.tanh(mean + jnp.exp(log_std) * noise)
            both = jnp.concatenate([x, action])
            run = eqx.filter_vmap(
                lambda critic, x: critic(x)[0], in_axes=(eqx.if_array(0), None)
            )
            return action, run(self.critics, both).min()

    path, own = "critics/layers", {"batch_axis": 0}
    # Debatable: one for each critic, but all of them read the same.
    shared = {"out_axis": ANY, "batch_axis": ANY}
    truth = {
        **eqx_linear("trunk", WIDTH, HIDDEN, function="relu"),
        # Debatable: a mean and a deviation, which are outputs and inputs of others.
        "law/weight": kernel(
            HIDDEN, 2 * ACTIONS, 1, 0, ANY, head=ANY, part=ANY, sections=ANY
        ),
        "law/bias": bias("law/weight", part=ANY, sections=ANY, multiplier=ANY),
        f"{path}/0/weight": kernel(
            WIDTH + ACTIONS, ANY, in_axis=2, function="relu", **shared
        ),
        f"{path}/0/bias": bias(f"{path}/0/weight", **shared),
        f"{path}/1/weight": kernel(9, 9, 2, 1, "relu", **own),
        f"{path}/1/bias": bias(f"{path}/1/weight", 1, **own),
        f"{path}/2/weight": kernel(9, 1, 2, 1, head=True, **own),
        f"{path}/2/bias": bias(f"{path}/2/weight", (), **own),
    }
    inputs = [floats(BATCH, WIDTH), floats(BATCH, ACTIONS)]
    return of_equinox(Net, inputs, truth)


@model
def world_model() -> Model:
    """Hafner et al. 2019, Haiku: a GRU of what was done, beliefs before and after.

    Decoders of images and of rewards read the states of all steps.
    """
    import haiku as hk

    state, latents, seen = 10, 3, 5

    class Dynamics(hk.RNNCore):
        def initial_state(self, batch_size):
            return jnp.zeros((batch_size, state)), jnp.zeros((batch_size, latents))

        def __call__(self, inputs, carry):
            (h, z), (image, action, noise) = carry, inputs
            x = jnp.concatenate([z, action], axis=-1)
            x = jax.nn.elu(hk.Linear(HIDDEN, name="img_in")(x))
            _, h = hk.GRU(state, name="gru")(x, h)
            prior = self.belief(h, "img")
            mean, std = self.belief(jnp.concatenate([h, image], axis=-1), "obs")
            z = mean + std * noise
            return (h, z, prior), (h, z)

        def belief(self, x, name):
            x = jax.nn.elu(hk.Linear(9, name=f"{name}_hidden")(x))
            x = hk.Linear(2 * latents, name=f"{name}_dist")(x)
            mean, std = jnp.split(x, 2, axis=-1)
            return mean, jax.nn.softplus(std) + 0.1

    def fun(images, actions, noise):
        images = jax.nn.elu(hk.Linear(seen, name="encoder")(images))
        core = Dynamics(name="rssm")
        start = core.initial_state(BATCH)
        (h, z, prior), _ = hk.dynamic_unroll(core, (images, actions, noise), start)
        x = jnp.concatenate([h, z], axis=-1)
        image = hk.nets.MLP([11, 15], activation=jax.nn.elu, name="decoder")(x)
        reward = hk.nets.MLP([8, 1], activation=jax.nn.elu, name="reward")(x)
        return image, reward[..., 0], prior

    parts = ("update gate", "reset gate", "candidate")
    gru = ["rssm/gru/w_h", "rssm/gru/w_i"]
    # Debatable: by way of the latents they come back, but not hidden-to-hidden.
    around = {"recurrent": ANY, "sections": ANY}
    truth = {
        **linear("encoder", 15, seen, function="elu"),
        **linear("rssm/img_in", latents + ACTIONS, HIDDEN, function="elu", **around),
        "rssm/gru/w_i": kernel(
            HIDDEN,
            3 * state,
            function=ANY,
            recurrent=ANY,
            sections=cut(1, state, parts),
        ),
        # Of the whole leaf, each use has its slice, and the fans of the slice.
        "rssm/gru/w_h": [
            kernel(
                state,
                2 * state,
                function="sigmoid",
                recurrent=True,
                sections=cut(1, state, parts)[:2],
            ),
            kernel(
                state,
                state,
                function="tanh",
                recurrent=True,
                part="candidate",
                sections=cut(1, state, parts)[2:],
            ),
        ],
        "rssm/gru/b": [
            bias(gru, sections=bias_cut(state, parts)[:2]),
            bias(gru, part="candidate", sections=bias_cut(state, parts)[2:]),
        ],
        **linear("rssm/~belief/img_hidden", state, 9, function="elu"),
        "rssm/~belief/img_dist/w": kernel(
            9,
            2 * latents,
            function=ANY,
            head=True,
            sections=[
                (1, ((0, latents),), None, "identity"),
                # Debatable: what is added to the softplus may belong to it.
                (1, ((latents, 2 * latents),), None, ANY),
            ],
        ),
        "rssm/~belief/img_dist/b": bias("rssm/~belief/img_dist/w", sections=ANY),
        **linear("rssm/~belief/obs_hidden", state + seen, 9, function="elu", **around),
        "rssm/~belief/obs_dist/w": kernel(
            9, 2 * latents, function=ANY, part=ANY, **around
        ),
        "rssm/~belief/obs_dist/b": bias(
            "rssm/~belief/obs_dist/w", part=ANY, sections=ANY
        ),
        **linear("decoder/~/linear_0", state + latents, 11, function="elu"),
        **linear("decoder/~/linear_1", 11, 15, head=True),
        **linear("reward/~/linear_0", state + latents, 8, function="elu"),
        "reward/~/linear_1/w": kernel(8, 1, head=True),
        "reward/~/linear_1/b": bias("reward/~/linear_1/w", ()),
    }
    inputs = [
        floats(LENGTH, BATCH, 15),
        floats(LENGTH, BATCH, ACTIONS),
        floats(LENGTH, BATCH, latents),
    ]
    return of_haiku(fun, inputs, truth)


@model
def two_views() -> Model:
    """Grill et al. 2020 (BYOL), Equinox: one encoder sees both views of an image.

    Every leaf has two uses, but for the predictor, which sees one view.
    """
    import equinox as eqx

    class Net(eqx.Module):
        conv: eqx.nn.Conv2d
        project: eqx.nn.Linear
        norm: eqx.nn.LayerNorm
        predict: eqx.nn.Linear

        def __init__(self, key):
            self.conv = eqx.nn.Conv2d(3, 6, (3, 2), key=key)
            self.project = eqx.nn.Linear(6, 9, key=key)
            self.norm = eqx.nn.LayerNorm(9)
            self.predict = eqx.nn.Linear(9, 9, use_bias=False, key=key)

        def encode(self, x):
            x = jax.nn.relu(self.conv(x)).mean((1, 2))
            return jax.nn.relu(self.norm(self.project(x)))

        def __call__(self, online, target):
            return self.predict(self.encode(online)), self.encode(target)

    axes = {"spatial_axis": (2, 3), "in_axis": 1, "out_axis": 0}
    window = convolution(3 * 6, 6 * 6, **axes, function="relu")
    once = {
        "conv/weight": window,
        "conv/bias": bias("conv/weight"),
        **eqx_linear("project", 6, 9),
        **norm("norm", factor="weight"),
    }
    truth = {
        **{path: [use, use] for path, use in once.items()},
        "predict/weight": kernel(9, 9, 1, 0, head=True),
    }
    # The first view's leads to the predictor, the second's to the output.
    last = kernel(6, 9, 1, 0, head=True)
    truth["project/weight"] = [once["project/weight"], last]
    inputs = [floats(BATCH, 3, 8, 9), floats(BATCH, 3, 8, 9)]
    return of_equinox(Net, inputs, truth)


@model
def decision_transformer() -> Model:
    """Chen et al. 2021, NNX: returns, states and actions of a step as three tokens.

    All three know the step; attention is one head with a fused kernel.
    """
    from flax import nnx

    width = 12

    class Net(nnx.Module):
        def __init__(self, rngs):
            self.returns = nnx.Linear(1, width, rngs=rngs)
            self.states = nnx.Linear(WIDTH, width, rngs=rngs)
            self.actions = nnx.Embed(ACTIONS, width, rngs=rngs)
            self.steps = nnx.Embed(9, width, rngs=rngs)
            self.norm = nnx.LayerNorm(width, rngs=rngs)
            self.qkv = nnx.Linear(width, 15, use_bias=False, rngs=rngs)
            self.out = nnx.Linear(5, width, rngs=rngs)
            self.head = nnx.Linear(width, ACTIONS, rngs=rngs)

        def __call__(self, returns, states, actions):
            steps = self.steps(jnp.arange(LENGTH))
            tokens = [
                self.returns(returns[..., None]) + steps,
                self.states(states) + steps,
                nnx.tanh(self.actions(actions)) + steps,
            ]
            x = jnp.stack(tokens, axis=2).reshape(BATCH, 3 * LENGTH, width)
            q, k, v = jnp.split(self.qkv(self.norm(x)), 3, axis=-1)
            mask = jnp.tril(jnp.ones((3 * LENGTH, 3 * LENGTH), bool))
            scores = jnp.where(mask, q @ k.swapaxes(1, 2) / 5**0.5, -1e9)
            x = x + self.out(nnx.softmax(scores) @ v)
            return self.head(x.reshape(BATCH, LENGTH, 3, width)[:, :, 1])

    parts = ("query", "key", "value")
    truth = {
        **dense("returns", 1, width),
        **dense("states", WIDTH, width),
        "actions/embedding": embedding(width),
        "steps/embedding": position(),
        **norm("norm"),
        "qkv/kernel": kernel(width, 15, sections=cut(1, 5, parts)),
        **dense("out", 5, width, residual=(0, 1), part="attention output"),
        **dense("head", width, ACTIONS, head=True),
    }
    inputs = [
        floats(BATCH, LENGTH),
        floats(BATCH, LENGTH, WIDTH),
        integers(BATCH, LENGTH),
    ]
    return of_nnx(Net, inputs, truth)
