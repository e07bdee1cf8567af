"""Plain functions: states that are read, pointed at and decoded."""

import jax
import jax.numpy as jnp

from zoo.layers import affine, linear, over_time
from zoo.truths import (
    ANY,
    Model,
    Use,
    bias,
    dense,
    embedding,
    floats,
    integers,
    kernel,
    model,
    one_of,
)

B, T, N, H, O = 2, 5, 7, 9, 4  # noqa: E741
sig = jax.nn.sigmoid


@model
def translator_with_general_scores() -> Model:
    """Luong et al. 2015: two tanh networks; the decoder's state asks the encoder's."""

    def apply(p, source, target):
        def rnn(q):
            def step(h, x):
                h = jnp.tanh(x @ q["w"] + h @ q["u"] + q["b"])
                return h, h

            return step

        last, hs = over_time(rnn(p["enc"]), jnp.zeros((B, H)), p["src"][source])
        _, ht = over_time(rnn(p["dec"]), last, p["tgt"][target])
        a = jax.nn.softmax(jnp.einsum("btd,bsd->bts", ht @ p["wa"], hs))
        c = jnp.einsum("bts,bsd->btd", a, hs)
        h = jnp.tanh(jnp.concatenate([c, ht], -1) @ p["wc"])
        return h @ p["ws"]

    cell = {"w": floats(N, H), "u": floats(H, H), "b": floats(H)}
    params = {
        "src": floats(19, N), "tgt": floats(17, N), "enc": cell, "dec": cell,
        "wa": floats(H, H), "wc": floats(2 * H, 11), "ws": floats(11, 17),
    }  # fmt: skip
    truth = {
        "src": embedding(N),
        "tgt": embedding(N),
        # Debatable: the query, if states are keys; the first behind the sum.
        "wa": kernel(H, H, part=ANY),
        "wc": kernel(2 * H, 11, function="tanh", part=ANY, sections=ANY),
        "ws": kernel(11, 17, head=True),
    }
    for name in ("enc", "dec"):
        # Debatable: an encoder's state is key and value, a decoder's is asked with.
        truth[f"{name}/w"] = kernel(N, H, function="tanh", part=ANY)
        truth[f"{name}/u"] = kernel(H, H, function="tanh", part=ANY, recurrent=True)
        truth[f"{name}/b"] = bias([f"{name}/w", f"{name}/u"], part=ANY)
    return Model(apply, params, (integers(B, T), integers(B, 4)), truth)


@model
def pointer_scores() -> Model:
    """Vinyals et al. 2015: a vector reads a tanh of two sums, and points."""

    def apply(p, points, query):
        e = jax.nn.relu(linear(p["point"], points))
        d = jax.nn.relu(linear(p["query"], query))
        u = jnp.tanh(e @ p["w1"] + (d @ p["w2"])[:, None])
        return jax.nn.log_softmax(u @ p["v"])

    params = {
        "point": affine(2, H),
        "query": affine(N, H),
        "w1": floats(H, 8),
        "w2": floats(H, 8),
        "v": floats(8),
    }
    truth = {
        **dense("point", 2, H, function="relu"),
        **dense("query", N, H, function="relu"),
        "w1": kernel(H, 8, function="tanh"),
        "w2": kernel(H, 8, function="tanh"),
        "v": kernel(8, 1, 0, (), head=True),
    }
    return Model(apply, params, (floats(B, T, 2), floats(B, N)), truth)


