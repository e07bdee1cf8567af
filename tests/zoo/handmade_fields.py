"""By hand: equations, steps of gradients, made layers, graphs, mixtures, tables."""

import jax
import jax.numpy as jnp

from zoo.nnx_models import of_nnx
from zoo.truths import (
    ANY,
    Model,
    bias,
    convolution,
    dense,
    either,
    embedding,
    floats,
    integers,
    kernel,
    model,
    norm,
    one_of,
    scale,
    unknown,
)

B, N, F, O = 4, 7, 13, 3  # noqa: E741


def pair(a, b):
    return {"w": floats(a, b), "b": floats(b)}


def affine(p, x):
    return x @ p["w"] + p["b"]


def told(path, a, b, **rest):
    return dense(path, a, b, "w", "b", **rest)


@model
def transported_waves() -> Model:
    """Raissi et al. 2019 (PINN): a transport equation along its direction, by one jvp.

    The loss has what the equation leaves, and what is known.
    """

    def apply(p, points, known_points, known):
        def net(z):
            h = jnp.sin(affine(p["first"], z))  # jax versions differ in tanh's slope
            return affine(p["last"], jnp.tanh(affine(p["second"], h)))

        along = jnp.broadcast_to(jnp.array([0.5, 1.0]), points.shape)
        _, slope = jax.jvp(net, (points,), (along,))
        left = net(known_points)[:, 0] - known
        return jnp.mean(slope**2) + jnp.mean(left**2)

    params = {"first": pair(2, F), "second": pair(F, 9), "last": pair(9, 1)}
    # Debatable: what follows, where values and slopes go different ways.
    free = {"function": ANY, "part": ANY, "multiplier": ANY, "residual": ANY}
    free["head"] = ANY
    truth = {
        # Values, a direction that is constant, and values at what is known.
        "first/w": [kernel(2, F, **free), unknown(), kernel(2, F, **free)],
        "first/b": [bias("first/w", part=ANY)] * 2,
        "second/w": [kernel(F, 9, **free)] * 3,
        "second/b": [bias("second/w", part=ANY)] * 2,
        # The values at the points are read by nobody.
        "last/w": [kernel(9, 1, **free)] * 2,
        "last/b": bias("last/w", (), part=ANY),
    }
    inputs = (floats(9, 2), floats(5, 2), floats(5))
    return Model(apply, params, inputs, truth)


@model
def heads_that_adapt() -> Model:
    """Raghu et al. 2020 (ANIL): one step on the head alone, its gradient by hand.

    The step's size is a leaf; the trunk sees the shots and what is asked.
    """

    def apply(p, shots, targets, asked):
        def trunk(x):
            x = jax.nn.relu(affine(p["fc1"], x))
            return jax.nn.relu(affine(p["fc2"], x))

        h = trunk(shots)
        err = affine(p["head"], h) - targets
        rate = jax.nn.softplus(p["log_rate"])
        w = p["head"]["w"] - rate * (h.T @ err) / shots.shape[0]
        b = p["head"]["b"] - rate * err.mean(axis=0)
        return trunk(asked) @ w + b

    params = {"fc1": pair(N, F), "fc2": pair(F, 9), "head": pair(9, O)}
    params["log_rate"] = floats()
    # Debatable: what is contracted with errors, or with what is made of them.
    free = {"function": ANY, "head": ANY, "residual": ANY, "multiplier": ANY}
    truth = {
        "fc1/w": [kernel(N, F, function="relu")] * 2,
        "fc1/b": [bias("fc1/w")] * 2,
        "fc2/w": [kernel(F, 9, function="relu")] * 2,
        "fc2/b": [bias("fc2/w")] * 2,
        # A step is added to it before it is used again.
        "head/w": [kernel(9, O, **free), unknown()],
        "head/b": [bias("head/w"), either("bias", "unknown")],
        "log_rate": unknown(),
    }
    inputs = (floats(5, N), floats(5, O), floats(B, N))
    return Model(apply, params, inputs, truth)


@model
def layers_from_contexts() -> Model:
    """A hypernetwork that sees a context: each example has a layer of its own."""
    i, o, c = 6, 8, 5

    def apply(p, x, context):
        h = jax.nn.silu(affine(p["read"], context))
        w = affine(p["make_w"], h).reshape(-1, i, o)
        x = jnp.tanh(affine(p["enc"], x))
        y = jax.nn.relu(jnp.einsum("bi,bio->bo", x, w) + h @ p["make_b"])
        return affine(p["out"], y)

    params = {"read": pair(c, F), "make_w": pair(F, i * o), "make_b": floats(F, o)}
    params |= {"enc": pair(N, i), "out": pair(o, O)}
    # Debatable: what it makes is contracted with activations.
    made = {"part": ANY, "residual": ANY, "function": ANY, "head": ANY}
    truth = {
        **told("read", c, F, function="silu"),
        "make_w/w": kernel(F, i * o, **made),
        "make_w/b": bias("make_w/w", part=ANY),
        # Debatable: it is added to a product of what others made.
        "make_b": kernel(F, o, function="relu", part=ANY, residual=ANY),
        **told("enc", N, i, function="tanh", part=ANY),
        **told("out", o, O, head=True),
    }
    return Model(apply, params, (floats(B, N), floats(B, c)), truth)


