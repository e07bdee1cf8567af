"""Schemes: what every leaf of small models gets, and which models are refused."""

import math
import re

import jax
import numpy as np
import pytest

import jaxinit
from jaxinit import schemes
from tests.scheme_models import (
    CLASSES,
    HEADS,
    LAYERS,
    VOCABULARY,
    WIDTH,
    common,
    leaf,
    shapes,
)

KEY = jax.random.key(5)
CUT, CUT3 = 0.879626, 0.986577  # deviation of a normal law cut at two and three sigmas


def root(x):
    return 1 / math.sqrt(x)


def glorot(a, b):
    return math.sqrt(2 / (a + b))


D = WIDTH
PLAIN = {".*/bias": 0, ".*/norm1/scale": (1, 0)}
STREAM = ".*/(attn/out|mlp/fc2)/kernel"
VALUES = ".*/attn/value/kernel"
QUERIES = ".*/attn/(query|key)/kernel"
SMALL = math.sqrt(2 / (5 * D))
HE_CONV = math.sqrt(2 / (9 * D))  # 3x3 windows, D outputs


def stream_of(factor):
    """Deviations of Glorot's law times a factor, of the kernels that DeepNorm names."""
    return {
        "head/kernel": glorot(D, CLASSES),
        QUERIES: glorot(D, D),
        VALUES: factor * glorot(D, D),
        ".*/attn/out/kernel": factor * glorot(D, D),
        ".*/mlp/fc./kernel": factor * glorot(D, 4 * D),
    }


