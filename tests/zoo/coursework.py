"""Homework of courses: nets with their losses, loops by hand, words, tables, faces."""

# ruff: noqa: N803, N806 -- courses write matrices in capitals.
import itertools

import jax
import jax.numpy as jnp

from zoo.truths import (
    ANY,
    Model,
    Use,
    bias,
    convolution,
    embedding,
    every,
    floats,
    integers,
    kernel,
    model,
    norm,
    scale,
    shift,
    statistic,
)

RAW_KEY = jax.ShapeDtypeStruct((2,), jnp.uint32)


@model
def fully_connected_with_loss() -> Model:
    """CS231n's FullyConnectedNet: batch norm, dropout by a key, softmax loss, L2.

    The averages of the batch norms are leaves that are moved on, and returned.
    """
    dims, classes, reg, keep = (14, 11, 9), 5, 0.1, 0.75

    def affine_bn_relu(p, i, x):
        a = x.dot(p[f"W{i}"]) + p[f"b{i}"]
        mu, var = jnp.mean(a, axis=0), jnp.var(a, axis=0)
        moved = (
            0.9 * p[f"running_mean{i}"] + 0.1 * mu,
            0.9 * p[f"running_var{i}"] + 0.1 * var,
        )
        xhat = (a - mu) / jnp.sqrt(var + 1e-5)
        return jnp.maximum(0, p[f"gamma{i}"] * xhat + p[f"beta{i}"]), moved

    def apply(p, X, y, key):
        h = X.reshape(X.shape[0], -1)
        averages = []
        for i in (1, 2):
            h, moved = affine_bn_relu(p, i, h)
            averages.append(moved)
            key, sub = jax.random.split(key)
            mask = (jax.random.uniform(sub, h.shape) < keep) / keep
            h = h * mask
        scores = h.dot(p["W3"]) + p["b3"]
        shifted = scores - scores.max(axis=1, keepdims=True)
        log_probs = shifted - jnp.log(jnp.sum(jnp.exp(shifted), axis=1, keepdims=True))
        loss = -jnp.mean(log_probs[jnp.arange(y.shape[0]), y])
        for i in (1, 2, 3):
            loss = loss + 0.5 * reg * jnp.sum(p[f"W{i}"] * p[f"W{i}"])
        return loss, averages

    params = {"W3": floats(dims[2], classes), "b3": floats(classes)}
    # Its squares, which are added to the loss, are no use of it. Debatable: the
    # averages are outputs, to which no kernel leads on.
    truth = {
        "W3": kernel(dims[2], classes, head=True),
        "b3": bias("W3"),
    }
    for i, (a, b) in enumerate(itertools.pairwise(dims), 1):
        params |= {f"W{i}": floats(a, b)}
        for name in ("b", "gamma", "beta", "running_mean", "running_var"):
            params[f"{name}{i}"] = floats(b)
        truth |= {
            f"W{i}": kernel(a, b, head=ANY, function=ANY),
            f"b{i}": bias(f"W{i}"),
            f"gamma{i}": scale(),
            f"beta{i}": shift(),
            f"running_mean{i}": statistic(),
            f"running_var{i}": statistic(),
        }
    return Model(apply, params, (floats(6, 2, 7), integers(6), RAW_KEY), truth)


