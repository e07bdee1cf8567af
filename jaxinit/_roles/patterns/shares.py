"""How many branches of full size a residual stream holds at its end.

Take `h = 0.6 * h + 0.8 * f(h)`, three times. Of what the first branch adds, 0.8 is left
when it is added, 0.48 after the second layer, and 0.288 at the end. The squares of what
is left of all three, 0.083, 0.230 and 0.64, sum to less than one: the numbers make room
for branches as large as the stream, which keeps its size. Of `h = 0.9 * h + f(h)` the
sum is 2.466: each branch may have one part in 2.466 of the variance of the stream,
where it has a third of `h + f(h)`.
"""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence

from jaxinit._roles.patterns.streams import Addition
from jaxinit._roles.patterns.weighed import apart, unscaled
from jaxinit._roles.reading.flow import Flow
from jaxinit._roles.reading.graph import Loop, Value

Write = tuple[int, Addition, Mapping[Loop, int]]  # a writer, and the round of each loop


def branches_held(flow: Flow, writes: Sequence[Write]) -> float:
    """Sum of the squares of what is left of each branch at the end of a stream.

    It is the number of writes where no number makes the stream smaller, and one at
    least. A number that multiplies a branch counts only beside one that multiplies
    what it is added to: else it is left as it is meant.

    Args:
        flow: what is known.
        writes: all writes to the stream, in their order.
    """
    steps = [_left(flow, *pair) for pair in itertools.pairwise(writes)]
    if all(step == 1 for step in steps):
        return len(writes)
    _, last, _ = writes[-1]
    # What the last step does too, and not what is read of the stream in the end.
    is_as_before = any(math.isclose(x, steps[-1]) for x in _after(flow, last))
    left, total = steps[-1] if is_as_before else 1.0, 0.0
    for (_, addition, _), step in zip(writes[::-1], [*steps[::-1], 1.0], strict=True):
        total += (left * _of_branch(flow, addition)) ** 2
        left *= step
    return max(1.0, total)


def _left(flow: Flow, write: Write, after: Write) -> float:
    """What is left of one write when the next one is added, 1 at most."""
    (_, before, here), (_, addition, there) = write, after
    if addition is before and here == there:  # several kernels in one branch
        return 1.0
    left = unscaled(flow, addition.skip)[1]
    if addition.above is not before:  # a round of a loop is between
        left *= [1.0, *_after(flow, before)][-1]
    return min(1.0, abs(left))


def _after(flow: Flow, addition: Addition) -> Iterator[float]:
    """The products of the numbers that multiply a sum before anything else does."""
    value: Value = addition.node.output
    while len(value.users) == 1:
        (value,) = value.users[0].outputs[:1]
        inner, factor = unscaled(flow, value)
        if inner is not addition.node.output:
            return
        yield min(1.0, abs(factor))


def _of_branch(flow: Flow, addition: Addition) -> float:
    """The number that multiplies a branch, beside one that multiplies the stream."""
    _, of_stream = apart(flow, addition.skip, addition.branch)
    if abs(of_stream) >= 1:
        return 1.0
    return min(1.0, abs(unscaled(flow, addition.branch)[1]))
