"""To be written."""

from collections.abc import Iterator, Sequence

from jaxinit._audit.naming import Named
from jaxinit._audit.result import Finding


def findings_of_entries(groups: Sequence[Named]) -> Iterator[Finding]:
    """To be written."""
    yield from ()
