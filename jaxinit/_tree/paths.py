"""Paths of leaves: as text, matched by patterns, and hashed into keys."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
from jax.tree_util import (
    DictKey,
    FlattenedIndexKey,
    GetAttrKey,
    SequenceKey,
    keystr,
)

from jaxinit._tree.problems import PlanError, problems_message

KEY_SCHEME = "path-v1"
_PERSON = KEY_SCHEME.encode()
_NUMBERED = re.compile(r"(?:^|[_.-])([0-9]{1,18})$")
_ADDRESS = re.compile(r" at 0x[0-9a-f]+>")

Path = tuple[str, ...]


def leaf_paths(tree: Any) -> list[tuple[Path, Any]]:
    """The leaves of a pytree, each with its path.

    A path is a tuple of segments: keys of mappings, names of attributes, and positions
    in sequences, all as text. A box around a single leaf, such as a Flax variable or a
    partitioned parameter, adds no segment.

    Args:
        tree: the pytree.

    Returns:
        List of pairs `(path, leaf)`, in the order of the tree.

    Raises:
        PlanError: naming all leaves whose paths are the same text, so that no rule can
            tell them apart, or whose text differs from run to run.

    >>> leaf_paths({"blocks": [{"w": 1}, {"w": 2}]})
    [(('blocks', '0', 'w'), 1), (('blocks', '1', 'w'), 2)]
    """
    flat = jax.tree.leaves_with_path(tree)
    pairs = _with_segments(flat)
    texts = [joined(path) for path, _ in pairs]
    if len(set(texts)) < len(texts) or any(map(_ADDRESS.search, texts)):
        raise PlanError(problems_message("the tree", _ambiguous(texts, flat)))
    return pairs


def node_paths(tree: Any, is_leaf: Callable[[Any], bool]) -> list[tuple[Path, Any]]:
    """As `leaf_paths`, with nodes taken as leaves; equal paths are no error."""
    return _with_segments(jax.tree.leaves_with_path(tree, is_leaf=is_leaf))


def _with_segments(flat: Sequence[tuple[tuple, Any]]) -> list[tuple[Path, Any]]:
    """Leaves with their paths as text, from jax's paths of keys."""
    shared = Counter(path[:-1] for path, _ in flat)
    return [(_segments(path, shared), leaf) for path, leaf in flat]


def _ambiguous(texts: Sequence[str], flat: Sequence[tuple[tuple, Any]]) -> list[str]:
    groups: dict[str, list[str]] = {}
    for text, (path, _) in zip(texts, flat, strict=True):
        groups.setdefault(text, []).append(keystr(path) or "the tree itself")
    return [
        f"{text!r} is the path of {len(names)} leaves, {' and '.join(names)}: rename "
        "all but one, as no rule can tell them apart"
        for text, names in groups.items()
        if len(names) > 1
    ] + [
        f"{text!r} is another path in every run: give the key of {names[0]} a text of "
        "its own, as by a method __str__"
        for text, names in groups.items()
        if _ADDRESS.search(text)
    ]


def _segments(path: tuple, shared: Mapping[tuple, int]) -> Path:
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
    """Two 32-bit words: a hash of a path, in the scheme `path-v1`.

    BLAKE2b of the segments in UTF-8. Each follows its length in bytes, a 32-bit
    little-endian number, so that `("a", "bc")` and `("ab", "c")` differ. The key of a
    leaf is the root key with the first word folded in, then the second.
    """
    import hashlib  # loads OpenSSL, which importing jaxinit need not

    encoded = [segment.encode(errors="surrogatepass") for segment in path]
    message = b"".join([len(s).to_bytes(4, "little") + s for s in encoded])
    hashed = hashlib.blake2b(message, digest_size=8, person=_PERSON).digest()
    return int.from_bytes(hashed[:4], "little"), int.from_bytes(hashed[4:], "little")


def layer_index(path: Path) -> int | None:
    """The layer number: from the first segment that is a number or ends in one.

    A name with slashes, as Haiku has them, counts as several segments.

    >>> layer_index(("params", "blocks_3", "Dense_0", "kernel"))
    3
    >>> layer_index(("gpt/~/block_5/~/linear", "w"))
    5
    """
    for segment in joined(path).split("/"):
        number = _NUMBERED.search(segment)
        if number:
            return int(number[1])
    return None


