"""Language models: gates on heads, norms behind, further words, bytes, a sphere."""

import jax
import jax.numpy as jnp

from zoo.equinox_models import linear as eqx_linear
from zoo.equinox_models import of_equinox
from zoo.haiku_models import linear as hk_linear
from zoo.haiku_models import of_haiku
from zoo.layers import causal, rotary
from zoo.nnx_models import of_nnx
from zoo.truths import (
    ANY,
    Model,
    below,
    embedding,
    floats,
    integers,
    kernel,
    model,
    norm,
    one_of,
    position,
    rms_norm,
    scale,
    stacked,
)

B, T, D, F, HEADS, SIZE, V = 2, 6, 12, 15, 3, 4, 19
INNER = HEADS * SIZE
ORDER = ("query", "key", "value")
GLU = [
    (1, ((0, F),), "gate", "silu"),
    (1, ((F, 2 * F),), "up", "identity"),
]


@model
def gated_heads() -> Model:
    """Qwen 2025 (Qwen3-Next), plain: each head has a gate, scales begin at one."""
    layers = 2

    def norm_(x, w):
        return rms_norm(x, 1.0 + w)

    @jax.checkpoint
    def block(x, p):
        h = norm_(x, p["input_norm"])
        qg = jnp.einsum("btd,dhk->bthk", h, p["q"])
        q, g = jnp.split(qg, 2, axis=-1)
        k, v = jnp.einsum("btd,cdk->cbtk", h, p["kv"])
        q, k = rotary(norm_(q, p["q_norm"])), rotary(norm_(k, p["k_norm"]))
        a = causal(jnp.einsum("bqhk,bsk->bhqs", q, k) * SIZE**-0.5)
        y = jnp.einsum("bhqs,bsk->bqhk", a, v) * jax.nn.sigmoid(g)
        x = x + jnp.einsum("bthk,hkd->btd", y, p["o"])
        h = norm_(x, p["post_norm"])
        y = (jax.nn.silu(h @ p["gate"]) * (h @ p["up"])) @ p["down"]
        return x + y * jax.nn.sigmoid(h @ p["shared_gate"]), None

    def apply(p, ids):
        x, _ = jax.lax.scan(block, p["embed"][ids], p["layers"])
        return norm_(x, p["norm"]) @ p["lm_head"]

    def many(*shape):
        return floats(layers, *shape)

    params = {
        "embed": floats(V, D),
        "layers": {
            "input_norm": many(D), "q": many(D, HEADS, 2 * SIZE),
            "kv": many(2, D, SIZE), "q_norm": many(SIZE), "k_norm": many(SIZE),
            "o": many(HEADS, SIZE, D), "post_norm": many(D), "gate": many(D, F),
            "up": many(D, F), "down": many(F, D), "shared_gate": many(D, 1),
        },
        "norm": floats(D),
        "lm_head": floats(D, V),
    }  # fmt: skip
    one = {"offset": 1.0}
    halves = [
        (2, ((0, SIZE),), "query", "identity"),
        # Debatable: what gates an attention's output has no name of its own.
        (2, ((SIZE, 2 * SIZE),), ANY, "sigmoid"),
    ]
    pair = [(0, ((i, i + 1),), ORDER[i + 1], "identity") for i in range(2)]
    own = {
        "input_norm": scale(**one),
        "q": kernel(D, 2 * INNER, 0, (1, 2), ANY, part=ANY, sections=halves),
        "kv": kernel(D, 2 * SIZE, 1, (0, 2), sections=pair),
        "q_norm": scale(**one),
        "k_norm": scale(**one),
        "o": kernel(
            INNER, D, (0, 1), 2, part="attention output", residual=(0, 2 * layers)
        ),
        "post_norm": scale(**one),
        "gate": kernel(D, F, function="silu", part="gate"),
        "up": kernel(D, F, part="up"),
        "down": kernel(F, D, residual=(1, 2 * layers)),
        # Debatable: one number for each place gates the whole branch.
        "shared_gate": kernel(D, 1, function="sigmoid", part=ANY, residual=ANY),
    }
    truth = {
        "embed": embedding(D),
        **below("layers/", stacked(own)),
        "norm": scale(**one),
        "lm_head": kernel(D, V, head=True),
    }
    return Model(apply, params, (integers(B, T),), truth)


