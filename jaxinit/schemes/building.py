"""What schemes are made of: rules that look at the leaf, and factors by depth."""

# Rules that look at the leaf are dataclasses, so that they compare and pickle by their
# settings. They are used, and therefore spelled, as functions.
# ruff: noqa: N801

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ParamSpec

from jaxinit._tree.leaf import Leaf
from jaxinit._tree.rules import Rules
from jaxinit.initializers.base import Initializer
from jaxinit.initializers.basic import normal, ones, zeros
from jaxinit.initializers.fans import fans
from jaxinit.initializers.scaling import lecun_normal, variance_scaling
from jaxinit.initializers.sections import split
from jaxinit.initializers.settings import Distribution, Mode
from jaxinit.initializers.wrappers import scaled
from jaxinit.schemes._arguments import checked, plain_signature
from jaxinit.schemes.parts import (
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

Rule = Initializer | Callable[[Leaf], Any]  # the function may also return a `keyed`
Factor = Callable[[Leaf], float]
_P = ParamSpec("_P")
AFFINE: dict[Part, Rule] = {SCALE: ones, BIAS: zeros}


def scheme(function: Callable[_P, Rules]) -> Callable[_P, Rules]:
    """Marks a function that returns rules as a scheme.

    Its arguments are checked if their types have checks, and its rules get its name and
    remember the call.
    """

    @functools.wraps(function)
    def call(*args: _P.args, **kwargs: _P.kwargs) -> Rules:
        given = checked(function, *args, **kwargs)
        rules = function(*given.args, **given.kwargs)
        named = Rules(rules, name=f"scheme {function.__name__}")
        named.parts = (named,)
        named.call = call, given.arguments
        return named

    call.__signature__ = plain_signature(function)  # pyright: ignore - inspect's own
    return call


def complete(rules: Mapping[Part, Rule], required: Sequence[Part] = ()) -> Rules:
    """These rules, and ones for scales (ones) and biases (zeros) if they have none.

    Only the patterns in `required` must match a leaf.
    """
    return Rules({**rules, **_missing(rules)}, required=required)


def transformer(out: Rule, others: Mapping[Part, Rule]) -> Rules:
    """Rules for blocks; `out` is for the two kernels that write to the stream."""
    ends = (ATTENTION_OUT, MLP_OUT)
    return complete({**dict.fromkeys(ends, out), **others}, ends)


def _missing(rules: Mapping[Part, Rule]) -> dict[Part, Rule]:
    return {part: rule for part, rule in AFFINE.items() if part not in rules}


Axes = Callable[[Leaf], Mapping[str, int | tuple[int, ...]]]


@dataclass(frozen=True)
class by_fan:
    """`variance_scaling` with the axes of the leaf; fused projections are split."""

    scale: float
    mode: Mode
    law: Distribution
    axes: Axes = field(default=axes, repr=False)

    def __call__(self, leaf: Leaf) -> Initializer:
        init = variance_scaling(self.scale, self.mode, self.law, **self.axes(leaf))
        is_fused = FUSED(leaf) and self.mode != "fan_in"
        return side_by_side(leaf, init, 3) if is_fused else init


def fan_in(leaf: Leaf) -> float:
    """Inputs summed into one output of a kernel."""
    return fans(leaf.shape, **axes(leaf)).fan_in


def side_by_side(
    leaf: Leaf, init: Initializer | Sequence[Initializer], sections: int
) -> Initializer:
    """Sections of equal size along the outputs: gates, or query, key and value."""
    axis = axes(leaf)["out_axis"]
    init = init if isinstance(init, Initializer) else tuple(init)
    return split(init, sections, axis if isinstance(axis, int) else -1)


def drawn(rule: Rule, leaf: Leaf) -> Any:
    """The initializer of a rule for a leaf."""
    return rule if isinstance(rule, Initializer) else rule(leaf)


@dataclass(frozen=True)
class times:
    """The initializer of a rule, times a factor that may depend on the leaf."""

    rule: Rule
    factor: Factor | float

    def __call__(self, leaf: Leaf) -> Initializer:
        factor = self.factor
        number = factor if isinstance(factor, int | float) else factor(leaf)
        return scaled(drawn(self.rule, leaf), number)


@dataclass(frozen=True)
class by_depth:
    """The factor `1 / sqrt(2 (l + 1))` for layer `l`, from 0, of `layers` layers."""

    layers: int

    def __call__(self, leaf: Leaf) -> float:
        return 1 / math.sqrt(2 * (layer(leaf, self.layers) + 1))


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


@dataclass(frozen=True)
class of_layers:
    """A rule that refuses leaves with a layer number of `layers` or more."""

    layers: int
    rule: Rule

    def __call__(self, leaf: Leaf) -> Initializer:
        if leaf.index is not None:
            layer(leaf, self.layers)
        return drawn(self.rule, leaf)


@dataclass(frozen=True)
class refuse:
    """A rule for leaves that a scheme is not meant for."""

    reason: str

    def __call__(self, leaf: Leaf) -> Initializer:
        raise ValueError(self.reason)


@dataclass(frozen=True)
class by_width:
    """The distribution `N(0, (factor / sqrt(width))**2)` for an embedding."""

    factor: float = 1.0

    def __call__(self, leaf: Leaf) -> Initializer:
        return normal(self.factor / math.sqrt(leaf.shape[-1]))


def around_blocks(kernel: Rule) -> dict[Part, Rule]:
    """Rules for a vision transformer outside its blocks; `kernel` for all the rest."""
    return {
        **dict.fromkeys((POSITION, TOKEN), kernel),
        PATCHES: lecun_normal(),
        HEAD: zeros,
        **everywhere(kernel),
    }


def everywhere(kernel: Rule, embedding: Rule | None = None) -> dict[Part, Rule]:
    """The last rules of a scheme: all kernels, and all embeddings."""
    return {EMBEDDING: embedding or kernel, KERNEL: kernel}
