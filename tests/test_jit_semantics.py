"""jaxinit.jit is jax.jit: values, types, places, trees and errors, case by case."""

import contextlib
import copy
import functools
import inspect
import pickle
import threading
import types
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh, NamedSharding, SingleDeviceSharding
from jax.sharding import PartitionSpec as P
from sampling import sampled

import jaxinit
from jaxinit._compile.placement import is_tracing
from jaxinit._compile.recent import Recent
from jaxinit._compile.runner import Runner

KEY = jax.random.key(0)
RAW = jax.random.PRNGKey(3)
TABLE = np.arange(4.0, dtype=np.float32)
X = jnp.asarray(TABLE.copy())
DEVICES = jax.devices()
KEY_ON_2, X_ON_2, X_ON_3 = (
    jax.device_put(x, DEVICES[i]) for x, i in [(KEY, 2), (X, 2), (X, 3)]
)
with jax.default_device(DEVICES[5]):
    UNCOMMITTED_ON_5 = jnp.asarray(TABLE.copy())
MESH = jax.make_mesh((8,), ("x",), axis_types=(AxisType.Auto,))
HALF = Mesh(np.array(DEVICES[4:]), ("x",))
OTHER_HALF = Mesh(np.array(DEVICES[:4]), ("x",))
ROWS, WHOLE = NamedSharding(MESH, P("x")), NamedSharding(MESH, P())
EXPENSIVE = {"xla_llvm_disable_expensive_passes": True}
ON_HOST = NamedSharding(MESH, P(), memory_kind="unpinned_host")
SHARDED = jax.device_put(np.arange(8, dtype=np.float32), ROWS)
WORDS = np.arange(16, dtype=np.uint32).reshape(8, 2)
SHARDED_KEYS = jax.random.wrap_key_data(jax.device_put(WORDS, ROWS))


def draw(key, width=3):
    return jax.random.uniform(key, (width,))


def mixed(key, x):
    """Something drawn, and everything that is not: copies, twice, and constants."""
    return {
        "drawn": draw(key),
        "keys": [key, key, jax.random.fold_in(key, 7), KEY],
        "arguments": (x, x),
        "computed": x * 2,
        "constants": (X, jnp.asarray(TABLE), TABLE, X),
        "literals": [3, 2.0, True, None, np.float64(3), np.int8(2)],
        "zeros": (jnp.zeros(3), jnp.zeros((0, 2))),
    }


def placed(key, x):
    return {"w": draw(key, 8), "b": jnp.zeros(8), "k": key, "x": x, "c": SHARDED}


def seeded(seed):
    keys = [jax.random.key(seed), jax.random.key(3), jax.random.key(-1)]
    return keys, jax.random.PRNGKey(4), draw(keys[1])


def raw_keys(key):
    wrapped = jax.random.wrap_key_data(key)
    return key, wrapped, jax.random.split(key), draw(key), jnp.zeros(2)


def scaled(key, width, *, depth=2, scale=1.0):
    return [draw(key, width) * scale for _ in range(depth)]


def few_draws(key):
    x = jax.random.normal(key, (33,))
    return x, 3.7 * x + 0.3


def many_draws(key):
    r, shape = jax.random, (33, 5)
    return [
        *(
            r.normal(key, shape),
            3.7 * r.normal(key, shape) + 0.3,
            r.uniform(key, (64,)),
        ),
        *(
            r.truncated_normal(key, -2.0, 2.0, shape),
            jaxinit.he_normal()(key, (64, 64)),
        ),
        *(r.normal(key, (7,), jnp.complex64), jnp.cos(r.uniform(key, shape))),
    ]


def mutable(key):
    ref = jax.new_ref(jnp.zeros(3))
    ref[...] = draw(key)
    return ref[...]


def deleted(x):
    x = x.copy() if not jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else clone(x)
    x.delete()
    return x


def clone(key):
    return jax.jit(lambda k: k)(key)


