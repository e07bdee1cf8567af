"""Outcomes of runs, summed up by scheme."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxinit._compare import judging, losses
from jaxinit._compare.data import Data
from jaxinit._compare.judging import spread
from jaxinit._compare.result import Comparison, SchemeResult
from jaxinit._compare.training import Outcome
from jaxinit.signal import Signal

_EXPLAINED = 0.05  # share of the variance of the targets that is more than chance


@dataclass(frozen=True)
class Yardstick:
    """What runs are compared with.

    Attributes:
        threshold: loss of training to which steps are counted; None for none.
        loss: loss of the best constant on held-out data; None if it is not known.
        accuracy: how often the commonest label there is right; None without labels.
        error: three standard errors of that.
    """

    threshold: float | None
    loss: float | None
    accuracy: float | None
    error: float = 0.0

    @classmethod
    def of(
        cls, data: Data, loss: losses.Loss, has_accuracy: bool, threshold: float | None
    ) -> "Yardstick":
        """What chance gives on some data.

        Args:
            data: the data.
            loss: the loss.
            has_accuracy: whether outputs are logits for labels.
            threshold: the threshold; None means half of the loss of the best constant.
        """
        chance = losses.chance_loss(loss, data.example)
        if threshold is None and chance is not None:
            threshold = chance / 2
        held = losses.chance_loss(loss, data.held_y)
        if not has_accuracy:
            return cls(threshold, held, None)
        return cls(threshold, held, *losses.chance_accuracy(data.held_y))

    def at_chance(self, held: np.ndarray, accuracies: np.ndarray) -> np.ndarray | None:
        """Which runs are no better on held-out data than a constant; None if unknown.

        Args:
            held: loss of each run on held-out data.
            accuracies: accuracy of each.
        """
        if self.accuracy is not None:
            return accuracies <= self.accuracy + self.error
        if self.loss is not None:
            return held >= (1 - _EXPLAINED) * self.loss
        return None


def summary(
    outcome: Outcome,
    signals: Mapping[str, Signal],
    rates: Sequence[float],
    yardstick: Yardstick,
    steps: int,
    wanted_steps: int,
    unfinished: Sequence[str],
) -> Comparison:
    """The comparison that runs amount to.

    Args:
        outcome: how they went, with axes (schemes, seeds, rates) first.
        signals: the signal at the start, of each scheme.
        rates: the learning rates.
        yardstick: what they are compared with.
        steps: steps they were trained for.
        wanted_steps: steps that were asked for.
        unfinished: schemes without runs.
    """
    diverged = judging.have_diverged(outcome.losses, outcome.held_loss, yardstick.loss)
    held = np.where(diverged, np.inf, outcome.held_loss)
    chosen = [judging.best_rate(scheme.T) for scheme in held]
    at_best = np.stack([held[i, :, rate] for i, rate in enumerate(chosen)])
    best, p = judging.differences(at_best, yardstick.loss)
    names = list(signals)
    results = [
        SchemeResult(
            scheme=name,
            signal=signals[name],
            learning_rate=rates[rate],
            p_best=None if p is None or len(names) == 1 else p[i],
            by_rate=tuple(
                (each, spread(held[i, :, j])) for j, each in enumerate(rates)
            ),
            **_of_runs(
                Outcome(*(x[i, :, rate] for x in outcome)),
                diverged[i, :, rate],
                yardstick,
            ),
        )
        for i, (name, rate) in enumerate(zip(names, chosen, strict=True))
    ]
    return Comparison(
        schemes=tuple(results),
        best=names[best],
        steps=steps,
        seeds=held.shape[1],
        learning_rates=tuple(rates),
        threshold=yardstick.threshold,
        chance_loss=yardstick.loss,
        chance_accuracy=yardstick.accuracy,
        unfinished=tuple(unfinished),
        wanted_steps=wanted_steps,
    )


def _of_runs(
    runs: Outcome, diverged: np.ndarray, yardstick: Yardstick
) -> dict[str, Any]:
    """What is said of the seeds of a scheme at one learning rate."""
    held = np.where(diverged, np.inf, runs.held_loss)
    right = np.where(diverged, 0.0, runs.held_accuracy)
    last = np.where(diverged, np.inf, judging.smoothed(runs.losses)[:, -1])
    last_right = judging.smoothed(runs.accuracies)[:, -1]
    by_chance = yardstick.at_chance(held, right)
    has_accuracy, threshold = yardstick.accuracy is not None, yardstick.threshold
    return {
        "losses": runs.losses,
        "train_loss": spread(last),
        "train_accuracy": spread(last_right) if has_accuracy else None,
        "loss": spread(held),
        "accuracy": spread(right) if has_accuracy else None,
        "diverged": int(diverged.sum()),
        "at_chance": None if by_chance is None else int((by_chance & ~diverged).sum()),
        "steps_to_threshold": None
        if threshold is None
        else spread(judging.steps_to(threshold, runs.losses)),
    }
