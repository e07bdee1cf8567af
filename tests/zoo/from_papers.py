"""Models of papers that compute with directions, spectra and made kernels."""

import itertools

import jax
import jax.numpy as jnp

from zoo.equinox_models import linear as equinox_linear
from zoo.equinox_models import of_equinox
from zoo.haiku_models import linear as haiku_linear
from zoo.haiku_models import of_haiku
from zoo.layers import affine, linear, scales
from zoo.truths import (
    ANY,
    WRITES,
    Model,
    Use,
    bias,
    dense,
    embedding,
    floats,
    integers,
    kernel,
    layer_norm,
    model,
    norm,
)

B, T, N, D, F, O, V = 2, 6, 7, 12, 15, 4, 19  # noqa: E741


@model
def spectra_of_blocks() -> Model:
    """Guibas et al. 2022 (AFNO): real and imaginary kernels of blocks of channels."""
    blocks, size = 3, 4

    def complex_linear(x, y, w, b):
        def mul(x, w):
            return jnp.einsum("...bi,bio->...bo", x, w)

        real = mul(x, w[0]) - mul(y, w[1]) + b[0]
        return real, mul(y, w[0]) + mul(x, w[1]) + b[1]

    def apply(p, x):
        x = linear(p["enc"], x)
        z = jnp.fft.rfft2(layer_norm(x, p["norm"]), axes=(1, 2), norm="ortho")
        z = z.reshape(*z.shape[:-1], blocks, size)
        a, b = complex_linear(z.real, z.imag, p["w1"], p["b1"])
        a, b = complex_linear(jax.nn.relu(a), jax.nn.relu(b), p["w2"], p["b2"])
        a, b = (jnp.sign(c) * jax.nn.relu(jnp.abs(c) - 0.01) for c in (a, b))
        z = jax.lax.complex(a, b).reshape(*a.shape[:-2], D)
        x = x + jnp.fft.irfft2(z, s=x.shape[1:3], axes=(1, 2), norm="ortho")
        return linear(p["out"], x.mean((1, 2)))

    params = {
        "enc": affine(N, D),
        "norm": scales(D),
        "w1": floats(2, blocks, size, size),
        "b1": floats(2, blocks, size),
        "w2": floats(2, blocks, size, size),
        "b2": floats(2, blocks, size),
        "out": affine(D, O),
    }
    # Both halves read real and imaginary parts, each times one of two kernels.
    own = {"batch_axis": 1, "stack_axis": 0, "multiplier": ANY}
    offset = {"batch_axis": ANY, "stack_axis": ANY}
    truth = {
        **dense("enc", N, D),
        **norm("norm"),
        "w1": [kernel(size, size, 2, 3, "relu", **own)] * 4,
        "b1": [bias(ANY, ANY, **offset)] * 2,
        # Debatable: whether what a transform leads to is a stream.
        "w2": [kernel(size, size, 2, 3, ANY, residual=ANY, **own)] * 4,
        "b2": [bias(ANY, ANY, **offset)] * 2,
        **dense("out", D, O, head=True),
    }
    return Model(apply, params, (floats(B, 5, 8, N),), truth)


@model
def mixing_by_made_kernels() -> Model:
    """Mai et al. 2023 (HyperMixer): tokens make the kernels that mix them."""

    def mlp(p, x):
        return linear(p["1"], jax.nn.gelu(linear(p["0"], x)))

    def apply(p, ids):
        x = p["embed"][ids]
        h = layer_norm(x, p["norm"])
        first, second = mlp(p["in"], h), mlp(p["out"], h)
        mixed = jax.nn.gelu(jnp.einsum("bth,btd->bhd", first, h))
        x = x + jnp.einsum("bth,bhd->btd", second, mixed)
        x = x + mlp(p["features"], layer_norm(x, p["norm2"]))
        return linear(p["head"], x.mean(1))

    def two(a, b, c):
        return {"0": affine(a, b), "1": affine(b, c)}

    params = {
        "embed": floats(V, D),
        "norm": scales(D),
        "in": two(D, F, 8),
        "out": two(D, F, 8),
        "norm2": scales(D),
        "features": two(D, F, D),
        "head": affine(D, O),
    }
    # Debatable: what is contracted with activations only, and writes to the stream.
    made = {"part": ANY, "residual": ANY, "function": ANY}
    truth = {
        "embed": embedding(D),
        **norm("norm"),
        **norm("norm2"),
        **dense("features/0", D, F, function="gelu"),
        **dense("features/1", F, D, residual=WRITES),
        **dense("head", D, O, head=True),
    }
    for name in ("in", "out"):
        truth |= dense(f"{name}/0", D, F, function="gelu")
        truth |= dense(f"{name}/1", F, 8, **made)
        truth[f"{name}/1/bias"] = bias(f"{name}/1/kernel", part=ANY)
    return Model(apply, params, (integers(B, T),), truth)


