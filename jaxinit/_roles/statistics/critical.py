"""Kernels and biases that keep differences, forwards and backwards, at any depth.

Take a plain network, `h = tanh(h @ w + b)` again and again. Outputs of variance one
need entries of variance `1 / (fan_in E[y**2])`, `y = tanh(z)`. But gradients, and small
differences of inputs, grow by `E[y'**2] / E[y**2] = 1.18` a layer, ten million times in
100 layers. With the variance `1 / (fan_in E[y'**2])` they keep their size, and a bias
of variance `1 - E[y**2] / E[y'**2] = 0.15`, drawn once, makes up what is missing. That
is the edge of chaos: Poole et al., "Exponential expressivity in deep neural networks
through transient chaos" (2016); Schoenholz et al., "Deep information propagation"
(2017).

It has no solution where `E[y'**2] < E[y**2]`, as for sigmoid and softplus, whose mean
outweighs all differences; and where the second moment is an unstable fixed point, as
for GELU and SiLU, chance makes it drift to zero or infinity. A kernel whose entries sum
to zero over the inputs does not respond to the mean. Then the variance of `y` takes the
place of its second moment, and is never greater than `E[y'**2]` (the Poincare
inequality of the normal law).
"""

from dataclasses import dataclass

from jaxinit._roles.statistics.spreads import Spread

_TOLERANCE = 0.01  # a factor a layer that is taken for one
_MOST = 4.0  # of the growth of differences that biases make up for


@dataclass(frozen=True)
class Critical:
    """What a kernel and its bias need.

    Attributes:
        second: what takes the place of the second moment that enters: `E[y'**2]`, or
            the variance of `y` where there is no bias.
        bias: share of the variance of the output that the bias has.
        centered: whether the kernel must not respond to the mean.
    """

    second: float
    bias: float
    centered: bool


def critical(spread: Spread, has_bias: bool, can_center: bool) -> Critical | None:
    """What a kernel needs that takes `spread`; None if outputs of variance one do.

    Args:
        spread: what enters.
        has_bias: whether there is a bias, and a function behind it, so that what the
            kernel leaves to it keeps variances in balance.
        can_center: whether the inputs of an output are an even number.
    """
    found = spread.slopes()
    if found is None:
        return None
    slope, growth, centered_growth = found
    less, more = (1 - _TOLERANCE) * slope, (1 + _TOLERANCE) * slope
    vanishes = more < spread.second
    if not has_bias:
        centered = Critical(spread.variance, 0.0, True)
        return centered if vanishes and can_center and spread.variance else None
    drifts = centered_growth < more < growth
    centered = can_center and (vanishes or drifts)
    kept = spread.variance if centered else spread.second
    if not slope / _MOST < kept < less:
        return None
    return Critical(slope, 1 - kept / slope, centered)
