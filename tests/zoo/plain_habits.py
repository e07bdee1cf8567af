"""Plain functions: habits of writing, as features first, indices, casts and lists."""

import functools

import jax
import jax.numpy as jnp

from zoo.truths import (
    ANY,
    UNNAMED,
    Model,
    Use,
    bias,
    convolution,
    embedding,
    floats,
    gate,
    integers,
    kernel,
    model,
    norm,
    one_of,
    position,
    scale,
    stacked,
    unknown,
)
from zoo.truths import layer_norm as ln
from zoo.truths import rms_norm as rms

B, T, D, H, S, F, V = 2, 6, 10, 3, 4, 18, 23
INNER = H * S


@model
def columns() -> Model:
    """Column vectors: W x + b, with time behind features; a softmax over axis 0."""

    def apply(p, x):  # (7, T)
        x = jnp.matmul(p["W0"], x) + p["b0"][:, None]
        q, k, v = p["Wq"] @ x, p["Wk"] @ x, p["Wv"] @ x
        a = jax.nn.softmax(k.T @ q / jnp.sqrt(1.0 * S), axis=0)
        x = x + p["Wo"] @ (v @ a)
        h = jnp.tanh(p["W1"] @ x + p["b1"][:, None])
        return p["W2"] @ h.mean(1) + p["b2"]

    params = {
        "W0": floats(D, 7),
        "b0": floats(D),
        "Wq": floats(S, D),
        "Wk": floats(S, D),
        "Wv": floats(S, D),
        "Wo": floats(D, S),
        "W1": floats(F, D),
        "b1": floats(F),
        "W2": floats(3, F),
        "b2": floats(3),
    }
    turned = {"in_axis": 1, "out_axis": 0}
    truth = {
        "W0": kernel(7, D, **turned),
        "b0": bias("W0"),
        "Wq": kernel(D, S, part="query", **turned),
        "Wk": kernel(D, S, part="key", **turned),
        "Wv": kernel(D, S, part="value", **turned),
        "Wo": kernel(S, D, part="attention output", residual=(0, 1), **turned),
        "W1": kernel(D, F, function="tanh", **turned),
        "b1": bias("W1"),
        "W2": kernel(F, 3, head=True, **turned),
        "b2": bias("W2"),
    }
    return Model(apply, params, (floats(7, T),), truth)


@model
def sliced_rows() -> Model:
    """Rows of one kernel for each of two inputs; a bias as its last row."""

    def apply(p, x, y):
        h = jax.nn.relu(x @ p["w"][:4] + y @ p["w"][4:])
        one = jnp.concatenate([h, jnp.ones((B, 1))], axis=-1)
        return one @ p["v"]

    params = {"w": floats(9, F), "v": floats(F + 1, 3)}
    truth = {
        # Debatable: sections of inputs that are used apart.
        "w": [
            kernel(4, F, function="relu", sections=ANY),
            kernel(5, F, function="relu", sections=ANY),
        ],
        # Debatable: the bias is a row as others are.
        "v": kernel(F + 1, 3, head=True, sections=ANY),
    }
    return Model(apply, params, (floats(B, 4), floats(B, 5)), truth)


@model
def indexed_layers() -> Model:
    """Layers in stacked arrays, taken by a Python index; half precision in between."""
    layers = 3

    def apply(p, t):
        x = p["emb"][t].astype(jnp.bfloat16)
        w = jax.tree.map(lambda a: a.astype(jnp.bfloat16), p)
        for i in range(layers):
            h = rms(x.astype(jnp.float32), p["n"][i]).astype(jnp.bfloat16)
            h = jax.nn.gelu(h @ w["up"][i] + w["ub"][i])
            y = jnp.einsum("btf,fd->btd", h, w["down"][i])
            x = x + y
        return jnp.einsum("btd,dv->btv", x, w["out"]).astype(jnp.float32)

    params = {
        "emb": floats(V, D),
        "n": floats(layers, D),
        "up": floats(layers, D, F),
        "ub": floats(layers, F),
        "down": floats(layers, F, D),
        "out": floats(D, V),
    }
    down = stacked({"d": kernel(F, D)})["d"]
    truth = {
        "emb": embedding(D),
        "n": [scale(1, stack_axis=0)] * layers,
        "up": [kernel(D, F, 1, 2, "gelu", stack_axis=0)] * layers,
        "ub": [bias("up", 1, stack_axis=0)] * layers,
        "down": [Use(**{**vars(down), "residual": (i, layers)}) for i in range(layers)],
        "out": kernel(D, V, head=True),
    }
    return Model(apply, params, (integers(B, T),), truth)


