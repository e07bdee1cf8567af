"""Executables of leaf programs: each different one is compiled once, and kept.

Two layers of one function are equal programs, and so are layers of two functions. Take
a program with input `Keys(1)` that draws `f32[8,4]`. Its executable is kept under

    signature    the equations; see `leaf_program`
    outputs      the sharding of each output, None for wherever it is computed
    arguments    shape, dtype and sharding of each argument; none here
    home         where it runs, if nothing above says so
    settings     the configuration of jax, the mesh in use, compiler options

What holds: everything that changes an executable is in its name, and all that are
missing are compiled in parallel. Arrays that a function closes over are written into
its programs; such an executable is kept by the function itself, and goes with it.
"""

import functools
import operator
import os
import re
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from jaxinit._compile.exact import Kind
from jaxinit._compile.graph import Argument
from jaxinit._compile.leaf_program import AnyProgram, word_names
from jaxinit._compile.placement import Placement, committed_sharding, mesh_in_use
from jaxinit._compile.recent import Recent
from jaxinit._kernel.options import compiler_options


@dataclass(frozen=True)
class CompiledProgram:
    """An executable for equal programs, and how many seconds its compilation took."""

    call: jax.stages.Compiled
    seconds: float


# Executables that any function may use: of programs that hold no arrays of a function.
_SHARED: Recent[CompiledProgram] = Recent(1024)


def compiled(
    programs: Sequence[AnyProgram],
    args: Sequence[Any],
    placement: Placement,
    options: Mapping[str, Any],
) -> list[CompiledProgram]:
    """One executable for each program; equal programs share it.

    Args:
        programs: the programs.
        args: flat arguments of the function they are of.
        placement: where they run and where their outputs go.
        options: compiler options of XLA for each program.
    """
    in_force = (settings(), repr(sorted(options.items())))
    names = [(_name(program, args, placement), in_force) for program in programs]
    executables: dict[Hashable, CompiledProgram] = {}
    wanted: dict[Hashable, tuple[AnyProgram, Callable[[], jax.stages.Compiled]]] = {}
    for name, program in zip(names, programs, strict=True):
        if name in executables or name in wanted:
            continue
        kept = None if program.holds_arrays else _SHARED.get(name)
        if kept is not None:
            executables[name] = kept
        else:
            wanted[name] = program, _lowered(program, args, placement, options)
    new = _compiled_in_parallel([compile_ for _, compile_ in wanted.values()])
    for (name, (program, _)), executable in zip(wanted.items(), new, strict=True):
        executables[name] = executable
        if not program.holds_arrays:
            _SHARED.put(name, executable)
    return [executables[name] for name in names]


def _compiled_in_parallel(
    wanted: Sequence[Callable[[], jax.stages.Compiled]],
) -> list[CompiledProgram]:
    """Compiles in threads: XLA does not hold Python's lock."""
    import concurrent.futures  # not needed to import jaxinit

    workers = max(1, min(len(wanted), os.cpu_count() or 1))
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        return list(pool.map(_timed, wanted))


def _timed(compile_: Callable[[], jax.stages.Compiled]) -> CompiledProgram:
    start = time.perf_counter()
    call = compile_()
    return CompiledProgram(call, time.perf_counter() - start)


def _name(program: AnyProgram, args: Sequence[Any], placement: Placement) -> Hashable:
    arguments = _arguments(program, args)
    return (
        program.signature,
        tuple(placement.outputs[leaf] for leaf in program.leaves),
        tuple((jax.typeof(x), committed_sharding(x)) for x in arguments),
        _home(program, args, placement),
    )


def _arguments(program: AnyProgram, args: Sequence[Any]) -> list[Any]:
    return [args[v.position] for v in program.inputs if isinstance(v, Argument)]


def _home(program: AnyProgram, args: Sequence[Any], placement: Placement) -> Any:
    """Where a program runs whose own arguments and outputs are bound to no place."""
    places = [placement.outputs[leaf] for leaf in program.leaves]
    places += map(committed_sharding, _arguments(program, args))
    return None if any(places) else placement.home


# Settings of jax that only report, by parts of their names: they change no program.
_REPORTING = re.compile("log|guard|trac|cache|dump|debug|explain|report|warn")


def settings() -> Hashable:
    """The configuration that a compilation depends on: the mesh and jax's settings."""
    values = jax.config.values  # a dictionary made anew each time
    of_thread, of_process = _settings_of(len(values))
    return mesh_in_use(), of_thread(jax.config), of_process(values)


@functools.lru_cache(4)
def _settings_of(
    _count: int,
) -> tuple[Callable[[Any], tuple[Any, ...]], Callable[[Any], tuple[Any, ...]]]:
    """What looks up the settings of a thread, and those of the whole process.

    All but those that only report: which of them a compilation depends on, jax does not
    say. Some are added when a part of jax is imported, so that their count is the key.
    """
    names = [name for name in jax.config.values if not _REPORTING.search(name)]
    of_thread = [name for name in names if hasattr(jax.config, name)]
    of_process = [name for name in names if name not in of_thread]
    return operator.attrgetter(*of_thread), operator.itemgetter(*of_process)


def _lowered(program, args, placement, options) -> Callable[[], jax.stages.Compiled]:
    home = _home(program, args, placement)
    inputs = [_input(value, args, home) for value in program.inputs]
    # A program without inputs follows none, and is told where the others run.
    default = None if inputs else home
    outputs = [placement.outputs[leaf] or default for leaf in program.leaves]
    fused = program.kind is Kind.FUSED
    fastest = compiler_options(placement.platform) if fused else None
    jitted = jax.jit(
        program,
        out_shardings=outputs if any(outputs) else None,
        compiler_options={**(fastest or {}), **options} or None,
    )
    return jitted.lower(*inputs).compile


def _input(value: Any, args: Sequence[Any], home: Any) -> Any:
    """What a program is lowered for in place of an input."""
    if not isinstance(value, Argument):
        shape = word_names(value).shape
        return jax.ShapeDtypeStruct(shape, np.uint32, sharding=home)
    arg = args[value.position]
    if home is None:
        return arg
    aval: Any = jax.typeof(arg)
    is_weak = getattr(aval, "weak_type", False)
    return jax.ShapeDtypeStruct(
        aval.shape, aval.dtype, sharding=home, weak_type=is_weak
    )
