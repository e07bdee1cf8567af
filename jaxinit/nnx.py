"""Flax NNX: models initialized by `jaxinit.jit`.

The numbers are those of `fun(nnx.Rngs(key))`. NNX's streams count the keys they hand
out in arrays. Under a trace, every count then depends on all counts before it, so that
cutting a program of n draws into n leaves costs O(n^2). The streams here count in
Python as long as they can and derive the same keys. The model that is returned has
NNX's own streams in their place.
"""

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import AbstractMesh, Mesh, Sharding

from jaxinit._compile.jit import jitted
from jaxinit._compile.placement import (
    checked_mesh,
    named_sharding,
    with_auto_axes,
)
from jaxinit._roles.role import Roles
from jaxinit._tree import roles as reading
from jaxinit._tree.plan import Plan, PlanError, model_plan, problems_message
from jaxinit._tree.shardings import boxed_shardings


class _Stream(nnx.RngStream):
    """A stream that counts in Python until a transform makes its count an array."""

    def __init__(self, key: jax.Array, *, tag: str):
        super().__init__(key, tag=tag)
        zeros: Any = np.zeros(self.key.shape, np.uint32)
        self.count.set_value(zeros)

    def __call__(self) -> jax.Array:
        count = self.count.get_value()
        if isinstance(count, jax.Array):
            return super().__call__()
        key = jax.random.fold_in(self.key.get_value(), count)
        self.count.set_value(count + np.uint32(1))
        return key


class _Rngs(nnx.Rngs):
    """Streams that count in Python, as do the streams that are made from them."""

    def __init__(self, keys: dict[str, jax.Array]):
        super().__init__()
        for tag, key in keys.items():
            setattr(self, tag, _Stream(key, tag=tag))

    def fork(self, **options) -> "_Rngs":
        return _Rngs(_keys(super().fork(**options)))

    def split(self, k) -> "_Rngs":
        return _Rngs(_keys(super().split(k)))

    def broadcast(self, k) -> "_Rngs":
        return _Rngs(_keys(super().broadcast(k)))


def _keys(rngs: nnx.Rngs) -> dict[str, jax.Array]:
    return {tag: stream.key.get_value() for tag, stream in rngs.items()}


def _as_nnx_counts(node: Any) -> None:
    """Turns every counting stream below `node` into the NNX stream it stands for."""
    plain = {_Stream: nnx.RngStream, _Rngs: nnx.Rngs}
    for _, inner in list(nnx.iter_graph(node)):
        if isinstance(inner, _Stream):
            inner.count.set_value(jnp.asarray(inner.count.get_value()))
        if type(inner) in plain:
            object.__setattr__(inner, "__class__", plain[type(inner)])


def _construct(fun: Callable[[nnx.Rngs], Any], keys: dict[str, jax.Array]):
    node = fun(_Rngs(keys))
    is_node = nnx.graph.is_node(node)
    nodes = [inner for _, inner in nnx.iter_graph(node)] if is_node else []
    if not any(isinstance(inner, (nnx.Pytree, nnx.Variable)) for inner in nodes):
        raise TypeError(
            f"fun must return an nnx.Module or a pytree of them, got {node!r}; "
            "for a function that returns arrays use jaxinit.jit"
        )
    _as_nnx_counts(node)
    return nnx.split(node)


@functools.lru_cache(maxsize=64)
def _function(fun: Callable[[nnx.Rngs], Any], tags: tuple[str, ...]):
    return lambda *keys: _construct(fun, dict(zip(tags, keys, strict=True)))


