"""Equal rows and columns within one array: units that start alike."""

import functools
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np

from jaxinit._arrays.spread import on_host
from jaxinit._audit.drawn import RATE_BITS, bits_of, is_drawn, some_nonzero
from jaxinit._audit.leaves import Leaf, folded, parent
from jaxinit._audit.result import Finding

_PROBES = 16  # entries of each slice that are looked at first
_FEWEST = 6  # different values in a slice that is no table


@dataclass(frozen=True)
class _Repeated:
    """Equal slices of an array.

    Attributes:
        axis: the axis along which they follow each other.
        equal: number of slices with a twin.
        count: number of slices.
        is_same: whether all of them are equal to each other.
        is_stack: whether the axis stacks layers, or is before the last two.
    """

    axis: int
    equal: int
    count: int
    is_same: bool
    is_stack: bool


def findings_of_symmetry(leaves: Sequence[Leaf]) -> Iterator[Finding]:
    """Drawn arrays with equal slices along an axis.

    Slices of zeros may be equal, and those of tables and of few values.

    Args:
        leaves: leaves with finite entries that differ.
    """
    found: dict[_Repeated, list[Leaf]] = defaultdict(list)
    bits = RATE_BITS + math.log2(len(leaves) + 1)
    for leaf in leaves:
        for repeated in _repeated_slices(leaf, bits):
            found[repeated].append(leaf)
    for repeated, alike in found.items():
        yield _finding(repeated, alike)


def findings_of_constants(leaves: Sequence[Leaf]) -> Iterator[Finding]:
    """Kernels of equal entries other than zero; without roles, what may be kernels.

    Args:
        leaves: the leaves of a tree.
    """
    shapes = {leaf.path: leaf.shape for leaf in leaves}
    found: dict[str, list[Leaf]] = defaultdict(list)
    for leaf in leaves:
        severity = _severity_of_constant(leaf, shapes)
        if severity is not None:
            found[severity].append(leaf)
    for severity, alike in found.items():
        what = "" if severity == "error" else "if this is a kernel, "
        yield Finding(
            "symmetric",
            folded(alike),
            severity,
            f"all entries are equal and not zero: {what}all units of the layer start "
            "alike, get equal gradients and stay alike. Draw them.",
        )


def _severity_of_constant(
    leaf: Leaf, shapes: Mapping[str, tuple[int, ...]]
) -> str | None:
    """How bad it is that all entries are equal; None if it is as it should be."""
    measured = leaf.measured
    if measured is None or not measured.is_constant or not measured.mean:
        return None
    if sum(size > 1 for size in leaf.shape) < 2:
        return None
    if leaf.role is not None and leaf.role.kind != "unknown":
        is_kernel = leaf.role.kind in ("kernel", "convolution", "embedding")
        return "error" if is_kernel else None
    if shapes.get(f"{parent(leaf.path)}/bias") == leaf.shape:
        return None  # a norm, whose scale and bias have one shape
    return "note" if measured.mean == 1 else "warning"


def _repeated_slices(leaf: Leaf, bits: float) -> Iterator[_Repeated]:
    if sum(size > 1 for size in leaf.shape) < 2:
        return
    values = on_host(leaf.array)
    for axis, count in enumerate(values.shape):
        if count < 2 or values.size < _FEWEST * count:
            continue
        suspects = _suspects(values, axis)
        if not suspects.size:
            continue
        twins = _twins(np.moveaxis(values, axis, 0), suspects)
        equal = sum(map(len, twins))
        if equal and _is_no_chance(values, axis, twins, bits):
            is_same = len(twins[0]) == count
            yield _Repeated(axis, equal, count, is_same, _is_stack(leaf, axis))


def _suspects(values: np.ndarray, axis: int) -> np.ndarray:
    """Slices along an axis that agree with another in a few entries.

    These are added up with weights, in one order for all: equal slices have equal sums.
    """
    places = _places((*values.shape[:axis], *values.shape[axis + 1 :]))
    seen = values[(*places[:axis], slice(None), *places[axis:])]
    seen = seen.T if axis == 0 else seen  # NumPy has the places first, unless the slice
    wide = seen.astype(np.complex128 if seen.dtype.kind == "c" else np.float64)
    sums = np.add.reduce(wide * _WEIGHTS[: len(wide), None], axis=0)
    order = np.argsort(sums, kind="stable")
    ordered = sums[order]
    (same,) = np.nonzero(ordered[1:] == ordered[:-1])
    return np.unique(order[np.concatenate([same, same + 1])]) if same.size else same


_WEIGHTS = np.random.default_rng(0).uniform(1, 2, _PROBES)


@functools.lru_cache(4096)
def _places(shape: tuple[int, ...]) -> tuple[np.ndarray, ...]:
    """Indices of a few entries of an array, far from each other."""
    size = math.prod(shape)
    flat = np.linspace(0, size - 1, min(size, _PROBES)).astype(np.int64)
    return np.unravel_index(flat, shape)


def _twins(slices: np.ndarray, suspects: np.ndarray) -> list[list[int]]:
    """Those of the suspected slices, along the first axis, that are equal.

    Slices of zeros are left out.
    """
    alike: dict[bytes, list[int]] = defaultdict(list)
    for i in suspects.tolist():
        one = np.ascontiguousarray(slices[i])
        if np.any(one):
            alike[blake2b(one.view(np.uint8).data, digest_size=16).digest()].append(i)
    return [x for x in alike.values() if len(x) > 1]


def _is_no_chance(
    values: np.ndarray, axis: int, twins: Sequence[Sequence[int]], bits: float
) -> bool:
    """Whether slices are draws, of which so many are not equal by chance."""
    slices = np.moveaxis(values, axis, 0)
    first = slices[[x[0] for x in twins[:_PROBES]]]
    if not is_drawn(first[0] if len(twins) == 1 else first, _FEWEST):
        return False
    seen = some_nonzero(first, 4096).astype(np.real(values).dtype)
    told = bits_of(seen) * np.count_nonzero(first) / len(first)
    pairs = 2 * math.log2(len(slices))
    excess = sum(len(x) - 1 for x in twins)
    return bool(told > pairs and excess * (told - pairs) >= bits)


def _is_stack(leaf: Leaf, axis: int) -> bool:
    if leaf.role is not None and leaf.role.kernels:
        use = leaf.role.kernels[0]
        return axis in (*use.stack_axis, *use.batch_axis)
    return axis < len(leaf.shape) - 2


def _finding(repeated: _Repeated, leaves: Sequence[Leaf]) -> Finding:
    count, is_stack = repeated.count, repeated.is_stack
    slices = f"of the {count} slices along axis {repeated.axis}"
    if repeated.is_same:
        seen = f"all {slices} are equal"
    elif repeated.equal == count:
        seen = f"each {slices} has another that is equal to it"
    else:
        seen = f"{repeated.equal} {slices} have another that is equal to them"
    if is_stack:
        why = "layers, experts or places of a window start alike"
    else:
        why = "units that start alike get equal gradients and stay alike"
    return Finding(
        "symmetric",
        folded(leaves),
        "error" if repeated.is_same and not is_stack else "warning",
        f"{seen}: {why}. Draw the array with one key, or each slice with its own.",
    )
