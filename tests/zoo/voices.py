"""Audio: voices told apart, made of texts, and made of spectra; states for sounds."""

import jax
import jax.numpy as jnp

from zoo.equinox_models import of_equinox
from zoo.flax_layers import of_linen, window
from zoo.haiku_models import linear as hk_linear
from zoo.haiku_models import of_haiku
from zoo.truths import (
    ANY,
    Model,
    bias,
    convolution,
    dense,
    embedding,
    floats,
    integers,
    model,
    norm,
    scale,
    unknown,
)

B, T, D, F, V, O = 2, 6, 12, 15, 19, 5  # noqa: E741
LINE = {"spatial_axis": 0, "in_axis": 1, "out_axis": 2}


@model
def durations_and_pitches() -> Model:
    """Ren et al. 2021 (FastSpeech 2), Haiku: what is predicted is embedded, added."""
    import haiku as hk

    size, bins = 4, 7

    def layer_norm(x, name):
        return hk.LayerNorm(-1, True, True, name=name)(x)

    def block(x, name):
        q, k, v = (
            hk.Linear(D, name=f"{name}_{n}")(x).reshape(B, -1, 3, size) for n in "qkv"
        )
        a = jax.nn.softmax(jnp.einsum("bqhd,bkhd->bhqk", q, k) / size**0.5)
        y = jnp.einsum("bhqk,bkhd->bqhd", a, v).reshape(x.shape)
        x = layer_norm(x + hk.Linear(D, name=f"{name}_o")(y), f"{name}_n1")
        h = jax.nn.relu(hk.Conv1D(F, 9, name=f"{name}_w1")(x))
        return layer_norm(x + hk.Conv1D(D, 1, name=f"{name}_w2")(h), f"{name}_n2")

    def predictor(x, name):
        h = jax.nn.relu(hk.Conv1D(F, 3, name=f"{name}_c1")(x))
        h = layer_norm(h, f"{name}_n")
        return hk.Linear(1, name=f"{name}_out")(h)[..., 0]

    def fun(ids, frames):
        x = hk.Embed(V, D, name="phonemes")(ids)
        t = jnp.arange(T)[:, None] * 0.3 ** jnp.arange(D // 2)
        x = block(x + jnp.concatenate([jnp.sin(t), jnp.cos(t)], axis=-1), "enc")
        duration = predictor(jax.lax.stop_gradient(x), "duration")
        x = x[jnp.arange(B)[:, None], frames]
        pitch = predictor(x, "pitch")
        bucket = jnp.searchsorted(jnp.linspace(-2.0, 2.0, bins - 1), pitch)
        x = block(x + hk.Embed(bins, D, name="pitches")(bucket), "dec")
        return hk.Linear(O, name="mel")(x), duration, pitch

    line = {"names": ("w", "b"), **LINE}
    truth = {
        "phonemes/embeddings": embedding(D),
        "pitches/embeddings": embedding(D),
        **hk_linear("mel", D, O, head=True),
    }
    for name in ("enc", "dec"):
        for letter, part in (("q", "query"), ("k", "key"), ("v", "value")):
            truth |= hk_linear(f"{name}_{letter}", D, D, part=part)
        # Debatable: frames are taken from the stream, between its layers.
        truth |= {
            **hk_linear(f"{name}_o", D, D, part="attention output", residual=ANY),
            **norm(f"{name}_n1", offset="offset"),
            **window(f"{name}_w1", 9 * D, 9 * F, function="relu", **line),
            **window(f"{name}_w2", F, D, residual=ANY, **line),
            **norm(f"{name}_n2", offset="offset"),
        }
    for name in ("duration", "pitch"):
        # Debatable: a pitch chooses a row of a table behind it.
        head = True if name == "duration" else ANY
        truth |= {
            **window(f"{name}_c1", 3 * D, 3 * F, function="relu", **line),
            **norm(f"{name}_n", offset="offset"),
            **hk_linear(f"{name}_out", F, 1, head=head),
        }
    return of_haiku(fun, [integers(B, T), integers(B, 9)], truth)


@model
def masks_of_speakers() -> Model:
    """Luo and Mesgarani 2019 (Conv-TasNet), Equinox: a learned basis, masked."""
    import equinox as eqx

    basis, narrow, wide, speakers = 8, 6, 10, 2

    class Block(eqx.Module):
        inner: eqx.nn.Conv1d
        slope1: eqx.nn.PReLU
        norm1: eqx.nn.GroupNorm
        depth: eqx.nn.Conv1d
        slope2: eqx.nn.PReLU
        norm2: eqx.nn.GroupNorm
        out: eqx.nn.Conv1d
        skip: eqx.nn.Conv1d

        def __init__(self, dilation, key):
            self.inner = eqx.nn.Conv1d(narrow, wide, 1, key=key)
            self.slope1, self.slope2 = eqx.nn.PReLU(0.25), eqx.nn.PReLU(0.25)
            self.norm1, self.norm2 = (eqx.nn.GroupNorm(1, wide) for _ in range(2))
            self.depth = eqx.nn.Conv1d(
                wide, wide, 3, padding=dilation, dilation=dilation, groups=wide, key=key
            )
            self.out = eqx.nn.Conv1d(wide, narrow, 1, key=key)
            self.skip = eqx.nn.Conv1d(wide, narrow, 1, key=key)

        def __call__(self, x):
            h = self.norm1(self.slope1(self.inner(x)))
            h = self.norm2(self.slope2(self.depth(h)))
            return x + self.out(h), self.skip(h)

    class Net(eqx.Module):
        encoder: eqx.nn.Conv1d
        norm: eqx.nn.GroupNorm
        bottleneck: eqx.nn.Conv1d
        blocks: list
        slope: eqx.nn.PReLU
        mask: eqx.nn.Conv1d
        decoder: eqx.nn.ConvTranspose1d

        def __init__(self, key):
            self.encoder = eqx.nn.Conv1d(1, basis, 4, 2, use_bias=False, key=key)
            self.norm = eqx.nn.GroupNorm(1, basis)
            self.bottleneck = eqx.nn.Conv1d(basis, narrow, 1, key=key)
            self.blocks = [Block(2**i, key) for i in range(2)]
            self.slope = eqx.nn.PReLU(0.25)
            self.mask = eqx.nn.Conv1d(narrow, speakers * basis, 1, key=key)
            self.decoder = eqx.nn.ConvTranspose1d(
                basis, 1, 4, 2, use_bias=False, key=key
            )

        def __call__(self, x):
            w = jax.nn.relu(self.encoder(x))
            h, total = self.bottleneck(self.norm(w)), 0.0
            for block in self.blocks:
                h, skip = block(h)
                total = total + skip
            m = jax.nn.sigmoid(self.mask(self.slope(total)))
            m = m.reshape(speakers, basis, -1) * w[None]
            return jax.vmap(self.decoder)(m)[:, 0]

    axes = {"spatial_axis": 2, "in_axis": 1, "out_axis": 0}
    slope = unknown()

    def conv(path, a, b, **rest):
        rest = {**axes, **rest}
        return window(path, a, b, ("weight", "bias"), **rest)

    truth = {
        # Debatable: what is masked is no linear factor.
        "encoder/weight": convolution(4, 4 * basis, function="relu", part=ANY, **axes),
        **norm("norm", factor="weight"),
        **conv("bottleneck", basis, narrow),
        # A slope of one would make it linear. Debatable: the function.
        "slope/negative_slope": slope,
        **conv("mask", narrow, speakers * basis, function="sigmoid", part="gate"),
        "decoder/weight": convolution(2 * basis, 4, transposed=True, head=True, **axes),
    }
    truth["mask/bias"] = bias("mask/weight", part="gate")
    # Debatable: a sum of all blocks' skips; the last block's output is not read.
    for i in range(2):
        path = f"blocks/{i}"
        truth |= {
            **conv(f"{path}/inner", narrow, wide, function=ANY),
            **conv(f"{path}/depth", 3, 3, groups=wide, function=ANY),
            **conv(f"{path}/skip", wide, narrow, function=ANY, residual=ANY),
            **norm(f"{path}/norm1", factor="weight"),
            **norm(f"{path}/norm2", factor="weight"),
            f"{path}/slope1/negative_slope": slope,
            f"{path}/slope2/negative_slope": slope,
        }
    truth |= conv("blocks/0/out", wide, narrow, residual=ANY)
    truth |= {"blocks/1/out/weight": [], "blocks/1/out/bias": []}
    return of_equinox(Net, [floats(B, 1, 16)], truth)


@model
def voices_of_spectra() -> Model:
    """Kong et al. 2020 (HiFi-GAN), Linen: transposed windows, means of blocks."""
    from flax import linen as nn

    mels, c = 5, 8

    def slope(x):
        return nn.leaky_relu(x, 0.1)

    class Block(nn.Module):
        width: int

        @nn.compact
        def __call__(self, x):
            features, size = x.shape[-1], (self.width,)
            for i, dilation in enumerate((1, 3)):
                h = nn.Conv(features, size, kernel_dilation=dilation, name=f"a_{i}")(
                    slope(x)
                )
                x = x + nn.Conv(features, size, name=f"b_{i}")(slope(h))
            return x

    class Net(nn.Module):
        @nn.compact
        def __call__(self, mel):
            x = nn.Conv(c, (7,), name="pre")(mel)
            for i in range(2):
                features = c // 2 ** (i + 1)
                x = nn.ConvTranspose(features, (4,), (2,), name=f"up_{i}")(slope(x))
                ys = [Block(w, name=f"block_{i}_{w}")(x) for w in (3, 5)]
                x = sum(ys) / len(ys)
            return nn.tanh(nn.Conv(1, (7,), name="post")(nn.leaky_relu(x)))

    truth = {
        **window("pre", 7 * mels, 7 * c, function="leaky_relu", **LINE),
        "post/kernel": convolution(7 * 2, 7, function="tanh", head=True, **LINE),
        "post/bias": bias("post/kernel", ()),
    }
    for i in range(2):
        n = c // 2 ** (i + 1)
        # Debatable: a stream that is read behind a function, in two ways.
        truth |= window(f"up_{i}", 4 * n, 4 * n, transposed=True, function=ANY, **LINE)
        for w in (3, 5):
            path, own = f"block_{i}_{w}", {"multiplier": ANY, "residual": ANY}
            for j in range(2):
                truth |= window(
                    f"{path}/a_{j}", w * n, w * n, function="leaky_relu", **LINE
                )
                # Debatable: two streams of which the mean goes on.
                truth |= {
                    f"{path}/b_{j}/kernel": convolution(
                        w * n, w * n, function=ANY, **LINE, **own
                    ),
                    f"{path}/b_{j}/bias": bias(f"{path}/b_{j}/kernel", multiplier=ANY),
                }
    return of_linen(Net(), [floats(B, T, mels)], truth)


@model
def states_side_by_side() -> Model:
    """Smith et al. 2023 (S5), Linen: complex kernels as pairs, an associative scan."""
    from flax import linen as nn

    n, layers = 6, 2

    class SSM(nn.Module):
        @nn.compact
        def __call__(self, u):
            start = nn.initializers.normal()
            lam = self.param("Lambda_re", start, (n,)) + 1j * self.param(
                "Lambda_im", start, (n,)
            )
            b = self.param("B", start, (n, D, 2))
            c = self.param("C", start, (D, n, 2))
            b, c = b[..., 0] + 1j * b[..., 1], c[..., 0] + 1j * c[..., 1]
            d = self.param("D", start, (D,))
            step = jnp.exp(self.param("log_step", start, (n, 1))[:, 0])
            a = jnp.exp(lam * step)
            b = ((a - 1) / lam)[:, None] * b

            def combine(left, right):
                return left[0] * right[0], right[0] * left[1] + right[1]

            def run(u):
                bu = jax.vmap(lambda u: b @ u)(u)
                seq = (jnp.broadcast_to(a, bu.shape), bu)
                _, xs = jax.lax.associative_scan(combine, seq)
                return jax.vmap(lambda x: 2 * (c @ x).real)(xs) + u * d

            return jax.vmap(run)(u)

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.Dense(D, name="encoder")(x)
            for i in range(layers):
                h = nn.LayerNorm(name=f"norm_{i}")(x)
                h = nn.gelu(SSM(name=f"ssm_{i}")(h))
                x = x + h * nn.sigmoid(nn.Dense(D, name=f"gate_{i}")(h))
            return nn.Dense(O, name="decoder")(x.mean(axis=1))

    truth = {
        **dense("encoder", 7, D),
        **dense("decoder", D, O, head=True),
    }
    for i in range(layers):
        truth |= {
            **norm(f"norm_{i}"),
            f"ssm_{i}/Lambda_re": unknown(),
            f"ssm_{i}/Lambda_im": unknown(),
            f"ssm_{i}/log_step": unknown(),
            # Parts of complex kernels; the first is multiplied by a function of leaves.
            f"ssm_{i}/B": unknown(),
            f"ssm_{i}/C": unknown(),
            f"ssm_{i}/D": scale(part=ANY),
            # Debatable: without a kernel behind it, it reaches the stream as a factor.
            **dense(f"gate_{i}", D, D, function="sigmoid", part="gate", residual=ANY),
        }
    return of_linen(Net(), [floats(B, T, 7)], truth)
