"""Several processes, as on several hosts: each draws its shards of the same arrays."""

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import jax

import jaxinit
from examples import multihost

ROOT = Path(__file__).parents[1]
SECONDS = 100

# What a process does that is given its number, the number of all, and the coordinator.
DOORS = """
import sys
import jax
import numpy as np
from flax import linen, nnx
import jaxinit, jaxinit.linen, jaxinit.nnx
from examples import multihost
from tests.test_multihost import linen_model, nnx_model

process, processes, coordinator = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
multihost.connect(coordinator, processes, process)
mesh = jax.make_mesh((processes, 2), ("data", "model"))
key = jax.random.key(0)
x = jax.ShapeDtypeStruct((1, 8), np.float32)
variables = jaxinit.linen.init(linen_model(), key, x, mesh=mesh)
state = nnx.state(jaxinit.nnx.create(nnx_model, key, mesh=mesh))
kernel = variables["params"]["kernel"].value
assert {shard.data.shape for shard in kernel.addressable_shards} == {(4, 4)}
print("linen", jaxinit.fingerprint(variables), flush=True)
print("nnx", jaxinit.fingerprint(nnx.to_pure_dict(state)), flush=True)
jaxinit.check_processes({"linen": variables, "nnx": nnx.to_pure_dict(state)})

def error_of(tree):
    try:
        jaxinit.check_processes(tree)
    except ValueError as error:
        return " ".join(str(error).split())

# Its first axis is cut among processes, so that the copies of a part are on one host.
rows = jax.NamedSharding(mesh, jax.P("data"))
whole = jax.NamedSharding(mesh, jax.P(None, "model"))

def spread(sharding, value):
    return jax.make_array_from_callback(
        (4, 4), sharding, lambda index: np.full((4, 4), value, np.float32)[index]
    )

print("alone", error_of({"a": key, "w": spread(rows, process)}), flush=True)
print("copies", error_of({"a": key, "w": spread(whole, process)}), flush=True)
print("shapes", error_of({"a": np.zeros(1 + process)}), flush=True)
"""


def linen_model():
    from flax import linen as nn

    partitioned = nn.with_partitioning(jaxinit.he_normal(), ("data", "model"))
    return nn.Dense(8, kernel_init=partitioned)


def nnx_model(rngs):
    from flax import nnx

    partitioned = nnx.with_partitioning(jaxinit.he_normal(), ("data", "model"))
    return nnx.Dict(
        dense=nnx.Linear(8, 8, kernel_init=partitioned, rngs=rngs),
        dropout=nnx.Dropout(0.5, rngs=rngs),
    )


def run(commands: list[list[str]]) -> tuple[list[int], str, str]:
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
        texts = [child.communicate(timeout=SECONDS) for child in children]
    finally:
        for child in children:
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGKILL)
                print(*child.communicate(), sep="\n")  # pytest shows it on failure
    outputs, errors = ("\n".join(part) for part in zip(*texts, strict=True))
    return [child.returncode for child in children], outputs, errors


def example(*options: str) -> tuple[list[int], str, str]:
    return run([["examples/multihost.py", *options]])


def test_each_process_holds_its_shards_of_the_same_arrays():
    processes = 2
    codes, output, errors = example("--processes", str(processes), "--seed", "3")
    assert codes == [0], errors
    assert "which is that of one device alone" in output
    shapes, key = multihost.shapes(), jax.random.key(3)
    expected = jaxinit.fingerprint(jaxinit.init_tree(key, shapes, multihost.RULES))
    found = re.findall(r"process (\d) of \d holds ([\d,]+) of ([\d,]+) bytes", output)
    assert sorted(number for number, _, _ in found) == list("0123"[:processes])
    assert (
        re.findall(r"fingerprint ([0-9a-f]{16})", output) == [expected] * processes
    ), errors
    whole = 2 * sum(x.size * 4 for x in jax.tree.leaves(shapes) if x.ndim == 1)
    for _, held, total in found:
        held, total = (int(text.replace(",", "")) for text in (held, total))
        assert held == (total - whole // 2) // processes + whole


def test_process_with_another_seed_is_detected_by_all():
    codes, output, errors = example("--processes", "3", "--odd-one-out", "1")
    assert codes == [1]
    assert "fingerprint" not in output
    assert errors.count("key: processes 0, 2 against 1") == 3, errors


def test_doors_and_what_can_be_compared():
    with socket.socket() as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        held.bind(("127.0.0.1", 0))
        coordinator = f"127.0.0.1:{held.getsockname()[1]}"
        codes, output, errors = run(
            [["-c", DOORS, str(i), "2", coordinator] for i in range(2)]
        )
    assert codes == [0, 0], errors
    from flax import nnx

    from jaxinit import linen as linen_door
    from jaxinit import nnx as nnx_door

    key, x = jax.random.key(0), jax.ShapeDtypeStruct((1, 8), "float32")
    mesh = jax.make_mesh((1, 1), ("data", "model"))
    state = nnx.state(nnx_door.create(nnx_model, key, mesh=mesh))
    expected = {
        "linen": jaxinit.fingerprint(linen_door.init(linen_model(), key, x)),
        "nnx": jaxinit.fingerprint(nnx.to_pure_dict(state)),
        "alone": "None",
        "copies": "processes hold different values; start all from one seed, one "
        "version of the program and the same data: w: processes 0 against 1",
        "shapes": "processes hold trees of other paths or shapes: processes 0 "
        "against 1.",
    }
    for name, text in expected.items():
        assert re.findall(rf"^{name} (.*)$", output, re.M) == [text] * 2, errors


def test_one_process_agrees_with_itself():
    jaxinit.check_processes({"seed": 0, "key": jax.random.key(0)})
