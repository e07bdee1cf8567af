"""Plain functions: layers that everyone knows, in spellings that few use."""

import jax
import jax.numpy as jnp

from zoo.layers import affine, linear
from zoo.truths import (
    ANY,
    Model,
    Use,
    bias,
    convolution,
    dense,
    embedding,
    floats,
    integers,
    kernel,
    model,
    one_of,
    unknown,
)

B, T, N, D, F, O, V = 2, 6, 7, 12, 15, 4, 19  # noqa: E741


@model
def names_of_numpy() -> Model:
    """A perceptron of tensordot, inner, vectorize, matvec and apply_along_axis."""

    def apply(p, x):
        h = jnp.tanh(jnp.tensordot(x, p["a"], axes=[[2], [0]]) + p["bias"])
        h = jax.nn.relu(jnp.inner(h, p["c"]))
        product = jnp.vectorize(lambda h, w: w @ h, signature="(n),(m,n)->(m)")
        h = jax.nn.softplus(product(h, p["d"]))
        h = jax.nn.silu(jnp.matvec(p["f"], h))
        return jnp.apply_along_axis(lambda v: v @ p["g"], 1, h)

    params = {
        "a": floats(N, 11),
        "bias": floats(11),
        "c": floats(13, 11),
        "d": floats(9, 13),
        "f": floats(8, 9),
        "g": floats(T, O),
    }
    truth = {
        "a": kernel(N, 11, function="tanh"),
        "bias": bias("a"),
        "c": kernel(11, 13, 1, 0, "relu"),
        "d": kernel(13, 9, 1, 0, "softplus"),
        "f": kernel(9, 8, 1, 0, "silu"),
        # Along the sequence.
        "g": kernel(T, O, head=True),
    }
    return Model(apply, params, (floats(B, T, N),), truth)


@model
def features_first() -> Model:
    """Features, places, members: an einsum for each layer, one sums over two axes."""

    def apply(p, x):
        h = jnp.einsum("btd,fd->ftb", x, p["up"]) + p["up_bias"][:, None, None]
        h = jnp.einsum("ftb,gf->tgb", jax.nn.gelu(h), p["down"])
        h = jax.nn.relu(h + p["down_bias"][:, None])
        h = h + jnp.einsum("tgb,ts->sgb", h, p["mix"])
        return jnp.einsum("tog,tgb->bo", p["out"], h)

    params = {
        "up": floats(F, N),
        "up_bias": floats(F),
        "down": floats(11, F),
        "down_bias": floats(11),
        "mix": floats(T, T),
        "out": floats(T, O, 11),
    }
    truth = {
        "up": kernel(N, F, 1, 0, "gelu"),
        "up_bias": bias("up"),
        "down": kernel(F, 11, 1, 0, "relu"),
        "down_bias": bias("down"),
        "mix": kernel(T, T, residual=(0, 1)),
        "out": kernel(T * 11, O, (0, 2), 1, head=True),
    }
    return Model(apply, params, (floats(B, T, N),), truth)


@model
def heads_by_vmap() -> Model:
    """Attention of one head, mapped over kernels; each writes, and the sum is added."""
    heads, size = 3, 4

    def head(q, k, v, o, x):
        s = jnp.einsum("btd,bsd->bts", x @ q, x @ k) / size**0.5
        return jnp.einsum("bts,bsd->btd", jax.nn.softmax(s), x @ v) @ o

    def apply(p, x):
        ys = jax.vmap(head, (0, 0, 0, 0, None))(p["q"], p["k"], p["v"], p["o"], x)
        return linear(p["out"], x + ys.sum(0))

    params = {name: floats(heads, D, size) for name in "qkv"}
    params |= {"o": floats(heads, size, D), "out": affine(D, O)}
    # Debatable: heads of one kernel, or one kernel for each head.
    either = {"batch_axis": ANY}
    truth = {
        name: kernel(D, ANY, 1, ANY, part=part, **either)
        for name, part in zip("qkv", ("query", "key", "value"), strict=True)
    }
    truth |= {
        # Debatable: whether heads are summed by the contraction, or behind it.
        "o": kernel(ANY, D, ANY, 2, part="attention output", residual=(0, 1), **either),
        **dense("out", D, O, head=True),
    }
    return Model(apply, params, (floats(B, T, D),), truth)


