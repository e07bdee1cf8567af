"""Fans: jax's conventions, einsum equations, explanations."""

import math

import jax
import numpy as np
import pytest
from sampling import sampled

import jaxinit
from jaxinit import Fans, einsum_axes, explain, fans
from tests.golden_torch import NUMBERS

pytestmark = pytest.mark.unoptimized

FANS = {
    "dense": ((20, 30), {}, (20, 30)),
    "convolution": ((3, 5, 8, 16), {}, (120, 240)),
    "stacked": ((4, 20, 30), {"batch_axis": 0}, (20, 30)),
    "heads": ((20, 2, 8), {"in_axis": 0, "out_axis": (1, 2)}, (20, 16)),
    "torch_order": ((16, 8, 3), {"in_axis": 1, "out_axis": 0}, (24, 48)),
    "vector": ((7,), {"in_axis": 0, "out_axis": ()}, (7, 1)),
    "batch_pair": ((2, 3, 4, 5), {"batch_axis": (0, 1)}, (4, 5)),
}


@pytest.mark.parametrize(("shape", "axes", "wanted"), FANS.values(), ids=FANS)
def test_known_fans(shape, axes, wanted):
    assert fans(shape, **axes) == Fans(*map(float, wanted))


@pytest.mark.parametrize(("shape", "fan_in", "fan_out"), NUMBERS["fans"])
def test_fans_of_torch(shape, fan_in, fan_out):
    assert fans(tuple(shape), in_axis=1, out_axis=0) == Fans(fan_in, fan_out)


@pytest.mark.sample(1)
@pytest.mark.parametrize(
    "name", sampled(FANS, ["dense", "torch_order", "vector", "batch_pair"])
)
def test_fans_are_those_that_jax_scales_by(name):
    shape, axes, _ = FANS[name]
    # what jax multiplies a standard normal draw by is 1 / sqrt(fan), with any key;
    # draws of this kind compile quickly
    key = jax.random.key(0, impl="rbg")

    @jax.jit
    def draw(key):
        inits = [
            jax.nn.initializers.variance_scaling(1.0, mode, "normal", **axes)
            for mode in ("fan_in", "fan_out")
        ]
        standard = jax.nn.initializers.normal(1.0)(key, shape)
        return [init(key, shape) for init in inits], standard

    draws, standard = jax.device_get(draw(key))
    measured = [1 / np.float64(np.median(x / standard)) ** 2 for x in draws]
    assert fans(shape, **axes) == pytest.approx(measured, rel=1e-5)


MODES = {"fan_in": 4, "fan_out": 64, "fan_avg": 34, "fan_geo_avg": 16}


@pytest.mark.parametrize("mode", MODES)
def test_the_variance_is_that_of_the_mode(mode):
    init = jaxinit.variance_scaling(2.0, mode, "uniform")
    variance = init.moments((4, 64), np.float32).variance
    assert variance == pytest.approx(2.0 / MODES[mode], rel=1e-6)


def test_axes_may_be_numpy_integers():
    assert fans((20, 30), np.int64(1), np.int64(0)) == Fans(30.0, 20.0)


def test_empty_axes_do_not_divide():
    assert fans((0, 5)) == Fans(0.0, 5.0)
    assert fans((3, 0, 5)) == Fans(0.0, 15.0)
    assert fans((0, 4, 5), batch_axis=0) == Fans(4.0, 5.0)


EQUATIONS = {
    "btd,dhk->bthk": ((0,), (1, 2), ()),
    "bthk,hkd->btd": ((0, 1), (2,), ()),
    "...d,df->...f": ((0,), (1,), ()),
    "...ed,edf->...ef": ((1,), (2,), (0,)),
    "ab, bc -> ac": ((0,), (1,), ()),
    "xn,end->exd": ((1,), (0, 2), ()),
    "bd,dhk->bh": ((0, 2), (1,), ()),  # k is summed over, in the kernel alone
    "b,->b": ((), (), ()),
}


@pytest.mark.parametrize("equation", EQUATIONS)
def test_einsum_axes(equation):
    in_axis, out_axis, batch_axis = EQUATIONS[equation]
    assert einsum_axes(equation) == {
        "in_axis": in_axis,
        "out_axis": out_axis,
        "batch_axis": batch_axis,
    }


@pytest.mark.sample(1)
@pytest.mark.parametrize("equation", ["btd,dhk->bthk", "bed,edf->bef", "bd,dhk->bh"])
def test_einsum_axes_keep_the_variance_of_the_output(key, equation):
    # 0.2 is over 6 standard errors: at least 2048 inputs, relative variance 2 each
    sizes = dict(zip("btdhkef", (64, 4, 32, 8, 4, 8, 32), strict=True))
    inputs, kernel, _ = equation.replace("->", ",").split(",")
    shape = [tuple(sizes[index] for index in part) for part in (inputs, kernel)]
    x = np.random.default_rng(0).normal(size=shape[0]).astype(np.float32)
    keys = jax.random.split(jax.random.fold_in(key, 1), 16)

    def second_moment(**axes):
        init = jaxinit.lecun_normal(**axes)
        kernels = np.asarray(jax.vmap(lambda key: init(key, shape[1]))(keys))
        outputs = [np.einsum(equation, x, kernel, optimize=True) for kernel in kernels]
        return float(np.square(outputs).mean())

    assert second_moment(**einsum_axes(equation)) == pytest.approx(1, abs=0.2)
    assert second_moment() != pytest.approx(1, abs=0.2)  # jax's default axes


def test_explanation_says_fans_std_and_bounds():
    text = explain(jaxinit.he_normal(), (3, 3, 64, 128))
    for part in ("he_normal()", "(3, 3, 64, 128)", "576", "1152", "2 / fan_in"):
        assert part in text
    assert f"{math.sqrt(2 / 576):.6g}" in text
    assert repr(text) == str(text)
    assert "depend on each other" in explain(jaxinit.orthogonal(), (4, 4))
    assert "every entry is 0" in explain(jaxinit.zeros, (4,))
