"""Small models of faults that were found in large ones."""

import functools

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


def test_a_norm_over_places_of_a_value_is_no_partner_of_its_gate():
    def normed(p, x):
        h = jax.nn.gelu(x @ p["u"])
        length = jnp.sqrt(jnp.square(h).sum(1, keepdims=True))
        return (h * length / length.mean(-1, keepdims=True)) @ p["d"]

    def gated(p, x):
        return (jax.nn.gelu(x @ p["u"]) * x) @ p["d"]

    assert roles(normed, u=SQUARE, d=SQUARE)["u"].part is None
    assert roles(gated, u=SQUARE, d=SQUARE)["u"].part == "gate"


@pytest.mark.parametrize(("features", "part"), [(1, None), (WIDTH, "up")])
def test_a_number_for_each_place_makes_no_gated_unit(features, part):
    def apply(p, x):
        branch = jax.nn.gelu(x @ p["u"]) @ p["d"]
        return x + branch * jax.nn.sigmoid(x @ p["g"])

    found = roles(apply, u=SQUARE, d=SQUARE, g=(WIDTH, features))
    assert (found["d"].part, found["g"].part) == (part, "gate")


def test_a_gru_whose_state_decays_before_its_step():
    def apply(mixed, p, x):
        def step(h, x):
            h = h * jnp.exp(-jax.nn.relu(x @ p["decay"]))
            z, r = (jax.nn.sigmoid(x @ p[f"w{i}"] + h @ p[f"u{i}"]) for i in "zr")
            n = jnp.tanh(x @ p["wn"] + (r * h) @ p["un"])
            return mixed(h, n, z), None

        return jax.lax.scan(step, jnp.zeros((3, WIDTH)), x.swapaxes(0, 1))[0]

    names = "decay", *(f"{kind}{gate}" for kind in "wu" for gate in "zrn")
    for mixed in (
        lambda h, n, z: (1 - z) * n + z * h,
        lambda h, n, z: h + z * (n - h),
    ):
        found = roles(functools.partial(apply, mixed), **dict.fromkeys(names, SQUARE))
        parts = {name: role.part for name, role in found.items()}
        assert parts.pop("decay") not in GATES
        assert tuple(parts[name] for name in ("wz", "wr", "wn")) == GATES
        assert tuple(parts[name] for name in ("uz", "ur", "un")) == GATES


def test_a_gru_that_attention_alone_updates():
    """Without a reset gate, or with one inside the candidate, nothing is sure."""

    def apply(new, p, x):
        def step(h, now):
            x, weight = now
            return (1 - weight) * h + weight * new(p, x, h), None

        weight = jax.nn.softmax(x.mean(-1, keepdims=True), axis=1)
        past = jnp.zeros((3, WIDTH))
        return jax.lax.scan(step, past, (x.swapaxes(0, 1), weight.swapaxes(0, 1)))[0]

    def reset(p, x, h):
        r = jax.nn.sigmoid(x @ p["wr"] + h @ p["ur"])
        return jnp.tanh(x @ p["wn"] + r * (h @ p["un"]))

    def leaky(p, x, h):
        return jnp.tanh(x @ p["wn"] + h @ p["un"])

    def gated(p, x, h):
        return jnp.tanh(x @ p["wn"]) * jax.nn.sigmoid(x @ p["wr"] + h @ p["ur"])

    shapes = dict.fromkeys(("wr", "ur", "wn", "un"), SQUARE)
    found = roles(functools.partial(apply, reset), **shapes)
    parts = tuple(found[name].part for name in shapes)
    assert parts == ("reset gate", "reset gate", "candidate", "candidate")
    for new in (leaky, gated):
        found = roles(functools.partial(apply, new), **shapes)
        used = [role for role in found.values() if role.uses]
        assert not {role.part for role in used} & set(GATES)


def test_what_writes_to_a_residual_stream_is_no_head():
    """Its stream may go on in another model; zeros there would switch a layer off."""

    def written(p, x):
        return x + jax.nn.relu(x @ p["a"]) @ p["b"]

    def replaced(p, x):
        return jax.nn.relu(x @ p["a"]) @ p["b"]

    shapes = {"a": SQUARE, "b": SQUARE}
    found = [roles(apply, **shapes)["b"] for apply in (written, replaced)]
    assert [(x.residual, x.head) for x in found] == [((0, 1), False), (None, True)]


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