@model
def vectors_as_neurons() -> Model:
    """Deng et al. 2021: kernels on lists of vectors, a ReLU along directions made."""

    def turn(w, v):
        return jnp.einsum("bnci,cd->bndi", v, w)

    def relu(q, k):
        dot = (q * k).sum(-1, keepdims=True)
        along = dot / ((k * k).sum(-1, keepdims=True) + 1e-6) * k
        return jnp.where(dot >= 0, q, q - along)

    def apply(p, points):
        v = points[:, :, None] - points.mean(1, keepdims=True)[:, :, None]
        for q in p["layers"]:
            v = relu(turn(q["w"], v), turn(q["u"], v))
        frame = turn(p["frame"], v)
        x = jnp.einsum("bnci,bndi->bncd", v, frame).reshape(B, -1, 11 * 3)
        return linear(p["out"], x.max(1))

    sizes = (1, 9, 11)
    params = {
        "layers": [
            {"w": floats(a, b), "u": floats(a, b)} for a, b in itertools.pairwise(sizes)
        ],
        "frame": floats(11, 3),
        "out": affine(33, O),
    }
    # Debatable: a function of two kernels, and a product of activations behind.
    own = {"function": ANY, "part": ANY}
    truth = {"frame": kernel(11, 3, **own), **dense("out", 33, O, head=True)}
    for i, (a, b) in enumerate(itertools.pairwise(sizes)):
        for name in "wu":
            # An axis of size 1 only broadcasts.
            axes = {"in_axis": ANY if a == 1 else 0}
            truth[f"layers/{i}/{name}"] = kernel(a, b, out_axis=1, **axes, **own)
    return Model(apply, params, (floats(B, 8, 3),), truth)


@model
def products_of_tensors() -> Model:
    """Batzner et al. 2022 (NequIP), by e3nn's paths: scalars, vectors, their products.

    A network of distances weighs the paths; sums are divided by roots of their terms.
    """
    size = 6

    def apply(p, species, places, s, r):
        x = p["species"][species]
        apart = places[r] - places[s]
        length = jnp.linalg.norm(apart + 1e-6, axis=-1, keepdims=True)
        basis = jnp.sin(length * jnp.arange(1.0, 6.0)) / length
        w = jax.nn.silu(basis @ p["radial0"] / 5**0.5) @ p["radial1"] / F**0.5
        w = w.reshape(-1, 2, size)
        harmonics = apart / length
        scalars = w[:, 0] * (x @ p["up"] / size**0.5)[s]
        vectors = jnp.einsum("eu,ei->eui", w[:, 1] * x[s], harmonics)
        scalars = jax.ops.segment_sum(scalars, r, N)
        vectors = jax.ops.segment_sum(vectors, r, N)
        scalars = jnp.einsum("nu,uv->nv", scalars, p["mix0"]) / size**0.5
        vectors = jnp.einsum("nui,uv->nvi", vectors, p["mix1"]) / size**0.5
        x = x + jax.nn.silu(scalars[:, :size])
        vectors = jax.nn.sigmoid(scalars[:, size:, None]) * vectors
        x = x + jnp.einsum("nui,uv,nvi->nu", vectors, p["square"], vectors)
        return (x @ p["energy"]).sum()

    params = {
        "species": floats(9, size),
        "radial0": floats(5, F),
        "radial1": floats(F, 2 * size),
        "up": floats(size, size),
        "mix0": floats(size, 2 * size),
        "mix1": floats(size, size),
        "square": floats(size, size),
        "energy": floats(size, 1),
    }
    halves = {"function": ANY, "part": ANY, "sections": ANY, "residual": ANY}
    truth = {
        "species": embedding(size),
        "radial0": kernel(5, F, function="silu", multiplier=5**-0.5),
        # Debatable: a factor of each path, one of them of another kernel.
        "radial1": kernel(F, 2 * size, multiplier=F**-0.5, **halves),
        "up": kernel(size, size, multiplier=size**-0.5, part=ANY),
        "mix0": kernel(size, 2 * size, multiplier=size**-0.5, **halves),
        "mix1": kernel(size, size, multiplier=size**-0.5, part=ANY, residual=ANY,
                       function=ANY),
        # Debatable: contracted with one argument, and what is left with another.
        "square": Use("kernel", ANY, ANY, ANY, fan_in=ANY, fan_out=ANY, function=ANY,
                      part=ANY, residual=ANY),
        "energy": kernel(size, 1, head=True),
    }  # fmt: skip
    inputs = (integers(N), floats(N, 3), integers(11), integers(11))
    return Model(apply, params, inputs, truth)


