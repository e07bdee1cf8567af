"""All leaf programs of a traced function, compiled or put into an outer program.

Take a model of 16 equal layers:

    def init(key):
        keys = jax.random.split(key, 16)
        return [0.1 * jax.random.normal(k, (128, 128)) for k in keys]

It has 16 leaf programs with one signature: one class. There are two ways to run them.

- Called as it is, `compile` gives one executable, which is called 16 times, each time
  with the words of another key, hashed on the host.
- Under an outer `jax.jit`, the outer program must be small, so that equal leaves are
  drawn in a loop over their keys. One loop over all 16 would hold all of them in its
  output before they are cut out of it, which is twice the memory. So it is cut into 8
  loops of 2 leaves, each with 1/8 of all bytes, and XLA compiles one body for all of
  them.

What holds: the programs make every output once, and each way gives the same bits.
"""

import itertools
import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend import core
from jax.interpreters.partial_eval import dce_jaxpr

from jaxinit._compile.exact import Kind
from jaxinit._compile.executables import CompiledProgram, compiled, settings
from jaxinit._compile.graph import Graph
from jaxinit._compile.leaf_program import (
    AnyProgram,
    WholeProgram,
    leaf_programs,
    word_names,
)
from jaxinit._compile.placement import Placement, committed_sharding
from jaxinit._compile.values import Argument, Keys, Root
from jaxinit._kernel.threefry import unknown_zero

# The output of a loop is a temporary array: this is the largest share of the bytes of
# all outputs that one loop may hold.
_LOOP_SHARE = 1 / 8


