"""Paths of repeated blocks, folded into one."""

import re
from collections.abc import Hashable, Iterable, Sequence
from typing import NamedTuple

# Longer numbers are left alone: they are no layer numbers, but perhaps a hash.
_INTEGER = re.compile(r"(?<![0-9])(?:0|[1-9][0-9]{0,17})(?![0-9])")


class _Run(NamedTuple):
    """Paths that differ only in integers: one for each point of a box of ranges."""

    ranges: tuple[tuple[int, int], ...]
    members: tuple[int, ...]


def fold(
    paths: Sequence[str], kinds: Sequence[Hashable]
) -> list[tuple[str, tuple[int, ...]]]:
    """Paths that differ only in integers that follow each other, as one.

    Args:
        paths: the paths, segments joined by `/`.
        kinds: one value for each path; only paths with equal ones are folded.

    Returns:
        Folded paths, such as `blocks_{0..11}/kernel`, each with the positions of the
        paths that it stands for, in the order of their first.

    >>> fold(["b_0/w", "b_1/w", "head"], "aab")
    [('b_{0..1}/w', (0, 1)), ('head', (2,))]
    """
    groups: dict[tuple[tuple[str, ...], Hashable], list[_Run]] = {}
    for i, (path, kind) in enumerate(zip(paths, kinds, strict=True)):
        ranges = tuple((int(n), int(n)) for n in _INTEGER.findall(path))
        group = groups.setdefault((tuple(_INTEGER.split(path)), kind), [])
        group.append(_Run(ranges, (i,)))
    folded = [
        (_filled(template, run.ranges), run.members)
        for (template, _), runs in groups.items()
        for run in _boxes(runs)
    ]
    return sorted(folded, key=lambda item: min(item[1]))


def _boxes(runs: list[_Run]) -> list[_Run]:
    """Runs joined along each of their integers in turn."""
    if len(runs) == 1:
        return runs
    for axis in range(len(runs[0].ranges)):
        chains: list[list[_Run]] = []
        for run in sorted(runs, key=lambda run: (_others(run, axis), run.ranges[axis])):
            if chains and _follows(chains[-1][-1], run, axis):
                chains[-1].append(run)
            else:
                chains.append([run])
        runs = [_joined(chain, axis) for chain in chains]
    return runs


def _others(run: _Run, axis: int) -> tuple:
    return run.ranges[:axis] + run.ranges[axis + 1 :]


def _follows(a: _Run, b: _Run, axis: int) -> bool:
    return (
        _others(a, axis) == _others(b, axis)
        and a.ranges[axis][1] + 1 == b.ranges[axis][0]
    )


def _joined(chain: Sequence[_Run], axis: int) -> _Run:
    """Consecutive runs as one, in time linear in their members."""
    first, last = chain[0], chain[-1]
    span = (first.ranges[axis][0], last.ranges[axis][1])
    ranges = (*first.ranges[:axis], span, *first.ranges[axis + 1 :])
    return _Run(ranges, tuple(i for run in chain for i in run.members))


def _filled(template: Sequence[str], ranges: Iterable[tuple[int, int]]) -> str:
    texts = [f"{a}" if a == b else f"{{{a}..{b}}}" for a, b in ranges]
    pairs = zip(template, [*texts, ""], strict=True)
    return "".join(text + number for text, number in pairs)
