"""Columns, series, fields and sounds, as open code bases have them."""

import jax
import jax.numpy as jnp

from zoo.flax_layers import lstm, of_linen
from zoo.truths import (
    ANY,
    Model,
    bias,
    dense,
    either,
    embedding,
    every,
    floats,
    integers,
    kernel,
    model,
    norm,
    one_of,
    rms_norm,
    scale,
)

B, T, D, F, HEADS, SIZE, V, O = 2, 6, 12, 15, 3, 4, 19, 5  # noqa: E741
INNER = HEADS * SIZE


def affine(a, b):
    return {"w": floats(a, b), "b": floats(b)}


def linear(p, x):
    return x @ p["w"] + p["b"]


@model
def crosses_of_low_rank() -> Model:
    """Wang et al. 2021 (DCN-Mix): crosses by experts of low rank, beside a deep net."""
    fields, size, numbers, rank, experts, layers = 4, 3, 5, 4, 3, 2
    n = fields * size + numbers

    def apply(p, codes, x):
        rows = [p["tables"][i][codes[:, i]] for i in range(fields)]
        x0 = x = jnp.concatenate([*rows, jnp.log1p(jnp.abs(x))], axis=-1)
        for q in p["cross"]:
            gates = jax.nn.softmax(x @ p["gate"], axis=-1)
            v = jnp.tanh(jnp.einsum("bi,eir->ber", x, q["V"]))
            v = jnp.tanh(jnp.einsum("ber,ers->bes", v, q["C"]))
            u = jnp.einsum("bes,esi->bei", v, q["U"]) + q["bias"]
            x = x + jnp.einsum("bei,be->bi", x0[:, None] * u, gates)
        h = x0
        for q in p["deep"]:
            h = jax.nn.relu(linear(q, h))
        logit = linear(p["final"], jnp.concatenate([x, h], axis=-1))
        return jax.nn.sigmoid(logit[:, 0])

    cross = {
        "V": floats(experts, n, rank), "C": floats(experts, rank, rank),
        "U": floats(experts, rank, n), "bias": floats(n),
    }  # fmt: skip
    params = {
        "tables": [floats(V, size)] * fields, "gate": floats(n, experts),
        "cross": [cross] * layers, "deep": [affine(n, F), affine(F, 10)],
        "final": affine(n + 10, 1),
    }  # fmt: skip
    each = {"batch_axis": 0}
    own = {
        "V": kernel(n, rank, 1, 2, "tanh", **each),
        "C": kernel(rank, rank, 1, 2, "tanh", **each),
        # Debatable: the other factor is the input.
        "U": kernel(
            rank, n, 1, 2, residual=ANY, part=ANY, multiplier=ANY, **each
        ),
        "bias": bias("U", part=ANY, multiplier=ANY),
    }  # fmt: skip
    truth = {
        **{f"tables/{i}": embedding(size) for i in range(fields)},
        # Debatable: it weighs what all experts give.
        "gate": [kernel(n, experts, function=ANY, part=ANY)] * layers,
        **every("cross/{}/", layers, own),
        **dense("deep/0", n, F, "w", "b", function="relu"),
        **dense("deep/1", F, 10, "w", "b", function="relu"),
        **dense("final", n + 10, 1, "w", "b", function="sigmoid", head=True),
    }
    return Model(apply, params, (integers(B, fields), floats(B, numbers)), truth)


