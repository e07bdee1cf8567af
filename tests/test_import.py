"""`import jaxinit`: what it loads, in a process of its own."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
REPORT = """
import json, sys
before = set(sys.modules)
{code}
from jax._src import xla_bridge
packages = {{name.partition(".")[0] for name in set(sys.modules) - before}}
started = xla_bridge.backends_are_initialized()
print(json.dumps([sorted(packages - sys.stdlib_module_names), started]))
"""


def loaded(code: str) -> tuple[set[str], bool]:
    """Packages outside Python's own that `code` loads; whether it starts a backend."""
    command = [sys.executable, "-c", REPORT.format(code=code)]
    done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE)
    packages, started = json.loads(done.stdout)
    return set(packages), started


def test_import_loads_jax_and_numpy_and_starts_nothing():
    expected, _ = loaded("import jax, numpy")
    packages, started = loaded("import jaxinit")
    assert packages == expected | {"jaxinit"}
    assert not started


def test_the_checks_see_more():
    packages, started = loaded("import jaxinit, rich, jax; jax.devices()")
    assert "rich" in packages
    assert started
