"""The command line: what it prints and writes, and one line for every failure."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import cli_files
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import load_file
from sampling import sampled

import jaxinit
from jaxinit import cli
from jaxinit._cli import arguments
from jaxinit._cli.init import _bytes
from jaxinit._cli.target import rounded

pytestmark = pytest.mark.unoptimized


@pytest.fixture
def folder(tmp_path, monkeypatch):
    with cli_files.written(tmp_path, monkeypatch):
        yield tmp_path


def run_json(capsys, *argv):
    assert cli.main(["init", *argv, "--json"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return json.loads(out)


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
    seconds = r"\d+\.\d\d s"
    assert re.fullmatch(
        f"programs: 1; trace {seconds}, compile {seconds}, run {seconds}", lines[4]
    )
    assert lines[5].startswith("peak memory: ")


def test_sizes_in_words():
    sizes = (0, 999, 1000, 999_999, 10**6, 10**9)
    words = ["0 bytes", "999 bytes", "1.00 kB", "1000.00 kB", "1.00 MB", "1.00 GB"]
    assert [_bytes(size) for size in sizes] == words


def reference(key):
    keys = jax.random.split(key, 3)
    return np.concatenate([jax.random.normal(k, (4 * 8,)) for k in keys]).reshape(12, 8)


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
    "linen init": ("fake:net.init --input 1x4:float32", 15 + 6 + 8, 6),
    "linen call": ("fake:switched --input 1x4:int8 --arg train=FALSE", 4 * 6 + 6, 0),
    "linen class and call": (
        "fake:Switched --input 1x4:int8 --arg features=2 --arg train=1 --arg act=tanh",
        4 * 2 + 2,
        0,
    ),
    "function of arguments": (
        "fake:layered --input 1x4:int8 --arg layers=2 --arg name=1e3",
        8,
        0,
    ),
    "nothing": ("fake:empty", 0, 0),
    "infinite state": ("fake:finite", 2, 2),
    "two inputs": ("fake:sized --input 1x5:float32 --input 3:int32", 18, 0),
    "nnx class": ("fake:Model", 12, 2),
    "nnx function": ("fake:make", 9, 0),
    "nnx class and arguments": ("fake:SizedModel --arg features=4", 12, 0),
}


# Each is like another but for one thing more.
BEYOND = ["linen init", "linen class and call", "two inputs", "nnx class and arguments"]


@pytest.mark.sample(5)
@pytest.mark.parametrize("name", sampled(TARGETS, BEYOND))
def test_targets(name, folder, capsys):
    argv, parameters, others = TARGETS[name]
    result = run_json(capsys, *argv.split())
    assert result["parameters"] == parameters
    state = [r["size"] for r in result["rows"] if r["collection"] not in ("", "params")]
    assert sum(state) == others


VALUES = {
    "true": True,
    "False": False,
    "NONE": None,
    "3": 3,
    "-0.5": -0.5,
    "(1, 'a')": (1, "a"),
    "'true'": "true",
    "relu": "relu",
    "a=b": "a=b",
    "": "",
    "1 +": "1 +",
    "{[]: 1}": "{[]: 1}",
    r"'\d'": r"\d",
    "(" * 1000: "(" * 1000,
}


@pytest.mark.parametrize("text", VALUES, ids=range(len(VALUES)))
def test_values_of_arguments(text):
    name, value = arguments.keyword(f"name={text}")
    assert name == "name"
    assert (type(value), value) == (type(VALUES[text]), VALUES[text])


def test_arguments_in_json(folder, capsys):
    argv = ["--input", "1x4:int8", "--arg", "layers=1", "--arg", "name=w"]
    result = run_json(capsys, "fake:layered", *argv)
    assert result["args"] == {"layers": "1", "name": "'w'"}
    assert result["not_finite"] == []


@pytest.mark.sample(4)
@pytest.mark.parametrize("dtype", arguments.ROUNDED_TO)
def test_dtypes_to_round_to(dtype, key):
    """All can be drawn in and hold what was drawn; those who say no say it early."""
    with jax.enable_x64(True):
        assert arguments.floating_dtype(dtype) == jnp.dtype(dtype)
    if dtype == "float64":
        return
    values = rounded(lambda key: jax.random.normal(key, (99,)), jnp.dtype(dtype))(key)
    exact = jax.random.normal(key, (99,))
    np.testing.assert_array_equal(values, np.asarray(exact).astype(dtype))


def test_version(capsys):
    with pytest.raises(SystemExit) as exit:
        cli.main(["--version"])
    assert exit.value.code == 0
    assert capsys.readouterr().out.startswith(
        f"jaxinit {jaxinit.__version__}, jax {jax.__version__}, "
    )


@pytest.mark.optimized
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


def test_as_a_program(folder):
    environment = os.environ | {"COLUMNS": "80"}
    command = [sys.executable, "-m", "jaxinit", "init", "fake:blocks"]
    result = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert (result.returncode, result.stderr) == (0, "")
    assert "block_{0..2}/kernel x3" in result.stdout
    wrong = subprocess.run([*command, "--seed", "x"], capture_output=True, text=True)
    assert wrong.returncode == 2
    assert wrong.stderr.count("\n") == 1
