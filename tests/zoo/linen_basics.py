"""Flax Linen: names that mislead, general layers, lifted transforms, cells."""

import jax.numpy as jnp

from zoo.flax_layers import attention, gru, lstm, of_linen
from zoo.truths import (
    Model,
    below,
    bias,
    dense,
    embedding,
    floats,
    integers,
    kernel,
    model,
    norm,
    position,
    scale,
    shift,
    stacked,
)

BATCH, LENGTH, WIDTH, HIDDEN, OUTPUTS = 2, 5, 12, 15, 4


@model
def misleading_names() -> Model:
    """Layers are named for what they are not, and made in another order than used."""
    from flax import linen as nn

    class Net(nn.Module):
        def setup(self):
            self.Dense_0 = nn.Dense(OUTPUTS)
            self.head = nn.Dense(11)
            self.query = nn.Dense(13)
            self.embedding = nn.Dense(9, use_bias=False)
            self.bias = nn.Dense(8)

        def __call__(self, x):
            x = nn.relu(self.head(x))
            x = nn.tanh(self.query(x))
            x = nn.gelu(self.embedding(x), approximate=False)
            return self.Dense_0(nn.silu(self.bias(x)))

    truth = {
        **dense("head", 7, 11, function="relu"),
        **dense("query", 11, 13, function="tanh"),
        "embedding/kernel": kernel(13, 9, function="gelu"),
        **dense("bias", 9, 8, function="silu"),
        **dense("Dense_0", 8, OUTPUTS, head=True),
    }
    return of_linen(Net(), [floats(BATCH, 7)], truth)


@model
def general_and_tied() -> Model:
    """DenseGeneral over several axes, Embed for tokens and positions, and attend."""
    from flax import linen as nn

    class Net(nn.Module):
        @nn.compact
        def __call__(self, tokens):
            embed = nn.Embed(17, WIDTH)
            positions = nn.Embed(LENGTH, WIDTH, name="positions")
            x = embed(tokens) + positions(jnp.arange(LENGTH))
            x = nn.gelu(nn.DenseGeneral((3, 7))(x))
            x = nn.selu(nn.DenseGeneral(WIDTH, axis=(-2, -1))(x))
            return embed.attend(nn.LayerNorm(use_bias=False)(x))

    truth = {
        "Embed_0/embedding": [
            embedding(WIDTH),
            kernel(WIDTH, 17, 1, 0, head=True),
        ],
        "positions/embedding": position(),
        "DenseGeneral_0/kernel": kernel(WIDTH, 21, 0, (1, 2), "gelu"),
        "DenseGeneral_0/bias": bias("DenseGeneral_0/kernel", (0, 1)),
        "DenseGeneral_1/kernel": kernel(21, WIDTH, (0, 1), 2, "selu"),
        "DenseGeneral_1/bias": bias("DenseGeneral_1/kernel"),
        "LayerNorm_0/scale": scale(),
    }
    return of_linen(Net(), [integers(BATCH, LENGTH)], truth)


