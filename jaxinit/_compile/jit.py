"""`jaxinit.jit`: compiles an init function once for each different leaf.

Of `init`, which draws 16 equal layers, `jaxinit.jit(init)(key)` makes the same arrays
as `jax.jit(init)(key)`, in five steps:

    trace           `jax.jit(init).trace`, with the checks and the cache of jax
    graph           equations, keys taken out         graph.py, key_tree.py
    leaf programs   one for each output: 16           leaf_program.py, exact.py
    executables     one for each different one: 1     leaf_plan.py, executables.py
    run             16 calls with 16 keys             runner.py, programs.py

The middle three are kept in a `_Cut`, by the identity of the jaxpr: jax gives the same
one for arguments of the same types under the same settings. A `Runner` is kept with it
for each place of the arguments, so that a second call only looks these up and runs.

What holds: a call that cannot be cut is left to `jax.jit` of the whole function. That
is so for functions with side effects, for options about arguments (donation,
`keep_unused`), under settings with which jax checks every operation, for keys that are
sharded over devices while an output is not placed, for placements on different devices,
for which jax raises its own error, and for functions that would be one program.
"""

import functools
import operator
import sys
import time
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypedDict, Unpack, overload

import jax
from jax.core import Tracer
from jax.sharding import AbstractMesh, NamedSharding, PartitionSpec

from jaxinit._compile.placement import (
    explicit_mesh,
    flat_shardings,
    inside_auto_axes,
    is_split,
    on_mesh,
    placement_of,
    with_auto_axes,
)
from jaxinit._compile.programs import Programs
from jaxinit._compile.recent import Recent
from jaxinit._compile.statics import Statics
from jaxinit._kernel.options import is_tracing, setting

if TYPE_CHECKING:
    from jaxinit._compile.leaf_plan import LeafPlan
    from jaxinit._compile.runner import Runner


# Under these settings, jax.jit runs or checks one operation at a time.
_STEPWISE = ("jax_disable_jit", "jax_debug_nans", "jax_debug_infs")
_STEPWISE += ("jax_debug_key_reuse",)


@dataclass(frozen=True)
class _Cut:
    """A traced function, cut into programs.

    Attributes:
        jaxpr: the function.
        plan: its programs.
        paths: paths of its outputs.
        shardings: where its outputs go; a `PartitionSpec` is for the mesh in use.
        inlined: a function of the flat arguments, for use under a trace.
        runners: its executables, by the conditions that they are for.
    """

    jaxpr: Any
    plan: "LeafPlan"
    paths: list[str]
    shardings: list[Any]
    inlined: Callable[[Sequence[Any]], list[Any]]
    runners: "Recent[Runner]"

    def runner(self, leaves: Sequence[Any]) -> "Runner | None":
        """What calls its programs; None if the function must be left to `jax.jit`."""
        conditions = self.plan.conditions(leaves)
        runner = self.runners.get(conditions)
        if runner is None:
            runner = _new_runner(self, leaves)
            if runner is not None:
                self.runners.put(conditions, runner)
        return runner


