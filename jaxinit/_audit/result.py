"""The result of an audit, as values: a row for each class of leaves, and findings."""

import math
from dataclasses import asdict, dataclass
from typing import Any

from jaxinit._audit import printing
from jaxinit._basics.table import Table, Tabular

KINDS = (
    "equal",
    "multiple",
    "symmetric",
    "not-finite",
    "biased",
    "few-values",
    "fans",
    "fused",
    "stacked",
    "scale",
    "embedding",
    "no-gradient",
    "depth",
    "alone",
)
SEVERITIES = ("note", "warning", "error")


@dataclass(frozen=True)
class Finding:
    """Something in the parameters that should be known or mended.

    Attributes:
        kind: what it is, one of `KINDS`.
        paths: the leaves that it is about, repeated blocks folded.
        severity: "note" for what may be meant, "warning" for what probably is not,
            "error" for what stops a model from learning as it should.
        text: what was seen, why it matters and what to do.
    """

    kind: str
    paths: tuple[str, ...]
    severity: str
    text: str


@dataclass(frozen=True)
class AuditRow:
    """Leaves of one class, and the law that they seem to have.

    Attributes:
        path: path of the leaves, with runs of integers folded: `blocks_{0..11}/kernel`.
        leaves: number of leaves.
        shape: shape of each leaf.
        dtype: name of the dtype.
        law: the law that they seem to have, as the expression of an initializer of
            this package; None if no law fits, or none can be told.
        sure: whether every other law that is known is at least 10,000 times less
            likely, and the entries look like draws of this one.
        odds: how many times likelier the law is than the next one; infinite for what
            holds exactly; None without a law.
        p: p-value of the entries under the law; 1 for what holds exactly.
        note: what else there is to say, such as the next law, or why there is none.
    """

    path: str
    leaves: int
    shape: tuple[int, ...]
    dtype: str
    law: str | None = None
    sure: bool = False
    odds: float | None = None
    p: float | None = None
    note: str = ""


@dataclass(frozen=True)
class Audit(Tabular):
    """What initialization a tree of parameters has: prints as a table and a list.

    Attributes:
        rows: the leaves, repeated blocks folded, in the order of the tree.
        findings: what should be known or mended, the most severe first.
    """

    rows: tuple[AuditRow, ...]
    findings: tuple[Finding, ...]

    def at_least(self, severity: str) -> tuple[Finding, ...]:
        """The findings of a severity, or of a worse one.

        Args:
            severity: "note", "warning" or "error".

        Raises:
            ValueError: if it is none of these.
        """
        if severity not in SEVERITIES:
            raise ValueError(
                f"severity must be one of {', '.join(SEVERITIES)}, got {severity!r}."
            )
        worse = SEVERITIES[SEVERITIES.index(severity) :]
        return tuple(x for x in self.findings if x.severity in worse)

    def as_json(self) -> dict[str, Any]:
        """All of it in lists, dictionaries, numbers and text."""
        return {
            "rows": [_row_as_json(row) for row in self.rows],
            "findings": [{**asdict(x), "paths": list(x.paths)} for x in self.findings],
        }

    def text(self, width: int) -> str:
        """All of it for `width` characters; rows that are longer take several lines.

        Args:
            width: characters of a line.
        """
        return printing.text(self, width)

    def __str__(self) -> str:
        return printing.text(self)

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        return printing.html(self)

    def _table(self) -> Table:
        return printing.table(self.rows)


def _row_as_json(row: AuditRow) -> dict[str, Any]:
    values = {name: _strict(value) for name, value in asdict(row).items()}
    return {**values, "shape": list(row.shape)}


def _strict(value: Any) -> Any:
    """A value that strict JSON has: no NaN, no infinity."""
    if not isinstance(value, float) or math.isfinite(value):
        return value
    return None if math.isnan(value) else "infinite"
