"""By hand: one flat vector, translations with their loss, words that are copied."""

import jax
import jax.numpy as jnp

from zoo.truths import (
    ANY,
    Model,
    Use,
    bias,
    bias_cut,
    cut,
    dense,
    embedding,
    every,
    floats,
    integers,
    kernel,
    model,
    norm,
    one_of,
    position,
    scale,
    unknown,
)

B, T, D, F, HEADS, SIZE, V, H = 2, 6, 12, 15, 3, 4, 19, 10
INNER = HEADS * SIZE
ORDER = ("query", "key", "value")


@model
def one_flat_vector() -> Model:
    """All weights in one vector that is cut and reshaped; a learned slope, a number."""
    shapes = [(7, F), (F,), (F, 3), (3,)]

    def apply(p, x):
        parts, at = [], 0
        for shape in shapes:
            size = 1
            for n in shape:
                size *= n
            parts.append(p["theta"][at : at + size].reshape(shape))
            at += size
        w1, b1, w2, b2 = parts
        h = jnp.tanh(x @ w1 + b1)
        return (h @ w2 + b2) * p["gain"]

    params = {"theta": floats(7 * F + F + F * 3 + 3), "gain": floats()}
    truth = {
        "theta": unknown(),
        "gain": scale(()),
    }
    return Model(apply, params, (floats(B, 7),), truth)


@model
def translations() -> Model:
    """Vaswani et al. 2017 with its loss: one table for all three, fused projections.

    Losses are of smoothed labels; places are looked up in a table for both sides.
    """

    def ln(x, p):
        return p["scale"] * jax.nn.standardize(x, axis=-1, epsilon=1e-6) + p["bias"]

    def split(x):
        return x.reshape(*x.shape[:2], HEADS, SIZE).transpose(0, 2, 1, 3)

    def attend(q, k, v, mask):
        s = jnp.einsum("...qd,...kd->...qk", q, k) * SIZE**-0.5
        a = jax.nn.softmax(s + (1.0 - mask) * -1e9, axis=-1)
        y = jnp.einsum("...qk,...kd->...qd", a, v)
        return y.transpose(0, 2, 1, 3).reshape(q.shape[0], -1, INNER)

    def own(p, x, mask):
        q, k, v = jnp.split(x @ p["qkv"] + p["qkv_b"], 3, axis=-1)
        return attend(split(q), split(k), split(v), mask) @ p["out"]

    def cross(p, x, memory, mask):
        k, v = jnp.split(memory @ p["kv"], [INNER], axis=2)
        return attend(split(x @ p["q"]), split(k), split(v), mask) @ p["out"]

    def mlp(p, x):
        return jax.nn.relu(x @ p["w1"] + p["b1"]) @ p["w2"] + p["b2"]

    def apply(p, source, target):
        def embed(ids):
            return p["shared"][ids] * D**0.5 + p["places"][: ids.shape[1]]

        seen = (source > 0).astype(jnp.float32)[:, None, None]
        m = embed(source)
        for q in p["encoder"]:
            m = ln(m + own(q["self"], m, seen), q["n1"])
            m = ln(m + mlp(q["mlp"], m), q["n2"])
        x = embed(target[:, :-1])
        before = jnp.tril(jnp.ones((x.shape[1], x.shape[1])))
        for q in p["decoder"]:
            x = ln(x + own(q["self"], x, before), q["n1"])
            x = ln(x + cross(q["cross"], x, m, seen), q["n2"])
            x = ln(x + mlp(q["mlp"], x), q["n3"])
        logits = jnp.einsum("btd,vd->btv", x, p["shared"])
        soft = 0.9 * jax.nn.one_hot(target[:, 1:], V) + 0.1 / V
        loss = -(soft * jax.nn.log_softmax(logits)).sum(-1)
        weights = (target[:, 1:] > 0).astype(loss.dtype)
        return (loss * weights).sum() / weights.sum()

    ln_ = {"scale": floats(D), "bias": floats(D)}
    self_ = {"qkv": floats(D, 3 * INNER), "qkv_b": floats(3 * INNER)}
    self_["out"] = floats(INNER, D)
    cross_ = {"q": floats(D, INNER), "kv": floats(D, 2 * INNER)}
    cross_["out"] = floats(INNER, D)
    mlp_ = {"w1": floats(D, F), "b1": floats(F), "w2": floats(F, D), "b2": floats(D)}
    enc = {"self": self_, "mlp": mlp_, "n1": ln_, "n2": ln_}
    params = {
        "shared": floats(V, D), "places": floats(9, D), "encoder": [enc] * 2,
        "decoder": [enc | {"cross": cross_, "n3": ln_}] * 2,
    }  # fmt: skip

    def attention(path, first):
        own = {"part": "attention output", "residual": first}
        return {
            f"{path}/qkv": kernel(D, 3 * INNER, sections=cut(1, INNER, ORDER)),
            f"{path}/qkv_b": bias(f"{path}/qkv", sections=bias_cut(INNER, ORDER)),
            f"{path}/out": kernel(INNER, D, **own),
        }

    def feed(i, total):
        return {
            "mlp/w1": kernel(D, F, function="relu"),
            "mlp/b1": bias("mlp/w1"),
            "mlp/w2": kernel(F, D, residual=(i, total)),
            "mlp/b2": bias("mlp/w2"),
        }

    encoder = {**attention("self", (0, 4)), **norm("n1"), **feed(1, 4), **norm("n2")}
    decoder = {
        **attention("self", (0, 6)),
        **norm("n1"),
        "cross/q": kernel(D, INNER, part="query"),
        "cross/kv": kernel(D, 2 * INNER, sections=cut(1, INNER, ("key", "value"))),
        "cross/out": kernel(INNER, D, part="attention output", residual=(1, 6)),
        **norm("n2"),
        **feed(2, 6),
        **norm("n3"),
    }
    row = embedding(D, multiplier=D**0.5)
    truth = {
        "shared": [row, row, kernel(D, V, 1, 0, head=True)],
        "places": [position()] * 2,
        **every("encoder/{}/", 2, encoder),
        **every("decoder/{}/", 2, decoder),
    }
    return Model(apply, params, (integers(B, 5), integers(B, T + 1)), truth)


