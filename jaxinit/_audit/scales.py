"""Scales that no common law has.

A kernel whose scale follows from no fan, and is no plain number, was drawn in another
way than is known here, or trained. That is worth a note where it is close to a known
law, or so far from `1 / fan_in` that its outputs vanish or blow up.
"""

import functools
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from jaxinit._audit.kernels import kernel_use, only_use, own_fans, size_of
from jaxinit._audit.naming import Named
from jaxinit._audit.result import Finding
from jaxinit._roles.role import Use
from jaxinit.initializers.basic import uniform
from jaxinit.initializers.fans import Fans

_FAR = (0.05, 20.0)  # variance of outputs that is still a scale
_FAR_UNKNOWN = (1e-6, 200.0)  # the same where it is not known what a leaf is for
_LARGE = 2.0  # deviation of entries that even embeddings lack
_NEAR = (0.01, 0.1)  # relative distance of a deviation that is a few percent off
_ERRORS = 8.0  # standard errors

# Gains of functions: linear, ReLU, torch's layers, tanh by rule of thumb and by its
# moments (forward and backward), SELU, GELU, SiLU, ELU, and roots of small fractions.
_GAINS = (
    *(1.0, math.sqrt(2), math.sqrt(1 / 3), 5 / 3, 1.592537, 1.467361, 3 / 4),
    *(1.533530, 1.676532, 1.245209, 0.5, math.sqrt(0.5), math.sqrt(0.4), 0.879626),
    *(math.sqrt(2 / (1 + a * a)) for a in (0.01, 0.02, 0.05, 0.1, 0.2, 0.25, 0.3)),
)
_NUMBERS = (0.02, 0.01, 0.006)  # deviations that depth divides


class _Known(NamedTuple):
    name: str
    std: float


def findings_of_scales(groups: Sequence[Named]) -> Iterator[Finding]:
    """Kernels of an unknown scale that is far from one over the fan, or near a law."""
    for group in groups:
        if group.law is not None and not group.is_fitted:
            continue
        if not group.std > 0 or not math.isfinite(group.std):
            continue
        if getattr(group.law, "mean", 0):
            continue  # entries about another number than zero are no kernel
        if group.role is None and len(group.shape) != 2:
            continue
        use = kernel_use(group.role)
        if group.role is not None and (use is None or only_use(group.role) is None):
            continue
        finding = _far(group, use) or _near(group, use)
        if finding is not None:
            yield finding


def _far(group: Named, use: Use | None) -> Finding | None:
    if use is None:
        return _far_unknown(group)
    variance = group.std**2 * use.multiplier**2 * use.fan_in
    ratios = [variance]
    if use.variance:
        ratios.append(group.std**2 / use.variance)
    low, high = _FAR
    small = max(ratios) < low and not (use.residual or use.branch or use.head)
    if not small and min(ratios) <= high:
        return None
    text = (
        f"{_of_no_law(group)}with {use.fan_in:g} inputs of variance one, outputs have "
        f"the variance {variance:.2g}. Was it trained? If not, draw it by a law of its "
        "fan."
    )
    return Finding("scale", (group.path,), "note", text)


def _far_unknown(group: Named) -> Finding | None:
    """Whichever axis is that of the inputs, and even if it is an embedding."""
    low, high = _FAR_UNKNOWN
    small = group.std**2 * max(group.shape) < low
    large = group.std**2 * min(group.shape) > high and group.std > _LARGE
    if not small and not large:
        return None
    text = (
        f"{_of_no_law(group)}for a kernel of {group.shape[0]} and {group.shape[1]} "
        f"inputs and outputs, that is far too {'small' if small else 'large'}. Was it "
        "trained?"
    )
    return Finding("scale", (group.path,), "note", text)


def _of_no_law(group: Named) -> str:
    deviation = f"entries have a deviation of {group.std:.3g}"
    return f"{deviation}, which is that of no common law: "


def _near(group: Named, use: Use | None) -> Finding | None:
    """A deviation that is a few percent off that of a common law."""
    fans = _fans(group, use)
    known = [x for each in fans for x in _known(each)]
    nearest = min(known, key=lambda x: abs(math.log(group.std / x.std)))
    off = group.std / nearest.std - 1
    errors = abs(off) * math.sqrt(2 * size_of(group))
    low, high = _NEAR
    if not low < abs(off) < high or errors < _ERRORS or _is_meant(group, fans):
        return None
    side = "above" if off > 0 else "below"
    text = (
        f"entries have a deviation {100 * abs(off):.1f} % {side} that of "
        f"{nearest.name}, {errors:.0f} standard errors: drawn in another way, or "
        "trained."
    )
    return Finding("scale", (group.path,), "note", text)


def _fans(group: Named, use: Use | None) -> list[Fans]:
    if use is not None:
        return [own_fans(use, group.shape)]
    a, b = group.shape
    return [Fans(a, b), Fans(b, a)]


def _known(fans: Fans) -> Iterator[_Known]:
    fan_in, fan_out = fans
    yield _Known(f"lecun_normal() of fan {fan_in:g}", fan_in**-0.5)
    yield _Known(f"he_normal() of fan {fan_in:g}", math.sqrt(2 / fan_in))
    yield _Known(f"torch's layers of fan {fan_in:g}", math.sqrt(1 / 3 / fan_in))
    yield _Known(
        f"glorot_normal() of fans {fan_in:g} and {fan_out:g}",
        math.sqrt(2 / (fan_in + fan_out)),
    )


def _is_meant(group: Named, fans: Sequence[Fans]) -> bool:
    """Whether some rule of a paper gives the deviation."""
    roots = {n**-0.5 for a, b in fans for n in (a, b, (a + b) / 2) if n}
    wanted = np.array([root * x for root in roots for x in _factors()])
    near = wanted[np.abs(np.log(group.std / wanted)) < 0.1]
    return _has_a_depth(group) or any(_fits_closely(group, x) for x in near)


def _has_a_depth(group: Named) -> bool:
    """Whether it is a plain number over the root of a number of layers."""
    for number in _NUMBERS:
        depth = round((number / group.std) ** 2)
        if 1 <= depth <= 400 and _fits_closely(group, number / math.sqrt(depth)):
            return True
    return False


def _fits_closely(group: Named, std: float) -> bool:
    """Whether a deviation is that of the entries, within six standard errors."""
    return abs(group.std / std - 1) < 6 * max(_error(group), 1e-4)


def _error(group: Named) -> float:
    """Standard error of the deviation, relative: less for a law of thin tails."""
    kurtosis = 9 / 5 if isinstance(group.law, uniform) else 3
    return math.sqrt((kurtosis - 1) / (4 * size_of(group)))


@functools.cache
def _factors() -> tuple[float, ...]:
    """Gains, and what DeepNorm, T-Fixup, Sub-LN and others multiply deviations by."""
    depths = range(1, 101)
    return (
        *_GAINS,
        *((k * n) ** -0.25 for k in (2, 8, 9, 12) for n in depths),
        *(0.67 * n**-0.25 for n in depths),
        *(0.87 * (n**4 * n) ** (-1 / 16) for n in depths),
        *(math.sqrt(math.log(2 * n)) for n in depths),
        *(math.sqrt(math.log(3 * n) * math.log(2 * n) / 3) for n in depths),
        *(gain / math.sqrt(n) for gain in (1.0, math.sqrt(2)) for n in range(1, 201)),
    )
