"""Models of every framework and kind, to be started cold: see `benchmarks.cold`.

Sizes are modest, so that compilation counts and memory does not. Each function returns
what makes the parameters from a key: a model's `init`, or a constructor. Repeated
blocks, scans, branches, models without two equal layers, and models whose parameters
are computed from others are all there.
"""

import itertools
from collections.abc import Callable
from typing import Any

import equinox as eqx
import flax.linen as nn
import haiku as hk
import jax
import jax.numpy as jnp
from flax import nnx

import jaxinit

Init = Callable[[jax.Array], Any]
MODELS: dict[str, Callable[[], Init]] = {}
NNX: dict[str, Callable[[nnx.Rngs], nnx.Module]] = {}


def _model(make: Callable[[], Init]) -> Callable[[], Init]:
    MODELS[make.__name__] = make
    return make


def _nnx_model(make: Callable[[nnx.Rngs], nnx.Module]) -> Callable:
    NNX[make.__name__] = make
    return make


def _linen(module: nn.Module, *inputs: Any) -> Init:
    return lambda key: module.init(key, *inputs)


def _rows(*shape: int) -> jax.Array:
    return jnp.zeros(shape)


def _tokens(*shape: int) -> jax.Array:
    return jnp.zeros(shape, jnp.int32)


def _mlp(widths: list[int], dense: Callable[[int], Any] = nn.Dense) -> nn.Module:
    layers = [f for width in widths for f in (dense(width), nn.relu)]
    return nn.Sequential(layers[:-1])


# --- Flax Linen ---------------------------------------------------------------------


@_model
def linen_dense() -> Init:
    return _linen(nn.Dense(64), _rows(1, 32))


@_model
def linen_mlp() -> Init:
    return _linen(_mlp([256, 256, 256, 10]), _rows(1, 256))


@_model
def linen_funnel() -> Init:
    """No two layers are equal."""
    return _linen(_mlp([500, 300, 200, 100, 50, 20, 10]), _rows(1, 784))


@_model
def linen_orthogonal() -> Init:
    def dense(width):
        return nn.Dense(width, kernel_init=nn.initializers.orthogonal())

    return _linen(_mlp([128, 128, 64, 10], dense), _rows(1, 128))


@_model
def linen_weight_norm() -> Init:
    def dense(width):
        return nn.WeightNorm(nn.Dense(width))

    return _linen(_mlp([128, 128, 128, 10], dense), _rows(1, 64))


class _Spectral(nn.Module):
    @nn.compact
    def __call__(self, x):
        for width in (128, 128, 128, 10):
            x = nn.relu(nn.SpectralNorm(nn.Dense(width))(x, update_stats=False))
        return x


@_model
def linen_spectral_norm() -> Init:
    return _linen(_Spectral(), _rows(1, 64))


@_model
def linen_lenet() -> Init:
    layers = [nn.Conv(6, (5, 5)), nn.relu, nn.Conv(16, (5, 5)), nn.relu]
    layers += [lambda x: x.reshape(len(x), -1), nn.Dense(120), nn.relu]
    return _linen(
        nn.Sequential([*layers, nn.Dense(84), nn.relu, nn.Dense(10)]),
        _rows(1, 28, 28, 1),
    )


class _Residual(nn.Module):
    width: int

    @nn.compact
    def __call__(self, x):
        y = nn.Conv(self.width, (3, 3), use_bias=False)(x)
        y = nn.relu(nn.BatchNorm(use_running_average=True)(y))
        y = nn.Conv(self.width, (3, 3), use_bias=False)(y)
        y = nn.BatchNorm(use_running_average=True)(y)
        if x.shape != y.shape:
            x = nn.Conv(self.width, (1, 1), use_bias=False)(x)
        return nn.relu(x + y)


@_model
def linen_resnet() -> Init:
    blocks = [_Residual(width) for width in (16, 16, 32, 32, 64, 64)]
    return _linen(nn.Sequential([*blocks, nn.Dense(10)]), _rows(1, 16, 16, 3))


class _Block(nn.Module):
    width: int = 128

    @nn.compact
    def __call__(self, x):
        h = nn.LayerNorm()(x)
        x = x + nn.MultiHeadDotProductAttention(4)(h, h)
        h = nn.gelu(nn.Dense(4 * self.width)(nn.LayerNorm()(x)))
        return x + nn.Dense(self.width)(h)


