"""Leaves: what a rule may look at, and what a plan has decided."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np

from jaxinit._compile.key_tree import is_key
from jaxinit._roles.role import Role
from jaxinit.initializers.base import Initializer
from jaxinit.initializers.fans import fans


@dataclass(frozen=True)
class Leaf:
    """What a rule may look at.

    Attributes:
        path: path of the leaf, its segments joined by `/`.
        shape: shape of the array.
        dtype: its dtype.
        siblings: the leaves in the same module, itself included, by the last segment of
            their path: a bias finds the shape of its kernel here.
        index: the layer number: from the first segment of the path that is a number or
            ends in one; None if there is none.
        leaves: all leaves of the tree, by path.
        role: what the leaf is for, read from the model's computation; None if the plan
            is made from shapes alone.
        roles: the roles of all leaves of the model, by path; empty without a
            computation.
    """

    path: str
    shape: tuple[int, ...]
    dtype: np.dtype
    siblings: Mapping[str, jax.ShapeDtypeStruct]
    index: int | None
    leaves: Mapping[str, jax.ShapeDtypeStruct]
    role: Role | None = None
    roles: Mapping[str, Role] = field(default_factory=dict, repr=False)


class Kept:
    """What stands for the model's own initializer of a leaf."""

    def __call__(self, key: Any, shape: Sequence[int], dtype: Any = None) -> jax.Array:
        """Raises: nobody but the model can draw it."""
        raise ValueError(
            "only the model itself knows how it draws this leaf: use "
            "jaxinit.linen.init(..., scheme=...) or jaxinit.nnx.create(..., "
            "scheme=...), or give a rule of your own"
        )

    def __repr__(self) -> str:
        return "kept"

    def __reduce__(self) -> str:
        return "kept"


kept = Kept()


def is_kept(initializer: Any) -> bool:
    """Whether an initializer stands for the model's own."""
    return isinstance(initializer, Kept)


@dataclass(frozen=True)
class PlannedLeaf:
    """One leaf of a plan.

    Attributes:
        path: path of the leaf, its segments joined by `/`.
        shape: shape of the array.
        dtype: its dtype.
        initializer: what draws it.
        sharding: where it goes; None leaves it to jax.
        words: two 32-bit words that are folded into the root key to get its key.
        taken_for: what the leaf was taken for, and why: its role, or the part of a
            scheme that its name is one of; "" if neither was asked.
        role: what it is for, read from the model's computation; None without one.
    """

    path: str
    shape: tuple[int, ...]
    dtype: np.dtype
    initializer: Callable[..., jax.Array]
    sharding: jax.sharding.Sharding | None
    words: tuple[int, int]
    taken_for: str = field(default="", compare=False)
    role: Role | None = field(default=None, compare=False, repr=False)

    @property
    def bytes(self) -> int:
        """Size of the array."""
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def std(self) -> float | None:
        """Expected standard deviation; None if the initializer does not know it."""
        if not isinstance(self.initializer, Initializer):
            return None
        try:
            return self.initializer.moments(self.shape, self.dtype).std
        except NotImplementedError:
            return None

    @property
    def fans(self) -> tuple[float, float] | None:
        """Fan in and fan out; None below two axes.

        Those of the computation if the role is known, else as the initializer sees
        them.
        """
        if self.role is not None and self.role.kernels:
            return self.role.kernels[0].fan_in, self.role.kernels[0].fan_out
        if len(self.shape) < 2:
            return None
        own = getattr(self.initializer, "fans", fans)
        return own(self.shape)

    def key(self, root: jax.Array) -> jax.Array:
        """The key of this leaf under a root key."""
        # What a raw key is depends on a setting of jax that jax.jit does not look at.
        folded = _folded_at_once if is_key(root) else _folded
        first, second = self.words
        return folded(root, np.uint32(first), np.uint32(second))

    def draw(self, root: jax.Array) -> jax.Array:
        """The array, given the root key."""
        return self.initializer(self.key(root), self.shape, self.dtype)

    def draw_or_keep(self, root: jax.Array, own: jax.Array) -> jax.Array:
        """The array, given the root key and the one that the model itself draws."""
        return own if self.is_kept else self.draw(root)

    @property
    def is_kept(self) -> bool:
        """Whether the model's own initializer draws it."""
        return is_kept(self.initializer)


def _folded(key: jax.Array, first: Any, second: Any) -> jax.Array:
    return jax.random.fold_in(jax.random.fold_in(key, first), second)


# jax traces this once, and not for each leaf, where it would take most of the time.
_folded_at_once = jax.jit(_folded)
