"""Every initializer of torch, Keras and Haiku has an equal here, as a table says.

The table is read from docs/pages/parity.md. What torch makes is read from
golden/torch.json, so that its part runs where torch is not installed. A comparison of
two samples, or of a sample with its law, has a false-alarm rate of 1e-9.
"""

import itertools
import os
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sampling import sampled
from scipy import stats

import jaxinit
from jaxinit.laws import Uniform
from jaxinit.laws.compound import Scaled, Shifted
from tests.golden.torch_numbers import drawn
from tests.golden_torch import NUMBERS, array, probability

pytestmark = pytest.mark.unoptimized

TEXT = (Path(__file__).parents[1] / "docs/pages/parity.md").read_text()
SHAPE = (3, 20, 40)  # window, inputs, outputs
KEY = jax.random.key(5)
FALSE_ALARMS = 1e-9


def rows(library: str) -> dict[str, str]:
    """The expression of ours, by the name in the other library."""
    _, _, section = TEXT.partition(f"## {library}.")
    section = section.partition("\n## ")[0]
    return dict(re.findall(r"^\| `(\w+)` \| `(.+?)` \|", section, re.M))


def ours(expression: str):
    return eval(expression, dict(vars(jaxinit)))


TORCH, KERAS, HAIKU = (rows(name) for name in ("torch", "keras", "haiku"))
MATRICES = ("eye_", "Identity", "sparse_", "Orthogonal", "orthogonal_")


def shape_for(name: str) -> tuple[int, ...]:
    if name == "STFT":
        return (16, 1, 9)
    return SHAPE[1:] if name in MATRICES else SHAPE


def assert_same_law(theirs: np.ndarray, mine: np.ndarray) -> None:
    def level(x, y):
        return stats.ks_2samp(x.ravel(), y.ravel(), method="asymp").pvalue

    assert level(theirs, mine) > FALSE_ALARMS
    assert level(theirs, 1.6 * mine + 0.3 * mine.std()) < FALSE_ALARMS, "control"


def assert_both_orthonormal(theirs: np.ndarray, mine: np.ndarray) -> None:
    for x in (theirs, mine):
        np.testing.assert_allclose(x @ x.T, np.eye(len(x)), atol=1e-5)


def compare(name: str, expression: str, theirs: np.ndarray) -> None:
    init, shape = ours(expression), shape_for(name)
    mine = np.asarray(init(KEY, shape))
    if not init.draws:
        np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-5)
        return
    if "orthogonal" in name.lower():
        assert_both_orthonormal(theirs, mine)
    assert_same_law(theirs, mine)


# ---- torch


def assert_drawn_by(law, *samples: dict) -> None:
    wrong = Shifted(Scaled(law, 1.6), 0.3 * law.moments().std)
    for sample in samples:
        assert probability(sample, law) > FALSE_ALARMS
        assert probability(sample, wrong) < FALSE_ALARMS, "control"


@pytest.mark.sample(7)
@pytest.mark.parametrize("name", sorted(NUMBERS["functions"].keys() - {"orthogonal_"}))
def test_torch(name):
    """Fixed arrays entry by entry; of random ones, theirs and ours against the law."""
    theirs, init = NUMBERS["functions"][name], ours(TORCH[name])
    shape = tuple(theirs["shape"][::-1])  # theirs are (outputs, inputs, *window)
    mine = np.asarray(init(KEY, shape))
    if init.draws:
        assert_drawn_by(init.entry_law(shape, mine.dtype), theirs, drawn(mine))
    else:
        np.testing.assert_array_equal(mine, array(theirs).T)


@pytest.mark.exhaustive
def test_torch_orthogonal():
    """A coordinate of a uniform unit vector in three dimensions is uniform."""
    theirs, size = NUMBERS["haar"], NUMBERS["haar"]["first"]["shape"][0]
    init = jaxinit.orthogonal(batch_axis=0)
    mine = np.asarray(init(KEY, (size, 3, 3)))
    law, expected = Uniform(-1.0, 1.0), ours(TORCH["orthogonal_"]).moments((3, 3))
    assert law.moments() == pytest.approx(expected)
    assert_drawn_by(law, theirs["first"], theirs["last"])
    assert_drawn_by(law, *(drawn(mine[:, i, j]) for i in range(3) for j in range(3)))
    assert probability(drawn(abs(mine[:, 0, 0])), law) < FALSE_ALARMS, "control"
    wide = np.asarray(ours(TORCH["orthogonal_"])(KEY, (20, 40)))
    for defect in (theirs["defect"], abs(wide @ wide.T - np.eye(20)).max()):
        assert 0 < defect < 1e-5


