"""Tensors that hand tokens to slots, and how many tokens each slot gets.

Take `one_hot(expert, 4)[:, :, None] * one_hot(place, 2)[:, None, :]` of 8 tokens, of
shape (8, 4, 2). Each token is in one of 8 slots, so 8 of its 64 entries are one. Summed
over tokens, each slot gets one token.
"""

import math

import numpy as np

from jaxinit._roles.patterns.extents import size_for_one
from jaxinit._roles.reading.axes import contracted_axes
from jaxinit._roles.reading.graph import Node, Value
from jaxinit._roles.reading.primitives import ADDITIONS, PARTS
from jaxinit._roles.reading.values import OF_ONE_HOTS, behind, classes, is_mask

_JOINS = ADDITIONS | {"or", "max"}
_TOTALS = ("reduce_sum", "reduce_max", "reduce_or")
_KEEP_SHARES = OF_ONE_HOTS | PARTS | {"each"}
_DEEPEST = 12  # operations that make one dispatch


def tokens_for_one(node: Node, side: int) -> float | None:
    """How many tokens one output of a contraction with a dispatch gets, at least one.

    Args:
        node: the contraction.
        side: which operand may be the tensor of zeros and ones.

    Returns:
        The number on average; None if the operand is no dispatch.
    """
    dispatch = node.inputs[side]
    share = _share(dispatch, _DEEPEST) if node.op == "dot_general" else None
    if share is None:
        return None
    terms = math.prod(dispatch.shape[axis] for axis in contracted_axes(node, side))
    return max(1.0, share * terms)


def terms_for_one(node: Node) -> float:
    """How many products a contraction sums that a one-hot does not make zero.

    Take `one_hot(expert, 4) * weight`, contracted with the outputs of 4 experts: of
    the 4 products that are summed, only one is not zero.
    """
    terms = math.prod(node.inputs[0].shape[i] for i in contracted_axes(node, 0))
    for value in node.inputs[:2]:
        share = _share(value, _DEEPEST, weighed=True)
        if share is not None:
            terms = min(terms, max(1.0, terms * share))
    return terms


def _share(value: Value, depth: int, weighed: bool = False) -> float | None:
    """The share of ones among zeros; None if a value is not made of one-hots.

    Args:
        value: the value.
        depth: how many operations to go back.
        weighed: whether something else may multiply the ones.
    """
    node = behind(value, _KEEP_SHARES).node
    if node is None or not depth:
        return None
    if node.op == "eq":
        count = max(map(classes, node.inputs))
        if not count:
            return None
        return math.prod(_share_counted(x, depth - 1) for x in node.inputs) / count
    if node.op in ("mul", "and"):
        shares = [_share(x, depth - 1, weighed) for x in node.inputs]
        others = [x for x, s in zip(node.inputs, shares, strict=True) if s is None]
        known = [share for share in shares if share is not None]
        is_known = known and (weighed or all(map(is_mask, others)))
        return math.prod(known) if is_known else None
    if node.op in ("gt", "ne") and _is_filled(node.inputs[1], 0):  # where weights are
        return _share(node.inputs[0], depth - 1, weighed=True)
    if node.op in _JOINS:
        shares = [_share(x, depth - 1, weighed) for x in node.inputs]
        return None if None in shares else sum(filter(None, shares))
    if node.op == "dot_general":
        depth = min(depth - 1, 4)
        left, right = (_share(x, depth, weighed) for x in node.inputs[:2])
        if not (left or right) or not (weighed or (left and right)):
            return None
        terms = math.prod(node.inputs[0].shape[i] for i in contracted_axes(node, 0))
        return min(1.0, terms * (left or 1.0) * (right or 1.0))
    if node.op in _TOTALS:
        share = _share(node.inputs[0], depth - 1, weighed)
        return None if share is None else share * size_for_one(node)
    return None


def _share_counted(value: Value, depth: int) -> float:
    """The share of numbers that are counted, where others are left below zero.

    Of places `cumsum(hot, 0) * hot - 1`, those are -1 where the one-hot `hot` is zero.
    """
    node = behind(value, OF_ONE_HOTS).node
    if node is None or node.op != "sub" or not _is_filled(node.inputs[1], 1):
        return 1.0
    return _share(node.inputs[0], depth, weighed=True) or 1.0


def _is_filled(value: Value, number: int) -> bool:
    constant = behind(value, OF_ONE_HOTS).constant
    return constant is not None and bool(np.all(constant == number))
