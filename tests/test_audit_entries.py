"""Arrays of one key, equal units, entries with a bias or few values: found, or right.

Chance makes a false finding in less than one tree in 1e9; keys are fixed here, so that
a failure is one of the code.
"""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

import jaxinit
from jaxinit import laws, schemes
from jaxinit._arrays.spread import on_host
from jaxinit._audit.distinct import counted, expected_by_law, expected_by_values
from jaxinit._audit.drawn import bits_of, is_drawn
from jaxinit._audit.entries import findings_of_entries
from jaxinit._audit.equalities import findings_of_equalities
from jaxinit._audit.leaves import groups_of, leaves_of
from jaxinit._audit.naming import Named
from jaxinit._audit.same_key import SameKey
from jaxinit.audit import audit
from tests.references import CASES, CATALOGUE, pair
from tests.scheme_models import LAYERS, shapes

pytestmark = pytest.mark.unoptimized

SHAPE = (48, 32)
NARROW = ("bfloat16", "float16", "float8_e4m3fn", "float8_e5m2")


@functools.cache
def draw(seed: int, *shape: int, dtype: str = "float32") -> np.ndarray:
    """Normal entries, rounded once."""
    wide = np.random.default_rng(seed).standard_normal(shape or SHAPE, np.float32)
    return wide.astype(jnp.dtype(dtype))


@functools.cache
def of_jax(law: str, *shape: int, dtype: str = "float32", seed: int = 0) -> np.ndarray:
    return np.asarray(getattr(jax.random, law)(jax.random.key(seed), shape, dtype))


def equalities(tree):
    return list(findings_of_equalities(leaves_of(tree, None)))


def entries(tree, law=None):
    groups = groups_of(leaves_of(tree, None))
    return list(findings_of_entries([Named(x.path, x.leaves, law) for x in groups]))


def found(findings):
    return [(x.kind, x.severity, x.paths) for x in findings]


# ---- one key for several arrays


def test_arrays_of_other_keys_are_silent():
    tree = {f"{i}": draw(i) for i in range(6)}
    assert equalities({**tree, "bias": draw(9, 12), "zeros": np.zeros(SHAPE)}) == []


def test_equal_arrays_are_one_finding():
    (finding,) = equalities({"q": draw(0), "k": draw(0).copy(), "v": draw(1)})
    assert found([finding]) == [("equal", "warning", ("k", "q"))]
    assert finding.text.startswith("2 arrays have equal entries: one key drew them")


def test_equal_arrays_in_every_block_are_one_finding():
    block = [{name: draw(i).copy() for name in "qkv"} for i in range(5)]
    (finding,) = equalities({"blocks": block})
    assert finding.paths == ("blocks/{0..4}/k", "blocks/{0..4}/q", "blocks/{0..4}/v")
    assert finding.text.startswith("in each of 5 sets, 3 arrays")


@pytest.mark.parametrize("dtype", NARROW)
def test_equal_arrays_of_narrow_dtypes(dtype):
    x, y = draw(0, 32, dtype=dtype), draw(1, 32, dtype=dtype)
    assert found(equalities({"a": x, "b": x.copy(), "c": y})) == [
        ("equal", "warning", ("a", "b"))
    ]


def test_small_biases_may_be_equal_by_key_and_not_by_chance():
    assert len(equalities({"a": draw(0, 12), "b": draw(0, 12).copy()})) == 1
    narrow = draw(0, 12, dtype="float8_e4m3fn")
    assert equalities({"a": narrow, "b": narrow.copy()}) == []


@pytest.mark.parametrize("array", [draw(0), jnp.asarray(draw(0))], ids=["np", "jax"])
def test_one_array_under_two_paths_is_tied(array):
    (finding,) = equalities({"embedding": array, "head": array, "other": draw(1)})
    assert found([finding]) == [("equal", "note", ("embedding", "head"))]
    assert finding.text == "one array is under 2 paths: it is tied."


def test_one_table_under_two_paths_is_nothing():
    table = jaxinit.sinusoidal().table((16, 8)).astype(np.float32)
    assert equalities({"a": table, "b": table, "c": table.copy()}) == []