@model
def cited_papers() -> Model:
    """Kipf and Welling 2017 as homework: a dense normed adjacency, dropout by masks."""
    nodes, hidden = 9, 12

    def apply(p, adjacency, x, keep):
        a = adjacency + jnp.eye(nodes)
        degree = a.sum(axis=1)
        a = a / jnp.sqrt(degree[:, None] * degree[None, :])
        h = jax.nn.relu(a @ (x @ p["W0"]) + p["b0"])
        h = h * keep / 0.5
        h2 = jnp.dot(a, jnp.dot(h, p["W1"])) + p["b1"]
        h2 = jax.nn.elu(h2 + h @ p["skip"])
        return jax.nn.log_softmax(h2 @ p["out"], axis=-1)

    params = {
        "W0": floats(N, hidden), "b0": floats(hidden), "W1": floats(hidden, 8),
        "b1": floats(8), "skip": floats(hidden, 8), "out": floats(8, O),
    }  # fmt: skip
    # Debatable: functions behind sums over neighbours; which of two sums is a stream.
    truth = {
        "W0": kernel(N, hidden, function=one_of("relu", "identity")),
        "b0": bias(ANY),
        "W1": kernel(hidden, 8, function=one_of("elu", "identity"), residual=ANY),
        "b1": bias(ANY),
        "skip": kernel(hidden, 8, function=one_of("elu", "identity"), residual=ANY),
        "out": kernel(8, O, head=True),
    }
    inputs = (floats(nodes, nodes), floats(nodes, N), floats(nodes, hidden))
    return Model(apply, params, inputs, truth)


@model
def attention_along_edges() -> Model:
    """Velickovic et al. 2018 by lists of edges: scores are sums of products of leaves.

    A softmax by segments; kinds of edges are rows; graphs are pooled by segments.
    """
    heads, size, nodes, edges, graphs = 2, 5, 9, 14, 3
    inner = heads * size

    def segment_softmax(s, to):
        top = jax.ops.segment_max(s, to, nodes)
        e = jnp.exp(s - top[to])
        return e / (jax.ops.segment_sum(e, to, nodes)[to] + 1e-9)

    def layer(p, x, src, to, kinds):
        h = (x @ p["W"]).reshape(nodes, heads, size)
        left = (h * p["a_src"]).sum(-1)
        right = (h * p["a_dst"]).sum(-1)
        s = left[src] + right[to] + p["edge"][kinds]
        a = segment_softmax(jax.nn.leaky_relu(s, 0.2), to)
        y = jax.ops.segment_sum(a[..., None] * h[src], to, nodes)
        return y.reshape(nodes, inner) + p["b"]

    def apply(p, atoms, src, to, kinds, graph):
        x = p["atoms"][atoms]
        for q in p["layers"]:
            y = jax.nn.elu(layer(q, x, src, to, kinds))
            m = y.mean(-1, keepdims=True)
            y = (y - m) / jnp.sqrt(((y - m) ** 2).mean(-1, keepdims=True) + 1e-5)
            x = y * q["ln"]["scale"] + q["ln"]["bias"]
        total = jax.ops.segment_sum(x, graph, graphs)
        count = jax.ops.segment_sum(jnp.ones(nodes), graph, graphs)
        x = total / jnp.maximum(count, 1.0)[:, None]
        return affine(p["out"], jax.nn.relu(affine(p["mid"], x)))

    def shapes(inputs):
        return {
            "W": floats(inputs, inner), "a_src": floats(heads, size),
            "a_dst": floats(heads, size), "edge": floats(4, heads), "b": floats(inner),
            "ln": {"scale": floats(inner), "bias": floats(inner)},
        }  # fmt: skip

    params = {"atoms": floats(11, 6), "layers": [shapes(6), shapes(inner)]}
    params |= {"mid": pair(inner, F), "out": pair(F, 1)}
    truth = {
        "atoms": embedding(6),
        **told("mid", inner, F, function="relu"),
        **told("out", F, 1, head=True),
    }
    for i, inputs in enumerate((6, inner)):
        path = f"layers/{i}"
        truth |= {
            # Debatable: query, key and value at once; its sum over neighbours is read
            # by a function.
            f"{path}/W": kernel(inputs, inner, part=ANY, function=ANY),
            # Contractions that are written as products and sums.
            f"{path}/a_src": unknown(),
            f"{path}/a_dst": unknown(),
            f"{path}/edge": embedding(heads, part=ANY, function=ANY),
            # Debatable: added to a weighted sum of the values.
            f"{path}/b": bias(ANY, part=ANY),
            **norm(f"{path}/ln"),
        }
    inputs = (integers(nodes), *[integers(edges)] * 3, integers(nodes))
    return Model(apply, params, inputs, truth)


