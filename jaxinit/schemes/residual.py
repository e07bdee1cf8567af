"""Residual networks whose blocks start as the identity, or near it."""

from dataclasses import dataclass

from jaxinit._roles.role import Role
from jaxinit._tree.leaf import Leaf
from jaxinit._tree.rules import Rules
from jaxinit.initializers.base import Initializer
from jaxinit.initializers.basic import constant, normal, ones, zeros
from jaxinit.schemes._arguments import Count, Found, Rest
from jaxinit.schemes._streams import check_blocks
from jaxinit.schemes.building import (
    Rule,
    agreed,
    by_fan,
    complete,
    drawn,
    refuse,
    scheme,
    stream_totals,
    times,
)
from jaxinit.schemes.frameworks import flax
from jaxinit.schemes.parts import (
    GATE,
    HEAD,
    KERNEL,
    SCALE,
    Part,
    place_in_block,
)

_HE = by_fan(2.0, "fan_out", "normal")


def _is_last(leaf: Leaf) -> bool:
    """Whether a leaf is in the last of several like layers of a block."""
    place = place_in_block(leaf)
    return place is not None and 1 < place[1] == place[0] + 1


class _Last(Part):
    """Leaves of the last of several like layers in a block."""

    def __call__(self, leaf: Leaf) -> bool:
        is_one = super().__call__(leaf)
        return is_one and (leaf.role is not None or _is_last(leaf))


def _closes(role: Role) -> bool:
    return any(use.closing for use in role.uses)


def _is_written(role: Role) -> bool:
    """Whether a kernel writes to a residual stream."""
    return any(use.residual for use in role.kernels)


_LAST_SCALE = _Last(
    "scale of the last norm of a residual block, such as bn2", "scale", by_role=_closes
)
_LAST_KERNEL = _Last(
    "last kernel of a residual block, such as conv2", "kernel", by_role=_is_written
)
# By names, `SCALE` is for them too.
_MULTIPLIER = Part("multiplier of a branch", "", by_role=GATE.by_role)


@scheme
def zero_gamma() -> Rules:
    """Residual networks with norms: every block starts as the identity.

    - scale of the last norm of a block: 0; other scales 1
    - kernel: He by `fan_out`, `N(0, 2 / fan_out)`; head `N(0, 0.01**2)`
    - bias 0

    The last norm of a block is the one with the greatest number among norms whose names
    differ only in it, such as `bn2` or `BatchNorm_1`; a block is a numbered module,
    such as `layer1_0`. With roles, it is the last one in a branch of a residual stream
    that is behind a kernel of the branch, whatever its name. Goyal et al., "Accurate,
    large minibatch SGD" (2017), for scale and head; He et al., "Delving deep into
    rectifiers" (2015), for kernels.

    Returns:
        The rules.

    >>> zero_gamma().name
    'scheme zero_gamma'
    """
    rules = {_LAST_SCALE: zeros, HEAD: normal(0.01), KERNEL: _HE}
    return complete(rules, [_LAST_SCALE])


@scheme
def fixup(blocks: Found = None) -> Rules:
    """Residual networks without norms.

    - last kernel of a block: 0
    - its other `m - 1` kernels: He by `fan_out`, times `blocks**(-1 / (2 m - 2))`
    - head: 0; other kernels: He by `fan_out`
    - scalar multipliers 1 (`scale`), scalar and other biases 0

    The kernels of a block have names that differ only in a number, such as `conv1` and
    `conv2`, in a numbered module; a projection in the shortcut has another name. With
    roles, a block is a branch of a residual stream, whatever its names. The scale of a
    norm is refused. Zhang et al., "Fixup initialization: residual learning
    without normalization" (2019).

    Args:
        blocks: number of residual blocks, at least 1; None counts the kernels that
            write to the residual stream in the computation, for a plan with roles.

    Returns:
        The rules.

    Raises:
        ValueError: if `blocks` is out of range.

    >>> fixup(blocks=16).name
    'scheme fixup'
    """
    kernel = _in_block(blocks)
    rules = {
        _LAST_KERNEL: zeros,
        HEAD: zeros,
        KERNEL: kernel,
        _MULTIPLIER: ones,
        SCALE: _multiplier,
    }
    return complete(rules, [_LAST_KERNEL])


@dataclass(frozen=True)
class _in_block:  # noqa: N801 - used, and therefore spelled, as a function
    """He's rule, narrower for the several kernels of a residual block."""

    blocks: int | None

    def __call__(self, leaf: Leaf) -> Initializer:
        place = place_in_block(leaf) if leaf.role is None else leaf.role.branch
        if place is None or place[1] == 1:
            return drawn(_HE, leaf)
        totals = stream_totals(leaf)
        found = sum(filter(None, totals)) if totals and all(totals) else None
        blocks = agreed("blocks", self.blocks, found)
        return drawn(times(_HE, blocks ** (-1 / (2 * place[1] - 2))), leaf)


def _multiplier(leaf: Leaf) -> Initializer:
    no_norm = refuse("it is the scale of a norm: Fixup is for networks without norms")
    return ones if leaf.shape in ((), (1,)) else drawn(no_norm, leaf)


def gated(rule: Rule, rest: Rules | None) -> Rules:
    """A rule for the gate of every residual branch; `rest` for all other leaves."""
    return Rules({GATE: rule}) | (flax() if rest is None else rest)


@scheme
def rezero(rest: Rest = None) -> Rules:
    """ReZero: `x + gate f(x)`, with gate 0.

    Gates are parameters named `gate`, `alpha`, `rezero` or the like.
    Bachlechner et al., "ReZero is all you need" (2020).

    Args:
        rest: rules for all other leaves; None means `flax()`.

    Returns:
        The rules.

    >>> rezero().name
    'scheme rezero'
    """
    return gated(constant(0.0), rest)


@scheme
def skip_init(rest: Rest = None) -> Rules:
    """SkipInit: `x + gate f(x)`, with gate 0; kernels He normal by `fan_in`.

    De and Smith, "Batch normalization biases residual blocks towards the identity
    function in deep networks" (2020).

    Args:
        rest: rules for all other leaves; None means kernels `N(0, 2 / fan_in)`, head
            included, biases 0 and norm scales 1.

    Returns:
        The rules.

    >>> skip_init().name
    'scheme skip_init'
    """
    he = complete({KERNEL: by_fan(2.0, "fan_in", "normal")})
    return gated(constant(0.0), he if rest is None else rest)


@scheme
def layer_scale(layers: Count, rest: Rest = None) -> Rules:
    """LayerScale: `x + gate * f(x)`, with a gate for each channel, set by depth.

    - gate: 0.1 up to 18 layers, 1e-5 up to 24, 1e-6 beyond

    Touvron et al., "Going deeper with image transformers" (2021).

    Args:
        layers: number of blocks, at least 1. A plan with roles refuses another one
            than the computation tells.
        rest: rules for all other leaves; None means `flax()`.

    Returns:
        The rules.

    Raises:
        ValueError: if `layers` is out of range.

    >>> layer_scale(layers=24).name
    'scheme layer_scale'
    """
    return gated(_by_blocks(layers), rest)


@dataclass(frozen=True)
class _by_blocks:  # noqa: N801 - as above
    """A gate that is smaller in deeper networks."""

    layers: int

    def __call__(self, leaf: Leaf) -> Initializer:
        if leaf.role is not None:
            check_blocks(leaf, self.layers)
        if self.layers <= 18:
            return constant(0.1)
        return constant(1e-5 if self.layers <= 24 else 1e-6)
