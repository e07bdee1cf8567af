"""Losses by name, how often a model is right, and what chance alone would give."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxinit._basics.names import unknown

Loss = Callable[[Any, Any], jax.Array]


def cross_entropy(outputs: jax.Array, y: jax.Array) -> jax.Array:
    """Mean of `-log softmax(outputs)[y]`, in nats, over the labels that count.

    Args:
        outputs: logits, of the shape of `y` and an axis of classes after it.
        y: integers; those below zero do not count.
    """
    logs = jax.nn.log_softmax(outputs.astype(jnp.float32))
    found = jnp.take_along_axis(logs, jnp.maximum(y, 0)[..., None], -1)[..., 0]
    return -_mean(found, y)


def squared_error(outputs: jax.Array, y: jax.Array) -> jax.Array:
    """Mean of `(outputs - y)**2`; a last axis of one in `outputs` may lack in `y`."""
    outputs = outputs.astype(jnp.float32).reshape(y.shape)
    return jnp.mean((outputs - y) ** 2)


def accuracy(outputs: jax.Array, y: jax.Array) -> jax.Array:
    """Share of the labels that count whose logit is the greatest."""
    return _mean(jnp.argmax(outputs, -1) == y, y)


def _mean(x: jax.Array, y: jax.Array) -> jax.Array:
    counts = y >= 0
    return jnp.sum(jnp.where(counts, x, 0)) / jnp.maximum(jnp.sum(counts), 1)


LOSSES: dict[str, Loss] = {
    "cross_entropy": cross_entropy,
    "squared_error": squared_error,
}


def chosen(loss: Any, y: Any) -> Loss:
    """The loss that is asked for; None asks for the usual one for such targets.

    Raises:
        ValueError: if it is an unknown name, or does not go with the targets.
        TypeError: if it is no function.
    """
    if loss is None:
        return cross_entropy if is_labels(y) else squared_error
    if isinstance(loss, str) and loss not in LOSSES:
        raise ValueError(unknown("loss", loss, LOSSES))
    found: Any = LOSSES.get(loss) if isinstance(loss, str) else loss
    if not callable(found):
        raise TypeError(
            f"loss must be a function of the model's outputs and y that returns a "
            f"number, or one of {', '.join(LOSSES)}, got {loss!r}."
        )
    if found is cross_entropy and not is_labels(y):
        raise ValueError(
            "cross_entropy takes integer labels y, one array of them, got "
            f"{described(y)}."
        )
    if found is squared_error and is_labels(y):
        raise ValueError(
            f"squared_error takes floating-point targets y, got {described(y)}: "
            "integers are labels of classes."
        )
    return found  # pyright: ignore - a function of the user


def is_labels(y: Any) -> bool:
    """Whether targets are one array of integers."""
    return hasattr(y, "dtype") and bool(jnp.issubdtype(y.dtype, jnp.integer))


def described(tree: Any) -> str:
    """The dtypes and shapes of the arrays in a tree."""
    leaves = jax.tree.leaves(tree)
    return ", ".join(f"{x.dtype}{list(x.shape)}" for x in leaves) or "no array"


def check_fit(loss: Loss, outputs: Any, y: Any, example: Any) -> None:
    """Raises unless what a model returns goes with its targets.

    Args:
        loss: the loss.
        outputs: shapes of what the model returns for a batch.
        y: shapes of the targets of a batch.
        example: targets, whose values are looked at.

    Raises:
        ValueError: if shapes do not go together, or labels are beyond the logits.
        TypeError: if a loss of the user returns no number.
    """
    if loss in LOSSES.values() and not hasattr(outputs, "shape"):
        raise ValueError(
            "the model must return one array for the usual losses, got "
            f"{jax.tree.structure(outputs)}: give a loss of your own."
        )
    if loss is cross_entropy:
        _check_logits(outputs, y, np.asarray(example))
    elif loss is squared_error:
        if outputs.shape not in (y.shape, (*y.shape, 1)):
            raise ValueError(
                f"the model returns {described(outputs)} for targets y of "
                f"{described(y)}: the shapes must be equal."
            )
    else:
        found = jax.eval_shape(loss, outputs, y)
        is_number = getattr(found, "shape", None) == ()
        if not is_number or not jnp.issubdtype(found.dtype, jnp.floating):
            raise TypeError(f"loss must return one real number, got {found}.")


def _check_logits(outputs: Any, y: Any, labels: np.ndarray) -> None:
    if outputs.shape[:-1] != y.shape:
        raise ValueError(
            f"the model returns {described(outputs)} for labels of {described(y)}: "
            "logits must have the shape of the labels, and an axis of classes after "
            "it."
        )
    classes = outputs.shape[-1]
    if labels.max(initial=0) >= classes:
        raise ValueError(
            f"labels y go up to {labels.max()}, but the model returns {classes} "
            f"logits, for labels 0 to {classes - 1}."
        )
    if labels.min(initial=0) < (0 if y.ndim == 1 else -1):
        raise ValueError(
            f"labels y must not be negative, got {labels.min()}; only in labels of "
            "sequences, -1 stands for what does not count."
        )


def counts_right(outputs: Any, y: Any) -> bool:
    """Whether outputs are logits for labels, of which a share is right."""
    shape: tuple[int, ...] = tuple(getattr(outputs, "shape", ())) or (0,)
    return is_labels(y) and shape[:-1] == y.shape and shape[-1] > 1


def chance_loss(loss: Loss, y: Any) -> float | None:
    """The loss of the best constant: what is learned without looking at `x`.

    None for a loss of the user.
    """
    if loss is cross_entropy:
        shares = _shares(y)
        return float(-np.sum(shares * np.log(shares)))
    if loss is squared_error:
        y = np.asarray(y, np.float64)
        return float(np.mean((y - np.mean(y, 0)) ** 2))
    return None


def chance_accuracy(y: Any) -> tuple[float, float]:
    """How often the commonest label is right, and three standard errors of that."""
    counted = int(np.sum(np.asarray(y) >= 0))
    share = float(_shares(y).max(initial=0))
    return share, 3 * (share * (1 - share) / max(1, counted)) ** 0.5


def _shares(y: Any) -> np.ndarray:
    """The share of each label that occurs, among those that count."""
    labels = np.asarray(y)
    _, counts = np.unique(labels[labels >= 0], return_counts=True)
    return counts / counts.sum()
