"""Equinox: weights are (outputs, inputs), and models are mapped over the batch."""

import jax
import jax.numpy as jnp

from zoo.truths import (
    ANY,
    Model,
    below,
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
    position,
    scale,
    stacked,
    token,
)

BATCH, LENGTH, WIDTH, HIDDEN, OUTPUTS = 2, 5, 12, 15, 4


def of_equinox(construct, inputs, truth) -> Model:
    """The arrays of the model that `construct` makes of a key; inputs have a batch."""
    import equinox as eqx

    made = eqx.filter_eval_shape(construct, jax.random.key(0))
    params, static = eqx.partition(
        made, lambda leaf: isinstance(leaf, jax.ShapeDtypeStruct)
    )

    def apply(params, *inputs):
        return jax.vmap(eqx.combine(params, static))(*inputs)

    return Model(apply, params, tuple(inputs), truth)


def linear(path, fan_in, fan_out, **rest):
    return dense(path, fan_in, fan_out, weight="weight", in_axis=1, out_axis=0, **rest)


def normalized(path):
    return norm(path, factor="weight")


def image(path, fan_in, fan_out, **rest):
    """A convolution (outputs, inputs, rows, columns), and its bias (outputs, 1, 1)."""
    axes = {"spatial_axis": (2, 3), "in_axis": 1, "out_axis": 0}
    return {
        f"{path}/weight": convolution(fan_in, fan_out, **axes, **rest),
        f"{path}/bias": bias(f"{path}/weight"),
    }


@model
def perceptron() -> Model:
    """eqx.nn.MLP, with a sigmoid at its end."""
    import equinox as eqx

    def construct(key):
        return eqx.nn.MLP(
            7,
            OUTPUTS,
            11,
            2,
            activation=jax.nn.softplus,
            final_activation=jax.nn.sigmoid,
            key=key,
        )

    truth = {
        **linear("layers/0", 7, 11, function="softplus"),
        **linear("layers/1", 11, 11, function="softplus"),
        **linear("layers/2", 11, OUTPUTS, function="sigmoid", head=True),
    }
    return of_equinox(construct, [floats(BATCH, 7)], truth)


@model
def classifier() -> Model:
    """eqx.nn.Conv2d with and without groups, and a residual branch without norm."""
    import equinox as eqx

    class Net(eqx.Module):
        stem: eqx.nn.Conv2d
        grouped: eqx.nn.Conv2d
        back: eqx.nn.Conv2d
        norm: eqx.nn.GroupNorm
        out: eqx.nn.Linear

        def __init__(self, key):
            keys = jax.random.split(key, 4)
            self.stem = eqx.nn.Conv2d(3, 6, (3, 2), 2, key=keys[0])
            self.grouped = eqx.nn.Conv2d(6, 8, (3, 5), 1, (1, 2), groups=2, key=keys[1])
            self.back = eqx.nn.Conv2d(8, 6, 1, key=keys[2])
            self.norm = eqx.nn.GroupNorm(2, 6)
            self.out = eqx.nn.Linear(6, OUTPUTS, key=keys[3])

        def __call__(self, x):
            x = jax.nn.relu(self.stem(x))
            x = x + self.back(jax.nn.elu(self.grouped(x)))
            x = jax.nn.relu(self.norm(x))
            return self.out(x.mean((1, 2)))

    truth = {
        **image("stem", 3 * 6, 6 * 6, function="relu"),
        **image("grouped", 6 * 15 / 2, 8 * 15 / 2, function="elu", groups=2),
        **image("back", 8, 6, residual=(0, 1)),
        **normalized("norm"),
        **linear("out", 6, OUTPUTS, head=True),
    }
    return of_equinox(Net, [floats(BATCH, 3, 9, 8)], truth)


@model
def decoder() -> Model:
    """eqx.nn.ConvTranspose2d, twice, behind a layer for the code."""
    import equinox as eqx

    class Net(eqx.Module):
        code: eqx.nn.Linear
        up_1: eqx.nn.ConvTranspose2d
        up_2: eqx.nn.ConvTranspose2d

        def __init__(self, key):
            keys = jax.random.split(key, 3)
            self.code = eqx.nn.Linear(7, 8 * 2 * 3, key=keys[0])
            self.up_1 = eqx.nn.ConvTranspose2d(8, 6, (4, 2), stride=2, key=keys[1])
            self.up_2 = eqx.nn.ConvTranspose2d(6, 3, (3, 4), (1, 2), key=keys[2])

        def __call__(self, z):
            x = jax.nn.silu(self.code(z)).reshape(8, 2, 3)
            return jnp.tanh(self.up_2(jax.nn.leaky_relu(self.up_1(x))))

    truth = {
        **linear("code", 7, 48, function="silu"),
        **image("up_1", 8 * 8 / 4, 6 * 8, function="leaky_relu", transposed=True),
        **image(
            "up_2", 6 * 12 / 2, 3 * 12, function="tanh", transposed=True, head=True
        ),
    }
    return of_equinox(Net, [floats(BATCH, 7)], truth)


