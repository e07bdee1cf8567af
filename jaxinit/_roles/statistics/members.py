"""Which entries of a value are of different things, such as members of an ensemble.

Take `jax.vmap(lambda w: tanh(x @ w))(p).mean(0)` of p: f32[5,8,4]. Each of five kernels
makes its own `tanh(x @ w)`, so along axis 0 entries are independent, and their mean has
a fifth of their variance. So has the mean of `jnp.stack` of five values. Along the axis
of tokens in `x`, all come of one kernel, and a mean takes them to be alike.
"""

import math
from collections.abc import Callable

from jaxinit._roles.reading.atoms import has_features
from jaxinit._roles.reading.axes import Place, axis_before, before_contraction
from jaxinit._roles.reading.flow import Flow
from jaxinit._roles.reading.graph import Node, Value
from jaxinit._roles.reading.primitives import CONTRACTIONS
from jaxinit._roles.reading.walks import reached


def members_for_one(flow: Flow, node: Node, root: Callable[[Value], int]) -> int:
    """How many independent things a sum takes an entry of, at least one.

    Args:
        flow: what is known.
        node: the sum.
        root: gives the number of the variable that a value is made of.
    """
    (value,) = node.inputs
    apart = (i for i in node.params.get("axes", ()) if _is_apart(flow, value, i, root))
    return math.prod(value.shape[i] for i in apart)


def _is_apart(
    flow: Flow, value: Value, axis: int, root: Callable[[Value], int]
) -> bool:
    """Whether all that has an axis begins with a stack along it, or its own kernels."""

    def is_own(place: Place) -> bool:
        value, axis = place
        if flow.from_leaves(value):
            return has_features([flow.fact(value).axes[axis]])
        return value.node is not None and _is_stack(value.node, axis, root)

    def before(place: Place) -> list[Place]:
        value, axis = place
        node = value.node
        if node is None or is_own(place):
            return []
        if node.op not in CONTRACTIONS:
            found = axis_before(node, value, axis)
        elif node.op == "dot_general":
            found = before_contraction(node, axis)
            found = [place for place in found if is_own(place)] or found
        else:
            return []
        return [x for x in found if flow.data(x[0]) or flow.from_leaves(x[0])]

    places = list(reached([(value, axis)], before))
    return all(is_own(place) or before(place) for place in places)


def _is_stack(node: Node, axis: int, root: Callable[[Value], int]) -> bool:
    """Whether a node puts values of different variables beside one another."""
    if node.op == "concatenate":
        one = all(value.shape[axis] == 1 for value in node.inputs)
        along = one and node.params["dimension"] == axis
    else:
        along = node.op == "stack" and node.params["axis"] == axis
    roots = {root(value) for value in node.inputs} if along else ()
    return len(roots) == len(node.inputs) > 1
