"""Whether `schemes.auto()` keeps signals and gradients, over many models and depths.

Plain and residual nets of dense layers and a GPT, of 10 to 100 layers, and the models
of the tests' zoo, all with random inputs: standard normal floats, and integers that are
in range everywhere. Of every contraction of activations with what the scheme draws, the
standard deviation over what it should be: one, or the share of a residual stream. And
the norm of the gradient at the first contraction over that at the last.

`formula` is the rule of Bingham and Miikkulainen, "AutoInit" (2023), as the README of
their package states it: every layer gives mean 0 and variance 1, by weights of variance
`1 / (fan_in (mean**2 + variance))` of what enters; a sum adds means and variances.
"""

import functools
import importlib
import math
import statistics
import sys
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxinit
from benchmarks.contractions import QUICK, Contraction, recorder
from benchmarks.harness import ROOT, Table
from jaxinit import schemes

AUTO, FORMULA = "auto", "formula"
WIDTH, BATCH, TOKENS, VOCABULARY = 128, 32, 8, 64
DEPTHS = 10, 30, 100
LEAST, MOST, FACTOR = 0.5, 2.0, 10.0
SMALL = 4, 2  # integers in range in the zoo: below 4, or 2 if a table has but two rows
_NAMED = ("relu", "leaky_relu", "tanh", "selu", "elu", "gelu", "silu", "softplus")
FUNCTIONS: dict[str, Callable] = {
    **{name: getattr(jax.nn, name) for name in (*_NAMED, "sigmoid")},
    "sine": jnp.sin,
}


def run(rounds: int = 3) -> list[dict]:
    """All rows: `rounds` keys for each net, four times as many for the small zoo."""
    rows = [
        net(f"plain {fn}", depth, start, rounds)
        for depth in DEPTHS
        for fn in FUNCTIONS
        for start in (AUTO, FORMULA)
    ]
    rows += [
        net(f"residual {fn}", DEPTHS[-1], start, rounds)
        for fn in ("relu", "tanh", "gelu")
        for start in (AUTO, FORMULA)
    ]
    return [*rows, net("GPT", DEPTHS[-1], AUTO, rounds), *zoo(4 * rounds)]


def layered(name: str, is_loop: bool) -> Callable:
    """A net of dense layers, one after another or added to a stream."""
    kind, _, fn = name.partition(" ")
    function = FUNCTIONS[fn]

    def layer(x, params):
        w, b = params
        y = function(x) @ w + b
        return x + y if kind == "residual" else y

    def apply(params, x):
        first, inner, (w, b) = params
        x = x @ first[0] + first[1]
        return function(_through(layer, x, inner, is_loop)) @ w + b

    return apply


def gpt(is_loop: bool) -> Callable:
    """Blocks of attention with two heads and a feed-forward part, tied embeddings."""
    past = jnp.tril(jnp.ones((TOKENS, TOKENS), bool))

    def block(x, p):
        y = (_normed(x) @ p["qkv"]).reshape(*x.shape[:2], 3, 2, -1)
        q, k, v = (y[:, :, i] for i in range(3))
        scores = jnp.einsum("bthd,bshd->bhts", q, k) / math.sqrt(q.shape[-1])
        weights = jax.nn.softmax(jnp.where(past, scores, -1e30))
        y = jnp.einsum("bhts,bshd->bthd", weights, v).reshape(x.shape)
        x = x + y @ p["out"]
        return x + jax.nn.gelu(_normed(x) @ p["up"]) @ p["down"]

    def apply(p, ids):
        x = _through(block, p["table"][ids] + p["place"], p["blocks"], is_loop)
        return _normed(x) @ p["table"].T

    return apply


def _through(layer: Callable, x: jax.Array, blocks: Sequence, is_loop: bool):
    if not is_loop:
        return functools.reduce(layer, blocks, x)
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *blocks)
    return jax.lax.scan(lambda x, block: (layer(x, block), None), x, stacked)[0]


def _normed(x):
    mean = x.mean(-1, keepdims=True)
    variance = jnp.square(x - mean).mean(-1, keepdims=True)
    return (x - mean) / jnp.sqrt(variance + 1e-6)


