"""Initializers made of others: their parts are what they say, and so are the moments.

Sample moments lie within 6 standard errors of the stated ones: a false alarm in 5e8.
"""

import dataclasses
import math
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sampling import sampled

import jaxinit
from jaxinit import grouped, scaled, split, stacked, testing
from jaxinit.initializers._defects import defect
from jaxinit.report import report
from jaxinit.stats import fit, score

KEY = jax.random.key(1)


def by_depth(i):
    return jaxinit.normal(0.1 / (i + 1))


CASES = {
    "scaled": (scaled(jaxinit.he_normal(), 0.5), (64, 512)),
    "scaled by a negative number": (scaled(jaxinit.uniform(2.0), -3.0), (64, 512)),
    "scaled, complex": (scaled(jaxinit.normal(0.5, jnp.complex64), 2.0), (64, 512)),
    "stacked": (stacked(jaxinit.he_normal()), (6, 64, 96)),
    "stacked by depth": (stacked(by_depth), (3, 64, 128)),
    "stacked on the last axis": (stacked(jaxinit.lecun_uniform(), -1), (64, 96, 5)),
    "split": (split(jaxinit.glorot_uniform(), 3), (96, 288)),
    "split by sizes": (split(jaxinit.he_normal(), (32, 96), axis=0), (128, 256)),
    "grouped": (grouped(jaxinit.kaiming_normal(), 8), (3, 3, 16, 256)),
    "scaled split": (scaled(split(jaxinit.lecun_normal(), 2), 0.1), (64, 512)),
    "stacked means": (
        stacked(lambda i: jaxinit.normal(0.1, mean=float(i))),
        (3, 64, 128),
    ),
}


BEYOND = {"scaled", "stacked", "stacked on the last axis", "split", "scaled split"}
BEYOND |= {"stacked means", "scaled by a negative number"}


@pytest.mark.sample(2)
@pytest.mark.unoptimized
@pytest.mark.parametrize("name", sampled(CASES, BEYOND))
def test_moments(name):
    init, shape = CASES[name]
    x, expected = np.asarray(init(KEY, shape)), init.moments(shape)
    assert errors(x, expected) < 6
    assert errors(1.1 * x + 0.01 * x.std(), expected) > 6, "negative control"
    assert expected.low <= x.real.min() <= x.real.max() <= expected.high


def errors(x, expected):
    """The worse of mean and variance, in standard errors of independent draws."""
    of_mean = abs(x.mean() - expected.mean) / math.sqrt(expected.variance / x.size)
    spread = math.sqrt((expected.kurtosis - 1) / x.size)
    measured = (np.abs(x - expected.mean) ** 2).mean()
    return max(of_mean, abs(measured / expected.variance - 1) / spread)


@pytest.mark.sample(1)
@pytest.mark.parametrize(
    "name", sampled(CASES, BEYOND | {"grouped", "scaled, complex"})
)
def test_values(name):
    init, shape = CASES[name]
    x = init(KEY, shape)
    np.testing.assert_array_equal(jax.jit(lambda k: init(k, shape))(KEY), x)
    if "complex" not in name:
        narrow = init(KEY, shape, jnp.bfloat16)
        np.testing.assert_array_equal(narrow, np.asarray(x).astype(jnp.bfloat16))


@pytest.mark.exhaustive
def test_parts_have_keys_and_fans_of_their_own():
    x = np.asarray(stacked(by_depth)(KEY, (2, 8, 4)))
    assert not np.array_equal(x[0], 2 * x[1])
    np.testing.assert_array_equal(x[:1], stacked(by_depth)(KEY, (1, 8, 4)))
    for i, layer in enumerate(x):
        own = by_depth(i)(jax.random.fold_in(KEY, i), (8, 4))
        np.testing.assert_array_equal(layer, own)
    parts = np.split(split(jaxinit.he_normal(), 2)(KEY, (8, 12)), 2, axis=1)
    for i, part in enumerate(parts):
        own = jaxinit.he_normal()(jax.random.fold_in(KEY, i), (8, 6))
        np.testing.assert_array_equal(part, own)
    assert split(jaxinit.glorot_normal(), 3).fans((64, 192)) == (64, 64)
    assert stacked(jaxinit.he_normal()).fans((12, 64, 32)) == (64, 32)
    assert grouped(jaxinit.he_normal(), 4).fans((3, 3, 8, 32)) == (72, 72)


