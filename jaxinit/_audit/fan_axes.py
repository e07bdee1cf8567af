"""Fans that are not those of the computation.

The projection of a query to 12 heads has the kernel `f32[768,12,64]`, and each output
is a sum of 768 terms. Drawn by `he_normal()`, whose fan in is that of the axis before
the last with all others as a window, it has the variance `2 / (768 * 12)`, and outputs
have a twelfth of the variance that is meant.
"""

from collections.abc import Iterator, Sequence

from jaxinit._audit.kernels import (
    Scaling,
    common_scales,
    counts,
    fits,
    kernel_use,
    n_of,
    own_fans,
    right_fans,
    scaling_of,
    severity_of,
    times,
)
from jaxinit._audit.naming import Named
from jaxinit._audit.result import Finding
from jaxinit._roles.role import Use
from jaxinit.initializers.fans import Fans
from jaxinit.initializers.scaling import variance_scaling

_MATERIAL = 0.1  # relative difference of fans below which they are as good as equal


def findings_of_fans(groups: Sequence[Named]) -> Iterator[Finding]:
    """Kernels and embeddings whose law is of fans that their computation lacks."""
    for group in groups:
        scaling = scaling_of(group)
        if scaling is None or scaling.scale not in _scales(group):
            continue
        use = kernel_use(group.role)
        if use is None:
            yield from _of_embedding(group, scaling)
        elif not counts(scaling.init, use.stack_axis, group.shape):
            yield from _of_kernel(group, scaling, use)


def has_right_fans(group: Named) -> bool:
    """Whether a law of fans, as common ones are, is right for one use of a kernel."""
    assert group.role is not None
    scales = _scales(group)
    for use in group.role.kernels:
        for fans in right_fans(use, group.shape):
            if any(fits(group, c / n) for n in _ns(group, fans, use) for c in scales):
                return True
            if use.residual and _by_depth(group, fans, use, *use.residual):
                return True
    return False


def _scales(group: Named) -> tuple[float, ...]:
    """Scales of common laws, and of those for the function that follows or precedes."""
    gains = [use.gain for use in group.role.uses if use.gain] if group.role else []
    return (*common_scales(group), *(gain**2 for gain in gains))


def _ns(group: Named, fans: Fans, use: Use) -> Iterator[float]:
    """What laws divide by, if their fans are these."""
    yield from (fans.fan_in, (fans.fan_in + fans.fan_out) / 2)
    if use.kind == "convolution":  # as in ResNet, for gradients
        yield fans.fan_out
    if isinstance(group.law, variance_scaling) and group.law.mode == "fan_geo_avg":
        yield n_of(group.law, fans)


def _by_depth(
    group: Named, fans: Fans, use: Use, place: int, total: int | None
) -> bool:
    """Whether a kernel that writes to a stream is scaled by its number, or by all.

    Both may be of layers, or of writers, as of two a layer.
    """
    layers = [x + 1 for x in use.layers if x is not None] + [use.depth or 1]
    numbers = {place + 1, 2 * (place + 1), place // 2 + 1, *layers}
    numbers |= {2 * n for n in layers}
    numbers |= {total, 2 * total, total / 2} if total else set()
    fan_in, fan_out = fans
    ns = (fan_in, (fan_in + fan_out) / 2)
    common = common_scales(group)
    return any(fits(group, c / n / x) for n in ns for c in common for x in numbers)


def _of_kernel(group: Named, scaling: Scaling, use: Use) -> Iterator[Finding]:
    if has_right_fans(group):
        return
    fans = own_fans(use, group.shape)
    is_swapped = fits(group, scaling.scale / fans.fan_out)
    n = fans.fan_in if is_swapped else n_of(scaling.init, fans)
    ratio = n / scaling.n
    if abs(ratio - 1) < _MATERIAL:
        return
    severity = severity_of(ratio)
    if is_swapped and min(use.in_axis) < min(use.out_axis):
        severity = "note"  # a fan of outputs may be meant
    if use.groups > 1 and scaling.init.mode == "fan_avg":
        severity = "note"  # as Keras has it
    yield Finding("fans", (group.path,), severity, _text(scaling, use, fans, ratio))


def _text(scaling: Scaling, use: Use, fans: Fans, ratio: float) -> str:
    axes = {*use.in_axis, *use.out_axis, *use.spatial_axis}
    seen = f"the scale is that of {scaling.init!r}, {_variance(scaling)}"
    computed = (
        f"but an output sums {fans.fan_in:g} inputs and an input reaches "
        f"{fans.fan_out:g} outputs"
    )
    cure = f"Draw it with {arguments(use)}."
    last = len(axes) - 1
    if (use.in_axis, use.out_axis) == ((last - 1,), (last,)):
        cure = "If a fan of outputs is not meant, take that of inputs: mode='fan_in'."
    return f"{seen}, {computed}: outputs have {times(ratio)} that is meant. {cure}"


def _variance(scaling: Scaling) -> str:
    return f"a variance of {scaling.scale:.3g} / {scaling.n:.6g}"


def arguments(use: Use) -> str:
    """What an initializer should be told of the axes of a kernel."""
    batch = tuple(sorted({*use.batch_axis, *use.stack_axis}))
    named = {"in_axis": use.in_axis, "out_axis": use.out_axis, "batch_axis": batch}
    axes = ", ".join(f"{name}={_axes(x)}" for name, x in named.items() if x)
    if use.groups > 1:
        return f"{axes}, each of the {use.groups} groups apart, as by jaxinit.grouped"
    return axes


def _axes(axes: tuple[int, ...]) -> str:
    return str(axes[0] if len(axes) == 1 else axes)


def _of_embedding(group: Named, scaling: Scaling) -> Iterator[Finding]:
    """An embedding whose law counts the rows that it is looked up in."""
    role = group.role
    if role is None or role.kind != "embedding" or len(group.shape) != 2:
        return
    axes = {(use.in_axis, use.out_axis) for use in role.uses}
    if len(axes) != 1 or not all(map(len, next(iter(axes)))):
        return
    (rows,), (features,) = next(iter(axes))
    rows, features = group.shape[rows], group.shape[features]
    init = scaling.init
    is_of_rows = fits(group, scaling.scale / rows)
    if is_of_rows and init.distribution == "uniform" and scaling.scale < 1:
        return  # as in recommenders: U(+-1 / sqrt(rows))
    if any(fits(group, c / features) for c in common_scales(group)):
        return
    ratio = features / scaling.n
    if abs(ratio - 1) < _MATERIAL or (init.mode == "fan_out" and not is_of_rows):
        return
    text = (
        f"the scale is that of {init!r}, {_variance(scaling)}, which counts the "
        f"{rows} rows, but a lookup sums nothing: vectors have {times(ratio)} of "
        f"{scaling.scale:.3g} / {features}, that of their width. Draw it with "
        f"jaxinit.normal(), of a deviation such as {features**-0.5:.3g} or 0.02."
    )
    yield Finding("fans", (group.path,), severity_of(ratio), text)
