"""The command line: what it prints and writes, and one line for every failure."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import load_file

from jaxinit import checkpoint, cli

MODULE = """
import functools
import jax
import jax.numpy as jnp
from flax import linen as nn, nnx

def blocks(key):
    keys = jax.random.split(key, 3)
    return {f"block_{i}": {"kernel": jax.random.normal(k, (4, 8))}
            for i, k in enumerate(keys)}

def mixed(key):
    return {"key": key, "step": jnp.arange(3), "w": jnp.full(2, 1e6),
            "list": [jnp.ones(2), jnp.zeros(2)]}

def scaled(key, x):
    return {"w": jax.random.normal(key, (x.shape[-1], 2))}

def narrow(key):
    return {"w": jnp.ones(2, jnp.bfloat16)}

def three(a, b, c):
    return a

def broken(key):
    return undefined_name

def text(key):
    return "text"

class Net(nn.Module):
    features: int = 3

    @nn.compact
    def __call__(self, x):
        x = nn.BatchNorm(use_running_average=False)(nn.Dense(self.features)(x))
        return nn.Dense(2)(x)

class Sized(nn.Module):
    features: int

    @nn.compact
    def __call__(self, x, y):
        return nn.Dense(self.features)(x) + y

net = Net()
sized = Sized(3)

class Model(nnx.Module):
    def __init__(self, rngs, features=3):
        self.layers = nnx.List([nnx.Linear(2, 2, rngs=rngs) for _ in range(2)])
        self.dropout = nnx.Dropout(0.1, rngs=rngs)

class SizedModel(nnx.Module):
    def __init__(self, features, rngs):
        self.linear = nnx.Linear(2, features, rngs=rngs)

def make(rngs: nnx.Rngs):
    return SizedModel(3, rngs)

def makes_nothing(rngs):
    return 3

number = 3

import jaxinit

