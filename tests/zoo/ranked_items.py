"""Recommendation, retrieval and tables, in the habits of the frameworks they are in."""

import jax
import jax.numpy as jnp

from zoo.equinox_models import linear as eqx_linear
from zoo.equinox_models import normalized, of_equinox
from zoo.flax_layers import of_linen
from zoo.haiku_models import linear as hk_linear
from zoo.haiku_models import of_haiku
from zoo.layers import affine, linear
from zoo.nnx_models import of_nnx
from zoo.truths import (
    ANY,
    Model,
    Use,
    bias,
    bias_cut,
    cut,
    dense,
    either,
    embedding,
    every,
    floats,
    integers,
    kernel,
    model,
    scale,
    shift,
)

B, T, FIELDS, K, H, V = 3, 5, 4, 6, 10, 17


@model
def pairs_by_attention() -> Model:
    """Xiao et al. 2017 (AFM): an attention weighs the products of all pairs."""
    size = 5

    def apply(p, ids):
        e = p["v"][ids]
        rows, columns = jnp.triu_indices(FIELDS, 1)
        pairs = e[:, rows] * e[:, columns]
        a = jax.nn.relu(linear(p["attention"], pairs)) @ p["h"]
        a = jax.nn.softmax(a, axis=1)
        pooled = jnp.einsum("bp,bpk->bk", a, pairs)
        first = jnp.take(p["w"], ids, axis=0).sum(axis=1)
        return p["bias"] + first + pooled @ p["p"]

    params = {
        "v": floats(V, K),
        "attention": affine(K, size),
        "h": floats(size),
        "p": floats(K),
        "w": floats(V),
        "bias": floats(),
    }
    truth = {
        "v": embedding(K),
        # Debatable: names of the parts of additive scores.
        **dense("attention", K, size, function="relu", part=ANY),
        "h": kernel(size, 1, 0, (), part=ANY),
        # Debatable: the first kernel behind a weighted sum.
        "p": kernel(K, 1, 0, (), head=True, part=ANY),
        # Nothing contracts what is looked up: whether it is a head is open.
        "w": embedding(1, 0, (), head=ANY),
        # Debatable: a table is among what it is added to.
        "bias": bias(ANY, (), part=ANY),
    }
    return Model(apply, params, (integers(B, FIELDS),), truth)


@model
def factors_beside_layers() -> Model:
    """He et al. 2017 (NeuMF), NNX: products of factors, and a perceptron beside."""
    from flax import nnx

    class Net(nnx.Module):
        def __init__(self, rngs):
            self.mf_user = nnx.Embed(V, K, rngs=rngs)
            self.mf_item = nnx.Embed(23, K, rngs=rngs)
            self.mlp_user = nnx.Embed(V, 8, rngs=rngs)
            self.mlp_item = nnx.Embed(23, 8, rngs=rngs)
            sizes = ((16, H), (H, 7))
            self.layers = nnx.List([nnx.Linear(a, b, rngs=rngs) for a, b in sizes])
            self.predict = nnx.Linear(K + 7, 1, rngs=rngs)

        def __call__(self, user, item):
            factors = self.mf_user(user) * self.mf_item(item)
            h = jnp.concatenate([self.mlp_user(user), self.mlp_item(item)], axis=-1)
            for layer in self.layers:
                h = nnx.relu(layer(h))
            logits = self.predict(jnp.concatenate([factors, h], axis=-1))
            return nnx.sigmoid(logits.squeeze(-1))

    truth = {
        "mf_user/embedding": embedding(K),
        "mf_item/embedding": embedding(K),
        "mlp_user/embedding": embedding(8),
        "mlp_item/embedding": embedding(8),
        **dense("layers/0", 16, H, function="relu"),
        **dense("layers/1", H, 7, function="relu"),
        **dense("predict", K + 7, 1, function="sigmoid", head=True),
    }
    return of_nnx(Net, [integers(B), integers(B)], truth)


