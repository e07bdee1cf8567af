"""Time series and physics: networks that know an equation, and forecasters."""

import jax
import jax.numpy as jnp

from zoo.flax_layers import attention, of_linen
from zoo.haiku_models import of_haiku
from zoo.nnx_models import of_nnx
from zoo.truths import (
    ANY,
    Model,
    Use,
    bias,
    bias_cut,
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
    unknown,
)

B, T, D, F, HEADS, O, V = 2, 12, 12, 15, 3, 4, 19  # noqa: E741


@model
def gated_coordinates() -> Model:
    """Wang et al. 2023 (jaxpi), Linen: factored kernels, two inputs mix every layer."""
    from flax import linen as nn

    class Dense(nn.Module):
        features: int

        @nn.compact
        def __call__(self, x):
            # One leaf of factors, one of directions: w = g v.
            start = nn.initializers.normal()
            g = self.param("g", start, (self.features,))
            v = self.param("v", start, (x.shape[-1], self.features))
            b = self.param("bias", nn.initializers.zeros, (self.features,))
            return jnp.dot(x, g * v) + b

    class Net(nn.Module):
        @nn.compact
        def __call__(self, t, x):
            z = jnp.stack([t, x])
            k = self.param("fourier", nn.initializers.normal(), (2, D // 2))
            z = jnp.concatenate([jnp.cos(jnp.dot(z, k)), jnp.sin(jnp.dot(z, k))])
            u = jnp.tanh(Dense(F, name="u")(z))
            v = jnp.tanh(nn.Dense(F, name="v")(z))
            for i in range(2):
                z = jnp.tanh(nn.Dense(F, name=f"layer_{i}")(z))
                z = z * u + (1 - z) * v
            return nn.Dense(1, name="out")(z)[0]

    net = Net()
    shapes = jax.eval_shape(net.init, jax.random.key(0), *[floats()] * 2)["params"]

    def apply(params, t, x):
        return jax.vmap(lambda t, x: net.apply({"params": params}, t, x))(t, x)

    # Debatable: waves of two kinds, and what mixes what.
    wave = kernel(2, D // 2, function=ANY)
    truth = {
        "fourier": [wave, wave],
        "u/g": unknown(),
        "u/v": unknown(),
        # Debatable: its kernel is a function of two leaves.
        "u/bias": bias(ANY, part=ANY, residual=ANY),
        "v/kernel": kernel(D, F, function="tanh", part=ANY, residual=ANY),
        "v/bias": bias("v/kernel", part=ANY),
        "layer_0/kernel": kernel(D, F, function="tanh", part=ANY, residual=ANY),
        "layer_0/bias": bias("layer_0/kernel", part=ANY),
        "layer_1/kernel": kernel(F, F, function="tanh", part=ANY, residual=ANY),
        "layer_1/bias": bias("layer_1/kernel", part=ANY),
        **dense("out", F, 1, head=True),
    }
    return Model(apply, shapes, (floats(B), floats(B)), truth)


@model
def channels_apart() -> Model:
    """Nie et al. 2023 (PatchTST), NNX: overlapping patches of each channel alone."""
    from flax import nnx

    channels, patch, stride, ahead = 3, 4, 2, 5
    count = (T - patch) // stride + 2

    class Block(nnx.Module):
        def __init__(self, rngs):
            self.attn = nnx.MultiHeadAttention(HEADS, D, decode=False, rngs=rngs)
            self.bn1 = nnx.BatchNorm(D, rngs=rngs)
            self.up = nnx.Linear(D, F, rngs=rngs)
            self.down = nnx.Linear(F, D, rngs=rngs)
            self.bn2 = nnx.BatchNorm(D, rngs=rngs)

        def __call__(self, x):
            x = self.bn1(x + self.attn(x), use_running_average=False)
            h = self.down(nnx.gelu(self.up(x)))
            return self.bn2(x + h, use_running_average=False)

    class Net(nnx.Module):
        def __init__(self, rngs):
            self.embed = nnx.Linear(patch, D, rngs=rngs)
            self.place = nnx.Param(jnp.zeros((count, D)))
            self.blocks = nnx.List([Block(rngs) for _ in range(2)])
            self.head = nnx.Linear(count * D, ahead, rngs=rngs)

        def __call__(self, x):
            mean, std = x.mean(1, keepdims=True), x.std(1, keepdims=True) + 1e-5
            x = jnp.swapaxes((x - mean) / std, 1, 2)
            x = jnp.pad(x, ((0, 0), (0, 0), (0, stride)), mode="edge")
            index = jnp.arange(count)[:, None] * stride + jnp.arange(patch)
            x = x[..., index].reshape(-1, count, patch)
            x = self.embed(x) + self.place[...]
            for block in self.blocks:
                x = block(x)
            x = x.reshape(B, channels, count, D).transpose(0, 1, 3, 2)
            y = self.head(x.reshape(B, channels, -1))
            return jnp.swapaxes(y, 1, 2) * std + mean

    block = {
        **attention("attn", D, HEADS, 4, residual=(0, 4), scaled=False),
        **norm("bn1"),
        **dense("up", D, F, function="gelu"),
        **dense("down", F, D, residual=(1, 4)),
        **norm("bn2"),
    }
    truth = {
        **dense("embed", patch, D),
        "place": position(),
        **every("blocks/{}/", 2, block),
        # Debatable: what the window's spread multiplies.
        **dense("head", count * D, ahead, head=True, multiplier=ANY),
    }
    truth["head/bias"] = bias("head/kernel", multiplier=ANY)
    return of_nnx(Net, [floats(B, T, channels)], truth)


@model
def dense_forecasts() -> Model:
    """Das et al. 2023 (TiDE), Linen: residual perceptrons with kernels as shortcuts."""
    from flax import linen as nn

    ahead, covariates, small, decoded = 5, 6, 3, 4

    class Block(nn.Module):
        out: int

        @nn.compact
        def __call__(self, x):
            h = nn.relu(nn.Dense(F, name="hidden")(x))
            h = nn.Dense(self.out, name="out")(h) + nn.Dense(self.out, name="skip")(x)
            return nn.LayerNorm(name="ln")(h)

    class Net(nn.Module):
        @nn.compact
        def __call__(self, past, c, static):
            c = Block(small, name="features")(c)
            x = jnp.concatenate([past, c.reshape(B, -1), static], axis=-1)
            x = Block(D, name="enc_1")(Block(D, name="enc_0")(x))
            y = Block(ahead * decoded, name="dec")(x).reshape(B, ahead, decoded)
            y = jnp.concatenate([y, c[:, T:]], axis=-1)
            y = Block(1, name="temporal")(y)[..., 0]
            return y + nn.Dense(ahead, name="lookback")(past)

    def block(path, a, b):
        # Debatable: a sum of two maps is no stream.
        truth = {
            **dense(f"{path}/hidden", a, F, function="relu"),
            **dense(f"{path}/out", F, b, residual=ANY),
            **dense(f"{path}/skip", a, b, residual=ANY),
            **norm(f"{path}/ln"),
        }
        if b == 1:
            # A norm of one number, after which nothing is contracted.
            for name in ("out", "skip"):
                truth[f"{path}/{name}/kernel"] = kernel(
                    F if name == "out" else a, 1, residual=ANY, head=True
                )
            truth[f"{path}/ln/scale"] = Use("scale", (), ANY)
            truth[f"{path}/ln/bias"] = Use("bias", (), ANY, of=ANY)
        return truth

    length = T + ahead
    truth = {
        **block("features", covariates, small),
        **block("enc_0", T + length * small + 2, D),
        **block("enc_1", D, D),
        **block("dec", D, ahead * decoded),
        **block("temporal", decoded + small, 1),
        **dense("lookback", T, ahead, head=True),
    }  # fmt: skip
    inputs = [floats(B, T), floats(B, length, covariates), floats(B, 2)]
    return of_linen(Net(), inputs, truth)


@model
def forecasts_as_laws() -> Model:
    """Salinas et al. 2020 (DeepAR), Haiku: two LSTMs, a mean and its width."""
    import haiku as hk

    size = 8
    parts = ("input gate", "cell", "forget gate", "output gate")

    def fun(z, covariates, series):
        e = hk.Embed(V, 5, name="series")(series)
        scale_ = 1 + jnp.abs(z).mean(1, keepdims=True)
        lag = jnp.pad(z / scale_, ((0, 0), (1, 0)))[:, :-1]
        e = jnp.broadcast_to(e[:, None], (B, T, 5))
        x = jnp.concatenate([lag[..., None], covariates, e], axis=-1)
        core = hk.DeepRNN([hk.LSTM(size, name="l0"), hk.LSTM(size, name="l1")])
        h, _ = hk.dynamic_unroll(core, x, core.initial_state(B), time_major=False)
        mean = hk.Linear(1, name="mean")(h)[..., 0]
        width = jax.nn.softplus(hk.Linear(1, name="width")(h)[..., 0]) + 1e-6
        error = (z / scale_ - mean) / width
        return mean * scale_, 0.5 * error**2 + jnp.log(width)

    # Debatable: the mean leads to the error too.
    open_ = {"head": True, "multiplier": ANY, "residual": ANY}
    truth = {
        "series/embeddings": embedding(5),
        "mean/w": kernel(size, 1, function=ANY, **open_),
        "mean/b": bias("mean/w", (), multiplier=ANY),
        "width/w": kernel(size, 1, function="softplus", **open_),
        "width/b": bias("width/w", (), multiplier=ANY),
    }
    for name, inputs in (("l0", 1 + 3 + 5), ("l1", size)):
        rows = [
            (0, ((0, inputs),), "input", ANY),
            (0, ((inputs, inputs + size),), "recurrent", ANY),
        ]
        truth[f"{name}/linear/w"] = kernel(
            inputs + size,
            4 * size,
            function=ANY,
            recurrent=True,
            sections=rows + cut(1, size, parts),
        )
        truth[f"{name}/linear/b"] = bias(
            f"{name}/linear/w", sections=bias_cut(size, parts)
        )
    return of_haiku(fun, [floats(B, T), floats(B, T, 3), integers(B)], truth)


@model
def slices_of_a_mesh() -> Model:
    """Wu et al. 2024 (Transolver), Linen: points are sorted into slices that attend."""
    from flax import linen as nn

    slices, size = 5, 4

    class Slices(nn.Module):
        @nn.compact
        def __call__(self, x):
            def heads(name):
                y = nn.Dense(HEADS * size, name=name)(x)
                return y.reshape(*x.shape[:2], HEADS, size).transpose(0, 2, 1, 3)

            fx, xm = heads("in_fx"), heads("in_x")
            start = nn.initializers.constant(0.5)
            heat = jnp.clip(self.param("temperature", start, (1, HEADS, 1, 1)), 0.1, 5)
            w = nn.softmax(nn.Dense(slices, name="slice")(xm) / heat)
            mass = w.sum(axis=2)
            s = jnp.einsum("bhnc,bhng->bhgc", fx, w) / (mass[..., None] + 1e-5)
            q, k, v = (nn.Dense(size, False, name=f"to_{n}")(s) for n in "qkv")
            a = nn.softmax(jnp.matmul(q, k.swapaxes(-1, -2)) * size**-0.5)
            y = jnp.einsum("bhgc,bhng->bhnc", jnp.matmul(a, v), w)
            y = y.transpose(0, 2, 1, 3).reshape(*x.shape[:2], HEADS * size)
            return nn.Dense(D, name="out")(y)

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x, f):
            x = nn.Dense(F, name="pre_0")(jnp.concatenate([x, f], axis=-1))
            x = nn.Dense(D, name="pre_1")(nn.gelu(x))
            x = x + self.param("placeholder", nn.initializers.uniform(), (D,))
            for i in range(2):
                h = nn.LayerNorm(name=f"ln_1_{i}")(x)
                x = x + Slices(name=f"attn_{i}")(h)
                h = nn.Dense(F, name=f"up_{i}")(nn.LayerNorm(name=f"ln_2_{i}")(x))
                x = x + nn.Dense(D, name=f"down_{i}")(nn.gelu(h))
            return nn.Dense(1, name="last")(nn.LayerNorm(name="ln")(x))

    truth = {
        **dense("pre_0", 2 + 3, F, function="gelu"),
        **dense("pre_1", F, D),
        "placeholder": bias("pre_1/kernel"),
        **norm("ln"),
        **dense("last", D, 1, head=True),
    }
    for i in range(2):
        path, inner = f"attn_{i}", HEADS * size
        truth |= {
            **norm(f"ln_1_{i}"),
            # Debatable: what is sorted, and what sorts it, and what slices write.
            f"{path}/in_fx/kernel": kernel(D, inner, part=ANY),
            f"{path}/in_fx/bias": bias(f"{path}/in_fx/kernel", part=ANY),
            f"{path}/in_x/kernel": kernel(D, inner, part=ANY),
            f"{path}/in_x/bias": bias(f"{path}/in_x/kernel", part=ANY),
            f"{path}/temperature": unknown(),
            f"{path}/slice/kernel": kernel(size, slices, part=ANY, multiplier=ANY),
            f"{path}/slice/bias": bias(
                f"{path}/slice/kernel", part=ANY, multiplier=ANY
            ),
            f"{path}/to_q/kernel": kernel(size, size, part="query"),
            f"{path}/to_k/kernel": kernel(size, size, part="key"),
            f"{path}/to_v/kernel": kernel(size, size, part="value"),
            f"{path}/out/kernel": kernel(
                inner, D, part="attention output", residual=(2 * i, 4)
            ),
            f"{path}/out/bias": bias(f"{path}/out/kernel", part="attention output"),
            **norm(f"ln_2_{i}"),
            **dense(f"up_{i}", D, F, function="gelu"),
            **dense(f"down_{i}", F, D, residual=(2 * i + 1, 4)),
        }
    return of_linen(Net(), [floats(B, 9, 2), floats(B, 9, 3)], truth)