@model
def norms_behind() -> Model:
    """OLMo 2 (2025), NNX: norms end the branches; queries are normed over all heads."""
    from flax import nnx

    layers = 2

    class Block(nnx.Module):
        def __init__(self, rngs):
            def lin(a, b):
                return nnx.Linear(a, b, use_bias=False, rngs=rngs)

            self.q, self.k, self.v = (lin(D, INNER) for _ in range(3))
            self.o = lin(INNER, D)
            self.q_norm = nnx.RMSNorm(INNER, rngs=rngs)
            self.k_norm = nnx.RMSNorm(INNER, rngs=rngs)
            self.post_attn = nnx.RMSNorm(D, rngs=rngs)
            self.post_mlp = nnx.RMSNorm(D, rngs=rngs)
            self.gate_up, self.down = lin(D, 2 * F), lin(F, D)

        def __call__(self, x):
            q, k = self.q_norm(self.q(x)), self.k_norm(self.k(x))
            q, k, v = (y.reshape(B, T, HEADS, SIZE) for y in (q, k, self.v(x)))
            y = nnx.dot_product_attention(rotary(q), rotary(k), v)
            x = x + self.post_attn(self.o(y.reshape(B, T, INNER)))
            g, u = jnp.split(self.gate_up(x), 2, axis=-1)
            return x + self.post_mlp(self.down(nnx.silu(g) * u))

    class Net(nnx.Module):
        def __init__(self, rngs):
            @nnx.split_rngs(splits=layers)
            @nnx.vmap(in_axes=0, out_axes=0)
            def make(rngs):
                return Block(rngs)

            self.embed = nnx.Embed(V, D, rngs=rngs)
            self.blocks = make(rngs)
            self.norm = nnx.RMSNorm(D, rngs=rngs)
            self.head = nnx.Linear(D, V, use_bias=False, rngs=rngs)

        def __call__(self, ids):
            @nnx.scan(in_axes=(0, nnx.Carry), out_axes=nnx.Carry)
            @nnx.remat
            def run(block, x):
                return block(x)

            return self.head(self.norm(run(self.blocks, self.embed(ids))))

    block = {
        "q/kernel": kernel(D, INNER, part="query"),
        "k/kernel": kernel(D, INNER, part="key"),
        "v/kernel": kernel(D, INNER, part="value"),
        "o/kernel": kernel(
            INNER, D, part="attention output", residual=(0, 2 * layers)
        ),
        # Debatable: queries are divided behind their norm, or scores.
        "q_norm/scale": scale(multiplier=ANY),
        "k_norm/scale": scale(),
        **{f"{n}/scale": scale() for n in ("post_attn", "post_mlp")},
        "gate_up/kernel": kernel(D, 2 * F, function=ANY, sections=GLU),
        "down/kernel": kernel(F, D, residual=(1, 2 * layers)),
    }  # fmt: skip
    truth = {
        "embed/embedding": embedding(D),
        **below("blocks/", stacked(block)),
        "norm/scale": scale(),
        "head/kernel": kernel(D, V, head=True),
    }
    return of_nnx(Net, [integers(B, T)], truth)


@model
def further_words() -> Model:
    """DeepSeek-V3's prediction of two words, Haiku: one table and head for both."""
    import haiku as hk

    def normed(x, name):
        return hk.RMSNorm(-1, name=name)(x)

    def block(x, name):
        h = normed(x, f"{name}_n1")
        mask = jnp.tril(jnp.ones((1, 1, T, T)))
        att = hk.MultiHeadAttention(
            HEADS, SIZE, w_init=hk.initializers.VarianceScaling(), model_size=D,
            name=f"{name}_attn",
        )  # fmt: skip
        x = x + att(h, h, h, mask)
        h = normed(x, f"{name}_n2")
        h = jax.nn.silu(hk.Linear(F, False, name=f"{name}_gate")(h)) * hk.Linear(
            F, False, name=f"{name}_up"
        )(h)
        return x + hk.Linear(D, False, name=f"{name}_down")(h)

    def fun(ids):
        embed = hk.Embed(V, D, name="embed")
        head = hk.Linear(V, False, name="head")
        h = block(embed(ids), "main")
        logits = head(normed(h, "norm"))
        after = jnp.roll(ids, -1, axis=1)
        both = [normed(h, "hnorm"), normed(embed(after), "enorm")]
        h = hk.Linear(D, False, name="eh_proj")(jnp.concatenate(both, axis=-1))
        return logits, head(normed(block(h, "mtp"), "mtp_norm"))

    def blocks(name, residual):
        path = f"{name}_attn"
        return {
            f"{name}_n1/scale": scale(),
            **hk_linear(f"{path}/query", D, INNER, part="query"),
            **hk_linear(f"{path}/key", D, INNER, part="key"),
            **hk_linear(f"{path}/value", D, INNER, part="value"),
            **hk_linear(
                f"{path}/linear",
                INNER,
                D,
                part="attention output",
                residual=residual[0],
            ),
            f"{name}_n2/scale": scale(),
            f"{name}_gate/w": kernel(D, F, function="silu", part="gate"),
            f"{name}_up/w": kernel(D, F, part="up"),
            f"{name}_down/w": kernel(F, D, residual=residual[1]),
        }

    truth = {
        "embed/embeddings": [embedding(D)] * 2,
        **blocks("main", ((0, 2), (1, 2))),
        "norm/scale": scale(),
        "hnorm/scale": scale(),
        "enorm/scale": scale(),
        # A kernel on normed values begins another stream.
        "eh_proj/w": kernel(2 * D, D),
        **blocks("mtp", ((0, 2), (1, 2))),
        "mtp_norm/scale": scale(),
        "head/w": [kernel(D, V, head=True)] * 2,
    }
    return of_haiku(fun, [integers(B, T)], truth)


