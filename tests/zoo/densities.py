"""Plain functions: models of densities and of returns, by mixtures and mixing."""

import jax
import jax.numpy as jnp

from zoo.truths import (
    ANY,
    UNNAMED,
    Model,
    Use,
    bias,
    bias_cut,
    convolution,
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
    scale,
    unknown,
    unused,
)
from zoo.truths import layer_norm as normed

BATCH, WIDTH, HIDDEN = 2, 8, 12


def affine(fan_in, fan_out):
    return {"w": floats(fan_in, fan_out), "b": floats(fan_out)}


def linear(p, x):
    return jnp.dot(x, p["w"]) + p["b"]


def both(path, fan_in, fan_out, **rest):
    return dense(path, fan_in, fan_out, weight="w", offset="b", **rest)


def vector(size=WIDTH):
    return {"scale": floats(size), "bias": floats(size)}


@jax.custom_jvp
def squareplus(x):
    """Barron 2021; its derivative is written by hand."""
    return 0.5 * (x + jnp.sqrt(x * x + 4.0))


@squareplus.defjvp
def _squareplus_jvp(primals, tangents):
    (x,), (t,) = primals, tangents
    return squareplus(x), t * 0.5 * (1.0 + x / jnp.sqrt(x * x + 4.0))


@model
def mixture_density() -> Model:
    """Bishop 1994 and Ha & Schmidhuber 2018: widths and weights of one kernel."""
    mixtures, targets = 3, 2
    each = mixtures * targets

    def apply(p, x, y):
        h = squareplus(linear(p["first"], x))
        h = squareplus(linear(p["second"], h) + h)
        mean, width, weight = jnp.split(linear(p["mixture"], h), [each, 2 * each], -1)
        mean = mean.reshape(-1, mixtures, targets)
        width = jax.nn.softplus(width.reshape(-1, mixtures, targets)) + 1e-3
        z = (y[:, None] - mean) / width
        log = -0.5 * jnp.sum(z**2, -1) - jnp.sum(jnp.log(width), -1)
        return -jax.nn.logsumexp(log + jax.nn.log_softmax(weight), axis=-1).mean()

    params = {
        "first": affine(4, HIDDEN),
        "second": affine(HIDDEN, HIDDEN),
        "mixture": affine(HIDDEN, 2 * each + mixtures),
    }
    sections = [
        (1, ((0, each), (2 * each, 2 * each + mixtures)), None, "identity"),
        (1, ((each, 2 * each),), None, "softplus"),
    ]
    truth = {
        **both("first", 4, HIDDEN, function=UNNAMED),
        # Debatable: one residual addition, before the function.
        **both("second", HIDDEN, HIDDEN, function=ANY, residual=ANY),
        "mixture/w": kernel(
            HIDDEN, 2 * each + mixtures, function=ANY, sections=sections, head=True
        ),
        "mixture/b": bias("mixture/w", sections=ANY),
    }
    return Model(apply, params, (floats(BATCH, 4), floats(BATCH, targets)), truth)


