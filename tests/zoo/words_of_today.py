"""Language: decoders of today, places apart from contents, replaced words."""

import math

import jax
import jax.numpy as jnp

from zoo.equinox_models import of_equinox
from zoo.flax_layers import attention, of_linen
from zoo.layers import affine, linear, rotary, scales
from zoo.truths import (
    ANY,
    WRITES,
    Model,
    Use,
    below,
    bias,
    dense,
    either,
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
    rms_norm,
    scale,
    shift,
    unknown,
)

B, T, D, F, HEADS, SIZE, V, O = 2, 6, 12, 15, 3, 4, 19, 5  # noqa: E741
ORDER = ("query", "key", "value")


@model
def sinks_and_gathered_experts() -> Model:
    """OpenAI 2025 (gpt-oss): sinks beside scores, experts' weights taken by index."""
    layers, experts, best, groups = 2, 4, 2, 1
    inner = HEADS * SIZE

    def swiglu(x):
        glu, up = x[..., ::2], x[..., 1::2]
        glu, up = jnp.minimum(glu, 7.0), jnp.clip(up, -7.0, 7.0)
        return glu * jax.nn.sigmoid(1.702 * glu) * (up + 1)

    def attend(p, x):
        h = linear(p["qkv"], rms_norm(x, p["norm"]))
        q, k, v = jnp.split(h, [inner, inner + SIZE], axis=-1)
        q = rotary(q.reshape(B, T, groups, HEADS, SIZE))
        k, v = rotary(k.reshape(B, T, groups, SIZE)), v.reshape(B, T, groups, SIZE)
        s = jnp.einsum("bqhmd,bkhd->bhmqk", q, k) / math.sqrt(SIZE)
        s = s + jnp.triu(jnp.full((T, T), -jnp.inf), k=1)
        sinks = jnp.broadcast_to(
            p["sinks"].reshape(1, groups, HEADS, 1, 1), (*s.shape[:-1], 1)
        )
        s = jax.nn.softmax(jnp.concatenate([s, sinks], axis=-1), axis=-1)[..., :-1]
        y = jnp.einsum("bhmqk,bkhd->bqhmd", s, v).reshape(B, T, inner)
        return x + linear(p["out"], y)

    def mix(p, x):
        h = rms_norm(x, p["norm"])
        scores, chosen = jax.lax.top_k(linear(p["gate"], h), best)
        weights = jax.nn.softmax(scores, axis=-1)
        y = jnp.einsum("bteck,btk->btec", p["w1"][chosen], h) + p["b1"][chosen]
        y = jnp.einsum("bteck,btek->btec", p["w2"][chosen], swiglu(y)) + p["b2"][chosen]
        return x + jnp.einsum("btec,bte->btc", y, weights)

    def apply(p, ids):
        x = p["embedding"][ids]
        for q in p["block"]:
            x = mix(q["mlp"], attend(q["attn"], x))
        return rms_norm(x, p["norm"]) @ p["unembedding"].T

    one = {
        "attn": {
            "norm": floats(D),
            "qkv": affine(D, inner + 2 * SIZE),
            "sinks": floats(HEADS),
            "out": affine(inner, D),
        },
        "mlp": {
            "norm": floats(D),
            "gate": affine(D, experts),
            "w1": floats(experts, 2 * F, D),
            "b1": floats(experts, 2 * F),
            "w2": floats(experts, D, F),
            "b2": floats(experts, D),
        },
    }
    params = {
        "embedding": floats(V, D),
        "block": [one] * layers,
        "norm": floats(D),
        "unembedding": floats(V, D),
    }
    spans = ((0, inner), (inner, inner + SIZE), (inner + SIZE, inner + 2 * SIZE))
    columns = list(zip(spans, ORDER, strict=True))
    own = {"batch_axis": 0}
    # Debatable: a gate with a cap and a slope, every second row; up is clipped.
    open_ = {"part": ANY, "sections": ANY}
    block = {
        "attn/norm": scale(),
        "attn/qkv/kernel": kernel(
            D,
            inner + 2 * SIZE,
            sections=[(1, (span,), part, "identity") for span, part in columns],
        ),
        "attn/qkv/bias": bias(
            "attn/qkv/kernel",
            sections=[(0, (span,), part, None) for span, part in columns],
        ),
        "attn/sinks": unknown(),
        **dense(
            "attn/out", inner, D, part="attention output", residual=(0, 2 * layers)
        ),
        "mlp/norm": scale(),
        **dense("mlp/gate", D, experts, part="router"),
        "mlp/w1": kernel(D, 2 * F, 2, 1, function=ANY, **open_, **own),
        "mlp/b1": bias("mlp/w1", 1, **open_, **own),
        "mlp/w2": kernel(F, D, 2, 1, residual=(1, 2 * layers), **own),
        "mlp/b2": bias("mlp/w2", 1, **own),
    }
    truth = {
        "embedding": embedding(D),
        **every("block/{}/", layers, block),
        "norm": scale(),
        "unembedding": kernel(D, V, 1, 0, head=True),
    }
    return Model(apply, params, (integers(B, T),), truth)


