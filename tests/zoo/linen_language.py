"""Flax Linen: BERT, T5 and Gemma as their authors' code has them."""

import functools
import operator

import jax
import jax.numpy as jnp

from zoo.flax_layers import of_linen
from zoo.truths import (
    ANY,
    Model,
    bias,
    dense,
    embedding,
    every,
    integers,
    kernel,
    model,
    norm,
    position,
    scale,
)

BATCH, WIDTH, HEADS, SIZE, HIDDEN, VOCABULARY = 2, 12, 3, 5, 20, 17
INNER, LAYERS = HEADS * SIZE, 2


@model
def bert() -> Model:
    """Devlin et al. 2019: tokens, positions and segments; norms after the sums.

    The pooler and a classifier read the first token.
    """
    from flax import linen as nn

    class Attention(nn.Module):
        @nn.compact
        def __call__(self, x, mask):
            q, k, v = (
                nn.Dense(INNER, name=name)(x).reshape(*x.shape[:2], HEADS, SIZE)
                for name in ("query", "key", "value")
            )
            masked = jnp.where(mask[:, None, None, :] > 0, 0.0, -1e9)
            weights = nn.dot_product_attention_weights(q, k, bias=masked)
            h = jnp.einsum("...hqk,...khd->...qhd", weights, v)
            h = nn.Dense(WIDTH, name="dense")(h.reshape(*x.shape[:2], INNER))
            return nn.LayerNorm(epsilon=1e-12, name="LayerNorm")(h + x)

    class Layer(nn.Module):
        @nn.compact
        def __call__(self, x, mask):
            x = Attention(name="attention")(x, mask)
            h = nn.Dense(HIDDEN, name="intermediate")(x)
            h = nn.Dense(WIDTH, name="output")(nn.gelu(h, approximate=False))
            return nn.LayerNorm(epsilon=1e-12, name="LayerNorm")(h + x)

    class Net(nn.Module):
        @nn.compact
        def __call__(self, tokens, segments, mask):
            places = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)
            x = nn.Embed(VOCABULARY, WIDTH, name="word_embeddings")(tokens)
            x += nn.Embed(9, WIDTH, name="position_embeddings")(places)
            x += nn.Embed(2, WIDTH, name="token_type_embeddings")(segments)
            x = nn.LayerNorm(name="LayerNorm")(x)
            for i in range(LAYERS):
                x = Layer(name=f"layer_{i}")(x, mask)
            x = nn.tanh(nn.Dense(11, name="pooler")(x[:, 0]))
            return nn.Dense(4, name="classifier")(x)

    def into(part, **rest):
        return dense(f"attention/{part}", WIDTH, INNER, part=part, **rest)

    layer = {
        **into("query", multiplier=SIZE**-0.5),
        **into("key"),
        **into("value"),
        **dense(
            "attention/dense", INNER, WIDTH, residual=(0, 4), part="attention output"
        ),
        **norm("attention/LayerNorm"),
        **dense("intermediate", WIDTH, HIDDEN, function="gelu"),
        **dense("output", HIDDEN, WIDTH, residual=(1, 4)),
        **norm("LayerNorm"),
    }
    # The scaled sum multiplies the bias too, but not as a leaf.
    layer["attention/query/bias"] = bias(
        "attention/query/kernel", part="query", multiplier=ANY
    )
    truth = {
        "word_embeddings/embedding": embedding(WIDTH),
        "position_embeddings/embedding": position(),
        "token_type_embeddings/embedding": embedding(WIDTH),
        **norm("LayerNorm"),
        **every("layer_{}/", LAYERS, layer),
        **dense("pooler", WIDTH, 11, function="tanh"),
        **dense("classifier", 11, 4, head=True),
    }
    inputs = [integers(BATCH, 6), integers(BATCH, 6), integers(BATCH, 6)]
    return of_linen(Net(), inputs, truth)


