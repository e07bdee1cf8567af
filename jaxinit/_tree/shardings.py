"""Where leaves go: one sharding for each, from any of the ways to say it."""

from collections.abc import Sequence
from typing import Any

import jax
from jax.sharding import Sharding

from jaxinit._compile.placement import flat_shardings, on_mesh
from jaxinit._tree.paths import matcher
from jaxinit._tree.rules import Leaf


class ShardingRules:
    """Ordered pairs of a pattern and where leaves go whose path it matches.

    Args:
        rules: mapping from patterns, as those of `jaxinit.Rules`, to `Sharding`s,
            `PartitionSpec`s or None. Leaves that none matches are left to jax.
    """

    def __init__(self, rules: Any):
        self._rules = [(matcher(p), value) for p, value in dict(rules).items()]

    def find(self, leaf: Leaf) -> Any:
        """The sharding for a leaf."""
        hits = (value for matches, value in self._rules if matches(leaf))
        return next(hits, None)


def leaf_shardings(
    shardings: Any, treedef: Any, leaves: Sequence[Leaf]
) -> tuple[list[Sharding | None], list[str]]:
    """The sharding of every leaf, and what is wrong with them.

    Args:
        shardings: `ShardingRules`, or a pytree of shardings, partition specs and None
            that is a prefix of the tree.
        treedef: structure of the tree.
        leaves: its leaves.
    """
    problems: list[str] = []
    found: list[Sharding | None] = []
    for leaf, value in zip(leaves, _spread(shardings, treedef, leaves), strict=True):
        try:
            sharding = on_mesh(value)
            if sharding is not None:
                sharding.shard_shape(leaf.shape)
        except (TypeError, ValueError, AttributeError, KeyError) as error:
            sharding = None
            problems.append(f"{leaf.path}: {value} does not fit {leaf.shape}: {error}")
        found.append(sharding)
    return found, problems


def _spread(shardings: Any, treedef: Any, leaves: Sequence[Leaf]) -> list[Any]:
    if isinstance(shardings, ShardingRules):
        return [shardings.find(leaf) for leaf in leaves]
    try:
        return flat_shardings(shardings, jax.tree.unflatten(treedef, leaves))
    except ValueError as error:
        raise ValueError(
            "shardings must be one sharding, or a prefix of the tree of shapes: "
            f"{error}"
        ) from error
