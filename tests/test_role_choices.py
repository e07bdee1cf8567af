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


def best(scores):
    return jax.nn.one_hot(jax.lax.top_k(scores, 2)[1], ROWS).sum(-2)


def masked_sigmoids(p, logits):
    scores = jax.nn.sigmoid(logits)
    return scores * best(scores + p["bias"])


def divided_sigmoids(p, logits):
    kept = masked_sigmoids(p, logits)
    return 2.5 * kept / (kept.sum(-1, keepdims=True) + 1e-20)


def gathered_sigmoids(p, logits):
    scores = jax.nn.sigmoid(logits)
    _, chosen = jax.lax.top_k(scores + p["bias"], 2)
    kept = jnp.take_along_axis(scores, chosen, -1)
    return (jax.nn.one_hot(chosen, ROWS) * kept[..., None]).sum(-2)


def sigmoids_of_best(p, logits):
    kept, chosen = jax.lax.top_k(logits, 1)
    rows = jnp.arange(logits.shape[0])[:, None]
    return jax.nn.sigmoid(jnp.full_like(logits, -jnp.inf).at[rows, chosen].set(kept))


def relus_of_best(p, logits):
    return jax.nn.relu(logits) * best(logits)


BEST = [
    masked_sigmoids,
    divided_sigmoids,
    gathered_sigmoids,
    sigmoids_of_best,
    relus_of_best,
]


@pytest.mark.parametrize("by_inputs", [False, True])
@pytest.mark.parametrize("weights", BEST)
def test_the_best_that_no_softmax_weighs_are_chosen_by_a_router(weights, by_inputs):
    """It writes nothing to the stream to which experts are added."""

    def apply(p, x):
        x = x @ p["in"]
        for layer in p["layers"]:
            chosen = weights(layer, x @ layer["router"])
            each = jnp.broadcast_to(x[:, None], (N, ROWS, IN))
            each = each * chosen[..., None] if by_inputs else each
            h = jax.nn.relu(jnp.einsum("nkd,kdf->nkf", each, layer["up"]))
            y = jnp.einsum("nkf,kfd->nkd", h, layer["down"])
            x = x + (y.sum(1) if by_inputs else jnp.einsum("nkd,nk->nd", y, chosen))
        return x @ p["out"]

    layer = {"router": ROUTER, "bias": array(ROWS), "up": array(ROWS, IN, HIDDEN)}
    layers = [layer | {"down": array(ROWS, HIDDEN, IN)}] * 2
    params = {"in": array(IN, IN), "layers": layers, "out": array(IN, OUT)}
    roles = jaxinit.roles(apply, params, X)
    for i in range(2):
        router, down = roles[f"layers/{i}/router"], roles[f"layers/{i}/down"]
        assert (router.part, router.residual) == ("router", None)
        assert (down.part, down.residual) == (None, (i, 2))


def most_active(p, x):
    h = x @ p["w"]
    return jnp.where(h >= jax.lax.top_k(h, 2)[0][..., -1:], h, 0) @ p["out"]


def sampled(p, x):
    _, chosen = jax.lax.top_k(x @ p["w"], 1)
    return p["table"][chosen[..., 0]] @ p["out"]


def ranked(p, x):
    h = x @ p["w"]
    return h @ p["out"], (jax.lax.top_k(h, 2)[1] == 1).mean() * x.mean()


@pytest.mark.parametrize("apply", [most_active, sampled, ranked])
def test_not_all_that_is_ranked_is_a_router(apply):
    params = {"w": ROUTER, "out": array(ROWS, OUT), "table": array(ROWS, ROWS)}
    assert jaxinit.roles(apply, params, X)["w"].part != "router"
