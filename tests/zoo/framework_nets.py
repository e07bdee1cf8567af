"""NNX and Equinox: nets of many kinds, as their examples are written."""

import jax
import jax.numpy as jnp

from zoo.equinox_models import of_equinox
from zoo.flax_layers import window
from zoo.nnx_models import of_nnx
from zoo.truths import (
    ANY,
    UNNAMED,
    Model,
    Use,
    below,
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
    one_of,
    scale,
    stacked,
    unknown,
)

BATCH, WIDTH, HIDDEN, LENGTH = 2, 8, 12, 6


@model
def video_classifier() -> Model:
    """NNX: windows of three axes, factored in space and time; group norms; a mean."""
    from flax import nnx

    class Block(nnx.Module):
        def __init__(self, size, rngs):
            self.space = nnx.Conv(size, size, (1, 3, 3), rngs=rngs)
            self.norm1 = nnx.GroupNorm(size, num_groups=2, rngs=rngs)
            self.time = nnx.Conv(size, size, (3, 1, 1), use_bias=False, rngs=rngs)
            self.norm2 = nnx.GroupNorm(size, num_groups=2, rngs=rngs)

        def __call__(self, x):
            h = nnx.swish(self.norm1(self.space(x)))
            return x + nnx.swish(self.norm2(self.time(h)))

    class Net(nnx.Module):
        def __init__(self, rngs):
            self.stem = nnx.Conv(3, WIDTH, (3, 3, 3), strides=(1, 2, 2), rngs=rngs)
            self.blocks = nnx.List([Block(WIDTH, rngs) for _ in range(2)])
            self.drop = nnx.Dropout(0.5, deterministic=True)
            self.linear = nnx.Linear(WIDTH, 5, rngs=rngs)

        def __call__(self, x):
            x = nnx.relu(self.stem(x))
            for block in self.blocks:
                x = block(x)
            return nnx.log_softmax(self.linear(self.drop(x.mean((1, 2, 3)))))

    axes = {"spatial_axis": (0, 1, 2), "in_axis": 3, "out_axis": 4}
    own = {
        **window("space", 9 * WIDTH, 9 * WIDTH, **axes),
        **norm("norm1"),
        "time/kernel": convolution(3 * WIDTH, 3 * WIDTH, residual=(0, 2), **axes),
        **norm("norm2"),
    }
    truth = {
        **window("stem", 27 * 3, 27 * WIDTH, function="relu", **axes),
        **every("blocks/{}/", 2, own),
        **dense("linear", WIDTH, 5, head=True),
    }
    return of_nnx(lambda rngs: Net(rngs), [floats(BATCH, 4, 8, 8, 3)], truth)


@model
def tagger_with_two_encoders() -> Model:
    """NNX: a window on letters beside words, attention pooled by a leaf."""
    from flax import nnx

    letters = 5

    class Net(nnx.Module):
        def __init__(self, rngs):
            self.chars = nnx.Embed(30, 4, rngs=rngs)
            self.conv = nnx.Conv(4, 6, (3,), rngs=rngs)
            self.words = nnx.Embed(40, WIDTH, rngs=rngs)
            self.attention = nnx.MultiHeadAttention(
                2, WIDTH + 6, HIDDEN, decode=False, use_bias=False, rngs=rngs
            )
            self.norm = nnx.RMSNorm(WIDTH + 6, rngs=rngs)
            self.pool = nnx.Param(jnp.zeros(WIDTH + 6))
            self.out = nnx.LinearGeneral(WIDTH + 6, (3, 2), rngs=rngs)

        def __call__(self, words, chars):
            c = jnp.max(nnx.relu(self.conv(self.chars(chars))), axis=-2)
            x = jnp.concatenate([self.words(words), c], axis=-1)
            x = x + self.attention(self.norm(x))
            scores = nnx.softmax(x @ self.pool[...], axis=1)
            return self.out((scores[..., None] * x).sum(1))

    total = WIDTH + 6
    heads = {"in_axis": 0, "out_axis": (1, 2)}
    truth = {
        "chars/embedding": embedding(4),
        **window(
            "conv", 12, 18, spatial_axis=0, in_axis=1, out_axis=2, function="relu"
        ),
        "words/embedding": embedding(WIDTH),
        # The scores are scaled, and not the queries.
        "attention/query/kernel": kernel(total, HIDDEN, part="query", **heads),
        "attention/key/kernel": kernel(total, HIDDEN, part="key", **heads),
        "attention/value/kernel": kernel(total, HIDDEN, part="value", **heads),
        "attention/out/kernel": kernel(
            HIDDEN, total, (0, 1), 2, residual=(0, 1), part="attention output"
        ),
        "norm/scale": scale(),
        # Debatable: a query that is a leaf.
        "pool": Use(
            one_of("kernel", "embedding"),
            0,
            fan_in=total,
            fan_out=1,
            function="identity",
            part=ANY,
        ),
        "out/kernel": kernel(total, 6, 0, (1, 2), part=ANY, head=True),
        "out/bias": bias("out/kernel", (0, 1), part=ANY),
    }
    inputs = [integers(BATCH, LENGTH), integers(BATCH, LENGTH, letters)]
    return of_nnx(Net, inputs, truth)


