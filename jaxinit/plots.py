"""Pictures of signals and of weights, as matplotlib figures.

Every function returns a new `matplotlib.figure.Figure`, which notebooks show: write it
with `save`, or with its `savefig`.
"""

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator

from jaxinit._compare.judging import smoothed, spread
from jaxinit._compare.result import Comparison
from jaxinit._signal.verdict import by_depth
from jaxinit.initializers.base import Initializer
from jaxinit.laws import Law
from jaxinit.laws.rounded import cell
from jaxinit.signal import LayerSignal, PredictedLayer, Signal

# Okabe and Ito, "Color Universal Design" (2008), darker ones first.
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_MARKERS = "osD^vPX"
_PREDICTED: dict[str, Any] = {"linestyle": (0, (5, 2)), "linewidth": 3, "alpha": 0.35}
_FEW_POWERS = 1e3  # ranges below get ticks between powers of ten
_LEGEND_LENGTH = 100  # longest name that fits into one column
_MOST_PANELS = 20
_PANEL_COLUMNS = 5
_MANY = 0.05  # a greater share of zeros is said in words, not drawn


class _Figure(Figure):
    """A figure that notebooks show, without pyplot and its state."""

    def _repr_png_(self) -> bytes:
        picture = io.BytesIO()
        self.savefig(picture, format="png", dpi=80)
        return picture.getvalue()


def save(figure: Figure, path: str | Path) -> list[Path]:
    """Writes a figure as PNG and as SVG.

    Args:
        figure: the figure.
        path: path of both files; a suffix is replaced.

    Returns:
        The two paths.
    """
    _check("figure", figure, Figure)
    paths = [Path(path).with_suffix(suffix) for suffix in (".png", ".svg")]
    with matplotlib.rc_context({"svg.hashsalt": "jaxinit"}):  # the same file each time
        figure.savefig(paths[0], dpi=150)
        figure.savefig(paths[1], metadata={"Date": None})
    return paths


def _check(name: str, value: Any, kind: type) -> None:
    if not isinstance(value, kind):
        raise TypeError(f"{name} must be {_WHAT[kind]}, got {type(value).__name__}.")


_WHAT: dict[type, str] = {
    Figure: "a matplotlib figure, as the functions of this module return",
    Signal: "what signal.propagate returns",
    Comparison: "what compare.compare returns",
    Mapping: "a signal, or a mapping of names to signals",
    Sequence: "what signal.predict returns",
    PredictedLayer: "what signal.predict returns",
    Initializer: "an initializer of jaxinit, such as he_normal()",
}


def activations(signal: Signal, title: str = "Activations by layer") -> Figure:
    """Histograms of the outputs of all layers, one small panel for each.

    Args:
        signal: what `signal.propagate` returned. If it has more than 20 layers, 20 are
            shown, evenly spaced.
        title: title of the figure.

    Returns:
        The figure. Heights are percent of the entries; each panel has its own range.
        The share of zeros, as after a ReLU, is said in words.

    Raises:
        TypeError: if `signal` is not a signal.
    """
    _check("signal", signal, Signal)
    layers = _evenly(signal.layers, _MOST_PANELS)
    columns = min(len(layers), _PANEL_COLUMNS)
    rows = math.ceil(len(layers) / columns)
    figure = _Figure(figsize=(2.1 * columns, 0.7 + 1.6 * rows), layout="constrained")
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
        _write(axes, "not finite" if layer.nonfinite else f"all are {layer.low:.3g}")
    else:
        edges = np.linspace(layer.low, layer.high, len(layer.counts) + 1)
        shares = 100 * np.array(layer.counts) / math.prod(layer.shape)
        axes.stairs(shares, edges, fill=True, color=_COLORS[0])
        axes.xaxis.set_major_formatter("{x:g}")
        if layer.zero:
            share = f"{layer.zero:.0%} are 0"
            _write(axes, share, 0.98, 0.88, ha="right")


