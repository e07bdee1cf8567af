"""Where a draw goes: each device makes its own part."""

import contextlib
from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

from jaxinit._kernel.options import is_tracing

Shape = tuple[int, ...]
Placement = NamedSharding | PartitionSpec | None


def _check_axes(placement: NamedSharding | PartitionSpec, shape: Shape) -> None:
    spec = placement.spec if isinstance(placement, NamedSharding) else placement
    if len(spec) > len(shape):
        raise ValueError(
            f"out_sharding must name no more axes than the shape {shape} has, got "
            f"{spec}."
        )


def placed(
    draw: Callable[[Any], jax.Array], shape: Shape, placement: Placement
) -> Callable[[Any], Any]:
    """A draw whose result is placed."""
    if placement is None:
        return draw
    mesh = _mesh_named_by(placement)
    _check_axes(placement, shape)
    kinds = dict(zip(mesh.axis_names, mesh.axis_types, strict=True))
    explicit = tuple(axis for axis in kinds if kinds[axis] == AxisType.Explicit)
    if explicit:
        return jax.sharding.auto_axes(draw, axes=explicit, out_sharding=placement)
    return lambda key: jax.lax.with_sharding_constraint(draw(key), placement)


def in_mesh_of(placement: Placement) -> contextlib.AbstractContextManager[Any]:
    """Puts a mesh in use that has Explicit axes, which mean nothing outside it."""
    mesh = getattr(placement, "mesh", None)
    is_explicit = isinstance(mesh, Mesh) and AxisType.Explicit in mesh.axis_types
    if is_explicit and not is_tracing():
        return jax.set_mesh(mesh)
    return contextlib.nullcontext()


def _mesh_named_by(placement: NamedSharding | PartitionSpec) -> AbstractMesh | Mesh:
    if isinstance(placement, NamedSharding):
        return placement.mesh
    mesh = jax.sharding.get_abstract_mesh()
    if not isinstance(placement, PartitionSpec) or mesh.empty:
        raise ValueError(
            "out_sharding must be a NamedSharding or, under jax.set_mesh, a "
            f"PartitionSpec, got {placement!r}."
        )
    return mesh
