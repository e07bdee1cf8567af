"""The entries of constant arrays, where they are known.

Take `sin(positions * rates)` that is added to activations. What the angles are is not
known, but the mean square of many sines is one half.
"""

import numpy as np

from jaxinit._roles.graph import Value
from jaxinit._roles.primitives import COPIES, RELOCATIONS
from jaxinit._roles.values import behind

_MOVED = COPIES | RELOCATIONS | {"concatenate", "stack", "slice", "each"}
_LARGEST = 100.0  # of entries that are no fillings of a mask


def constant_moments(value: Value) -> tuple[float, float] | None:
    """Mean and variance of the entries of a constant array; None if not known."""
    value = behind(value, _MOVED)
    if value.node is not None:
        return (0.0, 0.5) if value.node.op in ("sin", "cos") else None
    if value.constant is None or np.iscomplexobj(value.constant):
        return None
    entries = np.asarray(value.constant)
    if entries.dtype.kind not in "fiu" or not entries.size:
        return None
    entries = entries.astype(float)
    if not np.all(np.abs(entries) <= _LARGEST):
        return None
    return float(entries.mean()), float(entries.var())
