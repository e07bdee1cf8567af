"""Initializers of arrays made of parts: stacked, split and grouped."""

# An initializer is a class that is used, and therefore spelled, as a function.
# ruff: noqa: N801

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

import jaxinit.laws as laws
from jaxinit._basics.integers import axes, shown
from jaxinit.initializers._joined import side_by_side, whole_along
from jaxinit.initializers._makers import forgotten_call, is_maker, maker
from jaxinit.initializers.base import Initializer, checked_initializer
from jaxinit.initializers.fans import Fans, as_tuple, positions
from jaxinit.initializers.settings import Axis, count, refuse_tracer
from jaxinit.initializers.wrappers import fans_of, scaled

_ALL_KINDS = (np.floating, np.complexfloating)


def _slices(name: str, value: Any) -> Any:
    if isinstance(value, Initializer) or (callable(value) and not is_maker(value)):
        return value
    raise TypeError(
        f"{name} must be a jaxinit initializer, or a function of the index that "
        f"returns one, got {value!r}.{forgotten_call(value)}"
    )


def _each(name: str, value: Any) -> Initializer | tuple[Initializer, ...]:
    if isinstance(value, tuple | list):
        return tuple(
            checked_initializer(f"{name}[{i}]", init) for i, init in enumerate(value)
        )
    return checked_initializer(name, value)


def _sections(name: str, value: Any) -> int | tuple[int, ...]:
    refuse_tracer(name, value)
    with contextlib.suppress(TypeError):
        sizes = axes(name, value)
        if as_tuple(sizes) and min(as_tuple(sizes)) >= 1:
            return sizes
    raise ValueError(
        f"{name} must be a number of equal parts, or their sizes, all at least 1, "
        f"got {shown(value)}."
    )


class _Parts(Initializer):
    """Arrays made of parts along an axis, each drawn from a key of its own."""

    dtype_kinds: ClassVar[tuple[type, ...]] = _ALL_KINDS

    def _parts(self, shape) -> Iterator[tuple[Initializer, tuple[int, ...]]]:
        raise NotImplementedError

    def fans(self, shape: tuple[int, ...]) -> Fans:
        """Fans of the first part."""
        init, part = next(self._parts(shape))
        return fans_of(init, part)

    def entry_law(self, shape, dtype):
        parts = [
            (init.entry_law(part, dtype), int(np.prod(part)))
            for init, part in self._parts(shape)
        ]
        return laws.Mixture(tuple(parts))

    def is_independent(self, shape):
        return all(init.is_independent(part) for init, part in self._parts(shape))

    def check_shape(self, shape):
        for init, part in self._parts(shape):
            init.check_shape(part)

    def check_values(self, shape, dtype):
        for init, part in dict.fromkeys(self._parts(shape)):
            if 0 not in part:
                init.check_values(part, dtype)

    def _draw_parts(self, key, shape, dtype) -> list[jax.Array] | jax.Array:
        """The parts; if all are equal but for a factor, drawn as one array of them."""
        parts = list(self._parts(shape))
        alike = {(_unscaled(init)[0], part) for init, part in parts}
        if len(alike) > 1:
            return [
                init.sample(
                    key if key is None else jax.random.fold_in(key, i), part, dtype
                )
                for i, (init, part) in enumerate(parts)
            ]
        if len(set(parts)) == 1:
            return _drawn_alike(key, *parts[0], len(parts), dtype)
        init, part = alike.pop()
        factors = np.asarray([_unscaled(init)[1] for init, _ in parts], dtype)
        along = factors.reshape(-1, *(1 for _ in part))
        return _drawn_alike(key, init, part, len(parts), dtype) * along


def _unscaled(init: Initializer) -> tuple[Initializer, float]:
    """An initializer without the factor that it is times, and that factor."""
    return (init.init, init.factor) if type(init) is scaled else (init, 1.0)


def _drawn_alike(key, init, part, size, dtype) -> jax.Array:
    """Several parts of one shape in one array, drawn by one initializer."""
    if key is None:  # it does not draw
        return jnp.broadcast_to(init.sample(None, part, dtype), (size, *part))
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, np.arange(size))
    return jax.vmap(lambda own: init.sample(own, part, dtype))(keys)


@dataclass(frozen=True, repr=False)
class stacked(_Parts):
    """Layers stacked along an axis, slice `i` drawn by an initializer of its own.

    The leaf that `flax.linen.scan` makes of `n` layers is one array; fans and bounds
    are those of one layer. Slice `i` has the key `fold_in(key, i)`, so that it does not
    depend on the number of layers.

    Args:
        fn_of_index: an initializer, or a function of the layer number (from 0) that
            returns one.
        axis: the axis of the layers.

    Raises:
        TypeError: if `fn_of_index` is neither, or returns no initializer.

    >>> import jaxinit
    >>> layers = stacked(lambda i: jaxinit.normal(0.02 / (i + 1)))
    >>> layers(jax.random.key(0), (2, 64, 64)).shape
    (2, 64, 64)
    >>> round(stacked(jaxinit.he_normal()).moments((12, 50, 64)).std, 6)
    0.2
    """

    fn_of_index: Annotated[Initializer | Callable[[int], Initializer], _slices]
    axis: Axis = 0

    @property
    def entries_independent(self) -> bool:  # pyright: ignore - a constant elsewhere
        """As of the slices; of a function of the index, as of the first."""
        return self._at(0).entries_independent

    @property
    def draws(self) -> bool:  # pyright: ignore - a constant elsewhere
        return getattr(self.fn_of_index, "draws", True)

    @property
    def dtype(self) -> Any:
        """Default dtype, that of the slices if they have one initializer."""
        return getattr(self.fn_of_index, "dtype", None)

    def _parts(self, shape):
        (axis,) = positions("axis", self.axis, shape)
        part = shape[:axis] + shape[axis + 1 :]
        for index in range(shape[axis]):
            yield self._at(index), part

    def _at(self, index: int) -> Initializer:
        if isinstance(self.fn_of_index, Initializer):
            return self.fn_of_index
        return checked_initializer(f"fn_of_index({index})", self.fn_of_index(index))

    def sample(self, key, shape, dtype):
        (axis,) = positions("axis", self.axis, shape)
        parts = self._draw_parts(key, shape, dtype)
        if isinstance(parts, list):
            return whole_along(jnp.stack(parts, axis), axis)
        return jnp.moveaxis(parts, 0, axis)


