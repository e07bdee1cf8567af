"""Small models of faults that were found in large ones."""

import jax
import jax.numpy as jnp
import pytest

import jaxinit

pytestmark = pytest.mark.unoptimized

WIDTH = 8


def array(*shape, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(shape, dtype)


def roles(apply, x=(3, 5, WIDTH), **shapes):
    params = {name: array(*shape) for name, shape in shapes.items()}
    return jaxinit.roles(apply, params, array(*x))


SQUARE = (WIDTH, WIDTH)


@pytest.mark.parametrize("function", [jax.nn.softplus, jax.nn.mish])
def test_an_exponential_that_is_not_summed_makes_no_router(function):
    def apply(p, x):
        h = x @ p["w"]
        h = h - h.mean(-1, keepdims=True)
        h = h * jax.lax.rsqrt(jnp.square(h).mean(-1, keepdims=True) + 1e-6)
        return (function(h) * (x.mean(1) @ p["film"])[:, None]) @ p["o"]

    assert roles(apply, w=SQUARE, film=SQUARE, o=SQUARE)["w"].part != "router"


def attention(p, x):
    q, k, v = (x @ p[name] for name in "qkv")
    return jax.nn.softmax(q @ k.mT) @ v


def test_an_attention_is_one_where_its_output_is_cut_or_mixed_again():
    def cut(p, x):
        a, b = jnp.split(attention(p, x), [2], axis=1)
        return a @ p["a"], b @ p["b"]

    def mixed(p, x):
        y = jnp.einsum("bts,bsf->btf", jax.nn.softmax(x @ x.mT), attention(p, x))
        return y @ p["a"], x @ p["b"]

    shapes = dict.fromkeys("qkvab", SQUARE)
    found = roles(cut, **shapes)
    assert found["a"].part == found["b"].part == "attention output"
    found = roles(mixed, **shapes)
    assert (found["a"].part, found["b"].part) == ("attention output", None)


def test_functions_behind_constants_and_concatenations():
    def apply(p, x):
        h = jnp.tanh(x @ p["a"] + jnp.arange(float(WIDTH)))
        return jax.nn.relu(jnp.concatenate([h @ p["b"], x], -1)) @ p["o"]

    found = roles(apply, a=SQUARE, b=SQUARE, o=(2 * WIDTH, WIDTH))
    assert (found["a"].function, found["b"].function) == ("tanh", "relu")


def test_what_a_masked_leaf_is_behind_hides_it():
    def apply(p, x):
        mask = jnp.asarray([1.0, 0.0] * (WIDTH // 2))
        return x * jnp.exp(p["rate"] * mask) + x * (p["scale"] * mask)

    found = roles(apply, rate=(WIDTH,), scale=(WIDTH,))
    assert (found["rate"].kind, found["scale"].kind) == ("unknown", "scale")


GATES = ("update gate", "reset gate", "candidate")


def test_a_gru_whose_update_gate_is_scaled_and_whose_biases_are_rows():
    def apply(p, x):
        def step(h, now):
            x, weight = now
            gates = x @ p["w"] + p["b"][0], h @ p["u"] + p["b"][1]
            (xz, xr, xn), (hz, hr, hn) = (jnp.split(g, 3, -1) for g in gates)
            z = jax.nn.sigmoid(xz + hz) * weight
            n = jnp.tanh(xn + jax.nn.sigmoid(xr + hr) * hn)
            return (1 - z) * h + z * n, None

        x, weight = x[..., :WIDTH].swapaxes(0, 1), x[..., WIDTH:].swapaxes(0, 1)
        return jax.lax.scan(step, jnp.zeros((3, WIDTH)), (x, weight))[0]

    gates = (WIDTH, 3 * WIDTH)
    found = roles(apply, (3, 5, WIDTH + 1), w=gates, u=gates, b=(2, 3 * WIDTH))
    for use in (found["w"].uses[0], found["u"].uses[0], *found["b"].uses):
        sections = [x for x in use.sections if x.part not in ("input", "recurrent")]
        assert tuple(x.part for x in sections) == GATES
        assert {x.axis for x in sections} == {1}


def test_operations_that_are_made_of_others_are_opened():
    def apply(p, x):
        z = (x @ p["w"])[..., 0]
        return z, p["table"][jnp.searchsorted(jnp.linspace(-2.0, 2.0, 6), z)]

    found = roles(apply, w=(WIDTH, 1), table=(7, 3))
    assert found["w"].function == "identity"
    assert found["table"].kind == "embedding"


def repeated(p, x):
    context = jnp.broadcast_to((x.mean(1) @ p["m"])[:, None], x.shape)
    return x + context + jax.nn.relu(x @ p["u"]) @ p["d"]


def implicit(p, x):
    return x + (x.mean(1) @ p["m"])[:, None] + jax.nn.relu(x @ p["u"]) @ p["d"]


def second(p, x):
    x = x + jax.nn.relu(x @ p["u"]) @ p["d"]
    return (x[:, :1] @ p["m"]) + x


@pytest.mark.parametrize("apply", [repeated, implicit, second])
def test_what_is_the_same_for_all_places_is_a_branch_too(apply):
    found = roles(apply, m=SQUARE, u=SQUARE, d=SQUARE)
    order = ("d", "m") if apply is second else ("m", "d")
    assert [found[name].residual for name in order] == [(0, 2), (1, 2)]
    (use,) = found["m"].uses
    assert use.variance * use.entering * WIDTH == pytest.approx(0.5)
    assert found["u"].residual is None


def test_what_is_added_to_a_smaller_value_that_is_repeated_is_no_branch():
    def apply(p, x):
        token = x.mean(1, keepdims=True)
        return token + jax.nn.relu((x - token) @ p["u"]) @ p["d"]

    assert roles(apply, u=SQUARE, d=SQUARE)["d"].residual is None
