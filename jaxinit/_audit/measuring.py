"""Statistics of leaves, also of numbers whose squares no float32 holds."""

from collections.abc import Iterable, Sequence
from typing import Any

import jax
import numpy as np
from jax.dtypes import canonicalize_dtype

from jaxinit._arrays.measured import Measured, measure_all, pool
from jaxinit._arrays.spread import host_parts, on_host

_SMALL, _LARGE = 1e-15, 1e15  # between which squares are well within float32
_PIECE = 2**22  # entries that are copied to float64 at once


def measured_all(arrays: Iterable[Any]) -> list[Measured | None]:
    """As `measure_all`; on the host, in float64, where that would lose numbers.

    That is where entries are very small or very large, and where NumPy's arrays are of
    64 bits and jax would narrow them.
    """
    arrays = list(arrays)
    kept = [x for x in arrays if not _is_narrowed(x)]
    found = iter(measure_all(kept))
    measures = [None if _is_narrowed(x) else next(found) for x in arrays]
    return [
        _in_float64(on_host(x)) if _is_narrowed(x) or _is_lost(x, each) else each
        for x, each in zip(arrays, measures, strict=True)
    ]


def _is_narrowed(x: Any) -> bool:
    """Whether jax would narrow an array of NumPy's."""
    if isinstance(x, jax.Array) or not x.size or x.dtype.kind not in "fc":
        return False
    return canonicalize_dtype(x.dtype) != x.dtype


def _is_lost(x: Any, measured: Measured | None) -> bool:
    """Whether squares of the entries, or these themselves, were lost in float32."""
    if measured is None or measured.nonfinite:
        return False
    reach = max(abs(measured.low), abs(measured.high))
    if not reach:  # zeros, or too small for a device that takes such as zeros
        return any(part.any() for part in host_parts(x))
    return not _SMALL < reach < _LARGE


def _in_float64(x: np.ndarray) -> Measured:
    flat = x.reshape(-1)
    pieces = [flat[i : i + _PIECE] for i in range(0, flat.size, _PIECE)]
    return pool(_piece(piece) for piece in pieces)


def _piece(x: np.ndarray) -> Measured:
    is_complex = x.dtype.kind == "c"
    wide = x.astype(np.complex128 if is_complex else np.float64)
    parts: Sequence[np.ndarray] = (wide.real, wide.imag) if is_complex else (wide,)
    with np.errstate(all="ignore"):
        mean, variance = wide.mean(), np.mean(np.abs(wide - wide.mean()) ** 2)
    return Measured(
        x.size,
        complex(mean) if is_complex else float(mean.real),
        float(variance),
        min(float(part.min()) for part in parts),
        max(float(part.max()) for part in parts),
        int(np.count_nonzero(wide == 0)),
        int(np.count_nonzero(~np.isfinite(wide))),
    )
