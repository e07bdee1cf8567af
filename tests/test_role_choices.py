"""Kernels that an index chooses, and what looks like them, or like tokens."""

import jax
import jax.numpy as jnp
import pytest

import jaxinit

N, ROWS, IN, OUT, HIDDEN = 3, 4, 6, 5, 2  # ROWS kernels, or rows of tables


def array(*shape, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(shape, dtype)


W, B, X = array(ROWS, IN, OUT), array(ROWS, OUT), array(N, IN)
ROUTER, GIVEN = array(IN, ROWS), array(N, dtype=jnp.int32)


def by_input(p, x, given):
    return jnp.einsum("ni,nio->no", x, p["w"][given]) + p["b"][given]


def by_router(p, x):
    def one(x):
        chosen = jnp.argmax(x @ p["router"])
        return x @ p["w"][chosen] + p["b"][chosen]

    return jax.vmap(one)(x)


def by_one_hot(p, x):
    chosen = jax.nn.one_hot(jnp.argmax(x @ p["router"], axis=-1), ROWS)
    w = jnp.einsum("ne,eio->nio", chosen, p["w"])
    return jnp.einsum("ni,nio->no", x, w) + chosen @ p["b"]


def ragged(p, x):
    chosen = jnp.argmax(x @ p["router"], axis=-1)
    order = jnp.argsort(chosen)
    sizes = jnp.bincount(chosen, length=ROWS)
    y = jax.lax.ragged_dot(x[order], p["w"], sizes) + p["b"][chosen[order]]
    return jnp.zeros_like(y).at[order].set(y)


ROUTED = {"w": W, "b": B, "router": ROUTER}
CHOSEN = {
    "by an input": (by_input, {"w": W, "b": B}, (X, GIVEN)),
    "by a router": (by_router, ROUTED, (X,)),
    "by a one-hot": (by_one_hot, ROUTED, (X,)),
    "in groups": (ragged, ROUTED, (X,)),
}


@pytest.mark.parametrize("name", CHOSEN)
def test_kernels_that_an_index_chooses(name):
    apply, params, inputs = CHOSEN[name]
    found = jaxinit.roles(apply, params, *inputs)
    w, b = found["w"], found["b"]
    assert (w.kind, w.in_axis, w.out_axis, w.batch_axis) == ("kernel", (1,), (2,), (0,))
    assert (w.fan_in, w.fan_out) == (IN, OUT)
    assert (b.kind, b.out_axis, b.batch_axis, b.of) == ("bias", (1,), (0,), ("w",))
    if "router" in params:
        assert (found["router"].kind, found["router"].part) == ("kernel", "router")


def mixed(p, x):
    best, chosen = jax.lax.top_k(x @ p["router"], 2)
    w = jnp.einsum("nk,nkio->nio", jax.nn.softmax(best), p["leaf"][chosen])
    return jnp.einsum("ni,nio->no", x, w)


def vectors(p, x):
    best, chosen = jax.lax.top_k(x @ p["router"], 2)
    h = jax.nn.gelu(jnp.einsum("ni,nki->nk", x, p["leaf"][chosen]))
    return (h * jax.nn.softmax(best)).sum(-1)


def products_of_rows(p, users, items):
    return jnp.einsum("ni,ni->n", p["leaf"][users], p["leaf"][items])


def told_before(p, x, given):
    x = x + p["leaf"][given]
    return jnp.einsum("ni,nio->no", x, p["w"][given])


def keys(p, x, given):
    scores = jnp.einsum("nti,nsi->nts", x @ p["query"], p["leaf"][given])
    return jax.nn.softmax(scores) @ p["leaf"][given]


def sinks(p, x):
    scores = jnp.einsum("nti,nsi->nts", x @ p["query"], x @ p["query"])
    beside = jnp.broadcast_to(p["leaf"], (*scores.shape[:-1], 1))
    weights = jax.nn.softmax(jnp.concatenate([scores, beside], axis=-1))
    return weights[..., :-1] @ x


def logits(p, x):
    none = jnp.broadcast_to(p["leaf"], (N, 1))
    return jax.nn.softmax(jnp.concatenate([x @ p["router"], none], axis=-1))


def token(p, x):
    first = jnp.broadcast_to(p["leaf"], (N, 1, IN))
    return jax.nn.relu(jnp.concatenate([first, x], axis=1) @ p["query"])


SEQUENCE, QUERY = array(N, 7, IN), array(IN, IN)
OTHERS = {
    "kernels in a mixture": (mixed, {"leaf": W, "router": ROUTER}, (X,), "unknown"),
    "vectors by a router": (
        vectors,
        {"leaf": array(ROWS, IN), "router": ROUTER},
        (X,),
        "unknown",
    ),
    "inner products of rows": (
        products_of_rows,
        {"leaf": array(ROWS, IN)},
        (GIVEN, GIVEN),
        "embedding",
    ),
    "what an input says before": (
        told_before,
        {"leaf": array(ROWS, IN), "w": W},
        (X, GIVEN),
        "embedding",
    ),
    "keys of an attention": (
        keys,
        {"leaf": array(ROWS, HIDDEN, IN), "query": QUERY},
        (SEQUENCE, GIVEN),
        "embedding",
    ),
    "sinks beside scores": (
        sinks,
        {"leaf": array(1), "query": QUERY},
        (SEQUENCE,),
        "unknown",
    ),
    "one more logit": (logits, {"leaf": array(1), "router": ROUTER}, (X,), "unknown"),
    "a token": (token, {"leaf": array(IN), "query": QUERY}, (SEQUENCE,), "embedding"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_chosen_or_put_beside_otherwise(name):
    apply, params, inputs, kind = OTHERS[name]
    role = jaxinit.roles(apply, params, *inputs)["leaf"]
    assert {use.kind for use in role.uses} == {kind}
    assert all(use.reason for use in role.uses)


def of_keys(p, x):
    """The efficient attention of Shen et al. (2021)."""
    q, k = jax.nn.softmax(x @ p["q"], -1), jax.nn.softmax(x @ p["k"], 1)
    return q @ (k.mT @ (x @ p["v"])) @ p["o"]


def of_experts(p, x):
    weights = jax.nn.softmax(x @ p["q"], -1)
    experts = jax.nn.relu(jnp.einsum("ntd,kde->ntke", x, p["leaf"]))
    return jnp.einsum("ntk,ntkd->ntd", weights, experts) @ p["o"]


def test_a_softmax_that_reads_features_of_keys_is_no_router():
    params = dict.fromkeys("qkvo", QUERY)
    role = jaxinit.roles(of_keys, params, SEQUENCE)["q"]
    assert {use.part for use in role.uses} == {None}
    params = {"q": array(IN, 4), "leaf": array(4, IN, IN), "o": QUERY}
    role = jaxinit.roles(of_experts, params, SEQUENCE)["q"]
    assert {use.part for use in role.uses} == {"router"}