WHOLE = of_jax("normal", *SHAPE)
# Another array of the key of WHOLE, and what is said of it.
FOLLOWS = {
    "beginning": (of_jax("normal", 64), "equal to the beginning of kernel"),
    "beginning, short": (of_jax("normal", 12), "equal to the beginning of kernel"),
    "multiple": (np.float32(0.02) * WHOLE, "0.02 times kernel"),
    "negative": (-WHOLE, "-1 times kernel"),
    "multiple of the beginning": (
        0.3 * of_jax("normal", 64),
        "0.3 times the beginning of kernel",
    ),
    "uniform": (
        of_jax("uniform", 64),
        "in the order of the beginning of kernel, by another law",
    ),
    "shifted": (1 - 0.1 * WHOLE, "in the order of kernel, by another law"),
    "rounded": (WHOLE.astype(jnp.bfloat16), "kernel in bfloat16"),
    "rounded multiple": (
        (0.3 * WHOLE).astype(jnp.bfloat16),
        "0.[23][0-9]* times kernel",
    ),
}


@pytest.mark.parametrize("case", FOLLOWS)
def test_what_follows_from_another_array_is_found(case):
    other, words = FOLLOWS[case]
    (finding,) = equalities({"kernel": WHOLE, "other": other, "right": draw(1)})
    assert found([finding]) == [("multiple", "warning", ("kernel", "other"))]
    assert re.search(f"^other is {words}: one key", finding.text)


def test_our_initializers_with_one_key_are_found(key):
    tree = {
        "kernel": jaxinit.he_normal()(key, (64, 128)),
        "bias": jaxinit.uniform(0.1)(key, (8192,)),
        "steps": jaxinit.log_steps()(key, (8192,)),
    }
    (finding,) = equalities(tree)
    assert found([finding]) == [("multiple", "warning", ("bias", "kernel", "steps"))]


def test_one_key_for_all_blocks_is_few_findings():
    tree = [{"w": WHOLE.copy(), "v": of_jax("normal", 64).copy()} for _ in range(9)]
    findings = equalities({"blocks": tree})
    assert [x.kind for x in findings] == ["equal", "equal", "multiple"]
    assert set(findings[-1].paths) == {"blocks/{0..8}/v", "blocks/{0..8}/w"}


def test_the_time_is_linear_in_equal_arrays(monkeypatch):
    """As many comparisons as arrays."""
    compared = []
    module = "jaxinit._audit.same_key"
    actual = SameKey.classes.__globals__["relation"]
    monkeypatch.setattr(
        f"{module}.relation", lambda *args: compared.append(1) or actual(*args)
    )
    (found_class,) = SameKey([WHOLE] * 50).classes()
    assert len(found_class) == 50
    assert len(compared) == 49


def test_a_gamma_that_follows_from_nu_is_right():
    nu = np.log(-np.log(np.random.default_rng(0).uniform(0.1, 0.9, 512)) / 2)
    nu = nu.astype(np.float32)
    gamma = np.log(-np.expm1(-2 * np.exp(nu))) / 2
    assert equalities({"nu": nu, "gamma": gamma}) == []
    assert found(equalities({"nu": nu, "other": 2 + np.tanh(nu)})) != []


def test_several_that_follow_are_counted():
    tree = {"a": WHOLE, "b": 2 * WHOLE, "c": 2 * WHOLE, "d": of_jax("normal", 64)}
    equal, multiple = equalities(tree)
    assert equal.paths == ("b", "c")
    assert multiple.text.startswith(
        "4 arrays belong together: 2 are 2 times a, 1 is equal to the beginning of a:"
    )


# ---- copies of whole subtrees

MODEL = {
    "a": {"w": WHOLE, "bias": np.zeros(9, np.float32)},
    "b": {"v": draw(1), "w": draw(2)},
}
LEAVES = ("a/bias", "a/w", "b/v", "b/w")


def changed(change, tree=MODEL):
    return jax.tree.map(change, tree)


COPIES = {
    "exact": ({"ema": changed(np.copy), "params": MODEL}, "params is a copy of ema"),
    "rounded": (
        {"half": changed(lambda x: x.astype(jnp.bfloat16)), "master": MODEL},
        "half is a copy of master, rounded to bfloat16",
    ),
    "within": ({**MODEL, "target": changed(np.copy)}, "target is a copy of the rest"),
}


@pytest.mark.parametrize("case", COPIES)
def test_a_copy_of_a_whole_tree_is_one_note(case):
    tree, text = COPIES[case]
    (finding,) = equalities(tree)
    copy = text.split()[0]
    paths = tuple(f"{copy}/{path}" for path in LEAVES)
    assert found([finding]) == [("equal", "note", paths)]
    assert finding.text.startswith(text)
    assert "4 arrays" in finding.text


def test_two_copies_are_two_notes_and_hide_nothing_in_the_original():
    model = {**MODEL, "c": {"u": draw(2).copy()}}
    tree = {name: changed(np.copy, model) for name in ("ema", "params", "target")}
    findings = equalities(tree)
    assert [x.severity for x in findings] == ["note", "note", "warning"]
    assert findings[2].paths == ("ema/b/w", "ema/c/u")


