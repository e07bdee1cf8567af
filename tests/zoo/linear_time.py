"""Plain functions: blocks in place of softmax attention, whose cost is linear."""

import jax
import jax.numpy as jnp

from zoo.layers import depthwise, over_window
from zoo.truths import (
    ANY,
    Model,
    below,
    bias,
    every,
    floats,
    integers,
    kernel,
    model,
    scale,
    unknown,
)
from zoo.truths import embedding as looked_up
from zoo.truths import rms_norm as rms

BATCH, LENGTH, WIDTH, HEADS, SIZE, VOCABULARY = 2, 6, 12, 3, 4, 17
INNER = HEADS * SIZE


@model
def retention() -> Model:
    """Sun et al. 2023 (RetNet): rotated queries and keys, a decay for each head."""

    def rotate(x):
        angles = jnp.arange(LENGTH)[:, None] * 0.1 ** jnp.arange(SIZE // 2)
        sin, cos = (
            jnp.repeat(jnp.sin(angles), 2, -1),
            jnp.repeat(jnp.cos(angles), 2, -1),
        )
        pairs = jnp.stack([-x[..., 1::2], x[..., ::2]], -1).reshape(x.shape)
        return x * cos + pairs * sin

    def heads(x):
        return x.reshape(BATCH, LENGTH, HEADS, SIZE).transpose(0, 2, 1, 3)

    def msr(p, x):
        q, k, v = (heads(x @ p[f"{name}_proj"]) for name in "qkv")
        distance = jnp.arange(LENGTH)[:, None] - jnp.arange(LENGTH)
        gamma = (1 - 2.0 ** (-5 - jnp.arange(HEADS)))[:, None, None]
        decay = jnp.where(distance >= 0, gamma**distance, 0)
        scores = jnp.einsum("bhnd,bhmd->bhnm", rotate(q), rotate(k * SIZE**-0.5))
        y = jnp.einsum("bhnm,bhmd->bnhd", scores * decay, v)
        mean, var = y.mean(-1, keepdims=True), y.var(-1, keepdims=True)
        y = ((y - mean) / jnp.sqrt(var + 1e-6)).reshape(BATCH, LENGTH, INNER)
        return (jax.nn.silu(x @ p["g_proj"]) * y) @ p["out_proj"]

    def apply(p, tokens):
        x = p["embed"][tokens]
        for layer in p["layers"]:
            x = x + msr(layer["retention"], rms(x, layer["norm1"]))
            h = rms(x, layer["norm2"])
            ffn = layer["ffn"]
            x = x + jax.nn.gelu(h @ ffn["fc1"]) @ ffn["fc2"]
        return x @ p["out"]

    layer = {
        "retention": {
            **{f"{name}_proj": floats(WIDTH, INNER) for name in "qkvg"},
            "out_proj": floats(INNER, WIDTH),
        },
        "norm1": floats(WIDTH),
        "norm2": floats(WIDTH),
        "ffn": {"fc1": floats(WIDTH, 20), "fc2": floats(20, WIDTH)},
    }
    params = {
        "embed": floats(VOCABULARY, WIDTH),
        "layers": [layer, layer],
        "out": floats(WIDTH, VOCABULARY),
    }
    own = {
        "retention/q_proj": kernel(WIDTH, INNER, part="query"),
        "retention/k_proj": kernel(WIDTH, INNER, part="key", multiplier=SIZE**-0.5),
        "retention/v_proj": kernel(WIDTH, INNER, part="value"),
        "retention/g_proj": kernel(WIDTH, INNER, part="gate", function="silu"),
        "retention/out_proj": kernel(
            INNER, WIDTH, residual=(0, 4), part="attention output"
        ),
        "norm1": scale(),
        "norm2": scale(),
        "ffn/fc1": kernel(WIDTH, 20, function="gelu"),
        "ffn/fc2": kernel(20, WIDTH, residual=(1, 4)),
    }
    truth = {
        "embed": looked_up(WIDTH),
        **every("layers/{}/", 2, own),
        "out": kernel(WIDTH, VOCABULARY, head=True),
    }
    return Model(apply, params, (integers(BATCH, LENGTH),), truth)


@model
def delta_rule() -> Model:
    """Yang et al. 2024 (DeltaNet): short windows, unit keys, a loop over positions."""

    def unit(x):
        return x * jax.lax.rsqrt(jnp.sum(x * x, -1, keepdims=True) + 1e-6)

    def mix(p, x):
        q, k, v = (
            jax.nn.silu(over_window(x @ p[name], p[f"{name}_conv"])) for name in "qkv"
        )
        q, k, v = (t.reshape(BATCH, LENGTH, HEADS, SIZE) for t in (q, k, v))
        beta = jax.nn.sigmoid(x @ p["beta"])

        def step(state, now):
            q, k, v, beta = now
            old = jnp.einsum("bhkv,bhk->bhv", state, k)
            state += jnp.einsum("bhk,bhv,bh->bhkv", k, v - old, beta)
            return state, jnp.einsum("bhkv,bhk->bhv", state, q)

        now = jax.tree.map(lambda t: jnp.swapaxes(t, 0, 1), (unit(q), unit(k), v, beta))
        y = jax.lax.scan(step, jnp.zeros((BATCH, HEADS, SIZE, SIZE)), now)[1]
        y = rms(y.swapaxes(0, 1), p["o_norm"]).reshape(BATCH, LENGTH, INNER)
        return y @ p["o"]

    def apply(p, x):
        x = x @ p["in"]
        x = x + mix(p["mix"], rms(x, p["norm"]))
        return rms(x, p["last"]) @ p["out"]

    params = {
        "in": floats(5, WIDTH),
        "norm": floats(WIDTH),
        "mix": {
            **{name: floats(WIDTH, INNER) for name in "qkv"},
            **{f"{name}_conv": floats(4, 1, INNER) for name in "qkv"},
            "beta": floats(WIDTH, HEADS),
            "o_norm": floats(SIZE),
            "o": floats(INNER, WIDTH),
        },
        "last": floats(WIDTH),
        "out": floats(WIDTH, 2),
    }
    # Debatable: the kernel before the window, or the window, makes the query.
    truth = {
        "in": kernel(5, WIDTH),
        "norm": scale(),
        **{f"mix/{name}": kernel(WIDTH, INNER, part=ANY) for name in "qkv"},
        **{
            f"mix/{name}_conv": depthwise(INNER, function="silu", part=ANY)
            for name in "qkv"
        },
        "mix/beta": kernel(WIDTH, HEADS, function="sigmoid", part="gate"),
        "mix/o_norm": scale(),
        "mix/o": kernel(INNER, WIDTH, residual=(0, 1), part=ANY),
        "last": scale(),
        "out": kernel(WIDTH, 2, head=True),
    }
    return Model(apply, params, (floats(BATCH, LENGTH, 5),), truth)


@model
def gated_linear_recurrence() -> Model:
    """De et al. 2024 (Griffin): gates of blocks on the diagonal, decays of a leaf."""

    def rg_lru(p, x):
        heads = x.reshape(BATCH, LENGTH, HEADS, SIZE)
        into = jnp.einsum("...hi,hij->...hj", heads, p["input_gate"]["w"])
        gate_x = jax.nn.sigmoid(into + p["input_gate"]["b"]).reshape(x.shape)
        away = jnp.einsum("...hi,hij->...hj", heads, p["a_gate"]["w"])
        gate_a = jax.nn.sigmoid(away + p["a_gate"]["b"]).reshape(x.shape)
        log_a = -8.0 * gate_a * jax.nn.softplus(p["a_param"])
        a = jnp.exp(log_a)
        x = x * gate_x * jnp.sqrt(1 - jnp.exp(2 * log_a))

        def step(h, now):
            a, x = now
            h = a * h + x
            return h, h

        now = (a.swapaxes(0, 1), x.swapaxes(0, 1))
        return jax.lax.scan(step, jnp.zeros_like(x[:, 0]), now)[1].swapaxes(0, 1)

    def apply(p, x):
        b = p["block"]
        h = rms(x, b["norm"])
        y = jax.nn.gelu(h @ b["linear_y"]["w"] + b["linear_y"]["b"])
        h = h @ b["linear_x"]["w"] + b["linear_x"]["b"]
        h = rg_lru(b["rg_lru"], over_window(h, b["conv"]["w"]) + b["conv"]["b"])
        x = x + (h * y) @ b["linear_out"]["w"] + b["linear_out"]["b"]
        return x @ p["out"]

    def affine(fan_in, fan_out):
        return {"w": floats(fan_in, fan_out), "b": floats(fan_out)}

    params = {
        "block": {
            "norm": floats(WIDTH),
            "linear_y": affine(WIDTH, INNER),
            "linear_x": affine(WIDTH, INNER),
            "conv": {"w": floats(4, 1, INNER), "b": floats(INNER)},
            "rg_lru": {
                "a_param": floats(INNER),
                **{
                    name: {"w": floats(HEADS, SIZE, SIZE), "b": floats(HEADS, SIZE)}
                    for name in ("input_gate", "a_gate")
                },
            },
            "linear_out": affine(INNER, WIDTH),
        },
        "out": floats(WIDTH, 2),
    }
    blocks = {"in_axis": 1, "out_axis": 2, "batch_axis": 0, "function": "sigmoid"}
    # Debatable: biases of one head each stand for a batch, or for features.
    offsets = {"out_axis": ANY, "batch_axis": ANY, "part": ANY}
    own = {
        "norm": scale(),
        "linear_y/w": kernel(WIDTH, INNER, function="gelu", part="gate"),
        "linear_y/b": bias("linear_y/w", part="gate"),
        "linear_x/w": kernel(WIDTH, INNER, part=ANY),
        "linear_x/b": bias("linear_x/w", part=ANY),
        # Debatable: the other factor of a gate, behind a loop; it feeds gates too.
        "conv/w": depthwise(INNER, function=ANY, part=ANY),
        "conv/b": bias("conv/w", part=ANY),
        "rg_lru/a_param": unknown(),
        "rg_lru/input_gate/w": kernel(SIZE, SIZE, part="gate", **blocks),
        "rg_lru/input_gate/b": bias("rg_lru/input_gate/w", **offsets),
        # Its exponential multiplies the state, behind a product with a leaf.
        "rg_lru/a_gate/w": kernel(SIZE, SIZE, part=ANY, **blocks | {"function": ANY}),
        "rg_lru/a_gate/b": bias("rg_lru/a_gate/w", **offsets),
        "linear_out/w": kernel(INNER, WIDTH, residual=(0, 1), part=ANY),
        "linear_out/b": bias("linear_out/w", part=ANY),
    }
    truth = {**below("block/", own), "out": kernel(WIDTH, 2, head=True)}
    return Model(apply, params, (floats(BATCH, LENGTH, WIDTH),), truth)


@model
def state_space_duality() -> Model:
    """Dao & Gu 2024 (Mamba-2): one kernel for z, x, B, C and dt, in one loop."""
    state = 5
    mixed = INNER + 2 * state
    total = INNER + mixed + HEADS

    def apply(p, u):
        zxbcdt = rms(u, p["norm"]) @ p["in_proj"]
        z, xbc, dt = jnp.split(zxbcdt, [INNER, INNER + mixed], axis=-1)
        dt = jax.nn.softplus(dt + p["dt_bias"])
        xbc = jax.nn.silu(over_window(xbc, p["conv"]["w"]) + p["conv"]["b"])
        x, b, c = jnp.split(xbc, [INNER, INNER + state], axis=-1)
        x = x.reshape(BATCH, LENGTH, HEADS, SIZE)
        a = jnp.exp(-jnp.exp(p["A_log"]) * dt)

        def step(h, now):
            a, dt, x, b, c = now
            h = a[..., None, None] * h + jnp.einsum("bh,bhp,bn->bhpn", dt, x, b)
            return h, jnp.einsum("bhpn,bn->bhp", h, c)

        now = jax.tree.map(lambda t: t.swapaxes(0, 1), (a, dt, x, b, c))
        y = jax.lax.scan(step, jnp.zeros((BATCH, HEADS, SIZE, state)), now)[1]
        y = y.swapaxes(0, 1) + p["D"][:, None] * x
        y = rms(y.reshape(BATCH, LENGTH, INNER) * jax.nn.silu(z), p["gated_norm"])
        return (u + y @ p["out_proj"]) @ p["head"]

    params = {
        "norm": floats(WIDTH),
        "in_proj": floats(WIDTH, total),
        "conv": {"w": floats(4, 1, mixed), "b": floats(mixed)},
        "dt_bias": floats(HEADS),
        "A_log": floats(HEADS),
        "D": floats(HEADS),
        "gated_norm": floats(INNER),
        "out_proj": floats(INNER, WIDTH),
        "head": floats(WIDTH, 3),
    }
    sections = [
        (1, ((0, INNER),), "gate", "silu"),
        (1, ((INNER, INNER + mixed),), ANY, "identity"),
        (1, ((INNER + mixed, total),), ANY, "softplus"),
    ]
    truth = {
        "norm": scale(),
        "in_proj": kernel(WIDTH, total, function=ANY, sections=sections),
        # Debatable: x, B and C may count as parts of their own.
        "conv/w": depthwise(mixed, function="silu", part=ANY, sections=ANY),
        "conv/b": bias("conv/w", part=ANY, sections=ANY),
        "dt_bias": bias("in_proj", part=ANY),
        "A_log": unknown(),
        "D": scale(),
        "gated_norm": scale(),
        "out_proj": kernel(INNER, WIDTH, residual=(0, 1), part=ANY),
        "head": kernel(WIDTH, 3, head=True),
    }
    return Model(apply, params, (floats(BATCH, LENGTH, WIDTH),), truth)
