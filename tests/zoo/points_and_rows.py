"""Points, graphs, numbers of four parts, and rows of tables that see each other."""

import jax
import jax.numpy as jnp

from zoo.equinox_models import linear as eqx_linear
from zoo.equinox_models import of_equinox
from zoo.flax_layers import attention, of_linen
from zoo.layers import affine, linear
from zoo.truths import (
    ANY,
    WRITES,
    Model,
    bias,
    dense,
    either,
    embedding,
    every,
    floats,
    integers,
    kernel,
    model,
    norm,
    one_of,
    scale,
    token,
)

B, D, F, HEADS, SIZE, O = 4, 12, 15, 3, 4, 5  # noqa: E741
NODES, EDGES = 7, 11


@model
def differences_attend() -> Model:
    """Zhao et al. 2021 (point transformer), Equinox: a weight for each feature.

    Networks of differences, of places and of features, among the nearest points.
    """
    import equinox as eqx

    layers, near, inner = 2, 3, 10

    def each(layer, x):
        for _ in x.shape[:-1]:
            layer = jax.vmap(layer)
        return layer(x)

    class Layer(eqx.Module):
        norm: eqx.nn.LayerNorm
        to_q: eqx.nn.Linear
        to_k: eqx.nn.Linear
        to_v: eqx.nn.Linear
        pos: list
        att: list
        out: eqx.nn.Linear

        def __init__(self, key):
            self.norm = eqx.nn.LayerNorm(D)
            self.to_q, self.to_k, self.to_v = (
                eqx.nn.Linear(D, inner, use_bias=False, key=key) for _ in range(3)
            )
            self.pos = [
                eqx.nn.Linear(3, 8, key=key), eqx.nn.Linear(8, inner, key=key)
            ]  # fmt: skip
            self.att = [
                eqx.nn.Linear(inner, F, key=key), eqx.nn.Linear(F, inner, key=key)
            ]  # fmt: skip
            self.out = eqx.nn.Linear(inner, D, key=key)

        def __call__(self, x, places, at):
            h = each(self.norm, x)
            apart = places[:, None] - places[at]
            delta = each(self.pos[1], jax.nn.relu(each(self.pos[0], apart)))
            s = each(self.to_q, h)[:, None] - each(self.to_k, h)[at] + delta
            s = each(self.att[1], jax.nn.relu(each(self.att[0], s)))
            a = jax.nn.softmax(s / inner**0.5, axis=1)
            y = jnp.sum(a * (each(self.to_v, h)[at] + delta), axis=1)
            return x + each(self.out, y)

    class Net(eqx.Module):
        first: eqx.nn.Linear
        layers: list
        norm: eqx.nn.LayerNorm
        last: eqx.nn.Linear

        def __init__(self, key):
            self.first = eqx.nn.Linear(6, D, key=key)
            self.layers = [Layer(key) for _ in range(layers)]
            self.norm = eqx.nn.LayerNorm(D)
            self.last = eqx.nn.Linear(D, O, key=key)

        def __call__(self, places, colours):
            apart = jnp.sum((places[:, None] - places[None]) ** 2, axis=-1)
            at = jnp.argsort(apart, axis=-1)[:, :near]
            x = each(self.first, jnp.concatenate([places, colours], axis=-1))
            for layer in self.layers:
                x = layer(x, places, at)
            return self.last(jnp.max(each(self.norm, x), axis=0))

    # Debatable: names of the parts of scores that are no product.
    open_ = {"part": ANY, "function": ANY, "multiplier": ANY}

    def linear_of(path, a, b, **rest):
        truth = eqx_linear(path, a, b, **rest)
        truth[f"{path}/bias"] = bias(f"{path}/weight", part=ANY, multiplier=ANY)
        return truth

    layer = {
        **norm("norm", "weight"),
        "to_q/weight": kernel(D, inner, 1, 0, part=ANY),
        "to_k/weight": kernel(D, inner, 1, 0, part=ANY, multiplier=one_of(1.0, -1.0)),
        "to_v/weight": kernel(D, inner, 1, 0, part=ANY),
        **linear_of("pos/0", 3, 8, function="relu"),
        **linear_of("pos/1", 8, inner, part=ANY),
        **linear_of("att/0", inner, F, function="relu", part=ANY),
        **linear_of("att/1", F, inner, **open_),
        **linear_of("out", inner, D, part=ANY, residual=(0, layers)),
    }
    truth = {
        **eqx_linear("first", 6, D),
        **every("layers/{}/", layers, layer),
        **norm("norm", "weight"),
        **eqx_linear("last", D, O, head=True),
    }
    return of_equinox(Net, [floats(B, NODES, 3), floats(B, NODES, 3)], truth)


