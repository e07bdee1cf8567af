"""What is handed in or joined: masks, centers, stacked outputs, axes of size one."""

import jax
import jax.numpy as jnp
import pytest

import jaxinit

pytestmark = pytest.mark.unoptimized

WIDTH = 8
SQUARE, SEQUENCE = (WIDTH, WIDTH), (3, 5, WIDTH)
gelu, relu, sigmoid = jax.nn.gelu, jax.nn.relu, jax.nn.sigmoid


def roles(apply, *inputs, **shapes):
    params = {name: jax.ShapeDtypeStruct(s, jnp.float32) for name, s in shapes.items()}
    given = [jax.ShapeDtypeStruct(s, jnp.float32) for s in (SEQUENCE, *inputs)]
    return jaxinit.roles(apply, params, *given)


GIVEN = {
    "a mask": (SEQUENCE, lambda p, x, m: relu(x @ p["w"]) * m / 0.8),
    "for features": ((WIDTH,), lambda p, x, m: (1 - m) * gelu(x @ p["w"])),
    "for samples": ((3, 1, 1), lambda p, x, m: jnp.tanh(x @ p["w"]) * jnp.exp(-m)),
    "scale and shift": (SEQUENCE, lambda p, x, m: gelu(x @ p["w"]) * m + m),
    "in the same array": (
        (3, 5, WIDTH + 1),
        lambda p, x, m: relu(m[..., :WIDTH] @ p["w"]) * m[..., WIDTH:],
    ),
    "of probabilities": (SEQUENCE, lambda p, x, m: jax.nn.softmax(x @ p["w"]) * m),
    "of colors": ((3, 5, 1), lambda p, x, m: (m * sigmoid(x @ p["w"])).sum(1)),
    "of buttons": ((3, 5, 1), lambda p, x, m: sigmoid(x @ p["w"]) * m),
    "of an entropy": (
        SEQUENCE,
        lambda p, x, m: -(jax.nn.log_softmax(x @ p["w"]) * m).sum(-1),
    ),
}


@pytest.mark.parametrize("name", GIVEN)
def test_what_is_handed_in_makes_no_gate_and_no_router(name):
    mask, apply = GIVEN[name]
    assert roles(apply, mask, w=SQUARE)["w"].part is None


GATES = {
    "what it multiplies itself": ("gate", lambda p, x, m: jnp.tanh(x @ p["w"]) * 2 * x),
    "a sigmoid": ("gate", lambda p, x, m: sigmoid(x @ p["w"]) * m),
    "twice a sigmoid": ("gate", lambda p, x, m: 2 * sigmoid(x @ p["w"]) * m),
    "a mixture": (
        "router",
        lambda p, x, m: jnp.einsum("bte,bted->btd", jax.nn.softmax(x @ p["w"]), m),
    ),
}


@pytest.mark.parametrize("name", GATES)
def test_what_gates_inputs_all_the_same(name):
    part, apply = GATES[name]
    mask = (*SEQUENCE, 4) if part == "router" else SEQUENCE
    assert roles(apply, mask, w=SQUARE)["w"].part == part


@pytest.mark.parametrize("function", [jnp.exp, jax.nn.softplus, sigmoid])
def test_colors_are_weighed_and_no_gates(function):
    """Densities along a ray weigh them: Mildenhall et al., "NeRF" (2020)."""

    def apply(p, x):
        alpha = 1 - jnp.exp(-function(x @ p["density"]))
        left = jnp.cumprod(1 - alpha, axis=1) / (1 - alpha)
        return (alpha * left * sigmoid(x @ p["color"])).sum(1)

    found = roles(apply, density=(WIDTH, 1), color=(WIDTH, 3))
    color = found["color"]
    assert (color.part, color.function, color.head) == (None, "sigmoid", True)
    assert found["density"].part is None


def test_a_state_that_a_mask_resets_has_no_gate():
    def apply(p, x, mask):
        def step(h, now):
            x, m = now
            return m * jnp.tanh(x @ p["w"] + h @ p["u"]) + (1 - m) * h, None

        now = x.swapaxes(0, 1), mask.swapaxes(0, 1)
        return jax.lax.scan(step, jnp.zeros((3, WIDTH)), now)[0]

    found = roles(apply, (3, 5, 1), w=SQUARE, u=SQUARE)
    assert (found["w"].part, found["u"].part) == (None, None)


def squared(h, c):
    return ((h[:, :, None] - c) ** 2).sum(-1)


CENTERS = {
    "codes": ((11, WIDTH), "identity", lambda p, x: squared(x @ p["w"], p["c"])),
    "behind a function": (
        (11, WIDTH),
        "tanh",
        lambda p, x: squared(jnp.tanh(x @ p["w"]), p["c"]),
    ),
    "the other way": (
        (11, WIDTH),
        "identity",
        lambda p, x: jnp.abs(p["c"] - (x @ p["w"])[:, :, None]).sum(-1),
    ),
    "one for each": (
        (11,),
        "identity",
        lambda p, x: jnp.exp(-(((x @ p["w"])[..., None] - p["c"]) ** 2)).sum(-2),
    ),
}


@pytest.mark.parametrize("name", CENTERS)
def test_centers_are_no_positions_and_end_the_function(name):
    shape, function, apply = CENTERS[name]
    found = roles(apply, w=SQUARE, c=shape)
    assert found["c"].kind == "unknown"
    assert found["w"].function == function


def test_what_is_subtracted_at_each_place_is_a_position():
    found = roles(lambda p, x: relu(x @ p["w"] - p["c"]), w=SQUARE, c=(5, WIDTH))
    assert found["c"].kind == "position"