def buckets_of(length, both_ways, count):
    """Raffel et al. 2020: half the buckets are exact, the others logarithmic."""
    place = jax.lax.iota(jnp.int32, length)
    distance = place[:, None] - place[None, :]
    result = 0
    if both_ways:
        count //= 2
        result = (distance < 0).astype(jnp.int32) * count
        distance = jnp.abs(distance)
    else:
        distance = jnp.maximum(distance, 0)
    exact = count // 2
    ratio = jnp.log(distance.astype(jnp.float32) / exact + 1e-6) / jnp.log(16 / exact)
    large = exact + (ratio * (count - exact)).astype(jnp.int32)
    large = jnp.minimum(large, count - 1)
    return result + jnp.where(distance < exact, distance, large)


@model
def t5_1_1() -> Model:
    """T5X: kernels stored flat, one-hot lookups, GEGLU, cross attention, tied logits.

    One table of relative positions for each stack, contracted in each of its layers.
    """
    from flax import linen as nn

    buckets = 8
    normal = nn.initializers.normal()

    class General(nn.Module):
        features: tuple
        axes: int = 1

        @nn.compact
        def __call__(self, x):
            inputs = x.shape[-self.axes :]
            rows = functools.reduce(operator.mul, inputs)
            columns = functools.reduce(operator.mul, self.features)
            flat = self.param("kernel", normal, (rows, columns))
            weights = flat.reshape(inputs + self.features)
            last = tuple(range(x.ndim - self.axes, x.ndim))
            contract = (last, tuple(range(self.axes)))
            return jax.lax.dot_general(x, weights, (contract, ((), ())))

    class Norm(nn.Module):
        @nn.compact
        def __call__(self, x):
            mean = jnp.mean(jax.lax.square(x), axis=-1, keepdims=True)
            factor = self.param("scale", nn.initializers.ones, x.shape[-1:])
            return x * jax.lax.rsqrt(mean + 1e-6) * factor

    class Relative(nn.Module):
        @nn.compact
        def __call__(self, length, both_ways):
            table = self.param("rel_embedding", normal, (HEADS, buckets))
            bucket = buckets_of(length, both_ways, buckets)
            one_hot = jax.lax.broadcasted_iota(jnp.int32, (buckets, 1, 1), 0) == bucket
            one_hot = one_hot.astype(jnp.float32)
            return jax.lax.dot_general(table, one_hot, (((1,), (0,)), ((), ())))[None]

    class Attention(nn.Module):
        @nn.compact
        def __call__(self, x, memory, relative=None):
            q = General((HEADS, SIZE), name="query")(x)
            k = General((HEADS, SIZE), name="key")(memory)
            v = General((HEADS, SIZE), name="value")(memory)
            scores = jnp.einsum("bqhd,bkhd->bhqk", q, k)
            scores = scores if relative is None else scores + relative
            h = jnp.einsum("bhqk,bkhd->bqhd", jax.nn.softmax(scores), v)
            return General((WIDTH,), 2, name="out")(h)

    class Mlp(nn.Module):
        @nn.compact
        def __call__(self, x):
            factors = [
                function(General((HIDDEN,), name=f"wi_{i}")(x))
                for i, function in enumerate((nn.gelu, lambda h: h))
            ]
            return General((WIDTH,), name="wo")(functools.reduce(operator.mul, factors))

    class Layer(nn.Module):
        relative: nn.Module
        crosses: bool

        @nn.compact
        def __call__(self, x, memory=None):
            relative = self.relative(x.shape[1], not self.crosses)
            h = Norm(name="pre_attention_layer_norm")(x)
            x = Attention(name="attention")(h, h, relative) + x
            if self.crosses:
                h = Norm(name="pre_cross_attention_layer_norm")(x)
                x = Attention(name="cross_attention")(h, memory) + x
            return Mlp(name="mlp")(Norm(name="pre_mlp_layer_norm")(x)) + x

    class Net(nn.Module):
        def setup(self):
            self.embed = self.param("token_embedder", normal, (VOCABULARY, WIDTH))
            self.relative = [Relative(), Relative()]
            self.encoder = [Layer(self.relative[0], False) for _ in range(LAYERS)]
            self.decoder = [Layer(self.relative[1], True) for _ in range(LAYERS)]
            self.encoder_norm, self.decoder_norm = Norm(), Norm()

        def look_up(self, tokens):
            one_hot = tokens[..., None] == jax.lax.iota(jnp.int32, VOCABULARY)
            return jnp.dot(one_hot.astype(jnp.float32), self.embed)

        def __call__(self, sources, targets):
            memory = self.look_up(sources)
            for layer in self.encoder:
                memory = layer(memory)
            memory, x = self.encoder_norm(memory), self.look_up(targets)
            for layer in self.decoder:
                x = layer(x, memory)
            logits = jnp.dot(self.decoder_norm(x), self.embed.T)
            return logits / jnp.sqrt(WIDTH)

    def attention(path, residual):
        out = kernel(INNER, WIDTH, residual=residual, part="attention output")
        return {
            **{
                f"{path}/{part}/kernel": kernel(WIDTH, INNER, part=part)
                for part in ("query", "key", "value")
            },
            f"{path}/out/kernel": out,
        }

    def mlp(residual):
        return {
            "pre_mlp_layer_norm/scale": scale(),
            "mlp/wi_0/kernel": kernel(WIDTH, HIDDEN, function="gelu", part="gate"),
            "mlp/wi_1/kernel": kernel(WIDTH, HIDDEN, part="up"),
            "mlp/wo/kernel": kernel(HIDDEN, WIDTH, residual=residual),
        }

    encoder = {
        "pre_attention_layer_norm/scale": scale(),
        **attention("attention", (0, 4)),
        **mlp((1, 4)),
    }
    decoder = {
        "pre_attention_layer_norm/scale": scale(),
        **attention("attention", (0, 6)),
        "pre_cross_attention_layer_norm/scale": scale(),
        **attention("cross_attention", (1, 6)),
        **mlp((2, 6)),
    }
    tied = kernel(WIDTH, VOCABULARY, 1, 0, multiplier=WIDTH**-0.5, head=True)
    truth = {
        "token_embedder": [embedding(WIDTH), embedding(WIDTH), tied],
        # Each layer asks for the scores' bias anew.
        "relative_0/rel_embedding": [position(1, 0)] * LAYERS,
        "relative_1/rel_embedding": [position(1, 0)] * LAYERS,
        **every("encoder_{}/", LAYERS, encoder),
        "encoder_norm/scale": scale(),
        **every("decoder_{}/", LAYERS, decoder),
        "decoder_norm/scale": scale(),
    }
    return of_linen(Net(), [integers(BATCH, 6), integers(BATCH, 4)], truth)


