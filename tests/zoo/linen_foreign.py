"""Flax Linen: models of other people's code bases, with lifted and built-in layers."""

import jax
import jax.numpy as jnp

from zoo.flax_layers import attention, gru, lstm, of_linen, window
from zoo.truths import (
    ANY,
    Model,
    below,
    bias,
    dense,
    embedding,
    every,
    floats,
    integers,
    kernel,
    model,
    norm,
    position,
    scale,
    stacked,
    unknown,
)

B, T, D, F, O, V = 2, 6, 12, 15, 4, 19  # noqa: E741


@model
def checkpointed_scan() -> Model:
    """nn.scan of a remat block with a pre-norm and a gated unit; a tied output."""
    from flax import linen as nn

    layers = 3

    class Block(nn.Module):
        @nn.compact
        def __call__(self, x, _):
            h = nn.RMSNorm(name="ln")(x)
            h = nn.MultiHeadDotProductAttention(3, qkv_features=12, name="att")(h)
            x = x + h
            h = nn.RMSNorm(name="ln2")(x)
            h = nn.gelu(nn.Dense(F, name="wi_0")(h)) * nn.Dense(F, name="wi_1")(h)
            return x + nn.Dense(D, name="wo")(h), None

    class Net(nn.Module):
        @nn.compact
        def __call__(self, ids):
            table = nn.Embed(V, D, name="shared")
            x = table(ids) * D**0.5
            stack = nn.scan(
                nn.remat(Block, prevent_cse=False),
                variable_axes={"params": 0},
                split_rngs={"params": True},
                length=layers,
            )
            x, _ = stack(name="layers")(x, None)
            return table.attend(nn.RMSNorm(name="final")(x) / D**0.5)

    total = 2 * layers
    block = {
        "ln/scale": scale(),
        **attention("att", D, 3, 4, (0, total), scaled=True),
        "ln2/scale": scale(),
        **dense("wi_0", D, F, function="gelu", part="gate"),
        **dense("wi_1", D, F, part="up"),
        **dense("wo", F, D, residual=(1, total)),
    }
    truth = {
        # Debatable: what the output's input is divided by.
        "shared/embedding": [
            embedding(D, multiplier=D**0.5),
            kernel(D, V, 1, 0, head=True, multiplier=ANY),
        ],
        **below("layers/", stacked(block)),
        "final/scale": scale(multiplier=ANY),
    }
    return of_linen(Net(), [integers(B, T)], truth)


@model
def ensemble_of_critics() -> Model:
    """nn.vmap over critics that share their input; states and actions concatenated."""
    from flax import linen as nn

    class Critic(nn.Module):
        @nn.compact
        def __call__(self, s, a):
            x = jnp.concatenate([s, a], -1)
            for size in (F, 11):
                x = nn.relu(nn.LayerNorm()(nn.Dense(size)(x)))
            return nn.Dense(1)(x).squeeze(-1)

    class Net(nn.Module):
        @nn.compact
        def __call__(self, s, a):
            many = nn.vmap(
                Critic,
                in_axes=None,
                out_axes=0,
                axis_size=3,
                variable_axes={"params": 0},
                split_rngs={"params": True},
            )
            return many(name="critics")(s, a).min(0)

    truth = {}
    for i, (a, b) in enumerate(((9, F), (F, 11), (11, 1))):
        # Debatable: the first kernels share their inputs, but each is one.
        truth[f"critics/Dense_{i}/kernel"] = kernel(
            a, b, 1, 2, batch_axis=0, head=i == 2
        )
        own = () if b == 1 else 1
        truth[f"critics/Dense_{i}/bias"] = bias(
            f"critics/Dense_{i}/kernel", own, batch_axis=0
        )
        if i < 2:
            truth[f"critics/LayerNorm_{i}/scale"] = scale(1, batch_axis=0)
            truth[f"critics/LayerNorm_{i}/bias"] = bias(None, 1, batch_axis=0)
    return of_linen(Net(), [floats(B, 7), floats(B, 2)], truth)


@model
def tagger_of_rnns() -> Model:
    """nn.Bidirectional of a GRU and an LSTM under nn.RNN, then a simple cell."""
    from flax import linen as nn

    class Net(nn.Module):
        @nn.compact
        def __call__(self, ids):
            x = nn.Embed(V, 7, name="words")(ids)
            x = nn.Bidirectional(
                nn.RNN(nn.GRUCell(5, name="gru")), nn.RNN(nn.LSTMCell(6, name="lstm"))
            )(x)
            x = nn.RNN(nn.SimpleCell(8, name="simple"))(x)
            return nn.Dense(O, name="tags")(x)

    truth = {
        "words/embedding": embedding(7),
        **gru("gru", 7, 5),
        **lstm("lstm", 7, 6),
        **dense("simple/i", 11, 8, function="tanh"),
        "simple/h/kernel": kernel(8, 8, function="tanh", recurrent=True),
        **dense("tags", 8, O, head=True),
    }
    return of_linen(Net(), [integers(B, T)], truth)


