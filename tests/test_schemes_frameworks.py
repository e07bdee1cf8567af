"""Schemes of frameworks against what the frameworks draw themselves."""

import math
import os
import re

import equinox as eqx
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import nnx

import jaxinit
from jaxinit import schemes, stats
from jaxinit.initializers._defects import has_matrices
from jaxinit.testing import assert_moments, assert_orthogonal
from tests import framework_layers
from tests.framework_layers import (
    INPUTS,
    NEWER,
    TABLES,
    UNITS,
    WITHOUT,
    drawn,
    image,
    shapes,
)
from tests.golden_torch import NUMBERS, probability
from tests.scheme_models import leaf

pytestmark = pytest.mark.unoptimized

SCHEMES = {
    "linen": schemes.flax(),
    "nnx": schemes.flax(),
    "haiku": schemes.haiku(),
    "equinox": schemes.equinox(),
}


@pytest.mark.parametrize("framework", TABLES)
def test_every_class_of_a_framework_is_compared_or_left_out_with_a_reason(framework):
    compared = {case.partition(",")[0] for case in TABLES[framework]}
    newer = NEWER.get(framework, set())
    left_out = set(WITHOUT[framework])
    assert not compared & left_out
    assert (compared | left_out) - newer == framework_layers.public(framework) - newer


@pytest.mark.parametrize("framework", TABLES)
def test_what_is_left_out_makes_no_parameters(framework):
    """Its source has nothing that makes one; other sources have, so that this tells."""
    makes = framework_layers.makes_parameters
    asks = {"Module", "MultiHeadAttention"}  # the one defines it, the other is refused
    names = set(WITHOUT[framework]) & framework_layers.public(framework)
    assert not [name for name in names - asks if makes(framework, name)]
    compared = {case.partition(",")[0] for case in TABLES[framework]}
    assert any(makes(framework, name) for name in compared)


ORTHOGONAL = jaxinit.orthogonal()
P_FAIL = 1e-9  # of a case: all leaves, seeds and checks


def disagreements(trees, rules) -> list[str]:
    """Paths of leaves that were not drawn from the laws of some rules, up to chance."""
    plan = jaxinit.plan(trees[0], rules)
    p = P_FAIL / (5 * len(plan))
    leaves = zip(*(jax.tree.leaves(tree) for tree in trees), strict=True)
    return [
        planned.path
        for planned, arrays in zip(plan, leaves, strict=True)
        if not agrees(planned, [np.asarray(x) for x in arrays], p)
    ]


def agrees(planned, arrays, p) -> bool:
    init = planned.initializer
    if not isinstance(init, jaxinit.Initializer):
        return True  # norms of a weight, which test_norms_of_weights compares
    moments = init.moments(planned.shape)
    if has_matrices(init, planned.shape):
        return all(is_made_by(x, init) for x in arrays)
    if moments.low == moments.high:
        return all((x == np.float32(moments.low)).all() for x in arrays)
    if len(planned.shape) > 1 and any(map(is_orthogonal, arrays)):
        return False  # their entries have the law of others
    pooled = np.stack(arrays)
    both = jaxinit.stacked(init)
    score = stats.score(pooled, both)
    probabilities = (
        score.mean_p,
        score.variance_p,
        stats.fit(pooled, both).p,
        *ends(pooled, init.entry_law(planned.shape, jnp.dtype("float32"))),
    )
    return min(probabilities) >= p


def is_orthogonal(x) -> bool:
    """Whether the matrix of all but the last axis and the last is; compiles nothing."""
    matrix = x.reshape(-1, x.shape[-1])
    products = min(matrix.T @ matrix, matrix @ matrix.T, key=len)
    return np.abs(products - np.eye(len(products))).max() < 1e-3


def is_made_by(x, init) -> bool:
    try:
        assert_orthogonal(x, init)
    except AssertionError:
        return False
    return True