@model
def gru_from_scratch() -> Model:
    """D2l's GRU from scratch: one-hot letters, a flat list, a loop over three steps.

    The state is an input.
    """
    vocab, hiddens, steps, batch = 13, 10, 3, 4

    def apply(params, inputs, state):
        W_xz, W_hz, b_z, W_xr, W_hr, b_r, W_xh, W_hh, b_h, W_hq, b_q = params
        H, outputs = state, []
        for X in jax.nn.one_hot(inputs.T, vocab):
            Z = jax.nn.sigmoid(jnp.matmul(X, W_xz) + jnp.matmul(H, W_hz) + b_z)
            R = jax.nn.sigmoid(jnp.matmul(X, W_xr) + jnp.matmul(H, W_hr) + b_r)
            H_tilda = jnp.tanh(jnp.matmul(X, W_xh) + jnp.matmul(R * H, W_hh) + b_h)
            H = Z * H + (1 - Z) * H_tilda
            outputs.append(jnp.matmul(H, W_hq) + b_q)
        return jnp.concatenate(outputs, axis=0), H

    three = [floats(vocab, hiddens), floats(hiddens, hiddens), floats(hiddens)]
    params = [*three, *three, *three, floats(hiddens, vocab), floats(vocab)]
    # A loop that is unrolled: one use for each step. Debatable: whether it is a loop,
    # and so whether it has gates.
    loose = {"part": ANY, "recurrent": ANY, "residual": ANY, "sections": ANY}
    row = {"multiplier": ANY, "function": ANY, **loose}
    truth = {
        "9": [kernel(hiddens, vocab, head=True)] * steps,
        "10": [bias("9")] * steps,
    }
    for i, function in ((0, "sigmoid"), (3, "sigmoid"), (6, "tanh")):
        truth |= {
            # One-hot rows: what they are multiplied with is looked up.
            f"{i}": [embedding(hiddens, **row)] * steps,
            f"{i + 1}": [kernel(hiddens, hiddens, function=function, **loose)] * steps,
            f"{i + 2}": [bias(ANY, part=ANY)] * steps,
        }
    return Model(apply, params, (integers(batch, steps), floats(batch, hiddens)), truth)


@model
def transformer_encoder_from_scratch() -> Model:
    """D2l's encoder: heads among the batch, valid lengths, AddNorm, sines."""
    vocab, num_hiddens, ffn, heads, T, batch, blocks = 17, 12, 15, 3, 6, 2, 2

    def masked_softmax(X, valid_lens):
        lens = jnp.repeat(valid_lens, X.shape[1])
        flat = X.reshape(-1, X.shape[-1])
        mask = jnp.arange(flat.shape[1])[None, :] < lens[:, None]
        flat = jnp.where(mask, flat, -1e6)
        return jax.nn.softmax(flat.reshape(X.shape), axis=-1)

    def transpose_qkv(X):
        X = X.reshape(X.shape[0], X.shape[1], heads, -1).transpose(0, 2, 1, 3)
        return X.reshape(-1, X.shape[2], X.shape[3])

    def transpose_output(X):
        X = X.reshape(-1, heads, X.shape[1], X.shape[2]).transpose(0, 2, 1, 3)
        return X.reshape(X.shape[0], X.shape[1], -1)

    def attention(p, X, valid_lens):
        q, k, v = (transpose_qkv(X @ p[n]) for n in ("W_q", "W_k", "W_v"))
        scores = jnp.matmul(q, k.swapaxes(1, 2)) / q.shape[-1] ** 0.5
        weights = masked_softmax(scores, jnp.repeat(valid_lens, heads, axis=0))
        return transpose_output(jnp.matmul(weights, v)) @ p["W_o"]

    def add_norm(p, X, Y):
        Z = X + Y
        mean = jnp.mean(Z, axis=-1, keepdims=True)
        std = jnp.sqrt(jnp.mean((Z - mean) ** 2, axis=-1, keepdims=True) + 1e-5)
        return p["gamma"] * (Z - mean) / std + p["beta"]

    def apply(p, tokens, valid_lens):
        X = jnp.take(p["embedding"], tokens, axis=0) * jnp.sqrt(num_hiddens)
        angles = jnp.arange(T)[:, None] / 10000 ** (jnp.arange(0, 12, 2) / num_hiddens)
        P = jnp.zeros((1, T, num_hiddens))
        P = P.at[:, :, 0::2].set(jnp.sin(angles)).at[:, :, 1::2].set(jnp.cos(angles))
        X = X + P
        for b in p["blks"]:
            Y = add_norm(b["addnorm1"], X, attention(b["attention"], X, valid_lens))
            f = b["ffn"]
            out = jnp.maximum(Y @ f["W1"] + f["b1"], 0) @ f["W2"] + f["b2"]
            X = add_norm(b["addnorm2"], Y, out)
        return X

    pair = {"gamma": floats(num_hiddens), "beta": floats(num_hiddens)}
    inner = floats(num_hiddens, num_hiddens)
    blk = {
        "attention": dict.fromkeys(("W_q", "W_k", "W_v", "W_o"), inner),
        "addnorm1": pair,
        "ffn": {
            "W1": floats(num_hiddens, ffn), "b1": floats(ffn),
            "W2": floats(ffn, num_hiddens), "b2": floats(num_hiddens),
        },
        "addnorm2": pair,
    }  # fmt: skip
    params = {"embedding": floats(vocab, num_hiddens), "blks": [blk] * blocks}
    d, total = num_hiddens, 2 * blocks
    own = {
        "attention/W_q": kernel(d, d, part="query"),
        "attention/W_k": kernel(d, d, part="key"),
        "attention/W_v": kernel(d, d, part="value"),
        "attention/W_o": kernel(d, d, part="attention output", residual=(0, total)),
        **norm("addnorm1", "gamma", "beta"),
        "ffn/W1": kernel(d, ffn, function="relu"),
        "ffn/b1": bias("ffn/W1"),
        "ffn/W2": kernel(ffn, d, residual=(1, total)),
        "ffn/b2": bias("ffn/W2"),
        **norm("addnorm2", "gamma", "beta"),
    }
    truth = {
        "embedding": embedding(d, multiplier=d**0.5),
        **every("blks/{}/", blocks, own),
    }
    return Model(apply, params, (integers(batch, T), integers(batch)), truth)


