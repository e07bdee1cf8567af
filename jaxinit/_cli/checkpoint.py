"""Writing parameters such that a file of the final name is always complete."""

import contextlib
import glob
import logging
import os
import platform
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxinit._arrays.spread import gathered, spans
from jaxinit._tree.plan import problems_message

_OS_ERROR = re.compile(r"os[ _]error(?: |_code=')(\d+)")
_QUIET = 1.0  # seconds without a new file after which writers must have ended
_TEXT = 1024  # bytes of a text that processes exchange


def save(path: str | os.PathLike, params: Any) -> None:
    """Writes `params` in a temporary folder beside `path`, then renames them.

    Arrays that span the processes of a multi-process program are saved by all of them
    together, with the same `path` on a file system that they share: each writes its own
    shards of an Orbax checkpoint, and the first one renames it. Of arrays that every
    process has for itself, the ones of the first process are written. A tree without
    arrays that span processes is saved by the process that calls this, alone, as
    `.safetensors`.

    Files that a killed process left next to `path` are removed.

    Args:
        path: a name that ends in `.safetensors` for one file, with `/`-joined paths as
            names; any other name for the folder of an Orbax checkpoint. Random keys
            are written as their words.
        params: pytree of arrays.

    Raises:
        FileExistsError: if there is something at `path` already.
        ImportError: if the package that writes the format is not installed.
        OSError: if the disk is full or the folder cannot be written, here or in another
            process. As after any other failure, nothing is left behind.
        TypeError: naming every leaf that is not an array.
        ValueError: naming every leaf that the format cannot hold, or whose path would
            be written like the path of another leaf. Nothing has been written then.
    """
    path = Path(path).absolute()
    write = writer(path)
    params = _storable(params)
    _refuse_unstorable(path, params)
    if any(map(spans, jax.tree.leaves(params))):
        _save_together(path, write, params)
    else:
        _refuse_orbax_alone(path)
        _refuse_existing(path)
        with _partial(path) as folder, _os_errors():
            write(folder / path.name, params)
            _rename(folder, path)


def _refuse_orbax_alone(path: Path) -> None:
    """Raises for an Orbax checkpoint of one process: Orbax would wait for all."""
    if jax.process_count() > 1 and path.suffix != ".safetensors":
        raise ValueError(
            f"{path} would be an Orbax checkpoint, which all processes write together, "
            "of arrays of this process alone: choose a name that ends in .safetensors."
        )


def _save_together(path: Path, write: Callable[[Path, Any], None], params: Any) -> None:
    """Saves in steps, each of which fails in all processes or in none."""
    is_first = jax.process_index() == 0
    with contextlib.ExitStack() as stack:

        def make() -> Path | None:
            if not is_first:
                return None
            _refuse_existing(path)
            return stack.enter_context(_partial(path))

        own = _in_all(path, make)
        texts = _texts(f"{path}\n{own.name if own else ''}")
        if len({text.partition("\n")[0] for text in texts}) > 1:
            raise ValueError(f"processes save to different paths: {path} in this one.")
        folder = path.parent / texts[0].partition("\n")[2]
        _in_all(path, lambda: _refuse_unshared(folder))
        with _os_errors():
            _in_all(path, lambda: write(folder / path.name, params))
            _in_all(path, lambda: _rename(folder, path) if is_first else None)


def _in_all(path: Path, step: Callable[[], Any]) -> Any:
    """The result of a step; if it fails in one process, all raise."""
    try:
        result, error = step(), None
    except Exception as raised:
        result, error = None, raised
    texts = _texts("" if error is None else f"{type(error).__name__}: {error}")
    if error is not None:
        raise error
    for process, text in enumerate(texts):
        if text:
            raise OSError(f"process {process} could not write {path}: {text}")
    return result


def _texts(text: str) -> list[str]:
    """The texts of all processes."""
    row = np.zeros(_TEXT, np.uint8)
    encoded = text.encode()[:_TEXT]
    row[: len(encoded)] = np.frombuffer(encoded, np.uint8)
    return [
        each.tobytes().rstrip(b"\0").decode(errors="replace") for each in gathered(row)
    ]


