"""Small models for schemes, in Flax Linen and NNX, the names of their parts alike."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax import nnx

from jaxinit._tree.paths import joined, leaf_paths

WIDTH, HEADS, LAYERS, VOCABULARY, LENGTH, CLASSES = 12, 2, 2, 50, 7, 5
IMAGES = (1, 8, 8, 3)


class Attending(nn.Module):
    """A transformer with norms or without; with gates, and then without positions."""

    norms: bool = True
    gates: bool = False

    @nn.compact
    def __call__(self, tokens):
        x = nn.Embed(VOCABULARY, WIDTH, name="wte")(tokens)
        table = nn.initializers.zeros
        if not self.gates:
            x = x + self.param("pos_embedding", table, (LENGTH, WIDTH))
        for i in range(LAYERS):
            x = Block(self.norms, self.gates, name=f"decoder_blocks_{i}")(x)
        return nn.Dense(CLASSES, name="head")(x)


class Block(nn.Module):
    norms: bool
    gates: bool

    @nn.compact
    def __call__(self, x):
        y = nn.LayerNorm(name="norm1")(x) if self.norms else x
        y = nn.MultiHeadDotProductAttention(HEADS, name="attn")(y)
        if self.gates:
            y = y * self.param("gate", nn.initializers.zeros, (WIDTH,))
        return x + y + Feed(name="mlp")(x)


class Feed(nn.Module):
    @nn.compact
    def __call__(self, x):
        hidden = nn.relu(nn.Dense(4 * WIDTH, name="fc1")(x))
        return nn.Dense(WIDTH, name="fc2")(hidden)


class AttendingNNX(nnx.Module):
    def __init__(self, rngs, norms=True, gates=False):
        self.wte = nnx.Embed(VOCABULARY, WIDTH, rngs=rngs)
        if not gates:
            self.pos_embedding = nnx.Param(jnp.zeros((LENGTH, WIDTH)))
        blocks = [BlockNNX(rngs, norms, gates) for _ in range(LAYERS)]
        self.decoder_blocks = nnx.List(blocks)
        self.head = nnx.Linear(WIDTH, CLASSES, rngs=rngs)


class BlockNNX(nnx.Module):
    def __init__(self, rngs, norms, gates):
        if norms:
            self.norm1 = nnx.LayerNorm(WIDTH, rngs=rngs)
        if gates:
            self.gate = nnx.Param(jnp.zeros((WIDTH,)))
        self.attn = nnx.MultiHeadAttention(HEADS, WIDTH, decode=False, rngs=rngs)
        self.mlp = nnx.Dict(
            fc1=nnx.Linear(WIDTH, 4 * WIDTH, rngs=rngs),
            fc2=nnx.Linear(4 * WIDTH, WIDTH, rngs=rngs),
        )


class Residual(nn.Module):
    """A convolutional network of two residual blocks, with norms or without."""

    norms: bool = True

    @nn.compact
    def __call__(self, x):
        x = nn.Conv(WIDTH, (3, 3), name="conv1")(x)
        for i in range(LAYERS):
            x = x + Convolutions(self.norms, name=f"blocks_{i}")(x)
        return nn.Dense(CLASSES, name="fc")(x.mean((1, 2)))


class Convolutions(nn.Module):
    norms: bool

    @nn.compact
    def __call__(self, x):
        for i in (1, 2):
            x = nn.relu(nn.Conv(WIDTH, (3, 3), name=f"conv{i}")(x))
            if self.norms:
                x = nn.LayerNorm(name=f"bn{i}")(x)
        return x


class ResidualNNX(nnx.Module):
    def __init__(self, rngs, norms=True):
        self.conv1 = nnx.Conv(3, WIDTH, (3, 3), rngs=rngs)
        self.blocks = nnx.List([ConvolutionsNNX(rngs, norms) for _ in range(LAYERS)])
        self.fc = nnx.Linear(WIDTH, CLASSES, rngs=rngs)


class ConvolutionsNNX(nnx.Module):
    def __init__(self, rngs, norms):
        for i in (1, 2):
            setattr(self, f"conv{i}", nnx.Conv(WIDTH, WIDTH, (3, 3), rngs=rngs))
            if norms:
                setattr(self, f"bn{i}", nnx.LayerNorm(WIDTH, rngs=rngs))


class Recurrent(nn.Module):
    @nn.compact
    def __call__(self, tokens):
        x = nn.Embed(VOCABULARY, WIDTH, name="embed")(tokens)
        x = nn.RNN(nn.OptimizedLSTMCell(WIDTH, name="cell"))(x)
        return nn.Dense(CLASSES, name="head")(x)


class RecurrentNNX(nnx.Module):
    def __init__(self, rngs):
        self.embed = nnx.Embed(VOCABULARY, WIDTH, rngs=rngs)
        self.cell = nnx.OptimizedLSTMCell(WIDTH, WIDTH, rngs=rngs)
        self.head = nnx.Linear(WIDTH, CLASSES, rngs=rngs)


class Perceptron(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(CLASSES, name="head")(nn.relu(nn.Dense(WIDTH, name="in1")(x)))


class PerceptronNNX(nnx.Module):
    def __init__(self, rngs):
        self.in1 = nnx.Linear(9, WIDTH, rngs=rngs)
        self.head = nnx.Linear(WIDTH, CLASSES, rngs=rngs)


TOKENS = jax.ShapeDtypeStruct((1, LENGTH), jnp.int32)
PAIRS = {
    "transformer": (Attending(), AttendingNNX, TOKENS),
    "transformer without norms": (
        Attending(norms=False),
        functools.partial(AttendingNNX, norms=False),
        TOKENS,
    ),
    "gated transformer": (
        Attending(gates=True),
        functools.partial(AttendingNNX, gates=True),
        TOKENS,
    ),
    "resnet": (Residual(), ResidualNNX, np.zeros(IMAGES, np.float32)),
    "resnet without norms": (
        Residual(norms=False),
        functools.partial(ResidualNNX, norms=False),
        np.zeros(IMAGES, np.float32),
    ),
    "recurrent": (Recurrent(), RecurrentNNX, TOKENS),
    "mlp": (Perceptron(), PerceptronNNX, np.zeros((1, 9), np.float32)),
}


def leaf(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.float32)


@functools.cache
def shapes(name: str, library: str):
    """Shapes of the parameters of a model by name."""
    linen, make, x = PAIRS[name]
    if library == "linen":
        return jax.eval_shape(linen.init, jax.random.key(0), x)["params"]
    return nnx.state(nnx.eval_shape(lambda: make(nnx.Rngs(0))), nnx.Param)


def common(path: str) -> str:
    """A path of either library as NNX has it."""
    return path.replace("blocks_", "blocks/")


def paths(tree) -> list[str]:
    return [common(joined(path)) for path, _ in leaf_paths(tree)]
