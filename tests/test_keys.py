"""Keys derived as a tree, and the fused bits: those of jax."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sampling import sampled

from jaxinit._compile.key_tree import KeyTree, key_words, seed_words
from jaxinit._kernel.threefry import with_fused_bits

ROOTS = jax.random.split(jax.random.key(9), 3)


def derived(roots):
    """Every way to derive keys, two levels deep, by jax."""
    split = jax.vmap(lambda key: jax.random.split(key, 4))(roots)
    folded = jax.vmap(jax.random.fold_in)(
        split[:, 1], jnp.array([7, 2**31, 0], jnp.uint32)
    )
    return [roots, split, folded, jax.random.split(folded[2], (2, 3))]


def tree():
    keys = KeyTree()
    roots = keys.roots((3,))
    split = keys.derive(roots[:, None], np.arange(4))
    folded = keys.derive(split[:, 1], np.array([7, 2**31, 0], np.uint32))
    return keys, [
        roots,
        split,
        folded,
        keys.derive(folded[2], np.arange(6).reshape(2, 3)),
    ]


def test_words_are_those_of_jax():
    keys, names = tree()
    words = keys.schedule().words([key_words(ROOTS)])
    assert isinstance(words, np.ndarray)
    for name, want in zip(names, derived(ROOTS), strict=True):
        np.testing.assert_array_equal(words[name], jax.random.key_data(want))
    assert len(np.unique(words, axis=0)) == len(keys)


def test_traced_words_are_those_of_the_host():
    keys, _ = tree()
    schedule = keys.schedule()
    traced = jax.jit(lambda roots: schedule.words([key_words(roots)]))(ROOTS)
    np.testing.assert_array_equal(traced, schedule.words([key_words(ROOTS)]))


def test_the_same_key_has_one_name():
    keys = KeyTree()
    root = keys.roots(())
    first, second = keys.derive(root, np.arange(4)), keys.derive(root, np.arange(4))
    np.testing.assert_array_equal(first, second)
    assert len(keys) == 5


def test_roots_may_come_after_what_is_derived():
    keys = KeyTree()
    first = keys.roots(())
    child = keys.derive(first, np.array(5))
    second = keys.roots(())
    words = keys.schedule().words([key_words(key) for key in ROOTS[:2]])
    want = [ROOTS[0], jax.random.fold_in(ROOTS[0], 5), ROOTS[1]]
    for name, key in zip([first, child, second], want, strict=True):
        np.testing.assert_array_equal(words[name], jax.random.key_data(key))


@pytest.mark.parametrize("seed", [0, 1, -1, 2**31 - 1])
def test_seeds(seed):
    want = jax.random.key_data(jax.random.key(seed))
    np.testing.assert_array_equal(seed_words(seed), want)


# Every shape, with one word for an entry and with two; parts of words at two sizes.
WORDS = itertools.product(
    [(), (1,), (5,), (4, 33), (2, 3, 16), (0,)], ["uint32", "uint64"]
)
PARTS = itertools.product([(5,), (4, 33)], ["uint8", "uint16"])
BITS = {f"{dtype}{list(shape)}": (shape, dtype) for shape, dtype in (*WORDS, *PARTS)}
BEYOND = ["uint64[]", "uint32[1]", "uint64[1]", "uint64[5]", "uint32[4, 33]"]
BEYOND += ["uint64[2, 3, 16]", "uint64[0]", "uint16[5]", "uint8[4, 33]"]
BEYOND += ["uint32[5]", "uint32[0]"]


@pytest.mark.sample(3)
@pytest.mark.parametrize("name", sampled(BITS, BEYOND))
def test_fused_bits_are_those_of_jax(name):
    shape, dtype = BITS[name]
    with jax.enable_x64(dtype == "uint64"):
        key = jax.random.key(3)
        want = jax.random.bits(key, shape, dtype)
        got = jax.jit(lambda: jax.random.bits(with_fused_bits(key), shape, dtype))()
        assert got.dtype == want.dtype == dtype
        np.testing.assert_array_equal(got, want)


def test_fused_bits_of_another_key_differ():
    """Negative control."""
    fused, other = with_fused_bits(jax.random.key(3)), jax.random.key(4)
    fused, other = (np.asarray(jax.random.bits(key, (5,))) for key in (fused, other))
    assert (fused != other).all()
