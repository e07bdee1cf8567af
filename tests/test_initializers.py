"""Initializers: protocol, options, and the behaviour of values."""

import functools
import inspect
import math
import pickle
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import ClassVar

import flax.linen
import flax.nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.nn import initializers as reference
from jax.sharding import AxisType, PartitionSpec
from references import CASES, CATALOGUE, assert_same_bits, pair
from sampling import sampled

import jaxinit


def test_all_names_of_jax_are_here_with_their_parameters():
    for name in filter(str.islower, dir(reference)):
        if name.startswith("_"):
            continue
        ours, theirs = getattr(jaxinit, name), getattr(reference, name)
        if isinstance(ours, jaxinit.Initializer):
            assert name in ("zeros", "ones")
            continue
        wanted = inspect.signature(theirs).parameters
        given = list(inspect.signature(ours).parameters.values())
        for parameter, mine in zip(wanted.values(), given, strict=False):
            assert (mine.name, mine.kind) == (parameter.name, parameter.kind)
            assert mine.default == parameter.default
        for extra in given[len(wanted) :]:
            assert extra.kind is inspect.Parameter.KEYWORD_ONLY
    assert jaxinit.xavier_normal is jaxinit.glorot_normal
    assert jaxinit.xavier_uniform is jaxinit.glorot_uniform
    assert jaxinit.kaiming_normal is jaxinit.he_normal
    assert jaxinit.kaiming_uniform is jaxinit.he_uniform


# ---- new options


@pytest.mark.unoptimized
def test_new_options(key):
    shape = (64, 64)

    def draw(init):
        return np.asarray(init(key, shape))

    shifted = draw(jaxinit.normal(0.1, mean=3.0))
    assert abs(float(shifted.mean()) - 3) < 6.2 * 0.1 / 64
    between = draw(jaxinit.uniform(low=-2.0, high=-1.0))
    assert -2 <= between.min() < -1.99
    assert -1.01 < between.max() <= -1
    plain = draw(jaxinit.truncated_normal(1.0))
    wider = draw(jaxinit.truncated_normal(1.0, corrected=True))
    np.testing.assert_allclose(wider * 0.87962566103423978, plain, rtol=1e-6)


BATCHED = {
    "first": ((3, 4, 5), -1, 0),
    "second": ((4, 3, 5), 0, 1),
    "two": ((2, 4, 3, 2, 3), -2, (0, 2)),
}


BATCHED = {
    f"{name}, {dtype}": (*axes, dtype)
    for name, axes in BATCHED.items()
    for dtype in ("float32", "complex64")
}
BEYOND = [name for name in BATCHED if name not in ("second, float32", "two, complex64")]


@pytest.mark.unoptimized
@pytest.mark.parametrize("name", sampled(BATCHED, BEYOND))
def test_batched_orthogonal(key, name):
    shape, column_axis, batch_axis, dtype = BATCHED[name]
    init = jaxinit.orthogonal(2.0, column_axis, batch_axis=batch_axis)
    x = np.asarray(init(key, shape, dtype))
    batch = np.atleast_1d(batch_axis).tolist()
    column = column_axis % x.ndim
    rows = [axis for axis in range(x.ndim) if axis not in (*batch, column)]
    x = x.transpose(*batch, *rows, column)
    x = x.reshape(math.prod(x.shape[: len(batch)]), -1, x.shape[-1])
    for matrix in x:
        tall = matrix if matrix.shape[0] >= matrix.shape[1] else matrix.T
        gram = tall.T @ tall.conj()
        np.testing.assert_allclose(gram, 4 * np.eye(len(gram)), atol=1e-5)
    assert np.abs(x[0] - x[1]).max() > 0.1


# ---- transformations


WAYS = ["jit", "closed over", "vmap", "vmap closed over", "pmap", "shard_map"]
WAYS += ["jit of shard_map", "shard_map closed over", "scan", "remat", "export"]


