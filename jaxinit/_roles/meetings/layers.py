"""Which layer of its model each write to a residual stream is of.

The problem: layers do not all write twice. Take the writes of a decoder of two layers,

    self-attention, cross-attention, feed-forward,
    self-attention, cross-attention, feed-forward

The sequence repeats after three, so the layers are 0, 0, 0, 1, 1, 1. What holds:
- Branches that are computed from the same value, side by side, are one step.
- With attentions, the sequence of attentions and others tells the layers, whatever the
  others are: a layer has one attention, or one of each kind, and ends with another.
- Without, branches must repeat in what they compute and in the shapes of their leaves.
- Two steps of one layer are not alike.
- Where this does not hold, nothing is told: mixers of many kinds, a first layer of
  other steps.
"""

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Kind:
    """What a branch is, as far as it tells layers apart.

    Attributes:
        attention: "self" or "cross", if what it writes comes from an attention.
        computed: the operations in it.
        shapes: the shapes of the leaves in it.
    """

    attention: str | None
    computed: Hashable
    shapes: Hashable


Step = tuple[Kind, ...]  # branches that are computed side by side


def layers_of(steps: Sequence[Step]) -> list[int] | None:
    """The number of the layer of each step, from 0; None if that is not told."""
    if len(steps) == 1:
        return [0]
    has_attention = any(kind.attention for step in steps for kind in step)
    found = _by_attention(steps) if has_attention else _by_repetition(steps)
    if found is None or not all(map(_are_distinct, _chunks(steps, found))):
        return None
    return [i // found for i in range(len(steps))]


def _by_attention(steps: Sequence[Step]) -> int | None:
    """The number of steps in a layer, by the attentions among them."""
    sources = [frozenset(kind.attention for kind in step) for step in steps]
    mixed = [frozenset(x and "self" for x in kinds) for kinds in sources]
    sizes = {
        size
        for kinds in (sources, mixed)
        if _is_layer(kinds[: (size := _period(kinds))], len(steps))
    }
    return sizes.pop() if len(sizes) == 1 else None


def _is_layer(kinds: Sequence[frozenset[str | None]], total: int) -> bool:
    """Whether these are the kinds of one layer: attention, then something else."""
    attentions = [kind - {None} for kind in kinds if kind != {None}]
    others = len(kinds) - len(attentions)
    if not attentions or len(frozenset(attentions)) < len(attentions):
        return False
    if others and None not in kinds[-1]:
        return False
    return len(kinds) < total or others <= 1


def _by_repetition(steps: Sequence[Step]) -> int | None:
    """The number of steps in a layer, where all that they do repeats.

    Where no shapes repeat, as in networks that grow wider, what is computed does.
    """
    by_shapes = _period([[kind.shapes for kind in step] for step in steps])
    computed = _period([[kind.computed for kind in step] for step in steps])
    repeats = computed < len(steps) and by_shapes in (computed, len(steps))
    return computed if repeats else None


def _period(items: Sequence[object]) -> int:
    """The least number of items after which a whole sequence repeats.

    >>> _period("abcabc"), _period("aaa"), _period("abab!")
    (3, 1, 5)
    """
    size = len(items)
    divisors = (n for n in range(1, size + 1) if size % n == 0)
    return next(n for n in divisors if items[n:] == items[:-n] or n == size)


def _chunks(steps: Sequence[Step], size: int) -> Iterator[Sequence[Step]]:
    return (steps[i : i + size] for i in range(0, len(steps), size))


def _are_distinct(steps: Sequence[Step]) -> bool:
    return len(frozenset(steps)) == len(steps)
