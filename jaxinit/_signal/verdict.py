"""The verdict on a network, from the statistics of its layers."""

import itertools
import math
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from jaxinit._signal import cure as cures
from jaxinit._signal.layer import LayerSignal

Name = Literal[
    "healthy", "vanishing", "exploding", "saturated", "dead", "symmetric", "not finite"
]

TREND = 10.0  # factor over all repeated layers, forward or backward
_DEAD = 0.75  # share of the units; half of all ReLUs are zero on a single sample
_SATURATED = 0.5  # share of the entries
_DEPTH = 3  # repeated layers that make a trend


@dataclass(frozen=True, repr=False)
class Verdict:
    """A judgement in one word, where it begins to hold, and what helps.

    Attributes:
        name: "healthy", "vanishing", "exploding", "saturated", "dead", "symmetric" or
            "not finite".
        layer: name of the first layer it holds for, in the order in which the signal,
            or the gradient, passes through them; None if healthy.
        text: the finding.
        cure: the likely remedy.
    """

    name: Name
    layer: str | None = None
    text: str = ""
    cure: str = ""

    @property
    def short(self) -> str:
        """The word, and where it begins."""
        return self.name if self.layer is None else f"{self.name} from {self.layer} on"

    def __str__(self):
        if self.layer is None:
            return self.name
        return f"{self.short}: {self.text}. {self.cure}."

    def __repr__(self):
        return f"<Verdict: {self.short}>"


# The layers once more, with the weights of some, by name, multiplied by a factor.
Again = Callable[[Collection[str], float], Sequence[LayerSignal]]


def judge(layers: Sequence[LayerSignal], again: Again, origin: str = "") -> Verdict:
    """The verdict: the first of these that holds, since each one causes those after it.

    Not finite, symmetric (all units of a layer equal, and their gradients too), dead
    (three quarters of the units of a layer never active), saturated (half the entries
    of a bounded layer near a bound), exploding or vanishing.

    Exploding and vanishing are trends over depth: the standard deviation, or the norm
    of the gradient, changes by a factor of ten over three or more layers whose names
    differ in numbers only. Where blocks repeat, layers inside them are not compared:
    a block may scale its branch in any way.

    Args:
        layers: the measured layers.
        again: measures once more, to see whether a cure helps.
        origin: which parameters and inputs are not finite themselves; "" if all are.
    """
    verdicts = itertools.chain(
        _not_finite(layers, origin),
        _symmetric(layers),
        _dead(layers),
        _saturated(layers),
        _trends(layers, again),
    )
    return next(verdicts, Verdict("healthy"))


def _not_finite(layers: Sequence[LayerSignal], origin: str) -> Iterator[Verdict]:
    cure = "Look for a division, log, sqrt, or numbers beyond its dtype"
    if origin:
        cure = f"It was given numbers that are not finite: {origin}; fix that first"
    for layer in layers:
        if layer.nonfinite:
            text = f"{layer.nonfinite} of its outputs are NaN or infinite"
            yield Verdict("not finite", layer.name, text, cure)
    for layer in reversed(layers):
        if layer.gradient_nonfinite:
            text = f"{layer.gradient_nonfinite} of its gradients are NaN or infinite"
            yield Verdict("not finite", layer.name, text, cure)


def _symmetric(layers: Sequence[LayerSignal]) -> Iterator[Verdict]:
    for i, layer in enumerate(layers):
        if layer.identical:
            text = "all its units are equal, and so are their gradients"
            cure = cures.of_symmetry(layers[: i + 1])
            yield Verdict("symmetric", layer.name, text, cure)


def _dead(layers: Sequence[LayerSignal]) -> Iterator[Verdict]:
    for i, layer in enumerate(layers):
        if layer.dead > _DEAD and not layer.flat:  # a head of zeros is not dead
            text = f"{layer.dead:.0%} of its units are zero on the whole batch"
            yield Verdict("dead", layer.name, text, cures.of_death(layers[: i + 1]))


