"""Flax NNX: the parameters are the model's state of kind nnx.Param, as pure dicts."""

import itertools

import jax
import jax.numpy as jnp

from zoo.flax_layers import GATES, attention, window
from zoo.truths import (
    ANY,
    Model,
    below,
    bias,
    bias_cut,
    cut,
    dense,
    embedding,
    every,
    floats,
    gate,
    integers,
    kernel,
    model,
    norm,
    position,
    scale,
    stacked,
)

BATCH, LENGTH, WIDTH, HIDDEN, OUTPUTS = 2, 5, 12, 15, 4


def of_nnx(construct, inputs, truth) -> Model:
    """The model that `construct` makes of streams; what is no parameter is zero."""
    from flax import nnx

    graph, abstract, others = nnx.split(
        nnx.eval_shape(lambda: construct(nnx.Rngs(0))), nnx.Param, ...
    )

    def zeros(leaf):
        if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return jax.random.key(0)
        return jnp.zeros(leaf.shape, leaf.dtype)

    def apply(params, *inputs):
        state = jax.tree.map(lambda leaf: leaf, abstract)
        nnx.replace_by_pure_dict(state, params)
        return nnx.merge(graph, state, jax.tree.map(zeros, others))(*inputs)

    return Model(apply, nnx.to_pure_dict(abstract), tuple(inputs), truth)


@model
def normed_list() -> Model:
    """Layers in a list, each but the last followed by a batch norm in training."""
    from flax import nnx

    sizes = (7, 11, 13, 9)

    class Net(nnx.Module):
        def __init__(self, rngs):
            pairs = list(itertools.pairwise(sizes))
            self.layers = nnx.List([nnx.Linear(*pair, rngs=rngs) for pair in pairs])
            self.norms = nnx.List([nnx.BatchNorm(m, rngs=rngs) for _, m in pairs])
            self.out = nnx.Linear(sizes[-1], OUTPUTS, use_bias=False, rngs=rngs)

        def __call__(self, x):
            for layer, normalize in zip(self.layers, self.norms, strict=True):
                x = nnx.relu(normalize(layer(x), use_running_average=False))
            return nnx.sigmoid(self.out(x))

    truth = {
        # The norm comes before the relu.
        **dense("layers/0", 7, 11),
        **dense("layers/1", 11, 13),
        **dense("layers/2", 13, 9),
        **every("norms/{}/", 3, {"scale": scale(), "bias": bias(None)}),
        "out/kernel": kernel(9, OUTPUTS, function="sigmoid", head=True),
    }
    return of_nnx(Net, [floats(BATCH, 7)], truth)


@model
def transformer() -> Model:
    """Attention of NNX scales the scores; ReZero's scalars on both branches."""
    from flax import nnx

    heads, size, layers = 3, 7, 2

    class Block(nnx.Module):
        def __init__(self, rngs):
            self.norm_1 = nnx.RMSNorm(WIDTH, rngs=rngs)
            self.attention = nnx.MultiHeadAttention(
                num_heads=heads,
                in_features=WIDTH,
                qkv_features=heads * size,
                decode=False,
                rngs=rngs,
            )
            self.norm_2 = nnx.LayerNorm(WIDTH, rngs=rngs)
            self.up = nnx.Linear(WIDTH, HIDDEN, rngs=rngs)
            self.down = nnx.Linear(HIDDEN, WIDTH, rngs=rngs)
            self.alpha_1 = nnx.Param(jnp.zeros(()))
            self.alpha_2 = nnx.Param(jnp.zeros((1,)))

        def __call__(self, x):
            x = x + self.alpha_1[...] * self.attention(self.norm_1(x))
            h = self.down(nnx.gelu(self.up(self.norm_2(x))))
            return x + self.alpha_2[...] * h

    class Net(nnx.Module):
        def __init__(self, rngs):
            self.embed = nnx.Embed(17, WIDTH, rngs=rngs)
            self.positions = nnx.Param(jnp.zeros((9, WIDTH)))
            self.blocks = nnx.List([Block(rngs) for _ in range(layers)])

        def __call__(self, tokens):
            x = self.embed(tokens) + self.positions[: tokens.shape[1]]
            for block in self.blocks:
                x = block(x)
            return self.embed.attend(x)

    block = {
        "norm_1/scale": scale(),
        **attention("attention", WIDTH, heads, size, (0, 4), scaled=False),
        **norm("norm_2"),
        **dense("up", WIDTH, HIDDEN, function="gelu"),
        **dense("down", HIDDEN, WIDTH, residual=(1, 4)),
        "alpha_1": gate(),
        "alpha_2": gate(),
    }
    truth = {
        "embed/embedding": [embedding(WIDTH), kernel(WIDTH, 17, 1, 0, head=True)],
        "positions": position(),
        **every("blocks/{}/", layers, block),
    }
    return of_nnx(Net, [integers(BATCH, LENGTH)], truth)


