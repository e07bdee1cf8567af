"""What holds of every initializer, over one table: moments, laws, bits, bounds.

Every statistic has a false-alarm rate of about 1e-9 for one key: 6.2 standard errors,
or that level of the Kolmogorov-Smirnov test. With 100 of them, one key in 1e7 would
fail; the key is fixed, so that a failure is one of the code.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec
from references import CATALOGUE, assert_same_bits, pair
from sampling import sampled
from scipy import stats

import jaxinit
from jaxinit import laws

KEYS = jax.random.wrap_key_data(np.array([[0, 1729], [0, 1730]], np.uint32))
SIGMAS, FALSE_ALARMS = 6.2, 1e-9
FROM_JAX = ("normal", "uniform", "truncated_normal", "lecun_normal", "glorot_uniform")
TABLE = {**{case: (pair(case)[0], (64, 128)) for case in FROM_JAX}, **CATALOGUE}


def code_of(name: str) -> tuple[type, type]:
    """What is run for an initializer: its class, and the kind of its law."""
    init, shape = TABLE[name]
    return type(init), type(init.entry_law(shape, np.dtype(np.float32)))


def first_of_each(code) -> list[str]:
    return list({code(name): name for name in reversed(TABLE)}.values())


ALL = {name: TABLE[name] for name in first_of_each(code_of)}
RANDOM = [name for name, (init, _) in ALL.items() if init.draws]
INDEPENDENT = [
    name
    for name in RANDOM
    if ALL[name][0].entries_independent and ALL[name][0].moments(ALL[name][1]).variance
]
FIXED = [name for name in ALL if name not in RANDOM]


@functools.cache
def drawn(name: str, number: int = 0) -> np.ndarray:
    init, shape = ALL[name]
    return np.asarray(init(KEYS[number], shape))


# ---- bits, of one initializer of each class that jax has not: test_bits has the others


OF_JAX = {type(TABLE[name][0]) for name in FROM_JAX}
BITS = [
    name
    for name in first_of_each(lambda name: type(TABLE[name][0]))
    if type(TABLE[name][0]) not in OF_JAX
]


# Of each kind: draws, tables, matrices, and what is made of parts.
SOME = ("lru_theta", "hippo", "chrono", "narrowing_delta", "mirrored", "stacked")
SOME += ("split", "unit_scaled")
BEYOND = [name for name in BITS if name not in SOME]


def draw(key, names, dtype=None, sharding_of=lambda shape: None):
    return {
        name: init(key, shape, dtype, sharding_of(shape))
        for name, (init, shape) in ALL.items()
        if name in names
    }


def along_an_axis(shape):
    """Cuts the first axis that eight devices divide, beginning with the largest."""
    axis = max(range(len(shape)), key=lambda axis: (shape[axis] % 8 == 0, shape[axis]))
    return PartitionSpec(*[None] * axis, "x")


@functools.cache
def together(kind: str, names: tuple[str, ...]) -> dict[str, jax.Array]:
    """All of them in one program."""
    match kind:
        case "vmap":
            return jax.device_get(jax.jit(jax.vmap(lambda k: draw(k, names)))(KEYS))
        case "bfloat16":
            return jax.jit(lambda key: draw(key, names, jnp.bfloat16))(KEYS[0])
        case "sharded":
            with jax.set_mesh(jax.make_mesh((8,), ("x",))):
                return jax.jit(lambda key: draw(key, names, None, along_an_axis))(
                    KEYS[0]
                )
    raise ValueError(kind)


def of_sample(kind: str, name: str) -> jax.Array:
    """One of them, of a program of the sample or of the others."""
    return together(kind, SOME if name in SOME else tuple(BEYOND))[name]


@pytest.mark.sample(4)
@pytest.mark.parametrize("name", sampled(BITS, BEYOND))
def test_jit_of_vmap_has_the_bits_of_single_eager_draws(name):
    slices = of_sample("vmap", name)
    for number in range(2):
        assert_same_bits(slices[number], drawn(name, number))
    assert (name in RANDOM) == (slices[0] != slices[1]).any()


@pytest.mark.parametrize("name", sampled(BITS, BEYOND))
def test_bfloat16_is_float32_rounded_once(name):
    found = of_sample("bfloat16", name)
    assert_same_bits(found, drawn(name).astype(jnp.bfloat16))


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", sampled(BITS, BEYOND))
def test_eight_devices_have_the_bits_of_one(name):
    sharded = of_sample("sharded", name)
    assert len({str(shard.index) for shard in sharded.addressable_shards}) == 8
    assert_same_bits(sharded, drawn(name))


# ---- moments


def errors(x: np.ndarray, expected: jaxinit.Moments) -> float:
    """The worse of mean and variance, in standard errors of independent draws."""
    x = x.astype(np.float64)
    of_mean = abs(x.mean() - expected.mean) / math.sqrt(expected.variance / x.size)
    spread = math.sqrt((expected.kurtosis - 1) / x.size)
    measured = ((x - expected.mean) ** 2).mean()
    return max(of_mean, abs(measured / expected.variance - 1) / spread)


@pytest.mark.sample(8)
@pytest.mark.parametrize("name", INDEPENDENT)
def test_moments_of_random_arrays(name):
    init, shape = ALL[name]
    x, expected = drawn(name), init.moments(shape)
    assert errors(x, expected) < SIGMAS
    assert errors(1.15 * x + 0.1 * x.std(), expected) > SIGMAS, "negative control"


@pytest.mark.parametrize("name", FIXED)
def test_moments_of_fixed_arrays_are_exact(name):
    init, shape = ALL[name]
    x, expected = drawn(name).astype(np.float64), init.moments(shape)
    scale = np.abs(x).max()
    assert expected.mean == pytest.approx(x.mean(), abs=1e-6 * scale)
    assert expected.variance == pytest.approx(x.var(), rel=1e-5, abs=1e-9)
    if expected.variance:
        fourth = ((x - x.mean()) ** 4).mean() / x.var() ** 2
        assert expected.kurtosis == pytest.approx(fourth, rel=1e-5)
    assert (expected.low, expected.high) == pytest.approx((x.min(), x.max()), rel=1e-6)


@pytest.mark.parametrize("name", ALL)
def test_bounds_hold(name):
    init, shape = ALL[name]
    x, expected = drawn(name), init.moments(shape)
    rounding = 1e-6 * np.abs(x).max()
    assert expected.low - rounding <= x.min() <= x.max() <= expected.high + rounding


# ---- laws


def below(law: laws.Law, x: np.ndarray) -> np.ndarray:
    """Probability of `x` or less, written apart from the package."""
    match law:
        case laws.Normal(stddev, mean):
            return stats.norm.cdf(x, mean, stddev)
        case laws.TruncatedNormal(stddev, lower, upper):
            return stats.truncnorm.cdf(x / stddev, lower, upper)
        case laws.NormalBetween(stddev, mean, low, high):
            ends = (low - mean) / stddev, (high - mean) / stddev
            return stats.truncnorm.cdf(x, *ends, mean, stddev)
        case laws.Uniform(low, high):
            return np.clip((x - low) / (high - low), 0, 1)
        case laws.HaarEntry(size, scale):
            squares = stats.beta.cdf((x / scale) ** 2, 1 / 2, (size - 1) / 2)
            return (1 + np.sign(x) * squares) / 2
        case laws.Values((value,)):
            return (x >= value) * 1.0
        case laws.Quantile(maker):
            u = np.linspace(0, 1, 200_001)[1:-1]
            return np.interp(x, maker.quantile(np, u), u, left=0, right=1)
        case laws.Shifted(inner, shift):
            return below(inner, x - shift)
        case laws.Scaled(inner, factor):
            part = below(inner, x / factor)
            return part if factor > 0 else 1 - part
        case laws.Mixture(parts):
            total = sum(size for _, size in parts)
            return sum(below(inner, x) * size for inner, size in parts) / total
    raise NotImplementedError(law)


def distance(law: laws.Law, sample: np.ndarray) -> float:
    """Kolmogorov's distance, on both sides of every value, of laws with atoms too."""
    values, counts = np.unique(sample.astype(np.float64).ravel(), return_counts=True)
    upto = counts.cumsum() / counts.sum()
    before = np.nextafter(values, -math.inf)
    return max(
        np.abs(upto - below(law, values)).max(),
        np.abs(upto - counts / counts.sum() - below(law, before)).max(),
    )


