"""Rules: ordered pairs of a pattern and what to draw where it matches."""

import dataclasses
import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax

from jaxinit._tree.leaf import Leaf
from jaxinit._tree.paths import matcher, near_miss
from jaxinit._tree.pickling import refuse_unpicklable
from jaxinit.initializers.base import Initializer


@dataclass(frozen=True)
class keyed:  # noqa: N801 - used, and therefore spelled, as a function
    """An initializer that a plan draws with the key of another path.

    Leaves with the same initializer, shape and key are equal, as in a target network.
    Leaves that belong together can also draw from one key, each its own part.

    Args:
        initializer: initializer of the leaf.
        path: path, `/`-joined, whose key is used; it need not be the path of a leaf.

    >>> import jax, jaxinit
    >>> leaf = jax.ShapeDtypeStruct((2,), "float32")
    >>> shapes = {"online": leaf, "target": leaf}
    >>> draw = jaxinit.normal()
    >>> rules = {"online": draw, "target": keyed(draw, "online")}
    >>> params = jaxinit.init_tree(jax.random.key(0), shapes, rules)
    >>> bool((params["online"] == params["target"]).all())
    True
    """

    initializer: Callable[..., jax.Array]
    path: str

    def __post_init__(self):
        if not is_initializer(self.initializer) or not isinstance(self.path, str):
            raise TypeError(
                "keyed takes an initializer and a path, such as "
                f"keyed(jaxinit.normal(), 'online/kernel'), got {self.initializer!r} "
                f"and {self.path!r}."
            )

    def __call__(self, key: Any, shape: Sequence[int], dtype: Any = None) -> jax.Array:
        """Draws with the key that is given: only a plan knows the keys of paths."""
        return self.initializer(key, shape, dtype)

    def __repr__(self):
        return f"keyed({self.initializer!r}, {self.path!r})"


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
        self.required = tuple(patterns)

    def items(self) -> Iterator[tuple[Any, Any]]:
        """The pairs of pattern and value, in order."""
        return iter(self._pairs)

    @property
    def patterns(self) -> tuple[Any, ...]:
        """The patterns, in order."""
        return tuple(pattern for pattern, _ in self._pairs)

    def find(self, leaf: Leaf) -> int | None:
        """The position of the rule for a leaf; None if no pattern matches."""
        hits = (i for i, matches in enumerate(self._matchers) if matches(leaf))
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
    return f"; {_call_it(value)}" if callable(value) else ""


def _call_it(value: Any) -> str:
    name = getattr(value, "__name__", repr(value))
    return f"it is to be called, so write {name}()"


class Rules(Patterns):
    """Ordered rules; the first whose pattern matches a leaf gives its initializer.

    Args:
        rules: mapping from patterns to values, or pairs of them. A pattern is a glob
            over `/`-joined paths (`*` within a segment, `**` across), a compiled
            regular expression, matched in full, or a predicate of the `Leaf`. A value
            is an initializer, or a function of the `Leaf` that returns one.
        required: patterns that must match a leaf of every tree; None means all of them.
            For a predicate, a leaf that an earlier rule takes counts too.
        name: name of these rules in errors.

    Attributes:
        parts: the rules that were joined by `|` to make these.
        call: the scheme that made these rules, with its arguments; None if none did.

    Raises:
        TypeError: if a pattern or a value is of a wrong type.
        ValueError: if a glob is malformed, a pattern is given twice, or a required one
            is not among them.

    >>> import jaxinit
    >>> Rules({"**/kernel": jaxinit.he_normal(), "**/bias": jaxinit.zeros})
    Rules({'**/kernel': he_normal(), '**/bias': zeros})
    """

    def __init__(
        self,
        rules: "Mapping[Any, Any] | Iterable[tuple[Any, Any]] | Rules",
        *,
        required: Sequence[Any] | None = None,
        name: str | None = None,
    ):
        self.parts: tuple[Rules, ...] = (self,)
        self.call: tuple[Callable[..., Rules], Mapping[str, Any]] | None = None
        if isinstance(rules, Rules):
            self.parts = rules.parts if required is None else (self,)
            required = rules.required if required is None else required
            name = name or rules.name
        super().__init__(rules)
        self.name = name
        if required is not None:
            patterns = self.required
            self.required = checked_patterns("required", required)
            unknown = [p for p in self.required if p not in patterns]
            if unknown:
                raise ValueError(
                    f"required has {unknown[0]!r}, which is no pattern here."
                )
        self._makers = [_maker(pattern, value) for pattern, value in self._pairs]

    def initializer(self, position: int, leaf: Leaf) -> Callable[..., jax.Array]:
        """The initializer that the rule at `position` gives a leaf it matches."""
        return self._makers[position](leaf)

    def __or__(self, other: "Rules | Mapping[Any, Any]") -> "Rules":
        """These rules, and the others for leaves that none of these matches."""
        other = Rules(other)
        both = Rules(
            [*self.items(), *other.items()],
            required=[*self.required, *other.required],
            name=" | ".join(filter(None, (self.name, other.name))) or None,
        )
        both.parts = (*self.parts, *other.parts)
        return both

    def __len__(self) -> int:
        return len(self._pairs)

    def __repr__(self):
        if self.call:
            scheme, settings = self.call
            given = ", ".join(f"{x}={y!r}" for x, y in settings.items())
            return f"{scheme.__name__}({given})"
        if any(part.call for part in self.parts):
            return " | ".join(map(repr, self.parts))
        return super().__repr__()

    def __copy__(self) -> "Rules":
        return self  # nothing in it changes

    def __deepcopy__(self, memo: Any) -> "Rules":
        return self

    def __reduce__(self):
        refuse_unpicklable(self._pairs)
        # Rules that were not joined are their own only part; a pickle cannot hold
        # itself, so that None stands for it.
        parts = None if self.parts[0] is self else self.parts
        return _restored, (self._pairs, self.required, self.name, parts, self.call)


