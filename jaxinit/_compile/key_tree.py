"""Threefry keys derived from root keys, as a tree that is evaluated level by level.

Under `jax_threefry_partitionable`, splitting a key and folding data into it are one
operation: child `m` of a key is the hash of the counter `m` under that key. So every
key that a program derives is a root key followed by a path of 32-bit messages. Take

    def init(key):
        b, c = jax.random.split(jax.random.fold_in(key, 7))

Keys are named in the order in which they are met:

    name  parent  message  level
       0     -       -       0      key
       1     0       7       1      jax.random.fold_in(key, 7)
       2     1       0       2      b
       3     1       1       2      c

`schedule` cuts the table by level: two steps, `(parents, messages)` of `([0], [7])` and
`([1, 1], [0, 1])`. Each is one vectorised hash, however many keys a level has: in NumPy
on the host, so that nothing is compiled, or in the program under an outer trace.

What holds: a parent is older than its children, so its level is always smaller; a key
that is derived twice has one name, so that equal keys are equal integers.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.extend.random import threefry_prng_impl

from jaxinit._kernel.threefry import JAX_WORDS, Words, threefry_2x32


class KeyTree:
    """Keys under construction; a key is named by an integer, in order of creation."""

    def __init__(self):
        self._parents: list[int] = []
        self._messages: list[int] = []
        self._levels: list[int] = []
        self._name_of: dict[tuple[int, int], int] = {}  # by parent and message

    def __len__(self) -> int:
        return len(self._levels)

    def _add(self, parent: int, message: int, level: int) -> int:
        self._parents.append(parent)
        self._messages.append(message)
        self._levels.append(level)
        return len(self._levels) - 1

    def roots(self, shape: tuple[int, ...]) -> np.ndarray:
        """New root keys, in an array of `shape`."""
        size = int(np.prod(shape, dtype=np.int64))
        names = [self._add(-1, 0, 0) for _ in range(size)]
        return np.array(names, np.int64).reshape(shape)

    def derive(self, parents: np.ndarray, messages: np.ndarray) -> np.ndarray:
        """The children of `parents` under `messages`, broadcast against each other."""
        parents, messages = np.broadcast_arrays(parents, messages)
        pairs = zip(parents.ravel().tolist(), messages.ravel().tolist(), strict=True)
        names = [self._child(*pair) for pair in pairs]
        return np.array(names, np.int64).reshape(parents.shape)

    def _child(self, parent: int, message: int) -> int:
        name = self._name_of.get((parent, message))
        if name is None:
            name = self._add(parent, message, self._levels[parent] + 1)
            self._name_of[parent, message] = name
        return name

    def schedule(self) -> "KeySchedule":
        """The tree in order of evaluation."""
        levels = np.array(self._levels, np.int64)
        order = np.argsort(levels, kind="stable")  # names, in order of evaluation
        position = np.empty_like(order)
        position[order] = np.arange(len(order))
        steps = []
        for level in range(1, int(levels.max(initial=0)) + 1):
            members = order[levels[order] == level]
            parents = position[np.array(self._parents, np.int64)[members]]
            steps.append((parents, np.array(self._messages, np.uint32)[members]))
        return KeySchedule(position, tuple(steps))


class KeySchedule:
    """A tree of keys whose levels are ready to be hashed, one vectorised call each."""

    def __init__(self, position, steps):
        self._position = position
        self._steps = steps

    def words(self, roots: Sequence[Any]) -> Any:
        """The words of every key, `uint32[number of keys, 2]`, by name of the key.

        Args:
            roots: the words of the root keys, in order of creation, as arrays of shape
                `[..., 2]`: NumPy arrays, or tracers for a program under a trace.

        Returns:
            A NumPy array if all roots are NumPy arrays, else a JAX array.
        """
        if all(isinstance(root, np.ndarray) for root in roots):
            return self._words_on_host(roots)
        pool = [jnp.zeros((0, 2), np.uint32), *(root.reshape(-1, 2) for root in roots)]
        pool = jnp.concatenate(pool)
        for parents, messages in self._steps:
            k0, k1 = pool[parents, 0], pool[parents, 1]
            zero, counter = jnp.zeros_like(messages), jnp.asarray(messages)
            hashed = threefry_2x32(k0, k1, zero, counter, JAX_WORDS)
            pool = jnp.concatenate([pool, jnp.stack(hashed, axis=-1)])
        return pool[self._position]

    def _words_on_host(self, roots: Sequence[np.ndarray]) -> np.ndarray:
        pool = np.empty((2, len(self._position)), np.uint32)
        known = sum(root.size for root in roots) // 2
        if roots:
            flat = [root.reshape(-1, 2).T for root in roots]
            np.concatenate(flat, axis=1, out=pool[:, :known])
        for parents, messages in self._steps:
            k0, k1 = pool[:, parents]
            zero = np.zeros_like(messages)
            new = pool[:, known : known + len(messages)]
            new[0], new[1] = threefry_2x32(k0, k1, zero, messages, _NUMPY_WORDS)
            known += len(messages)
        return pool.T[self._position]


# Arrays, made once: NumPy takes longer to make a number than to shift a few words.
_DISTANCES = [np.array(distance, np.uint32) for distance in range(33)]


def _rotate_left(x: np.ndarray, distance: int) -> np.ndarray:
    left = np.left_shift(x, _DISTANCES[distance])
    return np.bitwise_or(left, np.right_shift(x, _DISTANCES[32 - distance]))


_NUMPY_WORDS = Words(np.add, np.bitwise_xor, _rotate_left)


def key_words(key: Any) -> Any:
    """The words of a key or of raw words: on the host, or traced if they are."""
    data = jax.random.key_data(key) if is_key(key) else key
    return data if isinstance(data, Tracer) else np.asarray(data)


def seed_words(seed: Any) -> Any:
    """The words of the threefry key made from an integer that was traced.

    `jax_random_seed_offset` has been added to it by then.
    """
    if isinstance(seed, Tracer):
        return threefry_prng_impl.seed(seed)
    value = np.asarray(seed, jax.typeof(seed).dtype)  # a Python int: as jax types it
    low = value.astype(np.uint32)  # extends the sign
    high = value >> 32 if value.dtype.itemsize == 8 else np.zeros_like(value)
    return np.stack([high.astype(np.uint32), low])


def is_key(value: Any) -> bool:
    """Whether `value` is a typed key or an array of them."""
    return jnp.issubdtype(value.dtype, jax.dtypes.prng_key)
