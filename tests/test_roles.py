"""Roles: what leaves are for, held to truths that were written before any run."""

import copy
import functools
import json
import math
import pickle
import sys
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import nnx
from sampling import sampled
from zoo import MODELS, differences

import jaxinit
import jaxinit.linen
import jaxinit.nnx
from jaxinit import cli
from jaxinit._roles.reading.flow import Flow
from jaxinit._roles.reading.graph import Graph

pytestmark = pytest.mark.unoptimized

X = jax.ShapeDtypeStruct((5, 6), jnp.float32)


def array(*shape, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(shape, dtype)


class _Found:
    """A use, with its sections in the words of the zoo."""

    def __init__(self, use):
        self._use = use

    def __getattr__(self, name):
        if name == "sections":
            sections = self._use.sections
            return [(x.axis, x.blocks, x.part, x.function) for x in sections]
        return getattr(self._use, name)


# Later examinations, and all of Haiku and Equinox, are exhaustive, but for the models
# by which faults were found.
FIRST = ("attention.", "fused", "depth", "linen_", "loops", "mixing", "mlps", "nnx_m")
LATER = ("linen_foreign", "linen_language", "linen_ported", "linen_vision")
FAULTS = {
    "attention_kinds.talking_heads",
    "borrowed_blocks.keys_by_products",
    "borrowed_blocks.weights_with_noise",
    "coders.critic_of_classes",
    "coders.nearest_codes",
    "derivatives.fast_weights_of_a_task",
    "drawn_today.responses_normed",
    "heard_today.missing_values",
    "image_blocks.chosen_kernels",
    "image_blocks.pooled_mixing",
    "image_blocks.selective_kernels",
    "nnx_foreign.scaled_stack",
    "odd_cells.simple_recurrent_unit",
    "otherwise.distances_to_centers",
    "otherwise.some_tokens_deeper",
    "plain_habits.equilibrium",
    "plain_habits.gated_steps",
    "plain_habits.indexed_layers",
    "plain_habits.two_biases",
    "published_nets.quantized_speech",
    "published_others.class_attention",
    "ranked_items.interests_that_evolve",
    "spellings.experts_one_by_one",
    "tongues.gated_heads",
    "words_of_today.sinks_and_gathered_experts",
}
BEYOND = {
    name
    for name in MODELS
    if name not in FAULTS and (not name.startswith(FIRST) or name.startswith(LATER))
}
BEYOND |= {  # what takes longest, and has a smaller model like it
    "linen_images.denoiser",
    "linen_images.bottleneck_resnet",
    "linen_attention.translator",
    "linen_basics.lstm_then_both_ways",
    "linen_attention.vision_transformer",
    "nnx_models.recurrent",
    "linen_images.mobile_net",
}
FANS = {"attention.einsum_kernels", "linen_images.generator", "mixing.experts"}


@pytest.mark.parametrize("name", sampled(MODELS, BEYOND))
def test_every_leaf_is_what_its_truth_says(name):
    model = MODELS[name]()
    found = jaxinit.roles(model.apply, model.params, *model.inputs)
    wrong = {
        path: differences(uses, [_Found(use) for use in found[path].uses])
        for path, uses in model.uses().items()
    }
    assert {path: texts for path, texts in wrong.items() if texts} == {}
    assert set(found) == set(wrong)


# The fans, by numbers.

DRAWS = 64
SIGMAS = 5.0  # of the mean over draws: one kernel in 1.7 million is off by chance


def kernel_outputs(name):
    """For each kernel of a model, a function of keys that returns its outputs.

    Its input is standard normal, and so is the leaf, times a deviation. A convolution
    is done without padding, on an input of three windows more.
    """
    model = MODELS[name]()
    leaves, treedef = jax.tree.flatten(model.params)
    closed = jax.make_jaxpr(
        lambda leaves, inputs: jax.tree.leaves(
            model.apply(jax.tree.unflatten(treedef, leaves), *inputs)
        )
    )(leaves, list(model.inputs))
    flow = Flow(Graph(closed, len(leaves)))
    found = jaxinit.roles(model.apply, model.params, *model.inputs)
    roles, places = list(found.values()), Counter()
    for meeting in flow.meetings:
        node, place = meeting.node, places[meeting.leaf]
        places[meeting.leaf] += 1
        weights = node.inputs[meeting.position]
        alone = len(flow.fact(weights).carried) == 1
        uses = [x for x in roles[meeting.leaf].uses if x.kind in KERNELS]
        if node.op in CONTRACTIONS and alone and uses and not meeting.carried.opaque:
            same = len({use.fan_in for use in uses}) == 1
            fan_in = uses[0 if same else place].fan_in
            (factor,) = {meeting.carried.multiplier}
            outputs = _outputs(flow, meeting)
            yield roles[meeting.leaf].path, 1 / (factor * math.sqrt(fan_in)), outputs


KERNELS = ("kernel", "convolution")
CONTRACTIONS = ("dot_general", "conv_general_dilated")


def _outputs(flow, meeting):
    node, side = meeting.node, meeting.position
    leaf = flow.graph.leaves[meeting.leaf]
    data = node.inputs[1 - side]
    shape, params = data.shape, dict(node.params)
    if node.op == "conv_general_dilated":
        numbers = params["dimension_numbers"]
        window = [node.inputs[1].shape[i] for i in numbers.rhs_spec[2:]]
        reach = [3 * n * d for n, d in zip(window, params["rhs_dilation"], strict=True)]
        spatial = [math.lcm(n, *params["lhs_dilation"]) for n in reach]
        shape = [*data.shape]
        for axis, size in zip(numbers.lhs_spec[2:], spatial, strict=True):
            shape[axis] = size
        params["padding"] = [(0, 0)] * len(window)

    def outputs(drawn, inputs):
        weights = _evaluated(flow, node.inputs[side], {leaf.index: drawn})
        operands = [inputs, weights] if side else [weights, inputs]
        params["preferred_element_type"] = None
        return node.primitive.bind(*operands, **params)

    return outputs, leaf.shape, tuple(shape)


def _evaluated(flow, value, known):
    """A value that is computed from one leaf, in the first round of every loop."""
    if value.index not in known:
        node = value.node
        if node is None:
            return jnp.asarray(value.constant)
        inputs = [_evaluated(flow, x, known) for x in node.inputs]
        if node.op == "each":
            known[value.index] = inputs[0][0]
        elif node.primitive is None:
            known[value.index] = inputs[0]
        else:
            outputs = node.primitive.bind(*inputs, **node.params)
            outputs = outputs if node.primitive.multiple_results else [outputs]
            for made, output in zip(node.outputs, outputs, strict=True):
                known[made.index] = output
    return known[value.index]


def deviations(name, factor=1.0):
    """How far from one the mean square of each kernel's outputs is, in sigmas."""
    kernels = list(kernel_outputs(name))
    rng = np.random.default_rng(0)
    drawn = [
        [rng.standard_normal((DRAWS, *shape), np.float32) for shape in shapes]
        for *_, (_, *shapes) in kernels
    ]

    @jax.jit
    @jax.vmap
    def squares(drawn):
        return [
            jnp.mean(jnp.square(outputs(factor * stddev * weights, inputs)))
            for (_, stddev, (outputs, *_)), (weights, inputs) in zip(
                kernels, drawn, strict=True
            )
        ]

    return {
        path: (np.mean(found) - 1) / (np.std(found) / math.sqrt(DRAWS))
        for (path, *_), found in zip(kernels, squares(drawn), strict=True)
    }


# Some without a known kernel, those whose kernels have different fans in their uses, a
# window of 3 at a stride of 2, of whose outputs here one phase has more than the other,
# and heads or taps that are summed behind their contraction.
NO_FANS = {
    "coders.tied_halves",
    "competitions.waves_for_series",
    "coursework.vectors_of_words",  # no kernel
    "derivatives.energy_and_forces",
    "derivatives.fast_weights_of_a_task",
    "derivatives.hamiltonian",
    "drawn_images.translated_photos",
    "dreams_and_features.magnitudes_kept",  # no kernel that is known as one
    "fields.field_aware_machine",
    "handmade_words.one_flat_vector",  # no kernel that is known as one
    "masks_and_frames.masked_orders",  # no kernel that is known as one
    "plain_habits.sliced_rows",
    "spellings.heads_by_vmap",
    "words_by_pairs.words_and_noise",  # no kernel
}
OF_FANS = sorted(set(MODELS) - NO_FANS)


@pytest.mark.parametrize("name", sampled(OF_FANS, set(OF_FANS) - FANS))
def test_fans_give_outputs_of_unit_variance(name):
    found = deviations(name)
    assert {path: x for path, x in found.items() if abs(x) > SIGMAS} == {}


def test_other_fans_do_not():
    found = deviations("attention.einsum_kernels", 2.0)
    assert found
    assert all(x > SIGMAS for x in found.values())


# What users see.


def layer(params, x):
    return jax.nn.gelu(x @ params["up"] + params["b"]) @ params["down"]


LAYER = {"b": array(24), "down": array(24, 6), "up": array(6, 24)}


def test_fans_of_windows_in_an_ensemble_are_those_of_one_of_them():
    """Which jax makes more groups of: three windows of two groups, one of six."""

    @jax.vmap
    def apply(window, x):
        axes = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(
            x, window, (1, 1), "SAME", dimension_numbers=axes, feature_group_count=2
        )

    found = jaxinit.roles(
        lambda p, x: apply(p["w"], x), {"w": array(3, 3, 3, 2, 6)}, array(3, 1, 8, 8, 4)
    )
    (use,) = found["w"].uses
    assert (use.fan_in, use.fan_out, use.groups) == (9 * 2, 9 * 6 / 2, 2)
    assert (use.batch_axis, use.in_axis, use.out_axis) == ((0,), (3,), (4,))


def test_roles_are_a_mapping_that_prints_itself():
    found = jaxinit.roles(layer, LAYER, X)
    assert list(found) == ["b", "down", "up"]
    assert len(found) == 3
    assert repr(found) == "<Roles of 3 leaves>"
    assert found == jaxinit.roles(layer, LAYER, X)
    assert hash(found) == hash(jaxinit.roles(layer, LAYER, X))
    text = str(found).splitlines()
    assert text[0].split() == ["leaf", "shape", "kind", "part", "fans", "why"]
    assert text[3].startswith("up    6x24   kernel        6, 24  contracted with")
    assert text[3].endswith("followed by gelu")
    assert "<td" in found._repr_html_()
    with pytest.raises(KeyError, match="no leaf has the path 'w'; there are b, down"):
        found["w"]


def test_roles_survive_json_and_pickling():
    found = jaxinit.roles(layer, LAYER, X)
    tree = json.loads(json.dumps(found.as_json(), allow_nan=False))
    assert [role["kind"] for role in tree["roles"]] == ["bias", "kernel", "kernel"]
    assert tree["roles"][2]["uses"][0]["in_axis"] == [0]
    assert pickle.loads(pickle.dumps(found)) == found
    assert copy.deepcopy(found["up"]) == found["up"]


def test_properties_of_a_single_use():
    def tied(params, tokens):
        return params["table"][tokens] @ params["table"].T

    tokens = array(3, dtype=jnp.int32)
    role = jaxinit.roles(tied, {"table": array(11, 6)}, tokens)["table"]
    assert role.kind == "embedding"
    assert role.tied
    assert role.recurrent is False
    with pytest.raises(ValueError, match="no single fan_in: its 2 uses have 1 and 6"):
        _ = role.fan_in
    with pytest.raises(AttributeError, match="no attribute 'fanin'"):
        _ = role.fanin
    unused = jaxinit.roles(lambda p, x: x, {"w": array(2)}, X)["w"]
    assert (unused.kind, unused.uses) == ("unused", ())
    with pytest.raises(ValueError, match="the output does not depend on it"):
        _ = unused.fan_in


def test_what_is_behind_an_unlisted_primitive_is_unknown_and_named():
    def apply(p, x):
        w = jnp.linalg.qr(p["w"])[0]
        h = jax.pure_callback(np.sin, X, x @ p["before"])
        return h @ w + jnp.linalg.inv(p["inside"])[0, 0]

    shapes = {"before": array(6, 6), "inside": array(2, 2), "w": array(6, 6)}
    found = jaxinit.roles(apply, shapes, X)
    assert found["w"].kind == found["inside"].kind == "unknown"
    assert "which is not followed" in found["w"].reason
    assert found["before"].kind == "kernel"
    assert found["before"].function is None
    assert "what follows is behind `pure_callback`" in found["before"].reason


def test_what_is_told_to_every_layer_is_no_residual_stream():
    """A mask of the scores, and a vector of the time, which enter every layer."""

    def apply(p, x, mask, time):
        told = (time @ p["time"])[:, None]
        for w in p["layers"]:
            q, k, v = (x @ w[name] for name in "qkv")
            scores = jnp.einsum("btd,bsd->bts", q, k) + mask
            x = jnp.einsum("bts,bsd->btd", jax.nn.softmax(scores), v) @ w["o"] + told
        return x

    layer = {name: array(6, 6) for name in "qkvo"}
    shapes = {"time": array(7, 6), "layers": [layer] * 3}
    inputs = array(2, 5, 6), array(2, 5, 5), array(2, 7)
    found = jaxinit.roles(apply, shapes, *inputs)
    assert {role.residual for role in found.values()} == {None}
    assert found["layers/2/q"].part == "query"


def test_a_loop_over_groups_of_layers_is_a_loop_over_layers():
    """Scans in scans, as for checkpoints of groups; none is over experts."""

    def step(x, w):
        return x + jnp.tanh(x @ w["up"]) @ w["down"], None

    def group(x, layers):
        return jax.lax.scan(step, x, layers)[0], None

    def apply(p, x):
        return jax.lax.scan(group, x, p["layers"])[0] @ p["head"]

    layers = {"up": array(3, 4, 6, 8), "down": array(3, 4, 8, 6)}
    found = jaxinit.roles(apply, {"layers": layers, "head": array(6, 2)}, array(5, 6))
    (use,) = found["layers/down"].uses
    assert (use.stack_axis, use.batch_axis, use.residual) == ((0, 1), (), (0, 12))


def test_what_is_no_scale_is_not_called_one():
    def summed(p, x):
        return (x[:, :, None] * p["up"]).sum(1) @ p["down"]

    def added(p, x):
        h = sum(x[:, i : i + 1] * p["up"][i] for i in range(6))
        return h @ p["down"]

    for apply in (summed, added):
        found = jaxinit.roles(apply, LAYER, X)
        assert {use.kind for use in found["up"].uses} == {"unknown"}
        assert "products with activations are summed" in found["up"].reason
        assert found["down"].kind == "kernel"


@pytest.mark.parametrize(
    ("made", "kind", "multiplier"),
    [
        (lambda w: w + w, "kernel", 2.0),
        (lambda w: w - 0.25 * w, "kernel", 0.75),
        (lambda w: w - w.mean(0), "kernel", 1.0),
        (lambda w: w + jax.lax.stop_gradient(jnp.round(9 * w) / 9 - w), "kernel", 1.0),
        (lambda w: jax.lax.stop_gradient(jnp.floor(w / 2) * 2 - w) + w, "kernel", 1.0),
        (lambda w: w + jax.lax.stop_gradient(jnp.round(w) - w), "unknown", None),
        (lambda w: w + jax.lax.stop_gradient(jnp.sign(w) - w), "unknown", None),
        (lambda w: w + 3 * jnp.sin(w), "unknown", None),
        (lambda w: w - jnp.tanh(w), "unknown", None),
    ],
)
def test_a_leaf_summed_with_a_function_of_itself(made, kind, multiplier):
    role = jaxinit.roles(lambda p, x: x @ made(p["w"]), {"w": array(6, 4)}, X)["w"]
    assert role.kind == kind
    if kind == "kernel":
        assert role.multiplier == multiplier
    else:
        assert "a sum with another function of it" in role.reason


def test_only_the_root_of_its_own_fan_in_is_part_of_a_kernel():
    """Where outputs are divided, the kernel makes up for it, or leaves it be."""

    def apply(by, p, x):
        return jax.nn.relu(x @ p["w"] / by) @ p["v"]

    def variance(by):
        shapes = {"v": array(24, 3), "w": array(6, 24)}
        return jaxinit.roles(functools.partial(apply, by), shapes, X)["w"].variance

    assert variance(math.sqrt(6)) == pytest.approx(1, rel=1e-3)
    assert variance(3.0) == pytest.approx(1 / 6, rel=1e-3)


def test_leaves_that_meet_no_input_are_not_unused():
    closed = jnp.ones((5, 6))
    for inputs in ((), ([[1.0] * 6] * 5,)):
        found = jaxinit.roles(lambda p, *_: layer(p, closed), LAYER, *inputs)
        assert {role.kind for role in found.values()} == {"unknown"}
        assert "meets no input" in found["up"].reason


def test_nothing_is_compiled_or_computed():
    events = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda name, *_, **__: events.append(name)
    )
    try:
        jaxinit.roles(layer, LAYER, X)
        assert not [name for name in events if "backend_compile" in name]
        jax.jit(lambda x: x + 3.25)(jnp.ones(7))
        assert [name for name in events if "backend_compile" in name]
    finally:
        jax.monitoring.clear_event_listeners()


