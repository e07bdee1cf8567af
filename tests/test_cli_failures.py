"""The command line, when something is wrong: one line, a status, nothing behind."""

import errno
import io
import json
import os
import signal
import subprocess
import sys
import tempfile

import cli_files
import pytest
from sampling import sampled

from jaxinit import cli
from jaxinit._cli import checkpoint
from jaxinit._cli.arguments import ROUNDED_TO

pytestmark = pytest.mark.unoptimized


@pytest.fixture
def folder(tmp_path, monkeypatch):
    with cli_files.written(tmp_path, monkeypatch):
        yield tmp_path


def _line(text: str) -> int:
    return cli_files.MODULE.splitlines().index(text) + 1


# Those in FAILURES that are not of the arguments.
OF_THE_TARGET = {
    "inputs that do not fit",
    "nnx without module",
    "raises when called",
    "raises in a helper",
    "raises at length",
    "exits when called",
    "returns no array",
    "rules and a target that raises",
}
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
    "attribute raises": (
        "fake:lazy",
        "reading fake:lazy failed: RuntimeError: not now (FOLDER/fake.py, line",
    ),
    "near name": ("fake:block", "fake has no 'block'", "did you mean blocks or "),
    "no near name": ("fake:zzz", "fake has no 'zzz'", "it has Model, Net", ", ...\n"),
    "attribute of an object": ("fake:net.xyz", "Net has no 'xyz'"),
    "wrong type": ("fake:number", "a value of type int is neither an init function"),
    "no input": ("fake:net", "called on (x), but 0 --input were given", "1x8:int32"),
    "too few inputs": (
        "fake:sized --input 1x3:float32",
        "called on (x, y), but 1 --input were given (missing a required argument: 'y')",
        "and --arg NAME=VALUE for each setting",
    ),
    "other arguments": (
        "fake:switched --input 1x3:float32 --arg training=1 --arg act=relu",
        "called on (x, train, act), but 1 --input and --arg training and --arg act "
        "were given (missing a required argument: 'train')",
    ),
    "other arguments of a function": (
        "fake:layered --input 3:int8 --arg depth=3",
        "takes (key, x, layers, name), but a key and 1 --input and --arg depth were",
    ),
    "other arguments of nnx": (
        "fake:Model --arg width=3",
        "the constructor takes (rngs, features), not rngs and width alone (got an",
    ),
    "argument of no form": (
        "fake:switched --arg train",
        "argument --arg: 'train' is not of the form NAME=VALUE, such as train=true",
    ),
    "argument of no name": ("fake:switched --arg a-b=3", "'a-b=3' is not of the form"),
    "argument given twice": (
        "fake:switched --arg a=3 --arg b=1 --arg a=3",
        "argument --arg: a was given twice",
    ),
    "inputs that do not fit": (
        "fake:sized --input 1x3:float32 --input 1x4:float32",
        "initialising fake:sized failed: TypeError: add got incompatible shapes",
        "(FOLDER/fake.py, line ",
    ),
    "class with arguments": (
        "fake:Sized --input 1x3:float32",
        "missing 1 required positional argument: 'features': give --arg NAME=VALUE, or "
        "name an instance",
    ),
    "class that refuses": ("fake:Refusing", "ValueError: never (FOLDER/fake.py, line"),
    "nnx instance": (
        "fake:model",
        "this Model was made already and holds its arrays: name the class instead",
    ),
    "nnx class with arguments": (
        "fake:SizedModel",
        "the constructor takes (features, rngs), not rngs alone (missing a required ",
        "give --arg NAME=VALUE, or name a function of rngs",
    ),
    "nnx with input": ("fake:Model --input 1x2:int32", "NNX constructor takes no --in"),
    "nnx without module": (
        "fake:makes_nothing",
        "initialising fake:makes_nothing failed: TypeError: fun must return an nnx.Mod",
    ),
    "not of a key": ("fake:three", "the function takes (a, b, c), but a key and 0 --"),
    "raises when called": (
        "fake:broken",
        "failed: NameError: name 'undefined_name' is not defined (FOLDER/fake.py, line",
    ),
    "raises in a helper": (
        "fake:outer",
        f"(FOLDER/fake.py, line {_line('    return undefined_name')})",
    ),
    "raises at length": ("fake:at_length", f"failed: ValueError: {'x' * 488} (FOLDER/"),
    "exits when called": ("fake:leaves", "leaves failed: SystemExit: 0 (FOLDER/fake"),
    "returns no array": ("fake:text", "initialising fake:text failed: TypeError:"),
    "input without dtype": (
        "fake:net --input 1x8",
        "argument --input: '1x8' is not of the form SHAPE:DTYPE",
    ),
    "input of no shape": ("fake:net --input ax8:int32", "'ax8:int32' is not of the"),
    "input of no dtype": ("fake:net --input 8:int33", "'int33' is not a dtype of JAX"),
    "input of text": ("fake:net --input 8:str", "'str' is not a dtype of JAX"),
    "wide input": ("fake:net --input 8:float64", "float64 needs JAX_ENABLE_X64=1"),
    "no dtype": ("fake:blocks --dtype half-ish", "'half-ish' is not a dtype of JAX"),
    "integer dtype": (
        "fake:blocks --dtype int8",
        f"int8 is none of the dtypes to round to: {', '.join(ROUNDED_TO)} (see",
    ),
    "dtype without a sign": (
        "fake:blocks --dtype float8_e8m0fnu",
        "float8_e8m0fnu is none of the dtypes to round to: float16",
    ),
    "dtype that XLA lacks": (
        "fake:blocks --dtype float6_e2m3fn",
        "float6_e2m3fn is none of the dtypes to round to: float16",
    ),
    "dtype without NaN": (
        "fake:blocks --dtype float4_e2m1fn",
        "float4_e2m1fn is none of the dtypes to round to: float16",
    ),
    "wide dtype": ("fake:blocks --dtype float64", "float64 needs JAX_ENABLE_X64=1"),
    "dtype of a narrow draw": (
        "fake:narrow --dtype float32",
        "--dtype float32 is not narrower than bfloat16",
    ),
    "dtype as narrow": (
        "fake:narrow --dtype float16",
        "--dtype float16 is not narrower than bfloat16",
    ),
    "seed": ("fake:blocks --seed x", "argument --seed: 'x' is not an integer in [0, 2"),
    "negative seed": ("fake:blocks --seed=-1", "'-1' is not an integer in [0, 2**32)"),
    "endless seed": (f"fake:blocks --seed {'9' * 5000}", "9' is not an integer in ["),
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
    "name that is too long": (
        f"fake:blocks --out {'x' * 300}",
        "nothing can be written to the folder FOLDER: "
        + os.strerror(errno.ENAMETOOLONG),
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
        "--rules fake:number is of type int, not jaxinit.Rules or a mapping from path "
        "patterns to initializers\n",
    ),
    "what makes rules": (
        "fake:blocks --rules jaxinit.schemes:flax",
        "--rules jaxinit.schemes:flax is of type function, not jaxinit.Rules or a ",
        "if it makes rules, name what it returns",
    ),
    "rules of no initializer": (
        "fake:blocks --rules fake:no_rules",
        "--rules fake:no_rules: the rule for '**/kernel' must be an initializer",
    ),
    "rules that match nothing": (
        "fake:blocks --rules fake:unused_rules",
        "--rules fake:unused_rules: the plan has 1 problem: rule '**/bias': matches",
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
    "no target": ("", "the following arguments are required: module:name"),
}


