"""Assertions: right arrays pass, wrong ones fail, and the message says all of it.

Every assertion that a right array passes has a false-alarm rate of 1e-9 and a fixed
key. Every wrong array is a negative control.
"""

import functools
import math
import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.nn import initializers as reference
from jax.sharding import NamedSharding, PartitionSpec
from references import assert_refuses
from sampling import sampled

import jaxinit
from jaxinit import testing
from jaxinit.initializers._defects import defect

pytestmark = pytest.mark.unoptimized

KEY = jax.random.key(1729)
SHAPE = (256, 1024)
HE, LECUN = jaxinit.he_normal(), jaxinit.lecun_normal()


@functools.cache
def drawn(init, shape=SHAPE, dtype="float32"):
    return init(KEY, shape, jnp.dtype(dtype))


def host(*args, **options) -> np.ndarray:
    """The same in NumPy, where arithmetic compiles nothing."""
    return np.array(drawn(*args, **options))


def sharded(x):
    mesh = jax.make_mesh((2, 2), ("x", "y"), devices=jax.devices()[:4])
    return jax.device_put(x, NamedSharding(mesh, PartitionSpec("x", "y")))


def with_entry(x, place, value):
    """The same in NumPy, but for one entry."""
    x = np.array(x)
    x[place] = value
    return x


# name: an assertion, without its array; an array that passes; arrays that fail
VARIANCE = {
    "initializer": lambda: (
        HE,
        drawn(HE),
        {
            "lecun": drawn(LECUN),
            "fan of the transpose": host(HE, SHAPE[::-1]).T,
            "uncorrected": drawn(jaxinit.truncated_normal((2 / 256) ** 0.5)),
            "2 %": 1.02 * host(HE),
            "NaN": with_entry(drawn(HE), (3, 4), np.nan),
            "zero": np.zeros(SHAPE, np.float32),
        },
    ),
    "number": lambda: (
        2 / 256,
        drawn(HE),
        {"lecun": drawn(LECUN), "shrunk": 0.98 * host(HE)},
    ),
    "moments": lambda: (LECUN.moments(SHAPE), drawn(LECUN), {"he": drawn(HE)}),
    "few": lambda: (
        0.25,
        drawn(jaxinit.normal(0.5), (16, 16)),
        {"fan": 4 * host(HE, (16, 16))},
    ),
    "bfloat16": lambda: (
        HE,
        drawn(HE, dtype="bfloat16"),
        {"he": drawn(LECUN, dtype="bfloat16")},
    ),
    "complex": lambda: (
        LECUN,
        drawn(LECUN, dtype="complex64"),
        {"he": drawn(HE, dtype="complex64")},
    ),
    "sharded": lambda: (HE, sharded(drawn(HE)), {"lecun": sharded(drawn(LECUN))}),
    "constant": lambda: (jaxinit.ones, np.ones(SHAPE, np.float32), {"he": drawn(HE)}),
}


@pytest.mark.parametrize("name", sampled(VARIANCE, ["complex", "sharded", "bfloat16"]))
def test_variance(name):
    expected, right, wrong = VARIANCE[name]()
    testing.assert_variance(right, expected)
    for x in wrong.values():
        with pytest.raises(AssertionError, match="1 problem"):
            testing.assert_variance(x, expected)


LAWS = {"he": HE, "uniform": jaxinit.uniform(0.1)}
LAW_DTYPES = [
    (name, dtype) for name in LAWS for dtype in ("float32", "bfloat16", "float8_e4m3fn")
]


@pytest.mark.parametrize(
    "case",
    sampled(LAW_DTYPES, [*LAW_DTYPES[1:3], *LAW_DTYPES[4:]]),
    ids=", ".join,
)
def test_law(case):
    name, dtype = case
    init = LAWS[name]
    right = drawn(init, dtype=dtype)
    testing.assert_law(right, init)
    x = np.asarray(right, np.float32)
    for wrong in (-x + 0.02, 1.3 * x, host(jaxinit.normal(0.05)), np.zeros(SHAPE)):
        with pytest.raises(AssertionError, match=r"away, p .* \(KS\)"):
            testing.assert_law(wrong.astype(right.dtype), init)


