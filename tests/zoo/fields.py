"""Plain functions: recommenders of users, items and fields."""

import jax
import jax.numpy as jnp

from zoo.layers import affine, linear, scales
from zoo.truths import (
    ANY,
    Model,
    bias,
    convolution,
    dense,
    embedding,
    floats,
    integers,
    kernel,
    model,
    norm,
    one_of,
)
from zoo.truths import layer_norm as ln

B, FIELDS, K, H, O, ROWS = 4, 3, 5, 9, 6, 21  # noqa: E741


@model
def windows_over_history() -> Model:
    """Tang & Wang 2018 (Caser): windows along time and features of the last items."""
    length, filters = 5, 4

    def apply(p, items, user):
        e = p["items"][items]
        outs = []
        for w, b in zip(p["across"], p["across_b"], strict=True):
            y = jax.lax.conv_general_dilated(
                e, w, (1,), "VALID", dimension_numbers=("NHC", "HIO", "NHC")
            )
            outs.append(jax.nn.relu(y + b).max(1))
        down = jnp.einsum("btk,tf->bkf", e, p["along"]).reshape(B, -1)
        z = jax.nn.relu(linear(p["fc"], jnp.concatenate([*outs, down], -1)))
        z = jnp.concatenate([z, p["users"][user]], axis=-1)
        return linear(p["scores"], z)

    sizes = (2, 3)
    params = {
        "items": floats(ROWS, K), "users": floats(13, K),
        "across": [floats(n, K, filters) for n in sizes],
        "across_b": [floats(filters) for _ in sizes],
        "along": floats(length, 2), "fc": affine(2 * filters + 2 * K, H),
        "scores": affine(H + K, ROWS),
    }  # fmt: skip
    truth = {
        "items": embedding(K),
        "users": embedding(K),
        "along": kernel(length, 2),
        **dense("fc", 2 * filters + 2 * K, H, function="relu"),
        **dense("scores", H + K, ROWS, head=True),
    }
    for i, n in enumerate(sizes):
        truth[f"across/{i}"] = convolution(n * K, n * filters, 0, 1, 2, function="relu")
        truth[f"across_b/{i}"] = bias(f"across/{i}")
    return Model(apply, params, (integers(B, length), integers(B)), truth)


@model
def field_aware_machine() -> Model:
    """Juan et al. 2016 (FFM): a row of each field for each other field."""

    def apply(p, x):
        v = p["v"][x]  # (B, FIELDS, FIELDS, K): the second axis chooses the other field
        i, j = jnp.triu_indices(FIELDS, 1)
        pairs = (v[:, i, j] * v[:, j, i]).sum((-1, -2))
        return jax.nn.sigmoid(p["w0"] + p["w"][x].sum(-1) + pairs)

    params = {"v": floats(ROWS, FIELDS, K), "w": floats(ROWS), "w0": floats()}
    truth = {
        "v": embedding(FIELDS * K, 0, (1, 2)),
        "w": embedding(1, 0, ()),
        # Debatable: no kernel is before it.
        "w0": bias(ANY, ()),
    }
    return Model(apply, params, (integers(B, FIELDS),), truth)


@model
def whole_space() -> Model:
    """Ma et al. 2018 (ESMM): two towers on one table, whose odds are multiplied."""

    def tower(q, h):
        for layer in q[:-1]:
            h = jax.nn.relu(linear(layer, h))
        return jax.nn.sigmoid(linear(q[-1], h)[..., 0])

    def apply(p, x):
        e = jnp.take(p["table"], x, axis=0).reshape(B, -1)
        click, buy = tower(p["click"], e), tower(p["buy"], e)
        return click, click * buy

    layers = [affine(FIELDS * K, H), affine(H, 1)]
    params = {"table": floats(ROWS, K), "click": layers, "buy": layers}
    truth = {"table": embedding(K)}
    for name in ("click", "buy"):
        truth |= dense(f"{name}/0", FIELDS * K, H, function="relu")
        # Debatable: outputs, and factors of another one.
        truth[f"{name}/1/kernel"] = kernel(
            H, 1, function="sigmoid", head=True, part=one_of("gate", None)
        )
        truth[f"{name}/1/bias"] = bias(
            f"{name}/1/kernel", (), part=one_of("gate", None)
        )
    return Model(apply, params, (integers(B, FIELDS),), truth)


@model
def instance_guided_masks() -> Model:
    """Wang et al. 2021 (MaskNet): two layers make a mask, linear, of what they mask."""
    n = FIELDS * K

    def block(q, e, h):
        m = linear(q["m2"], jax.nn.relu(linear(q["m1"], e)))
        return jax.nn.relu(ln(m * h @ q["w"], q["n"]))

    def apply(p, x):
        e = p["table"][x].reshape(B, n)
        h = block(p["one"], e, ln(e, p["n"]))
        return linear(p["out"], block(p["two"], e, h))[:, 0]

    def shapes(i):
        return {
            "m1": affine(n, 12),
            "m2": affine(12, i),
            "w": floats(i, H),
            "n": scales(H),
        }

    params = {
        "table": floats(ROWS, K),
        "n": scales(n),
        "one": shapes(n),
        "two": shapes(H),
    }
    params["out"] = affine(H, 1)
    truth = {"table": embedding(K), **norm("n"), **dense("out", H, 1, head=True)}
    for name, i in (("one", n), ("two", H)):
        truth |= {
            **dense(f"{name}/m1", n, 12, function="relu"),
            # A factor without a function.
            **dense(f"{name}/m2", 12, i, part=ANY),
            f"{name}/w": kernel(i, H),
            **norm(f"{name}/n"),
        }
    return Model(apply, params, (integers(B, FIELDS),), truth)


@model
def cross_of_low_rank() -> Model:
    """Wang et al. 2021 (DCN v2): x0 times a low-rank kernel of experts, added to x."""
    n, rank, experts = 8, 3, 2

    def apply(p, x0):
        x0 = x = linear(p["in"], x0)
        for q in p["cross"]:
            g = jax.nn.softmax(x @ q["g"])
            h = jnp.tanh(jnp.einsum("bn,enr->ber", x, q["v"]))
            h = jnp.tanh(jnp.einsum("ber,ers->bes", h, q["c"]))
            h = jnp.einsum("ber,ern->ben", h, q["u"]) + q["b"]
            x = x + jnp.einsum("be,ben->bn", g, x0[:, None] * h)
        return x @ p["out"]

    q = {
        "g": floats(n, experts), "v": floats(experts, n, rank),
        "c": floats(experts, rank, rank), "u": floats(experts, rank, n), "b": floats(n),
    }  # fmt: skip
    params = {"in": affine(7, n), "cross": [q] * 2, "out": floats(n, 1)}
    e = {"batch_axis": 0, "in_axis": 1, "out_axis": 2}
    truth = {**dense("in", 7, n), "out": kernel(n, 1, head=True)}
    for i in range(2):
        # Debatable: whether experts are asked by all, and where a product with x0 ends
        # a branch.
        truth |= {
            f"cross/{i}/g": kernel(n, experts, part="router"),
            f"cross/{i}/v": kernel(n, rank, function="tanh", **e),
            f"cross/{i}/c": kernel(rank, rank, function="tanh", **e),
            f"cross/{i}/u": kernel(rank, n, residual=(i, 2), part=ANY, **e),
            f"cross/{i}/b": bias(f"cross/{i}/u", part=ANY),
        }
    return Model(apply, params, (floats(B, 7),), truth)
