"""Plain functions: flows, coders, and networks that judge others."""

import jax
import jax.numpy as jnp

from zoo.layers import affine, conv, linear
from zoo.truths import (
    ANY,
    Model,
    Use,
    bias,
    convolution,
    dense,
    embedding,
    floats,
    integers,
    kernel,
    model,
    one_of,
    scale,
    unknown,
)

B, N, H, A = 3, 6, 9, 4


@model
def planar_steps() -> Model:
    """Rezende & Mohamed 2015: z + u tanh(w z + b), and the logarithms of its volume."""

    def apply(p, z):
        volume = 0.0
        for q in p:
            t = jnp.tanh(z @ q["w"] + q["b"])
            volume += jnp.log(jnp.abs(1 + (1 - t**2) * (q["w"] @ q["u"])))
            z = z + t[:, None] * q["u"]
        return z, volume

    params = [{"w": floats(N), "u": floats(N), "b": floats()}] * 3
    truth = {}
    for i in range(3):
        # The volume has a product of both vectors, which hides what they are there.
        # Debatable: a vector that a number multiplies ends a branch, as a gate does.
        w = kernel(N, 1, 0, (), function=ANY, residual=ANY)
        truth[f"{i}/w"] = [w, unknown()]
        truth[f"{i}/u"] = [unknown(), Use(one_of("gate", "scale"), out_axis=0)]
        truth[f"{i}/b"] = bias(ANY, ())
    return Model(apply, params, (floats(B, N),), truth)


@model
def additive_couplings() -> Model:
    """Dinh et al. 2014 (NICE): shifts by half of the input, a diagonal of scales."""
    half = N // 2

    def apply(p, x):
        a, b = x[:, ::2], x[:, 1::2]
        for q in p["coupling"]:
            m = linear(q[2], jax.nn.relu(linear(q[1], jax.nn.relu(linear(q[0], a)))))
            a, b = b + m, a
        return jnp.concatenate([a, b], 1) * jnp.exp(p["s"]), p["s"].sum()

    layers = [affine(half, H), affine(H, H), affine(H, half)]
    params = {"coupling": [layers] * 4, "s": floats(N)}
    truth = {"s": unknown()}
    for i in range(4):
        # Debatable: whether halves are streams, which all couplings write to.
        last = {"residual": ANY, "head": ANY}
        path = f"coupling/{i}"
        truth |= dense(f"{path}/0", half, H, function="relu")
        truth |= dense(f"{path}/1", H, H, function="relu")
        truth |= dense(f"{path}/2", H, half, **last)
    return Model(apply, params, (floats(B, N),), truth)


@model
def triangular_points() -> Model:
    """Kingma & Dhariwal 2018 (Glow) with its point kernel as a product of triangles."""

    def apply(p, x):
        x = (x + p["act_b"]) * p["act_s"]
        lower = jnp.tril(p["l"], -1) + jnp.eye(A)
        upper = jnp.triu(p["u"], 1) + jnp.diag(jnp.exp(p["log_s"]))
        x = jnp.einsum("bhwi,ij->bhwj", x, lower @ upper)
        a, b = jnp.split(x, 2, axis=-1)
        h = jax.nn.relu(conv(a, p["c1"]) + p["c1_b"])
        h = conv(jax.nn.relu(conv(h, p["c2"]) + p["c2_b"]), p["c3"])
        s, t = jnp.split(h, 2, axis=-1)
        b = (b + t) * jax.nn.sigmoid(s + 2.0)
        return jnp.concatenate([a, b], axis=-1)

    params = {
        "act_b": floats(A), "act_s": floats(A), "l": floats(A, A), "u": floats(A, A),
        "log_s": floats(A), "c1": floats(3, 3, 2, H), "c1_b": floats(H),
        "c2": floats(1, 1, H, H), "c2_b": floats(H), "c3": floats(3, 3, H, A),
    }  # fmt: skip
    halves = [(3, ((0, 2),), ANY, "sigmoid"), (3, ((2, 4),), ANY, "identity")]
    truth = {
        # Debatable: nothing is before it.
        "act_b": bias(ANY, multiplier=ANY),
        "act_s": scale(),
        "l": unknown(),
        "u": unknown(),
        "log_s": unknown(),
        "c1": convolution(18, 9 * H, function="relu"),
        "c1_b": bias("c1"),
        "c2": convolution(H, H, function="relu"),
        "c2_b": bias("c2"),
        # Debatable: both halves meet the other half of the image.
        "c3": convolution(
            9 * H, 9 * A, function=ANY, residual=ANY, head=True, part=ANY,
            sections=halves,
        ),
    }  # fmt: skip
    return Model(apply, params, (floats(B, 4, 4, A),), truth)


