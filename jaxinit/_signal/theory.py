"""The signal that mean-field theory predicts for a dense network, by quadrature."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from jaxinit.initializers.base import Initializer
from jaxinit.initializers.gain import Activation, mean_over_normal


@dataclass(frozen=True)
class PredictedLayer:
    """Predictions for a layer `fn(x @ kernel + bias)` of a very wide network.

    Attributes:
        preactivation_std: standard deviation of `x @ kernel + bias`.
        mean: mean of the output.
        std: standard deviation of the output.
        gradient_std: standard deviation of the gradient with respect to the output, if
            the gradient with respect to the last output has standard deviation one.
    """

    preactivation_std: float
    mean: float
    std: float
    gradient_std: float


def predict(
    fn: Activation,
    kernel_init: Initializer,
    widths: Sequence[int],
    *,
    bias_init: Initializer | None = None,
    second_moment: float = 1.0,
) -> tuple[PredictedLayer, ...]:
    """Predicts the signal through layers `fn(x @ kernel + bias)`, without drawing.

    With weights of variance `s_l` and biases of variance `b_l`, inputs to `fn` are
    normal of variance `q_l = n_(l-1) s_l E[fn(sqrt(q_(l-1)) z)**2] + b_l`, `z` standard
    normal. The gradient with respect to the output of layer `l` has variance
    `g_l = n_(l+1) s_(l+1) E[fn'(sqrt(q_(l+1)) z)**2] g_(l+1)`. Expectations are by
    quadrature, for any function. This holds in the limit of large widths; at width `n`,
    the relative error of measured variances is about `sqrt(depth / n)`. Poole et al.,
    "Exponential expressivity in deep neural networks through transient chaos" (2016);
    Schoenholz et al., "Deep information propagation" (2017).

    Args:
        fn: elementwise JAX function of one real array.
        kernel_init: initializer of the kernels, of mean zero.
        widths: width of the input and of every layer, at least two numbers.
        bias_init: initializer of the biases, of mean zero; None for none.
        second_moment: mean square of the input's entries.

    Returns:
        One prediction for each layer.

    Raises:
        TypeError: if `fn` is not callable, or not elementwise and real, or an
            initializer does not know its moments.
        ValueError: if an initializer's mean is not zero, or there are fewer than two
            widths.

    >>> import jax, jaxinit
    >>> [layer] = predict(jax.nn.relu, jaxinit.he_normal(), [256, 256])
    >>> round(layer.preactivation_std, 6), round(layer.mean, 4), round(layer.std, 4)
    (1.414214, 0.5642, 0.8256)
    """
    if len(widths) < 2:
        raise ValueError(
            "widths must be those of the input and of every layer, at least two, got "
            f"{list(widths)}."
        )
    pairs = list(itertools.pairwise(widths))
    kernels = [_variance("kernel_init", kernel_init, pair) for pair in pairs]
    biases = [_variance("bias_init", bias_init, (m,)) for _, m in pairs]
    expected = mean_over_normal(fn, np.asarray)
    square = mean_over_normal(fn, np.square)
    slope = mean_over_normal(fn, np.square, derivative=True)
    forward, slopes = [], []
    for (n, m), kernel, bias in zip(pairs, kernels, biases, strict=True):
        scale = math.sqrt(n * kernel * second_moment + bias)
        mean, second_moment = expected(scale), square(scale)
        forward.append((scale, mean, math.sqrt(max(0.0, second_moment - mean**2))))
        slopes.append(m * kernel * slope(scale))
    gradients = [math.prod(slopes[i + 1 :]) for i in range(len(slopes))]
    return tuple(
        PredictedLayer(scale, mean, std, math.sqrt(gradient))
        for (scale, mean, std), gradient in zip(forward, gradients, strict=True)
    )


def _variance(name: str, init: Initializer | None, shape: tuple[int, ...]) -> float:
    if init is None:
        return 0.0
    if not isinstance(init, Initializer):
        raise TypeError(
            f"{name} must be an initializer of jaxinit, which knows its moments, got "
            f"{init!r}."
        )
    moments = init.moments(shape)
    if abs(moments.mean) > 1e-9 * moments.std:
        raise ValueError(
            f"{name}={init!r} has mean {moments.mean:.6g}: the prediction is for "
            "weights and biases of mean zero."
        )
    return moments.variance