def _refuse_unshared(folder: Path) -> None:
    if not folder.is_dir():
        raise OSError(
            f"{folder.parent} is not on a file system that all processes share, as a "
            "checkpoint of arrays that span them must be."
        )


@contextlib.contextmanager
def _partial(path: Path) -> Iterator[Path]:
    """A temporary folder next to `path`, locked as long as this process lives."""
    prefix = f".{path.name}.{platform.node()[:32]}."
    _remove_stale(path.parent, prefix)
    folder = Path(tempfile.mkdtemp(".partial", prefix, path.parent))
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        with contextlib.suppress(OSError):  # some file systems have no locks
            stack.enter_context(_lock(folder / "unlocked", os.O_CREAT))
            os.rename(folder / "unlocked", folder / "lock")
        yield folder


def _remove_stale(parent: Path, prefix: str) -> None:
    """Removes the folders of killed processes of this host.

    A lock ends with its process. A folder without a lock file may be in use, and stays.
    """
    for folder in parent.glob(f"{glob.escape(prefix)}*.partial"):
        with contextlib.suppress(OSError), _lock(folder / "lock"):
            shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _lock(file: Path, flags: int = 0) -> Iterator[None]:
    """Holds the lock of a file.

    Raises:
        OSError: if another process holds it, or there are no locks.
    """
    try:
        import fcntl
    except ImportError:  # not POSIX
        raise OSError("no locks") from None

    descriptor = os.open(file, os.O_RDWR | flags)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def _rename(folder: Path, path: Path) -> None:
    _refuse_existing(path)
    os.rename(folder / path.name, path)
    _sync(path.parent)


def writer(path: Path) -> Callable[[Path, Any], None]:
    """The function that writes the format of `path`; imports its package."""
    return _safetensors() if path.suffix == ".safetensors" else _orbax()


def _safetensors() -> Callable[[Path, Any], None]:
    from safetensors.numpy import save_file

    def write(path: Path, params: Any) -> None:
        flat = {
            jax.tree_util.keystr(names, simple=True, separator="/"): np.asarray(leaf)
            for names, leaf in jax.tree.leaves_with_path(params)
        }
        path.touch()
        mode = path.stat().st_mode  # the user's default, which save_file ignores
        save_file(flat, path)
        path.chmod(mode)
        _sync(path)

    return write


def _orbax() -> Callable[[Path, Any], None]:
    import orbax.checkpoint as ocp

    def write(path: Path, params: Any) -> None:
        if not jax.tree.leaves(params):
            raise ValueError("Orbax writes no tree without arrays, and params has none")
        hook = sys.unraisablehook
        sys.unraisablehook = ignoring_closed_loops(hook)
        for name, is_kept in _FILTERS.items():
            logging.getLogger(name).addFilter(is_kept)
        if jax.process_count() > 1:  # Orbax takes no arrays of one process there
            params = jax.tree.map(lambda x: x if spans(x) else np.asarray(x), params)
        try:
            with ocp.StandardCheckpointer() as checkpointer:
                checkpointer.save(path, params)
        except BaseException:
            _outlast_writers(path.parent)
            raise
        # All stay after a failure, since other writes under way fail later.
        for name, is_kept in _FILTERS.items():
            logging.getLogger(name).removeFilter(is_kept)
        sys.unraisablehook = hook

    return write


def _outlast_writers(folder: Path) -> None:
    """Empties a folder until no new files appear in it.

    Orbax raises at the first failure, while other writes are still under way, which
    create files and their folders again.
    """
    quiet_since = time.monotonic()
    while time.monotonic() - quiet_since < _QUIET:
        for entry in [*folder.glob("*")]:
            if entry.name != "lock":
                quiet_since = time.monotonic()
                shutil.rmtree(entry, ignore_errors=True)
        time.sleep(_QUIET / 20)


def ignoring_closed_loops(hook: Callable[[Any], Any]) -> Callable[[Any], None]:
    """`hook`, without the errors that follow a failed write.

    Orbax closes its event loop at the first failure. Each other write under way then
    fails to report to it, an error that Python can only print.
    """

    def ignoring(unraisable: Any) -> None:
        if str(unraisable.exc_value) != "Event loop is closed":
            hook(unraisable)

    return ignoring


def is_not_of_orbax(record: logging.LogRecord) -> bool:
    """A filter for logs: each thread of Orbax logs a traceback of what it raises."""
    return "orbax" not in record.pathname