@model
def layers_by_counter() -> Model:
    """fori_loop over stacked layers, each taken by a dynamic index."""
    layers = 4

    def apply(p, x):
        x = x @ p["in"]

        def body(i, x):
            w1, w2, b = (
                jax.lax.dynamic_index_in_dim(p[n], i, keepdims=False)
                for n in ("w1", "w2", "b")
            )
            return x + jax.nn.silu(x @ w1 + b) @ w2

        x = jax.lax.fori_loop(0, layers, body, x)
        return x @ p["out"]

    params = {
        "in": floats(7, D),
        "w1": floats(layers, D, F),
        "b": floats(layers, F),
        "w2": floats(layers, F, D),
        "out": floats(D, 3),
    }
    truth = {
        "in": kernel(7, D),
        "w1": kernel(D, F, 1, 2, "silu", stack_axis=0),
        "b": bias("w1", 1, stack_axis=0),
        "w2": kernel(F, D, 1, 2, stack_axis=0, residual=(0, layers)),
        "out": kernel(D, 3, head=True),
    }
    return Model(apply, params, (floats(B, 7),), truth)


@model
def lists_of_heads() -> Model:
    """A kernel for each head in lists, outputs concatenated; post-norm with dropout."""

    def apply(p, t, keep):
        x = p["emb"][t] + p["pos"]
        ys = []
        for q, k, v in zip(p["q"], p["k"], p["v"], strict=True):
            s = jnp.einsum("btd,bsd->bts", x @ q, x @ k) / S**0.5
            ys.append(jnp.einsum("bts,bsd->btd", jax.nn.softmax(s, -1), x @ v))
        y = jnp.concatenate(ys, axis=-1) @ p["o"]
        y = jnp.where(keep, y / 0.9, 0.0)
        x = ln(x + y, p["n1"])
        y = jax.nn.relu(x @ p["w1"] + p["b1"]) @ p["w2"] + p["b2"]
        x = ln(x + jnp.where(keep, y / 0.9, 0.0), p["n2"])
        return x[:, 0] @ p["cls"]

    many = [floats(D, S)] * H
    vec = {"scale": floats(D), "bias": floats(D)}
    params = {
        "emb": floats(V, D),
        "pos": floats(T, D),
        "q": many,
        "k": many,
        "v": many,
        "o": floats(INNER, D),
        "n1": vec,
        "w1": floats(D, F),
        "b1": floats(F),
        "w2": floats(F, D),
        "b2": floats(D),
        "n2": vec,
        "cls": floats(D, 3),
    }
    truth = {
        "emb": embedding(D),
        "pos": position(),
        **{f"q/{i}": kernel(D, S, part="query") for i in range(H)},
        **{f"k/{i}": kernel(D, S, part="key") for i in range(H)},
        **{f"v/{i}": kernel(D, S, part="value") for i in range(H)},
        # Debatable: dropout's factor.
        "o": kernel(INNER, D, part="attention output", residual=(0, 2), multiplier=ANY),
        **norm("n1"),
        "w1": kernel(D, F, function="relu"),
        "b1": bias("w1"),
        "w2": kernel(F, D, residual=(1, 2), multiplier=ANY),
        "b2": bias("w2", multiplier=ANY),
        **norm("n2"),
        "cls": kernel(D, 3, head=True),
    }
    inputs = (integers(B, T), jax.ShapeDtypeStruct((B, T, D), bool))
    return Model(apply, params, inputs, truth)


