"""Networks that adapt, compare, point, walk on graphs, and bend densities."""

import jax
import jax.numpy as jnp

from zoo.equinox_models import of_equinox
from zoo.flax_layers import of_linen
from zoo.haiku_models import linear as hk_linear
from zoo.haiku_models import of_haiku
from zoo.nnx_models import of_nnx
from zoo.truths import (
    ANY,
    Model,
    bias,
    convolution,
    dense,
    either,
    embedding,
    floats,
    integers,
    kernel,
    model,
    norm,
    rms_norm,
    scale,
    token,
    unknown,
)

B, T, N, D, F, HEADS, SIZE, O, V = 2, 6, 5, 12, 15, 3, 4, 4, 19  # noqa: E741


@model
def means_of_classes() -> Model:
    """Snell et al. 2017 (prototypes), Equinox: one encoder for shots and queries."""
    import equinox as eqx

    ways, shots, c = 3, 2, 4

    class Net(eqx.Module):
        convs: list
        norms: list

        def __init__(self, key):
            sizes = ((1, c), (c, 6))
            self.convs = [eqx.nn.Conv2d(a, b, 3, padding=1, key=key) for a, b in sizes]
            self.norms = [eqx.nn.GroupNorm(2, b) for _, b in sizes]

        def encode(self, x):
            for conv, normalize in zip(self.convs, self.norms, strict=True):
                x = jax.nn.relu(normalize(conv(x)))
                x = eqx.nn.MaxPool2d(2, 2)(x)
            return x.reshape(-1)

        def __call__(self, support, query):
            images = support.reshape(ways * shots, *support.shape[2:])
            z = jax.vmap(self.encode)(images).reshape(ways, shots, -1).mean(1)
            q = jax.vmap(self.encode)(query)
            apart = jnp.sum((q[:, None] - z[None]) ** 2, axis=-1)
            return jax.nn.log_softmax(-apart, axis=-1)

    axes = {"spatial_axis": (2, 3), "in_axis": 1, "out_axis": 0}
    # Debatable: distances are no contraction, but a sum of products.
    truth = {
        "convs/0/weight": [convolution(9, 9 * c, **axes)] * 2,
        "convs/0/bias": [bias("convs/0/weight")] * 2,
        "convs/1/weight": [convolution(9 * c, 54, head=ANY, **axes)] * 2,
        "convs/1/bias": [bias("convs/1/weight")] * 2,
    }
    for i in range(2):
        truth |= {path: [use] * 2 for path, use in norm(f"norms/{i}", "weight").items()}
    inputs = [floats(B, ways, shots, 1, 8, 8), floats(B, 5, 1, 8, 8)]
    return of_equinox(Net, inputs, truth)


@model
def routes_by_pointing() -> Model:
    """Kool et al. 2019 (attention for routes), NNX: each step asks what is left."""
    from flax import nnx

    class Layer(nnx.Module):
        def __init__(self, rngs):
            self.attn = nnx.MultiHeadAttention(
                HEADS, D, decode=False, use_bias=False, rngs=rngs
            )
            self.bn1, self.bn2 = (nnx.BatchNorm(D, rngs=rngs) for _ in range(2))
            self.up = nnx.Linear(D, F, rngs=rngs)
            self.down = nnx.Linear(F, D, rngs=rngs)

        def __call__(self, x):
            x = self.bn1(x + self.attn(x), use_running_average=False)
            h = self.down(nnx.relu(self.up(x)))
            return self.bn2(x + h, use_running_average=False)

    class Net(nnx.Module):
        def __init__(self, rngs):
            def bare(a, b):
                return nnx.Linear(a, b, use_bias=False, rngs=rngs)

            self.embed = nnx.Linear(2, D, rngs=rngs)
            self.layer = Layer(rngs)
            self.nodes = bare(D, 3 * D)
            self.graph = bare(D, D)
            self.step = bare(2 * D, D)
            self.out = bare(D, D)
            self.first = nnx.Param(jnp.zeros(2 * D))

        def __call__(self, places):
            h = self.layer(self.embed(places))
            key, value, logit_key = jnp.split(self.nodes(h), 3, axis=-1)
            split = lambda y: y.reshape(B, -1, HEADS, SIZE)  # noqa: E731
            key, value, graph = split(key), split(value), self.graph(h.mean(1))
            rows = jnp.arange(B)
            seen, tour = jnp.zeros((B, T), bool), []
            context = jnp.broadcast_to(self.first[...], (B, 2 * D))
            for _ in range(3):
                q = split((graph + self.step(context))[:, None])
                s = jnp.einsum("bqhd,bkhd->bhqk", q, key) / jnp.sqrt(SIZE)
                s = jnp.where(seen[:, None, None], -jnp.inf, s)
                y = jnp.einsum("bhqk,bkhd->bqhd", nnx.softmax(s), value)
                glimpse = self.out(y.reshape(B, D))
                s = jnp.einsum("bd,bkd->bk", glimpse, logit_key) / jnp.sqrt(D)
                s = jnp.where(seen, -jnp.inf, 10 * jnp.tanh(s))
                chosen = jnp.argmax(s, axis=-1)
                seen = seen.at[rows, chosen].set(True)
                context = jnp.concatenate([h[rows, chosen], h[rows, chosen]], axis=-1)
                tour.append(nnx.log_softmax(s))
            return jnp.stack(tour, axis=1)

    path = "layer/attn"
    # Debatable: a second key, of which the last scores are made.
    spans = [(1, ((0, D),), "key", "identity"), (1, ((D, 2 * D),), "value", "identity")]
    spans.append((1, ((2 * D, 3 * D),), ANY, "identity"))
    truth = {
        **dense("embed", 2, D),
        f"{path}/query/kernel": kernel(D, D, 0, (1, 2), part="query"),
        f"{path}/key/kernel": kernel(D, D, 0, (1, 2), part="key"),
        f"{path}/value/kernel": kernel(D, D, 0, (1, 2), part="value"),
        f"{path}/out/kernel": kernel(
            D, D, (0, 1), 2, part="attention output", residual=(0, 2)
        ),
        **norm("layer/bn1"),
        **dense("layer/up", D, F, function="relu"),
        **dense("layer/down", F, D, residual=(1, 2)),
        **norm("layer/bn2"),
        "nodes/kernel": kernel(D, 3 * D, sections=spans),
        "graph/kernel": kernel(D, D, part="query"),
        # The first step reads what is learned for all.
        "step/kernel": [either("kernel", "unknown")]
        + [kernel(2 * D, D, part="query")] * 2,
        # Debatable: what attention gives asks again.
        "out/kernel": [kernel(D, D, part=ANY, function=ANY)] * 3,
        "first": either("embedding", "unknown"),
    }
    return of_nnx(Net, [floats(B, T, 2)], truth)