def _is_not_left_over(record: logging.LogRecord) -> bool:
    """Nobody waits for the other writes under way, and asyncio says so of each."""
    error = record.exc_info[1] if record.exc_info else None
    is_left_over = "exception was never retrieved" in record.getMessage()
    is_of_the_system = isinstance(error, OSError) or _OS_ERROR.search(str(error))
    return not (is_left_over and is_of_the_system)


_FILTERS = {"absl": is_not_of_orbax, "asyncio": _is_not_left_over}


@contextlib.contextmanager
def _os_errors() -> Iterator[None]:
    """Turns errors of the writers that quote a system error into that OSError."""
    try:
        yield
    except Exception as error:
        code = _OS_ERROR.search(str(error))
        if code is None:
            raise
        raise OSError(int(code[1]), os.strerror(int(code[1]))) from error


def _storable(params: Any) -> Any:
    """The tree, with keys as words and numbers as arrays."""
    flat = jax.tree.leaves_with_path(params)
    wrong = [
        f"{_written(path, '/')}: not an array but {leaf!r}"
        for path, leaf in flat
        if not isinstance(
            leaf, jax.Array | np.ndarray | np.generic | int | float | complex
        )
    ]
    if wrong:
        raise TypeError(problems_message("params", wrong))
    return jax.tree.map(_as_stored, params)


def _as_stored(leaf: Any) -> Any:
    if not hasattr(leaf, "dtype"):
        return jnp.asarray(leaf)
    is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return jax.random.key_data(leaf) if is_key else leaf


def _refuse_unstorable(path: Path, params: Any) -> None:
    """Raises, naming every leaf that would not be read back as it is."""
    is_file = path.suffix == ".safetensors"
    refusal = _refused_by_safetensors() if is_file else _refused_by_orbax()
    flat = jax.tree.leaves_with_path(params)
    problems = [
        f"{_written(names, '/')}: {problem}"
        for names, leaf in flat
        if (problem := refusal(leaf)) is not None
    ]
    # Orbax joins the segments of a path by dots, so that different paths may be equal.
    problems += _collisions([names for names, _ in flat], "/" if is_file else ".")
    if problems:
        raise ValueError(problems_message(str(path), problems))


def _collisions(paths: Sequence[Any], separator: str) -> Iterator[str]:
    groups: dict[str, list[str]] = {}
    for names in paths:
        shown = jax.tree_util.keystr(names)
        groups.setdefault(_written(names, separator), []).append(shown)
    for name, group in groups.items():
        if len(group) > 1:
            both = " and ".join(group)
            yield f"{both}: both would be written as {name!r}; rename one"


def _written(names: Any, separator: str) -> str:
    return jax.tree_util.keystr(names, simple=True, separator=separator)


def _refused_by_safetensors() -> Callable[[Any], str | None]:
    from safetensors import SafetensorError
    from safetensors.numpy import save as as_bytes

    def refusal(leaf: Any) -> str | None:
        if spans(leaf):
            return (
                "spans processes, which one file cannot hold parts of; choose a name "
                "without .safetensors, for an Orbax checkpoint"
            )
        try:
            as_bytes({"": np.zeros(0, leaf.dtype)})
        except SafetensorError:
            return (
                f"safetensors has no {leaf.dtype}; convert it with .astype, or choose "
                "a name without .safetensors, for an Orbax checkpoint"
            )

    return refusal


def _refused_by_orbax() -> Callable[[Any], str | None]:
    import tensorstore  # what Orbax writes with

    def refusal(leaf: Any) -> str | None:
        if not leaf.size:
            return (
                f"Orbax writes no arrays without entries, such as {leaf.shape}; leave "
                "it out, or choose a name that ends in .safetensors"
            )
        try:
            tensorstore.dtype(leaf.dtype.name)
        except ValueError:
            return f"Orbax has no {leaf.dtype}; convert it with .astype"

    return refusal


def _refuse_existing(path: Path) -> None:
    if os.path.lexists(path):
        raise FileExistsError(f"{path} exists already: choose another name")


def _sync(path: Path) -> None:
    if os.name == "posix":  # elsewhere a folder cannot be opened
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
