"""Whether the processes of a program hold, or would draw, equal values."""

import dataclasses
import functools
import re
import sys
import types
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import metadata
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, Sharding

from jaxinit._arrays.spread import gathered
from jaxinit._kernel.options import setting
from jaxinit._tree.fingerprint import arrays, digest, hashed
from jaxinit._tree.leaf import PlannedLeaf
from jaxinit._tree.plan import Plan

_SETTINGS = (
    "jax_enable_x64",
    "jax_threefry_partitionable",
    "jax_default_prng_impl",
    "jax_random_seed_offset",
)
_MOST_LEAVES = 8  # that an error names; the others are counted


def check_processes(tree: Any, key: Any = None) -> None:
    """Raises unless all processes of a multi-process program agree.

    All processes must call it. They compare hashes, all raise the same error, and none
    is left waiting.

    Given a plan and a key, before anything is drawn, it compares paths, shapes,
    initializers, shardings, the key, versions and settings. This finds differences that
    arrays cannot show, because a shard that only one process holds has no copy to be
    compared with.

    Given a tree, it compares values. An array that each process has for itself, such as
    a key, is compared as a whole. An array that is sharded over processes is compared
    in the shards that several of them hold.

    Args:
        tree: a plan, or a pytree of arrays, numbers and keys.
        key: with a plan, the root key for `plan.init`.

    Raises:
        ValueError: naming what differs, and in which processes.
        TypeError: if a key is given without a plan.

    >>> import jaxinit
    >>> shapes = {"kernel": jax.ShapeDtypeStruct((64, 32), "float32")}
    >>> plan = jaxinit.plan(shapes, {"**": jaxinit.he_normal()})
    >>> key = jax.random.key(0)
    >>> check_processes(plan, key)
    >>> check_processes({"seed": 0, "params": plan.init(key)})
    """
    if isinstance(tree, Plan):
        _check_plan(tree, key)
    elif key is not None:
        raise TypeError(
            "a key goes with a plan, as in check_processes(plan, key); in a tree, make "
            'it a leaf: check_processes({"params": params, "key": key}).'
        )
    elif jax.process_count() > 1:
        _check_values(tree)


def _check_plan(plan: Plan, key: Any) -> None:
    if jax.process_count() == 1:
        return
    in_all = {
        "versions": [digest([_versions()])],
        "settings": [digest(repr(setting(name)) for name in _SETTINGS)],
        "key": [digest(_of_key(key))],
        "paths": [digest(f"{leaf.path};" for leaf in plan)],
    }
    by_leaf = {
        "shape or dtype": [digest([f"{x.shape}{x.dtype}"]) for x in plan],
        "rule": [digest(_of_rule(x)) for x in plan],
        "sharding": [digest(_of_sharding(x.sharding)) for x in plan],
    }
    # One hash for all leaves first; only what differs is compared leaf by leaf.
    hashes = in_all | {name: [digest(map(repr, h))] for name, h in by_leaf.items()}
    differ = {name: sides for name, _, sides in _differences(hashes)}
    lines = [f"{name}: {differ[name]}" for name in in_all if name in differ]
    if "paths" not in differ:  # then all have equally many leaves
        lines += _leaves_that_differ(
            [leaf.path for leaf in plan],
            {name: each for name, each in by_leaf.items() if name in differ},
        )
    if lines:
        raise ValueError(
            "processes would draw different values; start all from one seed, one "
            "version of the program and the same arguments:\n"
            + "\n".join(f"  {line}" for line in lines)
        )


def _leaves_that_differ(
    paths: Sequence[str], hashes: Mapping[str, Sequence[bytes]]
) -> list[str]:
    if not hashes:
        return []
    lines = [f"{paths[i]}, {name}: {sides}" for name, i, sides in _differences(hashes)]
    more = len(lines) - _MOST_LEAVES
    return lines[:_MOST_LEAVES] + ([f"and {more} more"] if more > 0 else [])


def _differences(
    hashes: Mapping[str, Sequence[bytes]],
) -> Iterator[tuple[str, int, str]]:
    """Name and position of every hash that differs, and between which processes."""
    table = gathered(
        np.array([np.frombuffer(b"".join(h), "<u8") for h in hashes.values()])
    )
    for name, columns in zip(hashes, table.transpose(1, 2, 0).tolist(), strict=True):
        for i, column in enumerate(columns):
            sides = _sides(dict(enumerate(column)))
            if sides:
                yield name, i, sides


def _versions() -> str:
    try:
        own = metadata.version("jaxinit")
    except metadata.PackageNotFoundError:  # run from its source
        own = "unknown"
    return f"jaxinit {own}, jax {jax.__version__}, Python {sys.version_info[:2]}"


def _of_key(key: Any) -> Iterator[str]:
    if key is None:
        return
    dtype: Any = getattr(key, "dtype", None)
    is_typed = jnp.issubdtype(dtype, jax.dtypes.prng_key)
    yield str(jax.random.key_impl(key)) if is_typed else "raw"
    words = jax.random.key_data(key) if is_typed else key
    yield repr(np.asarray(words).tolist())


