"""Language of 2023 to 2026: depth that recurs, gated memories, shared keys, streams."""

import jax
import jax.numpy as jnp

from zoo.flax_layers import of_linen
from zoo.layers import affine, causal, linear, rotary, scales
from zoo.nnx_models import of_nnx
from zoo.truths import (
    ANY,
    WRITES,
    Model,
    below,
    bias,
    convolution,
    cut,
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
    rms_norm,
    scale,
    unknown,
)

B, T, D, F, HEADS, SIZE, V = 2, 6, 12, 15, 3, 4, 19
INNER = HEADS * SIZE
ORDER = ("query", "key", "value")
GLU = [(1, ((0, F),), "gate", "silu"), (1, ((F, 2 * F),), "up", "identity")]


@model
def depth_that_recurs() -> Model:
    """Geiping et al. 2025 (Huginn), plain: one block again and again, on its own state.

    A kernel joins state and input in each round; norms before and behind the sums.
    """

    def block(p, x):
        h = rms_norm(x, p["n1"]) @ p["wqkv"]
        q, k, v = (y.reshape(B, T, HEADS, SIZE) for y in jnp.split(h, 3, axis=-1))
        a = causal(jnp.einsum("bqhd,bkhd->bhqk", rotary(q), rotary(k)) / SIZE**0.5)
        y = jnp.einsum("bhqk,bkhd->bqhd", a, v).reshape(B, T, INNER)
        x = rms_norm(x + y @ p["wo"], p["n2"])
        g, u = jnp.split(rms_norm(x, p["n3"]) @ p["fc"], 2, axis=-1)
        return rms_norm(x + (jax.nn.silu(g) * u) @ p["proj"], p["n4"])

    def apply(p, ids, noise):
        e = block(p["prelude"], p["wte"][ids] * D**0.5)

        def again(_, s):
            s = jnp.concatenate([s, e], axis=-1) @ p["adapter"]
            return rms_norm(block(p["core"], s), p["core_norm"])

        s = jax.lax.fori_loop(0, 3, again, noise)
        return rms_norm(block(p["coda"], s), p["ln_f"]) @ p["wte"].T

    one = {
        **{f"n{i}": floats(D) for i in range(1, 5)},
        "wqkv": floats(D, 3 * INNER), "wo": floats(INNER, D),
        "fc": floats(D, 2 * F), "proj": floats(F, D),
    }  # fmt: skip
    params = {"wte": floats(V, D), "prelude": one, "core": one, "coda": one}
    params |= {"adapter": floats(2 * D, D), "core_norm": floats(D), "ln_f": floats(D)}

    def block_truth(first, second, recurrent=False):
        own = {"recurrent": recurrent}
        return {
            **{f"n{i}": scale() for i in range(1, 5)},
            "wqkv": kernel(D, 3 * INNER, sections=cut(1, INNER, ORDER), **own),
            "wo": kernel(INNER, D, part="attention output", residual=first, **own),
            "fc": kernel(D, 2 * F, function=ANY, sections=GLU, **own),
            "proj": kernel(F, D, residual=second, **own),
        }

    truth = {
        "wte": [embedding(D, multiplier=D**0.5), kernel(D, V, 1, 0, head=True)],
        **below("prelude/", block_truth((0, 2), (1, 2))),
        # Debatable: rounds of one module are time, or depth; how its stream goes on.
        "adapter": kernel(2 * D, D, recurrent=ANY, sections=ANY),
        **below("core/", block_truth(WRITES, WRITES, ANY)),
        "core_norm": scale(),
        **below("coda/", block_truth(WRITES, WRITES)),
        "ln_f": scale(),
    }
    return Model(apply, params, (integers(B, T), floats(B, T, D)), truth)


