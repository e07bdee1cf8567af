"""Losses: what is made of outputs, and has no features of them.

Take `((x @ w - y) ** 2).mean()`. No contraction takes the difference, and all features
of `w` are summed, so it is one to a target, and its square no function of the network.
"""

from collections.abc import Iterable, Iterator

from jaxinit._roles.reading.atoms import has_features
from jaxinit._roles.reading.flow import Flow
from jaxinit._roles.reading.graph import Value
from jaxinit._roles.reading.primitives import CONTRACTIONS, REDUCTIONS
from jaxinit._roles.reading.walks import is_returned, reached


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
    return _has_features(flow, value) or not is_returned(value, REDUCTIONS)


def _has_features(flow: Flow, value: Value) -> bool:
    return has_features(flow.fact(value).axes)


def _made_of(value: Value) -> Iterator[Value]:
    for node in value.users:
        yield from node.outputs
