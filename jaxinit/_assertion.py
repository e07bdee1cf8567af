"""How a function that yields what is wrong becomes an assertion of chex."""

import functools
import inspect
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import chex
import jax
import numpy as np

from jaxinit._arrays.spread import gathered, spans
from jaxinit._tree.problems import problems_message

Problems = Iterator[str]


def chex_assertion(check: Callable[..., Problems]) -> Callable[..., None]:
    """Makes an assertion of a function that yields what is wrong.

    Args:
        check: function whose first argument is a tree, and which yields a line for each
            problem in it.

    Returns:
        The assertion, of the same arguments and of those by keyword that chex's
        assertions take. It raises one error with all lines; where arrays span
        processes, in all of them.
    """

    @functools.wraps(check)
    def assertion(
        *args: Any,
        custom_message: str | None = None,
        custom_message_format_vars: Iterable[Any] = (),
        include_default_message: bool = True,
        exception_type: Callable[[str], Exception] = AssertionError,
        **kwargs: Any,
    ) -> None:
        problems: list[str] = []

        def passes(*_) -> bool:
            problems.extend(check(*args, **kwargs))
            if any(spans(leaf) for leaf in jax.tree.leaves(args[:1])):
                problems.extend(_found_elsewhere(problems))
            return not problems

        def error(_) -> Exception:  # instead of what chex says of its own comparison
            text = problems_message("the tree", problems)
            if include_default_message:
                text = f"Assertion {check.__name__} failed: {text}"
            if custom_message:
                text += f" [{custom_message.format(*custom_message_format_vars)}]"
            return exception_type(f"[Chex] {text}")

        chex.assert_trees_all_equal_comparator(
            passes,
            lambda *_: "",
            0,
            0,
            exception_type=error,  # pyright: ignore[reportArgumentType]
        )

    assertion.__annotations__ = {**check.__annotations__, "return": None}
    signature = inspect.signature(check).replace(return_annotation=None)
    assertion.__signature__ = signature  # pyright: ignore[reportAttributeAccessIssue]
    return assertion


def _found_elsewhere(problems: Sequence[str]) -> Problems:
    """What to say where only other processes found something, in arrays of their own.

    All then raise, lest one goes on and waits for the others.
    """
    found = gathered(np.array(bool(problems)))
    if found.any() and not problems:
        numbers = ", ".join(map(str, np.flatnonzero(found)))
        yield f"nothing is wrong in this process, but in processes {numbers}"
