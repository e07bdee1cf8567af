"""The command `jaxinit signal`: what it prints and draws, and its failures."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sampling import sampled

from jaxinit import cli
from jaxinit._cli import signal
from jaxinit._cli.signal import _batch

pytestmark = pytest.mark.unoptimized

MODULE = """
import jax.numpy as jnp
from flax import linen as nn, nnx
import jaxinit

class Net(nn.Module):
    @nn.compact
    def __call__(self, x):
        print("hello")
        for _ in range(8):
            x = nn.relu(nn.Dense(16, kernel_init=jaxinit.glorot_normal())(x))
        return x

class Words(nn.Module):
    @nn.compact
    def __call__(self, ids):
        return nn.Embed(5, 16)(ids)

class Pair(nn.Module):
    @nn.compact
    def __call__(self, x, y):
        return nn.Embed(10, 16)(x) + nn.Embed(10, 16)(y)

class Model(nnx.Module):
    def __init__(self, rngs, width=4):
        self.linear = nnx.Linear(16, width, rngs=rngs)

    def __call__(self, x, scale=1):
        return scale * self.linear(x)

class Switched(nn.Module):
    width: int = 3

    @nn.compact
    def __call__(self, x, train: bool):
        return nn.Dense(self.width)(x) if train else nn.Conv(16, (1,))(x)

made = Model(nnx.Rngs(0))

def draw(key):
    return key
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "netfile.py").write_text(MODULE)
    (tmp_path / "file").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield tmp_path
    sys.modules.pop("netfile", None)


def test_a_table_a_verdict_and_pictures(folder, capsys):
    (folder / "pictures").mkdir()
    (folder / "pictures" / "depth.png").touch()  # pictures may be drawn again
    argv = ["signal", "netfile:Net", "--input", "64x16:float32", "--out", "pictures"]
    assert cli.main(argv) == 0
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert lines[0].split()[:2] == ["layer", "kind"]
    assert lines[1].startswith("Dense_0")
    [verdict] = [line for line in lines if line.startswith("verdict: ")]
    assert "use he_normal" in verdict
    assert "hello" in err
    assert "hello" not in out
    written = sorted((folder / "pictures").iterdir())
    assert all(path.stat().st_size > 1000 for path in written)
    assert [path.name for path in written] == [
        "activations.png",
        "activations.svg",
        "depth.png",
        "depth.svg",
    ]
    assert lines[-1].startswith("wrote ")


