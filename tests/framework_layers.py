"""Every layer and cell that Flax, Haiku and Equinox offer, as they draw it themselves.

Each table has a function of a key that returns parameters, by the name of the class;
after a comma may stand what is special about a case. `WITHOUT` has the classes that are
left out, with the reason.
"""

import functools
import inspect
import re
import warnings

import equinox as eqx
import haiku as hk
import jax
import numpy as np
from flax import linen as nn
from flax import nnx

import jaxinit
import jaxinit.nnx

BATCH, INPUTS, OUTPUTS, LENGTH, ROWS = 2, 40, 48, 4, 60
UNITS = 32
x = np.ones((BATCH, INPUTS), np.float32)
sequence = np.ones((BATCH, LENGTH, INPUTS), np.float32)
image = np.ones((BATCH, LENGTH, LENGTH, INPUTS), np.float32)
tokens = np.zeros((BATCH,), np.int32)


class Holder(nn.Module):
    """Gives a layer the name that Flax gives it in a model."""

    call: object

    @nn.compact
    def __call__(self):
        return self.call()


def of_linen(call):
    init = jaxinit.jit(Holder(call).init)
    return lambda key: init(key)["params"]


def linen_cell(make, x=x):
    def call():
        cell = make()
        return cell(cell.initialize_carry(jax.random.key(0), x.shape), x)

    return of_linen(call)


LINEN = {
    name: of_linen(call)
    for name, call in {
        "Dense": lambda: nn.Dense(OUTPUTS)(x),
        "DenseGeneral": lambda: nn.DenseGeneral((6, 8))(x),
        "DenseGeneral, two inputs": lambda: nn.DenseGeneral(OUTPUTS, axis=(-2, -1))(
            sequence
        ),
        "DenseGeneral, square": lambda: nn.DenseGeneral((8, INPUTS))(x),
        "DenseGeneral, batch": lambda: nn.DenseGeneral((6, 8), batch_dims=(0,))(
            sequence
        ),
        "Conv": lambda: nn.Conv(OUTPUTS, (3, 3))(image),
        "Conv, groups": lambda: nn.Conv(OUTPUTS, (3, 3), feature_group_count=8)(image),
        "ConvLocal": lambda: nn.ConvLocal(OUTPUTS, (3,))(sequence),
        "ConvTranspose": lambda: nn.ConvTranspose(OUTPUTS, (3, 3))(image),
        "ConvTranspose, transposed": lambda: nn.ConvTranspose(
            OUTPUTS, (3, 3), transpose_kernel=True
        )(image),
        "Einsum": lambda: nn.Einsum((LENGTH, INPUTS, 8), "nta,tab->ntb")(sequence),
        "Einsum, two outputs": lambda: nn.Einsum((INPUTS, 6, 8), "na,ahb->nhb")(x),
        "Embed": lambda: nn.Embed(ROWS, INPUTS)(tokens),
        "MultiHeadAttention": lambda: nn.MultiHeadAttention(4)(sequence),
        "MultiHeadDotProductAttention": lambda: nn.MultiHeadDotProductAttention(4)(
            sequence
        ),
        "MultiHeadDotProductAttention, no bias": (
            lambda: nn.MultiHeadDotProductAttention(
                4, use_bias=False, normalize_qk=True
            )(sequence)
        ),
        "SelfAttention": lambda: nn.SelfAttention(4)(sequence),
        "LayerNorm": lambda: nn.LayerNorm()(x),
        "RMSNorm": lambda: nn.RMSNorm()(x),
        "GroupNorm": lambda: nn.GroupNorm(4)(x),
        "InstanceNorm": lambda: nn.InstanceNorm()(sequence),
        "BatchNorm": lambda: nn.BatchNorm(use_running_average=True)(x),
        "WeightNorm": lambda: nn.WeightNorm(nn.Dense(OUTPUTS))(x),
        "PReLU": lambda: nn.PReLU()(x),
        "Sequential": lambda: nn.Sequential([nn.Dense(OUTPUTS), nn.relu])(x),
        "RNN": lambda: nn.RNN(nn.GRUCell(UNITS))(sequence),
        "Bidirectional": lambda: nn.Bidirectional(
            nn.RNN(nn.LSTMCell(UNITS)), nn.RNN(nn.SimpleCell(UNITS))
        )(sequence),
    }.items()
} | {
    "SimpleCell": linen_cell(lambda: nn.SimpleCell(UNITS)),
    "GRUCell": linen_cell(lambda: nn.GRUCell(UNITS)),
    "MGUCell": linen_cell(lambda: nn.MGUCell(UNITS)),
    "LSTMCell": linen_cell(lambda: nn.LSTMCell(UNITS)),
    "OptimizedLSTMCell": linen_cell(lambda: nn.OptimizedLSTMCell(UNITS)),
    "ConvLSTMCell": linen_cell(lambda: nn.ConvLSTMCell(8, (3, 3)), image),
}