class JittedInit:
    """An init function compiled by `jaxinit.jit`; call it as the function itself.

    `lower`, `trace` and `eval_shape` are the methods of `jax.jit(fun)`.
    """

    # Slots, because jax.jit and functools.wraps copy __dict__ onto what wraps this.
    __slots__ = ("__dict__", "__weakref__", "_compiler_options", "_cuts", "_fun")
    __slots__ += ("_jitted", "_options", "_out_shardings", "_statics")

    def __init__(self, fun: Callable[..., Any], options: Mapping[str, Any]):
        functools.update_wrapper(self, fun)
        self._fun = fun
        self._options = dict(options)  # of jax.jit
        self._jitted: Any = jax.jit(fun, **self._options)
        static = ("static_argnums", "static_argnames")
        self._statics = Statics(fun, *map(self._options.get, static))
        self._out_shardings = self._options.get("out_shardings")
        self._compiler_options = dict(self._options.get("compiler_options") or {})
        self._cuts: Recent[_Cut] = Recent(64)

    @property
    def lower(self) -> Callable[..., jax.stages.Lowered]:
        """`jax.jit(fun).lower`."""
        return self._jitted.lower

    @property
    def trace(self) -> Callable[..., jax.stages.Traced]:
        """`jax.jit(fun).trace`."""
        return self._jitted.trace

    @property
    def eval_shape(self) -> Callable[..., Any]:
        """`jax.jit(fun).eval_shape`."""
        return self._jitted.eval_shape

    def clear_cache(self) -> None:
        """Forgets everything compiled for this function alone."""
        self._cuts.clear()
        self._jitted.clear_cache()

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        return self if instance is None else types.MethodType(self, instance)

    def __reduce__(self) -> Any:
        if _is_found_by_name(self):  # a decorated function
            return vars(self)["__qualname__"]
        return JittedInit, (self._fun, self._options)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """What `jax.jit` of the function returns for these arguments."""
        if self._is_for_jax() or any(map(setting, _STEPWISE)):
            return self._jitted(*args, **kwargs)
        leaves = self._statics.dynamic_leaves(args, kwargs)
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
        with jax.no_tracing(False):  # it is about the function, which is traced by now
            cut = self._cut(traced)
            if is_inside or _is_traced(traced.jaxpr.consts):
                drawn = cut.inlined(leaves)
                return jax.tree.unflatten(traced.out_tree, drawn)
            runner = None if cut.plan.is_whole else cut.runner(leaves)
            if runner is not None:
                return jax.tree.unflatten(traced.out_tree, runner.run(leaves))
        return self._jitted(*args, **kwargs)

    def programs(self, *args: Any, **kwargs: Any) -> Programs:
        """Traces and compiles the function for these arguments, without running it.

        Returns:
            The programs: printable, iterable, and ready to `run`.

        Raises:
            ValueError: if the function cannot be cut into programs: it has side
                effects, donates arguments or keeps unused ones, or is given keys that
                are sharded over several devices.
        """
        if self._is_for_jax():
            raise ValueError(
                f"{self!r} donates arguments, or keeps unused ones, and is compiled "
                "whole, by jax.jit. Leave these options out to see its programs."
            )
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
        with jax.no_tracing(False):
            cut = self._cut(traced)
            middle = time.perf_counter()
            runner = cut.runner(leaves)
        if runner is None:
            # Raises for arguments on different devices, and says which.
            self._jitted.lower(*args, **kwargs)
            raise ValueError(
                f"{self!r} is compiled whole, by jax.jit, for keys that are sharded "
                "over several devices. Give out_shardings to see its programs."
            )
        seconds = (middle - start, time.perf_counter() - middle)
        return Programs(runner, leaves, traced.out_tree, cut.paths, seconds)

    def __repr__(self) -> str:
        return f"jaxinit.jit({getattr(self, '__name__', self._fun)})"

    def _is_for_jax(self) -> bool:
        """Whether options are about arguments, which all programs would share.

        They have no meaning within an outer program.
        """
        options = map(self._options.get, ("donate_argnums", "donate_argnames"))
        donates = any(x not in (None, (), []) for x in options)
        return (donates or bool(self._options.get("keep_unused"))) and not is_tracing()

    def _explicit_mesh(self, leaves) -> AbstractMesh | None:
        """The mesh whose Explicit axes are to be made Auto, if outputs are placed."""
        places = jax.tree.leaves(self._out_shardings, is_leaf=_is_spec)
        if not places or not all(isinstance(s, NamedSharding) for s in places):
            return None
        return explicit_mesh(leaves)

    def _inline_with_auto_axes(self, args, kwargs, mesh) -> Any:
        """The outputs, drawn with Auto axes in a program whose axes are Explicit."""
        flat, treedef = jax.tree.flatten((args, kwargs))
        arrays = {i: x for i, x in enumerate(flat) if isinstance(x, jax.Array)}
        options = {k: x for k, x in self._options.items() if k != "out_shardings"}
        unplaced = JittedInit(self._fun, options)

        def arguments(new_arrays):
            values = list(flat)
            for i, x in zip(arrays, new_arrays, strict=True):
                values[i] = x
            return jax.tree.unflatten(treedef, values)

        def call(new_arrays):
            args, kwargs = arguments(new_arrays)
            return jax.tree.leaves(unplaced(*args, **kwargs))

        types = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in arrays.values()]
        args, kwargs = arguments(types)
        out = unplaced._jitted.eval_shape(*args, **kwargs)
        places = flat_shardings(self._out_shardings, out)
        outputs = inside_auto_axes(call, list(arrays.values()), mesh, places)
        return jax.tree.unflatten(jax.tree.structure(out), outputs)

    def _cut(self, traced) -> _Cut:
        kept = self._cuts.get(id(traced.jaxpr))
        if kept is not None:  # it keeps its jaxpr alive: no other one has this id
            return kept
        cut = self._new_cut(traced)
        if not _is_traced(traced.jaxpr.consts):
            self._cuts.put(id(traced.jaxpr), cut)
        return cut

    def _new_cut(self, traced) -> _Cut:
        from jaxinit._compile.leaf_plan import LeafPlan  # slow to import

        plan = LeafPlan(traced.jaxpr, self._compiler_options)
        out_info = traced.out_info
        paths = [
            jax.tree_util.keystr(path, simple=True, separator="/")
            for path, _ in jax.tree.leaves_with_path(out_info)
        ]
        # Jitted, because an eager jax.vmap would evaluate operations one by one, which
        # round differently.
        shardings = flat_shardings(self._out_shardings, out_info)
        inlined = jax.jit(
            plan.inline,
            out_shardings=shardings if any(shardings) else None,
            inline=self._options.get("inline", False),
            compiler_options=self._compiler_options or None,
        )
        return _Cut(traced.jaxpr, plan, paths, shardings, inlined, Recent(16))


