"""Running a model and recording what its layers return, for models of every kind."""

import dataclasses
import functools
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from jax.extend.core import get_opaque_trace_state

from jaxinit._tree.paths import leaf_paths


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["value"],
    meta_fields=["name", "kind", "owner", "shape"],
)
@dataclasses.dataclass(frozen=True)
class Tap:
    """One array that went through a model.

    Attributes:
        name: path of the layer that returned it; for an input, of the layer it enters,
            and " input".
        kind: class of the layer, or "input".
        owner: path of the layer in the parameters; None if it has none.
        shape: shape of the array.
        value: the array, or statistics of it.
    """

    name: str
    kind: str
    owner: tuple[str, ...] | None
    shape: tuple[int, ...]
    value: Any


Change = Callable[[int, Tap], Any]


class Capture(Protocol):
    """Runs a model and records what its layers return.

    It is hashable, so that it is compiled once. `change` is called with the position of
    each tap and the tap; the model goes on with what it returns in place of the array.
    """

    def __call__(
        self, params: Any, state: Any, inputs: tuple, change: Change | None = None
    ) -> tuple[Any, list[Tap]]: ...


@dataclasses.dataclass(frozen=True)
class Model:
    """A model taken apart.

    Attributes:
        capture: runs it.
        params: its parameters.
        state: everything else that it needs.
        whole: puts other parameters into what the caller gave as parameters.
    """

    capture: Capture
    params: Any
    state: Any
    whole: Callable[[Any], Any]


def leaf_owners(params: Any, taps: Sequence[Tap]) -> list[tuple[str, ...] | None]:
    """For every parameter, the path of the innermost layer around it, if any."""
    owners = {tap.owner for tap in taps if tap.owner is not None}
    return [
        next((path[:n] for n in range(len(path), -1, -1) if path[:n] in owners), None)
        for path, _ in leaf_paths(params)
    ]


def is_float(x: Any) -> bool:
    """Whether it is an array of floating-point or complex numbers."""
    return bool(jnp.issubdtype(jnp.result_type(x), jnp.inexact))


def wide(x: jax.Array) -> jax.Array:
    """In float32 or wider, so that sums keep their digits."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """`jax.jit` of `function(capture, setting, *arrays)`, kept for equal models."""
    kept = jax.jit(function, static_argnums=(0, 1))

    @functools.wraps(function)
    def call(capture, setting, *arrays):
        try:
            hash((capture, setting))
        except TypeError:  # a module with a field that does not hash
            return jax.jit(functools.partial(function, capture, setting))(*arrays)
        return kept(capture, setting, *arrays)

    return call


class LayerError(ValueError):
    """A layer that cannot take its input."""


class Recorder:
    """Watches the calls of layers, in the order in which they run.

    Layers under a transformation of their own (scan, vmap, remat, jit inside the model)
    are not seen, since their arrays mean nothing outside it.
    """

    def __init__(self, inputs: Any, change: Change | None):
        self._trace = get_opaque_trace_state()
        self._change = change
        # By id, and with the arrays, so that no other one gets the same id.
        self._seen = {id(leaf): leaf for leaf in jax.tree.leaves(inputs)}
        self._taps: list[Tap] = []
        self._has_run = False

    def taps(self) -> list[Tap]:
        """The recorded arrays; layers that ran more than once are numbered."""
        total, count = Counter(tap.name for tap in self._taps), Counter()
        taps = []
        for tap in self._taps:
            count[tap.name] += 1
            number = f" ({count[tap.name]})" if total[tap.name] > 1 else ""
            taps.append(dataclasses.replace(tap, name=tap.name + number))
        return taps

    def layer(
        self,
        path: Sequence[Any],
        kind: str,
        call: Callable[..., Any],
        args: tuple = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Calls one layer, and records its output and, where it is new, its input.

        Raises:
            LayerError: naming the innermost layer that fails.
        """
        kwargs = kwargs or {}
        if get_opaque_trace_state() != self._trace:
            self._has_run = True
            return call(*args, **kwargs)
        owner = tuple(map(str, path))
        name = "/".join(owner) or kind
        # What the first layer takes is the batch itself, perhaps reshaped.
        if args and self._has_run:
            args = (self._tap(f"{name} input", "input", None, args[0]), *args[1:])
        try:
            output = call(*args, **kwargs)
        except LayerError:
            raise
        except Exception as error:
            raise LayerError(_failure(name, kind, args, error)) from error
        self._has_run = True
        leaves, treedef = jax.tree.flatten(output)
        names = [name, *(f"{name} [{i}]" for i in range(1, len(leaves)))]
        tapped = [
            self._tap(name, kind, owner, leaf)
            for name, leaf in zip(names, leaves, strict=False)
        ]
        if all(a is b for a, b in zip(leaves, tapped, strict=True)):
            return output
        return jax.tree.unflatten(treedef, tapped)

    def _tap(self, name: str, kind: str, owner: tuple | None, value: Any) -> Any:
        if not _is_activation(value) or id(value) in self._seen:
            return value
        self._seen[id(value)] = value
        tap = Tap(name, kind, owner, value.shape, value)
        if self._change is not None:
            value = self._change(len(self._taps), tap)
            self._seen[id(value)] = value
        self._taps.append(dataclasses.replace(tap, value=value))
        return value


def _is_activation(value: Any) -> bool:
    return (
        isinstance(value, jax.Array)
        and value.ndim > 0
        and value.size > 0
        and bool(jnp.issubdtype(value.dtype, jnp.inexact))
    )


def _failure(name: str, kind: str, args: tuple, error: Exception) -> str:
    shapes = ", ".join(
        f"{leaf.dtype}{list(leaf.shape)}"
        for leaf in jax.tree.leaves(args)
        if hasattr(leaf, "shape") and hasattr(leaf, "dtype")
    )
    text = " ".join(str(error).split()).rstrip(".")
    # Sharding errors of jax are about the mesh and the model, not about x.
    is_placed = "sharding" in f"{type(error).__name__} {text}".lower()
    remedy = "" if is_placed else " Check the shape and dtype of x."
    return (
        f"layer {name!r} ({kind}) fails on {shapes or 'its arguments'}: "
        f"{type(error).__name__}: {text}.{remedy}"
    )