@model
def baskets_as_latents() -> Model:
    """Liang et al. 2018 (Mult-VAE), Linen: unit baskets, one kernel for both halves."""
    from flax import linen as nn

    latent = 5

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x, noise):
            length = jnp.sqrt(jnp.sum(x**2, axis=-1, keepdims=True) + 1e-12)
            h = nn.tanh(nn.Dense(H, name="q_0")(x / length))
            mu, logvar = jnp.split(nn.Dense(2 * latent, name="q_1")(h), 2, axis=-1)
            z = mu + jnp.exp(0.5 * logvar) * noise
            h = nn.tanh(nn.Dense(H, name="p_0")(z))
            logits = nn.Dense(V, name="p_1")(h)
            kl = 0.5 * (-logvar + jnp.exp(logvar) + mu**2 - 1).sum(axis=1).mean()
            return nn.log_softmax(logits), kl

    # Debatable: both halves are outputs and lead to others.
    open_ = {"part": ANY, "multiplier": ANY, "sections": ANY}
    truth = {
        **dense("q_0", V, H, function="tanh"),
        "q_1/kernel": kernel(H, 10, function=ANY, head=ANY, residual=ANY, **open_),
        "q_1/bias": bias("q_1/kernel", **open_),
        **dense("p_0", latent, H, function="tanh"),
        **dense("p_1", H, V, head=True),
    }
    return of_linen(Net(), [floats(B, V), floats(B, latent)], truth)


@model
def columns_chosen_in_steps() -> Model:
    """Arik and Pfister 2021 (TabNet), Haiku: masks of columns, GLUs behind norms."""
    import haiku as hk

    columns, n_d, n_a, steps = 7, 4, 3, 2
    width = n_d + n_a

    def sparsemax(z):
        ordered = jnp.sort(z, axis=-1)[..., ::-1]
        total = jnp.cumsum(ordered, axis=-1)
        k = jnp.arange(1, z.shape[-1] + 1)
        size = jnp.sum(1 + k * ordered > total, axis=-1, keepdims=True)
        tau = (jnp.take_along_axis(total, size - 1, axis=-1) - 1) / size
        return jnp.maximum(z - tau, 0)

    def batch_norm(name):
        return hk.BatchNorm(True, True, 0.9, name=name)

    def glu(x, name, shared):
        h = shared(x) if shared else hk.Linear(2 * width, False, name=f"{name}_fc")(x)
        h = batch_norm(f"{name}_bn")(h, True)
        return h[:, :width] * jax.nn.sigmoid(h[:, width:])

    def fun(x):
        x = batch_norm("bn")(x, True)
        shared = hk.Linear(2 * width, with_bias=False, name="shared_fc")

        def transformed(x, name):
            h = glu(x, f"{name}_0", shared)
            return (h + glu(h, f"{name}_1", None)) * jnp.sqrt(0.5)

        a = transformed(x, "split")[:, n_d:]
        prior, out = jnp.ones_like(x), 0.0
        for i in range(steps):
            mask = hk.Linear(columns, with_bias=False, name=f"mask_fc_{i}")(a)
            mask = sparsemax(batch_norm(f"mask_bn_{i}")(mask, True) * prior)
            prior = prior * (1.3 - mask)
            h = transformed(mask * x, f"step_{i}")
            out, a = out + jax.nn.relu(h[:, :n_d]), h[:, n_d:]
        return hk.Linear(3, name="last")(out)

    # Debatable: a norm, or a mask, lies between a kernel and what it is for.
    open_ = {"part": ANY, "sections": ANY}
    truth = {
        "bn/scale": scale(1),
        "bn/offset": shift(1),
        "shared_fc/w": [kernel(columns, 2 * width, function=ANY, **open_)] * 3,
        **hk_linear("last", n_d, 3, head=True),
    }
    for name in ("split", "step_0", "step_1"):
        own = kernel(width, 2 * width, function=ANY, residual=ANY, **open_)
        own = Use(**{**vars(own), "multiplier": ANY})
        truth[f"{name}_1_fc/w"] = own
        for i in range(2):
            truth[f"{name}_{i}_bn/scale"] = scale(1, residual=ANY, **open_)
            truth[f"{name}_{i}_bn/offset"] = shift(1, residual=ANY, **open_)
    for i in range(steps):
        truth[f"mask_fc_{i}/w"] = kernel(n_a, columns, function=ANY, part=ANY)
        truth[f"mask_bn_{i}/scale"] = scale(1, part=ANY)
        truth[f"mask_bn_{i}/offset"] = shift(1, part=ANY)
    return of_haiku(fun, [floats(B, columns)], truth)


