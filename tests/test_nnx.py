"""The NNX door: `create` gives what `nnx.Rngs` gives, and cuts into leaves cheaply."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.extend import core
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from sampling import sampled

import jaxinit
from jaxinit import nnx as door


class Block(nnx.Module):
    def __init__(self, rngs: nnx.Rngs):
        self.linear = nnx.Linear(3, 3, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, x):
        return self.dropout(self.linear(x))


class Layers(nnx.Module):
    """Whatever `make` returns, between two layers that show how the streams count."""

    def __init__(self, make, rngs: nnx.Rngs):
        self.before = nnx.Linear(2, 3, rngs=rngs)
        self.inside = make(rngs)
        self.after = nnx.Linear(3, 2, rngs=rngs)


class Tied(nnx.Module):
    def __init__(self, rngs: nnx.Rngs):
        self.first = nnx.Linear(3, 3, rngs=rngs)
        self.second = self.first
        self.third = nnx.Linear(3, 3, rngs=rngs)
        self.third.kernel = self.first.kernel


class Nested(nnx.Module):
    def __init__(self, rngs: nnx.Rngs):
        self.lists = nnx.List(
            [nnx.List([nnx.Linear(2, 2, rngs=rngs) for _ in range(2)]), Block(rngs)]
        )
        self.named = nnx.Dict({"a": Block(rngs)})


class KeepsRngs(nnx.Module):
    def __init__(self, rngs: nnx.Rngs):
        self.rngs = rngs
        self.forked = rngs.fork()
        self.linear = nnx.Linear(2, 2, rngs=self.forked)
        self.stream = rngs.dropout.fork()
        self.stacked = rngs.split(3)
        self.same = rngs.broadcast(2)


def vmapped(rngs):
    @nnx.split_rngs(splits=3)
    @nnx.vmap(in_axes=0, out_axes=0)
    def make(rngs):
        return Block(rngs)

    return make(rngs)


def vmapped_over_split(rngs):
    return nnx.vmap(Block)(rngs.split(3))


def scanned(rngs):
    @nnx.scan(in_axes=(nnx.Carry, 0), out_axes=(nnx.Carry, 0))
    def make(carry, rngs):
        return carry, Block(rngs)

    return make(0, rngs.split(3))[1]


def layers(rngs):
    return nnx.Dict(
        batch_norm=nnx.BatchNorm(4, rngs=rngs),
        embed=nnx.Embed(5, 4, rngs=rngs),
        narrow=nnx.Linear(2, 3, param_dtype=jnp.bfloat16, rngs=rngs),
    )


def raw_draws(rngs):
    """Cheap to compile, so that many keys can be tried on it."""
    return nnx.Dict(
        a=nnx.Param(rngs.params.bits((3,))),
        b=nnx.Param(rngs.dropout.bits((2,))),
        rngs=rngs,
    )


MODULES = {
    "layers": layers,
    "convolution": lambda rngs: nnx.Conv(2, 3, (3,), rngs=rngs),
    "dropout": Block,
    "attention": lambda rngs: nnx.MultiHeadAttention(2, 4, dropout_rate=0.1, rngs=rngs),
    "lstm": lambda rngs: nnx.LSTMCell(3, 2, rngs=rngs),
    "tied": Tied,
    "nested": Nested,
    "keeps its rngs": KeepsRngs,
    "vmapped": vmapped,
    "vmapped over split": vmapped_over_split,
    "scanned": scanned,
}
STREAMS = {
    "seed": ((7,), {}),
    "key": ((jax.random.key(1),), {}),
    "raw key": ((jax.random.PRNGKey(2),), {}),
    "rbg key": ((jax.random.key(3, impl="rbg"),), {}),
    "mapping": (({"params": 4, "dropout": 5},), {}),
    "streams": ((6,), {"params": jax.random.key(7)}),
    "streams alone": ((), {"params": 8, "dropout": 9}),
}


def assert_equal(got, expected):
    assert got[0] == expected[0]  # the graph definitions
    got, expected = (jax.tree.leaves_with_path(state) for _, state in (got, expected))
    assert len(got) == len(expected)
    for (path, a), (other, b) in zip(got, expected, strict=True):
        assert path == other
        assert a.dtype == b.dtype, path
        assert getattr(a, "weak_type", None) == getattr(b, "weak_type", None), path
        if jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        np.testing.assert_array_equal(a, b, err_msg=str(path))


def reference(fun, *args, **streams):
    return jax.jit(lambda: nnx.split(fun(nnx.Rngs(*args, **streams))))()


BEYOND = ["attention", "convolution", "dropout", "lstm", "nested", "vmapped"]
BEYOND += ["vmapped over split", "scanned", "tied"]


@pytest.mark.sample(1)
@pytest.mark.parametrize("name", sampled(MODULES, BEYOND))
def test_modules_equal_those_of_nnx(name):
    fun = functools.partial(Layers, MODULES[name])
    assert_equal(nnx.split(door.create(fun, 0)), reference(fun, 0))


@pytest.mark.sample(2)
@pytest.mark.parametrize("name", sampled(STREAMS, ["key", "streams"]))
def test_streams_equal_those_of_nnx(name):
    args, streams = STREAMS[name]
    assert_equal(
        nnx.split(door.create(raw_draws, *args, **streams)),
        reference(raw_draws, *args, **streams),
    )


def test_comparison_sees_another_key_and_another_count():
    expected = reference(raw_draws, 0)
    with pytest.raises(AssertionError):
        assert_equal(nnx.split(door.create(raw_draws, 1)), expected)
    model = door.create(raw_draws, 0)
    model.rngs()
    with pytest.raises(AssertionError):
        assert_equal(nnx.split(model), expected)


@pytest.mark.exhaustive
def test_model_works_and_its_streams_are_plain_ones():
    model = door.create(KeepsRngs, 0, dropout=1)
    assert type(model.rngs) is nnx.Rngs
    assert all(type(s) is nnx.RngStream for _, s in model.stacked.items())
    twin = nnx.merge(*reference(KeepsRngs, 0, dropout=1))
    assert model.rngs() == twin.rngs()
    assert model.rngs.default.count[...] == twin.rngs.default.count[...]
    block = door.create(Block, 0)
    x = jnp.ones((8, 3))
    a, b = np.asarray(block(x)), np.asarray(block(x))
    assert a.shape == (8, 3)
    assert (a == 0).any()
    assert (a != b).any()


def test_default_prng_of_the_user_is_kept():
    with jax.default_prng_impl("rbg"):
        assert_equal(nnx.split(door.create(raw_draws, 0)), reference(raw_draws, 0))


def test_second_call_traces_nothing():
    traces = []

    def make(rngs):
        traces.append(1)
        return nnx.Linear(2, 3, rngs=rngs)

    models = [door.create(make, seed) for seed in range(3)]
    assert len(traces) == 1
    first, second, _ = (np.asarray(model.kernel[...]) for model in models)
    assert (first != second).all()


def test_inside_jit_and_vmap():
    def kernels(key):
        return nnx.state(door.create(Block, key), nnx.Param)

    keys = jax.random.split(jax.random.key(0), 3)
    expected = [door.create(Block, key).linear.kernel[...] for key in keys]
    stacked = jax.jit(jax.vmap(kernels))(keys)["linear"]["kernel"][...]
    np.testing.assert_array_equal(stacked, np.stack(expected))


def longest_slice(streams, depth: int) -> int:
    """The most equations that one array of `depth` layers depends on."""

    def init(key):
        stack = [nnx.Linear(2, 2, rngs=rngs) for rngs in [streams(key)] * depth]
        return [layer.kernel.get_value() for layer in stack]

    jaxpr = jax.make_jaxpr(init)(jax.random.key(0)).jaxpr
    ancestors: dict[core.Var, frozenset[int]] = {}
    for i, eqn in enumerate(jaxpr.eqns):
        known = [
            ancestors.get(a, frozenset()) for a in eqn.invars if isinstance(a, core.Var)
        ]
        every = frozenset({i}).union(*known)
        ancestors.update(dict.fromkeys(eqn.outvars, every))
    return max(len(ancestors[var]) for var in jaxpr.outvars)


def test_slice_of_a_leaf_does_not_grow_with_the_model():
    counting = functools.partial(
        longest_slice, lambda key: door._Rngs({"default": key})
    )
    assert counting(2) == counting(30)
    plain = functools.partial(longest_slice, nnx.Rngs)
    assert plain(30) > 2 * plain(2)  # what the door is for


def test_collections_are_those_of_linen():
    fun = functools.partial(Layers, lambda rngs: nnx.BatchNorm(4, rngs=rngs))
    tree = door.collections(fun)(jax.random.key(0))
    assert set(tree) == {"params", "batch_stats"}
    assert set(tree["params"]) == {"before", "inside", "after"}
    model = fun(nnx.Rngs(1))
    for part in tree.values():
        nnx.update(model, part)
    assert_equal(nnx.split(model), nnx.split(fun(nnx.Rngs(jax.random.key(0)))))


def test_collections_name_what_linen_has_no_name_for():
    tree = door.collections(Block)(jax.random.key(0))
    assert set(tree) == {"params", "RngKey", "RngCount"}


@pytest.mark.parametrize("result", [None, jnp.ones(3), {"a": jnp.ones(3)}])
def test_result_without_nnx_is_an_error(result):
    with pytest.raises(
        TypeError, match=r"fun must return an nnx\.Module .* jaxinit\.jit"
    ):
        door.create(lambda rngs: result, 0)


def test_not_callable_is_an_error():
    with pytest.raises(TypeError, match=r"fun must be a function of nnx\.Rngs.* got 3"):
        door.create(3, 0)


def test_bad_key_is_an_error():
    with pytest.raises(ValueError, match=r"Invalid rng value: 1\.5"):
        door.create(Block, 1.5)


# ---- meshes


class Cut(nnx.Module):
    """Two layers whose kernels have metadata, and much without."""

    def __init__(self, rngs: nnx.Rngs, size: int = 8, names=("x", "y")):
        wrap = nnx.with_partitioning
        inits = {
            "kernel_init": wrap(jaxinit.he_normal(), names),
            "bias_init": wrap(jaxinit.zeros, names[1:]),
        }
        self.layers = nnx.List(
            [nnx.Linear(size, 8, rngs=rngs, **inits) for _ in range(2)]
        )
        self.block = Block(rngs)


def mesh_of(kind=AxisType.Auto):
    return jax.make_mesh((2, 4), ("x", "y"), axis_types=(kind,) * 2)


def assert_placed(model, mesh):
    specs = {"kernel": P("x", "y"), "bias": P("y")}
    for path, leaf in nnx.to_flat_state(nnx.state(model)):
        spec = specs[path[-1]] if path[0] == "layers" else P()
        array, place = leaf.get_value(), NamedSharding(mesh, spec)
        assert array.sharding.is_equivalent_to(place, array.ndim), path


@functools.cache
def expected_of_cut():
    with jax.set_mesh(mesh_of()):
        graph, _ = nnx.split(nnx.eval_shape(lambda: Cut(nnx.Rngs(0))))
        return graph, reference(Cut, 0)[1]


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    "kind", sampled([AxisType.Auto, AxisType.Explicit], [AxisType.Auto])
)
def test_metadata_place_arrays_on_a_mesh(kind):
    mesh, expected = mesh_of(kind), expected_of_cut()
    model = door.create(Cut, 0, mesh=mesh)
    assert_equal(nnx.split(model), expected)  # the metadata too
    assert_placed(model, mesh)
    assert model.layers[0].kernel.out_sharding == ("x", "y")
    with jax.set_mesh(mesh):
        model = door.create(Cut, 0)
    assert_equal(nnx.split(model), expected)
    assert_placed(model, mesh)
    inside = jax.jit(lambda key: nnx.state(door.create(Cut, key, mesh=mesh)))
    state = inside(jax.random.key(0))
    assert_equal((0, state), (0, expected[1]))
    assert_placed(state, mesh)


@pytest.mark.parametrize("says", ["mesh", "sharding"])
def test_a_variable_goes_where_it_says_itself(says):
    own = jax.make_mesh((2,), ("x",), devices=jax.devices()[:2])
    place = NamedSharding(own, P("x"))
    said = {
        "mesh": {"out_sharding": ("x",), "mesh": own},
        "sharding": {"out_sharding": place},
    }
    with nnx.use_eager_sharding(False):
        variable = nnx.Param(np.ones(8, np.float32), **said[says])
        assert door._sharding(variable, mesh_of()) == place


def test_second_model_on_a_mesh_compiles_nothing(caplog):
    mesh = mesh_of()
    door.create(Cut, 0, mesh=mesh)
    with jax.log_compiles():
        door.create(Cut, 1, mesh=mesh)
        assert "Compiling" not in caplog.text
        jax.jit(lambda x: x + 1.5)(1.0)
        assert "Compiling" in caplog.text


def test_logical_axes():
    rules = (("embed", "x"), ("mlp", "y"))
    fun = functools.partial(Cut, names=("embed", "mlp"))
    with nnx.logical_axis_rules(rules):
        model = door.create(fun, 0, mesh=mesh_of())
    assert_placed(model, mesh_of())
    assert model.layers[0].kernel.out_sharding == ("embed", "mlp")


def test_metadata_keep_to_their_own_mesh():
    other = jax.make_mesh((8,), ("z",), axis_types=(AxisType.Auto,))
    init = nnx.with_partitioning(jaxinit.zeros, ("z", None), mesh=other)
    model = door.create(
        lambda rngs: nnx.Linear(8, 3, kernel_init=init, rngs=rngs), 0, mesh=other
    )
    assert model.kernel.get_value().sharding == NamedSharding(other, P("z", None))


KERNELS = ("layers/0/kernel: ", "layers/1/kernel: ")
BAD = {
    "unknown axis": (
        functools.partial(Cut, names=("x", "z")),
        [*KERNELS, "layers/0/bias: ", "names the axis 'z'", "its axes are 'x', 'y'"],
        ["block"],
    ),
    "logical axis without a rule": (
        functools.partial(Cut, names=("embed", "y")),
        [*KERNELS, "names the axis 'embed'"],
        ["bias"],
    ),
    "does not divide": (
        functools.partial(Cut, size=3),
        [*KERNELS, "(3, 8): axis 0 of size 3 does not divide into 2 parts (x: 2)"],
        ["bias"],
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_metadata_are_one_error(name):
    fun, inside, outside = BAD[name]
    with pytest.raises(jaxinit.PlanError) as raised:
        door.create(fun, 0, mesh=mesh_of())
    message = str(raised.value)
    assert all(text in message for text in inside), message
    assert not any(text in message for text in outside), message


def test_not_a_mesh():
    with pytest.raises(TypeError, match=r"mesh must be a jax\.sharding\.Mesh.* got 8"):
        door.create(Block, 0, mesh=8)
