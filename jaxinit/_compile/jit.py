"""`jaxinit.jit`: compile any init function once per different leaf."""

import functools
import inspect
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
from jax.core import Tracer
from jax.sharding import AbstractMesh, NamedSharding, PartitionSpec

from jaxinit._array.kernel import setting
from jaxinit._compile.placement import (
    Placement,
    explicit_mesh,
    flat_shardings,
    inside_auto_axes,
    is_tracing,
    on_mesh,
    placed,
    placement_of,
    with_auto_axes,
)

if TYPE_CHECKING:
    from jaxinit._compile.executables import CompiledProgram
    from jaxinit._compile.plan import LeafPlan


@dataclass(frozen=True)
class ProgramSummary:
    """One compiled program.

    Attributes:
        leaves: paths of the outputs it makes, one tuple for each time it runs.
        bytes: size of all these outputs.
        temp_bytes: what one run needs on each device beside its outputs.
        seconds: time its compilation took; of the first one, if it was known before.
    """

    leaves: tuple[tuple[str, ...], ...]
    bytes: int
    temp_bytes: int
    seconds: float


class Programs:
    """An init function traced and compiled for its arguments, ready to run.

    Iterating gives a `ProgramSummary` for each different program; printing gives a
    table of them.

    Attributes:
        trace_seconds: time to trace the function and cut it into programs.
        compile_seconds: time to compile all programs.
        bytes: size of all outputs.
    """

    def __init__(self, plan, args, placement, compiled, out_tree, paths, seconds):
        self._plan: LeafPlan = plan
        self._args: Sequence[Any] = args
        self._placement: Placement = placement
        self._compiled: list[CompiledProgram] = compiled
        self._out_tree = out_tree
        self._paths: list[str] = paths
        self.trace_seconds, self.compile_seconds = seconds
        self.bytes = sum(map(plan.bytes_of, plan.programs))

    def run(self, progress: Callable[[int], Any] | None = None) -> Any:
        """Computes the outputs of the function.

        Args:
            progress: called with the number of bytes of each program that was started.

        Returns:
            What the function returns. The arrays may still be being computed, as always
            in JAX; `jax.block_until_ready` waits for them.
        """
        words = self._plan.words(self._args)
        outputs = self._direct_outputs(words)
        for program, compiled in zip(self._plan.programs, self._compiled, strict=True):
            values = compiled.call(*self._plan.inputs(program, words, self._args))
            outputs.update(zip(program.leaves, values, strict=True))
            if progress is not None:
                progress(self._plan.bytes_of(program))
        flat = [outputs[leaf] for leaf in range(len(outputs))]
        return jax.tree.unflatten(self._out_tree, flat)

    def _direct_outputs(self, words: Any) -> dict[int, Any]:
        outputs = self._plan.direct_outputs(self._args, words)
        shardings = self._placement.outputs
        return {leaf: placed(x, shardings[leaf]) for leaf, x in outputs.items()}

    def __iter__(self) -> Iterator[ProgramSummary]:
        uses: dict[int, list] = {}
        for program, compiled in zip(self._plan.programs, self._compiled, strict=True):
            uses.setdefault(id(compiled), []).append((program, compiled))
        for members in uses.values():
            leaves = (tuple(self._paths[i] for i in p.leaves) for p, _ in members)
            size = sum(self._plan.bytes_of(program) for program, _ in members)
            compiled = members[0][1]
            temporary = compiled.call.memory_analysis().temp_size_in_bytes
            yield ProgramSummary(tuple(leaves), size, temporary, compiled.seconds)

    def __len__(self) -> int:
        return len({id(compiled) for compiled in self._compiled})

    def __str__(self) -> str:
        lines = [
            f"{len(self)} programs for {len(self._paths)} leaves, {self.bytes:,} bytes"
            f"; trace {self.trace_seconds:.2f} s, compile {self.compile_seconds:.2f} s",
            f"{'runs':>6} {'bytes':>15} {'compile':>9}  first leaf",
        ]
        lines += [
            f"{len(p.leaves):>6} {p.bytes:>15,} {p.seconds:>7.2f} s  "
            + ", ".join(p.leaves[0])
            for p in self
        ]
        return "\n".join(lines)


