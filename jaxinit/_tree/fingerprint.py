"""A short hash of a parameter tree, the same on every mesh, and on every process."""

import functools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental.multihost_utils import process_allgather
from jax.sharding import NamedSharding, PartitionSpec

from jaxinit._tree.paths import joined, leaf_paths

_UNSIGNED = {1: np.uint8, 2: np.uint16, 4: np.uint32}


def fingerprint(params: Any) -> str:
    """A hash of the bits, shapes, dtypes and paths of a pytree of arrays.

    Every device hashes its own part of an array; only sums travel. So it is cheap, the
    same however the arrays are sharded, and may be called in a multi-process program,
    by all processes. It detects accidents, not forgery.

    Args:
        params: pytree of arrays; keys are allowed.

    Returns:
        16 hexadecimal digits.

    >>> import jax.numpy as jnp
    >>> fingerprint({"w": jnp.zeros(3)}) == fingerprint({"w": jnp.zeros(3)})
    True
    >>> fingerprint({"w": jnp.zeros(3)}) == fingerprint({"w": -jnp.zeros(3)})
    False
    """
    flat = [(joined(path), _as_array(leaf)) for path, leaf in leaf_paths(params)]
    sums = [_hasher(_replicated(array))(array) for _, array in flat]
    return digest(
        f"{path}:{array.dtype}{array.shape}:{np.asarray(words).tolist()};"
        for (path, array), words in zip(flat, sums, strict=True)
    ).hex()


def check_processes(tree: Any) -> None:
    """Raises unless all processes of a multi-process program hold the same values.

    Called by all processes, it compares hashes. An array of a process's own, such as a
    key, is compared whole. Of an array that is spread over processes, the parts that
    several of them hold are compared. What one process alone holds cannot be compared:
    check the key that it is drawn from.

    Args:
        tree: pytree of arrays, numbers and keys.

    Raises:
        ValueError: naming the leaves that differ, and the processes.

    >>> check_processes({"seed": 0, "key": jax.random.key(0)})
    """
    if jax.process_count() == 1:
        return
    flat = [(joined(path), _as_array(leaf)) for path, leaf in leaf_paths(tree)]
    parts = [row for i, (_, array) in enumerate(flat) for row in _parts(i, array)]
    structure = digest(f"{path}:{array.dtype}{array.shape};" for path, array in flat)
    heads = _gathered([*_two_words(structure), len(parts)])
    sides = _sides({i: tuple(head[:2]) for i, head in enumerate(heads)})
    if sides:
        raise ValueError(f"processes hold trees of other paths or shapes: {sides}.")
    size = max(head[2] for head in heads)
    tables = _gathered([*parts, *[[0] * 5] * (size - len(parts))])
    held: dict[tuple[int, ...], dict[int, tuple]] = {}
    for process, table in enumerate(tables):
        for leaf, *row in table[: heads[process][2]]:
            held.setdefault((leaf, *row[:2]), {})[process] = tuple(row[2:])
    differ = ((flat[leaf][0], _sides(values)) for (leaf, *_), values in held.items())
    lines = dict.fromkeys(f"  {path}: {sides}" for path, sides in differ if sides)
    if lines:
        raise ValueError(
            "processes hold different values; start all from one seed, one version of "
            "the program and the same data:\n" + "\n".join(lines)
        )


def _parts(leaf: int, array: jax.Array) -> Iterator[list[int]]:
    """What this process holds of a leaf: its number, where the part is, and a hash."""
    parts = {"all": array}
    if not array.is_fully_addressable:
        parts = {str(shard.index): shard.data for shard in array.addressable_shards}
    for place, data in parts.items():
        words = _hasher(_replicated(data))(data)
        yield [leaf, *_two_words(digest([place])), *np.asarray(words).tolist()]


def _gathered(rows: Sequence[Any]) -> list[Any]:
    """The rows of every process, which must be equally many."""
    return process_allgather(np.array(rows, np.uint32)).tolist()


def _sides(values: Mapping[int, Any]) -> str:
    """Which processes have other values than the rest; empty if none has."""
    sides: dict[Any, list[str]] = {}
    for process, value in values.items():
        sides.setdefault(value, []).append(str(process))
    if len(sides) == 1:
        return ""
    larger_first = sorted(sides.values(), key=len, reverse=True)
    return "processes " + " against ".join(map(", ".join, larger_first))


def digest(texts: Iterable[str]) -> bytes:
    """Eight bytes that differ where the texts, one after the other, do."""
    import hashlib  # loads OpenSSL, which importing jaxinit need not

    hashed = hashlib.blake2b(digest_size=8)
    for text in texts:
        hashed.update(text.encode())
    return hashed.digest()


def _two_words(hashed: bytes) -> list[int]:
    return np.frombuffer(hashed, "<u4").tolist()


def _as_array(leaf: Any) -> jax.Array:
    leaf = jnp.asarray(leaf)
    is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return jax.random.key_data(leaf) if is_key else leaf


def _replicated(array: jax.Array) -> NamedSharding | None:
    """Where the sums go: to every device that has a part of the array."""
    sharding = array.sharding
    if not isinstance(sharding, NamedSharding):
        return None
    return NamedSharding(sharding.mesh, PartitionSpec())


@functools.cache
def _hasher(out_sharding: NamedSharding | None):
    return jax.jit(_sums, out_shardings=out_sharding)


def _sums(x: jax.Array) -> jax.Array:
    """Two sums modulo 2**32 of hashes of every entry and its place."""
    words = _words(x)
    place = jnp.zeros((), np.uint32)
    for axis in range(words.ndim):
        stride = np.uint32(math.prod(words.shape[axis + 1 :]) % 2**32)
        index = lax.broadcasted_iota(np.uint32, words.shape, axis)
        place = place + index * stride
    first = _mixed(words + _mixed(place + np.uint32(0x9E3779B9)))
    second = _mixed(words ^ _mixed(place ^ np.uint32(0x7F4A7C15)))
    return jnp.stack([jnp.sum(h, dtype=np.uint32) for h in (first, second)])


def _words(x: jax.Array) -> jax.Array:
    if jnp.iscomplexobj(x):
        x = jnp.stack([x.real, x.imag], axis=-1)
    if x.dtype == np.bool_:
        x = x.astype(np.uint8)
    if x.dtype.itemsize == 8:
        return lax.bitcast_convert_type(x, np.uint32)
    bits = lax.bitcast_convert_type(x, _UNSIGNED[x.dtype.itemsize])
    return bits.astype(np.uint32)


def _mixed(x: jax.Array) -> jax.Array:
    """The finaliser of MurmurHash3 (Appleby, 2011)."""
    x = (x ^ (x >> np.uint32(16))) * np.uint32(0x85EBCA6B)
    x = (x ^ (x >> np.uint32(13))) * np.uint32(0xC2B2AE35)
    return x ^ (x >> np.uint32(16))
