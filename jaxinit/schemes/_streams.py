"""What roles say of the residual stream that a kernel is in a branch of."""

import math
from collections.abc import Sequence
from dataclasses import replace

from jaxinit._roles.role import Use
from jaxinit._tree.leaf import Leaf
from jaxinit.initializers.base import Initializer
from jaxinit.initializers.sections import split
from jaxinit.initializers.wrappers import scaled

_SHOWN = 6  # writers in a message


def scaled_by_layer(
    init: Initializer, factors: Sequence[float], leaf: Leaf
) -> Initializer:
    """An initializer times a factor for each layer in a leaf, as by `layers_of`."""
    return _scaled_along(init, factors, stack_axes(leaf), leaf.shape)


def _scaled_along(
    init: Initializer,
    factors: Sequence[float],
    axes: Sequence[int],
    shape: Sequence[int],
) -> Initializer:
    if len(set(factors)) == 1:
        return scaled(init, factors[0])
    axis, *others = axes
    size = len(factors) // shape[axis]
    parts = (factors[i : i + size] for i in range(0, len(factors), size))
    inits = tuple(_scaled_along(init, part, others, shape) for part in parts)
    return split(inits, len(inits), axis)


def stack_axes(leaf: Leaf) -> tuple[int, ...]:
    """The axes of a kernel along which its layers lie, by its role."""
    if leaf.role is None or not leaf.role.kernels:
        return ()
    return leaf.role.kernels[0].stack_axis


def stream_of(leaf: Leaf) -> int | None:
    """The number of the residual stream that a kernel is in a branch of."""
    uses = () if leaf.role is None else leaf.role.kernels
    return next((use.stream for use in uses if use.stream is not None), None)


def coders(leaf: Leaf) -> tuple[Leaf, Leaf] | None:
    """A leaf of the encoder and one of the decoder of a model, by its roles.

    The decoder is the only stream that keys come to from another one, the encoder. None
    if there is no such pair.
    """
    by_stream = {
        use.stream: (role, use.memory)
        for role in leaf.roles.values()
        for use in role.kernels
        if use.residual
    }
    found = [pair for pair in by_stream.values() if pair[1] in by_stream]
    if len(found) != 1 or found[0][1] is None:
        return None
    (decoder, memory), *_ = found
    return replace(leaf, role=by_stream[memory][0]), replace(leaf, role=decoder)


def total_of(leaf: Leaf) -> int | None:
    """How many kernels write to the stream of a kernel; None if that is not known."""
    assert leaf.role is not None
    own = [use.residual for use in leaf.role.kernels if use.residual]
    found = own or [use.residual for _, use in writers_of(leaf) if use.residual]
    return found[0][1] if found else None


def writers_of(leaf: Leaf) -> list[tuple[str, Use]]:
    """The path and the use of all that writes to the stream of a kernel, in order."""
    number = stream_of(leaf)
    if number is None:
        return []
    found = [
        (path, use)
        for path, role in leaf.roles.items()
        for use in role.kernels
        if use.residual and use.stream == number
    ]
    return sorted(found, key=lambda pair: pair[1].residual or (0, 0))


def writers_in_rounds(leaf: Leaf, layers: int | None) -> int:
    """How many kernels write to a stream in a loop of unknown length, of two a layer.

    Raises:
        ValueError: if the number of layers is not given, or other than two write.
    """
    if layers is None:
        raise ValueError(
            "the computation does not tell how many kernels write to the stream: give "
            "layers="
        )
    found = len(writers_of(leaf))
    if found not in (0, 2):
        raise ValueError(
            f"layers={layers} was given, but in a loop of unknown length, {found} "
            "kernels write to the residual stream in each round, not two: give it a "
            "rule of its own"
        )
    return 2 * layers


def writing(leaf: Leaf) -> Leaf:
    """A leaf of the same model that writes to a residual stream."""
    roles = leaf.roles.values()
    writer = next(x for x in roles if any(use.residual for use in x.kernels))
    return replace(leaf, role=writer)