@model
def turing_machine() -> Model:
    """Graves et al. 2014, small: one head reads by content, erases and adds."""
    rows, width = 6, 5

    def apply(p, x):
        def unit(t):
            return t / (jnp.linalg.norm(t, axis=-1, keepdims=True) + 1e-6)

        def step(carry, x):
            memory, read = carry
            h = jnp.tanh(linear(p["controller"], jnp.concatenate([x, read], -1)))
            key = jnp.tanh(linear(p["key"], h))
            beta = jax.nn.softplus(linear(p["beta"], h))
            like = jnp.einsum("bnm,bm->bn", unit(memory), unit(key))
            w = jax.nn.softmax(beta * like)
            erase, add = sig(linear(p["erase"], h)), jnp.tanh(linear(p["add"], h))
            memory = memory * (1 - w[..., None] * erase[:, None])
            memory = memory + w[..., None] * add[:, None]
            read = jnp.einsum("bn,bnm->bm", w, memory)
            return (memory, read), linear(p["out"], jnp.concatenate([h, read], -1))

        start = jnp.broadcast_to(p["memory"], (B, rows, width)), jnp.zeros((B, width))
        return over_time(step, start, x)[1]

    params = {
        "controller": affine(N + width, H),
        "key": affine(H, width),
        "beta": affine(H, 1),
        "erase": affine(H, width),
        "add": affine(H, width),
        "out": affine(H + width, O),
        "memory": floats(rows, width),
    }
    # Debatable: which of a cell's parts a machine has.
    loose = {"recurrent": True, "part": ANY, "multiplier": ANY}

    def both(path, i, o, function, **rest):
        own = loose | rest
        weight = kernel(i, o, function=function, **own)
        offset = bias(f"{path}/kernel", 0 if o > 1 else (), part=ANY, multiplier=ANY)
        return {f"{path}/kernel": weight, f"{path}/bias": offset}

    truth = {
        **both("controller", N + width, H, "tanh", sections=ANY),
        **both("key", H, width, "tanh"),
        **both("beta", H, 1, "softplus"),
        **both("erase", H, width, "sigmoid"),
        **both("add", H, width, "tanh"),
        **both(
            "out", H + width, O, "identity", recurrent=False, head=True, sections=ANY
        ),
        # Debatable: a state that is learned, where activations begin.
        "memory": Use(
            one_of("embedding", "bias", "position"),
            ANY,
            ANY,
            fan_in=ANY,
            fan_out=ANY,
            part=ANY,
            of=ANY,
        ),
    }
    return Model(apply, params, (floats(B, T, N),), truth)


@model
def random_field_tagger() -> Model:
    """Lample et al. 2016: two directions, and a linear chain's log-partition."""
    tags = 6

    def apply(p, tokens):
        x = p["word"][tokens]

        def cell(q):
            return lambda h, x: (jnp.tanh(x @ q["w"] + h @ q["u"]),) * 2

        _, fw = over_time(cell(p["fw"]), jnp.zeros((B, H)), x)
        _, bw = over_time(cell(p["bw"]), jnp.zeros((B, H)), x[:, ::-1])
        h = jnp.concatenate([fw, bw[:, ::-1]], axis=-1)
        emit = jnp.moveaxis(linear(p["emit"], h), 1, 0)

        def forward(alpha, e):
            scores = alpha[:, :, None] + p["trans"] + e[:, None, :]
            return jax.nn.logsumexp(scores, axis=1), None

        alpha, _ = jax.lax.scan(forward, emit[0] + p["first"], emit[1:])
        return jax.nn.logsumexp(alpha + p["last"], axis=-1)

    cell = {"w": floats(N, H), "u": floats(H, H)}
    params = {
        "word": floats(21, N), "fw": cell, "bw": cell, "emit": affine(2 * H, tags),
        "trans": floats(tags, tags), "first": floats(tags), "last": floats(tags),
    }  # fmt: skip
    truth = {
        "word": embedding(N),
        **dense("emit", 2 * H, tags, head=True),
        # Debatable: scores that are added to scores.
        "trans": Use(
            one_of("bias", "position"), ANY, ANY, of=ANY, recurrent=ANY, part=ANY
        ),
        "first": bias("emit/kernel"),
        "last": bias(ANY),
    }
    for name in ("fw", "bw"):
        truth[f"{name}/w"] = kernel(N, H, function="tanh")
        truth[f"{name}/u"] = kernel(H, H, function="tanh", recurrent=True)
    return Model(apply, params, (integers(B, T),), truth)
