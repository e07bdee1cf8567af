"""How the leaves of a model grow with its width.

Take `x @ a @ b @ c` of widths 10, 64, 64, 10 and of widths 10, 256, 256, 10. Only the
outputs of `a` grow, 4 times, so it is of kind "input"; inputs and outputs of `b` do, so
it is "hidden"; only the inputs of `c` do, so it is "output".
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from jaxinit._roles.role import Role, Roles, Use
from jaxinit._tree.leaf import Leaf
from jaxinit._tree.paths import leaf_paths
from jaxinit._tree.plan import PlanError, leaf_contexts, problems_message
from jaxinit._tree.rules import Rules
from jaxinit.initializers.base import Initializer
from jaxinit.initializers.fans import fans
from jaxinit.initializers.wrappers import scaled
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


def widths(base: Any, target: Any) -> Mapping[str, Scaling]:
    """How every leaf grows from a base model to the model to be trained.

    From shapes alone, names tell which axes are inputs and outputs. From the roles of
    both models, the computation does, whatever leaves are called.

    Args:
        base: pytree of arrays or `jax.ShapeDtypeStruct`s, of the width at which the
            settings are tuned; or what `jaxinit.roles` returns for this model.
        target: the same model at another width, in the same form.

    Returns:
        `Scaling` by path.

    Raises:
        PlanError: naming every leaf that only one of them has, whose number of axes
            differs, that grows along an axis of neither inputs nor outputs, or, by
            roles, that is not the same in both models, or grows and is unknown.
        TypeError: if only one of the two is roles.

    >>> import jax, jaxinit
    >>> def shapes(width):
    ...     dense = jax.ShapeDtypeStruct((width, width), "float32")
    ...     return {"hidden": {"kernel": dense}}
    >>> grown = widths(shapes(64), shapes(256))["hidden/kernel"]
    >>> grown.kind, grown.multipliers
    ('hidden', Multipliers(adam=0.25, sgd=1.0))

    >>> def roles(width):
    ...     sizes = {"a": (10, width), "b": (width, width), "c": (width, 10)}
    ...     params = {x: jax.ShapeDtypeStruct(y, "float32") for x, y in sizes.items()}
    ...     x = jax.ShapeDtypeStruct((5, 10), "float32")
    ...     return jaxinit.roles(lambda w, x: x @ w["a"] @ w["b"] @ w["c"], params, x)
    >>> [grown.kind for grown in widths(roles(64), roles(256)).values()]
    ['input', 'hidden', 'output']
    """
    if isinstance(base, Roles) != isinstance(target, Roles):
        raise TypeError(
            "base and target must both be pytrees of shapes, or both what "
            f"jaxinit.roles returns, got {type(base).__name__} and "
            f"{type(target).__name__}."
        )
    leaves = [
        {leaf.path: leaf for leaf in _leaves_of(model)} for model in (base, target)
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


def _leaves_of(model: Any) -> list[Leaf]:
    """The leaves of a pytree, or of roles."""
    if not isinstance(model, Roles):
        return leaf_contexts(leaf_paths(model))
    flat = [(tuple(path.split("/")), role) for path, role in model.items()]
    return leaf_contexts(flat, model)


def _scaling(base: Leaf, target: Leaf) -> Scaling:
    if len(base.shape) != len(target.shape):
        raise ValueError(f"its shape is {base.shape} and {target.shape}")
    if 0 in (*base.shape, *target.shape):
        raise ValueError(
            f"its shape is {base.shape} and {target.shape}: without entries, nothing "
            "grows"
        )
    if base.role is not None and target.role is not None:
        return _by_roles(base, base.role, target, target.role)
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


def _by_roles(base: Leaf, old: Role, target: Leaf, new: Role) -> Scaling:
    """As the fans of the computation grow.

    A kernel whose fan in stays, as that of a depthwise convolution, grows as a vector.
    """
    if (old.kind, len(old.uses)) != (new.kind, len(new.uses)):
        raise ValueError(
            f"it is {old.summary} in {len(old.uses)} places of the base model, and "
            f"{new.summary} in {len(new.uses)} of the target"
        )
    if [_axes(use) for use in old.kernels] != [_axes(use) for use in new.kernels]:
        raise ValueError(
            "its axes are contracted otherwise in the base model than in the target, "
            "as by an einsum of three operands, which chooses its order by sizes: "
            "contract two at a time"
        )
    growth = math.prod(target.shape) / math.prod(base.shape)
    if old.kind == "unknown" and base.shape != target.shape:
        raise ValueError(f"it grows, and what it is for is unknown: {new.reason}")
    _check_fixed_axes(base, target, new)
    pairs = zip(old.kernels, new.kernels, strict=True)
    ratios = {n.fan_in / o.fan_in for o, n in pairs if o.fan_in} or {1.0}
    if new.tied or new.kind not in _KERNELS:
        ratios = {1.0}
    if len(ratios) > 1:
        raise ValueError(f"its fan in grows by {_listed(ratios)}, where it is used")
    fan_in = ratios.pop()
    return Scaling(base, target, fan_in, growth / fan_in)


def _axes(use: Use) -> tuple:
    return use.in_axis, use.out_axis, use.batch_axis, use.stack_axis


_KERNELS = ("kernel", "convolution")


def _check_fixed_axes(base: Leaf, target: Leaf, role: Role) -> None:
    """Raises if an axis has grown that is no width: rows, windows, experts, layers."""
    for use in role.uses:
        is_table = use.kind not in _KERNELS
        fixed = {
            "rows": use.in_axis if is_table else (),
            "window": use.spatial_axis,
            "number of kernels": () if use.groups > 1 else use.batch_axis,
            "number of layers": use.stack_axis,
        }
        for name, along in fixed.items():
            if any(base.shape[axis] != target.shape[axis] for axis in along):
                raise ValueError(
                    f"its {name} changed, from {base.shape} to {target.shape}: only "
                    "inputs and outputs may grow"
                )


def _listed(numbers: set[float]) -> str:
    return " and ".join(f"{number:g}" for number in sorted(numbers))


def _from_the_front(axes: Mapping[str, Any], ndim: int) -> set[int]:
    """All axes of inputs and outputs, as numbers that are not negative."""
    groups = (x if isinstance(x, tuple) else (x,) for x in axes.values())
    return {axis % ndim for group in groups for axis in group}