@pytest.mark.parametrize("name", FAILURES)
def test_failure_is_one_line(name, folder, capsys):
    argv, *parts = FAILURES[name]
    before = sorted(os.listdir())
    assert cli.main(["init", *argv.split()]) == (1 if name in OF_THE_TARGET else 2)
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


ON_A_FULL_DISK = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
from jaxinit.cli import main
sys.exit(main(["init", "fake:blocks", "--json", "--out", sys.argv[1]]))
"""


@pytest.mark.parametrize("out", sampled(["a.safetensors", "a"], ["a"]))
def test_full_disk_leaves_nothing_behind(out, folder):
    """No file may grow beyond 100 bytes, which fails as a full disk does."""
    before = sorted(os.listdir())
    command = [sys.executable, "-c", ON_A_FULL_DISK, out]
    result = subprocess.run(command, capture_output=True, text=True)
    assert (result.returncode, result.stdout) == (1, "")
    reason = f"{os.strerror(errno.EFBIG)}; nothing was left behind"
    # jax may warn before, of entries of its cache that were left half-written
    *_, last = result.stderr.splitlines()
    assert last == f"jaxinit: could not write {folder / out}: {reason}"
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


def test_interrupt_of_the_target(folder, capsys):
    # a process that a shell started in the background ignores interrupts
    signal.signal(signal.SIGINT, signal.default_int_handler)
    before = sorted(os.listdir())
    assert cli.main(["init", "fake:interrupted", "--out", "a"]) == 130
    assert capsys.readouterr().err == "jaxinit: interrupted\n"
    assert sorted(os.listdir()) == before


@pytest.mark.parametrize("command", ["init", "signal"])
def test_unwritable_folder(command, folder, monkeypatch, capsys):
    def refuse(path, *_):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)

    monkeypatch.setattr(tempfile._os, "mkdir", refuse)
    assert cli.main([command, "fake:interrupted", "--out", "a"]) == 2
    err = capsys.readouterr().err
    assert f"nothing can be written to the folder {folder}: {os.strerror(13)}" in err


def test_unwritable_folder_in_a_writable_one(folder, monkeypatch, capsys):
    (folder / "old").mkdir()
    mkdir = os.mkdir

    def refuse(path, *options):
        if "/old/" in path:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        mkdir(path, *options)

    monkeypatch.setattr(tempfile._os, "mkdir", refuse)
    assert cli.main(["signal", "fake:interrupted", "--out", "old"]) == 2
    assert f"written to the folder {folder}/old: " in capsys.readouterr().err


NOT_FINITE = {
    "parameters": (
        "fake:not_finite",
        {"b1/w": "1 of 4", "infinite": "1 of 2"},
        "b1/w (1 of 4 entries), infinite (1 of 2 entries)",
    ),
    "other state": (
        "fake:not_finite_state",
        {f"cache/c{i}": f"{i + 1} of {i + 1}" for i in range(9)},
        "cache/c0 (1 of 1 entries), cache/c1 (2 of 2 entries)",
        "cache/c7 (8 of 8 entries), and 1 more; FOLDER/a was not written\n",
    ),
    "rounded": (
        "fake:not_finite --dtype float16",
        {"b1/w": "1 of 4", "infinite": "1 of 2"},
        "b1/w (1 of 4 entries), infinite (1 of 2 entries)",
    ),
}


@pytest.mark.sample(1)
@pytest.mark.parametrize("name", NOT_FINITE)
def test_what_is_not_finite_fails(name, folder, capsys):
    """With the table, and nothing written."""
    argv, leaves, *parts = NOT_FINITE[name]
    before = sorted(os.listdir())
    assert cli.main(["init", *argv.split(), "--out", "a", "--json"]) == 1
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert (found["not_finite"], found["out"]) == ([*leaves], None)
    rows = {row["path"]: row for row in found["rows"]}
    counts = {path: rows[path] for path in leaves}
    counts = {p: f"{row['nonfinite']} of {row['size']}" for p, row in counts.items()}
    assert counts == leaves
    assert err.startswith("jaxinit: not finite: ")
    assert err.count("\n") == 1
    for part in parts:
        assert part.replace("FOLDER", str(folder)) in err
    assert sorted(os.listdir()) == before


class Full(io.StringIO):
    def flush(self):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("argv", ["fake:blocks", "fake:blocks --json"])
def test_full_output_is_one_line(argv, folder, capsys, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", Full())
        assert cli.main(["init", *argv.split()]) == 1
    reason = os.strerror(errno.ENOSPC)
    expected = f"jaxinit: could not write to standard output: {reason}\n"
    assert capsys.readouterr().err == expected


@pytest.mark.parametrize("argv", ["fake:blocks", "fake:blocks --json", "--help"])
def test_output_that_nobody_reads_is_no_failure(argv, folder, capsys, monkeypatch):
    """As in `jaxinit init ... | head`: no word, and the status of SIGPIPE."""
    read, write = os.pipe()
    os.close(read)
    with open(write, "w") as pipe, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", pipe)
        assert _status(["init", *argv.split()]) == 141
        pipe.write("more")  # nor does Python fail as it closes the stream
    assert capsys.readouterr().err == ""


def _status(argv) -> int | str | None:
    try:
        return cli.main(argv)
    except SystemExit as exit:
        return exit.code


@pytest.mark.sample(1)
@pytest.mark.parametrize("closed", [("stdout",), ("stdout", "stderr")])
def test_streams_that_are_closed(closed, monkeypatch):
    """As by `>&-`: Python has None in their place. Tables were not shown then."""
    for stream in closed:
        monkeypatch.setattr(sys, stream, None)
    assert cli.main(["check", "--parts", "speed", "--size", "4"]) == 0
