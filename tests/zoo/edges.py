"""Plain functions: networks of nodes, edges, points and sets."""

import jax
import jax.numpy as jnp

from zoo.layers import affine, linear, scales
from zoo.truths import (
    ANY,
    Model,
    bias,
    dense,
    embedding,
    floats,
    integers,
    kernel,
    model,
    norm,
    scale,
    unknown,
)
from zoo.truths import layer_norm as ln

B, FIELDS, K, H, O, ROWS = 4, 3, 5, 9, 6, 21  # noqa: E741
NODES, EDGES = 7, 11


def to_nodes(x, at):
    return jax.ops.segment_sum(x, at, NODES)


@model
def relations_by_bases() -> Model:
    """Schlichtkrull et al. 2018 (R-GCN): each relation's kernel is a sum of bases."""
    relations, bases = 4, 2

    def layer(q, x, s, r, kind):
        w = jnp.einsum("rb,bio->rio", q["mix"], q["basis"])
        m = jnp.einsum("ei,eio->eo", x[s], w[kind])
        return to_nodes(m, r) + x @ q["self"] + q["b"]

    def apply(p, x, s, r, kind):
        x = jax.nn.relu(layer(p["one"], p["nodes"][x], s, r, kind))
        return layer(p["two"], x, s, r, kind)

    def shapes(i, o):
        return {"mix": floats(relations, bases), "basis": floats(bases, i, o),
                "self": floats(i, o), "b": floats(o)}  # fmt: skip

    params = {"nodes": floats(ROWS, K), "one": shapes(K, H), "two": shapes(H, O)}
    truth = {"nodes": embedding(K)}
    for name, i, o in (("one", K, H), ("two", H, O)):
        last = name == "two"
        truth |= {
            f"{name}/mix": unknown(),
            f"{name}/basis": unknown(),
            f"{name}/self": kernel(
                i, o, function="identity" if last else "relu", head=last
            ),
            f"{name}/b": bias(f"{name}/self"),
        }
    inputs = (integers(NODES), integers(EDGES), integers(EDGES), integers(EDGES))
    return Model(apply, params, inputs, truth)


@model
def gated_edges() -> Model:
    """Bresson & Laurent 2017 (GatedGCN): edges carry features that gate messages."""

    def apply(p, x, e, s, r):
        x, e = linear(p["x"], x), linear(p["e"], e)
        for q in p["layers"]:
            z = x[s] @ q["A"] + x[r] @ q["B"] + e @ q["C"]
            g = jax.nn.sigmoid(z)
            m = to_nodes(g * (x[s] @ q["V"]), r) / (to_nodes(g, r) + 1e-6)
            x = x + jax.nn.relu(ln(x @ q["U"] + m, q["nx"]))
            e = e + jax.nn.relu(ln(z, q["ne"]))
        return linear(p["out"], x.mean(0))

    q = {n: floats(H, H) for n in "ABCUV"} | {
        "nx": scales(H),
        "ne": scales(H),
    }
    params = {
        "x": affine(5, H),
        "e": affine(3, H),
        "layers": [q] * 2,
        "out": affine(H, O),
    }
    truth = {**dense("x", 5, H), **dense("e", 3, H), **dense("out", H, O, head=True)}
    for i in range(2):
        last = i == 1
        # Debatable: a gate, and what is written to the edges; both streams' numbers.
        z = {"function": ANY if not last else "sigmoid", "part": ANY, "residual": ANY}
        truth |= {f"layers/{i}/{n}": kernel(H, H, **z) for n in "ABC"}
        truth |= {
            f"layers/{i}/U": kernel(H, H, residual=ANY, function=ANY),
            f"layers/{i}/V": kernel(H, H, part="up", residual=ANY),
            f"layers/{i}/nx/scale": scale(),
            f"layers/{i}/nx/bias": bias(None),
            f"layers/{i}/ne/scale": [] if last else scale(),
            f"layers/{i}/ne/bias": [] if last else bias(None),
        }
    inputs = (floats(NODES, 5), floats(EDGES, 3), integers(EDGES), integers(EDGES))
    return Model(apply, params, inputs, truth)


