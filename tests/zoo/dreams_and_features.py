"""Worlds that are dreamt, answers refined, sparse features, magnitudes kept."""

import jax
import jax.numpy as jnp

from zoo.layers import conv
from zoo.truths import (
    ANY,
    WRITES,
    Model,
    below,
    bias,
    either,
    embedding,
    floats,
    integers,
    kernel,
    model,
    one_of,
    rms_norm,
    scale,
    unknown,
)

B, T, D, F, HEADS, SIZE, V, O = 2, 6, 12, 15, 3, 4, 19, 5  # noqa: E741
INNER = HEADS * SIZE


@model
def worlds_in_blocks() -> Model:
    """Hafner et al. 2023 (DreamerV3), plain: a GRU of blocks, latents of categories.

    Inputs are squashed by symlog; samples are straight through, with some uniform.
    """
    blocks, h, latents, classes, actions, seen = 2, 9, 3, 5, 4, 7
    d = 8
    flat = latents * classes

    def layer(p, x):
        return jax.nn.silu(rms_norm(x @ p["w"], p["scale"]))

    def linear(p, x):
        return x @ p["w"] + p["b"]

    def symlog(x):
        return jnp.sign(x) * jnp.log1p(jnp.abs(x))

    def distribution(logits):
        p = jax.nn.softmax(logits.reshape(B, latents, classes), axis=-1)
        return 0.99 * p + 0.01 / classes

    def core(p, deter, stoch, action):
        x = [layer(p["in_deter"], deter), layer(p["in_stoch"], stoch.reshape(B, -1))]
        x = jnp.concatenate([*x, layer(p["in_action"], action)], axis=-1)
        x = jnp.repeat(x[:, None], blocks, axis=1)
        x = jnp.concatenate([deter.reshape(B, blocks, -1), x], axis=-1)
        x = jnp.einsum("bgi,gio->bgo", x, p["hidden"]["w"]).reshape(B, d)
        x = jax.nn.silu(rms_norm(x, p["hidden"]["scale"])).reshape(B, blocks, -1)
        x = jnp.einsum("bgi,gio->bgo", x, p["gru"]["w"]) + p["gru"]["b"]
        reset, cand, update = (y.reshape(B, d) for y in jnp.split(x, 3, axis=-1))
        cand = jnp.tanh(jax.nn.sigmoid(reset) * cand)
        update = jax.nn.sigmoid(update - 1)
        return update * cand + (1 - update) * deter

    def apply(p, images, acts):
        tokens = layer(p["encoder"], symlog(images))

        def step(carry, now):
            deter, stoch = carry
            token, action = now
            deter = core(p, deter, stoch, action)
            prior = distribution(linear(p["prior_logit"], layer(p["prior"], deter)))
            x = layer(p["post"], jnp.concatenate([deter, token], axis=-1))
            post = distribution(linear(p["post_logit"], x))
            hard = jax.nn.one_hot(jnp.argmax(post, axis=-1), classes)
            stoch = jax.lax.stop_gradient(hard - post) + post
            return (deter, stoch), (deter, stoch, prior, post)

        start = jnp.zeros((B, d)), jnp.zeros((B, latents, classes))
        now = jnp.swapaxes(tokens, 0, 1), jnp.swapaxes(acts, 0, 1)
        _, (deter, stoch, prior, post) = jax.lax.scan(step, start, now)
        x = jnp.concatenate([deter, stoch.reshape(T, B, flat)], axis=-1)
        image = linear(p["image"], layer(p["decoder"], x))
        reward = jax.nn.softmax(linear(p["reward"], layer(p["reward_in"], x)))
        going = jax.nn.sigmoid(linear(p["cont"], x))
        return image, reward, going, prior, post

    def normed(a, b):
        return {"w": floats(a, b), "scale": floats(b)}

    def affine(a, b):
        return {"w": floats(a, b), "b": floats(b)}

    wide, part = d // blocks + 3 * h, d // blocks
    params = {
        "encoder": normed(seen, 10), "in_deter": normed(d, h),
        "in_stoch": normed(flat, h), "in_action": normed(actions, h),
        "hidden": {"w": floats(blocks, wide, part), "scale": floats(d)},
        "gru": {"w": floats(blocks, part, 3 * part), "b": floats(blocks, 3 * part)},
        "prior": normed(d, 11), "prior_logit": affine(11, flat),
        "post": normed(d + 10, 11), "post_logit": affine(11, flat),
        "decoder": normed(d + flat, F), "image": affine(F, seen),
        "reward_in": normed(d + flat, F), "reward": affine(F, 13),
        "cont": affine(d + flat, 1),
    }  # fmt: skip
    # Debatable: by way of the latents, what is not hidden-to-hidden comes back too.
    around = {"recurrent": ANY, "sections": ANY, "part": ANY}
    own = {"recurrent": True, "sections": ANY, "part": ANY}
    axes = {"in_axis": 1, "out_axis": 2, "batch_axis": 0}
    truth = {
        "encoder/w": kernel(seen, 10),
        "in_deter/w": kernel(d, h, **own),
        "in_stoch/w": kernel(flat, h, **around),
        "in_action/w": kernel(actions, h, part=ANY),
        "hidden/w": kernel(wide, part, **axes, **own),
        # Debatable: its gate resets the candidate itself; each block has all three.
        "gru/w": kernel(part, 3 * part, function=ANY, **axes, **own),
        "gru/b": bias("gru/w", ANY, batch_axis=ANY, part=ANY, sections=ANY),
        # Nothing comes back of it.
        "prior/w": kernel(d, 11),
        "prior_logit/w": kernel(11, flat, head=True),
        "prior_logit/b": bias("prior_logit/w"),
        "post/w": kernel(d + 10, 11, **around),
        "post_logit/w": kernel(11, flat, function=ANY, head=ANY, **around),
        "post_logit/b": bias("post_logit/w", part=ANY),
        "decoder/w": kernel(d + flat, F),
        "image/w": kernel(F, seen, head=True),
        "image/b": bias("image/w"),
        "reward_in/w": kernel(d + flat, F),
        "reward/w": kernel(F, 13, head=True),
        "reward/b": bias("reward/w"),
        "cont/w": kernel(d + flat, 1, function="sigmoid", head=True),
        "cont/b": bias("cont/w", ()),
    }
    truth |= {f"{name}/scale": scale() for name, p in params.items() if "scale" in p}
    return Model(apply, params, (floats(B, T, seen), floats(B, T, actions)), truth)


