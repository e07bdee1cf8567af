"""What comes out in narrow dtypes: drawn in them by jax, rounded to them by jaxinit."""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jax.nn import initializers as reference

import jaxinit
from benchmarks.harness import Table, fresh

_DTYPES = ("float32", "bfloat16", "float16", "float8_e4m3fn", "float8_e5m2")
_PAIRS = {
    "normal": (jaxinit.normal(1.0), reference.normal(1.0)),
    "truncated_normal": (
        jaxinit.truncated_normal(1.0),
        reference.truncated_normal(1.0),
    ),
}


def run(size: int = 2048) -> list[dict]:
    """Draws arrays of shape (size, size) in every dtype, and describes them."""
    return fresh(measure, size)


def measure(size: int) -> list[dict]:
    """The same, in this process."""
    return list(_rows(jax.random.key(0), (size, size)))


def _rows(key, shape) -> Iterator[dict]:
    for law, (ours, theirs) in _PAIRS.items():
        wanted = ours.moments(shape)
        for name in _DTYPES:
            for method, init in (("jax", theirs), ("jaxinit", ours)):
                draw = jax.jit(init, static_argnums=(1, 2))
                entries = np.asarray(draw(key, shape, jnp.dtype(name)))
                yield {
                    "law": law,
                    "dtype": name,
                    "method": method,
                    "draws": entries.size,
                    **_described(entries.astype(np.float64), wanted),
                }


def _described(entries: np.ndarray, wanted: jaxinit.Moments) -> dict:
    finite = entries[np.isfinite(entries)]
    if not finite.size:
        return {"finite": 0.0}
    return {
        "finite": finite.size / entries.size,
        "distinct": np.unique(finite).size,
        "mean": (finite.mean() - wanted.mean) / wanted.std,
        "std": finite.std() / wanted.std,
    }


def tables(rows: list[dict]) -> list[Table]:
    """One line per law, dtype and package."""
    head = ("law", "dtype", "by", "finite", "distinct", "mean / std", "std / wanted")
    lines = [
        (row["law"], row["dtype"], row["method"], f"{row['finite']:.0%}")
        + (
            (str(row["distinct"]), f"{row['mean']:+.5f}", f"{row['std']:.4f}")
            if row["finite"]
            else ("", "", "")
        )
        for row in rows
    ]
    draws = rows[0]["draws"]
    title = (
        f"Low precision: {draws:,} draws; a mean that is right is within "
        f"+-{3 / draws**0.5:.5f} (three standard errors)"
    )
    return [Table(title, head, lines)]
