"""Roles read from the computation of a model."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core
from jax.sharding import AxisType, NamedSharding

from jaxinit._roles.meetings.uses import uses_of
from jaxinit._roles.patterns.attention import Attention, find_attention
from jaxinit._roles.patterns.choices import chosen
from jaxinit._roles.patterns.contractions import kernel_nodes
from jaxinit._roles.patterns.signals import signals
from jaxinit._roles.reading.facts import Choices
from jaxinit._roles.reading.flow import Flow
from jaxinit._roles.reading.graph import Graph
from jaxinit._roles.role import Role, Roles, Use
from jaxinit._tree.paths import joined, leaf_paths

_PASSES = 6  # until all that loops begin with and all learned tokens are found


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
    >>> params = {"b": jnp.zeros(24), "down": jnp.zeros((24, 6))}
    >>> params["up"] = jnp.zeros((6, 24))
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
    names = [joined(path) for path, leaf in leaf_paths(params) if _is_array(leaf)]
    leaves = [leaf for leaf in jax.tree.leaves(params) if _is_array(leaf)]
    if not leaves:
        raise TypeError(
            "params must have at least one array or jax.ShapeDtypeStruct among its "
            f"leaves, got {type(params).__name__} of "
            f"{len(jax.tree.leaves(params))} leaves."
        )
    closed, batch = _traced(apply, params, (inputs, kwargs))
    uses = _read(closed, names)
    found = [
        _role(name, leaf, uses.get(i, ()))
        for i, (name, leaf) in enumerate(zip(names, leaves, strict=True))
    ]
    return Roles(found, [*_short(batch), *_same(names, leaves)])


def _traced(
    apply: Callable[..., Any], params: Any, given: tuple[tuple, dict[str, Any]]
) -> tuple[core.ClosedJaxpr, list[jax.ShapeDtypeStruct]]:
    """What `apply` computes from arrays in its arguments, and those of its inputs."""
    arrays, fill_params = _opened(params)
    batch, fill_given = _opened(given)

    def call(arrays, batch):
        args, options = fill_given(batch)
        outputs = apply(fill_params(arrays), *args, **options)
        return [leaf for leaf in jax.tree.leaves(outputs) if _is_array(leaf)]

    try:
        return jax.make_jaxpr(call)(arrays, batch), batch
    except Exception as error:
        error.add_note(
            f"apply(params, *inputs) was traced by jaxinit.roles, with {len(arrays)} "
            f"arrays in params and the inputs {', '.join(map(_text, batch)) or 'none'}."
        )
        raise


def _opened(tree: Any) -> tuple[list[jax.ShapeDtypeStruct], Callable[[Any], Any]]:
    """The arrays in a tree, as shapes, and what puts others in their place."""
    leaves, treedef = jax.tree.flatten(tree)
    places = [i for i, leaf in enumerate(leaves) if _is_array(leaf)]

    def filled(arrays: Sequence[Any]) -> Any:
        own = dict(zip(places, arrays, strict=True))
        return treedef.unflatten(own.get(i, leaf) for i, leaf in enumerate(leaves))

    return [_shape(leaves[i]) for i in places], filled


def _shape(array: Any) -> jax.ShapeDtypeStruct:
    """Shape and dtype, and the sharding where it is a part of the type."""
    sharding = getattr(array, "sharding", None)
    types = sharding.mesh.axis_types if isinstance(sharding, NamedSharding) else ()
    kept = sharding if AxisType.Explicit in types else None
    return jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=kept)


def _role(name: str, leaf: Any, uses: Sequence[Use]) -> Role:
    dtype = leaf.dtype if _is_key(leaf) else np.dtype(leaf.dtype)
    return Role(name, tuple(leaf.shape), dtype, tuple(uses), _reason(uses))


def _read(closed: core.ClosedJaxpr, names: Sequence[str]) -> dict[int, list[Use]]:
    """The uses of all leaves; tokens and chosen kernels are found first."""
    graph = Graph(closed, len(names))
    found: set[int] = set()
    flow, attentions = _followed(graph, found)
    for _ in range(_PASSES - 1):
        more = signals(flow, attentions) - found
        if not more:
            break
        found |= more
        flow, attentions = _followed(graph, found)
    choices = chosen(flow, attentions)
    if choices.kernels or choices.unknown:
        flow, attentions = _followed(graph, found, choices)
    return uses_of(flow, attentions, names)


def _followed(
    graph: Graph, found: set[int], choices: Choices | None = None
) -> tuple[Flow, list[Attention]]:
    flow = Flow(graph, found, choices)
    return flow, find_attention(flow, kernel_nodes(flow))


def _is_array(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array | np.ndarray | jax.ShapeDtypeStruct)


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.extended)


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
        f"{', '.join(short)}: an axis of length 1 may hide what a leaf is for, such as "
        "a position; give inputs that are longer."
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
