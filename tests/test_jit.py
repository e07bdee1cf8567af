"""jaxinit.jit: the values of jax.jit, from one program for each different leaf."""

import functools
import threading
import typing

import equinox as eqx
import flax.linen as nn
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from sampling import sampled

import jaxinit
from jaxinit._compile.leaf_plan import LeafPlan

KEY = jax.random.key(0)
IDS = np.zeros((1, 4), np.int32)
X = np.linspace(-1, 1, 32, dtype=np.float32).reshape(2, 16)
SEQUENCE = np.linspace(-1, 1, 64, dtype=np.float32).reshape(1, 4, 16)


class Feed(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
        h = nn.gelu(nn.Dense(32)(nn.LayerNorm()(x)))
        h = nn.Dropout(0.1, deterministic=not train)(h)
        return x + nn.Dense(16)(h)


class Block(nn.Module):
    @nn.compact
    def __call__(self, x):
        h = nn.LayerNorm()(x)
        x = x + nn.MultiHeadDotProductAttention(num_heads=2)(h, h)
        return Feed(name="feed")(x)


class Transformer(nn.Module):
    layers: int = 1

    @nn.compact
    def __call__(self, ids):
        embed = nn.Embed(50, 16)
        x = embed(ids)
        for i in range(self.layers):
            x = Block(name=f"block_{i}")(x)
        return embed.attend(nn.LayerNorm()(x))


init_transformer = Transformer().init  # one function, which jax.jit compiles once


class Normalised(nn.Module):
    @nn.compact
    def __call__(self, x):
        for _ in range(2):
            x = nn.BatchNorm(use_running_average=False)(nn.Dense(8)(x))
            x = nn.Dropout(0.5, deterministic=False)(x)
        return x


class Scanned(nn.Module):
    @nn.compact
    def __call__(self, x):
        layers = nn.scan(
            lambda block, carry, _: (block(carry), None),
            variable_axes={"params": 0},
            split_rngs={"params": True},
            length=3,
        )
        return layers(Feed(), x, None)[0]


class Remat(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.remat(Feed)(name="b")(nn.remat(Feed)(name="a")(x))


class Shared(nn.Module):
    @nn.compact
    def __call__(self, x):
        layer = nn.Dense(16)
        return layer(layer(x))


def lists_and_keys(key):
    keys = jax.random.split(key, 4)
    drawn = [jax.random.normal(k, (3,)) for k in keys[:3]]
    return drawn, keys[-1], jax.random.fold_in(key, 7), keys[None, 1:3]


def few_keys(key):
    own, other = jax.random.split(key)
    return jax.random.bits(own, (3,)), other, jax.random.fold_in(key, 7)


def not_random(key, x):
    return {
        "zero": jnp.zeros((2, 3)),
        "count": 3,
        "weak": jnp.sin(1.0),
        "x": x,
        "k": key,
    }


def data_dependent(key, x):
    w = jax.random.normal(key, (16, 512))
    y = x @ w
    return w / y.std(0), y.std(0), w[:2], jax.nn.relu(y).sum()


TABLE = np.arange(12.0, dtype=np.float32).reshape(3, 4)


def closed_over(key):
    return jax.random.normal(key, (3, 4)) * TABLE, jnp.asarray(TABLE)


def already_jitted(key):
    inner = jax.jit(lambda k: jax.random.uniform(k, (4,)), static_argnames=())
    return [inner(k) for k in jax.random.split(key, 2)]


def only_drawn(key):
    return lists_and_keys(key)[0]


def from_seed(seed):
    return lists_and_keys(jax.random.key(seed))


def branches(key):
    draw = functools.partial(jax.random.normal, shape=(4,))
    return jax.lax.cond(jax.random.bits(key) % 2 == 0, draw, lambda k: -draw(k), key)


def one_draw_in_parts(key):
    """A fused projection: three leaves of one large draw."""
    q, k, v = jnp.split(jax.random.normal(key, (64, 192)), 3, axis=1)
    return {"q": q, "k": k, "v": v}


def depth_dependent(key):
    keys = jax.random.split(key, 3)
    return [jaxinit.normal(0.02 / (i + 1))(k, (8, 8)) for i, k in enumerate(keys)]


def many_dtypes(key):
    dtypes = [jnp.bfloat16, jnp.float16, jnp.complex64, jnp.float32]
    keys = zip(jax.random.split(key, 4), dtypes, strict=True)
    return [jaxinit.normal()(k, (8,), dtype) for k, dtype in keys]


def many_equal(key):
    """Several classes of equal leaves, of several dtypes, and one of two outputs."""
    keys = jax.random.split(key, (2, 3))
    drawn = [
        (
            jaxinit.normal(1.0)(a, (16,)),
            jaxinit.uniform(1.0)(b, (3,), jnp.float16),
            jax.random.bits(c, (5,), jnp.uint8),
            jnp.split(jax.random.uniform(c, (2, 5000), jnp.bfloat16), 2),
        )
        for a, b, c in keys
    ]
    return drawn, jnp.zeros((0, 3)), [jax.random.normal(k, (0,)) for k in keys[0]]


class Pair(typing.NamedTuple):
    w: jax.Array
    b: jax.Array


def while_loop(key):
    def body(state):
        i, key, x = state
        key, own = jax.random.split(key)
        return i + 1, key, x + jax.random.normal(own, (3,))

    init = (0, key, jnp.zeros(3))
    return jax.lax.while_loop(lambda state: state[0] < 4, body, init)


def scan_that_carries_a_key(key):
    def body(key, _):
        key, own = jax.random.split(key)
        return key, jax.random.normal(own, (3,))

    return jax.lax.scan(body, key, None, length=4)


def words_of_two_keys(key):
    """A key made of the first word of one key and the second of another."""
    words = jax.random.key_data(jax.random.split(key)).reshape(4)
    mixed = jax.random.wrap_key_data(jax.lax.slice(words, (0,), (4,), (3,)))
    return jax.random.bits(mixed, (3,))


def scan_backwards(key):
    def body(state, key):
        bits = jax.random.bits(key, (3,))
        return state ^ bits, state

    keys = jax.random.split(key, 3)
    return jax.lax.scan(body, jnp.zeros(3, jnp.uint32), keys, reverse=True)


def sums_of_draws(key):
    """Where XLA contracts depends on what it fuses: bits that are easily lost."""
    x, y = (jax.random.normal(k, (33,)) for k in jax.random.split(key))
    padded = jnp.pad(3.7 * x, 2) + 0.3
    return x + y, jax.lax.associative_scan(jnp.add, x[:9]), padded, 0.1 + x * 1.3


def samplers(key):
    r = jax.random
    return (
        r.permutation(key, 20),
        r.choice(key, 30, (5,), replace=False),
        r.categorical(key, jnp.arange(5.0), shape=(9,)),
        r.gumbel(key, (33,)),
        r.bernoulli(key, 0.3, (33,)),
        r.randint(key, (33,), 0, 100),
    )


def rejection(key):
    return jax.random.t(key, 3.0, (20,))  # a normal draw over a gamma draw


def orthogonal(key):
    init = jax.nn.initializers.orthogonal()
    return [init(k, (6, 4)) for k in jax.random.split(key)]


def named_tuple(key):
    return Pair(
        jax.random.truncated_normal(key, -2, 2, (8,)), jnp.ones(2, jnp.bfloat16)
    )


mlp = hk.transform(lambda x: hk.nets.MLP([8, 8, 8])(x))
CASES = {
    "linen": (init_transformer, KEY, IDS),
    "linen raw key": (Remat().init, jax.random.PRNGKey(3), SEQUENCE),
    "linen several rngs": (
        Normalised().init,
        {"params": KEY, "dropout": jax.random.key(1)},
        X,
    ),
    "linen scan": (Scanned().init, KEY, SEQUENCE),
    "linen remat": (Remat().init, KEY, SEQUENCE),
    "linen shared weights": (Shared().init, KEY, X),
    "linen with output": (Shared().init_with_output, KEY, X),
    "haiku": (mlp.init, KEY, X),
    "haiku raw key": (mlp.init, jax.random.PRNGKey(3), X),
    "equinox": (
        lambda key: eqx.filter(eqx.nn.MLP(4, 4, 8, 5, key=key), eqx.is_array),
        KEY,
    ),
    "keys returned": (lists_and_keys, KEY),
    "raw keys returned": (lists_and_keys, jax.random.PRNGKey(5)),
    "rbg": (few_keys, jax.random.key(1, impl="rbg")),
    "unsafe_rbg": (lists_and_keys, jax.random.key(1, impl="unsafe_rbg")),
    "seed": (from_seed, 12),
    "batch of keys": (
        jax.vmap(lists_and_keys),
        jax.random.wrap_key_data(np.arange(6, dtype=np.uint32).reshape(3, 2)),
    ),
    "not random": (not_random, KEY, X),
    "python scalar argument": (not_random, KEY, 2.5),
    "data dependent": (data_dependent, KEY, X),
    "closed over": (closed_over, KEY),
    "already jitted": (already_jitted, KEY),
    "branches": (branches, KEY),
    "one draw in parts": (one_draw_in_parts, KEY),
    "depth dependent": (depth_dependent, KEY),
    "dtypes": (many_dtypes, KEY),
    "while loop": (while_loop, KEY),
    "scan that carries a key": (scan_that_carries_a_key, KEY),
    "scan backwards": (scan_backwards, KEY),
    "words of two keys": (words_of_two_keys, KEY),
    "sums of draws": (sums_of_draws, KEY),
    "samplers": (samplers, KEY),
    "rejection": (rejection, KEY),
    "orthogonal": (orthogonal, KEY),
    "named tuple": (named_tuple, KEY),
    "many equal": (many_equal, KEY),
    "nothing": (lambda key: (), KEY),
}


def assert_same(got, want):
    assert jax.tree.structure(got) == jax.tree.structure(want)
    pairs = zip(jax.tree.leaves_with_path(want), jax.tree.leaves(got), strict=True)
    for (path, x), y in pairs:
        where = jax.tree_util.keystr(path)
        assert jax.typeof(x) == jax.typeof(y), where
        assert x.sharding == y.sharding, where
        if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
            x, y = jax.random.key_data(x), jax.random.key_data(y)
        assert np.asarray(x).tobytes() == np.asarray(y).tobytes(), where


# What takes XLA longest, other libraries, and second cases of a kind.
BEYOND = ("equinox", "haiku raw key", "linen raw key", "linen remat", "linen scan")
BEYOND += ("linen shared weights", "linen with output", "named tuple", "rejection")
BEYOND += ("samplers", "unsafe_rbg", "haiku", "depth dependent")
BEYOND += ("scan that carries a key", "batch of keys", "linen several rngs")
BEYOND += ("one draw in parts", "seed", "raw keys returned", "orthogonal")
BEYOND += ("already jitted", "many equal", "rbg", "scan backwards")
BEYOND += (
    "python scalar argument",
    "sums of draws",
    "while loop",
    "closed over",
    "dtypes",
)
UNDER_JIT = ("linen", "keys returned", "data dependent", "rbg", "dtypes", "many equal")
UNDER_JIT += ("sums of draws", "rejection", "orthogonal")
BEYOND_UNDER_JIT = ("linen", "rbg", "dtypes", "rejection", "orthogonal")
BEYOND_UNDER_JIT += ("sums of draws", "many equal", "data dependent")


@functools.cache
def of_jax(name):
    fun, *args = CASES[name]
    return jax.jit(fun)(*args)


@pytest.mark.parametrize("name", sampled(CASES, BEYOND))
def test_equals_jax_jit(name):
    fun, *args = CASES[name]
    assert_same(jaxinit.jit(fun)(*args), of_jax(name))


@pytest.mark.parametrize("name", sampled(UNDER_JIT, BEYOND_UNDER_JIT))
def test_equals_jax_jit_under_an_outer_jit(name):
    fun, *args = CASES[name]
    assert_same(jax.jit(jaxinit.jit(fun))(*args), of_jax(name))


def test_detects_a_different_value():
    """Negative control: the comparison above sees a single last bit."""
    want = of_jax("keys returned")
    got = jaxinit.jit(lists_and_keys)(KEY)
    assert_same(got, want)
    got[0][2] = jnp.asarray(np.nextafter(got[0][2], np.float32(np.inf)))
    with pytest.raises(AssertionError):
        assert_same(got, want)


STATICS = {
    "by number and name": {"static_argnums": 1, "static_argnames": "depth"},
    "by name": {"static_argnames": ("width", "depth")},
    "several": {"static_argnums": (1,), "static_argnames": "depth"},
}


@pytest.mark.parametrize("name", sampled(STATICS, ["by name", "several"]))
def test_static_arguments(name):
    def init(key, width, *, scale=1.0, depth):
        return [jax.random.uniform(key, (width,)) * scale for _ in range(depth)]

    ours, theirs = (jit(init, **STATICS[name]) for jit in (jaxinit.jit, jax.jit))
    assert_same(ours(KEY, 4, depth=2), theirs(KEY, 4, depth=2))
    assert_same(ours(KEY, 5, scale=2, depth=1), theirs(KEY, 5, scale=2, depth=1))


def test_inside_other_transformations():
    ours = jaxinit.jit(lists_and_keys)
    keys = jax.random.wrap_key_data(np.arange(6, dtype=np.uint32).reshape(3, 2))
    # One key at a time: jax 0.12's own vmap of tiny draws differs from its own single
    # draws in a last bit, because LLVM unrolls the loop and contracts otherwise.
    one = jax.jit(only_drawn)
    want = jax.tree.map(lambda *x: jnp.asarray(np.stack(x)), *map(one, keys))
    assert_same(jax.jit(jax.vmap(lambda k: ours(k)[0]))(keys), want)
    captured = jax.jit(lambda: ours(KEY)[0])()
    want, *_ = of_jax("keys returned")
    assert_same(captured, want)
    assert jax.eval_shape(ours, KEY) == jax.eval_shape(lists_and_keys, KEY)


@pytest.mark.exhaustive
def test_inside_pmap():
    ours, keys = jaxinit.jit(only_drawn), jax.random.split(KEY, 8)
    singles = map(jax.jit(only_drawn), keys)
    for got, *want in zip(jax.pmap(ours)(keys), *singles, strict=True):
        np.testing.assert_array_equal(got, np.stack(want))


def test_nested():
    inner = jaxinit.jit(lists_and_keys)
    got = jaxinit.jit(lambda k: inner(k)[0])(KEY)
    assert_same(got, jax.jit(only_drawn)(KEY))


def test_equal_leaves_share_a_program():
    two, four = (
        jaxinit.jit(Transformer(layers).init).programs(KEY, IDS) for layers in (2, 4)
    )
    assert len(two) == len(four) < 12
    assert sum(len(p.leaves) for p in four) == len(
        jax.tree.leaves(jax.eval_shape(Transformer(4).init, KEY, IDS))
    )
    assert "params/block_0/feed/Dense_0/kernel" in str(four)
    assert four.bytes == sum(p.bytes for p in four)


def test_second_call_compiles_and_traces_nothing():
    traces = []

    def init(key, x):
        traces.append(1)
        return Transformer().init(key, x)

    ours, other = jaxinit.jit(init), jax.random.key(1)  # a key is a program too
    first = ours(KEY, IDS)
    with count_compilations() as compiled:
        second = ours(other, IDS)
        jax.block_until_ready(second)
    assert len(traces) == 1
    assert compiled == []
    with count_compilations() as compiled:
        jax.jit(lambda x: x + 1.5).lower(X).compile()
    assert compiled, "the counter counts nothing"
    assert_same(second, jax.jit(init_transformer)(other, IDS))
    with pytest.raises(AssertionError):
        assert_same(second, first)


class count_compilations:  # noqa: N801 - a context manager, used like a function
    """Collects the name of each program that XLA compiles."""

    def __enter__(self):
        self.names = []
        jax.monitoring.register_event_duration_secs_listener(self._listen)
        return self.names

    def _listen(self, event, duration, **kwargs):
        if event.endswith("backend_compile_duration"):
            self.names.append(event)

    def __exit__(self, *_):
        jax.monitoring.unregister_event_duration_listener(self._listen)


def test_forward_pass_never_runs():
    jaxpr = jax.jit(Transformer().init).trace(KEY, IDS).jaxpr
    names = [str(e.primitive) for p in LeafPlan(jaxpr).programs for e in _eqns(p)]
    assert "random_bits" in names
    assert "dot_general" not in names
    assert "dot_general" in str(jaxpr)


def _eqns(program):
    return jax.make_jaxpr(program)(*[_example(x) for x in program.inputs]).eqns


def _example(value):
    """What may be given to a program for one of its inputs."""
    words = getattr(value, "names", None)
    if words is None:
        return (KEY, X)[value.position]
    return jnp.zeros((*words.shape, 2)[: words.ndim + (not value.raw)], jnp.uint32)


def test_shared_work_is_done_once():
    for fun, args in ((one_draw_in_parts, (KEY,)), (data_dependent, (KEY, X))):
        programs = LeafPlan(jax.jit(fun).trace(*args).jaxpr).programs
        drawing = [p for p in programs if "random_bits" in str(_eqns(p))]
        assert len(drawing) == 1


def test_orthogonal_leaves_share_a_program():
    assert len(jaxinit.jit(orthogonal).programs(KEY)) == 1


@pytest.mark.exhaustive
def test_grouped_under_a_trace():
    def compiled(fun):
        return jax.jit(fun).lower(KEY, IDS).as_text()

    def draws(text):
        return text.count("chlo.erf_inv")

    one, two = (compiled(jaxinit.jit(Transformer(n).init)) for n in (1, 2))
    plain = compiled(Transformer(2).init)
    assert draws(one) == draws(two) < draws(plain)


MESH = jax.make_mesh((min(8, jax.device_count()),), ("x",))
ROWS, WHOLE = NamedSharding(MESH, P("x")), NamedSharding(MESH, P())
OUT = {
    "of each": (ROWS, WHOLE),
    "of all": WHOLE,
    "of some": ({"w": ROWS, "b": None}, WHOLE),
}


@pytest.mark.parametrize("name", sampled(OUT, ["of all", "of some"]))
def test_out_shardings(name):
    def init(key):
        drawn = jaxinit.he_normal()(key, (16, 8))
        return {"w": drawn, "b": jnp.zeros(16)}, key

    ours = jaxinit.jit(init, out_shardings=OUT[name])
    theirs = jax.jit(init, out_shardings=OUT[name])
    (got, key), (want, _) = ours(KEY), theirs(KEY)
    np.testing.assert_array_equal(got["w"], want["w"])
    assert got["w"].sharding == want["w"].sharding
    assert key.sharding.is_equivalent_to(WHOLE, 0)
    inside, _ = jax.jit(ours)(KEY)
    np.testing.assert_array_equal(inside["w"], want["w"])


def test_out_shardings_of_another_structure():
    mesh = jax.make_mesh((8,), ("x",))
    shardings = {"v": NamedSharding(mesh, P())}
    with pytest.raises(ValueError, match="out_shardings"):
        jaxinit.jit(lambda k: {"w": k}, out_shardings=shardings)(KEY)


def test_runs_where_the_key_is():
    device = jax.devices()[3]
    params = jaxinit.jit(Shared().init)(jax.device_put(KEY, device), X)
    assert all(leaf.devices() == {device} for leaf in jax.tree.leaves(params))


def test_side_effects_are_left_to_jax():
    seen = []

    def init(key):
        jax.debug.callback(lambda: seen.append(1))
        return jax.random.normal(key, (3,))

    assert_same(jaxinit.jit(init)(KEY), jax.jit(init)(KEY))
    jax.effects_barrier()
    assert len(seen) == 2
    with pytest.raises(ValueError, match="side effects"):
        jaxinit.jit(init).programs(KEY)


def test_keys_that_are_used_in_two_calls_are_found_where_jax_looks_for_them():
    once, key = jaxinit.jit(lambda key: jax.random.bits(key)), jax.random.key(8)
    with jax.debug_key_reuse(True):
        once(key)
        with pytest.raises(jax.errors.KeyReuseError):
            once(key)


def test_nothing_is_traced_where_jit_is_disabled():
    seen = []
    with jax.disable_jit():
        jaxinit.jit(lambda x: seen.append(x) or x)(np.float32(1))
    assert not isinstance(seen[0], jax.core.Tracer)


@pytest.mark.exhaustive
def test_settings():
    """Under other settings of jax: its numbers under the same settings."""

    def drawn(key):
        return jax.random.normal(jax.random.split(key)[1], (3,))

    with jax.threefry_partitionable(False):
        old = jax.jit(drawn)(KEY)
        assert_same(jaxinit.jit(drawn)(KEY), old)
    new = jaxinit.jit(drawn)(KEY)
    assert not np.array_equal(old, new)
    with jax.enable_x64(True):
        wide = jax.jit(drawn)(KEY)
        assert wide.dtype == np.float64
        assert_same(jaxinit.jit(drawn)(KEY), wide)
    with jax.debug_key_reuse(True):
        once = jaxinit.jit(lambda k: jax.random.normal(k, (3,)))
        drawn = [draw(jax.random.key(8)) for draw in (once, jax.jit(once.__wrapped__))]
        np.testing.assert_array_equal(*drawn)
        twice = jaxinit.jit(lambda k: [jax.random.normal(k) for _ in range(2)])
        with pytest.raises(jax.errors.KeyReuseError):
            twice(jax.random.key(8))


def test_threads():
    want = jax.jit(init_transformer)(KEY, IDS)
    ours = jaxinit.jit(init_transformer)
    got = []
    threads = [
        threading.Thread(target=lambda: got.append(ours(KEY, IDS))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 4
    for params in got:
        assert_same(params, want)


def test_progress():
    programs = jaxinit.jit(Transformer().init).programs(KEY, IDS)
    sizes = []
    params = programs.run(sizes.append)
    assert (
        sum(sizes) == programs.bytes == sum(x.nbytes for x in jax.tree.leaves(params))
    )


def test_not_a_function():
    with pytest.raises(TypeError, match="fun must be a function"):
        jaxinit.jit(3)


def test_keeps_the_name_and_docs_of_the_function():
    ours = jaxinit.jit(lists_and_keys)
    assert ours.__name__ == "lists_and_keys"
    assert repr(ours) == "jaxinit.jit(lists_and_keys)"