@dataclass(frozen=True, repr=False)
class split(_Parts):
    """Parts side by side along an axis, each with fans and key of its own.

    For fused projections: query, key and value in one `(d, 3 d)` kernel are three
    matrices, each of fan in and fan out `d`; the recurrent kernel of an LSTM,
    `split(orthogonal(), 4)`, is one orthogonal matrix for each gate. Part `i` has the
    key `fold_in(key, i)`.

    Args:
        init: what draws each part, or a sequence of one initializer for each.
        sections: a number of equal parts, or the sizes of all parts.
        axis: the axis along which they lie.

    Raises:
        TypeError: if `init` is no initializer of this package.
        ValueError: if a size is not positive, there are not as many initializers as
            parts or, in a call, the sizes do not add up to the size of the axis.

    >>> import jaxinit
    >>> round(split(jaxinit.glorot_uniform(), 3).moments((64, 192)).variance * 64, 6)
    1.0
    >>> gates = split([jaxinit.zeros, jaxinit.ones], 2)
    >>> gates(jax.random.key(0), (4,))
    Array([0., 0., 1., 1.], dtype=float32)
    """

    init: Annotated[Initializer | tuple[Initializer, ...], _each]
    sections: Annotated[int | tuple[int, ...], _sections]
    axis: Axis = -1

    def check_settings(self):
        count = self.sections if isinstance(self.sections, int) else len(self.sections)
        if isinstance(self.init, tuple) and len(self.init) != count:
            raise ValueError(
                f"init has {len(self.init)} initializers for {count} sections: give "
                "one for each, or a single one for all."
            )

    @property
    def _inits(self) -> tuple[Initializer, ...]:
        return self.init if isinstance(self.init, tuple) else (self.init,)

    @property
    def dtype(self) -> Any:
        """Default dtype, that of the parts where they agree."""
        found = {getattr(init, "dtype", None) for init in self._inits}
        return found.pop() if len(found) == 1 else None

    @property
    def entries_independent(self) -> bool:  # pyright: ignore - a constant elsewhere
        """As of the parts."""
        return all(init.entries_independent for init in self._inits)

    @property
    def draws(self) -> bool:  # pyright: ignore - a constant elsewhere
        return any(init.draws for init in self._inits)

    def _sizes(self, size: int) -> tuple[int, ...]:
        if isinstance(self.sections, tuple):
            return self.sections
        return (size // self.sections,) * self.sections

    def _parts(self, shape):
        (axis,) = positions("axis", self.axis, shape)
        whole, sections = shape[axis], self.sections
        rest = whole % sections if isinstance(sections, int) else whole - sum(sections)
        if rest:
            raise ValueError(
                f"sections={shown(sections)} does not divide axis {self.axis} of shape "
                f"{shape}, of size {whole}."
            )
        for i, size in enumerate(self._sizes(whole)):
            init = self._inits[i % len(self._inits)]
            yield init, (*shape[:axis], size, *shape[axis + 1 :])

    def _cut(self, x: jax.Array) -> list[jax.Array]:
        """The parts of an array, in their order."""
        (axis,) = positions("axis", self.axis, x.shape)
        ends = np.cumsum(self._sizes(x.shape[axis]))[:-1].tolist()
        return jnp.split(x, ends, axis)

    def sample(self, key, shape, dtype):
        (axis,) = positions("axis", self.axis, shape)
        parts = self._draw_parts(key, shape, dtype)
        if isinstance(parts, list):
            return side_by_side(parts, axis)
        return jnp.moveaxis(parts, 0, axis).reshape(shape)


@maker
def grouped(init: Initializer, groups: int) -> split:
    """Kernels of a grouped convolution: each group of outputs has fans of its own.

    Args:
        init: what draws the kernel of one group.
        groups: number of groups, which divides the outputs, the last axis.

    Returns:
        `split(init, groups)`.

    Raises:
        TypeError: if `init` is no initializer of this package.
        ValueError: if `groups` is not a positive int.

    >>> import jaxinit
    >>> kernel = (3, 3, 8, 64)  # 64 inputs and outputs in 8 groups
    >>> he = jaxinit.variance_scaling(2.0, "fan_out", "normal")
    >>> round(grouped(he, 8).moments(kernel).variance * 3 * 3 * 8, 6)
    2.0
    """
    return split(init, count("groups", groups))