def ends(x, law) -> tuple[float, float]:
    """Probabilities that no entry is beyond the greatest and the least of some."""
    low, high = (float(law.cdf(np.float64(end))) for end in (x.min(), x.max()))
    within = low >= -1e-6 and high <= 1 + 1e-6
    return (high**x.size, (1 - low) ** x.size) if within else (0.0, 0.0)


# One layer of each kind, of one framework or another.
SAMPLE = {
    "linen": "Dense|Embed|BatchNorm|ConvLSTMCell",
    "nnx": "LinearGeneral|LoRALinear",
    "haiku": "Linear|Conv2DTranspose",
    "equinox": "WeightNorm|LayerNorm",
}
_BEYOND = "1D|3D|ND|1d|3d|, |Sequential|^RNN|DeepRNN|SelfAttention"


def of_sample(framework, case):
    return re.fullmatch(SAMPLE[framework], case)


def of_one_window(framework, case):
    """Not a kind of a layer that differs in a window or holder alone."""
    return not re.search(_BEYOND, case)


def named(cases, sample=of_one_window):
    """Named parameters; what is in no sample, marked."""
    return [
        pytest.param(
            *case,
            marks=[] if sample(*case) else pytest.mark.exhaustive,
            id=", ".join(case),
        )
        for case in cases
    ]


LAYERS = named(
    ((name, case) for name, table in TABLES.items() for case in table), of_sample
)


MGU_BIASES = {"if": jaxinit.ones, "in": jaxinit.zeros}


@pytest.mark.sample(5)
@pytest.mark.parametrize(("framework", "case"), LAYERS)
def test_layers_have_the_laws_of_the_framework(framework, case):
    """A false alarm once in a billion, for each layer."""
    trees = drawn(framework, case)
    assert disagreements(trees, SCHEMES[framework]) == []


def test_the_bias_of_a_forget_gate_is_one():
    """By the rules alone; what Flax draws is among the layers above."""
    plan = jaxinit.plan(shapes("linen", "MGUCell"), SCHEMES["linen"])
    biases = {x.path: x.initializer for x in plan if x.path.endswith("bias")}
    gates = {f"MGUCell_0/{name}/bias": init for name, init in MGU_BIASES.items()}
    assert {path: biases[path] for path in gates} == gates


def instead(pattern, init, framework):
    return jaxinit.Rules({pattern: init}) | SCHEMES[framework]


LECUN = jaxinit.lecun_normal()
# What is told apart: a layer, rules that differ from the framework, where they do.
WRONG = {
    "deviation": ("haiku", "Linear", instead("**/w", LECUN, "haiku"), "linear/w"),
    "law": ("linen", "Dense", schemes.keras(), "Dense_0/kernel"),
    "law, its ends alone": (
        "linen",
        "Embed",
        instead("**/embedding", jaxinit.truncated_normal(INPUTS**-0.5), "linen"),
        "Embed_0/embedding",
    ),
    "law, wider at its ends": (
        "linen",
        "Dense",
        instead("**/kernel", jaxinit.normal(INPUTS**-0.5), "linen"),
        "Dense_0/kernel",
    ),
    "axes of outputs": (
        "nnx",
        "LinearGeneral",
        instead("**/kernel", LECUN, "nnx"),
        "lineargeneral/kernel",
    ),
    "transposed kernel": (
        "haiku",
        "Conv2DTranspose",
        instead("**/w", jaxinit.truncated_normal((9 * 48) ** -0.5), "haiku"),
        "conv2_d_transpose/w",
    ),
    "not orthogonal": (
        "nnx",
        "LSTMCell",
        instead("**/hf/kernel", LECUN, "nnx"),
        "lstmcell/hf/kernel",
    ),
    "orthogonal": (
        "linen",
        "ConvLSTMCell",
        instead("**/hh/kernel", jaxinit.orthogonal(), "linen"),
        "ConvLSTMCell_0/hh/kernel",
    ),
    "constant": (
        "linen",
        "BatchNorm",
        instead("**/scale", jaxinit.zeros, "linen"),
        "BatchNorm_0/scale",
    ),
}