@model
def two_biases() -> Model:
    """torch.nn.GRU with both biases, and a loop of one's own that collects outputs."""

    def apply(p, x):
        h, hs = jnp.zeros((B, F)), []
        for t in range(3):
            gi = x[:, t] @ p["w_ih"].T + p["b_ih"]
            gh = h @ p["w_hh"].T + p["b_hh"]
            ir, iz, i_n = jnp.split(gi, 3, -1)
            hr, hz, hn = jnp.split(gh, 3, -1)
            r, z = jax.nn.sigmoid(ir + hr), jax.nn.sigmoid(iz + hz)
            h = (1 - z) * jnp.tanh(i_n + r * hn) + z * h
            hs.append(h)
        return jnp.stack(hs, 1) @ p["w_out"].T + p["b_out"]

    params = {
        "w_ih": floats(3 * F, 7),
        "w_hh": floats(3 * F, F),
        "b_ih": floats(3 * F),
        "b_hh": floats(3 * F),
        "w_out": floats(4, F),
        "b_out": floats(4),
    }
    # A loop that is unrolled: one use for each step. Debatable: whether it is a loop.
    loose = {"function": ANY, "part": ANY, "sections": ANY, "recurrent": ANY}
    loose["residual"] = ANY
    own = {"part": ANY, "sections": ANY}
    truth = {
        "w_ih": [kernel(7, 3 * F, 1, 0, **loose)] * 3,
        "w_hh": [kernel(F, 3 * F, 1, 0, **loose)] * 3,
        "b_ih": [bias("w_ih", **own)] * 3,
        "b_hh": [bias("w_hh", **own)] * 3,
        "w_out": kernel(F, 4, 1, 0, head=True),
        "b_out": bias("w_out"),
    }
    return Model(apply, params, (floats(B, 3, 7),), truth)


@model
def factors_of_members() -> Model:
    """Wen et al. 2020 (BatchEnsemble): one kernel, and two vectors for each member."""
    members = 3

    def apply(p, x):
        h = jnp.broadcast_to(x, (members, *x.shape))
        for q in p[:-1]:
            h = ((h * q["r"][:, None]) @ q["w"]) * q["s"][:, None] + q["b"][:, None]
            h = jax.nn.relu(h)
        return h @ p[-1]["w"]

    def layer(i, o):
        return {
            "r": floats(members, i),
            "w": floats(i, o),
            "s": floats(members, o),
            "b": floats(members, o),
        }

    params = [layer(7, F), layer(F, D), {"w": floats(D, 3)}]
    # Debatable: members as features, as batches or as places.
    free = {"out_axis": ANY, "batch_axis": ANY}
    truth = {"2/w": kernel(D, 3, head=True)}
    for i, (a, b) in enumerate(((7, F), (F, D))):
        truth |= {
            f"{i}/r": scale(**free),
            f"{i}/w": kernel(a, b, function="relu"),
            f"{i}/s": scale(**free),
            f"{i}/b": Use(one_of("bias", "position"), in_axis=ANY, of=ANY, **free),
        }
    return Model(apply, params, (floats(B, 7),), truth)


@model
def two_arguments() -> Model:
    """Bilinear forms: x W y for each output, in one einsum, beside a linear term."""

    def apply(p, x, y):
        z = jnp.einsum("bi,oij,bj->bo", x, p["w"], y)
        z = jax.nn.elu(z + jnp.concatenate([x, y], -1) @ p["v"] + p["b"])
        return z @ p["u"]

    params = {
        "w": floats(F, 4, 5),
        "v": floats(9, F),
        "b": floats(F),
        "u": floats(F, 1),
    }
    truth = {
        # Debatable: it is contracted with one argument, and what is left with another.
        "w": Use(
            "kernel", ANY, ANY, ANY, fan_in=ANY, fan_out=ANY, function=ANY, part=ANY
        ),
        "v": kernel(9, F, function="elu"),
        "b": bias(ANY),
        "u": kernel(F, 1, head=True),
    }
    return Model(apply, params, (floats(B, 4), floats(B, 5)), truth)


