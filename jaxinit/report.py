"""Tables of parameters: what is in every leaf, repeated blocks folded into one row."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from rich.table import Table

from jaxinit._array.fans import fans
from jaxinit._tree.folding import fold


@dataclass(frozen=True)
class Row:
    """Equal leaves: the same path up to integers, the same shape and dtype.

    Attributes:
        path: path of the leaves, runs of integers folded: `blocks_{0..11}/kernel`.
        collection: the Flax collection they are in, such as "params"; "" if none.
        shape: shape of each leaf.
        dtype: name of the dtype.
        leaves: number of leaves.
        bytes: size of all leaves together.
        mean: mean over all leaves, None if they are not floating-point or empty.
        std: standard deviation over all leaves, None likewise.
    """

    path: str
    collection: str
    shape: tuple[int, ...]
    dtype: str
    leaves: int
    bytes: int
    mean: complex | None
    std: float | None

    @property
    def size(self) -> int:
        """Number of entries of all leaves."""
        return self.leaves * math.prod(self.shape)

    @property
    def parameters(self) -> int:
        """Number of parameters: entries that are neither keys nor other state."""
        is_key = self.dtype.startswith("key<")
        return 0 if is_key or self.collection not in ("", "params") else self.size

    @property
    def scale(self) -> float | None:
        """The implied variance scale, `std**2 * fan_in`; None below two dimensions."""
        if self.std is None or len(self.shape) < 2:
            return None
        return self.std**2 * fans(self.shape).fan_in


@dataclass(frozen=True)
class _Measured:
    size: int
    mean: complex
    squares: float  # sum of squared deviations from the mean

    @property
    def std(self) -> float:
        return math.sqrt(self.squares / self.size)


def rows(params: Any) -> list[Row]:
    """The leaves of a pytree, measured, repeated blocks folded.

    Leaves fold into one row if their paths differ only in integers that follow each
    other and they have the same shape, dtype and, where all entries are equal, the same
    value. Statistics are taken on the device in float32 or wider.

    Args:
        params: pytree of arrays; random keys are allowed. A mapping with the entry
            "params" is read as Flax collections.

    Returns:
        One row for each different leaf, in the order of the tree.

    >>> tree = {f"block_{i}": {"bias": jnp.zeros(4)} for i in range(3)}
    >>> [(row.path, row.leaves, row.std) for row in rows(tree)]
    [('block_{0..2}/bias', 3, 0.0)]
    """
    flat = jax.tree.leaves_with_path(params)
    names = [jax.tree_util.keystr(p, simple=True, separator="/") for p, _ in flat]
    leaves = [leaf for _, leaf in flat]
    moments = _measure(leaves)
    kinds = [
        (leaf.shape, str(leaf.dtype), _constant(measured))
        for leaf, measured in zip(leaves, moments, strict=True)
    ]
    in_collections = isinstance(params, Mapping) and "params" in params
    return [
        _row(path, in_collections, [leaves[i] for i in run], [moments[i] for i in run])
        for path, run in fold(names, kinds)
    ]


def _row(path: str, in_collections: bool, leaves: list, moments: list) -> Row:
    pooled = _pool(moments)
    return Row(
        path=path,
        collection=path.partition("/")[0] if in_collections else "",
        shape=leaves[0].shape,
        dtype=str(leaves[0].dtype),
        leaves=len(leaves),
        bytes=sum(_bytes(leaf) for leaf in leaves),
        mean=pooled and pooled.mean,
        std=pooled and pooled.std,
    )


def _bytes(leaf: jax.Array) -> int:
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    return leaf.size * leaf.dtype.itemsize


def _measure(leaves: Iterable[jax.Array]) -> list[_Measured | None]:
    sums = [
        _sums(x) if x.size and jnp.issubdtype(x.dtype, np.inexact) else None
        for x in leaves
    ]
    return [
        None if s is None else _moments(x.size, *s)
        for x, s in zip(leaves, jax.device_get(sums), strict=True)
    ]


@jax.jit
def _sums(x: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The first entry, and sums of the deviations from it and of their squares.

    One pass that keeps no wider copy of `x`: XLA's CPU backend makes one if the sums
    are two reductions, or one over all axes at once.
    """
    wide = x.dtype if x.dtype.itemsize >= 4 else np.dtype(np.float32)
    if x.ndim < 2:
        x = x.reshape(-1, math.gcd(x.size, 1024))
    first = x[(0,) * x.ndim].astype(wide)
    deviation = x.astype(wide) - first
    squares = (
        lax.real(deviation * lax.conj(deviation)) if wide.kind == "c" else deviation**2
    )
    zeros = deviation.dtype.type(0), squares.dtype.type(0)
    total, squares = lax.reduce(
        (deviation, squares),
        zeros,
        lambda a, b: (a[0] + b[0], a[1] + b[1]),
        (x.ndim - 1,),
    )
    return first, jnp.sum(total), jnp.sum(squares)


