"""A plan as a table."""

import math
from collections.abc import Hashable, Iterable, Sequence

from jaxinit._basics.table import Table
from jaxinit._tree.folding import fold
from jaxinit._tree.leaf import PlannedLeaf

_HEAD: tuple[str, ...]
_HEAD = ("leaf", "", "shape", "dtype", "initializer", "fan_in", "fan_out", "std")
_TEXT_COLUMNS = (0, 4, 8, 9)  # aligned to the left; all others are numbers


def _rows(leaves: Sequence[PlannedLeaf]) -> tuple[list[str], list[list[str]]]:
    """The head and one row for each group of equal leaves."""
    kinds = [(x.shape, x.dtype, x.initializer, x.sharding, x.taken_for) for x in leaves]
    more = {
        "sharding": any(leaf.sharding is not None for leaf in leaves),
        "taken for": any(leaf.taken_for for leaf in leaves),
    }
    shown = [title for title, is_shown in more.items() if is_shown]
    head = [*_HEAD, *shown]
    cells_of: dict[Hashable, list[str]] = {}  # kept: initializers take long to print
    rows = []
    for path, members in fold([leaf.path for leaf in leaves], kinds):
        kind = kinds[members[0]]
        if kind not in cells_of:
            cells_of[kind] = _cells(leaves[members[0]], shown)
        count = f"x{len(members)}" if len(members) > 1 else ""
        rows.append([path, count, *cells_of[kind]])
    return head, rows


def _cells(leaf: PlannedLeaf, more: Sequence[str]) -> list[str]:
    """The cells that all leaves of a kind share."""
    fan_in, fan_out = leaf.fans or (None, None)
    cells = [
        "x".join(map(str, leaf.shape)) or "()",
        str(leaf.dtype),
        repr(leaf.initializer),
        _rounded(fan_in),
        _rounded(fan_out),
        _rounded(leaf.std),
    ]
    others = {
        "sharding": str(getattr(leaf.sharding, "spec", leaf.sharding or "")),
        "taken for": leaf.taken_for,
    }
    return [*cells, *(others[title] for title in more)]


def _rounded(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _total(leaves: Iterable[PlannedLeaf]) -> str:
    leaves = list(leaves)
    count = sum(math.prod(leaf.shape) for leaf in leaves)
    size = sum(leaf.bytes for leaf in leaves)
    return f"{len(leaves)} leaves, {count:,} parameters, {size:,} bytes"


def plan_table(leaves: Sequence[PlannedLeaf]) -> Table:
    """One row for each group of equal leaves, and the totals."""
    head, rows = _rows(leaves)
    return Table(head, rows, _TEXT_COLUMNS, [_total(leaves)])