def test_walks_do_not_grow_faster_than_the_model():
    """Calls of functions of this package, for twice the depth: at most 2.3 times."""

    def apply(params, x):
        for w in params:
            x = x + jax.nn.gelu(x @ w["up"]) @ w["down"]
        return x

    def calls(depth):
        shapes = [{"up": array(6, 24), "down": array(24, 6)} for _ in range(depth)]
        count = 0

        def profile(frame, event, _):
            nonlocal count
            count += event == "call" and "/_roles/" in frame.f_code.co_filename

        sys.setprofile(profile)
        try:
            jaxinit.roles(apply, shapes, X)
        finally:
            sys.setprofile(None)
        return count

    assert calls(80) < 2.3 * calls(40)


def test_notes_say_what_inputs_may_hide():
    found = jaxinit.roles(layer, LAYER, array(1, 6))
    assert "float32[1,6]: an axis of length 1 may hide" in found.notes[0]
    assert found.notes[0] in str(found)
    one = jnp.ones((6, 6))
    found = jaxinit.roles(lambda p, x: x @ p["a"] @ p["b"], {"a": one, "b": one}, X)
    assert found.notes == ("a and b are the same array.",)


def test_refused():
    with pytest.raises(TypeError, match=r"apply must be a function .* got 3"):
        jaxinit.roles(3, LAYER, X)
    with pytest.raises(TypeError, match="params must have at least one array"):
        jaxinit.roles(layer, {}, X)
    with pytest.raises(TypeError, match="dot_general requires") as error:
        jaxinit.roles(layer, LAYER, array(5, 7))
    notes = " ".join(error.value.__notes__)
    assert "with 3 arrays in params and the inputs float32[5,7]." in notes
    with pytest.raises(TypeError, match=r"model must be a flax\.linen\.Module, got"):
        jaxinit.linen.roles(layer, X)
    with pytest.raises(TypeError, match=r"model must be an nnx\.Module, or a function"):
        jaxinit.nnx.roles(3, X)


