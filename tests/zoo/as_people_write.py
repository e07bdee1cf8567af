"""Code of ordinary people: buffers among weights, flat names, masks as arguments."""

import jax
import jax.numpy as jnp

from zoo.haiku_models import linear as hk_linear
from zoo.haiku_models import of_haiku
from zoo.truths import (
    ANY,
    UNNAMED,
    Model,
    Use,
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
    position,
    rms_norm,
    scale,
    shift,
    statistic,
    unknown,
    unused,
)

B, T, D, F, HEADS, SIZE, V, O = 2, 6, 12, 15, 3, 4, 19, 5  # noqa: E741
INNER = HEADS * SIZE
ORDER = ("query", "key", "value")


def torch_norm(path):
    return norm(path, factor="weight")


@model
def buffers_of_gpt2() -> Model:
    """GPT-2 as its checkpoint has it, plain: masks are leaves, the head has its own."""
    layers = 2

    def ln(x, p):
        return layer_norm(x, {"scale": p["weight"], "bias": p["bias"]})

    def conv1d(x, p):
        return x @ p["weight"] + p["bias"]

    def new_gelu(x):
        return 0.5 * x * (1.0 + jnp.tanh(0.7978845608 * (x + 0.044715 * x**3)))

    def split(x):
        return x.reshape(B, T, HEADS, SIZE).transpose(0, 2, 1, 3)

    def apply(p, ids):
        x = p["wte"]["weight"][ids] + p["wpe"]["weight"][jnp.arange(T)]
        for i in range(layers):
            b = p["h"][str(i)]
            h = conv1d(ln(x, b["ln_1"]), b["attn"]["c_attn"])
            q, k, v = map(split, jnp.split(h, 3, axis=2))
            s = jnp.matmul(q, jnp.swapaxes(k, -1, -2)) / SIZE**0.5
            seen = b["attn"]["bias"][:, :, :T, :T] > 0.5
            s = jnp.where(seen, s, b["attn"]["masked_bias"])
            y = jnp.matmul(jax.nn.softmax(s, axis=-1), v)
            y = y.transpose(0, 2, 1, 3).reshape(B, T, INNER)
            x = x + conv1d(y, b["attn"]["c_proj"])
            h = new_gelu(conv1d(ln(x, b["ln_2"]), b["mlp"]["c_fc"]))
            x = x + conv1d(h, b["mlp"]["c_proj"])
        return ln(x, p["ln_f"]) @ p["lm_head"]["weight"].T

    def pair(*shape):
        return {"weight": floats(*shape), "bias": floats(shape[-1])}

    block = {
        "ln_1": pair(D),
        "attn": {
            "bias": floats(1, 1, 9, 9), "masked_bias": floats(),
            "c_attn": pair(D, 3 * INNER), "c_proj": pair(INNER, D),
        },
        "ln_2": pair(D),
        "mlp": {"c_fc": pair(D, F), "c_proj": pair(F, D)},
    }  # fmt: skip
    params = {
        "wte": {"weight": floats(V, D)},
        "wpe": {"weight": floats(9, D)},
        "h": {str(i): block for i in range(layers)},
        "ln_f": pair(D),
        "lm_head": {"weight": floats(V, D)},
    }

    def conv(path, a, b, **rest):
        return dense(path, a, b, weight="weight", **rest)

    thirds = cut(1, INNER, ORDER)
    own = {
        **torch_norm("ln_1"),
        # It is only compared with a number.
        "attn/bias": unknown(),
        # Debatable: a learned number where nothing is seen.
        "attn/masked_bias": either("unknown", "embedding", "bias"),
        "attn/c_attn/weight": kernel(D, 3 * INNER, sections=thirds),
        "attn/c_attn/bias": bias(
            "attn/c_attn/weight", sections=[(0, *x[1:3], None) for x in thirds]
        ),
        **conv("attn/c_proj", INNER, D, part="attention output", residual=(0, 4)),
        **torch_norm("ln_2"),
        **conv("mlp/c_fc", D, F, function="gelu"),
        **conv("mlp/c_proj", F, D, residual=(1, 4)),
    }
    truth = {
        "wte/weight": embedding(D),
        "wpe/weight": position(),
        **every("h/{}/", layers, own),
        **torch_norm("ln_f"),
        "lm_head/weight": kernel(D, V, 1, 0, head=True),
    }
    return Model(apply, params, (integers(B, T),), truth)