@model
def biased_by_distance() -> Model:
    """Ying et al. 2021 (Graphormer): degrees are embedded, distances bias scores."""
    heads, size = 3, 4
    inner = heads * size

    def apply(p, x, degree, distance):
        x = linear(p["x"], x) + p["degree"][degree]
        h = ln(x, p["n1"])
        q, k, v = (linear(p[n], h).reshape(B, NODES, heads, size) for n in "qkv")
        s = jnp.einsum("bqhd,bkhd->bhqk", q, k) / size**0.5
        s = s + jnp.moveaxis(p["distance"][distance], -1, 1)
        y = jnp.einsum("bhqk,bkhd->bqhd", jax.nn.softmax(s, -1), v)
        x = x + linear(p["o"], y.reshape(B, NODES, inner))
        x = x + linear(p["down"], jax.nn.gelu(linear(p["up"], ln(x, p["n2"]))))
        return linear(p["out"], x[:, 0])

    params = {
        "x": affine(5, H),
        "degree": floats(8, H),
        "n1": scales(H),
        "distance": floats(6, heads),
        "o": affine(inner, H),
        "n2": scales(H),
        "up": affine(H, 14),
        "down": affine(14, H),
        "out": affine(H, 1),
    } | {n: affine(H, inner) for n in "qkv"}
    truth = {
        **dense("x", 5, H),
        # Inputs say degree and distance: both are looked up.
        "degree": embedding(H),
        "distance": embedding(heads, part=ANY),
        **norm("n1"),
        **dense("q", H, inner, part="query"),
        **dense("k", H, inner, part="key"),
        **dense("v", H, inner, part="value"),
        **dense("o", inner, H, part="attention output", residual=(0, 2)),
        **norm("n2"),
        **dense("up", H, 14, function="gelu"),
        **dense("down", 14, H, residual=(1, 2)),
        **dense("out", H, 1, head=True),
    }
    inputs = (floats(B, NODES, 5), integers(B, NODES), integers(B, NODES, NODES))
    return Model(apply, params, inputs, truth)


@model
def polynomials_of_a_graph() -> Model:
    """Defferrard et al. 2016 (ChebNet), and jumping knowledge of Xu et al. 2018."""
    order = 3

    def chebyshev(w, b, x, lap):
        t = [x, lap @ x]
        while len(t) < order:
            t.append(2 * lap @ t[-1] - t[-2])
        return jnp.einsum("kni,kio->no", jnp.stack(t), w) + b

    def apply(p, x, lap):
        kept = []
        for w, b in p["layers"]:
            x = jax.nn.elu(chebyshev(w, b, x, lap))
            kept.append(x)
        return linear(p["out"], jnp.concatenate(kept, -1))

    layers = [[floats(order, 5, H), floats(H)], [floats(order, H, H), floats(H)]]
    params = {"layers": layers, "out": affine(2 * H, O)}
    truth = dense("out", 2 * H, O, head=True)
    for i, fan_in in enumerate((5, H)):
        truth[f"layers/{i}/0"] = kernel(order * fan_in, H, (0, 1), 2, "elu")
        truth[f"layers/{i}/1"] = bias(f"layers/{i}/0")
    return Model(apply, params, (floats(NODES, 5), floats(NODES, NODES)), truth)