def test_linen_and_nnx_agree():
    class Linen(nn.Module):
        @nn.compact
        def __call__(self, x, scale=1.0):
            return scale * nn.Dense(3)(nn.tanh(nn.Dense(4)(x)))

        @nn.compact
        def half(self, x):
            return nn.Dense(4, name="Dense_0")(x)

    class Nnx(nnx.Module):
        def __init__(self, rngs):
            self.a = nnx.Linear(6, 4, rngs=rngs)
            self.b = nnx.Linear(4, 3, rngs=rngs)

        def __call__(self, x):
            return self.b(jnp.tanh(self.a(x)))

    theirs = jaxinit.nnx.roles(Nnx, X)
    for made in (Nnx(nnx.Rngs(0)), lambda rngs: Nnx(rngs)):
        assert jaxinit.nnx.roles(made, X) == theirs
    ours = jaxinit.linen.roles(Linen(), X)
    for path, role in ours.items():
        # Flax numbers the outer Dense first
        other = theirs[path.replace("Dense_0", "b").replace("Dense_1", "a")]
        assert (role.kind, role.shape) == (other.kind, other.shape)
        assert [(x.fan_in, x.function, x.head) for x in role.uses] == [
            (x.fan_in, x.function, x.head) for x in other.uses
        ]
    assert list(jaxinit.linen.roles(Linen(), X, method="half")) == [
        "Dense_0/bias",
        "Dense_0/kernel",
    ]
    scaled = jaxinit.linen.roles(Linen(), X, scale=0.5)
    assert scaled["Dense_0/kernel"].multiplier == 0.5


