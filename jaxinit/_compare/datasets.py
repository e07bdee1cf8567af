"""Data by name: sets that come with scikit-learn, and tasks that are made of a key."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

_BATCH = 128
_SYMBOLS, _LENGTH, _DELAY = 8, 5, 20  # of the copy task
_TERMS = 30  # of the adding task


def digits() -> tuple[np.ndarray, np.ndarray]:
    """1,797 images of digits, (8, 8, 1), of mean 0 and variance 1 over all pixels."""
    x, y = _of_sklearn("load_digits")
    return ((x - x.mean()) / x.std()).reshape(-1, 8, 8, 1), y


def breast_cancer() -> tuple[np.ndarray, np.ndarray]:
    """569 tumours, 30 measures of mean 0 and variance 1, malignant (0) or benign."""
    return _standard("load_breast_cancer")


def wine() -> tuple[np.ndarray, np.ndarray]:
    """178 wines, 13 measures of mean 0 and variance 1, from three growers."""
    return _standard("load_wine")


def _standard(name: str) -> tuple[np.ndarray, np.ndarray]:
    x, y = _of_sklearn(name)
    return (x - x.mean(0)) / x.std(0), y


def _of_sklearn(name: str) -> tuple[np.ndarray, np.ndarray]:
    try:
        from sklearn import datasets
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "this data comes with scikit-learn: pip install 'jaxinit[data]'",
            name="scikit-learn",
        ) from error
    x, y = getattr(datasets, name)(return_X_y=True)
    return x.astype(np.float32), y.astype(np.int32)


def xor(key: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Points around the corners (+-1, +-1), with noise of 0.2: are the signs unlike?"""
    corner, noise = jax.random.split(key)
    signs = jax.random.bernoulli(corner, shape=(_BATCH, 2))
    x = jnp.where(signs, 1.0, -1.0) + 0.2 * jax.random.normal(noise, signs.shape)
    return x, jnp.sum(signs, 1, dtype=jnp.int32) % 2


def copy(key: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Five of eight symbols, 20 blanks, a mark, and five places to write them.

    `x` is one-hot, (batch, 31, 10): eight symbols, the blank and the mark. `y` has the
    symbols at the last five places, and -1, which does not count, before. Hochreiter
    and Schmidhuber, "Long short-term memory" (1997).
    """
    symbols = jax.random.randint(key, (_BATCH, _LENGTH), 0, _SYMBOLS)
    blanks = jnp.full((_BATCH, _DELAY), _SYMBOLS)
    mark = jnp.full((_BATCH, 1), _SYMBOLS + 1)
    x = jnp.concatenate([symbols, blanks, mark, blanks[:, :_LENGTH]], 1)
    before = jnp.full((_BATCH, _LENGTH + _DELAY + 1), -1)
    return jax.nn.one_hot(x, _SYMBOLS + 2), jnp.concatenate([before, symbols], 1)


def adding(key: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Thirty numbers in [0, 1], two of them marked: what is the sum of these?

    `x` is (batch, 30, 2), number and mark; one mark is in each half. `y` is (batch, 1).
    Hochreiter and Schmidhuber, "Long short-term memory" (1997).
    """
    numbers, first, second = jax.random.split(key, 3)
    half = _TERMS // 2
    places = jnp.stack(
        [
            jax.random.randint(first, (_BATCH,), 0, half),
            jax.random.randint(second, (_BATCH,), half, _TERMS),
        ],
        1,
    )
    values = jax.random.uniform(numbers, (_BATCH, _TERMS))
    marks = jnp.sum(jax.nn.one_hot(places, _TERMS), 1)
    return jnp.stack([values, marks], -1), jnp.sum(values * marks, 1, keepdims=True)


# Functions without an argument return arrays (x, y); the others make batches of a key.
ARRAYS: dict[str, Callable[[], Any]] = {
    "digits": digits,
    "breast_cancer": breast_cancer,
    "wine": wine,
}
TASKS: dict[str, Callable[[jax.Array], Any]] = {
    "xor": xor,
    "copy": copy,
    "adding": adding,
}


def named(name: str) -> Any:
    """Data by name, as `jaxinit.compare.compare` takes it."""
    return TASKS[name] if name in TASKS else ARRAYS[name]()
