"""What a value is by the few nodes right behind it: a copy, a mask, a one-hot.

Take `where(length > arange(5), x, 0).T`. Stripped of the transpose it is a `select_n`,
whose first input is a mask, as it is of booleans.
"""

from collections.abc import Collection

import numpy as np

from jaxinit._roles.reading.graph import Node, Value
from jaxinit._roles.reading.primitives import (
    ADDITIONS,
    COPIES,
    PARTS,
    PRODUCTS,
    RELOCATIONS,
    SUMS,
)
from jaxinit._roles.reading.walks import reached

_MASKED = COPIES | RELOCATIONS | PRODUCTS | {"stacked", "branches"}
_OF_WEIGHTS = COPIES | RELOCATIONS | PARTS | {"top_k"}
_ABOVE_ZERO = ADDITIONS | {"max", "min"}  # what keeps logarithms finite
_KEEP_LOGITS = COPIES | SUMS | PRODUCTS | {"select_n"}
OF_ONE_HOTS = COPIES | {"broadcast_in_dim", "reshape", "transpose", "squeeze"}
# As a step of a sequence, or all steps one later.
_PARTS_OF_ONE_HOTS = OF_ONE_HOTS | PARTS | {"each", "pad"}


def behind(value: Value, ops: Collection[str]) -> Value:
    """The value that this one was before some operations on first inputs."""
    while value.node is not None and value.node.op in ops:
        value = value.node.inputs[0]
    return value


def stripped(value: Value) -> Value:
    """The value that this one is a copy of, in other places at most."""
    return behind(value, COPIES | RELOCATIONS)


def maker(value: Value) -> Node | None:
    """The node that makes a value, or makes what it is a copy of."""
    return stripped(value).node


def is_one_hot(value: Value) -> bool:
    """Whether a value says of each index whether it is that of another value."""
    node = behind(value, OF_ONE_HOTS).node
    if node is None or node.op != "eq":
        return False
    counts = (behind(x, OF_ONE_HOTS) for x in node.inputs)
    # One constant zero is no count, but a number that is compared.
    return any(classes(x) > (x.node is None) for x in counts)


def picks_rows(value: Value) -> bool:
    """Whether a value is a part of a one-hot, as a step of it, or a masked one."""
    value = behind(value, _PARTS_OF_ONE_HOTS)
    if value.node is not None and value.node.op == "mul":
        pair = value.node.inputs
        return any(map(picks_rows, pair)) and all(map(is_mask, pair))
    return is_one_hot(value)


def classes(value: Value) -> int:
    """How far a value counts from 0 along an axis; 0 if it does not."""
    value = behind(value, OF_ONE_HOTS)
    if value.node is not None:
        is_count = value.node.op == "iota"
        return value.shape[value.node.params["dimension"]] if is_count else 0
    if value.constant is None:
        return 0
    entries = np.ravel(value.constant)
    return entries.size if np.array_equal(entries, np.arange(entries.size)) else 0


def is_softmax(value: Value) -> bool:
    """Whether a value is weights that sum to one: `exp(x) / sum(exp(x))`."""
    node = behind(value, _OF_WEIGHTS).node
    if node is None or node.op != "div":
        return False
    shares, total = map(stripped, node.inputs)
    if total.node is None or total.node.op != "reduce_sum":
        return False
    return stripped(total.node.inputs[0]) is shares


def is_log_of_softmax(value: Value) -> bool:
    """Whether a value is `x - log(sum(exp(x)))`, or `log(softmax(x) + small)`."""
    node = maker(value)
    if node is not None and node.op == "sub":
        log = maker(node.inputs[1])
        total = maker(log.inputs[0]) if log is not None and log.op == "log" else None
        return total is not None and total.op == "reduce_sum"
    if node is None or node.op != "log":
        return False

    def before(value: Value) -> list[Value]:
        node = maker(value)
        kept = node is not None and node.op in _ABOVE_ZERO
        return list(node.inputs) if kept and node is not None else []

    return any(map(is_softmax, reached([node.inputs[0]], before)))


def is_logit(value: Value, along: int | None) -> bool:
    """Whether a softmax takes a value as it is, shifted or masked at most.

    Args:
        value: the value.
        along: the axis whose entries must share the sum; None for any.
    """

    def after(value: Value) -> list[Value]:
        kept = (node for node in value.users if node.op in _KEEP_LOGITS)
        return [output for node in kept for output in node.outputs]

    def is_total(node: Node) -> bool:
        return node.op == "reduce_sum" and along in (None, *node.params["axes"])

    takers = (node for each in reached([value], after) for node in each.users)
    powers = (node.output for node in takers if node.op in ("exp", "exp2"))
    return any(is_total(user) for power in powers for user in power.users)


def is_mask(value: Value) -> bool:
    """Whether a value is true and false, or was before it became numbers."""
    while value.dtype != bool:
        node = value.node
        if node is None:
            return False
        if node.op == "select_n":
            return all(map(is_filling, node.inputs[1:]))
        if node.op not in _MASKED:
            return False
        value = node.inputs[0]
    return True


def is_flag(value: Value) -> bool:
    """Whether a value is a mask of inputs, or one less such a mask."""
    node = maker(value)
    if node is not None and node.op == "sub" and is_filling(node.inputs[0]):
        value = stripped(node.inputs[1])
        return is_mask(value) or _is_given(value)
    return is_mask(value)


def _is_given(value: Value) -> bool:
    """Whether a value is an input, or what a loop takes of one in a round."""
    value = behind(value, COPIES | RELOCATIONS | {"each"})
    return value.node is None and value.leaf is None and value.constant is None


def is_filling(value: Value) -> bool:
    """Whether a value is a known array, or a number broadcast."""
    return behind(value, COPIES | {"broadcast_in_dim"}).constant is not None
