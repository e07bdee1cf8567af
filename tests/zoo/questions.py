"""Networks that are asked: texts by words, images by sentences, pairs by points."""

import jax
import jax.numpy as jnp

from zoo.flax_layers import window
from zoo.haiku_models import linear as hk_linear
from zoo.haiku_models import of_haiku
from zoo.layers import affine, linear
from zoo.truths import (
    ANY,
    Model,
    bias,
    bias_cut,
    convolution,
    cut,
    dense,
    embedding,
    floats,
    integers,
    kernel,
    model,
    norm,
    position,
)

B, T, D, F, H, HEADS, SIZE, O, V = 2, 6, 12, 15, 10, 3, 4, 5, 17  # noqa: E741


@model
def latest_interactions() -> Model:
    """Khattab and Zaharia 2020 (ColBERT): the best match of each word of a question."""
    heads, size = 2, 5
    inner = heads * size

    def normed(p, x):
        x = x - jnp.mean(x, axis=-1, keepdims=True)
        x = x / jnp.sqrt(jnp.var(x, axis=-1, keepdims=True) + 1e-12)
        return p["gamma"] * x + p["beta"]

    def encode(p, ids):
        x = p["word"][ids] + p["place"][None, : ids.shape[1]]
        x = normed(p["ln_e"], x)
        split = lambda y: y.reshape(*ids.shape, heads, size)  # noqa: E731
        q, k, v = (split(linear(p[name], x)) for name in "qkv")
        s = jnp.einsum("bqhd,bkhd->bhqk", q, k) / jnp.sqrt(size)
        s = s + jnp.where(ids == 0, -1e9, 0.0)[:, None, None]
        y = jnp.einsum("bhqk,bkhd->bqhd", jax.nn.softmax(s), v)
        x = normed(p["ln_1"], x + linear(p["o"], y.reshape(*ids.shape, inner)))
        h = jax.nn.gelu(linear(p["up"], x), approximate=False)
        x = normed(p["ln_2"], x + linear(p["down"], h))
        y = x @ p["project"]
        return y / jnp.linalg.norm(y, axis=-1, keepdims=True)

    def apply(p, question, text):
        q, d = encode(p, question), encode(p, text)
        scores = jnp.einsum("bqd,btd->bqt", q, d)
        return jnp.sum(jnp.max(scores, axis=-1), axis=-1)

    vec = {"gamma": floats(H), "beta": floats(H)}
    params = {
        "word": floats(V, H),
        "place": floats(9, H),
        "ln_e": vec,
        **{name: affine(H, inner) for name in "qkv"},
        "o": affine(inner, H),
        "ln_1": vec,
        "up": affine(H, 14),
        "down": affine(14, H),
        "ln_2": vec,
        "project": floats(H, 4),
    }
    own = {
        "word": embedding(H),
        "place": position(),
        **dense("q", H, inner, part="query"),
        **dense("k", H, inner, part="key"),
        **dense("v", H, inner, part="value"),
        **dense("o", inner, H, part="attention output", residual=(0, 2)),
        **dense("up", H, 14, function="gelu"),
        **dense("down", 14, H, residual=(1, 2)),
        # Both encoders are contracted with each other.
        "project": kernel(H, 4),
    }
    for name in ("ln_e", "ln_1", "ln_2"):
        own |= norm(name, "gamma", "beta")
    truth = {path: [use] * 2 for path, use in own.items()}
    return Model(apply, params, (integers(B, T), integers(B, 7)), truth)


@model
def asked_features() -> Model:
    """Perez et al. 2018 (FiLM), Haiku: a GRU's last state shifts and scales maps."""
    import haiku as hk

    c, h, blocks = 6, 9, 2
    order = ("update gate", "reset gate", "candidate")

    def fun(image, words):
        x = hk.Embed(17, D, name="word")(words)
        core = hk.GRU(h, name="gru")
        _, q = hk.dynamic_unroll(core, x.swapaxes(0, 1), core.initial_state(B))
        film = hk.Linear(blocks * 2 * c, name="film")(q).reshape(B, blocks, 2, 1, 1, c)
        x = jax.nn.relu(hk.Conv2D(c, 3, name="stem")(image))
        rows = jnp.linspace(-1, 1, x.shape[1])
        grid = jnp.stack(jnp.meshgrid(rows, rows, indexing="ij"), axis=-1)
        grid = jnp.broadcast_to(grid, (*x.shape[:3], 2))
        for i in range(blocks):
            y = jnp.concatenate([x, grid], axis=-1)
            x = jax.nn.relu(hk.Conv2D(c, 1, name=f"in_{i}")(y))
            y = hk.Conv2D(c, 3, with_bias=False, name=f"conv_{i}")(x)
            y = hk.BatchNorm(False, False, 0.9, name=f"bn_{i}")(y, True)
            x = x + jax.nn.relu((1 + film[:, i, 0]) * y + film[:, i, 1])
        x = hk.Conv2D(8, 1, name="last")(x)
        x = jax.nn.relu(x).max((1, 2))
        return hk.Linear(O, name="out")(jax.nn.relu(hk.Linear(F, name="fc")(x)))

    names = ("w", "b")
    plain = cut(1, h, order)
    loop, last = {"recurrent": True}, {"part": "candidate"}
    both = ["gru/w_h", "gru/w_i"]
    truth = {
        "word/embeddings": embedding(D),
        "gru/w_i": kernel(D, 3 * h, function=ANY, sections=plain),
        # Each use has its slice, and the fans of the slice.
        "gru/w_h": [
            kernel(h, 2 * h, function="sigmoid", sections=plain[:2], **loop),
            kernel(h, h, function="tanh", sections=plain[2:], **last, **loop),
        ],
        "gru/b": [
            bias(both, sections=bias_cut(h, order)[:2]),
            bias(both, sections=bias_cut(h, order)[2:], **last),
        ],
        # Debatable: what multiplies and what is added within a branch.
        "film/w": kernel(
            h, blocks * 2 * c, function=ANY, residual=ANY, part=ANY, sections=ANY
        ),
        "film/b": bias("film/w", part=ANY, sections=ANY),
        **window("stem", 27, 9 * c, names, function="relu"),
        **window("last", c, 8, names, function="relu"),
        **hk_linear("fc", 8, F, function="relu"),
        **hk_linear("out", F, O, head=True),
    }
    for i in range(blocks):
        truth |= window(f"in_{i}", c + 2, c, names, function="relu")
        # Debatable: each block begins a stream anew, and a relu ends the branch.
        truth[f"conv_{i}/w"] = convolution(9 * c, 9 * c, residual=ANY, part=ANY)
    return of_haiku(fun, [floats(B, 8, 8, 3), integers(B, 7)], truth)


