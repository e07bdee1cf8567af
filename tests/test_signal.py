"""The signal through models of every kind, statistic by statistic; bad input."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx

import jaxinit
from jaxinit import signal
from jaxinit._signal import measure
from jaxinit._signal.recorder import Recorder
from jaxinit._signal.verdict import by_depth, judge
from tests.probes import keys, probe

pytestmark = pytest.mark.unoptimized

WIDTH, BATCH = 256, 64


def linear(weight, x):
    return x @ weight


def relu(weight, x):
    return jax.nn.relu(x @ weight)


def drawn(init, depth):
    return list(_drawn(init, depth))


@functools.cache
def _drawn(init, depth):
    return [init(key, (WIDTH, WIDTH)) for key in keys(depth)]


def batch(width=WIDTH):
    x = np.random.default_rng(0).normal(size=(BATCH, width))  # compiles nothing
    return jnp.asarray(x, np.float32)


# each statistic


def total(y):
    """A loss that compiles soon, where gradients are not asked for."""
    return jnp.sum(jnp.real(y))


def only(layer, x, params=None, loss=total):
    return signal.propagate([layer], [params], x, loss).layers[0]


def test_statistics_by_hand():
    x = np.random.default_rng(0).normal(1, 2, (BATCH, 16)).astype(np.float32)
    x[:, 3] = 0
    found = only(lambda _, x: x + 1 - 1, x)
    eigenvalues = np.linalg.eigvalsh(np.cov(x.T.astype(float)))
    assert found.mean == pytest.approx(x.mean(), rel=1e-5)
    assert found.std == pytest.approx(x.std(), rel=1e-5)
    assert (found.low, found.high) == pytest.approx((x.min(), x.max()), abs=1e-5)
    assert found.dead == found.zero == 1 / 16
    ratio = eigenvalues.sum() ** 2 / (eigenvalues**2).sum()
    assert found.rank == pytest.approx(ratio, rel=1e-4)
    correlations = np.corrcoef(np.delete(x, 3, 1).T)
    off_diagonal = correlations[~np.eye(15, dtype=bool)]
    assert found.correlation == pytest.approx(off_diagonal.mean(), abs=1e-5)
    expected, _ = np.histogram(x[x != 0], 60, (x.min(), x.max()))
    assert np.abs(np.array(found.counts) - expected).sum() <= 2  # rounding of an edge
    assert sum(found.counts) == (x != 0).sum()
    assert found.shape == (BATCH, 16)
    assert math.isnan(found.ratio)
    assert math.isnan(found.parameter_gradient_std)


def test_gradients_by_hand():
    x, weight = (np.asarray(a) for a in (batch(), drawn(jaxinit.normal(0.1), 1)[0]))
    weight = weight[:, :16]  # of the shape above, for which statistics are compiled
    found = only(linear, x, weight, lambda y: jnp.sum(y**2))
    by_hand = 2 * x @ weight
    assert found.gradient_std == pytest.approx(by_hand.std(), rel=1e-5)
    assert found.gradient_mean == pytest.approx(by_hand.mean(), abs=1e-5)
    of_weight = x.T @ by_hand
    assert found.parameter_gradient_std == pytest.approx(of_weight.std(), 1e-5)
    assert found.parameter_gradient_mean == pytest.approx(of_weight.mean(), abs=1e-4)


def test_no_square_overflows_or_vanishes():
    x, factors = np.asarray(batch())[:2, :16], np.array([1e-30, 1, 1e30], np.float32)
    stds = jax.jit(jax.vmap(lambda x: measure.mean_and_std(x)[1]))(
        factors[:, None, None] * x
    )
    np.testing.assert_allclose(stds, factors * x.std(), rtol=1e-5)


def test_what_is_near_the_bounds_of_its_function_is_saturated():
    rows = {
        "sigmoid": ([0.01] * 3 + [0.5] * 4 + [0.99] * 3, 0.6),
        "tanh": ([-0.99] * 3 + [0.0] * 4 + [0.99] * 2 + [0.5], 0.5),
        "small, of a ReLU": ([0.01] * 6 + [0.5] * 4, 0.0),
        "without bounds": ([-2.0] + [0.99] * 9, 0.0),
    }
    saturated = jax.jit(
        jax.vmap(lambda x: measure._saturated(x, jnp.min(x), jnp.max(x)))
    )
    found = saturated(np.array([row for row, _ in rows.values()], np.float32))
    np.testing.assert_allclose(found, [share for _, share in rows.values()], rtol=1e-6)


def test_calls_of_one_layer_are_numbered():
    x = jnp.ones(3)
    recorder = Recorder(x, None)
    for name in ("cell", "cell", "head"):
        x = recorder.layer((name,), "Dense", lambda x: x + 1, (x,))
    assert [tap.name for tap in recorder.taps()] == ["cell (1)", "cell (2)", "head"]


@pytest.mark.exhaustive
def test_tiny_and_huge_numbers_keep_their_deviation():
    for factor in (1e-30, 1e30):
        found = only(lambda _, x: x + 0, batch() * factor)
        assert found.std == pytest.approx(factor, rel=0.2)


@pytest.mark.exhaustive
def test_sigmoid_saturates_at_both_ends():
    def sigmoid(scale, x):
        return jax.nn.sigmoid(scale * x)

    assert only(sigmoid, batch(), 100.0).saturated > 0.9
    assert only(sigmoid, batch(), 1.0).saturated < 0.05
    x, eye = np.asarray(batch()) / 100, np.eye(WIDTH, dtype=np.float32)
    assert only(relu, x, eye).saturated == 0


def test_dead_units_are_found_and_a_head_of_zeros_is_none():
    def layer(bias, x):
        return jax.nn.relu(x + bias)

    dead = signal.propagate([layer] * 3, [0.0, -10.0, 0.0], batch(), probe)
    assert (dead.verdict.name, dead.verdict.layer) == ("dead", "1")
    weights = drawn(jaxinit.he_normal(), 2)
    head = signal.propagate(
        [relu, linear], [weights[0], jnp.zeros_like(weights[1])], batch(), probe
    )
    assert head.layers[-1].dead == 1
    assert head.verdict.name == "healthy"


def test_the_gradient_alone_can_vanish():
    @jax.custom_jvp
    def quiet(x):
        return x

    quiet.defjvp(lambda x, t: (x[0], t[0] * 0.1))
    model = [lambda _, x: quiet(x + 0)] * 4
    found = signal.propagate(model, [None] * 4, batch(), probe)
    assert (found.verdict.name, found.verdict.layer) == ("vanishing", "1")
    assert "gradient" in found.verdict.text


# what the verdict begins at


def layer_of(name="0", **facts):
    """A layer of which nothing is wrong, but for some facts."""
    numbers = dict.fromkeys(
        (field.name for field in dataclasses.fields(signal.LayerSignal)), 0.0
    )
    right = {"kind": "f", "shape": (4, 8), "kernel": (), "counts": (), "std": 1.0}
    right |= {"gradient_std": 1.0, "flat": False, "identical": False, "name": name}
    return signal.LayerSignal(**{**numbers, **right, **facts})


def layers_of(**facts):
    """Layers of one kind, each fact a number for each of them."""
    rows = zip(*facts.values(), strict=True)
    return [
        layer_of(f"{i}", **dict(zip(facts, row, strict=True)))
        for i, row in enumerate(rows)
    ]


BEGINS = {
    "most units zero": ([layer_of(dead=0.75)], "healthy"),
    "more units zero": ([layer_of(dead=0.78)], "dead from 0 on"),
    "a head of zeros": ([layer_of(dead=1.0, flat=True)], "healthy"),
    "half at bounds": ([layer_of(saturated=0.5)], "healthy"),
    "more at bounds": ([layer_of(saturated=0.53)], "saturated from 0 on"),
    "two layers": (layers_of(std=[1.0, 20.0]), "healthy"),
    "three layers": (layers_of(std=[1.0, 5.0, 10.5]), "exploding from 2 on"),
    "three layers, less": (layers_of(std=[1.0, 5.0, 9.5]), "healthy"),
    "three layers, back": (
        layers_of(gradient_std=[0.095, 0.3, 1.0]),
        "vanishing from 0 on",
    ),
    "wider to the front": (
        layers_of(gradient_std=[0.05, 0.3, 1.0], shape=[(1, 800), (1, 8), (1, 8)]),
        "healthy",
    ),
    "what is in blocks": (
        [
            layer_of(f"block{i}{inside}", std=std)
            for i in range(3)
            for inside, std in (("/a", 10.0 ** -(2 * i)), ("", 1.0))
        ],
        "healthy",
    ),
    "gradients from the last layer on": (
        layers_of(gradient_nonfinite=[3, 2]),
        "not finite from 1 on",
    ),
    "NaN before all": (
        [layer_of(dead=1.0), layer_of("1", nonfinite=1)],
        "not finite from 1 on",
    ),
}


@pytest.mark.parametrize("name", BEGINS)
def test_where_a_verdict_begins(name):
    layers, expected = BEGINS[name]
    assert judge(layers, lambda names, factor: layers).short == expected


HE = math.sqrt(2 / 4096)
CURES = {
    "helps": ([1.0, 2.0, 3.0], 0.5, "multiply the standard deviation of the weights"),
    "does not help": ([1.0, 5.0, 20.0], 0.5, "times as large too"),
    "leaves nothing": ([0.0, 0.0, 0.0], 0.5, "times as large too"),
    "of He, but for how it was rounded": (
        [1.0, 2.0, 3.0],
        1.006 * HE,
        "The weights have the deviation of he_normal already",
    ),
    "of about He": ([1.0, 2.0, 3.0], 1.02 * HE, "Every layer multiplies it by 4.5"),
}


@pytest.mark.parametrize("name", CURES)
def test_a_cure_is_told_if_it_helps(name):
    after, kernel_std, expected = CURES[name]
    kernels = {"kernel": [(4096, 4096)] * 3, "kernel_std": [kernel_std] * 3}
    layers = layers_of(std=[1.0, 5.0, 20.0], **kernels)
    scaled = layers_of(std=after, **kernels)
    cure = judge(layers, lambda names, factor: scaled).cure
    assert expected in cure
    assert ("he_normal already" in cure) == ("already" in expected)
    assert ("times as large too" in cure) == ("too" in expected)


@pytest.mark.parametrize(("count", "is_relu"), [(2, True), (1, False)])
def test_relu_is_guessed_where_a_third_of_the_layers_are_half_zero(count, is_relu):
    zero = [0.5] * count + [0.1, 0.9, 1.0, 0.0][: 5 - count]
    kernels = {"kernel": [(4096, 4096)] * 5, "kernel_std": [HE / 2] * 5}
    layers = layers_of(std=[0.5**i for i in range(5)], zero=zero, **kernels)
    cure = judge(layers, lambda names, factor: layers_of(std=[1.0] * 5)).cure
    assert ("not made for ReLU: use he_normal" in cure) == is_relu


def test_layers_by_depth_are_blocks_without_their_inputs():
    names = ["stem", "0", "1 input", "1", "2 input", "2", "3 input", "3", "head"]
    layers = [
        layer_of(name, kind="input" if "input" in name else "f") for name in names
    ]
    assert [x.name for x in by_depth(layers)] == ["0", "1", "2", "3"]
    assert [x.name for x in by_depth(layers[:4])] == ["stem", "0", "1"]


# Flax


class Net(linen.Module):
    depth: int = 3
    width: int = WIDTH
    kernel_init: jaxinit.Initializer = jaxinit.he_normal()

    @linen.compact
    def __call__(self, x, train=False):
        for _ in range(self.depth):
            x = linen.relu(linen.Dense(self.width, kernel_init=self.kernel_init)(x))
        x = linen.Dropout(0.5, deterministic=not train)(x)
        x = linen.BatchNorm(use_running_average=not train)(x)
        return linen.Dense(WIDTH)(x)


def initial(model, x):
    return jaxinit.jit(model.init)(jax.random.key(0), x)


class NNXNet(nnx.Module):
    def __init__(self, rngs, depth=3, width=WIDTH):
        self.layers = nnx.List(
            nnx.Linear(width, width, rngs=rngs) for _ in range(depth)
        )
        self.tail = nnx.Sequential(
            nnx.Dropout(0.5, rngs=rngs),
            nnx.BatchNorm(width, rngs=rngs),
            nnx.Linear(width, width, rngs=rngs),
        )

    def __call__(self, x):
        for layer in self.layers:
            x = nnx.relu(layer(x))
        return self.tail(x)


def test_linen_layers_in_the_order_they_run():
    x, model = batch(), Net()
    variables = initial(model, x)
    found = signal.propagate(model, variables, x)
    assert [layer.name for layer in found.layers] == [
        "Dense_0",
        "Dense_1 input",
        "Dense_1",
        "Dense_2 input",
        "Dense_2",
        "Dropout_0 input",
        "BatchNorm_0",
        "Dense_3",
    ]
    apply = jax.jit(functools.partial(model.apply, capture_intermediates=True))
    outputs = jax.device_get(apply(variables, x)[1])["intermediates"]
    for layer in found.layers:
        if layer.kind != "input":
            expected = outputs[layer.name]["__call__"][0]
            assert layer.std == pytest.approx(expected.std(), rel=1e-4)
    assert found.layers[-1].gradient_std == pytest.approx(1, abs=0.2)


@pytest.mark.exhaustive
def test_linen_options_and_streams():
    x, model = batch(), Net()
    variables = initial(model, x)
    found = signal.propagate(model, variables, x, train=True)
    assert "Dropout_0" in {layer.name for layer in found.layers}  # it drops now
    assert str(signal.propagate(model, variables, x, train=True)) == str(found)


def test_linen_parameters_without_their_collection():
    model, x = linen.Dense(WIDTH), batch()
    variables = initial(model, x)
    found = signal.propagate(model, variables["params"], x)
    assert str(found) == str(signal.propagate(model, variables, x))
    assert [layer.name for layer in found.layers] == ["Dense"]


@pytest.mark.exhaustive
def test_nnx_layers_and_parameters():
    x, model = batch(), NNXNet(nnx.Rngs(0))
    found = signal.propagate(model, None, x, probe)
    assert [layer.name for layer in found.layers] == [
        "layers/0",
        "layers/1 input",
        "layers/1",
        "layers/2 input",
        "layers/2",
        "tail input",
        "tail/layers/0",
        "tail/layers/1",
        "tail/layers/2",
    ]
    assert type(model.layers[0]) is nnx.Linear  # left as it was
    assert found.layers[0].std == pytest.approx(float(model.layers[0](x).std()))
    zeros = jax.tree.map(jnp.zeros_like, nnx.state(model, nnx.Param))
    assert signal.propagate(model, zeros, x, probe).verdict.name == "symmetric"
    assert float(model.layers[0](x).std()) > 0
    assert str(signal.propagate(model, None, x, probe)) == str(found)


def test_what_is_inside_transformations_is_seen_from_outside():
    class Remat(linen.Module):
        @linen.compact
        def __call__(self, x):
            return linen.Dense(WIDTH)(linen.remat(Net)(depth=2, name="inner")(x))

    x = batch()
    found = signal.propagate(Remat(), initial(Remat(), x), x, probe)
    assert [layer.name for layer in found.layers] == ["Dense_0 input", "Dense_0"]


@pytest.mark.exhaustive
def test_a_layer_that_is_called_again_is_numbered():
    class Loop(linen.Module):
        @linen.compact
        def __call__(self, x):
            cell = linen.Dense(WIDTH, kernel_init=jaxinit.orthogonal(0.5), name="cell")
            for _ in range(5):
                x = cell(x)
            return x

    x = batch()
    found = signal.propagate(Loop(), initial(Loop(), x), x, probe)
    assert [layer.name for layer in found.layers] == [
        f"cell ({i})" for i in range(1, 6)
    ]
    assert found.layers[-1].ratio == pytest.approx(0.5, rel=1e-3)
    assert found.verdict.name == "vanishing"


@pytest.mark.exhaustive
def test_residual_blocks_may_scale_what_they_add():
    class Block(linen.Module):
        @linen.compact
        def __call__(self, x):
            inner = linen.LayerNorm()(x)
            inner = linen.gelu(linen.Dense(WIDTH, name="up")(inner))
            init = jaxinit.normal(1.0)
            return x + linen.Dense(WIDTH, kernel_init=init, name="down")(inner)

    class Residual(linen.Module):
        @linen.compact
        def __call__(self, x):
            for _ in range(4):
                x = Block()(x)
            return linen.Dense(WIDTH, kernel_init=jaxinit.zeros, name="head")(x)

    x = batch() / 50  # as of an embedding
    params = jax.device_get(initial(Residual(), x)["params"])

    def with_deviations(*stddevs):
        scaled = dict(params)
        for i, stddev in enumerate(stddevs):
            block = params[f"Block_{i}"]
            down = {**block["down"], "kernel": block["down"]["kernel"] * stddev}
            scaled[f"Block_{i}"] = {**block, "down": down}
        return signal.propagate(Residual(), {"params": scaled}, x, probe)

    found = with_deviations(*np.float32([0.001, 0.0, 0.0, 1e-5]))
    assert found.verdict.name == "healthy"
    inside = [layer.std for layer in found.layers if layer.name.endswith("down")]
    assert inside[0] > 10 * inside[-1]
    found = with_deviations(*np.float32([0.01, 0.1, 1.0, 10.0]))
    assert (found.verdict.name, found.verdict.layer) == ("exploding", "Block_1")


def test_a_model_is_compiled_once():
    calls = []

    def layer(weight, x):
        calls.append(1)
        return jnp.tanh(x @ weight)

    model, x = [layer] * 2, batch()
    weights = jax.device_get(drawn(jaxinit.normal(1.0), 2))
    for scale in (0.1, 0.2, 0.3):
        signal.propagate(model, [np.float32(scale) * w for w in weights], x, probe)
    # traced for its shapes and for its gradient, in one compilation
    assert len(calls) == 4


def test_a_model_that_does_not_hash():
    class Unhashable(linen.Module):
        sizes: object

        @linen.compact
        def __call__(self, x):
            return linen.Dense(int(self.sizes[0]))(x)

    model, x = Unhashable(np.array([WIDTH])), batch()
    variables = initial(model, x)
    found = signal.propagate(model, variables, x, probe)
    assert found.layers[0].shape == (BATCH, WIDTH)


# bad input


def test_not_finite_numbers_are_reported_with_their_first_layer():
    functions = [relu, lambda _, x: jnp.log(x - 1), lambda _, x: x * 2]
    weights = [*drawn(jaxinit.he_normal(), 1), None, None]
    with jax.debug_nans(True):
        found = signal.propagate(functions, weights, batch(), total)
    assert (found.verdict.name, found.verdict.layer) == ("not finite", "1")
    assert found.layers[0].nonfinite == 0
    assert 0 < found.layers[1].nonfinite <= WIDTH * BATCH
    assert "not finite from 1 on" in str(found)


def broken_at_entry(x, value=np.nan):
    x = np.array(x)
    x[0, 0] = value
    return x


def test_what_was_not_finite_before_the_model_ran_is_told():
    [weight] = drawn(jaxinit.he_normal(), 1)
    eye = np.eye(WIDTH, dtype=np.float32)
    given = {
        "the batch": ([eye, weight], broken_at_entry(batch()), "0", BATCH),
        "params 1": ([eye, broken_at_entry(weight, jnp.inf)], batch(), "1", WIDTH),
    }
    for name, (weights, x, layer, rows) in given.items():
        verdict = signal.propagate([relu] * 2, weights, x, total).verdict
        assert (verdict.name, verdict.layer) == ("not finite", layer)
        count = f"1 of the {rows * WIDTH} entries of {name} are NaN or infinite"
        assert count in verdict.cure
    found = signal.propagate([lambda _, x: jnp.log(x)], [None], batch(), total)
    assert "log, sqrt" in found.verdict.cure
    assert "entries of" not in str(found)


def test_of_many_arrays_that_are_not_finite_some_are_named():
    bad = np.full((WIDTH, WIDTH), np.nan, np.float32)
    cure = signal.propagate([relu] * 5, [bad] * 5, batch(), total).verdict.cure
    assert all(f"entries of params {i}" in cure for i in range(3))
    assert "and some of 2 other arrays" in cure.replace(", some", ", and some")


def test_a_mask_may_be_infinite():
    found = only(lambda _, x: jax.nn.softmax(x), broken_at_entry(batch(), -jnp.inf))
    assert found.nonfinite == 0


def test_gradients_that_are_not_finite():
    two = [lambda _, x: x * 0, lambda _, x: jnp.sqrt(x)]
    found = signal.propagate(two, [None] * 2, batch(), total)
    assert (found.verdict.name, found.verdict.layer) == ("not finite", "0")
    assert "gradients" in found.verdict.text


def test_a_model_without_parameters():
    class Plain(linen.Module):
        @linen.compact
        def __call__(self, x):
            return jnp.tanh(x)

    found = signal.propagate(Plain(), initial(Plain(), batch()), batch(), probe)
    [layer] = found.layers
    assert layer.name == "Plain"
    assert math.isnan(layer.parameter_gradient_std)
    assert found.verdict.name == "healthy"


@pytest.mark.exhaustive
def test_integers_and_other_dtypes():
    class Lookup(linen.Module):
        @linen.compact
        def __call__(self, ids):
            return linen.Dense(WIDTH, dtype=jnp.bfloat16)(linen.Embed(10, WIDTH)(ids))

    ids = np.zeros((16, 4), np.int32)
    found = signal.propagate(Lookup(), initial(Lookup(), ids), ids, probe)
    assert [layer.name for layer in found.layers] == ["Embed_0", "Dense_0"]
    assert found.layers[1].shape == (16, 4, WIDTH)


@pytest.mark.exhaustive
def test_one_sample_and_complex_numbers():
    single = only(lambda _, x: x * 2, np.arange(256, dtype=np.float32))
    assert single.shape == (256,)
    assert single.rank == 0
    waves = only(lambda _, x: jnp.exp(1j * x), batch(WIDTH // 2))
    assert waves.shape == (BATCH, WIDTH // 2)


def linen_of_width(width):
    model = Net()
    variables = initial(model, batch())
    return signal.propagate(model, variables, batch(width))


def on_two_devices():
    first, second = jax.devices()[:2]
    weights = jax.device_put(drawn(jaxinit.normal(), 1), first)
    return signal.propagate([linear], weights, jax.device_put(batch(), second))


WRONG = {
    "batch of another width": (
        lambda: linen_of_width(7),
        signal.LayerError,
        ["'Dense_0' (Dense)", "float32[64, 7]", "shape and dtype of x"],
    ),
    "another width, list": (
        lambda: signal.propagate([linear] * 2, drawn(jaxinit.zeros, 2), batch(9)),
        signal.LayerError,
        ["layer '0'", "float32[64, 9]"],
    ),
    "no rows": (
        lambda: signal.propagate([relu], drawn(jaxinit.zeros, 1), batch()[:0]),
        ValueError,
        ["batch is empty", f"[0, {WIDTH}]", "at least one sample"],
    ),
    "no units": (
        lambda: signal.propagate([relu], drawn(jaxinit.zeros, 1), batch()[:, :0]),
        ValueError,
        ["batch is empty", f"[{BATCH}, 0]"],
    ),
    "one of two without rows": (
        lambda: signal.propagate(Net(), {}, (batch(), batch()[:0])),
        ValueError,
        ["batch is empty", f"[{BATCH}, {WIDTH}], [0, {WIDTH}]"],
    ),
    "no array": (
        lambda: signal.propagate([relu], [None], ()),
        ValueError,
        ["no array"],
    ),
    "no layer to see": (
        lambda: signal.propagate([lambda _, x: jnp.sum(x)], [None], batch()),
        ValueError,
        ["no layer returns", "one axis or more"],
    ),
    "two devices": (on_two_devices, ValueError, ["cpu:1", "jax.device_put"]),
    "model": (
        lambda: signal.propagate(3, None, batch()),
        TypeError,
        ["model", "Flax Linen or NNX", "got 3"],
    ),
    "no layers": (lambda: signal.propagate([], [], batch()), TypeError, ["model"]),
    "params": (
        lambda: signal.propagate([linear] * 2, drawn(jaxinit.zeros, 1), batch()),
        ValueError,
        ["params", "2 layers", "got 1"],
    ),
    "Linen params": (
        lambda: signal.propagate(Net(), None, batch()),
        TypeError,
        ["params", "init returns", "NoneType"],
    ),
    "two inputs of a list": (
        lambda: signal.propagate([linear], drawn(jaxinit.zeros, 1), (batch(), batch())),
        ValueError,
        ["x must be one array", "got 2"],
    ),
    "options of a list": (
        lambda: signal.propagate([linear], [None], batch(), train=True),
        TypeError,
        ["no options", "train"],
    ),
    "loss": (
        lambda: only(linear, batch(), drawn(jaxinit.zeros, 1)[0], lambda y: y),
        TypeError,
        ["loss", "one real number", f"[{BATCH}, {WIDTH}]"],
    ),
    "integer output": (
        lambda: only(lambda _, x: x.astype(int), batch(), loss=None),
        TypeError,
        ["no floating-point array"],
    ),
    "predict widths": (
        lambda: signal.predict(jnp.tanh, jaxinit.he_normal(), [3]),
        ValueError,
        ["widths", "at least two", "[3]"],
    ),
    "predict mean": (
        lambda: signal.predict(jnp.tanh, jaxinit.constant(0.1), [3, 3]),
        ValueError,
        ["kernel_init", "mean 0.1", "mean zero"],
    ),
    "predict initializer": (
        lambda: signal.predict(jnp.tanh, jax.nn.initializers.zeros, [3, 3]),
        TypeError,
        ["kernel_init", "initializer of jaxinit"],
    ),
    "predict function": (
        lambda: signal.predict("relu", jaxinit.zeros, [3, 3]),
        TypeError,
        ["fn", "'relu'"],
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_message(name):
    fails, kind, parts = WRONG[name]
    with pytest.raises(kind) as caught:
        fails()
    message = str(caught.value)
    assert [part for part in parts if part not in message] == [], message


def test_the_table():
    weights = drawn(jaxinit.glorot_normal(), 10)
    found = signal.propagate([relu] * 10, weights, batch(), probe)
    text, html = str(found), found._repr_html_()
    head, *rows, verdict = text.splitlines()
    assert head.split()[:5] == ["layer", "kind", "shape", "mean", "std"]
    assert [row.split()[0] for row in rows] == [str(i) for i in range(10)]
    assert verdict.startswith("verdict: vanishing from ")
    assert html.count("<tr") == 1 + 10
    assert "<td" in html
    assert verdict.split(":")[1].strip() in html


@pytest.mark.parametrize(
    ("raised", "blames"),
    [("contracting dimensions must have one sharding", False), ("shapes (3,)", True)],
)
def test_errors_of_shardings_do_not_blame_the_input(raised, blames):
    def call(x):
        raise TypeError(raised)

    with pytest.raises(signal.LayerError) as caught:
        Recorder((), None).layer(["dense"], "Dense", call, (jnp.ones((2, 3)),))
    assert raised in str(caught.value)
    assert ("Check the shape" in str(caught.value)) == blames


@pytest.mark.parametrize("learns", [False, True])
def test_zeros_behind_constant_weights_are_alike_unless_others_learn(learns):
    """As around a residual branch that starts at zero."""
    zeros = {"low": 0.0, "high": 0.0, "identical": True}
    constant = {"size": 4, "shape": (2, 2), "flat": True, "is_weight": True}
    constant |= dict.fromkeys(("mean", "std", "own_mean", "own_std", "low"), 0.0)
    found = measure._with_parameters(zeros, [constant], math.nan, learns)
    assert found["identical"] != learns
    drawn = measure._with_parameters(
        zeros, [constant | {"flat": False}], math.nan, learns
    )
    assert not drawn["identical"]


def test_gradients_are_pooled_with_the_spread_of_their_means():
    parts = [{"size": 1, "mean": 0.0, "std": 0.0}, {"size": 3, "mean": 4.0, "std": 0.0}]
    assert measure._pooled(parts) == pytest.approx((3.0, math.sqrt(3)))


@pytest.mark.parametrize("end", [0, -1])
def test_borders_are_both_ends(end):
    x = jnp.zeros((1, 4, 1)).at[0, end].set(1.0)
    assert float(measure._border_size(x)) == pytest.approx(math.sqrt(2))