@model
def tasks_with_own_experts() -> Model:
    """Tang et al. 2020 (PLE), Linen: experts of each task beside shared ones, twice."""
    from flax import linen as nn

    tasks, wide = ("click", "stay"), 8

    def expert(x, name):
        return nn.relu(nn.Dense(wide, name=name)(x))

    class Net(nn.Module):
        @nn.compact
        def __call__(self, codes, numbers):
            rows = nn.Embed(V, 4, name="table")(codes).reshape(B, -1)
            x = jnp.concatenate([rows, numbers], axis=-1)
            own = dict.fromkeys((*tasks, "shared"), x)
            for level in range(2):
                made, new = {}, {}
                for t, h in own.items():
                    made[t] = [expert(h, f"l{level}_{t}_{i}") for i in range(2)]
                for t, h in own.items():
                    if t == "shared" and level == 1:
                        continue
                    found = made[t] + (made["shared"] if t != "shared" else [])
                    if t == "shared":
                        found = [y for ys in made.values() for y in ys]
                    gate = nn.Dense(len(found), use_bias=False, name=f"l{level}_{t}_g")
                    gate = nn.softmax(gate(h))
                    stacked = jnp.stack(found, axis=1)
                    new[t] = (gate[..., None] * stacked).sum(axis=1)
                own = new
            out = []
            for t in tasks:
                h = nn.relu(nn.Dense(6, name=f"tower_{t}_0")(own[t]))
                out.append(nn.Dense(1, name=f"tower_{t}_1")(h)[:, 0])
            return nn.sigmoid(out[0]), out[1]

    n = 3 * 4 + 2
    truth = {"table/embedding": embedding(4)}
    for level, a in ((0, n), (1, wide)):
        for t in (*tasks, "shared"):
            for i in range(2):
                truth |= dense(f"l{level}_{t}_{i}", a, wide, function="relu")
            if t != "shared" or level == 0:
                count = 6 if t == "shared" else 4
                truth[f"l{level}_{t}_g/kernel"] = kernel(
                    a, count, function=ANY, part=ANY
                )
    for t in tasks:
        function = "sigmoid" if t == "click" else "identity"
        truth |= dense(f"tower_{t}_0", wide, 6, function="relu")
        truth |= dense(f"tower_{t}_1", 6, 1, function=function, head=True)
    return of_linen(Net(), [integers(B, 3), floats(B, 2)], truth)


@model
def planes_of_scenes() -> Model:
    """Fridovich-Keil et al. 2023 (K-Planes): features of three planes are multiplied.

    Each is interpolated at its four corners; rays are summed by their transmittance.
    """
    side, features, points = 5, 6, 8

    def corner(plane, i, j):
        return plane[jnp.clip(i, 0, side - 1), jnp.clip(j, 0, side - 1)]

    def sampled(plane, xy):
        xy = (xy + 1) / 2 * (side - 1)
        low = jnp.floor(xy)
        f, i = xy - low, low.astype(jnp.int32)
        a, b = f[..., :1], f[..., 1:]
        y = corner(plane, i[..., 0], i[..., 1]) * (1 - a) * (1 - b)
        y = y + corner(plane, i[..., 0] + 1, i[..., 1]) * a * (1 - b)
        y = y + corner(plane, i[..., 0], i[..., 1] + 1) * (1 - a) * b
        return y + corner(plane, i[..., 0] + 1, i[..., 1] + 1) * a * b

    def apply(p, origins, directions, depths):
        x = origins[:, None] + directions[:, None] * depths[..., None]
        x = jnp.tanh(x)
        h = 1.0
        for plane, axes in zip(p["planes"], ((0, 1), (0, 2), (1, 2)), strict=True):
            h = h * sampled(plane, x[..., jnp.array(axes)])
        h = linear(p["sigma_1"], jax.nn.relu(linear(p["sigma_0"], h)))
        density = jnp.exp(h[..., 0] - 1)
        seen = jnp.broadcast_to(directions[:, None], x.shape)
        y = jnp.concatenate([h[..., 1:], seen], axis=-1)
        y = jax.nn.relu(linear(p["color_0"], y))
        color = jax.nn.sigmoid(linear(p["color_1"], y))
        gaps = jnp.diff(depths, axis=-1, append=depths[:, -1:] + 1.0)
        alpha = 1 - jnp.exp(-density * gaps)
        left = jnp.cumprod(1 - alpha + 1e-10, axis=-1)
        weights = alpha * jnp.concatenate([jnp.ones((B, 1)), left[:, :-1]], axis=-1)
        return (weights[..., None] * color).sum(1)

    params = {
        "planes": [floats(side, side, features)] * 3,
        "sigma_0": affine(features, F), "sigma_1": affine(F, 1 + 7),
        "color_0": affine(7 + 3, F), "color_1": affine(F, 3),
    }  # fmt: skip
    row = embedding(features, (0, 1), 2, multiplier=ANY, part=ANY)
    truth = {
        **{f"planes/{i}": [row] * 4 for i in range(3)},
        **dense("sigma_0", features, F, "w", "b", function="relu"),
        # Debatable: one of its outputs is an exponent, the others are read again.
        **dense("sigma_1", F, 8, "w", "b", function=ANY, head=ANY),
        **dense("color_0", 10, F, "w", "b", function="relu"),
        **dense("color_1", F, 3, "w", "b", function="sigmoid", head=True),
    }
    truth["sigma_1/w"] = kernel(F, 8, function=ANY, head=ANY, sections=ANY, part=ANY)
    truth["sigma_1/b"] = bias("sigma_1/w", sections=ANY, part=ANY)
    inputs = (floats(B, 3), floats(B, 3), floats(B, points))
    return Model(apply, params, inputs, truth)


