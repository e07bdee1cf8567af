"""What initialization a model really has, and what is wrong with it.

`audit` names the law that every leaf of a tree of arrays seems to have, and says what
in it should be known or mended: arrays that are equal, laws that do not fit what a
leaf is for, draws with a bias.
"""

from typing import Any

from jaxinit._audit.entries import findings_of_entries
from jaxinit._audit.equalities import findings_of_equalities
from jaxinit._audit.leaves import groups_of, leaves_of, looking
from jaxinit._audit.meanings import findings_of_meanings
from jaxinit._audit.naming import named
from jaxinit._audit.result import KINDS as KINDS
from jaxinit._audit.result import SEVERITIES
from jaxinit._audit.result import Audit as Audit
from jaxinit._audit.result import AuditRow as AuditRow
from jaxinit._audit.result import Finding as Finding
from jaxinit._roles.role import Roles


def audit(params: Any, roles: Roles | None = None) -> Audit:
    """Says which law every leaf seems to have, and what is wrong with the leaves.

    Args:
        params: pytree of arrays; integers and random keys are allowed, and have no law.
        roles: what the leaves are for, as `jaxinit.roles` and its doors give it: then
            fans, sections and depth are those of the computation.

    Returns:
        The audit. It prints.

    Raises:
        TypeError: if a leaf is no array of numbers, or has no values yet.
        ValueError: if the tree has no leaves, or an array was deleted or donated, or
            is sharded over processes.

    >>> import jax, jaxinit
    >>> one, other = jax.random.split(jax.random.key(0))
    >>> draw = jaxinit.lecun_normal()
    >>> params = {"a": draw(one, (64, 32)), "b": 2 * draw(one, (64, 32))}
    >>> found = audit(params | {"c": draw(other, (64, 32))})
    >>> [row.law for row in found.rows if row.path != "b"]
    ['lecun_normal()', 'lecun_normal()']
    >>> [(x.kind, x.severity, x.paths) for x in found.findings]
    [('multiple', 'warning', ('a', 'b'))]
    """
    if roles is not None and not isinstance(roles, Roles):
        raise TypeError(
            f"roles must be what jaxinit.roles gives, or None, got {roles!r}."
        )
    with looking():
        leaves = leaves_of(params, roles)
        if not leaves:
            raise ValueError("the tree has no leaves: there is nothing to audit.")
        groups = named(groups_of(leaves))
        findings = [
            *findings_of_equalities(leaves),
            *findings_of_entries(groups),
            *findings_of_meanings(groups),
        ]
    worst_first = sorted(findings, key=lambda x: -SEVERITIES.index(x.severity))
    return Audit(tuple(group.row for group in groups), tuple(worst_first))