@model
def mixtures_of_strokes() -> Model:
    """Graves 2013, NNX: a mixture of pairs that go together, and the strokes' ends."""
    from flax import nnx

    mixtures = 4

    class Net(nnx.Module):
        def __init__(self, rngs):
            self.fc = nnx.Linear(N, F, rngs=rngs)
            self.norm = nnx.RMSNorm(F, rngs=rngs)
            self.pi = nnx.Linear(F, mixtures, rngs=rngs)
            self.mu = nnx.Linear(F, 2 * mixtures, rngs=rngs)
            self.log_sigma = nnx.Linear(F, 2 * mixtures, use_bias=False, rngs=rngs)
            self.rho = nnx.Linear(F, mixtures, rngs=rngs)
            self.end = nnx.Linear(F, 1, rngs=rngs)

        def __call__(self, x, at, ended):
            h = nnx.leaky_relu(self.norm(self.fc(x)))
            log_pi = nnx.log_softmax(self.pi(h))
            mu = self.mu(h).reshape(-1, mixtures, 2)
            sigma = jnp.exp(self.log_sigma(h)).reshape(-1, mixtures, 2)
            rho = 0.95 * jnp.tanh(self.rho(h))
            z = (at[:, None] - mu) / sigma
            both = (z**2).sum(-1) - 2 * rho * z[..., 0] * z[..., 1]
            free = 1 - rho**2
            log = -both / (2 * free) - jnp.log(sigma).sum(-1) - 0.5 * jnp.log(free)
            end = nnx.sigmoid(self.end(h))[:, 0]
            stroke = ended * jnp.log(end + 1e-6) + (1 - ended) * jnp.log1p(1e-6 - end)
            return -nnx.logsumexp(log_pi + log, axis=-1).mean() - stroke.mean()

    # Debatable: numbers of a density, which meet each other.
    free = {"function": ANY, "multiplier": ANY, "part": ANY}
    offset = {"multiplier": ANY, "part": ANY}
    truth = {
        **dense("fc", N, F),
        "norm/scale": scale(),
        **dense("pi", F, mixtures, head=True),
        "mu/kernel": kernel(F, 2 * mixtures, head=True, **free),
        "mu/bias": bias("mu/kernel", **offset),
        "log_sigma/kernel": kernel(F, 2 * mixtures, head=True, **free),
        "rho/kernel": kernel(F, mixtures, head=True, **free),
        "rho/bias": bias("rho/kernel", **offset),
        # What is computed is a logarithm; before the first run this said "sigmoid".
        "end/kernel": kernel(F, 1, head=True, **free | {"function": "log_sigmoid"}),
        "end/bias": bias("end/kernel", (), **offset),
    }
    return of_nnx(Net, [floats(B, N), floats(B, 2), floats(B)], truth)


@model
def grids_of_molecules() -> Model:
    """A 1D net that reshapes a table's features into a signal; flattened, two pools."""
    channels, length, wide, classes = 6, 4, 24, 5

    def conv(x, w):
        return jax.lax.conv_general_dilated(
            x, w, (1,), "SAME", dimension_numbers=("NCH", "OIH", "NCH")
        )

    def apply(p, x):
        x = jax.nn.celu(x @ p["expand"]["w"] + p["expand"]["b"], 0.06)
        x = x.reshape(-1, channels, length)
        x = jax.nn.relu(conv(x, p["c1"]["w"]) + p["c1"]["b"][:, None])
        skip = x
        x = jax.nn.relu(conv(x, p["c2"]["w"]) + p["c2"]["b"][:, None])
        x = x * skip
        x = jnp.concatenate([x.max(-1), x.mean(-1), x.reshape(x.shape[0], -1)], axis=1)
        return x @ p["head"]["w"] + p["head"]["b"]

    flat = 2 * 8 + 8 * length
    params = {
        "expand": {"w": floats(11, wide), "b": floats(wide)},
        "c1": {"w": floats(8, channels, 3), "b": floats(8)},
        "c2": {"w": floats(8, 8, 5), "b": floats(8)},
        "head": {"w": floats(flat, classes), "b": floats(classes)},
    }
    line = {"spatial_axis": 2, "in_axis": 1, "out_axis": 0, "function": "relu"}
    truth = {
        "expand/w": kernel(11, wide, function=ANY),
        "expand/b": bias("expand/w"),
        # Debatable: what multiplies what was made of it.
        "c1/w": convolution(18, 24, **line, part=ANY),
        "c1/b": bias("c1/w", part=ANY),
        "c2/w": convolution(40, 40, **line, part=ANY),
        "c2/b": bias("c2/w", part=ANY),
        **dense("head", flat, classes, weight="w", offset="b", head=True),
    }
    return Model(apply, params, (floats(3, 11),), truth)
