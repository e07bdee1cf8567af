"""Images by hand: adversaries with bounded weights, skips that are added, flows."""

import jax
import jax.numpy as jnp

from zoo.truths import (
    ANY,
    Model,
    bias,
    convolution,
    dense,
    either,
    embedding,
    floats,
    integers,
    kernel,
    model,
    scale,
    shift,
    statistic,
    unknown,
)

NHWC = ("NHWC", "HWIO", "NHWC")
B = 2


def conv(x, w, stride=1, groups=1):
    return jax.lax.conv_general_dilated(
        x, w, (stride, stride), "SAME", dimension_numbers=NHWC,
        feature_group_count=groups,
    )  # fmt: skip


@model
def resnet_of_the_course() -> Model:
    """Fast.ai's ResBlocks: means before a 1x1 shortcut; norms end the branches."""

    def conv(x, w, stride=1):
        return jax.lax.conv_general_dilated(
            x, w, (stride, stride), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    def bn(x, g, b):
        m, v = x.mean((0, 1, 2)), x.var((0, 1, 2))
        return g * ((x - m) / jnp.sqrt(v + 1e-5)) + b

    def conv_layer(p, x, stride=1, act=True):
        x = bn(conv(x, p["w"], stride), p["g"], p["b"])
        return jax.nn.relu(x) if act else x

    def block(p, x, stride):
        y = conv_layer(p["conv2"], conv_layer(p["conv1"], x, stride), act=False)
        if stride == 2:
            n, h, w, c = x.shape
            x = x.reshape(n, h // 2, 2, w // 2, 2, c).mean((2, 4))
        if "idconv" in p:
            x = conv_layer(p["idconv"], x, act=False)
        return jax.nn.relu(x + y)

    def apply(p, x):
        x = conv_layer(p["stem"], x)
        for layer, stride in zip(p["body"], (1, 2, 1), strict=True):
            x = block(layer, x, stride)
        return x.mean((1, 2)) @ p["head"]["w"] + p["head"]["b"]

    def layer(k, a, b):
        return {"w": floats(k, k, a, b), "g": floats(b), "b": floats(b)}

    def told(path, k, a, b, **rest):
        return {
            f"{path}/w": convolution(k * k * a, k * k * b, **rest),
            f"{path}/g": scale(),
            f"{path}/b": shift(),
        }

    sizes = ((6, 6), (6, 8), (8, 8))
    body, truth = [], told("stem", 3, 3, 6)
    for i, (a, b) in enumerate(sizes):
        one = {"conv1": layer(3, a, b), "conv2": layer(3, b, b)}
        truth |= told(f"body/{i}/conv1", 3, a, b)
        truth |= told(f"body/{i}/conv2", 3, b, b, residual=(i, 3))
        if a != b:
            one["idconv"] = layer(1, a, b)
            # Debatable: which of two sums goes on with the stream.
            truth |= told(f"body/{i}/idconv", 1, a, b, residual=ANY)
        body.append(one)
    params = {"stem": layer(3, 3, 6), "body": body}
    params["head"] = {"w": floats(8, 5), "b": floats(5)}
    truth |= dense("head", 8, 5, weight="w", offset="b", head=True)
    return Model(apply, params, (floats(2, 8, 8, 3),), truth)


@model
def adversaries_that_are_bounded() -> Model:
    """Miyato et al. 2018 (SN-GAN), both nets and their hinge losses in one function.

    One step of power iteration starts at leaves, which nobody trains.
    """
    latent, c = 7, 6

    def bounded(w, u):
        m = w.reshape(-1, w.shape[-1])
        v = m @ u
        v = v / (jnp.linalg.norm(v) + 1e-12)
        u = m.T @ v
        u = u / (jnp.linalg.norm(u) + 1e-12)
        u, v = jax.lax.stop_gradient(u), jax.lax.stop_gradient(v)
        return w / (v @ m @ u)

    def generate(p, z):
        h = jax.nn.relu(z @ p["fc"]["w"] + p["fc"]["b"]).reshape(-1, 3, 2, 10)
        h = jax.lax.conv_transpose(h, p["up1"]["w"], (2, 2), "SAME") + p["up1"]["b"]
        m, v = h.mean((0, 1, 2)), h.var((0, 1, 2))
        h = (h - m) * jax.lax.rsqrt(v + 1e-5) * p["bn"]["gamma"] + p["bn"]["beta"]
        h = jax.lax.conv_transpose(jax.nn.relu(h), p["up2"]["w"], (2, 2), "SAME")
        return jnp.tanh(h + p["up2"]["b"])

    def judge(p, x):
        for q in p["convs"]:
            x = conv(x, bounded(q["w"], q["u"]), 2) + q["b"]
            x = jax.nn.leaky_relu(x, 0.1)
        x = x.sum((1, 2))
        return x @ bounded(p["out"]["w"], p["out"]["u"]) + p["out"]["b"]

    def apply(p, z, real):
        fake = generate(p["G"], z)
        d_real, d_fake = judge(p["D"], real), judge(p["D"], fake)
        d_loss = jax.nn.relu(1 - d_real).mean() + jax.nn.relu(1 + d_fake).mean()
        return d_loss, -d_fake.mean(), fake

    def layer(a, b):
        return {"w": floats(3, 3, a, b), "u": floats(b), "b": floats(b)}

    params = {
        "G": {
            "fc": {"w": floats(latent, 60), "b": floats(60)},
            "up1": {"w": floats(4, 4, 10, 8), "b": floats(8)},
            "bn": {"gamma": floats(8), "beta": floats(8)},
            "up2": {"w": floats(4, 4, 8, 3), "b": floats(3)},
        },
        "D": {
            "convs": [layer(3, c), layer(c, 9)],
            "out": {"w": floats(9, 1), "u": floats(1), "b": floats(1)},
        },
    }
    # Every pixel of a window of 4 x 4 that moves by 2 has 4 terms for each channel.
    grown = {"transposed": True}
    truth = {
        **dense("G/fc", latent, 60, "w", "b", function="relu"),
        "G/up1/w": convolution(40, 16 * 8, **grown),
        "G/up1/b": bias("G/up1/w"),
        "G/bn/gamma": scale(),
        "G/bn/beta": shift(),
        # Debatable: it is returned, and judged.
        "G/up2/w": convolution(32, 16 * 3, function="tanh", head=ANY, **grown),
        "G/up2/b": bias("G/up2/w"),
        # Debatable: a kernel that is a function of two leaves is behind the biases.
        "D/out/w": [unknown()],
        "D/out/u": [unknown()],
        "D/out/b": [bias(ANY, ())] * 2,
    }
    for i in range(2):
        truth |= {
            f"D/convs/{i}/w": [unknown()], f"D/convs/{i}/u": [unknown()],
            f"D/convs/{i}/b": [bias(ANY)] * 2,
        }  # fmt: skip
    inputs = (floats(5, latent), floats(5, 12, 8, 3))
    return Model(apply, params, inputs, truth)


@model
def skips_that_are_added() -> Model:
    """Chaurasia and Culurciello 2017 (LinkNet), channels first: skips by addition.

    Norms have running statistics; nearest pixels grow the maps.
    """
    c = (6, 8, 10)

    def layer(p, x, stride=1):
        y = jax.lax.conv_general_dilated(
            x, p["w"], (stride, stride), "SAME",
            dimension_numbers=("NCHW", "OIHW", "NCHW"),
        )  # fmt: skip
        m, v, g, b = (
            p[n][None, :, None, None] for n in ("mean", "var", "weight", "bias")
        )
        return jax.nn.relu((y - m) * (g / jnp.sqrt(v + 1e-5)) + b)

    def grown(x):
        n, k, h, w = x.shape
        return jax.image.resize(x, (n, k, 2 * h, 2 * w), "nearest")

    def apply(p, x):
        e0 = layer(p["stem"], x)
        e1 = layer(p["enc1"], e0, 2)
        e2 = layer(p["enc2"], e1, 2)
        d1 = layer(p["dec2"], grown(e2)) + e1
        d0 = layer(p["dec1"], grown(d1)) + e0
        y = jnp.einsum("nchw,kc->nkhw", d0, p["classes"]["w"])
        return y + p["classes"]["b"][:, None, None]

    sizes = {"stem": (3, c[0]), "enc1": c[:2], "enc2": c[1:], "dec2": (c[2], c[1])}
    sizes["dec1"] = (c[1], c[0])
    params = {"classes": {"w": floats(4, c[0]), "b": floats(4)}}
    truth = {
        "classes/w": kernel(c[0], 4, 1, 0, head=True),
        "classes/b": bias("classes/w"),
    }
    axes = {"spatial_axis": (2, 3), "in_axis": 1, "out_axis": 0}
    for name, (a, b) in sizes.items():
        params[name] = {"w": floats(b, a, 3, 3)}
        params[name] |= {n: floats(b) for n in ("mean", "var", "weight", "bias")}
        # Debatable: a skip is a stream, which what is behind a function is added to.
        free = {"residual": ANY} if name in ("dec1", "dec2") else {}
        truth |= {
            f"{name}/w": convolution(9 * a, 9 * b, **axes, **free),
            f"{name}/mean": statistic(),
            f"{name}/var": statistic(),
            f"{name}/weight": scale(),
            f"{name}/bias": shift(),
        }
    return Model(apply, params, (floats(B, 3, 8, 12),), truth)


@model
def standardized_windows() -> Model:
    """Qiao et al. 2019: windows less their means, over their deviations; group norms.

    A depthwise window between is plain.
    """
    c, groups, classes = 8, 4, 5

    def standardized(w):
        w = w - jnp.mean(w, axis=(0, 1, 2))
        return w / (jnp.std(w, axis=(0, 1, 2)) + 1e-5)

    def gn(x, p):
        n, h, w, k = x.shape
        y = x.reshape(n, h, w, groups, k // groups)
        m = jnp.mean(y, axis=(1, 2, 4), keepdims=True)
        v = jnp.mean(jnp.square(y - m), axis=(1, 2, 4), keepdims=True)
        return ((y - m) / jnp.sqrt(v + 1e-6)).reshape(x.shape) * p["g"] + p["b"]

    def apply(p, x):
        x = conv(x, standardized(p["stem"]))
        for q in p["blocks"]:
            h = conv(jax.nn.relu(gn(x, q["gn1"])), standardized(q["w1"])) + q["b1"]
            h = conv(jax.nn.relu(h), q["dw"], groups=2 * c)
            h = conv(jax.nn.relu(gn(h, q["gn2"])), q["w2"])
            x = x + h
        x = jax.nn.relu(gn(x, p["gn"])).mean((1, 2))
        return x @ p["fc"][0] + p["fc"][1]

    def gb(k):
        return {"g": floats(k), "b": floats(k)}

    block = {
        "gn1": gb(c), "w1": floats(1, 1, c, 2 * c), "b1": floats(2 * c),
        "dw": floats(3, 3, 1, 2 * c), "gn2": gb(2 * c), "w2": floats(1, 1, 2 * c, c),
    }  # fmt: skip
    params = {"stem": floats(3, 5, 3, c), "blocks": [block] * 2, "gn": gb(c)}
    params["fc"] = (floats(c, classes), floats(classes))

    def told(path):
        return {f"{path}/g": scale(), f"{path}/b": shift()}

    truth = {
        "stem": unknown(),
        **told("gn"),
        **dense("fc", c, classes, "0", "1", head=True),
    }
    for i in range(2):
        path = f"blocks/{i}"
        truth |= {
            **told(f"{path}/gn1"),
            f"{path}/w1": unknown(),
            # Debatable: its kernel is normalized.
            f"{path}/b1": bias(ANY),
            f"{path}/dw": convolution(9, 9, groups=2 * c),
            **told(f"{path}/gn2"),
            f"{path}/w2": convolution(2 * c, c, residual=(i, 2)),
        }
    return Model(apply, params, (floats(B, 6, 7, 3),), truth)


@model
def digits_by_label() -> Model:
    """Sohn et al. 2015 (CVAE) with its loss: labels in both halves; noise is given."""
    pixels, hidden, latent, labels = 21, 15, 5, 4

    def apply(p, x, label, eps):
        onehot = jax.nn.one_hot(label, labels)
        enc, dec = p
        h = jax.nn.softplus(jnp.hstack([x, onehot]) @ enc["W"] + enc["b"])
        mu = h @ enc["W_mu"] + enc["b_mu"]
        sigma = jnp.exp(h @ enc["W_sigma"] + enc["b_sigma"])
        z = mu + sigma * eps
        h = jax.nn.softplus(z @ dec["W"] + dec["label"][label] + dec["b"])
        logits = h @ dec["W_out"] + dec["b_out"]
        ce = jnp.maximum(logits, 0) - logits * x + jnp.log1p(jnp.exp(-jnp.abs(logits)))
        kl = 0.5 * (mu**2 + sigma**2 - 1 - 2 * jnp.log(sigma)).sum(-1)
        return (ce.sum(-1) + kl).mean(), jax.nn.sigmoid(logits)

    enc = {
        "W": floats(pixels + labels, hidden), "b": floats(hidden),
        "W_mu": floats(hidden, latent), "b_mu": floats(latent),
        "W_sigma": floats(hidden, latent), "b_sigma": floats(latent),
    }  # fmt: skip
    dec = {
        "W": floats(latent, hidden), "label": floats(labels, hidden),
        "b": floats(hidden), "W_out": floats(hidden, pixels), "b_out": floats(pixels),
    }  # fmt: skip
    # Debatable: both lead to others and to a loss; the noise is multiplied.
    spread = {"function": ANY, "multiplier": ANY, "head": ANY, "part": ANY}
    spread["residual"] = ANY
    truth = {
        "0/W": kernel(pixels + labels, hidden, function="softplus"),
        "0/b": bias("0/W"),
        "0/W_mu": kernel(hidden, latent, **spread),
        "0/b_mu": bias("0/W_mu", part=ANY, multiplier=ANY),
        "0/W_sigma": kernel(hidden, latent, **spread),
        "0/b_sigma": bias("0/W_sigma", part=ANY, multiplier=ANY),
        "1/W": kernel(latent, hidden, function="softplus"),
        "1/label": embedding(hidden, function=ANY),
        # Debatable: a table is among what it is added to.
        "1/b": bias(ANY),
        # Debatable: a loss and a sigmoid read it.
        "1/W_out": kernel(hidden, pixels, function=ANY, head=True),
        "1/b_out": bias("1/W_out"),
    }
    inputs = (floats(6, pixels), integers(6), floats(6, latent))
    return Model(apply, (enc, dec), inputs, truth)


@model
def flows_with_masks() -> Model:
    """Dinh et al. 2017 with masks of columns: scales behind a leaf, and the density."""
    d, hidden, steps = 6, 13, 3

    def net(layers, x):
        for w, b in layers[:-1]:
            x = jnp.tanh(x @ w + b)
        w, b = layers[-1]
        return x @ w + b

    def apply(p, x):
        z, logdet = x, jnp.zeros(x.shape[0])
        for i, q in enumerate(p):
            mask = (jnp.arange(d) + i) % 2
            kept = mask * z
            s = jnp.tanh(net(q["s"], kept)) * q["rescale"] * (1 - mask)
            t = net(q["t"], kept) * (1 - mask)
            z = kept + (1 - mask) * (z * jnp.exp(s) + t)
            logdet = logdet + s.sum(-1)
        return -0.5 * (z**2).sum(-1) - 0.5 * d * jnp.log(2 * jnp.pi) + logdet

    shapes = [(floats(d, hidden), floats(hidden)), (floats(hidden, d), floats(d))]
    step = {"s": shapes, "t": shapes, "rescale": floats(d)}
    # Debatable: whether what flows is a stream, or a last kernel is the head.
    last = {"residual": ANY, "head": ANY, "part": ANY, "multiplier": ANY}
    offset = {"part": ANY, "multiplier": ANY, "residual": ANY}
    truth = {}
    for i in range(steps):
        truth |= {
            f"{i}/s/0/0": kernel(d, hidden, function="tanh"),
            f"{i}/s/0/1": bias(f"{i}/s/0/0"),
            f"{i}/s/1/0": kernel(hidden, d, function="tanh", **last),
            f"{i}/s/1/1": bias(f"{i}/s/1/0", **offset),
            f"{i}/t/0/0": kernel(d, hidden, function="tanh"),
            f"{i}/t/0/1": bias(f"{i}/t/0/0"),
            f"{i}/t/1/0": kernel(hidden, d, **{**last, "function": ANY}),
            f"{i}/t/1/1": bias(f"{i}/t/1/0", **offset),
            # Debatable: a factor of what an exponential reads.
            f"{i}/rescale": either("scale", "gate"),
        }
    return Model(apply, [step] * steps, (floats(4, d),), truth)