@model
def adapters_merged() -> Model:
    """Liu et al. 2024 (DoRA) on queries, merged LoRA on values, prompts before all."""
    rank, prompts = 2, 3

    def attend(p, x):
        w = p["wq"] + 2.0 * p["q_a"] @ p["q_b"]
        q = x @ (p["q_m"] * w / jnp.linalg.norm(w, axis=0, keepdims=True))
        v = x @ (p["wv"] + (p["v_a"] @ p["v_b"]) * 2.0)
        q, k, v = (y.reshape(B, -1, HEADS, SIZE) for y in (q, x @ p["wk"], v))
        a = jax.nn.softmax(jnp.einsum("bqhd,bkhd->bhqk", q, k) / SIZE**0.5, axis=-1)
        return jnp.einsum("bhqk,bkhd->bqhd", a, v).reshape(x.shape) @ p["wo"]

    def apply(p, ids):
        x = p["embed"][ids]
        soft = jnp.tile(p["prompt"][None], (B, 1, 1))
        x = jnp.concatenate([soft, x], axis=1)
        x = x + attend(p["attn"], rms_norm(x, p["n1"]))
        h = rms_norm(x, p["n2"])
        x = x + (jax.nn.silu(h @ p["gate"]) * (h @ p["up"])) @ p["down"]
        return x[:, -1] @ p["score"]

    params = {
        "embed": floats(V, D),
        "prompt": floats(prompts, D),
        "n1": floats(D),
        "attn": {
            **{name: floats(D, D) for name in ("wq", "wk", "wv", "wo")},
            "q_a": floats(D, rank),
            "q_b": floats(rank, D),
            "q_m": floats(D),
            "v_a": floats(D, rank),
            "v_b": floats(rank, D),
        },
        "n2": floats(D),
        "gate": floats(D, F),
        "up": floats(D, F),
        "down": floats(F, D),
        "score": floats(D, O),
    }
    truth = {
        "embed": embedding(D),
        "prompt": token(D, 0, 1),
        "n1": scale(),
        # A norm of columns, of a sum with the product of two leaves.
        **{f"attn/{name}": unknown() for name in ("wq", "q_a", "q_b", "q_m")},
        # Debatable: a kernel to which a product of leaves is added.
        "attn/wv": either("kernel", "unknown"),
        "attn/v_a": unknown(),
        "attn/v_b": either("kernel", "unknown"),
        "attn/wk": kernel(D, D, part="key"),
        "attn/wo": kernel(D, D, part="attention output", residual=(0, 2)),
        "n2": scale(),
        "gate": kernel(D, F, function="silu", part="gate"),
        "up": kernel(D, F, part="up"),
        "down": kernel(F, D, residual=(1, 2)),
        "score": kernel(D, O, head=True),
    }
    return Model(apply, params, (integers(B, T),), truth)