@pytest.mark.unoptimized
def test_each_gate_is_orthogonal():
    x = np.asarray(split(jaxinit.orthogonal(), 4)(KEY, (16, 64)))
    for gate in np.split(x, 4, axis=1):
        np.testing.assert_allclose(gate.T @ gate, np.eye(16), atol=1e-5)
    assert not split(jaxinit.orthogonal(), 4).entries_independent
    whole = np.asarray(jaxinit.orthogonal()(KEY, (16, 64)))[:, :16]
    assert abs(whole.T @ whole - np.eye(16)).max() > 0.1, "negative control"


# Parts whose entries depend on each other: in whatever they are wrapped, what is
# checked follows the parts. In their place, normal draws of the same moments fail.

ORTHOGONAL, HE = jaxinit.orthogonal(), jaxinit.he_normal()
DEPENDENT = {
    "stacked by a function": (stacked(lambda i: ORTHOGONAL), (3, 8, 6)),
    "some of those stacked": (stacked(lambda i: [HE, ORTHOGONAL][i % 2]), (3, 8, 6)),
    "all but the first": (stacked(lambda i: HE if i == 0 else ORTHOGONAL), (2, 8, 6)),
    "some of those split": (split([HE, ORTHOGONAL], (32, 6)), (8, 38)),
    "grouped": (grouped(ORTHOGONAL, 2), (8, 12)),
    "scaled": (scaled(stacked(lambda i: ORTHOGONAL), -0.5), (2, 8, 6)),
    "unit_scaled": (jaxinit.unit_scaled(ORTHOGONAL), (8, 6)),
    "center_tap": (jaxinit.center_tap(ORTHOGONAL), (2, 8, 6)),
    "center_tap of draws": (jaxinit.center_tap(HE), (3, 32, 32)),
    "mirrored": (jaxinit.mirrored(stacked(lambda i: ORTHOGONAL)), (2, 8, 12)),
    "mirrored draws": (jaxinit.mirrored(HE), (8, 64)),
    "nested": (stacked(lambda i: split(scaled(ORTHOGONAL, 2.0), 2)), (2, 8, 12)),
    "tables": (stacked(lambda i: jaxinit.sinusoidal()), (2, 8, 6)),
    "matrices": (split([jaxinit.identity(0.5), jaxinit.hadamard()], 2), (8, 16)),
    "gates": (jaxinit.chrono(100), (1024,)),
}


def checks_of(init, shape):
    """Whether an array of that shape passes as one of a plan, in each of two rooms."""
    plan = jaxinit.plan({"w": jax.ShapeDtypeStruct(shape, jnp.float32)}, {"**": init})

    def passes(x):
        (row,) = report({"w": x}, plan).rows
        try:
            testing.assert_moments({"w": x}, plan)
        except AssertionError:
            return False, not row.is_wrong
        return True, not row.is_wrong

    return passes, plan


BEYOND_OF_DEPENDENT = (
    *("stacked by a function", "some of those stacked", "scaled", "center_tap"),
    *("mirrored draws", "matrices", "grouped", "unit_scaled"),
    *("all but the first", "some of those split", "mirrored", "gates"),
)


@pytest.mark.sample(1)
@pytest.mark.unoptimized
@pytest.mark.parametrize("name", sampled(DEPENDENT, BEYOND_OF_DEPENDENT))
def test_what_is_checked_of_dependent_entries_follows_the_parts(name):
    init, shape = DEPENDENT[name]
    passes, plan = checks_of(init, shape)
    right = plan.init(KEY)["w"]
    assert passes(right) == (True, True)
    law = init.moments(shape)
    draws = np.random.default_rng(3).normal(law.mean, law.std, shape)
    wrong = jnp.asarray(np.clip(draws, law.low, law.high), jnp.float32)
    assert passes(wrong) == (False, False)
    assert passes(2 * np.asarray(right)) == (False, False)
    for refuses in (score, fit):
        with pytest.raises(ValueError, match="depend on each other"):
            refuses(right, init)


@pytest.mark.unoptimized
def test_a_piece_that_is_drawn_is_scored():
    init, shape = DEPENDENT["some of those split"]
    passes, plan = checks_of(init, shape)
    x = np.asarray(plan.init(KEY)["w"])
    drawn = np.arange(shape[-1]) < 32
    for piece in (drawn, ~drawn):  # 6 standard errors
        assert passes(np.where(piece, np.float32(1.5), 1) * x) == (False, False)


