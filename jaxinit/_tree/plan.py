"""Plans: which leaf of a parameter tree gets what, known before anything is drawn."""

import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxinit._array.fans import fans
from jaxinit._array.initializer import Initializer
from jaxinit._compile.jit import JittedInit, Programs, jit
from jaxinit._tree.paths import (
    Path,
    collisions,
    joined,
    layer_index,
    leaf_paths,
    path_words,
)
from jaxinit._tree.rules import Leaf, Rules, keyed
from jaxinit._tree.shardings import leaf_shardings
from jaxinit._tree.table import as_html, as_text


class PlanError(ValueError):
    """All that is wrong with a plan, or with a tree given to one, in one message."""


@dataclass(frozen=True)
class PlannedLeaf:
    """One leaf of a plan.

    Attributes:
        path: path of the leaf, its segments joined by `/`.
        shape: shape of the array.
        dtype: its dtype.
        initializer: what draws it.
        sharding: where it goes; None leaves it to jax.
        words: the two 32-bit words that are folded into the root key for it.
    """

    path: str
    shape: tuple[int, ...]
    dtype: np.dtype
    initializer: Callable[..., jax.Array]
    sharding: jax.sharding.Sharding | None
    words: tuple[int, int]

    @property
    def bytes(self) -> int:
        """Size of the array."""
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def std(self) -> float | None:
        """Expected standard deviation; None if the initializer does not know it."""
        if not isinstance(self.initializer, Initializer):
            return None
        return self.initializer.moments(self.shape, self.dtype).std

    @property
    def fans(self) -> tuple[float, float] | None:
        """Fan in and fan out as the initializer sees them; None below two axes."""
        if len(self.shape) < 2:
            return None
        own = getattr(self.initializer, "fans", fans)
        return own(self.shape)

    def key(self, root: jax.Array) -> jax.Array:
        """The key of this leaf under a root key."""
        for word in self.words:
            root = jax.random.fold_in(root, np.uint32(word))
        return root

    def draw(self, root: jax.Array) -> jax.Array:
        """The array, given the root key."""
        return self.initializer(self.key(root), self.shape, self.dtype)


@functools.lru_cache(256)
def _drawing(leaves: tuple[PlannedLeaf, ...]) -> JittedInit:
    """A function of the root key that draws these leaves."""

    def draw(key):
        return [leaf.draw(key) for leaf in leaves]

    shardings = [leaf.sharding for leaf in leaves]
    return jit(draw, out_shardings=shardings if any(shardings) else None)


class Plan:
    """A parameter tree before it is drawn: printable, iterable, and a pure function.

    Made by `jaxinit.plan`. Iterating gives a `PlannedLeaf` for each leaf.
    """

    def __init__(self, leaves: Sequence[PlannedLeaf], treedef: Any):
        self._leaves = tuple(leaves)
        self._treedef = treedef

    def init(self, key: jax.Array) -> Any:
        """Draws all leaves.

        Each leaf has a key of its own, that follows from the root key and its path
        alone (or, by `keyed`, another path). So its values do not depend on other
        leaves, their order, the mesh, or on whether this is called eagerly, under
        `jax.jit`, `jax.vmap` or `jax.pmap`.

        Args:
            key: root key, typed or raw.

        Returns:
            Pytree of the structure of the plan, each leaf with its planned sharding.
        """
        return jax.tree.unflatten(self._treedef, self._all(key))

    def programs(self, key: jax.Array) -> Programs:
        """What `init` compiles, as `jaxinit.jit(...).programs(key)`."""
        paths = [leaf.path for leaf in self]
        return self._all.programs(key).restructured(self._treedef, paths)

    @functools.cached_property
    def _all(self) -> JittedInit:
        return _drawing(self._leaves)

    def complete(self, key: jax.Array, known: Mapping[str, Any]) -> Any:
        """The tree that `init` gives for a key, but for leaves that are known.

        Args:
            key: root key.
            known: leaves by path, as they are to be; they are not looked at.

        Returns:
            Pytree of the structure of the plan.
        """
        missing = tuple(leaf for leaf in self if leaf.path not in known)
        drawn = dict(
            zip((leaf.path for leaf in missing), _drawing(missing)(key), strict=True)
        )
        values = {**drawn, **known}
        return jax.tree.unflatten(self._treedef, [values[leaf.path] for leaf in self])

    @property
    def bytes(self) -> int:
        """Size of all leaves."""
        return sum(leaf.bytes for leaf in self)

    def __iter__(self) -> Iterator[PlannedLeaf]:
        return iter(self._leaves)

    def __len__(self) -> int:
        return len(self._leaves)

    def __str__(self) -> str:
        return as_text(self._leaves)

    def __repr__(self) -> str:
        return f"<Plan of {len(self)} leaves, {self.bytes:,} bytes>"

    def _repr_html_(self) -> str:
        return as_html(self._leaves)


