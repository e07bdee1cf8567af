"""Errors that name all problems of a tree at once, each with its path."""

from collections.abc import Sequence


class PlanError(ValueError):
    """All that is wrong with a plan, or with a tree given to one, in one message."""


def problems_message(owner: str, problems: Sequence[str]) -> str:
    """All problems as one message."""
    count = f"{len(problems)} problem{'s' if len(problems) > 1 else ''}"
    return f"{owner} has {count}:\n" + "\n".join(f"  {text}" for text in problems)
