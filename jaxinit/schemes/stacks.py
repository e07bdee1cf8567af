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
from jaxinit.schemes._streams import coders, depth_of, stream_of, untold, writing
from jaxinit.schemes.building import (
    Factor,
    Rule,
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

_BY_WIDTH = by_width()


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
            decoder. A plan with roles finds both numbers where they are 0: in a model
            of one residual stream, or of two, of which the decoder's attentions take
            keys from the other. Where roles do not tell the two apart, the first path
            segment with one of the two words decides, such as `encoder`,
            `TransformerEncoder_0` or `decoder_blocks_3`.
        decoder_layers: number of blocks in the decoder; of all blocks, if there is no
            encoder.

    Returns:
        The rules.

    Raises:
        ValueError: if a number is negative.

    >>> deepnorm(decoder_layers=24).name
    'scheme deepnorm'
    """
    layers = encoder_layers or None, decoder_layers or None
    return _rescaled(_by_layers(*layers, _deepnorm, _deepnorm_of_both))


def _deepnorm(layers: int) -> float:
    return (8 * layers) ** -0.25


def _deepnorm_of_both(n: int, m: int) -> tuple[float, float]:
    return 0.87 * (n**4 * m) ** (-1 / 16), (12 * m) ** -0.25


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
    layers = encoder_layers or None, decoder_layers or None
    return _rescaled(_by_layers(*layers, _magneto, _magneto_of_both))


def _magneto(layers: int) -> float:
    return math.sqrt(math.log(2 * layers))


def _magneto_of_both(n: int, m: int) -> tuple[float, float]:
    decoder = math.sqrt(math.log(3 * m))
    return decoder * math.sqrt(math.log(2 * n) / 3), decoder


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
    one = _fixed_up_encoder if n else _fixed_up_decoder
    factor = _by_layers(n or None, m or None, one, _fixed_up)
    no_norm = refuse("it is the scale of a norm: T-Fixup is for models without norms")
    embedding = _fixed_up_embedding(n or None, m or None)
    return _rescaled(factor, "uniform", {SCALE: no_norm}, embedding)


@dataclass(frozen=True)
class _fixed_up_embedding:  # noqa: N801 - used, and therefore spelled, as a function
    """Embeddings by the number of layers of the decoder, else of the encoder."""

    encoder: int | None
    decoder: int | None

    def __call__(self, leaf: Leaf) -> Initializer:
        found, layers = coders(leaf), self.decoder or self.encoder
        if found is not None:
            layers = _known("decoder_layers", found[1], self.decoder)
        assert layers is not None
        return by_width(_fixed_up_decoder(layers))(leaf)


def _fixed_up_encoder(layers: int) -> float:
    return 0.67 * layers**-0.25


def _fixed_up_decoder(layers: int) -> float:
    return (9 * layers) ** -0.25


def _fixed_up(n: int, m: int) -> tuple[float, float]:
    return _fixed_up_encoder(n), _fixed_up_decoder(m)


def _at_least_one(encoder_layers: int, decoder_layers: int) -> tuple[int, int]:
    if not encoder_layers and not decoder_layers:
        raise ValueError(
            "encoder_layers and decoder_layers are both 0: give the number of blocks, "
            "such as decoder_layers=12."
        )
    return encoder_layers, decoder_layers


@dataclass(frozen=True)
class _by_layers:  # noqa: N801 - used, and therefore spelled, as a function
    """A factor by the numbers of layers of one stack or two, given or found.

    Attributes:
        encoder: number of layers of the encoder; None if it is to be found, or there is
            no encoder.
        decoder: the same of the decoder.
        one: the factor of a model of one stack.
        both: the factors of encoder and decoder.
    """

    encoder: int | None
    decoder: int | None
    one: Callable[[int], float]
    both: Callable[[int, int], tuple[float, float]]

    def __call__(self, leaf: Leaf) -> float:
        found = coders(leaf)
        if found is not None:
            return self._of_both(leaf, *found)
        if self.encoder and self.decoder:
            return _by_path(leaf, *self.both(self.encoder, self.decoder))
        layers, totals = self.encoder or self.decoder, stream_totals(leaf)
        if len(totals) == 1:
            layers = depth_of(writing(leaf), layers)
        if layers is None:
            raise ValueError(
                "the number of layers is not known: it takes the roles of a model of "
                "one residual stream that repeats layer by layer, or of an encoder and "
                f"a decoder, and the writers of each stream are {totals}; give "
                "encoder_layers= or decoder_layers="
            )
        return self.one(layers)

    def _of_both(self, leaf: Leaf, encoder: Leaf, decoder: Leaf) -> float:
        n = _known("encoder_layers", encoder, self.encoder)
        m = _known("decoder_layers", decoder, self.decoder)
        factors = self.both(n, m)
        for own, factor in zip((encoder, decoder), factors, strict=True):
            if stream_of(own) == stream_of(leaf):
                return factor
        return _by_path(leaf, *factors)


def _known(name: str, leaf: Leaf, layers: int | None) -> int:
    """The number of layers of the stack of a leaf, as given or found."""
    found = depth_of(leaf, layers)
    if found is None:
        raise ValueError(f"{untold(leaf)}; give {name}=")
    return found


def _by_path(leaf: Leaf, encoder: float, decoder: float) -> float:
    """The factor of the stack that a path tells."""
    factors = {"encoder": encoder, "decoder": decoder}
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
    embedding: Rule = _BY_WIDTH,
) -> Rules:
    """Glorot, times a factor in values and in kernels that write to the stream."""
    glorot = by_fan(1.0, "fan_avg", law)
    changed = times(glorot, factor)
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
