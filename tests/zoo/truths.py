"""The words in which the truth of a leaf is written, and the register of models.

A truth names the uses of every leaf, one for each place where the computation uses it.
What a truth leaves out is the default; what the terms leave open is `ANY`.
"""

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp


class _Open:
    """Equal to everything that `accepts`: what the terms do not decide."""

    def __init__(self, name: str, accepts: Callable[[Any], bool]):
        self._name, self._accepts = name, accepts

    def __eq__(self, other):
        return self._accepts(other)

    def __hash__(self):
        return 0

    def __repr__(self):
        return self._name


NAMED = {
    *("identity", "relu", "gelu", "silu", "tanh", "sigmoid", "softplus", "elu"),
    *("selu", "leaky_relu", "relu6", "hard_swish", "square", "sin"),
}
ANY = _Open("ANY", lambda _: True)
# A function that has some text, but none of the known names.
UNNAMED = _Open("UNNAMED", lambda name: isinstance(name, str) and name not in NAMED)
# A residual writer whose place in the stream is a matter of opinion.
WRITES = _Open("WRITES", lambda residual: residual is not None)


def one_of(*allowed: str | float | tuple | None) -> _Open:
    """Equal to each of `allowed`: what the terms leave open between them."""
    return _Open(" or ".join(map(str, allowed)), lambda given: given in allowed)


@dataclasses.dataclass(frozen=True)
class Use:
    """One place where a leaf is used."""

    kind: str
    in_axis: Any = ()
    out_axis: Any = ()
    batch_axis: Any = ()
    stack_axis: Any = ()
    spatial_axis: Any = ()
    fan_in: Any = 0
    fan_out: Any = 0
    groups: int = 1
    transposed: bool = False
    multiplier: Any = 1.0
    offset: Any = 0.0
    function: Any = None
    residual: Any = None
    recurrent: bool = False
    head: Any = False
    part: Any = None
    sections: Any = ()
    of: Any = None

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name.endswith("_axis") and isinstance(value, int):
                object.__setattr__(self, field.name, (value,))


FIELDS = [field.name for field in dataclasses.fields(Use)]


@dataclasses.dataclass(frozen=True)
class Model:
    """`apply(params, *inputs)`, the shapes of both, and the uses of every leaf."""

    apply: Callable
    params: Any
    inputs: tuple
    truth: Mapping[str, Any]

    def uses(self) -> dict[str, list[Use]]:
        """The truth with a list for every leaf; empty where the leaf is unused."""
        return {
            path: [uses] if isinstance(uses, Use) else list(uses)
            for path, uses in self.truth.items()
        }


MODELS: dict[str, Callable[[], Model]] = {}


def model(make: Callable[[], Model]) -> Callable[[], Model]:
    """Registers `make` under "family.name"."""
    name = f"{make.__module__.rpartition('.')[2]}.{make.__name__}"
    assert name not in MODELS, name
    MODELS[name] = make
    return make


def differences(truth: Iterable[Use], found: Iterable[Any]) -> list[str]:
    """What `found`, objects with the fields of `Use`, says against the truth."""
    truth, found = list(truth), list(found)
    if truth and all(_is_unknown(use) for use in truth):
        kinds = [use.kind for use in found] or ["unused"]
        return [f"kind: {kind!r}, not 'unknown'" for kind in kinds if kind != "unknown"]
    if len(truth) != len(found):
        return [f"{len(found)} uses, not {len(truth)}"]
    return [
        f"use {index}: {name}: {getattr(theirs, name)!r}, not {getattr(ours, name)!r}"
        for index, (ours, theirs) in enumerate(zip(truth, found, strict=True))
        for name in (["kind"] if _is_unknown(ours) else FIELDS)
        if not _agree(name, getattr(ours, name), getattr(theirs, name))
    ]


def _is_unknown(use: Use) -> bool:
    # What is open between kinds equals "unknown" too, if that is among them.
    return not isinstance(use.kind, _Open) and use.kind == "unknown"


def _agree(name: str, ours, theirs) -> bool:
    if isinstance(ours, _Open):
        return ours == theirs
    if name in ("fan_in", "fan_out", "multiplier", "offset"):
        return math.isclose(ours, theirs, rel_tol=1e-5, abs_tol=1e-9)
    if name == "of":
        return _paths(ours) == _paths(theirs)
    if name == "sections":
        return _sorted(ours) == _sorted(theirs)
    if name.endswith("_axis"):
        return tuple(ours) == tuple(theirs)
    return ours == theirs


def _paths(of) -> list[str]:
    return [of] if isinstance(of, str) else sorted(of or ())


def _sorted(sections) -> list[tuple]:
    plain = [
        (axis, tuple(tuple(run) for run in blocks), part, function)
        for axis, blocks, part, function in sections
    ]
    return sorted(plain, key=lambda section: section[:2])


def kernel(fan_in, fan_out, in_axis=0, out_axis=1, function="identity", **rest) -> Use:
    return Use("kernel", in_axis, out_axis, fan_in=fan_in, fan_out=fan_out,
               function=function, **rest)  # fmt: skip


def convolution(
    fan_in,
    fan_out,
    spatial_axis=(0, 1),
    in_axis=2,
    out_axis=3,
    function="identity",
    **rest,
) -> Use:
    return Use("convolution", in_axis, out_axis, spatial_axis=spatial_axis,
               fan_in=fan_in, fan_out=fan_out, function=function, **rest)  # fmt: skip


