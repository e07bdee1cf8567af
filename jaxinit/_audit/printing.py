"""An audit as text and as HTML: its rows, then its findings, then totals."""

import math
import textwrap
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from jaxinit._basics.names import short_dtype
from jaxinit._basics.table import Table, escaped, printable

_PROSE = 88  # characters of a line of prose, if there is room for more
_MOST_PATHS = 4  # that a finding lists
_WORST_FIRST = ("error", "warning", "note")


def table(rows: Sequence[Any], notes: Sequence[str] = ()) -> Table:
    """The rows of an audit, one line for each."""
    columns = {
        "leaf": [row.path for row in rows],
        "": [_times(row) for row in rows],
        "shape": [_shape(row) for row in rows],
        "dtype": [short_dtype(row.dtype) for row in rows],
        "law": [_law(row) for row in rows],
        "note": [row.note for row in rows],
    }
    shown = {name: cells for name, cells in columns.items() if name or any(cells)}
    if not any(columns["note"]):
        del shown["note"]
    left = [i for i, name in enumerate(shown) if name]
    return Table(list(shown), list(zip(*shown.values(), strict=True)), left, notes)


def text(audit: Any, width: int | None = None) -> str:
    """All of an audit.

    Args:
        audit: the audit.
        width: characters of a line: a row that is longer is written in several; None
            for one line for each row.
    """
    prose = _PROSE if width is None else min(width, _PROSE)
    whole = table(audit.rows).text()
    if width is not None and max(map(len, whole.splitlines())) > width:
        whole = "\n".join(line for x in audit.rows for line in _paragraph(x, width))
    found = [line for x in audit.findings for line in _finding(x, prose)]
    last = textwrap.wrap(totals(audit), prose)
    return "\n".join([whole, "", *found, *([""] if found else []), *last])


def html(audit: Any) -> str:
    """All of an audit: a table, and a list below it."""
    items = "".join(
        f"<li><b>{escaped(_head(x))}</b> {escaped(_listed(x.paths))}<br>"
        f"{escaped(printable(x.text))}</li>"
        for x in audit.findings
    )
    below = f"<ul>{items}</ul>" if items else ""
    return table(audit.rows, [totals(audit)]).html() + below


def totals(audit: Any) -> str:
    """How much was looked at, and how much was found."""
    parameters = sum(
        row.leaves * math.prod(row.shape)
        for row in audit.rows
        if row.dtype.startswith(("float", "bfloat", "complex"))
    )
    classes = counted(len(audit.rows), "class", "classes")
    counts = Counter(x.severity for x in audit.findings)
    found = [counted(counts[x], x) for x in _WORST_FIRST if counts[x]]
    return (
        f"{classes} of leaves, {counted(parameters, 'parameter')}; "
        f"{', '.join(found) or 'nothing to report'}"
    )


def counted(number: int, one: str, many: str = "") -> str:
    """A number of things.

    >>> counted(1, "note"), counted(2000, "note"), counted(2, "class", "classes")
    ('1 note', '2,000 notes', '2 classes')
    """
    return f"{number:,} {one if number == 1 else many or f'{one}s'}"


def line(finding: Any) -> str:
    """A finding on one line."""
    paths = _listed(finding.paths)
    return f"{paths}: {finding.severity}, {finding.kind}: {printable(finding.text)}"


def _finding(finding: Any, width: int) -> Iterator[str]:
    yield from _wrapped(f"{_head(finding)} {_listed(finding.paths)}", width, "", "  ")
    yield from _wrapped(printable(finding.text), width, "  ", "  ")


def _head(finding: Any) -> str:
    return f"{finding.severity}, {finding.kind}:"


def _listed(paths: Sequence[str]) -> str:
    """The paths of a finding; of many, the first ones."""
    shown = [printable(path) or "the array" for path in paths[:_MOST_PATHS]]
    more = len(paths) - len(shown)
    return ", ".join(shown) + (f" and {more:,} more" if more else "")


def _paragraph(row: Any, width: int) -> Iterator[str]:
    """A row in lines of a width: the leaf, and the law below it."""
    cells = [row.path, _times(row), _shape(row), short_dtype(row.dtype)]
    first = "  ".join(printable(cell) for cell in cells if cell)
    yield from _wrapped(first, width, "", "  ")
    said = [cell for cell in (row.law and _law(row), row.note) if cell]
    yield from _wrapped(printable("; ".join(said) or "no law"), width, "  ", "    ")


def _wrapped(words: str, width: int, first: str, others: str) -> list[str]:
    """Lines; a path that is longer than a line is not cut, so that it can be copied."""
    return textwrap.wrap(
        words,
        width,
        initial_indent=first,
        subsequent_indent=others,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _times(row: Any) -> str:
    return f"x{row.leaves}" if row.leaves > 1 else ""


def _shape(row: Any) -> str:
    return "x".join(map(str, row.shape)) or "()"


def _law(row: Any) -> str:
    if row.law is None:
        return "-"
    return row.law if row.sure else f"perhaps {row.law}"
