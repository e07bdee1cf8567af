"""The base of every initializer: one way to check, draw, place, compare and print."""

import functools
import inspect
import math
from collections.abc import Iterator, Sequence
from dataclasses import MISSING, dataclass, fields
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jaxinit._basics.integers import checked_shape
from jaxinit._basics.keys import check_key
from jaxinit._kernel.options import compiler_options, is_tracing, is_unrolled
from jaxinit.initializers import settings
from jaxinit.initializers._makers import forgotten_call, refuse_drawing, refuse_shape
from jaxinit.initializers._placing import Placement, Shape, in_mesh_of, placed
from jaxinit.laws import Law, Moments, Uniform

_CONSTANTS = ("dtype_kinds", "draws", "rounds", "entries_independent")


@dataclass(frozen=True, repr=False)
class Initializer:
    """Makes the starting values of one array: a value that is called.

    Equal settings make equal initializers, which hash equal, so that `jax.jit` does not
    trace again for one that was built again. `repr` is the expression that builds it.

    A new initializer is a frozen dataclass that derives from this class, or from
    `FromShape` or `FromUniform`. It has

    - fields of the types in `jaxinit.initializers.settings`, which check them;
    - `entry_law`, the law of one entry, from `jaxinit.laws`;
    - `sample`, which draws;
    - where they are needed, `check_settings`, `check_shape` and `check_values`.

    The class does the rest: dtypes, narrow ones too, empty arrays, shardings, moments,
    comparison, hash and `repr`. A field may not have the name of a member.

    Attributes:
        dtype_kinds: kinds of dtype that it makes, as in `numpy.issubdtype`.
        draws: whether values depend on the key. If not, `sample` is given None.
        rounds: whether arrays of a dtype narrower than float32 are drawn in float32,
            clipped and rounded once. If not, `sample` is asked for the narrow dtype.
        entries_independent: whether entries are independent draws, as the standard
            errors of sample moments assume. Orthogonal matrices are not: what holds
            exactly is `x.T @ x = scale**2 I`, and that is the check for them. Nor are
            tables, which have their moments exactly.

    >>> import dataclasses, jax, jaxinit
    >>> from jaxinit import laws
    >>> from jaxinit.initializers.settings import NonNegative
    >>> @dataclasses.dataclass(frozen=True, repr=False)
    ... class rademacher(jaxinit.Initializer):
    ...     scale: NonNegative = 1.0
    ...
    ...     def entry_law(self, shape, dtype):
    ...         return laws.Values((-self.scale, self.scale))
    ...
    ...     def sample(self, key, shape, dtype):
    ...         return self.scale * jax.random.rademacher(key, shape, dtype)
    >>> rademacher(0.5), rademacher(0.5).moments((8, 8)).std
    (rademacher(scale=0.5), 0.5)
    """

    dtype_kinds: ClassVar[tuple[type, ...]] = (np.floating,)
    draws: ClassVar[bool] = True
    rounds: ClassVar[bool] = True
    _makes_initializers: ClassVar[bool] = True  # the class does, when called
    entries_independent: ClassVar[bool] = True

    def __init_subclass__(cls, **kwargs: Any):
        super().__init_subclass__(**kwargs)
        settings.take_checks(cls)
        _refuse_hidden_members(cls)

    def __new__(cls, *args: Any, **kwargs: Any):
        """Refuses what is a draw: `normal(key, shape)` in place of `normal()(...)`."""
        refuse_drawing(cls, args)
        _refuse_undecorated(cls)
        if first := next(iter(settings.checks(cls).values()), None):
            refuse_shape(cls, first, args[0] if args else None)
        return super().__new__(cls)

    def __post_init__(self):
        for name, check in settings.checks(type(self)).items():
            object.__setattr__(self, name, check(name, getattr(self, name)))
        self.check_settings()
        _refuse_unhashable(self)

    def __call__(
        self,
        key: Any,
        shape: Sequence[int],
        dtype: Any = None,
        out_sharding: Placement = None,
    ) -> jax.Array:
        """Draws one array.

        Args:
            key: a typed key, or the raw uint32 data of one, of any PRNG implementation.
                Not looked at by constants.
            shape: shape of the result, non-negative.
            dtype: dtype of the result; None means that of the initializer, else jax's
                default float. Narrower floats than float32 are drawn in float32,
                clipped to their largest finite number and rounded once.
            out_sharding: how the result is placed: a `NamedSharding`, or a
                `PartitionSpec` under `jax.set_mesh`. Every device draws its own part;
                matrices that need all their entries at once (orthogonal) are made whole
                on every device and then cut.

        Returns:
            Array of that shape, dtype and sharding.

        Raises:
            TypeError: if the dtype or the key is of a wrong type.
            ValueError: if the shape is not possible for this initializer.
        """
        self._refuse_no_key(key, shape)
        shape, dtype = checked_shape(shape), self._resolve(dtype)
        _check_made(self, shape, dtype)
        if self.draws:
            check_key(key)
        else:
            key = None
        plain = is_unrolled(shape) or _is_traced(key)
        kernel = _nested if plain else _top_level(_platform(key))
        with in_mesh_of(out_sharding):
            return kernel(self, key, shape, dtype, out_sharding)

    def __repr__(self):
        return f"{type(self).__name__}({', '.join(self._arguments())})"

    def moments(self, shape: Sequence[int], dtype: Any = None) -> Moments:
        """Expected moments of the entries, of the law that is really drawn.

        Args:
            shape: shape of the array.
            dtype: its dtype, as in a call. It decides between real and complex laws,
                and a narrow one clips the bounds; the rounding itself is left out.

        Returns:
            The moments, as Python floats.
        """
        shape, dtype = checked_shape(shape), self._resolve(dtype)
        _check_made(self, shape, dtype)
        moments = self.entry_law(shape, dtype).moments()
        if not _is_narrow(dtype):
            return moments
        limits = jnp.finfo(dtype)
        return moments.clipped(float(limits.min), float(limits.max))

    def _refuse_no_key(self, key: Any, shape: Any) -> None:
        """Raises for a call with a shape and a dtype, which is that of Haiku."""
        if isinstance(key, Sequence) and not isinstance(shape, Sequence):
            raise TypeError(
                f"{self!r} was called with the shape {key!r} in place of a key: call "
                "it with key, shape and dtype. Haiku calls with shape and dtype alone: "
                "give it lambda shape, dtype: init(hk.next_rng_key(), shape, dtype), "
                f"where init = jaxinit.{self!r}."
            )

    def entry_law(self, shape: Shape, dtype: np.dtype) -> Law:
        """The law of one entry, to be overridden.

        Args:
            shape: shape of the array, checked; axes may be empty.
            dtype: its dtype, one of `dtype_kinds`. Laws are those before rounding.

        Returns:
            One of `jaxinit.laws`, or a law of one's own. An initializer without one
            draws, but has no moments: raise `NotImplementedError`, as here.
        """
        raise NotImplementedError(f"{self!r} states no law")

    def sample(self, key: Any, shape: Shape, dtype: np.dtype) -> jax.Array:
        """Draws the entries, to be overridden; call the initializer itself instead.

        Args:
            key: what `jax.random` takes, perhaps traced; None unless it `draws`.
            shape: shape of the array, checked, none of its axes empty.
            dtype: float32 or wider, or another of `dtype_kinds`.

        Returns:
            An array of that shape and dtype, made by operations of jax alone.
        """
        raise NotImplementedError(f"{type(self).__name__} must override sample")

    def is_independent(self, shape: Shape) -> bool:
        """Whether the entries of an array of that shape are independent draws."""
        return self.entries_independent

    def check_settings(self) -> None:
        """Raises where settings that are valid alone are not so together.

        Called once, when all fields have been checked.
        """

    def check_shape(self, shape: Shape) -> None:
        """Raises where the shape does not fit the settings."""

    def check_values(self, shape: Shape, dtype: np.dtype) -> None:
        """Raises where entries would overflow, or vanish, in the dtype of the draw.

        The bounds of `entry_law` decide, or its width where it has none, unless this is
        overridden.
        """
        reach, limits = _reach(self, shape, dtype), jnp.finfo(dtype)
        if not reach <= (most := float(limits.max)):
            raise ValueError(
                f"{self!r} makes entries that are not finite in {dtype}: they reach "
                f"{reach:.3g}, and its greatest number is {most:.3g}. Choose smaller "
                "settings, or a wider dtype."
            )
        if 0 < reach < (least := float(limits.tiny)):
            raise ValueError(
                f"{self!r} makes entries that are all zero in {dtype}: they reach "
                f"{reach:.3g}, and XLA takes what is below {least:.3g} for zero. "
                "Choose greater settings, or a wider dtype."
            )

    def notes(self, shape: Shape) -> Iterator[tuple[str, str]]:
        """Titles and texts that `explain` shows beside the law, such as fans."""
        yield from ()

    def _arguments(self) -> Iterator[str]:
        for field in fields(self):
            value = getattr(self, field.name)
            shown = value.name if isinstance(value, np.dtype) else value
            shown = shown.__name__ if isinstance(shown, type) else repr(shown)
            if field.default is MISSING:
                yield shown
            elif value != field.default:
                yield f"{field.name}={shown}"

    def _resolve(self, dtype: Any) -> np.dtype:
        own = getattr(self, "dtype", None)
        wanted = settings.dtype_of("dtype", own if dtype is None else dtype)
        resolved = _canonical(float if wanted is None else wanted)
        if not any(jnp.issubdtype(resolved, kind) for kind in self.dtype_kinds):
            kinds = " or ".join(kind.__name__ for kind in self.dtype_kinds)
            raise TypeError(
                f"dtype {resolved} is not one that {self!r} can make: it must be "
                f"{kinds}. Draw in one of these and convert with .astype."
            )
        return resolved


