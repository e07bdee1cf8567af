"""Which programs can be compiled apart from their function and keep its bits.

In one loop, XLA turns a product and the sum that takes it into a fused multiply-add,
which rounds once where the two round twice. On a CPU, of the 999 entries of
`jax.random.normal(jax.random.key(0), (999,)) + 1`, a product by `sqrt(2)` and a sum,
306 differ from the product rounded first. Where XLA has a choice, it depends on all
that is compiled with the two. So a program that is cut out of a function keeps the bits
of the function only if XLA has no choice:

    def one(key):                                # FUSED
        return jax.random.normal(key, (999,)) + 1

    def padded(key):                             # SHARED
        return jnp.pad(jax.random.normal(key, (999,)), 1)

    def two(key):                                # WHOLE
        x = jax.random.normal(key, (999,))
        return x, x + 1

`one` is a single chain `random_bits -> ... -> erf_inv -> mul -> add` of elementwise
operations, and only the sum takes the product: one loop with one rounding, whatever
else the function does and however the bits are drawn. `padded` moves entries, which
XLA may or may not fuse with the draw: equal leaves can share the program, but the draw
must be jax's own. Behind a library routine, such as a QR decomposition, moves do not
matter to the draw. In `two`, the product is also a result: XLA may round it, store it
and add to that, or contract it in a second loop. Only all that takes it tells.

What holds:
- A primitive that is not listed here makes a program WHOLE. A new primitive of jax can
  make things slower, never wrong.
- Arrays of floats on the way to a sum of floats have one use; being a result is one.
- Reductions are not listed: XLA adds up in an order that depends on the loop. Nor are
  parts of complex numbers: the real part of a product is a sum of two products.
"""

import enum
import functools
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.extend import core
from jax.extend.core import primitives

from jaxinit._kernel.fuse import abstract, inlined_call
from jaxinit._kernel.options import is_unrolled

_ELEMENTWISE = frozenset(
    """
    abs add add_any and bitcast_convert_type broadcast_in_dim clamp complex
    convert_element_type copy copy_p cos div dynamic_slice eq erf erf_inv exp
    expand_dims ge gt integer_pow iota is_finite le log log1p lt max min mul ne neg
    nextafter not or pvary reshape reshard rev select_n sharding_constraint shift_left
    shift_right_arithmetic shift_right_logical sign sin slice split sqrt square squeeze
    stop_gradient sub tan tanh transpose unstack xor
    """.split()  # noqa: SIM905 - readable as a list of names
)
_KEYS = frozenset(
    {
        *("random_bits", "random_wrap", "random_unwrap", "random_clone"),
        *("random_split", "random_fold_in", "random_seed"),
    }
)
# These come between loops: library routines, and moves that XLA may or may not fuse.
_LIBRARY = frozenset({"qr", "householder_product", "geqrf"})
_LOOP_BREAKING = _LIBRARY | {
    *("concatenate", "dynamic_update_slice", "gather", "optimization_barrier"),
    *("pad", "scatter"),
}


class Kind(enum.IntEnum):
    """How a program may be compiled; a lower kind is allowed where a higher one is.

    WHOLE: with all that share its floats. SHARED: apart, once for equal leaves, drawn
    as jax draws. FUSED: apart, drawn by the fused kernel.
    """

    WHOLE = 0
    SHARED = 1
    FUSED = 2


# Calls with a branch for each platform inside, which no rule here could judge: they are
# known by their names.
_KNOWN_CALLS = {"jaxinit_erf_inv": Kind.FUSED, "diagonal": Kind.SHARED}

Name = Any
NamedEquation = tuple[core.JaxprEqn, Sequence[Name], Sequence[Name]]


class Step:
    """One equation: names of its inputs and outputs, their shapes and dtypes."""

    def __init__(self, eqn: core.JaxprEqn, inputs: Sequence[Name], outputs: Sequence):
        self.primitive = eqn.primitive.name
        self._call = _KNOWN_CALLS.get(eqn.params.get("name", ""))
        self.inputs, self.outputs = inputs, outputs
        self.avals = [abstract(atom) for atom in eqn.outvars]
        large = [abstract(a).size > 1 for a in eqn.invars]
        self._is_sum = self.primitive in ("add", "sub", "add_any")
        self._both_large = sum(large) > 1

    @property
    def rounds_a_sum(self) -> bool:
        """Whether it adds floats."""
        return self._is_sum and jnp.issubdtype(self.avals[0].dtype, np.inexact)

    @property
    def _is_unrolled(self) -> bool:
        """Whether it makes floats in a loop so short that XLA may unroll it."""
        return any(
            jnp.issubdtype(x.dtype, np.inexact) and is_unrolled(x.shape)
            for x in self.avals
        )

    @property
    def only_moves(self) -> bool:
        """Whether it is a library routine or a move, and no short loop."""
        moves = self.primitive in _LOOP_BREAKING or self._call is Kind.SHARED
        return moves and not self._is_unrolled

    @property
    def kind(self) -> Kind:
        """How a program of such steps may be compiled, if its sums stand alone."""
        # In `a * b + c * d`, either product may be the one that is not rounded.
        is_real = not jnp.issubdtype(self.avals[0].dtype, np.complexfloating)
        if self.rounds_a_sum and self._both_large and is_real:
            return Kind.WHOLE
        if self._call is not None:
            return self._call
        if self.primitive in _LOOP_BREAKING or self._is_unrolled:
            return Kind.SHARED
        return Kind.FUSED if self.primitive in _ELEMENTWISE | _KEYS else Kind.WHOLE