# Name: scheme, the model that it fits, a model that it does not fit and what the error
# names, and for every leaf its deviation, or its mean and deviation.
CASES = {
    "gpt2": (
        schemes.gpt2(LAYERS),
        "transformer",
        ("mlp", "attention output"),
        PLAIN
        | {STREAM: 0.02 / math.sqrt(2 * LAYERS), "pos_embedding": 0.01}
        | {".*kernel|wte/embedding": 0.02},
    ),
    "bert": (
        schemes.bert(),
        "transformer",
        ("resnet", "feed-forward output"),
        PLAIN | {".*kernel|.*embedding": 0.02 * CUT},
    ),
    "vit": (
        schemes.vit(LAYERS),
        "transformer",
        ("resnet", "attention output"),
        PLAIN
        | {"head/kernel": 0, ".*/0/(attn/out|mlp/fc2)/kernel": 0.02 * root(2)}
        | {".*/1/(attn/out|mlp/fc2)/kernel": 0.02 * root(4)}
        | {".*kernel|.*embedding": 0.02},
    ),
    "mimetic": (
        schemes.mimetic(HEADS),
        "transformer",
        ("mlp", "attention output"),
        PLAIN
        | {".*/attn/.*/kernel": None, "head/kernel": 0}  # test_mimetic.py
        | {".*kernel|.*embedding": 0.02 * CUT},
    ),
    "small_init": (
        schemes.small_init(D),
        "transformer",
        ("mlp", "attention output"),
        PLAIN | {".*kernel|.*embedding": SMALL},
    ),
    "wang": (
        schemes.wang(LAYERS, D),
        "transformer",
        ("mlp", "attention output"),
        PLAIN | {STREAM: 2 / (LAYERS * math.sqrt(D)), ".*kernel|.*embedding": SMALL},
    ),
    "mitchell": (
        schemes.mitchell(LAYERS, D),
        "transformer",
        ("mlp", "attention output"),
        PLAIN
        | {".*/0/attn/out/kernel": CUT3 * root(2 * D)}
        | {".*/1/attn/out/kernel": CUT3 * root(4 * D)}
        | {".*/0/mlp/fc2/kernel": CUT3 * root(2 * 4 * D)}
        | {".*/1/mlp/fc2/kernel": CUT3 * root(4 * 4 * D)}
        | {".*kernel|.*embedding": CUT3 * root(D)},
    ),
    "deepnorm": (
        schemes.deepnorm(decoder_layers=LAYERS),
        "transformer",
        ("recurrent", "attention output"),
        PLAIN | stream_of((8 * LAYERS) ** -0.25) | {".*embedding": root(D)},
    ),
    "deepnorm of two stacks": (
        schemes.deepnorm(encoder_layers=6, decoder_layers=LAYERS),
        "transformer",
        ("recurrent", "attention output"),
        PLAIN | stream_of((12 * LAYERS) ** -0.25) | {".*embedding": root(D)},
    ),
    "sub_ln": (
        schemes.sub_ln(decoder_layers=LAYERS),
        "transformer",
        ("mlp", "attention output"),
        PLAIN | stream_of(math.sqrt(math.log(2 * LAYERS))) | {".*embedding": root(D)},
    ),
    "t_fixup": (
        schemes.t_fixup(encoder_layers=6, decoder_layers=LAYERS),
        "transformer without norms",
        ("transformer", "norm1/scale: ValueError: it is the scale of a norm"),
        {".*/bias": 0, ".*embedding": root(D) * (9 * LAYERS) ** -0.25}
        | stream_of((9 * LAYERS) ** -0.25),
    ),
    "fixup": (
        schemes.fixup(LAYERS),
        "resnet without norms",
        ("resnet", "bn1/scale: ValueError: it is the scale of a norm"),
        {".*/bias|fc/kernel|.*/conv2/kernel": 0}
        | {"blocks/./conv1/kernel": HE_CONV * root(LAYERS), "conv1/kernel": HE_CONV},
    ),
    "zero_gamma": (
        schemes.zero_gamma(),
        "resnet",
        ("resnet without norms", "scale of the last norm"),
        {".*/bias": 0, ".*/bn1/scale": (1, 0), ".*/bn2/scale": (0, 0)}
        | {"fc/kernel": 0.01, ".*kernel": HE_CONV},
    ),
    "rezero": (
        schemes.rezero(),
        "gated transformer",
        ("mlp", "residual gate"),
        PLAIN
        | {".*/gate": (0, 0), ".*/fc2/kernel": root(4 * D)}
        | {".*kernel|.*embedding": root(D)},
    ),
    "skip_init": (
        schemes.skip_init(schemes.gpt2(LAYERS)),
        "gated transformer",
        ("mlp", "residual gate"),
        PLAIN
        | {".*/gate": (0, 0), STREAM: 0.02 / math.sqrt(2 * LAYERS)}
        | {".*kernel|.*embedding": 0.02},
    ),
    "layer_scale": (
        schemes.layer_scale(24),
        "gated transformer",
        ("mlp", "residual gate"),
        PLAIN
        | {".*/gate": (1e-5, 0), ".*/fc2/kernel": root(4 * D)}
        | {".*kernel|.*embedding": root(D)},
    ),
    "dcgan": (
        schemes.dcgan(),
        "resnet",
        ("mlp", "convolution"),
        {".*/bias": 0, ".*/scale": (1, 0.02), ".*kernel": 0.02},
    ),
    "gan_generator": (
        schemes.gan_generator(),
        "resnet",
        ("mlp", "convolution"),
        {".*/bias": 0, ".*/scale": (1, 0.02), ".*kernel": 0.02},
    ),
    "gan_discriminator": (
        schemes.gan_discriminator(),
        "resnet without norms",
        ("mlp", "convolution"),
        {".*/bias": 0, "fc/kernel": math.sqrt(2 / 1.04 / D)}
        | {"conv1/kernel": math.sqrt(2 / 1.04 / 27)}
        | {".*kernel": math.sqrt(2 / 1.04 / (9 * D))},
    ),
    "stylegan": (
        schemes.stylegan(),
        "resnet without norms",
        ("mlp", "convolution"),
        {".*/bias": 0, ".*kernel": 1},
    ),
    "vision": (
        schemes.vision(),
        "resnet",
        ("mlp", "convolution"),
        {".*/bias": 0, ".*/scale": (1, 0), "fc/kernel": 0.01, ".*kernel": HE_CONV},
    ),
    "language": (
        schemes.language(LAYERS),
        "transformer",
        ("mlp", "attention output"),
        PLAIN
        | {".*embedding": 0.02, "head/kernel": glorot(D, CLASSES)}
        | {".*/attn/out/kernel": glorot(D, D) / math.sqrt(2 * LAYERS)}
        | {".*/mlp/fc2/kernel": glorot(D, 4 * D) / math.sqrt(2 * LAYERS)}
        | {".*/fc1/kernel": glorot(D, 4 * D), ".*kernel": glorot(D, D)},
    ),
    "recurrent": (
        schemes.recurrent(),
        "recurrent",
        ("mlp", "recurrent kernel"),
        {"cell/hf/bias": (1, 0), "cell/dense_h/bias": (0.25, math.sqrt(3) / 4)}
        | {".*bias": 0, "head/kernel": glorot(D, CLASSES), "embed/embedding": root(D)}
        | {"cell/(i.|dense_i)/kernel": glorot(D, D)}
        | {"cell/(h.|dense_h)/kernel": root(D)},
    ),
    "recommender": (
        schemes.recommender(),
        "recurrent",
        ("mlp", "embedding"),
        {".*bias": 0, ".*embedding": root(3 * VOCABULARY)}
        | {".*kernel": math.sqrt(2 / D)},
    ),
    "mlp": (
        schemes.mlp("tanh"),
        "mlp",
        ("recurrent", "embed/embedding: no rule matches it"),
        {".*bias": 0, "in1/kernel": glorot(9, D), "head/kernel": glorot(D, CLASSES)},
    ),
}
FRAMEWORKS = {"flax", "torch", "keras", "haiku", "equinox"}
LIBRARIES = ("linen", "nnx")


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("case", CASES)
def test_every_leaf_has_its_law(case, library):
    rules, model, _, expected = CASES[case]
    for planned in jaxinit.plan(shapes(model, library), rules):
        path = common(planned.path)
        hits = [law for pattern, law in expected.items() if re.fullmatch(pattern, path)]
        law = hits[0]
        if law is None:
            assert planned.std is None
            continue
        moments = planned.initializer.moments(planned.shape)
        if isinstance(law, tuple):
            assert (moments.mean, moments.std) == pytest.approx(law, rel=1e-5), path
        else:
            assert moments.std == pytest.approx(law, rel=1e-5), path