def both(p, x):
    return x @ p["a"], x @ p["b"]


SUMS = {
    "mean": lambda p, x: jnp.stack(both(p, x), -1).mean(-1),
    "sum": lambda p, x: jnp.stack(both(p, x), 1).sum(1),
    "concatenated": lambda p, x: jnp.concatenate([y[None] for y in both(p, x)]).sum(0),
    "reshaped": lambda p, x: (
        jnp.concatenate(both(p, x), -1).reshape(3, 5, 2, WIDTH).mean(2)
    ),
    "half": lambda p, x: sum(both(p, x)) / 2,
    "half, and more": lambda p, x: sum(both(p, x)) / 2 + x @ p["d"],
}


@pytest.mark.parametrize("name", SUMS)
def test_a_function_is_found_behind_kernels_whose_outputs_are_put_together(name):
    def apply(p, x):
        return gelu(SUMS[name](p, x) + p["bias"]) @ p["out"]

    shapes = dict.fromkeys(("a", "b", "d", "out"), SQUARE)
    found = roles(apply, **shapes, bias=(WIDTH,))
    assert found["a"].function == found["b"].function == "gelu"
    used = ("a", "b", "d") if found["d"].uses else ("a", "b")
    assert (found["bias"].kind, found["bias"].of) == ("bias", used)


def test_what_is_taken_of_stacked_outputs_is_not_told_apart():
    def gated(p, x):
        s = jnp.stack(both(p, x))
        return s[0] * sigmoid(s[1])

    def first(p, x):
        return jnp.stack(both(p, x))[0] + p["bias"]

    found = roles(gated, a=SQUARE, b=SQUARE)
    assert (found["a"].part, found["b"].part) == (None, None)
    assert roles(first, a=SQUARE, b=SQUARE, bias=(WIDTH,))["bias"].of == ()


def test_means_over_places_are_no_sums_of_kernels():
    def apply(p, x):
        return gelu(jnp.concatenate(both(p, x), 1).mean(1))

    assert roles(apply, a=SQUARE, b=SQUARE)["a"].function == "identity"


def test_biases_of_kernels_whose_outputs_are_concatenated():
    def joined(p, x):
        return jnp.concatenate([x @ p["a"], x @ p["b"]], -1) + p["bias"]

    def gated(p, x):
        u, v = jnp.split(joined(p, x), 2, -1)
        return u * sigmoid(v)

    def beside(p, x):
        return jnp.concatenate([x @ p["a"], x], -1) + p["bias"]

    def cut(p, x):
        return jnp.concatenate([x @ p["a"], x @ p["b"]], -1)[..., :WIDTH] + p["bias"]

    shapes = {"a": SQUARE, "b": SQUARE}
    (use,) = roles(gated, **shapes, bias=(2 * WIDTH,))["bias"].uses
    assert (use.of, [x.part for x in use.sections]) == (("a", "b"), ["up", "gate"])
    assert roles(beside, a=SQUARE, bias=(2 * WIDTH,))["bias"].of == ()
    assert roles(cut, **shapes, bias=(WIDTH,))["bias"].of == ("a",)


def test_a_token_that_is_stacked():
    def apply(p, x):
        token = jnp.broadcast_to(p["token"], x.shape)
        return jnp.stack([x @ p["w"], token], axis=2) @ p["w"]

    found = roles(apply, token=(WIDTH,), w=SQUARE)["token"]
    assert (found.kind, found.part) == ("embedding", "token")


NAMES = {
    "softplus": jax.nn.softplus,
    "log_sigmoid": jax.nn.log_sigmoid,
    "mish": jax.nn.mish,
    "hard_swish": jax.nn.hard_swish,
}


@pytest.mark.parametrize("name", NAMES)
def test_a_leaf_that_is_no_scale_ends_a_function(name):
    def apply(p, x):
        return jnp.exp(-jnp.exp(p["rate"]) * NAMES[name](x @ p["w"] + p["b"]))

    assert roles(apply, w=SQUARE, b=(WIDTH,), rate=(WIDTH,))["w"].function == name


FUNCTIONS = {
    "softplus, log, mul": lambda z: 2 * jnp.log(jax.nn.softplus(z)),
    "gelu, cos": lambda z: jnp.cos(gelu(z)),
    "add, cos": lambda z: jnp.cos(z + 1),
    "tanh, mul": lambda z: jnp.tanh(z) * z,  # z is taken by what follows, too
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_without_a_name_are_told_by_what_begins_them(name):
    (use,) = roles(lambda p, x: FUNCTIONS[name](x @ p["w"]), w=SQUARE)["w"].uses
    assert use.function == name


def test_a_sigmoid_that_is_written_as_a_tanh():
    found = roles(lambda p, x: 0.5 * jnp.tanh(0.5 * (x @ p["w"])) + 0.5, w=SQUARE)
    assert found["w"].function == "sigmoid"


def test_axes_of_size_one_are_summed_over_or_broadcast():
    def apply(p, x):
        h = jnp.einsum("bti,ijo->bto", x, p["summed"])
        return jnp.einsum("bti,jio->btjo", h, p["kept"]) @ p["last"]

    found = roles(apply, summed=(WIDTH, 1, 6), kept=(1, 6, 7), last=(7, 1))
    summed, kept, last = (found[name] for name in ("summed", "kept", "last"))
    assert (summed.kind, summed.in_axis, summed.out_axis) == ("kernel", (0,), (2,))
    assert (kept.in_axis, kept.out_axis) == ((1,), (2,))
    assert (last.in_axis, last.out_axis) == ((0,), (1,))