def _of_rule(leaf: PlannedLeaf) -> Iterator[str]:
    yield repr(leaf.words)
    yield from described(leaf.initializer)


def _of_sharding(sharding: Sharding | None) -> Iterator[str]:
    """A sharding; with its devices, if some belong to other processes."""
    yield repr(sharding)
    if sharding is None or sharding.is_fully_addressable:
        return
    if isinstance(sharding, NamedSharding):
        mesh: Any = sharding.mesh
        yield repr(mesh.device_ids.tolist())
    else:
        yield repr(sorted(device.id for device in sharding.device_set))


def described(value: Any, around: tuple[int, ...] = ()) -> Iterator[str]:
    """Texts that are the same in every process in which a value is the same.

    A function is described by its code and the values that it closes over, because its
    repr has an address in it. Globals that it uses are not looked at.
    """
    if id(value) in around:  # a function that closes over itself
        return
    yield f"{type(value).__qualname__}:"
    for item in _contents(value):
        if isinstance(item, str):
            yield f"{item};"
        else:
            yield from described(item, (*around, id(value)))


def _contents(value: Any) -> Iterable[Any]:
    """What a value is made of: texts, and other values."""
    match value:
        case str() | bytes() | bool() | int() | float() | complex() | None:
            return [repr(value)]
        case np.ndarray() | jax.Array():
            return [f"{value.dtype}{value.shape}", np.asarray(value).tobytes().hex()]
        case tuple() | list():
            return value
        case set() | frozenset():
            return sorted("".join(described(item)) for item in value)
        case dict():
            return [x for item in value.items() for x in item]
        case functools.partial():
            return [value.func, value.args, value.keywords]
        case types.CodeType():
            return [value.co_code, value.co_consts, value.co_names]
        case types.FunctionType():
            cells = [cell.cell_contents for cell in value.__closure__ or ()]
            name = f"{value.__module__}.{value.__qualname__}"
            return [
                name,
                value.__code__,
                value.__defaults__,
                value.__kwdefaults__,
                cells,
            ]
        case types.MethodType():
            return [value.__self__, value.__func__]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [getattr(value, field.name) for field in dataclasses.fields(value)]
    inner = getattr(value, "__wrapped__", None)
    return [re.sub(r" at 0x[0-9a-f]+", "", repr(value))] if inner is None else [inner]


def _check_values(tree: Any) -> None:
    flat = arrays(tree)
    rows = [row for i, (_, array) in enumerate(flat) for row in _hashes(i, array)]
    structure = digest(f"{path}:{array.dtype}{array.shape};" for path, array in flat)
    heads = _gathered([*_two_words(structure), len(rows)])
    sides = _sides({i: tuple(head[:2]) for i, head in enumerate(heads)})
    if sides:
        raise ValueError(f"processes hold trees of other paths or shapes: {sides}.")
    size = max(head[2] for head in heads)
    tables = _gathered([*rows, *[[0] * 5] * (size - len(rows))])
    # By leaf and place in it: the hash that each process has for this shard.
    held: dict[tuple[int, ...], dict[int, tuple]] = {}
    for process, table in enumerate(tables):
        for leaf, *row in table[: heads[process][2]]:
            held.setdefault((leaf, *row[:2]), {})[process] = tuple(row[2:])
    differ = ((flat[leaf][0], _sides(values)) for (leaf, *_), values in held.items())
    lines = dict.fromkeys(f"  {path}: {sides}" for path, sides in differ if sides)
    if lines:
        raise ValueError(
            "processes hold different values; start all from one seed, one version of "
            "the program and the same data:\n" + "\n".join(lines)
        )


def _hashes(leaf: int, array: jax.Array) -> Iterator[list[int]]:
    """Rows for the shards of a leaf here: number of the leaf, place, and hash."""
    shards = {"all": array}
    if not array.is_fully_addressable:
        shards = {str(shard.index): shard.data for shard in array.addressable_shards}
    for place, data in shards.items():
        words = np.asarray(hashed(data)).tolist()
        yield [leaf, *_two_words(digest([place])), *words]


def _gathered(rows: Sequence[Any]) -> list[Any]:
    """The rows of every process; all must have equally many."""
    return gathered(np.array(rows, np.uint32)).tolist()


def _sides(values: Mapping[int, Any]) -> str:
    """Which processes have other values than the rest; empty if none has."""
    sides: dict[Any, list[str]] = {}
    for process, value in values.items():
        sides.setdefault(value, []).append(str(process))
    if len(sides) == 1:
        return ""
    larger_first = sorted(sides.values(), key=len, reverse=True)
    return "processes " + " against ".join(map(", ".join, larger_first))


def _two_words(hashed: bytes) -> list[int]:
    return np.frombuffer(hashed, "<u4").tolist()
