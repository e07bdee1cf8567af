"""Initializers and laws, in every dtype and in awkward shapes, against those of jax.

Of float32 and wider dtypes, the reference is `jax.jit` of jax's own function, a program
for each draw. Narrower ones are promised to be the float32 draw, rounded once; so the
reference is that of float32, rounded on the host by NumPy.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.nn import initializers as of_jax

import jaxinit.initializers as own
from jaxinit._check.comparing import Outcome, compared, row
from jaxinit._check.result import CheckRow
from jaxinit._compile.jit import jit

Shape = tuple[int, ...]
# Empty, single, odd and prime numbers of entries, last axes that XLA may unroll, more
# entries than a block of threads or a tile of a core has, three axes.
MATRICES = ((1, 1), (33, 17), (6, 3), (5, 4), (3, 5), (4, 5, 17), (513, 257))
EMPTY = (0, 3)  # where a fan is zero, not every jax draws
ARRAYS = ((), (1,), (7,), (1009,), EMPTY, *MATRICES)
KERNELS = ((1, 5, 7), (3, 4, 6), (2, 3, 3, 5))
WIDE = ("float32", "float64", "complex64", "complex128")
NARROW = ("bfloat16", "float16", "float8_e3m4", "float8_e4m3", "float8_e4m3fn")
NARROW += ("float8_e4m3fnuz", "float8_e4m3b11fnuz", "float8_e5m2", "float8_e5m2fnuz")
NARROW += ("float4_e2m1fn",)
_COMMON = ("float32", "bfloat16", "float16")  # drawn in all shapes of a law
_QUICK = _COMMON[:2]
_QUICK_PAIRS = ("normal()", "uniform()", "truncated_normal()", "he_normal()")
_QUICK_PAIRS += ("orthogonal(scale=1.7)", "constant(2.5)")


@dataclass(frozen=True)
class Pair:
    """An initializer, that of jax, and the shapes to draw.

    Attributes:
        ours: initializer of this package.
        theirs: that of jax.
        shapes: the shapes.
        is_law: whether it is the bare law, drawn in more dtypes than one that scales.
    """

    ours: Any
    theirs: Any
    shapes: Sequence[Shape]
    is_law: bool = False


def _pair(name: str, *args: Any, shapes: Any = MATRICES, is_law=False) -> Pair:
    ours = getattr(own, name)(*args)
    return Pair(ours, getattr(of_jax, name)(*args), shapes, is_law)


def _pairs() -> dict[str, Pair]:
    laws = ("normal", "uniform", "truncated_normal")
    pairs = [_pair(name, shapes=ARRAYS, is_law=True) for name in laws]
    pairs += [
        _pair("truncated_normal", 0.3, None, -0.5, 3.0),
        *(
            _pair(f"{paper}_{law}")
            for paper in ("lecun", "glorot", "he")
            for law in laws[:2]
        ),
        _pair("variance_scaling", 1.3, "fan_avg", "truncated_normal"),
        _pair("variance_scaling", 0.7, "fan_geo_avg", "normal"),
        _pair("variance_scaling", 2.0, "fan_out", "uniform"),
        _pair("orthogonal", 1.7, shapes=(EMPTY, *MATRICES)),
        _pair("delta_orthogonal", 1.7, shapes=KERNELS),
        _pair("constant", 2.5, shapes=ARRAYS),
        Pair(own.zeros, of_jax.zeros, ARRAYS),
        Pair(own.ones, of_jax.ones, ARRAYS),
    ]
    return {repr(pair.ours): pair for pair in pairs}


PAIRS = _pairs()


@dataclass(frozen=True)
class Draws:
    """How draws are checked.

    Attributes:
        key: the key that all are drawn with, on the device that is checked.
        device: that device.
        narrow: names of the narrow dtypes that it can round to.
        is_quick: whether a sample of the cases is enough.
    """

    key: Any
    device: Any
    narrow: Sequence[str]
    is_quick: bool

    def initializers(self, pairs: Mapping[str, Pair]) -> Iterator[CheckRow]:
        """A row for each initializer, called as it stands."""
        sample = [x for x in pairs if x in _QUICK_PAIRS] if self.is_quick else pairs
        for name in sample:
            pair = pairs[name]
            chosen = self._chosen(pair)
            groups = [partial(self._initializer, pair, *each) for each in chosen]
            yield row("initializers", name, groups)

    def laws(self) -> Iterator[CheckRow]:
        """A row for each law of `jax.random`, drawn by `jaxinit.jit` and `jax.jit`."""
        for name, law in LAWS.items():
            shapes = ARRAYS[2:3] if self.is_quick else ARRAYS[::2]
            groups = [partial(self._law, law, shape) for shape in shapes]
            yield row("laws", name, groups)

    def _chosen(self, pair: Pair) -> list[tuple[Shape, list[str]]]:
        """The shapes, each with the dtypes to draw.

        float32 is drawn in all shapes, and so are 16 bits of a law. Other dtypes take
        turns, so that every one is drawn in some shape, and every shape in some. What
        is empty has all dtypes, as nothing has to be compiled for it.
        """
        if self.is_quick:
            middle = pair.shapes[len(pair.shapes) // 2]
            return [(middle, [*_QUICK])]
        full = _COMMON if pair.is_law else _COMMON[:1]
        dtypes = [*WIDE, *self.narrow]
        others = [name for name in dtypes if name not in full]
        filled = [shape for shape in pair.shapes if 0 not in shape]
        every = 3 if pair.is_law else len(filled)
        chosen = {
            shape: [*full, *others[-i % every :: every]]
            for i, shape in enumerate(filled)
        }
        return [(shape, chosen.get(shape, dtypes)) for shape in pair.shapes]

    def _initializer(
        self, pair: Pair, shape: Shape, dtypes: Sequence[str]
    ) -> Iterator[Outcome]:
        theirs, wide = jax.jit(pair.theirs, static_argnums=(1, 2)), None
        for name in dtypes:
            dtype = np.dtype(name)
            with self._setting(name):
                if name in WIDE:
                    wanted = partial(theirs, self.key, shape, dtype)
                else:
                    if wide is None:
                        wide = _or_none(partial(theirs, self.key, shape, np.float32))
                    wanted = partial(_rounded_once, wide, dtype)
                drawn = partial(pair.ours, self.key, shape, dtype)
                yield compared(f"{name} {shape}", drawn, wanted)

    def _law(self, law: Callable[..., Any], shape: Shape) -> Iterator[Outcome]:
        names = _QUICK if self.is_quick else ("complex64", "float64", *_COMMON)
        for name in names:
            draw = partial(law, shape=shape, dtype=np.dtype(name))
            ours, theirs = (partial(make(draw), self.key) for make in (jit, jax.jit))
            with self._setting(name):
                yield compared(f"{name} {shape}", ours, theirs)

    @contextlib.contextmanager
    def _setting(self, dtype: str) -> Iterator[None]:
        """What a thread needs to draw a dtype on the device."""
        is_double = dtype in ("float64", "complex128")
        with jax.default_device(self.device), jax.enable_x64(is_double):
            yield


def _normal(key, shape, dtype):
    return jax.random.normal(key, shape, dtype)


def _uniform(key, shape, dtype):
    return jax.random.uniform(key, shape, dtype, -1.0)


def _truncated_normal(key, shape, dtype):
    return jax.random.truncated_normal(key, -2.0, 2.0, shape, dtype)


LAWS = {
    "jax.random.normal": _normal,
    "jax.random.uniform": _uniform,
    "jax.random.truncated_normal": _truncated_normal,
}


def narrow_dtypes(device: Any) -> list[str]:
    """The names of narrow dtypes that the device can round to."""
    x = jax.device_put(np.float32(1.5), device)

    rounded = jax.jit(lambda x, dtype: x.astype(dtype), static_argnums=1)
    made = {name: _or_none(partial(rounded, x, np.dtype(name))) for name in NARROW}
    return [name for name, array in made.items() if array is not None]


def _or_none(make: Callable[[], Any]) -> Any:
    """What a call returns; None if jax refuses it."""
    try:
        return np.asarray(make())
    except Exception:
        return None


def _rounded_once(wide: Any, dtype: np.dtype) -> np.ndarray:
    """A float32 array, clipped to the range of a dtype and rounded to nearest."""
    if wide is None:
        raise ValueError("jax draws no float32 array of this shape.")
    limits = jnp.finfo(dtype)
    return np.clip(wide, float(limits.min), float(limits.max)).astype(dtype)