@model
def answers_refined() -> Model:
    """Jolicoeur-Martineau 2025 (TRM), plain: one small net thinks, and then answers.

    It is called four times in each round of a loop; norms without leaves.
    """

    def net(p, x):
        q, k, v = jnp.einsum("btd,dnhs->nbths", x, p["qkv"])
        a = jax.nn.softmax(jnp.einsum("bqhs,bkhs->bhqk", q, k) / SIZE**0.5)
        y = jnp.einsum("bhqk,bkhs,hsd->bqd", a, v, p["o"])
        x = rms_norm(x + y, 1.0)
        g, u = x @ p["gate"], x @ p["up"]
        return rms_norm(x + (jax.nn.silu(g) * u) @ p["down"], 1.0)

    def apply(p, ids):
        x = p["embed"][ids] * D**0.5

        def again(_, carry):
            y, z = carry
            for _ in range(3):
                z = net(p["net"], z + y + x)
            return net(p["net"], y + z), z

        start = (jnp.broadcast_to(p[name], x.shape) for name in ("y_init", "z_init"))
        y, _ = jax.lax.fori_loop(0, 2, again, tuple(start))
        halt = jax.nn.sigmoid(y[:, 0] @ p["halt"]["w"] + p["halt"]["b"])
        return y @ p["lm_head"], halt

    params = {
        "embed": floats(V, D), "y_init": floats(D), "z_init": floats(D),
        "net": {
            "qkv": floats(D, 3, HEADS, SIZE), "o": floats(HEADS, SIZE, D),
            "gate": floats(D, F), "up": floats(D, F), "down": floats(F, D),
        },
        "lm_head": floats(D, V), "halt": {"w": floats(D, 1), "b": floats(1)},
    }  # fmt: skip
    # Debatable: rounds of one module are time, or depth; how streams go on.
    loop = {"recurrent": ANY}
    thirds = [
        (1, ((i, i + 1),), part, "identity")
        for i, part in enumerate(("query", "key", "value"))
    ]
    start = either("embedding", "position", "bias", "unknown")
    truth = {
        "embed": embedding(D, multiplier=D**0.5),
        "y_init": start,
        "z_init": start,
        "net/qkv": [kernel(D, 3 * INNER, 0, (1, 2, 3), sections=thirds, **loop)] * 4,
        "net/o": [
            kernel(
                INNER, D, (0, 1), 2, part="attention output", residual=WRITES, **loop
            )
        ]
        * 4,
        "net/gate": [kernel(D, F, function="silu", part="gate", **loop)] * 4,
        "net/up": [kernel(D, F, part="up", **loop)] * 4,
        "net/down": [kernel(F, D, residual=WRITES, **loop)] * 4,
        "lm_head": kernel(D, V, head=True),
        "halt/w": kernel(D, 1, function="sigmoid", head=True),
        "halt/b": bias("halt/w", ()),
    }
    return Model(apply, params, (integers(B, T),), truth)