def glob(pattern: str) -> re.Pattern[str]:
    """A glob over `/`-joined segments as a regular expression to match in full.

    `*` and `?` match within a segment, `[...]` one of some characters, `[!...]` one of
    all others, and the segment `**` any number of segments, none included. `[[]`, `[*]`
    and `[?]` match these characters themselves.

    Raises:
        ValueError: if the pattern is empty, has an empty segment, `**` is only a part
            of a segment, or a range of characters has its end before its start.
    """
    segments = pattern.split("/")
    wrong = [s for s in segments if not s or ("**" in s and s != "**")]
    if wrong:
        raise ValueError(
            f"pattern {pattern!r} has the segment {wrong[0]!r}: segments are separated "
            "by single slashes, none is empty, and ** stands alone, as in '**/kernel'."
        )
    text = "".join(
        r"(?:[^/]*/)*" if segment == "**" else f"{_within(segment)}/"
        for segment in segments
    )
    try:
        return re.compile(text)
    except re.error as error:
        raise ValueError(
            f"pattern {pattern!r} has a range of characters that is none, as [z-a]: "
            f"{error}. A [ that stands for itself is written [[]."
        ) from None


def _within(segment: str) -> str:
    tokens = re.split(r"(\*|\?|\[!?\]?[^\]]*\])", segment)
    return "".join(map(_token_expression, tokens))


def _token_expression(token: str) -> str:
    if token in ("*", "?"):
        return {"*": "[^/]*", "?": "[^/]"}[token]
    if not token.startswith("[") or token in ("[", "[]", "[!]"):
        return re.escape(token)
    inside = re.sub(r"([][\\^&~|])", r"\\\1", token[1:-1])
    return f"[^/{inside[1:]}]" if inside[0] == "!" else f"[{inside}]"


def matcher(pattern: Any) -> Callable[[Any], bool]:
    """A function that says whether a pattern matches a leaf, by its `path`.

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
    """The path with a slash after each segment, as `glob` takes it."""
    return f"{path}/" if path else ""


def collisions(
    paths: Iterable[Path], words: Iterable[tuple[int, int]]
) -> list[list[str]]:
    """Groups of paths that would get the same key.

    Args:
        paths: the paths.
        words: the `path_words` of each.
    """
    groups: dict[tuple[int, int], list[str]] = {}
    for path, both in zip(paths, words, strict=True):
        groups.setdefault(both, []).append(joined(path))
    return [group for group in groups.values() if len(group) > 1]


def near_miss(pattern: Any, paths: Sequence[str]) -> str:
    """A hint, for a pattern that matches none of some paths; "" if there is none.

    >>> near_miss("kernel", ["a/kernel", "b/kernel", "b/bias"])
    "; '**/kernel' matches 2, such as 'a/kernel'"
    """
    if isinstance(pattern, re.Pattern):
        within = [path for path in paths if pattern.search(path)]
        hint = "; it must match in full, and is only found within {}"
        return hint.format(repr(within[0])) if within else ""
    if not isinstance(pattern, str):
        return ""
    if pattern in paths:
        escaped = re.sub(r"([*?[])", r"[\1]", pattern)
        return f"; the path that looks the same is matched by {escaped!r}"
    if re.search(r"\.[*+?]|[\\^$|()+]", pattern):
        return (
            "; text is a glob, such as '**/kernel', and a regular expression is "
            f"re.compile({pattern!r})"
        )
    return next(filter(None, (_matches(t, paths) for t in _variants(pattern))), "")


def _variants(pattern: str) -> list[str]:
    below = pattern.partition("/")[2]
    every = [f"**/{pattern}", f"{pattern}/**", f"**/{pattern}/**", f"**/{below}"]
    return every if below else every[:3]


def _matches(pattern: str, paths: Sequence[str]) -> str:
    expression = glob(pattern)
    hits = [path for path in paths if expression.fullmatch(_closed(path))]
    return f"; {pattern!r} matches {len(hits)}, such as {hits[0]!r}" if hits else ""