def test_law_sees_draws_of_jax_in_bfloat16():
    x = reference.normal(1.0)(KEY, (1024, 1024), jnp.bfloat16)
    with pytest.raises(AssertionError):
        testing.assert_law(x, jaxinit.normal(1.0))


def test_law_sees_what_moments_do_not():
    x = drawn(jaxinit.variance_scaling(2.0, "fan_in", "uniform"))
    testing.assert_variance(x, 2 / 256)
    with pytest.raises(AssertionError, match="expected the law of he_normal"):
        testing.assert_law(x, HE)


ORTHOGONAL = {
    "square": (jaxinit.orthogonal(), (64, 64)),
    "tall": (jaxinit.orthogonal(3.0), (3, 5, 7)),
    "wide": (jaxinit.orthogonal(), (5, 64)),
    "column": (jaxinit.orthogonal(column_axis=0), (7, 3, 5)),
    "batch": (jaxinit.orthogonal(2.0, batch_axis=1), (8, 3, 6)),
    "delta": (jaxinit.delta_orthogonal(2.0), (3, 2, 4, 6)),
    "scaled": (jaxinit.scaled(jaxinit.orthogonal(), -0.5), (8, 6)),
    "stacked": (jaxinit.stacked(jaxinit.orthogonal(), axis=1), (8, 3, 6)),
    "split": (jaxinit.split(jaxinit.orthogonal(), (4, 6)), (8, 10)),
    "large": (jaxinit.orthogonal(), (256, 256)),
    "one": (jaxinit.orthogonal(), (1, 1)),
    "empty": (jaxinit.orthogonal(), (0, 3)),
}


# Every structure in float32; what rounding to a dtype may do depends on the scale and
# on the size of the matrices, small or large.
ORTHOGONAL_DTYPES = [
    *((name, "float32") for name in ORTHOGONAL),
    *(
        (name, dtype)
        for name in ("tall", "large", "delta")
        for dtype in ("bfloat16", "float8_e4m3fn", "complex64")
    ),
]


BEYOND = [
    *((name, "float32") for name in ("square", "wide", "column", "large", "one")),
    *((name, "float32") for name in ("scaled", "stacked", "split")),
    ("tall", "bfloat16"),
    ("tall", "float8_e4m3fn"),
    ("tall", "complex64"),
    ("large", "bfloat16"),
    ("large", "complex64"),
    *(("delta", dtype) for dtype in ("bfloat16", "float8_e4m3fn", "complex64")),
]


@pytest.mark.parametrize("case", sampled(ORTHOGONAL_DTYPES, BEYOND), ids=", ".join)
def test_orthogonal(case):
    name, dtype = case
    init, shape = ORTHOGONAL[name]
    right = drawn(init, shape, dtype)
    testing.assert_orthogonal(right, init)
    if not right.size:
        return
    x = np.asarray(right, np.complex64 if "complex" in dtype else np.float32)
    longer = (1.3 if "float8" in dtype else 1.02) * x
    holed = longer.copy() if "float8" in dtype else x.copy()
    if "float8" not in dtype:
        holed[np.unravel_index(np.argmax(abs(x)), shape)] = 0
    for wrong in (longer, holed, 3 * np.ones_like(x)):
        with pytest.raises(AssertionError, match="off the identity"):
            testing.assert_orthogonal(wrong.astype(right.dtype), init)


def test_orthogonal_by_default_and_not_off_the_centre():
    testing.assert_orthogonal(jnp.eye(3))
    with pytest.raises(AssertionError):
        testing.assert_orthogonal(drawn(jaxinit.normal(1.0), (3, 3)))
    init, shape = ORTHOGONAL["delta"]
    x = with_entry(drawn(init, shape), (0, 0, 0, 0), 1e-6)
    with pytest.raises(AssertionError):
        testing.assert_orthogonal(x, init)
    zeros = jaxinit.orthogonal(0.0)
    assert defect(jnp.zeros((3, 3)), zeros).error == 0
    with pytest.raises(AssertionError):
        testing.assert_orthogonal(jnp.eye(3), zeros)


