"""The cases in which initializers are compared with those of jax, and checks shared."""

import math

import jax
import numpy as np
import pytest
from jax.nn import initializers as reference

import jaxinit

# The first shape of a case is drawn in every way, the others in float32 alone: XLA
# needs five times as long to compile a draw of jax with four axes as one with two.
SMALL = [(3, 5)]
MANY = [(3, 5), (129, 65), (3, 2, 8, 16)]
VECTORS = [(7,), (33, 17), ()]
MATRICES = [(3, 5), (2, 4, 6)]
SCALINGS = [
    ("fan_in", "normal"),
    ("fan_out", "uniform"),
    ("fan_avg", "truncated_normal"),
    ("fan_geo_avg", "normal"),
]

# name of jax.nn.initializers with its arguments, keyword arguments, shapes
CASES = {
    "constant": (("constant", 2.5), {}, VECTORS),
    "constant_array": (("constant", np.arange(5.0) / 3), {}, [(5,), (3, 5)]),
    "normal": (("normal",), {}, [*VECTORS, (4, 5, 17)]),
    "normal_set": (("normal", 0.37), {}, SMALL),
    "uniform": (("uniform",), {}, VECTORS),
    "uniform_set": (("uniform", 3.3), {}, SMALL),
    "truncated_normal": (("truncated_normal",), {}, VECTORS),
    "truncated_normal_set": (("truncated_normal", 0.3, None, -0.5, 3), {}, SMALL),
    "orthogonal": (("orthogonal",), {}, MATRICES),
    "orthogonal_set": (("orthogonal", 1.7, 0), {}, SMALL),
    "delta_orthogonal": (("delta_orthogonal", 1.7), {}, [(2, 3, 4, 6)]),
    "batch_axis": (("he_normal",), {"batch_axis": 0}, [(2, 3, 5)]),
    "axes": (("he_uniform",), {"in_axis": 1, "out_axis": (0, 2)}, [(2, 3, 5)]),
    "glorot_normal": (("glorot_normal",), {}, SMALL),
    "glorot_uniform": (("glorot_uniform",), {}, SMALL),
    "lecun_normal": (("lecun_normal",), {}, SMALL),
    "lecun_uniform": (("lecun_uniform",), {}, SMALL),
    "he_normal": (("he_normal",), {}, MANY),
    "he_uniform": (("he_uniform",), {}, SMALL),
    **{
        f"{mode}_{law}": (("variance_scaling", 1.3, mode, law), {}, SMALL)
        for mode, law in SCALINGS
    },
}


