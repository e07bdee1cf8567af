"""Every initializer of torch, Keras and Haiku has an equal here, as a table says.

The table is read from examples/PARITY.md. A comparison of two samples has a false-alarm
rate of 1e-9.
"""

import os
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import jaxinit

TEXT = (Path(__file__).parents[1] / "examples/PARITY.md").read_text()
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
    if not init._draws:
        np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-5)
        return
    if "orthogonal" in name.lower():
        assert_both_orthonormal(theirs, mine)
    assert_same_law(theirs, mine)


# ---- torch


@pytest.mark.parametrize("name", [name for name in TORCH if name.endswith("_")])
def test_torch(name):
    torch = pytest.importorskip("torch")
    torch.manual_seed(3)
    shape = shape_for(name)
    empty = torch.empty(*shape[::-1])  # (outputs, inputs, *window)
    settings = {"constant_": [0.3], "sparse_": [0.9]}.get(name, [])
    theirs = getattr(torch.nn.init, name)(empty, *settings).numpy()
    compare(name, TORCH[name], theirs.T)


def test_torch_counts_zeros_along_outputs():
    torch = pytest.importorskip("torch")
    theirs = torch.nn.init.sparse_(torch.empty(40, 20), 0.9).numpy().T
    mine = np.asarray(ours(TORCH["sparse_"])(KEY, (20, 40)))
    for x in (theirs, mine):
        assert ((x == 0).sum(1) == 36).all()


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_torch_dirac_groups(groups):
    torch = pytest.importorskip("torch")
    theirs = torch.nn.init.dirac_(torch.empty(8, 4, 3, 5), groups).numpy()
    mine = jaxinit.dirac(groups)(KEY, (3, 5, 4, 8))
    np.testing.assert_array_equal(mine, theirs.transpose(2, 3, 1, 0))


@pytest.mark.parametrize("name", ["Linear", "Conv1d"])
def test_torch_layers(name):
    torch = pytest.importorskip("torch")
    torch.manual_seed(4)
    layer = getattr(torch.nn, name)(48, 64, *([3] if name == "Conv1d" else []))
    theirs = layer.weight.detach().numpy().T
    mine = jaxinit.he_uniform(negative_slope=5**0.5)(KEY, theirs.shape)
    assert_same_law(theirs, np.asarray(mine))


def test_torch_is_complete():
    torch_init = pytest.importorskip("torch").nn.init
    public = {n for n in dir(torch_init) if n.endswith("_") and n[0] != "_"}
    assert public == set(TORCH) - {"calculate_gain"}


# ---- Keras


@pytest.fixture(scope="module")
def keras():
    os.environ.setdefault("KERAS_BACKEND", "jax")
    return pytest.importorskip("keras")


@pytest.mark.parametrize("name", KERAS)
def test_keras(keras, name):
    init = getattr(keras.initializers, name)
    seed = {} if not ours(KERAS[name])._draws else {"seed": 11}
    theirs = np.asarray(init(**seed)(shape_for(name), "float32"))
    compare(name, KERAS[name], theirs)


@pytest.mark.parametrize("window", ["hann", "hamming", None])
@pytest.mark.parametrize("scaling", ["density", "spectrum", None])
def test_keras_stft(keras, window, scaling):
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


@pytest.mark.parametrize("name", HAIKU)
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