rules = {"**/kernel": jaxinit.normal(1.0)}
wrong_rules = jaxinit.Rules({"**/kernel": jaxinit.normal(0.1)})
unused_rules = {"**/kernel": jaxinit.he_normal(), "**/bias": jaxinit.zeros}
unfit_rules = {"**/kernel": jaxinit.split(jaxinit.ones, 3)}
no_rules = {"**/kernel": 3}
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with the modules below, and nothing imported from it before or after."""
    modules = {
        "fake": MODULE,
        "syntax": "def f(:",
        "needs": "import no_such_module",
        "raises": "raise RuntimeError('one\\ntwo')",
        "exits": "import sys\nsys.exit(3)",
        "talks": "from fake import blocks\nprint('hello')",
    }
    for name, source in modules.items():
        (tmp_path / f"{name}.py").write_text(source)
        monkeypatch.delitem(sys.modules, name, raising=False)
    (tmp_path / "old.safetensors").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield tmp_path
    sys.modules.pop("fake", None)


def run_json(capsys, *argv):
    assert cli.main(["init", *argv, "--json"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return json.loads(out)


FAILURES = {
    "no colon": ("fake", "'fake' is not of the form module:name"),
    "no name": ("fake:", "'fake:' is not of the form module:name"),
    "no module": ("nowhere:x", "no module named 'nowhere': run from the folder"),
    "no package": ("nowhere.sub:x", "no module named 'nowhere': run from"),
    "module needs another": (
        "needs:x",
        "importing needs failed: ModuleNotFoundError: No module named 'no_such_module' "
        "(FOLDER/needs.py, line 1)",
    ),
    "module raises": (
        "raises:x",
        "importing raises failed: RuntimeError: one two (FOLDER/raises.py, line 1)",
    ),
    "module exits": ("exits:x", "importing exits failed: SystemExit: 3"),
    "syntax": ("syntax:f", "importing syntax failed: SyntaxError"),
    "near name": ("fake:block", "fake has no 'block'", "did you mean blocks or "),
    "no near name": ("fake:zzz", "fake has no 'zzz'", "it has functools, jax"),
    "attribute of an object": ("fake:net.xyz", "Net has no 'xyz'"),
    "wrong type": ("fake:number", "a value of type int is neither an init function"),
    "no input": ("fake:net", "called on (x), but 0 --input were given", "1x8:int32"),
    "too few inputs": (
        "fake:sized --input 1x3:float32",
        "called on (x, y), but 1 --input were given (missing a required argument: 'y')",
    ),
    "inputs that do not fit": (
        "fake:sized --input 1x3:float32 --input 1x4:float32",
        "initialising fake:sized failed: TypeError: add got incompatible shapes",
        "(FOLDER/fake.py, line ",
    ),
    "class with arguments": (
        "fake:Sized --input 1x3:float32",
        "missing 1 required positional argument: 'features': name an instance",
    ),
    "nnx class with arguments": (
        "fake:SizedModel",
        "the constructor takes (features, rngs), not rngs alone",
    ),
    "nnx with input": ("fake:Model --input 1x2:int32", "NNX constructor takes no --in"),
    "nnx without module": (
        "fake:makes_nothing",
        "initialising fake:makes_nothing failed: TypeError: fun must return an nnx.Mod",
    ),
    "not of a key": ("fake:three", "the function takes (a, b, c), not a key and 0"),
    "raises when called": (
        "fake:broken",
        "failed: NameError: name 'undefined_name' is not defined (FOLDER/fake.py, line",
    ),
    "returns no array": ("fake:text", "initialising fake:text failed: TypeError:"),
    "input without dtype": (
        "fake:net --input 1x8",
        "argument --input: '1x8' is not of the form SHAPE:DTYPE",
    ),
    "input of no shape": ("fake:net --input ax8:int32", "'ax8:int32' is not of the"),
    "input of no dtype": ("fake:net --input 8:int33", "'int33' is not a dtype of JAX"),
    "wide input": ("fake:net --input 8:float64", "float64 needs JAX_ENABLE_X64=1"),
    "no dtype": ("fake:blocks --dtype half-ish", "'half-ish' is not a dtype of JAX"),
    "integer dtype": ("fake:blocks --dtype int8", "int8 is not floating-point: choose"),
    "wide dtype": ("fake:blocks --dtype float64", "float64 needs JAX_ENABLE_X64=1"),
    "dtype of a narrow draw": (
        "fake:narrow --dtype float32",
        "--dtype float32 is not narrower than bfloat16",
    ),
    "seed": ("fake:blocks --seed x", "argument --seed: 'x' is not an integer in [0, 2"),
    "negative seed": ("fake:blocks --seed=-1", "'-1' is not an integer in [0, 2**32)"),
    "large seed": ("fake:blocks --seed 4294967296", "is not an integer in [0, 2**32)"),
    "old file": (
        "fake:blocks --out old.safetensors",
        "argument --out: old.safetensors exists already: choose another name",
    ),
    "old folder": ("fake:blocks --out .", "argument --out: . exists already"),
    "no folder": (
        "fake:blocks --out a/b",
        "argument --out: there is no folder FOLDER/a",
    ),
    "rules without a colon": (
        "fake:blocks --rules fake",
        "'fake' is not of the form module:name",
    ),
    "no such rules": (
        "fake:blocks --rules fake:rulse",
        "fake has no 'rulse' (target 'fake:rulse'): did you mean rules",
    ),
    "no module of rules": (
        "fake:blocks --rules nowhere:rules",
        "no module named 'nowhere'",
    ),
    "not rules": (
        "fake:blocks --rules fake:number",
        "fake:number is of type int, not jaxinit.Rules or a mapping",
    ),
    "rules of no initializer": (
        "fake:blocks --rules fake:no_rules",
        "--rules fake:no_rules: the rule for '**/kernel' must be an initializer",
    ),
    "rules that match nothing": (
        "fake:blocks --rules fake:unused_rules",
        "--rules fake:unused_rules: the plan has 1 problem:; rule '**/bias': matches",
    ),
    "rules that do not fit": (
        "fake:blocks --rules fake:unfit_rules",
        "block_0/kernel: split(ones, 3) cannot make it: sections=3 does not divide",
    ),
    "rules and a target that raises": (
        "fake:broken --rules fake:rules",
        "initialising fake:broken failed: NameError",
    ),
    "unknown option": ("fake:blocks --sed 1", "unrecognized arguments: --sed 1"),
    "no target": ("", "the following arguments are required: target"),
}


@pytest.mark.parametrize("name", FAILURES)
def test_failure_is_one_line(name, folder, capsys):
    argv, *parts = FAILURES[name]
    before = sorted(os.listdir())
    assert cli.main(["init", *argv.split()]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("jaxinit: ")
    assert err.count("\n") == 1
    for part in parts:
        assert part.replace("FOLDER", str(folder)) in err
    assert sorted(os.listdir()) == before


MISSING = {
    "rich": ("--json", "jaxinit.report", "rich"),
    "safetensors": ("--out=a.safetensors", None, "safetensors"),
    "orbax": ("--out=a", None, "orbax.checkpoint"),
}


@pytest.mark.parametrize("name", MISSING)
def test_missing_package_is_one_line(name, folder, capsys, monkeypatch):
    option, cached, module = MISSING[name]
    if cached:
        monkeypatch.delitem(sys.modules, cached, raising=False)
    for known in [*sys.modules]:
        if known == module or known.startswith(f"{module}."):
            monkeypatch.setitem(sys.modules, known, None)
    monkeypatch.setitem(sys.modules, module, None)
    assert cli.main(["init", "fake:blocks", option]) == 1
    err = capsys.readouterr().err
    assert err.startswith(f"jaxinit: {name}")
    assert err.endswith("is not installed: pip install 'jaxinit[cli]'\n")


def test_table(folder, capsys):
    assert cli.main(["init", "fake:blocks"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == [
        "leaf",
        "shape",
        "dtype",
        "size",
        "mean",
        "std",
        "scale",
        "min",
        "max",
        "zeros",
        "norm",
    ]
    assert lines[1].split()[:5] == ["block_{0..2}/kernel", "x3", "4x8", "f32", "96"]
    assert lines[3] == "parameters: 96; 384 bytes in 3 arrays"
    assert lines[4].startswith("programs: 1; trace 0.")
    assert lines[5].startswith("peak memory: ")


def reference(key):
    keys = jax.random.split(key, 3)
    return np.concatenate([jax.random.normal(k, (4, 8)) for k in keys])


def test_json(folder, capsys):
    result = run_json(capsys, "fake:blocks", "--seed", "7")
    (row,) = result["rows"]
    assert (row["path"], row["leaves"]) == ("block_{0..2}/kernel", 3)
    assert (row["shape"], row["dtype"]) == ([4, 8], "float32")
    assert row["std"] == pytest.approx(reference(jax.random.key(7)).std(), rel=1e-5)
    assert row["scale"] == pytest.approx(4 * row["std"] ** 2)
    assert (result["parameters"], result["bytes"], result["leaves"]) == (96, 384, 3)
    assert (result["programs"], result["seed"]) == (1, 7)
    assert set(result["seconds"]) == {"trace", "compile", "run"}
    assert all(seconds > 0 for seconds in result["seconds"].values())
    assert result["peak_bytes"] > result["extra_bytes"] >= 0


def test_rules_say_what_was_expected(folder, capsys):
    result = run_json(capsys, "fake:blocks", "--rules", "fake:rules")
    (row,) = result["rows"]
    assert (row["law"], result["rules"]) == ("normal(stddev=1.0)", "fake:rules")
    assert (row["expected_mean"], row["expected_std"]) == (0, 1)
    assert row["score"] < 6.5
    wrong = run_json(capsys, "fake:blocks", "--rules", "fake:wrong_rules")
    assert wrong["rows"][0]["p"] < 1e-9
    assert cli.main(["init", "fake:blocks", "--rules", "fake:rules"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["expected", "expected"]
    assert "normal(stddev=1.0)" in lines[2]


def test_rules_of_some_leaves(folder, capsys):
    argv = ("fake:net", "--input", "1x4:float32", "--rules", "fake:wrong_rules")
    rows = {row["path"]: row for row in run_json(capsys, *argv)["rows"]}
    assert rows["params/Dense_1/kernel"]["law"] == "normal(stddev=0.1)"
    assert rows["params/Dense_1/bias"]["law"] is None
    assert rows["batch_stats/BatchNorm_0/mean"]["score"] is None


def test_output_of_the_target_does_not_mix_with_ours(folder, capsys):
    assert cli.main(["init", "talks:blocks", "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["parameters"] == 96
    assert err == "hello\n"


TARGETS = {
    "function": ("fake:blocks", 96, 0),
    "function of an input": ("fake:scaled --input 1x5:int32", 10, 0),
    "linen module": ("fake:net --input 1x4:float32", 15 + 6 + 8, 6),
    "linen class": ("fake:Net --input 1x4:bfloat16", 15 + 6 + 8, 6),
    "two inputs": ("fake:sized --input 1x5:float32 --input 3:int32", 18, 0),
    "nnx class": ("fake:Model", 12, 2),
    "nnx function": ("fake:make", 9, 0),
}


@pytest.mark.parametrize("name", TARGETS)
def test_targets(name, folder, capsys):
    argv, parameters, others = TARGETS[name]
    result = run_json(capsys, *argv.split())
    assert result["parameters"] == parameters
    state = [r["size"] for r in result["rows"] if r["collection"] not in ("", "params")]
    assert sum(state) == others


def test_safetensors(folder, capsys):
    result = run_json(capsys, "fake:blocks", "--out", "a.safetensors")
    assert result["out"] == str(folder / "a.safetensors")
    loaded = load_file("a.safetensors")
    assert list(loaded) == [f"block_{i}/kernel" for i in range(3)]
    values = np.concatenate(list(loaded.values()))
    np.testing.assert_array_equal(values, reference(jax.random.key(0)))
    default = Path("fake.py").stat().st_mode
    assert Path("a.safetensors").stat().st_mode == default


def test_dtype_rounds_the_float32_draw_once(folder, capsys):
    run_json(capsys, "fake:blocks", "--dtype", "bfloat16", "--out", "a.safetensors")
    values = np.concatenate(list(load_file("a.safetensors").values()))
    assert values.dtype == jnp.bfloat16
    expected = reference(jax.random.key(0)).astype(jnp.bfloat16)
    np.testing.assert_array_equal(values, expected)


def test_dtype_leaves_what_is_no_parameter(folder, capsys):
    argv = ("fake:net", "--input", "1x4:float32", "--dtype", "float16")
    rows = run_json(capsys, *argv)["rows"]
    dtypes = {row["collection"]: row["dtype"] for row in rows}
    assert dtypes == {"params": "float16", "batch_stats": "float32"}


def test_dtype_clips_and_skips_keys_and_integers(folder, capsys):
    rows = run_json(capsys, "fake:mixed", "--dtype", "float16")["rows"]
    found = {row["path"]: (row["dtype"], row["mean"]) for row in rows}
    assert found["key"] == ("key<fry>", None)
    assert found["step"] == ("int32", None)
    assert found["w"] == ("float16", 65504.0)


def test_safetensors_of_keys_and_lists(folder, capsys):
    run_json(capsys, "fake:mixed", "--out", "a.safetensors")
    loaded = load_file("a.safetensors")
    assert set(loaded) == {"key", "step", "w", "list/0", "list/1"}
    words = jax.random.key_data(jax.random.key(0))
    np.testing.assert_array_equal(loaded["key"], words)


def test_orbax_checkpoint_restores_into_a_model(folder, capsys):
    import orbax.checkpoint as ocp

    run_json(capsys, "fake:Model", "--out", "checkpoint")
    with ocp.StandardCheckpointer() as checkpointer:
        restored = checkpointer.restore(folder / "checkpoint")
    from fake import Model  # pyright: ignore[reportMissingImports]

    expected = Model(nnx.Rngs(0))
    params = restored["params"]
    for i, layer in enumerate(expected.layers):
        kernel = params["layers"][str(i)]["kernel"]
        np.testing.assert_allclose(kernel, layer.kernel[...], rtol=1e-6)
    words = jax.random.key_data(expected.dropout.rngs.key[...])
    found = restored["RngKey"]["dropout"]["rngs"]["key"]
    np.testing.assert_array_equal(found, words)


ON_A_FULL_DISK = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
from jaxinit.cli import main
sys.exit(main(["init", "fake:blocks", "--json", "--out", sys.argv[1]]))
"""


