"""The layers of a model that have weights, and the role of each parameter in them."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp

from jaxinit._signal.recorder import Tap, is_float, leaf_owners
from jaxinit._tree.paths import Path, joined, leaf_paths

_GAINS = {"g", "gain", "scale", "weight_g"}
_BIASES = {"b", "bias", "beta", "offset"}


@dataclass(frozen=True)
class Layer:
    """A layer with weights of its own, and no layer with parameters inside.

    Parameters are given by their positions among all leaves.

    Attributes:
        name: path of the layer.
        shape: shape of its output.
        owned: its parameters.
        weights: the parameters that its output, less the bias, is proportional to: its
            kernels, or their gains if kernels are normalised.
        bias: its bias; None if it has none.
        units: shape of the units: the last axes of its output.
    """

    name: str
    shape: tuple[int, ...]
    owned: tuple[int, ...]
    weights: tuple[int, ...]
    bias: int | None
    units: tuple[int, ...]


def weighted_layers(params: Any, taps: Sequence[Tap]) -> dict[int, Layer]:
    """The layers with weights, by the position of the tap of their first output."""
    leaves = leaf_paths(params)
    owned: dict[tuple, list[int]] = {}
    for i, owner in enumerate(leaf_owners(params, taps)):
        if owner is not None and is_float(leaves[i][1]):
            owned.setdefault(owner, []).append(i)
    first: dict[tuple | None, int] = {}
    for position, tap in enumerate(taps):
        first.setdefault(tap.owner, position)
    layers = {
        first[owner]: _layer(taps[first[owner]], owned[owner], leaves)
        for owner in owned
        if not any(_is_inside(other, owner) for other in owned)
    }
    return {i: layers[i] for i in sorted(layers) if layers[i].weights}


def _is_inside(path: tuple, outer: tuple) -> bool:
    return path != outer and path[: len(outer)] == outer


def _layer(tap: Tap, owned: Sequence[int], leaves: Sequence[tuple[Path, Any]]) -> Layer:
    kernels, gains, biases = [], [], []
    for i in owned:
        path, leaf = leaves[i]
        name = "" if path == tap.owner else path[-1]
        if name in _GAINS:
            gains.append(i)
        elif name in _BIASES or jnp.ndim(leaf) < 2:
            biases.append(i)
        else:
            kernels.append(i)
            gains += _outer_gains(path, leaves)
    bias = biases[0] if len(biases) == 1 else None
    axes = 1 if bias is None else max(1, jnp.ndim(leaves[bias][1]))
    weights = (gains or kernels) if kernels else ()
    units = tap.shape[-axes:]
    return Layer(tap.name, tap.shape, tuple(owned), tuple(weights), bias, units)


def _outer_gains(kernel: Path, leaves: Sequence[tuple[Path, Any]]) -> Iterator[int]:
    """The gain that Linen's WeightNorm keeps for a kernel, in a neighbouring module."""
    name = "/".join([*kernel[-2:], "scale"])
    for i, (path, _) in enumerate(leaves):
        if path[-1:] == (name,) and path[:-2] == kernel[:-2]:
            yield i


def unseen(
    params: Any, layers: Iterable[Layer], chosen: Collection[int]
) -> tuple[str, ...]:
    """The paths of chosen weights that belong to none of the layers."""
    seen = {i for layer in layers for i in layer.owned}
    return tuple(
        joined(path)
        for i, (path, leaf) in enumerate(leaf_paths(params))
        if i in chosen and i not in seen and jnp.ndim(leaf) > 1 and is_float(leaf)
    )


def check_units(params: Any, layers: Mapping[int, Layer]) -> None:
    """Refuses layers whose weights do not have the units as their last axes.

    Raises:
        ValueError: naming the first.
    """
    leaves = leaf_paths(params)
    for layer in layers.values():
        for i in layer.weights:
            path, leaf = leaves[i]
            if jnp.shape(leaf)[-len(layer.units) :] != layer.units:
                raise ValueError(
                    f"layer {layer.name!r} returns {layer.shape}, but "
                    f"{joined(path)} is {jnp.shape(leaf)}: its last axes must number "
                    f"the units {layer.units}, as in x @ kernel."
                )
