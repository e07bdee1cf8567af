"""Mean and second moment of every activation at the start, from the computation.

Inputs are taken to be standard normal, and every kernel to give outputs of mean zero
and variance one, or its share of that where it writes to a residual stream. Take

    h = relu(x @ w1);  y = h @ w2

The output of `w1` is a standard normal `z`. `relu(z)` is an expression in `z`, and its
mean 0.399 and second moment 0.5 are integrals. So 0.5 enters `w2`, whose entries need
the variance `1 / (0.5 fan_in)`: He's rule, without asking for ReLU.

What holds:
- Expressions in one `z` are exact, whatever they are called: `silu(z)` knows that both
  factors are of the same `z`.
- What is made of several values, of parts of one, or of one in other places, takes
  them to be independent. But `a + w * (b - a)` is a mean of `a` and `b`.
  Sums of `n` values have the mean `n m` and the variance `n v`; a mean over many is
  close to constant, and so a norm gives one.
- What an attention, or a mean over positions, averages keeps its second moment, as if
  all positions were alike: an upper bound, which tokens reach that do not differ.
  A mean over members with kernels of their own, or over a stack, is of independent
  values, and so is what other shares of one sum weigh, as those of a router do.
  Scores that no sum divides, and shares that a kernel mixes, add up.
- A loop over time is followed until its moments settle, or for as many rounds as it
  has.
- Rows of embeddings have the second moment `1 / width`, with which `auto` draws them.
- What cannot be known counts as one where it enters a kernel, and `doubts` says why.
- Where gradients would grow or vanish with depth, `critical` says what to do instead.
"""

from collections.abc import Collection, Mapping

from jaxinit._roles.patterns.extents import has_even_inputs
from jaxinit._roles.patterns.normalization import is_normalized
from jaxinit._roles.patterns.streams import Addition
from jaxinit._roles.patterns.structure import Structure
from jaxinit._roles.patterns.weighed import apart
from jaxinit._roles.reading.graph import Node, Value
from jaxinit._roles.reading.primitives import COPIES, RELOCATIONS, SUMS
from jaxinit._roles.reading.values import maker, picks_rows, stripped
from jaxinit._roles.reading.walks import ancestor
from jaxinit._roles.role import Use
from jaxinit._roles.statistics.activations import Activations
from jaxinit._roles.statistics.critical import Critical, critical
from jaxinit._roles.statistics.rounds import settle
from jaxinit._roles.statistics.spreads import Spread

# Second moments beyond these come of what is misunderstood, or of high powers. A sum of
# 2048 rectified values, as of a set of points, has 7e5.
_LEAST, _MOST = 1e-4, 1e6


