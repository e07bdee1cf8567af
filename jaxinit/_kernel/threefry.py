"""Threefry random bits as one elementwise expression that XLA fuses with its consumer.

The bits are those of `jax_threefry_partitionable=True`: element `i` of an array is the
hash of the key and the 64-bit counter `i`, its two words combined. jax's own CPU
lowering rolls the rounds into a loop that passes over memory many times; unrolled over
a one-dimensional iota, the rounds, the transform to floats and the inverse error
function become a single loop that writes its output once.

Threefry-2x32 with 20 rounds is from Salmon et al., "Parallel random numbers: as easy as
1, 2, 3" (2011).
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import lax
from jax.extend.random import define_prng_impl, threefry_prng_impl

from jaxinit._kernel.options import setting

PARITY = 0x1BD11BDA
ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_WORDS = {8: np.uint8, 16: np.uint16, 32: np.uint32, 64: np.uint64}
_MAX_SIZE = 2**32


class Words(NamedTuple):
    """Arithmetic on 32-bit words that wraps around, by JAX or by NumPy."""

    add: Callable[[Any, Any], Any]
    xor: Callable[[Any, Any], Any]
    rotate_left: Callable[[Any, int], Any]


def _rotate_left(x: jax.Array, distance: int) -> jax.Array:
    left = lax.shift_left(x, np.uint32(distance))
    right = lax.shift_right_logical(x, np.uint32(32 - distance))
    return lax.bitwise_or(left, right)


# Not the operators of arrays: tracing those takes twice the time.
JAX_WORDS = Words(lax.add, lax.bitwise_xor, _rotate_left)


def threefry_2x32(k0: Any, k1: Any, x0: Any, x1: Any, words: Words = JAX_WORDS) -> Any:
    """Hashes counter words `(x0, x1)` under key words `(k0, k1)`, all uint32.

    Args:
        k0: first word of the key, or of one key for each counter.
        k1: second word.
        x0: high words of the counters.
        x1: low words of the counters.
        words: arithmetic of the arrays.

    Returns:
        The two words of each hash.
    """
    add, xor, rotate_left = words
    keys = (k0, k1, xor(xor(k0, k1), np.uint32(PARITY)))
    x0, x1 = add(x0, keys[0]), add(x1, keys[1])
    for group in range(5):
        for distance in ROTATIONS[group % 2]:
            x0 = add(x0, x1)
            x1 = xor(rotate_left(x1, distance), x0)
        x0 = add(x0, keys[(group + 1) % 3])
        x1 = add(x1, add(keys[(group + 2) % 3], np.uint32(group + 1)))
    return x0, x1


def unknown_zero(word: jax.Array) -> jax.Array:
    """Zero, computed from any uint32 in a way that a compiler does not see through.

    Squares are 0, 1 or 4 modulo 8, so that bits 0 and 2 are never both set.

    A counter that is the larger of the loop's own number and this zero is itself. But
    to LLVM it is no longer the number of the loop, whose sums through all rounds it
    would trace again and again: with jax 0.12 a kernel took twice the time to compile.
    """
    square = lax.mul(word, word)
    both = lax.bitwise_and(lax.shift_right_logical(square, np.uint32(2)), square)
    return lax.bitwise_and(both, np.uint32(1))


def _random_bits(key: jax.Array, bit_width: int, shape: tuple[int, ...]) -> jax.Array:
    size = math.prod(shape)
    if size >= _MAX_SIZE:  # the high counter word is no longer zero: jax knows how
        return threefry_prng_impl.random_bits(key, bit_width, shape)
    counter = lax.max(lax.iota(np.uint32, size), unknown_zero(key[0]))
    high, low = threefry_2x32(key[0], key[1], lax.full_like(counter, 0), counter)
    word = _WORDS[bit_width]
    if bit_width == 64:
        high, low = (lax.convert_element_type(x, word) for x in (high, low))
        bits = lax.bitwise_or(lax.shift_left(high, np.uint64(32)), low)
    else:
        bits = lax.convert_element_type(lax.bitwise_xor(high, low), word)
    return lax.reshape(bits, shape)


FUSED_THREEFRY = define_prng_impl(
    key_shape=(2,),
    seed=threefry_prng_impl.seed,
    split=threefry_prng_impl.split,
    fold_in=threefry_prng_impl.fold_in,
    random_bits=_random_bits,
    name="threefry2x32_fused",
    tag="fryf",
)


def is_threefry(key_dtype) -> bool:
    """Whether arrays of `key_dtype` are keys whose bits the fused kernel can make."""
    return setting("jax_threefry_partitionable") and key_dtype == _THREEFRY_DTYPE


def with_fused_bits(key: jax.Array) -> jax.Array:
    """The same key, its bits to be made by the fused kernel."""
    return jax.random.wrap_key_data(jax.random.key_data(key), impl=FUSED_THREEFRY)


_THREEFRY_DTYPE = jax.eval_shape(lambda: jax.random.key(0, impl="threefry2x32")).dtype
