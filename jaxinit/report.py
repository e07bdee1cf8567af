"""Tables of parameters: what is in every leaf, and how far it is from the plan."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rich.console import Console, ConsoleOptions
from rich.table import Table as TextTable
from rich.text import Text

from jaxinit._basics.names import short_dtype
from jaxinit._basics.table import Table, printable
from jaxinit._rows import Row as Row
from jaxinit._rows import rows
from jaxinit._tree.plan import Plan, checked_plan


@dataclass(frozen=True)
class Report:
    """What is in a parameter tree: prints as a table, in HTML in notebooks.

    Attributes:
        rows: the leaves, repeated blocks folded.
    """

    rows: tuple[Row, ...]

    def worst_first(self) -> "Report":
        """The same rows: least likely by chance first, rows without a score last."""
        return replace(self, rows=tuple(sorted(self.rows, key=_badness)))

    def __rich_console__(self, console: Console, options: ConsoleOptions):
        yield _table(self.rows, options.max_width)

    def __str__(self):
        console = Console(width=200, color_system=None)
        with console.capture() as capture:
            console.print(self)
        return capture.get()

    __repr__ = __str__

    def _repr_html_(self) -> str:
        cells = _cells(self.rows)
        left = [i for i, name in enumerate(cells) if name in _TEXT]
        lines = list(zip(*cells.values(), strict=True))
        notes = [_total(self.rows)]
        return Table(list(cells), lines, left, notes, _marks(self.rows)).html()


def report(params: Any, plan: Plan | None = None) -> Report:
    """Says what is in every leaf of a tree and, given a plan, what was expected.

    Leaves fold into one row if their paths differ only in consecutive integers and they
    have the same shape, dtype and initializer and, if constant, the same value. Each
    array is measured on its device, in one pass, in float32 or wider; distinct values
    and spectral norms are computed on the host. If arrays span the processes of a
    multi-process program, call it in all of them: each gets the report of the whole
    arrays.

    Args:
        params: pytree of arrays; random keys are allowed. A mapping with the entry
            "params" is read as Flax collections.
        plan: the plan of all leaves, or of some.

    Returns:
        The report, in the order of the tree.

    Raises:
        PlanError: naming every leaf of the plan that the tree lacks, or that has
            another shape or dtype in it.
        TypeError: if a leaf is traced, or `plan` is not a plan.
        ValueError: if arrays span processes, and the other arrays differ between them.

    >>> import jax.numpy as jnp
    >>> tree = {f"block_{i}": {"bias": jnp.zeros(4)} for i in range(3)}
    >>> [(row.path, row.leaves, row.std) for row in report(tree).rows]
    [('block_{0..2}/bias', 3, 0.0)]
    """
    return Report(rows(params, plan if plan is None else checked_plan("plan", plan)))


def _badness(row: Row) -> tuple:
    if row.p is None or row.score is None:
        return (1, 0.0, 0.0)
    return (0, row.p, -row.score)


def _cells(rows: Sequence[Row]) -> dict[str, list[str]]:
    """The cells of every column that is not empty."""
    cells = {name: [text(row) for row in rows] for name, text in _COLUMNS.items()}
    return {
        name: column
        for name, column in cells.items()
        if name in _ALWAYS or set(column) - {"", "-"}
    }


def _fitting(cells: Mapping[str, list[str]], width: int) -> list[str]:
    """The columns that fit, if the leaf takes at most half of the width."""

    def needed(name):
        texts = [*cells[name], *name.split()]
        widest = max(len(text) for text in texts) if texts else 0
        return 1 + (min(widest, width // 2) if name == "leaf" else widest)

    shown = list(cells)
    for name in _LEFT_OUT_FIRST:
        if sum(map(needed, shown)) - 1 <= width:
            break
        if name in shown:
            shown.remove(name)
    return shown


def _table(rows: Sequence[Row], width: int) -> TextTable:
    """A table that fits."""
    cells, marks = _cells(rows), _marks(rows)
    shown = _fitting(cells, width - (len(_WRONG) + 1 if marks else 0))
    left_out = [name for name in cells if name not in shown]
    result = TextTable(
        box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold"
    )
    if left_out:
        result.caption = f"too narrow to show {', '.join(left_out)}"
        result.caption_justify = "left"
    for name in shown:
        result.add_column(
            name.replace(" ", "\n"),
            justify="left" if name in _TEXT else "right",
            no_wrap=name != "leaf",
            overflow="fold",
        )
    if marks:
        result.add_column("", no_wrap=True)
    for i in range(len(rows)):
        texts = [cells[name][i] for name in shown]
        if marks:
            texts.append(marks.get(i, ""))
        result.add_row(
            *map(Text, map(printable, texts)), style="bold red" if i in marks else ""
        )
    return result


def _marks(rows: Sequence[Row]) -> dict[int, str]:
    """Marks of rows that are not as expected, for those who see no colour."""
    return {i: _WRONG for i, row in enumerate(rows) if row.is_wrong}


def _rounded(value: complex | None, digits: int = 3) -> str:
    if value is None:
        return "-"
    if isinstance(value, complex) or not math.isfinite(value):
        return f"{value:.2g}"
    if value == int(value) and abs(value) < 1000:
        return str(int(value))
    style = "#.3g" if 1e-2 <= abs(value) < 1e4 else f".{digits - 1}e"
    text = f"{value:{style}}"
    return re.sub(r"e([+-])0*", lambda e: "e" + e[1].replace("+", ""), text).rstrip(".")


def _count(size: int) -> str:
    for unit, suffix in ((10**9, "B"), (10**6, "M"), (10**3, "k")):
        if size >= 0.9995 * unit:
            return f"{size / unit:#.3g}".rstrip(".") + suffix
    return str(size)


def _share(value: float | None) -> str:
    return "-" if value is None else f"{_rounded(100 * value)} %"


def _mean(value: complex | None) -> str:
    return _rounded(value, digits=2)


def _total(rows: Sequence[Row]) -> str:
    leaves, size = sum(row.leaves for row in rows), sum(row.bytes for row in rows)
    parameters = sum(row.parameters for row in rows)
    return f"{leaves} leaves, {parameters:,} parameters, {size:,} bytes"


# Titles of columns, and the text of a row in them.
_COLUMNS: dict[str, Callable[[Row], str]] = {
    "leaf": lambda row: row.path,
    "": lambda row: f"x{row.leaves}" if row.leaves > 1 else "",
    "shape": lambda row: "x".join(map(str, row.shape)) or "()",
    "dtype": lambda row: short_dtype(row.dtype),
    "size": lambda row: _count(row.size),
    "law": lambda row: row.law or "-",
    "expected mean": lambda row: _mean(row.expected_mean),
    "mean": lambda row: _mean(row.mean),
    "expected std": lambda row: _rounded(row.expected_std),
    "std": lambda row: _rounded(row.std),
    "score": lambda row: "-" if row.score is None else f"{row.score:.1f}",
    "scale": lambda row: _rounded(row.scale),
    "min": lambda row: _rounded(row.low),
    "max": lambda row: _rounded(row.high),
    "zeros": lambda row: _share(row.zeros),
    "distinct": lambda row: "-" if row.distinct is None else str(row.distinct),
    "norm": lambda row: _rounded(row.spectral_norm),
}
_TEXT = ("leaf", "law")
_WRONG = "wrong"
_ALWAYS = ("leaf", "", "shape", "dtype", "size", "mean", "std")
_LEFT_OUT_FIRST = (
    "norm",
    "distinct",
    "zeros",
    "max",
    "min",
    "scale",
    "expected mean",
    "law",
    "size",
    "mean",
)
