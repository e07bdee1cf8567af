"""Plain functions: sequences by FFT, and by a parallel scan."""

import jax
import jax.numpy as jnp

from zoo.layers import depthwise, over_window
from zoo.truths import (
    ANY,
    Model,
    bias,
    floats,
    kernel,
    model,
    scale,
    unknown,
)

BATCH, LENGTH, WIDTH, HEADS, SIZE, VOCABULARY = 2, 6, 12, 3, 4, 17
INNER = HEADS * SIZE


@model
def long_filters() -> Model:
    """Poli et al. 2023 (Hyena): a filter of an MLP on positions, applied by FFT."""
    order = 2
    parts = order + 1

    def filters(p):
        t = jnp.linspace(0, 1, LENGTH)[:, None]
        z = jnp.concatenate([t, jnp.cos(6 * t), jnp.sin(6 * t)], -1)
        h = jnp.sin(p["freq"] * (z @ p["w1"] + p["b1"]))
        h = jnp.sin(p["freq"] * (h @ p["w2"] + p["b2"]))
        return (h @ p["w3"]) * jnp.exp(-3.0 * t)

    def by_fft(x, h):
        n = 2 * LENGTH
        y = jnp.fft.rfft(x, n, axis=1) * jnp.fft.rfft(h, n, axis=0)
        return jnp.fft.irfft(y, n, axis=1)[:, :LENGTH]

    def apply(p, x):
        u = x @ p["in_proj"]["w"] + p["in_proj"]["b"]
        u = over_window(u, p["short"])
        a, b, v = jnp.split(u, parts, axis=-1)
        h = filters(p["filter"])
        v = v * b
        v = by_fft(v, h) + v * p["D"]
        return (v * a) @ p["out_proj"]["w"] + p["out_proj"]["b"]

    params = {
        "in_proj": {"w": floats(WIDTH, parts * WIDTH), "b": floats(parts * WIDTH)},
        "short": floats(3, 1, parts * WIDTH),
        "filter": {
            "freq": floats(8),
            "w1": floats(3, 8),
            "b1": floats(8),
            "w2": floats(8, 8),
            "b2": floats(8),
            "w3": floats(8, WIDTH),
        },
        "D": floats(WIDTH),
        "out_proj": {"w": floats(WIDTH, WIDTH), "b": floats(WIDTH)},
    }
    # A filter is made of leaves and constants alone: products of weights.
    made = ("freq", "w1", "b1", "w2", "b2", "w3")
    truth = {
        "in_proj/w": kernel(WIDTH, parts * WIDTH),
        "in_proj/b": bias("in_proj/w"),
        "short": depthwise(parts * WIDTH, 3, part=ANY, sections=ANY),
        **{f"filter/{name}": unknown() for name in made},
        "D": scale(),
        "out_proj/w": kernel(WIDTH, WIDTH, head=True),
        "out_proj/b": bias("out_proj/w"),
    }
    return Model(apply, params, (floats(BATCH, LENGTH, WIDTH),), truth)


@model
def minimal_gru_by_associative_scan() -> Model:
    """Feng et al. 2024 (minGRU): no kernel in the loop, which is a parallel scan."""

    def apply(p, x):
        x = x @ p["in"]
        z = jax.nn.sigmoid(x @ p["to_z"]["w"] + p["to_z"]["b"])
        h = z * (x @ p["to_h"]["w"] + p["to_h"]["b"])

        def combine(left, right):
            return left[0] * right[0], right[0] * left[1] + right[1]

        h = jax.lax.associative_scan(combine, (1 - z, h), axis=1)[1]
        return h @ p["out"]

    affine = {"w": floats(WIDTH, INNER), "b": floats(INNER)}
    params = {
        "in": floats(5, WIDTH),
        "to_z": affine,
        "to_h": affine,
        "out": floats(INNER, 2),
    }
    truth = {
        "in": kernel(5, WIDTH),
        # Debatable: an update gate and a candidate, or a gated unit.
        "to_z/w": kernel(WIDTH, INNER, function="sigmoid", part=ANY),
        "to_z/b": bias("to_z/w", part=ANY),
        "to_h/w": kernel(WIDTH, INNER, part=ANY),
        "to_h/b": bias("to_h/w", part=ANY),
        "out": kernel(INNER, 2, head=True),
    }
    return Model(apply, params, (floats(BATCH, LENGTH, 5),), truth)
