"""The command `jaxinit audit`: models, files that are read, its status and failures."""

import json
import shutil
import struct
import sys
import zipfile

import cli_files
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from sampling import sampled

from jaxinit import cli
from jaxinit._cli.checkpoint import save
from jaxinit._cli.errors import CommandError
from jaxinit._cli.files import _checkpoint, read
from jaxinit.audit import Audit, AuditRow, Finding

pytestmark = pytest.mark.unoptimized

ROW = AuditRow("w", 1, (2, 3), "float32", "he_normal()", True, float("inf"), 1.0)
FOUND = Audit(
    (ROW, AuditRow("b", 12, (3,), "bfloat16", p=float("nan"))),
    (
        Finding("equal", ("w", "b"), "warning", "They are equal."),
        Finding("scale", ("w",), "note", "It is small."),
        Finding("depth", ("b",), "note", "It is deep."),
    ),
)
CLEAN = Audit((ROW,), ())


@pytest.fixture
def folder(tmp_path, monkeypatch):
    with cli_files.written(tmp_path, monkeypatch):
        yield tmp_path


@pytest.fixture
def seen(monkeypatch):
    """What is audited; nothing is found in it."""
    calls = []

    def audit(params, roles):
        calls.append((params, roles))
        return CLEAN

    monkeypatch.setattr("jaxinit._cli.audit.audit", audit)
    return calls


@pytest.fixture
def found(monkeypatch):
    """There is always something to report."""
    monkeypatch.setattr("jaxinit._cli.audit.audit", lambda params, roles: FOUND)


def audited(seen, command):
    assert cli.main(["audit", *command.split()]) == 0
    return seen.pop()


def same(a, b):
    return jax.tree.all(jax.tree.map(np.array_equal, a, b))


@pytest.mark.exhaustive
@pytest.mark.optimized
def test_what_a_function_draws(folder, seen):
    params, roles = audited(seen, "fake:scaled --input 1x4:float32 --seed 3")
    expected = jax.jit(jax.random.normal, static_argnums=1)(jax.random.key(3), (4, 2))
    assert np.array_equal(params["w"], expected)
    assert roles is None
    params, _ = audited(seen, "fake:scaled --input 1x4:float32 --dtype bfloat16")
    assert params["w"].dtype == jnp.bfloat16


def test_a_linen_module_has_roles_for_its_parameters(folder, seen):
    params, roles = audited(seen, "fake:Net --arg features=5 --input 3x4:float32")
    assert {"Dense_0", "Dense_1"} < set(params)
    assert params["Dense_0"]["kernel"].shape == (4, 5)
    assert roles["Dense_0/kernel"].fan_in == 4


class Plain:
    """A model with `init` and `apply` that is not of Flax."""

    def init(self, key, x):
        return {"w": x}

    def apply(self, params, x):
        return x


def test_a_model_without_roles_says_so(folder, seen, capsys, monkeypatch):
    monkeypatch.setattr("jaxinit._cli.audit.load", lambda target: Plain())
    params, roles = audited(seen, "fake:plain --input 3x4:float32")
    assert (params["w"].shape, roles) == ((3, 4), None)
    err = capsys.readouterr().err
    assert err.startswith("jaxinit: no roles were found: TypeError: model must be a")


NNX = """
from flax import nnx

class Model(nnx.Module):
    def __init__(self, rngs, width=4):
        self.linear = nnx.Linear(6, width, rngs=rngs)

    def __call__(self, x, scale=1):
        return scale * self.linear(x)
"""


def test_an_nnx_model_has_roles_if_there_are_inputs(folder, seen, capsys):
    (folder / "own.py").write_text(NNX)
    try:
        arguments = "own:Model --arg width=5 --input 3x6:float32"
        params, roles = audited(seen, f"{arguments} --arg scale=2")
        assert params["linear"]["kernel"].shape == (6, 5)
        assert roles["linear/kernel"].fan_in == 6
        assert audited(seen, "own:Model --arg width=5")[1] is None
        assert capsys.readouterr().err == ""
        assert "own:Model failed: " in failure("own:Model --input 3x7:float32", capsys)
        assert "'y'" in failure("own:Model --input 3x6:int8 --arg y=2", capsys)
        assert "scale alone" in failure("own:Model --arg scale=2", capsys, 2)
    finally:
        sys.modules.pop("own", None)


