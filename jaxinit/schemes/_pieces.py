"""What schemes are made of: laws that look at the leaf, factors by depth, the build."""

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import ParamSpec

from jaxinit._array.combine import scaled
from jaxinit._array.fans import fans
from jaxinit._array.initializer import Initializer
from jaxinit._array.parts import split
from jaxinit._array.settings import Distribution, Mode
from jaxinit._tree.rules import Leaf, Rules
from jaxinit.initializers.basic import ones, zeros
from jaxinit.initializers.variance_scaling import lecun_normal, variance_scaling
from jaxinit.schemes._parts import (
    ATTENTION_OUT,
    BIAS,
    EMBEDDING,
    FUSED,
    HEAD,
    KERNEL,
    MLP_OUT,
    PATCHES,
    POSITION,
    SCALE,
    TOKEN,
    Part,
    axes,
)

Rule = Initializer | Callable[[Leaf], Initializer]
Factor = Callable[[Leaf], float]
_P = ParamSpec("_P")
AFFINE: dict[Part, Rule] = {SCALE: ones, BIAS: zeros}


def scheme(function: Callable[_P, Rules]) -> Callable[_P, Rules]:
    """A function that returns rules: they get its name, and remember its arguments."""
    signature = inspect.signature(function)

    @functools.wraps(function)
    def call(*args: _P.args, **kwargs: _P.kwargs) -> Rules:
        made = Rules(function(*args, **kwargs), name=f"scheme {function.__name__}")
        made.parts = (made,)
        made.call = function.__name__, signature.bind(*args, **kwargs).arguments
        return made

    return call


def complete(rules: Mapping[Part, Rule], required: Sequence[Part] = ()) -> Rules:
    """Rules of which only some must match, and which leave out no scale or bias.

    Norms start as the identity and biases at zero unless `rules` say otherwise.
    """
    return Rules({**rules, **_missing(rules)}, required=required)


def transformer(out: Rule, others: Mapping[Part, Rule]) -> Rules:
    """Rules with one for the two kernels of a block that end on the stream."""
    ends = (ATTENTION_OUT, MLP_OUT)
    return complete({**dict.fromkeys(ends, out), **others}, ends)


def _missing(rules: Mapping[Part, Rule]) -> dict[Part, Rule]:
    return {part: rule for part, rule in AFFINE.items() if part not in rules}


def by_fan(scale: float, mode: Mode, law: Distribution) -> Rule:
    """`variance_scaling`, its axes those of the leaf, fused projections split."""

    def rule(leaf: Leaf) -> Initializer:
        init = variance_scaling(scale, mode, law, **axes(leaf))
        is_fused = FUSED(leaf) and mode != "fan_in"
        return side_by_side(leaf, init, 3) if is_fused else init

    return rule


def fan_in(leaf: Leaf) -> float:
    """Inputs summed into one output of a kernel."""
    return fans(leaf.shape, **axes(leaf)).fan_in


def side_by_side(
    leaf: Leaf, init: Initializer | Sequence[Initializer], sections: int
) -> Initializer:
    """Parts of equal size along the outputs: gates, or query, key and value."""
    axis = axes(leaf)["out_axis"]
    init = init if isinstance(init, Initializer) else tuple(init)
    return split(init, sections, axis if isinstance(axis, int) else -1)


def drawn(rule: Rule, leaf: Leaf) -> Initializer:
    """The initializer of a rule for a leaf."""
    return rule if isinstance(rule, Initializer) else rule(leaf)


def times(rule: Rule, factor: Factor | float) -> Rule:
    """What a rule draws, times a factor that may depend on the leaf."""

    def result(leaf: Leaf) -> Initializer:
        number = factor if isinstance(factor, int | float) else factor(leaf)
        return scaled(drawn(rule, leaf), number)

    return result


def layer(leaf: Leaf, layers: int | None = None) -> int:
    """The layer number of a leaf, from 0, less than `layers`."""
    if leaf.index is None:
        raise ValueError(
            "its path has no layer number, on which this scheme depends; layers that "
            "are stacked in one array need jaxinit.stacked"
        )
    if layers is not None and leaf.index >= layers:
        raise ValueError(f"it is of layer {leaf.index}, but there are layers={layers}")
    return leaf.index


def of_layers(layers: int, rule: Rule) -> Rule:
    """A rule for leaves of one of `layers` layers, where their path has a number."""

    def result(leaf: Leaf) -> Initializer:
        if leaf.index is not None:
            layer(leaf, layers)
        return drawn(rule, leaf)

    return result


def refuse(reason: str) -> Rule:
    """A rule for leaves that a scheme is not meant for."""

    def result(leaf: Leaf) -> Initializer:
        raise ValueError(reason)

    return result


def around_blocks(kernel: Rule) -> dict[Part, Rule]:
    """What a vision transformer has beside its blocks; `kernel` for all the rest."""
    parts: dict[Part, Rule] = {POSITION: kernel, TOKEN: kernel}
    return {**parts, PATCHES: lecun_normal(), HEAD: zeros, **everywhere(kernel)}


def everywhere(kernel: Rule, embedding: Rule | None = None) -> dict[Part, Rule]:
    """The last rules of a scheme: all kernels, and all embeddings."""
    return {EMBEDDING: embedding or kernel, KERNEL: kernel}
