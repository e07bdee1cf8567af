"""Lookups in which activations choose among kernels, and not rows of a table.

Take `einsum("bef,bf->be", w[chosen], x)` of w: f32[8,4,6], `chosen` made by a router.
What is looked up has two axes of `w`, of which one is summed over with activations: it
is a kernel. So is `b[chosen]` its bias, as the same places are chosen.
"""

from collections.abc import Collection, Iterable, Iterator

from jaxinit._roles.atoms import Axes
from jaxinit._roles.axes import batch_and_free, contracted_axes
from jaxinit._roles.flow import Flow
from jaxinit._roles.graph import Node, Value
from jaxinit._roles.primitives import COPIES, ELEMENTWISE, RELOCATIONS
from jaxinit._roles.values import stripped
from jaxinit._roles.walks import is_inexact, reached

_LOOKUPS = ("gather", "dynamic_slice")
_OF_INDICES = COPIES | RELOCATIONS | ELEMENTWISE | {"concatenate"}


def choices(flow: Flow) -> set[int]:
    """Indices of the lookups in leaves that give kernels, or their biases."""
    lookups = [node for node in flow.graph.nodes if _is_chosen(flow, node)]
    kernels = {node.index for node in _kernels(flow)}
    indices = {_sources(flow, x) for x in lookups if x.index in kernels}
    return {node.index for node in lookups if _sources(flow, node) in indices}


def _is_chosen(flow: Flow, node: Node) -> bool:
    is_lookup = node.op in _LOOKUPS and flow.from_leaves(node.inputs[0])
    return is_lookup and any(_depends_on_floats(flow, v) for v in node.inputs[1:])


def _depends_on_floats(flow: Flow, value: Value) -> bool:
    """Whether places are chosen by activations, and not by integers that are inputs."""

    def before(value: Value) -> list[Value]:
        is_end = value.node is None or is_inexact(value)
        return [] if is_end or value.node is None else flow.data_of(value.node)

    return any(map(is_inexact, reached([value], before)))


def _kernels(flow: Flow) -> Iterator[Node]:
    """Lookups whose places have inputs and outputs of a contraction."""
    for node in flow.graph.nodes:
        for side in (0, 1) if node.op == "dot_general" else ():
            made = stripped(node.inputs[side]).node
            if made is None or made.op not in _LOOKUPS:
                continue
            axes = flow.fact(node.inputs[side]).axes
            own = flow.fact(made.inputs[0]).carried
            summed, free = contracted_axes(node, side), batch_and_free(node, side)[1]
            if _has(own, axes, summed) and _has(own, axes, free):
                yield made


def _has(leaves: Collection[int], axes: Axes, some: Iterable[int]) -> bool:
    """Whether one of some axes is one of leaves."""
    return any(atom.leaf in leaves and atom.size > 1 for i in some for atom in axes[i])


def _sources(flow: Flow, node: Node) -> frozenset[int]:
    """What the places of a lookup are computed from, before they are made positive."""

    def before(value: Value) -> list[Value]:
        made = value.node
        followed = made is not None and made.op in _OF_INDICES
        return flow.data_of(made) if made is not None and followed else []

    found = reached(filter(flow.data, node.inputs[1:]), before)
    return frozenset(value.index for value in found if not before(value))