@model
def normalized_kernels() -> Model:
    """nn.WeightNorm with and without a scale, and plain layers between."""
    from flax import linen as nn

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.relu(nn.WeightNorm(nn.Dense(F, name="a"), name="wn")(x))
            x = nn.leaky_relu(nn.Dense(D, name="b")(x), 0.2)
            x = nn.WeightNorm(nn.Conv(8, (3,), name="c"), use_scale=False)(x[:, None])
            return nn.Dense(O, name="d")(x.mean(1))

    truth = {
        "a/kernel": unknown(),
        "a/bias": bias(ANY),
        "wn/a/kernel/scale": unknown(),
        **dense("b", F, D, function="leaky_relu"),
        "c/kernel": unknown(),
        "c/bias": bias(ANY),
        **dense("d", 8, O, head=True),
    }
    return of_linen(Net(), [floats(B, 7)], truth)


@model
def time_conditioned_windows() -> Model:
    """A small U-Net: time by sines, group norms, added time, a skip, an upsampling."""
    from flax import linen as nn

    wide = 16

    class Res(nn.Module):
        features: int

        @nn.compact
        def __call__(self, x, t):
            h = nn.silu(nn.GroupNorm(2, name="n1")(x))
            h = nn.Conv(self.features, (3, 3), name="c1")(h)
            h = h + nn.Dense(self.features, name="t")(nn.silu(t))[:, None, None]
            h = nn.silu(nn.GroupNorm(2, name="n2")(h))
            h = nn.Conv(self.features, (3, 3), name="c2")(h)
            if x.shape[-1] != self.features:
                x = nn.Conv(self.features, (1, 1), name="skip")(x)
            return x + h

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x, t):
            f = jnp.exp(-jnp.arange(4) / 4.0)
            t = jnp.concatenate([jnp.sin(t[:, None] * f), jnp.cos(t[:, None] * f)], 1)
            t = nn.Dense(F, name="t2")(nn.silu(nn.Dense(F, name="t1")(t)))
            a = nn.Conv(8, (3, 3), name="stem")(x)
            a = Res(8, name="r1")(a, t)
            b = nn.Conv(8, (3, 3), (2, 2), name="down")(a)
            b = Res(wide, name="r2")(b, t)
            b = nn.ConvTranspose(8, (2, 2), (2, 2), name="up")(b)
            y = Res(8, name="r3")(jnp.concatenate([a, b], -1), t)
            y = nn.silu(nn.GroupNorm(2, name="n")(y))
            return nn.Conv(3, (3, 3), name="out")(y)

    def res(path, a, b):
        # Debatable: which stream a skip continues.
        truth = {
            **norm("n1"),
            **window("c1", 9 * a, 9 * b),
            **dense("t", F, b),
            **norm("n2"),
            **window("c2", 9 * b, 9 * b, residual=ANY),
        }
        truth |= {} if a == b else window("skip", a, b, residual=ANY)
        return below(f"{path}/", truth)

    truth = {
        **dense("t1", 8, F, function="silu"),
        **dense("t2", F, F, function="silu"),
        **window("stem", 27, 72),
        **res("r1", 8, 8),
        **window("down", 72, 72),
        **res("r2", 8, wide),
        # Debatable: each output has one place of a window of 2, at a stride of 2.
        **window("up", wide, 4 * 8, transposed=True),
        **res("r3", 16, 8),
        **norm("n"),
        **window("out", 72, 27, head=True),
    }
    return of_linen(Net(), [floats(B, 8, 8, 3), floats(B)], truth)


@model
def rotated_blocks() -> Model:
    """Parallel residuals with one fused input kernel, and rotated, normed heads."""
    from flax import linen as nn

    n, s = 3, 4

    def rope(x):
        a, b = jnp.split(x, 2, axis=-1)
        w = jnp.arange(T)[:, None, None] * jnp.array([1.0, 0.1])
        c, d = jnp.cos(w), jnp.sin(w)
        return jnp.concatenate([a * c - b * d, a * d + b * c], -1)

    class Block(nn.Module):
        @nn.compact
        def __call__(self, x):
            h = nn.LayerNorm(use_bias=False, name="n")(x)
            z = nn.Dense(3 * n * s + 2 * F, use_bias=False, name="fused")(h)
            q, k, v, u, g = jnp.split(
                z, [n * s, 2 * n * s, 3 * n * s, 3 * n * s + F], axis=-1
            )
            q, k, v = (y.reshape(B, T, n, s) for y in (q, k, v))
            q = rope(nn.RMSNorm(name="qn")(q))
            k = rope(nn.RMSNorm(name="kn")(k))
            y = nn.dot_product_attention(q, k, v).reshape(B, T, n * s)
            y = nn.Dense(D, use_bias=False, name="att_out")(y)
            return x + y + nn.Dense(D, use_bias=False, name="ff_out")(nn.silu(g) * u)

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.Dense(D, name="in")(x)
            for i in range(2):
                x = Block(name=f"b{i}")(x)
            return nn.Dense(O, name="out")(x)

    i = n * s
    columns = [
        (1, ((0, i),), "query", "identity"),
        (1, ((i, 2 * i),), "key", "identity"),
        (1, ((2 * i, 3 * i),), "value", "identity"),
        (1, ((3 * i, 3 * i + F),), "up", "identity"),
        (1, ((3 * i + F, 3 * i + 2 * F),), "gate", "silu"),
    ]
    block = {
        "n/scale": scale(),
        "fused/kernel": kernel(D, 3 * i + 2 * F, function=ANY, sections=columns),
        # Debatable: queries are divided behind it.
        "qn/scale": scale(multiplier=ANY, part=ANY),
        "kn/scale": scale(part=ANY),
        "att_out/kernel": kernel(i, D, part="attention output", residual=(0, 4)),
        "ff_out/kernel": kernel(F, D, residual=(1, 4)),
    }
    truth = {
        **dense("in", 7, D),
        **every("b{}/", 2, block),
        **dense("out", D, O, head=True),
    }
    return of_linen(Net(), [floats(B, T, 7)], truth)


