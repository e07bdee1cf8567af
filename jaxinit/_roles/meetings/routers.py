"""Routers: kernels whose outputs are the weights of other activations.

Take `sum(softmax(x @ w)[:, i] * expert_i(x) for i in range(4))`. The softmax is over
the features that `w` gives, and each of its entries multiplies what is computed by
other leaves. So does the best of some sigmoids, which no sum needs to divide.
"""

from collections.abc import Iterator, Sequence

from jaxinit._roles.patterns.regions import End
from jaxinit._roles.patterns.structure import Structure
from jaxinit._roles.reading.atoms import has_features
from jaxinit._roles.reading.axes import (
    Place,
    batch_and_free,
    before_contraction,
    contracted_axes,
    is_repeated,
    place_before,
    unreduced_axes,
)
from jaxinit._roles.reading.graph import Node, Value
from jaxinit._roles.reading.primitives import (
    CONTRACTIONS,
    COPIES,
    ELEMENTWISE,
    RELOCATIONS,
    SCATTERS,
)
from jaxinit._roles.reading.values import is_log_of_softmax, is_mask, picks_rows
from jaxinit._roles.reading.walks import ancestor, reached

_SOFTMAX = ("exp", "reduce_max", "sub")  # what it begins with
_ADDING_UP = SCATTERS | {"reduce_sum", "dot_general"}


def is_router(structure: Structure, end: End) -> bool:
    """Whether a softmax over the kernel's own features weighs other activations."""
    begins = [node for node in _behind_top(end) if node.op in _SOFTMAX]
    if not begins:
        return False
    if not _over_features(structure, end):  # scores of an additive attention
        return False
    return _weighs(structure, end, begins, normalized=False)


def weighs_chosen(structure: Structure, end: End) -> bool:
    """Whether the best of the kernel's own features are chosen, and weigh activations.

    As of sigmoids, to which corrections are added where they are ranked: DeepSeek-AI,
    "DeepSeek-V3 technical report" (2024).
    """

    def after(node: Node) -> Iterator[Node]:
        if node.op in ELEMENTWISE and len(structure.flow.data_of(node)) == 1:
            for value in node.outputs:
                yield from value.users

    for node in reached(end.takers, after):
        if node.op == "top_k" and _has_features(structure, node.inputs[0]):
            chosen = [user for value in node.outputs for user in value.users]
            if _weighs(structure, end, chosen, normalized=True):
                return True
    return False


def _weighs(
    structure: Structure, end: End, begins: Sequence[Node], normalized: bool
) -> bool:
    """Whether what some nodes begin weighs activations.

    Args:
        structure: what is found in the graph.
        end: an end of a kernel.
        begins: nodes behind it.
        normalized: whether weights need no sum any more that divides them.
    """
    own = {end.value.index}
    ends = structure.kernels | structure.attention_outputs

    def after(item: tuple[Node, bool, bool]) -> Iterator[tuple[Node, bool, bool]]:
        node, is_weight, is_log = item
        if node.index in ends or node.op == "carry":
            return
        if structure.residuals.contains(node):  # it would lead to the last layer
            return
        if _is_picked(structure, end, node):
            return
        if node.op in ("exp", "exp2"):
            is_weight |= _is_summed(node.output)
            is_log = False
        is_log |= node.op == "log"
        for value in node.outputs:
            own.add(value.index)
            yield from ((user, is_weight, is_log) for user in value.users)

    def weighs(node: Node) -> bool:
        others = (
            v
            for v in structure.flow.data_of(node)
            if v.index not in own and not is_log_of_softmax(v)
        )
        return any(
            not ancestor(end.root, v, chosen=False)
            and not is_mask(v)
            and (structure.flow.has_leaves[v.index] or _is_wider(node, v))
            for v in others
        )

    return any(
        is_weight
        and not is_log
        and node.index not in ends
        and (node.op == "mul" or node.op in CONTRACTIONS)
        and not _is_query(structure, node)
        and weighs(node)
        for node, is_weight, is_log in reached(
            [(node, normalized, False) for node in begins], after
        )
    )


def _behind_top(end: End) -> Iterator[Node]:
    """What takes the value of an end, or the largest of its entries."""
    for node in end.takers:
        yield from node.outputs[0].users if node.op == "top_k" else (node,)


def _over_features(structure: Structure, end: End) -> bool:
    """Whether what a softmax begins with is along features, where that is known."""
    fact = structure.flow.fact
    for node in end.takers:
        if node.op == "top_k":
            return _has_features(structure, node.inputs[0])
        if node.op == "reduce_max":
            axes = fact(node.inputs[0]).axes
            gone = set(range(len(axes))) - set(unreduced_axes(node))
            along = [atom.size > 1 for i in gone for atom in axes[i]]
            return any(along) or not any(axes)
    return True


def _has_features(structure: Structure, value: Value) -> bool:
    """Whether the last axis of a value is one of features."""
    return has_features(structure.flow.fact(value).axes[-1:])


def _is_summed(value: Value) -> bool:
    """Whether values are added up, masked at most, as under the line of a softmax."""

    def after(node: Node) -> list[Node]:
        kept = node.op in COPIES | RELOCATIONS | {"mul", "select_n"}
        return node.outputs[0].users if kept else []

    return any(node.op in _ADDING_UP for node in reached(value.users, after))


def _is_query(structure: Structure, node: Node) -> bool:
    """Whether a node sums over features of keys, as the last of `q @ (k.T @ v)` does.

    So it does with a softmax of `q`: Shen et al., "Efficient attention" (2021).
    """
    if node.op != "dot_general":
        return False
    return any(
        _is_of_keys(structure, (node.inputs[side], axis))
        for side in (0, 1)
        for axis in contracted_axes(node, side)
    )


def _is_of_keys(structure: Structure, place: Place) -> bool:
    """Whether an axis is one of features in a sum over places of two activations."""
    for value, axis in reached([place], place_before):
        node = value.node
        if node is None or node.op != "dot_general" or node.index in structure.kernels:
            continue
        if len(structure.flow.data_of(node)) < 2:
            continue
        for operand, i in before_contraction(node, axis):
            is_free = i in batch_and_free(node, node.inputs.index(operand))[1]
            features = structure.flow.fact(operand).axes[i]
            if is_free and any(atom.size > 1 for atom in features):
                return True
    return False


def _is_picked(structure: Structure, end: End, node: Node) -> bool:
    """Whether inputs say which of some weights counts, as labels and actions do."""
    if node.op == "mul":
        which = list(filter(picks_rows, node.inputs))
    else:
        which = node.inputs[1:] if node.op in ("gather", "dynamic_slice") else []
    which = list(filter(structure.flow.data, which))
    return bool(which) and not any(ancestor(end.root, value) for value in which)


def _is_wider(node: Node, value: Value) -> bool:
    """Whether a factor has features for each of the weights that it is multiplied by.

    An input that has none may be a mask of what is allowed, or say what is right.
    """
    if node.op in CONTRACTIONS:
        has_free = node.op == "dot_general"
        return not has_free or bool(batch_and_free(node, node.inputs.index(value))[1])
    (weights,) = (v for v in node.inputs if v is not value)
    return any(
        size > 1 and is_repeated(weights, i) for i, size in enumerate(value.shape)
    )
