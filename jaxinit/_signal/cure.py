"""What is likely to help, given how the parameters were drawn."""

import functools
import math
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from jaxinit._signal.layer import LayerSignal
from jaxinit.initializers.fans import fans

_CLOSE = 0.1  # relative error of a factor that passes for an expected one
_SIGMAS = 5.0  # standard errors within which a sample has an expected deviation
_BORDER = 0.9  # outputs at the borders below this share of all show padding by zeros
_SHARE = 0.2  # of a trend, in logarithms, that a cause must explain to be named
_ELSE = "add normalisation or residual connections"

# Variances by fan_in and fan_out.
_LAWS = {
    "he_normal": lambda n, m: 2 / n,
    "lecun_normal": lambda n, m: 1 / n,
    "glorot_normal": lambda n, m: 2 / (n + m),
}


def of_trend(
    ratio: float, between: Sequence[LayerSignal], rectified: bool, helps: bool
) -> str:
    """What helps against a size that changes by a factor in every layer.

    Args:
        ratio: the factor.
        between: the layers that make it.
        rectified: whether the model looks like one of ReLUs.
        helps: whether weights that are scaled by `1 / ratio` end the trend.
    """
    if not ratio:
        return _of_nothing(between)
    kernels = [layer for layer in between if layer.kernel_std > 0]  # NaN if none
    grows = f"Every layer multiplies it by {ratio:.2g}"
    if not kernels:
        return f"{grows}, and no weights were seen that could make up for it: {_ELSE}"
    has = [name for name in _LAWS if _has(name, kernels)]
    if has:
        grows = f"The weights have the deviation of {has[0]} already. {grows}"
    if not helps:
        return f"{grows}, with weights {1 / ratio:.3g} times as large too: {_ELSE}"
    if rectified and "he_normal" not in has and _is_for_he(kernels, ratio):
        if abs(ratio * math.sqrt(2) - 1) < _CLOSE:
            return (
                "The variance halves in every layer, as by Glorot under ReLU: use "
                "he_normal"
            )
        return f"{grows}, and the weights are not made for ReLU: use he_normal"
    causes = [*_of_padding(kernels, ratio), *_of_width(kernels, ratio, rectified)]
    scaled = f"multiply the standard deviation of the weights by {1 / ratio:.3g}"
    return f"{'; '.join([grows, *causes])}: {scaled}, or {_ELSE}"


def _of_nothing(layers: Iterable[LayerSignal]) -> str:
    if any(layer.kernel_std == layer.kernel_mean == 0 for layer in layers):
        return "Nothing gets through: draw weights that are not zero"
    return (
        "Nothing gets through, though no weights are zero: look for a factor of zero, "
        "such as a gain or a mask, for stop_gradient, and for numbers that underflow"
    )


def of_symmetry(before: Sequence[LayerSignal]) -> str:
    """What helps if all units of the last of these layers are equal."""
    if any(layer.kernel and layer.flat for layer in before):
        return (
            "Training would keep them equal: draw the weights at random, as by "
            "lecun_normal, he_normal or orthogonal, instead of a constant"
        )
    return (
        "Training would keep them equal, though no weights are constant: see whether "
        "it averages over its units, or repeats one"
    )


def of_saturation(before: Sequence[LayerSignal]) -> str:
    """What helps if the outputs of the last of these layers are at their bounds."""
    kernels = [layer for layer in before if layer.kernel][-1:]
    if any(
        _is_larger("glorot_normal", x) and _is_larger("lecun_normal", x)
        for x in kernels
    ):
        return "The weights are too large: use glorot_normal or lecun_normal"
    small = (
        "the weights are not larger than those of lecun_normal, but " if kernels else ""
    )
    return _sentence(
        f"{small}what goes into it is too large: bring the batch to mean zero and "
        "standard deviation one, set biases to zero, or add normalisation before it"
    )