@pytest.mark.parametrize("out", ["a.safetensors", "a"])
def test_full_disk_leaves_nothing_behind(out, folder):
    """No file may grow beyond 100 bytes, which fails as a full disk does."""
    before = sorted(os.listdir())
    command = [sys.executable, "-c", ON_A_FULL_DISK, out]
    result = subprocess.run(command, capture_output=True, text=True)
    assert (result.returncode, result.stdout) == (1, "")
    reason = f"{os.strerror(errno.EFBIG)}; nothing was left behind"
    assert result.stderr == f"jaxinit: could not write {folder / out}: {reason}\n"
    assert sorted(os.listdir()) == before


def test_interrupt_leaves_nothing_behind(folder, monkeypatch, capsys):
    def writes_half(path):
        def write(path, params):
            path.write_text("half")
            raise KeyboardInterrupt

        return write

    monkeypatch.setattr(checkpoint, "writer", writes_half)
    before = sorted(os.listdir())
    assert cli.main(["init", "fake:blocks", "--json", "--out", "a"]) == 130
    assert capsys.readouterr().err == "jaxinit: interrupted\n"
    assert sorted(os.listdir()) == before


def test_unwritable_folder(folder, monkeypatch, capsys):
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert cli.main(["init", "fake:blocks", "--out", "a"]) == 1
    assert f"the folder {folder} is not writable" in capsys.readouterr().err


def test_as_a_program(folder):
    environment = os.environ | {"COLUMNS": "80"}
    command = [sys.executable, "-m", "jaxinit", "init", "fake:blocks"]
    result = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert (result.returncode, result.stderr) == (0, "")
    assert "block_{0..2}/kernel x3" in result.stdout
    wrong = subprocess.run([*command, "--seed", "x"], capture_output=True, text=True)
    assert wrong.returncode == 1
    assert wrong.stderr.count("\n") == 1
