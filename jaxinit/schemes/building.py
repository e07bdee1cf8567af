"""What schemes are made of: rules that look at the leaf, and factors by depth."""

# Rules that look at the leaf are dataclasses, so that they compare and pickle by their
# settings. They are used, and therefore spelled, as functions.
# ruff: noqa: N801

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ParamSpec

from jaxinit._roles.role import Use
from jaxinit._tree.leaf import Leaf
from jaxinit._tree.rules import Rules
from jaxinit._tree.sections import by_section, sections_of
from jaxinit.initializers.base import Initializer
from jaxinit.initializers.basic import normal, ones, zeros
from jaxinit.initializers.fans import fans
from jaxinit.initializers.scaling import lecun_normal, variance_scaling
from jaxinit.initializers.sections import split
from jaxinit.initializers.settings import Distribution, Mode, count
from jaxinit.initializers.wrappers import scaled
from jaxinit.schemes._arguments import checked, plain_signature
from jaxinit.schemes._streams import (
    depth_of,
    layers_of,
    scaled_by_layer,
    total_of,
    untold,
    writers_in_rounds,
)
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
        if leaf.role is not None and leaf.role.kernels:
            return self._by_role(leaf)
        init = variance_scaling(self.scale, self.mode, self.law, **self.axes(leaf))
        is_fused = FUSED(leaf) and self.mode != "fan_in"
        return side_by_side(leaf, init, 3) if is_fused else init

    def _by_role(self, leaf: Leaf) -> Initializer:
        """The variance that the fans of the computation ask for.

        They differ from those of the shape in a transposed convolution, and where
        several kernels lie side by side.
        """
        _, sections = sections_of(leaf)
        if self.mode != "fan_in" and len({x.shape for x in sections}) > 1:
            return by_section(self)(leaf)
        use = _kernel_use(leaf)
        along = self.axes(leaf)
        parts = max(1, len({x.part for x in use.sections if x.axis in use.out_axis}))
        wanted = _by_mode(self.mode, use.fan_in, use.fan_out / parts)
        shaped = _by_mode(self.mode, *fans(leaf.shape, **along))
        scale = self.scale * shaped / wanted if wanted else self.scale
        return variance_scaling(scale, self.mode, self.law, **along)


def _by_mode(mode: Mode, fan_in: float, fan_out: float) -> float:
    return {"fan_in": fan_in, "fan_out": fan_out}.get(mode, (fan_in + fan_out) / 2)


def _kernel_use(leaf: Leaf) -> Use:
    """The first use of a leaf as a kernel."""
    assert leaf.role is not None
    return leaf.role.kernels[0]


def fan_in(leaf: Leaf) -> float:
    """Inputs summed into one output of a kernel."""
    if leaf.role is not None and leaf.role.kernels:
        return _kernel_use(leaf).fan_in
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
    """The initializer of a rule, times a factor that may depend on the leaf.

    By depth, each of several layers in one array has a factor of its own.
    """

    rule: Rule
    factor: Factor | float

    def __call__(self, leaf: Leaf) -> Initializer:
        init, factor = drawn(self.rule, leaf), self.factor
        if isinstance(factor, by_depth):
            return scaled_by_layer(init, factor.along(leaf), leaf)
        return scaled(init, factor if isinstance(factor, int | float) else factor(leaf))


class _checks_layers:
    """Checks a number of layers where it enters: at least 1, or None."""

    layers: int | None

    def __post_init__(self):
        if self.layers is not None:
            count("layers", self.layers)


@dataclass(frozen=True)
class by_depth(_checks_layers):
    """The factor `1 / sqrt(2 (l + 1))` for layer `l`, from 0, of `layers` layers.

    With roles, the computation tells the layer; `layers` may be left out, and is
    checked if given. Where it does not tell layers, `layers` divides the kernels that
    write to the stream into as many equal runs.
    """

    layers: int | None

    def __call__(self, leaf: Leaf) -> float:
        found = {*self.along(leaf)}
        if len(found) > 1:
            raise ValueError(
                f"it holds {len(found)} layers, which have a factor each: multiply its "
                "rule with times(rule, by_depth(layers)), or give it a rule of its own "
                "with jaxinit.stacked"
            )
        return found.pop()

    def along(self, leaf: Leaf) -> list[float]:
        """The factors of all layers in a leaf, in C order of the axes of layers.

        Raises:
            ValueError: if the layer of one of them is not known.
        """
        if leaf.role is None:
            numbers = [layer(leaf, given("layers", self.layers))]
        else:
            numbers = layers_of(leaf, self.layers)
        return [1 / math.sqrt(2 * (number + 1)) for number in numbers]