@model
def low_rank_adapters() -> Model:
    """LoRA as NNX computes it, x @ A @ B, alone and beside a layer."""
    from flax import nnx

    class Net(nnx.Module):
        def __init__(self, rngs):
            self.beside = nnx.LoRALinear(7, HIDDEN, lora_rank=3, rngs=rngs)
            self.alone = nnx.LoRA(HIDDEN, 2, 11, rngs=rngs)
            base = nnx.Linear(11, OUTPUTS, rngs=rngs)
            self.around = nnx.LoRA(11, 3, OUTPUTS, base_module=base, rngs=rngs)

        def __call__(self, x):
            return self.around(nnx.silu(self.alone(nnx.tanh(self.beside(x)))))

    truth = {
        # A sum of two linear maps is no residual stream.
        "beside/kernel": kernel(7, HIDDEN, function="tanh"),
        "beside/bias": bias("beside/kernel"),
        "beside/lora/lora_a": kernel(7, 3),
        "beside/lora/lora_b": kernel(3, HIDDEN, function="tanh"),
        "alone/lora_a": kernel(HIDDEN, 2),
        "alone/lora_b": kernel(2, 11, function="silu"),
        "around/lora_a": kernel(11, 3),
        "around/lora_b": kernel(3, OUTPUTS, head=True),
        **dense("around/base_module", 11, OUTPUTS, head=True),
    }
    return of_nnx(Net, [floats(BATCH, 7)], truth)


@model
def autoencoder() -> Model:
    """Convolutions down, grouped, and transposed ones up."""
    from flax import nnx

    class Net(nnx.Module):
        def __init__(self, rngs):
            self.down = nnx.Conv(3, 6, (3, 4), strides=2, rngs=rngs)
            self.norm = nnx.GroupNorm(6, num_groups=2, rngs=rngs)
            self.grouped = nnx.Conv(6, 8, (3, 2), feature_group_count=2, rngs=rngs)
            self.code = nnx.LinearGeneral((3, 4, 8), (5,), axis=(1, 2, 3), rngs=rngs)
            self.decode = nnx.LinearGeneral((5,), (3, 4, 8), rngs=rngs)
            self.up = nnx.ConvTranspose(8, 3, (4, 3), strides=(2, 2), rngs=rngs)

        def __call__(self, x):
            x = nnx.relu(self.norm(self.down(x)))
            x = nnx.elu(self.grouped(x))
            x = nnx.selu(self.decode(jnp.tanh(self.code(x))))
            return nnx.sigmoid(self.up(x))

    truth = {
        **window("down", 3 * 12, 6 * 12),
        **norm("norm"),
        **window("grouped", 6 * 6 / 2, 8 * 6 / 2, function="elu", groups=2),
        "code/kernel": kernel(96, 5, (0, 1, 2), 3, "tanh"),
        "code/bias": bias("code/kernel"),
        "decode/kernel": kernel(5, 96, 0, (1, 2, 3), "selu"),
        "decode/bias": bias("decode/kernel", (0, 1, 2)),
        **window(
            "up",
            8 * 12 / 4,
            3 * 12,
            function="sigmoid",
            transposed=True,
            head=True,
        ),
    }
    return of_nnx(Net, [floats(BATCH, 6, 8, 3)], truth)


@model
def scanned_layers() -> Model:
    """Blocks made by nnx.vmap and run by nnx.scan: GLU branches."""
    from flax import nnx

    layers = 3

    class Block(nnx.Module):
        def __init__(self, rngs):
            self.norm = nnx.LayerNorm(WIDTH, rngs=rngs)
            self.gate = nnx.Linear(WIDTH, HIDDEN, rngs=rngs)
            self.up = nnx.Linear(WIDTH, HIDDEN, rngs=rngs)
            self.down = nnx.Linear(HIDDEN, WIDTH, use_bias=False, rngs=rngs)

        def __call__(self, x):
            h = self.norm(x)
            return x + self.down(nnx.sigmoid(self.gate(h)) * self.up(h))

    class Net(nnx.Module):
        def __init__(self, rngs):
            @nnx.split_rngs(splits=layers)
            @nnx.vmap(in_axes=0, out_axes=0)
            def make(rngs):
                return Block(rngs)

            self.embed = nnx.Linear(7, WIDTH, rngs=rngs)
            self.blocks = make(rngs)
            self.head = nnx.Linear(WIDTH, OUTPUTS, rngs=rngs)

        def __call__(self, x):
            @nnx.scan(in_axes=(0, nnx.Carry), out_axes=nnx.Carry)
            def run(block, x):
                return block(x)

            return self.head(run(self.blocks, self.embed(x)))

    block = {
        **norm("norm"),
        **dense("gate", WIDTH, HIDDEN, function="sigmoid", part="gate"),
        **dense("up", WIDTH, HIDDEN, part="up"),
        "down/kernel": kernel(HIDDEN, WIDTH, residual=(0, layers)),
    }
    truth = {
        **dense("embed", 7, WIDTH),
        **below("blocks/", stacked(block)),
        **dense("head", WIDTH, OUTPUTS, head=True),
    }
    return of_nnx(Net, [floats(BATCH, 7)], truth)


