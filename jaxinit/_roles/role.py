"""Roles: what a leaf is for, as values."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from jaxinit._basics.table import Table, Tabular

KINDS = (
    "kernel",
    "convolution",
    "embedding",
    "scale",
    "bias",
    "position",
    "gate",
    "statistic",
    "unused",
    "unknown",
)

PARTS = (
    "query",
    "key",
    "value",
    "attention output",
    "gate",
    "up",
    "router",
    "input gate",
    "forget gate",
    "cell",
    "output gate",
    "update gate",
    "reset gate",
    "candidate",
    "token",
)


@dataclass(frozen=True)
class Section:
    """A part of an axis of a leaf that has a purpose of its own.

    Attributes:
        axis: the axis.
        blocks: where, as runs of indices from a start to before a stop.
        part: what it is in its model, one of `PARTS`, or "input" or "recurrent" among
            the inputs of a kernel of both; None if that is not known.
        function: name of the function that follows; None if there is none.
        gain: `1 / sqrt(E[f(z)**2])` of that function, `z` standard normal.
    """

    axis: int
    blocks: tuple[tuple[int, int], ...]
    part: str | None = None
    function: str | None = None
    gain: float | None = None

    @property
    def size(self) -> int:
        """Number of indices."""
        return sum(stop - start for start, stop in self.blocks)


@dataclass(frozen=True)
class Use:
    """One place of the computation where a leaf is used.

    Axes are those of the leaf, in increasing order.

    Attributes:
        kind: as in `Role`.
        in_axis: axes that are summed over; of an embedding, the one that is looked up;
            of a position, the positions.
        out_axis: axes of features that the output has.
        batch_axis: axes with a kernel of its own at each index: experts, ensembles.
        stack_axis: axes of which a loop over layers, or an index, takes one place.
        spatial_axis: the window of a convolution.
        fan_in: number of terms in one output.
        fan_out: number of outputs that one input reaches.
        entering: second moment of what enters a kernel at the start, if inputs are
            standard normal and every kernel gives outputs of variance one.
        variance: variance that its entries need for outputs of variance one, or of
            their share of the residual stream that they are added to; of a position, a
            quarter of the second moment of what it is added to; of a bias, what the
            kernel leaves to it.
        centered: whether the entries of a kernel must sum to zero over the inputs, for
            what enters has a mean that would outweigh all differences, or drift.
        groups: groups of features of a convolution.
        transposed: whether it is a transposed convolution.
        multiplier: number that the leaf, or its output, is multiplied by.
        offset: number added to a scale before it multiplies.
        function: name of the elementwise function that follows; None if not known.
        gain: `1 / sqrt(E[f(z)**2])` of that function, `z` standard normal.
        residual: number among the writers of a residual stream, and their total, None
            if a loop's length is not known; None for what writes to no stream. The
            number of the first write, if there are several.
        stream: number of the residual stream in whose branches a kernel is; None
            outside of all.
        order: of what writes to a stream, the number among the writers for each index
            along `stack_axis`, in C order: one number without such axes. None for what
            is taken in another use; empty if not known.
        layers: the number of the layer, from 0, for each such index; None for what is
            taken in another use, or in several layers; empty if not known.
        depth: number of layers of that stream; None if the computation does not tell.
        memory: number of the stream that the keys of its cross-attentions come from, as
            in a decoder; None if there is no such one.
        branch: number among the kernels of the branch that it is in, and their total;
            None outside the branches of residual streams.
        closing: whether it is the scale of the last normalization of a branch, behind a
            kernel.
        recurrent: whether it is its own ancestor through a loop over time.
        first: whether no contraction precedes.
        head: whether no contraction follows, and it is neither recurrent nor writes to
            a residual stream, whose end may be what another model takes.
        part: what it is in its model, one of `PARTS`, or several, joined by commas;
            None if that is not known, or differs along an axis.
        sections: parts that differ along an axis.
        of: paths of the kernels that a bias is added behind.
        doubt: why the moments that its variance goes by are not known, and taken as
            one; "" if they are.
        reason: a sentence that says why.
    """

    kind: str
    in_axis: tuple[int, ...] = ()
    out_axis: tuple[int, ...] = ()
    batch_axis: tuple[int, ...] = ()
    stack_axis: tuple[int, ...] = ()
    spatial_axis: tuple[int, ...] = ()
    fan_in: float = 0
    fan_out: float = 0
    entering: float = 1.0
    variance: float = 0.0
    centered: bool = False
    groups: int = 1
    transposed: bool = False
    multiplier: float = 1.0
    offset: float = 0.0
    function: str | None = None
    gain: float | None = None
    residual: tuple[int, int | None] | None = None
    stream: int | None = None
    order: tuple[int | None, ...] = ()
    layers: tuple[int | None, ...] = ()
    depth: int | None = None
    memory: int | None = None
    branch: tuple[int, int] | None = None
    closing: bool = False
    recurrent: bool = False
    first: bool = False
    head: bool = False
    part: str | None = None
    sections: tuple[Section, ...] = ()
    of: tuple[str, ...] = ()
    doubt: str = ""
    reason: str = field(default="", compare=False)


_SINGLE = [name for name in Use.__dataclass_fields__ if name not in ("kind", "reason")]


@dataclass(frozen=True)
class Role:
    """What one leaf is for.

    Every attribute of a `Use` is one of a role too, if all its uses agree on it.

    Attributes:
        path: path of the leaf.
        shape: shape of the array.
        dtype: its dtype.
        uses: one for each place of the computation where it is used.
        reason: a sentence that says why.
    """

    path: str
    shape: tuple[int, ...]
    dtype: np.dtype
    uses: tuple[Use, ...]
    reason: str

    @property
    def kind(self) -> str:
        """What the leaf is.

        "kernel" and "convolution" are contracted with activations, an "embedding" is
        looked up by inputs or is a learned token, a "scale" multiplies activations and
        a "bias" is added to them, a "position" is added or looked up by position, a
        "gate" scales one branch of a residual stream, a "statistic" is a running mean
        or variance, and what is "unused" does not reach the output. "unknown" is
        anything else. A tied embedding, which is a kernel too, is an "embedding".
        """
        kinds = dict.fromkeys(use.kind for use in self.uses)
        if not kinds:
            return "unused"
        if len(kinds) == 1:
            return next(iter(kinds))
        if "unknown" not in kinds and "embedding" in kinds:
            return "embedding"
        return "unknown"

    @property
    def tied(self) -> bool:
        """Whether it is an embedding and a kernel."""
        return {"embedding", "kernel"} <= {use.kind for use in self.uses}

    @property
    def kernels(self) -> tuple[Use, ...]:
        """The uses in which it is contracted with activations."""
        kinds = ("kernel", "convolution")
        return tuple(use for use in self.uses if use.kind in kinds)

    @property
    def summary(self) -> str:
        """Its kind and part in a few words."""
        words = {
            **dict.fromkeys(word for use in self.uses for word in _words(use)),
            "tied": None,
        }
        if not self.tied:
            del words["tied"]
        return ", ".join([self.kind, *words])

    def __getattr__(self, name: str) -> Any:
        if name not in _SINGLE:
            raise AttributeError(f"a role has no attribute {name!r}")
        values = list(dict.fromkeys(getattr(use, name) for use in self.uses))
        if len(values) == 1:
            return values[0]
        if not values:
            raise ValueError(
                f"{self.path} has no {name}: the output does not depend on it."
            )
        raise ValueError(
            f"{self.path} has no single {name}: its {len(self.uses)} uses have "
            f"{' and '.join(map(repr, values))}. Look at role.uses."
        )

    def as_json(self) -> dict[str, Any]:
        """All of it in lists, dictionaries, numbers and text."""
        return {
            "path": self.path,
            "shape": list(self.shape),
            "dtype": str(self.dtype),
            "kind": self.kind,
            "reason": self.reason,
            "uses": [_plain(asdict(use)) for use in self.uses],
        }


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


class Roles(Mapping[str, Role], Tabular):
    """The roles of the leaves of a model, by path, in the order of the tree.

    Attributes:
        notes: what should be known about the inputs that they were found with.
    """

    def __init__(self, roles: Sequence[Role], notes: Sequence[str] = ()):
        self._roles = {role.path: role for role in roles}
        self.notes = tuple(notes)

    def __getitem__(self, path: str) -> Role:
        try:
            return self._roles[path]
        except KeyError:
            raise KeyError(
                f"no leaf has the path {path!r}; there are {', '.join(self._roles)}"
            ) from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._roles)

    def __len__(self) -> int:
        return len(self._roles)

    def __repr__(self) -> str:
        return f"<Roles of {len(self)} leaves>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Roles) and self._roles == other._roles

    def __hash__(self) -> int:
        return hash(tuple(self._roles.values()))

    def as_json(self) -> dict[str, Any]:
        """All of it in lists, dictionaries, numbers and text."""
        roles = [role.as_json() for role in self.values()]
        return {"roles": roles, "notes": list(self.notes)}

    def _table(self) -> Table:
        rows = [
            [
                role.path if i == 0 else "",
                "x".join(map(str, role.shape)) if i == 0 else "",
                use.kind if use else "unused",
                _what(use),
                _fans(use),
                use.reason if use else role.reason,
            ]
            for role in self.values()
            for i, use in enumerate(role.uses or (None,))
        ]
        head = ["leaf", "shape", "kind", "part", "fans", "why"]
        return Table(head, rows, (0, 1, 2, 3, 5), self.notes)


def _what(use: Use | None) -> str:
    if use is None:
        return ""
    words = _words(use)
    if use.residual:
        place, total = use.residual
        words[words.index("residual")] = f"residual {place + 1} of {total or '?'}"
    return ", ".join(words)


def _words(use: Use) -> list[str]:
    words = [use.part] if use.part else [s.part for s in use.sections if s.part]
    marks = {
        "recurrent": use.recurrent and "recurrent" not in words,
        "head": use.head,
        "residual": use.residual is not None,
    }
    return [*words, *(word for word, is_so in marks.items() if is_so)]


def _fans(use: Use | None) -> str:
    if use is None or not use.fan_in:
        return ""
    return f"{use.fan_in:g}, {use.fan_out:g}"