@model
def own_target() -> Model:
    """Grill et al. 2020 (BYOL): a predictor on one side, cosines with the other."""

    def mlp(q, x):
        h = linear(q["a"], x)
        h = (h - h.mean(0)) * jax.lax.rsqrt(h.var(0) + 1e-5) * q["g"] + q["s"]
        return jax.nn.relu(h) @ q["b"]

    def apply(p, online, target):
        def unit(v):
            return v / jnp.sqrt(jnp.square(v).sum(-1, keepdims=True))

        z = mlp(p["predict"], mlp(p["online"], online))
        t = jax.lax.stop_gradient(mlp(p["target"], target))
        return 2 - 2 * (unit(z) * unit(t)).sum(-1)

    def shapes(i, o):
        return {"a": affine(i, H), "g": floats(H), "s": floats(H), "b": floats(H, o)}

    params = {"online": shapes(N, 5), "target": shapes(N, 5), "predict": shapes(5, 5)}
    truth = {}
    for name, i in (("online", N), ("target", N), ("predict", 5)):
        truth |= dense(f"{name}/a", i, H)
        truth |= {f"{name}/g": scale(), f"{name}/s": bias(None)}
        # Debatable: an inner product of two towers has no contraction by a kernel.
        head = name != "online"
        truth[f"{name}/b"] = kernel(H, 5, head=head, function=ANY)
    return Model(apply, params, (floats(B, N), floats(B, N)), truth)


@model
def critic_of_classes() -> Model:
    """Miyato & Koyama 2018: a label's row projects features; a generator with FiLM."""

    def apply(p, z, y):
        g, b = p["gain"][y], p["shift"][y]
        h = z @ p["g1"]
        h = (h - h.mean(0)) / jnp.sqrt(h.var(0) + 1e-5) * (1.0 + g) + b
        x = jnp.tanh(jax.nn.relu(h) @ p["g2"])
        f = jax.nn.leaky_relu(linear(p["d1"], x), 0.1)
        f = jax.nn.leaky_relu(linear(p["d2"], f), 0.1)
        return (f @ p["psi"])[:, 0] + (p["label"][y] * f).sum(-1)

    params = {
        "gain": floats(8, H), "shift": floats(8, H), "g1": floats(N, H),
        "g2": floats(H, 7), "d1": affine(7, H), "d2": affine(H, H), "psi": floats(H, 1),
        "label": floats(8, H),
    }  # fmt: skip
    truth = {
        "gain": embedding(H),
        "shift": embedding(H),
        "g1": kernel(N, H),
        "g2": kernel(H, 7, function="tanh"),
        **dense("d1", 7, H, function="leaky_relu"),
        **dense("d2", H, H, function="leaky_relu"),
        "psi": kernel(H, 1, head=True),
        # Debatable: a row that is contracted with features.
        "label": embedding(H, head=ANY),
    }
    return Model(apply, params, (floats(B, N), integers(B)), truth)


@model
def nearest_codes() -> Model:
    """Van den Oord et al. 2017 with products for distances, straight through."""
    codes = 7

    def apply(p, x):
        h = jax.nn.gelu(conv(x, p["e1"], 2) + p["e1_b"])
        z = conv(h, p["e2"])
        near = jnp.argmax(jnp.einsum("bhwd,kd->bhwk", z, p["book"]), -1)
        q = p["book"][near]
        q = z + jax.lax.stop_gradient(q - z)
        h = jax.nn.gelu(conv(q, p["d1"]) + p["d1_b"])
        h = jnp.repeat(jnp.repeat(h, 2, 1), 2, 2)
        return conv(h, p["d2"])

    params = {
        "e1": floats(3, 3, 3, H), "e1_b": floats(H), "e2": floats(1, 1, H, N),
        "book": floats(codes, N), "d1": floats(3, 3, N, H), "d1_b": floats(H),
        "d2": floats(3, 3, H, 3),
    }  # fmt: skip
    truth = {
        "e1": convolution(27, 9 * H, function="gelu"),
        "e1_b": bias("e1"),
        # Debatable: its output goes on as it is, and is compared with codes.
        "e2": convolution(H, N, function=ANY, residual=ANY),
        # Debatable: whether choosing by products is a use as a kernel's head.
        "book": [kernel(N, codes, 1, 0, head=ANY), embedding(N, residual=ANY)],
        "d1": convolution(9 * N, 9 * H, function="gelu"),
        "d1_b": bias("d1"),
        "d2": convolution(9 * H, 27, head=True),
    }
    return Model(apply, params, (floats(B, 8, 8, 3),), truth)


@model
def tied_halves() -> Model:
    """An autoencoder whose decoder is its encoder turned; a mask of inputs."""

    def apply(p, x, keep):
        h = jax.nn.sigmoid((x * keep) @ p["w1"] + p["b1"])
        z = jax.nn.sigmoid(h @ p["w2"] + p["b2"])
        h = jax.nn.sigmoid(z @ p["w2"].T + p["c2"])
        return jnp.dot(h, jnp.swapaxes(p["w1"], 0, 1)) + p["c1"]

    params = {"w1": floats(N, H), "b1": floats(H), "w2": floats(H, A), "b2": floats(A)}
    params |= {"c2": floats(H), "c1": floats(N)}
    truth = {
        "w1": [kernel(N, H, function="sigmoid"), kernel(H, N, 1, 0, head=True)],
        "b1": bias("w1"),
        "w2": [kernel(H, A, function="sigmoid"), kernel(A, H, 1, 0, "sigmoid")],
        "b2": bias("w2"),
        "c2": bias("w2"),
        "c1": bias("w1"),
    }
    return Model(apply, params, (floats(B, N), floats(B, N)), truth)
