"""What a kernel's scale is, beside what its computation would have it be.

A law of fans has the variance `scale / n`, where `n` is a fan or an average of both.
Whether entries have some variance is a matter of chance: of 1e6 normal entries of
variance 1.002 times that of a law, nobody can say that they are not of it; with 1.02
times, they are not. `fits` says so with an error of 1e-14, and so each finding that
asks it stays below 1e-9 for a whole tree.
"""

import math
from collections.abc import Collection, Iterable, Iterator
from typing import NamedTuple

from jaxinit._audit.naming import Named
from jaxinit._audit.result import Finding
from jaxinit._roles.role import Role, Use
from jaxinit.initializers.fans import Fans, as_tuple
from jaxinit.initializers.orthogonal_matrices import orthogonal
from jaxinit.initializers.scaling import denominator, variance_scaling

_SURE = -math.log(1e-14)
_SLACK = 0.02  # by which rounding and tables of constants may change a variance


class Scaling(NamedTuple):
    """A law of variance `scale / n`.

    Attributes:
        init: the law.
        scale: its scale.
        n: what that is divided by, in the shape of the leaves.
    """

    init: variance_scaling
    scale: float
    n: float


def scaling_of(group: Named) -> Scaling | None:
    """The law of the group, if it is sure and one of fans, with no factor besides."""
    law = group.law
    if not group.sure or not isinstance(law, variance_scaling) or not law.scale:
        return None
    return Scaling(law, law.scale, n_of(law, law.fans(group.shape)))


def common_scales(group: Named) -> tuple[float, ...]:
    """Scales of LeCun and Glorot, of He and, for uniform laws, of torch."""
    law = group.law
    is_uniform = isinstance(law, variance_scaling) and law.distribution == "uniform"
    return (1.0, 2.0, 1 / 3) if is_uniform else (1.0, 2.0)


def n_of(init: variance_scaling, fans: Fans) -> float:
    """What the scale of a law is divided by, of these fans."""
    return denominator(init.mode, fans)


def counts(
    init: variance_scaling | orthogonal, axes: Collection[int], shape: tuple[int, ...]
) -> bool:
    """Whether a law takes axes of independent kernels for those of one."""
    own = {axis % len(shape) for axis in as_tuple(init.batch_axis)}
    return bool({axis for axis in axes if shape[axis] > 1} - own)


def size_of(group: Named) -> int:
    """Number of entries of all leaves."""
    return math.prod(group.shape) * len(group.leaves)


def fits(group: Named, variance: float) -> bool:
    """Whether the entries may have a law of this variance."""
    return may_have(group.std**2 / variance, size_of(group))


def may_have(ratio: float, size: int) -> bool:
    """Whether so many entries may have this ratio of their second moment to the law's.

    Cramer's bound for normal entries: the probability of a ratio that is as far from 1
    is at most `2 exp(-size / 2 (ratio - 1 - log(ratio)))`. That of bounded entries,
    and of orthogonal matrices, is less.
    """
    if not ratio > 0 or math.isinf(ratio):
        return math.isnan(ratio)
    far = size / 2 * (ratio - 1 - math.log(ratio))
    return abs(ratio - 1) < _SLACK or far < _SURE


def own_fans(use: Use, shape: tuple[int, ...]) -> Fans:
    """The fans of one kernel: those of its axes, without strides."""
    window = math.prod(shape[axis] for axis in use.spatial_axis)
    fan_in = math.prod(shape[axis] for axis in use.in_axis) * window
    fan_out = math.prod(shape[axis] for axis in use.out_axis) * window
    return Fans(float(fan_in), fan_out / use.groups)


def right_fans(use: Use, shape: tuple[int, ...]) -> Iterator[Fans]:
    """Fans that a law may be of: those of the axes, and those of the computation."""
    yield own_fans(use, shape)
    yield Fans(float(use.fan_in), float(use.fan_out))


def kernel_use(role: Role | None) -> Use | None:
    """The first use of a leaf in a contraction with known axes; None without one."""
    uses = kernels_of(role)
    return next((use for use in uses if use.fan_in and use.fan_out), None)


def kernels_of(role: Role | None) -> tuple[Use, ...]:
    """The uses of a leaf in contractions."""
    return () if role is None else role.kernels


def only_use(role: Role | None) -> Use | None:
    """The one use of a leaf; None if it has none, or several."""
    uses = () if role is None else role.uses
    return uses[0] if len(uses) == 1 else None


def severity_of(ratio: float) -> str:
    """A variance up to two times off may be meant."""
    return "note" if 0.499 < ratio < 2.001 else "warning"


def times(ratio: float) -> str:
    """A ratio in words."""
    if ratio < 0.4 and abs(1 / ratio - round(1 / ratio)) < 1e-6:
        return f"1/{round(1 / ratio)} of the variance"
    return f"{ratio:.3g} times the variance"


def merged(findings: Iterable[Finding]) -> list[Finding]:
    """Findings of the same text as one, of all their paths."""
    paths: dict[tuple[str, str, str], dict[str, None]] = {}
    for x in findings:
        own = paths.setdefault((x.kind, x.severity, x.text), {})
        own.update(dict.fromkeys(x.paths))
    return [
        Finding(kind, tuple(own), severity, text)
        for (kind, severity, text), own in paths.items()
    ]
