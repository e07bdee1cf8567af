"""Arrays that are one literal throughout, such as biases of zeros.

They need no program that writes them: one that copies what it is given serves all of
one shape and dtype, and is compiled in a third of the time.
"""

import jax.numpy as jnp
import numpy as np
from jax.extend import core

from jaxinit._compile.loops import carries_nothing
from jaxinit._compile.values import Literal, Node, Output, Value
from jaxinit._kernel.fuse import abstract

# At most so many bytes are copied from the host.
_LARGEST_FILL = 1 << 20
_MOVES = frozenset(
    {"broadcast_in_dim", "copy", "expand_dims", "reshape", "squeeze", "transpose"}
)


def uniform_value(value: Value) -> np.ndarray | None:
    """The value of every entry of an array that is made of one literal; else None."""
    while isinstance(value, Output):
        eqn = value.node.eqn
        if carries_nothing(eqn):  # put together from steps
            body = eqn.params["jaxpr"].jaxpr
            return _uniform_in(body, body.outvars[value.position])
        if not _moves_one(eqn):
            return None
        (value,) = value.node.inputs
    return _literal(value.atom) if isinstance(value, Literal) else None


def _uniform_in(jaxpr: core.Jaxpr, atom: core.Var | core.Literal) -> np.ndarray | None:
    """The same for a variable of a function."""
    maker = {var: eqn for eqn in jaxpr.eqns for var in eqn.outvars}
    while isinstance(atom, core.Var):
        eqn = maker.get(atom)
        if eqn is None or not _moves_one(eqn):
            return None
        (atom,) = eqn.invars
    return _literal(atom)


def _moves_one(eqn: core.JaxprEqn) -> bool:
    return eqn.primitive.name in _MOVES and len(eqn.invars) == 1


def _literal(atom: core.Literal) -> np.ndarray:
    return np.asarray(atom.val, abstract(atom).dtype)


def filled(value: Value) -> np.ndarray | None:
    """The array, if it is small and one literal throughout; else None.

    It has the memory of one entry, whatever its shape.
    """
    entry = uniform_value(value)
    if entry is None or not isinstance(value, Output):
        return None
    aval = abstract(value.node.eqn.outvars[value.position])
    if aval.size * entry.itemsize > _LARGEST_FILL:
        return None
    return np.broadcast_to(entry, aval.shape)


def makes_floats(node: Node) -> bool:
    """Whether a node makes floats whose rounding may depend on who takes them.

    It does not where they are integers, or one literal throughout.
    """
    if node.eqn.primitive.name == "convert_element_type":
        (taken,) = node.eqn.invars
        if not jnp.issubdtype(abstract(taken).dtype, np.inexact):
            return False
    avals = map(abstract, node.eqn.outvars)
    return any(
        x.size > 1
        and jnp.issubdtype(x.dtype, np.inexact)
        and uniform_value(Output(node, position)) is None
        for position, x in enumerate(avals)
    )