@model
def asked_contexts() -> Model:
    """Kim et al. 2019 (attentive neural processes): points ask pairs; a latent."""

    def mlp(layers, x):
        *first, last = layers
        for p in first:
            x = jax.nn.relu(linear(p, x))
        return linear(last, x)

    def apply(p, xs, ys, x, noise):
        pairs = jnp.concatenate([xs, ys], axis=-1)
        s = jax.nn.relu(linear(p["penultimate"], mlp(p["latent"], pairs).mean(1)))
        mu, raw = linear(p["mean"], s), linear(p["std"], s)
        z = mu + (0.1 + 0.9 * jax.nn.sigmoid(raw)) * noise
        r = mlp(p["deterministic"], pairs)
        k, q = mlp(p["embed"], xs), mlp(p["embed"], x)
        q = jnp.einsum("btd,dhk->bhtk", q, p["wq"])
        k = jnp.einsum("btd,dhk->bhtk", k, p["wk"])
        v = jnp.einsum("btd,dhk->bhtk", r, p["wv"])
        a = jax.nn.softmax(jnp.einsum("bhqk,bhsk->bhqs", q, k) / jnp.sqrt(SIZE))
        r = jnp.einsum("bhqs,bhsk,hkd->bqd", a, v, p["wo"])
        z = jnp.tile(z[:, None], (1, x.shape[1], 1))
        y = mlp(p["decoder"], jnp.concatenate([r, z, x], axis=-1))
        m, raw = jnp.split(y, 2, axis=-1)
        return m, 0.1 + 0.9 * jax.nn.softplus(raw)

    heads = floats(D, HEADS, SIZE)
    params = {
        "latent": [affine(3, F), affine(F, D)],
        "penultimate": affine(D, D),
        "mean": affine(D, 7),
        "std": affine(D, 7),
        "deterministic": [affine(3, F), affine(F, D)],
        "embed": [affine(2, F), affine(F, D)],
        "wq": heads,
        "wk": heads,
        "wv": heads,
        "wo": floats(HEADS, SIZE, D),
        "decoder": [affine(D + 7 + 2, F), affine(F, 2)],
    }
    inner = HEADS * SIZE
    spread = {"function": ANY, "residual": ANY, "multiplier": ANY}
    # Debatable: 0.9 times a softplus is named, or the softplus.
    halves = [(1, ((0, 1),), None, "identity"), (1, ((1, 2),), None, ANY)]
    twice = {
        **dense("embed/0", 2, F, function="relu"),
        **dense("embed/1", F, D),
    }
    truth = {
        **dense("latent/0", 3, F, function="relu"),
        # A mean lies between it and the next.
        **dense("latent/1", F, D),
        **dense("penultimate", D, D, function="relu"),
        # Debatable: a mean, and a width that noise multiplies.
        "mean/kernel": kernel(D, 7, part=ANY, **spread),
        "mean/bias": bias("mean/kernel", part=ANY, multiplier=ANY),
        "std/kernel": kernel(D, 7, part=ANY, **spread),
        "std/bias": bias("std/kernel", part=ANY, multiplier=ANY),
        **dense("deterministic/0", 3, F, function="relu"),
        **dense("deterministic/1", F, D),
        **{path: [use] * 2 for path, use in twice.items()},
        "wq": kernel(D, inner, 0, (1, 2), part="query"),
        "wk": kernel(D, inner, 0, (1, 2), part="key"),
        "wv": kernel(D, inner, 0, (1, 2), part="value"),
        "wo": kernel(inner, D, (0, 1), 2, part="attention output"),
        **dense("decoder/0", D + 9, F, function="relu"),
        "decoder/1/kernel": kernel(F, 2, function=ANY, head=True, sections=halves),
        "decoder/1/bias": bias("decoder/1/kernel", sections=ANY, multiplier=ANY),
    }
    inputs = (floats(B, T, 2), floats(B, T, 1), floats(B, 4, 2), floats(B, 7))
    return Model(apply, params, inputs, truth)
