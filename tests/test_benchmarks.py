"""The benchmarks' own arithmetic; nothing is measured here."""

import importlib
import os

import jax
import jax.numpy as jnp
import pytest

from benchmarks import charts, harness, models


def test_rounds_take_turns_both_ways():
    order = []
    calls = {name: lambda name=name: order.append(name) or name for name in "abc"}
    taken = harness.interleaved(calls, 3)
    assert "".join(order) == "abccbaabc"
    assert taken == {name: [name] * 3 for name in "abc"}


def test_ratio_is_within_rounds():
    assert harness.ratio([2, 20, 200], [1, 10, 100]) == 2


def test_fresh_is_another_process():
    assert harness.fresh(harness.processor) == harness.processor()
    assert harness.fresh(os.getenv, "WHO", WHO="another") == "another"


def test_processors_have_names_of_their_own():
    names = ("12th Gen Intel(R) Core(TM) i7-12700K", "13th Gen Intel(R) Core(TM) i9")
    names += ("Intel(R) Xeon(R) Gold 6148 CPU @ 2.40GHz, AVX-512, 4 cores",)
    found = [harness.slug(name) for name in names]
    assert found == [
        *("12th-gen-intel-core-i7-12700k", "13th-gen-intel-core-i9"),
        "intel-xeon-gold-6148-cpu",
    ]


def test_results_come_back_by_version(tmp_path, monkeypatch):
    monkeypatch.setattr(harness, "RESULTS", tmp_path)
    xeon, epyc = "Intel(R) Xeon(R) Processor, AVX-512, 2 cores", "AMD EPYC, 2 cores"
    taken = [("0.12.0", xeon, "2026-02-01"), ("0.9.1", xeon, "2026-03-01")]
    taken += [("0.12.0", epyc, "2026-01-01")]
    for version, processor, date in taken:
        result = {"benchmark": "x", "versions": {"jax": version}, "rows": []}
        harness.save(result | {"processor": processor, "taken": date})
    assert [each["taken"][6] for each in harness.load("x")] == ["3", "1", "2"]
    names = {
        "x-jax0.12.0-intel-xeon-processor",
        "x-jax0.9.1-intel-xeon-processor",
        "x-jax0.12.0-amd-epyc",
    }
    assert {path.stem for path in tmp_path.iterdir()} == names
    assert not harness.load("y")


CHANGES = {
    "a bit": {"a": jnp.array([0.0, -0.0]), "b": jnp.ones(2)},
    "a dtype": {"a": jnp.zeros(2, int), "b": jnp.ones(2)},
    "a shape": {"a": jnp.zeros((2, 1)), "b": jnp.ones(2)},
    "a path": {"a": jnp.zeros(2), "c": jnp.ones(2)},
}


@pytest.mark.parametrize("change", CHANGES)
def test_fingerprint_sees(change):
    tree = {"a": jnp.zeros(2), "b": jnp.ones(2)}
    assert models.fingerprint(tree) == models.fingerprint(jax.tree.map(jnp.copy, tree))
    assert models.fingerprint(tree) != models.fingerprint(CHANGES[change])


@pytest.mark.parametrize("framework", models.FRAMEWORKS)
def test_the_model_is_the_same_in_every_framework(framework):
    model = importlib.import_module(f"benchmarks.gpt.with_{framework}")
    for blocks in (1, 2):
        methods = model.methods(blocks)
        assert tuple(methods) == models.METHODS
        leaves = jax.tree.leaves(jax.eval_shape(methods[models.EAGER]))
        assert len(leaves) == 4 + 16 * blocks
        assert sum(leaf.size for leaf in leaves) == 39_385_344 + 7_087_872 * blocks


@pytest.mark.parametrize("name", charts.CHARTS)
def test_charts_show_the_last_results(name):
    *_, last = harness.load(name)
    figure = charts.chart(name)
    foot = figure.get_supxlabel()
    assert (
        foot == f"jax {last['versions']['jax']}, {last['processor']}, {last['taken']}"
    )
    assert all(axes.get_title("left") for axes in figure.axes)
    readme = (harness.ROOT / "benchmarks/README.md").read_text()
    assert f"](results/{name}.png)" in readme
    assert (harness.RESULTS / f"{name}.png").stat().st_size < 100_000
