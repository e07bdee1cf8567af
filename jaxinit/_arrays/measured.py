"""Statistics of an array: moments, extremes and counts, taken where the array is.

One pass over the array, on its device, with sums in float32 that stay exact to a few of
the last digits. Of `jnp.array([3.0, 5.0, 4.0, 8.0])`, `_sums` gives

    first 3, sum of x - 3: 8, sum of (x - 3)**2: 30, min 3, max 8, zeros 0, nonfinite 0

and `_measured`, in float64 on the host: mean 3 + 8/4 = 5, variance 30/4 - 2**2 = 3.5.
The deviations are from the first entry, so that a large mean costs no digits.

Long sums lose digits in float32. So the array is seen as blocks, and each is summed
before the sums are added up: `f32[3,5000]` as `[3,2,2500]`, summed over the last axis.
No axis of `f32[5003]` falls into blocks, as 5003 is prime, so it is measured in two
pieces, `[4096]` and `[907]`.

What holds: the measures of pieces, of shards and of processes are pooled in float64, by
the same function, `pool`.
"""

import functools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import astuple, dataclass, fields
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer

from jaxinit._arrays.spread import gathered, local_shards, spans, without_mesh

_LONG = 4096  # longest sum in float32 before partial sums are added
_SHORT = 256  # shortest, so that the partial sums are few


@dataclass(frozen=True)
class Measured:
    """Statistics of an array.

    Attributes:
        size: number of entries.
        mean: their mean; complex if they are.
        variance: mean of `|x - mean|**2`. Mean and variance are NaN if an entry is not
            finite.
        low: smallest entry; of complex ones, the smallest real or imaginary part.
        high: greatest entry; of complex ones, the greatest real or imaginary part.
        zeros: number of entries that are zero; rounded to float32 above 2**24.
        nonfinite: number of entries that are NaN or infinite; rounded as `zeros`.
    """

    size: int
    mean: complex
    variance: float
    low: float
    high: float
    zeros: int
    nonfinite: int

    @property
    def std(self) -> float:
        """Standard deviation."""
        return math.sqrt(self.variance)

    @property
    def is_constant(self) -> bool:
        """Whether all entries are equal."""
        return self.low == self.high and self.variance == 0  # false for NaN


def measure(x: Any) -> Measured:
    """Measures an array: one pass on its device, sums in float32 or wider.

    Every device measures its own shard of a sharded array, and the measures are pooled
    on the host; no array is gathered. An array that spans processes is measured by all
    of them together, and all get the same figures: those that one process alone would
    get, up to rounding in float64. Deviations must lie between 1e-19 and 1e19, so that
    their squares fit float32.

    Args:
        x: concrete array with entries, of a floating-point or complex dtype.

    Returns:
        The statistics.

    Raises:
        TypeError: if `x` is traced, or of another dtype.
        ValueError: if `x` has no entries.

    >>> measure(jnp.array([1.0, 3.0, 0.0, 4.0]))  # doctest: +NORMALIZE_WHITESPACE
    Measured(size=4, mean=2.0, variance=2.5, low=0.0, high=4.0, zeros=1, nonfinite=0)
    """
    (measured,) = measure_all([x])
    if measured is None:
        refuse_unmeasurable(x)
    return measured


def measure_all(leaves: Iterable[Any]) -> list[Measured | None]:
    """Measures many arrays; all devices are at work before any is waited for.

    Returns:
        For each array, what `measure` gives; None where that would raise for its dtype
        or size.
    """
    leaves = list(leaves)
    with without_mesh():
        sums = [_all_sums(leaf) if _is_measurable(leaf) else None for leaf in leaves]
    pieces = [
        None if each is None else [_measured(*piece) for piece in each]
        for each in jax.device_get(sums)
    ]
    pieces = _with_those_elsewhere(leaves, pieces)
    return [None if each is None else pool(each) for each in pieces]


def _with_those_elsewhere(
    leaves: Sequence[Any], pieces: list[list[Measured] | None]
) -> list[list[Measured] | None]:
    """The pieces of each array, and of all processes for arrays that span them."""
    rows = {
        i: _as_row(own)
        for i, own in enumerate(pieces)
        if own is not None and spans(leaves[i])
    }
    if not rows:
        return pieces
    table = gathered(np.array(list(rows.values()), np.complex128))
    everywhere = list(pieces)
    for i, column in zip(rows, table.swapaxes(0, 1), strict=True):
        is_complex = jnp.iscomplexobj(leaves[i])
        everywhere[i] = [_from_row(row, is_complex) for row in column if row[0]]
    return everywhere


def _as_row(pieces: list[Measured]) -> tuple[Any, ...]:
    """The statistics of these pieces together, as numbers; zeros if there are none."""
    return astuple(pool(pieces)) if pieces else (0,) * _FIELDS


def _from_row(row: np.ndarray, is_complex: bool) -> Measured:
    size, mean, variance, low, high, zeros, nonfinite = np.real(row).tolist()
    mean = row[1].item() if is_complex else mean
    return Measured(int(size), mean, variance, low, high, int(zeros), int(nonfinite))


_FIELDS = len(fields(Measured))


