"""Executables of leaf programs: each different one compiled once, and kept."""

import functools
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
from jaxinit._kernel.options import compiler_options, setting


@dataclass(frozen=True)
class CompiledProgram:
    """An executable for a class of equal programs, and the seconds it took to make."""

    call: jax.stages.Compiled
    seconds: float


# Those of programs that hold no arrays of a function: any function may use them.
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
        options: what else XLA is told about each compilation.
    """
    in_force = (settings(), repr(sorted(options.items())))
    names = [(_name(program, args, placement), in_force) for program in programs]
    found: dict[Hashable, CompiledProgram] = {}
    wanted: dict[Hashable, tuple[AnyProgram, Callable[[], jax.stages.Compiled]]] = {}
    for name, program in zip(names, programs, strict=True):
        if name in found or name in wanted:
            continue
        known = None if program.holds_arrays else _SHARED.get(name)
        if known is not None:
            found[name] = known
        else:
            wanted[name] = program, _lowered(program, args, placement, options)
    for (name, (program, _)), made in zip(
        wanted.items(), _compiled(wanted.values()), strict=True
    ):
        found[name] = made
        if not program.holds_arrays:
            _SHARED.put(name, made)
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
    """Where a program goes that no input and no output of its own is bound to."""
    places = [placement.outputs[leaf] for leaf in program.leaves]
    places += map(committed_sharding, _arguments(program, args))
    return None if any(places) else placement.home


# Settings of jax that only watch, by parts of their names: they change no program.
_WATCHING = re.compile("log|guard|trac|cache|dump|debug|explain|report|warn")


def settings() -> Hashable:
    """What else a compilation depends on: the configuration in force."""
    own, shared = _setting_names(len(jax.config.values))
    return (
        mesh_in_use(),
        *map(setting, own),
        *map(jax.config.values.__getitem__, shared),
    )


@functools.cache
def _setting_names(_count: int) -> tuple[list[str], list[str]]:
    """Names of the settings that each thread has, and of those of the whole process.

    All are taken but those that only watch: jax knows which of them a compilation
    depends on, and does not say.
    """
    names = [name for name in jax.config.values if not _WATCHING.search(name)]
    own = [name for name in names if hasattr(jax.config, name)]
    return own, [name for name in names if name not in own]


def _lowered(program, args, placement, options) -> Callable[[], jax.stages.Compiled]:
    home = _home(program, args, placement)
    inputs = [_input(value, args, home) for value in program.inputs]
    # What has no input to follow is told where the others are.
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
    """What to lower for as an input."""
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
