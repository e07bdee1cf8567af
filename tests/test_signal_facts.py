"""What is taught about initialization, and what theory predicts, as tests."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxinit
from jaxinit import signal
from tests.probes import keys, probe

pytestmark = pytest.mark.unoptimized

WIDTH, BATCH = 256, 64
# Standard errors allowed: at five, a right value fails once in two million tests.
ALLOWED = 5.0


def layer_of(fn):
    return lambda weight, x: fn(x @ weight.astype(x.dtype))


TANH, RELU, SELU, LINEAR = map(
    layer_of, [jnp.tanh, jax.nn.relu, jax.nn.selu, lambda x: x]
)


def drawn(init, depth, width=WIDTH, dtype=jnp.float32):
    draw = jax.jit(init, static_argnums=(1, 2))
    return [draw(key, (width, width), dtype) for key in keys(depth)]


def batch(width=WIDTH, size=BATCH):
    return np.random.default_rng(0).normal(size=(size, width)).astype(np.float32)


def signal_of(layer, init, depth=10, x=None):
    x = batch() if x is None else x
    return signal.propagate([layer] * depth, drawn(init, depth), x, probe)


def second_moments(found):
    return np.array([layer.mean**2 + layer.std**2 for layer in found.layers])


def growth(values):
    """Factor per layer, the geometric mean."""
    return (values[-1] / values[0]) ** (1 / (len(values) - 1))


# what is taught


def test_zero_weights_have_zero_gradients_and_identical_units():
    found = signal_of(TANH, jaxinit.zeros)
    assert all(layer.identical for layer in found.layers[:-1])
    assert all(layer.gradient_std == 0 for layer in found.layers[:-1])
    assert all(layer.parameter_gradient_std == 0 for layer in found.layers)
    assert (found.verdict.name, found.verdict.layer) == ("symmetric", "0")


def test_a_constant_makes_one_neuron_of_many():
    found = signal_of(TANH, jaxinit.constant(1 / WIDTH))
    for layer in found.layers[:-1]:  # the last has gradients of its own
        assert layer.identical
        assert layer.correlation == pytest.approx(1, abs=1e-3)
        assert layer.rank == pytest.approx(1, abs=1e-3)
        assert layer.std > 0
    assert found.verdict.name == "symmetric"


def test_a_hundredth_vanishes_under_tanh():
    found = signal_of(TANH, jaxinit.normal(0.01))
    # 0.16 per layer, the square root of 256 times 0.01
    assert growth(second_moments(found)) == pytest.approx(0.16**2, rel=0.1)
    assert (found.verdict.name, found.verdict.layer) == ("vanishing", "2")
    assert "6.2" in found.verdict.cure  # times larger, and the signal stays


def test_one_saturates_tanh():
    found = signal_of(TANH, jaxinit.normal(1.0))
    # inputs to tanh are N(0, 256): all but those within 1.83 saturate
    expected = 1 - math.erf(math.atanh(0.95) / 16 / math.sqrt(2))
    shares = [layer.saturated for layer in found.layers]
    assert shares[1:] == pytest.approx([expected] * 9, abs=0.03)
    assert (found.verdict.name, found.verdict.layer) == ("saturated", "0")


def test_glorot_holds_under_tanh():
    found = signal_of(TANH, jaxinit.glorot_normal())
    assert all(0.7 < layer.ratio < 1 for layer in found.layers[1:])
    assert all(layer.saturated < 0.1 for layer in found.layers)
    assert found.verdict.name == "healthy"


# Over a layer, the mean square of one sample is off by sqrt((k - 1) / width), k = 6 the
# kurtosis of half a normal; over d layers their geometric mean by sqrt(d) less. Samples
# share the weights, so that a batch is at worst like one sample.
RELU_ERROR = math.sqrt(5 / WIDTH / 9)


@pytest.mark.sample(2)
@pytest.mark.parametrize(
    ("init", "factor", "verdict"),
    [
        (jaxinit.glorot_normal(), 0.5, "vanishing"),
        (jaxinit.he_normal(), 1.0, "healthy"),
        (jaxinit.he_uniform(), 1.0, "healthy"),
        (jaxinit.scaled(jaxinit.he_normal(), math.sqrt(2)), 2.0, "exploding"),
    ],
    ids=str,
)
def test_relu_halves_the_variance_and_he_doubles_the_weights(init, factor, verdict):
    found = signal_of(RELU, init)
    measured = growth(second_moments(found))
    assert abs(measured / factor - 1) < ALLOWED * RELU_ERROR
    assert abs(measured / (1.5 * factor) - 1) > ALLOWED * RELU_ERROR  # can fail
    assert found.verdict.name == verdict
    if verdict == "vanishing":
        assert "Glorot under ReLU: use he_normal" in found.verdict.cure


@pytest.mark.exhaustive
def test_selu_normalises_itself():
    found = signal_of(SELU, jaxinit.lecun_normal(), 20, 2 * batch() + 0.5)
    start, end = found.layers[0], found.layers[-1]
    assert start.std > 1.3
    assert end.mean == pytest.approx(0, abs=0.15)
    assert end.std == pytest.approx(1, abs=0.15)
    assert found.verdict.name == "healthy"


@pytest.mark.parametrize(
    ("steps", "less"),
    [(10, 0.7), pytest.param(100, 0.97, marks=pytest.mark.exhaustive)],
)
def test_orthogonal_keeps_the_norm_over_many_steps(steps, less):
    [weight] = map(np.asarray, drawn(jaxinit.orthogonal(), 1))

    def ran(factor):
        weights = [factor * weight] * steps
        return signal.propagate([LINEAR] * steps, weights, batch(), probe)

    kept = ran(np.float32(1))
    norms = second_moments(kept) / second_moments(kept)[0]
    assert norms == pytest.approx(np.ones(steps), abs=1e-4)
    assert kept.verdict.name == "healthy"
    lost = ran(np.float32(less))
    assert lost.verdict.name == "vanishing"


@pytest.mark.exhaustive
def test_bfloat16_draws_of_jax_die_where_4096_are_summed_and_ours_do_not():
    """What their mean is off adds up over the inputs: 256 units, each copied."""
    depth, inputs, units = 8, 4096, 256
    ends = {}

    def copied(weight, x):
        x = jnp.tile(x, inputs // x.shape[1])
        return jax.nn.relu(x @ weight.astype(x.dtype))

    for name, init in [("jax", jax.nn.initializers), ("ours", jaxinit)]:
        draw = jax.jit(init.he_normal(), static_argnums=(1, 2))
        weights = [draw(key, (inputs, units), jnp.bfloat16) for key in keys(depth)]
        found = signal.propagate([copied] * depth, weights, batch(inputs), probe)
        moments = second_moments(found)
        ends[name] = moments[-1] / moments[0]
    # seven layers: off by at most sqrt(7 * 5 / 256) = 37 %
    assert abs(math.log(ends["ours"])) < ALLOWED * math.sqrt(7 * 5 / units)
    assert math.log(ends["jax"]) < -ALLOWED * math.sqrt(7 * 5 / units)
    assert ends["jax"] < 0.02


@pytest.mark.exhaustive
def test_bfloat16_draws_of_jax_die_at_width_4096_and_ours_do_not():
    depth, width = 8, 4096
    verdicts, ends = {}, {}
    for name, init in [("jax", jax.nn.initializers), ("ours", jaxinit)]:
        weights = drawn(init.he_normal(), depth, width, jnp.bfloat16)
        found = signal.propagate([RELU] * depth, weights, batch(width, 16))
        moments = second_moments(found)
        verdicts[name], ends[name] = found.verdict.name, moments[-1] / moments[0]
    assert verdicts == {"jax": "vanishing", "ours": "healthy"}
    # seven layers: off by at most sqrt(7 * 5 / 4096) = 9 %
    assert abs(ends["ours"] - 1) < ALLOWED * math.sqrt(7 * 5 / width)
    assert ends["jax"] < 0.02


# theory


@pytest.mark.parametrize(
    "width", [1024, pytest.param(4096, marks=pytest.mark.exhaustive)]
)
@pytest.mark.parametrize(
    "fn",
    [jax.nn.relu, pytest.param(jnp.tanh, marks=pytest.mark.exhaustive)],
    ids=lambda fn: fn.__name__,
)
def test_prediction_agrees_with_wide_networks(fn, width):
    depth, narrow = 3, width // 4
    init = jaxinit.normal(1.5 / math.sqrt(width))
    found = signal.propagate(
        [layer_of(fn)] * depth, drawn(init, depth, width), batch(width), probe
    )
    expected = signal.predict(fn, init, [width] * (depth + 1))
    # Relative standard errors of a variance: at most sqrt(depth * (k - 1) / width), k
    # the largest kurtosis in play, 6 for relu (and 3 for the normal input of tanh).
    error = math.sqrt(depth * 5 / width)
    for layer, theory in zip(found.layers, expected, strict=True):
        assert abs(layer.std / theory.std - 1) < ALLOWED * error / 2
        assert abs(layer.gradient_std / theory.gradient_std - 1) < ALLOWED * error / 2
    wrong = signal.predict(fn, init, [narrow] * (depth + 1))
    assert abs(found.layers[-1].std / wrong[-1].std - 1) > ALLOWED * error / 2
    gradient = wrong[0].gradient_std
    assert abs(found.layers[0].gradient_std / gradient - 1) > ALLOWED * error / 2


def test_prediction_has_the_known_values():
    he = signal.predict(jax.nn.relu, jaxinit.he_normal(), [64] * 5)
    for layer in he:
        assert layer.preactivation_std == pytest.approx(math.sqrt(2), rel=1e-6)
        assert layer.mean == pytest.approx(1 / math.sqrt(math.pi), rel=1e-6)
        assert layer.gradient_std == pytest.approx(1, rel=1e-6)
    glorot = signal.predict(jax.nn.relu, jaxinit.glorot_normal(), [64] * 5)
    assert [layer.preactivation_std**2 for layer in glorot] == pytest.approx(
        [1, 1 / 2, 1 / 4, 1 / 8]
    )
    weight, bias = jaxinit.critical(jnp.tanh)  # unit variance stays, gradients stay
    edge = signal.predict(
        jnp.tanh,
        jaxinit.normal(weight / 8),
        [64] * 5,
        bias_init=jaxinit.normal(bias),
        second_moment=(1 - bias**2) / weight**2,
    )
    assert [layer.preactivation_std for layer in edge] == pytest.approx([1] * 4)
    assert [layer.gradient_std for layer in edge] == pytest.approx([1] * 4)


def test_prediction_follows_the_widths():
    widths, init = [64, 256, 1024], jaxinit.normal(0.1)
    forward = signal.predict(lambda x: x, init, widths)
    assert forward[0].std == pytest.approx(0.1 * math.sqrt(64))
    assert forward[1].std == pytest.approx(0.01 * math.sqrt(64 * 256))
    assert forward[0].gradient_std == pytest.approx(0.1 * math.sqrt(1024))
