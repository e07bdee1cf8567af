"""Laws that hold exactly: constants, tables, orthogonal matrices, counted zeros.

Nothing here is a matter of chance. Each test looks at a few numbers first, so that an
array that was drawn costs next to nothing: a matrix of random columns is found not to
be orthogonal from two of them.
"""

import functools
import math
from collections.abc import Iterator, Sequence

import jax.numpy as jnp
import numpy as np

from jaxinit._arrays.spread import host_parts, on_host
from jaxinit._audit.leaves import Leaf
from jaxinit.initializers import (
    bilinear,
    constant,
    delta_orthogonal,
    dirac,
    forget_gate_bias,
    hadamard,
    hippo,
    identity,
    log_arange,
    mirrored,
    ones,
    orthogonal,
    s4d_frequencies,
    sinusoidal,
    sparse,
    split,
    zeros,
)
from jaxinit.initializers.base import Initializer
from jaxinit.initializers.bases import FromShape

_COLUMNS = 64  # most columns whose products are looked at
_MOST = 2**22  # most entries of a table that is made to compare
_SECTIONS = (2, 3, 4, 6, 8)  # that an axis may have
_TABLES: tuple[FromShape, ...] = (
    sinusoidal(),
    log_arange(),
    s4d_frequencies(),
    s4d_frequencies("inv"),
    hippo(),
    bilinear(),
)
_OF_ROWS = (sinusoidal, log_arange, s4d_frequencies)  # each row by itself


def fixed_law(leaf: Leaf) -> Initializer | None:
    """The initializer whose exact properties the entries have; None if there is none.

    Args:
        leaf: a leaf that is measured and finite.
    """
    measured = leaf.measured
    assert measured is not None
    if measured.is_constant:
        return _constant(host_parts(leaf.array)[0].flat[0])
    x = on_host(leaf.array)
    if measured.zeros >= x.size / 8:
        found = _with_zeros(x)
        if found is not None:
            return found
    if x.ndim < 2:
        return _gates(x) if x.ndim else None
    return _mirrored(x) or _signs(x) or _orthogonal(x) or _table(x)


def mirror_axis(x: np.ndarray) -> int | None:
    """The axis along which the second half of an array is minus the first, if any.

    >>> mirror_axis(np.array([[1.0, 2.0, -1.0, -2.0]]))
    -1
    """
    for axis in range(-x.ndim, 0):
        if x.shape[axis] % 2 == 0 and x.size:
            first, second = np.split(np.moveaxis(x, axis, 0), 2)
            if first.flat[0] == -second.flat[0] and (first == -second).all():
                return axis
    return None


def _mirrored(x: np.ndarray) -> Initializer | None:
    """The law of an orthogonal matrix beside its negative."""
    axis = mirror_axis(x)
    if axis is None:
        return None
    half = np.split(x, 2, axis)[0]
    found = _mirrored(half) or _orthogonal(half)
    return None if found is None else mirrored(found, axis)


def _signs(x: np.ndarray) -> Initializer | None:
    """The law of a matrix of one number and its negative."""
    scale = abs(x.flat[0])
    if x.ndim != 2 or x.size > _MOST or not (np.abs(x) == scale).all():
        return None
    made = np.asarray(hadamard(1.0)(None, x.shape))
    if (np.sign(made) == np.sign(x)).all():
        return hadamard(neat(float(scale / abs(made.flat[0]))))
    return None


def _constant(value: np.generic) -> Initializer:
    if value == 0:
        return zeros
    if value == 1:
        return ones
    if value.dtype.kind == "c":
        return constant(complex(value))
    return constant(float(str(value)))  # as short as the dtype allows


