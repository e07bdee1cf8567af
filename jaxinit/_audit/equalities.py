"""To be written."""

from collections.abc import Iterator, Sequence

from jaxinit._audit.leaves import Leaf
from jaxinit._audit.result import Finding


def findings_of_equalities(leaves: Sequence[Leaf]) -> Iterator[Finding]:
    """To be written."""
    yield from ()
