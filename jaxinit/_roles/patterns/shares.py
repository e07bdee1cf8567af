"""How many branches of full size a residual stream holds at its end.

Take `h = 0.6 * h + 0.8 * f(h)`, three times. Of what the first branch adds, 0.8 is left
when it is added, 0.48 after the second layer, and 0.288 at the end. The squares of what
is left of all three, 0.083, 0.230 and 0.64, sum to less than one: the numbers make room
for branches as large as the stream, which keeps its size. Of `h = 0.9 * h + f(h)` the
sum is 2.466: each branch may have one part in 2.466 of the variance of the stream,
where it has a third of `h + f(h)`.

What one kernel adds in several rounds is alike in all of them, as the stream changes
little from one to the next. So it adds up, and not its squares: three rounds of
`h + f(h)` with the same kernels hold nine branches of full size.
"""

import itertools
import math
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterator, Mapping, Sequence

from jaxinit._roles.patterns.streams import Addition
from jaxinit._roles.patterns.weighed import apart, unscaled
from jaxinit._roles.reading.flow import Flow
from jaxinit._roles.reading.graph import Loop, Value

Write = tuple[int, Addition, Mapping[Loop, int]]  # a writer, and the round of each loop


def branches_held(
    flow: Flow, writes: Sequence[Write], kernels: Sequence[Hashable]
) -> float:
    """Sum of the squares of what is left of each kernel at the end of a stream.

    It is the number of writes where no number makes the stream smaller, and no kernel
    writes twice. It is one at least. A number that multiplies a branch counts if its
    kernels write in other rounds too, as the step of a solver does, and beside one that
    multiplies what it is added to: else it is left as it is meant.

    Args:
        flow: what is known.
        writes: all writes to the stream, in their order.
        kernels: for each, what is equal for those of the same kernel.
    """
    steps = [_left(flow, *pair) for pair in itertools.pairwise(writes)]
    _, last, _ = writes[-1]
    # What the last step does too, and not what is read of the stream in the end.
    is_as_before = any(
        math.isclose(x, y) for x in _after(flow, last) for y in steps[-1:]
    )
    left = steps[-1] if is_as_before else 1.0
    found: dict[Hashable, list[tuple[float, float, float]]] = defaultdict(list)
    beside: Counter[Hashable] = Counter()  # in one branch, of different inputs
    for i in reversed(range(len(writes))):
        if i + 1 < len(writes) and not _is_same(writes[i], writes[i + 1]):
            beside.clear()
        numbers = _of_branch(flow, writes[i][1])
        found[kernels[i], beside[kernels[i]]].append((left, *numbers))
        beside[kernels[i]] += 1
        left *= steps[i - 1] if i else 1.0
    return max(1.0, sum(map(_held_of_kernel, found.values())))


def _held_of_kernel(parts: Sequence[tuple[float, float, float]]) -> float:
    """The square of what is left of all that one kernel adds.

    Args:
        parts: for each write, what is left of it, the number that multiplies it, and
            that number if the stream is multiplied by one too; else 1.
    """
    if len(parts) == 1:
        ((left, _, beside),) = parts
        return (left * beside) ** 2
    return sum(left * number for left, number, _ in parts) ** 2


def _left(flow: Flow, write: Write, after: Write) -> float:
    """What is left of one write when the next one is added, 1 at most."""
    (_, before, _), (_, addition, _) = write, after
    if _is_same(write, after):  # several kernels in one branch
        return 1.0
    left = unscaled(flow, addition.skip)[1]
    if addition.above is not before:  # a round of a loop is between
        left *= [1.0, *_after(flow, before)][-1]
    return min(1.0, abs(left))


def _is_same(write: Write, after: Write) -> bool:
    """Whether two kernels write to one branch, in the same round."""
    return write[1:] == after[1:]


def _after(flow: Flow, addition: Addition) -> Iterator[float]:
    """The products of the numbers that multiply a sum before anything else does."""
    value: Value = addition.node.output
    while len(value.users) == 1:
        (value,) = value.users[0].outputs[:1]
        inner, factor = unscaled(flow, value)
        if inner is not addition.node.output:
            return
        yield min(1.0, abs(factor))


def _of_branch(flow: Flow, addition: Addition) -> tuple[float, float]:
    """The number that multiplies a branch; and again, if one multiplies the stream."""
    _, of_stream = apart(flow, addition.skip, addition.branch)
    of_branch = min(1.0, abs(unscaled(flow, addition.branch)[1]))
    return of_branch, 1.0 if abs(of_stream) >= 1 else of_branch
