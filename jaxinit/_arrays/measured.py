"""What is in an array: moments, extremes and counts, taken where the array is."""

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

from jaxinit._arrays.spread import gathered, parts, spans, without_mesh

_LONG = 4096  # longest sum in float32 before partial sums are added
_SHORT = 256  # shortest, so that the partial sums are few


@dataclass(frozen=True)
class Measured:
    """What is in an array.

    Attributes:
        size: number of entries.
        mean: their mean; complex if they are.
        variance: mean of `|x - mean|**2`; NaN, as the mean, if an entry is not finite.
        low: smallest entry, of complex ones the smallest real or imaginary part.
        high: greatest entry, likewise.
        zeros: number of entries that are zero; rounded to float32 above 2**24.
        nonfinite: number of entries that are NaN or infinite, likewise.
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
        return self.low == self.high and self.variance == 0  # NaN, if not finite


def measure(x: Any) -> Measured:
    """Measures an array: one pass on its device, sums in float32 or wider.

    Of a sharded array every device measures its own part, and the parts are put
    together on the host; nothing is gathered. An array that spans processes is measured
    by all of them together, and all get the same figures: those that one process alone
    would get, up to rounding in float64. Squares of deviations must fit float32:
    deviations between 1e-19 and 1e19.

    Args:
        x: concrete array with entries, of a floating-point or complex dtype.

    Returns:
        What is in it.

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
    """Measures many arrays, all devices at work before any is waited for.

    Returns:
        For each array what `measure` gives, None where that would raise for its dtype
        or size.
    """
    leaves = list(leaves)
    with without_mesh():
        sums = [_all_sums(leaf) if _is_measurable(leaf) else None for leaf in leaves]
    found = [
        None if each is None else [_measured(*part) for part in each]
        for each in jax.device_get(sums)
    ]
    found = _of_all_processes(leaves, found)
    return [None if each is None else pool(each) for each in found]


def _of_all_processes(
    leaves: Sequence[Any], found: list[list[Measured] | None]
) -> list[list[Measured] | None]:
    """What was found in the parts of every process, for arrays that span them."""
    own = {i: each for i, each in enumerate(found) if each is not None}
    own = {i: _numbers(each) for i, each in own.items() if spans(leaves[i])}
    if not own:
        return found
    table = gathered(np.array(list(own.values()), np.complex128))
    known = dict(enumerate(found))
    for i, rows in zip(own, table.swapaxes(0, 1), strict=True):
        is_complex = jnp.iscomplexobj(leaves[i])
        known[i] = [_from_numbers(row, is_complex) for row in rows if row[0]]
    return list(known.values())


def _numbers(parts: list[Measured]) -> tuple[Any, ...]:
    """What is in these parts together, as a row of a table; zeros if there are none."""
    return astuple(pool(parts)) if parts else (0,) * _FIELDS


def _from_numbers(row: np.ndarray, is_complex: bool) -> Measured:
    size, mean, variance, low, high, zeros, nonfinite = np.real(row).tolist()
    mean = row[1].item() if is_complex else mean
    return Measured(int(size), mean, variance, low, high, int(zeros), int(nonfinite))


_FIELDS = len(fields(Measured))


def pool(parts: Iterable[Measured]) -> Measured:
    """What is in several arrays together."""
    parts = list(parts)
    if len(parts) == 1:
        return parts[0]
    size = sum(part.size for part in parts)
    mean = sum(part.mean * part.size for part in parts) / size
    squares = sum(
        part.size * (part.variance + abs(part.mean - mean) ** 2) for part in parts
    )
    return Measured(
        size,
        mean,
        squares / size,
        float(np.min([part.low for part in parts])),
        float(np.max([part.high for part in parts])),
        sum(part.zeros for part in parts),
        sum(part.nonfinite for part in parts),
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
    """Size and sums of each part of `x` that lies on a device of its own."""
    pieces = (piece for part in parts(x) for piece in _pieces(part))
    return [(piece.size, _sums(piece)) for piece in pieces if piece.size]


def _pieces(x: jax.Array) -> Iterator[jax.Array]:
    """The array itself; in two, if it has no axis that falls into blocks."""
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
    """The first entry; sums of the deviations from it and of their squares; extremes
    and counts.

    One pass that keeps no wider copy of `x`: XLA's CPU backend makes one if these are
    several reductions, or one over all axes at once. Blocks keep the sums short, which
    in float32 keeps them exact to a few of the last digits.
    """
    wide = x.dtype if x.dtype.itemsize >= 4 else np.dtype(np.float32)
    shape, axis = _blocks(x.shape)
    x = x.reshape(shape)
    first = x[(0,) * x.ndim].astype(wide)
    values = x.astype(wide)
    deviation = values - first
    squares = (
        lax.real(deviation * lax.conj(deviation))
        if wide.kind == "c"
        else (deviation * deviation)
    )
    real = (lax.real(values), lax.imag(values)) if wide.kind == "c" else (values,) * 2
    counts = [
        found.astype(squares.dtype) for found in (values == 0, ~jnp.isfinite(values))
    ]
    operands = (deviation, squares, lax.min(*real), lax.max(*real), *counts)
    infinity = np.asarray(np.inf, squares.dtype)
    zeros = [np.zeros((), operand.dtype) for operand in operands]
    partial = lax.reduce(
        operands, (*zeros[:2], infinity, -infinity, *zeros[4:]), _joined, (axis,)
    )
    total = [jnp.sum(partial[i]) for i in (0, 1, 4, 5)]
    return first, *total[:2], jnp.min(partial[2]), jnp.max(partial[3]), *total[2:]


def _joined(a: tuple, b: tuple) -> tuple:
    return (
        a[0] + b[0],
        a[1] + b[1],
        lax.min(a[2], b[2]),
        lax.max(a[3], b[3]),
        a[4] + b[4],
        a[5] + b[5],
    )


def _blocks(shape: tuple[int, ...]) -> tuple[tuple[int, ...], int]:
    """A shape of as many entries, with an axis to sum over that is long, not too long.

    That axis has the size of the longest divisor up to `_LONG` of an axis: of the last
    one where that is long enough, else of the one where it is longest.
    """
    shape = shape or (1,)
    divisors = [_divisor(size) for size in shape]
    enough = [axis for axis, size in enumerate(divisors) if size >= _SHORT]
    axis = enough[-1] if enough else int(np.argmax(divisors))
    size = divisors[axis]
    return (*shape[:axis], shape[axis] // size, size, *shape[axis + 1 :]), axis + 1


@functools.cache
def _divisor(size: int) -> int:
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
