"""Reading parameters from files, mapped into memory where the format allows it."""

import contextlib
import gc
import importlib
import json
import logging
import math
import sys
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxinit._basics.table import printable
from jaxinit._cli.checkpoint import ignoring_closed_loops, is_not_of_orbax
from jaxinit._cli.errors import CommandError, failing, installed
from jaxinit._tree.paths import joined, leaf_paths

_MOST_NAMED = 8  # of what an error lists
_WIDEST = {"b": 1, "i": 8, "u": 8, "f": 8, "c": 16}  # bytes of an entry in jax
_SAFETENSORS: dict[str, Any] = {
    "BOOL": np.bool_,
    **{f"I{bits}": f"int{bits}" for bits in (8, 16, 32, 64)},
    **{f"U{bits}": f"uint{bits}" for bits in (8, 16, 32, 64)},
    **{f"F{bits}": f"float{bits}" for bits in (16, 32, 64)},
    "C64": np.complex64,
    "BF16": jnp.bfloat16,
    "F8_E4M3": jnp.float8_e4m3fn,
    "F8_E5M2": jnp.float8_e5m2,
    "F8_E4M3FNUZ": jnp.float8_e4m3fnuz,
    "F8_E5M2FNUZ": jnp.float8_e5m2fnuz,
}


def read(path: Path) -> Any:
    """The arrays of a file, or of the folder of an Orbax checkpoint.

    The arrays of `.safetensors`, and of `.npz` unless it is compressed, lie in the file
    until they are looked at. Nothing is unpickled. Those of an Orbax checkpoint are
    read to the host, whatever devices they were on.

    Args:
        path: a file that ends in `.safetensors` or `.npz`; or a folder, as of
            `jaxinit init --out`, Orbax's StandardCheckpointer, or one step of its
            CheckpointManager.

    Returns:
        Pytree of NumPy arrays. Dots in the names of a file separate segments of paths
        as slashes do, unless two names would then be equal.

    Raises:
        CommandError: if there is no such file, or it is of another format, incomplete
            or empty, or holds anything but arrays of numbers.
    """
    if not path.exists():
        raise CommandError(
            f"there is no file or folder {path}; a model is named as module:name"
        )
    if path.is_dir():
        with failing(f"reading {path}"):
            tree = _orbax(path)
    elif path.suffix in _READERS:
        with failing(f"reading {path}"):
            tree = _with_slashes(dict(_READERS[path.suffix](path)))
    else:
        raise CommandError(
            f"{path} is of no format that is read: name a file that ends in "
            f"{' or '.join(_READERS)}, the folder of an Orbax checkpoint, or a model "
            "as module:name"
        )
    if not jax.tree.leaves(tree):
        raise CommandError(f"{path} holds no arrays")
    return tree


def _with_slashes(arrays: Mapping[str, Any]) -> dict[str, Any]:
    """The arrays by path, as `blocks/0/kernel` for `blocks.0.kernel`."""
    paths = {name.replace(".", "/"): x for name, x in arrays.items()}
    return paths if len(paths) == len(arrays) else dict(arrays)