FLAT = {name: (rules, model) for name, (rules, model, *_) in CASES.items()} | {
    f"{name}, {model}": (getattr(schemes, name)(), model)
    for name in sorted(FRAMEWORKS)
    for model in ("mlp", "recurrent", "resnet")
}


@pytest.mark.sample(10)
@pytest.mark.parametrize("case", FLAT)
def test_a_flat_tree_of_the_same_paths_has_the_same_laws(case):
    rules, model = FLAT[case]
    nested = jaxinit.plan(shapes(model, "linen"), rules)
    flat = {x.path: jax.ShapeDtypeStruct(x.shape, x.dtype) for x in nested}
    laws = {x.path: x.initializer for x in jaxinit.plan(flat, rules)}
    assert laws == {x.path: x.initializer for x in nested}


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("case", CASES)
def test_a_model_that_does_not_fit_is_refused_by_name(case, library):
    rules, _, (model, named), _ = CASES[case]
    with pytest.raises(jaxinit.PlanError) as error:
        jaxinit.plan(shapes(model, library), rules)
    assert named in str(error.value)
    assert str(error.value).startswith(f"the plan by {rules.name} has")
    assert rules.name == f"scheme {case.partition(' ')[0]}"


FUSED = {
    # DeepNorm widens nothing but the value, the last third of a fused projection
    "flax": ({"attn": {"qkv": {"kernel": leaf(12, 36)}}}, (12, 12)),
    "torch": ({"attn": {"qkv": {"weight": leaf(36, 12)}}}, (12, 12)),
}


@pytest.mark.parametrize("layout", FUSED)
def test_fused_projections_are_three(layout):
    tree, part = FUSED[layout]
    rules = jaxinit.Rules(schemes.deepnorm(decoder_layers=2), required=[])
    (planned,) = jaxinit.plan(tree, rules)
    thirds = planned.initializer.init
    stds = [init.moments(part).std for init in thirds]
    assert stds == pytest.approx([root(12), root(12), root(12) * 16**-0.25])