@model
def speedrun() -> Model:
    """Jordan et al. 2024 (modded-nanogpt), Equinox: values of ids, skips of a U."""
    import equinox as eqx

    inner, layers = HEADS * SIZE, 4

    def unit(x):
        return x * jax.lax.rsqrt(jnp.mean(x**2, axis=-1, keepdims=True) + 1e-6)

    class Block(eqx.Module):
        qkv: jax.Array
        out: eqx.nn.Linear
        mix: jax.Array
        lambdas: jax.Array
        fc: eqx.nn.Linear
        proj: eqx.nn.Linear

        def __init__(self, key):
            self.qkv = jax.random.normal(key, (3, inner, D))
            self.out = eqx.nn.Linear(inner, D, use_bias=False, key=key)
            self.mix = jnp.array([1.0, 0.0])
            self.lambdas = jnp.array([0.5, 0.5])
            self.fc = eqx.nn.Linear(D, 4 * D, use_bias=False, key=key)
            self.proj = eqx.nn.Linear(4 * D, D, use_bias=False, key=key)

        def __call__(self, x, x0, value):
            x = self.mix[0] * x + self.mix[1] * x0
            h = unit(x) @ self.qkv.reshape(3 * inner, D).T
            q, k, v = (y.reshape(T, HEADS, SIZE) for y in jnp.split(h, 3, axis=-1))
            v = self.lambdas[0] * v + self.lambdas[1] * value.reshape(v.shape)
            q, k = rotary(unit(q)[None])[0], rotary(unit(k)[None])[0]
            s = jnp.einsum("qhd,khd->hqk", q, k) * 0.12
            s = jnp.where(jnp.tri(T, dtype=bool), s, -jnp.inf)
            y = jnp.einsum("hqk,khd->qhd", jax.nn.softmax(s), v).reshape(T, inner)
            x = x + jax.vmap(self.out)(y)
            h = jnp.square(jax.nn.relu(jax.vmap(self.fc)(unit(x))))
            return x + jax.vmap(self.proj)(h)

    class Net(eqx.Module):
        wte: eqx.nn.Embedding
        values: list
        blocks: list
        skips: jax.Array
        head: jax.Array

        def __init__(self, key):
            self.wte = eqx.nn.Embedding(V, D, key=key)
            self.values = [eqx.nn.Embedding(V, inner, key=key) for _ in range(2)]
            self.blocks = [Block(key) for _ in range(layers)]
            self.skips = jnp.ones(layers // 2)
            self.head = jnp.zeros((V, D))

        def __call__(self, ids):
            x = x0 = unit(jax.vmap(self.wte)(ids))
            found = [jax.vmap(table)(ids) for table in self.values]
            kept = []
            for i, block in enumerate(self.blocks):
                if i >= layers // 2:
                    x = x + self.skips[i - layers // 2] * kept.pop()
                x = block(x, x0, found[i % 2])
                if i < layers // 2:
                    kept.append(x)
            logits = unit(x) @ self.head.T
            return 15 * logits * jax.lax.rsqrt(jnp.square(logits) + 15**2)

    # Debatable: numbers that weigh a stream and what is mixed with it.
    number = Use(
        one_of("scale", "gate"), ANY, ANY, stack_axis=0, multiplier=ANY, part=ANY,
        residual=ANY,
    )  # fmt: skip
    thirds = [(0, ((i, i + 1),), ORDER[i], "identity") for i in range(3)]
    truth = {
        "wte/weight": embedding(D),
        "values/0/weight": embedding(inner, part=ANY, multiplier=ANY),
        "values/1/weight": embedding(inner, part=ANY, multiplier=ANY),
        "skips": [number, number],
        # A cap without one of the known functions.
        "head": kernel(D, V, 1, 0, function=ANY, multiplier=ANY, head=True),
    }
    for i in range(layers):
        path = f"blocks/{i}"
        truth |= {
            f"{path}/qkv": kernel(
                D, 3 * inner, 2, (0, 1), sections=thirds, multiplier=ANY
            ),
            # Debatable: a stream that a number scales, and that skips feed.
            f"{path}/out/weight": kernel(
                inner, D, 1, 0, part="attention output", residual=WRITES
            ),
            # The products of one leaf with two streams are summed.
            f"{path}/mix": unknown(),
            f"{path}/lambdas": unknown(),
            f"{path}/fc/weight": kernel(D, 4 * D, 1, 0, function=ANY),
            f"{path}/proj/weight": kernel(4 * D, D, 1, 0, residual=WRITES),
        }
    return of_equinox(Net, [integers(B, T)], truth)


@model
def disentangled_scores() -> Model:
    """He et al. 2021 (DeBERTa): places of contents, and contents of places."""
    reach = 3
    inner = HEADS * SIZE

    def apply(p, ids):
        x = layer_norm(p["word"][ids], p["ln_e"])
        places = layer_norm(p["rel"], p["ln_rel"])
        apart = jnp.arange(T)[:, None] - jnp.arange(T)[None]
        apart = jnp.clip(apart + reach, 0, 2 * reach - 1)

        def heads(y):
            return jnp.moveaxis(y.reshape(*y.shape[:-1], HEADS, SIZE), -2, -3)

        for q_ in p["layers"]:
            q, k, v = (heads(linear(q_[name], x)) for name in ("q", "k", "v"))
            pk, pq = heads(linear(q_["k"], places)), heads(linear(q_["q"], places))
            factor = 1 / math.sqrt(3 * SIZE)
            s = q @ k.swapaxes(-1, -2) * factor
            c2p = q @ pk.swapaxes(-1, -2) * factor
            index = jnp.broadcast_to(apart, s.shape)
            s = s + jnp.take_along_axis(c2p, index, axis=-1)
            p2c = k @ pq.swapaxes(-1, -2) * factor
            s = s + jnp.take_along_axis(p2c, index, axis=-1).swapaxes(-1, -2)
            y = jnp.moveaxis(jax.nn.softmax(s) @ v, -3, -2).reshape(B, T, inner)
            x = layer_norm(x + linear(q_["o"], y), q_["ln_1"])
            h = jax.nn.gelu(linear(q_["up"], x), approximate=False)
            x = layer_norm(x + linear(q_["down"], h), q_["ln_2"])
        h = layer_norm(jax.nn.gelu(linear(p["transform"], x)), p["ln_h"])
        return h @ p["word"].T + p["bias"]

    one = {
        **{name: affine(D, inner) for name in "qkv"},
        "o": affine(inner, D),
        "ln_1": scales(D),
        "up": affine(D, F),
        "down": affine(F, D),
        "ln_2": scales(D),
    }
    params = {
        "word": floats(V, D),
        "ln_e": scales(D),
        "rel": floats(2 * reach, D),
        "ln_rel": scales(D),
        "layers": [one] * 2,
        "transform": affine(D, D),
        "ln_h": scales(D),
        "bias": floats(V),
    }
    # Debatable: a use on places alone, whose products are keys, or queries, of places.
    again = either("kernel", "unknown")
    # Debatable: a bias, whose use on places alone is contracted with activations.
    beside = [either("bias", "unknown"), either("bias", "unknown", "kernel")]
    own = {
        "q/kernel": [kernel(D, inner, part="query", multiplier=ANY), again],
        "q/bias": beside,
        "k/kernel": [kernel(D, inner, part="key", multiplier=ANY), again],
        "k/bias": beside,
        **dense("v", D, inner, part="value"),
        **norm("ln_1"),
        **dense("up", D, F, function="gelu"),
        **norm("ln_2"),
    }
    truth = {
        "word": [embedding(D), kernel(D, V, 1, 0, head=True)],
        **norm("ln_e"),
        # A table without look-ups, normed, that kernels read: functions of leaves.
        "rel": unknown(),
        "ln_rel/scale": unknown(),
        "ln_rel/bias": unknown(),
        **dense("transform", D, D, function="gelu"),
        **norm("ln_h"),
        "bias": bias("word"),
    }  # fmt: skip
    for i in range(2):
        out = {"part": "attention output", "residual": (2 * i, 4)}
        truth |= below(f"layers/{i}/", own)
        truth |= dense(f"layers/{i}/o", inner, D, **out)
        truth |= dense(f"layers/{i}/down", F, D, residual=(2 * i + 1, 4))
    return Model(apply, params, (integers(B, T),), truth)


@model
def replaced_words() -> Model:
    """Clark et al. 2020 (ELECTRA), Linen: two nets of two widths share their tables."""
    from flax import linen as nn

    narrow, e = 6, 8

    class Encoder(nn.Module):
        width: int

        @nn.compact
        def __call__(self, x):
            x = nn.Dense(self.width, name="project")(x)
            h = nn.MultiHeadDotProductAttention(3, name="attention")(x)
            x = nn.LayerNorm(name="ln_1")(x + h)
            h = nn.gelu(nn.Dense(F, name="up")(x))
            return nn.LayerNorm(name="ln_2")(x + nn.Dense(self.width, name="down")(h))

    class Net(nn.Module):
        @nn.compact
        def __call__(self, ids):
            words = nn.Embed(V, e, name="word")
            places = nn.Embed(9, e, name="place")
            norm = nn.LayerNorm(name="ln")

            def embedded(ids):
                return norm(words(ids) + places(jnp.arange(ids.shape[1])[None]))

            h = Encoder(narrow, name="generator")(embedded(ids))
            h = nn.LayerNorm(name="lm_ln")(nn.gelu(nn.Dense(e, name="lm")(h)))
            logits = words.attend(h) + self.param("bias", nn.initializers.zeros, (V,))
            fake = jnp.where(ids == 1, jnp.argmax(logits, axis=-1), ids)
            y = Encoder(D, name="discriminator")(embedded(fake))
            y = nn.gelu(nn.Dense(D, name="rtd")(y))
            return logits, nn.Dense(1, name="is_real")(y)[..., 0]

    def encoder(path, width):
        heads = {"residual": (0, 2), "scaled": True}
        return {
            **dense(f"{path}/project", e, width),
            **attention(f"{path}/attention", width, 3, width // 3, **heads),
            **norm(f"{path}/ln_1"),
            **dense(f"{path}/up", width, F, function="gelu"),
            **dense(f"{path}/down", F, width, residual=(1, 2)),
            **norm(f"{path}/ln_2"),
        }

    truth = {
        # Debatable: what the generator says most likely is read again.
        "word/embedding": [
            embedding(e),
            kernel(e, V, 1, 0, head=ANY),
            embedding(e),
        ],
        "place/embedding": [position()] * 2,
        "ln/scale": [scale()] * 2,
        "ln/bias": [shift()] * 2,
        **encoder("generator", narrow),
        **dense("lm", narrow, e, function="gelu"),
        **norm("lm_ln"),
        "bias": bias("word/embedding"),
        **encoder("discriminator", D),
        **dense("rtd", D, D, function="gelu"),
        **dense("is_real", D, 1, head=True),
    }
    return of_linen(Net(), [integers(B, T)], truth)
