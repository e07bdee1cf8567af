"""Plain functions: messages on graphs and pairs, by lists of edges or matrices."""

import jax
import jax.numpy as jnp

from zoo.layers import affine, linear
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
    scale,
)
from zoo.truths import layer_norm as normed

NODES, EDGES, WIDTH, HIDDEN, OUTPUTS = 7, 11, 8, 12, 3


def gathered(values, at):
    return jax.ops.segment_sum(values, at, num_segments=NODES)


def vector(width=WIDTH):
    return {"scale": floats(width), "bias": floats(width)}


@model
def graph_isomorphism() -> Model:
    """Xu et al. 2019 (GIN): 1 + eps of the node itself; every layer is read out."""
    layers = 2

    def apply(p, x, senders, receivers):
        read = linear(p["read"][0], x.sum(0))
        for i, layer in enumerate(p["layers"]):
            x = (1 + layer["eps"]) * x + gathered(x[senders], receivers)
            x = jax.nn.relu(linear(layer["first"], x))
            x = jax.nn.relu(linear(layer["second"], x))
            read = read + linear(p["read"][i + 1], x.sum(0))
        return read

    layer = {
        "eps": floats(),
        "first": affine(WIDTH, WIDTH),
        "second": affine(WIDTH, WIDTH),
    }
    params = {
        "layers": [layer] * layers,
        "read": [affine(WIDTH, OUTPUTS)] * (layers + 1),
    }
    own = {
        "eps": scale((), offset=1.0),
        **dense("first", WIDTH, WIDTH, function="relu"),
        **dense("second", WIDTH, WIDTH, function="relu"),
    }
    # Sums of outputs, which no kernel reads, are no stream.
    truth = every("layers/{}/", layers, own)
    for i in range(layers + 1):
        truth |= dense(f"read/{i}", WIDTH, OUTPUTS, head=True)
    inputs = (floats(NODES, WIDTH), integers(EDGES), integers(EDGES))
    return Model(apply, params, inputs, truth)


@model
def message_passing() -> Model:
    """Gilmer et al. 2017 (MPNN): an edge makes its kernel; a GRU cell, counted loop."""
    features = 5

    def cell(p, h, m):
        r, z = (
            jax.nn.sigmoid(m @ p[f"i{g}"] + h @ p[f"h{g}"] + p[f"b{g}"]) for g in "rz"
        )
        n = jnp.tanh(m @ p["in"] + r * (h @ p["hn"] + p["bn"]))
        return (1 - z) * n + z * h

    def apply(p, x, edges, senders, receivers):
        h = jnp.tanh(linear(p["embed"], x))
        a = jax.nn.relu(linear(p["edge"][0], edges))
        a = linear(p["edge"][1], a).reshape(-1, WIDTH, WIDTH)

        def step(_, h):
            m = jnp.einsum("eij,ej->ei", a, h[senders])
            return cell(p["gru"], h, gathered(m, receivers))

        h = jax.lax.fori_loop(0, 3, step, h)
        gate = jax.nn.sigmoid(linear(p["gate"], h))
        return jnp.sum(gate * linear(p["value"], h), axis=0)

    params = {
        "embed": affine(4, WIDTH),
        "edge": [affine(features, HIDDEN), affine(HIDDEN, WIDTH * WIDTH)],
        "gru": {
            **{f"{s}{g}": floats(WIDTH, WIDTH) for s in "ih" for g in "rzn"},
            **{f"b{g}": floats(WIDTH) for g in "rzn"},
        },
        "gate": affine(WIDTH, OUTPUTS),
        "value": affine(WIDTH, OUTPUTS),
    }
    truth = {
        **dense("embed", 4, WIDTH, function="tanh"),
        **dense("edge/0", features, HIDDEN, function="relu"),
        **dense("edge/1", HIDDEN, WIDTH * WIDTH),
        **dense("gate", WIDTH, OUTPUTS, function="sigmoid", part="gate", head=True),
        **dense("value", WIDTH, OUTPUTS, part="up", head=True),
    }
    parts = {"r": "reset gate", "z": "update gate", "n": "candidate"}
    for g, part in parts.items():
        function = "tanh" if g == "n" else "sigmoid"
        # Debatable: messages are made of the state, so their kernels see it too.
        truth[f"gru/i{g}"] = kernel(
            WIDTH, WIDTH, part=part, function=function, recurrent=ANY
        )
        truth[f"gru/h{g}"] = kernel(
            WIDTH,
            WIDTH,
            part=part,
            function="identity" if g == "n" else "sigmoid",
            recurrent=True,
        )
        of = ["gru/hn"] if g == "n" else [f"gru/i{g}", f"gru/h{g}"]
        truth[f"gru/b{g}"] = bias(of, part=part)
    inputs = (floats(NODES, 4), floats(EDGES, features), integers(EDGES))
    return Model(apply, params, (*inputs, integers(EDGES)), truth)


