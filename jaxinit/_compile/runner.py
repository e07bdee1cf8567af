"""Compiled programs of a function, called one after the other: all of a warm call.

A second call of `jaxinit.jit(init)(key)` draws nothing anew but numbers, so that what
it costs a leaf is what calling an executable costs. All else is worked out before: from
where each program takes its inputs, and where its outputs go. Take

    def init(key, x):
        a, b = jax.random.split(key)
        return jax.random.bits(a, (2,)), x * 2, jax.random.bits(b, (2,))

A call lays out all that programs take, in a flat list: the words of keys, gathered by
one operation for each shape of them, the arguments, and constants.

    values    words of a, words of b, key, x, and constants that are copied: none here
    takes     (0,)    (3,)    (1,)              one for each program

What holds: each output is made by an executable of its own call, in a buffer of its
own; nothing of the arguments is kept.
"""

import itertools
from collections.abc import Callable, Hashable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np

from jaxinit._compile.leaf_program import AnyProgram, word_names
from jaxinit._compile.values import Argument, Keys
from jaxinit._kernel.options import setting

if TYPE_CHECKING:
    from jaxinit._compile.executables import CompiledProgram
    from jaxinit._compile.leaf_plan import LeafPlan


class _Step(NamedTuple):
    """A call of an executable.

    Attributes:
        call: the executable.
        takes: positions of its inputs among all values.
        bytes: size of its outputs.
    """

    call: jax.stages.Compiled
    takes: tuple[int, ...]
    bytes: int


class Runner:
    """Executables of a function, ready to be called on its arguments.

    Args:
        plan: the programs of the function.
        compiled: an executable for each of them.

    Attributes:
        plan: the programs of the function.
        compiled: an executable for each of them.
    """

    def __init__(self, plan: "LeafPlan", compiled: "Sequence[CompiledProgram]"):
        self.plan, self.compiled = plan, compiled
        self._names, takes = _sources(plan.programs)
        self._key_count = sum(map(len, self._names))
        self._fills, takes = _with_fills(plan, compiled, takes, self._key_count)
        self._steps = [
            _Step(one.call, taken, plan.bytes_of(program))
            for program, one, taken in zip(plan.programs, compiled, takes, strict=True)
        ]
        leaves = itertools.chain.from_iterable(p.leaves for p in plan.programs)
        self._order = np.argsort([*leaves]).tolist()
        # An executable for a topology is compiled but not loaded.
        self._is_loaded = all(
            hasattr(one.call.runtime_executable(), "local_devices")
            for one in compiled[:1]
        )

    def run(
        self, args: Sequence[Any], progress: Callable[[int], Any] | None = None
    ) -> list[Any]:
        """The flat outputs of the function.

        Args:
            args: its flat arguments.
            progress: called with the number of bytes of each program that was started.

        Raises:
            RuntimeError: if they were compiled for devices that this process lacks.
        """
        if not self._is_loaded:
            raise RuntimeError(
                "the programs are compiled for devices that this process does not "
                "have, of a topology: they can be printed, not run. To run them, "
                "compile them for devices of jax.devices()."
            )
        guarded = _is_guarded()
        value_at = self._values(args, guarded).__getitem__
        made: list[Any] = []
        for step in self._steps:
            inputs = map(value_at, step.takes)
            made += step.call(*(self._placed(step, inputs) if guarded else inputs))
            if progress is not None:
                progress(step.bytes)
        return [made[position] for position in self._order]

    def _values(self, args: Sequence[Any], guarded: bool) -> list[Any]:
        """Everything that programs take: the words of keys, then the arguments."""
        words = self._words(args, guarded).reshape(-1)
        keys = itertools.chain.from_iterable(map(words.take, self._names))
        return [*keys, *args, *self._fills]

    def _words(self, args: Sequence[Any], guarded: bool) -> Any:
        """The words of all keys.

        `jax.jit` moves nothing to the host to derive keys, but it does move Python
        and NumPy seeds to the device. So a guard sees that move and no other.
        """
        if not guarded:
            return self.plan.words(args)
        seeds = self.plan.keys_made_of(args)
        _copied([seed for seed in seeds if not isinstance(seed, jax.Array)])
        with jax.transfer_guard("allow"):
            return self.plan.words(args)

    def _placed(self, step: _Step, inputs: Any) -> list[Any]:
        """Inputs, with the words of keys on the devices that take them."""
        places, _ = step.call.input_shardings
        with jax.transfer_guard("allow"):
            return [
                jax.device_put(x, place) if not self._is_argument(position) else x
                for x, position, place in zip(inputs, step.takes, places, strict=True)
            ]

    def _is_argument(self, position: int) -> bool:
        return 0 <= position - self._key_count < self.plan.count_of_arguments


def _sources(
    programs: Sequence[AnyProgram],
) -> tuple[list[np.ndarray], list[tuple[int, ...]]]:
    """Where programs find their inputs.

    Returns:
        Where the words of keys are among the words of all keys, those of one shape in
        one array; and for each program the positions of its inputs, in a list of all
        these words, one item for each key, followed by the arguments.
    """
    inputs = [value for program in programs for value in program.inputs]
    by_shape: dict[tuple[int, ...], list[int]] = {}
    names = {i: word_names(x) for i, x in enumerate(inputs) if isinstance(x, Keys)}
    for i, name in names.items():
        by_shape.setdefault(name.shape, []).append(i)
    in_order = itertools.chain.from_iterable(by_shape.values())
    position = {i: place for place, i in enumerate(in_order)}
    places = iter(
        len(position) + x.position if isinstance(x, Argument) else position[i]
        for i, x in enumerate(inputs)
    )
    takes = [tuple(itertools.islice(places, len(p.inputs))) for p in programs]
    return [np.stack([names[i] for i in group]) for group in by_shape.values()], takes


def _with_fills(plan, compiled, takes, keys: int) -> tuple[list[np.ndarray], list]:
    """The different constants that are copied, and `takes` with their positions."""
    fills: list[np.ndarray] = []
    known: dict[Hashable, int] = {}
    with_fills = []
    for program, one, taken in zip(plan.programs, compiled, takes, strict=True):
        if one.is_copy:
            fill = program.fill
            name = (fill.shape, fill.dtype, fill.flat[:1].tobytes())
            if name not in known:
                known[name] = keys + plan.count_of_arguments + len(fills)
                fills.append(np.array(fill, order="C"))
            taken = (known[name],)
        with_fills.append(taken)
    return fills, with_fills


_GUARDS = [
    f"jax_transfer_guard_{direction}"
    for direction in ("host_to_device", "device_to_device", "device_to_host")
]


def _is_guarded() -> bool:
    """Whether jax.transfer_guard watches transfers."""
    return any(setting(name) not in (None, "allow") for name in _GUARDS)


@jax.jit
def _copied(values: list[Any]) -> list[Any]:
    return values