@model
def points_and_neighbours() -> Model:
    """Wang et al. 2019 (DGCNN): the nearest points by features, edges, a maximum."""
    near = 3

    def edge(q, x):
        d = jnp.sum((x[:, :, None] - x[:, None]) ** 2, -1)
        _, at = jax.lax.top_k(-d, near)
        nbr = jax.vmap(lambda x, at: x[at])(x, at)
        mid = jnp.broadcast_to(x[:, :, None], nbr.shape)
        y = jnp.concatenate([mid, nbr - mid], axis=-1) @ q["w"]
        return jax.nn.leaky_relu(y * q["g"] + q["b"], 0.2).max(2)

    def apply(p, x):
        a = edge(p["one"], x)
        b = edge(p["two"], a)
        y = jax.nn.leaky_relu(jnp.concatenate([a, b], -1) @ p["mix"], 0.2).max(1)
        return linear(p["out"], y)

    def shapes(i, o):
        return {"w": floats(2 * i, o), "g": floats(o), "b": floats(o)}

    params = {"one": shapes(3, H), "two": shapes(H, 8), "mix": floats(H + 8, 12)}
    params["out"] = affine(12, O)
    truth = {
        "mix": kernel(H + 8, 12, function="leaky_relu"),
        **dense("out", 12, O, head=True),
    }
    for name, i, o in (("one", 3, H), ("two", H, 8)):
        # Debatable: the factor lies between the kernel and its function.
        truth |= {
            f"{name}/w": kernel(2 * i, o, function=ANY, multiplier=ANY),
            f"{name}/g": scale(),
            f"{name}/b": bias(ANY),
        }
    return Model(apply, params, (floats(B, NODES, 3),), truth)


@model
def objects_that_interact() -> Model:
    """Battaglia et al. 2016: a network for pairs, one for objects, many steps."""

    def mlp(p, x):
        return linear(p[1], jax.nn.softplus(linear(p[0], x)))

    def apply(p, x, s, r):
        def step(x, _):
            e = mlp(p["pairs"], jnp.concatenate([x[s], x[r]], -1))
            total = jnp.zeros((NODES, H)).at[r].add(e)
            return x + mlp(p["objects"], jnp.concatenate([x, total], -1)), x

        return jax.lax.scan(step, x, None, length=4)[1]

    params = {
        "pairs": [affine(2 * K, 12), affine(12, H)],
        "objects": [affine(K + H, 12), affine(12, K)],
    }
    # Debatable: a loop over time, or residual layers that are alike; sections of rows.
    loop = {"recurrent": ANY}
    truth = {
        **dense("pairs/0", 2 * K, 12, function="softplus", **loop),
        **dense("pairs/1", 12, H, **loop),
        **dense("objects/0", K + H, 12, function="softplus", sections=ANY, **loop),
        **dense("objects/1", 12, K, residual=ANY, head=ANY, **loop),
    }
    inputs = (floats(NODES, K), integers(EDGES), integers(EDGES))
    return Model(apply, params, inputs, truth)


@model
def read_by_a_process() -> Model:
    """Vinyals et al. 2016 (Set2Set): an LSTM asks a set, and hears what it gathers."""

    def apply(p, x):
        m = jax.nn.relu(linear(p["embed"], x))

        def step(carry, _):
            (c, h), r = carry
            z = jnp.concatenate([h, r], -1) @ p["w"] + p["b"]
            i, f, g, o = jnp.split(z, 4, -1)
            c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
            h = jax.nn.sigmoid(o) * jnp.tanh(c)
            a = jax.nn.softmax(jnp.einsum("bnd,bd->bn", m, h))
            return ((c, h), jnp.einsum("bn,bnd->bd", a, m)), None

        z = jnp.zeros((B, H))
        ((_, h), r), _ = jax.lax.scan(step, ((z, z), z), None, length=3)
        return linear(p["out"], jnp.concatenate([h, r], -1))

    params = {"embed": affine(5, H), "w": floats(2 * H, 4 * H), "b": floats(4 * H)}
    params["out"] = affine(2 * H, O)
    truth = {
        # Debatable: key and value at once.
        **dense("embed", 5, H, function="relu", part=ANY),
        # Debatable: its gates make a query; half of its inputs are a weighted sum.
        "w": kernel(2 * H, 4 * H, function=ANY, recurrent=True, part=ANY, sections=ANY),
        "b": bias("w", part=ANY, sections=ANY),
        "out/kernel": kernel(2 * H, O, head=True, part=ANY, sections=ANY),
        "out/bias": bias("out/kernel", part=ANY),
    }
    return Model(apply, params, (floats(B, NODES, 5),), truth)