_MEMBERS = frozenset(name for name in vars(Initializer) if not name.startswith("_"))


def _refuse_hidden_members(cls: type) -> None:
    hidden = _MEMBERS.intersection(inspect.get_annotations(cls)).difference(_CONSTANTS)
    if hidden:
        raise TypeError(
            f"{cls.__name__} has a field named {min(hidden)}, which is a member of "
            "jaxinit.Initializer: choose another name."
        )


def _refuse_undecorated(cls: type) -> None:
    if settings.checks(cls).keys() - cls.__dataclass_fields__.keys():  # pyright: ignore
        raise TypeError(
            f"{cls.__name__} has settings and is no dataclass of its own: put "
            "@dataclass(frozen=True, repr=False) above it."
        )


def _refuse_unhashable(init: Initializer) -> None:
    try:
        hash(init)
    except TypeError as error:
        raise TypeError(
            f"the settings of {init!r} must be hashable ({error}): use tuples for "
            "lists, and declare fields by the types in jaxinit.initializers.settings."
        ) from None


def checked_initializer(name: str, value: Any) -> Any:
    """The check that a setting is an initializer of this package."""
    if not isinstance(value, Initializer):
        raise TypeError(
            f"{name} must be a jaxinit initializer, such as jaxinit.he_normal(), got "
            f"{value!r}.{forgotten_call(value)}"
        )
    return value


