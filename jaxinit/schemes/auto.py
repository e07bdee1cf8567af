"""A start for any model, from what it computes."""

import math
from collections.abc import Callable, Mapping

from jaxinit._roles.role import Role, Use
from jaxinit._tree.leaf import Leaf, kept
from jaxinit._tree.rules import Rules
from jaxinit._tree.sections import by_section
from jaxinit.initializers.base import Initializer
from jaxinit.initializers.basic import constant, normal, ones, zeros
from jaxinit.initializers.scaling import variance_scaling
from jaxinit.initializers.wrappers import mirrored
from jaxinit.schemes._cells import has_gate, maps_past, orthogonal_by_layer, remembering
from jaxinit.schemes.building import scheme
from jaxinit.schemes.parts import axes


@scheme
def auto() -> Rules:
    """The right start for any model, read from its computation.

    Every layer gives outputs of mean 0 and variance 1. What enters a kernel has a
    second moment `m`, which is followed through the computation: through activations
    by integrals, whatever they are called, through norms, products, pooling, averages
    and residual streams.

    - kernel, convolution: variance `1 / (fan_in m)`, divided by the square of a number
      that multiplies it at run time; normal, cut at two sigmas and widened again, as in
      `lecun_normal`
    - the `N` kernels that write to a residual stream: the same, times `s / N`, where
      `s` is the second moment with which the stream begins, or comes out of a norm or a
      kernel that it goes through, so that all branches together are as large as what
      they are added to; where numbers make the stream smaller in each layer, as
      `0.9 * h + f(h)` does, `N` is the sum of what they leave of each branch's variance;
      a kernel that writes in `r` rounds counts `r**2` times, as what it adds is alike
    - kernel between two functions of a plain net, without norm or residual stream, if
      gradients would grow or vanish with depth, or the signal drift: variance
      `1 / (fan_in E[y'**2])`, `y'` the slope of the function before it, and a normal
      bias for the rest of the variance: the edge of chaos. For GELU, SiLU, softplus
      and sigmoid one half of the inputs has the negative entries of the other, so that
      their mean cancels. With ReLU nothing is to be done.
    - recurrent kernel: orthogonal, each gate for itself
    - other biases 0, but 1 for the forget gate of an LSTM that does not add it itself
    - scale of a norm 1 (0 if the computation adds 1 to it); gate of a branch 1
    - embedding: `N(0, 1 / width)`, so that one that is the head too gives logits of
      variance 1; small rows are what Adam moves far enough, and so the first kernel of
      a plain net takes them for rows of unit size
    - position: a quarter of the variance of what it is added to; learned token
      `N(0, 1)`
    - what is unknown, unused, or a statistic: as the model itself draws it ("kept"),
      which only `jaxinit.linen.init` and `jaxinit.nnx.create` can do
    - where what enters a kernel is not known, such as behind an unknown leaf, it is
      taken to have variance one, and the plan says so

    It needs roles: `jaxinit.linen.init(model, key, x, scheme=auto())`,
    `jaxinit.nnx.create(fn, key, scheme=auto(), inputs=(x,))`, or
    `jaxinit.plan(shapes, auto(), roles=roles)`.

    The nearest work is Bingham and Miikkulainen, "AutoInit: analytic signal-preserving
    weight initialization for neural networks" (2023), which follows mean and variance
    through Keras layers by their type, from given ones of the inputs, and draws weights
    by the second moment; its sums add variances. Edge of chaos: Schoenholz et al.,
    "Deep information propagation" (2017). Rules of variance: LeCun et al., "Efficient
    backprop" (1998); He et al., "Delving deep into rectifiers" (2015). Residual
    kernels: Radford et al., "Language models are unsupervised multitask learners"
    (2019). Recurrent kernels: Saxe et al., "Exact solutions to the nonlinear dynamics
    of learning in deep linear neural networks" (2014); forget gates: Jozefowicz et al.,
    "An empirical exploration of recurrent network architectures" (2015).

    Returns:
        The rules.

    >>> import jax, jaxinit
    >>> def apply(params, x):
    ...     return jax.numpy.tanh(x @ params["a"]) @ params["b"]
    >>> shapes = {name: jax.ShapeDtypeStruct((8, 8), "float32") for name in "ab"}
    >>> x = jax.ShapeDtypeStruct((5, 8), "float32")
    >>> plan = jaxinit.plan(shapes, auto(), roles=jaxinit.roles(apply, shapes, x))
    >>> [round(8 * leaf.std**2, 3) for leaf in plan]  # and 1.593**2, tanh's gain
    [1.0, 2.536]
    """
    return Rules({_any: _start}, required=[])


def _any(leaf: Leaf) -> bool:
    return True


def _start(leaf: Leaf) -> Callable:
    if leaf.role is None:
        raise ValueError(
            "auto reads the computation, which shapes alone do not tell: use "
            "jaxinit.linen.init(model, key, x, scheme=auto()), jaxinit.nnx.create(fn, "
            "key, scheme=auto(), inputs=(x,)), or give roles= to jaxinit.plan"
        )
    return _BY_KIND.get(leaf.role.kind, _kept)(leaf, leaf.role)


def _kept(leaf: Leaf, role: Role) -> Callable:
    return kept


def _scale(leaf: Leaf, role: Role) -> Initializer:
    use = role.uses[0]
    value = (1 - use.offset) / use.multiplier if use.multiplier else 1.0
    return {0.0: zeros, 1.0: ones}.get(value, constant(value))


def _gate(leaf: Leaf, role: Role) -> Initializer:
    return ones


def _position(leaf: Leaf, role: Role) -> Initializer:
    return normal(math.sqrt(role.uses[0].variance))


def _embedding(leaf: Leaf, role: Role) -> Initializer:
    use = role.uses[0]
    if use.part is not None:  # a learned token
        return normal(1.0)
    return normal(1 / math.sqrt(use.fan_out))


def _bias(leaf: Leaf, role: Role) -> Initializer:
    if any(map(has_gate, role.uses)):
        return remembering(leaf)
    variance = role.uses[0].variance
    return normal(math.sqrt(variance)) if variance else zeros


def _kernel(leaf: Leaf, role: Role) -> Callable:
    use = role.kernels[0]
    if maps_past(use) and use.kind == "kernel":
        return by_section(_recurrent)(leaf)
    return _by_moment(leaf, use)


def _recurrent(leaf: Leaf) -> Initializer:
    """Orthogonal for the past, gate by gate; by moments for the inputs beside it."""
    assert leaf.role is not None
    use = leaf.role.kernels[0]
    return orthogonal_by_layer(leaf) if maps_past(use) else _by_moment(leaf, use)


def _by_moment(leaf: Leaf, use: Use) -> Initializer:
    """Outputs of variance one, or of their share of a residual stream."""
    along: Mapping = axes(leaf)
    shape = list(leaf.shape)
    even = (axis for axis in use.in_axis if shape[axis] % 2 == 0)
    half = next(even, None) if use.centered else None
    if half is not None:
        shape[half] //= 2
    shaped = variance_scaling(1.0, "fan_in", "normal", **along).fans(tuple(shape))
    scale = use.variance * shaped.fan_in
    made = variance_scaling(scale, "fan_in", "truncated_normal", **along)
    return made if half is None else mirrored(made, axis=half)


_BY_KIND: dict[str, Callable[[Leaf, Role], Callable]] = {
    "kernel": _kernel,
    "convolution": _kernel,
    "embedding": _embedding,
    "scale": _scale,
    "bias": _bias,
    "position": _position,
    "gate": _gate,
}
