"""Leaf programs: the part of a graph that one output needs, or a few that share work.

A function of a whole model is one large program, which XLA compiles for minutes though
most of its layers are alike. It is cut into one program for each output. Take

    def init(key):
        a, b = jax.random.split(key)
        uniform = jax.random.uniform
        return jnp.zeros(4), uniform(a, (8, 4)), uniform(b, (8, 4))

    outputs  inputs    nodes
    0                  broadcast_in_dim
    1        Keys(1)   random_bits, shift_right_logical, or, ... add, max
    2        Keys(2)   the same

Keys and arguments are inputs, so that the last two have equal signatures and share one
executable. Literals stay in the program: XLA folds constants, and may round differently
if they become arguments. Outputs that share a large node, such as both factors of a
QR decomposition, are computed by one program.

What holds:
- Programs are equal if their equations are, up to the names of variables.
- Each output is made by exactly one program. One of kind WHOLE (see `exact`) is put
  together with all that share floats with it, or with all of this kind into one
  `WholeProgram`, whichever is compiled sooner.
- Equations that compute the same are one in the eyes of XLA, so of `exact` too: `same`
  gives for each node the first equal one.
"""

import functools
import itertools
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import eval_jaxpr
from jax.extend import core
from jax.interpreters.partial_eval import dce_jaxpr

from jaxinit._compile.constants import filled, makes_floats
from jaxinit._compile.descriptions import Descriptions, Same, stand_in
from jaxinit._compile.exact import Kind, kind_of
from jaxinit._compile.graph import Graph
from jaxinit._compile.values import (
    Argument,
    Constant,
    Keys,
    Literal,
    Node,
    Output,
    Value,
)
from jaxinit._kernel.fuse import abstract, fused_bind, plain_bind

# Outputs that share a node larger than this are computed together.
_SHARED_SIZE = 4096

# A compilation costs as much as so many equations, whatever it compiles.
_OVERHEAD = 8


@dataclass(frozen=True, eq=False, repr=False)
class Program:
    """Equations from inputs to some outputs.

    Attributes:
        outputs: the values it computes.
        nodes: its equations, in order.
        inputs: keys and arguments, in order of first use.
        signature: equal for programs that compute the same from their inputs.
        leaves: the positions of its outputs among the flat outputs of the function.
        kind: how it may be compiled and keep its bits.
    """

    outputs: tuple[Value, ...]
    nodes: tuple[Node, ...]
    inputs: tuple[Keys | Argument, ...]
    signature: Hashable
    leaves: tuple[int, ...]
    kind: Kind
    __name__ = "jaxinit_program"  # in logs and profiles

    @property
    def holds_arrays(self) -> bool:
        """Whether the function closed over arrays that are written into it."""
        values = itertools.chain(self.outputs, *(node.inputs for node in self.nodes))
        return any(isinstance(value, Constant) for value in values)

    @functools.cached_property
    def fill(self) -> np.ndarray | None:
        """The array that it makes, if that is small and one literal throughout."""
        is_one = len(self.outputs) == 1 and self.is_strongly_typed
        return filled(self.outputs[0]) if is_one and not self.inputs else None

    @functools.cached_property
    def is_strongly_typed(self) -> bool:
        """Whether all outputs are numbers of a fixed dtype: no keys, no weak types."""
        computed = [value for value in self.outputs if isinstance(value, Output)]
        avals = [abstract(v.node.eqn.outvars[v.position]) for v in computed]
        return len(avals) == len(self.outputs) and not any(
            getattr(aval, "weak_type", False)
            or jnp.issubdtype(aval.dtype, jax.dtypes.prng_key)
            for aval in avals
        )

    def __call__(self, *inputs: Any) -> list[Any]:
        """The outputs, given the words of keys and the values of arguments."""
        names = (_input_name(value) for value in self.inputs)
        known = dict(zip(names, inputs, strict=True))
        env: dict[int, list[Any]] = {}

        def read(value: Value) -> Any:
            match value:
                case Output(node, position):
                    return env[node.index][position]
                case Keys(raw=False):
                    words = known[_input_name(value)]
                    return jax.random.wrap_key_data(words, impl="threefry2x32")
                case Keys() | Argument():
                    return known[_input_name(value)]
                case Constant(constant):
                    return constant
                case Literal(atom):
                    return atom.val

        bind = fused_bind if self.kind is Kind.FUSED else plain_bind
        for node in self.nodes:
            env[node.index] = bind(node.eqn, [read(value) for value in node.inputs])
        return [read(value) for value in self.outputs]


