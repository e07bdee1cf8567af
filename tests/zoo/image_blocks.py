"""Plain functions: blocks of images with gates, chosen kernels, and maps."""

import jax
import jax.numpy as jnp
from jax import lax

from zoo.layers import affine, conv, grow, linear, normed
from zoo.truths import (
    ANY,
    WRITES,
    Model,
    bias,
    convolution,
    dense,
    floats,
    gate,
    kernel,
    model,
    scale,
    shift,
    unknown,
)

B, C, O = 2, 6, 5  # noqa: E741


@model
def selective_kernels() -> Model:
    """Li et al. 2019 (SKNet): a softmax chooses between two windows, by channel."""
    narrow = 4

    def apply(p, x):
        a = jax.nn.relu(conv(x, p["a"]) + p["a_b"])
        b = jax.nn.relu(conv(x, p["b"], dilation=2) + p["b_b"])
        s = jax.nn.relu((a + b).mean((1, 2)) @ p["squeeze"])
        w = jax.nn.softmax(jnp.stack([s @ p["to_a"], s @ p["to_b"]]), axis=0)
        w = w[:, :, None, None]
        return conv(w[0] * a + w[1] * b, p["last"])

    params = {
        "a": floats(3, 3, 3, C), "a_b": floats(C), "b": floats(3, 3, 3, C),
        "b_b": floats(C), "squeeze": floats(C, narrow), "to_a": floats(narrow, C),
        "to_b": floats(narrow, C), "last": floats(1, 1, C, O),
    }  # fmt: skip
    truth = {
        # Debatable: other factors of a choice, but with a function of their own.
        "a": convolution(27, 9 * C, function="relu"),
        "a_b": bias("a"),
        "b": convolution(27, 9 * C, function="relu"),
        "b_b": bias("b"),
        "squeeze": kernel(C, narrow, function="relu"),
        "to_a": kernel(narrow, C, part=ANY, function=ANY),
        "to_b": kernel(narrow, C, part=ANY, function=ANY),
        "last": convolution(C, O, head=True),
    }
    return Model(apply, params, (floats(B, 8, 8, 3),), truth)


@model
def convolutional_attention() -> Model:
    """Woo et al. 2018 (CBAM): one network for mean and maximum; a map of places."""
    narrow = 3

    def apply(p, x):
        x = jax.nn.relu(conv(x, p["w"]) + p["b"])

        def mlp(y):
            return jax.nn.relu(y @ p["m1"]) @ p["m2"]

        c = jax.nn.sigmoid(mlp(x.mean((1, 2))) + mlp(x.max((1, 2))))
        x = x * c[:, None, None, :]
        s = jnp.stack([x.mean(-1), x.max(-1)], axis=-1)
        x = x * jax.nn.sigmoid(conv(s, p["place"]))
        return x.mean((1, 2)) @ p["fc"]

    params = {
        "w": floats(3, 3, 3, C), "b": floats(C), "m1": floats(C, narrow),
        "m2": floats(narrow, C), "place": floats(5, 5, 2, 1), "fc": floats(C, O),
    }  # fmt: skip
    gates = {"function": "sigmoid", "part": "gate"}
    truth = {
        "w": convolution(27, 9 * C, function="relu"),
        "b": bias("w"),
        "m1": [kernel(C, narrow, function="relu")] * 2,
        "m2": [kernel(narrow, C, **gates)] * 2,
        "place": convolution(50, 25, **gates),
        "fc": kernel(C, O, head=True),
    }
    return Model(apply, params, (floats(B, 8, 8, 3),), truth)


@model
def gated_skips() -> Model:
    """Oktay et al. 2018 (attention U-Net): the skip is gated by what is below."""

    def apply(p, x):
        skip = jax.nn.relu(conv(x, p["enc"]) + p["enc_b"])
        low = jax.nn.relu(conv(skip, p["mid"], 2) + p["mid_b"])
        g = grow(low)
        a = jax.nn.relu(conv(skip, p["wx"]) + conv(g, p["wg"]) + p["wb"])
        a = jax.nn.sigmoid(conv(a, p["psi"]) + p["psi_b"])
        y = jnp.concatenate([skip * a, g], axis=-1)
        y = jax.nn.relu(conv(y, p["dec"]) + p["dec_b"])
        return conv(y, p["last"]) + p["last_b"]

    params = {
        "enc": floats(3, 3, 3, C), "enc_b": floats(C), "mid": floats(3, 3, C, 8),
        "mid_b": floats(8), "wx": floats(1, 1, C, 4), "wg": floats(1, 1, 8, 4),
        "wb": floats(4), "psi": floats(1, 1, 4, 1), "psi_b": floats(1),
        "dec": floats(3, 3, C + 8, C), "dec_b": floats(C), "last": floats(1, 1, C, O),
        "last_b": floats(O),
    }  # fmt: skip
    truth = {
        "enc": convolution(27, 9 * C, function="relu"),
        "enc_b": bias("enc"),
        "mid": convolution(9 * C, 72, function="relu"),
        "mid_b": bias("mid"),
        "wx": convolution(C, 4, function="relu"),
        "wg": convolution(8, 4, function="relu"),
        "wb": bias(["wx", "wg"]),
        "psi": convolution(4, 1, function="sigmoid", part="gate"),
        "psi_b": bias("psi", (), part="gate"),
        "dec": convolution(9 * (C + 8), 9 * C, function="relu"),
        "dec_b": bias("dec"),
        "last": convolution(C, O, head=True),
        "last_b": bias("last"),
    }
    return Model(apply, params, (floats(B, 8, 8, 3),), truth)


