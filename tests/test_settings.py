"""Under every setting of jax, the numbers that jax gives under the same setting."""

import contextlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.nn import initializers as reference
from references import assert_same_bits
from sampling import sampled

import jaxinit

SETTINGS = {
    "old threefry": lambda: jax.threefry_partitionable(False),
    "new threefry": lambda: jax.threefry_partitionable(True),
    "rbg": lambda: jax.default_prng_impl("rbg"),
    "unsafe_rbg": lambda: jax.default_prng_impl("unsafe_rbg"),
    "strict promotion": lambda: jax.numpy_dtype_promotion("strict"),
    "strict rank promotion": lambda: jax.numpy_rank_promotion("raise"),
    "x64": lambda: jax.enable_x64(True),
    "key reuse checks": lambda: jax.debug_key_reuse(True),
    "NaN checks": lambda: jax.debug_nans(True),
}
SHAPE = (3, 5)


# test_bits.py has rbg and x64 too.
BEYOND = ["new threefry", "unsafe_rbg", "rbg", "x64", "strict rank promotion"]


@pytest.mark.sample(2)
@pytest.mark.parametrize("setting", sampled(SETTINGS, BEYOND))
def test_numbers_are_those_of_jax(setting):
    ours, theirs = jaxinit.he_normal(), reference.he_normal()
    with SETTINGS[setting]():
        wanted = jax.jit(lambda key: theirs(key, SHAPE))(jax.random.key(2))
        assert_same_bits(ours(jax.random.key(2), SHAPE), wanted)
        assert_same_bits(ours(jax.random.PRNGKey(2), SHAPE), wanted)


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    "setting",
    sampled(["old threefry", "rbg", "key reuse checks"], ["rbg", "old threefry"]),
)
def test_orthogonal_numbers_are_those_of_jax(setting):
    with SETTINGS[setting]():
        theirs = jax.jit(lambda key: reference.orthogonal()(key, SHAPE))
        ours = jaxinit.orthogonal()(jax.random.key(2), SHAPE)
        assert_same_bits(ours, theirs(jax.random.key(2)))


OPTIONS = {
    "mean": jaxinit.normal(mean=1.0),
    "complex mean": jaxinit.normal(mean=1.0, dtype=jnp.complex64),
    "narrow bounds": jaxinit.uniform(low=-1.0, high=1.0, dtype=jnp.float8_e5m2),
    "matrices": jaxinit.orthogonal(2.0, batch_axis=0, dtype=jnp.bfloat16),
    "integers": jaxinit.constant([1, 2, 3]),
}
UNDER = {
    f"{name}, {setting}": (name, setting)
    for setting in ("strict promotion", "key reuse checks")
    for name in OPTIONS
}
BEYOND_UNDER = [f"{name}, key reuse checks" for name in OPTIONS]  # as above


@pytest.mark.sample(2)
@pytest.mark.parametrize("case", sampled(UNDER, BEYOND_UNDER))
def test_options_of_our_own_work_there_too(case):
    name, setting = UNDER[case]
    with SETTINGS[setting]():
        init, key = OPTIONS[name], jax.random.key(0, impl="threefry2x32")
        made = init(key, (2, 3, 3))
        with jax.debug_key_reuse(False), jax.numpy_dtype_promotion("standard"):
            assert_same_bits(made, init(jax.random.clone(key), (2, 3, 3)))


def test_settings_do_differ():
    # what the cases above compare is not the same array every time
    drawn = []
    for setting in ("old threefry", "new threefry", "rbg"):
        with SETTINGS[setting]():
            drawn.append(np.asarray(jaxinit.he_normal()(jax.random.key(2), SHAPE)))
    assert not any((x == drawn[0]).any() for x in drawn[1:])


def test_a_setting_changed_between_calls_is_seen():
    init, key = jaxinit.he_normal(), jax.random.key(0, impl="threefry2x32")
    first = np.asarray(init(key, SHAPE))
    with jax.threefry_partitionable(False):
        assert (np.asarray(init(key, SHAPE)) != first).all()
    with jax.enable_x64(True):
        assert init(key, SHAPE).dtype == jnp.float64
    assert_same_bits(init(key, SHAPE), first)


def test_key_reuse_is_found():
    init = jaxinit.he_normal()
    init(jax.random.key(0), SHAPE)  # compiled without the checks
    with jax.debug_key_reuse(True):
        key = jax.random.key(0)
        jaxinit.zeros(key, SHAPE)  # draws nothing
        init(key, SHAPE)
        with pytest.raises(jax.errors.KeyReuseError):
            init(key, SHAPE)

        @jax.jit
        def twice(key):
            return init(key, SHAPE) + init(key, SHAPE)

        with pytest.raises(jax.errors.KeyReuseError):
            twice(jax.random.key(0))


def test_legacy_keys_are_refused_where_jax_refuses_them():
    raw = jax.random.PRNGKey(0)
    with jax.legacy_prng_key("error"), pytest.raises(ValueError, match="Legacy uint32"):
        jaxinit.normal()(raw, (3, 2))


def test_float64_without_x64_is_warned_of_as_in_jax(key):
    with pytest.warns(UserWarning, match="float64"):
        assert jaxinit.normal()(key, (3,), jnp.float64).dtype == jnp.float32
    with contextlib.nullcontext():
        assert jaxinit.normal()(key, (3,), float).dtype == jnp.float32


@pytest.mark.exhaustive
def test_disabled_jit(key):
    # op by op the last bits differ, as those of jax do
    with jax.disable_jit():
        x = jaxinit.he_uniform()(key, SHAPE)
    np.testing.assert_allclose(x, jaxinit.he_uniform()(key, SHAPE), rtol=1e-5)


@pytest.mark.parametrize("guard", ["disallow", "disallow_explicit"])
def test_initializers_transfer_nothing(guard):
    key, init = jax.random.key(1729), jaxinit.normal(0.3)
    expected = np.asarray(init(key, (3, 5)))
    with jax.transfer_guard(guard):
        drawn = init(key, (3, 5))
    np.testing.assert_array_equal(drawn, expected)
