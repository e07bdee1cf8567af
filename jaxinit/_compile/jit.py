"""`jaxinit.jit`: compile any init function once per different leaf."""

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
    is_tracing,
    on_mesh,
    placement_of,
    with_auto_axes,
)
from jaxinit._compile.programs import Programs
from jaxinit._compile.recent import Recent
from jaxinit._compile.statics import Statics
from jaxinit._kernel.options import setting

if TYPE_CHECKING:
    from jaxinit._compile.leaf_plan import LeafPlan


# Under these settings, jax.jit checks, or runs, one operation at a time.
_STEPWISE = ("jax_disable_jit", "jax_debug_nans", "jax_debug_infs")
_STEPWISE += ("jax_debug_key_reuse",)


@dataclass(frozen=True)
class _Cut:
    """A traced function, cut into programs.

    Attributes:
        jaxpr: the function.
        plan: its programs.
        paths: paths of its outputs.
        inlined: a function of the flat arguments, for use under a trace.
    """

    jaxpr: Any
    plan: "LeafPlan"
    paths: list[str]
    inlined: Callable[[Sequence[Any]], list[Any]]


class JittedInit:
    """An init function compiled by `jaxinit.jit`; call it as the function itself.

    `lower`, `trace`, `eval_shape` and `clear_cache` are those of `jax.jit`, and are of
    the whole function.
    """

    # Not in __dict__, which jax.jit and functools.wraps copy onto what wraps this.
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
        # jax gives the same jaxpr for the same avals and settings.
        self._cuts: Recent[_Cut] = Recent(64)

    @property
    def lower(self) -> Callable[..., jax.stages.Lowered]:
        """That of `jax.jit(fun)`."""
        return self._jitted.lower

    @property
    def trace(self) -> Callable[..., jax.stages.Traced]:
        """That of `jax.jit(fun)`."""
        return self._jitted.trace

    @property
    def eval_shape(self) -> Callable[..., Any]:
        """That of `jax.jit(fun)`."""
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
        with jax.no_tracing(False):  # the function is traced: what follows is programs
            if is_inside or _is_traced(traced.jaxpr.consts):
                drawn = self._cut(traced).inlined(leaves)
                return jax.tree.unflatten(traced.out_tree, drawn)
            programs = self._programs(traced, leaves)
            if programs is not None:
                return programs.run()
        return self._jitted(*args, **kwargs)

    def programs(self, *args: Any, **kwargs: Any) -> Programs:
        """Traces and compiles the function for these arguments, without running it.

        Returns:
            The programs: printable, iterable, and ready to `run`.

        Raises:
            ValueError: if the function has side effects, arguments to donate or to keep
                though unused, or is given keys that are cut over devices, and so cannot
                be cut into programs.
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
            programs = self._programs(traced, leaves, start)
        if programs is None:
            self._jitted.lower(*args, **kwargs)  # says which arguments do not agree
            raise ValueError(
                f"{self!r} is compiled whole, by jax.jit, for keys that are in parts "
                "on several devices. Give out_shardings to see its programs."
            )
        return programs

    def __repr__(self) -> str:
        return f"jaxinit.jit({getattr(self, '__name__', self._fun)})"

    def _is_for_jax(self) -> bool:
        """Whether options are about arguments, which the programs have in common.

        Within an outer program, these options say nothing.
        """
        donated = map(self._options.get, ("donate_argnums", "donate_argnames"))
        asked = any(x not in (None, (), []) for x in donated)
        return (asked or bool(self._options.get("keep_unused"))) and not is_tracing()

    def _explicit_mesh(self, leaves) -> AbstractMesh | None:
        """The mesh whose Explicit axes are to be made Auto."""
        places = jax.tree.leaves(self._out_shardings, is_leaf=_is_spec)
        if not places or not all(isinstance(s, NamedSharding) for s in places):
            return None
        return explicit_mesh(leaves)

    def _inline_with_auto_axes(self, args, kwargs, mesh) -> Any:
        flat, treedef = jax.tree.flatten((args, kwargs))
        traced = {i: x for i, x in enumerate(flat) if isinstance(x, jax.Array)}
        options = {k: x for k, x in self._options.items() if k != "out_shardings"}
        unplaced = JittedInit(self._fun, options)

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

    def _programs(self, traced, leaves, start: float | None = None) -> Programs | None:
        """None if it is for `jax.jit` to say where outputs go, or that none can be."""
        start = time.perf_counter() if start is None else start
        cut = self._cut(traced)
        middle = time.perf_counter()
        shardings = tuple(map(on_mesh, self._flat_shardings(traced)))
        # Where all outputs are placed, it does not matter where the keys were.
        bound = cut.plan.given(leaves) if all(shardings) else cut.plan.used(leaves)
        placement = placement_of(bound, shardings)
        if placement is None:
            return None
        if not all(shardings) and any(map(is_split, cut.plan.keys_made_of(leaves))):
            return None
        compiled = cut.plan.compile(leaves, placement)
        seconds = (middle - start, time.perf_counter() - middle)
        return Programs(cut.plan, leaves, compiled, traced.out_tree, cut.paths, seconds)

    def _cut(self, traced) -> _Cut:
        known = self._cuts.get(id(traced.jaxpr))
        if known is not None:  # and keeps its jaxpr alive, whose id is its own
            return known
        cut = self._new_cut(traced)
        if not _is_traced(traced.jaxpr.consts):
            self._cuts.put(id(traced.jaxpr), cut)
        return cut

    def _new_cut(self, traced) -> _Cut:
        from jaxinit._compile.leaf_plan import LeafPlan  # slow to import

        plan = LeafPlan(traced.jaxpr, self._compiler_options)
        paths = [
            jax.tree_util.keystr(path, simple=True, separator="/")
            for path, _ in jax.tree.leaves_with_path(traced.out_info)
        ]
        # Jitted, because an eager jax.vmap would evaluate operations one by one, which
        # round differently.
        shardings = self._flat_shardings(traced)
        inlined = jax.jit(
            plan.inline,
            out_shardings=shardings if any(shardings) else None,
            inline=self._options.get("inline", False),
            compiler_options=self._compiler_options or None,
        )
        return _Cut(traced.jaxpr, plan, paths, inlined)

    def _flat_shardings(self, traced) -> list[Any]:
        return flat_shardings(self._out_shardings, traced.out_info)


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


_TO_COME: Any = object()


@overload
def jit(fun: Callable[..., Any], **options: Unpack[_Options]) -> JittedInit: ...
@overload
def jit(
    **options: Unpack[_Options],
) -> Callable[[Callable[..., Any]], JittedInit]: ...
def jit(
    fun: Callable[..., Any] = _TO_COME,
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

    The values, dtypes, weak types and tree structure are those of `jax.jit(fun)`. The
    function is traced once and cut into one program for each output leaf; equal
    programs, such as those of equal layers, are compiled once, in parallel, and run for
    each leaf. Whatever the outputs do not depend on, such as the forward pass of a
    model whose `init` this is, never runs.

    Under an outer `jax.jit`, `jax.vmap` or `jax.pmap` it becomes part of the outer
    program, in which equal leaves are drawn in one loop. A function with side effects
    is left to `jax.jit`, as is one that donates arguments or keeps unused ones: its
    programs take the same arguments, which only one program could give away.

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
        keep_unused: whether arguments that no output depends on must be alive, and
            where the others are. If so, the function is compiled whole, by `jax.jit`.
        inline: whether the function is a call within an outer program, or its
            equations are.
        compiler_options: options of XLA for each program; `jax.jit` takes them at the
            top level only. Options that let XLA round in other ways, such as
            `xla_cpu_enable_fast_math`, may do so otherwise than in `jax.jit`.

    Returns:
        A function of the same arguments, which also has `programs(*args)`.

    Raises:
        TypeError: if `fun` is not callable, or as `jax.jit` raises for its options.
        ValueError: as `jax.jit` raises for its options.

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
    if fun is _TO_COME:
        return functools.partial(jit, **options)
    if not callable(fun):
        raise TypeError(f"fun must be a function that returns arrays, got {fun!r}.")
    return JittedInit(fun, options)


def jitted(fun: Callable[..., Any], out_shardings: Any = None) -> JittedInit:
    """`jit(fun, out_shardings=...)`, kept, so that a second call plans nothing anew."""
    leaves, treedef = jax.tree.flatten(out_shardings, is_leaf=lambda x: x is None)
    return _kept(fun, treedef, tuple(leaves))


@functools.lru_cache(maxsize=64)
def _kept(fun, treedef, leaves) -> JittedInit:
    return jit(fun, out_shardings=jax.tree.unflatten(treedef, leaves))
