"""What a program is compiled as, when it is compiled anew, and what it holds."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.compilation_cache.compilation_cache import reset_cache
from jax.extend import core
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from sampling import sampled

import jaxinit
from jaxinit._compile.descriptions import _freeze
from jaxinit._compile.exact import Kind
from jaxinit._compile.graph import Graph
from jaxinit._compile.leaf_plan import LeafPlan
from jaxinit._kernel import options

KEY = jax.random.key(0)
SHAPE = (64, 65)  # no last axis that XLA unrolls
normal = jax.random.normal


def scanned(draw):
    """Draws in the body of a loop, one after another."""

    def init(key):
        step = lambda carry, key: (carry, draw(key))  # noqa: E731
        return jax.lax.scan(step, 0, jax.random.split(key, 3))[1]

    return init


def joined(key):
    return jnp.concatenate([normal(key, SHAPE), jnp.ones(SHAPE)])


def alone(key):
    return 0.3 * normal(key, SHAPE) + 1


def used_twice(key):
    draw = 0.3 * normal(key, SHAPE)
    return jnp.sin(draw + 1) * draw


def used_twice_behind_a_move(key):
    draw = 0.3 * normal(key, SHAPE)
    return (jnp.concatenate([draw, jnp.ones(SHAPE)]) + 1)[: SHAPE[0]] * draw


def of_two_arrays(key):
    return normal(key, SHAPE) + jax.random.uniform(key, SHAPE)


def orthogonal(key):
    return jax.nn.initializers.orthogonal()(key, (9, 9))


def either(init):
    def call(key):
        coin, key = jax.random.split(key)
        return jax.lax.cond(jax.random.bernoulli(coin), init, lambda k: -init(k), key)

    return call


# By how it may be compiled; see `jaxinit._compile.exact`.
KINDS = {
    "a sum alone": (alone, Kind.FUSED),
    "a sum of what has a second use": (used_twice, Kind.WHOLE),
    "a use behind a move": (used_twice_behind_a_move, Kind.SHARED),
    "a sum of two arrays": (of_two_arrays, Kind.WHOLE),
    "a move of entries": (joined, Kind.SHARED),
    "a library routine": (orthogonal, Kind.FUSED),
    "a move behind a library routine": (
        lambda key: jnp.pad(orthogonal(key), 1) + 1,
        Kind.FUSED,
    ),
    "a move before one": (
        lambda key: jnp.linalg.qr(jnp.pad(normal(key, (8, 8)), 1))[0],
        Kind.SHARED,
    ),
    "a loop over what is fused": (scanned(alone), Kind.FUSED),
    "a loop over moves": (scanned(joined), Kind.WHOLE),
    "a loop over sums": (scanned(used_twice), Kind.WHOLE),
    "a branch that is fused": (either(alone), Kind.FUSED),
    "a branch with sums": (either(used_twice), Kind.WHOLE),
    "complex numbers": (lambda key: normal(key, SHAPE, "complex64"), Kind.FUSED),
    "a part of complex numbers": (
        lambda key: jnp.real(normal(key, SHAPE, "complex64")),
        Kind.WHOLE,
    ),
    "a reduction": (lambda key: normal(key, SHAPE).sum(), Kind.WHOLE),
    "a short last axis": (
        lambda key: normal(key, (64, 4)),
        Kind.SHARED if jax.__version_info__ >= (0, 11) else Kind.FUSED,
    ),
}


@pytest.mark.parametrize("name", KINDS)
def test_kinds(name):
    init, kind = KINDS[name]
    (program,) = LeafPlan(jax.make_jaxpr(init)(KEY)).programs
    assert program.kind is kind


def test_short_loops_are_drawn_as_jax_draws(monkeypatch):
    """Where XLA unrolls them, whatever it does with the jax at hand."""
    monkeypatch.setattr(options, "_UNROLLS", True)
    (program,) = LeafPlan(jax.make_jaxpr(lambda k: normal(k, (63, 4)))(KEY)).programs
    assert program.kind is Kind.SHARED


def test_parts_of_complex_products():
    """XLA may round either of the two products that a part is made of."""

    def init(key):
        part = jnp.real((0.3 + 0.7j) * normal(key, (3, 9), "complex64"))
        return jnp.pad(part, 1), part

    assert equal(jaxinit.jit(init)(KEY), jax.jit(init)(KEY))


def made(fun, *args):
    """When the programs of a function were made: the same ones, the same seconds."""
    return [program.seconds for program in jaxinit.jit(fun).programs(*args)]


DEVICES = jax.devices()
MESH = jax.make_mesh((min(8, jax.device_count()),), ("x",), axis_types=(AxisType.Auto,))
COLUMNS = NamedSharding(MESH, PartitionSpec(None, "x"))
SETTINGS = {
    "x64": lambda: jax.enable_x64(True),
    "threefry": lambda: jax.threefry_partitionable(False),
    "device": lambda: jax.default_device(DEVICES[3]),
    "mesh": lambda: jax.set_mesh(MESH),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_settings_have_programs_of_their_own(name):
    """By `jax.jit`'s values, types and places under each, whatever was made before."""
    x, key = np.linspace(0, 1, 8, dtype=np.float32), np.zeros(2, np.uint32)

    def init(x, key):
        return x * 3, jax.random.bits(jax.random.wrap_key_data(key), (5,))

    before = made(init, x, key)
    assert made(init, x, key) == before
    with SETTINGS[name]():
        assert not set(made(init, x, key)) & set(before)
        found, expected = jaxinit.jit(init)(x, key), jax.jit(init)(x, key)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a, b)
        assert (a.dtype, a.sharding) == (b.dtype, b.sharding)
    assert made(init, x, key) == before