@model
def scalars_and_directions() -> Model:
    """Schutt et al. 2021 (PaiNN), Haiku: kernels cut in three multiply each other."""
    import haiku as hk

    size = 6

    def fun(species, places, s, r):
        x = hk.Embed(9, size, name="species")(species)
        v = jnp.zeros((N, 3, size))
        apart = places[r] - places[s]
        length = jnp.sqrt((apart**2).sum(-1, keepdims=True) + 1e-6)
        basis = jnp.sin(length * jnp.arange(1.0, 6.0)) / length
        for i in range(2):
            phi = jax.nn.silu(hk.Linear(size, name=f"phi0_{i}")(x))
            phi = hk.Linear(3 * size, name=f"phi1_{i}")(phi)
            w = hk.Linear(3 * size, name=f"filter_{i}")(basis)
            a, b, c = jnp.split(phi[s] * w, 3, axis=-1)
            move = v[s] * b[:, None] + (apart / length)[:, :, None] * c[:, None]
            x = x + jax.ops.segment_sum(a, r, N)
            v = v + jax.ops.segment_sum(move, r, N)
            u = hk.Linear(size, with_bias=False, name=f"u_{i}")(v)
            t = hk.Linear(size, with_bias=False, name=f"t_{i}")(v)
            both = jnp.concatenate([x, jnp.sqrt((t**2).sum(1) + 1e-6)], axis=-1)
            h = jax.nn.silu(hk.Linear(size, name=f"h0_{i}")(both))
            a, b, c = jnp.split(hk.Linear(3 * size, name=f"h1_{i}")(h), 3, axis=-1)
            v = v + a[:, None] * u
            x = x + c + b * (u * t).sum(1)
        h = jax.nn.silu(hk.Linear(5, name="out0")(x))
        return hk.Linear(1, name="out1")(h).sum()

    # Debatable: thirds that are factors of each other, in two streams.
    own = {"function": ANY, "part": ANY, "residual": ANY, "sections": ANY}
    truth = {
        "species/embeddings": embedding(size),
        **haiku_linear("out0", size, 5, function="silu"),
        **haiku_linear("out1", 5, 1, head=True),
    }
    for i in range(2):
        truth |= {
            **haiku_linear(f"phi0_{i}", size, size, function="silu"),
            f"phi1_{i}/w": kernel(size, 3 * size, **own),
            f"phi1_{i}/b": bias(f"phi1_{i}/w", part=ANY, sections=ANY),
            f"filter_{i}/w": kernel(5, 3 * size, **own),
            f"filter_{i}/b": bias(f"filter_{i}/w", part=ANY, sections=ANY),
            f"u_{i}/w": kernel(size, size, **own),
            f"t_{i}/w": kernel(size, size, **own),
            **haiku_linear(f"h0_{i}", 2 * size, size, function="silu"),
            f"h1_{i}/w": kernel(size, 3 * size, head=False, **own),
            f"h1_{i}/b": bias(f"h1_{i}/w", part=ANY, sections=ANY),
        }
    inputs = [integers(N), floats(N, 3), integers(11), integers(11)]
    return of_haiku(fun, inputs, truth)


@model
def parsed_by_pairs() -> Model:
    """Dozat and Manning 2017, Equinox: arcs and labels by forms of two projections."""
    import equinox as eqx

    size, labels = 8, 5

    class Net(eqx.Module):
        embed: eqx.nn.Embedding
        projections: dict
        arcs: jax.Array
        labels: jax.Array

        def __init__(self, key):
            self.embed = eqx.nn.Embedding(V, D, key=key)
            self.projections = {
                name: eqx.nn.Linear(D, size, key=key) for name in ("head", "dep")
            }
            self.arcs = jnp.zeros((size + 1, size))
            self.labels = jnp.zeros((labels, size + 1, size + 1))

        def __call__(self, ids):
            x = jax.vmap(self.embed)(ids)
            head, dep = (
                jax.nn.leaky_relu(jax.vmap(self.projections[name])(x), 0.1)
                for name in ("head", "dep")
            )
            one = jnp.ones((T, 1))
            dep1, head1 = (jnp.concatenate([y, one], axis=1) for y in (dep, head))
            arcs = dep1 @ self.arcs @ head.T
            return arcs, jnp.einsum("xi,oij,yj->oxy", dep1, self.labels, head1)

    # Debatable: contracted with one argument, and what is left with another.
    form = Use("kernel", ANY, ANY, ANY, fan_in=ANY, fan_out=ANY, function=ANY,
               part=ANY, head=ANY)  # fmt: skip
    own = {"function": "leaky_relu", "part": ANY, "head": ANY}
    truth = {
        "embed/weight": embedding(D),
        **equinox_linear("projections/head", D, size, **own),
        **equinox_linear("projections/dep", D, size, **own),
        "arcs": form,
        "labels": form,
    }
    for name in ("head", "dep"):
        path = f"projections/{name}"
        truth[f"{path}/bias"] = bias(f"{path}/weight", part=ANY)
    return of_equinox(Net, [integers(B, T)], truth)
