"""Initializers, jitted or eager, have the bits of jitted `jax.nn.initializers`."""

import functools
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from jax.nn import initializers as reference
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from references import CASES, assert_same_bits, pair
from sampling import sampled

import jaxinit

KEYS = [jax.random.key(seed) for seed in (0, 1, 2**31 - 1)]
LAWS = ["normal", "uniform"]
EAGER = ["normal", "uniform", "truncated_normal", "orthogonal", "he_normal"]
NAMES = [case for case in CASES if hasattr(jaxinit, case)]
COMPLEX = [
    "constant",
    "normal",
    "orthogonal",
    "delta_orthogonal",
    "he_normal",
    "glorot_uniform",
    "fan_in_normal",
]


# By default one case of each law, of each way to scale it and of each kind of setting.
BEYOND = {"batch_axis", "uniform_set", "orthogonal_set", "he_uniform", "fan_in_normal"}
BEYOND |= {f"{name}_{law}" for name in ("glorot", "lecun") for law in LAWS}
BEYOND |= {"normal_set", "truncated_normal", "fan_avg_truncated_normal"}
BEYOND |= {"delta_orthogonal", "fan_out_uniform", "fan_geo_avg_normal"}
SHAPED = {
    f"{case}, {shape}": (case, shape) for case in CASES for shape in pair(case)[2]
}
MORE_SHAPES = {"normal, (33, 17)"}


def is_beyond(case, shape):
    first, *_ = pair(case)[2]
    return case in BEYOND or (shape != first and f"{case}, {shape}" not in MORE_SHAPES)


OF_BITS = ("bits", "catalogue", "collectives", "devices", "executables", "initializers")
OF_BITS += ("jit", "jit_semantics", "kernel", "keys", "linen", "multihost", "nnx")
OF_BITS += ("plan", "settings")


def is_unoptimized(name: str) -> bool:
    text = Path(__file__).with_name(f"test_{name}.py").read_text()
    return re.search(r"^pytestmark = .*unoptimized", text, re.M) is not None


def test_programs_whose_bits_are_claimed_are_optimized():
    """As those of users are, here and in the other modules that claim bits."""
    assert not jax.config.values["jax_disable_most_optimizations"]
    assert [name for name in OF_BITS if is_unoptimized(name)] == []
    assert is_unoptimized("audit"), "negative control"


@pytest.mark.parametrize(
    "name", sampled(SHAPED, [name for name, each in SHAPED.items() if is_beyond(*each)])
)
def test_float32_bits_are_those_of_jax(name):
    case, shape = SHAPED[name]
    ours, theirs, _ = pair(case)
    jitted = jax.jit(lambda key: ours(key, shape))
    wanted = jax.jit(lambda key: theirs(key, shape))
    for key in KEYS:
        assert_same_bits(jitted(key), wanted(key))


@pytest.mark.parametrize("shape", sampled([(300, 4), (60, 5)], [(60, 5)]))
def test_short_last_axes(key, shape):
    """Loops over these are unrolled by XLA from jax 0.11 on, with bits of their own."""
    ours, theirs, _ = pair("normal")

    def of_jax(key):
        return theirs(key, shape)

    wanted = jax.jit(of_jax)(key)
    assert_same_bits(ours(key, shape), wanted)
    assert_same_bits(jax.jit(lambda key: ours(key, shape))(key), wanted)
    assert_same_bits(jaxinit.jit(of_jax)(key), wanted)
    assert_same_bits(jax.jit(jaxinit.jit(of_jax))(key), wanted)


def test_short_last_axes_are_rounded_once(key):
    init, shape = jaxinit.normal(), (100_000, 4)
    wide = np.asarray(init(key, shape))
    assert_same_bits(init(key, shape, jnp.bfloat16), wide.astype(jnp.bfloat16))


@pytest.mark.parametrize(
    "case", sampled(EAGER, ["uniform", "he_normal", "normal", "orthogonal"])
)
def test_eager_float32_bits_are_those_of_jit(key, case):
    init, _, (shape, *_) = pair(case)
    assert_same_bits(init(key, shape), jax.jit(lambda key: init(key, shape))(key))


