"""What a verdict says to do: it helps, and is not told to those who did it already."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sampling import sampled

import jaxinit
from jaxinit import signal
from tests.probes import keys, probe

pytestmark = pytest.mark.unoptimized

WIDTH = BATCH = 64


def times(factor, fn):
    return lambda weight, x: factor * fn(x @ weight)


def linear(weight, x):
    return x @ weight


def shifted(weight, x):
    return x @ weight + 2


def gated(weight, x):
    return 0 * (x @ weight) + 2


def biased(layer, x):
    return jax.nn.relu(x @ layer["kernel"] + layer["bias"])


def averaged(weight, x):
    return jnp.broadcast_to(jnp.mean(x, 1, keepdims=True) * weight[0, 0], x.shape)


def halved_whatever_the_weights(weight, x):
    y = x @ weight
    return y * jnp.sqrt(jnp.mean(x**2) / jnp.mean(y**2)) / 2


def convolution(weight, x, wrapped=False):
    if wrapped:
        x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), "wrap")
    padding = "VALID" if wrapped else "SAME"
    y = jax.lax.conv_general_dilated(
        x, weight, (1, 1), padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    return jax.nn.relu(y)


WRAPPED = functools.partial(convolution, wrapped=True)
RELU, TANH = times(1, jax.nn.relu), times(1, jnp.tanh)


@functools.cache
def _drawn(init, depth, shape):
    draw = jax.jit(init, static_argnums=1)
    return [draw(key, shape) for key in keys(depth)]


def drawn(init, depth, shape=(WIDTH, WIDTH)):
    return list(_drawn(init, depth, shape))


def batch(*shape):
    x = np.random.default_rng(0).normal(size=shape or (BATCH, WIDTH))
    return jnp.asarray(x, jnp.float32)


def verdict(layer, weights, x=None):
    x = batch() if x is None else x
    layers = layer if isinstance(layer, list) else [layer] * len(weights)
    return signal.propagate(layers, weights, x, probe).verdict


def layers_of(init, bias, depth=3):
    return [
        {"kernel": kernel, "bias": jnp.full(WIDTH, bias)}
        for kernel in drawn(init, depth)
    ]


# the layer, its weights, the verdict, what is told, and the weights of those who did it
HELPS = {
    "he under relu": lambda: (
        RELU,
        drawn(jaxinit.glorot_normal(), 10),
        "vanishing",
        "use he_normal",
        drawn(jaxinit.he_normal(), 10),
    ),
    "he_uniform is as good": lambda: (
        RELU,
        drawn(jaxinit.lecun_uniform(), 10),
        "vanishing",
        "use he_normal",
        drawn(jaxinit.he_uniform(), 10),
    ),
    "smaller weights than he's": lambda: (
        RELU,
        drawn(jaxinit.scaled(jaxinit.he_normal(), 2.0), 10),
        "exploding",
        "use he_normal",
        drawn(jaxinit.he_normal(), 10),
    ),
    "larger weights": lambda: (
        linear,
        drawn(jaxinit.normal(0.02), 4),
        "vanishing",
        "multiply the standard deviation of the weights by 6",
        drawn(jaxinit.normal(0.02 * 6.25), 4),
    ),
    "smaller weights": lambda: (
        linear,
        drawn(jaxinit.normal(1.0), 4),
        "exploding",
        "multiply the standard deviation of the weights by 0.12",
        drawn(jaxinit.normal(0.125), 4),
    ),
    "any weights": lambda: (
        shifted,
        [*drawn(jaxinit.lecun_normal(), 3), *drawn(jaxinit.zeros, 1)],
        "vanishing",
        "draw weights that are not zero",
        drawn(jaxinit.lecun_normal(), 4),
    ),
    "glorot under tanh": lambda: (
        TANH,
        drawn(jaxinit.normal(1.0), 3),
        "saturated",
        "use glorot_normal or lecun_normal",
        drawn(jaxinit.glorot_normal(), 3),
    ),
    "random weights": lambda: (
        TANH,
        drawn(jaxinit.constant(0.01), 3),
        "symmetric",
        "draw the weights at random",
        drawn(jaxinit.orthogonal(), 3),
    ),
    "biases": lambda: (
        biased,
        layers_of(jaxinit.he_normal(), -10.0),
        "dead",
        "et the biases of 0, the least of which is -10, to zero",
        layers_of(jaxinit.he_normal(), 0.0),
    ),
    "weights of mean zero": lambda: (
        biased,
        layers_of(jaxinit.normal(0.1, mean=-1.0), 0.0),
        "dead",
        "raw the weights of 1 with mean zero, not -1",
        layers_of(jaxinit.normal(0.1), 0.0),
    ),
}


LIKE_OTHERS = ("he_uniform is as good", "he under relu", "smaller weights")
LIKE_OTHERS += ("random weights", "weights of mean zero")


@pytest.mark.sample(3)
@pytest.mark.parametrize("name", sampled(HELPS, [*LIKE_OTHERS]))
def test_what_is_told_helps(name):
    layer, weights, kind, cure, better = HELPS[name]()
    before = verdict(layer, weights)
    assert before.name == kind
    assert cure in before.cure
    assert verdict(layer, better).name == "healthy"


NARROW = (3, 3, WIDTH, WIDTH)
# the layer, its weights, the batch, the verdict, what is told, what is not
HAVE_IT = {
    "he, and the loss is elsewhere": lambda: (
        times(0.7, jax.nn.relu),
        drawn(jaxinit.he_normal(), 10),
        None,
        "vanishing",
        ["have the deviation of he_normal already", "by 1.4"],
        ["use he_normal"],
    ),
    "he, with zeros beside the borders": lambda: (
        convolution,
        drawn(jaxinit.he_normal(), 18, NARROW),
        batch(4, 4, 4, WIDTH),
        "vanishing",
        ["he_normal already", "make a factor of 0.873 of that (3x3 kernels on 4x4"],
        ["use he_normal"],
    ),
    "too small, and wrapped": lambda: (
        WRAPPED,
        drawn(jaxinit.scaled(jaxinit.he_normal(), 0.3), 4, NARROW),
        batch(4, 4, 4, WIDTH),
        "vanishing",
        ["use he_normal"],
        ["borders"],
    ),
    "he, in narrow layers": lambda: (
        RELU,
        drawn(jaxinit.he_normal(), 30, (8, 8)),
        batch(BATCH, 8),
        "vanishing",
        ["he_normal already", "as narrow as 8 units make one of about 0.855"],
        ["use he_normal", "borders"],
    ),
    "lecun, in layers without activation": lambda: (
        times(0.5, lambda x: x),
        drawn(jaxinit.lecun_normal(), 5),
        None,
        "vanishing",
        ["have the deviation of lecun_normal already", "weights by 1.98"],
        ["narrow", "he_normal"],
    ),
    "of any size": lambda: (
        halved_whatever_the_weights,
        drawn(jaxinit.lecun_normal(), 5),
        None,
        "vanishing",
        ["0.5, with weights 2 times as large too", "residual connections"],
        ["multiply the"],
    ),
    "no weights": lambda: (
        lambda _, x: 0.1 * x,
        [None] * 4,
        None,
        "vanishing",
        ["multiplies it by 0.1, and no weights were seen", "residual"],
        ["multiply the"],
    ),
    "no zeros, but a gate": lambda: (
        [linear, linear, linear, gated],
        drawn(jaxinit.lecun_normal(), 4),
        None,
        "vanishing",
        ["though no weights are zero"],
        ["draw weights"],
    ),
    "glorot, under too large a batch": lambda: (
        TANH,
        drawn(jaxinit.glorot_normal(), 3),
        1000 * batch(),
        "saturated",
        ["not larger than those of lecun_normal", "bring the batch to mean zero"],
        ["use glorot"],
    ),
    "no weights before what saturates": lambda: (
        lambda _, x: jnp.tanh(x),
        [None],
        1000 * batch(),
        "saturated",
        ["What goes into it is too large"],
        ["weights"],
    ),
    "random, and averaged": lambda: (
        averaged,
        drawn(jaxinit.normal(1.0), 3),
        None,
        "symmetric",
        ["no weights are constant", "averages over its units"],
        ["at random"],
    ),
    "biases of zero": lambda: (
        biased,
        layers_of(jaxinit.constant(jnp.eye(WIDTH)), 0.0),
        batch() - 50,
        "dead",
        ["entre its input"],
        ["biases"],
    ),
    "a centred input": lambda: (
        [linear, lambda _, x: jax.nn.relu(-jax.nn.relu(x))],
        [*drawn(jaxinit.lecun_normal(), 1), None],
        None,
        "dead",
        ["Use an activation"],
        ["biases", "entre", "mean"],
    ),
}


# A second of a verdict and what is told, or deep and of convolutions.
BEYOND = ("too small, and wrapped", "lecun, in layers without activation")
BEYOND += ("no weights before what saturates", "a centred input", "no weights")
BEYOND += ("he, in narrow layers", "random, and averaged")


@pytest.mark.sample(3)
@pytest.mark.parametrize("name", sampled(HAVE_IT, BEYOND))
def test_what_is_there_already_is_not_told(name):
    layer, weights, x, kind, told, not_told = HAVE_IT[name]()
    found = verdict(layer, weights, x)
    assert found.name == kind
    assert [text for text in told if text not in found.cure] == [], found.cure
    assert [text for text in not_told if text in found.cure] == [], found.cure


def test_a_factor_that_is_told_makes_an_end_of_it():
    layer, weights = times(0.7, jax.nn.relu), drawn(jaxinit.he_normal(), 10)
    factor = float(re.findall(r"weights by ([\d.]+)", verdict(layer, weights).cure)[0])
    assert verdict(layer, [factor * w for w in weights]).name == "healthy"
