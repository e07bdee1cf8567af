"""Arrays that are one literal throughout, such as biases of zeros.

They need no program that writes them: one that copies what it is given serves all of
one shape and dtype, and is compiled in a third of the time.
"""

import jax.numpy as jnp
import numpy as np
from jax.extend import core
from jax.extend.core import primitives

from jaxinit._compile.values import Literal, Node, Output, Value
from jaxinit._kernel.fuse import abstract, scan_operands

# At most so many bytes are copied from the host.
_LARGEST_FILL = 1 << 20
_MOVES_OF_ONE_VALUE = frozenset(
    {"broadcast_in_dim", "copy", "expand_dims", "reshape", "squeeze", "transpose"}
)


def uniform_value(value: Value) -> np.ndarray | None:
    """The value of every entry of an array that is made of one literal; else None."""
    while isinstance(value, Output):
        eqn = value.node.eqn
        if eqn.primitive is primitives.scan_p:
            return _uniform_in_loop(eqn, value.position)
        if eqn.primitive.name not in _MOVES_OF_ONE_VALUE or len(eqn.invars) != 1:
            return None
        (value,) = value.node.inputs
    return _literal(value.atom) if isinstance(value, Literal) else None


def _uniform_in_loop(eqn: core.JaxprEqn, position: int) -> np.ndarray | None:
    """The same for what a loop puts together from its steps."""
    body = eqn.params["jaxpr"].jaxpr
    maker = {var: inner for inner in body.eqns for var in inner.outvars}
    atom = body.outvars[position]
    if scan_operands(eqn)[1]:
        return None
    while isinstance(atom, core.Var):
        inner = maker.get(atom)
        if inner is None or inner.primitive.name not in _MOVES_OF_ONE_VALUE:
            return None
        if len(inner.invars) != 1:
            return None
        (atom,) = inner.invars
    return _literal(atom)


def _literal(atom: core.Literal) -> np.ndarray:
    return np.asarray(atom.val, abstract(atom).dtype)


def filled(value: Value) -> np.ndarray | None:
    """The array, if it is small and one literal throughout; else None."""
    entry = uniform_value(value)
    if entry is None or not isinstance(value, Output):
        return None
    aval = abstract(value.node.eqn.outvars[value.position])
    if aval.size * entry.itemsize > _LARGEST_FILL:
        return None
    return np.full(aval.shape, entry)


def makes_floats(node: Node) -> bool:
    """Whether a node makes floats whose rounding may depend on who takes them.

    It does not where they are one literal throughout, or integers.
    """
    if uniform_value(Output(node, 0)) is not None:
        return False
    if node.eqn.primitive.name == "convert_element_type":
        (taken,) = node.eqn.invars
        if not jnp.issubdtype(abstract(taken).dtype, np.inexact):
            return False
    avals = map(abstract, node.eqn.outvars)
    return any(x.size > 1 and jnp.issubdtype(x.dtype, np.inexact) for x in avals)
