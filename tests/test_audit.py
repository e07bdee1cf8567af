"""Which law an audit names: of one array, of the leaves of a tree, of every scheme."""

import functools
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxinit
from jaxinit._audit.independence import dependence
from jaxinit._audit.leaves import leaves_of
from jaxinit.audit import AuditRow, audit
from tests.host_draws import drawn
from tests.sampling import sampled
from tests.scheme_models import shapes
from tests.test_schemes import FLAT

pytestmark = pytest.mark.unoptimized

KEY = jax.random.key(31)
LARGE, TALL, WIDE = (256, 256), (192, 64), (64, 192)

# Of few shapes, as an audit compiles a program for each.
# An initializer, a shape, and what is named, if not the initializer itself.
DRAWN = {
    "lecun": (jaxinit.lecun_normal(), TALL),
    "he": (jaxinit.he_normal(), TALL),
    "he uniform": (jaxinit.he_uniform(), WIDE),
    "torch": (jaxinit.he_uniform(negative_slope=5**0.5), WIDE),
    "glorot": (jaxinit.glorot_uniform(), WIDE),
    "glorot normal": (jaxinit.glorot_normal(), TALL),
    "kaiming": (jaxinit.variance_scaling(2.0, "fan_out", "normal"), (3, 3, 16, 32)),
    "exchanged": (jaxinit.he_uniform(in_axis=-1, out_axis=-2), TALL),
    "heads": (jaxinit.lecun_normal(in_axis=0, out_axis=(1, 2)), (64, 4, 48)),
    "stacked": (jaxinit.lecun_normal(batch_axis=0), (4, 96, 64)),
    "bert": (jaxinit.truncated_normal(0.02), LARGE),
    "gpt": (jaxinit.normal(0.02), LARGE),
    "keras": (jaxinit.uniform(low=-0.05, high=0.05), LARGE),
    "of jax": (jaxinit.uniform(), LARGE),
    "around one": (jaxinit.normal(0.02, mean=1.0), LARGE),
}
EXACT = {
    "zeros": (jaxinit.zeros, (7,)),
    "ones": (jaxinit.ones, (7,)),
    "constant": (jaxinit.constant(1e-5), (7,)),
    "identity": (jaxinit.identity(0.5), (16, 12)),
    "dirac": (jaxinit.dirac(), (3, 3, 8, 16)),
    "delta": (jaxinit.delta_orthogonal(2.0), (3, 3, 8, 16)),
    "orthogonal": (jaxinit.orthogonal(2**0.5), (16, 12)),
    "of a window": (jaxinit.orthogonal(), (3, 3, 8, 16)),
    "gates": (jaxinit.split(jaxinit.orthogonal(), 4), (12, 48)),
    "of layers": (jaxinit.orthogonal(batch_axis=0), (3, 16, 16)),
    "looks linear": (jaxinit.looks_linear(), (16, 12)),
    "hadamard": (jaxinit.hadamard(2.0), (16, 12)),
    "sinusoidal": (jaxinit.sinusoidal(), (16, 12)),
    "log_arange": (jaxinit.log_arange(), (16, 12)),
    "hippo": (jaxinit.hippo(), (16, 16)),
    "forget": (jaxinit.forget_gate_bias(), (32,)),
    "bilinear": (jaxinit.bilinear(), (4, 4, 8, 8)),
    "sparse": (jaxinit.sparse(0.75, 1.0), (64, 512)),
}


REAL = {*EXACT, "lecun", "torch", "gpt"}  # in the others NumPy has the same law


@functools.cache
def rows(real=frozenset(REAL)) -> dict[str, AuditRow]:
    """What is named, of one tree of all the cases; those that are real are drawn."""
    cases = {**DRAWN, **EXACT}
    tree = {
        name: init(KEY, shape) if name in real else drawn(init, shape, i)
        for i, (name, (init, shape)) in enumerate(cases.items())
    }
    return {row.path: row for row in audit(tree).rows}


def made(text: str) -> jaxinit.Initializer:
    """The initializer that an expression makes."""
    return eval(text, vars(jaxinit))


