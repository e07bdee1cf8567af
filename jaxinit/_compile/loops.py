"""Loops whose steps derive keys, rewritten to take them.

A loop over layers folds another name into the key of each step for each leaf:

    step(key):  a = fold_in key 7          b = fold_in key 8
                x = random_bits a          y = random_bits b

Cut into a loop for x and one for y, the two differ by a number, and would be compiled
twice. Each step's keys are known by name, so that the loops may as well take them:

    step(a):  x = random_bits a            step(b):  y = random_bits b
    keys of the steps, folded with 7       the same, folded with 8

What holds: a loop that is changed takes as many inputs as before, of the same types,
since how they are counted differs between versions of jax.
"""

from collections.abc import Callable, Sequence

import numpy as np
from jax.extend import core
from jax.extend.core import primitives

from jaxinit._compile.values import MAX_KEYS, Keys, Literal, Value
from jaxinit._kernel.fuse import abstract, scan_operands

OnKeys = Callable[[core.JaxprEqn, Sequence[Value]], Sequence[Value] | None]


def carries_nothing(eqn: core.JaxprEqn) -> bool:
    """Whether it is a loop whose steps do not depend on one another."""
    return eqn.primitive is primitives.scan_p and scan_operands(eqn)[1] == 0


def keys_hoisted(
    eqn: core.JaxprEqn, inputs: Sequence[Value], on_keys: OnKeys
) -> tuple[core.JaxprEqn, Sequence[Value]]:
    """A loop and its inputs, the keys that its steps derive taken as inputs.

    Args:
        eqn: the loop.
        inputs: what it is applied to.
        on_keys: the keys that an equation derives; None if it must be computed.
    """
    is_known = carries_nothing(eqn) and not eqn.params["jaxpr"].consts
    if not is_known or not eqn.params["length"]:
        return eqn, inputs
    body = eqn.params["jaxpr"].jaxpr
    consts, _ = scan_operands(eqn)
    names: dict[core.Var, list[Keys]] = {
        var: [Keys(names, value.raw) for names in value.names]
        for var, value in [*zip(body.invars, inputs, strict=True)][consts:]
        if isinstance(value, Keys)
    }
    given = set(names)
    kept = [e for e in body.eqns if not _derives_in_steps(e, names, on_keys)]
    atoms = [*body.outvars, *(a for e in kept for a in e.invars)]
    used = {a for a in atoms if isinstance(a, core.Var)}
    old = [var for var in body.invars if var in given and var not in used]
    new = [var for var in names if var in used and var not in given]
    if not new or [v.aval for v in old] != [v.aval for v in new]:
        return eqn, inputs
    replaced = dict(zip(old, new, strict=True))
    invars = [replaced.get(var, var) for var in body.invars]
    stacked = [
        _stacked(names[replaced[var]]) if var in replaced else value
        for var, value in zip(body.invars, inputs, strict=True)
    ]
    body = core.ClosedJaxpr(body.replace(invars=invars, eqns=kept), ())
    return eqn.replace(params={**eqn.params, "jaxpr": body}), stacked


def _derives_in_steps(
    eqn: core.JaxprEqn, names: dict[core.Var, list[Keys]], on_keys: OnKeys
) -> bool:
    """Whether an equation of a loop derives keys, whose names `names` then has."""
    variables = [a for a in eqn.invars if isinstance(a, core.Var)]
    if not variables or any(var not in names for var in variables):
        return False
    length = len(names[variables[0]])
    if length * max(abstract(var).size for var in eqn.outvars) > MAX_KEYS:
        return False
    steps = []
    for i in range(length):
        inputs = [
            names[a][i] if isinstance(a, core.Var) else Literal(a) for a in eqn.invars
        ]
        steps.append(on_keys(eqn, inputs))
    if any(step is None for step in steps):
        return False
    for var, keys in zip(eqn.outvars, zip(*steps, strict=True), strict=True):
        names[var] = list(keys)
    return True


def _stacked(keys: Sequence[Keys]) -> Keys:
    return Keys(np.stack([each.names for each in keys]), keys[0].raw)
