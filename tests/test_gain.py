"""Gains: torch's table, and quadrature against closed forms."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sampling import sampled

import jaxinit
from jaxinit import calculate_gain, critical, for_activation, gain
from jaxinit.initializers.gain import _TABLE
from tests.golden_torch import NUMBERS

pytestmark = pytest.mark.unoptimized

TORCH = NUMBERS["calculate_gain"]


@pytest.mark.parametrize(("name", "param", "wanted"), TORCH)
def test_table_is_that_of_torch(name, param, wanted):
    assert calculate_gain(name, param) == wanted


def test_table_has_the_names_of_torch():
    assert {name for name, *_ in TORCH} == set(_TABLE)


def _tail(a):
    return math.erfc(a / math.sqrt(2)) / 2


def _density(a):
    return math.exp(-(a**2) / 2) / math.sqrt(2 * math.pi)


A = 0.3217  # on no panel boundary
SELU_SCALE, SELU_ALPHA = 1.0507009873554805, 1.6732632423543772

_SQUARED_DENSITY = 1 / (2 * math.pi * math.sqrt(3))  # E[density(z)^2]


def _elu(alpha):
    """Of `x` above zero and `alpha (exp(x) - 1)` below, E[f(z)^2] and E[f'(z)^2]."""
    squared, single = math.exp(2) * _tail(2), math.exp(0.5) * _tail(1)
    return 0.5 + alpha**2 * (squared - 2 * single + 0.5), 0.5 + alpha**2 * squared


def _above(power, a):
    """E[z^power; z > a], by parts."""
    if power == 0:
        return _tail(a)
    return a ** (power - 1) * _density(a) + (power - 1) * _above(power - 2, a)


def _power(power, a):
    """E[z^power; 0 < z < a], of an even power."""
    return math.prod(range(power - 1, 0, -2)) / 2 - _above(power, a)


# E[f(z)^2] and E[f'(z)^2], integrated by hand
CLOSED = {
    "identity": (lambda x: x, 1.0, 1.0),
    "relu": (jax.nn.relu, 0.5, 0.5),
    "leaky_relu": (lambda x: jax.nn.leaky_relu(x, 0.2), 0.52, 0.52),
    "abs": (jnp.abs, 1.0, 1.0),
    "square": (lambda x: x * x, 3.0, 4.0),
    "exp": (jnp.exp, math.exp(2), math.exp(2)),
    "sin": (jnp.sin, (1 - math.exp(-2)) / 2, (1 + math.exp(-2)) / 2),
    "fast_sin": (lambda x: jnp.sin(30 * x), 0.5, 450.0),
    "relu6": (
        jax.nn.relu6,
        0.5 - _tail(6) - 6 * _density(6) + 36 * _tail(6),
        0.5 - _tail(6),
    ),
    "kink_off_grid": (
        lambda x: jnp.maximum(x - A, 0),
        (1 + A * A) * _tail(A) - A * _density(A),
        _tail(A),
    ),
    "hard_tanh": (
        jax.nn.hard_tanh,
        1 - 2 * _tail(1) - 2 * _density(1) + 2 * _tail(1),
        1 - 2 * _tail(1),
    ),
    "erf": (
        lambda x: jax.scipy.special.erf(x / math.sqrt(2)),
        1 / 3,
        2 / math.pi / math.sqrt(3),
    ),
    "selu": (jax.nn.selu, 1.0, SELU_SCALE**2 * _elu(SELU_ALPHA)[1]),
    "elu": (jax.nn.elu, *_elu(1.0)),
    "elu of another slope": (lambda x: jax.nn.elu(x, 0.3), *_elu(0.3)),
    "celu": (jax.nn.celu, *_elu(1.0)),
    "gelu": (
        lambda x: jax.nn.gelu(x, approximate=False),
        1 / 3 + _SQUARED_DENSITY,
        1 / 3 + _SQUARED_DENSITY * 4 / 3,
    ),
    "hard_sigmoid": (
        jax.nn.hard_sigmoid,
        (_power(0, 3) / 2 + _power(2, 3) / 18) + _tail(3),
        _power(0, 3) / 18,
    ),
    "hard_silu": (
        jax.nn.hard_silu,
        _power(2, 3) / 2 + _power(4, 3) / 18 + _above(2, 3),
        _power(0, 3) / 2 + _power(2, 3) * 2 / 9 + _tail(3),
    ),
}


@pytest.mark.sample(10)
@pytest.mark.parametrize("name", CLOSED)
def test_gain_equals_the_closed_form(name):
    fn, forward, backward = CLOSED[name]
    assert gain(fn) == pytest.approx(1 / math.sqrt(forward), rel=1e-8)
    if backward is not None:
        expected = pytest.approx(1 / math.sqrt(backward), rel=1e-8)
        assert gain(fn, mode="backward") == expected


def test_gain_of_a_jump_off_the_grid():
    step = gain(lambda x: (x > 0.123).astype(x.dtype))
    assert step == pytest.approx(1 / math.sqrt(_tail(0.123)), rel=1e-8)


@pytest.mark.parametrize(
    "fn", [jax.nn.softmax, jax.nn.standardize, jnp.cumsum, lambda x: x - x.mean()]
)
def test_functions_that_mix_entries_are_refused(fn):
    for ask in (gain, critical):
        with pytest.raises(TypeError, match="elementwise: its value at one entry"):
            ask(fn)


def test_a_function_that_jumps_everywhere_is_refused():
    with pytest.raises(ValueError, match="jumps nearly everywhere"):
        gain(lambda x: jnp.sin(1e9 * x) > 0.5)


SMOOTH = [
    jnp.tanh,
    jax.nn.gelu,
    jax.nn.sigmoid,
    jax.nn.silu,
    jax.nn.mish,
    jax.nn.softplus,
]


@pytest.mark.sample(1)
@pytest.mark.parametrize(
    "fn", sampled(SMOOTH, [jax.nn.sigmoid, jax.nn.mish, jax.nn.softplus])
)
def test_gain_equals_a_fine_riemann_sum(fn):
    with jax.enable_x64(True):
        z = np.linspace(-12, 12, 100_001)
        weight = np.exp(-z * z / 2) / math.sqrt(2 * math.pi) * (z[1] - z[0])
        both = jax.jit(lambda z: (fn(z), jax.vmap(jax.grad(fn))(z)))
        forward, backward = (
            float((x**2 * weight).sum()) for x in map(np.asarray, both(z))
        )
    assert gain(fn) == pytest.approx(forward**-0.5, rel=1e-9)
    assert gain(fn, "backward") == pytest.approx(backward**-0.5, rel=1e-9)


def test_gain_needs_no_settings_of_the_user():
    expected = gain(jnp.tanh)
    with jax.numpy_dtype_promotion("strict"):
        assert gain(jnp.tanh) == expected
    traced = jax.jit(lambda x: x * gain(jnp.tanh))(1.0)
    assert float(traced) == pytest.approx(expected, rel=1e-6)
    assert not jax.config.jax_enable_x64


@pytest.mark.parametrize("fn", [jax.nn.relu, jnp.tanh, jax.nn.gelu, jax.nn.selu])
def test_critical_pair_is_a_fixed_point_of_growth_one(fn):
    sigma_w, sigma_b = critical(fn)
    assert sigma_w == pytest.approx(gain(fn, "backward"), rel=1e-9)
    assert sigma_w**2 / gain(fn) ** 2 + sigma_b**2 == pytest.approx(1, rel=1e-8)


def test_critical_pair_of_relu_and_identity():
    assert critical(jax.nn.relu) == pytest.approx((math.sqrt(2), 0), rel=1e-9)
    assert critical(lambda x: x) == pytest.approx((1, 0), rel=1e-9)


@pytest.mark.parametrize("size", sampled([1e-1, 1e-2, 1e-3], [1e-1, 1e-2]))
def test_critical_pair_near_the_identity(size):
    """A cubic Hermite polynomial of that size has three times the slope."""
    sigma_b = critical(lambda x: x + size / math.sqrt(6) * (x**3 - 3 * x))[1]
    assert sigma_b == pytest.approx(size * math.sqrt(2 / (1 + 3 * size**2)), rel=1e-4)
    with pytest.raises(ValueError, match="no edge of chaos"):
        critical(lambda x: x + size)


def test_critical_pair_keeps_a_wide_tanh_network_alive():
    # the second moment moves by about 1 / sqrt(width) a layer: 15 layers of 3 %
    width, depth = 512, 15

    def second_moment(sigma_w, sigma_b):
        random = np.random.default_rng(0)
        x = random.normal(size=(64, width))
        for _ in range(depth):
            kernel = random.normal(size=(width, width)) / math.sqrt(width)
            bias = random.normal(size=width)
            x = np.tanh(x) @ kernel * sigma_w + bias * sigma_b
        return float((x**2).mean())

    assert second_moment(*critical(jnp.tanh)) == pytest.approx(1, abs=0.3)
    assert second_moment(1.0, 0.0) < 0.1  # what Glorot's variance does


# ---- recommendations

HE, GLOROT, LECUN = (
    jaxinit.he_normal(),
    jaxinit.glorot_uniform(),
    jaxinit.lecun_normal(),
)
RECOMMENDED = {
    "relu": HE,
    "relu6": HE,
    "leaky_relu": jaxinit.he_normal(negative_slope=0.01),
    "tanh": GLOROT,
    "sigmoid": GLOROT,
    "selu": LECUN,
    "identity": LECUN,
}


@pytest.mark.parametrize("name", RECOMMENDED)
def test_recommended_by_practice(name):
    by_name, by_function = for_activation(name), for_activation(getattr(jax.nn, name))
    assert by_name == by_function
    assert by_name.initializer == RECOMMENDED[name]
    assert "et al." in by_name.reason or "Bengio" in by_name.reason
    assert by_name.gain == gain(getattr(jax.nn, name))


@pytest.mark.parametrize("name", ["gelu", "silu", "mish", "elu", "softplus"])
def test_recommended_by_gain(name):
    initializer, factor, reason = for_activation(name)
    fn = getattr(jax.nn, name)
    assert "gain" in reason
    assert factor == gain(fn)
    variance = initializer.moments((200, 10)).variance
    assert variance == pytest.approx(factor**2 / 200, rel=1e-9)
    assert for_activation(lambda x: fn(x)).initializer == initializer


def test_recommended_for_both_forms_of_gelu():
    exact = for_activation("gelu_exact")
    assert exact.gain == pytest.approx(CLOSED["gelu"][1] ** -0.5, rel=1e-8)
    assert exact.gain != for_activation("gelu").gain
