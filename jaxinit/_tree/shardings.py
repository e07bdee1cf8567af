"""The sharding of each leaf, from any of the ways to give one."""

import functools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
from jax.sharding import NamedSharding, PartitionSpec, Sharding

from jaxinit._compile.placement import axis_names, flat_shardings, on_mesh
from jaxinit._tree.leaf import Leaf
from jaxinit._tree.paths import joined, node_paths
from jaxinit._tree.patterns import Patterns


class ShardingRules(Patterns):
    """Ordered rules; the first whose pattern matches a leaf says where it goes.

    Args:
        rules: mapping from patterns, as in `jaxinit.Rules`, to values, or pairs
            of them. A value is a `jax.sharding.Sharding`; a `PartitionSpec` over the
            mesh of `jax.set_mesh`; or None, which leaves the leaf to jax, as if no
            pattern matched it.

    Raises:
        TypeError: if a pattern or a value is of a wrong type.
        ValueError: if a glob is malformed or a pattern is given twice.

    >>> from jax.sharding import PartitionSpec as P
    >>> ShardingRules({"**/kernel": P(None, "model"), "**": P()})
    ShardingRules({'**/kernel': P(None, 'model'), '**': P()})
    """

    def __init__(self, rules: Mapping[Any, Any] | Iterable[tuple[Any, Any]]):
        super().__init__(rules)
        for pattern, value in self._pairs:
            if value is not None and not isinstance(value, PartitionSpec | Sharding):
                raise TypeError(f"the rule for {pattern!r} {_WANTED}, got {value!r}.")

    def places(
        self, leaves: Sequence[Leaf], allow_unused: Sequence[Any]
    ) -> tuple[list[Any], list[str]]:
        """The sharding that the rules give each leaf, and problems of unused rules."""
        positions = [self.find(leaf) for leaf in leaves]
        unused = self.unused(leaves, positions, allow_unused)
        places = [None if i is None else self._pairs[i][1] for i in positions]
        return places, [f"sharding {problem}" for problem in unused]


_WANTED = "must be a jax.sharding.Sharding, a PartitionSpec or None"


def leaf_shardings(
    shardings: Any,
    treedef: Any,
    leaves: Sequence[Leaf],
    allow_unused: Sequence[Any] = (),
) -> tuple[list[Sharding | None], list[str]]:
    """The sharding of every leaf, and the problems.

    Args:
        shardings: `ShardingRules`, or a pytree of shardings, partition specs and None
            that is a prefix of the tree.
        treedef: structure of the tree.
        leaves: its leaves.
        allow_unused: patterns of the rules that need not match any leaf.
    """
    if isinstance(shardings, ShardingRules):
        places, problems = shardings.places(leaves, allow_unused)
    else:
        places, problems = _spread(shardings, treedef, leaves)
    pairs = zip(leaves, places, strict=True)
    fitted, misfits = collected(
        (leaf.path, functools.partial(fitting, place, leaf.shape))
        for leaf, place in pairs
    )
    return fitted, [*problems, *misfits]


def _spread(
    shardings: Any, treedef: Any, leaves: Sequence[Leaf]
) -> tuple[list[Any], list[str]]:
    try:
        return flat_shardings(shardings, jax.tree.unflatten(treedef, leaves)), []
    except ValueError as error:
        problems = _structure_problems(shardings, leaves)
        return [None] * len(leaves), problems or [f"shardings: {error}"]


def _structure_problems(shardings: Any, leaves: Sequence[Leaf]) -> list[str]:
    """Where a tree of shardings is not a prefix of the tree, by paths."""
    flat = node_paths(shardings, lambda x: x is None or isinstance(x, PartitionSpec))
    given, paths = [joined(path) for path, _ in flat], [leaf.path for leaf in leaves]

    def above(prefix: str, path: str) -> bool:
        return prefix in ("", path) or path.startswith(f"{prefix}/")

    return [
        f"{path}: shardings has nothing for it"
        for path in paths
        if not any(above(prefix, path) for prefix in given)
    ] + [
        f"{prefix}: is in shardings, but not in the tree"
        for prefix in given
        if not any(above(prefix, path) for path in paths)
    ]


def collected(
    calls: Iterable[tuple[str, Callable[[], Any]]],
) -> tuple[list[Any], list[str]]:
    """The results of named calls, None for one that raises; and the errors as texts."""
    results, problems = [], []
    for name, call in calls:
        try:
            results.append(call())
        except (TypeError, ValueError) as error:
            results.append(None)
            problems.append(f"{name}: {error}")
    return results, problems


def boxed_shardings(
    tree: Any, is_box: Callable[[Any], bool], sharding_of: Callable[[Any], Any]
) -> tuple[Any, list[str]]:
    """The sharding of every box or bare array of a tree, and the problems.

    Args:
        tree: pytree of arrays, some of them in boxes that say where they go.
        is_box: whether a node is a box.
        sharding_of: the sharding of a box or bare array, or None; may raise.
    """

    def checked(box):
        sharding = sharding_of(box)
        for leaf in jax.tree.leaves(box):
            fitting(sharding, leaf.shape)
        return sharding

    flat, problems = collected(
        (joined(path), functools.partial(checked, box))
        for path, box in node_paths(tree, is_box)
    )
    return jax.tree.unflatten(jax.tree.structure(tree, is_leaf=is_box), flat), problems


def fitting(place: Any, shape: tuple[int, ...]) -> Sharding | None:
    """The sharding for an array of `shape`, checked.

    Args:
        place: a sharding, a `PartitionSpec` over the mesh in use, or None.
        shape: shape of the array.

    Raises:
        TypeError: if `place` is none of these.
        ValueError: if it does not fit the shape.
    """
    sharding = on_mesh(place)
    if isinstance(sharding, NamedSharding):
        _check_divides(sharding, shape)
    elif isinstance(sharding, Sharding):
        sharding.shard_shape(shape)
    elif sharding is not None:
        raise TypeError(f"its sharding {_WANTED}, got {place!r}")
    return sharding


def _check_divides(sharding: NamedSharding, shape: tuple[int, ...]) -> None:
    spec, sizes = sharding.spec, sharding.mesh.shape
    if len(spec) > len(shape):
        raise ValueError(f"{spec} has more axes than its shape {shape}")
    for axis, entry in enumerate(spec):
        count = math.prod(sizes[name] for name in axis_names(entry))
        if shape[axis] % count:
            mesh = ", ".join(f"{name}: {sizes[name]}" for name in axis_names(entry))
            raise ValueError(
                f"{spec} does not fit its shape {shape}: axis {axis} of size "
                f"{shape[axis]} does not divide into {count} parts ({mesh})"
            )
