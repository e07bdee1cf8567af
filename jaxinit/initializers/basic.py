"""Constants, and laws whose settings do not depend on the shape."""

# An initializer is a class that is used, and therefore spelled, as a function.
# ruff: noqa: N801

from dataclasses import KW_ONLY, dataclass
from typing import Annotated, Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.nn import initializers as reference

import jaxinit.laws as laws
from jaxinit._basics.integers import shown
from jaxinit.initializers._between import draw_between
from jaxinit.initializers._makers import maker
from jaxinit.initializers.base import Initializer
from jaxinit.initializers.settings import (
    DType,
    Finite,
    Flag,
    NonNegative,
    Number,
    OptionalFinite,
    number,
    refuse_tracer,
)
from jaxinit.laws.rounded import numbers_between


@dataclass(frozen=True, repr=False)
class Frozen:
    """An array that compares, hashes and prints by its values."""

    dtype: str
    shape: tuple[int, ...]
    data: bytes

    @property
    def array(self) -> np.ndarray:
        """The array itself, read-only."""
        return np.frombuffer(self.data, self.dtype).reshape(self.shape)

    def __repr__(self):
        return repr(self.array.tolist())


_WIDEST = {np.floating: np.float64, np.integer: np.int64, np.complexfloating: complex}


def _frozen(name: str, value: Any) -> Frozen:
    refuse_tracer(name, value)
    if isinstance(value, Frozen):
        return value
    try:
        array = given = np.asarray(value)
    except (TypeError, ValueError, NotImplementedError):  # of lists that are no array
        array = given = np.array(None)
    for kind, widest in _WIDEST.items():  # a printed number has no narrower dtype
        if jnp.issubdtype(array.dtype, kind):
            array = array.astype(widest)
    if array.dtype.kind not in "fcib":
        raise TypeError(f"{name} must be a number or an array, got {shown(value)}.")
    if given.dtype.kind == "u" and (array < 0).any():
        raise ValueError(f"{name} must be at most 2**63 - 1, got {shown(value)}.")
    return Frozen(array.dtype.str, array.shape, array.tobytes())


def _misfit(array: Any, dtype: np.dtype) -> np.ndarray:
    """Which numbers a dtype does not hold; that it rounds them is no matter."""
    real, imaginary = np.real(array), np.imag(array)
    if jnp.issubdtype(dtype, np.complexfloating):
        part = np.dtype(jnp.finfo(dtype).dtype)
        return _misfit(real, part) | _misfit(imaginary, part)
    if dtype == np.bool_:
        fits = (real == 0) | (real == 1)
    elif jnp.issubdtype(dtype, np.integer):
        limits = jnp.iinfo(dtype)
        fits = (real >= int(limits.min)) & (real <= int(limits.max)) & (real % 1 == 0)
    else:
        with np.errstate(over="ignore"):
            cast = real.astype(dtype).astype(np.float64)
        fits = np.isfinite(cast) | (cast == real) | np.isnan(real)
    return ~fits | (imaginary != 0)


@dataclass(frozen=True, repr=False)
class constant(Initializer):
    """Every entry is `value`.

    Args:
        value: a number, or an array that broadcasts to the shape.
        dtype: default dtype; integers and booleans are allowed too.
        broadcast: whether an array may broadcast; else its shape must be the one that
            is asked for, as of weights that were loaded.

    Raises:
        TypeError: if the value is traced or no number.
        ValueError: in a call, if the value does not fit the shape, or the dtype cannot
            hold it (300 as int8, 1.5 as an integer, 1e40 in float32).

    >>> import jax
    >>> constant(3.0)(jax.random.key(0), (2,))
    Array([3., 3.], dtype=float32)
    >>> constant([1.0, 2.0])
    constant([1.0, 2.0])
    """

    dtype_kinds: ClassVar[tuple[type, ...]] = (np.number, np.bool_)
    draws: ClassVar[bool] = False
    rounds: ClassVar[bool] = False  # from the value itself, as in jax

    value: Annotated[Any, _frozen]
    dtype: DType = None
    _: KW_ONLY
    broadcast: Flag = True

    def __repr__(self):
        return {zeros: "zeros", ones: "ones"}.get(self) or super().__repr__()

    def check_values(self, shape, dtype):
        misfit = _misfit(self.value.array, dtype)
        if misfit.any():
            first = self.value.array[misfit][0]
            raise ValueError(
                f"value has {first}, which {dtype} cannot hold: choose another dtype, "
                "or convert the value first."
            )

    def entry_law(self, shape, dtype):
        return laws.Values(tuple(self.value.array.ravel().tolist()))

    def sample(self, key, shape, dtype):
        value = self.value.array if self.value.shape else self.value.array.item()
        return reference.constant(value)(key, shape, dtype)

    def check_shape(self, shape):
        own = self.value.shape
        if not self.broadcast and own != shape:
            raise ValueError(
                f"value has shape {own}, asked for is {shape}: with broadcast=False "
                "they must be equal."
            )
        fits = len(own) <= len(shape) and all(
            size in (1, wanted)
            for size, wanted in zip(reversed(own), reversed(shape), strict=False)
        )
        if not fits:
            raise ValueError(
                f"value of shape {own} does not broadcast to the shape {shape}."
            )