@model
def pooled_mixing() -> Model:
    """Yu et al. 2022 (PoolFormer): means of neighbours mix places; LayerScale."""

    def group_norm(x, p):
        return normed(x, (1, 2, 3)) * p["g"] + p["b"]

    def apply(p, x):
        x = conv(x, p["embed"], 2)
        for q in p["blocks"]:
            h = group_norm(x, q["n1"])
            m = lax.reduce_window(h, 0.0, lax.add, (1, 3, 3, 1), (1, 1, 1, 1), "SAME")
            x = x + q["ls1"] * (m / 9 - h)
            h = group_norm(x, q["n2"])
            h = jax.nn.gelu(jnp.tensordot(h, q["up"], 1) + q["up_b"])
            x = x + q["ls2"] * (jnp.tensordot(h, q["down"], 1) + q["down_b"])
        return jnp.tensordot(normed(x, (1, 2, 3)).mean((1, 2)), p["fc"], 1)

    n = {"g": floats(C), "b": floats(C)}
    block = {
        "n1": n, "n2": n, "ls1": floats(C), "ls2": floats(C), "up": floats(C, 10),
        "up_b": floats(10), "down": floats(10, C), "down_b": floats(C),
    }  # fmt: skip
    params = {"embed": floats(3, 3, 3, C), "blocks": [block] * 2, "fc": floats(C, O)}
    truth = {
        "embed": convolution(27, 9 * C),
        "fc": kernel(C, O, head=True),
    }
    for i in range(2):
        path = f"blocks/{i}"
        truth |= {f"{path}/n{j}/g": scale() for j in (1, 2)}
        truth |= {f"{path}/n{j}/b": shift() for j in (1, 2)}
        truth |= {
            f"{path}/ls1": gate(0),
            f"{path}/ls2": gate(0),
            f"{path}/up": kernel(C, 10, function="gelu"),
            f"{path}/up_b": bias(f"{path}/up"),
            # Debatable: whether a branch without kernels counts as a writer.
            f"{path}/down": kernel(10, C, residual=WRITES),
            f"{path}/down_b": bias(f"{path}/down"),
        }
    return Model(apply, params, (floats(B, 8, 8, 3),), truth)


@model
def chosen_kernels() -> Model:
    """Yang et al. 2019 (CondConv): every image has its own mixture of kernels."""
    experts = 4

    def apply(p, x):
        x = jax.nn.relu(conv(x, p["stem"]))
        r = jax.nn.sigmoid(x.mean((1, 2)) @ p["route"] + p["route_b"])
        w = jnp.einsum("be,ehwio->bhwio", r, p["bank"])
        y = jax.vmap(lambda x, w: conv(x[None], w)[0])(x, w)
        return linear(p["fc"], jax.nn.relu(y).mean((1, 2)))

    params = {
        "stem": floats(3, 3, 3, C), "route": floats(C, experts),
        "route_b": floats(experts), "bank": floats(experts, 3, 3, C, 7),
        "fc": affine(7, O),
    }  # fmt: skip
    truth = {
        "stem": convolution(27, 9 * C, function="relu"),
        "route": kernel(C, experts, function="sigmoid", part=ANY),
        "route_b": bias("route", part=ANY),
        # A kernel that is a sum of products of activations and leaves.
        "bank": unknown(),
        **dense("fc", 7, O, head=True),
    }
    return Model(apply, params, (floats(B, 8, 8, 3),), truth)


@model
def modulated_by_a_map() -> Model:
    """Park et al. 2019 (SPADE): windows of a segmentation scale and shift a norm."""

    def spade(p, x, m):
        h = jax.nn.relu(conv(m, p["shared"]) + p["shared_b"])
        g = conv(h, p["gamma"]) + p["gamma_b"]
        return normed(x) * (1 + g) + conv(h, p["beta"]) + p["beta_b"]

    def apply(p, z, m):
        x = (z @ p["fc"]).reshape(B, 8, 8, C)
        y = conv(jax.nn.leaky_relu(spade(p["one"], x, m), 0.2), p["w1"])
        x = x + conv(jax.nn.leaky_relu(spade(p["two"], y, m), 0.2), p["w2"])
        return jnp.tanh(conv(x, p["rgb"]))

    s = {
        "shared": floats(3, 3, 4, 5),
        "shared_b": floats(5),
        "gamma": floats(3, 3, 5, C),
        "gamma_b": floats(C),
        "beta": floats(3, 3, 5, C),
        "beta_b": floats(C),
    }
    params = {
        "fc": floats(7, 64 * C), "one": s, "two": s, "w1": floats(3, 3, C, C),
        "w2": floats(3, 3, C, C), "rgb": floats(3, 3, C, 3),
    }  # fmt: skip
    n = 9 * C
    truth = {
        "fc": kernel(7, 64 * C),
        "w1": convolution(n, n, function="identity"),
        "w2": convolution(n, n, residual=(0, 1)),
        "rgb": convolution(n, 27, function="tanh", head=True),
    }
    for name in ("one", "two"):
        # Debatable: added to what is modulated, (x + beta) + b, and read by a function.
        truth |= {
            f"{name}/shared": convolution(36, 45, function="relu"),
            f"{name}/shared_b": bias(f"{name}/shared"),
            f"{name}/gamma": convolution(45, n, part=ANY),
            f"{name}/gamma_b": bias(f"{name}/gamma", part=ANY),
            f"{name}/beta": convolution(45, n, function=ANY, part=ANY),
            f"{name}/beta_b": bias(f"{name}/beta", part=ANY),
        }
    return Model(apply, params, (floats(B, 7), floats(B, 8, 8, 4)), truth)
