"""Patterns of rules that ask what a leaf is for."""

from dataclasses import dataclass, fields

from jaxinit._basics.names import unknown
from jaxinit._roles.role import KINDS, PARTS, Use
from jaxinit._tree.leaf import Leaf
from jaxinit._tree.sections import is_divided


@dataclass(frozen=True)
class role:  # noqa: N801 - used, and therefore spelled, as a function
    """A pattern for `Rules`: the leaves with such a role, as `jaxinit.roles` finds it.

    It matches a leaf if one of its uses has all that is asked for; what is None is not
    asked for. If roles tell sections of a leaf apart, such as query, key and value side
    by side, it may match some of them: then its rule draws these, and the rules behind
    it the others.

    Args:
        kind: "kernel", "convolution" or another kind of `Role.kind`.
        part: "query", "attention output" or another of `jaxinit.roles`.
        residual: whether it writes to a residual stream.
        recurrent: whether it is its own ancestor through a loop over time.
        head: whether no contraction follows, and it is neither recurrent nor writes to a
            residual stream.
        function: name of the function that follows, such as "gelu".

    Raises:
        ValueError: if the kind or the part is unknown.
        TypeError: if a value is of a wrong type.

    >>> import jax, jaxinit
    >>> params = {"a": jax.ShapeDtypeStruct((6, 24), "float32")}
    >>> x = jax.ShapeDtypeStruct((5, 6), "float32")
    >>> found = jaxinit.roles(lambda params, x: x @ params["a"], params, x)
    >>> plan = jaxinit.plan(params, {role(head=True): jaxinit.zeros}, roles=found)
    >>> print(plan)
    leaf    shape    dtype  initializer  fan_in  fan_out  std  taken for
    a        6x24  float32  zeros             6       24    0  kernel, head: contracted with activations in `dot_general`, no contraction follows
    1 leaves, 144 parameters, 576 bytes
    """  # noqa: E501 - the table is as wide

    kind: str | None = None
    part: str | None = None
    residual: bool | None = None
    recurrent: bool | None = None
    head: bool | None = None
    function: str | None = None

    def __post_init__(self):
        if self.kind is not None and self.kind not in KINDS:
            raise ValueError(
                f"kind must be one of {', '.join(KINDS)}, got {self.kind!r}."
            )
        for name, wanted in _TYPES.items():
            value = getattr(self, name)
            if value is not None and not isinstance(value, wanted):
                raise TypeError(f"{name} must be a {wanted.__name__}, got {value!r}.")
        for part in (self.part or "query").split(", "):
            if part not in PARTS:
                raise ValueError(unknown("part", part, PARTS))

    def __call__(self, leaf: Leaf) -> bool:
        """Whether a leaf has this role."""
        if leaf.role is None:
            raise ValueError(
                f"{self!r} asks for a role, which shapes alone do not tell: give "
                "jaxinit.plan(..., roles=jaxinit.roles(apply, params, *inputs))"
            )
        if not leaf.role.uses:
            return self.kind == "unused"
        are_asked = is_divided(leaf)
        return any(self._fits(use, are_asked) for use in leaf.role.uses)

    def _fits(self, use: Use, are_asked: bool) -> bool:
        """Whether a use is one, where sections are asked for themselves or not."""
        within = {section.part for section in use.sections}
        parts = {use.part} if are_asked else {use.part, *within}
        mixed = are_asked and "recurrent" in within
        wanted = {
            "kind": self.kind in (None, use.kind),
            "part": self.part is None or self.part in parts,
            "residual": self.residual in (None, use.residual is not None),
            "recurrent": self.recurrent is None
            or (self.recurrent == use.recurrent and not mixed),
            "head": self.head in (None, use.head),
            "function": self.function in (None, use.function),
        }
        return all(wanted.values())

    @property
    def settings(self) -> dict[str, str | bool]:
        """What is asked for, by name."""
        given = ((x.name, getattr(self, x.name)) for x in fields(self))
        return {name: value for name, value in given if value is not None}

    def __repr__(self):
        text = ", ".join(f"{name}={value!r}" for name, value in self.settings.items())
        return f"role({text})"


_TYPES = {
    "part": str,
    "residual": bool,
    "recurrent": bool,
    "head": bool,
    "function": str,
}