@pytest.mark.sample(4)
@pytest.mark.parametrize("case", WRONG)
def test_other_laws_are_told_apart(case):
    framework, layer, rules, path = WRONG[case]
    assert disagreements(drawn(framework, layer), rules) == [path]


@pytest.mark.parametrize(
    "case",
    [
        "WeightNorm",
        pytest.param("WeightNorm, one norm", marks=pytest.mark.exhaustive),
    ],
)
def test_norms_of_weights(case, key):
    """Equinox's `g` is the norm of the very weight that is drawn beside it."""
    theirs = drawn("equinox", case)[0]
    mine = jaxinit.plan(theirs, schemes.equinox()).init(key)
    theirs, mine = theirs["weightnorm"], mine["weightnorm"]
    assert_norms(theirs)
    assert_norms(mine)
    mixed = eqx.tree_at(lambda layer: layer.g, mine, theirs.g)
    with pytest.raises(AssertionError):
        assert_norms(mixed)


def assert_norms(layer):
    axis = 1 if len(layer.g) > 1 else (0, 1)
    norms = np.linalg.norm(np.float64(layer.layer.weight), axis=axis, keepdims=True)
    np.testing.assert_allclose(layer.g, norms, rtol=1e-5)


GLOROT = jaxinit.glorot_uniform()
FIRST = jaxinit.variance_scaling(1.0, "fan_avg", "uniform", in_axis=1, out_axis=0)


def gates(number, inputs, state, axis=-1):
    """Kernels of the inputs and of the state by recurrent() and by keras()."""
    by_gate = [jaxinit.split(x, number, axis) for x in (inputs, state)]
    return by_gate, [inputs, state]


APART = ([GLOROT, ORTHOGONAL], [GLOROT, ORTHOGONAL])
ROWS = (INPUTS, UNITS)
JOINT = [
    jaxinit.split(tuple(parts), ROWS, axis=0) for parts in gates(4, GLOROT, ORTHOGONAL)
]
# The kernels of the inputs and of the state, their laws by recurrent() and by keras().
CELLS = {
    ("linen", "SimpleCell"): ("i/kernel", "h/kernel", APART),
    ("linen", "GRUCell"): ("i[rzn]/kernel", "h[rzn]/kernel", APART),
    ("linen", "MGUCell"): ("i[fn]/kernel", "h[fn]/kernel", APART),
    ("linen", "LSTMCell"): ("i[ifgo]/kernel", "h[ifgo]/kernel", APART),
    ("linen", "OptimizedLSTMCell"): ("i[ifgo]/kernel", "h[ifgo]/kernel", APART),
    ("linen", "ConvLSTMCell"): ("ih/kernel", "hh/kernel", gates(4, GLOROT, ORTHOGONAL)),
    ("nnx", "SimpleCell"): ("dense_i/kernel", "dense_h/kernel", APART),
    ("nnx", "GRUCell"): (
        "dense_i/kernel",
        "dense_h/kernel",
        gates(3, GLOROT, ORTHOGONAL),
    ),
    ("nnx", "LSTMCell"): ("(ii|if_|ig|io)/kernel", "h[ifgo]/kernel", APART),
    ("nnx", "OptimizedLSTMCell"): (
        "dense_i/kernel",
        "dense_h/kernel",
        gates(4, GLOROT, ORTHOGONAL),
    ),
    ("haiku", "VanillaRNN"): ("linear/w", "linear_1/w", APART),
    ("haiku", "GRU"): ("w_i", "w_h", gates(3, GLOROT, ORTHOGONAL)),
    ("haiku", "LSTM"): ("linear/w", "linear/w", ([JOINT[0]] * 2, [JOINT[1]] * 2)),
    **{
        ("haiku", f"Conv{n}DLSTM"): (
            "input_to_hidden/w",
            "hidden_to_hidden/w",
            gates(4, GLOROT, ORTHOGONAL),
        )
        for n in (1, 2, 3)
    },
    ("equinox", "GRUCell"): (
        "weight_ih",
        "weight_hh",
        gates(3, FIRST, ORTHOGONAL, axis=0),
    ),
    ("equinox", "LSTMCell"): (
        "weight_ih",
        "weight_hh",
        gates(4, FIRST, ORTHOGONAL, axis=0),
    ),
}


