"""Leaf programs: what one output, or a few that share work, need of the graph.

Two programs are equal when their equations are, up to the names of variables. Keys and
arguments are inputs, so that the leaves of equal layers share one program; literals
stay in the program, because XLA folds constants and may round differently if they
become arguments.
"""

import functools
import itertools
import weakref
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import eval_jaxpr
from jax.extend import core
from jax.interpreters.partial_eval import dce_jaxpr

from jaxinit._compile.exact import Kind, kind_of
from jaxinit._compile.graph import (
    Argument,
    Constant,
    Graph,
    Keys,
    Literal,
    Node,
    Output,
    Value,
)
from jaxinit._kernel.fuse import abstract, fused_bind, plain_bind

# Outputs that share a node larger than this are computed together.
_SHARED_SIZE = 4096

# One stand-in for all equal descriptions, as long as it is in use: fast to hash and
# compare, where the description itself is long.
_STAND_INS: "weakref.WeakValueDictionary[tuple, _Same]" = weakref.WeakValueDictionary()


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
        floats: which of all equations it has that make several floats.
    """

    outputs: tuple[Value, ...]
    nodes: tuple[Node, ...]
    inputs: tuple[Keys | Argument, ...]
    signature: Hashable
    leaves: tuple[int, ...]
    kind: Kind
    floats: frozenset[int]
    __name__ = "jaxinit_program"  # in logs and profiles

    @property
    def holds_arrays(self) -> bool:
        """Whether the function closed over arrays that are written into it."""
        values = itertools.chain(self.outputs, *(node.inputs for node in self.nodes))
        return any(isinstance(value, Constant) for value in values)

    @property
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
    """Some outputs of a function, computed by the function itself, other outputs gone.

    Has the attributes of `Program` that matter to whoever runs it.
    """

    kind = Kind.WHOLE
    holds_arrays = True
    is_strongly_typed = False
    __name__ = "jaxinit_whole"

    def __init__(self, closed: core.ClosedJaxpr, leaves: Sequence[int]):
        used = [leaf in leaves for leaf in range(len(closed.jaxpr.outvars))]
        self._jaxpr, needed = dce_jaxpr(closed.jaxpr, used)
        self._consts = closed.consts
        self.leaves = tuple(leaves)
        self.inputs = tuple(Argument(i) for i, need in enumerate(needed) if need)
        self.signature = _Same(self)

    def __call__(self, *inputs: Any) -> list[Any]:
        """The outputs, given the values of the arguments."""
        return eval_jaxpr(self._jaxpr, self._consts, *inputs)


AnyProgram = Program | WholeProgram


def leaf_programs(graph: Graph, closed: core.ClosedJaxpr) -> list[AnyProgram]:
    """The programs of all outputs, those that share large work together.

    Outputs that nothing computes, such as arguments and keys, are copied by one program
    of their own: what `jax.jit` returns never shares a buffer with anything else.
    """
    outputs = dict(enumerate(graph.outputs))
    computed = [leaf for leaf, x in outputs.items() if isinstance(x, Output)]
    copied = [leaf for leaf, x in outputs.items() if not isinstance(x, Output)]
    slices = {leaf: _slice([value]) for leaf, value in outputs.items()}
    groups = _group_by_shared_work({leaf: slices[leaf] for leaf in computed})
    groups += [copied] if copied else []
    nodes = {i: node for found in slices.values() for i, node in found.items()}
    heads = {i: (n.eqn.primitive, _params_token(n.eqn)) for i, n in nodes.items()}
    same = _equal_nodes(nodes, heads)
    users = _users(outputs, slices, same)
    programs = [_program(graph, each, slices, heads, users, same) for each in groups]
    whole, apart = _with_those_that_share(programs)
    leaves = sorted(leaf for p in whole for leaf in p.leaves)
    return [*apart, WholeProgram(closed, leaves)] if leaves else [*apart]


def _with_those_that_share(
    programs: Sequence[Program],
) -> tuple[list[Program], list[Program]]:
    """The programs that must be compiled whole, and those that are compiled apart.

    How a whole program rounds depends on what else is made of its floats, so that the
    outputs made of them go with it.
    """
    whole = [p for p in programs if p.kind is Kind.WHOLE]
    apart = [p for p in programs if p.kind is not Kind.WHOLE]
    floats = [index for p in whole for index in p.floats]
    while floats:
        shared = set(floats)
        joined = [p for p in apart if not shared.isdisjoint(p.floats)]
        apart = [p for p in apart if shared.isdisjoint(p.floats)]
        floats = [index for p in joined for index in p.floats]
        whole += joined
    return whole, apart


def _equal_nodes(nodes: dict[int, Node], heads: dict[int, tuple]) -> dict[int, int]:
    """For each node the first that computes the same, as XLA computes that once."""
    first: dict[tuple, int] = {}
    same: dict[int, int] = {}

    def token(value: Value) -> Hashable:
        match value:
            case Output(node, position):
                return ("node", same[node.index], position)
            case Keys() | Argument():
                return _input_name(value)
            case Constant(constant):
                return _Same(constant)
            case Literal(atom):
                return _literal_token(atom)

    for index in sorted(nodes):
        tokens = tuple(map(token, nodes[index].inputs))
        same[index] = first.setdefault((heads[index], tokens), index)
    return same


def _users(
    outputs: dict[int, Value],
    slices: dict[int, dict[int, Node]],
    same: dict[int, int],
) -> dict[Any, set[tuple[str, int]]]:
    """What takes each value, by its name: nodes, and leaves that it is."""
    takers: dict[tuple[str, int], Sequence[Value]] = {}
    for leaf, nodes in slices.items():
        takers["leaf", leaf] = [outputs[leaf]]
        takers.update({("node", same[i]): node.inputs for i, node in nodes.items()})
    users: dict[Any, set[tuple[str, int]]] = {}
    for taker, values in takers.items():
        for value in values:
            if isinstance(value, Output):
                users.setdefault(_name_of(value, same), set()).add(taker)
    return users


def _slice(outputs: Iterable[Value]) -> dict[int, Node]:
    """All nodes that `outputs` depend on."""
    nodes: dict[int, Node] = {}
    pending = [value.node for value in outputs if isinstance(value, Output)]
    while pending:
        node = pending.pop()
        if node.index not in nodes:
            nodes[node.index] = node
            pending += [v.node for v in node.inputs if isinstance(v, Output)]
    return nodes


def _group_by_shared_work(slices: dict[int, dict[int, Node]]) -> list[list[int]]:
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


def _makes_floats(node: Node) -> bool:
    made = map(abstract, node.eqn.outvars)
    return any(x.size > 1 and jnp.issubdtype(x.dtype, np.inexact) for x in made)


def _named(node: Node, same: dict[int, int]) -> tuple:
    """A node with the names of its inputs and outputs."""
    made = [(same[node.index], k) for k in range(len(node.eqn.outvars))]
    return node.eqn, [_name_of(value, same) for value in node.inputs], made


def _name_of(value: Value, same: dict[int, int]) -> Any:
    if isinstance(value, Output):
        return same[value.node.index], value.position
    return value


def _program(graph, leaves, slices, heads, users, same) -> Program:
    outputs = tuple(graph.outputs[leaf] for leaf in leaves)
    merged = {index: node for leaf in leaves for index, node in slices[leaf].items()}
    nodes = tuple(merged[index] for index in sorted(merged))
    number = {node.index: i for i, node in enumerate(nodes)}
    inputs: dict[Any, Keys | Argument] = {}

    def token(value: Value) -> tuple:
        match value:
            case Output(node, position):
                return ("node", number[node.index], position)
            case Keys() | Argument():
                name = _input_name(value)
                inputs.setdefault(name, value)
                return ("input", list(inputs).index(name), _kind(value))
            case Constant(constant):
                return ("constant", _Same(constant))
            case Literal(atom):
                return _literal_token(atom)

    signature = tuple(
        (*heads[node.index], tuple(map(token, node.inputs))) for node in nodes
    )
    signature += (tuple(map(token, outputs)),)
    # What other programs use too, jax.jit computes once for all, as it does a result.
    firsts = {same[node.index]: node for node in reversed(nodes)}
    firsts = dict(sorted(firsts.items()))
    own = {("leaf", leaf) for leaf in leaves} | {("node", i) for i in firsts}
    made = [(i, k) for i, n in firsts.items() for k in range(len(n.eqn.outvars))]
    elsewhere = [name for name in made if not users.get(name, own) <= own]
    results = [*(_name_of(value, same) for value in outputs), *elsewhere]
    named = (_named(node, same) for node in firsts.values())
    kind = kind_of(named, results)
    values = tuple(inputs.values())
    floats = frozenset(i for i, node in firsts.items() if _makes_floats(node))
    same_as = _stand_in(signature)
    return Program(outputs, nodes, values, same_as, tuple(leaves), kind, floats)


def _input_name(value: Keys | Argument) -> tuple:
    if isinstance(value, Argument):
        return ("argument", value.position)
    return ("keys", value.raw, value.names.shape, value.names.tobytes())


def word_names(keys: Any) -> np.ndarray:
    """Positions of the words of keys, among the words of all keys in a row."""
    return keys.names if keys.raw else keys.names[..., None] * 2 + np.arange(2)


def _kind(value: Keys | Argument) -> tuple:
    # The avals of arguments are part of what a whole compilation depends on.
    if isinstance(value, Argument):
        return ("argument", value.position)
    return ("keys", value.raw, value.names.shape)


class _Same:
    """Equal only to the same object, which it keeps alive."""

    def __init__(self, value: Any):
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and other.value is self.value

    def __hash__(self) -> int:
        return id(self.value)


def _stand_in(description: tuple) -> _Same:
    return _STAND_INS.setdefault(description, _Same(description))


def _literal_token(atom: core.Literal) -> tuple:
    value = np.asarray(atom.val)
    return ("literal", str(atom.aval), value.dtype.str, value.tobytes())


def _params_token(eqn: core.JaxprEqn) -> tuple:
    return tuple((name, _freeze(eqn.params[name])) for name in sorted(eqn.params))


def _freeze(value: Any) -> Any:
    """A hashable stand-in for a parameter, equal for equal parameters."""
    if isinstance(value, core.ClosedJaxpr | core.Jaxpr):
        return _freeze_jaxpr(value)
    if isinstance(value, tuple | list):
        return (type(value).__name__, *map(_freeze, value))
    if isinstance(value, np.ndarray):
        return (value.dtype.str, value.shape, value.tobytes())
    try:
        hash(value)
    except TypeError:
        return _Same(value)
    # 1, 1.0 and True are equal in Python and are not in a program.
    return (type(value), value)


@functools.lru_cache(512)
def _freeze_jaxpr(jaxpr: core.ClosedJaxpr | core.Jaxpr) -> Hashable:
    consts = tuple(_Same(value) for value in getattr(jaxpr, "consts", ()))
    jaxpr = getattr(jaxpr, "jaxpr", jaxpr)
    number: dict[core.Var, int] = {}

    def token(atom) -> Any:
        if isinstance(atom, core.Literal):
            return _literal_token(atom)
        return number[atom]

    def define(var) -> tuple:
        number[var] = len(number)
        return (number[var], str(var.aval))

    inputs = tuple(map(define, (*jaxpr.constvars, *jaxpr.invars)))
    eqns = []
    for eqn in jaxpr.eqns:
        arguments = tuple(map(token, eqn.invars))
        results = tuple(map(define, eqn.outvars))
        eqns.append((eqn.primitive, _params_token(eqn), arguments, results))
    frozen = (consts, inputs, tuple(eqns), tuple(map(token, jaxpr.outvars)))
    return _stand_in(frozen)