def of_nnx(name, make):
    """The layer as an attribute that is called as its class."""

    def draw(key):
        def model(rngs):
            return nnx.Dict({name.partition(",")[0].lower(): make(rngs)})

        return nnx.state(jaxinit.nnx.create(model, key), nnx.Param)

    return draw


def nnx_rnn(rngs):
    return nnx.RNN(nnx.LSTMCell(INPUTS, UNITS, rngs=rngs), rngs=rngs)


NNX = {
    name: of_nnx(name, make)
    for name, make in {
        "Linear": lambda rngs: nnx.Linear(INPUTS, OUTPUTS, rngs=rngs),
        "LinearGeneral": lambda rngs: nnx.LinearGeneral(INPUTS, (6, 8), rngs=rngs),
        "LinearGeneral, two inputs": lambda rngs: nnx.LinearGeneral(
            (5, 8), OUTPUTS, axis=(-2, -1), rngs=rngs
        ),
        "LinearGeneral, batch": lambda rngs: nnx.LinearGeneral(
            INPUTS, (6, 8), batch_axis={0: 4}, rngs=rngs
        ),
        "Conv": lambda rngs: nnx.Conv(INPUTS, OUTPUTS, (3, 3), rngs=rngs),
        "ConvTranspose": lambda rngs: nnx.ConvTranspose(
            INPUTS, OUTPUTS, (3, 3), rngs=rngs
        ),
        "Einsum": lambda rngs: nnx.Einsum(
            "nta,tab->ntb", (LENGTH, INPUTS, 8), (LENGTH, 8), rngs=rngs
        ),
        "Embed": lambda rngs: nnx.Embed(ROWS, INPUTS, rngs=rngs),
        "MultiHeadAttention": lambda rngs: nnx.MultiHeadAttention(
            4, INPUTS, decode=False, rngs=rngs
        ),
        "MultiHeadAttention, no bias": lambda rngs: nnx.MultiHeadAttention(
            4, INPUTS, decode=False, use_bias=False, normalize_qk=True, rngs=rngs
        ),
        "LayerNorm": lambda rngs: nnx.LayerNorm(INPUTS, rngs=rngs),
        "RMSNorm": lambda rngs: nnx.RMSNorm(INPUTS, rngs=rngs),
        "GroupNorm": lambda rngs: nnx.GroupNorm(INPUTS, 4, rngs=rngs),
        "InstanceNorm": lambda rngs: nnx.InstanceNorm(INPUTS, rngs=rngs),
        "BatchNorm": lambda rngs: nnx.BatchNorm(INPUTS, rngs=rngs),
        "WeightNorm": lambda rngs: nnx.WeightNorm(
            nnx.Linear(INPUTS, OUTPUTS, rngs=rngs), rngs=rngs
        ),
        "SpectralNorm": lambda rngs: nnx.SpectralNorm(
            nnx.Linear(INPUTS, OUTPUTS, rngs=rngs), rngs=rngs
        ),
        "PReLU": lambda rngs: nnx.PReLU(),
        "LoRA": lambda rngs: nnx.LoRA(INPUTS, 8, OUTPUTS, rngs=rngs),
        "LoRALinear": lambda rngs: nnx.LoRALinear(
            INPUTS, OUTPUTS, lora_rank=8, rngs=rngs
        ),
        "SimpleCell": lambda rngs: nnx.SimpleCell(INPUTS, UNITS, rngs=rngs),
        "GRUCell": lambda rngs: nnx.GRUCell(INPUTS, UNITS, rngs=rngs),
        "LSTMCell": lambda rngs: nnx.LSTMCell(INPUTS, UNITS, rngs=rngs),
        "OptimizedLSTMCell": lambda rngs: nnx.OptimizedLSTMCell(
            INPUTS, UNITS, rngs=rngs
        ),
        "RNN": nnx_rnn,
        "Bidirectional": lambda rngs: nnx.Bidirectional(
            nnx_rnn(rngs), nnx_rnn(rngs), rngs=rngs
        ),
        "Sequential": lambda rngs: nnx.Sequential(
            nnx.Linear(INPUTS, OUTPUTS, rngs=rngs), nnx.relu
        ),
    }.items()
}


def of_haiku(call):
    init = jaxinit.jit(hk.transform_with_state(call).init)
    return lambda key: init(key)[0]


def haiku_core(make, x=x):
    def call():
        core = make()
        return core(x, core.initial_state(BATCH))

    return call


