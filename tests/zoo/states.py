"""Cells and attentions over time that have no layer of any framework."""

import jax
import jax.numpy as jnp

from zoo.equinox_models import linear as equinox_linear
from zoo.equinox_models import of_equinox
from zoo.layers import affine, linear, over_time
from zoo.truths import (
    ANY,
    Model,
    bias,
    dense,
    embedding,
    floats,
    integers,
    kernel,
    model,
    one_of,
    unknown,
)

B, T, N, S, D, F, O, V = 2, 6, 7, 9, 12, 15, 4, 19  # noqa: E741


@model
def oscillators() -> Model:
    """Rusch and Mishra 2021 (coRNN): velocities and places, two states in turn."""

    def apply(p, x):
        def step(carry, x):
            y, z = carry
            force = jnp.tanh(x @ p["v"] + y @ p["w"] + z @ p["wz"] + p["b"])
            z = z + 0.05 * (force - 2.7 * y - 4.7 * z)
            y = y + 0.05 * z
            return (y, z), None

        start = jnp.zeros((B, S)), jnp.zeros((B, S))
        (y, _), _ = over_time(step, start, x)
        return linear(p["out"], y)

    params = {
        "v": floats(N, S),
        "w": floats(S, S),
        "wz": floats(S, S),
        "b": floats(S),
        "out": affine(S, O),
    }
    # Debatable: a step of an equation is a residual write over time.
    own = {"function": "tanh", "residual": ANY, "multiplier": ANY}
    truth = {
        "v": kernel(N, S, **own),
        "w": kernel(S, S, recurrent=True, **own),
        "wz": kernel(S, S, recurrent=True, **own),
        "b": bias(["v", "w", "wz"]),
        **dense("out", S, O, head=True),
    }
    return Model(apply, params, (floats(B, T, N),), truth)


@model
def kernels_shared_by_gates() -> Model:
    """Kusupati et al. 2018 (FastGRNN): one sum for the gate and for the candidate."""

    def apply(p, x):
        def step(h, x):
            both = x @ p["w"] + h @ p["u"]
            z = jax.nn.sigmoid(both + p["gate"])
            c = jnp.tanh(both + p["update"])
            keep = jax.nn.sigmoid(p["zeta"]) * (1 - z) + jax.nn.sigmoid(p["nu"])
            h = keep * c + z * h
            return h, h

        return linear(p["out"], over_time(step, jnp.zeros((B, S)), x)[0])

    params = {
        "w": floats(N, S),
        "u": floats(S, S),
        "gate": floats(S),
        "update": floats(S),
        "zeta": floats(1, 1),
        "nu": floats(1, 1),
        "out": affine(S, O),
    }
    truth = {
        # Debatable: it has two functions, and is a gate and a candidate.
        "w": kernel(N, S, function=ANY, part=ANY),
        "u": kernel(S, S, function=ANY, part=ANY, recurrent=True),
        "gate": bias(["w", "u"], part=ANY),
        "update": bias(["w", "u"], part=ANY),
        "zeta": unknown(),
        "nu": unknown(),
        **dense("out", S, O, head=True),
    }
    return Model(apply, params, (floats(B, T, N),), truth)


@model
def antisymmetric() -> Model:
    """Chang et al. 2019: the recurrent kernel less its transpose and some friction."""

    def apply(p, x):
        def step(h, x):
            w = p["w"] - p["w"].T - 0.1 * jnp.eye(S)
            return h + 0.1 * jnp.tanh(h @ w + x @ p["v"] + p["b"]), None

        return linear(p["out"], over_time(step, jnp.zeros((B, S)), x)[0])

    params = {
        "w": floats(S, S),
        "v": floats(N, S),
        "b": floats(S),
        "out": affine(S, O),
    }
    truth = {
        # The kernel is a function of its leaf.
        "w": unknown(),
        # Debatable: a residual write over time.
        "v": kernel(N, S, function="tanh", residual=ANY, multiplier=ANY),
        "b": bias(ANY),
        **dense("out", S, O, head=True),
    }
    return Model(apply, params, (floats(B, T, N),), truth)


