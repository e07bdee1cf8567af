"""Paths of leaves: as text, matched by patterns, and hashed into keys."""

import re
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.tree_util import DictKey, FlattenedIndexKey, GetAttrKey, SequenceKey

KEY_SCHEME = "path-v1"

Path = tuple[str, ...]


def leaf_paths(tree: Any, is_leaf: Callable[[Any], bool] | None = None):
    """The leaves of a pytree, each with its path.

    A path is a tuple of segments: keys of mappings, names of attributes, and positions
    in sequences, all as text. A box around a single leaf, such as a Flax variable or
    partitioned parameter, adds no segment.

    Args:
        tree: the pytree.
        is_leaf: what else to take as a leaf, as in `jax.tree.leaves`.

    Returns:
        List of pairs `(path, leaf)`, in the order of the tree.
    """
    flat = jax.tree.leaves_with_path(tree, is_leaf=is_leaf)
    shared: dict[tuple, int] = {}
    for path, _ in flat:
        shared[path[:-1]] = shared.get(path[:-1], 0) + 1
    return [(_segments(path, shared), leaf) for path, leaf in flat]


def _segments(path: tuple, shared: dict[tuple, int]) -> Path:
    boxed = path and path[-1] in (GetAttrKey("value"), GetAttrKey("raw_value"))
    if boxed and len(path) > 1 and shared[path[:-1]] == 1:
        path = path[:-1]
    return tuple(_segment(key) for key in path)


def _segment(key: Any) -> str:
    match key:
        case DictKey(key=name) | FlattenedIndexKey(key=name):
            return str(name)
        case SequenceKey(idx=index):
            return str(index)
        case GetAttrKey(name=name):
            return name
        case _:
            return str(key)


def joined(path: Path) -> str:
    """The path as text, its segments joined by `/`."""
    return "/".join(path)


def path_words(path: Path) -> tuple[int, int]:
    """Two 32-bit words that stand for a path, in the scheme `path-v1`.

    BLAKE2b of the segments in UTF-8, each after its length in bytes as a 32-bit
    little-endian number, so that `("a", "bc")` and `("ab", "c")` differ. A leaf's key
    is the root key with the first word folded in, then the second.
    """
    import hashlib  # loads OpenSSL, which importing jaxinit need not

    encoded = (segment.encode() for segment in path)
    message = b"".join(len(s).to_bytes(4, "little") + s for s in encoded)
    digest = hashlib.blake2b(message, digest_size=8, person=KEY_SCHEME.encode())
    first, second = np.frombuffer(digest.digest(), "<u4").tolist()
    return first, second


def layer_index(path: Path) -> int | None:
    """The layer number in a path: the first segment that is or ends in a number.

    >>> layer_index(("params", "blocks_3", "Dense_0", "kernel"))
    3
    """
    for segment in path:
        number = re.search(r"(?:^|[_.-])(\d+)$", segment)
        if number:
            return int(number[1])
    return None


def glob(pattern: str) -> re.Pattern[str]:
    """A glob over `/`-joined segments as a regular expression to match in full.

    `*` and `?` match within a segment, `[...]` one of some characters, and the segment
    `**` any number of segments, none included.

    Raises:
        ValueError: if the pattern is empty, has an empty segment, or `**` is only a
            part of a segment.
    """
    segments = pattern.split("/")
    wrong = [s for s in segments if not s or ("**" in s and s != "**")]
    if wrong:
        raise ValueError(
            f"pattern {pattern!r} has the segment {wrong[0]!r}: segments are separated "
            "by single slashes, none is empty, and ** stands alone, as in '**/kernel'."
        )
    text = "".join(
        r"(?:[^/]+/)*" if segment == "**" else f"{_within(segment)}/"
        for segment in segments
    )
    return re.compile(text)


def _within(segment: str) -> str:
    parts = re.split(r"(\*|\?|\[!?[^\]]+\])", segment)
    return "".join(map(_token, parts))


def _token(part: str) -> str:
    if part in ("*", "?"):
        return {"*": "[^/]*", "?": "[^/]"}[part]
    if part.startswith("[") and len(part) > 2:
        inside = part[1:-1].replace("\\", r"\\")
        return f"[^/{inside[1:]}]" if inside[0] == "!" else f"[{inside}]"
    return re.escape(part)


def matcher(pattern: Any) -> Callable[[Any], bool]:
    """What tells whether a leaf, which has a `path`, is one that a pattern means.

    Args:
        pattern: a glob, a compiled regular expression that must match the joined path
            in full, or a predicate of the leaf.

    Raises:
        TypeError: if the pattern is none of these.
        ValueError: if a glob is malformed.
    """
    if isinstance(pattern, str):
        expression = glob(pattern)
        return lambda leaf: expression.fullmatch(_closed(leaf.path)) is not None
    if isinstance(pattern, re.Pattern):
        return lambda leaf: pattern.fullmatch(leaf.path) is not None
    if callable(pattern):
        return lambda leaf: bool(pattern(leaf))
    raise TypeError(
        "a pattern must be a glob such as '**/kernel', a compiled regular expression "
        f"or a predicate of the leaf, got {pattern!r}."
    )


def _closed(path: str) -> str:
    return f"{path}/" if path else ""


def collisions(paths: Sequence[Path]) -> list[list[str]]:
    """Groups of paths that would get the same key."""
    groups: dict[tuple[int, int], list[str]] = {}
    for path in paths:
        groups.setdefault(path_words(path), []).append(joined(path))
    return [group for group in groups.values() if len(group) > 1]