@model
def streams_in_one_form() -> Model:
    """Mao et al. 2023 (FinalMLP): gated inputs, two perceptrons, a form of heads."""
    heads, dx, dy = 2, 3, 4
    width = FIELDS * K

    def apply(p, ids):
        e = p["table"][ids].reshape(B, width)

        def stream(q):
            g = linear(q["gate_1"], jax.nn.relu(linear(q["gate_0"], q["context"])))
            h = e * (2 * jax.nn.sigmoid(g))
            return jax.nn.relu(linear(q["mlp_1"], jax.nn.relu(linear(q["mlp_0"], h))))

        x, y = stream(p["one"]), stream(p["two"])
        out = linear(p["w_x"], x) + linear(p["w_y"], y)
        hx = x.reshape(B, heads, 1, dx)
        hy = y.reshape(B, heads, dy, 1)
        xw = jnp.matmul(hx, p["w_xy"].reshape(heads, dx, dy))
        return jax.nn.sigmoid(out + jnp.matmul(xw, hy).sum(axis=1)[..., 0])

    def stream(out):
        return {
            "context": floats(5),
            "gate_0": affine(5, H),
            "gate_1": affine(H, width),
            "mlp_0": affine(width, H),
            "mlp_1": affine(H, out),
        }

    params = {
        "table": floats(V, K),
        "one": stream(heads * dx),
        "two": stream(heads * dy),
        "w_x": affine(heads * dx, 1),
        "w_y": affine(heads * dy, 1),
        "w_xy": floats(heads * dx * dy),
    }
    truth = {
        "table": embedding(K),
        **dense("w_x", heads * dx, 1, function="sigmoid", head=True),
        **dense("w_y", heads * dy, 1, function="sigmoid", head=True),
        # One axis has heads, inputs and outputs.
        "w_xy": either("kernel", "unknown"),
    }
    for name, out in (("one", heads * dx), ("two", heads * dy)):
        truth |= {
            # A vector for all examples that kernels read: a gate of leaves alone.
            f"{name}/context": either("embedding", "unknown"),
            f"{name}/gate_0/kernel": either("kernel", "unknown"),
            f"{name}/gate_0/bias": either("bias", "unknown"),
            f"{name}/gate_1/kernel": either("kernel", "unknown"),
            f"{name}/gate_1/bias": either("bias", "unknown"),
            **dense(f"{name}/mlp_0", width, H, function="relu"),
            **dense(f"{name}/mlp_1", H, out, function="relu"),
        }
    return Model(apply, params, (integers(B, FIELDS),), truth)


@model
def rows_in_residual_blocks() -> Model:
    """Gorishniy et al. 2021 (ResNet of tables), Equinox: categories beside numbers."""
    import equinox as eqx

    numbers, width, wide = 5, 5 + 3 + 4, 16

    class Block(eqx.Module):
        norm: eqx.nn.LayerNorm
        first: eqx.nn.Linear
        second: eqx.nn.Linear

        def __init__(self, key):
            self.norm = eqx.nn.LayerNorm(H)
            self.first = eqx.nn.Linear(H, wide, key=key)
            self.second = eqx.nn.Linear(wide, H, key=key)

        def __call__(self, x):
            return x + self.second(jax.nn.relu(self.first(self.norm(x))))

    class Net(eqx.Module):
        tables: list
        inputs: eqx.nn.Linear
        blocks: list
        norm: eqx.nn.LayerNorm
        head: eqx.nn.Linear

        def __init__(self, key):
            sizes = ((V, 3), (9, 4))
            self.tables = [eqx.nn.Embedding(a, b, key=key) for a, b in sizes]
            self.inputs = eqx.nn.Linear(width, H, key=key)
            self.blocks = [Block(key) for _ in range(2)]
            self.norm = eqx.nn.LayerNorm(H)
            self.head = eqx.nn.Linear(H, "scalar", key=key)

        def __call__(self, x, codes):
            found = [table(codes[i]) for i, table in enumerate(self.tables)]
            x = self.inputs(jnp.concatenate([x, *found]))
            for block in self.blocks:
                x = block(x)
            return self.head(jax.nn.relu(self.norm(x)))

    block = {
        **normalized("norm"),
        **eqx_linear("first", H, wide, function="relu"),
        **eqx_linear("second", wide, H, residual=(0, 2)),
    }
    truth = {
        "tables/0/weight": embedding(3),
        "tables/1/weight": embedding(4),
        **eqx_linear("inputs", width, H),
        **every("blocks/{}/", 2, block),
        **normalized("norm"),
        **eqx_linear("head", H, 1, head=True),
    }
    return of_equinox(Net, [floats(B, numbers), integers(B, 2)], truth)


