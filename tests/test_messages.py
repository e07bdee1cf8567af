"""Bad input: every error names the argument, the value, what is allowed and the fix."""

import inspect
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

import jaxinit
from jaxinit.initializers._makers import is_maker

KEY = jax.random.key(0)
SHAPE = (4, 4)


def traced(build):
    return lambda: jax.jit(lambda x: build(x)(KEY, SHAPE))(0.5)


def scaling(scale=1.0, mode="fan_in", distribution="normal", **axes):
    return jaxinit.variance_scaling(scale, mode, distribution, **axes)


CASES = {
    # settings, at construction
    "mode": (lambda: scaling(mode="fan_inn"), ["mode", "'fan_inn'", "'fan_geo_avg'"]),
    "distribution": (
        lambda: scaling(distribution="gauss"),
        ["distribution", "'gauss'", "'truncated_normal', 'normal', 'uniform'"],
    ),
    "scale negative": (lambda: scaling(-1.0), ["scale", "zero or greater", "-1.0"]),
    "scale NaN": (lambda: scaling(math.nan), ["scale", "real number", "nan"]),
    "scale infinite": (lambda: scaling(math.inf), ["scale", "finite", "inf"]),
    "scale text": (lambda: scaling("2"), ["scale", "real number", "'2'"]),
    "scale array": (lambda: scaling(np.ones(2)), ["scale", "real number"]),
    "stddev negative": (lambda: jaxinit.normal(-0.1), ["stddev", "-0.1"]),
    "stddev NaN": (lambda: jaxinit.truncated_normal(math.nan), ["stddev", "nan"]),
    "mean infinite": (lambda: jaxinit.normal(mean=math.inf), ["mean", "finite", "inf"]),
    "uniform negative": (lambda: jaxinit.uniform(-1), ["scale", "zero or greater"]),
    "orthogonal scale": (lambda: jaxinit.orthogonal(-1), ["scale", "zero or greater"]),
    "truncation": (
        lambda: jaxinit.truncated_normal(lower=2, upper=2),
        ["lower must be less than upper", "2.0 and 2.0"],
    ),
    "bounds": (
        lambda: jaxinit.uniform(low=1, high=-1),
        ["low must be less than high", "1.0 and -1.0"],
    ),
    "one bound": (lambda: jaxinit.uniform(low=-1), ["low and high go together"]),
    "scale and bounds": (
        lambda: jaxinit.uniform(3.0, low=-1, high=1),
        ["scale=3.0", "not both"],
    ),
    "flag": (lambda: jaxinit.truncated_normal(corrected=1), ["corrected", "True"]),
    "axis kind": (lambda: scaling(in_axis="x"), ["in_axis", "sequence of ints", "'x'"]),
    "axis float": (lambda: jaxinit.orthogonal(column_axis=1.5), ["column_axis", "int"]),
    "axes equal": (lambda: scaling(in_axis=-1), ["axis -1", "in_axis", "out_axis"]),
    "axis twice": (lambda: scaling(in_axis=(0, 0), out_axis=1), ["axis 0", "in_axis"]),
    "batch is column": (
        lambda: jaxinit.orthogonal(batch_axis=-1),
        ["axis -1", "column_axis", "batch_axis"],
    ),
    "delta column": (
        lambda: jaxinit.delta_orthogonal(column_axis=2),
        ["column_axis", "-2, -1, 0, 1", "2"],
    ),
    "dtype": (lambda: jaxinit.normal(dtype="float33"), ["dtype", "'float33'"]),
    "constant text": (lambda: jaxinit.constant("a"), ["value", "number", "'a'"]),
    "tracer scale": (traced(scaling), ["scale", "concrete", "close over", "multiply"]),
    "tracer stddev": (traced(jaxinit.normal), ["stddev", "tracer", "multiply"]),
    "tracer value": (traced(jaxinit.constant), ["value", "tracer", "multiply"]),
    "tracer axis": (
        traced(lambda x: scaling(in_axis=x.astype(int))),
        ["in_axis", "tracer"],
    ),
    # shapes, at the call
    "one dimension": (
        lambda: scaling()(KEY, (5,)),
        ["in_axis=-2", "(5,)", "at least two axes", "in_axis=0, out_axis=()", "zeros"],
    ),
    "axis range": (lambda: scaling(out_axis=2)(KEY, SHAPE), ["out_axis=2", "(4, 4)"]),
    "axes overlap": (
        lambda: scaling(in_axis=0, out_axis=-2)(KEY, SHAPE),
        ["axis 0 of shape (4, 4)", "in_axis", "out_axis"],
    ),
    "batch overlap": (
        lambda: jaxinit.he_normal(batch_axis=0)(KEY, SHAPE),
        ["axis 0", "in_axis", "batch_axis"],
    ),
    "orthogonal vector": (
        lambda: jaxinit.orthogonal()(KEY, (5,)),
        ["(5,)", "at least two axes", "normal or zeros"],
    ),
    "orthogonal batch": (
        lambda: jaxinit.orthogonal(batch_axis=0)(KEY, SHAPE),
        ["(4, 4)", "batch_axis=0"],
    ),
    "tap rank": (
        lambda: jaxinit.delta_orthogonal()(KEY, (5,)),
        ["(*window, inputs, outputs)", "two axes", "(5,)"],
    ),
    "mirrored odd": (
        lambda: jaxinit.mirrored(jaxinit.ones)(KEY, (4, 5)),
        ["axis -1", "(4, 5)", "even"],
    ),
    "no spread": (
        lambda: jaxinit.unit_scaled(jaxinit.ones)(KEY, SHAPE),
        ["init=ones", "(4, 4)", "no standard deviation"],
    ),
    "exact shape": (
        lambda: jaxinit.constant([1.0, 2.0], broadcast=False)(KEY, (3, 2)),
        ["(2,)", "(3, 2)", "broadcast=False"],
    ),
    "sections and initializers": (
        lambda: jaxinit.split([jaxinit.zeros, jaxinit.ones], 3),
        ["2 initializers", "3 sections"],
    ),
    "absolute and relative": (
        lambda: jaxinit.truncated_normal(low=-1, high=1, upper=3.0),
        ["low=-1.0", "lower and upper", "not both"],
    ),
    "absolute without spread": (
        lambda: jaxinit.truncated_normal(0.0, low=-1, high=1),
        ["stddev", "positive", "0.0"],
    ),
    "negative size": (lambda: jaxinit.normal()(KEY, (3, -1)), ["negative", "(3, -1)"]),
    "shape int": (lambda: jaxinit.normal()(KEY, 3), ["sequence of ints", "3"]),
    "shape float": (lambda: jaxinit.normal()(KEY, (3.0,)), ["sequence of ints"]),
    "broadcast": (
        lambda: jaxinit.constant([1, 2, 3])(KEY, SHAPE),
        ["(3,)", "(4, 4)", "broadcast"],
    ),
    "constant is larger": (
        lambda: jaxinit.constant([1, 2, 3])(KEY, ()),
        ["(3,)", "()", "broadcast"],
    ),
    "stacked axis": (
        lambda: jaxinit.stacked(jaxinit.zeros, 9)(KEY, SHAPE),
        ["axis=9", "(4, 4)", "which has 2 axes."],
    ),
    # values that cannot be what was meant
    "byte": (
        lambda: jaxinit.constant(300)(KEY, SHAPE, jnp.int8),
        ["300", "int8 cannot hold", "another dtype"],
    ),
    "negative unsigned": (
        lambda: jaxinit.constant([1, -1])(KEY, (2,), jnp.uint8),
        ["-1", "uint8 cannot hold"],
    ),
    "fraction": (
        lambda: jaxinit.constant(1.5)(KEY, SHAPE, jnp.int32),
        ["1.5", "int32 cannot hold"],
    ),
    "no number": (
        lambda: jaxinit.constant(math.nan)(KEY, SHAPE, jnp.int32),
        ["nan", "int32 cannot hold"],
    ),
    "two as a boolean": (
        lambda: jaxinit.constant(2)(KEY, SHAPE, bool),
        ["2", "bool cannot hold"],
    ),
    "overflow": (lambda: jaxinit.constant(1e40)(KEY, SHAPE), ["1e+40", "float32"]),
    "overflow in a part": (
        lambda: jaxinit.split([jaxinit.constant(1e40)], 1)(KEY, SHAPE),
        ["1e+40", "float32"],
    ),
    "overflow of 8 bits": (
        lambda: jaxinit.constant(480.0).moments(SHAPE, jnp.float8_e4m3fn),
        ["480.0", "float8_e4m3fn"],
    ),
    "infinity where there is none": (
        lambda: jaxinit.constant(math.inf)(KEY, SHAPE, jnp.float8_e4m3fn),
        ["inf", "float8_e4m3fn"],
    ),
    "imaginary": (lambda: jaxinit.constant(2j)(KEY, SHAPE), ["2j", "float32"]),
    "imaginary overflow": (
        lambda: jaxinit.constant(1e39j)(KEY, SHAPE, jnp.complex64),
        ["1e+39j", "complex64"],
    ),
    "more than 64 bits": (lambda: jaxinit.constant(2**63), ["value", "2**63 - 1"]),
    "ragged": (
        lambda: jaxinit.constant([[1], [1, 2]]),
        ["value", "number or an array"],
    ),
    "infinite draws": (
        lambda: jaxinit.normal(1e40)(KEY, SHAPE),
        ["normal(stddev=1e+40)", "not finite in float32", "3.4e+38", "wider dtype"],
    ),
    "infinite square": (
        lambda: jaxinit.normal(1e200).moments(SHAPE),
        ["normal(stddev=1e+200)", "not finite in float32"],
    ),
    "infinite width": (
        lambda: jaxinit.uniform(low=-3e38, high=3e38)(KEY, SHAPE),
        ["6e+38", "not finite in float32"],
    ),
    "infinite factor": (
        lambda: jaxinit.scaled(jaxinit.orthogonal(1e30), 1e30)(KEY, SHAPE),
        ["scaled(orthogonal(scale=1e+30), 1e+30)", "not finite in float32"],
    ),
    "infinite half": (
        lambda: jaxinit.mirrored(jaxinit.normal(1e39))(KEY, SHAPE),
        ["not finite in float32"],
    ),
    "infinite tap": (
        lambda: jaxinit.dirac(scale=1e39)(KEY, SHAPE),
        ["identity(scale=1e+39)", "not finite in float32"],
    ),
    "infinite slice": (
        lambda: jaxinit.stacked(lambda i: jaxinit.normal(1e30**i))(KEY, (3, 2)),
        ["+60)", "not finite in float32"],
    ),
    "log of nothing": (
        lambda: jaxinit.softplus_inverse(1e-300)(KEY, SHAPE),
        ["dt_min of softplus_inverse(dt_min=1e-300)", "zero in float32", "1.18e-38"],
    ),
    "too small to draw": (
        lambda: jaxinit.normal(1e-39)(KEY, SHAPE, jnp.bfloat16),
        ["normal(stddev=1e-39)", "all zero in float32", "1.18e-38", "greater"],
    ),
    "too small by its fan": (
        lambda: jaxinit.variance_scaling(1e-80, "fan_in", "normal").moments(SHAPE),
        ["variance_scaling(1e-80", "all zero in float32"],
    ),
    "too small a matrix": (
        lambda: jaxinit.orthogonal(1e-40)(KEY, SHAPE),
        ["orthogonal(scale=1e-40)", "all zero in float32"],
    ),
    "too small a setting": (
        lambda: jaxinit.log_uniform(1e-40, 1e-3)(KEY, SHAPE),
        ["low of log_uniform(1e-40, 0.001)", "zero in float32", "1.18e-38"],
    ),
    "exp of exp": (
        lambda: jaxinit.gain(lambda x: jnp.exp(jnp.exp(x))),
        ["fn=<lambda>", "mean square inf"],
    ),
    "log of all": (
        lambda: jaxinit.chrono(1e39)(KEY, SHAPE[:1]),
        ["not finite in float32", "inf"],
    ),
    "a rule": (
        lambda: jaxinit.plan(
            {"w": jax.ShapeDtypeStruct(SHAPE, "float32")}, {"w": jaxinit.normal(1e40)}
        ),
        ["w: normal(stddev=1e+40) cannot make it", "not finite in float32"],
    ),
    "equation": (lambda: jaxinit.einsum_axes(3), ["equation", "string", "3"]),
    "frequency": (lambda: jaxinit.siren_hidden(1e-200), ["scale", "finite", "inf"]),
    # dtypes
    "integer": (
        lambda: jaxinit.he_normal()(KEY, SHAPE, jnp.int32),
        ["int32", "he_normal()", "floating or complexfloating", ".astype"],
    ),
    "complex uniform": (
        lambda: jaxinit.uniform()(KEY, SHAPE, jnp.complex64),
        ["complex64", "must be floating"],
    ),
    "own dtype": (lambda: jaxinit.normal(dtype=bool)(KEY, SHAPE), ["bool", "floating"]),
    "moments dtype": (lambda: jaxinit.normal().moments(SHAPE, int), ["int32"]),
    # keys
    "key batch": (
        lambda: jaxinit.normal()(jax.random.split(KEY, 3), SHAPE),
        ["single key", "(3,)", "jax.vmap"],
    ),
    "raw key batch": (
        lambda: jaxinit.normal()(np.zeros((3, 2), np.uint32), SHAPE),
        ["single key", "(3,)", "jax.vmap"],
    ),
    "key dtype": (
        lambda: jaxinit.normal()(np.zeros(2, np.int32), SHAPE),
        ["key", "uint32", "(2,)", "dtype int32"],
    ),
    "key shape": (
        lambda: jaxinit.normal()(np.zeros(4, np.uint32), SHAPE),
        ["key", "(2,)", "shape (4,)"],
    ),
    "key seed": (lambda: jaxinit.normal()(0, SHAPE), ["jax.random.key(seed)", "int"]),
    "no key": (lambda: jaxinit.normal()(None, SHAPE), ["jax.random.key", "None"]),
    "a seed": (lambda: jaxinit.normal()(7, SHAPE), ["the seed 7", "jax.random.key(7)"]),
    "Haiku's call": (
        lambda: jaxinit.he_normal()(SHAPE, jnp.float32),
        [
            "the shape (4, 4) in place of a key",
            "lambda shape, dtype: init(hk.next_rng_key(), shape, dtype)",
            "init = jaxinit.he_normal()",
        ],
    ),
    "Haiku's call of a constant": (
        lambda: jaxinit.zeros((4,), jnp.float32),
        ["in place of a key", "init = jaxinit.zeros"],
    ),
    # makers in place of what they make
    "a shape to a class": (
        lambda: jaxinit.normal(SHAPE, jnp.float32),
        ["normal was called with (4, 4)", "normal()(key, shape, dtype)"],
    ),
    "a shape to a function": (
        lambda: jaxinit.he_normal(SHAPE),
        ["in_axis", "he_normal()(key, shape, dtype)"],
    ),
    "explained": (
        lambda: jaxinit.explain(jaxinit.he_normal, SHAPE),
        ["init must be", "parentheses", "he_normal()"],
    ),
    "explained, not at all": (lambda: jaxinit.explain(3, SHAPE), ["init must be", "3"]),
    "scaled": (lambda: jaxinit.scaled(jaxinit.normal, 2), ["parentheses", "normal()"]),
    "split": (
        lambda: jaxinit.split([jaxinit.zeros, jaxinit.sparse], 2),
        ["init[1]", "parentheses", "sparse(...)"],
    ),
    "stacked": (lambda: jaxinit.stacked(jaxinit.normal), ["parentheses", "normal()"]),
    "stacked by a function": (
        lambda: jaxinit.stacked(lambda i: jaxinit.he_normal)(KEY, SHAPE),
        ["fn_of_index(0)", "parentheses", "he_normal()"],
    ),
    # placement
    "spec without mesh": (
        lambda: jaxinit.normal()(KEY, SHAPE, None, PartitionSpec("x")),
        ["out_sharding", "jax.set_mesh", "PartitionSpec"],
    ),
    "no placement": (
        lambda: jaxinit.normal()(KEY, SHAPE, None, "x"),
        ["out_sharding", "NamedSharding", "'x'"],
    ),
    # the catalogue
    "slope": (
        lambda: jaxinit.he_normal(negative_slope=math.nan),
        ["negative_slope", "real number", "nan"],
    ),
    "matrix": (
        lambda: jaxinit.identity()(KEY, (2, 3, 4)),
        ["(rows, columns)", "(2, 3, 4)", "center_tap", "stacked"],
    ),
    "groups": (lambda: jaxinit.dirac(groups=0), ["groups", "at least 1", "0"]),
    "sparsity": (lambda: jaxinit.sparse(1.5), ["sparsity", "between 0 and 1", "1.5"]),
    "sparse axis": (lambda: jaxinit.sparse(0.5)(KEY, (5,)), ["axis=-2", "(5,)"]),
    "window": (lambda: jaxinit.bilinear()(KEY, SHAPE), ["(*window, inputs", "(4, 4)"]),
    "stft side": (lambda: jaxinit.stft("both"), ["side", "'both'", "'real', 'imag'"]),
    "stft shape": (
        lambda: jaxinit.stft()(KEY, (4, 2, 3)),
        ["(time, 1, frequencies)", "(4, 2, 3)"],
    ),
    "period": (lambda: jaxinit.sinusoidal(0.0), ["max_period", "greater than zero"]),
    "odd width": (lambda: jaxinit.sinusoidal()(KEY, (4, 3)), ["even width", "(4, 3)"]),
    "siren axes": (
        lambda: jaxinit.siren_first()(KEY, (3,)),
        ["in_axis=-2", "(3,)", "out of range"],
    ),
    "omega": (lambda: jaxinit.siren_hidden(0.0), ["omega", "greater than zero"]),
    "counts": (
        lambda: jaxinit.log_frequencies([1.0, 0.0]),
        ["counts", "positive", "[1.0, 0.0]"],
    ),
    "counts of one": (lambda: jaxinit.log_frequencies(3), ["counts", "sequence", "3"]),
    "classes": (
        lambda: jaxinit.log_frequencies([1, 2])(KEY, (3,)),
        ["(2,)", "(3,)", "broadcast=False"],
    ),
    "prior": (lambda: jaxinit.log_odds(1.0), ["prior", "less than 1", "1.0"]),
    "tracer prior": (traced(jaxinit.log_odds), ["prior", "tracer"]),
    "lora law": (lambda: jaxinit.lora("gauss"), ["law", "'gauss'", "'uniform'"]),
    "gates": (lambda: jaxinit.chrono(9, "igo"), ["gates", "forget gate", "'igo'"]),
    "gates twice": (lambda: jaxinit.forget_gate_bias(gates="ff"), ["gates", "'ff'"]),
    "steps": (lambda: jaxinit.chrono(2), ["max_steps", "greater than 2"]),
    "units": (
        lambda: jaxinit.chrono(9)(KEY, (10,)),
        ["(units * 4,)", "'ifgo'", "(10,)"],
    ),
    "log bounds": (
        lambda: jaxinit.log_uniform(2.0, 1.0),
        ["low must be less than high", "2.0 and 1.0"],
    ),
    "dt": (
        lambda: jaxinit.softplus_inverse(0.2),
        ["dt_min must be less than dt_max", "0.2 and 0.1"],
    ),
    "log dt": (lambda: jaxinit.log_steps(0.0), ["dt_min", "greater than zero"]),
    "ring": (
        lambda: jaxinit.lru_nu(0.9, 0.5),
        ["r_min must be less than r_max", "0.9 and 0.5"],
    ),
    "states": (lambda: jaxinit.log_arange()(KEY, ()), ["number of states", "()"]),
    "square": (lambda: jaxinit.hippo()(KEY, (3, 4)), ["(states, states)", "(3, 4)"]),
    "activation": (
        lambda: jaxinit.for_activation("rellu"),
        ["activation", "'rellu'", "nearest", "'relu'"],
    ),
    "no activation": (lambda: jaxinit.for_activation(3), ["fn", "function", "3"]),
    # einsum equations
    "no output": (lambda: jaxinit.einsum_axes("ab,bc"), ["two operands", "'ab,bc'"]),
    "three operands": (lambda: jaxinit.einsum_axes("a,b,c->a"), ["two operands"]),
    "kernel ellipsis": (lambda: jaxinit.einsum_axes("a,...ab->b"), ["ellipsis"]),
    "kernel twice": (lambda: jaxinit.einsum_axes("a,aa->a"), ["twice", "'a,aa->a'"]),
    "unknown output": (lambda: jaxinit.einsum_axes("a,ab->c"), ["no operand", "c"]),
    "signs": (lambda: jaxinit.einsum_axes("a1,ab->b"), ["letters"]),
    # gains
    "gain name": (
        lambda: jaxinit.calculate_gain("gelu"),
        ["name", "'gelu'", "'leaky_relu'"],
    ),
    "gain slope": (
        lambda: jaxinit.calculate_gain("leaky_relu", True),
        ["param", "negative slope", "True"],
    ),
    "gain of a name": (lambda: jaxinit.gain("relu"), ["fn", "'relu'", "function"]),
    "gain mode": (
        lambda: jaxinit.gain(jnp.tanh, "both"),
        ["mode", "'both'", "'forward', 'backward'"],
    ),
    "gain of zero": (lambda: jaxinit.gain(lambda x: 0 * x), ["mean square 0.0"]),
    "gain of a step": (
        lambda: jaxinit.gain(jnp.sign, "backward"),
        ["derivative", "mean square 0.0"],
    ),
    "gain infinite": (lambda: jaxinit.gain(lambda x: x / 0), ["mean square inf"]),
    "gain of a sum": (lambda: jaxinit.gain(jnp.sum), ["elementwise", "shape ()"]),
    "gain complex": (lambda: jaxinit.gain(lambda x: 1j * x), ["real", "complex128"]),
    "no edge": (
        lambda: jaxinit.critical(jax.nn.sigmoid),
        ["sigmoid", "no edge of chaos", "no bias can lower"],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_message(name):
    fails, parts = CASES[name]
    with pytest.raises((TypeError, ValueError)) as caught:
        fails()
    message = str(caught.value)
    assert [part for part in parts if part not in message] == [], message


MAKERS = sorted({x.__name__ for x in vars(jaxinit).values() if is_maker(x)})
DIR = dir(jaxinit)


def test_all_that_make_initializers_are_known():
    own = {name: x for name, x in jaxinit.config._names().items() if name in DIR}
    named = {getattr(x, "__name__", name) for name, x in own.items()}
    assert {"he_normal", "orthogonal", "zeros_init", "grouped"} < named
    assert {*MAKERS} - named == {"Initializer", "lora"}
    assert named - {*MAKERS} == {"zeros", "ones"}


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("key", [KEY, jax.random.PRNGKey(0)], ids=["typed", "raw"])
def test_a_maker_that_is_called_to_draw_says_so(name, key):
    make = getattr(jaxinit, name)
    message = rf"called with a key.*: write {name}\((\.\.\.)?\)\(key, shape, dtype\)"
    with pytest.raises(TypeError, match=message):
        make(key, SHAPE, jnp.float32)
    with pytest.raises(TypeError, match=message):
        jax.eval_shape(lambda key: make(key, SHAPE, jnp.float32), key)


# Every parameter of every maker, by its annotation: what it must refuse, by name.

TOO_LARGE = 10**400
NO_FLOATS = [True, np.True_, math.nan, "1", b"1", 1j, TOO_LARGE, 10**5000, KEY]
NO_FLOATS += [np.ones(2), [1.0], {}, object(), np.array(True), jnp.array(True)]
NO_INTS = [True, np.False_, 1.5, np.float32(1), "1", None, 1j, KEY, np.array([True])]
NO_FLAGS = [0, 1, "True", None, np.ones(1)]
NO_NAMES = ["xyzzy", 3, None, True, np.ones(2), ("fan_in",)]
NO_DTYPES = ["float33", 3, True, SHAPE, object(), ("float32", (2,)), [("a", "f4")]]
NO_INITIALIZERS = [3, None, "zeros", jaxinit.he_normal, jaxinit.normal, KEY]
BAD = {
    "float": [*NO_FLOATS, None, math.inf, -math.inf],
    "float | None": [*NO_FLOATS, math.inf],
    "int": NO_INTS,
    "int | Sequence[int]": [*NO_INTS, (0, True), (0.5,), [None]],
    "int | tuple[int, ...]": [*NO_INTS, 0, -1, (), (1, True), (2, 0)],
    "bool": NO_FLAGS,
    "str": NO_NAMES,
    "dtype": NO_DTYPES,
    "Initializer": NO_INITIALIZERS,
    "Initializer | tuple[Initializer, ...]": [*NO_INITIALIZERS, (3,), [None]],
    "Initializer | Callable[[int], Initializer]": NO_INITIALIZERS,
    "Sequence[float]": [
        1,
        "1",
        KEY,
        TOO_LARGE,
        {},
        None,
        [1j],
        [True],
        [math.nan],
        [1, 0],
        ["1"],
        [],
    ],
    "prior": [True, "1", 1j, TOO_LARGE, None, math.nan, 0, -1, 1, 1.5, [0.5, 1], []],
    "value": ["1", None, TOO_LARGE, {}, object(), [None], KEY],
}
ALLOWED = {  # by the documentation of the parameter
    ("truncated_normal", "lower"): {-math.inf},
    ("truncated_normal", "upper"): {math.inf},
    ("truncated_normal", "low"): {-math.inf},
    ("truncated_normal", "high"): {math.inf},
}
NEEDED = {
    "init": jaxinit.zeros,
    "fn_of_index": jaxinit.zeros,
    "factor": 2.0,
    "sections": 2,
    "groups": 2,
    "scale": 1.0,
    "mode": "fan_in",
    "distribution": "normal",
    "sparsity": 0.5,
    "max_steps": 10.0,
    "low": 1.0,
    "high": 2.0,
    "value": 1.0,
    "counts": [1, 2],
    "prior": 0.5,
    "bandwidth": 1.0,
}


def kind_of(parameter):
    """What a parameter takes; its own name where the annotation is Any."""
    text = inspect.formatannotation(parameter.annotation)
    text = re.sub(r"\b[a-z_A-Z]+\.", "", text)
    if text.startswith("Literal"):
        return "str"
    return parameter.name if text == "Any" else text


PARAMETERS = [
    (name, parameter)
    for name in sorted({*MAKERS} - {"Initializer"})
    for parameter in inspect.signature(getattr(jaxinit, name)).parameters.values()
]


@pytest.mark.parametrize(
    ("name", "parameter"), PARAMETERS, ids=[f"{n}-{p.name}" for n, p in PARAMETERS]
)
def test_every_parameter_refuses_what_it_cannot_mean(name, parameter):
    make = getattr(jaxinit, name)
    needed = {
        p.name: NEEDED[p.name]
        for p in inspect.signature(make).parameters.values()
        if p.default is p.empty
    }
    if name == "truncated_normal" and parameter.name in ("low", "high"):
        needed |= {"low": -1.0, "high": 1.0}
    if name == "uniform" and parameter.name in ("low", "high"):
        needed |= {"low": -1.0, "high": 1.0}
    make(**needed)
    for bad in BAD[kind_of(parameter)]:
        if type(bad) is float and bad in ALLOWED.get((name, parameter.name), ()):
            make(**{**needed, parameter.name: bad})
            continue
        with pytest.raises((TypeError, ValueError)) as caught:
            make(**{**needed, parameter.name: bad})
        named = rf"\b{parameter.name}\b|called with a key"
        assert re.search(named, str(caught.value)), (bad, caught.value)
        assert len(str(caught.value)) < 500


def test_arrays_of_one_number_are_numbers():
    for tenth in (np.float32(0.1), np.array(0.1), jnp.float32(0.1), jnp.array(0.1)):
        assert jaxinit.normal(tenth).stddev == pytest.approx(0.1)
    for two in (2, np.int64(2), np.array(2), jnp.array(2), jnp.bfloat16(2)):
        assert jaxinit.normal(two) == jaxinit.normal(2.0)
    for one in (np.int8(1), np.array(1), jnp.array(1)):
        assert jaxinit.split(jaxinit.zeros, one) == jaxinit.split(jaxinit.zeros, 1)
        assert jaxinit.he_normal(one, 0) == jaxinit.he_normal(1, 0)
        assert jaxinit.he_normal((one,), [0]) == jaxinit.he_normal((1,), (0,))
    assert jaxinit.constant(True)(KEY, (), bool)
    assert jaxinit.fans(np.array([3, 4])) == (3, 4)


SHAPES = [(-1, 4), (3.5, 4), (True, 4), (np.True_,), ("3", 4), (None,), 3, "34", None]
SHAPES += [(10**30, 4), (2**32, 2**32), (10**5000,), (0, 2**63)]


@pytest.mark.parametrize(
    "use",
    [
        jaxinit.fans,
        lambda shape: jaxinit.zeros(KEY, shape),
        lambda shape: jaxinit.normal().moments(shape),
        lambda shape: jaxinit.explain(jaxinit.he_normal(), shape),
        lambda shape: jaxinit.unit_scaled(jaxinit.normal()).multiplier(shape),
    ],
    ids=["fans", "call", "moments", "explain", "multiplier"],
)
def test_shapes_that_are_none(use):
    for shape in SHAPES:
        with pytest.raises((TypeError, ValueError), match="shape must"):
            use(shape)


@pytest.mark.parametrize("name", ["in_axis", "out_axis", "batch_axis"])
def test_axes_that_are_none(name):
    for axis in (10**30, -(10**30), True, 1.5, "1", None, 10**5000):
        with pytest.raises((TypeError, ValueError), match=name):
            jaxinit.fans(SHAPE, **{name: axis})
        with pytest.raises((TypeError, ValueError), match=name):
            jaxinit.he_normal(**{name: axis})(KEY, SHAPE)
        for axis_of in (jaxinit.stacked, jaxinit.mirrored):
            with pytest.raises((TypeError, ValueError), match="axis"):
                axis_of(jaxinit.zeros, axis)(KEY, SHAPE)


@pytest.mark.exhaustive
def test_draws_at_the_edge_are_finite():
    largest = float(jnp.finfo(jnp.float32).max)
    edge = {
        jaxinit.normal(largest / 10): SHAPE,
        jaxinit.uniform(low=-largest / 2.1, high=largest / 2.1): SHAPE,
        jaxinit.truncated_normal(largest / 4): SHAPE,
        jaxinit.constant(largest): SHAPE,
        jaxinit.chrono(largest / 2): (8,),
        jaxinit.lru_nu(): SHAPE,
        jaxinit.normal(1e4, jnp.float8_e4m3fn): SHAPE,  # clipped, as is said
        jaxinit.constant(math.inf, jnp.bfloat16): (),
        jaxinit.stacked(lambda i: jaxinit.constant(-math.inf)): (2,),
    }
    for init, shape in edge.items():
        made = np.asarray(init(KEY, shape), np.float32)
        assert np.isfinite(made).all() == ("inf" not in repr(made))
        assert not np.isnan(made).any()


def test_settings_fail_where_they_are_made():
    # no key, no shape: nothing of this waits for a call
    with pytest.raises(ValueError, match="scale"):
        jaxinit.variance_scaling(-1.0, "fan_in", "normal")


def test_flax_sees_the_message():
    linen = pytest.importorskip("flax.linen")
    layer = linen.Dense(3, bias_init=jaxinit.he_normal())
    with pytest.raises(ValueError, match="at least two axes"):
        layer.init(KEY, jnp.ones((1, 2)))


def test_the_line_for_haiku_draws_its_parameters():
    hk = pytest.importorskip("haiku")
    init = jaxinit.he_normal()

    def model(w_init):
        return hk.transform(lambda x: hk.Linear(3, w_init=w_init)(x))

    line = model(lambda shape, dtype: init(hk.next_rng_key(), shape, dtype))
    assert line.init(KEY, jnp.ones((1, 2)))["linear"]["w"].any()
    with pytest.raises(TypeError, match=r"hk\.next_rng_key\(\)"):
        model(init).init(KEY, jnp.ones((1, 2)))


@pytest.mark.parametrize("maker", [jaxinit.he_normal, jaxinit.normal])
def test_a_maker_given_to_flax_says_so(maker):
    linen, nnx = pytest.importorskip("flax.linen"), pytest.importorskip("flax.nnx")
    with pytest.raises(TypeError, match=rf"{maker.__name__}\(\) where"):
        linen.Dense(3, kernel_init=maker).init(KEY, jnp.ones((1, 2)))
    with pytest.raises(TypeError, match=rf"{maker.__name__}\(\) where"):
        nnx.Linear(2, 3, kernel_init=maker, rngs=nnx.Rngs(0))
