"""The result of a comparison: prints as a table, and as plain data."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxinit._basics.table import Table, Tabular
from jaxinit._compare.judging import FEWEST, LEVEL, Spread
from jaxinit._signal.layer import LayerSignal
from jaxinit._signal.verdict import by_depth
from jaxinit.signal import Signal


@dataclass(frozen=True, repr=False, eq=False)
class SchemeResult:
    """What came of one scheme, at its best learning rate.

    Attributes:
        scheme: its name.
        signal: the signal through the model at the start, for the first seed.
        learning_rate: the learning rate whose median loss on held-out data is lowest.
        losses: loss of every batch, (seeds, steps).
        train_loss: loss over the last ten steps.
        train_accuracy: accuracy over them; None if outputs are no logits.
        loss: loss on held-out data at the end; infinite for diverged runs.
        accuracy: accuracy on it; 0 for diverged runs, None if outputs are no logits.
        diverged: number of runs whose loss was not finite, or ended ten times as high
            as it began.
        at_chance: number of other runs that are no better on held-out data than the
            best constant: not more often right than the commonest label, by three
            standard errors, or within 5 % of the variance of the targets; None for a
            loss of the user without labels.
        steps_to_threshold: steps until the mean loss of ten steps is at most the
            threshold; infinite if it never is, None without a threshold.
        p_best: p-value that it is no worse than the best scheme; None with too few
            seeds.
        by_rate: pairs of a learning rate and the loss on held-out data at it.
    """

    scheme: str
    signal: Signal
    learning_rate: float
    losses: np.ndarray
    train_loss: Spread
    train_accuracy: Spread | None
    loss: Spread
    accuracy: Spread | None
    diverged: int
    at_chance: int | None
    steps_to_threshold: Spread | None
    p_best: float | None
    by_rate: tuple[tuple[float, Spread], ...]

    def __repr__(self):
        return f"<SchemeResult of {self.scheme}: {self.signal.verdict.short}>"

    @property
    def depths(self) -> list[LayerSignal]:
        """The blocks of the model, or all its layers, without their inputs."""
        return by_depth(self.signal.layers)

    def as_row(self) -> dict[str, Any]:
        """It as plain data: None stands for numbers that are not finite."""
        return _plain(
            {
                "scheme": self.scheme,
                "verdict": self.signal.verdict.short,
                "learning_rate": self.learning_rate,
                "loss": self.loss,
                "accuracy": self.accuracy,
                "train_loss": self.train_loss,
                "train_accuracy": self.train_accuracy,
                "diverged": self.diverged,
                "at_chance": self.at_chance,
                "steps_to_threshold": self.steps_to_threshold,
                "p_best": self.p_best,
                "layers": [layer.name for layer in self.depths],
                "std": [layer.std for layer in self.depths],
                "gradient_std": [layer.gradient_std for layer in self.depths],
                "learning_rates": [
                    {"learning_rate": rate, "loss": loss} for rate, loss in self.by_rate
                ],
            }
        )


@dataclass(frozen=True, repr=False, eq=False)
class Comparison(Tabular):
    """Schemes, tried against each other on one model and its data.

    Attributes:
        schemes: the result of each scheme, in the order in which they were given.
        best: name of the scheme with the lowest median loss on held-out data.
        steps: steps of training.
        seeds: runs of each scheme at each learning rate.
        learning_rates: the learning rates that were tried.
        threshold: what `steps_to_threshold` counts to; None if there is none.
        chance_loss: the loss of the best constant; None if it is not known.
        chance_accuracy: how often the commonest label is right; None without labels.
        unfinished: names of schemes that are left out, as it was interrupted.
        wanted_steps: the steps that were asked for; more than `steps` if interrupted.
    """

    schemes: tuple[SchemeResult, ...]
    best: str
    steps: int
    seeds: int
    learning_rates: tuple[float, ...]
    threshold: float | None
    chance_loss: float | None
    chance_accuracy: float | None
    unfinished: tuple[str, ...] = ()
    wanted_steps: int = 0

    def __repr__(self):
        return f"<Comparison of {len(self.schemes)} schemes over {self.seeds} seeds>"

    def __getitem__(self, scheme: str) -> SchemeResult:
        """The result of a scheme."""
        return {result.scheme: result for result in self.schemes}[scheme]

    @property
    def rows(self) -> list[dict[str, Any]]:
        """One row of plain data for each scheme."""
        return [result.as_row() for result in self.schemes]

    @property
    def signals(self) -> dict[str, Signal]:
        """The signal at the start by scheme, as `plots.depth` takes them."""
        return {result.scheme: result.signal for result in self.schemes}

    def as_json(self) -> dict[str, Any]:
        """All of it in lists, dictionaries, numbers and text."""
        own = {
            name: getattr(self, name)
            for name in (
                *("best", "steps", "seeds", "learning_rates", "threshold"),
                *("chance_loss", "chance_accuracy", "unfinished", "wanted_steps"),
            )
        }
        return {**_plain(own), "notes": self.notes, "rows": self.rows}

    @property
    def notes(self) -> list[str]:
        """What the numbers are, and which schemes differ, in words."""
        notes = [
            f"{self.seeds} seed{'s' * (self.seeds > 1)}, {self.steps} steps; loss and "
            "accuracy on held-out data: median (quartiles), at the best of "
            f"{len(self.learning_rates)} learning "
            f"rate{'s' * (len(self.learning_rates) > 1)}"
        ]
        notes.append(
            "at the start, std from the first layer to the last, gradient back from "
            "the last to the first"
        )
        if self.threshold is not None:
            notes.append(f"steps: until the loss of training is {self.threshold:.3g}")
        if self.chance_accuracy is not None:
            notes.append(f"by chance: accuracy {self.chance_accuracy:.1%}")
        notes.append(self._differences())
        if self.steps < self.wanted_steps:
            notes.append(f"interrupted after {self.steps} of {self.wanted_steps} steps")
        if self.unfinished:
            notes.append(f"interrupted before: {', '.join(self.unfinished)}")
        return notes

    def _differences(self) -> str:
        if len(self.schemes) == 1:
            return "one scheme: nothing to compare it with"
        if self.seeds < FEWEST:
            return (
                f"no winner: {_counted(self.seeds)} too few to tell schemes apart, at "
                f"least {FEWEST} are needed"
            )
        others = [x for x in self.schemes if x.scheme != self.best]
        worse = [x.scheme for x in others if x.p_best < LEVEL]  # pyright: ignore
        equal = [x.scheme for x in others if x.scheme not in worse]
        gone = [x.scheme for x in self.schemes if x.diverged == self.seeds]
        if len(gone) == len(self.schemes):
            return "no winner: all runs diverged"
        worse, equal = ([x for x in y if x not in gone] for y in (worse, equal))
        text = f"lowest loss: {self.best}"
        if worse:
            text += f"; worse beyond chance: {', '.join(worse)}"
        if equal:
            text += f"; not told apart from it: {', '.join(equal)}"
        if gone:
            text += f"; diverged with every seed: {', '.join(gone)}"
        return f"{text} (paired t-test over seeds, Holm over all pairs, 5 %)"

    def _table(self):
        columns = {
            title: column
            for title, cell in _COLUMNS.items()
            if any(column := [cell(result) for result in self.schemes])
        }
        rows = list(zip(*columns.values(), strict=True))
        left = [i for i, title in enumerate(columns) if title in ("scheme", "at start")]
        marks = {
            i: mark
            for i, x in enumerate(self.schemes)
            if (mark := _mark(x, self.seeds))
        }
        return Table(list(columns), rows, left, self.notes, marks)


def _counted(seeds: int) -> str:
    return "1 seed is" if seeds == 1 else f"{seeds} seeds are"


class Interrupted(KeyboardInterrupt):
    """Training that was interrupted.

    Attributes:
        result: the comparison of what was finished.
    """

    def __init__(self, result: Comparison):
        super().__init__("training was interrupted: see result for what was finished")
        self.result = result


def _mark(result: SchemeResult, seeds: int) -> str:
    said = [("diverged", result.diverged), ("at chance", result.at_chance)]
    return ", ".join(f"{count} of {seeds} {what}" for what, count in said if count)


_COLUMNS: dict[str, Callable[[SchemeResult], str]] = {
    "scheme": lambda x: x.scheme,
    "at start": lambda x: x.signal.verdict.name,
    "std": lambda x: _ends([layer.std for layer in x.depths]),
    "gradient": lambda x: _ends([layer.gradient_std for layer in x.depths][::-1]),
    "rate": lambda x: f"{x.learning_rate:g}",
    "training": lambda x: _number(x.train_loss.median),
    "loss": lambda x: _spread(x.loss),
    "accuracy": lambda x: _shares(x.accuracy),
    "steps": lambda x: _steps(x.steps_to_threshold),
    "p": lambda x: "" if x.p_best is None else _p(x.p_best),
}


def _ends(values: Sequence[float]) -> str:
    """The first and the last of numbers by depth."""
    if len(values) < 2:
        return "".join(f"{x:.2g}" for x in values)
    return f"{values[0]:.2g} to {values[-1]:.2g}"


def _number(value: float) -> str:
    return f"{value:.3g}"


def _spread(x: Spread) -> str:
    return f"{_number(x.median)} ({_number(x.low)} to {_number(x.high)})"


def _shares(x: Spread | None) -> str:
    if x is None:
        return ""
    return f"{x.median:.1%} ({100 * x.low:.1f} to {100 * x.high:.1f})"


def _steps(x: Spread | None) -> str:
    if x is None:
        return ""
    return f"{x.median:.0f}" if math.isfinite(x.median) else "never"


def _p(value: float) -> str:
    return "<1e-4" if value < 1e-4 else f"{value:.2g}"


def _plain(value: Any) -> Any:
    """As JSON has it: no numbers that are not finite, and no tuples."""
    match value:
        case Spread():
            return _plain(dataclasses.asdict(value))
        case dict():
            return {key: _plain(inner) for key, inner in value.items()}
        case list() | tuple():
            return [_plain(inner) for inner in value]
        case float():
            return value if math.isfinite(value) else None
    return value
