"""Roles: what leaves are for, held to truths that were written before any run."""

import json
import math

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
from jaxinit._roles.flow import Flow
from jaxinit._roles.graph import Graph

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


@pytest.mark.parametrize("name", MODELS)
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
    roles = list(found.values())
    for meeting in flow.meetings:
        node = meeting.node
        weights = node.inputs[meeting.position]
        alone = len(flow.fact(weights).carried) == 1
        uses = [x for x in roles[meeting.leaf].uses if x.kind in KERNELS]
        if node.op in CONTRACTIONS and alone and uses and not meeting.carried.opaque:
            (fan_in,) = {use.fan_in for use in uses}
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


@pytest.mark.parametrize("name", MODELS)
def test_fans_give_outputs_of_unit_variance(name):
    found = deviations(name)
    assert {path: x for path, x in found.items() if abs(x) > SIGMAS} == {}


def test_other_fans_do_not():
    found = deviations("attention.einsum_kernels", 2.0)
    assert found
    assert all(x > SIGMAS for x in found.values())