def depth_of(leaf: Leaf, layers: int | None) -> int | None:
    """How many layers the stream of a kernel has, as given or as the computation tells.

    Raises:
        ValueError: if it tells of another number.
    """
    told, total = _told(leaf), total_of(leaf)
    if layers is None or layers == told:
        return told
    if told is None:
        fits = total is None or total % layers == 0
        has = f"{total} kernels that write to the residual stream, no multiple of that"
    else:  # what a layer is of those without attention is a matter of opinion
        fits = told % layers == 0 and not _attends(leaf)
        has = f"{told} layers, with {total} kernels that write to the residual stream"
    if not fits:
        raise ValueError(
            f"layers={layers} was given, but the computation has {has}: leave layers "
            "out"
        )
    return layers


def check_blocks(leaf: Leaf, layers: int) -> None:
    """Refuses a number of blocks that no residual stream has, nor all together.

    Without attention, a block may be several layers. Where the computation does not
    tell layers, any number will do.

    Raises:
        ValueError: if the computation tells of another number.
    """
    writers = [u for x in leaf.roles.values() for u in x.kernels if u.residual]
    depths = {use.stream: use.depth for use in writers}
    known = [depth for depth in depths.values() if depth is not None]
    fitting = {*known, sum(known)}
    if not any(use.part == "attention output" for use in writers):
        fitting |= {n // m for n in fitting for m in range(1, n + 1) if n % m == 0}
    if not known or len(known) < len(depths) or layers in fitting:
        return
    raise ValueError(
        f"layers={layers} was given, but the residual streams of the computation have "
        f"{' and '.join(map(str, known))} layers"
    )


def layers_of(leaf: Leaf, layers: int | None) -> list[int]:
    """The layers in a kernel, from 0, along its `stack_axes` in C order.

    Raises:
        ValueError: if the computation does not tell, or has not so many layers.
    """
    assert leaf.role is not None
    uses = [use for use in leaf.role.kernels if use.stream is not None]
    if not uses:
        raise ValueError(
            "no residual stream has it in a branch, so the computation tells no layer: "
            "give it a rule of its own"
        )
    number, told, total = depth_of(leaf, layers), _told(leaf), total_of(leaf)
    if number is None or (told is None and total is None):
        raise ValueError(f"{untold(leaf)}; give layers=, or it a rule of its own")
    if told is not None:
        found, size = [use.layers for use in uses], told // number
    else:
        found, size = [use.order for use in uses], (total or 0) // number
    count = math.prod(leaf.shape[axis] for axis in stack_axes(leaf))
    numbers = [
        {x // size for use in found if use and (x := use[i]) is not None}
        for i in range(count)
    ]
    if any(len(each) != 1 for each in numbers):
        raise ValueError(_not_one(leaf, numbers, uses))
    return [number for each in numbers for number in each]


def untold(leaf: Leaf) -> str:
    """What was found where the computation does not tell layers."""
    paths = list(dict.fromkeys(path for path, _ in writers_of(leaf)))
    shown = ", ".join(paths[:_SHOWN]) + (", ..." if len(paths) > _SHOWN else "")
    total = total_of(leaf)
    return (
        f"the computation does not tell layers: the kernels that write to the residual "
        f"stream, {total or 'an unknown number'} in all, are {shown}, which do not "
        "repeat layer by layer"
    )


def _not_one(leaf: Leaf, numbers: Sequence[set[int]], uses: Sequence[Use]) -> str:
    several = [sorted(each) for each in numbers if len(each) > 1]
    if several:
        found = f"it is used in the layers {', '.join(map(str, several[0]))}"
    elif any(use.order for use in uses):
        found = "it, or a part of it, is used in several layers, or in none"
    else:
        found = "in which layers it is used, and in which order, is not known"
    stacked = ", as by jaxinit.stacked for layers in one array"
    return (
        f"{found}, and this scheme differs by layer: give it a rule of its own"
        f"{stacked if stack_axes(leaf) else ''}"
    )


def _told(leaf: Leaf) -> int | None:
    assert leaf.role is not None
    found = [use.depth for use in leaf.role.kernels if use.stream is not None]
    return found[0] if found else None


def _attends(leaf: Leaf) -> bool:
    return any(use.part == "attention output" for _, use in writers_of(leaf))
