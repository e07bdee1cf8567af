"""What a leaf is for, by the operation in which it meets activations.

Take `jax.nn.gelu(x @ w)`. The draft of `w` has its axes and fans, which `dot_general`
tells. That gelu follows is no part of it: that depends on what else is in the graph.
"""

from collections.abc import Callable
from dataclasses import replace

from jaxinit._roles.meetings.additions import added_use
from jaxinit._roles.meetings.simple_uses import (
    elementwise_use,
    lookup_use,
    statistic_use,
    token_use,
    unknown,
)
from jaxinit._roles.patterns.contractions import convolution_use, dot_use
from jaxinit._roles.patterns.structure import Structure
from jaxinit._roles.reading.facts import CONSTANT, Meeting
from jaxinit._roles.reading.primitives import LISTED, PRODUCTS, SUMS
from jaxinit._roles.reading.values import is_logit, picks_rows
from jaxinit._roles.role import Use

KERNELS = ("kernel", "convolution")
_LEAST_OFFSET = 1e-3  # below it is what keeps numbers from zero


def drafted(structure: Structure, meeting: Meeting) -> Use:
    """What a meeting is by itself."""
    op, opaque = meeting.node.op, meeting.carried.opaque
    if op not in LISTED:
        return unknown(f"behind `{op}`, which is not followed")
    if meeting.carried.is_deviation and op in PRODUCTS:
        return statistic_use(meeting, "its root divides")
    if opaque and not (opaque == CONSTANT and op == "mul"):
        return unknown(f"what meets the activations is behind {opaque}")
    use = _DRAFTS.get(op, _elsewhere)(structure, meeting)
    return _one_of_sum(meeting, use) if use.kind in KERNELS else use


def _one_of_sum(meeting: Meeting, use: Use) -> Use:
    """A kernel, or one of several whose sum is one: all have products in an output."""
    if abs(meeting.carried.offset) > _LEAST_OFFSET:
        return unknown("a number is added to it before its contraction")
    return replace(use, fan_in=use.fan_in * meeting.carried.terms)


def _elsewhere(structure: Structure, meeting: Meeting) -> Use:
    return unknown(f"it meets activations in `{meeting.node.op}`")


def _convolved(structure: Structure, meeting: Meeting) -> Use:
    if meeting.position != 1 or meeting.node.params["batch_group_count"] != 1:
        return unknown("it is what a convolution moves over, not its window")
    return convolution_use(meeting)


def _contracted(structure: Structure, meeting: Meeting) -> Use:
    use = dot_use(meeting)
    total = structure.head_sums.get(meeting.node.index)
    if total is not None and use.kind == "kernel":
        use = total.added_to(use)
    if not picks_rows(meeting.activations):
        return use
    why = structure.flow.choices.unknown.get(meeting.node.index)
    if why:
        return unknown(why)
    reason = "contracted with a one-hot of inputs"
    return replace(use, kind="embedding", fan_in=1, reason=reason)


def _looked_up(structure: Structure, meeting: Meeting) -> Use:
    if meeting.position != 0:
        return _elsewhere(structure, meeting)
    why = structure.flow.choices.unknown.get(meeting.node.index)
    return unknown(why) if why else lookup_use(structure.flow, meeting)


def _put_among(structure: Structure, meeting: Meeting) -> Use:
    others = [v for v in structure.flow.data_of(meeting.node) if v.dtype != bool]
    params = meeting.node.params
    along = params.get("dimension", params.get("axis"))
    if any(map(structure.is_score, others)) or is_logit(meeting.node.output, along):
        return unknown("put among what a softmax takes, beside scores or logits")
    return token_use(meeting, "token", "put among the activations")


def _selected(structure: Structure, meeting: Meeting) -> Use:
    if meeting.position == 0:
        return unknown("it decides between values")
    return _put_among(structure, meeting)


def _begins_loop(structure: Structure, meeting: Meeting) -> Use:
    return token_use(meeting, "token", "what a loop begins with")


def _multiplied(structure: Structure, meeting: Meeting) -> Use:
    return elementwise_use(meeting, "scale", "multiplies activations")


def _divided(structure: Structure, meeting: Meeting) -> Use:
    if meeting.position == 0:
        return _elsewhere(structure, meeting)
    return unknown("activations are divided by it")


_DRAFTS: dict[str, Callable[[Structure, Meeting], Use]] = {
    "conv_general_dilated": _convolved,
    "dot_general": _contracted,
    "ragged_dot_general": _contracted,
    "gather": _looked_up,
    "dynamic_slice": _looked_up,
    "concatenate": _put_among,
    "stack": _put_among,
    "scatter": _put_among,
    "dynamic_update_slice": _put_among,
    "select_n": _selected,
    "carry": _begins_loop,
    "mul": _multiplied,
    "div": _divided,
    **dict.fromkeys(SUMS, added_use),
}
