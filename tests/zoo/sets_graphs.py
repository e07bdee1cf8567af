"""Fields of coordinates, sets and graphs, and a network that makes weights."""

import jax
import jax.numpy as jnp

from zoo.equinox_models import linear as eqx_linear
from zoo.equinox_models import of_equinox
from zoo.flax_layers import of_linen
from zoo.haiku_models import linear as hk_linear
from zoo.haiku_models import of_haiku
from zoo.language import affine_truth
from zoo.truths import (
    ANY,
    WRITES,
    Model,
    bias,
    dense,
    floats,
    integers,
    kernel,
    model,
    norm,
    scale,
    token,
    unknown,
)

BATCH, NODES, EDGES, WIDTH, HIDDEN, OUTPUTS = 2, 6, 11, 7, 13, 5


@model
def radiance_field() -> Model:
    """Mildenhall et al. 2020, Linen: sines of places, inputs again half way, views."""
    from flax import linen as nn

    def encoded(x, degrees):
        scales = jnp.array([2.0**i for i in range(degrees)])
        angles = (x[..., None, :] * scales[:, None]).reshape(*x.shape[:-1], -1)
        waves = jnp.sin(jnp.concatenate([angles, angles + 0.5 * jnp.pi], axis=-1))
        return jnp.concatenate([x, waves], axis=-1)

    class Net(nn.Module):
        @nn.compact
        def __call__(self, points, views):
            x = inputs = encoded(points, 4)
            for i in range(4):
                x = nn.relu(nn.Dense(HIDDEN)(x))
                if i == 2:
                    x = jnp.concatenate([x, inputs], axis=-1)
            density = nn.Dense(1, name="sigma")(x)
            x = nn.Dense(11, name="bottleneck")(x)
            views = jnp.broadcast_to(views[:, None], (*x.shape[:2], views.shape[-1]))
            x = jnp.concatenate([x, encoded(views, 2)], axis=-1)
            x = nn.relu(nn.Dense(9, name="view")(x))
            color = nn.sigmoid(nn.Dense(3, name="rgb")(x))
            return color, nn.relu(density)[..., 0]

    places, directions = 3 + 2 * 4 * 3, 3 + 2 * 2 * 3
    truth = {
        **dense("Dense_0", places, HIDDEN, function="relu"),
        **dense("Dense_1", HIDDEN, HIDDEN, function="relu"),
        **dense("Dense_2", HIDDEN, HIDDEN, function="relu"),
        **dense("Dense_3", HIDDEN + places, HIDDEN, function="relu"),
        "sigma/kernel": kernel(HIDDEN, 1, function="relu", head=True),
        "sigma/bias": bias("sigma/kernel", ()),
        **dense("bottleneck", HIDDEN, 11),
        **dense("view", 11 + directions, 9, function="relu"),
        **dense("rgb", 9, 3, function="sigmoid", head=True),
    }
    return of_linen(Net(), [floats(BATCH, 4, 3), floats(BATCH, 3)], truth)


@model
def deep_sets() -> Model:
    """Zaheer et al. 2017, Haiku: equivariant layers less their maxima, a masked sum."""
    import haiku as hk

    def equivariant(x, width, name):
        most = jnp.max(x, axis=1, keepdims=True)
        own = hk.Linear(width, name=f"{name}_gamma")(x)
        return own - hk.Linear(width, with_bias=False, name=f"{name}_lambda")(most)

    def fun(x, mask):
        x = jax.nn.elu(equivariant(x, HIDDEN, "phi_0"))
        x = jax.nn.elu(equivariant(x, 9, "phi_1"))
        x = jnp.sum(jnp.where(mask[..., None] > 0, x, 0.0), axis=1)
        x = jnp.tanh(hk.Linear(11, name="rho_0")(x))
        return hk.Linear(OUTPUTS, name="rho_1")(x)

    def layer(name, fan_in, fan_out):
        return {
            **hk_linear(f"{name}_gamma", fan_in, fan_out, function="elu"),
            # Debatable: it is subtracted, which is no product with a constant.
            f"{name}_lambda/w": kernel(fan_in, fan_out, function="elu", multiplier=ANY),
        }

    truth = {
        **layer("phi_0", WIDTH, HIDDEN),
        **layer("phi_1", HIDDEN, 9),
        **hk_linear("rho_0", 9, 11, function="tanh"),
        **hk_linear("rho_1", 11, OUTPUTS, head=True),
    }
    return of_haiku(fun, [floats(BATCH, 4, WIDTH), integers(BATCH, 4)], truth)