zeros = constant(0.0)
ones = constant(1.0)


@maker
def zeros_init() -> Initializer:
    """The initializer `zeros`, made by a call, as in Flax.

    >>> zeros_init()
    zeros
    """
    return zeros


@maker
def ones_init() -> Initializer:
    """The initializer `ones`, made by a call, as in Flax.

    >>> ones_init()
    ones
    """
    return ones


@dataclass(frozen=True, repr=False)
class normal(Initializer):
    """Normal law, not truncated: `mean + stddev * z`, or complex with `E|z|^2 = 1`.

    Args:
        stddev: standard deviation, zero or greater.
        dtype: default dtype, float or complex.
        mean: expected value.

    Raises:
        ValueError: if a setting is not finite, or `stddev` negative.

    >>> normal(0.02, mean=1.0).moments((64, 64)).std
    0.02
    """

    dtype_kinds: ClassVar[tuple[type, ...]] = (np.floating, np.complexfloating)

    stddev: NonNegative = 1e-2
    dtype: DType = None
    _: KW_ONLY
    mean: Finite = 0.0

    def entry_law(self, shape, dtype):
        is_complex = jnp.issubdtype(dtype, np.complexfloating)
        law = laws.ComplexNormal if is_complex else laws.Normal
        return law(self.stddev, self.mean)

    def sample(self, key, shape, dtype):
        centred = reference.normal(self.stddev)(key, shape, dtype)
        return centred + self.mean if self.mean else centred


def _optional_number(name: str, value: Any) -> float | None:
    return None if value is None else number(name, value)


OptionalNumber = Annotated[float | None, _optional_number]