MODULE = """
import flax.linen as nn, flax.nnx as nnx, jax.numpy as jnp

class Net(nn.Module):
    width: int = 3
    @nn.compact
    def __call__(self, x):
        print("hello")
        return nn.Dense(self.width)(x)

class Small(nnx.Module):
    def __init__(self, rngs):
        self.a = nnx.Linear(6, 4, rngs=rngs)
    def __call__(self, x):
        return self.a(x)

def draw(key):
    return key
"""


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    (tmp_path / "models_of_roles.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)

    def run(*args):
        status = cli.main(["roles", *args])
        return status, *capsys.readouterr()

    return run


def test_command_line(command, monkeypatch):
    name = "models_of_roles"
    status, out, err = command(
        f"{name}:Net", "--input", "2x6:float32", "--arg", "width=5"
    )
    assert (status, "hello" in out) == (0, False)
    assert "Dense_0/kernel  6x5    kernel  head  6, 5" in out
    status, out, err = command(f"{name}:Small", "--input", "2x6:float32", "--json")
    assert json.loads(out)["roles"][1]["path"] == "a/kernel"
    for args, message in (
        (
            (f"{name}:draw", "--input", "2x6:float32"),
            "draw is no model that can be run",
        ),
        ((f"{name}:Net", "--input", "2x6"), "is not of the form SHAPE:DTYPE"),
        ((f"{name}:Net", "--input", "2x6:float32", "--input", "2:int32"), "2 --input"),
        ((f"{name}:Small", "--input", "2x5:float32"), "tracing models_of_roles:Small"),
    ):
        status, out, err = command(*args)
        assert (status > 0, out) == (True, ""), args
        assert message in err
        assert err.count("\n") == 1, err