def test_finite():
    tree = {"w": np.ones(3, np.float32), "key": KEY, "step": 3, "none": np.ones((0, 2))}
    testing.assert_finite(tree)
    for wrong in (jnp.nan, jnp.inf, -jnp.inf):
        with pytest.raises(AssertionError, match=r"w, .*finite entries, got 1 others"):
            testing.assert_finite({**tree, "w": np.float32([0.0, wrong, 1.0])})
    overflow = reference.lecun_normal()(KEY, SHAPE, jnp.float8_e4m3fn)
    with pytest.raises(AssertionError, match="finite"):
        testing.assert_finite(overflow)


def test_bounds():
    x = drawn(jaxinit.truncated_normal(0.02))
    testing.assert_bounds(x, -0.04, 0.04)
    testing.assert_bounds(x)
    testing.assert_bounds(np.float32([0.0, 1.0]), 0, 1)
    testing.assert_bounds(np.zeros(2, np.float32), 0, 0)
    for low, high in ((-0.04, 0.039), (-0.039, 0.04), (0.0, math.inf)):
        with pytest.raises(AssertionError, match=r"got -0\.0399\d+ to 0\.0399\d+"):
            testing.assert_bounds({"w": x}, low, high)
    for wrong in (with_entry(x, (0, 0), np.nan), drawn(jaxinit.normal(0.02))):
        with pytest.raises(AssertionError):
            testing.assert_bounds(wrong, -0.04, 0.04)


# Plans

RULES = {
    "**/kernel": HE,
    "**/attention": jaxinit.split(jaxinit.orthogonal(), 2),
    "**/table": jaxinit.normal(0.02),
    "**/bias": jaxinit.zeros,
    "**/temperature": jaxinit.normal(1.0, mean=5.0),
}


def shapes(dtype="float32"):
    sizes = {
        "a": {"kernel": SHAPE, "bias": (64,)},
        "b": {"kernel": (3, 3, 16, 256), "table": (65536, 16), "attention": (64, 32)},
        "temperature": (),
        "nothing": {"bias": (0, 3)},
    }
    return jax.tree.map(
        lambda shape: jax.ShapeDtypeStruct(shape, dtype),
        sizes,
        is_leaf=lambda node: isinstance(node, tuple),
    )


@functools.cache
def planned(dtype="float32"):
    made = jaxinit.plan(shapes(dtype), RULES)
    return made, made.init(KEY)


def replaced(tree, path, value):
    flat = jax.tree.leaves_with_path(tree)
    names = [jax.tree_util.keystr(p, simple=True, separator="/") for p, _ in flat]
    leaves = [value if n == path else x for n, (_, x) in zip(names, flat, strict=True)]
    return jax.tree.unflatten(jax.tree.structure(tree), leaves)


@pytest.mark.parametrize(
    "dtype",
    sampled(["float32", "bfloat16", "float8_e4m3fn"], ["bfloat16", "float8_e4m3fn"]),
)
def test_moments_of_what_a_plan_draws(dtype):
    made, params = planned(dtype)
    testing.assert_moments(params, made)


def test_moments_of_many_keys():
    made, _ = planned()
    for seed in range(5):
        testing.assert_moments(made.init(jax.random.key(seed)), made, p_fail=1e-6)


@pytest.mark.parametrize("sign", [1, -1])
def test_bounds_that_round_outwards(sign):
    """0.1 goes to 0.10009766; what is further by one step of the dtype is found."""
    ends = sorted((0.0, 0.1 * sign))
    init = jaxinit.uniform(low=ends[0], high=ends[1])
    made = jaxinit.plan(jax.ShapeDtypeStruct((2**12,), "bfloat16"), {"**": init})
    x = with_entry(made.init(KEY), 0, 0.1 * sign)
    assert abs(float(x[0])) > 0.1
    testing.assert_moments(x, made)
    with pytest.raises(AssertionError, match="expected entries from"):
        testing.assert_moments(with_entry(x, 0, 1.008 * float(x[0])), made)


