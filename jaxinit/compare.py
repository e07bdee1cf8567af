"""Initializations tried against each other, on a model and data of one's own.

For instance `print(compare(model, (x, y), {"he": he_normal(), "zeros": zeros}))`.
"""

import math
import numbers
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax

from jaxinit._basics.integers import integer
from jaxinit._basics.keys import check_key
from jaxinit._compare import data as reading
from jaxinit._compare import schemes as trying
from jaxinit._compare.judging import Spread as Spread
from jaxinit._compare.progress import telling
from jaxinit._compare.result import Comparison as Comparison
from jaxinit._compare.result import Interrupted as Interrupted
from jaxinit._compare.result import SchemeResult as SchemeResult
from jaxinit._compare.study import Study
from jaxinit._compare.training import ADAMW, Optimizer


def compare(
    model: Any,
    data: Any,
    schemes: Mapping[str, Any],
    *,
    loss: str | Callable[[Any, Any], jax.Array] | None = None,
    optimizer: Optimizer = ADAMW,
    learning_rates: Sequence[float] = (1e-3,),
    steps: int = 200,
    seeds: int = 5,
    batch_size: int = 128,
    key: jax.Array | None = None,
    threshold: float | None = None,
    memory: int = 2**31,
    progress: bool | Callable[[int, int], None] = False,
    **options: Any,
) -> Comparison:
    """Trains a model from several initializations, and says which differ.

    All runs, `schemes x seeds x learning_rates`, are trained by one compiled program,
    stacked and vectorized. For each seed, all schemes have the same batches, key of
    the parameters and noise of dropout. Batches are rows at random, with replacement.

    Whether a model is trained or evaluated is said to it by an argument of its call
    named `train`, `training`, `is_training`, `deterministic` or
    `use_running_average`, if it has one, and to an NNX module by `train()` and
    `eval()`.

    Args:
        model: a Flax Linen module; a function of an `nnx.Rngs` that makes a Flax NNX
            module; or `(shapes, apply)`, shapes of the parameters and a function of
            these and `x`.
        data: arrays `(x, y)`, of which a fifth of the rows is held out;
            `((x, y), (x, y))` for training and held out; or a function of a key that
            makes a batch `(x, y)`. A tuple `x` holds several arguments of the call; if
            `y` is a pair too, give training and held-out rows, as two pairs of pairs
            are taken for these.
        schemes: by name, rules such as `jaxinit.schemes.gpt2()`; one initializer for
            all kernels, with biases zero and all else left to the model; or None for
            the model's own initialization.
        loss: function of the outputs and `y`; "cross_entropy" of logits and integer
            labels, in which -1 stands for places of a sequence that do not count;
            "squared_error"; None chooses between these two by the dtype of `y`.
        optimizer: function of a learning rate that makes an optax optimizer, such as
            `optax.adamw` or `functools.partial(optax.sgd, momentum=0.9)`. The rate is
            traced, so a schedule may be `lambda step: rate * factor(step)`, but none
            that tests its value.
        learning_rates: each scheme is judged at the best of these.
        steps: steps of training.
        seeds: runs of each scheme at each learning rate; differences are tested with
            five or more.
        batch_size: rows of a batch; a function of a key decides by itself.
        key: what everything follows from; None means `jax.random.key(0)`.
        threshold: loss of training to which steps are counted; None means half of the
            loss of the best constant.
        memory: bytes that the runs trained at once may take, by an estimate from
            above: the size of all arrays that a step makes. More runs are trained
            one part after the other.
        progress: whether to show a bar, or a function that is called with the steps
            that are done and their number.
        **options: keyword arguments of the model's call.

    Returns:
        The comparison; printed, it is a table with one row for each scheme.

    Raises:
        PlanError: naming every scheme that does not fit the model, with the leaves.
        TypeError: if an argument is of a wrong type.
        ValueError: if the data do not fit the model or the loss, or a number is out of
            range.
        Interrupted: after Ctrl-C, a `KeyboardInterrupt` with the schemes that were
            finished; or, if all are trained at once, all of them as they are.

    >>> import jaxinit
    >>> shapes = {"w": jax.ShapeDtypeStruct((3, 1), "float32")}
    >>> x = jax.random.normal(jax.random.key(1), (40, 3))
    >>> schemes = {"lecun": jaxinit.lecun_normal(), "zeros": jaxinit.zeros}
    >>> found = compare(
    ...     (shapes, lambda params, x: x @ params["w"]),
    ...     (x, x @ jax.numpy.ones((3, 1))),
    ...     schemes,
    ...     learning_rates=(0.1,),
    ...     steps=50,
    ... )
    >>> found["zeros"].loss.median < 0.01, found["zeros"].diverged
    (True, 0)
    """
    rates = _checked_rates(learning_rates)
    steps, seeds = _at_least_one("steps", steps), _at_least_one("seeds", seeds)
    memory = _at_least_one("memory", memory)
    batch_size = _at_least_one("batch_size", batch_size)
    _check_optimizer(optimizer)
    _check_threshold(threshold)
    key = jax.random.key(0) if key is None else key
    check_key(key)
    held_key, runs_key = jax.random.split(key)
    study = Study(
        model,
        reading.opened(data, batch_size, held_key),
        trying.checked(schemes),
        loss,
        optimizer,
        rates,
        steps,
        [jax.random.split(jax.random.fold_in(runs_key, i), 3) for i in range(seeds)],
        threshold,
        options,
    )
    with telling(progress) as tell:
        return study.run(memory, tell)


def _at_least_one(name: str, value: Any) -> int:
    number = integer(name, value)
    if number < 1:
        raise ValueError(f"{name} must be 1 or more, got {number}.")
    return number


def _checked_rates(rates: Any) -> tuple[float, ...]:
    """The learning rates, each once.

    Raises:
        TypeError: if they are not a sequence of numbers.
        ValueError: if there is none, or one is not positive and finite.
    """
    try:
        found = tuple(dict.fromkeys(map(float, rates)))
    except (TypeError, ValueError):
        raise TypeError(
            f"learning_rates must be a sequence of numbers, such as (1e-3,), got "
            f"{rates!r}."
        ) from None
    if not found or not all(0 < rate < math.inf for rate in found):
        raise ValueError(
            f"learning_rates must be one or more positive numbers, got {rates!r}."
        )
    return found


def _check_threshold(threshold: Any) -> None:
    is_number = isinstance(threshold, numbers.Real) and not isinstance(threshold, bool)
    if threshold is not None and not (is_number and math.isfinite(threshold)):
        raise ValueError(f"threshold must be a finite number, got {threshold!r}.")


def _check_optimizer(optimizer: Any) -> None:
    if not callable(optimizer):
        hint = "; it is made already" if hasattr(optimizer, "update") else ""
        raise TypeError(
            "optimizer must be a function of a learning rate, such as optax.adamw or "
            f"functools.partial(optax.sgd, momentum=0.9), got {optimizer!r}{hint}."
        )