@model
def transformer() -> Model:
    """eqx.nn.MultiheadAttention, which scales queries; a class token; embeddings."""
    import equinox as eqx

    heads, size, values, layers = 3, 5, 7, 2

    class Block(eqx.Module):
        norm_1: eqx.nn.LayerNorm
        attention: eqx.nn.MultiheadAttention
        norm_2: eqx.nn.LayerNorm
        up: eqx.nn.Linear
        down: eqx.nn.Linear

        def __init__(self, key):
            keys = jax.random.split(key, 3)
            self.norm_1 = eqx.nn.LayerNorm(WIDTH)
            self.attention = eqx.nn.MultiheadAttention(
                heads, WIDTH, qk_size=size, vo_size=values, key=keys[0]
            )
            self.norm_2 = eqx.nn.LayerNorm(WIDTH)
            self.up = eqx.nn.Linear(WIDTH, HIDDEN, key=keys[1])
            self.down = eqx.nn.Linear(HIDDEN, WIDTH, key=keys[2])

        def __call__(self, x):
            h = jax.vmap(self.norm_1)(x)
            x = x + self.attention(h, h, h)
            h = jax.vmap(self.up)(jax.vmap(self.norm_2)(x))
            return x + jax.vmap(self.down)(jax.nn.gelu(h))

    class Net(eqx.Module):
        embed: eqx.nn.Embedding
        cls: jax.Array
        positions: jax.Array
        blocks: list[Block]
        out: eqx.nn.Linear

        def __init__(self, key):
            keys = jax.random.split(key, layers + 2)
            self.embed = eqx.nn.Embedding(17, WIDTH, key=keys[0])
            self.cls = jnp.zeros((1, WIDTH))
            self.positions = jnp.zeros((LENGTH + 1, WIDTH))
            self.blocks = [Block(key) for key in keys[2:]]
            self.out = eqx.nn.Linear(WIDTH, OUTPUTS, key=keys[1])

        def __call__(self, tokens):
            x = jnp.concatenate([self.cls, jax.vmap(self.embed)(tokens)])
            x = x + self.positions
            for block in self.blocks:
                x = block(x)
            return self.out(x[0])

    def projected(name, fan_in, fan_out, **rest):
        path = f"attention/{name}_proj/weight"
        return {path: kernel(fan_in, fan_out, 1, 0, **rest)}

    block = {
        **normalized("norm_1"),
        **projected("query", WIDTH, heads * size, part="query", multiplier=size**-0.5),
        **projected("key", WIDTH, heads * size, part="key"),
        **projected("value", WIDTH, heads * values, part="value"),
        **projected(
            "output",
            heads * values,
            WIDTH,
            part="attention output",
            residual=(0, 2 * layers),
        ),
        **normalized("norm_2"),
        **linear("up", WIDTH, HIDDEN, function="gelu"),
        **linear("down", HIDDEN, WIDTH, residual=(1, 2 * layers)),
    }
    truth = {
        "embed/weight": embedding(WIDTH),
        # A single token has no axis that varies but its features.
        "cls": token(WIDTH, ANY, 1),
        "positions": position(),
        **every("blocks/{}/", layers, block),
        **linear("out", WIDTH, OUTPUTS, head=True),
    }
    return of_equinox(Net, [integers(BATCH, LENGTH)], truth)


@model
def lstm() -> Model:
    """eqx.nn.LSTMCell by lax.scan, with gates i, f, g, o."""
    import equinox as eqx

    state = 10

    class Net(eqx.Module):
        cell: eqx.nn.LSTMCell
        out: eqx.nn.Linear

        def __init__(self, key):
            self.cell = eqx.nn.LSTMCell(7, state, key=key)
            self.out = eqx.nn.Linear(state, OUTPUTS, use_bias=False, key=key)

        def __call__(self, x):
            carry = (jnp.zeros(state), jnp.zeros(state))
            carry, _ = jax.lax.scan(lambda c, x: (self.cell(x, c), None), carry, x)
            return self.out(carry[0])

    parts = ("input gate", "forget gate", "cell", "output gate")
    own = {"function": ANY, "sections": cut(0, state, parts)}
    truth = {
        "cell/weight_ih": kernel(7, 4 * state, 1, 0, **own),
        "cell/weight_hh": kernel(state, 4 * state, 1, 0, recurrent=True, **own),
        "cell/bias": bias(
            ["cell/weight_hh", "cell/weight_ih"], sections=bias_cut(state, parts)
        ),
        "out/weight": kernel(state, OUTPUTS, 1, 0, head=True),
    }
    return of_equinox(Net, [floats(BATCH, LENGTH, 7)], truth)