def assert_named(name: str, row: AuditRow) -> None:
    init, shape = DRAWN[name]
    law = made(row.law).entry_law(shape, np.dtype(np.float32))
    assert repr(law) == repr(init.entry_law(shape, np.dtype(np.float32))), row
    assert row.sure == (row.odds >= 1e4)


@pytest.mark.sample(8)
@pytest.mark.parametrize("name", DRAWN)
def test_drawn_arrays_are_named(name):
    assert_named(name, rows()[name])


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", DRAWN)
def test_arrays_that_are_all_drawn_by_initializers_are_named(name):
    assert_named(name, rows(frozenset({*DRAWN, *EXACT}))[name])


@pytest.mark.parametrize("name", EXACT)
def test_exact_laws_are_named_with_certainty(name):
    init, _ = EXACT[name]
    row = rows()[name]
    if isinstance(init, jaxinit.sparse):
        assert row.law.startswith("sparse(0.75, stddev=")
        return
    assert made(row.law) == init, row
    assert row.sure
    assert row.odds == math.inf


@pytest.mark.exhaustive
@pytest.mark.parametrize("dtype", sampled(["float32", "bfloat16"], ["float32"]))
def test_few_long_columns_are_not_orthogonal_by_chance(dtype):
    """Their products are as small as rounding: of a window of 3 in a convolution."""
    draw = jaxinit.normal(0.02)
    leaves = {f"{i}": drawn(draw, (2, 300, 300), i, dtype) for i in range(12)}
    (row,) = audit({"w": leaves}).rows
    assert row.law == "normal(stddev=0.02)"
    few = jaxinit.orthogonal()(KEY, (900, 3), dtype)
    assert made(audit({"w": few}).rows[0].law) == jaxinit.orthogonal()


def test_two_orthogonal_columns_make_no_orthogonal_matrix():
    x = np.linalg.qr(np.random.default_rng(0).normal(size=(64, 4)))[0]
    (row,) = audit({"w": x.astype(np.float32)}).rows
    assert made(row.law) == jaxinit.orthogonal()
    x[:, 3] = (x[:, 0] + x[:, 1]) / 2**0.5
    (row,) = audit({"w": x.astype(np.float32)}).rows
    assert row.law is None or "orthogonal" not in row.law


def test_what_is_cut_on_one_side_is_no_whole_law():
    init = jaxinit.truncated_normal(corrected=True, upper=math.inf)
    (row,) = audit({"w": drawn(init, (50, 200), 0)}).rows
    assert row.law is None
    assert row.note == "no known law; the nearest is normal(stddev=0.01)"


@pytest.mark.exhaustive
def test_sparse_arrays_have_the_zeros_that_are_named():
    """Of 12 inputs 11 are zero; of 0.916667 times 12, rounded up, all would be."""
    x = jaxinit.sparse(0.9, 1.0)(KEY, (96, 12, 64))
    found = audit({"w": x})
    law = made(found.rows[0].law)
    assert law.sparsity == pytest.approx(0.9, abs=0.017)
    assert np.count_nonzero(law(KEY, x.shape)) == np.count_nonzero(x)
    assert not found.findings


def test_zeros_and_one_number_are_not_sparse():
    for init in (jaxinit.dirac(groups=2, scale=2.0), jaxinit.forget_gate_bias()):
        (row,) = audit({"w": init(KEY, (5, 20))}).rows
        assert "sparse" not in str(row.law)


def test_most_drawn_arrays_are_named_with_certainty():
    assert sum(rows()[name].sure for name in DRAWN) > 0.7 * len(DRAWN)


ODD = {
    "heavy tails": (np.random.default_rng(0).standard_t(2, LARGE), "no known law"),
    "trained": (
        np.random.default_rng(1).normal(size=LARGE)
        * np.exp(np.random.default_rng(2).normal(size=(LARGE[0], 1))),
        "no known law",
    ),
    "three": (np.array([0.3, -0.1, 0.2]), "3 entries: too few to tell"),
    "integers": (np.arange(4), "no floating-point numbers"),
    "key": (KEY, "no floating-point numbers"),
    "empty": (np.zeros((0, 3), np.float32), "no entries"),
    "nan": (np.array([[1.0, np.nan], [2.0, 3.0]]), "not finite"),
}


