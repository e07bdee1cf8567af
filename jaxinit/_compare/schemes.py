"""Schemes to compare: what each of them draws for a model."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from jaxinit._compare.models import Trainable
from jaxinit._tree.leaf import Leaf, kept
from jaxinit._tree.plan import Plan, PlanError, model_plan
from jaxinit._tree.rules import Rules
from jaxinit._tree.values import is_factory, is_initializer
from jaxinit.initializers.basic import ones, zeros
from jaxinit.schemes.parts import BIAS, KERNEL, SCALE, axes


def checked(schemes: Any) -> dict[str, Any]:
    """The schemes by name.

    Raises:
        TypeError: if they are no mapping from names to schemes.
        ValueError: if there is none.
    """
    if not isinstance(schemes, Mapping) or not all(map(_is_name, schemes)):
        raise TypeError(
            "schemes must be a mapping from names to rules, initializers or None, "
            f"such as {{'he': jaxinit.he_normal()}}, got {schemes!r}."
        )
    if not schemes:
        raise ValueError("schemes must name one scheme or more, got none.")
    return {name: _scheme(name, value) for name, value in schemes.items()}


def _is_name(name: Any) -> bool:
    return isinstance(name, str)


def _scheme(name: str, value: Any) -> Any:
    if value is None or is_initializer(value):
        return value
    if isinstance(value, Mapping | Rules):
        return Rules(value)
    hint = ""
    if is_factory(value) or callable(value):
        hint = f"; it is to be called: {getattr(value, '__name__', value)}()"
    raise TypeError(
        f"schemes[{name!r}] must be jaxinit.Rules, one initializer for all kernels, "
        f"or None for the model's own initialization, got {value!r}{hint}."
    )


@dataclass(frozen=True)
class along:  # noqa: N801 - used, and therefore spelled, as a function
    """One initializer, along the axes of each kernel unless axes were given to it."""

    init: Any

    def __call__(self, leaf: Leaf) -> Any:
        found = axes(leaf)
        if _are_last(found, len(leaf.shape)):
            return self.init
        outputs = found["out_axis"]
        column = outputs[-1] if isinstance(outputs, tuple) else outputs
        wanted = {**found, "column_axis": column}
        known = _fields(self.init)
        changed = {
            name: axis
            for name, axis in wanted.items()
            if name in known and getattr(self.init, name) == known[name]
        }
        return dataclasses.replace(self.init, **changed) if changed else self.init


def _are_last(found: Mapping[str, Any], ndim: int) -> bool:
    """Whether inputs are the last axis but one, and outputs the last."""
    last = {"in_axis": [ndim - 2], "out_axis": [ndim - 1]}
    return all(
        [axis % ndim for axis in np.atleast_1d(value).astype(int)] == last.get(name, [])
        for name, value in found.items()
    )


def _fields(init: Any) -> dict[str, Any]:
    """The default of each setting of an initializer of this package."""
    if not dataclasses.is_dataclass(init):
        return {}
    return {field.name: field.default for field in dataclasses.fields(init)}


def _rules(scheme: Any, keeps: bool) -> Rules:
    """Rules, or those of one initializer: all else is left to the model."""
    if isinstance(scheme, Rules):
        return scheme
    rules = [(KERNEL, along(scheme)), (BIAS, zeros)]
    rules.append((_any, kept) if keeps else (SCALE, ones))
    return Rules(rules, required=[KERNEL])


def _any(leaf: Leaf) -> bool:
    return True


def plans(model: Trainable, params: Any, schemes: Mapping[str, Any]) -> dict[str, Any]:
    """A plan of the parameters for each scheme; None for the model's own start.

    Raises:
        PlanError: naming every scheme that does not fit, with the leaves and why.
    """
    found, problems = {}, []
    roles = model.roles() if any(x is not None for x in schemes.values()) else None
    for name, scheme in schemes.items():
        if scheme is None and not model.keeps:
            problems.append(
                f"scheme {name!r} is None, but (shapes, apply) has no initialization "
                "of its own"
            )
        try:
            rules = None if scheme is None else _rules(scheme, model.keeps)
            found[name] = rules and model_plan(
                params, rules, roles, allow_kept=model.keeps
            )
        except PlanError as error:
            problems.append(f"scheme {name!r} does not fit the model: {error}")
    if problems:
        raise PlanError("\n".join(problems))
    return found


def drawn(plan: Plan | None, key: jax.Array, own: Any) -> Any:
    """The parameters of a plan, with those that it leaves to the model."""
    if plan is None:
        return own
    leaves = zip(plan, jax.tree.leaves(own), strict=True)
    known = {leaf.path: array for leaf, array in leaves if leaf.is_kept}
    return plan.complete(key, known)
