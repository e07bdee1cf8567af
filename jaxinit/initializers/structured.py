"""Matrices and kernels with a structure: identities, Hadamard, mirrored, sparse."""

# An initializer is a class that is used, and therefore spelled, as a function.
# ruff: noqa: N801

import functools
import math
from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

import jaxinit.laws as laws
from jaxinit.initializers._joined import whole_along
from jaxinit.initializers._makers import maker
from jaxinit.initializers.base import Initializer, Shape
from jaxinit.initializers.bases import FromShape
from jaxinit.initializers.fans import positions
from jaxinit.initializers.orthogonal_matrices import orthogonal
from jaxinit.initializers.sections import grouped
from jaxinit.initializers.settings import (
    Axis,
    DType,
    Finite,
    Fraction,
    NonNegative,
    count,
)
from jaxinit.initializers.wrappers import center_tap, mirrored


class _Matrix(Initializer):
    """Fixed matrices."""

    dtype_kinds: ClassVar[tuple[type, ...]] = (np.floating, np.complexfloating)
    draws: ClassVar[bool] = False
    entries_independent: ClassVar[bool] = False

    def check_shape(self, shape):
        if len(shape) != 2:
            raise ValueError(
                f"shape must be (rows, columns), got {shape}. For a convolution kernel "
                "use center_tap(init), for stacked layers stacked(init)."
            )


@dataclass(frozen=True, repr=False)
class identity(_Matrix):
    """The identity matrix times `scale`; ones on the diagonal where it is not square.

    Le et al., "A simple way to initialize recurrent networks of rectified linear units"
    (2015), for recurrent kernels.

    Args:
        scale: finite number on the diagonal.
        dtype: default dtype, float or complex.

    Raises:
        ValueError: if `scale` is not finite or, in a call, the shape has no two axes.

    >>> import jax
    >>> identity(0.5)(jax.random.key(0), (2, 3))
    Array([[0.5, 0. , 0. ],
           [0. , 0.5, 0. ]], dtype=float32)
    """

    scale: Finite = 1.0
    dtype: DType = None

    def entry_law(self, shape, dtype):
        ones = min(shape)
        return laws.points((self.scale, ones), (0.0, math.prod(shape) - ones))

    def sample(self, key, shape, dtype):
        return jnp.asarray(self.scale, dtype) * jnp.eye(*shape, dtype=dtype)


@maker
def dirac(groups: int = 1, scale: float = 1.0, dtype: Any = None) -> Initializer:
    """Convolutions that pass channels through: the identity at the centre of a kernel.

    The centre is `(size - 1) // 2`, which passes through under "SAME" padding in jax;
    torch's `dirac_` has `size // 2`, another place where the size is even.

    Args:
        groups: number of groups of outputs, the last axis; each passes the inputs of
            its group.
        scale: finite factor.
        dtype: default dtype, float or complex.

    Returns:
        `center_tap(identity(scale))`, grouped.

    Raises:
        ValueError: if `scale` is not finite, or `groups` not a positive int.

    >>> import jax
    >>> dirac(groups=2)(jax.random.key(0), (1, 2, 4))
    Array([[[1., 0., 1., 0.],
            [0., 1., 0., 1.]]], dtype=float32)
    """
    tap = center_tap(identity(scale, dtype))
    return tap if count("groups", groups) == 1 else grouped(tap, groups)


