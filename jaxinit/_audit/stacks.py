"""Several kernels in one array that were drawn as one: of layers, and side by side.

What `flax.linen.scan` makes of 12 layers is one kernel, `f32[12,768,3072]`. Drawn by
`lecun_normal()`, which takes the first axis for a window, it has the variance
`1 / (12 * 768)`; with `batch_axis=0` it would have `1 / 768`.
"""

import math
from collections.abc import Iterator, Sequence

from jaxinit._audit.fan_axes import arguments, has_right_fans
from jaxinit._audit.kernels import (
    common_scales,
    counts,
    fits,
    kernel_use,
    n_of,
    own_fans,
    scaling_of,
    severity_of,
    times,
)
from jaxinit._audit.leaves import parent
from jaxinit._audit.naming import Named
from jaxinit._audit.result import Finding
from jaxinit._roles.role import Section, Use
from jaxinit.initializers.fans import Fans
from jaxinit.initializers.orthogonal_matrices import orthogonal
from jaxinit.initializers.scaling import variance_scaling


def findings_of_stacked(groups: Sequence[Named]) -> Iterator[Finding]:
    """Kernels of stacked layers whose law counts the layers."""
    for group in groups:
        use = kernel_use(group.role)
        if group.role is None:
            axes = (0,) if _is_stack(group, groups) else ()
        else:
            axes = use.stack_axis if use is not None else ()
        axes = tuple(axis for axis in axes if group.shape[axis] > 1)
        if axes:
            yield from _of_stack(group, use, axes)


def _of_stack(
    group: Named, use: Use | None, axes: tuple[int, ...]
) -> Iterator[Finding]:
    if not group.sure or not _counts(group, axes):
        return
    if use is not None:
        fans, how = own_fans(use, group.shape), arguments(use)
        ratio = _ratio(group, fans)
        is_right = has_right_fans(group)
    else:
        rest = group.shape[1:]
        window = math.prod(rest[:-2])
        fans, how = Fans(rest[-2] * window, rest[-1] * window), "batch_axis=0"
        ratio = _ratio(group, fans)
        ns = (*fans, sum(fans) / 2)
        is_right = any(fits(group, c / n) for c in common_scales(group) for n in ns)
    if ratio is None or is_right or 0.9 < ratio < 1.1:
        return
    layers = math.prod(group.shape[axis] for axis in axes)
    what = f"axis {axes[0]}" if len(axes) == 1 else f"axes {axes}"
    text = (
        f"the scale is that of {group.law!r}, which counts the {layers} stacked layers "
        f"along {what} as if they were summed: each layer gives {times(ratio)} that is "
        f"meant. Draw it with {how}, or with jaxinit.stacked(...)."
    )
    yield Finding("stacked", (group.path,), severity_of(ratio), text)


def _counts(group: Named, axes: tuple[int, ...]) -> bool:
    """Whether the law of a group counts these axes."""
    scaling = scaling_of(group)
    law = scaling.init if scaling else group.law
    is_known = isinstance(law, orthogonal | variance_scaling)
    return is_known and counts(law, axes, group.shape)


def _ratio(group: Named, fans: Fans) -> float | None:
    """The variance of a law, over the one that it would have with these fans."""
    scaling, law = scaling_of(group), group.law
    if scaling is not None:
        return n_of(scaling.init, fans) / scaling.n
    if isinstance(law, orthogonal) and law.scale:
        return law.moments(group.shape).variance * max(fans) / law.scale**2
    return None


def _is_stack(group: Named, groups: Sequence[Named]) -> bool:
    """Whether the first axis is of layers, as the leaves around a kernel say.

    All leaves in one part of the tree have it, and one is a constant for each layer and
    output, or input: a bias or the scale of a norm. A convolution has no such bias.
    """
    if len(group.shape) < 3:
        return False
    layers, around = group.shape[0], parent(group.leaves[0].path)
    while around:
        inside = [x for x in groups if _is_in(around, x)]
        if any(x.shape[:1] != (layers,) for x in inside):
            return False
        if any(_is_constant_of(x, group) for x in inside):
            return True
        around = parent(around)
    return False


def _is_in(part: str, group: Named) -> bool:
    return any(leaf.path.startswith(f"{part}/") for leaf in group.leaves)


def _is_constant_of(other: Named, group: Named) -> bool:
    """Whether leaves are constants, one row for each layer of a kernel."""
    measured = other.leaves[0].measured
    if measured is None or not measured.is_constant or len(other.shape) != 2:
        return False
    layers, size = other.shape
    return layers == group.shape[0] and size in group.shape[-2:] and size != layers


_CELL = {"input gate", "forget gate", "cell", "output gate", "update gate"}
_CELL |= {"reset gate", "candidate"}
_ALONE = {"query", "key", "value", "gate", "up", *_CELL}


def findings_of_fused(groups: Sequence[Named]) -> Iterator[Finding]:
    """Projections side by side whose law is that of the whole array."""
    for group in groups:
        use = kernel_use(group.role)
        if use is None or not group.sure:
            continue
        sections = [x for x in use.sections if x.part in _ALONE]
        axes = {section.axis for section in sections}
        if len(sections) >= 2 and len(axes) == 1:
            yield from _of_sections(group, use, sections)


def _of_sections(
    group: Named, use: Use, sections: Sequence[Section]
) -> Iterator[Finding]:
    axis = sections[0].axis
    least = min(sections, key=lambda section: section.size)
    fans = own_fans(use, group.shape)
    share = least.size / group.shape[axis]
    own = Fans(
        fans.fan_in * (share if axis in use.in_axis else 1),
        fans.fan_out * (share if axis in use.out_axis else 1),
    )
    whole, alone = _ratio(group, fans), _ratio(group, own)
    if whole is None or alone is None:
        return
    is_drawn_whole = abs(whole - 1) < 0.05 and not 0.9 < alone < 1.1
    may_be_fan_in = any(fits(group, c / own.fan_in) for c in common_scales(group))
    if not is_drawn_whole or (may_be_fan_in and not isinstance(group.law, orthogonal)):
        return
    parts = [section.part for section in sections]
    count = _sizes(sections, group.shape[axis])
    is_cell = use.recurrent or bool(_CELL & set(parts))
    severity = "note" if is_cell else severity_of(alone)  # as many frameworks have it
    text = (
        f"{_listed(parts)} are one array along axis {axis}, and were drawn by "
        f"{group.law!r} as one matrix: each has {times(alone)} that it would have on "
        f"its own. Draw it with jaxinit.split(..., {count}, axis={axis}), if that is "
        "not meant."
    )
    yield Finding("fused", (group.path,), severity, text)


def _sizes(sections: Sequence[Section], whole: int) -> str:
    """The sections as `jaxinit.split` takes them."""
    sizes = [section.size for section in sections]
    if len(set(sizes)) == 1 and whole % sizes[0] == 0:
        return str(whole // sizes[0])
    return str(tuple(sizes)) if sum(sizes) == whole else "sections=..."


def _listed(parts: Sequence[str | None]) -> str:
    names = [str(part) for part in dict.fromkeys(parts)]
    return f"{', '.join(names[:-1])} and {names[-1]}" if names[1:] else names[0]
