"""The entries of constant arrays, where they are known.

Take `0.5 * sin(positions * rates)` that is added to activations. What the angles are is
not known, but the mean square of many sines is one half, and so theirs is one eighth.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxinit._roles.reading.functions import FUNCTIONS
from jaxinit._roles.reading.graph import Node, Value
from jaxinit._roles.reading.primitives import COPIES, PARTS, RELOCATIONS, SUMS
from jaxinit._roles.statistics.combined import Moments, mixture

_MOVED = (COPIES | RELOCATIONS | PARTS | {"each"}) - {"pad"}
_LARGEST = 100.0  # of entries that are no fillings of a mask
_MOST_ENTRIES = 2**18  # of an array that is computed
_MOST_STEPS = 32  # from a constant to where it is used
_SINES: Moments = (0.0, 0.5)

Entries = np.ndarray | None


def constant_moments(value: Value) -> Moments | None:
    """Mean and variance of the entries of a constant array; None if not known."""
    return _moments(value, _MOST_STEPS)


def _moments(value: Value, steps: int) -> Moments | None:
    node, known = value.node, _measured(value)
    if node is None or known is not None:
        return known
    if not steps:
        return None
    if node.op in ("sin", "cos"):
        return _SINES
    if node.op in _MOVED:
        return _moments(node.inputs[0], steps - 1)
    if node.op in (*SUMS, "mul", "div", "neg"):
        return _scaled(node, [_moments(x, steps - 1) for x in node.inputs])
    parts = _written(node) if node.op in _WRITING else _PARTS.get(node.op, _none)(node)
    found = [_moments(part, steps - 1) for part, _ in parts]
    if node.op == "select_n":  # how often each is chosen is not known
        return found[0] if len(set(found)) == 1 else None
    return _mixed(found, [size for _, size in parts])


def _known(value: Value, steps: int, seen: dict[int, Entries]) -> Entries:
    """The entries of a small array that is made of constants; None if not followed."""
    if value.index not in seen:
        seen[value.index] = _computed(value, steps, seen)
    return seen[value.index]


def _computed(value: Value, steps: int, seen: dict[int, Entries]) -> Entries:
    node = value.node
    if value.dtype is None or not jnp.issubdtype(value.dtype, np.generic):
        return None  # a key
    if node is None:
        return None if value.constant is None else np.asarray(value.constant)
    if not steps or math.prod(value.shape) > _MOST_ENTRIES or len(node.outputs) > 1:
        return None
    if node.op not in _MADE and node.op not in FUNCTIONS and node.op not in COPIES:
        return None
    arrays = []
    for taken in node.inputs:
        entries = _known(taken, steps - 1, seen)
        if entries is None:
            return None
        arrays.append(entries)
    with np.errstate(all="ignore"):
        if node.op in _MADE:
            made = _MADE[node.op](node, *arrays)
        elif node.op in FUNCTIONS:
            made = FUNCTIONS[node.op](node.params, *arrays)
        else:
            made = arrays[0]
        return np.asarray(made).astype(value.dtype)


def _spread_out(node: Node, x: np.ndarray) -> np.ndarray:
    shape, axes = node.output.shape, node.params["broadcast_dimensions"]
    kept = dict(zip(axes, x.shape, strict=True))
    lined = x.reshape([kept.get(i, 1) for i in range(len(shape))])
    return np.broadcast_to(lined, shape)


def _counted(node: Node) -> np.ndarray:
    shape, axis = node.output.shape, node.params["dimension"]
    later = (1,) * (len(shape) - axis - 1)
    return np.broadcast_to(np.arange(shape[axis]).reshape(-1, *later), shape)


def _running(x: np.ndarray, params: Mapping[str, Any]) -> np.ndarray:
    axis = params["axis"]
    if params["reverse"]:
        return np.flip(np.cumsum(np.flip(x, axis), axis), axis)
    return np.cumsum(x, axis)


_MADE = {
    "iota": _counted,
    "broadcast_in_dim": _spread_out,
    "reshape": lambda node, x: x.reshape(node.output.shape),
    "squeeze": lambda node, x: x.reshape(node.output.shape),
    "expand_dims": lambda node, x: x.reshape(node.output.shape),
    "transpose": lambda node, x: x.transpose(node.params["permutation"]),
    "concatenate": lambda node, *xs: np.concatenate(xs, node.params["dimension"]),
    "cumsum": lambda node, x: _running(x, node.params),
    "reduce_sum": lambda node, x: x.sum(node.params["axes"]),
    "reduce_max": lambda node, x: x.max(node.params["axes"]),
    "reduce_min": lambda node, x: x.min(node.params["axes"]),
}


def _measured(value: Value) -> Moments | None:
    entries = _known(value, _MOST_STEPS, {})
    if entries is None or np.iscomplexobj(entries):
        return None
    if entries.dtype.kind not in "fiu" or not entries.size:
        return None
    entries = entries.astype(float)
    if not np.all(np.abs(entries) <= _LARGEST):
        return None
    return float(entries.mean()), float(entries.var())


def _scaled(node: Node, operands: Sequence[Moments | None]) -> Moments | None:
    """What one number, at least, scales or shifts."""
    if node.op == "neg":
        return _affine(operands[0], -1.0, 0.0)
    first, second = operands
    if first is None or second is None:
        return None
    if not second[1]:
        by = second[0]
        if node.op == "div":
            return _affine(first, 1 / by, 0.0) if by else None
        if node.op == "mul":
            return _affine(first, by, 0.0)
        return _affine(first, 1.0, -by if node.op == "sub" else by)
    if first[1] or node.op == "div":
        return None
    if node.op == "mul":
        return _affine(second, first[0], 0.0)
    return _affine(second, -1.0 if node.op == "sub" else 1.0, first[0])


def _affine(moments: Moments | None, factor: float, shift: float) -> Moments | None:
    if moments is None:
        return None
    mean, variance = moments
    return factor * mean + shift, factor**2 * variance


Parts = list[tuple[Value, float]]  # values, and how many entries are theirs


def _none(node: Node) -> Parts:
    return []


def _joined(node: Node) -> Parts:
    return [(value, math.prod(value.shape)) for value in node.inputs]


def _cases(node: Node) -> Parts:
    return [(value, 1.0) for value in node.inputs[1:]]


def _padded(node: Node) -> Parts:
    inside = math.prod(node.inputs[0].shape)
    around = math.prod(node.output.shape) - inside
    return [(node.inputs[0], inside), (node.inputs[1], around)]


_PARTS = {
    "concatenate": _joined,
    "stack": _joined,
    "pad": _padded,
    "select_n": _cases,
}
_WRITING = {"scatter": 2, "dynamic_update_slice": 1}  # which input is written


def _written(node: Node) -> Parts:
    """What is written, by one node after another, and what is left of the first."""
    size = math.prod(node.output.shape)
    parts: Parts = []
    value = node.output
    while value.node is not None and value.node.op in _WRITING:
        update = value.node.inputs[_WRITING[value.node.op]]
        parts.append((update, math.prod(update.shape)))
        value = value.node.inputs[0]
    left = size - sum(entries for _, entries in parts)
    return [*parts, (value, left)] if left >= 0 else []


def _mixed(found: Sequence[Moments | None], sizes: Sequence[float]) -> Moments | None:
    """The moments of several arrays as one."""
    pairs = [(x, size) for x, size in zip(found, sizes, strict=True) if size]
    total = sum(size for _, size in pairs)
    if not total or any(x is None for x, _ in pairs):
        return None
    known = ((m, m * m + v) for (m, v) in filter(None, (x for x, _ in pairs)))
    return mixture(known, [size / total for _, size in pairs])
