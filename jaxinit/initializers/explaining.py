"""What an initializer draws, in words."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxinit._basics.integers import checked_shape
from jaxinit.initializers.base import Initializer, Shape, checked_initializer


class Explanation(str):
    """Text that a Python prompt shows as it is."""

    __slots__ = ()
    __repr__ = str.__str__


def explain(init: Initializer, shape: Sequence[int], dtype: Any = None) -> Explanation:
    """Says in words what an initializer will draw, and why.

    Args:
        init: the initializer.
        shape: shape of the array.
        dtype: its dtype, as in a call.

    Returns:
        A few lines of text: fans where there are any, law, mean, standard deviation
        and bounds.
    """
    init, shape = checked_initializer("init", init), checked_shape(shape)
    resolved = init._resolve(dtype)
    lines = [*init.notes(shape), *_law_lines(init, shape, resolved)]
    if not init.entries_independent:
        lines.append(("entries", "depend on each other: moments prove little"))
    size = f"{math.prod(shape)} entries" if shape else "a single entry"
    head = f"{init!r} on shape {shape}, {resolved}, {size}"
    return Explanation("\n".join([head, *(f"  {a:<8} {b}" for a, b in lines)]))


def _law_lines(init: Initializer, shape: Shape, dtype: np.dtype) -> list:
    try:
        moments = init.moments(shape, dtype)
    except NotImplementedError:
        return [("law", "not stated")]
    return [
        ("law", str(init.entry_law(shape, dtype))),
        ("mean", f"{moments.mean:.6g}"),
        ("std", f"{moments.std:.6g}"),
        ("bounds", f"{moments.low:.6g} to {moments.high:.6g}"),
    ]
