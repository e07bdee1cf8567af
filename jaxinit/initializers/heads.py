"""Output layers and adapters: biases from class frequencies, low-rank pairs."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from jaxinit._basics.integers import shown
from jaxinit.initializers._makers import maker
from jaxinit.initializers.base import Initializer
from jaxinit.initializers.basic import constant, normal, zeros
from jaxinit.initializers.scaling import he_uniform
from jaxinit.initializers.settings import choice, refuse_tracer

_check_law = choice("uniform", "normal")


@maker
def log_frequencies(counts: Sequence[float], dtype: Any = None) -> Initializer:
    """The bias of a softmax: `log(counts / sum(counts))`, so that it starts at them.

    With equal counts of `C` classes every entry is `-log(C)`, with which sigmoid
    outputs start near `1 / C`.

    Args:
        counts: frequency of every class, or any multiple, greater than zero.
        dtype: default dtype.

    Returns:
        A constant, of one axis.

    Raises:
        ValueError: if a count is not positive and finite, or there are none.

    >>> import jax
    >>> bias = log_frequencies([2, 1, 1])(jax.random.key(0), (3,))
    >>> jax.nn.softmax(bias)
    Array([0.5 , 0.25, 0.25], dtype=float32)
    """
    values = _positive("counts", counts)
    if values.ndim != 1:
        raise ValueError(f"counts must be a sequence of numbers, got {counts!r}.")
    return constant(np.log(values / values.sum()), dtype, broadcast=False)


@maker
def log_odds(prior: Any, dtype: Any = None) -> Initializer:
    """The bias of a sigmoid: `log(p / (1 - p))`, so that it starts at the prior `p`.

    Lin et al., "Focal loss for dense object detection" (2017), with a prior of 0.01, so
    that the many negatives of the first steps do not swamp the loss.

    Args:
        prior: probability of the positive, between 0 and 1, or one for each output.
        dtype: default dtype.

    Returns:
        A constant.

    Raises:
        ValueError: if a probability is not greater than 0 and less than 1.

    >>> import jax
    >>> log_odds(0.01)(jax.random.key(0), (2,)).round(4)
    Array([-4.5951, -4.5951], dtype=float32)
    """
    values = _positive("prior", prior)
    if (values >= 1).any():
        raise ValueError(f"prior must be less than 1, got {prior!r}.")
    return constant(np.log(values) - np.log1p(-values), dtype)


def _positive(name: str, values: Any) -> np.ndarray:
    refuse_tracer(name, values)
    try:
        array = np.asarray(values)
    except (TypeError, ValueError):  # of keys, and of lists that are no array
        array = np.array(None)
    if not array.size or array.dtype.kind not in "iuf":
        raise ValueError(f"{name} must be numbers, got {shown(values)}.")
    array = array.astype(np.float64)
    if not ((array > 0) & np.isfinite(array)).all():
        raise ValueError(f"{name} must be positive and finite, got {shown(values)}.")
    return array


@maker
def lora(
    law: Literal["uniform", "normal"] = "uniform", stddev: float = 0.02
) -> tuple[Initializer, Initializer]:
    """The pair of a low-rank adapter `x a b`: `a` random, `b` zero, so `a b` is zero.

    Hu et al., "LoRA: low-rank adaptation of large language models" (2021), draw `a`
    from a normal law; their program, and those after it, from `U(+-1 / sqrt(fan_in))`.

    Args:
        law: "uniform", `U(+-1 / sqrt(fan_in))`, or "normal", `N(0, stddev²)`.
        stddev: standard deviation of the normal law, zero or greater.

    Returns:
        The initializers of `a`, of shape (inputs, rank), and of `b`.

    Raises:
        ValueError: if `law` is unknown, or `stddev` negative or not finite.

    >>> a, b = lora()
    >>> round(a.moments((100, 8)).high, 6), b
    (0.1, zeros)
    """
    _check_law("law", law)
    drawn = normal(stddev)
    return (drawn if law == "normal" else he_uniform(negative_slope=5**0.5)), zeros
