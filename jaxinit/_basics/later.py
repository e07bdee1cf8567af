"""The modules that `import jaxinit` does not load, since some need other packages."""

import importlib
from types import ModuleType

_MODULES = (
    *("audit", "check", "compare", "data_dependent", "linen", "nnx", "plots"),
    *("report", "schemes", "signal", "stats", "testing"),
)


def __getattr__(name: str) -> ModuleType:
    """Loads `jaxinit.nnx` and the like when they are first used."""
    if name not in _MODULES:
        raise AttributeError(f"module 'jaxinit' has no attribute {name!r}")
    try:
        return importlib.import_module(f"jaxinit.{name}")
    except ModuleNotFoundError as error:
        raise AttributeError(
            f"jaxinit.{name} needs {error.name}, which is not installed: pip install "
            "'jaxinit[all]'"
        ) from error