N, M = 6, 2
STACKS = {
    "deepnorm": (schemes.deepnorm(N, M), 0.87 * (N**4 * M) ** (-1 / 16)),
    "sub_ln": (
        schemes.sub_ln(N, M),
        math.sqrt(math.log(3 * M) * math.log(2 * N) / 3),
    ),
    "t_fixup": (schemes.t_fixup(N, M), 0.67 * N**-0.25),
    "t_fixup, encoder alone": (schemes.t_fixup(N), 0.67 * N**-0.25),
}
# Leaves that the small models lack: rules, path, shape, mean, deviation.
SINGLE = {
    **{
        f"encoder, {name}": (
            rules,
            "encoder/layers_0/mlp/fc1/kernel",
            (12, 48),
            0,
            factor * glorot(12, 48),
        )
        for name, (rules, factor) in STACKS.items()
    },
    "patches": (schemes.vit(2), "embedding/kernel", (4, 4, 3, 12), 0, root(48)),
    "token": (schemes.vit(2), "cls_token", (1, 1, 12), 0, 0.02),
    "style": (schemes.stylegan(), "affine/bias", (12,), 1, 0),
    "mapping": (schemes.stylegan(0.1), "mapping/dense_0/kernel", (4, 4), 0, 10),
    "noise": (schemes.stylegan(), "synthesis/noise_strength", (), 0, 0),
    "gates, 18 layers": (schemes.layer_scale(18), "b_0/ls1/gamma", (4,), 0.1, 0),
    "gates, 25 layers": (schemes.layer_scale(25), "b_0/ls1/gamma", (4,), 1e-6, 0),
    "skip_init, rest": (schemes.skip_init(), "fc1/kernel", (8, 4), 0, 0.5),
    "fixup, three kernels": (
        schemes.fixup(16),
        "blocks_1/conv2/kernel",
        (1, 1, 8, 8),
        0,
        0.5 * 16**-0.25,
    ),
    "fixup, multiplier": (schemes.fixup(16), "blocks_1/scale", (1,), 1, 0),
    "no head": (schemes.vision(), "fc1/kernel", (8, 8), 0, 0.5),
}


@pytest.mark.parametrize("case", SINGLE)
def test_single_leaves(case):
    rules, path, shape, mean, std = SINGLE[case]
    tree = {path: leaf(*shape)}
    if "three" in case:
        tree |= {f"blocks_1/conv{i}/kernel": leaf(*shape) for i in (1, 3)}
    plan = jaxinit.plan(tree, jaxinit.Rules(rules.items(), required=[]))
    moments = {x.path: x.initializer.moments(x.shape) for x in plan}[path]
    assert (moments.mean, moments.std) == pytest.approx((mean, std), rel=1e-5)


CELLS = {
    "flax": {"dense_i": {"kernel": leaf(5, 32)}, "dense_h": {"kernel": leaf(8, 32)}},
    "equinox": {"weight_ih": leaf(32, 5), "weight_hh": leaf(32, 8)},
}


@pytest.mark.sample(1)
@pytest.mark.parametrize("library", CELLS)
def test_gates_of_a_fused_recurrent_kernel_are_each_orthogonal(library, key):
    plan = jaxinit.plan({"cell": CELLS[library]}, schemes.recurrent())
    state, inputs = sorted(plan, key=lambda x: 8 not in x.shape)
    x = np.asarray(state.draw(key))
    gate = x[:, :8] if library == "flax" else x[:8]
    assert np.allclose(gate.T @ gate, np.eye(8), atol=1e-5)
    assert inputs.std == pytest.approx(glorot(5, 8))


def test_of_two_biases_of_a_cell_that_of_the_state_remembers():
    inputs, state = {"kernel": leaf(6, 16)}, {"kernel": leaf(4, 16)}
    bias = {"bias": leaf(16)}
    tree = {"two": {"i": inputs | bias, "h": state | bias}}
    tree |= {"one": {"i": inputs | bias, "h": state}}
    plan = jaxinit.plan(tree, schemes.recurrent())
    made = {x.path: x.initializer for x in plan}
    assert made["two/i/bias"] == jaxinit.zeros
    assert made["two/h/bias"] == made["one/i/bias"] == jaxinit.forget_gate_bias()


def test_names_of_gates_alone_make_no_recurrent_layer():
    """A dense layer called `in` is one unless `hn` is beside it."""
    alone = {"in": {"kernel": leaf(16, 4)}}
    cell = {**alone, "hn": {"kernel": leaf(4, 4)}}
    stds = [
        {x.path: x.std for x in jaxinit.plan(tree, schemes.torch())}["in/kernel"]
        for tree in (alone, cell)
    ]
    assert stds == pytest.approx([root(3 * 16), root(3 * 4)])


def test_other_rules_go_first():
    """A rule before a scheme adds to it; the scheme's own parts stay optional."""
    tree = {**shapes("transformer", "linen"), "extra": leaf(3)}
    rules = jaxinit.Rules({"extra": jaxinit.ones}) | schemes.gpt2(LAYERS)
    assert len(jaxinit.plan(tree, rules)) == len(jax.tree.leaves(tree))
    with pytest.raises(jaxinit.PlanError, match="'extra': matches no leaf"):
        jaxinit.plan(shapes("transformer", "linen"), rules)


