"""The command `jaxinit init module:name`."""

import argparse
import contextlib
import dataclasses
import io
import json
import math
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax

from jaxinit._cli import arguments, completion
from jaxinit._cli.checkpoint import save, writer
from jaxinit._cli.errors import CommandError, failing, installed, needed, writing
from jaxinit._cli.target import expectations, init_function, load, one_line, rounded
from jaxinit._compile.jit import Programs, jit

_MOST_NAMED = 8  # leaves that an error names

_EXAMPLES = """examples:
  jaxinit init examples.gpt2:small
  jaxinit init examples.gpt2:GPT2 --input 1x8:int32 --dtype bfloat16
  jaxinit init examples.gpt2_nnx:small --out gpt2.safetensors
"""


def add(commands: Any) -> None:
    """Adds the command to a parser."""
    parser = arguments.add_command(
        commands,
        "init",
        "initialise a model, and print a table of its parameters",
        "Initialises a model and prints a table of its parameters, with equal blocks "
        "in one row; then parameters, bytes, programs, seconds and memory.",
        _EXAMPLES,
    )
    target = parser.add_argument(
        "target",
        metavar="module:name",
        help="a Flax Linen module (class or instance), a class or function that takes "
        "rngs and makes a Flax NNX module, or any function of a key that returns the "
        "parameters",
    )
    completion.complete(target, completion.targets)
    what = "shape and dtype of what a Linen module is called on, such as 1x8:int32"
    arguments.add_draw(parser, what, default=[])
    arguments.add_dtype(parser)
    rules = parser.add_argument(
        "--rules",
        metavar="MODULE:NAME",
        help="rules that the parameters should follow, jaxinit.Rules or a mapping of "
        "path patterns to initializers: print what the rules expect, and how far the "
        "parameters are from it",
    )
    completion.complete(rules, completion.targets)
    parser.add_argument(
        "--out",
        type=arguments.new_path,
        metavar="PATH",
        help="write the parameters to a new .safetensors file or, with any other name, "
        "to a new Orbax checkpoint",
    )
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object instead of a table"
    )
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> None:
    report = needed("jaxinit.report")
    if options.out:
        installed(lambda: writer(options.out))
    doing = f"initialising {options.target}"
    # The target may print, and standard output is for the report.
    with contextlib.redirect_stdout(sys.stderr), failing(doing):
        init = init_function(load(options.target), options.inputs, options.keywords)
        if options.dtype is not None:
            init = rounded(init, options.dtype)
        key = jax.random.key(options.seed)
        plan = _expectations(options, init, key)
        outcome = _outcome(init, key)
    with failing(f"measuring what {options.target} made"):
        table = report.report(outcome.params, plan)
    wrong = [row for row in table.rows if _is_not_finite(row)]
    if options.out and not wrong:
        _save(options.out, outcome.params)
    with writing():
        if options.json:
            print(json.dumps(_as_json(options, outcome, table.rows, wrong)))
        else:
            print(_as_text(options, outcome, table, wrong))
    if wrong:
        raise CommandError(_not_finite(wrong, options))


def _expectations(options: argparse.Namespace, init: Any, key: jax.Array) -> Any:
    if options.rules is None:
        return None
    rules = load(options.rules)
    return expectations(options.rules, rules, jax.eval_shape(init, key))


def _is_not_finite(row: Any) -> bool:
    """Whether parameters have NaN or infinite entries, or other state has NaN.

    Infinite entries of other state may be meant, as in a mask.
    """
    if row.parameters:
        return bool(row.nonfinite)
    return row.low is not None and math.isnan(row.low)


def _not_finite(rows: Sequence[Any], options: argparse.Namespace) -> str:
    named = [
        f"{row.path} ({row.nonfinite:,} of {row.size:,} entries)"
        for row in rows[:_MOST_NAMED]
    ]
    if len(rows) > _MOST_NAMED:
        named.append(f"and {len(rows) - _MOST_NAMED} more")
    unwritten = f"; {options.out} was not written" if options.out else ""
    return f"not finite: {', '.join(named)}{unwritten}"


@dataclasses.dataclass(frozen=True)
class _Outcome:
    """The arrays of one run, and its cost.

    Attributes:
        params: the arrays.
        programs: number of compiled programs.
        seconds: time of each part of the run.
        peak_bytes: most memory that the process ever held; None if not known.
        extra_bytes: how much more that is than before the run; None if not known.
    """

    params: Any
    programs: int
    seconds: dict[str, float]
    peak_bytes: int | None
    extra_bytes: int | None


def _outcome(init: Any, key: jax.Array) -> _Outcome:
    before = _memory("VmRSS")
    programs, params, seconds = _compiled_and_run(init, key)
    peak = _memory("VmHWM")
    extra = None if peak is None or before is None else max(0, peak - before)
    return _Outcome(params, len(programs), seconds, peak, extra)


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
    """A memory field of this process, in bytes; its peak where there is no /proc.

    On Linux, `ru_maxrss` would include the peak of the parent process.
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


def _as_json(
    options: argparse.Namespace, outcome: _Outcome, rows: Sequence, wrong: Sequence
) -> dict:
    return {
        "target": options.target,
        "args": {name: repr(x) for name, x in options.keywords.items()},
        "seed": options.seed,
        "dtype": None if options.dtype is None else str(options.dtype),
        "rules": options.rules,
        "out": None if options.out is None or wrong else str(options.out),
        "not_finite": [row.path for row in wrong],
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
    return {name: _strict_json(value) for name, value in values.items()}


def _strict_json(value: Any) -> Any:
    """A value that strict JSON has: no complex numbers, no NaN, no infinity."""
    if isinstance(value, complex):
        return [value.real, value.imag]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def _as_text(
    options: argparse.Namespace, outcome: _Outcome, report: Any, wrong: Sequence
) -> str:
    console = _console(io.StringIO())
    console.print(report)
    console.print(*_totals(outcome, report.rows), sep="\n")
    if options.out and not wrong:
        console.print(f"wrote {options.out}", soft_wrap=True)
    return console.file.getvalue().removesuffix("\n")


def _console(file: io.StringIO) -> Any:
    """A console that writes to `file` in the width and colours of standard output."""
    make = needed("rich.console").Console
    shown = make()
    return make(
        file=file,
        highlight=False,
        force_terminal=shown.is_terminal,
        color_system=shown.color_system,
        # A file or a pipe has no width, so that no path needs folding.
        width=shown.width if shown.is_terminal else 200,
    )


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
