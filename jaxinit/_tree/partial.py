"""Drawing a part of a tree: missing leaves, or leaves to be drawn again."""

from collections.abc import Container
from typing import Any

import jax

from jaxinit._basics.keys import check_key
from jaxinit._tree.leaf import PlannedLeaf
from jaxinit._tree.paths import joined, leaf_paths, matcher, near_miss
from jaxinit._tree.plan import Plan, checked_plan
from jaxinit._tree.problems import PlanError, problems_message


def init_missing(key: jax.Array, partial: Any, plan: Plan) -> Any:
    """Draws the leaves that a tree lacks, with the values of the full init.

    Args:
        key: root key, as of `plan.init`.
        partial: pytree of arrays with the paths of the plan. Leaves may be left out or
            None, as after loading a checkpoint of a smaller model.
        plan: the plan of the whole tree.

    Returns:
        Pytree of the structure of the plan. It has the arrays of `partial` themselves;
        the others equal the leaves of `plan.init(key)`.

    Raises:
        PlanError: naming every leaf of `partial` that is not in the plan, has another
            shape or dtype there, or is not an array.
        TypeError: if `key` is not a key, or `plan` not a plan.

    >>> import jax, jaxinit
    >>> shapes = {"w": jax.ShapeDtypeStruct((2,), "float32"), "b": jax.numpy.zeros(2)}
    >>> plan = jaxinit.plan(shapes, {"**": jaxinit.ones})
    >>> init_missing(jax.random.key(0), {"b": jax.numpy.zeros(2)}, plan)
    {'b': Array([0., 0.], dtype=float32), 'w': Array([1., 1.], dtype=float32)}
    """
    check_key(key)
    return checked_plan("plan", plan).complete(key, _known(partial, plan))


def reinit(key: jax.Array, params: Any, plan: Plan, where: Any) -> Any:
    """Draws some leaves of a tree again.

    Args:
        key: root key of the new values.
        params: pytree with the paths, shapes and dtypes of the plan.
        plan: the plan of the tree.
        where: pattern of the leaves to draw, as in `jaxinit.Rules`.

    Returns:
        Pytree of the structure of the plan: leaves that match have the values of
        `plan.init(key)`, all others are the arrays of `params` themselves.

    Raises:
        PlanError: if `params` does not fit the plan.
        TypeError: if `key` is not a key, `plan` not a plan, or `where` not a pattern.
        ValueError: if `where` matches no leaf.
    """
    check_key(key)
    matches = matcher(where)
    chosen = {leaf.path for leaf in checked_plan("plan", plan) if matches(leaf)}
    if not chosen:
        meant = near_miss(where, [leaf.path for leaf in plan])
        raise ValueError(f"where={where!r} matches no leaf of the plan{meant}:\n{plan}")
    known = whole(params, plan, optional=chosen)
    kept = {path: value for path, value in known.items() if path not in chosen}
    return plan.complete(key, kept)


def whole(params: Any, plan: Plan, optional: Container[str] = ()) -> dict[str, Any]:
    """The leaves of a tree by path, in the order of the plan.

    Args:
        params: pytree with the paths, shapes and dtypes of the plan.
        plan: the plan of the tree.
        optional: paths of leaves that may be missing.

    Raises:
        PlanError: naming every leaf that is missing in one of them, or that has another
            shape or dtype in each.
        TypeError: if `plan` is not a plan.
    """
    known = _known(params, checked_plan("plan", plan))
    lacking = [leaf.path for leaf in plan if leaf.path not in known]
    lacking = [path for path in lacking if path not in optional]
    if lacking:
        raise PlanError(problems_message("params", [f"{p}: missing" for p in lacking]))
    return {leaf.path: known[leaf.path] for leaf in plan if leaf.path in known}


def _known(params: Any, plan: Plan) -> dict[str, Any]:
    planned = {leaf.path: leaf for leaf in plan}
    known, problems = {}, []
    for segments, value in leaf_paths(params):
        path = joined(segments)
        problem = _misfit(value, planned.get(path))
        known[path] = value
        if problem:
            problems.append(f"{path}: {problem}")
    if problems:
        raise PlanError(problems_message("the tree", problems))
    return known


def _misfit(value: Any, leaf: PlannedLeaf | None) -> str | None:
    if leaf is None:
        return "not in the plan"
    if not hasattr(value, "dtype") or isinstance(value, jax.ShapeDtypeStruct):
        return f"not an array but {value!r}"
    if (tuple(value.shape), value.dtype) == (leaf.shape, leaf.dtype):
        return None
    return (
        f"is {value.dtype}{list(value.shape)}, planned is "
        f"{leaf.dtype}{list(leaf.shape)}"
    )
