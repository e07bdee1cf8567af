"""Every initializer of the catalogue, cut over a mesh of 2 by 4: no device talks."""

import itertools
import math
import re

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from references import CATALOGUE

import jaxinit

KEY = jax.random.key(1729)
SIZES = {"x": 2, "y": 4}
COLLECTIVE = re.compile(
    r"(?:all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter"
    r"|collective-broadcast)(?:-start)?\(.*op_name=\"[^\"]*<(\w+)>"
)
# Of an initializer that has devices talk, the reason. Those of orthogonal matrices do
# not: every device makes these whole.
TALKATIVE: dict[str, str] = {}
# Where the catalogue's own shape cannot be cut into eight, and more of the kinds that
# are made of parts.
OTHERS = {
    "constant": (jaxinit.constant([float(i) for i in range(8)]), (16, 8)),
    "orthogonal": (jaxinit.orthogonal(), (16, 8)),
    "he_normal": (jaxinit.he_normal(), (16, 8)),
    "hadamard": (jaxinit.hadamard(2.0), (16, 8)),
    "looks_linear": (jaxinit.looks_linear(), (8, 16)),
    "stft": (jaxinit.stft(), (64, 1, 16)),
    "stft_imag": (jaxinit.stft("imag"), (64, 1, 16)),
    "mirrored_columns": (jaxinit.mirrored(jaxinit.normal()), (64, 128)),
    "split_unevenly": (jaxinit.split(jaxinit.normal(), (16, 40, 8)), (8, 64)),
    "layers_apart": (
        jaxinit.stacked(lambda i: jaxinit.normal(1 / (i + 1))),
        (2, 4, 16),
    ),
    "recurrent": (jaxinit.split(jaxinit.orthogonal(), 4), (8, 32)),
}


def cuts(shape) -> list[P]:
    """Every way to cut a shape into eight."""

    def divides(cut, size):
        return size % math.prod(SIZES[axis] for axis in cut) == 0

    ways = itertools.product([(), ("x",), ("y",), ("x", "y")], repeat=len(shape))
    return [
        P(*way)
        for way in ways
        if sorted(itertools.chain(*way)) == ["x", "y"] and all(map(divides, way, shape))
    ]


ENTRIES = {**CATALOGUE, **OTHERS}
ENTRIES = {name: entry for name, entry in ENTRIES.items() if cuts(entry[1])}
# Of each kind: draws, tables, matrices that are made whole, and what is made of parts.
SOME = (
    *("corrected", "sparse", "fourier_features", "chrono", "exact_shape", "constant"),
    *("hadamard", "bilinear", "stft", "sinusoidal", "hippo", "s4d_inv", "looks_linear"),
    *("orthogonal", "narrowing_delta", "zero_init", "grouped_dirac", "recurrent"),
    *("mirrored", "split_unevenly", "stacked", "layers_apart"),
)


def talkers(entries, turn=0) -> set[str]:
    """The entries whose devices talk, each cut in one way, by one program."""
    mesh = jax.make_mesh((2, 4), ("x", "y"), axis_types=(AxisType.Auto,) * 2)

    def place(shape):
        ways = cuts(shape)
        return NamedSharding(mesh, ways[turn % len(ways)])

    def draw(key):
        drawn = {}
        for name, (fun, shape) in entries.items():
            with jax.named_scope(f"<{name}>"):
                drawn[name] = fun(key, shape)
        return drawn

    places = {name: place(shape) for name, (_, shape) in entries.items()}
    lowered = jax.jit(draw, out_shardings=places).lower(KEY)
    # Only what XLA hands to LLVM is looked at.
    program = lowered.compile({"xla_llvm_disable_expensive_passes": True})
    return set(COLLECTIVE.findall(program.as_text()))


def test_the_table_is_whole():
    left_out = set(CATALOGUE) - set(ENTRIES)
    assert {type(CATALOGUE[name][0]) for name in left_out} <= {
        type(init) for init, _ in ENTRIES.values()
    }
    assert set(TALKATIVE) <= set(ENTRIES)


def test_no_device_talks():
    some = {name: ENTRIES[name] for name in SOME}
    assert talkers(some) == set(TALKATIVE) & set(some)


@pytest.mark.exhaustive
@pytest.mark.parametrize("turn", [0, 1, 2, 3])
def test_no_device_talks_however_arrays_are_cut(turn):
    assert talkers(ENTRIES, turn) == set(TALKATIVE)


def test_what_talks_is_seen():
    """What the initializers would do, written as one would write it first."""

    def mirrored(key, shape):
        half = jaxinit.normal()(key, (shape[0] // 2, shape[1]))
        return jnp.concatenate([half, -half])

    def ranks(key, shape):
        order = jnp.broadcast_to(jnp.arange(shape[0])[:, None], shape)
        return jax.random.permutation(key, order, 0, independent=True)

    naive = {"mirrored": (mirrored, (8, 16)), "ranks": (ranks, (8, 16))}
    assert talkers(naive | {"fine": (jaxinit.normal(), (8, 16))}, 1) == set(naive)