class _GPT(nn.Module):
    blocks: int

    @nn.compact
    def __call__(self, tokens):
        x = nn.Embed(1000, 128)(tokens)
        x = x + self.param("positions", nn.initializers.normal(0.02), (16, 128))
        for _ in range(self.blocks):
            x = _Block()(x)
        return nn.Dense(1000, use_bias=False)(nn.LayerNorm()(x))


@_model
def linen_gpt_4() -> Init:
    return _linen(_GPT(4), _tokens(1, 16))


@_model
def linen_gpt_12() -> Init:
    return _linen(_GPT(12), _tokens(1, 16))


class _Scanned(nn.Module):
    @nn.compact
    def __call__(self, x):
        body = nn.scan(
            lambda module, x, _: (_Block()(x), None),
            variable_axes={"params": 0},
            split_rngs={"params": True},
            length=12,
        )
        return body(self, x, None)[0]


@_model
def linen_scanned() -> Init:
    return _linen(_Scanned(), _rows(1, 16, 128))


class _Branches(nn.Module):
    @nn.compact
    def __call__(self, x):
        def wide(module, x):
            return nn.Dense(64, name="wide")(x)

        def narrow(module, x):
            return nn.Dense(64, name="narrow")(nn.Dense(16, name="inner")(x))

        if self.is_initializing():
            wide(self, x)
            return narrow(self, x)
        return nn.cond(x.sum() > 0, wide, narrow, self, x)


@_model
def linen_branches() -> Init:
    return _linen(_Branches(), _rows(1, 32))


@_model
def linen_lstm() -> Init:
    return _linen(nn.RNN(nn.OptimizedLSTMCell(128)), _rows(1, 8, 32))


@_model
def linen_gru_both_ways() -> Init:
    cells = nn.RNN(nn.GRUCell(64)), nn.RNN(nn.GRUCell(64))
    return _linen(nn.Bidirectional(*cells), _rows(1, 8, 32))


class _Recommender(nn.Module):
    @nn.compact
    def __call__(self, ids):
        sizes = (1000, 5000, 200, 37, 12, 7, 100, 350)
        fields = [nn.Embed(n, 16)(ids[:, i]) for i, n in enumerate(sizes)]
        return _mlp([256, 128, 1])(jnp.concatenate(fields, -1))


@_model
def linen_recommender() -> Init:
    return _linen(_Recommender(), _tokens(1, 8))


