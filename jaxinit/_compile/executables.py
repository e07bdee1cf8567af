"""Executables of leaf programs: each different one compiled once, and kept."""

import collections
import os
import threading
import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from jaxinit._array.kernel import compiler_options, setting
from jaxinit._compile.exact import Kind
from jaxinit._compile.graph import Argument
from jaxinit._compile.placement import Placement
from jaxinit._compile.program import AnyProgram, word_names


@dataclass(frozen=True)
class CompiledProgram:
    """An executable for a class of equal programs, and the seconds it took to make."""

    call: jax.stages.Compiled
    seconds: float


class ProgramCache:
    """Executables by name; the least recently used are dropped.

    Safe to use from several threads. A program wanted by two threads at once may be
    compiled twice; both executables are right.
    """

    def __init__(self, size: int = 1024):
        self._size = size
        self._lock = threading.Lock()
        self._entries: collections.OrderedDict[Hashable, CompiledProgram]
        self._entries = collections.OrderedDict()

    def get(self, name: Hashable) -> CompiledProgram | None:
        """The executable under `name`, if it is still kept."""
        with self._lock:
            entry = self._entries.get(name)
            if entry is not None:
                self._entries.move_to_end(name)
            return entry

    def put(self, name: Hashable, entry: CompiledProgram) -> None:
        """Keeps `entry` under `name`."""
        with self._lock:
            self._entries[name] = entry
            while len(self._entries) > self._size:
                self._entries.popitem(last=False)


_SHARED = ProgramCache()


def compiled(
    programs: Sequence[AnyProgram],
    args: Sequence[Any],
    placement: Placement,
    own: ProgramCache,
) -> list[CompiledProgram]:
    """One executable for each program; equal programs share it.

    Args:
        programs: the programs.
        args: flat arguments of the function they are of.
        placement: where they run and where their outputs go.
        own: keeps the executables of programs that hold arrays of the function. All
            others are kept for every function of this process.
    """
    names = [_name(program, args, placement) for program in programs]
    found: dict[Hashable, CompiledProgram] = {}
    wanted: dict[Hashable, tuple[AnyProgram, Callable[[], jax.stages.Compiled]]] = {}
    for name, program in zip(names, programs, strict=True):
        if name in found or name in wanted:
            continue
        known = (own if program.holds_arrays else _SHARED).get(name)
        if known is not None:
            found[name] = known
        else:
            wanted[name] = program, _lowered(program, args, placement)
    for (name, (program, _)), made in zip(
        wanted.items(), _compiled(wanted.values()), strict=True
    ):
        found[name] = made
        (own if program.holds_arrays else _SHARED).put(name, made)
    return [found[name] for name in names]


def _compiled(wanted) -> list[CompiledProgram]:
    """Compiles in parallel: XLA does not hold Python's lock."""
    import concurrent.futures  # not needed to import jaxinit

    workers = max(1, min(len(wanted), os.cpu_count() or 1))
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        return list(pool.map(_timed, (compile_ for _, compile_ in wanted)))


def _timed(compile_: Callable[[], jax.stages.Compiled]) -> CompiledProgram:
    start = time.perf_counter()
    call = compile_()
    return CompiledProgram(call, time.perf_counter() - start)


def _name(program: AnyProgram, args: Sequence[Any], placement: Placement) -> Hashable:
    arguments = [args[v.position] for v in program.inputs if isinstance(v, Argument)]
    return (
        program.signature,
        _outputs(program, placement),
        tuple(map(_argument_token, arguments)),
        placement.inputs,
        _settings(),
    )


def _outputs(program: AnyProgram, placement: Placement) -> tuple:
    # With no input to follow, constants go where the others are told to.
    default = None if program.inputs else placement.inputs
    return tuple(placement.outputs[leaf] or default for leaf in program.leaves)


def _argument_token(value: Any) -> Hashable:
    committed = getattr(value, "committed", False)
    return (str(jax.typeof(value)), value.sharding if committed else None)


def _settings() -> Hashable:
    """What else a compilation depends on: the configuration in force."""
    return (
        setting("jax_threefry_partitionable"),
        setting("jax_enable_x64"),
        setting("jax_default_device"),
        jax.sharding.get_abstract_mesh(),
    )


def _lowered(program, args, placement) -> Callable[[], jax.stages.Compiled]:
    inputs = [
        args[value.position]
        if isinstance(value, Argument)
        else jax.ShapeDtypeStruct(
            word_names(value).shape, np.uint32, sharding=placement.inputs
        )
        for value in program.inputs
    ]
    outputs = _outputs(program, placement)
    fused = program.kind is Kind.FUSED
    options = compiler_options(placement.platform) if fused else None
    jitted = jax.jit(
        program,
        out_shardings=list(outputs) if any(outputs) else None,
        compiler_options=options,
    )
    return jitted.lower(*inputs).compile
