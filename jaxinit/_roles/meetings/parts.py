"""Which part the output of a kernel plays in its model.

Take the gated unit `(silu(x @ w1) * (x @ w3)) @ w2`. The end of `w1` is a factor behind
a function that is not linear, so it is the gate; that of `w3` is what it multiplies,
the up part. The operands of an attention, the gates of recurrent cells, what takes the
output of an attention, and routers of experts are told in the same way: by what is done
with the values, and by no name.
"""

from collections.abc import Iterator, Sequence

from jaxinit._roles.meetings.cells import Cells
from jaxinit._roles.meetings.endings import Endings
from jaxinit._roles.meetings.tree_cells import tree_gates
from jaxinit._roles.patterns.choices import deciding_nodes
from jaxinit._roles.patterns.losses import is_summed_away
from jaxinit._roles.patterns.regions import End
from jaxinit._roles.patterns.structure import Structure
from jaxinit._roles.patterns.sums import is_inner_product
from jaxinit._roles.reading.axes import (
    Place,
    batch_and_free,
    before_contraction,
    contracted_axes,
    is_factor,
    is_repeated,
    place_before,
    unreduced_axes,
)
from jaxinit._roles.reading.functions import Function
from jaxinit._roles.reading.graph import Node, Value
from jaxinit._roles.reading.primitives import (
    CONTRACTIONS,
    COPIES,
    POINTWISE,
    RELOCATIONS,
    SCATTERS,
)
from jaxinit._roles.reading.values import (
    is_log_of_softmax,
    is_mask,
    is_softmax,
    picks_rows,
)
from jaxinit._roles.reading.walks import ancestor, reached

_SIGMOIDS = ("sigmoid", "hard_sigmoid")
_STEERING = {"gate", "router", "query", "key"}
_SOFTMAX = ("exp", "reduce_max", "sub")  # what it begins with
_ADDING_UP = SCATTERS | {"reduce_sum", "dot_general"}


def find_parts(structure: Structure, endings: Endings) -> dict[End, str]:
    """What each end is in its model, where that is known."""
    parts = dict(_operands(structure, endings))
    owners = endings.owners_behind_norms()
    for end, name in Cells(structure.flow, structure.loops, owners).gates():
        parts.setdefault(end, name)
    for end, name in tree_gates(structure.flow, owners):
        parts.setdefault(end, name)
    deciding = deciding_nodes(structure.flow)
    for node, end in endings.all():
        if end not in parts:
            decides = any(taker.index in deciding for taker in end.takers)
            part = "router" if decides else _factor(structure, endings, node, end)
            if part is None and _takes_attention(structure, node):
                part = "attention output"
            if part is None and _is_router(structure, end):
                part = "router"
            if part is not None:
                parts[end] = part
    return parts


def steering(endings: Endings, parts: dict[End, str]) -> set[int]:
    """Indices of the contractions that steer a branch and do not write it."""
    return {
        index
        for index, ends in endings.by_kernel.items()
        if ends and {parts.get(end) for end in ends} <= _STEERING
    }


def _operands(structure: Structure, endings: Endings) -> Iterator[tuple[End, str]]:
    """The ends that operands of attentions are made of."""
    names: dict[int, dict[str, None]] = {}
    for attention in structure.attentions:
        operands = {
            "query": attention.query,
            "key": attention.key,
            "value": attention.value,
        }
        for name, value in operands.items():
            for index in structure.made_of(value):
                names.setdefault(index, {})[name] = None
    for _, end in endings.all():
        if end.root.index in names:
            yield end, ", ".join(names[end.root.index])


def _takes_attention(structure: Structure, node: Node) -> bool:
    data = filter(structure.flow.data, node.inputs[:2])
    return any(map(structure.is_attention_output, data))


def _factor(
    structure: Structure, endings: Endings, kernel: Node, end: End
) -> str | None:
    """A "gate" for a factor behind a nonlinear function, "up" for the other."""
    for node in () if end.compared else end.takers:
        if not is_factor(node, end.value) or end.function is None:
            continue
        others = [value for value in node.inputs if value is not end.value]
        if len(others) != 1 or not structure.flow.data(others[0]):
            continue
        if is_mask(others[0]) or is_softmax(others[0]):
            continue
        if any(x.compared for _, x in endings.owned(others[0])):  # an error is weighed
            continue
        if is_inner_product(structure.flow, node):
            continue
        if _is_made_of(structure, others[0], end):  # a norm of it, over places
            continue
        theirs = _curved(endings, others[0])
        if _is_logarithm(structure, others[0], [end.function, *theirs]):
            continue
        if not end.function.is_linear:
            wins = end.function.is_gate and not any(f.is_gate for f in theirs)
            is_gate = wins or end.function.name in _SIGMOIDS  # twice one, for example
            if _is_of_loss(structure, end, node, others[0], is_gate):
                continue
            alike = _is_for_all_features(structure, kernel, end, others[0])
            if is_gate and alike:  # a weight of colors, or a mask of probabilities
                continue
            if not is_gate and _is_from_outside(structure, end, others[0], alike):
                continue
            return "gate" if wins or not theirs else None
        if theirs and not _is_for_all_features(structure, kernel, end, others[0]):
            return "up"
    return None


