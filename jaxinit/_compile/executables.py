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

import contextlib
import functools
import operator
import os
import re
import threading
import time
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from jaxinit._compile.exact import Kind
from jaxinit._compile.leaf_program import AnyProgram, word_names
from jaxinit._compile.placement import Placement, committed_sharding, mesh_in_use
from jaxinit._compile.recent import Recent
from jaxinit._compile.values import Argument
from jaxinit._kernel.options import compiler_options, setting


@dataclass(frozen=True)
class CompiledProgram:
    """An executable for equal programs.

    Attributes:
        call: the executable.
        seconds: time its compilation took.
        is_copy: whether it copies the `fill` of a program, which it takes as its input.
    """

    call: jax.stages.Compiled
    seconds: float
    is_copy: bool = False


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
    wanted: dict[Hashable, AnyProgram] = {}
    for name, program in zip(names, programs, strict=True):
        if name in executables or name in wanted:
            continue
        kept = None if program.holds_arrays else _SHARED.get(name)
        if kept is not None:
            executables[name] = kept
        else:
            wanted[name] = program
    new = _compiled_in_parallel(list(wanted.values()), args, placement, options)
    for (name, program), executable in zip(wanted.items(), new, strict=True):
        executables[name] = executable
        if not program.holds_arrays:
            _SHARED.put(name, executable)
    return [executables[name] for name in names]


def _compiled_in_parallel(programs, args, placement, options) -> list[CompiledProgram]:
    """Compiles in threads, where XLA does not hold Python's lock.

    Each begins as soon as it is lowered, which is Python, and done one by one.
    """
    import concurrent.futures  # not needed to import jaxinit

    if not programs:
        return []
    workers = min(len(programs), os.cpu_count() or 1)
    pool = concurrent.futures.ThreadPoolExecutor(workers)
    with _cached_on_disk(), pool:
        begun = []
        for program in programs:
            compile_ = _lowered(program, args, placement, options)
            begun.append(
                pool.submit(_timed, compile_, _fill(program, placement) is not None)
            )
        return [each.result() for each in begun]


_CACHE_CHANGES = threading.Lock()
_LEAST_SECONDS = "jax_persistent_cache_min_compile_time_secs"


@contextlib.contextmanager
def _cached_on_disk() -> Iterator[None]:
    """Lets jax keep all that is compiled meanwhile on disk, if it has a cache there.

    It leaves out what is compiled in less than a second, as every program here is.
    """
    if not setting("jax_compilation_cache_dir"):
        yield
        return
    with _CACHE_CHANGES:
        before = jax.config.values[_LEAST_SECONDS]  # of the process, not of the thread
        jax.config.update(_LEAST_SECONDS, 0)
        try:
            yield
        finally:
            # Unless it was set anew meanwhile, by another thread.
            if jax.config.values[_LEAST_SECONDS] == 0:
                jax.config.update(_LEAST_SECONDS, before)


def _timed(compile_: Callable[[], jax.stages.Compiled], is_copy) -> CompiledProgram:
    start = time.perf_counter()
    call = compile_()
    return CompiledProgram(call, time.perf_counter() - start, is_copy)


def _fill(program: AnyProgram, placement: Placement) -> np.ndarray | None:
    """The constant to be copied from the host, if it goes to one device; else None."""
    fill = program.fill
    if fill is None or any(placement.outputs[leaf] for leaf in program.leaves):
        return None
    if jax.dtypes.canonicalize_dtype(fill.dtype) != fill.dtype:
        return None  # of 64 bits, which were in force in the function alone
    is_on_one = placement.home is None or len(placement.home.device_set) == 1
    return fill if is_on_one else None


def _name(program: AnyProgram, args: Sequence[Any], placement: Placement) -> Hashable:
    fill = _fill(program, placement)
    if fill is not None:
        return ("copy", fill.shape, fill.dtype, placement.home)
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
    fill = _fill(program, placement)
    if fill is not None:
        filled = jax.ShapeDtypeStruct(fill.shape, fill.dtype, sharding=home)
        copy = jax.jit(_copy, out_shardings=home, compiler_options=options or None)
        return copy.lower(filled).compile
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


def _copy(x: jax.Array) -> list[jax.Array]:
    return [x]


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