def _saturated(layers: Sequence[LayerSignal]) -> Iterator[Verdict]:
    for i, layer in enumerate(layers):
        if layer.saturated > _SATURATED:
            text = f"{layer.saturated:.0%} of its outputs are at their bounds"
            cure = cures.of_saturation(layers[: i + 1])
            yield Verdict("saturated", layer.name, text, cure)


def _trends(layers: Sequence[LayerSignal], again: Again) -> Iterator[Verdict]:
    for group in repeated(layers):
        yield from _trend(layers, group, "standard deviation", _std, again)
    for group in repeated(layers):
        reverse = group[::-1]
        yield from _trend(
            layers, reverse, "norm of the gradient", _gradient_norm, again
        )


def _std(layer: LayerSignal) -> float:
    return layer.std


def _gradient_norm(layer: LayerSignal) -> float:
    """The norm, which weights scaled by fan_in keep even where the width changes."""
    return layer.gradient_std * math.sqrt(math.prod(layer.shape))


def repeated(layers: Sequence[LayerSignal]) -> list[list[LayerSignal]]:
    """The outermost layers that repeat: of equal names, up to the numbers in them."""
    groups: dict[str, list[LayerSignal]] = {}
    for layer in layers:
        groups.setdefault(re.sub(r"\d+", "#", layer.name), []).append(layer)
    deep = {name: group for name, group in groups.items() if len(group) >= _DEPTH}
    outermost = min((name.count("/") for name in deep), default=0)
    return [group for name, group in deep.items() if name.count("/") == outermost]


def by_depth(layers: Sequence[LayerSignal]) -> list[LayerSignal]:
    """The blocks of a model, or all layers if it has none; without their inputs."""
    blocks = [layer for group in repeated(layers) for layer in group]
    chosen = [layer for layer in layers if not blocks or layer in blocks]
    return [layer for layer in chosen if layer.kind != "input"]


def _rectified(layers: Sequence[LayerSignal]) -> bool:
    """Whether the model seems to use ReLU: many layers have zeros for about half."""
    return 3 * sum(0.2 < layer.zero < 0.8 for layer in layers) >= len(layers)


def _trend(
    layers: Sequence[LayerSignal],
    group: Sequence[LayerSignal],
    what: str,
    size: Callable[[LayerSignal], float],
    again: Again,
) -> Iterator[Verdict]:
    start, end = group[0], group[-1]
    first, last = size(start), size(end)
    if not first or 1 / TREND <= last / first <= TREND:
        return
    grows = last > first

    def is_beyond(layer: LayerSignal) -> bool:
        if grows:
            return size(layer) > first * TREND
        return size(layer) < first / TREND

    begins = next(filter(is_beyond, group))
    text = (
        f"from {start.name} to {end.name} the {what} goes from {first:.2g} "
        f"to {last:.2g}"
    )
    ratio = (last / first) ** (1 / (len(group) - 1))
    low, high = sorted(map(layers.index, (start, end)))
    between = layers[low + 1 : high + 1]
    helps = bool(ratio) and _helps(again, between, 1 / ratio, start, end, size)
    cure = cures.of_trend(ratio, between, _rectified(layers), helps)
    yield Verdict("exploding" if grows else "vanishing", begins.name, text, cure)


def _helps(
    again: Again,
    between: Sequence[LayerSignal],
    factor: float,
    start: LayerSignal,
    end: LayerSignal,
    size: Callable[[LayerSignal], float],
) -> bool:
    """Whether a size keeps its magnitude if weights are multiplied by a factor."""
    if not any(layer.kernel for layer in between):
        return False
    names = [layer.name for layer in between]
    sizes = {layer.name: size(layer) for layer in again(names, factor)}
    first, last = sizes[start.name], sizes[end.name]
    return first > 0 and 1 / TREND <= last / first <= TREND
