"""Patterns of leaves in order: the first that matches a leaf decides."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from jaxinit._tree.leaf import Leaf
from jaxinit._tree.paths import matcher, near_miss
from jaxinit._tree.values import call_it, is_initializer


class Patterns:
    """Ordered pairs of a pattern and a value; the first that matches a leaf decides.

    Args:
        rules: mapping from patterns to values, or pairs of them.

    Raises:
        TypeError: if they or a pattern are of a wrong type.
        ValueError: if a glob is malformed or a pattern is given twice.
    """

    def __init__(self, rules: Any):
        self._pairs = _pairs(rules)
        patterns = [pattern for pattern, _ in self._pairs]
        twice = [p for i, p in enumerate(patterns) if p in patterns[:i]]
        if twice:
            raise ValueError(
                f"pattern {twice[0]!r} is given twice: the second would never be used."
            )
        self._matchers = [matcher(pattern) for pattern in patterns]
        self._patterns = self.required = tuple(patterns)

    def items(self) -> Iterator[tuple[Any, Any]]:
        """The pairs of pattern and value, in order."""
        return iter(self._pairs)

    @property
    def patterns(self) -> tuple[Any, ...]:
        """The patterns, in order."""
        return self._patterns

    def find(self, leaf: Leaf, stop: int | None = None) -> int | None:
        """The position of the rule for a leaf; None if no pattern matches.

        Args:
            leaf: the leaf.
            stop: position of the first rule that is not asked; None asks all.
        """
        matchers = self._matchers[:stop]
        hits = (i for i, matches in enumerate(matchers) if matches(leaf))
        return next(hits, None)

    def unused(
        self,
        leaves: Sequence[Leaf],
        positions: Sequence[int | None],
        allowed: Sequence[Any],
    ) -> list[str]:
        """Problems of required patterns that match no leaf.

        Args:
            leaves: the leaves.
            positions: for each of them, what `find` returns.
            allowed: patterns that need not match.
        """
        used = set(positions)
        return [
            f"rule {pattern!r}: matches no leaf{self._why(i, leaves, positions)}"
            for i, (pattern, _) in enumerate(self._pairs)
            if i not in used and pattern in self.required and pattern not in allowed
            if not self._is_left_over(i, leaves)
            if not self._is_provided(i, leaves, positions)
            if not self._is_another_model(i, leaves)
        ]

    def _why(
        self, position: int, leaves: Sequence[Leaf], positions: Sequence[int | None]
    ) -> str:
        """Why a rule is unused: an earlier one matches first, or a typing error."""
        pattern = self._pairs[position][0]
        if not isinstance(pattern, str | re.Pattern):
            return ""
        for leaf, earlier in zip(leaves, positions, strict=True):
            if earlier is not None and self._matchers[position](leaf):
                first = self._pairs[earlier][0]
                return f" that {first!r}, which stands before it, leaves over"
        return near_miss(pattern, [leaf.path for leaf in leaves])

    def _is_left_over(self, position: int, leaves: Sequence[Leaf]) -> bool:
        """Whether a predicate matches leaves, but earlier rules took them all.

        A predicate of a scheme names a part of the model, and that part is there, so
        this is no error. A glob or regular expression that is never used likely is one.
        """
        if isinstance(self._pairs[position][0], str | re.Pattern):
            return False
        return any(_matches(self._matchers[position], leaf) for leaf in leaves)

    def _is_another_model(self, position: int, leaves: Sequence[Leaf]) -> bool:
        """Whether a model does without a part that schemes ask for, such as attention.

        The computation shows that; it must have another part that is required.
        """
        if not hasattr(self._pairs[position][0], "by_role"):
            return False
        required = [
            matches
            for (pattern, _), matches in zip(self._pairs, self._matchers, strict=True)
            if hasattr(pattern, "by_role") and pattern in self.required
        ]
        known = [leaf for leaf in leaves if leaf.role is not None]
        return any(_matches(matches, x) for matches in required for x in known)

    def _is_provided(
        self, position: int, leaves: Sequence[Leaf], positions: Sequence[int | None]
    ) -> bool:
        """Whether a rule of one's own took a leaf that may be this part of a scheme.

        It may be if it is of the right kind, and its name is of no other part that the
        scheme requires.
        """
        could_be = getattr(self._pairs[position][0], "could_be", None)
        if could_be is None:
            return False
        return any(
            earlier is not None
            and earlier < position
            and not hasattr(self._pairs[earlier][0], "could_be")
            and could_be(leaf)
            and not any(
                _matches(matches, leaf)
                for (pattern, _), matches in zip(
                    self._pairs, self._matchers, strict=True
                )
                if hasattr(pattern, "could_be") and pattern in self.required
            )
            for leaf, earlier in zip(leaves, positions, strict=True)
        )

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Patterns):
            return NotImplemented
        return type(self) is type(other) and self._identity == other._identity

    def __hash__(self) -> int:
        return hash(self._identity)

    @property
    def _identity(self) -> tuple:
        """Equal for equal rules."""
        return self._pairs, self.required

    def __repr__(self):
        pairs = ", ".join(f"{p!r}: {v!r}" for p, v in self._pairs)
        return f"{type(self).__name__}({{{pairs}}})"


def _matches(matches: Callable[[Leaf], bool], leaf: Leaf) -> bool:
    """Whether a predicate matches a leaf; false if it raises, as it may for others."""
    try:
        return matches(leaf)
    except Exception:  # leaves without an earlier rule have let it raise already
        return False


def _pairs(rules: Any) -> tuple[tuple[Any, Any], ...]:
    items = rules.items() if isinstance(rules, Mapping | Patterns) else rules
    try:
        if isinstance(rules, str):
            raise TypeError
        return tuple((pattern, value) for pattern, value in items)
    except (TypeError, ValueError):
        raise TypeError(f"{_NO_RULES}, got {rules!r}{_remedy(rules)}.") from None


_NO_RULES = (
    "rules must be a mapping from patterns to values, such as {'**/kernel': "
    "jaxinit.he_normal()}, pairs of these, or a scheme such as jaxinit.schemes.flax()"
)


def _remedy(value: Any) -> str:
    """What to write instead of a value that is not rules."""
    if is_initializer(value):
        return f": for every leaf write {{'**': {value!r}}}"
    return f"; {call_it(value)}" if callable(value) else ""