class JittedInit:
    """An init function compiled by `jaxinit.jit`; call it as the function itself."""

    def __init__(self, fun, static_argnums, static_argnames, out_shardings):
        functools.update_wrapper(self, fun)
        self._fun = fun
        self._static_options = (static_argnums, static_argnames)
        self._statics = _Statics(fun, static_argnums, static_argnames)
        self._out_shardings = out_shardings
        self._plans: dict[int, tuple[Any, LeafPlan, list[str]]] = {}
        self._inlines: dict[int, tuple[Any, Callable]] = {}
        options = {} if out_shardings is None else {"out_shardings": out_shardings}
        self._jitted = jax.jit(
            fun,
            static_argnums=static_argnums or None,
            static_argnames=static_argnames or None,
            **options,
        )

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """What `jax.jit` of the function returns for these arguments."""
        leaves = self._statics.dynamic_leaves(args, kwargs)
        if setting("jax_debug_key_reuse"):
            return self._jitted(*args, **kwargs)
        is_inside = is_tracing() or _is_traced(leaves)
        mesh = self._explicit_mesh(leaves)
        if mesh is not None and is_inside:
            return self._inline_with_auto_axes(args, kwargs, mesh)
        if mesh is not None:
            with with_auto_axes((args, kwargs)) as (args, kwargs):
                return self(*args, **kwargs)
        traced = self._jitted.trace(*args, **kwargs)
        if traced.jaxpr.effects:
            return self._jitted(*args, **kwargs)
        if is_inside or _is_traced(traced.jaxpr.consts):
            return self._inline(traced, leaves)
        return self._programs(traced, leaves).run()

    def programs(self, *args: Any, **kwargs: Any) -> Programs:
        """Traces and compiles the function for these arguments, without running it.

        Returns:
            The programs: printable, iterable, and ready to `run`.

        Raises:
            ValueError: if the function has side effects and so cannot be cut into
                programs.
        """
        if self._explicit_mesh(self._statics.dynamic_leaves(args, kwargs)) is not None:
            with with_auto_axes((args, kwargs)) as (args, kwargs):
                return self.programs(*args, **kwargs)
        start = time.perf_counter()
        traced = self._jitted.trace(*args, **kwargs)
        if traced.jaxpr.effects:
            names = ", ".join(sorted(type(e).__name__ for e in traced.jaxpr.effects))
            raise ValueError(
                f"{self!r} has side effects ({names}) and is compiled "
                "whole, by jax.jit. Remove callbacks and prints to see its programs."
            )
        leaves = self._statics.dynamic_leaves(args, kwargs)
        return self._programs(traced, leaves, start)

    def __repr__(self) -> str:
        return f"jaxinit.jit({getattr(self, '__name__', self._fun)})"

    def _inline(self, traced, leaves) -> Any:
        return jax.tree.unflatten(traced.out_tree, self._inlined(traced)(leaves))

    def _inlined(self, traced) -> Callable[[Sequence[Any]], list[Any]]:
        # Jitted, because an eager jax.vmap would evaluate operations one by one, which
        # round differently, and kept, because it would compile them again.
        known = self._inlines.get(id(traced.jaxpr))
        if known is not None:
            return known[1]
        shardings = self._flat_shardings(traced)
        inlined = jax.jit(
            _leaf_plan(traced.jaxpr).inline,
            out_shardings=shardings if any(shardings) else None,
        )
        if not _is_traced(traced.jaxpr.consts):
            self._inlines[id(traced.jaxpr)] = (traced.jaxpr, inlined)
        return inlined

    def _explicit_mesh(self, leaves) -> AbstractMesh | None:
        """The mesh whose Explicit axes are to be made Auto."""
        places = jax.tree.leaves(self._out_shardings, is_leaf=_is_spec)
        if not places or not all(isinstance(s, NamedSharding) for s in places):
            return None
        return explicit_mesh(leaves)

    def _inline_with_auto_axes(self, args, kwargs, mesh) -> Any:
        flat, treedef = jax.tree.flatten((args, kwargs))
        traced = {i: x for i, x in enumerate(flat) if isinstance(x, jax.Array)}
        unplaced = JittedInit(self._fun, *self._static_options, None)

        def filled(arrays):
            known = dict(enumerate(flat)) | dict(zip(traced, arrays, strict=True))
            return jax.tree.unflatten(treedef, known.values())

        def call(arrays):
            args, kwargs = filled(arrays)
            return jax.tree.leaves(unplaced(*args, **kwargs))

        types = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in traced.values()]
        args, kwargs = filled(types)
        out = unplaced._jitted.eval_shape(*args, **kwargs)
        places = flat_shardings(self._out_shardings, out)
        outputs = inside_auto_axes(call, list(traced.values()), mesh, places)
        return jax.tree.unflatten(jax.tree.structure(out), outputs)

    def _programs(self, traced, leaves, start: float | None = None) -> Programs:
        start = time.perf_counter() if start is None else start
        plan, paths = self._plan(traced)
        middle = time.perf_counter()
        shardings = tuple(map(on_mesh, self._flat_shardings(traced)))
        placement = placement_of(leaves, shardings)
        compiled = plan.compile(leaves, placement)
        seconds = (middle - start, time.perf_counter() - middle)
        tree = traced.out_tree
        return Programs(plan, leaves, placement, compiled, tree, paths, seconds)

    def _plan(self, traced) -> tuple["LeafPlan", list[str]]:
        # jax gives the same jaxpr for the same avals and settings; keeping it alive
        # keeps its id its own.
        known = self._plans.get(id(traced.jaxpr))
        if known is None:
            paths = [
                jax.tree_util.keystr(path, simple=True, separator="/")
                for path, _ in jax.tree.leaves_with_path(traced.out_info)
            ]
            known = (traced.jaxpr, _leaf_plan(traced.jaxpr), paths)
            self._plans[id(traced.jaxpr)] = known
        return known[1:]

    def _flat_shardings(self, traced) -> list[Any]:
        return flat_shardings(self._out_shardings, traced.out_info)


