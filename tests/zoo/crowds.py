"""Graphs, electrons, items: many that are treated alike."""

import math

import jax
import jax.numpy as jnp

from zoo.equinox_models import linear as eqx_linear
from zoo.equinox_models import of_equinox
from zoo.haiku_models import linear as hk_linear
from zoo.haiku_models import normalized as hk_normalized
from zoo.haiku_models import of_haiku
from zoo.layers import affine, linear, scales
from zoo.nnx_models import of_nnx
from zoo.truths import (
    ANY,
    Model,
    Use,
    bias,
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
    one_of,
    position,
)

B, T, D, F, O, V = 2, 6, 12, 15, 4, 19  # noqa: E741
NODES, EDGES = 7, 11


@model
def meshes() -> Model:
    """Pfaff et al. 2021 (MeshGraphNets), Haiku: edges and nodes are streams of MLPs."""
    import haiku as hk

    steps = 2

    def mlp(x, name):
        x = jax.nn.relu(hk.Linear(F, name=f"{name}_0")(x))
        x = hk.Linear(D, name=f"{name}_1")(x)
        return hk.LayerNorm(-1, True, True, name=f"{name}_ln")(x)

    def fun(nodes, edges, senders, receivers):
        x, e = mlp(nodes, "enc_node"), mlp(edges, "enc_edge")
        for i in range(steps):
            new = mlp(
                jnp.concatenate([e, x[senders], x[receivers]], axis=-1), f"edge_{i}"
            )
            got = jax.ops.segment_sum(new, receivers, NODES)
            x = x + mlp(jnp.concatenate([x, got], axis=-1), f"node_{i}")
            e = e + new
        x = jax.nn.relu(hk.Linear(F, name="dec_0")(x))
        return hk.Linear(3, name="dec_1")(x)

    def perceptron(path, inputs, **rest):
        return {
            **hk_linear(f"{path}_0", inputs, F, function="relu"),
            **hk_linear(f"{path}_1", F, D, **rest),
            **hk_normalized(f"{path}_ln"),
        }

    truth = {
        **perceptron("enc_node", 5),
        **perceptron("enc_edge", 4),
        # The last sum of edges reaches nothing.
        **perceptron("edge_0", 3 * D, residual=one_of((0, 1), (0, 2))),
        **perceptron("edge_1", 3 * D, residual=one_of(None, (1, 2))),
        **hk_linear("dec_0", D, F, function="relu"),
        **hk_linear("dec_1", F, 3, head=True),
    }
    for i in range(steps):
        truth |= perceptron(f"node_{i}", 2 * D, residual=(i, steps))
    inputs = [floats(NODES, 5), floats(EDGES, 4), integers(EDGES), integers(EDGES)]
    return of_haiku(fun, inputs, truth)


@model
def begun_again() -> Model:
    """Chen et al. 2020 (GCNII), Equinox: first features and identities mix in.

    Every kernel has a weight that falls with depth.
    """
    import equinox as eqx

    class Net(eqx.Module):
        first: eqx.nn.Linear
        convs: list
        last: eqx.nn.Linear

        def __init__(self, key):
            self.first = eqx.nn.Linear(5, D, key=key)
            self.convs = [jnp.zeros((D, D)) for _ in range(3)]
            self.last = eqx.nn.Linear(D, O, key=key)

        def __call__(self, x, adjacency):
            h = start = jax.nn.relu(jax.vmap(self.first)(x))
            for i, w in enumerate(self.convs):
                s = 0.9 * (adjacency @ h) + 0.1 * start
                beta = math.log(0.5 / (i + 1) + 1)
                h = jax.nn.relu((1 - beta) * s + beta * (s @ w))
            return jax.vmap(self.last)(h)

    # Debatable: a stream that is weighed, and passes a relu.
    own = {"function": ANY, "residual": ANY, "multiplier": ANY}
    truth = {
        **eqx_linear("first", 5, D, function="relu"),
        **{f"convs/{i}": kernel(D, D, **own) for i in range(3)},
        **eqx_linear("last", D, O, head=True),
    }
    return of_equinox(Net, [floats(B, NODES, 5), floats(B, NODES, NODES)], truth)


