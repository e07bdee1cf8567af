"""A small model of each framework that is installed, started here and by `jax.jit`."""

import importlib
import importlib.util
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import jax

from jaxinit._check.comparing import Outcome, absent, compared, in_a_line, row
from jaxinit._check.result import CheckRow

# What a framework is called, its module here and the package that it needs.
FRAMEWORKS = {
    "Flax Linen": ("linen", "flax"),
    "Flax NNX": ("nnx", "flax"),
    "Haiku": ("haiku", "haiku"),
    "Equinox": ("equinox", "equinox"),
}


def models(key: Any, device: Any) -> Iterator[CheckRow]:
    """A row for each framework, in parallel; one that is not installed says so."""

    def framework(name: str) -> CheckRow:
        module, package = FRAMEWORKS[name]
        if importlib.util.find_spec(package) is None:
            return absent("models", name, f"{package} is not installed")
        try:
            model = importlib.import_module(f"jaxinit._check.{module}")
        except Exception as error:  # of a release that does not know this jax
            why = f"{package} cannot be imported: {in_a_line(error)}"
            return absent("models", name, why)
        return row("models", name, [partial(_model, model, key, device)])

    with ThreadPoolExecutor(len(FRAMEWORKS)) as pool:
        yield from pool.map(framework, FRAMEWORKS)


def _model(model: Any, key: Any, device: Any) -> Iterator[Outcome]:
    with jax.default_device(device):
        ours, theirs = model.starts(key)
        yield compared("parameters", ours, theirs)