HAIKU = {
    name: of_haiku(call)
    for name, call in {
        "Linear": lambda: hk.Linear(OUTPUTS)(x),
        "Bias": lambda: hk.Bias()(x),
        "Conv1D": lambda: hk.Conv1D(OUTPUTS, 3)(sequence),
        "Conv2D": lambda: hk.Conv2D(OUTPUTS, 3)(image),
        "Conv3D": lambda: hk.Conv3D(8, 2)(image[..., None, :]),
        "ConvND": lambda: hk.ConvND(1, OUTPUTS, 3)(sequence),
        "Conv1DTranspose": lambda: hk.Conv1DTranspose(OUTPUTS, 3)(sequence),
        "Conv2DTranspose": lambda: hk.Conv2DTranspose(OUTPUTS, 3)(image),
        "Conv3DTranspose": lambda: hk.Conv3DTranspose(8, 2)(image[..., None, :]),
        "ConvNDTranspose": lambda: hk.ConvNDTranspose(1, OUTPUTS, 3)(sequence),
        "DepthwiseConv1D": lambda: hk.DepthwiseConv1D(3, 3)(sequence),
        "DepthwiseConv2D": lambda: hk.DepthwiseConv2D(3, 3)(image),
        "DepthwiseConv3D": lambda: hk.DepthwiseConv3D(3, 2)(image[..., None, :]),
        "SeparableDepthwiseConv2D": lambda: hk.SeparableDepthwiseConv2D(3, 3, (3, 3))(
            image
        ),
        "Embed": lambda: hk.Embed(ROWS, INPUTS)(tokens),
        "LayerNorm": lambda: hk.LayerNorm(-1, True, True)(x),
        "RMSNorm": lambda: hk.RMSNorm(-1)(x),
        "GroupNorm": lambda: hk.GroupNorm(4)(image),
        "InstanceNorm": lambda: hk.InstanceNorm(True, True)(image),
        "BatchNorm": lambda: hk.BatchNorm(True, True, 0.9)(x, is_training=True),
        "Sequential": lambda: hk.Sequential([hk.Linear(OUTPUTS), jax.nn.relu])(x),
        "VanillaRNN": haiku_core(lambda: hk.VanillaRNN(UNITS)),
        "GRU": haiku_core(lambda: hk.GRU(UNITS)),
        "LSTM": haiku_core(lambda: hk.LSTM(UNITS)),
        "Conv1DLSTM": haiku_core(lambda: hk.Conv1DLSTM((LENGTH,), 8, 3), sequence),
        "Conv2DLSTM": haiku_core(lambda: hk.Conv2DLSTM((LENGTH, LENGTH), 8, 3), image),
        "Conv3DLSTM": haiku_core(
            lambda: hk.Conv3DLSTM((LENGTH, LENGTH, 1), 8, 2), image[..., None, :]
        ),
        "DeepRNN": haiku_core(lambda: hk.DeepRNN([hk.LSTM(UNITS), hk.GRU(UNITS)])),
    }.items()
}


def of_equinox(name, make):
    def model(key):
        made = eqx.nn.make_with_state(make)(key)[0]
        return {name.partition(",")[0].lower(): eqx.filter(made, eqx.is_inexact_array)}

    return jaxinit.jit(model)


def equinox_linear(key):
    return eqx.nn.Linear(INPUTS, OUTPUTS, key=key)


def _equinox_conv(name, ndim):
    layer = getattr(eqx.nn, name)
    return lambda key: layer(INPUTS, 8, 2 if ndim == 3 else 3, key=key)


EQUINOX = {
    name: of_equinox(name, make)
    for name, make in {
        "Linear": equinox_linear,
        "MLP": lambda key: eqx.nn.MLP(INPUTS, OUTPUTS, UNITS, 1, key=key),
        "Conv": lambda key: eqx.nn.Conv(1, INPUTS, OUTPUTS, 3, key=key),
        "ConvTranspose": lambda key: eqx.nn.ConvTranspose(
            1, INPUTS, OUTPUTS, 3, key=key
        ),
        **{
            f"{kind}{ndim}d": _equinox_conv(f"{kind}{ndim}d", ndim)
            for kind in ("Conv", "ConvTranspose")
            for ndim in (1, 2, 3)
        },
        "Embedding": lambda key: eqx.nn.Embedding(ROWS, INPUTS, key=key),
        "MultiheadAttention": lambda key: eqx.nn.MultiheadAttention(4, INPUTS, key=key),
        "MultiheadAttention, biases": lambda key: eqx.nn.MultiheadAttention(
            4, INPUTS, use_query_bias=True, use_output_bias=True, key=key
        ),
        "LayerNorm": lambda key: eqx.nn.LayerNorm(INPUTS),
        "LayerNorm, two axes": lambda key: eqx.nn.LayerNorm((5, 8)),
        "RMSNorm": lambda key: eqx.nn.RMSNorm(INPUTS),
        "GroupNorm": lambda key: eqx.nn.GroupNorm(4, INPUTS),
        "BatchNorm": lambda key: eqx.nn.BatchNorm(INPUTS, "batch", mode="batch"),
        "WeightNorm": lambda key: eqx.nn.WeightNorm(equinox_linear(key)),
        "WeightNorm, one norm": lambda key: eqx.nn.WeightNorm(
            equinox_linear(key), axis=None
        ),
        "SpectralNorm": lambda key: eqx.nn.SpectralNorm(
            equinox_linear(key), "weight", key=key
        ),
        "PReLU": lambda key: eqx.nn.PReLU(),
        "GRUCell": lambda key: eqx.nn.GRUCell(INPUTS, UNITS, key=key),
        "LSTMCell": lambda key: eqx.nn.LSTMCell(INPUTS, UNITS, key=key),
        "Sequential": lambda key: eqx.nn.Sequential([equinox_linear(key)]),
    }.items()
}

