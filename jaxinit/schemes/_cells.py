"""Recurrent layers: their kernels, gates and biases, by the names of libraries."""

import dataclasses
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

from jaxinit._roles.role import Role, Use
from jaxinit._tree.leaf import Leaf
from jaxinit._tree.sections import by_section
from jaxinit.initializers.base import Initializer
from jaxinit.initializers.basic import ones, zeros
from jaxinit.initializers.fans import as_tuple
from jaxinit.initializers.orthogonal_matrices import orthogonal
from jaxinit.initializers.sections import split
from jaxinit.initializers.sequence import forget_gate_bias
from jaxinit.schemes.building import Rule, drawn, side_by_side
from jaxinit.schemes.parts import Part, at, axes, beside, bias_beside

# Names of the kernels of inputs and state if they are in one module; else names of the
# two modules.
_IN_ONE = (("weight_ih", "weight_hh"), ("w_i", "w_h"), ("kernel", "recurrent_kernel"))
_APART = (("input_to_hidden", "hidden_to_hidden"), ("ih", "hh"))
_KERNELS = ("kernel", "weight", "w")


@dataclass(frozen=True)
class Cell:
    """The kernels of a recurrent layer, or of one of its gates.

    Attributes:
        inputs: the kernel of the inputs.
        state: the kernel of the state. In Haiku's LSTM, both are one leaf, with the
            rows of the inputs first.
        gate: letter of the gate, if each gate has kernels of its own.
        adds_one: whether the layer adds 1 to its forget gate by itself.
    """

    inputs: Leaf
    state: Leaf
    gate: str = ""
    adds_one: bool = False

    @property
    def is_joint(self) -> bool:
        """Whether one kernel is applied to inputs and state together."""
        return self.inputs.path == self.state.path

    @property
    def units(self) -> int:
        """Size of the state."""
        return self._outputs // 4 if self.is_joint else self._size("in_axis")

    @property
    def gates(self) -> int:
        """How many gates lie side by side in each kernel."""
        return self._outputs // self.units

    @property
    def _outputs(self) -> int:
        return self._size("out_axis")

    def _size(self, which: str) -> int:
        axis = axes(self.state)[which]
        sizes = [self.state.shape[i] for i in as_tuple(axis)]
        return math.prod(sizes)


def cell(leaf: Leaf) -> Cell | None:
    """The recurrent layer that a kernel or bias belongs to; None if there is none.

    It has two kernels in one module, such as `weight_ih` and `weight_hh`; or two in
    neighbouring modules, such as Flax's `dense_i` and `dense_h`, `if` (in NNX `if_`)
    and `hf`, or `i` and `h`, or Haiku's `input_to_hidden` and `hidden_to_hidden`; or
    the single kernel of Haiku's `lstm`.
    """
    return next(_cells(leaf), None)


def _cells(leaf: Leaf) -> Iterator[Cell]:
    owner = leaf.path.rpartition("/")[0]
    inside = f"{owner}/" if owner else ""
    for inputs, state in _IN_ONE:
        yield from _of_two(leaf, inside + inputs, inside + state)
    around, _, module = owner.rpartition("/")
    for inputs, state, gate in _modules(around, module):
        for name in _KERNELS:
            paths = (f"{around}/{x}/{name}".removeprefix("/") for x in (inputs, state))
            for pair in _of_two(leaf, *paths):
                # Flax's ConvLSTMCell adds 1 by itself.
                is_convolution = len(pair.state.shape) > 2
                yield dataclasses.replace(pair, gate=gate, adds_one=is_convolution)
    joint = f"{inside}w"
    if module == "linear" and _LSTM.fullmatch(around) and joint in leaf.leaves:
        yield Cell(at(leaf, joint), at(leaf, joint), adds_one=True)


def _of_two(leaf: Leaf, inputs: str, state: str) -> Iterator[Cell]:
    if inputs in leaf.leaves and state in leaf.leaves:
        yield Cell(at(leaf, inputs), at(leaf, state))


def _modules(around: str, module: str) -> Iterator[tuple[str, str, str]]:
    """Names of the modules that may hold the two kernels, and the letter of a gate."""
    for pair in _APART:
        if module in pair:
            yield *pair, ""
    if _VANILLA.fullmatch(around):
        yield "linear", "linear_1", ""
    gate = _GATE.fullmatch(module)
    if gate:
        dense, letter = gate.groups()
        for end in ("", "_"):  # `if` and `in` cannot be names of attributes
            yield f"{dense}i{letter}{end}", f"{dense}h{letter}", letter


# Modules of these names, with or without a number.
_VANILLA = re.compile(r"(.*/)?vanilla_rnn(_\d+)?")
_LSTM = re.compile(r"(.*/)?lstm(_\d+)?")
_GATE = re.compile(r"(dense_|)[ih]([ifgorzn]?)_?")


class _StateKernel(Part):
    def __call__(self, leaf: Leaf) -> bool:
        if leaf.role is not None:
            return _is_recurrent(leaf.role)
        own = cell(leaf)
        return own is not None and leaf.path == own.state.path


class _InputKernel(Part):
    def __call__(self, leaf: Leaf) -> bool:
        if leaf.role is not None:
            return any(map(has_gate, leaf.role.kernels))
        own = cell(leaf)
        return own is not None and leaf.path == own.inputs.path


class _ForgetBias(Part):
    def __call__(self, leaf: Leaf) -> bool:
        own = cell(leaf) if super().__call__(leaf) else None
        return own is not None and own.gate == "f"


