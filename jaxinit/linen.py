"""Flax Linen: models initialized by `jaxinit.jit`, sharded as their metadata say.

The numbers are those of `jax.jit(model.init)(key, *inputs)`. Boxes, such as
`nn.with_partitioning` makes, are kept; with a mesh, each says where its array goes.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax.core import DenyList
from flax.linen.spmd import logical_to_mesh_axes
from jax.sharding import AbstractMesh, Mesh, PartitionSpec, Sharding

from jaxinit._compile.jit import jitted
from jaxinit._compile.placement import (
    axis_names,
    checked_mesh,
    named_sharding,
    with_auto_axes,
)
from jaxinit._roles.role import Roles
from jaxinit._tree import roles as reading
from jaxinit._tree.plan import Plan, PlanError, model_plan, problems_message
from jaxinit._tree.shardings import boxed_shardings

LogicalRules = Sequence[tuple[str, str | tuple[str, ...] | None]]


def init(
    model: nn.Module,
    key: Any,
    *inputs: Any,
    scheme: Any = None,
    rules: LogicalRules | None = None,
    mesh: Mesh | AbstractMesh | None = None,
    **options: Any,
) -> Any:
    """The variables of `jax.jit(model.init)(key, *inputs)`, each where it belongs.

    `model.init` is traced, not run: equal layers share a program, and the forward pass
    is left out. Every device makes its own shard of each array.

    With a scheme, the parameters are those of `jaxinit.plan` by it, with the roles that
    the module's call gives them, and the key (of the stream "params" if there are
    several). All other variables are those of `model.init`.

    With a mesh, an array goes where its metadata say. Names in `nn.with_partitioning`
    are axes of the mesh; `rules` translate names in `nn.with_logical_partitioning` into
    axes of the mesh. Arrays without metadata are whole on every device. A box with a
    mesh or rules of its own uses those.

    Args:
        model: the module.
        key: a key, or a mapping from stream names to keys.
        *inputs: what the module is called on. A `jax.ShapeDtypeStruct` stands for an
            array of zeros.
        scheme: rules for the parameters, such as `jaxinit.schemes.gpt2()`; None means
            the module's own initializers.
        rules: pairs of a logical axis and a mesh axis, a tuple of mesh axes, or None
            (whole), as in `nn.logical_axis_rules`; None means the rules in force there.
            The first pair whose mesh axes are still free decides.
        mesh: the mesh; None means the mesh of `jax.set_mesh`. With neither, arrays are
            left to jax.
        **options: keyword arguments of `model.init`; values other than arrays are
            static.

    Returns:
        The variables, with their boxes.

    Raises:
        PlanError: naming every array whose metadata name an axis that is not in the
            mesh or in any rule, or do not divide its shape; of a scheme, the errors of
            `jaxinit.plan`.
        TypeError: if `mesh` is not a mesh.
        ValueError: if there are rules and no mesh.

    >>> dense = nn.Dense(3, kernel_init=nn.with_partitioning(nn.zeros, ("x", None)))
    >>> mesh = jax.make_mesh((1,), ("x",))
    >>> x = jax.ShapeDtypeStruct((1, 4), jnp.float32)
    >>> params = init(dense, jax.random.key(0), x, mesh=mesh)["params"]
    >>> params["kernel"].names, params["kernel"].value.sharding.spec
    (('x', None), P('x', None))
    """
    mesh = checked_mesh(mesh)
    if rules is not None and mesh is None:
        raise ValueError(
            "rules say which axes of a mesh logical axes are: give mesh=, or use "
            "jax.set_mesh."
        )
    with with_auto_axes((key, inputs, options)) as (key, inputs, options):
        function, arrays = _split_arguments(model, inputs, options)
        shapes = jax.eval_shape(function, key, arrays)
        shardings = _shardings(shapes, mesh, rules)
        params = shapes.get("params", {})
        if scheme is not None and jax.tree.leaves(params):
            found = roles(model, *inputs, **options)
            function = _by_plan(function, model_plan(params, scheme, found))
        return jitted(function, shardings)(key, arrays)


@functools.lru_cache(maxsize=64)
def _by_plan(function: Callable[..., Any], plan: Plan) -> Callable[..., Any]:
    """The variables that a function makes, with the parameters of a plan."""

    def call(key, arrays):
        variables = function(key, arrays)
        root = key["params"] if isinstance(key, Mapping) else key
        own, treedef = jax.tree.flatten(variables["params"])
        drawn = [leaf.draw_or_keep(root, x) for leaf, x in zip(plan, own, strict=True)]
        return {**variables, "params": jax.tree.unflatten(treedef, drawn)}

    return call


def roles(model: nn.Module, *inputs: Any, method: Any = None, **options: Any) -> Roles:
    """What each parameter of a module is for, read from what the module computes.

    The shapes of its variables come from `model.init`, traced; nothing is computed.
    Every collection other than "params", such as batch statistics, is taken as given.

    Args:
        model: the module.
        *inputs: what the module is called on: arrays or `jax.ShapeDtypeStruct`s.
        method: the method that is called, as in `model.apply`; None means `__call__`.
        **options: keyword arguments of the call; values other than arrays are static.

    Returns:
        The roles, by path inside the collection "params".

    Raises:
        TypeError: if `model` is no Linen module, or has no parameters.

    >>> x = jax.ShapeDtypeStruct((5, 6), jnp.float32)
    >>> found = roles(nn.Sequential([nn.Dense(24), nn.relu, nn.Dense(6)]), x)
    >>> role = found["layers_0/kernel"]
    >>> role.kind, role.fan_in, role.function
    ('kernel', 6, 'relu')
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a flax.linen.Module, got {model!r}.")
    if method is not None:
        options = {**options, "method": method}
    # As in `init`: Flax asserts on an Explicit mesh the sharding that a box names.
    with with_auto_axes((inputs, options)) as (inputs, options):
        return _roles(model, inputs, options)


