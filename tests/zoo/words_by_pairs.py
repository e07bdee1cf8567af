"""Words in pairs, in windows, with memory, against questions, as ports have them."""

import jax
import jax.numpy as jnp

from zoo.flax_layers import of_linen
from zoo.haiku_models import linear as hk_linear
from zoo.haiku_models import of_haiku
from zoo.layers import over_time
from zoo.truths import (
    ANY,
    Model,
    bias,
    bias_cut,
    convolution,
    cut,
    dense,
    either,
    embedding,
    every,
    floats,
    integers,
    kernel,
    layer_norm,
    model,
    norm,
    one_of,
)

B, T, D, F, HEADS, SIZE, V = 2, 6, 12, 15, 3, 4, 19
INNER = HEADS * SIZE
ORDER = ("query", "key", "value")
RAW_KEY = jax.ShapeDtypeStruct((2,), jnp.uint32)


@model
def words_and_noise() -> Model:
    """Mikolov et al. 2013 (word2vec), with its loss: a pair and drawn negatives."""
    size, drawn = 8, 5

    def apply(p, center, context, key):
        negatives = jax.random.randint(key, (center.shape[0], drawn), 0, V)
        v = p["syn0"][center]
        right = jnp.einsum("bd,bd->b", v, p["syn1neg"][context])
        wrong = jnp.einsum("bd,bnd->bn", v, p["syn1neg"][negatives])
        loss = jax.nn.log_sigmoid(right) + jax.nn.log_sigmoid(-wrong).sum(1)
        return -loss.mean()

    params = {"syn0": floats(V, size), "syn1neg": floats(V, size)}
    # Debatable: rows that are contracted with rows.
    row = {"head": ANY, "part": ANY, "function": ANY, "multiplier": ANY}
    truth = {
        "syn0": embedding(size, **row),
        "syn1neg": [embedding(size, **row)] * 2,
    }
    return Model(apply, params, (integers(7), integers(7), RAW_KEY), truth)


@model
def sentences_by_windows() -> Model:
    """Kim 2014 (TextCNN), Linen: fixed and learned rows, three windows, maxima."""
    from flax import linen as nn

    classes, filters = 4, 5

    class Net(nn.Module):
        @nn.compact
        def __call__(self, ids):
            fixed = jax.lax.stop_gradient(nn.Embed(V, D, name="static")(ids))
            x = jnp.stack([fixed, nn.Embed(V, D, name="nonstatic")(ids)], axis=-1)
            pooled = []
            for k in (2, 3, 4):
                h = nn.Conv(filters, (k, D), padding="VALID", name=f"conv{k}")(x)
                pooled.append(nn.relu(h).max(axis=(1, 2)))
            h = nn.Dropout(0.5, deterministic=False)(jnp.concatenate(pooled, -1))
            return nn.log_softmax(nn.Dense(classes, name="fc")(h))

    truth = {
        "static/embedding": embedding(D),
        "nonstatic/embedding": embedding(D),
        **dense("fc", 3 * filters, classes, head=True),
    }
    for k in (2, 3, 4):
        # Debatable: the window is as wide as a row, with one place along it.
        truth[f"conv{k}/kernel"] = convolution(
            2 * k * D, one_of(filters * k, filters * k * D), function="relu"
        )
        truth[f"conv{k}/bias"] = bias(f"conv{k}/kernel")
    return of_linen(Net(), [integers(B, 7)], truth, keys=("dropout",))