@model
def closed_form_in_time() -> Model:
    """Hasani et al. 2022 (CfC), Equinox: times between steps mix two candidates."""
    import equinox as eqx

    names = ("ff1", "ff2", "time_a", "time_b")

    class Net(eqx.Module):
        backbone: eqx.nn.Linear
        heads: dict
        out: eqx.nn.Linear

        def __init__(self, key):
            self.backbone = eqx.nn.Linear(N + S, F, key=key)
            self.heads = {name: eqx.nn.Linear(F, S, key=key) for name in names}
            self.out = eqx.nn.Linear(S, O, key=key)

        def __call__(self, xs, spans):
            def step(h, inputs):
                x, span = inputs
                y = self.backbone(jnp.concatenate([x, h]))
                y = 1.7159 * jnp.tanh(0.666 * y)
                a, b, s, t = (self.heads[name](y) for name in names)
                mix = jax.nn.sigmoid(s * span + t)
                return jnp.tanh(a) * (1 - mix) + jnp.tanh(b) * mix, None

            return self.out(jax.lax.scan(step, jnp.zeros(S), (xs, spans))[0])

    # Debatable: names of the gates of a cell that is none of the known.
    own = {"recurrent": True, "part": ANY}
    columns = [(1, ((0, N),), "input", ANY), (1, ((N, N + S),), "recurrent", ANY)]
    truth = {
        "backbone/weight": kernel(
            N + S, F, 1, 0, ANY, recurrent=True, multiplier=ANY, sections=columns
        ),
        "backbone/bias": bias("backbone/weight", multiplier=ANY),
        "heads/ff1/weight": kernel(F, S, 1, 0, "tanh", **own),
        "heads/ff2/weight": kernel(F, S, 1, 0, "tanh", **own),
        # Debatable: an input multiplies it before the sigmoid.
        "heads/time_a/weight": kernel(F, S, 1, 0, ANY, **own),
        "heads/time_b/weight": kernel(F, S, 1, 0, "sigmoid", **own),
        **equinox_linear("out", S, O, head=True),
    }
    for name in names:
        of = ANY if name == "time_b" else f"heads/{name}/weight"
        truth[f"heads/{name}/bias"] = bias(of, part=ANY)
    return of_equinox(Net, [floats(B, T, N), floats(B, T)], truth)


@model
def exponential_gates() -> Model:
    """Beck et al. 2024 (sLSTM): a state normed by its weights, kernels of each head."""
    heads, size = 3, 4

    def apply(p, x):
        def step(carry, x):
            h, c, n, m = carry
            z = jnp.einsum("bd,dghs->bghs", x, p["w"])
            z = z + jnp.einsum("bhs,ghst->bght", h, p["r"]) + p["b"]
            i, f, g, o = jnp.moveaxis(z, 1, 0)
            f = jax.nn.log_sigmoid(f)
            most = jnp.maximum(f + m, i)
            i, f = jnp.exp(i - most), jnp.exp(f + m - most)
            c, n = f * c + i * jnp.tanh(g), f * n + i
            h = jax.nn.sigmoid(o) * c / n
            return (h, c, n, most), h

        zeros = jnp.zeros((B, heads, size))
        _, hs = over_time(step, (zeros, zeros, zeros, zeros), x)
        return linear(p["out"], hs.reshape(B, T, heads * size))

    params = {
        "w": floats(N, 4, heads, size),
        "r": floats(4, heads, size, size),
        "b": floats(4, heads, size),
        "out": affine(heads * size, O),
    }
    # Debatable: gates that are exponential, and what they are called.
    own = {"function": ANY, "sections": ANY, "part": ANY}
    truth = {
        "w": kernel(N, 4 * heads * size, 0, (1, 2, 3), **own),
        "r": kernel(size, 4 * size, 2, (0, 3), batch_axis=1, recurrent=True, **own),
        "b": bias(["w", "r"], (0, 1, 2), sections=ANY, part=ANY),
        **dense("out", heads * size, O, head=True),
    }
    return Model(apply, params, (floats(B, T, N),), truth)


@model
def tree_of_cells() -> Model:
    """Tai et al. 2015: a scan over nodes, whose children are rows of what it wrote."""

    def apply(p, words, children):
        def step(memory, inputs):
            h, c = memory
            i, word, below = inputs
            x = p["embed"][word]
            hs, cs = h[below], c[below]
            z = x @ p["w"] + hs.sum(0) @ p["u"] + p["b"]
            a, o, g = jnp.split(z, 3)
            f = jax.nn.sigmoid(x @ p["wf"] + hs @ p["uf"] + p["bf"])
            new = jax.nn.sigmoid(a) * jnp.tanh(g) + (f * cs).sum(0)
            h = h.at[i].set(jax.nn.sigmoid(o) * jnp.tanh(new))
            return (h, c.at[i].set(new)), None

        zeros = jnp.zeros((T + 1, S))
        (h, _), _ = jax.lax.scan(step, (zeros, zeros), (jnp.arange(T), words, children))
        return linear(p["out"], h[T - 1])

    params = {
        "embed": floats(V, N),
        "w": floats(N, 3 * S),
        "u": floats(S, 3 * S),
        "b": floats(3 * S),
        "wf": floats(N, S),
        "uf": floats(S, S),
        "bf": floats(S),
        "out": affine(S, O),
    }
    # Debatable: gates of a cell, or only gates, where memory is rows of an array.
    own = {"function": ANY, "sections": ANY}
    forget = {"part": one_of("forget gate", "gate"), "function": "sigmoid"}
    truth = {
        "embed": embedding(N),
        "w": kernel(N, 3 * S, **own),
        "u": kernel(S, 3 * S, recurrent=True, **own),
        "b": bias(["w", "u"], sections=ANY),
        "wf": kernel(N, S, **forget),
        "uf": kernel(S, S, recurrent=True, **forget),
        "bf": bias(["wf", "uf"], part=forget["part"]),
        **dense("out", S, O, head=True),
    }
    return Model(apply, params, (integers(T), integers(T, 2)), truth)