@pytest.mark.parametrize("name", ODD)
def test_what_has_no_known_law_says_why(name):
    array, note = ODD[name]
    (row,) = audit({"x": array if name == "key" else jnp.asarray(array)}).rows
    assert row.law is None
    assert note in row.note
    assert not row.sure


def test_a_deviation_of_no_rule_is_fitted_and_never_sure():
    (row,) = audit({"w": drawn(jaxinit.normal(0.01234), (512, 512), 0)}).rows
    assert made(row.law).moments((512, 512)).std == pytest.approx(0.01234, rel=0.01)
    assert not row.sure
    assert "fitted" in row.note


def test_small_leaves_have_the_law_of_their_tree():
    """Which they could not tell alone: 60 entries of a normal law, cut or not."""
    init = jaxinit.truncated_normal(0.02)
    tree = {f"w{x}x": drawn(init, (40, 50 + i), i) for i, x in enumerate("abcdef")}
    tree["head"] = drawn(init, (12, 5), 6)
    named = {row.path: row for row in audit(tree).rows}
    assert made(named["head"].law) == init
    (alone,) = audit({"head": tree["head"]}).rows
    assert not alone.sure
    assert named["head"].odds < 20  # 1500 with the votes, which name it all the same


@pytest.mark.parametrize("seed", [700, 1200])
def test_leaves_vote_for_no_rare_law(seed):
    """Two that fit one by chance: here the gain of a leaky ReLU of slope 0.2."""
    leaves = [drawn(jaxinit.he_normal(), (16 + 2 * i, 16), seed + i) for i in (0, 1)]
    found = audit({"enc": leaves[0], "out": leaves[1]}).rows
    assert [made(row.law) for row in found] == [jaxinit.he_normal()] * 2


def test_a_bias_may_have_axes_of_one():
    """As that of a convolution of Equinox: it is one beside its kernel all the same."""
    init = jaxinit.uniform(low=-(288**-0.5), high=288**-0.5)
    kernel, bias = drawn(init, (48, 32, 3, 3), 0), drawn(init, (48,), 1)
    flat, wide = (
        {row.path: row for row in audit({"c": {"w": kernel, "b": b}}).rows}["c/b"]
        for b in (bias, bias.reshape(48, 1, 1))
    )
    assert wide.law == flat.law
    assert wide.odds > flat.odds / 2  # as a kernel it may have other laws


def test_layers_of_other_deviations_are_told_apart():
    stds = [0.02, 0.02, 0.1, 0.02]
    tree = {
        f"b_{i}": drawn(jaxinit.normal(std), LARGE, i) for i, std in enumerate(stds)
    }
    found = {row.path: row.law for row in audit(tree).rows}
    assert found["b_2"] == "normal(stddev=0.1)"
    assert {law for path, law in found.items() if path != "b_2"} == {
        "normal(stddev=0.02)"
    }


def test_layers_around_an_odd_one_are_named_together():
    """They tell more so: of 60 small layers, one by one, few would be sure."""
    tree = {f"b_{i}": drawn(jaxinit.normal(0.02), (40, 40), i) for i in range(60)}
    tree["b_7"] = 50 * tree["b_7"]
    found = {row.path: row for row in audit(tree).rows}
    assert list(found) == ["b_{0..6}", "b_7", "b_{8..59}"]
    assert found["b_{8..59}"].law == "normal(stddev=0.02)"
    assert found["b_{8..59}"].sure


def test_depth_is_told():
    init = jaxinit.scaled(jaxinit.normal(0.02), 24**-0.5)
    tree = {f"b_{i}": drawn(init, LARGE, i) for i in range(12)}
    (row,) = audit(tree).rows
    assert (row.path, row.leaves) == ("b_{0..11}", 12)
    assert made(row.law).moments(LARGE).std == pytest.approx(0.02 / 24**0.5)


NARROW = ["bfloat16", "float16", "float8_e4m3fn"]


