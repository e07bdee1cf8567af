"""Passes through a model that bring the outputs of its layers to unit variance."""

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxinit._basics.table import Table, Tabular
from jaxinit._signal.finite import nonfinite
from jaxinit._signal.measure import mean_and_std
from jaxinit._signal.recorder import Capture, Tap, compiled, wide
from jaxinit._signal.weighted import Layer, check_units, unseen, weighted_layers


@dataclasses.dataclass(frozen=True)
class Aim:
    """What the outputs of layers are brought to.

    Attributes:
        by_unit: whether each unit gets variance one, and mean zero too if there is a
            bias; else the output as a whole gets variance one.
        tolerance: how far a variance or mean may be off.
        tries: the most passes that change parameters.
        chosen: positions of the weights that may be changed; a layer is normalised if
            all its weights are among them.
    """

    by_unit: bool
    tolerance: float
    tries: int
    chosen: frozenset[int] = frozenset()


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["mean", "variance", "is_right", "constant"],
    meta_fields=[],
)
@dataclasses.dataclass(frozen=True)
class Outputs:
    """Statistics of what layers return, with one entry for each layer.

    Attributes:
        mean: mean of all entries, in float32 or wider; complex if outputs are.
        variance: their variance.
        is_right: whether the aim is reached.
        constant: share of the units that are constant on the batch, so that no scale
            brings their variance to one; 1 or 0 if the output is taken as a whole.
    """

    mean: jax.Array
    variance: jax.Array
    is_right: jax.Array
    constant: jax.Array


class _Correction(NamedTuple):
    """Weights are multiplied by `scale`; a bias `b` becomes `b * scale + shift`.

    Without `shift` the bias stays as it is.
    """

    scale: jax.Array
    shift: jax.Array | None


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["before", "after", "passes"],
    meta_fields=["layers", "unseen"],
)
@dataclasses.dataclass(frozen=True, repr=False)
class Normalized(Tabular):
    """A log of how the layers of a model were normalised.

    Attributes:
        layers: their paths, in the order in which they ran.
        unseen: paths of chosen weights that belong to none of these layers.
        before: their outputs in the first pass.
        after: their outputs in the last pass.
        passes: how often the batch went through the model.
    """

    layers: tuple[str, ...]
    unseen: tuple[str, ...]
    before: Outputs
    after: Outputs
    passes: jax.Array

    def __repr__(self):
        return f"<Normalized: {len(self.layers)} layers>"

    def _table(self):
        head = ["layer", "mean before", "after", "variance before", "after"]
        moments = (map(_rounded, np.asarray(x)) for x in self._moments())
        rows = list(map(list, zip(self.layers, *moments, strict=True)))
        marks = {i: text for i, text in enumerate(self._faults()) if text}
        notes = [f"left as it was: {path}" for path in self.unseen]
        count = int(self.passes)
        notes.append("1 pass" if count == 1 else f"{count} passes")
        return Table(head, rows, (0,), notes, marks)

    def _faults(self) -> Iterator[str]:
        """What is still wrong with each layer after the last pass; "" if nothing."""
        after = jax.tree.map(np.asarray, self.after)
        for right, constant, variance in zip(
            after.is_right, after.constant, after.variance, strict=True
        ):
            if right:
                yield ""
            elif not np.isfinite(variance):
                yield "not finite"
            elif constant:
                units = "" if constant == 1 else f"{constant:.2g} of the units are "
                yield f"{units}constant on the batch"
            else:
                yield "not reached"

    def _moments(self) -> tuple[jax.Array, ...]:
        before, after = self.before, self.after
        return before.mean, after.mean, before.variance, after.variance


def _rounded(value: Any) -> str:
    return f"{value:.3g}"