def test_places_of_arguments_have_programs_of_their_own():
    def init(x):
        return x * 5

    x = np.ones((8, 8), np.float32)
    places = [None, DEVICES[1], DEVICES[2], COLUMNS]
    put = [x if place is None else jax.device_put(x, place) for place in places]
    times = [made(init, x)[0] for x in put]
    assert len(set(times)) == len(times)
    for x in put:
        assert jaxinit.jit(init)(x).sharding == jax.jit(init)(x).sharding


def test_keys_of_an_array_that_is_cut_are_left_to_jax_where_no_output_is_placed():
    keys = jax.random.split(KEY, 8)
    cut = jax.device_put(keys, NamedSharding(MESH, PartitionSpec("x")))
    ours = jaxinit.jit(lambda keys: jax.random.bits(keys[3], (2,)))
    with pytest.raises(ValueError, match=r"whole, .* for keys that are sharded"):
        ours.programs(cut)


@pytest.mark.exhaustive
def test_keys_of_an_array_that_is_cut():
    """Their words are whole on every device, however the array of keys is cut."""

    def init(keys):
        return [normal(keys[i], (16,)) for i in (0, 3, 7)]

    keys = jax.random.split(KEY, 8)
    cut = jax.device_put(keys, NamedSharding(MESH, PartitionSpec("x")))
    for a, b in zip(jaxinit.jit(init)(cut), jax.jit(init)(keys), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.exhaustive
def test_keys_are_followed_through_large_arrays():
    def init(key):
        return [normal(k, (3,)) for k in jax.random.split(key, 64)[::21]]

    ours = jaxinit.jit(init)
    assert len(ours.programs(KEY)) == 1
    for a, b in zip(ours(KEY), jax.jit(init)(KEY), strict=True):
        np.testing.assert_array_equal(a, b)


def test_literals_that_python_takes_for_equal():
    def init(x):
        return [x] + [
            jax.lax.full((3,), t(1), t) for t in (np.int8, np.uint8, np.bool_)
        ]

    found = jaxinit.jit(init)(jnp.zeros(3))
    assert [x.dtype.name for x in found] == ["float32", "int8", "uint8", "bool"]
    assert len(LeafPlan(jax.make_jaxpr(init)(jnp.zeros(3))).classes) == 4


def test_parameters_that_python_takes_for_equal():
    of_a_user = core.Primitive("of_a_user")
    of_a_user.def_abstract_eval(lambda x, one: x)

    def described(one):
        return _freeze(jax.make_jaxpr(lambda x: of_a_user.bind(x, one=one))(0.0))

    assert described(1) == described(1)
    assert len({described(one) for one in (1, 1.0, True)}) == 3


def test_loops_hold_a_small_share_of_memory():
    """Under a trace: one loop after the other, none over more than an eighth."""

    def init(key):
        return [normal(k, (64, 256)) for k in jax.random.split(key, 32)]

    inlined = jax.jit(lambda key: jaxinit.jit(init)(key)).lower(KEY).compile()
    memory = inlined.memory_analysis()
    assert memory.temp_size_in_bytes < memory.output_size_in_bytes / 6


def _of_a_product(key):
    keys = jax.random.split(key)
    product = jax.random.normal(keys[0], (100,)) * jax.random.uniform(keys[1], (100,))
    return product


SHARED = {
    "a product and a sum of it": lambda key: (
        _of_a_product(key) + 1,
        _of_a_product(key),
    ),
    "two sums of a product": lambda key: (
        _of_a_product(key) * 3 - 1,
        _of_a_product(key) + 1.5,
    ),
    "one product": lambda key: [
        (lambda y: {"sum": y + 1, "twice": 2 * y, "itself": y})(_of_a_product(key))
    ],
    "one product in a sum of arrays": lambda key: [
        (lambda y, z: {"sum": 2 * y - 3 * z, "itself": (y, y + 1.5)})(
            _of_a_product(key), jax.random.uniform(key, (100,))
        )
    ],
}


@pytest.mark.parametrize(
    "name", sampled(SHARED, [name for name in SHARED if "in a sum" not in name])
)
def test_floats_that_several_small_leaves_are_made_of(name):
    """XLA rounds a product once more where it is an output beside its sum."""
    want, got = (jax.tree.leaves(f(SHARED[name])(KEY)) for f in (jax.jit, jaxinit.jit))
    for wanted, found in zip(want, got, strict=True):
        np.testing.assert_array_equal(found, wanted)


def test_leaves_that_share_nothing_stay_apart():
    programs = jaxinit.jit(
        lambda key: (SHARED["one product"](key), jax.random.normal(key, (9,)))
    ).programs(KEY)
    assert len(programs) == 2


def test_equal_programs_of_which_one_shares_its_floats():
    """Only what is used elsewhere too is compiled with what uses it."""

    def fun(key):
        a, b, c = (1.3 * jax.random.normal(k, (33,)) for k in jax.random.split(key, 3))
        return a + 0.1, b + 0.1, c, b

    programs = LeafPlan(jax.jit(fun).trace(KEY).jaxpr).programs
    kinds = {leaf: p.kind.name for p in programs for leaf in p.leaves}
    assert kinds == {0: "FUSED", 1: "WHOLE", 2: "FUSED", 3: "WHOLE"}


def equal(found, wanted):
    """Whether arrays have the same bits, dtypes, weak types and places."""
    return len(found) == len(wanted) and all(
        np.asarray(a).tobytes() == np.asarray(b).tobytes()
        and (jax.typeof(a), a.sharding, a.committed)
        == (jax.typeof(b), b.sharding, b.committed)
        for a, b in zip(found, wanted, strict=True)
    )


def constants(key):
    del key
    of_each = [jnp.full((5, 2), 1.5, dtype) for dtype in ("float32", "bfloat16")]
    whole = [jnp.full((3,), -7, "int8"), jnp.ones((3,), bool), jnp.full((2,), 1j)]
    steps = jax.lax.scan(lambda x, _: (x, jnp.zeros((4,))), 0, length=3)[1]
    return [
        *of_each,
        *whole,
        steps,
        jnp.zeros(()),
        jnp.zeros((0, 3)),
        2.0,
        jnp.zeros(5),
    ]


WHERE = {
    "nowhere": lambda: jax.ensure_compile_time_eval(),
    "a device": lambda: jax.default_device(DEVICES[3]),
    "a guard": lambda: jax.transfer_guard("disallow"),
    "x64": lambda: jax.enable_x64(True),
}


@pytest.mark.sample(1)
@pytest.mark.parametrize("where", sampled(WHERE, ["a guard", "x64"]))
def test_constants_are_those_of_jax(where):
    """They are copied from the host, where the copy is theirs alone."""
    keys = [KEY, jax.device_put(KEY, DEVICES[2])]
    with WHERE[where]():
        for key in keys:
            assert equal(jaxinit.jit(constants)(key), jax.jit(constants)(key))


def test_constants_of_64_bits_that_only_the_function_has():
    def init(key):
        with jax.enable_x64(True):
            return [jnp.full((3,), 1.1, "float64"), jnp.ones((2,), "int64"), key]

    found, wanted = (f(init)(KEY)[:2] for f in (jaxinit.jit, jax.jit))
    assert equal(found, wanted)


def test_constants_of_one_shape_share_a_program_and_no_buffer():
    def init(key):
        return jnp.zeros((7,)), jnp.ones((7,)), jnp.zeros((7,)), jnp.ones((1 << 19,))

    assert len(jaxinit.jit(init).programs(KEY)) == 2  # the last one is large
    made = jaxinit.jit(init)(KEY)
    assert len({x.unsafe_buffer_pointer() for x in made}) == 4
    kept = [np.array(x) for x in jaxinit.jit(init)(KEY)]
    jax.block_until_ready(jax.jit(lambda x: x + 1, donate_argnums=0)(made[0]))
    for again, before in zip(jaxinit.jit(init)(KEY), kept, strict=True):
        np.testing.assert_array_equal(again, before)


def normalised(key, shape=(16, 8)):
    draw = jax.random.normal(key, shape)
    return draw / jnp.sqrt((draw**2).sum(0) + 1e-3)


def layers(*shapes):
    def init(key):
        keys = jax.random.split(key, len(shapes))
        return [normalised(k, shape) for k, shape in zip(keys, shapes, strict=True)]

    return init


@pytest.mark.exhaustive
def test_equal_programs_that_reduce_are_compiled_once():
    init = layers(*[(16, 8)] * 4)
    (program,) = jaxinit.jit(init).programs(KEY)
    assert program.leaves == tuple((str(i),) for i in range(4))
    assert equal(jaxinit.jit(init)(KEY), jax.jit(init)(KEY))


def test_different_programs_that_reduce_are_the_function():
    """Compiling them apart saves nothing; the call is left to jax.jit."""
    init = layers((16, 8), (8, 4))
    (whole,) = jaxinit.jit(lambda key: [*init(key), jnp.zeros(3)]).programs(KEY)
    assert len(whole.leaves[0]) == 3
    assert equal(jaxinit.jit(init)(KEY), jax.jit(init)(KEY))


def test_a_draw_beside_programs_that_reduce_stays_apart():
    init = layers((16, 8), (8, 4))
    programs = jaxinit.jit(lambda k: [*init(k), jax.random.normal(k, (9,))]).programs(
        KEY
    )
    assert len(programs) == 2


def stacked(names=("a", "b"), width=8, steps=5):
    """Layers in a loop, each leaf with the key of its step and its name."""

    def init(key):
        def step(state, key):
            folded = [jax.random.fold_in(key, len(n) * ord(n[0])) for n in names]
            draws = {
                n: jax.random.normal(k, (width, 3))
                for n, k in zip(names, folded, strict=True)
            }
            raw = jax.random.key_data(jax.random.split(key)[1])
            return state, (draws, jax.random.bits(jax.random.wrap_key_data(raw), (4,)))

        return jax.lax.scan(step, None, jax.random.split(key, steps))[1]

    return init


def test_equal_leaves_of_a_loop_are_one_program():
    """The loop takes the keys that its steps derived."""
    assert not jaxinit.jit(stacked(steps=0))(KEY)[1].size
    init = stacked()
    assert len(jaxinit.jit(init).programs(KEY)) == 2
    found, wanted = (jax.tree.leaves(f(init)(KEY)) for f in (jaxinit.jit, jax.jit))
    assert equal(found, wanted)


def test_loops_that_derive_many_keys_keep_them():
    """No more names than are followed outside of loops."""

    def init(key):
        def step(state, key):
            keys = jax.random.split(key, 3000)
            return state, jax.random.bits(keys[7], (4,))

        return jax.lax.scan(step, None, jax.random.split(key, 30))[1]

    traced = jax.jit(init).trace(KEY)
    assert len(Graph(traced.jaxpr).keys) == 31
    assert equal([jaxinit.jit(init)(KEY)], [jax.jit(init)(KEY)])


def test_programs_are_kept_on_disk_if_jax_keeps_some(tmp_path):
    name = "jax_persistent_cache_min_compile_time_secs"
    before = getattr(jax.config, name), jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", str(tmp_path))
    reset_cache()
    try:
        jax.config.update(name, 100)
        jaxinit.jit(lambda key: jax.random.normal(key, (3, 41)))(KEY)
        assert getattr(jax.config, name) == 100
    finally:
        jax.config.update(name, before[0])
        jax.config.update("jax_compilation_cache_dir", before[1])
        reset_cache()
    assert [*tmp_path.iterdir()]


@pytest.mark.sample(1)
@pytest.mark.parametrize(
    "around", ["alone", pytest.param("in a loop", marks=pytest.mark.exhaustive)]
)
@pytest.mark.parametrize(
    "shape",
    sampled(
        [(7, 5), (5, 7), (1, 4), (16, 3), (64, 65), (3, 9, 9)],
        [(1, 4), (16, 3), (64, 65), (3, 9, 9)],
    ),
)
def test_draws_before_library_routines(shape, around):
    def init(key):
        return jnp.pad(jax.nn.initializers.orthogonal(1.4)(key, shape), 1) + 0.3

    init = scanned(init) if around == "in a loop" else init
    assert equal([jaxinit.jit(init)(KEY)], [jax.jit(init)(KEY)])
