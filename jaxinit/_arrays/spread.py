"""Arrays that are spread over devices and processes, and what is found in their parts.

Every process calls `gathered`, `summed` and `small` in the same order, with tables of
the same shape; whoever does not is waited for. So whether one is called may depend only
on what all processes know: shapes, shardings, and what was brought together before.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec


def spans(x: Any) -> bool:
    """Whether an array has parts in several processes; the same in all of them."""
    if not isinstance(x, jax.Array) or jax.process_count() == 1:
        return False
    devices = iter(x.sharding.device_set)
    first = next(devices).process_index
    return any(device.process_index != first for device in devices)


def parts(x: Any) -> Iterator[Any]:
    """What of an array lies in this process, each part where it is, and once."""
    if not isinstance(x, jax.Array):
        x = jnp.asarray(x)
    return (s.data for s in x.addressable_shards if s.replica_id == 0)


def without_mesh() -> contextlib.AbstractContextManager[Any]:
    """Puts no mesh in use, for programs on parts, which lie on one device each."""
    is_in_use = not jax.sharding.get_abstract_mesh().empty
    return jax.set_mesh(_NO_MESH) if is_in_use else contextlib.nullcontext()


_NO_MESH = Mesh(np.empty((), object), ())


def small(x: Any) -> np.ndarray:
    """An array of few entries, whole on this host."""
    return np.asarray(reduced(_same, x) if spans(x) else x)


def reduced(reduction: Callable[..., Any], *arrays: Any) -> Any:
    """`jax.jit` of a hashable function of arrays, for outputs that are small.

    It runs where the first array is, and every device, so every process, gets the
    outputs.
    """
    sharding = getattr(arrays[0], "sharding", None)
    if not isinstance(sharding, NamedSharding):
        with without_mesh():
            return _jitted(reduction, None)(*arrays)
    mesh = automatic(sharding.mesh)
    with jax.set_mesh(mesh):
        whole = NamedSharding(mesh, PartitionSpec())
        return _jitted(reduction, whole)(*map(on_automatic_mesh, arrays))


def on_automatic_mesh(x: Any) -> Any:
    """A concrete array as it is, the axes of its mesh made Auto."""
    sharding: Any = getattr(x, "sharding", None)
    if isinstance(x, Tracer) or not isinstance(sharding, NamedSharding):
        return x
    if AxisType.Explicit not in sharding.mesh.axis_types:
        return x
    if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
        # jax.device_put takes no typed key that other processes have a part of.
        data = on_automatic_mesh(jax.random.key_data(x))
        return jax.random.wrap_key_data(data, impl=jax.random.key_impl(x))
    return jax.device_put(x, NamedSharding(automatic(sharding.mesh), sharding.spec))


def automatic(mesh: Any) -> Any:
    """The mesh with Auto axes."""
    if isinstance(mesh, AbstractMesh):
        return mesh.update_axis_types(dict.fromkeys(mesh.axis_names, AxisType.Auto))
    types = (AxisType.Auto,) * len(mesh.axis_names)
    return Mesh(mesh.devices, mesh.axis_names, axis_types=types)


def gathered(table: np.ndarray) -> np.ndarray:
    """The tables of all processes, along a new first axis.

    Args:
        table: array of numbers or bytes, of any NumPy dtype.
    """
    words = _reduced(_same, np.ascontiguousarray(table).view(np.uint8))
    return words.view(table.dtype).reshape(-1, *table.shape)


def summed(table: np.ndarray) -> np.ndarray:
    """The sum of the tables of all processes, of integers from 0 to 2**48."""
    low, high = (part.astype(np.uint32) for part in (table & 0xFFFF, table >> 16))
    low, high = _reduced(_sum, np.stack([low, high])).astype(np.int64)
    return low + (high << 16)


def _same(x: jax.Array) -> jax.Array:
    return x


def _sum(x: jax.Array) -> jax.Array:
    return jnp.sum(x, axis=0, dtype=x.dtype)


def _reduced(reduction: Callable, table: np.ndarray) -> np.ndarray:
    own = NamedSharding(_mesh(), PartitionSpec("processes"))
    shape = (jax.process_count(), *table.shape)
    spread = jax.make_array_from_process_local_data(own, table[None], shape)
    return np.array(reduced(reduction, spread))


@functools.lru_cache(256)
def _jitted(reduction: Callable, sharding: NamedSharding | None) -> Callable:
    return jax.jit(reduction, out_shardings=sharding)


def _mesh() -> Mesh:
    """One device of each process."""
    first: dict[int, Any] = {}
    for device in jax.devices():
        first.setdefault(device.process_index, device)
    devices = np.array([first[i] for i in sorted(first)])
    return Mesh(devices, ("processes",), axis_types=(AxisType.Auto,))
