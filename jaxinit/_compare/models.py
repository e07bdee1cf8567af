"""Models that can be trained, of every kind: what training needs of one."""

import functools
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import jax
import jax.numpy as jnp

from jaxinit._compare.switches import switched
from jaxinit._roles.role import Roles
from jaxinit._tree.roles import roles
from jaxinit.signal import Signal, propagate


class Trainable(Protocol):
    """A model taken apart, for a batch of given shapes.

    Attributes:
        keeps: whether the model has initializers of its own.
    """

    keeps: bool

    def own(self, key: jax.Array) -> tuple[Any, Any]:
        """Parameters, by the model's own initializers or as shapes; other state."""
        ...

    def roles(self) -> Roles:
        """What each parameter is for."""
        ...

    def call(
        self, params: Any, state: Any, x: tuple, key: jax.Array, train: bool
    ) -> tuple[Any, Any]:
        """What the model returns, and its state afterwards."""
        ...

    def signal(self, params: Any, state: Any, x: tuple) -> Signal:
        """The signal through the model, as it is trained."""
        ...


@dataclass(frozen=True)
class Function:
    """A function of parameters and inputs, with the shapes of its parameters."""

    shapes: Any
    apply: Callable[..., Any]
    inputs: tuple
    options: Mapping[str, Any] = field(default_factory=dict)
    keeps = False

    def own(self, key):
        return jax.tree.map(_shape, self.shapes), ()

    def roles(self):
        return roles(self.apply, self.shapes, *self.inputs, **self._options(True))

    def call(self, params, state, x, key, train):
        return self.apply(params, *x, **self._options(train)), state

    def signal(self, params, state, x):
        # One layer that takes all inputs at once, as x of several would be.
        return propagate([functools.partial(self._whole, x)], [params], x[0])

    def _whole(self, x, params, first):
        return self.apply(params, first, *x[1:], **self._options(True))

    def _options(self, train: bool) -> dict[str, Any]:
        return switched(self.apply, self.options, train)


def _shape(leaf: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(jnp.shape(leaf), jnp.result_type(leaf))


def as_inputs(x: Any) -> tuple:
    """What a model is called on: the arrays of a tuple one by one."""
    return x if isinstance(x, tuple) else (x,)


def _refuse_linen_class(model: Any) -> None:
    bases = getattr(model, "__mro__", ())
    if any(base.__module__.startswith("flax.linen") for base in bases):
        name = model.__name__
        raise TypeError(f"model is the class {name}: give a module, such as {name}().")


def opened(model: Any, x: Any, options: Mapping[str, Any]) -> Trainable:
    """A model taken apart.

    Args:
        model: a Flax Linen module, a function of an `nnx.Rngs` that makes an NNX
            module, or shapes of parameters and a function of these and the inputs.
        x: shapes of a batch.
        options: keyword arguments of the model's call.

    Raises:
        TypeError: if it is none of these.
    """
    inputs = as_inputs(x)
    _refuse_linen_class(model)
    if _is_module(model, "flax.linen"):
        from jaxinit._compare.linen import LinenModel

        return LinenModel(model, inputs, dict(options))
    if isinstance(model, tuple | list) and len(model) == 2 and callable(model[1]):
        return Function(model[0], model[1], inputs, dict(options))
    if callable(model) and not _is_module(model, "flax.nnx"):
        from jaxinit._compare.nnx import NNXModel

        return NNXModel(model, inputs, dict(options))
    raise TypeError(
        "model must be a Flax Linen module, a function of rngs that makes a Flax NNX "
        "module, such as `lambda rngs: Model(rngs=rngs)`, or (shapes, apply), got "
        f"{_kind(model)}."
    )


def _kind(model: Any) -> str:
    if _is_module(model, "flax.nnx"):
        return "an NNX module that is made already"
    return f"a value of type {type(model).__name__}"


def _is_module(model: Any, package: str) -> bool:
    loaded = sys.modules.get(package)
    return loaded is not None and isinstance(model, loaded.Module)