# initializers that jax has not, each with a shape to draw
CATALOGUE = {
    "mean": (jaxinit.normal(0.1, mean=2.0), (64, 128)),
    "low_high": (jaxinit.uniform(low=-1.0, high=2.0), (64, 128)),
    "corrected": (
        jaxinit.truncated_normal(corrected=True, upper=math.inf),
        (64, 128),
    ),
    "absolute": (
        jaxinit.truncated_normal(0.5, mean=0.3, low=-1.0, high=1.0),
        (64, 128),
    ),
    "tail": (jaxinit.truncated_normal(0.5, low=3.0, high=math.inf), (64, 128)),
    "exact_shape": (
        jaxinit.constant([0.5, 1, 2, 4, 8, 16, 32, 64], broadcast=False),
        (8,),
    ),
    "batched_orthogonal": (jaxinit.orthogonal(batch_axis=0), (8, 6, 4)),
    "narrowing_delta": (jaxinit.delta_orthogonal(), (3, 16, 8)),
    "leaky": (jaxinit.he_normal(negative_slope=0.2), (64, 128)),
    "torch_layer": (jaxinit.he_uniform(negative_slope=5**0.5), (64, 128)),
    "scaled": (jaxinit.scaled(jaxinit.he_uniform(), -0.5), (64, 128)),
    "unit_scaled": (jaxinit.unit_scaled(jaxinit.he_normal()), (64, 128)),
    "mirrored": (jaxinit.mirrored(jaxinit.lecun_normal(), 0), (64, 128)),
    "split": (jaxinit.split(jaxinit.orthogonal(), 4), (8, 32)),
    "split_of_two": (
        jaxinit.split((jaxinit.normal(1.0), jaxinit.uniform(3.0)), (32, 96)),
        (64, 128),
    ),
    "stacked": (jaxinit.stacked(jaxinit.glorot_uniform(), 1), (32, 8, 32)),
    "identity": (jaxinit.identity(0.5), (8, 12)),
    "stacked_identity": (jaxinit.stacked(jaxinit.identity()), (8, 4, 4)),
    "dirac": (jaxinit.dirac(), (3, 2, 8, 8)),
    "grouped_dirac": (jaxinit.dirac(groups=2, scale=2.0), (3, 4, 8)),
    "hadamard": (jaxinit.hadamard(2.0), (16, 11)),
    "zero_init": (jaxinit.zero_init(), (5, 24)),
    "zero_init_of_a_kernel": (jaxinit.center_tap(jaxinit.zero_init()), (3, 16, 8)),
    "looks_linear": (jaxinit.looks_linear(1.5), (8, 12)),
    "sparse": (jaxinit.sparse(0.9), (64, 128)),
    "sparse_along_outputs": (jaxinit.sparse(0.25, 0.5, axis=-1), (64, 128)),
    "bilinear": (jaxinit.bilinear(), (4, 5, 8, 8)),
    "stft": (jaxinit.stft(), (64, 1, 17)),
    "stft_imag": (
        jaxinit.stft("imag", "hamming", "spectrum", periodic=True),
        (64, 1, 17),
    ),
    "sinusoidal": (jaxinit.sinusoidal(), (64, 16)),
    "siren_first": (jaxinit.siren_first(), (16, 512)),
    "siren_hidden": (jaxinit.siren_hidden(), (64, 128)),
    "fourier_features": (jaxinit.fourier_features(10.0), (16, 512)),
    "log_frequencies": (jaxinit.log_frequencies(range(1, 9)), (8,)),
    "log_odds": (jaxinit.log_odds(0.01), (8,)),
    "lora": (jaxinit.lora("normal", 0.125)[0], (64, 128)),
    "forget_gate_bias": (jaxinit.forget_gate_bias(), (32,)),
    "chrono": (jaxinit.chrono(1000), (64,)),
    "chrono_of_a_gru": (jaxinit.chrono(50, "rfn"), (48,)),
    "log_uniform": (jaxinit.log_uniform(1.0, 16.0), (8192,)),
    "softplus_inverse": (jaxinit.softplus_inverse(), (8192,)),
    "log_steps": (jaxinit.log_steps(), (8192,)),
    "log_arange": (jaxinit.log_arange(), (8, 16)),
    "s4d_lin": (jaxinit.s4d_frequencies(), (8, 16)),
    "s4d_inv": (jaxinit.s4d_frequencies("inv"), (8, 16)),
    "hippo": (jaxinit.hippo(), (16, 16)),
    "lru_nu": (jaxinit.lru_nu(0.5, 0.99), (8192,)),
    "lru_nu_of_the_disk": (jaxinit.lru_nu(), (8192,)),
    "lru_theta": (jaxinit.lru_theta(), (8192,)),
}


def pair(case: str):
    """Our initializer of a case, jax's, and the shapes to compare them in."""
    (name, *args), kwargs, shapes = CASES[case]
    ours = getattr(jaxinit, name)(*args, **kwargs)
    return ours, getattr(reference, name)(*args, **kwargs), shapes


def assert_same_bits(ours, theirs) -> None:
    """Asserts that two trees of arrays are equal, bit for bit, dtypes and all."""
    leaves = zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True)
    for x, y in leaves:
        assert (x.dtype, x.shape) == (y.dtype, y.shape)
        assert np.asarray(x).tobytes() == np.asarray(y).tobytes()


def assert_refuses(fails, parts):
    """Calls `fails`, which must raise a TypeError or ValueError with all the parts."""
    with pytest.raises((TypeError, ValueError)) as caught:
        fails()
    assert [part for part in parts if part not in str(caught.value)] == []
