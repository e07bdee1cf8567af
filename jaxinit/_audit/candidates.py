"""The initializers that may have drawn a leaf, and how likely each is beforehand.

A candidate is an initializer of this package with all its settings, so its law in a
given shape has no free number. Its weight says how common it is among models, before
their entries are seen: `he_normal()` is a habit, `variance_scaling(0.4, "fan_geo_avg",
"uniform")` hardly. For `f32[512,256]` there are, among others

    he_normal()                      weight 0.1     deviation sqrt(2 / 512)
    he_normal(in_axis=-1, out_axis=-2)    0.002     sqrt(2 / 256): the axes exchanged
    normal(stddev=0.02)              weight 0.1     0.02

Weights only decide between laws that the entries cannot tell apart.
"""

import functools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

import jaxinit.laws as laws
from jaxinit.initializers import normal, scaled, truncated_normal, uniform
from jaxinit.initializers import variance_scaling as scaling
from jaxinit.initializers.base import Initializer
from jaxinit.initializers.fans import fans
from jaxinit.initializers.scaling import denominator
from jaxinit.laws import Law

# Laws of a fan, with how common they are: scale, mode, distribution.
_COMMON = {
    (1.0, "fan_in", "truncated_normal"): 1.0,  # Flax, LeCun
    (1.0, "fan_in", "uniform"): 0.2,
    (1.0, "fan_in", "normal"): 0.3,
    (2.0, "fan_in", "truncated_normal"): 0.7,  # He
    (2.0, "fan_in", "uniform"): 0.4,
    (2.0, "fan_in", "normal"): 0.7,
    (2.0, "fan_out", "normal"): 0.4,  # He, as in ResNet
    (2.0, "fan_out", "truncated_normal"): 0.1,
    (1.0, "fan_avg", "uniform"): 1.0,  # Glorot
    (1.0, "fan_avg", "truncated_normal"): 0.4,
    (1.0, "fan_avg", "normal"): 0.4,
    (1 / 3, "fan_in", "uniform"): 1.0,  # torch, Equinox
    (1 / 3, "fan_out", "uniform"): 0.02,
}
_MODES = {"fan_in": 0.5, "fan_out": 0.1, "fan_avg": 0.2, "fan_geo_avg": 0.05}
_DISTRIBUTIONS = {"normal": 0.4, "truncated_normal": 0.4, "uniform": 0.4}
_SCALES = {
    **dict.fromkeys((1.0, 2.0, 1 / 3, 0.5, 1 / 9), 0.05),
    **dict.fromkeys((3.0, 4.0, 0.25, 0.1, 0.01, 6.0), 0.01),
    25 / 9: 0.02,  # tanh
    9 / 16: 0.02,  # SELU
    2 / 1.04: 0.01,  # leaky ReLU
    0.4: 0.01,
}
_RARE = 0.002  # a law of a fan that is not common, before its scale
_NUMBERS = {0.02: 1.0, 0.01: 0.4, 1.0: 0.3, 0.05: 0.2, 0.1: 0.1, 0.001: 0.1, 0.5: 0.02}
_LAYOUT = {"usual": 1.0, "role": 3.0, "heads": 0.5, "stack": 0.3, "exchanged": 0.03}


Factors = tuple[tuple[float, float], ...]  # of depth, and how common each is


class Layout(NamedTuple):
    """Axes that a fan may be taken over.

    Attributes:
        kind: how the axes are read, a key of the weights.
        axes: the axis arguments of an initializer.
    """

    kind: str
    axes: tuple[tuple[str, int | tuple[int, ...]], ...]


class Row(NamedTuple):
    """A law as numbers, so that likelihoods are those of all candidates at once.

    It is normal about `mean` with deviation `std`, between `low` and `high`, where the
    normal has the probability `exp(log_mass)`. A uniform law has an infinite `std`, and
    `log_mass` is the logarithm of its width.
    """

    mean: float
    std: float
    low: float
    high: float
    log_mass: float

    def times(self, factor: float) -> "Row":
        """The law of a positive multiple."""
        mass = self.log_mass + (math.log(factor) if math.isinf(self.std) else 0.0)
        mean, std, low, high = (factor * x for x in self[:4])
        return Row(mean, std, low, high, mass)


class Candidate(NamedTuple):
    """An initializer that may have drawn a leaf.

    Attributes:
        make: gives the initializer; most are never made.
        family: what it is called in every shape, so that leaves vote for one scheme.
        weight: how common it is, not normalised.
        share: how common this reading of the axes is in its family.
        row: its law in the shape.
        deep: how common it is, of what depth scales, to scale it.
    """

    make: Callable[[], Initializer]
    family: str
    weight: float
    share: float
    row: Row
    deep: float = 0.0