@model
def one_kernel_for_each_source() -> Model:
    """DenseGeneral with batch axes, and nn.vmap of an MLP over its parameters."""
    from flax import linen as nn

    sources = 3

    class Expert(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.Dense(WIDTH)(nn.leaky_relu(nn.Dense(HIDDEN)(x)))

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.elu(nn.DenseGeneral(WIDTH, batch_dims=(0,))(x))
            experts = nn.vmap(
                Expert, variable_axes={"params": 1}, split_rngs={"params": True}
            )
            x = experts(name="experts")(x)
            return nn.Dense(OUTPUTS)(x.sum(axis=0))

    truth = {
        "DenseGeneral_0/kernel": kernel(7, WIDTH, 1, 2, "elu", batch_axis=0),
        "DenseGeneral_0/bias": bias("DenseGeneral_0/kernel", 1, batch_axis=0),
        # The axis of experts is the second of each leaf. The outer layer is made before
        # the inner one, and so is the first by name.
        "experts/Dense_1/kernel": kernel(
            WIDTH, HIDDEN, 0, 2, "leaky_relu", batch_axis=1
        ),
        "experts/Dense_1/bias": bias("experts/Dense_1/kernel", 0, batch_axis=1),
        "experts/Dense_0/kernel": kernel(HIDDEN, WIDTH, 0, 2, batch_axis=1),
        "experts/Dense_0/bias": bias("experts/Dense_0/kernel", 0, batch_axis=1),
        **dense("Dense_0", WIDTH, OUTPUTS, head=True),
    }
    return of_linen(Net(), [floats(sources, BATCH, 7)], truth)


@model
def scan_with_remat() -> Model:
    """nn.scan over checkpointed blocks of attention and GEGLU."""
    from flax import linen as nn

    layers, heads, size = 3, 2, 6

    class Block(nn.Module):
        @nn.compact
        def __call__(self, x, _):
            attend = nn.MultiHeadDotProductAttention(heads, name="attend")
            x = x + attend(nn.LayerNorm(name="ln_1")(x))
            h = nn.LayerNorm(name="ln_2")(x)
            up = nn.Dense(HIDDEN, name="up")(h)
            h = nn.gelu(nn.Dense(HIDDEN, name="gate")(h)) * up
            return x + nn.Dense(WIDTH, name="down")(h), None

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.Dense(WIDTH, name="embed")(x)
            blocks = nn.scan(
                nn.remat(Block),
                variable_axes={"params": 0},
                split_rngs={"params": True},
                length=layers,
            )
            x, _ = blocks(name="blocks")(x, None)
            return nn.Dense(OUTPUTS, name="logits")(x.mean(1))

    single = {
        **norm("ln_1"),
        **attention("attend", WIDTH, heads, size, (0, 2 * layers), scaled=True),
        **norm("ln_2"),
        **dense("gate", WIDTH, HIDDEN, function="gelu", part="gate"),
        **dense("up", WIDTH, HIDDEN, part="up"),
        **dense("down", HIDDEN, WIDTH, residual=(1, 2 * layers)),
    }
    truth = {
        **dense("embed", 7, WIDTH),
        **below("blocks/", stacked(single)),
        **dense("logits", WIDTH, OUTPUTS, head=True),
    }
    return of_linen(Net(), [floats(BATCH, LENGTH, 7)], truth)


@model
def lstm_then_both_ways() -> Model:
    """A layer of LSTM cells, a bidirectional layer of GRU cells, and a readout."""
    from flax import linen as nn

    class Net(nn.Module):
        @nn.compact
        def __call__(self, tokens):
            x = nn.Embed(17, 7)(tokens)
            x = nn.RNN(nn.LSTMCell(10))(x)
            x = nn.Bidirectional(nn.RNN(nn.GRUCell(6)), nn.RNN(nn.GRUCell(8)))(x)
            return nn.Dense(OUTPUTS)(x)

    truth = {
        "Embed_0/embedding": embedding(7),
        **lstm("LSTMCell_0", 7, 10),
        **gru("GRUCell_0", 10, 6),
        **gru("GRUCell_1", 10, 8),
        **dense("Dense_0", 14, OUTPUTS, head=True),
    }
    return of_linen(Net(), [integers(BATCH, LENGTH)], truth)


@model
def optimized_lstm() -> Model:
    """The kernels of all gates are concatenated before they are used."""
    from flax import linen as nn

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            carry, _ = nn.RNN(nn.OptimizedLSTMCell(10), return_carry=True)(x)
            return nn.Dense(OUTPUTS)(carry[1])

    truth = {
        **lstm("OptimizedLSTMCell_0", 7, 10),
        **dense("Dense_0", 10, OUTPUTS, head=True),
    }
    return of_linen(Net(), [floats(BATCH, LENGTH, 7)], truth)


@model
def simple_cells() -> Model:
    """Two layers of simple cells with a norm between, the second with relu."""
    from flax import linen as nn

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.RNN(nn.SimpleCell(10))(x)
            x = nn.LayerNorm()(x)
            x = nn.RNN(nn.SimpleCell(9, activation_fn=nn.relu))(x)
            return nn.Dense(1)(x[:, -1])

    def cell(path, inputs, state, function):
        return {
            f"{path}/i/kernel": kernel(inputs, state, function=function),
            f"{path}/i/bias": bias(f"{path}/i/kernel"),
            f"{path}/h/kernel": kernel(state, state, function=function, recurrent=True),
        }

    truth = {
        **cell("SimpleCell_0", 7, 10, "tanh"),
        "LayerNorm_0/scale": scale(),
        "LayerNorm_0/bias": shift(),
        **cell("SimpleCell_1", 10, 9, "relu"),
        "Dense_0/kernel": kernel(9, 1, head=True),
        "Dense_0/bias": bias("Dense_0/kernel", ()),
    }
    return of_linen(Net(), [floats(BATCH, LENGTH, 7)], truth)