def _write(axes: Axes, text: str, x: float = 0.5, y: float = 0.5, ha="center") -> None:
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
        signals: one signal, or a mapping from names of schemes to at most seven.
        predictions: what `signal.predict` returned, by the same names; drawn as
            dashed lines.
        title: title of the figure.

    Returns:
        The figure: activations on the left, gradients on the right. For a model with
        blocks, only the outputs of the blocks are shown. A deviation of zero is marked
        at the lower edge.

    Raises:
        TypeError: if an argument is not signals or predictions.
        ValueError: if there are more schemes than colours, or a prediction has no
            signal, or another number of layers than its signal.
    """
    named = {"measured": signals} if isinstance(signals, Signal) else signals
    _check("signals", named, Mapping)
    predictions = {} if predictions is None else predictions
    if not isinstance(predictions, Mapping):
        raise TypeError(
            "predictions must be a mapping of the names of signals to what "
            f"signal.predict returns, got {type(predictions).__name__}."
        )
    _check_schemes(named, predictions)
    figure = _Figure(figsize=(9, 3.9), layout="constrained")
    panels = figure.subplots(1, 2)
    for axes, what in zip(panels, ("std", "gradient_std"), strict=True):
        curves = {
            name: [getattr(layer, what) for layer in by_depth(signal.layers)]
            for name, signal in named.items()
        }
        expected = {
            name: [getattr(layer, what) for layer in layers]
            for name, layers in predictions.items()
        }
        _draw(axes, curves, expected)
    _number_axes(panels)
    panels[0].set_title("activations, forward", loc="left", size="medium")
    panels[1].set_title("gradients, backward", loc="left", size="medium")
    panels[0].set_ylabel("standard deviation")
    figure.suptitle(title, x=0.01, ha="left")
    lines = list(panels[0].get_lines()[: len(named)])
    if predictions:
        lines.append(Line2D([], [], color="black", label="predicted", **_PREDICTED))
    _add_legend(figure, lines)
    return figure


def _add_legend(figure: Figure, lines: Sequence[Line2D]) -> None:
    """A legend below, in as many columns as fit; names that are too long are cut."""
    labels = [_shortened(str(line.get_label()), _LEGEND_LENGTH) for line in lines]
    for columns in range(min(4, len(lines)), 0, -1):
        legend = figure.legend(
            handles=lines,
            labels=labels,
            loc="outside lower center",
            ncols=columns,
            frameon=False,
            fontsize="small",
        )
        rows = math.ceil(len(lines) / columns)
        figure.set_figheight(3.7 + 0.2 * rows)
        figure.draw_without_rendering()  # else nothing has a size yet
        if legend.get_window_extent().width <= figure.bbox.width or columns == 1:
            return
        legend.remove()


def _check_schemes(named: Mapping[str, Signal], predictions: Mapping[str, Any]) -> None:
    if not 0 < len(named) <= len(_COLORS):
        raise ValueError(
            f"signals must be 1 to {len(_COLORS)} schemes, as many as there are "
            f"colours that everyone can tell apart, got {len(named)}."
        )
    for name, signal in named.items():
        _check(f"signals[{name!r}]", signal, Signal)
    for name, layers in predictions.items():
        if name not in named:
            raise ValueError(
                f"predictions has {name!r}, which is not in signals: {list(named)}."
            )
        _check(f"predictions[{name!r}]", layers, Sequence)
        for layer in layers:
            _check(f"predictions[{name!r}]", layer, PredictedLayer)
        if len(layers) != len(by_depth(named[name].layers)):
            raise ValueError(
                f"predictions[{name!r}] has {len(layers)} layers, the signal "
                f"{len(by_depth(named[name].layers))}."
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
    """Makes room for all positive numbers, at least a factor of ten, and zero below."""
    values = np.concatenate([np.asarray(curve, float) for curve in curves])
    values = values[np.isfinite(values) & (values > 0)]
    low, high = (values.min(), values.max()) if len(values) else (1.0, 1.0)
    middle = math.sqrt(low) * math.sqrt(high)
    low, high = min(low, middle / math.sqrt(10)), max(high, middle * math.sqrt(10))
    margin = (high / low) ** 0.07
    axes.set_ylim(low / margin, high * margin)
    if high / low < _FEW_POWERS:
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.minorticks_off()
    return low / margin


def _number_axes(panels: Sequence[Axes]) -> None:
    """Decimals on all axes, or powers of ten on all if one of them needs these."""
    ranges = [axes.get_ylim() for axes in panels]
    few = all(high / low < 10 * _FEW_POWERS for low, high in ranges)
    decimals = few and all(low > 1e-4 and high < 1e5 for low, high in ranges)
    for axes in panels:
        axes.yaxis.set_major_formatter("{x:g}" if decimals else _power_of_ten)


def _power_of_ten(value: float, _: float) -> str:
    digit, exponent = f"{value:.0e}".split("e")
    factor = "" if digit == "1" else rf"{digit}\times"
    return f"${factor}10^{{{int(exponent)}}}$"


def compare(result: Comparison, title: str = "Loss of training") -> Figure:
    """Loss of training by step, for each scheme, with bands over seeds.

    Args:
        result: what `compare.compare` returned, of at most seven schemes.
        title: title of the figure.

    Returns:
        The figure. Lines are medians over seeds of the mean loss of ten steps, at the
        best learning rate of each scheme, on a log axis if all are positive; bands go
        from the lower to the upper quartile. A line ends where half of the runs have
        diverged; a thin dashed line is the loss of the best constant.

    Raises:
        TypeError: if `result` is not a comparison.
        ValueError: if there are more schemes than colours.
    """
    _check("result", result, Comparison)
    if len(result.schemes) > len(_COLORS):
        raise ValueError(
            f"result must have at most {len(_COLORS)} schemes, as many as there are "
            f"colours that everyone can tell apart, got {len(result.schemes)}."
        )
    figure = _Figure(figsize=(6.4, 3.9), layout="constrained")
    axes = figure.subplots()
    _bare(axes)
    styles = zip(_COLORS, _MARKERS, strict=True)
    lines = []
    for scheme, (color, marker) in zip(result.schemes, styles, strict=False):
        low, middle, high = _bands(scheme.losses)
        places = np.arange(1, len(middle) + 1)
        axes.fill_between(places, low, high, color=color, alpha=0.2, linewidth=0)
        every = max(1, len(middle) // 10)
        lines += axes.plot(
            places,
            middle,
            color=color,
            marker=marker,
            markersize=4,
            markevery=every,
            linewidth=1.2,
            label=scheme.scheme,
        )
    if result.chance_loss is not None:
        axes.axhline(result.chance_loss, color="0.5", linewidth=0.8, linestyle="--")
        end = (1, result.chance_loss)
        where = axes.get_yaxis_transform()
        style: dict[str, Any] = {"size": "x-small", "color": "0.3", "ha": "right"}
        axes.text(*end, "by chance", transform=where, va="bottom", **style)
    if all(np.nanmin(line.get_ydata(), initial=1) > 0 for line in lines):
        axes.set_yscale("log")
    axes.set_xlabel("step")
    axes.set_ylabel("loss")
    axes.set_title(title, loc="left", size="medium")
    _add_legend(figure, lines)
    return figure


def _bands(losses: np.ndarray) -> np.ndarray:
    """Quartiles over seeds of smoothed losses, (3, steps); NaN where they diverged."""
    means = smoothed(losses)
    means = np.sort(np.where(np.isfinite(means), means, np.inf), 0)
    spreads = map(spread, means.T)
    bands = np.array([(x.low, x.median, x.high) for x in spreads]).T
    return np.where(np.isfinite(bands), bands, np.nan)


def weights(
    array: Any, init: Initializer, title: str | None = None, bins: int = 61
) -> Figure:
    """Histogram of drawn weights, with the density of their distribution.

    Args:
        array: the weights, real.
        init: the initializer that should have drawn them.
        title: title of the figure; the initializer and the shape if None.
        bins: number of bins.

    Returns:
        The figure. The expected density is a mean over each bin. For dtypes of 16 bits
        or fewer, bins begin and end where rounding goes to another number. Many zeros,
        as from `sparse`, are left out and said in words.

    Raises:
        TypeError: if the array does not hold numbers, or `init` is not an initializer.
        ValueError: if the array is empty, complex or not finite, or the distribution of
            the initializer has no known density, as for `orthogonal`.
    """
    _check("init", init, Initializer)
    values = _real_numbers(array)
    flat = values.astype(np.float64).ravel()
    if not np.isfinite(flat).all():
        raise ValueError("array must be finite: it holds NaN or infinite numbers.")
    law = init.entry_law(values.shape, np.dtype(np.float32))
    moments = init.moments(values.shape)
    low = min(flat.min(), max(moments.low, moments.mean - 4 * moments.std))
    high = max(flat.max(), min(moments.high, moments.mean + 4 * moments.std))
    edges = _edges(low, high, bins)
    is_narrow = values.dtype.itemsize <= 2 and values.dtype.kind not in "iu"
    if is_narrow:
        edges = _between_numbers(edges, values.dtype)
    figure = _Figure(figsize=(6, 3.4), layout="constrained")
    axes = figure.subplots()
    _bare(axes)
    expected = _probabilities(init, law, edges)
    zero = np.zeros(1, values.dtype)
    ends = cell(zero) if is_narrow else (np.nextafter([0.0], -1), np.zeros(1))
    [of_zero] = _probabilities(init, law, np.concatenate(ends))
    share = np.mean(flat == 0)
    if max(share, of_zero) > _MANY and share < 1:  # a spike would hide the others
        flat = flat[flat != 0]
        expected[np.searchsorted(edges, 0) - 1] -= of_zero
        text = f"{share:.3g} of them are 0\n{of_zero:.3g} expected\nnot drawn here"
        axes.text(0.98, 0.95, text, ha="right", va="top", transform=axes.transAxes)
    drawn = np.histogram(flat, edges)[0] / values.size / np.diff(edges)
    expected = expected / np.diff(edges)
    axes.stairs(drawn, edges, fill=True, color=_COLORS[5], label="drawn")
    axes.stairs(expected, edges, color=_COLORS[6], linewidth=1.4, label="expected")
    axes.set_xlabel("weight")
    axes.set_ylabel("density")
    axes.set_ylim(bottom=0)
    shape = " x ".join(map(str, values.shape))
    axes.set_title(title or f"{init!r}, {shape}", loc="left", size="medium")
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    return figure


def _real_numbers(array: Any) -> np.ndarray:
    values = np.asarray(array)
    is_number = np.issubdtype(values.dtype, np.number)
    if not is_number and not jnp.issubdtype(values.dtype, jnp.floating):
        raise TypeError(f"array must hold numbers, got {type(array).__name__}.")
    if not values.size or np.iscomplexobj(values):
        raise ValueError(
            "array must hold at least one real number, got "
            f"{values.dtype}{list(values.shape)}; look at the parts of a complex one."
        )
    return values


def _probabilities(init: Initializer, law: Law, edges: np.ndarray) -> np.ndarray:
    try:
        return np.diff(law.cdf(edges))
    except NotImplementedError:
        raise ValueError(
            f"init={init!r} has no known density, to compare with: its law is {law}."
        ) from None


def _between_numbers(edges: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Edges, moved to the nearest place where rounding goes to another number."""
    limits = jnp.finfo(dtype)
    inside = np.clip(edges, float(limits.min), float(limits.max)).astype(dtype)
    below, above = cell(inside)
    nearest = np.where(edges - below < above - edges, below, above)
    nearest = np.where(np.isfinite(nearest), nearest, edges)  # beyond the last number
    return np.unique(nearest)


def _edges(low: float, high: float, bins: int) -> np.ndarray:
    margin = max(0.02 * (high - low), 0.05 * max(abs(low), abs(high)))
    margin = margin or 0.5  # if all weights are zero
    return np.linspace(low - margin, high + margin, bins + 1)


def _bare(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
