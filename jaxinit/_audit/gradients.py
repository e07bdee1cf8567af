"""Zero kernels that no gradient reaches.

Take `x + relu(x @ a) @ b` with `a` and `b` zero. The gradient of `b` is a product with
`relu(x @ a) = 0`, and that of `a` one with `b = 0`: both stay as they are. With one of
them drawn, the other moves in the first step. So two zero factors of one product are an
error, and one is a habit.

Which leaves are factors of one product is told by roles: the kernels of one branch are
those below the nearest part of the tree that has all their numbers once, from 0 to the
last. Where that is not so, nothing is said.
"""

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from jaxinit._audit.kernels import kernels_of, only_use
from jaxinit._audit.leaves import Leaf, parent
from jaxinit._audit.naming import Named
from jaxinit._audit.result import Finding
from jaxinit._roles.role import Use
from jaxinit._tree.folding import fold

# Functions that are zero at zero.
_THROUGH_ZERO = frozenset(
    (
        *("identity", "relu", "gelu", "silu", "tanh", "elu", "selu", "celu"),
        *("leaky_relu", "relu6", "hard_swish", "hard_tanh", "soft_sign", "mish"),
        *("quick_gelu", "squared_relu", "square", "abs", "sin"),
    )
)
_FACTORS = (None, "value", "gate", "up")  # parts whose zeros make a branch zero


def findings_of_gradients(groups: Sequence[Named]) -> Iterator[Finding]:
    """Zero leaves whose gradient is zero too."""
    leaves = [leaf for group in groups for leaf in group.leaves]
    if _is_all_zero(leaves):
        zeros = [leaf for leaf in leaves if _is_kernel(leaf)]
        yield _finding(
            zeros,
            "every kernel is zero: no gradient reaches them, or all units of a layer "
            "learn the same. Draw them by a law of their fans, such as "
            "jaxinit.he_normal(); the last may stay zero.",
        )
        return
    found = [*_pairs(leaves), *_ends(leaves)]
    for branch in _branches(leaves):
        found += _in_branch(branch, leaves)
    if found:
        stuck = {id(leaf) for each in found for leaf in each}
        yield _finding(
            [leaf for leaf in leaves if id(leaf) in stuck],
            "these are zero, and are multiplied with each other: the gradient of each "
            "is zero as long as the other is, so that none of them ever learns. Draw "
            "one of the two, as jaxinit.lora does, and leave the other at zero.",
        )
    projections = [leaf for leaf in leaves if _is_stuck_projection(leaf, leaves)]
    if projections:
        yield _finding(
            projections,
            "its queries and keys are zero, and are multiplied with each other: the "
            "gradient of each is zero as long as the other is, so that neither ever "
            "learns, and attention stays uniform. Draw it by a law of its fans.",
        )


def _finding(leaves: Sequence[Leaf], text: str) -> Finding:
    folded = fold([leaf.path for leaf in leaves], [0] * len(leaves))
    return Finding("no-gradient", tuple(path for path, _ in folded), "error", text)


def _is_zero(leaf: Leaf) -> bool:
    measured = leaf.measured
    return measured is not None and measured.is_constant and measured.low == 0


def _is_kernel(leaf: Leaf) -> bool:
    if leaf.role is not None:
        return bool(leaf.role.kernels)
    return leaf.measured is not None and len(leaf.shape) >= 2


def _use(leaf: Leaf) -> Use | None:
    return only_use(leaf.role)


def _is_all_zero(leaves: Sequence[Leaf]) -> bool:
    """Whether all kernels are zero, and one may take what another gives."""
    kernels = [leaf for leaf in leaves if _is_kernel(leaf)]
    if len(kernels) < 2 or not all(map(_is_zero, kernels)):
        return False
    if all(leaf.role is not None for leaf in kernels):
        uses = [use for leaf in kernels for use in kernels_of(leaf.role)]
        return any(not use.head for use in uses)
    return any(_is_chain(a, b) for a, b in itertools.permutations(kernels, 2))