@model
def point_net() -> Model:
    """Qi et al. 2017, Equinox: one network for all points, the greatest of each.

    It is told its points' maxima again; the last layer is a log softmax.
    """
    import equinox as eqx

    class Net(eqx.Module):
        local: eqx.nn.MLP
        joint: eqx.nn.Linear
        norm: eqx.nn.LayerNorm
        out: eqx.nn.Linear

        def __init__(self, key):
            self.local = eqx.nn.MLP(3, WIDTH, HIDDEN, 1, key=key)
            self.joint = eqx.nn.Linear(2 * WIDTH, 9, key=key)
            self.norm = eqx.nn.LayerNorm(9)
            self.out = eqx.nn.Linear(9, OUTPUTS, key=key)

        def __call__(self, points):
            x = jax.vmap(self.local)(points)
            most = jnp.broadcast_to(x.max(0), x.shape)
            x = jax.vmap(self.joint)(jnp.concatenate([x, most], axis=1))
            x = jax.nn.relu(jax.vmap(self.norm)(x))
            return jax.nn.log_softmax(jax.vmap(self.out)(x))

    truth = {
        **eqx_linear("local/layers/0", 3, HIDDEN, function="relu"),
        **eqx_linear("local/layers/1", HIDDEN, WIDTH),
        **eqx_linear("joint", 2 * WIDTH, 9),
        **norm("norm", factor="weight"),
        **eqx_linear("out", 9, OUTPUTS, head=True),
    }
    return of_equinox(Net, [floats(BATCH, 4, 3)], truth)


@model
def graph_convolutions() -> Model:
    """GraphSAGE (means of neighbours), Kipf and Welling 2017, and GIN, by segments."""

    def pool(x, senders, receivers):
        return jax.ops.segment_sum(x[senders], receivers, num_segments=NODES)

    def linear(x, p):
        return x @ p["w"] + p["b"]

    def apply(p, x, senders, receivers):
        degree = pool(jnp.ones((NODES, 1)), senders, receivers) + 1
        near = pool(x, senders, receivers) / degree
        x = jax.nn.relu(
            x @ p["sage"]["own"] + near @ p["sage"]["near"] + p["sage"]["b"]
        )
        h = (x @ p["gcn"]["w"]) * jax.lax.rsqrt(degree)
        h = (h + pool(h, senders, receivers)) * jax.lax.rsqrt(degree)
        x = jax.nn.relu(h + p["gcn"]["b"])
        h = (1 + p["gin"]["eps"]) * x + pool(x, senders, receivers)
        x = linear(jax.nn.relu(linear(h, p["gin"]["0"])), p["gin"]["1"])
        return linear(jax.nn.relu(x).sum(0), p["readout"])

    def affine(fan_in, fan_out):
        return {"w": floats(fan_in, fan_out), "b": floats(fan_out)}

    params = {
        "sage": {
            "own": floats(WIDTH, HIDDEN),
            "near": floats(WIDTH, HIDDEN),
            "b": floats(HIDDEN),
        },
        "gcn": affine(HIDDEN, 9),
        "gin": {"eps": floats(), "0": affine(9, 12), "1": affine(12, 8)},
        "readout": affine(8, OUTPUTS),
    }
    truth = {
        "sage/own": kernel(WIDTH, HIDDEN, function="relu"),
        "sage/near": kernel(WIDTH, HIDDEN, function="relu"),
        "sage/b": bias(["sage/near", "sage/own"]),
        # Debatable: sums over neighbours and their weights come before the relu, and
        # the node itself is added to what its neighbours say.
        "gcn/w": kernel(HIDDEN, 9, function=ANY, residual=ANY),
        "gcn/b": bias(ANY),
        # Debatable: a factor of the node itself, beside its neighbours.
        "gin/eps": scale((), offset=1.0),
        **affine_truth("gin/0", 9, 12, function="relu"),
        **affine_truth("gin/1", 12, 8, function="relu"),
        **affine_truth("readout", 8, OUTPUTS, head=True),
    }
    inputs = (floats(NODES, WIDTH), integers(EDGES), integers(EDGES))
    return Model(apply, params, inputs, truth)


@model
def graph_attention() -> Model:
    """Velickovic et al. 2018: softmax over each node's edges, additive scores."""
    heads, size = 3, 4

    def apply(p, x, senders, receivers):
        h = jnp.einsum("nd,dhf->nhf", x, p["w"])
        left = jnp.einsum("nhf,hf->nh", h, p["source"])
        right = jnp.einsum("nhf,hf->nh", h, p["target"])
        scores = jax.nn.leaky_relu(left[senders] + right[receivers], 0.2)
        most = jax.ops.segment_max(scores, receivers, NODES)
        scores = jnp.exp(scores - most[receivers])
        total = jax.ops.segment_sum(scores, receivers, NODES)
        weights = scores / (total[receivers] + 1e-9)
        h = jax.ops.segment_sum(weights[..., None] * h[senders], receivers, NODES)
        h = jax.nn.elu(h + p["bias"]).reshape(NODES, heads * size)
        return h @ p["out"]

    params = {
        "w": floats(WIDTH, heads, size),
        "source": floats(heads, size),
        "target": floats(heads, size),
        "bias": floats(heads, size),
        "out": floats(heads * size, OUTPUTS),
    }
    # One kernel for each head; what part they play in additive scores is open.
    half = kernel(size, 1, 1, (), "leaky_relu", batch_axis=0, part=ANY)
    truth = {
        # Debatable: value, and what keys are made of.
        "w": kernel(WIDTH, heads * size, 0, (1, 2), function=ANY, part=ANY),
        "source": half,
        "target": half,
        # A sum over neighbours lies between it and the kernel.
        "bias": bias(ANY, (0, 1), part=ANY),
        "out": kernel(heads * size, OUTPUTS, part=ANY, head=True),
    }
    inputs = (floats(NODES, WIDTH), integers(EDGES), integers(EDGES))
    return Model(apply, params, inputs, truth)


