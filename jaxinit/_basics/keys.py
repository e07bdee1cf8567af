"""What may be drawn from: a single key, typed or raw."""

import jax
import jax.numpy as jnp


def check_key(key) -> None:
    """Raises unless `key` is one typed key, or the raw data of one.

    Raw data is that of the default PRNG implementation, as everywhere in `jax.random`.
    A key may be traced.
    """
    try:
        typed = hasattr(key, "dtype") and jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
        shape = (key if typed else jax.random.wrap_key_data(key)).shape
    except (TypeError, ValueError):
        raise TypeError(
            "key must be a typed key, jax.random.key(seed), or the raw uint32 data of "
            f"one, shape {_raw_shape()} under the default PRNG implementation, got "
            f"{_described(key)}."
        ) from None
    if shape:
        raise ValueError(
            f"key must be a single key, got an array of keys of shape {shape}. Use "
            "jax.vmap to draw once for each."
        )


def _raw_shape() -> tuple[int, ...]:
    return jax.eval_shape(lambda: jax.random.key_data(jax.random.key(0))).shape


def _described(key) -> str:
    if hasattr(key, "dtype"):
        return f"an array of dtype {key.dtype} and shape {key.shape}"
    if isinstance(key, int) and not isinstance(key, bool):
        return f"the seed {key!r}: write jax.random.key({key!r})"
    return f"{key!r} of type {type(key).__name__}"
