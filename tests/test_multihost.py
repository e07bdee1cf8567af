"""Several processes, as on several hosts: each draws its shards of the same arrays."""

import fcntl
import functools
import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from flax import nnx
from jax.sharding import AxisType

import jaxinit
from examples import multihost
from jaxinit import linen as linen_door
from jaxinit import nnx as nnx_door
from jaxinit._arrays.distance import QUANTILES
from jaxinit._tree.agreement import described
from tests import processes

ROOT = Path(__file__).parents[1]
SECONDS = 100
DIFFERENT = "processes would draw different values"


def run(
    commands: list[list[str]], seconds: float = SECONDS
) -> tuple[list[int], str, str]:
    """Exit codes, standard output and errors of processes that run together."""
    environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    environment["PYTHONPATH"] = str(ROOT)
    children = [
        subprocess.Popen(
            [sys.executable, *command],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,  # so that what it starts can be killed with it
        )
        for command in commands
    ]
    try:
        texts = [child.communicate(timeout=seconds) for child in children]
    finally:
        for child in children:
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGKILL)
                print(*child.communicate(), sep="\n")  # pytest shows it on failure
    outputs, errors = ("\n".join(part) for part in zip(*texts, strict=True))
    return [child.returncode for child in children], outputs, errors


def run_processes(count: int, folder: Path) -> None:
    """Runs `tests.processes` in so many processes, which write what they find."""
    with socket.socket() as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        held.bind(("127.0.0.1", 0))
        coordinator = f"127.0.0.1:{held.getsockname()[1]}"
        common = [str(count), coordinator, str(folder)]
        commands = [["-m", "tests.processes", str(i), *common] for i in range(count)]
        codes, _, errors = run(commands, 5 * SECONDS)
    assert codes == [0] * count, errors