@model
def messages_beside_attention() -> Model:
    """Rampasek et al. 2022 (GPS), Linen: neighbours and all nodes, two sums in one."""
    from flax import linen as nn

    layers = 2

    class Layer(nn.Module):
        @nn.compact
        def __call__(self, x, e, s, r):
            def bn(x, name):
                return nn.BatchNorm(use_running_average=False, name=name)(x)

            eps = self.param("eps", nn.initializers.zeros, ())
            m = jax.ops.segment_sum(nn.relu(x[s] + e), r, NODES)
            h = nn.relu(nn.Dense(F, name="gine_0")((1 + eps) * x + m))
            local = bn(x + nn.Dense(D, name="gine_1")(h), "norm_local")
            att = nn.MultiHeadDotProductAttention(HEADS, name="attn")
            x = local + bn(x + att(x[None])[0], "norm_attn")
            h = nn.Dense(D, name="ff_1")(nn.relu(nn.Dense(2 * D, name="ff_0")(x)))
            return bn(x + h, "norm_ff")

    class Net(nn.Module):
        @nn.compact
        def __call__(self, atoms, waves, bonds, s, r):
            x = nn.Embed(9, D, name="atoms")(atoms) + nn.Dense(D, name="places")(waves)
            e = nn.Embed(4, D, name="bonds")(bonds)
            for i in range(layers):
                x = Layer(name=f"layer_{i}")(x, e, s, r)
            x = nn.relu(nn.Dense(F, name="head_0")(jnp.sum(x, axis=0)))
            return nn.Dense(1, name="head_1")(x)

    layer = {
        # Debatable: a factor of the node itself, beside its neighbours.
        "eps": scale((), offset=1.0),
        **dense("gine_0", D, F, function="relu"),
        # Debatable: two streams that become one, and how many writes it has.
        **dense("gine_1", F, D, residual=WRITES),
        **norm("norm_local"),
        **attention("attn", D, HEADS, SIZE, WRITES, scaled=True),
        **norm("norm_attn"),
        **dense("ff_0", D, 2 * D, function="relu"),
        **dense("ff_1", 2 * D, D, residual=WRITES),
        **norm("norm_ff"),
    }
    truth = {
        "atoms/embedding": embedding(D),
        # Debatable: the sum of a kernel's output and rows begins a stream, or is in it.
        **dense("places", 5, D, residual=ANY),
        "bonds/embedding": embedding(D),
        **every("layer_{}/", layers, layer),
        **dense("head_0", D, F, function="relu"),
        **dense("head_1", F, 1, head=True),
    }
    inputs = [integers(NODES), floats(NODES, 5), integers(EDGES)]
    inputs += [integers(EDGES), integers(EDGES)]
    return of_linen(Net(), inputs, truth)


@model
def numbers_of_four_parts() -> Model:
    """Parcollet et al. 2019 (quaternions), plain: each kernel in four products."""
    sizes = ((3, 5), (5, 4))

    def product(p, x):
        r, i, j, k = jnp.split(x, 4, axis=-1)
        wr, wi, wj, wk = (p[name] for name in "RIJK")
        y = [
            r @ wr - i @ wi - j @ wj - k @ wk,
            r @ wi + i @ wr + j @ wk - k @ wj,
            r @ wj - i @ wk + j @ wr + k @ wi,
            r @ wk + i @ wj - j @ wi + k @ wr,
        ]
        return jnp.concatenate(y, axis=-1) + p["b"]

    def apply(p, x):
        for q in p["layers"]:
            x = jax.nn.relu(product(q, x))
        return linear(p["out"], x)

    params = {"layers": [], "out": affine(16, O)}
    truth = dense("out", 16, O, head=True)
    for i, (a, b) in enumerate(sizes):
        layer = {name: floats(a, b) for name in "RIJK"} | {"b": floats(4 * b)}
        params["layers"].append(layer)
        real = kernel(a, b, function="relu")
        signed = kernel(a, b, function="relu", multiplier=one_of(1.0, -1.0))
        truth |= {
            f"layers/{i}/R": [real] * 4,
            **{f"layers/{i}/{name}": [signed] * 4 for name in "IJK"},
            f"layers/{i}/b": bias([f"layers/{i}/{name}" for name in "RIJK"]),
        }
    return Model(apply, params, (floats(B, 12),), truth)


