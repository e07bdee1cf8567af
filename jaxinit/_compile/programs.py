"""The programs of an init function: run, and shown as a table."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax

from jaxinit._basics.table import Table
from jaxinit._kernel.options import setting

if TYPE_CHECKING:
    from jaxinit._compile.executables import CompiledProgram
    from jaxinit._compile.leaf_plan import LeafPlan
    from jaxinit._compile.leaf_program import AnyProgram


@dataclass(frozen=True)
class ProgramSummary:
    """One compiled program.

    Attributes:
        leaves: paths of the outputs it makes, one tuple for each time it runs.
        bytes: size of all these outputs.
        temp_bytes: memory that one run needs on each device in addition to its outputs.
        seconds: time its compilation took, even if that was for an earlier function.
    """

    leaves: tuple[tuple[str, ...], ...]
    bytes: int
    temp_bytes: int
    seconds: float


class Programs:
    """An init function traced and compiled for its arguments, ready to run.

    Iterating gives a `ProgramSummary` for each different program; printing gives a
    table of them.

    Attributes:
        trace_seconds: time to trace the function and cut it into programs.
        compile_seconds: time to compile all programs.
        bytes: size of all outputs.
    """

    def __init__(self, plan, args, compiled, out_tree, paths, seconds):
        self._plan: LeafPlan = plan
        self._args: Sequence[Any] = args
        self._compiled: list[CompiledProgram] = compiled
        self._out_tree = out_tree
        self._paths: list[str] = paths
        self.trace_seconds, self.compile_seconds = seconds
        self.bytes = sum(map(plan.bytes_of, plan.programs))

    def restructured(self, out_tree: Any, paths: list[str]) -> "Programs":
        """The same programs, their outputs in another tree, under other paths."""
        seconds = (self.trace_seconds, self.compile_seconds)
        compiled = (self._plan, self._args, self._compiled)
        return Programs(*compiled, out_tree, paths, seconds)

    def run(self, progress: Callable[[int], Any] | None = None) -> Any:
        """Computes the outputs of the function.

        Args:
            progress: called with the number of bytes of each program that was started.

        Returns:
            What the function returns. The arrays may still be being computed, as always
            in JAX; `jax.block_until_ready` waits for them.

        Raises:
            RuntimeError: if they were compiled for devices that this process lacks.
        """
        self._check_devices()
        guarded = _is_guarded()
        words = self._key_words(guarded)
        outputs: dict[int, Any] = {}
        for program, compiled in zip(self._plan.programs, self._compiled, strict=True):
            inputs = self._plan.inputs(program, words, self._args)
            if guarded:
                inputs = _with_words_placed(inputs, program, compiled)
            outputs.update(zip(program.leaves, compiled.call(*inputs), strict=True))
            if progress is not None:
                progress(self._plan.bytes_of(program))
        flat = [outputs[leaf] for leaf in range(len(outputs))]
        return jax.tree.unflatten(self._out_tree, flat)

    def _check_devices(self) -> None:
        for compiled in self._compiled[:1]:
            # An executable for a topology is compiled but not loaded.
            if not hasattr(compiled.call.runtime_executable(), "local_devices"):
                raise RuntimeError(
                    f"{self!r} is compiled for devices that this process does not "
                    "have, of a topology: it can be printed, not run. To run it, "
                    "compile it for devices of jax.devices()."
                )

    def _key_words(self, guarded: bool) -> Any:
        """The words of all keys.

        `jax.jit` moves nothing to the host to derive keys, but it does move Python
        and NumPy seeds to the device. So a guard sees that move and no other.
        """
        if not guarded:
            return self._plan.words(self._args)
        seeds = self._plan.keys_made_of(self._args)
        _copied([seed for seed in seeds if not isinstance(seed, jax.Array)])
        with jax.transfer_guard("allow"):
            return self._plan.words(self._args)

    def __iter__(self) -> Iterator[ProgramSummary]:
        uses: dict[int, list] = {}
        for program, compiled in zip(self._plan.programs, self._compiled, strict=True):
            uses.setdefault(id(compiled), []).append((program, compiled))
        for members in uses.values():
            leaves = (tuple(self._paths[i] for i in p.leaves) for p, _ in members)
            size = sum(self._plan.bytes_of(program) for program, _ in members)
            compiled = members[0][1]
            temporary = compiled.call.memory_analysis().temp_size_in_bytes
            yield ProgramSummary(tuple(leaves), size, temporary, compiled.seconds)

    def __len__(self) -> int:
        return len({id(compiled) for compiled in self._compiled})

    def __repr__(self) -> str:
        count = f"{len(self)} for {len(self._paths)} leaves"
        return f"<Programs: {count}, {self.bytes:,} bytes>"

    def _repr_html_(self) -> str:
        rows = [
            (
                ", ".join(p.leaves[0]),
                *(str(len(p.leaves)), f"{p.bytes:,}", f"{p.temp_bytes:,}"),
                f"{p.seconds:.2f} s",
            )
            for p in self
        ]
        head = ("first leaf", "runs", "bytes", "temporary", "compile")
        return Table(head, rows, notes=[self._total()]).html()

    def _total(self) -> str:
        return (
            f"{len(self)} programs for {len(self._paths)} leaves, {self.bytes:,} bytes"
            f"; trace {self.trace_seconds:.2f} s, compile {self.compile_seconds:.2f} s"
        )

    def __str__(self) -> str:
        lines = [
            self._total(),
            f"{'runs':>6} {'bytes':>15} {'compile':>9}  first leaf",
        ]
        lines += [
            f"{len(p.leaves):>6} {p.bytes:>15,} {p.seconds:>7.2f} s  "
            + ", ".join(p.leaves[0])
            for p in self
        ]
        return "\n".join(lines)


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


def _with_words_placed(
    inputs: list[Any], program: "AnyProgram", compiled: "CompiledProgram"
) -> list[Any]:
    """The inputs, with the words of keys on the devices that take them."""
    places, _ = compiled.call.input_shardings
    with jax.transfer_guard("allow"):
        return [
            jax.device_put(x, place) if not hasattr(value, "position") else x
            for x, value, place in zip(inputs, program.inputs, places, strict=True)
        ]
