"""Compiled for TPUs that are not there: kernels, and a large model for 4096 chips.

libtpu compiles for a topology by its name, on any machine. Nothing is run: what is
measured is what XLA makes of a program, and how long that takes.
"""

import math
import os
import re
import statistics
import sys
import time
from functools import partial
from typing import Any

from benchmarks import scale
from benchmarks.harness import Table, fresh, interleaved, is_installed

OURS, JAX = "jaxinit", "jax"
SMALL, LARGE = "v5e:2x4", "v5p:16x16x16"
MESH = {"fsdp": 256, "tensor": 16}  # of the large one; it divides all axes
LAWS, DTYPES = ("normal", "uniform", "truncated_normal"), ("float32", "bfloat16")
_OPERATION = re.compile(r"^ *(?:ROOT )?%\S+ = (?:\(.*?\)|\S+) ([a-z-]+)\(", re.M)
_COUNTED = {
    "fusions": "fusion",
    "loops": "while",
    "collectives": "(all-reduce|all-gather|all-to-all|collective-permute"
    "|reduce-scatter)(-start)?",
}
# libtpu asks a server of Google's cloud which TPU it runs on, and waits for an answer:
# it is told not to ask, and that there is one host. It lets one process at a time have
# the TPU, which nothing here needs. jax starts no TPU, and keeps no programs for one:
# it could not read them.
ENVIRONMENT = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_ACCELERATOR_TYPE": "v5litepod-8",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "JAX_PLATFORMS": "cpu",
    "JAX_ENABLE_COMPILATION_CACHE": "false",
}


def run(rounds: int = 3, size: int = 4096) -> list[dict]:
    """Compiles kernels of (size, size) and the model, each in fresh processes."""
    if not is_installed("libtpu"):
        print("skipped: libtpu is missing: pip install 'jax[tpu]'", file=sys.stderr)
        return []
    names = [(law, dtype, by) for law in LAWS for dtype in DTYPES for by in (OURS, JAX)]
    calls = {name: partial(fresh, kernel, *name, size) for name in names}
    taken = interleaved(calls, rounds)
    rows = [
        {"law": law, "dtype": dtype, "method": method, "size": size, "taken": results}
        for (law, dtype, method), results in taken.items()
    ]
    models = [{"model": name, "taken": [fresh(model, name)]} for name in scale.MODELS]
    return [*rows, *models]


def devices(name: str) -> Any:
    """The devices of a topology, as an array. Before it, jax must not be started."""
    os.environ.update(ENVIRONMENT)
    import numpy as np
    from jax.experimental import topologies

    return np.array(topologies.get_topology_desc(name, "tpu").devices)


def kernel(law: str, dtype: str, method: str, size: int) -> dict:
    """One array, cut over a mesh of 2 by 4, in this process, which must be fresh."""
    mesh_devices = devices(SMALL).reshape(2, 4)
    import jax
    from jax.sharding import Mesh

    import jaxinit

    module = {OURS: jaxinit, JAX: jax.nn.initializers}[method]
    init = getattr(module, law)(1.0)
    mesh = Mesh(mesh_devices, ("x", "y"))
    compiled, seconds = compile_kernel(init, (size, size), dtype, mesh)
    cost, memory = compiled.cost_analysis(), compiled.memory_analysis()
    return {
        **structure(compiled.as_text()),
        "flops": cost["flops"],
        "transcendentals": cost.get("transcendentals", 0.0),
        "temp_bytes": memory.temp_size_in_bytes,
        "output_bytes": memory.output_size_in_bytes,
        "seconds": seconds,
    }


def compile_kernel(init: Any, shape: Any, dtype: str, mesh: Any) -> tuple[Any, float]:
    """An initializer compiled for a mesh, whose axes cut those of the array.

    Args:
        init: function of key, shape and dtype.
        shape: shape of the array.
        dtype: its dtype.
        mesh: a mesh of a topology.

    Returns:
        What `jax.jit` of it compiles to, and the seconds from the trace on.
    """
    import jax
    from jax.sharding import NamedSharding, PartitionSpec

    whole = NamedSharding(mesh, PartitionSpec())
    split = NamedSharding(mesh, PartitionSpec(*mesh.axis_names))
    draw = partial(init, shape=shape, dtype=dtype)
    jitted = jax.jit(lambda key: draw(key), in_shardings=whole, out_shardings=split)
    key = jax.eval_shape(jax.random.key, 0)
    start = time.perf_counter()
    compiled = jitted.lower(key).compile()
    return compiled, time.perf_counter() - start


def structure(text: str) -> dict[str, int]:
    """How often there is what, in the program itself: not within its fusions."""
    _, _, entry = text.partition("\nENTRY ")
    names = _OPERATION.findall(entry)
    return {
        name: sum(re.fullmatch(pattern, each) is not None for each in names)
        for name, pattern in _COUNTED.items()
    }


def model(name: str) -> dict:
    """A model of `scale`, planned and compiled for 4096 chips, in a fresh process."""
    mesh_devices = devices(LARGE).reshape(tuple(MESH.values()))
    from jax.sharding import Mesh

    return scale.compiled(name, Mesh(mesh_devices, tuple(MESH)))


def tables(rows: list[dict]) -> list[Table]:
    """What XLA made, ours beside jax's; bytes on each device, medians of seconds."""
    kernels = [_kernel_line(row) for row in rows if "law" in row]
    models = [row for row in rows if "model" in row]
    if not kernels:
        return []
    head = ("law", "dtype", "method", "fusions", "loops", "collectives", "Mflop")
    head += ("temporary", "trace and compile s")
    size, chips = rows[0]["size"], math.prod(MESH.values())
    titles = (
        f"Kernels: ({size}, {size}) cut over {SMALL}, numbers of one device",
        f"Models: bfloat16, for {chips} chips of {LARGE}, mesh {MESH}, not run",
    )
    return [Table(titles[0], head, kernels), scale.table(titles[1], models)]


def _kernel_line(row: dict) -> tuple[str, ...]:
    first = row["taken"][0]
    seconds = statistics.median(one["seconds"] for one in row["taken"])
    return (
        *(row[name] for name in ("law", "dtype", "method")),
        *(str(first[name]) for name in _COUNTED),
        f"{first['flops'] / 1e6:.0f}",
        f"{first['temp_bytes'] / 1e6:.3f} MB",
        f"{seconds:.2f}",
    )
