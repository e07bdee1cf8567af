"""Equinox: modules with arrays as fields, mapped over batches; controlled paths."""

import jax
import jax.numpy as jnp

from zoo.equinox_models import image, linear, of_equinox
from zoo.truths import (
    ANY,
    Model,
    bias,
    convolution,
    embedding,
    floats,
    integers,
    kernel,
    model,
    position,
    scale,
    unknown,
)

B, T, D, F, O, V = 2, 6, 12, 15, 4, 19  # noqa: E741


@model
def controlled_path() -> Model:
    """Kidger et al. 2020 (neural CDE) by Euler's steps: a matrix times a difference."""
    import equinox as eqx

    state, channels = 8, 3

    class Net(eqx.Module):
        start: eqx.nn.Linear
        field: eqx.nn.MLP
        end: eqx.nn.Linear

        def __init__(self, key):
            self.start = eqx.nn.Linear(channels, state, key=key)
            self.field = eqx.nn.MLP(
                state, state * channels, F, 1, jax.nn.softplus, jnp.tanh, key=key
            )
            self.end = eqx.nn.Linear(state, O, key=key)

        def __call__(self, x):
            def step(z, dx):
                return z + self.field(z).reshape(state, channels) @ dx, None

            z, _ = jax.lax.scan(step, self.start(x[0]), x[1:] - x[:-1])
            return self.end(z)

    # Debatable: a loop over time, or a residual stream whose branches are products.
    loop = {"recurrent": True}
    truth = {
        **linear("start", channels, state),
        **linear("field/layers/0", state, F, function="softplus", **loop),
        **linear("field/layers/1", F, state * channels, function="tanh", residual=ANY,
                 part=ANY, **loop),
        **linear("end", state, O, head=True),
    }  # fmt: skip
    return of_equinox(Net, [floats(B, T, channels)], truth)


@model
def turned_decoder() -> Model:
    """Rotary positions of eqx.nn, grouped by hand; RMSNorm; a gated unit."""
    import equinox as eqx

    n, s = 3, 4

    class Net(eqx.Module):
        tok: eqx.nn.Embedding
        rope: eqx.nn.RotaryPositionalEmbedding
        n1: eqx.nn.RMSNorm
        q: eqx.nn.Linear
        kv: eqx.nn.Linear
        o: eqx.nn.Linear
        n2: eqx.nn.RMSNorm
        w: list
        out: eqx.nn.Linear

        def __init__(self, key):
            bare = {"use_bias": False, "key": key}
            self.tok = eqx.nn.Embedding(V, D, key=key)
            self.rope = eqx.nn.RotaryPositionalEmbedding(s)
            self.n1, self.n2 = (eqx.nn.RMSNorm(D, use_bias=False) for _ in range(2))
            self.q = eqx.nn.Linear(D, n * s, **bare)
            self.kv = eqx.nn.Linear(D, 2 * s, **bare)
            self.o = eqx.nn.Linear(n * s, D, **bare)
            self.w = [
                eqx.nn.Linear(D, F, **bare),
                eqx.nn.Linear(D, F, **bare),
                eqx.nn.Linear(F, D, **bare),
            ]
            self.out = eqx.nn.Linear(D, V, **bare)

        def __call__(self, ids):
            x = jax.vmap(self.tok)(ids)
            h = jax.vmap(self.n1)(x)
            q = jax.vmap(self.q)(h).reshape(T, n, s)
            k, v = jnp.split(jax.vmap(self.kv)(h), 2, axis=-1)
            q = jax.vmap(self.rope, in_axes=1, out_axes=1)(q)
            a = jnp.einsum("qhd,kd->hqk", q, self.rope(k)) / s**0.5
            a = jnp.where(jnp.tri(T, dtype=bool), a, -1e9)
            y = jnp.einsum("hqk,kd->qhd", jax.nn.softmax(a), v).reshape(T, n * s)
            x = x + jax.vmap(self.o)(y)
            h = jax.vmap(self.n2)(x)
            h = jax.nn.silu(jax.vmap(self.w[0])(h)) * jax.vmap(self.w[1])(h)
            return jax.vmap(self.out)(x + jax.vmap(self.w[2])(h))

    def bare(path, fan_in, fan_out, **rest):
        return {f"{path}/weight": kernel(fan_in, fan_out, 1, 0, **rest)}

    halves = [
        (0, ((0, s),), "key", "identity"),
        (0, ((s, 2 * s),), "value", "identity"),
    ]
    truth = {
        "tok/weight": embedding(D),
        "n1/weight": scale(),
        **bare("q", D, n * s, part="query"),
        **bare("kv", D, 2 * s, sections=halves),
        **bare("o", n * s, D, part="attention output", residual=(0, 2)),
        "n2/weight": scale(),
        **bare("w/0", D, F, function="silu", part="gate"),
        **bare("w/1", D, F, part="up"),
        **bare("w/2", F, D, residual=(1, 2)),
        **bare("out", D, V, head=True),
    }
    return of_equinox(Net, [integers(B, T)], truth)


