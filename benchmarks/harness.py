"""What every benchmark needs: rounds, fresh processes, tables, and results on disk.

This file imports nothing outside the standard library, so that a fresh process can
measure what an import costs.
"""

import datetime
import importlib.metadata
import importlib.util
import json
import os
import platform
import re
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results"
_PACKAGES = ("jax", "jaxlib", "libtpu", "numpy", "flax", "dm-haiku", "equinox", "torch")
_VECTORS = {"avx512f": "AVX-512", "avx2": "AVX2"}  # the widest first
_RUN = """
import json, sys
from {module} import {name} as measure
print(json.dumps(measure(*json.loads(sys.argv[1]))))
"""


def interleaved(calls: Mapping[Any, Callable[[], Any]], rounds: int) -> dict:
    """What every call returned, once per round.

    All calls take turns, in an order that is reversed every round, so that a machine
    that gets slower or faster does so for all of them.
    """
    results: dict[Any, list] = {name: [] for name in calls}
    for round_ in range(rounds):
        for name in list(calls)[:: -1 if round_ % 2 else 1]:
            print(f"round {round_ + 1} of {rounds}: {name}", file=sys.stderr)
            results[name].append(calls[name]())
    return results


def fresh(measure: Callable[..., Any], *args: Any, **variables: str) -> Any:
    """`measure(*args)` in a process of its own; arguments and result are JSON.

    It keeps the bytecode of what it imports, as pip does for packages it installs.

    Args:
        measure: function of a module.
        *args: its arguments.
        **variables: variables of the environment for that process.
    """
    code = _RUN.format(module=measure.__module__, name=measure.__name__)
    command = [sys.executable, "-c", code, json.dumps(args)]
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": ""} | variables
    done = subprocess.run(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, check=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def reset_peak() -> None:
    """Makes the peak of memory that Linux reports that of what follows."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def memory(field: str) -> int | None:
    """Bytes of this process, as Linux names them: "VmRSS" now, "VmHWM" at most."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return None
    match = re.search(rf"{field}:\s*(\d+) kB", status)
    return 1024 * int(match[1]) if match else None


def is_installed(package: str) -> bool:
    """Whether `package` can be imported."""
    return importlib.util.find_spec(package) is not None


def ratio(slow: Sequence[float], fast: Sequence[float]) -> float:
    """How many times as fast: the median over rounds of ratios within a round."""
    return statistics.median(a / b for a, b in zip(slow, fast, strict=True))


@dataclass(frozen=True)
class Table:
    """A table of text, printed as Markdown."""

    title: str
    head: tuple[str, ...]
    rows: list[tuple[str, ...]]

    def __str__(self):
        columns = zip(self.head, *self.rows, strict=True)
        widths = [max(map(len, column)) for column in columns]
        rule = tuple("-" * width for width in widths)
        lines = (_line(row, widths) for row in (self.head, rule, *self.rows))
        return "\n".join([self.title, "", *lines, ""])


def _line(cells: Iterable[str], widths: list[int]) -> str:
    padded = (cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
    return f"| {' | '.join(padded)} |"


def versions() -> dict[str, str]:
    """Versions of Python and of the packages compared, where installed."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def device() -> str:
    """The device that jax runs on here. Starts jax's backend."""
    import jax

    return jax.devices()[0].device_kind


def processor() -> str:
    """Name of the processor, its widest vectors, and the cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    said = {
        name.strip(): value.strip()
        for name, _, value in (line.partition(":") for line in lines)
    }
    flags = said.get("flags", "").split()
    names = [said.get("model name", platform.machine())]
    names += [word for flag, word in _VECTORS.items() if flag in flags][:1]
    return ", ".join([*names, f"{cores} cores"])


def record(name: str, rows: list[dict]) -> dict:
    """A result, with all that is needed to read it later."""
    return {
        "benchmark": name,
        "taken": datetime.date.today().isoformat(),
        "device": fresh(device),
        "processor": processor(),
        "versions": versions(),
        "rows": rows,
    }


def save(result: dict) -> Path:
    """Writes a result where the last one for this jax version and processor was."""
    RESULTS.mkdir(exist_ok=True)
    taken_by = f"jax{result['versions']['jax']}-{slug(result['processor'])}"
    path = RESULTS / f"{result['benchmark']}-{taken_by}.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    return path


def slug(processor: str) -> str:
    """A name for files: "Intel(R) Xeon(R) Processor, 2 cores" is intel-xeon-processor.

    A clock rate is no part of it.
    """
    name = re.sub(r"\(.*?\)|@.*", " ", processor.partition(",")[0].lower())
    return "-".join(re.findall(r"\w+", name))


def load(name: str) -> list[dict]:
    """The last results of a benchmark, by jax version and time."""
    found = map(json.loads, map(Path.read_text, RESULTS.glob(f"{name}-jax*.json")))
    return sorted(
        found, key=lambda each: (numbers(each["versions"]["jax"]), each["taken"])
    )


def numbers(version: str) -> list[int]:
    """A version as what it is sorted by."""
    return [int(part) for part in version.split(".") if part.isdigit()]
