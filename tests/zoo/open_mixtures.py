"""Decoders of open code bases of 2025: experts, states, pairs of answers."""

import jax
import jax.numpy as jnp

from zoo.equinox_models import of_equinox
from zoo.layers import rotary, seen_before
from zoo.nnx_models import of_nnx
from zoo.truths import (
    ANY,
    Model,
    bias,
    dense,
    either,
    embedding,
    every,
    floats,
    integers,
    kernel,
    model,
    norm,
    one_of,
    rms_norm,
    scale,
)

B, T, D, F, HEADS, SIZE, V = 2, 6, 12, 15, 3, 4, 19
INNER = HEADS * SIZE


@model
def places_every_second_layer() -> Model:
    """Llama 4 (2025), NNX: no places in every second layer, one expert for each token.

    Inputs of experts are scaled by their score; queries grow with the place.
    """
    from flax import nnx

    experts, groups = 4, 1

    class Attention(nnx.Module):
        def __init__(self, turned, rngs):
            def linear(a, b):
                return nnx.Linear(a, b, use_bias=False, rngs=rngs)

            self.q_proj, self.k_proj = linear(D, INNER), linear(D, groups * SIZE)
            self.v_proj, self.o_proj = linear(D, groups * SIZE), linear(INNER, D)
            self.turned = turned

        def __call__(self, x):
            q = self.q_proj(x).reshape(B, T, HEADS, SIZE)
            k = self.k_proj(x).reshape(B, T, groups, SIZE)
            v = self.v_proj(x).reshape(B, T, groups, SIZE)
            if self.turned:
                q, k = rms_norm(rotary(q), 1.0), rms_norm(rotary(k), 1.0)
            else:
                late = jnp.floor((jnp.arange(T) + 1.0) / 4)
                q = q * (jnp.log1p(late) * 0.1 + 1.0)[:, None, None]
            k, v = (jnp.repeat(y, HEADS // groups, axis=2) for y in (k, v))
            s = jnp.einsum("bqhd,bkhd->bhqk", q, k) * SIZE**-0.5
            y = jnp.einsum("bhqk,bkhd->bqhd", seen_before(s), v)
            return self.o_proj(y.reshape(B, T, INNER))

    class MLP(nnx.Module):
        def __init__(self, rngs):
            self.gate_proj = nnx.Linear(D, F, use_bias=False, rngs=rngs)
            self.up_proj = nnx.Linear(D, F, use_bias=False, rngs=rngs)
            self.down_proj = nnx.Linear(F, D, use_bias=False, rngs=rngs)

        def __call__(self, x):
            return self.down_proj(nnx.silu(self.gate_proj(x)) * self.up_proj(x))

    class Experts(nnx.Module):
        def __init__(self, rngs):
            self.router = nnx.Linear(D, experts, use_bias=False, rngs=rngs)
            self.shared_expert = MLP(rngs)
            self.gate_up_proj = nnx.Param(jnp.zeros((experts, D, 2 * F)))
            self.down_proj = nnx.Param(jnp.zeros((experts, F, D)))

        def __call__(self, x):
            flat = x.reshape(-1, D)
            top, chosen = jax.lax.top_k(self.router(flat), 1)
            scores = jnp.full((B * T, experts), -jnp.inf)
            scores = scores.at[jnp.arange(B * T)[:, None], chosen].set(top)
            scores = jax.nn.sigmoid(scores).T
            routed = flat[None] * scores[..., None]
            gate, up = jnp.split(routed @ self.gate_up_proj[...], 2, axis=-1)
            y = (up * nnx.silu(gate)) @ self.down_proj[...]
            return self.shared_expert(x) + y.sum(0).reshape(B, T, D)

    class Block(nnx.Module):
        def __init__(self, i, rngs):
            self.input_layernorm = nnx.RMSNorm(D, rngs=rngs)
            self.self_attn = Attention(i == 0, rngs)
            self.post_attention_layernorm = nnx.RMSNorm(D, rngs=rngs)
            self.feed_forward = Experts(rngs) if i else MLP(rngs)

        def __call__(self, x):
            x = x + self.self_attn(self.input_layernorm(x))
            return x + self.feed_forward(self.post_attention_layernorm(x))

    class Net(nnx.Module):
        def __init__(self, rngs):
            self.embed_tokens = nnx.Embed(V, D, rngs=rngs)
            self.layers = nnx.List([Block(i, rngs) for i in range(2)])
            self.norm = nnx.RMSNorm(D, rngs=rngs)
            self.lm_head = nnx.Linear(D, V, use_bias=False, rngs=rngs)

        def __call__(self, ids):
            x = self.embed_tokens(ids)
            for layer in self.layers:
                x = layer(x)
            return self.lm_head(self.norm(x))

    def mlp(path, residual):
        return {
            f"{path}/gate_proj/kernel": kernel(D, F, function="silu", part="gate"),
            f"{path}/up_proj/kernel": kernel(D, F, part="up"),
            f"{path}/down_proj/kernel": kernel(F, D, residual=residual),
        }

    cut = [(2, ((0, F),), "gate", "silu"), (2, ((F, 2 * F),), "up", "identity")]
    at, each = "layers/1/feed_forward", {"batch_axis": 0}
    truth = {
        "embed_tokens/embedding": embedding(D),
        "norm/scale": scale(),
        "lm_head/kernel": kernel(D, V, head=True),
        **mlp("layers/0/feed_forward", (1, 5)),
        **mlp(f"{at}/shared_expert", one_of((3, 5), (4, 5))),
        f"{at}/router/kernel": kernel(D, experts, function=ANY, part="router"),
        f"{at}/gate_up_proj": kernel(D, 2 * F, 1, 2, ANY, sections=cut, **each),
        # Debatable: experts that are summed at once.
        f"{at}/down_proj": kernel(
            one_of(F, experts * F),
            D,
            ANY,
            2,
            residual=one_of((3, 5), (4, 5)),
            batch_axis=ANY,
        ),
    }
    for i in range(2):
        at = f"layers/{i}/self_attn"
        truth |= {
            f"layers/{i}/input_layernorm/scale": scale(),
            f"layers/{i}/post_attention_layernorm/scale": scale(),
            f"{at}/q_proj/kernel": kernel(D, INNER, part="query", multiplier=ANY),
            f"{at}/k_proj/kernel": kernel(D, SIZE, part="key"),
            f"{at}/v_proj/kernel": kernel(D, SIZE, part="value"),
            f"{at}/o_proj/kernel": kernel(
                INNER, D, part="attention output", residual=(2 * i, 5)
            ),
        }
    return of_nnx(Net, [integers(B, T)], truth)


@model
def deltas_of_gated_states() -> Model:
    """Peng et al. 2025 (RWKV-7): states forget by a delta rule, all gates are low-rank.

    Values of later layers are mixed with those of the first.
    """
    layers, rank = 2, 5

    def shifted(x):
        return jnp.pad(x, ((0, 0), (1, 0), (0, 0)))[:, :-1]

    def time_mix(p, x, first):
        xx = shifted(x) - x
        xr, xw, xk, xv, xa, xg = (x + xx * p[f"x_{n}"] for n in "rwkvag")
        r, k, v = xr @ p["receptance"], xk @ p["key"], xv @ p["value"]
        w = -jax.nn.softplus(-(p["w0"] + jnp.tanh(xw @ p["w1"]) @ p["w2"])) - 0.5
        if first is None:
            first = v
        else:
            mix = jax.nn.sigmoid(p["v0"] + (xv @ p["v1"]) @ p["v2"])
            v = v + (first - v) * mix
        a = jax.nn.sigmoid(p["a0"] + (xa @ p["a1"]) @ p["a2"])
        g = jax.nn.sigmoid(xg @ p["g1"]) @ p["g2"]
        kk = (k * p["k_k"]).reshape(B, T, HEADS, SIZE)
        kk = kk / jnp.sqrt(jnp.square(kk).sum(-1, keepdims=True) + 1e-12)
        k = k * (1 + (a - 1) * p["k_a"])
        r, w, k, v, a = (y.reshape(B, T, HEADS, SIZE) for y in (r, w, k, v, a))

        def step(s, now):
            r, w, k, v, kk, a = now
            removed = jnp.einsum("bhij,bhj->bhi", s, -kk)
            s = s * jnp.exp(-jnp.exp(w))[..., None, :]
            s = s + removed[..., None] * (kk * a)[..., None, :]
            s = s + v[..., None] * k[..., None, :]
            return s, jnp.einsum("bhij,bhj->bhi", s, r)

        now = jax.tree.map(lambda y: jnp.moveaxis(y, 1, 0), (r, w, k, v, kk, a))
        _, y = jax.lax.scan(step, jnp.zeros((B, HEADS, SIZE, SIZE)), now)
        y = jnp.moveaxis(y, 0, 1)
        y = (y - y.mean(-1, keepdims=True)) / jnp.sqrt(y.var(-1, keepdims=True) + 1e-5)
        y = y.reshape(B, T, INNER) * p["ln_x"]["weight"] + p["ln_x"]["bias"]
        bonus = (r * k * p["r_k"]).sum(-1, keepdims=True) * v
        y = y + bonus.reshape(B, T, INNER)
        return (y * g) @ p["output"], first

    def layer_norm_(x, p):
        return jax.nn.standardize(x) * p["weight"] + p["bias"]

    def channel_mix(p, x):
        k = x + (shifted(x) - x) * p["x_k"]
        return jnp.square(jax.nn.relu(k @ p["key"])) @ p["value"]

    def apply(p, ids):
        x, first = layer_norm_(p["emb"][ids], p["ln0"]), None
        for q in p["blocks"]:
            y, first = time_mix(q["att"], layer_norm_(x, q["ln1"]), first)
            x = x + y
            x = x + channel_mix(q["ffn"], layer_norm_(x, q["ln2"]))
        return layer_norm_(x, p["ln_out"]) @ p["head"]

    ln = {"weight": floats(D), "bias": floats(D)}
    att = {f"x_{n}": floats(D) for n in "rwkvag"}
    att |= {n: floats(D, INNER) for n in ("receptance", "key", "value")}
    for n in "wag":
        att |= {f"{n}1": floats(D, rank), f"{n}2": floats(rank, INNER)}
    att |= {"w0": floats(INNER), "a0": floats(INNER), "k_k": floats(INNER)}
    att |= {"k_a": floats(INNER), "r_k": floats(HEADS, SIZE), "ln_x": ln}
    att["output"] = floats(INNER, D)
    later = {"v0": floats(INNER), "v1": floats(D, rank), "v2": floats(rank, INNER)}
    ffn = {"x_k": floats(D), "key": floats(D, F), "value": floats(F, D)}
    params = {
        "emb": floats(V, D), "ln0": ln,
        "blocks": [
            {"ln1": ln, "att": att | more, "ln2": ln, "ffn": ffn}
            for more in ({}, later)
        ],
        "ln_out": ln, "head": floats(D, V),
    }  # fmt: skip
    # Debatable: factors of differences, and what a loop makes of its inputs.
    factor = either("scale", "gate", "unknown")
    free = {"part": ANY, "function": ANY, "recurrent": ANY, "multiplier": ANY}
    loose = {name: use for name, use in free.items() if name != "function"}
    offset = {"part": ANY, "recurrent": ANY, "multiplier": ANY}
    own = {
        **norm("ln1", "weight"), **norm("ln2", "weight"),
        **{f"att/x_{n}": factor for n in "rwkvag"},
        **{f"att/{n}": kernel(D, INNER, **free) for n in ("key", "value")},
        "att/receptance": kernel(D, INNER, **free),
        "att/w0": bias("att/w2", **offset), "att/a0": bias("att/a2", **offset),
        "att/w1": kernel(D, rank, **loose, function="tanh"),
        "att/w2": kernel(rank, INNER, **free),
        "att/a1": kernel(D, rank, **loose),
        "att/a2": kernel(rank, INNER, function="sigmoid", **loose),
        "att/g1": kernel(D, rank, function="sigmoid", **loose),
        "att/g2": kernel(rank, INNER, **loose),
        "att/k_k": factor, "att/k_a": factor, "att/r_k": factor,
        **norm("att/ln_x", "weight"),
        "att/output": kernel(INNER, D, residual=(0, 2 * layers), part=ANY),
        "ffn/x_k": factor,
        "ffn/key": kernel(D, F, function=ANY),
        "ffn/value": kernel(F, D, residual=(1, 2 * layers)),
    }  # fmt: skip
    # The scale of the group norm is behind the shape of heads.
    own["att/ln_x/weight"], own["att/ln_x/bias"] = scale(), bias(None, part=ANY)
    truth = {
        "emb": embedding(D),
        **norm("ln0", "weight"),
        **every("blocks/{}/", layers, own),
        "blocks/1/att/v0": bias("blocks/1/att/v2", **offset),
        "blocks/1/att/v1": kernel(D, rank, **loose),
        "blocks/1/att/v2": kernel(rank, INNER, function="sigmoid", **loose),
        **norm("ln_out", "weight"),
        "head": kernel(D, V, head=True),
    }
    return Model(apply, params, (integers(B, T),), truth)


@model
def preferred_answers() -> Model:
    """A reward model of pairs (Qwen 2.5's decoder), Equinox: the last word is judged.

    The loss of Bradley and Terry is in it; queries, keys and values have biases.
    """
    import equinox as eqx

    layers, groups = 2, 1

    class Block(eqx.Module):
        ln_1: eqx.nn.RMSNorm
        q: eqx.nn.Linear
        k: eqx.nn.Linear
        v: eqx.nn.Linear
        o: eqx.nn.Linear
        ln_2: eqx.nn.RMSNorm
        gate: eqx.nn.Linear
        up: eqx.nn.Linear
        down: eqx.nn.Linear

        def __init__(self, key):
            small = groups * SIZE
            self.ln_1, self.ln_2 = (eqx.nn.RMSNorm(D, use_bias=False),) * 2
            self.q = eqx.nn.Linear(D, INNER, key=key)
            self.k = eqx.nn.Linear(D, small, key=key)
            self.v = eqx.nn.Linear(D, small, key=key)
            self.o = eqx.nn.Linear(INNER, D, use_bias=False, key=key)
            self.gate = eqx.nn.Linear(D, F, use_bias=False, key=key)
            self.up = eqx.nn.Linear(D, F, use_bias=False, key=key)
            self.down = eqx.nn.Linear(F, D, use_bias=False, key=key)

        def __call__(self, x, mask):
            h = jax.vmap(self.ln_1)(x)
            q = rotary(jax.vmap(self.q)(h).reshape(1, T, HEADS, SIZE))[0]
            k = rotary(jax.vmap(self.k)(h).reshape(1, T, groups, SIZE))[0]
            v = jax.vmap(self.v)(h).reshape(T, groups, SIZE)
            y = jax.nn.dot_product_attention(q, k, v, mask=mask[None])
            x = x + jax.vmap(self.o)(y.reshape(T, INNER))

            def feed(x):
                h = self.ln_2(x)
                return x + self.down(jax.nn.silu(self.gate(h)) * self.up(h))

            return jax.vmap(feed)(x)

    class Net(eqx.Module):
        embed: eqx.nn.Embedding
        blocks: list
        norm: eqx.nn.RMSNorm
        score: eqx.nn.Linear

        def __init__(self, key):
            self.embed = eqx.nn.Embedding(V, D, key=key)
            self.blocks = [Block(key) for _ in range(layers)]
            self.norm = eqx.nn.RMSNorm(D, use_bias=False)
            self.score = eqx.nn.Linear(D, 1, use_bias=False, key=key)

        def reward(self, ids, attention_mask):
            x = jax.vmap(self.embed)(ids)
            mask = jnp.tril(jnp.ones((T, T), bool)) & (attention_mask > 0)[None]
            for block in self.blocks:
                x = block(x, mask)
            last = attention_mask.sum() - 1
            return self.score(self.norm(x[last]))[0]

        def __call__(self, pair, attention_mask):
            chosen, rejected = jax.vmap(self.reward)(pair, attention_mask)
            return -jax.nn.log_sigmoid(chosen - rejected), chosen > rejected

    def turned(path, a, b, **rest):
        return {f"{path}/weight": kernel(a, b, 1, 0, **rest)}

    def biased(path, a, b, **rest):
        return dense(path, a, b, "weight", in_axis=1, out_axis=0, **rest)

    own = {
        "ln_1/weight": scale(), "ln_2/weight": scale(),
        **biased("q", D, INNER, part="query"),
        **biased("k", D, SIZE, part="key"),
        **biased("v", D, SIZE, part="value"),
        **turned("o", INNER, D, part="attention output", residual=(0, 2 * layers)),
        **turned("gate", D, F, function="silu", part="gate"),
        **turned("up", D, F, part="up"),
        **turned("down", F, D, residual=(1, 2 * layers)),
    }  # fmt: skip
    truth = {
        "embed/weight": embedding(D),
        **every("blocks/{}/", layers, own),
        "norm/weight": scale(),
        # Debatable: a difference of two scores, and its loss.
        "score/weight": kernel(D, 1, 1, ANY, head=True, function=ANY),
    }
    return of_equinox(Net, [integers(B, 2, T), integers(B, 2, T)], truth)