@model
def scores_behind_slopes() -> Model:
    """Brody et al. 2022 (GATv2), Linen as jraph has it: edges with features."""
    from flax import linen as nn

    nodes, edges = 7, 11
    inner = HEADS * SIZE

    class Layer(nn.Module):
        @nn.compact
        def __call__(self, x, e, s, r):
            split = lambda y: y.reshape(-1, HEADS, SIZE)  # noqa: E731
            sent = split(nn.Dense(inner, name="sent")(x))[s]
            received = split(nn.Dense(inner, name="received")(x))[r]
            h = sent + received + split(nn.Dense(inner, False, name="edge")(e))
            a = self.param("attn", nn.initializers.glorot_uniform(), (HEADS, SIZE))
            logits = jnp.einsum("ehd,hd->eh", nn.leaky_relu(h, 0.2), a)
            logits = logits - jax.ops.segment_max(logits, r, nodes)[r]
            w = jnp.exp(logits)
            w = w / (jax.ops.segment_sum(w, r, nodes)[r] + 1e-9)
            y = jax.ops.segment_sum(w[..., None] * sent, r, nodes)
            return y.reshape(nodes, inner)

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x, e, s, r):
            x = nn.Dense(inner, name="embed")(x)
            for i in range(2):
                h = Layer(name=f"layer_{i}")(nn.LayerNorm(name=f"norm_{i}")(x), e, s, r)
                x = x + nn.elu(h)
            return nn.Dense(O, name="out")(x.mean(0))

    truth = {**dense("embed", N, inner), **dense("out", inner, O, head=True)}
    for i in range(2):
        path = f"layer_{i}"
        # Debatable: names of the parts of additive scores; what is sent is the value.
        open_ = {"function": ANY, "part": ANY, "residual": ANY}
        slope = {"function": "leaky_relu", "part": ANY}
        truth |= {
            **norm(f"norm_{i}"),
            f"{path}/sent/kernel": kernel(inner, inner, **open_),
            f"{path}/sent/bias": bias(f"{path}/sent/kernel", part=ANY),
            f"{path}/received/kernel": kernel(inner, inner, **slope),
            f"{path}/received/bias": bias(f"{path}/received/kernel", part=ANY),
            f"{path}/edge/kernel": kernel(3, inner, **slope),
            f"{path}/attn": kernel(
                SIZE, 1, 1, (), batch_axis=0, part=ANY, function=ANY
            ),
        }
    inputs = [floats(nodes, N), floats(edges, 3), integers(edges), integers(edges)]
    return of_linen(Net(), inputs, truth)


@model
def splines_of_halves() -> Model:
    """Durkan et al. 2019 (neural splines), Haiku: a half makes knots of the other."""
    import haiku as hk

    bins, half = 4, 3

    def spline(x, raw):
        w, h, d = jnp.split(raw, [bins, 2 * bins], axis=-1)
        w = 1e-3 + (1 - 1e-3 * bins) * jax.nn.softmax(w, axis=-1)
        h = 1e-3 + (1 - 1e-3 * bins) * jax.nn.softmax(h, axis=-1)
        d = 1e-3 + jax.nn.softplus(d)
        pad = [(0, 0)] * (w.ndim - 1) + [(1, 0)]
        xs, ys = (6 * jnp.pad(jnp.cumsum(s, -1), pad) - 3 for s in (w, h))
        i = jnp.clip((x[..., None] >= xs[..., :-1]).sum(-1) - 1, 0, bins - 1)
        take = lambda s: jnp.take_along_axis(s, i[..., None], -1)[..., 0]  # noqa: E731
        x0, y0, width, height = take(xs), take(ys), 6 * take(w), 6 * take(h)
        d0, d1, slope = take(d), take(d[..., 1:]), height / width
        t = jnp.clip((x - x0) / width, 0, 1)
        up = height * (slope * t**2 + d0 * t * (1 - t))
        down = slope + (d0 + d1 - 2 * slope) * t * (1 - t)
        top = slope**2 * (d1 * t**2 + 2 * slope * t * (1 - t) + d0 * (1 - t) ** 2)
        return y0 + up / down, jnp.log(top) - 2 * jnp.log(down)

    def fun(x):
        total = 0.0
        for i in range(2):
            a, b = jnp.split(x, 2, axis=-1)
            net = hk.nets.MLP([F, F], activate_final=True, name=f"net_{i}")
            raw = hk.Linear(half * (3 * bins + 1), name=f"knots_{i}")(net(a))
            b, change = spline(b, raw.reshape(*b.shape, -1))
            x, total = jnp.concatenate([b, a], axis=-1), total + change.sum(-1)
        return x, total - 0.5 * jnp.sum(x**2, axis=-1)

    truth = {}
    for i in range(2):
        # Debatable: widths, heights and slopes of a spline, each with its function.
        open_ = {"part": ANY, "sections": ANY, "multiplier": ANY}
        truth |= {
            **hk_linear(f"net_{i}/~/linear_0", half, F, function="relu"),
            **hk_linear(f"net_{i}/~/linear_1", F, F, function="relu"),
            f"knots_{i}/w": kernel(
                F, half * 13, function=ANY, head=i == 1, residual=ANY, **open_
            ),
            f"knots_{i}/b": bias(f"knots_{i}/w", residual=ANY, **open_),
        }
    return of_haiku(fun, [floats(B, 2 * half)], truth)