class WholeProgram:
    """The function itself, without the outputs that other programs make.

    It has the attributes of `Program` that are needed to run one.
    """

    kind = Kind.WHOLE
    holds_arrays = True
    is_strongly_typed = False
    fill = None
    __name__ = "jaxinit_whole"

    def __init__(self, closed: core.ClosedJaxpr, leaves: Sequence[int]):
        is_wanted = [leaf in leaves for leaf in range(len(closed.jaxpr.outvars))]
        self._jaxpr, is_used = dce_jaxpr(closed.jaxpr, is_wanted)
        self._consts = closed.consts
        self.leaves = tuple(leaves)
        self.inputs = tuple(Argument(i) for i, used in enumerate(is_used) if used)
        self.signature = Same(self)

    def __call__(self, *inputs: Any) -> list[Any]:
        """The outputs, given the values of the arguments."""
        return eval_jaxpr(self._jaxpr, self._consts, *inputs)


AnyProgram = Program | WholeProgram


def leaf_programs(graph: Graph, closed: core.ClosedJaxpr) -> list[AnyProgram]:
    """The programs of all outputs; outputs that share large work have one program.

    Outputs that nothing computes, such as arguments and keys, are copied by one program
    of their own, because what `jax.jit` returns shares no buffer with its arguments.
    """
    outputs = dict(enumerate(graph.outputs))
    computed = [leaf for leaf, x in outputs.items() if isinstance(x, Output)]
    copied = [leaf for leaf, x in outputs.items() if not isinstance(x, Output)]
    slices = {leaf: _slice([value]) for leaf, value in outputs.items()}
    groups = _group_by_shared_work({leaf: slices[leaf] for leaf in computed})
    groups += [copied] if copied else []
    nodes = {i: node for needed in slices.values() for i, node in needed.items()}
    descriptions = Descriptions()
    same = _equal_nodes(nodes, descriptions)
    shared = _in_several_groups(groups, slices, same)
    users = _users(outputs, slices, same, shared)
    kinds: dict[Hashable, Kind] = {}

    def program(leaves: Sequence[int]) -> Program:
        return _program(graph, leaves, slices, descriptions, same, users, kinds)

    apart: list[Program] = []
    whole: list[Program] = []
    for members in _that_share_floats([program(leaves) for leaves in groups], same):
        if all(p.kind is not Kind.WHOLE for p in members):
            apart += members
        else:
            leaves = sorted(leaf for p in members for leaf in p.leaves)
            joined = members[0] if len(members) == 1 else program(leaves)
            whole.append(replace(joined, kind=Kind.WHOLE))
    if not _is_cheaper_apart(whole, same):
        leaves = sorted(leaf for p in whole for leaf in p.leaves)
        if not any(isinstance(x, Keys) for p in apart for x in p.inputs):
            leaves = list(outputs)  # what is left draws nothing
            apart = []
        return [*apart, WholeProgram(closed, leaves)]
    return [*apart, *whole]


def _is_cheaper_apart(whole: Sequence[Program], same: Mapping[int, int]) -> bool:
    """Whether programs of kind WHOLE are compiled in less time than their function.

    They are where several are equal, and not where they all derive the same keys, say.
    A part of a loop rounds as the other parts make it, and stays in its function.
    """
    nodes = [node for program in whole for node in program.nodes]
    if any(node.is_piece for node in nodes):
        return False
    together = len({same[node.index] for node in nodes})
    different = {program.signature: len(program.nodes) for program in whole}
    return sum(different.values()) + _OVERHEAD * len(different) <= together


def _that_share_floats(
    programs: Sequence[Program], same: Mapping[int, int]
) -> list[list[Program]]:
    """The programs, in groups that share no floats with one another.

    How a program of kind WHOLE rounds depends on everything that uses its floats: it is
    compiled together with all programs that share some, and all that share some with
    those. Only groups with such a program are worth the search.
    """
    if all(program.kind is not Kind.WHOLE for program in programs):
        return [[program] for program in programs]
    group_of = {id(program): [program] for program in programs}
    first: dict[int, Program] = {}
    for program in programs:
        for index in _floats(program, same):
            group = group_of[id(first.setdefault(index, program))]
            own = group_of[id(program)]
            if group is not own:
                group += own
                group_of.update((id(member), group) for member in own)
    return list({id(group): group for group in group_of.values()}.values())


def _floats(program: Program, same: Mapping[int, int]) -> set[int]:
    """The equations of a program that make arrays of floats."""
    return {same[node.index] for node in program.nodes if makes_floats(node)}


def _equal_nodes(nodes: dict[int, Node], descriptions: Descriptions) -> dict[int, int]:
    """For each node, the first that computes the same: XLA computes it once."""
    first: dict[tuple, int] = {}
    same: dict[int, int] = {}
    for index in sorted(nodes):
        described = descriptions.of(nodes[index], same, _input_name)
        same[index] = first.setdefault(described, index)
    return same


def _in_several_groups(
    groups: Iterable[Sequence[int]],
    slices: dict[int, dict[int, Node]],
    same: Mapping[int, int],
) -> set[int]:
    """The equations that more than one group of leaves needs."""
    met: set[int] = set()
    several: set[int] = set()
    for leaves in groups:
        own = {same[index] for leaf in leaves for index in slices[leaf]}
        several |= met & own
        met |= own
    return several