@model
def gemma_2() -> Model:
    """Einsums with (2, K, D, H) for keys and values, norms 1 + w at both ends, caps."""
    from flax import linen as nn

    keys, repeats = 2, 2
    heads = keys * repeats

    class RMSNorm(nn.Module):
        @nn.compact
        def __call__(self, x):
            factor = self.param("scale", nn.initializers.zeros_init(), x.shape[-1:])
            mean = jnp.mean(jnp.square(x), axis=-1, keepdims=True)
            return x * jax.lax.rsqrt(mean + 1e-6) * (1 + factor)

    class Einsum(nn.Module):
        shape: tuple

        @nn.compact
        def __call__(self, equation, x):
            weights = self.param("w", nn.initializers.normal(), self.shape)
            return jnp.einsum(equation, x, weights)

    class Attention(nn.Module):
        @nn.compact
        def __call__(self, x):
            length = x.shape[1]
            q = Einsum((heads, WIDTH, 6), name="q_einsum")("btd,ndh->btnh", x)
            both = Einsum((2, keys, WIDTH, 6), name="kv_einsum")
            k, v = both("bsd,ckdh->cbskh", x)
            q, k = turned(q) * 6**-0.5, turned(k)
            q = q.reshape(BATCH, length, keys, repeats, 6)
            scores = jnp.einsum("btkgh,bskh->btkgs", q, k)
            scores = jnp.tanh(scores / 50.0) * 50.0
            causal = jnp.tril(jnp.ones((length, length), bool))[None, :, None, None]
            weights = jax.nn.softmax(jnp.where(causal, scores, -2e38), axis=-1)
            h = jnp.einsum("btkgs,bskh->btkgh", weights, v)
            h = h.reshape(BATCH, length, heads, 6)
            out = Einsum((heads, 6, WIDTH), name="attn_vec_einsum")
            return out("btnh,nhd->btd", h)

    def turned(x):
        angles = jnp.arange(x.shape[1])[:, None] / 10000 ** (jnp.arange(3) / 3)
        sin, cos = jnp.sin(angles)[:, None], jnp.cos(angles)[:, None]
        first, second = jnp.split(x, 2, axis=-1)
        both = first * cos - second * sin, second * cos + first * sin
        return jnp.concatenate(both, axis=-1)

    class FeedForward(nn.Module):
        @nn.compact
        def __call__(self, x):
            normal = nn.initializers.normal()
            gating = self.param("gating_einsum", normal, (2, WIDTH, HIDDEN))
            h = nn.gelu(jnp.dot(x, gating[0])) * jnp.dot(x, gating[1])
            return jnp.dot(h, self.param("linear", normal, (HIDDEN, WIDTH)))

    class Net(nn.Module):
        @nn.compact
        def __call__(self, tokens):
            normal = nn.initializers.normal()
            table = self.param("input_embedding", normal, (VOCABULARY, WIDTH))
            x = table[(tokens,)] * jnp.sqrt(WIDTH).astype(jnp.float32)
            for i in range(LAYERS):
                h = RMSNorm(name=f"pre_attention_norm_{i}")(x)
                h = Attention(name=f"attn_{i}")(h)
                x = x + RMSNorm(name=f"post_attention_norm_{i}")(h)
                h = FeedForward(name=f"mlp_{i}")(RMSNorm(name=f"pre_ffw_norm_{i}")(x))
                x = x + RMSNorm(name=f"post_ffw_norm_{i}")(h)
            logits = jnp.dot(RMSNorm(name="final_norm")(x), table.T)
            return jnp.tanh(logits / 30.0) * 30.0

    inner, parts = heads * 6, ("key", "value")
    sections = [(0, ((i, i + 1),), part, "identity") for i, part in enumerate(parts)]
    names = "pre_attention", "post_attention", "pre_ffw", "post_ffw"
    truth = {
        "input_embedding": [
            embedding(WIDTH, multiplier=WIDTH**0.5),
            # Debatable: divided by the cap before the tanh, multiplied after it.
            kernel(WIDTH, VOCABULARY, 1, 0, ANY, multiplier=ANY, head=True),
        ],
        "final_norm/scale": scale(offset=1.0),
    }
    for i in range(LAYERS):
        truth |= {f"{name}_norm_{i}/scale": scale(offset=1.0) for name in names}
        truth |= {
            # Debatable: the scale comes after the rotation.
            f"attn_{i}/q_einsum/w": kernel(
                WIDTH, inner, 1, (0, 2), part="query", multiplier=ANY
            ),
            f"attn_{i}/kv_einsum/w": kernel(
                WIDTH, 2 * keys * 6, 2, (0, 1, 3), sections=sections
            ),
            f"attn_{i}/attn_vec_einsum/w": kernel(
                inner, WIDTH, (0, 1), 2, part="attention output", residual=(2 * i, 4)
            ),
            f"mlp_{i}/gating_einsum": [
                kernel(WIDTH, HIDDEN, 1, 2, "gelu", part="gate", stack_axis=0),
                kernel(WIDTH, HIDDEN, 1, 2, part="up", stack_axis=0),
            ],
            f"mlp_{i}/linear": kernel(HIDDEN, WIDTH, residual=(2 * i + 1, 4)),
        }
    return of_linen(Net(), [integers(BATCH, 7)], truth)