@model
def continuous_filters() -> Model:
    """Schutt et al. 2017 (SchNet): filters of distances multiply neighbours."""
    layers, centers = 2, 6

    def shifted_softplus(x):
        return jax.nn.softplus(x) - jnp.log(2.0)

    def apply(p, species, places, senders, receivers):
        x = p["species"][species]
        apart = places[senders] - places[receivers]
        distance = jnp.sqrt(jnp.sum(apart**2, -1, keepdims=True) + 1e-9)
        basis = jnp.exp(-10.0 * (distance - jnp.linspace(0, 3, centers)) ** 2)
        for layer in p["interactions"]:
            w = shifted_softplus(linear(layer["filter1"], basis))
            w = shifted_softplus(linear(layer["filter2"], w))
            y = gathered((x @ layer["in2f"])[senders] * w, receivers)
            y = shifted_softplus(linear(layer["f2out"], y))
            x = x + linear(layer["dense"], y)
        y = shifted_softplus(linear(p["atomwise1"], x))
        return linear(p["atomwise2"], y).sum()

    layer = {
        "filter1": affine(centers, HIDDEN),
        "filter2": affine(HIDDEN, HIDDEN),
        "in2f": floats(WIDTH, HIDDEN),
        "f2out": affine(HIDDEN, WIDTH),
        "dense": affine(WIDTH, WIDTH),
    }
    params = {
        "species": floats(9, WIDTH),
        "interactions": [layer] * layers,
        "atomwise1": affine(WIDTH, 4),
        "atomwise2": affine(4, 1),
    }
    # Debatable: a softplus less a constant has the name, or another.
    plus = ANY
    own = {
        **dense("filter1", centers, HIDDEN, function=plus),
        # By the letter its product makes it a gate.
        **dense("filter2", HIDDEN, HIDDEN, function=plus, part="gate"),
        "in2f": kernel(WIDTH, HIDDEN, part="up"),
        **dense("f2out", HIDDEN, WIDTH, function=plus),
        **dense("dense", WIDTH, WIDTH, residual=(0, layers)),
    }
    truth = {
        "species": embedding(WIDTH),
        **every("interactions/{}/", layers, own),
        **dense("atomwise1", WIDTH, 4, function=plus),
        **dense("atomwise2", 4, 1, head=True),
    }
    inputs = (integers(NODES), floats(NODES, 3), integers(EDGES), integers(EDGES))
    return Model(apply, params, inputs, truth)


