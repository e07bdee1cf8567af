"""Initialization by data: what is promised of the layers, in models of every kind."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx
from probes import keys
from references import assert_refuses, assert_same_bits
from sampling import sampled

import jaxinit
from jaxinit._signal import normalize
from jaxinit.data_dependent import lsuv, metainit, weight_norm

pytestmark = pytest.mark.unoptimized

DEPTH, WIDTH, BATCH = 20, 16, 100
FEW = 3  # layers, of models of Flax


def first(weight, x):
    return x @ weight


def later(weight, x):
    return jax.nn.relu(x) @ weight


def affine(layer, x):
    return x @ layer["kernel"] + layer["bias"]


@functools.cache
def _drawn(init, depth, shape):
    return [init(key, shape) for key in keys(depth)]


def drawn(init, depth, shape=(WIDTH, WIDTH)):
    return list(_drawn(init, depth, shape))


@functools.cache
def batch(*shape):
    x = np.random.default_rng(0).normal(0.5, 2.0, shape or (BATCH, WIDTH))
    return np.float32(x)


def forward(layers, params, x):
    """The output of every layer, one after the other."""
    outputs = []
    for layer, own in zip(layers, jax.device_get(params), strict=True):
        x = layer(own, x)
        outputs.append(np.asarray(x, np.float64))
    return outputs


# LSUV


class Deep(linen.Module):
    depth: int

    @linen.compact
    def __call__(self, x):
        x = linen.Dense(WIDTH, kernel_init=jaxinit.glorot_normal())(x)
        for _ in range(self.depth - 1):
            x = linen.relu(x)
            x = linen.Dense(WIDTH, kernel_init=jaxinit.glorot_normal())(x)
        return x


def kernel_of_zeros(key, shape, dtype):
    """To be set later; compiles nothing."""
    return np.zeros(shape, dtype)


RNGS = nnx.Rngs(0)


class DeepNNX(nnx.Module):
    def __init__(self, weights):
        self.layers = nnx.List()
        for weight in weights:
            layer = nnx.Linear(WIDTH, WIDTH, kernel_init=kernel_of_zeros, rngs=RNGS)
            layer.kernel.set_value(weight)
            self.layers.append(layer)

    def __call__(self, x):
        for i, layer in enumerate(self.layers):
            x = layer(jax.nn.relu(x) if i else x)
        return x


@functools.cache
def corrected(kind, depth=DEPTH):
    """The kernels of a deep network before and after LSUV, and the log."""
    weights = drawn(jaxinit.glorot_normal(), DEPTH)[:depth]
    if kind == "list":
        new, log = lsuv([first] + [later] * (depth - 1), weights, batch())
        return weights, new, log
    if kind == "linen":
        names = [f"Dense_{i}" for i in range(depth)]
        bias = np.zeros(WIDTH, np.float32)
        layers = {
            n: {"kernel": w, "bias": bias} for n, w in zip(names, weights, strict=True)
        }
        new, log = lsuv(Deep(depth).apply, {"params": layers}, batch())
        assert set(new) == {"params"}
        return weights, [new["params"][name]["kernel"] for name in names], log
    model = DeepNNX(weights)
    new, log = lsuv(model, None, batch())
    nnx.update(model, new)
    return weights, [layer.kernel.get_value() for layer in model.layers], log


@pytest.mark.sample(1)
@pytest.mark.parametrize(
    ("kind", "depth"),
    [
        ("list", FEW),
        pytest.param("list", DEPTH, marks=pytest.mark.exhaustive),
        ("nnx", FEW),  # Linen's are normalised below
        pytest.param("linen", DEPTH, marks=pytest.mark.exhaustive),
        pytest.param("nnx", DEPTH, marks=pytest.mark.exhaustive),
    ],
)
def test_every_layer_has_variance_one(kind, depth):
    before, after, log = corrected(kind, depth)
    layers = [first] + [later] * (depth - 1)
    old, new = (
        [x.var() for x in forward(layers, params, batch())]
        for params in (before, after)
    )
    assert old[-1] < 1e-3 if depth == DEPTH else max(old) > 1.5  # what is mended
    assert np.abs(np.array(new) - 1).max() < 0.1
    np.testing.assert_allclose(log.before.variance, old, rtol=1e-4)
    np.testing.assert_allclose(log.after.variance, new, rtol=1e-4)
    assert np.asarray(log.after.is_right).all()
    assert len(log.layers) == depth
    assert log.unseen == ()
    assert log.passes == 3  # one measures, one corrects, one finds nothing left
    for a, b in zip(before, after, strict=True):
        ratio = np.asarray(b) / np.asarray(a)
        np.testing.assert_allclose(ratio, ratio[0, 0], rtol=1e-6)
        assert ratio[0, 0] > 0


def test_what_is_right_stays_bit_for_bit():
    _, weights, _ = corrected("list", FEW)
    again, log = lsuv([first] + [later] * (FEW - 1), weights, batch())
    assert_same_bits(again, weights)
    assert log.passes == 1


TWO = [affine, affine]


def two(bias=0.0, dtype=jnp.float32):
    """The parameters of two affine layers."""
    kernels = drawn(jaxinit.normal(0.05, dtype=dtype), 2)
    biases = drawn(jaxinit.normal(bias, dtype=dtype), 2, (WIDTH,))
    pairs = zip(kernels, biases, strict=True)
    return [{"kernel": kernel, "bias": b} for kernel, b in pairs]


@pytest.mark.exhaustive
def test_biases_stay_and_are_reckoned_with():
    params = two(bias=0.7)
    new, log = lsuv(TWO, params, batch())
    outputs = forward(TWO, new, batch())
    assert [abs(x.var() - 1) < 0.1 for x in outputs] == [True, True]
    assert log.passes > 3
    assert_same_bits([x["bias"] for x in new], [x["bias"] for x in params])


def test_the_same_under_jit():
    run, params = functools.partial(lsuv, [affine], batch=batch()), two()[:1]
    under_jit, _ = jax.jit(lambda params: run(params))(params)
    assert_same_bits(under_jit, run(params)[0])


@pytest.mark.exhaustive
def test_the_same_for_each_of_many():
    run, params = functools.partial(lsuv, [affine], batch=batch()), two()[:1]
    many = jax.tree.map(lambda *x: np.stack(x), params, two(0.5)[:1])
    new, log = jax.vmap(lambda params: run(params))(many)
    alone, _ = run(params)
    one = jax.tree.map(lambda x: np.asarray(x)[0], new)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 1e-5), one, alone)
    assert np.asarray(log.after.is_right).all()


def test_a_second_model_of_equal_shapes_compiles_nothing():
    traces = []

    def counted(weight, x):
        traces.append(weight)
        return x @ weight

    (weight,) = drawn(jaxinit.normal(), 1)
    for other in (weight, np.float32(3) * np.asarray(weight)):
        lsuv([counted], [other], batch())
        count = len(traces)
    assert count == len(traces) > 0
    with pytest.raises(ValueError, match="layer '0'"):
        lsuv([counted], [np.asarray(weight)[:3]], batch())
    assert len(traces) > count  # the counter counts


def test_only_what_is_chosen_changes():
    params = two()
    new, log = lsuv(TWO, params, batch(), where="1/**")
    assert_same_bits(new[0], params[0])
    assert log.layers == ("1",)
    outputs = forward(TWO, new, batch())
    assert abs(outputs[1].var() - 1) < 0.1 < abs(outputs[0].var() - 1)


def test_what_cannot_be_reached_is_said():
    def bounded(weight, x):
        return jnp.tanh(x @ weight)

    weights = [*drawn(jaxinit.normal(0.1), 1), np.zeros((WIDTH, WIDTH), np.float32)]
    new, log = lsuv([bounded, first], weights, batch(), tries=4)
    assert log.passes == 6
    assert log.after.is_right.tolist() == [False, False]
    assert_same_bits(new[1], weights[1])
    variance = np.tanh(batch() @ np.asarray(new[0])).var()
    np.testing.assert_allclose(log.after.variance[0], variance, rtol=1e-4)
    assert "not reached" in str(log)


@pytest.mark.exhaustive
def test_narrow_dtypes_and_huge_weights():
    new, log = lsuv(TWO, two(dtype=jnp.bfloat16), batch().astype(jnp.bfloat16))
    assert {x.dtype for x in jax.tree.leaves(new)} == {jnp.dtype(jnp.bfloat16)}
    assert np.asarray(log.after.is_right).all()
    huge = jax.tree.map(lambda x: np.float32(1e25) * np.asarray(x), two())
    _, log = lsuv(TWO, huge, batch())
    assert np.isinf(log.before.variance[0])
    assert np.asarray(log.after.is_right).all()


# weight normalization


class Normed(linen.Module):
    """Convolutions, one of a normalised kernel, units of two axes, a cell in a loop."""

    @linen.compact
    def __call__(self, x):
        x = linen.relu(linen.Conv(4, (3, 3))(x))
        x = linen.WeightNorm(linen.Conv(6, (3, 3)))(x)
        x = x.reshape(len(x), -1, 6)
        x = linen.relu(linen.DenseGeneral((2, 3))(x))
        x = linen.DenseGeneral(6, axis=(-2, -1))(x)
        x = linen.RNN(linen.GRUCell(3))(x)
        return linen.Dense(2, use_bias=False)(x)


def units(x, axes=1):
    """Means and variances of the units that the last axes number."""
    x = np.asarray(x)
    over = tuple(range(x.ndim - axes))
    return x.mean(over), x.var(over)


@functools.cache
def normed():
    model, x = Normed(), batch(16, 3, 3, 3)
    shapes = jax.eval_shape(model.init, jax.random.key(0), x)
    random = np.random.default_rng(1)
    variables = jax.tree.map(
        lambda leaf: jnp.asarray(random.normal(size=leaf.shape), leaf.dtype), shapes
    )
    new, log = weight_norm(model, variables, x)
    kept = jax.jit(lambda v: model.apply(v, x, capture_intermediates=True)[1])(new)
    return variables["params"], new["params"], kept["intermediates"], log


def test_weight_norm_gives_every_unit_of_every_layer_mean_zero_and_variance_one():
    _, _, kept, log = normed()
    outputs = [kept["Conv_0"], kept["WeightNorm_0"], kept["DenseGeneral_1"]]
    found = [units(x["__call__"][0]) for x in outputs]
    found.append(units(kept["DenseGeneral_0"]["__call__"][0], 2))
    for mean, variance in found:
        assert np.abs(mean).max() < 1e-4
        assert np.abs(variance - 1).max() < 1e-3
    mean, variance = units(kept["Dense_0"]["__call__"][0])
    assert np.abs(variance - 1).max() < 1e-3
    assert np.abs(mean).max() > 0.01  # it has no bias
    assert np.asarray(log.after.is_right).all()
    assert [path.split("/")[0] for path in log.unseen] == ["GRUCell_0"] * 6
    assert not np.allclose(log.before.variance, 1, atol=0.1)


def test_weight_norm_changes_the_gain_where_there_is_one():
    old, new, _, _ = normed()
    assert_same_bits(new["Conv_1"]["kernel"], old["Conv_1"]["kernel"])
    gain = "Conv_1/kernel/scale"
    a, b = old["WeightNorm_0"][gain], new["WeightNorm_0"][gain]
    assert not np.allclose(a, b, atol=0.1)
    assert_same_bits(new["GRUCell_0"], old["GRUCell_0"])


@pytest.mark.exhaustive
def test_weight_norm_of_a_list_with_gains():
    def layer(p, x):
        return x @ (p["g"] * p["v"] / jnp.linalg.norm(p["v"], axis=0)) + p["b"]

    v = drawn(jaxinit.normal(0.05), 1)[0]
    params = [{"v": v, "g": jnp.ones(WIDTH), "b": jnp.ones(WIDTH)}]
    (new,), _ = weight_norm([layer], params, batch())
    assert_same_bits(new["v"], v)
    v = np.asarray(v)
    t = batch() @ v / np.linalg.norm(v, axis=0)  # as in the paper
    np.testing.assert_allclose(new["g"], 1 / t.std(0), rtol=1e-5)
    np.testing.assert_allclose(new["b"], -t.mean(0) / t.std(0), rtol=1e-4, atol=1e-5)


# MetaInit

HIDDEN = 32
QUICK = jax.random.key(3, impl="unsafe_rbg")  # to compile
PLAIN = [lambda w, x: jax.nn.relu(x @ w)] * 2 + [first]


@pytest.mark.exhaustive
def test_metainit_brings_the_gradient_quotient_of_a_bad_start_below_one():
    init = jaxinit.variance_scaling(8.0, "fan_in", "normal")  # He's would have 2
    before = [*drawn(init, 2, (HIDDEN, HIDDEN)), *drawn(init, 1, (HIDDEN, 4))]
    after, log = metainit(PLAIN, before, batch(BATCH, HIDDEN), key=QUICK)
    assert log.quotients.shape == (501,)
    assert log.quotients[0] > 10
    assert np.median(log.quotients[-20:]) < 1
    assert np.isfinite(np.asarray(log.quotients)).all()
    for a, b, norm in zip(before, after, log.after, strict=True):
        np.testing.assert_allclose(np.linalg.norm(b), norm, rtol=1e-5)
        ratio = np.asarray(b) / np.asarray(a)
        np.testing.assert_allclose(ratio, ratio[0, 0], rtol=1e-5)
    assert "gradient quotient" in str(log)


def square(y):
    """A loss, of slope 2 y and Hessian 2; the default compiles for long."""
    return jnp.sum(y**2)


NARROW = (WIDTH, 3)


def narrow():
    return drawn(jaxinit.normal(), 1, NARROW)


def linen_kernel(run, weight):
    dense = linen.Dense(3, use_bias=False)
    new, _ = run(dense, {"params": {"kernel": weight}})
    return new["params"]["kernel"]


def nnx_kernel(run, weight):
    linear = nnx.Linear(*NARROW, use_bias=False, kernel_init=kernel_of_zeros, rngs=RNGS)
    linear.kernel.set_value(weight)
    new, _ = run(linear, None)
    return new["kernel"].get_value()


@pytest.mark.exhaustive
@pytest.mark.parametrize("kernel_of", sampled([linen_kernel, nnx_kernel], [nnx_kernel]))
def test_metainit_does_the_same_to_modules(kernel_of):
    (weight,) = narrow()
    run = functools.partial(metainit, batch=batch(), loss=square, steps=2)
    (expected,), _ = run([first], [weight])
    np.testing.assert_allclose(kernel_of(run, weight), expected, rtol=1e-5)
    assert not np.allclose(expected, weight, rtol=1e-2)


def test_metainit_by_hand():
    weight, x = jnp.asarray([[3.0, 4.0]]), jnp.ones((1, 1))

    (new,), log = metainit([first], [weight], x, square, where="*", steps=1)
    np.testing.assert_allclose(log.quotients[0], 2, rtol=1e-4)  # (g - 2 g) / g - 1
    assert abs(np.linalg.norm(new) - 5) == pytest.approx(0.1, rel=1e-4)
    assert log.before == 5
    (nothing,), log = metainit([first], [0 * weight], x, square, where="0", steps=1)
    assert_same_bits(nothing, 0 * weight)
    assert log.weights == ("0",)


def test_metainit_by_hand_beyond_zero():
    """Of a norm whose slope is positive: 5 - 7, and on, with half of that, by 10.5."""
    weight, x = jnp.asarray([[3.0, 4.0]]), jnp.ones((1, 1))
    settings = {"learning_rate": 7.0, "momentum": 0.5, "epsilon": 0.1}

    (new,), log = metainit([first], [weight], x, square, steps=2, **settings)
    np.testing.assert_allclose(new, 1.7 * weight, rtol=1e-5)
    np.testing.assert_allclose(log.after, [8.5], rtol=1e-5)


def test_the_gradient_quotient_where_the_gradient_is_zero():
    """Gradient (1, 0), Hessian times it (0, 1); the sign of zero is one."""
    weight, x = jnp.asarray([[0.0, 1.0]]), jnp.ones((1, 1))
    _, log = metainit([first], [weight], x, jnp.prod, steps=1, epsilon=0.1)
    expected = (abs(1 / 1.1 - 1) + abs(-1 / 0.1 - 1)) / 2
    np.testing.assert_allclose(log.quotients[0], expected, rtol=1e-5)


def difference(weight, inputs):
    return (inputs[0] - inputs[1]) @ weight


@pytest.mark.parametrize("steps", sampled([1, 2], [2]))
def test_metainit_draws_every_input_of_every_step_anew(steps):
    weights, inputs = drawn(jaxinit.normal(), 1), [batch(), batch()]
    run = functools.partial(metainit, [difference], weights, inputs, square, key=QUICK)
    # Steps that change next to nothing, so that what is drawn makes the difference.
    found = np.asarray(run(steps=steps, learning_rate=1e-6)[1].quotients)
    assert np.ptp(found) > 1e-3
    assert abs(found[0] - 1) > 1e-3  # that of a gradient of zero
    if steps > 1:
        fewer = run(steps=steps - 1, learning_rate=1e-6)[1].quotients
        np.testing.assert_allclose(fewer, found[:-1], rtol=1e-5)


def test_logs_are_tables_in_notebooks():
    *_, normalized = corrected("list", FEW)
    _, descent = metainit([first], narrow(), batch(), square, steps=2)
    tables = ((normalized, FEW, "3 passes"), (descent, 1, "gradient quotient"))
    for log, rows, text in tables:
        html = log._repr_html_()
        assert html.count("<tr") == 1 + rows
        assert text in html
        assert text in str(log)


# batches that say nothing


SAMPLES = {
    "zeros": (lambda x: 0 * x, True),
    "equal rows": (lambda x: 0 * x + x[0] / 3, True),
    "ordinary": (lambda x: x, False),
}


@pytest.mark.parametrize("name", SAMPLES)
def test_units_that_are_constant_on_the_batch_stay_and_are_told(name):
    change, constant = SAMPLES[name]
    params, x = two(), change(batch())  # the mean of 100 numbers is rounded
    new, log = weight_norm(TWO, params, x)
    assert log.after.constant.tolist() == [constant] * 2
    assert str(log).count("constant on the batch") == 2 * constant
    assert log.after.is_right.tolist() == [not constant] * 2
    if constant:
        assert_same_bits([p["kernel"] for p in new], [p["kernel"] for p in params])
        assert not any(p["bias"].any() for p in new)


@pytest.mark.parametrize(
    ("dtype", "expected"), [("bfloat16", True), ("float32", False)]
)
def test_what_differs_by_rounding_to_its_dtype_is_constant(dtype, expected):
    x = jnp.asarray([1, 1 + 2**-7, 1], np.float32)
    is_constant = normalize._is_constant(x, (0,), jnp.finfo(dtype).eps)
    assert bool(is_constant) == expected


def test_one_correction_after_another():
    """As of the pass that corrects what the one before it has left."""
    one, two = (
        normalize._Correction(np.float32(scale), np.float32(shift))
        for scale, shift in ((2.0, 3.0), (-0.5, 7.0))
    )
    x = np.float32([1.0, -4.0])
    after = normalize._corrected(normalize._corrected(x, one), two)
    both = normalize._corrected(x, normalize._composed(one, two))
    assert np.asarray(both).tolist() == np.asarray(after).tolist() == [4.5, 9.5]


def test_some_units_are_constant():
    params, x = jax.device_get((two(), batch()))
    kernel = params[0]["kernel"] = params[0]["kernel"].copy()
    kernel[:, 3:7] = 0
    (new, _), log = weight_norm(TWO, params, x)
    assert str(log).count("0.25 of the units are constant on the batch") == 1
    new = jax.device_get(new)
    assert_same_bits(new["kernel"][:, 3:7], kernel[:, 3:7])
    np.testing.assert_allclose(units(affine(new, x))[1][7:], 1, rtol=1e-4)
    many, _ = lsuv([affine], [jax.tree.map(jnp.zeros_like, params[0])], batch())
    assert not np.any(many[0]["kernel"])


@pytest.mark.exhaustive
def test_metainit_says_where_nothing_is_learned():
    weights = drawn(jaxinit.normal(), 1)
    new, log = metainit([first], weights, 0 * batch(), steps=1)
    assert_same_bits(new, weights)
    assert "no norm changed" in str(log)
    _, log = metainit([first], weights, batch(), steps=1)
    assert "no norm changed" not in str(log)
    roots = [lambda w, x: jnp.sqrt(x @ w)]
    _, log = metainit(roots, weights, batch(), square, steps=1)
    assert "not finite from step 0 on" in str(log)


def masked(weight, inputs):
    x, mask = inputs
    return jnp.where(jnp.isfinite(mask), x, 0) @ weight


def test_infinite_numbers_that_do_no_harm_are_taken():
    mask = batch().copy()
    mask[0, 0] = -np.inf
    (_,), log = lsuv([masked], drawn(jaxinit.normal(), 1), [batch(), mask])
    assert np.asarray(log.after.is_right).all()


# bad input


def broken(x, value=np.nan):
    x = np.array(x)
    x[0, :3] = value
    return x


# What the tests above compile, and what is said of the last of the parameters.
ALL = {
    "lsuv": (lsuv, TWO, two, "256 entries of params 1/kernel"),
    "weight_norm": (weight_norm, TWO, two, "256 entries of params 1/kernel"),
    "metainit": (
        functools.partial(metainit, loss=square, steps=2),
        *([first], narrow, "48 entries of params 0"),
    ),
}


def given(name, of_params=np.asarray, of_batch=np.asarray):
    """A call with some of its input not finite, or missing."""
    function, layers, params, _ = ALL[name]

    def call():
        *others, last = jax.tree.leaves(params())
        leaves = [*others, of_params(last)]
        given = jax.tree.unflatten(jax.tree.structure(params()), leaves)
        return function(layers, given, of_batch(batch()))

    return call


def one(**settings):
    return lambda: lsuv([first], drawn(jaxinit.normal(), 1), batch(), **settings)


def learn(**settings):
    return lambda: metainit([first], drawn(jaxinit.normal(), 1), batch(), **settings)


REFUSED = {
    "model": (lambda: lsuv(3, None, batch()), ["model must be", "got 3"]),
    "tolerance": (one(tolerance=0), ["tolerance", "greater than zero", "0"]),
    "tries": (one(tries=0), ["tries", "at least 1", "0"]),
    **{
        f"{name}, NaN in the batch": (
            given(name, of_batch=broken),
            ["3 of the 1600 entries of the batch are NaN or infinite", "replace"],
        )
        for name in ALL
    },
    **{
        f"{name}, infinite parameters": (
            given(name, functools.partial(broken, value=np.inf)),
            [f"3 of the {last} are NaN or infinite"],
        )
        for name, (*_, last) in ALL.items()
    },
    **{
        f"{name}, no rows": (
            given(name, of_batch=lambda x: x[:0]),
            ["batch is empty", "[0, 16]", "at least one sample"],
        )
        for name in ALL
    },
    "option": (one(train=True), ["no options", "train"]),
    "no weights": (
        lambda: lsuv([lambda _, x: x + 1], [None], batch()),
        ["no layer whose weights", "scan"],
    ),
    "wrong shape": (
        lambda: lsuv([first], [np.ones((3, 3), np.float32)], batch()),
        ["layer '0' (first) fails", "[100, 16]"],
    ),
    "where": (one(where="**/kernel"), ["where='**/kernel'", "0"]),
    "units": (
        lambda: weight_norm(
            [lambda w, x: x @ w.T], [np.ones((3, WIDTH), np.float32)], batch()
        ),
        ["layer '0'", "(100, 3)", "(3, 16)", "last axes"],
    ),
    "no matrix": (
        lambda: metainit([lambda b, x: x + b], [np.ones(WIDTH, np.float32)], batch()),
        ["floating-point array of two or more axes"],
    ),
    "steps": (learn(steps=0), ["steps", "at least 1"]),
    "momentum": (learn(momentum=1.5), ["momentum", "between 0 and 1", "1.5"]),
    "rate": (learn(learning_rate=-1), ["learning_rate", "greater than zero", "-1"]),
    "loss": (learn(loss=lambda y: y), ["loss must return one real number"]),
    "outputs": (
        lambda: metainit(
            [lambda w, x: (x @ w, x)], drawn(jaxinit.normal(), 1), batch()
        ),
        ["one real array of logits", "give a loss"],
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name):
    assert_refuses(*REFUSED[name])