class _ViT(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.Conv(128, (4, 4), (4, 4))(x).reshape(len(x), -1, 128)
        first = self.param("token", nn.initializers.zeros, (1, 1, 128))
        x = jnp.concatenate([jnp.broadcast_to(first, (len(x), 1, 128)), x], 1)
        x = x + self.param("positions", nn.initializers.normal(0.02), (1, 17, 128))
        for _ in range(6):
            x = _Block()(x)
        return nn.Dense(10)(nn.LayerNorm()(x)[:, 0])


@_model
def linen_vit() -> Init:
    return _linen(_ViT(), _rows(1, 16, 16, 3))


class _UNet(nn.Module):
    @nn.compact
    def __call__(self, x):
        skips = []
        for width in (16, 32, 64):
            x = nn.relu(nn.GroupNorm(8)(nn.Conv(width, (3, 3))(x)))
            skips.append(x)
            x = nn.avg_pool(x, (2, 2), (2, 2))
        for width, skip in zip((64, 32, 16), skips[::-1], strict=True):
            x = nn.ConvTranspose(width, (2, 2), (2, 2))(x)
            x = nn.relu(nn.Conv(width, (3, 3))(jnp.concatenate([x, skip], -1)))
        return nn.Conv(1, (1, 1))(x)


@_model
def linen_unet() -> Init:
    return _linen(_UNet(), _rows(1, 16, 16, 1))


class _Autoencoder(nn.Module):
    @nn.compact
    def __call__(self, x):
        h = nn.relu(nn.Dense(256)(x))
        mean, log_variance = nn.Dense(20)(h), nn.Dense(20)(h)
        noise = jax.random.normal(self.make_rng("params"), mean.shape)
        z = mean + jnp.exp(log_variance / 2) * noise
        return nn.Dense(784)(nn.relu(nn.Dense(256)(z)))


@_model
def linen_autoencoder() -> Init:
    return _linen(_Autoencoder(), _rows(1, 784))


@_model
def linen_generator() -> Init:
    def layer(width):
        init = nn.initializers.normal(0.02)
        return nn.ConvTranspose(width, (4, 4), (2, 2), kernel_init=init)

    layers = []
    for width in (128, 64, 32):
        layers += [layer(width), nn.BatchNorm(use_running_average=True), nn.relu]
    return _linen(nn.Sequential([*layers, layer(3)]), _rows(1, 4, 4, 64))


class _Experts(nn.Module):
    @nn.compact
    def __call__(self, x):
        experts = nn.vmap(
            nn.Dense,
            variable_axes={"params": 0},
            split_rngs={"params": True},
        )
        weights = nn.softmax(nn.Dense(8)(x))
        return (experts(64)(jnp.stack([x] * 8)) * weights.T[..., None]).sum(0)


@_model
def linen_experts() -> Init:
    return _linen(_Experts(), _rows(1, 64))


# --- Haiku --------------------------------------------------------------------------


def _haiku(net: Callable, *inputs: Any) -> Init:
    init = hk.transform_with_state(net).init
    return lambda key: init(key, *inputs)


@_model
def haiku_mlp() -> Init:
    return _haiku(lambda x: hk.nets.MLP([300, 100, 10])(x), _rows(1, 784))


@_model
def haiku_resnet_18() -> Init:
    return _haiku(
        lambda x: hk.nets.ResNet18(10)(x, is_training=True), _rows(1, 32, 32, 3)
    )


@_model
def haiku_lstm() -> Init:
    def net(x):
        cell = hk.LSTM(64)
        return hk.dynamic_unroll(cell, x, cell.initial_state(1))[0]

    return _haiku(net, _rows(8, 1, 32))


@_model
def haiku_transformer() -> Init:
    init = hk.initializers.VarianceScaling(2.0)

    def net(x):
        for _ in range(4):
            x = x + hk.MultiHeadAttention(4, 32, w_init=init)(x, x, x)
            x = hk.LayerNorm(-1, True, True)(x)
            x = x + hk.Linear(128)(jax.nn.gelu(hk.Linear(512)(x)))
        return x

    return _haiku(net, _rows(1, 8, 128))


# --- Equinox ------------------------------------------------------------------------


def _equinox(make: Callable[[jax.Array], Any]) -> Init:
    return lambda key: eqx.filter(make(key), eqx.is_array)


@_model
def equinox_mlp() -> Init:
    return _equinox(lambda key: eqx.nn.MLP(64, 10, 128, 3, key=key))


@_model
def equinox_convolutions() -> Init:
    def make(key):
        sizes = (3, 16, 32, 64, 64)
        keys = jax.random.split(key, len(sizes) - 1)
        pairs = zip(sizes, sizes[1:], keys, strict=False)
        return [eqx.nn.Conv2d(a, b, 3, key=k) for a, b, k in pairs]

    return _equinox(make)


@_model
def equinox_gru() -> Init:
    return _equinox(lambda key: eqx.nn.GRUCell(32, 64, key=key))


@_model
def equinox_stacked() -> Init:
    """Equal layers, drawn by `jax.vmap`."""

    def make(key):
        keys = jax.random.split(key, 8)
        return eqx.filter_vmap(lambda k: eqx.nn.MLP(64, 64, 256, 1, key=k))(keys)

    return _equinox(make)


# --- no framework -------------------------------------------------------------------


@_model
def plain_dictionary() -> Init:
    """Every initializer of jax once."""
    he, glorot = (jax.nn.initializers.he_normal(), jax.nn.initializers.glorot_uniform())
    other = (jax.nn.initializers.orthogonal(), jax.nn.initializers.truncated_normal())

    def init(key):
        keys = jax.random.split(key, 4)
        shapes = ((128, 64), (64, 32), (64, 64), (256, 16))
        made = zip((he, glorot, *other), keys, shapes, strict=True)
        return [f(k, shape, jnp.float32) for f, k, shape in made]

    return init


@_model
def plain_block_autoregressive() -> Init:
    """Masked kernels with weight normalisation, whose parts share floats."""

    def layer(key, blocks, inner, outer):
        draw, scale = jax.random.split(key)
        rows = jnp.arange(blocks * outer) // outer
        columns = jnp.arange(blocks * inner) // inner
        below = rows[:, None] > columns[None]
        diagonal = rows[:, None] == columns[None]
        w = jax.nn.initializers.glorot_normal()(draw, below.shape)
        w = jnp.where(below, w, 0) + jnp.where(diagonal, jnp.exp(w), 0)
        norm = jnp.linalg.norm(w, axis=1, keepdims=True)
        gain = jnp.log(jax.random.uniform(scale, norm.shape, minval=0.5))
        return {"kernel": w, "direction": w / norm, "log_scale": gain - jnp.log(norm)}

    def init(key):
        sizes = [(1, 8), (8, 8), (8, 8), (8, 1)]
        keys = jax.random.split(key, len(sizes))
        return [layer(k, 6, *size) for k, size in zip(keys, sizes, strict=True)]

    return init


@_model
def plain_conditional() -> Init:
    """A branch that the key decides."""

    def init(key):
        coin, draw = jax.random.split(key)
        keys = jax.random.split(draw, 4)
        normal, uniform = (
            lambda k: jax.random.normal(k, (64, 64)) / 8,
            lambda k: jax.random.uniform(k, (64, 64), minval=-0.2, maxval=0.2),
        )
        is_heads = jax.random.bernoulli(coin)
        return [jax.lax.cond(is_heads, normal, uniform, k) for k in keys]

    return init


@_model
def plain_sirens() -> Init:
    def layer(key, a, b):
        draw, offset = jax.random.split(key)
        bound = 1 / a if a == 2 else (6 / a) ** 0.5 / 30
        return {
            "kernel": jax.random.uniform(draw, (a, b), minval=-bound, maxval=bound),
            "bias": jax.random.uniform(offset, (b,), minval=-0.1, maxval=0.1),
        }

    def init(key):
        sizes = [*itertools.pairwise((2, 256, 256, 256, 3))]
        keys = jax.random.split(key, len(sizes))
        return [layer(k, *size) for k, size in zip(keys, sizes, strict=True)]

    return init


def plan_of_structured() -> jaxinit.Plan:
    """Leaves by rules, of orthogonal, sparse and other structured initializers."""
    rules = {
        "*/square": jaxinit.orthogonal(),
        "*/sparse": jaxinit.sparse(0.9),
        "*/linear": jaxinit.looks_linear(),
        "*/bias": jaxinit.zeros,
        "**": jaxinit.he_normal(),
    }
    layer = {"square": (64, 64), "sparse": (64, 32), "linear": (32, 64)}
    layer |= {"bias": (64,), "kernel": (64, 64)}
    shapes = {
        f"layer_{i}": {k: jax.ShapeDtypeStruct(s, "float32") for k, s in layer.items()}
        for i in range(4)
    }
    return jaxinit.plan(shapes, rules)


PLANS = {"plan_of_structured": plan_of_structured}


# --- Flax NNX -----------------------------------------------------------------------


@_nnx_model
def nnx_linear(rngs: nnx.Rngs) -> nnx.Module:
    return nnx.Linear(32, 64, rngs=rngs)


@_nnx_model
def nnx_mlp(rngs: nnx.Rngs) -> nnx.Module:
    sizes = (784, 256, 256, 256, 10)
    pairs = itertools.pairwise(sizes)
    return nnx.List([nnx.Linear(a, b, rngs=rngs) for a, b in pairs])


@_nnx_model
def nnx_convolutions(rngs: nnx.Rngs) -> nnx.Module:
    sizes = (3, 16, 32, 64, 64)
    layers = []
    for a, b in itertools.pairwise(sizes):
        layers += [nnx.Conv(a, b, (3, 3), rngs=rngs), nnx.BatchNorm(b, rngs=rngs)]
    return nnx.List(layers)


class _NNXBlock(nnx.Module):
    def __init__(self, rngs):
        self.norms = nnx.List([nnx.LayerNorm(128, rngs=rngs) for _ in range(2)])
        self.attention = nnx.MultiHeadAttention(4, 128, decode=False, rngs=rngs)
        self.wide = nnx.Linear(128, 512, rngs=rngs)
        self.narrow = nnx.Linear(512, 128, rngs=rngs)


@_nnx_model
def nnx_transformer(rngs: nnx.Rngs) -> nnx.Module:
    return nnx.List([_NNXBlock(rngs) for _ in range(6)])


@_nnx_model
def nnx_lstm(rngs: nnx.Rngs) -> nnx.Module:
    return nnx.RNN(nnx.LSTMCell(32, 64, rngs=rngs), rngs=rngs)


@_nnx_model
def nnx_stacked(rngs: nnx.Rngs) -> nnx.Module:
    @nnx.split_rngs(splits=8)
    @nnx.vmap(in_axes=(0,), out_axes=0)
    def make(rngs):
        return nnx.Linear(64, 64, rngs=rngs)

    return make(rngs)
