"""Where programs run, and where their outputs go.

A leaf program must land where `jax.jit` of the function would have put its leaf. Take

    def init(key):
        return {"w": jaxinit.normal()(key, (8, 4)), "b": jnp.zeros(4)}

    jaxinit.jit(init, out_shardings={"w": P("data"), "b": None})(jax.random.key(0))

under `jax.set_mesh` with a mesh of 8 devices. `flat_shardings` spreads the prefix over
the leaves, in the order of the tree: `[None, P("data")]`; `on_mesh` puts the mesh in.
`placement_of` looks for committed arrays and placed outputs: the key is neither, `w` is
placed. So the home is its mesh, replicated: the program of `b`, bound to no place, runs
there too, as it would in one program with `w`.

Axes of a mesh can be Explicit: a part of the type of each array. What is drawn is then
whole on every device before it is cut. So where outputs are placed, functions run with
Auto axes (`with_auto_axes`, `inside_auto_axes`) and each device draws its own shard.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import jax
from jax.core import Tracer
from jax.sharding import (
    AbstractMesh,
    Mesh,
    NamedSharding,
    PartitionSpec,
    Sharding,
    SingleDeviceSharding,
)

from jaxinit._arrays.spread import automatic, on_automatic_mesh
from jaxinit._kernel.options import is_tracing, setting


@dataclass(frozen=True)
class Placement:
    """Where programs run and where their outputs go.

    Attributes:
        home: where inputs go that are not committed, and outputs of programs without
            any input; None leaves it to jax.
        outputs: sharding of each flat output; None leaves it to XLA.
        platform: name of the backend, such as "cpu".
    """

    home: Sharding | None
    outputs: tuple[Sharding | None, ...]
    platform: str


def placement_of(args: Iterable[Any], outputs: tuple) -> Placement | None:
    """Where to run: where committed arguments are, else where outputs must be.

    Returns:
        The placement; None if these are not on the same devices, or have a sharding of
        another class than `NamedSharding` and `SingleDeviceSharding`.
    """
    places = (*map(committed_sharding, args), *outputs)
    known = [place for place in places if isinstance(place, Sharding)]
    if not known:
        device = setting("jax_default_device")
        platform = getattr(device, "platform", device) or jax.default_backend()
        return Placement(None, outputs, platform)
    devices = known[0].device_set
    kinds = NamedSharding | SingleDeviceSharding
    if not all(isinstance(p, kinds) and p.device_set == devices for p in known):
        return None
    return Placement(_home(known[0]), outputs, next(iter(devices)).platform)


def _home(place: Sharding) -> Sharding:
    if isinstance(place, NamedSharding):
        return NamedSharding(place.mesh, PartitionSpec())
    return place


def committed_sharding(value: Any) -> Sharding | None:
    """The sharding of a committed array, which computations follow; else None."""
    return value.sharding if getattr(value, "committed", False) else None


def is_split(value: Any) -> bool:
    """Whether an array is committed to several devices, each with a shard of it."""
    place = committed_sharding(value)
    return place is not None and not place.is_fully_replicated


def flat_shardings(prefix: Any, tree: Any) -> list[Any]:
    """One sharding, partition spec or None for each leaf of a tree.

    Args:
        prefix: pytree of shardings, specs and None that is a prefix of the tree.
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
    """The sharding itself; for a `PartitionSpec`, the one over the mesh in use.

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
    """The mesh of `jax.set_mesh`, if any."""
    mesh: Mesh | AbstractMesh = jax.sharding.get_abstract_mesh()
    with contextlib.suppress(ValueError):  # under any trace, also an eager jax.vmap
        mesh = jax.sharding.get_mesh()
    return None if mesh.empty else mesh


def whole_on_explicit_mesh() -> NamedSharding | None:
    """Where arrays without a sharding go if the mesh in use has Explicit axes."""
    mesh = jax.sharding.get_abstract_mesh()
    if not mesh.explicit_axes:
        return None
    with contextlib.suppress(ValueError):  # under any trace, also an eager jax.vmap
        mesh = jax.sharding.get_mesh()
    return NamedSharding(mesh, PartitionSpec())


def explicit_mesh(leaves: Iterable[Any]) -> AbstractMesh | None:
    """A mesh with Explicit axes that is in use, or that an array of `leaves` is on."""
    meshes = [jax.sharding.get_abstract_mesh()]
    meshes += [_typed_mesh(x) for x in leaves if isinstance(x, jax.Array)]
    return next((mesh for mesh in meshes if mesh.explicit_axes), None)


@contextlib.contextmanager
def with_auto_axes(tree: Any, mesh: Mesh | AbstractMesh | None = None) -> Iterator[Any]:
    """Makes all axes Auto, of the mesh in use and of the meshes that arrays are on.

    Types of tracers stay Explicit if they are, as do the arrays that an eager
    `jax.vmap` maps over.

    Args:
        tree: pytree of arrays.
        mesh: a mesh to put in use instead.

    Yields:
        The tree, its arrays where they were.
    """
    if not is_tracing() and any(isinstance(x, Tracer) for x in jax.tree.leaves(tree)):
        yield tree
        return
    mesh = mesh or mesh_in_use()
    with contextlib.nullcontext() if mesh is None else _in_use(mesh):
        yield jax.tree.map(_with_auto_axes, tree)


def placed_like(tree: Any, model: Any) -> Any:
    """The arrays of a tree, with Explicit axes where those of `model` have them."""
    return jax.tree.map(_placed_like, tree, model)


def _placed_like(x: Any, model: Any) -> Any:
    is_concrete = isinstance(model, jax.Array) and not isinstance(model, Tracer)
    if is_tracing() or not is_concrete or not _typed_mesh(model).explicit_axes:
        return x
    return jax.device_put(x, model.sharding)


def _in_use(mesh: Mesh | AbstractMesh) -> contextlib.AbstractContextManager[Any]:
    if not is_tracing():
        return jax.set_mesh(automatic(mesh))
    if jax.sharding.get_abstract_mesh().explicit_axes:
        return jax.sharding.use_abstract_mesh(mesh.abstract_mesh)
    return jax.sharding.use_abstract_mesh(automatic(mesh).abstract_mesh)


def _with_auto_axes(x: Any) -> Any:
    return x if is_tracing() else on_automatic_mesh(x)


def _typed_mesh(x: jax.Array) -> AbstractMesh:
    """The mesh in the type of an array."""
    aval: Any = jax.typeof(x)
    return aval.sharding.mesh


def inside_auto_axes(
    fun: Callable[..., list[Any]],
    arrays: list[Any],
    mesh: AbstractMesh,
    shardings: Iterable[NamedSharding | None],
) -> list[Any]:
    """`fun(arrays)`, drawn with Auto axes inside a program whose axes are Explicit.

    Args:
        fun: function of a list of arrays that returns another.
        arrays: the arrays; tracers, at least one of them.
        mesh: the mesh of the program.
        shardings: where outputs go; None means whole on every device.
    """
    specs = [PartitionSpec() if s is None else s.spec for s in shardings]
    places = [NamedSharding(mesh, spec) for spec in specs]
    axes = mesh.explicit_axes
    drawn: Any = jax.sharding.auto_axes(fun, axes=axes, out_sharding=places)
    return drawn(arrays)


def checked_mesh(mesh: Any) -> Mesh | AbstractMesh | None:
    """The mesh given, else the mesh in use, if any.

    Raises:
        TypeError: if it is not a mesh.
    """
    if mesh is not None and not isinstance(mesh, Mesh | AbstractMesh):
        raise TypeError(
            "mesh must be a jax.sharding.Mesh, such as "
            f"jax.make_mesh((8,), ('data',)), got {mesh!r}."
        )
    return mesh_in_use() if mesh is None else mesh


def named_sharding(mesh: Mesh | AbstractMesh, spec: PartitionSpec) -> NamedSharding:
    """The sharding of a spec over a mesh.

    Raises:
        ValueError: if the mesh has no axis that the spec names.
    """
    names = [name for entry in spec for name in axis_names(entry)]
    unknown = [name for name in names if name not in mesh.shape]
    if unknown:
        raise ValueError(
            f"{spec} names the axis {unknown[0]!r}, which is not one of this mesh: "
            f"its axes are {', '.join(map(repr, mesh.axis_names))}"
        )
    return NamedSharding(mesh, spec)


def axis_names(entry: Any) -> tuple[str, ...]:
    """The mesh axes in one entry of a `PartitionSpec`."""
    names = entry if isinstance(entry, tuple) else (entry,)
    return tuple(name for name in names if isinstance(name, str))
