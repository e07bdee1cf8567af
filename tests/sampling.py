"""Samples of tables by default, and whole tables under `-m exhaustive`."""

from collections.abc import Collection, Iterable

import pytest


def sampled(cases: Iterable, beyond: Collection) -> list:
    """The cases as parameters of a test, of which those `beyond` are exhaustive."""
    cases = list(cases)
    unknown = [case for case in beyond if case not in cases]
    assert not unknown, f"no cases of the table: {unknown}"
    return [
        pytest.param(case, marks=[pytest.mark.exhaustive] * (case in beyond))
        for case in cases
    ]