@model
def principal_neighbours() -> Model:
    """Corso et al. 2020 (PNA), plain: four aggregators, three factors of degrees."""
    layers = 2

    def aggregate(m, to):
        count = jax.ops.segment_sum(jnp.ones(EDGES), to, NODES)[:, None]
        some = jnp.maximum(count, 1.0)
        mean = jax.ops.segment_sum(m, to, NODES) / some
        square = jax.ops.segment_sum(m * m, to, NODES) / some
        std = jnp.sqrt(jax.nn.relu(square - mean * mean) + 1e-5)
        top, low = (f(m, to, NODES) for f in (jax.ops.segment_max, jax.ops.segment_min))
        top, low = (jnp.where(count > 0, y, 0.0) for y in (top, low))
        y = jnp.concatenate([mean, top, low, std], axis=-1)
        degree = jnp.log(count + 1) / 1.3
        return jnp.concatenate([y, y * degree, y / jnp.maximum(degree, 0.1)], axis=-1)

    def apply(p, atoms, bonds, start, to):
        x = p["atom"][atoms]
        e = p["bond"][bonds]
        for q in p["layers"]:
            m = linear(q["pre"], jnp.concatenate([x[start], x[to], e], axis=-1))
            y = linear(q["post"], jnp.concatenate([x, aggregate(m, to)], axis=-1))
            x = x + jax.nn.relu(layer_norm(y, q["norm"]))
        g = x.mean(0, keepdims=True)
        return linear(p["out"], jax.nn.relu(linear(p["hidden"], g)))

    one = {"pre": affine(2 * D + 3, D), "post": affine(13 * D, D), "norm": scales(D)}
    params = {
        "atom": floats(9, D), "bond": floats(4, 3), "layers": [one] * layers,
        "hidden": affine(D, F), "out": affine(F, 1),
    }  # fmt: skip
    layer = {
        # Debatable: its square is one of four that are summed over.
        **dense("pre", 2 * D + 3, D, function=ANY),
        # Debatable: norm and function end its branch.
        **dense("post", 13 * D, D, residual=ANY),
        **norm("norm"),
    }
    truth = {
        "atom": embedding(D),
        # Every layer reads its rows.
        "bond": embedding(3),
        **every("layers/{}/", layers, layer),
        **dense("hidden", D, F, function="relu"),
        **dense("out", F, 1, head=True),
    }
    inputs = (integers(NODES), integers(EDGES), integers(EDGES), integers(EDGES))
    return Model(apply, params, inputs, truth)


@model
def electrons() -> Model:
    """Pfau et al. 2020 (FermiNet), plain: one and two electrons, orbitals, envelopes.

    One position of electrons at a time, mapped over walkers.
    """
    n, up, atoms, dets, f1, f2 = 4, 2, 2, 2, 10, 5

    def symmetric(h1, h2):
        means = [
            jnp.broadcast_to(h.mean(0, keepdims=True), h1.shape)
            for h in (h1[:up], h1[up:])
        ]
        pairs = [h2[:up].mean(0), h2[up:].mean(0)]
        return jnp.concatenate([h1, *means, *pairs], axis=-1)

    def walker(p, x, nuclei):
        ae = x[:, None] - nuclei[None]
        ee = x[:, None] - x[None]
        r_ae = jnp.linalg.norm(ae, axis=-1, keepdims=True)
        r_ee = jnp.sqrt(jnp.square(ee).sum(-1, keepdims=True) + 1e-6)
        h1 = jnp.concatenate([ae, r_ae], axis=-1).reshape(n, -1)
        h2 = jnp.concatenate([ee, r_ee], axis=-1)
        for i, q in enumerate(p["streams"]):
            y = jnp.tanh(linear(q["single"], symmetric(h1, h2)))
            h1 = y if i == 0 else h1 + y
            if "double" in q:
                z = jnp.tanh(linear(q["double"], h2))
                h2 = z if i == 0 else h2 + z
        orbitals = h1 @ p["orbital"]["w"] + p["orbital"]["b"]
        decay = jnp.exp(-r_ae * p["envelope"]["sigma"])
        orbitals = orbitals * jnp.sum(decay * p["envelope"]["pi"], axis=1)
        m = orbitals.reshape(n, dets, n).transpose(1, 0, 2)
        sign, logs = jnp.linalg.slogdet(m)
        top = logs.max()
        return jnp.log(jnp.abs(jnp.sum(sign * jnp.exp(logs - top)))) + top

    def apply(p, x, nuclei):
        return jax.vmap(walker, in_axes=(None, 0, None))(p, x, nuclei)

    first, later = 3 * 4 * atoms + 2 * 4, 3 * f1 + 2 * f2
    params = {
        "streams": [
            {"single": affine(first, f1), "double": affine(4, f2)},
            {"single": affine(later, f1), "double": affine(f2, f2)},
            {"single": affine(later, f1)},
        ],
        "orbital": {"w": floats(f1, dets * n), "b": floats(dets * n)},
        "envelope": {"sigma": floats(atoms, dets * n), "pi": floats(atoms, dets * n)},
    }
    # Debatable: a tanh ends the branch.
    late = {"function": "tanh", "residual": ANY}
    # Debatable: an envelope multiplies, and factors of a matrix follow.
    last = {"function": ANY, "part": ANY, "head": ANY}
    truth = {
        **dense("streams/0/single", first, f1, function="tanh"),
        **dense("streams/0/double", 4, f2, function="tanh"),
        **dense("streams/1/single", later, f1, **late),
        **dense("streams/1/double", f2, f2, **late),
        **dense("streams/2/single", later, f1, **late),
        "orbital/w": kernel(f1, dets * n, **last),
        "orbital/b": bias("orbital/w", part=ANY),
        # One distance multiplies all, one by one; atoms are summed over later.
        "envelope/sigma": either("scale", "kernel", "unknown"),
        "envelope/pi": either("scale", "kernel", "unknown"),
    }
    return Model(apply, params, (floats(3, n, 3), floats(atoms, 3)), truth)