@model
def equivariant_graph() -> Model:
    """Satorras et al. 2021 (EGNN): messages move places; the node's own are kept."""

    def apply(p, h, x, senders, receivers):
        h = linear(p["embedding"], h)
        for layer in p["layers"]:
            apart = x[receivers] - x[senders]
            radial = jnp.sum(apart**2, axis=1, keepdims=True)
            m = jnp.concatenate([h[receivers], h[senders], radial], axis=1)
            m = jax.nn.silu(linear(layer["edge1"], m))
            m = jax.nn.silu(linear(layer["edge2"], m))
            m = m * jax.nn.sigmoid(linear(layer["attention"], m))
            move = jax.nn.silu(linear(layer["coord1"], m)) @ layer["coord2"]
            x = x + gathered(apart * move, receivers) / (NODES - 1)
            both = jnp.concatenate([h, gathered(m, receivers)], axis=1)
            h = h + linear(layer["node2"], jax.nn.silu(linear(layer["node1"], both)))
        return linear(p["out"], h), x

    layer = {
        "edge1": affine(2 * WIDTH + 1, HIDDEN),
        "edge2": affine(HIDDEN, HIDDEN),
        "attention": affine(HIDDEN, 1),
        "coord1": affine(HIDDEN, HIDDEN),
        "coord2": floats(HIDDEN, 1),
        "node1": affine(WIDTH + HIDDEN, HIDDEN),
        "node2": affine(HIDDEN, WIDTH),
    }
    params = {
        "embedding": affine(4, WIDTH),
        "layers": [layer] * 2,
        "out": affine(WIDTH, OUTPUTS),
    }
    # Debatable: whether the places are a stream too, which the moves write to.
    own = {
        **dense("edge1", 2 * WIDTH + 1, HIDDEN, function="silu"),
        # Debatable: the other factor of its own gate, but not linear.
        **dense("edge2", HIDDEN, HIDDEN, function="silu", part=ANY),
        **dense("attention", HIDDEN, 1, function="sigmoid", part="gate"),
        **dense("coord1", HIDDEN, HIDDEN, function="silu"),
        "coord2": kernel(HIDDEN, 1, residual=ANY, head=ANY, part=ANY, multiplier=ANY),
        **dense("node1", WIDTH + HIDDEN, HIDDEN, function="silu"),
        **dense("node2", HIDDEN, WIDTH, residual=(0, 2)),
    }
    truth = {
        **dense("embedding", 4, WIDTH),
        **every("layers/{}/", 2, own),
        **dense("out", WIDTH, OUTPUTS, head=True),
    }
    inputs = (floats(NODES, 4), floats(NODES, 3), integers(EDGES), integers(EDGES))
    return Model(apply, params, inputs, truth)


@model
def sampled_neighbours() -> Model:
    """Hamilton et al. 2017 (GraphSAGE), then Brody et al. 2022 (GATv2), by matrices."""
    heads, size = 3, 4

    def sage(p, x, adjacency):
        near = (adjacency @ x) / jnp.maximum(adjacency.sum(1, keepdims=True), 1)
        h = jax.nn.relu(x @ p["self"] + near @ p["neighbours"] + p["bias"])
        return h / jnp.sqrt(jnp.sum(h * h, -1, keepdims=True) + 1e-6)

    def gat(p, x, adjacency):
        left = jnp.einsum("ni,hid->nhd", x, p["left"])
        right = jnp.einsum("ni,hid->nhd", x, p["right"])
        both = jax.nn.leaky_relu(left[:, None] + right[None], 0.2)
        scores = jnp.einsum("nmhd,hd->hnm", both, p["a"])
        scores = jnp.where(adjacency > 0, scores, -1e9)
        y = jnp.einsum("hnm,mhd->nhd", jax.nn.softmax(scores, -1), right)
        return jax.nn.elu(y.reshape(NODES, -1) + p["bias"])

    def apply(p, x, adjacency):
        x = gat(p["gat"], sage(p["sage"], x, adjacency), adjacency)
        return x @ p["out"]

    params = {
        "sage": {
            "self": floats(5, WIDTH),
            "neighbours": floats(5, WIDTH),
            "bias": floats(WIDTH),
        },
        "gat": {
            "left": floats(heads, WIDTH, size),
            "right": floats(heads, WIDTH, size),
            "a": floats(heads, size),
            "bias": floats(heads * size),
        },
        "out": floats(heads * size, OUTPUTS),
    }
    inner = heads * size
    truth = {
        "sage/self": kernel(5, WIDTH, function="relu"),
        "sage/neighbours": kernel(5, WIDTH, function="relu"),
        "sage/bias": bias(["sage/self", "sage/neighbours"]),
        # Debatable: query, key and value, but the scores are no product of them.
        "gat/left": kernel(WIDTH, inner, 1, (0, 2), function="leaky_relu", part=ANY),
        "gat/right": kernel(WIDTH, inner, 1, (0, 2), function=ANY, part=ANY),
        "gat/a": kernel(size, 1, 1, (), batch_axis=0),
        # Debatable: added to a weighted sum of the values.
        "gat/bias": bias(ANY, part=ANY),
        "out": kernel(inner, OUTPUTS, head=True, part=ANY),
    }
    return Model(apply, params, (floats(NODES, 5), floats(NODES, NODES)), truth)