@model
def patches_of_bytes() -> Model:
    """Yu et al. 2023 (MegaByte), Equinox: a block over patches, one within each."""
    import equinox as eqx

    size, wide, heads = 2, 10, 2
    count = T // size

    class Block(eqx.Module):
        n1: eqx.nn.LayerNorm
        att: eqx.nn.MultiheadAttention
        n2: eqx.nn.LayerNorm
        mlp: eqx.nn.MLP

        def __init__(self, d, key):
            self.n1, self.n2 = eqx.nn.LayerNorm(d), eqx.nn.LayerNorm(d)
            self.att = eqx.nn.MultiheadAttention(heads, d, key=key)
            self.mlp = eqx.nn.MLP(d, d, F, 1, jax.nn.gelu, key=key)

        def __call__(self, x):
            h = jax.vmap(self.n1)(x)
            x = x + self.att(h, h, h, jnp.tri(len(x), dtype=bool))
            return x + jax.vmap(self.mlp)(jax.vmap(self.n2)(x))

    class Net(eqx.Module):
        pieces: eqx.nn.Embedding
        places: jax.Array
        whole: Block
        down: eqx.nn.Linear
        local: eqx.nn.Embedding
        part: Block
        norm: eqx.nn.LayerNorm
        head: eqx.nn.Linear

        def __init__(self, key):
            self.pieces = eqx.nn.Embedding(V, wide // size, key=key)
            self.places = jnp.zeros((count, wide))
            self.whole, self.part = Block(wide, key), Block(8, key)
            self.down = eqx.nn.Linear(wide // size, 8, key=key)
            self.local = eqx.nn.Embedding(V, 8, key=key)
            self.norm = eqx.nn.LayerNorm(8)
            self.head = eqx.nn.Linear(8, V, key=key)

        def __call__(self, ids):
            x = jax.vmap(self.pieces)(ids).reshape(count, wide) + self.places
            x = self.whole(x).reshape(count * size, -1)
            x = jax.vmap(self.down)(x) + jax.vmap(self.local)(ids)
            x = jax.vmap(self.part)(x.reshape(count, size, 8)).reshape(T, 8)
            return jax.vmap(self.head)(jax.vmap(self.norm)(x))

    def block(path, d, first, second):
        def bare(name, **rest):
            weight = f"{path}/att/{name}_proj/weight"
            return {weight: kernel(d, d, 1, 0, **rest)}

        return {
            **norm(f"{path}/n1", "weight"),
            **bare("query", part="query", multiplier=(d // heads) ** -0.5),
            **bare("key", part="key"),
            **bare("value", part="value"),
            **bare("output", part="attention output", residual=first),
            **norm(f"{path}/n2", "weight"),
            **eqx_linear(f"{path}/mlp/layers/0", d, F, function="gelu"),
            **eqx_linear(f"{path}/mlp/layers/1", F, d, residual=second),
        }

    truth = {
        "pieces/weight": embedding(wide // size),
        "places": position(),
        **block("whole", wide, (0, 2), (1, 2)),
        # Debatable: the sum of a kernel's output and rows begins a stream, or is in it.
        **eqx_linear("down", wide // size, 8, residual=one_of(None, (0, 3))),
        "local/weight": embedding(8),
        **block("part", 8, one_of((0, 2), (1, 3)), one_of((1, 2), (2, 3))),
        **norm("norm", "weight"),
        **eqx_linear("head", 8, V, head=True),
    }
    return of_equinox(Net, [integers(B, T)], truth)
