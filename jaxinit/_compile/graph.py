"""A traced function as a graph of equations, with the derivation of keys taken out.

The problem: in a trace, every leaf has a different chain of key equations, so that no
two leaves have equal programs. With keys as inputs, equal layers are equal programs.
Take

    def init(key):
        a, b = jax.random.split(key)
        return jax.random.bits(a, (2,)), jax.random.bits(b, (2,))

which jax 0.10 traces to (later versions have one `unstack` in place of lines d to g)

    c:key[2] = random_split[shape=(2,)] key
    d:key[1] = slice[start_indices=(0,) limit_indices=(1,)] c
    e:key[]  = squeeze[dimensions=(0,)] d
    f:key[1] = slice[start_indices=(1,) limit_indices=(2,)] c
    g:key[]  = squeeze[dimensions=(0,)] f
    h:u32[2] = random_bits[bit_width=32 shape=(2,)] e
    i:u32[2] = random_bits[bit_width=32 shape=(2,)] g

The walk gives the argument the name 0 in a `KeyTree`; `random_split` makes the names
`[1, 2]`, children 0 and 1 of it; `slice` and `squeeze` move these names about as NumPy
moves integers. No line from c to g becomes a node. What is left is two nodes, equal but
for their input:

    Node(random_bits, inputs=(Keys(1),))    Node(random_bits, inputs=(Keys(2),))

What holds:
- Calls are inlined, and equations that no output needs are dropped.
- A rule for keys that cannot follow them (of another implementation, too many, or made
  of data that is not known yet) returns None, and the equation becomes a node.
- Nodes are numbered in the order of the trace.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.extend import core
from jax.interpreters.partial_eval import dce_jaxpr

from jaxinit._compile.key_tree import KeyTree, key_words, seed_words
from jaxinit._compile.loops import carries_nothing, keys_hoisted
from jaxinit._compile.values import (
    MAX_KEYS,
    Argument,
    Constant,
    Keys,
    Literal,
    Node,
    Output,
    Root,
    Value,
)
from jaxinit._kernel.fuse import (
    abstract,
    inlined_call,
    plain_bind,
    single,
)
from jaxinit._kernel.threefry import is_threefry


class Graph:
    """What a traced function computes.

    Attributes:
        outputs: one value for each flat output.
        keys: the tree of the keys that appear in it.
        roots: the root keys, in the order of their creation.
    """

    def __init__(self, closed: core.ClosedJaxpr):
        self.keys = KeyTree()
        self.roots: list[Root] = []
        self._size = 0
        self._integers: dict[tuple[int, int], np.ndarray | None] = {}
        self._wrapped: dict[int, Keys] = {}
        jaxpr = closed.jaxpr
        arguments = [self._argument(i, v.aval) for i, v in enumerate(jaxpr.invars)]
        constants = [self._constant(value) for value in closed.consts]
        results = self._walk(jaxpr, constants, arguments)
        # Keys that come out as they went in are arguments again: they need no name.
        argument_of = {
            value: Argument(i)
            for i, value in enumerate(arguments)
            if isinstance(value, Keys)
        }
        self.outputs = [
            argument_of.get(x, x) if isinstance(x, Keys) else x for x in results
        ]

    def _argument(self, position: int, aval: Any) -> Value:
        if is_threefry(aval.dtype) and aval.size <= MAX_KEYS:
            return self._root(aval.shape, key_words, position)
        return Argument(position)

    def _constant(self, value: Any) -> Value:
        if not is_threefry(value.dtype) or value.size > MAX_KEYS:
            return Constant(value)
        return self._fixed_root(key_words(value))

    def _root(self, shape: tuple[int, ...], words: Callable, position: int) -> Keys:
        self.roots.append(Root(shape, words, position))
        return Keys(self.keys.roots(shape), False)

    def _fixed_root(self, words: Any) -> Keys:
        # A copy, because what a function closes over may change afterwards.
        words = words.copy() if isinstance(words, np.ndarray) else words
        shape = words.shape[:-1]
        self.roots.append(Root(shape, lambda _: words, None))
        return Keys(self.keys.roots(shape), False)

    def _walk(self, jaxpr, constants, arguments) -> list[Value]:
        env = dict(
            zip(
                [*jaxpr.constvars, *jaxpr.invars],
                [*constants, *arguments],
                strict=True,
            )
        )

        def read(atom):
            return Literal(atom) if isinstance(atom, core.Literal) else env[atom]

        for eqn, needed in _needed(jaxpr):
            inputs = tuple(read(atom) for atom in eqn.invars)
            env.update(zip(eqn.outvars, self._apply(eqn, inputs, needed), strict=True))
        return [read(atom) for atom in jaxpr.outvars]

    def _apply(self, eqn, inputs, needed) -> Sequence[Value | None]:
        keys = self._on_keys(eqn, inputs)
        if keys is not None:
            return keys
        inner = inlined_call(eqn)
        if inner is not None and not _is_float_function(eqn):
            body, consts = inner
            return self._walk(body, [self._constant(c) for c in consts], inputs)
        if inner is not None:
            return self._node(eqn, inputs)
        if next(core.jaxprs_in_params(eqn.params), None) is None:
            return self._node(eqn, inputs)
        return self._split(eqn, inputs, needed)

    def _node(self, eqn, inputs, is_piece: bool = False) -> list[Value]:
        node = Node(eqn, tuple(inputs), self._size, is_piece)
        self._size += 1
        return [Output(node, k) for k in range(len(eqn.outvars))]

    def _split(self, eqn, inputs, needed) -> list[Value | None]:
        """A loop or branch, cut into one node for each output where that is free.

        It is free where the loops of single outputs carry nothing: then no two outputs
        share work from step to step, as in a scan over layers that draws parameters.
        """
        wanted = [k for k, need in enumerate(needed) if need]
        pieces = [self._dead_code_free(eqn, [k], needed) for k in wanted]
        if not all(carries_nothing(piece) for piece in pieces):
            pieces = [self._dead_code_free(eqn, wanted, needed)]
        pairs = zip(eqn.invars, inputs, strict=True)
        values = {a: value for a, value in pairs if isinstance(a, core.Var)}
        outputs: dict[core.Var, Value] = {}
        for piece in pieces:
            arguments = tuple(
                Literal(atom) if isinstance(atom, core.Literal) else values[atom]
                for atom in piece.invars
            )
            hoisted = keys_hoisted(piece, arguments, self._on_keys)
            made = self._node(*hoisted, is_piece=len(pieces) > 1)
            outputs.update(zip(piece.outvars, made, strict=True))
        return [outputs.get(var) for var in eqn.outvars]

    def _dead_code_free(self, eqn, wanted, needed) -> core.JaxprEqn:
        used = [k in wanted for k in range(len(needed))]
        smaller, _ = dce_jaxpr(single(eqn), used)
        (eqn,) = smaller.eqns
        return eqn

    # --- keys -------------------------------------------------------------------

    def _on_keys(self, eqn, inputs) -> list[Value] | None:
        """The outputs of an equation that only derives, moves or wraps keys, by name.

        None if they must be computed; so it is with each rule below.
        """
        rule = _KEY_RULES.get(eqn.primitive.name)
        return rule(self, eqn, inputs) if rule else None

    def _wrap(self, eqn, inputs):
        (data,) = inputs
        if not is_threefry(eqn.outvars[0].aval.dtype):
            return None
        if isinstance(data, Argument):  # words that are wrapped twice are one root
            if data.position not in self._wrapped:
                self._wrapped[data.position] = self._root(
                    eqn.outvars[0].aval.shape, key_words, data.position
                )
            return [self._wrapped[data.position]]
        if isinstance(data, Constant):
            return [self._fixed_root(key_words(data.value))]
        if isinstance(data, Keys) and data.raw:
            first, second = data.names[..., 0], data.names[..., 1]
            # Only if both words are still side by side is this a key that is known.
            if np.all(first % 2 == 0) and np.all(second == first + 1):
                return [Keys(first // 2, False)]
        return None

    def _unwrap(self, eqn, inputs):
        (keys,) = inputs
        return [_unwrapped(keys)] if isinstance(keys, Keys) else None

    def _seed(self, eqn, inputs):
        (seed,) = inputs
        aval = eqn.outvars[0].aval
        seed_dtype = abstract(eqn.invars[0]).dtype
        if not is_threefry(aval.dtype) or aval.shape:
            return None
        if not np.issubdtype(seed_dtype, np.integer):  # jax raises an error for it
            return None
        if isinstance(seed, Argument):
            return [self._root((), seed_words, seed.position)]
        value = self._integer(seed)
        return None if value is None else [self._fixed_root(seed_words(value))]

    def _clone(self, eqn, inputs):
        return list(inputs) if isinstance(inputs[0], Keys) else None

    def _split_keys(self, eqn, inputs):
        (keys,) = inputs
        shape = eqn.params["shape"]
        size = int(np.prod(shape, dtype=np.int64))
        if not isinstance(keys, Keys) or size * keys.names.size > MAX_KEYS:
            return None
        counters = np.arange(size, dtype=np.uint32).reshape(shape)
        parents = keys.names.reshape(*keys.names.shape, *[1] * len(shape))
        return [Keys(self.keys.derive(parents, counters), False)]

    def _fold_in(self, eqn, inputs):
        keys, data = inputs
        message = self._integer(data) if isinstance(keys, Keys) else None
        if message is None:
            return None
        return [Keys(self.keys.derive(keys.names, message.astype(np.uint32)), False)]

    def _move(self, eqn, inputs):
        if not isinstance(inputs[0], Keys):
            return None
        moved = _MOVES[eqn.primitive.name](inputs[0].names, eqn.params)
        return [Keys(names, inputs[0].raw) for names in moved]

    # --- integers that keys depend on -------------------------------------------

    def _integer(self, value: Value) -> np.ndarray | None:
        """The value of a small integer array that depends on no argument."""
        if isinstance(value, Literal):
            return np.asarray(value.atom.val)
        if isinstance(value, Constant):
            known = not isinstance(value.value, Tracer)
            return np.asarray(value.value) if known else None
        if not isinstance(value, Output) or not _is_small_integer(value):
            return None
        name = (value.node.index, value.position)
        if name not in self._integers:
            self._integers[name] = self._evaluate_integer(value)
        return self._integers[name]

    def _evaluate_integer(self, value: Output) -> np.ndarray | None:
        inputs = [self._integer(v) for v in value.node.inputs]
        if value.node.eqn.primitive.name == "pvary":  # under jax.shard_map
            return inputs[0]
        if any(v is None for v in inputs) or value.node.eqn.effects:
            return None
        with jax.ensure_compile_time_eval():
            return np.asarray(plain_bind(value.node.eqn, inputs)[value.position])


def _needed(jaxpr: core.Jaxpr) -> list[tuple[core.JaxprEqn, list[bool]]]:
    """The equations that the outputs depend on, each with the outputs needed of it."""
    live = {atom for atom in jaxpr.outvars if isinstance(atom, core.Var)}
    kept = []
    for eqn in reversed(jaxpr.eqns):
        needed = [var in live for var in eqn.outvars]
        if any(needed):
            kept.append((eqn, needed))
            live.update(atom for atom in eqn.invars if isinstance(atom, core.Var))
    return kept[::-1]


def _is_float_function(eqn: core.JaxprEqn) -> bool:
    """Whether a call maps floats to floats: no keys to be found in it."""
    atoms = (*eqn.invars, *eqn.outvars)
    return bool(eqn.invars) and all(
        jnp.issubdtype(abstract(atom).dtype, np.inexact) for atom in atoms
    )


def _is_small_integer(value: Output) -> bool:
    aval = abstract(value.node.eqn.outvars[value.position])
    if jnp.issubdtype(aval.dtype, jax.dtypes.prng_key):
        return False
    return np.issubdtype(aval.dtype, np.integer) and aval.size <= MAX_KEYS


def _unwrapped(keys: Keys) -> Keys:
    return Keys(keys.names[..., None] * 2 + np.arange(2), True)


def _slice(names, params):
    strides = params["strides"] or [1] * names.ndim
    bounds = zip(params["start_indices"], params["limit_indices"], strides, strict=True)
    return [names[tuple(slice(*bound) for bound in bounds)]]


def _broadcast_in_dim(names, params):
    shape, kept = params["shape"], params["broadcast_dimensions"]
    own = [1] * len(shape)
    for axis, size in zip(kept, names.shape, strict=True):
        own[axis] = size
    return [np.broadcast_to(names.reshape(own), shape)]


def _reshape(names, params):
    return [names.reshape(params["new_sizes"])]


def _squeeze(names, params):
    return [np.squeeze(names, params["dimensions"])]


def _unstack(names, params):
    return list(np.moveaxis(names, params["axis"], 0))


def _lax_split(names, params):
    return np.split(names, np.cumsum(params["sizes"])[:-1], params["axis"])


_MOVES = {
    "broadcast_in_dim": _broadcast_in_dim,
    "slice": _slice,
    "reshape": _reshape,
    "squeeze": _squeeze,
    "unstack": _unstack,
    "split": _lax_split,
}
_KEY_RULES: dict[str, Callable[..., Any]] = {
    "random_wrap": Graph._wrap,
    "random_unwrap": Graph._unwrap,
    "random_seed": Graph._seed,
    "random_clone": Graph._clone,
    "random_split": Graph._split_keys,
    "random_fold_in": Graph._fold_in,
    **dict.fromkeys(_MOVES, Graph._move),
}