def test_an_adapter_of_queries_writes_to_no_stream():
    """The sum of two maps of one input, to which the attention adds by itself."""

    def apply(p, x):
        x = x + jax.nn.relu(x @ p["u"]) @ p["d"]
        query = x @ p["q"] + jax.nn.relu(x @ p["a"]) @ p["b"]
        weights = jax.nn.softmax(query @ jnp.swapaxes(x @ p["k"], 1, 2))
        return x + weights @ (x @ p["v"]) @ p["o"]

    found = roles(apply, **dict.fromkeys("udqabkvo", SQUARE))
    assert [found[name].residual for name in "dbo"] == [(0, 2), None, (1, 2)]


@pytest.mark.parametrize("is_repeated", [False, True])
def test_what_is_added_to_a_smaller_value_that_is_repeated_is_no_branch(is_repeated):
    def apply(p, x):
        token = x.mean(1, keepdims=True)
        token = jnp.broadcast_to(token, x.shape) if is_repeated else token
        return token + jax.nn.relu((x - token) @ p["u"]) @ p["d"]

    assert roles(apply, u=SQUARE, d=SQUARE)["d"].residual is None


TOKENS = array(3, 5, dtype=jnp.int32)
LETTERS = jax.ShapeDtypeStruct((WIDTH + 1, WIDTH), jnp.float32)


def by_steps(hot):
    return [hot[:, t] for t in range(hot.shape[1])]


def by_scan(hot):
    return jax.lax.scan(lambda c, x: (c, x), 0, hot.swapaxes(0, 1))[1]


def one_later(hot):
    return jnp.pad(hot, ((0, 0), (1, 0), (0, 0)))[:, :-1]


def masked(hot):
    return hot * (jnp.arange(5) > 1)[:, None]


@pytest.mark.parametrize("parts", [by_steps, by_scan, one_later, masked])
def test_parts_of_one_hots_look_up_rows(parts):
    def apply(p, tokens):
        hot = parts(jax.nn.one_hot(tokens, WIDTH + 1))
        return [jnp.tanh(x @ p["w"]) for x in hot]

    found = jaxinit.roles(apply, {"w": LETTERS}, TOKENS)["w"]
    assert {(use.kind, use.fan_in) for use in found.uses} == {("embedding", 1)}


def generated(p, h, choose):
    def step(carry, _):
        h, x = carry
        h = 0.5 * h + 0.5 * jnp.tanh(x @ p["w"] + h @ p["u"])
        x = choose(jnp.argmax(h @ p["o"], -1))
        return (h, x), h

    return jax.lax.scan(step, (h, jnp.zeros_like(h)), None, length=4)[1]


@pytest.mark.parametrize("way", ["rows", "one-hots", "inputs"])
def test_a_loop_that_reads_what_it_chose_is_over_time(way):
    def apply(p, x):
        def choose(i):
            if way == "rows":
                return p["rows"][i]
            rows = p["rows"] if way == "one-hots" else x[0] @ p["rows"]
            return jax.nn.one_hot(i, WIDTH) @ rows

        return generated(p, x[:, 0], choose)

    found = roles(
        apply, (WIDTH, WIDTH, WIDTH), **dict.fromkeys(("rows", *"wuo"), SQUARE)
    )
    assert [found[x].recurrent for x in "wu"] == [True, True]
    assert [found[x].residual for x in "wu"] == [None, None]


def test_a_loop_of_layers_that_choose_experts_is_none_over_time():
    def apply(p, x):
        def layer(h, _):
            i = jnp.argmax(h @ p["o"], -1)
            return h + jnp.einsum("bf,bfg->bg", h, p["experts"][i]), None

        return jax.lax.scan(layer, x[:, 0], None, length=4)[0]

    found = roles(apply, o=SQUARE, experts=(WIDTH, *SQUARE))["experts"]
    assert (found.recurrent, found.residual) == (False, (0, 4))


