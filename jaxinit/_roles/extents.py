"""How many values an operation puts into one, and whether that is a mean.

Take `x.sum((1, 2)) / 20` of x: f32[2,4,5,6]. Each entry of the sum is one of 20, and as
it is divided by 20, and no features are summed, this is a mean over places.
"""

import math
from collections.abc import Iterator

import jax.numpy as jnp
import numpy as np

from jaxinit._roles.axes import contracted_axes
from jaxinit._roles.flow import Flow
from jaxinit._roles.graph import Node, Value
from jaxinit._roles.primitives import (
    COPIES,
    ELEMENTWISE,
    MOVES,
    RELOCATIONS,
    SCATTERS,
)
from jaxinit._roles.values import behind, stripped
from jaxinit._roles.walks import reached

_GUARDS = {"add", "max"}  # of a small number, which comes second


def has_even_inputs(node: Node, data: Value) -> bool:
    """Whether the inputs of each output can be two halves of equal size."""
    if node.op == "conv_general_dilated":
        place = node.params["dimension_numbers"].rhs_spec[1]
        return node.inputs[1].shape[place] % 2 == 0
    if node.op != "dot_general":
        return False
    axes = contracted_axes(node, node.inputs.index(data))
    return math.prod(data.shape[i] for i in axes) % 2 == 0


def inputs_of_one(node: Node) -> int:
    """How many products one output of a convolution sums."""
    window = node.inputs[1].shape
    out = node.params["dimension_numbers"].rhs_spec[0]
    return math.prod(window) // max(1, window[out])


def is_integer(value: Value) -> bool:
    """Whether a value has integers."""
    return jnp.issubdtype(value.dtype, np.integer)


def width(node: Node) -> int:
    """Number of features of one row that is looked up."""
    if node.op == "dynamic_slice":
        return max(1, math.prod(node.output.shape))
    places = node.params["dimension_numbers"].offset_dims
    return max(1, math.prod(node.output.shape[i] for i in places))


def size_for_one(node: Node) -> int:
    """How many entries a reduction takes for each that it gives."""
    if "window_dimensions" in node.params:
        return math.prod(node.params["window_dimensions"])
    before, after = math.prod(node.inputs[0].shape), math.prod(node.output.shape)
    return max(1, before // max(after, 1))


def rows_for_one(node: Node) -> float:
    """How many rows a scatter adds to one place, on average, at least one."""
    added, places = math.prod(node.inputs[2].shape), math.prod(node.output.shape)
    return max(1.0, added / max(places, 1))


def number_of_shares(node: Node) -> float | None:
    """How many values share the sum that a node divides them by; None if it does not.

    Also if each row is divided by the sum that a scatter made of those of its place.
    """
    if node.op != "div":
        return None
    part, total = (stripped(value) for value in node.inputs)
    total = behind(total, COPIES | RELOCATIONS | {"gather"} | _GUARDS)
    made = total.node
    if made is None or made.op not in SCATTERS | {"reduce_sum"}:
        return None
    is_scatter = made.op in SCATTERS
    if stripped(made.inputs[2 if is_scatter else 0]) is not part:
        return None
    return rows_for_one(made) if is_scatter else float(size_for_one(made))


def leads_to_root(value: Value) -> bool:
    """Whether a sum ends under a root, as in a norm, where it is all but constant."""
    pending = [(value, 0)]
    while pending:
        value, depth = pending.pop()
        for node in value.users:
            if node.op in ("rsqrt", "sqrt"):
                return True
            if node.op in ELEMENTWISE and depth < 6:
                pending += [(output, depth + 1) for output in node.outputs]
            elif node.op in COPIES or node.op in MOVES - {"carry"}:
                pending += [(output, depth) for output in node.outputs]
    return False


def is_mean(flow: Flow, total: Value, count: int) -> bool:
    """Whether a sum of `count` values is divided by their number at once."""

    def after(value: Value) -> Iterator[Value]:
        moved = (node for node in value.users if node.op in COPIES | RELOCATIONS)
        return (node.outputs[0] for node in moved)

    wanted = {"div": count, "mul": 1 / count}
    return any(
        math.isclose(number, wanted[user.op], rel_tol=1e-5)
        for copy in reached([total], after)
        for user in copy.users
        if user.op in wanted
        for value in user.inputs
        if (number := flow.number(value)) is not None
    )


def is_mean_of_places(flow: Flow, node: Node, count: int) -> bool:
    """Whether it is an average over positions, which are taken to be alike."""
    axes = flow.fact(node.inputs[0]).axes
    gone = node.params.get("axes", ())
    of_features = any(atom.size > 1 for i in gone for atom in axes[i])
    return not of_features and is_mean(flow, node.output, count)
