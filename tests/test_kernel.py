"""What is compiled: bits, structure and options of the drawing kernels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from sampling import sampled

import jaxinit
from jaxinit._kernel import options as kernel
from jaxinit._kernel.erf_inv import _minus_log1p_of_minus, erf_inv
from jaxinit._kernel.threefry import _random_bits

COLLECTIVES = ("all-gather", "all-reduce", "all-to-all", "collective-permute")
SHAPE, BYTES = (1024, 1024), 4 * 1024 * 1024


def is_one_loop(compiled) -> bool:
    small = compiled.memory_analysis().temp_size_in_bytes < BYTES // 64
    return small and " while(" not in compiled.as_text()


@pytest.mark.parametrize(
    "init",
    [
        jaxinit.he_normal(),
        jaxinit.he_uniform(),
        jaxinit.normal(mean=1.0),
        jaxinit.truncated_normal(),
        jaxinit.normal(dtype=jnp.bfloat16),
    ],
    ids=repr,
)
def test_a_draw_is_one_loop_without_temporaries(key, init):
    assert is_one_loop(jax.jit(lambda key: init(key, SHAPE)).lower(key).compile())


def test_what_has_a_temporary_or_a_loop_is_seen(key):
    def sorts(key):
        return jnp.sort(jaxinit.normal()(key, SHAPE)[::-1], 0)[::-1] + 1

    def loops(key):
        return lax.fori_loop(0, 3, lambda _, x: x * x, jaxinit.normal()(key, SHAPE))

    assert not is_one_loop(jax.jit(sorts).lower(key).compile())
    assert not is_one_loop(jax.jit(loops).lower(key).compile())


@pytest.mark.parametrize("in_argument", sampled([True, False], [True]))
def test_every_device_draws_its_own_part(key, in_argument):
    mesh = jax.make_mesh((8,), ("x",), axis_types=(AxisType.Auto,))
    placement = NamedSharding(mesh, PartitionSpec("x"))
    init = jaxinit.he_normal()
    if in_argument:
        draw = jax.jit(lambda key: init(key, SHAPE, out_sharding=placement))
    else:
        draw = jax.jit(lambda key: init(key, SHAPE), out_shardings=placement)
    compiled = draw.lower(key).compile()
    memory = compiled.memory_analysis()
    assert memory.output_size_in_bytes == BYTES // 8
    assert memory.temp_size_in_bytes < BYTES // 64
    assert not any(name in compiled.as_text() for name in COLLECTIVES)
    total = jax.jit(lambda key: draw(key).sum()).lower(key).compile()
    assert any(name in total.as_text() for name in COLLECTIVES)


def test_under_an_explicit_mesh_too(key):
    mesh = jax.make_mesh((8,), ("x",), axis_types=(AxisType.Explicit,))
    init, spec = jaxinit.he_normal(), PartitionSpec("x")
    with jax.set_mesh(mesh):
        draw = jax.jit(lambda key: init(key, SHAPE, out_sharding=spec))
        compiled = draw.lower(key).compile()
    memory = compiled.memory_analysis()
    assert memory.output_size_in_bytes == BYTES // 8
    assert memory.temp_size_in_bytes < BYTES // 64
    assert not any(name in compiled.as_text() for name in COLLECTIVES)


def test_options_are_those_that_this_jax_knows(monkeypatch):
    options = kernel.compiler_options.__wrapped__
    assert options("gpu") is None
    assert options("cpu") == {"xla_cpu_prefer_vector_width": 512}
    monkeypatch.setattr(kernel, "_KNOWN_BEFORE", (0,))  # so that jax is asked
    assert options("cpu") == {"xla_cpu_prefer_vector_width": 512}
    monkeypatch.setattr(kernel, "_WIDE_VECTORS", {"xla_cpu_no_such_option": 1})
    assert options("cpu") is None


@pytest.mark.parametrize(("size", "is_fused"), [(2**32 - 1, True), (2**32 + 1, False)])
def test_counters_of_one_word_are_fused(size, is_fused):
    """Only traced: where a word cannot count the entries, jax makes the bits."""
    traced = jax.make_jaxpr(lambda words: _random_bits(words, 32, (size,)))
    assert ("iota_2x32" in str(traced(jnp.zeros(2, jnp.uint32)))) != is_fused


# ---- the inverse error function, on all 2**23 values that a float32 uniform draw has

RANGES = {
    "normal": (np.nextafter(np.float32(-1), np.float32(0)), 1.0),
    "two_sigmas": (-0.9544997, 0.9544997),
    "upper_half": (0.0, 1.0),
    "lower_tail": (-1.0, -0.99),
}


def uniform(bits, low, high):
    one = np.uint32(0x3F800000)
    unit = lax.bitcast_convert_type(bits | one, np.float32) - np.float32(1)
    low, high = np.float32(low), np.float32(high)
    return lax.max(low, unit * (high - low) + low)


def on_all(fun, name, options=None) -> np.ndarray:
    """Its bits on all values in a range."""
    bits = np.arange(1 << 23, dtype=np.uint32)
    mapped = jax.jit(
        lambda bits: fun(uniform(bits, *RANGES[name])), compiler_options=options
    )
    return np.asarray(mapped(bits)).view(np.uint32)


@pytest.mark.parametrize("name", sampled(RANGES, ["two_sigmas", "upper_half"]))
def test_erf_inv_has_the_bits_of_xla(name):
    of_xla = on_all(lax.erf_inv, name)
    for options in (None, kernel.compiler_options("cpu")):
        np.testing.assert_array_equal(on_all(erf_inv, name, options), of_xla)
    assert (on_all(lambda u: erf_inv(u * 1.0000002), name) != of_xla).any()


def test_logarithm_where_its_formula_changes_has_the_bits_of_xla():
    """At `sqrt(2) - 1`: one digit on, XLA's own two formulas differ."""
    middle = np.float32(np.sqrt(2) - 1).view(np.uint32)
    y = (middle + np.arange(-4096, 4096)).astype(np.uint32).view(np.float32)
    ours, wanted = jax.jit(_minus_log1p_of_minus), jax.jit(lambda y: -lax.log1p(-y))(y)
    np.testing.assert_array_equal(ours(y), wanted)
    wrong = np.asarray(ours(y * np.float32(1.0000002)))
    assert (wrong != wanted).any(), "negative control"


def test_erf_inv_at_and_beyond_the_edges():
    u = jnp.array(
        [0, -0.0, 1, -1, 1.5, -2, np.nan, np.inf, -np.inf, 1e-45, 1e-38, -1e-30],
        jnp.float32,
    )
    ours, theirs = jax.jit(erf_inv)(u), jax.jit(lax.erf_inv)(u)
    np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_array_equal(np.signbit(ours[:4]), np.signbit(theirs[:4]))
