"""Writing parameters: values come back, and no name ever stands for half of them."""

import logging
import os
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from jaxinit import checkpoint

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
    logger = logging.getLogger("absl")

    def log(path):
        logger.handle(
            logger.makeRecord("absl", logging.ERROR, path, 1, "late", (), None)
        )
        return len(caplog.records)

    def fails(*_):
        raise OSError("no space")

    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
    checkpoint.save(tmp_path / "whole", {"a": np.ones(2)})
    assert log("/orbax/future.py") == 1
    monkeypatch.setattr("orbax.checkpoint.StandardCheckpointer.save", fails)
    with pytest.raises(OSError, match="no space"):
        checkpoint.save(tmp_path / "failed", {"a": np.ones(2)})
    assert log("/orbax/future.py") == 1
    assert log("/elsewhere.py") == 2
    logger.filters.clear()
