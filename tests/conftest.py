"""Eight CPU devices for every test, as sharding needs them; programs are compiled once.

`JAX_PLATFORMS` chooses other devices. Tests that need more than there are are skipped.

What was compiled is kept in pytest's cache folder, for the tests, the processes that
they start, and the next run. `pytest --cache-clear` begins anew.

Programs are compiled quickly, to code that is somewhat slower and has the same bits.
`XLA_FLAGS=--xla_backend_optimization_level=3` compiles them as users do.

Of the cases of a test marked `sample(n)`, `n` run by default, evenly spread.

Modules marked `unoptimized` claim no bits, but for what is marked `optimized`, and XLA
does not optimize their programs, which compiles them in half the time; nor those of
most doctests. They come last, and no program of theirs is left for a test that is
optimized.
"""

import contextlib
import functools
import gc
import os
import traceback
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

_FLAGS = os.environ.get("XLA_FLAGS", "")
_LEVEL = "--xla_backend_optimization_level"
if _LEVEL not in _FLAGS:
    _FLAGS += f" {_LEVEL}=1 --xla_backend_extra_options=xla_cpu_optimize_for_size"
    # To cut small programs for many threads takes longer than it saves.
    _FLAGS += " --xla_cpu_parallel_codegen_split_count=1"
    if version("jaxlib").startswith("0.10."):  # later ones stop at a flag they lack
        _FLAGS += " --xla_cpu_use_fusion_emitters=false"
if "--xla_force_host_platform_device_count" not in _FLAGS:
    _FLAGS += " --xla_force_host_platform_device_count=8"
os.environ["XLA_FLAGS"] = _FLAGS
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # processes share a GPU
os.environ.setdefault(
    "JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parents[1] / ".pytest_cache/jax")
)
# To keep what is compiled sooner takes longer than it saves.
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")

import jax  # noqa: E402
import pytest  # noqa: E402

FEW = jax.device_count() < 8
# Where most is cut over eight devices, as soon as the module is imported.
collect_ignore = ["test_devices.py", "test_jit_semantics.py"] if FEW else []
ROOMS_OF_BITS = {"_compile", "_kernel", "_tree"}  # whose doctests are optimized

gc.set_threshold(200_000, 20, 100)  # jax and its traces make many objects, few cycles


def pytest_report_header() -> str:
    """What the tests run on, and which are left out there."""
    device = jax.devices()[0]
    without = f", without {' and '.join(collect_ignore)}" if FEW else ""
    return f"{jax.device_count()} of {device.device_kind} ({device.platform}){without}"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What waits for processes comes first, so that nothing waits for it at the end."""
    _take_samples(items)
    items.sort(key=lambda item: (not _waits(item), _is_unoptimized(item)))


def _take_samples(items: list[pytest.Item]) -> None:
    """Marks as exhaustive what is beyond the samples of tests that ask for some."""
    cases: dict[str, list[pytest.Item]] = {}
    for item in items:
        if not item.get_closest_marker("exhaustive"):
            cases.setdefault(item.nodeid.partition("[")[0], []).append(item)
    for of_test in cases.values():
        marker = of_test[0].get_closest_marker("sample")
        count = marker.args[0] if marker else len(of_test)
        kept = {i * len(of_test) // count for i in range(count)}
        for i, item in enumerate(of_test):
            if i not in kept:
                item.add_marker("exhaustive")


class Optimizing:
    """Programs are optimized, or not, as the module of a test or doctest asks."""

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        setting = "jax_disable_most_optimizations"
        if jax.config.values[setting] != _is_unoptimized(item):
            jax.config.update(setting, _is_unoptimized(item))
            _forget_programs()


def pytest_configure(config: pytest.Config) -> None:
    """A plugin, as hooks of this file are not called for what is outside its folder."""
    config.pluginmanager.register(Optimizing())


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function):
    with _skipping_without_devices():
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(fixturedef):
    with _skipping_without_devices():
        return (yield)


@contextlib.contextmanager
def _skipping_without_devices() -> Iterator[None]:
    """Skips what fails for want of devices, where there are fewer than eight."""
    try:
        yield
    except (ValueError, IndexError) as error:
        last = traceback.extract_tb(error.__traceback__)[-1].line or ""
        needs = "Number of devices" in str(error) or "devices" in last.lower()
        if FEW and needs:
            pytest.skip(f"needs more devices: {error}")
        raise


def _waits(item: pytest.Item) -> bool:
    return "many" in getattr(item, "fixturenames", ())


def _is_unoptimized(item: pytest.Item) -> bool:
    if isinstance(item, pytest.DoctestItem):
        return not ROOMS_OF_BITS.intersection(item.path.parts)
    claims_bits = item.get_closest_marker("optimized") is not None
    return item.get_closest_marker("unoptimized") is not None and not claims_bits


def _forget_programs() -> None:
    """Empties the caches of jax, of jaxinit, and of the functions that tests share."""
    jax.clear_caches()
    files = Path(__file__).parent.glob("*.py")
    own = {"jaxinit", "tests", *(path.stem for path in files)}
    for each in gc.get_objects():
        if isinstance(each, functools._lru_cache_wrapper):
            package, _, _ = str(each.__module__).partition(".")
            if package in own:
                each.cache_clear()


@pytest.fixture
def key() -> jax.Array:
    """A key, the same in every test."""
    return jax.random.key(1729)
