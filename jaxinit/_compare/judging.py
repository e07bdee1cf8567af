"""What runs say of their schemes: over seeds, and beyond chance or not."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

FEWEST = 5  # seeds for a test
LEVEL = 0.05
WINDOW = 10  # steps over which the loss of training is averaged
_GREW = 10.0  # times the loss at the start


@dataclass(frozen=True)
class Spread:
    """A number over seeds.

    Attributes:
        median: the median.
        low: the lower quartile.
        high: the upper quartile.
    """

    median: float
    low: float
    high: float


def spread(values: Sequence[float] | np.ndarray) -> Spread:
    """Median and quartiles, between neighbours in proportion; some may be infinite."""
    ordered = sorted(map(float, values))
    return Spread(*(_quantile(ordered, share) for share in (0.5, 0.25, 0.75)))


def _quantile(ordered: Sequence[float], share: float) -> float:
    place = share * (len(ordered) - 1)
    below, part = math.floor(place), place % 1
    low, high = ordered[below], ordered[min(below + 1, len(ordered) - 1)]
    return low if not part or low == high else low + part * (high - low)


def smoothed(losses: np.ndarray) -> np.ndarray:
    """Mean over the last ten steps, or as many as there are, along the last axis."""
    places = range(1, losses.shape[-1] + 1)
    with np.errstate(invalid="ignore", over="ignore"):
        means = [
            np.mean(losses[..., max(0, i - WINDOW) : i], -1, np.float64) for i in places
        ]
    return np.stack(means, -1)


def have_diverged(
    losses: np.ndarray, held: np.ndarray, chance: float | None = None
) -> np.ndarray:
    """Which runs diverged: a loss is not finite, or grew to ten times the first one.

    Args:
        losses: loss of each step, along the last axis.
        held: loss on what is held out, at the end; the axes before.
        chance: loss of the best constant, if known: one lucky first batch is no
            measure, so ten times this are allowed at least.
    """
    means = smoothed(losses)
    finite = np.isfinite(losses).all(-1) & np.isfinite(held)
    first = np.maximum(np.abs(losses[..., 0]), chance or 0.0)
    return ~finite | (means[..., -1] > _GREW * first)


def steps_to(threshold: float, losses: np.ndarray) -> np.ndarray:
    """The step after which the mean loss is at or below a threshold; else infinite."""
    reached = smoothed(losses) <= threshold
    reached[:, : min(WINDOW, losses.shape[1]) - 1] = False
    return np.where(reached.any(1), reached.argmax(1) + 1.0, math.inf)


def best_rate(held: np.ndarray) -> int:
    """The learning rate of the lowest median loss; of equal ones the first.

    Args:
        held: loss on what is held out, (rates, seeds); infinite for diverged runs.
    """
    medians = [spread(row).median for row in held]
    return min(range(len(medians)), key=lambda i: (medians[i], np.isinf(held[i]).sum()))


def differences(
    held: np.ndarray, worst: float | None
) -> tuple[int, list[float] | None]:
    """The best scheme, and whether others differ from it beyond chance.

    A paired t-test over seeds (`scipy.stats.ttest_rel`) of the loss on what is held
    out. Seeds are paired, since schemes share their batches and keys. A test of ranks
    cannot fall below `2 / 2**seeds`, 0.06 for five seeds. The best scheme is chosen by
    the same runs, so that p is adjusted over all pairs of schemes, by Holm's method.
    Equal schemes have p = 1.

    Args:
        held: (schemes, seeds), infinite for diverged runs. These count as the greatest
            finite loss.
        worst: the loss by chance, which they count as if it is greater; None if that
            is not known.

    Returns:
        The position of the scheme with the lowest median, and p for each scheme; None
        in place of them with fewer than five seeds.
    """
    medians = [spread(row).median for row in held]
    best = int(np.argmin(medians))
    if held.shape[1] < FEWEST:
        return best, None
    limits = [*held[np.isfinite(held)], *([] if worst is None else [worst])]
    capped = np.where(np.isfinite(held), held, max(limits, default=0.0))
    pairs = list(itertools.combinations(range(len(held)), 2))
    first, second = np.array(pairs, int).reshape(-1, 2).T
    adjusted = holm(paired(capped[first], capped[second]))
    found = dict(zip(pairs, adjusted, strict=True))
    others = ((min(best, i), max(best, i)) for i in range(len(held)))
    return best, [1.0 if i == j else found[i, j] for i, j in others]


def paired(a: np.ndarray, b: np.ndarray) -> list[float]:
    """The p-value of a paired t-test for each row; 1 for equal rows."""
    try:
        from scipy.stats import ttest_rel
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "jaxinit.compare tests differences with scipy: pip install "
            "'jaxinit[compare]'",
            name=error.name,
        ) from error
    difference = a - b
    # Where all differences are equal, scipy divides by zero.
    p = np.where(difference.any(1), 0.0, 1.0)
    varies = np.ptp(difference, 1) > 0
    p[varies] = ttest_rel(a[varies], b[varies], axis=1).pvalue
    return p.tolist()


def holm(p: Sequence[float]) -> list[float]:
    """p-values adjusted so that any false one is rare: Holm (1979).

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    adjusted, highest = [0.0] * len(p), 0.0
    for rank, i in enumerate(sorted(range(len(p)), key=p.__getitem__)):
        highest = max(highest, min(1.0, (len(p) - rank) * p[i]))
        adjusted[i] = highest
    return adjusted