def of_death(before: Sequence[LayerSignal]) -> str:
    """What helps if most units of the last of these layers are zero."""
    cures = []
    for layer in [x for x in before if x.bias_low < 0][-1:]:  # the last one, if any
        cures.append(
            f"set the biases of {layer.name}, the least of which is "
            f"{layer.bias_low:.2g}, to zero or above"
        )
    for layer in [x for x in before if x.kernel][-1:]:
        error = layer.kernel_std / math.sqrt(math.prod(layer.kernel))
        if abs(layer.kernel_mean) > _SIGMAS * error:
            cures.append(
                f"draw the weights of {layer.name} with mean zero, not "
                f"{layer.kernel_mean:.2g}"
            )
    if all(abs(layer.mean) > layer.std for layer in before[-2:-1]):
        cures.append("centre its input")
    cures.append(
        "use an activation that is not zero for all negative inputs, such as leaky_relu"
    )
    return _sentence(", or ".join(cures))


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:]


def _factor(name: str, layer: LayerSignal) -> float:
    """The standard deviation of a layer's weights over the one of an initializer."""
    return layer.kernel_std / math.sqrt(_LAWS[name](*fans(layer.kernel)))


def _error(layer: LayerSignal) -> float:
    """Relative error allowed for the standard deviation of a layer's weights.

    One percent is for narrow dtypes, the rest for a sample of so many.
    """
    return 0.01 + _SIGMAS / math.sqrt(2 * math.prod(layer.kernel))


def _is_larger(name: str, layer: LayerSignal) -> bool:
    return _factor(name, layer) > 1 + _error(layer)


def _has(name: str, kernels: Sequence[LayerSignal]) -> bool:
    """Whether the weights of most of these layers have the deviation of `name`."""
    close = [abs(_factor(name, layer) - 1) < _error(layer) for layer in kernels]
    return 2 * sum(close) > len(close)


def _is_for_he(kernels: Sequence[LayerSignal], ratio: float) -> bool:
    """Whether He's weights would undo most of a trend, and not overshoot."""
    trend = math.log(ratio)
    left = [trend - math.log(_factor("he_normal", layer)) for layer in kernels]
    allowed = max(_CLOSE, abs(trend) / 2)
    return 2 * sum(abs(x) < allowed for x in left) > len(left)


def _of_padding(kernels: Sequence[LayerSignal], ratio: float) -> Iterator[str]:
    """How much padding by zeros shrinks the outputs, if it explains part of a trend."""
    padded = [layer for layer in kernels if layer.border < _BORDER]
    if not padded:
        return
    last = padded[-1]
    sizes = last.shape[1:-1], last.kernel[:-2]
    kept = math.sqrt(math.prod(map(_kept_by_padding, *sizes)))
    if _explains(kept, ratio):
        area, window = ("x".join(map(str, x)) for x in sizes)
        yield (
            f"zeros beside the borders make a factor of {kept:.3g} of that ({window} "
            f"kernels on {area}; outputs of {last.name} at the borders are "
            f'{last.border:.2g} times as large as all), and padding="CIRCULAR" none'
        )


def _of_width(
    kernels: Sequence[LayerSignal], ratio: float, rectified: bool
) -> Iterator[str]:
    """How much narrow layers shrink a signal, if it explains part of a trend.

    The expected mean square stays the same, but its typical value shrinks. Hanin and
    Nica, "Products of many large random matrices and gradients in deep neural networks"
    (2018): each layer adds a variance of 5 / width to its logarithm under ReLU, 2 /
    width without, and lowers the mean of the logarithm by half of that.
    """
    width = sorted(layer.kernel[-1] for layer in kernels)[len(kernels) // 2]
    kept = math.exp((-5 if rectified else -2) / (4 * width))
    if _explains(kept, ratio):
        yield f"layers as narrow as {width} units make one of about {kept:.3g}"


def _explains(factor: float, ratio: float) -> bool:
    """Whether a factor is a good part of a shrinking `ratio`, both per layer."""
    return ratio < 1 and math.log(factor) <= _SHARE * math.log(ratio)


@functools.lru_cache(256)
def _kept_by_padding(length: int, kernel: int) -> float:
    """The share of the variance that one axis keeps in each of many layers.

    A layer takes the mean squares `q` along the axis to `A @ q`, where `A[i, j]` is
    `1 / kernel` if output `i` sees input `j`, else 0. After many layers, each one
    multiplies by the largest eigenvalue of `A`.
    """
    places = np.arange(length)
    offsets = places - places[:, None] + (kernel - 1) // 2
    seen = (offsets >= 0) & (offsets < kernel)
    return float(abs(np.linalg.eigvals(seen / kernel)).max())