def _roles(model: nn.Module, inputs: Any, options: Any) -> Roles:
    function, arrays = _split_arguments(model, inputs, options)
    key = jax.eval_shape(lambda: jax.random.key(0))  # transfers nothing
    variables = jax.eval_shape(function, key, arrays)
    others = {name: tree for name, tree in variables.items() if name != "params"}

    def apply(params, others, key, *inputs, **options):
        outputs, _ = model.apply(
            {"params": params, **others},
            *inputs,
            rngs={"params": key},  # stands in for every stream
            mutable=DenyList("params"),
            **options,
        )
        return outputs

    params = variables.get("params", {})
    return reading.roles(apply, params, others, key, *inputs, **options)


def _split_arguments(model, inputs, options) -> tuple[Callable, list[Any]]:
    """`model.init` as a function of keys and arrays, all else static; and these."""
    leaves, treedef = jax.tree.flatten((inputs, options))
    is_array = [isinstance(leaf, jax.Array | np.ndarray) for leaf in leaves]
    arrays = [leaf for leaf, array in zip(leaves, is_array, strict=True) if array]
    static = tuple(
        None if array else (type(leaf), leaf)
        for leaf, array in zip(leaves, is_array, strict=True)
    )
    try:
        return _function(model, treedef, static), arrays
    except TypeError:  # unhashable, such as a module with a list: not cached
        return _function.__wrapped__(model, treedef, static), arrays


@functools.lru_cache(maxsize=64)
def _function(model: nn.Module, treedef: Any, static: tuple) -> Callable[..., Any]:
    def call(key, arrays):
        remaining = iter(arrays)
        leaves = [
            next(remaining) if fixed is None else _zeros(fixed[1]) for fixed in static
        ]
        inputs, options = jax.tree.unflatten(treedef, leaves)
        return model.init(key, *inputs, **options)

    return call


def _zeros(value: Any) -> Any:
    is_shape = isinstance(value, jax.ShapeDtypeStruct)
    return jnp.zeros(value.shape, value.dtype) if is_shape else value


def _is_box(value: Any) -> bool:
    return isinstance(value, nn.meta.AxisMetadata)


def _shardings(shapes: Any, mesh: Any, rules: LogicalRules | None) -> Any:
    """A sharding or None for every box or array in the shapes of variables."""
    shardings, problems = boxed_shardings(
        shapes, _is_box, lambda box: _sharding(box, mesh, rules)
    )
    if problems:
        raise PlanError(problems_message("the model", problems))
    return shardings if jax.tree.leaves(shardings) else None


def _sharding(box: Any, mesh: Any, rules: LogicalRules | None) -> Sharding | None:
    mesh = getattr(box, "mesh", None) or mesh
    if mesh is None:
        return None
    return named_sharding(mesh, _mesh_spec(box, rules))


def _mesh_spec(box: Any, rules: LogicalRules | None) -> PartitionSpec:
    """The axes of the mesh over which an array, in a box or bare, is sharded."""
    spec = nn.get_partition_spec(box)
    if not isinstance(box, nn.LogicallyPartitioned):
        return spec if isinstance(spec, PartitionSpec) else PartitionSpec()
    rules = box.rules or rules or nn.get_logical_axis_rules()
    known = {logical for logical, _ in rules}
    names = [name for entry in spec for name in axis_names(entry)]
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(
            f"no rule says where the logical axis {unknown[0]!r} of {spec} goes: add "
            f"({unknown[0]!r}, None) to rules to leave it whole"
        )
    return logical_to_mesh_axes(spec, list(rules)) or PartitionSpec()
