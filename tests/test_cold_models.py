"""The models of the cold benchmark: their bits, and how many programs they need."""

import jax
import numpy as np
import pytest
from sampling import sampled

import jaxinit
from benchmarks.cold_models import MODELS
from jaxinit._compile.leaf_plan import LeafPlan

KEY = jax.random.key(0)

# Different programs: those that draw, and constants of different shapes and dtypes.
PROGRAMS = {
    "linen_dense": (1, 1),
    "linen_gpt_4": (7, 3),
    "linen_gpt_12": (7, 3),
    "linen_scanned": (4, 3),
    "linen_weight_norm": (1, 0),
    "linen_lstm": (2, 1),
    "linen_branches": (3, 2),
    "plain_conditional": (1, 0),
    "equinox_stacked": (4, 0),
}
BY_DEFAULT = ("linen_scanned", "plain_conditional")


@pytest.mark.parametrize("name", PROGRAMS)
def test_how_many_programs_a_model_needs(name):
    """Nothing is compiled here: what would be is counted."""
    plan = LeafPlan(jax.jit(MODELS[name]()).trace(KEY).jaxpr)
    drawing = {p.signature for p in plan.programs if p.fill is None}
    fills = {(p.fill.shape, p.fill.dtype) for p in plan.programs if p.fill is not None}
    assert (len(drawing), len(fills)) == PROGRAMS[name]


@pytest.mark.sample(1)
@pytest.mark.parametrize(
    "name", sampled(MODELS, [name for name in MODELS if name not in BY_DEFAULT])
)
def test_models_have_the_bits_of_jax(name):
    init = MODELS[name]()
    found, wanted = (f(init)(KEY) for f in (jaxinit.jit, jax.jit))
    assert jax.tree.structure(found) == jax.tree.structure(wanted)
    pairs = zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True)
    for leaf, expected in pairs:
        assert jax.typeof(leaf) == jax.typeof(expected)
        assert np.asarray(leaf).tobytes() == np.asarray(expected).tobytes()
