"""Blocks for sequences that are neither plain attention nor plain recurrence."""

import jax
import jax.numpy as jnp

from zoo.flax_layers import attention, of_linen, window
from zoo.haiku_models import linear, of_haiku
from zoo.truths import (
    ANY,
    Model,
    bias,
    convolution,
    dense,
    embedding,
    every,
    floats,
    integers,
    kernel,
    model,
    norm,
    rms_norm,
    scale,
    unknown,
    unused,
)

BATCH, LENGTH, WIDTH, HIDDEN, OUTPUTS = 2, 9, 10, 14, 5
LINE = {"spatial_axis": 0, "in_axis": 1, "out_axis": 2}


@model
def wave_net() -> Model:
    """Van den Oord et al. 2016, Haiku: causal, dilated, gated; the skips are summed.

    The last layer's way on to a next layer leads nowhere.
    """
    import haiku as hk

    layers, skips = 3, 8

    def conv(x, channels, size, name, rate=1):
        return hk.Conv1D(channels, size, rate=rate, padding=hk.pad.causal, name=name)(x)

    def fun(x):
        x, total = conv(x, WIDTH, 2, "start"), 0.0
        for i in range(layers):
            filtered = jnp.tanh(conv(x, HIDDEN, 3, f"filter_{i}", 2**i))
            gate = jax.nn.sigmoid(conv(x, HIDDEN, 3, f"gate_{i}", 2**i))
            h = filtered * gate
            total = total + conv(h, skips, 1, f"skip_{i}")
            x = x + conv(h, WIDTH, 1, f"residual_{i}")
        h = conv(jax.nn.relu(total), 11, 1, "end_0")
        return conv(jax.nn.relu(h), OUTPUTS, 1, "end_1")

    def line(path, fan_in, fan_out, **rest):
        part = rest.get("part")
        return {
            f"{path}/w": convolution(fan_in, fan_out, **LINE, **rest),
            f"{path}/b": bias(f"{path}/w", part=part),
        }

    truth = line("start", 2, WIDTH * 2)
    truth["start/w"] = convolution(1 * 2, WIDTH * 2, **LINE)
    for i in range(layers):
        into = WIDTH * 3, HIDDEN * 3
        truth |= {
            # Debatable: as nonlinear as the gate, and a factor as well.
            **line(f"filter_{i}", *into, function="tanh", part=ANY),
            **line(f"gate_{i}", *into, function="sigmoid", part="gate"),
            # Debatable: a sum of what all layers say, begun with zero.
            **line(f"skip_{i}", HIDDEN, skips, function=ANY, residual=ANY),
            **line(f"residual_{i}", HIDDEN, WIDTH, residual=(i, layers - 1)),
        }
    truth |= {
        f"residual_{layers - 1}/w": unused(),
        f"residual_{layers - 1}/b": unused(),
        **line("end_0", skips, 11, function="relu"),
        **line("end_1", 11, OUTPUTS, head=True),
    }
    return of_haiku(fun, [floats(BATCH, LENGTH, 1)], truth)


