"""Ports of small repositories: words, codes of sound, items, pairs of words."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from zoo.nnx_models import of_nnx
from zoo.truths import (
    ANY,
    Model,
    Use,
    below,
    bias,
    bias_cut,
    cut,
    dense,
    embedding,
    every,
    floats,
    integers,
    kernel,
    layer_norm,
    model,
    norm,
    one_of,
    position,
    scale,
    stacked,
)

B, T, D, F, HEADS, SIZE, V = 2, 6, 12, 15, 3, 4, 19
INNER = HEADS * SIZE
ORDER = ("query", "key", "value")
RAW_KEY = jax.ShapeDtypeStruct((2,), jnp.uint32)


@model
def nanogpt_with_loss() -> Model:
    """Karpathy's nanoGPT, scanned: half precision, dropout, ignored targets, a tie."""
    layers, drop = 3, 0.1

    def ln(x, p):
        return layer_norm(x, {"scale": p["weight"], "bias": p["bias"]})

    def linear(x, p):
        y = x.astype(jnp.bfloat16) @ p["weight"].astype(jnp.bfloat16).T
        return y + p["bias"].astype(jnp.bfloat16)

    def dropout(x, key):
        keep = jax.random.bernoulli(key, 1 - drop, x.shape)
        return jnp.where(keep, x / (1 - drop), 0).astype(x.dtype)

    def split(x):
        return x.reshape(B, T, HEADS, SIZE).swapaxes(1, 2)

    @jax.checkpoint
    def block(x, layer):
        p, key = layer
        k1, k2, k3 = jax.random.split(key, 3)
        h = linear(ln(x, p["ln_1"]), p["attn"]["c_attn"])
        q, k, v = map(split, jnp.split(h, 3, axis=-1))
        att = (q @ k.swapaxes(-2, -1)) * (1.0 / SIZE**0.5)
        att = jnp.where(jnp.tril(jnp.ones((T, T))) == 0, float("-inf"), att)
        att = dropout(jax.nn.softmax(att, axis=-1), k1)
        y = (att @ v).swapaxes(1, 2).reshape(B, T, INNER)
        x = x + dropout(linear(y, p["attn"]["c_proj"]), k2)
        h = jax.nn.gelu(linear(ln(x, p["ln_2"]), p["mlp"]["c_fc"]))
        return x + dropout(linear(h, p["mlp"]["c_proj"]), k3), None

    def apply(p, idx, targets, key):
        key, sub = jax.random.split(key)
        x = p["wte"][idx] + p["wpe"][jnp.arange(idx.shape[1])]
        x = dropout(x, sub)
        x, _ = jax.lax.scan(block, x, (p["h"], jax.random.split(key, layers)))
        logits = (ln(x, p["ln_f"]) @ p["wte"].T).astype(jnp.float32)
        seen = (targets != -1).astype(jnp.float32)
        log_probs = jax.nn.log_softmax(logits, axis=-1)
        chosen = jnp.take_along_axis(
            log_probs, jnp.maximum(targets, 0)[..., None], axis=-1
        )
        return logits, -(chosen[..., 0] * seen).sum() / jnp.maximum(seen.sum(), 1.0)

    def pair(a, b):
        return {"weight": floats(layers, b, a), "bias": floats(layers, b)}

    ln_pair = {"weight": floats(layers, D), "bias": floats(layers, D)}
    params = {
        "wte": floats(V, D), "wpe": floats(9, D),
        "h": {
            "ln_1": ln_pair, "ln_2": ln_pair,
            "attn": {"c_attn": pair(D, 3 * INNER), "c_proj": pair(INNER, D)},
            "mlp": {"c_fc": pair(D, F), "c_proj": pair(F, D)},
        },
        "ln_f": {"weight": floats(D), "bias": floats(D)},
    }  # fmt: skip

    def turned(path, a, b, **rest):
        return dense(path, a, b, "weight", in_axis=1, out_axis=0, **rest)

    # Debatable: the factor of dropout.
    end = {"multiplier": ANY}
    block_truth = {
        **norm("ln_1", "weight"),
        **norm("ln_2", "weight"),
        "attn/c_attn/weight": kernel(
            D, 3 * INNER, 1, 0, sections=cut(0, INNER, ORDER)
        ),
        "attn/c_attn/bias": bias("attn/c_attn/weight", sections=bias_cut(INNER, ORDER)),
        **turned(
            "attn/c_proj", INNER, D, part="attention output",
            residual=(0, 2 * layers), **end,
        ),
        **turned("mlp/c_fc", D, F, function="gelu"),
        **turned("mlp/c_proj", F, D, residual=(1, 2 * layers), **end),
    }  # fmt: skip
    for path in ("attn/c_proj", "mlp/c_proj"):
        old = block_truth[f"{path}/bias"]
        block_truth[f"{path}/bias"] = Use(**{**vars(old), **end})
    truth = {
        "wte": [embedding(D, **end), kernel(D, V, 1, 0, head=True)],
        "wpe": position(**end),
        **below("h/", stacked(block_truth)),
        **norm("ln_f", "weight"),
    }
    return Model(apply, params, (integers(B, T), integers(B, T), RAW_KEY), truth)


