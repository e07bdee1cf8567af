"""The cases in which initializers are compared with those of jax."""

import jax
import numpy as np
from jax.nn import initializers as reference

import jaxinit

SMALL = [(3, 5)]
MANY = [(3, 2, 8, 16), (129, 65)]
VECTORS = [(), (7,), (4, 33, 17)]
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
    "normal": (("normal",), {}, VECTORS),
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