@model
def words_with_memory() -> Model:
    """Dai et al. 2019 (Transformer-XL): scores of contents and of distances.

    What was said before is given; u and v are biases of queries, one for each head.
    """
    layers, long = 2, T + 3

    def shifted(x):
        b, h, q, k = x.shape
        x = jnp.pad(x, ((0, 0), (0, 0), (0, 0), (1, 0))).reshape(b, h, k + 1, q)
        return x[:, :, 1:].reshape(b, h, q, k)

    def apply(p, ids, memories):
        x, new = p["word_emb"][ids] * D**0.5, []
        speed = 1 / 10000 ** (jnp.arange(0, D, 2) / D)
        sines = jnp.arange(long - 1, -1, -1.0)[:, None] * speed
        r = jnp.concatenate([jnp.sin(sines), jnp.cos(sines)], axis=-1)
        for i, q in enumerate(p["layers"]):
            new.append(jax.lax.stop_gradient(x))
            c = jnp.concatenate([memories[i], x], axis=1)
            qs = (x @ q["q_net"]).reshape(B, T, HEADS, SIZE)
            ks, vs = jnp.split(c @ q["kv_net"], 2, axis=-1)
            ks, vs = (y.reshape(B, long, HEADS, SIZE) for y in (ks, vs))
            rs = (r @ q["r_net"]).reshape(long, HEADS, SIZE)
            ac = jnp.einsum("bihd,bjhd->bhij", qs + q["r_w_bias"], ks)
            bd = shifted(jnp.einsum("bihd,jhd->bhij", qs + q["r_r_bias"], rs))
            s = (ac + bd) / SIZE**0.5
            seen = jnp.arange(long)[None] <= jnp.arange(T)[:, None] + 3
            a = jax.nn.softmax(jnp.where(seen, s, -1e30), axis=-1)
            y = jnp.einsum("bhij,bjhd->bihd", a, vs).reshape(B, T, INNER)
            x = layer_norm(x + y @ q["o_net"], q["ln_att"])
            h = jax.nn.relu(x @ q["ff1"]["w"] + q["ff1"]["b"])
            x = layer_norm(x + h @ q["ff2"]["w"] + q["ff2"]["b"], q["ln_ff"])
        return x @ p["out_w"] + p["out_b"], jnp.stack(new)

    ln = {"scale": floats(D), "bias": floats(D)}
    layer = {
        "q_net": floats(D, INNER), "kv_net": floats(D, 2 * INNER),
        "r_net": floats(D, INNER), "r_w_bias": floats(HEADS, SIZE),
        "r_r_bias": floats(HEADS, SIZE), "o_net": floats(INNER, D), "ln_att": ln,
        "ff1": {"w": floats(D, F), "b": floats(F)},
        "ff2": {"w": floats(F, D), "b": floats(D)}, "ln_ff": ln,
    }  # fmt: skip
    params = {"word_emb": floats(V, D), "layers": [layer] * layers}
    params |= {"out_w": floats(D, V), "out_b": floats(V)}
    total = 2 * layers
    own = {
        "q_net": kernel(D, INNER, part="query"),
        "kv_net": kernel(D, 2 * INNER, sections=cut(1, INNER, ORDER[1:])),
        # Debatable: keys of distances, which no input is in.
        "r_net": either("kernel", "unknown"),
        "r_w_bias": bias("q_net", (0, 1), part="query"),
        "r_r_bias": bias("q_net", (0, 1), part="query"),
        "o_net": kernel(INNER, D, part="attention output", residual=(0, total)),
        **norm("ln_att"),
        **dense("ff1", D, F, "w", "b", function="relu"),
        **dense("ff2", F, D, "w", "b", residual=(1, total)),
        **norm("ln_ff"),
    }
    truth = {
        "word_emb": embedding(D, multiplier=D**0.5),
        **every("layers/{}/", layers, own),
        "out_w": kernel(D, V, head=True),
        "out_b": bias("out_w"),
    }
    inputs = (integers(B, T), floats(layers, B, 3, D))
    return Model(apply, params, inputs, truth)


