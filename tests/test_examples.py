"""The examples: published sizes, their initialisation, and that they run."""

import functools
import math
import re
import runpy
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import nnx
from sampling import sampled

from jaxinit import nnx as door
from jaxinit._compile.jit import jit

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from examples import (  # noqa: E402 - they are not installed
    batch_norm,
    efficientnet,
    gpt2,
    gpt2_nnx,
    memory,
    mlp,
    resnet,
    signal_depth,
    training,
    vit,
)

pytestmark = pytest.mark.unoptimized

KEY = jax.random.key(0)
GPT2_SIZES = {
    "small": 124_439_808,
    "medium": 354_823_168,
    "large": 774_030_080,
    "xl": 1_557_611_200,
}
RESNET_SIZES = {
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "resnet101": 44_549_160,
    "resnet152": 60_192_808,
}
TINY = gpt2.GPT2(depth=2, width=32, heads=4, vocabulary=64, context=16)
TINY_RESNET = resnet.ResNet((1, 2), resnet.Bottleneck, classes=10, width=8)


def tiny_nnx(rngs):
    return gpt2_nnx.GPT2(2, 32, 4, vocabulary=64, context=16, rngs=rngs)


def inputs(*shape) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def count(tree) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


@pytest.mark.parametrize("size", sampled(GPT2_SIZES, ["medium", "large", "xl"]))
def test_gpt2_has_the_published_size(size):
    assert count(jax.eval_shape(getattr(gpt2, size), KEY)) == GPT2_SIZES[size]


@pytest.mark.parametrize("size", sampled(["small", "medium"], ["medium"]))
def test_gpt2_in_nnx_has_the_published_size(size):
    init = door.collections(getattr(gpt2_nnx, size))
    assert count(jax.eval_shape(init, KEY)) == GPT2_SIZES[size]


@pytest.mark.sample(1)
@pytest.mark.parametrize(
    "name", sampled(RESNET_SIZES, ["resnet34", "resnet101", "resnet152"])
)
def test_resnet_has_the_published_size(name):
    variables = jax.eval_shape(getattr(resnet, name), KEY)
    assert count(variables["params"]) == RESNET_SIZES[name]


@functools.cache
def gpt2_params():
    return jit(functools.partial(gpt2.init, TINY))(KEY)


@functools.cache
def resnet_variables():
    return jit(functools.partial(resnet.init, TINY_RESNET))(KEY)


@jax.jit
def logits_of(params, tokens):
    return TINY.apply({"params": params}, tokens)


@pytest.mark.exhaustive
def test_gpt2_is_causal():
    tokens = np.arange(12, dtype=np.int32).reshape(1, 12)
    changed = np.where(tokens == 7, 63, tokens).astype(np.int32)
    a, b = (np.asarray(logits_of(gpt2_params(), t)) for t in (tokens, changed))
    assert a.shape == (1, 12, 64)
    assert np.isfinite(a).all()
    np.testing.assert_array_equal(a[:, :7], b[:, :7])
    assert (a[:, 7:] != b[:, 7:]).any(axis=-1).all()


@pytest.mark.exhaustive
def test_gpt2_in_nnx_computes_what_linen_computes():
    model = door.create(tiny_nnx, 0)
    tokens = np.arange(12, dtype=np.int32).reshape(1, 12)
    tree = door.collections(tiny_nnx)(KEY)["params"]
    nnx.update(model, tree)
    blocks = tree.pop("blocks")
    params = tree | {f"blocks_{i}": block for i, block in blocks.items()}
    assert jax.tree.structure(params) == jax.tree.structure(gpt2_params())
    logits = nnx.jit(lambda model: model(tokens))(model)
    np.testing.assert_allclose(logits, logits_of(params, tokens), atol=1e-6)


def assert_std(leaves, expected: float):
    """The sample deviation of normal draws, in its standard errors.

    At six of them a true law fails once in 5e8; the smallest case here has 1024 draws
    and so sees a factor of 0.87 or less.
    """
    values = np.concatenate([np.ravel(leaf) for leaf in leaves])
    error = 1 / math.sqrt(2 * values.size)
    assert abs(values.std() / expected - 1) < 6 * error