@model
def networks_of_features() -> Model:
    """Agarwal et al. 2021 (NAM): a network of one input for each, by vmap; a sum."""
    features = 5

    def net(q, x):
        h = jax.nn.relu(x[:, None] * q["w"] + q["b"])
        h = jax.nn.relu(h @ q["w1"] + q["b1"])
        return h @ q["w2"]

    def apply(p, x):
        y = jax.vmap(net, in_axes=(0, 1))(p["nets"], x)
        return y.sum(0) + p["b"]

    params = {
        "nets": {
            "w": floats(features, F),
            "b": floats(features, F),
            "w1": floats(features, F, D),
            "b1": floats(features, D),
            "w2": floats(features, D),
        },
        "b": floats(),
    }
    own = {"batch_axis": 0}
    truth = {
        # Debatable: a kernel of one input, or a scale of it.
        "nets/w": Use(
            one_of("kernel", "scale"),
            ANY,
            1,
            ANY,
            fan_in=ANY,
            fan_out=ANY,
            function=ANY,
        ),
        "nets/b": bias(ANY, 1, **own),
        "nets/w1": kernel(F, D, 1, 2, "relu", **own),
        "nets/b1": bias("nets/w1", 1, **own),
        "nets/w2": kernel(D, 1, 1, (), head=True, **own),
        "b": bias(ANY, ()),
    }
    return Model(apply, params, (floats(B, features),), truth)