@pytest.mark.sample(1)
@pytest.mark.parametrize(
    "case",
    sampled(COMPLEX, {*COMPLEX} - {"constant", "he_normal"}),
)
def test_complex64_bits_are_those_of_jax(key, case):
    ours, theirs, (shape, *_) = pair(case)
    wanted = jax.jit(lambda key: theirs(key, shape, jnp.complex64))(key)
    assert_same_bits(ours(key, shape, jnp.complex64), wanted)


@pytest.mark.sample(2)
@pytest.mark.parametrize("case", sampled(NAMES, [*BEYOND & {*NAMES}, "orthogonal"]))
def test_float64_bits_are_those_of_jax(case):
    ours, theirs, (shape, *_) = pair(case)
    with jax.enable_x64(True):
        key = jax.random.key(5)
        wanted = jax.jit(lambda key: theirs(key, shape))(key)
        assert wanted.dtype == np.float64
        assert_same_bits(ours(key, shape), wanted)


# XLA needs long to compile a draw of jax with three axes.
MANY = {
    "normal, of an axis": ("normal", (7,), (4,)),
    "normal, twice": ("normal", (), (2, 3)),
    "normal, of an axis, twice": ("normal", (7,), (2, 3)),
    "orthogonal": ("orthogonal", (3, 5), (2, 3)),
}


@pytest.mark.parametrize(
    "name", sampled(MANY, [name for name in MANY if name != "normal, of an axis"])
)
def test_vmapped_bits_are_those_of_jax(key, name):
    case, shape, many = MANY[name]
    ours, theirs, _ = pair(case)

    def mapped(init):
        draw = functools.partial(init, shape=shape)
        return functools.reduce(lambda fun, _: jax.vmap(fun), many, draw)

    keys, draw = jax.random.split(key, many), mapped(ours)
    wanted = jax.jit(mapped(theirs))(keys)
    assert_same_bits(draw(keys), wanted)
    assert_same_bits(jax.jit(draw)(keys), wanted)


@pytest.mark.parametrize("name", sampled(["zeros", "ones"], ["ones"]))
def test_zeros_and_ones(key, name):
    ours, theirs = getattr(jaxinit, name), getattr(reference, name)
    for dtype in (None, jnp.bfloat16, jnp.complex64, jnp.int32, jnp.bool):
        assert_same_bits(ours(key, (2, 3), dtype), theirs(key, (2, 3), dtype))
    assert ours(None, (2,)).shape == (2,)  # a constant does not look at the key
    assert getattr(jaxinit, f"{name}_init")() == ours


@pytest.mark.sample(1)
@pytest.mark.parametrize(
    "impl", sampled(["threefry2x32", "rbg", "unsafe_rbg"], ["unsafe_rbg"])
)
@pytest.mark.parametrize("case", sampled(["normal", "orthogonal"], ["orthogonal"]))
def test_keys_of_every_implementation(impl, case):
    ours, theirs, (shape, *_) = pair(case)
    key = jax.random.key(3, impl=impl)
    wanted = jax.jit(lambda key: theirs(key, shape))(key)
    assert_same_bits(ours(key, shape), wanted)
    with jax.default_prng_impl(impl):
        raw = jax.random.key_data(key)
        assert_same_bits(jax.jit(lambda key: ours(key, shape))(raw), wanted)
        assert_same_bits(ours(raw, shape), wanted)
        assert_same_bits(ours(np.asarray(raw), shape), wanted)


# ---- narrow dtypes

NARROW = [jnp.bfloat16, jnp.float16, jnp.float8_e4m3fn, jnp.float8_e5m2]


@pytest.mark.parametrize("dtype", sampled(NARROW, [jnp.float16, jnp.float8_e4m3fn]))
@pytest.mark.parametrize(
    "case",
    sampled(["normal_set", "axes", "orthogonal_set"], ["axes", "orthogonal_set"]),
)
def test_narrow_draws_are_float32_draws_rounded_once(key, case, dtype):
    init, _, (shape, *_) = pair(case)
    wide = np.asarray(init(key, shape, jnp.float32))
    # NumPy's cast is one rounding to nearest, ties to even
    assert_same_bits(init(key, shape, dtype), wide.astype(dtype))


