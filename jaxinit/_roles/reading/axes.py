"""Which axis of an operation's input is which axis of its output.

Take `einsum("bqd,bkd->bqk", q, k)`. Axis 0 of both operands is one of batches and the
first of the output; axis 1 of `q` is free and the second, axis 1 of `k` the third; axis
2 is contracted and in no output. So `output_axes` of `k` are `{0: 0, 1: 2}`, and what
is before axis 2 of the output is axis 1 of `k`.
"""

from collections.abc import Callable, Iterable

from jaxinit._roles.reading.atoms import groups
from jaxinit._roles.reading.graph import Node, Value
from jaxinit._roles.reading.primitives import COPIES, ELEMENTWISE, REDUCTIONS, SCATTERS
from jaxinit._roles.reading.walks import reached

Place = tuple[Value, int]  # a value, and one of its axes


def output_axes(node: Node, side: int) -> dict[int, int]:
    """Axes of an operand of a contraction that its output has, and where."""
    if node.op == "conv_general_dilated":
        numbers = node.params["dimension_numbers"]
        spec = numbers.rhs_spec if side else numbers.lhs_spec
        return {spec[0]: numbers.out_spec[1 if side else 0]}
    batch, free = batch_and_free(node, side)
    if side == 0:
        return {i: k for k, i in enumerate((*batch, *free))}
    last = len(node.output.shape) - len(free)
    outside = {i: last + k for k, i in enumerate(free)}
    if node.op == "ragged_dot_general":  # the groups of experts are not in the output
        return outside
    return {i: k for k, i in enumerate(batch)} | outside


def contracted_axes(node: Node, side: int) -> tuple[int, ...]:
    """Axes of an operand of `dot_general` that are summed over."""
    return tuple(map(int, _dot_numbers(node)[0][side]))


def is_factor(node: Node, value: Value) -> bool:
    """Whether a node multiplies another value by this one, and sums over nothing.

    Of an outer product, whose operands both have axes of their own, neither is.
    """
    if node.op != "dot_general" or value not in node.inputs[:2]:
        return node.op == "mul"
    side = node.inputs.index(value)
    return not contracted_axes(node, side) and not batch_and_free(node, side)[1]