@model
def patches_of_kernels() -> Model:
    """An MLP-Mixer by vmaps along either axis, and a class per mean."""
    import equinox as eqx

    patches = 4

    class Block(eqx.Module):
        tokens: eqx.nn.MLP
        channels: eqx.nn.MLP
        n1: eqx.nn.LayerNorm
        n2: eqx.nn.LayerNorm

        def __init__(self, key):
            k1, k2 = jax.random.split(key)
            gelu = jax.nn.gelu
            self.tokens = eqx.nn.MLP(patches, patches, 7, 1, gelu, key=k1)
            self.channels = eqx.nn.MLP(D, D, F, 1, gelu, key=k2)
            self.n1 = eqx.nn.LayerNorm((D, patches))
            self.n2 = eqx.nn.LayerNorm((D, patches))

        def __call__(self, x):
            x = x + jax.vmap(self.tokens)(self.n1(x))
            h = jax.vmap(self.channels, in_axes=1, out_axes=1)(self.n2(x))
            return x + h

    class Net(eqx.Module):
        patch: eqx.nn.Conv2d
        blocks: list
        head: eqx.nn.Linear

        def __init__(self, key):
            keys = jax.random.split(key, 4)
            self.patch = eqx.nn.Conv2d(3, D, 4, 4, key=keys[0])
            self.blocks = [Block(k) for k in keys[1:3]]
            self.head = eqx.nn.Linear(D, O, key=keys[3])

        def __call__(self, x):
            x = self.patch(x).reshape(D, patches)
            for block in self.blocks:
                x = block(x)
            return self.head(x.mean(1))

    truth = {**image("patch", 48, 16 * D), **linear("head", D, O, head=True)}
    truth["patch/bias"] = bias("patch/weight")
    for i in range(2):
        path = f"blocks/{i}"
        truth |= {
            **linear(f"{path}/tokens/layers/0", patches, 7, function="gelu"),
            **linear(f"{path}/tokens/layers/1", 7, patches, residual=(2 * i, 4)),
            **linear(f"{path}/channels/layers/0", D, F, function="gelu"),
            **linear(f"{path}/channels/layers/1", F, D, residual=(2 * i + 1, 4)),
        }
        # A factor for each number of an image.
        for n in ("n1", "n2"):
            truth[f"{path}/{n}/weight"] = scale((0, 1))
            truth[f"{path}/{n}/bias"] = bias(None, (0, 1))
    return of_equinox(Net, [floats(B, 3, 8, 8)], truth)


