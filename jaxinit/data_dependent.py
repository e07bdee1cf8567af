"""Initialization that looks at data: parameters are rescaled until a batch fits them.

params, log = lsuv(model, params, batch)
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp

from jaxinit._basics.table import Table, Tabular
from jaxinit._compile.placement import placed_like, with_auto_axes
from jaxinit._signal.finite import nonfinite, refuse_nonfinite
from jaxinit._signal.measure import real_scalar
from jaxinit._signal.normalize import Aim, Normalized, normalize
from jaxinit._signal.normalize import Outputs as Outputs
from jaxinit._signal.opened import opened
from jaxinit._signal.recorder import Capture, compiled, is_float, wide
from jaxinit._tree.paths import joined, leaf_paths, matcher
from jaxinit._tree.plan import leaf_contexts
from jaxinit.initializers.settings import count, fraction, positive


def lsuv(
    apply: Any,
    params: Any,
    batch: Any,
    *,
    where: Any = "**",
    tolerance: float = 0.1,
    tries: int = 10,
    **options: Any,
) -> tuple[Any, Normalized]:
    """Layer-sequential unit variance: every layer's output gets variance one.

    In the order in which layers run, the weights of a layer are divided by the standard
    deviation of its output on the batch, where its variance is off by more than
    `tolerance`, and again, until none is. The paper starts from orthonormal weights:
    draw kernels by `jaxinit.orthogonal()` and biases by `zeros`. It forwards the batch
    anew for every layer; here all are corrected as one batch passes, and the layers
    after see corrected outputs, so that three passes do where biases are zero.

    A layer is a module, or function of a list, with weights of its own and no layers
    inside. Where it is called more than once, its first output counts; where its
    weights are normalised, their gain is changed. Layers that return a constant on the
    batch stay as they are. Pure: runs under `jax.jit` and `jax.vmap` too.

    Mishkin and Matas, "All you need is a good init" (2016).

    Args:
        apply: a Flax Linen module or its `apply`, a Flax NNX module, or a list of
            functions `layer(params_i, x) -> x`.
        params: what the init of the Linen module returned; None or a state to use
            instead of its own for an NNX module; one pytree for each function of a
            list.
        batch: what the model is called on, its first axis the samples, or a tuple of
            such.
        where: pattern of the weights that may change, as in `jaxinit.Rules`:
            `"**/kernel"` leaves embeddings alone.
        tolerance: how far a variance may be from one, greater than zero.
        tries: the most passes that change weights, at least 1.
        **options: keyword arguments of the model's call, such as `train=False`.

    Returns:
        New parameters, as `params` were given (for an NNX module their state), and the
        log: variances before and after, and which layers are not within `tolerance`.

    Raises:
        TypeError: if the model, the parameters or a setting are of a wrong kind.
        ValueError: if a setting is out of range, no layer with weights is seen, or, as
            `jaxinit.signal.LayerError`, naming the first layer that cannot take what
            it is given.

    >>> import jaxinit
    >>> keys = jax.random.split(jax.random.key(0), 8)
    >>> weights = [jaxinit.orthogonal()(key, (64, 64)) for key in keys]
    >>> first, later = (lambda w, x: x @ w), (lambda w, x: jax.nn.relu(x) @ w)
    >>> x = jax.random.normal(jax.random.key(1), (128, 64))
    >>> weights, log = lsuv([first] + [later] * 7, weights, x)
    >>> bool(log.after.is_right.all()), bool(log.before.variance[-1] < 0.01)
    (True, True)
    """
    aim = Aim(False, positive("tolerance", tolerance), count("tries", tries))
    return _normalized(aim, apply, params, batch, where, options)


def weight_norm(
    apply: Any,
    params: Any,
    batch: Any,
    *,
    where: Any = "**",
    tolerance: float = 0.01,
    tries: int = 1,
    **options: Any,
) -> tuple[Any, Normalized]:
    """Weight normalization's start: every unit gets mean zero and variance one.

    A unit that returns `t` on the batch gets the gain `g = 1 / std(t)` and the bias
    `b = -mean(t) / std(t)`, layer after layer. Where there is a gain (Linen's
    `WeightNorm`, or parameters named `g`, `gain` or `scale` beside the kernel) it is
    changed, else the kernel itself; a layer without bias keeps its mean. Units number
    the last axes of an output, as many as the bias has. The paper draws kernels by
    `jaxinit.normal(0.05)`. Layers are as in `lsuv`; those of a list should return
    their pre-activations, or `tries` be greater.

    Salimans and Kingma, "Weight normalization: a simple reparameterization to
    accelerate training of deep neural networks" (2016).

    Args:
        apply: as in `lsuv`. An NNX `WeightNorm` keeps its gains where parameters are
            not, so that its layers stay as they are.
        params: as in `lsuv`.
        batch: as in `lsuv`.
        where: as in `lsuv`.
        tolerance: how far a variance or mean may be off, greater than zero.
        tries: the most passes that change parameters, at least 1; one is exact where
            outputs are linear in the parameters.
        **options: as in `lsuv`.

    Returns:
        As `lsuv`.

    Raises:
        TypeError: as `lsuv`.
        ValueError: as `lsuv`, or if the last axes of a kernel are not the units.

    >>> layer = lambda p, x: x @ p["kernel"] + p["bias"]
    >>> x = 3 + jax.random.normal(jax.random.key(0), (512, 8))
    >>> params = [{"kernel": jnp.full((8, 2), 0.05), "bias": jnp.zeros(2)}]
    >>> [new], log = weight_norm([layer], params, x)
    >>> y = layer(new, x)
    >>> bool(abs(y.mean()) < 1e-5), bool(abs(y.var() - 1) < 1e-5)
    (True, True)
    """
    aim = Aim(True, positive("tolerance", tolerance), count("tries", tries))
    return _normalized(aim, apply, params, batch, where, options)


def _normalized(
    aim: Aim, apply, params, batch, where, options
) -> tuple[Any, Normalized]:
    model, inputs = opened(apply, params, batch, options)
    aim = dataclasses.replace(aim, chosen=_chosen(model.params, where))
    with with_auto_axes((model.params, model.state, inputs)) as given:
        new, log, counts = normalize(model.capture, aim, *given)
    refuse_nonfinite(model.params, inputs, counts, log.after.variance)
    return model.whole(placed_like(new, model.params)), log


def _chosen(params: Any, where: Any) -> frozenset[int]:
    """The positions of the parameters that a pattern matches."""
    matches = matcher(where)
    leaves = leaf_contexts(leaf_paths(params))
    chosen = frozenset(i for i, leaf in enumerate(leaves) if matches(leaf))
    if leaves and not chosen:
        paths = ", ".join(leaf.path for leaf in leaves)
        raise ValueError(f"where={where!r} matches none of the parameters: {paths}.")
    return chosen


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["before", "after", "quotients"],
    meta_fields=["weights"],
)
@dataclasses.dataclass(frozen=True, repr=False)
class Descent(Tabular):
    """What `metainit` did.

    Attributes:
        weights: paths of the weights whose norms were learned.
        before: their norms at first, float32.
        after: their norms at last.
        quotients: the gradient quotient before each step and after the last; it has
            one entry more than there were steps.
    """

    weights: tuple[str, ...]
    before: jax.Array
    after: jax.Array
    quotients: jax.Array

    def __repr__(self):
        steps = self.quotients.shape[-1] - 1
        return f"<Descent of {len(self.weights)} weights over {steps} steps>"

    def _table(self):
        norms = zip(self.weights, self.before, self.after, strict=True)
        rows = [[name, f"{a:.4g}", f"{b:.4g}"] for name, a, b in norms]
        first, last = float(self.quotients[0]), float(self.quotients[-1])
        notes = [f"gradient quotient: {first:.4g} -> {last:.4g}", *self._faults()]
        return Table(["weight", "norm before", "after"], rows, notes=notes)

    def _faults(self) -> Iterator[str]:
        if not jnp.isfinite(self.quotients).all():
            step = int(jnp.argmin(jnp.isfinite(self.quotients)))
            yield f"not finite from step {step} on"
        if (self.before == self.after).all():
            yield "no norm changed: on this batch, the quotient depends on none"


def metainit(
    apply: Any,
    params: Any,
    batch: Any,
    loss: Callable[[Any], jax.Array] | None = None,
    *,
    where: Any = "**",
    key: jax.Array | None = None,
    steps: int = 500,
    learning_rate: float = 0.1,
    momentum: float = 0.9,
    epsilon: float = 1e-5,
    **options: Any,
) -> tuple[Any, Descent]:
    """MetaInit: learns the norms of the weights, so that gradients change little.

    With gradient `g` and Hessian `H` of the loss, the gradient quotient
    `mean(abs((g - H g) / (g + epsilon sign(g)) - 1))`, over all parameters, tells how
    much a step of gradient descent changes the gradient; near 0 it is for a function
    that is nearly linear along it, near 1 and above where gradients explode or vanish.
    It descends on the norms of arrays with two or more axes by the signs of its
    gradient, with momentum, and leaves directions as they were drawn. One compiled
    loop; a step costs a few gradients of the model.

    Parameters whose gradient happens to be near zero dominate the quotient of a single
    batch; with a `key` every step has a batch of its own, as in the paper. Small
    networks may need another rate, or more steps: look at the log.

    Dauphin and Schoenholz, "MetaInit: initializing learning by learning to initialize"
    (2019).

    Args:
        apply: as in `lsuv`.
        params: as in `lsuv`, real.
        batch: as in `lsuv`.
        loss: function of the model's output that returns one real number. None is the
            paper's: the cross-entropy of the last axis with classes drawn at random.
        where: as in `lsuv`.
        key: draws standard normal numbers in place of the floating-point arrays of the
            batch, and the classes, anew at every step. None keeps the batch and the
            classes as they are.
        steps: number of steps, at least 1.
        learning_rate: by how much a step changes a norm, greater than zero.
        momentum: share of the last change that is added, from 0 to 1.
        epsilon: what keeps the quotient finite, greater than zero.
        **options: keyword arguments of the model's call.

    Returns:
        New parameters, as `params` were given, and the log: norms, and the quotient at
        every step.

    Raises:
        TypeError: if the model, the parameters, the loss or a setting are of a wrong
            kind.
        ValueError: if a setting is out of range or no array has two axes.

    >>> weight, x = jnp.array([[3.0, 4.0]]), jnp.ones((1, 1))
    >>> layer, loss = (lambda w, x: x @ w), (lambda y: jnp.sum(y**2))
    >>> [new], log = metainit([layer], [weight], x, loss, steps=1)
    >>> [round(float(q), 2) for q in (log.quotients[0], log.before[0], log.after[0])]
    [2.0, 5.0, 4.9]
    """
    model, inputs = opened(apply, params, batch, options)
    settings = _Descent(
        loss,
        _chosen(model.params, where),
        count("steps", steps),
        positive("learning_rate", learning_rate),
        fraction("momentum", momentum),
        positive("epsilon", epsilon),
    )
    with with_auto_axes((model.params, model.state, inputs)) as given:
        new, log, counts = _descended(model.capture, settings, *given, key)
    seen = inputs if key is None else ()
    refuse_nonfinite(model.params, seen, counts, log.quotients)
    return model.whole(placed_like(new, model.params)), log


@dataclasses.dataclass(frozen=True)
class _Descent:
    loss: Callable[[Any], Any] | None
    chosen: frozenset[int]
    steps: int
    learning_rate: float
    momentum: float
    epsilon: float


@compiled
def _descended(
    capture: Capture,
    settings: _Descent,
    params: Any,
    state: Any,
    inputs: tuple,
    key: jax.Array | None,
) -> tuple[Any, Descent, list[jax.Array]]:
    flat = leaf_paths(params)
    treedef = jax.tree.structure(params)
    learned = [
        i
        for i in sorted(settings.chosen)
        if jnp.ndim(flat[i][1]) > 1 and is_float(flat[i][1])
    ]
    if not learned:
        raise ValueError(
            "none of the parameters that may change is a floating-point array of two "
            "or more axes."
        )
    norms = jnp.stack([jnp.linalg.norm(wide(flat[i][1]).ravel()) for i in learned])

    def scaled(factors: jax.Array) -> list[Any]:
        leaves = [leaf for _, leaf in flat]
        for i, factor in zip(learned, factors, strict=True):
            leaves[i] = (wide(leaves[i]) * factor).astype(leaves[i].dtype)
        return leaves

    def quotient(factors: jax.Array, number: Any) -> jax.Array:
        leaves = scaled(factors)
        batch, labels = _drawn(inputs, key, number)
        loss = settings.loss or functools.partial(_cross_entropy, labels)
        floats = [x for x in leaves if is_float(x)]

        def objective(floats):
            values = iter(floats)
            filled = [next(values) if is_float(x) else x for x in leaves]
            output, _ = capture(jax.tree.unflatten(treedef, filled), state, batch)
            return real_scalar(loss, output)

        return _gradient_quotient(objective, floats, settings.epsilon)

    def step(carry, number):
        factors, memory = carry
        value, slope = jax.value_and_grad(quotient)(factors, number)
        # The norm is abs(factor) * norms: its slope has the sign of the factor.
        sign = jnp.where(factors >= 0, 1, -1)
        memory = settings.momentum * memory
        memory -= settings.learning_rate * jnp.sign(slope) * sign
        change = sign * memory / jnp.where(norms > 0, norms, jnp.inf)
        return (factors + change, memory), value

    start = (jnp.ones_like(norms), jnp.zeros_like(norms))
    (factors, _), values = jax.lax.scan(step, start, jnp.arange(settings.steps))
    quotients = jnp.append(values, quotient(factors, settings.steps))
    names = tuple(joined(flat[i][0]) for i in learned)
    log = Descent(names, norms, norms * jnp.abs(factors), quotients)
    counts = nonfinite(params, inputs if key is None else ())
    return jax.tree.unflatten(treedef, scaled(factors)), log, counts


def _drawn(
    inputs: tuple, key: jax.Array | None, number: Any
) -> tuple[tuple, jax.Array]:
    """The batch of a step, and the key of its classes."""
    if key is None:
        return inputs, jax.random.key(0)
    labels, noise = jax.random.split(jax.random.fold_in(key, number))
    leaves, treedef = jax.tree.flatten(inputs)
    for i, x in enumerate(leaves):
        if is_float(x):
            own = jax.random.fold_in(noise, i)
            leaves[i] = jax.random.normal(own, jnp.shape(x), jnp.result_type(x))
    return jax.tree.unflatten(treedef, leaves), labels


def _gradient_quotient(
    objective: Callable[[list[jax.Array]], jax.Array],
    params: list[jax.Array],
    epsilon: float,
) -> jax.Array:
    """The mean over all parameters; the sign of a gradient of zero is one."""
    gradients, along = jax.linearize(jax.grad(objective), params)
    products = along(gradients)
    total = jnp.float32(0)
    for g, product in zip(map(wide, gradients), map(wide, products), strict=True):
        below = g + epsilon * jnp.where(g >= 0, 1, -1)
        total += jnp.sum(jnp.abs((g - product) / below - 1))
    return total / sum(x.size for x in params)


def _cross_entropy(key: jax.Array, output: Any) -> jax.Array:
    """With classes drawn at random, for every entry before the last axis."""
    leaves = [x for x in jax.tree.leaves(output) if is_float(x) and jnp.ndim(x)]
    if len(leaves) != 1 or jnp.iscomplexobj(leaves[0]):
        raise TypeError(
            "loss=None takes a model that returns one real array of logits, got "
            f"{jax.tree.structure(output)}: give a loss, such as lambda y: "
            "jnp.mean(y[0]**2)."
        )
    logits = wide(leaves[0])
    classes = jax.random.randint(key, logits.shape[:-1], 0, logits.shape[-1])
    chances = jax.nn.log_softmax(logits)
    return -jnp.mean(jnp.take_along_axis(chances, classes[..., None], -1))
