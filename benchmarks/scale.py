"""The largest open models, planned and compiled for 512 devices, but not run."""

import math
import os
import statistics
import time
from functools import partial
from typing import Any

from benchmarks.harness import Table, fresh, interleaved

DEVICES, MESH = 512, {"fsdp": 64, "tensor": 8}


def run(rounds: int = 1) -> list[dict]:
    """Plans and compiles each model in a fresh process."""
    calls = {name: partial(fresh, measure, name) for name in MODELS}
    taken = interleaved(calls, rounds)
    return [{"model": name, "taken": results} for name, results in taken.items()]


def measure(name: str) -> dict:
    """Seconds and bytes, in this process, which must be a fresh one."""
    flag = f"--xla_force_host_platform_device_count={DEVICES}"
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flag}"
    import jax
    from jax.sharding import AxisType

    mesh = jax.make_mesh(
        tuple(MESH.values()), tuple(MESH), axis_types=(AxisType.Auto,) * len(MESH)
    )
    return compiled(name, mesh)


def compiled(name: str, mesh: Any) -> dict:
    """The same for the devices of a mesh, whose axes cut the first two of a matrix."""
    import jax
    from jax.sharding import NamedSharding
    from jax.sharding import PartitionSpec as P

    import jaxinit

    shapes = jax.tree.map(
        lambda shape: jax.ShapeDtypeStruct(shape, "bfloat16"),
        MODELS[name](),
        is_leaf=lambda node: isinstance(node, tuple),
    )
    experts = jaxinit.stacked(jaxinit.lecun_normal())
    rules = {
        "**/experts_*": experts,
        "**/embed": jaxinit.normal(0.02),
        "**/*norm": jaxinit.ones,
        "**/*bias": jaxinit.zeros,
        "**": jaxinit.lecun_normal(),
    }
    split, whole = NamedSharding(mesh, P(*mesh.axis_names)), NamedSharding(mesh, P())
    shardings = jaxinit.ShardingRules(
        {"**/*norm": whole, "**/*bias": whole, "**": split}
    )
    start = time.perf_counter()
    plan = jaxinit.plan(shapes, rules, shardings=shardings, allow_unused=list(rules))
    planned = time.perf_counter() - start
    programs = plan.programs(jax.random.key(0))
    return {
        "parameters": sum(math.prod(leaf.shape) for leaf in plan),
        "leaves": len(plan),
        "device_bytes": sum(
            math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
            for leaf in plan
            if leaf.sharding is not None
        ),
        "temp_bytes": max(program.temp_bytes for program in programs),
        "programs": len(programs),
        "plan": planned,
        "trace": programs.trace_seconds,
        "compile": programs.compile_seconds,
    }


def llama_3_405b() -> dict:
    """Shapes of Llama 3 405B (Llama Team, 2024, table 3), one leaf for each matrix."""
    vocabulary, width, hidden, key_value = 128_256, 16_384, 53_248, 8 * 128

    def layer() -> dict:
        return {
            "query": (width, width),
            "key": (width, key_value),
            "value": (width, key_value),
            "out": (width, width),
            "gate": (width, hidden),
            "up": (width, hidden),
            "down": (hidden, width),
            "attention_norm": (width,),
            "mlp_norm": (width,),
        }

    return {
        "embed": (vocabulary, width),
        **{f"layer_{i}": layer() for i in range(126)},
        "norm": (width,),
        "head": (width, vocabulary),
    }


def deepseek_v3_671b() -> dict:
    """Shapes of DeepSeek-V3 (DeepSeek-AI, 2024, section 4.2), experts stacked."""
    vocabulary, width, heads, query, latent = 129_280, 7_168, 128, 1_536, 512
    experts, expert, hidden = 256, 2_048, 18_432

    def attention() -> dict:
        return {
            "query_down": (width, query),
            "query_norm": (query,),
            "query_up": (query, heads * (128 + 64)),
            "latent_down": (width, latent + 64),
            "latent_norm": (latent,),
            "latent_up": (latent, heads * (128 + 128)),
            "out": (heads * 128, width),
            "attention_norm": (width,),
            "mlp_norm": (width,),
        }

    def mlp(size: int) -> dict:
        return {"gate": (width, size), "up": (width, size), "down": (size, width)}

    def mixture() -> dict:
        return {
            **{f"experts_{k}": (experts, *shape) for k, shape in mlp(expert).items()},
            "shared": mlp(expert),
            "router": (width, experts),
            "router_bias": (experts,),
        }

    return {
        "embed": (vocabulary, width),
        **{
            f"layer_{i}": {**attention(), **(mlp(hidden) if i < 3 else mixture())}
            for i in range(61)
        },
        "norm": (width,),
        "head": (width, vocabulary),
    }


MODELS = {"Llama 3 405B": llama_3_405b, "DeepSeek-V3 671B": deepseek_v3_671b}


def tables(rows: list[dict]) -> list[Table]:
    """Bytes on each device, and medians of seconds."""
    title = f"Scale: bfloat16, compiled for {DEVICES} devices, mesh {MESH}, not run"
    return [table(title, rows)]


def table(title: str, rows: list[dict]) -> Table:
    """One line for each model."""
    lines = []
    for row in rows:
        first = row["taken"][0]
        seconds = [
            f"{statistics.median(one[name] for one in row['taken']):.1f}"
            for name in ("plan", "trace", "compile")
        ]
        lines.append(
            (
                row["model"],
                f"{first['parameters'] / 1e9:.2f} B",
                str(first["leaves"]),
                str(first["programs"]),
                f"{first['device_bytes'] / 1e9:.3f} GB",
                f"{first['temp_bytes'] / 1e6:.3f} MB",
                *seconds,
            )
        )
    head = ("model", "parameters", "leaves", "programs", "on each device")
    head += ("temporary", "plan s", "trace s", "compile s")
    return Table(title, head, lines)
