"""What `test_topology.py` compiles for TPUs, in a process of its own, by libtpu.

The results are JSON: numbers, and errors as text.
"""

import contextlib
import io
import os
import re
from typing import Any

from benchmarks import topology


def found() -> dict[str, Any]:
    """Structure and memory of programs for a mesh of 2 by 4."""
    devices = topology.devices(topology.SMALL).reshape(2, 4)
    import jax
    from jax.sharding import Mesh, NamedSharding, PartitionSpec

    import jaxinit

    mesh = Mesh(devices, ("x", "y"))

    def kernel(init: Any, dtype: str) -> dict[str, Any]:
        compiled, _ = topology.compile_kernel(init, (1024, 2048), dtype, mesh)
        memory = compiled.memory_analysis()
        return {
            **topology.structure(compiled.as_text()),
            "temp_bytes": memory.temp_size_in_bytes,
            "output_bytes": memory.output_size_in_bytes,
        }

    def normalized(key, shape, dtype):
        x = jax.random.normal(key, shape, dtype)
        return x / jax.numpy.linalg.norm(x, axis=0)

    def repeated(key, shape, dtype):
        x = jax.random.normal(key, shape, dtype)
        return jax.lax.fori_loop(0, 5, lambda i, x: jax.numpy.sin(x), x)

    split = NamedSharding(mesh, PartitionSpec("x", "y"))
    leaf = jax.ShapeDtypeStruct((1024, 2048), "bfloat16")
    rules = {"**": jaxinit.uniform(0.1)}
    plan = jaxinit.plan({"a": leaf, "b": leaf}, rules, shardings=split)
    key = jax.random.key(0)
    jitted = jaxinit.jit(lambda key: jaxinit.zeros(key, (8, 8)), out_shardings=split)
    programs = plan.programs(key)
    return {
        "kernels": {
            "normal": kernel(jaxinit.normal(1.0), "bfloat16"),
            "uniform": kernel(jaxinit.uniform(1.0), "float32"),
            "truncated_normal": kernel(jaxinit.truncated_normal(1.0), "float32"),
        },
        "normalized": kernel(normalized, "float32"),
        "repeated": kernel(repeated, "float32"),
        "programs": [[len(p.leaves), p.bytes, p.temp_bytes] for p in programs],
        "errors": [
            error_of(programs.run),
            error_of(lambda: plan.init(key)),
            error_of(lambda: jitted(key)),
        ],
    }


def error_of(call: Any) -> str:
    try:
        call()
    except RuntimeError as error:
        return str(error)
    return ""


def printed(page: str) -> str:
    """What the code of a page prints."""
    os.environ.update(topology.ENVIRONMENT)
    code = "\n".join(re.findall(r"^```py\n(.*?)^```", page, re.M | re.S))
    with contextlib.redirect_stdout(io.StringIO()) as out:
        exec(compile(code, "page", "exec"), {"__name__": "page"})
    return out.getvalue()