def _safetensors(path: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Names and arrays: 8 bytes of a length, a header in JSON, and the entries."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > size - 8:
            raise CommandError(
                f"{path} is no safetensors file, or was cut off: it has {size:,} bytes"
            )
        header = _header(path, file.read(length))
    missing = max((x["data_offsets"][1] for x in header.values()), default=0)
    missing -= size - 8 - length
    if missing > 0:
        raise CommandError(f"{path} was cut off: {missing:,} bytes are missing")
    data = np.memmap(path, np.uint8, "r")[8 + length :]
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        dtype, shape = _dtype(path, name, entry["dtype"]), tuple(entry["shape"])
        if min(begin, *shape, 0) < 0 or end - begin != _bytes(shape, dtype):
            raise CommandError(
                f"{path} is damaged: {printable(name)}, {entry['dtype']}{list(shape)}, "
                f"is said to have {end - begin:,} bytes"
            )
        yield name, np.asarray(data[begin:end]).view(dtype).reshape(shape)


def _header(path: Path, text: bytes) -> dict[str, Any]:
    try:
        header = json.loads(text)
    except ValueError:  # no JSON, or no UTF-8
        header = None
    if not isinstance(header, dict):
        raise CommandError(
            f"{path} is no safetensors file: its header is no JSON object"
        )
    header.pop("__metadata__", None)
    for name, entry in header.items():
        if not _is_entry(entry):
            raise CommandError(
                f"{path} is no safetensors file: its header says of {printable(name)} "
                "no dtype, shape and data_offsets"
            )
    return header


def _is_entry(entry: Any) -> bool:
    """Whether a value of a header says what an array is, and where."""
    if not isinstance(entry, dict) or not isinstance(entry.get("dtype"), str):
        return False
    shape, offsets = entry.get("shape"), entry.get("data_offsets")
    if not isinstance(shape, list) or not isinstance(offsets, list):
        return False
    return len(offsets) == 2 and all(type(x) is int for x in [*shape, *offsets])


def _dtype(path: Path, name: str, text: str) -> np.dtype:
    if text not in _SAFETENSORS:
        raise CommandError(
            f"{path}: {printable(name)} is of the dtype {text}; read are "
            f"{', '.join(_SAFETENSORS)}"
        )
    return np.dtype(_SAFETENSORS[text])


def _npz(path: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Names and arrays: a zip archive of .npy files, each with a header of its own."""
    try:
        archive = zipfile.ZipFile(path)
    except zipfile.BadZipFile:
        raise CommandError(f"{path} is no .npz file, or was cut off") from None
    with archive:
        members = archive.infolist()
        dtypes = [_entries(archive, x) for x in members]
        wrong = [
            f"{member.filename.removesuffix('.npy')} ({dtype})"
            for member, dtype in zip(members, dtypes, strict=True)
            if isinstance(dtype, str)
        ]
        _refuse(path, wrong)
        for member, dtype in zip(members, dtypes, strict=True):
            array = _member(path, archive, member).view(dtype)
            yield member.filename.removesuffix(".npy"), _native(array)


def _entries(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.dtype | str:
    """The dtype of a member of an archive, or what it holds instead of numbers."""
    if not member.filename.endswith(".npy"):
        return "no array"
    try:
        with archive.open(member) as file:
            _, _, dtype = _npy_header(file)
    except ValueError as error:  # as for float8 of a dtype that NumPy cannot read
        return " ".join(str(error).split())
    if dtype == "V2":  # what NumPy writes of jax.numpy.bfloat16
        return np.dtype(jnp.bfloat16)
    if dtype.hasobject:
        return "Python objects, which are not unpickled"
    if dtype == "V1":
        return "float8 or int4, whose dtype NumPy does not write"
    is_known = dtype.itemsize <= _WIDEST.get(dtype.kind, 0)
    return dtype if is_known else str(dtype)


def _npy_header(file: Any) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, whether in Fortran's order, and dtype; the file is then at the entries."""
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(file)
    return np.lib.format.read_array_header_2_0(file)


def _member(
    path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo
) -> np.ndarray:
    """An array where it lies in the file; a compressed one is read."""
    with archive.open(member) as file:
        shape, is_fortran, dtype = _npy_header(file)
        begin = file.tell()
    size = _bytes(shape, dtype)
    if member.file_size - begin != size:
        raise CommandError(f"{path} is damaged: {printable(member.filename)}")
    if not size or member.compress_type != zipfile.ZIP_STORED:
        with archive.open(member) as file:
            return np.lib.format.read_array(file, allow_pickle=False)
    begin += _beginning(path, member)
    order = "F" if is_fortran else "C"
    return np.asarray(np.memmap(path, dtype, "r", begin, shape, order))


def _beginning(path: Path, member: zipfile.ZipInfo) -> int:
    """Where a member begins, behind a header that names it once more."""
    with path.open("rb") as file:
        file.seek(member.header_offset + 26)
        name, extra = (int.from_bytes(file.read(2), "little") for _ in range(2))
    return member.header_offset + 30 + name + extra


def _native(array: np.ndarray) -> np.ndarray:
    """The array in the byte order of this machine, the only one that jax takes."""
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder())


def _bytes(shape: tuple[int, ...], dtype: np.dtype) -> int:
    return math.prod(shape) * dtype.itemsize


def _orbax(path: Path) -> Any:
    folder = _checkpoint(path)
    if folder != path:
        print(f"jaxinit: reading {printable(str(folder))}", file=sys.stderr)
    folder = folder.absolute()
    ocp = installed(lambda: importlib.import_module("orbax.checkpoint"))
    with _quietly(), ocp.PyTreeCheckpointer() as checkpointer:
        tree = checkpointer.metadata(folder).item_metadata.tree
        wrong = [
            f"{joined(names)} ({type(leaf).__name__.removesuffix('Metadata')})"
            for names, leaf in leaf_paths(tree)
            if not hasattr(leaf, "dtype")
        ]
        _refuse(path, wrong)
        as_numpy = ocp.RestoreArgs(restore_type=np.ndarray)
        arguments = jax.tree.map(lambda _: as_numpy, tree)
        return checkpointer.restore(folder, restore_args=arguments)


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Without the warnings of Orbax, such as that an item is no whole checkpoint.

    And without what Python prints when it collects reads that were under way.
    """
    logger, hook = logging.getLogger("absl"), sys.unraisablehook
    logger.addFilter(is_not_of_orbax)
    sys.unraisablehook = ignoring_closed_loops(hook)
    try:
        yield
    finally:
        gc.collect()
        sys.unraisablehook = hook
        logger.removeFilter(is_not_of_orbax)


def _checkpoint(path: Path) -> Path:
    """The folder that holds the arrays of a checkpoint: itself, or its only item."""
    for pattern in (_METADATA, f"*/{_METADATA}", f"*/*/{_METADATA}"):
        found = sorted(x.parent.relative_to(path) for x in path.glob(pattern))
        if len(found) == 1:
            return path / found[0]
        if found:
            steps = sorted({Path(x.parts[0]) for x in found})
            names = [*map(str, steps if len(steps) > 1 else found)]
            raise CommandError(
                f"{path} holds several checkpoints, {_some(names)}: name one of them, "
                f"such as {path / names[-1]}"
            )
    files = sorted(x.name for x in path.iterdir() if x.suffix in _READERS)
    hint = f": name one of its files, {_some(files)}" if files else ""
    raise CommandError(
        f"{path} is no Orbax checkpoint, as neither it nor a folder in it has a file "
        f"{_METADATA}{hint}"
    )


def _refuse(path: Path, wrong: list[str]) -> None:
    if wrong:
        raise CommandError(
            f"{path} holds what is no array of numbers: {_some(wrong)}; leave it out"
        )


def _some(names: list[str]) -> str:
    more = len(names) - _MOST_NAMED
    listed = ", ".join(map(printable, names[:_MOST_NAMED]))
    return f"{listed} and {more} more" if more > 0 else listed


_METADATA = "_METADATA"  # the file that Orbax writes into every tree of arrays
_READERS = {".safetensors": _safetensors, ".npz": _npz}
