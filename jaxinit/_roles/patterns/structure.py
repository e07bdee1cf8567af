"""What the parts of a graph are to one another, before any leaf is given its use.

Take `x + softmax(q @ k.T) @ v @ wo + b`. Its kernels are the products with `wq`, `wk`,
`wv` and `wo`, its attention has `q`, `k` and `v`, and the addition to `x` is one of a
residual stream. So what `b` is added to is the output of `wo`, which takes what an
attention gives.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from jaxinit._roles.patterns.attention import Attention
from jaxinit._roles.patterns.averages import Averages
from jaxinit._roles.patterns.contractions import kernel_nodes
from jaxinit._roles.patterns.head_sums import HeadSum, head_sums
from jaxinit._roles.patterns.loops import Loops
from jaxinit._roles.patterns.normalization import is_centering
from jaxinit._roles.patterns.residual import Residuals
from jaxinit._roles.patterns.sums import is_cut, sums_stacked
from jaxinit._roles.reading.flow import Flow
from jaxinit._roles.reading.graph import Loop, Node, Value
from jaxinit._roles.reading.primitives import (
    CONTRACTIONS,
    ELEMENTWISE,
    PRODUCTS,
    SCATTERS,
    SUMS,
)
from jaxinit._roles.reading.values import is_softmax, maker
from jaxinit._roles.reading.walks import nodes_of, reached

# What a sum of outputs of kernels goes through, and is one still.
_KEEP_SUMS = (
    SUMS | SCATTERS | {"gather", "slice", "split", "each", "stacked", "branches"}
)
_KEEP_SCORES = SUMS | PRODUCTS | {"select_n", "tanh"}
_JOINED = frozenset({"concatenate", "stack"})
_KEEP_ATTENTION = _JOINED | {"slice", "split", "squeeze", "reduce_sum"}


@dataclass(frozen=True, eq=False)
class Structure:
    """What is found in a graph.

    Attributes:
        flow: where every leaf goes.
        names: the path of each leaf.
        kernels: indices of the contractions of activations with leaves.
        attentions: all attentions.
        loops: what loops carry.
        residuals: the residual streams.
        scores: indices of the contractions of query and key.
        attention_outputs: indices of the contractions with the value.
        averages: what is an average, and of what.
        head_sums: by the index of a contraction, the sum of heads that follows it.
    """

    flow: Flow
    names: Sequence[str]
    kernels: set[int]
    attentions: Sequence[Attention]
    loops: Loops
    residuals: Residuals
    scores: frozenset[int]
    attention_outputs: frozenset[int]
    averages: Averages
    head_sums: Mapping[int, HeadSum]
    _behind: dict[int, list[Node]] = field(default_factory=dict, repr=False)

    def kernels_behind(self, value: Value) -> list[Node]:
        """The contractions with leaves whose sum, or whose joined sums, a value is."""
        if value.index not in self._behind:
            nodes = reached(
                _makers([value]), lambda node: _makers(self._summands(node))
            )
            found = {node.index: node for node in nodes if node.index in self.kernels}
            self._behind[value.index] = [found[i] for i in sorted(found)]
        return self._behind[value.index]

    def _summands(self, node: Node) -> Sequence[Value]:
        """What a node adds up, or multiplies by a number."""
        if node.index in self.kernels:
            return ()
        if self.residuals.contains(node):
            return [self.residuals.additions[node.index].branch]
        if node.op in _KEEP_SUMS or sums_stacked(node):
            return self.flow.data_of(node)
        if node.op in _JOINED and self._is_of_kernels(node):
            return node.inputs
        if node.op in PRODUCTS:
            numbers = self.flow.numbers_of(node)
            return [v for v in node.inputs if v not in numbers] if numbers else ()
        return ()

    def _is_of_kernels(self, node: Node) -> bool:
        """Whether all parts of a value are sums of kernels, and atoms tell them apart.

        Of values that follow one another in time, or are stacked, atoms do not.
        """
        told = node.op == "concatenate" and all(
            self.flow.fact(value).axes[node.params["dimension"]]
            for value in node.inputs
        )
        is_whole = told or not is_cut(node.output)
        return is_whole and all(map(self.kernels_behind, node.inputs))

    def is_score(self, value: Value) -> bool:
        """Whether a value is a contraction of query and key, scaled at most."""

        def before(node: Node) -> list[Node]:
            ends = self.residuals.contains(node) or node.op not in _KEEP_SCORES
            return [] if ends else _makers(self.flow.data_of(node))

        return any(x.index in self.scores for x in reached(_makers([value]), before))

    def is_attention_output(self, value: Value) -> bool:
        """Whether a value is the output of an attention, moved and scaled at most."""

        def before(node: Node) -> Sequence[Node]:
            weighing = self.averages.makers(node)
            if weighing:
                return weighing
            data = self.flow.data_of(node)
            if node.op == "dot_general" and node.index not in self.kernels:
                shares = [value for value in data if is_softmax(value)]
                return _makers(v for v in data if v not in shares) if shares else []
            if is_centering(node):
                return _makers(node.inputs[:1])
            is_sum = node.op in SUMS and len(data) > 1
            kept = node.op in _KEEP_ATTENTION or (node.op in ELEMENTWISE and not is_sum)
            return _makers(data) if kept else []

        nodes = reached(_makers([value]), before)
        return any(node.index in self.attention_outputs for node in nodes)

    def made_of(self, value: Value) -> set[int]:
        """Indices of what a value is made of, back to the nearest contractions."""

        def before(value: Value) -> list[Value]:
            node = value.node
            if node is None or node.op in CONTRACTIONS or node.op == "carry":
                return []
            return [] if self.residuals.contains(node) else self.flow.data_of(node)

        return {found.index for found in reached([value], before)}

    def followed(self) -> list[bool]:
        """For each value, whether a contraction follows."""
        graph = self.flow.graph
        takers = (node for node in graph.nodes if node.op in CONTRACTIONS)

        def before(node: Node) -> list[Node]:
            return nodes_of(node.sources())

        found = [False] * len(graph.values)
        for node in reached(takers, before):
            for value in node.sources():
                found[value.index] = True
        return found

    def preceded(self) -> list[bool]:
        """For each value, whether a contraction or a lookup precedes."""
        found = [False] * len(self.flow.graph.values)
        for node in self.flow.graph.nodes:
            looked_up = node.op == "gather" and self.flow.from_leaves(node.inputs[0])
            own = looked_up or node.op in CONTRACTIONS
            if own or any(found[value.index] for value in node.inputs):
                for value in node.outputs:
                    found[value.index] = True
        return found


def structure_of(
    flow: Flow,
    attentions: Sequence[Attention],
    names: Sequence[str],
    over_time: Iterable[Loop] = (),
) -> Structure:
    """What is found in a graph.

    Args:
        flow: where every leaf goes.
        attentions: all attentions.
        names: the path of each leaf.
        over_time: loops that are known to be over time.
    """
    kernels = kernel_nodes(flow)
    loops = Loops(flow, kernels, over_time)
    values = {attention.output.index: attention.value for attention in attentions}
    scores = frozenset(attention.scores.index for attention in attentions)
    return Structure(
        flow,
        names,
        kernels,
        attentions,
        loops,
        Residuals(flow, kernels, values, scores, loops),
        scores,
        frozenset(values),
        Averages(flow, attentions),
        head_sums(flow),
    )


def _makers(values: Iterable[Value]) -> list[Node]:
    """The nodes that make values, or make what they are copies of."""
    found = map(maker, values)
    return [node for node in found if node is not None]