@dataclass(frozen=True, repr=False)
class truncated_normal(Initializer):
    """Normal law of deviation `stddev`, cut to `lower < x / stddev < upper`.

    Cutting lowers the standard deviation: to 0.8796 `stddev` at two sigmas.

    Args:
        stddev: standard deviation before truncation, zero or greater.
        dtype: default dtype, float.
        lower: lower bound in units of `stddev`, may be infinite. The numbers are jax's,
            of which, beyond 5.3, one in 2**23 lies on the bound itself.
        upper: upper bound in units of `stddev`, may be infinite as well.
        corrected: whether to widen the law, bounds included, until `stddev` is the
            standard deviation after truncation, as in `variance_scaling`.
        mean: expected value before truncation; the bounds are relative to it.
        low: lower bound as a value, not in sigmas, as torch has it; needs `high`. May
            be infinite. Entries are `low <= x <= high`, however far from the mean and
            however near to each other these are; the numbers are not jax's.
        high: upper bound as a value; needs `low`.

    Raises:
        ValueError: if `stddev` is negative or not finite, `lower >= upper` or
            `low >= high`, only one of `low` and `high` is given, they are given with
            other bounds or with `corrected`, or with a `stddev` of zero; in a call, if
            no number of the dtype lies between `low` and `high`.

    >>> round(truncated_normal(1.0).moments((64, 64)).std, 4)
    0.8796
    >>> round(truncated_normal(1.0, corrected=True).moments((64, 64)).std, 4)
    1.0
    >>> truncated_normal(0.02, low=-2, high=2).moments((64, 64)).high  # torch's default
    2.0
    """

    stddev: NonNegative = 1e-2
    dtype: DType = None
    lower: Number = -2.0
    upper: Number = 2.0
    _: KW_ONLY
    corrected: Flag = False
    mean: Finite = 0.0
    low: OptionalNumber = None
    high: OptionalNumber = None

    def check_settings(self):
        if self.lower >= self.upper:
            raise ValueError(
                f"lower must be less than upper, got {self.lower} and {self.upper}."
            )
        if _checked_bounds(self.low, self.high) is None:
            return
        if (self.lower, self.upper, self.corrected) != (-2.0, 2.0, False):
            raise ValueError(
                f"low={self.low} and high={self.high} are the bounds: give them, or "
                "lower and upper or corrected, not both."
            )
        if not self.stddev:
            raise ValueError(
                "stddev must be positive where low and high are given, got 0.0."
            )

    def _between(self, dtype: np.dtype) -> laws.NormalBetween | None:
        """The law between `low` and `high`, its bounds numbers of the dtype."""
        if self.low is None or self.high is None:
            return None
        wide = dtype if dtype.itemsize >= 4 else np.dtype(np.float32)
        ends = numbers_between(self.low, self.high, wide)
        if ends is None or numbers_between(self.low, self.high, dtype) is None:
            raise ValueError(
                f"no number of dtype {dtype} lies between low={self.low} and "
                f"high={self.high}: give other bounds, or a wider dtype."
            )
        return laws.NormalBetween(self.stddev, self.mean, *ends)

    def _standard(self) -> laws.TruncatedNormal:
        """The law less `mean`, of bounds in sigmas."""
        law = laws.TruncatedNormal(1.0, self.lower, self.upper)
        widening = law.moments().std if self.corrected else 1.0
        return laws.TruncatedNormal(self.stddev / widening, self.lower, self.upper)

    def entry_law(self, shape, dtype):
        between = self._between(dtype)
        if between is not None:
            return between
        law = self._standard()
        return laws.Shifted(law, self.mean) if self.mean else law

    def _resolve(self, dtype):
        resolved = super()._resolve(dtype)
        self._between(resolved)  # raises if it is empty
        return resolved

    def sample(self, key, shape, dtype):
        between = self._between(dtype)
        if between is not None:
            return draw_between(key, shape, dtype, between)
        law = self._standard()
        draw = reference.truncated_normal(law.stddev, None, law.lower, law.upper)
        centred = draw(key, shape, dtype)
        return centred + self.mean if self.mean else centred


def _checked_bounds(low: float | None, high: float | None) -> tuple | None:
    if (low is None) != (high is None):
        raise ValueError(
            f"low and high go together, got low={low}, high={high}. Those of "
            "truncated_normal may be infinite."
        )
    if low is None or high is None:
        return None
    if low >= high:
        raise ValueError(f"low must be less than high, got {low} and {high}.")
    return low, high


@dataclass(frozen=True, repr=False)
class uniform(Initializer):
    """Uniform law on `[0, scale)`, or on `[low, high)` where these are given.

    Args:
        scale: upper bound, zero or greater.
        dtype: default dtype, float.
        low: lower bound; needs `high`.
        high: upper bound; needs `low`.

    Raises:
        ValueError: if a bound is not finite, `scale` is negative, `low >= high`, only
            one of them is given, or `scale` is given with them.

    >>> uniform(low=-0.1, high=0.1).moments((64, 64)).mean
    0.0
    """

    scale: NonNegative = 1e-2
    dtype: DType = None
    _: KW_ONLY
    low: OptionalFinite = None
    high: OptionalFinite = None

    def check_settings(self):
        bounded = _checked_bounds(self.low, self.high) is not None
        if bounded and self.scale != type(self).scale:
            raise ValueError(
                f"scale={self.scale} is the upper bound of [0, scale): give it, or "
                "low and high, not both."
            )

    def entry_law(self, shape, dtype):
        if self.low is None or self.high is None:
            return laws.Uniform(0.0, self.scale)
        return laws.Uniform(self.low, self.high)

    def sample(self, key, shape, dtype):
        if self.low is None or self.high is None:
            return reference.uniform(self.scale)(key, shape, dtype)
        return jax.random.uniform(key, shape, dtype, self.low, self.high)
