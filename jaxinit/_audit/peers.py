"""Arrays that were drawn otherwise than their peers.

Peers have one shape, and paths that differ only in integers: `layers_0/kernel` to
`layers_11/kernel`. If eleven are `he_normal()` and the seventh has another variance, it
is alone. If all have variances of their own, as by a rule for each layer, none is.
"""

import itertools
import re
from collections import Counter
from collections.abc import Hashable, Iterator, Sequence

from jaxinit._audit.kernels import may_have
from jaxinit._audit.leaves import Leaf
from jaxinit._audit.naming import Named
from jaxinit._audit.result import Finding
from jaxinit._roles.role import Role
from jaxinit._tree.folding import fold
from jaxinit.initializers.base import Initializer
from jaxinit.initializers.basic import constant, normal, truncated_normal, uniform
from jaxinit.initializers.orthogonal_matrices import orthogonal
from jaxinit.initializers.scaling import variance_scaling
from jaxinit.initializers.wrappers import scaled

_INTEGER = re.compile(r"\d+")
_FEW = 1 / 8  # of the peers
_LAWS = (constant, normal, truncated_normal, uniform, orthogonal, variance_scaling)


def findings_of_peers(groups: Sequence[Named]) -> Iterator[Finding]:
    """Leaves whose law is not that of the leaves of the same name in other layers."""
    peers: dict[Hashable, list[tuple[Leaf, Named]]] = {}
    for group in groups:
        for leaf in group.leaves:
            kind = _INTEGER.sub("0", leaf.path), leaf.shape, str(leaf.dtype)
            peers.setdefault((kind, _purpose(leaf.role)), []).append((leaf, group))
    for members in peers.values():
        yield from _of_peers(members)


def _purpose(role: Role | None) -> Hashable:
    """What peers have in common, where that is known."""
    if role is None:
        return None
    return tuple(
        (use.kind, use.part, use.residual is None, use.head, use.closing)
        for use in role.uses
    )


def _of_peers(members: list[tuple[Leaf, Named]]) -> Iterator[Finding]:
    sure = all(group.sure and _is_plain(group.law) for _, group in members)
    counted = Counter(repr(group.law) for _, group in members)
    if not sure or len(counted) != 2:
        return
    (usual, many), (other, few) = counted.most_common()
    if many < 3 or few > max(1, _FEW * len(members)):
        return
    members = sorted(members, key=lambda pair: _numbers(pair[0]))
    odd = [(leaf, group) for leaf, group in members if repr(group.law) == other]
    law = next(group.law for _, group in members if repr(group.law) == usual)
    assert law is not None
    if any(_may_be(leaf, law) for leaf, _ in odd):
        return
    laws = [repr(group.law) for _, group in members]
    runs = [name for name, _ in itertools.groupby(laws)]
    at_an_end = len(runs) == 2
    of_constants = isinstance(law, constant) or isinstance(odd[0][1].law, constant)
    folded = fold([leaf.path for leaf, _ in odd], [0] * few)
    text = (
        f"{'it seems' if few == 1 else 'they seem'} to be drawn by {other}, and the "
        f"other {many} of the same name and shape by {usual}. "
    ) + (
        "The first or last may be meant to differ; if not, give it the same law."
        if at_an_end
        else "Were some of the layers loaded, drawn again or left out by a rule? Give "
        "all of them one law."
    )
    severity = "note" if at_an_end or of_constants else "warning"
    yield Finding("alone", tuple(path for path, _ in folded), severity, text)


def _numbers(leaf: Leaf) -> tuple[int, ...]:
    return tuple(map(int, _INTEGER.findall(leaf.path)))


def _is_plain(law: Initializer | None) -> bool:
    """Whether the second moment of a law is told by that of its draws."""
    return isinstance(law.init if isinstance(law, scaled) else law, _LAWS)


def _may_be(leaf: Leaf, law: Initializer) -> bool:
    """Whether a leaf may be a draw of a law after all."""
    measured = leaf.measured
    if measured is None:
        return True
    moments = law.moments(leaf.shape, leaf.dtype)
    if not moments.std or measured.is_constant:
        return not moments.std and measured.low == measured.high == moments.mean
    square = measured.variance + abs(measured.mean - moments.mean) ** 2
    return may_have(square / moments.std**2, measured.size)
