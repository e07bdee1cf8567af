"""Images as open code bases of 2023 to 2025 have them: joint streams, masks, slots."""

import jax
import jax.numpy as jnp

from zoo.layers import rotary
from zoo.truths import (
    ANY,
    WRITES,
    Model,
    below,
    bias,
    convolution,
    cut,
    dense,
    every,
    floats,
    kernel,
    layer_norm,
    model,
    norm,
    rms_norm,
    scale,
    token,
)

B, T, D, F, HEADS, SIZE, O = 2, 6, 12, 15, 3, 4, 5  # noqa: E741
INNER = HEADS * SIZE
ORDER = ("query", "key", "value")


def affine(a, b):
    return {"kernel": floats(a, b), "bias": floats(b)}


def linear(p, x):
    return x @ p["kernel"] + p["bias"]


def plain_norm(x):
    x = x - x.mean(-1, keepdims=True)
    return x * jax.lax.rsqrt(jnp.square(x).mean(-1, keepdims=True) + 1e-6)


@model
def two_streams_then_one() -> Model:
    """Black Forest Labs 2024 (Flux): joint attention of two streams, then one stream.

    In the one, queries, keys, values and the feed-forward layer share a kernel.
    """
    words, places, noise, context, vector = 4, T, 7, 8, 9

    def sines(t):
        angles = 1000 * t[:, None] * 1e4 ** (-jnp.arange(4) / 4)
        return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1)

    def mlp_embedder(p, x):
        return linear(p["out_layer"], jax.nn.silu(linear(p["in_layer"], x)))

    def modulation(p, vec, n):
        return jnp.split(linear(p, jax.nn.silu(vec))[:, None], n, axis=-1)

    def heads(p, qkv):
        q, k, v = qkv.reshape(B, -1, 3, HEADS, SIZE).transpose(2, 0, 1, 3, 4)
        return rms_norm(q, p["query_norm"]), rms_norm(k, p["key_norm"]), v

    def attention(q, k, v):
        y = jax.nn.dot_product_attention(rotary(q), rotary(k), v)
        return y.reshape(B, -1, INNER)

    def double(p, img, txt, vec):
        mods = {n: modulation(p[f"{n}_mod"], vec, 6) for n in ("txt", "img")}
        streams = {"txt": txt, "img": img}
        parts = []
        for n, x in streams.items():
            h = (1 + mods[n][1]) * plain_norm(x) + mods[n][0]
            parts.append(heads(p[f"{n}_attn"], linear(p[f"{n}_attn"]["qkv"], h)))
        y = attention(*(jnp.concatenate(z, axis=1) for z in zip(*parts, strict=True)))
        out = {"txt": y[:, :words], "img": y[:, words:]}
        for n, x in streams.items():
            m, q = mods[n], p[f"{n}_mlp"]
            x = x + m[2] * linear(p[f"{n}_attn"]["proj"], out[n])
            h = (1 + m[4]) * plain_norm(x) + m[3]
            h = linear(q["1"], jax.nn.gelu(linear(q["0"], h), approximate=True))
            streams[n] = x + m[5] * h
        return streams["img"], streams["txt"]

    def single(p, x, vec):
        shift, factor, gated = modulation(p["modulation"], vec, 3)
        h = linear(p["linear1"], (1 + factor) * plain_norm(x) + shift)
        qkv, mlp = jnp.split(h, [3 * INNER], axis=-1)
        y = attention(*heads(p, qkv))
        y = jnp.concatenate([y, jax.nn.gelu(mlp, approximate=True)], axis=2)
        return x + gated * linear(p["linear2"], y)

    def apply(p, img, txt, timesteps, guidance, y):
        img, txt = linear(p["img_in"], img), linear(p["txt_in"], txt)
        vec = mlp_embedder(p["time_in"], sines(timesteps))
        vec = vec + mlp_embedder(p["guidance_in"], sines(guidance))
        vec = vec + mlp_embedder(p["vector_in"], y)
        for q in p["double_blocks"]:
            img, txt = double(q, img, txt, vec)
        x = jnp.concatenate([txt, img], axis=1)
        for q in p["single_blocks"]:
            x = single(q, x, vec)
        shift, factor = modulation(p["final"]["modulation"], vec, 2)
        x = (1 + factor) * plain_norm(x[:, words:]) + shift
        return linear(p["final"]["linear"], x)

    normed = {"query_norm": floats(SIZE), "key_norm": floats(SIZE)}
    one = {}
    for n in ("img", "txt"):
        one |= {
            f"{n}_mod": affine(D, 6 * D),
            f"{n}_attn": normed
            | {"qkv": affine(D, 3 * INNER), "proj": affine(INNER, D)},
            f"{n}_mlp": {"0": affine(D, F), "1": affine(F, D)},
        }

    def embedder(n):
        return {"in_layer": affine(n, D), "out_layer": affine(D, D)}

    params = {
        "img_in": affine(noise, D), "txt_in": affine(context, D),
        "time_in": embedder(8), "guidance_in": embedder(8),
        "vector_in": embedder(vector),
        "double_blocks": [one] * 2,
        "single_blocks": [
            normed | {
                "modulation": affine(D, 3 * D), "linear1": affine(D, 3 * INNER + F),
                "linear2": affine(INNER + F, D),
            }
        ] * 2,
        "final": {"modulation": affine(D, 2 * D), "linear": affine(D, noise)},
    }  # fmt: skip

    def qkv_truth(path):
        return {
            f"{path}/kernel": kernel(D, 3 * INNER, sections=cut(1, INNER, ORDER)),
            f"{path}/bias": bias(
                f"{path}/kernel",
                sections=[(0, *s[1:3], None) for s in cut(0, INNER, ORDER)],
            ),
        }

    norms = {"query_norm": scale(), "key_norm": scale()}
    # Debatable: counts of writes, where two streams become one.
    double_truth, single_truth = {}, {}
    for n in ("img", "txt"):
        double_truth |= {
            **dense(f"{n}_mod", D, 6 * D, residual=ANY),
            **below(f"{n}_attn/", norms),
            **qkv_truth(f"{n}_attn/qkv"),
            **dense(
                f"{n}_attn/proj", INNER, D, residual=WRITES, part="attention output"
            ),
            **dense(f"{n}_mlp/0", D, F, function="gelu"),
            **dense(f"{n}_mlp/1", F, D, residual=WRITES),
        }
    spans = [((i * INNER, (i + 1) * INNER),) for i in range(3)]
    mlp = ((3 * INNER, 3 * INNER + F),)
    single_truth = {
        **dense("modulation", D, 3 * D, residual=ANY), **norms,
        "linear1/kernel": kernel(
            D, 3 * INNER + F, function=ANY,
            sections=[
                *((1, s, n, "identity") for s, n in zip(spans, ORDER, strict=True)),
                (1, mlp, None, "gelu"),
            ],
        ),
        "linear1/bias": bias(
            "linear1/kernel",
            sections=[
                *((0, span, n, None) for span, n in zip(spans, ORDER, strict=True)),
                (0, mlp, None, None),
            ],
        ),
        # Debatable: some of its rows take what an attention gives.
        **dense("linear2", INNER + F, D, residual=WRITES, part=ANY, sections=ANY),
    }  # fmt: skip
    single_truth["linear2/bias"] = bias("linear2/kernel", part=ANY)
    truth = {
        **dense("img_in", noise, D),
        **dense("txt_in", context, D),
        **every("double_blocks/{}/", 2, double_truth),
        **every("single_blocks/{}/", 2, single_truth),
        **dense("final/modulation", D, 2 * D),
        **dense("final/linear", D, noise, head=True),
    }
    for name, n in (("time_in", 8), ("guidance_in", 8), ("vector_in", vector)):
        truth |= dense(f"{name}/in_layer", n, D, function="silu")
        # Debatable: three are summed before the function.
        truth |= dense(f"{name}/out_layer", D, D, function=ANY)
    inputs = (
        floats(B, places, noise), floats(B, words, context), floats(B), floats(B),
        floats(B, vector),
    )  # fmt: skip
    return Model(apply, params, inputs, truth)


