"""The moments of what loops hand on, once they have settled.

Take `s = 0.9 s + x` with `s` zero at first. Its variance is 1 after a round, then 1.81,
2.47, and so on: each increment is 0.81 times the one before. After a few rounds the
others follow as a geometric series, to 5.26. Of `s = s + x` the increments are equal,
and their number is that of the rounds. Of a loop of unknown length they must shrink,
else the moments are not known.
"""

import math
from collections.abc import Callable, Sequence

from jaxinit._roles.patterns.loops import Loops
from jaxinit._roles.reading.graph import Node
from jaxinit._roles.reading.walks import is_inexact
from jaxinit._roles.statistics.activations import Activations

_ROUNDS = 8  # that are followed one by one
_CLOSE = 1e-3  # of moments that have settled
_LARGEST_POWER = 50.0  # the logarithm of one
_DRIFT = 1e3  # of second moments, over all rounds of a loop over layers
_DOUBT = "the moments of what a loop hands on do not settle"

Follow = Callable[[Node], None]


def settle(
    loops: Loops, nodes: Sequence[Node], found: Activations, follow: Follow
) -> None:
    """Follows loops until their moments settle, and doubts those that do not.

    Args:
        loops: what loops carry.
        nodes: all nodes, followed twice.
        found: their moments.
        follow: follows a node.
    """
    carries = [x for x in loops.carries if x.back is not None and is_inexact(x.output)]
    carries = [carry for carry in carries if found.known(carry.output) is not None]
    over_time = [x for x in carries if loops.is_by_rounds(x.loops[-1])]
    inside = [node for node in nodes if node.loops]
    changed = _followed(over_time, inside, found, follow)
    layers = [carry for carry in carries if carry not in over_time]
    for carry in layers:
        changed |= _doubts_drift(found, carry)
    for node in nodes if changed else ():
        if node.op != "carry":
            follow(node)


def _followed(
    carries: Sequence[Node], inside: Sequence[Node], found: Activations, follow: Follow
) -> bool:
    """Follows loops over time round by round, and sets what they end with."""
    moments = {carry: [_moments(found, carry)] for carry in carries}
    done = 2
    while any(_goes_on(carry, moments[carry], done) for carry in carries):
        done += 1
        for node in inside:
            if node.op != "carry" or (node in moments and done <= _length(node)):
                follow(node)
        for carry in carries:
            moments[carry].append(_moments(found, carry))
    for carry in carries:
        _set_end(found, carry, moments[carry], done)
    return done > 2


def _goes_on(carry: Node, moments: Sequence[tuple[float, float]], done: int) -> bool:
    if done >= min(_ROUNDS, _length(carry)):
        return False
    return len(moments) < 2 or not _is_close(*moments[-2:])


def _set_end(
    found: Activations, carry: Node, moments: Sequence[tuple[float, float]], done: int
) -> None:
    """Gives a carry what it has in the last round."""
    left = _length(carry) - done
    known = found.spread(carry.output)
    if left <= 0 or known.doubt or len(moments) < 3 or _is_close(*moments[-2:]):
        return
    means, variances = (x[-3:] for x in zip(*moments, strict=True))
    second = variances[-1] + means[-1] ** 2
    mean = _limit(means, left, math.sqrt(second))
    variance = _limit(variances, left, second)
    is_known = math.isfinite(mean) and math.isfinite(variance)
    if is_known:
        found.set(carry.output, mean, max(variance, 0.0))
    else:
        found.set(carry.output, known.mean, known.variance, _DOUBT)


def _limit(last: Sequence[float], left: float, size: float) -> float:
    """Where a sequence ends whose increments are a geometric series.

    Args:
        last: three numbers of it.
        left: how many are to come, maybe infinitely many.
        size: what increments are small against.
    """
    first, second = last[1] - last[0], last[2] - last[1]
    if abs(second) <= _CLOSE * size:
        return last[2]
    ratio = second / first if first else math.inf
    if abs(ratio - 1) <= _CLOSE:
        return last[2] + second * left
    if abs(ratio) < 1 or (ratio > 1 and left * math.log(ratio) < _LARGEST_POWER):
        return last[2] + second * ratio * (1 - ratio**left) / (1 - ratio)
    return math.inf


def _doubts_drift(found: Activations, carry: Node) -> bool:
    """Doubts what a loop over layers hands on, if it drifts far over all of them."""
    assert carry.back is not None
    before, after = found.spread(carry.output), found.spread(carry.back)
    if after.doubt or not (before.second and after.second):
        return False
    factor = abs(math.log(after.second / before.second))
    if factor * _length(carry) < math.log(_DRIFT):
        return False
    found.set(carry.output, before.mean, before.variance, _DOUBT)
    return True


def _length(carry: Node) -> float:
    length = carry.loops[-1].length
    return math.inf if length is None else length


def _moments(found: Activations, carry: Node) -> tuple[float, float]:
    spread = found.spread(carry.output)
    return spread.mean, spread.variance


def _is_close(a: tuple[float, float], b: tuple[float, float]) -> bool:
    size = _CLOSE * math.sqrt(b[0] ** 2 + b[1] + 1e-30)
    return abs(a[0] - b[0]) <= size and abs(a[1] - b[1]) <= _CLOSE * (b[1] + b[0] ** 2)
