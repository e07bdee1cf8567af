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
from typing import Annotated, Any, Literal, NamedTuple

import jax
import optax

from jaxinit._tree.leaf import Leaf
from jaxinit._tree.paths import joined, leaf_paths
from jaxinit._tree.plan import PlanError, leaf_contexts, problems_message
from jaxinit._tree.rules import Rules
from jaxinit.initializers.base import Initializer
from jaxinit.initializers.fans import fans
from jaxinit.initializers.settings import Flag
from jaxinit.initializers.wrappers import scaled
from jaxinit.schemes._arguments import Share, amount, rate, with_checks
from jaxinit.schemes.parts import EMBEDDING, KERNEL, axes

Kind = Literal["fixed", "input", "hidden", "output"]


class Multipliers(NamedTuple):
    """Factors for the learning rate of a leaf.

    Attributes:
        adam: under Adam and AdamW.
        sgd: under SGD, with momentum or without.
    """

    adam: float
    sgd: float


@dataclass(frozen=True)
class Scaling:
    """How a leaf has grown from the base model.

    Attributes:
        base: the leaf of the base model.
        target: the leaf of the model to be trained.
        fan_in: growth of its inputs; 1 for biases, norms and embeddings.
        fan_out: growth of its outputs; for a vector, of its size.
    """

    base: Leaf
    target: Leaf
    fan_in: float
    fan_out: float

    @property
    def kind(self) -> Kind:
        """The kind of layer; "input" for any leaf whose inputs do not grow."""
        if self.fan_in == 1:
            return "fixed" if self.fan_out == 1 else "input"
        return "output" if self.fan_out == 1 else "hidden"

    @property
    def multipliers(self) -> Multipliers:
        """The factors for its learning rate; 1 for a leaf of the same size."""
        if self.kind == "output":
            return Multipliers(1.0, self.fan_in)
        return Multipliers(1 / self.fan_in, self.fan_out / self.fan_in)

    def initializer(self, rules: Rules, position: int) -> Initializer:
        """An initializer with the deviation of the base leaf, less in hidden layers."""
        _, wanted = _with_std(rules.initializer(position, self.base), self.base)
        own, std = _with_std(rules.initializer(position, self.target), self.target)
        if self.kind == "hidden":
            wanted /= math.sqrt(self.fan_in)
        is_same = math.isclose(std, wanted, rel_tol=1e-9, abs_tol=0.0)
        return own if is_same or not std else scaled(own, wanted / std)


def _with_std(initializer: Any, leaf: Leaf) -> tuple[Initializer, float]:
    if not isinstance(initializer, Initializer):
        raise TypeError(
            f"{initializer!r} does not know its deviation, which muP has to change: "
            "use an initializer of jaxinit"
        )
    return initializer, initializer.moments(leaf.shape, leaf.dtype).std


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


def widths(base: Any, target: Any) -> Mapping[str, Scaling]:
    """How every leaf grows from a base model to the model to be trained.

    Args:
        base: pytree of arrays or `jax.ShapeDtypeStruct`s, of the width at which the
            settings are tuned.
        target: the same model at another width.

    Returns:
        `Scaling` by path.

    Raises:
        PlanError: naming every leaf that only one of them has, whose number of axes
            differs, or that grows along an axis of neither inputs nor outputs.

    >>> def shapes(width):
    ...     dense = jax.ShapeDtypeStruct((width, width), "float32")
    ...     return {"hidden": {"kernel": dense}}
    >>> grown = widths(shapes(64), shapes(256))["hidden/kernel"]
    >>> grown.kind, grown.multipliers
    ('hidden', Multipliers(adam=0.25, sgd=1.0))
    """
    leaves = [
        {leaf.path: leaf for leaf in leaf_contexts(leaf_paths(tree))}
        for tree in (base, target)
    ]
    scalings, problems = {}, []
    for path in dict.fromkeys([*leaves[0], *leaves[1]]):
        if path not in leaves[0] or path not in leaves[1]:
            which = "base" if path in leaves[0] else "target"
            problems.append(f"{path}: only the {which} model has it")
            continue
        try:
            scalings[path] = _scaling(leaves[0][path], leaves[1][path])
        except ValueError as error:
            problems.append(f"{path}: {error}")
    if problems:
        raise PlanError(problems_message("the pair of models", problems))
    return scalings


def _scaling(base: Leaf, target: Leaf) -> Scaling:
    if len(base.shape) != len(target.shape):
        raise ValueError(f"its shape is {base.shape} and {target.shape}")
    if not (KERNEL(target) and len(target.shape) > 1):
        growth = math.prod(target.shape) / max(math.prod(base.shape), 1)
        if EMBEDDING(target) and base.shape[:1] != target.shape[:1]:
            raise ValueError(
                f"its shape is {base.shape} and {target.shape}: the number of rows "
                "must be the same"
            )
        return Scaling(base, target, 1.0, growth)
    in_and_out = axes(target)
    old, new = fans(base.shape, **in_and_out), fans(target.shape, **in_and_out)
    may_grow = _from_the_front(in_and_out, len(target.shape))
    sizes = zip(base.shape, target.shape, strict=True)
    if any(a != b and axis not in may_grow for axis, (a, b) in enumerate(sizes)):
        raise ValueError(
            f"its window has grown, from {base.shape} to {target.shape}: only inputs "
            "and outputs may"
        )
    return Scaling(base, target, new.fan_in / old.fan_in, new.fan_out / old.fan_out)


def _from_the_front(axes: Mapping[str, Any], ndim: int) -> set[int]:
    """All axes of inputs and outputs, as numbers that are not negative."""
    groups = (x if isinstance(x, tuple) else (x,) for x in axes.values())
    return {axis % ndim for group in groups for axis in group}


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
