"""All leaf programs of a traced function: inlined under a trace, or compiled."""

from collections.abc import Hashable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend import core

from jaxinit._compile.executables import (
    CompiledProgram,
    ProgramCache,
    compiled,
)
from jaxinit._compile.graph import Argument, Constant, Graph, Keys
from jaxinit._compile.placement import Placement
from jaxinit._compile.program import AnyProgram, leaf_programs, word_names

# Under a trace, equal leaves are drawn in one loop, whose output is a temporary: this
# is the largest share of all outputs that one loop may hold.
_LOOP_SHARE = 1 / 8


class LeafPlan:
    """How each flat output of a traced function is made.

    Attributes:
        programs: the leaf programs; equal ones have equal signatures.
        classes: the programs grouped by signature, in order of first appearance.
    """

    def __init__(self, closed: core.ClosedJaxpr):
        self._graph = Graph(closed)
        self._schedule = self._graph.keys.schedule()
        self._avals = [atom.aval for atom in closed.jaxpr.outvars]
        direct = (Keys, Argument, Constant)
        outputs = list(enumerate(self._graph.outputs))
        drawn = [i for i, value in outputs if not isinstance(value, direct)]
        self._direct = [(i, v) for i, v in outputs if isinstance(v, direct)]
        self.programs = leaf_programs(self._graph, closed, drawn)
        self._executables = ProgramCache()
        classes: dict[Hashable, list[AnyProgram]] = {}
        for program in self.programs:
            classes.setdefault(program.signature, []).append(program)
        self.classes = list(classes.values())

    def bytes_of(self, program: AnyProgram) -> int:
        """Bytes of the outputs of a program."""
        avals = [self._avals[leaf] for leaf in program.leaves]
        return sum(aval.size * aval.dtype.itemsize for aval in avals)

    def words(self, args: Sequence[Any]) -> Any:
        """The words of every key in the function, given its flat arguments."""
        return self._schedule.words([root(args) for root in self._graph.roots])

    @staticmethod
    def inputs(program: AnyProgram, words: Any, args: Sequence[Any]) -> list[Any]:
        """The values of the inputs of a program: words of its keys, and arguments."""
        flat = words.reshape(-1)
        return [
            args[value.position]
            if isinstance(value, Argument)
            else flat[word_names(value)]
            for value in program.inputs
        ]

    def compile(
        self, args: Sequence[Any], placement: Placement
    ) -> list[CompiledProgram]:
        """One executable for each program; equal programs share it."""
        return compiled(self.programs, args, placement, self._executables)

    def direct_outputs(self, args: Sequence[Any], words: Any) -> dict[int, Any]:
        """The outputs that are arguments, constants or keys: nothing to compute."""
        outputs = {}
        for leaf, value in self._direct:
            if isinstance(value, Argument):
                outputs[leaf] = jnp.asarray(args[value.position])
            elif isinstance(value, Constant):
                outputs[leaf] = jnp.asarray(value.value)
            else:
                outputs[leaf] = _key_output(words, value)
        return outputs

    def inline(self, args: Sequence[Any]) -> list[Any]:
        """All outputs, in the program being traced; equal leaves in one loop."""
        words = self.words(args)
        outputs = self.direct_outputs(args, words)
        limit = _LOOP_SHARE * sum(map(self.bytes_of, self.programs))
        last: Any = words
        for programs in self.classes:
            together = max(1, int(limit // max(1, self.bytes_of(programs[0]))))
            for start in range(0, len(programs), together):
                chunk = programs[start : start + together]
                drawn = _evaluate(chunk, words, args, last)
                for program, values in zip(chunk, drawn, strict=True):
                    outputs.update(zip(program.leaves, values, strict=True))
                last = drawn[-1][-1] if _in_loop(chunk) else last
        return [outputs[leaf] for leaf in range(len(self._avals))]


def _evaluate(
    programs: list[AnyProgram], words: Any, args: Sequence[Any], last: Any
) -> list[list]:
    """The outputs of equal programs, evaluated in one loop over their keys."""
    if not _in_loop(programs):
        return [program(*LeafPlan.inputs(program, words, args)) for program in programs]
    first = programs[0]
    slots = [i for i, value in enumerate(first.inputs) if isinstance(value, Keys)]
    inputs = LeafPlan.inputs(first, words, args)
    names = [np.stack([word_names(p.inputs[slot]) for p in programs]) for slot in slots]
    keys = [words.reshape(-1)[name] for name in names]

    def one(i):
        merged = list(inputs)
        for slot, key in zip(slots, keys, strict=True):
            merged[slot] = lax.dynamic_index_in_dim(key, i, keepdims=False)
        return first(*merged)

    def step(i, drawn):
        return [
            lax.dynamic_update_index_in_dim(x, value, i, 0)
            for x, value in zip(drawn, one(i), strict=True)
        ]

    shapes = jax.eval_shape(one, 0)
    # What the loop overwrites is filled with a value of the loop before: if nothing
    # made it wait, XLA would hold the outputs of all loops at once.
    drawn = [_filled(last, (len(programs), *x.shape), x.dtype) for x in shapes]
    drawn = lax.fori_loop(0, len(programs), step, drawn)
    return [[values[i] for values in drawn] for i in range(len(programs))]


def _in_loop(programs: list[AnyProgram]) -> bool:
    """Whether equal programs are worth a loop: they draw numbers, and are several."""
    first = programs[0]
    draws = any(isinstance(value, Keys) for value in first.inputs)
    return len(programs) > 1 and draws and first.is_strongly_typed


def _filled(source: Any, shape: tuple[int, ...], dtype: Any) -> Any:
    value = lax.real(source) if jnp.iscomplexobj(source) else source
    value = value.reshape(-1)[0] if value.size else jnp.uint32(0)
    return jnp.full(shape, value.astype(dtype))


def _key_output(words: Any, value: Keys) -> Any:
    data = jnp.asarray(words.reshape(-1)[word_names(value)])
    return data if value.raw else jax.random.wrap_key_data(data, impl="threefry2x32")
