"""Plans: what each leaf of a parameter tree gets, known before anything is drawn."""

import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax

from jaxinit._basics.keys import check_key
from jaxinit._basics.table import Tabular
from jaxinit._compile.jit import JittedInit, Programs, jit
from jaxinit._compile.placement import whole_on_explicit_mesh
from jaxinit._roles.role import Roles
from jaxinit._tree.checks import initializers_of, leaf_contexts
from jaxinit._tree.leaf import Leaf, PlannedLeaf
from jaxinit._tree.paths import (
    collisions,
    leaf_paths,
    path_words,
)
from jaxinit._tree.plan_table import plan_table
from jaxinit._tree.problems import PlanError, problems_message
from jaxinit._tree.rules import Rules, checked_patterns, keyed
from jaxinit._tree.shardings import leaf_shardings


@functools.lru_cache(256)
def _drawing(
    leaves: tuple[PlannedLeaf, ...], place: jax.sharding.Sharding | None
) -> JittedInit:
    """A function of the root key that draws these leaves.

    Args:
        leaves: the leaves.
        place: where leaves without a sharding go.
    """

    def draw(key):
        return [leaf.draw(key) for leaf in leaves]

    shardings = [leaf.sharding or place for leaf in leaves]
    return jit(draw, out_shardings=shardings if any(shardings) else None)


class Plan(Tabular):
    """A parameter tree before it is drawn: printable, iterable, and a pure function.

    Made by `jaxinit.plan`. Iterating gives a `PlannedLeaf` for each leaf.
    """

    def __init__(self, leaves: Sequence[PlannedLeaf], treedef: Any):
        self._leaves = tuple(leaves)
        self._treedef = treedef

    def init(self, key: jax.Array) -> Any:
        """Draws all leaves.

        Each leaf has a key of its own, which follows from the root key and the path of
        the leaf alone (or, by `keyed`, another path). So its values do not depend on
        other leaves, their order or the mesh, or on whether this is called eagerly or
        under `jax.jit`, `jax.vmap` or `jax.pmap`.

        Args:
            key: root key, typed or raw.

        Returns:
            Pytree of the structure of the plan, each leaf with its planned sharding.

        Raises:
            TypeError: if `key` is not a key.
            ValueError: if it is an array of several keys.
        """
        check_key(key)
        return jax.tree.unflatten(self._treedef, self._drawing()(key))

    def programs(self, key: jax.Array) -> Programs:
        """The programs that `init` compiles, as `jaxinit.jit(...).programs(key)`."""
        check_key(key)
        paths = [leaf.path for leaf in self]
        return self._drawing().programs(key).restructured(self._treedef, paths)

    def _drawing(self) -> JittedInit:
        place = whole_on_explicit_mesh()
        return self._unplaced if place is None else _drawing(self._leaves, place)

    @functools.cached_property
    def _unplaced(self) -> JittedInit:
        return _drawing(self._leaves, None)

    def complete(self, key: jax.Array, known: Mapping[str, Any]) -> Any:
        """The tree that `init` gives for a key, with some leaves given.

        Args:
            key: root key.
            known: the given leaves, by path; they are not checked.

        Returns:
            Pytree of the structure of the plan.

        Raises:
            TypeError: if `key` is not a key.
            ValueError: if it is an array of several keys.
        """
        check_key(key)
        missing = tuple(leaf for leaf in self if leaf.path not in known)
        arrays = _drawing(missing, whole_on_explicit_mesh())(key)
        drawn = dict(zip((leaf.path for leaf in missing), arrays, strict=True))
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

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Plan):
            return NotImplemented
        return (self._leaves, self._treedef) == (other._leaves, other._treedef)

    def __hash__(self) -> int:
        return hash((self._leaves, self._treedef))

    def __deepcopy__(self, memo: Any) -> "Plan":
        return self  # nothing in it changes, and devices cannot be copied

    def __reduce__(self):
        if any(leaf.sharding is not None for leaf in self):
            raise TypeError(
                "a plan with shardings cannot be pickled: its devices belong to this "
                "process. Pickle shapes and rules, and plan again."
            )
        # The tree is pickled, not its treedef: Equinox compares a part of a treedef by
        # identity, which pickling does not keep.
        return _restored, (jax.tree.unflatten(self._treedef, self),)

    def __repr__(self) -> str:
        return f"<Plan of {len(self)} leaves, {self.bytes:,} bytes>"

    def _table(self):
        return plan_table(self._leaves)


def _restored(tree: Any) -> Plan:
    return Plan(*jax.tree.flatten(tree))


def checked_plan(name: str, value: Any) -> Plan:
    """The value, if it is a plan.

    Args:
        name: what the error calls it.
        value: the value.

    Raises:
        TypeError: if it is not; the message says how to make one.
    """
    if isinstance(value, Plan):
        return value
    raise TypeError(
        f"{name} must be a jaxinit.Plan, as jaxinit.plan(shapes, rules) makes of rules "
        f"or of a mapping from patterns to initializers, got {value!r} of type "
        f"{type(value).__name__}."
    )