@model
def gated_deltas() -> Model:
    """Yang et al. 2025 (Gated DeltaNet), Linen: a state decays before it is corrected.

    Decays are of Mamba's kind; a gate behind the norm of each head.
    """
    from flax import linen as nn

    layers = 2

    def unit(x):
        return x * jax.lax.rsqrt(jnp.sum(x * x, -1, keepdims=True) + 1e-6)

    class Mix(nn.Module):
        @nn.compact
        def __call__(self, x):
            def bare(size, name):
                return nn.Dense(size, use_bias=False, name=name)(x)

            def short(name):
                conv = nn.Conv(
                    INNER, (4,), padding="CAUSAL", feature_group_count=INNER,
                    use_bias=False, name=f"{name}_conv1d",
                )  # fmt: skip
                y = nn.silu(conv(bare(INNER, f"{name}_proj")))
                return y.reshape(B, T, HEADS, SIZE)

            q, k, v = unit(short("q")), unit(short("k")), short("v")
            beta = nn.sigmoid(bare(HEADS, "b_proj"))
            zeros = nn.initializers.zeros
            a_log = self.param("A_log", zeros, (HEADS,))
            dt = bare(HEADS, "a_proj") + self.param("dt_bias", zeros, (HEADS,))
            decay = jnp.exp(-jnp.exp(a_log) * nn.softplus(dt))

            def step(state, now):
                q, k, v, beta, decay = now
                state = state * decay[..., None, None]
                new = (v - jnp.einsum("bhkv,bhk->bhv", state, k)) * beta[..., None]
                state = state + jnp.einsum("bhk,bhv->bhkv", k, new)
                return state, jnp.einsum("bhkv,bhk->bhv", state, q)

            now = jax.tree.map(lambda y: y.swapaxes(0, 1), (q, k, v, beta, decay))
            y = jax.lax.scan(step, jnp.zeros((B, HEADS, SIZE, SIZE)), now)[1]
            y = nn.RMSNorm(name="o_norm")(y.swapaxes(0, 1))
            y = y * nn.silu(bare(INNER, "g_proj")).reshape(y.shape)
            y = y.reshape(B, T, INNER)
            return nn.Dense(D, use_bias=False, name="o_proj")(y)

    class Net(nn.Module):
        @nn.compact
        def __call__(self, ids):
            x = nn.Embed(V, D, name="embed")(ids)
            for i in range(layers):
                h = nn.RMSNorm(name=f"l{i}_attn_norm")(x)
                x = x + Mix(name=f"l{i}_attn")(h)
                h = nn.RMSNorm(name=f"l{i}_mlp_norm")(x)
                g = nn.silu(nn.Dense(F, use_bias=False, name=f"l{i}_gate")(h))
                h = g * nn.Dense(F, use_bias=False, name=f"l{i}_up")(h)
                x = x + nn.Dense(D, use_bias=False, name=f"l{i}_down")(h)
            x = nn.RMSNorm(name="norm")(x)
            return nn.Dense(V, use_bias=False, name="lm_head")(x)

    line = {"spatial_axis": 0, "in_axis": 1, "out_axis": 2, "groups": INNER}
    layer = {"attn_norm/scale": scale(), "mlp_norm/scale": scale()}
    for name in "qkv":
        # Debatable: the kernel before the window, or the window, makes the query.
        layer |= {
            f"attn/{name}_proj/kernel": kernel(D, INNER, part=ANY),
            f"attn/{name}_conv1d/kernel": convolution(
                4, 4, function="silu", part=ANY, **line
            ),
        }
    layer |= {
        "attn/b_proj/kernel": kernel(D, HEADS, function="sigmoid", part="gate"),
        # A softplus, then a leaf, then an exponential.
        "attn/a_proj/kernel": kernel(D, HEADS, function="softplus", part=ANY),
        "attn/A_log": unknown(),
        "attn/o_norm/scale": scale(),
        "attn/g_proj/kernel": kernel(D, INNER, function="silu", part="gate"),
        "attn/o_proj/kernel": kernel(INNER, D, part=ANY, residual=(0, 2 * layers)),
        "gate/kernel": kernel(D, F, function="silu", part="gate"),
        "up/kernel": kernel(D, F, part="up"),
        "down/kernel": kernel(F, D, residual=(1, 2 * layers)),
    }
    layer["attn/dt_bias"] = bias("attn/a_proj/kernel", part=ANY)
    truth = {
        "embed/embedding": embedding(D),
        **every("l{}_", layers, layer),
        "norm/scale": scale(),
        "lm_head/kernel": kernel(D, V, head=True),
    }
    return of_linen(Net(), [integers(B, T)], truth)