@model
def vectors_of_words() -> Model:
    """Pennington et al. 2014 (GloVe), with its loss: two tables and two biases."""
    vocab, size = 17, 8

    def apply(p, i, j, counts):
        dots = jnp.sum(p["W"][i] * p["W_context"][j], axis=1)
        guess = dots + p["b"][i] + p["b_context"][j]
        weight = jnp.minimum((counts / 100.0) ** 0.75, 1.0)
        return jnp.sum(weight * (guess - jnp.log(counts)) ** 2)

    params = {
        "W": floats(vocab, size), "W_context": floats(vocab, size),
        "b": floats(vocab), "b_context": floats(vocab),
    }  # fmt: skip
    # Debatable: rows that are contracted with rows, and numbers that are added to it.
    row = {"head": ANY, "part": ANY, "function": ANY, "multiplier": ANY}
    truth = {
        "W": embedding(size, **row),
        "W_context": embedding(size, **row),
        "b": embedding(1, 0, (), **row),
        "b_context": embedding(1, 0, (), **row),
    }
    return Model(apply, params, (integers(9), integers(9), floats(9)), truth)


@model
def tables_as_fastai_has_them() -> Model:
    """Fast.ai's TabularModel: rows of each column, norms behind relus, a range."""
    sizes, conts, layers = ((5, 3), (9, 4), (13, 6)), 2, (15, 11)
    y_min, y_max = 0.0, 5.5

    def bn(p, x):
        m = x.mean(0, keepdims=True)
        v = ((x - m) ** 2).mean(0, keepdims=True)
        return (x - m) * jax.lax.rsqrt(v + 1e-5) * p["weight"] + p["bias"]

    def dropped(x, key, rate):
        kept = jax.random.bernoulli(key, 1 - rate, x.shape)
        return jnp.where(kept, x / (1 - rate), 0.0)

    def apply(p, x_cat, x_cont, key):
        keys = jax.random.split(key, 3)
        x = [table[x_cat[:, i]] for i, table in enumerate(p["embeds"])]
        x = dropped(jnp.concatenate(x, 1), keys[0], 0.04)
        x = jnp.concatenate([x, bn(p["bn_cont"], x_cont)], 1)
        for i, layer in enumerate(p["layers"][:-1]):
            x = jax.nn.relu(x @ layer["lin"].T)
            x = dropped(bn(layer["bn"], x), keys[i + 1], 0.2)
        last = p["layers"][-1]
        x = x @ last["weight"].T + last["bias"]
        return jax.nn.sigmoid(x) * (y_max - y_min) + y_min

    def scales(size):
        return {"weight": floats(size), "bias": floats(size)}

    inputs = sum(size for _, size in sizes) + conts
    dims = (inputs, *layers)
    params = {
        "embeds": [floats(*pair) for pair in sizes],
        "bn_cont": scales(conts),
        "layers": [
            *({"lin": floats(b, a), "bn": scales(b)}
              for a, b in itertools.pairwise(dims)),
            {"weight": floats(1, layers[-1]), "bias": floats(1)},
        ],
    }  # fmt: skip
    truth = {
        # Debatable: dropout's factor.
        **{
            f"embeds/{i}": embedding(n, multiplier=ANY)
            for i, (_, n) in enumerate(sizes)
        },
        **norm("bn_cont", "weight"),
        "layers/0/lin": kernel(inputs, 15, 1, 0, "relu"),
        "layers/1/lin": kernel(15, 11, 1, 0, "relu"),
        **norm("layers/0/bn", "weight"),
        **norm("layers/1/bn", "weight"),
        # Debatable: the range behind the sigmoid.
        "layers/2/weight": kernel(11, 1, 1, 0, function="sigmoid", head=True),
        "layers/2/bias": bias("layers/2/weight", ()),
    }
    return Model(apply, params, (integers(7, 3), floats(7, conts), RAW_KEY), truth)