def _is_logarithm(
    structure: Structure, value: Value, functions: Sequence[Function]
) -> bool:
    """Whether a factor is a logarithm of what is computed, or one of two functions is.

    Entropies and likelihoods are made of them, and no gates.
    """
    if any(function.name == "log_sigmoid" for function in functions):
        return True
    return structure.flow.has_leaves[value.index] and is_log_of_softmax(value)


def _is_of_loss(
    structure: Structure, end: End, product: Node, value: Value, is_gate: bool
) -> bool:
    """Whether a product is a term of a loss, as `labels * log_sigmoid(x @ w)` is.

    The other factor is made of inputs by no leaf, and nothing remains of the features.
    What the kernel takes itself may have been gated, as in a loss of `x * mask`.
    """
    if structure.flow.has_leaves[value.index]:
        return False
    own = is_gate and _is_taken(structure, end, value)
    return not own and is_summed_away(structure.flow, product.outputs)


def _is_from_outside(structure: Structure, end: End, value: Value, alike: bool) -> bool:
    """Whether a factor is a mask or a weight that is handed in, and nothing gates it.

    It is made of inputs by no leaf. What the kernel takes itself is none, as in
    `x * tanh(x @ w)`, unless it is `alike`: one number for all features.
    """
    if structure.flow.has_leaves[value.index]:
        return False
    return alike or not _is_taken(structure, end, value)


def _is_taken(structure: Structure, end: End, value: Value) -> bool:
    """Whether the kernel of an end takes what a factor is made of by no contraction."""
    flow = structure.flow

    def before(value: Value) -> list[Value]:
        node = value.node
        followed = node is not None and node.op in POINTWISE
        return flow.data_of(node) if node is not None and followed else []

    return any(ancestor(found, end.root) for found in reached([value], before))


def _is_made_of(structure: Structure, value: Value, end: End) -> bool:
    """Whether a value is made of the root of an end, with no kernel between."""

    def before(value: Value) -> list[Value]:
        node = value.node
        if node is None or node.index in structure.kernels or node.op == "carry":
            return []
        return structure.flow.data_of(node)

    return any(found is end.root for found in reached([value], before))


def _is_for_all_features(
    structure: Structure, kernel: Node, end: End, value: Value
) -> bool:
    """Whether a factor is the same for all features that a kernel gives an end."""
    leaves = structure.flow.leaves_of(kernel)
    features = [
        i
        for i, axis in enumerate(structure.flow.fact(end.value).axes)
        if any(atom.leaf in leaves and atom.size > 1 for atom in axis)
    ]
    same_rank = len(value.shape) == len(end.value.shape)
    repeated = (same_rank and is_repeated(value, i) for i in features)
    return bool(features) and all(repeated)


def _curved(endings: Endings, value: Value) -> list[Function]:
    """The functions that are not linear, of the ends that a value is."""
    functions = (end.function for _, end in endings.owned(value))
    return [f for f in functions if f is not None and not f.is_linear]


def _over_features(structure: Structure, end: End) -> bool:
    """Whether what a softmax begins with is along features, where that is known."""
    fact = structure.flow.fact
    for node in end.takers:
        if node.op == "top_k":
            return any(atom.size > 1 for atom in fact(node.inputs[0]).axes[-1])
        if node.op == "reduce_max":
            axes = fact(node.inputs[0]).axes
            gone = set(range(len(axes))) - set(unreduced_axes(node))
            along = [atom.size > 1 for i in gone for atom in axes[i]]
            return any(along) or not any(axes)
    return True


def _is_summed(value: Value) -> bool:
    """Whether values are added up, masked at most, as under the line of a softmax."""

    def after(node: Node) -> list[Node]:
        kept = node.op in COPIES | RELOCATIONS | {"mul", "select_n"}
        return node.outputs[0].users if kept else []

    return any(node.op in _ADDING_UP for node in reached(value.users, after))


def _is_router(structure: Structure, end: End) -> bool:
    """Whether a softmax over the kernel's own features weighs other activations."""
    begins = [node for node in _behind_top(end) if node.op in _SOFTMAX]
    if not begins:
        return False
    if not _over_features(structure, end):  # scores of an additive attention
        return False
    own = {end.value.index}
    ends = structure.kernels | structure.attention_outputs

    def after(item: tuple[Node, bool, bool]) -> Iterator[tuple[Node, bool, bool]]:
        node, normalized, is_log = item
        if node.index in ends or node.op == "carry":
            return
        if structure.residuals.contains(node):  # it would lead to the last layer
            return
        if _is_picked(structure, end, node):
            return
        if node.op in ("exp", "exp2"):
            normalized |= _is_summed(node.output)
            is_log = False
        is_log |= node.op == "log"
        for value in node.outputs:
            own.add(value.index)
            yield from ((user, normalized, is_log) for user in value.users)

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
        normalized
        and not is_log
        and node.index not in ends
        and (node.op == "mul" or node.op in CONTRACTIONS)
        and not _is_query(structure, node)
        and weighs(node)
        for node, normalized, is_log in reached(
            [(node, False, False) for node in begins], after
        )
    )


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


def _behind_top(end: End) -> Iterator[Node]:
    """What takes the value of an end, or the largest of its entries."""
    for node in end.takers:
        yield from node.outputs[0].users if node.op == "top_k" else (node,)