@model
def keys_for_all_layers() -> Model:
    """Sun et al. 2024 (YOCO), NNX: the upper half asks keys that are made once."""
    from flax import nnx

    window, upper = 3, 2

    class Ask(nnx.Module):
        def __init__(self, rngs):
            self.q = nnx.LinearGeneral(D, (HEADS, SIZE), use_bias=False, rngs=rngs)
            self.o = nnx.LinearGeneral(
                (HEADS, SIZE), D, axis=(-2, -1), use_bias=False, rngs=rngs
            )

        def __call__(self, x, k, v, seen):
            s = jnp.einsum("bqhd,bkd->bhqk", rotary(self.q(x)), k) * SIZE**-0.5
            a = nnx.softmax(jnp.where(seen, s, -jnp.inf), axis=-1)
            return self.o(jnp.einsum("bhqk,bkd->bqhd", a, v))

    class Mlp(nnx.Module):
        def __init__(self, rngs):
            self.gate, self.up = (
                nnx.Linear(D, F, use_bias=False, rngs=rngs) for _ in range(2)
            )
            self.down = nnx.Linear(F, D, use_bias=False, rngs=rngs)

        def __call__(self, x):
            return self.down(nnx.silu(self.gate(x)) * self.up(x))

    class Layer(nnx.Module):
        def __init__(self, rngs):
            self.n1, self.n2 = (nnx.RMSNorm(D, rngs=rngs) for _ in range(2))
            self.ask, self.mlp = Ask(rngs), Mlp(rngs)

        def __call__(self, x, k, v, seen):
            x = x + self.ask(self.n1(x), k, v, seen)
            return x + self.mlp(self.n2(x))

    class Net(nnx.Module):
        def __init__(self, rngs):
            def one_head():
                return nnx.Linear(D, SIZE, use_bias=False, rngs=rngs)

            self.embed = nnx.Embed(V, D, rngs=rngs)
            self.own_k, self.own_v = one_head(), one_head()
            self.lower = Layer(rngs)
            self.kv_norm = nnx.RMSNorm(D, rngs=rngs)
            self.k, self.v = one_head(), one_head()
            self.upper = nnx.List([Layer(rngs) for _ in range(upper)])
            self.norm = nnx.RMSNorm(D, rngs=rngs)

        def __call__(self, ids):
            x = self.embed(ids)
            i, j = jnp.arange(T)[:, None], jnp.arange(T)
            near = (i >= j) & (i - j < window)
            h = self.lower.n1(x)
            x = self.lower(x, rotary(self.own_k(h)), self.own_v(h), near)
            h = self.kv_norm(x)
            k, v = rotary(self.k(h)), self.v(h)
            for layer in self.upper:
                x = layer(x, k, v, i >= j)
            return self.embed.attend(self.norm(x))

    layer = {
        "n1/scale": scale(),
        "ask/q/kernel": kernel(D, INNER, 0, (1, 2), part="query"),
        "ask/o/kernel": kernel(
            INNER, D, (0, 1), 2, part="attention output", residual=(0, 6)
        ),
        "n2/scale": scale(),
        "mlp/gate/kernel": kernel(D, F, function="silu", part="gate"),
        "mlp/up/kernel": kernel(D, F, part="up"),
        "mlp/down/kernel": kernel(F, D, residual=(1, 6)),
    }
    blocks = every("{}/", 3, layer)
    names = {"0": "lower", "1": "upper/0", "2": "upper/1"}
    truth = {
        "embed/embedding": [embedding(D), kernel(D, V, 1, 0, head=True)],
        **{names[path[0]] + path[1:]: use for path, use in blocks.items()},
        "own_k/kernel": kernel(D, SIZE, part="key"),
        "own_v/kernel": kernel(D, SIZE, part="value"),
        "kv_norm/scale": scale(),
        "k/kernel": kernel(D, SIZE, part="key"),
        "v/kernel": kernel(D, SIZE, part="value"),
        "norm/scale": scale(),
        # One norm of what is asked with, one of what is asked.
        "lower/n1/scale": [scale()] * 2,
    }
    return of_nnx(Net, [integers(B, T)], truth)