def _new_runner(cut: _Cut, leaves: Sequence[Any]) -> "Runner | None":
    from jaxinit._compile.runner import Runner  # slow to import

    shardings = tuple(map(on_mesh, cut.shardings))
    # If all outputs are placed, it does not matter where the keys are.
    bound = cut.plan.given(leaves) if all(shardings) else cut.plan.used(leaves)
    placement = placement_of(bound, shardings)
    if placement is None:
        return None
    if not all(shardings) and any(map(is_split, cut.plan.keys_made_of(leaves))):
        return None
    return Runner(cut.plan, cut.plan.compile(leaves, placement))


def _is_found_by_name(fun: Any) -> bool:
    module = sys.modules.get(getattr(fun, "__module__", ""))
    name = getattr(fun, "__qualname__", "")
    try:
        return operator.attrgetter(name)(module) is fun
    except AttributeError:
        return False


def _is_traced(leaves: Iterable[Any]) -> bool:
    return any(isinstance(leaf, Tracer) for leaf in leaves)


def _is_spec(value: Any) -> bool:
    return isinstance(value, PartitionSpec)


class _Options(TypedDict, total=False):
    static_argnums: int | Sequence[int] | None
    static_argnames: str | Iterable[str] | None
    out_shardings: Any
    donate_argnums: int | Sequence[int] | None
    donate_argnames: str | Iterable[str] | None
    keep_unused: bool
    inline: bool
    compiler_options: Mapping[str, Any] | None


_NO_FUNCTION: Any = object()  # `jit` used as a decorator with options