@model
def flat_names_of_llama() -> Model:
    """Llama as its checkpoint has it, plain: dotted names, angles' speeds as leaves."""
    layers, groups = 2, 2
    heads = 4

    def half_turned(x):
        a, b = x[..., : SIZE // 2], x[..., SIZE // 2 :]
        return jnp.concatenate((-b, a), axis=-1)

    def apply(p, ids):
        x = jnp.take(p["model.embed_tokens.weight"], ids, axis=0)
        for i in range(layers):
            w = {
                k.split(".", 3)[3]: v
                for k, v in p.items()
                if k.startswith(f"model.layers.{i}.")
            }
            h = rms_norm(x, w["input_layernorm.weight"])
            q, k, v = (h @ w[f"self_attn.{c}_proj.weight"].T for c in "qkv")
            q = q.reshape(B, T, heads, SIZE).transpose(0, 2, 1, 3)
            k, v = (y.reshape(B, T, groups, SIZE).transpose(0, 2, 1, 3) for y in (k, v))
            freqs = jnp.outer(jnp.arange(T), w["self_attn.rotary_emb.inv_freq"])
            angles = jnp.concatenate((freqs, freqs), axis=-1)
            cos, sin = jnp.cos(angles), jnp.sin(angles)
            q, k = (y * cos + half_turned(y) * sin for y in (q, k))
            k, v = (jnp.repeat(y, heads // groups, axis=1) for y in (k, v))
            s = q @ k.transpose(0, 1, 3, 2) / jnp.sqrt(SIZE)
            s = s + jnp.triu(jnp.full((T, T), -1e9), k=1)
            y = (jax.nn.softmax(s, -1) @ v).transpose(0, 2, 1, 3).reshape(B, T, -1)
            x = x + y @ w["self_attn.o_proj.weight"].T
            h = rms_norm(x, w["post_attention_layernorm.weight"])
            g = jax.nn.silu(h @ w["mlp.gate_proj.weight"].T)
            x = x + (g * (h @ w["mlp.up_proj.weight"].T)) @ w["mlp.down_proj.weight"].T
        return rms_norm(x, p["model.norm.weight"]) @ p["lm_head.weight"].T

    def turned(a, b, **rest):
        return kernel(a, b, 1, 0, **rest)

    inner, small = heads * SIZE, groups * SIZE
    own = {
        "input_layernorm.weight": scale(),
        "self_attn.q_proj.weight": turned(D, inner, part="query"),
        "self_attn.k_proj.weight": turned(D, small, part="key"),
        "self_attn.v_proj.weight": turned(D, small, part="value"),
        "self_attn.o_proj.weight": turned(
            inner, D, part="attention output", residual=(0, 2 * layers)
        ),
        # Its cosines and sines turn queries and keys.
        "self_attn.rotary_emb.inv_freq": unknown(),
        "post_attention_layernorm.weight": scale(),
        "mlp.gate_proj.weight": turned(D, F, function="silu", part="gate"),
        "mlp.up_proj.weight": turned(D, F, part="up"),
        "mlp.down_proj.weight": turned(F, D, residual=(1, 2 * layers)),
    }
    truth = {
        "model.embed_tokens.weight": embedding(D),
        **every("model.layers.{}.", layers, own),
        "model.norm.weight": scale(),
        "lm_head.weight": turned(D, V, head=True),
    }
    params = {}
    for path, use in truth.items():
        axes = {"scale": (D,), "unknown": (SIZE // 2,), "embedding": (V, D)}
        fans = (int(use.fan_out), int(use.fan_in))
        params[path] = floats(*axes.get(use.kind, fans))
    return Model(apply, params, (integers(B, T),), truth)


@model
def counters_of_batches() -> Model:
    """A U-Net as Torch's checkpoint has it, plain: statistics and counters are leaves.

    Channels first; convolutions have biases although a norm follows.
    """
    layout = ("NCHW", "OIHW", "NCHW")
    layers = (("inc", 3, 4), ("down1", 4, 6), ("conv_up1", 8, 4))

    def conv(p, x, name, padding="SAME"):
        y = jax.lax.conv_general_dilated(
            x, p[f"{name}.weight"], (1, 1), padding, dimension_numbers=layout
        )
        return y + p[f"{name}.bias"].reshape(1, -1, 1, 1)

    def bn(p, x, name):
        w, b, m, v = (
            p[f"{name}.{key}"].reshape(1, -1, 1, 1)
            for key in ("weight", "bias", "running_mean", "running_var")
        )
        return (x - m) / jnp.sqrt(v + 1e-5) * w + b

    def double(p, x, name):
        for i in (0, 3):
            x = jax.nn.relu(bn(p, conv(p, x, f"{name}.{i}"), f"{name}.{i + 1}"))
        return x

    def apply(p, x):
        skip = double(p, x, "inc")
        n, c, h, w = skip.shape
        x = skip.reshape(n, c, h // 2, 2, w // 2, 2).max(axis=(3, 5))
        x = double(p, x, "down1")
        x = jax.lax.conv_general_dilated(
            x, p["up1.weight"], (1, 1), ((1, 1), (1, 1)), lhs_dilation=(2, 2),
            dimension_numbers=("NCHW", "IOHW", "NCHW"),
        ) + p["up1.bias"][None, :, None, None]  # fmt: skip
        x = double(p, jnp.concatenate([skip, x], axis=1), "conv_up1")
        return conv(p, x, "outc")

    axes = {"spatial_axis": (2, 3), "in_axis": 1, "out_axis": 0}
    params, truth = {}, {}
    for name, a, b in layers:
        for i, inputs in ((0, a), (3, b)):
            path, bn_path = f"{name}.{i}", f"{name}.{i + 1}"
            params |= {
                f"{path}.weight": floats(b, inputs, 3, 3), f"{path}.bias": floats(b),
                f"{bn_path}.num_batches_tracked": floats(),
            }  # fmt: skip
            statistics = ("running_mean", "running_var")
            for key in ("weight", "bias", *statistics):
                params[f"{bn_path}.{key}"] = floats(b)
            truth |= {
                f"{path}.weight": convolution(9 * inputs, 9 * b, **axes),
                f"{path}.bias": bias(f"{path}.weight"),
                f"{bn_path}.weight": scale(),
                f"{bn_path}.bias": shift(),
                **{f"{bn_path}.{key}": statistic() for key in statistics},
                f"{bn_path}.num_batches_tracked": unused(),
            }
    params |= {"up1.weight": floats(6, 4, 2, 2), "up1.bias": floats(4)}
    params |= {"outc.weight": floats(2, 4, 1, 1), "outc.bias": floats(2)}
    up = {"spatial_axis": (2, 3), "in_axis": 0, "out_axis": 1, "transposed": True}
    truth |= {
        "up1.weight": convolution(6, 16, **up),
        "up1.bias": bias("up1.weight"),
        "outc.weight": convolution(4, 2, head=True, **axes),
        "outc.bias": bias("outc.weight"),
    }
    return Model(apply, params, (floats(B, 3, 8, 8),), truth)


@model
def letters_of_1998() -> Model:
    """LeCun et al. 1998 (LeNet-5), plain: pools that learn, and distances to codes."""

    def conv(x, p):
        w, b = p
        y = jax.lax.conv_general_dilated(
            x, w, (1, 1), "VALID", dimension_numbers=("NCHW", "OIHW", "NCHW")
        )
        return jnp.tanh(y + b)

    def pool(x, p):
        w, b = p
        y = x[:, :, ::2, ::2] + x[:, :, 1::2, ::2]
        y = (y + x[:, :, ::2, 1::2] + x[:, :, 1::2, 1::2]) / 4
        return jnp.tanh(y * w + b)

    def apply(params, x):
        c1, s2, c3, s4, c5, f6, codes = params
        x = pool(conv(x, c1), s2)
        x = pool(conv(x, c3), s4)
        x = conv(x, c5)[:, :, 0, 0]
        x = jnp.tanh(x.dot(f6[0].T) + f6[1])
        return ((x[:, None, :] - codes[None]) ** 2).sum(axis=2)

    def window(a, b, k):
        return (floats(b, a, k, k), floats(b, 1, 1))

    vector = (floats(1, 4, 1, 1), floats(1, 4, 1, 1))
    params = [
        window(1, 4, 5), vector, window(4, 6, 3),
        (floats(6, 1, 1), floats(6, 1, 1)), window(6, 9, 2),
        (floats(7, 9), floats(7)), floats(10, 7),
    ]  # fmt: skip
    axes = {"spatial_axis": (2, 3), "in_axis": 1, "out_axis": 0, "function": "tanh"}
    truth = {
        "0/0": convolution(25, 100, **axes),
        "0/1": bias("0/0"),
        # A factor of means, behind a function.
        "1/0": scale(1),
        "1/1": bias(ANY, 1),
        "2/0": convolution(36, 54, **axes),
        "2/1": bias("2/0"),
        "3/0": scale(),
        "3/1": bias(ANY),
        "4/0": convolution(24, 36, **axes),
        "4/1": bias("4/0"),
        # Debatable: distances are no contraction.
        "5/0": kernel(9, 7, 1, 0, "tanh", head=ANY),
        "5/1": bias("5/0"),
        # Codes are no positions of what they are subtracted from.
        "6": unknown(),
    }
    return Model(apply, params, (floats(B, 1, 16, 16),), truth)


@model
def masks_as_arguments() -> Model:
    """Lee et al. 2018 (DeepHit), Haiku: dropout's masks are given; a dead branch."""
    import haiku as hk

    events, times = 2, 7

    def fun(x, group, masks):
        x = (x - x.mean(0)) / (x.std(0) + 1e-6)
        x = jnp.hstack([x, hk.Embed(4, 3, name="group")(group)])
        h = jax.nn.relu(hk.Linear(F, name="shared_1")(x))
        h = h * masks / 0.8
        h = jax.nn.relu(hk.Linear(D, name="shared_2")(h))
        hk.Linear(2, name="old_output")(h)
        z = jnp.concatenate([x, h], axis=1)
        outs = []
        for i in range(events):
            g = jax.nn.relu(hk.Linear(9, name=f"cause{i}_1")(z))
            outs.append(hk.Linear(times, name=f"cause{i}_2")(g))
        out = jnp.stack(outs, axis=1).reshape(B, -1)
        p = jax.nn.softmax(out).reshape(B, events, times)
        return jnp.where(jnp.arange(times) > 1, p, 0.0), hk.Linear(1, name="risk")(h)

    inputs = 6 + 3
    truth = {
        "group/embeddings": embedding(3),
        **hk_linear("shared_1", inputs, F, function="relu"),
        **hk_linear("shared_2", F, D, function="relu"),
        "old_output/w": unused(),
        "old_output/b": unused(),
        **hk_linear("risk", D, 1, head=True),
    }
    for i in range(events):
        truth |= hk_linear(f"cause{i}_1", inputs + D, 9, function="relu")
        truth |= hk_linear(f"cause{i}_2", 9, times, head=True)
    return of_haiku(fun, [floats(B, 6), integers(B), floats(B, F)], truth)


@model
def axes_of_one() -> Model:
    """A perceptron with axes of one, functions by hand, a product that is summed."""
    n = 7

    def apply(w, x):
        h = jnp.matmul(x[:, None, :], w["w1"]) + w["b1"]
        h = jnp.where(h > 0, h, 0.1 * h)
        h = jnp.einsum("qur,rvp->qup", h, w["w2"]) + w["b2"]
        h = h / (1 + jnp.exp(-h))
        h = jnp.einsum("abc,dc->abd", h, w["w3"]) + jnp.squeeze(w["b3"])
        h = jnp.log(1 + jnp.exp(h))
        h = jnp.tensordot(h[:, 0], w["w4"], axes=([1], [1]))[:, 0] + w["b4"][0]
        h = h * jnp.tanh(jnp.log1p(jnp.exp(h)))
        h = (h[:, :, None] * w["w5"][None]).sum(1) + w["b5"]
        return jnp.maximum(h, 0.0) @ w["w6"][0, :, :, 0]

    params = {
        "w1": floats(1, n, F), "b1": floats(1, 1, F), "w2": floats(F, 1, D),
        "b2": floats(D), "w3": floats(9, D), "b3": floats(1, 9, 1),
        "w4": floats(1, 9, 11), "b4": floats(1, 11), "w5": floats(11, 8),
        "b5": floats(1, 8), "w6": floats(1, 8, O, 1),
    }  # fmt: skip
    truth = {
        "w1": kernel(n, F, 1, 2, "leaky_relu"),
        "b1": bias("w1", 2),
        "w2": kernel(F, D, 0, 2, "silu"),
        "b2": bias("w2"),
        "w3": kernel(D, 9, 1, 0, "softplus"),
        "b3": bias("w3", 1),
        "w4": kernel(9, 11, 1, 2, UNNAMED),
        "b4": bias("w4", 1),
        # A contraction that is written as a product and a sum.
        "w5": unknown(),
        "b5": Use("bias", out_axis=1, of=ANY),
        "w6": kernel(8, O, 1, 2, head=True),
    }
    return Model(apply, params, (floats(B, n),), truth)
