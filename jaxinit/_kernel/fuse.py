"""Runs a function with its random draws made by the fused kernel.

XLA puts elementwise operations into one loop, which touches memory once. jax's own
threefry bits are no such operation on CPU: their rounds are a loop that passes over
the whole array each time, and what turns the bits into numbers is a loop of its own.

The function is traced and its equations are evaluated one by one, calls inlined.
Threefry bits and the inverse error function are replaced by elementwise expressions;
every other equation is bound as it stands. Take `jax.random.uniform(key, (1000,))`:

    bits = random_bits[bit_width=32, shape=(1000,)] key
    a    = shift_right_logical bits 9
    b    = or a 0x3f800000            # a float between 1 and 2
    c    = bitcast_convert_type b
    u    = sub c 1.0

The first equation becomes twenty rounds of additions, rotations and exclusive ors of
`iota`, the position of each entry; the others stay. All of it is elementwise, so that
XLA makes one loop, and no array of bits is ever in memory.

What holds: every equation is bound once, in the order of the trace, with the operands
it had, so that the values are those of the function itself.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.core import eval_jaxpr
from jax.extend import core
from jax.extend.core import primitives

from jaxinit._kernel.erf_inv import erf_inv
from jaxinit._kernel.options import setting
from jaxinit._kernel.threefry import is_threefry, with_fused_bits

_EMPTY = jax.make_jaxpr(lambda: ())().jaxpr


def fused(fun: Callable[..., Any]) -> Callable[..., Any]:
    """`fun`, its threefry draws fused with what follows them; the same values.

    Args:
        fun: function of pytrees of arrays that returns a pytree of arrays.

    Returns:
        A function of the same arguments, to be called under `jax.jit`. With key-reuse
        checking on it is `fun`, since unwrapping a key hides it from the checker.
    """

    def call(*args):
        if setting("jax_debug_key_reuse"):
            return fun(*args)
        closed, shape = jax.make_jaxpr(fun, return_shape=True)(*args)
        values = evaluate(closed.jaxpr, closed.consts, jax.tree.leaves(args))
        return jax.tree.unflatten(jax.tree.structure(shape), values)

    return call


def evaluate(jaxpr: core.Jaxpr, consts: Sequence[Any], args: Sequence[Any]) -> list:
    """Evaluates `jaxpr` with fused draws.

    Args:
        jaxpr: the equations.
        consts: values of `jaxpr.constvars`.
        args: values of `jaxpr.invars`.

    Returns:
        The values of `jaxpr.outvars`.
    """
    env = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *args], strict=True))

    def read(atom):
        return atom.val if isinstance(atom, core.Literal) else env[atom]

    for eqn in jaxpr.eqns:
        values = fused_bind(eqn, [read(atom) for atom in eqn.invars])
        env.update(zip(eqn.outvars, values, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def inlined_call(eqn: core.JaxprEqn) -> tuple[core.Jaxpr, Sequence[Any]] | None:
    """The body and constants of a call that may be inlined; None for all else.

    These are plain `jax.jit` calls and `jax.checkpoint`, which only matters to a
    derivative.
    """
    body: Any = eqn.params.get("jaxpr")
    if eqn.primitive is primitives.remat_p:
        return body, ()
    if eqn.primitive is not primitives.jit_p:
        return None
    shardings = (*eqn.params["in_shardings"], *eqn.params["out_shardings"])
    if any(isinstance(sharding, jax.sharding.Sharding) for sharding in shardings):
        return None
    return body.jaxpr, body.consts


def fused_bind(eqn: core.JaxprEqn, values: Sequence[Any]) -> list:
    """The outputs of one equation on `values`, its draws made by the fused kernel."""
    if eqn.primitive is primitives.random_bits_p and is_threefry(values[0].dtype):
        with eqn.ctx.manager:  # the mesh in force where it was traced
            key = with_fused_bits(values[0])
            return [primitives.random_bits_p.bind(key, **eqn.params)]
    if eqn.primitive is primitives.erf_inv_p:
        with eqn.ctx.manager:
            return [erf_inv(values[0])]
    if eqn.primitive is primitives.scan_p:
        return _scan(eqn, values)
    if eqn.primitive is primitives.cond_p:
        return _cond(eqn, values)
    inner = inlined_call(eqn)
    return plain_bind(eqn, values) if inner is None else evaluate(*inner, values)


def plain_bind(eqn: core.JaxprEqn, values: Sequence[Any]) -> list:
    """The outputs of one equation on `values`, as jax makes them."""
    return eval_jaxpr(single(eqn), (), *_of_variables(eqn, values))


def _scan(eqn: core.JaxprEqn, values: Sequence[Any]) -> list:
    consts, carry = scan_operands(eqn)
    body = eqn.params["jaxpr"]

    def step(state, xs):
        args = [*values[:consts], *state, *xs]
        outputs = evaluate(body.jaxpr, body.consts, args)
        return outputs[:carry], outputs[carry:]

    init, xs = values[consts : consts + carry], values[consts + carry :]
    options = {name: eqn.params[name] for name in ("length", "reverse", "unroll")}
    state, ys = jax.lax.scan(step, list(init), list(xs), **options)
    return [*state, *ys]


def _cond(eqn: core.JaxprEqn, values: Sequence[Any]) -> list:
    branches = [functools.partial(_branch, branch) for branch in eqn.params["branches"]]
    return jax.lax.switch(values[0], branches, *values[1:])


def _branch(closed: core.ClosedJaxpr, *values: Any) -> list:
    return evaluate(closed.jaxpr, closed.consts, values)


def scan_operands(eqn: core.JaxprEqn) -> tuple[int, int]:
    """How many inputs of a scan are constants, and how many values it carries.

    Read off the shapes, since the parameters that say so differ between jax versions:
    what is scanned over has one axis more outside the loop than inside.
    """
    body = eqn.params["jaxpr"].jaxpr
    carry = _of_equal_rank(eqn.outvars, body.outvars)
    return _of_equal_rank(eqn.invars, body.invars) - carry, carry


def _of_equal_rank(outside: Sequence[Any], inside: Sequence[Any]) -> int:
    """How many values have as many axes outside a loop as inside."""
    pairs = zip(outside, inside, strict=True)
    return sum(abstract(x).ndim == abstract(y).ndim for x, y in pairs)


def abstract(atom: core.Var | core.Literal) -> Any:
    """Shape and dtype of a variable or literal."""
    return atom.aval


def single(eqn: core.JaxprEqn) -> core.Jaxpr:
    """A jaxpr of one equation: inputs its distinct variables, outputs all it has."""
    inputs = list(dict.fromkeys(a for a in eqn.invars if isinstance(a, core.Var)))
    return _EMPTY.replace(
        invars=inputs, outvars=eqn.outvars, eqns=[eqn], effects=eqn.effects
    )


def _of_variables(eqn: core.JaxprEqn, values: Sequence[Any]) -> list:
    pairs = zip(eqn.invars, values, strict=True)
    return list({atom: v for atom, v in pairs if isinstance(atom, core.Var)}.values())
