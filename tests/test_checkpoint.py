"""Writing parameters: values come back, and no name ever stands for half of them."""

import logging
import os
import sys
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from jaxinit._cli import checkpoint

TREE = {
    "layers": [{"w": jnp.arange(6.0).reshape(2, 3)}, {"w": jnp.ones(2, jnp.bfloat16)}],
    "step": jnp.int32(3),
}


def test_safetensors_come_back(tmp_path):
    checkpoint.save(tmp_path / "a.safetensors", TREE)
    loaded = load_file(tmp_path / "a.safetensors")
    assert set(loaded) == {"layers/0/w", "layers/1/w", "step"}
    assert loaded["layers/1/w"].dtype == jnp.bfloat16
    np.testing.assert_array_equal(loaded["layers/0/w"], TREE["layers"][0]["w"])


def test_orbax_comes_back(tmp_path):
    import orbax.checkpoint as ocp

    checkpoint.save(tmp_path / "a", TREE)
    with ocp.StandardCheckpointer() as checkpointer:
        loaded = checkpointer.restore(tmp_path / "a", TREE)
    assert jax.tree.structure(loaded) == jax.tree.structure(TREE)
    jax.tree.map(np.testing.assert_array_equal, loaded, TREE)
    assert loaded["layers"][1]["w"].dtype == jnp.bfloat16


@pytest.mark.parametrize("name", ["a", "a.safetensors"])
def test_existing_is_refused(name, tmp_path):
    (tmp_path / name).symlink_to("nowhere")
    with pytest.raises(FileExistsError, match="exists already: choose another name"):
        checkpoint.save(tmp_path / name, TREE)
    assert os.listdir(tmp_path) == [name]


def test_file_that_appears_meanwhile_is_kept(tmp_path, monkeypatch):
    def competes(path):
        def write(temporary, params):
            temporary.write_text("ours")
            path.write_text("theirs")

        return write

    monkeypatch.setattr(checkpoint, "writer", competes)
    with pytest.raises(FileExistsError, match="exists already"):
        checkpoint.save(tmp_path / "a", {})
    assert (tmp_path / "a").read_text() == "theirs"
    assert os.listdir(tmp_path) == ["a"]


def test_what_orbax_logs_after_a_failure_is_dropped(tmp_path, monkeypatch, caplog):
    def log(name, path, text="late", error=None):
        logger, exc = logging.getLogger(name), (type(error), error, None)
        logger.handle(logger.makeRecord(name, logging.ERROR, path, 1, text, (), exc))
        return len(caplog.records)

    def unretrieved(error):
        text = "Future exception was never retrieved"
        return log("asyncio", "/asyncio/base_events.py", text, error)

    def fails(*_):
        raise OSError("no space")

    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
    checkpoint.save(tmp_path / "whole", {"a": np.ones(2)})
    assert log("absl", "/orbax/future.py") == 1
    assert unretrieved(OSError()) == 2
    monkeypatch.setattr("orbax.checkpoint.StandardCheckpointer.save", fails)
    with pytest.raises(OSError, match="no space"):
        checkpoint.save(tmp_path / "failed", {"a": np.ones(2)})
    assert log("absl", "/orbax/future.py") == 2
    assert unretrieved(OSError()) == 2
    assert unretrieved(ValueError("Error opening [os_error_code='27']")) == 2
    assert log("absl", "/elsewhere.py") == 3
    assert unretrieved(ValueError()) == 4
    assert log("asyncio", "/asyncio/base_events.py", error=OSError()) == 5
    for name in ("absl", "asyncio"):
        logging.getLogger(name).filters.clear()


REFUSED = {
    "one name, file": (
        "a.safetensors",
        {"a": {"b": 1.0}, "a/b": 2.0},
        r"\['a/b'\]: both",
    ),
    "one name, folder": ("a", {"a": {"b": 1.0}, "a.b": 2.0}, r"\['a.b'\]: both"),
    "int4, file": (
        "a.safetensors",
        {"w": jnp.ones(2, "int4")},
        "w: safetensors has no",
    ),
    "uint4, folder": ("a", {"w": jnp.ones(2, "uint4")}, "w: Orbax has no uint4"),
    "no arrays": ("a", {"w": None}, "Orbax writes no tree without arrays"),
    "no entries": ("a", {"w": jnp.ones((0, 2))}, "w: Orbax writes no arrays without"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_would_not_come_back_is_refused_before_writing(case, tmp_path):
    name, tree, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        checkpoint.save(tmp_path / name, tree)
    assert os.listdir(tmp_path) == []


def test_what_is_no_array_is_refused(tmp_path):
    with pytest.raises(TypeError, match="w: not an array but 'x'"):
        checkpoint.save(tmp_path / "a.safetensors", {"w": "x"})


def test_the_folder_of_a_dead_process_is_removed_and_that_of_a_live_one_kept(tmp_path):
    path = tmp_path / "a.safetensors"
    with checkpoint._partial(path) as live:
        dead = live.with_name(live.name.replace(".partial", "x.partial"))
        dead.mkdir()
        (dead / "lock").touch()
        checkpoint.save(path, TREE)
        assert live.exists()
        assert not dead.exists()


def test_a_file_has_the_mode_of_new_files_and_its_folder_is_synced(
    tmp_path, monkeypatch
):
    synced = []
    monkeypatch.setattr(checkpoint, "_sync", synced.append)
    (tmp_path / "new").touch()
    checkpoint.save(tmp_path / "a.safetensors", TREE)
    modes = [(tmp_path / name).stat().st_mode for name in ("new", "a.safetensors")]
    assert modes[0] == modes[1]
    assert synced[-1] == tmp_path


def test_writers_that_outlast_a_failure_are_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "_QUIET", 0.3)
    late = [threading.Timer(0.1 * i, (tmp_path / f"{i}").mkdir) for i in range(4)]
    for timer in late:
        timer.start()
    checkpoint._outlast_writers(tmp_path)
    assert not any(timer.is_alive() for timer in late)
    assert os.listdir(tmp_path) == []