def _users(
    outputs: dict[int, Value],
    slices: dict[int, dict[int, Node]],
    same: dict[int, int],
    shared: set[int],
) -> dict[Any, set[tuple[str, int]]]:
    """The users of each value of the shared equations: nodes, or leaves."""
    takers: dict[tuple[str, int], Sequence[Value]] = {}
    for leaf, nodes in slices.items():
        takers["leaf", leaf] = [outputs[leaf]]
        takers.update({("node", same[i]): node.inputs for i, node in nodes.items()})
    users: dict[Any, set[tuple[str, int]]] = {}
    for taker, values in takers.items():
        for value in values:
            if isinstance(value, Output) and same[value.node.index] in shared:
                users.setdefault(_name_of(value, same), set()).add(taker)
    return users


def _slice(outputs: Iterable[Value]) -> dict[int, Node]:
    """All nodes that `outputs` depend on, by index."""
    nodes: dict[int, Node] = {}
    pending = [value.node for value in outputs if isinstance(value, Output)]
    while pending:
        node = pending.pop()
        if node.index not in nodes:
            nodes[node.index] = node
            pending += [v.node for v in node.inputs if isinstance(v, Output)]
    return nodes


def _group_by_shared_work(slices: dict[int, dict[int, Node]]) -> list[list[int]]:
    """Leaves in groups: two that need one large node are in the same group."""
    group_of: dict[int, list[int]] = {leaf: [leaf] for leaf in slices}
    first_user: dict[int, int] = {}
    for leaf, nodes in slices.items():
        for index, node in nodes.items():
            user = first_user.setdefault(index, leaf)
            if group_of[user] is not group_of[leaf] and _is_shared(node):
                merged = sorted(group_of[user] + group_of[leaf])
                group_of.update(dict.fromkeys(merged, merged))
    return list({id(group): group for group in group_of.values()}.values())


def _is_shared(node: Node) -> bool:
    """Whether outputs that need this node are computed together."""
    return sum(abstract(var).size for var in node.eqn.outvars) > _SHARED_SIZE


def _named_equation(node: Node, same: dict[int, int]) -> tuple:
    """The equation of a node, with the names of its inputs and outputs for `exact`."""
    outputs = [(same[node.index], k) for k in range(len(node.eqn.outvars))]
    return node.eqn, [_name_of(value, same) for value in node.inputs], outputs


def _name_of(value: Value, same: dict[int, int]) -> Any:
    if isinstance(value, Output):
        return same[value.node.index], value.position
    return value


def _program(graph, leaves, slices, descriptions, same, users, kinds) -> Program:
    outputs = tuple(graph.outputs[leaf] for leaf in leaves)
    merged = {index: node for leaf in leaves for index, node in slices[leaf].items()}
    nodes = tuple(merged[index] for index in sorted(merged))
    number = {node.index: i for i, node in enumerate(nodes)}
    inputs: dict[Any, tuple[int, Keys | Argument]] = {}

    def of_input(value: Keys | Argument) -> tuple:
        position, _ = inputs.setdefault(_input_name(value), (len(inputs), value))
        return ("input", position, _input_token(value))

    described = [descriptions.of(node, number, of_input) for node in nodes]
    results = [descriptions.token(value, number, of_input) for value in outputs]
    signature = stand_in((*described, tuple(results)))
    firsts = {same[node.index]: node for node in reversed(nodes)}
    elsewhere = _used_elsewhere(leaves, firsts, users)
    # Equal programs are of one kind if other programs use the same values of them.
    name = (signature, *((number[firsts[i].index], k) for i, k in elsewhere))
    if name not in kinds:
        named = (_named_equation(node, same) for node in firsts.values())
        results = [*(_name_of(value, same) for value in outputs), *elsewhere]
        kinds[name] = kind_of(named, results)
    values = tuple(value for _, value in inputs.values())
    return Program(outputs, nodes, values, signature, tuple(leaves), kinds[name])


def _used_elsewhere(leaves, firsts, users) -> list[tuple[int, int]]:
    """The values that other programs use too.

    `jax.jit` computes them once for all, and may store them, as it stores a result.
    """
    own = {("leaf", leaf) for leaf in leaves} | {("node", i) for i in firsts}
    names = [(i, k) for i in sorted(firsts) for k in range(len(firsts[i].eqn.outvars))]
    return [name for name in names if name in users and not users[name] <= own]


def _input_name(value: Keys | Argument) -> tuple:
    if isinstance(value, Argument):
        return ("argument", value.position)
    return ("keys", value.raw, value.names.shape, value.names.tobytes())


def word_names(keys: Any) -> np.ndarray:
    """Where the words of keys are among the words of all keys, flat."""
    return keys.names if keys.raw else keys.names[..., None] * 2 + np.arange(2)


def _input_token(value: Keys | Argument) -> tuple:
    # Shape and dtype of an argument are part of the name of an executable, not of this.
    if isinstance(value, Argument):
        return ("argument", value.position)
    return ("keys", value.raw, value.names.shape)