def layouts(shape: Sequence[int]) -> Iterator[Layout]:
    """The ways in which frameworks lay out the axes of a kernel of that shape."""
    n = len(shape)
    if n < 2:
        return
    yield Layout("usual", ())
    if n == 2:
        yield Layout("exchanged", (("in_axis", -1), ("out_axis", -2)))
        return
    yield Layout("exchanged", (("in_axis", 1), ("out_axis", 0)))
    yield Layout("exchanged", (("in_axis", -1), ("out_axis", -2)))
    if n == 3:
        yield Layout("heads", (("in_axis", 0), ("out_axis", (1, 2))))
        yield Layout("heads", (("in_axis", (0, 1)), ("out_axis", 2)))
    stack = ("batch_axis", 0)
    yield Layout("stack", (stack,))
    yield Layout("stack", (("in_axis", -1), ("out_axis", -2), stack))
    if n == 4:
        yield Layout("stack", (("in_axis", 1), ("out_axis", (2, 3)), stack))
        yield Layout("stack", (("in_axis", (1, 2)), ("out_axis", 3), stack))


def by_depth(candidates: Iterable[Candidate], factors: Factors) -> Iterator[Candidate]:
    """Those of the candidates that depth may scale, times each of the factors."""
    for x in candidates:
        if not x.deep:
            continue
        for factor, often in factors:
            yield Candidate(
                functools.partial(_scaled, x.make, factor),
                f"{x.family} {factor:.6g}",
                x.deep * often * x.weight,
                x.share,
                x.row.times(factor),
            )


def of_fans(
    shape: tuple[int, ...], dtype: np.dtype, known: Layout | None
) -> list[Candidate]:
    """Variance scaling over every layout; `known` is the one that a role tells."""
    if len(shape) < 2 and known is None:
        return []
    found: list[Candidate] = []
    for layout in (*([known] if known else ()), *layouts(shape)):
        found += _of_layout(shape, str(dtype), layout)
    return found


@functools.lru_cache(4096)
def _of_layout(shape: tuple[int, ...], dtype: str, layout: Layout) -> list[Candidate]:
    axes, share = dict(layout.axes), _LAYOUT[layout.kind]
    sizes = fans(shape, **axes)
    if not sizes.fan_in or not sizes.fan_out:
        return []
    is_complex = jnp.dtype(dtype).kind == "c"
    parts = 2 if is_complex else 1  # of an entry, which share its variance
    found = list(_of_one_fan(shape, layout, sizes.fan_in)) if not is_complex else []
    for (scale, mode, name), (weight, row) in _settings().items():
        if is_complex and name != "normal":
            continue  # whose real and imaginary parts depend on each other
        make = functools.partial(scaling, scale, mode, name, **axes)
        law = row.times(1 / math.sqrt(parts * denominator(mode, sizes)))
        family = f"{scale:.6g} {mode} {name}"
        deep = 0.03 if weight >= 0.1 and layout.kind != "exchanged" else 0.0
        found.append(Candidate(make, family, weight * share, share, law, deep))
    return found


def _of_one_fan(
    shape: tuple[int, ...], layout: Layout, fan_in: float
) -> Iterator[Candidate]:
    """Laws of `1 / fan_in` that are no variance scaling, or that have another share."""
    share, std = _LAYOUT[layout.kind], 1 / math.sqrt(fan_in)
    if len(shape) == 2 and layout.kind == "exchanged":
        table = functools.partial(scaling, 1.0, "fan_in", "normal", **dict(layout.axes))
        yield Candidate(table, "table", 0.2, 1.0, _NORMAL.times(std))  # Flax's Embed
    haiku = functools.partial(truncated_normal, std)
    yield Candidate(haiku, "haiku", 0.4 * share, share, _TRUNCATED.times(std))


def _scaled(make: Callable[[], Initializer], factor: float) -> Initializer:
    return scaled(make(), factor)


Setting = tuple[float, Any, Any]


@functools.cache
def _settings() -> dict[Setting, tuple[float, Row]]:
    """Settings of variance scaling, each with its weight, and its law for fans of 1."""
    rare: dict[Any, float] = {
        (scale, mode, name): _RARE * weight * by_mode * by_name / 0.05
        for scale, weight in _SCALES.items()
        for mode, by_mode in _MODES.items()
        for name, by_name in _DISTRIBUTIONS.items()
    }
    return {
        setting: (weight, as_row(scaling(*setting).entry_law((1, 1), _FLOAT)))
        for setting, weight in {**rare, **_COMMON}.items()
    }