@model
def mixer_of_conditions() -> Model:
    """NNX: adaptive norms whose branches begin at zero (DiT), scanned over layers."""
    from flax import nnx

    layers = 3

    class Block(nnx.Module):
        def __init__(self, rngs):
            self.norm = nnx.LayerNorm(WIDTH, use_bias=False, use_scale=False, rngs=rngs)
            self.modulation = nnx.Linear(WIDTH, 3 * WIDTH, rngs=rngs)
            self.up = nnx.Linear(WIDTH, HIDDEN, rngs=rngs)
            self.down = nnx.Linear(HIDDEN, WIDTH, rngs=rngs)

        def __call__(self, x, c):
            shift, scale, gate = jnp.split(self.modulation(nnx.silu(c)), 3, axis=-1)
            h = self.norm(x) * (1 + scale[:, None]) + shift[:, None]
            return x + gate[:, None] * self.down(nnx.gelu(self.up(h)))

    class Net(nnx.Module):
        def __init__(self, rngs):
            @nnx.split_rngs(splits=layers)
            @nnx.vmap
            def make(rngs):
                return Block(rngs)

            self.patches = nnx.Linear(5, WIDTH, rngs=rngs)
            self.places = nnx.Param(jnp.zeros((1, LENGTH, WIDTH)))
            self.label = nnx.Embed(4, WIDTH, rngs=rngs)
            self.blocks = make(rngs)
            self.final = nnx.Linear(WIDTH, 5, use_bias=False, rngs=rngs)

        def __call__(self, x, label):
            c = self.label(label)

            @nnx.scan(in_axes=(0, nnx.Carry, None), out_axes=nnx.Carry)
            def run(block, x, c):
                return block(x, c)

            x = self.patches(x) + self.places[...]
            return self.final(run(self.blocks, x, c))

    block = {
        # Debatable: which residual a factor without a function has.
        "modulation/kernel": kernel(
            WIDTH, 3 * WIDTH, residual=ANY, part=ANY, sections=ANY
        ),
        "modulation/bias": bias("modulation/kernel", part=ANY, sections=ANY),
        **dense("up", WIDTH, HIDDEN, function="gelu"),
        "down/kernel": kernel(HIDDEN, WIDTH, residual=(0, layers), part=ANY),
        "down/bias": bias("down/kernel", part=ANY),
    }
    truth = {
        **dense("patches", 5, WIDTH),
        "places": Use("position", 1, 2),
        "label/embedding": embedding(WIDTH),
        **below("blocks/", stacked(block)),
        "final/kernel": kernel(WIDTH, 5, head=True),
    }
    return of_nnx(Net, [floats(BATCH, LENGTH, 5), integers(BATCH)], truth)


