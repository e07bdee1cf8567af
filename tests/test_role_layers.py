"""Layers by roles: which one each write is of, and in which order a loop takes them."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxinit
from jaxinit import schemes
from jaxinit._roles.meetings.layers import Kind, layers_of
from jaxinit.schemes.building import by_depth, by_writers, times

pytestmark = pytest.mark.unoptimized

SOURCES = {"A": "self", "X": "cross"}


def steps(text, shapes=None):
    """A step for each letter, or for each word: A and X are attentions."""
    words = text.split() if " " in text else text
    return [
        tuple(Kind(SOURCES.get(x), x, shapes[i] if shapes else x) for x in word)
        for i, word in enumerate(words)
    ]


TOLD = {
    "Am": [0, 0],
    "AmAmAm": [0, 0, 1, 1, 2, 2],
    "AXmAXm": [0, 0, 0, 1, 1, 1],
    "AA": [0, 1],
    "AmAeAe": [0, 0, 1, 1, 2, 2],
    "AmAeAmAe": [0, 0, 1, 1, 2, 2, 3, 3],
    "mmm": [0, 1, 2],
    "m": [0],
    "tctc": [0, 0, 1, 1],
    "cAmcAm": [0, 0, 0, 1, 1, 1],
    "Am Am": [0, 1],
    "XmAmAm": [0, 0, 1, 1, 2, 2],
    "cAmAm": None,
    "smsmAmsmsmAm": None,
    "fAcffAcf": None,
    "mAmA": None,
    "XmAmXmAm": None,
    "tc": None,
    "tctct": None,
}


@pytest.mark.parametrize("text", TOLD)
def test_layers_follow_from_what_repeats(text):
    assert layers_of(steps(text)) == TOLD[text]


def test_layers_of_other_shapes_repeat_in_what_they_compute():
    assert layers_of(steps("mmm", "123")) == [0, 1, 2]
    assert layers_of(steps("tctc", "1234")) == [0, 0, 1, 1]
    assert layers_of(steps("tctc", "1111")) is None
    assert layers_of(steps("AmAm", "1234")) == [0, 0, 1, 1]


def leaf(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.float32)


LAYERS, WIDTH = 4, 6
X = leaf(2, 5, WIDTH)
BLOCK = dict.fromkeys("qkvo", (WIDTH, WIDTH)) | {"up": (6, 8), "down": (8, 6)}


def attended(x, p, memory, name=""):
    query, key, value = (
        x @ p[f"q{name}"],
        memory @ p[f"k{name}"],
        memory @ p[f"v{name}"],
    )
    weights = jax.nn.softmax(query @ key.mT / WIDTH**0.5)
    return weights @ value @ p[f"o{name}"]


def fed(x, p):
    return jax.nn.gelu(x @ p["up"]) @ p["down"]


def block(x, p, memory=None):
    """Attention, to a memory too if there is one, and a feed-forward layer."""
    x = x + attended(x, p, x)
    if memory is not None:
        x = x + attended(x, p, memory, "2")
    return x + fed(x, p)


def each(change, params):
    return jax.tree.map(change, params)


def at(i, params):
    return each(lambda w: w[i], params)


def scan(params, x, step=block, **options):
    return jax.lax.scan(lambda x, p: (step(x, p), None), x, params, **options)[0]


def indexed(place):
    def apply(params, x):
        def step(i, x):
            return block(x, at(place(i), params))

        return jax.lax.fori_loop(0, LAYERS, step, x)

    return apply


def counted(params, x):
    def step(x, i):
        return block(x, at(i, params)), None

    return jax.lax.scan(step, x, jnp.arange(LAYERS), reverse=True)[0]


def unrolled(params, x):
    for i in (2, 0, 3, 1):
        x = block(x, at(i, params))
    return x


def grouped(params, x, **options):
    return scan(params, x, functools.partial(lambda x, p: scan(p, x)), **options)


def regrouped(params, x):
    return grouped(each(lambda w: w.reshape(2, 2, *w.shape[1:]), params), x)


def transposed(params, x):
    return scan(each(lambda w: jnp.moveaxis(w, 1, 0), params), x)


# The function, the axes of layers in front, and in which order it takes the layers.
LOOPS = {
    "forward": (scan, (4,), [0, 1, 2, 3]),
    "reversed": (functools.partial(scan, reverse=True), (4,), [3, 2, 1, 0]),
    "flipped": (lambda p, x: scan(each(lambda w: w[::-1], p), x), (4,), [3, 2, 1, 0]),
    "permuted": (
        lambda p, x: scan(each(lambda w: w[np.array([2, 0, 3, 1])], p), x),
        (4,),
        [2, 0, 3, 1],
    ),
    "indexed": (indexed(lambda i: i), (4,), [0, 1, 2, 3]),
    "indexed from the end": (indexed(lambda i: 3 - i), (4,), [3, 2, 1, 0]),
    "indexed in turns": (indexed(lambda i: (i + 2) % 4), (4,), [2, 3, 0, 1]),
    "counted": (counted, (4,), [3, 2, 1, 0]),
    "unrolled": (unrolled, (4,), [2, 0, 3, 1]),
    "groups": (grouped, (2, 2), [0, 1, 2, 3]),
    "groups reversed": (
        functools.partial(grouped, reverse=True),
        (2, 2),
        [2, 3, 0, 1],
    ),
    "regrouped": (regrouped, (4,), [0, 1, 2, 3]),
}


def planned(scheme, shapes, roles):
    return {x.path: x for x in jaxinit.plan(shapes, scheme, roles=roles)}


def deviations(init, shape) -> Any:
    """The standard deviation of every layer in an array."""
    if isinstance(init, jaxinit.split) and isinstance(init.init, tuple):
        parts = init._parts(shape)
        return [x for part, own in parts for x in deviations(part, own)]
    return [init.moments(shape).std]


@functools.cache
def apart(name):
    """The standard deviations of layers that have a leaf each, by a scheme."""

    def apply(params, x):
        for p in params:
            x = block(x, p)
        return x

    shapes = [{k: leaf(*shape) for k, shape in BLOCK.items()}] * LAYERS
    plan = planned(ALL[name](), shapes, jaxinit.roles(apply, shapes, X))
    return {k: [plan[f"{i}/{k}"].std for i in range(LAYERS)] for k in ("o", "down")}


SCHEMES = {"vit": schemes.vit, "mitchell": schemes.mitchell}
ALL = SCHEMES | {"auto": schemes.auto}


def test_layers_with_a_leaf_each_differ():
    found = apart("mitchell")["down"]
    np.testing.assert_allclose(found, found[0] / np.sqrt([1, 2, 3, 4]), rtol=1e-6)


@pytest.mark.sample(5)
@pytest.mark.parametrize("name", LOOPS)
def test_layers_in_one_array_are_those_with_a_leaf_each(name):
    """Each has the standard deviation of its layer, in whatever order it is taken."""
    apply, front, taken = LOOPS[name]
    shapes = {k: leaf(*front, *shape) for k, shape in BLOCK.items()}
    roles = jaxinit.roles(apply, shapes, X)
    for scheme, make in SCHEMES.items():
        plan = planned(make(), shapes, roles)
        assert planned(make(LAYERS), shapes, roles) == plan
        for path in ("o", "down"):
            found = deviations(plan[path].initializer, plan[path].shape)
            wanted = apart(scheme)[path]
            np.testing.assert_allclose([found[i] for i in taken], wanted, rtol=1e-6)
    drawn = plan["down"].draw(jax.random.key(0))
    assert drawn.shape == plan["down"].shape
    assert float(jnp.abs(drawn).max()) > 0


def test_a_scan_of_separate_leaves_tells_the_layer_of_each():
    def apply(params, x):
        return scan(jax.tree.map(lambda *w: jnp.stack(w), *params), x, reverse=True)

    def one_by_one(params, x):
        stacked = jax.tree.map(lambda *w: jnp.stack(w), *params)
        for i in reversed(range(LAYERS)):
            x = block(x, at(i, stacked))
        return x

    shapes = [{k: leaf(*shape) for k, shape in BLOCK.items()}] * LAYERS
    for function in (apply, one_by_one):
        roles = jaxinit.roles(function, shapes, X)
        assert [roles[f"{i}/down"].residual for i in range(4)] == [
            (7, 8),
            (5, 8),
            (3, 8),
            (1, 8),
        ]
        plan = planned(schemes.mitchell(), shapes, roles)
        found = [plan[f"{i}/o"].std for i in reversed(range(LAYERS))]
        np.testing.assert_allclose(found, apart("mitchell")["o"], rtol=1e-6)


@pytest.mark.parametrize("name", ["forward", "indexed", "groups"])
def test_auto_takes_the_stream_of_a_loop_as_it_begins(name):
    apply, front, _ = LOOPS[name]
    shapes = {k: leaf(*front, *shape) for k, shape in BLOCK.items()}
    plan = planned(schemes.auto(), shapes, jaxinit.roles(apply, shapes, X))
    found = [plan[path].std for path in ("o", "down")]
    np.testing.assert_allclose(found, [x[0] for x in apart("auto").values()], 1e-6)


def cached(params, x, keys):
    """Each layer attends to keys of its own, beside those of its input."""

    def step(x, now):
        p, before = now
        return block(x + attended(x, p, before), p), None

    return jax.lax.scan(step, x, (params, keys))[0]


def weighted(params, x, rates):
    def step(x, now):
        p, rate = now
        return x + rate * fed(x, p), None

    return jax.lax.scan(step, x, (params, rates))[0]


@pytest.mark.parametrize(
    ("apply", "given", "writers"),
    [(cached, leaf(LAYERS, *X.shape), 3 * LAYERS), (weighted, leaf(LAYERS), LAYERS)],
)
def test_a_loop_of_kernels_and_data_for_each_round_is_over_layers(
    apply, given, writers
):
    shapes = {k: leaf(LAYERS, *shape) for k, shape in BLOCK.items()}
    use = jaxinit.roles(apply, shapes, X, given)["down"].uses[0]
    assert use.residual == (writers // LAYERS - 1, writers)
    assert (use.layers, use.recurrent) == ((0, 1, 2, 3), False)


def test_orders_and_layers_are_in_roles():
    shapes = {k: leaf(LAYERS, *shape) for k, shape in BLOCK.items()}
    roles = jaxinit.roles(functools.partial(scan, reverse=True), shapes, X)
    assert roles["down"].order == (7, 5, 3, 1)
    assert roles["down"].layers == roles["q"].layers == (3, 2, 1, 0)
    assert (roles["down"].residual, roles["down"].depth) == ((1, 8), 4)
    assert (roles["q"].order, roles["q"].stream) == ((), 0)
    uses = jaxinit.roles(unrolled, shapes, X)["o"].uses
    assert [use.layers for use in uses][:2] == [
        (None, None, 0, None),
        (1, None, None, None),
    ]


def by_data(params, x):
    order = jnp.argsort(x[0, :LAYERS, 0])
    return scan(each(lambda w: w[order], params), x)


def by_data_in_a_loop(params, x):
    order = jnp.argsort(x[0, :LAYERS, 0])
    return indexed(lambda i: order[i])(params, x)


def all_but_one(params, x):
    return scan(each(lambda w: w[1:], params), x)


@pytest.mark.parametrize("apply", [by_data, by_data_in_a_loop, all_but_one])
def test_layers_in_an_unknown_order_are_refused(apply):
    shapes = {k: leaf(LAYERS, *shape) for k, shape in BLOCK.items()}
    roles = jaxinit.roles(apply, shapes, X)
    rules = {"**": times(jaxinit.normal(1.0), by_depth(None))}
    with pytest.raises(jaxinit.PlanError, match="give it a rule of its own"):
        planned(rules, shapes, roles)


def test_a_kernel_of_several_layers_is_refused():
    shapes = {k: leaf(*shape) for k, shape in BLOCK.items()}

    def apply(params, x):
        return jax.lax.fori_loop(0, 3, lambda i, x: block(x, params), x)

    roles = jaxinit.roles(apply, shapes, X)
    with pytest.raises(jaxinit.PlanError, match="is used in several layers"):
        planned(schemes.mitchell(), shapes, roles)
    assert planned(schemes.gpt2(), shapes, roles)["down"].std == pytest.approx(
        0.02 / math.sqrt(6)
    )


def test_a_loop_around_a_model_adds_no_layers():
    """As of a sampler, each round of which begins the stream of the model anew."""

    def apply(params, x):
        def step(i, x):
            return x + 0.1 * scan(params["layers"], x @ params["in"]) @ params["out"]

        return jax.lax.fori_loop(0, 9, step, x)

    shapes = {"layers": {k: leaf(LAYERS, *shape) for k, shape in BLOCK.items()}}
    shapes |= {"in": leaf(6, 6), "out": leaf(6, 6)}
    roles = jaxinit.roles(apply, shapes, X)
    assert roles["layers/down"].residual == (1, 8)
    assert roles["layers/down"].layers == (0, 1, 2, 3)
    assert roles["out"].residual == (0, 9)


def test_what_follows_a_loop_is_numbered_behind_all_its_rounds():
    def apply(params, x):
        return block(scan(params["layers"], x), params["last"])

    shapes = {"layers": {k: leaf(LAYERS, *shape) for k, shape in BLOCK.items()}}
    shapes |= {"last": {k: leaf(*shape) for k, shape in BLOCK.items()}}
    roles = jaxinit.roles(apply, shapes, X)
    assert roles["layers/down"].residual == (1, 10)
    assert roles["last/down"].residual == (9, 10)


def test_a_layer_with_an_attention_is_no_half_of_one():
    shapes = {k: leaf(LAYERS, *shape) for k, shape in BLOCK.items()}
    roles = jaxinit.roles(scan, shapes, X)
    with pytest.raises(jaxinit.PlanError, match=r"layers=2 was given.* has 4 layers"):
        planned(schemes.gpt2(2), shapes, roles)


def test_rounds_are_counted_before_a_loop_of_unknown_length_too():
    def apply(params, x):
        x = scan(params["layers"], x)
        x = jax.lax.while_loop(
            lambda x: (x > 0).any(), lambda x: block(x, params["many"]), x
        )
        return block(x, params["last"])

    one = {k: leaf(*shape) for k, shape in BLOCK.items()}
    shapes = {"layers": {k: leaf(LAYERS, *shape) for k, shape in BLOCK.items()}}
    roles = jaxinit.roles(apply, shapes | {"many": one, "last": one}, X)
    found = [roles[f"{name}/o"].residual for name in ("layers", "many", "last")]
    assert found == [(0, None), (8, None), (8, None)]


def test_a_loop_whose_layers_take_data_of_their_own_is_no_loop_over_time():
    """As one with caches, or numbers that say which layers are dropped."""

    def apply(params, x, caches, kept):
        def step(x, layer):
            p, cache, is_kept = layer
            memory = jnp.concatenate([cache, x], 1)
            attending = x + attended(x, p, memory)
            return x + is_kept * (attending + fed(attending, p) - x), None

        return jax.lax.scan(step, x, (params, caches, kept))[0]

    def dropped(params, x, caches, kept):
        def step(x, layer):
            p, is_kept = layer
            return jax.lax.cond(is_kept > 0, lambda: block(x, p), lambda: x), None

        return jax.lax.scan(step, x, (params, kept))[0]

    shapes = {k: leaf(LAYERS, *shape) for k, shape in BLOCK.items()}
    inputs = X, leaf(LAYERS, *X.shape), leaf(LAYERS)
    for function in (apply, dropped):
        roles = jaxinit.roles(function, shapes, *inputs)
        assert roles["down"].residual == (1, 8), function
        assert roles["down"].layers == (0, 1, 2, 3)
        assert not roles["down"].recurrent


def decoder(params, x, memory):
    for p in params:
        x = block(x, p, memory)
    return x


def perceptron(params, x):
    for p in params:
        x = x + fed(x, p)
    return x


def parallel(params, x):
    for p in params:
        x = x + (attended(x, p, x) + fed(x, p))
    return x


def mixer(params, x):
    for p in params:
        x = x + (jnp.tanh(x.mT @ p["first"]) @ p["mixed"]).mT
        x = x + fed(x, p)
    return x


CROSS = BLOCK | {f"{name}2": (WIDTH, WIDTH) for name in "qkvo"}
# The function, the shapes of a layer, the inputs, and which leaves write.
WRITERS = {
    "three writers a layer": (decoder, CROSS, (X, X), ("o", "o2", "down")),
    "one writer a layer": (
        perceptron,
        {k: BLOCK[k] for k in ("up", "down")},
        (X,),
        ("down",),
    ),
    "parallel branches": (parallel, BLOCK, (X,), ("o", "down")),
    "tokens and channels": (
        mixer,
        {"first": (5, 7), "mixed": (7, 5), "up": (6, 8), "down": (8, 6)},
        (X,),
        ("mixed", "down"),
    ),
}


@pytest.mark.parametrize("case", WRITERS)
def test_layers_need_not_write_twice(case):
    apply, shapes, inputs, ends = WRITERS[case]
    shapes = [{k: leaf(*shape) for k, shape in shapes.items()}] * 3
    roles = jaxinit.roles(apply, shapes, *inputs)
    rules = jaxinit.Rules({"**": times(jaxinit.normal(1.0), by_depth(None))})
    plan = planned(rules, shapes, roles)
    for i in range(3):
        for end in ends:
            assert plan[f"{i}/{end}"].std == pytest.approx((2 * (i + 1)) ** -0.5)
            assert roles[f"{i}/{end}"].depth == 3
    narrow = planned(jaxinit.Rules(schemes.gpt2(3), required=[]), shapes, roles)
    wide = planned(jaxinit.Rules(schemes.gpt2(), required=[]), shapes, roles)
    assert narrow == wide
    assert narrow["0/down"].std == pytest.approx(0.02 / math.sqrt(3 * len(ends)))
    for scheme in (schemes.gpt2, schemes.mitchell, schemes.wang):
        with pytest.raises(jaxinit.PlanError, match=r"layers=2 was given.* has 3"):
            planned(jaxinit.Rules(scheme(2), required=[]), shapes, roles)


def test_where_no_layer_can_be_told_the_scheme_says_what_was_found():
    def apply(params, x):
        x = x + jnp.tanh(x @ params["stem"]) @ params["end"]
        for p in params["layers"]:
            x = block(x, p)
        return x

    layers = [{k: leaf(*shape) for k, shape in BLOCK.items()}] * 2
    shapes = {"stem": leaf(6, 6), "end": leaf(6, 6), "layers": layers}
    roles = jaxinit.roles(apply, shapes, X)
    rules = {"**": times(jaxinit.normal(1.0), by_depth(None))}
    with pytest.raises(
        jaxinit.PlanError, match="5 in all, are end, layers/0/o, layers"
    ):
        planned(rules, shapes, roles)
    assert planned(schemes.gpt2(), shapes, roles)["end"].std == 0.02 / math.sqrt(5)


def test_layers_that_are_given_divide_what_is_not_told():
    """As in a Conformer, with a feed-forward layer before the attention too."""

    def apply(params, x):
        for p in params:
            x = x + jnp.tanh(x @ p["w"]) @ p["begin"]
            x = block(x, p)
            x = x + jnp.tanh(x @ p["w"]) @ p["end"]
        return x

    shapes = BLOCK | dict.fromkeys(("w", "begin", "end"), (WIDTH, WIDTH))
    shapes = [{k: leaf(*shape) for k, shape in shapes.items()}] * 2
    roles = jaxinit.roles(apply, shapes, X)
    with pytest.raises(jaxinit.PlanError, match=r"do not repeat layer by layer"):
        planned(schemes.vit(), shapes, roles)
    plan = planned(schemes.vit(2), shapes, roles)
    for i, factor in enumerate((2**-0.5, 4**-0.5)):
        for path in ("begin", "o", "down", "end"):
            assert plan[f"{i}/{path}"].std == pytest.approx(0.02 * factor)
    with pytest.raises(jaxinit.PlanError, match=r"layers=3 was given, .* 8 kernels"):
        planned(schemes.vit(3), shapes, roles)


@pytest.mark.parametrize("shapes", [BLOCK, CROSS], ids=["two", "three"])
def test_in_a_loop_of_unknown_length_a_layer_has_two_writers(shapes):
    def apply(params, x, count):
        memory = x if "q2" in params else None

        def step(state):
            i, x = state
            return i + 1, block(x, params, memory)

        return jax.lax.while_loop(lambda state: state[0] < count, step, (0, x))[1]

    leaves = {k: leaf(*shape) for k, shape in shapes.items()}
    count = jax.ShapeDtypeStruct((), jnp.int32)
    roles = jaxinit.roles(apply, leaves, X, count)
    with pytest.raises(jaxinit.PlanError, match="does not tell how many kernels"):
        planned(schemes.gpt2(), leaves, roles)
    with pytest.raises(jaxinit.PlanError, match="does not tell layers"):
        planned(schemes.vit(3), leaves, roles)
    if shapes is BLOCK:
        plan = planned(schemes.gpt2(3), leaves, roles)
        assert plan["down"].std == pytest.approx(0.02 / math.sqrt(6))
    else:
        with pytest.raises(jaxinit.PlanError, match=r"3 kernels write .* not two"):
            planned(schemes.gpt2(3), leaves, roles)


def test_parts_that_differ_by_a_factor_are_drawn_together():
    """They have the numbers of parts that are drawn one by one."""
    factors, key, init = (1.0, 0.5, 0.25), jax.random.key(0), jaxinit.normal(1.0)
    parts = tuple(jaxinit.scaled(init, factor) for factor in factors)
    drawn = jaxinit.split(parts, 3, axis=0)(key, (3, 4, 2))
    alone = [init(jax.random.fold_in(key, i), (1, 4, 2))[0] for i in range(3)]
    wanted = np.stack([x * factor for x, factor in zip(alone, factors, strict=True)])
    np.testing.assert_allclose(drawn, wanted, rtol=1e-6)


def translator(params, tokens, x):
    x = params["table"][x]
    for p in params["first"]:
        tokens = block(tokens, p)
    for p in params["second"]:
        x = block(x, p, tokens)
    return x


CODERS = {
    "table": leaf(11, WIDTH),
    "first": [{k: leaf(*shape) for k, shape in BLOCK.items()}] * 3,
    "second": [{k: leaf(*shape) for k, shape in CROSS.items()}] * 2,
}
FACTORS = {
    "deepnorm": (0.87 * (3**4 * 2) ** (-1 / 16), (12 * 2) ** -0.25),
    "sub_ln": (
        math.sqrt(math.log(3 * 2) * math.log(2 * 3) / 3),
        math.sqrt(math.log(3 * 2)),
    ),
    "t_fixup": (0.67 * 3**-0.25, (9 * 2) ** -0.25),
}


def test_encoder_and_decoder_are_told_by_what_they_compute():
    """No path has one of the words; the decoder has keys from the other stream."""
    roles = jaxinit.roles(
        translator, CODERS, X, jax.ShapeDtypeStruct((2, 5), jnp.int32)
    )
    assert (roles["second/0/o"].memory, roles["second/1/v2"].layers) == (0, (1,))
    for name, factors in FACTORS.items():
        scheme = getattr(schemes, name)
        rules = scheme(3, 2)
        plan = planned(rules, CODERS, roles)
        for stack, factor in zip(("first", "second"), factors, strict=True):
            for path in ("o", "v"):
                std = plan[f"{stack}/1/{path}"].std
                assert std == pytest.approx(factor * WIDTH**-0.5)
            assert plan[f"{stack}/1/q"].std == pytest.approx(WIDTH**-0.5)
        less = scheme(3) if name == "t_fixup" else scheme()
        assert planned(less, CODERS, roles) == plan
        with pytest.raises(jaxinit.PlanError, match=r"layers=4 was given.* has 2"):
            planned(scheme(3, 4), CODERS, roles)


def test_keys_without_the_norm_of_their_query_are_of_the_same_stream():
    def apply(params, x):
        for p in params:
            y = x / jnp.sqrt((x * x).mean(-1, keepdims=True))
            x = y + attended(y, p, x)
            x = x + fed(x, p)
        return x

    shapes = [{k: leaf(*shape) for k, shape in BLOCK.items()}] * 2
    roles = jaxinit.roles(apply, shapes, X)
    assert [roles[f"{i}/k"].layers for i in range(2)] == [(0,), (1,)]
    assert roles["1/o"].memory is None


def test_a_stack_of_no_layers_has_none():
    def apply(p, x):
        return jax.lax.scan(lambda x, w: (x + jnp.tanh(x @ w), None), x, p["w"])[0]

    role = jaxinit.roles(apply, {"w": leaf(0, WIDTH, WIDTH)}, X)["w"]
    assert (role.kind, role.layers) == ("kernel", ())


@pytest.mark.parametrize("layers", [0, -1, True, 2.0, "2", int])
@pytest.mark.parametrize("of", [by_depth, by_writers])
def test_a_number_of_layers_is_checked_where_it_enters(of, layers):
    with pytest.raises(ValueError, match="layers must be an int of at least 1, got"):
        of(layers)