def plan(
    shapes: Any,
    rules: Any,
    *,
    roles: Roles | None = None,
    shardings: Any = None,
    allow_unused: Sequence[Any] = (),
) -> Plan:
    """Decides what every leaf of a parameter tree gets.

    Args:
        shapes: pytree of arrays or `jax.ShapeDtypeStruct`s, as of
            `jax.eval_shape(model.init, key, x)`; None leaves are kept as they are.
        rules: `Rules`, or what makes them: a mapping from patterns to initializers. The
            first pattern that matches a leaf decides.
        roles: what each leaf is for, as `jaxinit.roles` reads it from the model. Rules
            and schemes that ask for roles then go by them, and not by names.
        shardings: where leaves go: None, a sharding, a pytree of them that is a prefix
            of `shapes`, or `ShardingRules`. A `PartitionSpec` refers to the mesh of
            `jax.set_mesh`.
        allow_unused: patterns of rules that need not match any leaf.

    Returns:
        The plan.

    Raises:
        PlanError: naming every leaf that no rule matches, every required rule that
            matches no leaf, leaves that are not arrays of numbers, leaves whose paths
            are the same text or would give the same key, initializers that cannot make
            their leaf or draw values that its dtype cannot hold, shardings that do not
            fit, and roles of another model.
        TypeError: if `rules` are not rules, or `roles` not roles.

    >>> import jax, jaxinit
    >>> shapes = {"kernel": jax.ShapeDtypeStruct((8, 4), "float32")}
    >>> params = jaxinit.plan(shapes, {"**/kernel": jaxinit.he_normal()}).init(
    ...     jax.random.key(0)
    ... )
    >>> params["kernel"].shape
    (8, 4)
    """
    return model_plan(shapes, rules, roles, shardings, allow_unused, allow_kept=False)


def model_plan(
    shapes: Any,
    rules: Any,
    roles: Roles | None,
    shardings: Any = None,
    allow_unused: Sequence[Any] = (),
    allow_kept: bool = True,
) -> Plan:
    """As `plan`, with leaves that may be left to the model's own initializers.

    Args:
        shapes: as in `plan`.
        rules: as in `plan`.
        roles: as in `plan`.
        shardings: as in `plan`.
        allow_unused: as in `plan`.
        allow_kept: whether the initializer of a leaf may be `kept`.
    """
    rules = Rules(rules)
    allow_unused = checked_patterns("allow_unused", allow_unused)
    flat = leaf_paths(shapes)
    treedef = jax.tree.structure(shapes)
    contexts = leaf_contexts(flat, _checked_roles(roles))
    paths = [path for path, _ in flat]
    hashes = [path_words(path) for path in paths]
    problems = [
        f"{' and '.join(group)}: their hashes are equal, so the same key; rename one"
        for group in collisions(paths, hashes)
    ]
    words = dict(zip((leaf.path for leaf in contexts), hashes, strict=True))
    initializers, taken, wrong = initializers_of(
        rules, shapes, contexts, allow_unused, allow_kept
    )
    placed, misplaced = leaf_shardings(shardings, treedef, contexts, allow_unused)
    problems += [*wrong, *misplaced]
    if problems:
        owner = f"the plan by {rules.name}" if rules.name else "the plan"
        raise PlanError(problems_message(owner, problems))
    rows = zip(contexts, initializers, placed, taken, strict=True)
    return Plan([_planned(*row, words) for row in rows], treedef)


def _checked_roles(value: Any) -> Roles | None:
    if value is None or isinstance(value, Roles):
        return value
    raise TypeError(
        "roles must be what jaxinit.roles(apply, params, *inputs) returns, or None, "
        f"got {value!r}."
    )


def _planned(
    leaf: Leaf,
    initializer: Any,
    place: Any,
    taken: str,
    words: Mapping[str, tuple[int, int]],
) -> PlannedLeaf:
    path = leaf.path
    if isinstance(initializer, keyed):
        initializer, path = initializer.initializer, initializer.path
    # The tree tells where segments end, which text with slashes in names does not. A
    # path of `keyed` that no leaf has is only text.
    own = words.get(path) or path_words(tuple(path.split("/")))
    return PlannedLeaf(
        leaf.path, leaf.shape, leaf.dtype, initializer, place, own, taken, leaf.role
    )


def init_tree(
    key: jax.Array,
    shapes: Any,
    rules: Any,
    *,
    roles: Roles | None = None,
    shardings: Any = None,
) -> Any:
    """Draws a parameter tree by rules: `plan(shapes, rules).init(key)`.

    Args:
        key: root key.
        shapes: as in `plan`.
        rules: as in `plan`.
        roles: as in `plan`.
        shardings: as in `plan`.

    Returns:
        Pytree of the structure of `shapes`.
    """
    return plan(shapes, rules, roles=roles, shardings=shardings).init(key)