@functools.lru_cache(4096)
def _check_made(init: Initializer, shape: Shape, dtype: np.dtype) -> None:
    init.check_shape(shape)
    if 0 not in shape:
        wide = np.dtype(np.float32) if init.rounds and _is_narrow(dtype) else dtype
        init.check_values(shape, wide)


_SIGMAS = 9.0  # how far a normal law reaches in float64


def _reach(init: Initializer, shape: Shape, dtype: np.dtype) -> float:
    """The greatest number that its draws meet; 0 if it states no law."""
    try:
        law = init.entry_law(shape, dtype)
        if not isinstance(law, Law):
            raise TypeError(
                f"entry_law of {init!r} must return a jaxinit.laws.Law, got {law!r}."
            )
        mean, variance, _, low, high = law.moments()
    except NotImplementedError:
        return 0.0
    except ArithmeticError:
        return math.inf
    if not math.isfinite(high - low):
        return abs(mean) + _SIGMAS * math.sqrt(variance)
    width = high - low if isinstance(law, Uniform) else 0.0  # jax draws a part of it
    return max(abs(low), abs(high), width)


def _canonical(dtype: Any) -> np.dtype:
    if not isinstance(dtype, np.dtype):
        return jax.dtypes.canonicalize_dtype(dtype)
    if dtype.itemsize < 8:
        return dtype
    return jnp.zeros((), dtype).dtype  # warns, or refuses, as jax is set up to


def _is_narrow(dtype: np.dtype) -> bool:
    return bool(jnp.issubdtype(dtype, np.floating)) and dtype.itemsize < 4


def _sampled(init: Initializer, key: Any, shape: Shape, dtype: np.dtype) -> jax.Array:
    """What `sample` makes, which must be what it was asked for."""
    made = init.sample(key, shape, dtype)
    if (jnp.shape(made), jnp.result_type(made)) != (shape, dtype):
        raise TypeError(
            f"{type(init).__name__}.sample must return shape {shape} and dtype "
            f"{dtype}, got shape {jnp.shape(made)} and dtype {jnp.result_type(made)}."
        )
    return made


def _draw(init: Initializer, key: Any, shape: Shape, dtype: Any, placement: Placement):
    from jaxinit._kernel.fuse import fused  # slow to import, and not needed before

    def sample(key):
        if 0 in shape:
            return jnp.zeros(shape, dtype)
        if not init.rounds or not _is_narrow(dtype):
            return _sampled(init, key, shape, dtype)
        limits = jnp.finfo(dtype)
        wide = _sampled(init, key, shape, np.dtype(np.float32))
        if is_unrolled(shape):  # what else the loop did would change the draw
            wide = jax.lax.optimization_barrier(wide)
        return jnp.clip(wide, float(limits.min), float(limits.max)).astype(dtype)

    drawn = sample if is_unrolled(shape) else fused(sample)
    return placed(drawn, shape, placement)(key)


_nested = jax.jit(_draw, static_argnums=(0, 2, 3, 4))


@functools.cache
def _top_level(platform: str):
    """`_draw`, compiled with options that jax allows at the top level only."""
    options = compiler_options(platform)
    return jax.jit(_draw, static_argnums=(0, 2, 3, 4), compiler_options=options)


def _is_traced(key: Any) -> bool:
    return key is None or isinstance(key, Tracer) or is_tracing()


def _platform(key: Any) -> str:
    if isinstance(key, jax.Array):
        return next(iter(key.devices())).platform
    return jax.default_backend()