def pool(pieces: Iterable[Measured]) -> Measured:
    """The statistics of several arrays together."""
    pieces = list(pieces)
    if len(pieces) == 1:
        return pieces[0]
    size = sum(piece.size for piece in pieces)
    mean = sum(piece.mean * piece.size for piece in pieces) / size
    squares = sum(
        piece.size * (piece.variance + abs(piece.mean - mean) ** 2) for piece in pieces
    )
    return Measured(
        size,
        mean,
        squares / size,
        float(np.min([piece.low for piece in pieces])),
        float(np.max([piece.high for piece in pieces])),
        sum(piece.zeros for piece in pieces),
        sum(piece.nonfinite for piece in pieces),
    )


def _is_measurable(leaf: Any) -> bool:
    refuse_traced(leaf)
    return bool(jnp.size(leaf)) and jnp.issubdtype(jnp.result_type(leaf), np.inexact)


def refuse_traced(x: Any) -> None:
    """Raises for an array that has no values yet."""
    if isinstance(x, Tracer):
        raise TypeError(
            f"the array {x} is traced: it has no values yet. Return it from the "
            "transformed function and look at what comes out."
        )


def refuse_unmeasurable(x: Any) -> NoReturn:
    """Raises for an array that `measure` refuses for its size or dtype."""
    if not jnp.size(x):
        raise ValueError(f"an array of shape {jnp.shape(x)} has no entries to measure.")
    raise TypeError(
        "x must have a floating-point or complex dtype, got "
        f"{jnp.result_type(x)}; convert it with .astype(float) if that is meant."
    )


def _all_sums(x: Any) -> list[tuple]:
    """Size and sums of each piece of the local shards of `x`."""
    pieces = (piece for shard in local_shards(x) for piece in _pieces(shard))
    sums = [(piece.size, _sums(piece)) for piece in pieces if piece.size]
    # An array of the host is copied to a device: let there be one copy at a time.
    return sums if isinstance(x, jax.Array) else jax.block_until_ready(sums)


def _pieces(x: jax.Array) -> Iterator[jax.Array]:
    """The array itself, or two halves of it if no axis can be divided into blocks."""
    axis = int(np.argmax(x.shape)) if x.ndim else 0
    size = x.shape[axis] if x.ndim else 1
    if size <= _LONG or max(map(_divisor, x.shape)) >= _SHORT:
        yield x
        return
    whole = size - size % _LONG
    yield lax.slice_in_dim(x, 0, whole, axis=axis)
    yield lax.slice_in_dim(x, whole, size, axis=axis)


@jax.jit
def _sums(x: jax.Array) -> tuple[jax.Array, ...]:
    """Returns `(first entry, sum of deviations, sum of squares, low, high, counts...)`.

    One reduction of six operands over one axis, which keeps no wider copy of `x`: XLA's
    CPU backend makes one for several reductions, or for one over all axes at once.
    """
    wide = x.dtype if x.dtype.itemsize >= 4 else np.dtype(np.float32)
    shape, axis = _blocks(x.shape)
    x = x.reshape(shape)
    first = x[(0,) * x.ndim].astype(wide)
    values = x.astype(wide)
    deviation = values - first
    if wide.kind == "c":
        squares = lax.real(deviation * lax.conj(deviation))
        low_high = lax.real(values), lax.imag(values)
    else:
        squares = deviation * deviation
        low_high = values, values
    is_zero = (values == 0).astype(squares.dtype)
    is_nonfinite = (~jnp.isfinite(values)).astype(squares.dtype)
    extremes = lax.min(*low_high), lax.max(*low_high)
    operands = (deviation, squares, *extremes, is_zero, is_nonfinite)
    infinity = np.asarray(np.inf, squares.dtype)
    zeros = [np.zeros((), operand.dtype) for operand in operands]
    partial = lax.reduce(
        operands, (*zeros[:2], infinity, -infinity, *zeros[4:]), _combined, (axis,)
    )
    total = [jnp.sum(partial[i]) for i in (0, 1, 4, 5)]
    return first, *total[:2], jnp.min(partial[2]), jnp.max(partial[3]), *total[2:]


def _combined(a: tuple, b: tuple) -> tuple:
    return (
        a[0] + b[0],
        a[1] + b[1],
        lax.min(a[2], b[2]),
        lax.max(a[3], b[3]),
        a[4] + b[4],
        a[5] + b[5],
    )


def _blocks(shape: tuple[int, ...]) -> tuple[tuple[int, ...], int]:
    """An equal shape with one axis cut into blocks, and the axis within the blocks.

    The length of a block is the largest divisor up to `_LONG` of the size of the axis.
    The axis is the last one with blocks of `_SHORT` or more, else the one with the
    longest blocks.
    """
    shape = shape or (1,)
    divisors = [_divisor(size) for size in shape]
    enough = [axis for axis, size in enumerate(divisors) if size >= _SHORT]
    axis = enough[-1] if enough else int(np.argmax(divisors))
    size = divisors[axis]
    return (*shape[:axis], shape[axis] // size, size, *shape[axis + 1 :]), axis + 1


@functools.lru_cache(4096)
def _divisor(size: int) -> int:
    """The largest divisor of `size` up to `_LONG`."""
    return next(d for d in range(min(size, _LONG), 0, -1) if size % d == 0)


def _measured(size: int, sums: tuple) -> Measured:
    first, total, squares, low, high, zeros, nonfinite = (s.item() for s in sums)
    offset = total / size
    variance = squares / size - abs(offset) ** 2
    # Rounding may leave a tiny negative number; NaN must stay NaN.
    variance = variance if not variance < 0 else 0.0
    return Measured(
        size, first + offset, variance, low, high, int(zeros), int(nonfinite)
    )
