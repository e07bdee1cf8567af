"""Descriptions of equations: equal where the equations compute the same.

In two equal layers, the nodes that draw the weights are described as

    (random_bits with its parameters, ("input", 0, kind of the keys))
    (shift_right_logical without any, ("node", 0, 0), 9 of dtype uint32)

and so on: variables and keys are numbers in the order of use, so that names make no
difference, and literals are themselves, to the bit.
"""

import functools
import weakref
from collections.abc import Callable, Hashable, Mapping
from typing import Any

import numpy as np
from jax.extend import core
from jax.extend.core import primitives

from jaxinit._compile.values import (
    Argument,
    Constant,
    Keys,
    Literal,
    Node,
    Output,
    Value,
)
from jaxinit._kernel.fuse import scan_operands


class Same:
    """Equal only to the same object, which it keeps alive."""

    def __init__(self, value: Any):
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Same) and other.value is self.value

    def __hash__(self) -> int:
        return id(self.value)


# One stand-in for all equal descriptions, as long as it is in use. Descriptions are
# long; a stand-in is hashed and compared in no time.
_STAND_INS: weakref.WeakValueDictionary[tuple, Same] = weakref.WeakValueDictionary()


def stand_in(description: tuple) -> Same:
    """An object that stands for a description: the same one for equal descriptions."""
    return _STAND_INS.setdefault(description, Same(description))


class Descriptions:
    """Descriptions of the equations and literals of a function, each made once."""

    def __init__(self):
        self._known: dict[int, tuple[Any, Same]] = {}

    def of(self, node: Node, number: Mapping[int, int], of_input: Callable) -> tuple:
        """An equation with its inputs.

        Args:
            node: the equation, applied to values.
            number: number of each node, by its index.
            of_input: describes keys and arguments.
        """
        head = self._once(node.eqn, _head)
        return (head, *(self.token(value, number, of_input) for value in node.inputs))

    def token(
        self, value: Value, number: Mapping[int, int], of_input: Callable
    ) -> Hashable:
        """One value; see `of`."""
        match value:
            case Output(node, position):
                return ("node", number[node.index], position)
            case Keys() | Argument():
                return of_input(value)
            case Constant(constant):
                return ("constant", Same(constant))
            case Literal(atom):
                return self._once(atom, _literal_token)

    def _once(self, described: Any, describe: Callable[[Any], tuple]) -> Same:
        known = self._known.get(id(described))
        if known is None:
            # Kept together with the object: no other one can have its id as long.
            known = described, stand_in(describe(described))
            self._known[id(described)] = known
        return known[1]


def _literal_token(atom: core.Literal) -> tuple:
    value = np.asarray(atom.val)
    return ("literal", str(atom.aval), value.tobytes())


def _head(eqn: core.JaxprEqn) -> tuple:
    return eqn.primitive, _params_token(eqn)


def _params_token(eqn: core.JaxprEqn) -> tuple:
    params = eqn.params
    if eqn.primitive is primitives.scan_p:
        # jax 0.12 also keeps where inputs and outputs were in the trees of the caller.
        params = {n: x for n, x in params.items() if n not in ("ft_in", "ft_out")}
        params["operands"] = scan_operands(eqn)
    return tuple((name, _freeze(params[name])) for name in sorted(params))


def _freeze(value: Any) -> Any:
    """A hashable stand-in for a parameter, equal for equal parameters."""
    if isinstance(value, core.ClosedJaxpr | core.Jaxpr):
        return _freeze_jaxpr(value)
    if isinstance(value, tuple | list):
        return (type(value).__name__, *map(_freeze, value))
    if isinstance(value, np.ndarray):
        return (value.dtype.str, value.shape, value.tobytes())
    try:
        hash(value)
    except TypeError:
        return Same(value)
    # With its type: 1, 1.0 and True are equal in Python, and differ in a program.
    return (type(value), value)


@functools.lru_cache(512)
def _freeze_jaxpr(jaxpr: core.ClosedJaxpr | core.Jaxpr) -> Hashable:
    consts = tuple(Same(value) for value in getattr(jaxpr, "consts", ()))
    jaxpr = getattr(jaxpr, "jaxpr", jaxpr)
    number: dict[core.Var, int] = {}

    def token(atom) -> Any:
        if isinstance(atom, core.Literal):
            return _literal_token(atom)
        return number[atom]

    def define(var) -> tuple:
        number[var] = len(number)
        return (number[var], str(var.aval))

    inputs = tuple(map(define, (*jaxpr.constvars, *jaxpr.invars)))
    eqns = []
    for eqn in jaxpr.eqns:
        arguments = tuple(map(token, eqn.invars))
        results = tuple(map(define, eqn.outvars))
        eqns.append((eqn.primitive, _params_token(eqn), arguments, results))
    frozen = (consts, inputs, tuple(eqns), tuple(map(token, jaxpr.outvars)))
    return stand_in(frozen)
