"""A traced function as one flat graph that can be asked both ways.

The problem: calls, loops and branches hide what a leaf meets. Take

    def apply(w, x):
        return jax.lax.scan(lambda h, w: (jax.nn.relu(h @ w), None), x, w)[0]

which jax traces to a scan whose body has a call in it. The graph has neither:

    n0: carry        x        -> h        back edge from r; loop 0, four times
    n1: each         w        -> v        one index of the first axis
    n2: dot_general  h, v     -> z
    n3: max          z, 0.0   -> r        the output

What holds:
- A node comes after the nodes that make its inputs, but for back edges.
- `carry` is a value that a loop hands on: its input is the first one, `back` the next.
  `each` takes index by index of the first axis, `stacked` puts such pieces together,
  `branches` is one of its inputs, and `condition` decides on a branch or a loop.
- Nodes that no output needs are not there.
- The sum of the same two values is one node, however often it is written, and a sum
  with the number zero is none: `sum([x, y])`, which begins with 0, is `x + y`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np
from jax.extend import core
from jax.extend.core import primitives

from jaxinit._kernel.fuse import scan_operands
from jaxinit._roles.reading.primitives import ADDITIONS

# Calls, whose bodies take the place of the call.
_CALLS = {
    "jit",
    "pjit",
    "closed_call",
    "core_call",
    "core_closed_call",
    "remat",
    "remat2",
    "checkpoint",
    "custom_jvp_call",
    "custom_vjp_call",
    "custom_vjp_call_jaxpr",
}
# What puts values beside one another, and its parameter that names the axis.
_STACKS = {"concatenate": "dimension", "stack": "axis"}
_WIDEN = ("broadcast_in_dim", "reshape", "expand_dims")
_BODIES = ("jaxpr", "call_jaxpr", "fun_jaxpr")


@dataclass(eq=False, slots=True, repr=False)
class Value:
    """An array of the computation.

    Attributes:
        index: its number.
        shape: its shape.
        dtype: its dtype.
        node: the node that makes it; None for leaves, inputs and constants.
        leaf: number of the leaf that it is; None for all else.
        constant: the array, where it is known; None for all else.
        users: the nodes that take it.
        is_output: whether the function returns it.
    """

    index: int
    shape: tuple[int, ...]
    dtype: Any
    node: "Node | None" = None
    leaf: int | None = None
    constant: Any = None
    users: list["Node"] = field(default_factory=list)
    is_output: bool = False


@dataclass(frozen=True, eq=False)
class Loop:
    """A loop around nodes; `length` is None where the number of rounds is not known."""

    length: int | None


@dataclass(eq=False, slots=True, repr=False)
class Node:
    """One equation, or one of the five that stand for loops and branches.

    Attributes:
        index: its number.
        op: name of the primitive, or one of the names above.
        inputs: values that it takes.
        outputs: values that it makes.
        params: parameters of the primitive.
        loops: the loops around it, the outermost first.
        primitive: the primitive; None for one of the names above.
        back: for a `carry`, what the loop hands on.
    """

    index: int
    op: str
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    params: Mapping[str, Any]
    loops: tuple[Loop, ...]
    primitive: Any = None
    back: Value | None = None

    @property
    def output(self) -> Value:
        """The only output."""
        return self.outputs[0]

    def sources(self) -> tuple[Value, ...]:
        """The inputs, and what a loop hands on."""
        return self.inputs if self.back is None else (*self.inputs, self.back)


class Graph:
    """A traced function of leaves and inputs.

    Attributes:
        values: all values, by their index.
        nodes: the nodes that the outputs need, in order.
        leaves: the value of each leaf.
        inputs: the other arguments.
        outputs: what the function returns.
    """

    def __init__(self, closed: core.ClosedJaxpr, leaves: int):
        self.values: list[Value] = []
        self.nodes: list[Node] = []
        self._sums: dict[tuple, Value] = {}
        arguments = [self._value(var.aval) for var in closed.jaxpr.invars]
        self.leaves, self.inputs = arguments[:leaves], arguments[leaves:]
        for i, value in enumerate(self.leaves):
            value.leaf = i
        self.outputs = self._body(closed.jaxpr, closed.consts, arguments, ())
        for value in self.outputs:
            value.is_output = True
        self._drop_dead()
        for node in self.nodes:
            for value in dict.fromkeys(node.sources()):
                value.users.append(node)

    def _value(self, aval: Any, constant: Any = None) -> Value:
        shape, dtype = getattr(aval, "shape", ()), getattr(aval, "dtype", None)
        value = Value(len(self.values), shape, dtype, constant=constant)
        self.values.append(value)
        return value

    def _node(self, op, inputs, outputs, params, loops) -> Node:
        node = Node(len(self.nodes), op, tuple(inputs), tuple(outputs), params, loops)
        for value in outputs:
            value.node = node
        self.nodes.append(node)
        return node

    def _body(self, jaxpr, consts, args, loops) -> list[Value]:
        """The values that a jaxpr returns, its equations added to the nodes."""
        env: dict[Any, Value] = dict(zip(jaxpr.invars, args, strict=True))
        for var, value in zip(jaxpr.constvars, consts, strict=True):
            known = value if isinstance(value, Value) else None
            env[var] = known or self._value(var.aval, value)

        def read(atom) -> Value:
            if isinstance(atom, core.Literal):
                return self._value(atom.aval, atom.val)
            return env[atom]

        for eqn in jaxpr.eqns:
            inputs = [read(atom) for atom in eqn.invars]
            outputs = self._equation(eqn, inputs, loops)
            env.update(zip(eqn.outvars, outputs, strict=True))
        return [read(atom) for atom in jaxpr.outvars]

    def _equation(self, eqn, inputs, loops) -> Sequence[Value]:
        name = eqn.primitive.name
        if name in _CALLS:
            body, consts = _opened(
                next(eqn.params[k] for k in _BODIES if k in eqn.params)
            )
            if len(body.invars) == len(inputs):
                return self._body(body, consts, inputs, loops)
        if name == "call_hi_primitive":
            expanded = _expanded(eqn)
            if expanded is not None:
                return self._body(expanded.jaxpr, expanded.consts, inputs, loops)
        if name == "device_put":  # the same numbers, on other devices
            return inputs
        if name == "scan":
            return self._scan(eqn, inputs, loops)
        if name == "while":
            return self._while(eqn, inputs, loops)
        if name == "cond":
            return self._cond(eqn, inputs, loops)
        if name == "reshape" and eqn.params["dimensions"] is not None:
            return self._reshape(eqn, inputs, loops)
        if name in ADDITIONS:
            return [self._sum(inputs, eqn.outvars[0].aval, loops)]
        if name == "reduce_sum" and (parts := self._stacked(eqn, inputs[0], loops)):
            return [self._sum(parts, parts[0], loops)]
        return self._as_it_is(eqn, inputs, loops)

    def _as_it_is(self, eqn, inputs, loops) -> Sequence[Value]:
        outputs = [self._value(var.aval) for var in eqn.outvars]
        node = self._node(eqn.primitive.name, inputs, outputs, eqn.params, loops)
        node.primitive = eqn.primitive
        return outputs

    def _sum(self, inputs, aval, loops) -> Value:
        """A sum of two values, made once; of zero and a value, that value."""
        for number, value in (inputs, inputs[::-1]):
            whole = (value.shape, value.dtype) == (aval.shape, aval.dtype)
            if whole and _is_zero(number.constant):
                return value
        place = frozenset(value.index for value in inputs), loops
        if place not in self._sums:
            self._sums[place] = self._value(aval)
            node = self._node("add", inputs, [self._sums[place]], {}, loops)
            node.primitive = primitives.add_p
        return self._sums[place]

    def _stacked(self, eqn, value, loops) -> list[Value]:
        """The two values that are summed if they were only stacked up for it.

        A sum of more is rather one of members, or of all layers.
        """
        converted = []
        while value.node is not None and value.node.op == "convert_element_type":
            converted.append(value.node)
            value = value.node.inputs[0]
        node, axes = value.node, eqn.params["axes"]
        if node is None or node.op not in _STACKS or len(node.inputs) != 2:
            return []
        parts = node.inputs
        if (node.params[_STACKS[node.op]],) != tuple(axes):
            return []
        if node.op == "concatenate":
            if any(part.shape[axes[0]] != 1 for part in parts):
                return []
            parts = [self._squeezed(part, axes, loops) for part in parts]
        for made in reversed(converted):
            parts = [self._like(made, x, made.output.dtype, loops) for x in parts]
        return list(parts)

    def _squeezed(self, value, axes, loops) -> Value:
        """A value without an axis of one entry, or what it was before it had that."""
        shape = tuple(n for i, n in enumerate(value.shape) if i not in axes)
        node = value.node
        if node is not None and node.op in _WIDEN and node.inputs[0].shape == shape:
            return node.inputs[0]
        narrow = self._value(jax.ShapeDtypeStruct(shape, value.dtype))
        node = self._node("squeeze", [value], [narrow], {"dimensions": axes}, loops)
        node.primitive = primitives.squeeze_p
        return narrow

    def _like(self, node, value, dtype, loops) -> Value:
        """What a node makes of another value."""
        made = self._value(jax.ShapeDtypeStruct(value.shape, dtype))
        copied = self._node(node.op, [value], [made], node.params, loops)
        copied.primitive = node.primitive
        return made

    def _reshape(self, eqn, inputs, loops) -> Sequence[Value]:
        """A reshape of axes in another order, as two nodes; vmap makes such."""
        (value,), order = inputs, tuple(map(int, eqn.params["dimensions"]))
        shape = tuple(value.shape[i] for i in order)
        moved = self._value(jax.ShapeDtypeStruct(shape, value.dtype))
        node = self._node("transpose", inputs, [moved], {"permutation": order}, loops)
        node.primitive = primitives.transpose_p
        outputs = [self._value(var.aval) for var in eqn.outvars]
        params = {**eqn.params, "dimensions": None}
        node = self._node("reshape", [moved], outputs, params, loops)
        node.primitive = eqn.primitive
        return outputs

    def _scan(self, eqn, inputs, loops) -> Sequence[Value]:
        body, consts = _opened(eqn.params["jaxpr"])
        constants, carried = scan_operands(eqn)
        inner = (*loops, Loop(eqn.params["length"]))
        order = {"reverse": eqn.params["reverse"]}
        end = constants + carried
        carries = self._carries(inputs[constants:end], body.invars[constants:], inner)
        pieces = []
        for value, var in zip(inputs[end:], body.invars[end:], strict=True):
            pieces.append(self._value(var.aval))
            self._node("each", [value], [pieces[-1]], order, inner)
        args = [*inputs[:constants], *(node.output for node in carries), *pieces]
        results = self._body(body, consts, args, inner)
        for node, value in zip(carries, results, strict=False):
            node.back = value
        stacked = []
        for value, var in zip(results[carried:], eqn.outvars[carried:], strict=True):
            stacked.append(self._value(var.aval))
            self._node("stacked", [value], [stacked[-1]], order, inner)
        return [*results[:carried], *stacked]

    def _carries(self, inputs, variables, loops) -> list[Node]:
        pairs = zip(inputs, variables, strict=False)
        return [
            self._node("carry", [value], [self._value(var.aval)], {}, loops)
            for value, var in pairs
        ]

    def _while(self, eqn, inputs, loops) -> Sequence[Value]:
        condition, condition_consts = _opened(eqn.params["cond_jaxpr"])
        body, consts = _opened(eqn.params["body_jaxpr"])
        n, m = eqn.params["cond_nconsts"], eqn.params["body_nconsts"]
        inner = (*loops, Loop(None))
        carries = self._carries(inputs[n + m :], body.invars[m:], inner)
        state = [node.output for node in carries]
        decided = self._body(condition, condition_consts, [*inputs[:n], *state], inner)
        results = self._body(body, consts, [*inputs[n : n + m], *state], inner)
        for node, value in zip(carries, results, strict=True):
            node.back = value
        return self._decided(decided, results, loops)

    def _cond(self, eqn, inputs, loops) -> Sequence[Value]:
        index, *args = inputs
        bodies = [_opened(branch) for branch in eqn.params["branches"]]
        results = [self._body(*body, args, loops) for body in bodies]
        outputs = [self._value(var.aval) for var in eqn.outvars]
        for output, *branches in zip(outputs, *results, strict=True):
            self._node("branches", branches, [output], {}, loops)
        return self._decided([index], outputs, loops)

    def _decided(self, conditions, results, loops) -> list[Value]:
        """The results, behind nodes that keep what they were decided by alive."""
        if all(value.constant is not None for value in conditions):
            return list(results)
        decided = []
        for value in results:
            decided.append(self._value(value))
            inputs = [value, *conditions]
            self._node("condition", inputs, [decided[-1]], {}, loops)
        return decided

    def _drop_dead(self) -> None:
        live: set[int] = set()
        pending = [value.node for value in self.outputs if value.node]
        while pending:
            node = pending.pop()
            if node.index not in live:
                live.add(node.index)
                pending += [value.node for value in node.sources() if value.node]
        self.nodes = [node for node in self.nodes if node.index in live]
        for i, node in enumerate(self.nodes):
            node.index = i


def _is_zero(number: Any) -> bool:
    return number is not None and np.size(number) == 1 and not np.any(number)


def _expanded(eqn: Any) -> core.ClosedJaxpr | None:
    """What an operation of jax does that is made of others, as `searchsorted`."""
    operation = eqn.params.get("_prim")
    if not (hasattr(operation, "expand") and hasattr(operation, "in_tree")):
        return None

    def call(*flat: Any) -> list[Any]:
        return jax.tree.leaves(operation.expand(*operation.in_tree.unflatten(flat)))

    shapes = [jax.ShapeDtypeStruct(x.aval.shape, x.aval.dtype) for x in eqn.invars]
    return jax.make_jaxpr(call)(*shapes)


def _opened(body: Any) -> tuple[core.Jaxpr, Sequence[Any]]:
    """A jaxpr and its constants."""
    return (body.jaxpr, body.consts) if hasattr(body, "consts") else (body, ())