@model
def learned_slopes() -> Model:
    """Equinox: PReLU, group norm, pools and a transposed window; channels first."""
    import equinox as eqx

    class Net(eqx.Module):
        down: eqx.nn.Conv2d
        slope: eqx.nn.PReLU
        norm: eqx.nn.GroupNorm
        middle: eqx.nn.Conv2d
        up: eqx.nn.ConvTranspose2d
        out: eqx.nn.Conv2d

        def __init__(self, key):
            self.down = eqx.nn.Conv2d(3, 6, 3, padding=1, key=key)
            self.slope = eqx.nn.PReLU(0.25)
            self.norm = eqx.nn.GroupNorm(3, 6)
            self.middle = eqx.nn.Conv2d(6, 6, 3, padding=2, dilation=2, key=key)
            self.up = eqx.nn.ConvTranspose2d(6, 4, 2, stride=2, key=key)
            self.out = eqx.nn.Conv2d(4, 3, 1, use_bias=False, key=key)

        def __call__(self, x):
            x = eqx.nn.MaxPool2d(2, 2)(self.slope(self.down(x)))
            x = x + jax.nn.relu(self.middle(self.norm(x)))
            return jnp.tanh(self.out(jax.nn.elu(self.up(x))))

    axes = {"spatial_axis": (2, 3), "in_axis": 1, "out_axis": 0}
    names = ("weight", "bias")
    truth = {
        # A slope of one would make it linear. Debatable: the function.
        **window("down", 27, 54, names, function=ANY, **axes),
        "slope/negative_slope": unknown(),
        **norm("norm", "weight"),
        **window("middle", 54, 54, names, function="relu", residual=(0, 1), **axes),
        **window("up", 6, 16, names, function="elu", transposed=True, **axes),
        "out/weight": convolution(4, 3, function="tanh", head=True, **axes),
    }
    return of_equinox(lambda key: Net(key), [floats(BATCH, 3, 8, 8)], truth)


@model
def attention_without_batch() -> Model:
    """Equinox: mapped attention with queries' own memory, and a sequence's conv."""
    import equinox as eqx

    class Net(eqx.Module):
        embed: eqx.nn.Embedding
        conv: eqx.nn.Conv1d
        attention: eqx.nn.MultiheadAttention
        norm: eqx.nn.RMSNorm
        mlp: eqx.nn.MLP
        last: eqx.nn.Linear

        def __init__(self, key):
            self.embed = eqx.nn.Embedding(20, WIDTH, key=key)
            self.conv = eqx.nn.Conv1d(5, WIDTH, 3, padding="SAME", key=key)
            self.attention = eqx.nn.MultiheadAttention(
                2, WIDTH, use_query_bias=True, use_output_bias=True, key=key
            )
            self.norm = eqx.nn.RMSNorm(WIDTH, use_bias=False)
            self.mlp = eqx.nn.MLP(WIDTH, WIDTH, HIDDEN, 1, jax.nn.mish, key=key)
            self.last = eqx.nn.Linear(WIDTH, "scalar", key=key)

        def __call__(self, tokens, sound):
            x = jax.vmap(self.embed)(tokens)
            memory = self.conv(sound.T).T
            x = x + self.attention(x, memory, memory)
            x = x + jax.vmap(lambda x: self.mlp(self.norm(x)))(x)
            return jax.vmap(self.last)(x)

    def projection(name, part, with_bias, **rest):
        path = f"attention/{name}_proj"
        own = kernel(WIDTH, WIDTH, 1, 0, part=part, **rest)
        truth = {f"{path}/weight": own}
        if with_bias:
            truth[f"{path}/bias"] = bias(f"{path}/weight", part=part, multiplier=ANY)
        return truth

    axes = {"spatial_axis": 2, "in_axis": 1, "out_axis": 0}
    rows = {"weight": "weight", "in_axis": 1, "out_axis": 0}
    truth = {
        "embed/weight": embedding(WIDTH),
        "conv/weight": convolution(15, 3 * WIDTH, **axes),
        "conv/bias": bias("conv/weight"),
        **projection("query", "query", True, multiplier=(WIDTH // 2) ** -0.5),
        **projection("key", "key", False),
        **projection("value", "value", False),
        **projection("output", "attention output", True, residual=(0, 2)),
        "norm/weight": scale(),
        **dense("mlp/layers/0", WIDTH, HIDDEN, function=UNNAMED, **rows),
        **dense("mlp/layers/1", HIDDEN, WIDTH, residual=(1, 2), **rows),
        **dense("last", WIDTH, 1, head=True, **rows),
    }
    inputs = [integers(BATCH, LENGTH), floats(BATCH, LENGTH, 5)]
    return of_equinox(lambda key: Net(key), inputs, truth)
