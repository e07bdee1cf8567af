"""Charts of the last results: python -m benchmarks.charts; nothing is measured."""

import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks import arrays, auto, models
from benchmarks.harness import RESULTS, load

_OURS, _ALSO_OURS, _OTHERS = "#0072B2", "#56B4E9", "0.6"
_MILLISECONDS, _GIGABYTES = 1e3, 1e-9


def draw_arrays(rows: list[dict]) -> Figure:
    """Milliseconds of one draw, by law and method."""
    laws = ("normal", "uniform", "truncated_normal", "he_normal", "constant")
    styles = {
        arrays.OURS: (_OURS, "o"),
        arrays.OURS_JITTED: (_ALSO_OURS, "o"),
        arrays.JAX: ("#D55E00", "s"),
        arrays.TORCH: ("0.35", "^"),
        arrays.NUMPY: ("0.65", "v"),
    }
    figure = Figure(figsize=(7.5, 3.2), layout="constrained")
    axes = figure.subplots()
    for method, (color, marker) in styles.items():
        here = [row for row in rows if row["method"] == method]
        taken = [_MILLISECONDS * statistics.median(row["seconds"]) for row in here]
        places = [laws.index(row["law"]) for row in here]
        axes.plot(taken, places, marker, color=color, label=method, markersize=7)
    axes.set_xscale("log")
    axes.set_xticks([10, 30, 100, 300, 1000], ["10", "30", "100", "300", "1000"])
    axes.minorticks_off()
    axes.set_yticks(range(len(laws)), laws)
    axes.invert_yaxis()
    axes.grid(axis="y", color="0.9")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(frameon=False, loc="outside right center", fontsize=9)
    axes.set_title("milliseconds for float32 (4096, 4096)", loc="left")
    return figure


