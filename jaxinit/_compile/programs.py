"""The programs of an init function: run, and shown as a table."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax

from jaxinit._basics.table import Table

if TYPE_CHECKING:
    from jaxinit._compile.runner import Runner


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

    def __init__(self, runner, args, out_tree, paths, seconds):
        self._runner: Runner = runner
        self._args: Sequence[Any] = args
        self._out_tree = out_tree
        self._paths: list[str] = paths
        self.trace_seconds, self.compile_seconds = seconds
        self.bytes = sum(map(runner.plan.bytes_of, runner.plan.programs))

    def restructured(self, out_tree: Any, paths: list[str]) -> "Programs":
        """The same programs, their outputs in another tree, under other paths."""
        seconds = (self.trace_seconds, self.compile_seconds)
        return Programs(self._runner, self._args, out_tree, paths, seconds)

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
        return jax.tree.unflatten(
            self._out_tree, self._runner.run(self._args, progress)
        )

    def __iter__(self) -> Iterator[ProgramSummary]:
        uses: dict[int, list] = {}
        plan, compiled = self._runner.plan, self._runner.compiled
        for program, executable in zip(plan.programs, compiled, strict=True):
            uses.setdefault(id(executable), []).append((program, executable))
        for members in uses.values():
            leaves = (tuple(self._paths[i] for i in p.leaves) for p, _ in members)
            size = sum(plan.bytes_of(program) for program, _ in members)
            executable = members[0][1]
            temporary = executable.call.memory_analysis().temp_size_in_bytes
            yield ProgramSummary(tuple(leaves), size, temporary, executable.seconds)

    def __len__(self) -> int:
        return len({id(executable) for executable in self._runner.compiled})

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