def test_every_cell_is_in_the_table():
    bases = {
        "linen": nn.RNNCellBase,
        "nnx": nnx.RNNCellBase,
        "haiku": hk.RNNCore,
        "equinox": (eqx.nn.GRUCell, eqx.nn.LSTMCell),
    }
    cells = {
        (framework, name)
        for framework, base in bases.items()
        for name in framework_layers.public(framework) - set(WITHOUT[framework])
        if issubclass(framework_layers.class_of(framework, name), base)
    }
    assert cells - {("haiku", "DeepRNN")} == set(CELLS)


@pytest.mark.sample(8)
@pytest.mark.parametrize(("framework", "name"), named(CELLS))
def test_kernels_of_every_cell(framework, name):
    """Each gate of a fused kernel by itself by recurrent(), together by keras()."""
    inputs, state, laws = CELLS[framework, name]
    tree = shapes(framework, name)
    for rules, law in zip((schemes.recurrent(), schemes.keras()), laws, strict=True):
        made = {x.path: x.initializer for x in jaxinit.plan(tree, rules)}
        for pattern, wanted in zip((inputs, state), law, strict=True):
            found = [
                init for path, init in made.items() if re.search(f"/{pattern}$", path)
            ]
            assert found
            assert set(found) == {wanted}


# A step of every cell with memory, from a state of ones: what becomes of the memory.
def linen_step(cell, x=framework_layers.x):
    def step(tree):
        (params,) = tree.values()
        carry = cell.initialize_carry(jax.random.key(0), x.shape)
        return cell.apply({"params": params}, jax.tree.map(jnp.ones_like, carry), x)[0]

    return step


def nnx_step(cls):
    def step(tree):
        (params,) = tree.values()
        cell = cls(INPUTS, UNITS, rngs=nnx.Rngs(0))
        nnx.update(cell, params)
        carry = cell.initialize_carry((1, INPUTS), nnx.Rngs(0))
        return cell(jax.tree.map(jnp.ones_like, carry), jnp.zeros((1, INPUTS)))[0]

    return step


def haiku_step(make, x=framework_layers.x):
    def call():
        core = make()
        carry = core.initial_state(len(x))
        return core(x, jax.tree.map(jnp.ones_like, carry))[1]

    return lambda tree: hk.transform(call).apply(tree, None)


def equinox_step(tree):
    (cell,) = tree.values()
    ones = jnp.ones(UNITS)
    is_lstm = isinstance(cell, eqx.nn.LSTMCell)
    return cell(jnp.zeros(INPUTS), (ones, ones) if is_lstm else ones)


# The step, where the memory is in the state, and whether the cell forgets by a gate.
MEMORY = {
    ("linen", "LSTMCell"): (linen_step(nn.LSTMCell(UNITS)), 0, True),
    ("linen", "OptimizedLSTMCell"): (linen_step(nn.OptimizedLSTMCell(UNITS)), 0, True),
    ("linen", "ConvLSTMCell"): (linen_step(nn.ConvLSTMCell(8, (3, 3)), image), 0, True),
    ("linen", "MGUCell"): (linen_step(nn.MGUCell(UNITS)), ..., True),
    ("linen", "GRUCell"): (linen_step(nn.GRUCell(UNITS)), ..., False),
    ("nnx", "LSTMCell"): (nnx_step(nnx.LSTMCell), 0, True),
    ("nnx", "OptimizedLSTMCell"): (nnx_step(nnx.OptimizedLSTMCell), 0, True),
    ("nnx", "GRUCell"): (nnx_step(nnx.GRUCell), ..., False),
    ("haiku", "LSTM"): (haiku_step(lambda: hk.LSTM(UNITS)), 1, True),
    ("haiku", "Conv2DLSTM"): (
        haiku_step(lambda: hk.Conv2DLSTM((framework_layers.LENGTH,) * 2, 8, 3), image),
        1,
        True,
    ),
    ("haiku", "GRU"): (haiku_step(lambda: hk.GRU(UNITS)), ..., False),
    ("equinox", "LSTMCell"): (equinox_step, 1, True),
    ("equinox", "GRUCell"): (equinox_step, ..., False),
}


