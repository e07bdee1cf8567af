"""What every contraction of a function gives, forwards and backwards.

`jaxinit.signal` sees the modules of Linen and NNX. This sees the contractions of any
function, those in loops too: it evaluates the jaxpr, and notes the standard deviation
of what contractions of activations with parameters give. A zero that is added to each
has as its gradient that of the output, from which the norms come.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core

_CONTRACTIONS = {"conv_general_dilated", "dot_general", "ragged_dot_general"}
QUICK = {
    "xla_backend_optimization_level": 0,
    "xla_llvm_disable_expensive_passes": True,
}
_CALLS = {
    "jit": "jaxpr",
    "pjit": "jaxpr",
    "closed_call": "call_jaxpr",
    "core_call": "call_jaxpr",
    "remat2": "jaxpr",
    "checkpoint": "jaxpr",
    "custom_jvp_call": "call_jaxpr",
    "custom_vjp_call": "call_jaxpr",
    "custom_vjp_call_jaxpr": "fun_jaxpr",
}


@dataclass(frozen=True)
class Origin:
    """What a value is made of: numbers of leaves, and whether inputs are among it."""

    leaves: frozenset[int] = frozenset()
    is_data: bool = False

    def __or__(self, other: "Origin") -> "Origin":
        return Origin(self.leaves | other.leaves, self.is_data or other.is_data)


@dataclass(frozen=True)
class Contraction:
    """One place where activations meet parameters.

    Attributes:
        leaves: numbers of the leaves that the parameters are made of.
        stds: standard deviation of the output, one for each turn of a loop.
        gradients: norm of the gradient there, the same.
    """

    leaves: tuple[int, ...]
    stds: tuple[float, ...]
    gradients: tuple[float, ...]


def recorder(apply: Callable, params: Any, inputs: Sequence[Any]) -> Callable:
    """What records all contractions of a function, compiled once.

    Args:
        apply: a function of parameters and inputs.
        params: its parameters, or their shapes.
        inputs: its inputs, or their shapes.

    Returns:
        A function of parameters, inputs, and a key for random gradients of the outputs,
        which gives a list of `Contraction`, in the order of the computation.
    """
    closed = jax.make_jaxpr(apply)(params, *inputs)
    origins = [Origin(frozenset([i])) for i, _ in enumerate(jax.tree.leaves(params))]
    origins += [Origin(is_data=True) for _ in jax.tree.leaves(tuple(inputs))]

    def run(values, key, probes):
        notes = _Notes(probes)
        found = _evaluate(closed.jaxpr, closed.consts, values, origins, notes)
        made_of[:] = notes.leaves
        total = jnp.zeros(())
        for index, (out, _) in enumerate(found):
            if jnp.issubdtype(out.dtype, jnp.floating):
                weights = jax.random.normal(jax.random.fold_in(key, index), out.shape)
                total += jnp.sum(weights * out.astype(jnp.float32))
        return total, (notes.stds, notes.shapes)

    made_of: list[frozenset[int]] = []
    values = jax.tree.leaves((params, *inputs))
    example = jax.eval_shape(lambda: jax.random.key(0))
    shapes = jax.eval_shape(lambda v, k: run(v, k, None)[1], values, example)[1]
    gradient = jax.grad(run, argnums=2, has_aux=True)
    compiled = jax.jit(gradient, compiler_options=QUICK)

    def record(params, inputs, key):
        probes = [jnp.zeros(shape.shape, shape.dtype) for shape in shapes]
        values = jax.tree.leaves((params, *inputs))
        gradients, (stds, _) = compiled(values, key, probes)
        found = zip(made_of, stds, gradients, strict=True)
        return [
            Contraction(
                tuple(sorted(leaves)),
                tuple(map(float, jnp.ravel(std))),
                _norms(gradient, std.size),
            )
            for leaves, std, gradient in found
        ]

    return record


def _norms(gradient: jax.Array, turns: int) -> tuple[float, ...]:
    flat = gradient.astype(jnp.float32).reshape(turns, -1)
    return tuple(map(float, jnp.linalg.norm(flat, axis=1)))


class _Notes:
    """What is noted on the way; within loops these are arrays with a leading axis."""

    def __init__(self, probes: Sequence[jax.Array] | None):
        self._probes = probes
        self.leaves: list[frozenset[int]] = []
        self.stds: list[Any] = []
        self.shapes: list[Any] = []

    def probe(self, made_of: frozenset[int], out: jax.Array) -> jax.Array:
        if self._probes is not None:
            out = out + self._probes[len(self.leaves)]
        self.leaves.append(made_of)
        self.stds.append(jnp.std(out.astype(jnp.float32)))
        self.shapes.append(out)
        return out

    def rest(self, count: int) -> Sequence[jax.Array] | None:
        """The probes of the next contractions."""
        if self._probes is None:
            return None
        begin = len(self.leaves)
        return self._probes[begin : begin + count]


def _evaluate(jaxpr, consts, values, origins, notes) -> list[tuple[Any, Origin]]:
    """Outputs with their origins."""
    known = dict(zip(jaxpr.invars, zip(values, origins, strict=True), strict=True))
    known |= {v: (c, Origin()) for v, c in zip(jaxpr.constvars, consts, strict=True)}

    def read(atom):
        if isinstance(atom, core.Literal):
            return jnp.asarray(atom.val, getattr(atom.aval, "dtype", None)), Origin()
        return known[atom]

    for equation in jaxpr.eqns:
        inputs = [read(atom) for atom in equation.invars]
        outputs = _outputs(equation, inputs, notes)
        known |= dict(zip(equation.outvars, outputs, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _outputs(equation, inputs, notes) -> list[tuple[Any, Origin]]:
    values = [value for value, _ in inputs]
    origins = [origin for _, origin in inputs]
    name, params = equation.primitive.name, equation.params
    if name in _CALLS:
        inner = params[_CALLS[name]]
        jaxpr, consts = _opened(inner)
        return _evaluate(jaxpr, consts, values, origins, notes)
    if name == "scan":
        return _scanned(params, values, origins, notes)
    origin = _union(origins)
    made = equation.primitive.bind(*values, **params)
    made = list(made) if equation.primitive.multiple_results else [made]
    if name in _CONTRACTIONS:
        of_leaves = [o for o in origins[:2] if o.leaves and not o.is_data]
        if len(of_leaves) == 1 and any(o.is_data for o in origins[:2]):
            made = [notes.probe(of_leaves[0].leaves, made[0])]
    return [(value, origin) for value in made]


def _union(origins) -> Origin:
    whole = Origin()
    for origin in origins:
        whole |= origin
    return whole


def _opened(jaxpr) -> tuple[Any, Sequence[Any]]:
    return (jaxpr.jaxpr, jaxpr.consts) if hasattr(jaxpr, "jaxpr") else (jaxpr, ())


def _scanned(params, values, origins, notes) -> list[tuple[Any, Origin]]:
    """A loop, with the notes of every turn stacked."""
    jaxpr, consts = _opened(params["jaxpr"])
    fixed, carried = params["num_consts"], params["num_carry"]
    first = fixed + carried
    origins = list(origins)
    shapes = [v.aval for v in jaxpr.invars]
    count = 0
    for _ in range(2 + carried):  # until what is carried has all its origins
        found, count = _traced(jaxpr, consts, shapes, origins)
        grown = [a | b for a, (_, b) in zip(origins[fixed:first], found, strict=False)]
        if grown == origins[fixed:first]:
            break
        origins[fixed:first] = grown
    probes = notes.rest(count)
    outs: list[Origin] = []
    kept: list[Any] = []

    def body(carry, step):
        probes, xs = step
        inner = _Notes(probes)
        found = _evaluate(jaxpr, consts, [*values[:fixed], *carry, *xs], origins, inner)
        outs[:] = [origin for _, origin in found]
        kept[:] = inner.leaves
        made = [value for value, _ in found]
        return made[:carried], (made[carried:], inner.stds, inner.shapes)

    last, (ys, stds, shapes) = jax.lax.scan(
        body,
        values[fixed:first],
        (probes, values[first:]),
        length=params["length"],
        reverse=params["reverse"],
    )
    notes.leaves += kept
    notes.stds += stds
    notes.shapes += shapes
    return list(zip([*last, *ys], outs, strict=True))


def _traced(jaxpr, consts, shapes, origins) -> tuple[list[tuple[Any, Origin]], int]:
    """The outputs of a loop's body with their origins, and how much it would note."""
    found: list[Any] = []
    notes = _Notes(None)

    def run(*values):
        found[:] = _evaluate(jaxpr, consts, values, origins, notes)
        return [value for value, _ in found]

    jax.eval_shape(run, *[jax.ShapeDtypeStruct(s.shape, s.dtype) for s in shapes])
    return found, len(notes.leaves)
