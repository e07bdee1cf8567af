"""How many values an operation puts into one, and whether that is a mean.

Take `x.sum((1, 2)) / 20` of x: f32[2,4,5,6]. Each entry of the sum is one of 20, and as
it is divided by 20, and no features are summed, this is a mean over places.
"""

import math
from collections.abc import Iterable, Iterator

import jax.numpy as jnp
import numpy as np

from jaxinit._roles.reading.axes import Place, contracted_axes, place_before
from jaxinit._roles.reading.flow import Flow
from jaxinit._roles.reading.graph import Node, Value
from jaxinit._roles.reading.primitives import (
    COPIES,
    ELEMENTWISE,
    MOVES,
    RELOCATIONS,
    SCATTERS,
)
from jaxinit._roles.reading.values import behind, maker, stripped
from jaxinit._roles.reading.walks import reached

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


def pooled(node: Node) -> tuple[Value, int]:
    """What a maximum over windows is of, and of how many entries.

    A maximum of maxima, as of pools in a row, is one over a larger window.
    """
    sizes = list(node.params["window_dimensions"])
    while True:
        before = stripped(node.inputs[0]).node
        if (
            before is None
            or before.op != node.op
            or before.output is not node.inputs[0]
        ):
            break
        strides = before.params["window_strides"]
        inner = before.params["window_dimensions"]
        rows = zip(sizes, strides, inner, strict=True)
        sizes = [(size - 1) * stride + own for size, stride, own in rows]
        node = before
    value = node.inputs[0]
    limited = zip(sizes, value.shape, strict=True)
    return value, math.prod(min(size, whole) for size, whole in limited)


def share_inside(node: Node) -> float:
    """Which share of entries a value is that is padded between its entries, else one.

    What is around a value makes little of it.
    """
    steps = [between + 1 for _, _, between in node.params["padding_config"]]
    return 1 / math.prod(steps)


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


def are_shares_along(value: Value, axes: Iterable[int]) -> bool:
    """Whether entries along some axes are shares of one sum, as those of a softmax."""
    node = maker(value)
    if node is None or number_of_shares(node) is None:
        return False
    total = behind(node.inputs[1], COPIES | RELOCATIONS | _GUARDS).node
    if total is None or total.op != "reduce_sum":
        return False
    if total.inputs[0].shape != node.output.shape:
        return False

    def before(place: Place) -> list[Place]:
        return [] if place[0] is node.output else place_before(place)

    along = [i for i in axes if value.shape[i] > 1]
    found = [
        axis
        for i in along
        for made, axis in reached([(value, i)], before)
        if made is node.output
    ]
    summed = [i for i in total.params["axes"] if node.output.shape[i] > 1]
    return len(found) == len(along) and sorted(found) == sorted(summed)


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
    """Whether it is an average over positions, which are taken to be alike.

    Leaves with a value for each position and each feature, such as positions, leave
    positions what they are.
    """
    axes = flow.fact(node.inputs[0]).axes
    gone = node.params.get("axes", ())
    features = {
        atom.leaf
        for i, axis in enumerate(axes)
        for atom in axis
        if i not in gone and atom.size > 1
    }
    of_features = any(
        atom.size > 1 and atom.leaf not in features for i in gone for atom in axes[i]
    )
    return not of_features and is_mean(flow, node.output, count)