@pytest.mark.parametrize("pool", [jnp.mean, jnp.max])
def test_a_pooled_shortcut_goes_on_with_its_stream(pool):
    def block(p, x, n, pooled):
        y = jnp.tanh(x @ p[f"a{n}"])
        y = (y[:, ::2] if pooled else y) @ p[f"b{n}"]
        if pooled:
            x = pool(x.reshape(3, -1, 2, WIDTH), axis=2) @ p["short"]
        return jax.nn.relu(x + y)

    def apply(p, x):
        x = x @ p["first"]
        for n, pooled in enumerate((False, True, False)):
            x = block(p, x, n, pooled)
        return x @ p["last"]

    names = ("first", "short", "last", *(f"{x}{n}" for x in "ab" for n in range(3)))
    found = roles(apply, (3, 6, WIDTH), **dict.fromkeys(names, SQUARE))
    assert [found[f"b{n}"].residual for n in range(3)] == [(0, 3), (1, 3), (2, 3)]
    assert found["short"].residual is None


def cell(p, x, update, gated):
    """A state that is updated, gate `r` on the state or on the input."""

    def step(h, x):
        both = jnp.concatenate([x, h], -1)
        gate = jax.nn.sigmoid(both @ p["r"])
        x, past = (gate * x, h) if gated == "input" else (x, gate * h)
        new = jnp.tanh(jnp.concatenate([x, past], -1) @ p["n"])
        h = update(p, both, h, new)
        return h, h

    return jax.lax.scan(step, jnp.zeros((3, WIDTH)), jnp.swapaxes(x, 0, 1))[1]


def complementary(p, both, h, new):
    z = jax.nn.sigmoid(both @ p["z"])
    return z * h + (1 - z) * new


def by_one_weight(p, both, h, new):
    return p["a"] * h + (1 - p["a"]) * new


def by_two_weights(p, both, h, new):
    return p["a"] * h + (1 - p["b"]) * new


CELLS = {
    (complementary, "state"): ("reset gate", "candidate"),
    (complementary, "input"): ("gate", "candidate"),
    (by_one_weight, "state"): ("reset gate", "candidate"),
    (by_two_weights, "state"): ("gate", None),
}


@pytest.mark.parametrize("case", CELLS)
def test_a_reset_gate_is_of_the_state_and_of_a_cell(case):
    apply = functools.partial(cell, update=case[0], gated=case[1])
    both = (2 * WIDTH, WIDTH)
    found = roles(apply, r=both, n=both, z=both, a=(WIDTH,), b=(WIDTH,))
    assert (found["r"].part, found["n"].part) == CELLS[case]


def test_where_arrays_are_put_is_no_matter():
    def apply(p, x):
        here = jax.device_put(p, jax.devices()[0])
        return jax.nn.relu(x @ here["a"]) @ here["b"]

    shapes = dict.fromkeys("ab", jax.ShapeDtypeStruct((8, 8), jnp.float32))
    found = jaxinit.roles(apply, shapes, jax.ShapeDtypeStruct((3, 8), jnp.float32))
    assert [role.kind for role in found.values()] == ["kernel", "kernel"]
    assert found["a"].function == "relu"


def stepped(make, w):
    return w + jax.lax.stop_gradient(make(w) - w)


