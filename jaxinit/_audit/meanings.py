"""Findings that depend on what a leaf is for."""

from collections.abc import Iterator, Sequence

from jaxinit._audit.depths import findings_of_depth, findings_of_embeddings
from jaxinit._audit.fan_axes import findings_of_fans
from jaxinit._audit.gradients import findings_of_gradients
from jaxinit._audit.kernels import merged
from jaxinit._audit.naming import Named
from jaxinit._audit.peers import findings_of_peers
from jaxinit._audit.result import Finding
from jaxinit._audit.scales import findings_of_scales
from jaxinit._audit.stacks import findings_of_fused, findings_of_stacked


def findings_of_meanings(groups: Sequence[Named]) -> Iterator[Finding]:
    """What is wrong with the leaves, by what they are for.

    Without roles only what is certain from shapes and paths is found.

    Args:
        groups: the leaves with their laws, in the order of the tree.

    Yields:
        Findings of the kinds fans, fused, stacked, scale, embedding, no-gradient, depth
        and alone; several leaves of which the same is to be said are in one.
    """
    yield from merged(findings_of_gradients(groups))
    yield from merged(findings_of_fans(groups))
    yield from merged(findings_of_stacked(groups))
    yield from merged(findings_of_fused(groups))
    yield from merged(findings_of_embeddings(groups))
    yield from merged(findings_of_scales(groups))
    yield from merged(findings_of_peers(groups))
    yield from merged(findings_of_depth(groups))