def _shapes(name: str, depth: int) -> tuple[Any, Any]:
    """Shapes of the parameters and of the input of a net."""

    def array(*shape):
        return jax.ShapeDtypeStruct(shape, jnp.float32)

    if name != "GPT":
        layer = array(WIDTH, WIDTH), array(WIDTH)
        return (layer, [layer] * (depth - 1), layer), array(BATCH, WIDTH)
    width = WIDTH // 2
    block = {
        "qkv": array(width, 3 * width),
        "out": array(width, width),
        "up": array(width, 4 * width),
        "down": array(4 * width, width),
    }
    tables = {"table": array(VOCABULARY, width), "place": array(TOKENS, width)}
    ids = jax.ShapeDtypeStruct((BATCH // TOKENS, TOKENS), jnp.int32)
    return {**tables, "blocks": [block] * (depth // 2)}, ids


def net(name: str, depth: int, start: str, rounds: int) -> dict:
    """A row for a net.

    Its roles are read from layers one after another; it is measured as a loop over
    them, which compiles in no time.
    """
    print(f"{name}, {depth} layers, {start}", file=sys.stderr)
    make = gpt if name == "GPT" else functools.partial(layered, name)
    shapes, x = _shapes(name, depth)
    if start == AUTO:
        roles = jaxinit.roles(make(is_loop=False), shapes, x)
        draw = jaxinit.plan(shapes, schemes.auto(), roles=roles).init
        targets = _targets(roles)
    else:
        draw = functools.partial(by_formula, name, depth)
        targets = [(1.0, 1.0)] * len(jax.tree.leaves(shapes))
    taken = _taken(make(is_loop=True), shapes, (x,), draw, targets, rounds, VOCABULARY)
    return {"model": name, "depth": depth, "start": start, "taken": taken}


def by_formula(name: str, depth: int, key: jax.Array) -> Any:
    """Plain and residual nets by the rule of AutoInit."""
    kind, _, fn = name.partition(" ")
    variance, layers = 1.0, []
    for i, layer_key in enumerate(jax.random.split(key, depth + 1)):
        second = _second(fn, variance) if i else 1.0
        law = jaxinit.variance_scaling(1 / second, "fan_in", "truncated_normal")
        layers.append((law(layer_key, (WIDTH, WIDTH)), jnp.zeros(WIDTH)))
        variance += 1.0 if kind == "residual" and i else 0.0
    return layers[0], layers[1:-1], layers[-1]


@functools.cache
def _second(name: str, variance: float) -> float:
    """Mean squared plus variance of a function of a centred normal number."""
    z = np.linspace(-9, 9, 3601)
    weights = np.exp(-(z**2) / 2)
    values = np.asarray(FUNCTIONS[name](jnp.asarray(z * math.sqrt(variance))), float)
    return float(weights @ values**2 / weights.sum())


def zoo(rounds: int) -> list[dict]:
    """A row for each model of the tests' zoo that has gradients."""
    sys.path.insert(0, str(ROOT / "tests"))
    models: dict[str, Callable] = importlib.import_module("zoo").MODELS
    rows = []
    for name, make in models.items():
        if name in _NOT_DIFFERENTIABLE:
            continue
        print(name, file=sys.stderr)
        model = make()
        roles = jaxinit.roles(model.apply, model.params, *model.inputs)
        plan = jaxinit.plan(
            model.params,
            jaxinit.Rules({_is_kept: _stand_in}) | schemes.auto(),
            roles=roles,
            allow_unused=[_is_kept],
        )
        draw = jax.jit(plan.init, compiler_options=QUICK)
        about = model.apply, model.params, model.inputs, draw, _targets(roles)
        kept = sum(role.kind in _KEPT for role in roles.values())
        tries = (_taken(*about, rounds, high) for high in SMALL)
        taken = next(filter(_is_finite, tries))
        rows.append({"model": name, "start": AUTO, "kept": kept, "taken": taken})
    return rows


def _is_finite(taken: list[dict]) -> bool:
    return all(math.isfinite(std) for one in taken for std in one["stds"])


_NOT_DIFFERENTIABLE = {"sequences.neural_ode_by_midpoints"}  # a loop without length
_KEPT = {"unknown", "unused", "statistic"}


def _is_kept(leaf: Any) -> bool:
    return leaf.role.kind in _KEPT


def _stand_in(leaf: Any) -> Callable:
    """For what only the models themselves, of which there are shapes alone, know."""
    if len(leaf.shape) > 1 and leaf.role.kind != "statistic":
        return jaxinit.lecun_normal()
    return jaxinit.ones if "var" in leaf.path else jaxinit.zeros


def _targets(roles: Any) -> list[tuple[float, float] | None]:
    """What a contraction with each leaf should give; None where the scheme has no say.

    And the number that multiplies it, before the contraction or behind it.
    """
    return [_target(role) for role in roles.values()]


def _target(role: Any) -> tuple[float, float] | None:
    if not role.kernels or role.kind in _KEPT:
        return None
    use = role.kernels[0]
    if use.recurrent:  # of a state that begins as zero
        return None
    size = abs(use.multiplier) or 1.0
    if use.residual is None:
        return 1.0, size
    moment = use.variance * use.fan_in * use.entering * size**2
    return math.sqrt(moment) or 1.0, size


def _taken(apply, shapes, inputs, draw, targets, rounds, high) -> list[dict]:
    record = recorder(apply, shapes, inputs)
    taken = []
    for seed in range(rounds):
        key = jax.random.key(seed)
        given = [
            jax.tree.map(functools.partial(_input, jax.random.fold_in(key, i), high), x)
            for i, x in enumerate(inputs, 1)
        ]
        taken.append(_summary(record(draw(key), given, key), targets))
    return taken


def _input(key: jax.Array, high: int, shape: Any) -> jax.Array:
    if jnp.issubdtype(shape.dtype, jnp.integer):
        return jax.random.randint(key, shape.shape, 0, high, shape.dtype)
    if shape.dtype == bool:
        return jax.random.bernoulli(key, shape=shape.shape)
    return jax.random.normal(key, shape.shape, shape.dtype)


def _summary(found: list[Contraction], targets: Sequence) -> dict:
    """Deviations over what they should be, and the ratio of the gradients."""
    stds, gradients = [], []
    for one in found:
        turns = len(one.stds)
        leaves = one.leaves if len(one.leaves) == turns else [one.leaves[0]] * turns
        for leaf, std, norm in zip(leaves, one.stds, one.gradients, strict=True):
            if targets[leaf] is not None:
                target, size = targets[leaf]
                near = min(std / target, std * size / target, key=_distance)
                stds.append(near)
                gradients.append(norm)
    ends = [norm for norm in gradients if norm]
    ratio = ends[0] / ends[-1] if ends else None
    return {"stds": [round(std, 4) for std in stds], "gradient": ratio}


def _distance(ratio: float) -> float:
    return abs(math.log(ratio)) if 0 < ratio < math.inf else math.inf


def figures(row: dict) -> dict:
    """Means over keys: deviations by their squares, gradients by their logarithms."""
    taken = row["taken"]
    layers = zip(*(one["stds"] for one in taken), strict=True)
    stds = [math.sqrt(statistics.mean(x * x for x in layer)) for layer in layers]
    ratios = [one["gradient"] for one in taken if one["gradient"]]
    outside = [std for std in stds if not LEAST <= std <= MOST]
    logs = [math.log(ratio) for ratio in ratios]
    return {
        "least": min(stds, default=1.0),
        "most": max(stds, default=1.0),
        "outside": len(outside),
        "layers": len(stds),
        "gradient": math.exp(statistics.mean(logs)) if logs else 1.0,
    }


def is_kept(found: dict) -> bool:
    """Whether signals and gradients are within bounds."""
    return not found["outside"] and 1 / FACTOR <= found["gradient"] <= FACTOR


def tables(rows: list[dict]) -> list[Table]:
    """Nets by depth; of the zoo, the count and all models out of bounds."""
    nets = [row for row in rows if "depth" in row]
    models = [(row["model"], figures(row)) for row in rows if "depth" not in row]
    bad = [(name, found) for name, found in models if not is_kept(found)]
    head = ("least and most std", "layers out of 0.5 to 2", "gradient, first over last")
    lines = [
        (row["model"], str(row["depth"]), row["start"], *_cells(figures(row)))
        for row in nets
    ]
    title = (
        f"Zoo: {len(models) - len(bad)} of {len(models)} models within bounds; others"
    )
    return [
        Table("Nets", ("net", "layers", "start", *head), lines),
        Table(title, ("model", *head), [(name, *_cells(x)) for name, x in bad]),
    ]


def _cells(found: dict) -> tuple[str, str, str]:
    ends = f"{found['least']:.2g} to {found['most']:.2g}"
    outside = f"{found['outside']} of {found['layers']}"
    return ends, outside, f"{found['gradient']:.2g}"