class LlamaWeights(NamedTuple):
    token_embedding_table: jax.ShapeDtypeStruct
    rms_att_weight: jax.ShapeDtypeStruct
    rms_ffn_weight: jax.ShapeDtypeStruct
    wq: jax.ShapeDtypeStruct
    wk: jax.ShapeDtypeStruct
    wv: jax.ShapeDtypeStruct
    wo: jax.ShapeDtypeStruct
    w1: jax.ShapeDtypeStruct
    w2: jax.ShapeDtypeStruct
    w3: jax.ShapeDtypeStruct
    rms_final_weight: jax.ShapeDtypeStruct
    wcls: jax.ShapeDtypeStruct


@model
def llama_of_one_file() -> Model:
    """llama2.c, ported: a tuple of stacked weights, one token, caches beside."""
    layers, heads, groups, longest = 2, 4, 2, 7
    inner, small = heads * SIZE, groups * SIZE

    def rmsnorm(x, weight):
        ss = jnp.sum(x * x) / x.size + 1e-5
        return weight * (x * (1.0 / jnp.sqrt(ss)))

    def rotated(vec, pos):
        pairs = vec.reshape(-1, SIZE // 2, 2)
        angles = pos / 10000.0 ** (jnp.arange(SIZE // 2) * 2 / SIZE)
        c, s = jnp.cos(angles), jnp.sin(angles)
        a, b = pairs[..., 0], pairs[..., 1]
        return jnp.stack([a * c - b * s, a * s + b * c], axis=-1).reshape(-1, SIZE)

    def apply(w, token, pos, key_cache, value_cache):
        x = w.token_embedding_table[token]
        for i in range(layers):
            xb = rmsnorm(x, w.rms_att_weight[i])
            q = rotated(w.wq[i] @ xb, pos)
            key_cache = key_cache.at[i, pos].set(rotated(w.wk[i] @ xb, pos))
            value_cache = value_cache.at[i, pos].set((w.wv[i] @ xb).reshape(-1, SIZE))
            outs = []
            for h in range(heads):
                keys = key_cache[i, :, h // (heads // groups)]
                att = keys @ q[h] / jnp.sqrt(SIZE)
                att = jnp.where(jnp.arange(longest) <= pos, att, -jnp.inf)
                att = jax.nn.softmax(att)
                outs.append(att @ value_cache[i, :, h // (heads // groups)])
            x = x + w.wo[i] @ jnp.concatenate(outs)
            xb = rmsnorm(x, w.rms_ffn_weight[i])
            hb = w.w1[i] @ xb
            hb = hb * (1.0 / (1.0 + jnp.exp(-hb))) * (w.w3[i] @ xb)
            x = x + w.w2[i] @ hb
        return w.wcls @ rmsnorm(x, w.rms_final_weight), key_cache, value_cache

    params = LlamaWeights(
        floats(V, D), floats(layers, D), floats(layers, D),
        floats(layers, inner, D), floats(layers, small, D), floats(layers, small, D),
        floats(layers, D, inner), floats(layers, F, D), floats(layers, D, F),
        floats(layers, F, D), floats(D), floats(V, D),
    )  # fmt: skip

    def taken(a, b, **rest):
        return [kernel(a, b, 2, 1, stack_axis=0, **rest)] * layers

    def writes(first, a, **rest):
        return [
            kernel(
                a, D, 2, 1, stack_axis=0, residual=(2 * i + first, 2 * layers), **rest
            )
            for i in range(layers)
        ]

    truth = {
        "token_embedding_table": embedding(D),
        "rms_att_weight": [scale(1, stack_axis=0)] * layers,
        "rms_ffn_weight": [scale(1, stack_axis=0)] * layers,
        "wq": taken(D, inner, part="query"),
        "wk": taken(D, small, part="key"),
        "wv": taken(D, small, part="value"),
        "wo": writes(0, inner, part="attention output"),
        "w1": taken(D, F, function="silu", part="gate"),
        "w3": taken(D, F, part="up"),
        "w2": writes(1, F),
        "rms_final_weight": scale(),
        "wcls": kernel(D, V, 1, 0, head=True),
    }
    cache = floats(layers, longest, groups, SIZE)
    return Model(apply, params, (integers(), integers(), cache, cache), truth)


@model
def codes_of_music() -> Model:
    """Copet et al. 2023 (MusicGen): rows of all books are summed, a head for each.

    Books are delayed by a roll; places are sines; the text is given.
    """
    books, layers, text, codes = 4, 2, 10, 17

    def attend(p, x, memory, mask):
        q = (x @ p["q"]).reshape(B, -1, HEADS, SIZE)
        k = (memory @ p["k"]).reshape(B, -1, HEADS, SIZE)
        v = (memory @ p["v"]).reshape(B, -1, HEADS, SIZE)
        s = jnp.einsum("bqhd,bkhd->bhqk", q, k) * SIZE**-0.5
        a = jax.nn.softmax(s + mask, axis=-1)
        return jnp.einsum("bhqk,bkhd->bqhd", a, v).reshape(B, -1, INNER) @ p["o"]

    def apply(p, ids, condition):
        ids = jnp.stack([jnp.roll(ids[:, k], k, axis=-1) for k in range(books)], 1)
        x = sum(p["emb"][k][ids[:, k]] for k in range(books))
        speed = 10000.0 ** (-jnp.arange(D // 2) / (D // 2 - 1))
        phase = jnp.arange(T)[:, None] * speed
        x = x + jnp.concatenate([jnp.cos(phase), jnp.sin(phase)], axis=-1)
        c = condition @ p["text"]["w"] + p["text"]["b"]
        causal = jnp.where(jnp.tri(T, dtype=bool), 0.0, -1e9)
        for q in p["layers"]:
            h = layer_norm(x, q["norm1"])
            x = x + attend(q["self"], h, h, causal)
            x = x + attend(q["cross"], layer_norm(x, q["norm_cross"]), c, 0.0)
            h = jax.nn.gelu(layer_norm(x, q["norm2"]) @ q["linear1"], approximate=False)
            x = x + h @ q["linear2"]
        x = layer_norm(x, p["out_norm"])
        return jnp.einsum("btd,kdc->bktc", x, p["heads"])

    ln = {"scale": floats(D), "bias": floats(D)}
    own = {n: floats(D, INNER) for n in "qkv"} | {"o": floats(INNER, D)}
    layer = {
        "norm1": ln, "self": own, "norm_cross": ln, "cross": own, "norm2": ln,
        "linear1": floats(D, F), "linear2": floats(F, D),
    }  # fmt: skip
    params = {
        "emb": [floats(codes, D)] * books,
        "text": {"w": floats(text, D), "b": floats(D)},
        "layers": [layer] * layers, "out_norm": ln,
        "heads": floats(books, D, codes - 1),
    }  # fmt: skip

    def attention(first):
        return {
            **{n: kernel(D, INNER, part=ORDER["qkv".index(n)]) for n in "qkv"},
            "o": kernel(
                INNER, D, part="attention output", residual=(first, 3 * layers)
            ),
        }

    block = {
        **norm("norm1"),
        **below("self/", attention(0)),
        **norm("norm_cross"),
        **below("cross/", attention(1)),
        **norm("norm2"),
        "linear1": kernel(D, F, function="gelu"),
        "linear2": kernel(F, D, residual=(2, 3 * layers)),
    }
    truth = {
        **{f"emb/{k}": embedding(D) for k in range(books)},
        **dense("text", text, D, "w", "b"),
        **every("layers/{}/", layers, block),
        **norm("out_norm"),
        # Debatable: heads as kernels of their own, or one whose outputs are in books.
        "heads": kernel(
            D, one_of(codes - 1, books * (codes - 1)), 1, ANY, batch_axis=ANY, head=True
        ),
    }
    return Model(apply, params, (integers(B, books, T), floats(B, T - 1, text)), truth)


@model
def hidden_items() -> Model:
    """Sun et al. 2019 (BERT4Rec), NNX: both ways, a tied head with a bias, a loss.

    Post-norm; the loss is over what was hidden.
    """
    from flax import nnx

    layers = 2

    class Block(nnx.Module):
        def __init__(self, rngs):
            def linear(a, b):
                return nnx.Linear(a, b, rngs=rngs)

            self.query, self.key = linear(D, INNER), linear(D, INNER)
            self.value, self.output = linear(D, INNER), linear(INNER, D)
            self.norm1 = nnx.LayerNorm(D, rngs=rngs)
            self.w_1, self.w_2 = linear(D, F), linear(F, D)
            self.norm2 = nnx.LayerNorm(D, rngs=rngs)

        def __call__(self, x, mask):
            def heads(y):
                return y.reshape(B, T, HEADS, SIZE).transpose(0, 2, 1, 3)

            q, k, v = heads(self.query(x)), heads(self.key(x)), heads(self.value(x))
            scores = jnp.matmul(q, k.transpose(0, 1, 3, 2)) / jnp.sqrt(SIZE)
            scores = jnp.where(mask, scores, -1e9)
            y = jnp.matmul(nnx.softmax(scores), v).transpose(0, 2, 1, 3)
            x = self.norm1(x + self.output(y.reshape(B, T, INNER)))
            return self.norm2(x + self.w_2(nnx.gelu(self.w_1(x))))

    class Net(nnx.Module):
        def __init__(self, rngs):
            self.token = nnx.Embed(V, D, rngs=rngs)
            self.position = nnx.Embed(T, D, rngs=rngs)
            self.norm = nnx.LayerNorm(D, rngs=rngs)
            self.blocks = nnx.List([Block(rngs) for _ in range(layers)])
            self.transform = nnx.Linear(D, D, rngs=rngs)
            self.bias = nnx.Param(jnp.zeros((V,)))

        def __call__(self, items, labels):
            mask = (items > 0)[:, None, None, :]
            x = self.norm(self.token(items) + self.position(jnp.arange(T)))
            for block in self.blocks:
                x = block(x, mask)
            x = nnx.gelu(self.transform(x))
            logits = self.token.attend(x) + self.bias[...]
            hidden = (labels > 0).astype(jnp.float32)
            loss = -jax.nn.log_softmax(logits) * jax.nn.one_hot(labels, V)
            return (loss.sum(-1) * hidden).sum() / (hidden.sum() + 1e-6)

    own = {
        **dense("query", D, INNER, part="query"),
        **dense("key", D, INNER, part="key"),
        **dense("value", D, INNER, part="value"),
        **dense("output", INNER, D, part="attention output", residual=(0, 4)),
        **norm("norm1"),
        **dense("w_1", D, F, function="gelu"),
        **dense("w_2", F, D, residual=(1, 4)),
        **norm("norm2"),
    }
    truth = {
        "token/embedding": [embedding(D), kernel(D, V, 1, 0, head=True)],
        "position/embedding": position(),
        **norm("norm"),
        **every("blocks/{}/", layers, own),
        **dense("transform", D, D, function="gelu"),
        "bias": bias("token/embedding"),
    }
    return of_nnx(Net, [integers(B, T), integers(B, T)], truth)