@dataclass(frozen=True, repr=False)
class hadamard(_Matrix):
    """Entries `+-scale / sqrt(p)`: the first ones of Sylvester's matrix of size `p`.

    Entry `(i, j)` is negative if `i & j` has an odd number of ones. `p` is the next
    power of two at or above the longer side; where the longer side is one, the vectors
    along it are orthogonal, of length `scale`. Sylvester, "Thoughts on inverse
    orthogonal matrices" (1867).

    Args:
        scale: finite factor.
        dtype: default dtype, float or complex.

    Raises:
        ValueError: if `scale` is not finite or, in a call, the shape has no two axes.

    >>> import jax
    >>> hadamard(2.0)(jax.random.key(0), (4, 2))
    Array([[ 1.,  1.],
           [ 1., -1.],
           [ 1.,  1.],
           [ 1., -1.]], dtype=float32)
    """

    scale: Finite = 1.0
    dtype: DType = None

    def _entry(self, shape: Shape) -> float:
        return self.scale / math.sqrt(_power_of_two(max(shape)))

    def entry_law(self, shape, dtype):
        entry, size = self._entry(shape), math.prod(shape)
        excess = _sign_sum(*shape, _power_of_two(max(shape)))
        return laws.points(
            (entry, (size + excess) // 2), (-entry, (size - excess) // 2)
        )

    def sample(self, key, shape, dtype):
        rows, columns = (np.arange(size, dtype=np.int32) for size in shape)
        odd = jax.lax.population_count(jnp.asarray(rows)[:, None] & columns) % 2
        entry = jnp.asarray(self._entry(shape), dtype)
        return jnp.where(odd == 1, -entry, entry)


def _power_of_two(size: int) -> int:
    return 1 << (max(size, 1) - 1).bit_length()


@functools.lru_cache(4096)
def _sign_sum(rows: int, columns: int, size: int) -> int:
    """Sum of the first signs of Sylvester's matrix `[[H, H], [H, -H]]` of a size."""
    if not rows or not columns or size == 1:
        return rows * columns
    half = size // 2
    tall, wide = max(rows - half, 0), max(columns - half, 0)
    rows, columns = min(rows, half), min(columns, half)
    return (
        _sign_sum(rows, columns, half)
        + _sign_sum(rows, wide, half)
        + _sign_sum(tall, columns, half)
        - _sign_sum(tall, wide, half)
    )


@dataclass(frozen=True, repr=False)
class zero_init(_Matrix):
    """ZerO: the identity or, with more outputs than inputs, a Hadamard matrix.

    Not `zeros_init()`, which gives zeros. Rows are inputs. An identity that widens
    would leave all but the first outputs zero; the Hadamard matrix mixes the inputs
    into all of them. Zhao et al., "ZerO initialization: initializing
    neural networks with only zeros and ones" (2022); scaled as in the authors' program,
    by `1 / sqrt(p)`, `p` the power of two at or above the number of outputs. For
    convolutions: `center_tap(zero_init())`.

    Args:
        dtype: default dtype, float or complex.

    Raises:
        ValueError: in a call, if the shape does not have two axes.

    >>> import jax
    >>> zero_init()(jax.random.key(0), (2, 4))
    Array([[ 0.5,  0.5,  0.5,  0.5],
           [ 0.5, -0.5,  0.5, -0.5]], dtype=float32)
    """

    dtype: DType = None

    def entry_law(self, shape, dtype):
        return self._matrix(shape).entry_law(shape, dtype)

    def sample(self, key, shape, dtype):
        return self._matrix(shape).sample(key, shape, dtype)

    def _matrix(self, shape: Shape) -> Initializer:
        inputs, outputs = shape
        return hadamard() if outputs > inputs else identity()


@maker
def looks_linear(scale: float = 1.0, dtype: Any = None) -> Initializer:
    """`[[w, -w], [-w, w]]`, `w` orthogonal: a ReLU network that starts as a linear one.

    With `relu(x) - relu(-x) = x`, mirrored inputs pass mirrored through every layer.
    For the first layer, `mirrored(orthogonal())` makes the mirrored outputs; for the
    last, `mirrored(orthogonal(), axis=-2)` takes them. Balduzzi et al., "The shattered
    gradients problem" (2017).

    Args:
        scale: factor of the orthonormal vectors, zero or greater.
        dtype: default dtype, float or complex.

    Returns:
        `mirrored(mirrored(orthogonal(scale)), axis=-2)`.

    Raises:
        ValueError: if `scale` is negative or not finite.

    >>> import jax
    >>> x = looks_linear()(jax.random.key(0), (4, 6))
    >>> bool((x[:2, :3] == -x[2:, :3]).all())
    True
    """
    return mirrored(mirrored(orthogonal(scale, dtype=dtype)), axis=-2)


@dataclass(frozen=True, repr=False)
class sparse(Initializer):
    """A fixed number of zeros along an axis, in random places, the rest N(0, stddev²).

    Of `n` entries, `ceil(sparsity n)` are zero. Along the default axis, the inputs, all
    outputs have the same number of inputs, as in Martens, "Deep learning via
    Hessian-free optimization" (2010), who keeps 15 of standard deviation one. torch's
    `sparse_` counts along the outputs of its transposed kernels: that is `axis=-1`.

    Args:
        sparsity: fraction of zeros, 0 to 1.
        stddev: standard deviation of the others, zero or greater.
        dtype: default dtype, float.
        axis: the axis along which zeros are counted.

    Raises:
        ValueError: if `sparsity` is not between 0 and 1, `stddev` is negative or not
            finite or, in a call, the axis is out of range.

    >>> import jax
    >>> x = sparse(0.75)(jax.random.key(0), (8, 5))
    >>> (x == 0).sum(axis=0).tolist()
    [6, 6, 6, 6, 6]
    """

    sparsity: Fraction
    stddev: NonNegative = 1e-2
    dtype: DType = None
    _: KW_ONLY
    axis: Axis = -2  # counts are fixed, so moments vary less than independence tells

    def _zeros(self, shape: tuple[int, ...]) -> int:
        return math.ceil(self.sparsity * shape[self.axis])

    def entry_law(self, shape, dtype):
        zeros, size = self._zeros(shape), shape[self.axis]
        return laws.Mixture(
            ((laws.Normal(self.stddev), size - zeros), (laws.Values((0.0,)), zeros))
        )

    def sample(self, key, shape, dtype):
        places, values = jax.random.split(key)
        order = jax.lax.broadcasted_iota(np.int32, shape, self.axis % len(shape))
        rank = jax.random.permutation(places, order, self.axis, independent=True)
        rank = whole_along(rank, self.axis % len(shape))
        drawn = jax.random.normal(values, shape, dtype)
        stddev = jnp.asarray(self.stddev, dtype)
        return jnp.where(
            rank < self._zeros(shape), jnp.zeros_like(drawn), drawn * stddev
        )

    def check_shape(self, shape):
        positions("axis", self.axis, shape)


@dataclass(frozen=True, repr=False)
class bilinear(FromShape):
    """Kernels of a transposed convolution that upsamples by bilinear interpolation.

    `1 - |x - (k - 1) / 2| / ceil(k / 2)` along every axis of the window, of size `k`,
    from input channel `j % inputs` to output channel `j`: channel by channel, also in a
    depthwise kernel with one input. Made for `k = 2 f - f % 2` and stride `f`, where
    it equals Caffe's; at other sizes Caffe's is not symmetric, this is. Long et al.,
    "Fully convolutional networks for semantic segmentation" (2015).

    Args:
        dtype: default dtype, float.

    Raises:
        ValueError: in a call, if the shape lacks a window, inputs or outputs.

    >>> import jax
    >>> bilinear()(jax.random.key(0), (4, 1, 1)).ravel()
    Array([0.25, 0.75, 0.75, 0.25], dtype=float32)
    """

    dtype: DType = None

    def table(self, shape):
        *window, inputs, outputs = shape
        ramps = [1 - np.abs(np.arange(k) - (k - 1) / 2) / -(-k // 2) for k in window]
        kernel = functools.reduce(np.multiply.outer, ramps)
        passes = np.arange(inputs)[:, None] == np.arange(outputs) % inputs
        return np.multiply.outer(kernel, passes)

    def check_shape(self, shape):
        if len(shape) < 3:
            raise ValueError(
                f"shape must be (*window, inputs, outputs), three axes at least, got "
                f"{shape}."
            )