@model
def forecasts_in_patches() -> Model:
    """Das et al. 2024 (TimesFM): patches and their padding, residual blocks, quantiles.

    Scales of each feature of queries; a series is standardized by its first patch.
    """
    patch, out, quantiles, layers = 4, 5, 3, 2

    def residual(p, x):
        h = jax.nn.silu(linear(p["hidden"], x))
        return linear(p["output"], h) + linear(p["skip"], x)

    def block(p, x, padding):
        h = rms_norm(x, p["ln"])
        q, k, v = jnp.split(linear(p["qkv"], h), 3, axis=-1)
        q, k, v = (y.reshape(B, T, HEADS, SIZE) for y in (q, k, v))
        q = q * (1.442695041 / SIZE**0.5 * jax.nn.softplus(p["scaling"]))
        s = jnp.einsum("bqhd,bkhd->bhqk", q, k)
        seen = jnp.tril(jnp.ones((T, T), bool))[None] & (padding < 0.5)[:, None]
        a = jax.nn.softmax(jnp.where(seen[:, None], s, -1e9), axis=-1)
        y = jnp.einsum("bhqk,bkhd->bqhd", a, v).reshape(B, T, INNER)
        x = x + linear(p["o"], y)
        h = (x - x.mean(-1, keepdims=True)) / jnp.sqrt(x.var(-1, keepdims=True) + 1e-6)
        h = h * p["mlp_ln"]["scale"] + p["mlp_ln"]["bias"]
        h = jax.nn.relu(linear(p["gate_proj"], h))
        y = linear(p["down_proj"], h) * (1 - padding[..., None])
        return x + y

    def apply(p, series, padding, frequency):
        x = series.reshape(B, T, patch)
        pads = padding.reshape(B, T, patch)
        first = x[:, :1]
        mu, sd = first.mean(-1, keepdims=True), first.std(-1, keepdims=True)
        x = (x - mu) / (sd + 1e-6) * (1 - pads)
        x = residual(p["input"], jnp.concatenate([x, pads], axis=-1))
        position = jnp.arange(T)[:, None] / 1e4 ** (jnp.arange(D // 2) / (D // 2))
        x = x + jnp.concatenate([jnp.sin(position), jnp.cos(position)], axis=-1)
        x = x + p["frequency"][frequency][:, None]
        for q in p["layers"]:
            x = block(q, x, pads.min(-1))
        y = residual(p["horizon"], x).reshape(B, T, out, quantiles)
        return y * sd[..., None] + mu[..., None]

    def three(a, b):
        return {"hidden": affine(a, F), "output": affine(F, b), "skip": affine(a, b)}

    layer = {
        "ln": floats(D), "qkv": affine(D, 3 * INNER), "scaling": floats(SIZE),
        "o": affine(INNER, D), "mlp_ln": {"scale": floats(D), "bias": floats(D)},
        "gate_proj": affine(D, F), "down_proj": affine(F, D),
    }  # fmt: skip
    params = {
        "input": three(2 * patch, D), "frequency": floats(3, D),
        "layers": [layer] * layers, "horizon": three(D, out * quantiles),
    }  # fmt: skip
    order = ("query", "key", "value")
    spans = [((i * INNER, (i + 1) * INNER),) for i in range(3)]
    own = {
        "ln": scale(), **norm("mlp_ln"),
        # Debatable: the scale of queries alone.
        "qkv/w": kernel(
            D, 3 * INNER, multiplier=ANY,
            sections=[
                (1, s, n, "identity") for s, n in zip(spans, order, strict=True)
            ],
        ),
        "qkv/b": bias(
            "qkv/w", multiplier=ANY,
            sections=[(0, s, n, None) for s, n in zip(spans, order, strict=True)],
        ),
        # A function of a leaf.
        "scaling": either("unknown", "scale", "gate"),
        **dense(
            "o", INNER, D, "w", "b", part="attention output",
            residual=one_of((1, 5), (3, 5)),
        ),
        **dense("gate_proj", D, F, "w", "b", function="relu"),
        **dense("down_proj", F, D, "w", "b", residual=one_of((2, 5), (4, 5))),
    }  # fmt: skip
    truth = {"frequency": embedding(D), **every("layers/{}/", layers, own)}
    for name, a, b in (("input", 2 * patch, D), ("horizon", D, out * quantiles)):
        head = name == "horizon"
        # Debatable: a kernel beside a net of two is its shortcut.
        truth |= {
            **dense(f"{name}/hidden", a, F, "w", "b", function="silu"),
            **dense(f"{name}/output", F, b, "w", "b", residual=ANY, head=head),
            **dense(f"{name}/skip", a, b, "w", "b", residual=ANY, head=head),
        }
        truth[f"{name}/skip/b"] = bias(ANY)
        truth[f"{name}/output/b"] = bias(ANY)
    inputs = (floats(B, T * patch), floats(B, T * patch), integers(B))
    return Model(apply, params, inputs, truth)


@model
def words_on_a_lattice() -> Model:
    """Graves 2012 (RNN transducers), Linen: sounds and words meet at every pair.

    Steps are halved in time by stacking; the loss sums over all paths.
    """
    from flax import linen as nn

    steps, words = 8, 4

    class Net(nn.Module):
        @nn.compact
        def __call__(self, sounds, labels):
            x = nn.RNN(nn.OptimizedLSTMCell(D, name="enc_0"), name="rnn_0")(sounds)
            x = nn.LayerNorm(name="ln_0")(x).reshape(B, steps // 2, 2 * D)
            x = nn.RNN(nn.OptimizedLSTMCell(D, name="enc_1"), name="rnn_1")(x)
            x = nn.Dense(F, name="enc_proj")(nn.LayerNorm(name="ln_1")(x))
            y = jnp.pad(labels, ((0, 0), (1, 0)))
            y = nn.Embed(V, 8, name="embed")(y)
            y = nn.RNN(nn.OptimizedLSTMCell(D, name="pred_0"), name="rnn_2")(y)
            y = nn.Dense(F, use_bias=False, name="pred_proj")(y)
            z = nn.tanh(x[:, :, None] + y[:, None])
            logits = nn.log_softmax(nn.Dense(V, name="joint")(z))
            blank = logits[..., 0]
            own = jnp.broadcast_to(labels[:, None, :, None], (B, steps // 2, words, 1))
            emit = jnp.take_along_axis(logits[:, :, :-1], own, axis=-1)[..., 0]

            def row(alpha, now):
                blank, emit = now
                stay = alpha + blank

                def along(left, both):
                    stay, emit = both
                    new = jnp.logaddexp(stay, left + emit)
                    return new, new

                _, rest = jax.lax.scan(along, stay[:, 0], (stay[:, 1:].T, emit.T))
                return jnp.concatenate([stay[:, :1], rest.T], axis=1), None

            first = jnp.concatenate(
                [jnp.zeros((B, 1)), jnp.cumsum(emit[:, 0], axis=-1)], axis=1
            )
            now = (blank[:, :-1].swapaxes(0, 1), emit[:, 1:].swapaxes(0, 1))
            last, _ = jax.lax.scan(row, first, now)
            return -(last[:, -1] + blank[:, -1, -1])

    truth = {
        **lstm("enc_0", 7, D), **norm("ln_0"),
        **lstm("enc_1", 2 * D, D), **norm("ln_1"),
        # Their sum is before the function.
        **dense("enc_proj", D, F, function="tanh"),
        "embed/embedding": embedding(8), **lstm("pred_0", 8, D),
        "pred_proj/kernel": kernel(D, F, function="tanh"),
        **dense("joint", F, V, head=True),
    }  # fmt: skip
    # Debatable: the bias is added to one of two kernels that are summed.
    truth["enc_proj/bias"] = bias(ANY)
    return of_linen(Net(), [floats(B, steps, 7), integers(B, words)], truth)
