"""The command line: `python -m jaxinit init module:name`, and `signal` likewise."""

import argparse
import contextlib
import dataclasses
import json
import math
import os
import re
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

import jax

from jaxinit._cli import arguments, signal
from jaxinit._cli.errors import CommandError, installed, needed
from jaxinit._compile.jit import Programs, jit
from jaxinit.checkpoint import save, writer
from jaxinit.target import (
    TargetError,
    expectations,
    init_function,
    load,
    one_line,
    rounded,
)

_EXAMPLES = """examples:
  jaxinit init examples.gpt2:small
  jaxinit init examples.gpt2:GPT2 --input 1x8:int32 --dtype bfloat16
  jaxinit init examples.gpt2_nnx:small --out gpt2.safetensors
"""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise CommandError(f"{message} (see {self.prog} --help)")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="jaxinit", description="Starting parameters for JAX models.")
    commands = parser.add_subparsers(dest="command", required=True)
    _add_init(commands)
    signal.add(commands)
    return parser


def _add_init(commands: Any) -> None:
    init = commands.add_parser(
        "init",
        help="initialise a model and say what came out",
        description="Initialises a model and prints a table of its parameters.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    init.add_argument(
        "target",
        help="module:name of an init function of a key, a Flax Linen module, or a "
        "Flax NNX module class or function that takes rngs",
    )
    what = "what a Linen module is called on, such as 1x8:int32"
    arguments.add_draw(init, what, default=[])
    init.add_argument(
        "--dtype",
        type=arguments.floating_dtype,
        help="round the parameters to this dtype, each float32 draw once",
    )
    init.add_argument(
        "--rules",
        metavar="MODULE:NAME",
        help="rules by path pattern, jaxinit.Rules or a mapping: print what they "
        "expect of the leaves that they match, and how far the target is from it",
    )
    init.add_argument(
        "--out",
        type=arguments.new_path,
        metavar="PATH",
        help="write a .safetensors file, or with any other name an Orbax checkpoint",
    )
    init.add_argument(
        "--json", action="store_true", help="print one JSON object instead of a table"
    )
    init.set_defaults(run=_init)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line.

    Args:
        argv: the arguments, those of the process if None.

    Returns:
        The exit status: 0, or 1 after one line on standard error.
    """
    try:
        options = _parser().parse_args(argv)
        if os.getcwd() not in sys.path:
            sys.path.insert(0, os.getcwd())
        options.run(options)
    except (CommandError, TargetError) as error:
        print(f"jaxinit: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("jaxinit: interrupted", file=sys.stderr)
        return 130
    return 0


def _init(options: argparse.Namespace) -> None:
    report = needed("jaxinit.report")
    if options.out:
        installed(lambda: writer(options.out))
    with contextlib.redirect_stdout(sys.stderr):  # whatever the target prints
        init = init_function(load(options.target), options.inputs)
        if options.dtype is not None:
            init = rounded(init, options.dtype)
        key = jax.random.key(options.seed)
        plan = _expectations(options, init, key)
        outcome = _run(options.target, init, key)
    made = report.report(outcome.params, plan)
    if options.out:
        _save(options.out, outcome.params)
    if options.json:
        print(json.dumps(_as_json(options, outcome, made.rows)))
    else:
        _print(options, outcome, made)


def _expectations(options: argparse.Namespace, init: Any, key: jax.Array) -> Any:
    if options.rules is None:
        return None
    rules = load(options.rules)
    with _failing(options.target):
        shapes = jax.eval_shape(init, key)
    return expectations(options.rules, rules, shapes)


@dataclasses.dataclass(frozen=True)
class _Outcome:
    """What one run made and what it cost.

    Attributes:
        params: the arrays.
        programs: number of compiled programs.
        seconds: of each part of the run.
        peak_bytes: most memory that the process ever held; None if not known.
        extra_bytes: how much of it was not held before the run; None if not known.
    """

    params: Any
    programs: int
    seconds: dict[str, float]
    peak_bytes: int | None
    extra_bytes: int | None


def _run(name: str, init: Any, key: jax.Array) -> _Outcome:
    before = _memory("VmRSS")
    with _failing(name):
        programs, params, seconds = _compiled_and_run(init, key)
    peak = _memory("VmHWM")
    extra = None if peak is None or before is None else max(0, peak - before)
    return _Outcome(params, len(programs), seconds, peak, extra)


@contextlib.contextmanager
def _failing(name: str) -> Iterator[None]:
    """Says in one line why the target failed."""
    try:
        yield
    except TargetError:
        raise
    except Exception as error:
        line = one_line(error)
        raise CommandError(f"initialising {name} failed: {line}") from error


def _compiled_and_run(init: Any, key: jax.Array) -> tuple[Programs, Any, dict]:
    with _progress() as progress:
        task = progress.add_task("compiling", total=None)
        programs = jit(init).programs(key)
        progress.update(task, description="drawing", total=programs.bytes)
        start = time.perf_counter()
        params = programs.run(lambda size: progress.advance(task, size))
        jax.block_until_ready(params)
    return (
        programs,
        params,
        {
            "trace": programs.trace_seconds,
            "compile": programs.compile_seconds,
            "run": time.perf_counter() - start,
        },
    )


def _progress() -> Any:
    console = needed("rich.console").Console(stderr=True)
    bar = needed("rich.progress")
    return bar.Progress(
        bar.TextColumn("{task.description}"),
        bar.BarColumn(),
        bar.DownloadColumn(),
        bar.TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )


def _memory(field: str) -> int | None:
    """Bytes of a memory field of this process, or the nearest that the system tells.

    On Linux `ru_maxrss` would include the peak of the parent of the process.
    """
    with contextlib.suppress(OSError):
        status = Path("/proc/self/status").read_text()
        if match := re.search(rf"{field}:\s*(\d+) kB", status):
            return 1024 * int(match[1])
    try:
        import resource
    except ImportError:
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _save(path: Path, params: Any) -> None:
    try:
        save(path, params)
    except Exception as error:
        reason = getattr(error, "strerror", None) or one_line(error)
        raise CommandError(
            f"could not write {path}: {reason}; nothing was left behind"
        ) from error


def _as_json(options: argparse.Namespace, outcome: _Outcome, rows: Sequence) -> dict:
    return {
        "target": options.target,
        "seed": options.seed,
        "dtype": None if options.dtype is None else str(options.dtype),
        "rules": options.rules,
        "out": None if options.out is None else str(options.out),
        "rows": [_row_as_json(row) for row in rows],
        "parameters": sum(row.parameters for row in rows),
        "leaves": sum(row.leaves for row in rows),
        "bytes": sum(row.bytes for row in rows),
        "programs": outcome.programs,
        "seconds": outcome.seconds,
        "peak_bytes": outcome.peak_bytes,
        "extra_bytes": outcome.extra_bytes,
        "jax": jax.__version__,
        "device": jax.devices()[0].device_kind,
    }


def _row_as_json(row: Any) -> dict:
    values = dataclasses.asdict(row) | {"size": row.size, "scale": row.scale}
    return {name: _plain(value) for name, value in values.items()}


def _plain(value: Any) -> Any:
    """`value` as strict JSON has it: no complex numbers, no NaN, no infinity."""
    if isinstance(value, complex):
        return [value.real, value.imag]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def _print(options: argparse.Namespace, outcome: _Outcome, report: Any) -> None:
    console = needed("rich.console").Console(highlight=False)
    if not console.is_terminal:
        console.width = 200  # nothing to fit: fold no path in a file or a pipe
    console.print(report)
    console.print(*_totals(outcome, report.rows), sep="\n")
    if options.out:
        console.print(f"wrote {options.out}", soft_wrap=True)


def _totals(outcome: _Outcome, rows: Sequence) -> list[str]:
    parameters = sum(row.parameters for row in rows)
    leaves = sum(row.leaves for row in rows)
    size = sum(row.bytes for row in rows)
    seconds = outcome.seconds
    lines = [
        "",
        f"parameters: {parameters:,}; {_bytes(size)} in {leaves} arrays",
        f"programs: {outcome.programs}; trace {seconds['trace']:.2f} s, compile "
        f"{seconds['compile']:.2f} s, run {seconds['run']:.2f} s",
    ]
    if outcome.peak_bytes is not None and outcome.extra_bytes is not None:
        lines.append(
            f"peak memory: {_bytes(outcome.peak_bytes)}, "
            f"{_bytes(outcome.extra_bytes)} above the process before"
        )
    return lines


def _bytes(size: int) -> str:
    for unit, suffix in ((10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if size >= unit:
            return f"{size / unit:.2f} {suffix}"
    return f"{size} bytes"