@model
def recurrent() -> Model:
    """Fused LSTM, separate LSTM, and fused GRU cells run one after another."""
    from flax import nnx

    first, second, third = 10, 9, 8

    class Net(nnx.Module):
        def __init__(self, rngs):
            self.fused = nnx.RNN(nnx.OptimizedLSTMCell(7, first, rngs=rngs))
            self.apart = nnx.RNN(nnx.LSTMCell(first, second, rngs=rngs))
            self.gru = nnx.RNN(nnx.GRUCell(second, third, rngs=rngs))
            self.out = nnx.Linear(third, OUTPUTS, rngs=rngs)

        def __call__(self, x):
            rngs = nnx.Rngs(0)
            x = self.apart(self.fused(x, rngs=rngs), rngs=rngs)
            return self.out(self.gru(x, rngs=rngs)[:, -1])

    lstm = [own["part"] for own in GATES.values()]
    sections = {"function": ANY, "sections": cut(1, first, lstm)}
    fused_truth = {
        "dense_i/kernel": kernel(7, 4 * first, **sections),
        "dense_h/kernel": kernel(first, 4 * first, recurrent=True, **sections),
        "dense_h/bias": bias("dense_h/kernel", sections=bias_cut(first, lstm)),
    }
    apart_truth = {}
    for letter, own in GATES.items():
        name = "if_" if letter == "f" else f"i{letter}"
        apart_truth[f"{name}/kernel"] = kernel(first, second, **own)
        apart_truth[f"h{letter}/kernel"] = kernel(second, second, recurrent=True, **own)
        apart_truth[f"h{letter}/bias"] = bias(f"h{letter}/kernel", part=own["part"])
    parts = ("reset gate", "update gate", "candidate")
    gru_truth = {
        "dense_i/kernel": kernel(
            second, 3 * third, function=ANY, sections=cut(1, third, parts)
        ),
        "dense_i/bias": bias("dense_i/kernel", sections=bias_cut(third, parts)),
        # The candidate's part of the state meets the reset gate before the tanh.
        "dense_h/kernel": kernel(
            third,
            3 * third,
            function=ANY,
            recurrent=True,
            sections=cut(1, third, parts, candidate="identity"),
        ),
    }
    truth = {
        **below("fused/cell/", fused_truth),
        **below("apart/cell/", apart_truth),
        **below("gru/cell/", gru_truth),
        **dense("out", third, OUTPUTS, head=True),
    }
    return of_nnx(Net, [floats(BATCH, LENGTH, 7)], truth)


@model
def both_ways() -> Model:
    """Simple cells in both directions over embedded tokens; the tokens' labels."""
    from flax import nnx

    class Net(nnx.Module):
        def __init__(self, rngs):
            self.embed = nnx.Embed(17, 7, rngs=rngs)
            cells = (nnx.SimpleCell(7, size, rngs=rngs) for size in (10, 9))
            self.both = nnx.Bidirectional(*map(nnx.RNN, cells))
            self.out = nnx.Linear(19, OUTPUTS, rngs=rngs)

        def __call__(self, tokens):
            return self.out(self.both(self.embed(tokens), rngs=nnx.Rngs(0)))

    def cell(path, size):
        return {
            f"{path}/dense_i/kernel": kernel(7, size, function="tanh"),
            f"{path}/dense_i/bias": bias(f"{path}/dense_i/kernel"),
            f"{path}/dense_h/kernel": kernel(
                size, size, function="tanh", recurrent=True
            ),
        }

    truth = {
        "embed/embedding": embedding(7),
        **cell("both/forward_rnn/cell", 10),
        **cell("both/backward_rnn/cell", 9),
        **dense("out", 19, OUTPUTS, head=True),
    }
    return of_nnx(Net, [integers(BATCH, LENGTH)], truth)
