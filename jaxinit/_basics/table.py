"""Tables: rows of cells as plain text, and as HTML for notebooks, in one style."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

_TABLE = "border-collapse: collapse; font-variant-numeric: tabular-nums"
_CELL = "padding: 0.2em 0.8em; white-space: nowrap"
_HEAD = "; border-bottom: 1px solid; vertical-align: bottom"
_MARKED = "background-color: rgba(213, 94, 0, 0.2)"  # on white as on black


@dataclass(frozen=True)
class Table:
    """Rows of cells with a head.

    Attributes:
        head: titles of the columns.
        rows: the text of the cells of each row.
        left: columns aligned to the left, as words are; all others are numbers.
        notes: lines below the table.
        marks: what is wrong with a row, by its position: said in a last column, and
            told by colour where there are colours.
    """

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    left: Collection[int] = (0,)
    notes: Sequence[str] = ()
    marks: Mapping[int, str] = field(default_factory=dict)

    def text(self) -> str:
        """The table in columns of plain text, the notes below."""
        lines = self._lines()
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        table = [
            "  ".join(
                cell.ljust(width) if self._is_left(i) else cell.rjust(width)
                for i, (cell, width) in enumerate(zip(line, widths, strict=True))
            ).rstrip()
            for line in lines
        ]
        return "\n".join([*table, *self.notes])

    def fitted(self, width: int) -> str:
        """The text for lines of `width` characters; cell by cell if rows do not fit.

        Args:
            width: characters of a line; notes may be longer.
        """
        text = self.text()
        if max(map(len, text.splitlines()[: len(self.rows) + 1])) <= width:
            return text
        lines = []
        for i, row in enumerate(self.rows):
            cells = zip(self.head[1:], row[1:], strict=True)
            inside = [f"  {title}: {cell}" for title, cell in cells]
            mark = [f"  {self.marks[i]}"] if i in self.marks else []
            lines += [row[0], *inside, *mark]
        short = (x if len(x) <= width else f"{x[: width - 1]}…" for x in lines)
        return "\n".join([*short, *self.notes])

    def html(self) -> str:
        """The table in HTML, the notes below."""
        head, *body = self._lines()
        below = "<br>".join(map(escaped, self.notes))
        caption = f'<caption style="caption-side: bottom">{below}</caption>'
        rows = "".join(self._html_row("td", "", *row) for row in enumerate(body))
        return (
            f'<table style="{_TABLE}">{caption if below else ""}'
            f"<thead>{self._html_row('th', _HEAD, -1, head)}</thead>"
            f"<tbody>{rows}</tbody></table>"
        )

    def _lines(self) -> list[Sequence[str]]:
        """The head and the rows, with the marks, each cell on one line."""
        lines = [self.head, *self.rows]
        if self.marks:
            marks = ["", *(self.marks.get(i, "") for i in range(len(self.rows)))]
            lines = [[*line, mark] for line, mark in zip(lines, marks, strict=True)]
        return [[*map(printable, line)] for line in lines]

    def _is_left(self, column: int) -> bool:
        return column in self.left or column == len(self.head)

    def _html_row(self, tag: str, style: str, row: int, cells: Sequence[str]) -> str:
        sides = ("left" if self._is_left(i) else "right" for i in range(len(cells)))
        style = f"{_CELL}{style}; text-align"
        filled = "".join(
            f'<{tag} style="{style}: {side}">{escaped(cell)}</{tag}>'
            for side, cell in zip(sides, cells, strict=True)
        )
        colour = f' style="{_MARKED}"' if row in self.marks else ""
        return f"<tr{colour}>{filled}</tr>"


def printable(text: str) -> str:
    """The text with line breaks and other control characters escaped."""
    if text.isprintable():
        return text
    return "".join(
        x if x.isprintable() else x.encode("unicode_escape").decode() for x in text
    )


def escaped(text: str) -> str:
    """The text as HTML shows it."""
    import html  # not needed to import jaxinit

    return html.escape(text)


class Tabular:
    """What is printed as a table, and shown as one in notebooks."""

    def _table(self) -> Table:
        raise NotImplementedError

    def __str__(self) -> str:
        return self._table().text()

    def text(self, width: int) -> str:
        """The table for `width` characters: one line for each cell if rows are longer.

        Args:
            width: characters of a line.
        """
        return self._table().fitted(width)

    def _repr_html_(self) -> str:
        return self._table().html()
