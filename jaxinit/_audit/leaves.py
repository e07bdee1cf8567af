"""The leaves that are looked at, and classes of them that are named together."""

import contextlib
import reprlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.dtypes import canonicalize_dtype

from jaxinit._arrays.measured import Measured, refuse_traced
from jaxinit._arrays.spread import spans
from jaxinit._audit.measuring import measured_all
from jaxinit._roles.role import Role, Roles
from jaxinit._tree.folding import fold
from jaxinit._tree.paths import joined, leaf_paths


@dataclass(frozen=True)
class Leaf:
    """One array of a tree.

    Attributes:
        path: its path.
        array: the array, where it lies.
        measured: its moments and extremes; None for integers, keys and empty arrays.
        role: what it is for; None where that is not known.
    """

    path: str
    array: Any
    measured: Measured | None
    role: Role | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the array."""
        return tuple(self.array.shape)

    @property
    def dtype(self) -> np.dtype:
        """Dtype of its draws: that of the array, or what jax makes of it."""
        wide = self.array.dtype in ("float64", "complex128")
        return canonicalize_dtype(self.array.dtype) if wide else self.array.dtype


@dataclass(frozen=True)
class Group:
    """Leaves that differ only in numbers of their paths, of one shape and dtype.

    Attributes:
        path: their path, with runs of integers folded.
        leaves: the leaves, in the order of the tree.
    """

    path: str
    leaves: tuple[Leaf, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of each leaf."""
        return self.leaves[0].shape

    @property
    def dtype(self) -> np.dtype:
        """Dtype of each leaf."""
        return self.leaves[0].dtype

    @property
    def role(self) -> Role | None:
        """What the first leaf is for; None where that is not known."""
        return self.leaves[0].role


def parent(path: str) -> str:
    """The path without its last segment."""
    return path.rpartition("/")[0]


def folded(leaves: Sequence[Leaf]) -> tuple[str, ...]:
    """The paths of leaves, those of equal shape folded."""
    runs = fold([leaf.path for leaf in leaves], [leaf.shape for leaf in leaves])
    return tuple(path for path, _ in runs)


def leaves_of(params: Any, roles: Roles | None) -> list[Leaf]:
    """The leaves of a tree, measured."""
    if roles is not None and isinstance(params, Mapping) and "params" in params:
        params = params["params"]  # of Flax, whose roles are of these alone
    flat = [(joined(path), _array(joined(path), x)) for path, x in leaf_paths(params)]
    if roles is not None and not any(path in roles for path, _ in flat):
        raise ValueError(
            f"no leaf has a role: leaves are {_some(path for path, _ in flat)}, roles "
            f"are of {_some(roles)}. Give the roles of the same tree."
        )
    measures = measured_all(array for _, array in flat)
    return [
        Leaf(path, array, measured, None if roles is None else roles.get(path))
        for (path, array), measured in zip(flat, measures, strict=True)
    ]


def _some(paths: Iterable[str]) -> str:
    first, *rest = paths
    return f"{first} and {len(rest)} more" if rest else first


def _array(path: str, leaf: Any) -> Any:
    refuse_traced(leaf)
    where = path or "the tree"
    if isinstance(leaf, jax.ShapeDtypeStruct):
        raise TypeError(f"{where} is a shape without values: an audit needs arrays.")
    return _readable(where, leaf) if isinstance(leaf, jax.Array) else _host(where, leaf)


def _readable(where: str, array: jax.Array) -> jax.Array:
    """An array that this process can read."""
    if array.is_deleted():
        raise ValueError(
            f"{where} was deleted, as by donating it to a function of jax.jit: audit "
            "the tree before that, or what the function returns."
        )
    if not spans(array):
        return array
    if array.is_fully_replicated:
        return array.addressable_data(0)
    raise ValueError(
        f"{where} spans processes: audit what one process holds, as a checkpoint that "
        "it reads."
    )


def _host(where: str, leaf: Any) -> np.ndarray:
    """Numbers of NumPy or Python, as an array that jax can take."""
    if isinstance(leaf, np.ma.MaskedArray):
        raise TypeError(f"{where} is a masked array: give its values, as x.filled(0).")
    is_number = isinstance(leaf, bool | int | float | complex)
    if not is_number and not (hasattr(leaf, "dtype") and hasattr(leaf, "__array__")):
        raise TypeError(f"{where} is {_shown(leaf)}, and no array: {_instead(leaf)}.")
    if _is_of_keras(leaf):
        raise TypeError(f"{where} is a variable of Keras: {_instead(leaf)}.")
    try:
        array = np.asarray(leaf)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"{where} cannot be read as an array: {error}") from error
    if not _is_of_numbers(array.dtype):
        raise TypeError(
            f"{where} has the dtype {array.dtype}, which jax has not: convert it, as "
            "with .astype('float32'), or leave it out."
        )
    if is_number:
        array = array.astype(canonicalize_dtype(array.dtype), copy=False)
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def _is_of_numbers(dtype: np.dtype) -> bool:
    """Whether jax has the dtype: no text, object, time, record or long double."""
    is_number = jnp.issubdtype(dtype, np.number) or dtype == np.bool_
    return bool(is_number and dtype.kind not in "mM" and dtype.char not in "gG")


def _is_of_keras(leaf: Any) -> bool:
    return any(x.__module__.partition(".")[0] == "keras" for x in type(leaf).__mro__)


def _instead(leaf: Any) -> str:
    if _is_of_keras(leaf):
        return "give {w.path: w.value for w in model.weights}"
    return (
        "give the parameters of a model, and leave out what holds no numbers, as by "
        "jax.tree.map or equinox.filter"
    )


_SHORT = reprlib.Repr()
_SHORT.maxother = 60  # characters


def _shown(leaf: Any) -> str:
    """The value, if it is short, and its type."""
    text, kind = _SHORT.repr(leaf), f"of type {type(leaf).__name__}"
    is_short = text.isprintable() and "..." not in text
    return f"{text}, {kind}" if is_short else kind


@contextlib.contextmanager
def looking() -> Iterator[None]:
    """Arrays may be looked at, whatever the settings that watch programs of jax."""
    with (
        jax.debug_nans(False),
        jax.debug_infs(False),
        jax.transfer_guard("allow"),
    ):
        yield


def groups_of(leaves: Sequence[Leaf]) -> list[Group]:
    """Leaves of one shape, dtype and constant whose paths differ only in numbers."""
    runs = fold([leaf.path for leaf in leaves], [_kind(leaf) for leaf in leaves])
    return [Group(path, tuple(leaves[i] for i in run)) for path, run in runs]


def _kind(leaf: Leaf) -> tuple:
    measured, constant = leaf.measured, None
    if measured is not None and measured.is_constant:
        constant = measured.mean
    is_finite = measured is None or not measured.nonfinite
    return leaf.shape, str(leaf.dtype), constant, is_finite