@model
def set_transformer() -> Model:
    """Lee et al. 2019, Linen: induced points, and seeds that pool by attention."""
    from flax import linen as nn

    heads, width, points, seeds = 2, 12, 4, 3

    class Mab(nn.Module):
        @nn.compact
        def __call__(self, x, y):
            q = nn.Dense(width, name="fc_q")(x)
            k, v = nn.Dense(width, name="fc_k")(y), nn.Dense(width, name="fc_v")(y)
            q_, k_, v_ = (
                h.reshape(*h.shape[:2], heads, width // heads) for h in (q, k, v)
            )
            scores = jnp.einsum("bqhd,bkhd->bhqk", q_, k_) / jnp.sqrt(width)
            h = jnp.einsum("bhqk,bkhd->bqhd", nn.softmax(scores, axis=-1), v_)
            h = nn.LayerNorm(name="ln0")(q + h.reshape(q.shape))
            return nn.LayerNorm(name="ln1")(
                h + nn.relu(nn.Dense(width, name="fc_o")(h))
            )

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            glorot = nn.initializers.xavier_uniform()
            for i, wide in enumerate((WIDTH, width)):
                induced = self.param(f"induced_{i}", glorot, (1, points, wide))
                induced = jnp.repeat(induced, BATCH, axis=0)
                x = Mab(name=f"out_{i}")(x, Mab(name=f"in_{i}")(induced, x))
            seed = self.param("seeds", glorot, (1, seeds, 9))
            x = Mab(name="pool")(jnp.tile(seed, (BATCH, 1, 1)), x)
            return nn.Dense(OUTPUTS, name="head")(x.reshape(BATCH, -1))

    def mab(path, inputs, memory=width):
        return {
            **dense(f"{path}/fc_q", inputs, width, part="query"),
            **dense(f"{path}/fc_k", memory, width, part="key"),
            # Debatable: without a kernel behind them, values write to the stream.
            **dense(f"{path}/fc_v", memory, width, part="value", residual=ANY),
            **norm(f"{path}/ln0"),
            # Debatable: the first kernel after the sum, but in the next branch.
            f"{path}/fc_o/kernel": kernel(
                width, width, function="relu", residual=WRITES, part=ANY
            ),
            f"{path}/fc_o/bias": bias(f"{path}/fc_o/kernel", part=ANY),
            **norm(f"{path}/ln1"),
        }

    truth = {
        # Debatable, as all below: nothing lies between it and a kernel.
        "induced_0": token(WIDTH, 1, 2),
        **mab("in_0", WIDTH, WIDTH),
        **mab("out_0", WIDTH),
        "induced_1": token(width, 1, 2),
        **mab("in_1", width),
        **mab("out_1", width),
        "seeds": token(9, 1, 2),
        **mab("pool", 9),
        **dense("head", seeds * width, OUTPUTS, head=True),
    }
    return of_linen(Net(), [floats(BATCH, 5, WIDTH)], truth)


@model
def hypernetwork() -> Model:
    """Ha et al. 2017: a learned code of each layer becomes the layer's weights."""
    code, hidden = 4, 9

    def apply(p, x):
        x = jnp.tanh(x @ p["stem"]["w"] + p["stem"]["b"])
        for z in p["codes"]:
            h = jnp.tanh(z @ p["hyper_0"]["w"])
            w = (h @ p["hyper_1"]["w"] + p["hyper_1"]["b"]).reshape(HIDDEN, HIDDEN)
            x = jnp.tanh(x @ w)
        return x @ p["out"]

    params = {
        "stem": {"w": floats(WIDTH, HIDDEN), "b": floats(HIDDEN)},
        "codes": [floats(code)] * 2,
        "hyper_0": {"w": floats(code, hidden)},
        "hyper_1": {
            "w": floats(hidden, HIDDEN * HIDDEN),
            "b": floats(HIDDEN * HIDDEN),
        },
        "out": floats(HIDDEN, OUTPUTS),
    }
    truth = {
        **affine_truth("stem", WIDTH, HIDDEN, function="tanh"),
        "codes/0": unknown(),
        "codes/1": unknown(),
        "hyper_0/w": unknown(),
        "hyper_1/w": unknown(),
        "hyper_1/b": unknown(),
        "out": kernel(HIDDEN, OUTPUTS, head=True),
    }
    return Model(apply, params, (floats(BATCH, WIDTH),), truth)