@model
def features_of_activations() -> Model:
    """Sparse coders of 2023 to 2024, plain: the best few, a jump, and a gate beside.

    What the decoder adds is first taken from the input (Bricken et al. 2023).
    """
    n, few = 20, 4

    def best(p, x):
        h = (x - p["b_dec"]) @ p["W_enc"] + p["b_enc"]
        least = jax.lax.top_k(h, few)[0][..., -1:]
        a = jnp.where(h >= least, jax.nn.relu(h), 0.0)
        return a @ p["W_dec"] + p["b_dec"]

    def jump(p, x):
        h = jax.nn.relu(x @ p["W_enc"] + p["b_enc"])
        a = h * (h > jnp.exp(p["log_threshold"]))
        return a @ p["W_dec"] + x @ p["W_skip"].T + p["b_dec"]

    def gated(p, x):
        h = (x - p["b_dec"]) @ p["W_enc"]
        on = (h + p["b_gate"] > 0).astype(x.dtype)
        a = on * jax.nn.relu(h * jnp.exp(p["r_mag"]) + p["b_mag"])
        return jnp.einsum("...f,fd->...d", a, p["W_dec"]) + p["b_dec"]

    def apply(p, x):
        coders = {"topk": best, "jump": jump, "gated": gated}
        return {name: coder(p[name], x) for name, coder in coders.items()}

    own = {"W_enc": floats(D, n), "W_dec": floats(n, D), "b_dec": floats(D)}
    params = {
        "topk": own | {"b_enc": floats(n)},
        "jump": own
        | {
            "b_enc": floats(n), "log_threshold": floats(n),
            "W_skip": floats(D, D),
        },
        "gated": own
        | {"b_gate": floats(n), "r_mag": floats(n), "b_mag": floats(n)},
    }  # fmt: skip
    # What is taken from the input is behind no kernel.
    taken = bias(ANY, multiplier=ANY)
    decoded = kernel(n, D, head=True)
    truth = {
        # Debatable: a relu of the best few.
        "topk/W_enc": kernel(D, n, function=ANY),
        "topk/b_enc": bias("topk/W_enc"),
        "topk/W_dec": decoded,
        "topk/b_dec": [taken, bias("topk/W_dec")],
        # Debatable: a relu, or with the jump that follows.
        "jump/W_enc": kernel(D, n, function=one_of("relu", None), part=ANY),
        "jump/b_enc": bias("jump/W_enc", part=ANY),
        # It is only compared.
        "jump/log_threshold": unknown(),
        "jump/W_dec": decoded,
        "jump/W_skip": kernel(D, D, 1, 0, head=True),
        "jump/b_dec": bias(["jump/W_dec", "jump/W_skip"]),
        # Debatable: what is compared gates what is scaled.
        "gated/W_enc": kernel(D, n, function=ANY, part=ANY, multiplier=ANY),
        "gated/b_gate": bias(ANY, part=ANY),
        # Its exponential multiplies.
        "gated/r_mag": either("unknown", "scale"),
        "gated/b_mag": bias(ANY, part=ANY),
        "gated/W_dec": decoded,
        "gated/b_dec": [taken, bias("gated/W_dec")],
    }
    return Model(apply, params, (floats(B, D),), truth)