def create(
    fun: Callable[[nnx.Rngs], Any],
    /,
    key: Any = None,
    *,
    scheme: Any = None,
    inputs: Sequence[Any] | None = None,
    mesh: Mesh | AbstractMesh | None = None,
    **streams: Any,
) -> Any:
    """A model with the arrays of `fun(nnx.Rngs(key, **streams))` under `jax.jit`.

    `fun` is traced, not run: equal layers share a program, and everything that no array
    of the model depends on, such as a forward pass, is left out. A second call with the
    same `fun` and other keys compiles nothing.

    With a scheme, every `nnx.Param` is that of `jaxinit.plan` by it, with the key of
    the stream "params" or else of the default one, and with the roles that the model's
    call gives them. All other state is that of `fun`.

    With a mesh, every device makes its own shard of each array, as the metadata of its
    `nnx.Variable` say, from `nnx.with_partitioning`, mapped by `nnx.logical_axis_rules`
    if there are any. Arrays without metadata are whole on every device. Metadata with a
    mesh of their own use that one.

    Args:
        fun: hashable function of an `nnx.Rngs` that returns an `nnx.Module`, or a
            pytree of them.
        key: first argument of `nnx.Rngs`: an int seed, a typed or raw key, a mapping
            from stream names to seeds or keys, or None.
        scheme: rules for the parameters, such as `jaxinit.schemes.gpt2()`; None means
            the initializers of `fun`.
        inputs: what the model is called on, arrays or `jax.ShapeDtypeStruct`s, to read
            the roles of the parameters from; None lets a scheme go by names.
        mesh: the mesh; None means the mesh of `jax.set_mesh`. With neither, arrays are
            left to jax, and NNX itself refuses metadata.
        **streams: more streams by name, each an int seed or a key.

    Returns:
        What `fun` returns. Its random streams continue where `fun` left them.

    Raises:
        PlanError: naming every array whose metadata name an axis that is not in the
            mesh, or do not divide its shape.
        TypeError: if `fun` is not callable, or returns no object of NNX, or `mesh` is
            not a mesh.

    Examples:
        >>> from flax import nnx
        >>> model = create(lambda rngs: nnx.Linear(2, 3, rngs=rngs), 0)
        >>> model.kernel.shape
        (2, 3)
    """
    if not callable(fun):
        raise TypeError(
            f"fun must be a function of nnx.Rngs, such as "
            f"`lambda rngs: Model(rngs=rngs)`, got {fun!r}"
        )
    keys = _keys(nnx.Rngs(key, **streams))
    if scheme is not None and "params" in keys:  # a plan draws with the first
        keys = {"params": keys.pop("params"), **keys}
    mesh = checked_mesh(mesh)
    function = _function(fun, tuple(keys))
    if scheme is not None:
        function = _by_plan(function, _planned(fun, function, keys, scheme, inputs))
    elif inputs is not None:
        raise ValueError("inputs are for a scheme: give scheme=, or leave them out")
    if mesh is None:
        return nnx.merge(*jitted(function)(*keys.values()))
    with with_auto_axes(tuple(keys.values()), mesh) as values:
        shardings = (None, _shardings(function, mesh, values))
        return nnx.merge(*jitted(function, shardings)(*values))


def _planned(fun, function, keys, scheme, inputs) -> Plan:
    """A plan of the parameters that a constructor makes."""
    if isinstance(inputs, jax.Array | np.ndarray | jax.ShapeDtypeStruct):
        raise TypeError("inputs must be a sequence of arrays, such as (x,), got one")
    found = None if inputs is None else roles(fun, *inputs)
    with nnx.use_eager_sharding(False):
        _, state = jax.eval_shape(lambda *keys: function(*keys), *keys.values())
    params, _ = nnx.split_state(state, nnx.Param, ...)
    return model_plan(params, scheme, found)


@functools.lru_cache(maxsize=64)
def _by_plan(function: Callable[..., Any], plan: Plan) -> Callable[..., Any]:
    """The state that a function makes, with the parameters of a plan."""

    def call(*keys):
        graph, state = function(*keys)
        params, others = nnx.split_state(state, nnx.Param, ...)
        own, treedef = jax.tree.flatten(params)
        drawn = [
            leaf.draw_or_keep(keys[0], x) for leaf, x in zip(plan, own, strict=True)
        ]
        params = jax.tree.unflatten(treedef, drawn)
        return graph, nnx.merge_state(params, others)

    return call