@model
def copied_words() -> Model:
    """See et al. 2017 (pointer-generator), small: words are made, or are copied.

    A leaf of coverage, and one probability of making, which gates both.
    """
    vocab, d = 17, 8

    def apply(p, source, target):
        m = p["embed"][source]
        m = jnp.tanh(m @ p["enc"]["w"] + p["enc"]["b"])

        def step(carry, word):
            s, coverage = carry
            s = jnp.tanh(word @ p["W"] + s @ p["U"] + p["b"])
            e = m @ p["W_h"] + (s @ p["W_s"] + p["b_attn"])[:, None]
            e = jnp.tanh(e + coverage[..., None] * p["w_c"]) @ p["v"]
            a = jax.nn.softmax(e)
            c = jnp.einsum("bt,btd->bd", a, m)
            both = jnp.concatenate([s, c], axis=-1)
            made = jax.nn.softmax(both @ p["V"] + p["V_b"])
            gen = jax.nn.sigmoid(
                c @ p["g_c"] + s @ p["g_s"] + word @ p["g_x"] + p["g_b"]
            )
            copied = jnp.einsum("bt,btv->bv", a, jax.nn.one_hot(source, vocab))
            return (s, coverage + a), gen * made + (1 - gen) * copied

        start = (m.mean(1) @ p["bridge"], jnp.zeros(source.shape))
        words = p["embed"][target].swapaxes(0, 1)
        return jnp.log(jax.lax.scan(step, start, words)[1] + 1e-9)

    params = {
        "embed": floats(vocab, d), "enc": {"w": floats(d, 9), "b": floats(9)},
        "W": floats(d, H), "U": floats(H, H), "b": floats(H), "W_h": floats(9, 11),
        "W_s": floats(H, 11), "b_attn": floats(11), "w_c": floats(11), "v": floats(11),
        "V": floats(H + 9, vocab), "V_b": floats(vocab), "g_c": floats(9, 1),
        "g_s": floats(H, 1), "g_x": floats(d, 1), "g_b": floats(1),
        "bridge": floats(9, H),
    }  # fmt: skip
    # Debatable: by way of the coverage, scores come back; names of an additive
    # attention's parts; a gate of probabilities, whose softmax is no linear factor.
    around = {"recurrent": ANY, "part": ANY}
    last = {"head": True, "part": ANY, "residual": ANY}
    one = {**last, "function": "sigmoid"}
    truth = {
        "embed": [embedding(d)] * 2,
        **dense("enc", d, 9, weight="w", offset="b", function="tanh", part=ANY),
        "W": kernel(d, H, function="tanh"),
        "U": kernel(H, H, function="tanh", recurrent=True),
        "b": bias(["W", "U"]),
        "W_h": kernel(9, 11, function="tanh", **around),
        "W_s": kernel(H, 11, function="tanh", **around),
        "b_attn": bias("W_s", part=ANY),
        # Debatable: a kernel of one input, or a scale of it.
        "w_c": Use(one_of("kernel", "scale"), ANY, 0, fan_in=ANY, fan_out=ANY,
                   function=ANY, **around),
        "v": kernel(11, 1, 0, (), **around),
        "V": kernel(H + 9, vocab, **last, sections=ANY),
        "V_b": bias("V", part=ANY),
        "g_c": kernel(9, 1, **one),
        "g_s": kernel(H, 1, **one),
        "g_x": kernel(d, 1, **one),
        "g_b": bias(["g_c", "g_s", "g_x"], (), part=ANY),
        "bridge": kernel(9, H),
    }  # fmt: skip
    return Model(apply, params, (integers(B, T), integers(B, 4)), truth)
