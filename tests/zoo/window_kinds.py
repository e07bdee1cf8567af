"""Plain functions: networks of images with layouts and blocks of their own."""

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
    kernel,
    model,
    one_of,
    scale,
    shift,
)

B, C, O = 2, 6, 5  # noqa: E741
NCHW = ("NCHW", "OIHW", "NCHW")


def first(fan_in, fan_out, **rest):
    """A kernel (outputs, inputs, rows, columns)."""
    return convolution(fan_in, fan_out, (2, 3), 1, 0, **rest)


def pool(x):
    y = lax.reduce_window(x, 0.0, lax.add, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
    return y / 4


@model
def reparameterizable() -> Model:
    """Ding et al. 2021 (RepVGG): a window, a point and an identity, each normed."""

    def bn(x, g, b):
        return normed(x, (0, 2, 3)) * g[:, None, None] + b[:, None, None]

    def apply(p, x):
        x = jax.nn.relu(conv(x, p["stem"], layout=NCHW))
        for q in p["blocks"]:
            y = bn(conv(x, q["w3"], layout=NCHW), q["g3"], q["b3"])
            y += bn(conv(x, q["w1"], layout=NCHW), q["g1"], q["b1"])
            x = jax.nn.relu(y + bn(x, q["g0"], q["b0"]))
        return jnp.einsum("oc,bchw->bo", p["fc"], x) / 36

    block = {"w3": floats(C, C, 3, 3), "w1": floats(C, C, 1, 1)}
    block |= {n: floats(C) for n in ("g3", "b3", "g1", "b1", "g0", "b0")}
    params = {"stem": floats(C, 3, 3, 3), "blocks": [block] * 2, "fc": floats(O, C)}
    truth = {
        "stem": first(27, 9 * C, function="relu"),
        # Debatable: whether places are summed by the contraction, or before it.
        "fc": kernel(ANY, O, 1, 0, head=True, multiplier=ANY),
    }
    for i in range(2):
        # Debatable: an identity that is normed is hardly a stream.
        truth[f"blocks/{i}/w3"] = first(9 * C, 9 * C, residual=ANY)
        truth[f"blocks/{i}/w1"] = first(C, C, residual=ANY)
        for n in "310":
            truth[f"blocks/{i}/g{n}"] = scale()
            truth[f"blocks/{i}/b{n}"] = shift()
    return Model(apply, params, (floats(B, 3, 6, 6),), truth)


@model
def patches_all_the_way() -> Model:
    """Trockman & Kolter 2022 (ConvMixer): depthwise with a skip, then points."""

    def bn(x, p):
        return normed(x, (0, 1, 2)) * p[0] + p[1]

    def apply(p, x):
        w, n = p["embed"]
        x = bn(jax.nn.gelu(conv(x, w, 2, padding="VALID")), n)
        for dw, n1, pw, b, n2 in p["layers"]:
            x = x + bn(jax.nn.gelu(conv(x, dw, groups=C)), n1)
            x = bn(jax.nn.gelu(jnp.einsum("bhwi,io->bhwo", x, pw) + b), n2)
        return linear(p["head"], x.mean((1, 2)))

    two = [floats(C), floats(C)]
    layer = [floats(5, 5, 1, C), two, floats(C, C), floats(C), two]
    params = {"embed": [floats(2, 2, 3, C), two], "layers": [layer] * 2}
    params["head"] = affine(C, O)
    truth = {
        "embed/0": convolution(12, 4 * C, function="gelu"),
        "embed/1/0": scale(),
        "embed/1/1": shift(),
        **dense("head", C, O, head=True),
    }
    for i in range(2):
        path = f"layers/{i}"
        truth |= {
            f"{path}/0": convolution(
                25, 25, groups=C, function="gelu", residual=(0, 1)
            ),
            f"{path}/1/0": scale(),
            f"{path}/1/1": shift(),
            f"{path}/2": kernel(C, C, function="gelu"),
            f"{path}/3": bias(f"{path}/2"),
            f"{path}/4/0": scale(),
            f"{path}/4/1": shift(),
        }
    return Model(apply, params, (floats(B, 8, 8, 3),), truth)


@model
def feature_pyramid() -> Model:
    """Lin et al. 2017: laterals, what comes from above, and one head for all scales."""
    sizes = (4, 6, 8)

    def apply(p, x):
        levels = []
        for q in p["down"]:
            x = jax.nn.silu(conv(x, q["w"], 2) + q["b"])
            levels.append(x)
        tops = [conv(c, w) for c, w in zip(levels, p["side"], strict=True)]
        tops[1] = tops[1] + grow(tops[2])
        tops[0] = tops[0] + grow(tops[1])
        return [conv(jax.nn.relu(t), p["head"]) + p["head_b"] for t in tops]

    fan = (3, *sizes)
    params = {
        "down": [
            {"w": floats(3, 3, a, b), "b": floats(b)}
            for a, b in zip(fan[:-1], sizes, strict=True)
        ],
        "side": [floats(1, 1, c, C) for c in sizes],
        "head": floats(3, 3, C, O),
        "head_b": floats(O),
    }
    head = convolution(9 * C, 9 * O, head=True)
    truth = {
        "head": [head] * 3,
        # One for each level.
        "head_b": [bias("head")] * 3,
    }
    for i, c in enumerate(sizes):
        truth[f"down/{i}/w"] = convolution(9 * fan[i], 9 * c, function="silu")
        truth[f"down/{i}/b"] = bias(f"down/{i}/w")
        # Debatable: sums of laterals are read by a ReLU, and by the level below.
        truth[f"side/{i}"] = convolution(c, C, function=ANY, residual=ANY)
    return Model(apply, params, (floats(B, 16, 16, 3),), truth)


@model
def larger_images() -> Model:
    """Lim et al. 2017 (EDSR) with the shuffle of Shi et al. 2016 (ESPCN)."""
    up = 2

    def shuffle(x):
        b, h, w, c = x.shape
        x = x.reshape(b, h, w, up, up, c // up**2).transpose(0, 1, 3, 2, 4, 5)
        return x.reshape(b, h * up, w * up, c // up**2)

    def apply(p, x):
        x = conv(x, p["head"]) + p["head_b"]
        y = x
        for w1, b1, w2, b2 in p["body"]:
            r = conv(jax.nn.relu(conv(y, w1) + b1), w2) + b2
            y = y + 0.1 * r
        x = x + conv(y, p["tail"])
        x = shuffle(conv(x, p["up"]) + p["up_b"])
        return conv(x, p["last"])

    block = [floats(3, 3, C, C), floats(C)] * 2
    params = {
        "head": floats(3, 3, 3, C), "head_b": floats(C), "body": [block] * 2,
        "tail": floats(3, 3, C, C), "up": floats(3, 3, C, 4 * C),
        "up_b": floats(4 * C), "last": floats(3, 3, C, 3),
    }  # fmt: skip
    n = 9 * C
    truth = {
        "head": convolution(27, n),
        "head_b": bias("head"),
        # Debatable: a stream within a branch of another.
        "tail": convolution(n, n, residual=WRITES),
        "up": convolution(n, 4 * n),
        "up_b": bias("up"),
        "last": convolution(n, 27, head=True),
    }
    for i in range(2):
        truth |= {
            f"body/{i}/0": convolution(n, n, function="relu"),
            f"body/{i}/1": bias(f"body/{i}/0"),
            f"body/{i}/2": convolution(n, n, residual=WRITES, multiplier=0.1),
            f"body/{i}/3": bias(f"body/{i}/2", multiplier=ANY),
        }
    return Model(apply, params, (floats(B, 6, 6, 3),), truth)


@model
def ghosts() -> Model:
    """Han et al. 2020 (GhostNet): half of the features are cheap ones of the others."""

    def ghost(p, x, act):
        y = act(conv(x, p["primary"]) * p["s1"] + p["b1"])
        z = act(conv(y, p["cheap"], groups=y.shape[-1]) * p["s2"] + p["b2"])
        return jnp.concatenate([y, z], axis=-1)

    def apply(p, x):
        x = jax.nn.relu(conv(x, p["stem"]))
        y = ghost(p["one"], x, jax.nn.relu)
        x = x + ghost(p["two"], y, lambda t: t)
        return linear(p["fc"], x.mean((1, 2)))

    def shapes(i, o):
        return {
            "primary": floats(1, 1, i, o), "s1": floats(o), "b1": floats(o),
            "cheap": floats(3, 3, 1, o), "s2": floats(o), "b2": floats(o),
        }  # fmt: skip

    params = {"stem": floats(3, 3, 3, C), "one": shapes(C, 4), "two": shapes(8, 3)}
    params["fc"] = affine(C, O)
    truth = {
        "stem": convolution(27, 9 * C, function="relu"),
        **dense("fc", C, O, head=True),
    }
    for name, i, o, function in (("one", C, 4, "relu"), ("two", 8, 3, "identity")):
        # Debatable: a factor right behind a kernel is a scale, its sum a bias; what is
        # concatenated may write to a stream in halves.
        open_ = {"residual": ANY if name == "two" else None}
        relu = one_of(function, "identity")
        truth |= {
            f"{name}/primary": convolution(
                i, o, function=relu, multiplier=ANY, **open_
            ),
            f"{name}/s1": scale(),
            f"{name}/b1": bias(ANY),
            f"{name}/cheap": convolution(
                9, 9, groups=o, function=relu, multiplier=ANY, **open_
            ),
            f"{name}/s2": scale(),
            f"{name}/b2": bias(ANY),
        }
    return Model(apply, params, (floats(B, 8, 8, 3),), truth)


@model
def two_frequencies() -> Model:
    """Chen et al. 2019 (OctConv): four kernels between a fine and a coarse half."""

    def octave(p, h, l):  # noqa: E741
        high = conv(h, p["hh"]) + grow(conv(l, p["lh"]))
        low = conv(l, p["ll"]) + conv(pool(h), p["hl"])
        return jax.nn.relu(high), jax.nn.relu(low)

    def apply(p, x):
        h = jax.nn.relu(conv(x, p["first_h"]))
        l = jax.nn.relu(conv(pool(x), p["first_l"]))  # noqa: E741
        h, l = octave(p["mid"], h, l)  # noqa: E741
        return h.mean((1, 2)) @ p["fc_h"] + l.mean((1, 2)) @ p["fc_l"]

    params = {
        "first_h": floats(3, 3, 3, C),
        "first_l": floats(3, 3, 3, 4),
        "mid": {
            "hh": floats(3, 3, C, C),
            "lh": floats(3, 3, 4, C),
            "ll": floats(3, 3, 4, 4),
            "hl": floats(3, 3, C, 4),
        },
        "fc_h": floats(C, O),
        "fc_l": floats(4, O),
    }
    truth = {
        "first_h": convolution(27, 9 * C, function="relu"),
        "first_l": convolution(27, 36, function="relu"),
        "mid/hh": convolution(9 * C, 9 * C, function="relu"),
        "mid/lh": convolution(36, 9 * C, function="relu"),
        "mid/ll": convolution(36, 36, function="relu"),
        "mid/hl": convolution(9 * C, 36, function="relu"),
        "fc_h": kernel(C, O, head=True),
        "fc_l": kernel(4, O, head=True),
    }
    return Model(apply, params, (floats(B, 8, 8, 3),), truth)
