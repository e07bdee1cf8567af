"""How a program may be compiled and keep its bits.

XLA contracts a multiplication and an addition that it puts into one loop, and rounds
once instead of twice; it adds up arrays in an order of its own. Both depend on what
stands around. So a program may draw by the fused kernel only if it is elementwise and
whatever leads to an addition has no other use: then XLA has it all in one loop either
way. It may be shared by equal leaves, as jax draws it, if it also calls library
routines or moves entries about. All other programs are compiled as part of the
function they are from.
"""

import enum
import functools
from collections.abc import Iterable, Iterator, Sequence
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
    expand_dims ge gt imag integer_pow iota is_finite le log log1p lt max min mul ne
    neg nextafter not or pvary real reshape reshard rev select_n sharding_constraint
    shift_left shift_right_arithmetic shift_right_logical sign sin slice split sqrt
    square squeeze stop_gradient sub tan tanh transpose unstack xor
    """.split()  # noqa: SIM905 - readable as a list of names
)
_KEYS = frozenset(
    {
        *("random_bits", "random_wrap", "random_unwrap", "random_clone"),
        *("random_split", "random_fold_in", "random_seed"),
    }
)
# These stand between loops: library routines, and moves that XLA may or may not fuse.
_BETWEEN = frozenset(
    {
        *("qr", "householder_product", "geqrf", "optimization_barrier"),
        *("concatenate", "dynamic_update_slice", "gather", "pad", "scatter"),
    }
)


class Kind(enum.IntEnum):
    """How a program may be compiled; a lower kind is allowed where a higher one is."""

    WHOLE = 0
    SHARED = 1
    FUSED = 2


# Calls that choose between platforms inside, known by their names.
_CALLS = {"jaxinit_erf_inv": Kind.FUSED, "diagonal": Kind.SHARED}

Name = Any
NamedEquation = tuple[core.JaxprEqn, Sequence[Name], Sequence[Name]]


class Step:
    """One equation: names of its inputs and outputs, their shapes and dtypes."""

    def __init__(self, eqn: core.JaxprEqn, inputs: Sequence[Name], outputs: Sequence):
        self.primitive = eqn.primitive.name
        self._call = _CALLS.get(eqn.params.get("name", ""))
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
        """Whether it makes floats in a loop that XLA compiles in a way of its own."""
        return any(
            jnp.issubdtype(x.dtype, np.inexact) and is_unrolled(x.shape)
            for x in self.avals
        )

    @property
    def kind(self) -> Kind:
        """How a program of such steps may be compiled, but for its sums."""
        is_real = not jnp.issubdtype(self.avals[0].dtype, np.complexfloating)
        if self.rounds_a_sum and self._both_large and is_real:
            return Kind.WHOLE
        if self._call is not None:
            return self._call
        if self.primitive in _BETWEEN or self._is_unrolled:
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
    return min((step.kind for step in steps), default=Kind.FUSED)


def _steps(eqn, inputs, outputs) -> list[Step] | None:
    """An equation with its calls inlined; None if it keeps a body that is not exact."""
    if eqn.params.get("name") in _CALLS:
        return [Step(eqn, inputs, outputs)]
    inner = inlined_call(eqn)
    if inner is not None:
        return _inlined(*inner, inputs, outputs)
    if eqn.primitive is primitives.scan_p:
        return [] if _body_kind(eqn.params["jaxpr"]) is Kind.FUSED else None
    has_body = next(core.jaxprs_in_params(eqn.params), None) is not None
    return None if has_body else [Step(eqn, inputs, outputs)]


def _inlined(jaxpr, consts, inputs, outputs) -> list[Step] | None:
    names = dict(zip(jaxpr.invars, inputs, strict=True))
    names |= {var: object() for var in jaxpr.constvars}
    # A name for what the call returns, also where the caller has one of its own.
    results = zip(jaxpr.outvars, outputs, strict=True)
    names |= {a: name for a, name in results if isinstance(a, core.Var)} | names
    steps: list[Step] = []
    for named in _named(jaxpr, names):
        inner = _steps(*named)
        if inner is None:
            return None
        steps += inner
    return steps


def _named(jaxpr, names: dict[core.Var, Name]) -> Iterator[NamedEquation]:
    """The equations with the names of their inputs and outputs, which it adds."""
    for eqn in jaxpr.eqns:
        names.update({var: names.get(var, object()) for var in eqn.outvars})
        taken = [names[a] if isinstance(a, core.Var) else None for a in eqn.invars]
        yield eqn, taken, [names[var] for var in eqn.outvars]


@functools.lru_cache(512)
def _body_kind(closed: core.ClosedJaxpr) -> Kind:
    jaxpr = closed.jaxpr
    names = {var: object() for var in (*jaxpr.invars, *jaxpr.constvars)}
    equations = list(_named(jaxpr, names))
    results = [names[a] for a in jaxpr.outvars if isinstance(a, core.Var)]
    return kind_of(equations, results)


def _sums_are_alone(steps: Sequence[Step], results: Sequence[Name]) -> bool:
    """Whether nothing that leads to a sum of floats has a second use."""
    uses: dict[Name, int] = {}
    for name in (*results, *(name for step in steps for name in step.inputs)):
        uses[name] = uses.get(name, 0) + 1
    maker = {name: step for step in steps for name in step.outputs}
    pending = [step for step in steps if step.rounds_a_sum]
    seen: set[int] = set()
    while pending:
        step = pending.pop()
        if id(step) in seen or step.primitive in _BETWEEN:
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