class _Statics:
    """Which arguments are static, by the rules of `jax.jit`."""

    def __init__(self, fun, static_argnums, static_argnames):
        numbers = _as_tuple(static_argnums, int)
        names = _as_tuple(static_argnames, str)
        try:
            parameters = list(inspect.signature(fun).parameters.values())
        except (TypeError, ValueError):
            parameters = []
        kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD,)
        named = {i: p.name for i, p in enumerate(parameters) if p.kind in kinds}
        if numbers and not names:
            size = len(parameters)
            names = tuple(
                named[n % size] for n in numbers if size and n % size in named
            )
        elif names and not numbers:
            numbers = tuple(i for i, name in named.items() if name in names)
        self._numbers, self._names = numbers, frozenset(names)

    def dynamic_leaves(self, args: tuple, kwargs: dict) -> list[Any]:
        static = {number % len(args) for number in self._numbers if args}
        static = {n for n in static if n < len(args)}
        positional = tuple(arg for i, arg in enumerate(args) if i not in static)
        named = {k: v for k, v in kwargs.items() if k not in self._names}
        return jax.tree.leaves((positional, named))


def _leaf_plan(closed: Any) -> "LeafPlan":
    from jaxinit._compile.plan import LeafPlan  # slow to import, not needed before

    return LeafPlan(closed)


def _as_tuple(value: Any, single: type) -> tuple:
    return (value,) if isinstance(value, single) else tuple(value or ())


def _is_traced(leaves: Iterable[Any]) -> bool:
    return any(isinstance(leaf, Tracer) for leaf in leaves)


def _is_spec(value: Any) -> bool:
    return isinstance(value, PartitionSpec)


def jit(
    fun: Callable[..., Any],
    *,
    static_argnums: int | Sequence[int] = (),
    static_argnames: str | Iterable[str] = (),
    out_shardings: Any = None,
) -> JittedInit:
    """`jax.jit` for functions that return freshly drawn arrays.

    The values, dtypes, weak types and tree structure are those of `jax.jit(fun)`. The
    function is traced once and cut into one program for each output leaf; equal
    programs, such as those of equal layers, are compiled once, in parallel, and run for
    each leaf. Whatever the outputs do not depend on, such as the forward pass of a
    model whose `init` this is, never runs.

    Under an outer `jax.jit`, `jax.vmap` or `jax.pmap` it becomes part of the outer
    program, in which equal leaves are drawn in one loop. A function with side effects
    is left to `jax.jit`.

    Args:
        fun: pure function of pytrees of arrays and keys that returns a pytree of
            arrays: a Flax module's `init`, a Haiku `init`, an Equinox constructor.
        static_argnums: positions of arguments that are compile-time constants.
        static_argnames: names of arguments that are compile-time constants.
        out_shardings: sharding of the outputs: None, a `jax.sharding.Sharding`, or a
            pytree of them that is a prefix of the output.

    Returns:
        A function of the same arguments, which also has `programs(*args)`.

    Raises:
        TypeError: if `fun` is not callable.

    Example:
        >>> import jax
        >>> import jaxinit
        >>> def init(key):
        ...     keys = jax.random.split(key, 3)
        ...     return [jaxinit.he_normal()(k, (16, 8)) for k in keys]
        >>> params = jaxinit.jit(init)(jax.random.key(0))
        >>> len(jaxinit.jit(init).programs(jax.random.key(0)))
        1
    """
    if not callable(fun):
        raise TypeError(f"fun must be a function that returns arrays, got {fun!r}.")
    return JittedInit(fun, static_argnums, static_argnames, out_shardings)


def jitted(fun: Callable[..., Any], out_shardings: Any = None) -> JittedInit:
    """`jit(fun, out_shardings=...)`, kept, so that a second call plans nothing anew."""
    leaves, treedef = jax.tree.flatten(out_shardings, is_leaf=lambda x: x is None)
    return _kept(fun, treedef, tuple(leaves))


@functools.lru_cache(maxsize=64)
def _kept(fun, treedef, leaves) -> JittedInit:
    return jit(fun, out_shardings=jax.tree.unflatten(treedef, leaves))