def _shardings(function: Callable, mesh: Any, keys: Iterable[Any]) -> Any:
    """The sharding of every variable and bare array that a constructor makes."""
    try:
        _, state = jax.eval_shape(function, *keys)
        error = None
    # NNX raises for the first variable that does not fit; all are looked for.
    except ValueError as raised:
        with nnx.use_eager_sharding(False):
            _, state = jax.eval_shape(lambda *keys: function(*keys), *keys)
        error = raised
    shardings, problems = boxed_shardings(
        state, _is_variable, lambda leaf: _sharding(leaf, mesh)
    )
    if problems:
        raise PlanError(problems_message("the model", problems)) from error
    if error:
        raise error
    return shardings


def _is_variable(value: Any) -> bool:
    return isinstance(value, nnx.Variable)


def _sharding(leaf: Any, mesh: Any) -> Sharding | None:
    own = leaf.get_metadata() if _is_variable(leaf) else {}
    sharding = own.get("out_sharding")
    if isinstance(sharding, Sharding):
        return sharding
    spec = nnx.get_partition_spec(leaf)
    spec = spec.get_value() if _is_variable(spec) else spec
    return named_sharding(own.get("mesh") or mesh, spec)


def roles(model: Any, *inputs: Any, **options: Any) -> Roles:
    """What each `nnx.Param` of a model is for, read from what the model computes.

    Nothing is computed. All other state, such as batch statistics and the counts of
    streams, is taken as given.

    Args:
        model: the module, or a function of an `nnx.Rngs` that returns one.
        *inputs: what the module is called on: arrays or `jax.ShapeDtypeStruct`s.
        **options: keyword arguments of the call; values other than arrays are static.

    Returns:
        The roles, by path in `nnx.state(model, nnx.Param)`.

    Raises:
        TypeError: if `model` is neither, or has no `nnx.Param`.

    Examples:
        >>> from flax import nnx
        >>> x = jax.ShapeDtypeStruct((5, 2), "float32")
        >>> found = roles(lambda rngs: nnx.Linear(2, 3, rngs=rngs), x)
        >>> found["bias"].of
        ('kernel',)
    """
    if not isinstance(model, nnx.Module):
        if not callable(model):
            raise TypeError(
                f"model must be an nnx.Module, or a function of nnx.Rngs that returns "
                f"one, got {model!r}"
            )
        model = nnx.eval_shape(lambda: model(nnx.Rngs(0)))
    if not callable(model):
        raise TypeError(
            f"what the function makes cannot be called on inputs: roles are read from "
            f"a module's call, and {type(model).__name__} has none; give a module with "
            "__call__, or a scheme without inputs"
        )
    graph, params, others = nnx.split(model, nnx.Param, ...)

    def apply(params, others, *inputs, **options):
        return nnx.merge(graph, params, others)(*inputs, **options)

    return reading.roles(apply, params, others, *inputs, **options)


def collections(fun: Callable[[nnx.Rngs], Any]) -> Callable[[jax.Array], dict]:
    """`fun` as an init function of a key, with arrays grouped as Linen groups them.

    Args:
        fun: function of an `nnx.Rngs` that returns an `nnx.Module`.

    Returns:
        A function of the key of the default stream that returns nested dictionaries of
        arrays: `{"params": ..., "batch_stats": ...}`, one for each kind of
        `nnx.Variable` in the model. Each can be given to `nnx.update`.

    Examples:
        >>> from flax import nnx
        >>> init = collections(lambda rngs: nnx.BatchNorm(4, rngs=rngs))
        >>> init(jax.random.key(0))["batch_stats"]["mean"].shape
        (4,)
    """

    def init(key):
        _, state = _construct(fun, {"default": key})
        grouped: dict[str, dict] = {}
        for path, leaf in nnx.to_flat_state(state):
            inner = grouped.setdefault(_collection(leaf), {})
            for segment in path[:-1]:
                inner = inner.setdefault(segment, {})
            is_variable = isinstance(leaf, nnx.Variable)
            inner[path[-1]] = leaf.get_value() if is_variable else leaf
        return grouped

    return init


def _collection(leaf: Any) -> str:
    if isinstance(leaf, nnx.Param):
        return "params"
    try:
        return nnx.variable_name_from_type(type(leaf))
    except ValueError:  # a kind of variable that Linen does not know
        return type(leaf).__name__ if isinstance(leaf, nnx.Variable) else "arrays"
