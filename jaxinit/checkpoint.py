"""Writing parameters so that what has the final name is always whole."""

import contextlib
import logging
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

_OS_ERROR = re.compile(r"os[ _]error(?: |_code=')(\d+)")


def save(path: str | os.PathLike, params: Any) -> None:
    """Writes `params` in a temporary folder beside `path`, then renames them.

    Args:
        path: a name that ends in `.safetensors` for one file, with `/`-joined paths as
            names; any other name for the folder of an Orbax checkpoint. Random keys
            are written as their words.
        params: pytree of arrays.

    Raises:
        FileExistsError: if there is something at `path` already.
        ImportError: if the package that writes the format is not installed.
        OSError: if the disk is full or the folder cannot be written. Nothing is left
            behind, here as after any other failure.
    """
    path = Path(path).absolute()
    write = writer(path)
    _refuse_existing(path)
    beside = {"prefix": f".{path.name}.", "suffix": ".partial", "dir": path.parent}
    with tempfile.TemporaryDirectory(**beside, ignore_cleanup_errors=True) as folder:
        whole = Path(folder) / path.name
        with _os_errors():
            write(whole, jax.tree.map(_storable, params))
        _refuse_existing(path)
        os.rename(whole, path)
    _sync(path.parent)


def writer(path: Path) -> Callable[[Path, Any], None]:
    """The function that writes the format `path` asks for, its package imported."""
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
        hook, logger = sys.unraisablehook, logging.getLogger("absl")
        sys.unraisablehook = _ignoring_closed_loops(hook)
        logger.addFilter(_is_not_of_orbax)
        with ocp.StandardCheckpointer() as checkpointer:
            checkpointer.save(path, params)
        # Both stay after a failure, since other writes under way fail later.
        logger.removeFilter(_is_not_of_orbax)
        sys.unraisablehook = hook

    return write


def _ignoring_closed_loops(hook: Callable[[Any], Any]) -> Callable[[Any], None]:
    """`hook`, but for what follows a failed write.

    Orbax closes its event loop at the first failure; each other write under way then
    fails to report to it, which Python can only print.
    """

    def ignoring(unraisable: Any) -> None:
        if str(unraisable.exc_value) != "Event loop is closed":
            hook(unraisable)

    return ignoring


def _is_not_of_orbax(record: logging.LogRecord) -> bool:
    """Orbax logs the tracebacks of what it raises as well, each thread its own."""
    return "orbax" not in record.pathname


@contextlib.contextmanager
def _os_errors() -> Iterator[None]:
    """Turns what the writers make of an error of the system back into an OSError."""
    try:
        yield
    except Exception as error:
        code = _OS_ERROR.search(str(error))
        if code is None:
            raise
        raise OSError(int(code[1]), os.strerror(int(code[1]))) from error


def _storable(leaf: jax.Array) -> jax.Array:
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return jax.random.key_data(leaf)
    return leaf


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
