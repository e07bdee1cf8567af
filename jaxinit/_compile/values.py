"""What a traced function computes with: equations, and the values that they take."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from jax.extend import core

# Larger arrays of keys, or of messages, stay in the program.
MAX_KEYS = 1 << 16


@dataclass(frozen=True, eq=False, repr=False)
class Node:
    """One equation, applied to values.

    Attributes:
        eqn: the equation.
        inputs: what it is applied to.
        index: orders nodes as they were traced.
        is_piece: whether it is a part of a loop, which makes other outputs too.
    """

    eqn: core.JaxprEqn
    inputs: tuple["Value", ...]
    index: int
    is_piece: bool = False


@dataclass(frozen=True, eq=False, repr=False)
class Output:
    """Output `position` of a node."""

    node: Node
    position: int


@dataclass(frozen=True, eq=False, repr=False)
class Argument:
    """A flat argument of the traced function."""

    position: int


@dataclass(frozen=True, eq=False, repr=False)
class Constant:
    """An array that the traced function closed over."""

    value: Any


@dataclass(frozen=True, eq=False, repr=False)
class Literal:
    """A scalar written into the program."""

    atom: core.Literal


@dataclass(frozen=True, eq=False, repr=False)
class Keys:
    """Keys known by name.

    Attributes:
        names: for typed keys, the name of each; for raw words, twice the name of the
            key plus the number of the word.
        raw: whether these are words.
    """

    names: np.ndarray
    raw: bool


Value = Output | Argument | Constant | Literal | Keys


@dataclass(frozen=True, eq=False)
class Root:
    """Keys that are derived from no others, in an array.

    Attributes:
        shape: shape of the array.
        words: gives their words, from the flat argument at `position`.
        position: the argument that they are made of; None if of none.
    """

    shape: tuple[int, ...]
    words: Callable[[Any], Any]
    position: int | None
