"""Mimetic initialisation: products of kernels that are leaves of their own."""

import functools
import math

import jax
import numpy as np
import pytest
from scipy import stats

import jaxinit
from jaxinit import schemes
from jaxinit.schemes.mimetic import _Product
from tests.scheme_models import leaf

pytestmark = pytest.mark.unoptimized

SPLIT = {
    "attn": {
        **{name: {"kernel": leaf(32, 4, 8)} for name in ("query", "key", "value")},
        "out": {"kernel": leaf(4, 8, 32)},
    }
}
FLAT = {
    "attn": {
        **{name: {"kernel": leaf(32, 32)} for name in ("query", "key", "value")},
        "out": {"kernel": leaf(32, 32)},
    }
}
TORCH = {"attn": {"qkv": {"weight": leaf(96, 32)}, "out": {"weight": leaf(32, 32)}}}


LAYOUTS = {"split": SPLIT, "flat": FLAT, "torch": TORCH}
LAYOUTS["pair"] = {"attn": {name: FLAT["attn"][name] for name in ("query", "key")}}


@functools.cache
def attention(layout, heads, seed=5, laws=()):
    """Query, key, value and output of mimetic initialisation, as matrices."""
    tree, key = LAYOUTS[layout], jax.random.key(seed)
    rules = jaxinit.Rules(schemes.mimetic(heads, *laws), required=[])
    drawn = jaxinit.init_tree(key, tree, rules)["attn"]
    if "qkv" in drawn:
        parts = np.split(np.asarray(drawn["qkv"]["weight"]).T, 3, axis=1)
        return [*parts, np.asarray(drawn["out"]["weight"]).T]
    names = [name for name in ("query", "key", "value", "out") if name in drawn]
    return [np.asarray(drawn[name]["kernel"]).reshape(32, 32) for name in names]


def test_mimetic_products_are_noise_and_identity():
    """Level 1e-4 each; a kernel drawn with another key is no factor of the product."""
    query, key = attention("pair", 1)
    _, _, value, out = attention("split", 4)  # whose product is one, of any heads
    drawn = []
    for product, noise, identity in (
        (query @ key.T, 0.7, 0.7),
        (value @ out, 0.4, -0.4),
    ):
        entries = (product - identity * np.eye(32)) * math.sqrt(32) / noise
        assert stats.kstest(entries.ravel(), "norm").pvalue > 1e-4
        assert abs(np.trace(product) / 32 - identity) < 5 * noise / 32
        drawn.append(entries.ravel())
    assert abs(np.corrcoef(drawn)[0, 1]) < 5 / 32  # each has a noise of its own
    stranger = attention("pair", 1, seed=6)[1]
    assert abs(np.trace(query @ stranger.T) / 32) < 0.3 < np.trace(query @ key.T) / 32


def test_heads_are_those_of_an_axis_if_there_is_one():
    def plan(layout, heads=None):
        rules = jaxinit.Rules(schemes.mimetic(heads), required=[])
        return jaxinit.plan(LAYOUTS[layout], rules)

    assert plan("split") == plan("split", 4)  # the same initializers and keys
    assert plan("split") != plan("flat", 4)
    with pytest.raises(jaxinit.PlanError, match="does not tell the number of heads"):
        plan("flat")
    with pytest.raises(jaxinit.PlanError, match="is not of heads=2"):
        plan("split", 2)


def test_mimetic_heads_are_best_approximations():
    query, key, _, _ = attention("split", 4)
    random = np.random.default_rng(0)
    matrices = 0.7 * (random.normal(size=(400, 32, 32)) / math.sqrt(32) + np.eye(32))
    expected = np.linalg.svd(matrices, compute_uv=False)[:, :8]
    mean, spread = expected.mean(0), expected.std(0)
    for head in range(4):
        q, k = (x[:, 8 * head : 8 * head + 8] for x in (query, key))
        np.testing.assert_allclose(q.T @ q, k.T @ k, atol=1e-5)
        found = np.diag(q.T @ q)
        np.testing.assert_allclose(q.T @ q, np.diag(found), atol=1e-5)
        assert np.all(np.abs(found - mean) < 5 * spread)
    assert abs(query.mean()) < 5 * query.std() / 32  # the signs of vectors are drawn


@pytest.mark.exhaustive
@pytest.mark.parametrize("layout", ["flat", "torch"])
def test_mimetic_is_the_same_in_every_layout(layout):
    for a, b in zip(attention("split", 4), attention(layout, 4), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_every_layout_holds_the_same_factors(monkeypatch):
    """The above, of factors that are quick to compile."""

    def factor(self, key, width, side, dtype):
        assert self.heads == (1 if self.number else 4)
        key = jax.random.fold_in(key, 2 * self.number + (side == "left"))
        return jax.random.bits(key, (width, width), np.uint8).astype(dtype)

    monkeypatch.setattr(_Product, "factor", factor)
    laws = (3, 2), (1, 0)  # of no other test, as programs are kept
    query, *others = split = attention("split", 4, laws=laws)
    assert not any(np.array_equal(query, other) for other in others)
    for layout in ("flat", "torch"):
        np.testing.assert_array_equal(attention(layout, 4, laws=laws), split)
