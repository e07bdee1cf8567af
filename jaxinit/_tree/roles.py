"""Roles read from the computation of a model."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from jaxinit._roles.attention import Attention, find_attention
from jaxinit._roles.contractions import kernel_nodes
from jaxinit._roles.flow import Flow
from jaxinit._roles.graph import Graph
from jaxinit._roles.role import Role, Roles, Use
from jaxinit._roles.signals import signals
from jaxinit._roles.uses import uses_of
from jaxinit._tree.paths import joined, leaf_paths

_PASSES = 3  # until all learned tokens are found


def roles(apply: Callable[..., Any], params: Any, *inputs: Any, **kwargs: Any) -> Roles:
    """What each leaf of `params` is for, read from what `apply` computes with it.

    `apply(params, *inputs, **kwargs)` is traced on shapes, and nothing is computed.

    Args:
        apply: function of parameters and inputs, such as the `apply` of a model.
        params: pytree of the parameters, arrays or `jax.ShapeDtypeStruct`s.
        *inputs: arrays or `jax.ShapeDtypeStruct`s, or pytrees of them; whatever else is
            in them is passed on as it is.
        **kwargs: the same by name.

    Returns:
        The role of each leaf, by path.

    Raises:
        TypeError: if `apply` is not callable, or there are no arrays in `params`.

    >>> import jax.numpy as jnp
    >>> def apply(params, x):
    ...     return jax.nn.gelu(x @ params["up"] + params["b"]) @ params["down"]
    >>> params = {"b": jnp.zeros(24), "down": jnp.zeros((24, 6)), "up": jnp.zeros((6, 24))}
    >>> found = roles(apply, params, jax.ShapeDtypeStruct((5, 6), "float32"))
    >>> found["up"].kind, found["up"].fan_in, found["up"].function
    ('kernel', 6, 'gelu')
    >>> found["down"].head, found["b"].of
    (True, ('up',))
    """
    if not callable(apply):
        raise TypeError(
            f"apply must be a function of parameters and inputs, got {apply!r}."
        )
    pairs = [(joined(path), leaf) for path, leaf in leaf_paths(params)]
    leaves, treedef = jax.tree.flatten(params)
    own = [i for i, leaf in enumerate(leaves) if _is_array(leaf)]
    if not own:
        raise TypeError(
            "params must have at least one array or jax.ShapeDtypeStruct among its "
            f"leaves, got {type(params).__name__} of {len(leaves)} leaves."
        )
    given, given_tree = jax.tree.flatten((inputs, kwargs))
    traced = [i for i, leaf in enumerate(given) if _is_array(leaf)]

    def call(arrays, batch):
        filled = _filled(leaves, own, arrays)
        args, options = jax.tree.unflatten(given_tree, _filled(given, traced, batch))
        outputs = apply(jax.tree.unflatten(treedef, filled), *args, **options)
        return [leaf for leaf in jax.tree.leaves(outputs) if _is_array(leaf)]

    arrays = [_shape(leaves[i]) for i in own]
    batch = [_shape(given[i]) for i in traced]
    try:
        closed = jax.make_jaxpr(call)(arrays, batch)
    except Exception as error:
        error.add_note(
            f"apply(params, *inputs) was traced by jaxinit.roles, with {len(own)} "
            f"arrays in params and the inputs {', '.join(map(_text, batch)) or 'none'}."
        )
        raise
    names = [pairs[i][0] for i in own]
    uses = _read(closed, names)
    found = [
        Role(
            name,
            tuple(x.shape),
            np.dtype(x.dtype) if not _is_key(x) else x.dtype,
            tuple(uses.get(i, ())),
            _reason(uses.get(i, ())),
        )
        for i, (name, x) in enumerate(zip(names, arrays, strict=True))
    ]
    return Roles(found, [*_short(batch), *_same(names, [leaves[i] for i in own])])


def _read(closed: core.ClosedJaxpr, names: Sequence[str]) -> dict[int, list[Use]]:
    """The uses of all leaves; learned tokens are found first, as they are inputs."""
    graph = Graph(closed, len(names))
    found: set[int] = set()
    flow, attentions = _followed(graph, found)
    for _ in range(_PASSES - 1):
        more = signals(flow, attentions) - found
        if not more:
            break
        found |= more
        flow, attentions = _followed(graph, found)
    return uses_of(flow, attentions, names)


def _followed(graph: Graph, found: set[int]) -> tuple[Flow, list[Attention]]:
    flow = Flow(graph, found)
    return flow, find_attention(flow, kernel_nodes(flow))


def _is_array(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array | np.ndarray | jax.ShapeDtypeStruct)


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.extended)


def _shape(leaf: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)


def _filled(leaves: Sequence[Any], places: Sequence[int], values: Sequence[Any]):
    filled = list(leaves)
    for place, value in zip(places, values, strict=True):
        filled[place] = value
    return filled


def _text(x: jax.ShapeDtypeStruct) -> str:
    return f"{x.dtype}[{','.join(map(str, x.shape))}]"


def _reason(uses: Sequence[Use]) -> str:
    if not uses:
        return "the output does not depend on it"
    return "; ".join(dict.fromkeys(use.reason for use in uses))


def _short(batch: Sequence[jax.ShapeDtypeStruct]) -> list[str]:
    """What inputs of length one may hide."""
    short = [_text(x) for x in batch if 1 in x.shape]
    if not short:
        return []
    return [
        f"{', '.join(short)}: an axis of length 1 may hide what a leaf is for, such as a "
        "position; give inputs that are longer."
    ]


def _same(names: Sequence[str], leaves: Sequence[Any]) -> list[str]:
    """Leaves that are one array: each is drawn as if it were alone."""
    first: dict[int, str] = {}
    notes = []
    for name, leaf in zip(names, leaves, strict=True):
        if isinstance(leaf, jax.ShapeDtypeStruct):
            continue
        before = first.setdefault(id(leaf), name)
        if before != name:
            notes.append(f"{before} and {name} are the same array.")
    return notes
