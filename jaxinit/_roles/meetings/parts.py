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
from jaxinit._roles.meetings.routers import is_router, weighs_chosen
from jaxinit._roles.meetings.tree_cells import tree_gates
from jaxinit._roles.patterns.choices import deciding_nodes
from jaxinit._roles.patterns.losses import is_summed_away
from jaxinit._roles.patterns.regions import End
from jaxinit._roles.patterns.structure import Structure
from jaxinit._roles.patterns.sums import is_inner_product
from jaxinit._roles.reading.axes import is_factor, is_repeated
from jaxinit._roles.reading.functions import Function
from jaxinit._roles.reading.graph import Node, Value
from jaxinit._roles.reading.primitives import POINTWISE
from jaxinit._roles.reading.values import (
    is_log_of_softmax,
    is_mask,
    is_softmax,
    stripped,
)
from jaxinit._roles.reading.walks import ancestor, reached

_SIGMOIDS = ("sigmoid", "hard_sigmoid")
_STEERING = {"gate", "router", "query", "key"}


def find_parts(structure: Structure, endings: Endings) -> dict[End, str]:
    """What each end is in its model, where that is known."""
    parts = {
        end: name
        for node, end, name in _operands(structure, endings)
        if not (_is_sigmoid(end) and _factor(structure, endings, node, end) == "gate")
    }
    owners = endings.owners_behind_norms()
    for end, name in Cells(structure.flow, structure.loops, owners).gates():
        parts.setdefault(end, name)
    for end, name in tree_gates(structure.flow, owners):
        parts.setdefault(end, name)
    routers = set(_chosen(structure, endings))
    for node, end in endings.all():
        if end.root in routers:
            parts[end] = "router"
        elif end not in parts:
            part = _factor(structure, endings, node, end)
            if part is None and _takes_attention(structure, node):
                part = "attention output"
            if part is None and is_router(structure, end):
                part = "router"
            if part is not None:
                parts[end] = part
    return parts


def _chosen(structure: Structure, endings: Endings) -> Iterator[Value]:
    """The outputs whose best entries choose kernels, or weigh what others give."""
    deciding = deciding_nodes(structure.flow)
    for _, end in endings.all():
        decides = any(taker.index in deciding for taker in end.takers)
        if decides or weighs_chosen(structure, end):
            yield end.root


def steering(endings: Endings, parts: dict[End, str]) -> set[int]:
    """Indices of the contractions that steer a branch and do not write it."""
    found = {
        index: {parts.get(end) for end in ends}
        for index, ends in endings.by_kernel.items()
    }
    return {
        index
        for index, names in found.items()
        if "router" in names or (names and names <= _STEERING)
    }


def _is_sigmoid(end: End) -> bool:
    return end.function is not None and end.function.name in _SIGMOIDS


def _operands(
    structure: Structure, endings: Endings
) -> Iterator[tuple[Node, End, str]]:
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
    for node, end in endings.all():
        if end.root.index in names:
            yield node, end, ", ".join(names[end.root.index])


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
            is_gate = wins or _is_sigmoid(end)  # twice one, for example
            if _is_of_loss(structure, end, node, others[0], is_gate):
                continue
            alike = _is_for_all_features(structure, kernel, end, others[0])
            begun = stripped(others[0]).constant is not None  # zeros of a first state
            if is_gate and alike and not begun:  # a weight of colors, or a mask
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
