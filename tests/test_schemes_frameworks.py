"""Schemes of frameworks against what the frameworks draw themselves."""

import os
import re

import jax
import jax.numpy as jnp
import pytest
from flax import linen, nnx

import jaxinit
import jaxinit.linen
import jaxinit.nnx
from jaxinit import schemes
from jaxinit.testing import assert_moments
from tests.scheme_models import leaf


def linen_params(key):
    class Model(linen.Module):
        @linen.compact
        def __call__(self, tokens):
            x = linen.Embed(80, 40)(tokens)
            x = linen.MultiHeadDotProductAttention(4)(linen.LayerNorm()(x))
            x = linen.RNN(linen.OptimizedLSTMCell(80))(x)
            x = linen.RNN(linen.GRUCell(80))(x)
            x = linen.RNN(linen.SimpleCell(80))(x)
            return linen.Conv(40, (3,))(linen.Dense(40)(x))

    tokens = jax.ShapeDtypeStruct((1, 4), jnp.int32)
    return jaxinit.linen.init(Model(), key, tokens)["params"]


def nnx_params(key):
    def make(rngs):
        return nnx.Dict(
            embed=nnx.Embed(80, 40, rngs=rngs),
            attention=nnx.MultiHeadAttention(4, 40, decode=False, rngs=rngs),
            lstm=nnx.OptimizedLSTMCell(40, 80, rngs=rngs),
            gru=nnx.GRUCell(40, 40, rngs=rngs),
            norm=nnx.LayerNorm(40, rngs=rngs),
            dense=nnx.Linear(40, 80, rngs=rngs),
            conv=nnx.Conv(40, 40, (3,), rngs=rngs),
        )

    return nnx.state(jaxinit.nnx.create(make, key), nnx.Param)


def haiku_params(key):
    def model(tokens):
        x = haiku.Embed(80, 40)(tokens)
        x = haiku.LayerNorm(-1, True, True)(x)
        cell = haiku.GRU(40)
        x, _ = cell(x[:, 0], cell.initial_state(1))
        cell = haiku.LSTM(80)
        x, _ = cell(x, cell.initial_state(1))
        x = haiku.Linear(40)(x)
        return haiku.Conv1D(40, 3)(x[:, None])

    haiku = pytest.importorskip("haiku")
    tokens = jnp.zeros((1, 4), jnp.int32)
    return jaxinit.jit(haiku.transform(model).init)(key, tokens)


def equinox_params(key):
    eqx = pytest.importorskip("equinox")

    def model(key):
        keys = jax.random.split(key, 6)
        return eqx.filter(layers(keys), eqx.is_array)

    def layers(keys):
        return {
            "embed": eqx.nn.Embedding(80, 40, key=keys[0]),
            "attention": eqx.nn.MultiheadAttention(4, 40, key=keys[1]),
            "lstm": eqx.nn.LSTMCell(40, 80, key=keys[2]),
            "gru": eqx.nn.GRUCell(40, 40, key=keys[3]),
            "mlp": eqx.nn.MLP(40, 80, 80, 1, key=keys[4]),
            "conv": eqx.nn.Conv1d(40, 40, 3, key=keys[5]),
            "norm": eqx.nn.LayerNorm(40),
        }

    return jaxinit.jit(model)(key)


def keras_params(key):
    os.environ.setdefault("KERAS_BACKEND", "jax")
    keras = pytest.importorskip("keras")
    keras.utils.set_random_seed(int(jax.random.bits(key) >> 1))
    x = keras.layers
    layers = {
        x.Embedding(80, 40): (1, 4),
        x.LayerNormalization(): (1, 40),
        x.LSTM(80): (1, 4, 40),
        x.Dense(80): (1, 40),
        x.Conv2D(40, 3): (1, 8, 8, 40),
    }
    for layer, shape in layers.items():
        layer.build(shape)
    attention = x.MultiHeadAttention(4, 10)
    attention.build((1, 4, 40), (1, 4, 40))
    weights = [weight for layer in (*layers, attention) for weight in layer.weights]
    return {weight.path: jnp.asarray(weight.value) for weight in weights}


def torch_params(key):
    torch = pytest.importorskip("torch")
    torch.manual_seed(int(jax.random.bits(key)))
    nn = torch.nn
    model = nn.ModuleDict(
        {
            "embed": nn.Embedding(80, 40),
            "attn": nn.MultiheadAttention(40, 4),
            "lstm": nn.LSTM(40, 80),
            "dense": nn.Linear(40, 80),
            "conv": nn.Conv2d(40, 40, 3),
            "norm": nn.LayerNorm(40),
        }
    )
    tree = {}
    for name, value in model.state_dict().items():
        # torch writes in_proj_weight and weight_ih_l0
        path = re.sub("in_proj_", "in_proj.", name.replace("_l0", ""))
        path = re.sub("bias_(ih|hh)", "bias", path)
        *modules, last = path.split(".")
        node = tree
        for module in modules:
            node = node.setdefault(module, {})
        node[last] = jnp.asarray(value.numpy())
    return tree


FRAMEWORKS = {
    "flax, linen": (schemes.flax, linen_params, schemes.keras),
    "flax, nnx": (schemes.flax, nnx_params, schemes.haiku),
    "keras": (schemes.keras, keras_params, schemes.flax),
    "haiku": (schemes.haiku, haiku_params, schemes.flax),
    "equinox": (schemes.equinox, equinox_params, schemes.torch),
    "torch": (schemes.torch, torch_params, schemes.equinox),
}


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_framework_defaults_are_those_of_the_framework(name, key):
    """A false alarm once in a billion; another framework's law is told apart."""
    scheme, draw, other = FRAMEWORKS[name]
    params = draw(key)
    assert_moments(params, jaxinit.plan(params, scheme()))
    with pytest.raises(AssertionError):
        assert_moments(params, jaxinit.plan(params, other()))


def test_keras_by_name():
    tree = {
        "dense": {"kernel": leaf(20, 30), "bias": leaf(30)},
        "embedding": {"embeddings": leaf(100, 8)},
        "layer_normalization": {"gamma": leaf(8), "beta": leaf(8)},
        "lstm": {
            "lstm_cell": {
                "kernel": leaf(20, 32),
                "recurrent_kernel": leaf(8, 32),
                "bias": leaf(32),
            }
        },
    }
    made = {x.path: x.initializer for x in jaxinit.plan(tree, schemes.keras())}
    assert made == {
        "dense/kernel": jaxinit.glorot_uniform(),
        "dense/bias": jaxinit.zeros,
        "embedding/embeddings": jaxinit.uniform(low=-0.05, high=0.05),
        "layer_normalization/gamma": jaxinit.ones,
        "layer_normalization/beta": jaxinit.zeros,
        "lstm/lstm_cell/kernel": jaxinit.glorot_uniform(),
        "lstm/lstm_cell/recurrent_kernel": jaxinit.orthogonal(),
        "lstm/lstm_cell/bias": jaxinit.forget_gate_bias(),
    }


@pytest.mark.parametrize("name", ["flax", "torch", "keras", "haiku", "equinox"])
def test_schemes_of_frameworks_are_written_and_read(name):
    rules = getattr(schemes, name)()
    assert jaxinit.to_config(rules) == {"version": 1, "scheme": name}
    assert jaxinit.from_config({"version": 1, "scheme": name}).call == rules.call