@model
def patches_by_gathering() -> Model:
    """Windows made by im2col and a matrix; a mean; positions by a learned sine."""

    def apply(p, x):
        cols = jax.lax.conv_general_dilated_patches(
            x, (2, 2), (2, 2), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        h = cols.reshape(B, -1, 12) @ p["w"] + p["b"]
        h = jax.nn.gelu(ln(h, p["n"]))
        return h.max(1) @ p["out"]

    params = {
        "w": floats(12, D),
        "b": floats(D),
        "n": {"scale": floats(D), "bias": floats(D)},
        "out": floats(D, 3),
    }
    truth = {
        "w": kernel(12, D),
        "b": bias("w"),
        **norm("n"),
        "out": kernel(D, 3, head=True),
    }
    return Model(apply, params, (floats(B, 4, 4, 3),), truth)


@model
def sandwiched() -> Model:
    """Norms before and behind each branch, half steps around a window (macaron)."""

    def ff(q, x):
        return jax.nn.silu(rms(x, q["a"]) @ q["w1"]) @ q["w2"]

    def apply(p, x):
        x = x @ p["in"]
        x = x + 0.5 * ff(p["f1"], x)
        h = jax.lax.conv_general_dilated(
            rms(x, p["cn"]),
            p["c"],
            (1,),
            "SAME",
            dimension_numbers=("NHC", "HIO", "NHC"),
            feature_group_count=D,
        )
        x = x + rms(h, p["post"]) @ p["pw"]
        x = x + 0.5 * ff(p["f2"], x)
        return x @ p["out"]

    f = {"a": floats(D), "w1": floats(D, F), "w2": floats(F, D)}
    params = {
        "in": floats(7, D),
        "f1": f,
        "cn": floats(D),
        "c": floats(3, 1, D),
        "post": floats(D),
        "pw": floats(D, D),
        "f2": f,
        "out": floats(D, 3),
    }
    truth = {
        "in": kernel(7, D),
        "cn": scale(),
        "c": convolution(3, 3, 0, 1, 2, groups=D),
        "post": scale(),
        "pw": kernel(D, D, residual=(1, 3)),
        "out": kernel(D, 3, head=True),
    }
    for i, name in enumerate(("f1", "f2")):
        truth |= {
            f"{name}/a": scale(),
            f"{name}/w1": kernel(D, F, function="silu"),
            f"{name}/w2": kernel(F, D, residual=(2 * i, 3), multiplier=0.5),
        }
    return Model(apply, params, (floats(B, T, 7),), truth)


@model
def positive_kernels() -> Model:
    """Amos et al. 2017 (ICNN): kernels behind a softplus, plain ones of the input."""

    def apply(p, x):
        z = jax.nn.softplus(x @ p["w0"] + p["b0"])
        for q in p["layers"]:
            z = jax.nn.softplus(z @ jax.nn.softplus(q["z"]) + x @ q["x"] + q["b"])
        return z.sum(-1)

    q = {"z": floats(F, F), "x": floats(7, F), "b": floats(F)}
    params = {"w0": floats(7, F), "b0": floats(F), "layers": [q] * 2}
    truth = {"w0": kernel(7, F, function="softplus"), "b0": bias("w0")}
    for i in range(2):
        truth |= {
            f"layers/{i}/z": unknown(),
            f"layers/{i}/x": kernel(7, F, function="softplus", head=i == 1),
            f"layers/{i}/b": bias(ANY),
        }
    return Model(apply, params, (floats(B, 7),), truth)


@model
def equilibrium() -> Model:
    """Bai et al. 2019 (DEQ): a fixed point by a loop that stops when it is near."""

    def apply(p, x):
        u = x @ p["u"] + p["b"]

        def step(z):
            return jnp.tanh(z @ p["w"] + u)

        def near(carry):
            i, z, old = carry
            return (i < 20) & (jnp.abs(z - old).max() > 1e-3)

        z0 = jnp.zeros_like(u)
        start = (0, step(z0), z0)
        _, z, _ = jax.lax.while_loop(
            near, lambda c: (c[0] + 1, step(c[1]), c[1]), start
        )
        return step(z) @ p["out"]

    params = {"u": floats(7, F), "b": floats(F), "w": floats(F, F), "out": floats(F, 3)}
    # Debatable: rounds to a fixed point are time, or depth.
    w = functools.partial(kernel, F, F, function="tanh")
    truth = {
        # Debatable: read in several places, each with a tanh.
        "u": kernel(7, F, function=ANY),
        "b": bias("u"),
        # Outside of the loop, what is told is added to what was made of it.
        "w": [w(), w(recurrent=ANY), w(residual=ANY, function=ANY)],
        "out": kernel(F, 3, head=True),
    }
    return Model(apply, params, (floats(B, 7),), truth)


@model
def gated_steps() -> Model:
    """Parisotto et al. 2020 (GTrXL, output gates): x + sigmoid(x W) y, and ReZero."""

    def apply(p, x):
        x = x @ p["in"]
        for q in p["layers"]:
            y = jnp.square(jax.nn.relu(ln(x, q["n"]) @ q["w1"])) @ q["w2"]
            x = x + jax.nn.sigmoid(x @ q["g"] - q["gb"]) * y
        for q in p["rezero"]:
            x = x + q["alpha"] * (jax.nn.gelu(x @ q["w1"] + q["b1"]) @ q["w2"])
        return x @ p["out"]

    vec = {"scale": floats(D), "bias": floats(D)}
    one = {"n": vec, "w1": floats(D, F), "w2": floats(F, D)}
    one |= {"g": floats(D, D), "gb": floats(D)}
    two = {"alpha": floats(), "w1": floats(D, F), "b1": floats(F), "w2": floats(F, D)}
    params = {
        "in": floats(7, D),
        "layers": [one] * 2,
        "rezero": [two] * 2,
        "out": floats(D, 3),
    }
    truth = {"in": kernel(7, D), "out": kernel(D, 3, head=True)}
    for i in range(2):
        truth |= norm(f"layers/{i}/n") | {
            f"layers/{i}/w1": kernel(D, F, function=UNNAMED),
            f"layers/{i}/w2": kernel(F, D, part="up", residual=(i, 4)),
            f"layers/{i}/g": kernel(
                D, D, function="sigmoid", part="gate", residual=ANY
            ),
            f"layers/{i}/gb": bias(f"layers/{i}/g", part="gate", multiplier=-1.0),
            f"rezero/{i}/alpha": gate(()),
            f"rezero/{i}/w1": kernel(D, F, function="gelu"),
            f"rezero/{i}/b1": bias(f"rezero/{i}/w1"),
            f"rezero/{i}/w2": kernel(F, D, residual=(2 + i, 4)),
        }
    return Model(apply, params, (floats(B, 7),), truth)