@model
def gru() -> Model:
    """eqx.nn.GRUCell by lax.scan: h' = n + z (h - n); the candidate has two biases."""
    import equinox as eqx

    state = 10

    class Net(eqx.Module):
        cell: eqx.nn.GRUCell
        out: eqx.nn.Linear

        def __init__(self, key):
            self.cell = eqx.nn.GRUCell(7, state, key=key)
            self.out = eqx.nn.Linear(state, "scalar", key=key)

        def __call__(self, x):
            step = lambda h, x: (self.cell(x, h), None)  # noqa: E731
            return self.out(jax.lax.scan(step, jnp.zeros(state), x)[0])

    parts = ("reset gate", "update gate", "candidate")
    own = cut(0, state, parts)
    truth = {
        "cell/weight_ih": kernel(7, 3 * state, 1, 0, ANY, sections=own),
        # The candidate's part of the state meets the reset gate before the tanh.
        "cell/weight_hh": kernel(
            state,
            3 * state,
            1,
            0,
            ANY,
            recurrent=True,
            sections=cut(0, state, parts, candidate="identity"),
        ),
        "cell/bias": bias("cell/weight_ih", sections=bias_cut(state, parts)),
        # It is added to the candidate's section, and has no other.
        "cell/bias_n": bias("cell/weight_hh", part="candidate"),
        "out/weight": kernel(state, 1, 1, 0, head=True),
        "out/bias": bias("out/weight", ()),
    }
    return of_equinox(Net, [floats(BATCH, LENGTH, 7)], truth)


@model
def scanned_blocks() -> Model:
    """Blocks made by filter_vmap, run by lax.scan with checkpoints: SwiGLU, RMSNorm."""
    import equinox as eqx

    layers = 3

    class Block(eqx.Module):
        norm: eqx.nn.RMSNorm
        fused: eqx.nn.Linear
        down: eqx.nn.Linear

        def __init__(self, key):
            keys = jax.random.split(key)
            self.norm = eqx.nn.RMSNorm(WIDTH, use_bias=False)
            self.fused = eqx.nn.Linear(WIDTH, 2 * HIDDEN, use_bias=False, key=keys[0])
            self.down = eqx.nn.Linear(HIDDEN, WIDTH, use_bias=False, key=keys[1])

        def __call__(self, x):
            up, gate = jnp.split(self.fused(self.norm(x)), 2)
            return x + 0.5 * self.down(jax.nn.silu(gate) * up)

    class Net(eqx.Module):
        embed: eqx.nn.Linear
        blocks: Block
        out: eqx.nn.Linear

        def __init__(self, key):
            self.embed = eqx.nn.Linear(7, WIDTH, key=key)
            self.blocks = eqx.filter_vmap(Block)(jax.random.split(key, layers))
            self.out = eqx.nn.Linear(WIDTH, OUTPUTS, key=key)

        def __call__(self, x):
            arrays, static = eqx.partition(self.blocks, eqx.is_array)

            @jax.checkpoint
            def step(x, layer):
                return eqx.combine(layer, static)(x), None

            return self.out(jax.lax.scan(step, self.embed(x), arrays)[0])

    sections = [
        (0, ((0, HIDDEN),), "up", "identity"),
        (0, ((HIDDEN, 2 * HIDDEN),), "gate", "silu"),
    ]
    block = {
        "norm/weight": scale(),
        "fused/weight": kernel(WIDTH, 2 * HIDDEN, 1, 0, ANY, sections=sections),
        "down/weight": kernel(
            HIDDEN, WIDTH, 1, 0, residual=(0, layers), multiplier=0.5
        ),
    }
    truth = {
        **linear("embed", 7, WIDTH),
        **below("blocks/", stacked(block)),
        **linear("out", WIDTH, OUTPUTS, head=True),
    }
    return of_equinox(Net, [floats(BATCH, 7)], truth)