@pytest.mark.parametrize("dtype", sampled(NARROW, ["float16"]))
def test_narrow_dtypes_are_named(dtype):
    tree = {"w": drawn(jaxinit.normal(1.0), LARGE, 0, dtype)}
    (row,) = audit(tree).rows
    assert made(row.law) == jaxinit.normal(1.0)


ROUNDED = [(256, 256), (512, 128), (128, 128)]


@pytest.mark.parametrize("shape", sampled(ROUNDED, ROUNDED[1:]))
def test_bounds_that_are_rounded_tell_no_other_law(shape):
    """Between two numbers of bfloat16, 2 / 0.88 deviations and what is near it."""
    init = jaxinit.lecun_normal()
    (row,) = audit({"w": drawn(init, shape, 0, jnp.bfloat16)}).rows
    assert made(row.law) == init


X = np.random.default_rng(3).normal(size=(96, 96)).astype(np.float32)
DEPENDENT = {
    "a line": (np.linspace(-1, 1, 4096).reshape(64, 64), "neighbours follow"),
    "sorted": (np.sort(X.ravel()).reshape(X.shape), "neighbours follow"),
    "symmetric": ((X + X.T) / 2**0.5, "symmetric"),
    "antisymmetric": ((X - X.T) / 2**0.5, "antisymmetric"),
    "of few dimensions": (X[:, :16] @ X[:16] / 4, "columns"),
    "of unit columns": (X / np.linalg.norm(X, axis=0), "columns are of equal length"),
    "of scaled rows": (X * np.linspace(0.8, 1.2, 96)[:, None], "rows are of unlike"),
}


@pytest.mark.parametrize("name", DEPENDENT)
def test_entries_that_depend_on_each_other_have_no_sure_law(name):
    array, note = DEPENDENT[name]
    (row,) = audit({"w": np.asarray(array, np.float64)}).rows
    assert not row.sure
    assert note in row.note or "no known law" in row.note


@pytest.mark.exhaustive
def test_draws_are_rarely_said_to_depend_on_each_other():
    """Never, in 300 arrays of three laws, at a stated rate of 1e-12."""
    draw = np.random.default_rng(4)
    for shape in ((8, 8), (300, 9), (64, 64), (12, 200)):
        for _ in range(25):
            for law, x in (
                (jaxinit.normal(1.0), draw.normal(size=shape)),
                (jaxinit.uniform(1.0), draw.uniform(size=shape)),
                (jaxinit.uniform(low=-1.0, high=1.0), draw.uniform(-1, 1, size=shape)),
            ):
                (leaf,) = leaves_of({"w": x.astype(np.float32)}, None)
                assert dependence(leaf, law.moments(shape)) is None


def test_zeros_in_whole_rows_are_no_sparse_law():
    for some in (slice(32), slice(None, None, 2)):
        x = X.copy()
        x[some] = 0
        (row,) = audit({"w": x}).rows
        assert row.law is None


@pytest.mark.parametrize("scale", [1e-300, 1e-41, 1e-20, 1e18, 1e300])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_numbers_far_from_one_are_no_constants(scale, dtype):
    with np.errstate(over="ignore", under="ignore"):
        x = (X.astype(np.float64) * scale).astype(dtype)
    (row,) = audit({"w": x}).rows
    assert not row.sure or not np.isfinite(x).all() or not x.any()


@pytest.mark.parametrize("value", [1j, 0.3, -2.0])
def test_scalars_are_looked_at(value):
    (row,) = audit({"a": jnp.asarray(value)}).rows
    assert not row.sure