SAMPLE_WITH_MEMORY = {
    "linen": "ConvLSTMCell|MGUCell",
    "nnx": "LSTMCell|GRUCell",
    "haiku": "LSTM",
    "equinox": "LSTMCell",
}


def of_memory(framework, cell):
    return re.fullmatch(SAMPLE_WITH_MEMORY[framework], cell)


@pytest.mark.sample(3)
@pytest.mark.parametrize(
    "name",
    ["recurrent", pytest.param("keras", marks=pytest.mark.exhaustive)],
)
@pytest.mark.parametrize(("framework", "cell"), named(MEMORY, of_memory))
def test_cells_remember(framework, cell, name):
    """With kernels of 0, `sigmoid(1)` of the memory is kept, of a GRU `sigmoid(0)`.

    So it is wherever the library has the forget gate, and whether or not it adds 1.
    """
    step, place, forgets = MEMORY[framework, cell]
    tree = shapes(framework, cell)
    plan = jaxinit.plan(tree, getattr(schemes, name)())

    @jax.jit
    def after(key):
        leaves = [
            x.draw(key)
            if re.search("/(b|bias|bias_n)$", x.path)
            else jnp.zeros(x.shape, x.dtype)
            for x in plan
        ]
        return step(jax.tree.unflatten(jax.tree.structure(tree), leaves))

    found = after(jax.random.key(0))
    memory = found if place is ... else found[place]
    np.testing.assert_allclose(memory, 1 / (1 + math.exp(-forgets)), rtol=1e-6)


BOUNDED_BY_UNITS = [cell for cell in CELLS if "Conv" not in cell[1]]


@pytest.mark.sample(7)
@pytest.mark.parametrize("cell", BOUNDED_BY_UNITS, ids=", ".join)
def test_arrays_of_cells_are_bounded_by_their_units(cell):
    tree = shapes(*cell)
    made = {x.path: x.initializer for x in jaxinit.plan(tree, schemes.torch())}
    bound = 1 / math.sqrt(UNITS)
    assert set(made.values()) == {jaxinit.uniform(low=-bound, high=bound)}


def keras_params(key, beyond):
    os.environ.setdefault("KERAS_BACKEND", "jax")
    keras = pytest.importorskip("keras")
    keras.utils.set_random_seed(int(jax.random.bits(key) >> 1))
    x = keras.layers
    layers = {
        x.Embedding(80, 40): (1, 4),
        x.LayerNormalization(): (1, 40),
        x.Dense(80): (1, 40),
    }
    if beyond:
        layers |= {x.LSTM(80): (1, 4, 40), x.Conv2D(40, 3): (1, 8, 8, 40)}
    for layer, shape in layers.items():
        layer.build(shape)
    attention = x.MultiHeadAttention(4, 10)
    if beyond:
        attention.build((1, 4, 40), (1, 4, 40))
    weights = [weight for layer in (*layers, attention) for weight in layer.weights]
    return {weight.path: jnp.asarray(weight.value) for weight in weights}


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    "beyond", [False, pytest.param(True, marks=pytest.mark.exhaustive)]
)
def test_keras_defaults_are_those_of_keras(key, beyond):
    """A false alarm once in a billion; another framework's law is told apart."""
    params = keras_params(key, beyond)
    assert_moments(params, jaxinit.plan(params, schemes.keras()))
    with pytest.raises(AssertionError):
        assert_moments(params, jaxinit.plan(params, schemes.flax()))


