"""`schemes.auto()` against the models' own start, trained on real text.

The text is the source of Python's standard library, in bytes. Perceptrons tell the next
byte from the 16 before it, a small GPT each from all before it. Both starts have equal
keys, batches, steps and optimizer (Adam, the learning rate not tuned).
"""

import math
import statistics
import sysconfig
import time
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn

import jaxinit
import jaxinit.linen
from benchmarks.harness import Table, interleaved
from jaxinit import schemes

AUTO, OWN = "auto", "own"
LENGTH, BATCH, STEPS, RATE = 16, 128, 300, 1e-3
WIDTH, DEPTH = 96, 16


class Perceptron(nn.Module):
    """A deep plain network of dense layers as Flax starts them (LeCun normal)."""

    activation: str

    @nn.compact
    def __call__(self, tokens):
        x = nn.Embed(256, 16)(tokens).reshape(*tokens.shape[:-1], -1)
        function = getattr(jax.nn, self.activation)
        for _ in range(DEPTH):
            x = function(nn.Dense(WIDTH)(x))
        return nn.Dense(256)(x)


class Gpt(nn.Module):
    """Blocks of attention and feed-forward, with tied embeddings."""

    @nn.compact
    def __call__(self, tokens):
        embed = nn.Embed(256, WIDTH)
        place = self.param("place", nn.initializers.normal(0.02), (LENGTH, WIDTH))
        x = embed(tokens) + place
        mask = nn.make_causal_mask(tokens)
        for _ in range(4):
            x += nn.MultiHeadDotProductAttention(4)(nn.LayerNorm()(x), mask=mask)
            h = nn.gelu(nn.Dense(4 * WIDTH)(nn.LayerNorm()(x)))
            x += nn.Dense(WIDTH)(h)
        return embed.attend(nn.LayerNorm()(x))


MODELS = {
    **{name: Perceptron(name) for name in ("relu", "tanh", "gelu", "selu")},
    "GPT, 4 blocks": Gpt(),
}


def run(rounds: int = 3) -> list[dict]:
    """Trains every model from both starts, with another key in every round."""
    seeds = dict.fromkeys(((m, s) for m in MODELS for s in (AUTO, OWN)), 0)

    def train(model, start):
        seeds[model, start] += 1
        return measure(model, start, seeds[model, start])

    calls = {pair: partial(train, *pair) for pair in seeds}
    return [
        {"model": model, "start": start, "taken": taken}
        for (model, start), taken in interleaved(calls, rounds).items()
    ]


def measure(name: str, start: str, seed: int) -> dict:
    """The loss after the last step, the mean of 20 batches, in nats for a byte."""
    model, text = MODELS[name], _text()
    rng, key = np.random.default_rng(seed), jax.random.key(seed)
    x = jax.ShapeDtypeStruct((BATCH, LENGTH), jnp.int32)
    scheme = schemes.auto() if start == AUTO else None
    begin = time.perf_counter()
    params = jax.block_until_ready(jaxinit.linen.init(model, key, x, scheme=scheme))
    seconds = time.perf_counter() - begin
    optimizer = optax.adam(RATE)
    state = optimizer.init(params)

    def loss(params, batch):
        logits = model.apply(params, batch[:, :-1])
        targets = batch[:, -1] if logits.ndim == 2 else batch[:, 1:]
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, targets)
        return losses.mean()

    @jax.jit
    def step(params, state, batch):
        value, gradient = jax.value_and_grad(loss)(params, batch)
        change, state = optimizer.update(gradient, state)
        return optax.apply_updates(params, change), state, value

    losses = []
    for _ in range(STEPS):
        places = rng.integers(0, len(text) - LENGTH - 1, BATCH)
        batch = np.stack([text[i : i + LENGTH + 1] for i in places]).astype(np.int32)
        params, state, value = step(params, state, batch)
        losses.append(value)
    return {"loss": float(np.mean(losses[-20:])), "init": seconds}


def _text() -> np.ndarray:
    folder = Path(sysconfig.get_path("stdlib"))
    files = sorted(folder.glob("*.py"))
    return np.frombuffer(b"".join(file.read_bytes() for file in files), np.uint8)


def tables(rows: list[dict]) -> list[Table]:
    """Mean loss, and its standard error over rounds."""
    lines = []
    for name in MODELS:
        found = {row["start"]: row["taken"] for row in rows if row["model"] == name}
        cells = [_cell([x["loss"] for x in found[start]]) for start in (AUTO, OWN)]
        lines.append((name, *cells))
    title = (
        f"Start: loss in nats after {STEPS} steps of Adam, bytes of Python's standard "
        f"library; {DEPTH} dense layers of {WIDTH}, and a GPT"
    )
    return [Table(title, ("model", "schemes.auto()", "its own"), lines)]


def _cell(losses: list[float]) -> str:
    error = statistics.stdev(losses) / math.sqrt(len(losses)) if len(losses) > 1 else 0
    return f"{statistics.mean(losses):.3f} ± {error:.3f}"