def batch_and_free(node: Node, side: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Batch axes of an operand of `dot_general`, and those that only it has."""
    contracted, batch = _dot_numbers(node)
    experts: tuple[int, ...] = ()
    if node.op == "ragged_dot_general" and side:
        ragged = node.params["ragged_dot_dimension_numbers"]
        experts = tuple(ragged.rhs_group_dimensions)
    taken = {*contracted[side], *batch[side], *experts}
    free = _others(len(node.inputs[side].shape), taken)
    return (*map(int, batch[side]), *experts), tuple(free)


def _dot_numbers(node: Node):
    if node.op == "ragged_dot_general":
        return node.params["ragged_dot_dimension_numbers"].dot_dimension_numbers
    return node.params["dimension_numbers"]


def _others(rank: int, gone: Iterable[int]) -> list[int]:
    """All axes but some, which may be counted from the end."""
    left_out = {int(i) % rank for i in gone}
    return [i for i in range(rank) if i not in left_out]


def looked_up_axes(node: Node) -> list[int]:
    """Axes of the first input of a `gather`, or a slice, that places are taken of."""
    before = node.inputs[0].shape
    if node.op == "gather":
        sizes = node.params["slice_sizes"]
        places = map(int, node.params["dimension_numbers"].start_index_map)
        return [i for i in places if sizes[i] != before[i]]
    sizes = zip(before, node.output.shape, strict=True)
    return [i for i, (old, new) in enumerate(sizes) if old != new]


def gathered_axes(node: Node) -> dict[int, int]:
    """Axes of the operand of `gather` that its output has, and where."""
    numbers = node.params["dimension_numbers"]
    gone = (*numbers.collapsed_slice_dims, *numbers.operand_batching_dims)
    kept = _others(len(node.inputs[0].shape), gone)
    return dict(zip(kept, numbers.offset_dims, strict=True))


def scattered_axes(node: Node) -> dict[int, int]:
    """Axes of the output of a scatter that its updates have, and where."""
    numbers = node.params["dimension_numbers"]
    gone = (*numbers.inserted_window_dims, *numbers.operand_batching_dims)
    kept = _others(len(node.output.shape), gone)
    return dict(zip(kept, numbers.update_window_dims, strict=True))


def unreduced_axes(node: Node) -> list[int]:
    """Axes that a reduction keeps, in their order."""
    gone = node.params.get("axes", node.params.get("dimensions", ()))
    return _others(len(node.inputs[0].shape), gone)


def unsqueezed_axes(node: Node) -> list[int]:
    """Axes that `squeeze` keeps, in their order."""
    return _others(len(node.inputs[0].shape), node.params["dimensions"])


def axis_before(node: Node, value: Value, axis: int) -> list[Place]:
    """Where an axis of a node's output comes from: inputs, and the axis in each."""
    if node.op in COPIES or node.op in ELEMENTWISE:
        rule = _before_elementwise
    elif node.op in REDUCTIONS:
        rule = _before_reduction
    else:
        rule = _BEFORE.get(node.op)
    return rule(node, value, axis) if rule is not None else []


def place_before(place: Place) -> list[Place]:
    """Where an axis of a value comes from, by no contraction."""
    value, axis = place
    return [] if value.node is None else axis_before(value.node, value, axis)


def place_before_any(place: Place) -> list[Place]:
    """The same, and through contractions of activations too."""
    value, axis = place
    if value.node is not None and value.node.op == "dot_general":
        return before_contraction(value.node, axis)
    return place_before(place)


def before_contraction(node: Node, axis: int) -> list[Place]:
    """Where an axis of a contraction of activations comes from."""
    return [
        (node.inputs[side], i)
        for side in (0, 1)
        for i, j in output_axes(node, side).items()
        if j == axis
    ]


def of_batches(takers: Iterable[tuple[Node, int]]) -> set[Place]:
    """All places that axes come from which contractions take as batches.

    Args:
        takers: contractions, and the number of the operand to go back from.
    """
    start = [
        (node.inputs[side], axis)
        for node, side in takers
        if node.op == "dot_general"
        for axis in batch_and_free(node, side)[0]
    ]
    return set(reached(start, place_before_any))


def is_repeated(value: Value, axis: int) -> bool:
    """Whether all entries of a value along an axis are one that is repeated."""

    def before(place: Place) -> list[Place]:
        return [] if is_one(place) else place_before(place)

    def is_one(place: Place) -> bool:
        value, axis = place
        return value.shape[axis] == 1 or _repeats(value.node, axis)

    places = list(reached([(value, axis)], before))
    return all(is_one(place) or before(place) for place in places)


def _repeats(node: Node | None, axis: int) -> bool:
    """Whether a node repeats its input along an axis of its output."""
    if node is None or node.op != "broadcast_in_dim":
        return False
    dimensions = [int(i) for i in node.params["broadcast_dimensions"]]
    return axis not in dimensions or (
        node.inputs[0].shape[dimensions.index(axis)] < node.output.shape[axis]
    )


def _before_elementwise(node: Node, value: Value, axis: int) -> list[Place]:
    rank, size = len(value.shape), value.shape[axis]
    like = [v for v in node.inputs if len(v.shape) == rank]
    return [(v, axis) for v in like if v.shape[axis] == size]


def _before_reduction(node: Node, value: Value, axis: int) -> list[Place]:
    kept = unreduced_axes(node)
    return [(node.inputs[0], kept[axis])] if len(kept) == len(value.shape) else []


def _before_transpose(node: Node, value: Value, axis: int) -> list[Place]:
    return [(node.inputs[0], int(node.params["permutation"][axis]))]


def _before_broadcast(node: Node, value: Value, axis: int) -> list[Place]:
    (source,) = node.inputs[:1]
    dimensions = [int(i) for i in node.params["broadcast_dimensions"]]
    if axis not in dimensions:
        return []
    before = dimensions.index(axis)
    return [(source, before)] if source.shape[before] == value.shape[axis] else []


def _before_reshape(node: Node, value: Value, axis: int) -> list[Place]:
    source = node.inputs[0]
    old, new = next(
        (pair for pair in groups(source.shape, value.shape) if axis in pair[1]),
        ([], []),
    )
    large = [i for i in old if source.shape[i] > 1]
    if len(large) == 1 and [j for j in new if value.shape[j] > 1] == [axis]:
        return [(source, large[0])]
    if not large and len(old) == len(new):
        return [(source, old[new.index(axis)])]
    return []


def _before_squeeze(node: Node, value: Value, axis: int) -> list[Place]:
    return [(node.inputs[0], unsqueezed_axes(node)[axis])]


def _same_rank(node: Node, value: Value, axis: int) -> list[Place]:
    return [(v, axis) for v in node.inputs if len(v.shape) == len(value.shape)]


def _before_stack(node: Node, value: Value, axis: int) -> list[Place]:
    along = node.params["axis"]
    return [(v, axis - (axis > along)) for v in node.inputs if axis != along]


def _before_tile(node: Node, value: Value, axis: int) -> list[Place]:
    return [(node.inputs[0], axis)] if node.params["reps"][axis] == 1 else []


def _before_split(node: Node, value: Value, axis: int) -> list[Place]:
    return [(node.inputs[0], axis)] if axis != node.params["axis"] else []


def _before_each(node: Node, value: Value, axis: int) -> list[Place]:
    return [(node.inputs[0], axis + 1)]


def _before_stacked(node: Node, value: Value, axis: int) -> list[Place]:
    return [(node.inputs[0], axis - 1)] if axis else []


def _before_gather(node: Node, value: Value, axis: int) -> list[Place]:
    return [(node.inputs[0], i) for i, j in gathered_axes(node).items() if j == axis]


def _before_scatter(node: Node, value: Value, axis: int) -> list[Place]:
    places = scattered_axes(node)
    return [(node.inputs[2], places[axis])] if axis in places else []


def _every_input(node: Node, value: Value, axis: int) -> list[Place]:
    return [(v, axis) for v in node.inputs]


_BEFORE: dict[str, Callable[[Node, Value, int], list[Place]]] = {
    "transpose": _before_transpose,
    "broadcast_in_dim": _before_broadcast,
    "reshape": _before_reshape,
    "squeeze": _before_squeeze,
    "concatenate": _same_rank,
    "stack": _before_stack,
    "pad": _same_rank,
    "slice": _same_rank,
    "dynamic_update_slice": _same_rank,
    "tile": _before_tile,
    "split": _before_split,
    "each": _before_each,
    "stacked": _before_stacked,
    "gather": _before_gather,
    "branches": _every_input,
} | dict.fromkeys(SCATTERS, _before_scatter)