class Case:
    """A call: a function, its arguments, options of jit, and what is in force."""

    def __init__(
        self,
        fun,
        *args,
        within=contextlib.nullcontext,
        jit=None,
        around=lambda jitted: jitted,
        **kwargs,
    ):
        self.fun, self.args, self.kwargs = fun, args, kwargs
        self.within, self.jit, self.around = within, jit or {}, around

    def outcome(self, jit):
        """What it returns, described, or the error it raises."""
        with self.within(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                jitted = self.around(jit(self.fun, **self.jit))
                made = jitted(*self.args, **self.kwargs)
            except Exception as error:  # any error is to be the same
                return type(error), str(error).partition("\n")[0]
            return jax.tree.structure(made), [*map(describe, jax.tree.leaves(made))]


def describe(x):
    if not isinstance(x, jax.Array):  # under jax.disable_jit
        return type(x), str(x)
    is_key = jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
    data = np.asarray(jax.random.key_data(x) if is_key else x)
    place = (x.committed, x.sharding, x.sharding.memory_kind)
    return str(jax.typeof(x)), *place, data.tobytes()


def under(name, value):
    """A setting of jax, as a context manager for all threads and settings alike."""

    @contextlib.contextmanager
    def within():
        before = jax.config.values[name]
        jax.config.update(name, value)
        try:
            yield
        finally:
            jax.config.update(name, before)

    return within


def out(*places):
    names = ("w", "b", "k", "x", "c")
    return {"out_shardings": dict(zip(names, places, strict=True))}


def on(device):
    return functools.partial(jax.default_device, DEVICES[device])


x64 = functools.partial(jax.enable_x64, True)
CASES = {
    # where outputs are, and whether they are bound to it
    "nothing committed": Case(mixed, KEY, X),
    "key committed": Case(mixed, KEY_ON_2, X),
    "array committed": Case(mixed, KEY, X_ON_2),
    "array elsewhere": Case(mixed, KEY, UNCOMMITTED_ON_5),
    "committed but not used": Case(lambda k, x: (x, jnp.zeros(3)), KEY_ON_2, X),
    "constant elsewhere": Case(lambda k: (draw(k), X_ON_3, SHARDED), KEY_ON_2),
    "default device": Case(mixed, KEY, X, within=on(5)),
    "default device, key committed": Case(mixed, KEY_ON_2, X, within=on(5)),
    "array in parts": Case(mixed, KEY, SHARDED),
    "keys in parts": Case(lambda k: (k, k[0], jax.vmap(draw)(k), X), SHARDED_KEYS),
    "keys in parts, not used": Case(lambda k, ks: (draw(k), k), KEY, SHARDED_KEYS),
    "keys in parts, placed": Case(
        jax.vmap(draw), SHARDED_KEYS, jit={"out_shardings": ROWS}
    ),
    "mesh": Case(mixed, KEY, X, within=lambda: jax.set_mesh(MESH)),
    "mesh of some devices": Case(mixed, KEY, X, within=lambda: jax.set_mesh(HALF)),
    "mesh of others": Case(mixed, KEY, X, within=lambda: jax.set_mesh(OTHER_HALF)),
    "one device": Case(
        placed, KEY, X, jit={"out_shardings": SingleDeviceSharding(DEVICES[4])}
    ),
    "some outputs placed": Case(placed, KEY, X, jit=out(ROWS, None, None, None, None)),
    "others placed": Case(
        placed, KEY, SHARDED, jit=out(None, WHOLE, WHOLE, ROWS, ROWS)
    ),
    "memory of the host": Case(placed, KEY, X, jit={"out_shardings": ON_HOST}),
    # errors
    "devices do not agree": Case(mixed, KEY_ON_2, X_ON_3),
    "devices do not agree, not used": Case(lambda k, x: draw(k), KEY_ON_2, X_ON_3),
    "one device, array in parts": Case(mixed, KEY_ON_2, SHARDED),
    "devices do not agree with outputs": Case(
        placed, KEY_ON_2, X, jit=out(ROWS, None, WHOLE, WHOLE, ROWS)
    ),
    "not a place": Case(placed, KEY, X, jit=out(ROWS, 3, None, None, None)),
    "another tree": Case(placed, KEY, X, jit={"out_shardings": [ROWS]}),
    "deleted": Case(lambda k, x: (draw(k), x), KEY, deleted(X)),
    "deleted, not used": Case(lambda k, x: draw(k), KEY, deleted(X)),
    "deleted key": Case(draw, deleted(KEY)),
    "deleted key, not used": Case(lambda k, unused: draw(k), KEY, deleted(KEY)),
    "not an array": Case(mixed, KEY, "text"),
    "text returned": Case(lambda k: (draw(k), "text"), KEY),
    "branch on a value": Case(lambda x: 1 if x > 0 else 2, 1.0),
    "keys that do not sort": Case(lambda tree: tree, {1: X, "a": X}),
    "argument missing": Case(scaled, jit={"static_argnums": 1}),
    "argument too many": Case(scaled, KEY, 3, 4, jit={"static_argnums": 1}),
    # arguments
    "float": Case(mixed, KEY, 3.0),
    "int": Case(mixed, KEY, 3),
    "bool": Case(lambda key, x: (key, x), KEY, True),
    "numpy": Case(mixed, KEY, TABLE),
    "numpy scalar": Case(mixed, KEY, np.float64(3)),
    "numpy, wide": Case(lambda x: x, np.arange(3)),
    "raw key": Case(raw_keys, RAW),
    "raw key of numpy": Case(raw_keys, np.array([3, 4], np.uint32)),
    "raw key committed": Case(raw_keys, jax.device_put(RAW, DEVICES[2])),
    "another kind of key": Case(mixed, jax.random.key(0, impl="rbg"), X),
    "None within": Case(lambda tree: tree, {"a": None, "b": [None, X]}),
    "default left out": Case(scaled, KEY, 3, scale=2, jit={"static_argnums": 1}),
    "static by number": Case(scaled, KEY, 4, jit={"static_argnums": (1,)}),
    "static, first": Case(lambda n, k: draw(k, n), 4, KEY, jit={"static_argnums": 0}),
    "static, from the end": Case(draw, KEY, 4, jit={"static_argnums": -1}),
    "static, given by name": Case(scaled, KEY, width=4, jit={"static_argnums": 1}),
    "static by name": Case(draw, KEY, 4, jit={"static_argnames": "width"}),
    "static both ways": Case(
        scaled, KEY, 4, depth=3, jit={"static_argnums": 1, "static_argnames": "depth"}
    ),
    "static, not there": Case(lambda k: draw(k), KEY, jit={"static_argnums": 3}),
    "static, of many": Case(
        lambda *args: draw(*args), KEY, 3, jit={"static_argnums": 1}
    ),
    "static, not hashable": Case(draw, KEY, [3], jit={"static_argnums": 1}),
    "static by name, no number": Case(
        draw, KEY, width=4, jit={"static_argnums": (), "static_argnames": "width"}
    ),
    "static by name, no number, given by position": Case(
        draw, KEY, 4, jit={"static_argnums": (), "static_argnames": "width"}
    ),
    "static by a number of numpy": Case(
        draw, KEY, 4, jit={"static_argnums": np.int64(1)}
    ),
    # other options
    "kept, deleted": Case(
        lambda k, x: draw(k), KEY, deleted(X), jit={"keep_unused": True}
    ),
    "kept, devices do not agree": Case(
        lambda k, x: draw(k), KEY_ON_2, X_ON_3, jit={"keep_unused": True}
    ),
    "inline": Case(mixed, KEY, X, jit={"inline": True}),
    "compiler options": Case(few_draws, KEY, jit={"compiler_options": EXPENSIVE}),
    "compiler options, many draws": Case(
        many_draws, KEY, jit={"compiler_options": EXPENSIVE}
    ),
    "compiler options that XLA has not": Case(
        mixed, KEY, X, jit={"compiler_options": {"xla_nothing": 1}}
    ),
    "compiler options within a program": Case(
        mixed, KEY, X, jit={"compiler_options": EXPENSIVE}, around=jax.jit
    ),
    "compiler options that are not": Case(mixed, KEY, X, jit={"compiler_options": 3}),
    "donated, not there": Case(mixed, KEY, X, jit={"donate_argnums": 3}),
    "donated, not a number": Case(mixed, KEY, X, jit={"donate_argnums": "a"}),
    "donated, by a name that is not there": Case(
        mixed, KEY, X, jit={"donate_argnames": "z"}
    ),
    "donated and static": Case(
        draw, KEY, 3, jit={"donate_argnums": 1, "static_argnums": 1}
    ),
    # what a function may do
    "mutable inside": Case(lambda k: jax.jit(mutable)(k) * 2, KEY),
    "mutable in a loop": Case(
        lambda k: jax.lax.scan(lambda c, _: (c, mutable(k)), 0, None, length=2), KEY
    ),
    # seeds
    "seed": Case(seeded, 5),
    "seed, negative": Case(seeded, -5),
    "seed of 8 bits": Case(seeded, np.int8(-3)),
    "seed, committed": Case(seeded, jax.device_put(3, DEVICES[2])),
    "seed too large": Case(seeded, 2**40),
    "seed not whole": Case(seeded, 2.5),
    "seed of 64 bits": Case(seeded, 2**40, within=x64),
    "seed, negative, of 64 bits": Case(seeded, -5, within=x64),
    "seed, unsigned": Case(seeded, np.uint64(2**63 + 7), within=x64),
    "seed and offset": Case(seeded, 5, within=under("jax_random_seed_offset", 8)),
    # settings
    "disable_jit": Case(mixed, KEY, X, within=jax.disable_jit),
    "debug_nans": Case(mixed, KEY, X, within=under("jax_debug_nans", True)),
    "debug_nans, nan": Case(jnp.log, -1.0, within=under("jax_debug_nans", True)),
    "debug_infs, inf": Case(lambda x: 1 / x, 0.0, within=under("jax_debug_infs", True)),
    "check_tracer_leaks": Case(draw, KEY, within=jax.checking_leaks),
    "x64": Case(mixed, KEY, np.arange(4.0), within=x64),
    "numpy_dtype_promotion": Case(
        lambda k: draw(k) * np.int32(2),
        KEY,
        within=under("jax_numpy_dtype_promotion", "strict"),
    ),
    "numpy_rank_promotion": Case(
        lambda k: draw(k)[None] * draw(k),
        KEY,
        within=under("jax_numpy_rank_promotion", "raise"),
    ),
    "no_execution": Case(
        lambda k: draw(k), KEY, within=under("jax_no_execution", True)
    ),
    "no new array from the host": Case(
        mixed, KEY, X, within=lambda: jax.transfer_guard("disallow")
    ),
    "no array from the host at all": Case(
        mixed, KEY, X, within=lambda: jax.transfer_guard("disallow_explicit")
    ),
    "array of the host, not allowed": Case(
        lambda k, x: (draw(k), x),
        *(KEY, TABLE),
        within=lambda: jax.transfer_guard("disallow"),
    ),
    "seed of the host, not allowed": Case(
        lambda seed: draw(jax.random.key(seed)),
        5,
        within=lambda: jax.transfer_guard_host_to_device("disallow"),
    ),
    "other device, not allowed": Case(
        lambda k, x: (draw(k), x),
        *(KEY, UNCOMMITTED_ON_5),
        within=lambda: jax.transfer_guard_device_to_device("disallow"),
    ),
} | {
    f"{name}={value}": Case(mixed, KEY, X, within=under(f"jax_{name}", value))
    for name, value in [
        ("default_matmul_precision", "highest"),
        ("threefry_partitionable", False),
        ("softmax_custom_jvp", True),
        ("default_prng_impl", "unsafe_rbg"),
        ("use_shardy_partitioner", False),
        ("legacy_prng_key", "error"),
    ]
}
# jax names its own program in these, and the function's own name it cannot be.
NAMED = ("no_execution", "compiler options within a program")
# What others are much like, of those that compile something.
BEYOND = (
    *(
        "compiler options, many draws",
        "default device, key committed",
        "mesh of others",
    ),
    *(
        "array committed",
        "some outputs placed",
        "keys in parts, placed",
        "keys in parts",
    ),
    *("raw key committed", "another kind of key", "float", "int", "static, first"),
    *("static, given by name", "static, from the end", "static by name, no number"),
    *("seed of 64 bits", "seed of 8 bits", "seed and offset", "mutable in a loop"),
    *("softmax_custom_jvp=True", "use_shardy_partitioner=False", "disable_jit"),
    *("default_matmul_precision=highest", "legacy_prng_key=error", "static both ways"),
    # these are in force between the calls of one function below
    *("x64", "default device", "mesh of some devices"),
    *("threefry_partitionable=False", "numpy scalar", "key committed"),
    # the same program as another, by another argument, place or setting
    *("array elsewhere", "mesh", "others placed", "numpy"),
    *("raw key of numpy", "default left out", "static, of many", "seed, negative"),
    "seed, negative, of 64 bits",
    *("one device", "static by name", "seed, unsigned", "raw key"),
    *("compiler options that XLA has not", "seed, committed"),
    *("default_prng_impl=unsafe_rbg", "debug_nans", "no new array from the host"),
)


@pytest.mark.sample(28)
@pytest.mark.parametrize("name", sampled(CASES, BEYOND))
def test_is_jax_jit(name):
    want, got = (CASES[name].outcome(jit) for jit in (jax.jit, jaxinit.jit))
    if name in NAMED:
        want, got = want[0], got[0]
    assert got == want


def test_the_table_detects_a_difference():
    """Negative control: a place, a value and an error of another kind are seen."""
    want = Case(mixed, KEY, X).outcome(jax.jit)
    for case in (
        Case(mixed, KEY, X_ON_2),
        Case(mixed, KEY, X + 1),
        Case(mixed, KEY, UNCOMMITTED_ON_5, within=on(5)),
        Case(mixed, KEY, "text"),
    ):
        assert case.outcome(jaxinit.jit) != want


def pointers(tree):
    leaves = [
        jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x
        for x in jax.tree.leaves(tree)
    ]
    return [x.unsafe_buffer_pointer() for x in leaves if x.size]


def test_outputs_share_no_buffer():
    made = pointers(jaxinit.jit(mixed)(KEY, X))
    assert len(set(made)) == len(made)
    assert not set(made) & set(pointers([KEY, X, jnp.asarray(TABLE)]))
    large = np.arange(100_000.0, dtype=np.float32)  # jnp.asarray would not copy it
    copied = jaxinit.jit(lambda: (large, jnp.asarray(large)))()
    assert not any(np.shares_memory(x, large) for x in copied)


def test_constants_keep_their_value_and_outputs_may_be_donated():
    table, array, key = TABLE.copy(), X.copy(), clone(KEY)
    closed_over = jaxinit.jit(lambda k: (draw(k, 4) * table, table, array, array, key))
    first = jax.tree.map(describe, closed_over(KEY))
    table[:] = 9
    donate = jax.jit(lambda *arrays: [x + 1 for x in arrays], donate_argnums=(0, 1))
    jax.block_until_ready(donate(*closed_over(KEY)[2:4]))
    array.delete()
    key.delete()
    assert jax.tree.map(describe, closed_over(KEY)) == first


WARM = {
    "key and array": (KEY, X),
    "number": (KEY, 2.0),
    "numpy": (KEY, TABLE),
    "other device": (KEY, UNCOMMITTED_ON_5),
}
GUARDS = [
    getattr(jax, f"transfer_guard{direction}")
    for direction in ("", "_host_to_device", "_device_to_host", "_device_to_device")
]


@pytest.mark.parametrize("name", sampled(WARM, ["number", "numpy"]))
def test_transfer_guards_of_what_is_compiled(name):
    ours, theirs = jaxinit.jit(placed), jax.jit(placed)
    args = WARM[name]
    assert_equal_outcomes(ours, theirs, args)
    for guard in GUARDS:
        for level in ("allow", "disallow", "disallow_explicit"):
            with guard(level):
                assert_equal_outcomes(ours, theirs, args)


def assert_equal_outcomes(ours, theirs, args):
    outcomes = []
    for fun in (ours, theirs):
        try:
            made = jax.tree.structure(fun(*args))
        except jax.errors.JaxRuntimeError as error:
            made = str(error)[:60]
        outcomes.append(made)
    assert outcomes[0] == outcomes[1]


@pytest.mark.exhaustive
def test_settings_and_meshes_between_calls():
    """One function, called under one after the other, and once more under the first."""

    def drawn(key, x):
        return draw(key), key, x * 2, jnp.zeros(3)

    ours, theirs = jaxinit.jit(drawn), jax.jit(drawn)
    contexts = [
        contextlib.nullcontext,
        x64,
        on(5),
        lambda: jax.set_mesh(HALF),
        lambda: jax.set_mesh(OTHER_HALF),
        under("jax_threefry_partitionable", False),
        jax.disable_jit,
    ]
    for within in [*contexts, *contexts[::2]]:
        got, want = (
            Case(drawn, KEY, X, within=within).outcome(lambda _, f=f: f)
            for f in (ours, theirs)
        )
        assert got == want


def is_deleted_after(jitted, *args, **kwargs):
    """Which of the arrays given are gone after a call."""
    fresh = jax.tree.map(lambda x: x.copy() if x is X else clone(x), (args, kwargs))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of buffers that no output could use
        jax.block_until_ready(jitted(*fresh[0], **fresh[1]))
    return [x.is_deleted() for x in jax.tree.leaves(fresh)]


DONATED = {
    "by number": ({"donate_argnums": 1}, (KEY, X), {}),
    "the first": ({"donate_argnums": 0}, (KEY, X), {}),
    "by name": ({"donate_argnames": "x"}, (KEY,), {"x": X}),
    "by name, given by position": ({"donate_argnames": ("x",)}, (KEY, X), {}),
    "none": ({"donate_argnums": ()}, (KEY, X), {}),
}


@pytest.mark.parametrize("name", sampled(DONATED, ["the first", "by name"]))
def test_donated_arguments(name):
    def init(key, x):
        return draw(key, 4), key, x * 2

    options, args, kwargs = DONATED[name]
    ours, theirs = (j(init, **options) for j in (jaxinit.jit, jax.jit))
    want = is_deleted_after(theirs, *args, **kwargs)
    assert any(want) == (name != "none")
    assert is_deleted_after(ours, *args, **kwargs) == want
    within = is_deleted_after(jax.jit(lambda *a, **k: ours(*a, **k)), *args, **kwargs)
    assert not any(within)
    eqns = jax.make_jaxpr(ours)(*args, **kwargs).eqns
    assert "inline" in [eqn.params.get("name") for eqn in eqns]  # our programs
    if name == "none":
        assert len(ours.programs(*args)) > 1
        return
    with pytest.raises(ValueError, match="donates arguments"):
        ours.programs(*args, **kwargs)


def test_compiler_options_are_used_and_kept_apart():
    options = dict(EXPENSIVE)
    plain, other = (
        jaxinit.jit(few_draws),
        jaxinit.jit(few_draws, compiler_options=options),
    )
    first, second = (
        {id(c.call) for c in ours.programs(KEY)._runner.compiled}
        for ours in (plain, other)
    )
    assert first.isdisjoint(second)
    options["xla_nothing"] = 1  # a change afterwards is none of a function's
    other.clear_cache()
    other(KEY)


def test_inline():
    """Within a program, a call of the function, or its equations."""

    def calls(jit, inline):
        eqns = jax.make_jaxpr(jit(draw, inline=inline))(KEY).eqns
        named = [e for e in eqns if e.params.get("name") in ("draw", "inline")]
        return [e.params["inline"] for e in named]

    for inline in (False, True):
        assert calls(jaxinit.jit, inline) == calls(jax.jit, inline)
    assert calls(jax.jit, False) != calls(jax.jit, True)


def with_array(key):
    return draw(key) * X[:3]


def with_sum(key):
    x = draw(key)
    return x + x.sum()


@pytest.mark.parametrize("fun", sampled([draw, with_array, with_sum], [with_array]))
def test_no_tracing(fun):
    """What was traced before is run, whoever asks for it and whatever is watched."""
    for jit in (jax.jit, jaxinit.jit):
        jit(fun)(KEY)
        with jax.no_tracing(True):
            want = jit(fun)(KEY)
            with jax.transfer_guard("disallow"):
                got = jit(fun)(KEY)
            with pytest.raises(RuntimeError, match="re-tracing"):
                jit(lambda key: draw(key))(KEY)
        assert describe(got) == describe(want)


class Model:
    width = 3

    @jaxinit.jit(static_argnums=0)
    def init(self, key):
        return draw(key, self.width)

    @staticmethod
    @jaxinit.jit
    def static(key):
        return draw(key)

    @classmethod
    @functools.partial(jaxinit.jit, static_argnums=0)
    def of_class(cls, key):
        return draw(key, cls.width)


def test_methods():
    model = Model()
    assert isinstance(model.init, types.MethodType)
    for init in (
        model.init,
        functools.partial(Model.init, model),
        *(Model.static, model.static, Model.of_class, model.of_class),
    ):
        np.testing.assert_array_equal(init(KEY), draw(KEY))


def test_as_a_decorator_with_options():
    made = jaxinit.jit(static_argnums=1, inline=True)
    assert describe(made(draw)(KEY, 4)) == describe(jax.jit(lambda k: draw(k, 4))(KEY))
    with pytest.raises(TypeError, match="fun must be a function"):
        made(3)
    with pytest.raises(TypeError, match="fun must be a function"):
        jaxinit.jit(None)


@jaxinit.jit
def decorated(key):
    return draw(key)


@pytest.mark.parametrize("called", [False, True])
@pytest.mark.parametrize(
    "copied",
    [copy.copy, copy.deepcopy, lambda fun: pickle.loads(pickle.dumps(fun))],
    ids=["copy", "deepcopy", "pickle"],
)
def test_copies(copied, called):
    original = jaxinit.jit(draw, static_argnames="width")
    if called:
        original(KEY, width=2)
        decorated(KEY)
    np.testing.assert_array_equal(copied(original)(KEY, width=2), draw(KEY, 2))
    assert copied(decorated) is decorated


def test_what_jax_jit_has_beside_a_call():
    ours, theirs = (j(scaled, static_argnums=1) for j in (jaxinit.jit, jax.jit))
    assert inspect.signature(ours) == inspect.signature(theirs)
    assert ours.__wrapped__ is scaled
    assert ours.eval_shape(KEY, 3) == theirs.eval_shape(KEY, 3)
    assert ours.lower(KEY, 3).as_text() == theirs.lower(KEY, 3).as_text()
    assert str(ours.trace(KEY, 3).jaxpr) == str(theirs.trace(KEY, 3).jaxpr)


@pytest.mark.parametrize(
    "whose", ["the function", pytest.param("all", marks=pytest.mark.exhaustive)]
)
def test_caches_may_be_cleared(whose):
    ours = jaxinit.jit(scaled, static_argnums=1)
    before = describe(ours(KEY, 3)[0])
    clear = ours.clear_cache if whose == "the function" else jax.clear_caches
    clear()
    assert describe(ours(KEY, 3)[0]) == before


def test_what_is_kept_is_bounded():
    kept = Recent(2)
    for name in "aba":
        kept.put(name, name)
    kept.put("c", "c")  # "b" was used longest ago
    assert (kept.get("a"), kept.get("b"), kept.get("c")) == ("a", None, "c")
    assert len(kept) == 2
    ours = jaxinit.jit(lambda x, n: x, static_argnums=1)
    for n in range(80):
        jax.eval_shape(lambda x, n=n: ours(x, n), X)
    assert len(ours._cuts) == 64


@pytest.mark.exhaustive
def test_threads_and_settings():
    """Settings belong to a thread: one under x64 beside one that is not."""
    ours, outcomes = jaxinit.jit(mixed), {}

    def call(name, within):
        case = Case(mixed, KEY, X, within=within)
        outcomes[name] = case.outcome(lambda _: ours), case.outcome(jax.jit)

    calls = {"x64": x64, "plain": contextlib.nullcontext, "on 5": on(5)}
    threads = [threading.Thread(target=call, args=item) for item in calls.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes.keys() == calls.keys()
    for got, want in outcomes.values():
        assert got == want


def test_is_tracing():
    seen = []

    def note(x):
        seen.append(is_tracing())
        return x

    note(1)
    jax.jit(note)(1)
    jax.vmap(note)(X)
    with jax.transfer_guard("disallow"):
        note(1)
    assert seen == [False, True, False, False]


def test_programs_of_a_plan_give_its_tree():
    tree = {"layer": {"kernel": X.reshape(2, 2), "bias": X}, "none": None}
    plan = jaxinit.plan(tree, {"**/kernel": jaxinit.he_normal(), "**": jaxinit.zeros})
    programs = plan.programs(KEY)
    got, want = programs.run(), plan.init(KEY)
    assert jax.tree.structure(got) == jax.tree.structure(want)
    assert [*map(describe, jax.tree.leaves(got))] == [
        *map(describe, jax.tree.leaves(want))
    ]
    assert {name for p in programs for names in p.leaves for name in names} == {
        "layer/kernel",
        "layer/bias",
    }


def test_programs_as_a_table():
    programs = jaxinit.jit(lambda k: {"<w>": draw(k), "zeros": jnp.zeros(3)})
    programs = programs.programs(KEY)
    assert repr(programs) == "<Programs: 2 for 2 leaves, 24 bytes>"
    html = programs._repr_html_()
    assert html.count("<tr") == 3
    assert "&lt;w&gt;" in html
    assert "<w>" not in html
    assert "2 programs for 2 leaves, 24 bytes" in html


def test_programs_for_devices_that_are_not_there():
    programs = jaxinit.jit(draw).programs(KEY)
    programs.run()

    class OfTopology:
        """Stands for what jax compiles for a topology: it is not loaded."""

        runtime_executable = staticmethod(object)

    compiled = [types.SimpleNamespace(call=OfTopology(), is_copy=False)]
    programs._runner = Runner(programs._runner.plan, compiled)
    with pytest.raises(RuntimeError, match="devices that this process does not have"):
        programs.run()