def kind_of(
    equations: Iterable[NamedEquation],
    results: Sequence[Name],
) -> Kind:
    """How a program may be compiled.

    Args:
        equations: each with the names of its inputs and of its outputs.
        results: names of what the program returns.
    """
    steps: list[Step] = []
    for eqn, inputs, outputs in equations:
        inner = _steps(eqn, inputs, outputs)
        if inner is None:
            return Kind.WHOLE
        steps += inner
    if not _sums_are_alone(steps, results):
        return Kind.WHOLE
    return min((step.kind for step in _deciding(steps)), default=Kind.FUSED)


def _deciding(steps: Sequence[Step]) -> list[Step]:
    """The steps that decide how a program is drawn.

    A library routine takes an array, so that moves behind it are in no loop with a
    draw: all others decide.
    """
    users: dict[Name, list[Step]] = {}
    for step in steps:
        for name in step.inputs:
            users.setdefault(name, []).append(step)

    def reached(first: Iterable[Step], stops: Collection[str] = ()) -> set[int]:
        pending, found = list(first), set()
        while pending:
            step = pending.pop()
            if id(step) not in found and step.primitive not in stops:
                found.add(id(step))
                pending += (user for x in step.outputs for user in users.get(x, ()))
        return found

    behind = reached(step for step in steps if step.primitive in _LIBRARY)
    drawing = (step for step in steps if step.primitive in _KEYS)
    behind -= reached(drawing, stops=_LIBRARY)
    return [step for step in steps if not (step.only_moves and id(step) in behind)]


def _steps(eqn, inputs, outputs) -> list[Step] | None:
    """The steps of an equation, calls inlined; None if its body is not exact.

    A scan whose body is FUSED is compiled as a loop of its own and adds no step, and so
    is each branch of a cond.
    """
    if eqn.params.get("name") in _KNOWN_CALLS:
        return [Step(eqn, inputs, outputs)]
    inner = inlined_call(eqn)
    if inner is not None:
        return _inlined(*inner, inputs, outputs)
    bodies = _bodies(eqn)
    if bodies:
        return [] if all(_body_kind(b) is Kind.FUSED for b in bodies) else None
    has_body = next(core.jaxprs_in_params(eqn.params), None) is not None
    return None if has_body else [Step(eqn, inputs, outputs)]


def _inlined(jaxpr, consts, inputs, outputs) -> list[Step] | None:
    steps: list[Step] = []
    for named in _named_equations(jaxpr, _names_in_call(jaxpr, inputs, outputs)):
        inner = _steps(*named)
        if inner is None:
            return None
        steps += inner
    return steps


def _names_in_call(jaxpr, inputs, outputs) -> dict[core.Var, Name]:
    """The caller's names of the inputs and results of a call.

    An input that is returned as it is keeps its name as an input.
    """
    names = dict(zip(jaxpr.invars, inputs, strict=True))
    names.update((var, object()) for var in jaxpr.constvars)
    given = set(names)
    for atom, name in zip(jaxpr.outvars, outputs, strict=True):
        if isinstance(atom, core.Var) and atom not in given:
            names[atom] = name
    return names


def _named_equations(jaxpr, names: dict[core.Var, Name]) -> Iterator[NamedEquation]:
    """The equations with names of inputs and outputs; `names` gets those it lacks."""
    for eqn in jaxpr.eqns:
        for var in eqn.outvars:
            names.setdefault(var, object())
        taken = [names[a] if isinstance(a, core.Var) else None for a in eqn.invars]
        yield eqn, taken, [names[var] for var in eqn.outvars]


def _bodies(eqn: core.JaxprEqn) -> Sequence[core.ClosedJaxpr]:
    """What a scan or a cond runs."""
    if eqn.primitive is primitives.scan_p:
        return [eqn.params["jaxpr"]]
    return eqn.params["branches"] if eqn.primitive is primitives.cond_p else []


@functools.lru_cache(512)
def _body_kind(closed: core.ClosedJaxpr) -> Kind:
    jaxpr = closed.jaxpr
    names = {var: object() for var in (*jaxpr.invars, *jaxpr.constvars)}
    equations = list(_named_equations(jaxpr, names))
    results = [names[a] for a in jaxpr.outvars if isinstance(a, core.Var)]
    return kind_of(equations, results)


def _sums_are_alone(steps: Sequence[Step], results: Sequence[Name]) -> bool:
    """Whether no array of floats that leads to a sum of floats has a second use.

    What lies before a library routine or a move is in another loop, and is not looked
    at.
    """
    uses: dict[Name, int] = {}
    for name in (*results, *(name for step in steps for name in step.inputs)):
        uses[name] = uses.get(name, 0) + 1
    maker = {name: step for step in steps for name in step.outputs}
    pending = [step for step in steps if step.rounds_a_sum]
    seen: set[int] = set()
    while pending:
        step = pending.pop()
        if id(step) in seen or step.primitive in _LOOP_BREAKING:
            continue
        seen.add(id(step))
        for name in step.inputs:
            if name not in maker:
                continue
            if uses[name] > 1 and _is_large_float(maker[name], name):
                return False
            pending.append(maker[name])
    return True


def _is_large_float(step: Step, name: Name) -> bool:
    aval = step.avals[list(step.outputs).index(name)]
    return aval.size > 1 and jnp.issubdtype(aval.dtype, np.inexact)
