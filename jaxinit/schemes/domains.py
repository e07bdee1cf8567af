"""Recommended initializations by kind of model."""

import dataclasses
import math
from dataclasses import dataclass

from jaxinit._tree.leaf import Leaf
from jaxinit._tree.rules import Rules
from jaxinit.initializers.activation import for_activation
from jaxinit.initializers.base import Initializer
from jaxinit.initializers.basic import normal, uniform
from jaxinit.initializers.orthogonal_matrices import orthogonal
from jaxinit.initializers.scaling import variance_scaling
from jaxinit.schemes._arguments import Found, Nonlinearity
from jaxinit.schemes._cells import RECURRENT, by_gate, kernels, remembering
from jaxinit.schemes.building import (
    by_fan,
    by_width,
    by_writers,
    complete,
    scheme,
    times,
    transformer,
)
from jaxinit.schemes.parts import (
    BIAS,
    CONVOLUTION,
    EMBEDDING,
    HEAD,
    KERNEL,
    POSITION,
    axes,
)


@scheme
def vision() -> Rules:
    """Convolutional networks with rectifiers.

    - kernel: He by `fan_out`, `N(0, 2 / fan_out)`, which keeps gradients their size
    - head: `N(0, 0.01**2)`
    - norm scale 1, bias 0

    For residual networks with norms, `zero_gamma` also starts blocks as the identity.
    He et al., "Delving deep into rectifiers" (2015).

    Returns:
        The rules.

    >>> vision().name
    'scheme vision'
    """
    he = by_fan(2.0, "fan_out", "normal")
    rules = {CONVOLUTION: he, HEAD: normal(0.01), KERNEL: he}
    return complete(rules, [CONVOLUTION])


@scheme
def language(layers: Found = None) -> Rules:
    """Transformers of language: Glorot, narrower where a block writes to the stream.

    - kernel: Glorot uniform; fused projections each for itself
    - attention and feed-forward output: the same, divided by the root of the number of
      kernels that write to the residual stream, `sqrt(2 layers)`
    - embedding, position: `N(0, 0.02**2)`
    - norm scale 1, bias 0

    Args:
        layers: number of blocks, at least 1; None counts the writers of the stream in
            the computation, for a plan with roles.

    Returns:
        The rules.

    Raises:
        ValueError: if `layers` is out of range.

    >>> language(layers=12).name
    'scheme language'
    """
    glorot = by_fan(1.0, "fan_avg", "uniform")
    out = times(glorot, by_writers(layers))
    table = normal(0.02)
    others = {POSITION: table, EMBEDDING: table, KERNEL: glorot}
    return transformer(out, others)


@scheme
def recurrent() -> Rules:
    """LSTMs, GRUs and simple recurrent networks.

    - recurrent kernel: orthogonal, each gate for itself; the window of a convolution
      counts as inputs
    - input and other kernels: Glorot uniform, each gate for itself
    - bias: 1 for the forget gate of an LSTM or minimal gated unit, 0 for the others; 0
      for all if the layer itself adds 1, as in Haiku and `ConvLSTMCell`
    - embedding: `N(0, 1 / width)`
    - norm scale 1

    Saxe et al., "Exact solutions to the nonlinear dynamics of learning in deep linear
    neural networks" (2014); Jozefowicz et al., "An empirical exploration of recurrent
    network architectures" (2015).

    Returns:
        The rules.

    >>> recurrent().name
    'scheme recurrent'
    """
    glorot = by_fan(1.0, "fan_avg", "uniform")
    rules = {
        **kernels(by_gate(glorot), by_gate(orthogonal())),
        EMBEDDING: by_width(),
        KERNEL: glorot,
        BIAS: remembering,
    }
    return complete(rules, [RECURRENT])


@scheme
def recommender() -> Rules:
    """Models of recommendation and of tables: wide embeddings, dense layers on top.

    - embedding of `n` rows: `U(+-1 / sqrt(n))`
    - kernel: He normal, `N(0, 2 / fan_in)`
    - norm scale 1, bias 0

    Naumov et al., "Deep learning recommendation model for personalization and
    recommendation systems" (2019), for embeddings.

    Returns:
        The rules.

    >>> recommender().name
    'scheme recommender'
    """
    rules = {EMBEDDING: _by_rows, KERNEL: by_fan(2.0, "fan_in", "normal")}
    return complete(rules, [EMBEDDING])


def _by_rows(leaf: Leaf) -> Initializer:
    bound = 1 / math.sqrt(leaf.shape[0])
    return uniform(low=-bound, high=bound)


@scheme
def mlp(activation: Nonlinearity) -> Rules:
    """Dense and convolutional networks with one activation.

    - kernel: as by `jaxinit.for_activation`, such as He normal for "relu"
    - norm scale 1, bias 0

    Args:
        activation: a function, or its name.

    Returns:
        The rules.

    Raises:
        ValueError: if the name is unknown, or the function's gain is not finite.
        TypeError: if `activation` is not such a function.

    >>> mlp("relu").name
    'scheme mlp'
    """
    init = for_activation(activation).initializer
    assert isinstance(init, variance_scaling)  # as for all activations
    return complete({KERNEL: _with_axes(init)}, [KERNEL])


@dataclass(frozen=True)
class _with_axes:  # noqa: N801 - used, and therefore spelled, as a function
    """An initializer, with the axes of the leaf."""

    init: variance_scaling

    def __call__(self, leaf: Leaf) -> Initializer:
        return dataclasses.replace(self.init, **axes(leaf))
