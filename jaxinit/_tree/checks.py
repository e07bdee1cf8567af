"""Checks of a plan: leaves, rules and initializers that do not go together."""

import functools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxinit._roles.role import Role
from jaxinit._tree.folding import fold
from jaxinit._tree.leaf import Leaf, kept
from jaxinit._tree.paths import Path, joined, layer_index
from jaxinit._tree.problems import PlanError, problems_message
from jaxinit._tree.rules import Choice, Rules, taken_for
from jaxinit.initializers.base import Initializer, checked_shape


def initializers_of(
    rules: Rules,
    shapes: Any,
    leaves: Sequence[Leaf],
    allow_unused: Sequence[Any],
    allow_kept: bool = False,
) -> tuple[list[Any], list[str], list[str]]:
    """The initializer of every leaf of a tree, what it was taken for, and the problems.

    Args:
        rules: the rules.
        shapes: the tree.
        leaves: its leaves.
        allow_unused: patterns of rules that need not match any leaf.
        allow_kept: whether leaves may be left to the model's own initializers.
    """
    choices, raised = _choices(rules, leaves)
    problems = [f"{path}: {text}" for path, text in raised.items()]
    without = [x.leaf.path for x in choices if x.position is None and not x.sections]
    problems += _unmatched(shapes, [path for path in without if path not in raised])
    problems += [text for choice in choices for text in _partly_unmatched(choice)]
    ends = [end for choice in choices for end in choice.ends()]
    positions = [end.position for end in ends]
    problems += rules.unused([end.leaf for end in ends], positions, allow_unused)
    initializers, wrong = _checked_initializers(rules, choices, allow_kept)
    taken = [taken_for(rules, choice.leaf, choice.position) for choice in choices]
    return initializers, taken, [*problems, *wrong]


def _choices(
    rules: Rules, leaves: Sequence[Leaf]
) -> tuple[list[Choice], dict[str, str]]:
    """The rules of each leaf; by path, what predicates of the user raise."""
    choices, raised = [], {}
    for leaf in leaves:
        try:
            choices.append(rules.choose(leaf))
        except Exception as error:  # of any kind: reported with the path of the leaf
            choices.append(Choice(leaf, None))
            raised[leaf.path] = f"{type(error).__name__}: {error}"
    return choices, raised


def _partly_unmatched(choice: Choice) -> Iterator[str]:
    """A problem for each section of a leaf that no rule matches, where others do."""
    for end in choice.ends() if choice.sections else ():
        if end.position is None and end.leaf.role is not None:
            what = end.leaf.role.summary
            yield f"{choice.leaf.path}: no rule matches its section for {what}"


def _positions(choice: Choice) -> set[int | None]:
    return {end.position for end in choice.ends()}


def _unmatched(shapes: Any, paths: Sequence[str]) -> list[str]:
    """A problem for each leaf without a rule; one for each other Flax collection."""
    if not isinstance(shapes, Mapping) or "params" not in shapes:
        return [f"{path}: no rule matches it" for path in paths]
    groups: dict[str, list[str]] = {}
    for path in paths:
        groups.setdefault(path.partition("/")[0], []).append(path)
    own = groups.pop("params", [])
    return [f"{path}: no rule matches it" for path in own] + [
        f"{', '.join(name for name, _ in fold(group, [None] * len(group)))}: no rule "
        f"matches them; plan variables['params'] alone and take variables[{name!r}] "
        "from model.init, or add rules for them"
        for name, group in groups.items()
    ]


def unplannable(leaf: Any) -> str | None:
    """Why a leaf cannot be drawn; None if it can."""
    if not (hasattr(leaf, "shape") and hasattr(leaf, "dtype")):
        return f"not an array but {leaf!r}; {_LEAVE_OUT}"
    if not _is_number(leaf.dtype):
        return f"not an array of numbers but of {leaf.dtype}; {_LEAVE_OUT}"
    try:
        checked_shape(leaf.shape)
    except (TypeError, ValueError) as error:
        return str(error)
    return None


def _is_number(dtype: Any) -> bool:
    try:
        dtype = jnp.dtype(dtype)
    except TypeError:  # a dtype of random keys, or of another library
        return False
    return bool(jnp.issubdtype(dtype, np.number)) or dtype == np.bool_


_LEAVE_OUT = (
    "leave it out, as by nnx.state(model, nnx.Param), or by equinox.filter(model, "
    "equinox.is_inexact_array)"
)


def leaf_contexts(
    flat: Sequence[tuple[Path, Any]], roles: Mapping[str, Role] | None = None
) -> list[Leaf]:
    """For every leaf, what rules may look at.

    Args:
        flat: the leaves of a tree, with their paths.
        roles: the roles of a model's leaves, by path.

    Raises:
        PlanError: naming every leaf that is no array of numbers, has no role, or has
            the role of a leaf of another shape.
    """
    paths = [joined(path) for path, _ in flat]
    problems = [unplannable(leaf) for _, leaf in flat]
    lines = [
        f"{path or 'the whole'}: {text}"
        for path, text in zip(paths, problems, strict=True)
        if text
    ]
    if roles is not None and not lines:
        lines = _of_another_model(flat, roles)
    if lines:
        raise PlanError(problems_message("the tree", lines))
    # By the path as text, so that a flat tree with keys such as `layers/0/bias` is
    # treated as a nested one.
    siblings: dict[str, dict[str, jax.ShapeDtypeStruct]] = {}
    leaves: dict[str, jax.ShapeDtypeStruct] = {}
    shape_of = functools.cache(jax.ShapeDtypeStruct)  # most leaves are alike
    for path, (_, leaf) in zip(paths, flat, strict=True):
        module, _, name = path.rpartition("/")
        shape = shape_of(checked_shape(leaf.shape), jnp.dtype(leaf.dtype))
        siblings.setdefault(module, {})[name] = leaves[path] = shape
    return [
        Leaf(
            path,
            shape.shape,
            shape.dtype,
            siblings[path.rpartition("/")[0]],
            layer_index(segments),
            leaves,
            None if roles is None else roles[path],
            roles or {},
        )
        for (path, shape), (segments, _) in zip(leaves.items(), flat, strict=True)
    ]