@dataclass(frozen=True)
class of_layers(_checks_layers):
    """A rule that refuses leaves of a model that has other than `layers` layers."""

    layers: int | None
    rule: Rule

    def __call__(self, leaf: Leaf) -> Initializer:
        writers(leaf, self.layers)
        return drawn(self.rule, leaf)


@dataclass(frozen=True)
class narrower(_checks_layers):
    """The distribution `N(0, stddev**2 / n)` for the `n` writers of the stream."""

    stddev: float
    layers: int | None

    def __call__(self, leaf: Leaf) -> Initializer:
        return normal(self.stddev / math.sqrt(writers(leaf, self.layers)))


@dataclass(frozen=True)
class by_writers(_checks_layers):
    """The factor `1 / sqrt(n)`, `n` the number of kernels that write to the stream."""

    layers: int | None

    def __call__(self, leaf: Leaf) -> float:
        return 1 / math.sqrt(writers(leaf, self.layers))


def writers(leaf: Leaf, layers: int | None) -> int:
    """How many kernels write to the residual stream that this one writes to.

    Args:
        leaf: the kernel.
        layers: number of blocks; None takes the number found in the computation.
            Without a computation, and in loops of unknown length, a block has two
            writers.

    Raises:
        ValueError: if it is not known, or another one was given.
    """
    if leaf.role is None:
        layers = given("layers", layers)
        if leaf.index is not None:
            layer(leaf, layers)
        return 2 * layers
    total = total_of(leaf)
    if total is not None:
        depth_of(leaf, layers)
        return total
    return writers_in_rounds(leaf, layers)


def depth(leaf: Leaf, layers: int | None) -> int:
    """How many layers the residual stream has that a kernel is in a branch of.

    Args:
        leaf: the kernel.
        layers: number of blocks; None takes the number found in the computation.

    Raises:
        ValueError: if it is not known, or another one was given.
    """
    if leaf.role is None or total_of(leaf) is None:
        return writers(leaf, layers) // 2
    found = depth_of(leaf, layers)
    if found is None:
        raise ValueError(f"{untold(leaf)}; give layers=")
    return found


def stream_totals(leaf: Leaf) -> list[int | None]:
    """For each residual stream of a model, how many kernels write to it."""
    uses = (use for role in leaf.roles.values() for use in role.kernels)
    totals = {use.stream or 0: use.residual[1] for use in uses if use.residual}
    return [totals[number] for number in sorted(totals)]


def agreed(name: str, value: int | None, found: int | None) -> int:
    """A number of blocks, as given, or as found in the computation.

    Raises:
        ValueError: if there is neither, or they differ.
    """
    if value is None or found is None:
        return given(name, found if value is None else value)
    if value != found:
        raise ValueError(
            f"{name}={value} was given, but by the kernels that write to its residual "
            f"streams the computation has {found}: leave {name} out"
        )
    return value


def stream_width(leaf: Leaf, width: int | None) -> int:
    """Width of the residual stream: as given, or as found in the computation.

    Raises:
        ValueError: if it is not known, or another one was given.
    """
    found = {
        int(use.fan_out)
        for role in leaf.roles.values()
        for use in role.kernels
        if use.residual
    }
    if not found or (width is None and len(found) > 1):
        return given("width", width)
    if width is not None and width not in found:
        widths = ", ".join(map(str, sorted(found)))
        raise ValueError(
            f"width={width} was given, but the residual stream of the computation is "
            f"{widths} wide"
        )
    return width or found.pop()


def given(name: str, value: int | None) -> int:
    """A number that names alone do not tell.

    Raises:
        ValueError: if it is None.
    """
    if value is None:
        raise ValueError(
            f"{name} is not known from names alone: give {name}= to the scheme, or "
            "roles= to the plan"
        )
    return value


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
