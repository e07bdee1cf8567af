"""Additions to residual streams, and how two streams that take turns begin.

Take `a1 = a + f(b); b1 = b + g(a1); a2 = a1 + f(b1)`, as in a reversible network, where
`a` and `b` are halves of its input. The second sum is added to `b`, from which `a1` is
computed, and the third to `a1`, from which `b1` is. The branch of the first is not
computed from `a`. It is the first one of that stream all the same. In a loop, `a1` is
what the next round takes for `a`.
"""

import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

from jaxinit._roles.patterns.weighed import unscaled
from jaxinit._roles.reading.depths import Depths
from jaxinit._roles.reading.flow import Flow
from jaxinit._roles.reading.graph import Node, Value
from jaxinit._roles.reading.primitives import ADDITIONS, COPIES, PRODUCTS
from jaxinit._roles.reading.values import stripped
from jaxinit._roles.reading.walks import ancestor

_MOVES = ("reshape", "transpose", "broadcast_in_dim", "squeeze")


@dataclass(eq=False)
class Addition:
    """A branch added to a residual stream.

    Attributes:
        node: the addition.
        skip: what it is added to.
        branch: what is added.
        root: what the branch is computed from.
        projected: whether a contraction is on the shortcut.
        stream: number of its stream.
        above: the addition before it in its stream.
        writers: contractions whose output the branch is.
    """

    node: Node
    skip: Value
    branch: Value
    root: Value
    projected: bool
    stream: int = -1
    above: "Addition | None" = None
    writers: list[Node] = field(default_factory=list)


def takes_turns(
    made: Addition, additions: Collection[Addition], depths: Depths
) -> Iterator[Addition]:
    """Additions to another stream, which one is computed from, and they from it.

    Args:
        made: an addition whose stream goes on, if it is one.
        additions: those that are known.
        depths: how many kernels are between values.
    """
    for other in additions:
        from_other = depths.at_least(1, other.root, made.branch)
        if not from_other or depths.at_least(0, other.root, made.skip):
            continue
        if depths.at_least(1, made.node.output, other.branch):
            yield other


def is_handed_on(addition: Addition, skip: Value) -> bool:
    """Whether a loop hands on a sum for what was added to."""
    node = skip.node
    if node is None or node.op != "carry" or node.back is None:
        return False
    return stripped(node.back) is addition.node.output


def is_read_by(addition: Addition, later: Addition) -> bool:
    """Whether the branch of a later addition is computed from a sum."""
    return ancestor(addition.node.output, later.branch)


def read_last(first: Addition, additions: Collection[Addition], depths: Depths) -> None:
    """Takes branches in turns to be computed from the last sum of the other stream.

    As that of the first is: then they are alike, and tell the layers.

    Args:
        first: the first addition to one of the streams.
        additions: all of them, in order.
        depths: how many kernels are between values.
    """
    last = None
    for addition in additions:
        if addition.stream != first.stream:
            is_other = addition.root in (first.root, last)
            last = addition.node.output if is_other else last
        elif last is not None and depths.at_least(1, last, addition.branch):
            addition.root = last


def join_streams(flow: Flow, additions: Collection[Addition]) -> None:
    """Makes one stream of those that a value is added to in each layer anew.

    Take `h = f(x); h = h + g(h + x); h + x`. The sum `h + g(h + x)` goes on with what
    was added to `x`, and the last one adds to `x` what holds `f(x)` already. Steps of a
    solver, `x + 0.5 * f(x)`, add parts, and are no layers.

    Args:
        flow: what is known.
        additions: all of them, in order, with their streams.
    """
    by_branch: dict[Value, Addition] = {}
    by_skip: dict[Value, list[Addition]] = {}
    for addition in additions:
        skip, _ = unscaled(flow, addition.skip)
        branch, factor = unscaled(flow, addition.branch)
        begun = by_branch.get(skip)
        if begun and ancestor(begun.node.output, addition.branch):
            addition.above = addition.above or begun
            _join(addition, begun, additions)
        if factor != 1:
            continue
        beside = by_skip.setdefault(skip, [])
        for before in beside:
            if not _holds(addition, before):
                continue
            _join(addition, before, additions)
            own = next((x for x in additions if x.node is branch.node), None)
            if own and not is_larger(addition.skip, branch):
                _join(addition, own, additions)
        beside.append(addition)
        by_branch[branch] = addition


def _holds(addition: Addition, before: Addition) -> bool:
    """Whether a branch holds all of another one, and is computed from its sum."""
    if addition.stream == before.stream:
        return False
    holds = {*before.writers} <= {*addition.writers}
    return holds and ancestor(before.node.output, addition.branch)


def _join(addition: Addition, other: Addition, additions: Collection[Addition]) -> None:
    numbers = {addition.stream, other.stream}
    for each in additions:
        if each.stream in numbers:
            each.stream = min(numbers)


def is_larger(value: Value, root: Value) -> bool:
    """Whether a value repeats its root, as what is told to every position, or kernel.

    Learned arrays are repeated for a batch, and begin a stream, as zeros do.
    """
    is_known = root.leaf is not None or root.constant is not None
    return not is_known and math.prod(root.shape) != math.prod(value.shape)


def branch_scales(flow: Flow, addition: Addition) -> Iterator[Node]:
    """Products with leaves between a branch and its addition, with nothing else."""
    node = addition.branch.node
    while node is not None:
        data = flow.data_of(node)
        if node.op == "select_n":
            data = [value for value in data if value.dtype != bool]
        elif node.op in (*ADDITIONS, *PRODUCTS):
            if len(data) != 1:
                return
            if node.op in PRODUCTS and any(map(flow.from_leaves, node.inputs)):
                yield node
        elif node.op not in COPIES and node.op not in _MOVES:
            return
        node = data[0].node if data else None
