"""The command `jaxinit compare`: what it prints and writes, and its failures."""

import contextlib
import json
import sys

import pytest

from jaxinit import cli, compare

pytestmark = pytest.mark.unoptimized

MODULE = """
import numpy as np
from flax import linen as nn
import jaxinit

class Net(nn.Module):
    width: int = 4

    @nn.compact
    def __call__(self, x):
        print("hello")
        return nn.Dense(2)(nn.relu(nn.Dense(self.width)(x)))

x = np.random.default_rng(0).normal(size=(60, 3)).astype("float32")
y = (x[:, 0] > 0).astype(int)
pair = x, y
labels = x, 2 * y
rows = x, y[1:]
rules = jaxinit.Rules({"**/kernel": jaxinit.he_normal(), "**/bias": jaxinit.zeros})
unfit = jaxinit.Rules({"**/kernel": jaxinit.ones})

def made():
    return x, y
"""
BRIEF = ["--steps", "4", "--batch", "8"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "netfile.py").write_text(MODULE)
    (tmp_path / "old").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield tmp_path
    sys.modules.pop("netfile", None)


def run(*argv, data="netfile:pair"):
    return cli.main(["compare", "netfile:Net", "--data", data, *BRIEF, *argv])


def once(function):
    """Calls a function the first time, and gives what it returned ever after."""
    found = []

    def call(*args, **options):
        found[:] = found or [function(*args, **options)]
        return found[0]

    return call


def test_a_table_and_a_folder_of_files(folder, capsys, monkeypatch):
    monkeypatch.setattr(compare, "compare", once(compare.compare))
    names = "normal(0.01),netfile:rules"
    assert run("--schemes", names, "--lr", "1e-3,1e-2", "--out", "new") == 0
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert lines[0].split()[:2] == ["scheme", "at"]
    assert [line.split()[0] for line in lines[1:3]] == names.split(",")
    assert lines[-1].startswith("wrote ")
    assert "hello" in err
    assert "hello" not in out
    written = {path.name for path in (folder / "new").iterdir()}
    pictures = {f"{x}.{y}" for x in ("loss", "signal") for y in ("png", "svg")}
    assert written == {"table.txt", "result.json", *pictures}
    assert (folder / "new/table.txt").read_text() == "\n".join(lines[:-1]) + "\n"
    found = json.loads((folder / "new/result.json").read_text())
    assert [row["scheme"] for row in found["rows"]] == names.split(",")
    assert run("--schemes", names, "--lr", "1e-3,1e-2", "--json") == 0
    assert json.loads(capsys.readouterr().out) == found


@pytest.mark.exhaustive
def test_an_interruption_prints_and_writes_what_is_finished(
    folder, capsys, monkeypatch
):
    @contextlib.contextmanager
    def telling(progress):
        def tell(done, total):
            if done == 2:
                raise KeyboardInterrupt

        yield tell

    monkeypatch.setattr("jaxinit.compare.telling", telling)
    assert run("--schemes", "zeros", "--out", "new") == 130
    out, err = capsys.readouterr()
    assert "interrupted after 2 of 4 steps" in out
    assert "interrupted after" in (folder / "new/table.txt").read_text()
    assert err.splitlines()[-1] == "jaxinit: interrupted"


EIGHT = ",".join(f"normal(0.{i})" for i in range(1, 9))
FAILURES = {
    "scheme": ("--schemes he_norml", 2, "unknown scheme 'he_norml'; the nearest are"),
    "no scheme like it": ("--schemes q", 2, "dir(jaxinit.schemes) list them"),
    "scheme twice": ("--schemes zeros,zeros", 2, "--schemes names 'zeros' twice"),
    "setting": ("--schemes normal(stdev=1)", 2, "unknown setting of normal 'stdev'"),
    "no literal": ("--schemes normal(x)", 2, "'normal(x)' is not the name of a scheme"),
    "no fit": (
        "--schemes netfile:unfit",
        2,
        "scheme 'netfile:unfit' does not fit the model: the plan has 2 problems: "
        "Dense_0/bias: no rule matches it",
    ),
    "out": ("--schemes zeros --out old", 2, "old exists already"),
    "pictures": (f"--schemes {EIGHT} --out new", 2, "--out draws up to 7 schemes"),
    "optimizer": ("--schemes zeros --optimizer adm", 2, "unknown optimizer 'adm'"),
    "rate": ("--schemes zeros --lr 1e-3,0", 2, "'0' is not a positive number"),
    "data": ("--schemes zeros --data digit", 2, "unknown data 'digit'; the nearest"),
    "labels": ("--schemes zeros --data netfile:labels", 1, "labels y go up to 2"),
    "rows": ("--schemes zeros --data netfile:rows", 1, "the same number of rows"),
}


@pytest.mark.parametrize("name", FAILURES)
def test_failure_is_one_line(folder, capsys, name):
    command, status, expected = FAILURES[name]
    assert run(*command.split()) == status
    out, err = capsys.readouterr()
    assert out == ""
    lines = [line for line in err.splitlines() if line != "hello"]
    assert len(lines) == 1
    assert lines[0].startswith("jaxinit: ")
    assert expected in lines[0]
    assert not (folder / "new").exists()
