"""Scales that depend on more than one leaf: tied embeddings, and residual streams."""

import math
from collections.abc import Iterator, Sequence

from jaxinit._audit.kernels import kernel_use, only_use
from jaxinit._audit.naming import Named
from jaxinit._audit.result import Finding
from jaxinit._roles.role import Use

_LOGITS = 15.0  # variance of logits above which a softmax starts at a few classes
_WRITERS = 24  # to a stream, from which on its growth matters
_GROWTH = 8.0  # variance of the sum of all branches that is worth a note


def findings_of_embeddings(groups: Sequence[Named]) -> Iterator[Finding]:
    """Embeddings of large entries that give the logits as well."""
    for group in groups:
        role = group.role
        if role is None or not role.tied or not group.std > 0:
            continue
        heads = [use for use in role.kernels if use.head and use.fan_in]
        logits = [group.std**2 * use.fan_in * use.multiplier**2 for use in heads]
        if logits and min(logits) > _LOGITS:
            yield Finding("embedding", (group.path,), "warning", _text(group, heads[0]))


def _text(group: Named, head: Use) -> str:
    logits = group.std**2 * head.fan_in * head.multiplier**2
    return (
        f"the embedding has entries of deviation {group.std:.3g} and gives the logits "
        f"too: these start with a variance of {logits:.3g}, for each sums "
        f"{head.fan_in:g} terms, and the loss starts far above log(classes). Draw it "
        f"with a deviation of {head.fan_in**-0.5:.2g} or 0.02, and multiply what is "
        "looked up if that is to be larger."
    )


def findings_of_depth(groups: Sequence[Named]) -> Iterator[Finding]:
    """Residual streams that grow with their depth."""
    streams: dict[int, list[tuple[Named, float]]] = {}
    for group in groups:
        use = kernel_use(group.role)
        if use is None or use.residual is None or only_use(group.role) is None:
            continue
        _, total = use.residual
        if total is not None and total >= _WRITERS and math.isfinite(group.std):
            streams.setdefault(total, []).append((group, _written(group, use)))
    for total, writers in streams.items():
        grown = sum(added for _, added in writers)
        number = sum(_layers(group) for group, _ in writers)
        if number != total or grown < _GROWTH or _is_gated(groups):
            continue
        if _is_normalized(groups, total):
            continue
        paths = tuple(group.path for group, added in writers if added > grown / 100)
        text = (
            f"{total} branches are added to the residual stream and none is scaled by "
            f"the depth: at the start they add up to a variance of {grown:.3g}, "
            f"{grown / total:.2g} each, if inputs of branches are of variance one. "
            "Unless a normalization follows every addition, multiply the deviation by "
            f"1 / sqrt({total}), as GPT-2 does, or leave a scale of a branch at zero."
        )
        yield Finding("depth", paths, "note", text)


def _written(group: Named, use: Use) -> float:
    """The variance that all writers of a group add to their stream."""
    each = group.std**2 * use.fan_in * use.entering * use.multiplier**2
    return each * _layers(group)


def _layers(group: Named) -> int:
    use = kernel_use(group.role)
    assert use is not None
    return len(group.leaves) * math.prod(group.shape[axis] for axis in use.stack_axis)


def _is_normalized(groups: Sequence[Named], total: int) -> bool:
    """Whether a normalization follows every addition, as in BERT.

    Then the same enters every branch. Behind a stream that grows, what a normalization
    lets through, `v / (v + epsilon)`, differs from one branch to the next.
    """
    uses = (only_use(leaf.role) for group in groups for leaf in group.leaves)
    first = [use for use in uses if use and use.branch and use.branch[0] == 0]
    if any(use.stack_axis for use in first):
        return False
    return len({round(use.entering, 12) for use in first}) < total / 4


def _is_gated(groups: Sequence[Named]) -> bool:
    """Whether branches are made small by scales of their own."""
    return any(
        (use := only_use(x.role)) is not None
        and (use.kind == "gate" or use.closing)
        and not x.std > 0.5
        for x in groups
    )