@model
def odd_windows() -> Model:
    """Convolutions with another order of axes in every array; the last one grows."""

    def conv(x, w, order, **options):
        options = {"window_strides": (1, 1), "padding": "SAME"} | options
        return jax.lax.conv_general_dilated(x, w, dimension_numbers=order, **options)

    def apply(p, x):
        h = conv(x, p["a"], ("CHWN", "WOIH", "HNCW"))
        h = jax.nn.relu(h + p["a_bias"][:, None])
        h = conv(h, p["each"], ("HNCW", "OIHW", "NHWC"), feature_group_count=6)
        h = jax.nn.silu(h + p["each_bias"])
        grown = {"padding": ((2, 2), (2, 2)), "lhs_dilation": (2, 2)}
        h = conv(h, p["grow"], ("NHWC", "HWIO", "NHWC"), **grown)
        return linear(p["out"], h.mean((1, 2)))

    params = {
        "a": floats(3, 6, 5, 2),
        "a_bias": floats(6),
        "each": floats(6, 1, 3, 3),
        "each_bias": floats(6),
        "grow": floats(4, 4, 6, 9),
        "out": affine(9, O),
    }
    truth = {
        "a": convolution(30, 36, (0, 3), 2, 1, "relu"),
        "a_bias": bias("a"),
        "each": convolution(9, 9, (2, 3), 1, 0, "silu", groups=6),
        "each_bias": bias("each"),
        "grow": convolution(24, 144, transposed=True),
        **dense("out", 9, O, head=True),
    }
    return Model(apply, params, (floats(5, 9, 8, B),), truth)


@model
def looked_up() -> Model:
    """Eight ways to look up a row of a table, added to each other."""

    def apply(p, ids, members, bag):
        one_hot = jax.nn.one_hot(ids, V)
        sums = jax.ops.segment_sum(p["bag"][members], bag, B)
        counts = jax.ops.segment_sum(jnp.ones(members.shape), bag, B)
        each = jax.vmap(jax.vmap(lambda i: jax.lax.dynamic_index_in_dim(
            p["sliced"], i, keepdims=False)))  # fmt: skip
        rows = [
            jnp.moveaxis(jnp.take(p["columns"], ids, axis=1), 0, -1),
            one_hot @ p["product"],
            jnp.einsum("btv,dv->btd", one_hot, p["turned"]),
            p["filled"].at[ids].get(mode="fill", fill_value=0),
            jnp.take_along_axis(p["along"][None], ids.reshape(1, -1, 1), 1)
            .reshape(B, T, D),
            each(ids),
            (ids[..., None] == jnp.arange(V)).astype(jnp.float32) @ p["compared"],
            (sums / jnp.maximum(counts, 1)[:, None])[:, None],
        ]  # fmt: skip
        return linear(p["out"], jnp.tanh(sum(rows)))

    tables = ("product", "filled", "along", "sliced", "compared", "bag")
    turned = ("columns", "turned")
    params = {
        **{name: floats(V, D) for name in tables},
        **{name: floats(D, V) for name in turned},
        "out": affine(D, O),
    }
    truth = {
        **{name: embedding(D) for name in tables},
        **{name: embedding(D, 1, 0) for name in turned},
        **dense("out", D, O, head=True),
    }
    return Model(apply, params, (integers(B, T), integers(9), integers(9)), truth)


@model
def monarch() -> Model:
    """Dao et al. 2022: two block-diagonal kernels with a transposition between."""

    def apply(p, x):
        h = x.reshape(B, 3, 4)
        h = jax.lax.dot_general(h, p["first"], (((2,), (1,)), ((1,), (0,))))
        h = jax.nn.relu(h).transpose(1, 2, 0)
        h = jnp.einsum("brc,rcd->brd", h, p["second"]) + p["bias"]
        h = jnp.tanh(h.transpose(0, 2, 1).reshape(B, 10))
        return linear(p["out"], h)

    params = {
        "first": floats(3, 4, 5),
        "second": floats(5, 3, 2),
        "bias": floats(5, 2),
        "out": affine(10, O),
    }
    truth = {
        "first": kernel(4, 5, 1, 2, "relu", batch_axis=0),
        "second": kernel(3, 2, 1, 2, "tanh", batch_axis=0),
        # Debatable: a bias of each block, or of all features.
        "bias": bias("second", ANY, batch_axis=ANY),
        **dense("out", 10, O, head=True),
    }
    return Model(apply, params, (floats(B, D),), truth)


