"""Findings that are meant: kinds, and paths that they may have."""

import itertools
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

from jaxinit._audit.result import KINDS, Finding
from jaxinit._basics.names import unknown
from jaxinit._tree.paths import matcher, near_miss
from jaxinit._tree.problems import problems_message

_RANGE = re.compile(r"\{([0-9]+)\.\.([0-9]+)\}")  # as of `fold`
_WHAT = "allow must be a kind of finding, several of them, or a mapping from kinds to"


def meant(allow: Any) -> Callable[[Finding], bool]:
    """A function that says whether a finding is allowed.

    Args:
        allow: a kind; several; or a mapping from kinds to globs or compiled regular
            expressions, one or several. Each leaf of a finding must match one.

    Raises:
        TypeError: if `allow` or a pattern is of a wrong type.
        ValueError: if a kind is not known, or a glob malformed.
    """
    if isinstance(allow, Mapping):
        allowed = {_kind(kind): _matchers(kind, x) for kind, x in allow.items()}
    else:
        allowed = {_kind(kind): [_any_path] for kind in _several(allow)}
    return lambda finding: _is_allowed(finding, allowed.get(finding.kind, ()))


def refuse_unmatched(allow: Any, paths: Sequence[str]) -> None:
    """Raises for patterns that match no leaf, so that none is left of older models.

    Args:
        allow: what `meant` takes.
        paths: the leaves, repeated blocks folded.

    Raises:
        ValueError: naming the patterns.
    """
    if not isinstance(allow, Mapping):
        return
    each = [path for folded in paths for path in _each(folded)]
    leaves = [SimpleNamespace(path=path) for path in each]
    wrong = [
        f"no leaf is matched by {pattern!r} for {kind!r}{near_miss(pattern, each)}"
        for kind, patterns in allow.items()
        for pattern in _patterns(patterns)
        if not any(map(matcher(pattern), leaves))
    ]
    if wrong:
        raise ValueError(problems_message("allow", wrong))


def _any_path(leaf: Any) -> bool:
    return True


def _matchers(kind: Any, patterns: Any) -> list[Callable[[Any], bool]]:
    several = _patterns(patterns)
    wrong = [x for x in several if not isinstance(x, str) and not _is_of_text(x)]
    if wrong:
        raise TypeError(
            f"{_WHAT} globs such as '**/bias' or compiled regular expressions, got "
            f"{wrong[0]!r} for {kind!r}."
        )
    return [matcher(x) for x in several]


def _patterns(patterns: Any) -> Collection[Any]:
    return [patterns] if isinstance(patterns, re.Pattern) else _several(patterns)


def _is_of_text(pattern: Any) -> bool:
    return isinstance(pattern, re.Pattern) and isinstance(pattern.pattern, str)


def _several(values: Any) -> Collection[Any]:
    if isinstance(values, str):
        return [values]
    if isinstance(values, Collection) and not isinstance(values, bytes | bytearray):
        return values
    raise TypeError(f"{_WHAT} globs such as '**/bias', got {values!r}.")


def _kind(kind: Any) -> str:
    if not isinstance(kind, str):
        raise TypeError(f"{_WHAT} globs such as '**/bias', got the kind {kind!r}.")
    if kind not in KINDS:
        raise ValueError(unknown("kind of finding", kind, KINDS))
    return kind


def _is_allowed(finding: Finding, matchers: Sequence[Callable[[Any], bool]]) -> bool:
    if not matchers:
        return False
    leaves = (SimpleNamespace(path=x) for path in finding.paths for x in _each(path))
    return all(any(matches(leaf) for matches in matchers) for leaf in leaves)


def _each(folded: str) -> Iterator[str]:
    """The paths that a folded one stands for.

    >>> [*_each("blocks_{0..1}/kernel")]
    ['blocks_0/kernel', 'blocks_1/kernel']
    """
    pieces = _RANGE.split(folded)
    ranges = [
        range(int(first), int(last) + 1)
        for first, last in zip(pieces[1::3], pieces[2::3], strict=True)
    ]
    for numbers in itertools.product(*ranges):
        filled = [*map(str, numbers), ""]
        pairs = zip(pieces[::3], filled, strict=True)
        yield "".join(text + number for text, number in pairs)