@model
def invertible_steps() -> Model:
    """Kingma & Dhariwal 2018 (Glow): actnorm, a square kernel, a coupling."""
    channels, side, steps = 4, 4, 3
    half = channels // 2

    def conv(x, w):
        return jax.lax.conv_general_dilated(
            x, w, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    def step(carry, p):
        z, logdet = carry
        z = (z + p["actnorm_bias"]) * jnp.exp(p["actnorm_logs"])
        z = jnp.tensordot(z, p["mix"], axes=(3, 1))
        a, b = z[..., :half], z[..., half:]
        h = jax.nn.relu(conv(a, p["conv1"]["w"]) + p["conv1"]["b"])
        h = jax.nn.relu(conv(h, p["conv2"]["w"]) + p["conv2"]["b"])
        h = (conv(h, p["conv3"]["w"]) + p["conv3"]["b"]) * 0.5
        shift, logs = h[..., ::2], h[..., 1::2]
        factor = jax.nn.sigmoid(logs + 2.0)
        b = (b + shift) * factor
        logdet = logdet + jnp.log(factor).sum((1, 2, 3))
        return (jnp.concatenate([a, b], -1), logdet), None

    def apply(p, x):
        (z, logdet), _ = jax.lax.scan(step, (x, jnp.zeros(BATCH)), p)
        return z, logdet

    def window(size, fan_in, fan_out):
        return {"w": floats(size, size, fan_in, fan_out), "b": floats(fan_out)}

    one = {
        "actnorm_bias": floats(channels),
        "actnorm_logs": floats(channels),
        "mix": floats(channels, channels),
        "conv1": window(3, half, HIDDEN),
        "conv2": window(1, HIDDEN, HIDDEN),
        "conv3": window(3, HIDDEN, channels),
    }
    params = jax.tree.map(lambda leaf: floats(steps, *leaf.shape), one)
    axes = {"stack_axis": 0, "spatial_axis": (1, 2), "in_axis": 3, "out_axis": 4}
    offset = {"out_axis": 1, "stack_axis": 0}
    shifts = tuple((i, i + 1) for i in range(0, channels, 2))
    factors = tuple((i + 1, i + 2) for i in range(0, channels, 2))
    truth = {
        "actnorm_bias": bias(ANY, **offset),
        "actnorm_logs": unknown(),
        # Debatable: whether what flows is a stream, or a last kernel is the head.
        "mix": kernel(
            channels,
            channels,
            2,
            1,
            stack_axis=0,
            head=ANY,
            residual=ANY,
            # The second half is what the coupling's factor multiplies.
            sections=[
                (1, ((0, half),), None, "identity"),
                (1, ((half, channels),), "up", "identity"),
            ],
        ),
        "conv1/w": convolution(9 * half, 9 * HIDDEN, function="relu", **axes),
        "conv1/b": bias("conv1/w", **offset),
        "conv2/w": convolution(HIDDEN, HIDDEN, function="relu", **axes),
        "conv2/b": bias("conv2/w", **offset),
        "conv3/w": convolution(
            9 * HIDDEN,
            9 * channels,
            multiplier=0.5,
            function=ANY,
            head=ANY,
            residual=ANY,
            sections=[
                (4, shifts, ANY, "identity"),
                (4, factors, "gate", "sigmoid"),
            ],
            **axes,
        ),
        # Debatable: the sum with the kernel's output is what is multiplied.
        "conv3/b": bias("conv3/w", multiplier=ANY, sections=ANY, **offset),
    }
    return Model(apply, params, (floats(BATCH, side, side, channels),), truth)


@model
def conditioned_denoiser() -> Model:
    """Ho et al. 2020 on vectors: time and label make scale and shift of each block."""
    layers, features = 2, 6

    def block(p, x, c):
        h = normed(x, p["norm"])
        ss = linear(p["film"], jax.nn.silu(c))
        h = h * (1 + ss[:, :WIDTH]) + ss[:, WIDTH:]
        return x + linear(p["out"], jax.nn.silu(linear(p["in"], h)))

    def apply(p, x, t, label):
        freqs = jnp.exp(-jnp.arange(features // 2) / 2.0)
        angles = 1000.0 * t[:, None] * freqs
        c = jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], -1)
        c = linear(p["time"][1], jax.nn.silu(linear(p["time"][0], c)))
        c = c + p["labels"][label]
        x = linear(p["embed"], x)
        for layer in p["blocks"]:
            x = block(layer, x, c)
        mean, spread = jnp.split(linear(p["head"], normed(x, p["norm"])), 2, axis=1)
        return mean, jnp.exp(jnp.clip(spread, -5.0, 2.0))

    one = {
        "norm": vector(),
        "film": affine(HIDDEN, 2 * WIDTH),
        "in": affine(WIDTH, HIDDEN),
        "out": affine(HIDDEN, WIDTH),
    }
    params = {
        "time": [affine(features, HIDDEN), affine(HIDDEN, HIDDEN)],
        "labels": floats(9, HIDDEN),
        "embed": affine(3, WIDTH),
        "blocks": [one] * layers,
        "norm": vector(),
        "head": affine(WIDTH, 6),
    }
    own = {
        **norm("norm"),
        # Scales and shifts are alike but for the 1 that is added.
        "film/w": kernel(HIDDEN, 2 * WIDTH),
        "film/b": bias("film/w"),
        **both("in", WIDTH, HIDDEN, function="silu"),
        **both("out", HIDDEN, WIDTH, residual=(0, layers)),
    }
    truth = {
        **both("time/0", features, HIDDEN, function="silu"),
        # A sum with the labels follows, then a silu.
        **both("time/1", HIDDEN, HIDDEN, function=one_of("silu", "identity")),
        "labels": embedding(HIDDEN),
        **both("embed", 3, WIDTH),
        **every("blocks/{}/", layers, own),
        **norm("norm"),
        "head/w": kernel(
            WIDTH,
            6,
            head=True,
            function=ANY,
            sections=[(1, ((0, 3),), None, "identity"), (1, ((3, 6),), None, UNNAMED)],
        ),
        "head/b": bias("head/w", sections=ANY),
    }
    return Model(
        apply, params, (floats(BATCH, 3), floats(BATCH), integers(BATCH)), truth
    )


@model
def monotonic_mixing() -> Model:
    """Rashid et al. 2018 (QMIX): agents' returns, mixed by what the state makes."""
    agents, actions, state, embed = 3, 4, 5, 6

    def agent(p, h, x):
        x = jax.nn.relu(linear(p["fc1"], x))
        gi = x @ p["rnn"]["wi"] + p["rnn"]["b"]
        gh = h @ p["rnn"]["wh"]
        ir, iz, inn = jnp.split(gi, 3, axis=-1)
        hr, hz, hn = jnp.split(gh, 3, axis=-1)
        r, z = jax.nn.sigmoid(ir + hr), jax.nn.sigmoid(iz + hz)
        n = jnp.tanh(inn + r * (hn + p["rnn"]["bn"]))
        h = (1 - z) * n + z * h
        return h, linear(p["fc2"], h)

    def apply(p, observations, states):
        h = jnp.zeros((BATCH, agents, WIDTH))
        _, q = jax.lax.scan(
            lambda h, x: agent(p["agent"], h, x),
            h,
            jnp.moveaxis(observations, 1, 0),
        )
        chosen = q.max(-1).swapaxes(0, 1)[:, :, None]
        m = p["mixer"]
        w1 = jnp.abs(linear(m["hyper_w1"], states)).reshape(
            *states.shape[:2], -1, embed
        )
        b1 = linear(m["hyper_b1"], states)[:, :, None]
        hidden = jax.nn.elu(jnp.matmul(chosen, w1) + b1)
        w2 = jnp.abs(linear(m["hyper_w2"], states))[..., None]
        v = linear(m["v2"], jax.nn.relu(linear(m["v1"], states)))[..., None]
        return (jnp.matmul(hidden, w2) + v)[..., 0, 0]

    params = {
        "agent": {
            "fc1": affine(7, WIDTH),
            "rnn": {
                "wi": floats(WIDTH, 3 * WIDTH),
                "b": floats(3 * WIDTH),
                "wh": floats(WIDTH, 3 * WIDTH),
                "bn": floats(WIDTH),
            },
            "fc2": affine(WIDTH, actions),
        },
        "mixer": {
            "hyper_w1": affine(state, agents * embed),
            "hyper_b1": affine(state, embed),
            "hyper_w2": affine(state, embed),
            "v1": affine(state, embed),
            "v2": affine(embed, 1),
        },
    }
    order = ("reset gate", "update gate", "candidate")
    plain = cut(1, WIDTH, order, candidate="identity")
    truth = {
        **both("agent/fc1", 7, WIDTH, function="relu"),
        "agent/rnn/wi": kernel(
            WIDTH, 3 * WIDTH, function=ANY, sections=cut(1, WIDTH, order)
        ),
        "agent/rnn/b": bias("agent/rnn/wi", sections=bias_cut(WIDTH, order)),
        "agent/rnn/wh": kernel(
            WIDTH, 3 * WIDTH, function=ANY, sections=plain, recurrent=True
        ),
        "agent/rnn/bn": bias("agent/rnn/wh", part="candidate"),
        # Contracted with what the mixer makes.
        **both("agent/fc2", WIDTH, actions),
        **both("mixer/hyper_w1", state, agents * embed, function=UNNAMED),
        **both("mixer/hyper_b1", state, embed, function=ANY),
        **both("mixer/hyper_w2", state, embed, function=UNNAMED),
        **both("mixer/v1", state, embed, function="relu"),
        **both("mixer/v2", embed, 1, head=True),
    }
    inputs = (floats(BATCH, 5, agents, 7), floats(BATCH, 5, state))
    return Model(apply, params, inputs, truth)


@model
def distributional_critics() -> Model:
    """Dabney et al. 2018 (IQN): cosines of quantiles times features; twins by vmap."""
    quantiles, cosines, actions = 4, 6, 3

    def critic(p, x, tau):
        x = jax.nn.relu(normed(linear(p["torso"], x), p["norm"]))
        c = jnp.cos(jnp.pi * jnp.arange(cosines) * tau[..., None])
        phi = jax.nn.relu(linear(p["quantile"], c))
        h = jax.nn.relu(linear(p["hidden"], x[:, None] * phi))
        return linear(p["value"], h)

    def apply(p, x, tau):
        q = jax.vmap(critic, in_axes=(0, None, None))(p["online"], x, tau)
        return jnp.min(q, axis=0).mean(1)

    twins = {
        "torso": affine(5, WIDTH),
        "norm": vector(),
        "quantile": affine(cosines, WIDTH),
        "hidden": affine(WIDTH, HIDDEN),
        "value": affine(HIDDEN, actions),
    }
    twins = jax.tree.map(lambda leaf: floats(2, *leaf.shape), twins)
    params = {"online": twins, "target": twins}
    axes = {"batch_axis": 0, "in_axis": 1, "out_axis": 2}
    own = {
        "torso": kernel(5, WIDTH, part=ANY, **axes),
        "quantile": kernel(cosines, WIDTH, function="relu", part=ANY, **axes),
        "hidden": kernel(WIDTH, HIDDEN, function="relu", **axes),
        "value": kernel(HIDDEN, actions, head=True, **axes),
    }
    truth = {}
    for name, use in own.items():
        part = ANY if name in ("torso", "quantile") else None
        truth[f"online/{name}/w"] = use
        truth[f"online/{name}/b"] = bias(f"online/{name}/w", 1, batch_axis=0, part=part)
    truth |= {
        "online/norm/scale": scale(1, batch_axis=0),
        "online/norm/bias": Use("bias", out_axis=1, batch_axis=0),
    }
    truth |= {path.replace("online", "target"): unused() for path in truth}
    return Model(apply, params, (floats(BATCH, 5), floats(BATCH, quantiles)), truth)