def test_torch_counts_zeros_along_outputs():
    mine = np.asarray(ours(TORCH["sparse_"])(KEY, (20, 40)))
    assert (mine == 0).sum(1).tolist() == NUMBERS["zeros_of_a_column"]


@pytest.mark.parametrize("groups", NUMBERS["dirac_groups"])
def test_torch_dirac_groups(groups):
    theirs = array(NUMBERS["dirac_groups"][groups])
    mine = jaxinit.dirac(int(groups))(KEY, (3, 5, 4, 8))
    np.testing.assert_array_equal(mine, theirs.transpose(2, 3, 1, 0))


def test_torch_centres_even_windows_one_further():
    theirs = array(NUMBERS["dirac_even"]).transpose(2, 3, 1, 0)
    mine = np.asarray(jaxinit.dirac()(KEY, theirs.shape))
    np.testing.assert_array_equal(mine[:-1, :-1], theirs[1:, 1:])
    assert mine.sum() == theirs.sum() == theirs.shape[-1]


@pytest.mark.parametrize("name", ["Linear", "Conv1d", "Conv2d", "Conv3d"])
def test_torch_layers(name):
    theirs = NUMBERS["layers"][name]["weight"]
    init, shape = jaxinit.he_uniform(negative_slope=5**0.5), theirs["shape"][::-1]
    assert_drawn_by(init.entry_law(tuple(shape), np.dtype("float32")), theirs)


def test_torch_is_complete():
    assert set(NUMBERS["functions"]) == set(TORCH) - {"calculate_gain"}


# ---- Keras


@pytest.fixture(scope="module")
def keras():
    os.environ.setdefault("KERAS_BACKEND", "jax")
    return pytest.importorskip("keras")


# Those of the same law as another that is compared.
LIKE_OTHERS = {
    "keras": [
        *("Ones", "TruncatedNormal", "GlorotNormal"),
        *("LecunUniform", "LecunNormal", "HeUniform", "HeNormal"),
        *("RandomUniform", "Orthogonal", "RandomNormal"),  # Haiku's is compared too
        *("GlorotUniform", "Zeros"),
    ],
    "haiku": ["RandomNormal", "TruncatedNormal", "UniformScaling", "RandomUniform"],
}


@pytest.mark.sample(3)
@pytest.mark.parametrize("name", sampled(KERAS, LIKE_OTHERS["keras"]))
def test_keras(keras, name):
    init = getattr(keras.initializers, name)
    seed = {} if not ours(KERAS[name]).draws else {"seed": 11}
    theirs = np.asarray(init(**seed)(shape_for(name), "float32"))
    compare(name, KERAS[name], theirs)


WINDOWS = list(
    itertools.product(["hann", "hamming", None], ["density", "spectrum", None])
)


@pytest.mark.parametrize("case", sampled(WINDOWS, WINDOWS[1:4] + WINDOWS[5:]), ids=str)
def test_keras_stft(keras, case):
    window, scaling = case
    shape = (16, 1, 9)
    for side, periodic in [("real", True), ("imag", True), ("real", False)]:
        theirs = keras.initializers.STFT(side, window, scaling, periodic)
        mine = jaxinit.stft(side, window or "none", scaling or "none", periodic)
        np.testing.assert_allclose(mine(KEY, shape), theirs(shape), atol=1e-5)


def test_keras_is_complete(keras):
    classes = {
        value
        for value in vars(keras.initializers).values()
        if isinstance(value, type) and issubclass(value, keras.Initializer)
    }
    assert {c.__name__ for c in classes - {keras.Initializer}} <= set(KERAS)


# ---- Haiku


@pytest.mark.sample(2)
@pytest.mark.parametrize("name", sampled(HAIKU, LIKE_OTHERS["haiku"]))
def test_haiku(name):
    haiku = pytest.importorskip("haiku")
    settings = [0.3] if name == "Constant" else []
    init = getattr(haiku.initializers, name)(*settings)

    def draw():
        return init(shape_for(name), jnp.float32)

    quick = jax.random.key(5, impl="rbg")  # to compile
    theirs = haiku.transform(draw).apply({}, quick)
    compare(name, HAIKU[name], np.asarray(theirs))


def test_haiku_is_complete():
    haiku = pytest.importorskip("haiku")
    public = {name for name in dir(haiku.initializers) if name[0].isupper()}
    assert public - {"Initializer"} == set(HAIKU)


# ---- names


@pytest.mark.parametrize("name", [*TORCH, *KERAS])
def test_names_are_understood(name):
    if name == "calculate_gain":
        return
    expression = {**TORCH, **KERAS}[name]
    settings = {"constant_": {"value": 0.3}, "sparse_": {"sparsity": 0.9}}
    assert jaxinit.get(name, **settings.get(name, {})) == ours(expression)