def _is_chain(a: Leaf, b: Leaf) -> bool:
    """Whether one kernel may take what the other gives, in the layout of jax."""
    return len(a.shape) == len(b.shape) and a.shape[-1] == b.shape[-2]


def _pairs(leaves: Sequence[Leaf]) -> Iterator[list[Leaf]]:
    """Low-rank pairs below one parent: `(inputs, r)` and `(r, outputs)`, both zero."""
    below: dict[str, list[Leaf]] = {}
    for leaf in leaves:
        if _is_kernel(leaf) and len(leaf.shape) == 2:
            below.setdefault(parent(leaf.path), []).append(leaf)
    drawn = [leaf for leaf in leaves if not _is_zero(leaf)]
    for siblings in below.values():
        zeros: dict[tuple[int, ...], list[Leaf]] = {}
        for leaf in filter(_is_zero, siblings):
            zeros.setdefault(leaf.shape, []).append(leaf)
        # Leaves may be many, their shapes are few.
        for one, other in itertools.permutations(zeros, 2):
            if _is_low_rank(one, other):
                pairs = itertools.product(zeros[one], zeros[other])
                yield from ([a, b] for a, b in pairs if not _are_moments(a, b, drawn))


def _is_low_rank(one: tuple[int, ...], other: tuple[int, ...]) -> bool:
    (inputs, rank), (own, outputs) = one, other
    return rank == own and 2 * rank <= min(inputs, outputs)


def _are_moments(a: Leaf, b: Leaf, drawn: Sequence[Leaf]) -> bool:
    return _is_moment(a, drawn) or _is_moment(b, drawn)


def _is_moment(leaf: Leaf, drawn: Iterable[Leaf]) -> bool:
    """Whether a leaf is what an optimizer remembers of another one.

    As `opt_state/0/mu/dense/lora_a` is of `params/dense/lora_a`.
    """
    return any(
        x.shape == leaf.shape
        and leaf.path.count("/") > x.path.count("/")
        and leaf.path.endswith(f"/{x.path.partition('/')[2] or x.path}")
        for x in drawn
    )


def _ends(leaves: Sequence[Leaf]) -> Iterator[list[Leaf]]:
    """The first and the last kernels of a network whose middle is zero at zero."""
    kernels = [leaf for leaf in leaves if _is_kernel(leaf)]
    pairs = [(leaf, use) for leaf in kernels if (use := _use(leaf)) is not None]
    first = [leaf for leaf, use in pairs if use.first and not use.head]
    last = [leaf for leaf, use in pairs if use.head and not use.first]
    ends = sum(use.first or use.head for _, use in pairs)
    if not first or not last or len(first) + len(last) < ends:
        return
    if len(pairs) < len(kernels) or _has_other_inputs(leaves):
        return
    inner = [use for _, use in pairs if not use.head]
    is_zero = all(map(_is_zero, (*first, *last)))
    if is_zero and _is_zero_at_zero(inner) and _biases_are_zero("", leaves):
        yield [*first, *last]


def _has_other_inputs(leaves: Sequence[Leaf]) -> bool:
    """Whether something else than a first kernel begins a signal."""
    kinds = {"embedding", "position", "unknown", "gate"}
    roles = [leaf.role for leaf in leaves if leaf.role is not None]
    return any(use.kind in kinds for role in roles for use in role.uses)


def _is_zero_at_zero(uses: Iterable[Use]) -> bool:
    """Whether zero goes through all functions, of the whole and of parts."""
    functions = [
        function
        for use in uses
        for function in (
            [section.function for section in use.sections] or [use.function]
        )
    ]
    return all(function in _THROUGH_ZERO for function in functions)


def _biases_are_zero(part: str, leaves: Sequence[Leaf]) -> bool:
    return all(
        _is_zero(leaf)
        for leaf in leaves
        if _is_in(part, leaf)
        and leaf.role is not None
        and {use.kind for use in leaf.role.uses} & {"bias", "position"}
    )


def _is_in(part: str, leaf: Leaf) -> bool:
    return not part or leaf.path.startswith(f"{part}/")


