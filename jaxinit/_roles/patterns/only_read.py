"""Sums of a stream with something else, which only branches read.

Take `h = norm(f(p)); h = h + g(h + p)`, as in a decoder that adds places to its
queries. `f` is computed from `p`, and `h + p` looks as if it were added to the stream
of `p`. But only the kernels of `g` read it, and a stream begins with `h`. Without the
norm that is the stream of `p`, and `f` its first branch.

Messages between nodes and edges, `h = h + g(concatenate([h, e]) + old)`, may take sums
with what `old` was put together from. Those are two streams, and the sum is of neither.
Nor is one of what all layers give, `h1 + h2 + h3`.
"""

from collections.abc import Callable, Iterable, Mapping

from jaxinit._roles.patterns.normalization import is_normalized
from jaxinit._roles.patterns.streams import Addition, is_read_by
from jaxinit._roles.patterns.weighed import unscaled
from jaxinit._roles.reading.flow import Flow
from jaxinit._roles.reading.graph import Node, Value
from jaxinit._roles.reading.primitives import CONTRACTIONS
from jaxinit._roles.reading.walks import ancestor, is_returned

Makers = dict[Addition, set[Node]]  # of a leg: contractions and additions to streams


def only_read(
    flow: Flow,
    additions: Mapping[int, Addition],
    made_of: Callable[[Value], Iterable[Node]],
) -> list[Addition]:
    """Additions whose sum ends in branches, while what is added goes on without it.

    If another sum of the same skip goes on, they are of one stream, which is added to
    in each layer anew.

    Args:
        flow: what is known.
        additions: all that may be of streams, by the index of the node.
        made_of: gives the nodes behind a value, back to contractions and additions.
    """

    def makers(value: Value) -> set[Node]:
        nodes = made_of(value)
        return {x for x in nodes if x.op in CONTRACTIONS or x.index in additions}

    def is_whole(x: Addition) -> bool:
        """Whether a branch has no kernel that is not in a stream behind it."""
        return all(node.index in additions for node in branches[x])

    def goes_on_in(x: Addition, later: Addition) -> bool:
        """Whether a later addition is to a branch itself, or to what it is made of."""
        branch, _ = unscaled(flow, x.branch)
        is_same = branch is skipped[later] and is_normalized(flow, branch)
        is_part = is_whole(x) and not branches[x].isdisjoint(skips[later])
        return (is_same or is_part) and is_read_by(x, later)

    every = additions.values()
    skipped = {x: unscaled(flow, x.skip)[0] for x in every}
    skips: Makers = {x: makers(x.skip) for x in every}
    branches: Makers = {x: makers(x.branch) for x in every}
    added_to = set[Node]().union(*skips.values())
    going = {
        x
        for x in every
        if x.node in added_to or is_returned(x.node.output, CONTRACTIONS)
    }
    anew = {skipped[x] for x in going if is_whole(x)}
    return [
        x
        for x in every
        if not (x in going or x.projected or skipped[x] in anew)
        and any(goes_on_in(x, later) for later in every)
    ]


def gathered(flow: Flow, additions: Iterable[Addition]) -> set[Addition]:
    """Additions of what each of several layers gives, which go on by themselves.

    Take `h1 + h2 + h3`, where `h3` is computed from `h2`, and not from `h1 + h2`.
    """
    found: set[Addition] = set()
    by_sum: dict[Value, Addition] = {}
    for later in additions:
        by_sum[later.node.output] = later
        above = by_sum.get(unscaled(flow, later.skip)[0])
        if above is None or later.projected or is_read_by(above, later):
            continue
        if ancestor(unscaled(flow, above.branch)[0], later.branch):
            found |= {above, later}
    return found