WRONG = {
    "mean": ("a/kernel", lambda x: x + 0.01, "mean: expected 0, got 0.0101"),
    "jax in its dtype": (
        "b/table",
        lambda x: reference.normal(0.02)(KEY, x.shape, jnp.bfloat16),
        "mean: expected 0",
    ),
    "std": ("b/kernel", lambda x: 1.03 * x, "std: expected 0.1178"),
    "fan of the transpose": (
        "a/kernel",
        lambda x: host(HE, SHAPE[::-1]).T,
        "std: expected 0.0883883, got 0.044",
    ),
    "uncorrected": (
        "a/kernel",
        lambda x: drawn(jaxinit.truncated_normal((2 / 256) ** 0.5)),
        "std: expected 0.0883883, got 0.0776",
    ),
    "not truncated": (
        "a/kernel",
        lambda x: drawn(jaxinit.normal((2 / 256) ** 0.5)),
        "expected entries from -0.20",
    ),
    "not constant": ("a/bias", lambda x: x + 1e-3, "expected entries from 0 to 0"),
    "not finite": (
        "b/table",
        lambda x: with_entry(x, 3, np.inf),
        "expected finite",
    ),
    "not orthogonal": ("b/attention", lambda x: x[::-1] * 1.1, "off the identity"),
    "scalar": ("temperature", lambda x: x * 3, "mean: expected 5"),
}


@pytest.mark.parametrize("name", sampled(WRONG, ["jax in its dtype"]))
def test_moments_fail(name):
    path, change, message = WRONG[name]
    made, params = planned("bfloat16" if "jax" in name else "float32")
    leaf = dict(zip((p.path for p in made), jax.tree.leaves(params), strict=True))[path]
    wrong = replaced(params, path, change(np.asarray(leaf)))
    with pytest.raises(AssertionError, match=f"(?s){path}, .*{message}") as caught:
        testing.assert_moments(wrong, made)
    others = [leaf.path for leaf in made if leaf.path != path]
    assert not any(f"  {other}," in str(caught.value) for other in others)


def test_all_failing_leaves_are_in_one_message():
    made, params = planned()
    wrong = jax.tree.map(lambda x: 3 * np.asarray(x) + 1, params)
    with pytest.raises(AssertionError) as caught:
        testing.assert_moments(wrong, made)
    lines = str(caught.value).splitlines()
    assert re.fullmatch(
        r"\[Chex\] Assertion assert_moments failed: the tree has \d+ problems:",
        lines[0],
    )
    paths = {line.strip().partition(",")[0] for line in lines[1:]}
    assert paths == {leaf.path for leaf in made if 0 not in leaf.shape}


def test_the_message_has_all_numbers():
    with pytest.raises(AssertionError) as caught:
        testing.assert_variance({"w": drawn(LECUN)}, HE)
    (line,) = str(caught.value).splitlines()[1:]
    assert re.fullmatch(
        r"  w, float32\[256, 1024\], 262144 entries, std: expected 0\.0883883, got "
        r"0\.06\d+, variance -\d+ standard errors, p 0 \(Pearson III\), "
        r"threshold 1e-09",
        line,
    )


def test_the_rate_is_shared_by_all_leaves():
    made, params = planned()
    with pytest.raises(AssertionError, match=r"threshold 7\.1e-11"):
        testing.assert_moments(
            jax.tree.map(lambda x: 1.5 * np.asarray(x), params), made
        )
    with pytest.raises(AssertionError, match="threshold 5e-10"):
        testing.assert_variance([drawn(HE), drawn(LECUN)], HE)
    with pytest.raises(AssertionError, match="threshold 5e-10"):
        testing.assert_law([drawn(HE), drawn(LECUN)], HE)


def test_the_rate_is_shared_by_all_parts():
    parts = [jaxinit.log_arange(), jaxinit.normal(1.0), jaxinit.normal(2.0)]
    init = jaxinit.stacked(lambda i: parts[i])
    made = jaxinit.plan(jax.ShapeDtypeStruct((3, 16, 16), "float32"), {"**": init})
    x = np.random.default_rng(0).normal(size=(3, 16, 16)).astype(np.float32)
    x[0], x[2] = np.log(np.arange(1, 17)), 9 * x[2]
    with pytest.raises(AssertionError, match=r"threshold 2\.5e-10"):
        testing.assert_moments(x, made)