@pytest.mark.sample(4)
@pytest.mark.parametrize(
    "way", sampled(WAYS, ["vmap closed over", "pmap", "shard_map closed over"])
)
def test_transformations_keep_the_bits(key, way):
    init, shape = jaxinit.he_normal(), (16, 8)
    wanted = init(key, shape)
    keys = key[None]
    mesh = jax.make_mesh((1,), ("x",), axis_types=(AxisType.Auto,))
    spec = PartitionSpec("x")

    def drawn(keys):
        return init(keys[0], shape)[None]

    def closed_over(x):
        return init(key, shape)[None] + 0 * x[:, None, None]

    shard = functools.partial(jax.shard_map, mesh=mesh, in_specs=spec, out_specs=spec)

    def exported(data):
        draw = jax.jit(lambda data: drawn(jax.random.wrap_key_data(data)[None]))
        return jax.export.export(draw)(data).call(data)

    ways = {
        "jit": lambda: jax.jit(drawn)(keys),
        "closed over": lambda: jax.jit(closed_over)(jnp.zeros(1)),
        "vmap": lambda: jax.vmap(lambda key: init(key, shape))(keys),
        "vmap closed over": lambda: jax.vmap(lambda x: closed_over(x[None])[0])(
            jnp.zeros(1)
        ),
        "pmap": lambda: jax.pmap(lambda key: init(key, shape))(keys),
        "shard_map": lambda: shard(drawn)(keys),
        "jit of shard_map": lambda: jax.jit(shard(drawn))(keys),
        "shard_map closed over": lambda: shard(closed_over)(jnp.zeros(1)),
        "scan": lambda: jax.lax.scan(lambda c, key: (c, init(key, shape)), 0, keys)[1],
        "remat": lambda: jax.checkpoint(drawn)(keys),
        "export": lambda: exported(jax.random.key_data(key)),
    }
    result = np.asarray(ways[way]())
    assert result[0].tobytes() == np.asarray(wanted).tobytes()


def test_eval_shape_draws_nothing(key):
    shape = jax.eval_shape(
        lambda key: jaxinit.he_normal()(key, (3, 4), "bfloat16"), key
    )
    assert (shape.shape, shape.dtype) == ((3, 4), jnp.bfloat16)


def test_static_argument_of_jit(key):
    draw = jax.jit(lambda init, key: init(key, (3, 4)), static_argnums=0)
    assert_same_bits(draw(jaxinit.he_normal(), key), jaxinit.he_normal()(key, (3, 4)))


# ---- values


VALUES = {
    **{case: pair(case)[0] for case in CASES},
    **{name: init for name, (init, _) in CATALOGUE.items()},
    "zeros": jaxinit.zeros,
    "ones": jaxinit.ones,
    "batched": jaxinit.orthogonal(batch_axis=(0, 1)),
    "dtype": jaxinit.he_normal(dtype=jnp.bfloat16),
    "python_dtype": jaxinit.constant(1, float),
    "nested": jaxinit.constant([[1, 2], [3, 4]]),
}


@pytest.mark.parametrize("name", VALUES)
def test_values(name):
    init = VALUES[name]
    names = {**vars(jaxinit), "inf": math.inf}
    for again in (eval(repr(init), names), pickle.loads(pickle.dumps(init))):
        assert again == init
        assert hash(again) == hash(init)
        assert repr(again) == repr(init)
    assert sum(init == other for other in VALUES.values()) == 1
    with pytest.raises(AttributeError):
        init.dtype = None


def test_repr_is_the_shortest_expression():
    shown = {
        "he_normal()": jaxinit.he_normal(),
        "he_normal(batch_axis=(0,), dtype='bfloat16')": jaxinit.kaiming_normal(
            batch_axis=[0], dtype=jnp.bfloat16
        ),
        "variance_scaling(2.0, 'fan_out', 'normal')": jaxinit.variance_scaling(
            2, "fan_out", "normal"
        ),
        "normal(stddev=0.02, mean=1.0)": jaxinit.normal(0.02, mean=1),
        "zeros": jaxinit.constant(0.0),
        "constant(0.0, dtype='float32')": jaxinit.constant(0.0, jnp.float32),
    }
    assert [repr(init) for init in shown.values()] == list(shown)