NO_COPIES = {
    "blocks": [changed(np.copy) for _ in range(3)],
    "numbered": {"q1": MODEL, "q2": changed(np.copy)},
    "within a block": {"block_0": {"one": MODEL, "two": changed(np.copy)}},
    "one leaf differs": {
        "one": MODEL,
        "two": {**changed(np.copy), "a": {"w": WHOLE.copy(), "bias": np.ones(9)}},
    },
    "few leaves": {"one": MODEL["b"], "two": changed(np.copy, MODEL["b"])},
}


@pytest.mark.parametrize("case", NO_COPIES)
def test_equal_arrays_that_are_no_copy_of_a_tree(case):
    findings = equalities(NO_COPIES[case])
    assert {x.severity for x in findings} == {"warning"}


# ---- equal slices

BROAD = np.ones(SHAPE, np.float32)
SYMMETRIC = {
    "columns": (BROAD * draw(0, 48, 1), "error", "all of the 32 slices along axis 1"),
    "rows": (BROAD * draw(0, 1, 32), "error", "all of the 48 slices along axis 0"),
    "few entries": (
        np.tile(draw(0, 8, 1), (1, 16)),
        "error",
        "all of the 16 slices along axis 1",
    ),
    "stacked": (
        np.tile(draw(0, 8, 12), (4, 1, 1)),
        "warning",
        "all of the 4 slices along axis 0",
    ),
    "some": (
        np.concatenate([draw(0), draw(0)[5:8]]),
        "warning",
        "6 of the 51 slices along axis 0",
    ),
    "twins": (
        np.concatenate([draw(0), draw(0)], 1),
        "warning",
        "each of the 64 slices along axis 1 has another that is equal to it",
    ),
    "narrow": (
        np.tile(draw(0, 48, 1, dtype="bfloat16"), (1, 32)),
        "error",
        "all of the 32 slices along axis 1",
    ),
    "a padding row": (
        np.concatenate([np.zeros((1, 32), np.float32), draw(0), draw(0)[:1]]),
        "warning",
        "2 of the 50 slices along axis 0",
    ),
}


@pytest.mark.parametrize("case", SYMMETRIC)
def test_equal_slices_are_found(case):
    array, severity, words = SYMMETRIC[case]
    (finding,) = equalities({"a": {"kernel": array}})
    assert found([finding]) == [("symmetric", severity, ("a/kernel",))]
    assert words in finding.text


def test_equal_slices_in_every_block_are_one_finding():
    tree = {f"b{i}": {"w": BROAD * draw(i, 48, 1)} for i in range(4)}
    assert found(equalities(tree)) == [("symmetric", "error", ("b{0..3}/w",))]


RIGHT = {
    "zero rows": np.concatenate([np.zeros((9, 32), np.float32), draw(0)]),
    "mirrored": np.concatenate([draw(0), -draw(0)]),
    "one column": draw(0, 64, 1, dtype="bfloat16"),
    "few bits": draw(0, 4096, 2, dtype="bfloat16"),
    "eighths": draw(0, 300, 6, dtype="float8_e5m2"),
    "signs": np.sign(draw(0, 64, 4)),
    "rows of a table": np.broadcast_to(np.log1p(np.arange(16.0)), (32, 16)),
    "bias of each layer": np.zeros((12, 48)),
}


@pytest.mark.parametrize("case", RIGHT)
def test_slices_that_may_be_equal(case):
    assert equalities({"kernel": RIGHT[case], "other": draw(7)}) == []


CONSTANT = np.full((4, 6), 0.5, np.float32)


def test_kernels_of_one_value_are_symmetric():
    """Whatever their name; with a role they certainly are, or are no kernels."""
    for name, value, severity in (("kernel", 0.5, "warning"), ("norm", 1.0, "note")):
        tree = {"a": {name: np.full((4, 6), value, np.float32)}}
        assert found(equalities(tree)) == [("symmetric", severity, (f"a/{name}",))]
    affine = {"0": {"weight": CONSTANT, "bias": 0 * CONSTANT}}
    assert equalities([affine, {"weight": np.ones(6)}]) == []
    assert equalities({"kernel": np.full((1, 6), 0.5), "w": np.zeros((4, 6))}) == []


