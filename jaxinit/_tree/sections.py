"""Sections of leaves as leaves of their own: gates side by side, fused projections.

Take a kernel f32[6,24] of which roles say that columns 0 to 7 are the query, 8 to 15
the key and 16 to 23 the value. It has three sections, each a leaf f32[6,8] with a role
of its own, of part "query", "key" or "value", fan in 6 and fan out 8. A rule for
queries then draws the first eight columns, and other rules the rest.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jax

from jaxinit._roles.role import Role, Section, Use
from jaxinit._tree.leaf import Leaf, is_kept
from jaxinit._tree.values import maker
from jaxinit.initializers.base import Initializer
from jaxinit.initializers.basic import ones, zeros
from jaxinit.initializers.sections import split

Block = tuple[int, int]


def sections_of(leaf: Leaf) -> tuple[int, tuple[Leaf, ...]]:
    """The sections of a leaf along one axis, as leaves of the same path, in order.

    Sections of the inputs come first, and have those of the outputs.

    Args:
        leaf: the leaf.

    Returns:
        The axis, and the sections; none if the role of the leaf has none, or they are
        not all of the axis.
    """
    if leaf.role is None:
        return 0, ()
    inputs = {axis for use in leaf.role.uses for axis in use.in_axis}
    axes = {section.axis for use in leaf.role.uses for section in use.sections}
    for axis in sorted(axes, key=lambda axis: (axis not in inputs, axis)):
        blocks = _blocks(leaf.role, axis)
        if len(blocks) > 1 and _covers(blocks, leaf.shape[axis]):
            return axis, tuple(_section(leaf, leaf.role, axis, x) for x in blocks)
    return 0, ()


def _blocks(role: Role, axis: int) -> list[Block]:
    """Where the sections along an axis are, in their order."""
    sections = (section for use in role.uses for section in use.sections)
    return sorted({x for s in sections if s.axis == axis for x in s.blocks})


def _covers(blocks: Sequence[Block], size: int) -> bool:
    """Whether runs of indices follow one another, from the first to the last."""
    ends = [0, *(stop for _, stop in blocks)]
    return ends[-1] == size and all(
        start == end for (start, _), end in zip(blocks, ends, strict=False)
    )


def _section(leaf: Leaf, role: Role, axis: int, block: Block) -> Leaf:
    size = block[1] - block[0]
    shape = (*leaf.shape[:axis], size, *leaf.shape[axis + 1 :])
    uses = tuple(_restricted(role, axis, block))
    own = dataclasses.replace(role, shape=shape, uses=uses)
    return dataclasses.replace(leaf, shape=shape, role=own)


def _restricted(role: Role, axis: int, block: Block) -> Iterator[Use]:
    """The uses of one section."""
    for use in role.uses:
        along = [section for section in use.sections if section.axis == axis]
        for section in along:
            if block in section.blocks:
                share = (block[1] - block[0]) / sum(x.size for x in along)
                yield _of_section(use, section, share)
        if not along:
            yield use


def _of_section(use: Use, section: Section, share: float) -> Use:
    """A use of a section that is a share of all that is used of its axis."""
    others = tuple(x for x in use.sections if x.axis != section.axis)
    if section.part in ("input", "recurrent"):
        return dataclasses.replace(
            use,
            recurrent=section.part == "recurrent",
            fan_in=use.fan_in * share,
            variance=use.variance / share,
            sections=others,
        )
    return dataclasses.replace(
        use,
        part=section.part or use.part,
        function=section.function or use.function,
        gain=section.gain if section.function else use.gain,
        fan_out=use.fan_out * share if section.axis in use.out_axis else use.fan_out,
        sections=others,
    )


def joined(
    axis: int, sections: Sequence[Leaf], initializers: Sequence[Any]
) -> Initializer:
    """One initializer for sections that lie side by side.

    Raises:
        ValueError: if a section is left to the model.
    """
    if any(map(is_kept, initializers)):
        raise ValueError(
            "a section of it has a rule, and others are left to the model, which draws "
            "only whole leaves: give a rule for all of it"
        )
    sizes = tuple(leaf.shape[axis] for leaf in sections)
    if len({*initializers}) == 1 and initializers[0] in (zeros, ones):
        return initializers[0]
    if len({*initializers}) == len({*sizes}) == 1:
        return split(initializers[0], len(sizes), axis)
    return split(tuple(initializers), sizes, axis)


@dataclass(frozen=True)
class by_section:  # noqa: N801 - used, and therefore spelled, as a function
    """A value of rules: every section of a leaf is drawn by itself.

    The gates of a recurrent kernel and the query, key and value of a fused projection
    lie side by side in one leaf. Where roles tell them apart, each is drawn as an array
    of its own, with its own fans and key; other leaves are drawn whole.

    Args:
        value: an initializer, or a function of the `Leaf` that returns one. The leaf
            that it is given is one section, with its shape and role.

    Raises:
        TypeError: if it is neither.

    >>> import jax, jaxinit
    >>> def apply(params, x):
    ...     gate, up = jax.numpy.split(x @ params["a"], 2, axis=-1)
    ...     return jax.nn.silu(gate) * up
    >>> params = {"a": jax.ShapeDtypeStruct((6, 16), "float32")}
    >>> x = jax.ShapeDtypeStruct((5, 6), "float32")
    >>> roles = jaxinit.roles(apply, params, x)
    >>> rules = {"a": by_section(jaxinit.orthogonal())}
    >>> (leaf,) = jaxinit.plan(params, rules, roles=roles)
    >>> leaf.initializer
    split(orthogonal(), 2, axis=1)
    """

    value: Initializer | Callable[[Leaf], Any]

    def __post_init__(self):
        maker("the value of by_section", self.value)

    def __call__(self, leaf: Leaf) -> Callable[..., jax.Array]:
        """The initializer of all sections together."""
        axis, sections = sections_of(leaf)
        if not sections:
            return maker("the value of by_section", self.value)(leaf)
        return joined(axis, sections, [self(section) for section in sections])

    def __repr__(self):
        return f"by_section({self.value!r})"