def test_vit_cuts_where_timm_does():
    """At -2 and 2 as values, so that a deviation of 1 is cut and one of 0.02 is not."""
    for stddev, std in ((1.0, CUT), (0.02, 0.02), (0.0, 0.0)):
        plan = jaxinit.plan(
            shapes("transformer", "linen"), schemes.vit(LAYERS, stddev=stddev)
        )
        stds = {x.path: x.std for x in plan}
        assert stds["decoder_blocks_0/mlp/fc1/kernel"] == pytest.approx(std, rel=1e-5)


def test_rules_before_a_scheme_fulfil_what_it_requires():
    """So that its error can be escaped; what no rule has is missing all the same."""
    tree = {"h_0": {"attn": {"out": {"kernel": leaf(4, 4)}}}}
    mine = {"**/attn/**": jaxinit.zeros}
    with pytest.raises(jaxinit.PlanError) as error:
        jaxinit.plan(tree, jaxinit.Rules(mine) | schemes.bert())
    assert "feed-forward output" in str(error.value)
    assert "attention output" not in str(error.value)
    tree["h_0"]["mlp"] = {"fc2": {"kernel": leaf(4, 4)}}
    for own in (mine, {"**/fc2/*": jaxinit.zeros}, {"**": jaxinit.zeros}):
        rules = jaxinit.Rules(own) | schemes.bert()
        assert [x.std for x in jaxinit.plan(tree, rules)].count(0) in (1, 2)
    glob = jaxinit.Rules({"**": jaxinit.zeros, "**/kernel": jaxinit.ones})
    with pytest.raises(jaxinit.PlanError, match=r"'\*\*/kernel': matches no leaf"):
        jaxinit.plan(tree, glob)


STACK_OF = {
    "encoder/layers_0/mlp": "encoder",
    "TransformerEncoder_0/EncoderBlock_3/mlp": "encoder",
    "Transformer/encoderblock_0/mlp": "encoder",
    "decoder_blocks_0/mlp": "decoder",
    "decoder/layer_0/encoder_attn/mlp": "decoder",
    "encoder_decoder/decoder/layer_0/mlp": "decoder",
    "autoencoder/decoder/layer_0/mlp": "decoder",
    "autoencoder/layer_0/mlp": None,
    "vit_encoderless/layer_0/mlp": None,
}


@pytest.mark.parametrize("path", STACK_OF)
def test_stacks_are_told_by_whole_words(path):
    rules = jaxinit.Rules(schemes.deepnorm(N, M).items(), required=[])
    tree = {f"{path}/fc2/kernel": leaf(48, 12)}
    if STACK_OF[path] is None:
        with pytest.raises(jaxinit.PlanError, match="neither encoder nor decoder"):
            jaxinit.plan(tree, rules)
        return
    factor = {"encoder": STACKS["deepnorm"][1], "decoder": (12 * M) ** -0.25}
    (planned,) = jaxinit.plan(tree, rules)
    expected = factor[STACK_OF[path]] * glorot(12, 48)
    assert planned.std == pytest.approx(expected, rel=1e-5)


def test_a_required_pattern_is_among_the_rules():
    with pytest.raises(ValueError, match="required has 'b'"):
        jaxinit.Rules({"a": jaxinit.ones}, required=["b"])


LEAF_PROBLEMS = {
    "a layer too many": (schemes.gpt2(1), "it is of layer 1, but there are layers=1"),
    "heads": (schemes.mimetic(3), r"shape \(4, 4\) is not of heads=3"),
    "two stacks, untold": (
        schemes.sub_ln(encoder_layers=1, decoder_layers=1),
        "neither encoder nor decoder",
    ),
}


@pytest.mark.parametrize("case", LEAF_PROBLEMS)
def test_problems_of_leaves_are_named(case):
    rules, message = LEAF_PROBLEMS[case]
    block = {"attn": {"out": {"kernel": leaf(4, 4)}}, "fc2": {"kernel": leaf(4, 4)}}
    with pytest.raises(jaxinit.PlanError, match=message):
        jaxinit.plan({"blocks": [block, block]}, rules)


def test_every_scheme_is_tested():
    public = {name for name, x in vars(schemes).items() if callable(x)}
    assert public - FRAMEWORKS - {"auto"} == {name.partition(" ")[0] for name in CASES}
