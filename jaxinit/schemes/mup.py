"""muP, the maximal update parametrization: settings of a narrow model fit a wide one.

Yang et al., "Tensor programs V: tuning large neural networks via zero-shot
hyperparameter transfer" (2022), in the form of its table 8. For a kernel whose fan in
is `m` times, and whose fan out is `n` times, as large as in the base model:

| kernel of | standard deviation | Adam's learning rate | SGD's learning rate |
| --- | --- | --- | --- |
| inputs (only outputs grow), biases, norms | as at the base | 1 | n |
| hidden layers (both grow) | base / sqrt(m) | 1 / m | n / m |
| the output (only inputs grow) | as at the base | 1 | m |

The weight decay of a leaf is divided by the multiplier of its learning rate, so that
their product is the same at every width. The forward pass needs two numbers:
`output_multiplier` and `attention_scale`.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import jax
import optax

from jaxinit._tree.leaf import Leaf
from jaxinit._tree.paths import joined, leaf_paths
from jaxinit._tree.rules import Rules
from jaxinit.initializers.base import Initializer
from jaxinit.initializers.settings import Flag
from jaxinit.schemes._arguments import Share, amount, rate, with_checks
from jaxinit.schemes._widths import Kind as Kind
from jaxinit.schemes._widths import Multipliers as Multipliers
from jaxinit.schemes._widths import Scaling as Scaling
from jaxinit.schemes._widths import widths as widths


def _grown(name: str, value: Any) -> Any:
    is_mapping = isinstance(value, Mapping)
    if is_mapping and all(isinstance(x, Scaling) for x in value.values()):
        return value
    raise TypeError(
        f"{name} must be what jaxinit.schemes.mup.widths returned, got {value!r}."
    )


Widths = Annotated[Mapping[str, Scaling], _grown]
Rate = Annotated[optax.ScalarOrSchedule, rate]
Amount = Annotated[float, amount]


@with_checks
def rules(standard: Any, grown: Widths) -> Rules:
    """Rules of the standard parametrization, changed to muP at the width of the target.

    At the width of the base model they stay the same. The paper advises an output
    kernel of zeros, so that wide models start as the narrow one does: put such a rule
    first.

    Args:
        standard: rules with initializers of jaxinit, such as `jaxinit.schemes.flax()`.
        grown: what `widths` returned.

    Returns:
        Rules for the target model.

    >>> import jaxinit
    >>> def shapes(width):
    ...     dense = jax.ShapeDtypeStruct((width, width), "float32")
    ...     return {"hidden": {"kernel": dense}}
    >>> grown = widths(shapes(64), shapes(256))
    >>> scaled_rules = rules({"**": jaxinit.normal(0.02)}, grown)
    >>> next(iter(jaxinit.plan(shapes(256), scaled_rules))).std
    0.01
    """
    standard = Rules(standard)
    pairs = [
        (pattern, _at_width(standard, grown, i))
        for i, (pattern, _) in enumerate(standard.items())
    ]
    name = " of ".join(filter(None, ("muP", standard.name)))
    return Rules(pairs, required=standard.required, name=name)


@dataclass(frozen=True)
class _at_width:  # noqa: N801 - used, and therefore spelled, as a function
    """One of the standard rules, changed to muP."""

    standard: Rules
    grown: Widths
    position: int

    def __call__(self, leaf: Leaf) -> Initializer:
        grown = _of(self.grown, leaf.path)
        return grown.initializer(self.standard, self.position)

    def __repr__(self):
        return f"muP's {list(self.standard.items())[self.position][1]!r}"


def _of(grown: Widths, path: str) -> Scaling:
    if path not in grown:
        raise ValueError(f"{path} is not in the models whose widths were compared")
    return grown[path]


@with_checks
def scale_by_width(
    grown: Widths, rule: Literal["adam", "sgd"]
) -> optax.GradientTransformation:
    """Multiplies updates by muP's multipliers of the learning rate.

    It goes before `optax.add_decayed_weights`, so that the pace of decay is the same at
    every width, and, for SGD, before `optax.trace`.

    Args:
        grown: what `widths` returned.
        rule: "adam", also for other optimizers whose updates do not depend on the size
            of gradients, or "sgd".

    Returns:
        The transformation, without state.

    Raises:
        ValueError: if `rule` is neither or, in an update, a leaf is not in `grown`.
    """
    if rule not in Multipliers._fields:
        raise ValueError(f"rule must be 'adam' or 'sgd', got {rule!r}.")

    def update(updates, params=None):
        del params
        scales = [
            getattr(_of(grown, joined(path)).multipliers, rule)
            for path, _ in leaf_paths(updates)
        ]
        leaves, treedef = jax.tree.flatten(updates)
        scaled_leaves = [x * s for x, s in zip(leaves, scales, strict=True)]
        return jax.tree.unflatten(treedef, scaled_leaves)

    return optax.stateless(update)


@with_checks
def adam(
    learning_rate: Rate, grown: Widths, **moments: Any
) -> optax.GradientTransformation:
    """Adam under muP: `optax.adam` at the base width.

    The wider the model, the smaller are gradients, so `eps` must be far below them.

    Args:
        learning_rate: of the base model, a number or a schedule.
        grown: what `widths` returned.
        **moments: arguments of `optax.scale_by_adam`.

    Returns:
        The optimizer.

    Raises:
        ValueError: if a number is negative or not a number.
        TypeError: if `grown` is not what `widths` returned.
    """
    return adamw(learning_rate, grown, weight_decay=0.0, **moments)


@with_checks
def adamw(
    learning_rate: Rate,
    grown: Widths,
    *,
    weight_decay: Amount = 1e-4,
    mask: Any = None,
    **moments: Any,
) -> optax.GradientTransformation:
    """AdamW under muP: `optax.adamw` at the base width.

    The decay of a step is `learning_rate * weight_decay` at every width.

    Args:
        learning_rate: of the base model, a number or a schedule.
        grown: what `widths` returned.
        weight_decay: of the base model.
        mask: which leaves decay, as in `optax.adamw`.
        **moments: arguments of `optax.scale_by_adam`.

    Returns:
        The optimizer.

    Raises:
        ValueError: if a number is negative or not a number.
        TypeError: if `grown` is not what `widths` returned.
    """
    return optax.chain(
        optax.scale_by_adam(**moments),
        scale_by_width(grown, "adam"),
        optax.add_decayed_weights(weight_decay, mask),
        optax.scale_by_learning_rate(learning_rate),
    )


@with_checks
def sgd(
    learning_rate: Rate,
    grown: Widths,
    *,
    momentum: Amount = 0.0,
    nesterov: Flag = False,
    weight_decay: Amount = 0.0,
) -> optax.GradientTransformation:
    """SGD under muP: `optax.sgd` at the base width, if there is no decay.

    Args:
        learning_rate: of the base model, a number or a schedule.
        grown: what `widths` returned.
        momentum: how much of the last step is kept.
        nesterov: whether momentum is Nesterov's.
        weight_decay: of the base model; added to gradients.

    Returns:
        The optimizer.

    Raises:
        ValueError: if a number is negative or not a number.
        TypeError: if `grown` is not what `widths` returned.
    """
    return optax.chain(
        scale_by_width(grown, "sgd"),
        optax.add_decayed_weights(weight_decay),
        optax.trace(momentum, nesterov),
        optax.scale_by_learning_rate(learning_rate),
    )


@with_checks
def output_multiplier(base_width: Share, width: Share) -> float:
    """The factor for logits in the forward pass: `base_width / width`.

    It is for the logits of a tied embedding too.

    Args:
        base_width: width of the input of the output layer in the base model.
        width: the same in the model to be trained.

    Returns:
        The number.

    Raises:
        ValueError: if a width is not positive.

    >>> output_multiplier(256, 1024)
    0.25
    """
    return base_width / width


@with_checks
def attention_scale(base_head_dim: Share, head_dim: Share) -> float:
    """The factor for queries times keys: `sqrt(base_head_dim) / head_dim`.

    It falls with the size of a head, not with its root; at the base size it is the
    usual `1 / sqrt(head_dim)`.

    Args:
        base_head_dim: size of a head in the base model.
        head_dim: size of a head in the model to be trained.

    Returns:
        The number.

    Raises:
        ValueError: if a size is not positive.

    >>> attention_scale(64, 64), attention_scale(64, 256)
    (0.125, 0.03125)
    """
    return math.sqrt(base_head_dim) / head_dim
