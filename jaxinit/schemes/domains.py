"""Recommended initializations by kind of model."""

import math
from dataclasses import dataclass

from jaxinit._tree.leaf import Leaf
from jaxinit._tree.rules import Rules
from jaxinit._tree.sections import by_section, is_divided
from jaxinit.initializers.activation import for_activation
from jaxinit.initializers.base import Initializer
from jaxinit.initializers.basic import normal, uniform
from jaxinit.initializers.orthogonal_matrices import orthogonal
from jaxinit.initializers.scaling import variance_scaling
from jaxinit.schemes._arguments import (
    DenseKernel,
    FanMode,
    Found,
    Given,
    Nonlinearity,
)
from jaxinit.schemes._cells import (
    RECURRENT,
    by_gate,
    kernels,
    orthogonal_by_layer,
    remembering,
)
from jaxinit.schemes.building import (
    by_fan,
    by_width,
    by_writers,
    complete,
    scheme,
    side_by_side,
    times,
    transformer,
)
from jaxinit.schemes.parts import (
    BIAS,
    CONVOLUTION,
    EMBEDDING,
    FUSED,
    HEAD,
    KERNEL,
    POSITION,
    axes,
)


@scheme
def vision(mode: FanMode = "fan_out") -> Rules:
    """Convolutional networks with rectifiers.

    - kernel: He by `fan_out`, `N(0, 2 / fan_out)`, which keeps gradients their size; by
      `fan_in`, as He's rule is mostly taught, it keeps activations their size
    - head: `N(0, 0.01**2)`
    - norm scale 1, bias 0

    For residual networks with norms, `zero_gamma` also starts blocks as the identity.
    He et al., "Delving deep into rectifiers" (2015).

    Args:
        mode: "fan_out" or "fan_in".

    Returns:
        The rules.

    Raises:
        ValueError: if `mode` is neither.

    >>> vision().name
    'scheme vision'
    """
    he = by_fan(2.0, mode, "normal")  # pyright: ignore - checked
    rules = {CONVOLUTION: he, HEAD: normal(0.01), KERNEL: he}
    return complete(rules, [CONVOLUTION])


@scheme
def language(
    layers: Found = None, kernel: DenseKernel = "glorot", embedding: Given = None
) -> Rules:
    """Transformers of language: Glorot, narrower where a block writes to the stream.

    - kernel: Glorot uniform, or orthogonal; fused projections each for itself
    - attention and feed-forward output: the same, divided by the root of the number of
      kernels that write to the residual stream, `sqrt(2 layers)`
    - embedding, position: `N(0, 0.02**2)`, or another distribution
    - norm scale 1, bias 0

    Args:
        layers: number of blocks, at least 1; None counts the writers of the stream in
            the computation, for a plan with roles.
        kernel: "glorot" or "orthogonal".
        embedding: initializer of embeddings and positions, such as
            `jaxinit.uniform(low=-0.1, high=0.1)`; None means `N(0, 0.02**2)`.

    Returns:
        The rules.

    Raises:
        ValueError: if `layers` or `kernel` is out of range.
        TypeError: if `embedding` is no initializer.

    >>> language(layers=12).name
    'scheme language'
    """
    own = _MATRICES[kernel]
    out = times(own, by_writers(layers))
    table = normal(0.02) if embedding is None else embedding
    others = {POSITION: table, EMBEDDING: table, KERNEL: own}
    return transformer(out, others)


@dataclass(frozen=True)
class _orthogonal:  # noqa: N801 - used, and therefore spelled, as a function
    """Orthogonal along the outputs, fused projections each for itself."""

    def __call__(self, leaf: Leaf) -> Initializer:
        if is_divided(leaf):
            return by_section(self)(leaf)
        out = axes(leaf)["out_axis"]
        last = out[-1] if isinstance(out, tuple) else out
        if len(leaf.shape) > 2 and isinstance(out, tuple) and len(out) > 1:
            raise ValueError(
                "kernel='orthogonal' takes kernels of one output axis, and this one "
                f"has {len(out)}: give it a rule of its own"
            )
        init = orthogonal(column_axis=last)
        return side_by_side(leaf, init, 3) if FUSED(leaf) else init


_MATRICES = {
    "glorot": by_fan(1.0, "fan_avg", "uniform"),
    "orthogonal": _orthogonal(),
}


@scheme
def recurrent() -> Rules:
    """LSTMs, GRUs and simple recurrent networks.

    - recurrent kernel: orthogonal, each gate for itself; the window of a convolution
      counts as inputs
    - input and other kernels: Glorot uniform, each gate for itself
    - bias: 1 for the forget gate of an LSTM (by names, of a minimal gated unit too), 0
      for the others; 0 for all if the layer itself adds to it, as in Haiku and
      `ConvLSTMCell`
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
        **kernels(by_gate(glorot), by_gate(orthogonal_by_layer)),
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
    kernel = by_fan(init.scale, init.mode, init.distribution)
    return complete({KERNEL: kernel}, [KERNEL])
