"""Where programs run, and where their outputs go."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax import lax
from jax.core import Tracer
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec, Sharding

from jaxinit._array.kernel import setting


@dataclass(frozen=True)
class Placement:
    """Where programs run and where their outputs go.

    Attributes:
        inputs: sharding of the inputs that are keys; None leaves it to jax.
        outputs: sharding of each flat output; None leaves it to XLA.
        platform: name of the backend, such as "cpu".
    """

    inputs: Sharding | None
    outputs: tuple[Sharding | None, ...]
    platform: str


def placement_of(leaves: Iterable[Any], outputs: tuple) -> Placement:
    """Where to run: where the outputs must be, else where committed arguments are."""
    committed = [x.sharding for x in leaves if getattr(x, "committed", False)]
    inputs = next(iter(committed), None)
    if isinstance(inputs, NamedSharding):
        inputs = NamedSharding(inputs.mesh, PartitionSpec())
    known = [s for s in (*outputs, inputs) if isinstance(s, Sharding)]
    if known:
        platform = next(iter(known[0].device_set)).platform
    else:
        device = setting("jax_default_device")
        platform = getattr(device, "platform", device) or jax.default_backend()
    return Placement(None if any(outputs) else inputs, outputs, platform)


def flat_shardings(prefix: Any, tree: Any) -> list[Any]:
    """One sharding, partition spec or None for each leaf of a tree.

    Args:
        prefix: pytree of these that is a prefix of the tree.
        tree: the tree; its None subtrees have no leaf.

    Raises:
        ValueError: if `prefix` is no prefix of `tree`.
    """

    def is_leaf(x):
        return x is None or isinstance(x, PartitionSpec | Sharding)

    # Wrapped, because None would pass for a subtree without leaves.
    wrapped = jax.tree.map(_Place, prefix, is_leaf=is_leaf)
    full = jax.tree.broadcast(wrapped, tree, is_leaf=lambda x: isinstance(x, _Place))
    return [place.sharding for place in jax.tree.leaves(full)]


@dataclass(frozen=True)
class _Place:
    sharding: Any


def on_mesh(sharding: Any) -> Sharding | None:
    """A sharding as it is, a `PartitionSpec` over the mesh in use.

    Raises:
        ValueError: if a `PartitionSpec` is given and no mesh is in use, or one without
            an axis that the spec names.
    """
    if not isinstance(sharding, PartitionSpec):
        return sharding
    mesh = mesh_in_use()
    if mesh is None:
        raise ValueError(
            f"{sharding} needs a mesh: use jax.set_mesh, or give a "
            "jax.sharding.NamedSharding."
        )
    return named_sharding(mesh, sharding)


def mesh_in_use() -> Mesh | AbstractMesh | None:
    """The mesh of `jax.set_mesh`, if it is used."""
    mesh = jax.sharding.get_abstract_mesh() if is_tracing() else jax.sharding.get_mesh()
    return None if mesh.empty else mesh


def named_sharding(mesh: Mesh | AbstractMesh, spec: PartitionSpec) -> NamedSharding:
    """The sharding of a spec over a mesh.

    Raises:
        ValueError: if the mesh has no axis that the spec names.
    """
    names = [name for entry in spec for name in axis_names(entry)]
    unknown = [name for name in names if name not in mesh.shape]
    if unknown:
        raise ValueError(
            f"{spec} names the axis {unknown[0]!r}, which the mesh has not: its axes "
            f"are {', '.join(map(repr, mesh.axis_names))}"
        )
    return NamedSharding(mesh, spec)


def axis_names(entry: Any) -> tuple[str, ...]:
    """The mesh axes in one entry of a `PartitionSpec`."""
    names = entry if isinstance(entry, tuple) else (entry,)
    return tuple(name for name in names if isinstance(name, str))


def is_tracing() -> bool:
    """Whether what is computed now becomes part of an outer program."""
    return isinstance(lax.add(np.int32(0), np.int32(0)), Tracer)