@model
def actions_as_words() -> Model:
    """Zhai et al. 2024 (HSTU), plain: silu for a softmax, one kernel for four.

    Next items are found by products with the table's own rows.
    """
    layers, heads, size, wide = 2, 2, 4, 5
    cuts = (heads * wide, 2 * heads * wide, 2 * heads * wide + heads * size)

    def bare(x):
        m = x.mean(-1, keepdims=True)
        return (x - m) * jax.lax.rsqrt(jnp.square(x - m).mean(-1, keepdims=True) + 1e-6)

    def apply(p, ids, candidates):
        x = p["items"][ids] * D**0.5 + p["places"][:T]
        apart = jnp.arange(T)[:, None] - jnp.arange(T) + T - 1
        for q_ in p["layers"]:
            h = jax.nn.silu(linear(q_["uvqk"], bare(x)))
            u, v, q, k = jnp.split(h, cuts, axis=-1)
            q, k = (y.reshape(B, T, heads, size) for y in (q, k))
            a = jnp.einsum("bnhd,bmhd->bhnm", q, k) + q_["relative"][apart]
            a = jax.nn.silu(a) / T * jnp.tri(T)
            y = jnp.einsum("bhnm,bmhd->bnhd", a, v.reshape(B, T, heads, wide))
            x = x + linear(q_["o"], u * bare(y.reshape(B, T, heads * wide)))
        x = x / jnp.maximum(jnp.linalg.norm(x, axis=-1, keepdims=True), 1e-6)
        return jnp.einsum("btd,bcd->btc", x, p["items"][candidates])

    total = 2 * heads * (wide + size)
    one = {
        "uvqk": affine(D, total),
        "relative": floats(2 * T - 1),
        "o": affine(heads * wide, D),
    }
    params = {"items": floats(V, D), "places": floats(9, D), "layers": [one] * layers}
    # Debatable: without a softmax, and with functions, parts may have no names.
    layer = {
        "uvqk/kernel": kernel(D, total, function="silu", part=ANY, sections=ANY),
        "uvqk/bias": bias("uvqk/kernel", part=ANY, sections=ANY),
        "relative": position(0, ()),
        **dense(
            "o",
            heads * wide,
            D,
            part=one_of("attention output", None),
            residual=(0, layers),
        ),
    }
    truth = {
        "items": [
            embedding(D, multiplier=D**0.5),
            # Debatable: rows that are contracted with the last state.
            Use("embedding", 0, 1, fan_in=1, fan_out=D, head=ANY, part=ANY),
        ],
        "places": position(),
        **every("layers/{}/", layers, layer),
    }
    return Model(apply, params, (integers(B, T), integers(B, 3)), truth)


@model
def extracted_layers() -> Model:
    """Tang et al. 2020 (PLE), NNX: experts of each task, and some for all tasks."""
    from flax import nnx

    sizes, e, tasks = (11, 7, 3), 4, 2
    inputs = e * len(sizes)

    class Net(nnx.Module):
        def __init__(self, rngs):
            self.fields = nnx.Embed(sum(sizes), e, rngs=rngs)

            def some(count):
                return nnx.List(
                    [nnx.Linear(inputs, F, rngs=rngs) for _ in range(count)]
                )

            self.shared = some(2)
            self.own = nnx.List([some(1) for _ in range(tasks)])
            self.gates = nnx.List(
                [nnx.Linear(inputs, 3, use_bias=False, rngs=rngs) for _ in range(tasks)]
            )
            self.towers = nnx.List([nnx.Linear(F, D, rngs=rngs) for _ in range(tasks)])
            self.heads = nnx.List([nnx.Linear(D, 1, rngs=rngs) for _ in range(tasks)])

        def __call__(self, ids):
            starts = jnp.array([0, *sizes[:-1]]).cumsum()
            x = self.fields(ids + starts).reshape(B, -1)
            shared = [nnx.relu(f(x)) for f in self.shared]
            out = []
            for i in range(tasks):
                ys = jnp.stack([*(nnx.relu(f(x)) for f in self.own[i]), *shared], 1)
                g = nnx.softmax(self.gates[i](x))
                y = jnp.sum(ys * g[..., None], axis=1)
                y = nnx.relu(self.towers[i](y))
                out.append(nnx.sigmoid(self.heads[i](y))[:, 0])
            clicks, buys = out
            return clicks, clicks * buys

    truth = {"fields/embedding": embedding(e)}
    for i in range(2):
        truth |= {
            **dense(f"shared/{i}", inputs, F, function="relu"),
            **dense(f"own/{i}/0", inputs, F, function="relu"),
            f"gates/{i}/kernel": kernel(inputs, 3, part="router"),
            **dense(f"towers/{i}", F, D, function="relu"),
            **dense(f"heads/{i}", D, 1, function="sigmoid", head=True),
        }
    # Debatable: what one says multiplies what the other says.
    for i in range(2):
        path = f"heads/{i}"
        truth |= {
            f"{path}/kernel": kernel(D, 1, function="sigmoid", head=True, part=ANY),
            f"{path}/bias": bias(f"{path}/kernel", (), part=ANY),
        }
    return of_nnx(Net, [integers(B, len(sizes))], truth)
