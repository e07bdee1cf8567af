"""Plain functions: language models by loops, and other positions than absolute ones."""

import jax
import jax.numpy as jnp

from zoo.attention import merge_heads, split_heads, vector
from zoo.fused import affine, linear
from zoo.truths import (
    ANY,
    Model,
    bias,
    bias_cut,
    convolution,
    cut,
    dense,
    embedding,
    every,
    floats,
    integers,
    kernel,
    model,
    norm,
    position,
    rms_norm,
    scale,
    stacked,
)
from zoo.truths import layer_norm as normed

BATCH, LENGTH, WIDTH, HEADS, SIZE, HIDDEN, VOCABULARY = 2, 7, 12, 3, 6, 20, 17
INNER = HEADS * SIZE
PARTS = ("query", "key", "value")


def affine_truth(path, fan_in, fan_out, **rest):
    return dense(path, fan_in, fan_out, weight="w", offset="b", **rest)


@model
def llama() -> Model:
    """Touvron et al. 2023: grouped queries without copies, SwiGLU, rotation by pairs.

    Layers are stacked and scanned with checkpoints; gate and up are (D, 2, F).
    """
    layers, groups, repeats = 4, 2, 3

    def rotated(x, cos, sin):
        pairs = x.reshape(*x.shape[:-1], -1, 2)
        even, odd = pairs[..., 0], pairs[..., 1]
        turned = jnp.stack([even * cos - odd * sin, even * sin + odd * cos], axis=-1)
        return turned.reshape(x.shape)

    def layer(p, x, cos, sin, mask):
        h = rms_norm(x, p["attention_norm"])
        q = jnp.einsum("btd,dgrk->btgrk", h, p["wq"])
        k = rotated(jnp.einsum("btd,dgk->btgk", h, p["wk"]), cos, sin)
        v = jnp.einsum("btd,dgk->btgk", h, p["wv"])
        q = rotated(q, cos[:, :, None], sin[:, :, None])
        scores = jnp.einsum("btgrk,bsgk->bgrts", q, k) / jnp.sqrt(SIZE)
        weights = jax.nn.softmax(jnp.where(mask, scores, -jnp.inf), axis=-1)
        h = jnp.einsum("bgrts,bsgk->btgrk", weights, v)
        x = x + jnp.einsum("btgrk,grkd->btd", h, p["wo"])
        h = jnp.einsum("btd,dcf->btcf", rms_norm(x, p["ffn_norm"]), p["w13"])
        h = jax.nn.silu(h[:, :, 0]) * h[:, :, 1]
        return x + jnp.einsum("btf,fd->btd", h, p["w2"])

    def apply(p, tokens):
        x = p["tok_embeddings"].at[tokens].get(mode="clip")
        angles = jnp.outer(jnp.arange(LENGTH), 1e4 ** (-jnp.arange(SIZE // 2) / 3.0))
        cos, sin = jnp.cos(angles)[:, None], jnp.sin(angles)[:, None]
        mask = jnp.tril(jnp.ones((LENGTH, LENGTH), bool))

        @jax.checkpoint
        def step(x, layer_params):
            return layer(layer_params, x, cos, sin, mask), None

        x, _ = jax.lax.scan(step, x, p["layers"], unroll=2)
        return jnp.einsum("btd,dv->btv", rms_norm(x, p["norm"]), p["output"])

    heads = groups * repeats
    params = {
        "tok_embeddings": floats(VOCABULARY, WIDTH),
        "layers": {
            "attention_norm": floats(layers, WIDTH),
            "wq": floats(layers, WIDTH, groups, repeats, SIZE),
            "wk": floats(layers, WIDTH, groups, SIZE),
            "wv": floats(layers, WIDTH, groups, SIZE),
            "wo": floats(layers, groups, repeats, SIZE, WIDTH),
            "ffn_norm": floats(layers, WIDTH),
            "w13": floats(layers, WIDTH, 2, HIDDEN),
            "w2": floats(layers, HIDDEN, WIDTH),
        },
        "norm": floats(WIDTH),
        "output": floats(WIDTH, VOCABULARY),
    }
    pair = [(1, ((0, 1),), "gate", "silu"), (1, ((1, 2),), "up", "identity")]
    single = {
        "attention_norm": scale(),
        "wq": kernel(WIDTH, heads * SIZE, 0, (1, 2, 3), part="query"),
        "wk": kernel(WIDTH, groups * SIZE, 0, (1, 2), part="key"),
        "wv": kernel(WIDTH, groups * SIZE, 0, (1, 2), part="value"),
        "wo": kernel(
            heads * SIZE,
            WIDTH,
            (0, 1, 2),
            3,
            part="attention output",
            residual=(0, 2 * layers),
        ),
        "ffn_norm": scale(),
        # Cut by indices: the axis of the two stands as an output's.
        "w13": kernel(WIDTH, 2 * HIDDEN, 0, (1, 2), ANY, sections=pair),
        "w2": kernel(HIDDEN, WIDTH, residual=(1, 2 * layers)),
    }
    truth = {
        "tok_embeddings": embedding(WIDTH),
        **every("layers/", 1, stacked(single)),
        "norm": scale(),
        "output": kernel(WIDTH, VOCABULARY, head=True),
    }
    return Model(apply, params, (integers(BATCH, LENGTH),), truth)


@model
def transformer_xl() -> Model:
    """Dai et al. 2019: a memory, keys of positions, two biases that layers share."""
    layers, memory = 2, 4

    def shifted(x):
        rows, columns = x.shape[-2:]
        x = jnp.pad(x, ((0, 0), (0, 0), (0, 0), (1, 0)))
        x = x.reshape(*x.shape[:2], columns + 1, rows)
        return x[:, :, 1:].reshape(*x.shape[:2], rows, columns)

    def layer(p, x, past, places, content, place):
        both = jnp.concatenate([past, x], axis=1)
        q, k, v = map(split_heads_6, jnp.split(both @ p["qkv_net"], 3, axis=-1))
        q = q[:, memory:]
        r = split_heads_6((places @ p["r_net"])[None])[0]
        scores = jnp.einsum("bihd,bjhd->bhij", q + content, k)
        scores += shifted(jnp.einsum("bihd,jhd->bhij", q + place, r))
        weights = jax.nn.softmax(scores * SIZE**-0.5, axis=-1)
        h = merge_heads(jnp.einsum("bhij,bjhd->bihd", weights, v))
        x = normed(x + h @ p["o_net"], p["norm_1"])
        h = jax.nn.relu(linear(x, p["core_0"]))
        return normed(x + linear(h, p["core_1"]), p["norm_2"])

    def split_heads_6(x):
        return split_heads(x, SIZE)

    def apply(p, tokens, pasts):
        x = p["word_emb"][tokens] * WIDTH**0.5
        distances = jnp.arange(memory + LENGTH - 1, -1, -1.0)[:, None]
        angles = distances / 10000 ** (jnp.arange(0, 10, 2) / 10)
        places = jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)
        for layer_params, past in zip(p["layers"], pasts, strict=True):
            x = layer(layer_params, x, past, places, p["r_w_bias"], p["r_r_bias"])
        return x @ p["softmax"]

    layer_params = {
        "qkv_net": floats(WIDTH, 3 * INNER),
        "r_net": floats(10, INNER),
        "o_net": floats(INNER, WIDTH),
        "norm_1": vector(),
        "core_0": affine(WIDTH, HIDDEN),
        "core_1": affine(HIDDEN, WIDTH),
        "norm_2": vector(),
    }
    params = {
        "word_emb": floats(VOCABULARY, WIDTH),
        "r_w_bias": floats(HEADS, SIZE),
        "r_r_bias": floats(HEADS, SIZE),
        "layers": [layer_params] * layers,
        "softmax": floats(WIDTH, VOCABULARY),
    }
    single = {
        "qkv_net": kernel(WIDTH, 3 * INNER, sections=cut(1, INNER, PARTS)),
        # Debatable: keys, but of places; it is contracted with constants.
        "r_net": kernel(10, INNER, part=ANY),
        "o_net": kernel(INNER, WIDTH, residual=(0, 4), part="attention output"),
        **norm("norm_1"),
        **affine_truth("core_0", WIDTH, HIDDEN, function="relu"),
        **affine_truth("core_1", HIDDEN, WIDTH, residual=(1, 4)),
        **norm("norm_2"),
    }
    # Each is added to the section of queries in every layer.
    added = [
        bias(f"layers/{i}/qkv_net", (0, 1), part="query", sections=ANY)
        for i in range(layers)
    ]
    truth = {
        "word_emb": embedding(WIDTH, multiplier=WIDTH**0.5),
        "r_w_bias": added,
        "r_r_bias": added,
        **every("layers/{}/", layers, single),
        "softmax": kernel(WIDTH, VOCABULARY, head=True),
    }
    inputs = (integers(BATCH, LENGTH), [floats(BATCH, memory, WIDTH)] * layers)
    return Model(apply, params, inputs, truth)


@model
def albert() -> Model:
    """Lan et al. 2020: one layer scanned without inputs, and masked tokens' logits.

    The embedding is factorized, and tied to the output, which has a bias.
    """
    steps, size = 4, 8

    def layer(p, x):
        q, k, v = jnp.split(linear(x, p["qkv"]), 3, axis=-1)
        q, k, v = (split_heads(h, SIZE) for h in (q, k, v))
        scores = jnp.einsum("bqhd,bkhd->bhqk", q, k) / jnp.sqrt(SIZE)
        h = jnp.einsum("bhqk,bkhd->bqhd", jax.nn.softmax(scores, axis=-1), v)
        x = normed(x + linear(merge_heads(h), p["out"]), p["norm_1"])
        h = jax.nn.gelu(linear(x, p["ffn"]), approximate=True)
        return normed(x + linear(h, p["ffn_output"]), p["norm_2"])

    def apply(p, tokens, segments):
        x = p["word"][tokens] + p["segment"][segments] + p["place"][None, :LENGTH]
        x = linear(normed(x, p["embedding_norm"]), p["mapping_in"])
        step = lambda x, _: (layer(p["layer"], x), None)  # noqa: E731
        x, _ = jax.lax.scan(step, x, None, length=steps)
        h = normed(jax.nn.gelu(linear(x, p["transform"])), p["transform_norm"])
        return h @ p["word"].T + p["output_bias"]

    params = {
        "word": floats(VOCABULARY, size),
        "segment": floats(2, size),
        "place": floats(9, size),
        "embedding_norm": vector(size),
        "mapping_in": affine(size, WIDTH),
        "layer": {
            "qkv": affine(WIDTH, 3 * INNER),
            "out": affine(INNER, WIDTH),
            "norm_1": vector(),
            "ffn": affine(WIDTH, HIDDEN),
            "ffn_output": affine(HIDDEN, WIDTH),
            "norm_2": vector(),
        },
        "transform": affine(WIDTH, size),
        "transform_norm": vector(size),
        "output_bias": floats(VOCABULARY),
    }
    shared = {
        "qkv/w": kernel(WIDTH, 3 * INNER, sections=cut(1, INNER, PARTS)),
        "qkv/b": bias("qkv/w", sections=bias_cut(INNER, PARTS)),
        **affine_truth(
            "out", INNER, WIDTH, residual=(0, 2 * steps), part="attention output"
        ),
        **norm("norm_1"),
        **affine_truth("ffn", WIDTH, HIDDEN, function="gelu"),
        **affine_truth("ffn_output", HIDDEN, WIDTH, residual=(1, 2 * steps)),
        **norm("norm_2"),
    }
    truth = {
        "word": [embedding(size), kernel(size, VOCABULARY, 1, 0, head=True)],
        "segment": embedding(size),
        "place": position(),
        **norm("embedding_norm"),
        **affine_truth("mapping_in", size, WIDTH),
        **every("layer/", 1, shared),
        **affine_truth("transform", WIDTH, size, function="gelu"),
        **norm("transform_norm"),
        "output_bias": bias("word"),
    }
    inputs = (integers(BATCH, LENGTH), integers(BATCH, LENGTH))
    return Model(apply, params, inputs, truth)


@model
def universal_transformer() -> Model:
    """Dehghani et al. 2019: one layer in a counted loop, told place and step.

    Positions are added in the loop; a convolution over the tokens is the transition.
    """
    steps = 3

    def layer(p, x):
        h = normed(x, p["norm_1"])
        q, k, v = (split_heads(h @ p[name], SIZE) for name in ("q", "k", "v"))
        scores = jnp.einsum("bqhd,bkhd->bhqk", q * SIZE**-0.5, k)
        h = jnp.einsum("bhqk,bkhd->bqhd", jax.nn.softmax(scores), v)
        x = x + merge_heads(h) @ p["o"]
        h = jax.lax.conv_general_dilated(
            normed(x, p["norm_2"]),
            p["conv"],
            (1,),
            "SAME",
            dimension_numbers=("NWC", "WIO", "NWC"),
        )
        return x + linear(jax.nn.relu(h + p["conv_bias"]), p["down"])

    def apply(p, tokens):
        def body(i, x):
            return layer(p["layer"], x + p["places"] + p["steps"][i])

        x = jax.lax.fori_loop(0, steps, body, jnp.take(p["embed"], tokens, axis=0))
        return linear(normed(x, p["norm"]), p["out"])

    params = {
        "embed": floats(VOCABULARY, WIDTH),
        "places": floats(LENGTH, WIDTH),
        "steps": floats(steps, WIDTH),
        "layer": {
            "norm_1": vector(),
            **{name: floats(WIDTH, INNER) for name in "qkv"},
            "o": floats(INNER, WIDTH),
            "norm_2": vector(),
            "conv": floats(5, WIDTH, HIDDEN),
            "conv_bias": floats(HIDDEN),
            "down": affine(HIDDEN, WIDTH),
        },
        "norm": vector(),
        "out": affine(WIDTH, VOCABULARY),
    }
    shared = {
        **norm("norm_1"),
        "q": kernel(WIDTH, INNER, part="query", multiplier=SIZE**-0.5),
        "k": kernel(WIDTH, INNER, part="key"),
        "v": kernel(WIDTH, INNER, part="value"),
        "o": kernel(INNER, WIDTH, residual=(0, 2 * steps), part="attention output"),
        **norm("norm_2"),
        "conv": convolution(WIDTH * 5, HIDDEN * 5, 0, 1, 2, "relu"),
        "conv_bias": bias("conv"),
        **affine_truth("down", HIDDEN, WIDTH, residual=(1, 2 * steps)),
    }
    truth = {
        "embed": embedding(WIDTH),
        "places": position(),
        # Debatable: what the stream held before is the last layer's, or the tokens.
        "steps": bias(ANY, 1, stack_axis=0),
        **every("layer/", 1, shared),
        **norm("norm"),
        **affine_truth("out", WIDTH, VOCABULARY, head=True),
    }
    return Model(apply, params, (integers(BATCH, LENGTH),), truth)