@model
def masks_from_prompts() -> Model:
    """Kirillov et al. 2023 (SAM's decoder): tokens and an image read each other.

    Masks are products of what networks of tokens give with an enlarged image.
    """
    masks, prompts, rows, small = 3, 2, 4, 6
    inner = {"self_attn": D, "token_to_image": small, "image_to_token": small}

    def attend(p, q, k, v):
        def split(x):
            return x.reshape(B, -1, 2, x.shape[-1] // 2).swapaxes(1, 2)

        q, k, v = (
            split(linear(p[n], x)) for n, x in zip("qkv", (q, k, v), strict=True)
        )
        a = q @ k.swapaxes(2, 3) / jnp.sqrt(q.shape[-1])
        y = jax.nn.softmax(a, axis=-1) @ v
        return linear(p["out"], y.swapaxes(1, 2).reshape(B, y.shape[2], -1))

    def block(p, queries, keys, query_pe, key_pe, first):
        if first:
            queries = attend(p["self_attn"], queries, queries, queries)
        else:
            q = queries + query_pe
            queries = queries + attend(p["self_attn"], q, q, queries)
        queries = layer_norm(queries, p["norm1"])
        q, k = queries + query_pe, keys + key_pe
        queries = queries + attend(p["token_to_image"], q, k, keys)
        queries = layer_norm(queries, p["norm2"])
        h = linear(p["mlp"]["lin2"], jax.nn.relu(linear(p["mlp"]["lin1"], queries)))
        queries = layer_norm(queries + h, p["norm3"])
        q, k = queries + query_pe, keys + key_pe
        keys = keys + attend(p["image_to_token"], k, q, queries)
        return queries, layer_norm(keys, p["norm4"])

    def up(p, x):
        y = jax.lax.conv_transpose(
            x, p["kernel"], (2, 2), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        return y + p["bias"]

    def apply(p, image, image_pe, sparse, dense_prompt):
        tokens = jnp.concatenate([p["iou_token"], p["mask_tokens"]], axis=0)
        tokens = jnp.broadcast_to(tokens[None], (B, *tokens.shape))
        tokens = jnp.concatenate([tokens, sparse], axis=1)
        keys = (image + dense_prompt).reshape(B, -1, D)
        key_pe, queries = image_pe.reshape(1, -1, D), tokens
        for i, q in enumerate(p["layers"]):
            queries, keys = block(q, queries, keys, tokens, key_pe, i == 0)
        q, k = queries + tokens, keys + key_pe
        queries = layer_norm(queries + attend(p["final"], q, k, keys), p["norm_final"])
        iou, chosen = queries[:, 0], queries[:, 1 : 1 + masks]
        x = keys.reshape(B, rows, rows, D)
        x = jax.nn.gelu(layer_norm(up(p["up_0"], x), p["up_norm"]))
        x = jax.nn.gelu(up(p["up_1"], x))
        hyper = []
        for i in range(masks):
            h = chosen[:, i]
            for j in range(3):
                h = linear(p["hyper"][i][j], h)
                h = jax.nn.relu(h) if j < 2 else h
            hyper.append(h)
        made = jnp.einsum("bmc,bhwc->bmhw", jnp.stack(hyper, axis=1), x)
        h = jax.nn.relu(linear(p["iou_0"], iou))
        return made, jax.nn.sigmoid(linear(p["iou_1"], h))

    def attention(n):
        return {x: affine(D, n) for x in "qkv"} | {"out": affine(n, D)}

    ln = {"scale": floats(D), "bias": floats(D)}
    layer = {name: attention(n) for name, n in inner.items()}
    layer |= {f"norm{i}": ln for i in (1, 2, 3, 4)}
    layer["mlp"] = {"lin1": affine(D, F), "lin2": affine(F, D)}
    params = {
        "iou_token": floats(1, D), "mask_tokens": floats(masks, D),
        "layers": [layer] * 2, "final": attention(small), "norm_final": ln,
        "up_0": {"kernel": floats(2, 2, D, 7), "bias": floats(7)},
        "up_norm": {"scale": floats(7), "bias": floats(7)},
        "up_1": {"kernel": floats(2, 2, 7, 4), "bias": floats(4)},
        "hyper": [[affine(D, D), affine(D, D), affine(D, 4)]] * masks,
        "iou_0": affine(D, F), "iou_1": affine(F, masks),
    }  # fmt: skip

    def attention_truth(path, n, **rest):
        truth = {}
        for letter, part in zip("qkv", ORDER, strict=True):
            truth |= dense(f"{path}/{letter}", D, n, part=part)
        end = {"part": "attention output"} | rest
        return truth | dense(f"{path}/out", n, D, **end)

    own = {
        **attention_truth("self_attn", D, residual=WRITES),
        **attention_truth("token_to_image", small, residual=WRITES),
        **attention_truth("image_to_token", small, residual=WRITES),
        **dense("mlp/lin1", D, F, function="relu"),
        **dense("mlp/lin2", F, D, residual=WRITES),
    }
    for i in (1, 2, 3, 4):
        own |= norm(f"norm{i}")
    truth = {
        "iou_token": token(D, ANY, 1), "mask_tokens": token(D, 0, 1),
        **every("layers/{}/", 2, own),
        # It begins the stream.
        **below("layers/0/", attention_truth("self_attn", D)),
        **attention_truth("final", small, residual=WRITES), **norm("norm_final"),
        "up_0/kernel": convolution(D, 7 * 4, transposed=True),
        "up_0/bias": bias("up_0/kernel"), **norm("up_norm"),
        "up_1/kernel": convolution(7, 4 * 4, function="gelu", transposed=True),
        "up_1/bias": bias("up_1/kernel"),
        **dense("iou_0", D, F, function="relu"),
        **dense("iou_1", F, masks, function="sigmoid", head=True),
    }  # fmt: skip
    for i in range(masks):
        truth |= {
            **dense(f"hyper/{i}/0", D, D, function="relu"),
            **dense(f"hyper/{i}/1", D, D, function="relu"),
            # Debatable: a contraction with another output follows.
            **dense(f"hyper/{i}/2", D, 4, head=ANY, part=ANY),
        }
        truth[f"hyper/{i}/2/bias"] = bias(f"hyper/{i}/2/kernel", part=ANY)
    image = floats(B, rows, rows, D)
    inputs = (image, floats(1, rows, rows, D), floats(B, prompts, D), image)
    return Model(apply, params, inputs, truth)