def right(law: str | None, planned: jaxinit.PlannedLeaf, is_fitted: bool, n: int):
    """Whether a law is that of a plan: by its cdf, or if fitted, by its deviation."""
    truth, shape, dtype = planned.initializer, planned.shape, np.dtype(np.float32)
    if law is None or not isinstance(truth, jaxinit.Initializer):
        return False  # mimetic's kernels follow from each other
    found = made(law)
    moments = found.moments(shape), truth.moments(shape)
    if not truth.draws or not moments[1].variance:
        return repr(found) == repr(truth) or means_and_stds_agree(*moments)
    if found.is_independent(shape) != truth.is_independent(shape):
        return False
    if isinstance(truth, jaxinit.sparse) and isinstance(found, jaxinit.sparse):
        is_fitted, n = truth.sparsity == found.sparsity, n * (1 - truth.sparsity)
    if is_fitted:
        error = 4 * math.sqrt(1 / (2 * n))
        return abs(moments[0].std / moments[1].std - 1) < error
    if not truth.is_independent(shape):
        return moments[0].std == pytest.approx(moments[1].std, rel=1e-3)
    at = moments[1].mean + moments[1].std * np.linspace(-4, 4, 101)
    laws = found.entry_law(shape, dtype).cdf(at), truth.entry_law(shape, dtype).cdf(at)
    return np.abs(laws[0] - laws[1]).max() < 2e-3


def means_and_stds_agree(*moments: jaxinit.Moments) -> bool:
    """Whether constants are one number, up to the digits that are written."""
    first, second = ((x.mean, x.std) for x in moments)
    return first == pytest.approx(second, rel=1e-6)


@functools.cache
def counts(case: str, library: str = "linen", seed: int = 0) -> tuple[int, int, list]:
    """Leaves of a scheme named rightly, all of them, and those surely named wrongly."""
    rules, model = FLAT[case]
    plan = jaxinit.plan(shapes(model, library), rules)
    found = audit(plan.init(jax.random.key(seed)))
    planned, good, wrong = {leaf.path: leaf for leaf in plan}, 0, []
    for row in found.rows:  # a folded one stands for leaves of the same plan
        first = next(leaf for leaf in planned.values() if is_of(leaf.path, row.path))
        n = row.leaves * math.prod(row.shape)
        is_right = right(row.law, first, "fitted" in row.note, n)
        good += row.leaves * is_right
        wrong += [(case, row)] * (row.sure and not is_right)
    return good, len(planned), wrong


def is_of(path: str, folded: str) -> bool:
    """Whether a path is one of those that a folded path stands for."""
    pattern = re.sub(r"\\\{\d+\\\.\\\.\d+\\\}", r"\\d+", re.escape(folded))
    return re.fullmatch(pattern, path) is not None


FEW = {"torch, mlp", "recurrent"}


@pytest.mark.sample(1)
@pytest.mark.parametrize("case", sampled(FLAT, {*FLAT} - FEW))
def test_no_law_of_a_scheme_is_named_wrongly_with_certainty(case):
    good, leaves, wrong = counts(case)
    assert not wrong
    assert good >= leaves / 2


@pytest.mark.exhaustive
def test_of_all_schemes_95_of_100_leaves_are_named_rightly():
    libraries = (("linen", 0), ("linen", 1), ("nnx", 0))
    found = [counts(case, *each) for case in FLAT for each in libraries]
    assert not [each for *_, wrong in found for each in wrong]
    assert sum(good for good, *_ in found) >= 0.95 * sum(n for _, n, _ in found)


WRONG = {
    "no leaves": ({}, ValueError, "there is nothing to audit"),
    "an object": ({"a": object()}, TypeError, "of type object, and no array"),
    "a shape": (
        {"a": jax.ShapeDtypeStruct((2,), jnp.float32)},
        TypeError,
        "without values",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_no_tree_of_arrays_is_refused(name):
    tree, error, text = WRONG[name]
    with pytest.raises(error, match=text):
        audit(tree)


def test_roles_of_another_tree_are_refused():
    w, x = np.ones((3, 2), np.float32), np.ones((4, 3), np.float32)
    roles = jaxinit.roles(lambda p, x: x @ p["w"], {"w": w}, x)
    with pytest.raises(ValueError, match="no leaf has a role"):
        audit({"v": w}, roles)
    with pytest.raises(TypeError, match=r"what jaxinit.roles gives"):
        audit({"w": w}, {"w": "kernel"})
    audit({"params": {"w": w}}, roles)


def test_traced_arrays_are_refused():
    with pytest.raises(TypeError, match="is traced"):
        jax.jit(lambda x: audit({"a": x}))(jnp.ones(3))