def _is_recurrent(role: Role) -> bool:
    """Whether a kernel is a matrix that takes nothing but the past."""
    return bool(role.kernels) and all(
        maps_past(use) and "input" not in {section.part for section in use.sections}
        for use in role.kernels
    )


def maps_past(use: Use) -> bool:
    """Whether a kernel is recurrent, with one axis of inputs and one of outputs."""
    return use.recurrent and len(use.in_axis) == len(use.out_axis) == 1


def has_gate(use: Use) -> bool:
    """Whether a kernel or bias is for gates of a recurrent cell."""
    return not GATES.isdisjoint({use.part, *(section.part for section in use.sections)})


_OF_LSTM = ("input gate", "forget gate", "cell", "output gate")
_OF_GRU = ("update gate", "reset gate", "candidate")
GATES = frozenset((*_OF_LSTM, *_OF_GRU))
RECURRENT = _StateKernel("recurrent kernel, such as dense_h, hi or weight_hh", "kernel")
GATE_INPUT = _InputKernel("input kernel of a recurrent layer", "kernel")
FORGET_INPUT = _ForgetBias("bias of a forget gate's input", "bias", "if if_")


def kernels(inputs: Rule, state: Rule) -> dict[Part, Rule]:
    """Rules for the two kernels of recurrent layers, also if they are one leaf."""
    return {RECURRENT: of_state(inputs, state), GATE_INPUT: inputs}


@dataclass(frozen=True)
class of_state:  # noqa: N801 - used, and therefore spelled, as a function
    """The rule for a kernel of the state, which may have the rows of the inputs too."""

    inputs: Rule
    state: Rule

    def __call__(self, leaf: Leaf) -> Initializer:
        """The initializer; for a joint kernel, the rows of the inputs come first."""
        own = cell(leaf) if leaf.role is None else None
        if own is None or not own.is_joint:
            return drawn(self.state, leaf)
        rows, columns = leaf.shape
        sizes = (rows - own.units, own.units)
        sections = [
            drawn(rule, dataclasses.replace(leaf, shape=(size, columns)))
            for rule, size in zip((self.inputs, self.state), sizes, strict=True)
        ]
        return split(tuple(sections), sizes, axis=0)


@dataclass(frozen=True)
class by_gate:  # noqa: N801 - as above
    """A rule for each of the gates that lie side by side along the outputs."""

    rule: Rule

    def __call__(self, leaf: Leaf) -> Initializer:
        """The initializer of all gates together."""
        if leaf.role is not None:
            return by_section(self.rule)(leaf)
        init, own = drawn(self.rule, leaf), cell(leaf)
        if own is None or own.gates == 1:
            return init
        return side_by_side(leaf, init, own.gates)


def orthogonal_by_layer(leaf: Leaf) -> Initializer:
    """Orthogonal, each of the kernels that are stacked in one leaf for itself."""
    if leaf.role is None:
        return orthogonal()
    use = leaf.role.kernels[0]
    stacks = tuple(sorted((*use.batch_axis, *use.stack_axis)))
    if not stacks:
        return orthogonal()
    return orthogonal(column_axis=use.out_axis[-1], batch_axis=stacks)


def remembering(leaf: Leaf) -> Initializer:
    """1 for the forget gate, 0 for other biases.

    All are 0 if the layer adds 1 by itself. If inputs and state have a bias each, only
    the bias of the state gets the 1.
    """
    if leaf.role is not None:
        return by_section(_remembering)(leaf)
    own = cell(leaf)
    if own is None or own.adds_one or _is_second(leaf, own):
        return zeros
    if own.gate == "f":
        return ones
    return forget_gate_bias() if own.gates == 4 else zeros


def _is_second(leaf: Leaf, own: Cell) -> bool:
    """Whether a bias is of the inputs, and the state has one too."""
    is_of_state = beside(leaf.path, "") == beside(own.state.path, "")
    return not is_of_state and bias_beside(own.state) is not None


def _remembering(leaf: Leaf) -> Initializer:
    """As `remembering`, for a bias, or a section of one, whose role is known."""
    assert leaf.role is not None
    use = leaf.role.uses[0]
    if use.part != "forget gate" or any(map(_adds_one, _kernels_of(leaf, use))):
        return zeros
    others = {path: role.uses for path, role in leaf.roles.items()}
    biases = [
        path
        for path, uses in others.items()
        if any(x.of and has_gate(x) and _is_of_state(leaf, x) for x in uses)
    ]
    if not _is_of_state(leaf, use):
        return zeros if biases else ones
    # Of several biases behind the same kernels, the first.
    same = (path for path in biases if use.of in {x.of for x in others[path]})
    return ones if next(same) == leaf.path else zeros


def _is_of_state(leaf: Leaf, bias: Use) -> bool:
    return any(kernel.recurrent for kernel in _kernels_of(leaf, bias))


def _kernels_of(leaf: Leaf, bias: Use) -> list[Use]:
    """The kernels that a bias is added behind."""
    roles = [leaf.roles[path] for path in bias.of if path in leaf.roles]
    return [use for role in roles for use in role.kernels]


def _adds_one(kernel: Use) -> bool:
    """Whether a cell adds to its forget gate by itself."""
    gates = [(x.part, x.gain) for x in (kernel, *kernel.sections)]
    return any(
        part == "forget gate" and gain is not None and abs(gain - _SIGMOID) > 1e-3
        for part, gain in gates
    )


_SIGMOID = 1.8462  # gain of a sigmoid to which no 1 is added
