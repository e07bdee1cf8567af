"""An audit as text and as HTML: its rows, then its findings, then totals."""

import math
import textwrap
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from jaxinit._basics.names import short_dtype
from jaxinit._basics.table import Table, escaped, printable

_PROSE = 88  # characters of a line of prose, if there is room for more
_MOST_PATHS = 4  # that a finding lists
_WORST_FIRST = ("error", "warning", "note")


def table(rows: Sequence[Any], notes: Sequence[str] = ()) -> Table:
    """The rows of an audit, one line for each."""
    columns = {
        **_leading(rows),
        "law": [_law(row) for row in rows],
        "note": [row.note for row in rows],
    }
    return _of_columns(columns, notes)


def _leading(rows: Sequence[Any]) -> dict[str, list[str]]:
    """The columns that say what the leaves are."""
    return {
        "leaf": [row.path for row in rows],
        "": [_times(row) for row in rows],
        "shape": [_shape(row) for row in rows],
        "dtype": [short_dtype(row.dtype) for row in rows],
    }


def _of_columns(columns: Mapping[str, list[str]], notes: Sequence[str] = ()) -> Table:
    """A table of the columns in which there is something."""
    shown = {name: cells for name, cells in columns.items() if any(cells)}
    left = [i for i, name in enumerate(shown) if name]
    return Table(list(shown), list(zip(*shown.values(), strict=True)), left, notes)


def text(audit: Any, width: int | None = None) -> str:
    """All of an audit.

    Args:
        audit: the audit.
        width: characters of a line: a row that is longer is written in several; None
            for one line for each row.
    """
    if width is not None and width < 1:
        raise ValueError(f"width must be a positive number of characters, got {width}.")
    prose = _PROSE if width is None else min(width, _PROSE)
    whole = table(audit.rows).text()
    if width is not None and max(map(len, whole.splitlines())) > width:
        whole = "\n".join(_narrow(audit.rows, width))
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
    yield from _wrapped(f"{_head(finding)} {_listed(finding.paths)}", width)
    yield from _wrapped(printable(finding.text), width, "  ", "  ")


def _head(finding: Any) -> str:
    return f"{finding.severity}, {finding.kind}:"


def _listed(paths: Sequence[str]) -> str:
    """The paths of a finding; of many, the first ones."""
    shown = [printable(path) or "the array" for path in paths[:_MOST_PATHS]]
    more = len(paths) - len(shown)
    return ", ".join(shown) + (f" and {more:,} more" if more else "")


def _narrow(rows: Sequence[Any], width: int) -> Iterator[str]:
    """The rows in lines of a width: a law that does not fit stands below its leaf."""
    head, *firsts = _of_columns(_leading(rows)).text().splitlines()
    column = max(map(len, [head, *firsts])) + 2
    fits = column + len("law") <= width
    yield from [f"{head:{column}}law"] if fits else []
    for row, first in zip(rows, firsts, strict=True):
        said = printable(_said(row))
        if column + len(said) <= width:
            yield f"{first:{column}}{said}"
            continue
        yield from [first] if fits else _wrapped(" ".join(first.split()), width)
        yield from _wrapped(said, width, "    ", "      ")


def _said(row: Any) -> str:
    """The law and the note."""
    both = [row.law and _law(row), row.note]
    return ", ".join(text for text in both if text) or "-"


def _wrapped(words: str, width: int, first: str = "", others: str = "  ") -> list[str]:
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
