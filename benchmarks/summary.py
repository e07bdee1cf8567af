"""The README's table of ratios, made from the last results."""

import statistics
from collections.abc import Callable

from benchmarks import arrays, cold, depth, models, onepass
from benchmarks.harness import ROOT, Table, load, numbers, ratio, slug

README = ROOT / "README.md"
BEGIN, END = "<!-- measured: begin -->\n", "<!-- measured: end -->\n"
_EMPTY = "Not measured yet: run `python -m benchmarks`, then the same with `readme`.\n"


def write():
    """Puts the table between the README's two marks."""
    before, _, rest = README.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not end:
        raise ValueError(f"{README} has not the lines {BEGIN!r} and {END!r}")
    README.write_text(before + BEGIN + text() + END + after)
    return README


def text() -> str:
    """The table and what it was measured on, as Markdown."""
    results = {
        (name, _column(result)): result
        for name in dict.fromkeys(name for name, _, _ in _FIGURES)
        for result in load(name)
    }
    columns = sorted({x for _, x in results}, key=lambda x: (x[0], numbers(x[1])))
    if not columns:
        return _EMPTY
    rows = (
        (title, *(_cell(results.get((name, column)), figure) for column in columns))
        for name, title, figure in _FIGURES
    )
    lines = [row for row in rows if any(row[1:])]
    is_one = len({processor for processor, _ in columns}) == 1
    head = [f"jax {v}" if is_one else f"{name}, jax {v}" for name, v in columns]
    taken = sorted(results.values(), key=lambda result: result["taken"])
    newest = {_column(result): result for result in taken}
    machines = {f"{one['device']}, {one['processor']}" for one in newest.values()}
    title = f"Measured on {'; '.join(sorted(machines))}."
    return f"{Table(title, ('', *head), lines)}\n"


def _column(result: dict) -> tuple[str, str]:
    """The processor and the version of jax that a result was taken with."""
    return slug(result["processor"]), result["versions"]["jax"]


def _cell(result: dict | None, figure: Callable[[list[dict]], str]) -> str:
    if result is None:
        return ""
    try:
        return figure(result["rows"])
    except StopIteration:  # a method that was not installed
        return ""


def _seconds(rows: list[dict], **where: str) -> list[float]:
    row = next(row for row in rows if where.items() <= row.items())
    return row["seconds"]


def _array(law: str, other: str) -> Callable[[list[dict]], str]:
    def figure(rows):
        ours = _seconds(rows, law=law, method=arrays.OURS)
        return f"{ratio(_seconds(rows, law=law, method=other), ours):.1f}x"

    return figure


def _models(rows: list[dict]) -> str:
    return " / ".join(
        f"{ratio(_seconds(rows, framework=name, method=models.JITTED), ours):.1f}x"
        for name in models.FRAMEWORKS
        for ours in [_seconds(rows, framework=name, method=models.OURS)]
    )


def _cold_seconds(rows: list[dict]) -> str:
    return " / ".join(
        f"{statistics.median(_seconds(rows, framework='linen', method=method)):.1f} s"
        for method in (models.JITTED, models.EAGER, models.OURS)
    )


def _memory(rows: list[dict]) -> str:
    def peak(method):
        wanted = {"framework": "linen", "method": method}
        row = next(row for row in rows if wanted.items() <= row.items())
        return statistics.median(row["extra_bytes"]) / row["bytes"][0]

    return " / ".join(
        f"{peak(method):.2f}" for method in (models.JITTED, models.EAGER, models.OURS)
    )


def _depth(rows: list[dict]) -> str:
    ours = [row for row in rows if row["method"] == depth.OURS]
    deepest, shallowest = (depth.median(row, "compile") for row in (ours[-1], ours[0]))
    return f"{deepest / shallowest:.2f}"


def _import(rows: list[dict]) -> str:
    return f"{1e3 * statistics.median(row['jaxinit'] for row in rows):.0f} ms"


def _one_pass(method: str, part: str) -> Callable[[list[dict]], str]:
    def figure(rows):
        taken = {row["method"]: row["taken"] for row in rows}
        seconds = {
            name: [one[part] for one in taken[name]] for name in (onepass.NAIVE, method)
        }
        return f"{ratio(seconds[onepass.NAIVE], seconds[method]):.1f}x"

    return figure


def _cold(other: str) -> Callable[[list[dict]], str]:
    def figure(rows):
        ratios = cold.ratios(rows)[other]
        return f"{statistics.geometric_mean(ratios):.1f}x ({min(ratios):.2f}x)"

    return figure


def _scale(rows: list[dict]) -> str:
    seconds = [
        statistics.median(
            one["plan"] + one["trace"] + one["compile"] for one in row["taken"]
        )
        for row in rows
    ]
    return " / ".join(f"{value:.0f} s" for value in seconds)


_SIDE = "float32 (4096, 4096)"
_GPT = "GPT, 48 blocks, cold"
_FIGURES = (
    ("arrays", f"`normal`, {_SIDE}, against jitted jax", _array("normal", arrays.JAX)),
    ("arrays", "`uniform`, the same", _array("uniform", arrays.JAX)),
    (
        "arrays",
        "`truncated_normal`, the same",
        _array("truncated_normal", arrays.JAX),
    ),
    ("arrays", "`normal`, against torch's `normal_`", _array("normal", arrays.TORCH)),
    (
        "models",
        f"{_GPT}, Flax Linen: `jax.jit` / eager / `jaxinit.jit`",
        _cold_seconds,
    ),
    ("models", "peak memory over parameter bytes, in the same order", _memory),
    (
        "models",
        "`jaxinit.jit` against `jax.jit` in Linen / NNX / Haiku / Equinox",
        _models,
    ),
    (
        "cold",
        "small models, cold, against `jax.jit`: geometric mean (least)",
        _cold(cold.JITTED),
    ),
    ("cold", "the same, against eager", _cold(cold.EAGER)),
    ("depth", "compile time of 96 blocks over that of 12", _depth),
    (
        "onepass",
        "290 leaves by rules, compiled: one `jax.jit(plan.init)` against a loop",
        _one_pass(onepass.ONE_PASS, "compile"),
    ),
    (
        "onepass",
        "the same, until the parameters are there",
        _one_pass(onepass.ONE_PASS, "total"),
    ),
    ("onepass", "the same, `plan.init`", _one_pass(onepass.PROGRAMS, "total")),
    (
        "scale",
        "planning and compiling Llama 3 405B / DeepSeek-V3 671B for 512 devices",
        _scale,
    ),
    ("imports", "`import jaxinit` after `import jax`", _import),
)
