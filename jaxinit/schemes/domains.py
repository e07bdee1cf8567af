"""What practice recommends, by kind of model."""

import dataclasses
import math

from jaxinit._array.gain import Activation
from jaxinit._array.initializer import Initializer
from jaxinit._array.settings import count
from jaxinit._tree.rules import Leaf, Rules
from jaxinit.initializers.activation import for_activation
from jaxinit.initializers.basic import normal, uniform
from jaxinit.initializers.orthogonal import orthogonal
from jaxinit.initializers.variance_scaling import variance_scaling
from jaxinit.schemes._parts import (
    BIAS,
    CONVOLUTION,
    EMBEDDING,
    GATE_INPUT,
    HEAD,
    KERNEL,
    POSITION,
    RECURRENT,
    axes,
    cell,
)
from jaxinit.schemes._pieces import (
    Rule,
    by_fan,
    complete,
    drawn,
    of_layers,
    scheme,
    side_by_side,
    times,
    transformer,
)
from jaxinit.schemes.frameworks import remembering


@scheme
def vision() -> Rules:
    """Convolutional networks with rectifiers.

    - kernel: He by `fan_out`, `N(0, 2 / fan_out)`, which keeps gradients their size
    - head: `N(0, 0.01**2)`
    - norm scale 1, bias 0

    Of residual networks with norms `zero_gamma` also starts the blocks as the identity.
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
def language(layers: int) -> Rules:
    """Transformers of language: Glorot's law, narrower where the stream is written.

    - kernel: Glorot uniform, of fused projections each by itself
    - attention and feed-forward output: the same divided by `sqrt(2 layers)`
    - embedding, position: `N(0, 0.02**2)`
    - norm scale 1, bias 0

    Args:
        layers: number of blocks, at least 1.

    Returns:
        The rules.

    Raises:
        ValueError: if `layers` is out of range.

    >>> language(layers=12).name
    'scheme language'
    """
    glorot = by_fan(1.0, "fan_avg", "uniform")
    out = times(glorot, 1 / math.sqrt(2 * count("layers", layers)))
    table = normal(0.02)
    others = {POSITION: table, EMBEDDING: table, KERNEL: glorot}
    return transformer(of_layers(layers, out), others)


@scheme
def recurrent() -> Rules:
    """LSTMs, GRUs and simple recurrent networks.

    - recurrent kernel: orthogonal, each gate by itself
    - input and other kernels: Glorot uniform, each gate by itself
    - bias of an LSTM: 1 for the forget gate, 0 for the others; other biases 0
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
    rules = {
        RECURRENT: _by_gate(orthogonal()),
        GATE_INPUT: _by_gate(by_fan(1.0, "fan_avg", "uniform")),
        EMBEDDING: lambda leaf: normal(1 / math.sqrt(leaf.shape[-1])),
        KERNEL: by_fan(1.0, "fan_avg", "uniform"),
        BIAS: remembering,
    }
    return complete(rules, [RECURRENT])


def _by_gate(rule: Rule) -> Rule:
    """A rule for each of the gates that lie side by side along the outputs."""

    def result(leaf: Leaf) -> Initializer:
        init, found = drawn(rule, leaf), cell(leaf)
        if found is None or found.gates == 1:
            return init
        return side_by_side(leaf, init, found.gates)

    return result


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

    def table(leaf: Leaf) -> Initializer:
        bound = 1 / math.sqrt(leaf.shape[0])
        return uniform(low=-bound, high=bound)

    rules = {EMBEDDING: table, KERNEL: by_fan(2.0, "fan_in", "normal")}
    return complete(rules, [EMBEDDING])


@scheme
def mlp(activation: Activation | str) -> Rules:
    """Dense and convolutional networks with one activation.

    - kernel: that of `jaxinit.for_activation`, such as He normal for "relu"
    - norm scale 1, bias 0

    Args:
        activation: a function, or its name.

    Returns:
        The rules.

    Raises:
        ValueError: if the name is unknown, or the function's gain is not finite.
        TypeError: if `activation` is no such function.

    >>> mlp("relu").name
    'scheme mlp'
    """
    init = for_activation(activation).initializer
    assert isinstance(init, variance_scaling)  # all of its table are

    def kernel(leaf: Leaf) -> Initializer:
        return dataclasses.replace(init, **axes(leaf))

    return complete({KERNEL: kernel}, [KERNEL])