def torch_path(name: str) -> list[str]:
    """Of a parameter that torch writes as in_proj_weight, weight_ih_l0 or bias_hh."""
    name = re.sub("^in_proj_", "in_proj.", name.removesuffix("_l0"))
    return re.sub("bias_(ih|hh)", "bias", name).split(".")


def off_torch(layer: str, rules) -> list[str]:
    """Parameters of a layer of torch that were not drawn from the laws of the rules."""
    numbers, tree = NUMBERS["layers"][layer], {}
    for name, entry in numbers.items():
        *modules, last = torch_path(name)
        node = tree
        for module in modules:
            node = node.setdefault(module, {})
        node[last] = leaf(*entry["shape"])
    laws = {
        x.path: x.initializer.entry_law(x.shape, np.dtype("float32"))
        for x in jaxinit.plan({layer: tree}, rules)
    }
    return [
        name
        for name, entry in numbers.items()
        if probability(entry, laws["/".join([layer, *torch_path(name)])])
        < P_FAIL / len(numbers)
    ]


@pytest.mark.parametrize("layer", NUMBERS["layers"])
def test_torch_defaults_are_those_of_torch(layer):
    """A false alarm once in a billion, for each layer."""
    assert off_torch(layer, schemes.torch()) == []


# What other rules miss of a layer: another framework's, or torch's own with an error.
NOT_OF_TORCH = {
    "kernel": ("Linear", schemes.flax(), ["weight", "bias"]),
    "attention": (
        "MultiheadAttention",
        schemes.equinox(),
        ["in_proj_weight", "in_proj_bias", "out_proj.bias"],
    ),
    "embedding": ("Embedding", schemes.keras(), ["weight"]),
    "norm": (
        "LayerNorm",
        jaxinit.Rules({"**/bias": jaxinit.ones}) | schemes.torch(),
        ["bias"],
    ),
    "recurrent bias": (
        "GRU",
        jaxinit.Rules({"**/bias": jaxinit.zeros}) | schemes.torch(),
        ["bias_ih_l0", "bias_hh_l0"],
    ),
}


@pytest.mark.parametrize("case", NOT_OF_TORCH)
def test_other_laws_than_those_of_torch_are_told_apart(case):
    layer, rules, wanted = NOT_OF_TORCH[case]
    assert off_torch(layer, rules) == wanted


def test_keras_by_name():
    tree = {
        "dense": {"kernel": leaf(20, 30), "bias": leaf(30)},
        "embedding": {"embeddings": leaf(100, 8)},
        "layer_normalization": {"gamma": leaf(8), "beta": leaf(8)},
        "lstm": {
            "lstm_cell": {
                "kernel": leaf(20, 32),
                "recurrent_kernel": leaf(8, 32),
                "bias": leaf(32),
            }
        },
    }
    made = {x.path: x.initializer for x in jaxinit.plan(tree, schemes.keras())}
    assert made == {
        "dense/kernel": jaxinit.glorot_uniform(),
        "dense/bias": jaxinit.zeros,
        "embedding/embeddings": jaxinit.uniform(low=-0.05, high=0.05),
        "layer_normalization/gamma": jaxinit.ones,
        "layer_normalization/beta": jaxinit.zeros,
        "lstm/lstm_cell/kernel": jaxinit.glorot_uniform(),
        "lstm/lstm_cell/recurrent_kernel": jaxinit.orthogonal(),
        "lstm/lstm_cell/bias": jaxinit.forget_gate_bias(),
    }


@pytest.mark.parametrize("name", ["flax", "torch", "keras", "haiku", "equinox"])
def test_schemes_of_frameworks_are_written_and_read(name):
    rules = getattr(schemes, name)()
    assert jaxinit.to_config(rules) == {"version": 1, "scheme": name}
    assert jaxinit.from_config({"version": 1, "scheme": name}).call == rules.call