def _restored(pairs, required, name, parts, call) -> Rules:
    rules = Rules(pairs, required=required, name=name)
    rules.parts, rules.call = parts or (rules,), call
    return rules


def taken_for(rules: Rules, leaf: Leaf, position: int | None) -> str:
    """What a leaf was taken for, and why; "" if the rules ask for neither.

    Args:
        rules: the rules.
        leaf: the leaf.
        position: position of the rule that matches it.
    """
    pattern = None if position is None else rules.patterns[position]
    words = getattr(pattern, "words", "")
    if leaf.role is None:
        return f"{words}, by name" if words else ""
    said = _contradiction(rules, leaf) if words else ""
    other = f"; its name says {said}" if said else ""
    return f"{leaf.role.summary}: {leaf.role.reason}{other}"


def _contradiction(rules: Rules, leaf: Leaf) -> str:
    """The part of a scheme that a leaf is by its name, and not by its role."""
    try:
        position = rules.find(dataclasses.replace(leaf, role=None))
    except Exception:  # a predicate of the user that needs the role
        return ""
    named: Any = None if position is None else rules.patterns[position]
    by_role = getattr(named, "by_role", None)
    return "" if by_role is None or by_role(leaf.role) else named.words


def checked_patterns(name: str, value: Any) -> tuple[Any, ...]:
    """Several patterns as a tuple.

    Raises:
        TypeError: if it is a single pattern, or not a sequence.
    """
    if isinstance(value, Iterable) and not isinstance(value, str):
        return tuple(value)
    raise TypeError(
        f"{name} must be a sequence of patterns, such as ['**/bias'], got {value!r}."
    )


def _maker(pattern: Any, value: Any) -> Callable[[Leaf], Callable[..., jax.Array]]:
    if is_initializer(value):
        return lambda leaf: value
    if is_factory(value):
        raise TypeError(
            f"the rule for {pattern!r} is {value!r}, which makes initializers: "
            f"{_call_it(value)}."
        )
    if isinstance(value, type):
        raise TypeError(
            f"the rule for {pattern!r} is the class {value.__name__}, which makes no "
            "initializers: it must be an initializer, such as jaxinit.he_normal(), or "
            "a function of the leaf."
        )
    if not callable(value):
        raise TypeError(
            f"the rule for {pattern!r} must be an initializer, such as "
            f"jaxinit.he_normal(), or a function of the leaf, got {value!r}."
        )

    def make(leaf: Leaf) -> Callable[..., jax.Array]:
        initializer: Any = value(leaf)
        if not is_initializer(initializer):
            text = f"its rule, a function of the leaf, returned {initializer!r}"
            raise TypeError(text)
        return initializer

    return make


_BY_POSITION = (
    inspect.Parameter.POSITIONAL_ONLY,
    inspect.Parameter.POSITIONAL_OR_KEYWORD,
)


def is_initializer(value: Any) -> bool:
    """Whether `value` is called with a key and a shape, as jax's initializers are.

    Neither may have a default: `lambda leaf, depth=12: ...` is a function of a leaf.
    """
    if isinstance(value, Initializer):
        return True
    given = [p for p in _parameters(value) or () if p.kind in _BY_POSITION]
    required = [p for p in given if p.default is p.empty]
    return len(required) >= 2 and not isinstance(value, type)


def is_factory(value: Any) -> bool:
    """Whether `value` makes initializers, as `he_normal` and jax's factories do."""
    if isinstance(value, type):
        return issubclass(value, Initializer)
    parameters = _parameters(value)
    return parameters is not None and all(
        p.default is not p.empty for p in parameters[:1]
    )


def _parameters(value: Any) -> list[inspect.Parameter] | None:
    """The parameters of a function; None where they are not known."""
    try:
        return list(inspect.signature(value).parameters.values())
    except (TypeError, ValueError):
        return None