THREE = (3, WIDTH, WIDTH)
TERMS = {
    "leaves": (2, lambda p, x: x @ (p["a"] + p["b"])),
    "their difference": (2, lambda p, x: x @ (p["a"] - p["b"]).T),
    "parts of one": (3, lambda p, x: x @ sum(p["c"][i] for i in range(3))),
    "parts and a leaf": (4, lambda p, x: x @ (p["a"] + sum(p["c"]))),
    "one of them twice": (2, lambda p, x: x @ ((p["a"] + p["b"]) + p["b"])),
    "sums": (3, lambda p, x: x @ ((p["a"] + p["b"]) + (p["a"] + p["c"][0]))),
    "of a window": (
        2,
        lambda p, x: jax.lax.conv_general_dilated(
            x, p["c"] + p["a"], (1,), "SAME", dimension_numbers=("NWC", "WIO", "NWC")
        ),
    ),
    "alone": (1, lambda p, x: x @ p["a"]),
    "itself": (1, lambda p, x: x @ (p["a"] + p["a"])),
    "without its mean": (1, lambda p, x: x @ (p["a"] - p["a"].mean(0))),
    "with a product": (1, lambda p, x: x @ (p["a"] + p["b"] @ p["c"][0])),
    "outputs": (1, lambda p, x: x @ p["a"] + (p["c"][0, 0] + p["c"][1, 0])),
    "padded": (
        1,
        lambda p, x: (
            x
            @ sum(
                jnp.pad(p[name][:, i : i + 4], ((0, 0), (i, 4 - i)))
                for name, i in (("a", 0), ("b", 4))
            )
        ),
    ),
    "rounded": (
        1,
        lambda p, x: x @ stepped(lambda w: jnp.round(w * 16) / 16, p["a"]),
    ),
}


@pytest.mark.parametrize("name", TERMS)
def test_terms_of_a_sum_share_the_variance_of_a_kernel(name):
    terms, apply = TERMS[name]
    found = roles(apply, a=SQUARE, b=SQUARE, c=THREE)
    uses = [use for role in found.values() for use in role.uses]
    kernels = [use for use in uses if use.kind in ("kernel", "convolution")]
    inputs = 3 * WIDTH if name == "of a window" else WIDTH
    assert kernels
    for use in kernels:
        assert use.fan_in == terms * inputs
        wanted = 1 / (terms * inputs * use.multiplier**2)
        assert use.variance == pytest.approx(wanted)


HIDDEN = {
    "its sign": lambda w, a: stepped(jnp.sign, w),
    "its sign, first": lambda w, a: jax.lax.stop_gradient(jnp.sign(w) - w) + w,
    "its whole part": lambda w, a: stepped(jnp.round, w),
    "the tanh": lambda w, a: stepped(jnp.tanh, w),
    "an identity": lambda w, a: w + jnp.eye(WIDTH),
    "an identity behind a sum": lambda w, a: (w + a) + jnp.eye(WIDTH),
    "a number": lambda w, a: 1 + w,
    "a number behind a sum": lambda w, a: (w - a) - 2.0,
}


@pytest.mark.parametrize("name", HIDDEN)
def test_what_is_added_to_a_kernel_makes_it_unknown(name):
    found = roles(lambda p, x: x @ HIDDEN[name](p["w"], p["a"]), w=SQUARE, a=SQUARE)
    assert found["w"].kind == "unknown"


@pytest.mark.parametrize("name", "qkv")
def test_what_a_sigmoid_multiplies_before_an_attention_has_a_gate(name):
    def apply(p, x):
        given = {each: x @ p[each] for each in "qkv"}
        given[name] = given[name] * jax.nn.sigmoid(x @ p["gate"])
        return jax.nn.softmax(given["q"] @ given["k"].mT) @ given["v"] @ p["o"]

    found = roles(apply, **dict.fromkeys(["gate", *"qkvo"], SQUARE))
    parts = {"q": "query", "k": "key", "v": "value", "gate": "gate"}
    assert {each: found[each].part for each in parts} == parts


def test_values_of_rows_that_a_sigmoid_lets_in_have_a_gate():
    ids = jnp.arange(15).reshape(3, 5)

    def apply(p, x, ids):
        let_in = 2 * jax.nn.sigmoid(x[..., :3] @ p["gate"])[..., None]
        rows = let_in * p["rows"][ids].reshape(3, 5, 2, -1)
        v = x @ p["v"] + rows.reshape(3, 5, WIDTH)
        return jax.nn.softmax((x @ p["q"]) @ (x @ p["k"]).mT) @ v @ p["o"]

    shapes = {"gate": (3, 2), "rows": (15, WIDTH), **dict.fromkeys("qkvo", SQUARE)}
    params = {name: array(*shape) for name, shape in shapes.items()}
    found = jaxinit.roles(apply, params, array(3, 5, WIDTH), ids)
    assert (found["gate"].part, found["v"].part) == ("gate", "value")