class LeafPlan:
    """How each flat output of a traced function is made.

    Args:
        closed: the function.
        options: compiler options of XLA for each program.

    Attributes:
        programs: the leaf programs; equal ones have equal signatures.
        classes: the programs grouped by signature, in order of first appearance.
        count_of_arguments: how many flat arguments the function has.
        is_whole: whether nothing is cut: one program is the function.
    """

    def __init__(
        self, closed: core.ClosedJaxpr, options: Mapping[str, Any] | None = None
    ):
        graph = Graph(closed)
        self._options = options or {}
        self._roots = graph.roots
        self._schedule = graph.keys.schedule()
        self._avals = [atom.aval for atom in closed.jaxpr.outvars]
        _, self._is_used = dce_jaxpr(closed.jaxpr, [True] * len(self._avals))
        self.count_of_arguments = len(closed.jaxpr.invars)
        self.programs = leaf_programs(graph, closed)
        self.is_whole = [*map(type, self.programs)] == [WholeProgram]
        inputs = {v for program in self.programs for v in program.inputs}
        self._inputs = sorted(v.position for v in inputs if isinstance(v, Argument))
        classes: dict[Hashable, list[AnyProgram]] = {}
        for program in self.programs:
            classes.setdefault(program.signature, []).append(program)
        self.classes = list(classes.values())

    def bytes_of(self, program: AnyProgram) -> int:
        """Bytes of the outputs of a program."""
        avals = [self._avals[leaf] for leaf in program.leaves]
        return sum(aval.size * aval.dtype.itemsize for aval in avals)

    def used(self, args: Sequence[Any]) -> list[Any]:
        """The arguments that an output depends on: all that `jax.jit` looks at."""
        return [arg for arg, used in zip(args, self._is_used, strict=True) if used]

    def given(self, args: Sequence[Any]) -> list[Any]:
        """The arguments that programs take as inputs, in order."""
        return [args[position] for position in self._inputs]

    def keys_made_of(self, args: Sequence[Any]) -> list[Any]:
        """The arguments that keys are made of, which are read on the host."""
        positions = (root.position for root in self._roots)
        return [args[i] for i in positions if i is not None and self._is_used[i]]

    def words(self, args: Sequence[Any]) -> Any:
        """The words of every key in the function, given its flat arguments."""
        return self._schedule.words([self._root_words(r, args) for r in self._roots])

    def _root_words(self, root: Root, args: Sequence[Any]) -> Any:
        if root.position is None:
            return root.words(None)
        if self._is_used[root.position]:
            return root.words(args[root.position])
        # No output needs these keys, and jax.jit would not look at the argument.
        return np.zeros((*root.shape, 2), np.uint32)

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

    def conditions(self, args: Sequence[Any]) -> Hashable:
        """What executables depend on beside the function, its types and placement."""
        return tuple(map(committed_sharding, self.used(args))), settings()

    def compile(
        self, args: Sequence[Any], placement: Placement
    ) -> list[CompiledProgram]:
        """One executable for each program; equal programs share it."""
        return compiled(self.programs, args, placement, self._options)

    def inline(self, args: Sequence[Any]) -> list[Any]:
        """All outputs, in the program being traced; equal leaves in one loop."""
        words = self.words(args)
        outputs: dict[int, Any] = {}
        chunks = [
            chunk for programs in self.classes for chunk in self._chunks(programs)
        ]
        numbers = _unknown_numbers(max(map(len, chunks), default=0), words)
        token = words.reshape(-1)[0] if words.size else np.uint32(0)
        for chunk in chunks:
            if _in_loop(chunk):
                token, drawn = _drawn_in_loop(chunk, words, args, token, numbers)
            else:
                drawn = [each(*self.inputs(each, words, args)) for each in chunk]
            for program, values in zip(chunk, drawn, strict=True):
                outputs.update(zip(program.leaves, values, strict=True))
        return [outputs[leaf] for leaf in range(len(self._avals))]

    def _chunks(self, programs: list[AnyProgram]) -> list[list[AnyProgram]]:
        """Equal programs, divided among as few loops as their share of memory allows.

        The loops are of equal length where possible: XLA then compiles one body.
        """
        total = sum(map(self.bytes_of, self.programs))
        share = self.bytes_of(programs[0]) * len(programs) / max(1, total)
        loops = min(len(programs), math.ceil(share / _LOOP_SHARE) or 1)
        bounds = [len(programs) * i // loops for i in range(loops + 1)]
        return [programs[a:b] for a, b in itertools.pairwise(bounds)]


def _drawn_in_loop(
    programs: list[AnyProgram],
    words: Any,
    args: Sequence[Any],
    token: Any,
    numbers: Sequence[Any],
) -> tuple[Any, list[list]]:
    """The outputs of equal programs, evaluated in one loop over their keys.

    Args:
        programs: the programs.
        words: the words of all keys.
        args: flat arguments of the function.
        token: a number that the loop before has made. The arrays of this loop are
            filled with it before they are overwritten, so that the loop must wait: else
            XLA would start all loops at once and hold all their arrays.
        numbers: see `_unknown_numbers`.

    Returns:
        The token of this loop, and the outputs of each program.
    """
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

    def step(i, state):
        token, drawn = state
        return token + i.astype(np.uint32), [
            lax.dynamic_update_index_in_dim(x, value, i, 0)
            for x, value in zip(drawn, one(i), strict=True)
        ]

    shapes = jax.eval_shape(one, 0)
    filler = [jnp.full((len(programs), *x.shape), token, x.dtype) for x in shapes]
    token, drawn = lax.fori_loop(0, len(programs), step, (token, filler))
    return token, [
        [lax.dynamic_index_in_dim(values, i, keepdims=False) for values in drawn]
        for i in numbers[: len(programs)]
    ]


def _unknown_numbers(count: int, words: Any) -> list[Any]:
    """The numbers 0 ... count - 1, in a way that XLA does not see through.

    They say where a leaf is in the array that a loop made. If XLA knew the place, it
    would compile a kernel for each leaf that cuts it out; as it is, one serves all.
    """
    if not words.size:
        return list(range(count))
    never = lax.ne(unknown_zero(words.reshape(-1)[0]), np.uint32(0))
    return lax.cond(
        never,
        lambda: [np.int32(0)] * count,
        lambda: [np.int32(i) for i in range(count)],
    )


def _in_loop(programs: list[AnyProgram]) -> bool:
    """Whether equal programs are drawn in a loop.

    They are if they draw numbers, are several, and round the same inside a loop.
    """
    first = programs[0]
    if first.kind is Kind.WHOLE:
        return False
    draws = any(isinstance(value, Keys) for value in first.inputs)
    return len(programs) > 1 and draws and first.is_strongly_typed