def test_json_is_strict(folder, found, capsys):
    assert cli.main(["audit", "fake:blocks", "--json"]) == 0
    values = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert set(values) == {"target", "rows", "findings"}
    assert values["target"] == "fake:blocks"
    first, second = values["rows"]
    assert (first["odds"], first["law"], first["shape"]) == (
        "infinite",
        "he_normal()",
        [2, 3],
    )
    assert (second["p"], second["law"]) == (None, None)
    assert values["findings"][0] == {
        "kind": "equal",
        "paths": ["w", "b"],
        "severity": "warning",
        "text": "They are equal.",
    }


def test_the_real_audit_prints(folder, capsys):
    assert cli.main(["audit", "fake:mixed", "--fail-on", "error"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["leaf", "shape", "dtype", "law", "note"]
    assert [line.split()[0] for line in lines[1:4]] == ["key", "list/0", "list/1"]
    assert lines[-1].startswith("5 classes of leaves, 6 parameters; ")


STATUSES = {
    None: (0, ""),
    "note": (1, "jaxinit: 3 findings of severity note or worse\n"),
    "warning": (1, "jaxinit: 1 finding of severity warning or worse\n"),
    "error": (0, ""),
}


@pytest.mark.parametrize("severity", STATUSES)
def test_status(folder, found, capsys, severity):
    flags = [] if severity is None else ["--fail-on", severity]
    status, line = STATUSES[severity]
    assert cli.main(["audit", "fake:blocks", *flags]) == status
    out, err = capsys.readouterr()
    assert "They are equal." in out
    assert err == line


def test_errors_alone(folder, monkeypatch, capsys):
    one = Audit((ROW,), (Finding("fans", ("w",), "error", "Wrong."),))
    monkeypatch.setattr("jaxinit._cli.audit.audit", lambda params, roles: one)
    assert cli.main(["audit", "fake:blocks", "--fail-on", "error", "--json"]) == 1
    assert capsys.readouterr().err == "jaxinit: 1 finding of severity error\n"


def test_a_terminal_has_its_width_and_colours(folder, found, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "24")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    assert cli.main(["audit", "fake:blocks"]) == 0
    out = capsys.readouterr().out
    assert "\x1b[1;33mwarning, equal:\x1b[0m w, b" in out
    plain = out.replace("\x1b[0m", "").replace("\x1b[1m", "").replace("\x1b[1;33m", "")
    assert plain == FOUND.text(24) + "\n"


TREE = {
    "half": np.arange(6, dtype=ml_dtypes.bfloat16).reshape(2, 3),
    "layers": {"0": {"w": np.arange(6.0, dtype="float32").reshape(3, 2)}},
    "step": np.array(3),
    "none": np.zeros((0, 2), "float16"),
}
FLAT = {"half": TREE["half"], "layers.0.w": TREE["layers"]["0"]["w"]} | {
    name: TREE[name] for name in ("step", "none")
}


def paths(tree):
    flat = jax.tree.leaves_with_path(tree)
    return {jax.tree_util.keystr(p, simple=True, separator="/"): x for p, x in flat}


def assert_same(tree, expected):
    tree, expected = paths(tree), paths(expected)
    assert tree.keys() == expected.keys()
    for name, x in expected.items():
        assert tree[name].dtype == x.dtype
        assert np.array_equal(tree[name], x)


def test_safetensors(tmp_path):
    from safetensors.numpy import save_file

    path = tmp_path / "a.safetensors"
    narrow = {"f8": np.ones(3, ml_dtypes.float8_e4m3fn), "flag": np.array([True])}
    save(path, TREE | narrow)
    tree = read(path)
    assert_same(tree, TREE | narrow)
    assert all(is_mapped(x) for x in jax.tree.leaves(tree) if x.size)
    save_file(FLAT, path, {"format": "np"})
    assert_same(read(path), TREE)
    both = {"a.b": np.ones(2), "a/b": np.zeros(2)}
    save_file(both, path)
    assert_same(read(path), both)


def is_mapped(x):
    while x is not None and not isinstance(x, np.memmap):
        x = getattr(x, "base", None)
    return x is not None


@pytest.mark.parametrize("write", [np.savez, np.savez_compressed])
def test_npz(tmp_path, write):
    path = tmp_path / "a.npz"
    other = {"big": np.arange(3, dtype=">f4"), "F": np.ones((2, 3), order="F")}
    other["F"][1, 0] = 5
    write(path, **FLAT, **other)
    tree = read(path)
    assert_same(tree, TREE | {"F": other["F"], "big": np.arange(3, dtype="float32")})
    if write is np.savez:
        assert is_mapped(tree["half"])
        assert is_mapped(tree["F"])


@pytest.mark.parametrize("inside", ["", "default", "7/default"])
def test_the_only_checkpoint_of_a_folder_is_found(tmp_path, inside):
    (tmp_path / inside).mkdir(parents=True, exist_ok=True)
    (tmp_path / inside / "_METADATA").touch()
    assert _checkpoint(tmp_path) == tmp_path / inside


def test_of_several_checkpoints_one_is_to_be_named(tmp_path):
    for step in ("7", "8"):
        (tmp_path / step / "default").mkdir(parents=True)
        (tmp_path / step / "default" / "_METADATA").touch()
    with pytest.raises(CommandError, match=r"several checkpoints, 7, 8: name one of"):
        _checkpoint(tmp_path)


@pytest.mark.exhaustive
def test_orbax(tmp_path, capsys):
    import orbax.checkpoint as ocp

    tree = {"half": TREE["half"], "list": [jnp.ones((2, 3)), np.array(3)], "no": {}}
    save(tmp_path / "own", tree)
    expected = {"half": TREE["half"], "list": [np.ones((2, 3), "float32"), np.array(3)]}
    assert_same(read(tmp_path / "own"), expected)
    steps = tmp_path / "steps"
    with ocp.CheckpointManager(steps) as manager:
        manager.save(7, args=ocp.args.StandardSave(tree))
        manager.wait_until_finished()
    assert_same(read(steps / "7" / "default"), expected)
    assert capsys.readouterr().err == ""
    assert_same(read(steps / "7"), expected)
    assert_same(read(steps), expected)
    assert capsys.readouterr().err == f"jaxinit: reading {steps}/7/default\n" * 2
    shutil.copytree(steps / "7", steps / "8")
    text = failure(steps, capsys)
    assert text.startswith(f"{steps} holds several checkpoints, 7, 8: name one of them")
    shutil.rmtree(steps / "8")
    shutil.copytree(steps / "7" / "default", steps / "7" / "ema")
    assert f"such as {steps}/7/ema" in failure(steps, capsys)
    for file in (steps / "7" / "ema" / "d").iterdir():
        file.unlink()
    for file in (steps / "7" / "ema").glob("ocdbt*/d/*"):
        file.unlink()
    assert "failed: " in failure(steps / "7" / "ema", capsys)


@pytest.mark.exhaustive
def test_orbax_with_text(tmp_path, capsys):
    import orbax.checkpoint as ocp

    path = tmp_path / "text"
    with ocp.PyTreeCheckpointer() as checkpointer:
        checkpointer.save(path, {"w": np.ones(3), "inner": {"name": "hello"}})
    text = failure(path, capsys)
    assert "no array of numbers: inner/name (String); leave it out" in text


def test_an_empty_target(capsys):
    assert cli.main(["audit", ""]) == 2
    assert "the target is empty: name a model, a file" in capsys.readouterr().err


def failure(command, capsys, status=1):
    """The line that says what is wrong."""
    assert cli.main(["audit", *str(command).split()]) == status
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("jaxinit: ")
    assert err.count("\n") == 1
    return err.removeprefix("jaxinit: ")


def header(**entries):
    text = json.dumps(entries).encode()
    return struct.pack("<Q", len(text)) + text


def entry(dtype, shape, offsets):
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def zipped(folder, names):
    with zipfile.ZipFile(folder / "x.npz", "w") as archive:
        for name in names:
            archive.writestr(name, "words of no array")
    return (folder / "x.npz").read_bytes()


def npz(**arrays):
    def write(folder):
        np.savez(folder / "x.npz", **arrays)
        return (folder / "x.npz").read_bytes()

    return write


# name: name of the file; its bytes, or what makes them in a folder; part of the message
FILES = {
    "empty file": ("a.safetensors", b"", "is no safetensors file, or was cut off: it"),
    "text as safetensors": ("a.safetensors", b"hello " * 9, "is no safetensors file"),
    "header of text": (
        "a.safetensors",
        struct.pack("<Q", 4) + b"text",
        "its header is no JSON object",
    ),
    "header of a list": (
        "a.safetensors",
        struct.pack("<Q", 2) + b"[]",
        "its header is no JSON object",
    ),
    "header without entries": (
        "a.safetensors",
        header(w={"dtype": "F32"}),
        "its header says of w no dtype, shape and data_offsets",
    ),
    "cut off": (
        "a.safetensors",
        header(w=entry("F32", [3], [0, 12])) + bytes(7),
        "a.safetensors was cut off: 5 bytes are missing",
    ),
    "wrong offsets": (
        "a.safetensors",
        header(w=entry("F32", [3], [0, 8])) + bytes(8),
        "a.safetensors is damaged: w, F32[3], is said to have 8 bytes",
    ),
    "unknown dtype": (
        "a.safetensors",
        header(w=entry("F4", [2], [0, 1])) + bytes(1),
        "w is of the dtype F4; read are BOOL, I8",
    ),
    "entry of a number": (
        "a.safetensors",
        header(a=3),
        "a.safetensors is no safetensors file: its header says of a no dtype",
    ),
    "no arrays": ("a.safetensors", header(), "a.safetensors holds no arrays"),
    "no arrays in npz": ("a.npz", npz(), "a.npz holds no arrays"),
    "text as npz": ("a.npz", b"hello " * 9, "a.npz is no .npz file, or was cut off"),
    "npz cut off": (
        "a.npz",
        lambda folder: npz(w=np.ones(9))(folder)[:-30],
        "a.npz is no .npz file, or was cut off",
    ),
    "objects": (
        "a.npz",
        npz(w=np.array([None, 1]), v=np.ones(3)),
        "no array of numbers: w (Python objects, which are not unpickled); leave it",
    ),
    "words": ("a.npz", npz(w=np.array(["a"])), "no array of numbers: w (<U1)"),
    "extended": (
        "a.npz",
        npz(w=np.ones(2, [("x", "f4"), ("y", "i4")])),
        "no array of numbers: w ([(",
    ),
    "float8 in npz": (
        "a.npz",
        npz(w=np.ones(3, ml_dtypes.float8_e4m3fn)),
        "w (float8 or int4, whose dtype NumPy does not write)",
    ),
    "float8 that NumPy cannot read": (
        "a.npz",
        npz(w=np.ones(3, ml_dtypes.float8_e5m2), v=np.ones(3)),
        "no array of numbers: w (",
    ),
    "another archive": (
        "a.npz",
        lambda folder: zipped(folder, ["a.txt", "b.txt"]),
        "no array of numbers: a.txt (no array), b.txt (no array)",
    ),
    "npy of text": (
        "a.npz",
        lambda folder: zipped(folder, ["a.npy"]),
        "no array of numbers: a (the magic string is not correct",
    ),
    "another format": (
        "a.bin",
        b"",
        "a.bin is of no format that is read: name a file that ends in .safetensors or "
        ".npz, the folder of an Orbax checkpoint, or a model as module:name",
    ),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_cannot_be_read(folder, capsys, name):
    file, content, expected = FILES[name]
    content = content if isinstance(content, bytes) else content(folder)
    (folder / file).write_bytes(content)
    assert expected in failure(file, capsys)


def test_what_is_no_checkpoint(folder, capsys):
    assert "no file or folder nothing.npz" in failure("nothing.npz", capsys)
    assert "no file or folder nothing; a model is named" in failure("nothing", capsys)
    (folder / "empty").mkdir()
    text = failure("empty", capsys)
    assert text.startswith("empty is no Orbax checkpoint, as neither it nor a folder")
    (folder / "empty" / "model.safetensors").touch()
    text = failure("empty", capsys)
    assert text.endswith("_METADATA: name one of its files, model.safetensors\n")


def test_a_file_with_a_colon_is_a_file(folder, seen):
    save(folder / "a:b.safetensors", {"w": np.ones(2)})
    assert list(audited(seen, "a:b.safetensors")[0]) == ["w"]


ARGUMENTS = {
    "file with seed": ("x.npz --seed 0", "x.npz is a file or folder, not of the form"),
    "file with much": (
        "x.npz --input 3:int8 --arg a=3 --dtype float16",
        "takes no --input and no --arg and no --dtype",
    ),
    "severity": ("x.npz --fail-on worse", "argument --fail-on: invalid choice"),
    "no module": ("nowhere:x", "no module named 'nowhere'"),
    "no input": ("fake:net", "called on (x), but 0 --input were given"),
}


@pytest.mark.parametrize("name", ARGUMENTS)
def test_wrong_arguments(folder, capsys, name):
    np.savez(folder / "x.npz", w=np.ones(3))
    command, expected = ARGUMENTS[name]
    assert cli.main(["audit", *command.split()]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert expected in err


TARGETS = {
    "empty": ("fake:empty", "auditing fake:empty failed: ValueError: the tree has no"),
    "raises": ("fake:broken", "auditing fake:broken failed: NameError: name 'undefin"),
}


@pytest.mark.parametrize("name", sampled(TARGETS, ["raises"]))
def test_a_target_that_fails(folder, capsys, name):
    target, expected = TARGETS[name]
    assert expected in failure(target, capsys)