@overload
def jit(fun: Callable[..., Any], **options: Unpack[_Options]) -> JittedInit: ...
@overload
def jit(
    **options: Unpack[_Options],
) -> Callable[[Callable[..., Any]], JittedInit]: ...
def jit(
    fun: Callable[..., Any] = _NO_FUNCTION,
    *,
    static_argnums: int | Sequence[int] | None = None,
    static_argnames: str | Iterable[str] | None = None,
    out_shardings: Any = None,
    donate_argnums: int | Sequence[int] | None = None,
    donate_argnames: str | Iterable[str] | None = None,
    keep_unused: bool = False,
    inline: bool = False,
    compiler_options: Mapping[str, Any] | None = None,
) -> JittedInit | Callable[[Callable[..., Any]], JittedInit]:
    """`jax.jit` for functions that return freshly drawn arrays.

    Values, dtypes, weak types and tree structure are the same as from `jax.jit(fun)`.
    The function is traced once and cut into one program for each output leaf. Equal
    programs, as equal layers have, are compiled once, in parallel with others, and run
    for each leaf. Work that no output depends on, such as the forward pass in the
    `init` of a model, never runs.

    Under an outer `jax.jit`, `jax.vmap` or `jax.pmap` it becomes part of the outer
    program, in which equal leaves are drawn in a loop. A function with side effects is
    left to `jax.jit`, and so is one that donates arguments or keeps unused ones:
    several programs take the same argument, and only one could donate it.

    If jax keeps compiled programs on disk (`jax_compilation_cache_dir`), these are kept
    too, however soon they were compiled.

    Args:
        fun: pure function of pytrees of arrays and keys that returns a pytree of
            arrays: a Flax module's `init`, a Haiku `init`, an Equinox constructor.
            Without it, `jit` is a decorator: `@jaxinit.jit(static_argnums=0)`.
        static_argnums: positions of arguments that are compile-time constants.
        static_argnames: names of arguments that are compile-time constants.
        out_shardings: sharding of the outputs: None, a `jax.sharding.Sharding`, or a
            pytree of them that is a prefix of the output.
        donate_argnums: positions of arguments whose buffers may be used for outputs.
            If any are given, the function is compiled whole, by `jax.jit`.
        donate_argnames: names of such arguments.
        keep_unused: whether arguments that no output depends on are arguments of the
            compiled function too. If so, it is compiled whole, by `jax.jit`.
        inline: whether an outer program gets the equations of the function instead of a
            call.
        compiler_options: options of XLA for each program; `jax.jit` takes them at the
            top level only. Under options that let XLA round differently, such as
            `xla_cpu_enable_fast_math`, bits may differ from those of `jax.jit`.

    Returns:
        A function of the same arguments, which also has `programs(*args)`.

    Raises:
        TypeError: if `fun` is not callable, or as `jax.jit` raises for its options.
        ValueError: as `jax.jit` raises for its options.

    Examples:
        >>> import jax
        >>> import jaxinit
        >>> def init(key):
        ...     keys = jax.random.split(key, 3)
        ...     return [jaxinit.he_normal()(k, (16, 8)) for k in keys]
        >>> params = jaxinit.jit(init)(jax.random.key(0))
        >>> len(jaxinit.jit(init).programs(jax.random.key(0)))
        1
    """
    given = {
        "static_argnums": static_argnums,
        "static_argnames": static_argnames,
        "out_shardings": out_shardings,
        "donate_argnums": donate_argnums,
        "donate_argnames": donate_argnames,
        "keep_unused": keep_unused,
        "inline": inline,
        "compiler_options": compiler_options,
    }
    options = {name: value for name, value in given.items() if value is not None}
    if fun is _NO_FUNCTION:
        return functools.partial(jit, **options)
    if not callable(fun):
        raise TypeError(f"fun must be a function that returns arrays, got {fun!r}.")
    return JittedInit(fun, options)


def jitted(fun: Callable[..., Any], out_shardings: Any = None) -> JittedInit:
    """`jit(fun, out_shardings=...)`, the same object for equal arguments."""
    leaves, treedef = jax.tree.flatten(out_shardings, is_leaf=lambda x: x is None)
    return _jitted_once(fun, treedef, tuple(leaves))


@functools.lru_cache(maxsize=64)
def _jitted_once(fun, treedef, leaves) -> JittedInit:
    return jit(fun, out_shardings=jax.tree.unflatten(treedef, leaves))
