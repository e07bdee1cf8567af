"""What each family is for: that it does it, and that it is the formula of its paper."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from probes import keys
from references import assert_refuses
from sampling import sampled

import jaxinit
from jaxinit.initializers._between import _REACH

pytestmark = pytest.mark.unoptimized

KEY = jax.random.key(3)
RNG = np.random.default_rng(3)  # of inputs: NumPy compiles nothing


def draw(init, *shape):
    return np.asarray(init(KEY, shape), np.float64)


# ---- structured


@pytest.mark.parametrize("shape", [(8, 8), (8, 3), (3, 8), (1, 4)])
def test_hadamard_vectors_along_the_longer_side_are_orthogonal(shape):
    x = draw(jaxinit.hadamard(2.0), *shape)
    short = x @ x.T if shape[0] <= shape[1] else x.T @ x
    np.testing.assert_allclose(short, 4 * np.eye(min(shape)), atol=1e-6)
    h = [[1, 1], [1, -1]]
    first = np.kron(np.kron(h, h), h)[: shape[0], : shape[1]]
    np.testing.assert_array_equal(np.sign(x), first)


@pytest.mark.parametrize("shape", [(4, 4), (6, 4), (3, 5), (4, 16)])
def test_zero_init_by_its_algorithm(shape):
    inputs, outputs = shape
    if outputs <= inputs:
        wanted = np.eye(inputs, outputs)
    else:
        size = 2 ** math.ceil(math.log2(outputs))
        h = np.ones((1, 1))
        while len(h) < size:
            h = np.kron([[1, 1], [1, -1]], h)
        wanted = np.eye(inputs, size) @ (h / math.sqrt(size)) @ np.eye(size, outputs)
    np.testing.assert_allclose(draw(jaxinit.zero_init(), *shape), wanted, rtol=1e-6)


def test_dirac_passes_channels_through_a_convolution():
    x = RNG.normal(size=(1, 6, 7, 4)).astype(np.float32)

    def convolve(kernel, groups=1):
        layout = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(
            x, kernel, (1, 1), "SAME", None, None, layout, groups
        )

    kernel = jaxinit.dirac()(KEY, (3, 3, 4, 4))
    np.testing.assert_allclose(convolve(kernel), x, rtol=1e-6)
    kernel = jaxinit.dirac(groups=2)(KEY, (4, 2, 2, 4))
    np.testing.assert_allclose(convolve(kernel, 2), x, rtol=1e-6)


@pytest.mark.exhaustive
def test_delta_orthogonal_keeps_lengths_in_windows_of_any_number_of_axes():
    for window in [(), (2, 3, 1, 2)]:
        x = draw(jaxinit.delta_orthogonal(2.0), *window, 3, 5)
        centre = x[tuple((size - 1) // 2 for size in window)]
        np.testing.assert_allclose(centre @ centre.T, 4 * np.eye(3), atol=1e-5)
        assert np.count_nonzero(x) == 15
    narrowing = draw(jaxinit.delta_orthogonal(), 3, 5, 2)[1]
    np.testing.assert_allclose(narrowing.T @ narrowing, np.eye(2), atol=1e-5)


@pytest.mark.exhaustive
def test_a_network_that_looks_linear_is():
    x = RNG.normal(size=(5, 8))
    first = draw(jaxinit.mirrored(jaxinit.orthogonal()), 8, 16)
    last = draw(jaxinit.mirrored(jaxinit.orthogonal(), axis=-2), 16, 8)

    def crelu_network(middle):
        hidden = np.maximum(x @ first, 0)
        for key in keys(3):
            hidden = np.maximum(hidden @ np.asarray(middle(key, (16, 16))), 0)
        return np.linalg.norm(hidden @ last, axis=1)

    norms = np.linalg.norm(x, axis=1)
    mirrored = crelu_network(jaxinit.looks_linear())
    np.testing.assert_allclose(mirrored, norms, rtol=1e-4)  # isometric, all the way
    plain = crelu_network(jaxinit.orthogonal())
    assert (np.abs(plain / norms - 1) > 0.1).all(), "negative control"


@pytest.mark.parametrize("axis", sampled([0, -1], [0]))
def test_sparse_has_as_many_zeros_everywhere_along_its_axis(axis):
    x = draw(jaxinit.sparse(0.33, axis=axis), 10, 6, 8)
    zeros = (x == 0).sum(axis)
    assert (zeros == math.ceil(0.33 * x.shape[axis])).all()
    places = np.moveaxis(x == 0, axis, -1).reshape(-1, x.shape[axis])
    assert len(np.unique(places, axis=0)) > 10  # each column its own places


@pytest.mark.sample(2)
@pytest.mark.parametrize("factor", [1, 2, 3, 4])
def test_bilinear_upsamples_a_ramp_to_a_ramp(factor):
    size = 2 * factor - factor % 2
    ramp = jnp.arange(8.0)[None, :, None] * jnp.array([1.0, -2.0])
    kernel = jaxinit.bilinear()(KEY, (size, 2, 2))
    fine = jax.lax.conv_transpose(ramp, kernel, (factor,), "SAME")[0]
    inner = np.asarray(fine)[2 * factor : -2 * factor]
    steps = np.diff(inner, axis=0)
    wanted = np.tile([[1, -2]], (len(steps), 1)) / factor
    np.testing.assert_allclose(steps, wanted, rtol=1e-5)
    depthwise = draw(jaxinit.bilinear(), size, 1, 5)
    np.testing.assert_array_equal(depthwise, depthwise[:, :, :1].repeat(5, 2))


# ---- tables


def test_stft_is_the_fourier_transform_of_a_frame():
    frame = RNG.normal(size=64)
    wanted = np.fft.rfft(frame)
    for side, part in [("real", wanted.real), ("imag", wanted.imag)]:
        kernel = draw(jaxinit.stft(side, window="none"), 64, 1, 33)[:, 0]
        np.testing.assert_allclose(frame @ kernel, part, atol=2e-5)


def test_stft_windows_have_unit_length():
    density = draw(jaxinit.stft(), 64, 1, 33)[:, 0, 0]
    assert (density**2).sum() == pytest.approx(1, rel=1e-6)
    spectrum = draw(jaxinit.stft(scaling="spectrum", periodic=True), 64, 1, 33)
    assert spectrum[:, 0, 0].sum() == pytest.approx(1, rel=1e-6)
    hann = np.hanning(64)
    np.testing.assert_allclose(density, hann / np.linalg.norm(hann), atol=1e-7)


def test_sinusoidal_positions_by_their_formula():
    x = draw(jaxinit.sinusoidal(), 9000, 6)
    for position in (0, 1, 8999):
        for i in range(3):
            angle = position / 10_000 ** (2 * i / 6)
            pair = math.sin(angle), math.cos(angle)
            # exact to float32's rounding, also at angles of thousands
            np.testing.assert_allclose(x[position, 2 * i : 2 * i + 2], pair, atol=6e-8)


# ---- sequence models


def test_gates_are_filled_one_by_one():
    bias = draw(jaxinit.forget_gate_bias(2.0, "igfo"), 12).reshape(4, 3)
    np.testing.assert_array_equal(bias, [[0] * 3, [0] * 3, [2] * 3, [0] * 3])
    i, f, g, o = draw(jaxinit.chrono(1000), 4000).reshape(4, 1000)
    np.testing.assert_array_equal(i, -f)
    assert not np.any([g, o])
    assert f.min() >= 0
    assert f.max() <= math.log(999)
    # exp(f) is uniform on [1, 999]: its mean within 6.2 standard errors
    error = 998 / math.sqrt(12 * 1000)
    assert abs(np.exp(f).mean() - 500) < 6.2 * error
    assert abs(f.mean() - 500) > 6.2 * error, "negative control"
    _, keep, _ = draw(jaxinit.chrono(50, "rfn"), 30).reshape(3, 10)
    assert (keep > 0).all()


def test_softplus_of_the_bias_is_log_uniform():
    x = draw(jaxinit.softplus_inverse(0.01, 1.0), 4096)
    u = np.log(np.log1p(np.exp(x))) / math.log(100) + 1
    assert abs(u.mean() - 0.5) < 6.2 / math.sqrt(12 * 4096)
    assert -1e-5 < u.min() < 0.01 < 0.99 < u.max() < 1 + 1e-5


def test_eigenvalues_of_state_spaces():
    real = -np.exp(draw(jaxinit.log_arange(), 5))
    np.testing.assert_allclose(real, [-1, -2, -3, -4, -5], rtol=1e-6)
    lin = draw(jaxinit.s4d_frequencies(), 2, 4)
    np.testing.assert_allclose(lin, np.pi * np.arange(4) * np.ones((2, 1)), rtol=1e-6)
    inv = draw(jaxinit.s4d_frequencies("inv"), 4)
    wanted = [8 / np.pi * (8 / (2 * n + 1) - 1) for n in range(4)]
    np.testing.assert_allclose(inv, wanted, rtol=1e-6)


def test_hippo_is_normal_plus_low_rank():
    # S4: A + P P^T with P = sqrt(n + 1/2) is -1/2 I plus a skew matrix
    a = draw(jaxinit.hippo(), 12, 12)
    p = np.sqrt(np.arange(12) + 0.5)
    rest = a + np.outer(p, p) + np.eye(12) / 2
    np.testing.assert_allclose(rest, -rest.T, atol=1e-5)
    np.testing.assert_allclose(np.linalg.eigvals(a).real.max(), -1, rtol=1e-4)


def test_eigenvalues_of_a_linear_recurrent_unit_fill_a_ring():
    nu = draw(jaxinit.lru_nu(0.4, 0.9), 4096)
    radius = np.exp(-np.exp(nu))
    squares = (radius**2 - 0.16) / (0.81 - 0.16)  # uniform, if area is
    assert abs(squares.mean() - 0.5) < 6.2 / math.sqrt(12 * 4096)
    assert abs(radius.mean() - 0.65) > 6.2 * radius.std() / 64, "negative control"
    phase = np.exp(draw(jaxinit.lru_theta(1.5), 4096))
    assert 0 < phase.min() < phase.max() < 1.5 + 1e-6
    gamma = np.exp(jaxinit.lru_gamma(jnp.asarray(nu)))
    np.testing.assert_allclose(gamma, np.sqrt(1 - radius**2), rtol=1e-4)


def test_functions_of_a_uniform_number_are_drawn_in_the_middle_of_steps(key):
    """Half a step above the multiples of eps that jax draws, from 0 to 1 - eps."""
    u = np.float64(jax.random.uniform(key, (2**16,)))
    u, x = u[u < 1e-3], np.float64(jaxinit.lru_theta(1.0)(key, u.shape))[u < 1e-3]
    np.testing.assert_allclose(np.exp(x), u + 2.0**-24, rtol=1e-5)
    init = jaxinit.lru_nu(0.8, 1.0)  # finite a step from 0, and not half a step
    assert np.isfinite(init.quantile(np, np.float32(2.0**-23)))
    assert_refuses(lambda: init(key, (3,)), ["not finite in float32", "-inf"])


def test_nothing_is_infinite_at_the_ends_of_the_uniform():
    for init in (jaxinit.lru_nu(), jaxinit.lru_theta()):
        for u in (0.0, 1 - 2**-23):
            half = np.float32(2.0**-24)
            assert np.isfinite(init.quantile(jnp, np.float32(u) + half))


# ---- networks that represent signals, heads, adapters


def test_sine_networks_neither_vanish_nor_explode():
    """What enters the sines tends to variance `v = 1 - exp(-2 v)`, which is 0.797."""
    x = RNG.uniform(-1, 1, (256, 2))

    def variance(hidden_init):
        first, *others = keys(6)
        inputs = 30 * x @ np.asarray(jaxinit.siren_first()(first, (2, 256)))
        for key in others:
            inputs = 30 * np.sin(inputs) @ np.asarray(hidden_init(key, (256, 256)))
        return inputs.var()

    assert variance(jaxinit.siren_hidden()) == pytest.approx(0.797, rel=0.1)
    assert variance(jaxinit.siren_hidden(60.0)) < 0.2, "negative control"


def test_heads_start_at_the_frequencies():
    counts = np.array([5.0, 3.0, 2.0])
    bias = jaxinit.log_frequencies(counts)(KEY, (3,))
    np.testing.assert_allclose(jax.nn.softmax(bias), counts / 10, rtol=1e-6)
    equal = draw(jaxinit.log_frequencies([1] * 1000), 1000)
    np.testing.assert_allclose(equal, -math.log(1000), rtol=1e-6)
    prior = jaxinit.log_odds([0.01, 0.5])(KEY, (2,))
    np.testing.assert_allclose(jax.nn.sigmoid(prior), [0.01, 0.5], rtol=1e-5)


def test_a_low_rank_pair_starts_at_zero():
    for law in ("uniform", "normal"):
        a, b = (
            np.asarray(init(KEY, shape))
            for init, shape in zip(jaxinit.lora(law), [(64, 4), (4, 32)], strict=True)
        )
        assert a.all()
        assert not (a @ b).any()


def test_unit_scale_times_its_multiplier_is_the_array_itself():
    init, shape = jaxinit.he_normal(), (64, 32)
    unit = jaxinit.unit_scaled(init)
    x = draw(unit, *shape) * unit.multiplier(shape)
    np.testing.assert_allclose(x, draw(init, *shape), rtol=1e-6)
    assert unit.moments(shape).std == pytest.approx(1, rel=1e-12)


def test_absolute_bounds_are_those_of_torch():
    # standard deviation 2 cut at -1 and 1 is nearly uniform
    x = draw(jaxinit.truncated_normal(2.0, low=-1.0, high=1.0), 4096)
    assert -1 <= x.min() < -0.99
    assert 0.99 < x.max() <= 1
    shifted = jaxinit.truncated_normal(0.5, mean=0.3, low=-1.0, high=1.0)
    assert shifted.moments((1,)).low == pytest.approx(-1, rel=1e-12)
    assert shifted.moments((1,)).high == pytest.approx(1, rel=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_bounds_are_within_what_the_error_function_tells_from_one(dtype):
    """Beyond, its inverse is infinite, and one entry in 2**23 is the bound itself."""
    reach = _REACH[np.dtype(dtype).itemsize]
    assert dtype(math.erf(reach / math.sqrt(2))) < 1


@pytest.mark.exhaustive
def test_absolute_bounds_far_out_have_no_entries_on_them():
    """One uniform draw in 2**23 is at an end, where the inverse error is infinite."""
    shape = (2**24,)
    far = jaxinit.truncated_normal(0.02, low=-2.0, high=2.0)(KEY, shape)
    assert np.abs(far).max() < 5.3 * 0.02
    as_jax = jaxinit.truncated_normal(0.02, lower=-100.0, upper=100.0)(KEY, shape)
    assert np.abs(as_jax).max() > 1.9, "negative control"
