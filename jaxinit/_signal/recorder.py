"""What every capture of a model's layers has in common, whatever made the model."""

import dataclasses
import functools
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from jax.extend.core import get_opaque_trace_state


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["value"],
    meta_fields=["name", "kind", "owner", "shape"],
)
@dataclasses.dataclass(frozen=True)
class Tap:
    """One array that went through a model.

    Attributes:
        name: path of the layer it came from, or was to go into.
        kind: class of the layer, or "input".
        owner: path of the layer in the parameters; None if it has none.
        shape: shape of the array.
        value: the array, or what was measured of it.
    """

    name: str
    kind: str
    owner: tuple[str, ...] | None
    shape: tuple[int, ...]
    value: Any


class Capture(Protocol):
    """Runs a model and tells what its layers returned; hashable, to be compiled once.

    `offsets`, one for each tap, are added to the arrays where they are tapped, so that
    the gradient with respect to an offset is that with respect to the array.
    """

    def __call__(
        self,
        params: Any,
        state: Any,
        inputs: tuple,
        offsets: Sequence[jax.Array] | None,
    ) -> tuple[Any, list[Tap]]: ...


class LayerError(ValueError):
    """A layer that cannot take what it is given."""


class Recorder:
    """Watches the calls of layers, in the order in which they run.

    Layers under a transformation of their own (scan, vmap, remat, jit inside the model)
    are not seen, since their arrays mean nothing outside it.
    """

    def __init__(self, inputs: Any, offsets: Sequence[jax.Array] | None):
        self._trace = get_opaque_trace_state()
        self._offsets = offsets
        # Holds what it has seen, so that no id is given to another array.
        self._seen = {id(leaf): leaf for leaf in jax.tree.leaves(inputs)}
        self._taps: list[Tap] = []
        self._has_run = False

    def taps(self) -> list[Tap]:
        """What was recorded; layers that were called again are numbered."""
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
        if args and self._has_run:  # before any layer, it is a view of the data
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
        if self._offsets is not None:
            value = value + self._offsets[len(self._taps)]
            self._seen[id(value)] = value
        self._taps.append(Tap(name, kind, owner, value.shape, value))
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
    return (
        f"layer {name!r} ({kind}) fails on {shapes or 'its arguments'}: "
        f"{type(error).__name__}: {text}. Check the shape and dtype of x."
    )