@functools.lru_cache(4096)
def of_numbers(
    dtype: str, sizes: tuple[tuple[int, float], ...], near: tuple[int, ...]
) -> list[Candidate]:
    """Laws of a deviation that follows from no fan of the leaf.

    Args:
        dtype: name of the dtype.
        sizes: fans of other leaves of the model: an embedding may be drawn by the
            width of the model.
        near: fans of the kernels beside the leaf, by which its bias may be drawn.
    """
    found = [(init, repr(init), weight, deep) for init, weight, deep in _plain()]
    for size, often in sizes:
        for init, weight, deep in _of_width(1 / math.sqrt(size)):
            found.append((init, repr(init), often * weight, deep))
    for size in near:
        std = 1 / math.sqrt(size)
        found.append((uniform(low=-std, high=std), "of its kernel", 1.0, 0.0))
        found.append((truncated_normal(std), "haiku", 0.1, 0.0))
    kind = jnp.dtype(dtype)
    return [
        Candidate(
            functools.partial(_itself, init),
            family,
            weight,
            1.0,
            as_row(init.entry_law((1,), kind)),
            deep,
        )
        for init, family, weight, deep in found
        if isinstance(init, normal) or kind.kind != "c"
    ]


def _itself(init: Initializer) -> Initializer:
    return init


def _plain() -> Iterator[tuple[Initializer, float, float]]:
    """Laws of a number that people write, with their weights."""
    for number, weight in _numbers().items():
        deep = 1.0 if weight >= 0.1 else 0.0
        yield normal(number), weight, 0.05 * deep
        yield truncated_normal(number), weight, 0.02 * deep
        yield truncated_normal(number, low=-2.0, high=2.0), 0.02 * weight, 0.5 * deep
        yield truncated_normal(number, corrected=True), 0.1 * weight, 0.0
        yield uniform(low=-number, high=number), 0.3 * weight, 0.0
        yield uniform(number), 0.1 * weight, 0.0
    yield normal(0.02, mean=1.0), 0.1, 0.0
    yield normal(0.01, mean=1.0), 0.01, 0.0


def _of_width(std: float) -> Iterator[tuple[Initializer, float, float]]:
    """Laws of one over the root of a size, with their weights."""
    yield uniform(low=-std, high=std), 0.3, 0.0
    yield normal(std), 0.3, 0.0
    yield truncated_normal(std), 0.2, 0.0
    yield normal(math.sqrt(0.4) * std), 0.1, 0.0  # Nguyen and Salazar, "SmallInit"
    yield truncated_normal(std, lower=-3.0, upper=3.0), 0.03, 0.06  # OLMo


@functools.cache
def _numbers() -> dict[float, float]:
    ones = {
        float(f"{digit}e{power}"): 0.003
        for digit in range(1, 10)
        for power in (-3, -2, -1, 0)
    }
    return ones | _NUMBERS


def as_row(law: Law) -> Row:
    """A law as numbers."""
    match law:
        case laws.Scaled(law=inner, factor=factor):
            return as_row(inner).times(factor)
        case laws.ComplexNormal(stddev=std, mean=mean):  # of a real or imaginary part
            return Row(mean, std / math.sqrt(2), -math.inf, math.inf, 0.0)
        case laws.Normal(stddev=std, mean=mean):
            return Row(mean, std, -math.inf, math.inf, 0.0)
        case laws.Uniform(low=low, high=high):
            return Row(0.0, math.inf, low, high, math.log(high - low))
        case laws.TruncatedNormal(stddev=std, lower=lower, upper=upper):
            mass = _log_mass(lower, upper)
            return Row(0.0, std, lower * std, upper * std, mass)
        case laws.NormalBetween(stddev=std, mean=mean, low=low, high=high):
            mass = _log_mass((low - mean) / std, (high - mean) / std)
            return Row(mean, std, low, high, mass)
        case _:
            raise TypeError(f"{law!r} has no density here.")


def _log_mass(low: float, high: float) -> float:
    def below(z):
        return 0.5 * math.erfc(-z / math.sqrt(2))

    return math.log(below(high) - below(low))


_FLOAT = np.dtype(np.float32)
_NORMAL = as_row(normal(1.0).entry_law((1,), _FLOAT))
_TRUNCATED = as_row(truncated_normal(1.0).entry_law((1,), _FLOAT))