def plan(
    shapes: Any,
    rules: Any,
    *,
    shardings: Any = None,
    allow_unused: Sequence[Any] = (),
) -> Plan:
    """Decides what every leaf of a parameter tree gets.

    Args:
        shapes: pytree of arrays or `jax.ShapeDtypeStruct`s, as of
            `jax.eval_shape(model.init, key, x)`; None leaves are kept as they are.
        rules: `Rules`, or what makes them: a mapping from patterns to initializers. The
            first pattern that matches a path decides.
        shardings: where leaves go: None, a sharding, a pytree of them that is a prefix
            of `shapes`, or `Rules` whose values are shardings, `PartitionSpec`s or
            None. A `PartitionSpec` refers to the mesh of `jax.set_mesh`.
        allow_unused: patterns of rules that need not match any leaf.

    Returns:
        The plan.

    Raises:
        PlanError: naming every leaf that no rule matches, every required rule that
            matches no leaf, leaves that are not arrays, leaves that would share a key,
            initializers that cannot make their leaf, and shardings that do not fit.

    >>> import jax, jaxinit
    >>> shapes = {"kernel": jax.ShapeDtypeStruct((8, 4), "float32")}
    >>> params = jaxinit.plan(shapes, {"**/kernel": jaxinit.he_normal()}).init(
    ...     jax.random.key(0)
    ... )
    >>> params["kernel"].shape
    (8, 4)
    """
    rules = Rules(rules)
    flat = leaf_paths(shapes)
    treedef = jax.tree.structure(shapes)
    problems = _not_arrays(flat)
    if problems:
        raise PlanError(problems_message("the plan", problems))
    contexts = leaf_contexts(flat)
    problems += [
        f"{' and '.join(group)}: the same path as text, so the same key; rename one"
        for group in collisions([path for path, _ in flat])
    ]
    found = [rules.find(leaf) for leaf in contexts]
    problems += [
        f"{leaf.path}: no rule matches it"
        for leaf, position in zip(contexts, found, strict=True)
        if position is None
    ]
    unused = rules.unused(found, allow_unused)
    problems += [f"rule {pattern!r}: matches no leaf" for pattern in unused]
    initializers, wrong = _initializers(rules, contexts, found)
    placed, misplaced = leaf_shardings(shardings, treedef, contexts, allow_unused)
    problems += [*wrong, *misplaced]
    if problems:
        owner = f"the plan by {rules.name}" if rules.name else "the plan"
        raise PlanError(problems_message(owner, problems))
    leaves = []
    for (path, _), c, init, place in zip(
        flat, contexts, initializers, placed, strict=True
    ):
        if isinstance(init, keyed):
            init, path = init.initializer, tuple(init.path.split("/"))
        leaves.append(
            PlannedLeaf(c.path, c.shape, c.dtype, init, place, path_words(path))
        )
    return Plan(leaves, treedef)


def init_tree(key: jax.Array, shapes: Any, rules: Any, *, shardings: Any = None) -> Any:
    """Draws a parameter tree by rules: `plan(shapes, rules).init(key)`.

    Args:
        key: root key.
        shapes: as in `plan`.
        rules: as in `plan`.
        shardings: as in `plan`.

    Returns:
        Pytree of the structure of `shapes`.
    """
    return plan(shapes, rules, shardings=shardings).init(key)


def problems_message(owner: str, problems: Sequence[str]) -> str:
    """All problems as one message."""
    count = f"{len(problems)} problem{'s' if len(problems) > 1 else ''}"
    return f"{owner} has {count}:\n" + "\n".join(f"  {text}" for text in problems)


def _not_arrays(flat: Sequence[tuple[Path, Any]]) -> list[str]:
    return [
        f"{joined(path)}: not an array but {leaf!r}; leave it out, as by "
        "equinox.filter or nnx.state"
        for path, leaf in flat
        if not (hasattr(leaf, "shape") and hasattr(leaf, "dtype"))
    ]


def leaf_contexts(flat: Sequence[tuple[Path, Any]]) -> list[Leaf]:
    """What rules may look at, of every leaf."""
    siblings: dict[Path, dict[str, jax.ShapeDtypeStruct]] = {}
    leaves: dict[str, jax.ShapeDtypeStruct] = {}
    for path, leaf in flat:
        name = path[-1] if path else ""
        shape = jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)
        siblings.setdefault(path[:-1], {})[name] = leaves[joined(path)] = shape
    return [
        Leaf(
            joined(path),
            tuple(leaf.shape),
            jnp.dtype(leaf.dtype),
            siblings[path[:-1]],
            layer_index(path),
            leaves,
        )
        for path, leaf in flat
    ]


def _initializers(rules, contexts, found) -> tuple[list[Any], list[str]]:
    initializers, problems = [], []
    checked: dict[Any, str | None] = {}
    for leaf, position in zip(contexts, found, strict=True):
        initializer = None
        if position is not None:
            try:
                initializer = rules.initializer(position, leaf)
                problem = _checked(initializer, leaf, checked)
            except Exception as error:  # whatever a rule of the user's raises
                problem = f"{type(error).__name__}: {error}"
            if problem:
                problems.append(f"{leaf.path}: {problem}")
        initializers.append(initializer)
    return initializers, problems


def _checked(initializer: Any, leaf: Leaf, known: dict[Any, str | None]) -> str | None:
    """What is wrong with an initializer for a leaf, found without drawing."""
    name = (initializer, leaf.shape, leaf.dtype)
    if name not in known:
        known[name] = _problem(initializer, leaf)
    return known[name]


def _problem(initializer: Any, leaf: Leaf) -> str | None:
    try:
        made = jax.eval_shape(
            lambda key: initializer(key, leaf.shape, leaf.dtype), jax.random.key(0)
        )
    except Exception as error:  # any initializer may refuse a shape in its own way
        return f"{initializer!r} cannot make it: {error}"
    if (made.shape, made.dtype) == (leaf.shape, leaf.dtype):
        return None
    return (
        f"{initializer!r} makes {made.dtype}{list(made.shape)} instead of "
        f"{leaf.dtype}{list(leaf.shape)}"
    )