@model
def sparse_experts() -> Model:
    """Fedus et al. 2022 by one-hot dispatch with two choices; lifted experts."""
    from flax import linen as nn

    experts, capacity = 4, 6

    class Expert(nn.Module):
        @nn.compact
        def __call__(self, x):
            h = nn.relu(nn.Dense(F, use_bias=False, name="wi")(x))
            return nn.Dense(D, use_bias=False, name="wo")(h)

    class Moe(nn.Module):
        @nn.compact
        def __call__(self, x):
            probs = nn.softmax(nn.Dense(experts, use_bias=False, name="gate")(x))
            weight, chosen = jax.lax.top_k(probs, 2)
            hot = jax.nn.one_hot(chosen, experts)
            place = (jnp.cumsum(hot.sum(2), 1) - 1)[:, :, None] * hot
            slot = jax.nn.one_hot(place.sum(-1).astype(int), capacity)
            send = jnp.einsum("btke,btkc->btec", hot, slot)
            back = jnp.einsum("btk,btke,btkc->btec", weight, hot, slot)
            given = jnp.einsum("btec,btd->ebcd", send, x)
            lifted = nn.vmap(Expert, variable_axes={"params": 0},
                             split_rngs={"params": True})  # fmt: skip
            return jnp.einsum("btec,ebcd->btd", back, lifted(name="experts")(given))

    class Net(nn.Module):
        @nn.compact
        def __call__(self, ids):
            x = nn.Embed(V, D, name="e")(ids)
            x = x + self.param("p", nn.initializers.zeros, (T, D))
            x = x + Moe(name="moe")(nn.LayerNorm(name="n")(x))
            return nn.Dense(V, name="o")(x)

    axes = {"in_axis": 1, "out_axis": 2, "batch_axis": 0}
    truth = {
        "e/embedding": embedding(D),
        "p": position(),
        **norm("n"),
        "moe/gate/kernel": kernel(D, experts, part="router"),
        "moe/experts/wi/kernel": kernel(D, F, function="relu", **axes),
        "moe/experts/wo/kernel": kernel(F, D, residual=(0, 1), **axes),
        **dense("o", D, V, head=True),
    }
    return of_linen(Net(), [integers(B, T)], truth)


@model
def speaker_network() -> Model:
    """x-vectors: dilated windows, batch norms, mean and deviation, a PReLU."""
    from flax import linen as nn

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            for i, (size, far) in enumerate(((8, 1), (9, 2))):
                x = nn.Conv(size, (3,), kernel_dilation=far, name=f"tdnn{i}")(x)
                x = nn.BatchNorm(use_running_average=False, name=f"bn{i}")(nn.relu(x))
            m = x.mean(1)
            d = jnp.sqrt(jnp.square(x - m[:, None]).mean(1) + 1e-5)
            x = nn.Dense(F, name="segment")(jnp.concatenate([m, d], axis=-1))
            x = nn.PReLU(name="act")(x)
            return nn.log_softmax(nn.Dense(O, name="speakers")(x))

    truth = {
        **window("tdnn0", 3 * 7, 3 * 8, spatial_axis=0, in_axis=1, out_axis=2,
                 function="relu"),
        **norm("bn0"),
        **window("tdnn1", 3 * 8, 3 * 9, spatial_axis=0, in_axis=1, out_axis=2,
                 function="relu"),
        **norm("bn1"),
        # A slope of one would make it linear. Debatable: the function.
        **dense("segment", 18, F, function=ANY),
        "act/negative_slope": unknown(),
        **dense("speakers", F, O, head=True),
    }  # fmt: skip
    return of_linen(Net(), [floats(B, 8, 7)], truth)
