"""Eight CPU devices for every test, as sharding needs them."""

import os

os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
)

import jax
import pytest


@pytest.fixture
def key() -> jax.Array:
    """A key, the same in every test."""
    return jax.random.key(1729)
