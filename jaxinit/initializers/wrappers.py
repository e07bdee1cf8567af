"""Initializers made of one other: scaled, mirrored, at the centre of a kernel."""

# An initializer is a class that is used, and therefore spelled, as a function.
# ruff: noqa: N801

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import jax.numpy as jnp

import jaxinit.laws as laws
from jaxinit.initializers._joined import mirrored_along
from jaxinit.initializers.base import Initializer, checked_initializer
from jaxinit.initializers.fans import Fans, fans, positions
from jaxinit.initializers.settings import Axis, Finite


def fans_of(init: Initializer, shape: tuple[int, ...]) -> Fans:
    """Fans as an initializer sees them."""
    return getattr(init, "fans", fans)(shape)


class _Wrapper(Initializer):
    """What `init` draws, changed: dtypes, fans and independence are those of `init`."""

    init: Any

    @property
    def dtype_kinds(self) -> tuple[type, ...]:  # pyright: ignore - a constant elsewhere
        return self.init.dtype_kinds

    @property
    def draws(self) -> bool:  # pyright: ignore - a constant elsewhere
        return self.init.draws

    @property
    def dtype(self) -> Any:
        """Default dtype, that of `init`."""
        return getattr(self.init, "dtype", None)

    @property
    def entries_independent(self) -> bool:  # pyright: ignore - a constant elsewhere
        """As of `init`."""
        return self.init.entries_independent

    def is_independent(self, shape):
        return self.entries_independent and self.init.is_independent(shape)

    def fans(self, shape: tuple[int, ...]) -> Fans:
        """Fans as `init` sees them."""
        return fans_of(self.init, shape)

    def check_shape(self, shape):
        self.init.check_shape(shape)

    def check_values(self, shape, dtype):
        self.init.check_values(shape, dtype)
        super().check_values(shape, dtype)


@dataclass(frozen=True, repr=False)
class scaled(_Wrapper):
    """What `init` draws, times `factor`.

    Args:
        init: the initializer.
        factor: finite number; 0.5 halves the standard deviation.

    Raises:
        TypeError: if `init` is no initializer of this package.
        ValueError: if `factor` is not finite.

    >>> import jaxinit
    >>> scaled(jaxinit.normal(0.02), 0.5).moments((8, 8)).std
    0.01
    """

    init: Annotated[Initializer, checked_initializer]
    factor: Finite

    def entry_law(self, shape, dtype):
        return laws.Scaled(self.init.entry_law(shape, dtype), self.factor)

    def sample(self, key, shape, dtype):
        return self.init.sample(key, shape, dtype) * jnp.asarray(self.factor, dtype)


@dataclass(frozen=True, repr=False)
class unit_scaled(_Wrapper):
    """What `init` draws, at standard deviation one.

    The deviation, `multiplier(shape)`, is for the forward pass to multiply by, so that
    all weights learn at one pace. Karras et al., "Progressive growing of GANs" (2018),
    call it equalized learning rate; Blake et al., "Unit scaling" (2023), have other
    multipliers for the gradients as well.

    Args:
        init: the initializer.

    Raises:
        TypeError: if `init` is no initializer of this package.
        ValueError: in a call, if what `init` draws has no spread.

    >>> import jaxinit
    >>> init = unit_scaled(jaxinit.he_normal())
    >>> round(init.moments((50, 10)).std, 6), round(init.multiplier((50, 10)), 6)
    (1.0, 0.2)
    """

    init: Annotated[Initializer, checked_initializer]

    def multiplier(self, shape: Sequence[int]) -> float:
        """What the forward pass multiplies an array of that shape by."""
        return self.init.moments(shape).std

    def entry_law(self, shape, dtype):
        return laws.Scaled(self.init.entry_law(shape, dtype), self._factor(shape))

    def sample(self, key, shape, dtype):
        factor = jnp.asarray(self._factor(shape), dtype)
        return self.init.sample(key, shape, dtype) * factor

    def _factor(self, shape: tuple[int, ...]) -> float:
        return 1 / self.multiplier(shape) if 0 not in shape else 1.0

    def check_shape(self, shape):
        super().check_shape(shape)
        if 0 not in shape and not self.multiplier(shape):
            raise ValueError(
                f"init={self.init!r} draws equal entries in shape {shape}: they have "
                "no standard deviation to divide by."
            )