@model
def faces_in_threes() -> Model:
    """Schroff et al. 2015, small: one net sees anchor, positive and negative; a margin.

    Layers are pairs in a tuple, channels come first.
    """
    batch, size = 3, 9

    def conv(x, layer, stride):
        w, b = layer
        y = jax.lax.conv(x, w, (stride, stride), "SAME")
        return jax.nn.leaky_relu(y + b.reshape(1, -1, 1, 1), 0.1)

    def embed(params, x):
        c1, c2, fc = params
        x = conv(conv(x, c1, 2), c2, 2)
        x = x.mean(axis=(2, 3)) @ fc[0] + fc[1]
        return x / jnp.sqrt(jnp.sum(x**2, axis=1, keepdims=True) + 1e-8)

    def apply(params, anchor, positive, negative):
        a, p, n = (embed(params, x) for x in (anchor, positive, negative))
        d_ap = jnp.sum((a - p) ** 2, axis=1)
        d_an = jnp.sum((a - n) ** 2, axis=1)
        return jnp.mean(jnp.maximum(d_ap - d_an + 0.2, 0.0))

    params = (
        (floats(6, 3, 3, 3), floats(6)),
        (floats(10, 6, 3, 3), floats(10)),
        (floats(10, size), floats(size)),
    )
    axes = {"spatial_axis": (2, 3), "in_axis": 1, "out_axis": 0}
    axes["function"] = "leaky_relu"
    one = {
        "0/0": convolution(27, 54, **axes),
        "0/1": bias("0/0"),
        "1/0": convolution(54, 90, **axes),
        "1/1": bias("1/0"),
        # Debatable: distances of unit vectors are contractions, but without a leaf.
        "2/0": kernel(10, size, head=ANY),
        "2/1": bias("2/0"),
    }
    truth = {path: [use] * 3 for path, use in one.items()}
    image = floats(batch, 3, 8, 8)
    return Model(apply, params, (image, image, image), truth)


@model
def bilinear_reader() -> Model:
    """Chen et al. 2016, small: a text and a question as means, joined by one matrix."""
    vocab, d, choices = 19, 8, 4

    def masked_mean(x, ids):
        seen = (ids > 0).astype(x.dtype)[..., None]
        return (x * seen).sum(-2) / jnp.maximum(seen.sum(-2), 1.0)

    def apply(p, text, question, options):
        E, W, V, c = p
        t = jnp.tanh(masked_mean(E[text], text) @ W)
        q = masked_mean(E[question], question)
        o = masked_mean(E[options], options)
        h = jnp.concatenate([t, q, jnp.abs(t - q), t * q], axis=-1)
        return jnp.einsum("bnd,bd->bn", o, jax.nn.relu(h @ V + c))

    params = (floats(vocab, d), floats(d, d), floats(4 * d, d), floats(d))
    # Debatable: what is contracted with rows ends the model.
    last = {"head": ANY, "part": ANY}
    truth = {
        "0": [embedding(d), embedding(d), Use("embedding", 0, 1, fan_in=1, fan_out=d,
              function=ANY, **last)],
        "1": kernel(d, d, function="tanh", part=ANY),
        "2": kernel(4 * d, d, function="relu", **last),
        "3": bias("2", part=ANY),
    }  # fmt: skip
    inputs = (integers(3, 6), integers(3, 5), integers(3, choices, 2))
    return Model(apply, params, inputs, truth)
