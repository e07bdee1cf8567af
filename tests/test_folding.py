"""Repeated blocks fold into one row, in work that grows with the number of leaves."""

import string
from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
import pytest
from hypothesis import given
from hypothesis import strategies as st

import jaxinit
from jaxinit._tree import folding
from jaxinit._tree.folding import fold
from jaxinit.initializers.base import Initializer
from jaxinit.laws import Normal

FOLDED = {
    "run": (["b_0/w", "b_1/w", "b_2/w"], ["b_{0..2}/w x3"]),
    "gap": (["b_0/w", "b_1/w", "b_3/w"], ["b_{0..1}/w x2", "b_3/w x1"]),
    "order of text": ([f"{i}" for i in (0, 1, 10, 2)], ["{0..2} x3", "10 x1"]),
    "box": (
        ["1/0", "0/1", "0/0", "1/1", "0/2"],
        ["{0..1}/{0..1} x4", "0/2 x1"],
    ),
    "ragged": (["0/0", "0/1", "1/0"], ["{0..1}/0 x2", "0/1 x1"]),
    "diagonal": (["0/0", "1/1"], ["0/0 x1", "1/1 x1"]),
    "other names": (["a0", "b1", "a_0"], ["a0 x1", "b1 x1", "a_0 x1"]),
    "leading zeros": (
        ["a00", "a01", "a10", "a11"],
        ["a00 x1", "a01 x1", "a{10..11} x2"],
    ),
    "odd digits": (["a1٣", "a1٤", "a²"], ["a1٣ x1", "a1٤ x1", "a² x1"]),
    "long numbers": (
        [f"{'9' * 5000}{i}" for i in range(2)],
        [f"{'9' * 5000}{i} x1" for i in range(2)],
    ),
    "null": (["\0a0", "\0a1", "\0"], ["\0a{0..1} x2", "\0 x1"]),
    "empty": (["", "0"], [" x1", "0 x1"]),
    "none": ([], []),
}


@pytest.mark.parametrize("name", FOLDED)
def test_fold(name):
    paths, expected = FOLDED[name]
    found = fold(paths, [None] * len(paths))
    assert [f"{path} x{len(members)}" for path, members in found] == expected
    assert sorted(i for _, members in found for i in members) == [*range(len(paths))]


def unfolded(folded: str) -> list[str]:
    """The paths that a folded one stands for."""
    head, brace, rest = folded.partition("{")
    if not brace:
        return [folded]
    span, _, tail = rest.partition("}")
    first, last = map(int, span.split(".."))
    tails = unfolded(tail)
    return [f"{head}{i}{end}" for i in range(first, last + 1) for end in tails]


numbers = st.integers(0, 3).map(str)
paths = st.lists(
    st.tuples(st.sampled_from("ab"), numbers, numbers).map("/".join), unique=True
)


@given(paths, st.data())
def test_what_folds_unfolds(paths, data):
    kinds = data.draw(st.lists(st.booleans(), min_size=len(paths), max_size=len(paths)))
    found = fold(paths, kinds)
    for path, members in found:
        assert sorted(unfolded(path)) == sorted(paths[i] for i in members)
        assert len({kinds[i] for i in members}) == 1
    first = [min(members) for _, members in found]
    assert first == sorted(first)


LAYOUTS = {
    "one block": lambda n: [f"b_{i}/w" for i in range(n)],
    "two numbers": lambda n: [f"{i}/{j}" for i in range(n // 8) for j in range(8)],
    "diagonal": lambda n: [f"{i}/{i}" for i in range(n)],
    "gaps": lambda n: [f"b_{2 * i}" for i in range(n)],
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_work_grows_with_the_number_of_paths(name, monkeypatch):
    """Members that are moved, and comparisons, both counted."""
    work = {}
    run, follows = folding._Run, folding._follows

    def counted(ranges, members):
        work["moved"] += len(members)
        return run(ranges, members)

    def compared(*args):
        work["compared"] += 1
        return follows(*args)

    monkeypatch.setattr(folding, "_Run", counted)
    monkeypatch.setattr(folding, "_follows", compared)

    def cost(n):
        work.update(moved=0, compared=0)
        fold(LAYOUTS[name](n), [None] * n)
        return dict(work)

    small, large = cost(64), cost(1024)
    assert large["moved"] <= 3 * 1024
    assert all(large[kind] <= 18 * small[kind] for kind in work)


@dataclass(frozen=True, repr=False)
class counting(Initializer):  # noqa: N801 - as all initializers
    """Counts what it is asked."""

    calls: ClassVar[list[str]] = []

    def entry_law(self, shape, dtype):
        self.calls.append("law")
        return Normal(1.0)

    def sample(self, key, shape, dtype):
        self.calls.append("sample")
        return jax.random.normal(key, shape, dtype)


@pytest.mark.parametrize("count", [20, 200])
def test_a_kind_of_leaf_is_looked_at_once(count):
    letters = string.ascii_letters
    names = sorted(f"{a}{b}" for a in letters for b in letters)[:count]
    shapes = {name: jax.ShapeDtypeStruct((3,), jnp.float32) for name in names}
    seen = []

    def each(leaf):
        seen.append(leaf.path)
        return True

    counting.calls.clear()
    made = jaxinit.plan(shapes, {each: counting()})
    assert seen == names
    traced = counting.calls.count("sample")  # once, or cached; checked where it is
    assert counting.calls == [*["law", "sample"] * traced, "law"]
    assert traced <= 1
    counting.calls.clear()
    assert str(made).count("counting()") == count
    assert made._repr_html_().count("counting()") == count
    assert counting.calls == ["law"] * 2
