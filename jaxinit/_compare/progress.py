"""How far training is, as a bar on standard error."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

Tell = Callable[[int, int], None]


@contextlib.contextmanager
def telling(progress: Any) -> Iterator[Tell]:
    """A function that is told how many steps of how many are done.

    Args:
        progress: such a function, True for a bar, or False for none.

    Raises:
        TypeError: if it is none of these.
    """
    if progress is True:
        with _bar() as tell:
            yield tell
    elif progress is False:
        yield lambda done, total: None
    elif callable(progress):
        yield progress  # pyright: ignore - whatever it returns
    else:
        raise TypeError(
            "progress must be True, False, or a function of the steps that are done "
            f"and their number, got {progress!r}."
        )


@contextlib.contextmanager
def _bar() -> Iterator[Tell]:
    try:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
        )
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "progress=True draws with rich: pip install 'jaxinit[cli]'", name=error.name
        ) from error
    columns = TextColumn("training"), BarColumn(), MofNCompleteColumn()
    bar = Progress(
        *columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True
    )
    with bar:
        task = bar.add_task("training", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
