"""A plan as a table: plain text, and HTML for notebooks."""

import math
from collections.abc import Container, Hashable, Iterable, Sequence
from typing import TYPE_CHECKING

from jaxinit._tree.folding import fold

if TYPE_CHECKING:
    from jaxinit._tree.plan import PlannedLeaf

_HEAD: tuple[str, ...]
_HEAD = ("leaf", "", "shape", "dtype", "initializer", "fan_in", "fan_out", "std")
_TEXT_COLUMNS = (0, 4, 8)  # aligned to the left; all others are numbers


def _rows(leaves: Sequence["PlannedLeaf"]) -> tuple[list[str], list[list[str]]]:
    """The head and one row for each group of equal leaves."""
    kinds = [(x.shape, x.dtype, x.initializer, x.sharding) for x in leaves]
    head = list(_HEAD)
    if any(leaf.sharding is not None for leaf in leaves):
        head.append("sharding")
    known: dict[Hashable, list[str]] = {}
    rows = []
    for path, members in fold([leaf.path for leaf in leaves], kinds):
        kind = kinds[members[0]]
        if kind not in known:
            known[kind] = _cells(leaves[members[0]])
        count = f"x{len(members)}" if len(members) > 1 else ""
        rows.append([path, count, *known[kind]][: len(head)])
    return head, rows


def _cells(leaf: "PlannedLeaf") -> list[str]:
    """What all leaves of a kind have in common."""
    fan_in, fan_out = leaf.fans or (None, None)
    return [
        "x".join(map(str, leaf.shape)) or "()",
        str(leaf.dtype),
        repr(leaf.initializer),
        _number(fan_in),
        _number(fan_out),
        _number(leaf.std),
        str(getattr(leaf.sharding, "spec", leaf.sharding or "")),
    ]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _total(leaves: Iterable["PlannedLeaf"]) -> str:
    leaves = list(leaves)
    count = sum(math.prod(leaf.shape) for leaf in leaves)
    size = sum(leaf.bytes for leaf in leaves)
    return f"{len(leaves)} leaves, {count:,} parameters, {size:,} bytes"


def as_text(leaves: Sequence["PlannedLeaf"]) -> str:
    """The table in columns of plain text, and the totals."""
    head, rows = _rows(leaves)
    return "\n".join([*aligned([head, *rows], _TEXT_COLUMNS), _total(leaves)])


def aligned(rows: Sequence[Sequence[str]], text_columns: Sequence[int]) -> list[str]:
    """Rows of cells as lines: columns of text to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if i in text_columns else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def as_html(leaves: Sequence["PlannedLeaf"]) -> str:
    """The table in HTML, and the totals."""
    head, rows = _rows(leaves)
    return html_table(head, rows, _TEXT_COLUMNS, _total(leaves))


def html_table(
    head: Sequence[str],
    rows: Iterable[Sequence[str]],
    left: Container[int],
    caption: str,
) -> str:
    """A table in HTML.

    Args:
        head: titles of the columns.
        rows: text of the cells.
        left: the columns aligned to the left.
        caption: a line of text below the table.
    """
    import html  # not needed to import jaxinit

    def line(tag, cells):
        sides = ("left" if i in left else "right" for i in range(len(head)))
        aligned = (
            f'<{tag} style="text-align: {side}">{html.escape(cell)}</{tag}>'
            for side, cell in zip(sides, cells, strict=True)
        )
        return f"<tr>{''.join(aligned)}</tr>"

    below = f'<caption style="caption-side: bottom">{html.escape(caption)}</caption>'
    body = "".join(line("td", cells) for cells in rows)
    return f"<table>{below}{line('th', head)}{body}</table>"