@model
def flows_between_texts() -> Model:
    """Seo et al. 2017 (BiDAF), plain: a vector reads both and their product; two ways.

    Torch's GRUs both ways for a cell; a start and an end are pointed at.
    """
    h, long, asked = 5, 7, 4

    def gru(p, x):
        def step(s, x):
            i = x @ p["w_ih"].T + p["b_ih"]
            g = s @ p["w_hh"].T + p["b_hh"]
            (ir, iz, in_), (gr, gz, gn) = (jnp.split(y, 3, axis=-1) for y in (i, g))
            r, z = jax.nn.sigmoid(ir + gr), jax.nn.sigmoid(iz + gz)
            n = jnp.tanh(in_ + r * gn)
            s = (1 - z) * n + z * s
            return s, s

        return over_time(step, jnp.zeros((B, h)), x)[1]

    def both(p, x):
        back = gru(p["backward"], x[:, ::-1])[:, ::-1]
        return jnp.concatenate([gru(p["forward"], x), back], axis=-1)

    def apply(p, context, question):
        c = both(p["contextual"], p["emb"][context])
        q = both(p["contextual"], p["emb"][question])
        cq = c[:, :, None] * q[:, None]
        s = (c @ p["att_c"])[:, :, None] + (q @ p["att_q"])[:, None]
        s = s + cq @ p["att_cq"]
        c2q = jnp.einsum("bij,bjd->bid", jax.nn.softmax(s, axis=-1), q)
        b = jax.nn.softmax(s.max(axis=2), axis=-1)
        q2c = jnp.einsum("bi,bid->bd", b, c)[:, None]
        g = jnp.concatenate([c, c2q, c * c2q, c * q2c], axis=-1)
        m = both(p["modeling"], g)
        gm = jnp.concatenate([g, m], axis=-1)
        start = (gm @ p["start"]["w"] + p["start"]["b"]).squeeze(-1)
        end = (gm @ p["end"]["w"] + p["end"]["b"]).squeeze(-1)
        return jax.nn.log_softmax(start), jax.nn.log_softmax(end)

    def cell(n):
        one = {"w_ih": floats(3 * h, n), "w_hh": floats(3 * h, h)}
        one |= {"b_ih": floats(3 * h), "b_hh": floats(3 * h)}
        return {"forward": one, "backward": one}

    d = 2 * h
    last = {"w": floats(5 * d, 1), "b": floats(1)}
    params = {
        "emb": floats(V, 8), "contextual": cell(8), "att_c": floats(d),
        "att_q": floats(d), "att_cq": floats(d), "modeling": cell(4 * d),
        "start": last, "end": last,
    }  # fmt: skip
    parts = ("reset gate", "update gate", "candidate")

    def cells(path, n, times):
        truth = {}
        for way in ("forward", "backward"):
            at = f"{path}/{way}"
            # The candidate's part of the state is multiplied before its tanh.
            one = {
                f"{at}/w_ih": kernel(
                    n, 3 * h, 1, 0, function=ANY, sections=cut(0, h, parts)
                ),
                f"{at}/w_hh": kernel(
                    h, 3 * h, 1, 0, function=ANY, recurrent=True,
                    sections=cut(0, h, parts, candidate="identity"),
                ),
                f"{at}/b_ih": bias(f"{at}/w_ih", sections=bias_cut(h, parts)),
                f"{at}/b_hh": bias(f"{at}/w_hh", sections=bias_cut(h, parts)),
            }  # fmt: skip
            truth |= {name: [use] * times for name, use in one.items()}
        return truth

    # Debatable: scores of a sum of three products.
    score = {"part": ANY, "function": ANY, "multiplier": ANY}
    truth = {
        "emb": [embedding(8)] * 2,
        **cells("contextual", 8, 2),
        **{f"att_{n}": kernel(d, 1, 0, (), **score) for n in ("c", "q", "cq")},
        **cells("modeling", 4 * d, 1),
        # Debatable: of the parts that are put together, two are made of weighted sums.
        **dense("start", 5 * d, 1, "w", "b", head=True, part=ANY, sections=ANY),
        **dense("end", 5 * d, 1, "w", "b", head=True, part=ANY, sections=ANY),
    }
    for way in ("forward", "backward"):
        path = f"modeling/{way}/w_ih"
        loose = {"part": ANY, "sections": ANY}
        truth[path] = kernel(4 * d, 3 * h, 1, 0, function=ANY, **loose)
    return Model(apply, params, (integers(B, long), integers(B, asked)), truth)


@model
def sentences_that_follow() -> Model:
    """Parikh et al. 2016 (decomposable attention), Haiku: attend, compare, sum."""
    import haiku as hk

    h, classes = 9, 3

    def mlp(name, x):
        x = jax.nn.relu(hk.Linear(h, name=f"{name}_0")(x))
        return jax.nn.relu(hk.Linear(h + 1, name=f"{name}_1")(x))

    def fun(a, b):
        embed = hk.Embed(V, 8, name="embed")
        project = hk.Linear(D, with_bias=False, name="project")
        a, b = project(embed(a)), project(embed(b))
        both = mlp("attend", jnp.concatenate([a, b], axis=1))
        e = jnp.matmul(both[:, :T], both[:, T:].swapaxes(1, 2))
        beta = jnp.matmul(jax.nn.softmax(e, axis=2), b)
        alpha = jnp.matmul(jax.nn.softmax(e, axis=1).swapaxes(1, 2), a)
        left = jnp.concatenate([a, beta], axis=-1)
        right = jnp.concatenate([b, alpha], axis=-1)
        v = mlp("compare", jnp.concatenate([left, right], axis=1))
        v = jnp.concatenate([v[:, :T].sum(axis=1), v[:, T:].sum(axis=1)], axis=-1)
        return hk.Linear(classes, name="final")(mlp("aggregate", v))

    def pair(name, n, **rest):
        return {
            **hk_linear(f"{name}_0", n, h, function="relu"),
            **hk_linear(f"{name}_1", h, h + 1, function="relu", **rest),
        }

    truth = {
        "embed/embeddings": [embedding(8)] * 2,
        # Debatable: values of both, though scores are made by a network of them.
        "project/w": [kernel(8, D, part=ANY)] * 2,
        # Debatable: queries and keys at once, with a ReLU.
        **pair("attend", D, part=ANY),
        # Half of what it reads is a weighted sum.
        **pair("compare", 2 * D),
        "compare_0/w": kernel(2 * D, h, function="relu", part=ANY, sections=ANY),
        "compare_0/b": bias("compare_0/w", part=ANY),
        **pair("aggregate", 2 * (h + 1)),
        **hk_linear("final", h + 1, classes, head=True),
    }
    return of_haiku(fun, [integers(B, T), integers(B, T - 1)], truth)
