"""The result of a check, as values: what was compared, what differs, and times."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from jaxinit._basics.table import Table, Tabular


@dataclass(frozen=True)
class Difference:
    """Where an array is not that of jax.

    Attributes:
        case: what was drawn: "float32 (3, 5)" for an array, a name for a function.
        path: path of the array in a tree of several; "" for an array.
        index: position of the first entry that differs; None if arrays do not have the
            same shape and dtype, or one could not be drawn.
        ours: this entry, or what else there is in its place, such as an error.
        jax: the same of jax.
        entries: number of entries that differ; 0 without an index.
        size: number of entries of the array.
    """

    case: str
    path: str
    index: tuple[int, ...] | None
    ours: str
    jax: str
    entries: int = 0
    size: int = 0

    def __str__(self) -> str:
        where = " ".join(filter(None, [self.case, self.path]))
        if self.index is None:
            return f"{where}: got {self.ours}, jax has {self.jax}"
        return (
            f"{where}: {self.entries:,} of {self.size:,} entries differ, the first at "
            f"{self.index}: got {self.ours}, jax has {self.jax}"
        )


@dataclass(frozen=True)
class CheckRow:
    """What was compared with jax, and how many cases of it differ.

    Attributes:
        part: which part of the check it is of, one of `PARTS`.
        what: what was drawn, such as `normal()`.
        cases: number of cases that were compared.
        different: how many of them differ.
        seconds: time that they took, of which nearly all is compiling.
        first: the first difference; None if there is none.
        note: why nothing was compared, such as a package that is not installed.
    """

    part: str
    what: str
    cases: int
    different: int
    seconds: float
    first: Difference | None = None
    note: str = ""

    @property
    def result(self) -> str:
        """All of it in a word or two."""
        if self.note:
            return self.note
        return f"{self.different:,} different" if self.different else "equal"


@dataclass(frozen=True)
class Timing:
    """How long one float32 array takes, in fresh memory each call.

    Attributes:
        what: what is drawn, or "fill" for one that is filled with a number.
        shape: its shape.
        ours: median of seconds here; None for a fill.
        jax: median of seconds of jitted jax.
        ratio: how many times as fast this is as jax: the median over pairs of calls,
            one right after the other; None for a fill.
    """

    what: str
    shape: tuple[int, ...]
    ours: float | None
    jax: float
    ratio: float | None


@dataclass(frozen=True)
class Check(Tabular):
    """What `check` found: prints as a table.

    Attributes:
        device: kind of the device.
        platform: its platform, such as "gpu".
        versions: versions of jax, jaxlib and jaxinit.
        seed: seed of the key that all was drawn with.
        lacking: narrow dtypes that the device, or this jax, cannot round to.
        rows: what was compared.
        timings: what was timed.
    """

    device: str
    platform: str
    versions: dict[str, str]
    seed: int
    lacking: tuple[str, ...]
    rows: tuple[CheckRow, ...]
    timings: tuple[Timing, ...]

    @property
    def cases(self) -> int:
        """Number of cases that were compared."""
        return sum(row.cases for row in self.rows)

    @property
    def different(self) -> int:
        """Number of cases that differ."""
        return sum(row.different for row in self.rows)

    def as_json(self) -> dict[str, Any]:
        """All of it in lists, dictionaries, numbers and text."""
        return {
            "device": self.device,
            "platform": self.platform,
            "versions": dict(self.versions),
            "seed": self.seed,
            "lacking": list(self.lacking),
            "cases": self.cases,
            "different": self.different,
            "rows": [_listed(asdict(row)) for row in self.rows],
            "timings": [_listed(asdict(timing)) for timing in self.timings],
        }

    def text(self, width: int) -> str:
        """All of it for `width` characters: one line for each cell if rows are longer.

        Args:
            width: characters of a line; what is said of a difference may be longer.
        """
        tables = [table.fitted(width) for table in self._tables()]
        return self._joined(tables)

    def __str__(self) -> str:
        return self._joined([table.text() for table in self._tables()])

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        tables = [table.html() for table in self._tables()]
        first, *rest = tables or [""]
        head = Table([self._head()], [], notes=[self._total()]).html()
        return head + first + "".join(rest)

    def _joined(self, tables: Sequence[str]) -> str:
        return "\n\n".join([self._head(), *tables, self._total()])

    def _head(self) -> str:
        versions = ", ".join(f"{name} {of}" for name, of in self.versions.items())
        return f"{self.device} ({self.platform}), {versions}, seed {self.seed}"

    def _tables(self) -> list[Table]:
        both = [_compared(self.rows)] if self.rows else []
        return [*both, _timed(self.timings)] if self.timings else both

    def _total(self) -> str:
        lacks = ", ".join(self.lacking)
        note = f"; no {lacks} on this device" if lacks else ""
        if not self.cases:
            return f"nothing was compared{note}"
        result = f"{self.different:,} differ" if self.different else "all equal"
        return f"{self.cases:,} cases, {result}{note}"


def _compared(rows: Sequence[CheckRow]) -> Table:
    cells = [
        (row.part, row.what, f"{row.cases:,}", row.result, f"{row.seconds:.1f}")
        for row in rows
    ]
    notes = [f"{row.what}, {row.first}" for row in rows if row.first is not None]
    head = ("part", "what", "cases", "result", "seconds")
    return Table(head, cells, left=(0, 1, 3), notes=notes)


def _timed(timings: Sequence[Timing]) -> Table:
    cells = [
        (
            timing.what,
            "x".join(map(str, timing.shape)),
            _milliseconds(timing.ours),
            _milliseconds(timing.jax),
            "-" if timing.ratio is None else f"{timing.ratio:.2f}x",
        )
        for timing in timings
    ]
    return Table(("float32", "shape", "ms", "jax ms", "faster"), cells, left=(0, 1))


def _milliseconds(seconds: float | None) -> str:
    return "-" if seconds is None else f"{1e3 * seconds:.2f}"


def _listed(value: Any) -> Any:
    """The value with lists for tuples."""
    if isinstance(value, dict):
        return {name: _listed(each) for name, each in value.items()}
    return list(value) if isinstance(value, tuple) else value