def embedding(fan_out, in_axis=0, out_axis=1, **rest) -> Use:
    return Use("embedding", in_axis, out_axis, fan_in=1, fan_out=fan_out, **rest)


def token(fan_out, in_axis, out_axis) -> Use:
    return embedding(fan_out, in_axis, out_axis, part="token")


def position(in_axis=0, out_axis=1, **rest) -> Use:
    return Use("position", in_axis, out_axis, **rest)


def bias(of, out_axis=0, **rest) -> Use:
    return Use("bias", out_axis=out_axis, of=of, **rest)


def shift(out_axis=0, **rest) -> Use:
    """The bias of a norm."""
    return bias(None, out_axis, **rest)


def scale(out_axis=0, **rest) -> Use:
    return Use("scale", out_axis=out_axis, **rest)


def gate(out_axis=(), **rest) -> Use:
    return Use("gate", out_axis=out_axis, **rest)


def statistic() -> Use:
    # The terms name no axes for it.
    return Use("statistic", out_axis=ANY, stack_axis=ANY)


def unused() -> list[Use]:
    return []


def unknown() -> Use:
    return Use("unknown")


def either(*kinds: str) -> Use:
    """A use of one of `kinds`, of which nothing else is said."""
    rest = [name for name in FIELDS if name != "kind"]
    return Use(one_of(*kinds), **dict.fromkeys(rest, ANY))


def dense(path, fan_in, fan_out, weight="kernel", offset="bias", **rest) -> dict:
    """A kernel (inputs, outputs) and its bias, in a group of names."""
    return {
        f"{path}/{weight}": kernel(fan_in, fan_out, **rest),
        # An axis of size 1 only broadcasts.
        f"{path}/{offset}": bias(
            f"{path}/{weight}", 0 if fan_out > 1 else (), part=rest.get("part")
        ),
    }


def norm(path, factor="scale", offset="bias") -> dict:
    """Scale and shift of a norm."""
    return {f"{path}/{factor}": scale(), f"{path}/{offset}": shift()}


def below(prefix: str, truth: Mapping[str, Any]) -> dict[str, Any]:
    """The same truth, with every path below `prefix`."""
    return {
        prefix + path: (
            _below(prefix, uses)
            if isinstance(uses, Use)
            else [_below(prefix, use) for use in uses]
        )
        for path, uses in truth.items()
    }


def _below(prefix: str, use: Use) -> Use:
    if use.of is None or isinstance(use.of, _Open):
        return use
    of = [prefix + path for path in _paths(use.of)]
    return dataclasses.replace(use, of=of)


def every(pattern: str, count: int, truth: Mapping[str, Use]) -> dict[str, Any]:
    """The truth of `count` equal blocks, of which `truth` describes the first.

    A block writes to the residual stream `total // count` times.
    """
    return {
        path: _later(use, index, count)
        for index in range(count)
        for path, use in below(pattern.format(index), truth).items()
    }


def _later(use: Use, index: int, count: int) -> Use:
    if not isinstance(use.residual, tuple):
        return use
    first, total = use.residual
    return dataclasses.replace(use, residual=(first + index * (total // count), total))


def stacked(truth: Mapping[str, Use], axis: int = 0) -> dict[str, Use]:
    """The truth of one layer, for leaves that have an axis of layers at `axis`."""

    def moved(axes):
        return tuple(old + (old >= axis) for old in axes)

    return {
        path: dataclasses.replace(
            use,
            in_axis=moved(use.in_axis),
            out_axis=moved(use.out_axis),
            stack_axis=axis,
            sections=ANY
            if use.sections is ANY
            else [(*moved(cut[:1]), *cut[1:]) for cut in use.sections],
        )
        for path, use in truth.items()
    }


FUNCTIONS = {
    **dict.fromkeys(("input gate", "forget gate", "output gate"), "sigmoid"),
    **dict.fromkeys(("update gate", "reset gate"), "sigmoid"),
    **dict.fromkeys(("cell", "candidate"), "tanh"),
    **dict.fromkeys(("query", "key", "value"), "identity"),
}


def cut(axis: int, size: int, parts, **functions) -> list[tuple]:
    """Sections of `size` along `axis`, one after another.

    Args:
      axis: The axis that is cut.
      size: Of each section.
      parts: Names of the parts, in their order.
      **functions: Where a part's function is not the usual one.
    """
    functions = FUNCTIONS | functions
    return [
        (axis, ((i * size, (i + 1) * size),), part, functions[part])
        for i, part in enumerate(parts)
    ]


def bias_cut(size: int, parts) -> list[tuple]:
    """Sections of a fused kernel's bias, which have no functions."""
    return [(0, *section[1:3], None) for section in cut(0, size, parts)]


def floats(*shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def integers(*shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, jnp.int32)


def layer_norm(x, p):
    """Layer norm over the last axis."""
    return rms_norm(x - x.mean(-1, keepdims=True), p["scale"]) + p["bias"]


def rms_norm(x, scale):
    return x * jax.lax.rsqrt(jnp.square(x).mean(-1, keepdims=True) + 1e-6) * scale