def _moments(size: int, first: Any, total: Any, squares: Any) -> _Measured:
    offset = total.item() / size
    spread = squares.item() - size * abs(offset) ** 2
    # Rounding may leave a tiny negative number; NaN must stay NaN.
    return _Measured(size, first.item() + offset, spread if not spread < 0 else 0.0)


def _constant(moments: _Measured | None) -> complex | None:
    """The value of a leaf whose entries are all equal, if it has more than one."""
    if moments is None or moments.size == 1 or moments.squares:
        return None
    return moments.mean


def _pool(moments: Sequence[_Measured | None]) -> _Measured | None:
    known = [m for m in moments if m is not None]
    if not known:
        return None
    size = sum(m.size for m in known)
    mean = sum(m.mean * m.size for m in known) / size
    squares = sum(m.squares + m.size * abs(m.mean - mean) ** 2 for m in known)
    return _Measured(size, mean, squares)


def table(rows: Sequence[Row]) -> Table:
    """The rows as a table for a terminal, one section for each collection."""
    result = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    result.add_column("leaf", overflow="fold")
    for name in ("", "shape", "dtype", "size", "mean", "std", "scale"):
        result.add_column(name, justify="right", no_wrap=True)
    others = dict.fromkeys(row.collection for row in rows if row.collection)
    for collection in sorted(others, key=lambda name: name != "params") or [""]:
        if collection not in ("", "params"):
            result.add_row()
            result.add_row(f"[bold]{collection}[/]")
        for row in rows:
            if row.collection == collection:
                result.add_row(*_cells(row))
    return result


def _cells(row: Row) -> list[str]:
    path = row.path.removeprefix(f"{row.collection}/")
    return [
        path.replace("[", r"\["),
        f"x{row.leaves}" if row.leaves > 1 else "",
        "x".join(map(str, row.shape)) or "()",
        _short(row.dtype),
        _count(row.size),
        _number(row.mean, digits=2),
        _number(row.std),
        _number(row.scale),
    ]


def _short(dtype: str) -> str:
    """The dtype as jax prints it in types: f32, bf16, i32."""
    name = re.match("[a-z]+", dtype)
    letters = {"float": "f", "bfloat": "bf", "int": "i", "uint": "u", "complex": "c"}
    stem = name[0] if name else ""
    return letters.get(stem, stem) + dtype.removeprefix(stem)


def _count(size: int) -> str:
    for unit, suffix in ((10**9, "B"), (10**6, "M"), (10**3, "k")):
        if size >= 0.9995 * unit:
            return f"{size / unit:#.3g}".rstrip(".") + suffix
    return str(size)


def _number(value: complex | None, digits: int = 3) -> str:
    if value is None:
        return "-"
    if isinstance(value, complex) or not math.isfinite(value):
        return f"{value:.2g}"
    if value == int(value) and abs(value) < 1000:
        return str(int(value))
    style = "#.3g" if 1e-2 <= abs(value) < 1e4 else f".{digits - 1}e"
    text = f"{value:{style}}"
    return re.sub(r"e([+-])0*", lambda e: "e" + e[1].replace("+", ""), text).rstrip(".")
