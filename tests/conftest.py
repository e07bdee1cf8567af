"""Eight CPU devices for every test, as sharding needs them; programs are compiled once.

What was compiled is kept in pytest's cache folder, for the tests, the processes that
they start, and the next run. `pytest --cache-clear` begins anew.
"""

import os
from pathlib import Path

os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
)
os.environ.setdefault(
    "JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parents[1] / ".pytest_cache/jax")
)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")

import jax
import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What waits for processes comes first, so that nothing waits for it at the end."""
    items.sort(key=lambda item: "many" not in getattr(item, "fixturenames", ()))


@pytest.fixture
def key() -> jax.Array:
    """A key, the same in every test."""
    return jax.random.key(1729)
