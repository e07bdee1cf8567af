"""A short hash of a parameter tree, the same on every mesh and in every process."""

import math
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxinit._arrays.spread import reduced, without_mesh
from jaxinit._basics.integers import shown
from jaxinit._tree.paths import Path, joined, leaf_paths

_UNSIGNED = {1: np.uint8, 2: np.uint16, 4: np.uint32}


def fingerprint(params: Any) -> str:
    """A hash of the bits, shapes, dtypes and paths of a pytree of arrays.

    Every device hashes its own shard of an array, and only sums travel. So it is cheap,
    and does not depend on how arrays are sharded. In a multi-process program, all
    processes must call it. It detects accidents, not forgery.

    Args:
        params: pytree of arrays; keys are allowed.

    Returns:
        16 hexadecimal digits.

    Raises:
        TypeError: naming the first leaf that is not an array.

    >>> import jax.numpy as jnp
    >>> fingerprint({"w": jnp.zeros(3)}) == fingerprint({"w": jnp.zeros(3)})
    True
    >>> fingerprint({"w": jnp.zeros(3)}) == fingerprint({"w": -jnp.zeros(3)})
    False
    """
    flat = arrays(params)
    sums = [hashed(array) for _, array in flat]
    return digest(
        f"{path}:{array.dtype}{array.shape}:{np.asarray(words).tolist()};"
        for (path, array), words in zip(flat, sums, strict=True)
    ).hex()


def hashed(array: jax.Array) -> jax.Array:
    """Two 32-bit words: a hash of all entries of an array and their places."""
    return reduced(_sums, array)


def digest(texts: Iterable[str]) -> bytes:
    """Eight bytes: a hash of the texts, one after the other."""
    import hashlib  # loads OpenSSL, which importing jaxinit need not

    blake = hashlib.blake2b(digest_size=8)
    for text in texts:
        blake.update(text.encode())
    return blake.digest()


def arrays(tree: Any) -> list[tuple[str, jax.Array]]:
    """The leaves of a tree with their paths, keys as their words."""
    with without_mesh():
        flat = [
            (joined(path), _as_array(path, leaf)) for path, leaf in leaf_paths(tree)
        ]
    return flat


def _as_array(path: Path, leaf: Any) -> jax.Array:
    try:
        leaf = jnp.asarray(leaf)
    except (TypeError, ValueError):
        raise TypeError(
            f"{joined(path) or 'the whole'}: not an array of numbers but "
            f"{shown(leaf)}; leave it out."
        ) from None
    is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return jax.random.key_data(leaf) if is_key else leaf


def _sums(x: jax.Array) -> jax.Array:
    """Two sums, modulo 2**32, of hashes of each entry with its place.

    Sums, because they do not depend on the order in which devices add them up.
    """
    words = _as_words(x)
    place = jnp.zeros((), np.uint32)
    for axis in range(words.ndim):
        stride = np.uint32(math.prod(words.shape[axis + 1 :]) % 2**32)
        index = lax.broadcasted_iota(np.uint32, words.shape, axis)
        place = place + index * stride
    first = _mixed(words + _mixed(place + np.uint32(0x9E3779B9)))
    second = _mixed(words ^ _mixed(place ^ np.uint32(0x7F4A7C15)))
    return jnp.stack([jnp.sum(h, dtype=np.uint32) for h in (first, second)])


def _as_words(x: jax.Array) -> jax.Array:
    """The bits of an array as uint32; two words along a new axis for 64-bit dtypes."""
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