@model
def interests_that_evolve() -> Model:
    """Zhou et al. 2019 (DIEN): Keras's GRU with biases (2, 3H), then an AUGRU."""
    order = ("update gate", "reset gate", "candidate")

    def cell(q, h, x, weight):
        gx = x @ q["kernel"] + q["bias"][0]
        gh = h @ q["recurrent_kernel"] + q["bias"][1]
        xz, xr, xh = jnp.split(gx, 3, axis=-1)
        hz, hr, hh = jnp.split(gh, 3, axis=-1)
        z, r = jax.nn.sigmoid(xz + hz), jax.nn.sigmoid(xr + hr)
        z = 1 - z if weight is None else z * weight
        return (1 - z) * h + z * jnp.tanh(xh + r * hh)

    def apply(p, clicks, target):
        e, a = p["items"][clicks].swapaxes(0, 1), p["items"][target]
        h = jnp.zeros((B, H))

        def first(h, x):
            h = cell(p["interest"], h, x, None)
            return h, h

        _, states = jax.lax.scan(first, h, e)
        scores = jnp.einsum("tbh,bh->tb", states, a @ p["match"])
        weights = jax.nn.softmax(scores, axis=0)[..., None]

        def second(h, xs):
            return cell(p["evolve"], h, *xs), None

        h, _ = jax.lax.scan(second, h, (states, weights))
        y = jnp.concatenate([h, a], axis=-1)
        y = jax.nn.sigmoid(linear(p["fc1"], y))
        return jax.nn.softmax(linear(p["fc2"], y))

    def gru(inputs):
        return {
            "kernel": floats(inputs, 3 * H),
            "recurrent_kernel": floats(H, 3 * H),
            "bias": floats(2, 3 * H),
        }

    params = {
        "items": floats(V, K),
        "interest": gru(K),
        "match": floats(K, H),
        "evolve": gru(H),
        "fc1": affine(H + K, 9),
        "fc2": affine(9, 2),
    }
    parts = [(1, *section[1:]) for section in bias_cut(H, order)]
    row = {"stack_axis": 0, "sections": parts}
    truth = {
        "items": [embedding(K), embedding(K)],
        # Debatable: the target asks, and what the cell says answers.
        "match": kernel(K, H, part=ANY),
        **dense("fc1", H + K, 9, function="sigmoid"),
        **dense("fc2", 9, 2, head=True),
    }
    for name, inputs in (("interest", K), ("evolve", H)):
        # Debatable: the first cell only has 1 - sigmoid(z).
        named = {"update gate": ANY if name == "interest" else "sigmoid"}
        plain = cut(1, H, order, candidate="identity", **named)
        truth |= {
            f"{name}/kernel": kernel(
                inputs, 3 * H, function=ANY, sections=cut(1, H, order, **named)
            ),
            f"{name}/recurrent_kernel": kernel(
                H, 3 * H, function=ANY, recurrent=True, sections=plain
            ),
            f"{name}/bias": [
                bias(f"{name}/kernel", 1, **row),
                bias(f"{name}/recurrent_kernel", 1, **row),
            ],
        }
    return Model(apply, params, (integers(B, T), integers(B)), truth)
