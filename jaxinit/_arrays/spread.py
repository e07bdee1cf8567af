"""Arrays that are spread over devices and processes: their shards, and small results.

A process can read only the shards on its own devices. Take `x` of `f32[8]`, sharded
over four devices of two processes:

    process 0    local_shards(x): x[0:2], x[2:4]
    process 1    local_shards(x): x[4:6], x[6:8]

To count the zeros, each process counts in its own shards, say 1 and 3. Then
`summed(np.array([1]))` in one and `summed(np.array([3]))` in the other gives
`np.array([4])` in both, and only the counts travel. `gathered` gives both tables, one
row for each process.

What holds: every process calls `gathered`, `summed`, `small` and `reduced` in the same
order, with tables of the same shape; if one process does not, the others wait forever.
So whether a call is made may depend only on what all processes know: shapes, shardings,
and the results of earlier calls.
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
    """Whether an array has shards in several processes; the same in all of them."""
    if not isinstance(x, jax.Array) or jax.process_count() == 1:
        return False
    devices = iter(x.sharding.device_set)
    first = next(devices).process_index
    return any(device.process_index != first for device in devices)


def local_shards(x: Any) -> Iterator[Any]:
    """The shards of an array in this process, each on its device.

    Each entry is in one shard of one process, even if it is replicated.
    """
    if not isinstance(x, jax.Array):
        x = jnp.asarray(x)
    return (s.data for s in x.addressable_shards if s.replica_id == 0)


def without_mesh() -> contextlib.AbstractContextManager[Any]:
    """Puts no mesh in use, for programs on shards, which lie on one device each."""
    is_in_use = not jax.sharding.get_abstract_mesh().empty
    return jax.set_mesh(_NO_MESH) if is_in_use else contextlib.nullcontext()


_NO_MESH = Mesh(np.empty((), object), ())


def small(x: Any) -> np.ndarray:
    """All entries of a small array, on this host."""
    return np.asarray(reduced(_identity, x) if spans(x) else x)


def on_host(x: Any) -> np.ndarray:
    """An array on the host; a view of it where it is one array of a CPU.

    What is copied is not kept by the array, as it is by `numpy.asarray`.
    """
    if not isinstance(x, jax.Array):
        return np.asarray(x)
    if len(x.sharding.device_set) == 1:
        return _fetched(x)
    whole = np.empty(x.shape, x.dtype)
    for shard in x.addressable_shards:
        if shard.replica_id == 0:
            whole[shard.index] = _fetched(shard.data)
    return whole


def host_parts(x: Any) -> list[np.ndarray]:
    """The shards of an array in this process, as `on_host` gives them."""
    if not isinstance(x, jax.Array):
        return [np.asarray(x)]
    return [_fetched(shard) for shard in local_shards(x)]


def _fetched(x: jax.Array) -> np.ndarray:
    (device,) = x.devices()
    if device.platform != "cpu":
        with contextlib.suppress(RuntimeError):  # no CPU among the platforms in use
            x = jax.device_put(x, jax.local_devices(backend="cpu")[0])
    return np.asarray(x)


def reduced(reduction: Callable[..., Any], *arrays: Any) -> Any:
    """The outputs of a function of arrays, compiled and replicated.

    Args:
        reduction: hashable function that returns small arrays; kept compiled.
        arrays: the program runs where the first one is.

    Returns:
        The outputs, on every device of the first array, so in every process.
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
    """A concrete array, or a shape, in its place, the axes of its mesh made Auto."""
    sharding: Any = getattr(x, "sharding", None)
    if isinstance(x, Tracer) or not isinstance(sharding, NamedSharding):
        return x
    if AxisType.Explicit not in sharding.mesh.axis_types:
        return x
    if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
        # jax.device_put takes no typed keys that have shards in other processes.
        data = on_automatic_mesh(jax.random.key_data(x))
        return jax.random.wrap_key_data(data, impl=jax.random.key_impl(x))
    place = NamedSharding(automatic(sharding.mesh), sharding.spec)
    if isinstance(x, jax.ShapeDtypeStruct):
        return x.update(sharding=place)
    return jax.device_put(x, place)


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
    # As bytes, because jax would narrow 64-bit dtypes.
    rows = _of_all_processes(_identity, np.ascontiguousarray(table).view(np.uint8))
    return rows.view(table.dtype).reshape(-1, *table.shape)


def summed(table: np.ndarray) -> np.ndarray:
    """The sum of the tables of all processes, of integers from 0 to 2**48."""
    # In two halves of 32 bits, because jax would narrow 64-bit integers.
    halves = np.stack([table & 0xFFFF, table >> 16]).astype(np.uint32)
    low, high = _of_all_processes(_sum_over_processes, halves).astype(np.int64)
    return low + (high << 16)


def _identity(x: jax.Array) -> jax.Array:
    return x


def _sum_over_processes(x: jax.Array) -> jax.Array:
    return jnp.sum(x, axis=0, dtype=x.dtype)


def _of_all_processes(reduction: Callable, table: np.ndarray) -> np.ndarray:
    """What `reduction` gives for the stacked tables of all processes."""
    one_row_each = NamedSharding(_mesh_of_processes(), PartitionSpec("processes"))
    shape = (jax.process_count(), *table.shape)
    stacked = jax.make_array_from_process_local_data(one_row_each, table[None], shape)
    return np.array(reduced(reduction, stacked))


@functools.lru_cache(256)
def _jitted(reduction: Callable, sharding: NamedSharding | None) -> Callable:
    return jax.jit(reduction, out_shardings=sharding)


def _mesh_of_processes() -> Mesh:
    """A mesh of one device of each process."""
    first_device: dict[int, Any] = {}
    for device in jax.devices():
        first_device.setdefault(device.process_index, device)
    devices = np.array([first_device[i] for i in sorted(first_device)])
    return Mesh(devices, ("processes",), axis_types=(AxisType.Auto,))