@pytest.mark.parametrize("dtype", sampled(NARROW, [jnp.float16, jnp.float8_e5m2]))
def test_narrow_draws_are_finite_beyond_the_range(key, dtype):
    init, limit = jaxinit.normal(1e6), float(jnp.finfo(dtype).max)
    drawn = jax.jit(lambda key: init(key, (64, 64), dtype))(key)
    wide = np.asarray(init(key, (64, 64), jnp.float32))
    assert_same_bits(drawn, np.clip(wide, -limit, limit).astype(dtype))
    assert np.isfinite(np.asarray(drawn, np.float64)).all()


@pytest.mark.exhaustive
def test_drawing_in_bfloat16_itself_would_be_biased(key):
    # means of 2**20 draws, in standard errors: 1e-9 false alarms at 6.2
    def error(x):
        x = np.asarray(x, np.float64)
        return abs(x.mean()) / (x.std() / np.sqrt(x.size))

    assert error(jaxinit.normal(1.0)(key, (1024, 1024), jnp.bfloat16)) < 6.2
    assert error(reference.normal(1.0)(key, (1024, 1024), jnp.bfloat16)) > 6.2


EXOTIC = {name for name in dir(ml_dtypes) if name.startswith(("float", "int", "uint"))}
REFUSED = {"float6_e2m3fn", "float6_e3m2fn", "float8_e8m0fnu", "int1", "uint1"}
BY_DEFAULT = REFUSED | {"float4_e2m1fn", "int4", "uint2"}


@pytest.mark.parametrize(
    "name", sampled(sorted(EXOTIC | {"complex32"}), EXOTIC - BY_DEFAULT)
)
def test_exotic_dtypes_have_values_or_an_error(key, name):
    """Two of them end the process, if they are let through to XLA."""
    dtype = getattr(ml_dtypes, name)
    if name in REFUSED | {"complex32"}:
        for init in (jaxinit.normal(1.0), jaxinit.zeros):
            with pytest.raises(TypeError, match=f"{name}.*bfloat16"):
                init(key, (3, 5), dtype)
        return
    ones = np.asarray(jaxinit.ones(key, (3, 5), dtype))
    assert ones.dtype == dtype
    assert (ones.astype(float) == 1).all()
    if name.startswith("float"):
        init, limit = jaxinit.normal(1.0), float(jnp.finfo(dtype).max)
        wide = np.asarray(init(key, (3, 5)))
        assert_same_bits(
            init(key, (3, 5), dtype), wide.clip(-limit, limit).astype(dtype)
        )


# ---- shardings

PLACED = {
    "he_normal": jaxinit.he_normal(),
    "low_high": jaxinit.uniform(low=-1.0, high=2.0),
    "zeros": jaxinit.zeros,
    "orthogonal": jaxinit.orthogonal(),
    "delta_orthogonal": jaxinit.delta_orthogonal(dtype=jnp.bfloat16),
}
# test_catalogue.py has matrices on a mesh.
BEYOND_PLACED = ["low_high", "orthogonal", "delta_orthogonal"]


@pytest.mark.sample(1)
@pytest.mark.parametrize("name", sampled(PLACED, BEYOND_PLACED))
def test_sharded_values_are_the_same(key, name):
    init, shape = PLACED[name], (2, 16, 16)
    wanted = init(key, shape)
    spec = PartitionSpec(None, "x", "y")
    auto = jax.make_mesh((4, 2), ("x", "y"), axis_types=(AxisType.Auto,) * 2)
    explicit = jax.make_mesh((4, 2), ("x", "y"), axis_types=(AxisType.Explicit,) * 2)
    placement = NamedSharding(auto, spec)
    results = [
        jax.jit(lambda key: init(key, shape), out_shardings=placement)(key),
        init(key, shape, out_sharding=placement),
    ]
    with jax.set_mesh(explicit):
        results.append(init(key, shape, out_sharding=spec))
        results.append(init(key, shape, None, NamedSharding(explicit, spec)))
    for result in results:
        assert result.sharding.spec == spec
        assert result.addressable_shards[0].data.shape == (2, 4, 8)
        assert_same_bits(result, wanted)