def _of_another_model(
    flat: Sequence[tuple[Path, Any]], roles: Mapping[str, Role]
) -> list[str]:
    """A problem for each leaf whose role is not there, or is of another shape."""
    lines = []
    for path, leaf in flat:
        name, shape = joined(path), tuple(leaf.shape)
        if name not in roles:
            known = [
                x for x in roles if x.endswith(f"/{name}") or name.endswith(f"/{x}")
            ]
            hint = (
                f"; there is {known[0]!r}, of a tree that begins elsewhere"
                if known
                else ""
            )
            lines.append(f"{name}: roles has no such leaf{hint}")
        elif roles[name].shape != shape:
            lines.append(
                f"{name}: of shape {shape}, but roles are of a model where it is "
                f"{roles[name].shape}"
            )
    return lines


def _checked_initializers(
    rules: Rules, choices: Sequence[Choice], allow_kept: bool
) -> tuple[list[Any], list[str]]:
    """The initializer of each leaf, None without a rule; and the problems."""
    initializers, problems = [], []
    checked: dict[Any, str | None] = {}
    for choice in choices:
        initializer = None
        if None not in _positions(choice):
            try:
                initializer = rules.drawn(choice)
                if initializer is kept:
                    problem = None if allow_kept else _without_model(choice.leaf)
                else:
                    problem = _checked(initializer, choice.leaf, checked)
            except Exception as error:  # of any kind: a rule may be the user's
                problem = f"{type(error).__name__}: {error}"
            if problem:
                problems.append(f"{choice.leaf.path}: {problem}")
        initializers.append(initializer)
    return initializers, problems


def _without_model(leaf: Leaf) -> str:
    """Why a leaf that is left to its model cannot be planned without it."""
    role = leaf.role
    why = f"its role is {role.kind} ({role.reason}), so that " if role else ""
    return (
        f"{why}only the model itself knows how it draws this leaf: give it a rule, as "
        f"in `{{{leaf.path!r}: jaxinit.he_normal()}} | scheme`, or let the model draw "
        "it, by jaxinit.linen.init(..., scheme=...) or jaxinit.nnx.create(..., "
        "scheme=...)"
    )


def _checked(initializer: Any, leaf: Leaf, known: dict[Any, str | None]) -> str | None:
    """The problem of an initializer with a leaf, if any, found without drawing."""
    name = (initializer, leaf.shape, leaf.dtype)
    if name not in known:
        known[name] = _problem(initializer, leaf)
    return known[name]


def _problem(initializer: Any, leaf: Leaf) -> str | None:
    def draw(key):
        drawn = initializer(key, leaf.shape, leaf.dtype)
        if callable(drawn):
            raise TypeError("it returns a function, so it is to be called before")
        return drawn

    try:
        key = jax.eval_shape(lambda: jax.random.key(0))  # transfers nothing
        made = jax.eval_shape(draw, key)
    except Exception as error:  # of any kind: initializers refuse shapes differently
        return f"{initializer!r} cannot make it: {error}"
    if not isinstance(made, jax.ShapeDtypeStruct):
        return f"{initializer!r} makes {made!r} instead of an array"
    if (made.shape, made.dtype) != (leaf.shape, leaf.dtype):
        return (
            f"{initializer!r} makes {made.dtype}{list(made.shape)} instead of "
            f"{leaf.dtype}{list(leaf.shape)}"
        )
    return _overflow(initializer, leaf)


def _overflow(initializer: Any, leaf: Leaf) -> str | None:
    """A problem if an initializer draws values that the leaf's dtype cannot hold."""
    if not isinstance(initializer, Initializer) or 0 in leaf.shape:
        return None
    try:
        moments = initializer.moments(leaf.shape, leaf.dtype)
    except NotImplementedError:  # no formula is known
        return None
    ends = [x for x in (moments.low, moments.high) if not math.isinf(x)]
    largest = _largest(leaf.dtype)
    if all(abs(x) <= largest for x in (moments.mean, moments.std, *ends)):
        return None
    return (
        f"{initializer!r} draws what {leaf.dtype} cannot hold: mean {moments.mean:g}, "
        f"standard deviation {moments.std:g}, the largest number is {largest:.4g}"
    )


def _largest(dtype: np.dtype) -> float:
    if dtype == np.bool_:
        return 1.0
    is_integer = jnp.issubdtype(dtype, np.integer)
    return float((jnp.iinfo if is_integer else jnp.finfo)(dtype).max)