def test_settings_are_stored_in_one_form():
    assert jaxinit.normal(jnp.float32(0.5)) == jaxinit.normal(np.float64(0.5))
    assert jaxinit.normal(1, "float32") == jaxinit.normal(1.0, np.float32)
    assert jaxinit.he_normal(np.int64(0), [1]) == jaxinit.he_normal(0, (1,))
    assert jaxinit.constant(-0.0) != jaxinit.constant(0.0)
    assert jaxinit.constant(math.nan) == jaxinit.constant(math.nan)


@dataclass(frozen=True, repr=False)
class Counting(jaxinit.Initializer):
    """Counts how often it is traced."""

    scale: float = 1.0
    traces: ClassVar[list] = []

    def sample(self, key, shape, dtype):
        self.traces.append(shape)
        return self.scale * jax.random.normal(key, shape, dtype)


@pytest.mark.unoptimized
def test_an_equal_initializer_is_not_traced_again(key):
    Counting.traces.clear()
    for seed in range(4):
        Counting(2.0)(jax.random.key(seed), (3, 5))
    assert len(Counting.traces) == 1
    Counting(3.0)(key, (3, 5))
    Counting(2.0)(key, (3, 6))
    assert len(Counting.traces) == 3


def test_threads_get_the_values_of_one_thread():
    shapes = [(5, 3), (5, 4)] * 8
    init, key = jaxinit.he_normal(), jax.random.key(11)
    with ThreadPoolExecutor(8) as pool:
        drawn = list(pool.map(lambda shape: init(key, shape), shapes))
    theirs = jax.jit(reference.he_normal(), static_argnums=1)
    assert_same_bits(drawn, [theirs(key, shape) for shape in shapes])


@pytest.mark.parametrize(
    "dtype", sampled(["float32", "bfloat16", "complex64"], ["complex64"])
)
@pytest.mark.parametrize("name", ["normal", "he_normal", "orthogonal", "zeros"])
def test_empty_shapes(key, name, dtype):
    init = VALUES[name]
    for shape in ((0, 4), (4, 0), (3, 0, 4)):
        x = init(key, shape, dtype)
        assert (x.shape, x.dtype) == (shape, dtype)
    assert jaxinit.delta_orthogonal()(key, (3, 0, 4)).shape == (3, 0, 4)


@pytest.mark.exhaustive
def test_zero_scale_gives_zeros(key):
    for init in (
        jaxinit.normal(0.0),
        jaxinit.uniform(0.0),
        jaxinit.truncated_normal(0.0),
        jaxinit.orthogonal(0.0),
        jaxinit.variance_scaling(0.0, "fan_in", "truncated_normal"),
    ):
        assert not np.asarray(init(key, (4, 4))).any()


# ---- Flax


def test_linen_layers_take_them(key):
    def params(kernel_init, bias_init):
        layer = flax.linen.Dense(4, kernel_init=kernel_init, bias_init=bias_init)
        return jax.jit(layer.init)(key, jnp.zeros((1, 5)))

    ours = params(jaxinit.he_normal(), jaxinit.normal(0.1))
    assert_same_bits(ours, params(reference.he_normal(), reference.normal(0.1)))


def test_nnx_layers_take_them(key):
    def params(kernel_init, bias_init):
        @jax.jit
        def make(key):
            rngs = flax.nnx.Rngs(key)
            layer = flax.nnx.Linear(
                3, 4, kernel_init=kernel_init, bias_init=bias_init, rngs=rngs
            )
            return flax.nnx.to_pure_dict(flax.nnx.state(layer))

        return make(key)

    ours = params(jaxinit.he_normal(), jaxinit.zeros)
    assert_same_bits(ours, params(reference.he_normal(), reference.zeros))
    eager = flax.nnx.Linear(
        3, 4, kernel_init=jaxinit.he_normal(), rngs=flax.nnx.Rngs(key)
    )
    assert_same_bits(eager.kernel[...], ours["kernel"])