@pytest.mark.parametrize("kind", ["kernel", "scale"])
def test_roles_say_which_constants_are_kernels(kind):
    tree, x = {"w": CONSTANT}, np.ones((5, 4, 6), np.float32)
    used = {"kernel": lambda p, x: x[..., 0] @ p["w"], "scale": lambda p, x: x * p["w"]}
    roles = jaxinit.roles(used[kind], tree, x)
    wanted = [("symmetric", "error", ("w",))] if kind == "kernel" else []
    assert found(findings_of_equalities(leaves_of(tree, roles))) == wanted


# ---- what draws and tables look like


def test_draws_are_told_from_tables():
    for n in (24, 64, 1000):
        assert sum(is_drawn(draw(seed, n)) for seed in range(100)) >= 98
    waves = np.cos(np.outer(np.arange(64), np.arange(33)) * 2 * np.pi / 64)
    tables = [np.linspace(0, 1, 32), 2.0 ** -np.arange(32), waves, np.eye(32)]
    assert not any(map(is_drawn, tables))


def test_bits_are_those_of_the_collisions():
    signs = np.sign(draw(0, 4000))
    assert bits_of(signs) == pytest.approx(1, abs=0.01)
    assert bits_of(draw(0, 4000)) >= 11.9  # 4000 different values
    assert 5.5 < bits_of(draw(0, 4000, dtype="float8_e4m3fn")) < 6.5


def test_sharded_arrays_are_read_in_place():
    mesh = jax.make_mesh((4, 2), ("x", "y"))
    for spec in (("x", "y"), (None, "x"), (None, None)):
        placed = jax.device_put(WHOLE, NamedSharding(mesh, PartitionSpec(*spec)))
        assert (on_host(placed) == WHOLE).all()
        assert placed._npy_value is None
        (finding,) = equalities({"a": placed, "b": 2 * WHOLE})
        assert finding.kind == "multiple"


# ---- finite, centred, of many values


def test_entries_that_are_not_finite():
    broken = {"a": np.array([1, np.nan, np.inf], np.float32), "b": draw(0)}
    (finding,) = entries(broken)
    assert found([finding]) == [("not-finite", "error", ("a",))]
    assert finding.text.startswith("2 of 3 entries are NaN or infinite")
    (finding,) = entries({"a": np.array([1, np.nan], np.float32)})
    assert finding.text.startswith("1 of 2 entries is NaN")
    assert equalities(broken) == []


MILLION = (1000, 1000)


@pytest.mark.parametrize("law", ["normal", "uniform", "truncated"])
def test_draws_of_jax_in_bfloat16_are_found(law):
    """Of 7 random bits, whose least multiples are drawn and whose greatest are not."""
    bits = np.random.default_rng(0).integers(0, 128, MILLION)
    u = (bits / 128).astype(np.float64)
    if law == "normal":
        x = of_jax("normal", *MILLION, dtype="bfloat16")
    elif law == "uniform":
        x = (2 * u - 1).astype(jnp.bfloat16)
    else:
        x = jax.scipy.special.erfinv((1.9 * u - 0.95).astype(np.float32))
        x = np.asarray(x).astype(jnp.bfloat16)
    biased, few = entries({"kernel": x, "right": draw(0)})
    assert found([biased, few]) == [
        ("biased", "warning", ("kernel",)),
        ("few-values", "warning", ("kernel",)),
    ]
    assert "draw in float32 and round once" in biased.text
    assert "1,000,000 entries have 128 different values" in few.text


def test_with_the_law_the_number_of_values_is_known():
    x = of_jax("normal", *MILLION, dtype="bfloat16")
    biased, few = entries({"kernel": x}, jaxinit.normal(1.0))
    assert "standard deviations from 0" in biased.text
    assert "128 different values, where draws rounded to bfloat16 have about 3,597" in (
        few.text
    )


def test_the_mean_is_that_of_the_law():
    x = 2 + 0.1 * draw(0)
    assert entries({"a": x}, jaxinit.normal(0.1, mean=2.0)) == []
    assert found(entries({"a": x}, jaxinit.normal(0.1, mean=1.9))) == [
        ("biased", "warning", ("a",))
    ]


def test_a_bias_of_many_leaves_is_that_of_all_together():
    shifted = {f"b{i}": {"w": draw(i) + 0.035} for i in range(40)}
    assert found(entries(shifted)) == [("biased", "warning", ("b{0..39}/w",))]
    assert entries({"b0": shifted["b0"]}) == []
    equal = {f"b{i}": {"w": draw(3).copy()} for i in range(400)}
    assert entries(equal) == []  # their mean is one draw, not 400


