"""Transformers by number of layers: Glorot, times a factor in what the stream gets."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from jaxinit._tree.leaf import Leaf
from jaxinit._tree.rules import Rules
from jaxinit.initializers.base import Initializer
from jaxinit.initializers.scaling import variance_scaling
from jaxinit.initializers.settings import Distribution
from jaxinit.initializers.wrappers import scaled
from jaxinit.schemes._arguments import CountOrNone
from jaxinit.schemes.building import (
    Factor,
    Rule,
    agreed,
    by_fan,
    by_width,
    refuse,
    scheme,
    side_by_side,
    stream_totals,
    times,
    transformer,
)
from jaxinit.schemes.parts import (
    EMBEDDING,
    FUSED,
    KERNEL,
    MLP_IN,
    POSITION,
    SCALE,
    VALUE,
    Part,
    axes,
    stack,
)


@scheme
def deepnorm(encoder_layers: CountOrNone = 0, decoder_layers: CountOrNone = 0) -> Rules:
    """DeepNorm: Glorot normal, times `beta` in kernels that write to the stream.

    - value, attention output, feed-forward: Glorot normal times `beta`
    - query, key, other kernels: Glorot normal
    - embedding `N(0, 1 / width)`; norm scale 1, bias 0

    With `L` layers of one stack `beta = (8 L)**(-1/4)`, and the model's residual is
    `norm(alpha x + f(x))`, `alpha = (2 L)**(1/4)`. With both stacks, of `N` and `M`
    layers: `beta = 0.87 (N**4 M)**(-1/16)`, `alpha = 0.81 (N**4 M)**(1/16)` in the
    encoder, `beta = (12 M)**(-1/4)`, `alpha = (3 M)**(1/4)` in the decoder. The paper
    leaves embeddings open.

    Wang et al., "DeepNet: scaling transformers to 1,000 layers" (2022).

    Args:
        encoder_layers: number of blocks in the encoder; of all blocks, if there is no
            decoder. If both are 0, a plan with roles counts the kernels that write to
            the one residual stream of the computation. The first path segment with one
            of the two words decides, such as `encoder`, `TransformerEncoder_0` or
            `decoder_blocks_3`.
        decoder_layers: number of blocks in the decoder; of all blocks, if there is no
            encoder.

    Returns:
        The rules.

    Raises:
        ValueError: if a number is negative.

    >>> deepnorm(decoder_layers=24).name
    'scheme deepnorm'
    """
    n, m = encoder_layers, decoder_layers
    if not n or not m:
        return _rescaled(_one_stack(n or m or None, _deepnorm))
    beta = _by_stack(0.87 * (n**4 * m) ** (-1 / 16), (12 * m) ** -0.25)
    return _rescaled(beta)


def _deepnorm(layers: int) -> float:
    return (8 * layers) ** -0.25


@scheme
def sub_ln(encoder_layers: CountOrNone = 0, decoder_layers: CountOrNone = 0) -> Rules:
    """Magneto: Glorot normal, times `gamma` in kernels that write to the stream.

    - value, attention output, feed-forward: Glorot normal times `gamma`
    - query, key, other kernels: Glorot normal
    - embedding `N(0, 1 / width)`; norm scale 1, bias 0

    With `L` layers of one stack `gamma = sqrt(log(2 L))`. With both, of `N` and `M`:
    `sqrt(log(3 M) log(2 N) / 3)` in the encoder, `sqrt(log(3 M))` in the decoder. The
    model has a second norm within each sublayer. The paper leaves embeddings open.

    Wang et al., "Foundation transformers" (2022).

    Args:
        encoder_layers: as in `deepnorm`.
        decoder_layers: as in `deepnorm`.

    Returns:
        The rules.

    Raises:
        ValueError: if a number is negative.

    >>> sub_ln(decoder_layers=24).name
    'scheme sub_ln'
    """
    n, m = encoder_layers, decoder_layers
    if not n or not m:
        return _rescaled(_one_stack(n or m or None, _magneto))
    decoder = math.sqrt(math.log(3 * m))
    return _rescaled(_by_stack(decoder * math.sqrt(math.log(2 * n) / 3), decoder))


def _magneto(layers: int) -> float:
    return math.sqrt(math.log(2 * layers))


@scheme
def t_fixup(encoder_layers: CountOrNone = 0, decoder_layers: CountOrNone = 0) -> Rules:
    """T-Fixup: Glorot uniform, narrower by depth, for transformers without norms.

    - value, attention output, feed-forward: Glorot uniform times `0.67 N**(-1/4)` in an
      encoder of `N` layers, `(9 M)**(-1/4)` in a decoder of `M`
    - query, key, other kernels: Glorot uniform
    - embedding: `N(0, 1 / width)` times `(9 M)**(-1/4)`, or, without a decoder, times
      `(9 N)**(-1/4)`
    - bias 0; the scale of a norm is refused

    The paper's program also multiplies values by `sqrt(2)`, because its library draws
    them that much narrower than Glorot uniform. Huang et al., "Improving transformer
    optimization through better initialization" (2020).

    Args:
        encoder_layers: as in `deepnorm`.
        decoder_layers: as in `deepnorm`.

    Returns:
        The rules.

    Raises:
        ValueError: if a number is negative, or both are zero.

    >>> t_fixup(encoder_layers=6, decoder_layers=6).name
    'scheme t_fixup'
    """
    n, m = _at_least_one(encoder_layers, decoder_layers)
    encoder, decoder = 0.67 * max(n, 1) ** -0.25, (9 * max(m, 1)) ** -0.25
    own = _by_stack(encoder, decoder)
    factor = own if n and m else _by_stack(encoder if n else decoder)
    no_norm = refuse("it is the scale of a norm: T-Fixup is for models without norms")
    embedding_factor = (9 * (m or n)) ** -0.25
    return _rescaled(factor, "uniform", {SCALE: no_norm}, embedding_factor)


def _at_least_one(encoder_layers: int, decoder_layers: int) -> tuple[int, int]:
    if not encoder_layers and not decoder_layers:
        raise ValueError(
            "encoder_layers and decoder_layers are both 0: give the number of blocks, "
            "such as decoder_layers=12."
        )
    return encoder_layers, decoder_layers


@dataclass(frozen=True)
class _one_stack:  # noqa: N801 - used, and therefore spelled, as a function
    """A factor by the number of layers of a model of one stack, given or found."""

    layers: int | None
    factor: Callable[[int], float]

    def __call__(self, leaf: Leaf) -> float:
        totals = stream_totals(leaf)
        is_one = len(totals) == 1 and totals[0] is not None and totals[0] % 2 == 0
        if self.layers is None and not is_one:
            raise ValueError(
                "the number of layers is not known: it takes the roles of a model of "
                "one residual stream, two kernels a layer write to it, and the writers "
                f"of each stream are {totals}; give encoder_layers= or decoder_layers="
            )
        found = totals[0] // 2 if is_one and totals[0] else None
        return self.factor(agreed("layers", self.layers, found))


@dataclass(frozen=True)
class _by_stack:  # noqa: N801 - used, and therefore spelled, as a function
    """A factor by stack, which the path tells; a single factor needs no such path."""

    encoder: float
    decoder: float | None = None

    def __call__(self, leaf: Leaf) -> float:
        if self.decoder is None:
            return self.encoder
        factors = {"encoder": self.encoder, "decoder": self.decoder}
        name = stack(leaf)
        if name is None:
            raise ValueError(
                "its path has neither encoder nor decoder as a segment or a word of one"
            )
        return factors[name]


def _rescaled(
    factor: Factor,
    law: Distribution = "normal",
    others: Mapping[Part, Rule] | None = None,
    embedding_factor: float = 1.0,
) -> Rules:
    """Glorot, times a factor in values and in kernels that write to the stream."""
    glorot = by_fan(1.0, "fan_avg", law)
    changed = times(glorot, factor)
    embedding = by_width(embedding_factor)
    rules = {
        VALUE: changed,
        FUSED: _fused(law, factor),
        MLP_IN: changed,
        **(others or {}),
        POSITION: embedding,
        EMBEDDING: embedding,
        KERNEL: glorot,
    }
    return transformer(changed, rules)


@dataclass(frozen=True)
class _fused:  # noqa: N801 - as above
    """Query, key and value side by side; only the value is changed.

    With roles, the value has been drawn by its own rule.
    """

    law: Distribution
    factor: Factor

    def __call__(self, leaf: Leaf) -> Initializer:
        if leaf.role is not None:
            return by_fan(1.0, "fan_avg", self.law)(leaf)
        plain = variance_scaling(1.0, "fan_avg", self.law, **axes(leaf))
        changed = scaled(plain, self.factor(leaf))
        return side_by_side(leaf, [plain, plain, changed], 3)