@model
def pairs_of_residues() -> Model:
    """Jumper et al. 2021: a triangle's product, an attention with a pair's bias."""
    heads, size, pair = 2, 4, 6
    inner = heads * size

    def triangle(p, z):
        h = normed(z, p["norm"])
        left = jax.nn.sigmoid(linear(p["left_gate"], h)) * linear(p["left"], h)
        right = jax.nn.sigmoid(linear(p["right_gate"], h)) * linear(p["right"], h)
        y = linear(p["out"], normed(jnp.einsum("ikc,jkc->ijc", left, right), p["mid"]))
        return y * jax.nn.sigmoid(linear(p["gate"], h))

    def attention(p, m, z):
        h = normed(m, p["norm"])
        q = jnp.einsum("bqa,ahc->bqhc", h, p["query_w"]) * size**-0.5
        k = jnp.einsum("bka,ahc->bkhc", h, p["key_w"])
        v = jnp.einsum("bka,ahc->bkhc", h, p["value_w"])
        scores = jnp.einsum("bqhc,bkhc->bhqk", q, k)
        scores += jnp.einsum("qkc,ch->hqk", normed(z, p["pair_norm"]), p["pair_w"])
        y = jnp.einsum("bhqk,bkhc->bqhc", jax.nn.softmax(scores), v)
        gate = jax.nn.sigmoid(
            jnp.einsum("bqc,chv->bqhv", h, p["gating_w"]) + p["gating_b"]
        )
        return jnp.einsum("bqhc,hco->bqo", y * gate, p["output_w"]) + p["output_b"]

    def apply(p, msa, z):
        m, z = linear(p["msa"], msa), linear(p["pair"], z)
        z = z + triangle(p["triangle"], z)
        m = m + attention(p["row"], m, z)
        return linear(p["distogram"], z + z.swapaxes(0, 1)), linear(p["masked"], m)

    params = {
        "msa": affine(5, WIDTH),
        "pair": affine(3, pair),
        "triangle": {
            "norm": vector(pair),
            **{name: affine(pair, 4) for name in ("left", "right")},
            **{name: affine(pair, 4) for name in ("left_gate", "right_gate")},
            "mid": vector(4),
            "out": affine(4, pair),
            "gate": affine(pair, pair),
        },
        "row": {
            "norm": vector(),
            **{f"{n}_w": floats(WIDTH, heads, size) for n in ("query", "key", "value")},
            "pair_norm": vector(pair),
            "pair_w": floats(pair, heads),
            "gating_w": floats(WIDTH, heads, size),
            "gating_b": floats(heads, size),
            "output_w": floats(heads, size, WIDTH),
            "output_b": floats(WIDTH),
        },
        "distogram": affine(pair, 9),
        "masked": affine(WIDTH, 7),
    }
    gates, axes = {"function": "sigmoid", "part": "gate"}, {"out_axis": (1, 2)}
    triangle_truth = {
        **norm("norm"),
        **dense("left", pair, 4, part="up"),
        **dense("right", pair, 4, part="up"),
        **dense("left_gate", pair, 4, **gates),
        **dense("right_gate", pair, 4, **gates),
        **norm("mid"),
        **dense("out", 4, pair, part="up", residual=ANY),
        # Debatable: a factor of what is written.
        **dense("gate", pair, pair, residual=ANY, **gates),
    }
    row = {
        **norm("norm"),
        "query_w": kernel(WIDTH, inner, part="query", multiplier=size**-0.5, **axes),
        "key_w": kernel(WIDTH, inner, part="key", **axes),
        "value_w": kernel(WIDTH, inner, part="value", **axes),
        **norm("pair_norm"),
        "pair_w": kernel(pair, heads),
        "gating_w": kernel(WIDTH, inner, **gates, **axes),
        "gating_b": bias("gating_w", (0, 1), part="gate"),
        "output_w": kernel(
            inner, WIDTH, (0, 1), 2, part="attention output", residual=(0, 1)
        ),
        "output_b": bias("output_w", part="attention output"),
    }
    truth = {
        **dense("msa", 5, WIDTH),
        **dense("pair", 3, pair),
        **below("triangle/", triangle_truth),
        **below("row/", row),
        **dense("distogram", pair, 9, head=True),
        **dense("masked", WIDTH, 7, head=True),
    }
    inputs = (floats(4, NODES, 5), floats(NODES, NODES, 3))
    return Model(apply, params, inputs, truth)