@pytest.mark.parametrize("law", [None, jaxinit.normal(1.0)])
def test_a_bias_of_one_leaf_is_its_own(law):
    tree = {f"b{i}": {"w": draw(i, 300, 300)} for i in range(6)}
    tree["b4"]["w"] = tree["b4"]["w"] + 0.05
    (finding,) = entries(tree, law)
    assert found([finding]) == [("biased", "warning", ("b4/w",))]
    assert "the mean of 90,000 entries is 0.05" in finding.text


def test_draws_of_jax_that_were_widened_are_known():
    x = of_jax("normal", *MILLION, dtype="bfloat16").astype(np.float32)
    biased, few = entries({"w": x})
    assert "are all numbers of bfloat16: jax.random draws so" in biased.text
    assert "drawn in bfloat16 and widened, or quantised" in few.text


@pytest.mark.parametrize("dtype", NARROW)
def test_the_expected_number_of_values(dtype):
    x = draw(0, 300, 300, dtype=dtype)
    (leaf,) = leaves_of({"a": x}, None)
    values, counts = counted(leaf)
    assert counts.sum() == x.size
    assert values.size == np.unique(x.astype("f4")).size
    law = laws.Normal(1.0)
    expected = expected_by_law(law, x.size, leaf.dtype)
    assert abs(values.size - expected) < 6 * np.sqrt(expected)
    assert expected_by_values(values, counts, leaf.dtype) == pytest.approx(
        expected, rel=0.05
    )
    assert entries({"a": x}) == []
    assert entries({"a": x}, jaxinit.normal(1.0)) == []


def test_small_leaves_are_counted_alike():
    x = draw(0, 64, 64, dtype="bfloat16")
    whole, rest = leaves_of([x, x[:63]], None)
    (values, counts), (small, _) = counted(whole), counted(rest)
    assert set(small) <= set(values)
    assert counts.sum() == x.size


def test_quantised_entries_are_noted():
    x = np.round(draw(0, 300, 300) * 8) / 8
    (finding,) = entries({"kernel": x, "right": draw(0, 300, 300)})
    assert found([finding]) == [("few-values", "note", ("kernel",))]


# ---- right draws of everything

TABLE = {
    **CATALOGUE,
    **{
        f"{case}, {len(shape)} axes": (pair(case)[0], shape)
        for case in CASES
        for shape in pair(case)[2]
    },
}
SOME = {
    "float32": ("hippo", "stft", "hadamard", "bilinear", "sinusoidal", "sparse"),
    "bfloat16": ("tail", "looks_linear", "s4d_inv", "mean", "log_uniform"),
}


def silent_on(names, dtype, seed: int) -> None:
    keys = jax.random.split(jax.random.key(seed), 2 * len(TABLE))
    tree = {
        name: [TABLE[name][0](keys[2 * i + j], TABLE[name][1], dtype) for j in (0, 1)]
        for i, name in enumerate(TABLE)
        if name in names
    }
    assert equalities(tree) == []
    assert entries(tree) == []
    for name, pair_of_draws in tree.items():
        assert entries(pair_of_draws, TABLE[name][0]) == []


@pytest.mark.sample(1)
@pytest.mark.parametrize("dtype", SOME)
def test_right_draws_are_silent(dtype):
    silent_on(SOME[dtype], dtype, 0)


@pytest.mark.exhaustive
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "float8_e4m3fn"])
def test_right_draws_of_all_initializers_are_silent(dtype):
    names = TABLE.keys() - {"constant, 2 axes"}  # as a kernel it would be symmetric
    for seed in range(4):
        silent_on(names, dtype, seed)


@pytest.mark.exhaustive
def test_right_schemes_are_silent(key):
    for scheme in (schemes.gpt2(LAYERS), schemes.vit(LAYERS)):
        params = jaxinit.plan(shapes("transformer", "linen"), scheme).init(key)
        assert equalities(params) + entries(params) == []


@pytest.mark.exhaustive
def test_no_copy_of_a_sharded_array_is_kept():
    """As by `numpy.asarray`, which would keep all of a tree on the host."""
    place = NamedSharding(jax.make_mesh((8,), ("x",)), PartitionSpec("x"))
    tree = {"kernel": draw(0, 64, 32), "zeros": np.zeros((64, 32), np.float32)}
    tree["mirrored"] = np.concatenate([tree["kernel"], -tree["kernel"]])
    placed = {name: jax.device_put(x, place) for name, x in tree.items()}
    audit(placed)
    assert [name for name, x in placed.items() if x._npy_value is not None] == []
    assert np.asarray(placed["kernel"]).size
    assert placed["kernel"]._npy_value is not None  # what it would be