@pytest.mark.exhaustive
def test_gpt2_initialisation():
    params = jax.device_get(gpt2_params())
    blocks = [params[f"blocks_{i}"] for i in range(2)]
    inner = [b["attn"]["qkv"]["kernel"] for b in blocks]
    inner += [b["mlp"]["fc"]["kernel"] for b in blocks]
    residual = [b[part]["proj"]["kernel"] for b in blocks for part in ("attn", "mlp")]
    assert_std(inner, 0.02)
    assert_std(residual, 0.02 / math.sqrt(2 * 2))
    assert_std([params["wte"]["embedding"]], 0.02)
    assert_std([params["wpe"]["embedding"]], 0.01)
    with pytest.raises(AssertionError):
        assert_std(residual, 0.02)
    leaves = jax.tree.leaves_with_path(params)
    assert all((x == 0).all() for path, x in leaves if path[-1].key == "bias")
    assert all((x == 1).all() for path, x in leaves if path[-1].key == "scale")


@pytest.mark.exhaustive
def test_resnet_initialisation():
    params = jax.device_get(resnet_variables()["params"])
    assert set(params) == {"conv1", "bn1", "layer1_0", "layer2_0", "layer2_1", "fc"}
    blocks = [params[name] for name in ("layer1_0", "layer2_0", "layer2_1")]
    assert all((block["bn3"]["scale"] == 0).all() for block in blocks)
    assert all((block["bn2"]["scale"] == 1).all() for block in blocks)
    kernel = params["layer2_1"]["conv2"]["kernel"]
    assert kernel.shape == (3, 3, 16, 16)
    assert_std([kernel], math.sqrt(2 / (9 * 16)))
    assert np.abs(kernel).max() > 2.5 * kernel.std()  # not truncated at two


@pytest.mark.exhaustive
def test_resnet_forward_and_running_moments():
    variables = resnet_variables()
    images = inputs(2, 32, 32, 3)
    train = functools.partial(TINY_RESNET.apply, train=True, mutable=["batch_stats"])
    logits, updates = jax.jit(train)(variables, images)
    assert logits.shape == (2, 10)
    assert np.isfinite(logits).all()
    before, after = jax.device_get((variables["batch_stats"], updates["batch_stats"]))
    assert jax.tree.structure(before) == jax.tree.structure(after)
    assert (before["bn1"]["mean"] != after["bn1"]["mean"]).all()


def test_resnet_blocks_start_as_the_identity():
    variables = resnet_variables()
    block = resnet.Bottleneck(16)
    x = np.maximum(inputs(2, 8, 8, 64), 0)
    inner = {part: tree["layer2_1"] for part, tree in variables.items()}
    np.testing.assert_array_equal(jax.jit(block.apply)(inner, x), x)


@pytest.mark.exhaustive
def test_stride_is_in_the_middle_convolution():
    """Version 1.5: with the stride in the 1x1, pixels in odd places would be unseen."""
    block = resnet.Bottleneck(4, stride=2)
    x = inputs(1, 8, 8, 16)
    variables = jit(block.init)(KEY, x)
    variables["params"]["bn3"]["scale"] = np.ones(16, np.float32)
    used = np.asarray(jax.jit(jax.grad(lambda x: block.apply(variables, x).sum()))(x))
    assert (used[:, 1::2, 1::2] != 0).any()


SCRIPTS = {
    "gpt2": (gpt2, {"SMALL": TINY, "small": lambda key: gpt2.init(TINY, key)}),
    "gpt2_nnx": (gpt2_nnx, {"small": tiny_nnx}),
}


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", sampled(SCRIPTS, ["gpt2_nnx"]))
def test_example_prints_what_it_made(name, monkeypatch, capsys):
    module, tiny = SCRIPTS[name]
    for attribute, value in tiny.items():
        monkeypatch.setattr(module, attribute, value)
    module.main()
    assert "parameters, logits" in capsys.readouterr().out


TAUGHT = {
    "tanh": {
        "tanh zeros": "symmetric",
        "tanh constant(0.004)": "symmetric",
        "tanh normal(0.01)": "vanishing",
        "tanh normal(1)": "saturated",
        "tanh glorot_normal": "healthy",
    },
    "relu": {
        "relu normal(0.01)": "vanishing",
        "relu glorot_normal": "vanishing",
        "relu he_normal": "healthy",
    },
}


@pytest.mark.exhaustive
@pytest.mark.parametrize("topic", TAUGHT)
def test_signal_depth_draws_what_is_taught(topic, tmp_path, monkeypatch, capsys):
    """Those topics that the pages show; test_signal_facts has all of them."""
    monkeypatch.setattr(signal_depth, "TOPICS", (getattr(signal_depth, topic),))
    monkeypatch.setattr(signal_depth, "BATCH", 64)
    signal_depth.main(tmp_path / "new")
    verdicts = dict(re.findall(r"^(.+?): (\w+)", capsys.readouterr().out, re.MULTILINE))
    assert verdicts == TAUGHT[topic]
    # those of the pages are drawn by this script
    assert (signal_depth.PICTURES / f"{topic}.png").exists()
    assert (tmp_path / "new" / f"{topic}.png").stat().st_size > 10_000