@model
def rows_attend() -> Model:
    """Somepalli et al. 2021 (SAINT), Linen: features attend, then samples do."""
    from flax import linen as nn

    sizes, numbers, hidden = (4, 6), 3, 8
    count = 1 + len(sizes) + numbers
    wide = count * D

    class Block(nn.Module):
        hidden: int

        @nn.compact
        def __call__(self, x):
            d = x.shape[-1]
            att = nn.MultiHeadDotProductAttention(HEADS, name="attn")
            x = x + att(nn.LayerNorm(name="norm_0")(x))
            h = nn.Dense(2 * self.hidden, name="ff_0")(nn.LayerNorm(name="norm_1")(x))
            h, g = jnp.split(h, 2, axis=-1)
            return x + nn.Dense(d, name="ff_1")(h * nn.gelu(g))

    class Net(nn.Module):
        @nn.compact
        def __call__(self, ids, x):
            zeros = nn.initializers.zeros
            offsets = jnp.array([0, *sizes[:-1]]).cumsum()
            e = nn.Embed(sum(sizes), D, name="categories")(ids + offsets)
            w1 = self.param("w1", zeros, (numbers, hidden))
            b1 = self.param("b1", zeros, (numbers, hidden))
            w2 = self.param("w2", zeros, (numbers, hidden, D))
            b2 = self.param("b2", zeros, (numbers, D))
            x = nn.relu(x[..., None] * w1 + b1)
            x = jnp.einsum("bfh,fhd->bfd", x, w2) + b2
            cls = jnp.tile(self.param("cls", zeros, (1, 1, D)), (B, 1, 1))
            x = Block(F, name="columns")(jnp.concatenate([cls, e, x], axis=1))
            x = Block(9, name="rows")(x.reshape(1, B, wide)).reshape(B, count, D)
            x = nn.relu(nn.Dense(F, name="head_0")(x[:, 0]))
            return nn.Dense(O, name="head_1")(x)

    def block(path, d, size, hidden, first):
        halves = [
            (1, ((0, hidden),), "up", "identity"),
            (1, ((hidden, 2 * hidden),), "gate", "gelu"),
        ]
        ff = f"{path}/ff_0/kernel"
        return {
            **norm(f"{path}/norm_0"),
            **attention(f"{path}/attn", d, HEADS, size, (first, 4), scaled=True),
            **norm(f"{path}/norm_1"),
            ff: kernel(d, 2 * hidden, function=ANY, sections=halves),
            f"{path}/ff_0/bias": bias(
                ff, sections=[(0, *x[1:3], None) for x in halves]
            ),
            **dense(f"{path}/ff_1", hidden, d, residual=(first + 1, 4)),
        }

    # Debatable: what is added to each feature of its own.
    offset = either("bias", "position")
    truth = {
        "categories/embedding": embedding(D),
        # Debatable: a kernel of one input, or a scale of it.
        "w1": either("kernel", "scale"),
        "b1": offset,
        "w2": kernel(hidden, D, 1, 2, batch_axis=0),
        "b2": offset,
        "cls": token(D, ANY, 2),
        **block("columns", D, SIZE, F, 0),
        # One stream, folded otherwise.
        **block("rows", wide, wide // HEADS, 9, 2),
        **dense("head_0", D, F, function="relu"),
        **dense("head_1", F, O, head=True),
    }
    return of_linen(Net(), [integers(B, len(sizes)), floats(B, numbers)], truth)


@model
def members_of_tables() -> Model:
    """Gorishniy et al. 2025 (TabM), plain: waves of numbers, members by vectors."""
    features, waves, e, members = 3, 4, 5, 6
    sizes = ((features * e, F), (F, D))

    def apply(p, x):
        u = 2 * jnp.pi * x[..., None] * p["plr"]["freq"]
        u = jnp.concatenate([jnp.cos(u), jnp.sin(u)], axis=-1)
        u = jnp.einsum("bfi,fio->bfo", u, p["plr"]["w"]) + p["plr"]["b"]
        h = jax.nn.relu(u).reshape(B, 1, -1).repeat(members, axis=1)
        for q in p["layers"]:
            h = jax.nn.relu(((h * q["r"]) @ q["w"]) * q["s"] + q["b"])
        return jnp.einsum("bki,kio->bko", h, p["out"]["w"]) + p["out"]["b"]

    def layer(i, o):
        return {
            "r": floats(members, i), "w": floats(i, o), "s": floats(members, o),
            "b": floats(members, o),
        }  # fmt: skip

    params = {
        "plr": {
            "freq": floats(features, waves), "w": floats(features, 2 * waves, e),
            "b": floats(features, e),
        },
        "layers": [layer(i, o) for i, o in sizes],
        "out": {"w": floats(members, D, O), "b": floats(members, O)},
    }  # fmt: skip
    # Debatable: features and members as batches, as features or as places.
    offset = either("bias", "position")
    truth = {
        "plr/freq": either("kernel", "scale"),
        "plr/w": kernel(2 * waves, e, 1, 2, "relu", batch_axis=0),
        "plr/b": offset,
        "out/w": kernel(D, O, 1, 2, head=True, batch_axis=0),
        "out/b": offset,
    }
    for i, (a, b) in enumerate(sizes):
        truth |= {
            f"layers/{i}/r": scale(ANY, batch_axis=ANY),
            f"layers/{i}/w": kernel(a, b, function="relu"),
            f"layers/{i}/s": scale(ANY, batch_axis=ANY),
            f"layers/{i}/b": offset,
        }
    return Model(apply, params, (floats(B, features),), truth)