@compiled
def normalize(
    capture: Capture, aim: Aim, params: Any, state: Any, inputs: tuple
) -> tuple[Any, Normalized, list[jax.Array]]:
    """Corrects every layer in one pass, in the order in which they run, and repeats.

    During a pass, the output of each layer is corrected where it is off, so that later
    layers see what they will see once its parameters have been corrected. Where an
    output is linear in the parameters, that is exact, and the next pass finds nothing
    to do; else the next pass corrects further.

    Returns:
        The parameters, the log, and for each array of parameters and inputs how many
        of its entries are not finite.
    """
    _, taps = jax.eval_shape(capture, params, state, inputs)
    chosen = {
        position: layer
        for position, layer in weighted_layers(params, taps).items()
        if aim.chosen.issuperset(layer.weights)
    }
    if not chosen:
        raise ValueError(
            "no layer whose weights are to change was seen in the model: it has none, "
            "or they are inside scan, vmap, remat or jit."
        )
    if aim.by_unit:
        check_units(params, chosen)
    layers = tuple(chosen.values())

    def one_pass(corrections, is_active):
        seen: dict[int, tuple[_Correction, Outputs, jax.Array]] = {}

        def change(position: int, tap: Tap) -> Any:
            if position not in chosen:
                return tap.value
            seen[position] = _judged(tap.value, chosen[position], aim, is_active)
            return _corrected(tap.value, seen[position][0])

        capture(_applied(params, layers, corrections), state, inputs, change)
        new, outputs, is_left = zip(*(seen[i] for i in chosen), strict=True)
        corrections = list(map(_composed, corrections, new))
        stacked = jax.tree.map(lambda *x: jnp.stack(x), *outputs)
        return corrections, stacked, jnp.any(jnp.stack(is_left))

    def body(loop):
        corrections, before, _, count, _ = loop
        is_active = (count > 0) & (count <= aim.tries)  # else the pass only measures
        corrections, after, is_left = one_pass(corrections, is_active)
        before = jax.tree.map(functools.partial(jnp.where, count == 0), after, before)
        return corrections, before, after, count + 1, is_left

    def goes_on(loop):
        *_, count, is_left = loop
        return (count == 0) | (is_left & (count <= aim.tries + 1))

    start = [_identity(layer, taps[i].value.dtype, aim) for i, layer in chosen.items()]
    shapes = jax.eval_shape(one_pass, start, False)[1]
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    loop = (start, zeros, zeros, jnp.int32(0), jnp.bool_(True))
    loop = jax.lax.while_loop(goes_on, body, loop)
    corrections, before, after, count, _ = loop
    names = tuple(layer.name for layer in layers)
    log = Normalized(names, unseen(params, layers, aim.chosen), before, after, count)
    return _applied(params, layers, corrections), log, nonfinite(params, inputs)


def _judged(
    x: jax.Array, layer: Layer, aim: Aim, is_active: jax.Array
) -> tuple[_Correction, Outputs, jax.Array]:
    """How to correct an output, its moments, and whether anything is left to do."""
    resolution = jnp.finfo(x.dtype).eps
    x = wide(x)
    whole_mean, whole_std = mean_and_std(x)
    has_mean = aim.by_unit and layer.bias is not None
    axes = tuple(range(x.ndim - len(layer.units) if aim.by_unit else x.ndim))
    mean, std = mean_and_std(x, axes)
    is_constant = _is_constant(x, axes, resolution)
    is_off = ~(jnp.abs(std**2 - 1) <= aim.tolerance)
    if has_mean:
        is_off |= ~(jnp.abs(mean) <= aim.tolerance)
    is_left = is_off & jnp.isfinite(std) & ~is_constant
    is_changed = is_left & is_active
    scale = jnp.where(is_changed, 1 / jnp.where(is_changed, std, 1), 1)
    shift = jnp.where(is_changed, -mean * scale, 0) if has_mean else None
    outputs = Outputs(whole_mean, whole_std**2, ~jnp.any(is_off), jnp.mean(is_constant))
    return _Correction(scale, shift), outputs, jnp.any(is_left)


def _is_constant(x: jax.Array, axes: tuple[int, ...], resolution: Any) -> jax.Array:
    """Whether entries along the first axes are equal, up to rounding.

    The computed deviation of equal numbers need not be zero, because their mean is
    rounded too, and dividing by it would blow weights up.
    """
    allowed = max(2 * resolution, 100 * jnp.finfo(x.dtype).eps)
    first = x[(slice(1),) * len(axes)]
    return jnp.max(jnp.abs(x - first), axes) <= allowed * jnp.max(jnp.abs(x), axes)


def _identity(layer: Layer, dtype: Any, aim: Aim) -> _Correction:
    """The correction that changes nothing."""
    shift = wide(jnp.zeros(layer.units if aim.by_unit else (), dtype))
    has_shift = aim.by_unit and layer.bias is not None
    return _Correction(jnp.ones_like(shift.real), shift if has_shift else None)


def _composed(old: _Correction, new: _Correction) -> _Correction:
    """The correction that applies `old`, then `new`."""
    scale = old.scale * new.scale
    if old.shift is None or new.shift is None:
        return _Correction(scale, None)
    return _Correction(scale, old.shift * new.scale + new.shift)


def _corrected(x: jax.Array, correction: _Correction) -> jax.Array:
    """An array times the scale, plus the shift if there is one, in its own dtype."""
    y = wide(x) * correction.scale
    return (y if correction.shift is None else y + correction.shift).astype(x.dtype)


def _applied(
    params: Any, layers: Sequence[Layer], corrections: Sequence[_Correction]
) -> Any:
    """The corrected parameters, each rounded once."""
    leaves, treedef = jax.tree.flatten(params)
    for layer, correction in zip(layers, corrections, strict=True):
        for i in layer.weights:
            leaves[i] = _corrected(leaves[i], correction._replace(shift=None))
        if layer.bias is not None and correction.shift is not None:
            leaves[layer.bias] = _corrected(leaves[layer.bias], correction)
    return jax.tree.unflatten(treedef, leaves)
