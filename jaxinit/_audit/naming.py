"""Names for laws: which initializer may have drawn a class of leaves."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from jaxinit._audit.leaves import Group
from jaxinit._audit.result import AuditRow
from jaxinit.initializers.base import Initializer


@dataclass(frozen=True)
class Named(Group):
    """A group with its law.

    Attributes:
        law: the initializer that seems to have drawn the leaves; None if none is known.
        sure: see `AuditRow`.
        odds: see `AuditRow`.
        p: see `AuditRow`.
        note: see `AuditRow`.
        std: standard deviation of all entries about zero; NaN if it is not known.
    """

    law: Initializer | None = None
    sure: bool = False
    odds: float | None = None
    p: float | None = None
    note: str = ""
    std: float = math.nan

    @property
    def row(self) -> AuditRow:
        """What the audit says of it."""
        return AuditRow(
            self.path,
            len(self.leaves),
            self.shape,
            str(self.dtype),
            None if self.law is None else repr(self.law),
            self.sure,
            self.odds,
            self.p,
            self.note,
        )


def named(groups: Sequence[Group]) -> list[Named]:
    """The groups with their laws; those are divided whose leaves have several."""
    return [Named(group.path, group.leaves) for group in groups]