def _with_zeros(x: np.ndarray) -> Initializer | None:
    """The law of an array whose zeros are where they are for a reason."""
    if x.ndim < 2:
        return None
    size = min(x.shape[-2:])
    nonzero = int(np.count_nonzero(x))
    if nonzero == size * math.prod(x.shape[:-2]) and x.ndim == 2:
        diagonal = np.diagonal(x)
        if (diagonal == diagonal[0]).all() and diagonal[0] != 0:
            return identity(neat(float(diagonal[0].real)))
    if x.ndim > 2 and all(n % 2 for n in x.shape[:-2]):
        centre = x[tuple(n // 2 for n in x.shape[:-2])]
        if np.count_nonzero(centre) == nonzero:
            return _of_centre(centre)
    return _table(x) or _sparse(x, nonzero)


def _of_centre(centre: np.ndarray) -> Initializer | None:
    """The law of a convolution that is zero but for the centre of its window."""
    diagonal = np.diagonal(centre)
    is_diagonal = np.count_nonzero(centre) == len(diagonal)
    if is_diagonal and (diagonal == diagonal[0]).all():
        return dirac(scale=neat(float(diagonal[0].real)))
    found = _orthogonal(centre)
    if isinstance(found, orthogonal) and centre.shape[0] <= centre.shape[1]:
        return delta_orthogonal(found.scale)
    return None


def _sparse(x: np.ndarray, nonzero: int) -> Initializer | None:
    """The law of an array with as many zeros in each column, or in each row."""
    for axis in (-2, -1):
        counts = np.count_nonzero(x == 0, axis=axis)
        zeros_each, size = int(counts.flat[0]), x.shape[axis]
        if zeros_each and counts.size > 3 and (counts == zeros_each).all():
            if nonzero < 8 or _is_one_number(x) or not _is_scattered(x, axis):
                return None
            std = math.sqrt(float(np.sum(np.abs(x.astype(np.float64)) ** 2)) / nonzero)
            return sparse(_sparsity(zeros_each, size), neat(std, 3), axis=axis)
    return None


def _sparsity(zeros: int, size: int) -> float:
    """A short number of which `sparse` makes so many zeros, which it rounds up to.

    >>> _sparsity(9, 10), _sparsity(11, 12)
    (0.9, 0.9)
    """
    for digits in range(1, 7):
        below = math.floor(zeros / size * 10**digits) / 10**digits
        if math.ceil(below * size) == zeros:
            return below
    return zeros / size


def _is_scattered(x: np.ndarray, axis: int) -> bool:
    """Whether zeros that are counted along an axis make no whole lines across it."""
    lines = np.moveaxis(x, axis, 0).reshape(x.shape[axis], -1) == 0
    share = float(lines.mean())
    return lines.shape[1] * math.log(share) > -27.6 or not lines.all(axis=1).any()


def _is_one_number(x: np.ndarray) -> bool:
    """Whether the entries that are not zero are equal, which draws are not."""
    nonzero = x[x != 0]
    return bool((nonzero == nonzero[0]).all())


def _gates(x: np.ndarray) -> Initializer | None:
    """The law of biases that are one in a quarter of their places, else zero."""
    if x.size % 4 or x.size < 8 or x.dtype.kind == "c":
        return None
    quarters = x.reshape(4, -1)
    if not (quarters == quarters[:, :1]).all():
        return None
    values = [float(value) for value in quarters[:, 0]]
    if values.count(0.0) == 3:
        others = iter("igo")
        order = "".join("f" if value else next(others) for value in values)
        return forget_gate_bias(neat(sum(values)), order)
    return split(tuple(_constant(value) for value in quarters[:, 0]), 4)


def _orthogonal(x: np.ndarray) -> Initializer | None:
    """The law of matrices with orthonormal columns or rows, times a number."""
    found = _of_layers(x) or _in_sections(x)
    if found is not None:
        return found
    for column_axis in (-1, 0)[: 1 + (x.ndim != 2)]:
        matrix = np.moveaxis(x, column_axis, -1).reshape(-1, x.shape[column_axis])
        scale = _scale_of(matrix)
        if scale:
            axis = {} if column_axis == -1 else {"column_axis": column_axis}
            return orthogonal(neat(scale, 4), **axis)
    return None


def _of_layers(x: np.ndarray) -> Initializer | None:
    """The law of orthogonal matrices stacked along the first axis."""
    if x.ndim < 3 or len(x) < 2:
        return None
    scale = _scale_of_all(list(x))
    return orthogonal(neat(scale, 4), batch_axis=0) if scale else None


def _in_sections(x: np.ndarray) -> Initializer | None:
    """The law of gates or projections side by side, each an orthogonal matrix.

    Where the rows of a wide matrix are orthonormal, so may be those of its sections,
    which is more; the sections of a square one have orthonormal columns anyway.
    """
    for axis, count in _sections(x):
        scale = _scale_of_all(np.split(x, count, axis))
        if scale:
            whole = orthogonal(neat(scale, 4))
            return split(whole, count) if axis == -1 else split(whole, count, axis)
    return None


def _sections(x: np.ndarray) -> Iterator[tuple[int, int]]:
    """Axes and numbers of sections that are not wider, or higher, than the whole."""
    rows, columns = x.size // x.shape[-1], x.shape[-1]
    for count in _SECTIONS:
        if columns % count == 0 and rows < columns and 1 < columns // count <= rows:
            yield -1, count
        inner = x.ndim == 2 and rows % count == 0
        if inner and columns < rows and 1 < rows // count <= columns:
            yield -2, count


def _scale_of_all(parts: Sequence[np.ndarray]) -> float | None:
    """The scale of several matrices, if it is one."""
    scales = []
    for part in parts:
        scale = _scale_of(part.reshape(-1, part.shape[-1]))
        if scale is None:
            return None
        scales.append(scale)
    return scales[0] if max(scales) - min(scales) < 1e-3 * max(scales) else None


def _scale_of(matrix: np.ndarray) -> float | None:
    """Length of the columns, or rows if it is wide, if they are orthogonal and equal.

    >>> _scale_of(np.array([[3.0, 0.0], [0.0, -3.0], [0.0, 0.0]]))
    3.0
    """
    if matrix.shape[0] < matrix.shape[1]:
        matrix = matrix.T
    size, count = matrix.shape
    if count < 2:
        return None
    eps = float(jnp.finfo(matrix.dtype).eps)
    if eps > 0.01:  # products of entries of 8 bits tell nothing
        return None
    made = min(eps, float(np.finfo(np.float32).eps))  # in float32 or wider
    square = 0.0
    for columns in (2, min(_COLUMNS, count)):  # two tell nearly always
        allowed = 2 * eps + 16 * math.sqrt(size) * made
        if columns == count or columns > 2:
            allowed = min(allowed, _by_chance(columns) / math.sqrt(size))
        some = matrix[:, :columns]
        some = some.astype(np.complex128 if some.dtype.kind == "c" else np.float64)
        gram = some.conj().T @ some
        square = float(np.mean(np.diagonal(gram).real))
        off = np.abs(gram / square - np.eye(columns)).max() if square else math.inf
        if not off < allowed:
            return None
    return math.sqrt(square)


def _by_chance(columns: int) -> float:
    """How near to orthogonal independent columns are with a probability of 1e-10.

    Products of long columns are normal, and `|z| < a` has a probability of at most
    `0.8 a`; that many products and lengths are all as small by chance. In standard
    errors of a product, which are one over the root of the length.
    """
    free = columns * (columns + 1) // 2 - 1
    return 1.25 * 1e-10 ** (1 / free)


def _table(x: np.ndarray) -> Initializer | None:
    """The table of this shape that has these entries."""
    if x.size > _MOST:
        return None
    return next((init for init in _tables_of(x.shape) if _is(init, x)), None)


@functools.lru_cache(1024)
def _tables_of(shape: tuple[int, ...]) -> tuple[FromShape, ...]:
    """The tables that have this shape."""

    def fits(init):
        try:
            init.check_shape(shape)
        except ValueError:
            return False
        return isinstance(init, _OF_ROWS) or math.prod(shape) <= _MOST // 64

    return tuple(filter(fits, _TABLES))


def _is(init: FromShape, x: np.ndarray) -> bool:
    """Whether a table has these entries, up to rounding; a few are compared first."""
    if isinstance(init, _OF_ROWS):
        few = x[:3]
        if not _equal(_few_rows(init, few.shape), few):
            return False
    return _equal(init.table(x.shape), x)


@functools.lru_cache(1024)
def _few_rows(init: FromShape, shape: tuple[int, ...]) -> np.ndarray:
    """The first rows of a table in which they do not depend on their number."""
    return init.table(shape)


def _equal(table: np.ndarray, x: np.ndarray) -> bool:
    if x.dtype.itemsize == 1:  # of so few bits, all must be right
        return bool((table.astype(x.dtype) == x).all()) and np.unique(x).size > 4
    allowed = 4 * float(jnp.finfo(x.dtype).eps) * max(float(np.abs(table).max()), 1e-30)
    wide = x.astype(np.complex128 if x.dtype.kind == "c" else np.float64)
    return bool(np.abs(wide - table).max() <= allowed)


def neat(x: float, digits: int = 6) -> float:
    """The number as people would write it: a root, or a few digits.

    A root of a fraction of small numbers is kept whole; anything else is rounded.

    Args:
        x: a finite number.
        digits: significant digits.

    >>> neat(1.4142136), neat(0.99999988), neat(1.23456789, 3)
    (1.4142135623730951, 1.0, 1.23)
    """
    rounded = float(f"{x:.{digits}g}")
    tolerance = 10.0**-digits
    if abs(rounded - x) <= abs(x) * 1e-7 and len(f"{rounded:g}") <= 6:
        return rounded
    for below in range(1, 13):
        above = round(x * x * below)
        root = math.copysign(math.sqrt(above / below), x)
        if 0 < above <= 64 and abs(root - x) <= tolerance * abs(x):
            return root
    return rounded
