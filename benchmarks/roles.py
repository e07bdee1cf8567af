"""What `jaxinit.roles` costs beyond the tracing that it needs, by depth."""

import statistics
import time
from functools import partial

import jax
import jax.numpy as jnp
from flax import linen as nn

import jaxinit
from benchmarks.harness import Table, interleaved

WIDTH = 64
DEPTHS = (12, 24, 48)


class Gpt(nn.Module):
    """A GPT as many write it in Flax Linen."""

    blocks: int

    @nn.compact
    def __call__(self, tokens):
        embed = nn.Embed(256, WIDTH)
        x = embed(tokens)
        for _ in range(self.blocks):
            x += nn.MultiHeadDotProductAttention(4)(nn.LayerNorm()(x))
            h = nn.gelu(nn.Dense(4 * WIDTH)(nn.LayerNorm()(x)))
            x += nn.Dense(WIDTH)(h)
        return embed.attend(nn.LayerNorm()(x))


def run(rounds: int = 7) -> list[dict]:
    """Traces, and reads roles, in turns."""
    calls = {depth: partial(measure, depth) for depth in DEPTHS}
    for call in calls.values():  # what jax and Flax do only once
        call()
    return [
        {"blocks": depth, "taken": taken}
        for depth, taken in interleaved(calls, rounds).items()
    ]


def measure(blocks: int) -> dict:
    """Seconds of tracing alone, and of roles, which trace too."""
    model, tokens = Gpt(blocks), jax.ShapeDtypeStruct((2, 16), jnp.int32)
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((2, 16), int))
    start = time.perf_counter()
    jax.make_jaxpr(model.apply)(shapes, tokens)
    middle = time.perf_counter()
    jaxinit.roles(model.apply, shapes, tokens)
    return {"trace": middle - start, "roles": time.perf_counter() - middle}


def tables(rows: list[dict]) -> list[Table]:
    """Medians, and what roles cost on top of a tracing."""
    lines = []
    for row in rows:
        trace, roles = (
            statistics.median(x[name] for x in row["taken"])
            for name in ("trace", "roles")
        )
        beyond = statistics.median(x["roles"] / x["trace"] - 1 for x in row["taken"])
        lines.append(
            (str(row["blocks"]), f"{trace:.2f}", f"{roles:.2f}", f"{beyond:.2f}")
        )
    head = ("blocks", "trace s", "roles s", "roles beyond trace / trace")
    return [Table("Roles: a GPT in Flax Linen", head, lines)]