@pytest.mark.exhaustive
def test_moments_of_a_flax_model_sharded():
    made = jaxinit.plan(
        nnx.state(nnx.eval_shape(lambda: nnx.Linear(64, 512, rngs=nnx.Rngs(0)))),
        {"kernel": LECUN, "bias": jaxinit.zeros},
    )
    state = jax.tree.map(lambda x: sharded(x) if x.ndim == 2 else x, made.init(KEY))
    testing.assert_moments(state, made)
    with pytest.raises(AssertionError, match=r"kernel, .*mean: "):
        testing.assert_moments(jax.tree.map(lambda x: 0.1 + np.asarray(x), state), made)


REFUSED = {
    "p_fail": (
        lambda: testing.assert_variance(jnp.ones(3), 1.0, p_fail=1.0),
        ["p_fail", "between 0 and 1", "1.0"],
    ),
    "p_fail of zero": (
        lambda: testing.assert_variance(jnp.ones(3), 1.0, p_fail=0),
        ["p_fail", "between 0 and 1", "0"],
    ),
    "integers": (lambda: testing.assert_variance(jnp.arange(3), 1.0), ["int32"]),
    "one entry": (lambda: testing.assert_variance(jnp.ones(1), 1.0), ["at least 2"]),
    "variance": (lambda: testing.assert_variance(jnp.ones(3), -1.0), ["-1.0"]),
    "orthogonal": (
        lambda: testing.assert_variance(jnp.eye(3), jaxinit.orthogonal()),
        ["assert_orthogonal"],
    ),
    "law of orthogonal": (
        lambda: testing.assert_law(jnp.eye(3), jaxinit.orthogonal()),
        ["assert_orthogonal"],
    ),
    "not orthogonal": (
        lambda: testing.assert_orthogonal(jnp.eye(3), HE),
        ["he_normal()", "jaxinit.orthogonal()"],
    ),
    "bounds": (lambda: testing.assert_bounds(jnp.ones(3), 2, 1), ["low", "2.0", "1.0"]),
    "another tree": (
        lambda: testing.assert_moments({"a": jnp.ones(3)}, planned()[0]),
        ["a: not in the plan"],
    ),
    "part of a tree": (
        lambda: testing.assert_moments({"temperature": jnp.ones(())}, planned()[0]),
        ["a/kernel: missing", "b/table: missing"],
    ),
    "unknown moments": (
        lambda: testing.assert_moments(
            {"w": jnp.ones(3)},
            jaxinit.plan({"w": jnp.ones(3)}, {"w": reference.normal()}),
        ),
        ["w: ", "does not know its moments", "an initializer that states its law"],
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name):
    assert_refuses(*REFUSED[name])


TRACED = {
    "variance": lambda x: testing.assert_variance(x, 1.0),
    "law": lambda x: testing.assert_law(x, HE),
    "orthogonal": testing.assert_orthogonal,
    "finite": testing.assert_finite,
    "bounds": testing.assert_bounds,
    "moments": lambda x: testing.assert_moments(
        {"w": x}, jaxinit.plan({"w": x}, {"w": HE})
    ),
}


@pytest.mark.parametrize("name", TRACED)
def test_traced_arrays_are_refused(name):
    with pytest.raises(TypeError, match="traced: it has no values yet"):
        jax.jit(TRACED[name])(jnp.ones((3, 3)))


# As chex's own


class WrongError(Exception):
    pass


def test_options_of_chex():
    with pytest.raises(WrongError) as caught:
        testing.assert_finite(
            {"w": jnp.array(jnp.nan)},
            custom_message="in layer {}",
            custom_message_format_vars=[3],
            include_default_message=False,
            exception_type=WrongError,
        )
    assert str(caught.value).startswith("[Chex] the tree has 1 problem:\n  w, ")
    assert str(caught.value).endswith(" [in layer 3]")


def test_chex_turns_them_off():
    chex.disable_asserts()
    try:
        testing.assert_finite(jnp.array(jnp.nan))
    finally:
        chex.enable_asserts()
    with pytest.raises(AssertionError):
        testing.assert_finite(jnp.array(jnp.nan))


def test_numpy_arrays_pass():
    testing.assert_variance(np.asarray(drawn(HE)), HE)


def test_what_is_no_plan_is_refused():
    with pytest.raises(TypeError, match=r"plan must be a jaxinit\.Plan"):
        testing.assert_moments({}, jaxinit.he_normal())