LEARNERS = ("batch_norm", "efficientnet", "memory", "mlp", "resnet", "vit")


@pytest.mark.parametrize("name", [*SCRIPTS, *LEARNERS, "signal_depth"])
def test_example_is_a_script(name):
    """It can be loaded by its file name, from anywhere."""
    assert "main" in runpy.run_path(str(ROOT / "examples" / f"{name}.py"))


COUNTED = {
    **{f"efficientnet {size}": (efficientnet, size) for size in efficientnet.SIZES},
    **{f"vit {size}": (vit, size) for size in vit.SIZES},
    **{f"resnet {size}": (resnet, size) for size in RESNET_SIZES},
}
FEW = ["vit b16", "resnet resnet18"]


@pytest.mark.parametrize("case", sampled(COUNTED, [x for x in COUNTED if x not in FEW]))
def test_a_published_size_is_counted(case, capsys):
    """Nothing is drawn; another number is an error."""
    module, size = COUNTED[case]
    module.main(["--count", size])
    assert f"{module.PUBLISHED[size]:,} parameters" in capsys.readouterr().out


def test_another_number_than_the_published_one_is_an_error():
    assert efficientnet.PUBLISHED["b0"] == 5_288_548
    assert vit.PUBLISHED["b16"] == 86_567_656
    assert resnet.PUBLISHED == RESNET_SIZES
    shapes = jax.ShapeDtypeStruct((3, 4), "float32")
    with pytest.raises(ValueError, match="tiny has 12 parameters, and 13 were publ"):
        training.published("tiny", shapes, 13)


@pytest.mark.sample(1)
@pytest.mark.parametrize("name", sampled(mlp.STARTS, ["constant(0.5)"]))
def test_xor(name):
    """From zeros nothing but the last bias has a gradient, and that is zero here too.

    From equal numbers all units stay equal, and one ReLU tells at most three points of
    four right. From He's law all of eight seeds learn, to a loss of 0.003 or so.
    """
    losses, accuracies = mlp.on_xor(mlp.STARTS[name])
    assert losses.shape == (8, 500)
    if name == "zeros":
        np.testing.assert_allclose(losses, math.log(2), rtol=1e-6)
        assert (accuracies == 0.5).all()
    elif name == "he_normal":
        assert (losses[:, -1] < 0.1).all()
        assert (accuracies == 1).all()
    else:
        assert (losses[:, -1] > 0.4).all()
        assert (accuracies <= 0.75).all()


# A guess tells 10 percent of 360 digits right, 20 percent with a chance below 1e-7.
CHANCE = 0.2
MODELS = {
    "resnet": lambda key: resnet.learn(resnet.SMALL, 60, key),
    "efficientnet": lambda key: efficientnet.learn(efficientnet.small, 60, key),
    "vit": lambda key: vit.learn(vit.small, 100, key),
}


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", MODELS)
def test_model_learns_digits(name):
    learned = MODELS[name](KEY)
    assert np.isfinite(learned.losses).all()
    assert learned.before < CHANCE < 0.5 < learned.after


@pytest.mark.exhaustive
@pytest.mark.parametrize("activation", mlp.ACTIVATIONS)
def test_perceptron_learns_digits(activation):
    _, accuracy = mlp.on_digits(activation, 300, KEY)
    assert accuracy > 0.5


@pytest.mark.exhaustive
def test_batch_norm_nearly_closes_the_gap():
    """Accuracies of N(0, 0.01), Glorot and He, in this order; measured 9, 89, 94 %.

    With batch norm those of all three were 90 % or more after as many steps.
    """
    _, plain = batch_norm.learn(batch_norm.plain, 200, KEY)
    _, normed = batch_norm.learn(batch_norm.normed, 200, KEY)
    assert plain[0] < CHANCE < 0.8 < plain[2]
    assert normed.min() > 0.8


@pytest.mark.exhaustive
@pytest.mark.parametrize("cell", memory.CELLS)
def test_orthogonal_kernels_of_the_state_remember_better(cell):
    """Over eight paired seeds, by two standard errors of the mean difference or more.

    Measured: 2.9 of them for the LSTM, 7 for the GRU.
    """
    losses = memory.learn(cell, 300)
    gain = memory.late(losses["glorot_uniform"]) - memory.late(losses["orthogonal"])
    assert gain.shape == (8,)
    assert gain.mean() > 2 * gain.std(ddof=1) / math.sqrt(8)