@model
def magnitudes_kept() -> Model:
    """Karras et al. 2024 (EDM2), plain: all kernels are of length one; gains."""
    c, noise = 8, 6

    def unit(w, gain=1.0):
        length = jnp.sqrt(jnp.square(w).sum(tuple(range(w.ndim - 1)), keepdims=True))
        return w / (1e-4 + length) * gain

    def silu(x):
        return jax.nn.silu(x) / 0.596

    def mixed(a, b, t=0.3):
        return ((1 - t) * a + t * b) / ((1 - t) ** 2 + t**2) ** 0.5

    def block(p, x, e):
        x = x / jnp.sqrt(jnp.square(x).mean(-1, keepdims=True) + 1e-4)
        y = conv(silu(x), unit(p["res0"]))
        e = e @ unit(p["emb"], p["emb_gain"]) + 1
        return mixed(x, conv(silu(y * e[:, None, None]), unit(p["res1"])))

    def apply(p, x, sigma, label):
        sigma = sigma[:, None, None, None]
        freqs, phases = jnp.arange(noise) * 0.7, jnp.arange(noise) * 1.1
        e = jnp.cos(jnp.log(sigma[:, 0, 0]) / 4 * freqs + phases) * 2**0.5
        e = mixed(e @ unit(p["emb_noise"]), label @ unit(p["emb_label"]), 0.5)
        e = silu(e)
        h = x / jnp.sqrt(0.25 + sigma**2)
        h = jnp.concatenate([h, jnp.ones_like(h[..., :1])], axis=-1)
        h = skip = block(p["enc"], conv(h, unit(p["conv_in"])), e)
        h = block(p["low"], h.reshape(B, 4, 2, 4, 2, c).mean((2, 4)), e)
        h = jnp.repeat(jnp.repeat(h, 2, 1), 2, 2)
        h = jnp.concatenate([h, skip], axis=-1)
        h = block(p["dec"], conv(h, unit(p["join"])), e)
        y = conv(h, unit(p["conv_out"], p["out_gain"]))
        share = 0.25 / (sigma**2 + 0.25)
        return share * x + y * sigma * 0.5 * jax.lax.rsqrt(sigma**2 + 0.25)

    one = {"res0": floats(3, 3, c, c), "res1": floats(3, 3, c, c), "emb_gain": floats()}
    one["emb"] = floats(F, c)
    params = {
        "emb_noise": floats(noise, F), "emb_label": floats(O, F),
        "conv_in": floats(3, 3, 4, c), **dict.fromkeys(("enc", "low", "dec"), one),
        "join": floats(1, 1, 2 * c, c), "conv_out": floats(3, 3, c, 3),
        "out_gain": floats(),
    }  # fmt: skip
    # Each is divided by its length: either what it is, or what hides it.
    wide = either("convolution", "unknown")
    flat = either("kernel", "unknown")
    gain = either("unknown", "scale", "gate")
    block_truth = {"res0": wide, "res1": wide, "emb": flat, "emb_gain": gain}
    truth = {"emb_noise": flat, "emb_label": flat, "conv_in": wide, "join": wide}
    truth |= {"conv_out": wide, "out_gain": gain}
    for name in ("enc", "low", "dec"):
        truth |= below(f"{name}/", block_truth)
    inputs = (floats(B, 8, 8, 3), floats(B), floats(B, O))
    return Model(apply, params, inputs, truth)