class Moments:
    """The moments that the kernels and positions of a graph go by.

    Attributes:
        entering: for the index of each contraction with leaves, the second moment of
            what enters it.
        wanted: for the index of each, the variance that its output should have: one, or
            its share of the residual stream that it writes to, as large as that begins,
            or comes out of the last norm or kernel that it went through; divided by the
            square of a number that multiplies it before a function, and times that of
            one that makes what enters small.
        added: for the index of each sum with leaves, the second moment of the other
            side, such as what positions are added to.
        doubts: for the indices of those whose moments are not known, and taken as one,
            why.
        critical: for the index of each contraction behind a function of what another
            gives, what keeps differences, where that is not what keeps variances.
        of_rows: indices of the contractions of rows of embeddings, behind which are a
            function and another contraction, none of which writes to a stream that
            begins with the rows.
    """

    def __init__(
        self,
        structure: Structure,
        held: Mapping[int, float],
        factors: Mapping[int, float],
        meant: Mapping[int, float],
        inner: Collection[int],
        unknown: Mapping[int, str],
    ):
        """Follows a graph, given what is found in it.

        Args:
            structure: what is found in the graph.
            held: for the index of each writer, how many branches its stream holds.
            factors: numbers that multiply outputs before a function, or before they are
                added to a stream, by the index of the contraction.
            meant: numbers that multiply what writers take, and are to make it small, by
                the index of the writer.
            inner: indices of the contractions that a function follows, and then
                another contraction.
            unknown: for the index of a node, what it takes that is not known.
        """
        flow = self._flow = structure.flow
        self._held, self._factors, self._inner = held, factors, inner
        self._meant, self._sums = meant, structure.head_sums
        self._outputs = set[int]()
        self._found = Activations(flow, structure.kernels, structure.averages, unknown)
        self.entering: dict[int, float] = {}
        self.wanted: dict[int, float] = {}
        self.added: dict[int, float] = {}
        self.doubts: dict[int, str] = {}
        self.critical: dict[int, Critical] = {}
        self.of_rows: set[int] = set()
        self._begins = _begins(structure)
        for _ in range(2):  # once more with what loops hand on
            for node in flow.graph.nodes:
                self._follow(node)
        settle(structure.loops, flow.graph.nodes, self._found, self._follow)

    def variance(self, node: Node, use: Use) -> float:
        """The variance that the entries of a kernel need."""
        known = self.critical.get(node.index)
        second = known.second if known else self.entering[node.index]
        terms = use.fan_in * second * use.multiplier**2
        return self.wanted[node.index] / terms if terms else 0.0

    def of_bias(self, kernels: Collection[Node], multiplier: float) -> float:
        """The variance that a bias behind some kernels needs."""
        if len(kernels) != 1 or not multiplier:
            return 0.0
        (index,) = (node.index for node in kernels)
        known = self.critical.get(index)
        return known.bias * self.wanted[index] / multiplier**2 if known else 0.0

    def _follow(self, node: Node) -> None:
        if node.op in SUMS and any(map(self._flow.from_leaves, node.inputs)):
            for value in self._flow.data_of(node):
                self.added[node.index] = self._trusted(node, self._found.spread(value))
        self._found.follow(node, self._contracted)

    def _trusted(self, node: Node, spread: Spread) -> float:
        """The second moment of what a node takes; one if it is not known."""
        second, meant = spread.second, self._meant.get(node.index, 1.0)
        doubt = spread.doubt or _implausible(second / meant**2)
        self.doubts.pop(node.index, None)
        if doubt:
            self.doubts[node.index] = doubt
        return 1.0 if doubt else second

    def _contracted(self, node: Node) -> Spread:
        """The output of a contraction with leaves."""
        data = next(v for v in node.inputs[:2] if self._flow.data(v))
        if picks_rows(data):
            self.entering[node.index] = self.wanted[node.index] = 1.0
            return self._found.normal(0.0, 1 / node.output.shape[-1])
        spread = self._found.spread(data)
        self.entering[node.index] = self._trusted(node, spread)
        is_inner, is_writer = node.index in self._inner, node.index in self._held
        is_of_rows = spread.root in self._found.rows and is_inner
        if is_of_rows and not self._is_in_branch(node, spread.root):
            self.of_rows.add(node.index)
        wanted = self.wanted[node.index] = self._wanted(node)
        heads = self._sums.get(node.index)
        of_one = heads.terms if heads and heads.is_one else 1
        made = self._found.normal(0.0, wanted / of_one)
        if not is_writer:
            self._outputs.add(made.root)
        self.critical.pop(node.index, None)
        is_of_kernel = self._found.pieces.whole(spread.root) in self._outputs
        if is_of_kernel and not (is_writer or spread.doubt):
            has_bias = is_inner and self._has_bias(node.output)
            known = critical(spread, has_bias, has_even_inputs(node, data))
            if known:
                self.critical[node.index] = known
        return made

    def _wanted(self, node: Node) -> float:
        """The variance that the output of a kernel, or its sum, should have."""
        is_known = node.index not in self.doubts
        meant = self._meant.get(node.index, 1.0) if is_known else 1.0
        stream = self._stream(node)
        heads = self._sums.get(node.index)
        if heads and node.index in self._held:  # each of them counts as a writer
            stream *= heads.nodes
        if heads and not heads.is_one:
            stream /= heads.terms
        held = self._held.get(node.index, 1.0)
        return stream / held / self._factors.get(node.index, 1.0) ** 2 * meant**2

    def _stream(self, node: Node) -> float:
        """How large the stream is that a kernel writes to; one if that is not known."""
        begin = self._begins.get(node.index)
        if begin is None:
            return 1.0
        first = self._found.spread(_before_loops(begin)).second
        if not first:  # it begins with zeros
            return 1.0
        doubt = self._found.spread(begin).doubt or _implausible(first)
        if doubt:
            self.doubts.setdefault(node.index, doubt)
        return 1.0 if doubt else first

    def _is_in_branch(self, node: Node, root: int) -> bool:
        """Whether what a kernel gives is added to a stream that begins with a root."""
        return any(
            self._found.spread(begin).root == root
            and ancestor(node.output, self._flow.graph.nodes[index].output)
            for index, begin in self._begins.items()
        )

    def _has_bias(self, value: Value) -> bool:
        """Whether a leaf is added to an output before anything else."""
        while len(value.users) == 1:
            (node,) = value.users
            if node.op in SUMS:
                return any(map(self._flow.from_leaves, node.inputs))
            if node.op not in COPIES | RELOCATIONS:
                return False
            value = node.output
        return False


def _implausible(second: float) -> str:
    """What is wrong with a second moment; "" if nothing is."""
    if _LEAST < second < _MOST:
        return ""
    return f"a second moment of {second:.1g} is not believed"


def _before_loops(value: Value) -> Value:
    """What a value is in the first round of the loops that hand it on."""
    while (node := stripped(value).node) is not None and node.op == "carry":
        (value,) = node.inputs
    return value


def _begins(structure: Structure) -> dict[int, Value]:
    """For the index of each writer, what its stream begins with.

    Where the stream itself goes through a norm or a kernel, it begins anew. A number
    below one that multiplies it makes room for the branch: the stream is no smaller.
    """
    found: dict[int, Value] = {}
    first: dict[int, Value] = {}
    begins: dict[Addition, Value] = {}
    for addition in structure.residuals.additions.values():
        skip = addition.skip
        inner, factor = apart(structure.flow, skip, addition.branch)
        skip = inner if abs(factor) < 1 else skip
        begin = first.setdefault(addition.stream, skip)
        if _is_anew(structure, skip) and not _is_branch(addition.above, skip):
            begin = skip
        elif addition.above is not None:
            begin = begins.get(addition.above, begin)
        begins[addition] = begin
        found |= {writer.index: begin for writer in addition.writers}
    return found


def _is_branch(addition: Addition | None, value: Value) -> bool:
    """Whether a value is what was added to a stream, and what it goes on with."""
    return addition is not None and stripped(addition.branch) is stripped(value)


def _is_anew(structure: Structure, value: Value) -> bool:
    """Whether a stream comes out of a norm or a kernel, or a loop hands that on."""
    node = maker(value)
    if node is not None and node.op == "carry" and node.back is not None:
        value, node = node.back, maker(node.back)
    if is_normalized(structure.flow, value):
        return True
    while node is not None and node.op in SUMS:  # a bias is added
        if structure.residuals.contains(node):
            return False
        data = structure.flow.data_of(node)
        node = maker(data[0]) if len(data) == 1 else None
    return node is not None and node.index in structure.kernels
