"""`import jaxinit`: what it loads, in a process of its own."""

import functools
import json
import subprocess
import sys
from pathlib import Path

import pytest

import jaxinit

ROOT = Path(__file__).parents[1]
REPORT = """
import json, sys
before = set(sys.modules)
for code in sys.argv[1:]:
    exec(code)
    from jax._src import xla_bridge
    packages = {name.partition(".")[0] for name in set(sys.modules) - before}
    started = xla_bridge.backends_are_initialized()
    print(json.dumps([sorted(packages - sys.stdlib_module_names), started]))
"""


CODES = "import jax, numpy", "import jaxinit", "jaxinit.nnx.create", "jax.devices()"


@functools.cache
def loaded() -> list[tuple[set[str], bool]]:
    """Packages outside Python's own, and whether a backend runs, after each code."""
    command = [sys.executable, "-c", REPORT, *CODES]
    done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE)
    after = map(json.loads, done.stdout.splitlines())
    return [(set(packages), started) for packages, started in after]


def test_import_loads_jax_and_numpy_and_starts_nothing():
    (expected, _), (packages, started), *_, (more, is_started) = loaded()
    assert packages == expected | {"jaxinit"}
    assert not started
    assert "rich" in more, "negative control: flax imports it"
    assert is_started, "negative control"


def test_other_modules_are_loaded_when_they_are_used():
    _, (before, _), (after, _), _ = loaded()
    assert "flax" not in before
    assert "flax" in after


def test_names_that_are_not_there(monkeypatch):
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        jaxinit.nothing  # noqa: B018
    for name in ("jaxinit.nnx", "flax"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delattr(jaxinit, "nnx", raising=False)
    with pytest.raises(AttributeError, match=r"jaxinit\.nnx needs .*pip install"):
        jaxinit.nnx  # noqa: B018
