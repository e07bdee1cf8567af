"""Rules: ordered pairs of a pattern and what to draw where it matches."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax

from jaxinit._tree.leaf import Leaf
from jaxinit._tree.patterns import Patterns
from jaxinit._tree.pickling import refuse_unpicklable
from jaxinit._tree.sections import joined, sections_of
from jaxinit._tree.values import is_initializer, maker
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


@dataclass(frozen=True)
class Choice:
    """Which rule draws a leaf.

    Attributes:
        leaf: the leaf.
        position: position of the rule; None if there is none.
        sections: the choices for its sections, where they differ.
    """

    leaf: Leaf
    position: int | None
    sections: tuple["Choice", ...] = ()

    def ends(self) -> Iterator["Choice"]:
        """The choices for what is drawn by one rule: the leaf, or its sections."""
        if not self.sections:
            yield self
        for section in self.sections:
            yield from section.ends()


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
        self._makers = [
            maker(f"the rule for {pattern!r}", value) for pattern, value in self._pairs
        ]

    def initializer(self, position: int, leaf: Leaf) -> Callable[..., jax.Array]:
        """The initializer that the rule at `position` gives a leaf it matches."""
        return self._makers[position](leaf)

    def choose(self, leaf: Leaf) -> Choice:
        """The rules for a leaf, or for the sections that its role tells apart.

        A rule that matches the whole leaf is for all sections that no rule before it
        matches.
        """
        return self._choice(leaf, len(self), None)

    def _choice(self, leaf: Leaf, stop: int, otherwise: int | None) -> Choice:
        """The rules before `stop` for a leaf; where there is none, `otherwise`."""
        found = self.find(leaf, stop)
        stop, position = (stop, otherwise) if found is None else (found, found)
        _, sections = sections_of(leaf)
        chosen = tuple(self._choice(x, stop, position) for x in sections)
        if all(not x.sections and x.position == position for x in chosen):
            chosen = ()
        return Choice(leaf, position, chosen)

    def drawn(self, choice: Choice) -> Callable[..., jax.Array]:
        """The initializer that chosen rules give a leaf."""
        if not choice.sections:
            assert choice.position is not None
            return self.initializer(choice.position, choice.leaf)
        first, *others = parts = [self.drawn(x) for x in choice.sections]
        leaves = [choice.leaf, *(x.leaf for x in choice.sections)]
        if all(first == x for x in others) and _is_alike(first, leaves):
            return first
        return joined(choice.leaf, parts)

    def __or__(self, other: "Rules | Mapping[Any, Any]") -> "Rules":
        """These rules, and the others for leaves that none of these matches.

        A pattern that both have is that of these, such as a part of a scheme.
        """
        other = Rules(other)
        rest = [(x, value) for x, value in other.items() if x not in self.patterns]
        both = Rules(
            [*self.items(), *rest],
            required=[*self.required, *other.required],
            name=" | ".join(filter(None, (self.name, other.name))) or None,
        )
        both.parts = (*self.parts, *other.parts)
        return both

    def __ror__(self, other: Mapping[Any, Any]) -> "Rules":
        """The rules of a dictionary, and these for leaves that none of it matches."""
        return Rules(other) | self

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


def _is_alike(initializer: Any, leaves: Sequence[Leaf]) -> bool:
    """Whether leaves are known to have independent entries of one deviation."""
    if not isinstance(initializer, Initializer):
        return False
    if not all(initializer.is_independent(leaf.shape) for leaf in leaves):
        return False
    try:
        return len({initializer.moments(x.shape, x.dtype).std for x in leaves}) == 1
    except NotImplementedError:
        return False


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