@model
def conformer() -> Model:
    """Gulati et al. 2020, Linen: half steps around attention and a convolution."""
    from flax import linen as nn

    heads, size, layers = 2, 7, 2

    class FeedForward(nn.Module):
        @nn.compact
        def __call__(self, x):
            h = nn.Dense(HIDDEN, name="up")(nn.LayerNorm(name="norm")(x))
            h = nn.Dropout(0.1, deterministic=True)(nn.swish(h))
            return nn.Dense(WIDTH, name="down")(h)

    class Convolution(nn.Module):
        @nn.compact
        def __call__(self, x):
            h = nn.Conv(2 * WIDTH, (1,), name="pointwise_1")(
                nn.LayerNorm(name="norm")(x)
            )
            h = nn.glu(h, axis=-1)
            h = nn.Conv(WIDTH, (5,), feature_group_count=WIDTH, name="depthwise")(h)
            h = nn.swish(nn.BatchNorm(use_running_average=False, name="bn")(h))
            return nn.Conv(WIDTH, (1,), name="pointwise_2")(h)

    class Block(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = x + 0.5 * FeedForward(name="ff_1")(x)
            h = nn.LayerNorm(name="norm_attention")(x)
            x = x + nn.MultiHeadDotProductAttention(
                heads, qkv_features=heads * size, name="attention"
            )(h)
            x = x + Convolution(name="conv")(x)
            x = x + 0.5 * FeedForward(name="ff_2")(x)
            return nn.LayerNorm(name="norm_out")(x)

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.relu(nn.Conv(6, (3, 3), (2, 2), name="subsample")(x[..., None]))
            x = nn.Dense(WIDTH, name="project")(x.reshape(*x.shape[:2], -1))
            for i in range(layers):
                x = Block(name=f"block_{i}")(x)
            return nn.log_softmax(nn.Dense(OUTPUTS, name="ctc")(x))

    def feed_forward(path, index):
        return {
            **norm(f"{path}/norm"),
            **dense(f"{path}/up", WIDTH, HIDDEN, function="silu"),
            f"{path}/down/kernel": kernel(
                HIDDEN, WIDTH, multiplier=0.5, residual=(index, 4 * layers)
            ),
            f"{path}/down/bias": bias(f"{path}/down/kernel", multiplier=ANY),
        }

    halves = [
        (((0, WIDTH),), "up", "identity"),
        (((WIDTH, 2 * WIDTH),), "gate", "sigmoid"),
    ]
    block = {
        **feed_forward("ff_1", 0),
        **norm("norm_attention"),
        **attention("attention", WIDTH, heads, size, (1, 4 * layers), scaled=True),
        **norm("conv/norm"),
        "conv/pointwise_1/kernel": convolution(
            WIDTH,
            2 * WIDTH,
            **LINE,
            function=ANY,
            sections=[(2, *half) for half in halves],
        ),
        "conv/pointwise_1/bias": bias(
            "conv/pointwise_1/kernel",
            sections=[(0, *half[:2], None) for half in halves],
        ),
        **window("conv/depthwise", 5, 5, **LINE, groups=WIDTH),
        **norm("conv/bn"),
        **window("conv/pointwise_2", WIDTH, WIDTH, **LINE, residual=(2, 4 * layers)),
        **feed_forward("ff_2", 3),
        **norm("norm_out"),
    }
    truth = {
        **window("subsample", 9, 6 * 9, function="relu"),
        # 8 frequencies become 4.
        **dense("project", 4 * 6, WIDTH),
        **every("block_{}/", layers, block),
        **dense("ctc", WIDTH, OUTPUTS, head=True),
    }
    return of_linen(Net(), [floats(BATCH, 12, 8)], truth)


@model
def linear_attention() -> Model:
    """Katharopoulos et al. 2020: elu(x) + 1 of queries and keys, no softmax."""
    heads, size, values, layers = 3, 4, 6, 2

    def layer(p, x):
        h = rms_norm(x, p["norm"])
        q = jax.nn.elu(jnp.einsum("btd,dhk->bthk", h, p["q"])) + 1
        k = jax.nn.elu(jnp.einsum("btd,dhk->bthk", h, p["k"])) + 1
        v = jnp.einsum("btd,dhv->bthv", h, p["v"])
        memory = jnp.einsum("bthk,bthv->bhkv", k, v)
        total = 1 / (jnp.einsum("bthk,bhk->bth", q, k.sum(1)) + 1e-6)
        h = jnp.einsum("bthk,bhkv,bth->bthv", q, memory, total)
        return x + jnp.einsum("bthv,hvd->btd", h, p["o"])

    def apply(p, tokens):
        x = p["embed"][tokens]
        for layer_params in p["layers"]:
            x = layer(layer_params, x)
        return x @ p["head"]

    layer_params = {
        "norm": floats(WIDTH),
        "q": floats(WIDTH, heads, size),
        "k": floats(WIDTH, heads, size),
        "v": floats(WIDTH, heads, values),
        "o": floats(heads, values, WIDTH),
    }
    params = {
        "embed": floats(17, WIDTH),
        "layers": [layer_params] * layers,
        "head": floats(WIDTH, OUTPUTS),
    }
    # Debatable: the terms tell queries, keys and values apart by the softmax alone.
    into = {"part": ANY, "function": ANY}
    single = {
        "norm": scale(),
        "q": kernel(WIDTH, heads * size, 0, (1, 2), **into),
        "k": kernel(WIDTH, heads * size, 0, (1, 2), **into),
        "v": kernel(WIDTH, heads * values, 0, (1, 2), part=ANY),
        "o": kernel(heads * values, WIDTH, (0, 1), 2, residual=(0, layers), part=ANY),
    }
    truth = {
        "embed": embedding(WIDTH),
        **every("layers/{}/", layers, single),
        "head": kernel(WIDTH, OUTPUTS, head=True),
    }
    return Model(apply, params, (integers(BATCH, LENGTH),), truth)


@model
def selective_state_space() -> Model:
    """Gu and Dao 2023 (Mamba): a gate, a depthwise window, a diagonal scan."""
    inner, rank, state, layers = 14, 3, 4, 2

    def scan(p, x, dt, b, c):
        a = -jnp.exp(p["A_log"])
        decay = jnp.exp(jnp.einsum("btd,dn->btdn", dt, a))
        driven = jnp.einsum("btd,btn,btd->btdn", dt, b, x)

        def step(h, now):
            decay, driven, c = now
            h = decay * h + driven
            return h, jnp.einsum("bdn,bn->bd", h, c)

        zeros = jnp.zeros((BATCH, inner, state))
        moved = jax.tree.map(lambda x: x.swapaxes(0, 1), (decay, driven, c))
        _, y = jax.lax.scan(step, zeros, moved)
        return y.swapaxes(0, 1) + x * p["D"]

    def block(p, u):
        x, z = jnp.split(u @ p["in_proj"], 2, axis=-1)
        x = jax.lax.conv_general_dilated(
            x,
            p["conv"],
            (1,),
            [(3, 0)],
            dimension_numbers=("NWC", "WIO", "NWC"),
            feature_group_count=inner,
        )
        x = jax.nn.silu(x + p["conv_bias"])
        dt, b, c = jnp.split(x @ p["x_proj"], [rank, rank + state], axis=-1)
        dt = jax.nn.softplus(dt @ p["dt_proj"] + p["dt_bias"])
        return (scan(p, x, dt, b, c) * jax.nn.silu(z)) @ p["out_proj"]

    def apply(p, tokens):
        x = p["embedding"][tokens]
        for layer in p["layers"]:
            x = x + block(layer, rms_norm(x, layer["norm"]))
        return rms_norm(x, p["norm_f"]) @ p["embedding"].T

    layer = {
        "norm": floats(WIDTH),
        "in_proj": floats(WIDTH, 2 * inner),
        "conv": floats(4, 1, inner),
        "conv_bias": floats(inner),
        "x_proj": floats(inner, rank + 2 * state),
        "dt_proj": floats(rank, inner),
        "dt_bias": floats(inner),
        "A_log": floats(inner, state),
        "D": floats(inner),
        "out_proj": floats(inner, WIDTH),
    }
    params = {
        "embedding": floats(17, WIDTH),
        "layers": [layer] * layers,
        "norm_f": floats(WIDTH),
    }
    single = {
        "norm": scale(),
        "in_proj": kernel(
            WIDTH,
            2 * inner,
            function=ANY,
            sections=[
                # Debatable: what it becomes is the gate's other factor.
                (1, ((0, inner),), ANY, "identity"),
                (1, ((inner, 2 * inner),), "gate", "silu"),
            ],
        ),
        "conv": convolution(4, 4, **LINE, function="silu", groups=inner),
        "conv_bias": bias("conv"),
        # Debatable: three parts for which the terms have no names.
        "x_proj": kernel(inner, rank + 2 * state, sections=ANY),
        # Debatable: by a nonlinear function it multiplies what enters the state.
        "dt_proj": kernel(rank, inner, function="softplus", part=ANY),
        "dt_bias": bias("dt_proj", part=ANY),
        "A_log": unknown(),
        # Debatable: it multiplies what is added beside the state's output.
        "D": scale(),
        "out_proj": kernel(inner, WIDTH, residual=(0, layers)),
    }
    truth = {
        "embedding": [embedding(WIDTH), kernel(WIDTH, 17, 1, 0, head=True)],
        **every("layers/{}/", layers, single),
        "norm_f": scale(),
    }
    return Model(apply, params, (integers(BATCH, LENGTH),), truth)


@model
def affine_couplings() -> Model:
    """Dinh et al. 2017 (RealNVP), Haiku: halves change in turn; with the volume."""
    import haiku as hk

    half, layers = 5, 3

    def fun(x):
        volume = jnp.zeros(x.shape[0])
        for i in range(layers):
            left, right = jnp.split(x, 2, axis=-1)
            h = jax.nn.relu(hk.Linear(HIDDEN, name=f"first_{i}")(left))
            h = hk.Linear(2 * half, name=f"second_{i}")(h)
            s, t = jnp.tanh(h[:, :half]), h[:, half:]
            x = jnp.concatenate([right * jnp.exp(s) + t, left], axis=-1)
            volume = volume + s.sum(axis=-1)
        return x, volume

    truth = {}
    # Debatable: half of it is a factor by tanh and exp, and a term of the volume.
    open_end = {"head": ANY, "part": ANY, "residual": ANY, "sections": ANY}
    for i in range(layers):
        truth |= linear(f"first_{i}", half, HIDDEN, function="relu")
        truth[f"second_{i}/w"] = kernel(HIDDEN, 2 * half, function=ANY, **open_end)
        truth[f"second_{i}/b"] = bias(f"second_{i}/w", part=ANY, sections=ANY)
    return of_haiku(fun, [floats(BATCH, 2 * half)], truth)
