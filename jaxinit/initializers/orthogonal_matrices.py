"""Orthogonal matrices, and convolutions made of one."""

# An initializer is a class that is used, and therefore spelled, as a function.
# ruff: noqa: N801

import math
from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.nn import initializers as reference

import jaxinit.laws as laws
from jaxinit._basics.integers import integer, shown
from jaxinit.initializers._makers import maker
from jaxinit.initializers.base import Initializer
from jaxinit.initializers.fans import as_tuple, positions, refuse_overlap
from jaxinit.initializers.settings import Axes, Axis, DType, NonNegative
from jaxinit.initializers.wrappers import center_tap


@dataclass(frozen=True, repr=False)
class orthogonal(Initializer):
    """Matrices of Haar's law, `x.T @ x = scale**2 I`; unitary if the dtype is complex.

    The matrix has a column for every index along `column_axis` and a row for all others
    together. Where it is wide, its rows are orthonormal instead, times `scale`.
    Saxe et al., "Exact solutions to the nonlinear dynamics of learning in deep linear
    neural networks" (2013).

    Args:
        scale: factor of the orthonormal vectors, zero or greater.
        column_axis: the axis of the columns.
        dtype: default dtype, float or complex.
        batch_axis: axis or axes along which the matrices are independent.

    Raises:
        ValueError: if `scale` is negative or not finite, or, in a call, an axis is out
            of range or both of `column_axis` and `batch_axis`, or fewer than two axes
            are left for the matrix.

    >>> import jax
    >>> x = orthogonal(scale=2.0)(jax.random.key(0), (5, 3))
    >>> (x.T @ x).round(4).diagonal()
    Array([4., 4., 4.], dtype=float32)
    """

    dtype_kinds: ClassVar[tuple[type, ...]] = (np.floating, np.complexfloating)
    entries_independent: ClassVar[bool] = False

    scale: NonNegative = 1.0
    column_axis: Axis = -1
    dtype: DType = None
    _: KW_ONLY
    batch_axis: Axes = ()

    def check_settings(self):
        refuse_overlap(
            {
                "column_axis": (self.column_axis,),
                "batch_axis": as_tuple(self.batch_axis),
            }
        )

    def check_shape(self, shape):
        _, rows, _ = self._places(shape)
        if not rows:
            raise ValueError(
                f"shape {shape} leaves no rows for an orthogonal matrix: it needs at "
                f"least two axes beside batch_axis={self.batch_axis}. Use normal or "
                "zeros for vectors."
            )

    def _places(self, shape):
        """Batch axes, row axes and the column axis, as indices from the front."""
        (column,) = positions("column_axis", self.column_axis, shape)
        batch = positions("batch_axis", self.batch_axis, shape)
        refuse_overlap(
            {"column_axis": (column,), "batch_axis": batch}, f" of shape {shape}"
        )
        rest = [axis for axis in range(len(shape)) if axis not in (*batch, column)]
        return batch, tuple(rest), column

    def entry_law(self, shape, dtype):
        _, rows, column = self._places(shape)
        size = max(math.prod(shape[axis] for axis in rows), shape[column], 1)
        is_complex = jnp.issubdtype(dtype, np.complexfloating)
        return laws.HaarEntry(size, self.scale, is_complex)

    def sample(self, key, shape, dtype):
        batch, rows, column = self._places(shape)
        if not batch:
            return reference.orthogonal(self.scale, self.column_axis)(key, shape, dtype)
        order = (*batch, *rows, column)
        sizes = [shape[axis] for axis in order]
        count = math.prod(sizes[len(batch) : -1])
        matrices = jax.random.orthogonal(
            key, count, tuple(sizes[: len(batch)]), dtype, sizes[-1]
        )
        matrices = jnp.transpose(matrices.reshape(sizes), np.argsort(order).tolist())
        return jnp.asarray(self.scale, dtype) * matrices


@maker
def delta_orthogonal(
    scale: float = 1.0, column_axis: int = -1, dtype: Any = None
) -> Initializer:
    """Convolution kernels that are an orthogonal matrix at the centre, zero elsewhere.

    Xiao et al., "Dynamical isometry and a mean field theory of CNNs" (2018). The paper,
    and jax, ask for as many outputs as inputs or more, as only then lengths are kept.
    With fewer, the outputs are orthonormal combinations of the inputs. The window may
    have any number of axes.

    Args:
        scale: factor of the orthonormal vectors, zero or greater.
        column_axis: the axis of the columns, of the matrix in the last two axes.
        dtype: default dtype, float or complex.

    Returns:
        `center_tap(orthogonal(scale, column_axis))`.

    Raises:
        ValueError: if `scale` is negative or not finite, or `column_axis` is none of
            -2, -1, 0, 1.

    >>> import jax
    >>> x = delta_orthogonal()(jax.random.key(0), (3, 4, 4))
    >>> (x[1].T @ x[1]).round(4).trace(), x[0].any()
    (Array(4., dtype=float32), Array(False, dtype=bool))
    """
    if integer("column_axis", column_axis) not in (-2, -1, 0, 1):
        raise ValueError(
            "column_axis must be one of -2, -1, 0, 1, an axis of the matrix, got "
            f"{shown(column_axis)}."
        )
    return center_tap(orthogonal(scale, column_axis, dtype))
