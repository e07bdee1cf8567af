"""Dropouts: what they take, and the share of it that they keep.

Take `where(uniform(key, x.shape) < 0.9, x / 0.9, 0)`. A tenth of `x` becomes zero, so
the mean square of all is 0.9 times as large. The division by 0.9 makes it `1 / 0.81`
times as large: together `1 / 0.9`.
"""

from jaxinit._roles.reading.flow import Flow
from jaxinit._roles.reading.graph import Node, Value
from jaxinit._roles.reading.values import maker

_LESS, _MORE = ("lt", "le"), ("gt", "ge")
_BITS = ("random_bits", "rng", "threefry")  # how names of random integers begin
_OF_BITS = ("or", "shift_right_logical")
# How a number from 0 to 1 is made of one from 1 to 2.
_TO_UNIFORM = {"max": 0.0, "add": 0.0, "mul": 1.0, "sub": 1.0}


def dropped(flow: Flow, node: Node) -> tuple[Value, float] | None:
    """The activations that a node takes if it is a dropout, and the share it keeps."""
    found = _dropped(flow, node)
    return found if found and flow.data(found[0]) else None


def _dropped(flow: Flow, node: Node) -> tuple[Value, float] | None:
    """The same of any value."""
    if node.op == "select_n" and len(node.inputs) == 3:
        which, off, on = node.inputs
        share = _share(flow, which)
        if share is not None and flow.number(off) == 0:
            return on, share
        if share is not None and flow.number(on) == 0:
            return off, 1 - share
    if node.op == "mul":
        for i in range(2):
            share = _share(flow, node.inputs[i])
            if share is not None:
                return node.inputs[1 - i], share
    return None


def _share(flow: Flow, mask: Value) -> float | None:
    """The share of ones in a random mask; None if it is no such mask."""
    node = maker(mask)
    if node is None:
        return None
    if node.op == "not":
        share = _share(flow, node.inputs[0])
        return None if share is None else 1 - share
    if node.op not in (*_LESS, *_MORE):
        return None
    drawn, bound = node.inputs
    limit, is_below = flow.number(bound), node.op in _LESS
    if limit is None:
        drawn, limit, is_below = bound, flow.number(drawn), not is_below
    if limit is None or not _is_uniform(flow, drawn):
        return None
    share = min(max(limit, 0.0), 1.0)
    return share if is_below else 1 - share


def _is_uniform(flow: Flow, value: Value) -> bool:
    """Whether a value is random numbers from 0 to 1, as `jax.random.uniform` makes."""
    while (node := maker(value)) is not None:
        if node.op.startswith(_BITS):
            return True
        numbers = list(map(flow.number, flow.numbers_of(node)))
        if node.op in _TO_UNIFORM and numbers != [_TO_UNIFORM[node.op]]:
            return False
        if node.op not in (*_TO_UNIFORM, *_OF_BITS):
            return False
        value = next(v for v in node.inputs if flow.number(v) is None)
    return False