@model
def sound_codec() -> Model:
    """Strided windows down, transposed ones up, an ELU before each; a late PReLU."""
    import equinox as eqx

    class Net(eqx.Module):
        a: eqx.nn.Conv1d
        b: eqx.nn.Conv1d
        c: eqx.nn.ConvTranspose1d
        act: eqx.nn.PReLU
        d: eqx.nn.Conv1d

        def __init__(self, key):
            self.a = eqx.nn.Conv1d(1, 6, 7, padding=3, key=key)
            self.b = eqx.nn.Conv1d(6, 8, 4, stride=2, padding=1, key=key)
            self.c = eqx.nn.ConvTranspose1d(8, 6, 4, stride=2, padding=1, key=key)
            self.act = eqx.nn.PReLU()
            self.d = eqx.nn.Conv1d(6, 1, 7, padding=3, key=key)

        def __call__(self, x):
            x = self.b(jax.nn.elu(self.a(x)))
            x = self.c(jax.nn.elu(x))
            return jnp.tanh(self.d(self.act(x)))

    axes = {"spatial_axis": 2, "in_axis": 1, "out_axis": 0}
    truth = {
        "a/weight": convolution(7, 42, function="elu", **axes),
        "a/bias": bias("a/weight"),
        "b/weight": convolution(24, 32, function="elu", **axes),
        "b/bias": bias("b/weight"),
        # One output has half of the window. A slope of one would make it linear.
        "c/weight": convolution(16, 24, function=ANY, transposed=True, **axes),
        "c/bias": bias("c/weight"),
        "act/negative_slope": unknown(),
        "d/weight": convolution(42, 7, function="tanh", head=True, **axes),
        "d/bias": bias("d/weight", ()),
    }
    return of_equinox(Net, [floats(B, 1, 16)], truth)


@model
def ensembles_of_forecasts() -> Model:
    """filter_vmap over members that were made by it; an LSTM cell; a position."""
    import equinox as eqx

    members, state = 3, 8

    class Member(eqx.Module):
        time: jax.Array
        cell: eqx.nn.LSTMCell
        norm: eqx.nn.LayerNorm
        out: eqx.nn.Linear

        def __init__(self, key):
            self.time = jnp.zeros((T, 5))
            self.cell = eqx.nn.LSTMCell(5, state, key=key)
            self.norm = eqx.nn.LayerNorm(state)
            self.out = eqx.nn.Linear(state, O, key=key)

        def __call__(self, x):
            def step(s, x):
                return self.cell(x, s), None

            zero = jnp.zeros(state)
            (h, _), _ = jax.lax.scan(step, (zero, zero), x + self.time)
            return self.out(self.norm(h))

    class Net(eqx.Module):
        members: Member

        def __init__(self, key):
            self.members = eqx.filter_vmap(Member)(jax.random.split(key, members))

        def __call__(self, x):
            params, static = eqx.partition(self.members, eqx.is_array_like)
            y = jax.vmap(lambda p: eqx.combine(p, static)(x))(params)
            return y.mean(0)

    parts = ("input gate", "forget gate", "cell", "output gate")
    functions = ("sigmoid", "sigmoid", "tanh", "sigmoid")
    gates = [
        (1, ((i * state, (i + 1) * state),), part, function)
        for i, (part, function) in enumerate(zip(parts, functions, strict=True))
    ]
    offsets = [(*section[:3], None) for section in gates]
    own, path = {"batch_axis": 0}, "members/cell"
    truth = {
        "members/time": position(1, 2, **own),
        f"{path}/weight_ih": kernel(5, 32, 2, 1, ANY, sections=gates, **own),
        f"{path}/weight_hh": kernel(
            state, 32, 2, 1, ANY, sections=gates, recurrent=True, **own
        ),
        f"{path}/bias": bias(ANY, 1, sections=offsets, **own),
        "members/norm/weight": scale(1, **own),
        "members/norm/bias": bias(None, 1, **own),
        # Debatable: a mean over members may belong to the kernel, or not.
        "members/out/weight": kernel(state, O, 2, 1, head=True, multiplier=ANY, **own),
        "members/out/bias": bias("members/out/weight", 1, multiplier=ANY, **own),
    }
    return of_equinox(Net, [floats(B, T, 5)], truth)