class _Branch(NamedTuple):
    """The kernels of one branch of a residual stream, in their order.

    Attributes:
        part: the part of the tree that has them, and no other kernels of this number.
        kernels: the kernels.
        uses: what they are for.
    """

    part: str
    kernels: list[Leaf]
    uses: list[Use]

    @property
    def writers(self) -> list[Leaf]:
        """The kernels that write to the stream."""
        pairs = zip(self.kernels, self.uses, strict=True)
        return [leaf for leaf, use in pairs if use.residual]


def _branches(leaves: Sequence[Leaf]) -> Iterator[_Branch]:
    """The branches all of whose kernels are told apart by their paths."""
    below: dict[tuple[str, int], dict[int, list[Leaf]]] = {}
    for leaf in filter(_is_kernel, leaves):
        use = _use(leaf)
        if use is not None and use.branch is not None:
            place, total = use.branch
            for part in _parts(leaf.path):
                places = below.setdefault((part, total), {})
                places.setdefault(place, []).append(leaf)
    seen: set[int] = set()
    for (part, total), places in sorted(below.items(), key=lambda x: -len(x[0][0])):
        members = [leaf for place in sorted(places) for leaf in places[place]]
        if len(members) < total or any(id(leaf) in seen for leaf in members):
            continue
        seen |= {id(leaf) for leaf in members}
        if len(members) == len(places) == total:
            uses = [use for leaf in members if (use := _use(leaf)) is not None]
            yield _Branch(part, members, uses)


def _parts(path: str) -> Iterator[str]:
    """The parts of the tree that a path is in, the nearest first, the whole last."""
    while path:
        path = parent(path)
        yield path


def _in_branch(branch: _Branch, leaves: Sequence[Leaf]) -> Iterator[list[Leaf]]:
    """Zero factors of one product in a branch."""
    if not _biases_are_zero(branch.part, leaves):
        return
    pairs = list(zip(branch.kernels, branch.uses, strict=True))
    zeros = {use.part: leaf for leaf, use in pairs if use.part and _is_zero(leaf)}
    if {"query", "key"} <= set(zeros):
        yield [zeros["query"], zeros["key"]]
    chain = [(leaf, use) for leaf, use in pairs if use.part not in ("query", "key")]
    if not chain or not _is_zero_at_zero(use for _, use in chain):
        return
    factors = [
        leaf
        for leaf, use in chain
        if _is_zero(leaf) and (use.residual or use.part in _FACTORS)
    ]
    if len(factors) > 1:
        yield factors
    writers = branch.writers
    if writers and all(map(_is_zero, writers)):
        scales = _zero_scales(branch, leaves)
        if scales:
            yield [*writers, *scales]


def _zero_scales(branch: _Branch, leaves: Sequence[Leaf]) -> list[Leaf]:
    """Zero scales of a branch, if there is no other one that they may be of."""
    inside = [leaf for leaf in leaves if _is_in(branch.part, leaf)]
    if not branch.part:
        return []
    numbers = [use for leaf in inside if (use := _use(leaf)) and use.residual]
    if len(numbers) != len(branch.writers):
        return []
    return [
        leaf
        for leaf in inside
        if (use := _use(leaf))
        and (use.closing or use.kind == "gate")
        and _is_zero(leaf)
        and math.prod(leaf.shape)
    ]


def _is_stuck_projection(leaf: Leaf, leaves: Sequence[Leaf]) -> bool:
    """Whether a kernel holds queries and keys that are zero, and stay so."""
    is_zero = _is_kernel(leaf) and _is_zero(leaf) and _has_query_and_key(leaf)
    return is_zero and _has_zero_bias(leaf, leaves)


def _has_zero_bias(kernel: Leaf, leaves: Sequence[Leaf]) -> bool:
    """Whether no bias that is added behind a kernel is other than zero."""
    return all(
        _is_zero(leaf)
        for leaf in leaves
        if leaf.role is not None
        and any(kernel.path in use.of for use in leaf.role.uses)
    )


def _has_query_and_key(leaf: Leaf) -> bool:
    """Whether a kernel holds queries and keys side by side."""
    use = _use(leaf)
    parts = {section.part for section in use.sections} if use is not None else set()
    return {"query", "key"} <= parts