def test_no_line_wraps_in_a_narrow_terminal(folder, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    argv = ["signal", "netfile:Net", "--input", "64x16:float32"]
    assert cli.main(argv) == 0
    piped = capsys.readouterr().out
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    assert cli.main(argv) == 0
    shown = capsys.readouterr().out
    table, verdict = shown.split("verdict: ")
    assert max(map(len, table.splitlines())) <= 40
    assert table.startswith("Dense_0\n  kind: Dense\n")
    assert piped.endswith(f"verdict: {verdict}")
    monkeypatch.setenv("COLUMNS", "400")
    assert cli.main(argv) == 0
    assert capsys.readouterr().out == piped


@pytest.mark.exhaustive
def test_pictures_that_cannot_be_written(folder, capsys, monkeypatch):
    def full(self, **settings):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.mkdir", full)
    argv = ["signal", "netfile:Net", "--input", "64x16:float32", "--out", "pictures"]
    assert cli.main(argv) == 1
    err = capsys.readouterr().err.splitlines()[-1]
    assert err.startswith("jaxinit: could not write ")
    assert err.endswith("No space left on device")


@pytest.mark.exhaustive
def test_nnx_and_integers(folder, capsys):
    argv = ["signal", "netfile:Model", "--arg", "width=16", "--input", "64x16:float32"]
    assert cli.main(argv) == 0
    assert "linear" in capsys.readouterr().out
    words = ["signal", "netfile:Words", "--input", "16x4:int32", "--below"]
    assert cli.main([*words, "5"]) == 0
    assert "verdict: healthy" in capsys.readouterr().out
    assert cli.main([*words, "6"]) == 0  # beyond the vocabulary
    assert "verdict: not finite" in capsys.readouterr().out
    assert cli.main(words[:-1]) == 0  # as 9 is
    assert "verdict: not finite" in capsys.readouterr().out


def sent(monkeypatch, *argv):
    """What a model is drawn and called with, without the call."""
    seen = []

    def see(module, variables, inputs, **options):
        seen.append((variables, inputs))
        raise ValueError("seen")

    monkeypatch.setattr(signal, "propagate", see)
    assert cli.main(["signal", "netfile:Pair", *argv]) == 1
    (found,) = seen
    return found


@pytest.mark.optimized
def test_what_is_sent(folder, monkeypatch):
    """Weights by one half of the seed's key, inputs by keys of the other half."""
    argv = ["--input", "16x4:int32", "--input", "16x4:int32", "--seed", "7"]
    variables, (first, second) = sent(monkeypatch, *argv)
    from netfile import Pair  # pyright: ignore[reportMissingImports]

    key, data = jax.random.split(jax.random.key(7))
    expected = jax.jit(Pair().init)(key, first, second)
    assert jax.tree.all(jax.tree.map(np.array_equal, variables, expected))
    drawn = [jax.random.randint(k, (16, 4), 0, 10) for k in jax.random.split(data)]
    assert np.array_equal(first, drawn[0])
    assert np.array_equal(second, drawn[1])


ARGUMENTS = {
    "linen call": ("netfile:Switched --arg train=false", "Conv_0", "64x16"),
    "linen class and call": (
        "netfile:Switched --arg train=True --arg width=16",
        "Dense_0",
        "64x16",
    ),
    "nnx class and call": (
        "netfile:Model --arg width=16 --arg scale=2",
        "linear",
        "64x16",
    ),
}


@pytest.mark.parametrize(
    "name", sampled(ARGUMENTS, ["linen class and call", "linen call"])
)
def test_arguments(name, folder, capsys):
    argv, layer, shape = ARGUMENTS[name]
    assert cli.main(["signal", *argv.split(), "--input", "64x16:float32"]) == 0
    row = capsys.readouterr().out.splitlines()[1].split()
    assert (row[0], row[2]) == (layer, shape)


def test_the_batch_is_drawn_as_said():
    dtypes = (jnp.float32, jnp.int32, bool)
    wanted = [jax.ShapeDtypeStruct((4000,), dtype) for dtype in dtypes]
    real, whole, flags = map(np.asarray, _batch(jax.random.key(0), wanted, 7))
    assert abs(float(real.mean())) < 5 / 4000**0.5
    assert abs(float(real.var()) - 1) < 5 * (2 / 4000) ** 0.5
    assert (int(whole.min()), int(whole.max())) == (0, 6)
    assert 0 < int(flags.sum()) < 4000


FAILURES = {
    "no input": ("netfile:Net", "required: --input"),
    "not a model": ("netfile:draw --input 3:float32", "draw is no model that can be"),
    "wrong width": (
        "netfile:Model --input 4x3:float32",
        "running netfile:Model failed: LayerError: layer 'linear' (Linear) fails on "
        "float32[4, 3]",
    ),
    "too many inputs": (
        "netfile:Net --input 4x3:float32 --input 3:float32",
        "2 --input were given",
    ),
    "too large": (
        "netfile:Net --input 9999999x9999999:float32",
        "running netfile:Net failed: ",
    ),
    "argument of nobody": (
        "netfile:Model --input 4x16:float32 --arg widht=3",
        "the module is called on (x, scale), but 1 --input and --arg widht were given",
    ),
    "argument that cannot be compared": (
        "netfile:Model --input 4x16:float32 --arg scale=[1]",
        "running netfile:Model failed: ",
    ),
    "instance": (
        "netfile:made --input 4x16:float32",
        "this Model was made already and holds its arrays",
    ),
    "file": ("netfile:Net --input 4x3:float32 --out file", "file exists already"),
    "no folder": ("netfile:Net --input 4x3:float32 --out a/b", "there is no folder"),
    "below": ("netfile:Net --input 4:int32 --below 0", "'0' is not an integer in [1,"),
}


@pytest.mark.parametrize("name", sampled(FAILURES, ["too large"]))
def test_failure_is_one_line(folder, capsys, name):
    command, expected = FAILURES[name]
    assert cli.main(["signal", *command.split()]) == (1 if "running" in expected else 2)
    out, err = capsys.readouterr()
    assert out == ""
    lines = [line for line in err.splitlines() if line != "hello"]
    assert len(lines) == 1
    assert lines[0].startswith("jaxinit: ")
    assert expected in lines[0]