@model
def structured_matrices() -> Model:
    """Kronecker factors apart and multiplied out, a circulant, a reflection."""

    def apply(p, x):
        h = jnp.einsum("bij,ik,jl->bkl", x, p["rows"], p["columns"])
        h = jax.nn.relu(h + p["bias"]).reshape(B, 30)
        h = jnp.tanh(h @ jnp.kron(p["left"], p["right"]))
        h = jnp.fft.irfft(jnp.fft.rfft(h) * jnp.fft.rfft(p["circulant"]), 4)
        v = p["mirror"] / jnp.linalg.norm(p["mirror"])
        h = h - 2 * (h @ v)[:, None] * v
        return linear(p["out"], jnp.tanh(h))

    params = {
        "rows": floats(3, 5),
        "columns": floats(4, 6),
        "bias": floats(5, 6),
        "left": floats(5, 2),
        "right": floats(6, 2),
        "circulant": floats(4),
        "mirror": floats(4),
        "out": affine(4, 3),
    }
    truth = {
        # Debatable: where its function ends, as the other factor follows.
        "rows": kernel(3, 5, function=ANY),
        "columns": kernel(4, 6, function=ANY),
        # Debatable: features of two kernels, or of the last, at places of the first.
        "bias": Use(one_of("bias", "position"), ANY, ANY, of=ANY),
        "left": unknown(),
        "right": unknown(),
        "circulant": unknown(),
        "mirror": unknown(),
        **dense("out", 4, 3, head=True),
    }
    return Model(apply, params, (floats(B, 3, 4),), truth)


@model
def experts_one_by_one() -> Model:
    """lax.map over experts, weighed by a router; then a ragged product of groups."""
    count = 3

    def apply(p, x, sizes):
        weights = jax.nn.softmax(x @ p["router"])

        def expert(q):
            return jax.nn.relu(x @ q["up"]) @ q["down"]

        ys = jax.lax.map(expert, {"up": p["up"], "down": p["down"]})
        x = x + jnp.einsum("ntd,tn->td", ys, weights)
        h = jax.nn.gelu(jax.lax.ragged_dot(x, p["ragged_up"], sizes))
        x = x + jax.lax.ragged_dot(h, p["ragged_down"], sizes)
        return linear(p["out"], x)

    params = {
        "router": floats(D, count),
        "up": floats(count, D, F),
        "down": floats(count, F, D),
        "ragged_up": floats(count, D, F),
        "ragged_down": floats(count, F, D),
        "out": affine(D, O),
    }
    # What a loop over experts does, it does side by side.
    looped = {"batch_axis": 0}
    truth = {
        "router": kernel(D, count, part="router"),
        "up": kernel(D, F, 1, 2, "relu", **looped),
        "down": kernel(F, D, 1, 2, residual=(0, 2), **looped),
        "ragged_up": kernel(D, F, 1, 2, "gelu", batch_axis=0),
        "ragged_down": kernel(F, D, 1, 2, batch_axis=0, residual=(1, 2)),
        **dense("out", D, O, head=True),
    }
    return Model(apply, params, (floats(8, D), integers(count)), truth)


@model
def few_bits() -> Model:
    """Kernels rounded with a straight-through gradient, in bfloat16, and frozen."""

    def rounded(x, axis):
        size = jnp.max(jnp.abs(x), axis, keepdims=True) / 127 + 1e-6
        return x + jax.lax.stop_gradient(jnp.round(x / size) * size - x)

    def apply(p, x):
        h = jax.nn.relu(x @ rounded(p["integer"], 0) + p["integer_bias"])
        h = jnp.matmul(
            h.astype(jnp.bfloat16),
            p["half"].astype(jnp.bfloat16),
            preferred_element_type=jnp.float32,
        )
        h = jax.nn.silu(h + p["half_bias"])
        h = rounded(h, -1) @ jax.lax.stop_gradient(p["frozen"])
        h = jax.lax.reduce_precision(jnp.tanh(h), 5, 10)
        return jnp.matmul(h, p["out"], precision="highest")

    params = {
        "integer": floats(N, 11),
        "integer_bias": floats(11),
        "half": floats(11, 13),
        "half_bias": floats(13),
        "frozen": floats(13, 9),
        "out": floats(9, O),
    }
    truth = {
        # What it is rounded to stands for it.
        "integer": kernel(N, 11, function="relu"),
        "integer_bias": bias("integer"),
        "half": kernel(11, 13, function="silu"),
        "half_bias": bias("half"),
        "frozen": kernel(13, 9, function="tanh"),
        "out": kernel(9, O, head=True),
    }
    return Model(apply, params, (floats(B, N),), truth)
