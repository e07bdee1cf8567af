"""Imports run one way, and heavy packages are imported only where they are named."""

import ast
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "jaxinit"
FILES = sorted(PACKAGE.rglob("*.py"))

# Each room may import from those before it, and from itself.
ROOMS = (
    "_version",
    "_basics",
    "_kernel",
    "laws",
    "_arrays",
    "initializers",
    "_compile",
    "_roles.role",
    "_roles.reading",
    "_roles.patterns",
    "_roles.statistics",
    "_roles.meetings",
    "_tree",
    "schemes",
    "config",
    "linen",
    "nnx",
    "_signal",
    "signal",
    "data_dependent",
    "stats",
    "_audit",
    "audit",
    "_assertion",
    "testing",
    "_compare",
    "compare",
    "_check",
    "check",
    "_rows",
    "report",
    "plots",
    "_cli",
    "cli",
    "__main__",
)
# Only these rooms, or files of one, may import these packages; all may import jax,
# numpy and the rest of what comes with Python.
GUESTS = {
    "flax": {
        "linen",
        "nnx",
        *(
            f"{x}.{y}"
            for x in ("_signal", "_compare", "_check")
            for y in ("linen", "nnx")
        ),
    },
    "rich": {"report", "cli", "_compare.progress"},
    "haiku": {"_check.haiku"},
    "equinox": {"_check.equinox"},
    "chex": {"_assertion"},
    "scipy": {
        "laws",
        "_arrays",
        "initializers",
        "_roles.reading",
        "_roles.statistics",
        "stats",
        "_compare",
    },
    "matplotlib": {"plots"},
    "orbax": {"_cli.checkpoint"},
    "tensorstore": {"_cli.checkpoint"},
    "safetensors": {"_cli.checkpoint"},
    "optax": {"schemes.mup", "_compare.training"},
    "sklearn": {"_compare.datasets"},
    "argcomplete": {"_cli.completion"},
}
EVERYWHERE = {"jax", "numpy", *sys.stdlib_module_names}


def room_of(module: str) -> str:
    """The room of a module of the package, "" for the root."""
    _, *parts = module.split(".")
    within = ".".join(parts[:2])
    return within if within in ROOMS else "".join(parts[:1])


def imports(source: str) -> Iterator[str]:
    """Every module that `source` imports, wherever in it."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names):
                yield from (alias.name for alias in names)
            case ast.ImportFrom(module, _, 0):
                yield module
            case ast.ImportFrom():
                yield "."


def violations(module: str, source: str) -> list[str]:
    """What `module` imports and may not."""
    room = room_of(module)
    return [
        imported
        for imported in imports(source)
        if not (
            _is_below(room, room_of(imported))
            if imported.partition(".")[0] == "jaxinit"
            else _is_allowed(module, imported.partition(".")[0])
        )
    ]


def _is_below(room: str, imported: str) -> bool:
    if imported not in ROOMS:
        return False
    return room == "" or ROOMS.index(imported) <= ROOMS.index(room)


def _is_allowed(module: str, package: str) -> bool:
    within = module.removeprefix("jaxinit.")
    rooms = GUESTS.get(package, set())
    return package in EVERYWHERE or not rooms.isdisjoint({room_of(module), within})


def name_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path) for path in FILES}


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_imports_run_one_way(path):
    assert violations(name_of(path), path.read_text()) == []


PLANTED = {
    "upwards": ("initializers.fans", "from jaxinit._compile.jit import jit"),
    "upwards, in a function": ("_compile.jit", "def f():\n    import jaxinit.cli"),
    "upwards, from room to room of roles": (
        "_roles.reading.flow",
        "from jaxinit._roles.patterns import loops",
    ),
    "the root": ("nnx", "import jaxinit"),
    "a name of the root": ("nnx", "from jaxinit import jit"),
    "relative": ("laws.simple", "from . import base"),
    "flax below the doors": ("_compile.jit", "from flax import nnx"),
    "flax beside its doors": ("_signal.measure", "from flax import linen"),
    "rich outside its rooms": ("nnx", "import rich.table"),
    "scipy outside its rooms": ("_tree.plan", "import scipy.special"),
    "optax outside its room": ("schemes.domains", "import optax"),
    "chex outside its room": ("stats", "import chex"),
    "a stranger": ("laws.simple", "import pandas"),
}


@pytest.mark.parametrize("case", PLANTED)
def test_a_planted_violation_is_found(case):
    module, source = PLANTED[case]
    assert len(violations(f"jaxinit.{module}", source)) == 1


def test_what_is_allowed_passes():
    source = "import jax.numpy, math\nfrom jaxinit.laws import base"
    assert violations("jaxinit.initializers.basic", source) == []


def modules_of(source: str) -> set[str]:
    """The modules of the package that are imported, whole or for names of theirs."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= names & MODULES or {node.module}
    return found & MODULES


def test_no_modules_import_one_another_in_a_circle():
    graph = {name_of(path): modules_of(path.read_text()) for path in FILES}
    assert "jaxinit.laws.base" in graph["jaxinit.laws.simple"]
    tuple(TopologicalSorter(graph).static_order())
    graph["jaxinit.laws.base"] = {"jaxinit.laws.simple"}
    with pytest.raises(CycleError):
        tuple(TopologicalSorter(graph).static_order())


def test_the_root_only_names():
    body = ast.parse((PACKAGE / "__init__.py").read_text()).body[1:]
    assert all(isinstance(node, ast.ImportFrom) for node in body)
    aliases = [alias for node in body for alias in node.names]
    assert all(alias.name == alias.asname for alias in aliases)
