"""Laws at the edges of a dtype: narrower than its steps, as wide as it is, all zero."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sampling import sampled

import jaxinit
from jaxinit.testing import assert_moments, assert_variance

KEY = jax.random.key(1729)
SIZE = 2000

# What rounding makes of a right array is no mistake, whatever the moments say.
NARROW = {
    "narrower than a step": (jaxinit.normal(1.0, mean=1e8), "float32"),
    "a few steps wide": (jaxinit.normal(1.0, mean=4e6), "float32"),
    "all on one number": (jaxinit.normal(1e-8, mean=1.0), "float32"),
    "bounds a few steps apart": (jaxinit.uniform(low=1.0, high=1.0000005), "float32"),
    "a tail": (jaxinit.truncated_normal(1.0, low=1e4, high=2e4), "float32"),
    "all round to zero": (jaxinit.normal(1e-4), "float8_e4m3fn"),
    "nearly all round to zero": (jaxinit.normal(2.6e-4), "float8_e4m3fn"),
}


def drawn(init, dtype, size=SIZE):
    plan = jaxinit.plan({"a": jax.ShapeDtypeStruct((size,), dtype)}, {"a": init})
    return plan.init(KEY), plan


@pytest.mark.parametrize("name", sampled(NARROW, [*NARROW][2:]))
def test_rounding_is_no_mistake(name):
    init, dtype = NARROW[name]
    for size in (1, SIZE):
        params, plan = drawn(init, dtype, size)
        assert_moments(params, plan)
        assert_variance(params["a"], init)


WRONG = {
    "mean off by ten steps": ("narrower than a step", lambda x: x + 10 * 8),
    "deviation of ten steps": (
        "narrower than a step",
        lambda x: 1e8 + 80 * np.sign(x - 1e8 + np.where(np.arange(SIZE) % 2, 1, -1)),
    ),
    "deviation of two": ("a few steps wide", lambda x: 4e6 + 2 * (x - 4e6)),
    "mean of a thousand steps": ("all on one number", lambda x: x + 1e-4),
    "some are not zero": ("all round to zero", lambda x: x + (np.arange(SIZE) < 3)),
}


@pytest.mark.parametrize("name", WRONG)
def test_more_than_rounding_is(name):
    case, change = WRONG[name]
    params, plan = drawn(*NARROW[case])
    x = params["a"]
    wrong = jnp.asarray(change(np.asarray(x, np.float64)), x.dtype)
    with pytest.raises(AssertionError):
        assert_moments({"a": wrong}, plan)


@pytest.mark.parametrize("stddev", [1e38, 1e140, 1.0])
def test_bounds_as_wide_as_the_dtype(stddev):
    """Nothing passes them, also where their distance is no number of the dtype."""
    init = jaxinit.truncated_normal(stddev, low=-3e38, high=3e38)
    x = np.asarray(init(KEY, (SIZE,)), np.float64)
    expected = init.moments((SIZE,))
    assert np.abs(x).max() <= np.float32(3e38)
    error = (expected.kurtosis - 1) ** 0.5 / 2 / SIZE**0.5
    assert abs(x.std() / expected.std - 1) < 6.2 * error  # one false alarm in 1e9
    assert abs(x.mean()) < 6.2 * expected.std / SIZE**0.5


def test_constants_may_be_as_small_as_they_are():
    x = jaxinit.constant(1e-40)(KEY, (3,))
    assert (np.asarray(x) == np.float32(1e-40)).all()
    assert (np.asarray(jaxinit.normal(0.0)(KEY, (3,))) == 0).all()


BETWEEN = {
    "tail": jaxinit.truncated_normal(1.0, low=1.0, high=4.0),
    "lower tail": jaxinit.truncated_normal(1.0, low=-1.2, high=-1.0, mean=0.5),
    "around its mean": jaxinit.truncated_normal(0.3, low=-0.1, high=2.0, mean=0.7),
    "flat": jaxinit.truncated_normal(1.0, low=0.5, high=0.5000003),
}


@pytest.mark.parametrize("name", sampled(BETWEEN, [*BETWEEN][1:]))
def test_parts_in_short_loops_are_those_of_the_whole(name):
    """XLA contracts sums of products in loops of more than 8, and not in others."""
    init = BETWEEN[name]
    mesh = jax.make_mesh((4, 2), ("data", "model"))
    whole = np.asarray(init(KEY, (16, 32)))
    for spec in (jax.P(None, "data"), jax.P(None, ("data", "model"))):
        placed = init(KEY, (16, 32), out_sharding=jax.NamedSharding(mesh, spec))
        np.testing.assert_array_equal(placed, whole)