@model
def distances_by_network() -> Model:
    """Li et al. 2024 (FIRE), plain: a network of distances biases scores."""
    layers, hidden = 2, 8

    def distances(p):
        i, j = jnp.arange(T)[:, None], jnp.arange(T)
        apart = jnp.maximum(i - j, 0).astype(jnp.float32)
        c, most = jnp.abs(p["c"]), jnp.abs(p["L"])
        ratio = jnp.log(c * apart + 1) / jnp.log(c * jnp.maximum(i, most) + 1.0)
        h = jax.nn.relu(ratio[..., None] @ p["w1"] + p["b1"])
        return jnp.moveaxis(h @ p["w2"] + p["b2"], -1, 0)

    def apply(p, ids):
        x = p["tok"][ids]
        for r in p["blocks"]:
            h = layer_norm(x, r["n1"])
            q, k, v = (jnp.einsum("ntc,hsc->nhts", h, r[name]) for name in "qkv")
            s = jnp.einsum("nhts,nhus->nhtu", q * SIZE**-0.5, k) + distances(r["fire"])
            y = jnp.einsum("nhtu,nhus->nhts", causal(s), v)
            x = x + jnp.einsum("nhts,chs->ntc", y, r["o"])
            h = jax.nn.gelu(linear(r["fc1"], layer_norm(x, r["n2"])))
            x = x + linear(r["fc2"], h)
        return jnp.einsum("ntc,vc->ntv", layer_norm(x, p["n"]), p["tok"])

    fire = {
        "c": floats(), "L": floats(), "w1": floats(1, hidden), "b1": floats(hidden),
        "w2": floats(hidden, HEADS), "b2": floats(HEADS),
    }  # fmt: skip
    one = {
        "n1": scales(D), **{name: floats(HEADS, SIZE, D) for name in "qkv"},
        "fire": fire, "o": floats(D, HEADS, SIZE), "n2": scales(D),
        "fc1": affine(D, F), "fc2": affine(F, D),
    }  # fmt: skip
    params = {"tok": floats(V, D), "blocks": [one] * layers, "n": scales(D)}
    block = {
        **norm("n1"),
        "q": kernel(D, INNER, 2, (0, 1), part="query", multiplier=SIZE**-0.5),
        "k": kernel(D, INNER, 2, (0, 1), part="key"),
        "v": kernel(D, INNER, 2, (0, 1), part="value"),
        # Of leaves and constants alone, until it is added to scores.
        **{f"fire/{name}": unknown() for name in ("c", "L", "w1", "b1", "w2")},
        "fire/b2": either("unknown", "bias", "position"),
        "o": kernel(
            INNER, D, (1, 2), 0, part="attention output", residual=(0, 2 * layers)
        ),
        **norm("n2"),
        **dense("fc1", D, F, function="gelu"),
        **dense("fc2", F, D, residual=(1, 2 * layers)),
    }
    truth = {
        "tok": [embedding(D), kernel(D, V, 1, 0, head=True)],
        **every("blocks/{}/", layers, block),
        **norm("n"),
    }
    return Model(apply, params, (integers(B, T),), truth)


@model
def streams_side_by_side() -> Model:
    """Zhu et al. 2024 (hyper-connections), plain: streams, mixed by small kernels."""
    streams, layers = 5, 2

    def connected(p, x, layer):
        mixed = jnp.einsum("btnd,nm->btmd", x, p["alpha"])
        y = layer(rms_norm(mixed[:, :, 0], p["n"]))
        return mixed[:, :, 1:] + jnp.einsum("btd,n->btnd", y, p["beta"])

    def attend(p, x):
        q, k, v = (y.reshape(B, T, HEADS, SIZE) for y in (x @ p[c] for c in "qkv"))
        a = causal(jnp.einsum("bqhd,bkhd->bhqk", q, k) / SIZE**0.5)
        return jnp.einsum("bhqk,bkhd->bqhd", a, v).reshape(B, T, INNER) @ p["o"]

    def apply(p, ids):
        x = jnp.repeat(p["wte"][ids][:, :, None], streams, axis=2)
        for q in p["layers"]:
            x = connected(q["att"], x, lambda h, q=q: attend(q["att"], h))
            x = connected(
                q["mlp"],
                x,
                lambda h, q=q: jax.nn.gelu(h @ q["mlp"]["up"]) @ q["mlp"]["down"],
            )
        return rms_norm(x.sum(2), p["norm"]) @ p["head"]

    own = {"alpha": floats(streams, streams + 1), "beta": floats(streams)}
    own["n"] = floats(D)
    layer = {
        "att": own | {c: floats(D, INNER) for c in "qkv"} | {"o": floats(INNER, D)},
        "mlp": own | {"up": floats(D, F), "down": floats(F, D)},
    }
    params = {"wte": floats(V, D), "layers": [layer] * layers}
    params |= {"norm": floats(D), "head": floats(D, V)}
    # Debatable: what mixes streams is a kernel; whether mixed ones are streams still.
    open_ = {"function": ANY, "part": ANY, "residual": ANY, "sections": ANY}
    mixing = {
        "alpha": kernel(streams, streams + 1, **open_),
        "beta": either("gate", "scale", "kernel", "unknown"),
        "n": scale(),
    }
    block = {
        **below("att/", mixing),
        **{f"att/{c}": kernel(D, INNER, part=ORDER["qkv".index(c)]) for c in "qkv"},
        "att/o": kernel(INNER, D, part="attention output", residual=ANY),
        **below("mlp/", mixing),
        "mlp/up": kernel(D, F, function="gelu"),
        "mlp/down": kernel(F, D, residual=ANY),
    }
    truth = {
        "wte": embedding(D),
        **every("layers/{}/", layers, block),
        "norm": scale(),
        "head": kernel(D, V, head=True),
    }
    return Model(apply, params, (integers(B, T),), truth)