@pytest.mark.unoptimized
def test_keys_of_other_paths_leave_the_checks_as_they_are():
    init, shape = DEPENDENT["stacked by a function"]
    leaf = jax.ShapeDtypeStruct(shape, jnp.float32)
    plan = jaxinit.plan({"w": leaf}, {"w": jaxinit.keyed(init, "v")})
    testing.assert_moments(plan.init(KEY), plan)
    draws = np.random.default_rng(3).normal(0, 0.4, shape).astype(np.float32)
    with pytest.raises(AssertionError, match="off the identity"):
        testing.assert_moments({"w": draws}, plan)


@pytest.mark.parametrize("shape", [(2, 2, 3), (4, 2, 2, 3), (2, 5, 2, 3)])
def test_the_centre_of_an_even_window_is_that_of_same_padding(shape):
    x = np.asarray(jaxinit.center_tap(jaxinit.ones)(KEY, shape))
    places = np.argwhere(x[..., 0, 0])
    assert places.tolist() == [[(size - 1) // 2 for size in shape[:-2]]]
    assert x.sum() == 6


@pytest.mark.parametrize("init", [ORTHOGONAL, jaxinit.orthogonal(batch_axis=0)])
def test_what_orthogonality_allows_is_near_what_rounding_does(init):
    shape = (64, 64) if init is ORTHOGONAL else (2, 64, 64)
    x = np.asarray(init(KEY, shape))
    assert defect(x, init).error < defect(x, init).allowed < 2e-5
    off = defect(np.float32(1 + 2e-5) * x, init)
    assert off.error > off.allowed, "negative control"


def test_batched_matrices_have_haars_law():
    # every entry of 4096 matrices of 2 by 2 has mean 0, variance 1/2, and is negative
    # as often as positive; 6 standard errors: a false alarm in 5e8 each
    x = np.asarray(jaxinit.orthogonal(batch_axis=0)(KEY, (4096, 2, 2)))
    errors = np.sqrt(len(x)) * np.stack([x.mean(0) * np.sqrt(2), np.sign(x).mean(0)])
    assert abs(errors).max() < 6
    wrong = x * np.sign(x[:, :1])
    assert np.sqrt(len(x)) * abs(np.sign(wrong).mean(0)).max() > 6, "negative control"
    assert abs(np.sign(np.linalg.det(x)).mean()) * np.sqrt(len(x)) < 6


def test_of_what_is_not_known_little_is_checked():
    @dataclasses.dataclass(frozen=True, repr=False)
    class Rings(jaxinit.Initializer):
        entries_independent = False

        def entry_law(self, shape, dtype):
            return jaxinit.uniform(1.0).entry_law(shape, dtype)

        def sample(self, key, shape, dtype):
            return jnp.broadcast_to(jax.random.uniform(key, (), dtype), shape)

    passes, plan = checks_of(stacked(lambda i: Rings()), (2, 3, 3))
    assert passes(plan.init(KEY)["w"]) == (True, True)
    assert passes(jnp.full((2, 3, 3), 1.1)) == (False, True)


def test_are_values():
    for init, _ in CASES.values():
        if "lambda" not in repr(init) and "function" not in repr(init):
            names = {**vars(jaxinit), "complex64": jnp.complex64}
            assert eval(repr(init), names) == init
            assert hash(init) == hash(pickle.loads(pickle.dumps(init)))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: scaled(3, 1.0), "init must be a jaxinit initializer"),
        (lambda: scaled(jaxinit.zeros, math.inf), "factor must be finite"),
        (lambda: stacked("he"), "fn_of_index must be"),
        (lambda: stacked(lambda i: i)(KEY, (2, 3)), r"fn_of_index\(0\) must be"),
        (lambda: split(jaxinit.zeros, 0), "sections must be"),
        (lambda: split(jaxinit.zeros, (2, -1)), "sections must be"),
        (
            lambda: split(jaxinit.zeros, 3)(KEY, (4, 8)),
            r"sections=3 does not divide axis -1 of shape \(4, 8\), of size 8",
        ),
        (lambda: stacked(jaxinit.zeros, 3)(KEY, (4, 8)), "axis=3 is out of range"),
        (
            lambda: stacked(jaxinit.he_normal())(KEY, (4, 8)),
            "in_axis=-2 is out of range",
        ),
    ],
)
def test_messages(make, message):
    with pytest.raises((TypeError, ValueError), match=message):
        make()
