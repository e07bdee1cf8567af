"""Pictures of signals and of weights, as matplotlib figures.

Every function returns a `matplotlib.figure.Figure` of its own and shows nothing: write
it with `save`, or with its `savefig`.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator

from jaxinit._array.initializer import Initializer
from jaxinit._array.laws import Law
from jaxinit._signal.verdict import repeated
from jaxinit.signal import LayerSignal, PredictedLayer, Signal

# Okabe and Ito, "Color Universal Design" (2008), the darker ones first.
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_MARKERS = "osD^vPX"
_PREDICTED: dict[str, Any] = {"linestyle": (0, (5, 2)), "linewidth": 3, "alpha": 0.35}
_MOST_PANELS = 20
_PANEL_COLUMNS = 5


def save(figure: Figure, path: str | Path) -> list[Path]:
    """Writes a figure as PNG and as SVG.

    Args:
        figure: the figure.
        path: where to, without or with a suffix, which is replaced.

    Returns:
        The two paths.
    """
    paths = [Path(path).with_suffix(suffix) for suffix in (".png", ".svg")]
    with matplotlib.rc_context({"svg.hashsalt": "jaxinit"}):  # the same file each time
        figure.savefig(paths[0], dpi=150)
        figure.savefig(paths[1], metadata={"Date": None})
    return paths


def activations(signal: Signal, title: str = "Activations by layer") -> Figure:
    """Histograms of what every layer returns, one small panel for each.

    Args:
        signal: what `signal.propagate` returned. Of more than 20 layers, 20 are shown,
            evenly spaced.
        title: title of the figure.

    Returns:
        The figure. Heights are percent of the entries; each panel has its own range.
        Entries that are zero, as behind a ReLU, are told in words.
    """
    layers = _evenly(signal.layers, _MOST_PANELS)
    columns = min(len(layers), _PANEL_COLUMNS)
    rows = math.ceil(len(layers) / columns)
    figure = Figure(figsize=(2.1 * columns, 0.7 + 1.6 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, layer in zip(panels, layers, strict=False):
        _histogram(axes, layer)
    for axes in panels[len(layers) :]:
        axes.remove()
    figure.suptitle(title, x=0.01, ha="left")
    figure.supylabel("percent of entries", size="medium")
    return figure


def _evenly(layers: Sequence[LayerSignal], most: int) -> list[LayerSignal]:
    places = np.linspace(0, len(layers) - 1, min(most, len(layers)))
    return [layers[round(place)] for place in places]


def _histogram(axes: Axes, layer: LayerSignal) -> None:
    _bare(axes)
    axes.set_title(_shortened(layer.name), size="small", loc="left")
    axes.tick_params(labelsize="x-small")
    axes.locator_params(nbins=3)
    if layer.nonfinite or layer.low == layer.high:
        axes.set_xticks([])
        axes.set_yticks([])
        _words(axes, "not finite" if layer.nonfinite else f"all are {layer.low:.3g}")
    else:
        edges = np.linspace(layer.low, layer.high, len(layer.counts) + 1)
        shares = 100 * np.array(layer.counts) / math.prod(layer.shape)
        axes.stairs(shares, edges, fill=True, color=_COLORS[0])
        axes.xaxis.set_major_formatter("{x:g}")
        if layer.zero:
            share = f"{layer.zero:.0%} are 0"
            _words(axes, share, 0.98, 0.88, ha="right")


def _words(axes: Axes, text: str, x: float = 0.5, y: float = 0.5, ha="center") -> None:
    axes.text(x, y, text, ha=ha, size="small", transform=axes.transAxes)


def _shortened(name: str, length: int = 24) -> str:
    return name if len(name) <= length else f"…{name[1 - length :]}"


def depth(
    signals: Signal | Mapping[str, Signal],
    predictions: Mapping[str, Sequence[PredictedLayer]] | None = None,
    title: str = "Signal by depth",
) -> Figure:
    """Standard deviation by depth, of activations and of gradients, on log axes.

    Args:
        signals: one signal, or several by the name of their scheme, at most seven.
        predictions: what `signal.predict` returned, by the same names; drawn as
            dashed lines.
        title: title of the figure.

    Returns:
        The figure: activations to the left, gradients to the right. Of a model with
        blocks only the outputs of the blocks are shown. Where a deviation is zero, a
        mark stands at the lower edge.

    Raises:
        ValueError: if there are more schemes than colours, a prediction is of no
            scheme, or its number of layers is another than that of the signal.
    """
    named = {"measured": signals} if isinstance(signals, Signal) else dict(signals)
    predictions = dict(predictions or {})
    _check_schemes(named, predictions)
    figure = Figure(figsize=(9, 3.9), layout="constrained")
    panels = figure.subplots(1, 2)
    for axes, what in zip(panels, ("std", "gradient_std"), strict=True):
        curves = {
            name: [getattr(layer, what) for layer in _by_depth(signal)]
            for name, signal in named.items()
        }
        expected = {
            name: [getattr(layer, what) for layer in layers]
            for name, layers in predictions.items()
        }
        _draw(axes, curves, expected)
    panels[0].set_title("activations, forward", loc="left", size="medium")
    panels[1].set_title("gradients, backward", loc="left", size="medium")
    panels[0].set_ylabel("standard deviation")
    figure.suptitle(title, x=0.01, ha="left")
    lines = list(panels[0].get_lines()[: len(named)])
    if predictions:
        lines.append(Line2D([], [], color="black", label="predicted", **_PREDICTED))
    figure.legend(
        handles=lines,
        loc="outside lower center",
        ncols=4,
        frameon=False,
        fontsize="small",
    )
    return figure


def _by_depth(signal: Signal) -> list[LayerSignal]:
    """The blocks of a model that has blocks, else all its layers, not their inputs."""
    blocks = {layer for group in repeated(signal.layers) for layer in group}
    chosen = [layer for layer in signal.layers if not blocks or layer in blocks]
    return [layer for layer in chosen if layer.kind != "input"]


def _check_schemes(named: Mapping[str, Signal], predictions: Mapping[str, Any]) -> None:
    if not 0 < len(named) <= len(_COLORS):
        raise ValueError(
            f"signals must be 1 to {len(_COLORS)} schemes, as many as there are "
            f"colours that all can tell apart, got {len(named)}."
        )
    for name, layers in predictions.items():
        if name not in named:
            raise ValueError(
                f"predictions has {name!r}, which is not in signals: {list(named)}."
            )
        if len(layers) != len(_by_depth(named[name])):
            raise ValueError(
                f"predictions[{name!r}] has {len(layers)} layers, the signal "
                f"{len(_by_depth(named[name]))}."
            )


def _draw(
    axes: Axes,
    curves: Mapping[str, Sequence[float]],
    expected: Mapping[str, Sequence[float]],
) -> None:
    _bare(axes)
    axes.set_yscale("log")
    floor = _set_limits(axes, [*curves.values(), *expected.values()])
    styles = dict(zip(curves, zip(_COLORS, _MARKERS, strict=True), strict=False))
    for name, values in curves.items():
        color, marker = styles[name]
        places = np.arange(1, len(values) + 1)
        shown = np.where(np.array(values) > 0, values, floor)
        axes.plot(
            places,
            shown,
            color=color,
            marker=marker,
            markersize=4,
            markevery=max(1, len(values) // 20),
            linewidth=1.2,
            label=name,
            clip_on=False,
        )
    for name, values in expected.items():
        axes.plot(
            np.arange(1, len(values) + 1),
            np.where(np.array(values) > 0, values, np.nan),
            color=styles[name][0],
            **_PREDICTED,
        )
    if any(0 in values for values in curves.values()):
        axes.annotate(
            "0", (1, 0), (6, 0), "axes fraction", "offset points", va="center"
        )
    axes.set_xlabel("layer")
    axes.locator_params(axis="x", integer=True)


def _set_limits(axes: Axes, curves: Sequence[Sequence[float]]) -> float:
    """Room for all positive numbers, at least a factor of ten, and for zero below."""
    values = np.concatenate([np.asarray(curve, float) for curve in curves])
    values = values[np.isfinite(values) & (values > 0)]
    low, high = (values.min(), values.max()) if len(values) else (1.0, 1.0)
    middle = math.sqrt(low) * math.sqrt(high)
    low, high = min(low, middle / math.sqrt(10)), max(high, middle * math.sqrt(10))
    margin = (high / low) ** 0.07
    axes.set_ylim(low / margin, high * margin)
    if high / low < 1e3:  # too few powers of ten to read a number by
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:g}")
    axes.minorticks_off()
    return low / margin


def weights(
    array: Any, init: Initializer, title: str | None = None, bins: int = 61
) -> Figure:
    """Histogram of drawn weights against the density that their law expects.

    Args:
        array: the weights, real.
        init: the initializer they are to come from.
        title: title of the figure; the initializer and the shape if None.
        bins: number of bins.

    Returns:
        The figure. The expected density is the mean over each bin of that of the law.

    Raises:
        ValueError: if the array is empty, complex or not finite, or the law of the
            initializer has no density, such as that of `orthogonal`.
    """
    values = np.asarray(array)
    if not values.size or np.iscomplexobj(values):
        raise ValueError(
            "array must hold at least one real number, got "
            f"{values.dtype}{list(values.shape)}; look at the parts of a complex one."
        )
    flat = values.astype(np.float64).ravel()
    if not np.isfinite(flat).all():
        raise ValueError("array must be finite: it holds NaN or infinite numbers.")
    law = init._law(values.shape, np.dtype(np.float32))
    moments = init.moments(values.shape)
    low = min(flat.min(), max(moments.low, moments.mean - 4 * moments.std))
    high = max(flat.max(), min(moments.high, moments.mean + 4 * moments.std))
    edges = _edges(low, high, bins)
    figure = Figure(figsize=(6, 3.4), layout="constrained")
    axes = figure.subplots()
    _bare(axes)
    drawn, _ = np.histogram(flat, edges, density=True)
    expected = _probabilities(init, law, edges) / np.diff(edges)
    axes.stairs(drawn, edges, fill=True, color=_COLORS[5], label="drawn")
    axes.stairs(expected, edges, color=_COLORS[6], linewidth=1.4, label="expected")
    axes.set_xlabel("weight")
    axes.set_ylabel("density")
    axes.set_ylim(bottom=0)
    shape = " x ".join(map(str, values.shape))
    axes.set_title(title or f"{init!r}, {shape}", loc="left", size="medium")
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    return figure


def _probabilities(init: Initializer, law: Law, edges: np.ndarray) -> np.ndarray:
    try:
        return np.diff(law.cdf(edges))
    except NotImplementedError:
        raise ValueError(
            f"init={init!r} has no known density, to compare with: its law is {law}."
        ) from None


def _edges(low: float, high: float, bins: int) -> np.ndarray:
    margin = max(0.02 * (high - low), 0.05 * max(abs(low), abs(high)))
    margin = margin or 0.5  # all weights may be one number, and it zero
    return np.linspace(low - margin, high + margin, bins + 1)


def _bare(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
