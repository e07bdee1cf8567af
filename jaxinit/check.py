"""The bits and the speed that this package promises, checked on the device at hand.

What is promised was tested on CPUs. `check` repeats the comparison with jax on your
device and your version of jax: every initializer that jax has, in every dtype and in
awkward shapes; `jaxinit.jit`; a model of each framework that is installed; and times.
"""

import importlib.metadata
from collections.abc import Callable, Collection, Iterator
from typing import Any

import jax

from jaxinit._basics.integers import integer
from jaxinit._basics.names import unknown
from jaxinit._check.draws import NARROW, PAIRS, Draws, narrow_dtypes
from jaxinit._check.functions import functions
from jaxinit._check.models import models
from jaxinit._check.result import Check as Check
from jaxinit._check.result import CheckRow as CheckRow
from jaxinit._check.result import Difference as Difference
from jaxinit._check.result import Timing as Timing
from jaxinit._check.speed import timings
from jaxinit._version import __version__

PARTS = ("initializers", "laws", "functions", "models", "speed")


def check(
    seed: int = 0,
    *,
    quick: bool = False,
    size: int | None = None,
    parts: Collection[str] = PARTS,
    progress: Callable[[str], Any] | None = None,
) -> Check:
    """Compares this package with jax, bit for bit, on the default device.

    The parts are

    - "initializers": those of `jax.nn.initializers`, called as they stand, against
      `jax.jit` of jax's own, in every dtype, empty to large. Floats narrower than
      float32 are promised to be the float32 draw, rounded once, and compared with it.
    - "laws": `jaxinit.jit` of the laws of `jax.random` that these draw.
    - "functions": `jaxinit.jit` of functions that split keys, scan, branch and map.
    - "models": a small model of each framework; one that is not installed is named.
    - "speed": the time of one float32 array of each law, and of filling one.

    Every reference is a program of its own, so that nearly all of the time is XLA's,
    compiling.

    Args:
        seed: seed of the key that all is drawn with.
        quick: whether to take a sample of the cases.
        size: side of the square arrays that are timed; None means 4096, or 2048 of a
            sample.
        parts: which parts to check.
        progress: called with a line about each thing that is done.

    Returns:
        The result. It prints.

    Raises:
        TypeError: if `seed` or `size` is no int.
        ValueError: if `size` is not positive, or there is no part of a name, or none.

    >>> found = check(parts=["speed"], size=64)
    >>> found.different, [timing.what for timing in found.timings]
    (0, ['normal', 'uniform', 'truncated_normal', 'fill'])
    """
    chosen = _checked_parts(parts)
    size = (2048 if quick else 4096) if size is None else integer("size", size)
    if size < 1:
        raise ValueError(f"size must be a positive int, got {size}.")
    seed, tell = integer("seed", seed), progress or (lambda line: None)
    device = _default_device()
    with jax.default_device(device):
        key = jax.device_put(jax.random.key(seed), device)
        narrow = narrow_dtypes(device)
        draws = Draws(key, device, narrow, quick)
        rows = []
        for row in _rows(chosen, draws):
            tell(f"{row.part}: {row.what} {row.result}")
            rows.append(row)
        timed = []
        if "speed" in chosen:
            for timing in timings(key, size, 3 if quick else 9):
                tell(f"speed: {timing.what}")
                timed.append(timing)
    lacking = tuple(name for name in NARROW if name not in narrow)
    found = (tuple(rows), tuple(timed))
    return Check(
        device.device_kind, device.platform, _versions(), seed, lacking, *found
    )


def _rows(parts: Collection[str], draws: Draws) -> Iterator[CheckRow]:
    if "initializers" in parts:
        yield from draws.initializers(PAIRS)
    if "laws" in parts:
        yield from draws.laws()
    if "functions" in parts:
        yield functions(draws.key, draws.device)
    if "models" in parts:
        yield from models(draws.key, draws.device)


def _checked_parts(parts: Collection[str]) -> tuple[str, ...]:
    if isinstance(parts, str) or not parts:
        raise ValueError(
            f"parts must be some of {', '.join(PARTS)}, in a list, got {parts!r}."
        )
    for part in parts:
        if part not in PARTS:
            raise ValueError(unknown("part", part, PARTS))
    return tuple(parts)


def _default_device() -> Any:
    """The device on which jax would compute now."""
    return next(iter(jax.numpy.zeros(()).devices()))


def _versions() -> dict[str, str]:
    of_jax = {name: importlib.metadata.version(name) for name in ("jax", "jaxlib")}
    return {**of_jax, "jaxinit": __version__}