@pytest.fixture(
    scope="module", params=[2, pytest.param(4, marks=pytest.mark.exhaustive)]
)
def many(request, tmp_path_factory) -> tuple[list[dict], Path]:
    base = tmp_path_factory.getbasetemp()
    # Workers of one run share what the first of them has made.
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    folder = base / f"processes{request.param}"
    with (base / f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            folder.mkdir()
            run_processes(request.param, folder)
    texts = [(folder / f"{i}.json").read_text() for i in range(request.param)]
    return [json.loads(text) for text in texts], folder


def of(many, part: str) -> list[dict]:
    return [found[part] for found in many[0]]


def mesh_alone(count: int, axes=AxisType.Explicit):
    """The mesh of so many processes, of devices of this process alone."""
    return jax.make_mesh((count, 2), ("data", "model"), axis_types=(axes,) * 2)


def alone(part, many) -> dict:
    """The same of this process alone, on the same mesh of its own devices."""
    count = len(many[0])
    calls = dict(part(functools.partial(mesh_alone, count), count > 2))
    return json.loads(json.dumps(processes.run({"": iter(calls.items())})[""]))


@pytest.mark.parametrize(
    "many", [pytest.param(4, marks=pytest.mark.exhaustive)], indirect=True
)
def test_each_process_holds_its_shards_of_the_same_arrays(many):
    said = [line for found in of(many, "example") for line in found["one seed"]]
    assert_holds_shards(said, len(many[0]))


def assert_holds_shards(said: list[str], processes: int) -> str:
    """That processes share the arrays of one device; returns their fingerprint."""
    assert "which is that of one device alone" in said
    shapes = multihost.shapes()
    pattern = r"process (\d) of \d holds ([\d,]+) of ([\d,]+) bytes"
    found = re.findall(pattern, "\n".join(said))
    assert sorted(number for number, _, _ in found) == list("0123"[:processes])
    prints = re.findall(r"fingerprint ([0-9a-f]{16})", "\n".join(said))
    assert prints == prints[:1] * processes
    whole = 2 * sum(x.size * 4 for x in jax.tree.leaves(shapes) if x.ndim == 1)
    for _, held, total in found:
        held, total = (int(text.replace(",", "")) for text in (held, total))
        assert held == (total - whole // 2) // processes + whole
    return prints[0]


def test_process_with_another_seed_is_detected_by_all(many):
    found = [found["another seed"] for found in of(many, "example")]
    sides = "processes 0, 2, 3" if len(found) == 4 else "processes 0"
    for said in found:
        assert said.startswith(f"ValueError: {DIFFERENT}")
        assert f"key: {sides} against 1" in said


@pytest.mark.exhaustive
def test_the_example_starts_processes():
    codes, output, errors = run([["examples/multihost.py", "--seed", "3"]])
    assert codes == [0], errors
    found = assert_holds_shards(output.splitlines(), 2)
    alone = jaxinit.init_tree(jax.random.key(3), multihost.shapes(), multihost.RULES)
    assert found == jaxinit.fingerprint(alone)


@pytest.mark.exhaustive
def test_the_example_ends_if_one_process_has_another_seed():
    odd = ["--processes", "3", "--odd-one-out", "1"]
    codes, output, errors = run([["examples/multihost.py", *odd]])
    assert codes == [1]
    assert "fingerprint" not in output
    assert errors.count("key: processes 0, 2 against 1") == 3, errors


def test_every_door_draws_the_same_arrays_on_every_mesh(many):
    first, *others = of(many, "doors")
    assert [*others] == [first] * len(others)
    key, x = jax.random.key(0), jax.ShapeDtypeStruct((1, 8), "float32")
    params = processes.drawn(mesh_alone(len(many[0])))
    pair = {name: params[name] for name in ("float32", "whole")}
    mesh = jax.make_mesh((1, 1), ("data", "model"))
    state = nnx.state(nnx_door.create(processes.nnx_model, key, mesh=mesh))
    nets = {
        "linen": jaxinit.fingerprint(linen_door.init(processes.linen_model(), key, x)),
        "nnx": jaxinit.fingerprint(nnx.to_pure_dict(state)),
    }
    assert len(first) == (13 if len(others) == 1 else 108)
    for case, found in first.items():
        door = case.partition(" | ")[0].partition(",")[0]
        assert found == nets.get(door, jaxinit.fingerprint(pair)), case


def test_every_process_measures_whole_arrays(many):
    first, *others = of(many, "measuring")
    assert repr(others) == repr([first] * len(others))  # NaN equals itself in text
    expected = alone(processes.all_measuring, many)
    assert first.keys() == expected.keys()
    for case, found in first.items():
        close(found, expected[case], case)


def close(found, expected, case: str):
    """Rounding apart, and what a distance at quantiles may miss, the same."""
    if case.startswith("fit "):
        distance, p = found
        assert expected[0] - 1 / QUANTILES <= distance <= expected[0] + 1e-12
        assert p >= expected[1] * (1 - 1e-9)
    elif isinstance(expected, dict):
        assert found.keys() == expected.keys(), case
        for name in expected:
            close(found[name], expected[name], f"{case}, {name}")
    elif isinstance(expected, list):
        for pair in zip(found, expected, strict=True):
            close(*pair, case)
    elif isinstance(expected, float):
        # Float32 products of matrices are added up in another order.
        rounding = 1e-4 if case.startswith("propagate") else 1e-9
        assert found == pytest.approx(expected, rounding, 1e-9, nan_ok=True), case
    elif isinstance(expected, str) and "KS" in expected:  # with a distance of its own
        assert found.partition("got")[0] == expected.partition("got")[0], case
    elif not (case.startswith("propagate") and isinstance(expected, int)):
        assert found == expected, case


MINOR = {
    "same": None,
    "seed": "key",
    "kind of key": "key",
    "rule": "whole, rule",
    "same rule of jax": None,
    "rule of jax": "whole, rule",
    "shape": "whole, shape or dtype",
    "sharding": "float32, sharding",
    "path": "paths",
    "settings": "settings",
    "seed, mesh in use": "key",
}


@pytest.mark.parametrize("case", MINOR)
def test_what_differs_is_named_by_all(case, many):
    first, *others = (found[case] for found in of(many, "disagreement"))
    assert others == [first] * len(others)
    sides = (
        "processes 0, 2, 3 against 1" if len(others) == 3 else "processes 0 against 1"
    )
    what = MINOR[case]
    assert first == what or first.startswith(f"ValueError: {DIFFERENT}")
    assert first is None or first.splitlines()[1:] == [f"  {what}: {sides}"]


def test_few_of_many_leaves_are_named(many):
    for found in of(many, "disagreement"):
        lines = found["many"].splitlines()
        assert len(lines) == 1 + 8 + 1
        assert lines[-1] == "  and 4 more"


def test_no_process_goes_on_if_another_raises(many):
    first, odd, *_ = of(many, "disagreement")
    own = "an array of its own"
    assert "nothing is wrong in this process, but in processes 1" in first[own]
    assert "own, float32[3], 3 entries, expected finite entries, got 3" in odd[own]
    assert "leaves of their own" in first["rows"]
    assert first["rows"] == odd["rows"]


def test_values_that_several_processes_hold_are_compared(many):
    processes = [str(i) for i in range(len(many[0]))]
    sides = f"processes {' against '.join(processes)}"
    for found in of(many, "values"):
        assert found["alone"] is None
        assert found["copies"].endswith(f"the same data:\n  w: {sides}")
        assert found["shapes"].endswith(f"of other paths or shapes: {sides}.")


def test_checkpoints_are_written_together(many):
    folder = many[1]
    found = of(many, "saving")
    assert [each["together"] for each in found] == [None] * len(found)
    params = processes.drawn(mesh_alone(len(many[0])))
    key = jax.random.key_data(jax.random.key(1))
    mixed = {"spread": params, "own": np.arange(3, dtype=np.float32), "key": key}
    with ocp.StandardCheckpointer() as checkpointer:
        loaded = checkpointer.restore(folder / "together", mixed)
    assert jaxinit.fingerprint(loaded) == jaxinit.fingerprint(mixed)


def test_checkpoints_fail_in_all_processes_and_leave_nothing(many):
    folder, (first, odd, *others) = many[1], of(many, "saving")
    for each in (first, odd, *others):
        assert "exists already" in each["again"]
        assert "spans processes" in each["one file"]
        assert "different paths" in each["paths"]
        assert "No space left on device" in each["full disk"]
    assert first["again"].startswith("FileExistsError")
    assert "OSError: process 1 could not write" in first["full disk"]
    expected = {"together"}
    for i, each in enumerate((first, odd, *others)):
        assert "which all processes write together" in each["alone"]
        assert each["file alone"] is None
        expected |= {f"alone{i}.safetensors", f"{i}.json"}
    assert set(os.listdir(folder)) == expected


def test_a_key_goes_with_a_plan():
    with pytest.raises(TypeError, match="a key goes with a plan"):
        jaxinit.check_processes({}, jax.random.key(0))


def with_keyword(value):
    def function(x, *, value=value):
        return x

    return function


def with_default(value):
    return lambda x, value=value: x


def with_closure(value):
    return lambda x: value


def with_name(value):
    return eval(f"lambda x: jnp.{value}(x)")


def with_constant(value):
    return eval(f"lambda x: {value!r}")


def with_itself(value):
    def function(x):
        return function, value

    return function


MAKERS = (with_keyword, with_default, with_closure, with_constant, with_itself)
MADE = {maker.__name__: (maker, 1, 2) for maker in MAKERS}
MADE |= {
    "with_name": (with_name, "sin", "cos"),
    "partial": (lambda x: functools.partial(max, x), 1, 2),
    "array": (np.asarray, [1.0], [2.0]),
    "dtype of an array": (lambda x: np.zeros(1, x), "int32", "float32"),
    "set": (frozenset, "ab", "ac"),
    "initializer": (jaxinit.normal, 1.0, 2.0),
}


@pytest.mark.parametrize("name", MADE)
def test_values_are_described_alike_only_if_they_are(name):
    maker, first, second = MADE[name]
    texts = ["".join(described(maker(value))) for value in (first, first, second)]
    assert texts[0] == texts[1]
    assert texts[0] != texts[2]
    assert " at 0x" not in texts[0]
