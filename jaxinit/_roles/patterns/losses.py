"""Losses: what is made of outputs, and has no features of them.

Take `((x @ w - y) ** 2).mean()`. No contraction takes the difference, and all features
of `w` are summed, so it is one to a target, and its square no function of the network.
"""

from collections.abc import Iterable, Iterator

from jaxinit._roles.reading.flow import Flow
from jaxinit._roles.reading.graph import Value
from jaxinit._roles.reading.primitives import CONTRACTIONS, REDUCTIONS
from jaxinit._roles.reading.walks import reached


def is_summed_away(flow: Flow, made: Iterable[Value]) -> bool:
    """Whether no contraction takes values, and no output has features of them."""

    def remains(value: Value) -> bool:
        is_taken = any(x.op in CONTRACTIONS or x.op == "carry" for x in value.users)
        return is_taken or (value.is_output and _has_features(flow, value))

    return not any(map(remains, reached(made, _made_of)))


def is_in_loss(flow: Flow, value: Value) -> bool:
    """Whether nothing but sums of a value are given, in which no features are left.

    One feature is none, and yet it must be summed, as over a batch.
    """
    if not is_summed_away(flow, [value]):
        return False
    return _has_features(flow, value) or not _is_given(value)


def _has_features(flow: Flow, value: Value) -> bool:
    return any(atom.size > 1 for axis in flow.fact(value).axes for atom in axis)


def _made_of(value: Value) -> Iterator[Value]:
    for node in value.users:
        yield from node.outputs


def _is_given(value: Value) -> bool:
    """Whether an output is made of a value by no sum, or other reduction."""

    def after(value: Value) -> Iterator[Value]:
        kept = (node for node in value.users if node.op not in REDUCTIONS)
        return (output for node in kept for output in node.outputs)

    return any(found.is_output for found in reached([value], after))