def draw_models(rows: list[dict]) -> Figure:
    """Cold seconds and memory of a GPT, by framework and method."""
    order = (models.OURS, models.EAGER, models.JITTED)
    rows = sorted(rows, key=lambda x: (x["framework"], order.index(x["method"])))
    titles = {"linen": "Linen", "nnx": "NNX", "haiku": "Haiku", "equinox": "Equinox"}
    names = [f"{titles[row['framework']]}   {row['method']}" for row in rows]
    colors = [_OURS if x["method"] == models.OURS else _OTHERS for x in rows]
    seconds = [statistics.median(row["seconds"]) for row in rows]
    memory = [_GIGABYTES * statistics.median(row["extra_bytes"]) for row in rows]
    figure = Figure(figsize=(7.5, 0.6 + 0.35 * len(rows)), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    _bars(left, names, seconds, colors)
    _bars(right, names, memory, colors)
    right.tick_params(left=False)
    left.set_title("seconds until the parameters are there", loc="left", size=10)
    right.set_title("peak memory, GB", loc="left", size=10)
    return figure


def draw_onepass(rows: list[dict]) -> Figure:
    """Seconds for 290 leaves: of compiling, and of all."""
    rows = sorted(rows, key=lambda row: len(row["method"]))
    figure = Figure(figsize=(7.5, 1.6), layout="constrained")
    axes = figure.subplots()
    names = [row["method"] for row in rows]
    total = [statistics.median(x["total"] for x in row["taken"]) for row in rows]
    compiled = [statistics.median(x["compile"] for x in row["taken"]) for row in rows]
    _bars(axes, names, total, _ALSO_OURS)
    axes.barh(names, compiled, color=_OURS, label="of these, compiling")
    axes.legend(frameon=False, loc="upper right")
    axes.set_title("seconds for 290 leaves by rules", loc="left")
    return figure


def draw_calibration(rows: list[dict]) -> Figure:
    """False alarms over those expected, by rate, with two standard errors."""
    rows = [row for row in rows if "alarms" in row]
    rates = sorted({row["rate"] for row in rows}, reverse=True)
    figure = Figure(figsize=(7.5, 2.9), layout="constrained")
    axes = figure.subplots()
    for place, rate in enumerate(rates):
        here = [row for row in rows if row["rate"] == rate]
        found = [row["alarms"] / row["expected"] for row in here]
        error = 2 / here[0]["expected"] ** 0.5
        span = [place - 0.4, place + 0.4]
        axes.fill_between(span, 1 - error, 1 + error, color="0.85", zorder=0)
        at = np.linspace(place - 0.35, place + 0.35, len(found))
        axes.plot(at, found, "o", color=_OURS, markersize=3)
    axes.set_xticks(range(len(rates)), [f"rate {rate:g}" for rate in rates])
    axes.set_ylim(-0.05, 1.3)
    axes.set_title("false alarms, over those expected", loc="left")
    return figure


def draw_auto(rows: list[dict]) -> Figure:
    """Loss after training, of `schemes.auto()` and of each model's own start."""
    rows = [row for row in rows if row["start"] in (auto.AUTO, auto.OWN)]
    figure = Figure(figsize=(7.5, 2.6), layout="constrained")
    axes = figure.subplots()
    names = list(dict.fromkeys(row["model"] for row in rows))
    styles = {auto.AUTO: (_OURS, "o", -0.12), auto.OWN: (_OTHERS, "s", 0.12)}
    for start, (color, marker, shift) in styles.items():
        here = [row for row in rows if row["start"] == start]
        for row in here:
            losses = [one["loss"] for one in row["taken"]]
            at = [names.index(row["model"]) + shift] * len(losses)
            label = start if row is here[0] else None
            axes.plot(losses, at, marker, color=color, label=label)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.legend(frameon=False)
    axes.set_title("loss after 300 steps, one mark for each seed", loc="left")
    return figure


def draw_roles(rows: list[dict]) -> Figure:
    """Seconds of `jaxinit.roles` of a GPT, which traces it first."""
    figure = Figure(figsize=(7.5, 1.6), layout="constrained")
    axes = figure.subplots()
    names = [f"{row['blocks']} blocks" for row in rows]
    traced = [statistics.median(x["trace"] for x in row["taken"]) for row in rows]
    whole = [statistics.median(x["roles"] for x in row["taken"]) for row in rows]
    read = [a - b for a, b in zip(whole, traced, strict=True)]
    axes.barh(names, traced, color=_OTHERS, label="tracing")
    bars = axes.barh(names, read, left=traced, color=_OURS, label="reading roles")
    axes.bar_label(bars, [f" {seconds:.1f}" for seconds in whole])
    axes.invert_yaxis()
    axes.legend(frameon=False, loc="upper right")
    axes.set_title("seconds for a GPT", loc="left")
    _bare(axes)
    return figure


def _bars(
    axes: Axes, names: Sequence[str], values: Sequence[float], color: Any
) -> None:
    bars = axes.barh(names, values, color=color)
    axes.bar_label(bars, fmt=" %.1f")
    axes.set_ylim(len(names) - 0.4, -0.6)
    _bare(axes)


def _bare(axes: Axes) -> None:
    axes.set_xticks([])
    axes.spines[["top", "right", "bottom"]].set_visible(False)


CHARTS: dict[str, Callable[[list[dict]], Figure]] = {
    "arrays": draw_arrays,
    "models": draw_models,
    "onepass": draw_onepass,
    "roles": draw_roles,
    "calibration": draw_calibration,
    "auto": draw_auto,
}


def chart(name: str) -> Figure:
    """The chart of the last results of a benchmark, and what they were taken on."""
    *_, last = load(name)
    figure = CHARTS[name](last["rows"])
    shown = [f"jax {last['versions']['jax']}", last["processor"], last["taken"]]
    figure.supxlabel(", ".join(shown), color="0.45", size=8, x=0.99, ha="right")
    return figure


def main(folder: Path = RESULTS) -> None:
    """Writes every chart as PNG."""
    for name in CHARTS:
        path = folder / f"{name}.png"
        chart(name).savefig(path, dpi=110, facecolor="white")
        print("wrote", path)


if __name__ == "__main__":
    main()