@dataclass(frozen=True, repr=False)
class mirrored(_Wrapper):
    """What `init` draws and its negative, side by side: `[x, -x]`.

    Args:
        init: what draws `x`, an array half as long.
        axis: the axis along which they lie.

    Raises:
        TypeError: if `init` is no initializer of this package.
        ValueError: in a call, if the axis is out of range or of odd size.

    >>> import jax, jaxinit
    >>> mirrored(jaxinit.ones)(jax.random.key(0), (1, 4))
    Array([[ 1.,  1., -1., -1.]], dtype=float32)
    """

    init: Annotated[Initializer, checked_initializer]
    axis: Axis = -1

    @property
    def entries_independent(self) -> bool:
        """No."""
        return False

    def fans(self, shape: tuple[int, ...]) -> Fans:
        """Fans of the half that is drawn."""
        return fans_of(self.init, self._half(shape))

    def _half(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        (axis,) = positions("axis", self.axis, shape)
        return (*shape[:axis], shape[axis] // 2, *shape[axis + 1 :])

    def entry_law(self, shape, dtype):
        law = self.init.entry_law(self._half(shape), dtype)
        return laws.Mixture(((law, 1), (laws.Scaled(law, -1.0), 1)))

    def sample(self, key, shape, dtype):
        half = self.init.sample(key, self._half(shape), dtype)
        return mirrored_along(half, self.axis % len(shape))

    def check_values(self, shape, dtype):
        self.init.check_values(self._half(shape), dtype)

    def check_shape(self, shape):
        self.init.check_shape(self._half(shape))
        if shape[self.axis] % 2:
            raise ValueError(
                f"axis {self.axis} of shape {shape} is odd: it must be even, to hold "
                "an array and its negative."
            )


@dataclass(frozen=True, repr=False)
class center_tap(_Wrapper):
    """Convolution kernels that are a matrix at the centre, zero elsewhere.

    The centre is `(size - 1) // 2` along each axis of the window, as in jax: with it, a
    convolution with "SAME" padding applies the matrix to every position.

    Args:
        init: what draws the matrix, in the last two axes.

    Raises:
        TypeError: if `init` is no initializer of this package.
        ValueError: in a call, if the shape has fewer than two axes.

    >>> import jax, jaxinit
    >>> center_tap(jaxinit.ones)(jax.random.key(0), (3, 1, 2))[:, 0]
    Array([[0., 0.],
           [1., 1.],
           [0., 0.]], dtype=float32)
    """

    init: Annotated[Initializer, checked_initializer]

    @property
    def entries_independent(self) -> bool:
        """No."""
        return False

    def fans(self, shape: tuple[int, ...]) -> Fans:
        """Fans of the matrix."""
        return fans_of(self.init, shape[-2:])

    def entry_law(self, shape, dtype):
        size, matrix = math.prod(shape), math.prod(shape[-2:])
        law = self.init.entry_law(shape[-2:], dtype)
        return laws.Mixture(((law, matrix), (laws.Values((0.0,)), size - matrix)))

    def sample(self, key, shape, dtype):
        matrix = self.init.sample(key, shape[-2:], dtype)
        centre = tuple((size - 1) // 2 for size in shape[:-2])
        return jnp.zeros(shape, dtype).at[centre].set(matrix)

    def check_values(self, shape, dtype):
        self.init.check_values(shape[-2:], dtype)

    def check_shape(self, shape):
        if len(shape) < 2:
            raise ValueError(
                f"shape must be (*window, inputs, outputs), two axes at least, got "
                f"{shape}."
            )
        self.init.check_shape(shape[-2:])