TABLES = {"linen": LINEN, "nnx": NNX, "haiku": HAIKU, "equinox": EQUINOX}
BASES = {
    "linen": (nn, nn.Module),
    "nnx": (nnx, nnx.Module),
    "haiku": (hk, hk.Module),
    "equinox": (eqx.nn, eqx.Module),
}
_BASE, _POOL, _ACTS = "a base class", "pools", "has no parameters"
_FP8 = "keeps scales of its own collection, no parameters"
_HOLDS = "only holds what it is given"
WITHOUT = {
    "linen": {
        "Module": _BASE,
        "RNNCellBase": _BASE,
        "Dropout": _ACTS,
        "Fp8DirectDotGeneralOp": _FP8,
        "Fp8DotGeneral": _FP8,
        "Fp8DotGeneralOp": _FP8,
        "Fp8Einsum": _FP8,
        "NANOOFp8DotGeneralOp": _FP8,
        "SpectralNorm": "divides the kernel of another layer by a guess at its norm",
    },
    "nnx": {
        "Module": _BASE,
        "RNNCellBase": _BASE,
        "Dropout": _ACTS,
        "RoPE": _ACTS,
        "Dict": _HOLDS,
        "List": _HOLDS,
    },
    "haiku": {
        "Module": _BASE,
        "RNNCore": _BASE,
        "AvgPool": _POOL,
        "MaxPool": _POOL,
        "Flatten": _ACTS,
        "Reshape": _ACTS,
        "IdentityCore": _ACTS,
        "ResetCore": _HOLDS,
        "EMAParamsTree": "keeps state, no parameters",
        "ExponentialMovingAverage": "keeps state, no parameters",
        "SNParamsTree": "keeps state, no parameters",
        "SpectralNorm": "keeps state, no parameters",
        "MultiHeadAttention": "asks for its initializer, and has no default",
    },
    "equinox": {
        **dict.fromkeys(
            [
                f"{kind}{end}"
                for kind in ("AdaptiveAvgPool", "AdaptiveMaxPool", "AvgPool", "MaxPool")
                for end in ("1d", "2d", "3d")
            ],
            _POOL,
        ),
        "AdaptivePool": _POOL,
        "Pool": _POOL,
        "Dropout": _ACTS,
        "Identity": _ACTS,
        "Lambda": _HOLDS,
        "Shared": _HOLDS,
        "StateIndex": "a place for state",
        "StatefulLayer": _BASE,
        "RotaryPositionalEmbedding": _ACTS,
    },
}
# Classes that only some of the supported versions have.
NEWER = {"nnx": {"RoPE"}}


def public(framework: str) -> set[str]:
    """Names of all module classes that a framework offers."""
    namespace, base = BASES[framework]
    return {
        name
        for name, value in vars(namespace).items()
        if inspect.isclass(value) and issubclass(value, base) and name[0] != "_"
    }


def class_of(framework: str, name: str) -> type:
    """A module class by its name."""
    return getattr(BASES[framework][0], name)


_MAKES = {
    "linen": r"self\.param\(",
    "nnx": r"\bParam\(",
    "haiku": r"get_parameter\(",
    "equinox": r"(?m)^    \w+: (?!.*(Callable|float)).*\bArray\b",  # a field
}


def makes_parameters(framework: str, name: str) -> bool:
    """Whether the source of a class, but for its docstrings, makes a parameter."""
    source = inspect.getsource(class_of(framework, name))
    code = re.sub(r'(?s)""".*?"""', "", source)
    return re.search(_MAKES[framework], code) is not None


SEEDS = 4


@functools.cache
def shapes(framework: str, case: str):
    """Shapes and dtypes of the parameters of a layer; compiles nothing."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return jax.eval_shape(TABLES[framework][case], jax.random.key(0))


@functools.cache
def drawn(framework: str, case: str) -> list:
    """Parameters of a layer, from some seeds."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return [TABLES[framework][case](jax.random.key(i)) for i in range(SEEDS)]
