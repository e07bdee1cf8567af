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
import jax.numpy as jnp
import numpy as np

from jaxinit._roles.role import Role, Section, Use
from jaxinit._tree.leaf import Leaf, is_kept
from jaxinit._tree.values import maker
from jaxinit.initializers._joined import side_by_side
from jaxinit.initializers.base import Initializer
from jaxinit.initializers.basic import ones, zeros
from jaxinit.initializers.fans import positions
from jaxinit.initializers.sections import split

Block = tuple[int, int]
Blocks = tuple[Block, ...]


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
    axis, groups = _groups(leaf)
    if len(groups) < 2:
        return 0, ()
    return axis, tuple(_section(leaf, leaf.role, axis, blocks) for blocks in groups)


def is_divided(leaf: Leaf) -> bool:
    """Whether a leaf has sections."""
    return len(_groups(leaf)[1]) > 1


def _groups(leaf: Leaf) -> tuple[int, list[Blocks]]:
    """An axis that is divided, and where each of its sections is."""
    uses = () if leaf.role is None else leaf.role.uses
    inputs = {axis for use in uses for axis in use.in_axis}
    axes = {section.axis for use in uses for section in use.sections}
    for axis in sorted(axes, key=lambda axis: (axis not in inputs, axis)):
        sections = (section for use in uses for section in use.sections)
        groups = sorted({x.blocks for x in sections if x.axis == axis})
        blocks = sorted(block for group in groups for block in group)
        if _covers(blocks, leaf.shape[axis]):
            return axis, groups
    return 0, []


def _covers(blocks: Sequence[Block], size: int) -> bool:
    """Whether runs of indices follow one another, from the first to the last."""
    ends = [0, *(stop for _, stop in blocks)]
    return ends[-1] == size and all(
        start == end for (start, _), end in zip(blocks, ends, strict=False)
    )


def _section(leaf: Leaf, role: Role, axis: int, blocks: Blocks) -> Leaf:
    size = sum(stop - start for start, stop in blocks)
    shape = (*leaf.shape[:axis], size, *leaf.shape[axis + 1 :])
    uses = tuple(_restricted(role, axis, blocks))
    own = dataclasses.replace(role, shape=shape, uses=uses)
    return dataclasses.replace(leaf, shape=shape, role=own)


def _restricted(role: Role, axis: int, blocks: Blocks) -> Iterator[Use]:
    """The uses of one section."""
    for use in role.uses:
        along = [section for section in use.sections if section.axis == axis]
        for section in along:
            if blocks == section.blocks:
                share = section.size / sum(x.size for x in along)
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


def joined(leaf: Leaf, initializers: Sequence[Any]) -> Any:
    """One initializer for the sections of a leaf.

    Args:
        leaf: the leaf.
        initializers: that of each section, in the order of `sections_of`.

    Raises:
        TypeError: if one is of another library, or a `keyed`.
        ValueError: if some sections are left to the model.
    """
    if all(map(is_kept, initializers)) or (
        len({*initializers}) == 1 and initializers[0] in (zeros, ones)
    ):
        return initializers[0]
    axis, sections = sections_of(leaf)
    for section, init in zip(sections, initializers, strict=True):
        _check(section, init)
    sizes = tuple(section.shape[axis] for section in sections)
    is_one = len({*initializers}) == len({*sizes}) == 1
    init = initializers[0] if is_one else tuple(initializers)
    runs = _runs(_groups(leaf)[1])
    if len(runs) > len(sections):
        return woven(init, sizes, axis, runs)
    return split(init, len(sizes) if is_one else sizes, axis)


def _check(section: Leaf, initializer: Any) -> None:
    """Raises if a section of a leaf cannot be drawn by an initializer."""
    what = section.role.summary if section.role is not None else "an unknown part"
    if is_kept(initializer):
        raise ValueError(
            f"its section for {what} is left to the model, which draws only whole "
            "leaves, and others have a rule: give one for all of it"
        )
    if not isinstance(initializer, Initializer):
        raise TypeError(
            f"its section for {what} has the rule {initializer!r}; what draws a part "
            "of a leaf must be an initializer of jaxinit, such as jaxinit.normal()"
        )


def _runs(groups: Sequence[Blocks]) -> tuple[tuple[int, int], ...]:
    """The sections in which runs of an axis are, by number, and the sizes of these."""
    runs = sorted((block, i) for i, blocks in enumerate(groups) for block in blocks)
    return tuple((i, stop - start) for (start, stop), i in runs)


@dataclass(frozen=True, repr=False)
class woven(split):  # noqa: N801 - used, and therefore spelled, as a function
    """As `split`, but the sections lie in turns: query, key and value of each head.

    Attributes:
        runs: along the axis, the number of the section and the size of each run.
    """

    runs: tuple[tuple[int, int], ...] = ()

    def _cut(self, x):
        (axis,) = positions("axis", self.axis, x.shape)
        ends = np.cumsum([size for _, size in self.runs])[:-1].tolist()
        pieces = zip(self.runs, jnp.split(x, ends, axis), strict=True)
        parts: dict[int, list[jax.Array]] = {}
        for (number, _), piece in pieces:
            parts.setdefault(number, []).append(piece)
        return [jnp.concatenate(parts[i], axis) for i in sorted(parts)]

    def sample(self, key, shape, dtype):
        (axis,) = positions("axis", self.axis, shape)
        parts = list(self._draw_parts(key, shape, dtype))
        starts = [0] * len(parts)
        pieces = []
        for number, size in self.runs:
            start = starts[number]
            stop = starts[number] = start + size
            pieces.append(jax.lax.slice_in_dim(parts[number], start, stop, axis=axis))
        return side_by_side(pieces, axis)


@dataclass(frozen=True)
class by_section:  # noqa: N801 - used, and therefore spelled, as a function
    """A value of rules: every section of a leaf is drawn by itself.

    The gates of a recurrent kernel and the query, key and value of a fused projection
    lie side by side in one leaf. Where roles tell them apart, each is drawn as an array
    of its own, with its own fans and key; other leaves are drawn whole. Other axes are
    as the initializer takes them: of layers in one array, name `batch_axis`.

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

    def __call__(self, leaf: Leaf) -> Any:
        """The initializer of all sections together."""
        _, sections = sections_of(leaf)
        if not sections:
            return maker("the value of by_section", self.value)(leaf)
        return joined(leaf, [self(section) for section in sections])

    def __repr__(self):
        return f"by_section({self.value!r})"
