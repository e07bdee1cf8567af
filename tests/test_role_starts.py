"""What loops that Python unrolls begin with: zeros, constants and learned vectors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxinit

pytestmark = pytest.mark.unoptimized

BATCH, STEPS, WIDTH = 5, 3, 8


def leaf(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.float32)


X = leaf(BATCH, STEPS, WIDTH)
STARTS = {
    "zeros": lambda x, n: jnp.zeros((BATCH, n)),
    "zeros_like": lambda x, n: jnp.zeros_like(jnp.tile(x[:, 0], n // WIDTH)),
    "array": lambda x, n: np.zeros((BATCH, n), np.float32),
    "joined": lambda x, n: jnp.concatenate([jnp.zeros((BATCH, n // 2))] * 2, -1),
    "tiled": lambda x, n: jnp.tile(jnp.zeros(n), (BATCH, 1)),
    "ones": lambda x, n: jnp.ones((BATCH, n)),
    "drawn": lambda x, n: np.random.default_rng(0).normal(size=(BATCH, n)),
}


def rnn(p, x, begin):
    """Its input comes behind its state, so the first round is of leaves alone."""
    h, read = begin(x, WIDTH), begin(x, 2 * WIDTH)
    for t in range(STEPS):
        h = jnp.tanh(read @ p["w"] + h @ p["u"] + p["b"])
        read = jnp.concatenate([h, x[:, t]], -1)
    return read @ p["o"]


def lstm(p, x, begin):
    h, c = begin(x, WIDTH), begin(x, WIDTH)
    read = begin(x, 2 * WIDTH)
    for t in range(STEPS):
        i, f, g, o = jnp.split(read @ p["w"] + h @ p["u"] + p["b"], 4, -1)
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        h = jax.nn.sigmoid(o) * jnp.tanh(c)
        read = jnp.concatenate([h, x[:, t]], -1)
    return read @ p["o"]


def gru(p, x, begin):
    h, read = begin(x, WIDTH), begin(x, 2 * WIDTH)
    for t in range(STEPS):
        z, r, n = jnp.split(read @ p["w"] + p["b"], 3, -1)
        uz, ur, un = jnp.split(h @ p["u"], 3, -1)
        z, r = jax.nn.sigmoid(z + uz), jax.nn.sigmoid(r + ur)
        h = z * h + (1 - z) * jnp.tanh(n + r * un)
        read = jnp.concatenate([h, x[:, t]], -1)
    return read @ p["o"]


def reader(p, x, begin):
    """It asks, and asks again with what it was told."""
    read = begin(x, 2 * WIDTH)
    for _ in range(STEPS):
        h = jnp.tanh(read @ p["w"] + p["b"])
        weights = jax.nn.softmax(jnp.einsum("bd,btd->bt", h @ p["u"], x))
        read = jnp.concatenate([h, jnp.einsum("bt,btd->bd", weights, x)], -1)
    return read @ p["o"]


CELLS = {rnn: 1, lstm: 4, gru: 3, reader: 1}


def roles_of(cell, begin, gates=1):
    params = {
        "w": leaf(2 * WIDTH, gates * WIDTH),
        "u": leaf(WIDTH, gates * WIDTH),
        "b": leaf(gates * WIDTH),
        "o": leaf(2 * WIDTH, 2),
    }
    return jaxinit.roles(lambda p, x: cell(p, x, begin), params, X)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("begin", STARTS)
def test_the_first_round_of_an_unrolled_cell_uses_the_leaves_of_the_others(cell, begin):
    found = roles_of(cell, STARTS[begin], CELLS[cell])
    assert {use.fan_in for use in found["w"].uses} == {2 * WIDTH}
    for name, kind in {"w": "kernel", "u": "kernel", "b": "bias"}.items():
        assert [use.kind for use in found[name].uses] == [kind] * STEPS
        assert not any(use.doubt for use in found[name].uses)
    assert found["b"].of == (("u", "w") if cell in (rnn, lstm) else ("w",))


@pytest.mark.parametrize("cell", [lstm, gru])
@pytest.mark.parametrize("begin", ["zeros", "array", "tiled"])
def test_the_first_round_of_an_unrolled_cell_has_the_same_gates(cell, begin):
    found = roles_of(cell, STARTS[begin], CELLS[cell])
    for name in "wub":
        gates = {tuple(s.part for s in use.sections) for use in found[name].uses}
        assert len(gates) == 1
    if cell is lstm:
        assert gates == {("input gate", "forget gate", "cell", "output gate")}


def test_a_constant_that_begins_a_cell_has_its_own_moments():
    def entering(begin):
        uses = roles_of(gru, begin, CELLS[gru])["u"].uses
        return np.array([use.entering for use in uses])

    zeros, array = entering(STARTS["zeros"]), entering(STARTS["array"])
    np.testing.assert_allclose(zeros, array)
    assert np.all(entering(STARTS["ones"])[1:] > zeros[1:])
    tenth = entering(lambda x, n: jnp.full((BATCH, n), 0.1))
    np.testing.assert_allclose(tenth[0], 0.01, rtol=1e-4)


@pytest.mark.parametrize("tile", [lambda h: h, lambda h: jnp.tile(h, (BATCH, 1))])
def test_a_learned_vector_that_begins_a_cell_is_a_token(tile):
    def apply(p, x):
        h = tile(p["h"])
        for t in range(STEPS):
            h = jnp.tanh(x[:, t] @ p["w"] + h @ p["u"] + p["b"])
        return h @ p["o"]

    square = leaf(WIDTH, WIDTH)
    params = {"h": leaf(WIDTH), "b": leaf(WIDTH), **dict.fromkeys("wuo", square)}
    found = jaxinit.roles(apply, params, X)
    assert (found["h"].kind, found["h"].part) == ("embedding", "token")
    assert [use.kind for use in found["u"].uses] == ["kernel"] * STEPS
    assert found["b"].of == ("u", "w")


def test_a_state_that_is_normalized_first_begins_a_loop_too():
    def apply(p, x):
        h = jnp.zeros((BATCH, WIDTH))
        for t in range(STEPS):
            y = (h - h.mean(-1, keepdims=True)) / jnp.sqrt(h.var(-1)[:, None] + 1e-6)
            h = jnp.tanh((y * p["scale"] + p["shift"]) @ p["u"] + x[:, t] @ p["w"])
        return h @ p["o"]

    params = dict.fromkeys(("scale", "shift"), leaf(WIDTH))
    found = jaxinit.roles(apply, params | dict.fromkeys("wuo", leaf(WIDTH, WIDTH)), X)
    for name, kind in {"scale": "scale", "shift": "bias", "u": "kernel"}.items():
        assert [use.kind for use in found[name].uses] == [kind] * STEPS


def test_constants_that_lead_back_to_no_kernel_are_no_activations():
    """Tangents, means of kernels, and what puts a table on other places."""

    def tangent(p, x):
        def f(x):
            return jnp.tanh(x @ p["w"]) @ p["o"]

        return jax.jvp(f, (x,), (jnp.ones_like(x),))[1]

    def resized(p, x):
        mean = np.tri(STEPS) / np.arange(1, STEPS + 1)[:, None]
        return (x + mean @ p["w"][:STEPS]) @ p["o"]

    def centered(p, x):
        mean = jnp.full((WIDTH, WIDTH), 1 / WIDTH) @ p["w"]
        return jnp.tanh(jnp.tanh(x @ (p["w"] - mean)) @ p["w"]) @ p["o"]

    params = dict.fromkeys("wo", leaf(WIDTH, WIDTH))
    for apply in (tangent, resized, centered):
        found = jaxinit.roles(apply, params, X)
        assert found["w"].uses[-1].kind == "unknown" or found["w"].uses[-1].doubt
        assert "unknown" in [use.kind for use in found["w"].uses]