@pytest.mark.parametrize("name", INDEPENDENT)
def test_random_arrays_have_the_law(name):
    init, shape = ALL[name]
    law, x = init.entry_law(shape, np.dtype(np.float32)), drawn(name)
    limit = stats.kstwo.isf(FALSE_ALARMS, x.size)
    assert distance(law, x) < limit
    assert distance(law, 1.15 * x + 0.15 * x.std()) > limit, "negative control"
    some = np.sort(x, axis=None)[::97].astype(np.float64)
    np.testing.assert_allclose(law.cdf(some), below(law, some), atol=2e-5)


@pytest.mark.parametrize(
    "name", sampled(["orthogonal", "looks_linear", "split"], ["split"])
)
def test_one_entry_of_many_matrices_has_the_law(name):
    init, shape = {**TABLE, "orthogonal": (jaxinit.orthogonal(), (5, 3))}[name]
    draw = jax.jit(jax.vmap(lambda key: init(key, shape).ravel()[-1]))
    x = np.asarray(draw(jax.random.split(KEYS[0], 4096)))
    law = init.entry_law(shape, np.dtype(np.float32))
    limit = stats.kstwo.isf(FALSE_ALARMS, x.size)
    assert distance(law, x) < limit
    assert distance(law, 1.3 * x + 0.1 * x.std()) > limit, "negative control"


def test_every_class_is_in_the_table():
    classes = {
        value
        for value in vars(jaxinit).values()
        if isinstance(value, type) and issubclass(value, jaxinit.Initializer)
    }
    assert classes - {type(init) for init, _ in ALL.values()} == {jaxinit.Initializer}
