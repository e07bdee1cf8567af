"""Flax Linen: models initialized by `jaxinit.jit`, sharded as their metadata say.

The numbers are those of `jax.jit(model.init)(key, *inputs)`. Boxes, such as
`nn.with_partitioning` makes, are kept; with a mesh, each says where its array goes.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax.linen.spmd import logical_to_mesh_axes
from jax.sharding import AbstractMesh, Mesh, PartitionSpec, Sharding

from jaxinit._compile.jit import jitted
from jaxinit._compile.placement import (
    axis_names,
    checked_mesh,
    named_sharding,
    with_auto_axes,
)
from jaxinit._tree.plan import PlanError, problems_message
from jaxinit._tree.shardings import boxed_shardings

LogicalRules = Sequence[tuple[str, str | tuple[str, ...] | None]]


def init(
    model: nn.Module,
    key: Any,
    *inputs: Any,
    rules: LogicalRules | None = None,
    mesh: Mesh | AbstractMesh | None = None,
    **options: Any,
) -> Any:
    """The variables of `jax.jit(model.init)(key, *inputs)`, each where it belongs.

    `model.init` is traced, not run: equal layers share a program, and the forward pass
    is left out. Every device makes its own shard of each array.

    With a mesh, an array goes where its metadata say. Names in `nn.with_partitioning`
    are axes of the mesh; `rules` translate names in `nn.with_logical_partitioning` into
    axes of the mesh. Arrays without metadata are whole on every device. A box with a
    mesh or rules of its own uses those.

    Args:
        model: the module.
        key: a key, or a mapping from stream names to keys.
        *inputs: what the module is called on. A `jax.ShapeDtypeStruct` stands for an
            array of zeros.
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
            mesh or in any rule, or do not divide its shape.
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
        return jitted(function, shardings)(key, arrays)


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
