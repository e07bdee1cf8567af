"""The Linen door: the numbers of `model.init`, each array where its metadata say."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from sampling import sampled

import jaxinit
from jaxinit import linen as door

KEY = jax.random.key(1729)
X = jnp.ones((1, 8))
KINDS = (AxisType.Auto, AxisType.Explicit)
LOGICAL = (("embed", "x"), ("mlp", "y"))


def mesh_of(kind=AxisType.Auto):
    return jax.make_mesh((2, 4), ("x", "y"), axis_types=(kind,) * 2)


class Model(nn.Module):
    """Two kernels with metadata, and much without."""

    wrap: object = nn.with_partitioning
    names: tuple = ("x", "y")
    options: object = None

    @nn.compact
    def __call__(self, x, train=False):
        for _ in range(2):
            kernel_init = self.wrap(jaxinit.he_normal(), self.names)
            bias_init = self.wrap(jaxinit.zeros, self.names[-1:])
            x = nn.Dense(8, kernel_init=kernel_init, bias_init=bias_init)(x)
            x = nn.BatchNorm(use_running_average=not train)(x)
            x = nn.Dropout(0.5, deterministic=not train)(x)
        self.sow("intermediates", "last", x)
        return nn.Dense(3)(x)


def logical(names=("embed", "mlp")):
    return Model(nn.with_logical_partitioning, names)


@functools.cache
def expected():
    return jax.jit(Model().init)(KEY, X)


def assert_same(got, want=None):
    want = expected() if want is None else want
    assert jax.tree.structure(got) == jax.tree.structure(want)
    assert_same_values(got, want)


def assert_same_values(got, want=None):
    want = expected() if want is None else want
    pairs = zip(jax.tree.leaves_with_path(got), jax.tree.leaves(want), strict=True)
    for (path, a), b in pairs:
        assert a.dtype == b.dtype, path
        np.testing.assert_array_equal(a, b, err_msg=str(path))


KERNEL, BIAS = P("x", "y"), P("y")


def assert_placed(variables, mesh, kernel=KERNEL, bias=BIAS):
    wanted = {"kernel": kernel, "bias": bias}
    for layer, params in variables["params"].items():
        for name, box in params.items():
            has_box = isinstance(box, nn.Partitioned)
            assert has_box == (layer in ("Dense_0", "Dense_1"))
            spec = wanted[name] if has_box else P()
            array = box.value if has_box else box
            place = NamedSharding(mesh, spec)
            assert array.sharding.is_equivalent_to(place, array.ndim), (layer, name)
    for array in jax.tree.leaves(variables["batch_stats"]):
        assert array.sharding.is_equivalent_to(NamedSharding(mesh, P()), array.ndim)


def test_without_a_mesh():
    variables = door.init(Model(), KEY, X)
    assert_same(variables)
    assert variables["params"]["Dense_0"]["kernel"].names == ("x", "y")
    with pytest.raises(AssertionError):
        assert_same(door.init(Model(), jax.random.key(1), X))


def test_shape_stands_for_zeros():
    assert_same(door.init(Model(), KEY, jax.ShapeDtypeStruct(X.shape, X.dtype)))


@pytest.mark.exhaustive
def test_streams_and_options():
    streams = {"params": KEY, "dropout": jax.random.key(1)}
    want = jax.jit(lambda rngs: Model().init(rngs, X, train=True))(streams)
    assert_same(door.init(Model(), streams, X, train=True), want)
    everything = ["params", "batch_stats", "intermediates"]
    want = jax.jit(lambda key: Model().init(key, X, mutable=everything))(KEY)
    assert "intermediates" in want
    assert_same(door.init(Model(), KEY, X, mutable=everything), want)


def test_what_does_not_hash():
    assert_same(door.init(Model(options=[1]), KEY, X))


def test_second_call_traces_and_compiles_nothing(caplog):
    traces = []

    class Counting(Model):
        def __call__(self, x):
            traces.append(1)
            return super().__call__(x)

    door.init(Counting(), KEY, X)
    other = jax.random.key(1)  # a key is a program too
    with jax.log_compiles():
        again = door.init(Counting(), other, X)
        assert "Compiling" not in caplog.text
        jax.jit(lambda x: x + 1.5)(X)
        assert "Compiling" in caplog.text
    assert len(traces) == 1
    first, second = (
        np.asarray(variables["params"]["Dense_0"]["kernel"].value)
        for variables in (expected(), again)
    )
    assert (first != second).any()


@pytest.mark.parametrize("kind", sampled(KINDS, [AxisType.Auto]))
def test_mesh_axes(kind):
    mesh = mesh_of(kind)
    for variables in (
        door.init(Model(), KEY, X, mesh=mesh),
        jax.jit(lambda key: door.init(Model(), key, X, mesh=mesh))(KEY),
    ):
        assert_same(variables)
        assert_placed(variables, mesh)
    with jax.set_mesh(mesh):
        variables = door.init(Model(), KEY, X)
    assert_same(variables)
    assert_placed(variables, mesh)


def test_inside_jit_under_a_mesh_in_use():
    mesh = mesh_of()
    with jax.set_mesh(mesh):
        variables = jax.jit(lambda key: door.init(Model(), key, X))(KEY)
    assert_same(variables)
    assert_placed(variables, mesh)


@pytest.mark.parametrize("kind", KINDS)
def test_logical_axes(kind):
    mesh = mesh_of(kind)
    variables = door.init(logical(), KEY, X, rules=LOGICAL, mesh=mesh)
    assert_same_values(variables)
    assert_placed(variables, mesh)
    box = variables["params"]["Dense_0"]["kernel"]
    assert isinstance(box, nn.LogicallyPartitioned)
    assert box.names == ("embed", "mlp")
    with nn.logical_axis_rules(LOGICAL):
        assert_placed(door.init(logical(), KEY, X, mesh=mesh), mesh)


RULES = {
    "whole": ([("embed", None), ("mlp", "y")], P(None, "y"), P("y")),
    "both axes": ([("embed", ("x", "y")), ("mlp", None)], P(("x", "y")), P()),
    "first that is free": (
        [("embed", "y"), ("mlp", "y"), ("mlp", "x")],
        P("y", "x"),
        P("y"),
    ),
}


@pytest.mark.parametrize("name", sampled(RULES, ["whole"]))
def test_rules(name):
    rules, kernel, bias = RULES[name]
    variables = door.init(logical(), KEY, X, rules=rules, mesh=mesh_of())
    assert_same_values(variables)
    assert_placed(variables, mesh_of(), kernel, bias)


def test_box_keeps_to_its_own_mesh_and_rules():
    other = jax.make_mesh((8,), ("y",), axis_types=(AxisType.Auto,))

    def wrap(init, names):
        return nn.with_logical_partitioning(init, names, other, (("a", "y"),))

    dense = nn.Dense(8, kernel_init=wrap(jaxinit.zeros, ("a", None)))
    for options in ({}, {"mesh": mesh_of(), "rules": LOGICAL}):
        kernel = door.init(dense, KEY, X, **options)["params"]["kernel"].value
        assert kernel.sharding == NamedSharding(other, P("y", None))


@pytest.mark.exhaustive
def test_scanned_layers():
    class Stack(nn.Module):
        @nn.compact
        def __call__(self, x):
            wrap = nn.with_logical_partitioning
            init = wrap(jaxinit.he_normal(), ("embed", "mlp"))

            class Layer(nn.Module):
                @nn.compact
                def __call__(self, x, _):
                    return nn.Dense(8, kernel_init=init)(x), None

            return nn.scan(
                Layer,
                variable_axes={"params": 0},
                split_rngs={"params": True},
                length=4,
                metadata_params={nn.PARTITION_NAME: "layers"},
            )()(x, None)

    mesh = mesh_of()
    rules = (*LOGICAL, ("layers", None))
    variables = door.init(Stack(), KEY, X, rules=rules, mesh=mesh)
    assert_same_values(variables, jax.jit(Stack().init)(KEY, X))
    (kernel,) = (
        leaf for path, leaf in jax.tree.leaves_with_path(variables) if leaf.ndim == 3
    )
    assert kernel.sharding == NamedSharding(mesh, P(None, "x", "y"))


KERNELS = ("params/Dense_0/kernel: ", "params/Dense_1/kernel: ")
BIASES = ("params/Dense_0/bias: ", "params/Dense_1/bias: ")
BAD = {
    "unknown axis": (
        (Model(names=("x", "z")), X, {}),
        [*KERNELS, *BIASES, "names the axis 'z'", "its axes are 'x', 'y'"],
        ["Dense_2"],
    ),
    "does not divide": (
        (Model(), X[:, :3], {}),
        [KERNELS[0], "(3, 8): axis 0 of size 3 does not divide into 2 parts (x: 2)"],
        [KERNELS[1], *BIASES],
    ),
    "no rules": (
        (logical(), X, {}),
        [*KERNELS, *BIASES, "logical axis 'embed'", "add ('mlp', None) to rules"],
        ["Dense_2"],
    ),
    "a rule is missing": (
        (logical(), X, {"rules": [("mlp", "y")]}),
        [*KERNELS, "logical axis 'embed' of P('embed', 'mlp')"],
        BIASES,
    ),
    "a rule names no axis of the mesh": (
        (logical(), X, {"rules": [("mlp", "z"), ("embed", None)]}),
        [*KERNELS, *BIASES, "names the axis 'z'"],
        ["Dense_2"],
    ),
    "an axis twice": (
        (logical(("mlp", "mlp")), X, {"rules": LOGICAL}),
        [*KERNELS, "occur more than once"],
        BIASES,
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_metadata_are_one_error(name):
    (model, x, options), inside, outside = BAD[name]
    with pytest.raises(jaxinit.PlanError) as raised:
        door.init(model, KEY, x, mesh=mesh_of(), **options)
    message = str(raised.value)
    assert all(text in message for text in inside), message
    assert not any(text in message for text in outside), message


def test_rules_without_a_mesh():
    with pytest.raises(ValueError, match=r"give mesh=, or use jax\.set_mesh"):
        door.init(logical(), KEY, X, rules=LOGICAL)


def test_not_a_mesh():
    with pytest.raises(TypeError, match=r"mesh must be a jax\.sharding\.Mesh.* got 8"):
        door.init(Model(), KEY, X, mesh=8)
