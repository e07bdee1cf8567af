"""One forward and one backward pass, and the statistics of every layer.

Take two layers `tanh(x @ w)`, with weights of `f32[3,2]` and `f32[2,2]`, on a batch of
`f32[4,3]`. A run of the model taps what its layers return:

    Tap(name="0", kind="lambda", owner=("0",), shape=(4, 2))
    Tap(name="1", kind="lambda", owner=("1",), shape=(4, 2))

To get the gradient with respect to a tapped array, an offset of zeros is added to it
while the model runs: `tap.value + offsets[i]`. The gradient of the loss with respect to
the offset is the gradient with respect to the array. `_passes` is one compiled program
for the model, which returns the arrays, and gradients for arrays and parameters.
Statistics are programs of their own, compiled once for a shape and shared by all
models. `measure` returns the taps with a dictionary of statistics in place of the
array: `std`, `gradient_std`, `dead`, `rank` and the rest of `LayerSignal`.

What holds: a parameter belongs to the innermost layer around it; statistics are in
float32 or wider, on numbers scaled so that no square overflows; nothing that is not
finite stops a run, since that is one of the findings.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Collection, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxinit._arrays.spread import reduced
from jaxinit._compile.placement import explicit_mesh, with_auto_axes
from jaxinit._signal.finite import nonfinite, what_is_nonfinite
from jaxinit._signal.recorder import (
    Capture,
    Model,
    Tap,
    compiled,
    is_float,
    leaf_owners,
    wide,
)

Loss = Callable[[Any], Any]

BINS = 60
_RANK_SAMPLES = 512  # a Gram matrix of more would cost more than the model
_SAME = 1e-5  # relative; equal sums may be rounded in different orders
_NEAR_BOUND = 0.05


def measure(model: Model, loss: Loss | None, inputs: tuple) -> tuple[list[Tap], str]:
    """Runs a model forward and backward, and measures each of its layers.

    Args:
        model: its parameters are differentiated where they are floating-point.
        loss: scalar function of the output; None takes the product of the output with
            standard normal numbers.
        inputs: arguments of its call.

    Returns:
        For each layer, in the order of execution, its tap, the array replaced by its
        statistics by name; and which parameters and inputs are not finite, in words.
    """
    given = model.params, model.state, inputs
    # NaN is a finding, reported with the layer that makes it, not an error.
    with (
        jax.debug_nans(False),
        with_auto_axes(_both_passes(model, loss, given)) as (
            taps,
            gradients,
            slopes,
            counts,
            params,
        ),
    ):
        owned = _by_owner(params, slopes, taps)
        # Compiled once for each shape, for all models.
        measured = [
            dataclasses.replace(
                tap,
                value=(
                    reduced(_statistics, _samples(tap.value), _samples(gradient)),
                    owned.get(tap.owner, []),
                    _border(tap.value, owned.get(tap.owner, [])),
                ),
            )
            for tap, gradient in zip(taps, gradients, strict=True)
        ]
        measured, counts = jax.device_get((measured, counts))
    learns = any(_learns(p) for tap in measured for p in tap.value[1])
    layers = [
        dataclasses.replace(tap, value=_with_parameters(*tap.value, learns=learns))
        for tap in measured
    ]
    return layers, what_is_nonfinite(model.params, inputs, counts)


def _both_passes(model: Model, loss: Loss | None, given: tuple) -> tuple:
    """The passes and the parameters; see `_passes`.

    On a mesh with Explicit axes, a model that does not say how its arrays are sharded
    may fail. It then runs with Auto axes.
    """
    try:
        return *_passes(model.capture, loss, *given), given[0]
    except Exception:  # of any kind: if it is not about axes, the second run raises it
        leaves = [x for x in jax.tree.leaves(given) if isinstance(x, jax.Array)]
        if explicit_mesh(leaves) is None:
            raise
    with with_auto_axes(given) as given:
        return *_passes(model.capture, loss, *given), given[0]


@compiled
def _passes(
    capture: Capture, loss: Loss | None, params: Any, state: Any, inputs: tuple
) -> tuple[list[Tap], list[jax.Array], list[jax.Array | None], list[jax.Array]]:
    """A forward and a backward pass.

    Returns:
        The taps; the gradients with respect to them; the gradients with respect to the
        parameters, None for those that are not floating-point; and the counts of
        nonfinite entries of parameters and inputs.
    """
    _, taps = jax.eval_shape(capture, params, state, inputs)
    offsets = [jnp.zeros(tap.shape, tap.value.dtype) for tap in taps]
    leaves, treedef = jax.tree.flatten(params)
    floats = [x if is_float(x) else None for x in leaves]

    def objective(floats, offsets):
        filled = [x if y is None else y for x, y in zip(leaves, floats, strict=True)]
        tree = jax.tree.unflatten(treedef, filled)
        output, taps = capture(
            tree, state, inputs, lambda i, tap: tap.value + offsets[i]
        )
        return real_scalar(loss or _probe, output), taps

    differentiate = jax.grad(objective, (0, 1), has_aux=True)
    (slopes, gradients), taps = differentiate(floats, offsets)
    return taps, gradients, slopes, nonfinite(params, inputs)


def _probe(output: Any) -> jax.Array:
    """The sum of the output times standard normal numbers: gradients of size one."""
    leaves = [x for x in jax.tree.leaves(output) if is_float(x)]
    if not leaves:
        raise TypeError(
            "the model returns no floating-point array, so that no gradient can be "
            f"taken: it returns {jax.tree.structure(output)}."
        )
    keys = jax.random.split(jax.random.key(0), len(leaves))
    products = [
        jnp.sum(jnp.real(x * jax.random.normal(key, jnp.shape(x), x.dtype)))
        for x, key in zip(leaves, keys, strict=True)
    ]
    return functools.reduce(jnp.add, products)


def scaled(
    model: Model, taps: Sequence[Tap], names: Collection[str], factor: float
) -> Model:
    """A model, with the weights of the layers of some taps multiplied by a factor."""
    owners = {tap.owner for tap in taps if tap.name in names} - {None}
    leaves, treedef = jax.tree.flatten(model.params)
    for i, owner in enumerate(leaf_owners(model.params, taps)):
        if owner in owners and jnp.ndim(leaves[i]) > 1 and is_float(leaves[i]):
            leaves[i] = (wide(leaves[i]) * factor).astype(leaves[i].dtype)
    return dataclasses.replace(model, params=jax.tree.unflatten(treedef, leaves))


def real_scalar(loss: Loss, output: Any) -> jax.Array:
    value = loss(output)
    kind = jnp.result_type(value)
    if jnp.shape(value) != () or not jnp.issubdtype(kind, jnp.floating):
        raise TypeError(
            "loss must return one real number, such as jnp.mean(output**2), got "
            f"{kind}{list(jnp.shape(value))}."
        )
    return value


def _by_owner(
    params: Any, slopes: Sequence[jax.Array | None], taps: Sequence[Tap]
) -> dict[tuple | None, list[Any]]:
    """Statistics of the parameters of each layer, but not of layers inside it."""
    owned: dict[tuple | None, list[Any]] = {}
    owners = leaf_owners(params, taps)
    leaves = jax.tree.leaves(params)
    for owner, leaf, slope in zip(owners, leaves, slopes, strict=True):
        if owner is not None and slope is not None and slope.size:
            statistics = reduced(_of_parameter, leaf, slope)
            statistics = {"shape": jnp.shape(leaf), **statistics}
            owned.setdefault(owner, []).append(statistics)
    return owned


def _statistics(x: jax.Array, g: jax.Array) -> dict[str, Any]:
    """Statistics of values and of the gradients with respect to them, by unit."""
    mean, std = mean_and_std(x)
    gradient_mean, gradient_std = mean_and_std(g)
    low, high = jnp.min(x), jnp.max(x)
    return {
        "mean": mean,
        "std": std,
        "low": low,
        "high": high,
        "zero": jnp.mean(x == 0),
        "dead": jnp.mean(jnp.all(x == 0, axis=0)),
        "saturated": _saturated(x, low, high),
        "rank": _participation_ratio(x),
        "correlation": _correlation(x),
        "identical": _equal_units(x) & _equal_units(g),
        "gradient_mean": gradient_mean,
        "gradient_std": gradient_std,
        "nonfinite": jnp.sum(~jnp.isfinite(x)),
        "gradient_nonfinite": jnp.sum(~jnp.isfinite(g)),
        "counts": _histogram(x, low, high),
    }


def _of_parameter(leaf: jax.Array, slope: jax.Array) -> dict[str, Any]:
    """Statistics of one parameter and of its gradient."""
    mean, std = mean_and_std(_samples(slope))
    own_mean, own_std = mean_and_std(_samples(leaf))
    flat = jnp.all(leaf == jnp.ravel(leaf)[0])
    return {
        "size": slope.size,
        "mean": mean,
        "std": std,
        "flat": flat,
        "is_weight": slope.ndim > 1,
        "own_mean": own_mean,
        "own_std": own_std,
        "low": jnp.min(jnp.real(leaf)),
    }


def _learns(parameter: dict[str, Any]) -> bool:
    """Whether it is a weight, not a bias, and its gradient is not zero."""
    return parameter["is_weight"] and bool(parameter["std"] or parameter["mean"])


def _with_parameters(
    statistics: dict[str, Any], parameters: list[Any], border: Any, learns: bool
) -> dict[str, Any]:
    """Statistics of a layer, and pooled ones of its parameters."""
    mean, std = _pooled(parameters)
    weights = [p for p in parameters if p["is_weight"]] or parameters
    flat = bool(weights) and all(p["flat"] and p["size"] > 1 for p in weights)
    # Units that are all zero are equal, but count as dead instead, unless constant
    # weights make them zero. And these become different if other weights learn, as they
    # do around a residual branch that starts at zero.
    is_zero = statistics["low"] == statistics["high"] == 0
    return {
        **statistics,
        **_of_kernel(parameters),
        "border": border,
        "identical": bool(statistics["identical"])
        and (not is_zero or (flat and not learns)),
        "flat": flat,
        "parameter_gradient_mean": mean,
        "parameter_gradient_std": std,
    }


def _of_kernel(parameters: list[Any]) -> dict[str, Any]:
    """The shape and the moments of the largest weight, and the least bias."""
    nothing = {"shape": (), "own_mean": math.nan, "own_std": math.nan, "size": 0}
    weights = [nothing, *(p for p in parameters if p["is_weight"])]
    kernel = max(weights, key=lambda p: int(p["size"]))
    biases = [float(p["low"]) for p in parameters if not p["is_weight"]]
    return {
        "kernel": tuple(map(int, kernel["shape"])),
        "kernel_mean": kernel["own_mean"],
        "kernel_std": kernel["own_std"],
        "bias_low": min(biases, default=math.nan),
    }


def _border(x: jax.Array, parameters: list[Any]) -> Any:
    """How large the outputs of a convolution are at borders; NaN for other layers."""
    is_convolution = any(len(p["shape"]) == x.ndim > 2 for p in parameters)
    return _border_size(x) if is_convolution else math.nan


@jax.jit
def _border_size(x: jax.Array) -> jax.Array:
    """Root mean square at the ends of the spatial axes, over the one of all entries."""
    squares = jnp.abs(_unit_scale(wide(x))[0]) ** 2
    places = jnp.mean(squares, (0, -1))
    ends = [jnp.take(places, jnp.array([0, -1]), axis) for axis in range(places.ndim)]
    return jnp.sqrt(
        jnp.mean(jnp.concatenate([x.ravel() for x in ends])) / jnp.mean(places)
    )


def _pooled(parameters: list[Any]) -> tuple[float, float]:
    """Mean and standard deviation of several gradients taken together."""
    if not parameters:
        return math.nan, math.nan
    size = sum(int(p["size"]) for p in parameters)
    share = [int(p["size"]) / size for p in parameters]
    means = [float(p["mean"]) for p in parameters]
    mean = sum(w * m for w, m in zip(share, means, strict=True))
    deviations = [
        math.sqrt(w) * math.hypot(float(p["std"]), m - mean)
        for w, m, p in zip(share, means, parameters, strict=True)
    ]
    return mean, math.hypot(*deviations)


def _samples(x: jax.Array) -> jax.Array:
    """As (samples, units), in float32 or wider; complex numbers as two units."""
    x = x.reshape(-1, x.shape[-1]) if x.ndim else x.reshape(1, 1)
    if jnp.iscomplexobj(x):
        x = jnp.concatenate([x.real, x.imag], axis=-1)
    return wide(x)


def _unit_scale(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """`x` over its largest entry, so that no square overflows or vanishes."""
    scale = jnp.max(jnp.abs(x))
    scale = jnp.where(scale == 0, 1, scale)
    return x / scale, scale


def mean_and_std(
    x: jax.Array, axes: tuple[int, ...] | None = None
) -> tuple[jax.Array, jax.Array]:
    """Mean and standard deviation over some axes, None for all; `x` may be complex."""
    x, scale = _unit_scale(x)
    mean = jnp.mean(x, axes, keepdims=True)
    variance = jnp.mean(jnp.abs(x - mean) ** 2, axes)
    return scale * mean.reshape(variance.shape), scale * jnp.sqrt(variance)


def _histogram(x: jax.Array, low: jax.Array, high: jax.Array) -> jax.Array:
    """Counts of nonzero entries in equal bins; jnp.histogram takes long to compile."""
    width = jnp.where(high > low, high - low, 1)
    place = jnp.nan_to_num((x - low) / width * BINS)
    bins = jnp.clip(place, 0, BINS - 1).astype(jnp.int32)
    return jnp.zeros(BINS, jnp.int32).at[bins.ravel()].add((x != 0).ravel())


def _saturated(x: jax.Array, low: jax.Array, high: jax.Array) -> jax.Array:
    """Share of entries near the bounds of outputs that all lie in [-1, 1] or [0, 1]."""
    near_one = jnp.mean(jnp.abs(x) > 1 - _NEAR_BOUND)
    near_zero = jnp.mean(x < _NEAR_BOUND)
    # Many outputs near one and none above tell a sigmoid from other positive outputs.
    is_sigmoid = (low >= 0) & (near_one > 2 * _NEAR_BOUND)
    bounded = (low >= -1) & (high <= 1)
    return jnp.where(bounded, near_one + jnp.where(is_sigmoid, near_zero, 0), 0)


def _participation_ratio(x: jax.Array) -> jax.Array:
    """`(sum of l)**2 / sum of l**2`, l the eigenvalues of the units' covariance."""
    x = x[:: -(-len(x) // _RANK_SAMPLES)]
    x, _ = _unit_scale(x - jnp.mean(x, axis=0))
    gram = x @ x.T if len(x) < x.shape[1] else x.T @ x
    total = jnp.trace(gram) ** 2
    return jnp.where(total == 0, 0, total / jnp.sum(gram**2))


def _correlation(x: jax.Array) -> jax.Array:
    """Mean correlation between units that vary; NaN if fewer than two do."""
    x, _ = _unit_scale(x)
    deviation = x - jnp.mean(x, axis=0)
    variance = jnp.mean(deviation**2, axis=0)
    varies = variance > _SAME**2 * jnp.mean(x**2)
    standard = jnp.where(
        varies, deviation / jnp.sqrt(jnp.where(varies, variance, 1)), 0
    )
    count = jnp.sum(varies, dtype=x.dtype)
    total = jnp.mean(jnp.sum(standard, axis=1) ** 2) - count
    return jnp.where(count < 2, jnp.nan, total / (count * (count - 1)))


def _equal_units(x: jax.Array) -> jax.Array:
    """Whether all units are equal, for every sample."""
    if x.shape[1] < 2:
        return jnp.asarray(False)
    spread = jnp.max(jnp.max(x, axis=1) - jnp.min(x, axis=1))
    return spread <= _SAME * jnp.max(jnp.abs(x))
